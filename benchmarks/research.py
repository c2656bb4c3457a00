"""Does anything simple stand in the recordings? `python -m benchmarks.research [--data DIR] [--only IDEA ...] [--json FILE]`.

The ideas of `benchmarks.research_ideas` over the hourly recordings of every class they are for, through the whole gate, with a registry
that counts every trial and every submission of this run. What does not pass is printed with every bar it misses. A registry file that is
given with `--registry` counts on from the run before: looking twice is a second submission.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import common
from benchmarks.parity import SHARED
from benchmarks.research_ideas import IDEAS, RANK, ranked
from modules.backtest.basket import Basket, basket
from modules.backtest.kernel import Rules
from modules.backtest.pipeline import Job, validate
from modules.backtest.series import Series, load
from modules.backtest.trials import TrialRegistry
from modules.backtest.validation import Validation, plain
from modules.backtest.workers import Serial
from modules.domain.instrument import AssetClass
from modules.strategies.protocol import Strategy

HOUR_MS: Final = 3_600_000
CLASSES: Final = (AssetClass.SPOT, AssetClass.PERP, AssetClass.FOREX)
BARS_MIN: Final = 2_000
TOLD: Final = ("sharpe", "p", "excess_p", "trades", "net", "stressed_net", "drawdown", "loss_probability", "years")


def hourly(data: Path, asset_class: AssetClass) -> dict[str, Series]:
    return {symbol: one for symbol, one in load(data, (asset_class,)).items() if one.interval_ms == HOUR_MS}


def market(found: Mapping[str, Series], asset_class: AssetClass, idea: Strategy) -> Basket:
    share = float(common.policies().validation.basket_share_min)
    chosen = basket(found.values(), asset_class, bars_min=BARS_MIN, share_min=share)
    if idea.step is not RANK.step:
        return chosen
    return basket(ranked(chosen.series).values(), asset_class, bars_min=BARS_MIN, share_min=share)


def looked(idea: Strategy, chosen: Basket, registry: TrialRegistry) -> Validation:
    policies = common.policies()
    found, = validate([Job(idea, chosen, Rules(policies), policies.validation, registry, seed=1, at=0)], Serial())
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.research", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--only", nargs="+", help="ideas by name")
    parser.add_argument("--registry", type=Path, help="folder of trial registries, one a class; without it this run is counted alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    policy = common.policies().validation
    rows: list[dict[str, Any]] = []
    for asset_class in CLASSES:
        ideas = [idea for idea in IDEAS if asset_class in idea.asset_classes and (not options.only or idea.name in options.only)]
        recorded = hourly(options.data, asset_class) if ideas else {}
        path = options.registry / f"trials-{asset_class.value}.db" if options.registry is not None else None
        registry = TrialRegistry(path, same_code=float(policy.same_idea_code), same_results=float(policy.same_idea_correlation))
        for idea in ideas if recorded else ():
            chosen = market(recorded, asset_class, idea)
            found = looked(idea, chosen, registry)
            rows.append({"idea": idea.name, "class": asset_class.value, "instruments": list(chosen.series), "verdict": found.verdict,
                         "params": dict(found.params), "trials": found.trials, "submission": found.submissions,
                         **{name: plain(found.metrics.get(name)) for name in TOLD},
                         "missed": [line.rule for line in found.lines if line.gate and not line.passed], "missing": found.missing})
            print(f"{idea.name:<9} {asset_class.value:<6} {found.verdict:<22} {found.trials:>4} trials, submission {found.submissions}, "
                  f"Sharpe {found.metrics['sharpe']:.2f}, p {found.metrics['p']:.4f}, excess p {found.metrics['excess_p']:.4f}, "
                  f"{found.metrics['trades']:.0f} trades: {', '.join(rows[-1]['missed'])}", flush=True)
        registry.close()
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": common.machine(), "rows": rows}, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
