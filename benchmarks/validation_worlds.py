"""Markets in which it is known whether a strategy is worth anything: edges, noise and drift planted in prices, seeded.

Fifty variants of one strategy read fifty correlated signals; a signal is a bit of the reference column, so the strategy's own step, fills,
costs, gates and sizes are all at work. Returns answer to the signals of those variants that carry the edge, and only to theirs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import START
from modules.backtest.basket import Basket
from modules.backtest.series import Series, from_arrays
from modules.domain.instrument import AssetClass
from modules.domain.signal import Intent
from modules.strategies.protocol import Market, Strategy

Floats = NDArray[np.float64]
SYMBOLS: Final = ("ONE/USDT", "TWO/USDT")
BARS_A_DAY: Final = 3
HOURS_MS: Final = 8 * 3_600_000
PERIODS: Final = 365.0
ROWS, COLUMNS = 10, 5
VARIANTS: Final = ROWS * COLUMNS
BLOCK: Final = (5, 3)
"""Rows and columns of the grid's plateau: 15 of 50 variants carry the edge."""
DAILY_VOLATILITY: Final = 0.035
FLIPS: Final = 0.12
"""Chance that a signal changes its sign from one bar to the next."""


SURE: Final = 0.25
"""The score: at full confidence two instruments of this volatility on three times leverage draw down by more than the gate allows."""


class Params(NamedTuple):
    row: int = 0
    column: int = 0
    short: float = 1.0
    """What a signal against the market is worth: 0 = long only."""


class Memory(NamedTuple):
    bars: int


def init(params: Params) -> Memory:
    return Memory(0)


def step(state: Memory, market: Market, params: Params) -> tuple[Memory, Intent]:
    signals = market.ref_close
    place = params.row * 5 + params.column
    bit = math.floor(signals / 2.0**place) % 2.0
    score = SURE if bit > 0.5 else -SURE * params.short
    return Memory(state.bars + 1), Intent(score, 0.3 * market.close, 0.0, 0)


def strategy(variants: int, *, short: bool = True) -> Strategy:
    """One variant, or the whole grid of fifty."""
    space = {"row": tuple(range(ROWS)), "column": tuple(range(COLUMNS))} if variants > 1 else {}
    return Strategy(name="planted", description="reads a planted signal", asset_classes=(AssetClass.PERP,),
                    params=Params(short=1.0 if short else 0.0), init=init, step=step, warmup=1, space=space)


@dataclass(frozen=True, slots=True)
class World:
    """What is planted. Means are per day, in the return of a variant that holds its signal all the time, before costs."""

    years: float = 5.0
    variants: int = VARIANTS
    correlation: float = 0.5
    """Of the variants' daily results."""
    autocorrelation: float = 0.1
    """AR(1) of the variants' daily results."""
    edge: float = 0.0
    """For those on the plateau."""
    everywhere: float = 0.0
    """For all variants: what their costs take, to make them worth exactly nothing."""
    drift: float = 0.0
    """Of the market, per day."""


@dataclass(frozen=True, slots=True)
class Daily:
    """Simulated daily results, without a market: what is planted is exact. `t` is that of an edge carrier's out-of-sample days, which are
    the last `tested_share` of all."""

    years: float
    variants: int = VARIANTS
    correlation: float = 0.5
    autocorrelation: float = 0.1
    t: float = 0.0
    tested_share: float = 0.7


def daily_results(world: Daily, seed: int) -> Floats:
    """[days, variants] AR(1) with common volatility clustering and Student-t shocks, mean zero but for those that carry the edge."""
    generator = np.random.default_rng((seed, 0))
    days, phi = round(world.years * 365), world.autocorrelation
    shocks = generator.standard_t(5, (days, world.variants)) * math.sqrt(1 - world.correlation)
    shocks += generator.standard_t(5, (days, 1)) * math.sqrt(world.correlation)
    shocks *= (_volatility(generator, days) * math.sqrt(3 / 5 * (1 - phi**2)))[:, None]
    for day in range(1, days):
        shocks[day] += phi * shocks[day - 1]
    carrying = list(plateau(seed)) if world.variants == VARIANTS else [0]
    # The mean's standard deviation over n days of an AR(1) of variance 1 is sqrt((1 + phi) / (1 - phi) / n).
    shocks[:, carrying] += world.t * math.sqrt((1 + phi) / (1 - phi) / (days * world.tested_share))
    return shocks * DAILY_VOLATILITY


def plateau(seed: int) -> tuple[int, ...]:
    """Variants that carry the edge: a rectangle of the grid."""
    generator = np.random.default_rng((seed, 1))
    row, column = generator.integers(0, ROWS - BLOCK[0] + 1), generator.integers(0, COLUMNS - BLOCK[1] + 1)
    return tuple(int((row + down) * COLUMNS + column + right) for down in range(BLOCK[0]) for right in range(BLOCK[1]))


def _volatility(generator: np.random.Generator, days: int) -> Floats:
    """GARCH(1, 1) with Student-t shocks, mean variance 1."""
    shocks = generator.standard_t(5, days + 200) / math.sqrt(5 / 3)
    variance, found = 1.0, np.empty(days + 200)
    for day, shock in enumerate(shocks):
        found[day] = variance
        variance = 0.03 + variance * (0.09 * shock**2 + 0.88)
    return np.sqrt(found[200:])


def _signals(generator: np.random.Generator, bars: int, variants: int, correlation: float) -> Floats:
    """[bars, variants] signs that persist: latent AR(1) normals with a common part."""
    latent = math.sin(correlation * math.pi / 2)  # correlation of signs = 2/pi asin(correlation of the normals)
    keep = math.cos(FLIPS * math.pi)
    shocks = generator.standard_normal((bars, variants)) * math.sqrt(1 - latent) + generator.standard_normal((bars, 1)) * math.sqrt(latent)
    shocks[1:] *= math.sqrt(1 - keep**2)
    for bar in range(1, bars):
        shocks[bar] += keep * shocks[bar - 1]
    return np.where(shocks > 0.0, 1.0, -1.0)


def _common(generator: np.random.Generator, days: int, phi: float) -> Floats:
    """[days] what makes white noise of share (1 - phi) / (1 + phi) an exact AR(1) of variance 1 when added to it."""
    white = (1 - phi) / (1 + phi)
    shocks = generator.standard_normal(days + 50)
    found = np.zeros(days + 50)
    for day in range(1, days + 50):
        found[day] = phi * found[day - 1] + shocks[day] + shocks[day - 1]
    scale = math.sqrt(2 / (1 - phi)) if phi else 1.0  # standard deviation of the recursion
    return found[50:] / scale * math.sqrt(1 - white) if phi else np.zeros(days)


def basket(world: World, seed: int) -> Basket:
    """The instruments' bars."""
    generator = np.random.default_rng((seed, 0))
    days = round(world.years * 365)
    bars, variants, phi = days * BARS_A_DAY, world.variants, world.autocorrelation
    white = (1 - phi) / (1 + phi)
    within = max(0.0, (world.correlation - (1 - white)) / white) if variants > 1 else 0.0
    signals = _signals(generator, bars, variants, within)
    inverse = np.linalg.inv((1 - within) * np.eye(variants) + within)  # of the signals' second moments
    carrying = np.zeros(variants)
    carrying[list(plateau(seed)) if variants > 1 else 0] = 1.0
    plateau_answer, every_answer = signals @ inverse @ carrying, signals @ inverse @ np.ones(variants)
    calm, common = _volatility(generator, days), _common(generator, days, phi)
    noise = DAILY_VOLATILITY / math.sqrt(BARS_A_DAY)
    series: dict[str, Series] = {}
    coded = signals_as_number(signals)
    at = START + HOURS_MS * np.arange(1, bars + 2)
    free = np.zeros(bars + 1)
    funding: dict[str, Any] = {"funding_at": at, "funding_rate": free, "funding_hours": free + 8.0, "funding_predicted": free,
               "funding_mark": free + np.nan}
    for symbol in SYMBOLS:
        fresh = generator.standard_t(5, bars) / math.sqrt(5 / 3) * np.repeat(calm, BARS_A_DAY) * noise * math.sqrt(white)
        planted = world.edge * plateau_answer + world.everywhere * every_answer
        # Two instruments share the signals and the common part; their own noise halves in the pool, and so must the common part.
        moves = fresh + (planted + np.repeat(common, BARS_A_DAY) * DAILY_VOLATILITY / math.sqrt(len(SYMBOLS)) * every_answer
                         + world.drift) / BARS_A_DAY
        close = 100.0 * np.exp(np.cumsum(np.concatenate(((0.0,), np.clip(moves, -0.5, 0.5)))))
        opened = np.concatenate((close[:1], close[:-1]))
        wide = 1.0 + 0.1 * noise
        series[symbol] = from_arrays(symbol, AssetClass.PERP, at, opened, np.maximum(opened, close) * wide,
                                     np.minimum(opened, close) / wide, close, np.full(bars + 1, 1e9),
                                     ref_close=np.append(coded, coded[-1]), **funding)
    return Basket(AssetClass.PERP, series)


def signals_as_number(signals: Floats) -> Floats:
    """[bars] fifty signs as one whole number below 2^53, exact in a float."""
    return (signals > 0.0) @ (2.0 ** np.arange(signals.shape[1]))
