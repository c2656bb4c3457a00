"""One daemon and everything around it that is not trading: signals, control socket, channels, web page, console, and the last words.

Order matters: signals before anything can take long; then whatever lets the owner see and stop it - control socket, Telegram, MQTT, web
page, the HALT file - before a venue is waited for, for that may take as long as an outage. All of it is supervised: none can end trading.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

import config
import main
from modules.cli import channels, inputs, page
from modules.cli.chat_reports import ChatReports
from modules.cli.page import Pictures
from modules.cli.planned import Commands, Watchers, planned
from modules.cli.reports import Reports
from modules.domain.certificate import Certificate
from modules.domain.errors import BotError, ConfigurationError, JournalUnwritable
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.domain.sessions import iso
from modules.domain.settings import Settings
from modules.news.calendar import Calendar
from modules.notify.console import Console, opening_lines
from modules.notify.problems import ProblemWatch
from modules.notify.render import FactLogger
from modules.runtime import collector, lifesigns
from modules.runtime.clock import WallClock
from modules.runtime.control import ControlServer
from modules.runtime.leaving import leave_after
from modules.runtime.supervise import attempt, keep_running
from modules.store.decisions import Decisions
from modules.store.journal import Journal
from modules.store.lock import StateFolder
from modules.venues.demo_market import DemoMarket

if TYPE_CHECKING:
    from modules.domain.events import Fact
    from modules.notify.web import WebPage
    from modules.strategies.protocol import Strategy

log = structlog.get_logger("trade")
T = TypeVar("T")
KEEP_DECISIONS_MS: Final = 90 * 86_400_000
FLUSH_S: Final = 5.0
GIVE_BACK_S: Final = 300.0
"""How often freed memory is handed back to the system."""
PARTING_S: Final = 2.0
"""What the channels may take for their last words; the whole end must not take ten (see main.SHUTDOWN_S)."""
LEAVE_S: Final = 1.0
"""What threads may take that nothing can cancel, when everything is on disk."""


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


class Process:
    """`run` is its whole life."""

    def __init__(self, arguments: argparse.Namespace, settings: Settings, policies: Policies, folder: StateFolder, journal: Journal,
                 strategies: Mapping[AssetClass, Sequence[Strategy]], events: Calendar) -> None:
        self._arguments = arguments
        self._settings = settings
        self._folder = folder
        self._lag = lifesigns.LoopLag()
        self._logger = FactLogger(settings.mode)
        self._console: Console | None = None
        self._decisions = Decisions(folder.decisions)
        self._pictures = Pictures(folder)
        self._told_to_stop = asyncio.Event()
        self._waiting = "connecting"
        """What the start waits for; "" = it has started."""
        self._told_of_waiting = False
        self._leaving: threading.Timer | None = None
        self._heard: list[Callable[[str], None]] = []
        """How each channel is told what is no fact."""
        self._early: list[str] = []
        """What was announced before there was a console."""
        self._partings: list[channels.Parting] = []
        self._greetings: list[Callable[[], None]] = []
        source = DemoMarket(settings.demo.seed, None) if settings.mode == "demo" else None
        self._source = source
        clock = WallClock() if source is None else WallClock(settings.demo.speed, max(source.start, main.resume_at(journal) or 0))
        self._clock = clock
        watchers = Watchers((self._logger.on_fact, self._show), (self._count_bars, self._sample), self._logger.on_decision, self._announce,
                            self._wait_for)
        self.daemon = main.Daemon(planned(
            settings, policies, clock, folder, journal, self._decisions, self._pictures, strategies, events, source,
            Commands(arguments, settings, folder, self._certificate), watchers))
        journal.project(self._logger.learn)
        self._reports = Reports(self.daemon, lag=self._lag.p99_ms, judged=self._lag.judged_ms, waiting=lambda: self._waiting)
        chat = ChatReports(self.daemon, self._reports, settings, main.VERSION, self._pictures.curve, settings.log_dir / "trading_bot.json")
        self.daemon.desk.attach(chat.all() | self._reports.all())
        self.daemon.desk.reloads(self._fresh_policies)
        self.daemon.desk.waiting = lambda: self._waiting
        self._channels = channels.build(settings, self.daemon, self._reports, self._next_event, self._heard, self._partings,
                                        self._greetings)
        self._page = self._web_page() if settings.http.enabled else None

    def _certificate(self, strategy: str, asset_class: AssetClass) -> Certificate | None:
        standing = self.daemon.validation.standings(self.daemon.clock.now()).get((strategy, asset_class))
        return None if standing is None else standing.certificate

    # -- life ---------------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Until it is told to stop: 0. A journal that takes nothing more ends it: nothing may leave that is not on record."""
        faults: list[str] = []
        try:
            asyncio.run(self._life())
        except* JournalUnwritable as errors:
            faults.extend(map(str, _leaves(errors)))
        finally:
            if self._leaving is not None:
                self._leaving.cancel()
        for fault in faults:
            log.critical("ended: the journal cannot be written", reason=fault)
            print(fault, file=sys.stderr)
        return 1 if faults else 0

    async def _life(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, signal.Signals(number).name)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        tasks: list[asyncio.Task[None]] = []
        fault, words, code = "the daemon was cut off", "", 1
        try:
            self.daemon.remember()
            collector.keep_for_good()  # while nobody waits: at the end of the start there is little more to look at
            tasks += self._tasks(self._from_the_first())
            if await self._began():
                tasks += self._tasks(self._once_started())
                await self.daemon.run()
            fault, code = "", 0
        except BaseExceptionGroup as errors:
            fault = str(_leaves(errors)[0]) or type(_leaves(errors)[0]).__name__
            raise
        except BotError as error:
            code = 4 if isinstance(error, ConfigurationError) else 1
            fault = f"{str(error).splitlines()[0]}."
            raise
        finally:
            lifesigns.notify("STOPPING=1")
            words = self._last_words(fault)
            await self._part(words, bad=bool(fault))
            await _ended(tasks)
            self._pictures.close()
            await self.daemon.close()
            if not fault:
                print(words, flush=True)
            self._leaving = leave_after(LEAVE_S, code)

    def _tasks(self, work: Mapping[str, Any]) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self._keep(name, one), name=name) for name, one in work.items()]

    async def _began(self) -> bool:
        """Reach the venues and start the daemon. False = told to stop before it was there: nothing has been traded then."""
        with self._clock.held() if self._source is not None else nullcontext():
            if not await self._unless_stopped(self._started()):
                return False
        collector.keep_for_good()
        self._waiting = ""
        self._console = Console(lambda: self._reports.status({}), self._opening)
        for words in self._early:
            self._console.tell(words, self.daemon.clock.now())
        for greet in self._greetings:
            greet()
        return True

    async def _started(self) -> bool:
        await self.daemon.start()
        return True

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

    def _wait_for(self, words: str) -> None:
        """Why it has not started yet, each time once: for who looks at the terminal, else into the log, which then is on stderr; the first
        time also to every channel."""
        self._waiting = words
        log.warning(words, action="connect")
        if sys.stdout.isatty():
            print(f"{words} (Ctrl-C ends)", file=sys.stderr, flush=True)
        if not self._told_of_waiting:
            self._told_of_waiting = True
            self._tell(f"Not started yet: {words}")

    def _last_words(self, fault: str) -> str:
        held = len(self.daemon.portfolio.trades)
        left = f"{held} open trade{'s keep their' if held != 1 else ' keeps its'} stops at the venue" if held else "nothing is open"
        if fault:
            return f"The daemon ENDED by a fault: {fault} Nobody watches now; {left}."
        return f"The daemon was stopped before it had started; {left}." if self._waiting else f"The daemon was stopped; {left}."

    async def _part(self, words: str, *, bad: bool) -> None:
        """The last message to the owner's phone: a daemon that ends without a word is taken for one that trades."""
        await asyncio.gather(*(say(words, bad=bad, within_s=PARTING_S) for say in self._partings))

    # -- peripherals --------------------------------------------------------------------------------------------------------

    def _from_the_first(self) -> dict[str, Any]:
        """What runs while venues are waited for. A demo waits for nobody: who asks it finds it started or not there."""
        work: dict[str, Any] = {"loop lag": self._lag.run} | ({"watchdog": lifesigns.watchdog} if self._arguments.sd_notify else {})
        return work if self._source is not None else work | self._seen()

    def _seen(self) -> dict[str, Any]:
        """What lets the owner see and command it."""
        work: dict[str, Any] = {"control socket": ControlServer(self._folder.control_socket, self.daemon.desk.answer).run}
        if self._page is not None:
            work["web page"] = self._page.run
        return work | self._channels

    def _once_started(self) -> dict[str, Any]:
        assert self._console is not None
        work: dict[str, Any] = {
            "console": self._console.run, "decisions": self._flush,
            "problems": ProblemWatch(lambda: list(self._reports.status({})["problems"]), self._announce).run}
        return work | (self._seen() if self._source is not None else {})

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
        self.daemon.stop()

    def _reload(self) -> None:
        """SIGHUP: tighter policies at once, looser ones never (nobody confirmed them), faulty ones change nothing."""
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
        """A certificate runs out, the gate is weakened: to the console and to every channel."""
        self._tell(words)
        if self._console is not None:
            self._console.tell(words, self.daemon.clock.now())
        else:
            self._early.append(words)

    def _tell(self, words: str) -> None:
        """To every channel. Whoever fails does not stop the others."""
        for tell in self._heard:
            _, error = attempt(tell, words)
            if error is not None:
                log.error("a channel failed to announce", reason=f"{type(error).__name__}: {error}")

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
        pruned_at = given_back_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(FLUSH_S)
            self._decisions.flush()
            self._pictures.flush()
            if self.daemon.journal.regain_space():
                log.warning("there is room on the disk again: entries are open again")
            if loop.time() - given_back_at > GIVE_BACK_S:
                given_back_at = loop.time()
                collector.give_back()
            if loop.time() - pruned_at > 3600.0:
                pruned_at = loop.time()
                self._decisions.prune(self.daemon.clock.now() - KEEP_DECISIONS_MS)
                self._pictures.prune(self.daemon.clock.now())

