"""What is Binance's alone: two wallets, stops that are no orders, ids that are no keys. What it shares is in test_ccxt_traps.py.

The emulator and the adapter have one author; python-binance, a client nobody here wrote, is asked by hand (emulators/README.md).
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from modules.domain.errors import VenueBusy, VenueDenied, VenueUnreachable
from modules.domain.instrument import AssetClass, Side
from modules.domain.money import ZERO
from modules.domain.order import Accepted, InDoubt, NotSent, OrderKind, OrderState, Refused
from modules.venues.ccxt_binance import DEMO, RIGHTS_REFUSED, BinanceDialect
from modules.venues.ccxt_venue import LEFT_MS
from modules.venues.protocol import FillSeen
from tests.binance_worlds import adapter, binance
from tests.bybit_worlds import PERP, SPOT, Listener, PushedClock, order, stop, until
from tests.emulators.binance import Fault, Reply, coded

ETH_PERP = "ETH/USDT:USDT"


# -- stops --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [False, True], ids=["a name of the venue's", "our name"])
async def test_a_stop_of_usdm_is_no_order_until_it_goes_off_and_its_fill_is_ours_whatever_the_order_is_called(named: bool) -> None:
    async with binance() as (venue, made), Listener(made) as heard:
        venue.market.names_algo_orders = named
        await until(lambda: venue.listeners["user:linear"])
        await made.submit(order("1", PERP))
        await made.submit(stop("2", PERP, "49000"))
        assert [ticket.link for ticket in venue.market.orders.values()] == ["tb1"]
        assert [report.client_order_id for report in (await made.wallet()).open_orders] == ["tb2"]
        venue.market.move("linear", "BTCUSDT", "48999")
        await heard.until(lambda events: sum(isinstance(event, FillSeen) for event in events) == 2)
        told = [event.fill.client_order_id for event in heard.events if isinstance(event, FillSeen)]
        asked = [(seen.fill.client_order_id, seen.order_done) for seen in await made.fills_since(made.clock.now() - 60_000)]
        assert (told, asked) == (["tb1", "tb2"], [("tb1", True), ("tb2", True)])
        report = await made.order("tb2", PERP)
        assert report is not None and (report.state, report.filled) == (OrderState.FILLED, Decimal("0.01"))
        assert isinstance(await made.cancel(stop("2", PERP, "49000")), Accepted), "what ended is ended"


async def test_a_stop_that_went_off_while_nobody_listened_is_known_after_a_restart() -> None:
    async with binance() as (venue, made):
        await made.submit(order("1", PERP))
        await made.submit(stop("2", PERP, "49000"))
        venue.market.move("linear", "BTCUSDT", "48999")
        other = adapter(venue)
        try:
            assert [seen.fill.client_order_id for seen in await other.fills_since(made.clock.now() - 60_000)] == ["tb1", "tb2"]
        finally:
            await other.close()


async def test_a_stop_that_went_off_into_an_order_nobody_names_is_not_called_anything() -> None:
    async with binance() as (venue, made):
        await made.submit(stop("1", PERP, "49000"))
        (algo,) = venue.market.algos.values()
        algo.status = "FINISHED"
        with pytest.raises(VenueUnreachable, match="went off"):
            await made.order("tb1", PERP)


async def test_a_spot_market_without_a_plain_stop_gets_one_with_a_limit_beyond_it() -> None:
    async with binance() as (venue, made):
        await made.submit(order("1", quantity="0.02"))
        made.trade.market(SPOT)["info"]["orderTypes"] = ["LIMIT", "MARKET", "STOP_LOSS_LIMIT"]
        assert isinstance(await made.submit(stop("2", SPOT, "49000.01")), Accepted)
        sent = venue.bodies[-1][1]
        assert (sent["type"], sent["stopPrice"], sent["price"]) == ("STOP_LOSS_LIMIT", "49000.01", "46550.01")
        venue.market.move("spot", "BTCUSDT", "48000")
        report = await made.order("tb2", SPOT)
        assert report is not None and report.state is OrderState.FILLED
        made.trade.market(SPOT)["info"]["orderTypes"] = ["LIMIT", "MARKET"]
        assert isinstance(await made.submit(stop("3", SPOT, "47000")), Refused)


async def test_a_resting_spot_stop_locks_its_coins_so_no_target_is_promised_beside_it() -> None:
    async with binance() as (_, made):
        assert not made.capabilities.resting_target
        await made.submit(order("1", quantity="0.01"))
        assert isinstance(await made.submit(stop("2", SPOT, "49000", "0.009")), Accepted)
        assert (await made.wallet()).classes[AssetClass.SPOT].coins == {"BTC": Decimal("0.00999")}, "locked is still ours"
        assert isinstance(await made.submit(order("3", SPOT, Side.SELL, "0.009", kind=OrderKind.TARGET, price="51000")), Refused)


async def test_a_stop_that_would_go_off_at_once_is_refused_not_turned_into_a_market_order() -> None:
    async with binance() as (venue, made):
        await made.submit(order("1", quantity="0.02"))
        for symbol in (SPOT, PERP):
            assert isinstance(await made.submit(stop("2", symbol, "50500")), Refused)
        assert len(venue.market.orders) == 1 and not venue.market.algos


# -- client ids ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", [SPOT, PERP])
async def test_a_client_id_is_free_again_after_a_fill_so_a_lost_reply_is_never_answered_by_sending_again(symbol: str) -> None:
    """F39. The first half shows the danger, the second that the adapter does not run into it."""
    async with binance() as (venue, made):
        path = "/fapi/v1/order" if symbol == PERP else "/api/v3/order"
        venue.market.margin["BTCUSDT"] = "ISOLATED"
        for _ in range(2):
            await made.trade.load_markets()
            await made.trade.create_order(symbol, "market", "buy", "0.01", None, {"newClientOrderId": "tbx"})
        assert [ticket.link for ticket in venue.market.orders.values()] == ["tbx", "tbx"], "the venue filled one id twice"
        for name, reply in {"1": Reply(how="close"), "2": Reply(how="cut"), "3": Reply(504, b"")}.items():
            before = venue.asked[f"POST {path}"]
            venue.faults.append(Fault(path, reply, True, "POST"))
            assert isinstance(await made.submit(order(name, symbol)), InDoubt)
            assert venue.asked[f"POST {path}"] == before + 1
            report = await made.order(f"tb{name}", symbol)
            assert report is not None and report.state is OrderState.FILLED


@pytest.mark.parametrize("sent", [order("1", kind=OrderKind.LIMIT, price="40000"), order("1", PERP, kind=OrderKind.LIMIT, price="40000"),
                                  stop("1", PERP, "40000")], ids=["spot", "perp", "stop"])
async def test_a_duplicate_of_an_open_order_is_the_order_sent_before_not_a_refusal(sent: Any) -> None:
    async with binance() as (venue, made):
        first = await made.submit(sent)
        assert isinstance(first, Accepted)
        assert await made.submit(sent) == first
        assert len(venue.market.orders) + len(venue.market.algos) == 1
        other = order("1", sent.symbol, sent.side, "0.02", kind=sent.kind, price=str(sent.price), reduce=sent.reduce_only)
        assert isinstance(await made.submit(other), InDoubt), "one id never carries two contents"


async def test_the_code_of_a_duplicate_is_also_that_of_an_empty_wallet_and_the_words_tell_them_apart() -> None:
    async with binance() as (venue, made):
        venue.market.purses["spot"]["USDT"] = Decimal(1)
        fate = await made.submit(order("1"))
        assert isinstance(fate, Refused) and fate.code == "-2010"


async def test_an_answer_about_another_order_is_no_answer() -> None:
    async with binance() as (venue, made):
        await made.submit(order("1"))
        await made.submit(order("2"))
        other = next(iter(venue.market.orders.values()))
        venue.market.orders = {"x": other}
        other.link = "tbother"
        venue.market.found = lambda category, body: other  # type: ignore[method-assign]
        with pytest.raises(VenueUnreachable, match="another"):
            await made.order("tb2", SPOT)


async def test_a_foreign_order_is_found_by_nobodys_name_of_ours() -> None:
    async with binance() as (venue, made):
        await made.instruments()
        bought = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"}
        venue.market.place("linear", bought | {"newClientOrderId": "web_7"})
        (seen,) = await made.fills_since(made.clock.now() - 60_000)
        assert seen.fill.client_order_id == "web_7"


# -- what the account is told -------------------------------------------------------------------------------------------------


async def test_spot_and_perpetual_of_one_market_id_keep_prices_of_their_own() -> None:
    """ccxt tells them apart by the address of the stream; on one host it would give both the perpetual's price."""
    async with binance() as (venue, made):
        venue.market.move("spot", "BTCUSDT", "40000")
        quotes: dict[str, float] = {}

        async def listen() -> None:
            async for batch in made.market_events():
                quotes.update({symbol: quote.bid for symbol, quote in batch.quotes})

        task = asyncio.create_task(listen())
        try:
            await until(lambda: len(quotes) == 2)
            assert quotes == {SPOT: 39_999.99, PERP: 49_999.9}
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_fee_in_a_third_coin_is_told_in_that_coin_with_what_it_is_worth() -> None:
    async with binance() as (venue, made):
        venue.market.bnb_fees = True
        for purse in venue.market.purses.values():
            purse["BNB"] = Decimal(1)
        await made.submit(order("1"))
        await made.submit(order("2", PERP))
        spot, perp = (seen.fill for seen in await made.fills_since(made.clock.now() - 60_000))
        assert (spot.fee_currency, spot.fee_rate, perp.fee_currency) == ("BNB", Decimal(600), "BNB")
        classes = (await made.wallet()).classes
        assert classes[AssetClass.SPOT].coins == {"BNB": 1 - spot.fee, "BTC": Decimal("0.01")}
        assert classes[AssetClass.PERP].coins == {"BNB": 1 - perp.fee}


async def test_two_wallets_are_not_divided_and_what_moves_between_them_is_told_on_both_sides() -> None:
    def split(total: Decimal) -> dict[AssetClass, Decimal]:
        raise AssertionError("nothing is shared here")

    async with binance(split=split) as (venue, made):
        venue.market.shift("USDT", "250")
        venue.market.shift("USDT", "-50")
        classes = (await made.wallet()).classes
        assert [classes[one].cash for one in (AssetClass.SPOT, AssetClass.PERP)] == [Decimal(9800), Decimal(10200)]
        moved = await made.transfers_since(made.clock.now() - 60_000)
        sums = {one: sum((row.amount for row in moved if row.asset_class is one), ZERO) for one in (AssetClass.SPOT, AssetClass.PERP)}
        assert sums == {AssetClass.SPOT: Decimal(-200), AssetClass.PERP: Decimal(200)}
        assert len({row.venue_ref for row in moved}) == 4


async def test_a_withdrawal_takes_its_network_fee_with_it() -> None:
    async with binance() as (venue, made):
        venue.market.transfer("USDT", "-100")
        (gone,) = await made.transfers_since(made.clock.now() - 60_000)
        assert gone.amount == Decimal(-100)


async def test_funding_is_told_once_per_payment_with_the_rate_behind_it() -> None:
    async with binance() as (venue, made):
        await made.submit(order("1", PERP))
        venue.market.fund("BTCUSDT", "0.0001")
        venue.market.fund("BTCUSDT", "-0.0002")
        paid = await made.funding_since(made.clock.now() - 60_000)
        assert [row.amount for row in paid] == [Decimal("-0.05"), Decimal("0.1")]
        assert len({row.venue_ref for row in paid}) == 2 and paid[0].rate == 0.000137


async def test_a_perpetual_that_is_not_streamed_is_found_by_the_income_it_left() -> None:
    async with binance(symbols=(PERP,), classes=(AssetClass.PERP,)) as (venue, made):
        await made.instruments()
        venue.market.place("linear", {"symbol": "ETHUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.1", "newClientOrderId": "tbold"})
        (seen,) = await made.fills_since(made.clock.now() - 60_000)
        assert (seen.fill.symbol, seen.fill.client_order_id) == (ETH_PERP, "tbold")


async def test_a_liquidation_is_told_as_one() -> None:
    async with binance() as (venue, made), Listener(made) as heard:
        await until(lambda: venue.listeners["user:linear"])
        await made.submit(order("1", PERP))
        venue.market.liquidate("BTCUSDT")
        await heard.until(lambda events: len(events) >= 2)
        streamed = [event.fill for event in heard.events if isinstance(event, FillSeen)][-1]
        asked = (await made.fills_since(made.clock.now() - 60_000))[-1].fill
        assert streamed == asked and (asked.liquidation, asked.client_order_id) == (True, "")


@pytest.mark.parametrize("symbol", [SPOT, PERP])
async def test_more_trades_than_a_page_holds_are_all_found_each_once(symbol: str) -> None:
    async with binance() as (venue, made):
        await made.submit(order("1", symbol))
        category = "linear" if symbol == PERP else "spot"
        now, (real,) = venue.now(), venue.market.trades[category]
        # Two days of them and more, always three in one millisecond: also at a page's end.
        rows = [real | {"id": number, "time": now - 60 * 3_600_000 + number // 3 * 150_000} for number in range(4_300)]
        venue.market.trades[category] = rows
        since = now - 50 * 3_600_000
        found = [seen.fill.venue_trade_id for seen in await made.fills_since(since)]
        wanted = [str(row["id"]) for row in rows if row["time"] >= since]
        assert (len(found), sorted(found, key=int)) == (len(wanted), wanted) and len(wanted) > 3_500


async def test_a_listen_key_that_ran_out_is_noticed_by_the_audit_and_a_new_one_is_taken() -> None:
    async with binance(audit_s=0.3) as (venue, made), Listener(made) as heard:
        await until(lambda: venue.listeners["user:linear"])
        venue.forget_listen_key()
        await made.submit(order("1", PERP))
        await heard.until(lambda events: any(isinstance(event, FillSeen) for event in events))
        await until(lambda: venue.listeners["user:linear"])


# -- rules, rights, bans ------------------------------------------------------------------------------------------------------


async def test_instruments_are_as_the_venue_lists_them() -> None:
    async with binance() as (_, made):
        found = {instrument.symbol: instrument for instrument in await made.instruments()}
        spot, perp = found[SPOT], found[PERP]
        assert (spot.tick, spot.lot, spot.notional_min, spot.settle) == (Decimal("0.01"), Decimal("0.000001"), Decimal("5"), "USDT")
        assert (perp.tick, perp.lot, perp.leverage_max, perp.maintenance_margin) == (
            Decimal("0.10"), Decimal("0.001"), Decimal("100"), Decimal("0.004"))
        assert (perp.funding_interval_h, found[ETH_PERP].funding_interval_h) == (8, 4)
    async with binance(credentials=None) as (_, made):
        assert {one.leverage_max for one in await made.instruments() if one.asset_class is AssetClass.PERP} == {Decimal(5)}


async def test_margin_type_and_leverage_are_set_before_the_first_opening_and_read_back() -> None:
    async with binance() as (venue, made):
        assert isinstance(await made.submit(order("1", PERP, leverage="3.7")), Accepted)
        assert venue.market.holdings["linear", "BTCUSDT"].leverage == 3, "whole numbers only, and less is more margin"
        assert venue.market.margin == {"BTCUSDT": "ISOLATED"}
        assert isinstance(await made.submit(order("2", PERP, leverage="3.7")), Accepted)
        assert venue.asked["POST /fapi/v1/marginType"] == venue.asked["POST /fapi/v1/leverage"] == 1
        assert isinstance(await made.submit(order("3", PERP, leverage="5")), Accepted), "-4046, as it was already"
        venue.faults.append(Fault("leverage", Reply(200, b'{"leverage":20,"symbol":"BTCUSDT"}'), False, "POST"))
        assert isinstance(await made.submit(order("4", PERP, leverage="7")), NotSent)
        assert isinstance(await made.submit(order("5", PERP, leverage="101")), NotSent)
        assert len(venue.market.orders) == 3


async def test_a_position_in_another_margin_type_stops_openings_and_nothing_else() -> None:
    async with binance() as (venue, made):
        await made.instruments()
        venue.market.place("linear", {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"})
        assert isinstance(await made.submit(order("1", PERP)), NotSent)
        assert isinstance(await made.submit(order("2", PERP, Side.SELL, reduce=True)), Accepted)


async def test_a_key_that_may_move_money_away_is_refused() -> None:
    async with binance() as (venue, made):
        await made.check()
        for right in RIGHTS_REFUSED:
            venue.rights[right] = True
            with pytest.raises(VenueDenied, match=right):
                await made.check()
            venue.rights[right] = False


async def test_a_key_that_may_not_trade_what_we_want_to_is_refused() -> None:
    async with binance() as (venue, made):
        venue.rights["enableFutures"] = False
        with pytest.raises(VenueDenied, match="lacks enableFutures"):
            await made.check()
        del venue.rights["enableFutures"]
        with pytest.raises(VenueUnreachable):
            await made.check()


async def test_more_spot_markets_than_can_be_asked_for_their_fills_are_refused_at_the_start() -> None:
    for number in (40, 41):
        async with binance(symbols=[PERP, *(f"C{coin}/USDT" for coin in range(number))]) as (_, made):
            if number == 40:
                await made.check()
                continue
            with pytest.raises(VenueDenied, match=r"41 spot markets are too many to trade.* lower select.number_assets"):
                await made.check()


@pytest.mark.parametrize(("mode", "words"), [("hedged", "one-way"), ("joint", "single-asset")])
async def test_hedge_mode_and_joint_margin_are_refused(mode: str, words: str) -> None:
    async with binance() as (venue, made):
        setattr(venue, mode, True)
        with pytest.raises(VenueDenied, match=words):
            await made.check()
    async with binance(classes=(AssetClass.SPOT,), symbols=(SPOT,)) as (venue, made):
        setattr(venue, mode, True)
        await made.check()


@pytest.mark.parametrize("status", [418, 429])
async def test_a_ban_is_kept_to_the_millisecond_the_text_says(status: int) -> None:
    async with binance() as (venue, made):
        await made.instruments()
        until_ms = made.clock.now() + 90_000
        words = f"Way too much request weight used; IP banned until {until_ms}. Please use WebSocket Streams."
        venue.faults.append(Fault("/api/v3/account", coded(-1003, words, status), False))
        with pytest.raises(VenueBusy) as busy:
            await made.wallet()
        assert busy.value.until == until_ms
        asked = venue.asked.total()
        fate = await made.submit(order("1"))
        assert isinstance(fate, NotSent) and fate.until == until_ms
        with pytest.raises(VenueBusy):
            await made.clock_offset_ms()
        assert venue.asked.total() == asked


async def test_a_perpetual_that_does_not_settle_in_dollars_of_ours_is_not_offered() -> None:
    market = {"settle": "BTC", "info": {}}
    assert BinanceDialect().instrument("BTC/USD:BTC", market, AssetClass.PERP, ZERO, ZERO) is None


async def test_the_playground_is_demo_trading_on_its_several_hosts_and_nothing_of_production() -> None:
    async with binance(endpoint=DEMO) as (_, made):
        urls = made.trade.urls["api"]
        assert (urls["private"], urls["fapiPrivate"]) == ("https://demo-api.binance.com/api/v3", "https://demo-fapi.binance.com/fapi/v1")
        assert "sapi" not in urls and "://api.binance.com" not in str(urls) and "://fapi.binance.com" not in str(urls)


async def test_what_is_streamed_no_more_is_asked_for_its_fills_for_a_day_and_then_forgotten() -> None:
    clock = PushedClock()
    async with binance(symbols=(SPOT, "ETH/USDT"), classes=(AssetClass.SPOT,)) as (venue, made):
        made.clock = clock
        await made.known()

        async def asked() -> int:
            venue.asked.clear()
            await made.fills_since(clock.now() - 60_000)
            return venue.asked["GET /api/v3/myTrades"]

        both = await asked()
        made.watch((SPOT,))
        assert (set(made.symbols), set(made.streamed)) == ({SPOT, "ETH/USDT"}, {SPOT})
        assert await asked() == both
        clock.ahead_ms += LEFT_MS
        made.watch((SPOT,))
        assert set(made.symbols) == {SPOT}
        assert await asked() < both
        made.watch((SPOT, "ETH/USDT"))
        assert await asked() == both
