"""Reads the settings, builds every authority once, replays, reconciles and runs. The only wiring; the command line starts here.

One asyncio event loop drives Wallet_Sync, News_Agent, Strategy_Manager, Sizer, Kill_Switch and Trade_Executor as cooperating coroutines
that share one in-process Portfolio_Manager. An error in any of them leaves through the TaskGroup and ends the process.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the daemon's own imports: `version`, `status` and `--help` answer without them
    import signal
    from importlib.util import find_spec

    if sys.version_info < (3, 11) or not (find_spec("pydantic") and find_spec("structlog")):
        sys.exit(f"{sys.executable} is not the Python this was installed for. Say .venv/bin/python main.py; README.md has the command that "
                 "makes .venv (Python 3.11 or newer)")

    if sys.argv[1:2] in ([], ["trade"]) or sys.argv[1].startswith("-"):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # a daemon told to end while it still loads ends in good order
    from modules.cli.app import run

    sys.exit(run(sys.argv[1:]))

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from decimal import Decimal
from functools import partial
from itertools import chain, repeat
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar, cast

from modules.cli.plan import Arrival, Plan, reference_series, resume_at, settlement_currencies, simulated_plan, with_challengers
from modules.cli.simulation import Simulation, simulate
from modules.domain.errors import VenueBusy, VenueUnreachable
from modules.domain.events import DaemonStarted, Fact
from modules.domain.instrument import ASSET_CLASSES, AssetClass, Instrument
from modules.domain.market import Bar
from modules.domain.order import WORKING, Purpose
from modules.domain.policies import Policies
from modules.Funds_Controller import FundsController
from modules.Instrument_Selector import InstrumentSelector
from modules.Kill_Switch import KillSwitch
from modules.learning.option_shadow import option_terms_of
from modules.learning.shadow import terms_of
from modules.Learning_Agent import LearningAgent
from modules.Market_Data import MarketData
from modules.News_Agent import NewsAgent
from modules.Operator_Desk import OperatorDesk
from modules.Portfolio_Manager import PortfolioManager
from modules.Risk_Management import ClassMoney, RiskManagement
from modules.runtime import collector, failpoint
from modules.Sizer import Sizer
from modules.Strategy_Manager import StrategyManager
from modules.Trade_Executor import TradeExecutor
from modules.Validation_Manager import ValidationManager
from modules.venues.absent import Absent
from modules.venues.paper_restore import Forgetful
from modules.venues.paper_venue import PaperVenue
from modules.View_Builder import ViewBuilder
from modules.Wallet_Sync import WalletSync

if TYPE_CHECKING:
    from modules.strategies.protocol import Strategy
    from modules.venues.protocol import Venue

T = TypeVar("T")
__all__ = ["VERSION", "Arrival", "Daemon", "Plan", "Simulation", "reference_series", "resume_at", "settlement_currencies", "simulate",
           "simulated_plan"]
VERSION: Final = "0.1.0"
SHUTDOWN_S: Final = 3.0
"""What entries that are on their way may take to be canceled; after that the journal has them in doubt, and the next start asks."""
CLOSE_S: Final = 1.5
"""What venues may take to hear that we go. Together with the last words (cli/process) the end takes less than ten seconds, after which
containers are killed."""
RETRY_S: Final = (2.0, 5.0, 10.0, 30.0, 60.0)
"""Waits between attempts to go on with a start where a venue did not answer in the middle of it; the last one repeats."""
RETRY_HELD_S: Final = (0.5, 1.0, 2.0, 5.0)
"""The same while something is held, or was on order: nobody looks after its stop meanwhile."""
EMPTY: Final[Mapping[str, Sequence[Instrument]]] = MappingProxyType({})
WATCH_S: Final = 5.0
"""How often feeds are looked at for silence."""


class Daemon:
    """Every authority, wired. `await run()` is the whole life of the process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.live = plan.mode == "live"
        journal, policies, clock = plan.journal, plan.policies, plan.clock
        self.journal, self.policies, self.clock, self.decisions = journal, policies, clock, plan.decisions
        self.venues: dict[str, Venue] = dict(plan.venues)
        """Those that are waited for are Absent."""
        if plan.arrive is not None:
            self.venues |= {name: cast("Venue", Absent(name)) for name in plan.venue_of.values()}
        self.portfolio = PortfolioManager(journal=journal, settlement=plan.settlement)
        self.funds = FundsController(journal=journal, policy=policies.funds, allocate=plan.allocate)
        self.kill_switch = KillSwitch(
            journal=journal, policy=policies.kill_switch, equity=self.marked_equity, halt_file=plan.halt_file,
            venues={name: frozenset(c for c, at in plan.venue_of.items() if at == name) for name in self.venues})
        self.sizer = Sizer(policies.sizing, policies.costs, journal)
        self.risk = RiskManagement(
            journal, policies, self.kill_switch, self.funds, money=self._money, live=self.live)
        self.market = MarketData(
            journal=journal, risk=policies.risk, kill_switch=policies.kill_switch, costs=policies.costs,
            after_batch=(self._mark, self._shadowed, *plan.after_batch), patience=clock.speed)
        self.executor = TradeExecutor(
            journal=journal, clock=clock, venues=self.venues, risk=self.risk, kill_switch=self.kill_switch, market=self.market,
            positions=self.portfolio.positions, policy=policies.execution, kill_policy=policies.kill_switch, costs=policies.costs)
        self.wallets = WalletSync(
            journal=journal, clock=clock, venues=self.venues, venue_of=plan.venue_of, portfolio=self.portfolio, funds=self.funds,
            kill_switch=self.kill_switch, market=self.market, policy=policies.execution, worth=self.marked_equity)
        self.wallets.attach(self.executor)
        self.news = NewsAgent(journal=journal, clock=clock, calendar=plan.calendar, policy=policies.news, setup=plan.news)
        self.runnable = with_challengers(plan.strategies, plan.challengers)
        """What runs: the strategies, and the challengers in their shadow."""
        self.validation = ValidationManager(
            journal=journal, policies=policies, strategies=self.runnable, folder=plan.certificates, command=plan.revalidate,
            announce=plan.announce, trials=plan.trials, drift=plan.drift)
        self.learning = LearningAgent(
            journal=journal, policy=policies.learning, full_r=float(policies.risk.expected_r_per_confidence),
            strategies={asset_class: [s.name for s in listed] for asset_class, listed in plan.strategies.items()},
            terms=terms_of(policies), option_terms=option_terms_of(policies), certified=self.validation.certified, folder=plan.learning)
        self.look = ViewBuilder(
            live=self.live, policies=policies, market=self.market, portfolio=self.portfolio, kill_switch=self.kill_switch, funds=self.funds,
            risk=self.risk, wallets=self.wallets, executor=self.executor, news=self.news, validation=self.validation,
            venue_of=plan.venue_of, blacklist=plan.blacklist, whitelist=plan.whitelist, barred=self._barred,
            learning=self.learning)
        self.strategies = StrategyManager(
            clock=clock, policies=policies, look=self.look, sizer=self.sizer, risk=self.risk, executor=self.executor,
            decisions=plan.decisions, on_decision=plan.on_decision, learning=self.learning)
        self.instruments = InstrumentSelector(
            journal=journal, clock=clock, market=self.market, strategies=self.strategies, executor=self.executor,
            positions=self.portfolio.positions, strategies_now=self._strategies_now, candles=plan.candles, announce=plan.announce)
        self.market.on_bar = self.strategies.on_bar if plan.candles is None else self._on_kept_bar
        self.desk = OperatorDesk(
            journal=journal, clock=clock, kill_switch=self.kill_switch, funds=self.funds, risk=self.risk, executor=self.executor,
            wallets=self.wallets, venues=self.venues)
        self.classes = tuple(asset_class for asset_class in ASSET_CLASSES if asset_class in plan.settlement)
        """What is traded, in the order of AssetClass."""
        self._dirty: set[AssetClass] = set(AssetClass)
        self._stop = asyncio.Event()
        self.started_at = 0
        self._remembered: int | None = None
        """Facts that were on record before this start; None = they have not been read yet."""
        self.warm = False
        """The strategies have seen the past: from now on they decide."""
        # Projections in a fixed order: the books first, then what stands on them. Reactors likewise.
        for projection in (self.portfolio.apply, self.funds.apply, self.kill_switch.apply, self.executor.apply, self.wallets.apply,
                           self.strategies.apply, self.risk.apply, self.sizer.apply, self.news.apply, self.desk.apply,
                           self.validation.apply, self.learning.apply, self.instruments.apply):
            journal.project(projection)
        for reactor in (self.portfolio.on_fact, self._on_fact, self.kill_switch.on_fact, self.executor.on_fact, self.strategies.on_fact,
                        self.validation.on_fact, self.learning.on_fact, *plan.observers):
            journal.react(reactor)

    # -- small plumbing ---------------------------------------------------------------------------------------------------

    def _on_kept_bar(self, symbol: str, bar: Bar, at: int) -> None:
        assert self.plan.candles is not None
        self.plan.candles.append(symbol, self.market.series[symbol].interval_ms, (bar,))
        self.strategies.on_bar(symbol, bar, at)

    def _on_fact(self, fact: Fact) -> None:
        """Something happened: ticks look again. Money moved: the class is marked anew after this batch even if it now holds nothing."""
        self.clock.stir()
        asset_class = getattr(fact, "asset_class", None)
        if asset_class is not None:
            self._dirty.add(asset_class)
        elif (fill := getattr(fact, "fill", None)) is not None:
            instrument = self.market.instrument(fill.symbol)
            if instrument is not None:
                self._dirty.add(instrument.asset_class)

    def _barred(self) -> Collection[str]:
        """Where nothing is opened: by an operator's word, or because the rule that chooses instruments passed them over."""
        left_out = self.instruments.barred
        return {*self.desk.barred, *left_out} if left_out else self.desk.barred

    def _strategies_now(self) -> dict[AssetClass, list[Strategy]]:
        """What runs, with the parameters that are in force."""
        return {asset_class: [self.validation.running(one, asset_class) for one in listed]
                for asset_class, listed in self.runnable.items()}

    def _shadowed(self, at: int) -> None:
        """After every instant's decisions: what the shadows did goes on record, unless all that is left of the disk is for exits."""
        if not self.journal.low_space:
            self.learning.flush()

    def marked_equity(self, asset_class: AssetClass) -> Decimal | None:
        """The class's books at present marks; None while a mark is missing."""
        if not self.portfolio.holds(asset_class):
            return self.portfolio.ledger(asset_class).cash
        at = self.clock.now()
        return self.portfolio.equity(
            asset_class, lambda symbol: self.market.mark(symbol, at), self.market.settle_rate, self.market.instant(asset_class, at))

    def _money(self, asset_class: AssetClass) -> ClassMoney | None:
        """What the last veto asks of a class's money; None while any of it is unknown."""
        at = self.clock.now()
        equity = self.wallets.equity(asset_class)
        value = self.portfolio.market_value(
            asset_class, lambda symbol: self.market.mark(symbol, at), self.market.settle_rate, self.market.instant(asset_class, at))
        return None if equity is None or value is None else ClassMoney(equity, self.portfolio.margin(asset_class), value)

    def _mark(self, at: int) -> None:
        """After every instant: mark the classes that hold something or whose money moved."""
        positions, dirty = self.portfolio.positions, self._dirty
        if not positions and not dirty:
            return
        classes = {position.asset_class for position in positions.values()}
        if dirty:
            classes |= dirty
            dirty.clear()
        for asset_class in ASSET_CLASSES:
            if asset_class in classes:
                self.kill_switch.mark(asset_class, self.marked_equity(asset_class), at)

    # -- life -----------------------------------------------------------------------------------------------------------

    def remember(self) -> None:
        """Read the journal into every authority: what they know without any venue. Whatever learns from the past is there before."""
        readers = {venue: venue.reader() for venue in self.plan.venues.values() if isinstance(venue, Forgetful)}
        with collector.paused():
            self._remembered = self.journal.replay([reader.take for reader in readers.values()])
        failpoint.hit("start.replayed")
        for forgetful, reader in readers.items() if self._remembered else ():
            forgetful.recollect(reader.memory)

    async def start(self) -> None:
        """Remember, reach the venues, list, recover, reconcile, warm up: start and crash recovery are this one path. While venues are
        waited for a halt is heard: by command, and by its file."""
        if self._remembered is None:
            self.remember()
        if self.plan.arrive is None:
            with collector.paused():
                return await self._start(self.plan.references, self.plan.symbols)
        guard = asyncio.create_task(self.kill_switch.run(self.clock), name="Kill_Switch")
        work = asyncio.create_task(self._arrive(), name="start")
        try:
            await asyncio.wait((guard, work), return_when=asyncio.FIRST_COMPLETED)
            (work if work.done() else guard).result()
        finally:
            for task in (work, guard):
                task.cancel()
            await asyncio.gather(work, guard, return_exceptions=True)

    async def _arrive(self) -> None:
        assert self.plan.arrive is not None
        arrival = await self.plan.arrive()
        self.venues.update(arrival.venues)
        for venue in arrival.venues.values():
            if isinstance(venue, Forgetful) and self._remembered:
                self._remind(venue, self._remembered)
        await self._start(arrival.references, arrival.symbols, arrival.listed)
        self.instruments.begin(arrival.choosers, arrival.chosen, arrival.references.values(), self.clock.now())

    def _remind(self, venue: Forgetful, until: int) -> None:
        """Give a paper venue its past, as far as it was on record before this start."""
        reader = venue.reader()
        for seq, fact in self.journal.facts():
            if seq > until:
                break
            reader.take(fact)
        venue.recollect(reader.memory)

    async def _start(self, references: Mapping[AssetClass, str], symbols: frozenset[str] | None,
                     listed: Mapping[str, Sequence[Instrument]] = EMPTY) -> None:
        failpoint.hit("start.restored")
        at = self.clock.now()
        self.journal.append(DaemonStarted(at, self.plan.mode, VERSION, self.policies.hash))
        failpoint.hit("start.announced")
        self.validation.start(at)
        for name, venue in self.venues.items():
            self.instruments.list(venue, listed.get(name, ()) or await self._answered(venue.instruments), symbols)
        running = {(s.name, asset_class) for asset_class, listed in self.runnable.items() for s in listed}
        self.learning.challenge([one for one in self.plan.challengers if (one.name, one.asset_class) in running], at)
        self.strategies.attach(self.market, self._strategies_now(), references)
        self.validation.on_fitted = self.strategies.refit
        self.executor.recover(at)
        failpoint.hit("start.recovered")
        for venue in self.venues.values():
            await self._answered(partial(self.wallets.reconcile, venue))
            failpoint.hit("start.reconciled")
            if not venue.capabilities.in_process:
                await self._answered(partial(self.executor.protect, venue))
        self.started_at = at
        if all(isinstance(venue, PaperVenue) for venue in self.venues.values()):
            await self._warm_up(at)

    async def _answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What a venue says, asked again until it can be reached. A denial is not asked again."""
        waits = RETRY_HELD_S if self.executor.trades else RETRY_S
        for pause in chain(waits, repeat(waits[-1])):
            try:
                return await ask()
            except (VenueUnreachable, VenueBusy) as error:
                if self.plan.waits is None:
                    raise
                self.plan.waits(f"the start failed, again in {pause:g} s: {error}")
                await asyncio.sleep(pause)
                if isinstance(error, VenueBusy):
                    await self.clock.sleep_until(error.until)
        raise AssertionError("unreachable")

    async def _warm_up(self, at: int) -> None:
        await self.instruments.warm_up(tuple(self.venues.values()), at)
        self.strategies.trade_from(at)
        self.warm = True

    def reload(self, policies: Policies) -> None:
        """Take over a new set of policies between two decisions: all of it at once, for nothing here can fail.

        What costs are in simulation (`costs`), the switches (they live in the journal) and the correlation window wait for a restart.
        """
        self.policies = policies
        self.sizer.adopt(policies.sizing)
        self.risk.adopt(policies)
        self.kill_switch.adopt(policies.kill_switch)
        self.executor.adopt(policies)
        self.wallets.adopt(policies)
        self.strategies.adopt(policies)
        self.look.adopt(policies)
        self.validation.adopt(policies)
        self.learning.adopt(policies.learning, float(policies.risk.expected_r_per_confidence))
        self.news.adopt(policies.news)
        self.market.adopt(policies.risk, policies.kill_switch)
        self.clock.stir()

    def stop(self) -> None:
        """Ask for a graceful end: no new opening, working entries canceled, then out."""
        self.executor.stop_opening()
        self._stop.set()

    async def run(self) -> None:
        """Run until the feed ends (recorded data) or `stop`. Raises whatever a core task raised."""
        if not self.started_at:
            await self.start()
        async with asyncio.TaskGroup() as group:
            feed = group.create_task(self._feed(), name="Strategy_Manager")
            others = [
                group.create_task(self.wallets.run(), name="Wallet_Sync"),
                group.create_task(self.news.run(), name="News_Agent"),
                group.create_task(self.validation.run(self.clock), name="Validation_Manager"),
                group.create_task(self.learning.run(self.clock, self.plan.research), name="Learning_Agent"),
                group.create_task(self.sizer.run(self.clock, self.wallets.equity, self.classes, self.portfolio.holds), name="Sizer"),
                group.create_task(self.kill_switch.run(self.clock), name="Kill_Switch"),
                group.create_task(self.instruments.run(self.venues), name="Instrument_Selector"),
                group.create_task(self.clock.drive(WATCH_S, self.market.watch), name="Market_Data"),
                group.create_task(self.executor.run(), name="Trade_Executor"),
            ]
            stopping = asyncio.create_task(self._stop.wait(), name="stop")
            await asyncio.wait((feed, stopping), return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                feed.cancel()
                await self._wind_down()
            stopping.cancel()
            for task in others:
                task.cancel()
        self.journal.flush()
        self.decisions.flush()

    async def _feed(self) -> None:
        if not self.warm:
            await self._warm_up(self.clock.now())
        await self.strategies.run(self.market, tuple(self.venues.values()))

    async def _wind_down(self) -> None:
        """Cancel what would open; protective stops stay at the venue."""
        failpoint.hit("stop.before")
        self.executor.cancel_entries(lambda _: True, "shutting down")
        for _ in range(int(SHUTDOWN_S / 0.05)):
            if not any(r.state in WORKING and r.order.purpose is Purpose.ENTRY for r in self.executor.orders.values()):
                return
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Leave the venues, and close the files whether or not those let us go."""
        closing = {asyncio.create_task(venue.close(), name=name) for name, venue in self.venues.items()}
        try:
            _, hanging = await asyncio.wait(closing, timeout=CLOSE_S) if closing else (closing, set[asyncio.Task[None]]())
            for task in hanging:
                task.cancel()
            for task in closing - hanging:
                task.result()
        finally:
            self.decisions.close()
            self.journal.close()
