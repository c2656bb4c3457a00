"""Long options: buys a call or a put when a market that had gone quiet starts to move, and options are not dear.

Compression: realized volatility over a short window is below `squeeze` times that over a long one; it arms the strategy for `armed`
bars. Trigger: a close beyond the channel of the last bars. Price: implied volatility at most `rich` times the long realized one, as a
buyer of rich options is right about the move and still loses. Without an implied volatility there is no view. The premium is all that
can be lost and all that is risked, so there is no stop: the view ends when the breakout has failed (back in the middle of the channel)
or after `hold` bars, before time value melts.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from modules.domain.instrument import AssetClass
from modules.domain.signal import Intent, Structure
from modules.strategies.holding import NOTHING, Holding, kept, taken
from modules.strategies.indicators import Donchian, Variance, donchian_init, donchian_step, graded, variance_init, variance_step
from modules.strategies.protocol import Market, Strategy


class LongOptionParams(NamedTuple):
    short: int = 72
    """Bars of the volatility that is compared."""
    long: int = 864
    """Bars of the volatility it is compared with."""
    squeeze: float = 0.75
    armed: int = 96
    """Bars a compression stays in memory."""
    channel: int = 288
    rich: float = 1.25
    """Highest implied volatility, as a multiple of the long realized one."""
    full: float = 0.5
    """Realized over implied volatility, less one over `rich`, at which the score is 1."""
    hold: int = 864


class LongOptionState(NamedTuple):
    short: Variance
    long: Variance
    channel: Donchian
    armed: int
    """Bars left in which a breakout counts."""
    bars: int
    held: Holding


def init(params: LongOptionParams) -> LongOptionState:
    return LongOptionState(variance_init(), variance_init(), donchian_init(params.channel), 0, 0, NOTHING)


def step(state: LongOptionState, market: Market, params: LongOptionParams) -> tuple[LongOptionState, Intent]:
    close = market.close
    short = variance_step(state.short, close, market.at, params.short)
    long = variance_step(state.long, close, market.at, params.long)
    top = state.channel.high
    bottom = state.channel.low
    channel = donchian_step(state.channel, market.high, market.low)
    bars = state.bars + 1
    armed = state.armed - 1 if state.armed > 0 else 0
    if bars >= params.long and short.value < params.squeeze * params.squeeze * long.value:
        armed = params.armed
    held = state.held
    if held.intent.score != 0.0:
        held = kept(held, market.high, market.low)
        if held.intent.score * (close - 0.5 * (channel.high + channel.low)) < 0.0:
            held = NOTHING
    elif armed > 0 and (close > top or close < bottom):
        realized = math.sqrt(long.value)
        implied = market.chain.iv_atm
        if implied > 0.0 and implied <= params.rich * realized:
            score = graded((realized / implied - 1.0 / params.rich) / params.full)
            held = taken(score if close > top else -score, close, 0.0, 0.0, params.hold)
            armed = 0
    return LongOptionState(short, long, channel, armed, bars, held), held.intent


STRATEGY = Strategy(
    name="long_option",
    description="Buys a call or put on the break of a volatility compression while implied volatility is not dear; premium is the risk.",
    asset_classes=(AssetClass.OPTION,),
    params=LongOptionParams(),
    init=init,
    step=step,
    warmup=864,
    space={"squeeze": (0.65, 0.75, 0.9), "channel": (144, 288, 432), "rich": (1.0, 1.25, 1.5), "hold": (432, 864, 1440)},
    structure=Structure.LONG_OPTION,
    days=14.0,
    delta=0.45,
)
