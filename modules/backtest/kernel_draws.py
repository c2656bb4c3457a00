"""Trades dealt at random bars: the benchmark that shares a strategy's exposure and costs but not its judgment."""

from __future__ import annotations

from modules.backtest.costs import impact, market_fill, touched
from modules.backtest.kernel_money import Numbers
from modules.backtest.kernel_rows import B_CLOSE, E_DAY_LAST, Tape
from modules.backtest.series import F64, I64


def fill_at_open(r: Numbers, t: Tape, bar: int, side: float, notional: float) -> float:
    """A market order at the open of `bar`."""
    here = t.points[bar]
    bid, ask = here.open_bid, here.open_ask
    synthetic = not (bid > 0.0 and ask >= bid)
    if synthetic:
        bid = ask = here.open
    touch = touched(int(side), bid, ask, synthetic, r.half_spread_bp)
    return market_fill(int(side), touch, r.slippage_bp, impact(r.impact_bp, notional, here.average))


def placed(r: Numbers, t: Tape, starts: I64, lengths: I64, sides: F64, shares: F64, days: F64) -> None:
    """Add to `days` (one per day that has bars) the results of trades that enter at the open of bar start + 1 and leave at the open
    `length` bars later, marked at the last close of each day. `shares` is each trade's notional in units; starts ascend."""
    day, count = 0, t.bars.shape[1]
    for trade in range(len(starts)):
        first, last = starts[trade] + 1, min(starts[trade] + 1 + lengths[trade], count - 1)
        side, share = sides[trade], shares[trade]
        notional = share * r.notional / t.points[first].rate
        entry = fill_at_open(r, t, first, side, notional)
        leave = fill_at_open(r, t, last, -side, notional)
        while t.events[E_DAY_LAST, day] < first:
            day += 1
        marked = -share * r.taker_fee
        before = 0.0
        here = day
        while t.events[E_DAY_LAST, here] < last:
            value = marked + share * side * (t.bars[B_CLOSE, int(t.events[E_DAY_LAST, here])] / entry - 1.0)
            days[here] += value - before
            before = value
            here += 1
        days[here] += marked + share * side * (leave / entry - 1.0) - share * r.taker_fee * leave / entry - before


