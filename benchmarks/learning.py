"""Allocation and calibration against their ceilings. `python -m benchmarks.learning [--seeds 400] [--seed 1] [--json FILE]`.

Worlds of eight strategies over six years, one daily result each with standard deviation 1. In the regime worlds each strategy is good
(annual Sharpe +1.2) or bad (-1.1) and changes with a mean stay of 120 or 365 days, independently; in the last all are equally good and
nothing can be learned. A unit of weight moved costs 0.05. The ceiling is the Bayes filter that knows every parameter and weighs by
posterior mean; all move weekly. Paired: every method sees the same 400 worlds. Then updates per second and what a decision pays.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import common
from modules.domain.instrument import AssetClass
from modules.domain.policies import AllocationPolicy, CalibrationPolicy
from modules.learning import allocation, calibration
from modules.Learning_Agent import LearningAgent
from modules.store.journal import Journal

Floats = NDArray[np.float64]
STRATEGIES: Final = 8
DAYS: Final = 6 * 365
COST: Final = 0.05
GOOD: Final = 1.2 / np.sqrt(365.0)
BAD: Final = -1.1 / np.sqrt(365.0)
WORLDS: Final = {"120-day regimes": 120.0, "365-day regimes": 365.0, "nothing to learn": 0.0}


def world(stay: float, seeds: int, seed: int) -> Floats:
    """f8[days, seeds, strategies] of daily net results."""
    generator = np.random.default_rng((seed, int(stay)))
    noise: Floats = generator.standard_normal((DAYS, seeds, STRATEGIES))
    if not stay:
        equal: Floats = noise + np.full(STRATEGIES, 0.5 / np.sqrt(365.0))
        return equal
    start = generator.random((1, seeds, STRATEGIES)) < 0.5
    flips = generator.random((DAYS, seeds, STRATEGIES)) < 1.0 / stay
    good = (start + np.cumsum(flips, axis=0)) % 2 == 1
    regimes: Floats = np.where(good, GOOD, BAD)
    shifted: Floats = noise + regimes
    return shifted


def bayes_filter(results: Floats, stay: float) -> Floats:
    """Weights in force on each day of somebody who knows the two means, the noise and the stay; weekly."""
    days, seeds, strategies = results.shape
    likely = np.full((seeds, strategies), 0.5)
    held = np.zeros((seeds, strategies))
    weights = np.zeros_like(results)
    for day in range(days):
        weights[day] = held
        good, bad = (np.exp(-0.5 * (results[day] - mean) ** 2) for mean in (GOOD, BAD))
        likely = likely * good / (likely * good + (1.0 - likely) * bad)
        likely = likely * (1.0 - 1.0 / stay) + (1.0 - likely) / stay
        if day % 7 == 6:
            held = np.maximum(0.0, likely * GOOD + (1.0 - likely) * BAD) / GOOD
    return weights


def learned(results: Floats, policy: AllocationPolicy) -> Floats:
    belief = allocation.first(results.shape[1:])
    weights = np.ones_like(results)
    for day in range(results.shape[0]):
        weights[day] = belief.weights
        belief = allocation.observe(belief, results[day], policy)
    return weights


def net_sharpe(results: Floats, weights: Floats) -> tuple[Floats, float]:
    """(annual, per seed; mean turnover per strategy and day)."""
    moved = np.abs(np.diff(weights, axis=0, prepend=weights[:1]))
    daily = ((weights * results) - COST * moved).mean(axis=-1)
    return daily.mean(axis=0) / np.maximum(daily.std(axis=0), 1e-12) * np.sqrt(365.0), float(moved.mean())


def allocate(seeds: int, seed: int, policy: AllocationPolicy) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, stay in WORLDS.items():
        results = world(stay, seeds, seed)
        methods = {"uniform": np.ones_like(results), "learned": learned(results, policy)}
        if stay:
            methods["ceiling"] = bayes_filter(results, stay)
        figures: dict[str, dict[str, float]] = {}
        for method, weights in methods.items():
            sharpe, turnover = net_sharpe(results, weights)
            figures[method] = {"sharpe": float(sharpe.mean()), "error": float(sharpe.std() / np.sqrt(seeds)), "turnover": turnover}
        against = figures["ceiling" if stay else "uniform"]["sharpe"]
        share = figures["learned"]["sharpe"] / against
        found[name] = {"methods": figures, "of": "ceiling" if stay else "uniform", "share": share}
        print(f"  {name:<18} " + "  ".join(f"{m} {f['sharpe']:+.3f}" for m, f in figures.items())
              + f"   {share:.0%} of {found[name]['of']}, turnover {figures['learned']['turnover']:.4f}/day", flush=True)
    return found


def calibrate(runs: int, seed: int, policy: CalibrationPolicy, shift: float | None = None) -> dict[str, Any]:
    """Per distortion and number of outcomes, means over `runs`, judged on 20,000 fresh outcomes: expected calibration error (15 bins), and
    log loss above the base rate's: the one an oracle knows (of the fresh outcomes) and the one the same outcomes tell. With `shift` the
    certificate names a win rate, of 500 trades of a past in which that much more won; without it knows none."""
    found: dict[str, Any] = {}
    for name, truth in (("p squared", 2.0), ("calibrated", 1.0), ("says nothing", 0.0)):
        for outcomes in (50, 200, 900, 20_000):
            generator, rows = np.random.default_rng((seed, outcomes, int(10 * truth))), []
            for _ in range(runs if outcomes < 20_000 else max(2, runs // 10)):
                x, fresh = generator.random(outcomes), generator.random(20_000)
                won = generator.random(outcomes) < (x**truth if truth else 0.4)
                came = generator.random(20_000) < (fresh**truth if truth else 0.4)
                past = None if shift is None else float(np.mean(
                    generator.random(500) < np.minimum(1.0, (generator.random(500)**truth if truth else 0.4) + shift)))
                made = calibration.calibrate(x, np.where(won, 1.0, -1.0), calibration.Prior(0.0, 1.0, past), policy, 0.25)
                told = np.interp(fresh, made.wins.score, made.wins.value)
                bins = np.minimum((told * 15).astype(int), 14)
                ece = sum(abs(told[bins == b].mean() - came[bins == b].mean()) * (bins == b).mean() for b in range(15) if (bins == b).any())
                weights = calibration.decayed(outcomes, float(policy.half_life_trades))
                known = (float(weights @ won) + 1.0) / (float(weights.sum()) + 2.0)
                rows.append((ece, log_loss(told, came) - log_loss(np.full(20_000, came.mean()), came),
                             log_loss(told, came) - log_loss(np.full(20_000, known), came)))
            ece, oracle, same = np.mean(rows, axis=0)
            found[f"{name}, {outcomes:,} outcomes"] = {
                "ece": float(ece), "above_oracle_base": float(oracle), "above_known_base": float(same)}
            print(f"  {name:<13} {outcomes:>6,} outcomes: ECE {ece:.3f}, log loss against the base rate {same:+.4f} (an oracle's "
                  f"{oracle:+.4f})", flush=True)
    return found


def log_loss(told: Floats, came: NDArray[np.bool_]) -> float:
    bounded = np.clip(told, 1e-6, 1.0 - 1e-6)
    return float(-np.where(came, np.log(bounded), np.log1p(-bounded)).mean())


def speed(policy: AllocationPolicy) -> float:
    """Updates (one day, eight strategies) per CPU second."""
    generator = np.random.default_rng(3)
    results = generator.standard_normal((5_000, STRATEGIES))
    belief = allocation.first((STRATEGIES,))
    began = time.process_time()
    for row in results:
        belief = allocation.observe(belief, row, policy)
    return len(results) / (time.process_time() - began)


def decision_cost() -> float:
    """Microseconds of CPU that a decision pays: weight, confidence and the record of why, after a year of eight strategies."""
    names = [f"s{number}" for number in range(STRATEGIES)]
    policies = common.policies()
    agent = LearningAgent(journal=Journal(None), policy=policies.learning.model_copy(update={"allocation_on": True}), full_r=0.25,
                          strategies={AssetClass.SPOT: names})
    generator = np.random.default_rng(4)
    for _ in range(365):
        agent._classes[AssetClass.SPOT].belief = allocation.observe(
            agent._classes[AssetClass.SPOT].belief, generator.standard_normal(STRATEGIES), policies.learning.allocation)
        agent._record(("s3", AssetClass.SPOT)).scores.append(float(generator.random()))
        agent._record(("s3", AssetClass.SPOT)).net_r.append(float(generator.standard_normal()))
    record = agent._record(("s3", AssetClass.SPOT))
    record.calibration = calibration.calibrate(
        np.array(record.scores), np.array(record.net_r), calibration.Prior(0.2, 1.0), policies.learning.calibration, 0.25)
    began = time.process_time()
    for _ in range(10_000):
        agent.weight("s3", AssetClass.SPOT)
        agent.confidence("s3", AssetClass.SPOT, 0.5, 0.6)
        agent.explain("s3", AssetClass.SPOT, 0.5)
    return (time.process_time() - began) / 10_000 * 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    policy = common.policies().learning.allocation
    print(f"machine: {common.machine()}\nseed {options.seed}, {options.seeds} worlds each")
    found = allocate(options.seeds, options.seed, policy)
    calibrated = {}
    for name, shift in (("no certificate's win rate", None), ("the certificate's win rate", 0.0),
                        ("a certificate's from better days", 0.1)):
        print(f"  -- {name}")
        calibrated[name] = calibrate(max(2, options.seeds // 10), options.seed, common.policies().learning.calibration, shift)
    updates, cost = speed(policy), decision_cost()
    print(f"  {updates:,.0f} updates per CPU second (goal 10,000); a decision pays {cost:.1f} us (goal 20)")
    print("  goals: at least 60 % of the ceiling with regimes, 93 % of uniform without; turnover at most .05/day")
    if options.json is not None:
        report = {"benchmark": "learning", "machine": common.machine(), "seed": options.seed, "seeds": options.seeds, "worlds": found,
                  "calibration": calibrated, "updates_per_s": updates, "decision_us": cost}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
