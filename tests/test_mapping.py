"""Somebody's own JSON becomes events: what is read where, what is refused and how it is told. Nothing ever breaks it."""

import json
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from command_line import belated
from labelstore.events import Adjustment, Conversion, Event, Impression, Signal
from labelstore.store import LabelStore
from labelstore.traces import Traces
from stream import numbering
from stream.backtest import backtest
from stream.blanking import blank, users_of
from stream.checkpoint import CheckpointError, Checkpoints
from stream.codec import Codec, DeadLetter
from stream.files import FileSource
from stream.foreign import Ignored
from stream.loop import Loop
from stream.mapping import Topic
from stream.settings import Settings
from stream.sources import ListSource, Partition, Record
from test_loop import own

GRAMMAR = """
[ads]
type = "impression"
impression_id = "{user.id}:{payload.items[0].sku}"
at = {path = "ts", unit = "iso"}
user_id = "user.id"
item_id = "payload.items[0].sku"
features = {"*" = "ctx", shop = {value = "de"}, price = 'payload["the.price"]'}
served.score = "p"

[shop]
type_field = "event.name"
event_id = {record = "origin"}
at = {path = "ts", unit = "s"}
user_id = "u"
item_id = "i"

[shop.kinds]
view = {type = "impression", impression_id = "id", features = "ctx"}
add_to_cart = {type = "signal", kind = "cart"}
order = {type = "conversion", kind = "purchase", event_id = "order", value = "total"}
refund = {type = "adjustment", action = "retract", conversion_id = "order"}
"""
MAPPING = {name: Topic(**told) for name, told in tomllib.loads(GRAMMAR).items()}
T0 = 1_700_000_000
SHOWN = {
    "user": {"id": 7},
    "payload": {"items": [{"sku": "a"}], "the.price": 2.5},
    "ts": "2024-05-01T12:00:00.1239+02:00",
    "ctx": {"n": 1, "b": True, "deep": {"x": "y", "tags": [1, "z", None]}, "nothing": None},
    "p": 0.25,
}


def decode(topic: str, value: Any, strict: bool = False) -> Event | Ignored | DeadLetter:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Codec(strict, MAPPING).decode(Record(topic, 0, 3, None, None, raw))


def reason(topic: str, value: Any, strict: bool = False) -> str:
    found = decode(topic, value, strict)
    assert isinstance(found, DeadLetter)
    return found.reason


def test_paths_templates_constants_and_whole_objects() -> None:
    """An impression is put together from nested fields; a whole object gives its parts as features, by names with dots."""
    found = decode("ads", SHOWN)
    assert isinstance(found, Impression)
    assert (found.impression_id, found.user_id, found.item_id) == ("7:a", "7", "a")
    assert found.at == 1_714_557_600_123
    assert found.served is not None
    assert found.served.score == 0.25
    assert found.features == {
        "n": 1, "b": "true", "deep.x": "y", "deep.tags": ["1", "z"], "price": 2.5, "shop": "de",
    }  # fmt: skip


def test_a_field_says_what_a_record_is() -> None:
    """The kinds of one topic become signals, conversions and adjustments, each with its own fields above the topic's."""
    base = {"ts": T0 + 0.5, "u": "u1", "i": 9, "order": "o1", "total": "12.50"}
    cart = decode("shop", base | {"event": {"name": "add_to_cart"}})
    order = decode("shop", base | {"event": {"name": "order"}})
    refund = decode("shop", base | {"event": {"name": "refund"}})
    assert isinstance(cart, Signal)
    assert (cart.event_id, cart.kind, cart.item_id, cart.at) == ("shop/0@3", "cart", "9", T0 * 1000 + 500)
    assert isinstance(order, Conversion)
    assert (order.event_id, order.kind, order.value) == ("o1", "purchase", 12.5)
    assert isinstance(refund, Adjustment)
    assert (refund.action, refund.conversion_id, refund.value) == ("retract", "o1", None)


def test_names_no_kind_has() -> None:
    """They are ignored and counted; with strict they are dead letters."""
    codec = Codec(mapping=MAPPING)
    record = Record("shop", 0, 3, None, None, b'{"event":{"name":"scroll"}}')
    assert codec.decode(record) == Ignored("scroll")
    assert codec.ignored == {"shop scroll": 1}
    assert reason("shop", {"event": {"name": "scroll"}}, strict=True).startswith("'scroll': not among the kinds")


@pytest.mark.parametrize(
    ("topic", "value", "says"),
    [
        ("ads", {"ts": 1}, "impression_id: user.id: missing (there is 'ts')"),
        ("ads", SHOWN | {"ts": 5}, "at: ts (unit iso): expected a time in ISO 8601, within 2000 to 2100, got 5"),
        ("ads", SHOWN | {"ts": None}, "at: ts: missing (it is None)"),
        (
            "shop",
            {"event": {"name": "order"}, "ts": 1e306, "order": 1, "u": 1, "i": 1},
            "at: ts (unit s): expected seconds since 1970, within 2000 to 2100, got 1e+306",
        ),
        (
            "shop",
            {"event": {"name": "order"}, "ts": T0 * 1000, "order": 1, "u": 1, "i": 1},
            f'at: ts (unit s): expected seconds since 1970, within 2000 to 2100, got {T0}000; it would fit unit = "ms"',
        ),
        ("ads", SHOWN | {"ts": T0}, f'2000 to 2100, got {T0}; it would fit unit = "s"'),
        (
            "ads",
            SHOWN | {"user": {"id": [1]}},
            "impression_id: user.id: expected a string or a whole number, got a list",
        ),
        ("ads", SHOWN | {"ctx": 3}, "features: ctx: expected an object, got 3"),
        ("ads", SHOWN | {"ctx": {"a": [{}]}}, "features: ctx.a: expected a number, a string"),
        ("ads", SHOWN | {"p": 7}, "impression.served.score: Input should be less than or equal to 1"),
        ("ads", SHOWN | {"ts": "1990-01-01"}, "ISO 8601, within 2000 to 2100, got '1990-01-01'"),
        ("ads", SHOWN | {"ts": "2100-01-01"}, "ISO 8601, within 2000 to 2100, got '2100-01-01'"),
        ("ads", SHOWN | {"user": {"id": "x" * 300}}, "; it is made of {user.id}:{payload.items[0].sku}"),
        ("ads", b"{", "not JSON"),
        ("ads", [1], "impression_id: user.id: missing (got a list of 1)"),
        ("shop", {"event": {}}, "type_field: event.name: missing"),
        ("shop", {"event": {"name": "order"}, "ts": T0, "order": 1, "u": 1}, "item_id: i: missing"),
        ("shop", {"event": {"name": "order"}, "ts": T0, "order": 1, "u": 1, "i": 1, "total": "x"}, "value: total: exp"),
    ],
)
def test_what_does_not_fit_is_told_by_its_path(topic: str, value: Any, says: str) -> None:
    """A reason names the path, what was expected and what is there."""
    assert says in reason(topic, value)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"type": "impression", "impression_id": "id"}, "impression needs at"),
        ({"type": "signal", "event_id": "e", "kind": "cart", "at": "t", "user_id": "u"}, "give impression_id, or"),
        ({"type": "item", "item_id": "i", "at": "t", "colour": "c"}, "colour"),
        ({"type": "item", "item_id": "i", "at": "t", "user_id": "u"}, "user_id: no event of this topic has that field"),
        ({"type": "item", "item_id": "i..j", "at": "t"}, "'i..j' is not a path"),
        ({"type": "item", "item_id": "{a", "at": "t"}, "'{a' is not a template"),
        ({"type": "item", "item_id": {"path": "a", "value": "b"}, "at": "t"}, "not path and value"),
        ({"type": "item", "item_id": ".".join("a" * 17), "at": "t"}, "17 steps"),
        ({"type_field": "name"}, "give type, or type_field and"),
        ({"type_field": "n", "kinds": {"x": "item"}, "at": "t"}, "kinds.x: item needs item_id"),
        ({"type_field": "n", "kinds": {"x": {"type": "item", "value": "v"}}, "item_id": "i", "at": "t"}, "item has"),
    ],
)
def test_a_mapping_that_cannot_work_is_refused_at_once(told: dict[str, Any], says: str) -> None:
    """Unknown fields, missing ones and broken paths are errors of the settings, not of each record."""
    with pytest.raises(ValidationError, match=says.replace("(", r"\(").replace("{", r"\{").replace(".", r"\.")):
        Topic(**told)


def test_two_ways_to_write_a_mapping_are_one() -> None:
    """What a checkpoint compares does not depend on how the mapping was spelled, and reads back as the same mapping."""
    one = Topic.model_validate({"type": "item", "item_id": "i", "at": "t", "features": "ctx"})
    two = Topic.model_validate(
        {"features": {"path": "ctx"}, "at": {"path": "t"}, "item_id": {"path": "i"}, "type": "item"}
    )
    assert one.told() == two.told()
    for topic in (*MAPPING.values(), one):
        assert Topic(**topic.told()) == topic
    assert "mapping" not in Settings().told()


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("2024-01-01"))
anything = st.recursive(
    scalars,
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(
            st.sampled_from(["user", "id", "payload", "items", "sku", "ts", "ctx", "p", "a"]), inside, max_size=5
        )
    ),
)


@given(st.one_of(anything.map(lambda value: json.dumps(value).encode()), st.binary(max_size=60)))
def test_no_bytes_break_it(raw: bytes) -> None:
    """Whatever a mapped topic holds is an event, ignored, or a dead letter with a reason; twice the same."""
    for topic in MAPPING:
        found = decode(topic, raw)
        assert found == decode(topic, raw)
        assert not isinstance(found, DeadLetter) or found.reason


@pytest.mark.parametrize("raw", [b'{"ts":' + b"9" * 5000 + b"}", b"[" * 5000, b'{"ctx":' * 150 + b"1" + b"}" * 150])
def test_numbers_and_nesting_beyond_all_bounds(raw: bytes) -> None:
    """They are dead letters."""
    assert all(isinstance(decode(topic, raw), DeadLetter) for topic in MAPPING)


# a run over foreign JSON ----------------------------------------------------------------------------------------------


def foreign(n: int) -> dict[str, Any]:
    name = "view" if n % 3 else "order"
    told = {
        "event": {"name": name},
        "ts": T0 + n * 3600,
        "u": f"u{n // 3}",
        "i": "x",
        "id": f"i{n}",
        "ctx": {"n": n % 5},
    }
    return told | {"order": f"o{n}", "total": 1}


def plain(n: int) -> dict[str, Any]:
    shared = {"at": (T0 + n * 3600) * 1000, "user_id": f"u{n // 3}", "item_id": "x"}
    if n % 3:
        return {"type": "impression", "impression_id": f"i{n}", "features": {"n": n % 5}} | shared
    return {"type": "conversion", "event_id": f"o{n}", "kind": "purchase", "value": 1.0} | shared


def log(events: list[dict[str, Any]]) -> ListSource:
    return ListSource({("shop", 0): [json.dumps(event).encode() for event in events]})


def test_foreign_json_trains_the_same_bytes_as_the_events_it_means() -> None:
    """A log of somebody's own JSON gives, under its mapping, exactly the result of the log of events."""
    settings = Settings(window=86_400_000 * 3, wait=3_600_000)
    theirs = settings.model_copy(update={"mapping": {"shop": MAPPING["shop"]}})
    one = backtest("log", log([plain(n) for n in range(400)]), settings).summary
    two = backtest("log", log([foreign(n) for n in range(400)]), theirs).summary
    assert {name: own(told) for name, told in one["methods"].items()} == {
        name: own(told) for name, told in two["methods"].items()
    }
    assert one["events"] == two["events"]


def test_a_store_is_not_continued_under_another_mapping(tmp_path: Any) -> None:
    """A run goes on from records that wait under the same mapping, and refuses another."""
    settings = Settings(mapping={"shop": MAPPING["shop"]})
    for n in (50, 60):
        store = LabelStore(f"sqlite:///{tmp_path}/s.db", {"purchase": settings.window}, settings.kept)
        loop = Loop(log([foreign(k) for k in range(n)]), settings, store, Checkpoints(store, tmp_path, settings))
        loop.run()
        assert loop.counts["read"] == n
        store.close()
    other = Settings(
        mapping={"shop": MAPPING["shop"].model_copy(update={"features": {}, "user_id": MAPPING["shop"].item_id})}
    )
    store = LabelStore(f"sqlite:///{tmp_path}/s.db", {"purchase": settings.window}, settings.kept)
    with pytest.raises(
        CheckpointError, match=r"written with mapping\.shop = one, asked for is mapping\.shop = another one"
    ):
        Loop(log([]), other, store, Checkpoints(store, tmp_path, other))
    store.close()


def test_a_user_is_erased_from_records_of_their_own_shape(tmp_path: Path) -> None:
    """Blanking reads a mapped topic as the run did, ignored records too, and finds lines by the offsets they have."""
    rows = [foreign(n) for n in range(9)] + [{"event": {"name": "scroll"}, "who": "u1"}]
    file = tmp_path / "shop" / "0.jsonl"
    file.parent.mkdir()
    file.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    numbering.write(tmp_path / numbering.NAME, {Partition("shop", 0): [(0, 100), (4, 900)]})
    found = blank(FileSource(tmp_path), Traces("u1"), strict=False, mapping=MAPPING)
    assert sorted(place.offset for place in found.lines) == [103, 900, 901, 905]
    assert [n for n, line in enumerate(file.read_bytes().splitlines()) if not line] == [3, 4, 5, 9]


def test_a_user_with_a_number_is_erased_from_what_could_not_be_read() -> None:
    """Where the mapping looks for users, a number is an id in dead letters and ignored records too, and nowhere else."""
    traces = Traces("778899", users_of(MAPPING))
    assert traces.mentions(b'{"event":"pageview","user":{"id":778899}}')
    assert not traces.mentions(b'{"event":"pageview","user":{"id":1},"price":778899}')
    assert not Traces("778899").mentions(b'{"event":"pageview","user":{"id":778899}}')


def test_the_example_of_the_page_is_a_mapping() -> None:
    """What docs/mapping.md shows can be used as it stands."""
    page = (Path(__file__).parent.parent / "docs" / "mapping.md").read_text().partition("## A CSV")[0]
    code = "\n".join(line[4:] for line in page.splitlines() if line.startswith("    ") and "belated" not in line)
    assert {name: Topic(**told) for name, told in tomllib.loads(code)["mapping"].items()}.keys() == {
        "ad-views",
        "shop-events",
    }


def test_a_csv_becomes_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script of docs/mapping.md, as it stands there: semicolons, decimal commas, empty fields, a dot in a name."""
    text = (Path(__file__).parent.parent / "docs" / "mapping.md").read_text(encoding="utf-8")
    script = textwrap.dedent(re.search(r"(    import csv.*?\n)\n(?! )", text, re.S)[1])  # type: ignore[index]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.csv").write_text("\ufeffNr.;Zeit;Preis\na1;1700000000;23,70\na2;1700000060;\n", encoding="utf-8")
    subprocess.run([sys.executable, "-c", script], check=True)
    settings = """
        [mapping.shop]
        type = "impression"
        impression_id = '["Nr."]'
        at = { path = "Zeit", unit = "s" }
        features = { price = "Preis" }
    """
    (tmp_path / "belated.toml").write_text(textwrap.dedent(settings))
    done = belated("validate", "log", "-c", "belated.toml")
    assert '"features":{"price":23.7}' in done.stdout
    assert "2 impressions" in done.stdout
