"""An order's life: states, the table of allowed moves, and the four fates of a submit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from modules.domain.instrument import AssetClass, Side
from modules.domain.money import ZERO

MARK: Final = "tb"
"""What all our client order ids begin with."""
DRILL_MARK: Final = "tbx"
"""What those of a drill begin with: whoever drills an account is its owner, and what comes of it is his."""


class OrderKind(StrEnum):
    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"
    """Stop-market: rests at the venue, becomes a market order when the price passes `price`."""
    TARGET = "target"
    """Reduce-only limit at the take-profit price."""


class Purpose(StrEnum):
    ENTRY = "entry"
    EXIT = "exit"
    STOP = "stop"
    TARGET = "target"


class ExitReason(StrEnum):
    """Why a trade ended; freqtrade's names plus ours (time_exit, expiry, delisted, kill_switch)."""

    ROI = "roi"
    STOP_LOSS = "stop_loss"
    STOPLOSS_ON_EXCHANGE = "stoploss_on_exchange"
    TRAILING_STOP_LOSS = "trailing_stop_loss"
    LIQUIDATION = "liquidation"
    EXIT_SIGNAL = "exit_signal"
    FORCE_EXIT = "force_exit"
    EMERGENCY_EXIT = "emergency_exit"
    PARTIAL_EXIT = "partial_exit"
    TIME_EXIT = "time_exit"
    EXPIRY = "expiry"
    DELISTED = "delisted"
    KILL_SWITCH = "kill_switch"


class OrderState(StrEnum):
    INTENT = "intent"
    SENT = "sent"
    IN_DOUBT = "in_doubt"
    ACCEPTED = "accepted"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"


_S = OrderState
TRANSITIONS: Final[dict[OrderState, frozenset[OrderState]]] = {
    _S.INTENT: frozenset({_S.SENT, _S.CANCELED, _S.EXPIRED}),
    _S.SENT: frozenset({_S.ACCEPTED, _S.REJECTED, _S.IN_DOUBT, _S.FILLED, _S.CANCELED, _S.EXPIRED}),
    _S.IN_DOUBT: frozenset({_S.ACCEPTED, _S.REJECTED, _S.FILLED, _S.CANCELED, _S.EXPIRED}),
    _S.ACCEPTED: frozenset({_S.FILLED, _S.CANCELED, _S.EXPIRED, _S.REJECTED, _S.IN_DOUBT}),
    _S.FILLED: frozenset(),
    # A cancel may cross a fill, and a proof of absence may be wrong: late evidence from the venue wins.
    _S.CANCELED: frozenset({_S.FILLED}),
    _S.EXPIRED: frozenset({_S.FILLED, _S.ACCEPTED}),
    _S.REJECTED: frozenset({_S.FILLED, _S.ACCEPTED}),
}
TERMINAL: Final = frozenset({_S.FILLED, _S.CANCELED, _S.EXPIRED, _S.REJECTED})
WORKING: Final = frozenset({_S.INTENT, _S.SENT, _S.IN_DOUBT, _S.ACCEPTED})


@dataclass(frozen=True, slots=True)
class Order:
    """What we mean to do, complete and immutable. `client_order_id` is derived from its content (see `derive_id`).

    `price` is the limit, or the trigger of a stop. `arrival_price` is the mid at the decision, what slippage is measured against.
    `reserves` is the settlement currency held until the order ends. `expires_at` (UTC ms) is the unfilled timeout; None = until canceled.
    """

    client_order_id: str
    trade_id: str
    decision_id: str
    strategy: str
    venue: str
    symbol: str
    asset_class: AssetClass
    side: Side
    quantity: Decimal
    kind: OrderKind
    purpose: Purpose
    price: Decimal | None
    reduce_only: bool
    leverage: Decimal
    arrival_price: Decimal
    slippage_model_bp: Decimal
    """Expected adverse slippage against `arrival_price`, basis points: what "5 x the modelled slippage" refers to."""
    reserves: Decimal
    at: int
    expires_at: int | None = None
    exit_reason: ExitReason | None = None
    notional: Decimal = ZERO
    """Entries: size in settlement currency as approved, what the cap per minute counts."""


def derive_id(strategy: str, symbol: str, bar_ts: int, side: Side, purpose: Purpose, attempt: int) -> str:
    """Our own client order id: 28 alphanumerics from what the order means, so that the same intent can never get two ids.

    blake2b over the fields; prefix "tb" marks our orders at the venue.
    """
    content = f"{strategy}|{symbol}|{bar_ts}|{side}|{purpose}|{attempt}".encode()
    return MARK + hashlib.blake2b(content, digest_size=13).hexdigest()


def drill_id(symbol: str, began: int, side: Side, purpose: Purpose, attempt: int) -> str:
    """The same for an order of a drill (`began`: UTC ms). Told apart for ever from those of a daemon, whose ids go on in hexadecimal."""
    return DRILL_MARK + derive_id("drill", symbol, began, side, purpose, attempt)[len(DRILL_MARK):]


@dataclass(frozen=True, slots=True)
class Accepted:
    venue_order_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The venue said no, proven by a listed code."""

    code: str
    message: str
    denied: bool = False
    """It is our key or account it does not accept: nothing of ours will be."""


@dataclass(frozen=True, slots=True)
class NotSent:
    """Proven not to have been accepted, mostly because it never left this machine: the same id may be sent again."""

    message: str
    until: int | None = None
    """The venue wants silence before this, UTC ms."""


@dataclass(frozen=True, slots=True)
class InDoubt:
    """Nobody knows. Funds stay reserved; only the venue's own answer resolves it."""

    message: str
    answered: bool = False
    """The venue is well and has answered; what it says decides nothing."""


Fate = Accepted | Refused | NotSent | InDoubt


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution as the venue reports it. Keyed (venue, symbol, venue_trade_id).

    `fee` is in `fee_currency` (negative = rebate). `settle_rate` converts the instrument's quote currency into the sub-ledger's
    currency at the fill, `fee_rate` converts `fee_currency`; each is 1 when they are the same currency. `client_order_id` is "" for
    executions the venue made on its own (liquidation) and for foreign orders.
    """

    venue: str
    symbol: str
    venue_trade_id: str
    client_order_id: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_currency: str
    fee_rate: Decimal
    settle_rate: Decimal
    maker: bool
    at: int
    liquidation: bool = False
    """The venue closed the position on its own."""
    delisted: bool = False
    """It did so because trading in the instrument ended, not for want of margin."""
    by_owner: bool = False
    """The owner closed (this part of) our position himself, at the venue."""


@dataclass(frozen=True, slots=True)
class OrderReport:
    """What the venue says of one order when asked."""

    client_order_id: str
    venue_order_id: str
    symbol: str
    state: OrderState
    filled: Decimal
    quantity: Decimal
