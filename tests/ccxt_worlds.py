"""The certified exchanges behind ccxt as one kind of thing, so that each is held to the same fault matrix."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from modules.domain.order import Fate, InDoubt, NotSent, Order, OrderKind, OrderState, Refused
from modules.venues.ccxt_venue import CcxtVenue
from tests.binance_worlds import binance
from tests.bybit_worlds import PERP, SPOT, bybit, order, stop
from tests.emulators import binance as binance_emulator
from tests.emulators import bybit as bybit_emulator
from tests.emulators.frame import Reply

HTML = b"<!DOCTYPE html><html><body>cloud</body></html>"
NOTHING = {"empty": b"", "html": HTML, "null": b"null", "array": b"[]", "object": b"{}"}
Read = Callable[[CcxtVenue], Awaitable[Any]]


@dataclass(frozen=True)
class World:
    """One kind of order at one exchange."""

    name: str
    open: Callable[..., AbstractAsyncContextManager[tuple[Any, CcxtVenue]]]
    create: str
    """Path an order is sent to; `cancel` the path (and method) it is taken back by."""
    cancel: tuple[str, str]
    coded: Callable[..., Reply]
    made: Callable[[str], Order]
    """An order by name, which ends in `state` once accepted; `resting` one that rests."""
    resting: Callable[[str], Order]
    state: OrderState
    garbage: Mapping[str, bytes]
    odd_acks: Mapping[str, bytes]
    unproven: tuple[int, ...]
    """Codes that prove nothing."""
    proven: tuple[tuple[int, type[Fate]], ...]
    unreached: Callable[[CcxtVenue], None]
    """Turns the trading client to where nobody listens."""

    def __str__(self) -> str:
        return self.name


def rich(venue: Any) -> None:
    """Money for a hundred orders."""
    market = venue.market
    for purse in market.purses.values() if hasattr(market, "purses") else (market.wallet,):
        purse["USDT"] *= 100


BYBIT_ACKS = {"another's id": {"orderId": "9", "orderLinkId": "tbother"}, "no id": {"orderLinkId": "x"},
              "null id": {"orderId": None, "orderLinkId": "x"}, "list of acks": [{"orderId": "9"}], "empty ack": {}}
BYBIT_GARBAGE = NOTHING | {
    "malformed": b'{"retCode":0,"result":{', "no result": b'{"retCode":0,"result":null}',
    "not a number": b'{"retCode":0,"result":{"list":[{"symbol":NaN,"walletBalance":NaN}]}}',
    "strange rows": b'{"retCode":0,"result":{"list":[{"symbol":null,"coin":"x","size":"-1","qty":"1e400"}],"timeNano":"x"}}'}
BINANCE_ACKS = {"another's id": {"orderId": 9, "algoId": 9, "clientOrderId": "tbother", "clientAlgoId": "tbother"},
                "no id": {"clientOrderId": "x"}, "null id": {"orderId": None, "algoId": None, "clientOrderId": "x", "clientAlgoId": "x"},
                "list of acks": [{"orderId": 9, "algoId": 9}], "text for a number": {"orderId": "9", "algoId": "9"}}
BINANCE_GARBAGE = NOTHING | {
    "malformed": b'{"symbol":"BTCUSDT","orderId":', "no result": b'{"orderId":null,"algoId":null,"balances":null,"symbols":null}',
    "not a number": b'[{"symbol":NaN,"asset":"USDT","balance":NaN,"positionAmt":NaN}]',
    "strange rows": b'[{"symbol":null,"asset":"x","positionAmt":"1e400","balance":"-1","orderId":"x","algoId":null,"clientOrderId":1,'
                    b'"clientAlgoId":"","id":true,"time":"1","incomeType":"x","tranId":"x","amount":"-1"}]'}


def _nobody(*names: str) -> Callable[[CcxtVenue], None]:
    def turn(made: CcxtVenue) -> None:
        for name in names:
            made.trade.urls["api"][name] = "http://127.0.0.1:9"

    return turn


def _bybit_ack(ack: Any) -> bytes:
    return json.dumps({"retCode": 0, "retMsg": "OK", "result": ack}).encode()


def _bought(symbol: str) -> Callable[[str], Order]:
    return lambda name: order(name, symbol)


def _bid(symbol: str) -> Callable[[str], Order]:
    return lambda name: order(name, symbol, kind=OrderKind.LIMIT, price="40000")


def _stopped(name: str) -> Order:
    return stop(name, PERP, "40000")


def _binance(name: str, create: str, made: Callable[[str], Order], resting: Callable[[str], Order], state: OrderState,
             proven: tuple[tuple[int, type[Fate]], ...]) -> World:
    return World(
        name, binance, create, ("DELETE", create), binance_emulator.coded, made, resting, state, BINANCE_GARBAGE,
        {what: json.dumps(ack).encode() for what, ack in BINANCE_ACKS.items()}, (-1000, -1001, -1006, -1007, -1008, -987_654),
        (*proven, (-1102, Refused), (-2014, Refused), (-2015, Refused), (-1003, NotSent), (-1015, NotSent), (-1007, InDoubt)),
        _nobody("private", "fapiPrivate"))


WORLDS = (
    World("bybit", bybit, "/v5/order/create", ("POST", "/v5/order/cancel"), bybit_emulator.coded, _bought(SPOT), _bid(SPOT),
          OrderState.FILLED, BYBIT_GARBAGE, {what: _bybit_ack(ack) for what, ack in BYBIT_ACKS.items()}, (10000, 10016, 170146, 987654),
          ((170131, Refused), (110007, Refused), (10001, Refused), (10003, Refused), (33004, Refused), (10006, NotSent), (10018, NotSent),
           (10016, InDoubt), (170146, InDoubt)), _nobody("private")),
    _binance("binance spot", "/api/v3/order", _bought(SPOT), _bid(SPOT), OrderState.FILLED, ((-2010, Refused), (-1013, Refused))),
    _binance("binance perp", "/fapi/v1/order", _bought(PERP), _bid(PERP), OrderState.FILLED, ((-2019, Refused), (-4164, Refused))),
    _binance("binance stop", "/fapi/v1/algoOrder", _stopped, _stopped, OrderState.ACCEPTED, ((-2021, Refused), (-4120, Refused))),
)

NOW = 60_000
BYBIT_READS: dict[tuple[str, str], Read] = {
    ("instruments", "market/instruments-info"): lambda made: made.instruments(),
    ("history", "market/kline"): lambda made: made.history(SPOT, made.clock.now(), 5),
    ("balance", "account/wallet-balance"): lambda made: made.wallet(),
    ("positions", "position/list"): lambda made: made.wallet(),
    ("open orders", "order/realtime"): lambda made: made.wallet(),
    ("order", "order/realtime"): lambda made: made.order("tb1", PERP),
    ("ended order", "order/history"): lambda made: made.order("tb2", PERP),
    ("fills", "execution/list"): lambda made: made.fills_since(made.clock.now() - NOW),
    ("funding", "execution/list"): lambda made: made.funding_since(made.clock.now() - NOW),
    ("transfers", "transaction-log"): lambda made: made.transfers_since(made.clock.now() - NOW),
    ("time", "market/time"): lambda made: made.clock_offset_ms(),
    ("rights", "user/query-api"): lambda made: made.check_account(),
}
BINANCE_READS: dict[tuple[str, str], Read] = {
    ("instruments", "/api/v3/exchangeInfo"): lambda made: made.instruments(),
    ("perpetuals", "/fapi/v1/exchangeInfo"): lambda made: made.instruments(),
    ("leverages", "leverageBracket"): lambda made: made.instruments(),
    ("history", "/fapi/v1/klines"): lambda made: made.history(PERP, made.clock.now(), 5),
    ("balance", "/api/v3/account"): lambda made: made.wallet(),
    ("futures balance", "/fapi/v3/balance"): lambda made: made.wallet(),
    ("positions", "positionRisk"): lambda made: made.wallet(),
    ("open orders", "/api/v3/openOrders"): lambda made: made.wallet(),
    ("open stops", "openAlgoOrders"): lambda made: made.wallet(),
    ("order", "/api/v3/order"): lambda made: made.order("tb1", SPOT),
    ("perpetual's order", "/fapi/v1/order"): lambda made: made.order("tb1", PERP),
    ("stop", "/fapi/v1/algoOrder"): lambda made: made.order("tb2", PERP),
    ("fills", "myTrades"): lambda made: made.fills_since(made.clock.now() - NOW),
    ("perpetuals' fills", "userTrades"): lambda made: made.fills_since(made.clock.now() - NOW),
    ("owner of a fill", "/api/v3/order"): lambda made: made.fills_since(made.clock.now() - NOW),
    ("funding", "income"): lambda made: made.funding_since(made.clock.now() - NOW),
    ("transfers", "asset/transfer"): lambda made: made.transfers_since(made.clock.now() - NOW),
    ("deposits", "deposit/hisrec"): lambda made: made.transfers_since(made.clock.now() - NOW),
    ("withdrawals", "withdraw/history"): lambda made: made.transfers_since(made.clock.now() - NOW),
    ("time", "/api/v3/time"): lambda made: made.clock_offset_ms(),
    ("rights", "apiRestrictions"): lambda made: made.check_account(),
    ("position mode", "positionSide/dual"): lambda made: made.check(),
}
READS = {"bybit": BYBIT_READS, "binance": BINANCE_READS}
NONE_OF_IT = frozenset({"history", "positions", "open orders", "open stops", "fills", "perpetuals' fills", "funding", "deposits",
                        "withdrawals"})
"""Of Binance, which has no envelope: an empty list is how it says that there are none, and cannot be told from garbage."""


async def lived(world: str, venue: Any, made: CcxtVenue) -> None:
    """A past to ask about: an order in each category, a fill, a deposit."""
    await made.instruments()
    if world == "binance":
        await made.submit(order("past"))
        venue.market.income.append({"symbol": "", "incomeType": "TRANSFER", "income": "1", "asset": "USDT", "info": "", "time": venue.now(),
                                    "tranId": 1, "tradeId": ""})
        assert Decimal(venue.market.income[-1]["income"]) == 1
