"""P5: how many bars a second the whole daemon replays. `python -m benchmarks.replay [--bars 525600] [--json FILE] [--vs FILE]`.

One instrument, 1-minute bars, every rule, Decimal ledger, journal and decisions on disk, end state compared with the venue's wallet. First
what the peers run: one strategy, an EMA 20/50 cross, long or flat, stop at 2 % and target at 4 %; the goal of 25,000 bars/s is about that.
Then the shipped trend strategy alone, all shipped spot strategies and all perpetual ones. CPU seconds of the whole run, start-up and
warm-up included.

The peers' other case, the same cross without a stop, cannot be run: a position without a stop is refused here (STOP_MISSING).

`--vs FILE` takes what `bench_peers/run_all.py --items 1,2 --out FILE` wrote on this machine and prints how many times their bars a second
we reach.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import math
import pstats
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import common
from main import simulate
from modules.domain.instrument import AssetClass
from modules.domain.signal import FLAT, Intent
from modules.news.calendar import Calendar
from modules.strategies.indicators import NAN, ema, ema_weight
from modules.strategies.protocol import Market, Strategy

GOAL: Final = 25_000.0


class CrossParams(NamedTuple):
    fast: int = 20
    slow: int = 50
    stop: float = 0.02
    """Fraction of the close."""
    reward: float = 2.0
    """Target distance as a multiple of the stop distance."""


class CrossState(NamedTuple):
    fast: float
    slow: float


def _init(params: CrossParams) -> CrossState:
    return CrossState(NAN, NAN)


def _step(state: CrossState, market: Market, params: CrossParams) -> tuple[CrossState, Intent]:
    fast = ema(state.fast, market.close, ema_weight(params.fast))
    slow = ema(state.slow, market.close, ema_weight(params.slow))
    if not fast > slow:
        return CrossState(fast, slow), FLAT
    distance = params.stop * market.close
    return CrossState(fast, slow), Intent(1.0, distance, params.reward * distance, 0)


CROSS: Final = Strategy(
    name="ema_cross", description="What the peers run: long while the fast average is above the slow one.", params=CrossParams(),
    asset_classes=(AssetClass.SPOT,), init=_init, step=_step, warmup=50)
RUNS: Final = (
    ("spot, EMA cross", AssetClass.SPOT, (CROSS,)),
    ("spot, trend alone", AssetClass.SPOT, tuple(common.strategies_of(AssetClass.SPOT, ("trend",)))),
    ("spot, all strategies", AssetClass.SPOT, ()),
    ("perp, all strategies", AssetClass.PERP, ()),
)


def replay(
    bars: int, asset_class: AssetClass, strategies: Sequence[Strategy] = (), *, count: int = 1, interval: int = common.MINUTE,
) -> dict[str, Any]:
    """One run of `count` x `bars` bars with `strategies` (none: all shipped ones); figures in CPU seconds. Raises AssertionError if books
    and wallet differ at the end."""
    source = common.SeriesSource(bars, count=count, asset_class=asset_class, interval=interval)
    policies = common.policies()
    with tempfile.TemporaryDirectory() as folder:
        before, began = time.process_time(), time.perf_counter()
        simulation = simulate(
            source, policies=policies, wallets={asset_class: common.WALLET}, calendar=Calendar((), policies.news, {}),
            strategies={asset_class: strategies or common.strategies_of(asset_class)}, folder=Path(folder))
        cpu, wall = time.process_time() - before, time.perf_counter() - began
        daemon, recorder = simulation.daemon, simulation.recorder
        assert simulation.differences == 0, f"{simulation.differences} differences between books and wallet"
        assert simulation.bars == bars * count, f"{simulation.bars} bars of {bars * count}"
        figures = {
            "bars": simulation.bars, "cpu_s": cpu, "wall_s": wall, "bars_per_cpu_s": simulation.bars / cpu,
            "us_per_bar": cpu / simulation.bars * 1e6, "decisions": len(recorder.decisions), "trades": len(recorder.trades),
            "facts": daemon.journal.count, "trace": daemon.journal.head, "memory_mb": common.memory_mb(),
        }
        simulation.daemon.decisions.close()
        simulation.daemon.journal.close()
    return figures


def peers(path: Path) -> dict[str, float]:
    """Engine -> bars per CPU second of item 2 (with stop and target), else of item 1, as bench_peers/run_all.py wrote it."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    rows = rows.get("rows", []) if isinstance(rows, dict) else rows
    found: dict[str, float] = {}
    for row in sorted(rows, key=lambda row: str(row.get("item"))):
        if str(row.get("item")) in ("1", "2") and not row.get("ours"):
            speed = row.get("bars_per_s") or (row["bars"] / row["cpu_s"] if row.get("bars") and row.get("cpu_s") else math.nan)
            found[str(row.get("engine"))] = float(speed)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=int, default=525_600)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--vs", type=Path, help="results of the peers, to print ratios")
    parser.add_argument("--profile", action="store_true", help="show where the time of the first run goes instead of measuring")
    options = parser.parse_args(arguments)
    print(f"machine: {common.machine()}")
    if options.profile:
        with cProfile.Profile() as profile:
            replay(options.bars, *RUNS[0][1:])
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)
        return 0
    runs = {}
    for name, asset_class, strategies in RUNS:
        figures = runs[name] = common.rounded(replay(options.bars, asset_class, strategies))
        print(f"  {name:<21} {figures['bars_per_cpu_s']:>9,.0f} bars/s  {figures['us_per_bar']:6.2f} us a bar  "
              f"(CPU {figures['cpu_s']:.2f} s, wall {figures['wall_s']:.2f} s; "
              f"{figures['decisions']} decisions, {figures['trades']} trades, {figures['facts']} facts)")
    ours = runs[RUNS[0][0]]["bars_per_cpu_s"]
    print(f"  goal {GOAL:,.0f} bars/s: {'reached' if ours >= GOAL else 'missed'} by the first ({ours / GOAL:.2f} x the goal)")
    ratios = {}
    if options.vs is not None:
        for engine, speed in peers(options.vs).items():
            ratios[engine] = round(ours / speed, 2)
            print(f"  {ratios[engine]:>8.2f} x {engine} ({speed:,.0f} bars/s)")
    if options.json is not None:
        report = {"benchmark": "replay", "machine": common.machine(), "runs": runs, "goal_bars_per_s": GOAL, "ratios": ratios}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
