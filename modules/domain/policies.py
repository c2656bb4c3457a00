"""What the owner decides, typed. The numbers live in policies/*.json; here are only names, units and bounds. Holds no secret.

Fractions are fractions: 0.05 is 5 %. No risk limit has a default: a missing key is a fault, an unknown one too.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from modules.domain.instrument import AssetClass


def _fraction(value: Decimal) -> Decimal:
    if value > 1:
        raise ValueError(f"is a fraction between 0 and 1; did you mean {value / 100:f}?")
    return value


Fraction = Annotated[Decimal, Field(ge=0), AfterValidator(_fraction)]
Money = Annotated[Decimal, Field(ge=0)]
Positive = Annotated[Decimal, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]
BasisPoints = Annotated[float, Field(ge=0)]
PerClass = dict[AssetClass, float]


class Policy(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class VersionedPolicy(Policy):
    version: Annotated[int, Field(ge=1)]


class ClassAmounts(Policy):
    """One Decimal per asset class; all four must be named."""

    SPOT: Decimal = Field(ge=0)
    PERP: Decimal = Field(ge=0)
    OPTION: Decimal = Field(ge=0)
    FOREX: Decimal = Field(ge=0)

    def of(self, asset_class: AssetClass) -> Decimal:
        value: Decimal = getattr(self, asset_class.value)
        return value


class SizingPolicy(VersionedPolicy):
    """policies/sizing_policy.json: the four-phase plan (domain.md section 2)."""

    phase_1_equity_max: Positive
    phase_2_equity_max: Positive
    phase_3_equity_max: Positive
    phase_1_notional: Positive
    phase_2_fraction_min: Fraction
    phase_2_fraction_max: Fraction
    risk_fraction_min: Fraction
    """Risk per trade at confidence 0, phases 3 and 4."""
    risk_fraction_max: Fraction
    position_cap_min: Fraction
    """Position cap at confidence 0."""
    position_cap_max: Fraction
    """Position cap at confidence 1, ordinary setups."""
    good_setup_confidence_min: Fraction
    good_setup_reward_to_risk_min: Positive
    good_setup_cap_min: Fraction
    """Cap of a good setup at `good_setup_confidence_min`."""
    good_setup_cap_max: Fraction
    daily_risk_budget: Fraction
    """Today's drawdown + open risk + this trade's risk, as a share of the day's peak."""
    leverage_max: ClassAmounts
    gross_notional_max: ClassAmounts
    """Times equity; 0 = no such ceiling."""
    instrument_notional_max: ClassAmounts
    """One instrument's notional, times equity; 0 = no such ceiling (FX: 0.5)."""
    liquidation_distance_min: Fraction
    """Stop-to-liquidation distance as a share of the entry-to-liquidation distance."""
    volume_share_max: Fraction
    """Share of the instrument's 24 h volume."""
    exit_price_margin: Fraction
    """0.95: the stop price is taken this much worse when asking whether the position could still be sold."""
    learning_weight_min: Fraction
    """Phase 1: below this weight (learning x mood) a trade is denied instead of shrunk."""
    ramp_trades: Count
    ramp_days: Count
    ramp_lot_equity_max: Fraction

    @model_validator(mode="after")
    def _ordered(self) -> SizingPolicy:
        if not self.phase_1_equity_max < self.phase_2_equity_max < self.phase_3_equity_max:
            raise ValueError("phase_1_equity_max < phase_2_equity_max < phase_3_equity_max must hold")
        for low, high in (("phase_2_fraction_min", "phase_2_fraction_max"), ("risk_fraction_min", "risk_fraction_max"),
                          ("position_cap_min", "position_cap_max"), ("good_setup_cap_min", "good_setup_cap_max")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} must not exceed {high}")
        return self


class RiskPolicy(VersionedPolicy):
    """policies/risk_policy.json: filters (domain.md section 3), option limits (10) and our own caps (4)."""

    # liquidity
    quote_volume_24h_min: Money
    option_open_interest_min: Money
    option_spread_share_max: Fraction
    forex_deep_pairs: tuple[str, ...]
    # correlation
    correlation_min: Fraction
    """From here on two positions are highly correlated."""
    correlated_others_max: Count
    correlation_returns_min: Count
    correlation_window: Count
    """Hourly returns."""
    # funding and carry
    funding_rate_8h_max: Fraction
    carry_annual_max: Fraction
    carry_reward_share_max: Fraction
    # spread, freshness, session
    spread_bp_max: PerClass
    spread_bp_majors_max: BasisPoints
    forex_majors: tuple[str, ...]
    quote_age_s_max: Seconds
    chain_age_s_max: Seconds
    bar_late_s_max: Seconds
    wallet_age_s_max: Seconds
    clock_offset_s_max: Seconds
    frozen_bars_max: Count
    """This many bars with unchanged price and zero volume are a frozen feed."""
    rollover_minutes: Annotated[float, Field(ge=0)]
    forex_weekend_flat: bool
    expiry_days_min: Annotated[float, Field(ge=0)]
    # cooldown and guards
    cooldown_losses: Count
    cooldown_instrument_s: Seconds
    cooldown_stop_outs: Count
    cooldown_window_s: Seconds
    cooldown_class_s: Seconds
    max_open_trades: Count
    """Open positions per class."""
    # own hard caps per class
    orders_per_minute_max: Count
    notional_per_minute_max: Fraction
    open_orders_max: Count
    # option book
    option_delta_max: Fraction
    option_vol_loss_max: Fraction
    option_shock_loss_max: Fraction
    # mood
    mood_against: Fraction
    """A long needs mood >= -this, a short <= +this."""
    mood_size_at_limit: Fraction
    """Size multiplier when the mood is at that bound; 1 at neutral or better, linear between."""


class KillSwitchPolicy(VersionedPolicy):
    """policies/kill_switch_policy.json (domain.md section 4)."""

    drawdown_daily_max: Fraction
    drawdown_monthly_max: Fraction
    slippage_events_max: Count
    """This many catastrophic fills within the window trip."""
    slippage_window_s: Seconds
    slippage_model_multiple: Positive
    slippage_floor_bp: PerClass
    api_consecutive_failures_max: Count
    api_errors_max: Count
    api_errors_window_s: Seconds
    api_error_share_max: Fraction
    api_calls_min: Count
    api_calls_window_s: Seconds
    api_probes_good: Count
    api_probes_window_s: Seconds
    orders_in_doubt_max: Count
    mark_jump_max: Positive
    """A mark that moves by more than this multiple (or its inverse) of the last sane one is not believed until a second source agrees."""
    flatten_on: tuple[str, ...]
    """Triggers that also close open positions."""


class ExecutionPolicy(VersionedPolicy):
    """policies/execution_policy.json: how orders are sent and how exits are managed."""

    unfilledtimeout_entry_s: Seconds
    unfilledtimeout_exit_s: Seconds
    submit_timeout_s: Seconds
    doubt_query_spacing_s: tuple[float, ...]
    doubt_misses_min: Count
    doubt_proof_s: Seconds
    protect_within_s: Seconds
    break_even_at_r: Annotated[float, Field(ge=0)]
    """Move the stop to the entry once the best price is this many R ahead; 0 = never."""
    trail_at_r: Annotated[float, Field(ge=0)]
    """Trail the stop once the best price is this many R ahead; 0 = never."""
    trail_distance_r: Annotated[float, Field(ge=0)]
    wallet_poll_s: Seconds
    lane_size: Count


class CostModel(Policy):
    """What trading costs in simulation, per class: the one source for paper, replay and the validation kernel."""

    half_spread_bp: BasisPoints
    slippage_bp: BasisPoints
    """Adverse, on every market or stop fill, even the smallest."""
    impact_bp: BasisPoints
    """Added x sqrt(order notional / notional of an average bar)."""
    stop_slippage_bp: BasisPoints
    """Added on stop fills."""
    maker_fee: Decimal
    taker_fee: Fraction
    participation_max: Fraction
    """Share of the last bar's volume that one bar may fill."""
    maintenance_margin: Fraction
    leverage: Positive
    """What positions are opened with (never above sizing_policy.leverage_max)."""


class CostPolicy(VersionedPolicy):
    """policies/cost_policy.json."""

    latency_ms: Count
    SPOT: CostModel
    PERP: CostModel
    OPTION: CostModel
    FOREX: CostModel
    forex_financing_markup: Fraction
    """Annual, against us on both sides, on top of the rate difference."""

    def of(self, asset_class: AssetClass) -> CostModel:
        model: CostModel = getattr(self, asset_class.value)
        return model


class FundsPolicy(VersionedPolicy):
    """policies/funds_policy.json: the owner's switches at first start (later changes live in the journal)."""

    funds_on: bool
    classes_on: dict[AssetClass, bool]
    pair_cap: Fraction
    pair_cap_min: Fraction
    pair_cap_max: Fraction


class NewsPolicy(VersionedPolicy):
    """policies/news_policy.json: blackout windows in minutes before and after, per kind of event."""

    windows: dict[str, tuple[int, int]]
    """Event kind -> (minutes before, minutes after)."""
    classes: dict[str, tuple[AssetClass, ...]]
    """Event kind -> classes it closes."""
    horizon_days: Count


class Policies(Policy):
    """All of them together, with one hash that goes into every decision."""

    sizing: SizingPolicy
    risk: RiskPolicy
    kill_switch: KillSwitchPolicy
    execution: ExecutionPolicy
    costs: CostPolicy
    funds: FundsPolicy
    news: NewsPolicy
    hash: str
