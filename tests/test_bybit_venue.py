"""Trading on Bybit through the unmodified ccxt: the adapter's truth against the emulator's ledger, and every trap as a test.

The emulator and the adapter have one author; pybit, a client nobody here wrote, is asked in test_bybit_emulator.py where installed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from decimal import Decimal
from itertools import pairwise

import pytest
from pydantic import SecretStr

from modules.domain.errors import ConfigurationError, VenueDenied, VenueError, VenueUnreachable
from modules.domain.instrument import AssetClass, Side
from modules.domain.market import Batch
from modules.domain.money import ZERO
from modules.domain.order import Accepted, InDoubt, OrderKind, OrderState, Refused
from modules.venues.ccxt_client import Credentials, Endpoint, check_endpoint
from modules.venues.ccxt_venue import CcxtVenue
from modules.venues.protocol import FillSeen, OrderDone, Venue
from tests.bybit_worlds import PERP, SPOT, Listener, adapter, bybit, order, stop, until
from tests.emulators.bybit import KEY, SECRET, BybitEmulator, Fault, Reply, coded
from tests.emulators.bybit_market import Market

OPENING = Decimal("10000")


async def _trade(venue: BybitEmulator, made: CcxtVenue) -> None:
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


async def test_wallet_and_fills_equal_the_venues_own_ledger_to_the_last_unit() -> None:
    async with bybit() as (venue, made):
        start = made.clock.now() - 1_000
        await _trade(venue, made)
        wallet = await made.wallet()
        truth = venue.market
        spot, perp = wallet.classes[AssetClass.SPOT], wallet.classes[AssetClass.PERP]
        assert spot.cash + perp.cash == truth.wallet["USDT"]
        assert dict(spot.coins) == {"BTC": truth.wallet["BTC"]}
        assert dict(perp.positions) == {PERP: truth.holdings["linear", "BTCUSDT"].size} == {PERP: Decimal("-0.013")}
        assert list(wallet.open_orders) == []

        # And from the fills alone, with the arithmetic of a ledger that knows nothing of the venue's.
        cash, coins, position, entry = OPENING, defaultdict[str, Decimal](Decimal), ZERO, ZERO
        fills = await made.fills_since(start)
        for fill in (seen.fill for seen in fills):
            signed = fill.side.sign * fill.quantity
            if fill.symbol == SPOT:
                coins["BTC"] += signed
                cash -= signed * fill.price
            else:
                if position * signed < 0:
                    cash += -signed * (fill.price - entry)
                else:
                    entry = fill.price
                position += signed
            if fill.fee_currency == "BTC":
                coins["BTC"] -= fill.fee
            else:
                cash -= fill.fee
        cash += sum((paid.amount for paid in await made.funding_since(start)), ZERO)
        cash += sum((moved.amount for moved in await made.transfers_since(start)), ZERO)
        assert (cash, dict(coins), position) == (truth.wallet["USDT"], {"BTC": truth.wallet["BTC"]}, Decimal("-0.013"))
        assert len(fills) == len({seen.fill.venue_trade_id for seen in fills}) == 9


async def test_the_private_streams_tell_the_same_fills_as_the_audit_each_once() -> None:
    async with bybit() as (venue, made), Listener(made) as heard:
        await until(lambda: venue.listeners["execution"] and venue.listeners["order"])
        await _trade(venue, made)
        truth = {row["execId"] for row in venue.market.executions if row["execType"] == "Trade"}
        await heard.until(lambda events: {e.fill.venue_trade_id for e in events if isinstance(e, FillSeen)} >= truth)
        await heard.until(lambda events: any(isinstance(e, OrderDone) and e.client_order_id == "tb8" for e in events))
        fills = [event.fill.venue_trade_id for event in heard.events if isinstance(event, FillSeen)]
        assert sorted(fills) == sorted(truth)


async def test_instruments_are_as_the_venue_lists_them() -> None:
    async with bybit() as (_, made):
        found = {instrument.symbol: instrument for instrument in await made.instruments()}
        spot, perp = found[SPOT], found[PERP]
        assert (spot.tick, spot.lot, spot.notional_min, spot.settle) == (Decimal("0.01"), Decimal("0.000001"), Decimal("5"), "USDT")
        assert (perp.tick, perp.lot, perp.leverage_max, perp.funding_interval_h) == (Decimal("0.10"), Decimal("0.001"), Decimal("100"), 8)
        assert made.name == "bybit" and isinstance(_venue(made).capabilities.venue_stop, bool)


def _venue(made: Venue) -> Venue:
    """For the type checker: the adapter is a Venue."""
    return made


# -- the traps of the wire ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("symbol", "price"), [(SPOT, "49000"), (PERP, "49000")])
async def test_a_stop_really_is_a_conditional_order_and_never_an_immediate_market_order(symbol: str, price: str) -> None:
    category = "linear" if ":" in symbol else "spot"
    async with bybit() as (venue, made):
        await made.submit(order("1", symbol, quantity="0.02"))
        assert isinstance(await made.submit(stop("2", symbol, price)), Accepted)
        sent = venue.bodies[-1][1]
        assert sent["triggerPrice"] == price and ("triggerDirection" in sent) == (category == "linear")
        resting = await made.order("tb2", symbol)
        assert resting is not None and (resting.state, resting.filled) == (OrderState.ACCEPTED, ZERO)
        assert [report.client_order_id for report in (await made.wallet()).open_orders] == ["tb2"]
        venue.market.move(category, "BTCUSDT", "48999")
        filled = await made.order("tb2", symbol)
        assert filled is not None and (filled.state, filled.filled) == (OrderState.FILLED, Decimal("0.01"))


@pytest.mark.parametrize("symbol", [SPOT, PERP])
async def test_a_resting_stop_is_canceled_by_client_id(symbol: str) -> None:
    async with bybit() as (_, made):
        await made.submit(order("1", symbol, quantity="0.02"))
        resting = stop("2", symbol, "49000")
        await made.submit(resting)
        assert isinstance(await made.cancel(resting), Accepted)
        report = await made.order("tb2", symbol)
        assert report is not None and report.state is OrderState.CANCELED
        assert isinstance(await made.cancel(resting), Accepted), "what ended is ended"


async def test_an_order_is_found_by_client_id_open_and_ended_though_fetch_order_cannot() -> None:
    async with bybit() as (_, made):
        await made.submit(order("1", kind=OrderKind.LIMIT, price="40000"))
        await made.submit(order("2"))
        found = [await made.order(name, SPOT) for name in ("tb1", "tb2", "tb3")]
        assert [report and report.state for report in found] == [OrderState.ACCEPTED, OrderState.FILLED, None]


@pytest.mark.parametrize("symbol", [SPOT, PERP])
async def test_a_duplicate_client_id_is_the_order_sent_before_not_a_refusal(symbol: str) -> None:
    async with bybit() as (venue, made):
        first = await made.submit(order("1", symbol))
        assert await made.submit(order("1", symbol)) == first
        assert len(venue.market.orders) == 1
        assert isinstance(await made.submit(order("1", symbol, quantity="0.02")), InDoubt), "one id never carries two contents"


async def test_a_system_error_is_no_rejection() -> None:
    async with bybit() as (venue, made):
        venue.faults.append(Fault("order/create", coded(10016, "System error. Please try again later."), True))
        assert isinstance(await made.submit(order("1")), InDoubt)
        report = await made.order("tb1", SPOT)
        assert report is not None and report.state is OrderState.FILLED


async def test_a_reply_lost_after_acceptance_leaves_a_live_order_that_is_found_not_sent_again() -> None:
    async with bybit() as (venue, made):
        venue.faults.append(Fault("order/create", Reply(how="close"), True))
        assert isinstance(await made.submit(order("1", kind=OrderKind.LIMIT, price="40000")), InDoubt)
        report = await made.order("tb1", SPOT)
        assert report is not None and report.state is OrderState.ACCEPTED
        assert venue.asked["/v5/order/create"] == 1


async def test_a_spot_buy_pays_its_fee_in_the_coin_so_what_is_filled_is_not_what_is_owned() -> None:
    async with bybit(classes=(AssetClass.SPOT,), symbols=(SPOT,)) as (_, made):
        await made.submit(order("1", quantity="0.01"))
        (seen,) = await made.fills_since(made.clock.now() - 60_000)
        assert (seen.fill.fee, seen.fill.fee_currency, seen.fill.fee_rate) == (Decimal("0.00001"), "BTC", seen.fill.price)
        assert (await made.wallet()).classes[AssetClass.SPOT].coins == {"BTC": Decimal("0.00999")}


async def test_a_leverage_that_was_set_before_does_not_stop_an_order() -> None:
    async with bybit() as (venue, made):
        assert isinstance(await made.submit(order("1", PERP, leverage="10")), Accepted)  # the venue's own default: "not modified"
        assert isinstance(await made.submit(order("2", PERP, leverage="3")), Accepted)
        assert venue.market.holdings["linear", "BTCUSDT"].leverage == 3
        assert not isinstance(await made.submit(order("3", PERP, leverage="101")), Accepted)
        assert venue.asked["/v5/order/create"] == 2


async def test_fills_missed_while_the_websocket_was_down_are_found() -> None:
    async with bybit() as (venue, made), Listener(made) as heard:
        await until(lambda: venue.listeners["execution"])
        await venue.drop()
        await made.submit(order("1"))
        await heard.until(lambda events: any(isinstance(event, FillSeen) for event in events))
        await until(lambda: venue.listeners["execution"])


async def test_a_malformed_frame_ends_the_stream_silently_and_the_audit_finds_what_it_hid() -> None:
    async with bybit(audit_s=0.3) as (venue, made), Listener(made) as heard:
        await until(lambda: venue.listeners["execution"])
        venue.garble()
        await made.submit(order("1"))
        await heard.until(lambda events: any(isinstance(event, FillSeen) for event in events))


async def test_a_deleveraging_is_an_execution_of_nobody_and_is_told_as_one_the_venue_forced() -> None:
    async with bybit() as (venue, made):
        await made.submit(order("1", PERP))
        venue.market.deleverage("BTCUSDT", "0.004")
        forced = (await made.fills_since(made.clock.now() - 60_000))[-1].fill
        assert (forced.liquidation, forced.client_order_id, forced.side, forced.quantity) == (True, "", Side.SELL, Decimal("0.004"))


async def test_a_partly_filled_order_that_ends_keeps_what_was_filled() -> None:
    async with bybit() as (venue, made):
        venue.market.depth["spot", "BTCUSDT"] = Decimal("0.004")
        resting = order("1", kind=OrderKind.LIMIT, price="50000.01")
        await made.submit(resting)
        assert isinstance(await made.cancel(resting), Accepted)
        report = await made.order("tb1", SPOT)
        assert report is not None and (report.state, report.filled, report.quantity) == (
            OrderState.CANCELED, Decimal("0.004"), Decimal("0.01"))


async def test_a_cancel_that_crosses_a_fill_says_that_the_order_ended() -> None:
    async with bybit() as (venue, made):
        resting = order("1", kind=OrderKind.LIMIT, price="49000")
        await made.submit(resting)
        venue.market.move("spot", "BTCUSDT", "48000")
        assert isinstance(await made.cancel(resting), Accepted)
        report = await made.order("tb1", SPOT)
        assert report is not None and report.state is OrderState.FILLED


async def test_a_cancel_of_an_order_nobody_knows_proves_nothing() -> None:
    async with bybit() as (_, made):
        assert isinstance(await made.cancel(order("1", kind=OrderKind.LIMIT, price="49000")), InDoubt)


async def test_an_execution_of_an_unknown_market_is_refused_not_guessed() -> None:
    async with bybit() as (venue, made):
        await made.submit(order("1"))
        venue.market.executions[-1]["symbol"] = "APEXUSDT"
        with pytest.raises(VenueError, match="unknown spot market"):
            await made.fills_since(made.clock.now() - 60_000)


async def test_an_answer_about_another_symbol_is_no_answer() -> None:
    async with bybit() as (venue, made):
        await made.submit(order("1"))
        row = next(iter(venue.market.orders.values())).row() | {"symbol": "ETHUSDT"}
        told = {"retCode": 0, "retMsg": "OK", "result": {"list": [row]}}
        venue.always = [Fault("order/", Reply(200, json.dumps(told).encode()), False)]
        with pytest.raises(VenueUnreachable, match="another"):
            await made.order("tb1", SPOT)


async def test_the_forming_candle_is_never_history() -> None:
    async with bybit() as (_, made):
        bars = await made.history(SPOT, made.clock.now() + 600_000, 50)
        assert len(bars) in (49, 50) and bars[-1].ts + 60_000 <= made.clock.now()
        assert {later.ts - bar.ts for bar, later in pairwise(bars)} == {60_000}


async def test_only_closed_candles_are_streamed_and_a_hole_is_filled_over_rest() -> None:
    async with bybit(stale_s=2.0) as (venue, made):
        told: list[Batch] = []
        market, key = venue.market, ("spot", "BTCUSDT")
        forming = market.candles[key][-1][0]
        made.clock.ahead_ms = 3_600_000  # type: ignore[attr-defined]

        async def listen() -> None:
            async for batch in made.market_events():
                told.append(batch)

        task = asyncio.create_task(listen())
        try:
            await until(lambda: venue.listeners["kline.1.BTCUSDT"] >= 2 and told)
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


async def test_a_silent_feed_is_heard_again_after_a_malformed_frame_ended_the_stream() -> None:
    """F58, R16: ccxt's receive loop dies without a word; the watchdog opens a new connection."""
    async with bybit(stale_s=0.4) as (venue, made):
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


# -- keys and addresses -------------------------------------------------------------------------------------------------------


def test_plain_http_is_refused_unless_the_host_is_loopback() -> None:
    check_endpoint(Endpoint("http://127.0.0.1:8080", "ws://localhost:8080"))
    check_endpoint(Endpoint("https://api-testnet.bybit.com", "wss://stream-testnet.bybit.com"))
    for rest in ("http://api.bybit.com", "http://127.0.0.1.evil.example", "ftp://127.0.0.1", "https://user:pa55@api.bybit.com"):
        with pytest.raises(ConfigurationError) as error:
            check_endpoint(Endpoint(rest, "wss://stream.bybit.com"))
        assert "pa55" not in str(error.value)


async def test_a_key_that_may_withdraw_is_refused() -> None:
    async with bybit() as (venue, made):
        await made.check_account()
        venue.rights["Wallet"] = ["Withdraw"]
        with pytest.raises(VenueDenied, match="Withdraw"):
            await made.check_account()


async def test_market_data_and_trading_have_clients_of_their_own_and_no_write_is_repeated_by_ccxt() -> None:
    async with bybit() as (_, made):
        assert (made.data is not made.trade and made.data.apiKey is None) or made.data.apiKey == ""
        assert {client.options["maxRetriesOnFailure"] for client in (made.data, made.trade)} == {0}


async def test_no_secret_is_in_any_error_or_log_even_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with bybit() as (venue, made):
        await made.wallet()
        said = []
        for reply in (coded(10003, f"key {KEY} {SECRET} is invalid"), Reply(500, f"oops {SECRET}".encode()), Reply(how="close")):
            venue.always = [Fault("wallet-balance", reply, False)]
            with pytest.raises(VenueError) as error:
                await made.wallet()
            venue.always = []
            said.append(f"{error.value} {error.value.__cause__}")
            venue.faults.append(Fault("order/create", reply, False))
            said.append(str(await made.submit(order("1"))))
        told = " ".join(said) + caplog.text
        assert KEY not in told and SECRET not in told and "X-BAPI-SIGN" not in told


async def test_a_wrong_secret_is_denied() -> None:
    async with bybit(credentials=Credentials(SecretStr(KEY), SecretStr("wrong"))) as (_, made):
        with pytest.raises(VenueDenied):
            await made.wallet()
        assert isinstance(await made.submit(order("1")), Refused)


async def test_without_a_key_there_is_market_data_and_nothing_else() -> None:
    async with bybit(credentials=None) as (_, made):
        assert await made.history(PERP, made.clock.now(), 3)
        assert isinstance(await made.submit(order("1")), Refused)
        with pytest.raises(VenueDenied):
            await made.wallet()


@pytest.mark.parametrize("changes", [{"quantity": "-0.01"}, {"quantity": "0"}, {"quantity": "0.0000001"}, {"quantity": "NaN"},
                                     {"kind": OrderKind.LIMIT, "price": "-1"}, {"kind": OrderKind.LIMIT, "price": "1.001"},
                                     {"kind": OrderKind.LIMIT}, {"quantity": "0.00002"}, {"symbol": "NOPE/USDT"}])
async def test_our_own_gate_refuses_what_ccxt_would_let_through(changes: dict[str, str]) -> None:
    async with bybit() as (venue, made):
        assert isinstance(await made.submit(order("1", **changes)), Refused)  # type: ignore[arg-type]
        assert venue.asked["/v5/order/create"] == 0


async def test_a_wallet_without_its_currency_is_no_wallet() -> None:
    async with bybit() as (venue, made):
        await made.wallet()
        del venue.market.wallet["USDT"]
        with pytest.raises(VenueUnreachable):
            await made.wallet()


async def test_a_shared_wallet_is_divided_as_we_are_told_and_nothing_is_lost() -> None:
    def split(total: Decimal) -> dict[AssetClass, Decimal]:
        return {AssetClass.SPOT: total - Decimal("300"), AssetClass.PERP: Decimal("300")}

    async with bybit(split=split) as (_, made):
        classes = (await made.wallet()).classes
        assert {asset_class: part.cash for asset_class, part in classes.items()} == {
            AssetClass.SPOT: Decimal("9700"), AssetClass.PERP: Decimal("300")}


def test_the_emulators_price_path_is_the_same_for_the_same_seed() -> None:
    paths = []
    for seed in (1, 1, 2):
        market = Market(lambda: 1_795_370_903_673)
        market.walk("spot", "BTCUSDT", 50, seed)
        paths.append(market.price["spot", "BTCUSDT"])
    assert paths[0] == paths[1] != paths[2]


async def test_two_adapters_may_listen_to_one_account() -> None:
    async with bybit() as (venue, made):
        other = adapter(venue)
        try:
            await made.submit(order("1"))
            assert await other.order("tb1", SPOT) == await made.order("tb1", SPOT)
        finally:
            await other.close()
