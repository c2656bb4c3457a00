"""Indicators that run plain and compiled from the same lines, with the same bits: additions, products, quotients and square roots only.

Owns no state: every indicator is a NamedTuple the strategy keeps and a function that takes it and the new bar's numbers and returns the
next one. Where a window must be remembered, the tuple holds a NumPy ring that is *written in place*: such a state belongs to one run and
is stepped once, and whoever wants two runs calls `init` twice. Everything else is a value.

Written for Numba's nopython mode, which sets the style: no keyword arguments, no `_replace`, one type per variable, no transcendental
function (libm may differ from LLVM's in the last bit), `float(ring[i])` so that plain Python does not go on in slow NumPy scalars, and
comparisons instead of `min`/`max` where a NaN could come in. The first value of a window counts at once: until a window is full its
result covers what there is, and it is the strategy's job to wait (`warmup`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]

NAN = float("nan")
MINUTE_MS = 60_000.0
DAY_MS = 86_400_000.0
YEAR_MS = 365.0 * DAY_MS


# --- exponential averages -------------------------------------------------------------------------------------------------------


def ema_weight(period: int) -> float:
    """The usual 2 / (period + 1): an EMA of that weight has the same mean age of data as an SMA of `period` bars."""
    return 2.0 / (period + 1.0)


def ema(previous: float, value: float, weight: float) -> float:
    """Exponential moving average, seeded with its first value (`previous` NaN)."""
    if previous != previous:
        return value
    return previous + weight * (value - previous)


class Atr(NamedTuple):
    """Average true range in price units (Wilder, New Concepts in Technical Trading Systems, 1978)."""

    value: float
    close: float
    seen: int


def atr_init() -> Atr:
    return Atr(0.0, NAN, 0)


def atr_step(state: Atr, high: float, low: float, close: float, period: int) -> Atr:
    """Mean of the true ranges so far until `period` of them were seen, then Wilder's smoothing with weight 1 / period."""
    value, before, seen = state
    # The true range is the bar's own range stretched to the close before it; a NaN before the first bar stretches nothing.
    top = before if before > high else high
    bottom = before if before < low else low
    if seen < period:
        seen += 1
    return Atr(value + (top - bottom - value) / seen, close, seen)


class Rsi(NamedTuple):
    """Relative strength place, 0..100 (Wilder, 1978); 50 while nothing has moved."""

    value: float
    gain: float
    loss: float
    close: float
    seen: int


def rsi_init() -> Rsi:
    return Rsi(50.0, 0.0, 0.0, NAN, 0)


def rsi_step(state: Rsi, close: float, period: int) -> Rsi:
    """Wilder's averages of gains and losses, seeded with their plain means over the first `period` changes."""
    if state.close != state.close:
        return Rsi(50.0, 0.0, 0.0, close, 0)
    change = close - state.close
    up = change if change > 0.0 else 0.0
    down = -change if change < 0.0 else 0.0
    seen = state.seen + 1 if state.seen < period else state.seen
    gain = state.gain + (up - state.gain) / seen
    loss = state.loss + (down - state.loss) / seen
    total = gain + loss
    value = 100.0 * gain / total if total > 0.0 else 50.0
    return Rsi(value, gain, loss, close, seen)


class Variance(NamedTuple):
    """Exponentially weighted variance of simple returns per year of 365 days; its square root compares with an implied volatility."""

    value: float
    close: float
    at: float
    seen: int


def variance_init() -> Variance:
    return Variance(0.0, NAN, NAN, 0)


def variance_step(state: Variance, close: float, at: float, period: int) -> Variance:
    """Averages return^2 / elapsed years, so that bars of any length and holes in the data need no scaling factor."""
    value, before, last, seen = state
    elapsed = (at - last) / YEAR_MS
    if not elapsed > 0.0 or not before > 0.0:
        return Variance(value, close, at, seen)
    change = close / before - 1.0
    if seen < period:
        seen += 1
    weight = 2.0 / (period + 1.0)
    if weight * seen < 1.0:
        weight = 1.0 / seen
    return Variance(value + weight * (change * change / elapsed - value), close, at, seen)


# --- rolling windows ------------------------------------------------------------------------------------------------------------


class Window(NamedTuple):
    """Mean and variance of the last `len(ring)` values. `m2` is the sum of squared deviations from the mean.

    Sliding Welford updates drift by rounding, so the same sums are gathered afresh (`fresh_*`) while the ring fills anew and take
    over each time it has come round: exact once per window for no extra pass.
    """

    ring: Ring
    place: int
    seen: int
    mean: float
    m2: float
    fresh_mean: float
    fresh_m2: float


def window_init(period: int) -> Window:
    return Window(np.zeros(period, dtype=np.float64), 0, 0, 0.0, 0.0, 0.0, 0.0)


def window_step(state: Window, value: float) -> Window:
    """O(1) a value. Numerically safe for prices far from zero: deviations are summed, never squares of prices."""
    ring, place, seen, mean, m2, fresh_mean, fresh_m2 = state
    period = len(ring)
    if seen < period:
        seen += 1
        gap = value - mean
        mean = mean + gap / seen
        m2 = m2 + gap * (value - mean)
    else:
        oldest = float(ring[place])
        shifted = mean + (value - oldest) / period
        m2 = m2 + (value - oldest) * ((value - shifted) + (oldest - mean))
        mean = shifted
    ring[place] = value
    place += 1
    fresh_gap = value - fresh_mean
    fresh_mean = fresh_mean + fresh_gap / place
    fresh_m2 = fresh_m2 + fresh_gap * (value - fresh_mean)
    if place == period:
        return Window(ring, 0, seen, fresh_mean, fresh_m2, 0.0, 0.0)
    if m2 < 0.0:
        m2 = 0.0
    return Window(ring, place, seen, mean, m2, fresh_mean, fresh_m2)


def deviation(state: Window) -> float:
    """Standard deviation of the window (population: divided by the count)."""
    return math.sqrt(state.m2 / state.seen) if state.seen > 0 else 0.0


def zscore(state: Window, value: float) -> float:
    """How many standard deviations `value` is above the window's mean; 0 in a window that has not moved beyond rounding."""
    spread = deviation(state)
    return (value - state.mean) / spread if spread > 1e-12 * abs(state.mean) else 0.0


class Donchian(NamedTuple):
    """Highest high and lowest low of the last `len(highs)` bars, the present one included.

    For the channel *before* the present bar look at the state before its step.
    """

    highs: Ring
    lows: Ring
    place: int
    seen: int
    top: float
    bottom: float
    high: float
    low: float


def donchian_init(period: int) -> Donchian:
    return Donchian(np.full(period, -np.inf), np.full(period, np.inf), 0, 0, -np.inf, np.inf, -np.inf, np.inf)


def donchian_step(state: Donchian, high: float, low: float) -> Donchian:
    """Exact rolling extremes, O(1) amortized (van Herk, Pattern Recognition Letters 13, 1992).

    Left of `place` the rings hold this block's values, right of it the last block's running extremes taken from its end, so that a
    window that straddles both blocks is one look-up against `top` and `bottom`, this block's extremes so far.
    """
    highs, lows, place, seen, top, bottom, _, _ = state
    period = len(highs)
    if high > top:
        top = high
    if low < bottom:
        bottom = low
    highs[place] = high
    lows[place] = low
    place += 1
    if seen < period:
        seen += 1
    if place == period:
        for slot in range(period - 2, -1, -1):
            if high < highs[slot]:
                high = float(highs[slot])
            highs[slot] = high
            if low > lows[slot]:
                low = float(lows[slot])
            lows[slot] = low
        return Donchian(highs, lows, 0, seen, -np.inf, np.inf, top, bottom)
    rest_high = float(highs[place])
    rest_low = float(lows[place])
    highest = rest_high if rest_high > top else top
    lowest = rest_low if rest_low < bottom else bottom
    return Donchian(highs, lows, place, seen, top, bottom, highest, lowest)


# --- the clock inside a bar -----------------------------------------------------------------------------------------------------


def minute_of_day(at: float) -> int:
    """Minutes since midnight UTC of an instant in UTC ms: 0..1439."""
    return int(at // MINUTE_MS) % 1440


def day_number(at: float) -> int:
    """Days since 1970-01-01 UTC."""
    return int(at // DAY_MS)


def weekday(at: float) -> int:
    """0 = Monday .. 6 = Sunday, UTC (1970-01-01 was a Thursday)."""
    return (day_number(at) + 3) % 7


# --- scores ---------------------------------------------------------------------------------------------------------------------


def graded(strength: float) -> float:
    """Magnitude of a score: 0.4 for a signal that has only just qualified, rising linearly to 1.0 at `strength` 1 and beyond."""
    if not strength > 0.0:
        return 0.4
    if strength > 1.0:
        return 1.0
    return 0.4 + 0.6 * strength
