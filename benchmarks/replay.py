"""P5: how many bars a second the whole daemon replays. `python -m benchmarks.replay [--bars 525600] [--json FILE] [--vs FILE]`.

One instrument, 1-minute bars, every rule, Decimal ledger, journal and decisions on disk, end state compared with the venue's wallet. With
all shipped spot strategies, all perpetual strategies, and one strategy alone, which is what the peers run. CPU seconds of the whole run,
start-up and warm-up included. The goal is 25,000 bars/s.

`--vs FILE` takes what `bench_peers/run_all.py --out FILE` wrote on this machine and prints how many times their bars a second we reach.
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
from typing import Any, Final

from benchmarks import common
from main import simulate
from modules.domain.instrument import AssetClass
from modules.news.calendar import Calendar

GOAL: Final = 25_000.0
RUNS: Final = (
    ("spot, all strategies", AssetClass.SPOT, ()),
    ("perp, all strategies", AssetClass.PERP, ()),
    ("spot, trend alone", AssetClass.SPOT, ("trend",)),
)


def replay(
    bars: int, asset_class: AssetClass, names: Sequence[str] = (), *, count: int = 1, interval: int = common.MINUTE,
) -> dict[str, Any]:
    """One run of `count` x `bars` bars; figures in CPU seconds. Raises AssertionError if books and wallet differ at the end."""
    source = common.SeriesSource(bars, count=count, asset_class=asset_class, interval=interval)
    policies = common.policies()
    with tempfile.TemporaryDirectory() as folder:
        before, began = time.process_time(), time.perf_counter()
        simulation = simulate(
            source, policies=policies, wallets={asset_class: common.WALLET}, calendar=Calendar((), policies.news, {}),
            strategies={asset_class: common.strategies_of(asset_class, names)}, folder=Path(folder))
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
    """Engine -> bars per CPU second of item 1, as bench_peers/run_all.py wrote it."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    rows = rows.get("rows", []) if isinstance(rows, dict) else rows
    found: dict[str, float] = {}
    for row in rows:
        if str(row.get("item")) == "1" and not row.get("ours"):
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
            replay(options.bars, AssetClass.SPOT)
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)
        return 0
    runs = {}
    for name, asset_class, names in RUNS:
        figures = runs[name] = common.rounded(replay(options.bars, asset_class, names))
        print(f"  {name:<21} {figures['bars_per_cpu_s']:>9,.0f} bars/s  {figures['us_per_bar']:6.2f} us a bar  "
              f"(CPU {figures['cpu_s']:.2f} s, wall {figures['wall_s']:.2f} s; "
              f"{figures['decisions']} decisions, {figures['trades']} trades, {figures['facts']} facts)")
    slowest = min(figures["bars_per_cpu_s"] for figures in runs.values())
    print(f"  goal {GOAL:,.0f} bars/s: {'reached' if slowest >= GOAL else 'missed'} by the slowest ({slowest / GOAL:.2f} x the goal)")
    ratios = {}
    if options.vs is not None:
        ours = runs[RUNS[-1][0]]["bars_per_cpu_s"]
        for engine, speed in peers(options.vs).items():
            ratios[engine] = round(ours / speed, 2)
            print(f"  {ratios[engine]:>8.2f} x {engine} ({speed:,.0f} bars/s)")
    if options.json is not None:
        report = {"benchmark": "replay", "machine": common.machine(), "runs": runs, "goal_bars_per_s": GOAL, "ratios": ratios}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
