"""Reads the settings, builds every authority once, replays, reconciles and runs. The only wiring; the command line starts here.

One asyncio event loop drives Wallet_Sync, News_Agent, Strategy_Manager, Sizer, Kill_Switch and Trade_Executor as cooperating coroutines
that share one in-process Portfolio_Manager. An error in any of them leaves through the TaskGroup and ends the process.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the daemon's own imports: `version`, `status` and `--help` answer without them
    import signal

    if sys.argv[1:2] in ([], ["trade"]) or sys.argv[1].startswith("-"):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # a daemon told to end while it still loads ends in good order
    from modules.cli.app import run

    sys.exit(run(sys.argv[1:]))

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from modules.backtest.replay import Recorder
from modules.domain.errors import VenueDenied, VenueError
from modules.domain.events import DaemonStarted, Fact
from modules.domain.instrument import ASSET_CLASSES, AssetClass, Instrument
from modules.domain.market import Bar
from modules.domain.order import WORKING, Purpose
from modules.domain.policies import Policies
from modules.Funds_Controller import FundsController
from modules.Kill_Switch import KillSwitch
from modules.learning.challenge import Challenger, strategy_of
from modules.learning.shadow import terms_of
from modules.Learning_Agent import LearningAgent
from modules.Market_Data import MarketData
from modules.News_Agent import NewsAgent
from modules.Operator_Desk import OperatorDesk
from modules.Portfolio_Manager import PortfolioManager
from modules.Risk_Management import ClassMoney, RiskManagement
from modules.runtime import collector, failpoint
from modules.runtime.clock import VirtualClock, VirtualLoop
from modules.Sizer import Sizer
from modules.store.decisions import Decisions
from modules.store.journal import Journal
from modules.Strategy_Manager import StrategyManager
from modules.Trade_Executor import TradeExecutor
from modules.Validation_Manager import ValidationManager
from modules.venues.paper_restore import Forgetful
from modules.venues.paper_venue import PaperVenue
from modules.View_Builder import ViewBuilder
from modules.Wallet_Sync import WalletSync

if TYPE_CHECKING:
    from modules.domain.decision import Decision
    from modules.news.calendar import Calendar
    from modules.news.setup import Setup
    from modules.runtime.clock import Clock
    from modules.store.candles import Candles
    from modules.strategies.protocol import Strategy
    from modules.venues.protocol import MarketSource, Venue

log = structlog.get_logger("main")

VERSION: Final = "0.1.0"
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
HISTORY_MS: Final = 31 * DAY_MS
"""How much past the correlation filter wants at start."""
PICTURED: Final = 200
"""Bars of it that are kept for pictures."""
SHUTDOWN_S: Final = 8.0
ASKED_TOGETHER: Final = 4
"""Pasts that are asked for at a time."""
HISTORY_RETRY_S: Final = (1.0, 5.0, 15.0)
"""Waits after each failed attempt to learn a symbol's past."""
WATCH_S: Final = 5.0
"""How often feeds are looked at for silence."""


@dataclass(frozen=True)
class Plan:
    """What a daemon is to run with; built by the command line from settings, policies and a price source."""

    mode: str
    policies: Policies
    clock: Clock
    journal: Journal
    decisions: Decisions
    venues: Mapping[str, Venue]
    venue_of: Mapping[AssetClass, str]
    settlement: Mapping[AssetClass, str]
    allocate: Mapping[AssetClass, Decimal | None]
    strategies: Mapping[AssetClass, Sequence[Strategy]]
    references: Mapping[AssetClass, str]
    calendar: Calendar
    news: Setup | None = None
    """Feeds to ask or a recording to replay; None = no headlines, the calendar alone."""
    halt_file: Path | None = None
    symbols: frozenset[str] | None = None
    """What is traded of all that the venues list; None = everything (simulated markets, where nothing else is listed)."""
    blacklist: Sequence[str] = ()
    whitelist: Sequence[str] = ()
    observers: Sequence[Callable[[Fact], None]] = field(default_factory=tuple)
    """Called with every new fact after every authority has seen it: log, console, recorder."""
    after_batch: Sequence[Callable[[int], None]] = field(default_factory=tuple)
    on_decision: Callable[[Decision], None] | None = None
    candles: Candles | None = None
    """Where closed bars are kept for pictures; None = nowhere."""
    certificates: Path | None = None
    """Folder of the certificates; None = nothing is permitted real money."""
    drift: Sequence[str] | None = None
    """The command that compares what was decided with a replay of the same bars and prints it as JSON; None = nobody compares."""
    trials: Path | None = None
    """Folder of the trial registries that certificates were counted in; None = nobody looks."""
    research: Callable[[str, str], Sequence[str]] | None = None
    """(strategy, asset class) -> the command that searches better parameters in sample; None = nobody searches."""
    learning: Path | None = None
    """Folder for the learner's state as a file; None = the journal alone."""
    challengers: Sequence[Challenger] = ()
    """Re-optimized parameters that trade in their champions' shadow."""
    revalidate: Callable[[str, str], Sequence[str]] | None = None
    """(strategy, asset class) -> the command that validates it and prints its verdict as JSON; None = nobody revalidates."""
    announce: Callable[[str], None] | None = None
    """Told what an owner should hear that is no fact: a certificate running out, a weakened gate."""


class Daemon:
    """Every authority, wired. `await run()` is the whole life of the process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.live = plan.mode == "live"
        journal, policies, clock = plan.journal, plan.policies, plan.clock
        self.journal, self.policies, self.clock, self.decisions = journal, policies, clock, plan.decisions
        self.portfolio = PortfolioManager(journal=journal, settlement=plan.settlement)
        self.funds = FundsController(journal=journal, policy=policies.funds, allocate=plan.allocate)
        self.kill_switch = KillSwitch(
            journal=journal, policy=policies.kill_switch, equity=self.marked_equity, halt_file=plan.halt_file,
            venues={name: frozenset(c for c, at in plan.venue_of.items() if at == name) for name in plan.venues})
        self.sizer = Sizer(policies.sizing, policies.costs, journal)
        self.risk = RiskManagement(
            journal, policies, self.kill_switch, self.funds, money=self._money, live=self.live)
        self.market = MarketData(
            journal=journal, risk=policies.risk, kill_switch=policies.kill_switch, costs=policies.costs,
            after_batch=(self._mark, self._shadowed, *plan.after_batch), patience=clock.speed)
        self.executor = TradeExecutor(
            journal=journal, clock=clock, venues=plan.venues, risk=self.risk, kill_switch=self.kill_switch, market=self.market,
            positions=self.portfolio.positions, policy=policies.execution, kill_policy=policies.kill_switch, costs=policies.costs)
        self.wallets = WalletSync(
            journal=journal, clock=clock, venues=plan.venues, venue_of=plan.venue_of, portfolio=self.portfolio, funds=self.funds,
            kill_switch=self.kill_switch, market=self.market, policy=policies.execution, worth=self.marked_equity)
        self.wallets.attach(self.executor)
        self.news = NewsAgent(journal=journal, clock=clock, calendar=plan.calendar, policy=policies.news, setup=plan.news)
        self.runnable = _with_challengers(plan.strategies, plan.challengers)
        """What runs: the strategies, and the challengers in their shadow."""
        self.validation = ValidationManager(
            journal=journal, policies=policies, strategies=self.runnable, folder=plan.certificates, command=plan.revalidate,
            announce=plan.announce, trials=plan.trials, drift=plan.drift)
        self.learning = LearningAgent(
            journal=journal, policy=policies.learning, full_r=float(policies.risk.expected_r_per_confidence),
            strategies={asset_class: [s.name for s in listed] for asset_class, listed in plan.strategies.items()},
            terms=terms_of(policies), certified=self.validation.certified, folder=plan.learning)
        self.look = ViewBuilder(
            live=self.live, policies=policies, market=self.market, portfolio=self.portfolio, kill_switch=self.kill_switch, funds=self.funds,
            risk=self.risk, wallets=self.wallets, executor=self.executor, news=self.news, validation=self.validation,
            venue_of=plan.venue_of, blacklist=plan.blacklist, whitelist=plan.whitelist, barred=lambda: self.desk.barred,
            learning=self.learning)
        self.strategies = StrategyManager(
            clock=clock, policies=policies, look=self.look, sizer=self.sizer, risk=self.risk, executor=self.executor,
            decisions=plan.decisions, on_decision=plan.on_decision, learning=self.learning)
        self.market.on_bar = self.strategies.on_bar if plan.candles is None else self._on_kept_bar
        self.desk = OperatorDesk(
            journal=journal, clock=clock, kill_switch=self.kill_switch, funds=self.funds, risk=self.risk, executor=self.executor,
            wallets=self.wallets, venues=plan.venues)
        self.classes = tuple(asset_class for asset_class in ASSET_CLASSES if asset_class in plan.settlement)
        """What is traded, in the order of AssetClass."""
        self._dirty: set[AssetClass] = set(AssetClass)
        self._stop = asyncio.Event()
        self.started_at = 0
        self._listed: dict[str, list[str]] = {}
        """Venue -> the series it streams."""
        self.warm = False
        """The strategies have seen the past: from now on they decide."""
        # Projections in a fixed order: the books first, then what stands on them. Reactors likewise.
        for projection in (self.portfolio.apply, self.funds.apply, self.kill_switch.apply, self.executor.apply, self.wallets.apply,
                           self.strategies.apply, self.risk.apply, self.sizer.apply, self.news.apply, self.desk.apply,
                           self.validation.apply, self.learning.apply):
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

    async def start(self) -> None:
        """Replay, list, recover, reconcile, warm up: start and crash recovery are this one path."""
        with collector.paused():
            await self._start()

    async def _start(self) -> None:
        readers = {venue: venue.reader() for venue in self.plan.venues.values() if isinstance(venue, Forgetful)}
        known = self.journal.replay([reader.take for reader in readers.values()])
        failpoint.hit("start.replayed")
        for forgetful, reader in readers.items() if known else ():
            forgetful.recollect(reader.memory)
        failpoint.hit("start.restored")
        at = self.clock.now()
        self.journal.append(DaemonStarted(at, self.plan.mode, VERSION, self.policies.hash))
        failpoint.hit("start.announced")
        self.validation.start(at)
        for venue in self.plan.venues.values():
            traded = self._traded(await venue.instruments())
            self.market.list_instruments(traded, venue.interval_ms)
            self._listed[venue.name] = [one.symbol for one in traded if one.symbol in self.market.series]
        running = {(s.name, asset_class) for asset_class, listed in self.runnable.items() for s in listed}
        self.learning.challenge([one for one in self.plan.challengers if (one.name, one.asset_class) in running], at)
        self.strategies.attach(self.market, {asset_class: [self.validation.running(one, asset_class) for one in listed]
                                             for asset_class, listed in self.runnable.items()}, self.plan.references)
        self.validation.on_fitted = self.strategies.refit
        self.executor.recover(at)
        failpoint.hit("start.recovered")
        for venue in self.plan.venues.values():
            await self.wallets.reconcile(venue)
            failpoint.hit("start.reconciled")
            if not venue.capabilities.in_process:
                await self.executor.protect(venue)
        self.started_at = at
        if all(isinstance(venue, PaperVenue) for venue in self.plan.venues.values()):
            await self._warm_up(at)

    def _traded(self, listed: Sequence[Instrument]) -> Sequence[Instrument]:
        symbols = self.plan.symbols
        return listed if symbols is None else [instrument for instrument in listed if instrument.symbol in symbols]

    async def _warm_up(self, at: int) -> None:
        """The past, for the market's books and the strategies. Over a wire it takes a while: what is held is looked after meanwhile."""
        for venue in self.plan.venues.values():
            await self._warm(venue, at)
        failpoint.hit("start.warmed")
        self.market.returns.prepare()
        self.strategies.trade_from(at)
        self.warm = True

    async def _history(self, venue: Venue, symbol: str, at: int) -> Sequence[Bar]:
        """All the past that is wanted of a symbol. Where a venue does not tell it even when asked again there is none: its strategies then
        open nothing until they have seen enough."""
        bars = HISTORY_MS // venue.interval_ms(symbol)
        for pause in HISTORY_RETRY_S:
            try:
                return await venue.history(symbol, at, bars)
            except VenueError as error:
                log.warning("no history yet", action="warm_up", symbol=symbol, reason=str(error))
                if isinstance(error, VenueDenied):
                    break  # asking again would only keep the other venues waiting
                await asyncio.sleep(pause)
        return ()

    async def _pasts(self, venue: Venue, at: int) -> AsyncIterator[tuple[str, Sequence[Bar]]]:
        """Every series' past; over a wire several are asked for at a time, for most of that is waiting."""
        symbols = self._listed[venue.name]
        together = 1 if isinstance(venue, PaperVenue) else ASKED_TOGETHER
        for first in range(0, len(symbols), together):
            some = symbols[first:first + together]
            if together == 1:
                pasts = [await self._history(venue, some[0], at)]
            else:
                pasts = await asyncio.gather(*(self._history(venue, symbol, at) for symbol in some))
            for symbol, bars in zip(some, pasts, strict=True):
                yield symbol, bars

    async def _warm(self, venue: Venue, at: int) -> None:
        """Show the past to the market's books and, as much as they need of it, to the strategies."""
        async for symbol, bars in self._pasts(venue, at):
            series = self.market.series[symbol]
            needed = max((runner.strategy.warmup for runner in self.strategies.runners.get(symbol, ())), default=0)
            first = max(0, len(bars) - max(needed, DAY_MS // series.interval_ms))
            self.market.remember(symbol, bars[:first])
            if self.plan.candles is not None:
                self.plan.candles.append(symbol, series.interval_ms, bars[-PICTURED:])
            for bar in bars[first:]:
                if self.market.take(symbol, bar):
                    self.strategies.warm(symbol, bar)

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
        await self.strategies.run(self.market, tuple(self.plan.venues.values()))

    async def _wind_down(self) -> None:
        """Cancel what would open; protective stops stay at the venue."""
        failpoint.hit("stop.before")
        self.executor.cancel_entries(lambda _: True, "shutting down")
        for _ in range(int(SHUTDOWN_S / 0.05)):
            if not any(r.state in WORKING and r.order.purpose is Purpose.ENTRY for r in self.executor.orders.values()):
                return
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        for venue in self.plan.venues.values():
            await venue.close()
        self.decisions.close()
        self.journal.close()


def _with_challengers(
    strategies: Mapping[AssetClass, Sequence[Strategy]], challengers: Sequence[Challenger],
) -> dict[AssetClass, tuple[Strategy, ...]]:
    """Every class's strategies and, after them, the challengers of those among them."""
    found = {}
    for asset_class, listed in strategies.items():
        known = {strategy.name: strategy for strategy in listed}
        made = (strategy_of(one, known) for one in challengers if one.asset_class is asset_class)
        found[asset_class] = (*listed, *(one for one in made if one is not None))
    return found


def simulated_plan(
    source: MarketSource, *, mode: str, policies: Policies, clock: Clock, journal: Journal, decisions: Decisions,
    wallets: Mapping[AssetClass, Decimal], calendar: Calendar, strategies: Mapping[AssetClass, Sequence[Strategy]],
    halt_file: Path | None = None, blacklist: Sequence[str] = (), whitelist: Sequence[str] = (),
    observers: Sequence[Callable[[Fact], None]] = (), after_batch: Sequence[Callable[[int], None]] = (),
    on_decision: Callable[[Decision], None] | None = None, news: Setup | None = None, candles: Candles | None = None,
    certificates: Path | None = None, trials: Path | None = None, revalidate: Callable[[str, str], Sequence[str]] | None = None,
    drift: Sequence[str] | None = None, research: Callable[[str, str], Sequence[str]] | None = None,
    learning: Path | None = None, challengers: Sequence[Challenger] = (), announce: Callable[[str], None] | None = None,
) -> Plan:
    """A daemon on the paper venue over simulated prices: the demo market or recorded data, virtual time or the wall's."""
    currencies = settlement_currencies(source.instruments, wallets, source.option_currency)
    venue = PaperVenue(source, clock, policies.costs, wallets, currencies)
    return Plan(
        mode=mode, policies=policies, clock=clock, journal=journal, decisions=decisions, venues={venue.name: venue},
        venue_of=dict.fromkeys(wallets, venue.name), settlement=currencies, allocate=dict.fromkeys(wallets), strategies=strategies,
        references=reference_series(source.instruments), calendar=calendar, halt_file=halt_file, blacklist=blacklist, whitelist=whitelist,
        observers=observers, after_batch=after_batch, on_decision=on_decision, news=news,
        candles=candles, certificates=certificates, trials=trials, revalidate=revalidate, drift=drift,
        research=research, learning=learning, challengers=challengers, announce=announce,
    )


def resume_at(journal: Journal) -> int | None:
    """Where a simulated market's time goes on after a restart: UTC ms of the latest fact, None for a new journal."""
    return journal.latest_at


def settlement_currencies(instruments: Sequence[Instrument], classes: Iterable[AssetClass], options: str | None) -> dict[AssetClass, str]:
    """The currency most of a class's instruments settle in; of option contracts, which are listed later, the source says it: `options`."""
    found: dict[AssetClass, str] = {}
    for asset_class in classes:
        settles = Counter(i.settle for i in instruments if i.asset_class is asset_class)
        listed = settles.most_common(1)[0][0] if settles else "USD"
        found[asset_class] = options if asset_class is AssetClass.OPTION and options is not None else listed
    return found


def reference_series(instruments: Sequence[Instrument]) -> dict[AssetClass, str]:
    """The leader each class's strategies may look at: bitcoin for crypto (options: its perpetual), EUR/USD for forex."""
    found: dict[AssetClass, str] = {}
    for asset_class, underlying in ((AssetClass.SPOT, "BTC"), (AssetClass.PERP, "BTC"), (AssetClass.FOREX, "EUR/USD")):
        symbol = next((i.symbol for i in instruments if i.asset_class is asset_class and i.underlying == underlying), None)
        if symbol is not None:
            found[asset_class] = symbol
    leader = found.get(AssetClass.PERP, found.get(AssetClass.SPOT))
    if leader is not None:
        found[AssetClass.OPTION] = leader
    return found


@dataclass(frozen=True)
class Simulation:
    """A finished run: the daemon as it stands at the end, and what was recorded on the way."""

    daemon: Daemon
    recorder: Recorder
    venue: PaperVenue
    bars: int
    wall_s: float
    differences: int


def simulate(
    source: MarketSource, *, policies: Policies, wallets: Mapping[AssetClass, Decimal], calendar: Calendar,
    strategies: Mapping[AssetClass, Sequence[Strategy]], folder: Path, on_instant: Callable[[int], None] | None = None,
    news: Setup | None = None, blacklist: Sequence[str] = (), whitelist: Sequence[str] = (),
) -> Simulation:
    """Run the whole daemon over a finite source on virtual time. `folder` takes its journal and decisions; `on_instant` is for progress;
    `news` is a recording of headlines (a Setup without sources), decided on as they were seen; the lists are the owner's, as settings."""
    began = time.perf_counter()
    loop = VirtualLoop(source.start)
    try:
        asyncio.set_event_loop(loop)
        clock = VirtualClock(loop)
        journal = Journal(folder / "journal.sqlite", durable=False)
        decisions = Decisions(folder / "decisions.sqlite")
        recorder = Recorder(source.end - source.start)
        hour = 0

        def count_bars(at: int) -> None:
            nonlocal hour
            if at // HOUR_MS != hour:
                hour = at // HOUR_MS
                daemon.strategies.count_bars(at)

        plan = simulated_plan(
            source, mode="replay", policies=policies, clock=clock, journal=journal, decisions=decisions, wallets=wallets,
            calendar=calendar, strategies=strategies, observers=(recorder.on_fact,), on_decision=recorder.on_decision, news=news,
            blacklist=blacklist, whitelist=whitelist,
            after_batch=(recorder.after_batch, count_bars, *((on_instant,) if on_instant is not None else ())))
        daemon = Daemon(plan)
        recorder.attach(daemon.marked_equity, daemon.kill_switch.drawdown, daemon.kill_switch.nav, daemon.classes)
        (venue,) = plan.venues.values()
        assert isinstance(venue, PaperVenue)

        async def life() -> int:
            await daemon.run()
            recorder.sample(clock.now())
            daemon.strategies.count_bars(clock.now())
            return daemon.wallets.compare(venue.name, await venue.wallet())

        with collector.rarely():
            differences = loop.run_until_complete(life())
        bars = sum(daemon.market.bars_seen(asset_class) for asset_class in AssetClass)
        return Simulation(daemon, recorder, venue, bars, time.perf_counter() - began, differences)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
