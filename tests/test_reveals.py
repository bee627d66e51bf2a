"""What GDFM's tables say of the state at a reveal time, against counts by hand."""

import math

import pytest
import torch

from learner import reveals
from learner.batch import KINDS, Batch, Look, Rows
from learner.posterior import PRIOR

ELAPSED, WINDOW = 7.0, 60.0  # reveal times 7, 15, 60
NEVER = -1.0


def closes(rows: list[tuple[float, float]]) -> Batch:
    """Settled rows: (age of the conversion, age of the first signal), -1 where there is none."""
    size, nothing = len(rows), torch.empty(0, dtype=torch.int64)
    delay, signal = torch.tensor(rows, dtype=torch.float64).T
    time, label = torch.full((size,), WINDOW, dtype=torch.float64), (delay >= 0).float()
    first = ((delay >= 0) & (delay <= ELAPSED)).float()
    elapsed, look = torch.full_like(time, ELAPSED), torch.full((size,), int(Look.CLOSE))
    signalled = torch.full((size, KINDS), NEVER, dtype=torch.float64)
    signalled[:, 1] = signal
    now = (signalled >= 0).float()
    features = Rows(nothing, nothing, torch.zeros(size + 1, dtype=torch.int64), torch.zeros(size, 1))
    return Batch(
        features, look, look, time, 0 * time, elapsed, label, first, delay, 0 * now, -elapsed, time, first, elapsed, now,
        signalled,
    )  # fmt: skip


ROWS = [(3.0, 1.0)] * 20 + [(10.0, 5.0)] * 30 + [(40.0, 9.0)] * 50 + [(NEVER, 5.0)] * 100 + [(NEVER, NEVER)] * 800


def known() -> reveals.Reveals:
    """The tables after these rows, without what was believed before."""
    empty = reveals.init(0.1, ELAPSED, WINDOW)
    return reveals.update(
        empty._replace(late=0 * empty.late, never=0 * empty.never, total=0 * empty.total), closes(ROWS)
    )


def test_rows_are_counted_as_they_were_at_each_reveal_time() -> None:
    """Of 100 converters 80, 50 and 0 are pending at the three reveal times; 30, 50 of them had a signal by then."""
    state = known()
    assert state.ages.tolist() == [7, 15, 60]
    assert state.late.sum(1).tolist() == [80, 50, 0]
    assert state.late[:, 2].tolist() == [30, 50, 0]
    assert state.never[:, 2].tolist() == [100, 100, 100]
    assert state.total.tolist() == [900, 100]


def test_the_ratio_is_that_of_shares() -> None:
    """log r of a pending row is the share pending times the ratio of the shares of its signals, drawn to 1 by the prior."""
    for age, signals, late, all_late, never in ((7.0, 1, 30, 80, 100), (15.5, 0, 0, 50, 800)):
        row = closes([(NEVER, 5.0 if signals else NEVER)])
        found = reveals.estimate(known(), row._replace(age=torch.tensor([age]).double()))["log_r"]
        expected = all_late / 100 * (late + PRIOR) / (never * all_late / 900 + PRIOR)
        assert float(found) == pytest.approx(math.log(expected), abs=1e-5)


def test_a_conversion_taken_back_is_among_those_without_one() -> None:
    """Of 950 + 50 rows that end without a conversion 50 had one at 3 minutes, taken back later: they are not pending."""
    rows = closes(ROWS + [(3.0, 1.0)] * 50)
    label = rows.label.clone()
    label[-50:] = 0
    empty = reveals.init(0.1, ELAPSED, WINDOW)
    empty = empty._replace(late=0 * empty.late, never=0 * empty.never, total=0 * empty.total)
    state = reveals.update(empty, rows._replace(label=label))
    assert state.total.tolist() == [950, 100]
    assert state.never.sum(1).tolist() == [900, 900, 900]
    pending = closes([(NEVER, 5.0)])._replace(age=torch.tensor([ELAPSED]).double())
    found = reveals.estimate(state, pending)["log_r"]
    expected = 80 / 100 * (30 + PRIOR) / (100 * 80 / 950 + PRIOR)
    assert float(found) == pytest.approx(math.log(expected), abs=1e-5)


def test_a_reveal_time_has_one_weight() -> None:
    """exp(-2 H / max H) exp(-delta / max delta): of the first the uncertainty is largest, at the close there is none."""
    entropies = []
    for counts in ([(30, 100), (50, 800)], [(50, 100), (0, 800)], [(0, 100), (0, 800)]):
        entropies.append(sum(
            -n / 1000 * math.log(n / (late + never)) for late, never in counts for n in (late, never) if n
        ))  # fmt: skip
    expected = [
        math.exp(-2 * entropy / max(entropies) - age / WINDOW)
        for entropy, age in zip(entropies, (7, 15, 60), strict=True)
    ]
    assert reveals.weights(known()).tolist() == pytest.approx(expected)


def test_before_anything_has_settled_the_prior_stands() -> None:
    """The pending share falls to nothing at the close, and signals say nothing."""
    state = reveals.init(0.1, ELAPSED, WINDOW)
    share = state.late.sum(1) / state.total[1]
    assert bool((share.diff() < 0).all())
    assert float(share[-1]) == pytest.approx(0, abs=1e-12)
    told = reveals.estimate(
        state, closes([(NEVER, 5.0), (NEVER, NEVER)])._replace(age=torch.full((2,), ELAPSED).double())
    )
    assert torch.allclose(told["log_r"], share[0].log().float())
