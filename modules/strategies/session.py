"""Session breakout for FX: London and New York decide where the night's range breaks.

The range of the Asian night (00:00-07:00 UTC) is measured bar by bar; the first close beyond it by a margin during the London morning or
the New York overlap starts a view with the stop inside the range. One view a day in each direction at most, and flat before New York's
close, so no night's financing is paid. Sessions are fixed in UTC: summer time moves the real openings by an hour and the range's edges
with them, which a breakout of a seven-hour range tolerates and a table of clock changes would only obscure.
"""

from __future__ import annotations

from typing import NamedTuple

from modules.domain.instrument import AssetClass
from modules.domain.signal import Intent
from modules.strategies.holding import NOTHING, Holding, kept, taken
from modules.strategies.indicators import Atr, atr_init, atr_step, day_number, graded, minute_of_day
from modules.strategies.protocol import Market, Strategy


class SessionParams(NamedTuple):
    range_end: int = 420
    """Minute of the UTC day at which the Asian range is complete (07:00)."""
    entry_end: int = 840
    """No new view after this minute (14:00)."""
    flat_at: int = 1140
    """Out at this minute (19:00)."""
    begin_max: int = 60
    """A night whose first bar closes after this minute was only partly seen and has no range."""
    bars_min: int = 5
    """Nor has one with fewer bars than this (holiday, feed down); 7 is all an hourly feed has."""
    atr: int = 96
    margin: float = 1.0
    """How far beyond the range the close must be, in average true ranges."""
    full: float = 4.0
    """Distance beyond the margin at which the score is 1, in average true ranges."""
    stop: float = 0.6
    """Stop distance as a fraction of the range's height."""
    reward: float = 1.75
    """Target distance as a multiple of the stop distance."""
    width_max: float = 0.02
    """A night that has already moved by this fraction of price has had its breakout."""


class SessionState(NamedTuple):
    day: int
    high: float
    low: float
    begun: int
    """Minute at which the day's first bar closed."""
    bars: int
    longs: int
    """Views taken today, by direction."""
    shorts: int
    atr: Atr
    held: Holding


def init(params: SessionParams) -> SessionState:
    return SessionState(-1, 0.0, 0.0, 0, 0, 0, 0, atr_init(), NOTHING)


def step(state: SessionState, market: Market, params: SessionParams) -> tuple[SessionState, Intent]:
    # A bar that closes at midnight is the last of the old day: ask where its last millisecond lies.
    inside = market.at - 1.0
    day = day_number(inside)
    minute = minute_of_day(inside) + 1
    atr = atr_step(state.atr, market.high, market.low, market.close, params.atr)
    high = state.high
    low = state.low
    begun = state.begun
    bars = state.bars
    longs = state.longs
    shorts = state.shorts
    held = state.held
    if day != state.day:
        high = market.high
        low = market.low
        begun = minute
        bars = 0
        longs = 0
        shorts = 0
        held = NOTHING
    if minute <= params.range_end:
        high = market.high if market.high > high else high
        low = market.low if market.low < low else low
        bars += 1
    if held.intent.score != 0.0:
        held = kept(held, market.high, market.low)
        if minute >= params.flat_at:
            held = NOTHING
    elif params.range_end < minute <= params.entry_end and atr.seen == params.atr and atr.value > 0.0:
        close = market.close
        margin = params.margin * atr.value
        height = high - low
        distance = params.stop * height
        whole = begun <= params.begin_max and bars >= params.bars_min
        if whole and 0.0 < height <= params.width_max * close:
            if close > high + margin and longs == 0:
                longs = 1
                held = taken(graded((close - high - margin) / (params.full * atr.value)), close, distance, params.reward * distance, 0)
            elif close < low - margin and shorts == 0:
                shorts = 1
                held = taken(-graded((low - margin - close) / (params.full * atr.value)), close, distance, params.reward * distance, 0)
    return SessionState(day, high, low, begun, bars, longs, shorts, atr, held), held.intent


STRATEGY = Strategy(
    name="session",
    description="Trades the break of the Asian night's range in London and New York hours; flat by 19:00 UTC, never overnight.",
    asset_classes=(AssetClass.FOREX,),
    params=SessionParams(),
    init=init,
    step=step,
    warmup=96,
    space={"margin": (0.5, 1.0, 2.0), "stop": (0.4, 0.6, 0.8), "reward": (1.25, 1.75, 2.5), "entry_end": (720, 840, 960)},
)
