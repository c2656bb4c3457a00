"""What one series of daily results says: Sharpe ratios, how sure they are, drawdowns, concentration. Pure; arrays in, numbers out.

A daily result is net, marked to market, flat days in. Sharpe ratios are per observation unless a function says annual; kurtosis is raw
(3 = normal). Nothing here refuses: what cannot be computed is NaN, and NaN passes no bar.
Sources: Bailey & Lopez de Prado, The Sharpe Ratio Efficient Frontier (2012) for PSR and MinTRL, The Deflated Sharpe Ratio (2014),
Bailey, Borwein, Lopez de Prado & Zhu, Pseudo-Mathematics and Financial Charlatanism (2014) for MinBTL.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from modules.domain.instrument import AssetClass

Floats = NDArray[np.float64]

PERIODS: Final[Mapping[AssetClass, float]] = {
    AssetClass.SPOT: 365.0, AssetClass.PERP: 365.0, AssetClass.OPTION: 365.0, AssetClass.FOREX: 252.0}
"""Daily observations a year has; crypto never closes, its options neither."""
EULER: Final = 0.5772156649015329
_NORMAL: Final = NormalDist()
_MONDAY: Final = 4
"""UTC day 4 of the epoch was a Monday."""
_CONSTANT: Final = 1e-12
"""Below this share of the largest value a spread is rounding, not variation."""


def pool(first_days: Sequence[int], dailies: Sequence[Floats], asset_class: AssetClass) -> tuple[int, Floats]:
    """One basket's daily results: the instruments' [days] or [days, K] summed on their joint day axis over the number of instruments.

    Returns (first day, results). An instrument that did not exist yet is flat. FOREX has weekdays only (252 a year): what a Saturday
    or Sunday brought is booked on Monday; use `day_numbers` to name the rows.
    """
    first = min(first_days)
    last = max(begin + len(daily) for begin, daily in zip(first_days, dailies, strict=True))
    total = np.zeros((last - first, *dailies[0].shape[1:]))
    for begin, daily in zip(first_days, dailies, strict=True):
        total[begin - first : begin - first + len(daily)] += daily
    total /= len(dailies)
    if asset_class is not AssetClass.FOREX:
        return first, total
    days = np.arange(first, last)
    ahead = np.array([0, 0, 0, 0, 0, 2, 1])[(days - _MONDAY) % 7]
    booked, rows = np.unique(days + ahead, return_inverse=True)
    pooled = np.zeros((len(booked), *total.shape[1:]))
    np.add.at(pooled, rows, total)
    return int(booked[0]), pooled


def day_numbers(first_day: int, count: int, asset_class: AssetClass) -> NDArray[np.int64]:
    """UTC day numbers of the rows of `pool`."""
    if asset_class is not AssetClass.FOREX:
        return np.arange(first_day, first_day + count, dtype=np.int64)
    days = np.arange(first_day, first_day + 2 * count + 7, dtype=np.int64)
    return days[(days - _MONDAY) % 7 < 5][:count]


def ratio(daily: Floats) -> float:
    """Mean over standard deviation (n - 1), per observation; NaN for fewer than two values or a constant."""
    if len(daily) < 2 or not bool(np.all(np.isfinite(daily))):
        return math.nan
    spread = float(np.std(daily, ddof=1))
    return float(np.mean(daily)) / spread if spread > _CONSTANT * float(np.max(np.abs(daily))) else math.nan


def sharpe(daily: Floats, periods_per_year: float) -> float:
    """Annual Sharpe ratio. NaN as `ratio`."""
    return ratio(daily) * math.sqrt(periods_per_year)


def ratios(daily: Floats) -> Floats:
    """`ratio` of every column of [days, K]; -inf where it is not a number, so that such a column is never chosen."""
    spread, scale = np.std(daily, axis=0, ddof=1), np.max(np.abs(daily), axis=0)
    good = np.isfinite(spread) & (spread > _CONSTANT * scale)
    return np.where(good, np.mean(daily, axis=0) / np.where(good, spread, 1.0), -np.inf)


def skewness(daily: Floats) -> float:
    """Third standardized moment, without small-sample correction; 0 for a constant."""
    return _moment(daily, 3, 0.0)


def kurtosis(daily: Floats) -> float:
    """Fourth standardized moment, raw: 3 = normal; 3 for a constant."""
    return _moment(daily, 4, 3.0)


def _moment(daily: Floats, power: int, otherwise: float) -> float:
    deviation = np.asarray(daily) - np.mean(daily)
    spread = float(np.std(daily))
    return float(np.mean((deviation / spread) ** power)) if spread > _CONSTANT * float(np.max(np.abs(daily))) else otherwise


def psr(observed: float, count: int, skew: float = 0.0, kurt: float = 3.0, benchmark: float = 0.0) -> float:
    """Probabilistic Sharpe ratio: P(true ratio > benchmark), ratios per observation. NaN where undefined."""
    variance = 1.0 - skew * observed + (kurt - 1.0) / 4.0 * observed**2
    if count < 2 or not math.isfinite(observed) or not variance > 0.0:
        return math.nan
    return _NORMAL.cdf((observed - benchmark) * math.sqrt(count - 1) / math.sqrt(variance))


def psr_of(daily: Floats, benchmark: float = 0.0) -> float:
    """`psr` of a series with its own moments; benchmark per observation."""
    return psr(ratio(daily), len(daily), skewness(daily), kurtosis(daily), benchmark) if len(daily) > 1 else math.nan


def expected_max_sharpe(trials: int, variance: float = 1.0) -> float:
    """Expected maximum of `trials` ratios that are all zero in truth; in the unit of sqrt(variance). 0 for a single trial."""
    if trials < 2:
        return 0.0
    return math.sqrt(variance) * ((1 - EULER) * _NORMAL.inv_cdf(1 - 1 / trials) + EULER * _NORMAL.inv_cdf(1 - 1 / (trials * math.e)))


def dsr(observed: float, count: int, skew: float, kurt: float, trials: int, variance: float) -> float:
    """Deflated Sharpe ratio: `psr` against the expected maximum of `trials` ratios with this variance (per observation)."""
    return psr(observed, count, skew, kurt, expected_max_sharpe(trials, variance))


def min_btl(trials: int, reached: float = 1.0) -> float:
    """Minimum backtest length in years: below it the best of `trials` worthless strategies is expected to show this annual Sharpe."""
    return (expected_max_sharpe(trials) / reached) ** 2


def min_trl(observed: float, benchmark: float, skew: float = 0.0, kurt: float = 3.0, level: float = 0.95) -> float:
    """Minimum track record length in observations for PSR(benchmark) >= level; ratios per observation. inf if it never gets there."""
    if not observed > benchmark:
        return math.inf
    variance = 1.0 - skew * observed + (kurt - 1.0) / 4.0 * observed**2
    return 1.0 + variance * (_NORMAL.inv_cdf(level) / (observed - benchmark)) ** 2


def kelly(win: float, odds: float = 1.0) -> float:
    """Fraction of capital that maximizes log growth of a bet won with probability `win` at `odds` to 1."""
    return win - (1.0 - win) / odds


def max_drawdown(daily: Floats) -> float:
    """Deepest fall of 1 + the running sum of results from its highest point so far, as a fraction of 1 (fixed size, no compounding)."""
    if not len(daily):
        return 0.0
    equity = np.cumsum(daily)
    return float(np.max(np.maximum(np.maximum.accumulate(equity), 0.0) - equity))


def largest_share(parts: Floats) -> float:
    """The largest part over the sum of all parts; inf if the sum is not a profit. Parts: net of each trade or of each month."""
    total = float(np.sum(parts)) if len(parts) else 0.0
    return float(np.max(parts)) / total if total > 0.0 else math.inf


def monthly(days: NDArray[np.int64], daily: Floats) -> Floats:
    """Sums per calendar month (UTC), in order of time, months without a day left out."""
    if not len(daily):
        return np.zeros(0)
    months = np.asarray(days, dtype="datetime64[D]").astype("datetime64[M]").astype(np.int64)
    _, rows = np.unique(months, return_inverse=True)
    return np.bincount(rows, weights=daily).astype(np.float64)


def years(count: int, periods_per_year: float) -> float:
    """How long so many daily observations are."""
    return count / periods_per_year
