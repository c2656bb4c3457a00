"""What validation's worker processes compute: one strategy on one instrument at a time, and the statistics of a basket. Pure functions of
their arguments that give back plain data; Numba is loaded only where one of them runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from modules.backtest import bootstrap, kernel, metrics, overfit, prefix, warm
from modules.backtest.kernel import Rules
from modules.backtest.series import Series
from modules.backtest.validation import Floats
from modules.domain.errors import DataError
from modules.domain.instrument import AssetClass
from modules.strategies.protocol import Strategy

DAY_MS: Final = 86_400_000
PRICES_MAX: Final = 1_500
MARKS_MAX: Final = 400
"""Points and trades kept for a picture."""


def probe(series: Series, strategy: Strategy, rules: Rules, bars: int, cuts: int, compiled: bool) -> dict[str, Any]:
    """Compile, and look for knowledge of the future: {"differences", "note"}. Step interpreted and compiled, on prefixes and on all.

    Raises what the strategy raises.
    """
    shown = series if len(series) <= bars else series.part(0, bars)
    found = prefix.lookahead(strategy, strategy.params, shown, bars_max=bars, cuts=cuts)
    differences = sum(cut.differing for cut in found.cuts) + len(found.impurities) + (not found.repeatable)
    note = found.reason
    whole = kernel.run(strategy, strategy.params, shown, rules, compiled=compiled)
    if not np.all(np.isfinite(whole.daily)):
        raise ValueError("its results are no finite numbers")
    half = len(shown) // 2
    if half > 1:
        part = kernel.run(strategy, strategy.params, shown.part(0, half), rules, finish=False, compiled=compiled)
        ended = whole.trades[whole.trades["exit_at"] < shown.at[half - 1]]
        begun = part.trades[part.trades["exit_at"] < shown.at[half - 1]]
        if len(ended) != len(begun) or any(not np.array_equal(ended[name], begun[name]) for name in ("entry_at", "exit_at", "side", "net")):
            differences += 1
            note = note or f"trades on {series.symbol} differ when later bars are there"
    return {"differences": int(differences), "note": note}


def prepare(rules: Rules) -> None:
    """Compile what no strategy has a part in, while another worker compiles what one has."""
    warm.statistics(rules)


def sweep(series: Series, strategy: Strategy, sets: Sequence[Any], rules: Rules, compiled: bool) -> dict[str, Any]:
    """Every parameter set over the whole series. {"unusable": why} for an instrument that cannot be simulated."""
    try:
        found = kernel.sweep(strategy, sets, series, rules, compiled=compiled)
    except DataError as error:
        return {"unusable": "; ".join(error.faults)}
    if not np.all(np.isfinite(found.daily)):
        raise ValueError("its results are no finite numbers")
    return {"first_day": found.first_day, "daily": found.daily, "trades": found.trades, "net_exposure": found.net_exposure,
            "longest": found.longest, "market": market(series, found.first_day, len(found.daily))}


def market(series: Series, first_day: int, days: int) -> Floats:
    """[days] what holding the instrument earned each UTC day: close to close, flat where there was no bar."""
    rows = (series.at - 1) // DAY_MS - first_day
    last = np.flatnonzero(np.append(np.diff(rows), 1))
    closes = series.close[last]
    found = np.zeros(days)
    found[rows[last][1:]] = np.diff(closes) / closes[:-1]
    return found


def test(series: Series, strategy: Strategy, windows: Sequence[tuple[Any, int, int]], final: Any, rules: Mapping[str, Rules], draws: int,
         seed: int, compiled: bool) -> dict[str, Any]:
    """The walk-forward's own trades on one instrument: each window (parameters, from, until in UTC ms) run on its own after a warm-up on
    everything before it, at modelled costs, at stressed ones and at the daemon's sizes; and random entries for the final parameters."""
    runs = {name: [kernel.run(strategy, params, series, chosen, trade_from=begin, trade_until=end, compiled=compiled)
                   for params, begin, end in windows] for name, chosen in rules.items()}
    whole = kernel.run(strategy, final, series, rules["plain"], compiled=compiled)
    dealt = kernel.random_entries(whole, series, rules["plain"], seed, draws)
    trades = np.concatenate([one.trades for one in runs["plain"]]) if windows else whole.trades[:0]
    kept = 1.0 - rules["plain"].numbers(series.instrument, series.interval_ms).taker_fee if series.asset_class is AssetClass.SPOT else 1.0
    return {
        "first_day": whole.first_day, "daily": {name: np.sum([one.daily for one in each], axis=0) for name, each in runs.items()},
        "trades": trades, "random": dealt.mean(axis=0), "random_net": dealt.sum(axis=1), "whole": whole.daily,
        "fills": filled(runs.get("phased", ()), kept),
        "whole_trades": len(whole.trades), "marks": marks(series, trades, windows[0][1] if windows else 0)}


def filled(runs: Sequence[kernel.Run], kept: float) -> Floats:
    """[entry orders] share of each that was filled at the daemon's sizes, 0 of those that found no volume; `kept`: what a purchase's fee
    leaves of it."""
    shares = [np.minimum(1.0, one.trades["quantity"] / (kept * one.trades["ordered"])) for one in runs]
    return np.concatenate([*shares, np.zeros(sum(one.unfilled for one in runs))])


def marks(series: Series, trades: Any, since: int) -> dict[str, Any]:
    """Prices from the first window on and the last trades in them, few enough to draw."""
    shown = trades[-MARKS_MAX:]
    begin = int(np.searchsorted(series.at, int(shown["entry_at"][0]) if len(trades) > MARKS_MAX else since))
    rows = np.unique(np.linspace(min(begin, len(series) - 1), len(series) - 1, PRICES_MAX).astype(int))
    return {"at": series.at[rows], "close": series.close[rows], "entry_at": shown["entry_at"].copy(), "entry": shown["entry"].copy(),
            "exit_at": shown["exit_at"].copy(), "exit": shown["exit"].copy(), "side": shown["side"].copy(), "net": shown["net"].copy()}


def judge_excess(daily: Floats, benchmark: Floats, draws: int, aim: bootstrap.Aim, seed: int) -> dict[str, Any]:
    """The same test on what is left over random entries with the same exposure, [days, K] both."""
    return {"excess_p_of": bootstrap.max_t(daily - benchmark, draws, seed, aim=aim).p_of}


def judge_luck(daily: Floats, tested: Floats, phased: Floats, draws: int, aim: bootstrap.Aim, blocks: int, level: float,
               seeds: Sequence[int]) -> dict[str, Any]:
    """The statistics that need thousands of resamples. `daily` [days, K] pooled results; `tested`, `phased`
    [days] the walk-forward's days, per unit and at the daemon's sizes."""
    best = bootstrap.max_t(daily, draws, seeds[0], aim=aim)
    halves = overfit.cscv(daily, blocks)
    every = metrics.ratios(daily)
    known = every[np.isfinite(every)]
    return {
        "p_of": best.p_of, "t": best.t, "quantiles": best.quantiles, "maxima": best.maxima, "draws": best.draws, "asked": best.asked,
        "block": best.block, "pbo": halves.pbo, "loss_probability": halves.loss_probability,
        "ratio_variance": float(np.var(known)) if len(known) > 1 else 0.0,
        "drawdown": bootstrap.drawdown_quantile(phased, level, max(1000, aim.least // 10), seeds[1]),
        "tested_p": bootstrap.max_t(tested, max(1000, aim.least // 10), seeds[2]).p if len(tested) else 1.0}
