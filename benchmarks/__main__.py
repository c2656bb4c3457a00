"""`python -m benchmarks [NAME...] [--smoke] [--json FILE] [--vs FILE]`: the benchmarks named, or all, one after the other.

Each runs as a process of its own, so that none warms the caches of the next or counts its memory. `--smoke` runs them at a tiny size,
to see that they work (half a minute); its figures mean nothing. `--json` writes all their reports into one file, under their names.
`--vs` hands the peers' results (bench_peers/run_all.py --out FILE) to those that compare. Exit code 1 if any of them failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import common


class Item(NamedTuple):
    goal: str
    """Its name in the list of performance goals."""
    smoke: tuple[str, ...]
    """Arguments that make it tiny."""
    compares: bool = False
    """Takes --vs."""


ITEMS: Final = {
    "replay": Item("P5", ("--bars", "800"), compares=True),
    "latency": Item("P6", ("--instruments", "3", "--minutes", "60")),
    "correlation": Item("P8", ("--instruments", "20", "--hours", "800")),
    "startup": Item("P9", ("--runs", "1", "--bars", "2")),
    "recovery": Item("P10", ("--events", "1000", "--appends", "20")),
    "validation_power": Item("size and power", ("--scale", "0.005", "--layers", "returns", "--only", "noise AR", "edge t = 4.25, K = 50")),
    "sentiment": Item("headlines", ("--repeat", "1")),
    "verdict": Item("P4", ("--bars", "3000", "--instruments", "2", "--workers", "1", "--repeat", "1")),
    "demotion": Item("live demotion", ("--years", "2", "--runs", "4")),
    "learning": Item("learning", ("--seeds", "2")),
    "learning_demo": Item("learning, end to end", ("--seeds", "1", "--days", "2")),
    "learning_recorded": Item("learning, recorded prices", ("--classes", "PERP", "--since", "2024-09-01T00:00:00Z")),
    "simulation": Item("R1", ("--seeds", "1", "--hours", "0.5", "--jobs", "1")),
    "soak": Item("24 h in the weather", ("--hours", "0.04", "--kills", "0", "--intensity", "6")),
    "growth": Item("P11", ("--scale", "0.004", "--repeat", "1")),
}


def run(name: str, item: Item, options: argparse.Namespace, report: Path) -> int:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(report), *(item.smoke if options.smoke else ())]
    if item.compares and options.vs is not None:
        command += ["--vs", str(options.vs.resolve())]
    return subprocess.run(command, cwd=common.ROOT, check=False).returncode


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ITEMS)}; none = all")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: only to see that they work")
    parser.add_argument("--json", type=Path, help="write every report to this file")
    parser.add_argument("--vs", type=Path, help="the peers' results, to print ratios")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in ITEMS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(ITEMS)}")
    reports: dict[str, Any] = {}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.names or ITEMS:
            item, report = ITEMS[name], Path(folder) / f"{name}.json"
            print(f"-- {item.goal} {name}", flush=True)
            began = time.perf_counter()
            if run(name, item, options, report) or not report.exists():
                failed.append(name)
            else:
                reports[name] = json.loads(report.read_text(encoding="utf-8"))
            print(f"   ({time.perf_counter() - began:.1f} s)", flush=True)
    if options.json is not None:
        document = {"machine": common.machine(), "smoke": options.smoke, "reports": reports, "failed": failed}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
