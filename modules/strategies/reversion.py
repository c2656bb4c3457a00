"""Mean reversion: far from its mean in a market without a trend, price is expected back at the mean.

Enters when the close is `enter` standard deviations from the window's mean *and* has begun to turn, and only while the mean itself lies
within `drift` deviations of a four times slower average: fading a trend is how reversion dies. The target is the mean as it stood at
entry, the stop is wider than an ordinary extreme, and the time limit is short because a reversion that takes long is none.
"""

from __future__ import annotations

from typing import NamedTuple

from modules.domain.instrument import AssetClass
from modules.domain.signal import Intent
from modules.strategies.holding import NOTHING, Holding, kept, taken
from modules.strategies.indicators import NAN, Window, deviation, ema, ema_weight, graded, window_init, window_step
from modules.strategies.protocol import Market, Strategy


class ReversionParams(NamedTuple):
    window: int = 576
    """Bars of the mean and of the deviation."""
    enter: float = 2.0
    """Distance from the mean that starts a view, in standard deviations."""
    leave: float = 0.25
    """The view ends within this distance of the mean."""
    drift: float = 1.0
    """Largest distance of the mean from the slow average, in standard deviations."""
    full: float = 1.5
    """Distance beyond `enter` at which the score is 1."""
    stop: float = 0.6
    """Stop distance as a multiple of the target distance."""
    hold: int = 432


class ReversionState(NamedTuple):
    window: Window
    slow: float
    close: float
    bars: int
    held: Holding


def init(params: ReversionParams) -> ReversionState:
    return ReversionState(window_init(params.window), NAN, NAN, 0, NOTHING)


def step(state: ReversionState, market: Market, params: ReversionParams) -> tuple[ReversionState, Intent]:
    close = market.close
    window = window_step(state.window, close)
    slow = ema(state.slow, close, ema_weight(4 * params.window))
    bars = state.bars + 1
    spread = deviation(window)
    held = state.held
    if held.intent.score != 0.0:
        held = kept(held, market.high, market.low)
        if held.intent.score * (window.mean - close) < abs(held.intent.score) * params.leave * spread:
            held = NOTHING
    # A spread within rounding of the price itself is a market that has not moved.
    elif bars >= 2 * params.window and spread > 1e-9 * close:
        distance = window.mean - close
        extreme = abs(distance) / spread
        turning = distance * (close - state.close) > 0.0
        if extreme >= params.enter and turning and abs(window.mean - slow) <= params.drift * spread:
            score = graded((extreme - params.enter) / params.full)
            if distance < 0.0:
                score = -score
            held = taken(score, close, params.stop * abs(distance), abs(distance), params.hold)
    return ReversionState(window, slow, close, bars, held), held.intent


STRATEGY = Strategy(
    name="reversion",
    description="Fades two sigma from the mean of two days once price turns, without a trend; out at the mean or after 36 hours.",
    asset_classes=(AssetClass.SPOT, AssetClass.PERP, AssetClass.FOREX),
    params=ReversionParams(),
    init=init,
    step=step,
    warmup=1152,
    space={"window": (288, 576, 864), "enter": (1.75, 2.0, 2.5), "drift": (0.5, 1.0, 1.5), "stop": (0.5, 0.6, 0.8)},
)
