"""Binance spot and USD-M on loopback: REST (signatures checked), user data streams and public websockets over binance_market.py.

One root for all of it: /api/v3, /fapi, /sapi as in production; websockets under /stream (spot), /fstream (USD-M) and /ws-api, because on
one host ccxt must tell spot and futures apart by the path. Faults as in frame.py.
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
from urllib.parse import parse_qsl

from aiohttp import web

from tests.emulators.binance_market import ROWS, SPOT_TYPES, BinanceMarket
from tests.emulators.bybit_market import MINUTE_MS, ZERO, Denied, Key, Product, Row, Ticket
from tests.emulators.frame import Fault, Frame, Reply, listening

__all__ = ["KEY", "SECRET", "BinanceEmulator", "Fault", "Reply", "coded", "serving"]

KEY, SECRET = "emulator-key-b1NaNc3", "emulator-secret-q8Vt5Yd"
WINDOW_MS = 5_000
INCOME_MAX = 1_000
TRADES_MAX = 1_000
DAY_MS = 86_400_000
LINEAR_TYPES = ("LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET")


def coded(code: int, message: str = "emulated", status: int = 400) -> Reply:
    """A refusal in Binance's own words."""
    return Reply(status, json.dumps({"code": code, "msg": message}).encode())


class BinanceEmulator(Frame):
    """`market` is its truth. `rights` are the key's; `hedged` and `joint` are account modes our adapter refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.market = BinanceMarket(self.now, self._emit)
        self.rights: Row = {
            "ipRestrict": True, "createTime": 1_623_840_271_000, "enableReading": True, "enableSpotAndMarginTrading": True,
            "enableWithdrawals": False, "enableInternalTransfer": False, "enableMargin": False, "enableFutures": True,
            "permitsUniversalTransfer": False, "enableVanillaOptions": False, "enableFixApiTrade": False, "enableFixReadOnly": True,
            "enablePortfolioMarginTrading": False}
        self.hedged = self.joint = False
        self.funding: dict[str, list[tuple[int, str]]] = {}
        """Past settlements per linear symbol: UTC ms and rate; without any, there was one just now."""
        self.listen_keys: set[str] = set()
        spot: dict[str, Callable[[Row], Any]] = {
            "GET account": self._account, "POST order": self._place, "GET order": self._order("spot"), "DELETE order": self._drop("spot"),
            "GET openOrders": self._open("spot"), "DELETE openOrders": self._drop_all, "GET allOrders": self._all("spot"),
            "GET myTrades": self._trades("spot")}
        linear: dict[str, Callable[[Row], Any]] = {
            "POST v1/order": self._place_linear, "GET v1/order": self._order("linear"), "DELETE v1/order": self._drop("linear"),
            "GET v1/openOrders": self._open("linear"), "GET v1/allOrders": self._all("linear"), "GET v1/userTrades": self._trades("linear"),
            "DELETE v1/allOpenOrders": self._drop_all_linear, "POST v1/algoOrder": lambda body: self.market.place_algo(body).row(),
            "GET v1/algoOrder": self._algo, "DELETE v1/algoOrder": self._drop_algo, "GET v1/openAlgoOrders": self._algos(open_only=True),
            "GET v1/allAlgoOrders": self._algos(open_only=False), "POST v1/leverage": self._leverage, "POST v1/marginType": self._margin,
            "GET v1/positionSide/dual": lambda _: {"dualSidePosition": self.hedged},
            "GET v1/multiAssetsMargin": lambda _: {"multiAssetsMargin": self.joint}, "GET v1/income": self._income,
            "GET v1/leverageBracket": self._brackets, "GET v2/account": self._linear_account, "GET v3/account": self._linear_account,
            "GET v2/balance": self._balance, "GET v3/balance": self._balance, "GET v2/positionRisk": self._positions,
            "GET v3/positionRisk": self._positions}
        assets: dict[str, Callable[[Row], Any]] = {
            "GET account/apiRestrictions": lambda _: self.rights, "GET asset/transfer": self._moves,
            "GET capital/deposit/hisrec": lambda asked: self._dated(self.market.deposits, asked, "insertTime"),
            "GET capital/withdraw/history": lambda _: self.market.withdrawals[::-1]}
        public: dict[str, Callable[[Row], Any]] = {
            "GET /fapi/v1/fundingRate": self._rates, "GET /fapi/v1/markPriceKlines": self._klines("linear"),
            "GET /fapi/v1/fundingInfo": lambda _: [{"symbol": "ETHUSDT", "adjustedFundingRateCap": "0.02", "fundingIntervalHours": 4}],
            "GET /fapi/v1/premiumIndex": self._premium}
        for root, category in (("/api/v3", "spot"), ("/fapi/v1", "linear")):
            public |= {f"GET {root}/ping": lambda _: {}, f"GET {root}/time": lambda _: {"serverTime": self.now()},
                       f"GET {root}/exchangeInfo": self._listing(category), f"GET {root}/klines": self._klines(category),
                       f"GET {root}/ticker/24hr": self._day(category), f"GET {root}/ticker/bookTicker": self._best(category),
                       f"GET {root}/depth": self._depth(category)}
        self._public = public
        self._private = {f"{name.replace(' ', ' /api/v3/')}": handler for name, handler in spot.items()}
        self._private |= {f"{name.replace(' ', ' /fapi/')}": handler for name, handler in linear.items()}
        self._private |= {f"{name.replace(' ', ' /sapi/v1/')}": handler for name, handler in assets.items()}

    # -- REST -------------------------------------------------------------------------------------------------------------

    def answer(self, request: web.Request, raw: bytes) -> tuple[int, Any, dict[str, str]]:
        name, weight = f"{request.method} {request.path}", {"X-MBX-USED-WEIGHT-1M": "10"}
        try:
            if request.path == "/fapi/v1/listenKey":
                return 200, self._listen_key(request), weight
            if name in self._public:
                return 200, self._public[name](dict(request.query)), weight
            if name not in self._private:
                return 404, {"code": -1000, "msg": "no such path"}, weight
            asked = self._authenticate(request, raw.decode())
            if request.method != "GET":
                self.bodies.append((request.path, asked))
            return 200, self._private[name](asked), weight
        except Denied as denied:
            return 401 if denied.code in (-2014, -2015) else 400, {"code": denied.code, "msg": denied.message}, weight

    def _authenticate(self, request: web.Request, body: str) -> Row:
        """What is asked, once the signature over query and body is right."""
        if request.headers.get("X-MBX-APIKEY") != KEY:
            raise Denied(-2015, "Invalid API-key, IP, or permissions for action.")
        query, _, signed = request.rel_url.raw_query_string.partition("&signature=")
        form, _, signed_form = body.partition("&signature=")
        wanted = hmac.new(SECRET.encode(), (query + form).encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(wanted, signed or signed_form):
            raise Denied(-1022, "Signature for this request is not valid.")
        asked = dict(parse_qsl(query)) | dict(parse_qsl(form))
        self._timely(int(asked.get("timestamp", 0)), int(asked.get("recvWindow", WINDOW_MS)))
        return asked

    def _timely(self, sent: int, window: int) -> None:
        if not self.now() - window * self.pace <= sent < self.now() + 1_000 * self.pace:
            raise Denied(-1021, "Timestamp for this request is outside of the recvWindow.")

    def _listen_key(self, request: web.Request) -> Row:
        if request.headers.get("X-MBX-APIKEY") != KEY:
            raise Denied(-2015, "Invalid API-key, IP, or permissions for action.")
        if request.method == "POST" and not self.listen_keys:
            self.listen_keys.add(hashlib.sha256(str(self.asked.total()).encode()).hexdigest())
        if not self.listen_keys:
            raise Denied(-1125, "This listenKey does not exist.")
        return {"listenKey": next(iter(self.listen_keys))}

    # -- orders -----------------------------------------------------------------------------------------------------------

    def _place(self, body: Row) -> Row:
        before = len(self.market.trades["spot"])
        ticket = self.market.place("spot", body)
        trades = self.market.trades["spot"][before:]
        fills = [{"price": row["price"], "qty": row["qty"], "commission": row["commission"], "commissionAsset": row["commissionAsset"],
                  "tradeId": row["id"]} for row in trades]
        brief = {"symbol": ticket.product.id, "orderId": int(ticket.id), "orderListId": -1, "clientOrderId": ticket.link,
                 "transactTime": self.now()}
        return brief if ticket.trigger is not None else ROWS["spot"](ticket) | brief | {"fills": fills}

    def _place_linear(self, body: Row) -> Row:
        return ROWS["linear"](self.market.place("linear", body))

    def _order(self, category: str) -> Callable[[Row], Row]:
        def order(asked: Row) -> Row:
            ticket = self.market.found(category, asked)
            if not ticket.open and ticket.updated > self.told_by():
                raise Denied(-2013, "Order does not exist.")
            return ROWS[category](ticket)

        return order

    def _drop(self, category: str) -> Callable[[Row], Row]:
        def drop(asked: Row) -> Row:
            ticket = self.market.drop(category, asked)
            row = ROWS[category](ticket)
            return row if category == "linear" else row | {"origClientOrderId": ticket.link, "clientOrderId": f"cancel{ticket.id}"}

        return drop

    def _select(self, category: str, asked: Row, *, open_only: bool) -> list[Row]:
        tickets: list[Ticket] = [ticket for ticket in self.market.orders.values() if ticket.product.category == category]
        return [ROWS[category](ticket) for ticket in tickets
                if asked.get("symbol", ticket.product.id) == ticket.product.id and (ticket.open or not open_only)]

    def _open(self, category: str) -> Callable[[Row], list[Row]]:
        return lambda asked: self._select(category, asked, open_only=True)

    def _all(self, category: str) -> Callable[[Row], list[Row]]:
        return lambda asked: self._select(category, asked, open_only=False)[-int(asked.get("limit", 500)):]

    def _drop_all(self, asked: Row) -> list[Row]:
        dropped = [self._drop("spot")({"symbol": row["symbol"], "orderId": row["orderId"]})
                   for row in self._select("spot", asked, open_only=True)]
        if not dropped:
            raise Denied(-2011, "Unknown order sent.")
        return dropped

    def _drop_all_linear(self, asked: Row) -> Row:
        for row in self._select("linear", asked, open_only=True):
            self.market.drop("linear", {"symbol": row["symbol"], "orderId": row["orderId"]})
        return {"code": 200, "msg": "The operation of cancel all open order is done."}

    def _algo(self, asked: Row) -> Row:
        for algo in reversed(self.market.algos.values()):
            named = algo.link == asked.get("clientAlgoId") or algo.id == asked.get("algoId")
            if named and (self.market.tells_ended_algos or algo.status == "NEW"):
                return algo.row()
        raise Denied(-2013, "Order does not exist.")

    def _drop_algo(self, asked: Row) -> Row:
        algo = self.market.drop_algo(asked)
        return {"algoId": int(algo.id), "clientAlgoId": algo.link, "code": "200", "msg": "success"}

    def _algos(self, *, open_only: bool) -> Callable[[Row], list[Row]]:
        return lambda asked: [algo.row() for algo in self.market.algos.values() if asked.get("symbol", algo.product.id) == algo.product.id
                              and (algo.status == "NEW" or not open_only)]

    # -- the account ------------------------------------------------------------------------------------------------------

    def _account(self, _: Row) -> Row:
        held = self.market.purses["spot"]
        rows = [{"asset": coin, "free": str(amount - self.market.locked(coin)), "locked": str(self.market.locked(coin))}
                for coin, amount in held.items()]
        return {"makerCommission": 10, "takerCommission": 10, "buyerCommission": 0, "sellerCommission": 0, "canTrade": True,
                "canWithdraw": True, "canDeposit": True, "brokered": False, "requireSelfTradePrevention": False, "preventSor": False,
                "updateTime": self.now(), "accountType": "SPOT", "balances": rows, "permissions": ["SPOT"], "uid": 1}

    def _balance(self, _: Row) -> list[Row]:
        return [{"accountAlias": "SgsR", "asset": coin, "balance": str(amount), "crossWalletBalance": str(amount), "crossUnPnl": "0",
                 "availableBalance": str(amount), "maxWithdrawAmount": str(amount), "marginAvailable": True, "updateTime": self.now()}
                for coin, amount in self.market.purses["linear"].items()]

    def _linear_account(self, _: Row) -> Row:
        assets = [{"asset": coin, "walletBalance": str(amount), "unrealizedProfit": "0", "marginBalance": str(amount), "maintMargin": "0",
                   "initialMargin": "0", "positionInitialMargin": "0", "openOrderInitialMargin": "0", "crossWalletBalance": str(amount),
                   "crossUnPnl": "0", "availableBalance": str(amount), "maxWithdrawAmount": str(amount), "updateTime": self.now()}
                  for coin, amount in self.market.purses["linear"].items()]
        total = str(self.market.purses["linear"].get("USDT", ZERO))
        return {"totalInitialMargin": "0", "totalMaintMargin": "0", "totalWalletBalance": total, "totalUnrealizedProfit": "0",
                "totalMarginBalance": total, "availableBalance": total, "maxWithdrawAmount": total, "assets": assets,
                "positions": [], "canTrade": True}

    def _positions(self, asked: Row) -> list[Row]:
        rows = []
        for key, holding in self.market.holdings.items():
            if holding.size and asked.get("symbol", key[1]) == key[1]:
                told, mark = self.market.held(key), str(self.market.price[key])
                rows.append({"symbol": key[1], "positionSide": "BOTH", "positionAmt": told["pa"], "entryPrice": told["ep"],
                             "breakEvenPrice": told["ep"], "markPrice": mark, "unRealizedProfit": "0", "liquidationPrice": "0",
                             "isolatedMargin": "0", "notional": str(holding.size * self.market.price[key]), "marginAsset": "USDT",
                             "isolatedWallet": "0", "initialMargin": "0", "maintMargin": "0", "positionInitialMargin": "0",
                             "openOrderInitialMargin": "0", "adl": 1, "bidNotional": "0", "askNotional": "0", "updateTime": self.now()})
        return rows

    def _trades(self, category: str) -> Callable[[Row], list[Row]]:
        def trades(asked: Row) -> list[Row]:
            rows = [row for row in self.market.trades[category] if row["symbol"] == asked.get("symbol") and row["time"] <= self.told_by()]
            if "symbol" not in asked:
                raise Denied(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
            if "orderId" in asked:
                rows = [row for row in rows if row["orderId"] == int(asked["orderId"])]
            if "startTime" in asked:
                start = int(asked["startTime"])
                span = DAY_MS if category == "spot" else 7 * DAY_MS
                end = int(asked.get("endTime", start + span))
                if end - start > span:
                    raise Denied(-1127, "More than 24 hours between startTime and endTime." if category == "spot" else "7 days")
                return [row for row in rows if start <= row["time"] <= end][:int(asked.get("limit", 500))]
            return rows[-min(int(asked.get("limit", 500)), TRADES_MAX):]

        return trades

    def _income(self, asked: Row) -> list[Row]:
        rows = [row for row in self._dated(self.market.income, asked, "time") if row["time"] <= self.told_by()]
        return [row for row in rows if row["incomeType"] == asked.get("incomeType", row["incomeType"])][:int(asked.get("limit", 100))]

    def _moves(self, asked: Row) -> Row:
        rows = [row for row in self._dated(self.market.moves, asked, "timestamp") if row["type"] == asked["type"]]
        return {"total": len(rows), "rows": rows}

    def _dated(self, rows: list[Row], asked: Row, column: str) -> list[Row]:
        return [row for row in rows if int(asked.get("startTime", 0)) <= row[column] <= int(asked.get("endTime", 1 << 60))]

    def _leverage(self, body: Row) -> Row:
        key = "linear", body["symbol"]
        wanted = Decimal(body["leverage"])
        if wanted % 1 or not 1 <= wanted <= self.market.products[key].leverage_max:
            raise Denied(-4028, f"Leverage {wanted} is not valid")
        self.market.holdings[key].leverage = wanted
        return {"leverage": int(wanted), "maxNotionalValue": "1000000", "symbol": key[1]}

    def _margin(self, body: Row) -> Row:
        name = body["symbol"]
        if self.market.margin.get(name, "CROSSED") == body["marginType"]:
            raise Denied(-4046, "No need to change margin type.")
        if self.market.holdings["linear", name].size:
            raise Denied(-4048, "Margin type cannot be changed if there exists position.")
        self.market.margin[name] = body["marginType"]
        return {"code": 200, "msg": "success"}

    def _brackets(self, _: Row) -> list[Row]:
        return [{"symbol": key[1], "notionalCoef": 1.5, "brackets": [
            {"bracket": 1, "initialLeverage": int(self.market.products[key].leverage_max), "notionalCap": 50_000, "notionalFloor": 0,
             "maintMarginRatio": 0.004, "cum": 0.0}]} for key in self.market.holdings]

    # -- public -----------------------------------------------------------------------------------------------------------

    def _keys(self, category: str, asked: Row) -> list[Key]:
        return [key for key in self.market.products if key[0] == category and asked.get("symbol", key[1]) == key[1]]

    def _listing(self, category: str) -> Callable[[Row], Row]:
        return lambda _: {"timezone": "UTC", "serverTime": self.now(), "rateLimits": [], "exchangeFilters": [],
                          "symbols": [_listed(self.market.products[key]) for key in self._keys(category, {})]}

    def _klines(self, category: str) -> Callable[[Row], list[Any]]:
        def klines(asked: Row) -> list[Any]:
            candles = self.market.candles.get((category, asked["symbol"]))
            if candles is None:
                raise Denied(-1121, "Invalid symbol.")
            start, end = int(asked.get("startTime", 0)), int(asked.get("endTime", 1 << 60))
            found = [candle for candle in candles if start <= candle[0] <= end]
            limit = int(asked.get("limit", 500))
            return [[at, *map(str, rest), at + MINUTE_MS - 1, str(rest[4] * rest[3]), 10, "1", "1", "0"]
                    for at, *rest in (found[:limit] if "startTime" in asked else found[-limit:])]

        return klines

    def _rates(self, asked: Row) -> list[Row]:
        past = self.funding.get(asked["symbol"], [(self.now(), "0.00013700")])
        start, end = int(asked.get("startTime", 0)), int(asked.get("endTime", 1 << 60))
        return [{"symbol": asked["symbol"], "fundingTime": at, "fundingRate": rate, "markPrice": "50000"}
                for at, rate in past if start <= at <= end][:int(asked.get("limit", 100))]

    def _day(self, category: str) -> Callable[[Row], Any]:
        def day(asked: Row) -> Any:
            rows = []
            for key in self._keys(category, asked):
                price = str(self.market.price[key])
                row: Row = {"symbol": key[1], "priceChange": "0", "priceChangePercent": "0", "weightedAvgPrice": price, "lastPrice": price,
                            "lastQty": "1", "openPrice": price, "highPrice": price, "lowPrice": price, "volume": "1000",
                            "quoteVolume": "50000000", "openTime": self.now() - DAY_MS, "closeTime": self.now(), "firstId": 1, "lastId": 2,
                            "count": 2}
                extra = {"prevClosePrice": price, "bidPrice": str(self.market.bid(key)), "bidQty": "3",
                         "askPrice": str(self.market.ask(key)), "askQty": "3"}
                rows.append(row | extra if category == "spot" else row)
            return rows[0] if "symbol" in asked and rows else rows

        return day

    def _best(self, category: str) -> Callable[[Row], Any]:
        def best(asked: Row) -> Any:
            rows = [{"symbol": key[1], "bidPrice": str(self.market.bid(key)), "bidQty": "3", "askPrice": str(self.market.ask(key)),
                     "askQty": "3", "time": self.now()} for key in self._keys(category, asked)]
            return rows[0] if "symbol" in asked and rows else rows

        return best

    def _depth(self, category: str) -> Callable[[Row], Row]:
        return lambda asked: {"lastUpdateId": self.now(), "bids": [[str(self.market.bid((category, asked["symbol"]))), "3"]],
                              "asks": [[str(self.market.ask((category, asked["symbol"]))), "3"]]}

    def _premium(self, asked: Row) -> Any:
        rows = []
        for key in self._keys("linear", asked):
            told = self.market.marked(key)
            rows.append({"symbol": key[1], "markPrice": told["p"], "indexPrice": told["i"], "lastFundingRate": told["r"],
                         "nextFundingTime": told["T"], "interestRate": "0.0001", "time": self.now()})
        return rows[0] if "symbol" in asked and rows else rows

    # -- websockets -------------------------------------------------------------------------------------------------------

    def opened(self, request: web.Request, topics: set[str]) -> Row:
        if "/private/" in request.path and request.query.get("listenKey", "") in self.listen_keys:
            topics.add("user:linear")
        return {}

    def hear(self, session: Row, path: str, asked: Row, topics: set[str], queue: asyncio.Queue[str | None]) -> None:
        if path.startswith("/ws-api"):
            queue.put_nowait(json.dumps({"id": asked["id"]} | self._subscribed(asked, topics)))
            return
        category = "spot" if path.startswith("/stream") else "linear"
        queue.put_nowait(json.dumps({"result": None, "id": asked["id"]}))
        for stream in asked.get("params", ()) if asked.get("method") == "SUBSCRIBE" else ():
            topics.add(f"{category}|{stream}")
            key = category, stream.split("@", 1)[0].upper()
            if key not in self.market.products:
                continue
            if "@kline" in stream:
                self.market._tell_bar(key, self.market.candles[key][-1], final=False)
            else:
                queue.put_nowait(json.dumps(self.market.marked(key) if "@markPrice" in stream else self.market.best(key)))

    def _subscribed(self, asked: Row, topics: set[str]) -> Row:
        """The answer to a signed subscription of the spot account's events."""
        told = dict(asked.get("params", {}))
        signature = str(told.pop("signature", ""))
        payload = "&".join(f"{name}={told[name]}" for name in sorted(told))
        wanted = hmac.new(SECRET.encode(), payload.encode(), hashlib.sha256).hexdigest()
        try:
            if asked.get("method") != "userDataStream.subscribe.signature":
                raise Denied(-1000, "Unknown method.")
            if told.get("apiKey") != KEY or not hmac.compare_digest(wanted, signature):
                raise Denied(-1022, "Signature for this request is not valid.")
            self._timely(int(told["timestamp"]), int(told.get("recvWindow", WINDOW_MS)))
        except Denied as denied:
            return {"status": 400, "error": {"code": denied.code, "msg": denied.message}}
        topics.add("user:spot")
        return {"status": 200, "result": {"subscriptionId": 0}}

    def _emit(self, topic: str, rows: list[Row]) -> None:
        for _, topics, queue in self._sockets.values():
            if topic in topics:
                for row in rows:
                    queue.put_nowait(json.dumps({"subscriptionId": 0, "event": row} if topic == "user:spot" else row))

    def forget_listen_key(self) -> None:
        """It ran out: who listens with it hears nothing more."""
        self.listen_keys.clear()
        for _, topics, _ in self._sockets.values():
            topics.discard("user:linear")


def _listed(product: Product) -> Row:
    tick, lot, spot = str(product.tick), str(product.lot), product.category == "spot"
    notional: Row = {"filterType": "NOTIONAL", "minNotional": str(product.notional_min), "applyMinToMarket": True, "maxNotional": "9000000",
                     "applyMaxToMarket": False, "avgPriceMins": 5}
    least = notional if spot else {"filterType": "MIN_NOTIONAL", "notional": str(product.notional_min)}
    row: Row = {"symbol": product.id, "status": "TRADING", "baseAsset": product.base, "quoteAsset": product.quote,
                "orderTypes": list(SPOT_TYPES if spot else LINEAR_TYPES), "filters": [
                    {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000", "tickSize": tick},
                    {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "9000", "stepSize": lot},
                    {"filterType": "MARKET_LOT_SIZE", "minQty": "0.00000000" if spot else lot, "maxQty": "120",
                     "stepSize": "0.00000000" if spot else lot}, least]}
    if spot:
        return row | {"baseAssetPrecision": 8, "quotePrecision": 8, "quoteAssetPrecision": 8, "baseCommissionPrecision": 8,
                      "quoteCommissionPrecision": 8, "icebergAllowed": True, "ocoAllowed": True, "isSpotTradingAllowed": True,
                      "isMarginTradingAllowed": False, "permissions": [], "permissionSets": [["SPOT"]]}
    return row | {"pair": product.id, "contractType": "PERPETUAL", "deliveryDate": 4_133_404_800_000, "onboardDate": 1_569_398_400_000,
                  "maintMarginPercent": "2.5000", "requiredMarginPercent": "5.0000", "marginAsset": "USDT", "pricePrecision": 2,
                  "quantityPrecision": 3, "baseAssetPrecision": 8, "quotePrecision": 8, "underlyingType": "COIN",
                  "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"]}


SOCKETS = ("/stream/ws/{tail:.*}", "/fstream/{kind}/ws", "/fstream/{kind}/ws/{tail:.*}", "/ws-api/v3")


@asynccontextmanager
async def serving(port: int = 0) -> AsyncIterator[BinanceEmulator]:
    """A venue on the loopback interface; port 0 = a free one."""
    venue = BinanceEmulator()
    async with listening(venue, SOCKETS, port):
        yield venue


async def run(port: int, seed: int) -> None:
    """Serve on the wall clock for ever: prices walk four times a second, bars close every minute, funding is paid every eight hours."""
    async with serving(port) as venue:
        market, minute = venue.market, venue.now() // MINUTE_MS
        print(f"binance on {venue.url} key {KEY} secret {SECRET}", flush=True)
        while True:
            await asyncio.sleep(0.25)
            seed += 1
            closed, minute = minute != venue.now() // MINUTE_MS, venue.now() // MINUTE_MS
            for category, name in market.products:
                if closed:
                    market.close_bar(category, name)
                if closed and category == "linear" and minute % (8 * 60) == 0:
                    market.fund(name, "0.0001")
                market.walk(category, name, 1, seed)
