"""Where a recording has holes, and which of them were the venue's and not one instrument's. Reports; repairs nothing.

A hole that every series of the venue has at the same time is an outage. Forex holes count only the bars that could have been: not the
weekend's, not the holidays', not those of the minutes in which brokers roll.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from modules.backtest.recorded_files import I64
from modules.domain.instrument import AssetClass
from modules.domain.sessions import forex_open, rolling

SHOWN: Final = 1_000
"""The longest holes of a series that are looked at one by one; all are counted."""


class Hole(NamedTuple):
    since: int
    """Open of the first bar that is missing, UTC ms."""
    until: int
    """Open of the first bar that is there again."""
    bars: int


class Recorded(NamedTuple):
    """The open times of one series' bars."""

    times: I64
    interval_ms: int
    asset_class: AssetClass


def holes(series: Recorded) -> list[Hole]:
    """Every hole between its first and last bar, in order of time."""
    rows = np.flatnonzero(np.diff(series.times) > series.interval_ms)
    found = []
    for row in rows.tolist():
        since, until = int(series.times[row]) + series.interval_ms, int(series.times[row + 1])
        if series.asset_class is AssetClass.FOREX:
            bars = sum(forex_open(at) and not rolling(at) for at in range(since, until, series.interval_ms))
        else:
            bars = (until - since) // series.interval_ms
        if bars:
            found.append(Hole(since, until, bars))
    return found


def outages(series: Mapping[str, Recorded], found: Mapping[str, Sequence[Hole]]) -> list[tuple[Hole, tuple[str, ...]]]:
    """Holes that all series recorded at that time have in common, two at least, with the names of those. In order of time.

    The hole is what they all miss; `bars` counts those of one series."""
    result: dict[tuple[int, int], tuple[Hole, tuple[str, ...]]] = {}
    for name, own in found.items():
        for hole in sorted(own, key=lambda one: one.since - one.until)[:SHOWN]:
            there = [other for other, one in series.items() if len(one.times) and one.times[0] < hole.until and one.times[-1] >= hole.since]
            since, until = hole.since, hole.until
            for other in there:
                cut = _overlap(found.get(other, ()), since, until)
                if cut is None:
                    break
                since, until = cut
            else:
                if len(there) > 1:
                    bars = (until - since) // series[name].interval_ms
                    result.setdefault((since, until), (Hole(since, until, max(1, bars)), tuple(sorted(there))))
    return [result[key] for key in sorted(result)]


def _overlap(found: Sequence[Hole], since: int, until: int) -> tuple[int, int] | None:
    """The largest part of since..until that one of `found` (in order of time) covers."""
    place = bisect_left(found, since, key=lambda one: one.until)
    best: tuple[int, int] | None = None
    while place < len(found) and found[place].since < until:
        cut = max(since, found[place].since), min(until, found[place].until)
        if cut[0] < cut[1] and (best is None or cut[1] - cut[0] > best[1] - best[0]):
            best = cut
        place += 1
    return best
