"""P11: does the work grow with the amount, or faster? `python -m benchmarks.growth [--scale 1.0] [--json FILE]`.

Three sizes each (1 : 2 : 4) of bars, instruments and journal rows through the whole daemon or the whole journal, CPU seconds and memory;
and a replay of 105,000 against 525,000 bars. The exponent is the slope of log(cost) over log(size): 1 is linear, the goal is at most
1.05, and five times the bars in at most 5.5 times the time. What a start costs once is measured with a run of one bar and left out.
Parameter sets are the business of the compiled kernels: benchmarks of their own.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from benchmarks import common
from benchmarks.recovery import trading_life
from benchmarks.replay import CROSS, replay
from modules.domain.instrument import AssetClass
from modules.store.journal import Journal

GOAL: Final = 1.05
GOAL_FIVEFOLD: Final = 5.5


def of_bars(bars: int) -> float:
    return float(replay(bars, AssetClass.SPOT)["cpu_s"])


def of_instruments(count: int, bars: int) -> float:
    return float(replay(bars, AssetClass.SPOT, count=count)["cpu_s"])


def of_rows(rows: int) -> float:
    """CPU seconds to read a journal of `rows` facts back, its chain verified."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        with Journal(path, durable=False) as journal:
            for fact in islice(trading_life(), rows):
                journal.append(fact)
        with Journal(path, durable=False) as journal:
            began = time.process_time()
            journal.replay()
            return time.process_time() - began


def memory_of_bars(bars: int) -> float:
    """Peak of what Python allocated during a replay, MB (10^6 bytes)."""
    tracemalloc.start()
    try:
        replay(bars, AssetClass.SPOT, (CROSS,))
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def series(name: str, sizes: Sequence[int], cost: Callable[[int], float], repeat: int, fixed: float = 0.0) -> dict[str, Any]:
    """Costs at three sizes, the best of `repeat`, less the fixed part, and their exponent."""
    costs = [max(1e-9, min(cost(size) for _ in range(repeat)) - fixed) for size in sizes]
    found = {"sizes": list(sizes), "costs": costs, "exponent": common.exponent(sizes, costs)}
    shown = "  ".join(f"{size:,}: {spent:.2f}" for size, spent in zip(sizes, costs, strict=True))
    print(f"  {name:<28} {shown:<48} exponent {found['exponent']:.3f}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes")
    parser.add_argument("--repeat", type=int, default=3, help="the best of these counts: what else the machine does only ever adds")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    print(f"machine: {common.machine()}")

    def sizes(smallest: int) -> list[int]:
        return [factor * max(1, int(smallest * options.scale)) for factor in (1, 2, 4)]

    of_bars(1)  # imports, compiled plans
    start = min(of_bars(1) for _ in range(options.repeat))
    repeat = options.repeat
    runs = {
        "bars": series("bars, CPU s", sizes(25_000), of_bars, repeat, start),
        "instruments": series("instruments, CPU s", sizes(10), lambda count: of_instruments(count, max(1, int(2_000 * options.scale))),
                              repeat),
        "journal_rows": series("journal rows, CPU s", sizes(25_000), of_rows, repeat),
        "memory": series("bars, peak MB", sizes(25_000), memory_of_bars, 1),
    }
    fivefold = (of_bars(int(525_000 * options.scale)) - start) / (of_bars(int(105_000 * options.scale)) - start)
    print(f"  five times the bars: {fivefold:.2f} times the CPU time (goal {GOAL_FIVEFOLD})")
    worst = max(run["exponent"] for run in runs.values())
    print(f"  largest exponent {worst:.3f} (goal {GOAL})")
    if options.json is not None:
        report = {"benchmark": "growth", "machine": common.machine(), "runs": runs, "fivefold": fivefold}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
