"""What the tests of the whole daemon on a real wire share: a daemon over an adapter on the wall clock, a strategy that does as the price
says, and a watch over the emulator's books that nothing of ours can talk to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import main
from modules.domain.events import Fact
from modules.domain.instrument import AssetClass
from modules.domain.order import OrderState, Purpose
from modules.domain.policies import Policies
from modules.domain.signal import Intent
from modules.news.calendar import Calendar
from modules.runtime.clock import WallClock
from modules.store.decisions import Decisions
from modules.store.journal import Journal
from modules.strategies.protocol import Market as Seen
from modules.strategies.protocol import Strategy
from modules.venues.protocol import Venue
from tests.builders import shipped_policies
from tests.timing import PATIENCE_S, STORY_S

F = TypeVar("F")


class Levels(NamedTuple):
    """Long above `level`; the stop is `stop` of the price away, the target `target` (0 = none)."""

    level: float
    stop: float = 0.01
    target: float = 0.0


def _step(state: Any, seen: Seen, params: Levels) -> tuple[Any, Intent]:
    score = 0.9 if seen.close > params.level else 0.0
    return state, Intent(score, seen.close * params.stop, seen.close * params.target, 0)


def above(asset_class: AssetClass, **levels: float) -> Strategy:
    """Long while the bars close above a level, flat else."""
    return Strategy("above", "long above a level", (asset_class,), Levels(**levels), lambda params: 0, _step, 1)


def patient(*, risk: Mapping[str, Any] | None = None, **execution: Any) -> Policies:
    """The shipped policies for a market that runs several times as fast as the wall, on a machine that may be slow: what is measured in
    market seconds has as much more of them; what is polled is polled several times a second."""
    shipped = shipped_policies()
    execution = {"protect_within_s": 60.0, **execution}
    execution.setdefault("flatten_after_s", execution["protect_within_s"] * 0.4)
    return Policies(
        **{name: getattr(shipped, name) for name in ("sizing", "kill_switch", "costs", "funds", "news", "learning", "validation", "hash")},
        risk=shipped.risk.model_copy(update={
            "bar_late_s_max": 120.0, "quote_age_s_max": 120.0, "wallet_age_s_max": 600.0, "clock_offset_s_max": 30.0,
            "frozen_bars_max": 1000, "correlation_returns_min": 1, **(risk or {})}),
        execution=shipped.execution.model_copy(update={
            "wallet_poll_s": 0.3, "wallet_settle_s": 0.3, "difference_proof_s": 0.3, "clock_poll_s": 60.0, "account_mark_s": 5.0,
            "doubt_query_spacing_s": (0.2, 0.5), "doubt_proof_s": 2.0, "unfilledtimeout_entry_s": 60.0, **execution}))


class Life:
    """One life of the daemon: from its start to its end, on a journal that the next one goes on with."""

    def __init__(self, daemon: main.Daemon, facts: list[Fact]) -> None:
        self.daemon = daemon
        self.facts = facts
        self.over = False
        self._task: asyncio.Task[None] | None = None

    def of(self, kind: type[F]) -> list[F]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def run(self) -> None:
        self._task = asyncio.create_task(self.daemon.run(), name="the daemon")

    async def until(self, condition: Callable[[], Any], what: str = "", seconds: float = PATIENCE_S) -> None:
        """Wait until it holds; a daemon that died, or the time's end, is the test's failure."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    if self._task is not None and self._task.done():
                        self._task.result()
                        raise AssertionError(f"the daemon ended before {what or 'the condition held'}")
                    await asyncio.sleep(0.01)
        except TimeoutError:
            denied = [(check.rule.value, check.measured, check.limit) for decision in DECIDED[-3:] for check in decision.checks
                      if not check.passed]
            raise AssertionError(f"never: {what}; last facts {[type(f).__name__ for f in self.facts[-12:]]}; denied by {denied}") from None

    async def soon(self, compare: Callable[[], None], seconds: float = PATIENCE_S) -> None:
        """`compare` agrees once what is still on the wire has arrived; its last complaint is the test's failure."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        return compare()
                    except AssertionError:
                        await asyncio.sleep(0.02)
        compare()

    def resting(self, purpose: Purpose) -> list[Any]:
        return [record.order for record in self.daemon.executor.orders.values()
                if record.state is OrderState.ACCEPTED and record.order.purpose is purpose]

    async def end(self) -> None:
        """As SIGTERM does it."""
        self.daemon.stop()
        if self._task is not None:
            await asyncio.wait_for(self._task, PATIENCE_S)
        await self._buried()

    async def die(self) -> None:
        """The process is gone between two instructions: nothing is canceled, nothing said."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._buried()

    async def _buried(self) -> None:
        self.over = True
        await self.daemon.close()


DECIDED: list[Any] = []


def life(
    venues: Venue | list[Venue], clock: WallClock, folder: Path, *, strategies: Mapping[AssetClass, Strategy],
    settlement: Mapping[AssetClass, str], allocate: Mapping[AssetClass, Decimal | None] | None = None, policies: Policies | None = None,
    symbols: frozenset[str] | None = None, journal: Journal | None = None, venue_of: Mapping[AssetClass, str] | None = None,
) -> Life:
    """A daemon on `venues`, with the journal of `folder`."""
    listed = venues if isinstance(venues, list) else [venues]
    policies = policies or patient()
    facts: list[Fact] = []
    plan = main.Plan(
        mode="paper", policies=policies, clock=clock, journal=journal or Journal(folder / "journal.sqlite", durable=False),
        decisions=Decisions(folder / "decisions.sqlite"), venues={venue.name: venue for venue in listed},
        venue_of=venue_of or dict.fromkeys(settlement, listed[0].name), settlement=settlement,
        allocate=allocate or dict.fromkeys(settlement), strategies={asset_class: [one] for asset_class, one in strategies.items()},
        symbols=symbols, references={}, calendar=Calendar([], policies.news, {}), observers=(facts.append,), on_decision=DECIDED.append)
    return Life(main.Daemon(plan), facts)


class Watch:
    """Samples the emulator for positions without a stop under them: the longest time one was bare, in market ms."""

    def __init__(self, now: Callable[[], int], bare: Callable[[], bool]) -> None:
        self._now, self._bare = now, bare
        self._since: int | None = None
        self.longest_ms = 0

    def begin(self, longest_ms: int = 0) -> None:
        """Count from now on: nobody was there before. `longest_ms`: what it had been until then, to go on with."""
        self._since, self.longest_ms = None, longest_ms

    @property
    def bare(self) -> bool:
        """Whether it was so at the last look."""
        return self._since is not None

    def look(self) -> None:
        if not self._bare():
            self._since = None
            return
        now = self._now()
        self._since = now if self._since is None else self._since
        self.longest_ms = max(self.longest_ms, now - self._since)


@asynccontextmanager
async def driven(tick: Callable[[], None], every_s: float = 0.05) -> AsyncIterator[None]:
    """The market goes on beside the test."""
    async def drive() -> None:
        while True:
            tick()
            await asyncio.sleep(every_s)

    task = asyncio.create_task(drive(), name="market")
    try:
        yield
    finally:
        task.cancel()
        results = await asyncio.gather(task, return_exceptions=True)
        if isinstance(results[0], Exception):
            raise results[0]


class Stage(Protocol):
    """What a story is played on: an emulated venue and the daemons that live before it."""

    lives: list[Life]
    watch: Watch
    bare_ms: int

    def sent(self) -> Counter[str]:
        """How often each of our ids was created at the venue."""
        ...


W = TypeVar("W", bound=Stage)


def played(world: Callable[[], AbstractAsyncContextManager[W]], story: Callable[[W], Awaitable[None]]) -> None:
    """A story told in a world of its own. However it ends, every daemon is buried; afterwards no order was sent twice, and nothing was
    bare for longer than it may be."""
    async def go() -> None:
        async with asyncio.timeout(STORY_S), world() as made:
            try:
                await story(made)
            finally:
                for one in made.lives:
                    if not one.over:
                        await one.die()
        assert max(made.sent().values(), default=1) == 1, "an order was sent twice"
        assert made.watch.longest_ms < made.bare_ms, "a position was bare for too long"

    asyncio.run(go())
