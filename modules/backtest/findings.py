"""What a walk-forward found, turned into evidence for the judge and pictures for the report. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from modules.backtest import bootstrap, metrics, overfit
from modules.backtest.basket import Basket
from modules.backtest.validation import Floats, Marks, OnInstrument, Picture, Window
from modules.backtest.verdict import Evidence
from modules.backtest.walk_forward import Walk
from modules.domain.instrument import AssetClass
from modules.domain.policies import ValidationPolicy
from modules.strategies.protocol import Strategy

DAY_MS: Final = 86_400_000


@dataclass(frozen=True)
class Walked:
    """Everything computed about one strategy in one class before luck is judged. Rows of matrices are the pooled days `numbers`."""

    strategy: Strategy
    basket: Basket
    sets: Sequence[Mapping[str, float]]
    around: Sequence[Sequence[int]]
    final: int
    walk: Walk
    first_day: int
    daily: Floats
    """[days, K]"""
    others: Floats
    """[days, n] earlier trials of the same idea."""
    numbers: NDArray[np.int64]
    """[days + 1] UTC day of each row, and the day after the last."""
    swept: Mapping[str, Mapping[str, Any]]
    tests: Mapping[str, Mapping[str, Any]]

    @property
    def asset_class(self) -> AssetClass:
        return self.basket.asset_class

    @property
    def periods(self) -> float:
        return metrics.PERIODS[self.asset_class]

    @property
    def test_row(self) -> int:
        """The first out-of-sample row."""
        return self.walk.windows[0].test_from

    def pooled(self, parts: Sequence[tuple[int, Floats]]) -> Floats:
        """Instruments' daily results on the rows of `daily`."""
        found = np.zeros((len(self.daily), *parts[0][1].shape[1:]))
        first, values = metrics.pool([day for day, _ in parts], [part for _, part in parts], self.asset_class)
        begin = int(np.searchsorted(self.numbers, first))
        found[begin : begin + len(values)] = values[: len(found) - begin]
        return found

    def tested(self, name: str) -> Floats:
        """[out-of-sample days] the walk-forward's own trades, "plain" or "stressed", per unit of notional."""
        whole = self.pooled([(one["first_day"], one["daily"][name]) for one in self.tests.values()])
        return whole[self.test_row :]

    def phased(self) -> Floats:
        """[out-of-sample days] fraction of one wallet that trades the whole basket at the daemon's sizes."""
        whole = self.pooled([(one["first_day"], one["daily"]["phased"]) for one in self.tests.values()])
        return whole[self.test_row :] * len(self.tests)

    def benchmark(self) -> Floats:
        """[days, K (and others)] what random entries with the same exposure and costs would have made on average.

        Exposure x the market's day, less costs per trade as the drawn random entries of the final parameters paid them. Earlier trials
        of the idea are held against the final set's benchmark.
        """
        parts = []
        for symbol, one in self.swept.items():
            test, market = self.tests[symbol], one["market"]
            exposed = np.outer(market, one["net_exposure"])
            trades = test["whole_trades"]
            drift = float(exposed[:, self.final].sum())
            cost = max(0.0, drift - float(test["random"].sum())) / trades if trades else 0.0
            parts.append((one["first_day"], exposed - cost * one["trades"][None, :] / len(market)))
        ours = self.pooled(parts)
        return np.concatenate((ours, np.repeat(ours[:, self.final : self.final + 1], self.others.shape[1], axis=1)), axis=1)

    def trades(self, symbols: Sequence[str] | None = None) -> NDArray[Any]:
        """Every out-of-sample trade of the basket, or of some of its instruments, by time of entry."""
        found = np.concatenate([one["trades"] for symbol, one in self.tests.items() if symbols is None or symbol in symbols]
                               or [next(iter(self.tests.values()))["trades"][:0]])
        return found[np.argsort(found["entry_at"], kind="stable")]

    def certified(self, policy: ValidationPolicy) -> tuple[str, ...]:
        """Instruments with enough out-of-sample trades."""
        return tuple(symbol for symbol, one in self.tests.items() if len(one["trades"]) >= policy.instrument_trades_min)


def evidence_of(walked: Walked, luck: Mapping[str, Any], policy: ValidationPolicy, allowed: float, trials: int,
                prefix: Mapping[str, Any]) -> Evidence:
    """Every number the judge asks for. `allowed`: the p value of this submission; `prefix`: the look-ahead check's findings."""
    tested, stressed, trades, final = walked.tested("plain"), walked.tested("stressed"), walked.trades(), walked.final
    ratio = metrics.ratio(tested)
    near = tuple(walked.around[final])
    days = walked.numbers[walked.test_row : -1]
    return Evidence(
        strategy=walked.strategy.name, asset_class=walked.asset_class, trades=len(trades),
        years=metrics.years(len(walked.daily), walked.periods), out_years=metrics.years(len(tested), walked.periods), trials=trials,
        tested=walked.daily.shape[1] + walked.others.shape[1], p=float(luck["p_of"][final]), t=float(luck["t"][final]),
        critical_t=critical(luck, allowed), excess_p=float(luck["excess_p_of"][final]), sharpe=ratio * math.sqrt(walked.periods),
        psr=metrics.psr_of(tested), net=float(tested.sum()), loss_probability=float(luck["loss_probability"]),
        stressed_net=float(stressed.sum()), trade_share=metrics.largest_share(trades["net"]),
        month_share=metrics.largest_share(metrics.monthly(days, tested)), drawdown=float(luck["drawdown"]),
        neighbours_share=overfit.neighbours_share(walked.daily, final, near), has_neighbours=bool(near),
        prefix_differences=int(prefix["differences"]), prefix_note=str(prefix["note"]), efficiency=walked.walk.efficiency,
        dsr=metrics.dsr(ratio, len(tested), metrics.skewness(tested), metrics.kurtosis(tested), trials, float(luck["ratio_variance"])),
        pbo=float(luck["pbo"]), extra=_extra(walked, luck, trades))


def _extra(walked: Walked, luck: Mapping[str, Any], trades: NDArray[Any]) -> dict[str, float]:
    """Numbers that decide nothing but that a reader asks for."""
    random = np.sum([one["random_net"] for one in walked.tests.values()], axis=0) / len(walked.tests)
    net_r = trades["net"][trades["risk"] > 0.0] / trades["risk"][trades["risk"] > 0.0]
    fills = np.concatenate([one["fills"] for one in walked.tests.values()])
    return {
        "fill_ratio": float(fills.mean()) if len(fills) else math.nan,
        "tested_p": float(luck["tested_p"]), "block_days": float(luck["block"]), "bootstrap_draws": float(luck["draws"]),
        "sets": float(walked.daily.shape[1]), "instruments": float(len(walked.tests)), "random_net": float(np.mean(random)),
        "max_drawdown": metrics.max_drawdown(walked.tested("plain")),
        "win_rate": float(np.mean(trades["net"] > 0.0)) if len(trades) else math.nan,
        "mean_r": float(net_r.mean()) if len(net_r) else math.nan}


def critical(luck: Mapping[str, Any], allowed: float) -> float:
    """The t that has to be reached for p <= allowed."""
    return bootstrap.critical(luck["maxima"], allowed, int(luck["asked"]))


# -- for drawing -----------------------------------------------------------------------------------------------------------------------


def picture_of(walked: Walked, luck: Mapping[str, Any], allowed: float, trades_min: int) -> Picture:
    """The same on calendar days, as the report draws it."""
    first, days = walked.first_day, walked.numbers
    step, scale = walked.walk, math.sqrt(walked.periods)
    windows = tuple(
        Window(first, int(days[one.train_until]), int(days[one.test_from]), int(days[one.test_until]), _varied(walked, chosen),
               before * scale, after * scale)
        for one, chosen, before, after in zip(step.windows, step.chosen, step.in_sample, step.out_of_sample, strict=True))
    every = metrics.ratios(walked.daily) * scale
    return Picture(
        periods=walked.periods, first_day=first, daily=_calendar(days, 0, walked.daily[:, walked.final]),
        test_first_day=int(days[walked.test_row]), tested=_calendar(days, walked.test_row, walked.tested("plain")),
        sets=tuple(dict(one) for one in walked.sets), chosen=walked.final, sharpes=np.where(np.isfinite(every), every, np.nan),
        observed=float(luck["t"][walked.final]), null=luck["quantiles"], null_limit=critical(luck, allowed), windows=windows,
        instruments=tuple(_on(walked, symbol, trades_min) for symbol in walked.tests), marks=_marks(walked))


def _varied(walked: Walked, column: int) -> dict[str, float]:
    """Those parameters of a set that the space varies."""
    return {name: walked.sets[column][name] for name in walked.strategy.space}


def _calendar(days: NDArray[np.int64], row: int, values: Floats) -> Floats:
    """Weekends in, flat, where a class has none."""
    places = days[row : row + len(values)] - days[row]
    found = np.zeros(int(places[-1]) + 1 if len(places) else 0)
    found[places] = values
    return found


def _on(walked: Walked, symbol: str, trades_min: int) -> OnInstrument:
    series, one = walked.basket.series[symbol], walked.tests[symbol]
    trades = one["trades"]
    alone = walked.pooled([(one["first_day"], one["daily"]["plain"])])[walked.test_row :]
    value = float(np.sum(trades["entry"] * trades["quantity"]))
    unit = value / len(trades) if len(trades) else 1.0
    few = len(trades) < trades_min
    return OnInstrument(
        symbol=symbol, bars=len(series), begin=int(series.at[0]), end=int(series.at[-1]), trades=len(trades), net=float(alone.sum()),
        sharpe=metrics.sharpe(alone, walked.periods), fees=float(trades["fees"].sum()) / unit,
        funding=float(trades["funding"].sum()) / unit, certified=not few, note=f"{len(trades)} of {trades_min} trades" if few else "")


def _marks(walked: Walked) -> Marks | None:
    """Of the instrument with the most trades."""
    symbol = max(walked.tests, key=lambda each: len(walked.tests[each]["trades"]))
    found = walked.tests[symbol]["marks"]
    return Marks(symbol, found["at"], found["close"], found["entry_at"], found["entry"], found["exit_at"], found["exit"], found["side"],
                 found["net"])
