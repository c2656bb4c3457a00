"""Bybit v5 unified as ccxt speaks it: its codes, the shape of its replies, and which parameter really means what.

Owns the translation of Bybit's rows into ours. Refuses every row that is not exactly what the interface promises; a reply that does not
pass is no reply. Money is taken from the wire's own text, never from ccxt's floats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from modules.domain.errors import VenueUnreachable
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.money import ZERO, money, text
from modules.domain.order import Order, OrderKind, OrderReport, OrderState
from modules.venues.ccxt_errors import CodeTable, Meaning
from modules.venues.protocol import OrderDone

NAME: Final = "bybit"
SETTLE: Final = "USDT"
CATEGORIES: Final[Mapping[AssetClass, str]] = {AssetClass.SPOT: "spot", AssetClass.PERP: "linear"}
OPTIONS: Final[Mapping[str, Any]] = {"fetchMarkets": {"types": ["spot", "linear"]}, "fetchCurrencies": False, "defaultSettle": SETTLE,
                                     "enableUnifiedMargin": False, "enableUnifiedAccount": True, "unifiedMarginStatus": 6}
"""Only the unified account is supported, so ccxt needs not ask. (`check_account` does.)"""
PAGE: Final = 50
HISTORY_DAYS: Final = 7
"""The longest span one question about executions may cover."""
LISTING: Final = ("/instruments-info", "/tickers", "/kline", "/wallet-balance", "/transaction-log", "/realtime", "/order/history",
                  "/execution/list", "/position/list")
"""Paths whose answer is a list: without one it is no answer, not an empty one."""
DATED: Final = {"/execution/list": "execTime", "/transaction-log": "transactionTime"}
"""Paths whose every row must tell when, and in which column."""
LEVERAGE_AS_IT_WAS: Final = "110043"
"""Not modified: what was asked for is so already."""
RIGHTS_REFUSED: Final = frozenset({"Withdraw", "AccountTransfer", "SubMemberTransfer", "SubMemberTransferList"})
_DAY_MS: Final = 86_400_000
SPAN_MS: Final = HISTORY_DAYS * _DAY_MS
KEPT_MS: Final = 730 * _DAY_MS
"""How far back the venue knows executions at all."""

_REFUSED = ("110003 110004 110006 110007 110009 110011 110012 110016 110017 110020 110021 110023 110034 110040 110042 110044 110045 110051 "
            "110052 110053 110066 110070 110092 110093 110094 170115 170116 170117 170121 170124 170130 170131 170132 170133 170134 170135 "
            "170136 170137 170140 170148 170151 170157 170159 170192 170193 170194 170202 170203 170204 170206 170210 170217 170218 170221 "
            "10001")
_DENIED = "10003 10004 10005 10007 10008 10009 10010 10020 10024 10027 10028 10029 33004 170201 170209 170224"
_M = Meaning
CODES: Final = CodeTable(
    pattern=re.compile(r'"ret_?[Cc]ode"\s*:\s*"?(-?\d+)'),
    codes={
        **dict.fromkeys(_REFUSED.split(), _M.REFUSED), **dict.fromkeys(_DENIED.split(), _M.DENIED),
        **dict.fromkeys(("10006", "10018", "10429", "170222"), _M.BUSY), **dict.fromkeys(("10002", "-1021"), _M.SKEWED),
        **dict.fromkeys(("110072", "170141", "110030"), _M.EXISTED),
        **dict.fromkeys(("110001", "170213", "110008", "110010", "110019", "170139", "170142", "170143", "170190"), _M.UNKNOWN_ORDER),
        # These say "no" and are not: the engine may have the order by then.
        **dict.fromkeys(("10000", "10014", "10016", "170146", "170147", "170149", "170150", "170191"), _M.IN_DOUBT),
    },
    statuses={401: _M.DENIED, 403: _M.BUSY, 418: _M.BUSY, 429: _M.BUSY},
    ban_ms=600_000,
)
STATES: Final[Mapping[str, OrderState]] = {
    "New": OrderState.ACCEPTED, "PartiallyFilled": OrderState.ACCEPTED, "Untriggered": OrderState.ACCEPTED,
    "Triggered": OrderState.ACCEPTED, "Filled": OrderState.FILLED, "Cancelled": OrderState.CANCELED,
    "PartiallyFilledCanceled": OrderState.CANCELED, "Deactivated": OrderState.CANCELED, "Rejected": OrderState.REJECTED,
}


def _text_only(value: object) -> Decimal:
    if not isinstance(value, str):
        raise ValueError("money is text on this wire")
    return money(value)


def _moment(value: object) -> int:
    if not isinstance(value, str) or not _dated(value):
        raise ValueError("not a UTC ms timestamp in text")
    return int(value)


Amount = Annotated[Decimal, BeforeValidator(_text_only)]
Positive = Annotated[Decimal, BeforeValidator(_text_only), Field(gt=0)]
NotNegative = Annotated[Decimal, BeforeValidator(_text_only), Field(ge=0)]
Moment = Annotated[int, BeforeValidator(_moment)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Row(BaseModel):
    """Fields we do not use are the venue's business; those we use must be as promised."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, alias_generator=to_camel)


class OrderRow(Row):
    symbol: Word
    order_id: Word
    order_link_id: Annotated[str, StringConstraints(max_length=64)]
    side: Literal["Buy", "Sell"]
    order_status: Literal["New", "PartiallyFilled", "Untriggered", "Triggered", "Filled", "Cancelled", "PartiallyFilledCanceled",
                         "Deactivated", "Rejected"]
    qty: Positive
    cum_exec_qty: NotNegative
    updated_time: Moment
    reject_reason: str = ""


class ExecutionRow(Row):
    symbol: Word
    exec_id: Word
    order_link_id: Annotated[str, StringConstraints(max_length=64)]
    side: Literal["Buy", "Sell"]
    exec_type: Word
    exec_qty: Positive
    exec_price: Positive
    exec_fee: Amount
    fee_currency: str = ""
    fee_rate: Amount = ZERO
    is_maker: bool
    exec_time: Moment
    leaves_qty: NotNegative


class AckRow(Row):
    order_id: Word
    order_link_id: Word


class CoinRow(Row):
    coin: Word
    wallet_balance: Amount


class PositionRow(Row):
    symbol: Word
    side: Literal["Buy", "Sell", ""]
    size: NotNegative
    position_idx: Literal[0]
    """One-way mode; anything else is refused."""


class AccountRow(Row):
    account_type: Literal["UNIFIED"]
    coin: list[CoinRow]


class TransferRow(Row):
    id: Word
    type: Word
    currency: Word
    change: Amount
    transaction_time: Moment


class LastRow(Row):
    last_price: Positive


R = TypeVar("R", bound=Row)


def parsed(model: type[R], raw: object, what: str) -> R:
    """`raw` as a row of the interface. Raises VenueUnreachable naming the field, never its content."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, fault["loc"])) or "row" for fault in error.errors()}))
        raise VenueUnreachable(f"{NAME}: {what} is not what it should be: {fields}") from None


def _dated(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\d{12,14}", value) is not None


def fault_in(reply: object, url: str) -> str:
    """What is wrong with a reply's envelope: "" when it is {"retCode": 0, "result": {...}}, with a list where the path promises one."""
    if not isinstance(reply, dict):
        return f"reply is {type(reply).__name__}, not an object"
    if reply.get("retCode") not in (0, "0") or isinstance(reply.get("retCode"), bool):
        return "reply has no retCode"
    result = reply.get("result")
    if not isinstance(result, dict):
        return "reply has no result"
    lists = [result[name] for name in ("list", "rows") if name in result]
    if not lists and urlsplit(url).path.endswith(LISTING):
        return "reply has no list"
    if any(not isinstance(rows, list) or not all(isinstance(row, dict | list) for row in rows) for rows in lists):
        return "reply's list is none"
    # ccxt drops rows without a time when it is asked since when, and says that there is nothing.
    path = urlsplit(url).path
    if path.endswith("/kline") and not all(isinstance(row, list) and len(row) == 7 and _dated(row[0]) for row in lists[0]):
        return "reply's candles are none"
    for ending, column in DATED.items():
        if path.endswith(ending) and not all(isinstance(row, dict) and _dated(row.get(column)) for row in lists[0]):
            return f"a row has no {column}"
    return ""


# -- instruments ------------------------------------------------------------------------------------------------------------


class _Lot(Row):
    min_order_qty: NotNegative
    base_precision: Positive | None = None
    qty_step: Positive | None = None
    min_order_amt: NotNegative = ZERO
    min_notional_value: NotNegative = ZERO


class _Tick(Row):
    tick_size: Positive


class _Leverage(Row):
    max_leverage: Positive


class MarketRow(Row):
    symbol: Word
    base_coin: Word
    quote_coin: Word
    status: Word
    lot_size_filter: _Lot
    price_filter: _Tick
    leverage_filter: _Leverage | None = None
    contract_type: str = ""
    funding_interval: int | str | None = None


def instrument(symbol: str, raw: object, asset_class: AssetClass, maker_fee: Decimal, taker_fee: Decimal) -> Instrument:
    """From an instruments-info row. `maker_fee` and `taker_fee` are fractions of notional. Raises VenueUnreachable on a faulty row."""
    row = parsed(MarketRow, raw, f"instrument {symbol}")
    lot = row.lot_size_filter.base_precision if asset_class is AssetClass.SPOT else row.lot_size_filter.qty_step
    if lot is None:
        raise VenueUnreachable(f"{NAME}: instrument {symbol} is not what it should be: no lot")
    perp = asset_class is AssetClass.PERP
    return Instrument(
        symbol=symbol, venue=NAME, asset_class=asset_class, base=row.base_coin, quote=row.quote_coin, settle=row.quote_coin,
        underlying=row.base_coin, tick=row.price_filter.tick_size, lot=lot, quantity_min=row.lot_size_filter.min_order_qty,
        notional_min=row.lot_size_filter.min_notional_value if perp else row.lot_size_filter.min_order_amt, maker_fee=maker_fee,
        taker_fee=taker_fee, leverage_max=row.leverage_filter.max_leverage if perp and row.leverage_filter else Decimal(1),
        funding_interval_h=int(row.funding_interval or 480) // 60 if perp else None,
    )


# -- orders -----------------------------------------------------------------------------------------------------------------


def creation(order: Order) -> tuple[str, str, str | None, dict[str, Any]]:
    """(type, side, price, parameters) for ccxt's create_order. A stop is a conditional order of Bybit's own engine: on spot by
    triggerPrice alone (ccxt refuses a direction there), on linear with its direction, never a market order with a hint."""
    side = "buy" if order.side is Side.BUY else "sell"
    parameters: dict[str, Any] = {"clientOrderId": order.client_order_id}
    perp = order.asset_class is AssetClass.PERP
    if perp:
        parameters |= {"positionIdx": 0}
        if order.reduce_only:
            parameters |= {"reduceOnly": True}
    price = None if order.price is None else text(order.price)
    if order.kind is OrderKind.STOP:
        parameters |= {"triggerPrice": price}
        if perp:
            parameters |= {"triggerDirection": "descending" if order.side is Side.SELL else "ascending", "triggerBy": "LastPrice"}
        return "market", side, None, parameters
    if order.kind is OrderKind.MARKET:
        return "market", side, None, parameters
    return "limit", side, price, parameters | {"timeInForce": "GTC"}


def cancellation(order: Order, *, triggered: bool) -> dict[str, Any]:
    """Parameters that name the order. Spot keeps conditional orders in a drawer of their own until they trigger."""
    drawer = {"trigger": True} if order.asset_class is AssetClass.SPOT and order.kind is OrderKind.STOP and not triggered else {}
    return {"orderLinkId": order.client_order_id, **drawer}


def acknowledged(raw: object, client_order_id: str) -> str:
    """The venue's order id from the answer to a create or cancel; "" when it does not prove that this order was meant."""
    try:
        row = parsed(AckRow, raw, "acknowledgement")
    except VenueUnreachable:
        return ""
    return row.order_id if row.order_link_id == client_order_id else ""


def report(row: OrderRow, symbol: str) -> OrderReport:
    return OrderReport(row.order_link_id, row.order_id, symbol, STATES[row.order_status], row.cum_exec_qty, row.qty)


def ended(row: OrderRow) -> OrderDone | None:
    """What a row says of an order that ended without (further) fills; None if it has not, or is not ours."""
    how = {OrderState.CANCELED: "canceled", OrderState.REJECTED: "rejected"}.get(STATES[row.order_status])
    return OrderDone(row.order_link_id, row.updated_time, how, row.reject_reason) if how is not None and row.order_link_id else None


def wallet_coins(reply: object) -> dict[str, Decimal]:
    """Every coin of the unified account, from a wallet-balance reply. Raises VenueUnreachable if it is not exactly one account."""
    accounts: Sequence[object] = reply["result"].get("list", ()) if isinstance(reply, dict) else ()
    if len(accounts) != 1:
        raise VenueUnreachable(f"{NAME}: wallet-balance lists {len(accounts)} accounts, not one")
    account = parsed(AccountRow, accounts[0], "wallet")
    coins = {row.coin: row.wallet_balance for row in account.coin}
    if len(coins) != len(account.coin):
        raise VenueUnreachable(f"{NAME}: wallet lists a coin twice")
    return coins
