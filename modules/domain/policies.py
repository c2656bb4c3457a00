"""What the owner decides, typed. The numbers live in policies/*.json; here are only names, units and bounds. Holds no secret.

Fractions are fractions: 0.05 is 5 %. No risk limit has a default: a missing key is a fault, an unknown one too.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, model_validator

from modules.domain.instrument import AssetClass

Value = TypeVar("Value")
_PLAIN_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")


def _fraction(value: Decimal) -> Decimal:
    if value > 1:
        raise ValueError(f"is a fraction between 0 and 1; did you mean {value / 100:f}?")
    return value


def _decimal(value: object) -> object:
    """Decimals may be written as text ("0.05"), but plainly: not "1_000", not true."""
    if isinstance(value, bool) or (isinstance(value, str) and not _PLAIN_NUMBER.fullmatch(value)):
        raise ValueError("is not a number; write it like 0.05 or \"0.05\"")
    return value


def _number(value: object) -> object:
    """Counts, seconds and basis points are JSON numbers: neither text nor true."""
    if isinstance(value, bool | str):
        raise ValueError("is not a number; write it without quotes, like 30")
    return value


def _all_classes(value: dict[AssetClass, Value]) -> dict[AssetClass, Value]:
    missing = [asset_class.value for asset_class in AssetClass if asset_class not in value]
    if missing:
        raise ValueError(f"needs all four asset classes; {', '.join(missing)} missing")
    return value


Fraction = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0), AfterValidator(_fraction)]
Money = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, le=10**15)]
Positive = Annotated[Decimal, BeforeValidator(_decimal), Field(gt=0, le=10**15)]
Multiple = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, le=100)]
"""Of equity or margin; above 100 is a typing mistake."""
Fee = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=-1, le=1)]
"""Fraction of notional; negative is a rebate."""
Count = Annotated[int, BeforeValidator(_number), Field(ge=0)]
Seconds = Annotated[float, BeforeValidator(_number), Field(gt=0)]
Amount = Annotated[float, BeforeValidator(_number), Field(ge=0)]
BasisPoints = Annotated[float, BeforeValidator(_number), Field(ge=0, le=10_000)]
PerClass = Annotated[dict[AssetClass, BasisPoints], AfterValidator(_all_classes)]
Switches = Annotated[dict[AssetClass, StrictBool], AfterValidator(_all_classes)]


def _share(value: float) -> float:
    if value > 1:
        raise ValueError(f"is a fraction between 0 and 1; did you mean {value / 100:g}?")
    return value


Share = Annotated[float, BeforeValidator(_number), Field(ge=0), AfterValidator(_share)]
"""A fraction that only statistics use: a plain JSON number."""
SharePerClass = Annotated[dict[AssetClass, Share], AfterValidator(_all_classes)]
AmountPerClass = Annotated[dict[AssetClass, Amount], AfterValidator(_all_classes)]


class Policy(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class VersionedPolicy(Policy):
    version: Annotated[int, BeforeValidator(_number), Field(ge=1)]


class ClassAmounts(Policy):
    """One Decimal per asset class; all four must be named."""

    SPOT: Multiple
    PERP: Multiple
    OPTION: Multiple
    FOREX: Multiple

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
    liquidation_distance_min: Annotated[Fraction, Field(lt=1)]
    """Stop-to-liquidation distance as a share of the entry-to-liquidation distance."""
    volume_share_max: Fraction
    """Share of the instrument's 24 h volume."""
    exit_price_margin: Annotated[Fraction, Field(gt=0)]
    """0.95: the stop price is taken this much worse when asking whether the position could still be sold."""
    learning_weight_min: Fraction
    """Phase 1: below this weight (learning x mood) a trade is denied instead of shrunk."""
    ramp_trades: Count
    ramp_days: Count
    ramp_lot_equity_max: Fraction
    phase_announced_beyond: Fraction = Decimal("0.01")
    """How far past a border equity must be, as a share of itself, before the new phase is announced; sizes follow the border exactly."""

    @model_validator(mode="after")
    def _ordered(self) -> SizingPolicy:
        if not self.phase_1_equity_max < self.phase_2_equity_max < self.phase_3_equity_max:
            raise ValueError(f"phase_1_equity_max ({self.phase_1_equity_max}) < phase_2_equity_max ({self.phase_2_equity_max})"
                             f" < phase_3_equity_max ({self.phase_3_equity_max}) must hold")
        if self.phase_1_notional > self.phase_1_equity_max:
            raise ValueError(f"phase_1_notional ({self.phase_1_notional}) must not exceed phase_1_equity_max ({self.phase_1_equity_max})")
        for low, high in (("phase_2_fraction_min", "phase_2_fraction_max"), ("risk_fraction_min", "risk_fraction_max"),
                          ("position_cap_min", "position_cap_max"), ("good_setup_cap_min", "good_setup_cap_max")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} ({getattr(self, low)}) must not exceed {high} ({getattr(self, high)})")
        return self


class RiskPolicy(VersionedPolicy):
    """policies/risk_policy.json: filters (domain.md section 3), option limits (10) and our own caps (4)."""

    # liquidity
    quote_volume_24h_min: Money
    option_open_interest_min: Money
    """Contracts open of the thinnest leg ..."""
    option_open_interest_usd_min: Money = Decimal(1_000_000)
    """... or so much of the underlying that they stand for, in USD: a contract may be a whole bitcoin or a few dollars."""
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
    holding_default_s: Seconds
    """How long a trade is expected to be held when its strategy sets no limit: what carry is reckoned over."""
    expected_r_per_confidence: Positive
    """Expected net R at confidence 1 (calibration's c = lower bound of net R / this): the reward of a signal without a target."""
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
    rollover_minutes: Amount
    forex_weekend_flat: StrictBool
    expiry_days_min: Amount
    # cooldown and guards
    cooldown_losses: Count
    cooldown_instrument_s: Seconds
    cooldown_stop_outs: Annotated[int, BeforeValidator(_number), Field(ge=0, le=64)]
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

    @model_validator(mode="after")
    def _ordered(self) -> KillSwitchPolicy:
        if self.drawdown_daily_max > self.drawdown_monthly_max:
            raise ValueError(f"drawdown_daily_max ({self.drawdown_daily_max}) must not exceed drawdown_monthly_max"
                             f" ({self.drawdown_monthly_max})")
        return self


class ExecutionPolicy(VersionedPolicy):
    """policies/execution_policy.json: how orders are sent and how exits are managed."""

    unfilledtimeout_entry_s: Seconds
    unfilledtimeout_exit_s: Seconds
    submit_timeout_s: Seconds
    doubt_query_spacing_s: Annotated[tuple[Seconds, ...], Field(min_length=1)]
    doubt_misses_min: Count
    doubt_proof_s: Seconds
    doubt_longest_s: Seconds = 900.0
    """An order that nobody finds is searched for as long as this while its venue's wallet shows just what it would have moved."""
    protect_within_s: Seconds
    """No position is to be without a confirmed stop for longer than this."""
    break_even_at_r: Amount
    """Move the stop to the entry once the best price is this many R ahead; 0 = never."""
    trail_at_r: Amount
    """Trail the stop once the best price is this many R ahead; 0 = never."""
    trail_distance_r: Amount
    resend_within_s: Seconds
    """An entry that provably did not arrive is sent again with the same id while its decision is no older."""
    wallet_poll_s: Seconds
    """How often a venue's wallet, fills and orders are audited; twice as often while something is held or on order there."""
    wallet_settle_s: Seconds
    """Between two looks at a wallet that differs, at start."""
    difference_proof_s: Seconds = 60.0
    """How long a wallet must differ from the books in the same way before that is booked as a difference nobody explains: a venue's history
    may lag behind its wallet. Until then, and while an order is in doubt, that wallet opens nothing."""
    clock_poll_s: Seconds
    """How often a venue's clock is measured."""
    account_mark_s: Seconds
    """How often it is put on record that everything on an account has been told: how far back a restart asks."""
    lane_size: Count
    flatten_after_s: Seconds = 4.0
    """A position without a confirmed stop for so long is closed, so that it is flat within protect_within_s even if one answer is lost."""
    resend_every_s: Seconds = 1.0
    """Between two attempts to reach a venue that is not there."""
    exit_retry_s: Seconds = 60.0
    """After an exit that the venue had and did not fill the next one goes out; twice as long after each further one, up to
    exit_retry_longest_s."""
    exit_retry_longest_s: Seconds = 3600.0
    silence_s_max: Seconds = 900.0
    """However long a ban a venue speaks of, after so long it is asked again: exits and cancels have to get through."""
    delivery_wait_s: Seconds = 86_400.0
    """How long a venue may take to tell the delivery of options that have expired before what it did to the wallet is booked as a
    difference nobody explains. Until it is told that wallet opens nothing."""
    stop_limit_slack: Fraction = Decimal("0.05")
    """How far beyond its trigger a stop may fill where a market has no stop-market orders and a limit has to be named."""

    @model_validator(mode="after")
    def _in_time(self) -> ExecutionPolicy:
        if self.flatten_after_s >= self.protect_within_s:
            raise ValueError(f"flatten_after_s ({self.flatten_after_s:g}) must be shorter than protect_within_s"
                             f" ({self.protect_within_s:g}): closing a position takes time too")
        return self


class CostModel(Policy):
    """What trading costs in simulation, per class: the one source for paper, replay and the validation kernel."""

    half_spread_bp: BasisPoints
    slippage_bp: BasisPoints
    """Adverse, on every market or stop fill, even the smallest."""
    impact_bp: BasisPoints
    """Added x sqrt(order notional / notional of an average bar)."""
    stop_slippage_bp: BasisPoints
    """Added on stop fills."""
    maker_fee: Fee
    taker_fee: Fraction
    participation_max: Fraction
    """Share of the last bar's volume that one bar may fill."""
    maintenance_margin: Fraction
    leverage: Annotated[Positive, Field(le=100)]
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
    option_fee_cap: Fraction = Decimal("0.125")
    """An option's fee is at most this share of its premium, at expiry of its value."""
    option_settlement_fee: Fraction = Decimal("0.00015")
    """Of the underlying, per base unit settled in the money."""

    def of(self, asset_class: AssetClass) -> CostModel:
        model: CostModel = getattr(self, asset_class.value)
        return model


class FundsPolicy(VersionedPolicy):
    """policies/funds_policy.json: the owner's switches at first start (later changes live in the journal)."""

    funds_on: StrictBool
    classes_on: Switches
    pair_cap: Fraction
    pair_cap_min: Fraction
    pair_cap_max: Fraction
    paper_days_min: Count = 7
    """Days of paper trading on the same venue that `go-live` asks for; FX weekends do not count."""
    paper_hours_min: Annotated[Count, Field(le=24)] = 12
    """A UTC day counts as one from this many hours with bars."""
    drill_days_max: Count = 90
    """A passed drill is believed for this long."""

    @model_validator(mode="after")
    def _ordered(self) -> FundsPolicy:
        if not self.pair_cap_min <= self.pair_cap <= self.pair_cap_max:
            raise ValueError(f"pair_cap_min ({self.pair_cap_min}) <= pair_cap ({self.pair_cap}) <= pair_cap_max"
                             f" ({self.pair_cap_max}) must hold")
        return self


class MoodPolicy(Policy):
    """How headlines become a mood (domain.md section 9)."""

    half_life_h: Annotated[dict[AssetClass, Positive], AfterValidator(_all_classes)]
    domains_min: Count
    """Independent sources without which there is no mood."""
    source_share_max: Fraction
    """One source's part in a mood; a missing share counts as neutral."""
    story_window_h: Positive
    """Near-duplicates within this many hours are one story."""
    story_likeness: Fraction
    """Shared words over all words from which two headlines tell the same story."""
    weight_floor: Positive
    """Fresh headlines' worth of weight below which a mood is drawn to neutral."""
    weight_min: Positive
    """Below this total weight nobody speaks of it any more."""
    silent_below: Fraction
    """Readings closer to zero than this count as neutral."""
    market_weight: Fraction
    """What news about the crypto market as a whole weighs for one coin."""
    item_age_h_max: Positive
    future_minutes_max: Amount
    """Items dated further ahead than this are refused."""


class CautionPolicy(Policy):
    """Extraordinary headlines: how long entries stay closed, and how often hearsay must be told."""

    hours: dict[str, Amount]
    """Kind -> hours; 0 = off."""
    secondhand_domains_min: Count


class NewsPolicy(VersionedPolicy):
    """policies/news_policy.json: blackout windows in minutes before and after per kind of event, moods and cautions."""

    windows: dict[str, tuple[Count, Count]]
    """Event kind -> (minutes before, minutes after)."""
    classes: dict[str, tuple[AssetClass, ...]]
    """Event kind -> classes it closes."""
    horizon_days: Count
    mood: MoodPolicy
    cautions: CautionPolicy

    @model_validator(mode="after")
    def _same_kinds(self) -> NewsPolicy:
        if lonely := sorted(self.windows.keys() ^ self.classes.keys()):
            raise ValueError(f"windows and classes must name the same kinds of event; only one of them has {', '.join(lonely)}")
        return self


class DemotionPolicy(Policy):
    """When a certified strategy goes back to paper (domain.md section 7, live demotion)."""

    edge_shift_r: Positive
    """The fall of the mean net R per trade that is to be found fastest."""
    edge_false_alarm_years: Positive
    """Mean time between false alarms of this watch, at the trades a year that were validated."""
    slippage_multiple: Annotated[Positive, Field(gt=1)]
    """Of the modelled slippage: what is to be found fastest."""
    slippage_limit: Positive
    """Sum of excess multiples of the model that demotes."""
    slippage_ratio_clip: Positive
    """One fill counts at most this many times the model."""
    slippage_floor_bp: Positive
    fill_ratio_slack: Fraction
    """Shortfall of an entry's filled share that counts for nothing."""
    fill_ratio_limit: Positive
    """Sum of shortfalls beyond it that demotes, in entries."""
    calibration_stake: Annotated[Fraction, Field(lt=1)]
    calibration_alpha: Annotated[Fraction, Field(gt=0)]
    """Probability of ever demoting a strategy that wins as often as predicted."""
    drift_min: Count
    drift_share_max: Fraction
    """Of the signals and fills compared with a replay of the same bars."""


class AllocationPolicy(Policy):
    """How much of its size a strategy keeps, from everybody's shadow results (domain.md section 8)."""

    period_days: Annotated[int, BeforeValidator(_number), Field(ge=1, le=366)]
    switch_share: Fraction
    """Fixed-share: the part of a forecaster's weight that is spread over all, per period."""
    rate: Positive
    """Learning rate on a period's net R, in units of one over the result's running scale."""
    mean_half_life_days: Positive
    shrink: Positive
    """Prior observations (days) that pull each strategy's mean to zero."""
    temperature: Positive
    """How sharply a strategy's weight follows the odds that its mean is above zero; 1 = the probability itself."""
    step_max: Fraction
    """Share of the way to the new weights that one period goes."""
    move_min: Fraction
    """A smaller change of weight is not worth its cost."""


class CalibrationPolicy(Policy):
    """What a score is believed to be worth (domain.md section 8)."""

    prior_weight: Positive
    """Outcomes that the validated out-of-sample mean counts as."""
    half_life_trades: Positive
    isotonic_from: Count
    """Outcomes from which on the shape is free (isotonic) instead of two or three parameters."""
    bound: Annotated[Fraction, Field(ge=0.5, lt=1)]
    """One-sided: 0.8 = the value that is exceeded with probability 0.8."""


class ChallengePolicy(Policy):
    """When re-optimized parameters take over from those that trade, and when they go back."""

    trades_min: Annotated[int, BeforeValidator(_number), Field(ge=30)]
    """Shadow trades of the challenger at which the one paired test is made."""
    p_max: Annotated[Fraction, Field(gt=0)]
    rollback_trades_min: Annotated[int, BeforeValidator(_number), Field(ge=10)]
    """Shadow trades after a promotion from which on it may be found to be the worse one."""
    days_max: Annotated[int, BeforeValidator(_number), Field(ge=1)]
    """A challenger not decided on by then is dropped."""
    search_days: Annotated[int, BeforeValidator(_number), Field(ge=0)]
    """Days between two re-optimizations of what trades; 0 = only by hand."""


class LearningPolicy(VersionedPolicy):
    """policies/learning_policy.json: what the bot draws from its own results. It may only choose and lower."""

    allocation_on: StrictBool
    shadow_on: StrictBool
    """Every strategy trades one unit on paper beside the book, so that what the book did not take teaches too."""
    demotion: DemotionPolicy
    allocation: AllocationPolicy
    calibration: CalibrationPolicy
    challenge: ChallengePolicy
    drawdown_penalty: Fraction
    """Part of a strategy's fall from its peak (R) that is taken off its reward."""
    turnover_penalty_r: Amount
    """Net R taken off each closed trade's reward."""
    stale_days_max: Positive
    """Without a closed shadow trade for this long what was learned is frozen."""


class ValidationPolicy(VersionedPolicy):
    """policies/validation_policy.json: the bars of the gate to live trading (domain.md section 7), and how they are measured."""

    # enough evidence
    trades_min: Count
    """Out-of-sample trades; equal does not pass."""
    instrument_trades_min: Count
    """Out-of-sample trades below which an instrument is not in the certificate."""
    evidence_sharpe_multiple: Annotated[float, BeforeValidator(_number), Field(gt=0, le=10)]
    """The sample must be long enough that this multiple of the Sharpe floor would have passed the significance bar."""
    # significance
    p_value_max: Annotated[Share, Field(gt=0)]
    """At the first judged submission of an idea."""
    p_value_later: Annotated[Share, Field(gt=0)]
    """What all later submissions of an idea share: the n-th is allowed this / (n (n - 1)), and never more than p_value_max / n."""
    bootstrap_draws: Annotated[int, BeforeValidator(_number), Field(ge=1000, le=1_000_000)]
    bootstrap_draws_max: Annotated[int, BeforeValidator(_number), Field(ge=1000, le=100_000_000)]
    """A later submission needs more resamples, up to these; what they cannot show is INSUFFICIENT EVIDENCE."""
    psr_min: Share
    sharpe_min: AmountPerClass
    """Annual, out of sample, net; equal does not pass."""
    # vetoes
    loss_probability_max: Share
    """Of the in-sample best, out of sample (CSCV)."""
    stress_multiple: Annotated[float, BeforeValidator(_number), Field(ge=1, le=10)]
    """The net result must stay positive at this multiple of fees and slippage."""
    trade_share_max: Share
    month_share_max: Share
    """One trade's, one month's part of all profit."""
    drawdown_level: Annotated[Share, Field(lt=1)]
    drawdown_max: SharePerClass
    """Of equity: what this share of bootstrapped histories may not exceed at phase-3 sizing on `drawdown_equity`."""
    drawdown_equity: Positive
    neighbours_share_min: Share
    """Median Sharpe of a parameter set's neighbours over its own."""
    # how it is measured
    train_share: Annotated[Share, Field(gt=0, lt=1)]
    """Part of all days before the first test window."""
    windows: Annotated[int, BeforeValidator(_number), Field(ge=1, le=100)]
    embargo: Share
    cscv_blocks: Annotated[int, BeforeValidator(_number), Field(ge=4, le=20, multiple_of=2)]
    sets_max: Annotated[int, BeforeValidator(_number), Field(ge=1, le=10_000)]
    """Parameter sets of one grid; a larger one is thinned out evenly."""
    random_draws: Annotated[int, BeforeValidator(_number), Field(ge=1)]
    """Histories of random entries that make the benchmark."""
    option_sets_max: Annotated[int, BeforeValidator(_number), Field(ge=1, le=1_000)]
    option_random_draws: Annotated[int, BeforeValidator(_number), Field(ge=1)]
    """The same two for option structures, which the whole daemon simulates: a thousand times slower."""
    seed: Annotated[int, BeforeValidator(_number), Field(ge=0)]
    """Of every resampling, unless `--seed` says otherwise; another one is another submission."""
    basket_share_min: Share
    """A recording shorter than this share of the basket's longest is left out: it would only dilute its days."""
    same_idea_correlation: Annotated[Share, Field(gt=0)]
    """Two strategies whose daily results correlate this much on the same days are one idea."""
    same_idea_code: Annotated[Share, Field(gt=0)]
    """Two strategies of whose statements this share is the same, names and numbers aside, are one idea."""
    task_timeout_s: Seconds
    """A task that takes longer is killed and its strategy quarantined."""
    # certificates
    valid_days: Annotated[int, BeforeValidator(_number), Field(ge=1)]
    revalidate_days: Annotated[int, BeforeValidator(_number), Field(ge=1)]
    envelope_level: Annotated[Share, Field(gt=0, lt=1)]
    """Share of bootstrapped futures whose deepest fall stays above the fall that demotes."""
    envelope_trades: Annotated[int, BeforeValidator(_number), Field(ge=1)]
    """Trades of one such future, drawn in blocks of `envelope_block`, `envelope_draws` of them."""
    envelope_block: Annotated[int, BeforeValidator(_number), Field(ge=1)]
    envelope_draws: Annotated[int, BeforeValidator(_number), Field(ge=100, le=1_000_000)]
    warn_days: tuple[Count, ...]

    @model_validator(mode="after")
    def _ordered(self) -> ValidationPolicy:
        if self.revalidate_days >= self.valid_days:
            raise ValueError(f"revalidate_days ({self.revalidate_days}) must be less than valid_days ({self.valid_days})")
        return self


class Policies(Policy):
    """All of them together, with one hash that goes into every decision."""

    sizing: SizingPolicy
    risk: RiskPolicy
    kill_switch: KillSwitchPolicy
    execution: ExecutionPolicy
    costs: CostPolicy
    funds: FundsPolicy
    news: NewsPolicy
    learning: LearningPolicy
    validation: ValidationPolicy
    hash: str
