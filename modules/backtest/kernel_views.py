"""The compiled kernel's first half: all bars through a strategy's own `step`, and where its view turns.

A step sees the market and never the position, so what it wants is worked out for all bars before anything is traded. Only this small loop
is compiled anew for every strategy; the one that trades (kernel_loop) is compiled once for all of them.
"""

from __future__ import annotations

from typing import Any, Final

from modules.backtest.kernel_rows import (
    B_ACCEPTED,
    B_ASK,
    B_AT,
    B_BID,
    B_CLOSE,
    B_FUNDING,
    B_HIGH,
    B_HTF_CLOSE,
    B_HTF_HIGH,
    B_HTF_LOW,
    B_HTF_OPEN,
    B_HTF_TS,
    B_LOW,
    B_MARK,
    B_OPEN,
    B_REF_CLOSE,
    B_VOLUME,
    V_BAR,
    V_HOLD,
    V_SCORE,
    V_SEEN,
    V_STOP,
    V_TARGET,
)
from modules.backtest.series import F64, I64
from modules.domain.signal import FLAT
from modules.strategies.protocol import ChainSlice, Market

LARGEST: Final = 1e300
CHAIN: Final = ChainSlice()
NONSENSE: Final = -1
"""An intent out of range: score not in [-1, 1], a distance negative, NaN or beyond LARGEST."""


def step(state: Any, market: Market, params: Any) -> Any:
    """Stands for the strategy's own function, which takes its place: a strategy that never wants anything."""
    return state, FLAT


def views(params: Any, state: Any, bars: F64, turns: F64, status: I64) -> int:
    """Write the bars at which the sign of the score changes into `turns` [at most one per bar, TURN_COLUMNS] and give their number, or
    NONSENSE. `status[0]` is always the bar at hand, so that whoever catches what a step raised can name it."""
    sign, seen, found = 0.0, 0, 0
    accepted, times, volumes = bars[B_ACCEPTED], bars[B_AT], bars[B_VOLUME]
    opens, highs, lows, closes = bars[B_OPEN], bars[B_HIGH], bars[B_LOW], bars[B_CLOSE]
    for bar in range(bars.shape[1]):
        if accepted[bar] == 0.0:
            continue
        status[0] = bar
        market = Market(
            float(times[bar]), float(opens[bar]), float(highs[bar]), float(lows[bar]), float(closes[bar]), float(volumes[bar]),
            float(bars[B_BID, bar]), float(bars[B_ASK, bar]), float(bars[B_MARK, bar]), float(bars[B_FUNDING, bar]),
            float(bars[B_HTF_OPEN, bar]), float(bars[B_HTF_HIGH, bar]), float(bars[B_HTF_LOW, bar]), float(bars[B_HTF_CLOSE, bar]),
            float(bars[B_HTF_TS, bar]), float(bars[B_REF_CLOSE, bar]), CHAIN)
        state, intent = step(state, market, params)
        score, stop, target = intent.score, intent.stop, intent.target
        if not (-1.0 <= score <= 1.0 and 0.0 <= stop < LARGEST and 0.0 <= target < LARGEST and 0 <= intent.hold < LARGEST):
            return NONSENSE
        seen += 1
        now = 1.0 if score > 0.0 else -1.0 if score < 0.0 else 0.0
        if now != sign:
            sign = now
            turns[found, V_BAR], turns[found, V_SEEN], turns[found, V_SCORE] = bar, seen, score
            turns[found, V_STOP], turns[found, V_TARGET], turns[found, V_HOLD] = stop, target, float(intent.hold)
            found += 1
    return found
