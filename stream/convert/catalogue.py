"""The newest metadata of each product, so that an `item` is written only where there is news."""

from collections.abc import Mapping


class Catalogue:
    """What was written of each product, in memory (about 0.5 kB each).

    >>> catalogue = Catalogue()
    >>> [catalogue.news("a", at, {"price": p}) for at, p in [(1, 9.0), (2, 9.0), (3, 8.0), (3, 7.0), (4, 7.0)]]
    [True, False, True, False, True]
    """

    def __init__(self) -> None:
        self._written: dict[str, tuple[int, Mapping[str, object]]] = {}

    def news(self, product: str, at: int, metadata: Mapping[str, object]) -> bool:
        """Whether to write this. A second change at the same time would be a duplicate: it waits for the next row."""
        known = self._written.get(product)
        if known and (known[0] >= at or known[1] == metadata):
            return False
        self._written[product] = at, metadata
        return True
