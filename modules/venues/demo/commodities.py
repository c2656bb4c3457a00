"""Commodities of the demo market: perpetuals on the crypto venue that share its traders and little else.

Each moves by its own noise, so that no rule about correlation binds them together; a seeded calm ends twice a cycle in a rush of money
into all of them, one after the other, and out again in one bar (catalog.RUSHES).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from modules.domain.sessions import utc_day
from modules.venues.demo.catalog import BARS_PER_DAY, COMMODITIES, HISTORY_DAYS
from modules.venues.demo.crypto import RELEASE_MULTIPLE, SIGMA, WEEKEND_VOLUME, Coin, Conditions, perpetual_day, walk
from modules.venues.demo.days import Day
from modules.venues.demo.weather import (
    COMMODITY_LEAD_DAYS,
    COMMODITY_SCRIPT,
    CRYPTO_HOURS,
    Climate,
    Noise,
    climates,
    release_volatility,
    rush_shocks,
    volatility_noise,
)

_JITTER_BARS: Final = 6.0


class CommodityMarket:
    """Makes the commodities' part of each day, in order, from history's first day on."""

    def __init__(self, seed: int) -> None:
        self._coins = [Coin(model, model.price, model.price) for model in COMMODITIES]
        self._climates: Iterator[Climate] = climates(
            Noise(seed, -1_003), (HISTORY_DAYS - COMMODITY_LEAD_DAYS) * BARS_PER_DAY, COMMODITY_SCRIPT)
        self._unrest = 0.0

    def make(self, number: int, day: Day, noise: Noise) -> None:
        """Fill day `number` (0 = the market's start)."""
        climate = [next(self._climates) for _ in range(BARS_PER_DAY)]
        unrest, self._unrest = volatility_noise(noise, self._unrest)
        scale = [state.volatility * hour * wild * burst for state, hour, wild, burst in zip(
            climate, CRYPTO_HOURS, unrest, release_volatility(day.midnight, RELEASE_MULTIPLE), strict=True)]
        common = [SIGMA * size * draw for size, draw in zip(scale, noise.normals(BARS_PER_DAY), strict=True)]
        volume = WEEKEND_VOLUME if (utc_day(day.midnight) + 3) % 7 >= 5 else 1.0
        jitter = int(noise.uniform(0.0, _JITTER_BARS))
        for place, coin in enumerate(self._coins):
            shocks = rush_shocks(number, place, len(self._coins), jitter)
            path = walk(coin, Conditions(common, climate, scale, shocks, volume), noise)
            perpetual_day(coin, path, number, day, noise, 1.0)
