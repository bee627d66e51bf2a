"""How often something came so far, in bounded memory: what features tell of the rows before."""

from collections import OrderedDict

LIMIT = 1_000_000  # counts kept, about 0.2 GB


class Counts:
    """How often each key came so far, for the ``limit`` keys that came last.

    >>> counts = Counts(limit=2)
    >>> [counts.add(key) for key in "aabca"]
    [0, 1, 0, 0, 0]
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._counts: OrderedDict[str, int] = OrderedDict()

    def __getitem__(self, key: str) -> int:
        return self._counts.get(key, 0)

    def add(self, key: str) -> int:
        """The count of ``key`` before this time."""
        before = self._counts.pop(key, 0)
        self._counts[key] = before + 1
        if len(self._counts) > self._limit:
            self._counts.popitem(last=False)
        return before


def history(counts: Counts, user: str, item: str, category: str) -> dict[str, int]:
    """What the user did in the rows before a view: views, of the item, of the category; carts, buys. Counts the view."""
    return {
        "views": counts.add(user),
        "views_item": counts.add(f"{user} i{item}"),
        "views_category": counts.add(f"{user} c{category}"),
        "carts": counts[f"{user} cart"],
        "buys": counts[f"{user} purchase"],
    }
