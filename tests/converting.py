"""What the tests of converters share: files of the data folder, and the events of a log that was written."""

from pathlib import Path

import pytest

from labelstore.events import ADAPTER, Event, identity


def none(done: int, total: int) -> None:
    """Progress that nobody watches."""


def found(data: Path, name: str) -> Path:
    """A file of real rows, or a skip that says which is missing."""
    file = data / "events" / name
    if not file.is_file():
        pytest.skip(f"BELATED_DATA has no events/{name}")
    return file


def events(log: Path) -> list[Event]:
    """All events; every line is valid and without unknown fields, and no id comes twice."""
    read = [ADAPTER.validate_json(line) for line in (log / "events/0.jsonl").read_bytes().splitlines()]
    assert not any(event.model_extra for event in read)
    assert len({(event.type == "impression", identity(event)) for event in read}) == len(read)
    return read
