"""Our own schema of what OANDA says: nothing reaches state that did not pass it. Amounts are texts on the wire and Decimals here.

Unknown fields are ignored, unknown transaction types are kept as bare `Told`; a known one that lacks what we need is refused whole.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from modules.domain.money import ZERO, money
from modules.domain.sessions import parse_iso


def _money(value: Any) -> Decimal:
    return money(value)


def _price(value: Any) -> float:
    number = float(money(value))
    if not math.isfinite(number) or number <= 0.0:
        raise ValueError("a price is positive")
    return number


def _time(value: Any) -> int:
    if not isinstance(value, str):
        raise ValueError("a time is text")
    return parse_iso(value)


Amount = Annotated[Decimal, BeforeValidator(_money)]
Price = Annotated[float, BeforeValidator(_price)]
Time = Annotated[int, BeforeValidator(_time)]
Number = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}$", strict=True)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.]{1,30}_[A-Z0-9]{2,10}$", strict=True)]
"""Of anything an account may hold: EUR_USD, DE30_EUR, shares with a dot. Only currencies are traded here."""
Word = Annotated[str, StringConstraints(min_length=1, max_length=200, strict=True)]


def _wired(name: str) -> str:
    """The broker's spelling: client_order_id is clientOrderID."""
    first, *rest = name.split("_")
    return first + "".join(word.upper() if word in ("id", "pl") else word.capitalize() for word in rest)


class Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=_wired)


class Extensions(Wire):
    id: str = ""


class Told(Wire):
    """Any transaction."""

    id: Number
    time: Time
    type: Word


class Created(Told):
    """MARKET_ORDER, LIMIT_ORDER, STOP_ORDER and their _REJECT forms."""

    instrument: Name
    units: Amount
    client_extensions: Extensions = Extensions()


class Declined(Told):
    reject_reason: Word
    client_extensions: Extensions = Extensions()


class Factor(Wire):
    factor: Amount


class Factors(Wire):
    """Null where the broker converted nothing of that kind."""

    gain_quote_home: Factor | None = None
    loss_quote_home: Factor | None = None


class Filled(Told):
    @model_validator(mode="before")
    @classmethod
    def _one_price(cls, row: Any) -> Any:
        return {**row, "price": row["fullVWAP"]} if isinstance(row, dict) and "price" not in row and "fullVWAP" in row else row

    order_id: Number
    client_order_id: str = ""
    instrument: Name
    units: Amount
    price: Amount
    """Deprecated there, and still told; the same as `fullVWAP` unless a guaranteed stop was filled."""
    reason: Word
    pl: Amount
    quote_pl: Amount | None = None
    financing: Amount
    commission: Amount = ZERO
    guaranteed_execution_fee: Amount = ZERO
    home_conversion_factors: Factors | None = None
    gain_quote_home_conversion_factor: Amount | None = None
    loss_quote_home_conversion_factor: Amount | None = None


class Ended(Told):
    """ORDER_CANCEL."""

    order_id: Number
    client_order_id: str = ""
    reason: Word


class PositionFinancing(Wire):
    instrument: Name
    financing: Amount


class Financed(Told):
    """DAILY_FINANCING. What its parts leave of the whole, the wallet's audit finds."""

    financing: Amount
    position_financings: tuple[PositionFinancing, ...] = ()


class Moved(Told):
    """TRANSFER_FUNDS."""

    amount: Amount


KINDS: Final[dict[str, type[Told]]] = {
    "ORDER_FILL": Filled, "ORDER_CANCEL": Ended, "DAILY_FINANCING": Financed, "TRANSFER_FUNDS": Moved,
    **dict.fromkeys(("MARKET_ORDER", "LIMIT_ORDER", "STOP_ORDER"), Created),
    **dict.fromkeys(("MARKET_ORDER_REJECT", "LIMIT_ORDER_REJECT", "STOP_ORDER_REJECT"), Declined),
}


def transaction(row: Any) -> Told:
    """One transaction as its own type. Raises ValidationError."""
    told = Told.model_validate(row)
    return KINDS.get(told.type, Told).model_validate(row)


class Transactions(Wire):
    transactions: tuple[Any, ...]
    last_transaction_id: Number


class Pages(Wire):
    pages: tuple[Word, ...]
    last_transaction_id: Number


class Side(Wire):
    units: Amount


class Position(Wire):
    instrument: Name
    long: Side
    short: Side


class OrderRow(Wire):
    """An order as it stands. Stops linked to a trade carry neither instrument nor units."""

    id: Number
    type: Word
    state: Word
    instrument: Name | None = None
    units: Amount | None = None
    client_extensions: Extensions = Extensions()
    filling_transaction_id: Number | None = None


class Account(Wire):
    id: Word
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    balance: Amount
    positions: tuple[Position, ...]
    orders: tuple[OrderRow, ...]


class AccountReply(Wire):
    account: Account
    last_transaction_id: Number


class Summary(Wire):
    id: Word
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    balance: Amount
    hedging_enabled: Annotated[bool, Field(strict=True)]
    guaranteed_stop_loss_order_mode: str = "DISABLED"


class SummaryReply(Wire):
    account: Summary
    last_transaction_id: Number


class OrderReply(Wire):
    order: OrderRow


class Financing(Wire):
    long_rate: Amount
    short_rate: Amount


class InstrumentRow(Wire):
    name: Name
    type: Word
    pip_location: int
    display_precision: Annotated[int, Field(ge=0, le=10)]
    trade_units_precision: Annotated[int, Field(ge=0, le=10)]
    minimum_trade_size: Amount
    margin_rate: Annotated[Amount, Field(gt=0)]
    financing: Financing | None = None


class AnyInstrument(Wire):
    """Metals and indices are listed too; only currencies have to pass the schema."""

    type: Word


class InstrumentsReply(Wire):
    instruments: Annotated[tuple[Any, ...], Field(min_length=1)]


class Ohlc(Wire):
    o: Price
    h: Price
    l: Price  # noqa: E741 - the broker's name
    c: Price


class Candle(Wire):
    time: Time
    complete: Annotated[bool, Field(strict=True)]
    mid: Ohlc
    bid: Ohlc
    ask: Ohlc


class CandlesReply(Wire):
    instrument: Name
    granularity: Word
    candles: tuple[Candle, ...]


class Rung(Wire):
    price: Price


class HeartbeatLine(Wire):
    time: Time


class PriceLine(Wire):
    instrument: Name
    time: Time
    tradeable: bool | None = None
    status: str = "tradeable"
    """What `tradeable` was called before, and still is beside it."""
    bids: tuple[Rung, ...]
    asks: tuple[Rung, ...]

    @property
    def trades(self) -> bool:
        return self.status == "tradeable" if self.tradeable is None else self.tradeable


class PricesReply(Wire):
    prices: tuple[PriceLine, ...]


class Submitted(Wire):
    """A 201. The create transaction echoes what we asked for; a cancel beside it says that it came to nothing."""

    order_create_transaction: Created
    order_fill_transaction: Filled | None = None
    order_cancel_transaction: Ended | None = None


class Canceled(Wire):
    order_cancel_transaction: Ended


class Error(Wire):
    """A refusal in the broker's envelope."""

    error_message: Word
    error_code: str = ""
    order_reject_transaction: Declined | None = None
    order_cancel_reject_transaction: Declined | None = None
