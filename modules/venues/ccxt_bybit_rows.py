"""Bybit v5's rows and codes: the shape of each reply, and what each code means for a write.

Owns the schema. Refuses every row that is not exactly what the interface promises; a reply that does not pass is no reply.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel

from modules.domain.money import ZERO
from modules.domain.order import OrderState
from modules.venues import ccxt_dialect
from modules.venues.ccxt_dialect import Amount, Moment, NotNegative, Positive, Word, dated
from modules.venues.ccxt_errors import CodeTable, Meaning

NAME: Final = "bybit"
LISTING: Final = ("/instruments-info", "/tickers", "/kline", "/wallet-balance", "/transaction-log", "/realtime", "/order/history",
                  "/execution/list", "/position/list", "/delivery-price", "/new-delivery-price", "/delivery-record")
"""Paths whose answer is a list: without one it is no answer, not an empty one."""
DATED: Final = {"/execution/list": "execTime", "/transaction-log": "transactionTime"}
"""Paths whose every row must tell when, and in which column."""
_REFUSED = ("110003 110004 110006 110007 110009 110011 110012 110013 110016 110017 110020 110021 110022 110023 110032 110034 110040 110042 "
            "110044 110045 110051 110052 110053 110057 110063 110066 110067 110068 110070 110071 110085 110086 110092 110093 110094 170033 "
            "170034 170036 170037 170105 170115 170116 170117 170121 170124 170130 170131 170132 170133 170134 170135 170136 170137 170140 "
            "170148 170151 170157 170159 170192 170193 170194 170197 170198 170202 170203 170204 170206 170207 170210 170217 170218 170221 "
            "170226 170227 170228 170229 3200403 10001")
_DENIED = "10003 10004 10005 10007 10008 10009 10010 10020 10024 10027 10028 10029 33004 170201 170209 170219 170224"
_BY_THE_SECOND = ("10006", "10429", "170005", "170222")
_M = Meaning
CODES: Final = CodeTable(
    pattern=re.compile(r'"ret_?[Cc]ode"\s*:\s*"?(-?\d+)'),
    codes={
        **dict.fromkeys(_REFUSED.split(), _M.REFUSED), **dict.fromkeys(_DENIED.split(), _M.DENIED),
        **dict.fromkeys((*_BY_THE_SECOND, "10018"), _M.BUSY), **dict.fromkeys(("10002", "-1021"), _M.SKEWED),
        **dict.fromkeys(("110072", "170141", "110030"), _M.EXISTED),
        **dict.fromkeys(("110001", "170213", "110008", "110010", "110019", "110079", "170139", "170142", "170143", "170144", "170190",
                         "170212"), _M.UNKNOWN_ORDER),
        # These say "no" and are not: the engine may have the order by then.
        **dict.fromkeys(("10000", "10014", "10016", "10019", "170001", "170007", "170032", "170035", "170146", "170147", "170149", "170150",
                         "170191", "170234"), _M.IN_DOUBT),
    },
    statuses={401: _M.DENIED, 403: _M.BUSY, 418: _M.BUSY, 429: _M.BUSY},
    ban_ms=600_000,
    pauses=dict.fromkeys(_BY_THE_SECOND, 5_000),
)
STATES: Final[Mapping[str, OrderState]] = {
    "New": OrderState.ACCEPTED, "PartiallyFilled": OrderState.ACCEPTED, "Untriggered": OrderState.ACCEPTED,
    "Triggered": OrderState.ACCEPTED, "Filled": OrderState.FILLED, "Cancelled": OrderState.CANCELED,
    "PartiallyFilledCanceled": OrderState.CANCELED, "Deactivated": OrderState.CANCELED, "Rejected": OrderState.REJECTED,
}


class Row(ccxt_dialect.Row):
    model_config = ConfigDict(alias_generator=to_camel)


class OrderRow(Row):
    symbol: Word
    order_id: Word
    order_link_id: Annotated[str, StringConstraints(max_length=64)]
    side: Literal["Buy", "Sell"]
    order_status: Literal["New", "PartiallyFilled", "Untriggered", "Triggered", "Filled", "Cancelled", "PartiallyFilledCanceled",
                         "Deactivated", "Rejected"]
    qty: NotNegative
    """0 = whatever is held: an order somebody else put to close it all."""
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


R = TypeVar("R", bound=Row)


def parsed(model: type[R], raw: object, what: str) -> R:
    return ccxt_dialect.parsed(model, raw, NAME, what)


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
    if path.endswith("/kline") and not all(isinstance(row, list) and len(row) == 7 and dated(row[0]) for row in lists[0]):
        return "reply's candles are none"
    for ending, column in DATED.items():
        if path.endswith(ending) and not all(isinstance(row, dict) and dated(row.get(column)) for row in lists[0]):
            return f"a row has no {column}"
    return ""
