"""The knobs of a simulated log, and the named scenarios."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream.settings import Duration, spell

Share = Annotated[float, Field(ge=0, le=1)]
Drift = Annotated[float, Field(ge=-20, le=20, allow_inf_nan=False)]
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
START = 1_704_067_200_000  # 2024-01-01 UTC, a Monday, ms


class Scenario(BaseModel):
    """What is simulated. Durations in ms, or written as 7d, 12h, 90s.

    A drift sets in at ``change`` and stays; 0 is none. ``conversion_drift`` and ``delay_drift`` are added to logits,
    ``signal_drift`` multiplies the carts of those who do not buy, ``new_campaigns`` is a share of the traffic.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    impressions: Annotated[int, Field(ge=1, le=50_000_000)] = Field(default=200_000, description="impressions to write")
    partitions: Annotated[int, Field(ge=1, le=1000)] = Field(default=1, description="partitions; a user stays in one")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(default=0, description="same seed and knobs, same bytes")
    days: Annotated[float, Field(gt=0, le=3650)] = Field(
        default=30.0, description="days over which impressions are shown"
    )
    window: Annotated[Duration, Field(gt=0)] = Field(
        default=7 * DAY, description="attribution window: delays end within it"
    )
    change: Duration | None = Field(
        default=None, description="when a drift sets in, after the start; default half of the days"
    )
    rate: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="share of impressions that convert, before a drift"
    )
    conversion_drift: Drift = Field(default=0.0, description="added to the logit of p(y|x), more for some categories")
    delay_drift: Drift = Field(
        default=0.0, description="taken from the logits of fast conversions: buyers become slower"
    )
    signal_drift: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = Field(
        default=1.0, description="factor on carts of impressions without a purchase"
    )
    new_campaigns: Share = Field(
        default=0.0, description="share of the traffic that goes to campaigns never seen before"
    )
    newcomers: Share = Field(
        default=0.004,
        description="share of the traffic that a new campaign takes, one each day; less where there is no more",
    )
    click_buyer: Share = Field(default=0.9, description="P(click | purchase)")
    click_other: Share = Field(default=0.25, description="P(click | no purchase)")
    cart_buyer: Share = Field(
        default=0.65, description="P(cart | purchase); .15 more for fast buyers, less for slow ones"
    )
    cart_other: Share = Field(default=0.045, description="P(cart | no purchase)")
    again: Share = Field(default=0.05, description="share of buyers who buy a second time")
    retractions: Share = Field(default=0.005, description="share of purchases taken back, two days later on average")
    restatements: Share = Field(default=0.01, description="share of purchases whose value is corrected a day later")
    late: Share = Field(default=0.01, description="share of records that arrive late")
    late_by: Duration = Field(default=10 * MINUTE, description="by how much, on average")
    duplicates: Share = Field(default=0.005, description="share of records that come twice")
    gap: Duration = Field(default=0, description="an outage before the change: its records arrive when it ends")
    broken: Share = Field(default=0.0001, description="share of lines that are cut off, on top of the whole ones")

    @model_validator(mode="after")
    def _fits(self) -> "Scenario":
        if self.change is not None and self.change > self.days * DAY:
            raise ValueError(f"change {spell(self.change)} is after the end of the {self.days:g} days")
        return self

    @property
    def changes_at(self) -> int:
        """When a drift sets in, ms since 1970."""
        return START + (round(self.days * DAY / 2) if self.change is None else self.change)


SCENARIOS: dict[str, dict[str, Any]] = {
    "calm": {},
    "conversion-drift": {"conversion_drift": 0.7},
    "delay-drift": {"delay_drift": 1.0},
    "both": {"conversion_drift": 0.7, "delay_drift": 1.0},
    "new-campaigns": {"new_campaigns": 0.4},
    "sparse": {"rate": 0.002, "conversion_drift": 0.7, "delay_drift": 1.0},
    "signal-drift": {"signal_drift": 2.0},
}
"""Named scenarios: what each changes about the defaults."""
