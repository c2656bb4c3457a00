"""Small invented markets and strategies, good and bad, for tests of the validation pipeline. Importable by worker processes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from modules.backtest.series import Series, from_arrays
from modules.domain.instrument import AssetClass
from modules.domain.signal import Intent
from modules.strategies.protocol import Market, Strategy

HOUR = 3_600_000
BEGIN = 438_288 * HOUR
"""2020-01-01."""
KNOWN: dict[float, float] = {}
"""What a cheat was told of the future."""


class Params(NamedTuple):
    threshold: float = 0.5
    hold: int = 12


class State(NamedTuple):
    before: float
    bars: int
    side: float
    left: int


def init(params: Params) -> State:
    return State(0.0, 0, 0.0, 0)


def echo(state: State, market: Market, params: Params) -> tuple[State, Intent]:
    """Follows a signal that the planted worlds hide in the volume: 1,000 x (1 + z), z foretells the next hours."""
    wanted = market.volume / 1000.0 - 1.0
    side = state.side
    left = state.left - 1
    if left <= 0:
        side = 0.0
        left = 0
        if wanted > params.threshold:
            side = 1.0
            left = params.hold
        elif wanted < -params.threshold:
            side = -1.0
            left = params.hold
    return State(market.close, state.bars + 1, side, left), Intent(side, 0.05 * market.close if side != 0.0 else 0.0, 0.0, 0)


def raises(state: State, market: Market, params: Params) -> tuple[State, Intent]:
    return State(1.0 / (state.bars - 300), state.bars + 1, 0.0, 0), Intent()


def hangs(state: State, market: Market, params: Params) -> tuple[State, Intent]:
    while state.bars >= 300:
        pass
    return State(0.0, state.bars + 1, 0.0, 0), Intent()


def returns_nan(state: State, market: Market, params: Params) -> tuple[State, Intent]:
    return State(0.0, state.bars + 1, 0.0, 0), Intent(math.nan if state.bars > 300 else 0.0, 0.0, 0.0, 0)


def returns_giants(state: State, market: Market, params: Params) -> tuple[State, Intent]:
    return State(0.0, state.bars + 1, 0.0, 0), Intent(1e308, 1e308, 1e308, 0)


def peeks(state: State, market: Market, params: Params) -> tuple[State, Intent]:
    return state, Intent(1.0 if KNOWN.get(market.at, 0.0) > market.close else -1.0, 1.0, 0.0, 0)


def silent(state: State, market: Market, params: Params) -> tuple[State, Intent]:
    return state, Intent()


def once(state: State, market: Market, params: Params) -> tuple[State, Intent]:
    score = 1.0 if 700 < state.bars < 730 else 0.0
    return State(0.0, state.bars + 1, 0.0, 0), Intent(score, 0.05 * market.close, 0.0, 0)


def strategy(step: Any, name: str = "", space: dict[str, tuple[float, ...]] | None = None) -> Strategy:
    return Strategy(name or step.__name__, "", (AssetClass.PERP,), Params(), init, step, 24,
                    {"threshold": (0.25, 0.5, 0.75), "hold": (8, 12, 16)} if space is None else space)


def world(symbol: str, bars: int, seed: int, edge: float = 0.0, begin: int = BEGIN) -> Series:
    """A random walk with volatility clusters; with `edge` > 0 the volume foretells each next hour's drift (in hourly deviations)."""
    draw = np.random.default_rng(seed)
    signal = np.clip(np.repeat(draw.standard_normal(bars // 12 + 1), 12)[:bars], -0.9, 3.0)
    spread = 0.004 * np.exp(0.3 * np.repeat(draw.standard_normal(bars // 48 + 1), 48)[:bars])
    moves = spread * (draw.standard_normal(bars) + edge * np.concatenate(((0.0,), signal[:-1])))
    close = 100.0 * np.exp(np.cumsum(moves))
    opened = np.concatenate(((100.0,), close[:-1]))
    reach = np.abs(draw.standard_normal(bars)) * 0.001
    settled = begin + np.arange(8, bars + 1, 8) * HOUR
    count = len(settled)
    funding: dict[str, Any] = {
        "funding_at": settled, "funding_rate": np.full(count, 1e-5), "funding_hours": np.full(count, 8.0),
        "funding_predicted": np.full(count, 1e-5), "funding_mark": np.full(count, np.nan)}
    high, low = np.maximum(opened, close) * (1.0 + reach), np.minimum(opened, close) * (1.0 - reach)
    return from_arrays(symbol, AssetClass.PERP, begin + (np.arange(bars) + 1) * HOUR, opened, high, low, close,
                       1000.0 * (1.0 + signal), quote_volume=np.full(bars, 1e6), **funding)
