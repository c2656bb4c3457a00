"""Coins of the demo market: one common factor, each coin's own noise, their perpetuals, funding, and implied volatility.

A coin's return is beta x factor + its share of the regime's drift + own noise, and some coins are pulled back to their own slow average.
Open, high and low come from a Brownian bridge between open and close. A day is made from the state the day before left behind.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from modules.domain.market import FundingRate
from modules.domain.sessions import utc_day
from modules.venues.demo.catalog import (
    AVERAGE_WEIGHT,
    BAR_MS,
    BARS_PER_DAY,
    BARS_PER_HOUR,
    CRYPTO,
    CYCLE_DAYS,
    DAY_MS,
    FUNDING_BASE,
    FUNDING_STRETCHES,
    HISTORY_DAYS,
    HOUR_MS,
    OPTION_UNDERLYINGS,
    OPTIONS,
    PERP_DIGITS,
    QUOTED_HALF_SPREAD,
    QUOTED_SPOT,
    SPOT_DIGITS,
    WIDE_HALF_SPREAD,
    WIDE_SPREAD_BARS,
    WIDE_SPREAD_DAYS,
    CryptoModel,
    perp_symbol,
    spot_symbol,
)
from modules.venues.demo.days import F64, Columns, Day, rounded
from modules.venues.demo.weather import (
    CRYPTO_HOURS,
    FOREX_HOURS,
    SCRIPT,
    Climate,
    Noise,
    Shocks,
    climates,
    crypto_shocks,
    release_volatility,
    volatility_noise,
)

SIGMA: Final = 0.00135
"""Of the common factor per bar on an average day: 2.3 % a day."""
_DRIFT: Final = 0.034 / BARS_PER_DAY
"""A trend regime moves 3.4 % a day."""
_LEVEL_PULL: Final = 0.00008
"""Per bar, of each price toward where history began, half-life 30 days: an endless market stays where its ticks make sense, for all the
crashes that it scripts."""
_RANGE_PULL: Final = 0.012
"""Per bar, of the factor toward the level at which a ranging regime began."""
_OWN_PULL: Final = 0.0002
_PREMIUM_SIGMA: Final = 0.00004
_PREMIUM_PULL: Final = 0.05
_FUNDING_PULL: Final = 0.5
_FUNDING_NOISE: Final = 0.00003
_SETTLEMENT_HOURS: Final = 8
RELEASE_MULTIPLE: Final = 2.2
WEEKEND_VOLUME: Final = 0.7
_VARIANCE_WEIGHT: Final = 0.005
_BARS_PER_YEAR: Final = 365 * BARS_PER_DAY
_IMPLIED_FLOOR: Final = 0.22
_IMPLIED_SHARE: Final = 0.94
_IMPLIED_MIN: Final = 0.5
_IMPLIED_MAX: Final = 2.8
"""Floor, least and most are multiples of the underlying's long-run volatility."""


@dataclass(slots=True)
class Coin:
    """What one day hands to the next."""

    model: CryptoModel
    price: float
    average: float
    own: float = 0.0
    premium: float = 0.0
    funding: float = FUNDING_BASE
    variance: float = SIGMA * SIGMA


class _Path(NamedTuple):
    """A coin's unrounded day. `activity` is volume in quote units."""

    open: F64
    high: F64
    low: F64
    close: F64
    activity: F64


class Conditions(NamedTuple):
    """What all coins share on one day, per bar."""

    common: list[float]
    climate: list[Climate]
    scale: list[float]
    shocks: Shocks
    volume: float


class CryptoMarket:
    """Makes the spot and perpetual part of each day, in order, from history's first day on."""

    def __init__(self, seed: int) -> None:
        self._coins = [Coin(model, model.price, model.price) for model in CRYPTO]
        self._climates: Iterator[Climate] = climates(Noise(seed, -1_001), HISTORY_DAYS * BARS_PER_DAY, SCRIPT)
        self._level = 0.0
        self._anchor = 0.0
        self._ranging = False
        self._unrest = 0.0

    def make(self, number: int, day: Day, noise: Noise) -> None:
        """Fill day `number` (0 = the market's start)."""
        climate = [next(self._climates) for _ in range(BARS_PER_DAY)]
        unrest, self._unrest = volatility_noise(noise, self._unrest)
        release = release_volatility(day.midnight, RELEASE_MULTIPLE)
        scale = [state.volatility * hour * wild * burst
                 for state, hour, wild, burst in zip(climate, CRYPTO_HOURS, unrest, release, strict=True)]
        today = Conditions(self._common(climate, scale, noise), climate, scale, crypto_shocks(number, noise),
                            WEEKEND_VOLUME if (utc_day(day.midnight) + 3) % 7 >= 5 else 1.0)
        for coin in self._coins:
            self._coin_day(coin, number, day, today, noise)

    def _common(self, climate: Sequence[Climate], scale: Sequence[float], noise: Noise) -> list[float]:
        """The factor's returns without drift."""
        level, anchor, ranging = self._level, self._anchor, self._ranging
        returns = []
        for state, size, draw in zip(climate, scale, noise.normals(BARS_PER_DAY), strict=True):
            if state.ranging and not ranging:
                anchor = level
            ranging = state.ranging
            value = SIGMA * size * draw
            if ranging:
                value -= _RANGE_PULL * (level - anchor)
            level += value
            returns.append(value)
        self._level, self._anchor, self._ranging = level, anchor, ranging
        return returns

    def _coin_day(self, coin: Coin, number: int, day: Day, today: Conditions, noise: Noise) -> None:
        name = coin.model.name
        path = walk(coin, today, noise)
        both = name in SPOT_DIGITS and name in PERP_DIGITS
        if name in SPOT_DIGITS:
            spot = _columns(day.midnight, path, SPOT_DIGITS[name], 0.5 if both else 1.0)
            if spot_symbol(name) == QUOTED_SPOT:
                spot = replace(spot, quotes=_quotes(spot, number % CYCLE_DAYS if number >= 0 else -1, SPOT_DIGITS[name]))
            day.columns[spot_symbol(name)] = spot
        if name in OPTION_UNDERLYINGS:
            day.index[name] = rounded(path.close, 2)
            day.volatility[name] = _implied(coin, path)
        if name in PERP_DIGITS:
            perpetual_day(coin, path, number, day, noise, 0.5 if both else 1.0)


def walk(coin: Coin, today: Conditions, noise: Noise) -> _Path:
    """A coin's day from the common factor, the regime, its own noise and the shocks."""
    model = coin.model
    width = SIGMA * math.sqrt(model.beta * model.beta + model.own * model.own)
    activity = model.daily_volume / BARS_PER_DAY * today.volume
    price, own, average = coin.price, coin.own, coin.average
    shocks, size = today.shocks, np.array(today.scale)
    hour = np.array(FOREX_HOURS if model.banking_hours else CRYPTO_HOURS)
    gaps = 1.0 + np.array(shocks.gaps) * model.shock
    common = 1.0 + model.beta * np.array(today.common)
    noises = SIGMA * model.own * size * np.array(noise.normals(BARS_PER_DAY))
    drifts = model.trend * _DRIFT * np.array([state.drift for state in today.climate])
    moves = np.array(shocks.moves) * model.shock
    opens, closes = [], []
    # Only what hangs on the bar before goes bar by bar, in the order of operations that the seeds' prices were first made in.
    for gap, factor, draw, drift, move in zip(
            gaps.tolist(), common.tolist(), noises.tolist(), drifts.tolist(), moves.tolist(), strict=True):
        change = draw - _OWN_PULL * own
        own += change
        open_ = price * gap
        pull = model.revert * (open_ / average - 1.0) + _LEVEL_PULL * (open_ / model.price - 1.0)
        price = open_ * (factor + change - pull + drift + move)
        average += AVERAGE_WEIGHT * (price - average)
        opens.append(open_)
        closes.append(price)
    coin.price, coin.own, coin.average = price, own, average
    begin, end = np.array(opens), np.array(closes)
    step, spread = end - begin, width * size * begin
    high, low = (np.sqrt(step * step + spread * spread * np.array(noise.exponentials(BARS_PER_DAY))) for _ in range(2))
    crowd = np.array(noise.exponentials(BARS_PER_DAY))
    busy = activity * np.array(shocks.volume) * hour * hour * (0.35 + 0.25 * size + 0.2 * crowd)
    return _Path(begin, 0.5 * (begin + end + high), 0.5 * (begin + end - low), end, busy)


def _columns(midnight: int, path: _Path, digits: int, share: float) -> Columns:
    activity = share * path.activity
    prices = tuple(rounded(prices, digits) for prices in path[:4])
    volume = rounded(activity / path.close, 4)
    return Columns(np.arange(midnight, midnight + DAY_MS, BAR_MS), (*prices, volume, rounded(activity, 2)))


def _quotes(spot: Columns, cycle_day: int, digits: int) -> tuple[F64, ...]:
    """Bid and ask around the close and the open; the close's spread is the next open's, so the quote does not jump between them."""
    half = np.full(BARS_PER_DAY + 1, QUOTED_HALF_SPREAD)
    if cycle_day in WIDE_SPREAD_DAYS:
        half[slice(*WIDE_SPREAD_BARS)] = WIDE_HALF_SPREAD
    opens, _, _, closes, *_ = spot.values
    return (rounded(closes * (1.0 - half[1:]), digits), rounded(closes * (1.0 + half[1:]), digits),
            rounded(opens * (1.0 - half[:-1]), digits), rounded(opens * (1.0 + half[:-1]), digits))


def perpetual_day(coin: Coin, path: _Path, number: int, day: Day, noise: Noise, share: float) -> None:
    """A perpetual's bars, marks and settlements around its index; `share` of the coin's activity is its own."""
    symbol, digits = perp_symbol(coin.model.name), PERP_DIGITS[coin.model.name]
    premiums = _premiums(coin, noise)
    day.columns[symbol] = _columns(day.midnight, _perpetual(path, premiums), digits, share)
    day.marks[symbol] = rounded(path.close * (1.0 + 0.5 * np.array(premiums[1:])), digits)
    _settle(coin, number, day, noise)


def _premiums(coin: Coin, noise: Noise) -> list[float]:
    """The perpetual over its index at each bar's border, drawn toward what funding charges for it."""
    premium = coin.premium
    result = [premium]
    for draw in noise.normals(BARS_PER_DAY):
        premium += _PREMIUM_SIGMA * draw - _PREMIUM_PULL * (premium - coin.funding)
        result.append(premium)
    coin.premium = premium
    return result


def _perpetual(path: _Path, premiums: Sequence[float]) -> _Path:
    before, after = 1.0 + np.array(premiums[:-1]), 1.0 + np.array(premiums[1:])
    first = path.open * before
    return _Path(first, np.maximum(path.high * after, first), np.minimum(path.low * after, first), path.close * after, path.activity)


def _settle(coin: Coin, number: int, day: Day, noise: Noise) -> None:
    """The day's three settlements, the last at the next midnight. The prediction is what anybody could make: halfway back to usual."""
    symbol = perp_symbol(coin.model.name)
    for count, draw in enumerate(noise.normals(24 // _SETTLEMENT_HOURS), 1):
        hours = count * _SETTLEMENT_HOURS
        moment = number % CYCLE_DAYS + hours / 24.0
        target = next((stretch.rate for stretch in FUNDING_STRETCHES if number >= 0 and stretch.name == coin.model.name
                       and stretch.first_day <= moment < stretch.last_day), FUNDING_BASE)
        coin.funding += _FUNDING_PULL * (target - coin.funding) + _FUNDING_NOISE * draw
        rate = round(coin.funding, 8)
        at = day.midnight + hours * HOUR_MS
        predicted = round(0.9 * rate + 0.1 * FUNDING_BASE, 8)
        day.funding.setdefault(at, []).append(FundingRate(symbol, at, rate, float(_SETTLEMENT_HOURS), predicted))


def _implied(coin: Coin, path: _Path) -> F64:
    """At-the-money volatility at each full hour: a premium over what the coin has realized of late, so options cost more after a fall."""
    levels = []
    previous = float(path.open[0])
    variance = coin.variance
    usual = OPTIONS[coin.model.name].volatility
    for slot, close in enumerate(path.close.tolist(), 1):
        change = close / previous - 1.0
        previous = close
        variance += _VARIANCE_WEIGHT * (change * change - variance)
        if slot % BARS_PER_HOUR == 0:
            level = _IMPLIED_FLOOR * usual + _IMPLIED_SHARE * math.sqrt(variance * _BARS_PER_YEAR)
            levels.append(min(_IMPLIED_MAX * usual, max(_IMPLIED_MIN * usual, level)))
    coin.variance = variance
    return rounded(levels, 6)
