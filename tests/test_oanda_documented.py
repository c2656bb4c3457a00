"""What others wrote down of OANDA's wire, against our reader and adapter: its definitions, replies recorded on practice accounts, and what
people met there that no definition says. The rows are ours, by the documented names; where each fact is from: docs/venues.md."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from modules.domain.errors import VenueDenied, VenueUnreachable
from modules.domain.instrument import AssetClass, Side
from modules.domain.market import Batch
from modules.domain.order import Accepted, InDoubt, OrderKind, OrderState, Refused
from modules.domain.sessions import parse_iso
from modules.runtime.clock import VirtualClock, VirtualLoop
from modules.venues.archive import Kind
from modules.venues.oanda_archive import OandaArchive
from modules.venues.oanda_orders import events_of
from modules.venues.oanda_schema import PriceLine, transaction
from modules.venues.oanda_venue import OandaVenue
from modules.venues.oanda_wire import PRACTICE, Endpoint, OandaWire
from modules.venues.protocol import FillSeen, FundingPaid, OrderDone, Transferred
from tests.builders import EUR_USD
from tests.emulators.oanda import TOKEN, Fault, Reply
from tests.test_oanda_venue import MINUTE, MONDAY, PACE, Desk, fates, trading, until

D = Decimal

# -- transactions -----------------------------------------------------------------------------------------------------------------


def told(kind: str, **fields: Any) -> list[Any]:
    """What our reader makes of one transaction."""
    row = {"id": "213", "accountID": "101-009-1234567-001", "userID": 1234567, "batchID": "213", "requestID": "61292424904719777",
           "time": "2024-10-08T01:29:27.901550405Z", "type": kind, **fields}
    return list(events_of(transaction(row), "oanda", "JPY"))


FILL = {
    "orderID": "212", "instrument": "EUR_USD", "units": "-2", "requestedUnits": "-2", "price": "1.10000", "pl": "-24.0132",
    "quotePL": "-0.160", "financing": "0.0000", "baseFinancing": "0.00000000000000", "commission": "0.0000", "accountBalance": "3379.1987",
    "gainQuoteHomeConversionFactor": "149.5", "lossQuoteHomeConversionFactor": "150.0824", "guaranteedExecutionFee": "0.0000",
    "quoteGuaranteedExecutionFee": "0", "halfSpreadCost": "0.0800", "fullVWAP": "1.10000", "reason": "MARKET_ORDER_TRADE_CLOSE",
    "tradeReduced": {"tradeID": "210", "units": "-2", "realizedPL": "-24.0132", "financing": "0.0000", "price": "1.10000"},
    "fullPrice": {"closeoutBid": "1.1", "closeoutAsk": "1.2", "timestamp": "2024-10-08T01:29:05.488584473Z",
                  "bids": [{"price": "1.1", "liquidity": "250000.0"}], "asks": [{"price": "1.2", "liquidity": "250000.0"}]},
    "homeConversionFactors": {"gainQuoteHome": {"factor": "149.5"}, "lossQuoteHome": {"factor": "150.0824"},
                              "gainBaseHome": {"factor": "160"}, "lossBaseHome": {"factor": "161"}},
}


def without(*names: str) -> dict[str, Any]:
    return {key: value for key, value in FILL.items() if key not in names}


@pytest.mark.parametrize("fields", [
    FILL, without("homeConversionFactors"), without("gainQuoteHomeConversionFactor", "lossQuoteHomeConversionFactor"),
    FILL | {"homeConversionFactors": {"gainQuoteHome": None, "lossQuoteHome": None}}, without("price"),
    without("guaranteedExecutionFee", "commission", "requestedUnits", "fullPrice"), FILL | {"reason": "FIXED_PRICE_ORDER"},
])
def test_a_fill_is_read_with_every_field_that_may_be_missing_or_null(fields: dict[str, Any]) -> None:
    [seen] = told("ORDER_FILL", **fields)
    fill = seen.fill
    assert (fill.side, fill.quantity, fill.price, fill.settle_rate) == (Side.SELL, D(2), D("1.10000"), D("150.0824"))
    assert fill.fee == D("-0.160") * D("150.0824") - D("-24.0132") and fill.at == parse_iso("2024-10-08T01:29:27.902Z"), "nanoseconds"


def test_a_fill_that_says_no_rate_at_all_is_refused_and_one_without_a_price_too() -> None:
    with pytest.raises(VenueUnreachable):
        told("ORDER_FILL", **without("homeConversionFactors", "lossQuoteHomeConversionFactor"))
    with pytest.raises(ValueError, match="price"):
        told("ORDER_FILL", **without("price", "fullVWAP"))


def test_what_a_fill_says_of_part_of_a_night_and_of_a_margin_closeout_is_booked() -> None:
    closed, night = told("ORDER_FILL", **FILL | {"financing": "-1.2345", "reason": "MARKET_ORDER_MARGIN_CLOSEOUT", "commission": "5.0000"})
    assert closed.fill.liquidation and closed.fill.client_order_id == "" and isinstance(night, FundingPaid) and night.amount == D("-1.2345")
    assert closed.fill.fee == D("5.0000") + D("-0.160") * D("150.0824") - D("-24.0132"), "a commission is positive and takes"


def test_a_night_is_booked_by_position_whatever_else_its_transaction_says() -> None:
    position = {"instrument": "USD_JPY", "financing": "-296.9144", "baseFinancing": "-2.02303561643840",
                "accountFinancingMode": "DAILY_INSTRUMENT",
                "homeConversionFactors": {"gainQuoteHome": None, "lossQuoteHome": None, "gainBaseHome": {"factor": "146.181052"}},
                "openTradeFinancings": [{"tradeID": "5", "financing": "-221.1557", "financingRate": "-0.0055"}]}
    night = {"financing": "-296.9144", "accountBalance": "3000583.9766", "homeConversionCost": "-1.42472923877042"}
    [paid] = told("DAILY_FINANCING", **night, positionFinancings=[position])
    assert (paid.symbol, paid.amount, paid.asset_class) == ("USD/JPY", D("-296.9144"), AssetClass.FOREX)
    assert told("DAILY_FINANCING", **night) == [], "the wallet's audit finds what no part names"


def test_money_in_and_out_is_a_transfer_for_every_reason_there_is() -> None:
    for reason in ("CLIENT_FUNDING", "ACCOUNT_TRANSFER", "DIVISION_MIGRATION", "SITE_MIGRATION", "ADJUSTMENT"):
        [moved] = told("TRANSFER_FUNDS", amount="-100.5000", fundingReason=reason, accountBalance="1.0000")
        assert isinstance(moved, Transferred) and moved.amount == D("-100.5")
    assert told("TRANSFER_FUNDS_REJECT", amount="5", fundingReason="CLIENT_FUNDING", rejectReason="INSUFFICIENT_FUNDS") == []


SILENT: dict[str, dict[str, Any]] = {
    "CREATE": {"divisionID": 4, "siteID": 101, "accountUserID": 1, "accountNumber": 1, "homeCurrency": "JPY"}, "CLOSE": {}, "REOPEN": {},
    "CLIENT_CONFIGURE": {"marginRate": "0.01"}, "CLIENT_CONFIGURE_REJECT": {"marginRate": "0", "rejectReason": "MARGIN_RATE_INVALID"},
    "MARKET_ORDER": {"instrument": "EUR_USD", "units": "-251", "timeInForce": "FOK", "positionFill": "REDUCE_ONLY",
                     "reason": "MARGIN_CLOSEOUT", "marginCloseout": {"reason": "MARGIN_CHECK_VIOLATION"}},
    "MARKET_ORDER_REJECT": {"timeInForce": "FOK", "positionFill": "REDUCE_ONLY", "rejectReason": "TRADE_DOESNT_EXIST",
                            "tradeClose": {"tradeID": "7", "units": "ALL"}},
    "FIXED_PRICE_ORDER": {"instrument": "EUR_USD", "units": "5", "price": "1.1", "positionFill": "DEFAULT", "tradeState": "OPEN",
                          "reason": "PLATFORM_ACCOUNT_MIGRATION"},
    "LIMIT_ORDER": {"instrument": "EUR_USD", "units": "-100", "price": "1.20000", "timeInForce": "GTC", "positionFill": "DEFAULT",
                    "triggerCondition": "TRIGGER_DEFAULT", "reason": "REPLACEMENT", "replacesOrderID": "2304"},
    "LIMIT_ORDER_REJECT": {"instrument": "EUR_USD", "units": "0", "price": "1212", "rejectReason": "UNITS_INVALID"},
    "STOP_ORDER": {"instrument": "EUR_USD", "units": "-1000", "price": "1.1", "reason": "CLIENT_ORDER"},
    "STOP_ORDER_REJECT": {"rejectReason": "INSTRUMENT_MISSING"},
    **{f"{kind}{end}": {"tradeID": "7", "price": "1.1", "rejectReason": "TRADE_DOESNT_EXIST"} for end in ("_ORDER", "_ORDER_REJECT")
       for kind in ("MARKET_IF_TOUCHED", "TAKE_PROFIT", "STOP_LOSS", "GUARANTEED_STOP_LOSS", "TRAILING_STOP_LOSS", "ONE_CANCELS_ALL")},
    "ONE_CANCELS_ALL_ORDER_TRIGGERED": {}, "ORDER_CANCEL_REJECT": {"clientOrderID": "tb1", "rejectReason": "ORDER_DOESNT_EXIST"},
    "ORDER_CLIENT_EXTENSIONS_MODIFY": {"orderID": "2304", "clientExtensionsModify": {"id": "my"}},
    "ORDER_CLIENT_EXTENSIONS_MODIFY_REJECT": {"orderID": "1", "rejectReason": "ORDER_DOESNT_EXIST"},
    "TRADE_CLIENT_EXTENSIONS_MODIFY": {"tradeID": "1"}, "TRADE_CLIENT_EXTENSIONS_MODIFY_REJECT": {"rejectReason": "TRADE_DOESNT_EXIST"},
    "MARGIN_CALL_ENTER": {}, "MARGIN_CALL_EXTEND": {"extensionNumber": 1}, "MARGIN_CALL_EXIT": {}, "DELAYED_TRADE_CLOSURE": {
        "reason": "DELAYED_TRADE_CLOSE", "tradeIDs": "7"}, "RESET_RESETTABLE_PL": {},
    "DIVIDEND_ADJUSTMENT": {"instrument": "SPX500_USD", "dividendAdjustment": "1.5", "accountBalance": "1"}, "NEW_IN_2031": {"x": None},
}


@pytest.mark.parametrize("kind", SILENT)
def test_every_other_transaction_there_is_is_read_and_moves_nothing(kind: str) -> None:
    assert told(kind, **SILENT[kind]) == []


def test_an_end_says_whose_order_it_was() -> None:
    [end] = told("ORDER_CANCEL", orderID="2304", clientOrderID="tb1", replacedByOrderID="2307", reason="CLIENT_REQUEST_REPLACED")
    assert isinstance(end, OrderDone) and (end.client_order_id, end.how) == ("tb1", "canceled")


@pytest.mark.parametrize(("said", "trades"), [
    ({"status": "tradeable"}, True), ({"status": "non-tradeable"}, False), ({"status": "invalid"}, False), ({}, True),
    ({"status": "non-tradeable", "tradeable": False}, False), ({"status": "tradeable", "tradeable": True}, True),
])
def test_a_price_of_a_closed_market_keeps_its_bid_and_ask_and_is_no_quote(said: dict[str, Any], trades: bool) -> None:
    row = {"type": "PRICE", "time": "2020-10-23T21:02:02.692522548Z", "bids": [{"price": "1.18571", "liquidity": 10000000}],
           "asks": [{"price": "1.18671", "liquidity": "10000000"}], "closeoutBid": "1.18571", "closeoutAsk": "1.18671",
           "instrument": "EUR_USD", **said}
    assert PriceLine.model_validate(row).trades is trades


# -- what people met ----------------------------------------------------------------------------------------------------------------


def test_a_clock_ahead_of_the_brokers_names_no_time_it_has_not_reached() -> None:
    """A time in the broker's future is a bad request there; its own clock stands still in these tests."""

    async def talk(on: Desk) -> None:
        for number in range(-5, 1):
            on.book.move(MONDAY + number * MINUTE + 1, {"EUR_USD": (D("1.1"), D("1.1001"))})
        on.clock._start += 20_000
        assert await on.venue.missed() == []
        wanted = [MONDAY + number * MINUTE for number in (-3, -2, -1)]
        assert [bar.ts for bar in await on.venue.history(EUR_USD, on.clock.now(), 3)] == wanted
        euro, _ = await on.venue.instruments()
        page = await OandaArchive(on.venue).page(Kind.BARS, euro, MINUTE, MONDAY - 3 * MINUTE, on.clock.now())
        assert [row[0] for row in page.rows] == wanted
        assert [seen.fill for seen in await on.venue.fills_since(on.clock.now())] == []
        assert await on.venue.order("tb-nobody", EUR_USD) is None

    trading(talk)


def test_a_full_page_of_candles_is_never_one_too_many() -> None:
    async def talk(on: Desk) -> None:
        euro, _ = await on.venue.instruments()
        archive = OandaArchive(on.venue)
        on.book.at = on.clock._start = MONDAY + 86_400_000 * 30
        since = MONDAY - 7 * 86_400_000
        page = await archive.page(Kind.BARS, euro, MINUTE, since, since + archive.span_ms(Kind.BARS, euro, MINUTE))
        assert page.rows == []

    trading(talk)


def test_a_candle_that_is_complete_only_with_the_next_tick_is_told_then_and_not_an_interval_later() -> None:
    start = MONDAY + MINUTE - 200

    async def talk(on: Desk) -> None:
        on.book.move(start, {"EUR_USD": (D("1.1"), D("1.1001")), "USD_JPY": (D("150"), D("150.01"))})
        told: list[tuple[str, int]] = []

        async def listen() -> None:
            async for batch in on.venue.market_events():
                told.extend((symbol, bar.ts) for symbol, bar in batch.bars)

        listening = asyncio.create_task(listen())
        await until(lambda: on.clock.now() > MONDAY + MINUTE)
        on.book.move(MONDAY + MINUTE + 10, {"EUR_USD": (D("1.2"), D("1.2001"))})  # the yen stays silent
        await until(lambda: told)
        assert told == [(EUR_USD, MONDAY)], "the others do not wait for the one that is late"
        asked = on.emulator.asked["GET", "/v3/instruments/USD_JPY/candles"]
        await until(lambda: on.emulator.asked["GET", "/v3/instruments/USD_JPY/candles"] > asked + 5)
        on.book.move(MONDAY + MINUTE + 900, {"USD_JPY": (D("151"), D("151.01"))})
        await until(lambda: len(told) == 2)
        assert told[1] == ("USD/JPY", MONDAY) and on.clock.now() < MONDAY + 2 * MINUTE
        listening.cancel()

    trading(talk, at=start, pace=replace(PACE, candle_tries=3, late_s=0.05))


def test_a_read_that_lags_behind_a_write_proves_nothing() -> None:
    """One client's order was unknown to the broker for half a second after it had said that it was filled."""

    async def talk(on: Desk) -> None:
        await on.venue.wallet()
        order = on.order("100")
        on.emulator.faults = [Fault("POST", "/orders", Reply(502), accepted=True)]
        fates(InDoubt, await on.venue.submit(order))
        on.emulator.behind = 2
        assert await on.venue.order(order.client_order_id, EUR_USD) is None and await on.venue.missed() == []
        on.emulator.behind = 0
        report = await on.venue.order(order.client_order_id, EUR_USD)
        assert report is not None and report.state is OrderState.FILLED
        assert len([event for event in await on.venue.missed() if isinstance(event, FillSeen)]) == 1

    trading(talk)


def test_an_account_as_it_was_before_what_it_told_is_no_wallet() -> None:
    async def talk(on: Desk) -> None:
        await on.venue.wallet()
        old = {"id": on.book.account, "currency": "USD", "balance": "10000.0000", "positions": [], "orders": []}
        before = json.dumps({"account": old, "lastTransactionID": on.book.last}).encode()
        fates(Accepted, await on.venue.submit(on.order("100")))
        await on.venue.missed()
        on.emulator.faults = [Fault("GET", "", Reply(200, before))]
        with pytest.raises(VenueUnreachable, match="before"):
            await on.venue.wallet()
        assert (await on.venue.wallet()).classes[AssetClass.FOREX].positions == {EUR_USD: D(100)}

    trading(talk)


def test_a_client_id_names_pending_orders_only_and_an_ended_one_is_found_by_its_transactions() -> None:
    async def talk(on: Desk) -> None:
        assert on.emulator.forgets_filled
        filled, resting = on.order("100"), on.order(kind=OrderKind.LIMIT, price=D("1.00000"))
        for order in (filled, resting):
            fates(Accepted, await on.venue.submit(order))
        fates(Accepted, await on.venue.cancel(resting))
        states = [await on.venue.order(order.client_order_id, EUR_USD) for order in (filled, resting)]
        assert [report and report.state for report in states] == [OrderState.FILLED, OrderState.CANCELED]
        fates(Accepted, await on.venue.cancel(resting))  # it is over, which is what was wanted

    trading(talk)


def test_an_order_older_than_what_is_searched_is_known_by_its_end() -> None:
    """A stop that rested for weeks and ended while nobody ran: its id is 404, its creation is out of sight, its end names it."""

    async def talk(on: Desk) -> None:
        orders = [on.order(kind=OrderKind.LIMIT, price=D("1.00000")), on.order(kind=OrderKind.STOP, price=D("1.20000"))]
        for order in orders:
            fates(Accepted, await on.venue.submit(order))
        weeks = 3 * 7 * 86_400_000
        on.book.at = on.clock._start = MONDAY + weeks
        on.quote("1.21000", "1.21012")
        canceled = on.book.find(f"@{orders[0].client_order_id}")
        assert canceled is not None
        on.book.cancel(canceled, "CLIENT_REQUEST")
        on.venue._sent_at.clear()  # another process
        found = [await on.venue.order(order.client_order_id, EUR_USD) for order in orders]
        assert [report and report.state for report in found] == [OrderState.CANCELED, OrderState.FILLED]
        assert found[1] is not None and found[1].filled == D(1000)

    trading(talk)


def test_a_parameter_the_broker_cannot_read_makes_no_transaction_and_so_no_proof() -> None:
    async def talk(on: Desk) -> None:
        euro = on.venue._listed[EUR_USD]
        on.venue._listed["XAU/XAG"] = replace(euro, symbol="XAU/XAG")
        order = on.order(symbol="XAU/XAG")
        fates(InDoubt, await on.venue.submit(order))
        assert await on.venue.order(order.client_order_id, "XAU/XAG") is None and int(on.book.last) == 2
        assert fates(Refused, await on.venue.submit(on.order("100000001"))).code == "UNITS_LIMIT_EXCEEDED"

    trading(talk)


def test_around_five_in_new_york_an_order_is_refused_as_halted_and_no_quote_is_told() -> None:
    async def talk(on: Desk) -> None:
        assert fates(Refused, await on.venue.submit(on.order())).code == "MARKET_HALTED"
        batches: list[Batch] = []

        async def listen() -> None:
            async for batch in on.venue.market_events():
                batches.append(batch)

        listening = asyncio.create_task(listen())
        await until(lambda: on.emulator.listeners)
        on.quote("1.10000", "1.10012")
        on.book.move(on.book.at + 6 * MINUTE, {"EUR_USD": (D("1.2"), D("1.20012"))})
        await until(lambda: any(batch.quotes for batch in batches))
        assert {quote.bid for batch in batches for _, quote in batch.quotes} == {1.2}
        fates(Accepted, await on.venue.submit(on.order()))
        listening.cancel()

    trading(talk, at=parse_iso("2026-03-02T21:59:30Z"))


def test_an_account_that_wants_guaranteed_stops_is_refused_at_the_start() -> None:
    async def talk(on: Desk) -> None:
        await on.venue.check()
        account = on.emulator._summary() | {"guaranteedStopLossOrderMode": "REQUIRED"}
        on.emulator.faults = [Fault("GET", "/summary", Reply(200, json.dumps({"account": account, "lastTransactionID": "2"}).encode()))]
        with pytest.raises(VenueDenied, match="guaranteed"):
            await on.venue.check()

    trading(talk)


@pytest.mark.parametrize(("account", "share"), [("001-009-1234567-001", D(1)), ("001-001-1234567-009", D("0.5"))])
def test_japan_closes_everything_when_equity_is_the_whole_margin(account: str, share: Decimal) -> None:
    async def talk(on: Desk) -> None:
        on.book.account = account
        venue = OandaVenue(Endpoint(on.emulator.url, on.emulator.url), account, SecretStr(TOKEN), on.clock, {EUR_USD: MINUTE})
        [euro] = await venue.instruments()
        assert euro.maintenance_margin == D("0.0333") * share
        await venue.close()

    trading(talk)


def test_a_pair_that_is_offered_no_longer_is_left_out_and_the_others_go_on() -> None:
    """The broker takes pairs away (the ruble's in 2022), a held one too. It must not keep the others from starting."""

    async def talk(on: Desk) -> None:
        endpoint = Endpoint(on.emulator.url, on.emulator.url)
        venue = OandaVenue(endpoint, on.book.account, SecretStr(TOKEN), on.clock, {"USD/RUB": MINUTE, EUR_USD: MINUTE}, pace=PACE)
        assert [one.symbol for one in await venue.instruments()] == [EUR_USD]
        quotes: list[str] = []

        async def listen() -> None:
            async for batch in venue.market_events():
                quotes.extend(symbol for symbol, _ in batch.quotes)

        listening = asyncio.create_task(listen())
        await until(lambda: on.emulator.listeners)
        on.quote("1.30000", "1.30010")
        await until(lambda: EUR_USD in quotes)
        assert on.emulator.asked["GET", "/v3/instruments/USD_RUB/candles"] == 0
        assert fates(Refused, await venue.submit(on.order(symbol="USD/RUB"))).code == "LOCAL_CHECK"
        listening.cancel()
        await venue.close()
        alone = OandaVenue(endpoint, on.book.account, SecretStr(TOKEN), on.clock, {"USD/RUB": MINUTE}, pace=PACE)
        with pytest.raises(VenueUnreachable, match="USD/RUB"):
            await alone.instruments()
        await alone.close()

    trading(talk)


def test_no_more_than_two_connections_are_begun_in_a_second_but_an_order_waits_for_none() -> None:
    """More are rejected there; a start asks for several pasts at a time, and both streams."""
    loop = VirtualLoop(MONDAY)
    wire = OandaWire(PRACTICE, SecretStr(TOKEN), VirtualClock(loop), replace(PACE, connections_per_s=2))
    begun: list[tuple[str, float]] = []

    async def begin(name: str, opening: Callable[[], Awaitable[None]]) -> None:
        await opening()
        begun.append((name, round(loop.time() - start, 3)))

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(begin("read", wire._paced))
            group.create_task(begin("order", wire._hurried))

    start = loop.time()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(story())
    asyncio.set_event_loop(None)
    loop.close()
    assert sorted(begun) == [("order", 0.0), ("read", 0.0), ("read", 0.0), ("read", 1.0), ("read", 1.0), ("read", 2.0)]


def test_every_connection_is_counted() -> None:
    async def talk(on: Desk) -> None:
        before = len(on.venue._wire._opened)
        fates(Accepted, await on.venue.submit(on.order("100")))
        assert before == 1 and len(on.venue._wire._opened) == 2 == len(on.emulator.connections), "one that reads, one that writes"

    trading(talk)
