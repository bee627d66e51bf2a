"""Dead letters forwarded: after the commit, at least once, and whatever happens to the topic stops nothing."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import func, select

from labelstore.ledger import DEAD_LETTER_BYTES
from labelstore.letters import Letter, Place
from labelstore.stats import digest
from labelstore.tables import dead_letters
from stream import forwarding
from stream.checkpoint import Checkpoints
from stream.forwarding import BLOCK, ListOutbox, Outbox, Sent, headers
from stream.loop import Loop
from stream.sources import ListSource
from stream.workspace import opened
from test_journal import NOBODY, item

LOG = {("events", 0): [b"{", item(1), b"[]"]}


def run(url: str | None, outbox: Outbox | None, log: dict[tuple[str, int], list[bytes]] = LOG) -> tuple[str, int]:
    """(digest of the facts, letters that are marked) after a run."""
    with opened(url, NOBODY) as (store, checkpoints):
        Loop(ListSource(log), NOBODY, store, checkpoints, outbox=outbox).run()
        marked = store.connection.execute(select(func.count(dead_letters.c.forwarded))).scalar_one()
        return digest(store.connection), marked


def test_each_is_sent_once(tmp_path: Path) -> None:
    """With its place and reason, and not again by the next run; the facts are those of a run that forwards nothing."""
    outbox, url = ListOutbox(), f"sqlite:///{tmp_path}/store.db"
    assert run(url, outbox) == (run(None, None)[0], 2)
    assert [letter.place.offset for letter in outbox.sent] == [0, 2]
    run(url, outbox)
    assert len(outbox.sent) == 2


def test_killed_between_commit_and_forwarding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are sent when the run goes on."""
    outbox, url = ListOutbox(), f"sqlite:///{tmp_path}/store.db"

    def killed(self: Checkpoints, outbox: Outbox | None) -> None:
        if self.n:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "forward", killed)
        with pytest.raises(KeyboardInterrupt):
            run(url, outbox)
    assert outbox.sent == []
    run(url, outbox)
    assert [letter.place.offset for letter in outbox.sent] == [0, 2]


def test_a_topic_that_cannot_be_written_to(tmp_path: Path) -> None:
    """Nothing is marked, nothing stops; a later run sends all of them, in blocks."""
    outbox, url = ListOutbox(), f"sqlite:///{tmp_path}/store.db"
    outbox.broken = True
    log = {("events", 0): [b"{"] * (BLOCK + 3)}
    assert run(url, outbox, log)[1] == 0
    outbox.broken = False
    assert run(url, outbox, log)[1] == BLOCK + 3
    assert len(outbox.sent) == BLOCK + 3


def test_letters_that_are_refused_hold_up_no_others(tmp_path: Path) -> None:
    """A topic that takes no large letters gets all others, and the large ones as soon as it takes them."""

    class Small(ListOutbox):
        most = 1

        def send(self, found: Sequence[Letter]) -> Sent:
            small = [letter for letter in found if len(letter.value) <= self.most]
            return super().send(small)._replace(refused=[letter.place for letter in found if letter not in small])

    outbox, url = Small(), f"sqlite:///{tmp_path}/store.db"
    log = {("events", 0): [b"{" * 9] * (BLOCK + 7) + [b"{"] * 3}
    assert run(url, outbox, log)[1] == 3
    outbox.most = 9
    assert run(url, outbox, log)[1] == BLOCK + 10


def test_letters_take_no_more_than_their_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is accepted, each commit tries a part and the next one goes on behind it, round after round; between
    them no transaction is left open."""
    tried: list[int] = []

    class Refuses(ListOutbox):
        def send(self, found: Sequence[Letter]) -> Sent:
            tried.append(found[0].place.offset)
            return Sent([], [letter.place for letter in found])

    monkeypatch.setattr(forwarding, "PATIENCE", -1.0)
    with opened(f"sqlite:///{tmp_path}/store.db", NOBODY) as (store, checkpoints):
        Loop(ListSource({("events", 0): [b"{"] * (2 * BLOCK + 1)}), NOBODY, store, checkpoints).run()
        for _ in range(5):
            checkpoints.forward(Refuses())
            assert not store.connection.in_transaction()
    assert tried == [0, BLOCK, 2 * BLOCK, 0, BLOCK]


def test_what_was_cut_says_so() -> None:
    """A header tells of a value that the store keeps only the beginning of."""
    letter = Letter(Place("events", 0, 1), None, None, b"x" * DEAD_LETTER_BYTES, "too large", None)
    assert b"first 10000 bytes" in dict(headers(letter))["truncated"]
