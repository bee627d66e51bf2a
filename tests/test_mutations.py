"""Mutated lines: nothing crashes, every line is accepted or a dead letter. `benchmarks/mutations.py` has more of them."""

from pathlib import Path

import pytest
from broken import KINDS, Event, broken, seeded
from mutations import SETTINGS, account, mutated, put

from strategies import T0
from stream.codec import Codec, DeadLetter
from stream.files import FileSource
from stream.foreign import Ignored
from test_digests import Shuffled, run

EVENTS: list[Event] = [
    {"type": "impression", "impression_id": "i", "at": T0, "features": {"x": 1.5, "who": "é"}, "user_id": "u"},
    {"type": "signal", "event_id": "s", "kind": "cart", "at": T0, "impression_id": "i"},
    {"type": "conversion", "event_id": "c", "kind": "purchase", "at": T0, "user_id": "u", "item_id": "a", "value": 2},
    {"type": "adjustment", "event_id": "a", "at": T0, "conversion_id": "c", "action": "restate", "value": -1.5},
    {"type": "item", "item_id": "a", "at": T0, "features": {"tags": ["a", "b"]}},
]


@pytest.mark.parametrize("kind", KINDS)
def test_each_mutation_has_its_fate(kind: str, tmp_path: Path) -> None:
    """Of every type of event, a line that is wrong in this way is accepted, or refused with a reason, as stated."""
    random, file = seeded(0), tmp_path / "log.jsonl"
    for event in EVENTS * (1 if len(broken(random, EVENTS[0], kind)) > 10_000 else 6):
        line = broken(random, event, kind)
        file.write_bytes(line + b"\n")
        found = [Codec().decode(record) for record in FileSource(file).poll(10)]
        assert len(found) == sum(bool(part.strip(b"\r")) for part in line.split(b"\n"))
        for one in found:
            assert not isinstance(one, Ignored)
            assert one.reason if isinstance(one, DeadLetter) else one.at
            if KINDS[kind].fate is not None:
                assert isinstance(one, DeadLetter) is not KINDS[kind].fate, (line[:300], one)


def test_three_thousand_lines(tmp_path: Path) -> None:
    """Replayed from disk: what was read has passed, was repeated, or is a dead letter; validate finds the same."""
    found = account(mutated(3000, 0, tmp_path), tmp_path)
    assert found.wrong == []
    assert found.lines > 3000 > found.accepted > 500
    assert found.dead_letters > 1500
    assert len(found.reasons) > 50


def test_the_order_of_reading(tmp_path: Path) -> None:
    """Whichever partition is read first, a log of mutated lines leaves the same tables, dead letters and weights."""
    put(mutated(1500, 1, tmp_path), tmp_path / "log")
    states = []
    for name, source in (("one", FileSource(tmp_path / "log")), ("other", Shuffled(tmp_path / "log", 0))):
        (tmp_path / name).mkdir()
        states.append(run(source, tmp_path / name, SETTINGS))
    assert states[0] == states[1]


def test_good_lines_stay_good(tmp_path: Path) -> None:
    """Without a mutation all are accepted, also across the partitions of the account."""
    found = account([broken(seeded(0), event, "nothing") for event in EVENTS], tmp_path)
    assert (found.lines, found.accepted, found.dead_letters, found.wrong) == (5, 5, 0, [])
