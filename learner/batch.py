"""What the learner is given: rows of features, and looks at them. Tensors only; every shape is stated."""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

KINDS = 4  # kinds of signal told apart; further kinds share the last place
SETS = 2**KINDS  # of kinds
TICK = 1e-3  # s, the resolution of looks


class Look(IntEnum):
    """Why a row is in a batch."""

    FIRST = 0
    CONVERSION = 1
    CLOSE = 2
    AGE = 3


class Rows(NamedTuple):
    """Encoded features of R impressions, N hashed values in all, in compressed rows.

    ``ids`` [N] int64: the bucket of each hashed value. ``slots`` [N] int64: the place its feature has in the model.
    ``ptr`` [R + 1] int64: row r holds values ptr[r] .. ptr[r + 1]. ``numbers`` [R, M] float64: NaN where missing.
    """

    ids: Tensor
    slots: Tensor
    ptr: Tensor
    numbers: Tensor

    @property
    def size(self) -> int:
        """R."""
        return self.numbers.shape[0]

    @property
    def row(self) -> Tensor:
        """The row of each hashed value, [N] int64."""
        return torch.repeat_interleave(torch.arange(self.size), self.ptr.diff())

    def take(self, index: Tensor) -> "Rows":
        """The rows named by ``index`` [B] int64, in that order."""
        start, length = self.ptr[index], self.ptr[index + 1] - self.ptr[index]
        ptr = torch.cat([length.new_zeros(1), length.cumsum(0)])
        values = torch.arange(int(ptr[-1])) + torch.repeat_interleave(start - ptr[:-1], length)
        return Rows(self.ids[values], self.slots[values], ptr, self.numbers[index])


class Batch(NamedTuple):
    """B looks, each at one impression. Times in seconds.

    ``rows``: their features, R = B.
    ``look`` [B] int64: `Look`. ``impression`` [B] int64: which one. ``at`` [B] float64: event time of the look.
    ``shown`` [B] float64: event time of the impression. ``elapsed`` [B] float64: impression to FIRST look.
    ``label`` [B] float32: 1 if a conversion was known at this look. ``first_label`` [B] float32: at the first look,
    or at this one where it is an outcome before it; so are ``signals``.
    ``delay`` [B] float64: impression to the moment its conversion was known; -1 if none was.
    ``signals`` [B, KINDS] float32: how many signals of each kind were known at the first look.
    ``since`` [B] float64: from the newest of them to the first look; -1 if there is none.
    ``age`` [B] float64: impression to THIS look. ``before`` [B] float32: label at the look before it that was learned;
    ``age_before`` [B] float64: age of that look; 0 and 0 if there is none. ``signals_now`` [B, KINDS] float32: signals known
    at this look. ``signalled`` [B, KINDS] float64: age at which the first of each kind was known; -1 if none is.
    """

    rows: Rows
    look: Tensor
    impression: Tensor
    at: Tensor
    shown: Tensor
    elapsed: Tensor
    label: Tensor
    first_label: Tensor
    delay: Tensor
    signals: Tensor
    since: Tensor
    age: Tensor
    before: Tensor
    age_before: Tensor
    signals_now: Tensor
    signalled: Tensor

    @property
    def size(self) -> int:
        """B."""
        return self.label.shape[0]

    def take(self, index: Tensor) -> "Batch":
        """The looks named by ``index`` [B] int64, in that order."""
        return Batch(self.rows.take(index), *(column[index] for column in self[1:]))


def set_of(seen: Tensor) -> Tensor:
    """Which kinds of signal there are, [B, KINDS] bool, as one number in 0 .. SETS - 1: [B] int64."""
    found: Tensor = (seen * 2 ** torch.arange(KINDS)).sum(1)
    return found


def cat_rows(parts: Sequence[Rows]) -> Rows:
    """One after the other."""
    if len(parts) == 1:
        return parts[0]
    ends = torch.tensor([0, *(int(part.ptr[-1]) for part in parts[:-1])]).cumsum(0)
    ptr = [part.ptr[1:] + end for part, end in zip(parts, ends, strict=True)]
    return Rows(
        torch.cat([part.ids for part in parts]),
        torch.cat([part.slots for part in parts]),
        torch.cat([parts[0].ptr[:1], *ptr]),
        torch.cat([part.numbers for part in parts]),
    )


def cat(parts: Sequence[Batch]) -> Batch:
    """One after the other."""
    if len(parts) == 1:
        return parts[0]
    columns = [torch.cat(column) for column in zip(*(part[1:] for part in parts), strict=True)]
    return Batch(cat_rows([part.rows for part in parts]), *columns)


def tensors(batch: Batch) -> dict[str, Tensor]:
    """A batch as named tensors, for a checkpoint."""
    rows = {f"rows.{name}": value for name, value in zip(Rows._fields, batch.rows, strict=True)}
    return rows | dict(zip(Batch._fields[1:], batch[1:], strict=True))


def restore(found: dict[str, Tensor]) -> Batch:
    """The inverse of `tensors`."""
    return Batch(Rows(*(found[f"rows.{name}"] for name in Rows._fields)), *(found[n] for n in Batch._fields[1:]))
