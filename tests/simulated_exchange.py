"""The exchange of whole-daemon simulations: the Bybit emulator's books on a seeded path of prices, its owner's hands, and the weather.

It outlives the daemons. Its wallet is the oracle, and it keeps apart what is ours of a position and what its owner's. What goes over the
wire, and what becomes of it there, is simulated_venue's.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

import numpy as np

from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.market import Bar
from modules.domain.money import ZERO
from modules.domain.order import MARK, Accepted, Fate, Fill, InDoubt, Order, OrderKind, OrderReport, OrderState, Refused
from modules.venues.protocol import AccountEvent, ClassWallet, FillSeen, FundingPaid, OrderDone, Transferred, Wallet
from tests.emulators.bybit_market import Denied, Key, Market, Product, Row, Ticket

NAME: Final = "bybit"
STEP_MS: Final = 2_000
MINUTE_MS: Final = 60_000
PAST: Final = 1_560
"""Minutes of history before the first step: a day of volume, and some."""
THIN: Final = Decimal(15)
"""What is offered at a price where little is, USDT."""
SPOT, PERP = AssetClass.SPOT, AssetClass.PERP
_FATES: Final = {"Filled": OrderState.FILLED, "Rejected": OrderState.REJECTED, "Cancelled": OrderState.CANCELED,
                 "PartiallyFilledCanceled": OrderState.CANCELED}
SYMBOLS: Final[dict[str, Key]] = {
    "BTC/USDT": ("spot", "BTCUSDT"), "ETH/USDT": ("spot", "ETHUSDT"),
    "BTC/USDT:USDT": ("linear", "BTCUSDT"), "ETH/USDT:USDT": ("linear", "ETHUSDT")}
NAMES: Final = {key: symbol for symbol, key in SYMBOLS.items()}


# --- the weather --------------------------------------------------------------------------------------------------------------------


class Fault(NamedTuple):
    what: str
    writes: bool
    """Orders may not get through while it lasts: what is bare meanwhile is the venue's doing."""
    shortest_s: float
    longest_s: float


FAULTS: Final = (
    Fault("lost", True, 5, 90),        # answers to writes get lost, the orders mostly do not
    Fault("hung", True, 5, 60),        # writes are never answered
    Fault("busy", True, 5, 120),       # a ban
    Fault("down", True, 5, 180),       # nothing is reached
    Fault("garbage", True, 10, 120),   # every second answer to a question is not what it should be
    Fault("refusing", True, 10, 90),   # orders are refused, stops among them
    Fault("slow", True, 20, 120),      # seconds instead of milliseconds
    Fault("deaf", False, 20, 900),     # the account's stream says nothing
    Fault("late", False, 30, 600),     # it says everything seconds later and in another order
    Fault("twice", False, 30, 900),    # it says everything twice
    Fault("lagging", False, 30, 600),  # what is asked of orders and fills does not know the last seconds yet
    Fault("stale", False, 30, 300),    # the wallet is sometimes that of seconds ago
    Fault("quiet", False, 10, 300),    # no prices
    Fault("skewed", False, 30, 600),   # the venue's clock is wrong
    Fault("thin", False, 60, 900),     # little is offered at a price: orders are filled in parts
)


class Weather:
    """Which faults there are now. Each comes by itself at seeded times; `calm` ends them all."""

    def __init__(self, chance: random.Random, intensity: float) -> None:
        self._chance = chance
        self._intensity = intensity
        self.until: dict[str, int] = {}
        self.seen: Counter[str] = Counter()
        self.over = False

    def step(self, at: int) -> None:
        """One step of the market: each fault begins about `intensity` times in two hours."""
        if self.over:
            return
        for fault in FAULTS:
            if self._chance.random() < self._intensity * STEP_MS / 7_200_000 and not self.on(fault.what, at):
                self.until[fault.what] = at + int(1000 * self._chance.uniform(fault.shortest_s, fault.longest_s))
                self.seen[fault.what] += 1

    def on(self, what: str, at: int) -> bool:
        return self.until.get(what, 0) > at

    def writes(self, at: int) -> bool:
        """Whether orders get through."""
        return not any(self.on(fault.what, at) for fault in FAULTS if fault.writes)

    def blind(self, at: int) -> bool:
        """Whether nobody can know in time what is held, or what rests: no stream and no question tells."""
        return self.on("stale", at) or (self.on("lagging", at) and (self.on("deaf", at) or self.on("late", at)))

    def end(self) -> None:
        self.over = True
        self.until.clear()


# --- the exchange ----------------------------------------------------------------------------------------------------------------------


class Books(Market):
    """The emulator's books, for tens of thousands of steps: ended orders are put away."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ended: dict[str, Ticket] = {}

    def put_away(self, at: int) -> None:
        for ticket in [t for t in self.orders.values() if not t.open and at - (t.updated or t.created) > 300_000]:
            del self.orders[ticket.id]
            if ticket.link:
                self.ended[ticket.link] = ticket
        for key in self.candles:
            del self.candles[key][:-3]

    def find(self, link: str) -> Ticket | None:
        return self.ended.get(link) or next((t for t in self.orders.values() if t.link == link), None)


class Exchange:
    """`now` tells the time (UTC ms). `look(kind, *what)` hears "arrived" (an order that reached the books, the ticket) and "step"."""

    def __init__(self, seed: int, start: int, steps: int, now: Callable[[], int], intensity: float) -> None:
        self.chance = random.Random(f"hands {seed}")
        self.weather = Weather(random.Random(f"weather {seed}"), intensity)
        self.now = now
        self.events: list[tuple[int, AccountEvent]] = []
        """Everything that happened to the account, in order."""
        self.listeners: list[Callable[[int, AccountEvent], None]] = []
        self.snapshots: deque[Wallet] = deque(maxlen=12)
        self.hand: Counter[str] = Counter()
        """What the owner, or the venue of its own, did."""
        self.spare = Decimal(1_000)
        """Cash that is not allocated. The owner leaves enough of it for his own losses: they would be the classes' else."""
        self.alone = seed % 4 == 0
        """Perpetuals only, in a wallet that is all theirs: who trades there by hand trades with their money, so nobody does."""
        self.symbols = tuple(symbol for symbol in SYMBOLS if ":" in symbol or not self.alone)
        self._deeds = ("deposit", "withdraw", "close", "part", "cancel", "rest", "adl", *(() if self.alone else ("buy",)),
                       *(("coin",) if seed % 3 == 0 and not self.alone else ()))
        self.owners: dict[str, Decimal] = dict.fromkeys(SYMBOLS, ZERO)
        """What of each the owner holds himself, signed."""
        self.ours: dict[str, Decimal] = dict.fromkeys(SYMBOLS, ZERO)
        """What of each the daemon's orders hold, signed."""
        self.lately: dict[str, deque[tuple[int, Decimal]]] = {symbol: deque(maxlen=30) for symbol in SYMBOLS}
        """How much that was (unsigned) at the last steps, with the time: what is on its way may be about that."""
        self.netted: list[tuple[int, str]] = []
        """When the venue netted ours against the other side, held by the owner: he had traded while our order was on its way."""
        self.arrivals: list[Callable[[Order, Ticket | None], None]] = []
        self._prices(seed, start, steps)
        self.books = Books(now)
        self.books.emit = self._heard
        for symbol in SYMBOLS:
            self._move(symbol, 0)
        self.place = 0
        self._trade_ids: Counter[str] = Counter()

    def _prices(self, seed: int, start: int, steps: int) -> None:
        """A seeded path for each coin, and the bars made of it; perpetuals a few ticks beside spot."""
        draw = np.random.default_rng(seed)
        self.start, self.steps = start, steps
        self.paths: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
        self.bars: dict[str, list[Bar]] = {}
        for coin, price in (("BTC", 50_000.0), ("ETH", 2_500.0)):
            scale = 0.00022 * (1.0 + 2.0 * (draw.random(steps + 1) < 0.02))
            past = price * np.exp(np.cumsum(draw.standard_normal(PAST) * 0.0008))
            path = past[-1] * np.exp(np.cumsum(draw.standard_normal(steps + 1) * scale))
            for symbol in (f"{coin}/USDT", f"{coin}/USDT:USDT"):
                self.paths[symbol] = path * (1.0003 if ":" in symbol else 1.0)
                self.bars[symbol] = self._bars(past, self.paths[symbol])

    def _bars(self, past: np.ndarray[Any, np.dtype[np.float64]], path: np.ndarray[Any, np.dtype[np.float64]]) -> list[Bar]:
        def bar(ts: int, piece: Sequence[float]) -> Bar:
            volume = 4e7 / 1440 * 3 / piece[-1]
            return Bar(ts, piece[0], max(piece), min(piece), piece[-1], volume, volume * piece[-1])

        found = [bar(self.start - (PAST - i) * MINUTE_MS, [float(past[max(0, i - 1)]), float(past[i])]) for i in range(PAST)]
        per = MINUTE_MS // STEP_MS
        return found + [bar(self.start + i * MINUTE_MS, [float(p) for p in path[i * per:(i + 1) * per + 1]])
                        for i in range((len(path) - 1) // per)]

    def _move(self, symbol: str, place: int) -> None:
        key = SYMBOLS[symbol]
        tick = self.books.products[key].tick
        price = (Decimal(repr(float(self.paths[symbol][place]))) / tick).quantize(Decimal(1)) * tick
        self.books.move(*key, price)

    def quote(self, symbol: str) -> tuple[float, float]:
        key = SYMBOLS[symbol]
        return float(self.books.bid(key)), float(self.books.ask(key))

    def step(self, at: int) -> None:
        """The next step of the market: prices, whatever rests there, funding, the weather."""
        self.place = min(self.place + 1, self.steps)
        thin = self.weather.on("thin", at)
        for symbol, key in SYMBOLS.items():
            if thin:
                lot = self.books.products[key].lot
                self.books.depth[key] = max(lot, THIN / self.books.price[key] // lot * lot)
            else:
                self.books.depth.pop(key, None)
            self._move(symbol, self.place)
        if at % 3_600_000 < STEP_MS:
            for key in (key for key in SYMBOLS.values() if key[0] == "linear"):
                if self.books.holdings[key].size:
                    self.books.fund(key[1], "0.00001")
                    row = self.books.executions[-1]
                    self._tell(at, FundingPaid(NAME, NAMES[key], PERP, -Decimal(row["execFee"]), 0.00001, at, row["execId"]))
        self.weather.step(at)
        if at % MINUTE_MS < STEP_MS:
            self.books.put_away(at)
        self.snapshots.append(self.wallet(at))
        for symbol, size in self.ours.items():
            self.lately[symbol].append((at, abs(size)))

    # what the books tell

    def _heard(self, topic: str, rows: list[Row]) -> None:
        if topic == "execution":
            for row in rows:
                self._executed(row)
        elif topic == "order":
            for row in rows:
                how = {"Cancelled": "canceled", "PartiallyFilledCanceled": "canceled", "Rejected": "rejected"}.get(row["orderStatus"])
                if how is not None and row["orderLinkId"]:
                    self._tell(self.now(), OrderDone(row["orderLinkId"], self.now(), how, row["rejectReason"], Decimal(row["cumExecQty"])))

    def _executed(self, row: Row) -> None:
        symbol = NAMES[row["category"], row["symbol"]]
        self._trade_ids[symbol] += 1  # the same numbers for every symbol, as some venues have it
        coin = row["feeCurrency"] or "USDT"
        price, signed = Decimal(row["execPrice"]), Decimal(row["execQty"]) * (1 if row["side"] == "Buy" else -1)
        link = row["orderLinkId"]
        fill = Fill(NAME, symbol, str(self._trade_ids[symbol]), link, Side.BUY if signed > 0 else Side.SELL, abs(signed), price,
                    Decimal(row["execFee"]), coin, Decimal(1) if coin == "USDT" else price, Decimal(1), row["isMaker"], self.now(),
                    liquidation=row["execType"] == "AdlTrade")
        if coin != "USDT":
            signed -= fill.fee
        if link.startswith(MARK) or fill.liquidation:
            self.ours[symbol] += signed
        else:
            self._by_owner(symbol, signed)
        if self.ours[symbol] * self.owners[symbol] < 0:
            self.netted.append((self.now(), symbol))
        self._tell(self.now(), FillSeen(fill, row["leavesQty"] == "0" and not fill.liquidation))

    def _by_owner(self, symbol: str, signed: Decimal) -> None:
        """He closes what is his first, then ours, and what is left he opens."""
        ours, his = self.ours[symbol], self.owners[symbol]
        if ours * signed < 0:
            part = min(abs(ours), max(ZERO, abs(signed) - (abs(his) if his * signed < 0 else ZERO)))
            self.ours[symbol] -= part * (1 if ours > 0 else -1)
            signed -= part * (1 if signed > 0 else -1)
        self.owners[symbol] += signed

    def _tell(self, at: int, event: AccountEvent) -> None:
        self.events.append((at, event))
        for listener in list(self.listeners):
            listener(at, event)

    def since(self, at: int) -> Sequence[tuple[int, AccountEvent]]:
        return self.events[bisect_left(self.events, at, key=lambda told: told[0]):]

    def wallet(self, at: int) -> Wallet:
        purse = self.books.wallet
        coins = {coin: amount for coin, amount in purse.items() if coin != "USDT" and amount}
        sizes = {NAMES[key]: holding.size for key, holding in self.books.holdings.items() if holding.size}
        resting = [report_of(ticket) for ticket in self.books.orders.values() if ticket.open]
        if self.alone:
            return Wallet(at, {PERP: ClassWallet("USDT", purse["USDT"], {}, sizes)}, resting)
        return Wallet(at, {SPOT: ClassWallet("USDT", purse["USDT"], coins, {}), PERP: ClassWallet("USDT", ZERO, {}, sizes)}, resting)

    # orders

    def create(self, order: Order) -> Fate:
        """An order arrives."""
        known = self.books.find(order.client_order_id)
        for arrived in self.arrivals:
            arrived(order, known)
        if known is not None:
            return Accepted(known.id) if known.quantity == order.quantity else InDoubt("another order of this id exists")
        category, name = SYMBOLS[order.symbol]
        if self.weather.on("refusing", self.now()) and self.chance.random() < (0.3 if order.reduce_only else 0.7):
            return Refused("110007", "the weather")
        body: Row = {"category": category, "symbol": name, "side": "Buy" if order.side is Side.BUY else "Sell", "qty": str(order.quantity),
                     "orderLinkId": order.client_order_id, "reduceOnly": order.reduce_only and category == "linear",
                     "orderType": "Market" if order.kind in (OrderKind.MARKET, OrderKind.STOP) else "Limit"}
        if order.kind is OrderKind.STOP:
            price = self.books.price[category, name]
            if order.price is None or (order.price >= price if order.side is Side.SELL else order.price <= price):
                return Refused("110092", "the price is there already")
            body |= {"triggerPrice": str(order.price), "triggerDirection": 1 if order.side is Side.BUY else 2, "orderFilter": "StopOrder"}
        elif order.kind is not OrderKind.MARKET:
            body["price"] = str(order.price)
        if category == "spot":
            body["marketUnit"] = "baseCoin"
        try:
            return Accepted(self.books.create(body).id)
        except Denied as denied:
            return Refused(str(denied.code), denied.message)

    def cancel(self, order: Order) -> Fate:
        ticket = self.books.find(order.client_order_id)
        if ticket is None:
            return InDoubt("the venue neither cancels it nor says that it ended")
        if ticket.open:
            self.cancel_ticket(ticket)
        return Accepted(ticket.id)

    def cancel_ticket(self, ticket: Ticket) -> None:
        spot = ticket.product.category == "spot"
        self.books.cancel({"category": ticket.product.category, "orderId": ticket.id,
                           **({"orderFilter": "StopOrder" if ticket.status == "Untriggered" else "Order"} if spot else {})})

    # the owner

    def hands(self) -> None:
        """One thing the account's owner, or the venue of its own, does."""
        held = [symbol for symbol, size in self.ours.items() if size and ":" in symbol and not self.owners[symbol]]
        what = self.chance.choice(self._deeds)
        try:
            self._hand(what, self.chance.choice(held) if held else "")
        except Denied:
            return
        self.hand[what] += 1

    def _hand(self, what: str, held: str) -> None:
        chance, books = self.chance, self.books
        if what in ("deposit", "withdraw"):
            amount = Decimal(chance.randint(1, 300)) * (1 if what == "deposit" or self.spare < 600 else -1)
            self.spare += amount
            self.transfer(amount)
        elif what == "coin":
            books.transfer("BTC", "0.002")
            self.owners["BTC/USDT"] += Decimal("0.002")
        elif what == "buy":
            books.create({"category": "linear", "symbol": chance.choice(("BTCUSDT", "ETHUSDT")), "side": chance.choice(("Buy", "Sell")),
                          "qty": "0.01", "orderType": "Market", "orderLinkId": ""})
        elif what in ("close", "part") and held:
            size = self.ours[held]
            lot = books.products[SYMBOLS[held]].lot
            quantity = abs(size) if what == "close" else max(lot, (abs(size) / 2) // lot * lot)
            books.create({"category": "linear", "symbol": SYMBOLS[held][1], "side": "Sell" if size > 0 else "Buy", "qty": str(quantity),
                          "orderType": "Market", "orderLinkId": ""})
        elif what == "adl" and held:
            lot = books.products[SYMBOLS[held]].lot
            books.deleverage(SYMBOLS[held][1], str(max(lot, (abs(self.ours[held]) / 3) // lot * lot)))
        elif what == "cancel":
            stops = [t for t in books.orders.values() if t.open and t.trigger is not None and t.link.startswith(MARK)]
            if stops:
                self.cancel_ticket(chance.choice(stops))
        elif what == "rest":
            price = books.price["linear", "BTCUSDT"] * Decimal("0.9") // Decimal("0.1") * Decimal("0.1")
            books.create({"category": "linear", "symbol": "BTCUSDT", "side": "Buy", "qty": "0.001", "orderType": "Limit",
                          "price": str(price), "orderLinkId": ""})

    def transfer(self, amount: Decimal) -> None:
        self.books.transfer("USDT", str(amount))
        self._tell(self.now(), Transferred(PERP if self.alone else SPOT, amount, self.now(), self.books.log[-1]["id"]))


def report_of(ticket: Ticket) -> OrderReport:
    return OrderReport(ticket.link, ticket.id, NAMES[ticket.product.category, ticket.product.id],
                       _FATES.get(ticket.status, OrderState.ACCEPTED), ticket.filled, ticket.quantity)


def instrument_of(symbol: str, product: Product) -> Instrument:
    perp = ":" in symbol
    return Instrument(symbol=symbol, venue=NAME, asset_class=PERP if perp else SPOT, base=product.base, quote=product.quote,
                      settle=product.quote, underlying=product.base, tick=product.tick, lot=product.lot, quantity_min=product.lot,
                      notional_min=product.notional_min, maker_fee=product.maker, taker_fee=product.taker,
                      leverage_max=product.leverage_max,
                      funding_interval_h=8 if perp else None)


def gaps(exchange: Exchange) -> dict[str, Decimal]:
    """How much of our positions no resting stop of ours covers (+), and how much stops rest for beyond them (-), by symbol. What is too
    little to sell is left out, and so is what stands beside something of the owner's: there what nobody has heard of is waited for."""
    found = {}
    stops = [t for t in exchange.books.orders.values() if t.open and t.trigger is not None and t.link.startswith(MARK)]
    for symbol, key in SYMBOLS.items():
        size, product = exchange.ours[symbol], exchange.books.products[key]
        if exchange.owners[symbol]:
            continue
        covered = sum((t.remaining for t in stops if t.product is product and (t.buy == (size < 0) or not size)), ZERO)
        gap = abs(size) - covered
        if abs(gap) >= product.lot and (gap < ZERO or gap * exchange.books.price[key] >= product.notional_min):
            found[symbol] = gap
    return found
