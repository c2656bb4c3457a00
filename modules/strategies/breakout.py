"""Breakout: a close beyond the highest high (lowest low) of two days' bars starts a view in that direction.

The new extreme must exceed the old one by a fraction of the average true range, since touching the old high is not yet leaving
the range. The view ends at its stop, at its target, after `hold` bars, or when price falls back to the middle of the channel.
"""

from __future__ import annotations

from typing import NamedTuple

from modules.domain.instrument import AssetClass
from modules.domain.signal import Intent
from modules.strategies.holding import NOTHING, Holding, kept, taken
from modules.strategies.indicators import Atr, Donchian, atr_init, atr_step, donchian_init, donchian_step, graded
from modules.strategies.protocol import Market, Strategy


class BreakoutParams(NamedTuple):
    channel: int = 576
    """Bars of the Donchian channel."""
    atr: int = 96
    margin: float = 0.5
    """How far beyond the channel the close must be, in average true ranges."""
    full: float = 2.0
    """Distance beyond the margin at which the score is 1, in average true ranges."""
    stop: float = 8.0
    """Distance in average true ranges."""
    reward: float = 2.0
    """Target distance as a multiple of the stop distance."""
    hold: int = 864


class BreakoutState(NamedTuple):
    channel: Donchian
    atr: Atr
    held: Holding


def init(params: BreakoutParams) -> BreakoutState:
    return BreakoutState(donchian_init(params.channel), atr_init(), NOTHING)


def step(state: BreakoutState, market: Market, params: BreakoutParams) -> tuple[BreakoutState, Intent]:
    before = state.channel
    full = before.seen == params.channel
    top = before.high
    bottom = before.low
    channel = donchian_step(before, market.high, market.low)
    atr = atr_step(state.atr, market.high, market.low, market.close, params.atr)
    close = market.close
    held = state.held
    if held.intent.score != 0.0:
        held = kept(held, market.high, market.low)
        middle = 0.5 * (channel.high + channel.low)
        if held.intent.score * (close - middle) < 0.0:
            held = NOTHING
    elif full and atr.value > 0.0:
        margin = params.margin * atr.value
        distance = params.stop * atr.value
        target = params.reward * distance
        if close > top + margin:
            held = taken(graded((close - top - margin) / (params.full * atr.value)), close, distance, target, params.hold)
        elif close < bottom - margin:
            held = taken(-graded((bottom - margin - close) / (params.full * atr.value)), close, distance, target, params.hold)
    return BreakoutState(channel, atr, held), held.intent


STRATEGY = Strategy(
    name="breakout",
    description="Follows a close beyond two days' range (Donchian channel): ATR stop, target at twice the stop, three days at most.",
    asset_classes=(AssetClass.SPOT, AssetClass.PERP, AssetClass.FOREX),
    params=BreakoutParams(),
    init=init,
    step=step,
    warmup=577,
    space={"channel": (288, 576, 864), "margin": (0.0, 0.5, 1.0), "stop": (6.0, 8.0, 12.0), "reward": (1.5, 2.0, 3.0)},
)
