"""P4: a whole verdict. `python -m benchmarks.verdict [--bars 60000] [--instruments 8] [--workers 2] [--json FILE]`.

Eight instruments, 50 parameter sets of the shipped trend strategy, walk-forward, bootstrap, CSCV, stress, neighbours, random entries,
through the same pipeline and worker processes as `validate`. Cold: no machine code anywhere yet. Warm: the worker processes are up and
have run before, nothing is taken from kept results. Memory: the largest worker, and all processes together.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from modules.backtest import pipeline
from modules.backtest.basket import Basket
from modules.backtest.kernel import Rules
from modules.backtest.series import Series, from_arrays
from modules.backtest.trials import TrialRegistry
from modules.backtest.workers import Pool
from modules.domain.instrument import AssetClass
from modules.strategies.registry import get

HOUR = 3_600_000
GOAL_WARM_S, GOAL_COLD_S, GOAL_MB = 3.0, 10.0, 600.0


def series(number: int, bars: int) -> Series:
    """An hourly random walk with a slow drift that changes sign."""
    draw = np.random.default_rng((7, number))
    drift = 0.0004 * np.repeat(draw.standard_normal(bars // 240 + 1), 240)[:bars]
    close = 100.0 * np.exp(np.cumsum(draw.standard_normal(bars) * 0.006 + drift))
    opened = np.concatenate(((100.0,), close[:-1]))
    reach = np.abs(draw.standard_normal(bars)) * 0.002
    at = common.START + (np.arange(bars) + 1) * HOUR - bars * HOUR
    return from_arrays(f"C{number}/USD", AssetClass.SPOT, at // HOUR * HOUR, opened, np.maximum(opened, close) * (1.0 + reach),
                       np.minimum(opened, close) * (1.0 - reach), close, np.full(bars, 1e5))


def resident_mb(process: int) -> float:
    """Resident memory of a process, MB; 0 where it cannot be told."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


def verdict(basket: Basket, pool: Pool, seed: int) -> tuple[float, str, list[float]]:
    """Wall seconds of one whole verdict, what it was, and the memory of every process."""
    policies = common.policies()
    registry = TrialRegistry(None, same_code=float(policies.validation.same_idea_code),
                             same_results=float(policies.validation.same_idea_correlation))
    memory: list[float] = []

    def look(label: str, ended: int, known: int) -> None:
        held = [common.memory_mb(), *(resident_mb(process) for process in pool.processes)]
        memory[:] = held if sum(held) > sum(memory) else memory

    began = time.perf_counter()
    found, = pipeline.validate([pipeline.Job(get("trend"), basket, Rules(policies), policies.validation, registry, seed, 0)], pool, look)
    return time.perf_counter() - began, found.verdict, memory


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=int, default=60_000)
    parser.add_argument("--instruments", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    print(f"machine: {common.machine()}")
    basket = Basket(AssetClass.SPOT, {one.symbol: one for one in (series(n, options.bars) for n in range(options.instruments))})
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KERNEL_CACHE"] = folder
        with Pool(options.workers, timeout_s=600.0, nice=0) as pool:
            cold, said, _ = verdict(basket, pool, 1)
            runs = [verdict(basket, pool, seed) for seed in range(2, 2 + options.repeat)]
    warm, memory = min(run[0] for run in runs), max((run[2] for run in runs), key=sum)
    report: dict[str, Any] = {
        "benchmark": "verdict", "machine": common.machine(), "bars": options.bars, "instruments": options.instruments, "verdict": said,
        "cold_s": cold, "warm_s": warm, "memory_mb": sum(memory), "largest_process_mb": max(memory)}
    print(f"  cold {cold:.1f} s (goal {GOAL_COLD_S:g})   warm {warm:.2f} s (goal {GOAL_WARM_S:g})   memory {sum(memory):.0f} MB in "
          f"{len(memory)} processes, largest {max(memory):.0f} (goal {GOAL_MB:g})   {said}")
    if options.json is not None:
        options.json.write_text(json.dumps(common.rounded(report), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
