"""Drift of calibration: what ADWIN is told, when it speaks, and what is reported."""

import numpy as np
import pytest

from labelstore.ledger import Hour
from stream.drift import FEWEST, drifts


def hours(levels: list[float], rows: int = 400, rate: float = 0.1, seed: int = 0) -> dict[int, Hour]:
    """Settled rows by the hour: scores ``rate``, true rate ``rate / level``."""
    generator = np.random.default_rng(seed)
    found = {}
    for hour, level in enumerate(levels):
        positives = int(generator.binomial(rows, rate / level))
        found[470_000 + hour] = Hour(rows, positives, rows * rate, 0.0)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_calibrated_learner_has_no_drift(seed: int) -> None:
    """A thousand hours of scores that are right raise no alarm."""
    assert drifts(hours([1.0] * 1000, seed=seed)) == []


@pytest.mark.parametrize("level", [0.7, 1.5])
def test_a_change_of_level_is_found_where_it_is(level: float) -> None:
    """A level that changes is found within three days, placed within half a day, and told with the PCOC on both sides."""
    (found,) = drifts(hours([1.0] * 500 + [level] * 300))
    assert 470_500 - 12 <= found.hour <= 470_500 + 12
    assert 0 < found.found - 470_500 < 72
    assert found.before == pytest.approx(1, abs=0.05)
    assert found.after == pytest.approx(level, rel=0.2)


def test_few_rows_are_taken_together() -> None:
    """Hours with hardly any positives are no noise of their own: a sparse log raises no false alarm, a drift is found."""
    calm = hours([1.0] * 3000, rows=20, rate=0.01)
    assert drifts(calm) == []
    assert len(drifts(hours([1.0] * 3000 + [0.3] * 3000, rows=20, rate=0.01))) == 1
    assert FEWEST > 20 * 0.01


def test_where_nothing_converts_any_more_there_is_no_pcoc() -> None:
    """Conversions that stop altogether are a drift from a PCOC to none: mean score over share converted is not defined."""
    calm = hours([1.0] * 300)
    (found,) = drifts(calm | {470_300 + hour: Hour(400, 0, 40.0, 0.0) for hour in range(100)})
    assert found.hour == 470_300
    assert found.before == pytest.approx(1, abs=0.05)
    assert found.after is None


def test_nothing_settled() -> None:
    """No hours, no drift; rows that were all scored 0 or 1 divide by nothing."""
    assert drifts({}) == []
    assert drifts({n: Hour(50, 50, 50.0, 0.0) for n in range(100)}) == []
