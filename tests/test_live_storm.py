"""A storm over a live account: the owner trades, pays in and out and cancels by hand, streams go deaf, answers are lost, the process dies
and comes back, while the daemon trades. When it is over, every coin is explained and nothing was sent twice. Seeds: STORM_SEEDS."""

from __future__ import annotations

import asyncio
import os
import random
from decimal import Decimal
from pathlib import Path

import pytest

from modules.domain.events import BalanceAdjusted, Filled, TradingHalted
from tests.emulators import bybit as emulator
from tests.emulators import oanda as broker
from tests.emulators.bybit_market import Denied
from tests.emulators.oanda_book import Denied as NotTaken
from tests.live_worlds import Life
from tests.test_live_bybit import World, on_bybit
from tests.test_live_oanda import HIGH, LOW, on_oanda
from tests.test_live_oanda import World as OandaWorld
from tests.test_live_oanda import agree as oanda_agrees

D = Decimal
SEEDS = range(int(os.environ.get("STORM_SEEDS", "2")))
HAND = {"symbol": "BTCUSDT", "orderType": "Market"}
ROUNDS = 14


def _hands(on: World, chance: random.Random) -> str:
    """One thing the owner or the weather does."""
    market, held = on.market, on.market.holdings["linear", "BTCUSDT"].size
    what = chance.choice(["buy", "sell", "deposit", "withdraw", "cancel", "fund", "deaf", "hear", "lost", "close", "drop", "coin"])
    try:
        match what:
            case "buy":
                market.create(HAND | {"category": "spot", "side": "Buy", "qty": "0.002", "marketUnit": "baseCoin"})
            case "sell":
                market.create(HAND | {"category": "spot", "side": "Sell", "qty": "0.001", "marketUnit": "baseCoin"})
            case "deposit":
                market.transfer("USDT", str(chance.randint(1, 300)))
            case "withdraw":
                market.transfer("USDT", str(-chance.randint(1, 100)))
            case "coin":
                market.transfer("BTC", "0.01")
            case "cancel":
                for ticket in on.stops():
                    drawer = {"orderFilter": "StopOrder"} if ticket.product.category == "spot" else {}
                    market.cancel({"category": ticket.product.category, "symbol": "BTCUSDT", "orderId": ticket.id, **drawer})
            case "fund" if held:
                market.fund("BTCUSDT", "0.0001")
            case "close" if held:
                market.create(HAND | {"category": "linear", "side": "Sell", "qty": str(held), "reduceOnly": True})
            case "deaf":
                market.emit = lambda topic, rows: None if topic in ("execution", "order") else on.venue._emit(topic, rows)
            case "hear":
                market.emit = on.venue._emit
            case "lost":
                on.venue.faults.append(emulator.Fault("order/create", emulator.Reply(502, b"<html>"), chance.random() < 0.7))
    except Denied:
        return f"{what} (refused)"
    return what


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_storm_every_coin_is_explained_and_nothing_was_sent_twice(tmp_path: Path, seed: int) -> None:
    async def story(on: World) -> None:
        chance, told, lives = random.Random(seed), list[str](), list[Life]()
        on.market.wallet["BTC"] = D("0.3")
        on.bare_ms = 30_000  # several answers about the stop, and then about the exit, may be lost in a row
        on.market.depth["linear", "BTCUSDT"] = D("0.006")
        alive = await on.starts(clock_poll_s=600.0)  # time is pushed by minutes
        lives.append(alive)
        for _ in range(ROUNDS):
            on.price(chance.choice(["50000", "51000", "50900", "49000"]))
            on.minute()
            for _ in range(chance.randint(0, 2)):
                told.append(_hands(on, chance))
                if told[-1] == "drop":
                    await on.venue.drop()
                await asyncio.sleep(chance.random() * 0.4)
            if chance.random() < 0.15:
                told.append("killed")
                await alive.die()
                on.watch.begin()
                alive = await on.starts(clock_poll_s=600.0)
                lives.append(alive)
            await asyncio.sleep(0.3)
        on.market.emit = on.venue._emit
        on.venue.faults.clear()

        def explained() -> bool:
            try:
                on.agree(alive)
            except AssertionError:
                return False
            return not alive.daemon.executor.in_doubt

        try:
            await alive.until(explained, f"everything explained after {told}", 40)
        except AssertionError:
            on.agree(alive)
            raise
        every = [fact for one in lives for fact in one.facts]
        booked = [(f.fill.symbol, f.fill.venue_trade_id) for f in every if isinstance(f, Filled)]
        assert len(booked) == len(set(booked)), told
        ours = {row["execId"] for row in on.market.executions if row["execType"] == "Trade" and row["orderLinkId"]}
        assert ours <= {trade for _, trade in booked}, told
        assert not [fact for fact in every if isinstance(fact, BalanceAdjusted)], told
        halts = {fact.trigger.value for fact in every if isinstance(fact, TradingHalted)}
        assert halts <= {"slippage", "orders_in_doubt", "api_errors", "daily_drawdown"}, halts

    on_bybit(tmp_path, story)


def _broker(on: OandaWorld, chance: random.Random) -> str:
    book = on.book
    what = chance.choice(["buy", "sell", "deposit", "withdraw", "cancel", "deaf", "hear", "lost", "night", "close", "drop"])
    held = book.position("EUR_USD")
    try:
        match what:
            case "buy" | "sell":
                units = str(chance.randint(1, 900) * (1 if what == "buy" else -1))
                book.create({"type": "MARKET", "instrument": "EUR_USD", "units": units, "timeInForce": "FOK"})
            case "close" if held:
                book.create({"type": "MARKET", "instrument": "EUR_USD", "units": str(-held), "timeInForce": "FOK"})
            case "deposit":
                book.transfer(D(chance.randint(1, 300)))
            case "withdraw":
                book.transfer(D(-chance.randint(1, 100)))
            case "cancel":
                for order in on.resting():
                    book.cancel(order, "CLIENT_REQUEST")
            case "deaf":
                on.emulator.deaf = {"transactions"}
            case "hear":
                on.emulator.deaf = set()
            case "lost":
                on.emulator.faults.append(broker.Fault("POST", "/orders", broker.Reply(502, b"<html>"), chance.random() < 0.7))
            case "night":
                on.clock._start += 5 * 3_600_000
            case "drop":
                on.emulator.drop_streams()
    except NotTaken:
        return f"{what} (denied)"
    return what


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_storm_at_the_broker_every_cent_is_explained_and_nothing_was_sent_twice(tmp_path: Path, seed: int) -> None:
    async def story(on: OandaWorld) -> None:
        chance, told, lives = random.Random(seed), list[str](), list[Life]()
        alive = await on.starts(allocate=D(5_000))
        lives.append(alive)
        await alive.until(lambda: on.emulator.listeners == 2, "the streams are up")
        for _ in range(ROUNDS):
            on.price = chance.choice([LOW, HIGH])
            for _ in range(chance.randint(0, 2)):
                told.append(_broker(on, chance))
                await asyncio.sleep(chance.random() * 0.4)
            if chance.random() < 0.15:
                told.append("killed")
                await alive.die()
                on.watch.begin()
                alive = await on.starts(allocate=D(5_000))
                lives.append(alive)
            await asyncio.sleep(0.8)
        on.emulator.deaf, on.emulator.faults = set(), []

        def explained() -> bool:
            try:
                oanda_agrees(on, alive)
            except AssertionError:
                return False
            return not alive.daemon.executor.in_doubt

        await alive.until(explained, f"everything explained after {told}", 30)
        every = [fact for one in lives for fact in one.facts]
        booked = [f.fill.venue_trade_id for f in every if isinstance(f, Filled)]
        assert len(booked) == len(set(booked)), told
        ours = {row["id"] for row in on.book.transactions if row["type"] == "ORDER_FILL" and row.get("clientOrderID", "").startswith("tb")}
        assert ours <= set(booked), told
        # Where he holds the other side of our pair the broker nets the two, and ours is there only as far as the rest reaches.
        assert {fact.currency for fact in every if isinstance(fact, BalanceAdjusted)} <= {"EUR/USD"}, told
        on.watch.begin()  # the owner's own position has no stop, and nights are leapt over

    on_oanda(tmp_path, story)
