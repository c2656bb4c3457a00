"""Our paper fills on a live market: what trades at which quote, what rests and is reached, what happened while nobody listened or ran.

The market is a script on virtual time; every price is worked out by hand. The wire is another test's business (test_process_modes.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest

from modules.domain.errors import ConfigurationError, VenueUnreachable
from modules.domain.events import Filled as FilledFact
from modules.domain.events import FundingBooked, InstrumentListed, OrderAccepted, OrderIntended, OrderSent, TransferSeen
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.market import NAN, Bar, Batch, Financing, FundingRate, Quote
from modules.domain.money import ZERO
from modules.domain.order import Accepted, Order, OrderKind, Purpose
from modules.domain.policies import CostModel, CostPolicy, Policies
from modules.runtime.clock import VirtualClock, VirtualLoop
from modules.venues.ccxt_streams import _Candles
from modules.venues.live_paper import LivePaperVenue
from modules.venues.live_quotes import LiveQuotes
from modules.venues.paper_book import PaperBook
from modules.venues.protocol import AccountEvent, FillSeen, FundingPaid, OrderDone
from tests.builders import shipped_policies

D = Decimal
MINUTE = 60_000
START = 1_767_571_200_000  # Monday 2026-01-05 00:00 UTC
PERP = Instrument("BTC/USDT:USDT", "script", AssetClass.PERP, "BTC", "USDT", "USDT", "BTC", D("0.1"), D("0.001"), D("0.001"), D(5),
                  leverage_max=D(20), funding_interval_h=8)
EUR = Instrument("EUR/USD", "script", AssetClass.FOREX, "EUR", "USD", "USD", "EUR/USD", D("0.00001"), D(1), D(1), leverage_max=D(20))
GBP = Instrument("EUR/GBP", "script", AssetClass.FOREX, "EUR", "GBP", "USD", "EUR/GBP", D("0.00001"), D(1), D(1), leverage_max=D(20))
CABLE = Instrument("GBP/USD", "script", AssetClass.FOREX, "GBP", "USD", "USD", "GBP/USD", D("0.00001"), D(1), D(1), leverage_max=D(20))


def at(minute: float) -> int:
    return START + int(minute * MINUTE)


def free(latency_ms: int = 50) -> Policies:
    """Nothing costs anything, so that every price is the market's own."""
    model = CostModel.model_validate({
        "half_spread_bp": 0.0, "slippage_bp": 0.0, "impact_bp": 0.0, "stop_slippage_bp": 0.0, "maker_fee": D(0), "taker_fee": D(0),
        "participation_max": D(1), "maintenance_margin": D(0), "leverage": D(1)})
    costs = CostPolicy.model_validate({"version": 1, "latency_ms": latency_ms, "forex_financing_markup": "0",
                                       **{asset_class.value: model for asset_class in AssetClass}})
    shipped = shipped_policies()
    return Policies(**{**{name: getattr(shipped, name) for name in Policies.model_fields}, "costs": costs})


def bar(minute: float, open_: float, high: float, low: float, close: float) -> Bar:
    """One minute from `minute` on."""
    return Bar(at(minute), open_, high, low, close, 1e9, 1e9 * close)


class Script:
    """A data venue: what is put into it is told, its history is `past`."""

    name = "script"

    def __init__(self, clock: VirtualClock, instruments: Sequence[Instrument] = (PERP,)) -> None:
        self.clock = clock
        self.listed = instruments
        self.past: dict[str, list[Bar]] = {}
        self.settled: list[FundingRate] = []
        self.down = 0
        """So many questions fail first."""
        self.asked = 0
        self.closed = False
        self._told: asyncio.Queue[Batch] = asyncio.Queue()

    def tell(self, **what: Any) -> None:
        self._told.put_nowait(Batch(self.clock.now(), **what))

    async def market_events(self) -> AsyncIterator[Batch]:
        while True:
            yield await self._told.get()

    def interval_ms(self, symbol: str) -> int:
        return MINUTE

    async def history(self, symbol: str, until: int, bars: int) -> Sequence[Bar]:
        self.asked += 1
        if self.down:
            self.down -= 1
            raise VenueUnreachable("script: down")
        return [known for known in self.past.get(symbol, []) if known.ts + MINUTE <= until][-bars:]

    async def settled_funding(self, symbol: str, since: int) -> Sequence[FundingRate]:
        return [rate for rate in self.settled if rate.symbol == symbol and rate.at > since]

    async def close(self) -> None:
        self.closed = True


class World:
    """A paper venue on a script, listened to."""

    def __init__(self, clock: VirtualClock, script: Script, **books: int) -> None:
        cash = books or {"PERP": 10_000, "FOREX": 10_000}
        self.clock = clock
        self.script = script
        self.venue = LivePaperVenue(
            script, script.listed, clock, free(), {AssetClass(name): PaperBook("USD", D(amount)) for name, amount in cash.items()})  # type: ignore[arg-type]
        self.events: list[AccountEvent] = []
        self.batches: list[Batch] = []
        self._tasks: list[asyncio.Task[None]] = []

    def run(self) -> None:
        self._tasks = [asyncio.create_task(self._market()), asyncio.create_task(self._account())]

    async def _market(self) -> None:
        async for batch in self.venue.market_events():
            self.batches.append(batch)

    async def _account(self) -> None:
        async for event in self.venue.account_events():
            self.events.append(event)

    async def end(self) -> None:
        await self.venue.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def tell(self, minute: float, **what: Any) -> None:
        """At `minute` the market says this."""
        await self.clock.sleep_until(at(minute))
        self.script.tell(**what)
        await self.clock.settle()

    async def quote(self, minute: float, bid: float, ask: float, instrument: Instrument = PERP) -> None:
        await self.tell(minute, quotes=[(instrument.symbol, Quote(at(minute), bid, ask))])

    async def bar(self, closed: Bar, instrument: Instrument = PERP, late_s: float = 1.0) -> None:
        await self.tell((closed.ts - START + MINUTE + late_s * 1000) / MINUTE, bars=[(instrument.symbol, closed)])

    @property
    def fills(self) -> list[tuple[str, Decimal, Decimal]]:
        return [(seen.fill.client_order_id, seen.fill.quantity, seen.fill.price) for seen in self.events if isinstance(seen, FillSeen)]

    @property
    def ends(self) -> list[tuple[str, str]]:
        return [(done.client_order_id, done.reason) for done in self.events if isinstance(done, OrderDone)]


def order(name: str, side: Side = Side.BUY, quantity: str = "1", *, kind: OrderKind = OrderKind.MARKET, price: str | None = None,
          reduce: bool = False, instrument: Instrument = PERP, leverage: str = "2") -> Order:
    purpose = Purpose.STOP if kind is OrderKind.STOP else Purpose.EXIT if reduce else Purpose.ENTRY
    return Order(
        client_order_id=name, trade_id="t", decision_id="d", strategy="s", venue="script", symbol=instrument.symbol,
        asset_class=instrument.asset_class, side=side, quantity=D(quantity), kind=kind, purpose=purpose,
        price=None if price is None else D(price), reduce_only=reduce, leverage=D(leverage), arrival_price=D(100),
        slippage_model_bp=ZERO, reserves=ZERO, at=START)


def stop(name: str, price: str) -> Order:
    return order(name, Side.SELL, kind=OrderKind.STOP, price=price, reduce=True)


def target(name: str, price: str) -> Order:
    return order(name, Side.SELL, kind=OrderKind.TARGET, price=price, reduce=True)


def played(story: Callable[[World], Awaitable[None]], instruments: Sequence[Instrument] = (PERP,), **books: int) -> World:
    """The world after `story`, which begins at START with one bar of history at 100."""
    loop = VirtualLoop(START)
    try:
        asyncio.set_event_loop(loop)
        clock = VirtualClock(loop)
        script = Script(clock, instruments)
        prices = {PERP: 100.0, EUR: 1.1, GBP: 0.8, CABLE: 1.3}
        for instrument in instruments:
            script.past[instrument.symbol] = [bar(-1, *4 * (prices[instrument],))]
        world = World(clock, script, **books)

        async def life() -> None:
            for instrument in instruments:
                await world.venue.history(instrument.symbol, START, 10)
            world.run()
            await clock.settle()
            await story(world)
            await clock.settle()
            await world.end()

        loop.run_until_complete(life())
        return world
    finally:
        asyncio.set_event_loop(None)
        loop.close()


# -- at the quotes of the moment ---------------------------------------------------------------------------------------------


def test_a_market_order_trades_at_the_ask_or_bid_of_its_arrival() -> None:
    async def story(world: World) -> None:
        await world.quote(0.1, 99.9, 100.1)
        assert isinstance(await world.venue.submit(order("in")), Accepted)
        await world.quote(0.2, 104.9, 105.1)
        assert isinstance(await world.venue.submit(order("out", Side.SELL, reduce=True)), Accepted)

    world = played(story)
    assert world.fills == [("in", D(1), D("100.1")), ("out", D(1), D("104.9"))]
    assert world.venue.books[AssetClass.PERP].cash == D("10004.8")


def test_without_a_fresh_quote_an_entry_ends_and_an_exit_waits_for_the_next_one() -> None:
    async def story(world: World) -> None:
        await world.quote(0.1, 99.9, 100.1)
        await world.venue.submit(order("in"))
        await world.clock.sleep_until(at(2))  # older than one bar, and nothing else was heard
        await world.venue.submit(order("late"))
        await world.venue.submit(order("out", Side.SELL, reduce=True))
        await world.clock.settle()
        assert [name for name, _, _ in world.fills] == ["in"]
        await world.quote(3, 89.9, 90.1)

    world = played(story)
    assert world.ends == [("late", "no fresh quote to trade at")]
    assert world.fills == [("in", D(1), D("100.1")), ("out", D(1), D("89.9"))]


def test_a_quiet_pair_is_believed_while_its_connection_speaks_but_not_for_longer_than_a_bar() -> None:
    async def story(world: World) -> None:
        await world.quote(0.0, 1.0999, 1.1001, EUR)
        await world.quote(0.5, 1.2999, 1.3001, CABLE)
        await world.venue.submit(order("quiet", quantity="100", instrument=EUR))
        await world.quote(1.5, 1.2999, 1.3001, CABLE)
        await world.venue.submit(order("dead", quantity="100", instrument=EUR))

    world = played(story, (EUR, CABLE))
    assert [name for name, _, _ in world.fills] == ["quiet"]
    assert world.ends == [("dead", "no fresh quote to trade at")]


class SetClock:
    """A wall clock that somebody sets."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> int:
        return self.at


def quotes_of(clock: SetClock, hours: int) -> LiveQuotes:
    return LiveQuotes((EUR, CABLE), lambda _: hours * 60 * MINUTE, clock, 10.0, 5.0)  # type: ignore[arg-type]


def test_one_symbol_that_died_among_living_ones_is_not_believed_for_a_bar_of_hours() -> None:
    clock = SetClock()
    quotes = quotes_of(clock, 4)
    assert quotes.take(EUR.symbol, Quote(clock.at, 1.1, 1.1001), NAN)
    for second in range(10, 3_600, 10):
        clock.at = START + second * 1_000
        assert quotes.take(CABLE.symbol, Quote(clock.at, 1.3, 1.3001), NAN)
        assert (quotes.opening(EUR.symbol) is not None) is (second <= 300), second
        assert quotes.opening(CABLE.symbol) is not None


def test_a_clock_that_is_set_back_makes_no_old_quote_fresh() -> None:
    clock = SetClock()
    quotes = quotes_of(clock, 1)
    clock.at = START + 60 * MINUTE
    quotes.take(EUR.symbol, Quote(clock.at, 1.1, 1.1001), NAN)
    clock.at = START
    assert quotes.opening(EUR.symbol) is None, "nobody knows how old it is"
    quotes.take(EUR.symbol, Quote(clock.at, 1.2, 1.2001), NAN)
    assert quotes.opening(EUR.symbol) == Quote(START, 1.2, 1.2001)


@pytest.mark.parametrize("quote", [Quote(0, 0.0, 100.0), Quote(0, 101.0, 100.0), Quote(0, 100_000.0, 100_001.0), Quote(0, NAN, 100.0)])
def test_an_insane_quote_trades_nothing_and_triggers_nothing(quote: Quote) -> None:
    async def story(world: World) -> None:
        await world.quote(0.1, 99.9, 100.1)
        await world.venue.submit(order("in"))
        await world.venue.submit(stop("stop", "90"))
        await world.venue.submit(target("target", "110"))
        await world.tell(0.2, quotes=[(PERP.symbol, quote)])

    assert [name for name, _, _ in played(story).fills] == ["in"]


# -- what rests --------------------------------------------------------------------------------------------------------------


def test_a_stop_is_reached_by_a_quote_at_once_and_takes_what_is_bid() -> None:
    async def story(world: World) -> None:
        await world.quote(0.1, 99.9, 100.1)
        await world.venue.submit(order("in"))
        await world.venue.submit(stop("stop", "95"))
        await world.venue.submit(target("target", "110"))
        await world.quote(0.5, 95.1, 95.3)
        assert len(world.fills) == 1
        await world.quote(0.6, 94.8, 95.0)

    world = played(story)
    assert world.fills[1:] == [("stop", D(1), D("94.8"))]
    assert world.ends == [("target", "position closed")]


def test_a_closed_bar_reaches_what_no_quote_showed_the_stop_before_the_target() -> None:
    async def story(world: World) -> None:
        await world.quote(0.01, 99.9, 100.1)
        await world.venue.submit(order("in"))
        await world.venue.submit(stop("stop", "95"))
        await world.venue.submit(target("target", "110"))
        await world.bar(bar(0, 100, 111, 94, 100))

    assert played(story).fills[1:] == [("stop", D(1), D("95.0"))]


def test_what_was_in_the_bar_before_the_order_did_not_happen_to_it() -> None:
    async def story(world: World) -> None:
        await world.quote(0.5, 99.9, 100.1)
        await world.venue.submit(order("in"))
        await world.venue.submit(stop("stop", "95"))
        await world.bar(bar(0, 100, 101, 90, 100))  # its low was before half past
        assert len(world.fills) == 1
        await world.bar(bar(1, 100, 101, 94.9, 100))

    assert played(story).fills[1:] == [("stop", D(1), D("95.0"))]


def test_a_late_order_is_still_held_against_the_bars_close() -> None:
    async def story(world: World) -> None:
        await world.quote(0.5, 99.9, 100.1)
        await world.venue.submit(order("in"))
        await world.venue.submit(stop("stop", "95"))
        await world.bar(bar(0, 100, 101, 90, 94))

    assert played(story).fills[1:] == [("stop", D(1), D("94.0"))]


def test_bars_that_no_stream_told_are_asked_for_told_on_and_matched_in_order() -> None:
    async def story(world: World) -> None:
        await world.quote(0.01, 99.9, 100.1)
        await world.venue.submit(order("in"))
        await world.venue.submit(stop("stop", "95"))
        world.script.past[PERP.symbol] += [bar(0, 100, 100, 99, 99), bar(1, 99, 99, 94, 97), bar(2, 97, 98, 96, 98)]
        await world.bar(bar(3, 98, 99, 97, 98))

    world = played(story)
    assert world.fills[1:] == [("stop", D(1), D("95.0"))]
    (seen,) = (event for event in world.events if isinstance(event, FillSeen) and event.fill.client_order_id == "stop")
    assert seen.fill.at == at(2)
    assert [named[1].ts for named in world.batches[-1].bars] == [at(0), at(1), at(2), at(3)]


def test_a_hole_that_cannot_be_filled_stays_a_hole() -> None:
    async def story(world: World) -> None:
        world.script.down = 1
        await world.bar(bar(3, 98, 99, 97, 98))

    assert [named[1].ts for named in played(story).batches[-1].bars] == [at(3)]


def test_a_bar_a_hundred_times_away_trades_nothing_and_its_neighbors_go_on() -> None:
    """One garbled candle must not close a position at a hundredth of its price."""
    async def story(world: World) -> None:
        await world.quote(0.01, 99.9, 100.1)
        await world.venue.submit(order("in"))
        await world.venue.submit(stop("stop", "95"))
        await world.bar(bar(0, 1, 1.01, 0.99, 1))
        await world.bar(bar(1, 100, 101, 99, 100))
        assert len(world.fills) == 1
        await world.quote(2.5, 99.9, 100.1)
        await world.bar(bar(2, 100, 101, 94, 96))

    world = played(story)
    assert world.fills[1:] == [("stop", D(1), D("95.0"))]
    assert [named[1].ts for batch in world.batches for named in batch.bars] == [at(0), at(1), at(2)], "who listens judges for himself"


def test_a_new_price_that_three_bars_agree_on_is_traded_at() -> None:
    async def story(world: World) -> None:
        await world.quote(0.01, 99.9, 100.1)
        await world.venue.submit(order("in"))
        await world.venue.submit(stop("stop", "95"))
        for minute in range(3):
            assert len(world.fills) == 1
            await world.bar(bar(minute, 10, 10.1, 9.9, 10))

    assert played(story).fills[1:] == [("", D(1), D("50.0"))], "liquidated, with half of it borrowed"


# -- what holding costs --------------------------------------------------------------------------------------------------------


def test_funding_is_settled_once_at_the_last_rate_told_before_it() -> None:
    def rate(due_minute: float, predicted: float) -> list[FundingRate]:
        return [FundingRate(PERP.symbol, at(due_minute) - 8 * 60 * MINUTE, predicted, 8.0, predicted)]

    async def story(world: World) -> None:
        await world.quote(0.1, 99.9, 100.1)
        await world.venue.submit(order("in"))
        await world.tell(1, funding=rate(5, 0.0001))
        await world.tell(4.9, funding=rate(5, 0.0002))
        await world.tell(5.1, funding=rate(5 + 480, 0.0009))
        await world.tell(5.2, funding=rate(5, 0.0500))  # an old message
        await world.tell(6, funding=rate(5 + 480, 0.0009))

    world = played(story)
    (paid,) = (event for event in world.events if isinstance(event, FundingPaid))
    assert (paid.amount, paid.rate, paid.at, paid.venue_ref) == (D("-0.02"), 0.0002, at(5), f"funding:BTC/USDT:USDT:{at(5)}")


def test_forex_is_financed_at_five_in_new_york_at_the_stated_rate() -> None:
    async def story(world: World) -> None:
        await world.tell(0, financing=[Financing(EUR.symbol, START, -0.0365, 0.01)])
        await world.quote(0.1, 1.0999, 1.1001, EUR)
        await world.venue.submit(order("in", quantity="1000", instrument=EUR))
        await world.quote(22 * 60 + 1, 1.0999, 1.1001, EUR)  # 17:00 New York is 22:00 UTC in January

    (paid,) = (event for event in played(story, (EUR,)).events if isinstance(event, FundingPaid))
    assert paid.at == at(22 * 60)
    assert paid.amount == D("-0.11")  # 1,000 x 1.1 x 3.65 % / 365, one night


# -- the time nobody ran ---------------------------------------------------------------------------------------------------------


def remembered(world: World, *facts: Any) -> None:
    reader = world.venue.reader()
    for fact in facts:
        reader.take(fact)
    world.venue.recollect(reader.memory)


def a_past(cash: str = "10000", stopped_at: float = 2.5, rested_at: float = 0.02) -> list[Any]:
    """Bought one at 100 in minute 0, a stop at 95 and a target at 110 since `rested_at`; the last word was at `stopped_at`."""
    from modules.domain.order import Fill

    bought, protect, profit = order("in"), stop("stop", "95"), target("target", "110")
    fill = Fill("script", PERP.symbol, "T2", "in", Side.BUY, D(1), D(100), D(0), "USD", D(1), D(1), False, at(0))
    facts: list[Any] = [TransferSeen(START, AssetClass.PERP, D(cash), ZERO, "opening PERP"), InstrumentListed(START, PERP)]
    for number, (minute, placed) in enumerate(((0, bought), (rested_at, protect), (rested_at, profit))):
        facts += [OrderIntended(at(minute), placed), OrderSent(at(minute), placed.client_order_id),
                  OrderAccepted(at(minute), placed.client_order_id, f"P{number + 1}")]
        if placed is bought:
            facts.append(FilledFact(at(0), fill, True))
    return [*facts, TransferSeen(at(stopped_at), AssetClass.PERP, D(1), ZERO, "later")]


def restarted(past: Sequence[Any], missed: Sequence[Bar], now: float, *, down: int = 0, settled: Sequence[FundingRate] = ()) -> World:
    loop = VirtualLoop(at(now))
    try:
        asyncio.set_event_loop(loop)
        clock = VirtualClock(loop)
        script = Script(clock)
        script.past[PERP.symbol] = [bar(-1, 100, 100, 100, 100), *missed]
        script.down, script.settled = down, list(settled)
        world = World(clock, script, PERP=10_000)
        remembered(world, *past)

        async def life() -> None:
            world.events += await world.venue.missed(at(now))
            assert await world.venue.missed() == ()  # each once
            await world.venue.close()

        loop.run_until_complete(life())
        return world
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_a_restart_holds_what_rested_against_the_bars_it_missed() -> None:
    seen = [bar(0, 100, 100, 99, 99), bar(1, 99, 100, 98, 99)]
    gone = [bar(2, 99, 100, 98, 99), bar(3, 99, 100, 94, 99), bar(4, 99, 120, 99, 120)]
    world = restarted(a_past(), [*seen, *gone], 10)
    assert world.fills == [("stop", D(1), D("95.0"))]
    assert world.ends == [("target", "position closed")]
    (filled,) = (event.fill for event in world.events if isinstance(event, FillSeen))
    assert (filled.at, filled.venue_trade_id) == (at(4), "T4")
    assert world.venue.books[AssetClass.PERP].cash == D("9996")  # 10,001 less five


def test_a_hundredfold_bar_of_the_time_nobody_ran_is_not_relived() -> None:
    seen = [bar(0, 100, 100, 99, 99), bar(1, 99, 100, 98, 99)]
    garbled = [bar(2, 1, 1.01, 0.99, 1), bar(3, 99, 100, 98, 99), bar(4, 9900, 10_000, 9800, 9900), bar(5, 99, 100, 98, 99)]
    assert restarted(a_past(), [*seen, *garbled], 10).events == []


def test_bars_seen_before_the_end_are_not_matched_again() -> None:
    world = restarted(a_past(), [bar(0, 100, 100, 90, 99), bar(1, 99, 120, 98, 99), bar(2, 99, 100, 98, 99)], 10)
    assert world.events == []


def test_of_the_bar_it_ended_in_a_stop_counts_as_reached_and_a_late_target_does_not() -> None:
    facts = a_past(stopped_at=0.7, rested_at=0.5)
    assert restarted(facts, [bar(0, 100, 100, 94, 100)], 3).fills == [("stop", D(1), D("95.0"))]
    assert restarted(facts, [bar(0, 100, 120, 99, 100)], 3).fills == []
    assert restarted(a_past(stopped_at=0.7), [bar(0, 100, 120, 99, 100)], 3).fills == [("target", D(1), D("110"))]


def test_what_was_missed_is_asked_for_until_the_venue_answers() -> None:
    world = restarted(a_past(), [bar(2, 99, 100, 94, 99)], 10, down=3)
    assert world.fills == [("stop", D(1), D("95.0"))]
    assert world.script.asked == 4


def test_funding_of_the_time_nobody_ran_is_booked_and_what_is_booked_is_not_again() -> None:
    rates = [FundingRate(PERP.symbol, at(2), 0.01, 8.0), FundingRate(PERP.symbol, at(4), 0.001, 8.0)]
    booked = FundingBooked(at(2), "script", PERP.symbol, AssetClass.PERP, D(-1), 0.01, f"funding:{PERP.symbol}:{at(2)}")
    world = restarted([*a_past(stopped_at=1.5), booked], [bar(3, 100, 100, 100, 100)], 10, settled=rates)
    (paid,) = (event for event in world.events if isinstance(event, FundingPaid))
    assert (paid.at, paid.amount) == (at(4), D("-0.1"))


def test_another_venues_money_in_the_journal_is_none_of_ours_and_a_class_without_a_wallet_is_refused() -> None:
    loop = VirtualLoop(START)
    clock = VirtualClock(loop)
    foreign = TransferSeen(START, AssetClass.FOREX, D(5), ZERO, "opening FOREX")
    books = {AssetClass.PERP: PaperBook("USD", D(7))}
    script = Script(clock)
    with pytest.raises(ConfigurationError, match="FOREX money"):
        LivePaperVenue(script, (PERP,), clock, free(), books).reader().take(foreign)  # type: ignore[arg-type]
    LivePaperVenue(script, (PERP,), clock, free(), books, [AssetClass.FOREX]).reader().take(foreign)  # type: ignore[arg-type]
    assert books[AssetClass.PERP].cash == D(7)
    loop.close()


def test_the_data_venue_is_closed_with_the_paper_venue() -> None:
    async def story(world: World) -> None:
        pass

    assert played(story).script.closed


def test_what_closed_between_the_history_and_the_streams_first_word_is_asked_for_at_once() -> None:
    candles = _Candles(MINUTE, handed=at(2))
    assert candles.take(bar(5, 100, 100, 100, 100)) == (None, 2)  # minutes 3 and 4
    assert candles.take(bar(5, 100, 101, 100, 101)) == (None, 0)
    assert candles.take(bar(6, 101, 101, 101, 101)) == (bar(5, 100, 101, 100, 101), 0)
    assert _Candles(MINUTE, handed=at(2)).take(bar(3, 100, 100, 100, 100)) == (None, 0)
