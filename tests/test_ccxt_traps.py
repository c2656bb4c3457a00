"""The traps of the wire, one test each, on every certified exchange behind ccxt. Those of one exchange alone are in its own file.

An emulator and its adapter have one author; clients nobody here wrote are asked in test_bybit_emulator.py and test_binance_emulator.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from pydantic import SecretStr

from modules.domain.errors import VenueDenied, VenueError
from modules.domain.instrument import AssetClass, Side
from modules.domain.market import Batch
from modules.domain.money import ZERO
from modules.domain.order import Accepted, InDoubt, OrderKind, OrderState, Refused
from modules.venues.ccxt_client import Credentials
from modules.venues.ccxt_venue import CcxtVenue
from modules.venues.protocol import FillSeen, OrderDone
from tests import binance_worlds, bybit_worlds
from tests.bybit_worlds import PERP, SPOT, Listener, order, stop, until
from tests.emulators import binance as binance_emulator
from tests.emulators import bybit as bybit_emulator
from tests.emulators.frame import Fault, Reply

OPEN: dict[str, Any] = {"bybit": bybit_worlds.bybit, "binance": binance_worlds.binance}
ADAPTERS: dict[str, Any] = {"bybit": bybit_worlds.adapter, "binance": binance_worlds.adapter}
EMULATORS: dict[str, Any] = {"bybit": bybit_emulator, "binance": binance_emulator}
CREATE = {"bybit": "/v5/order/create", "binance": "/api/v3/order"}
BALANCE = {"bybit": "wallet-balance", "binance": "/api/v3/account"}
CANDLES = {"bybit": "kline.1.BTCUSDT", "binance": "spot|btcusdt@kline_1m"}
TOPICS = {"bybit": ("execution", "order"), "binance": ("user:spot", "user:linear")}
each_venue = pytest.mark.parametrize("venue_name", sorted(OPEN))


def heard_by(venue: Any, venue_name: str) -> bool:
    """Whether somebody listens to the account there."""
    return all(venue.listeners[topic] for topic in TOPICS[venue_name])


def executions(venue: Any) -> list[tuple[str, str]]:
    """(reference, what) of every trade in the venue's own book."""
    if isinstance(venue, binance_emulator.BinanceEmulator):
        return [(str(row["id"]), category) for category, rows in venue.market.trades.items() for row in rows]
    return [(row["execId"], row["category"]) for row in venue.market.executions if row["execType"] == "Trade"]


def cash(venue: Any) -> Decimal:
    """Dollars in all its wallets."""
    market = venue.market
    purses = market.purses.values() if isinstance(venue, binance_emulator.BinanceEmulator) else (market.wallet,)
    return sum((purse["USDT"] for purse in purses), ZERO)


async def day(venue: Any, made: CcxtVenue) -> None:
    """A day's trading in both categories: partial fills, a stop, a target, funding, a cancel, a deposit."""
    market = venue.market
    market.depth["spot", "BTCUSDT"] = Decimal("0.004")
    assert isinstance(await made.submit(order("1", quantity="0.010001")), Accepted)
    market.depth.clear()
    assert isinstance(await made.submit(order("2", kind=OrderKind.LIMIT, price="49000.01")), Accepted)
    market.walk("spot", "BTCUSDT", 30, seed=7)
    market.move("spot", "BTCUSDT", "48990")
    assert isinstance(await made.submit(stop("3", SPOT, "48000", "0.009")), Accepted)
    market.move("spot", "BTCUSDT", "47900")
    assert isinstance(await made.submit(order("4", PERP, quantity="0.037")), Accepted)
    market.fund("BTCUSDT", "0.000137")
    assert isinstance(await made.submit(stop("5", PERP, "49500", "0.037")), Accepted)
    assert isinstance(await made.submit(order("6", PERP, Side.SELL, "0.02", kind=OrderKind.TARGET, price="51000.1", reduce=True)), Accepted)
    market.move("linear", "BTCUSDT", "51000.3")
    market.move("linear", "BTCUSDT", "49400.7")
    assert isinstance(await made.submit(order("7", PERP, Side.SELL, "0.013")), Accepted)
    market.fund("BTCUSDT", "-0.0002")
    resting = order("8", kind=OrderKind.LIMIT, price="40000")
    assert isinstance(await made.submit(resting), Accepted)
    assert isinstance(await made.cancel(resting), Accepted)
    market.transfer("USDT", "250.5")


@each_venue
async def test_wallet_and_fills_equal_the_venues_own_ledger_to_the_last_unit(venue_name: str) -> None:
    async with OPEN[venue_name]() as (venue, made):
        start, opening = made.clock.now() - 1_000, cash(venue)
        await day(venue, made)
        wallet = await made.wallet()
        spot, perp = wallet.classes[AssetClass.SPOT], wallet.classes[AssetClass.PERP]
        held = venue.market.purse("spot")["BTC"]
        assert spot.cash + perp.cash == cash(venue)
        assert dict(spot.coins) == {"BTC": held}
        assert dict(perp.positions) == {PERP: venue.market.holdings["linear", "BTCUSDT"].size} == {PERP: Decimal("-0.013")}
        assert list(wallet.open_orders) == []

        # And from the fills alone, with the arithmetic of a ledger that knows nothing of the venue's.
        dollars, coins, position, entry = opening, defaultdict[str, Decimal](Decimal), ZERO, ZERO
        fills = await made.fills_since(start)
        for fill in (seen.fill for seen in fills):
            signed = fill.side.sign * fill.quantity
            if fill.symbol == SPOT:
                coins["BTC"] += signed
                dollars -= signed * fill.price
            else:
                if position * signed < 0:
                    dollars += -signed * (fill.price - entry)
                else:
                    entry = fill.price
                position += signed
            if fill.fee_currency == "BTC":
                coins["BTC"] -= fill.fee
            else:
                dollars -= fill.fee
        dollars += sum((paid.amount for paid in await made.funding_since(start)), ZERO)
        dollars += sum((moved.amount for moved in await made.transfers_since(start)), ZERO)
        assert (dollars, dict(coins), position) == (cash(venue), {"BTC": held}, Decimal("-0.013"))
        assert len(fills) == len({(seen.fill.symbol, seen.fill.venue_trade_id) for seen in fills}) == 9
        assert {seen.fill.client_order_id for seen in fills} == {f"tb{number}" for number in range(1, 8)}
        assert [seen.fill.client_order_id for seen in fills if not seen.order_done] == ["tb1", "tb1"]


@each_venue
async def test_the_private_streams_tell_the_same_fills_as_the_audit_each_once(venue_name: str) -> None:
    async with OPEN[venue_name]() as (venue, made), Listener(made) as heard:
        await until(lambda: heard_by(venue, venue_name))
        await day(venue, made)
        truth = {reference for reference, _ in executions(venue)}
        await heard.until(lambda events: {e.fill.venue_trade_id for e in events if isinstance(e, FillSeen)} >= truth)
        await heard.until(lambda events: any(isinstance(e, OrderDone) and e.client_order_id == "tb8" for e in events))
        fills = [event.fill.venue_trade_id for event in heard.events if isinstance(event, FillSeen)]
        assert sorted(fills) == sorted(truth)


@each_venue
@pytest.mark.parametrize(("symbol", "price"), [(SPOT, "49000"), (PERP, "49000")])
async def test_a_stop_really_is_a_conditional_order_and_never_an_immediate_market_order(venue_name: str, symbol: str, price: str) -> None:
    category = "linear" if ":" in symbol else "spot"
    async with OPEN[venue_name]() as (venue, made):
        await made.submit(order("1", symbol, quantity="0.02"))
        assert isinstance(await made.submit(stop("2", symbol, price)), Accepted)
        path, sent = venue.bodies[-1]
        if venue_name == "bybit":
            assert sent["triggerPrice"] == price and ("triggerDirection" in sent) == (category == "linear")
        elif category == "spot":
            assert (path, sent["type"], Decimal(sent["stopPrice"])) == ("/api/v3/order", "STOP_LOSS", Decimal(price))
        else:
            assert (path, sent["type"], sent["triggerPrice"], sent["clientAlgoId"], sent["reduceOnly"]) == (
                "/fapi/v1/algoOrder", "STOP_MARKET", price, "tb2", "true")
        resting = await made.order("tb2", symbol)
        assert resting is not None and (resting.state, resting.filled) == (OrderState.ACCEPTED, ZERO)
        assert [report.client_order_id for report in (await made.wallet()).open_orders] == ["tb2"]
        venue.market.move(category, "BTCUSDT", "48999")
        filled = await made.order("tb2", symbol)
        assert filled is not None and (filled.state, filled.filled) == (OrderState.FILLED, Decimal("0.01"))


@each_venue
@pytest.mark.parametrize("symbol", [SPOT, PERP])
async def test_a_resting_stop_is_canceled_by_client_id(venue_name: str, symbol: str) -> None:
    async with OPEN[venue_name]() as (_, made):
        await made.submit(order("1", symbol, quantity="0.02"))
        resting = stop("2", symbol, "49000")
        await made.submit(resting)
        assert isinstance(await made.cancel(resting), Accepted)
        report = await made.order("tb2", symbol)
        assert report is not None and report.state is OrderState.CANCELED
        assert isinstance(await made.cancel(resting), Accepted), "what ended is ended"


@each_venue
async def test_an_order_is_found_by_client_id_open_and_ended_though_fetch_order_cannot(venue_name: str) -> None:
    async with OPEN[venue_name]() as (_, made):
        await made.submit(order("1", kind=OrderKind.LIMIT, price="40000"))
        await made.submit(order("2"))
        found = [await made.order(name, SPOT) for name in ("tb1", "tb2", "tb3")]
        assert [report and report.state for report in found] == [OrderState.ACCEPTED, OrderState.FILLED, None]


@each_venue
async def test_a_reply_lost_after_acceptance_leaves_a_live_order_that_is_found_not_sent_again(venue_name: str) -> None:
    async with OPEN[venue_name]() as (venue, made):
        venue.faults.append(Fault(CREATE[venue_name], Reply(how="close"), True, "POST"))
        assert isinstance(await made.submit(order("1", kind=OrderKind.LIMIT, price="40000")), InDoubt)
        report = await made.order("tb1", SPOT)
        assert report is not None and report.state is OrderState.ACCEPTED
        assert venue.asked[f"POST {CREATE[venue_name]}"] == 1


@each_venue
async def test_a_spot_buy_pays_its_fee_in_the_coin_so_what_is_filled_is_not_what_is_owned(venue_name: str) -> None:
    async with OPEN[venue_name](classes=(AssetClass.SPOT,), symbols=(SPOT,)) as (_, made):
        await made.submit(order("1", quantity="0.01"))
        (seen,) = await made.fills_since(made.clock.now() - 60_000)
        assert (seen.fill.fee, seen.fill.fee_currency, seen.fill.fee_rate) == (Decimal("0.00001"), "BTC", seen.fill.price)
        assert (await made.wallet()).classes[AssetClass.SPOT].coins == {"BTC": Decimal("0.00999")}


@each_venue
async def test_fills_missed_while_the_websocket_was_down_are_found(venue_name: str) -> None:
    async with OPEN[venue_name]() as (venue, made), Listener(made) as heard:
        await until(lambda: heard_by(venue, venue_name))
        await venue.drop()
        await made.submit(order("1"))
        await heard.until(lambda events: any(isinstance(event, FillSeen) for event in events))
        await until(lambda: heard_by(venue, venue_name))


@each_venue
async def test_a_malformed_frame_ends_the_stream_silently_and_the_audit_finds_what_it_hid(venue_name: str) -> None:
    async with OPEN[venue_name](audit_s=0.3) as (venue, made), Listener(made) as heard:
        await until(lambda: heard_by(venue, venue_name))
        venue.garble()
        await made.submit(order("1"))
        await heard.until(lambda events: any(isinstance(event, FillSeen) for event in events))


@each_venue
async def test_a_deleveraging_is_an_execution_of_nobody_and_is_told_as_one_the_venue_forced(venue_name: str) -> None:
    async with OPEN[venue_name]() as (venue, made):
        await made.submit(order("1", PERP))
        venue.market.deleverage("BTCUSDT", "0.004")
        forced = (await made.fills_since(made.clock.now() - 60_000))[-1].fill
        assert (forced.liquidation, forced.client_order_id, forced.side, forced.quantity) == (True, "", Side.SELL, Decimal("0.004"))


@each_venue
async def test_a_partly_filled_order_that_ends_keeps_what_was_filled(venue_name: str) -> None:
    async with OPEN[venue_name]() as (venue, made):
        venue.market.depth["spot", "BTCUSDT"] = Decimal("0.004")
        resting = order("1", kind=OrderKind.LIMIT, price="50000.01")
        await made.submit(resting)
        assert isinstance(await made.cancel(resting), Accepted)
        report = await made.order("tb1", SPOT)
        assert report is not None and (report.state, report.filled, report.quantity) == (
            OrderState.CANCELED, Decimal("0.004"), Decimal("0.01"))


@pytest.mark.parametrize("symbol", [SPOT, PERP])
@each_venue
async def test_an_end_says_how_much_was_filled_before_for_that_may_be_untold(venue_name: str, symbol: str) -> None:
    async with OPEN[venue_name]() as (venue, made), Listener(made) as heard:
        await until(lambda: heard_by(venue, venue_name))
        venue.market.depth["spot" if symbol == SPOT else "linear", "BTCUSDT"] = Decimal("0.004")
        resting = order("1", symbol, kind=OrderKind.LIMIT, price="50000.1")
        await made.submit(resting)
        assert isinstance(await made.cancel(resting), Accepted)
        await heard.until(lambda events: any(isinstance(event, OrderDone) for event in events))
        (done,) = (event for event in heard.events if isinstance(event, OrderDone))
        assert (done.client_order_id, done.how, done.filled) == ("tb1", "canceled", Decimal("0.004"))


@each_venue
async def test_a_cancel_that_crosses_a_fill_says_that_the_order_ended(venue_name: str) -> None:
    async with OPEN[venue_name]() as (venue, made):
        resting = order("1", kind=OrderKind.LIMIT, price="49000")
        await made.submit(resting)
        venue.market.move("spot", "BTCUSDT", "48000")
        assert isinstance(await made.cancel(resting), Accepted)
        report = await made.order("tb1", SPOT)
        assert report is not None and report.state is OrderState.FILLED


@each_venue
async def test_a_cancel_of_an_order_nobody_knows_proves_nothing(venue_name: str) -> None:
    async with OPEN[venue_name]() as (_, made):
        fate = await made.cancel(order("1", kind=OrderKind.LIMIT, price="49000"))
        assert isinstance(fate, InDoubt) and fate.answered, "which is no failure of the venue's"


@each_venue
async def test_the_forming_candle_is_never_history(venue_name: str) -> None:
    async with OPEN[venue_name]() as (_, made):
        bars = await made.history(SPOT, made.clock.now() + 600_000, 50)
        assert len(bars) in (49, 50) and bars[-1].ts + 60_000 <= made.clock.now()
        assert {later.ts - bar.ts for bar, later in pairwise(bars)} == {60_000}


@each_venue
async def test_only_closed_candles_are_streamed_and_a_hole_is_filled_over_rest(venue_name: str) -> None:
    async with OPEN[venue_name](stale_s=2.0) as (venue, made):
        told: list[Batch] = []
        market, key = venue.market, ("spot", "BTCUSDT")
        forming = market.candles[key][-1][0]
        made.clock.ahead_ms = 3_600_000

        async def listen() -> None:
            async for batch in made.market_events():
                told.append(batch)

        task = asyncio.create_task(listen())
        try:
            await until(lambda: venue.listeners[CANDLES[venue_name]] >= 1 and told)
            assert [bar for batch in told for _, bar in batch.bars] == []
            market.close_bar(*key)
            await until(lambda: any(batch.bars for batch in told))
            await venue.drop()
            for _ in range(3):
                market.close_bar(*key)
            await until(lambda: sum(len(batch.bars) for batch in told) >= 4)
            market.close_bar(*key)
            await until(lambda: sum(len(batch.bars) for batch in told) >= 5)
            bars = [bar.ts for batch in told for symbol, bar in batch.bars if symbol == SPOT]
            assert bars == [forming + 60_000 * index for index in range(5)]
            await until(lambda: {symbol for batch in told for symbol, _ in batch.quotes} == {SPOT, PERP})
            quotes = {symbol: quote for batch in told for symbol, quote in batch.quotes}
            assert (quotes[PERP].bid, quotes[PERP].ask) == (49_999.9, 50_000.1)
            assert {symbol: mark for batch in told for symbol, mark in batch.marks} == {PERP: 50_000.0}
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@each_venue
async def test_a_silent_feed_is_heard_again_after_a_malformed_frame_ended_the_stream(venue_name: str) -> None:
    """F58, R16: ccxt's receive loop dies without a word; the watchdog opens a new connection."""
    async with OPEN[venue_name](stale_s=0.4) as (venue, made):
        seen: list[float] = []

        async def listen() -> None:
            async for batch in made.market_events():
                seen.extend(quote.bid for symbol, quote in batch.quotes if symbol == PERP)

        task = asyncio.create_task(listen())
        try:
            await until(lambda: seen)
            venue.garble()
            await asyncio.sleep(0.05)
            venue.market.price["linear", "BTCUSDT"] = Decimal("51000")
            await until(lambda: seen[-1] == 50_999.9)
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@each_venue
async def test_market_data_and_trading_have_clients_of_their_own_and_no_write_is_repeated_by_ccxt(venue_name: str) -> None:
    async with OPEN[venue_name]() as (_, made):
        assert (made.data is not made.trade and made.data.apiKey is None) or made.data.apiKey == ""
        assert {client.options["maxRetriesOnFailure"] for client in (made.data, made.trade)} == {0}


@each_venue
async def test_no_secret_is_in_any_error_or_log_even_at_debug(venue_name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with OPEN[venue_name]() as (venue, made):
        await made.wallet()
        said = []
        emulator = EMULATORS[venue_name]
        key, secret = emulator.KEY, emulator.SECRET
        denial = emulator.coded({"bybit": 10003, "binance": -2014}[venue_name], f"key {key} {secret} is invalid")
        for reply in (denial, Reply(500, f"oops {secret}".encode()), Reply(how="close")):
            venue.always = [Fault(BALANCE[venue_name], reply, False)]
            with pytest.raises(VenueError) as error:
                await made.wallet()
            venue.always = []
            said.append(f"{error.value} {error.value.__cause__}")
            venue.faults.append(Fault(CREATE[venue_name], reply, False, "POST"))
            said.append(str(await made.submit(order("1"))))
        told = " ".join(said) + caplog.text
        assert key not in told and secret not in told and "X-BAPI-SIGN" not in told and "signature=" not in told


@each_venue
async def test_a_wrong_secret_is_denied(venue_name: str) -> None:
    wrong = Credentials(SecretStr(EMULATORS[venue_name].KEY), SecretStr("wrong"))
    async with OPEN[venue_name](credentials=wrong) as (_, made):
        await made.history(SPOT, made.clock.now(), 3)
        with pytest.raises(VenueDenied):
            await made.wallet()
        assert isinstance(await made.submit(order("1")), Refused)


@each_venue
async def test_without_a_key_there_is_market_data_and_nothing_else(venue_name: str) -> None:
    async with OPEN[venue_name](credentials=None) as (_, made):
        assert await made.history(PERP, made.clock.now(), 3)
        assert isinstance(await made.submit(order("1")), Refused)
        with pytest.raises(VenueDenied):
            await made.wallet()


@each_venue
async def test_our_own_gate_refuses_what_ccxt_would_let_through(venue_name: str) -> None:
    limit = {"kind": OrderKind.LIMIT}
    wrong: list[dict[str, Any]] = [
        {"quantity": "-0.01"}, {"quantity": "0"}, {"quantity": "0.0000001"}, {"quantity": "NaN"}, limit | {"price": "-1"},
        limit | {"price": "1.001"}, limit, {"quantity": "0.00002"}, {"symbol": "NOPE/USDT"}]
    async with OPEN[venue_name]() as (venue, made):
        fates = [await made.submit(order("1", **changes)) for changes in wrong]
        assert [changes for changes, fate in zip(wrong, fates, strict=True) if not isinstance(fate, Refused)] == []
        assert venue.asked[f"POST {CREATE[venue_name]}"] == 0


@each_venue
async def test_two_adapters_may_listen_to_one_account(venue_name: str) -> None:
    async with OPEN[venue_name]() as (venue, made):
        other = ADAPTERS[venue_name](venue)
        try:
            await made.submit(order("1"))
            assert await other.order("tb1", SPOT) == await made.order("tb1", SPOT)
        finally:
            await other.close()
