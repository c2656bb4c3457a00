"""Can noise get a certificate, and does a real edge get one? `python -m benchmarks.validation_power [--small] [--only NAME ...]`

Strategies whose worth is known go through the gate, and approvals are counted. Two layers: `returns` simulates daily results and takes them
through everything that needs nothing else (walk-forward choice, max-t bootstrap, CSCV, neighbours, concentration, floors); `prices` plants
the same in markets and takes the whole pipeline (step, fills, costs, gates, random entries, stress, look-ahead).
Every world has a seed: its number in the campaign. t is that of the out-of-sample daily net result of a variant that carries the edge.
The bar on every row is the requirement; exit code 1 if one is missed.

`--keep FILE` writes one line a world as it ends, and goes on from there when it is run again: the long campaigns survive an interruption.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks import common
from benchmarks.validation_prices import CHEATS, Found, Prices
from benchmarks.validation_worlds import COLUMNS, PERIODS, ROWS, VARIANTS, Daily, daily_results
from modules.backtest import digests, metrics, overfit, walk_forward
from modules.backtest.bootstrap import Aim, draws_for, joint_block, max_t
from modules.backtest.validation import Floats, plain
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
NARROW, NARROW_DRAWS = 100, 20_000
"""Columns, and resamples of them, that are asked first whether there is any hope."""
COLUMNS_ASKED: Final = 50
"""So many columns are asked for their block length: in these worlds all are alike."""
SETS_EACH: Final = 10
GRID: Final = tuple({"row": float(row), "column": float(column)} for row in range(ROWS) for column in range(COLUMNS))
AROUND: Final = walk_forward.neighbours(GRID)


class Campaign(NamedTuple):
    """Worlds of one kind. Every campaign has seeds of its own."""

    layer: str
    name: str
    worlds: int
    bar: float
    at_least: bool
    first_seed: int
    world: Callable[[int], Found]


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
    def interval(self) -> tuple[float, float]:
        """95 %, Clopper & Pearson (1934)."""
        return (_bound(self.approved - 1, self.worlds, 0.975) if self.approved else 0.0,
                _bound(self.approved, self.worlds, 0.025) if self.approved < self.worlds else 1.0)

    @property
    def met(self) -> bool:
        """A campaign that was scaled down may miss its bar by three standard deviations: so few worlds cannot tell."""
        slack = 3.0 * math.sqrt(self.bar * (1 - self.bar) / self.worlds) if self.scaled else 0.0
        return self.share >= self.bar - slack if self.at_least else self.share <= self.bar + slack


def _bound(most: int, worlds: int, chance: float) -> float:
    """The share at which at most so many of so many worlds are approved with this chance."""
    def at_most(share: float) -> float:
        logs = [math.lgamma(worlds + 1) - math.lgamma(k + 1) - math.lgamma(worlds - k + 1)
                + k * math.log(share) + (worlds - k) * math.log1p(-share) for k in range(most + 1)]
        return math.fsum(map(math.exp, logs))

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(middle) > chance else (low, middle)
    return (low + high) / 2


def evidence(daily: Floats, others: Floats, policy: ValidationPolicy, submissions: int, seed: int, *, hasty: bool) -> Evidence:
    """Everything that can be said about [days, K] daily results; `others` [days, n]: earlier trials of the idea on the same days.

    `hasty`: leave out the bootstrap where another bar is missed already or its first resamples leave no hope. What is approved is the same.
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
        wanted = draws_for(allowed, policy.bootstrap_draws, policy.bootstrap_draws_max)
        aim = Aim(chosen, allowed, FIRST_DRAWS if hasty else draws_for(float(policy.p_value_max), policy.bootstrap_draws))
        if not hasty or not beyond_hope(table, wanted, seed, block, aim):
            found = max_t(table, wanted, seed, block=block, aim=aim)
            p, t, critical = float(found.p_of[chosen]), float(found.t[chosen]), found.critical(allowed)
    return Evidence(
        strategy="planted", asset_class=AssetClass.PERP, years=len(daily) / PERIODS, out_years=len(walk.tested) / PERIODS,
        trials=daily.shape[1] + others.shape[1], tested=daily.shape[1] + others.shape[1], p=p, t=t, critical_t=critical, sharpe=sharpe,
        psr=metrics.psr_of(walk.tested), net=float(walk.tested.sum()), loss_probability=halves.loss_probability, pbo=halves.pbo,
        month_share=month_share,
        neighbours_share=overfit.neighbours_share(daily, chosen, near), has_neighbours=bool(near), efficiency=walk.efficiency,
        **PASSES_EASILY)


def beyond_hope(table: Floats, draws: int, seed: int, block: float, aim: Aim) -> bool:
    """Whether a few columns show already that the aim cannot be reached. Exact: further columns make no maximum smaller, and so many of the
    first resamples reach the chosen column's t that p over all `draws` must exceed the limit."""
    if draws <= NARROW_DRAWS:
        return False
    allowed = aim.limit * (draws + 1)
    found = max_t(table[:, :NARROW], NARROW_DRAWS, seed, block=block, aim=aim._replace(limit=allowed / (NARROW_DRAWS + 1)))
    return round(float(found.p_of[aim.column]) * (found.draws + 1)) > allowed


def of_returns(world: Daily, policy: ValidationPolicy, seed: int, *, hasty: bool) -> Found:
    """One world of simulated daily results."""
    daily = daily_results(world, seed)
    verdict = judge(evidence(daily, daily[:, :0], policy, 1, seed, hasty=hasty), policy, 1)
    return Found(verdict.verdict.value, verdict.failed, plain(verdict.metrics["p"]), plain(verdict.metrics["sharpe"]))


def of_retries(policy: ValidationPolicy, seed: int) -> Found:
    """Whether one of a hundred successive variants of one noise idea is approved: each submits ten fresh sets, all that was tried before
    is in its test, and the n-th must be far surer than the first. (That the registry knows the idea again: tests/test_trials.py.)"""
    daily = daily_results(Daily(years=YEARS, variants=SUBMISSIONS * SETS_EACH), seed)
    for number in range(1, SUBMISSIONS + 1):
        begin = (number - 1) * SETS_EACH
        ours, before = daily[:, begin : begin + SETS_EACH], daily[:, :begin]
        t = max(math.sqrt(len(ours)) * metrics.ratios(ours))
        if t < NEAR * NormalDist().inv_cdf(1.0 - limit(policy, number)):
            continue
        verdict = judge(evidence(ours, before, policy, number, seed, hasty=True), policy, number)
        if verdict.verdict is Outcome.APPROVED:
            return Found(verdict.verdict.value, (), verdict.metrics["p"], verdict.metrics["sharpe"], number)
    return Found("NONE APPROVED", ())


EDGES: Final = ((50, 4.25, 0.90), (50, 3.5, 0.80), (1, 4.25, 0.90), (1, 3.5, 0.70))
"""Variants, t, share that must be approved."""


def planned(options: argparse.Namespace, policy: ValidationPolicy) -> list[Campaign]:
    share = options.scale
    noise, planted, retries = (max(2, round(count * share)) for count in (1000, 200, 3000))

    def returns(world: Daily, *, hasty: bool = True) -> Callable[[int], Found]:
        return lambda seed: of_returns(world, policy, seed, hasty=hasty)

    rows = [
        Campaign("returns", "noise AR .1, best of 50", noise, 0.01, False, 1_000_000, returns(Daily(YEARS))),
        Campaign("returns", "noise AR .3, best of 50", noise, 0.01, False, 2_000_000, returns(Daily(YEARS, autocorrelation=0.3))),
        Campaign("returns", "100 variants of one noise idea", retries, 0.01, False, 3_000_000, lambda seed: of_retries(policy, seed))]
    for number, (variants, t, bar) in enumerate(EDGES):
        world = Daily(YEARS, variants=variants, t=t, tested_share=1 - policy.train_share)
        rows.append(Campaign("returns", f"edge t = {t}, K = {variants}", planted, bar, True, 4_000_000 + 100_000 * number,
                             returns(world, hasty=False)))
    prices = Prices(policy, YEARS)
    rows += [
        Campaign("prices", "noise AR .1, best of 50", noise, 0.01, False, 5_000_000, prices.noise(0.1)),
        Campaign("prices", "noise AR .3, best of 50", noise, 0.01, False, 6_000_000, prices.noise(0.3)),
        Campaign("prices", "random longs, drifting market", noise, 0.01, False, 7_000_000, prices.longs()),
        Campaign("prices", "look-ahead cheats", max(len(CHEATS), round(120 * share)), 0.0, False, 8_000_000, prices.cheating)]
    for number, (variants, t, bar) in enumerate(EDGES):
        rows.append(Campaign("prices", f"edge t = {t}, K = {variants}", planted, bar, True, 9_000_000 + 100_000 * number,
                             prices.planted(variants, t)))
    return [row for row in rows if row.layer in options.layers and (not options.only or any(word in row.name for word in options.only))]


class Kept:
    """Worlds that were judged before under the same bars, one line each. Anything else in the file is passed over."""

    def __init__(self, path: Path | None, terms: str) -> None:
        self._path, self._terms = path, terms
        self._known: dict[tuple[str, str, int], Found] = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                found = json.loads(line)
                if found.get("terms") == terms:
                    self._known[found["layer"], found["campaign"], found["seed"]] = Found(
                        found["verdict"], tuple(found["failed"]), found["p"], found["sharpe"], found["number"])

    def judged(self, campaign: Campaign) -> Iterable[Found]:
        """Every world of the campaign, in the order of its seeds."""
        for seed in range(campaign.first_seed, campaign.first_seed + campaign.worlds):
            known = self._known.get((campaign.layer, campaign.name, seed))
            yield known if known is not None else self._keep(campaign, seed)

    def _keep(self, campaign: Campaign, seed: int) -> Found:
        began = time.process_time()
        found = campaign.world(seed)
        if self._path is not None:
            line = {"layer": campaign.layer, "campaign": campaign.name, "seed": seed, **found._asdict(),
                    "cpu_s": round(time.process_time() - began, 2), "terms": self._terms}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        return found


def tally(campaign: Campaign, found: Iterable[Found], *, scaled: bool) -> Row:
    worlds = approved = 0
    failed = Counter[str]()
    for one in found:
        worlds += 1
        approved += one.verdict == Outcome.APPROVED.value
        failed.update(one.failed)
    return Row(campaign.layer, campaign.name, worlds, approved, campaign.bar, campaign.at_least, dict(failed.most_common(4)), scaled)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validation_power", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of worlds")
    parser.add_argument("--small", action="store_true", help="a twentieth of the worlds, daily results only: for continuous integration")
    parser.add_argument("--layers", nargs="+", choices=("returns", "prices"), default=["returns", "prices"])
    parser.add_argument("--only", nargs="+", help="campaigns whose name contains one of these")
    parser.add_argument("--keep", type=Path, help="one line of JSON a world; worlds that are in it are not judged again")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    if options.small:
        options.scale, options.layers = 0.05, ["returns"]
    policy = common.policies().validation
    kept = Kept(options.keep, digests.of("worlds", policy.model_dump_json(), YEARS)[:16])
    rows: list[Row] = []
    print(f"{'layer':<8} {'campaign':<32} {'worlds':>6} {'approved':>9} {'95 %':>15} {'bar':>9}         s  bars missed most")
    for campaign in planned(options, policy):
        began = time.perf_counter()
        row = tally(campaign, kept.judged(campaign), scaled=options.scale < 1.0)
        rows.append(row)
        missed = ", ".join(f"{rule} {number}" for rule, number in row.failed.items())
        low, high = row.interval
        print(f"{row.layer:<8} {row.campaign:<32} {row.worlds:>6} {row.share:>8.1%} {low:>7.2%} {high:>7.2%} "
              f"{'>=' if row.at_least else '<='} {row.bar:>6.1%}  {'ok' if row.met else 'MISSED':<6} {time.perf_counter() - began:>4.0f}  "
              f"{missed}", flush=True)
    if options.json is not None:
        figures = [{**row._asdict(), "share": row.share, "interval": row.interval, "met": row.met} for row in rows]
        document = {"machine": common.machine(), "years": YEARS, "rows": figures}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
