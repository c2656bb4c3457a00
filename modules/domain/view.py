"""The frozen snapshot one decision looks at. None means unknown, and unknown never passes a check."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from modules.domain.instrument import AssetClass, Instrument
from modules.domain.market import Quote
from modules.domain.money import ONE


class TradingState(StrEnum):
    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"
    """Temporary: start-up, stale inputs, an operator's pause; exits only."""
    HALTED = "HALTED"
    """Latched by the kill switch; exits only."""


@dataclass(frozen=True, slots=True)
class Correlated:
    """One open position (or working entry) and how its returns move with the candidate's, sides included."""

    symbol: str
    asset_class: AssetClass
    correlation: float
    """rho x the two sides' signs; 1.0 for the same underlying (times sides); 1.0 also when unknown (too few returns, constant series)."""
    common_returns: int
    others: int
    """How many *other* open positions it is already highly correlated with, side-adjusted."""


@dataclass(frozen=True, slots=True)
class OptionView:
    """What only option structures need. Money in settlement currency per one unit of quantity unless it says otherwise."""

    days_to_expiry: float
    spread_share: float | None
    """(ask - bid) / mid of the worst leg; None = a side without a quote."""
    open_interest: float | None
    """Contracts, the thinnest leg."""
    cost: Decimal
    """Premium paid (long option) or collateral minus credit (credit spread) per unit, at the prices we would trade at."""
    max_loss: Decimal
    """Per unit, fees included: the sizing unit."""
    delta: float
    """Underlying units per unit of the structure, signed."""
    vega: float
    """Settlement currency per 1.00 change in volatility, per unit."""
    shock_loss: Decimal
    """Loss of one unit on a 3-sigma day of the underlying, by full revaluation."""
    class_delta_value: Decimal
    """Net delta of the class's open option positions x spot, settlement currency, signed."""
    class_vol_loss: Decimal
    """Loss of the open option positions if volatility rises 10 points (positive = a loss)."""
    class_shock_loss: Decimal
    """Loss of the open option positions on the same 3-sigma day."""
    spot: Decimal


@dataclass(frozen=True, slots=True)
class View:
    """Everything a decision may look at, frozen at `at` (UTC ms)."""

    at: int
    live: bool
    """Real money: certificate, ramp and switches apply in full."""
    instrument: Instrument
    """For option structures: the leg that names the trade (bought for long options, sold for spreads)."""

    # permission
    trading_state: TradingState
    halted_by: str
    paused: bool
    switch_on: bool
    blacklisted: bool
    certificate_expires: int | None
    """None = no certificate."""
    certificate_confidence: float | None

    # freshness
    wallet_age_s: float | None
    quote: Quote | None
    quote_age_s: float | None
    bar_age_s: float | None
    """Seconds since the signal's bar closed."""
    frozen_bars: int
    """How many last bars had an unchanged price and zero volume."""
    clock_offset_s: float | None

    # market
    session_open: bool | None
    minutes_to_rollover: float | None
    """FX: to the nearer 17:00 New York, absolute; None for other classes."""
    spread_cap_bp: float | None
    """The owner's cap for this instrument, None = not on the list (FX outside the deep pairs)."""
    quote_volume_24h: float | None
    """In USD. For options the underlying's. None = unknown."""
    deep_pair: bool
    """FX: on the owner's list of deep pairs (stands in for volume)."""
    correlated: tuple[Correlated, ...]
    funding_rate_8h: float | None
    """Perps: predicted (or, in replay, last settled) rate normalized to 8 h, positive = longs pay."""
    funding_settlements: int
    """Settlements the trade is expected to cross."""
    funding_rate: float | None
    """Per settlement, positive = longs pay."""
    financing_annual: float | None
    """FX: what *this side* earns per year as a fraction (negative = pays)."""
    financing_nights: int
    reward: float | None
    """Expected reward as a fraction of entry: target distance, else expected net R x stop distance; None = unknown."""

    # news
    blackout: str
    """Name of the event whose window is open, "" = none."""
    blackout_until: int | None
    calendar_ok: bool
    mood: float | None
    """-1..1; None = silent (neutral by rule)."""

    # ourselves
    open_positions: int
    losses_in_a_row: int
    """On this instrument, by closed trades."""
    last_loss_at: int | None
    stop_outs_4h: int
    """Stop-outs in the class within the policy's window that ends with the last of them (not with `at`: else the class's rest would end
    as soon as the oldest one ages out)."""
    last_stop_out_at: int | None
    owned_by: str
    """Strategy that owns the instrument now, "" = nobody."""
    in_doubt: bool
    """An order on this instrument is in doubt."""
    orders_last_minute: int
    notional_last_minute: Decimal
    open_orders: int

    # money: the class's sub-ledger, settlement currency
    equity: Decimal | None
    free: Decimal | None
    day_peak: Decimal | None
    """The day's peak in money: NAV peak x units."""
    drawdown_today: Decimal | None
    """day_peak - equity, never negative."""
    open_risk: Decimal
    """What the stops of open positions and working entries are modelled to lose."""
    gross_notional: Decimal
    position_tied_up: Decimal
    """Already tied up in this instrument (position and working entries)."""
    position_notional: Decimal
    settle_rate: Decimal | None
    """Instrument's quote currency in settlement currency."""
    pair_cap: Decimal
    """Owner's cap per instrument, fraction of equity."""
    stop_slippage: float
    """Expected slippage when a stop fires, as a fraction of price (cost model)."""
    learning_weight: float
    """This strategy's weight over the largest, [0, 1]."""
    ramp: bool
    """The live ramp of domain.md section 2 is in force."""
    option: OptionView | None = None
    usd_rate: Decimal | None = ONE
    """US dollars per unit of settlement currency: the policies' dollar amounts (phases, $10, volume) are converted with it."""
    liquidation_price: float | None = None
    """The venue's own figure for this trade, where it gives one; None = Sizer computes it for isolated margin."""
    certificate_note: str = ""
    """Why there is no valid certificate, "" = there is one."""
    ramp_note: str = ""
    """How far the class is on its live ramp, with the numbers."""
