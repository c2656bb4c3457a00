"""Binance's rows and codes (spot and USD-M): the shape of each reply, and what each code means for a write.

Owns the schema. Refuses every row that is not exactly what the interface promises; a reply that does not pass is no reply. Binance has no
envelope: a list stands for itself, so what a path promises is held against each answer here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import ConfigDict, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from modules.domain.money import ZERO
from modules.domain.order import OrderState
from modules.venues import ccxt_dialect
from modules.venues.ccxt_dialect import Amount, NotNegative, Positive, Stamp, Word, stamped
from modules.venues.ccxt_errors import CodeTable, Meaning

NAME: Final = "binance"
_M = Meaning
_REFUSED = ("-1013 -1014 -1100 -1101 -1102 -1103 -1104 -1105 -1106 -1108 -1110 -1111 -1112 -1114 -1115 -1116 -1117 -1118 -1119 -1120 "
            "-1121 -1122 -1126 -1127 -1128 -1130 -1131 -1134 -1135 -1136 -1145 -2010 -2016 -2018 -2019 -2020 -2021 -2022 -2023 -2024 "
            "-2025 -2026 -2027 -2028 -4000 -4001 -4002 -4003 -4004 -4005 -4006 -4007 -4008 -4009 -4010 -4011 -4012 -4013 -4014 -4015 "
            "-4016 -4017 -4018 -4019 -4020 -4021 -4022 -4023 -4024 -4025 -4026 -4027 -4028 -4029 -4030 -4031 -4032 -4033 -4044 -4045 "
            "-4046 -4047 -4048 -4050 -4051 -4054 -4055 -4056 -4057 -4059 -4060 -4061 -4062 -4067 -4068 -4082 -4083 -4084 -4086 -4087 "
            "-4088 -4104 -4105 -4109 -4114 -4115 -4118 -4120 -4131 -4135 -4136 -4137 -4138 -4139 -4140 -4141 -4142 -4144 -4161 -4164 "
            "-4165 -4183 -4184 -4192 -4202 -4203 -4210 -4211 -4400 -4401 -4402 -4403 -5021 -5022 -5024 -5025 -5026 -5027 -5028 -5029 "
            "-5037 -5038 -5039 -5040 -5041 -5043")
_DENIED = "-1002 -1005 -1011 -1022 -1099 -1109 -2008 -2014 -2015 -2017 -4088"
CODES: Final = CodeTable(
    pattern=re.compile(r'"code"\s*:\s*"?(-\d+)'),
    codes={
        **dict.fromkeys(_REFUSED.split(), _M.REFUSED), **dict.fromkeys(_DENIED.split(), _M.DENIED),
        **dict.fromkeys(("-1003", "-1015", "-1034"), _M.BUSY), "-1021": _M.SKEWED,
        **dict.fromkeys(("-4116", "-4111"), _M.EXISTED), **dict.fromkeys(("-2011", "-2013", "-4117"), _M.UNKNOWN_ORDER),
        # "Execution status unknown" in Binance's own words, and what may be it.
        **dict.fromkeys(("-1000", "-1001", "-1004", "-1006", "-1007", "-1008", "-1010", "-1016", "-1020", "-2012"), _M.IN_DOUBT),
    },
    # Under -2010, which else is a plain refusal; and under -1008, which else may mean anything.
    phrases={"Duplicate order sent": _M.EXISTED, "throttled by system-level protection": _M.NOT_SENT},
    statuses={401: _M.DENIED, 403: _M.BUSY, 418: _M.BUSY, 429: _M.BUSY, 451: _M.DENIED},
    ban_ms=120_000,
    banned_until=re.compile(r"banned until (\d{13})"),
)
STATES: Final[Mapping[str, OrderState]] = {
    "NEW": OrderState.ACCEPTED, "PENDING_NEW": OrderState.ACCEPTED, "PARTIALLY_FILLED": OrderState.ACCEPTED,
    "PENDING_CANCEL": OrderState.ACCEPTED, "FILLED": OrderState.FILLED, "CANCELED": OrderState.CANCELED, "REJECTED": OrderState.REJECTED,
    "EXPIRED": OrderState.EXPIRED, "EXPIRED_IN_MATCH": OrderState.EXPIRED,
}
ALGO_STATES: Final[Mapping[str, OrderState]] = {
    "NEW": OrderState.ACCEPTED, "TRIGGERING": OrderState.ACCEPTED, "TRIGGERED": OrderState.ACCEPTED, "FINISHED": OrderState.ACCEPTED,
    "CANCELED": OrderState.CANCELED, "EXPIRED": OrderState.EXPIRED, "REJECTED": OrderState.REJECTED,
}
"""Of the condition; what became of the order it triggered is asked of that order."""
Status = Literal["NEW", "PENDING_NEW", "PARTIALLY_FILLED", "PENDING_CANCEL", "FILLED", "CANCELED", "REJECTED", "EXPIRED",
                 "EXPIRED_IN_MATCH"]
AlgoStatus = Literal["NEW", "TRIGGERING", "TRIGGERED", "FINISHED", "CANCELED", "EXPIRED", "REJECTED"]


class Row(ccxt_dialect.Row):
    model_config = ConfigDict(alias_generator=to_camel)


class OrderRow(Row):
    symbol: Word
    order_id: int
    client_order_id: Word
    side: Literal["BUY", "SELL"]
    status: Status
    orig_qty: NotNegative
    executed_qty: NotNegative


class AlgoRow(Row):
    symbol: Word
    algo_id: int
    client_algo_id: Word
    side: Literal["BUY", "SELL"]
    algo_status: AlgoStatus
    quantity: NotNegative
    """0 = whatever is held: a stop that somebody put in the app (closePosition). It may not be told then."""
    actual_order_id: str | int | None = None
    close_position: bool = False

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, raw: Any) -> Any:
        return {**raw, "quantity": raw.get("quantity") or "0"} if isinstance(raw, dict) and raw.get("closePosition") is True else raw

    @model_validator(mode="after")
    def _stated(self) -> Self:
        if not self.quantity and not self.close_position:
            raise ValueError("no quantity")
        return self


class AckRow(Row):
    order_id: int
    client_order_id: Word
    orig_client_order_id: str | None = None


class AlgoAckRow(Row):
    algo_id: int
    client_algo_id: Word


class SpotTradeRow(Row):
    symbol: Word
    id: int
    order_id: int
    price: Positive
    qty: Positive
    commission: Amount
    commission_asset: Word
    time: Stamp
    is_buyer: bool
    is_maker: bool


class PerpTradeRow(Row):
    symbol: Word
    id: int
    order_id: int
    price: Positive
    qty: Positive
    commission: Amount
    commission_asset: Word
    time: Stamp
    buyer: bool
    maker: bool
    position_side: Literal["BOTH"]


class CoinRow(Row):
    asset: Word
    free: NotNegative
    locked: NotNegative


class PurseRow(Row):
    asset: Word
    balance: Amount


class PositionRow(Row):
    symbol: Word
    position_amt: Amount
    position_side: Literal["BOTH"]
    """One-way mode; anything else is refused."""


class IncomeRow(Row):
    symbol: Annotated[str, StringConstraints(max_length=64)]
    income_type: Word
    income: Amount
    asset: Word
    time: Stamp
    tran_id: int


class DepositRow(Row):
    id: Word
    amount: Positive
    coin: Word
    status: int
    insert_time: Stamp
    wallet_type: int = 0
    """0 = spot, 1 = the funding wallet."""


class WithdrawalRow(Row):
    id: Word
    amount: Positive
    transaction_fee: NotNegative
    coin: Word
    status: int
    wallet_type: int = 0
    apply_time: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$")]


class MoveRow(Row):
    asset: Word
    amount: Positive
    status: Word
    tran_id: int
    timestamp: Stamp


class StreamTrade(ccxt_dialect.Row):
    """An execution as the user data streams tell it, in their one-letter names."""

    s: Word
    c: Word
    S: Literal["BUY", "SELL"]
    i: int
    l: Positive  # noqa: E741
    L: Positive
    n: Amount
    N: Word | None = None
    T: Stamp
    t: int
    m: bool
    X: Status


class StreamOrder(ccxt_dialect.Row):
    s: Word
    c: Word
    C: str = ""
    i: int
    X: Status
    z: NotNegative = ZERO
    """How much of it has been filled."""
    T: Stamp
    r: str = ""


class StreamAlgo(ccxt_dialect.Row):
    s: Word
    caid: Word
    X: AlgoStatus
    T: Stamp
    ai: str | int | None = None
    rm: str = ""


R = TypeVar("R", bound=ccxt_dialect.Row)


def parsed(model: type[R], raw: object, what: str) -> R:
    return ccxt_dialect.parsed(model, raw, NAME, what)


# -- what a path promises -----------------------------------------------------------------------------------------------------


def _rows(*columns: str) -> Callable[[object], bool]:
    """A list of objects that have these columns."""
    return lambda reply: isinstance(reply, list) and all(isinstance(row, dict) and row.keys() >= set(columns) for row in reply)


def _has(**kinds: type) -> Callable[[object], bool]:
    """An object whose fields are of these kinds."""
    return lambda reply: isinstance(reply, dict) and all(
        isinstance(reply.get(name), kind) and (kind is bool or not isinstance(reply.get(name), bool)) for name, kind in kinds.items())


def _candles(reply: object) -> bool:
    # ccxt takes what is not there for None, and sorts it in.
    return isinstance(reply, list) and all(isinstance(row, list) and len(row) >= 11 and stamped(row[0]) for row in reply)


def _list_or_one(reply: object) -> bool:
    return isinstance(reply, dict) or (isinstance(reply, list) and all(isinstance(row, dict) for row in reply))


PROMISES: Final[Mapping[str, Callable[[object], bool]]] = {
    "/exchangeInfo": lambda reply: _has(symbols=list)(reply) and isinstance(reply, dict) and _rows("symbol")(reply["symbols"]),
    "/time": _has(serverTime=int), "/klines": _candles, "/markPriceKlines": _candles, "/openOrders": _rows("orderId", "clientOrderId"),
    "/openAlgoOrders": _rows("algoId", "clientAlgoId"), "/allAlgoOrders": _rows("algoId", "clientAlgoId"),
    "/myTrades": _rows("id", "orderId", "time"), "/userTrades": _rows("id", "orderId", "time"), "/balance": _rows("asset", "balance"),
    "/positionRisk": _rows("symbol", "positionAmt"), "/income": _rows("incomeType", "time", "tranId"),
    "/positionSide/dual": _has(dualSidePosition=bool), "/multiAssetsMargin": _has(multiAssetsMargin=bool),
    "/apiRestrictions": _has(enableReading=bool, enableWithdrawals=bool), "/api/v3/account": _has(balances=list),
    "/capital/deposit/hisrec": _rows("amount"), "/capital/withdraw/history": _rows("amount"), "/asset/transfer": _has(total=int),
    "/leverageBracket": _rows("symbol", "brackets"), "/fundingInfo": _rows(), "/fundingRate": _rows("fundingTime", "fundingRate"),
    "/ticker/24hr": _list_or_one, "/ticker/bookTicker": _list_or_one, "/premiumIndex": _list_or_one, "/listenKey": _has(),
}
"""By how the path ends. Any other answer must at least be an object that is not empty."""


def fault_in(reply: object, url: str) -> str:
    """What is wrong with a reply: "" when it is what its path promises."""
    path = urlsplit(url).path
    for ending, keeps in PROMISES.items():
        if path.endswith(ending):
            return "" if keeps(reply) else f"reply is not what {ending} promises"
    return "" if isinstance(reply, dict) and reply else f"reply is {type(reply).__name__}, not an object"
