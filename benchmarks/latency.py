"""P6: from a closed bar to its order in the venue's lane. `python -m benchmarks.latency [--instruments 1000] [--json FILE]`.

The live wiring on a real event loop: durable journal (every fact is committed with a full sync before anything follows from it), lanes,
account listener, ticks, all shipped spot strategies on every instrument. Bars arrive as an exchange sends them, one instrument at a
time, spread over the minute; only waiting for them is left out. Measured is wall time from handing a bar to Market_Data until
Trade_Executor has put the entry it led to into the lane: books of the market, strategies, view, every check, size, veto, the commit of
trade, order and instrument. Goals: p50 0.3 ms, p99 3 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import common
from main import Daemon, simulated_plan
from modules.domain.instrument import AssetClass
from modules.domain.market import Batch
from modules.domain.order import Purpose
from modules.domain.policies import Policies
from modules.news.calendar import Calendar
from modules.Risk_Management import ApprovedOrder
from modules.runtime import collector
from modules.runtime.clock import Tick
from modules.store.decisions import Decisions
from modules.store.journal import Journal

GOAL_P50_MS: Final = 0.3
GOAL_P99_MS: Final = 3.0
TURNS: Final = 3
"""Turns of the event loop given to lanes and listeners where the live process would wait for the next bar."""


class MarketClock:
    """A `Clock` that reads what the market's last event said, on a real event loop: nothing waits, everything else is as live."""

    speed = 1.0

    def __init__(self, start: int) -> None:
        self._now = start

    def now(self) -> int:
        return self._now

    async def sleep_until(self, at: int) -> None:
        self._now = max(self._now, at)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def pulse(self, at: int) -> None:
        pass

    def reach(self, at: int) -> bool:
        return False

    def busy(self) -> bool:
        return True

    def stir(self) -> None:
        pass

    async def drive(self, period_s: float, tick: Tick) -> None:
        while True:
            tick(self._now)
            await asyncio.sleep(period_s)


class Lap(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float
    """Of this thread: without the wait for the disk, and for the processor where other programs want it too."""


class Stopwatch:
    """Times every bar handed to a daemon, and every entry from its bar to the lane."""

    def __init__(self, daemon: Daemon) -> None:
        self.bars: list[Lap] = []
        self.decided: list[Lap] = []
        self.entries: list[Lap] = []
        self._began = Lap(0.0, 0.0)
        self._accept, self._place = daemon.market.accept, daemon.executor.place
        daemon.market.accept = self._timed_accept  # type: ignore[method-assign]
        daemon.executor.place = self._timed_place  # type: ignore[method-assign]

    def _timed_accept(self, batch: Batch) -> None:
        self._began = Lap(time.perf_counter(), time.thread_time())
        self._accept(batch)
        self.bars.append(self._lap())

    def _lap(self) -> Lap:
        return Lap(time.perf_counter() - self._began.wall, time.thread_time() - self._began.cpu)

    def _timed_place(self, approved: ApprovedOrder) -> bool:
        taken = self._place(approved)
        if approved.order.purpose is Purpose.ENTRY:
            self.entries.append(self._lap())
        return taken

    def on_decision(self, _: object) -> None:
        self.decided.append(self._lap())


def _roomy(policies: Policies) -> Policies:
    """With room for many trades at once: every rule is evaluated, but a cap that is full would leave few orders to time."""
    risk = policies.risk.model_copy(update={"max_open_trades": 1_000, "correlated_others_max": 1_000})
    return policies.model_copy(update={"risk": risk})


def measure(instruments: int, minutes: int, folder: Path) -> dict[str, Any]:
    """Milliseconds at the usual percentiles, for bars, decisions and entries."""
    source = common.SeriesSource(minutes, count=instruments, past=800, stagger=True)
    policies = _roomy(common.policies())
    journal, decisions = Journal(folder / "journal.db"), Decisions(folder / "decisions.db")
    watches: list[Stopwatch] = []
    plan = simulated_plan(
        source, mode="paper", policies=policies, clock=MarketClock(source.start), journal=journal, decisions=decisions,
        wallets={AssetClass.SPOT: common.WALLET * 10}, calendar=Calendar((), policies.news, {}),
        strategies={AssetClass.SPOT: common.strategies_of(AssetClass.SPOT)},
        on_decision=lambda decision: watches[0].on_decision(decision))

    async def life() -> Daemon:
        daemon = Daemon(plan)
        await daemon.start()
        collector.keep_for_good()  # as `trade` does
        watches.append(Stopwatch(daemon))
        await daemon.run()
        await daemon.close()
        return daemon

    began = time.process_time()
    asyncio.run(life())
    watch = watches[0]
    figures: dict[str, Any] = {"instruments": instruments, "bars": len(watch.bars), "cpu_s": time.process_time() - began,
                               "memory_mb": common.memory_mb()}
    for name, values in (("bar", watch.bars), ("decision", watch.decided), ("order", watch.entries)):
        figures[f"{name}s"] = len(values)
        for share in (0.5, 0.99) if values else ():
            figures[f"{name}_p{share * 100:g}_ms"] = common.percentile([lap.wall for lap in values], share) * 1e3
            figures[f"{name}_p{share * 100:g}_cpu_ms"] = common.percentile([lap.cpu for lap in values], share) * 1e3
    return figures


def commit_ms(folder: Path, count: int = 300) -> float:
    """Median of one bare synced SQLite commit on this disk: the part of an entry that is not ours."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (a, b)")
    waits = []
    payload = os.urandom(400).hex()
    for number in range(count):
        began = time.perf_counter()
        connection.execute("INSERT INTO t VALUES (?, ?)", (number, payload))
        waits.append(time.perf_counter() - began)
    connection.close()
    return common.percentile(waits, 0.5) * 1e3


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instruments", type=int, default=1_000)
    parser.add_argument("--minutes", type=int, default=120)
    parser.add_argument("--folder", type=Path, help="where the journal goes (default: a temporary folder); the disk matters")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    print(f"machine: {common.machine()}")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        bare = commit_ms(folder)
        figures = common.rounded({**measure(options.instruments, options.minutes, folder), "bare_commit_ms": bare})
    print(f"  {figures['instruments']} instruments, {figures['bars']:,} bars, CPU {figures['cpu_s']:.1f} s with start and warm-up, "
          f"{figures['memory_mb']:.0f} MB; one bare synced commit {bare:.3f} ms")
    for what, told in (("bar", "a bar taken in, all told"), ("decision", "bar to decision"), ("order", "bar to order in the lane")):
        if figures[f"{what}s"]:
            print(f"  {told:<25} {figures[f'{what}s']:>7,} x   p50 {figures[f'{what}_p50_ms']:.3f} ms   "
                  f"p99 {figures[f'{what}_p99_ms']:.3f} ms   (CPU {figures[f'{what}_p50_cpu_ms']:.3f} and "
                  f"{figures[f'{what}_p99_cpu_ms']:.3f} ms)")
    reached = figures["orders"] and figures["order_p50_ms"] <= GOAL_P50_MS and figures["order_p99_ms"] <= GOAL_P99_MS
    print(f"  goal p50 {GOAL_P50_MS} ms, p99 {GOAL_P99_MS} ms: {'reached' if reached else 'missed'}")
    if options.json is not None:
        report = {"benchmark": "latency", "machine": common.machine(), **figures}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
