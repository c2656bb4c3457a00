"""`trade`: the daemon's life as a process. Lock, journal, signals, control socket, log, console; then it runs until SIGTERM.

Order matters: the lock before anything is written; signals before the start, so that it can be stopped during a long replay; peripherals
(socket, console, watchdog) last and supervised, so that none of them can end trading.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

import config
import main
from modules import Logger_Config
from modules.cli import channels, inputs, page
from modules.cli.chat_reports import ChatReports
from modules.cli.page import Pictures
from modules.cli.reports import Reports
from modules.domain.errors import ConfigurationError, JournalUnwritable, OperatorRefused, VenueBusy, VenueUnreachable
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.domain.sessions import iso
from modules.domain.settings import Settings
from modules.learning import challenge
from modules.news import calendar
from modules.news import setup as news_setup
from modules.news.calendar import Calendar
from modules.notify.console import Console, opening_lines
from modules.notify.problems import ProblemWatch
from modules.notify.render import FactLogger
from modules.runtime import collector, lifesigns
from modules.runtime.clock import WallClock
from modules.runtime.control import ControlServer
from modules.runtime.supervise import attempt, keep_running
from modules.store.decisions import Decisions
from modules.store.journal import Journal
from modules.store.lock import StateFolder
from modules.venues.demo_market import DemoMarket

if TYPE_CHECKING:
    from modules.cli import market
    from modules.domain.events import Fact
    from modules.notify.web import WebPage

log = structlog.get_logger("trade")
T = TypeVar("T")
KEEP_DECISIONS_MS: Final = 90 * 86_400_000
FLUSH_S: Final = 5.0
RETRY_S: Final = (2.0, 5.0, 10.0, 30.0, 60.0)
"""Waits between attempts to start where a venue did not answer in the middle of it; the last one repeats."""
PARTING_S: Final = 2.0
"""What a channel may take for its last words; the whole end must not take ten."""


def run(arguments: argparse.Namespace) -> int:
    settings, policies = inputs.settings_and_policies(
        arguments, mode=arguments.mode, demo__speed=arguments.speed, demo__seed=arguments.seed)
    if settings.mode != "demo":
        from modules.cli import market  # what talks to venues is loaded where there are venues

        market.check(settings)
    strategies = inputs.strategies(settings)
    events = calendar.load(settings.policy_dir / "macro_calendar.json", policies.news)
    Logger_Config.configure(settings.log_dir, console=not sys.stdout.isatty())
    with ExitStack() as held:
        folder = held.enter_context(StateFolder(inputs.state_folder(settings)))
        if settings.mode == "live":
            market.lock_accounts(settings, held)
            _permitted(settings, policies)
        for pause in chain(RETRY_S, repeat(RETRY_S[-1])):
            try:
                with Journal(folder.journal) as journal:
                    return _Process(
                        arguments, settings, policies, folder, journal, strategies, Calendar(events[0], policies.news, events[1])).run()
            except (VenueUnreachable, VenueBusy) as error:  # while it started: what runs waits out such things by itself
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the loop that had it is gone
                words = f"the start failed, again in {pause:g} s: {error}"
                log.error(words)
                print(words, file=sys.stderr, flush=True)
                if asyncio.run(_stopped_within(pause, arguments.sd_notify)):
                    return 0
        raise AssertionError("unreachable")


async def _stopped_within(seconds: float, watched: bool) -> bool:
    """Wait; whether it was told to stop meanwhile."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    alive = asyncio.create_task(lifesigns.watchdog()) if watched else None
    try:
        async with asyncio.timeout(seconds):
            return await stop.wait()
    except TimeoutError:
        return False
    finally:
        if alive is not None:
            alive.cancel()


def _permitted(settings: Settings, policies: Policies) -> None:
    """Raises ConfigurationError where nothing may be opened and nothing is open; says on stderr what will not be."""
    from modules.cli import permits

    gate = permits.gate(settings, policies, WallClock().now())
    if gate.refused:
        raise ConfigurationError(list(gate.refused))
    for words in gate.warned:
        print(words, file=sys.stderr)


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel peripherals; one that will not end keeps nobody from ending."""
    for task in tasks:
        task.cancel()
    if tasks:
        _, hanging = await asyncio.wait(tasks, timeout=PARTING_S)
        for task in hanging:
            log.error(f"{task.get_name()} does not end; gone on without it", action="stop")


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


def _same_market(folder: StateFolder, seed: int) -> None:
    """A journal goes on in the market it began in. Raises ConfigurationError for another seed."""
    path = folder.path / "demo_seed"
    known = path.read_text(encoding="ascii").strip() if path.exists() else ""
    if known and known != str(seed):
        raise ConfigurationError([f"demo.seed = {seed}: {folder.path} holds the books of market {known}; go on with --seed {known}, or "
                                  "give this one another state_dir"])
    path.write_text(f"{seed}\n", encoding="ascii")


class _Process:
    """One daemon and everything around it that is not trading."""

    daemon: main.Daemon
    """There once the venues have answered."""

    def __init__(self, arguments: argparse.Namespace, settings: Settings, policies: Policies, folder: StateFolder, journal: Journal,
                 strategies: Any, events: Calendar) -> None:
        self._arguments = arguments
        self._settings = settings
        self._policies = policies
        self._folder = folder
        self._journal = journal
        self._strategies = strategies
        self._events = events
        self._lag = lifesigns.LoopLag()
        self._logger = FactLogger(settings.mode)
        self._console: Console | None = None
        self._decisions = Decisions(folder.decisions)
        self._pictures = Pictures(folder)
        self._told_to_stop = asyncio.Event()
        self._built = False
        self._ready = False
        self._waiting = "connecting"
        source = DemoMarket(settings.demo.seed, None) if settings.mode == "demo" else None
        if source is not None:
            _same_market(folder, settings.demo.seed)
            self._clock = WallClock(settings.demo.speed, max(source.start, main.resume_at(journal) or 0))
        else:
            self._clock = WallClock()
        self._source = source

    def _plan(self, opened: market.Market | None) -> main.Plan:
        settings, folder = self._settings, self._folder
        demo = settings.mode == "demo"
        common: dict[str, Any] = {
            "mode": settings.mode, "policies": self._policies, "clock": self._clock, "journal": self._journal,
            "decisions": self._decisions, "strategies": self._strategies, "halt_file": folder.halt_file,
            "news": news_setup.from_settings(settings.news, folder.path), "blacklist": settings.pair_blacklist,
            "whitelist": settings.pair_whitelist, "observers": (self._logger.on_fact, self._show),
            "after_batch": (self._count_bars, self._sample), "on_decision": self._logger.on_decision, "candles": self._pictures.candles,
            "certificates": settings.state_dir / "certificates", "trials": settings.state_dir / "validation",
            "revalidate": self._validation_command, "drift": None if demo else self._drift_command(),
            "research": None if demo else self._research_command, "learning": folder.path / "learning",
            "challengers": challenge.load(folder.path / "learning"), "announce": self._announce}
        if opened is not None:
            return main.Plan(
                venues=opened.venues, venue_of=opened.venue_of, settlement=opened.settlement, allocate=opened.allocate,
                references=opened.references, calendar=self._events, symbols=opened.symbols, **common)
        assert self._source is not None
        return main.simulated_plan(
            self._source, wallets={c: settings.dry_run_wallet[c] for c in AssetClass},
            calendar=Calendar(self._source.macro_events, self._policies.news, covered_until={}), **common)

    def _build(self, opened: market.Market | None) -> None:
        """Everything there is to a daemon, now that it is known where it trades."""
        settings = self._settings
        self._heard: list[Callable[[str], None]] = []
        self._early: list[str] = []
        """What was announced before there was a console."""
        self.daemon = main.Daemon(self._plan(opened))
        self._built = True
        self._journal.project(self._logger.learn)
        self._reports = Reports(self.daemon, lag=self._lag.p99_ms)
        chat = ChatReports(self.daemon, self._reports, settings, main.VERSION, self._pictures.curve, settings.log_dir / "trading_bot.json")
        self.daemon.desk.attach(chat.all() | self._reports.all())
        self.daemon.desk.reloads(self._fresh_policies)
        self._partings: list[channels.Parting] = []
        self._channels = channels.build(settings, self.daemon, self._reports, self._next_event, self._heard, self._partings)
        self._page = self._web_page() if settings.http.enabled else None

    def _validation_command(self, strategy: str, asset_class: str) -> list[str]:
        """This program again, in a process of its own, with the same settings."""
        files = [word for path in inputs.files(self._arguments) for word in ("--config", str(path))]
        heard = self._folder.path / news_setup.FILE
        news = ["--news", str(heard)] if self._settings.news.enabled and heard.is_file() else []
        return [sys.executable, str(main.__file__), "validate", *files, "--strategy", strategy, "--classes", asset_class.lower(), *news,
                "--workers", "1", "--json"]

    def _drift_command(self) -> list[str]:
        """What compares this daemon's decisions with a replay of the bars it saw."""
        files = [word for path in inputs.files(self._arguments) for word in ("--config", str(path))]
        return [sys.executable, str(main.__file__), "drift", *files, "--warm", "--json"]

    def _research_command(self, strategy: str, asset_class: str) -> list[str]:
        """The same for a search in sample that may put a challenger on the list, over the history its certificate was earned on; empty for
        a strategy that never had one: there is no telling which history would be its own."""
        standing = self.daemon.validation.standings(self.daemon.clock.now()).get((strategy, AssetClass(asset_class)))
        if standing is None or not standing.certificate.source:
            return []
        command = self._validation_command(strategy, asset_class)
        return [*(word if word != "validate" else "optimize" for word in command), "--data", standing.certificate.source, "--challenge"]

    def run(self) -> int:
        """Until it is told to stop: 0. A journal that takes nothing more ends it: nothing may leave that is not on record."""
        faults: list[str] = []
        try:
            asyncio.run(self._life())
        except* JournalUnwritable as errors:
            faults.extend(map(str, _leaves(errors)))
        for fault in faults:
            log.critical("ended: the journal cannot be written", reason=fault)
            print(fault, file=sys.stderr)
        return 1 if faults else 0

    async def _life(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, signal.Signals(number).name)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        early = [asyncio.create_task(self._keep(name, work), name=name) for name, work in self._from_the_first().items()]
        try:
            if await self._began():
                await self._trade()
        finally:
            await _ended(early)

    async def _trade(self) -> None:
        self._console = Console(lambda: self._reports.status({}), self._opening)
        for words in self._early:
            self._console.tell(words, self.daemon.clock.now())
        tasks = [asyncio.create_task(self._keep(name, work), name=name) for name, work in self._peripherals().items()]
        fault = "the daemon was cut off"
        try:
            await self.daemon.run()
            fault = ""
        except BaseExceptionGroup as errors:
            fault = str(_leaves(errors)[0]) or type(_leaves(errors)[0]).__name__
            raise
        finally:
            lifesigns.notify("STOPPING=1")
            await self._part(fault)
            await _ended(tasks)
            self._pictures.close()
            await self.daemon.close()

    async def _began(self) -> bool:
        """Reach the venues and start the daemon. False = told to stop before it was there: nothing has been traded then."""
        began, opened = False, None
        try:
            if self._settings.mode != "demo":
                from modules.cli import market

                opened = await self._unless_stopped(
                    market.opened(self._settings, self._policies, self._clock, self._journal, self._wait_for))
            if not self._told_to_stop.is_set():
                self._build(opened)
                with self._clock.held() if self._source is not None else nullcontext():
                    began = await self._unless_stopped(self._started()) is True
        finally:
            if not began:
                self._pictures.close()
                await (self.daemon.close() if self._built else self._closed(opened))
        collector.keep_for_good()
        self._ready = began
        return began

    def _wait_for(self, words: str) -> None:
        """Why it has not started yet: for who looks at the terminal, and for who asks."""
        self._waiting = words
        print(f"{words} (Ctrl-C ends)", file=sys.stderr, flush=True)

    async def _answer(self, command: str, arguments: Mapping[str, Any], by: str) -> Any:
        """The desk, or before there is one what the start waits for."""
        if self._ready:
            return await self.daemon.desk.answer(command, arguments, by)
        if command != "status":
            raise OperatorRefused(f"not started yet: {self._waiting}; to have it start halted: touch {self._folder.halt_file}")
        return {"mode": self._settings.mode, "running": False, "since": None, "at": iso(self._clock.now()), "classes": {}, "feeds": {},
                "wallet_age_s": None, "in_doubt": [], "loop_lag_ms_p99": None, "policy_hash": self._policies.hash,
                "problems": [f"not started yet: {self._waiting}"]}

    async def _started(self) -> bool:
        await self.daemon.start()
        return True

    async def _closed(self, opened: market.Market | None) -> None:
        for venue in opened.venues.values() if opened is not None else ():
            await venue.close()
        self._decisions.close()

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What `work` comes to, or None if it is told to stop before."""
        task, stopping = asyncio.create_task(work), asyncio.create_task(self._told_to_stop.wait())
        try:
            await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for one in (task, stopping):
                one.cancel()
            await asyncio.gather(task, stopping, return_exceptions=True)

    async def _part(self, fault: str) -> None:
        """The last message to the owner's phone: a daemon that ends without a word is taken for one that trades."""
        held = len(self.daemon.portfolio.trades)
        left = f"{held} open trade{'s keep their' if held != 1 else ' keeps its'} stops at the venue" if held else "nothing is open"
        words = f"The daemon ENDED by a fault: {fault} Nobody watches now; {left}." if fault else f"The daemon was stopped; {left}."
        for say in self._partings:
            await say(words, bad=bool(fault), within_s=PARTING_S)

    def _from_the_first(self) -> dict[str, Any]:
        """What runs while venues are waited for. A demo waits for nobody: who asks it finds it started or not there."""
        work: dict[str, Any] = {"watchdog": lifesigns.watchdog} if self._arguments.sd_notify else {}
        return work if self._source is not None else work | {"control socket": self._server().run}

    def _server(self) -> ControlServer:
        return ControlServer(self._folder.control_socket, self._answer)

    def _peripherals(self) -> dict[str, Any]:
        assert self._console is not None
        work: dict[str, Any] = {
            "console": self._console.run, "loop lag": self._lag.run, "decisions": self._flush,
            "problems": ProblemWatch(lambda: list(self._reports.status({})["problems"]), self._announce).run}
        if self._page is not None:
            work["web page"] = self._page.run
        if self._source is not None:
            work["control socket"] = self._server().run
        return work | self._channels

    def _web_page(self) -> WebPage:
        measured = page.metrics(self.daemon, self._reports, main.VERSION)
        self.daemon.journal.react(measured.on_fact)
        return page.server(self._settings.http, self.daemon, self._reports, self._pictures, measured)

    def _keep(self, name: str, work: Any) -> Coroutine[Any, Any, None]:
        return keep_running(name, work, lambda task, error, pause: log.error(
            f"{task} failed, again in {pause:g} s", reason=f"{type(error).__name__}: {error}"))

    # -- signals -------------------------------------------------------------------------------------------------------------

    def _stop(self, name: str) -> None:
        log.info("stopping: no new entries, working ones are canceled, stops stay", reason=name)
        self._told_to_stop.set()
        if self._built:
            self.daemon.stop()

    def _reload(self) -> None:
        """SIGHUP: tighter policies at once, looser ones never (nobody confirmed them), faulty ones change nothing."""
        if not self._built:
            log.warning("policies not reloaded: the daemon has not started yet; it starts with those it read")
            return
        try:
            loosened, adopt = self._fresh_policies()
        except ConfigurationError as error:
            log.error("policies not reloaded: the last good set stays in force", reason="; ".join(error.faults))
            return
        if loosened:
            log.error("policies not reloaded: they loosen limits, which needs a restart or a confirmed reload; nothing was changed",
                      reason="; ".join(loosened))
            return
        adopt()

    def _fresh_policies(self) -> tuple[list[str], Callable[[], None]]:
        """What the policy files as they are now would loosen, and how to take them over. Raises ConfigurationError."""
        fresh = inputs.tightened(self._settings, config.load_policies(self._settings.policy_dir))

        def adopt() -> None:
            self.daemon.reload(fresh)
            log.warning("policies reloaded", policy_hash=fresh.hash)

        return list(config.tighter(self.daemon.policies, fresh)), adopt

    # -- observers ----------------------------------------------------------------------------------------------------------

    def _show(self, fact: Fact) -> None:
        if self._console is not None:
            self._console.on_fact(fact)

    def _announce(self, words: str) -> None:
        """A certificate runs out, the gate is weakened: to the console and to every channel. Whoever fails does not stop the others."""
        for tell in self._heard:
            _, error = attempt(tell, words)
            if error is not None:
                log.error("a channel failed to announce", reason=f"{type(error).__name__}: {error}")
        if self._console is not None:
            self._console.tell(words, self.daemon.clock.now())
        else:
            self._early.append(words)

    def _opening(self) -> list[str]:
        return opening_lines(self._reports.status({}), self.daemon.policies, next_event=self._next_event())

    def _next_event(self) -> str:
        at = self.daemon.clock.now()
        coming = next((window for window in self.daemon.plan.calendar.windows if window.event.at > at), None)
        return "" if coming is None else f"{coming.event.kind} {iso(coming.event.at)[:16].replace('T', ' ')} UTC"

    def _sample(self, at: int) -> None:
        self._pictures.sample(self.daemon, at)

    def _count_bars(self, at: int) -> None:
        self.daemon.strategies.count_bars(at)

    async def _flush(self) -> None:
        """Decisions reach the disk in small batches, and those older than three months go."""
        pruned_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(FLUSH_S)
            self._decisions.flush()
            self._pictures.flush()
            if self.daemon.journal.regain_space():
                log.warning("there is room on the disk again: entries are open again")
            if loop.time() - pruned_at > 3600.0:
                pruned_at = loop.time()
                self._decisions.prune(self.daemon.clock.now() - KEEP_DECISIONS_MS)
                self._pictures.prune(self.daemon.clock.now())

