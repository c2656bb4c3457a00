"""`python -m benchmarks.simulation [--seeds N] [--hours H] [--intensity X] [--json FILE]`: whole daemons in seeded weather.

A day of the market passes in half a minute of virtual time. The daemon is the whole one, on a durable journal; the venue
(tests/simulated_venue.py) lies, stalls and repeats; the account's owner trades, pays in and cancels stops by hand; the process dies - at
any time, at any row of its journal, before and after any order leaves - and is started again. Everything is watched from the venue's side
and from the journal's: the invariants of reliability.md that can be told from there, each named by its id. At the end the weather calms
down, and doubts must be resolved, halts explained, everything closed on demand, and the books must be the venue's to the last unit.

One seed is one history: twice the same journal, row for row. `--first S --seeds 1` plays one again. `--mutants` switches off one safeguard
after another: the simulation must notice every one of them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import structlog

from benchmarks import common
from tests.simulated_exchange import FAULTS
from tests.simulated_life import played


def report(seed: int, hours: float, intensity: float) -> dict[str, Any]:
    """One history in figures."""
    quiet()
    began = time.process_time()
    history = played(seed, hours, intensity)
    monitor, exchange = history.monitor, history.exchange
    return {
        "seed": seed, "intensity": intensity, "journal": history.head, "facts": history.rows, "round_trips": history.trades,
        "lives": sum(history.lives.values()), "deaths": dict(history.lives), "faults": dict(exchange.weather.seen),
        "by_hand": dict(exchange.hand), "halts": dict(monitor.halted), "checks": dict(monitor.checks),
        "longest_bare_ms": monitor.longest_bare, "violations": [list(one) for one in monitor.violations],
        "cpu_s": round(time.process_time() - began, 1)}


def quiet() -> None:
    """The daemon's own words are not wanted here."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


# --- the command ----------------------------------------------------------------------------------------------------------------------


def campaign(seeds: Sequence[int], hours: float, intensities: Sequence[float], jobs: int) -> list[dict[str, Any]]:
    """Every seed's report, in processes of their own; one line each as they come."""
    found = []
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        work = [pool.submit(report, seed, hours, intensities[place % len(intensities)]) for place, seed in enumerate(seeds)]
        for done in as_completed(work):
            row = done.result()
            found.append(row)
            print(f"  seed {row['seed']:>5}  weather {row['intensity']:g}  {row['lives']:>3} lives  {row['round_trips']:>5} round trips  "
                  f"{sum(row['faults'].values()):>4} faults  {sum(row['checks'].values()):>7} checks  {len(row['violations'])} violations  "
                  f"{row['cpu_s']:.0f} s", flush=True)
            for law, what in row["violations"][:5]:
                print(f"      {law}: {what}", flush=True)
    return sorted(found, key=lambda row: int(row["seed"]))


def summed(rows: Sequence[dict[str, Any]], key: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row[key])
    return dict(sorted(total.items()))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="how many histories")
    parser.add_argument("--first", type=int, default=1, help="the first one's seed")
    parser.add_argument("--hours", type=float, default=24.0, help="of the market, each")
    parser.add_argument("--intensity", type=float, nargs="+", default=[1.0, 3.0], help="of the weather; several take turns")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--mutants", action="store_true", help="switch off one safeguard after another; each must be noticed")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    seeds = range(options.first, options.first + options.seeds)
    if options.mutants:
        from benchmarks import simulation_mutants

        quiet()
        noticed = simulation_mutants.hunt(seeds, options.hours, options.intensity[-1])
        document: dict[str, Any] = {"benchmark": "simulation mutants", "machine": common.machine(), "mutants": noticed}
        failed = any(not one["noticed_by"] for one in noticed)
    else:
        rows = campaign(seeds, options.hours, options.intensity, options.jobs)
        document = {
            "benchmark": "simulation", "machine": common.machine(), "hours": options.hours, "seeds": list(seeds), "histories": rows,
            "faults": summed(rows, "faults"), "by_hand": summed(rows, "by_hand"), "deaths": summed(rows, "deaths"),
            "checks": summed(rows, "checks"), "violations": sum(len(row["violations"]) for row in rows),
            "again": [f"python -m benchmarks.simulation --first {row['seed']} --seeds 1 --hours {options.hours:g} "
                      f"--intensity {row['intensity']:g}" for row in rows if row["violations"]]}
        never = [fault.what for fault in FAULTS if not document["faults"].get(fault.what)]
        failed = bool(document["violations"])
        days = len(rows) * options.hours / 24.0
        print(f"{days:g} days of the market, {sum(document['faults'].values())} faults, {sum(document['checks'].values())} checks, "
              f"{document['violations']} violations" + (f"; never seen: {', '.join(never)}" if never else ""))
        for line in document["again"]:
            print(f"  {line}")
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
