"""The learner on recorded prices, against never learning and against hindsight. `python -m benchmarks.learning_recorded [--data FOLDER]`.

Every shipped strategy with its shipped parameters trades every recorded instrument of a class (hourly bars, one instrument per underlying,
the validation kernel's fills and gates, net of modelled costs); a trade's net R belongs to the day it closed. Then the same daily results
under three rules: `uniform` keeps everybody's size, `learned` multiplies each trade by the weight that was in force the day before, and
`best fixed` is the one strategy that turned out best, known only afterwards; `chosen` is the best of the first half, traded in the second.
Sharpe is annual, flat days in, of the mean over strategies of daily net R; the bootstrap draws weeks jointly (10,000, seed 1).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import common
from modules.backtest import kernel
from modules.backtest.basket import basket
from modules.backtest.kernel_rules import Rules
from modules.backtest.series import load
from modules.domain.instrument import AssetClass
from modules.domain.policies import LearningPolicy
from modules.domain.sessions import parse_iso
from modules.domain.signal import Structure
from modules.learning import allocation

Floats = NDArray[np.float64]
SHARED: Final = Path(__file__).resolve().parents[2] / "shared" / "market_data"
DRAWS: Final = 10_000
WEEK: Final = 7
PER_YEAR: Final = {AssetClass.FOREX: 252.0}


def daily_net_r(folder: Path, asset_class: AssetClass, since: int, until: int) -> tuple[list[str], Floats, list[int], list[str]]:
    """(strategies, f8[days, strategies] mean net R over the instruments, trades per strategy, instruments)."""
    policies = common.policies()
    chosen = basket(load(folder, {asset_class}, costs=policies.costs, timerange=(since, until), timeframe="1h").values(), asset_class,
                    bars_min=2_000, share_min=0.25)
    strategies = [s for s in common.strategies_of(asset_class) if s.structure is Structure.SINGLE]
    rules = Rules(policies)
    days = (until - since) // common.DAY
    found, counts = np.zeros((days, len(strategies))), []
    for column, strategy in enumerate(strategies):
        count = 0
        for one in chosen.series.values():
            trades = kernel.run(strategy, strategy.params, one, rules).trades
            trades = trades[(trades["risk"] > 0.0) & (trades["exit_at"] < until)]
            np.add.at(found[:, column], (trades["exit_at"] - since) // common.DAY, trades["net"] / trades["risk"])
            count += len(trades)
        counts.append(count)
        print(f"    {asset_class.value} {strategy.name}: {count} trades on {len(chosen.series)} instruments", flush=True)
    return [s.name for s in strategies], found / max(1, len(chosen.series)), counts, sorted(chosen.series)


def weights_of(results: Floats, policy: LearningPolicy) -> Floats:
    """What was in force on each day, as Learning_Agent would have had it."""
    belief = allocation.first(results.shape[1:])
    found = np.ones_like(results)
    peak, running = np.zeros(results.shape[1]), np.zeros(results.shape[1])
    for day, row in enumerate(results):
        found[day] = belief.weights
        before = peak - running
        running = running + row
        peak = np.maximum(peak, running)
        deeper = np.maximum(0.0, peak - running - before)
        belief = allocation.observe(belief, row - float(policy.drawdown_penalty) * deeper, policy.allocation)
    return found


def sharpe(daily: Floats, per_year: float) -> Floats:
    spread = daily.std(axis=0)
    return np.asarray(daily.mean(axis=0) / np.where(spread > 0.0, spread, 1.0) * math.sqrt(per_year))


def judge(results: Floats, policy: LearningPolicy, per_year: float, names: Sequence[str]) -> dict[str, Any]:
    weights = weights_of(results, policy)
    uniform, learned = results.mean(axis=1), (weights * results).mean(axis=1)
    each = sharpe(results, per_year)
    half = len(results) // 2
    best, first = int(np.argmax(each)), int(np.argmax(sharpe(results[:half], per_year)))
    weeks = len(results) // WEEK
    pair = np.stack([learned, uniform], axis=1)[:weeks * WEEK].reshape(weeks, WEEK, 2)
    generator = np.random.default_rng(1)
    drawn = []
    for _ in range(DRAWS):
        both = sharpe(pair[generator.integers(0, weeks, weeks)].reshape(-1, 2), per_year)
        drawn.append(float(both[0] - both[1]))
    low, high = np.quantile(drawn, [0.05, 0.95])
    return {
        "sharpe": {"uniform": float(sharpe(uniform, per_year)), "learned": float(sharpe(learned, per_year)),
                   "best_fixed": float(each.max()), "chosen_second_half": float(sharpe(results[half:, first], per_year)),
                   "learned_second_half": float(sharpe(learned[half:], per_year)),
                   "uniform_second_half": float(sharpe(uniform[half:], per_year))},
        "best_fixed": names[best], "chosen": names[first],
        "net_r": {"uniform": float(uniform.sum()), "learned": float(learned.sum()), "best_fixed": float(results[:, best].sum())},
        "difference_90": [float(low), float(high)],
        "last_weights": dict(zip(names, weights[-1].round(3).tolist(), strict=True)),
        "each": dict(zip(names, each.round(3).tolist(), strict=True)),
        "turnover": float(np.abs(np.diff(weights, axis=0)).mean())}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED, help="default: the recordings beside this repository")
    parser.add_argument("--classes", default="SPOT,PERP,FOREX")
    parser.add_argument("--since", default="2018-01-01T00:00:00Z")
    parser.add_argument("--until", default="2025-01-01T00:00:00Z")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    since, until = parse_iso(options.since), parse_iso(options.until)
    policy, found = common.policies().learning, dict[str, Any]()
    if not options.data.is_dir():
        print(f"  {options.data}: no recordings there; nothing was measured")
    for asset_class in map(AssetClass, options.classes.split(",") if options.data.is_dir() else ()):
        names, results, counts, instruments = daily_net_r(options.data, asset_class, since, until)
        active = np.flatnonzero(results.any(axis=1))
        if len(active) < 60:
            print(f"  {asset_class.value}: {len(active)} days with a closed trade are too few")
            continue
        results = results[active[0]:active[-1] + 1]
        one = judge(results, policy, PER_YEAR.get(asset_class, 365.0), names)
        found[asset_class.value] = one | {"days": len(results), "trades": dict(zip(names, counts, strict=True)), "instruments": instruments}
        told = "  ".join(f"{name} {value:+.2f}" for name, value in one["sharpe"].items())
        print(f"  {asset_class.value} {len(results)} days: {told}; learned - uniform 90 %: {one['difference_90'][0]:+.2f} .. "
              f"{one['difference_90'][1]:+.2f}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({"benchmark": "learning_recorded", "machine": common.machine(), "since": options.since,
                                            "until": options.until, "classes": found}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
