"""Facts: what goes into the journal, one frozen dataclass per kind. One authority alone writes each (see docs/architecture.md).

A fact says what happened, with `at` in UTC ms; facts never change, a wrong one is corrected by another. The journal stores the class
name, `at` and the fields as JSON (money as text), so a field may be added with a default but never renamed or retyped.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from modules.domain.certificate import Certificate
from modules.domain.decision import Leg
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.money import ZERO
from modules.domain.order import ExitReason, Fill, Order
from modules.domain.position import ClosedTrade


class Scope(StrEnum):
    """What a halt, a pause or a switch applies to: one asset class or all of them."""

    SPOT = "SPOT"
    PERP = "PERP"
    OPTION = "OPTION"
    FOREX = "FOREX"
    ALL = "ALL"

    def covers(self, asset_class: AssetClass) -> bool:
        return self is Scope.ALL or self.value == asset_class.value


class Trigger(StrEnum):
    """Why the kill switch tripped."""

    DAILY_DRAWDOWN = "daily_drawdown"
    MONTHLY_DRAWDOWN = "monthly_drawdown"
    SLIPPAGE = "slippage"
    API_ERRORS = "api_errors"
    API_AUTHENTICATION = "api_authentication"
    ORDERS_IN_DOUBT = "orders_in_doubt"
    RUNAWAY = "runaway"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class DaemonStarted:
    at: int
    mode: str
    version: str
    policy_hash: str


# -- instruments and market (Market_Data) ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InstrumentListed:
    """The rules of an instrument at the moment it is first traded (and again when they change): makes the journal self-contained."""

    at: int
    instrument: Instrument


@dataclass(frozen=True, slots=True)
class FeedLost:
    at: int
    symbol: str
    reason: str


@dataclass(frozen=True, slots=True)
class FeedRestored:
    at: int
    symbol: str


@dataclass(frozen=True, slots=True)
class InstrumentsChosen:
    """Written by Instrument_Selector: what of a venue is traded by the owner's rule, and what that changed."""

    at: int
    venue: str
    rule: str
    """The rule that chose, as one line of JSON."""
    asked_at: int
    """When the venue was asked."""
    symbols: tuple[str, ...]
    """What the rule chose, best first."""
    kept: dict[str, str]
    """Watched although the rule did not choose it, and why; nothing is opened there."""
    came: tuple[str, ...]
    went: dict[str, str]
    """No longer watched, and why."""


# -- orders (Risk_Management writes OrderIntended; Trade_Executor the rest) -----------------------------------------------


@dataclass(frozen=True, slots=True)
class TradeOpened:
    """Written by Risk_Management with the entry's OrderIntended: what the round trip is about, for every leg of it.

    `symbol` is what the strategy watches (the instrument itself, or the underlying's series for option structures). `stop` and
    `target` are prices in that symbol's quote currency. `risk` in settlement currency.
    """

    at: int
    trade_id: str
    decision_id: str
    strategy: str
    symbol: str
    asset_class: AssetClass
    side: str
    structure: str
    score: float
    confidence: float
    entry: float
    stop: float | None
    target: float | None
    hold: int
    interval_ms: int
    risk: Decimal
    legs: tuple[Leg, ...] = ()
    """In sending order; quantities and expected prices as approved."""


@dataclass(frozen=True, slots=True)
class OrderIntended:
    at: int
    order: Order


@dataclass(frozen=True, slots=True)
class OrderSent:
    at: int
    client_order_id: str


@dataclass(frozen=True, slots=True)
class OrderAccepted:
    at: int
    client_order_id: str
    venue_order_id: str


@dataclass(frozen=True, slots=True)
class OrderRejected:
    at: int
    client_order_id: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class OrderInDoubt:
    at: int
    client_order_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class OrderCanceled:
    at: int
    client_order_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class OrderExpired:
    """Its unfilled timeout passed, or it was never placed (proven)."""

    at: int
    client_order_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Filled:
    """`order_done` says that this fill completed the order at the venue."""

    at: int
    fill: Fill
    order_done: bool


@dataclass(frozen=True, slots=True)
class ForeignFill:
    """An execution on our account that no order of ours explains."""

    at: int
    fill: Fill


# -- money (Portfolio_Manager, Wallet_Sync) ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FundingBooked:
    """Perp funding or FX financing on one position, in settlement currency: positive = received. `venue_ref` makes it unique."""

    at: int
    venue: str
    symbol: str
    asset_class: AssetClass
    amount: Decimal
    rate: float
    venue_ref: str


@dataclass(frozen=True, slots=True)
class OptionSettled:
    """An option expired: `value` per base unit in the instrument's quote currency (0 = out of the money), converted by `settle_rate`."""

    at: int
    venue: str
    symbol: str
    quantity: Decimal
    """Signed position that was settled."""
    value: Decimal
    settle_rate: Decimal
    fee: Decimal
    venue_ref: str


@dataclass(frozen=True, slots=True)
class PositionClosed:
    at: int
    trade: ClosedTrade


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    at: int
    asset_class: AssetClass
    phase_before: int
    phase: int
    equity: Decimal


@dataclass(frozen=True, slots=True)
class TransferSeen:
    """Deposit (+) or withdrawal (-) of settlement currency into or out of a class. Never profit, loss or drawdown.

    `equity_before` is the class's marked equity just before it, what net asset value units are bought at; 0 at the very first.
    """

    at: int
    asset_class: AssetClass
    amount: Decimal
    equity_before: Decimal
    venue_ref: str


@dataclass(frozen=True, slots=True)
class BalanceAdjusted:
    """A difference between the venue's wallet and our books that nothing explains, booked so that both agree again.

    `currency` is the sub-ledger's own (cash), a coin, or the symbol of a margined or option position. It counts as result, unless
    `reason` starts with "transfer": then `equity_before` (0 = unknown) prices the units, as in TransferSeen.
    """

    at: int
    asset_class: AssetClass
    currency: str
    amount: Decimal
    reason: str
    equity_before: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class UnallocatedMoved:
    """The owner's part of a venue's wallet changed: what he holds beside us, never sized on, never our result.

    `pool` "" = the wallet all classes share, else the class whose own it is. `currency` is cash, a coin or a position's symbol.
    """

    at: int
    venue: str
    pool: str
    currency: str
    amount: Decimal
    reason: str
    venue_ref: str = ""


@dataclass(frozen=True, slots=True)
class ForeignOrder:
    """An order of nobody we know rests on our account, told once per order. `client_order_id` "" = placed by hand."""

    at: int
    venue: str
    symbol: str
    venue_order_id: str
    client_order_id: str


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Everything that happened to the account before `at` has been told and the wallet agrees."""

    at: int
    venue: str
    differences: int


# -- safety (Kill_Switch) ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BaselineRolled:
    """A new UTC day or month began (`period` "day" or "month") or an operator re-armed: `nav` is the new peak, per unit."""

    at: int
    asset_class: AssetClass
    period: str
    nav: Decimal
    reason: str


@dataclass(frozen=True, slots=True)
class PeakRaised:
    at: int
    asset_class: AssetClass
    nav: Decimal


@dataclass(frozen=True, slots=True)
class ApiErrorSeen:
    """`kind`: error, authentication, rate_limit. `until` is the end of a ban."""

    at: int
    venue: str
    kind: str
    message: str
    until: int | None = None
    consecutive: int = 0
    """How many calls to this venue had failed in a row with this one; 0 = not counted by the writer."""


@dataclass(frozen=True, slots=True)
class TradingHalted:
    """`until` is when it re-arms by itself; None = by an operator only (or when its condition clears, for slippage and API errors)."""

    at: int
    scope: Scope
    trigger: Trigger
    measured: str
    limit: str
    until: int | None
    reason: str
    venue: str = ""
    """Whose faults tripped it (API triggers); a class that trades on two venues may be halted by both."""


@dataclass(frozen=True, slots=True)
class TradingRearmed:
    at: int
    scope: Scope
    trigger: Trigger
    by: str
    reason: str
    venue: str = ""


# -- owner and operator (Funds_Controller, Operator) ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SwitchChanged:
    """The owner's permission to use funds: `scope` ALL is the master switch."""

    at: int
    scope: Scope
    on: bool
    by: str


@dataclass(frozen=True, slots=True)
class BudgetChanged:
    """`pair_cap` is a fraction of equity; `allocate` settlement currency. None = unchanged."""

    at: int
    scope: Scope
    pair_cap: Decimal | None
    allocate: Decimal | None
    by: str


@dataclass(frozen=True, slots=True)
class OperatorCommand:
    """`command` with its arguments as the operator gave them; `by` is the channel and the person."""

    at: int
    command: str
    arguments: str
    by: str


@dataclass(frozen=True, slots=True)
class EntriesPaused:
    at: int
    scope: Scope
    by: str


@dataclass(frozen=True, slots=True)
class EntriesResumed:
    at: int
    scope: Scope
    by: str


# -- news (News_Agent) --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BlackoutOpened:
    at: int
    event: str
    scheduled: int
    until: int
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BlackoutClosed:
    at: int
    event: str


# -- exits -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ExitRequested:
    """The daemon wants a trade closed; written before the exit order so that a restart still closes it."""

    at: int
    trade_id: str
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class TradeAbandoned:
    """A trade whose entry ended without a single fill: there is nothing to hold or to close."""

    at: int
    trade_id: str
    reason: str


# -- permission and learning (Validation_Manager, Learning_Agent) ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StrategyApproved:
    """A certificate came into force; it is in here whole, so that the journal alone says what was permitted when."""

    at: int
    certificate: Certificate
    origin: str


@dataclass(frozen=True, slots=True)
class TrialsAnchored:
    """How long a class's trial registry was and the hash of its last entry: one that has not got it later is not the same one."""

    at: int
    asset_class: AssetClass
    entries: int
    head: str


@dataclass(frozen=True, slots=True)
class StrategyRejected:
    """A revalidation ended without approval. `verdict` REJECTED ends the permission, INSUFFICIENT_EVIDENCE lets it run out."""

    at: int
    strategy: str
    asset_class: AssetClass
    verdict: str
    missing: str


@dataclass(frozen=True, slots=True)
class StrategyRevoked:
    """Somebody took the permission back: no entries from now on, exits run on."""

    at: int
    strategy: str
    asset_class: AssetClass
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class StrategyDemoted:
    """Live results are not what was validated: back to paper. `watch` names what saw it, with its number against its limit."""

    at: int
    strategy: str
    asset_class: AssetClass
    watch: str
    measured: float
    limit: float
    reason: str


@dataclass(frozen=True, slots=True)
class CalibrationUpdated:
    """What a strategy's score is believed to be worth now: `lower_r` is what expected net R exceeds with the policy's probability."""

    at: int
    strategy: str
    asset_class: AssetClass
    outcomes: int
    expected_r: float
    lower_r: float
    confidence: float


@dataclass(frozen=True, slots=True)
class WeightsUpdated:
    """How much of its size each strategy of a class keeps, in [0, 1]; `beliefs` are the forecasters' own weights."""

    at: int
    asset_class: AssetClass
    weights: dict[str, float]
    beliefs: dict[str, float]
    days: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShadowLeg:
    """One contract of a shadow's option structure: `side` +1 or -1, `price` per base unit in settlement currency, slippage in it."""

    symbol: str
    side: int
    price: float
    strike: float
    expiry: int
    is_call: bool


@dataclass(frozen=True, slots=True)
class ShadowOpened:
    """A strategy entered on paper beside the book: one unit, in nobody's ledger. `side` +1 or -1; filled at the open of `opened_at`.

    Of an option structure `entry` is what was paid in all, fees included (a credit is negative), `risk` what it can lose at most, and it
    has no `stop` (0).
    """

    at: int
    strategy: str
    symbol: str
    asset_class: AssetClass
    side: int
    score: float
    entry: float
    stop: float
    target: float | None
    risk: float
    """Of one unit at its stop, costs included."""
    hold: int
    opened_at: int
    taken: bool
    """The book opened the same signal."""
    legs: tuple[ShadowLeg, ...] = ()


@dataclass(frozen=True, slots=True)
class ShadowClosed:
    """A shadow trade is over: `net_r` is its result after modelled costs, over the risk a stop would have cost."""

    at: int
    strategy: str
    symbol: str
    asset_class: AssetClass
    opened_at: int
    score: float
    net_r: float
    reason: ExitReason
    taken: bool


@dataclass(frozen=True, slots=True)
class ChallengerEntered:
    """Re-optimized parameters of a strategy begin to trade in its shadow, under their own name."""

    at: int
    champion: str
    challenger: str
    asset_class: AssetClass
    params: dict[str, float]
    origin: str


@dataclass(frozen=True, slots=True)
class ChallengerJudged:
    """The one look at a challenger against its champion, paired by day. `outcome`: PROMOTED, DROPPED, or ROLLED_BACK (the champion's)."""

    at: int
    champion: str
    challenger: str
    asset_class: AssetClass
    outcome: str
    trades: int
    """The challenger's shadow trades that were compared."""
    days: int
    difference_r: float
    """Mean daily net R, challenger less champion."""
    p: float
    """One-sided: chance that a challenger no better (for a roll-back: no worse) shows as much."""
    reason: str


Fact = (
    DaemonStarted | InstrumentListed | FeedLost | FeedRestored | TradeOpened | OrderIntended | OrderSent | OrderAccepted | OrderRejected
    | OrderInDoubt | OrderCanceled | OrderExpired | Filled | ForeignFill | FundingBooked | OptionSettled | PositionClosed | PhaseChanged
    | TransferSeen | BalanceAdjusted | UnallocatedMoved | ForeignOrder | Reconciled | BaselineRolled | PeakRaised | ApiErrorSeen
    | TradingHalted | TradingRearmed | SwitchChanged | BudgetChanged | OperatorCommand | EntriesPaused | EntriesResumed
    | BlackoutOpened | BlackoutClosed | ExitRequested | TradeAbandoned | StrategyApproved | StrategyRejected | StrategyRevoked
    | StrategyDemoted | CalibrationUpdated | WeightsUpdated | ShadowOpened | ShadowClosed | ChallengerEntered | ChallengerJudged
    | TrialsAnchored | InstrumentsChosen
)
