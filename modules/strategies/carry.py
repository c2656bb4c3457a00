"""Carry: take the side of a perpetual that is paid funding, as long as price does not run against it.

Positive funding is paid by longs, so the paid side is short, and the other way round. A view starts when the last settled rate (8 h)
reaches `enter` and the slow trend does not oppose the paid side, and lasts until the rate falls below `leave` or the trend has turned
against it by `against` average true ranges. Income comes by the settlement, so the view must be able to last for days: the stop is wide.
"""

from __future__ import annotations

from typing import NamedTuple

from modules.domain.instrument import AssetClass
from modules.domain.signal import FLAT, Intent
from modules.strategies.indicators import NAN, Atr, atr_init, atr_step, ema, ema_weight, graded
from modules.strategies.protocol import Market, Strategy


class CarryParams(NamedTuple):
    enter: float = 0.00012
    """Funding per 8 h that starts a view, either sign; 0.0001 is the usual base rate and pays nobody for the risk."""
    leave: float = 0.00003
    full: float = 0.0004
    """Rate beyond `enter` at which the score is 1."""
    slow: int = 576
    """Bars of the trend average."""
    atr: int = 96
    slack: float = 4.0
    """How far beyond the average price may stand against the paid side at the start, in average true ranges."""
    against: float = 16.0
    """How far beyond the average price may stand against the view before it ends, in average true ranges."""
    stop: float = 20.0
    """Distance in average true ranges."""
    reward: float = 1.5
    """Target distance as a multiple of the stop distance."""


class CarryState(NamedTuple):
    slow: float
    atr: Atr
    side: float
    bars: int


def init(params: CarryParams) -> CarryState:
    return CarryState(NAN, atr_init(), 0.0, 0)


def step(state: CarryState, market: Market, params: CarryParams) -> tuple[CarryState, Intent]:
    slow = ema(state.slow, market.close, ema_weight(params.slow))
    atr = atr_step(state.atr, market.high, market.low, market.close, params.atr)
    bars = state.bars + 1
    # What the paid side earns: a NaN rate (not a perp, or unknown) makes every comparison below false, and the view flat.
    rate = market.funding
    paid = -1.0 if rate > 0.0 else 1.0
    earned = abs(rate)
    trend = (market.close - slow) / atr.value if atr.value > 0.0 else 0.0
    side = state.side
    if side != 0.0:
        if not (side == paid and earned >= params.leave and side * trend > -params.against):
            side = 0.0
    elif bars >= 2 * params.slow and atr.value > 0.0 and earned >= params.enter and paid * trend >= -params.slack:
        side = paid
    ahead = CarryState(slow, atr, side, bars)
    if side == 0.0:
        return ahead, FLAT
    distance = params.stop * atr.value
    return ahead, Intent(side * graded((earned - params.enter) / params.full), distance, params.reward * distance, 0)


STRATEGY = Strategy(
    name="carry",
    description="Holds the side of a perpetual that receives funding while the trend is not against it; wide stop, days of holding.",
    asset_classes=(AssetClass.PERP,),
    params=CarryParams(),
    init=init,
    step=step,
    warmup=1152,
    space={
        "enter": (0.0001, 0.00012, 0.00015, 0.0002, 0.0003),
        "leave": (0.0, 0.00003, 0.00006),
        "slow": (288, 576, 864),
        "against": (12.0, 16.0, 24.0),
        "stop": (16.0, 20.0, 28.0),
    },
)
