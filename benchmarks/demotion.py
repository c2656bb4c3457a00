"""Live demotion: false alarms and how soon the true ones come. `python -m benchmarks.demotion [--years 400] [--runs 400] [--seed 1]`.

Every watch is on in every run. Kinds of strategy: net R normal with standard deviation 1; winners of 1.5 R against losers of 1 R; trend
(winners of 2 R, losers of 1 R, sd 1.47); Student t with 4 degrees of freedom. All have a mean of +.2 R. Two market or stop fills a trade,
whose slippage is normal around the model with a standard deviation of twice the model. A false demotion is one in a year that goes on as
validated (the monitor then starts afresh); edge: the mean falls to -.1 R after 50 good trades; slippage: three times the model from the
first trade. The goal counts at sd 1; the other kinds are shown beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import common
from modules.backtest.demotion import Monitor, drawdown_envelope
from modules.domain.certificate import Envelope
from modules.domain.policies import DemotionPolicy

MEAN: Final = 0.2
FALLEN: Final = -0.1
MODEL_BP: Final = 4.0
WARM: Final = 50
Draw = Callable[[np.random.Generator, float, int], Any]


def _two_sided(win: float) -> Draw:
    """Winners of `win` R, losers of 1 R: the share of winners follows from the mean."""
    return lambda generator, mean, count: np.where(generator.random(count) < (1.0 + mean) / (1.0 + win), win, -1.0)


KINDS: Final[dict[str, Draw]] = {
    "normal": lambda generator, mean, count: generator.normal(mean, 1.0, count),
    "winners 1.5 R": _two_sided(1.5),
    "trend 2 R": _two_sided(2.0),
    "student t 4": lambda generator, mean, count: mean + generator.standard_t(4, count) / np.sqrt(2.0),
}


def envelope(draw: Draw, per_year: float, seed: int) -> Envelope:
    """As a validation would have measured it, from a long sample of the good strategy (its own error is small against live noise)."""
    sample = draw(np.random.default_rng((seed, 99)), MEAN, 20_000)
    trades = int(per_year)
    return Envelope(
        trades=1_000, trades_per_year=per_year, mean_r=float(sample.mean()), sd_r=float(sample.std()),
        drawdown_r=drawdown_envelope(sample, trades, quantile=0.99, block=5, draws=1_000, seed=seed), drawdown_trades=trades,
        slippage_bp=MODEL_BP, fill_ratio=0.98, win_rate=float((sample > 0.0).mean()))


def one_trade(monitor: Monitor, net_r: float, generator: np.random.Generator, multiple: float) -> bool:
    """Whether the monitor has had enough."""
    monitor.entry(1.0, 1.0 if generator.random() < 0.98 else 0.0)
    for slippage in generator.normal(multiple * MODEL_BP, 2.0 * MODEL_BP, 2):
        monitor.fill(float(slippage), MODEL_BP)
    return monitor.trade(net_r) is not None


def false_alarms(draw: Draw, good: Envelope, policy: DemotionPolicy, years: int, seed: int) -> tuple[float, Counter[str]]:
    """Demotions per year of a strategy that goes on as validated, and which watch raised them."""
    generator = np.random.default_rng((seed, 1))
    monitor, count, watches = Monitor(good, policy), 0, Counter[str]()
    for net_r in draw(generator, MEAN, int(years * good.trades_per_year)):
        if one_trade(monitor, float(net_r), generator, 1.0):
            count += 1
            assert monitor.alarm is not None
            watches[monitor.alarm.watch] += 1
            monitor = Monitor(good, policy)
    return count / years, watches


def delays(draw: Draw, good: Envelope, policy: DemotionPolicy, runs: int, seed: int, *, mean: float, multiple: float, warm: int
           ) -> list[int]:
    """Trades from the change to the demotion, per run; runs demoted before the change do not count."""
    found = []
    for run in range(runs):
        generator = np.random.default_rng((seed, 2, run))
        monitor = Monitor(good, policy)
        results = np.concatenate([draw(generator, MEAN, warm), draw(generator, mean, 3_000)])
        for number, net_r in enumerate(results, 1):
            if one_trade(monitor, float(net_r), generator, 1.0 if number <= warm else multiple):
                if number > warm:
                    found.append(number - warm)
                break
    return found


def measure(name: str, per_year: float, policy: DemotionPolicy, years: int, runs: int, seed: int) -> dict[str, Any]:
    draw = KINDS[name]
    good = envelope(draw, per_year, seed)
    rate, watches = false_alarms(draw, good, policy, years, seed)
    edge = delays(draw, good, policy, runs, seed, mean=FALLEN, multiple=1.0, warm=WARM)
    slips = delays(draw, good, policy, runs, seed, mean=MEAN, multiple=3.0, warm=0)
    return {"kind": name, "trades_per_year": per_year, "false_per_year": rate, "by": dict(watches), "edge_median": float(np.median(edge)),
            "edge_p90": common.percentile(edge, 0.9), "slippage_median": float(np.median(slips)),
            "slippage_p95": common.percentile(slips, 0.95)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--years", type=int, default=400, help="strategy-years without a fault, per row")
    parser.add_argument("--runs", type=int, default=400, help="strategies that change, per row")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    policy = common.policies().learning.demotion
    print(f"machine: {common.machine()}\nseed {options.seed}, {options.years} years, {options.runs} runs a row")
    print(f"  {'kind':<14} {'trades/y':>8} {'false/y':>8} {'edge: median':>13} {'p90':>5} {'slippage: median':>17} {'p95':>4}  raised by")
    rows = []
    for name in KINDS:
        for per_year in (150.0, 300.0, 600.0):
            row = measure(name, per_year, policy, options.years, options.runs, options.seed)
            rows.append(row)
            print(f"  {name:<14} {per_year:>8.0f} {row['false_per_year']:>8.3f} {row['edge_median']:>13.0f} {row['edge_p90']:>5.0f} "
                  f"{row['slippage_median']:>17.0f} {row['slippage_p95']:>4.0f}  {row['by']}", flush=True)
    print("  goals: at most 1 false demotion a year, edge median <= 100 trades, slippage <= 10 trades")
    if options.json is not None:
        report = {"benchmark": "demotion", "machine": common.machine(), "seed": options.seed, "rows": rows}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
