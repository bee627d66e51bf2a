"""belated and river: our model keeps river's rules, and river's classifiers learn where our trainers do."""

import inspect
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from river import base, datasets, linear_model, metrics
from river.checks import clf, common

from learner import features
from learner.batch import KINDS, Batch, Look
from learner.model import Shape
from stream.assemble import Assembler
from stream.river import BelatedClassifier, Contestant, names

Row = tuple[dict[str, Any], bool]
PHISHING = list(datasets.Phishing())
ELSEWHERE = {
    "check_debug_one": "for pipelines",
    "check_has_tag": "takes a tag, and there is none",
    "check_learn_many_matches_learn_one": "for classifiers that learn many rows at once",
    "check_predict_many_matches_predict_one": "for classifiers that learn many rows at once",
    "check_predict_proba_many_matches_predict_proba_one": "for classifiers that learn many rows at once",
    "check_transform_one": "for transformers",
    "check_transform_many_matches_transform_one": "for transformers",
    "check_wrapper_accepts_kwargs": "for wrappers",
}


def checks() -> Iterator[Any]:
    """River's checks of classifiers with rows that river uses, each with labels bool and np.bool_.

    River's own list of them cannot be asked for without scikit-learn.
    """
    for module in (common, clf):
        for name, check in vars(module).items():
            if not name.startswith("check_") or name in ELSEWHERE:
                continue
            if "dataset" not in inspect.signature(check).parameters:
                yield pytest.param(check, id=name)
                continue
            rows = PHISHING if name == "check_bounded_memory_growth" else PHISHING[:120]
            yield pytest.param(partial(check, dataset=rows), id=f"{name}-bool")
            yield pytest.param(partial(check, dataset=[(x, np.bool_(y)) for x, y in rows]), id=f"{name}-np.bool_")


@pytest.mark.parametrize("check", list(checks()))
def test_rivers_checks_hold(check: Callable[[Any], None]) -> None:
    """Every check of river's that is about classifiers."""
    check(BelatedClassifier())


def test_no_check_is_skipped() -> None:
    """River may skip none, and what is left out above is there to be left out."""
    assert BelatedClassifier()._unit_test_skips() == set()
    assert all(hasattr(common, name) or hasattr(clf, name) for name in ELSEWHERE)


def stream(size: int, seed: int = 0) -> list[Row]:
    """Rows whose label depends on a text, a member of a list and a number; some values are missing."""
    random = Random(seed)  # noqa: S311
    rows = []
    for _ in range(size):
        colour, price = random.choice("abcde"), random.lognormvariate(3, 1)
        tags = random.sample("pqrstu", 2)
        chance = 0.05 + 0.5 * (colour == "b") + 0.4 * (price > 40)
        x = {"colour": colour, "price": price, "tags": tags, "new": random.random() < 0.5, "noise": random.random()}
        if random.random() < 0.2:
            x["noise"] = None
        rows.append((x, random.random() < chance))
    return rows


def test_it_learns() -> None:
    """Each row is predicted before it is learned: far better than chance, and on average near the rate."""
    model, auc, rows = BelatedClassifier(), metrics.ROCAUC(), stream(1000)
    scores = []
    for x, y in rows:
        chances = model.predict_proba_one(x)
        auc.update(y, chances)
        scores.append(chances[True])
        model.learn_one(x, y)
    assert auc.get() > 0.75
    assert np.mean(scores) == pytest.approx(np.mean([y for _, y in rows]), abs=0.03)


def test_before_anything_was_learned_it_says_the_base_rate() -> None:
    """For any row."""
    for rate in (0.05, 0.4):
        model = BelatedClassifier(base_rate=rate)
        assert model.predict_proba_one({})[True] == pytest.approx(rate, abs=1e-6)
        assert model.predict_proba_one({"a": "x", "b": 3})[True] == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize("kind", [bool, int, float, np.bool_, np.int64])
def test_labels_are_of_the_kind_that_was_learned(kind: type) -> None:
    """Predictions are keyed by the labels that were learned; their kind changes no probability."""
    model, plain = BelatedClassifier(), BelatedClassifier()
    for x, y in stream(30):
        model.learn_one(x, kind(y))
        plain.learn_one(x, y)
    found = model.predict_proba_one({"colour": "b"})
    assert [type(label) for label in found] == [kind, kind]
    assert found == plain.predict_proba_one({"colour": "b"})
    assert type(model.predict_one({})) is kind


VALUES = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=3), st.lists(st.text()))


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.dictionaries(st.text(max_size=3), VALUES, max_size=40), st.booleans()), max_size=4), st.data()
)
def test_the_order_of_features_changes_nothing(rows: list[Row], data: st.DataObject) -> None:
    """To the last bit, whatever the values are, and all predictions are probabilities."""
    one, other = BelatedClassifier(), BelatedClassifier()
    for x, y in rows:
        shuffled = {name: x[name] for name in data.draw(st.permutations(list(x)))}
        found = one.predict_proba_one(x)
        assert found == other.predict_proba_one(shuffled)
        assert 0 < found[True] < 1
        one.learn_one(x, y)
        other.learn_one(shuffled, y)


def test_predictions_change_nothing() -> None:
    """A model asked about other features and values all the time learns as one that is never asked."""
    asked, left = BelatedClassifier(), BelatedClassifier()
    for n, (x, y) in enumerate(stream(60)):
        for question in ({f"other{n}": "x", f"number{n}": n}, {"colour": 3.0, "price": "much"}, x):
            assert asked.predict_proba_one(question) == asked.predict_proba_one(question)
        asked.learn_one(x, y)
        left.learn_one(x, y)
        assert asked.predict_proba_one(x) == left.predict_proba_one(x)


def test_missing_values() -> None:
    """None, NaN and infinite numbers are as if they were not there; True is a text and not the number 1."""
    models = [BelatedClassifier() for _ in range(4)]
    for x, y in stream(40):
        for model, value in zip(models, (None, math.nan, math.inf, True), strict=True):
            model.learn_one(x | {"extra": value}, y)
    found = [model.predict_proba_one({"colour": "b"})[True] for model in models]
    assert found[0] == found[1] == found[2] != found[3]
    assert models[3].predict_proba_one({"extra": True}) == models[3].predict_proba_one({"extra": "True"})
    assert models[3].predict_proba_one({"extra": True}) != models[3].predict_proba_one({"extra": 1})


@pytest.mark.parametrize("copied", [deepcopy, lambda model: model.clone(include_attributes=True)])
def test_a_copy_goes_on_to_the_bit(copied: Callable[[Any], Any]) -> None:
    """And alone: what the copy learns the original does not."""
    model = BelatedClassifier(seed=3)
    for x, y in stream(40):
        model.learn_one(x, y)
    before = model.predict_proba_one({"colour": "b"})
    copy = copied(model)
    for x, y in stream(20, 1):
        copy.learn_one(x, y)
    assert model.predict_proba_one({"colour": "b"}) == before
    for x, y in stream(20, 1):
        model.learn_one(x, y)
    assert model.predict_proba_one({"colour": "b"}) == copy.predict_proba_one({"colour": "b"}) != before


def test_seeds_of_our_model() -> None:
    """Equal seeds give equal predictions, others give others."""
    found = []
    for seed in (7, 7, 8):
        model = BelatedClassifier(seed=seed)
        for x, y in stream(50):
            model.learn_one(x, y)
        found.append([model.predict_proba_one(x)[True] for x, _ in stream(20, 1)])
    assert found[0] == found[1] != found[2]


def test_what_it_cannot_learn_from_is_said() -> None:
    """A label that is neither of two, and a rate that is none."""
    with pytest.raises(ValueError, match="label 'yes': expected True or False"):
        BelatedClassifier().learn_one({}, "yes")
    with pytest.raises(ValueError, match="base_rate 5: expected a share between 0 and 1"):
        BelatedClassifier(base_rate=5)


def batches(rows: list[Row], size: int = 128) -> list[Batch]:
    """The rows as closed looks, without what is missing."""
    assembler, found = Assembler(Shape()), []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        encoded = assembler.rows({k: v for k, v in x.items() if k != "new" and v is not None} for x, _ in part)
        label, time = torch.tensor([float(y) for _, y in part]), torch.zeros(len(part), dtype=torch.float64)
        look, keys, signals = (
            torch.full((len(part),), int(Look.CLOSE)),
            torch.arange(len(part)),
            torch.zeros(len(part), KINDS),
        )
        known = (time, time, time, label, label, time, signals, time, time, label, time, signals, signals)
        found.append(Batch(encoded, look, keys, *known))
    return found


BATCHES = batches(stream(1200))


def progressive(contestant: Contestant) -> float:
    """AUC where each batch is scored before it is learned."""
    auc = metrics.ROCAUC()
    for batch in BATCHES:
        for score, label in zip(contestant.score(batch.rows).tolist(), batch.label.tolist(), strict=True):
            auc.update(label > 0, score)
        assert torch.equal(contestant.learn(batch), torch.ones(batch.size))
    return float(auc.get())


@pytest.mark.parametrize("name", ["LogisticRegression", "HoeffdingTreeClassifier", "ARFClassifier", "KNNClassifier"])
def test_a_contestant_learns_the_same_twice(name: str) -> None:
    """Far better than chance, and every score is the same to the bit the second time."""
    one, other = Contestant(name, 0.05, 1), Contestant(name, 0.05, 1)
    assert one.digest() == other.digest()
    assert progressive(one) > 0.62
    assert progressive(other) > 0.62
    assert one.digest() == other.digest()
    one.score(BATCHES[0].rows)
    assert one.digest() != other.digest()


@pytest.mark.parametrize("name", names())
def test_every_usable_classifier_gives_scores(name: str) -> None:
    """The base rate until both labels were learned, a probability from then on."""
    contestant, batch = Contestant(name, 0.07, 1), BATCHES[0]
    assert contestant.score(batch.rows).tolist() == [0.07] * batch.size
    contestant.learn(batch.take((batch.label == 0).nonzero().squeeze(1)))
    assert contestant.score(batch.rows).tolist() == [0.07] * batch.size
    contestant.learn(BATCHES[1])
    scores = contestant.score(BATCHES[2].rows)
    assert scores.dtype == torch.float64
    assert scores.shape == (BATCHES[2].size,)
    assert bool(((scores >= 1e-7) & (scores <= 1 - 1e-7)).all())
    assert contestant.score(batch.rows.take(torch.empty(0, dtype=torch.int64))).shape == (0,)


@pytest.mark.parametrize("name", names())
def test_every_usable_classifier_bears_hashed_values_alone(name: str) -> None:
    """A feature that is 1.0 in every row, often enough for a tree to think of a split."""
    contestant = Contestant(name, 0.05, 1)
    for batch in batches([({"shop": "here"}, y) for _, y in stream(256)]):
        contestant.learn(batch)
        assert bool(contestant.score(batch.rows).isfinite().all())


def test_a_contestant_is_rivers_model_on_the_rows_as_dicts() -> None:
    """A logistic regression fed by hand with hashed values and standardised numbers gives the same scores."""
    contestant, model, moments = Contestant("LogisticRegression", 0.05, 0), linear_model.LogisticRegression(), None
    for batch in BATCHES[:3]:
        moments = features.update(moments or features.init(Shape().numbers), batch.rows.numbers)
        contestant.learn(batch)
        dicts = []
        for r in range(batch.size):
            row = batch.rows.take(torch.tensor([r]))
            x = {f"{slot}:{value}": 1.0 for slot, value in zip(row.slots.tolist(), row.ids.tolist(), strict=True)}
            for column in (~row.numbers[0].isnan()).nonzero().flatten().tolist():
                x[f"n{column}"] = float(features.standardise(moments, row.numbers)[0, column])
            model.learn_one(x, bool(batch.label[r]))
            dicts.append(x)
        assert contestant.score(batch.rows).tolist() == [model.predict_proba_one(x)[True] for x in dicts]


def test_the_report_of_a_contestant_adds_up() -> None:
    """Looks, steps, weights of one, and the log loss of the scores given before each step (here without numbers)."""
    contestant, losses = Contestant("LogisticRegression", 0.05, 0), 0.0
    for batch in batches([({"colour": x["colour"]}, y) for x, y in stream(500)]):
        score, label = contestant.score(batch.rows), batch.label.double()
        losses -= float((label * score.log() + (1 - label) * (1 - score).log()).sum())
        contestant.learn(batch)
        contestant.observe(batch)
    assert (contestant.version, contestant.report.looks) == (4, 500)
    assert contestant.report.loss == pytest.approx(losses)
    assert contestant.report.weights() == {"mean": 1.0, "max": 1.0, "clipped_share": 0.0, "ess_share": 1.0}
    assert contestant.tensors() == {}
    contestant.restore({})
    assert contestant.version == 4


def test_names() -> None:
    """Concrete classifiers with probabilities; those that need arguments, or only positive numbers, are not among them."""
    found = names()
    assert found == sorted(found)
    assert {"LogisticRegression", "GaussianNB", "HoeffdingTreeClassifier", "KNNClassifier", "FMClassifier"} <= set(
        found
    )
    assert not {"Classifier", "AdaBoostClassifier", "VotingClassifier", "MultinomialNB"} & set(found)
    assert all(isinstance(Contestant(name, 0.05, 0).model, base.Classifier) for name in found)


@pytest.mark.parametrize(
    "name", ["LogisticRegresion", "BaggingClassifier", "Classifier", "MultinomialNB", "LinearRegression"]
)
def test_an_unusable_name_is_told_with_the_usable_ones(name: str) -> None:
    """Unknown, with required arguments, abstract, for positive numbers only, no classifier."""
    with pytest.raises(ValueError, match=f"river classifier '{name}'.*as it is: ALMAClassifier.*LogisticRegression"):
        Contestant(name, 0.05, 0)
