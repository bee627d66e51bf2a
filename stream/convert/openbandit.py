"""Open Bandit Dataset (ZOZOTOWN, a fashion shop) into a log: one row, one impression, and a conversion where clicked.

    "",timestamp,item_id,position,click,propensity_score,user_feature_0..3,user-item_affinity_0..79      UTC

An impression is an item in one of three positions, id ``row.N`` with N the row of the file. Customers are hashed
features, not ids, so there is no ``user_id``: nothing can be found by user, and `belated forget` does not apply.

A click is the only outcome there is, so it is the conversion, of kind `click`: use ``belated backtest --target click``.
When it came is not recorded: it has the time of its impression, and every label is known at once. A log without delay
is the control: whatever separates the methods on it is not lateness.

Features: the item and its context, ``position``, the ``user_0`` to ``user_3``, ``affinity`` (of this user to this item)
and the other affinities that are not 0, hour and weekday in Japan (UTC+9), and ``propensity``: the probability with
which the logging policy chose this item for this position. It is there for importance weights; it was known when the
item was shown, so it does not look ahead, but where the policy was a bandit it carries what the bandit believed.

The items' context (``item_context.csv`` beside the file, or ``..._item_context.csv`` whose name begins as the file's)
becomes `item` events at the time of the first impression.

Source: Saito et al., Open Bandit Dataset and Pipeline, NeurIPS 2021 Datasets and Benchmarks; https://research.zozo.com/data.html
"""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path

from stream.convert.log import Advance, Log, Summary, writing
from stream.convert.table import table
from stream.convert.times import WRONG, clock, moment

JAPAN = 9 * 3600  # seconds ahead of UTC
USER = tuple(f"user_feature_{i}" for i in range(4))
AFFINITY = "user-item_affinity_"
COLUMNS = ("timestamp", "item_id", "position", "click", "propensity_score", *USER)
CONTEXT = ("item_id", "item_feature_0", "item_feature_1", "item_feature_2", "item_feature_3")
ABOUT = "the Open Bandit Dataset (https://research.zozo.com/data.html)"
BESIDE = "item_context.csv"

Features = dict[str, str | float]


def convert(src: Path, dst: Path, *, advance: Advance) -> Summary:
    """Write the log of the file ``src`` (.csv or .csv.gz) to the new folder ``dst``.

    Rows = impressions + refused; conversions are the rows with a click, items those of the context file.

    Raises:
        FileExistsError: ``dst`` is not empty.
        FileNotFoundError: there is no file ``src``.
        SourceError: it, or the context beside it, has other columns.
    """
    summary = Summary()
    contexts = _contexts(src, summary)
    with writing(dst, summary) as log:
        for text, row in table(src, COLUMNS, summary, advance, about=ABOUT):
            at, features = moment(row["timestamp"]), _features(row, contexts)
            if at is None:
                summary.refuse(f"timestamp {WRONG}", text)
            elif isinstance(features, str):
                summary.refuse(features, text)
            else:
                if not summary.events:
                    _items(log, contexts, at)
                _write(log, row, at, summary.rows, {**features, **clock(at, JAPAN)})
                summary.passes(at)
    if summary.backwards:
        summary.notes.append(
            f"{summary.backwards:,} rows are earlier than a row before them; they are written as they come"
        )
    return summary


def _contexts(src: Path, summary: Summary) -> dict[str, Features]:
    """What the file beside says of each item; nothing, and a note, where there is none."""
    beside = [f for f in src.parent.glob(f"*{BESIDE}") if src.name.startswith(f.name.removesuffix(BESIDE))]
    if not beside:
        summary.notes.append(f"no {BESIDE} beside {src.name}: there are no items and no features of theirs")
        return {}
    own = Summary()
    found: dict[str, Features] = {}
    file = max(beside, key=lambda f: len(f.name))
    for text, row in table(file, CONTEXT, own, lambda done, total: None, about=ABOUT):
        number = _number(row["item_feature_0"])
        if number is None or not row["item_id"]:
            own.refuse("an item without id or without a number as item_feature_0", text)
            continue
        texts = {f"item_{i}": row[f"item_feature_{i}"][:200] for i in range(1, 4)}
        found[row["item_id"]] = {"item_0": number, **texts}
    summary.notes += [f"{file.name}: {note}" for note in own.notes]
    return found


def _features(row: Mapping[str, str], contexts: Mapping[str, Features]) -> Features | str:
    """Of an impression, without its time; or what is wrong with the row."""
    item, propensity = row["item_id"], _number(row["propensity_score"])
    if not 1 <= len(item) <= 60:
        return "an id is empty or longer than 60 characters"
    if propensity is None or not 0 < propensity <= 1:
        return "the propensity_score is not in (0, 1]"
    if row["click"] not in ("0", "1"):
        return "the click is neither 0 nor 1"
    told: Features = {"item": item, "position": row["position"][:60], "propensity": propensity}
    told |= {f"user_{i}": row[name][:200] for i, name in enumerate(USER)}
    told |= contexts.get(item, {})
    for name, text in row.items():
        if name.startswith(AFFINITY):
            if (affinity := _number(text)) is None:
                return "an affinity is not a number"
            of = name.removeprefix(AFFINITY)
            told |= {"affinity": affinity} if of == item else {f"affinity_{of}": affinity} if affinity else {}
    return told


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None


def _items(log: Log, contexts: Mapping[str, Features], at: int) -> None:
    for item, features in contexts.items():
        log.write({"type": "item", "item_id": item, "at": at, "features": features})


def _write(log: Log, row: Mapping[str, str], at: int, number: int, features: Features) -> None:
    shown: dict[str, object] = {"type": "impression", "impression_id": f"row.{number}", "at": at}
    log.write(shown | {"item_id": row["item_id"], "features": features})
    if row["click"] == "1":
        click: dict[str, object] = {"type": "conversion", "event_id": f"click.{number}", "kind": "click", "at": at}
        log.write(click | {"impression_id": f"row.{number}", "item_id": row["item_id"]})
