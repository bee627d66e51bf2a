"""The options of the commands, each said once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from labelstore.address import SECRET
from learner.names import GRAPH_NAMES

Log = Annotated[Path, typer.Argument(help="a folder topic/partition.jsonl (.gz, .zst), or one .jsonl file")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="settings: their \\[mapping] reads foreign JSON, their \\[learner] stands in for options not given, as the "
        "environment does (BELATED_LEARNER__WINDOW=7d)",
    ),
]
Target = Annotated[str, typer.Option(help="the kind of conversion to predict")]
Window = Annotated[str, typer.Option(help="attribution window: a conversion counts this long after its impression")]
Wait = Annotated[str, typer.Option(help="elapsed time until the first look at an impression")]
Lateness = Annotated[str, typer.Option(help="how far a partition may be out of order before a record counts as late")]
Keep = Annotated[
    str | None, typer.Option(help="how long records are kept, at least a window and a day; by default two windows")
]
BaseRate = Annotated[float, typer.Option(help="conversion rate believed before anything was learned")]
Seed = Annotated[int, typer.Option(help="of the start weights, the same for all methods")]
Strict = Annotated[bool, typer.Option("--strict", help="refuse records with fields nobody knows")]
Poll = Annotated[int, typer.Option(min=1, max=1_000_000, help="records read at a time; changes no result")]
Every = Annotated[int, typer.Option(min=1, help="records between checkpoints; changes no result")]
Pretrain = Annotated[
    str | None,
    typer.Option(help="learn this long from settled labels, wait one window, and only then predict, train and judge"),
]
Frozen = Annotated[
    bool, typer.Option("--frozen", help="auxiliary models stop learning when the pre-training is over, for comparison")
]
Seeds = Annotated[
    int, typer.Option(min=1, max=100, help="run again with as many seeds; intervals are over all of them")
]
TruthFile = Annotated[
    Path | None, typer.Option("--truth", help="known p of a simulated log; default LOG/truth.csv.gz where it is")
]
GraphEvery = Annotated[
    str | None,
    typer.Option(help="learn anew this often which products follow which; what it says of impressions is learned from"),
]
GraphMethod = Annotated[str, typer.Option(help=f"how the product graph is learned: {', '.join(GRAPH_NAMES)}")]
Store = Annotated[
    str | None,
    typer.Option(
        help="label store to keep, such as sqlite:///belated.db or postgresql+psycopg://user@host/database (its password: "
        f"{SECRET} in the environment); by default a temporary one"
    ),
]
StoreThere = Annotated[str, typer.Option("--store", help="the label store, as it was given to replay or backtest")]
Checkpoints = Annotated[
    Path | None, typer.Option(help="folder of the store's checkpoints; by default beside a SQLite file")
]
LogThere = Annotated[Path, typer.Option("--log", help="the log that was replayed into the store")]
LogMaybe = Annotated[Path | None, typer.Option("--log", help="the log that was replayed into the store")]
Reason = Annotated[str | None, typer.Option(help="only those whose reason holds this text, in any case")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead")]
Json = Annotated[Path | None, typer.Option("--json", help="write the results to this file, - for standard output")]
Html = Annotated[Path | None, typer.Option("--html", help="write the report, one page, to this file")]


class Dataset(StrEnum):
    """What can be converted."""

    completejourney = "completejourney"
    taobao = "taobao"
    criteo = "criteo"
    rees46 = "rees46"
    otto = "otto"
    openbandit = "openbandit"
    online_retail = "online_retail"


class Outcome(StrEnum):
    """Targets of Complete Journey."""

    purchase = "purchase"
    redemption = "redemption"
