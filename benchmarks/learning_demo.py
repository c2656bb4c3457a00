"""Learning on against frozen, end to end: whole demo runs, paired by seed. `python -m benchmarks.learning_demo [--seeds 100]`.

Every seed is an invented market of --days days, run twice by the whole daemon with everything shipped: once with weights in force, once
with every strategy at its full size. Shadows trade in both. The daily result is the classes' marked equity without transfers, over their
opening wallets. The goal: the mean difference of annual net Sharpe has a 95 % lower bound (normal, one-sided) of at least -0.15; where it
has not, `allocation_on` stays false. FILE is written anew after every seed, and a second call goes on from it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import common
from main import Simulation
from modules.domain.events import WeightsUpdated
from modules.domain.instrument import AssetClass
from modules.domain.settings import DEMO_WALLETS
from modules.venues.demo_market import DemoMarket
from tests.demo_runs import simulate

FIRST: Final = 10_001
GOAL: Final = -0.15
ONE_SIDED: Final = 1.645


def daily(simulation: Simulation) -> NDArray[np.float64]:
    """f8[days]: change of marked equity less transfers, over the opening wallet, mean over the classes."""
    recorder, found = simulation.recorder, []
    for asset_class in AssetClass:
        points = recorder.curve[asset_class]
        days = {at // common.DAY: float(equity) for at, equity in points}  # the last sample of each day
        moved: dict[int, float] = {}
        for transfer in recorder.transfers:
            if transfer.asset_class is asset_class and transfer.venue_ref != "opening":
                moved[transfer.at // common.DAY] = moved.get(transfer.at // common.DAY, 0.0) + float(transfer.amount)
        order = sorted(days)
        found.append([(days[day] - days[before] - moved.get(day, 0.0)) / float(DEMO_WALLETS[asset_class])
                      for before, day in pairwise(order)])
    least = min(map(len, found))
    rows = np.array([row[-least:] for row in found])
    mean: NDArray[np.float64] = rows.mean(axis=0)
    return mean


def sharpe(results: NDArray[np.float64]) -> float:
    spread = float(results.std(ddof=1))
    return float(results.mean()) / spread * math.sqrt(365.0) if spread > 0.0 else 0.0


def judge(seed: int, days: int) -> dict[str, Any]:
    shipped = common.policies()
    began, found = time.process_time(), dict[str, Any](seed=seed)
    for name, on in (("on", True), ("frozen", False)):
        learning = shipped.learning.model_copy(update={"allocation_on": on})
        simulation = simulate(DemoMarket(seed, days), policies=shipped.model_copy(update={"learning": learning}))
        results = daily(simulation)
        lowest = min((min(fact.weights.values()) for _, fact in simulation.daemon.journal.facts() if isinstance(fact, WeightsUpdated)),
                     default=1.0)
        found[name] = {"sharpe": sharpe(results), "net": float(results.sum()), "trades": len(simulation.recorder.trades),
                       "lowest_weight": lowest}
    found["cpu_s"] = round(time.process_time() - began, 1)
    return found


def summary(runs: Sequence[dict[str, Any]], days: int) -> dict[str, Any]:
    difference = np.array([run["on"]["sharpe"] - run["frozen"]["sharpe"] for run in runs])
    error = float(difference.std(ddof=1) / math.sqrt(len(difference))) if len(difference) > 1 else math.nan
    return {
        "benchmark": "learning_demo", "machine": common.machine(), "days": days, "seeds": len(runs), "first_seed": runs[0]["seed"],
        "difference": float(difference.mean()), "error": error, "lower_bound": float(difference.mean()) - ONE_SIDED * error, "goal": GOAL,
        "sharpe_on": float(np.mean([run["on"]["sharpe"] for run in runs])),
        "sharpe_frozen": float(np.mean([run["frozen"]["sharpe"] for run in runs])),
        "net_on": float(np.mean([run["on"]["net"] for run in runs])), "net_frozen": float(np.mean([run["frozen"]["net"] for run in runs])),
        "runs": list(runs)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=FIRST)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write the figures to this file, after every seed; go on from it")
    options = parser.parse_args(arguments)
    runs: list[dict[str, Any]] = []
    if options.json is not None and options.json.is_file():
        runs = json.loads(options.json.read_text(encoding="utf-8"))["runs"]
    known = {run["seed"] for run in runs}
    for seed in range(options.first, options.first + options.seeds):
        if seed in known:
            continue
        runs.append(judge(seed, options.days))
        found = summary(runs, options.days)
        print(f"  seed {seed}: on {runs[-1]['on']['sharpe']:+.2f}, frozen {runs[-1]['frozen']['sharpe']:+.2f}; so far {len(runs)} seeds, "
              f"difference {found['difference']:+.3f} +- {found['error']:.3f}, lower bound {found['lower_bound']:+.3f}", flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
