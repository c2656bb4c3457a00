"""Ideas that were looked for in recorded data by `benchmarks.research`, written as any strategy is. None of them is shipped: none stood."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from modules.backtest.series import Series
from modules.domain.instrument import AssetClass
from modules.domain.signal import FLAT, Intent
from modules.strategies.indicators import NAN, Atr, Ring, atr_init, atr_step, ema, ema_weight
from modules.strategies.protocol import Market, Strategy

CRYPTO: Final = (AssetClass.SPOT, AssetClass.PERP)
WARMUP: Final = 1_500
ATR: Final = 96
SCORE: Final = 0.7
LOOKS: Final = (168, 336, 672, 1344)
"""Hours: one, two, four and eight weeks."""
UNRANKED: Final = 101.0


class MomentumParams(NamedTuple):
    look: int = 672
    band: float = 0.5
    """In average true ranges x the root of `look`."""
    stop: float = 12.0
    every: int = 24
    """Hours between two decisions."""


class MomentumState(NamedTuple):
    ring: Ring
    place: int
    atr: Atr
    side: float
    bars: int


def momentum_init(params: MomentumParams) -> MomentumState:
    return MomentumState(np.zeros(params.look, dtype=np.float64), 0, atr_init(), 0.0, 0)


def momentum_step(state: MomentumState, market: Market, params: MomentumParams) -> tuple[MomentumState, Intent]:
    """With the return over `look` hours."""
    ring, place = state.ring, state.place
    before = float(ring[place])
    ring[place] = market.close
    atr = atr_step(state.atr, market.high, market.low, market.close, ATR)
    bars, side = state.bars + 1, state.side
    place = place + 1 if place + 1 < params.look else 0
    if bars > params.look and bars % params.every == 0 and atr.value > 0.0:
        move = (market.close - before) / (atr.value * math.sqrt(float(params.look)))
        side = 1.0 if move > params.band else -1.0 if move < -params.band else 0.0
    ahead = MomentumState(ring, place, atr, side, bars)
    if side == 0.0 or not atr.value > 0.0:
        return ahead, FLAT
    return ahead, Intent(side * SCORE, params.stop * atr.value, 0.0, 0)


def relative_step(state: MomentumState, market: Market, params: MomentumParams) -> tuple[MomentumState, Intent]:
    """The same for the price in units of the reference instrument."""
    ring, place = state.ring, state.place
    ratio = market.close / market.ref_close if market.ref_close > 0.0 else 0.0
    before = float(ring[place])
    ring[place] = ratio
    atr = atr_step(state.atr, market.high, market.low, market.close, ATR)
    bars, side = state.bars + 1, state.side
    place = place + 1 if place + 1 < params.look else 0
    if bars > params.look and bars % params.every == 0 and atr.value > 0.0 and before > 0.0 and ratio > 0.0:
        move = (ratio / before - 1.0) * market.close / (atr.value * math.sqrt(float(params.look)))
        side = 1.0 if move > params.band else -1.0 if move < -params.band else 0.0
    ahead = MomentumState(ring, place, atr, side, bars)
    if side == 0.0 or not atr.value > 0.0:
        return ahead, FLAT
    return ahead, Intent(side * SCORE, params.stop * atr.value, 0.0, 0)


class HoursParams(NamedTuple):
    begin: int = 7
    length: int = 4
    way: int = 1


class HoursState(NamedTuple):
    atr: Atr
    bars: int


def hours_init(params: HoursParams) -> HoursState:
    return HoursState(atr_init(), 0)


def hours_step(state: HoursState, market: Market, params: HoursParams) -> tuple[HoursState, Intent]:
    """One side at fixed hours of the day, UTC."""
    atr = atr_step(state.atr, market.high, market.low, market.close, ATR)
    hour = int(market.at // 3600000.0) % 24
    ahead = HoursState(atr, state.bars + 1)
    if state.bars < 100 or (hour - params.begin) % 24 >= params.length:
        return ahead, FLAT
    return ahead, Intent(SCORE * float(params.way), 8.0 * atr.value, 0.0, 0)


class FundingParams(NamedTuple):
    days: int = 7
    """Of the average rate."""
    enter: float = 0.0001
    """Distance of the average from what counts as usual, per 8 h."""
    usual: float = 0.0
    """0: no rate is usual; 1: the base rate of .0001 is."""
    way: int = 1
    """1: on the side that is paid; -1: on the side that pays, with the crowd."""


class FundingState(NamedTuple):
    rate: float
    atr: Atr
    side: float
    bars: int


def funding_init(params: FundingParams) -> FundingState:
    return FundingState(NAN, atr_init(), 0.0, 0)


def funding_step(state: FundingState, market: Market, params: FundingParams) -> tuple[FundingState, Intent]:
    """Decides once a day by the average funding rate of some days; out when it is a quarter as far from usual."""
    atr = atr_step(state.atr, market.high, market.low, market.close, ATR)
    rate = state.rate
    if market.funding == market.funding:
        rate = ema(rate, market.funding, ema_weight(24 * params.days))
    bars, side = state.bars + 1, state.side
    if int(market.at // 3600000.0) % 24 == 0 and bars > 24 * params.days and atr.value > 0.0:
        away = rate - 0.0001 * params.usual
        high = side * float(params.way) < 0.0
        if side == 0.0:
            if away > params.enter:
                side = -1.0 * float(params.way)
            elif away < -params.enter:
                side = 1.0 * float(params.way)
        elif (high and away < 0.25 * params.enter) or (not high and away > -0.25 * params.enter):
            side = 0.0
    ahead = FundingState(rate, atr, side, bars)
    if side == 0.0 or not atr.value > 0.0:
        return ahead, FLAT
    return ahead, Intent(side * SCORE, 20.0 * atr.value, 0.0, 0)


class RankParams(NamedTuple):
    look: int = 0
    """Place in LOOKS."""
    top: float = 0.85
    """Share of the others it must have beaten to be bought."""
    bottom: float = 0.5
    """It is sold when it beats fewer than these."""
    every: int = 24
    trend: int = 0
    """1: only above its own average of four weeks."""


class RankState(NamedTuple):
    slow: float
    atr: Atr
    side: float
    bars: int


def rank_init(params: RankParams) -> RankState:
    return RankState(NAN, atr_init(), 0.0, 0)


def rank_step(state: RankState, market: Market, params: RankParams) -> tuple[RankState, Intent]:
    """Long what has beaten most of the others; `ranked` has put how many where the reference price is."""
    atr = atr_step(state.atr, market.high, market.low, market.close, ATR)
    slow = ema(state.slow, market.close, ema_weight(672))
    bars, side = state.bars + 1, state.side
    beaten = math.floor(market.ref_close / 1000.0 ** params.look) % 1000.0
    if bars % params.every == 0 and atr.value > 0.0 and bars > WARMUP:
        good = params.trend == 0 or market.close > slow
        if beaten > 100.5:
            side = 0.0
        elif side == 0.0:
            if beaten >= 100.0 * params.top and good:
                side = 1.0
        elif beaten < 100.0 * params.bottom or not good:
            side = 0.0
    ahead = RankState(slow, atr, side, bars)
    if side == 0.0 or not atr.value > 0.0:
        return ahead, FLAT
    return ahead, Intent(side * SCORE, 20.0 * atr.value, 0.0, 0)


def ranked(found: Mapping[str, Series]) -> dict[str, Series]:
    """The same instruments with their ranks among one another in place of the reference price: per horizon of LOOKS the percentage of the
    others whose return so far it exceeds, as three decimal digits; UNRANKED before there are others."""
    at = np.unique(np.concatenate([one.at for one in found.values()]))
    closes = np.full((len(at), len(found)), np.nan)
    for column, one in enumerate(found.values()):
        closes[np.searchsorted(at, one.at), column] = one.close
    code = np.zeros_like(closes)
    for place, look in enumerate(LOOKS):
        gone = np.full_like(closes, np.nan)
        gone[look:] = closes[look:] / closes[:-look] - 1.0
        known = np.isfinite(gone)
        others = known.sum(axis=1, keepdims=True) - 1
        below = np.stack([np.sum(known & (gone < gone[:, [column]]), axis=1) for column in range(len(found))], axis=1)
        enough = known & (others >= min(3, len(found) - 1))
        code += np.where(enough, np.round(100.0 * below / np.maximum(others, 1)), UNRANKED) * 1000.0**place
    return {symbol: replace(one, ref_close=np.ascontiguousarray(code[np.searchsorted(at, one.at), column]))
            for column, (symbol, one) in enumerate(found.items())}


MOMENTUM_SPACE: Final = {"look": LOOKS, "band": (0.0, 0.5, 1.0), "stop": (8.0, 12.0), "every": (24, 168)}
MOMENTUM: Final = Strategy(
    name="momentum", description="return over 1 to 8 weeks, decided daily or weekly", asset_classes=(*CRYPTO, AssetClass.FOREX),
    params=MomentumParams(), init=momentum_init, step=momentum_step, warmup=WARMUP, space=MOMENTUM_SPACE)
RELATIVE: Final = Strategy(
    name="relative", description="the same against bitcoin", asset_classes=CRYPTO, params=MomentumParams(), init=momentum_init,
    step=relative_step, warmup=WARMUP, space=MOMENTUM_SPACE)
HOURS: Final = Strategy(
    name="hours", description="one side at fixed hours of the day", asset_classes=(AssetClass.FOREX,), params=HoursParams(),
    init=hours_init, step=hours_step, warmup=100, space={"begin": (0, 3, 7, 10, 13, 16, 19), "length": (2, 4, 8), "way": (-1, 1)})
FUNDING: Final = Strategy(
    name="funding", description="average funding of 2 to 21 days, with it or against it, decided daily", asset_classes=(AssetClass.PERP,),
    params=FundingParams(), init=funding_init, step=funding_step, warmup=WARMUP,
    space={"days": (2, 7, 21), "enter": (0.00003, 0.00006, 0.0001, 0.0002), "usual": (0.0, 1.0), "way": (-1, 1)})
RANK: Final = Strategy(
    name="rank", description="long what has beaten most of the other coins over 1 to 8 weeks", asset_classes=CRYPTO,
    params=RankParams(), init=rank_init, step=rank_step, warmup=WARMUP,
    space={"look": (0, 1, 2, 3), "top": (0.6, 0.85), "bottom": (0.3, 0.5), "every": (24, 168), "trend": (0, 1)})
IDEAS: Final = (MOMENTUM, RELATIVE, HOURS, FUNDING, RANK)
