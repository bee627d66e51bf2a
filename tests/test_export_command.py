"""`belated labels export`: the formats, the command, and what it warns of."""

import gzip
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from labelstore.export import Joined, Row
from labelstore.retention import whole_from
from labelstore.store import LabelStore, existing
from stores import FOREVER, WINDOW
from strategies import DAY, HOUR, T0
from stream import export
from stream.cli import main
from stream.erasure import forget
from stream.export import COLUMNS, ExportError, writing
from stream.loop import Loop
from stream.settings import Settings, moment
from stream.sources import ListSource
from stream.workspace import opened
from test_export import LATE, PLAIN, SHOWN, bought, cart, one, read_csv, rows
from test_loop import EVENTS, shop, split
from test_store import impression

# the formats -----------------------------------------------------------------------------------------------------

ODD = Row('say "i", they\r\nsaid', "ü\n", None, T0, 1, 1500, True, 2.5, {"z": 1, "cart": 2}, '{"x":"a,b"}', (0.1, None))
BARE = Row("i", None, "a", T0 + 1, 0, None, False, None, {}, "{}", (1e-17, 0.25))
LEARNERS = ("pq", "settled")
NAMES = [*COLUMNS, "score_pq", "score_settled"]


def write(path: Path, pages: Sequence[Sequence[Row]]) -> bytes:
    with writing(path, LEARNERS) as put:
        for page in pages:
            put(page)
    return path.read_bytes()


def test_a_line_of_csv(tmp_path: Path) -> None:
    """Seconds, true and false, signals as JSON by name; no value is an empty cell; lines end in a line feed."""
    content = write(tmp_path / "t.csv", [[BARE], [ODD._replace(impression_id="j", user_id="u")]])
    assert content.decode().split("\n") == [
        "impression_id,user_id,item_id,at,label,delay_s,settled,value,signals,features,score_pq,score_settled",
        f"i,,a,{T0 + 1},0,,false,,{{}},{{}},1e-17,0.25",
        f'j,u,,{T0},1,1.5,true,2.5,"{{""cart"":2,""z"":1}}","{{""x"":""a,b""}}",0.1,',
        "",
    ]


def test_csv_and_parquet_agree(tmp_path: Path) -> None:
    """Read back, both formats have the same columns and values; Parquet with its types."""
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "t.parquet", [[ODD], [BARE]])
    found = parquet.read_table(tmp_path / "t.parquet")
    assert found.to_pylist() == read_csv(write(tmp_path / "t.csv", [[ODD, BARE]]))
    assert [row["impression_id"] for row in found.to_pylist()] == [ODD.impression_id, "i"]
    assert dict(zip(found.column_names, map(str, found.schema.types), strict=True)) == {
        **COLUMNS, "delay_s": "double", "value": "double", "score_pq": "double", "score_settled": "double",
    }  # fmt: skip


def test_what_the_graph_said_is_a_column(tmp_path: Path) -> None:
    """JSON after the features, only where it was asked for; empty where nothing was said; alike in both formats."""
    parquet = pytest.importorskip("pyarrow.parquet")
    said = '{"version":1,"rel":0.5}'
    for name in ("t.csv", "t.parquet"):
        with writing(tmp_path / name, LEARNERS, graph=True) as put:
            put([ODD._replace(graph=said), BARE])
    found = parquet.read_table(tmp_path / "t.parquet")
    assert found.column_names == [*COLUMNS, "graph", "score_pq", "score_settled"]
    assert found.column("graph").to_pylist() == [said, None]
    assert found.to_pylist() == read_csv((tmp_path / "t.csv").read_bytes())


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
def test_no_rows_are_a_table_too(tmp_path: Path, name: str) -> None:
    """A table without rows has its columns."""
    content = write(tmp_path / name, [])
    if name.endswith("parquet"):
        assert pytest.importorskip("pyarrow.parquet").read_table(tmp_path / name).column_names == NAMES
    else:
        text = gzip.decompress(content) if name.endswith("gz") else content
        assert text.decode().strip().split(",") == NAMES


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_the_same_table_is_the_same_bytes(tmp_path: Path, ending: str) -> None:
    """A file's bytes do not tell its name or when it was written; the packed CSV is the CSV."""
    (tmp_path / "other").mkdir()
    content = write(tmp_path / f"t.{ending}", [[ODD], [BARE]])
    assert write(tmp_path / "other" / f"name.{ending}", [[ODD], [BARE]]) == content
    if ending == "csv.gz":
        assert content[4:8] == bytes(4)  # the time
        assert gzip.decompress(content) == write(tmp_path / "t.csv", [[ODD], [BARE]])


def test_row_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages wait until there are enough of them for a row group, and no longer."""
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(export, "GROUP", 10)
    write(tmp_path / "t.parquet", [[BARE] * 4] * 7)
    meta = parquet.ParquetFile(tmp_path / "t.parquet").metadata
    groups = [meta.row_group(n).num_rows for n in range(meta.num_row_groups)]
    assert (sum(groups), max(groups)) == (28, 10)


def test_a_file_is_there_when_it_is_complete(tmp_path: Path) -> None:
    """Until the table is complete the file does not have its name; an error leaves what was there before."""
    path = tmp_path / "t.csv"
    before = write(path, [[BARE]])

    def interrupted() -> None:
        with writing(path, LEARNERS) as put:
            put([ODD])
            assert {file.name for file in tmp_path.iterdir()} == {"t.csv", "t.csv.part"}
            assert path.read_bytes() == before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert {file.name for file in tmp_path.iterdir()} == {"t.csv"}
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_written() -> None:
    """What the disk says is told, with the remedy."""
    with pytest.raises(ExportError, match=r"/proc/x\.csv: cannot be written \(.*\); name another"):
        write(Path("/proc/x.csv"), [])


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the error is the command that installs it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExportError, match=r"t\.parquet: .*pip install 'belated\[parquet\]'"):
        write(tmp_path / "t.parquet", [])


# the command -----------------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """What a command ended with."""

    status: int
    out: bytes
    err: str


Say = Callable[..., Said]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Say:
    """`belated` with these arguments."""

    def run(*arguments: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["belated", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsysbinary.readouterr()
        return Said(int(ended.value.code or 0), out, " ".join(err.decode().split()))

    return run


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of two learners after a pre-training."""
    url = f"sqlite:///{tmp_path_factory.mktemp('store')}/s.db"
    settings = Settings(methods=("pq", "settled"), pretrain=DAY, window=DAY, wait=HOUR, keep=FOREVER)
    with opened(url, settings) as (store, checkpoints):
        Loop(ListSource(split(EVENTS, 1)), settings, store, checkpoints).run()
    return url


def test_the_command_in_every_format(url: str, say: Say, tmp_path: Path) -> None:
    """Packed or not, in Parquet or on standard output: the same table, with a score for each learner by name."""
    for name in ("t.csv", "t.csv.gz", "t.parquet"):
        done = say("labels", "export", tmp_path / name, "--store", url)
        assert (done.status, done.out) == (0, b"")
        assert "1,500 impressions as of 2023-11-2" in done.err
    out = say("labels", "export", "-", "--store", url).out
    assert out == (tmp_path / "t.csv").read_bytes() == gzip.decompress((tmp_path / "t.csv.gz").read_bytes())
    found = read_csv(out)
    assert list(found[0])[10:] == ["score_pretrained", "score_pq", "score_settled"]
    assert found == pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "t.parquet").to_pylist()
    scored = [row["at"] for row in found if row["score_pq"] is not None]
    assert scored == [row["at"] for row in found if row["at"] >= T0 + 2 * DAY]


def test_the_default_is_what_has_passed(url: str, say: Say) -> None:
    """Without --as-of all that has passed is known: the same as to ask for the moment the store has reached."""
    last = EVENTS[-1]["at"]
    shown = max(event["at"] for event in EVENTS if event["type"] == "impression")
    whole = say("labels", "export", "-", "--store", url)
    asked = say("labels", "export", "-", "--store", url, "--as-of", str(last + 1))
    before = say("labels", "export", "-", "--store", url, "--as-of", str(shown))
    assert whole.out == asked.out
    assert len(read_csv(before.out)) == len(read_csv(whole.out)) - 1
    assert "warning" not in whole.err + asked.err + before.err


def test_a_moment_not_reached_is_warned_of(url: str, say: Say) -> None:
    """Past what the store has reached the table is written, all of it settled, and both moments are named."""
    done = say("labels", "export", "-", "--store", url, "--as-of", "2024-01-01")
    assert done.status == 0
    assert "warning: the store has reached 2023-11-2" in done.err
    assert "asked for is 2024-01-01 UTC" in done.err
    assert {row["settled"] for row in read_csv(done.out)} == {True}


@pytest.mark.parametrize(
    ("file", "more", "says"),
    [
        ("no/t.csv", [], ["no/t.csv: there is no folder", "make it first"]),
        ("t.txt", [], ["t.txt: no format has this ending", ".csv, .csv.gz, .parquet, or -"]),
        ("t", [], ["t: no format has this ending"]),
        ("", [], ["no format has this ending"]),
        ("t.csv", ["--as-of", "soon"], ["--as-of: 'soon' is not a time", "2017-11-28"]),
        ("t.csv", ["--as-of", "20171128"], ["'20171128' is not within 2000 to 2100", "ms since 1970"]),
        ("t.csv", ["--store", "sqlite:///no.db"], ["no.db", "there is no such file"]),
    ],
)
def test_wrong_arguments(url: str, say: Say, tmp_path: Path, file: str, more: list[str], says: list[str]) -> None:
    """One sentence with the thing, the value and the remedy; the status is 2 and nothing is written."""
    done = say("labels", "export", tmp_path / file, "--store", url, *more)
    assert (done.status, done.out) == (2, b"")
    assert done.err.count("error:") == 1
    for words in says:
        assert words in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_nothing(say: Say, tmp_path: Path) -> None:
    """A store that has read an empty log gives an empty table."""
    with opened(f"sqlite:///{tmp_path}/s.db", PLAIN) as (store, checkpoints):
        Loop(ListSource({("events", 0): []}), PLAIN, store, checkpoints).run()
    done = say("labels", "export", "-", "--store", f"sqlite:///{tmp_path}/s.db")
    assert (done.status, done.out.count(b"\n")) == (0, 1)


def test_a_store_without_a_commit(say: Say, tmp_path: Path) -> None:
    """A store in which nothing was committed says so."""
    LabelStore(f"sqlite:///{tmp_path}/s.db", {"purchase": DAY}, DAY).close()
    done = say("labels", "export", "-", "--store", f"sqlite:///{tmp_path}/s.db")
    assert done.status == 2
    assert "replay a log into it first" in done.err


def test_show_names_learners_after_a_pretraining(url: str, say: Say) -> None:
    """`labels show` names the learners as the export does: the first of them is `pretrained`."""
    said = say("labels", "show", "i1400", "--store", url).out.decode()
    assert [name for name in ("pretrained", "pq", "settled") if f"{name} scores" in said] == [
        "pretrained",
        "pq",
        "settled",
    ]


# what a store no longer has ----------------------------------------------------------------------------------------

FORTNIGHT = shop(1200, seed=3, days=14)
END = T0 + 15 * DAY  # the last midnight that its last purchase has passed
SHORT = PLAIN.model_copy(update={"window": DAY, "keep": 3 * DAY})


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Stores of one log that keep its records for 3 days, for 9 and for ever."""
    folder = tmp_path_factory.mktemp("kept")
    found = {keep: f"sqlite:///{folder}/{keep}.db" for keep in (3, 9, 400)}
    for keep, url in found.items():
        settings = SHORT.model_copy(update={"keep": keep * DAY})
        with opened(url, settings) as (store, checkpoints):
            Loop(ListSource(split(FORTNIGHT, 1)), settings, store, checkpoints).run()
    return found


def table(url: str, as_of: int) -> list[Row]:
    with existing(url) as connection:
        return [row for page in Joined(connection, "purchase", DAY, as_of, 1).pages() for row in page]


def test_whole_from_the_horizon_on(kept: dict[int, str]) -> None:
    """What is shown after the horizon is there with all that came back, what was known before it is gone."""
    horizon = whole_from(END, 3 * DAY)
    whole = [row for row in table(kept[400], LATE) if row.at >= horizon]
    assert table(kept[3], LATE) == whole
    assert 150 < len(whole) < 300


def test_a_longer_keep_is_the_remedy(kept: dict[int, str], say: Say) -> None:
    """As of a moment whose rows are deleted, the warning names where the export is whole, and the keep that has all
    that a store still had then."""
    done = say("labels", "export", "-", "--store", kept[3], "--as-of", str(T0 + 9 * DAY + HOUR))
    assert "still had impressions known from 2023-11-20 UTC on, since deleted" in done.err
    assert "whole for impressions shown from 2023-11-26 UTC on" in done.err
    assert "with --keep 9d or longer" in done.err
    assert moment("2023-11-20") == T0 + 6 * DAY
    then = T0 + 6 * DAY
    whole = [row for row in table(kept[400], T0 + 9 * DAY + HOUR) if row.at >= then]
    assert [row for row in table(kept[9], T0 + 9 * DAY + HOUR) if row.at >= then] == whole
    assert len(whole) > 200
    assert "warning" not in say("labels", "export", "-", "--store", kept[9], "--as-of", str(END)).err


def test_the_end_of_a_store_is_no_reason_to_warn(kept: dict[int, str], say: Say) -> None:
    """By default the table is what has passed; what was deleted by then is said, and is no warning."""
    done = say("labels", "export", "-", "--store", kept[3])
    assert "warning" not in done.err
    assert "the store keeps 3d: the export is whole for impressions shown from 2023-11-26 UTC on" in done.err
    assert "keeps" not in say("labels", "export", "-", "--store", kept[400]).err


def test_a_person_who_was_forgotten_is_no_retention(say: Say, tmp_path: Path) -> None:
    """What `forget` has taken is not to be had back by a longer keep."""
    url, settings = f"sqlite:///{tmp_path}/s.db", SHORT.model_copy(update={"keep": 400 * DAY})
    events = [
        event | ({"user_id": f"u{n % 9}"} if event["type"] == "impression" else {}) for n, event in enumerate(FORTNIGHT)
    ]
    with opened(url, settings) as (store, checkpoints):
        Loop(ListSource(split(events, 1)), settings, store, checkpoints).run()
    assert forget("u1", url).counts["impressions"] > 9
    for as_of in ((), ("--as-of", str(T0 + 2 * DAY))):
        assert "keeps" not in say("labels", "export", "-", "--store", url, *as_of).err


def test_one_that_was_known_late_may_lack_what_came_back() -> None:
    """Why the horizon speaks of when impressions were shown: one shown before it and known after it may have lost a
    signal that passed before it."""
    store = LabelStore("sqlite://", {"purchase": WINDOW}, 3 * DAY)
    store.pass_on([(T0 + DAY - 1, cart("s", T0 + 1))])
    store.pass_on([(T0 + DAY, impression("i", T0))])
    assert one(store).signals == {"cart": 1}
    store.forget_before(T0 + 4 * DAY)
    assert one(store).signals == {}
    store.close()


def test_a_reader_sees_one_moment(kept: dict[int, str], tmp_path: Path) -> None:
    """What another process commits while the table is read is not in it."""
    url = f"sqlite:///{tmp_path}/s.db"
    writer = LabelStore(url, {"purchase": WINDOW}, FOREVER)
    writer.pass_on([SHOWN])
    writer.commit()
    with existing(url) as connection:
        joined = Joined(connection, "purchase", WINDOW, LATE, 0)
        assert joined.size() == 1
        writer.pass_on([bought("c", T0 + 1), (T0 + 2, impression("j", T0 + 2))])
        writer.commit()
        assert [row.label for page in joined.pages() for row in page] == [0]
    assert [row.label for row in rows(writer)] == [1, 0]
    writer.close()


def test_the_page_names_every_column() -> None:
    """docs/export.md has a row for each column and each format."""
    page = (Path(__file__).parent.parent / "docs" / "export.md").read_text()
    for name in COLUMNS:
        assert re.search(rf"^\|[^|]*`{name}`[^|]*\|", page, re.M), name
    for ending in export.FORMATS:
        assert f"`{ending}`" in page, ending
