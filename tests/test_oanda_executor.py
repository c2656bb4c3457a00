"""The real executor and Wallet_Sync over our OANDA adapter and the emulated broker: an entry, its stop, its end, and the same cash."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

from modules.domain.events import (
    BalanceAdjusted,
    Fact,
    Filled,
    FundingBooked,
    InstrumentListed,
    OrderInDoubt,
    OrderIntended,
    OrderRejected,
    PositionClosed,
    TradeOpened,
)
from modules.domain.instrument import AssetClass, Side
from modules.domain.order import ExitReason, Order, OrderState
from modules.Funds_Controller import FundsController
from modules.Kill_Switch import KillSwitch
from modules.Market_Data import MarketData
from modules.Portfolio_Manager import PortfolioManager
from modules.Risk_Management import _TOKEN, ApprovedOrder, RiskManagement
from modules.store.journal import Journal
from modules.Trade_Executor import TradeExecutor
from modules.Wallet_Sync import WalletSync
from tests.builders import EUR_USD, make_instrument, make_order, shipped_policies
from tests.emulators.oanda import Fault, Reply
from tests.test_oanda_venue import MINUTE, MONDAY, Desk, trading, until

D = Decimal
FOREX = AssetClass.FOREX
POLICIES = shipped_policies()
QUICK = POLICIES.execution.model_copy(update={"doubt_query_spacing_s": (0.1,), "wallet_poll_s": 0.3, "exit_retry_s": 0.2})


class Floor:
    """Executor, wallet and books on the wall clock, wired as main.py wires them."""

    def __init__(self, on: Desk) -> None:
        self.on, venue = on, on.venue
        self.journal = Journal(None)
        self.portfolio = PortfolioManager(journal=self.journal, settlement={FOREX: "USD"})
        self.funds = FundsController(journal=self.journal, policy=POLICIES.funds, allocate={})
        self.kill_switch = KillSwitch(journal=self.journal, policy=POLICIES.kill_switch, equity=lambda _: None)
        self.risk = RiskManagement(self.journal, POLICIES, self.kill_switch, self.funds, money=lambda _: None, live=False)
        self.market = MarketData(journal=self.journal, risk=POLICIES.risk, kill_switch=POLICIES.kill_switch, costs=POLICIES.costs,
                                 on_bar=lambda *_: None)
        self.executor = TradeExecutor(
            journal=self.journal, clock=on.clock, venues={venue.name: venue}, risk=self.risk, kill_switch=self.kill_switch,
            market=self.market, positions=self.portfolio.positions, policy=QUICK, kill_policy=POLICIES.kill_switch, costs=POLICIES.costs)
        self.wallets = WalletSync(
            journal=self.journal, clock=on.clock, venues={venue.name: venue}, venue_of={FOREX: venue.name}, portfolio=self.portfolio,
            funds=self.funds, kill_switch=self.kill_switch, market=self.market, policy=QUICK, worth=lambda _: None)
        self.wallets.attach(self.executor)
        self.facts: list[Fact] = []
        for projection in (self.portfolio.apply, self.funds.apply, self.kill_switch.apply, self.executor.apply, self.risk.apply,
                           self.wallets.apply):
            self.journal.project(projection)
        for reactor in (self.portfolio.on_fact, self.kill_switch.on_fact, self.executor.on_fact, self.facts.append):
            self.journal.react(reactor)

    def enter(self, quantity: str) -> Order:
        order = make_order(make_instrument(FOREX, venue="oanda"), quantity=D(quantity), trade_id="t1", at=self.on.clock.now(),
                           client_order_id="tbentry", expires_at=self.on.clock.now() + 60_000)
        self.journal.append(TradeOpened(self.on.clock.now(), "t1", "d", "trend", EUR_USD, FOREX, Side.BUY.value, "single", 0.7, 0.6,
                                        1.1, 1.09, 1.12, 0, MINUTE, D(100)))
        self.journal.append(OrderIntended(self.on.clock.now(), order))
        self.executor.place(ApprovedOrder(order, _TOKEN))
        return order

    def of(self, kind: type[Any]) -> list[Any]:
        return [fact for fact in self.facts if isinstance(fact, kind)]


def on_the_floor(scenario: Callable[[Floor], Awaitable[None]]) -> None:
    async def talk(on: Desk) -> None:
        floor = Floor(on)
        floor.market.list_instruments(await on.venue.instruments(), on.venue.interval_ms)
        await floor.wallets.reconcile(on.venue)
        for instrument in await on.venue.instruments():
            floor.journal.append(InstrumentListed(MONDAY, instrument))
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(floor.executor.run()), group.create_task(floor.wallets.run())]
            await until(lambda: on.emulator.listeners)
            await scenario(floor)
            for task in running:
                task.cancel()
        assert floor.portfolio.wallet_cash(FOREX) == on.book.balance
        assert floor.of(BalanceAdjusted) == [] and floor.of(OrderRejected) == []

    trading(talk)


def resting(floor: Floor) -> list[tuple[str, str, str]]:
    return sorted((order["type"], order["units"], order["positionFill"]) for order in floor.on.book.orders.values()
                  if order["state"] == "PENDING")


def test_an_entry_is_protected_and_stopped_out_and_its_target_goes_with_it() -> None:
    async def scenario(floor: Floor) -> None:
        floor.enter("1237")
        await until(lambda: len(resting(floor)) == 2)
        assert resting(floor) == [("LIMIT", "-1237", "REDUCE_ONLY"), ("STOP", "-1237", "REDUCE_ONLY")]
        floor.on.book.move(MONDAY + 13 * 3_600_000, {"EUR_USD": (D("1.09500"), D("1.09512"))})  # over the night
        await until(lambda: floor.of(FundingBooked))
        floor.on.quote("1.08877", "1.08890")
        await until(lambda: floor.of(PositionClosed) and not resting(floor))
        assert floor.on.book.position("EUR_USD") == 0 and len(floor.of(Filled)) == 2
        assert floor.of(PositionClosed)[0].trade.net == floor.on.book.balance - 10_000

    on_the_floor(scenario)


def test_an_entry_whose_answer_was_lost_is_found_protected_and_sent_once() -> None:
    async def scenario(floor: Floor) -> None:
        floor.on.emulator.silent = True
        floor.on.emulator.faults = [Fault("POST", "/orders", Reply(502, b"<html>"), accepted=True)]
        order = floor.enter("500")
        await until(lambda: len(resting(floor)) == 2)
        assert floor.executor.orders[order.client_order_id].state is OrderState.FILLED
        assert floor.on.book.position("EUR_USD") == 500 and len(floor.of(OrderInDoubt)) <= 1
        sent = [body for body in floor.on.emulator.bodies if body.get("order", {}).get("type") == "MARKET"]
        assert len(sent) == 1

    on_the_floor(scenario)


def test_an_exit_in_the_brokers_daily_pause_goes_when_it_ends_and_the_stop_waits_with_the_position() -> None:
    async def scenario(floor: Floor) -> None:
        floor.enter("500")
        await until(lambda: len(resting(floor)) == 2)
        floor.on.book.halted.add("EUR_USD")
        floor.executor.request_exit("t1", ExitReason.TIME_EXIT, floor.on.clock.now())
        await until(lambda: len(floor.of(OrderRejected)) >= 2)
        refused = floor.of(OrderRejected)
        assert {fact.code for fact in refused} == {"MARKET_HALTED"} and floor.on.book.position("EUR_USD") == 500
        assert ("STOP", "-500", "REDUCE_ONLY") in resting(floor)
        floor.on.book.halted.clear()
        await until(lambda: floor.of(PositionClosed) and not resting(floor))
        assert floor.on.book.position("EUR_USD") == 0
        floor.facts = [fact for fact in floor.facts if not isinstance(fact, OrderRejected)]

    on_the_floor(scenario)
