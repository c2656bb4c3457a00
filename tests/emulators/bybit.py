"""Bybit v5 on loopback: REST (signatures checked) and websockets over the market of bybit_market.py, with a script of faults.

Speaks the wire of venues.md section 5 for the categories spot, linear and option. `faults` holds what goes wrong next: a reply replaced,
cut, stalled or dropped, before or after the request took effect.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from aiohttp import web

from tests.emulators.bybit_market import MINUTE_MS, Denied, Market, Row
from tests.emulators.frame import Fault, Frame, Reply, listening

__all__ = ["KEY", "SECRET", "BybitEmulator", "Fault", "Reply", "coded", "serving"]

KEY, SECRET = "emulator-key-7QpX", "emulator-secret-h9Zr2Lw"
WINDOW_MS = 5_000
LOGIN_MS = 10_000
"""How long before its expiry ccxt signs a login."""
PAGE = 50


def coded(code: int, message: str = "emulated", status: int = 200) -> Reply:
    """A refusal in Bybit's own envelope."""
    return Reply(status, json.dumps({"retCode": code, "retMsg": message, "result": {}, "retExtInfo": {}, "time": 1}).encode())


class BybitEmulator(Frame):
    """`market` is its truth."""

    cut = b'{"retCode":0,"retMsg":"OK","result":{"orderId":"'

    def __init__(self) -> None:
        super().__init__()
        self.market = Market(self.now, self._emit)
        self.funding: dict[str, list[tuple[int, str]]] = {}
        """(settled at, rate) by market, for the public history of funding rates."""
        self.rights: Row = {"Spot": ["SpotTrade"], "ContractTrade": ["Order", "Position"], "Wallet": [], "Options": []}
        get: dict[str, Callable[[Row], Any]] = {
            "market/time": lambda _: {"timeSecond": str(self.now() // 1000), "timeNano": str(self.now() * 1_000_000)},
            "market/instruments-info": self._instruments, "market/tickers": self._tickers, "market/kline": self._kline,
            "market/mark-price-kline": self._marks,
            "market/orderbook": self._book, "market/funding/history": self._funding,
            "market/recent-trade": lambda _: {"list": []}, "asset/coin/query-info": lambda _: {"rows": []},
            "user/query-api": self._key, "account/info": self._account_info, "account/fee-rate": lambda _: {"list": []},
            "account/wallet-balance": lambda _: {"list": [self.market.account()]}, "account/transaction-log": self._log,
            "order/realtime": self._realtime, "order/history": self._history, "execution/list": self._executions,
            "position/list": self._positions, "position/closed-pnl": lambda _: {"list": []},
            "market/delivery-price": self._delivery_prices, "market/new-delivery-price": self._new_delivery_prices,
            "asset/delivery-record": self._delivery_records,
        }
        post: dict[str, Callable[[Row], Any]] = {
            "order/create": self._create, "order/cancel": self._cancel, "order/cancel-all": self._cancel_all,
            "order/disconnected-cancel-all": lambda _: {}, "position/set-leverage": self._leverage,
        }
        self._routes = {("GET", f"/v5/{path}"): handler for path, handler in get.items()}
        self._routes |= {("POST", f"/v5/{path}"): handler for path, handler in post.items()}

    # -- REST -------------------------------------------------------------------------------------------------------------

    def answer(self, request: web.Request, raw: bytes) -> tuple[int, Any, dict[str, str]]:
        return 200, self._answer(request, raw), {}

    def _answer(self, request: web.Request, raw: bytes) -> Row:
        handler = self._routes.get((request.method, request.path))
        if handler is None:
            return self._envelope(10017, "request path not found", {})
        public = "/market/" in request.path
        try:
            if not public:
                self._authenticate(request, raw)
            asked: Row = json.loads(raw) if request.method == "POST" else dict(request.query)
            if request.method == "POST":
                self.bodies.append((request.path, asked))
            return self._envelope(0, "OK", handler(asked))
        except Denied as denied:
            return self._envelope(denied.code, denied.message, {})

    def _envelope(self, code: int, message: str, result: Any) -> Row:
        return {"retCode": code, "retMsg": message, "result": result, "retExtInfo": {}, "time": self.now()}

    def _authenticate(self, request: web.Request, raw: bytes) -> None:
        sent, window = request.headers.get("X-BAPI-TIMESTAMP", "0"), request.headers.get("X-BAPI-RECV-WINDOW", str(WINDOW_MS))
        if request.headers.get("X-BAPI-API-KEY") != KEY:
            raise Denied(10003, "API key is invalid.")
        payload = raw.decode() if request.method == "POST" else request.rel_url.raw_query_string
        wanted = hmac.new(SECRET.encode(), f"{sent}{KEY}{window}{payload}".encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(wanted, request.headers.get("X-BAPI-SIGN", "")):
            raise Denied(10004, "error sign! please check your signature generation algorithm.")
        if not self.now() - int(window) * self.pace <= int(sent) < self.now() + 1_000 * self.pace:
            raise Denied(10002, f"invalid request, please check your server timestamp. req[{sent}],server[{self.now()}]")

    # -- handlers ---------------------------------------------------------------------------------------------------------

    def _instruments(self, asked: Row) -> Row:
        wanted = asked.get("category")
        base = asked.get("baseCoin", "BTC") if wanted == "option" and "symbol" not in asked else None
        listed = [] if asked.get("status") else [
            p for p in self.market.products.values()
            if p.category == wanted and p.base == (base or p.base) and asked.get("symbol", p.id) == p.id]
        return _page([self.market.listing(product) for product in listed], asked, 500)

    def _tickers(self, asked: Row) -> Row:
        keys = [key for key in self.market.products if key[0] == asked.get("category") and asked.get("symbol", key[1]) == key[1]]
        if asked.get("category") == "option" and "symbol" not in asked:
            if "baseCoin" not in asked:
                raise Denied(10001, "baseCoin or symbol is required")
            keys = [key for key in keys if self.market.products[key].base == asked["baseCoin"]]
        return {"category": asked.get("category"), "list": [self.market.ticker(key) for key in keys]}

    def _kline(self, asked: Row) -> Row:
        candles = _longer(self.market.candles.get((asked["category"], asked["symbol"]), []), asked.get("interval", "1"))
        start, end = int(asked.get("start", 0)), int(asked.get("end", 1 << 60))
        found = [candle for candle in candles if start <= candle[0] <= end][-int(asked.get("limit", 200)):]
        rows = [[*map(str, candle), str(candle[5] * candle[4])] for candle in reversed(found)]
        return {"category": asked["category"], "symbol": asked["symbol"], "list": rows}

    def _marks(self, asked: Row) -> Row:
        told = self._kline(asked)
        return told | {"list": [row[:5] for row in told["list"]]}

    def _funding(self, asked: Row) -> Row:
        start, end = int(asked.get("startTime", 0)), int(asked.get("endTime", 1 << 60))
        if "startTime" in asked and "endTime" not in asked:
            raise Denied(10001, "endTime is required with startTime")
        found = [row for row in self.funding.get(asked["symbol"], []) if start <= row[0] <= end][-int(asked.get("limit", 200)):]
        rows = [{"symbol": asked["symbol"], "fundingRate": rate, "fundingRateTimestamp": str(at)} for at, rate in reversed(found)]
        return {"category": "linear", "list": rows}

    def _book(self, asked: Row) -> Row:
        return self.market.best((asked["category"], asked["symbol"])) | {"ts": self.now()}

    def _delivery_prices(self, asked: Row) -> Row:
        """By contract; here it suffices to know what was delivered to us."""
        rows = [{name: record[name] for name in ("symbol", "deliveryPrice")} | {"deliveryTime": str(record["deliveryTime"])}
                for record in self.market.options.records if asked.get("symbol", record["symbol"]) == record["symbol"]]
        return _page(rows, asked)

    def _new_delivery_prices(self, asked: Row) -> Row:
        if asked.get("category") != "option" or "baseCoin" not in asked:
            raise Denied(10001, "category and baseCoin are required")
        wanted = asked["baseCoin"], asked.get("settleCoin", "USDT")
        rows = [{name: row[name] for name in ("deliveryPrice", "deliveryTime")} for row in self.market.options.delivered
                if (row["baseCoin"], row["settleCoin"]) == wanted]
        return _page(rows, asked)

    def _delivery_records(self, asked: Row) -> Row:
        if asked.get("category") != "option":
            raise Denied(10001, "emulator: only category=option")
        start = int(asked.get("startTime", 0))
        rows = [row for row in self.market.options.records if int(row["deliveryTime"]) >= start and
                asked.get("symbol", row["symbol"]) == row["symbol"]]
        return _page(rows, asked, 20)

    def _key(self, _: Row) -> Row:
        return {"id": "1", "apiKey": KEY, "readOnly": 0, "secret": "", "permissions": self.rights, "ips": ["*"], "type": 1,
                "unified": 0, "uta": 1, "userID": 1, "deadlineDay": 90, "expiredAt": "2027-05-15T03:21:05Z", "isMaster": True}

    def _account_info(self, _: Row) -> Row:
        return {"marginMode": "REGULAR_MARGIN", "updatedTime": "1697078946000", "unifiedMarginStatus": 6, "dcpStatus": "OFF",
                "timeWindow": 10, "smpGroup": 0, "isMasterTrader": False, "spotHedgingStatus": "OFF"}

    def _create(self, body: Row) -> Row:
        ticket = self.market.create(body)
        return {"orderId": ticket.id, "orderLinkId": ticket.link}

    def _cancel(self, body: Row) -> Row:
        ticket = self.market.cancel(body)
        return {"orderId": ticket.id, "orderLinkId": ticket.link}

    def _cancel_all(self, body: Row) -> Row:
        done = []
        for ticket in [ticket for ticket in self.market.orders.values() if ticket.open]:
            if ticket.product.category == body["category"] and body.get("symbol", ticket.product.id) == ticket.product.id:
                filtered = {"orderFilter": "StopOrder"} if ticket.status == "Untriggered" else {}
                self.market.cancel({"category": body["category"], "orderId": ticket.id, **filtered})
                done.append({"orderId": ticket.id, "orderLinkId": ticket.link})
        return {"list": done, "success": "1"}

    def _leverage(self, body: Row) -> Row:
        holding = self.market.holdings[body["category"], body["symbol"]]
        wanted = Decimal(body["buyLeverage"])
        if wanted == holding.leverage:
            raise Denied(110043, "leverage not modified")
        if not 1 <= wanted <= self.market.products[body["category"], body["symbol"]].leverage_max:
            raise Denied(110013, "cannot set leverage due to risk limit")
        holding.leverage = wanted
        return {}

    def _orders(self, asked: Row, *, live: bool) -> Row:
        if asked.get("category") == "linear" and live and not (asked.keys() & {"symbol", "settleCoin", "baseCoin"}):
            raise Denied(10001, "Missing some parameters that must be filled in, symbol or settleCoin or baseCoin")
        found = []
        for ticket in self.market.orders.values():
            row = ticket.row()
            named = all(row[name] == asked[name] for name in ("orderId", "orderLinkId", "symbol") if name in asked)
            told = live or ticket.updated <= self.told_by()
            if named and told and ticket.product.category == asked.get("category") and ticket.open == live and _filtered(row, asked):
                found.append(row)
        return _page(found[::-1], asked)

    def _realtime(self, asked: Row) -> Row:
        return self._orders(asked, live=True)

    def _history(self, asked: Row) -> Row:
        return self._orders(asked, live=False)

    def _executions(self, asked: Row) -> Row:
        start = int(asked.get("startTime", 0))
        end = int(asked.get("endTime", start + 7 * 86_400_000 if start else 1 << 60))
        if end - start > 7 * 86_400_000 and start:
            raise Denied(10001, "The time range between startTime and endTime cannot exceed 7 days")
        found = [row for row in self.market.executions if start <= int(row["execTime"]) <= min(end, self.told_by()) and all(
            row[name] == asked[name] for name in ("category", "symbol", "orderId", "orderLinkId", "execType") if name in asked)]
        return _page(found[::-1], asked)

    def _positions(self, asked: Row) -> Row:
        options = asked.get("category") == "option"
        keys = [key for key in self.market.holdings if asked.get("symbol", key[1]) == key[1] and (key[0] == "option") == options]
        return _page([self.market.position(key) for key in keys if "symbol" in asked or self.market.holdings[key].size], asked)

    def _log(self, asked: Row) -> Row:
        now, day = self.now(), 86_400_000
        start = int(asked.get("startTime", int(asked.get("endTime", now)) - day))
        end = int(asked.get("endTime", start + day))  # with one end named, or none, it is a day
        if end - start > 7 * day:
            raise Denied(10001, "The time range between startTime and endTime cannot exceed 7 days")
        wanted = asked.get("type")
        category = asked.get("category")
        found = [row for row in self.market.log if start <= int(row["transactionTime"]) <= end and wanted in (None, row["type"]) and
                 category in (None, row["category"])]
        return _page(found[::-1], asked)

    # -- websockets -------------------------------------------------------------------------------------------------------

    def opened(self, request: web.Request, topics: set[str]) -> Row:
        return {"trusted": "/public/" in request.path}

    def hear(self, session: Row, path: str, asked: Row, topics: set[str], queue: asyncio.Queue[str | None]) -> None:
        told = {"success": True, "ret_msg": "", "op": asked["op"], "conn_id": "1", "req_id": asked.get("req_id", "")}
        if asked["op"] == "ping":
            told["ret_msg"] = "pong"
        elif asked["op"] == "auth":
            told["success"] = session["trusted"] = self._trusts(asked["args"])
        elif asked["op"] == "subscribe" and session["trusted"]:
            topics.update(asked["args"])
            queue.put_nowait(json.dumps(told))
            self._snapshots(path, asked["args"], queue)
            return
        else:
            told |= {"success": False, "ret_msg": "Request not authorized"}
        queue.put_nowait(json.dumps(told))

    def _trusts(self, args: list[Any]) -> bool:
        key, expires, signature = map(str, args)
        wanted = hmac.new(SECRET.encode(), f"GET/realtime{expires}".encode(), hashlib.sha256).hexdigest()
        return key == KEY and hmac.compare_digest(wanted, signature) and int(expires) + LOGIN_MS * (self.pace - 1.0) > self.now()

    def _snapshots(self, path: str, topics: list[str], queue: asyncio.Queue[str | None]) -> None:
        category = path.rsplit("/", 1)[-1]
        for topic in topics:
            key = category, topic.rsplit(".", 1)[-1]
            if key in self.market.products and topic.startswith("tickers."):
                queue.put_nowait(self._message(topic, [self.market.streamed_ticker(key)]))
            elif key in self.market.products and topic.startswith("orderbook.1."):
                queue.put_nowait(self._message(topic, [self.market.best(key)]))
            elif key in self.market.candles and topic.startswith("kline."):
                queue.put_nowait(self._message(topic, [self.market.kline(key, self.market.candles[key][-1], False)]))

    def _message(self, topic: str, rows: list[Row]) -> str:
        told: Row = {"topic": topic, "ts": self.now(), "creationTime": self.now(), "id": "1", "type": "snapshot"}
        return json.dumps(told | {"data": rows[0] if topic.startswith(("tickers.", "orderbook.")) else rows})

    def _emit(self, topic: str, rows: list[Row]) -> None:
        category = rows[0].get("category", "")
        for path, topics, queue in self._sockets.values():
            if topic in topics and path.endswith(("/private", f"/{category}")):
                queue.put_nowait(self._message(topic, rows))


def _longer(candles: list[list[Any]], interval: str) -> list[list[Any]]:
    """One-minute candles as candles of `interval` (minutes, or "D")."""
    length = MINUTE_MS * (1_440 if interval == "D" else int(interval))
    found: dict[int, list[Any]] = {}
    for at, opened, high, low, close, volume in candles:
        held = found.get(start := at // length * length)
        found[start] = [start, opened, high, low, close, volume] if held is None else [
            start, held[1], max(held[2], high), min(held[3], low), close, held[5] + volume]
    return list(found.values())


def _filtered(row: Row, asked: Row) -> bool:
    conditional = row["stopOrderType"] == "Stop" and row["orderStatus"] == "Untriggered"
    wanted = asked.get("orderFilter")
    return wanted is None or (wanted == "StopOrder") == conditional


def _page(rows: list[Row], asked: Row, usual: int = PAGE) -> Row:
    first, size = int(asked.get("cursor") or 0), int(asked.get("limit", usual))
    more = str(first + size) if first + size < len(rows) else ""
    return {"category": asked.get("category", ""), "list": rows[first:first + size], "nextPageCursor": more}


@asynccontextmanager
async def serving(port: int = 0) -> AsyncIterator[BybitEmulator]:
    """A venue on the loopback interface; port 0 = a free one."""
    venue = BybitEmulator()
    async with listening(venue, ("/v5/public/{category}", "/v5/private"), port):
        yield venue


async def run(port: int, seed: int) -> None:
    """Serve on the wall clock for ever: prices walk four times a second, bars close every minute, funding is paid every eight hours."""
    async with serving(port) as venue:
        market, minute = venue.market, venue.now() // MINUTE_MS
        print(f"bybit on {venue.url} key {KEY} secret {SECRET}", flush=True)
        market.options.roll()
        while True:
            await asyncio.sleep(0.25)
            seed += 1
            if minute != venue.now() // MINUTE_MS:
                market.options.roll()
            closed, minute = minute != venue.now() // MINUTE_MS, venue.now() // MINUTE_MS
            for category, name in [key for key in market.products if key[0] != "option"]:
                if closed:
                    market.close_bar(category, name)
                if closed and category == "linear" and minute % (8 * 60) == 0:
                    market.fund(name, "0.0001")
                market.walk(category, name, 1, seed)
