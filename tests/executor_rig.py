"""The executor among real authorities and a venue that does as it is told, on virtual time: what its tests play on."""


from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from decimal import Decimal
from functools import partial
from typing import TypeVar

from modules.domain.decision import Leg
from modules.domain.events import (
    Fact,
    InstrumentListed,
    OrderIntended,
    TradeOpened,
    TransferSeen,
)
from modules.domain.instrument import AssetClass, Instrument, Right, Side
from modules.domain.market import Bar, Batch
from modules.domain.order import Accepted, Fate, Order, OrderReport, OrderState, Purpose
from modules.domain.signal import Structure
from modules.Funds_Controller import FundsController
from modules.Kill_Switch import KillSwitch
from modules.Market_Data import MarketData
from modules.Portfolio_Manager import PortfolioManager
from modules.Risk_Management import _TOKEN, ApprovedOrder, RiskManagement
from modules.runtime.clock import VirtualClock, VirtualLoop
from modules.store.journal import Journal
from modules.Trade_Executor import TradeExecutor
from modules.venues.protocol import AccountEvent, Capabilities, ClassWallet, FillSeen, OrderDone, Venue, Wallet
from tests.builders import AT, BTC_PERP, BTC_SPOT, make_fill, make_instrument, make_order, shipped_policies

D = Decimal
PERP, SPOT, OPTION = AssetClass.PERP, AssetClass.SPOT, AssetClass.OPTION
POLICIES = shipped_policies()
CALL_HIGH = "BTC/USDT:USDT-260130-54000-C"
INSTRUMENTS = {instrument.symbol: instrument for instrument in (
    make_instrument(SPOT), make_instrument(PERP), make_instrument(OPTION),
    make_instrument(OPTION, symbol=CALL_HIGH, strike=D(54000), right=Right.CALL),
)}
CALL_LOW = make_instrument(OPTION).symbol
Answer = Fate | Callable[[Order], Awaitable[Fate]]
F = TypeVar("F")


class FakeVenue:
    """Answers as it is told, remembers everything it was asked, and has no opinion."""

    name = "paper"

    def __init__(self) -> None:
        self.capabilities = Capabilities(True, True, True, True, True, True, in_process=False)
        self.submitted: list[Order] = []
        self.canceled: list[str] = []
        self.answers: dict[str, list[Answer]] = {}
        """Purpose, or client order id -> answers in turn; Accepted when they have run out."""
        self.cancel_answers: list[Answer] = []
        self.knows: dict[str, OrderReport] = {}
        self.fills: list[FillSeen] = []
        self.asked: list[str] = []
        self.asked_at: list[int] = []
        self.faults: list[Exception] = []
        """Raised by the next questions, one each."""
        self.working: list[OrderReport] = []
        self.clock: VirtualClock | None = None
        self.untold: list[AccountEvent] = []
        """What no stream has told."""
        self.told_since: list[int | None] = []
        self.offset_ms: int | None = 0
        self.denied: Exception | None = None

    async def submit(self, order: Order) -> Fate:
        self.submitted.append(order)
        waiting = self.answers.get(order.client_order_id) or self.answers.get(order.purpose.value)
        answer = waiting.pop(0) if waiting else Accepted(f"V{len(self.submitted)}")
        return await answer(order) if callable(answer) else answer

    async def cancel(self, order: Order) -> Fate:
        self.canceled.append(order.client_order_id)
        answer = self.cancel_answers.pop(0) if self.cancel_answers else Accepted("")
        return await answer(order) if callable(answer) else answer

    async def order(self, client_order_id: str, symbol: str) -> OrderReport | None:
        self.asked.append(client_order_id)
        self.asked_at.append(self.clock.now() if self.clock is not None else 0)
        if self.faults:
            raise self.faults.pop(0)
        return self.knows.get(client_order_id)

    async def fills_since(self, at: int) -> Sequence[FillSeen]:
        return [seen for seen in self.fills if seen.fill.at >= at]

    async def missed(self, since: int | None = None) -> Sequence[AccountEvent]:
        self.told_since.append(since)
        if self.faults:
            raise self.faults.pop(0)
        untold, self.untold = self.untold, []
        return untold

    async def clock_offset_ms(self) -> int | None:
        return self.offset_ms

    async def check(self) -> None:
        if self.denied is not None:
            raise self.denied

    async def wallet(self) -> Wallet:
        return Wallet(AT, {PERP: ClassWallet("USDT", D(10_000), {}, {})}, self.working)

    async def instruments(self) -> Sequence[Instrument]:
        return list(INSTRUMENTS.values())

    async def history(self, symbol: str, until: int, bars: int) -> Sequence[Bar]:
        return []

    def interval_ms(self, symbol: str) -> int:
        return 300_000

    async def market_events(self) -> AsyncIterator[Batch]:
        return
        yield Batch(0)

    async def account_events(self) -> AsyncIterator[AccountEvent]:
        return
        yield OrderDone("", 0, "", "")

    async def close(self) -> None: ...


def reopened(journal: Journal) -> Journal:
    """What the next life of the process finds on disk."""
    copy = Journal(None)
    for _, fact in journal.facts():
        copy.append(fact)
    return copy


class Rig:
    """The executor among real authorities, with 10,000 in every class, a market at 50,000 and a venue that does as it is told."""

    def __init__(self, journal: Journal | None = None, venue: FakeVenue | None = None, *, lane_size: int = 64) -> None:
        self.loop = VirtualLoop(AT)
        self.clock = VirtualClock(self.loop)
        self.venue = venue or FakeVenue()
        self.venue.clock = self.clock
        self.journal = journal or Journal(None)
        self.portfolio = PortfolioManager(journal=self.journal, settlement=dict.fromkeys(AssetClass, "USDT"))
        self.funds = FundsController(journal=self.journal, policy=POLICIES.funds, allocate={})
        self.kill_switch = KillSwitch(journal=self.journal, policy=POLICIES.kill_switch, equity=lambda _: None)
        self.risk = RiskManagement(self.journal, POLICIES, self.kill_switch, self.funds, money=lambda _: None, live=False)
        self.market = MarketData(journal=self.journal, risk=POLICIES.risk, kill_switch=POLICIES.kill_switch, costs=POLICIES.costs,
                                 on_bar=lambda *_: None)
        self.market.list_instruments(list(INSTRUMENTS.values()), self.venue.interval_ms)
        for symbol in (BTC_PERP, BTC_SPOT):
            self.market.take(symbol, Bar(AT - 300_000, 50_000.0, 50_000.0, 50_000.0, 50_000.0, 9.0, 450_000.0))
        policy = POLICIES.execution.model_copy(update={"lane_size": lane_size})
        venues: dict[str, Venue] = {self.venue.name: self.venue}
        self.executor = TradeExecutor(
            journal=self.journal, clock=self.clock, venues=venues, risk=self.risk, kill_switch=self.kill_switch,
            market=self.market, positions=self.portfolio.positions, policy=policy, kill_policy=POLICIES.kill_switch, costs=POLICIES.costs)
        self.facts: list[Fact] = []
        for projection in (self.portfolio.apply, self.funds.apply, self.kill_switch.apply, self.executor.apply, self.risk.apply):
            self.journal.project(projection)
        for reactor in (self.portfolio.on_fact, self.kill_switch.on_fact, self.executor.on_fact, self.facts.append):
            self.journal.react(reactor)
        self.numbers = 0
        if journal is None:
            for asset_class in AssetClass:
                self.journal.append(TransferSeen(AT, asset_class, D(10_000), D(0), f"opening {asset_class}"))
            for instrument in INSTRUMENTS.values():
                self.journal.append(InstrumentListed(AT, instrument))
        else:
            self.journal.replay()

    def play(self, scenario: Callable[[Rig], Awaitable[None]]) -> None:
        """Run the executor's lanes beside `scenario` until that is over."""
        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(self.executor.run())
                await self.clock.settle()
                await scenario(self)
                await self.clock.settle()
                running.cancel()

        try:
            self.loop.run_until_complete(both())
        finally:
            self.loop.close()

    # -- what a decision would have written

    def enter(self, symbol: str = BTC_PERP, side: Side = Side.BUY, quantity: str = "0.1", trade_id: str = "trade-1", *,
              stop: float | None = None, target: float | None = None) -> Order:
        """Approve, journal and place an entry with a stop 2 % away and a target 4 % away."""
        instrument = INSTRUMENTS[symbol]
        order = make_order(instrument, side=side, quantity=D(quantity), trade_id=trade_id, at=self.clock.now(),
                           expires_at=self.clock.now() + 60_000, client_order_id=f"tb{trade_id}entry")
        self.journal.append(TradeOpened(
            self.clock.now(), trade_id, "d", "trend", symbol, instrument.asset_class, side.value, Structure.SINGLE.value, 0.7, 0.6,
            50_000.0, stop or 50_000.0 * (1 - 0.02 * side.sign), target or 50_000.0 * (1 + 0.04 * side.sign), 0, 300_000, D(100)))
        self.journal.append(OrderIntended(self.clock.now(), order))
        self.executor.place(ApprovedOrder(order, _TOKEN))
        return order

    def enter_spread(self, quantity: str = "0.10") -> Order:
        """A call spread: the low strike bought first, then the high one sold."""
        low, high = INSTRUMENTS[CALL_LOW], INSTRUMENTS[CALL_HIGH]
        legs = (Leg(low.symbol, Side.BUY, D(quantity), D(1000)), Leg(high.symbol, Side.SELL, D(quantity), D(600)))
        order = make_order(low, quantity=D(quantity), trade_id="spread-1", arrival_price=D(1000), client_order_id="tbspread1entry",
                           at=self.clock.now(), expires_at=self.clock.now() + 60_000)
        self.journal.append(TradeOpened(
            self.clock.now(), "spread-1", "d", "verticals", BTC_PERP, OPTION, "BUY", Structure.CREDIT_SPREAD.value, 0.7, 0.6, 400.0, None,
            None, 0, 300_000, D(40), legs))
        self.journal.append(OrderIntended(self.clock.now(), order))
        self.executor.place(ApprovedOrder(order, _TOKEN))
        return order

    # -- what a venue would report

    def fill(self, order: Order, quantity: str | None = None, price: str | None = None, *, number: str | None = None) -> FillSeen:
        """A fill of `order` (all of it unless told) arrives."""
        self.numbers += 1
        amount = D(quantity) if quantity is not None else order.quantity
        known = self.executor._life.record(order.client_order_id)
        done = known is not None and known.filled + amount >= order.quantity
        at = D(price) if price is not None else (order.price or order.arrival_price)
        seen = FillSeen(make_fill(order, quantity=amount, price=at, fee=D("0.01"), at=self.clock.now(),
                                  venue_trade_id=number or f"T{self.numbers}"), done)
        self.executor.on_fill(seen)
        return seen

    def ended(self, order: Order, how: str = "canceled", reason: str = "") -> None:
        self.executor.on_done(OrderDone(order.client_order_id, self.clock.now(), how, reason))

    async def wait(self, seconds: float) -> None:
        """Let time pass, a tick every second of it."""
        for _ in range(int(seconds)):
            await asyncio.sleep(1.0)
            self.clock.pulse(self.clock.now())
        await self.clock.settle()

    # -- what came of it

    def of(self, kind: type[F]) -> list[F]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def sent(self, purpose: Purpose, symbol: str | None = None) -> list[Order]:
        return [o for o in self.venue.submitted if o.purpose is purpose and (symbol is None or o.symbol == symbol)]

    def state(self, order: Order) -> OrderState:
        record = self.executor._life.record(order.client_order_id)
        assert record is not None
        return record.state

    def resting(self, purpose: Purpose) -> list[Order]:
        """Working orders of a purpose, as the executor sees them."""
        return [r.order for r in self.executor.orders.values() if r.working and r.order.purpose is purpose]

    def protected(self) -> Decimal:
        """How much the working stops would close."""
        return sum((r.order.quantity - r.filled for r in self.executor.orders.values()
                    if r.working and r.order.purpose is Purpose.STOP), D(0))


async def hang(_: Order) -> Fate:
    await asyncio.sleep(1e6)
    raise AssertionError("nobody waits that long")


async def opened(rig: Rig, symbol: str = BTC_PERP) -> Order:
    """An entry that is filled, with its protective orders at the venue."""
    order = rig.enter(symbol)
    await rig.clock.settle()
    rig.fill(order)
    await rig.clock.settle()
    return order


def played(story: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A story of one executor, told as a test: it gets a rig of its own, its parameters are pytest's."""
    def test(**named: object) -> None:
        Rig().play(partial(story, **named))

    test.__name__, test.__doc__, test.__module__ = story.__name__, story.__doc__, story.__module__
    told = list(inspect.signature(story).parameters.values())[1:]
    test.__signature__ = inspect.Signature(told)  # type: ignore[attr-defined]
    return test
