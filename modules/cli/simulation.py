"""The whole daemon over a finite source on virtual time: what `demo`, `replay` and the benchmarks run. Years in minutes, twice the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from modules.backtest.replay import Recorder
from modules.cli.plan import simulated_plan
from modules.domain.instrument import AssetClass
from modules.runtime import collector
from modules.runtime.clock import VirtualClock, VirtualLoop
from modules.store.decisions import Decisions
from modules.store.journal import Journal
from modules.venues.paper_venue import PaperVenue

if TYPE_CHECKING:
    from decimal import Decimal
    from pathlib import Path

    import main
    from modules.domain.policies import Policies
    from modules.news.calendar import Calendar
    from modules.news.setup import Setup
    from modules.strategies.protocol import Strategy
    from modules.venues.protocol import MarketSource

HOUR_MS: Final = 3_600_000


@dataclass(frozen=True)
class Simulation:
    """A finished run: the daemon as it stands at the end, and what was recorded on the way."""

    daemon: main.Daemon
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
    import main  # which shows this function as its own

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
        daemon = main.Daemon(plan)
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
