"""The position a strategy believes it has: pure bookkeeping for strategies that enter on an event and leave by stop, target or time.

A step sees no fills. It assumes its wish was met at the close that made it and follows the same stop, target and time limit it asked for;
when one of them is met its view ends (score 0), which leaves the real position if there still is one and re-arms the entry.
Runs plain and compiled; see `indicators` for the style this asks for.
"""

from __future__ import annotations

from typing import NamedTuple

from modules.domain.signal import FLAT, Intent


class Holding(NamedTuple):
    """A view that lasts. Its `intent` is what the step goes on returning; score 0 = no view."""

    intent: Intent
    entry: float
    """Close of the bar that made the signal: stop and target are distances from here."""
    bars: int
    """Bars since then."""


NOTHING = Holding(FLAT, 0.0, 0)


def taken(score: float, entry: float, stop: float, target: float, hold: int) -> Holding:
    """A new view at a bar's close; distances in price units and bars as in `Intent`, 0 = none."""
    return Holding(Intent(score, stop, target, hold), entry, 0)


def kept(held: Holding, high: float, low: float) -> Holding:
    """The view after one more bar: ended if the bar touched its stop or target, or if it has lasted as long as it may."""
    intent, entry, bars = held
    score, stop, target, hold = intent
    bars += 1
    if score > 0.0:
        ended = (stop > 0.0 and low <= entry - stop) or (target > 0.0 and high >= entry + target)
    else:
        ended = (stop > 0.0 and high >= entry + stop) or (target > 0.0 and low <= entry - target)
    if ended or (hold > 0 and bars >= hold):
        return NOTHING
    return Holding(intent, entry, bars)
