"""What moves the demo market: seeded noise, and the regimes, shocks and hours of day that scale it.

Noise comes from the Mersenne Twister of `random.Random` and `numpy.random.RandomState`, whose stream both promise never to change,
looked up in tables rounded to nine decimals; everything downstream uses only + - * / and sqrt, which IEEE 754 defines to the last bit.
So a seed is the same market on every machine, whatever its exp and log.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np

from modules.venues.demo.catalog import (
    AFTERSHOCK,
    AFTERSHOCK_BAR,
    AFTERSHOCK_REBOUND,
    BAR_MS,
    BARS_PER_DAY,
    BARS_PER_HOUR,
    CRASH,
    CRASH_BAR,
    CRASH_DAY,
    CRASH_REBOUND,
    CYCLE_DAYS,
    DAY_MS,
    MACRO_EVENTS,
    RUSH_LEAD_BARS,
    RUSH_VOLUME,
    RUSHES,
    SQUEEZE,
    SQUEEZE_BAR,
    SQUEEZE_DAY,
    SQUEEZE_REBOUND,
)
from modules.venues.demo.days import F64

_SIZE: Final = 4096
_NORMAL: Final[F64] = np.array([round(NormalDist().inv_cdf((index + 0.5) / _SIZE), 9) for index in range(_SIZE)])
_EXPONENTIAL: Final[F64] = np.array([round(-2.0 * math.log((index + 0.5) / _SIZE), 9) for index in range(_SIZE)])


class Noise:
    """Random draws of one stream, named by (seed, stream number): those of `random.Random(seed * 1_000_003 + stream)`, many at a time."""

    def __init__(self, seed: int, stream: int) -> None:
        named = random.Random(seed * 1_000_003 + stream)
        *key, position = named.getstate()[1]
        generator = np.random.RandomState(0)
        generator.set_state(("MT19937", np.array(key, dtype=np.uint32), position, 0, 0.0))
        self._random = generator.random_sample

    def normals(self, count: int) -> list[float]:
        """Standard normal, 4,096 equally likely values up to 3.7 in magnitude."""
        return self._drawn(_NORMAL, count)

    def exponentials(self, count: int) -> list[float]:
        """-2 ln U: what the extreme of a Brownian bridge is made of."""
        return self._drawn(_EXPONENTIAL, count)

    def _drawn(self, table: F64, count: int) -> list[float]:
        drawn: list[float] = table[(self._random(count) * _SIZE).astype(np.intp)].tolist()
        return drawn

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(self._random())


class Regime(Enum):
    RANGE = auto()
    TREND = auto()
    QUIET = auto()
    """Volatility compressed; a trend breaks out of it."""
    TURBULENT = auto()


_VOLATILITY: Final = {Regime.RANGE: 0.85, Regime.TREND: 0.90, Regime.QUIET: 0.38, Regime.TURBULENT: 2.0}
_BURST_BARS: Final = BARS_PER_HOUR
_BURST: Final = 8.0
"""A breakout's first hour moves this many times faster than the trend that follows."""


class Segment(NamedTuple):
    regime: Regime
    direction: int
    """-1, 0, 1."""
    hours: float


SCRIPT: Final = (
    Segment(Regime.RANGE, 0, 58), Segment(Regime.QUIET, 0, 14), Segment(Regime.TREND, 1, 84), Segment(Regime.RANGE, 0, 38),
    Segment(Regime.TURBULENT, 0, 20), Segment(Regime.TREND, -1, 72), Segment(Regime.RANGE, 0, 24), Segment(Regime.QUIET, 0, 12),
    Segment(Regime.TREND, 1, 78), Segment(Regime.TURBULENT, 0, 30), Segment(Regime.RANGE, 0, 46), Segment(Regime.TREND, 1, 70),
    Segment(Regime.QUIET, 0, 16), Segment(Regime.TREND, -1, 84), Segment(Regime.RANGE, 0, 42), Segment(Regime.TREND, 1, 40),
)
"""Crypto's first thirty days, each length give or take a few hours by seed. A rally runs into the crash of day 16, a decline into the
squeeze of day 26."""


COMMODITY_SCRIPT: Final = (
    Segment(Regime.QUIET, 0, 106), Segment(Regime.TREND, 1, 30), Segment(Regime.RANGE, 0, 60), Segment(Regime.TREND, -1, 50),
    Segment(Regime.RANGE, 0, 46), Segment(Regime.QUIET, 0, 128), Segment(Regime.TURBULENT, 0, 24), Segment(Regime.RANGE, 0, 60),
    Segment(Regime.TREND, 1, 60), Segment(Regime.RANGE, 0, 80), Segment(Regime.TREND, -1, 50), Segment(Regime.RANGE, 0, 100),
)
"""From three days before the start: calm for days before each of the first cycle's rushes, so that everybody sees a breakout."""
COMMODITY_LEAD_DAYS: Final = 3


class Climate(NamedTuple):
    """One bar's regime."""

    volatility: float
    drift: float
    """In units of the trend's drift per bar."""
    ranging: bool


def _random_segments(noise: Noise) -> Iterator[Segment]:
    """Endless; trends lean against their own balance so that no price wanders off for good."""
    balance = 0.0
    while True:
        draw = noise.uniform(0.0, 1.0)
        if draw < 0.42:
            yield Segment(Regime.RANGE, 0, noise.uniform(24.0, 60.0))
            continue
        if draw < 0.54:
            yield Segment(Regime.TURBULENT, 0, noise.uniform(12.0, 30.0))
            continue
        if draw < 0.74:
            yield Segment(Regime.QUIET, 0, noise.uniform(10.0, 18.0))
        up = noise.uniform(0.0, 1.0) < min(0.9, max(0.1, 0.5 - balance / 300.0))
        trend = Segment(Regime.TREND, 1 if up else -1, noise.uniform(36.0, 84.0))
        balance += trend.direction * trend.hours
        yield trend


def climates(noise: Noise, until_script: int, script: Sequence[Segment]) -> Iterator[Climate]:
    """One Climate per bar: random for `until_script` bars, then the script, then random for ever."""
    before = _bars(_random_segments(noise))
    for _ in range(until_script):
        yield next(before)
    jittered = [Segment(regime, direction, hours + noise.uniform(-2.0, 2.0)) for regime, direction, hours in script]
    yield from _bars(iter(jittered))
    yield from before


def _bars(segments: Iterator[Segment]) -> Iterator[Climate]:
    quiet_before = False
    for regime, direction, hours in segments:
        calm = Climate(_VOLATILITY[regime], float(direction), regime is Regime.RANGE)
        burst = calm._replace(drift=direction * _BURST) if quiet_before else calm
        for bar in range(int(hours * BARS_PER_HOUR)):
            yield burst if bar < _BURST_BARS else calm
        quiet_before = regime is Regime.QUIET


def volatility_noise(noise: Noise, level: float) -> tuple[list[float], float]:
    """One day of stochastic volatility around 1, moved once an hour, and the level (a mean-reverting walk) it ends at."""
    multiples: list[float] = []
    for shock in noise.normals(BARS_PER_DAY // BARS_PER_HOUR):
        level += 0.12 * shock - 0.08 * level
        multiples += [min(2.0, max(0.6, 1.0 + level))] * BARS_PER_HOUR
    return multiples, level


class Shocks(NamedTuple):
    """One day's jumps of the common crypto factor: between bars and within them, 0 on ordinary bars; and how much busier each bar is."""

    gaps: list[float]
    moves: list[float]
    volume: list[float]


def crypto_shocks(day: int, noise: Noise) -> Shocks:
    """The crash, its aftershock and the squeeze of each cycle; empty before the start."""
    gaps, moves, volume = [0.0] * BARS_PER_DAY, [0.0] * BARS_PER_DAY, [1.0] * BARS_PER_DAY
    jitter, scale = int(noise.uniform(0.0, 6.0)), noise.uniform(0.80, 0.92)
    today = day % CYCLE_DAYS if day >= 0 else -1
    for when, first, shape, (rebound_bars, rebound) in ((CRASH_DAY, CRASH_BAR, CRASH, CRASH_REBOUND),
                                                        (CRASH_DAY, AFTERSHOCK_BAR, AFTERSHOCK, AFTERSHOCK_REBOUND),
                                                        (SQUEEZE_DAY, SQUEEZE_BAR, SQUEEZE, SQUEEZE_REBOUND)):
        if today != when:
            continue
        for bar, (gap, move) in enumerate(shape, first + jitter):
            gaps[bar], moves[bar], volume[bar] = gap * scale, move * scale, 8.0
        after = first + jitter + len(shape)
        for bar in range(after, after + rebound_bars):
            moves[bar], volume[bar] = rebound * scale, 3.0
    return Shocks(gaps, moves, volume)


def rush_shocks(day: int, place: int, places: int, jitter: int) -> Shocks:
    """What the cycle's rushes do to the commodity that is the `place`-th of `places`; empty before the start."""
    gaps, moves, volume = [0.0] * BARS_PER_DAY, [0.0] * BARS_PER_DAY, [1.0] * BARS_PER_DAY
    today = day % CYCLE_DAYS if day >= 0 else -1
    for rush in RUSHES:
        if today == rush.day:
            first = rush.bar + jitter
            volume[first - RUSH_LEAD_BARS:] = [RUSH_VOLUME] * (BARS_PER_DAY - first + RUSH_LEAD_BARS)
            slipped = first - RUSH_LEAD_BARS - 2
            moves[slipped], moves[slipped + 1] = rush.slip, -rush.slip
            moves[first + place] = rush.breakout
            dump = first + places + 1
            gaps[dump], moves[dump] = rush.dump
            bars, move = rush.after
            moves[dump + 1:dump + 1 + bars] = [move] * bars
    return Shocks(gaps, moves, volume)


_RELEASE_BARS: Final = 9


def release_bars(midnight: int) -> list[int]:
    """Bars of the day that open at a macro release."""
    return [(event.at - midnight) // BAR_MS for event in MACRO_EVENTS if midnight <= event.at < midnight + DAY_MS]


def release_volatility(midnight: int, multiple: float) -> list[float]:
    """1 on quiet days; `multiple` for the 45 minutes that follow a release."""
    result = [1.0] * BARS_PER_DAY
    for first in release_bars(midnight):
        result[first:first + _RELEASE_BARS] = [multiple] * (min(first + _RELEASE_BARS, BARS_PER_DAY) - first)
    return result


def by_hour(hours: Sequence[float]) -> tuple[float, ...]:
    """24 hourly values as one per bar."""
    return tuple(value for value in hours for _ in range(BARS_PER_HOUR))


CRYPTO_HOURS: Final = by_hour((1.00, 0.95, 0.90, 0.85, 0.80, 0.80, 0.85, 0.95, 1.05, 1.05, 1.00, 1.00,
                               1.10, 1.30, 1.45, 1.40, 1.25, 1.15, 1.05, 1.00, 0.95, 0.95, 0.95, 1.00))
FOREX_HOURS: Final = by_hour((0.70, 0.75, 0.70, 0.60, 0.55, 0.65, 0.95, 1.35, 1.35, 1.20, 1.05, 1.10,
                              1.45, 1.60, 1.50, 1.40, 1.10, 0.85, 0.70, 0.65, 0.60, 0.45, 0.45, 0.55))
"""Relative volatility over the UTC day; volume follows its square."""
FOREX_SESSION: Final = by_hour((0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0.5, 0, 0, 0, -0.5, -0.5, -0.5, -0.5))
"""Weight of the day's session drift by hour: with it from London's opening to its close, some of it back after New York's afternoon."""
