"""Can noise get a certificate, and does a real edge get one? `python -m benchmarks.validation_power [--small] [--only NAME ...]`

Strategies whose worth is known go through the gate, and approvals are counted. Two layers: `returns` simulates daily results and takes them
through everything that needs nothing else (walk-forward choice, max-t bootstrap, CSCV, neighbours, concentration, floors; seconds a
campaign); `prices` plants the same in markets and takes the whole pipeline (step, fills, costs, gates, random entries, stress, look-ahead).
Every world has a seed: its number in the campaign. t is that of the out-of-sample daily net result of a variant that carries the edge.
The bar on every row is the requirement; exit code 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks import common
from benchmarks.validation_prices import Prices
from benchmarks.validation_worlds import COLUMNS, PERIODS, ROWS, VARIANTS, Daily, daily_results
from modules.backtest import metrics, overfit, walk_forward
from modules.backtest.bootstrap import draws_for, joint_block, max_t
from modules.backtest.validation import Floats
from modules.backtest.verdict import Evidence, Outcome, judge, limit
from modules.domain.instrument import AssetClass
from modules.domain.policies import ValidationPolicy

YEARS: Final = 5.0
PASSES_EASILY: Final[dict[str, Any]] = {"trades": 5_000, "excess_p": 0.0, "stressed_net": 1.0, "trade_share": 0.0, "drawdown": 0.0}
"""What daily results alone cannot tell; the prices layer measures it."""
SUBMISSIONS: Final = 100
NEAR: Final = 0.85
"""Of the t that a single test would need: what is further below cannot pass a test over all trials either, and needs no bootstrap."""
FIRST_DRAWS: Final = 200
NARROW: Final = 100
"""Columns that are asked first whether enough resamples are beyond hope."""
COLUMNS_ASKED: Final = 50
"""So many columns are asked for their block length: in these worlds all are alike."""
SETS_EACH: Final = 10
GRID: Final = tuple({"row": float(row), "column": float(column)} for row in range(ROWS) for column in range(COLUMNS))
AROUND: Final = walk_forward.neighbours(GRID)


class Row(NamedTuple):
    """One line of the table."""

    layer: str
    campaign: str
    worlds: int
    approved: int
    bar: float
    at_least: bool
    failed: dict[str, int]
    """How often each bar of the gate was missed; one that was not measured, as others were missed already, counts as missed."""
    scaled: bool = False

    @property
    def share(self) -> float:
        return self.approved / self.worlds if self.worlds else math.nan

    @property
    def met(self) -> bool:
        """A campaign that was scaled down may miss its bar by three standard deviations: so few worlds cannot tell."""
        slack = 3.0 * math.sqrt(self.bar * (1 - self.bar) / self.worlds) if self.scaled else 0.0
        return self.share >= self.bar - slack if self.at_least else self.share <= self.bar + slack


def evidence(daily: Floats, others: Floats, policy: ValidationPolicy, submissions: int, seed: int, *, hasty: bool) -> Evidence:
    """Everything that can be said about [days, K] daily results; `others` [days, n]: earlier trials of the idea on the same days.

    `hasty`: leave out the bootstrap where another bar is missed already or its first resamples leave no hope: the verdict is the same.
    """
    around = AROUND if daily.shape[1] == VARIANTS else ()
    steps = walk_forward.windows(len(daily), policy.windows, policy.embargo, 1, policy.train_share)
    walk = walk_forward.walk(daily, steps, around)
    chosen, ratio = walk_forward.choose(daily, around), metrics.ratio(walk.tested)
    sharpe = ratio * math.sqrt(PERIODS)
    near = around[chosen] if around else ()
    p, t, critical, halves = math.nan, math.nan, math.inf, overfit.Overfit(math.nan, math.nan, 0)
    month_share = metrics.largest_share(metrics.monthly(np.arange(len(walk.tested)), walk.tested))
    open_yet = not hasty or (sharpe > policy.sharpe_min[AssetClass.PERP] and month_share <= policy.month_share_max)
    if open_yet:
        halves = overfit.cscv(daily, policy.cscv_blocks)
        open_yet = not hasty or halves.loss_probability <= policy.loss_probability_max
    if open_yet:
        allowed = limit(policy, submissions)
        table = np.concatenate((daily, others), axis=1)
        block = joint_block(table[:, :: max(1, table.shape[1] // COLUMNS_ASKED)])
        wanted = draws_for(allowed, policy.bootstrap_draws)
        if not hasty or not beyond_hope(table, chosen, allowed, wanted, seed, block):
            found = max_t(table, wanted, seed, block=block)
            p, t, critical = float(found.p_of[chosen]), float(found.t[chosen]), found.critical(allowed)
    return Evidence(
        strategy="planted", asset_class=AssetClass.PERP, years=len(daily) / PERIODS, out_years=len(walk.tested) / PERIODS,
        trials=daily.shape[1] + others.shape[1], tested=daily.shape[1] + others.shape[1], p=p, t=t, critical_t=critical, sharpe=sharpe,
        psr=metrics.psr_of(walk.tested), net=float(walk.tested.sum()), loss_probability=halves.loss_probability, pbo=halves.pbo,
        month_share=month_share,
        neighbours_share=overfit.neighbours_share(daily, chosen, near), has_neighbours=bool(near), efficiency=walk.efficiency,
        **PASSES_EASILY)


def beyond_hope(table: Floats, chosen: int, allowed: float, draws: int, seed: int, block: float) -> bool:
    """Whether the first of the `draws` resamples already hold so many maxima above the chosen column that its p value over all of them
    must exceed `allowed`. Exact: neither further resamples nor further columns make that count smaller."""
    for columns in (table[:, :NARROW], table):
        count = FIRST_DRAWS
        while 3 * count < draws:
            reached = round(float(max_t(columns, count, seed, block=block).p_of[chosen]) * (count + 1))
            if reached > allowed * (draws + 1):
                return True
            if count > 10 * FIRST_DRAWS and reached * draws < count * allowed * draws and columns is not table:
                break  # so few columns will not decide it
            count *= 3
    return False


def of_returns(world: Daily, policy: ValidationPolicy, worlds: int, first_seed: int, *, hasty: bool) -> tuple[int, Counter[str]]:
    """(approvals, missed bars) over worlds of simulated daily results."""
    approved, failed = 0, Counter[str]()
    for seed in range(first_seed, first_seed + worlds):
        daily = daily_results(world, seed)
        verdict = judge(evidence(daily, daily[:, :0], policy, 1, seed, hasty=hasty), policy, 1)
        approved += verdict.verdict is Outcome.APPROVED
        failed.update(verdict.failed)
    return approved, failed


def of_retries(policy: ValidationPolicy, campaigns: int, first_seed: int) -> tuple[int, Counter[str]]:
    """Campaigns in which one of a hundred successive variants of one noise idea is approved: each submits ten fresh sets, all that was
    tried before is in its test, and the n-th must be n times as sure. (That the registry knows the idea again: tests/test_trials.py.)"""
    approved = 0
    for seed in range(first_seed, first_seed + campaigns):
        daily = daily_results(Daily(years=YEARS, variants=SUBMISSIONS * SETS_EACH), seed)
        for number in range(SUBMISSIONS):
            begin = number * SETS_EACH
            ours, before = daily[:, begin : begin + SETS_EACH], daily[:, :begin]
            t = max(math.sqrt(len(ours)) * metrics.ratios(ours))
            if t < NEAR * NormalDist().inv_cdf(1.0 - limit(policy, number + 1)):
                continue
            if judge(evidence(ours, before, policy, number + 1, seed, hasty=True), policy, number + 1).verdict is Outcome.APPROVED:
                approved += 1
                break
    return approved, Counter()


Planned = tuple[str, str, int, float, bool, Callable[[int], tuple[int, Any]]]
EDGES: Final = ((50, 4.25, 0.90), (50, 3.5, 0.80), (1, 4.25, 0.90), (1, 3.5, 0.70))
"""Variants, t, share that must be approved."""


def planned(options: argparse.Namespace, policy: ValidationPolicy) -> list[Planned]:
    """(layer, name, worlds, bar, at least, how to count). Every campaign has worlds of its own."""
    share = options.scale
    noise, planted, retries = (max(2, round(count * share)) for count in (1000, 200, 100))

    def returns(world: Daily, seed: int, *, hasty: bool = True) -> Callable[[int], tuple[int, Any]]:
        return lambda count: of_returns(world, policy, count, seed, hasty=hasty)

    rows: list[Planned] = [
        ("returns", "noise AR .1, best of 50", noise, 0.01, False, returns(Daily(YEARS), 1_000_000)),
        ("returns", "noise AR .3, best of 50", noise, 0.01, False, returns(Daily(YEARS, autocorrelation=0.3), 2_000_000)),
        ("returns", "100 variants of one noise idea", retries, 0.01, False, lambda count: of_retries(policy, count, 3_000_000))]
    for number, (variants, t, bar) in enumerate(EDGES):
        world = Daily(YEARS, variants=variants, t=t, tested_share=1 - policy.train_share)
        rows.append(("returns", f"edge t = {t}, K = {variants}", planted, bar, True,
                     returns(world, 4_000_000 + 100_000 * number, hasty=False)))
    prices = Prices(policy, YEARS)
    rows += [
        ("prices", "noise AR .1, best of 50", noise, 0.01, False, lambda count: prices.noise(count, 5_000_000, 0.1)),
        ("prices", "noise AR .3, best of 50", noise, 0.01, False, lambda count: prices.noise(count, 6_000_000, 0.3)),
        ("prices", "random longs, drifting market", noise, 0.01, False, lambda count: prices.longs(count, 7_000_000)),
        ("prices", "look-ahead cheats", len(prices.cheats), 0.0, False, lambda count: prices.cheating(8_000_000))]
    for number, (variants, t, bar) in enumerate(EDGES):
        rows.append(("prices", f"edge t = {t}, K = {variants}", planted, bar, True,
                     partial(prices.planted, first_seed=9_000_000 + 100_000 * number, variants=variants, t=t)))
    return [row for row in rows if row[0] in options.layers and (not options.only or any(word in row[1] for word in options.only))]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validation_power", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of worlds")
    parser.add_argument("--small", action="store_true", help="a twentieth of the worlds, daily results only: for continuous integration")
    parser.add_argument("--layers", nargs="+", choices=("returns", "prices"), default=["returns", "prices"])
    parser.add_argument("--only", nargs="+", help="campaigns whose name contains one of these")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    if options.small:
        options.scale, options.layers = 0.05, ["returns"]
    policy = common.policies().validation
    rows: list[Row] = []
    print(f"{'layer':<8} {'campaign':<32} {'worlds':>6} {'approved':>9} {'bar':>9}         s  bars missed most")
    for layer, name, worlds, bar, at_least, count in planned(options, policy):
        began = time.perf_counter()
        approved, failed = count(worlds)
        row = Row(layer, name, worlds, approved, bar, at_least, dict(failed.most_common(4)), options.scale < 1.0)
        rows.append(row)
        missed = ", ".join(f"{rule} {number}" for rule, number in row.failed.items())
        print(f"{layer:<8} {name:<32} {worlds:>6} {row.share:>8.1%} {'>=' if at_least else '<='} {bar:>6.1%}"
              f"  {'ok' if row.met else 'MISSED':<6} {time.perf_counter() - began:>4.0f}  {missed}", flush=True)
    if options.json is not None:
        figures = [{**row._asdict(), "share": row.share, "met": row.met} for row in rows]
        document = {"machine": common.machine(), "years": YEARS, "rows": figures}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
