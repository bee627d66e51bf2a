"""Facts become numbers: places by first appearance, hashes that last, signals counted."""

import math
import zlib

import numpy as np
import torch

from labelstore.observations import Look, Observations
from learner.model import Shape
from stream.assemble import Assembler, bucket

SHAPE = Shape(slots=3, numbers=2)


def test_places_are_given_in_order_of_appearance() -> None:
    """Strings take slots, numbers take columns, each list element is hashed with its feature's name."""
    found = Assembler(SHAPE).rows([{"b": "x", "n": 1.5, "a": ["p", "q"]}, {"a": "p", "m": -2, "b": "x"}, {}])
    assert found.ptr.tolist() == [0, 3, 5, 5]
    assert found.slots.tolist() == [0, 1, 1, 1, 0]
    ids = [bucket(name, text, SHAPE.buckets) for name, text in zip("baaab", "xpqpx", strict=True)]
    assert found.ids.tolist() == ids
    assert found.numbers[:2].nan_to_num(99).tolist() == [[1.5, 99], [99, -2]]
    assert all(math.isnan(value) for value in found.numbers[2].tolist())


def test_what_is_too_many_shares_the_last_place() -> None:
    """Strings beyond the last slot share it; numbers beyond the last column are hashed by order of magnitude."""
    found = Assembler(SHAPE).rows([{**{f"s{n}": "x" for n in range(5)}, **{f"n{n}": 10.0**n for n in range(4)}}])
    assert found.slots.tolist() == [0, 1, 2, 2, 2, 2, 2]
    assert len(set(found.ids.tolist())) == 7
    assert found.numbers.tolist() == [[1.0, 10.0]]


def test_hashes_last() -> None:
    """A bucket is the CRC-32 of name and text: the same in every process and release."""
    assert bucket("colour", "blue", 2**18) == zlib.crc32(b"colour\x1fblue") % 2**18 == 104498


def test_a_restored_assembler_gives_the_same_rows() -> None:
    """Names keep their places over a checkpoint."""
    one, other = Assembler(SHAPE), Assembler(SHAPE)
    rows = [{"c": "1", "n": 3}, {"d": "2", "m": 4}]
    one.rows(rows)
    one.meet(["cart", "click"])
    other.restore(one.state())
    assert other.state() == one.state()
    for mine, theirs in zip(one.rows(rows[::-1]), other.rows(rows[::-1]), strict=True):
        assert torch.equal(mine.nan_to_num(), theirs.nan_to_num())


def test_observations_become_a_batch() -> None:
    """Times turn to seconds, signals are counted by kind with the age of the newest, rows follow their impressions."""
    assembler = Assembler(Shape())
    assembler.meet(["click", "cart"])
    whole = np.array([1, 1], dtype=np.int64)
    seen = Observations(
        at=np.array([90_000, 95_000]),
        impression=np.array([7, 5]),
        look=np.array([Look.FIRST, Look.CONVERSION]),
        schedule=whole * 0,
        learn=whole > 0,
        shown_at=np.array([30_000, 20_000]),
        first_at=np.array([90_000, 80_000]),
        first_label=np.array([1, 0]),
        label=whole,
        final=whole < 0,
        delay=np.array([15_000, 75_000]),
        before=whole * 0,
        before_at=np.array([30_000, 80_000]),
        signals=[(0, "cart", 5000), (0, "cart", 2500), (0, "click", 9000)],
        signalled=[(0, "cart", 55_000), (0, "cart", 57_500), (0, "click", 51_000), (1, "cart", 70_000)],
        features={5: '{"a":"five"}', 7: '{"a":"seven"}'},
        graph={7: '{"version":2,"rel":0.5}'},
    )
    batch = assembler.batch(seen)
    assert batch.rows.ids.tolist() == [bucket("a", "seven", 2**18), bucket("a", "five", 2**18)]
    assert (batch.at.tolist(), batch.shown.tolist(), batch.elapsed.tolist()) == ([90, 95], [30, 20], [60, 60])
    assert (batch.label.tolist(), batch.first_label.tolist(), batch.delay.tolist()) == ([1, 1], [1, 0], [15, 75])
    assert batch.signals.tolist() == [[1, 2, 0, 0], [0, 0, 0, 0]]
    assert batch.since.tolist() == [2.5, -1]
    assert (batch.rows.numbers[0, 0].item(), assembler.columns) == (0.5, {"graph.rel": 0})
    assert (batch.age.tolist(), batch.before.tolist(), batch.age_before.tolist()) == ([60, 75], [0, 0], [0, 60])
    assert batch.signals_now.tolist() == [[1, 2, 0, 0], [0, 1, 0, 0]]
    assert batch.signalled.tolist() == [[51, 55, -1, -1], [-1, 70, -1, -1]]


def test_names_do_not_fill_the_memory() -> None:
    """Feature names and kinds past the last place share it, and are not remembered."""
    assembler = Assembler(Shape(slots=3, numbers=2))
    assembler.rows([{f"s{n}": "x", f"n{n}": 1.0} for n in range(50)])
    assembler.meet(f"k{n}" for n in range(50))
    state = assembler.state()
    assert state["columns"] == ["n0", "n1"]
    assert state["slots"] == ["s0", "s1"]
    assert state["kinds"] == ["k0", "k1", "k2"]
