"""The product graph under a running learner: pairs are counted at midnights, and every so often learned anew.

At the first midnight that is `graph_every` after the last refresh, and ends a day on which pairs were counted, a snapshot
is taken. A replay learns from it at once; a daemon has a process of its own do it (`stream.refresh_worker`), goes on
meanwhile, and swaps when the bundle is there. Every swap is a row (at, version), part of the commit: what is known from
``at`` on passes with that version. A replay makes those of a live run where that one did, if told (`stream.swaps`).

Event time waits at a midnight where a refresh is due while the last one is still being learned, so what a version is
learned from, and which version came before it, is a function of the log and the swaps.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pydantic_core import to_json

from labelstore import item_pairs, ledger
from labelstore.events import Event, Impression
from labelstore.item_pairs import Rules
from labelstore.ledger import Swap
from labelstore.retention import DAY
from labelstore.store import LabelStore
from stream import bundle, snapshot
from stream.aside import Aside
from stream.bundle import Bundle, Serving, read
from stream.checkpoint import Checkpoints, kept
from stream.settings import Settings
from stream.snapshot import Refused, Snapshot
from stream.swaps import Swaps
from stream.watermark import END

KEPT = 2  # versions: the one that is served, and the one before
REFUSALS = 10  # that are remembered


class Refresh:
    """The product graph of a run; where the settings ask for none, nothing.

    Args:
        told: the swaps of a live run; None: swap as soon as a version has been learned.
        aside: learn in a process of its own.
    """

    def __init__(
        self,
        settings: Settings,
        store: LabelStore,
        checkpoints: Checkpoints,
        told: Sequence[Swap] | None = None,
        aside: bool = False,
    ) -> None:
        self.every, self._settings, self._store, self._checkpoints = settings.graph_every, settings, store, checkpoints
        self._rules = Rules(settings.graph_window, settings.graph_half_life)
        self._told = Swaps(told)
        self._apart, self._aside = aside, Aside(checkpoints.folder)
        self.served: Serving | None = None
        self.watch: Callable[[Snapshot, Bundle | None], None] = lambda taken, before: None  # hears of every refresh
        self.number = 0  # of the last refresh that was begun
        self.refused: list[list[Any]] = []  # number, midnight, why; the last few
        self.refusals = 0  # that there were
        self._seq = 0  # of the last record that had passed at the last midnight
        self.last: int | None = None  # midnight of the last refresh, or where the first day begins
        self._files: list[dict[str, Any]] = []  # the bundles that are kept, the newest first
        self._ready: list[Bundle] = []  # learned, to be swapped when that is told
        self._pending: dict[str, Any] | None = None  # the snapshot that is being learned from, if any
        self._unsaved: list[Swap] = []

    # the day --------------------------------------------------------------------------------------------------------

    def features(self, facts: Sequence[tuple[int, Event]]) -> list[str | None]:
        """What the version that is served says of each impression among the facts, JSON; empty if there is none."""
        if self.served is None:
            return []
        shown = [event for _, event in facts if isinstance(event, Impression)]
        said = iter(self.served.features(shown))
        return [to_json(next(said)).decode() if isinstance(event, Impression) else None for _, event in facts]

    def close_day(self, midnight: int) -> None:
        """Count the pairs of the day, and learn anew if it is time."""
        if self.every is None:
            return
        first, self._seq = self._seq, self._store.seq
        if self.last is None:
            self.last = midnight - DAY
        counted = 0
        if self._seq > first:
            counted = item_pairs.close_day(self._store.connection, midnight, first, self._store.keep, self._rules)
        else:
            item_pairs.expire(self._store.connection, midnight)
        if counted and midnight - self.last >= self.every:
            if self._ready and self._told.outrun(self.number):
                self.swap(midnight)
            self.begin(midnight)
            self.swap(midnight)

    def skip(self, midnight: int) -> None:
        """Nothing has come for long, up to this midnight."""
        if self.every is not None:
            item_pairs.expire(self._store.connection, midnight)
            self.swap(midnight)

    def waits(self, midnight: int) -> bool:
        """Whether this midnight cannot be closed yet."""
        return self._pending is not None and self.last is not None and midnight - self.last >= (self.every or END)

    @property
    def idle(self) -> bool:
        """Whether nothing is being learned, and nothing waits to be served."""
        return self._pending is None and not self._ready

    def begin(self, midnight: int) -> None:
        """Learn from the pairs as they are, as of a midnight."""
        self.number += 1
        self.last = midnight
        settings, connection = self._settings, self._store.connection
        pairs = item_pairs.load(connection, midnight, self._rules.half_life)
        told = pairs, item_pairs.described(connection), self.number, (settings.seed * 1009 + self.number) % 2**63
        taken = snapshot.take(*told, settings.graph_method, midnight)
        self.watch(taken, self.served.bundle if self.served else None)
        if self._apart:
            name = f"graph-{self.number}-snapshot.safetensors"
            sha256 = self._checkpoints.keep(name, snapshot.to_bytes(taken))
            self._pending = {"file": name, "sha256": sha256, "number": self.number, "until": midnight}
            self._pending["before"] = self._files[0] if self._files else None
            self._start()
            return
        self._learn(taken, self.served.bundle if self.served else None)

    def _learn(self, taken: Snapshot, before: Bundle | None) -> None:
        """Learn from a snapshot here and now; ``before``: what was served when it was taken."""
        try:
            self._ready.append(snapshot.learn(taken, before))
        except Refused as error:
            self._refuse(str(error), taken.number, taken.until)

    def _refuse(self, why: str, number: int, midnight: int) -> None:
        self.refusals += 1
        self.refused = [*self.refused, [number, midnight, why]][-REFUSALS:]

    # swaps ----------------------------------------------------------------------------------------------------------

    @property
    def next_swap(self) -> int:
        """The event time of the next swap that was told; spans end there."""
        return self._told.next

    def swap(self, passed: int) -> None:
        """Serve what is to be served from here on: everything known before ``passed`` has passed."""
        self._reap(passed)
        for at, version in self._told.due(passed, self.number):
            if version == self._version:  # it stays: the next one was refused, or rolled back at once
                self._ready.clear()
                self._unsaved.append(Swap(at, version))
            found = [one for one in self._ready if one.version == version]
            if not found:  # a person rolled it back
                kept = [one for one in self._files[1:] if one["version"] == version]
                found = [read(self._checkpoints.folder, one) for one in kept]
            for chosen in found:
                self._serve(chosen, at)
            self._ready = [one for one in self._ready if one.version > version]
        if self._told.alone:
            for ready in self._ready:
                self._serve(ready, passed)
            self._ready.clear()

    @property
    def _version(self) -> int:
        """That is served; 0 before the first."""
        return self._files[0]["version"] if self._files else 0

    def roll_back(self, passed: int) -> int | None:
        """Serve the version before from here on; its number, None if none is kept."""
        before = [one for one in self._files[1:] if one["version"] < self._files[0]["version"]]
        if not before:
            return None
        self._serve(read(self._checkpoints.folder, before[0]), passed)
        return self._version

    def _serve(self, chosen: Bundle, at: int) -> None:
        others = [one for one in self._files if one["version"] != chosen.version]
        others = [one for n, one in enumerate(others, 2) if n <= KEPT or one["version"] in self._told.versions]
        self._files = [{**self._keep(chosen), "version": chosen.version, "at": at}, *others]
        self.served = Serving(chosen)
        self._unsaved.append(Swap(at, chosen.version))

    def _start(self) -> None:
        assert self._pending is not None
        self._aside.begin(self._pending["file"], self._pending["before"] and self._pending["before"]["file"])

    def _reap(self, passed: int) -> None:
        """Take what the process has made, if it is done. Its snapshot, named by the last commit, goes with the next.

        If it made none, that is a swap to the version that stays: a replay cannot know that it was killed.
        """
        if self._pending is None or (found := self._aside.result(self._pending["number"])) is None:
            return
        if isinstance(found, Bundle):
            self._ready.append(found)
        else:
            self._refuse(found, self._pending["number"], self._pending["until"])
            self._unsaved.append(Swap(passed, self._version))
        self._pending = None

    def leave(self) -> None:
        """End the process that is learning, if any."""
        self._aside.end()

    # commit and resume ----------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the swaps since the last commit."""
        ledger.save_swaps(self._store.connection, self._unsaved)
        self._unsaved.clear()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, where there is a graph."""
        if self.every is None:
            return {}
        told: dict[str, Any] = {"seq": self._seq, "last": self.last, "number": self.number}
        told |= {"refused": self.refused, "refusals": self.refusals, **self._told.state()}
        ready = [self._keep(one) for one in self._ready]
        files = [*self._files, *ready, *([self._pending] if self._pending else [])]
        return {"graph": {**told, "bundles": files, "served": len(self._files), "ready": len(ready)}}

    def _keep(self, made: Bundle) -> dict[str, Any]:
        name = f"graph-{made.version}.safetensors"
        return {"file": name, "sha256": self._checkpoints.keep(name, bundle.to_bytes(made))}

    def restore(self, progress: dict[str, Any], serve: bool = True) -> None:
        """Go on from `state`; ``serve``: whether the version that is served is needed, and its file has to be whole. Without
        it, what a daemon was stopped over stays for it to go on with."""
        told = progress.get("graph")
        if told is None or self.every is None:
            return
        self._seq, self.last, self.number, self.refused = (told[name] for name in ("seq", "last", "number", "refused"))
        self.refusals = told.get("refusals", 0)
        files, served, ready = told["bundles"], told["served"], told["ready"]
        self._files = files[:served]
        if self._files and serve:
            self.served = Serving(read(self._checkpoints.folder, self._files[0]))
        self._ready = [read(self._checkpoints.folder, one) for one in files[served : served + ready]]
        self._told.restore(told, progress["passed"])
        if pending := files[served + ready :]:
            self._pending = {"before": self._files[0] if self._files else None} | pending[0]
            if self._apart:
                self._start()
            elif serve:  # a daemon was stopped over it
                before, self._pending = self._pending["before"], None
                data = kept(self._checkpoints.folder, pending[0]["file"], pending[0]["sha256"])
                self._learn(snapshot.from_bytes(data), before and read(self._checkpoints.folder, before))
