"""How often chance alone would have done as well: the studentized max-t stationary block bootstrap over all trials, and drawdowns.

Days are drawn jointly for all columns, so what trials have in common stays common. Sources: Politis & Romano, The Stationary Bootstrap
(1994); Politis & White, Automatic Block-Length Selection (2004) with the correction of Patton, Politis & White (2009); White, A Reality
Check for Data Snooping (2000), studentized as Hansen (2005) and Romano & Wolf (2005).
Needs Numba where `max_t` or a resample is called: worker processes only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modules.backtest.resampling import compiled_loops

Floats = NDArray[np.float64]
QUANTILES: Final = 1_000
"""How many points of the null distribution are kept for drawing."""
_FLOOR: Final = 1e-3
"""A resample whose variance is below this share of the sample's (nothing but flat days drawn) counts nothing."""
_ABOVE: Final = 20.0
_LAGS: Final = 5
_SIGNIFICANT: Final = 2.0
_GROWS: Final = 2
"""A test with an aim looks at it after so many times as many resamples as before."""


@dataclass(frozen=True, slots=True, eq=False)
class MaxT:
    """A family of trials against what the best of them would reach by chance. p values are one-sided: mean <= 0 is the null."""

    p: float
    """Of the best column."""
    t: Floats
    """[K] studentized mean of each column; -inf where it cannot be computed (constant)."""
    p_of: Floats
    """[K] p value of each column against the maximum over all of them (single-step: the family's error is held)."""
    best: int
    block: float
    """Mean block length in days."""
    draws: int
    """Resamples taken: fewer than asked for where they left no hope."""
    quantiles: Floats
    """Evenly spaced order statistics of the maximum under the null, lowest first (`QUANTILES` + 1 points); -inf where nothing moved."""
    maxima: Floats
    """[draws] the null itself, ascending."""
    asked: int = 0
    """Resamples that were asked for; more than `draws` where the first of them left no hope."""

    def critical(self, limit: float) -> float:
        """The t that has to be reached for p <= limit; inf if the draws that were asked for cannot show it. A test that was stopped
        gives the lower bound that its draws can tell."""
        return critical(self.maxima, limit, max(self.asked, self.draws))


def politis_white(values: Floats) -> float:
    """Optimal mean block length of the stationary bootstrap for the mean of `values` [n], at least 1. 1 for a constant."""
    count = len(values)
    centered = values - np.mean(values)
    if count < _LAGS or float(np.max(np.abs(centered))) <= 1e-12 * float(np.max(np.abs(values))):
        return 1.0
    longest = math.ceil(min(3.0 * math.sqrt(count), count / 3.0))
    in_a_row = max(_LAGS, int(math.log10(count)))
    most = min(math.ceil(math.sqrt(count)) + in_a_row, count - 2)
    band = _SIGNIFICANT * math.sqrt(math.log10(count) / count)
    covariance = np.array([float(centered[lag:] @ centered[: count - lag]) for lag in range(most + 1)])
    squares = np.concatenate(((0.0,), np.cumsum(centered**2)))
    lags = np.arange(most + 1) + 1
    scale = np.sqrt((squares[count] - squares[lags]) * squares[count - lags])
    quiet = np.abs(covariance) / np.where(scale > 0.0, scale, math.inf) < band
    covariance /= count
    runs = (first for first in range(most - in_a_row + 1) if bool(np.all(quiet[first : first + in_a_row])))
    found = next(runs, None)
    bandwidth = most if found is None else min(2 * max(found, 1), most)
    lag = np.arange(1, bandwidth + 1)
    weight = np.minimum(1.0, 2.0 * (1.0 - lag / bandwidth))  # flat-top kernel
    slope = 2.0 * float(np.sum(weight * lag * covariance[lag]))
    spectrum = float(covariance[0] + 2.0 * np.sum(weight * covariance[lag]))
    if spectrum == 0.0:
        return float(longest)
    return max(1.0, min(math.cbrt(slope**2 / spectrum**2 * count), float(longest)))


def joint_block(daily: Floats) -> float:
    """One mean block length for all columns of [n, K]: the mean of what each asks for, as their days are drawn together."""
    lengths = [politis_white(column) for column in daily.T if np.ptp(column) > 0.0]
    return float(np.mean(lengths)) if lengths else 1.0


def standard_error(daily: Floats, block: float) -> Floats:
    """[K] sqrt(n) x standard error of the column means of [n, K]: the square root of the stationary bootstrap's own expectation of
    (sum over blocks of (block sum - length x mean)^2) / n, that is autocovariances weighted (1 - 1/block)^lag, circular. Robust to
    autocorrelation within blocks; the same estimator, exactly, as a resample is studentized with.
    """
    count = len(daily)
    centered = daily - np.mean(daily, axis=0)
    spectrum = np.abs(np.fft.rfft(centered, axis=0)) ** 2
    circular = np.fft.irfft(spectrum, n=count, axis=0) / count
    keeps = 1.0 - 1.0 / block
    lag = np.arange(1, count)
    weight = keeps**lag
    enough = int(np.searchsorted(-weight, -1e-16)) if block > 1.0 else 0
    variance = circular[0] + 2.0 * weight[:enough] @ circular[1 : enough + 1]
    result: Floats = np.sqrt(np.maximum(variance, 0.0))
    return result


def critical(maxima: Floats, limit: float, asked: int) -> float:
    """The t that has to be reached for p <= limit among `maxima` (ascending) of `asked` resamples; inf if so many cannot show it. Of a
    test that was stopped before, the highest its draws can tell, which is less."""
    draws = len(maxima)
    if not draws or math.floor(limit * (asked + 1) + 1e-9) < 1:
        return math.inf
    above = max(0, math.floor(limit * (draws + 1) + 1e-9) - 1)
    return float(maxima[draws - above - 1]) if above < draws else -math.inf


def draws_for(limit: float, least: int, most: int | None = None) -> int:
    """How many resamples can show p <= limit with `_ABOVE` of them above: at least `least`, and at most `most`. Where not even so many
    can show it, `least`: more would be for nothing."""
    wanted = max(least, math.ceil(_ABOVE / limit))
    if most is None or wanted <= most:
        return wanted
    return max(least, most) if limit * (most + 1) >= 1.0 else least


class Aim(NamedTuple):
    """What a test is for: whether one column's p is at most `limit`. It may stop once that cannot be any more, after `least` draws."""

    column: int
    limit: float
    least: int


def max_t(daily: Floats, draws: int, seed: int, *, block: float | None = None, aim: Aim | None = None) -> MaxT:
    """The test over all trials. `daily` [n days, K trials], results pooled over the basket (their excess over a benchmark, to test that).

    p = (1 + number of resamples whose best studentized mean reaches the observed one) / (draws + 1). `block`: mean length in days,
    by default `joint_block`. A constant column takes no part. Raises ValueError for values that are not finite.

    With an `aim`, resampling stops as soon as more of them have reached its column's t than p <= limit over all `draws` allows. That is
    no further chance of an error: p over all of them would be above the limit too, and so is the p of those that were taken.
    """
    daily = np.ascontiguousarray(daily if daily.ndim == 2 else daily[:, None], dtype=np.float64)
    if not bool(np.all(np.isfinite(daily))):
        raise ValueError("daily results must be finite")
    count, width = daily.shape
    t = np.full(width, -math.inf)
    moving = np.flatnonzero(np.ptp(daily, axis=0) > 1e-12 * np.max(np.abs(daily), axis=0)) if count > 1 else np.zeros(0, np.int64)
    if not len(moving):
        return MaxT(1.0, t, np.ones(width), 0, 1.0, 0, np.zeros(0), np.zeros(0))
    sample = daily[:, moving]
    block = joint_block(sample) if block is None else block
    spread = standard_error(sample, block)
    mean = np.mean(sample, axis=0)
    good = spread > 1e-9 * np.std(sample, axis=0)
    t[moving] = np.where(good, math.sqrt(count) * mean / np.where(good, spread, 1.0), -math.inf)
    scaled = (sample - mean) / np.std(sample, axis=0)
    totals = np.concatenate((np.zeros((1, len(moving))), np.cumsum(np.concatenate((scaled, scaled)), axis=0)))
    floor = _FLOOR * count * (spread / np.std(sample, axis=0)) ** 2
    maxima = _resampled(totals, floor, seed, float(block), draws, aim, math.inf if aim is None else float(t[aim.column]))
    asked, draws = draws, len(maxima)
    reached = draws - np.searchsorted(maxima, t, side="left")
    p_of: Floats = np.asarray((1.0 + reached) / (draws + 1.0), dtype=np.float64)
    best = int(np.argmax(t))
    # Values that occurred and none between two: a resample in which nothing moves has -inf, and what lies halfway to that is no number.
    quantiles: Floats = maxima[np.linspace(0.0, draws - 1.0, QUANTILES + 1).round().astype(np.int64)]
    return MaxT(float(p_of[best]), t, p_of, best, float(block), draws, quantiles, maxima, asked)


def _resampled(totals: Floats, floor: Floats, seed: int, block: float, draws: int, aim: Aim | None, observed: float) -> Floats:
    """The maxima of `draws` resamples, ascending, or of as many as leave the aim no hope. Numbered resamples: how they are portioned
    does not show in any of them."""
    parts: list[Floats] = []
    done = reached = 0
    while done < draws:
        count = draws if aim is None else min(draws, max(1, aim.least) if not done else _GROWS * done)
        part = np.empty(count - done)
        compiled_loops().maxima(totals, floor, np.uint64(seed % 2**64), done, block, part)
        parts.append(part)
        done = count
        reached += int(np.sum(part >= observed))
        if aim is not None and 1 + reached > aim.limit * (draws + 1):
            break
    found = np.concatenate(parts) if parts else np.empty(0)
    found.sort()
    return found


def stationary_indexes(count: int, block: float, draws: int, seed: int) -> NDArray[np.int64]:
    """[draws, count] the rows of the same resamples `max_t` takes."""
    rows = np.empty((draws, count), dtype=np.int64)
    for number in range(draws):
        compiled_loops().indexes(rows[number], np.uint64(seed % 2**64), number, float(block))
    return rows


def drawdown_quantile(daily: Floats, level: float, draws: int, seed: int, *, block: float | None = None) -> float:
    """The drawdown that `level` of the resamples of `daily` (fractions of equity, fixed size) do not exceed. NaN without days."""
    if not len(daily):
        return math.nan
    values = np.ascontiguousarray(daily, dtype=np.float64)
    out = np.empty(draws)
    compiled_loops().drawdowns(values, np.uint64(seed % 2**64), float(block if block is not None else politis_white(values)), out)
    return float(np.quantile(out, level))
