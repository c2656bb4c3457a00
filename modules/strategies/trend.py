"""Trend following: two exponential averages, the distance between them measured in average true ranges.

Long while the fast average is above the slow one by more than `band` ranges, short below, and once in it stays until they cross back:
the band keeps a quiet market, where the averages wind around each other, from paying fees at every turn. The stop is wide and there is a
far target, as a trend follower lives from few long moves. Defaults suit 5-minute bars (8 hours against 32) and hold on hourly ones.
"""

from __future__ import annotations

from typing import NamedTuple

from modules.domain.instrument import AssetClass
from modules.domain.signal import FLAT, Intent
from modules.strategies.indicators import NAN, Atr, atr_init, atr_step, ema, ema_weight, graded
from modules.strategies.protocol import Market, Strategy


class TrendParams(NamedTuple):
    fast: int = 96
    """Bars of the fast average."""
    slow: int = 384
    atr: int = 96
    band: float = 1.5
    """Separation that starts a view, in average true ranges."""
    full: float = 6.0
    """Separation beyond the band at which the score is 1."""
    stop: float = 8.0
    """Distance in average true ranges."""
    reward: float = 3.0
    """Target distance as a multiple of the stop distance."""


class TrendState(NamedTuple):
    fast: float
    slow: float
    atr: Atr
    side: float
    bars: int


def init(params: TrendParams) -> TrendState:
    return TrendState(NAN, NAN, atr_init(), 0.0, 0)


def step(state: TrendState, market: Market, params: TrendParams) -> tuple[TrendState, Intent]:
    fast = ema(state.fast, market.close, ema_weight(params.fast))
    slow = ema(state.slow, market.close, ema_weight(params.slow))
    atr = atr_step(state.atr, market.high, market.low, market.close, params.atr)
    bars = state.bars + 1
    separation = (fast - slow) / atr.value if atr.value > 0.0 else 0.0
    side = state.side
    if side * separation <= 0.0:
        side = 0.0
        if separation > params.band:
            side = 1.0
        elif separation < -params.band:
            side = -1.0
    if bars < 2 * params.slow or not atr.value > 0.0:
        side = 0.0
    ahead = TrendState(fast, slow, atr, side, bars)
    if side == 0.0:
        return ahead, FLAT
    score = side * graded((abs(separation) - params.band) / params.full)
    distance = params.stop * atr.value
    return ahead, Intent(score, distance, params.reward * distance, 0)


STRATEGY = Strategy(
    name="trend",
    description="Follows the trend: EMA cross with a band against whipsaw, ATR stop, target far away.",
    asset_classes=(AssetClass.SPOT, AssetClass.PERP, AssetClass.FOREX),
    params=TrendParams(),
    init=init,
    step=step,
    warmup=768,
    space={"fast": (48, 96, 144), "slow": (288, 384, 576), "band": (0.75, 1.5, 3.0), "stop": (6.0, 8.0, 12.0), "reward": (2.0, 3.0, 4.0)},
)
