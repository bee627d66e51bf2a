"""Mutates the lines of a good log, replays what comes of it from disk, and accounts for every line.

    python benchmarks/mutations.py [--lines 100000] [--seed 0]

Each line is wrong in one of the ways of `broken`, one in four also in another. Nothing may crash; every line is accepted or
a dead letter with a reason; read = impressions + signals + conversions + adjustments + items + dead letters + duplicates,
in `stream.backtest` and in `belated validate`; blank lines are passed over; the weights stay finite. Prints what became of
the lines; ends with status 1 if any is unaccounted for.
"""

import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from asking import Parser
from broken import HUGE, KINDS, TEXTS, Event, broken, seeded, tampered
from safetensors.torch import load_file

from labelstore import ledger, letters
from labelstore.store import existing
from learner.names import DEFAULT
from stream.backtest import backtest
from stream.check import check
from stream.files import FileSource
from stream.settings import Settings
from stream.simulate.scenario import Scenario
from stream.simulate.write import write
from stream.workspace import checkpoint_folder

PASSED = ("impressions", "signals", "conversions", "adjustments", "items", "duplicates")
PARTITIONS = 4
SETTINGS = Settings(methods=(DEFAULT,), window="2d", wait="3h")  # type: ignore[arg-type]  # as people write them
RARE = sorted(kind for kind in KINDS if kind in HUGE)
COMMON = sorted(KINDS.keys() - HUGE)
AGAIN = sorted(TEXTS.keys() - HUGE)


class Account(NamedTuple):
    """What became of the lines. ``wrong``: what does not add up, in words."""

    lines: int
    blank: int
    accepted: int
    dead_letters: int
    duplicates: int
    reasons: list[tuple[str, int]]
    wrong: list[str]


def good(lines: int, seed: int, folder: Path) -> list[Event]:
    """So many events in the order of a simulated log, some of them products."""
    knobs: dict[str, Any] = dict(
        impressions=lines, days=10, window="2d", late=0.02, retractions=0.05, restatements=0.05, broken=0
    )
    write(Scenario(seed=seed, **knobs), folder / "good")
    events: list[Event] = []
    for line in (folder / "good" / "events" / "0.jsonl").read_text().splitlines():
        events.append(json.loads(line))
        if len(events) % 20 == 0:
            events.append({"type": "item", "item_id": f"p{len(events)}", "at": events[-1]["at"], "features": {"n": 1}})
    return events[:lines]


def mutated(lines: int, seed: int, folder: Path) -> list[bytes]:
    """The lines of a good log, each wrong in one way, one in four in two, one in a thousand very large."""
    random = seeded(seed)
    found = []
    for event in good(lines, seed, folder):
        line = broken(random, event, random.choice(RARE if random.random() < 1e-3 else COMMON))
        found.append(tampered(random, line, random.choice(AGAIN)) if random.random() < 0.25 else line)
    return found


def put(lines: list[bytes], folder: Path) -> tuple[int, int]:
    """Write a log of several partitions. Returns its lines, and those with nothing in them: a mutation may end a line."""
    (folder / "events").mkdir(parents=True)
    written: list[bytes] = []
    for partition in range(PARTITIONS):
        data = b"".join(line + b"\n" for line in lines[partition::PARTITIONS])
        (folder / "events" / f"{partition}.jsonl").write_bytes(data)
        written += data.split(b"\n")[:-1]
    return len(written), sum(not line.strip(b"\r") for line in written)


def account(lines: list[bytes], folder: Path) -> Account:
    """Replay the lines, validate them, and add up."""
    count, blank = put(lines, folder / "log")
    url = f"sqlite:///{folder}/store.db"
    told = backtest("log", FileSource(folder / "log"), SETTINGS, url).summary["events"]
    with existing(url) as connection:
        reasons = [(told.reason, told.letters) for told in letters.counted(connection)]
        newest = ledger.newest(connection)
    checked = check(FileSource(folder / "log")).counts
    tensors = load_file(checkpoint_folder(url) / newest.file) if newest else {}
    accepted = sum(told[name] for name in PASSED)
    facts = {
        f"{told['read']} read of {count} lines, {blank} of them blank": told["read"] == count - blank,
        f"{accepted} accepted + {told['dead_letters']} refused": accepted + told["dead_letters"] == told["read"],
        f"{sum(times for _, times in reasons)} dead letters kept": told["dead_letters"] == sum(n for _, n in reasons),
        "dead letters without a reason": all(reason.strip() for reason, _ in reasons),
        f"{checked['dead_letters']} refused by validate": checked["dead_letters"] == told["dead_letters"],
        f"{sum(checked[name] for name in PASSED)} accepted by validate": sum(checked[n] for n in PASSED) == accepted,
        "weights that are not finite": all(bool(v.isfinite().all()) for n, v in tensors.items() if ".trainer." in n),
    }
    wrong = [fact for fact, holds in facts.items() if not holds]
    return Account(count, blank, accepted, told["dead_letters"], told["duplicates"], reasons, wrong)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = account(mutated(asked.lines, asked.seed, Path(folder)), Path(folder))
    print(f"{found.lines:,} lines, {found.blank:,} of them blank")
    print(f"{found.accepted:,} accepted, {found.duplicates:,} of them duplicates; {found.dead_letters:,} dead letters")
    for reason, times in found.reasons[:10]:
        print(f"  {times:>7,}  {reason[:110]}")
    for fact in found.wrong:
        print(f"does not add up: {fact}")
    raise SystemExit(1 if found.wrong else 0)


if __name__ == "__main__":
    main()
