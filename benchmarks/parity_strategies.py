"""Twenty strategies that nobody would trade: random entries, stops, targets, holding times and reversals, to shake every rule of exit.

Deterministic: the choice at a bar is a hash of its time and the strategy's seed, so that plain and compiled runs make the same one.
"""

from __future__ import annotations

import random
from typing import Final, NamedTuple

from modules.domain.instrument import AssetClass
from modules.domain.signal import FLAT, Intent
from modules.strategies.indicators import Atr, atr_init, atr_step
from modules.strategies.protocol import Market, Strategy

COUNT: Final = 20


class RandomParams(NamedTuple):
    seed: int = 1
    chance: float = 0.02
    """Of a new view at a bar."""
    leave: float = 0.01
    """Of losing the view at a bar."""
    reverse: float = 0.2
    """Of turning round instead."""
    stop: float = 3.0
    """Average true ranges; 0 = none."""
    reward: float = 1.5
    """Multiple of the stop; 0 = no target."""
    hold: int = 0
    momentum: bool = True
    """With the last bar or against it."""


class RandomState(NamedTuple):
    atr: Atr
    wish: Intent
    bars: int


def draw(at: float, seed: int, salt: int) -> float:
    """A number in [0, 1) out of a time and two seeds: a linear congruence stirred a few times."""
    value = (int(at // 60_000.0) * 48_271 + seed * 69_621 + salt * 16_807) % 2_147_483_647
    for _ in range(4):
        value = (value * 48_271 + 11 * seed + salt) % 2_147_483_647
    return value / 2_147_483_647.0


def init(params: RandomParams) -> RandomState:
    return RandomState(atr_init(), FLAT, 0)


def step(state: RandomState, market: Market, params: RandomParams) -> tuple[RandomState, Intent]:
    atr = atr_step(state.atr, market.high, market.low, market.close, 50)
    bars = state.bars + 1
    wish = state.wish
    if bars < 100 or not atr.value > 0.0:
        return RandomState(atr, FLAT, bars), FLAT
    up = market.close >= market.open
    direction = 1.0 if up == params.momentum else -1.0
    distance = params.stop * atr.value
    score = 0.3 + 0.7 * draw(market.at, params.seed, 3)
    if wish.score == 0.0:
        if draw(market.at, params.seed, 1) < params.chance:
            wish = Intent(direction * score, distance, params.reward * distance, params.hold)
    elif draw(market.at, params.seed, 2) < params.leave:
        if draw(market.at, params.seed, 4) < params.reverse:
            wish = Intent(-score if wish.score > 0.0 else score, distance, params.reward * distance, params.hold)
        else:
            wish = FLAT
    return RandomState(atr, wish, bars), wish


def generated() -> list[Strategy]:
    """The twenty, the same ones every time."""
    source = random.Random(20)
    found = []
    for number in range(COUNT):
        params = RandomParams(
            seed=number + 1, chance=source.choice((0.01, 0.03, 0.1)), leave=source.choice((0.005, 0.02, 0.1)),
            reverse=source.choice((0.0, 0.3, 1.0)), stop=source.choice((1.0, 2.0, 4.0, 8.0)), reward=source.choice((0.0, 0.5, 1.5, 3.0)),
            hold=source.choice((0, 1, 12, 60)), momentum=source.random() < 0.5)
        found.append(Strategy(
            name=f"random_{number + 1:02d}", description="random entries for parity", params=params, init=init, step=step, warmup=100,
            asset_classes=((AssetClass.SPOT, AssetClass.PERP, AssetClass.FOREX)[number % 3],), space={}))
    return found
