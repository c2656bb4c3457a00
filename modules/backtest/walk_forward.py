"""Anchored walk-forward: parameters are chosen on the days before a window, purged and embargoed, and tested in it. Pure.

Days are rows of the pooled daily matrix. Nothing in a window or between training and test may influence the choice for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from modules.backtest.metrics import ratio, ratios

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Window:
    """Rows [0, train_until) choose, rows [test_from, test_until) are out of sample."""

    train_until: int
    test_from: int
    test_until: int


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """The walk as made from a daily matrix; `tested` begins at row `windows[0].test_from`."""

    windows: tuple[Window, ...]
    chosen: tuple[int, ...]
    """Column per window."""
    tested: Floats
    in_sample: tuple[float, ...]
    """Per-observation Sharpe ratio of the choice in its training rows and in its test rows."""
    out_of_sample: tuple[float, ...]

    @property
    def efficiency(self) -> float:
        """Mean out-of-sample over mean in-sample Sharpe ratio; NaN if the latter is not positive."""
        before = float(np.mean(self.in_sample)) if self.in_sample else math.nan
        return float(np.mean(self.out_of_sample)) / before if before > 0.0 else math.nan


def windows(days: int, count: int, embargo: float, purge_days: int, train_share: float) -> tuple[Window, ...]:
    """`count` test windows of equal length that tile the days after the first `train_share` of them.

    Between training and test lie purge (the longest holding time in days, so that no trade counts on both sides) and embargo (share of
    all days). () if there is no room.
    """
    first = math.ceil(days * train_share)
    gap = purge_days + math.ceil(days * embargo)
    if first - gap < 2 or days - first < 2 * count or count < 1:
        return ()
    bounds = np.linspace(first, days, count + 1).astype(int).tolist()
    return tuple(Window(begin - gap, begin, end) for begin, end in pairwise(bounds))


def neighbours(sets: Sequence[Mapping[str, float]]) -> tuple[tuple[int, ...], ...]:
    """For every parameter set of a grid those that differ from it by one step in one parameter."""
    names = sorted({name for one in sets for name in one})
    ranks = {name: {value: rank for rank, value in enumerate(sorted({one[name] for one in sets}))} for name in names}
    places = [tuple(ranks[name][one[name]] for name in names) for one in sets]
    at = {place: number for number, place in enumerate(places)}
    found = []
    for place in places:
        steps = (tuple(rank + step if axis == other else rank for other, rank in enumerate(place))
                 for axis in range(len(names)) for step in (-1, 1))
        found.append(tuple(at[step] for step in steps if step in at))
    return tuple(found)


def choose(daily: Floats, around: Sequence[Sequence[int]] = ()) -> int:
    """The column of [days, K] with the best Sharpe ratio averaged with its neighbours' median: a plateau before a peak.

    Without neighbours the best Sharpe ratio alone. Ties go to the first column.
    """
    every = ratios(daily)
    if not around or not any(around):
        return int(np.argmax(every))
    smooth = [0.5 * (own + float(np.median(every[list(near)]))) if len(near) else own
              for own, near in zip(every.tolist(), around, strict=True)]
    return int(np.argmax(smooth))


def walk(daily: Floats, steps: Sequence[Window], around: Sequence[Sequence[int]] = ()) -> Walk:
    """Choose before each window, take what the choice made in it. Positions carried over a border stay with the column they are in."""
    chosen = tuple(choose(daily[: step.train_until], around) for step in steps)
    parts = [daily[step.test_from : step.test_until, column] for step, column in zip(steps, chosen, strict=True)]
    before = tuple(ratio(daily[: step.train_until, column]) for step, column in zip(steps, chosen, strict=True))
    return Walk(tuple(steps), chosen, np.concatenate(parts) if parts else np.zeros(0), before, tuple(ratio(part) for part in parts))
