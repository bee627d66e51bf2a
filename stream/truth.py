"""The known P(y = 1 | x) of a simulated log: what no real log can tell, and every learner is judged against."""

import csv
import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stream.simulate.write import SCENARIO, TRUTH
from stream.sources import SourceError


class Truth:
    """Looks up p by impression id. ``window``: in which they convert, ms; None where no scenario beside it says.

    Raises:
        SourceError: the file is not one that `belated simulate` writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.window: int | None = None
        try:
            with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
                rows = csv.reader(file)
                if next(rows, [])[:2] != ["impression_id", "p"]:
                    raise ValueError("its first line does not begin with impression_id,p")
                found = [(row[0].encode(), _probability(row[1])) for row in rows]
            if not found:
                raise ValueError("it has no row")
        except (OSError, EOFError, ValueError, IndexError) as error:
            raise SourceError(f"{path}: not a truth file ({error}); expected what `belated simulate` writes") from None
        if (told := path.with_name(SCENARIO)).is_file():
            self.window = _window(told)
        ids, p = np.array([name for name, _ in found]), np.array([value for _, value in found], dtype=np.float64)
        order = np.argsort(ids)
        self._ids, self._p = ids[order], p[order]

    def of(self, ids: Iterable[str]) -> NDArray[np.float64]:
        """p of each of these impressions.

        Raises:
            SourceError: the file does not know one of them.
        """
        asked = np.array([name.encode() for name in ids])
        place = np.searchsorted(self._ids, asked).clip(max=len(self._ids) - 1)
        missing = self._ids[place] != asked
        if missing.any():
            name = asked[missing][0].decode()
            raise SourceError(f"{self.path}: knows nothing of impression {name!r}; it is the truth of another log")
        found: NDArray[np.float64] = self._p[place]
        return found


def _window(file: Path) -> int:
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["window"])
    except (OSError, ValueError, KeyError, TypeError):
        raise SourceError(f"{file}: names no window; expected what `belated simulate` writes") from None


def _probability(text: str) -> float:
    p = float(text)
    if not 0 <= p <= 1:
        raise ValueError(f"p is {text}, not between 0 and 1")
    return p


def beside(log: Path) -> Truth | None:
    """The truth of a log, where it was simulated."""
    return Truth(log / TRUTH) if (log / TRUTH).is_file() else None
