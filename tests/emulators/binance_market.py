"""The matching of bybit_market.py under Binance's rules: two wallets, client ids unique among open orders only, stops of USD-M that are no
orders until they go off, fees in BNB, an income history. Its wallets are the tests' oracle.

A resting stop on spot locks its coins. Wire rows are made here, in Binance's words; the wire itself is binance.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, ClassVar

from tests.emulators.bybit_market import (
    PRODUCTS,
    UNIT,
    ZERO,
    Denied,
    Execution,
    Key,
    Market,
    Product,
    Row,
    Ticket,
)

BNB = Product("spot", "BNBUSDT", "BNB", "USDT", *map(Decimal, ("0.01", "0.001", "5", "0.001", "0.001", "600")))
BNB_DISCOUNT = {"spot": Decimal("0.75"), "linear": Decimal("0.9")}
WORDS = {"New": "NEW", "Untriggered": "NEW", "Triggered": "NEW", "PartiallyFilled": "PARTIALLY_FILLED", "Filled": "FILLED",
         "Cancelled": "CANCELED", "Rejected": "EXPIRED"}
SPOT_TYPES = ("LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT")


@dataclass
class Algo:
    """A conditional order of USD-M: no order of the engine until its price is passed."""

    id: str
    link: str
    product: Product
    buy: bool
    quantity: Decimal
    trigger: Decimal
    rising: bool
    reduce: bool
    created: int
    close: bool = False
    """Closes whatever is held when it goes off; its quantity is 0 until then."""
    status: str = "NEW"
    actual: str = ""
    """The order it became."""
    updated: int = 0

    def row(self) -> Row:
        return {"algoId": int(self.id), "clientAlgoId": self.link, "algoType": "CONDITIONAL", "orderType": "STOP_MARKET",
                "symbol": self.product.id, "side": "BUY" if self.buy else "SELL", "positionSide": "BOTH", "timeInForce": "GTC",
                "quantity": str(self.quantity), "algoStatus": self.status, "actualOrderId": self.actual, "actualPrice": "0.00000",
                "triggerPrice": str(self.trigger), "price": "0.00", "icebergQuantity": None, "selfTradePreventionMode": "EXPIRE_MAKER",
                "workingType": "CONTRACT_PRICE", "priceMatch": "NONE", "closePosition": self.close, "priceProtect": False,
                "reduceOnly": self.reduce, "createTime": self.created, "updateTime": self.updated or self.created, "triggerTime": 0,
                "goodTillDate": 0}


@dataclass
class BinanceMarket(Market):
    """`emit(stream, [message])`: "user:spot", "user:linear", or "spot|btcusdt@bookTicker" and the like."""

    denials: ClassVar[dict[str, tuple[int, str]]] = {
        "spot funds": (-2010, "Account has insufficient balance for requested action."), "funds": (-2019, "Margin is insufficient."),
        "reduce": (-2022, "ReduceOnly Order is rejected.")}
    products: dict[Key, Product] = field(default_factory=lambda: {(p.category, p.id): p for p in (*PRODUCTS, BNB)})
    purses: dict[str, dict[str, Decimal]] = field(default_factory=lambda: {
        "spot": {"USDT": Decimal("10000")}, "linear": {"USDT": Decimal("10000")}})
    bnb_fees: bool = False
    names_algo_orders: bool = False
    """Whether the order a conditional one becomes carries its client id, or one of the venue's own."""
    tells_ended_algos: bool = True
    """Whether a conditional order that ended is still told by its own question, or by the list of all only."""
    algos: dict[str, Algo] = field(default_factory=dict)
    trades: dict[str, list[Row]] = field(default_factory=lambda: {"spot": [], "linear": []})
    income: list[Row] = field(default_factory=list)
    deposits: list[Row] = field(default_factory=list)
    withdrawals: list[Row] = field(default_factory=list)
    moves: list[Row] = field(default_factory=list)
    """Between the two wallets."""
    margin: dict[str, str] = field(default_factory=dict)
    """Margin type by market, CROSSED unless set."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for holding in self.holdings.values():
            holding.leverage = Decimal(20)

    def purse(self, category: str) -> dict[str, Decimal]:
        return self.purses[category]

    def _id(self) -> str:
        self._next += 1
        return str(self._next)

    def locked(self, coin: str, but: Ticket | None = None) -> Decimal:
        resting = [t for t in self.orders.values() if t is not but and t.status == "Untriggered" and t.product.category == "spot"]
        return super().locked(coin, but) + sum((t.remaining for t in resting if not t.buy and t.product.base == coin), ZERO) + sum(
            (t.remaining * (t.trigger or ZERO) for t in resting if t.buy and t.product.quote == coin), ZERO)

    # -- orders -----------------------------------------------------------------------------------------------------------

    def _asked(self, category: str, body: Row, named: str) -> tuple[Product, str, bool, Decimal, Decimal]:
        product = self.products.get((category, str(body.get("symbol"))))
        if product is None:
            raise Denied(-1121, "Invalid symbol.")
        link = str(body.get(named) or f"web_{self._id()}")
        if body.get("side") not in ("BUY", "SELL"):
            raise Denied(-1102, "Mandatory parameter 'side' was not sent, was empty/null, or malformed.")
        quantity = Decimal(body.get("quantity") or "0")
        price = Decimal(body["price"]) if body.get("price") else self.price[category, product.id]
        if quantity <= 0 or quantity % product.lot:
            raise Denied(-1013, "Filter failure: LOT_SIZE") if category == "spot" else Denied(
                -1111, "Precision is over the maximum defined for this asset.")
        if price % product.tick:
            raise Denied(-1013, "Filter failure: PRICE_FILTER") if category == "spot" else Denied(
                -4014, "Price not increased by tick size.")
        if body.get("reduceOnly") not in ("true", True) and quantity * price < product.notional_min:
            raise Denied(-1013, "Filter failure: NOTIONAL") if category == "spot" else Denied(
                -4164, "Order's notional must be no smaller than 5 (unless you choose reduce only).")
        return product, link, body["side"] == "BUY", quantity, price

    def place(self, category: str, body: Row) -> Ticket:
        """An order at once, or (spot) a stop that rests among the orders."""
        product, link, buy, quantity, price = self._asked(category, body, "newClientOrderId")
        key, kind = (category, product.id), body.get("type")
        if any(ticket.link == link and ticket.open for ticket in self.orders.values() if ticket.product.category == category):
            raise Denied(-2010, "Duplicate order sent.") if category == "spot" else Denied(-4116, "ClientOrderId is duplicated.")
        if kind not in (("LIMIT", "MARKET") if category == "linear" else SPOT_TYPES):
            raise Denied(-4120, "Order type not supported for this endpoint. Please use the Algo Order API endpoints instead.")
        trigger = Decimal(body["stopPrice"]) if body.get("stopPrice") else None
        if trigger is not None and (trigger >= self.price[key] if not buy else trigger <= self.price[key]):
            raise Denied(-2010, "Stop price would trigger immediately.")
        reduce = body.get("reduceOnly") == "true"
        ticket = Ticket(self._id(), link, product, buy, kind in ("MARKET", "STOP_LOSS"), quantity, price, trigger, buy, reduce, self.now())
        self._afford(ticket)
        self.orders[ticket.id] = ticket
        self._set(ticket, "New" if trigger is None else "Untriggered")
        if trigger is None:
            self._work(ticket, arriving=True)
        return ticket

    def place_algo(self, body: Row) -> Algo:
        close = body.get("closePosition") == "true"
        whole = {"price": "", "quantity": str(abs(self.holdings["linear", str(body.get("symbol"))].size))} if close else {"price": ""}
        product, link, buy, quantity, _ = self._asked("linear", body | whole, "clientAlgoId")
        if body.get("algoType") != "CONDITIONAL" or body.get("type") != "STOP_MARKET" or not body.get("triggerPrice"):
            raise Denied(-1102, "emulator: only conditional STOP_MARKET")
        if any(algo.link == link and algo.status == "NEW" for algo in self.algos.values()):
            raise Denied(-4116, "ClientOrderId is duplicated.")
        trigger, now = Decimal(body["triggerPrice"]), self.price["linear", product.id]
        if trigger <= now if buy else trigger >= now:
            raise Denied(-2021, "Order would immediately trigger.")
        algo = Algo(self._id(), link, product, buy, ZERO if close else quantity, trigger, buy, close or body.get("reduceOnly") == "true",
                    self.now(), close)
        self.algos[algo.id] = algo
        self._tell_algo(algo)
        return algo

    def move(self, category: str, name: str, price: str | Decimal) -> None:
        super().move(category, name, price)
        now = self.price[category, name]
        for algo in list(self.algos.values()) if category == "linear" else ():
            if algo.status == "NEW" and algo.product.id == name and (now >= algo.trigger if algo.rising else now <= algo.trigger):
                self._become(algo)

    def _become(self, algo: Algo) -> None:
        """A conditional order's price is passed: it becomes an order of the engine."""
        link = algo.link if self.names_algo_orders else f"x-algo-{algo.id}"
        quantity = abs(self.holdings["linear", algo.product.id].size) if algo.close else algo.quantity
        ticket = Ticket(self._id(), link, algo.product, algo.buy, True, quantity, self.price["linear", algo.product.id], None, False,
                        algo.reduce, self.now())
        try:
            self._afford(ticket)
        except Denied:
            self._end(algo, "REJECTED")
            return
        algo.actual = ticket.id
        self.orders[ticket.id] = ticket
        self._end(algo, "TRIGGERED")
        self._set(ticket, "New")
        self._work(ticket, arriving=True)
        self._end(algo, "FINISHED")

    def _end(self, algo: Algo, status: str) -> None:
        algo.status, algo.updated = status, self.now()
        self._tell_algo(algo)

    def drop_algo(self, body: Row) -> Algo:
        for algo in self.algos.values():
            if algo.status == "NEW" and (algo.link == body.get("clientAlgoId") or algo.id == str(body.get("algoId"))):
                self._end(algo, "CANCELED")
                return algo
        raise Denied(-2011, "Unknown order sent.")

    def found(self, category: str, body: Row) -> Ticket:
        """By id, or the newest of that client id."""
        for ticket in reversed(self.orders.values()):
            if ticket.product.category == category and ticket.product.id == body.get("symbol") and (
                    ticket.id == str(body.get("orderId")) or ticket.link == body.get("origClientOrderId")):
                return ticket
        raise Denied(-2013, "Order does not exist.")

    def drop(self, category: str, body: Row) -> Ticket:
        try:
            ticket = self.found(category, body)
        except Denied:
            raise Denied(-2011, "Unknown order sent.") from None
        if not ticket.open:
            raise Denied(-2011, "Unknown order sent.")
        self._set(ticket, "Cancelled")
        return ticket

    # -- what is told -----------------------------------------------------------------------------------------------------

    def _set(self, ticket: Ticket, status: str) -> None:
        ticket.status, ticket.updated = status, self.now()
        if status != "Triggered":
            self._tell_order(ticket, {"New": "NEW", "Untriggered": "NEW", "Cancelled": "CANCELED"}.get(status, "EXPIRED"), None)

    def _charge(self, product: Product, buy: bool, quantity: Decimal, value: Decimal, rate: Decimal) -> tuple[str, Decimal]:
        if self.bnb_fees:
            fee = value * rate * BNB_DISCOUNT[product.category] / self.price["spot", "BNBUSDT"]
            return "BNB", fee.quantize(UNIT, ROUND_HALF_EVEN)
        return super()._charge(product, buy, quantity, value, rate)

    def _record(self, ticket: Ticket, done: Execution) -> None:
        product, number = ticket.product, int(self._id())
        row: Row = {"symbol": product.id, "id": number, "orderId": int(ticket.id), "price": str(done.price), "qty": str(done.quantity),
                    "quoteQty": str(done.value), "commission": str(done.fee), "commissionAsset": done.fee_coin, "time": self.now()}
        if product.category == "spot":
            row |= {"orderListId": -1, "isBuyer": ticket.buy, "isMaker": done.maker, "isBestMatch": True}
        else:
            row |= {"buyer": ticket.buy, "maker": done.maker, "side": "BUY" if ticket.buy else "SELL", "positionSide": "BOTH",
                    "realizedPnl": str(done.result)}
            self._earn("COMMISSION", -done.fee, done.fee_coin, product.id, str(number))
            if done.result:
                self._earn("REALIZED_PNL", done.result, product.quote, product.id, str(number))
        self.trades[product.category].append(row)
        self._tell_order(ticket, "TRADE", (done, number))

    def _earn(self, kind: str, amount: Decimal, coin: str, name: str = "", trade: str = "") -> None:
        self.income.append({"symbol": name, "incomeType": kind, "income": str(amount), "asset": coin, "info": kind, "time": self.now(),
                            "tranId": int(self._id()), "tradeId": trade})

    def _tell_order(self, ticket: Ticket, what: str, trade: tuple[Execution, int] | None) -> None:
        done, number = trade or (None, -1)
        spot, now = ticket.product.category == "spot", self.now()
        told: Row = {
            "s": ticket.product.id, "c": ticket.link, "S": "BUY" if ticket.buy else "SELL", "o": kind_of(ticket), "f": "GTC",
            "q": str(ticket.quantity), "p": "0" if ticket.market else str(ticket.price), "x": what, "X": WORDS[ticket.status],
            "i": int(ticket.id), "l": str(done.quantity if done else ZERO), "z": str(ticket.filled), "L": str(done.price if done else ZERO),
            "n": str(done.fee if done else ZERO), "N": done.fee_coin if done else None, "T": now, "t": number,
            "m": bool(done and done.maker)}
        if spot:
            origin = {"C": ticket.link, "c": f"cancel{ticket.id}"} if what == "CANCELED" else {"C": ""}
            self.emit("user:spot", [told | origin | {
                "e": "executionReport", "E": now, "P": str(ticket.trigger or ZERO), "F": "0", "g": -1, "r": "NONE", "I": self._next,
                "w": True, "M": False, "O": ticket.created, "Z": str(ticket.value), "Y": str(done.value if done else ZERO), "Q": "0"}])
        else:
            average = str((ticket.value / ticket.filled).quantize(UNIT)) if ticket.filled else "0"
            self.emit("user:linear", [{"e": "ORDER_TRADE_UPDATE", "E": now, "T": now, "o": told | {
                "ap": average, "sp": "0", "b": "0", "a": "0", "R": ticket.reduce, "wt": "CONTRACT_PRICE", "ot": told["o"], "ps": "BOTH",
                "cp": False, "rp": str(done.result if done else ZERO), "pP": False, "si": 0, "ss": 0, "V": "EXPIRE_MAKER", "pm": "NONE",
                "gtd": 0}}])

    def _tell_algo(self, algo: Algo) -> None:
        now = self.now()
        self.emit("user:linear", [{"e": "ALGO_UPDATE", "T": now, "E": now, "o": {
            "caid": algo.link, "aid": int(algo.id), "at": "CONDITIONAL", "o": "STOP_MARKET", "s": algo.product.id,
            "S": "BUY" if algo.buy else "SELL", "ps": "BOTH", "f": "GTC", "q": str(algo.quantity), "X": algo.status, "ai": algo.actual,
            "ap": "0.00000", "aq": "0.00000", "act": "0", "tp": str(algo.trigger), "p": "0", "V": "EXPIRE_MAKER", "wt": "CONTRACT_PRICE",
            "pm": "NONE", "cp": algo.close, "pP": False, "R": algo.reduce, "tt": 0, "gtd": 0, "rm": ""}}])

    def _told(self, key: Key) -> None:
        now, category = self.now(), key[0]
        if category == "spot":
            held = [{"a": coin, "f": str(amount - self.locked(coin)), "l": str(self.locked(coin))} for coin, amount in
                    self.purses["spot"].items()]
            self.emit("user:spot", [{"e": "outboundAccountPosition", "E": now, "u": now, "B": held}])
        else:
            held = [{"a": coin, "wb": str(amount), "cw": str(amount), "bc": "0"} for coin, amount in self.purses["linear"].items()]
            self.emit("user:linear", [{"e": "ACCOUNT_UPDATE", "E": now, "T": now, "a": {"m": "ORDER", "B": held, "P": [self.held(key)]}}])

    def held(self, key: Key) -> Row:
        holding = self.holdings[key]
        return {"s": key[1], "pa": str(holding.size), "ep": self._entry(key), "bep": "0", "cr": "0", "up": "0", "mt": "cross", "iw": "0",
                "ps": "BOTH"}

    def _entry(self, key: Key) -> str:
        holding = self.holdings[key]
        return str((holding.cost / holding.size).quantize(UNIT)) if holding.size else "0.0"

    def _tell_price(self, key: Key) -> None:
        stream = f"{key[0]}|{key[1].lower()}"
        self.emit(f"{stream}@bookTicker", [self.best(key)])
        if key[0] == "linear":
            self.emit(f"{stream}@markPrice@1s", [self.marked(key)])
        self._tell_bar(key, self.candles[key][-1], final=False)

    def marked(self, key: Key) -> Row:
        price, now = str(self.price[key]), self.now()
        return {"e": "markPriceUpdate", "E": now, "s": key[1], "p": price, "i": price, "P": price, "r": "0.00010000",
                "T": now // 28_800_000 * 28_800_000 + 28_800_000}

    def best(self, key: Key) -> Row:
        self._next += 1
        row: Row = {"u": self._next, "s": key[1], "b": str(self.bid(key)), "B": "3", "a": str(self.ask(key)), "A": "3"}
        return row if key[0] == "spot" else row | {"e": "bookTicker", "E": self.now(), "T": self.now()}

    def _tell_bar(self, key: Key, candle: list[Any], *, final: bool) -> None:
        at, opened, high, low, close, volume = candle
        bar = {"t": at, "T": at + 59_999, "s": key[1], "i": "1m", "f": 1, "L": 2, "o": str(opened), "c": str(close), "h": str(high),
               "l": str(low), "v": str(volume), "n": 1, "x": final, "q": str(volume * close), "V": "0", "Q": "0", "B": "0"}
        self.emit(f"{key[0]}|{key[1].lower()}@kline_1m", [{"e": "kline", "E": self.now(), "s": key[1], "k": bar}])

    # -- what happens without us ------------------------------------------------------------------------------------------

    def fund(self, name: str, rate: str) -> None:
        key = "linear", name
        fee = (self.holdings[key].size * self.price[key] * Decimal(rate)).quantize(UNIT, ROUND_HALF_EVEN)
        self._add("linear", "USDT", -fee)
        self._earn("FUNDING_FEE", -fee, "USDT", name)
        self._told(key)

    def deleverage(self, name: str, quantity: str) -> None:
        self._forced(name, Decimal(quantity), "adl_autoclose")

    def liquidate(self, name: str) -> None:
        self._forced(name, abs(self.holdings["linear", name].size), f"autoclose-{self.now()}")

    def _forced(self, name: str, part: Decimal, link: str) -> None:
        key = "linear", name
        ticket = Ticket(self._id(), link, self.products[key], self.holdings[key].size < 0, True, part, self.price[key], None, False, True,
                        self.now())
        self.orders[ticket.id] = ticket
        self._execute(ticket, part, self.price[key], maker=False)

    def transfer(self, coin: str, amount: str, status: int = 1) -> None:
        """A deposit (+) or withdrawal (-) of the spot wallet. `status` of a deposit: 1 = done, 6 = credited, not to be withdrawn yet."""
        change, number = Decimal(amount), self._id()
        self._add("spot", coin, change)
        if change > 0:
            self.deposits.append({"id": number, "amount": amount, "coin": coin, "network": "BSC", "status": status, "txId": number,
                                  "insertTime": self.now(), "completeTime": self.now(), "transferType": 0, "walletType": 0})
        else:
            self.withdrawals.append({"id": number, "amount": str(-change - 1), "transactionFee": "1", "coin": coin, "status": 6,
                                     "address": "a", "txId": number, "applyTime": _words(self.now()), "completeTime": _words(self.now()),
                                     "network": "BSC", "transferType": 0, "walletType": 0})

    def shift(self, coin: str, amount: str) -> None:
        """From the spot wallet to that of USD-M (+), or back (-)."""
        change = Decimal(amount)
        self._add("spot", coin, -change)
        self._add("linear", coin, change)
        self._earn("TRANSFER", change, coin)
        self.moves.append({"asset": coin, "amount": str(abs(change)), "type": "MAIN_UMFUTURE" if change > 0 else "UMFUTURE_MAIN",
                           "status": "CONFIRMED", "tranId": int(self._id()), "timestamp": self.now()})


def _words(at: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def kind_of(ticket: Ticket) -> str:
    if ticket.trigger is None:
        return "MARKET" if ticket.market else "LIMIT"
    return "STOP_LOSS" if ticket.market else "STOP_LOSS_LIMIT"


def spot_row(ticket: Ticket) -> Row:
    return {"symbol": ticket.product.id, "orderId": int(ticket.id), "orderListId": -1, "clientOrderId": ticket.link,
            "price": "0.00000000" if ticket.market else str(ticket.price), "origQty": str(ticket.quantity),
            "executedQty": str(ticket.filled), "cummulativeQuoteQty": str(ticket.value), "status": WORDS[ticket.status],
            "timeInForce": "GTC", "type": kind_of(ticket), "side": "BUY" if ticket.buy else "SELL",
            "stopPrice": str(ticket.trigger or "0.00000000"), "icebergQty": "0.00000000",
            "time": ticket.created, "updateTime": ticket.updated or ticket.created, "isWorking": ticket.status != "Untriggered",
            "workingTime": ticket.created, "origQuoteOrderQty": "0.00000000", "selfTradePreventionMode": "EXPIRE_MAKER"}


def linear_row(ticket: Ticket) -> Row:
    average = str((ticket.value / ticket.filled).quantize(UNIT)) if ticket.filled else "0.00000"
    return {"avgPrice": average, "clientOrderId": ticket.link, "cumQuote": str(ticket.value), "executedQty": str(ticket.filled),
            "orderId": int(ticket.id), "origQty": str(ticket.quantity), "origType": kind_of(ticket),
            "price": "0" if ticket.market else str(ticket.price), "reduceOnly": ticket.reduce, "side": "BUY" if ticket.buy else "SELL",
            "positionSide": "BOTH", "status": WORDS[ticket.status], "stopPrice": "0", "closePosition": False, "symbol": ticket.product.id,
            "time": ticket.created, "timeInForce": "GTC", "type": kind_of(ticket), "updateTime": ticket.updated or ticket.created,
            "workingType": "CONTRACT_PRICE", "priceProtect": False, "priceMatch": "NONE", "selfTradePreventionMode": "EXPIRE_MAKER",
            "goodTillDate": 0}


ROWS: dict[str, Callable[[Ticket], Row]] = {"spot": spot_row, "linear": linear_row}
