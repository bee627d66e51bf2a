"""Which purchases a cancellation takes back, where the source says only customer, product and quantity.

Of the same customer's purchases of the same product that stand before the cancellation:

1. the latest of which exactly the cancelled quantity is left is retracted;
2. else the latest are taken back one after the other until the quantity is used up: those used up wholly are retracted,
   the last one, of which something is left, is restated with the value of what is left (a part sent back is still a
   purchase);
3. if less is left in all than is cancelled, nothing is: the cancellation is refused.

The price is not compared: a credit note may have another.
"""

from typing import NamedTuple

NEVER = "a cancellation without a purchase of this customer and product before it"
TOO_MUCH = "a cancellation of more than is left of the purchases before it"


class Correction(NamedTuple):
    """A conversion taken back; ``value`` None: all of it, else what is left of it."""

    conversion: str
    value: float | None


class _Bought:
    def __init__(self, conversion: str, quantity: int, price: float) -> None:
        self.conversion, self.left, self.price = conversion, quantity, price


class Purchases:
    """What is left of each customer's purchases, latest last; in memory, about 0.3 kB each."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, str], list[_Bought]] = {}

    def add(self, customer: str, product: str, conversion: str, quantity: int, price: float) -> None:
        """A purchase, later than those before."""
        self._of.setdefault((customer, product), []).append(_Bought(conversion, quantity, price))

    def cancel(self, customer: str, product: str, quantity: int) -> list[Correction] | str:
        """What ``quantity`` units (more than 0) of a cancellation take back, or why they take back nothing."""
        bought = self._of.get((customer, product), [])
        if not bought:
            return NEVER
        if sum(one.left for one in bought) < quantity:
            return TOO_MUCH
        for place in reversed(range(len(bought))):
            if bought[place].left == quantity:
                return [Correction(bought.pop(place).conversion, None)]
        return _latest(bought, quantity)


def _latest(bought: list[_Bought], quantity: int) -> list[Correction]:
    found: list[Correction] = []
    while quantity:
        last = bought[-1]
        if last.left > quantity:
            last.left -= quantity
            return [*found, Correction(last.conversion, round(last.left * last.price, 2))]
        quantity -= last.left
        found.append(Correction(bought.pop().conversion, None))
    return found
