"""Credit spreads: sells a vertical when options are dear against what the market really moves.

Implied volatility at least `rich` times the realized one starts a view: a put spread below the market (score +) if price stands above
its slow average, a call spread above the market (score -) if below. It ends after `hold` bars, when the premium has become cheap
(`cheap`), or when price has crossed the average by `against` standard deviations of a day: a short strike is not defended by hope.
The protective leg bounds the loss, so there is no stop, and what is left of the premium is best kept by letting both legs expire: `hold`
outlasts the contracts. After a view it rests for `rest` bars: selling again the next bar would be
the same trade with two fees.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from modules.domain.instrument import AssetClass
from modules.domain.signal import Intent, Structure
from modules.strategies.holding import NOTHING, Holding, kept, taken
from modules.strategies.indicators import NAN, Variance, ema, ema_weight, graded, variance_init, variance_step
from modules.strategies.protocol import Market, Strategy


class CreditSpreadParams(NamedTuple):
    realized: int = 864
    """Bars of the realized volatility."""
    slow: int = 288
    """Bars of the average that tells the direction."""
    rich: float = 1.05
    """Implied over realized volatility that starts a view."""
    cheap: float = 0.75
    """Implied over realized volatility that ends it."""
    full: float = 0.6
    """Excess over `rich` at which the score is 1."""
    against: float = 2.5
    """How far beyond the average price may stand against the view, in standard deviations of a day (implied volatility)."""
    hold: int = 768
    rest: int = 24


class CreditSpreadState(NamedTuple):
    realized: Variance
    slow: float
    bars: int
    rest: int
    """Bars until the next view may start."""
    held: Holding


def init(params: CreditSpreadParams) -> CreditSpreadState:
    return CreditSpreadState(variance_init(), NAN, 0, 0, NOTHING)


def step(state: CreditSpreadState, market: Market, params: CreditSpreadParams) -> tuple[CreditSpreadState, Intent]:
    close = market.close
    realized = variance_step(state.realized, close, market.at, params.realized)
    slow = ema(state.slow, close, ema_weight(params.slow))
    bars = state.bars + 1
    rest = state.rest - 1 if state.rest > 0 else 0
    implied = market.chain.iv_atm
    ratio = implied / math.sqrt(realized.value) if realized.value > 0.0 else NAN
    held = state.held
    if held.intent.score != 0.0:
        held = kept(held, market.high, market.low)
        # 19.1 is the square root of 365: an annual volatility's share of one day. An unknown volatility does not end a view by itself.
        against = params.against * close * implied / 19.1
        direction = 1.0 if held.intent.score > 0.0 else -1.0
        if ratio < params.cheap or direction * (slow - close) > against:
            held = NOTHING
        if held.intent.score == 0.0:
            rest = params.rest
    elif bars >= params.realized and rest == 0 and ratio >= params.rich:
        score = graded((ratio - params.rich) / params.full)
        held = taken(score if close >= slow else -score, close, 0.0, 0.0, params.hold)
    return CreditSpreadState(realized, slow, bars, rest, held), held.intent


STRATEGY = Strategy(
    name="credit_spread",
    description="Sells a put or call spread when implied volatility is rich against realized, on the side the trend protects.",
    asset_classes=(AssetClass.OPTION,),
    params=CreditSpreadParams(),
    init=init,
    step=step,
    warmup=864,
    space={"rich": (1.05, 1.15, 1.3), "slow": (144, 288, 576), "against": (1.5, 2.5, 4.0), "hold": (384, 576, 768)},
    structure=Structure.CREDIT_SPREAD,
    days=1.6,
    delta=0.45,
    width=0.03,
)
