"""P9: what `python main.py` costs to start and to keep. `python -m benchmarks.startup [--runs 3] [--json FILE]`.

Starts the daemon on the demo market as a process of its own, with an empty state folder, and measures inside it, from the birth of the
process: until the first closed bar was accepted, and its resident memory after a simulated day; and which of the heavy libraries it has
imported. The demo runs fast enough that the first bar is due at once, so that what is measured is us and not the market.
Goals: first bar within 2.5 s, 130 MB, none of pandas, numba, scipy, fastparquet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import common

GOAL_S: Final = 2.5
GOAL_MB: Final = 130.0
SPEED: Final = 3_000
"""Market seconds per second: a 5-minute bar every 0.1 s."""
BARS: Final = 288
FORBIDDEN: Final = ("pandas", "numba", "scipy", "fastparquet")

CHILD: Final = """
import json, os, signal, sys, time
born, wanted = float(sys.argv[1]), int(sys.argv[2])
import main
imported = time.time()
from benchmarks import common
from modules.Market_Data import MarketData
accept, start, seen = MarketData.accept, main.Daemon.start, {"instants": 0}

async def timed_start(daemon):
    seen["begun_s"] = time.time() - born
    await start(daemon)
    seen["started_s"] = time.time() - born

def watched(market, batch):
    accept(market, batch)
    if not batch.bars:
        return
    if not seen["instants"]:
        seen["first_bar_s"], seen["first_bar_cpu_s"], seen["first_bar_mb"] = time.time() - born, time.process_time(), common.memory_mb()
    seen["instants"] += 1
    if seen["instants"] == wanted:
        seen["memory_mb"] = common.memory_mb()
        seen["modules"] = sorted(sys.modules)
        os.kill(os.getpid(), signal.SIGTERM)

main.Daemon.start, MarketData.accept = timed_start, watched
from modules.cli.app import run
code = run(sys.argv[3:])
sys.stdout.flush()
print("\\n@@" + json.dumps({"imported_s": imported - born, "exit_code": code, **seen}))
"""
"""Wraps two methods of the daemon with stopwatches; everything else is as the owner starts it."""


def start_once(bars: int) -> dict[str, Any]:
    """One life of the process. Raises RuntimeError if it does not end with exit code 0."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "config.toml"
        settings.write_text(f'state_dir = "{folder}/state"\nlog_dir = "{folder}/logs"\npolicy_dir = "{common.ROOT / "policies"}"\n',
                            encoding="utf-8")
        command = [sys.executable, "-c", CHILD, repr(time.time()), str(bars), "trade", "--config", str(settings), "--speed", str(SPEED)]
        done = subprocess.run(command, cwd=common.ROOT, capture_output=True, text=True, timeout=300, check=False)
    found = [line[2:] for line in done.stdout.splitlines() if line.startswith("@@")]
    if done.returncode or not found:
        raise RuntimeError(f"the daemon ended with {done.returncode}: {done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(found[-1])
    if figures["exit_code"] != 0:
        raise RuntimeError(f"the daemon said {figures['exit_code']}: {done.stderr[-2000:]}")
    modules = figures.pop("modules")
    return {**figures, "forbidden": [name for name in FORBIDDEN if name in modules], "modules": len(modules)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--bars", type=int, default=BARS, help="market instants after which memory is read")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    print(f"machine: {common.machine()}")
    runs = [start_once(options.bars) for _ in range(options.runs)]
    medians = {name: statistics.median(run[name] for run in runs)
               for name in ("imported_s", "begun_s", "started_s", "first_bar_s", "first_bar_cpu_s", "first_bar_mb", "memory_mb")}
    forbidden = sorted({name for run in runs for name in run["forbidden"]})
    print(f"  imports {medians['imported_s']:.2f} s, wired {medians['begun_s']:.2f} s, started {medians['started_s']:.2f} s, "
          f"first bar accepted {medians['first_bar_s']:.2f} s after birth (CPU {medians['first_bar_cpu_s']:.2f} s; goal {GOAL_S} s)")
    print(f"  resident memory {medians['first_bar_mb']:.0f} MB at the first bar, {medians['memory_mb']:.0f} MB after {options.bars} "
          f"instants (goal {GOAL_MB:.0f} MB)")
    print(f"  heavy libraries imported: {', '.join(forbidden) or 'none'}")
    if options.json is not None:
        report = {"benchmark": "startup", "machine": common.machine(), "medians": common.rounded(medians), "forbidden": forbidden,
                  "runs": runs}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if forbidden else 0


if __name__ == "__main__":
    sys.exit(main())
