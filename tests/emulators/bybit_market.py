"""The matching engine and exact ledger behind the Bybit emulator: no wire, no clock of its own. Its wallet is the tests' oracle.

Prices move only when a test says so (`move`, or `walk` for a seeded path). A market order trades at bid or ask (one tick off the
price), at most `depth` per execution, each further one a tick worse. Spot buys pay their fee in the base coin, everything else in the
quote coin. Linear positions are one-way and settle in USDT; the average price is kept as exact cost, so nothing is rounded but fees
and results, to 1e-8. Options (none listed unless a test does) are bybit_options.py's.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, ClassVar, NamedTuple

from tests.emulators.bybit_options import OptionDesk

ZERO, UNIT = Decimal(0), Decimal("1e-8")
OPEN = ("New", "PartiallyFilled", "Untriggered", "Triggered")
MINUTE_MS = 60_000
Row = dict[str, Any]


class Product(NamedTuple):
    category: str
    id: str
    base: str
    quote: str
    tick: Decimal
    lot: Decimal
    notional_min: Decimal
    maker: Decimal
    taker: Decimal
    price: Decimal
    leverage_max: Decimal = Decimal(1)


def _d(*texts: str) -> tuple[Decimal, ...]:
    return tuple(map(Decimal, texts))


PRODUCTS = (
    Product("spot", "BTCUSDT", "BTC", "USDT", *_d("0.01", "0.000001", "5", "0.001", "0.001", "50000")),
    Product("spot", "ETHUSDT", "ETH", "USDT", *_d("0.01", "0.00001", "5", "0.001", "0.001", "2500")),
    Product("linear", "BTCUSDT", "BTC", "USDT", *_d("0.10", "0.001", "5", "0.0002", "0.00055", "50000", "100")),
    Product("linear", "ETHUSDT", "ETH", "USDT", *_d("0.01", "0.01", "5", "0.0002", "0.00055", "2500", "100")),
)
Key = tuple[str, str]


class Denied(Exception):
    """What the venue answers instead of doing it."""

    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(message)


@dataclass
class Ticket:
    """An order in the engine's hands."""

    id: str
    link: str
    product: Product
    buy: bool
    market: bool
    quantity: Decimal
    price: Decimal
    trigger: Decimal | None
    rising: bool
    reduce: bool
    created: int
    status: str = "New"
    filled: Decimal = ZERO
    value: Decimal = ZERO
    fee: Decimal = ZERO
    reason: str = "EC_NoError"
    updated: int = 0
    seen: int = 0

    @property
    def remaining(self) -> Decimal:
        return self.quantity - self.filled

    @property
    def open(self) -> bool:
        return self.status in OPEN

    def row(self) -> Row:
        trigger = "" if self.trigger is None else str(self.trigger)
        average = "" if not self.filled else str((self.value / self.filled).quantize(UNIT))
        return {
            "category": self.product.category, "symbol": self.product.id, "orderId": self.id, "orderLinkId": self.link,
            "blockTradeId": "", "side": "Buy" if self.buy else "Sell", "positionIdx": 0, "orderStatus": self.status,
            "cancelType": "CancelByUser" if "Cancel" in self.status else "UNKNOWN", "rejectReason": self.reason, "timeInForce": "GTC",
            "isLeverage": "0", "price": "0" if self.market else str(self.price), "qty": str(self.quantity), "avgPrice": average,
            "leavesQty": str(self.remaining if self.open else ZERO), "leavesValue": "0", "cumExecQty": str(self.filled),
            "cumExecValue": str(self.value), "cumExecFee": str(self.fee), "orderType": "Market" if self.market else "Limit",
            "stopOrderType": "Stop" if trigger else "", "orderIv": "", "triggerPrice": trigger or "0.00",
            "triggerDirection": (1 if self.rising else 2) if trigger else 0, "triggerBy": "LastPrice" if trigger else "",
            "takeProfit": "", "stopLoss": "", "reduceOnly": self.reduce, "closeOnTrigger": False, "smpType": "None",
            "createdTime": str(self.created), "updatedTime": str(self.updated or self.created),
        }


@dataclass
class Holding:
    """A one-way position: signed size and its exact entry value."""

    size: Decimal = ZERO
    cost: Decimal = ZERO
    leverage: Decimal = Decimal(10)


class Execution(NamedTuple):
    quantity: Decimal
    price: Decimal
    value: Decimal
    rate: Decimal
    fee_coin: str
    fee: Decimal
    maker: bool
    kind: str
    result: Decimal
    """Realized by what it closed."""


@dataclass
class Market:
    """Everything the venue knows. `emit(topic, rows)` is called for every private or public event."""

    denials: ClassVar[dict[str, tuple[int, str]]] = {
        "spot funds": (170131, "Insufficient balance."), "funds": (110007, "ab not enough for new order"),
        "reduce": (110017, "current position is zero, cannot fix reduce-only order qty")}
    now: Callable[[], int]
    emit: Callable[[str, list[Row]], None] = lambda topic, rows: None
    wallet: dict[str, Decimal] = field(default_factory=lambda: {"USDT": Decimal("10000")})
    products: dict[Key, Product] = field(default_factory=lambda: {(p.category, p.id): p for p in PRODUCTS})
    orders: dict[str, Ticket] = field(default_factory=dict)
    executions: list[Row] = field(default_factory=list)
    log: list[Row] = field(default_factory=list)
    """Transaction log: transfers."""

    def __post_init__(self) -> None:
        self.options = OptionDesk(self)
        self.price = {key: product.price for key, product in self.products.items()}
        self.depth: dict[Key, Decimal] = {}
        self.holdings = {key: Holding() for key in self.products if key[0] == "linear"}
        start = self.now() // MINUTE_MS * MINUTE_MS
        self.candles: dict[Key, list[list[Any]]] = {key: self._past(key, start) for key in self.products}
        self._next = 1_000_000

    def _past(self, key: Key, start: int) -> list[list[Any]]:
        """300 one-minute candles ending with the forming one, from a seeded walk back from today's price."""
        chance, price, tick = random.Random(str(key)), self.price[key], self.products[key].tick
        candles: list[list[Any]] = []
        for back in range(300):
            opened = price + tick * chance.randint(-50, 50)
            high, low = max(price, opened) + tick * chance.randint(0, 20), min(price, opened) - tick * chance.randint(0, 20)
            candles.append([start - back * MINUTE_MS, opened, high, low, price, Decimal(chance.randint(1, 900)) / 100])
            price = opened
        return candles[::-1]

    # -- prices -----------------------------------------------------------------------------------------------------------

    def bid(self, key: Key) -> Decimal:
        product = self.products[key]
        return self.options.quote(product, ask=False) if key[0] == "option" else self.price[key] - product.tick

    def ask(self, key: Key) -> Decimal:
        product = self.products[key]
        return self.options.quote(product, ask=True) if key[0] == "option" else self.price[key] + product.tick

    def list_option(self, name: str, base: str, tick: Decimal, lot: Decimal, fee: Decimal) -> None:
        key = "option", name
        self.products[key] = Product("option", name, base, "USDT", tick, lot, ZERO, fee, fee, ZERO)
        self.price[key] = ZERO
        self.holdings[key] = Holding()

    def unlist_option(self, name: str) -> None:
        """Its position is told of for as long as somebody asks; it is traded no more."""
        for ticket in [ticket for ticket in self.orders.values() if ticket.open and ticket.product is self.products["option", name]]:
            self._set(ticket, "Cancelled")
        del self.products["option", name]

    def move(self, category: str, name: str, price: str | Decimal) -> None:
        """The price is now this: conditional orders trigger, resting limits fill, the forming candle stretches."""
        key = category, name
        now = self.price[key] = Decimal(price)
        candle = self.candles[key][-1]
        candle[2], candle[3], candle[4], candle[5] = max(candle[2], now), min(candle[3], now), now, candle[5] + Decimal("0.1")
        for ticket in [ticket for ticket in self.orders.values() if ticket.open and ticket.product is self.products[key]]:
            if ticket.status == "Untriggered" and ticket.trigger is not None:
                if now >= ticket.trigger if ticket.rising else now <= ticket.trigger:
                    self._go_off(ticket)
            elif ticket.open:
                self._work(ticket, arriving=False)
        self._tell_price(key)

    def _go_off(self, ticket: Ticket) -> None:
        """A conditional order's price is passed."""
        self._set(ticket, "Triggered")
        self._work(ticket, arriving=True)

    def _tell_price(self, key: Key) -> None:
        self.emit(f"tickers.{key[1]}", [self.streamed_ticker(key)])
        self.emit(f"orderbook.1.{key[1]}", [self.best(key)])
        self._tell_bar(key, self.candles[key][-1], final=False)

    def _tell_bar(self, key: Key, candle: list[Any], *, final: bool) -> None:
        self.emit(f"kline.1.{key[1]}", [self.kline(key, candle, final)])

    def walk(self, category: str, name: str, steps: int, seed: int) -> None:
        """A seeded path of `steps` moves of up to 100 ticks."""
        chance, tick = random.Random(seed), self.products[category, name].tick
        for _ in range(steps):
            self.move(category, name, self.price[category, name] + tick * chance.randint(-100, 100))

    def close_bar(self, category: str, name: str) -> None:
        """The forming candle is final and the next begins at its close."""
        key = category, name
        done = self.candles[key][-1]
        self._tell_bar(key, done, final=True)
        fresh = [done[0] + MINUTE_MS, done[4], done[4], done[4], done[4], ZERO]
        self.candles[key].append(fresh)
        self._tell_bar(key, fresh, final=False)

    def kline(self, key: Key, candle: list[Any], final: bool) -> Row:
        start, opened, high, low, close, volume = candle
        return {"category": key[0], "start": start, "end": start + MINUTE_MS - 1, "interval": "1", "open": str(opened), "close": str(close),
                "high": str(high), "low": str(low), "volume": str(volume), "turnover": str(volume * close), "confirm": final,
                "timestamp": self.now()}

    def ticker(self, key: Key) -> Row:
        if key[0] == "option":
            return self.options.ticker(self.products[key])
        price = str(self.price[key])
        row = {"category": key[0], "symbol": key[1], "lastPrice": price, "bid1Price": str(self.bid(key)), "bid1Size": "3",
               "ask1Price": str(self.ask(key)), "ask1Size": "3", "prevPrice24h": price, "price24hPcnt": "0", "highPrice24h": price,
               "lowPrice24h": price, "turnover24h": "50000000", "volume24h": "1000"}
        if key[0] == "spot":
            return row | {"usdIndexPrice": price}
        funding = {"fundingRate": "0.0001", "nextFundingTime": str(self.now() // 28_800_000 * 28_800_000 + 28_800_000)}
        return row | funding | {"markPrice": price, "indexPrice": price, "openInterest": "1000", "openInterestValue": "50000000",
                                "fundingIntervalHour": "8"}

    def streamed_ticker(self, key: Key) -> Row:
        """On spot the stream has no bid and ask."""
        row = self.ticker(key)
        return {name: value for name, value in row.items() if key[0] != "spot" or name[:3] not in ("bid", "ask")}

    def best(self, key: Key) -> Row:
        self._next += 1
        bid, ask = self.bid(key), self.ask(key)
        return {"category": key[0], "s": key[1], "b": [[str(bid), "3"]] if bid else [], "a": [[str(ask), "3"]] if ask else [],
                "u": self._next, "seq": self._next}

    # -- orders -----------------------------------------------------------------------------------------------------------

    def create(self, body: Row) -> Ticket:
        """Accept an order or say why not; fills, if any, happen at once and are told after the acceptance."""
        key = str(body.get("category")), str(body.get("symbol"))
        product = self.products.get(key)
        if product is None:
            raise Denied(10001, "params error: symbol invalid")
        spot, link = key[0] == "spot", str(body.get("orderLinkId", ""))
        if link and any(ticket.link == link for ticket in self.orders.values()):
            raise Denied(170141, "Duplicate clientOrderId") if spot else Denied(110072, "OrderLinkedID is duplicate")
        if key[0] == "option" and not link:
            raise Denied(10001, "OrderLinkId is required")
        if key[0] == "option" and body.get("triggerPrice"):
            raise Denied(10001, "conditional orders are not supported for options")
        buy, market, reduce = body["side"] == "Buy", body["orderType"] == "Market", bool(body.get("reduceOnly"))
        quantity, price = Decimal(body["qty"]), Decimal(body["price"]) if body.get("price") else self.price[key]
        if quantity <= 0 or quantity % product.lot or price % product.tick:
            raise Denied(170137, "Order volume decimal too long") if spot else Denied(10001, "Qty invalid")
        if not reduce and quantity * price < product.notional_min:
            raise Denied(170140, "Order value exceeded lower limit") if spot else Denied(110094, "Order does not meet minimum order value")
        if spot and market and body.get("marketUnit") != "baseCoin":
            raise Denied(170130, "emulator: only marketUnit=baseCoin")
        trigger, rising = self._trigger(key, body, buy)
        ticket = Ticket(self._id(), link, product, buy, market, quantity, price, trigger, rising, reduce, self.now())
        if trigger is None:
            self._afford(ticket)
        elif reduce and not self._reducible(ticket):
            raise Denied(110017, "current position is zero, cannot fix reduce-only order qty")
        self.orders[ticket.id] = ticket
        self._set(ticket, "New" if trigger is None else "Untriggered")
        if trigger is None:
            self._work(ticket, arriving=True)
        if ticket.open and body.get("timeInForce") == "IOC":
            ticket.reason = "EC_NoImmediateQtyToFill"
            self._set(ticket, "Cancelled")
        return ticket

    def _trigger(self, key: Key, body: Row, buy: bool) -> tuple[Decimal | None, bool]:
        if not body.get("triggerPrice"):
            return None, False
        trigger, price = Decimal(body["triggerPrice"]), self.price[key]
        if key[0] == "spot":
            if body.get("orderFilter") != "StopOrder":
                raise Denied(170202, "Invalid orderFilter parameter")
            return trigger, trigger > price
        if body.get("triggerDirection") not in (1, 2):
            raise Denied(10001, "triggerDirection invalid")
        rising = body["triggerDirection"] == 1
        if rising and trigger <= price:
            raise Denied(110092, f"expect Rising, but trigger_price[{trigger}] <= current[{price}]")
        if not rising and trigger >= price:
            raise Denied(110093, f"expect Falling, but trigger_price[{trigger}] >= current[{price}]")
        return trigger, rising

    def _id(self) -> str:
        self._next += 1
        return f"0a1b2c3d-{self._next}"

    def locked(self, coin: str, but: Ticket | None = None) -> Decimal:
        """Of a coin, by resting spot limits."""
        total = ZERO
        for ticket in self.orders.values():
            if ticket is not but and ticket.status in ("New", "PartiallyFilled") and ticket.product.category == "spot":
                if ticket.buy and ticket.product.quote == coin:
                    total += ticket.remaining * ticket.price
                elif not ticket.buy and ticket.product.base == coin:
                    total += ticket.remaining
        return total

    def _afford(self, ticket: Ticket) -> None:
        product, key = ticket.product, (ticket.product.category, ticket.product.id)
        if product.category == "spot":
            coin = product.quote if ticket.buy else product.base
            needed = ticket.quantity * (self.ask(key) if ticket.market else ticket.price) if ticket.buy else ticket.quantity
            if self.purse(product.category).get(coin, ZERO) - self.locked(coin, ticket) < needed:
                raise Denied(*self.denials["spot funds"])
            return
        holding = self.holdings[key]
        if ticket.reduce:
            if not self._reducible(ticket):
                raise Denied(*self.denials["reduce"])
            ticket.quantity = min(ticket.quantity, abs(holding.size))
            return
        opens = ticket.quantity if ticket.buy == (holding.size >= 0) else max(ZERO, ticket.quantity - abs(holding.size))
        margin = sum((abs(other.cost) / other.leverage for (kind, _), other in self.holdings.items() if kind != "option"), ZERO)
        purse, shared = self.purse(product.category), self.purse("spot")
        free = purse.get(product.quote, ZERO) - (self.locked(product.quote) if purse is shared else ZERO)
        needed = opens * ticket.price / holding.leverage
        margin += self.options.margin()
        if product.category == "option":  # a premium is paid in full, and who sells one must be able to be wrong
            needed = opens * (self.ask(key) if ticket.buy else self.options.sold(product.id))
        if free - margin < needed:
            raise Denied(*self.denials["funds"])

    def _reducible(self, ticket: Ticket) -> bool:
        size = self.holdings[ticket.product.category, ticket.product.id].size
        return size < 0 if ticket.buy else size > 0

    def _work(self, ticket: Ticket, *, arriving: bool) -> None:
        """Trade what can trade at the present price. A market order that cannot be paid any more is rejected."""
        key = ticket.product.category, ticket.product.id
        if ticket.status == "Triggered":
            try:
                self._afford(ticket)
            except Denied as denied:
                reduces = denied.code == self.denials["reduce"][0]
                ticket.reason = "EC_PerCancelRequest" if reduces else "EC_NoEnoughBalance"
                self._set(ticket, "Cancelled" if reduces else "Rejected")
                return
        best, step = (self.ask(key), ticket.product.tick) if ticket.buy else (self.bid(key), -ticket.product.tick)
        depth = self.depth.get(key)
        if best <= ZERO:  # nobody is on the other side of this option
            if ticket.market:
                ticket.reason = "EC_NoImmediateQtyToFill"
                self._set(ticket, "Cancelled")
            return
        while ticket.remaining:
            if ticket.reduce and not self._reducible(ticket):
                self._set(ticket, "Cancelled")
                return
            if not ticket.market and (best > ticket.price if ticket.buy else best < ticket.price):
                break
            # A resting limit is hit at its own price; one that arrives takes what is there.
            price = best if ticket.market or arriving else ticket.price
            part = ticket.remaining if depth is None else min(depth, ticket.remaining)
            if ticket.reduce:
                part = min(part, abs(self.holdings[key].size))
            self._execute(ticket, part, price, maker=not arriving)
            best += step
            if depth is not None and not ticket.market:
                break

    def _execute(self, ticket: Ticket, quantity: Decimal, price: Decimal, *, maker: bool, kind: str = "Trade") -> None:
        product, key = ticket.product, (ticket.product.category, ticket.product.id)
        rate, value = product.maker if maker else product.taker, quantity * price
        fee_coin, fee = self._charge(product, ticket.buy, quantity, value, rate)
        ticket.filled += quantity
        ticket.value += value
        ticket.fee += fee
        result = ZERO
        if product.category == "spot":
            self._add("spot", product.base, quantity if ticket.buy else -quantity)
            self._add("spot", product.quote, -value if ticket.buy else value)
        elif product.category == "option":
            self._settle(self.holdings[key], quantity if ticket.buy else -quantity, price)
            self._add("option", product.quote, -value if ticket.buy else value)
        else:
            result = self._settle(self.holdings[key], quantity if ticket.buy else -quantity, price)
            self._add("linear", product.quote, result)
        self._add(product.category, fee_coin, -fee)
        ticket.status, ticket.updated = "PartiallyFilled" if ticket.remaining else "Filled", self.now()
        self._record(ticket, Execution(quantity, price, value, rate, fee_coin, fee, maker, kind, result))
        self._told(key)

    def _charge(self, product: Product, buy: bool, quantity: Decimal, value: Decimal, rate: Decimal) -> tuple[str, Decimal]:
        """The coin a fee is taken in, and how much of it."""
        if product.category == "option":
            return product.quote, self.options.fee(product, quantity, value / quantity)
        in_base = product.category == "spot" and buy
        return product.base if in_base else product.quote, ((quantity if in_base else value) * rate).quantize(UNIT, ROUND_HALF_EVEN)

    def _record(self, ticket: Ticket, done: Execution) -> None:
        """Write an execution down and tell it, then the order's state."""
        product = ticket.product
        row = {
            "category": product.category, "symbol": product.id, "execId": self._execution_id(), "execFee": str(done.fee),
            "feeRate": str(done.rate), "feeCurrency": done.fee_coin if product.category == "spot" else "", "execPrice": str(done.price),
            "execQty": str(done.quantity), "execType": done.kind, "execValue": str(done.value), "isMaker": done.maker,
            "orderId": ticket.id, "orderLinkId": ticket.link, "orderPrice": str(ticket.price), "orderQty": str(ticket.quantity),
            "leavesQty": str(ticket.remaining), "orderType": "Market" if ticket.market else "Limit",
            "stopOrderType": "Stop" if ticket.trigger else "UNKNOWN", "side": "Buy" if ticket.buy else "Sell",
            "execTime": str(self.now()), "isLeverage": "0", "closedSize": "0", "seq": self._next,
        }
        self.executions.append(row)
        self.emit("execution", [row])
        self._set(ticket, ticket.status)

    def _execution_id(self) -> str:
        """In no order at all, as the venue's are."""
        return f"{self._next * 2_654_435_761 % 2**32:08x}-{self._id()}"

    def _settle(self, holding: Holding, signed: Decimal, price: Decimal) -> Decimal:
        """Book a signed quantity into a position; the realized result of what it closes."""
        closes = min(abs(signed), abs(holding.size)) if signed * holding.size < 0 else ZERO
        result, sign = ZERO, 1 if signed > 0 else -1
        if closes:
            share = holding.cost * closes / abs(holding.size)
            result = (-sign * closes * price - share).quantize(UNIT, ROUND_HALF_EVEN)
            holding.cost -= share
        opens = abs(signed) - closes
        holding.cost += sign * opens * price
        holding.size += signed
        if not holding.size:
            holding.cost = ZERO
        return result

    def purse(self, category: str) -> dict[str, Decimal]:
        """The wallet a category is booked in; one for all here."""
        return self.wallet

    def _add(self, category: str, coin: str, amount: Decimal) -> None:
        purse = self.purse(category)
        purse[coin] = purse.get(coin, ZERO) + amount

    def _set(self, ticket: Ticket, status: str) -> None:
        ticket.status, ticket.updated = status, self.now()
        self.emit("order", [ticket.row()])

    def _told(self, key: Key) -> None:
        if key[0] != "spot":
            self.emit("position", [self.position(key)])
        self.emit("wallet", [self.account()])

    def cancel(self, body: Row) -> Ticket:
        spot = body.get("category") == "spot"
        for ticket in self.orders.values():
            same = ticket.id == body.get("orderId") or (ticket.link and ticket.link == body.get("orderLinkId"))
            if same and ticket.open and ticket.product.category == body.get("category"):
                wanted = "StopOrder" if ticket.status == "Untriggered" else "Order"
                if spot and body.get("orderFilter", "Order") != wanted:
                    break
                ticket.reason = "EC_PerCancelRequest"
                self._set(ticket, "PartiallyFilledCanceled" if spot and ticket.filled else "Cancelled")
                return ticket
        raise Denied(170213, "Order does not exist.") if spot else Denied(110001, "order not exists or too late to cancel")

    # -- what happens without us ------------------------------------------------------------------------------------------

    def fund(self, name: str, rate: str) -> None:
        """Funding of a linear position at the present price: longs pay a positive rate."""
        key = "linear", name
        holding, product = self.holdings[key], self.products[key]
        if not holding.size:
            return
        value = abs(holding.size) * self.price[key]
        fee = (holding.size * self.price[key] * Decimal(rate)).quantize(UNIT, ROUND_HALF_EVEN)
        self._add("linear", product.quote, -fee)
        self.executions.append({
            "category": "linear", "symbol": name, "execId": f"f-{self._id()}", "execFee": str(fee), "feeRate": rate, "feeCurrency": "",
            "execPrice": str(self.price[key]), "execQty": str(abs(holding.size)), "execType": "Funding", "execValue": str(value),
            "isMaker": False, "orderId": f"f-{self._next}", "orderLinkId": "", "orderPrice": "0", "orderQty": "0", "leavesQty": "0",
            "orderType": "UNKNOWN", "stopOrderType": "UNKNOWN", "side": "Sell" if holding.size > 0 else "Buy", "execTime": str(self.now()),
        })
        self._told(key)

    def deleverage(self, name: str, quantity: str) -> None:
        """ADL: the venue closes part of a position on its own."""
        key = "linear", name
        self._close(key, Decimal(quantity), "AdlTrade")

    def delist(self, name: str) -> None:
        """The venue ends a linear contract: what is held is closed, a trade and no order (Enums Definitions: execType Delivery)."""
        key = "linear", name
        self._close(key, abs(self.holdings[key].size), "Delivery")

    def _close(self, key: Key, part: Decimal, kind: str) -> None:
        ticket = Ticket(self._id(), "", self.products[key], self.holdings[key].size < 0, True, part, self.price[key], None, False, True,
                        self.now())
        self._execute(ticket, part, self.price[key], maker=False, kind=kind)

    def transfer(self, coin: str, amount: str) -> None:
        """A deposit (+) or withdrawal (-) into the unified account."""
        change = Decimal(amount)
        self._add("spot", coin, change)
        self.log.append({"id": f"t-{self._id()}", "symbol": "", "category": "", "side": "None", "transactionTime": str(self.now()),
                         "type": "TRANSFER_IN" if change > 0 else "TRANSFER_OUT", "qty": "0", "size": "0", "currency": coin,
                         "tradePrice": "0", "funding": "", "fee": "0", "cashFlow": amount, "change": amount,
                         "cashBalance": str(self.wallet[coin]), "feeRate": "0", "bonusChange": "0", "tradeId": "", "orderId": "",
                         "orderLinkId": ""})
        self.emit("wallet", [self.account()])

    # -- rows -------------------------------------------------------------------------------------------------------------

    def account(self) -> Row:
        coins = [{"coin": coin, "equity": str(amount), "usdValue": "0", "walletBalance": str(amount), "locked": str(self.locked(coin)),
                  "free": "", "borrowAmount": "0", "accruedInterest": "0", "totalOrderIM": "0", "totalPositionIM": "0",
                  "totalPositionMM": "0", "unrealisedPnl": "0", "cumRealisedPnl": "0", "bonus": "0", "availableToWithdraw": ""}
                 for coin, amount in self.wallet.items()]
        return {"accountType": "UNIFIED", "totalEquity": str(self.wallet.get("USDT", ZERO)), "coin": coins}

    def position(self, key: Key) -> Row:
        holding = self.holdings[key]
        average = str((holding.cost / holding.size).quantize(UNIT)) if holding.size else "0"
        side = "" if not holding.size else "Buy" if holding.size > 0 else "Sell"
        return {"category": key[0], "positionIdx": 0, "symbol": key[1], "side": side, "size": str(abs(holding.size)),
                "avgPrice": average, "entryPrice": average, "positionValue": str(abs(holding.cost)), "tradeMode": 0, "autoAddMargin": 0,
                "positionStatus": "Normal", "leverage": str(holding.leverage), "markPrice": str(self.price[key]), "liqPrice": "",
                "positionIM": "0", "positionMM": "0", "takeProfit": "", "stopLoss": "", "trailingStop": "0", "unrealisedPnl": "0",
                "cumRealisedPnl": "0", "createdTime": "0", "updatedTime": str(self.now()), "seq": self._next, "riskId": 1}

    def listing(self, product: Product) -> Row:
        if product.category == "option":
            return self.options.listing(product)
        row: Row = {"symbol": product.id, "baseCoin": product.base, "quoteCoin": product.quote, "status": "Trading",
                    "priceFilter": {"tickSize": str(product.tick), "minPrice": str(product.tick), "maxPrice": "9999999"}}
        if product.category == "spot":
            return row | {"marginTrading": "none", "innovation": "0", "lotSizeFilter": {
                "basePrecision": str(product.lot), "quotePrecision": "0.0000001", "minOrderQty": str(product.lot), "maxOrderQty": "500",
                "minOrderAmt": str(product.notional_min), "maxOrderAmt": "4000000"}}
        return row | {"contractType": "LinearPerpetual", "launchTime": "1585526400000", "deliveryTime": "0", "deliveryFeeRate": "",
                      "priceScale": "2", "unifiedMarginTrade": True, "fundingInterval": 480, "settleCoin": product.quote,
                      "leverageFilter": {"minLeverage": "1", "maxLeverage": str(product.leverage_max), "leverageStep": "0.01"},
                      "lotSizeFilter": {"maxOrderQty": "1190", "minOrderQty": str(product.lot), "qtyStep": str(product.lot),
                                        "postOnlyMaxOrderQty": "1190", "minNotionalValue": str(product.notional_min)}}
