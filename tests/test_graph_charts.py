"""The pictures of the product graph: on the page where a run had one, and what they show."""

from typing import Any

import pytest
import torch

from labelstore.item_pairs import Pair
from learner.graph import training
from learner.graph.methods import GRAPH_METHODS, GraphMethod
from strategies import DAY, T0
from stream import snapshot
from stream.backtest import Result, backtest
from stream.sources import ListSource
from stream.versions import Versions
from test_refresh import SETTINGS, parts, shop, small

pytest.importorskip("plotly", reason="needs the extra `report`: pip install 'belated[report]'")

from test_report import page

NAME = "<b>phone</b>"


@pytest.fixture(scope="module")
def full() -> Result:
    """A shop in which a product has markup for a name; versions after three, six and nine days."""
    events = shop(users=40)
    for event in events:
        for key in ("item_id", "context_item_id"):
            if event.get(key) == "p7":
                event[key] = NAME
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GRAPH_METHODS, "dual", GraphMethod(training.train, *small(10, 5)))
        return backtest("log", ListSource(parts(events, 1)), SETTINGS, pictures=True)


def told(result: Result) -> Versions:
    assert result.graph is not None
    return result.graph


def test_the_page_has_them(full: Result, tmp_path: Any) -> None:
    """Three charts more, with their words; a name is no markup; without a graph nothing of it."""
    text = page(full, tmp_path)
    plain = page(full._replace(graph=None), tmp_path)
    assert text.count('id="chart-') == plain.count('id="chart-') + 3
    for said in (
        "has the most co-purchases",
        "of the top 10 stays",
        "were foretold, by popularity",
        "<dt>in-degree</dt>",
    ):
        assert said in text
    assert NAME not in text
    assert "one way only" in text
    assert page(full, tmp_path) == text
    assert "<dt>in-degree</dt>" not in plain


def test_before_the_first_version(full: Result, tmp_path: Any) -> None:
    """The headings stand, and say that there is nothing yet."""
    text = page(full._replace(graph=Versions([], [], None)), tmp_path)
    assert text.count("Nothing to draw:") == page(full, tmp_path).count("Nothing to draw:") + 3


def test_what_was_collected(full: Result) -> None:
    """Versions as they were served, and what came after each, in the buckets of the in-degree."""
    served, intervals, newest = told(full)
    assert [one.number for one in served] == [1, 2, 3]
    assert [one.version for one in intervals] == [1, 2]
    assert newest is not None
    assert newest.number == 3
    for one in intervals:
        assert sum(one.asked) == one.warm
        for name, hits in one.by_degree.items():
            known = [(n, hit) for n, hit in zip(one.asked, hits, strict=True) if hit is not None]
            assert len(known) == sum(n > 0 for n in one.asked)
            assert sum(n * hit for n, hit in known) / one.warm == pytest.approx(one.figures[name].hits)


def test_arrows_are_the_edges() -> None:
    """Around the product with the most co-purchases: what follows on the right, what leads on the left, each edge once."""
    from stream.graph_charts import BOTH_WAYS, ONE_WAY, neighbourhood

    ends = {("m", "a"): 4.0, ("b", "m"): 2.0, ("c", "m"): 1.0, ("m", "c"): 1.0, ("a", "b"): 1.0, ("x", "y"): 3.0}
    pairs = [Pair("co-purchase", u, v, weight, T0) for (u, v), weight in sorted(ends.items())]
    taken = snapshot.take(pairs, [], 1, 0, "dual", T0 + DAY)
    chart = neighbourhood(Versions([], [], taken))
    assert chart.title == "m has the most co-purchases: 2 products follow it, 2 lead to it"
    figure = chart.figure
    products = figure.data[-1]
    place = dict(
        zip(
            (text.partition(":")[0] for text in products.hovertext),
            zip(products.x, products.y, strict=True),
            strict=True,
        )
    )
    assert place.keys() == {"m", "a", "b", "c"}
    assert place["m"] == (0, 0)
    assert place["a"][0] > 0.9
    assert place["b"][0] < 0
    of = {at: name for name, at in place.items()}
    drawn = {(of[a.ax, a.ay], of[a.x, a.y]): a for a in figure.layout.annotations if a.showarrow}
    assert drawn.keys() == {("m", "a"), ("b", "m"), ("c", "m"), ("a", "b")}
    for ends_of, arrow in drawn.items():
        both = ends_of == ("c", "m")
        assert arrow.arrowside == ("end+start" if both else "end")
        assert arrow.arrowcolor == (BOTH_WAYS if both else ONE_WAY)
    assert drawn["m", "a"].arrowwidth > drawn["b", "m"].arrowwidth == drawn["c", "m"].arrowwidth
    assert drawn["a", "b"].opacity < drawn["m", "a"].opacity


def test_without_edges_nothing_is_drawn() -> None:
    from stream.graph_charts import foresight, movement, neighbourhood

    empty = snapshot.take([], [("a", "{}")], 1, 0, "dual", T0)
    assert isinstance(empty.bought, torch.Tensor)
    for picture in (neighbourhood, movement, foresight):
        assert picture(Versions([], [], empty)).figure is None
