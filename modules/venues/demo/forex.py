"""Currency pairs of the demo market: a dollar factor, each pair's own noise, sessions, the New York rollover and the weekend.

Bars are mids of recorded bid and ask. A bar exists while the market is open: Sunday 17:00 to Friday 17:00 New York.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from modules.domain.market import NAN, Financing
from modules.domain.sessions import forex_open, minutes_to_rollover, next_rollover
from modules.venues.demo.catalog import (
    AVERAGE_WEIGHT,
    BAR_MS,
    BARS_PER_DAY,
    DAY_MS,
    FOREX,
    HISTORY_DAYS,
    HOUR_MS,
    ForexModel,
)
from modules.venues.demo.days import Columns, Day, rounded
from modules.venues.demo.weather import (
    FOREX_HOURS,
    FOREX_SESSION,
    Climate,
    Noise,
    climates,
    release_bars,
    release_volatility,
    volatility_noise,
)

_SIGMA: Final = 0.00017
"""Of the dollar factor per bar: 0.29 % a day; a pair with its own noise moves about 0.4 %."""
_DRIFT: Final = 0.0045 / BARS_PER_DAY
_OWN_PULL: Final = 0.0003
_LEVEL_PULL: Final = 0.00003
_RELEASE_MULTIPLE: Final = 3.0
_RELEASE_GAP: Final = 0.0022
"""Standard deviation of the jump at a US release."""
_WEEKEND_SHARE: Final = 0.12
"""Of a trading bar's movement that goes on, unseen, while the market is closed."""
_ROLLOVER_MINUTES: Final = 20.0
_ROLLOVER_MULTIPLE: Final = 8.0
"""Spreads within 20 minutes of 17:00 New York, times those of liquid hours."""
_CLOSING_MS: Final = 2 * BAR_MS
_CLOSING_VOLATILITY: Final = 5.0
"""In the last ten minutes before 17:00 New York: few quote, and what must be rolled or squared moves the price."""
_NIGHT_MULTIPLE: Final = 1.4
_UNDECIDED: Final = 0.25
"""Share of days on which London and New York lean nowhere."""
_FINANCING_NOISE: Final = 0.0008


@dataclass(slots=True)
class _Pair:
    model: ForexModel
    price: float
    average: float
    own: float = 0.0
    away: float = 0.0
    """Return accrued while closed, released in the first bar's open."""


class _Conditions(NamedTuple):
    dollar: list[float]
    climate: list[Climate]
    scale: list[float]
    jumps: list[float]
    """Of the dollar, before the bar."""
    open: list[bool]
    spread: list[float]
    """Multiple of the usual spread at each bar's border."""
    lean: list[float]
    """Sign of the day's session drift at each bar."""


class ForexMarket:
    """Makes the currency part of each day, in order, from history's first day on."""

    def __init__(self, seed: int) -> None:
        self._pairs = [_Pair(model, model.price, model.price) for model in FOREX]
        self._climates: Iterator[Climate] = climates(Noise(seed, -1_002), HISTORY_DAYS * BARS_PER_DAY, ())
        self._level = 0.0
        self._unrest = 0.0

    def make(self, day: Day, noise: Noise) -> None:
        today = self._conditions(day.midnight, noise)
        for pair in self._pairs:
            day.columns[pair.model.symbol] = _walk(pair, day.midnight, today, noise)
        at = next_rollover(day.midnight)
        if at < day.midnight + DAY_MS:
            for pair, draw in zip(self._pairs, noise.normals(len(self._pairs)), strict=True):
                shift = _FINANCING_NOISE * draw
                day.financing.append(Financing(pair.model.symbol, at, round(pair.model.long_rate + shift, 6),
                                               round(pair.model.short_rate - shift, 6)))

    def _conditions(self, midnight: int, noise: Noise) -> _Conditions:
        climate = [next(self._climates) for _ in range(BARS_PER_DAY)]
        unrest, self._unrest = volatility_noise(noise, self._unrest)
        trading = [forex_open(midnight + slot * BAR_MS) for slot in range(BARS_PER_DAY)]
        release = release_volatility(midnight, _RELEASE_MULTIPLE)
        close = next_rollover(midnight)
        thin = [_CLOSING_VOLATILITY if close - _CLOSING_MS <= midnight + slot * BAR_MS < close else 1.0 for slot in range(BARS_PER_DAY)]
        scale = [state.volatility * hour * wild * burst * nervous * (1.0 if is_open else _WEEKEND_SHARE)
                 for state, hour, wild, burst, nervous, is_open
                 in zip(climate, FOREX_HOURS, unrest, release, thin, trading, strict=True)]
        jumps = [0.0] * BARS_PER_DAY
        for bar in release_bars(midnight):
            jumps[bar] = _RELEASE_GAP * noise.normals(1)[0]
        level, dollar = self._level, []
        for size, draw, jump in zip(scale, noise.normals(BARS_PER_DAY), jumps, strict=True):
            value = _SIGMA * size * draw - _LEVEL_PULL * level
            level += value + jump
            dollar.append(value)
        self._level = level
        spread = [_spread(midnight + slot * BAR_MS) for slot in range(BARS_PER_DAY + 1)]
        mood = noise.uniform(-1.0, 1.0)
        lean = 0.0 if abs(mood) < _UNDECIDED else math.copysign(1.0, mood)
        return _Conditions(dollar, climate, scale, jumps, trading, spread, [lean * hour for hour in FOREX_SESSION])


def _spread(at: int) -> float:
    if minutes_to_rollover(at) <= _ROLLOVER_MINUTES:
        return _ROLLOVER_MULTIPLE
    return 1.0 if 6 <= at % DAY_MS // HOUR_MS < 20 else _NIGHT_MULTIPLE


def _walk(pair: _Pair, midnight: int, today: _Conditions, noise: Noise) -> Columns:
    model = pair.model
    width = _SIGMA * math.sqrt(model.dollar * model.dollar + model.own * model.own)
    path: list[tuple[int, float, float, float, float]] = []
    price, average, own, away = pair.price, pair.average, pair.own, pair.away
    for slot, (state, dollar, size, jump, is_open, session, draw, up, down) in enumerate(zip(
            today.climate, today.dollar, today.scale, today.jumps, today.open, today.lean, noise.normals(BARS_PER_DAY),
            noise.exponentials(BARS_PER_DAY), noise.exponentials(BARS_PER_DAY), strict=True)):
        change = _SIGMA * model.own * size * draw - _OWN_PULL * own
        own += change
        move = model.dollar * dollar + change + model.trend * _DRIFT * state.drift + model.session * session
        if not is_open:
            away += model.dollar * dollar + change
            continue
        first = price * (1.0 + away + model.dollar * jump)
        price, away = first * (1.0 + move - model.revert * (first / average - 1.0)), 0.0
        average += AVERAGE_WEIGHT * (price - average)
        reach, step = width * size * first, price - first
        high = 0.5 * (first + price + math.sqrt(step * step + reach * reach * up))
        low = 0.5 * (first + price - math.sqrt(step * step + reach * reach * down))
        path.append((slot, first, high, low, price))
    pair.price, pair.average, pair.own, pair.away = price, average, own, away
    return _columns(model, midnight, today.spread, path)


def _columns(model: ForexModel, midnight: int, spread: list[float], path: list[tuple[int, float, float, float, float]]) -> Columns:
    """Quotes rounded to the tick around the path, and mids between them: half ticks, hence one digit more."""
    slots = np.array([row[0] for row in path], dtype=np.int64)
    opens, highs, lows, closes = (np.array([row[column] for row in path]) for column in range(1, 5))
    half = model.half_spread * np.array(spread)
    before, after = half[slots], half[slots + 1]
    bid, ask = rounded(closes - after, model.digits), rounded(closes + after, model.digits)
    open_bid, open_ask = rounded(opens - before, model.digits), rounded(opens + before, model.digits)
    digits = model.digits + 1
    close, open_ = rounded(0.5 * (bid + ask), digits), rounded(0.5 * (open_bid + open_ask), digits)
    high = np.maximum(rounded(highs, digits), np.maximum(open_, close))
    low = np.minimum(rounded(lows, digits), np.minimum(open_, close))
    unknown = np.full(len(path), NAN)
    return Columns(midnight + slots * BAR_MS, (open_, high, low, close, unknown, unknown), (bid, ask, open_bid, open_ask))
