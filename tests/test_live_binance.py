"""The whole daemon on Binance's wire: the unmodified ccxt client, the emulated venue, a wallet each for spot and for perpetuals."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from modules.domain.events import (
    BalanceAdjusted,
    ExitRequested,
    Filled,
    ForeignFill,
    FundingBooked,
    OrderIntended,
    PositionClosed,
    Reconciled,
    TradingHalted,
)
from modules.domain.instrument import AssetClass
from modules.domain.order import ExitReason, Purpose
from tests.binance_worlds import adapter
from tests.bybit_worlds import BOTH, PERP, SPOT
from tests.emulators.binance import BinanceEmulator, serving
from tests.emulators.frame import Fault, Reply
from tests.live_worlds import Life, above, driven, life, patient, played
from tests.test_live_bybit import ALLOCATE, LEVEL, LOW, PROTECT_MS, World

D = Decimal


class BinanceWorld(World):
    """10,000 USDT in each of two wallets."""

    def __init__(self, venue: BinanceEmulator, folder: Path) -> None:
        super().__init__(venue, folder)  # type: ignore[arg-type]
        self.binance = venue

    def tick(self) -> None:
        self.watch.look()
        self.natural_minute()
        for category in ("spot", "linear"):
            self.binance.market._tell_price((category, "BTCUSDT"))

    def bare(self) -> bool:
        size = self.binance.market.holdings["linear", "BTCUSDT"].size
        under = sum((algo.quantity for algo in self.binance.market.algos.values() if algo.status == "NEW"), D(0))
        return size > 0 and under < size

    def born(self, classes: tuple[AssetClass, ...] = BOTH, *, allocate: dict[AssetClass, Decimal | None] | None = None,
             **execution: Any) -> Life:
        venue = adapter(self.binance, classes=classes, symbols=(SPOT, PERP))
        venue.clock = self.clock
        for client in (venue.data, venue.trade):
            client.milliseconds = self.clock.now  # ccxt signs with our clock
        made = life(venue, self.clock, self.folder, strategies={c: above(c, level=LEVEL, stop=0.01) for c in classes},
                    settlement=dict.fromkeys(classes, "USDT"), allocate=ALLOCATE if allocate is None else allocate,
                    symbols=frozenset(venue.symbols),
                    policies=self.policies or patient(**{"protect_within_s": PROTECT_MS / 1000, **execution}))
        self.lives.append(made)
        return made

    async def starts(self, **named: Any) -> Life:
        made = self.born(**named)
        await made.daemon.start()
        made.run()
        topics = ("user:spot", "user:linear", "spot|btcusdt@kline_1m", "linear|btcusdt@kline_1m", "linear|btcusdt@bookTicker")
        await made.until(lambda: all(self.binance.listeners[topic] for topic in topics), "the streams are up")
        await made.until(lambda: made.daemon.market.quote(PERP) is not None, "quotes")
        return made

    def trade_by_hand(self, side: str, quantity: str) -> None:
        self.binance.market.place("spot", {"symbol": "BTCUSDT", "type": "MARKET", "side": side.upper(), "quantity": quantity})

    def close_by_hand(self) -> None:
        size = self.binance.market.holdings["linear", "BTCUSDT"].size
        self.binance.market.place("linear", {"symbol": "BTCUSDT", "type": "MARKET", "side": "SELL", "quantity": str(size),
                                             "reduceOnly": "true"})

    def cancel_by_hand(self) -> None:
        for algo in [algo for algo in self.binance.market.algos.values() if algo.status == "NEW"]:
            self.binance.market.drop_algo({"algoId": algo.id})
        for ticket in self.stops():
            self.binance.market.drop("spot", {"symbol": "BTCUSDT", "orderId": ticket.id})

    def deafen(self) -> None:
        self.market.emit = lambda topic, rows: None if topic.startswith("user:") else self.binance._emit(topic, rows)

    def listen(self) -> None:
        self.market.emit = self.binance._emit

    def lose(self, reply: Reply, *, accepted: bool) -> None:
        self.binance.faults.append(Fault("rder", reply, accepted, "POST"))  # order or algoOrder

    def our_executions(self) -> set[tuple[str, str]]:
        names, market = {"spot": SPOT, "linear": PERP}, self.binance.market
        return {(names[category], str(row["id"])) for category, rows in market.trades.items() for row in rows
                if market.orders[str(row["orderId"])].link.startswith("tb")}

    def sent(self) -> Counter[str]:
        return Counter(body.get("newClientOrderId") or body["clientAlgoId"] for path, body in self.binance.bodies
                       if path.endswith(("/order", "/algoOrder")) and "quantity" in body)

    def agree(self, alive: Life, classes: tuple[AssetClass, ...] = BOTH) -> None:
        """All the books + the owner's part = both wallets, coin by coin."""
        portfolio, owners = alive.daemon.portfolio, alive.daemon.wallets.unallocated("binance")
        purses = self.binance.market.purses
        assert sum((portfolio.wallet_cash(c) for c in classes), D(0)) + owners.pop("USDT", D(0)) == sum(p["USDT"] for p in purses.values())
        coins = defaultdict[str, Decimal](Decimal)
        for one in (*(portfolio.coins(c) for c in classes), owners):
            for name, amount in one.items():
                coins[name] += amount
        held = {coin: amount for coin, amount in purses["spot"].items() if coin != "USDT" and amount}
        size = self.binance.market.holdings["linear", "BTCUSDT"].size
        assert {name: amount for name, amount in coins.items() if amount} == held | ({PERP: size} if size else {})


def on_binance(folder: Path, story: Callable[[BinanceWorld], Awaitable[None]]) -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[BinanceWorld]:
        async with serving() as venue:
            made = BinanceWorld(venue, folder)
            async with driven(made.tick):
                yield made

    played(world, story)


def test_entries_stops_funding_a_crash_and_exits_leave_the_books_the_two_wallets(tmp_path: Path) -> None:
    async def story(on: BinanceWorld) -> None:
        on.binance.market.depth["linear", "BTCUSDT"] = D("0.004")
        first = await on.starts()
        await on.enters(first)
        assert len([fact for fact in first.of(Filled) if fact.fill.symbol == PERP]) > 1, "filled in parts"
        await first.soon(lambda: on.agree(first))
        await first.die()
        # While nobody is there: funding, the spot stop fills, and the owner cancels the perpetual's stop in the venue's app.
        on.binance.market.fund("BTCUSDT", "0.000137")
        on.binance.market.move("spot", "BTCUSDT", "49000")
        for algo in [algo for algo in on.binance.market.algos.values() if algo.status == "NEW"]:
            on.binance.market.drop_algo({"algoId": algo.id})
        on.watch.begin()
        second = await on.starts()
        await second.until(lambda: any(algo.status == "NEW" for algo in on.binance.market.algos.values()), "the stop is back")
        (closed,) = second.of(PositionClosed)
        assert (closed.trade.asset_class, len(second.of(FundingBooked))) == (AssetClass.SPOT, 1)
        await second.soon(lambda: on.agree(second))
        on.price(LOW)
        on.minute()
        await second.until(lambda: len(second.of(PositionClosed)) == 2 and not second.resting(Purpose.STOP), "flat")
        await second.soon(lambda: on.agree(second))
        await second.end()
        every = [fact for one in on.lives for fact in one.facts]
        assert not any(isinstance(fact, BalanceAdjusted | ForeignFill | TradingHalted) for fact in every)
        booked = [fact.fill.venue_trade_id for fact in every if isinstance(fact, Filled)]
        traded = [str(row["id"]) for rows in on.binance.market.trades.values() for row in rows]
        assert sorted(booked) == sorted(traded)

    on_binance(tmp_path, story)


def test_after_a_crash_a_missing_stop_is_put_back_before_anything_is_compared_and_before_any_history_is_asked_for(tmp_path: Path) -> None:
    async def story(on: BinanceWorld) -> None:
        first = await on.starts()
        await on.enters(first)
        await first.die()
        for algo in [algo for algo in on.binance.market.algos.values() if algo.status == "NEW"]:
            on.binance.market.drop_algo({"algoId": algo.id})
        on.binance.asked.clear()
        on.watch.begin()
        second = await on.starts()
        await second.end()
        intended = [(at, fact.order) for at, fact in enumerate(second.facts) if isinstance(fact, OrderIntended)]
        assert next(at for at, order in intended if order.purpose is Purpose.STOP) < next(
            at for at, fact in enumerate(second.facts) if isinstance(fact, Reconciled))
        asked = list(on.binance.asked)  # in the order in which each was asked for first
        assert asked.index("POST /fapi/v1/algoOrder") < asked.index("GET /fapi/v1/klines")

    on_binance(tmp_path, story)


def test_a_wish_to_close_while_the_venue_is_away_is_kept_through_a_restart_and_carried_out_at_its_first_answer(tmp_path: Path) -> None:
    async def story(on: BinanceWorld) -> None:
        first = await on.starts()
        await on.enters(first)
        await first.die()
        waiting = on.born()
        waiting.daemon.desk.waiting = lambda: "binance cannot be reached"
        waiting.daemon.remember()
        sent = on.sent()
        said = waiting.daemon.desk.handle("flatten", {}, "the owner")
        assert {trade["symbol"] for trade in said["closing"]} == {SPOT, PERP} and said["waits"] == "binance cannot be reached"
        assert waiting.daemon.desk.handle("forceexit", {"subject": "all"}, "the owner")["closing"] == said["closing"]
        assert len(waiting.of(ExitRequested)) == 2 and not waiting.of(OrderIntended) and on.sent() == sent
        await waiting.die()
        on.binance.asked.clear()
        third = await on.starts()
        await third.until(lambda: len(third.of(PositionClosed)) == 2 and not third.resting(Purpose.STOP), "flat")
        assert {fact.trade.exit_reason for fact in third.of(PositionClosed)} == {ExitReason.FORCE_EXIT}
        asked = list(on.binance.asked)
        first_exit = min(asked.index(what) for what in ("DELETE /api/v3/order", "POST /fapi/v1/order"))  # coins are locked by their stop
        assert first_exit < asked.index("GET /fapi/v1/klines")
        await third.soon(lambda: on.agree(third))
        await third.end()

    on_binance(tmp_path, story)
