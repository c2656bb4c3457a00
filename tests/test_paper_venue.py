"""The paper venue over a hand-written market, on virtual time: every fill, fee and payment worked out by hand or recomputed from events."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.backtest.costs import NO_EXIT, STOP, bar_exit
from modules.domain.instrument import AssetClass, Instrument, Right, Side
from modules.domain.market import NAN, Bar, Batch, Chain, Financing, FundingRate, OptionQuote, Quote
from modules.domain.order import Accepted, Fate, Fill, NotSent, Order, OrderKind, OrderState, Purpose, Refused
from modules.domain.policies import CostModel, CostPolicy
from modules.runtime.clock import VirtualClock, VirtualLoop, WallClock
from modules.venues.paper_prices import Prices
from modules.venues.paper_venue import PaperVenue
from modules.venues.protocol import (
    AccountEvent,
    ClassWallet,
    FillSeen,
    FundingPaid,
    MacroEvent,
    OrderDone,
    Settled,
    Step,
    Transferred,
    Venue,
    Wallet,
)

MINUTE = 60_000
START = 1_767_571_200_000  # Monday 2026-01-05 00:00 UTC
D = Decimal


def at(minute: float) -> int:
    return START + int(minute * MINUTE)


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


SPOT = Instrument("BTC/USDT", "script", AssetClass.SPOT, "BTC", "USDT", "USDT", "BTC", D("0.01"), D("0.00001"), D("0.00001"), D(5))
PERP = Instrument("BTC/USDT:USDT", "script", AssetClass.PERP, "BTC", "USDT", "USDT", "BTC", D("0.1"), D("0.001"), D("0.001"), D(5),
                  leverage_max=D(20), maintenance_margin=D("0.01"))


def pair(symbol: str, digits: int) -> Instrument:
    base, quote = symbol.split("/")
    return Instrument(symbol, "script", AssetClass.FOREX, base, quote, "USD", symbol, D(1).scaleb(-digits), D(1), D(1), leverage_max=D(50))


def contract(strike: int, right: Right, expiry: int, quote: str = "USDT") -> Instrument:
    tick = D("0.0001") if quote == "BTC" else D(1)
    return Instrument(f"BTC-{strike}-{right}", "script", AssetClass.OPTION, "BTC", quote, quote, "BTC", tick, D("0.01"), D("0.01"),
                      expiry=expiry, strike=D(strike), right=right)


def model(**changes: object) -> CostModel:
    free = {"half_spread_bp": 0.0, "slippage_bp": 0.0, "impact_bp": 0.0, "stop_slippage_bp": 0.0, "maker_fee": D(0), "taker_fee": D(0),
            "participation_max": D(1), "maintenance_margin": D(0), "leverage": D(1)}
    return CostModel.model_validate(free | changes)


def policy(latency_ms: int = 50, markup: str = "0", **classes: CostModel) -> CostPolicy:
    models = {asset_class.value: classes.get(asset_class.value, model()) for asset_class in AssetClass}
    return CostPolicy.model_validate({"version": 1, "latency_ms": latency_ms, "forex_financing_markup": markup, **models})


def bar(minute: float, open_: float, high: float | None = None, low: float | None = None, close: float | None = None, volume: float = 1e9,
        bid: float = NAN, ask: float = NAN) -> Bar:
    last = open_ if close is None else close
    top, bottom = max(open_, last), min(open_, last)
    return Bar(at(minute), open_, top if high is None else high, bottom if low is None else low, last, volume, volume * open_, bid, ask)


class Script:
    """A market written down: bars per symbol (5 minutes unless told), and whatever else happens at which instant."""

    name = "script"

    def __init__(self, bars: Mapping[Instrument, Sequence[Bar]], extra: Sequence[Step] = (), *,
                 quotes: Mapping[tuple[str, int], Quote] | None = None,
                 contracts: Sequence[Instrument] = (), interval: int = 5 * MINUTE, start: int = START) -> None:
        self.instruments: Sequence[Instrument] = tuple(bars)
        self.intervals_ms: Mapping[str, int] = {instrument.symbol: interval for instrument in bars}
        self.option_currency = contracts[0].settle if contracts else None
        self.macro_events: Sequence[MacroEvent] = ()
        self.start = start
        self._bars = {instrument.symbol: list(series) for instrument, series in bars.items()}
        self._extra = list(extra)
        self._quotes = quotes or {}
        self._contracts = {instrument.symbol: instrument for instrument in contracts}
        self._interval = interval
        self._now = start
        self.end = max([start, *(b.ts + interval for series in bars.values() for b in series), *(step.at for step in extra)])

    def steps(self) -> Iterator[Step]:
        closing: dict[int, list[tuple[str, Bar]]] = {self.start: []}
        for symbol, series in self._bars.items():
            for one in series:
                if one.ts + self._interval > self.start:
                    closing.setdefault(one.ts + self._interval, []).append((symbol, one))
        extra = {step.at: step for step in self._extra}
        for moment in sorted(closing.keys() | extra.keys()):
            self._now = moment
            yield extra.get(moment, Step(moment))._replace(bars=closing.get(moment, []))

    def opening(self, symbol: str) -> Quote | None:
        opened = next((one for one in self._bars.get(symbol, ()) if one.ts == self._now), None)
        if opened is None:
            return None
        return self._quotes.get((symbol, self._now), Quote(self._now, opened.open, opened.open, synthetic=True))

    def history(self, symbol: str, until: int, bars: int) -> Sequence[Bar]:
        return [one for one in self._bars[symbol] if one.ts + self._interval <= until][-bars:]

    def contract(self, symbol: str) -> Instrument | None:
        return self._contracts.get(symbol)


def order(name: str, instrument: Instrument, side: Side, quantity: str, kind: OrderKind = OrderKind.MARKET, price: str | None = None, *,
          reduce_only: bool = False, leverage: str = "1", expires_at: int | None = None) -> Order:
    return Order(name, "t", "d", "s", "script", instrument.symbol, instrument.asset_class, side, D(quantity), kind, Purpose.ENTRY,
                 D(price) if price is not None else None, reduce_only, D(leverage), D(1), D(0), D(0), START, expires_at)


def buy(name: str, instrument: Instrument, quantity: str, *, leverage: str = "1", expires_at: int | None = None) -> Order:
    return order(name, instrument, Side.BUY, quantity, leverage=leverage, expires_at=expires_at)


def sell(name: str, instrument: Instrument, quantity: str, *, leverage: str = "1", reduce_only: bool = False) -> Order:
    return order(name, instrument, Side.SELL, quantity, leverage=leverage, reduce_only=reduce_only)


def stop(name: str, instrument: Instrument, side: Side, quantity: str, price: str) -> Order:
    return order(name, instrument, side, quantity, OrderKind.STOP, price, reduce_only=True)


def target(name: str, instrument: Instrument, side: Side, quantity: str, price: str) -> Order:
    return order(name, instrument, side, quantity, OrderKind.TARGET, price, reduce_only=True)


class Cancel:
    def __init__(self, order: Order) -> None:
        self.order = order


Plan = Mapping[float, Sequence[Order | Cancel]]
WALLETS = {AssetClass.SPOT: D(1000), AssetClass.PERP: D(1000), AssetClass.OPTION: D(1000), AssetClass.FOREX: D(100_000)}
CURRENCIES = {AssetClass.SPOT: "USDT", AssetClass.PERP: "USDT", AssetClass.OPTION: "USDT", AssetClass.FOREX: "USD"}


class Play:
    """A daemon in small: sends the planned orders when a batch arrives or a named order was filled, and remembers everything."""

    def __init__(self, source: Script, plan: Plan, costs: CostPolicy | None = None, *, on_fill: Mapping[str, Sequence[Order]] | None = None,
                 between: Plan | None = None, wallets: Mapping[AssetClass, Decimal] = WALLETS,
                 hook: Callable[[Batch], Sequence[Order]] | None = None) -> None:
        self.events: list[AccountEvent] = []
        self.fates: dict[str, Fate] = {}
        self.booked_when_seen: list[tuple[int, int]] = []
        """(batch time, account events booked by then)."""
        self._plan = {at(minute): orders for minute, orders in plan.items()}
        self._between = {at(minute): orders for minute, orders in (between or {}).items()}
        self._on_fill = on_fill or {}
        self._hook = hook
        self._loop = VirtualLoop(source.start)
        self.clock = VirtualClock(self._loop)
        self.wallets = wallets
        self.venue = PaperVenue(source, self.clock, costs or policy(), wallets, CURRENCIES)
        try:
            self.wallet = self._loop.run_until_complete(self._run())
        finally:
            self._loop.close()

    async def _run(self) -> Wallet:
        lane: asyncio.Queue[Order | Cancel] = asyncio.Queue()
        tasks = [asyncio.create_task(self._listen(lane)), asyncio.create_task(self._send(lane)), asyncio.create_task(self._interrupt(lane))]
        async for batch in self.venue.market_events():
            self.booked_when_seen.append((batch.at, len(self.events)))
            for one in (*self._plan.get(batch.at, ()), *(self._hook(batch) if self._hook else ())):
                lane.put_nowait(one)
        await self.clock.settle()
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if not isinstance(result, asyncio.CancelledError) and isinstance(result, BaseException):
                raise result
        return await self.venue.wallet()

    async def _listen(self, lane: asyncio.Queue[Order | Cancel]) -> None:
        async for event in self.venue.account_events():
            self.events.append(event)
            if isinstance(event, FillSeen) and event.order_done:
                for one in self._on_fill.get(event.fill.client_order_id, ()):
                    lane.put_nowait(one)

    async def _send(self, lane: asyncio.Queue[Order | Cancel]) -> None:
        while True:
            one = await lane.get()
            if isinstance(one, Cancel):
                self.fates["cancel " + one.order.client_order_id] = await self.venue.cancel(one.order)
            else:
                self.fates[one.client_order_id] = await self.venue.submit(one)

    async def _interrupt(self, lane: asyncio.Queue[Order | Cancel]) -> None:
        for moment, orders in sorted(self._between.items()):
            await asyncio.sleep((moment - self.clock.now()) / 1000.0)
            for one in orders:
                lane.put_nowait(one)
        await asyncio.Event().wait()

    @property
    def fills(self) -> list[Fill]:
        return [event.fill for event in self.events if isinstance(event, FillSeen)]

    @property
    def ends(self) -> dict[str, OrderDone]:
        return {event.client_order_id: event for event in self.events if isinstance(event, OrderDone)}

    @property
    def paid(self) -> list[FundingPaid]:
        return [event for event in self.events if isinstance(event, FundingPaid)]

    def fill(self, name: str) -> Fill:
        [found] = [fill for fill in self.fills if fill.client_order_id == name]
        return found

    def account(self, asset_class: AssetClass) -> ClassWallet:
        return self.wallet.classes[asset_class]

    def code(self, name: str) -> str:
        fate = self.fates[name]
        assert isinstance(fate, Refused), fate
        return fate.code


def flat(count: int, price: float = 100.0, first: int = 0) -> list[Bar]:
    return [bar(5 * n, price) for n in range(first, first + count)]


# -- market orders ------------------------------------------------------------------------------------------------------------


def test_a_market_order_fills_at_the_next_open_with_spread_slippage_and_impact_rounded_against_us() -> None:
    source = Script({PERP: [bar(0, 100.0, close=100.0, volume=1e4), bar(5, 200.0), bar(10, 300.0)]})
    costs = policy(PERP=model(half_spread_bp=10.0, slippage_bp=5.0, impact_bp=100.0, taker_fee=D("0.001")))
    play = Play(source, {5: [buy("a", PERP, "4")]}, costs)
    fill = play.fill("a")
    # ask 200.2; average bar 10,000 x 100 = 1e6, order 4 x 200.2 -> impact 100 bp x sqrt(0.0008008) = 2.829852 bp; 7.829852 bp in all
    assert pytest.approx(200.356754, abs=1e-6) == 200.2 * (1 + 7.829852e-4)
    assert fill.price == D("200.4")
    assert fill.at == at(5) + 50
    assert not fill.maker and fill.fee == D("0.8016") and fill.fee_currency == "USDT"
    assert play.account(AssetClass.PERP).cash == 1000 - D("0.8016")


def test_recorded_quotes_are_traded_as_they_stand() -> None:
    source = Script({PERP: flat(3)}, quotes={(PERP.symbol, at(5)): Quote(at(5), 99.8, 100.3)})
    play = Play(source, {5: [buy("a", PERP, "1"), sell("b", PERP, "2", leverage="2")]}, policy(PERP=model(half_spread_bp=100.0)))
    assert play.fill("a").price == D("100.3")
    assert play.fill("b").price == D("99.8")


def test_a_large_order_fills_a_tenth_of_each_bar_until_it_is_done() -> None:
    source = Script({PERP: [bar(5 * n, 10.0 + n, volume=20.0) for n in range(5)]})
    play = Play(source, {5: [buy("a", PERP, "5")]}, policy(PERP=model(participation_max=D("0.1"))))
    assert [(f.quantity, f.price, f.at) for f in play.fills] == [(D(2), D("11.0"), at(5) + 50), (D(2), D("12.0"), at(10) + 50),
                                                                (D(1), D("13.0"), at(15) + 50)]
    assert [e.order_done for e in play.events if isinstance(e, FillSeen)] == [False, False, True]


def test_the_rest_of_a_partial_fill_expires_with_its_order() -> None:
    source = Script({PERP: [bar(5 * n, 10.0, volume=20.0) for n in range(5)]})
    play = Play(source, {5: [buy("a", PERP, "5", expires_at=at(6))]}, policy(PERP=model(participation_max=D("0.1"))))
    assert [f.quantity for f in play.fills] == [D(2)]
    assert play.ends["a"].how == "expired" and play.ends["a"].at <= at(10) + 50
    assert play.account(AssetClass.PERP).positions == {PERP.symbol: D(2)}


def test_orders_of_one_instrument_share_the_room_of_a_bar() -> None:
    source = Script({PERP: [bar(5 * n, 10.0, volume=20.0) for n in range(4)]})
    play = Play(source, {5: [buy(name, PERP, "0.9") for name in "abc"]}, policy(PERP=model(participation_max=D("0.1"))))
    assert [(f.client_order_id, f.quantity) for f in play.fills if f.at < at(10)] == [("a", D("0.9")), ("b", D("0.9")), ("c", D("0.2"))]


def test_a_fee_is_rounded_up_and_a_rebate_down_to_the_eighth_place() -> None:
    play = Play(Script({PERP: flat(3, 100.1)}), {5: [buy("a", PERP, "0.1")]}, policy(PERP=model(taker_fee=D("0.000333333"))))
    assert play.fill("a").fee == D("0.00333667")  # 0.00333666333
    limit = order("a", PERP, Side.BUY, "0.1", OrderKind.LIMIT, "100.1")
    falling = Script({PERP: [*flat(2, 101.0), bar(10, 100.0), bar(15, 100.0)]})
    rebate = Play(falling, {5: [limit]}, policy(PERP=model(maker_fee=D("-0.000333333"))))
    assert rebate.fill("a").fee == D("-0.00333666")


def test_nothing_fills_inside_a_hole_and_an_entry_from_before_it_expires() -> None:
    bars = [bar(0, 100.0), bar(30, 120.0), bar(35, 125.0), bar(40, 125.0)]
    play = Play(Script({PERP: bars}), {5: [buy("a", PERP, "1", expires_at=at(6)), buy("b", PERP, "1")]})
    assert play.fills == []
    assert play.ends["a"].how == play.ends["b"].how == "expired"
    assert "hole" in play.ends["b"].reason


def test_an_exit_waits_through_a_hole_and_takes_the_first_opening_after_it() -> None:
    bars = [*flat(2), bar(30, 90.0), bar(35, 91.0), bar(40, 92.0)]
    entry, out = buy("a", PERP, "1"), sell("b", PERP, "1", reduce_only=True)
    play = Play(Script({PERP: bars}, [Step(at(30))]), {5: [entry], 10: [out]})
    assert (play.fill("b").price, play.fill("b").at) == (D("90.0"), at(30) + 50)
    assert play.account(AssetClass.PERP).cash == 990


def test_an_entry_does_not_fill_at_the_opening_that_ends_a_hole() -> None:
    play = Play(Script({PERP: [*flat(2), bar(30, 90.0), bar(35, 91.0)]}, [Step(at(30))]), {10: [buy("a", PERP, "1")]})
    assert play.fills == [] and "hole" in play.ends["a"].reason


def test_on_virtual_time_what_is_sent_between_two_steps_waits_for_the_next_opening() -> None:
    source = Script({PERP: [bar(0, 100.0), bar(5, 101.0), bar(10, 250.0), bar(15, 300.0)]})
    play = Play(source, {5: [buy("a", PERP, "1")]}, between={7: [sell("out", PERP, "1", reduce_only=True)]})
    assert (play.fill("out").price, play.fill("out").at) == (D("250.0"), at(10) + 50)


def test_the_daemon_has_booked_what_happened_before_it_sees_the_bar() -> None:
    bars = [bar(0, 100.0), bar(5, 100.0, low=94.0), bar(10, 100.0)]
    play = Play(Script({PERP: bars}), {5: [buy("a", PERP, "1")]}, on_fill={"a": [stop("s", PERP, Side.SELL, "1", "95.0")]})
    assert play.booked_when_seen == [(at(0), 0), (at(5), 0), (at(10), 2), (at(15), 2)]


# -- stops, targets, limits ---------------------------------------------------------------------------------------------------


def exit_of(second: Bar, costs: CostPolicy | None = None, side: Side = Side.BUY) -> Play:
    """Enter at 100 at minute 5; stop 95 and target 110 (mirrored for a short) rest through `second` (minutes 5 to 10)."""
    away = side.opposite
    stop_at, target_at = ("95.0", "110.0") if side is Side.BUY else ("105.0", "90.0")
    entry = order("a", PERP, side, "1")
    return Play(Script({PERP: [bar(0, 100.0), second, bar(10, 100.0)]}), {5: [entry]}, costs,
                on_fill={"a": [stop("s", PERP, away, "1", stop_at), target("t", PERP, away, "1", target_at)]})


def test_a_stop_loses_its_slippage_and_cancels_the_target() -> None:
    play = exit_of(bar(5, 100.0, low=94.0), policy(PERP=model(stop_slippage_bp=30.0, slippage_bp=10.0, taker_fee=D("0.001"))))
    assert play.fill("s").price == D("94.6")  # 95 x (1 - 40 bp) = 94.62, down to the tick
    assert not play.fill("s").maker
    assert play.ends["t"].how == "canceled" and play.ends["t"].reason == "position closed"
    assert play.account(AssetClass.PERP).positions == {} and list(play.wallet.open_orders) == []


def test_a_target_fills_at_its_price_as_maker_and_cancels_the_stop() -> None:
    play = exit_of(bar(5, 100.0, high=110.1), policy(PERP=model(maker_fee=D("-0.0001"), taker_fee=D("0.001"))))
    fill = play.fill("t")
    assert (fill.price, fill.maker, fill.fee) == (D("110.0"), True, D("-0.011"))  # a rebate
    assert play.ends["s"].how == "canceled"
    assert play.account(AssetClass.PERP).cash == 1000 - D("0.1") + 10 + D("0.011")


@pytest.mark.parametrize(("side", "second", "name", "price"), [
    (Side.BUY, bar(5, 100.0, high=111.0, low=94.0), "s", "95.0"),
    (Side.SELL, bar(5, 100.0, high=106.0, low=89.0), "s", "105.0"),
    (Side.BUY, bar(5, 100.0, high=110.0, low=95.1), "", ""),
])
def test_in_an_ambiguous_bar_the_stop_comes_first(side: Side, second: Bar, name: str, price: str) -> None:
    play = exit_of(second, side=side)
    exits = [(fill.client_order_id, fill.price) for fill in play.fills[1:]]
    assert exits == ([(name, D(price))] if name else [])


@given(st.sampled_from((Side.BUY, Side.SELL)), *(st.integers(850, 1150) for _ in range(4)))
@settings(max_examples=40, deadline=None)
def test_the_venue_and_the_kernels_bar_exit_agree_on_every_bar(side: Side, open_: int, a: int, b: int, close: int) -> None:
    values = [value / 10 for value in (open_, a, b, close)]
    third = bar(10, values[0], max(values), min(values), values[3])
    stop_at, target_at = (95.0, 110.0) if side is Side.BUY else (105.0, 90.0)
    away = side.opposite
    play = Play(Script({PERP: [*flat(2), third, bar(15, 100.0)]}), {5: [order("a", PERP, side, "1")]},
                on_fill={"a": [stop("s", PERP, away, "1", f"{stop_at}"), target("t", PERP, away, "1", f"{target_at}")]})
    code, raw = bar_exit(side.sign, third.open, third.high, third.low, stop_at, target_at, 0.0)
    expected = [("s" if code == STOP else "t", D(repr(raw)))] if code != NO_EXIT else []
    assert [(fill.client_order_id, fill.price) for fill in play.fills[1:]] == expected


def test_a_gap_through_the_stop_fills_at_the_open() -> None:
    bars = [bar(0, 100.0), bar(5, 100.0), bar(10, 90.0, high=120.0), bar(15, 90.0)]
    play = Play(Script({PERP: bars}), {5: [buy("a", PERP, "1")]},
                on_fill={"a": [stop("s", PERP, Side.SELL, "1", "95.0"), target("t", PERP, Side.SELL, "1", "110.0")]})
    assert play.fill("s").price == D("90.0") and play.ends["t"].how == "canceled"


def test_after_a_hole_the_stop_fills_at_the_open_it_gapped_to() -> None:
    bars = [*flat(2), bar(60, 80.0, high=101.0), bar(65, 80.0)]
    play = Play(Script({PERP: bars}), {5: [buy("a", PERP, "1")]}, on_fill={"a": [stop("s", PERP, Side.SELL, "1", "95.0")]})
    assert (play.fill("s").price, play.fill("s").at) == (D("80.0"), at(65))


def test_a_stop_fills_what_the_bar_holds_and_the_rest_at_the_next_openings() -> None:
    bars = [bar(0, 100.0, volume=100.0), bar(5, 100.0, low=90.0, volume=20.0), bar(10, 88.0, volume=1e6), bar(15, 88.0)]
    play = Play(Script({PERP: bars}), {5: [buy("a", PERP, "3")]}, policy(PERP=model(participation_max=D("0.25"))),
                on_fill={"a": [stop("s", PERP, Side.SELL, "3", "95.0"), target("t", PERP, Side.SELL, "3", "110.0")]})
    # the bar's room is 25 % of 20 less the 3 the entry took at its open
    assert [(f.quantity, f.price) for f in play.fills[1:]] == [(D(2), D("95.0")), (D(1), D("88.0"))]
    assert play.ends["t"].how == "canceled"


def test_forex_stops_trigger_on_the_side_they_trade_on() -> None:
    eurusd = pair("EUR/USD", 5)
    bars = [bar(0, 1.1), bar(5, 1.1, low=1.09505, bid=1.0999, ask=1.1001), bar(10, 1.1)]
    play = Play(Script({eurusd: bars}), {5: [buy("a", eurusd, "1000", leverage="20")]},
                on_fill={"a": [stop("s", eurusd, Side.SELL, "1000", "1.09500")]})
    assert play.fill("s").price == D("1.09500")  # the low's bid was 1.09495


def test_a_limit_needs_the_price_to_trade_through_it_and_a_marketable_one_takes() -> None:
    bars = [bar(0, 100.0), bar(5, 100.0, low=98.0), bar(10, 100.0, low=97.9), bar(15, 100.0), bar(20, 100.0)]
    resting = order("r", PERP, Side.BUY, "1", OrderKind.LIMIT, "98.0")
    taking = order("m", PERP, Side.BUY, "1", OrderKind.LIMIT, "101.0")
    play = Play(Script({PERP: bars}), {5: [resting], 15: [taking]}, policy(PERP=model(maker_fee=D(0), taker_fee=D("0.001"))))
    assert (play.fill("r").price, play.fill("r").at, play.fill("r").maker) == (D("98.0"), at(15), True)
    assert (play.fill("m").price, play.fill("m").at, play.fill("m").maker) == (D("100.0"), at(15) + 50, False)


def test_a_target_placed_late_in_a_bar_cannot_claim_an_earlier_touch() -> None:
    bars = [bar(0, 100.0), bar(5, 100.0, high=120.0), bar(10, 100.0), bar(15, 100.0)]
    play = Play(Script({PERP: bars}), {5: [buy("a", PERP, "1")]}, between={8: [target("t", PERP, Side.SELL, "1", "110.0")]})
    assert [fill.client_order_id for fill in play.fills] == ["a"]


def test_a_limit_entry_that_times_out_inside_a_bar_does_not_claim_its_range() -> None:
    bars = [bar(0, 100.0), bar(5, 100.0, low=90.0), bar(10, 100.0)]
    play = Play(Script({PERP: bars}), {5: [order("r", PERP, Side.BUY, "1", OrderKind.LIMIT, "98.0", expires_at=at(6))]})
    assert play.fills == [] and play.ends["r"].how == "expired"


def test_a_reduce_only_order_never_exceeds_the_position() -> None:
    play = Play(Script({PERP: flat(5)}), {5: [buy("a", PERP, "1")], 10: [sell("x", PERP, "3", reduce_only=True)]})
    assert play.fill("x").quantity == D(1)
    assert play.ends["x"].how == "canceled"
    assert play.account(AssetClass.PERP).positions == {}


# -- refusals ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wrong", "code"), [
    (buy("x", PERP, "0.0005"), "LOT"),
    (buy("x", SPOT, "0.00001"), "MIN_NOTIONAL"),
    (buy("x", replace(SPOT, symbol="ETH/USDT"), "1"), "SYMBOL"),
    (replace(buy("x", PERP, "1"), asset_class=AssetClass.SPOT), "CLASS"),
    (buy("x", PERP, "-1"), "QUANTITY"),
    (buy("x", PERP, "1", leverage="21"), "LEVERAGE"),
    (order("x", PERP, Side.BUY, "1", OrderKind.LIMIT, "99.99"), "TICK"),
    (order("x", PERP, Side.BUY, "1", OrderKind.STOP), "PRICE"),
    (buy("x", SPOT, "10.1"), "INSUFFICIENT_FUNDS"),
    (buy("x", PERP, "20.1", leverage="2"), "INSUFFICIENT_FUNDS"),
    (sell("x", SPOT, "1"), "BALANCE"),
    (sell("x", PERP, "1", reduce_only=True), "REDUCE_ONLY"),
    (buy("x", PERP, "1", expires_at=at(4)), "EXPIRED"),
])
def test_an_order_that_breaks_a_rule_is_refused_with_its_code(wrong: Order, code: str) -> None:
    play = Play(Script({SPOT: flat(3), PERP: flat(3)}), {5: [wrong]})
    assert play.code("x") == code and play.events == []


def test_a_client_order_id_is_never_accepted_twice() -> None:
    play = Play(Script({PERP: flat(4)}), {5: [buy("a", PERP, "1"), buy("a", PERP, "1")], 10: [buy("a", PERP, "2")]})
    assert play.code("a") == "DUPLICATE" and len(play.fills) == 1


def test_what_turns_out_unpayable_at_the_fill_is_rejected_after_acceptance() -> None:
    source = Script({SPOT: [bar(0, 100.0), bar(5, 150.0), bar(10, 150.0)]})
    play = Play(source, {5: [buy("a", SPOT, "8")]})
    assert isinstance(play.fates["a"], Accepted)
    assert play.ends["a"].how == "rejected" and play.ends["a"].reason.startswith("INSUFFICIENT_FUNDS")
    assert play.account(AssetClass.SPOT).cash == 1000


def test_a_cancel_takes_effect_at_once_or_finds_the_order_ended() -> None:
    resting = order("r", PERP, Side.BUY, "1", OrderKind.LIMIT, "90.0")
    taken = buy("m", PERP, "1")
    stranger = buy("?", PERP, "1")
    play = Play(Script({PERP: flat(4)}), {5: [resting, taken], 10: [Cancel(resting), Cancel(taken), Cancel(stranger)]})
    assert play.ends["r"].how == "canceled"
    assert isinstance(play.fates["cancel r"], Accepted) and isinstance(play.fates["cancel m"], Accepted)
    assert play.code("cancel ?") == "UNKNOWN_ORDER"


def test_the_venue_can_be_asked_about_orders_and_fills() -> None:
    play = Play(Script({PERP: flat(4)}), {5: [buy("a", PERP, "1")], 10: [order("r", PERP, Side.BUY, "1", OrderKind.LIMIT, "90.0")]})

    async def ask(venue: Venue) -> None:
        report = await venue.order("a", PERP.symbol)
        assert report is not None and report.state is OrderState.FILLED and report.filled == 1
        assert await venue.order("a", SPOT.symbol) is None and await venue.order("b", PERP.symbol) is None
        assert [seen.fill.client_order_id for seen in await venue.fills_since(at(5))] == ["a"]
        assert list(await venue.fills_since(at(6))) == []
        assert [report.client_order_id for report in (await venue.wallet()).open_orders] == ["r"]
        assert [one.ts for one in await venue.history(PERP.symbol, at(10), 5)] == [at(0), at(5)]
        assert venue.interval_ms(PERP.symbol) == 5 * MINUTE and venue.capabilities.venue_stop
        await venue.close()
        assert isinstance(await venue.submit(buy("z", PERP, "1")), NotSent)
        assert isinstance(await venue.cancel(buy("a", PERP, "1")), NotSent)

    loop = VirtualLoop(START)
    play.venue._clock = VirtualClock(loop)
    loop.run_until_complete(ask(play.venue))
    loop.close()


# -- spot -------------------------------------------------------------------------------------------------------------------


def test_a_spot_purchase_pays_its_fee_in_the_coin_and_leaves_dust() -> None:
    costs = policy(SPOT=model(taker_fee=D("0.001")))
    source = Script({SPOT: [bar(0, 100.0), bar(5, 100.0), bar(10, 120.0), bar(15, 120.0)]})
    play = Play(source, {5: [buy("a", SPOT, "0.12345")], 10: [sell("b", SPOT, "0.12332")]}, costs)
    bought, sold = play.fill("a"), play.fill("b")
    assert (bought.fee, bought.fee_currency, bought.fee_rate) == (D("0.00012345"), "BTC", D("100.00"))
    assert (sold.fee_currency, sold.fee) == ("USDT", D("0.0147984"))
    wallet = play.account(AssetClass.SPOT)
    assert wallet.coins == {"BTC": D("0.12345") - D("0.00012345") - D("0.12332")}  # 0.00000655, below a lot
    assert wallet.cash == 1000 - D("12.345") + D("14.7984") - D("0.0147984")


def test_a_spot_sale_of_more_than_is_held_after_fees_is_refused() -> None:
    costs = policy(SPOT=model(taker_fee=D("0.001")))
    play = Play(Script({SPOT: flat(4)}), {5: [buy("a", SPOT, "1")], 10: [sell("b", SPOT, "1")]}, costs)
    assert play.code("b") == "BALANCE"


def test_a_spot_stop_and_target_rest_on_the_same_coins_and_one_cancels_the_other() -> None:
    source = Script({SPOT: [bar(0, 100.0), bar(5, 100.0, high=111.0), bar(10, 100.0)]})
    play = Play(source, {5: [buy("a", SPOT, "1")]},
                on_fill={"a": [stop("s", SPOT, Side.SELL, "1", "95.00"), target("t", SPOT, Side.SELL, "1", "110.00")]})
    assert play.fill("t").price == D("110.00") and play.ends["s"].how == "canceled"


# -- funding, financing, liquidation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "rate", "amount"), [
    (Side.BUY, 0.0001, "-0.0204"), (Side.BUY, -0.0001, "0.0204"), (Side.SELL, 0.0001, "0.0204"), (Side.SELL, -0.0001, "-0.0204")])
def test_funding_is_paid_on_the_mark_by_longs_when_positive(side: Side, rate: float, amount: str) -> None:
    settled = Step(at(10), marks=[(PERP.symbol, 102.0)], funding=[FundingRate(PERP.symbol, at(10), rate, 8.0)])
    play = Play(Script({PERP: flat(4)}, [settled]), {5: [order("a", PERP, side, "2")]})
    [paid] = play.paid
    assert (paid.amount, paid.rate, paid.at, paid.asset_class) == (D(amount), rate, at(10), AssetClass.PERP)
    assert play.account(AssetClass.PERP).cash == 1000 + D(amount)


def test_a_position_opened_after_the_settlement_pays_nothing_and_without_a_mark_the_close_counts() -> None:
    early = Step(at(5), funding=[FundingRate(PERP.symbol, at(5), 0.01, 8.0)])
    late = Step(at(15), funding=[FundingRate(PERP.symbol, at(15), 0.01, 8.0)])
    play = Play(Script({PERP: [*flat(2), bar(10, 100.0, close=110.0), bar(15, 110.0)]}, [early, late]), {5: [buy("a", PERP, "1")]})
    assert [paid.amount for paid in play.paid] == [D("-1.1")]


def hourly(instrument: Instrument, since: int, until: int, price: float) -> Script:
    bars = [Bar(ts, price, price, price, price, NAN, NAN) for ts in range(since, until, 60 * MINUTE)]
    rate = Step(since, financing=[Financing(instrument.symbol, since, 0.02, -0.03)])
    return Script({instrument: bars}, [rate], interval=60 * MINUTE, start=since)


@pytest.mark.parametrize(("symbol", "triple"), [("EUR/USD", 2), ("USD/CAD", 3)])
def test_a_week_of_financing_is_seven_nights_with_three_on_wednesday_or_thursday(symbol: str, triple: int) -> None:
    instrument = pair(symbol, 5)
    since = utc("2026-01-05T00:00")
    play = Play(hourly(instrument, since, since + 7 * 24 * 60 * MINUTE, 1.25), {60: [buy("a", instrument, "36500", leverage="20")]})
    nightly = [round(paid.amount / min(p.amount for p in play.paid)) for paid in play.paid]
    assert nightly == [3 if day == triple else 1 for day in range(5)]
    if symbol == "EUR/USD":
        assert play.paid[0].amount == D("2.5")  # 36,500 x 1.25 x 2 % / 365


def test_financing_follows_new_york_across_daylight_saving_and_the_stated_rate_is_paid_without_another_markup() -> None:
    eurusd = pair("EUR/USD", 5)
    since = utc("2026-03-05T00:00")  # clocks change on Sunday 2026-03-08
    source = hourly(eurusd, since, utc("2026-03-12T00:00"), 1.0)
    offset = (since - START) / MINUTE
    play = Play(source, {offset + 60: [order("a", eurusd, Side.SELL, "36500", leverage="20")]}, policy(markup="0.01"))
    assert [datetime.fromtimestamp(paid.at / 1000, UTC).strftime("%a %H") for paid in play.paid] == [
        "Thu 22", "Fri 22", "Mon 21", "Tue 21", "Wed 21"]
    assert [paid.amount for paid in play.paid] == [D(-3), D(-3), D(-3), D(-3), D(-9)]  # -3 % x 36,500 / 365: what is stated, no more
    assert {paid.rate for paid in play.paid} == {-0.03}


def test_a_rate_that_nobody_states_costs_both_sides_the_markup() -> None:
    eurusd = pair("EUR/USD", 5)
    bars = [Bar(ts, 1.0, 1.0, 1.0, 1.0, NAN, NAN) for ts in range(START, START + 36 * 60 * MINUTE, 60 * MINUTE)]
    for side in (Side.BUY, Side.SELL):
        play = Play(Script({eurusd: bars}, interval=60 * MINUTE), {60: [order("a", eurusd, side, "36500", leverage="20")]},
                    policy(markup="0.01"))
        assert [(paid.amount, paid.rate) for paid in play.paid] == [(D(-1), -0.01)]  # -1 % x 36,500 / 365


@pytest.mark.parametrize(("side", "touching", "price"), [
    (Side.BUY, bar(5, 100.0, low=67.3), "66.6"), (Side.SELL, bar(5, 100.0, high=132.1), "133.4")])
def test_an_isolated_position_whose_margin_is_used_up_is_liquidated_and_loses_all_of_it(side: Side, touching: Bar, price: str) -> None:
    # entry 100, 3x: liquidation at 66.67 / 0.99 = 67.34 (long), 133.33 / 1.01 = 132.01 (short); the venue takes the whole margin
    play = Play(Script({PERP: [bar(0, 100.0), touching, bar(10, 100.0)]}), {5: [order("a", PERP, side, "3", leverage="3")]},
                policy(PERP=model(maintenance_margin=D("0.01"), taker_fee=D("0.001"))),
                on_fill={"a": [stop("s", PERP, side.opposite, "3", "50.0" if side is Side.BUY else "150.0")]})
    entry, liquidation = play.fills
    assert liquidation.liquidation and liquidation.client_order_id == "" and liquidation.side is side.opposite
    assert liquidation.price == D(price) and liquidation.quantity == D(3)
    assert play.ends["s"].how == "canceled" and play.account(AssetClass.PERP).positions == {}
    lost = 1000 - play.account(AssetClass.PERP).cash - entry.fee - liquidation.fee
    assert D(100) <= lost <= D("100.3")  # 300 / 3, plus less than a tick


def test_a_position_that_stays_a_tick_above_liquidation_lives_and_a_nearer_stop_goes_first() -> None:
    costs = policy(PERP=model(maintenance_margin=D("0.01")))
    alive = Play(Script({PERP: [bar(0, 100.0), bar(5, 100.0, low=67.4), bar(10, 100.0)]}), {5: [buy("a", PERP, "3", leverage="3")]}, costs)
    assert alive.account(AssetClass.PERP).positions == {PERP.symbol: D(3)}
    crash = Script({PERP: [bar(0, 100.0), bar(5, 100.0, low=50.0), bar(10, 100.0)]})
    stopped = Play(crash, {5: [buy("a", PERP, "3", leverage="3")]}, costs,
                   on_fill={"a": [stop("s", PERP, Side.SELL, "3", "70.0")]})
    assert stopped.fill("s").price == D("70.0") and not any(fill.liquidation for fill in stopped.fills)
    too_far = Play(crash, {5: [buy("a", PERP, "3", leverage="3")]}, costs, on_fill={"a": [stop("s", PERP, Side.SELL, "3", "60.0")]})
    assert too_far.fills[1].liquidation and too_far.ends["s"].how == "canceled"


def test_a_forex_position_that_gaps_through_liquidation_is_closed_at_the_market() -> None:
    eurusd = pair("EUR/USD", 5)
    bars = [bar(0, 1.0), bar(5, 1.0), bar(10, 0.9), bar(15, 0.9)]
    play = Play(Script({eurusd: bars}), {5: [buy("a", eurusd, "1000", leverage="20")]}, policy(FOREX=model(stop_slippage_bp=10.0)))
    assert play.fills[1].liquidation and play.fills[1].price == D("0.89910")


def test_margin_in_use_is_not_there_for_a_second_position() -> None:
    play = Play(Script({PERP: flat(5)}), {5: [buy("a", PERP, "15", leverage="2")], 10: [buy("b", PERP, "6", leverage="2")]})
    assert play.code("b") == "INSUFFICIENT_FUNDS"  # 750 of 1,000 are margin
    freed = Play(Script({PERP: flat(6)}), {5: [buy("a", PERP, "15", leverage="2")], 10: [sell("half", PERP, "10", reduce_only=True)],
                                           15: [buy("b", PERP, "14.9", leverage="2")]})
    assert freed.fill("b").quantity == D("14.9")  # 250 are left of it


def test_an_opening_kept_for_exits_is_forgotten_when_the_next_step_begins() -> None:
    source = Script({PERP: flat(3)})
    prices = Prices(source, policy())
    next(source.steps())
    prices.at_step = True
    assert prices.opening(PERP.symbol) == Quote(START, 100.0, 100.0, synthetic=True)
    prices.at_step = False
    assert prices.opening(PERP.symbol) is None
    prices.keep_openings({PERP.symbol})
    assert prices.opening(PERP.symbol) is not None
    prices.forget()
    assert prices.opening(PERP.symbol) is None


# -- forex conversion -------------------------------------------------------------------------------------------------------


def test_dollar_yen_profit_is_converted_at_the_price_of_the_fill() -> None:
    usdjpy = pair("USD/JPY", 3)
    play = Play(Script({usdjpy: [bar(0, 150.0), bar(5, 150.0), bar(10, 151.0), bar(15, 151.0)]}),
                {5: [buy("a", usdjpy, "10000", leverage="20")], 10: [sell("b", usdjpy, "10000", reduce_only=True)]})
    assert play.fill("b").settle_rate == D("0.006622516556291391")  # 1 / 151 to 16 digits
    assert play.account(AssetClass.FOREX).cash == 100_000 + D("66.22516556")


@pytest.mark.parametrize(("symbol", "digits", "price", "pip", "dollars"), [
    ("EUR/USD", 5, 1.10, 0.0001, "10.00"), ("USD/JPY", 3, 149.99, 0.01, "6.67")])
def test_one_pip_of_a_standard_lot(symbol: str, digits: int, price: float, pip: float, dollars: str) -> None:
    instrument = pair(symbol, digits)
    bars = [bar(0, price), bar(5, price), bar(10, round(price + pip, 5)), bar(15, price)]
    play = Play(Script({instrument: bars}),
                {5: [buy("a", instrument, "100000", leverage="20")], 10: [sell("b", instrument, "100000", reduce_only=True)]})
    assert (play.account(AssetClass.FOREX).cash - 100_000).quantize(D("0.01"), ROUND_HALF_EVEN) == D(dollars)


def test_a_cross_converts_through_the_pair_that_joins_it_to_dollars_or_is_refused() -> None:
    eurgbp, gbpusd = pair("EUR/GBP", 5), pair("GBP/USD", 5)
    bars = [bar(0, 0.85), bar(5, 0.85), bar(10, 0.86), bar(15, 0.86)]
    plan: Plan = {5: [buy("a", eurgbp, "1000", leverage="20")], 10: [sell("b", eurgbp, "1000", reduce_only=True)]}
    play = Play(Script({eurgbp: bars, gbpusd: flat(4, 1.25)}), plan)
    assert play.fill("b").settle_rate == D("1.25")
    assert play.account(AssetClass.FOREX).cash == 100_000 + D("12.5")
    assert Play(Script({eurgbp: bars}), plan).code("a") == "NO_RATE"


def test_a_cross_is_converted_at_the_close_of_its_own_instant_whatever_the_order_of_the_bars() -> None:
    """A stop that is reached in the very bar in which the joining pair moves: both orders of listing book the same."""
    eurgbp, gbpusd = pair("EUR/GBP", 5), pair("GBP/USD", 5)
    moved = [bar(0, 1.25), bar(5, 1.25), bar(10, 1.25, close=1.30), bar(15, 1.30)]
    crossed = [bar(0, 0.85), bar(5, 0.85), bar(10, 0.85, low=0.83, close=0.84), bar(15, 0.84)]
    plan: Plan = {5: [buy("a", eurgbp, "1000", leverage="20")]}
    for listed in ({eurgbp: crossed, gbpusd: moved}, {gbpusd: moved, eurgbp: crossed}):
        play = Play(Script(listed), plan, on_fill={"a": [stop("s", eurgbp, Side.SELL, "1000", "0.84")]})
        assert (play.fill("s").price, play.fill("s").settle_rate) == (D("0.84"), D("1.3"))
        assert play.account(AssetClass.FOREX).cash == 100_000 - D(13)


# -- options ----------------------------------------------------------------------------------------------------------------

EXPIRY = at(60)


def chain(moment: int, spot: float, *quoted: tuple[Instrument, float, float, float], settle_rate: float = 1.0) -> Chain:
    quotes = tuple(OptionQuote(i.symbol, i.expiry or 0, float(i.strike or 0), i.right is Right.CALL, bid, ask, mark, NAN, 0.5, 1.0, 500.0)
                   for i, bid, ask, mark in quoted)
    return Chain("BTC", moment, spot, settle_rate, quotes)


def option_play(plan: Plan, contracts: Sequence[tuple[Instrument, float, float, float]], settlement: float,
                costs: CostPolicy | None = None, *, settle_rate: float = 1.0, on_fill: Mapping[str, Sequence[Order]] | None = None) -> Play:
    """BTC at 100,000 until minute 55, then `settlement`; the chain is listed at minute 5 and again at 10, without latency at its prices."""
    bars = [*flat(11, 100_000.0), bar(55, 100_000.0, close=settlement), bar(60, settlement)]
    listed = [Step(at(minute), chains=[chain(at(minute), 100_000.0, *contracts, settle_rate=settle_rate)]) for minute in (5, 10)]
    return Play(Script({PERP: bars}, listed, contracts=[one for one, *_ in contracts]), plan, costs or policy(0), on_fill=on_fill,
                wallets=WALLETS | {AssetClass.OPTION: D(10_000)})


CALL, HIGHER_CALL = contract(101_000, Right.CALL, EXPIRY), contract(103_000, Right.CALL, EXPIRY)
PUT = contract(99_000, Right.PUT, EXPIRY)
CALLS = [(CALL, 400.0, 440.0, 420.0), (HIGHER_CALL, 100.0, 120.0, 110.0)]


def test_an_option_is_bought_at_the_ask_and_sold_at_the_bid_plus_slippage_with_a_capped_fee() -> None:
    costs = policy(0, OPTION=model(slippage_bp=50.0, taker_fee=D("0.0003")))
    play = option_play({5: [buy("a", CALL, "1")], 10: [sell("b", CALL, "1", reduce_only=True)]}, CALLS, 100_000.0, costs)
    bought, sold = play.fill("a"), play.fill("b")
    assert bought.price == D(443) and bought.fee == D(30)  # 440 x 1.005 up; 0.03 % of 100,000
    assert sold.price == D(398)  # 400 x 0.995
    assert play.account(AssetClass.OPTION).cash == 10_000 - 443 - 30 + 398 - 30
    cheap = option_play({5: [buy("a", HIGHER_CALL, "1")]}, CALLS, 100_000.0, costs)
    assert cheap.fill("a").price == D(121) and cheap.fill("a").fee == D("15.125")  # an eighth of the premium


def test_an_option_in_the_money_is_settled_in_cash_and_one_out_of_it_expires_worthless() -> None:
    unlisted = replace(CALL, symbol="BTC-99-C")
    play = option_play({5: [buy("a", CALL, "1"), buy("b", HIGHER_CALL, "2"), buy("c", unlisted, "1")]}, CALLS, 102_000.0)
    settled = {event.symbol: event for event in play.events if isinstance(event, Settled)}
    assert (settled[CALL.symbol].value, settled[CALL.symbol].quantity, settled[CALL.symbol].fee) == (D(1000), D(1), D("15.3"))
    assert settled[CALL.symbol].at == EXPIRY
    assert (settled[HIGHER_CALL.symbol].value, settled[HIGHER_CALL.symbol].fee) == (D(0), D(0))
    assert play.account(AssetClass.OPTION).cash == 10_000 - 440 - 240 + 1000 - D("15.3")
    assert play.account(AssetClass.OPTION).positions == {}
    assert play.code("c") == "SYMBOL"


def test_the_settlement_fee_is_at_most_an_eighth_of_the_value() -> None:
    play = option_play({5: [buy("a", CALL, "1")]}, CALLS, 101_010.0)
    [settled] = [event for event in play.events if isinstance(event, Settled)]
    assert (settled.value, settled.fee) == (D(10), D("1.25"))


@pytest.mark.parametrize(("settlement", "result"), [(100_000.0, 280), (102_000.0, 280 - 1000), (110_000.0, 280 - 2000)])
def test_a_credit_spread_keeps_its_credit_or_loses_at_most_its_width(settlement: float, result: int) -> None:
    play = option_play({5: [buy("long", HIGHER_CALL, "1")]}, CALLS, settlement, on_fill={"long": [sell("short", CALL, "1")]})
    assert play.fill("short").at == at(5)  # the second leg follows the first within the same opening
    fees = sum((event.fee for event in play.events if isinstance(event, Settled)), D(0))
    assert play.account(AssetClass.OPTION).cash == 10_000 + result - fees


def test_the_second_leg_trades_one_latency_after_the_first_and_decays_meanwhile() -> None:
    play = option_play({5: [buy("long", HIGHER_CALL, "1")]}, CALLS, 100_000.0, policy(50), on_fill={"long": [sell("short", CALL, "1")]})
    assert (play.fill("long").at, play.fill("short").at) == (at(5) + 50, at(5) + 100)
    assert play.fill("short").price == D(399)  # the bid of 400 lost a hundredth


def test_a_short_call_without_cover_is_rejected_and_so_is_selling_the_cover_first() -> None:
    naked = option_play({5: [sell("x", CALL, "1")]}, CALLS, 100_000.0)
    assert naked.ends["x"].how == "rejected" and naked.ends["x"].reason.startswith("UNCOVERED")
    unwound = option_play({5: [buy("long", HIGHER_CALL, "1")], 10: [sell("cover", HIGHER_CALL, "1", reduce_only=True)]}, CALLS, 100_000.0,
                          on_fill={"long": [sell("short", CALL, "1")]})
    assert unwound.ends["cover"].reason.startswith("UNCOVERED")


def test_a_spread_closed_in_one_batch_buys_the_short_leg_back_first() -> None:
    both = [sell("cover", HIGHER_CALL, "1", reduce_only=True), order("back", CALL, Side.BUY, "1", reduce_only=True)]
    play = option_play({5: [buy("long", HIGHER_CALL, "1")], 10: both}, CALLS, 100_000.0, on_fill={"long": [sell("short", CALL, "1")]})
    assert [fill.client_order_id for fill in play.fills] == ["long", "short", "back", "cover"]
    assert play.account(AssetClass.OPTION).positions == {}


def test_a_short_put_needs_its_whole_strike_in_cash() -> None:
    puts = [(PUT, 400.0, 440.0, 420.0)]
    assert option_play({5: [sell("x", PUT, "1")]}, puts, 100_000.0).ends["x"].reason.startswith("INSUFFICIENT_FUNDS")
    play = option_play({5: [sell("x", PUT, "0.1")]}, puts, 98_000.0)
    assert play.account(AssetClass.OPTION).cash == 10_000 + 40 - 100 - D("1.47")


def test_an_option_without_a_quote_on_our_side_is_not_filled() -> None:
    play = option_play({5: [buy("a", CALL, "1"), buy("b", HIGHER_CALL, "1", expires_at=at(6))]},
                       [(CALL, 400.0, 440.0, 420.0), (HIGHER_CALL, 100.0, NAN, 110.0)], 100_000.0)
    assert [fill.client_order_id for fill in play.fills] == ["a"]
    assert play.ends["b"].how == "expired"


def test_a_coin_quoted_option_is_booked_in_dollars_and_settles_in_coin() -> None:
    coin = contract(101_000, Right.CALL, EXPIRY, quote="BTC")
    play = option_play({5: [buy("a", coin, "1")]}, [(coin, 0.004, 0.0044, 0.0042)], 102_000.0, settle_rate=100_000.0)
    bought = play.fill("a")
    assert (bought.price, bought.settle_rate) == (D("0.0044"), D("100000.0"))
    [settled] = [event for event in play.events if isinstance(event, Settled)]
    assert settled.settle_rate == D("102000.0")
    assert abs(settled.value * settled.settle_rate - 1000) < D("1e-8")
    assert play.account(AssetClass.OPTION).cash == 10_000 - 440 + 1000 - D("15.3")


def test_the_venue_lists_the_contracts_it_has_seen_in_chains() -> None:
    play = option_play({}, CALLS, 100_000.0)
    loop = VirtualLoop(START)
    listed = loop.run_until_complete(play.venue.instruments())
    loop.close()
    assert {instrument.symbol for instrument in listed} == {PERP.symbol, CALL.symbol, HIGHER_CALL.symbol}


# -- transfers and conservation ---------------------------------------------------------------------------------------------


def test_a_withdrawal_takes_only_what_no_margin_holds() -> None:
    moves = [Step(at(10), transfers=[(AssetClass.PERP, D(-500)), (AssetClass.SPOT, D(250))])]
    play = Play(Script({PERP: flat(4), SPOT: flat(4)}, moves), {5: [buy("a", PERP, "7")]})
    moved = [(event.asset_class, event.amount) for event in play.events if isinstance(event, Transferred)]
    assert moved == [(AssetClass.PERP, D(-300)), (AssetClass.SPOT, D(250))]
    assert play.account(AssetClass.PERP).cash == 700 and play.account(AssetClass.SPOT).cash == 1250


def booked(value: Fraction) -> Decimal:
    """Half-even to 1e-8, with integers only."""
    scaled = value * 10**8
    floor = scaled.numerator // scaled.denominator
    rest = scaled - floor
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and floor % 2 == 1)
    return Decimal(floor + up).scaleb(-8)


class Recount:
    """The ledger once more, from the events alone, in rational numbers."""

    def __init__(self, wallets: Mapping[AssetClass, Decimal], instruments: Mapping[str, Instrument]) -> None:
        self.cash = dict(wallets)
        self.coins: dict[str, Decimal] = {}
        self.lots: dict[str, list[Fraction]] = {}
        """Symbol -> [signed quantity, signed entry value]."""
        self._instruments = instruments

    def take(self, event: AccountEvent) -> None:
        if isinstance(event, FillSeen):
            self._fill(event.fill, self._instruments[event.fill.symbol])
        elif isinstance(event, FundingPaid | Transferred):
            self.cash[event.asset_class] += event.amount

    def _fill(self, fill: Fill, instrument: Instrument) -> None:
        owner, sign = instrument.asset_class, fill.side.sign
        if owner is AssetClass.SPOT:
            self.cash[owner] -= sign * booked(Fraction(fill.quantity * fill.price * fill.settle_rate))
            received = sign * fill.quantity - (fill.fee if fill.fee_currency == instrument.base else 0)
            self.coins[instrument.base] = self.coins.get(instrument.base, D(0)) + received
        else:
            lot = self.lots.setdefault(fill.symbol, [Fraction(0), Fraction(0)])
            quantity, price = Fraction(fill.quantity), Fraction(fill.price)
            closed = min(quantity, abs(lot[0])) if lot[0] * sign < 0 else Fraction(0)
            if closed:
                entry = lot[1] / lot[0]
                self.cash[owner] += booked(-sign * closed * (price - entry) * Fraction(fill.settle_rate))
                lot[1] -= entry * closed * -sign
                lot[0] += sign * closed
            lot[0] += sign * (quantity - closed)
            lot[1] += sign * (quantity - closed) * price
        if fill.fee_currency != instrument.base or owner is not AssetClass.SPOT:
            self.cash[owner] -= fill.fee


@pytest.mark.parametrize("seed", range(6))
def test_no_money_appears_or_vanishes_whatever_is_traded(seed: int) -> None:
    dice = random.Random(seed)
    usdjpy = pair("USD/JPY", 3)
    instruments = {SPOT.symbol: SPOT, PERP.symbol: PERP, usdjpy.symbol: usdjpy}
    bars: dict[Instrument, list[Bar]] = {SPOT: [], PERP: [], usdjpy: []}
    for instrument, first, digits in ((SPOT, 100.0, 2), (PERP, 100.0, 1), (usdjpy, 150.0, 3)):
        price = first
        for slot in range(240):
            close = round(max(1.0, price * math.exp(dice.gauss(0.0, 0.01))), digits)
            spread = abs(dice.gauss(0.0, 0.01))
            if dice.random() > 0.03:
                bars[instrument].append(bar(5 * slot, price, max(price, close) * (1 + spread), min(price, close) * (1 - spread), close,
                                            volume=dice.choice((0.0, 3.0, 50.0, 1e6))))
            price = close
    extra = [Step(at(5 * slot), marks=[(PERP.symbol, 100.0)], funding=[FundingRate(PERP.symbol, at(5 * slot), dice.gauss(0, 0.001), 8.0)],
                  financing=[Financing(usdjpy.symbol, at(5 * slot), 0.02, -0.04)],
                  transfers=[(dice.choice(list(WALLETS)), D(dice.randint(-200, 200)))]) for slot in range(0, 240, 24)]
    count = iter(range(10_000))

    def trade(batch: Batch) -> list[Order]:
        orders = []
        closes = {symbol: one.close for symbol, one in batch.bars}
        for instrument, unit, scale in ((SPOT, "0.12345", 2), (PERP, "0.777", 1), (usdjpy, "1234", 3)):
            roll, leverage = dice.random(), "5" if instrument.is_margined else "1"
            name, side = f"{next(count)}", dice.choice((Side.BUY, Side.SELL))
            close = closes.get(instrument.symbol)
            if roll < 0.25:
                orders.append(order(name, instrument, side, unit, leverage=leverage, expires_at=batch.at + MINUTE))
            elif roll < 0.55 and close is not None:
                price = f"{close * dice.uniform(0.97, 1.03):.{scale}f}"
                kind = dice.choice((OrderKind.STOP, OrderKind.TARGET, OrderKind.LIMIT))
                orders.append(order(name, instrument, side, unit, kind, price, reduce_only=kind is not OrderKind.LIMIT, leverage=leverage))
        return orders

    crypto = {"half_spread_bp": 1.0, "slippage_bp": 1.0, "impact_bp": 10.0, "stop_slippage_bp": 3.0, "participation_max": D("0.1")}
    costs = policy(50, "0.01", SPOT=model(**crypto, maker_fee=D("0.001"), taker_fee=D("0.001")),
                   PERP=model(**crypto, maker_fee=D("-0.0001"), taker_fee=D("0.00055"), maintenance_margin=D("0.05")),
                   FOREX=model(half_spread_bp=0.5, taker_fee=D("0.00002"), maintenance_margin=D("0.01")))
    play = Play(Script(bars, extra), {}, costs, hook=trade)
    recount = Recount(WALLETS, instruments)
    for event in play.events:
        recount.take(event)
    assert len(play.fills) > 30 and play.paid
    for asset_class in (AssetClass.SPOT, AssetClass.PERP, AssetClass.FOREX):
        assert play.account(asset_class).cash == recount.cash[asset_class]
    assert play.account(AssetClass.SPOT).coins == {coin: quantity for coin, quantity in recount.coins.items() if quantity}
    positions = {**play.account(AssetClass.PERP).positions, **play.account(AssetClass.FOREX).positions}
    assert positions == {symbol: D(lot[0].numerator) / D(lot[0].denominator) for symbol, lot in recount.lots.items() if lot[0]}
    assert all(quantity >= 0 for quantity in recount.coins.values())
    assert len({fill.venue_trade_id for fill in play.fills}) == len(play.fills)


def test_two_runs_of_the_same_market_are_the_same_to_the_last_event() -> None:
    def once() -> list[AccountEvent]:
        bars = [bar(5 * n, 100.0 + n % 7, 108.0, 95.0) for n in range(50)]
        plan: Plan = {5 * n: [order(f"{n}", PERP, Side.BUY if n % 3 else Side.SELL, "1", leverage="3")] for n in range(2, 48)}
        return Play(Script({PERP: bars}), plan).events

    assert once() == once()


def test_on_a_wall_clock_an_exit_between_two_steps_trades_at_the_last_opening_and_an_entry_waits_for_the_next() -> None:
    source = Script({PERP: [bar(5 * n, 100.0 + n) for n in range(6)]})
    seen: list[Fill] = []
    clock = WallClock(speed=3000.0, start=START)

    async def live() -> None:
        venue = PaperVenue(source, clock, policy(latency_ms=5000), WALLETS, CURRENCIES)
        lane: asyncio.Queue[Order] = asyncio.Queue()

        async def send() -> None:
            while True:
                await venue.submit(await lane.get())

        async def listen() -> None:
            async for event in venue.account_events():
                if isinstance(event, FillSeen):
                    seen.append(event.fill)

        async def press_the_button() -> None:
            await clock.sleep_until(at(12))
            lane.put_nowait(sell("out", PERP, "1", reduce_only=True))
            lane.put_nowait(buy("in", PERP, "2"))

        tasks = [asyncio.create_task(send()), asyncio.create_task(listen()), asyncio.create_task(press_the_button())]
        async for batch in venue.market_events():
            if batch.at == at(10):
                lane.put_nowait(buy("a", PERP, "1"))
        await venue.close()
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(live())
    entry, out, again = seen
    assert (entry.client_order_id, entry.price) == ("a", D("102.0")) and entry.at >= at(10) + 5000
    assert (out.client_order_id, out.price) == ("out", D("102.0")) and at(12) + 5000 <= out.at < at(15)
    assert (again.client_order_id, again.price) == ("in", D("103.0")) and again.at >= at(15) + 5000
