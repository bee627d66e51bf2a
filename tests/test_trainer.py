"""A learner: scores that depend on their row alone, a state that continues to the bit, weights that are accounted for."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner import features
from learner.auxiliaries import AUXILIARIES
from learner.batch import KINDS, Batch, Look, Rows, cat, cat_rows, restore, tensors
from learner.methods import METHODS
from learner.model import BELIEF, FEW, FIRST, MOVES, PRIOR, RATE, START, STRIDE, ConversionModel, Shape, by_slot
from learner.posterior import (
    STATES,
    SignalRatio,
    init_first_look,
    init_signals,
    log_ratio,
    signal_state,
    update_first_look,
    update_signals,
)
from learner.trainer import BATCH, BLOCK, Trainer

SMALL = Shape(buckets=512, slots=5, numbers=4, width=4, hidden=(8, 6))


def rows(size: int, seed: int, shape: Shape = SMALL) -> Rows:
    """Random rows with none to three hashed values in each slot and some missing numbers."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 2 * shape.slots, size)
    total = int(counts.sum())
    numbers = generator.lognormal(2, 2, (size, shape.numbers))
    numbers[generator.random(numbers.shape) < 0.2] = np.nan
    return Rows(
        torch.from_numpy(generator.integers(0, shape.buckets, total)),
        torch.from_numpy(generator.integers(0, shape.slots, total)),
        torch.from_numpy(np.concatenate([[0], counts.cumsum()])),
        torch.from_numpy(numbers),
    )


def batch(size: int, seed: int, look: Look = Look.FIRST, at: float = 1e9) -> Batch:
    """Random looks with labels that depend on the first number."""
    generator = np.random.default_rng(seed + 1000)
    features_ = rows(size, seed)
    good = torch.nan_to_num(features_.numbers[:, 0]) > 8
    label = (torch.from_numpy(generator.random(size)) < torch.where(good, 0.6, 0.05)).to(torch.float32)
    first = label * torch.from_numpy(generator.integers(0, 2, size)).to(torch.float32)
    time = torch.full((size,), at, dtype=torch.float64)
    signals = torch.from_numpy(generator.integers(0, 4, (size, KINDS))).to(torch.float32)
    since = torch.where(signals.sum(1) > 0, torch.from_numpy(generator.random(size) * 7), -1.0)
    elapsed = torch.full((size,), 7.0, dtype=torch.float64)
    known = label if look is not Look.FIRST else first
    delay = torch.where(known > 0, torch.from_numpy(generator.random(size) * 60), -1.0)
    looks, keys = torch.full((size,), int(look)), torch.arange(size)
    signalled = torch.where(signals > 0, 1.0, -1.0).double()
    before, age = (0 * first, elapsed) if look is Look.FIRST else (first, torch.full_like(elapsed, 60.0))
    earlier = 0 * elapsed if look is Look.FIRST else elapsed
    return Batch(
        features_, looks, keys, time, time - age, elapsed, known, first, delay, signals, since, age, before, earlier,
        signals, signalled,
    )  # fmt: skip


def trainer(method: str = "pq_signals", seed: int = 0) -> Trainer:
    return Trainer(method, 7.0, 60.0, seed, SMALL)


def taught(method: str = "pq_signals", seed: int = 0) -> Trainer:
    """A trainer after some outcomes and steps."""
    found = trainer(method, seed)
    for step in range(4):
        found.observe(batch(100, step, Look.CLOSE))
        found.observe(batch(50, step + 50, Look.CONVERSION))
        found.learn(batch(BATCH, step))
    return found


@settings(max_examples=30)
@given(st.permutations(list(range(40))), st.lists(st.integers(1, 39), max_size=5))
def test_a_score_depends_on_its_row_alone(order: list[int], cuts: list[int]) -> None:
    """To the last bit, whatever rows stand beside it, before it, or in how many pieces they are scored."""
    index = torch.tensor(order)
    pieces = [p for p in np.split(np.array(order), sorted(set(cuts))) if len(p)]
    for learner in LEARNERS:
        whole = learner.score(ROWS)
        cut = torch.cat([learner.score(ROWS.take(torch.from_numpy(piece))) for piece in pieces])
        assert torch.equal(cut, whole[index])


LEARNER, ROWS = taught(), rows(40, 9)
LEARNERS = (LEARNER, taught("fnc"), taught("bidefuse"))  # every way to serve


def test_a_score_depends_on_its_row_alone_at_full_size() -> None:
    """The same for the sizes in which models are made."""
    drawn, data = torch.Generator().manual_seed(0), rows(300, 1, Shape())
    learner = Trainer("pq_signals", 7.0, 60.0, 0)
    for value in (learner.models[0].slope, learner.models[0].weight, learner.models[0].dense["out"]):
        value.normal_(generator=drawn)
    whole = learner.score(data)
    for _ in range(20):
        order = torch.randperm(300, generator=drawn)
        assert torch.equal(learner.score(data.take(order)), whole[order])


def test_inputs_that_are_not_aligned_are_refused() -> None:
    """Rows of the network's input would begin at several alignments, and a score depend on where its row stands."""
    with pytest.raises(ValueError, match="slots \\* width \\+ numbers is 23; make it a multiple of 4"):
        ConversionModel(SMALL._replace(numbers=3), torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="hidden\\[0\\] is 21; make it a multiple of 4"):
        ConversionModel(SMALL._replace(hidden=(21, 6)), torch.Generator().manual_seed(0))


def test_long_and_short_runs_of_rows_score_alike() -> None:
    """More rows than a block are scored as they are one by one."""
    many = rows(2 * BLOCK + 3, 4)
    whole = LEARNER.score(many)
    for n in (0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 2):
        assert torch.equal(LEARNER.score(many.take(torch.tensor([n]))), whole[n : n + 1])
    assert LEARNER.score(many.take(torch.empty(0, dtype=torch.int64))).shape == (0,)


@pytest.mark.parametrize("method", METHODS)
def test_only_estimates_at_their_bounds_are_told_as_clipped(method: str) -> None:
    """A conversion that is known, or a window that is closed, is certain: no estimate was clipped for that."""
    learner = trainer(method)
    for turn, look in enumerate((Look.FIRST, Look.AGE, Look.CONVERSION, Look.CLOSE)):
        learner.learn(batch(BATCH, turn, look))
    assert learner.report.looks == 4 * BATCH
    assert learner.report.clipped == 0


@pytest.mark.parametrize("values", [1, 100, 3000])
def test_first_looks_of_rows_with_thousands_of_values(values: int) -> None:
    """A softmax of them learns the shares as of rows with one, and is never 0 / 0."""
    state, chance = init_first_look(1 << 16), torch.Generator().manual_seed(0)
    shared = torch.arange(values)
    for turn in range(60):
        told = batch(64, turn, Look.CLOSE)
        converts = (torch.rand(64, generator=chance) < 0.1).float()
        ids, ptr = torch.cat([shared] * 64), torch.arange(65) * values
        same = told.rows._replace(ids=ids, slots=0 * ids, ptr=ptr)
        told = told._replace(rows=same, label=converts, first_label=0 * converts)
        state = update_first_look(state, told)
        found = AUXILIARIES["first_look"].estimate(state, told, converts)
        assert all(bool(torch.isfinite(value).all()) for value in found.values())
    assert float(found["p_dp"].mean()) == pytest.approx(0.1, abs=0.05)


def test_what_was_learned_half_a_window_ago_counts_half() -> None:
    """Curvature fades with event time, not with rows: the next batch adds the same to all of it or to half of it."""
    found = {}
    for later in (0.0, 30.0):
        learner = trainer()
        learner.learn(batch(BATCH, 0))
        before = {name: learner.models[0].memory[name].clone() for name in ("base", "slope")}
        again = batch(BATCH, 1)
        learner.learn(again._replace(at=again.at + later))
        found[later] = learner.models[0].memory
    for name, was in before.items():
        assert bool((was > 4).all())  # far from where curvature never falls below
        assert torch.allclose(found[0.0][name] - found[30.0][name], was / 2, rtol=0.1)  # both follow their level


def test_an_intercept_that_wanders_is_a_kalman_filter_of_a_random_walk() -> None:
    """After long it is as uncertain as the filter of a level that moves by `MOVES` a window, whatever was known at first."""
    data, numbers = linear_only(64)
    step, left = 0.01, []
    for begins in (BELIEF, 5000.0):
        model = ConversionModel(SMALL, torch.Generator().manual_seed(0))
        model.memory["base"].fill_(begins)
        for turn in range(600):
            run = model.forward(data, numbers)
            target = torch.full((64,), float(turn % 2))
            loss = torch.nn.functional.binary_cross_entropy_with_logits(run.logit, target, reduction="none")
            model.step(run, (0.01 * loss).mean(), torch.full((64,), 0.01), moved=MOVES**2 * step)
        left.append(float(model.memory["base"]))
    assert left[0] == pytest.approx(left[1], rel=1e-3)
    p = torch.sigmoid(model.logits(data, numbers))
    gain, moved = float(0.01 * (p * (1 - p)).sum()), MOVES**2 * step  # information of a step, variance between two
    variance = 1.0
    for _ in range(5000):
        variance = 1 / (1 / (variance + moved) + gain)
    assert left[0] == pytest.approx(1 / variance, rel=0.1)


def test_hybrid_follows_a_jump_of_the_level_within_a_day() -> None:
    """A seventh of a window after the rate has doubled, `hybrid` is there; `oracle`, whose intercept stays, is not."""
    levels = {}
    for method in ("hybrid", "oracle"):
        learner = Trainer(method, 7.0, 60.0, 0, SMALL)
        for turn in range(400):
            rate, known = (0.1 if turn < 343 else 0.2), batch(BATCH, turn, at=turn * 60.0 / 400)
            chance = torch.rand(BATCH, generator=torch.Generator().manual_seed(turn))
            label = (chance < rate).float()
            learner.learn(known._replace(label=label, first_label=label, signals=0 * known.signals))
        levels[method] = float(learner.score(rows(4000, 77)).mean())
    assert levels["hybrid"] > 1.1 * levels["oracle"]


@pytest.mark.parametrize("method", METHODS)
def test_a_restored_learner_continues_to_the_bit(method: str) -> None:
    """Saving, restoring into a new learner of another seed and going on gives the same tensors as going on."""
    one = taught(method)
    saved = {name: value.clone() for name, value in one.tensors().items()}
    other = trainer(method, seed=5)
    other.restore(saved)
    for learner in (one, other):
        learner.observe(batch(80, 30, Look.CLOSE, at=2e9))
        learner.learn(batch(BATCH, 31, at=2e9))
    mine, theirs = one.tensors(), other.tensors()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    assert one.report == other.report
    assert one.digest() == other.digest()


def test_seeds() -> None:
    """Equal seeds give equal start weights for every method with one head at the base rate; another seed gives others."""
    plain = [name for name, method in METHODS.items() if method.starts(0.05, 7.0, 60.0) == (0.05,)]
    assert set(METHODS) - set(plain) == {"fnc", "dfm", "bidefuse"}
    assert len({trainer(method).digest() for method in plain}) == 1
    assert trainer(seed=1).digest() != trainer(seed=0).digest()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_starts_where_it_should(method: str) -> None:
    """It serves the base rate before anything was learned; after a pre-training what that serves, or, where its heads start
    off the base rate, nearly so for rows below 20 %."""
    learner, pretrained = trainer(method), taught("settled")
    assert torch.allclose(learner.score(ROWS), torch.tensor(0.05).double(), rtol=1e-4)
    learner.adopt(pretrained)
    mine, theirs = learner.score(ROWS), pretrained.score(ROWS)
    exact = METHODS[method].starts(0.05, 7.0, 60.0)[0] == 0.05
    low = theirs < 0.2
    assert 10 < int(low.sum()) < len(low)
    assert torch.allclose(mine[low], theirs[low], rtol=0.2)
    assert torch.allclose(mine, theirs, rtol=1e-9) == exact


@pytest.mark.parametrize("method", ["dfm", "bidefuse"])
def test_two_heads_step_on_one_loss(method: str) -> None:
    """Each head moves by its own gradient of the same loss, as it would if the other stood still."""
    together, data = trainer(method), batch(64, 1)
    together.learn(data)
    for head in (0, 1):
        alone = trainer(method)
        alone.moments = together.moments
        numbers = features.standardise(alone.moments, data.rows.numbers)
        runs = [model.forward(data.rows, numbers) for model in alone.models]
        told = alone.method.loss(alone.outputs([run.logit for run in runs], data), data)
        alone.models[head].step(runs[head], told.loss.mean(), told.curvature[:, head])
        for name, value in alone.models[head].tensors().items():
            assert torch.equal(value, together.models[head].tensors()[name]), name


def test_the_report_adds_up() -> None:
    """Mean, max and effective sample size of the weights are those of the weights that were returned."""
    learner = trainer("pq")
    weights = torch.cat([learner.learn(batch(BATCH, seed)) for seed in range(3)]).double()
    told = learner.report.weights()
    assert told["mean"] == pytest.approx(float(weights.mean()))
    assert told["max"] == float(weights.max())
    assert told["ess_share"] == pytest.approx(float(weights.sum() ** 2 / weights.square().sum() / len(weights)))
    assert learner.report.looks == 3 * BATCH


@pytest.mark.parametrize("method", METHODS)
def test_learning_lowers_the_loss(method: str) -> None:
    """On rows where a number decides, every method separates them."""
    shape = SMALL._replace(hidden=Shape().hidden)
    learner = Trainer(method, 7.0, 60.0, 0, shape)
    for step in range(60):
        learner.learn(batch(BATCH, step))
    test = batch(2000, 999, Look.CLOSE)
    score, label = learner.score(test.rows), test.label.double()
    assert float(score[label > 0].mean()) > 1.3 * float(score[label == 0].mean())


def test_a_wild_number_hurts_nobody() -> None:
    """A few values of 1e9 leave all weights finite and a learner that predicts as well as without them."""
    losses = {}
    for worst in (10.0, 1e9):
        learner = trainer("settled")
        for step in range(30):
            normal = batch(BATCH, step)
            numbers = normal.rows.numbers.clone()
            numbers[step, 0] = worst
            learner.learn(normal._replace(rows=normal.rows._replace(numbers=numbers)))
        assert all(bool(value.isfinite().all()) for value in learner.tensors().values())
        test = batch(4000, 999, Look.CLOSE)
        score, label = learner.score(test.rows), test.label.double()
        losses[worst] = float(torch.nn.functional.binary_cross_entropy(score, label))
    assert losses[1e9] < 1.04 * losses[10.0]


def test_outcomes_move_auxiliaries_only() -> None:
    """What auxiliary models hear changes no weight of the model."""
    learner = trainer("esdfm")
    before = learner.digest()
    table = learner.auxiliaries["first_look"].table.clone()
    learner.observe(batch(100, 1, Look.CLOSE))
    assert learner.digest() == before
    assert not torch.equal(table, learner.auxiliaries["first_look"].table)


def test_one_step_is_newton_for_the_linear_part_and_adagrad_for_the_network() -> None:
    """A step equals autograd on a dense copy of the model with the updates written out; unused values do not move."""
    model = ConversionModel(SMALL, torch.Generator().manual_seed(3))
    data, target = batch(64, 2), batch(64, 2, Look.CLOSE).label
    numbers = torch.nan_to_num(data.rows.numbers).log1p().float()
    model.weight += torch.randn(SMALL.buckets, generator=torch.Generator().manual_seed(4)) * 0.1
    model.dense["out"] += 0.3
    copies = {name: value.clone().requires_grad_() for name, value in model.tensors().items()}
    times = torch.zeros(64, SMALL.buckets)  # how often a row has a hashed value

    def logits() -> torch.Tensor:
        out = []
        for r in range(64):
            mine = slice(int(data.rows.ptr[r]), int(data.rows.ptr[r + 1]))
            ids, slots = data.rows.ids[mine], data.rows.slots[mine]
            times[r] = torch.bincount(ids, minlength=SMALL.buckets)
            bags = [
                copies["table"][ids[slots == s]].mean(0) if bool((slots == s).any()) else torch.zeros(SMALL.width)
                for s in range(SMALL.slots)
            ]
            x = torch.cat([*bags, numbers[r]])
            for layer in range(2):
                x = torch.relu(copies[f"weight{layer}"] @ x + copies[f"bias{layer}"])
            plain = copies["weight"][ids].sum() + copies["slope"] @ numbers[r] + copies["base"][0]
            out.append(copies["out"][0] @ x + plain)
        return torch.stack(out)

    expected = logits()
    run = model.forward(data.rows, numbers)
    assert torch.allclose(run.logit, expected, atol=1e-5)
    assert torch.allclose(model.logits(data.rows, numbers), expected, atol=1e-5)
    weight = torch.rand(64, generator=torch.Generator().manual_seed(5)) + 0.5
    losses = torch.nn.functional.binary_cross_entropy_with_logits(expected, target, reduction="none")
    (weight * losses).mean().backward()  # type: ignore[no-untyped-call]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(run.logit, target, reduction="none")
    model.step(run, (weight * loss).mean(), weight)
    p = torch.sigmoid(expected.detach())
    h = weight * p * (1 - p)
    linear = torch.cat([times, numbers, torch.ones(64, 1)], 1).double()  # every input of the linear part
    bend = torch.cat([(h[:, None] * times).sum(0), h @ numbers.square(), h.sum().view(1)]).double()
    pull = torch.cat([copies[name].grad for name in ("weight", "slope", "base")]).double() * 64  # type: ignore[misc]
    first = torch.cat([torch.full((SMALL.buckets + SMALL.numbers,), PRIOR), torch.full((1,), BELIEF)])
    memory = first.double() + bend
    moves = pull / memory
    used = bend > 0
    seen = (
        linear[:, used] * (memory[used] / bend[used]).sqrt()
    )  # inputs as large as all of the past, correlated as here
    length = (moves[used] @ pull[used]) / (h.double() @ (seen @ moves[used]).square())
    assert 0.1 < length < 1
    assert torch.allclose((model.memory["length"][0] / model.memory["length"][1]).double(), length, rtol=1e-4)
    linear_moves = dict(
        zip(("weight", "slope", "base"), torch.split(length * moves, [SMALL.buckets, SMALL.numbers, 1]), strict=True)
    )
    for name, value in copies.items():
        assert value.grad is not None
        moved = (
            -linear_moves[name] if name in linear_moves else -RATE * value.grad / (START + value.grad.square()).sqrt()
        )
        assert torch.allclose(model.tensors()[name], (value.detach() + moved).float(), atol=1e-5), name
    now = torch.sigmoid((expected.detach() - linear @ torch.cat(list(linear_moves.values()))).float())
    was_bent, now_bent = p * (1 - p), now * (1 - now)
    believed = FEW * was_bent.mean()
    ratio = (now_bent.sum() + believed) / (was_bent.sum() + believed)
    shares = (now_bent @ times + believed * ratio) / (was_bent @ times + believed)
    follows = torch.where(bend[: SMALL.buckets] > 0, memory[: SMALL.buckets] * shares, PRIOR)
    assert torch.allclose(model.memory["weight"], follows.float(), rtol=1e-3)
    assert torch.allclose(model.memory["base"], (memory[-1] * ratio).float(), rtol=1e-3)
    unused = times.sum(0) == 0
    for name in ("table", "weight"):
        assert torch.equal(model.tensors()[name][unused], copies[name].detach()[unused])


def linear_only(size: int) -> tuple[Rows, torch.Tensor]:
    """Rows that all have the same hashed values, without numbers."""
    ids, ptr = torch.arange(6).repeat(size), torch.arange(size + 1) * 6
    return Rows(ids, torch.zeros_like(ids), ptr, torch.full((size, SMALL.numbers), torch.nan).double()), torch.zeros(
        size, SMALL.numbers
    )


def test_what_all_rows_call_for_is_corrected_once() -> None:
    """Where all rows have the same seven inputs, a step moves the logit as one Newton step of an intercept, not seven."""
    model = ConversionModel(SMALL, torch.Generator().manual_seed(0))
    data, numbers = linear_only(64)
    run = model.forward(data, numbers)
    before, p = run.logit.detach().clone(), torch.sigmoid(run.logit.detach())
    loss = torch.nn.functional.binary_cross_entropy_with_logits(run.logit, torch.ones(64))
    model.step(run, loss, torch.ones(64))
    asked = float((1 - p).sum() / (p * (1 - p)).sum())
    assert 0 < float((model.logits(data, numbers) - before).mean()) < asked


def test_a_run_of_late_positives_does_not_overshoot() -> None:
    """64,000 negatives and then 1,800 positives in a run, as a burst and its late conversions: the level ends near 2.7 %."""
    model = ConversionModel(SMALL, torch.Generator().manual_seed(0))
    for label, size, batches in ((0.0, 256, 250), (1.0, 256, 7)):
        data, numbers = linear_only(size)
        for _ in range(batches):
            run = model.forward(data, numbers)
            target = torch.full((size,), label)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(run.logit, target)
            model.step(run, loss, torch.ones(size))
    level = float(torch.sigmoid(model.logits(data, numbers))[0])
    assert 0.02 < level < 0.04


def test_weights_scale_loss_and_curvature_alike() -> None:
    """Importance weights that are all three times as large, after rows that were too, make the same step."""
    models = [ConversionModel(SMALL, torch.Generator().manual_seed(0)) for _ in range(2)]
    data, target = batch(64, 1), batch(64, 1, Look.CLOSE).label
    numbers = torch.nan_to_num(data.rows.numbers).log1p().float()
    for model, factor in zip(models, (1.0, 3.0), strict=True):
        for name in FIRST:
            model.memory[name] *= 100 * factor
        run = model.forward(data.rows, numbers)
        loss = factor * torch.nn.functional.binary_cross_entropy_with_logits(run.logit, target)
        model.step(run, loss, torch.full((64,), factor))
    for name in FIRST:
        one, other = (model.tensors()[name] for model in models)
        assert torch.allclose(one, other, atol=1e-6)
        assert bool((one != 0).any())


def test_no_step_goes_far() -> None:
    """Rows that the model is sure of, and wrong about, move their logits by at most STRIDE."""
    model = ConversionModel(SMALL._replace(base_rate=1e-6), torch.Generator().manual_seed(0))
    data, numbers = linear_only(64)
    before = model.logits(data, numbers)
    run = model.forward(data, numbers)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(run.logit, torch.ones(64))
    model.step(run, loss, torch.ones(64))
    assert (model.logits(data, numbers) - before).tolist() == pytest.approx([STRIDE] * 64, abs=1e-2)


def test_the_output_starts_at_the_base_rate() -> None:
    """Before anything was learned every row scores the base rate."""
    learner = Trainer("pq", 7.0, 60.0, 0, SMALL._replace(base_rate=0.03))
    assert learner.score(ROWS).tolist() == pytest.approx([0.03] * 40, abs=1e-6)


@given(st.integers(0, 1000))
def test_values_are_grouped_by_slot(seed: int) -> None:
    """Hashed values are ordered by row and slot, each bag in the order in which its values came."""
    data = rows(7, seed)
    ids, offsets = by_slot(data, SMALL.slots)
    ends = [*offsets.tolist()[1:], len(ids)]
    found = [ids[a:b].tolist() for a, b in zip(offsets.tolist(), ends, strict=True)]
    expected = []
    for r in range(7):
        mine = slice(int(data.ptr[r]), int(data.ptr[r + 1]))
        pairs = list(zip(data.ids[mine].tolist(), data.slots[mine].tolist(), strict=True))
        expected += [[i for i, s in pairs if s == slot] for slot in range(SMALL.slots)]
    assert found == expected


@given(st.lists(st.integers(0, 19), max_size=30), st.integers(0, 20))
def test_rows_and_batches_are_taken_and_joined_as_lists_are(index: list[int], cut: int) -> None:
    """take, cat and the way through a checkpoint are what they are for lists of rows."""
    whole = batch(20, 3)
    parts = [whole.take(torch.arange(0, cut)), whole.take(torch.arange(cut, 20))]
    joined = restore(tensors(cat(parts)))
    assert as_lists(joined) == as_lists(whole)
    chosen = whole.take(torch.tensor(index, dtype=torch.int64))
    assert as_lists(chosen) == [as_lists(whole)[n] for n in index]
    assert cat_rows([whole.rows]) is whole.rows


def as_lists(data: Batch) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for n in range(data.size):
        mine = slice(int(data.rows.ptr[n]), int(data.rows.ptr[n + 1]))
        numbers = [None if math.isnan(x) else x for x in data.rows.numbers[n].tolist()]
        columns = [column[n].tolist() for column in data[1:]]
        found.append((data.rows.ids[mine].tolist(), data.rows.slots[mine].tolist(), numbers, *columns))
    return found


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 99))
def test_moments_are_those_of_everything_seen(sizes: list[int], seed: int) -> None:
    """Mean and variance of sign(x) log(1 + |x|), whatever the batches, missing numbers left out."""
    everything = np.random.default_rng(seed).normal(0, 100, (sum(sizes), 2))
    everything[::3, 1] = np.nan
    moments, start = features.init(2), 0
    for size in sizes:
        moments = features.update(moments, torch.from_numpy(everything[start : start + size]))
        start += size
    values = np.sign(everything) * np.log1p(np.abs(everything))
    for column in range(2):
        seen = values[~np.isnan(values[:, column]), column]
        assert int(moments.seen[column]) == len(seen)
        if len(seen):
            assert float(moments.mean[column]) == pytest.approx(seen.mean(), abs=1e-9)
            assert float(moments.m2[column] / moments.seen[column]) == pytest.approx(seen.var(), abs=1e-7)


def test_standardised_numbers_are_bounded() -> None:
    """Everything is within [-5, 5], a missing number is 0, and nothing seen yet is finite."""
    wild = torch.tensor([[1e300, math.nan], [-1e9, 0.0]], dtype=torch.float64)
    for moments in (features.init(2), features.update(features.init(2), wild)):
        found = features.standardise(moments, wild)
        assert bool((found.abs() <= 5).all())
        assert found[0, 1] == 0


def test_signals_say_nothing_before_anything_settled() -> None:
    """The likelihood ratio is 1 in the beginning, and about 1 for a state that never occurred."""
    data = batch(50, 1)
    assert torch.equal(log_ratio(init_signals(), data), torch.zeros(50, dtype=torch.float64))
    busy = SignalRatio(init_signals().late.clone(), init_signals().never.clone())
    busy.late[0], busy.never[0] = 100.0, 5000.0
    unseen = data.take(torch.nonzero(signal_state(data)).squeeze(1))
    assert float(log_ratio(busy, unseen).abs().max()) < 0.5


def test_the_signal_ratio_is_learned() -> None:
    """From settled rows the ratio comes near P(cart | converts late) / P(cart | never converts)."""
    generator = torch.Generator().manual_seed(0)
    size = 40_000
    data = batch(size, 1, Look.CLOSE)
    label = (torch.rand(size, generator=generator) < 0.1).float()
    cart = (torch.rand(size, generator=generator) < torch.where(label > 0, 0.6, 0.05)).float()
    signals = torch.zeros(size, KINDS)
    signals[:, 1] = cart
    since = torch.where(cart > 0, 3.0, -1.0).double()
    data = data._replace(label=label, first_label=torch.zeros(size), signals=signals, since=since)
    found = log_ratio(update_signals(init_signals(), data), data)
    assert float(found[cart > 0].mean()) == pytest.approx(math.log(0.6 / 0.05), abs=0.1)
    assert float(found[cart == 0].mean()) == pytest.approx(math.log(0.4 / 0.95), abs=0.1)


def test_only_observed_negatives_that_settled_teach_the_ratio() -> None:
    """Conversions, and rows converted by their first look, leave the signal table as it is."""
    late = batch(50, 1, Look.CONVERSION)
    early = batch(50, 1, Look.CLOSE)._replace(first_label=torch.ones(50))
    for outcomes in (late, early):
        found = update_signals(init_signals(), outcomes)
        assert float(found.late.sum() + found.never.sum()) == 0


def test_states_of_signals_are_told_apart() -> None:
    """Each combination of none, one, several of each kind has a number of its own, within the table."""
    levels = torch.cartesian_prod(*[torch.arange(3)] * KINDS).float()
    data = batch(len(levels), 1)._replace(signals=levels, since=torch.full((len(levels),), -1.0).double())
    states = signal_state(data)
    assert len(states.unique()) == len(levels)  # type: ignore[no-untyped-call]
    assert int(states.max()) < STATES


def test_what_bends_nowhere_still_moves() -> None:
    """A batch of late positives of `pu`, whose loss is linear in the logit, raises the scores as those of `fnw` do."""
    for method in ("pu", "fnw"):
        learner = trainer(method)
        for step in range(10):
            learner.learn(batch(BATCH, step)._replace(label=torch.zeros(BATCH)))
        before = learner.score(ROWS)
        learner.learn(batch(BATCH, 11, Look.CONVERSION)._replace(label=torch.ones(BATCH)))
        after = learner.score(ROWS)
        assert bool(after.isfinite().all())
        assert float(after.mean()) > 2 * float(before.mean()), method
