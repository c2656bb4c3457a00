"""Our OANDA adapter against the emulated broker: what it says of an order is true or "in doubt", and nothing unreadable reaches state."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from modules.domain.errors import ConfigurationError, VenueBusy, VenueDenied, VenueError, VenueUnreachable
from modules.domain.events import Filled as FilledFact
from modules.domain.events import FundingBooked, InstrumentListed, OrderIntended, TradeOpened, TransferSeen
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.order import Accepted, Fate, InDoubt, NotSent, Order, OrderKind, OrderState, Purpose, Refused
from modules.domain.sessions import parse_iso
from modules.Portfolio_Manager import PortfolioManager
from modules.runtime.clock import WallClock
from modules.store.journal import Journal
from modules.venues.oanda_codes import TABLE, Meaning, meaning
from modules.venues.oanda_venue import OandaVenue
from modules.venues.oanda_wire import PRACTICE, PRODUCTION, Endpoint, Pace
from modules.venues.protocol import AccountEvent, FillSeen, FundingPaid, OrderDone, Transferred
from tests.builders import EUR_USD, make_instrument, make_order
from tests.emulators.oanda import ACCOUNT, TOKEN, Fault, OandaEmulator, Reply, serving
from tests.timing import STORY_S

D = Decimal
MONDAY = parse_iso("2026-03-02T10:00:00Z")
USD_JPY = "USD/JPY"
MINUTE = 60_000
PACE = Pace(read_s=30.0, write_s=30.0, silence_s=2.0, connections_per_s=1_000, retry_s=0.05, ban_s=0.2, audit_s=0.3, candle_s=0.05)
"""Impatient where waiting is all there is to do, patient with every answer that is to come."""
HANGS_S = 2.0
"""How long a write is waited for whose answer never comes."""


class Desk:
    """An emulator and the adapter on it."""

    def __init__(self, emulator: OandaEmulator, venue: OandaVenue, clock: WallClock) -> None:
        self.emulator, self.venue, self.clock = emulator, venue, clock
        self.book = emulator.book
        self.serial = 0

    def order(self, units: str = "1000", side: Side = Side.BUY, symbol: str = EUR_USD, **changes: Any) -> Order:
        self.serial += 1
        made = make_order(make_instrument(AssetClass.FOREX, symbol=symbol, venue="oanda"), side=side, quantity=D(units), expires_at=None,
                          client_order_id=f"tb{self.serial:026d}", at=self.clock.now())
        return replace(made, **changes)

    def quote(self, bid: str, ask: str, symbol: str = EUR_USD, after_ms: int = 0) -> None:
        self.book.move(max(self.book.at, self.clock.now()) + after_ms, {symbol.replace("/", "_"): (D(bid), D(ask))})


@contextmanager
def hanging(on: Desk, reply: Reply) -> Iterator[None]:
    """Writes are waited for briefly where the answer is one that never ends; reads never are."""
    patient = on.venue._wire.pace
    if reply.how in ("stall", "drip"):
        on.venue._wire.pace = replace(patient, write_s=HANGS_S)
    yield
    on.venue._wire.pace = patient


@asynccontextmanager
async def desk(at: int = MONDAY, **options: Any) -> AsyncIterator[Desk]:
    async with serving(at) as emulator:
        emulator.heartbeat_s = 0.1
        clock = WallClock(1.0, at)
        venue = OandaVenue(Endpoint(emulator.url, emulator.url), ACCOUNT, SecretStr(options.pop("token", TOKEN)), clock,
                           {EUR_USD: MINUTE, USD_JPY: MINUTE}, pace=options.pop("pace", PACE), **options)
        try:
            await venue.instruments()
            yield Desk(emulator, venue, clock)
        finally:
            await venue.close()


def trading(talk: Callable[[Desk], Awaitable[None]], **options: Any) -> None:
    async def go() -> None:
        async with asyncio.timeout(STORY_S), desk(**options) as found:
            await talk(found)

    asyncio.run(go())


def fates(kind: type[Any], fate: Fate) -> Any:
    assert isinstance(fate, kind), fate
    return fate


# -- where it is ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://api-fxtrade.oanda.com", "https://user:pass@api-fxtrade.oanda.com", "https://h/?token=1", "ftp://h"])
def test_an_endpoint_without_tls_or_with_more_than_a_host_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        OandaVenue(Endpoint(url, url), ACCOUNT, SecretStr(TOKEN), WallClock(), {EUR_USD: MINUTE})
    assert "pass" not in str(refused.value) and "token" not in str(refused.value)


def test_only_the_endpoint_separates_emulator_practice_and_production() -> None:
    for endpoint in (PRACTICE, PRODUCTION, Endpoint("http://127.0.0.1:1", "http://127.0.0.1:1")):
        assert OandaVenue(endpoint, ACCOUNT, SecretStr(TOKEN), WallClock(), {EUR_USD: MINUTE}).capabilities.query_by_client_id


# -- codes ----------------------------------------------------------------------------------------------------------------------

INDEPENDENT = (Path(__file__).parent / "emulators" / "oanda_words.txt").read_text().split()
"""Every reject and cancel reason as an independent client of the broker lists them (oandapyV20 0.7.2, transaction definitions)."""


@pytest.mark.parametrize("code", INDEPENDENT)
def test_every_word_of_the_broker_has_a_meaning(code: str) -> None:
    assert code in TABLE


def test_a_word_nobody_knows_proves_nothing() -> None:
    assert meaning("NEW_IN_2031") is Meaning.DOUBT is meaning("INTERNAL_SERVER_ERROR")
    assert meaning("CLIENT_ORDER_ID_ALREADY_EXISTS") is Meaning.EXISTED


# -- the four fates ---------------------------------------------------------------------------------------------------------------


def test_an_order_is_accepted_filled_and_found_by_our_id() -> None:
    async def talk(on: Desk) -> None:
        order = on.order()
        fates(Accepted, await on.venue.submit(order))
        sent = on.emulator.bodies[-1]["order"]
        assert sent["units"] == "1000" and sent["clientExtensions"] == {"id": order.client_order_id} and sent["timeInForce"] == "FOK"
        report = await on.venue.order(order.client_order_id, EUR_USD)
        assert report is not None and (report.state, report.filled) == (OrderState.FILLED, D(1000))
        on.emulator.forgets_filled = True  # a client id need only name pending orders: then the transactions know
        assert await on.venue.order(order.client_order_id, EUR_USD) == report
        assert await on.venue.order("tb-nobody", EUR_USD) is None

    trading(talk)


def test_a_201_that_carries_a_cancel_is_a_rejection() -> None:
    async def talk(on: Desk) -> None:
        assert fates(Refused, await on.venue.submit(on.order("1000000"))).code == "INSUFFICIENT_MARGIN"
        on.book.halted.add("EUR_USD")
        assert fates(Refused, await on.venue.submit(on.order())).code == "MARKET_HALTED"

    trading(talk)


def test_a_client_id_in_use_is_asked_about_and_not_called_rejected() -> None:
    async def talk(on: Desk) -> None:
        resting = on.order(kind=OrderKind.LIMIT, price=D("1.00000"))
        fates(Accepted, await on.venue.submit(resting))
        fates(InDoubt, await on.venue.submit(resting))
        report = await on.venue.order(resting.client_order_id, EUR_USD)
        assert report is not None and report.state is OrderState.ACCEPTED

    trading(talk)


def test_a_rejection_is_believed_by_its_listed_word_only() -> None:
    async def talk(on: Desk) -> None:
        for word, kind in (("UNITS_LIMIT_EXCEEDED", Refused), ("ACCOUNT_LOCKED", Refused), ("INTERNAL_SERVER_ERROR", InDoubt),
                           ("NEW_IN_2031", InDoubt)):
            reject = {"id": "9", "time": "2026-03-02T10:00:00.000000000Z", "type": "MARKET_ORDER_REJECT", "rejectReason": word}
            body = json.dumps({"errorMessage": "no", "errorCode": word, "orderRejectTransaction": reject}).encode()
            on.emulator.faults = [Fault("POST", "/orders", Reply(400, body))]
            fates(kind, await on.venue.submit(on.order()))
        on.emulator.faults = [Fault("POST", "/orders", Reply(400, b'{"errorMessage": "Invalid value"}'))]
        fates(InDoubt, await on.venue.submit(on.order()))

    trading(talk)


@pytest.mark.parametrize(("changes", "word"), [
    ({"quantity": D("0")}, "minimum"), ({"quantity": D("-5")}, "minimum"), ({"quantity": D("NaN")}, "minimum"),
    ({"quantity": D("1.5")}, "multiple"), ({"symbol": "XAU/USD"}, "listed"), ({"client_order_id": "x"}, "client order id"),
    ({"kind": OrderKind.LIMIT, "price": D("1.100001")}, "multiple"), ({"kind": OrderKind.STOP, "price": None}, "no price"),
])
def test_what_breaks_the_instruments_rules_never_leaves(changes: dict[str, Any], word: str) -> None:
    async def talk(on: Desk) -> None:
        assert word in fates(Refused, await on.venue.submit(on.order(**changes))).message
        assert on.emulator.bodies == []

    trading(talk)


def test_a_broker_that_is_not_there_got_nothing() -> None:
    async def go() -> None:
        venue = OandaVenue(Endpoint("http://127.0.0.1:9", "http://127.0.0.1:9"), ACCOUNT, SecretStr(TOKEN), WallClock(), {EUR_USD: MINUTE})
        venue._listed = {EUR_USD: make_instrument(AssetClass.FOREX)}
        order = make_order(make_instrument(AssetClass.FOREX), quantity=D(10))
        fates(NotSent, await venue.submit(order))
        fates(NotSent, await venue.cancel(order))
        await venue.close()

    asyncio.run(go())


def test_after_too_many_requests_nothing_is_asked_before_the_ban_ends() -> None:
    async def talk(on: Desk) -> None:
        on.emulator.faults = [Fault("POST", "/orders", Reply(429, b'{"errorMessage": "slow"}', headers=(("Retry-After", "30"),)))]
        fates(NotSent, await on.venue.submit(on.order()))
        before = on.emulator.asked.total()
        fates(NotSent, await on.venue.submit(on.order()))
        with pytest.raises(VenueBusy) as busy:
            await on.venue.wallet()
        assert on.emulator.asked.total() == before and 0 < busy.value.until - on.clock.now() <= 30_000

    trading(talk)


@pytest.mark.parametrize("seconds", ["864000", "9999999999"])
def test_a_ban_of_days_is_obeyed_for_a_quarter_of_an_hour(seconds: str) -> None:
    async def talk(on: Desk) -> None:
        on.emulator.faults = [Fault("POST", "/orders", Reply(429, b'{"errorMessage": "slow"}', headers=(("Retry-After", seconds),)))]
        fates(NotSent, await on.venue.submit(on.order()))
        with pytest.raises(VenueBusy) as busy:
            await on.venue.wallet()
        assert 800_000 < busy.value.until - on.clock.now() <= 900_000

    trading(talk)


def test_a_wrong_token_is_a_denial_and_is_never_shown() -> None:
    async def go() -> None:
        async with serving(MONDAY) as emulator:
            venue = OandaVenue(Endpoint(emulator.url, emulator.url), ACCOUNT, SecretStr("canary-7777"), WallClock(), {EUR_USD: MINUTE})
            with pytest.raises(VenueDenied) as denied:
                await venue.wallet()
            told = [str(denied.value), repr(denied.value), repr(venue.__dict__)]
            emulator.always = [Fault("GET", "", Reply(200, b"canary-7777 <html>"))]
            with pytest.raises(VenueUnreachable) as garbage:
                await venue.wallet()
            told += [str(garbage.value), str(garbage.value.__cause__)]
            assert not any("canary" in text for text in told)
            await venue.close()

    asyncio.run(go())


# -- the write-fault matrix ---------------------------------------------------------------------------------------------------------

OK = json.dumps({"orderCreateTransaction": {"id": "77", "time": "2026-03-02T10:00:00Z", "type": "MARKET_ORDER", "instrument": "USD_JPY",
                                            "units": "5", "clientExtensions": {"id": "tbother"}}}).encode()
HTML = b"<html><body>502 Bad Gateway</body></html>"
WRITE_FAULTS = {
    **{how: Reply(how=how) for how in ("stall", "close", "reset", "cut", "drip")},
    "empty 200": Reply(200), "empty 201": Reply(201), "html 200": Reply(200, HTML), "html 201": Reply(201, HTML),
    "null 200": Reply(200, b"null"), "null 201": Reply(201, b"null"), "{}": Reply(201, b"{}"), "[]": Reply(201, b"[]"),
    "NaN": Reply(201, b'{"orderCreateTransaction": {"units": NaN}}'), "deep": Reply(201, b"[" * 100_000), "another order": Reply(201, OK),
    "not utf-8": Reply(201, b"\xff\xfe"), "204": Reply(204), "301": Reply(301, headers=(("Location", "http://127.0.0.1:9/"),)),
    "307": Reply(307, headers=(("Location", "/v3/elsewhere"),)), "400 empty": Reply(400), "400 html": Reply(400, HTML),
    "400 bare": Reply(400, b'{"errorMessage": "no"}'), "403 html": Reply(403, HTML), "404": Reply(404, b'{"errorMessage": "no"}'),
    "405": Reply(405, b'{"errorMessage": "no"}'), "408": Reply(408, HTML), "409": Reply(409, b'{"errorMessage": "no"}'),
    "500": Reply(500, b'{"errorMessage": "no"}'), "502": Reply(502, HTML), "503": Reply(503, b'{"errorMessage": "maintenance"}'),
    "504": Reply(504, HTML), "524": Reply(524, HTML),
}


@pytest.mark.parametrize("accepted", [True, False], ids=["accepted", "not accepted"])
def test_the_write_fault_matrix_of_a_submit(accepted: bool) -> None:
    """Whatever comes back: never called rejected when it was accepted, never sent twice, and the truth is found by asking."""

    async def one(on: Desk, name: str, reply: Reply) -> None:
        order = on.order("100", kind=OrderKind.LIMIT, price=D("1.00000"))
        on.emulator.faults = [Fault("POST", "/orders", reply, accepted)]
        with hanging(on, reply):
            fate = await on.venue.submit(order)
        assert isinstance(fate, InDoubt), (name, fate)
        assert sum(body.get("order", {}).get("clientExtensions", {}).get("id") == order.client_order_id
                   for body in on.emulator.bodies) == int(accepted), name
        report = await on.venue.order(order.client_order_id, EUR_USD)
        assert (report is not None and report.state is OrderState.ACCEPTED) if accepted else report is None, name

    async def talk(on: Desk) -> None:
        for name, reply in WRITE_FAULTS.items():
            before = on.emulator.asked["POST", f"/v3/accounts/{ACCOUNT}/orders"]
            await one(on, name, reply)
            assert on.emulator.asked["POST", f"/v3/accounts/{ACCOUNT}/orders"] == before + 1, name
        assert len(on.book.orders) == len(WRITE_FAULTS) * accepted

    trading(talk)


@pytest.mark.parametrize("accepted", [True, False], ids=["accepted", "not accepted"])
def test_the_write_fault_matrix_of_a_cancel(accepted: bool) -> None:
    async def talk(on: Desk) -> None:
        for name, reply in WRITE_FAULTS.items():
            order = on.order("100", kind=OrderKind.LIMIT, price=D("1.00000"))
            fates(Accepted, await on.venue.submit(order))
            on.emulator.faults = [Fault("PUT", "/cancel", reply, accepted)]
            with hanging(on, reply):
                fate = await on.venue.cancel(order)
            # aiohttp may ask a lost PUT again by itself; a cancel twice is one cancel, and the second answer speaks the truth.
            assert isinstance(fate, InDoubt | Accepted), (name, fate)
            report = await on.venue.order(order.client_order_id, EUR_USD)
            assert report is not None
            assert not isinstance(fate, Accepted) or report.state is OrderState.CANCELED, name
            assert report.state is OrderState.CANCELED or not accepted, name

    trading(talk)


def test_a_cancel_of_what_filled_meanwhile_says_that_it_is_over() -> None:
    async def talk(on: Desk) -> None:
        order = on.order()
        fates(Accepted, await on.venue.submit(order))
        fates(Accepted, await on.venue.cancel(order))
        assert fates(Refused, await on.venue.cancel(on.order())).code == "ORDER_DOESNT_EXIST"

    trading(talk)


# -- the garbage-read matrix ----------------------------------------------------------------------------------------------------------

GARBAGE = {
    "empty": b"", "html": HTML, "null": b"null", "[]": b"[]", "{}": b"{}", "NaN": b'{"account": {"balance": NaN}}', "text": b'"ok"',
    "cut": b'{"account": {"id": "1', "hollow": json.dumps({
        "account": {"id": ACCOUNT, "currency": "USD", "balance": None, "positions": [], "orders": []}, "instruments": [{"name": "EUR_USD"}],
        "candles": [{"complete": True, "time": "x"}], "order": {"id": 7}, "pages": [None], "transactions": [{}], "lastTransactionID": None,
    }).encode(),
}
READS: dict[str, Callable[[OandaVenue], Awaitable[Any]]] = {
    "instruments": lambda venue: venue.instruments(), "history": lambda venue: venue.history(EUR_USD, MONDAY, 5),
    "wallet": lambda venue: venue.wallet(), "order": lambda venue: venue.order("tb1", EUR_USD),
    "fills_since": lambda venue: venue.fills_since(0), "missed": lambda venue: venue.missed(), "check": lambda venue: venue.check(),
}


@pytest.mark.parametrize("status", [200, 404, 500])
def test_the_garbage_read_matrix(status: int) -> None:
    """9 bodies x every read: a VenueError each time, nothing believed, and the next good answer works."""

    async def talk(on: Desk) -> None:
        before = await on.venue.wallet()
        for body in GARBAGE.values():
            on.emulator.always = [Fault("GET", "", Reply(status, body))]
            for name, read in READS.items():
                with pytest.raises(VenueError):
                    print(name, body, await read(on.venue))
        on.emulator.always = []
        after = await on.venue.wallet()
        assert after.classes == before.classes and len(await on.venue.instruments()) == 2

    trading(talk)


@pytest.mark.parametrize("change", [{"id": "101-001-7777777-001"}, {"currency": "EUR"}, {"balance": 10000.0}, {"balance": "Infinity"}])
def test_a_wallet_that_is_not_ours_or_not_exact_is_not_believed(change: dict[str, Any]) -> None:
    async def talk(on: Desk) -> None:
        account = {"id": ACCOUNT, "currency": "USD", "balance": "10000", "positions": [], "orders": []} | change
        on.emulator.faults = [Fault("GET", "", Reply(200, json.dumps({"account": account, "lastTransactionID": "2"}).encode()))]
        with pytest.raises(VenueUnreachable):
            await on.venue.wallet()

    trading(talk)


# -- the market ---------------------------------------------------------------------------------------------------------------------


def test_instruments_carry_the_brokers_rules() -> None:
    async def talk(on: Desk) -> None:
        euro, yen = await on.venue.instruments()
        assert (euro.tick, euro.lot, euro.quantity_min, euro.pip) == (D("0.00001"), D(1), D(1), D("0.0001"))
        assert (yen.symbol, yen.tick, yen.leverage_max, yen.maintenance_margin) == (USD_JPY, D("0.001"), D(25), D("0.02"))
        assert (yen.base, yen.quote, yen.settle) == ("USD", "JPY", "USD")

    trading(talk)


def test_history_holds_closed_bars_only_with_the_quote_at_each_close() -> None:
    async def talk(on: Desk) -> None:
        for minute in range(-5, 0):
            on.book.at = MONDAY + minute * MINUTE
            on.book.move(on.book.at + 1_000, {"EUR_USD": (D("1.10000") + D(minute) / 10_000, D("1.10010") + D(minute) / 10_000)})
        on.book.move(MONDAY + 10, {"EUR_USD": (D("1.2"), D("1.2001"))})  # the forming one
        bars = await on.venue.history(EUR_USD, MONDAY, 3)
        assert [bar.ts for bar in bars] == [MONDAY - 3 * MINUTE, MONDAY - 2 * MINUTE, MONDAY - MINUTE]
        assert (bars[-1].bid, bars[-1].ask, bars[-1].close) == (1.0999, 1.1, 1.09995) and bars[-1].volume != bars[-1].volume

    trading(talk)


def test_the_market_tells_quotes_rates_and_each_bar_once_when_it_has_closed() -> None:
    async def talk(on: Desk) -> None:
        on.quote("1.10000", "1.10010")
        bars: list[tuple[str, int]] = []
        quotes: list[float] = []
        rates: list[str] = []

        async def listen() -> None:
            async for batch in on.venue.market_events():
                bars.extend((symbol, bar.ts) for symbol, bar in batch.bars)
                quotes.extend(quote.bid for _, quote in batch.quotes)
                rates.extend(f"{rate.symbol} {rate.long_rate}" for rate in batch.financing)

        def streams() -> int:
            return on.emulator.asked["GET", f"/v3/accounts/{ACCOUNT}/pricing/stream"]

        on.emulator.heartbeat_s = 0.1
        assert await on.venue.clock_offset_ms() is None, "nobody has heard the broker's clock"
        listening = asyncio.create_task(listen())
        await until(lambda: rates and on.emulator.listeners)
        await asyncio.sleep(0.15)
        on.quote("1.20000", "1.20010", after_ms=5)
        await until(lambda: 1.2 in quotes)
        on.emulator.drop_streams()
        await until(lambda: on.emulator.listeners)
        on.quote("1.30000", "1.30010", after_ms=10)
        await until(lambda: 1.3 in quotes)
        on.emulator.garble()
        await until(lambda: streams() >= 3)
        on.emulator.silent, opened = True, streams()  # open, and dead
        await until(lambda: streams() > opened)
        assert bars == [] and sorted(rates) == ["EUR/USD -0.015", "USD/JPY 0.031"] and await on.venue.clock_offset_ms() is not None
        # The minute ends: time leaps for the venue and for us.
        on.clock._start += MINUTE
        on.book.move(MONDAY + MINUTE + 500, {"EUR_USD": (D("1.4"), D("1.4001")), "USD_JPY": (D("150"), D("150.01"))})
        assert [bar.ts for bar in await on.venue._feed._fresh(EUR_USD)] == [MONDAY]
        assert await on.venue._feed._fresh(EUR_USD) == []
        listening.cancel()

    trading(talk)


def test_a_bar_is_told_after_its_close_and_a_hole_is_filled_when_the_wire_is_back() -> None:
    start = MONDAY + MINUTE - 300

    async def talk(on: Desk) -> None:
        on.book.move(start + 1, {"EUR_USD": (D("1.1"), D("1.1001"))})
        told: list[tuple[int, int, int]] = []

        async def listen() -> None:
            async for batch in on.venue.market_events():
                told.extend((bar.ts, batch.at, len(batch.bars)) for _, bar in batch.bars)

        listening = asyncio.create_task(listen())
        on.emulator.always = [Fault("GET", "/candles", Reply(503, HTML))]
        await asyncio.sleep(0.35)
        assert told == []
        on.book.move(MONDAY + MINUTE + 50, {"EUR_USD": (D("1.2"), D("1.2001"))})
        on.emulator.always = []
        await until(lambda: told)
        assert told[0][0] == MONDAY and told[0][1] >= MONDAY + MINUTE and len(told) == 1
        listening.cancel()

    trading(talk, at=start, pace=replace(PACE, candle_tries=40))


async def until(true: Callable[[], Any]) -> None:
    """Wait for something that is to come; the test's own time limit ends it if it does not."""
    while not true():  # noqa: ASYNC110 - what is waited for has no event that could wake us
        await asyncio.sleep(0.01)


# -- the account --------------------------------------------------------------------------------------------------------------------


class Listener:
    """Gathers what the venue tells about the account."""

    def __init__(self, on: Desk) -> None:
        self.events: list[AccountEvent] = []
        self.task = asyncio.create_task(self._run(on))

    async def _run(self, on: Desk) -> None:
        async for event in on.venue.account_events():
            self.events.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def test_fills_are_told_once_whatever_the_stream_does() -> None:
    async def talk(on: Desk) -> None:
        await on.venue.wallet()
        heard = Listener(on)
        await on.venue.submit(on.order("100"))
        await until(lambda: len(heard.of(FillSeen)) == 1)
        on.emulator.silent = True
        on.quote("1.2", "1.2001")
        on.book.create({"type": "MARKET", "instrument": "EUR_USD", "units": "7"})  # somebody else's, with nobody told
        await until(lambda: len(heard.of(FillSeen)) == 2)
        on.emulator.silent = False
        on.emulator.drop_streams()
        on.emulator.always = [Fault("GET", "/sinceid", Reply(200, b'{"transactions": [], "lastTransactionID": "99"}'))]
        await on.venue.submit(on.order("100", Side.SELL))
        await asyncio.sleep(0.2)
        on.emulator.always = []
        await until(lambda: len(heard.of(FillSeen)) == 3)
        await asyncio.sleep(0.4)  # another audit
        fills = [seen.fill for seen in heard.of(FillSeen)]
        assert [fill.quantity * fill.side.sign for fill in fills] == [D(100), D(7), D(-100)]
        assert fills[1].client_order_id == "" and len({fill.venue_trade_id for fill in fills}) == 3
        assert await on.venue.fills_since(MONDAY - 1) == heard.of(FillSeen)
        heard.task.cancel()

    trading(talk)


def test_an_answer_that_leaves_transactions_out_is_not_believed() -> None:
    async def talk(on: Desk) -> None:
        await on.venue.wallet()
        on.book.transfer(D(5))
        bare = json.dumps({"transactions": [], "lastTransactionID": on.book.last}).encode()
        on.emulator.faults = [Fault("GET", "/sinceid", Reply(200, bare))]
        with pytest.raises(VenueUnreachable):
            await on.venue.missed()
        assert [event.amount for event in await on.venue.missed() if isinstance(event, Transferred)] == [D(5)]

    trading(talk)


def test_an_order_that_ends_unfilled_is_told_with_how_it_ended() -> None:
    async def talk(on: Desk) -> None:
        await on.venue.wallet()
        heard = Listener(on)
        canceled = on.order(kind=OrderKind.LIMIT, price=D("1.00000"))
        expiring = on.order(kind=OrderKind.LIMIT, price=D("1.00000"), expires_at=on.clock.now() + 60_000)
        for order in (canceled, expiring):
            fates(Accepted, await on.venue.submit(order))
        assert [report.client_order_id for report in (await on.venue.wallet()).open_orders] == [
            canceled.client_order_id, expiring.client_order_id]
        fates(Accepted, await on.venue.cancel(canceled))
        on.quote("1.1", "1.1001", after_ms=61_000)
        await until(lambda: len(heard.of(OrderDone)) == 2)
        assert [(done.client_order_id, done.how) for done in heard.of(OrderDone)] == [
            (canceled.client_order_id, "canceled"), (expiring.client_order_id, "expired")]
        report = await on.venue.order(expiring.client_order_id, EUR_USD)
        assert report is not None and report.state is OrderState.EXPIRED
        heard.task.cancel()

    trading(talk)


def test_a_protective_stop_rests_at_the_broker_and_only_reduces() -> None:
    async def talk(on: Desk) -> None:
        await on.venue.wallet()
        heard = Listener(on)
        await on.venue.submit(on.order())
        stop = on.order(side=Side.SELL, kind=OrderKind.STOP, purpose=Purpose.STOP, price=D("1.09000"), reduce_only=True)
        fates(Accepted, await on.venue.submit(stop))
        on.quote("1.08900", "1.08912")
        await until(lambda: len(heard.of(FillSeen)) == 2)
        last = heard.of(FillSeen)[-1].fill
        assert (last.client_order_id, last.price) == (stop.client_order_id, D("1.08900"))
        assert (await on.venue.wallet()).classes[AssetClass.FOREX].positions == {}
        lonely = on.order(side=Side.SELL, reduce_only=True)
        fates(Refused, await on.venue.submit(lonely))  # nothing to reduce: it must not open a short
        assert on.book.position("EUR_USD") == 0
        heard.task.cancel()

    trading(talk)


def test_what_happened_while_we_were_away_is_told_and_nothing_from_before_the_journal() -> None:
    async def talk(on: Desk) -> None:
        await on.venue.wallet()
        on.book.transfer(D(500))
        later = OandaVenue(Endpoint(on.emulator.url, on.emulator.url), ACCOUNT, SecretStr(TOKEN), on.clock, {EUR_USD: MINUTE}, pace=PACE,
                           seen_until=on.book.at)
        fresh = OandaVenue(Endpoint(on.emulator.url, on.emulator.url), ACCOUNT, SecretStr(TOKEN), on.clock, {EUR_USD: MINUTE}, pace=PACE)
        for venue, wanted in ((later, True), (fresh, False)):
            await venue.wallet()
            amounts = [event.amount for event in await venue.missed() if isinstance(event, Transferred)]
            assert (D(500) in amounts) is wanted
            await venue.close()

    trading(talk)


# -- ledger = oracle ----------------------------------------------------------------------------------------------------------------


class Books:
    """Our own books, fed what the venue tells and nothing else."""

    def __init__(self, instruments: list[Instrument], cash: Decimal) -> None:
        self.journal = Journal(None)
        self.portfolio = PortfolioManager(self.journal, {AssetClass.FOREX: "USD"})
        self.journal.project(self.portfolio.apply)
        self.journal.react(self.portfolio.on_fact)
        self.journal.append(TransferSeen(MONDAY, AssetClass.FOREX, cash, D(0), "opening"))
        for instrument in instruments:
            self.journal.append(InstrumentListed(MONDAY, instrument))

    def intend(self, order: Order) -> None:
        if order.purpose is Purpose.ENTRY:
            self.journal.append(TradeOpened(
                at=order.at, trade_id=order.trade_id, decision_id="d", strategy="s", symbol=order.symbol, asset_class=AssetClass.FOREX,
                side=order.side.value, structure="single", score=0.5, confidence=0.5, entry=1.0, stop=None, target=None, hold=0,
                interval_ms=MINUTE, risk=D(10)))
        self.journal.append(OrderIntended(order.at, order))

    def take(self, event: AccountEvent) -> None:
        if isinstance(event, FillSeen):
            self.journal.append(FilledFact(event.fill.at, event.fill, event.order_done))
        elif isinstance(event, FundingPaid):
            self.journal.append(FundingBooked(event.at, event.venue, event.symbol, event.asset_class, event.amount, event.rate,
                                              event.venue_ref))
        elif isinstance(event, Transferred):
            self.journal.append(TransferSeen(event.at, event.asset_class, event.amount, D(10_000), event.venue_ref))


def test_after_a_day_of_trades_nights_and_deposits_our_books_are_the_brokers_to_the_last_digit() -> None:
    async def talk(on: Desk) -> None:
        opening = (await on.venue.wallet()).classes[AssetClass.FOREX].cash
        books = Books(list(await on.venue.instruments()), opening)

        async def trade(units: str, side: Side, symbol: str, trade_id: str, purpose: Purpose = Purpose.ENTRY) -> None:
            order = on.order(units, side, symbol, trade_id=trade_id, purpose=purpose, reduce_only=purpose is not Purpose.ENTRY)
            books.intend(order)
            fates(Accepted, await on.venue.submit(order))

        await trade("1237", Side.BUY, EUR_USD, "a")
        await trade("3331", Side.SELL, USD_JPY, "b")
        on.quote("1.10233", "1.10244", after_ms=6 * 3_600_000)
        on.quote("149.117", "149.131", USD_JPY)
        await trade("400", Side.SELL, EUR_USD, "a", Purpose.EXIT)
        on.book.move(on.book.at + 10 * 3_600_000, {"EUR_USD": (D("1.09871"), D("1.09884")), "USD_JPY": (D("149.903"), D("149.919"))})
        on.book.transfer(D("-250.5"))
        await trade("837", Side.SELL, EUR_USD, "a", Purpose.EXIT)
        await trade("3331", Side.BUY, USD_JPY, "b", Purpose.EXIT)
        events = await on.venue.missed()
        for event in events:
            books.take(event)
        wallet = (await on.venue.wallet()).classes[AssetClass.FOREX]
        assert {type(event) for event in events} == {FillSeen, FundingPaid, Transferred}
        assert books.portfolio.wallet_cash(AssetClass.FOREX) == wallet.cash == on.book.balance != opening - D("250.5")
        assert wallet.positions == {} and not books.portfolio.positions and len(books.portfolio.closed) == 2
        rounding = [abs(event.fill.fee) for event in events if isinstance(event, FillSeen)]
        assert max(rounding) <= D("0.00005") and any(rounding)

    trading(talk)
