"""One rule's outcome, and everything that was decided about one signal. Every check is kept, passed or not, with its numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from modules.domain.instrument import AssetClass, Side

Number = Decimal | float | int | None


class Rule(StrEnum):
    """The closed set of reasons a signal can be denied for."""

    # permission
    SWITCH_OFF = "SWITCH_OFF"
    TRADING_HALTED = "TRADING_HALTED"
    TRADING_REDUCING = "TRADING_REDUCING"
    CERTIFICATE_MISSING = "CERTIFICATE_MISSING"
    PAUSED_BY_OPERATOR = "PAUSED_BY_OPERATOR"
    BLACKLISTED = "BLACKLISTED"
    SHORT_NOT_POSSIBLE = "SHORT_NOT_POSSIBLE"
    # inputs
    WALLET_STALE = "WALLET_STALE"
    QUOTE_STALE = "QUOTE_STALE"
    BAR_STALE = "BAR_STALE"
    FEED_FROZEN = "FEED_FROZEN"
    CLOCK_SKEW = "CLOCK_SKEW"
    # market
    SESSION_CLOSED = "SESSION_CLOSED"
    SPREAD_ABOVE_MAXIMUM = "SPREAD_ABOVE_MAXIMUM"
    LIQUIDITY_BELOW_MINIMUM = "LIQUIDITY_BELOW_MINIMUM"
    OPEN_INTEREST_BELOW_MINIMUM = "OPEN_INTEREST_BELOW_MINIMUM"
    CORRELATED_POSITIONS_ABOVE_MAXIMUM = "CORRELATED_POSITIONS_ABOVE_MAXIMUM"
    FUNDING_ABOVE_MAXIMUM = "FUNDING_ABOVE_MAXIMUM"
    CARRY_ABOVE_MAXIMUM = "CARRY_ABOVE_MAXIMUM"
    CARRY_SHARE_ABOVE_MAXIMUM = "CARRY_SHARE_ABOVE_MAXIMUM"
    EXPIRY_TOO_NEAR = "EXPIRY_TOO_NEAR"
    CONTRACT_NOT_FOUND = "CONTRACT_NOT_FOUND"
    # events and news
    BLACKOUT = "BLACKOUT"
    CALENDAR_EXHAUSTED = "CALENDAR_EXHAUSTED"
    MOOD_AGAINST = "MOOD_AGAINST"
    # ourselves
    COOLDOWN_INSTRUMENT = "COOLDOWN_INSTRUMENT"
    COOLDOWN_CLASS = "COOLDOWN_CLASS"
    OPEN_POSITIONS_ABOVE_MAXIMUM = "OPEN_POSITIONS_ABOVE_MAXIMUM"
    INSTRUMENT_OWNED = "INSTRUMENT_OWNED"
    ORDER_IN_DOUBT = "ORDER_IN_DOUBT"
    ORDERS_PER_MINUTE_ABOVE_MAXIMUM = "ORDERS_PER_MINUTE_ABOVE_MAXIMUM"
    NOTIONAL_PER_MINUTE_ABOVE_MAXIMUM = "NOTIONAL_PER_MINUTE_ABOVE_MAXIMUM"
    OPEN_ORDERS_ABOVE_MAXIMUM = "OPEN_ORDERS_ABOVE_MAXIMUM"
    # size
    EQUITY_NOT_POSITIVE = "EQUITY_NOT_POSITIVE"
    STOP_MISSING = "STOP_MISSING"
    SIZE_BELOW_MINIMUM = "SIZE_BELOW_MINIMUM"
    SIZE_ABOVE_CEILING = "SIZE_ABOVE_CEILING"
    NOT_EXITABLE = "NOT_EXITABLE"
    LEARNING_WEIGHT_BELOW_MINIMUM = "LEARNING_WEIGHT_BELOW_MINIMUM"
    LIQUIDATION_TOO_NEAR = "LIQUIDATION_TOO_NEAR"
    # option book
    DELTA_ABOVE_MAXIMUM = "DELTA_ABOVE_MAXIMUM"
    VEGA_LOSS_ABOVE_MAXIMUM = "VEGA_LOSS_ABOVE_MAXIMUM"
    SHOCK_LOSS_ABOVE_MAXIMUM = "SHOCK_LOSS_ABOVE_MAXIMUM"


@dataclass(frozen=True, slots=True)
class Check:
    """One rule's outcome with the numbers behind it. `measured` None = the input was absent, and an absent input never passes."""

    rule: Rule
    measured: Number
    limit: Number
    unit: str
    passed: bool
    note: str = ""


class BoundBy(StrEnum):
    """Which rule bound the size."""

    PHASE_FIXED = "phase_fixed"
    PHASE_FRACTION = "phase_fraction"
    RISK = "risk"
    POSITION_CAP = "position_cap"
    FREE_FUNDS = "free_funds"
    DAILY_BUDGET = "daily_budget"
    LEVERAGE = "leverage"
    GROSS_NOTIONAL = "gross_notional"
    LIQUIDATION_DISTANCE = "liquidation_distance"
    VOLUME_SHARE = "volume_share"
    PAIR_CAP = "pair_cap"
    LIVE_RAMP = "live_ramp"
    LEARNING = "learning"
    MOOD = "mood"
    LOT = "lot"


@dataclass(frozen=True, slots=True)
class Size:
    """What Sizer would trade. `approved` False means no order: `reason` says why and `checks` holds the numbers.

    `notional` (settlement currency) and `quantity` are after rounding; `risk` is what the stop is modelled to lose, in settlement
    currency; `tied_up` is cost (spot), margin (perp, FX), premium or maximum loss (options); `ceilings` is every ceiling that was
    looked at, as notional, so that a person can see the runner-up.
    """

    approved: bool
    phase: int
    notional: Decimal
    quantity: Decimal
    risk: Decimal
    tied_up: Decimal
    leverage: Decimal
    bound_by: BoundBy | None
    reason: str
    checks: tuple[Check, ...] = ()
    ceilings: tuple[tuple[BoundBy, Decimal], ...] = ()


class Outcome(StrEnum):
    APPROVED = "APPROVED"
    DENIED = "DENIED"


@dataclass(frozen=True, slots=True)
class Leg:
    """One instrument of a target holding, in the order in which legs are to be sent."""

    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    """Expected price, quote currency."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Signal + target + all checks. Recorded whether or not it traded."""

    decision_id: str
    at: int
    strategy: str
    symbol: str
    asset_class: AssetClass
    side: Side
    score: float
    confidence: float
    entry: float
    stop: float | None
    target: float | None
    outcome: Outcome
    stopped_by: Rule | None
    """The first failed check in pipeline order."""
    checks: tuple[Check, ...]
    size: Size | None
    legs: tuple[Leg, ...]
    policy_hash: str
    learning: dict[str, float | str] = field(default_factory=dict)
    hold: int = 0
    """Longest holding time in bars of `interval_ms` (0 = no limit): over what carry was reckoned."""
    interval_ms: int = 0
