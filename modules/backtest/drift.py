"""Did the daemon decide what its strategies say over the very bars it saw? The stored candles stepped again, held against its decisions.

Pure: bars, decisions and trades in, differences out (demotion.compare). It runs the kernel's own lines in plain Python, so that a state
that was corrupted, code that changed under a running daemon or a hidden input shows as signals that only one of the two has. What a
strategy looks at beyond prices (funding, marks, option chains) is not stored: a strategy whose answers depend on it is not compared, and
it is said so. Refuses nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from modules.backtest import kernel
from modules.backtest.demotion import Deed, Drift, compare
from modules.backtest.kernel import Rules, StrategyFault
from modules.backtest.kernel_rows import V_BAR, V_SCORE, V_SEEN
from modules.backtest.series import F64, I64, Series, from_arrays
from modules.domain.decision import Decision
from modules.domain.instrument import AssetClass
from modules.domain.market import Bar
from modules.domain.signal import Structure
from modules.strategies.protocol import Strategy

SIGNAL: Final = "entry signal"
SCORE_TOLERANCE: Final = 0.05
"""Relative: a daemon that was restarted remembers less of the past than one that steps through all of it."""
PROBE: Final = 1e-4
"""A funding rate, and a mark's distance from the close: who answers differently with it looks at what is not stored."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is stored of one instrument: closed bars, oldest first, all that the daemon saw and nothing else."""

    symbol: str
    asset_class: AssetClass
    interval_ms: int
    bars: Sequence[Bar]

    @property
    def closes(self) -> list[int]:
        """UTC ms of each bar's close."""
        return [bar.ts + self.interval_ms for bar in self.bars]


@dataclass(frozen=True, slots=True)
class Past:
    """What the daemon did meanwhile. Times UTC ms."""

    decisions: Sequence[Decision]
    held: Mapping[tuple[str, str], Sequence[tuple[int, int]]]
    """(strategy, symbol) -> when it had a trade there, [opened, closed]; it decides no entry then."""
    starts: Sequence[int]
    """When the daemon was started."""
    up: Callable[[AssetClass, int], bool]
    """Whether it looked at bars of this class around then."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Of one strategy in one class; `why_not` says what kept it from being compared at all."""

    strategy: str
    asset_class: AssetClass
    found: Drift
    why_not: str = ""


def of_strategy(strategy: Strategy, asset_class: AssetClass, every: Sequence[Seen], leader: Seen | None, past: Past, rules: Rules,
                since: int) -> Compared:
    """Signals from `since` on (UTC ms), on every instrument of the class."""
    nothing = Drift(0, 0, "")
    if strategy.structure is not Structure.SINGLE:
        return Compared(strategy.name, asset_class, nothing, "it looks at option chains, which are not stored")
    live: list[Deed] = []
    replayed: list[Deed] = []
    for seen in every:
        if seen.asset_class is not asset_class or strategy.interval_ms not in (None, seen.interval_ms):
            continue
        stretches = list(_stretches(seen, past.starts))
        try:
            turned = [_turns(strategy, seen, bars, leader, rules) for bars in stretches]
        except StrategyFault as fault:
            return Compared(strategy.name, asset_class, Drift(1, 1, f"{seen.symbol}: {fault.reason}"))
        if any(one is None for one in turned):
            return Compared(strategy.name, asset_class, nothing, "it looks at funding or marks, which are not stored")
        known = {at: score for one in turned if one is not None for at, score in one.items()}
        judged = [(bars[strategy.warmup].ts + seen.interval_ms, bars[-1].ts + seen.interval_ms)
                  for bars in stretches if len(bars) > strategy.warmup]
        decided = {at: score for at, score in _decided(strategy, seen, past) if at >= since and _within(judged, at)}
        live += [_deed(seen.symbol, at, score) for at, score in decided.items()]
        replayed += [_deed(seen.symbol, at, score) for at, score in known.items() if at >= since and _within(judged, at) and (
            at in decided or (past.up(asset_class, at) and not _held(past, strategy.name, seen, at)))]
    return Compared(strategy.name, asset_class, compare(live, replayed, SCORE_TOLERANCE))


def _deed(symbol: str, at: int, score: float) -> Deed:
    return Deed(at, symbol, SIGNAL, 1 if score > 0.0 else -1, score)


def _within(spans: Sequence[tuple[int, int]], at: int) -> bool:
    return any(begin <= at <= end for begin, end in spans)


def _stretches(seen: Seen, starts: Sequence[int]) -> Iterator[Sequence[Bar]]:
    """Bars without a hole that a restart lies in: what the daemon learned of such a hole from its venue's history is not stored."""
    begin = 0
    for place in range(1, len(seen.bars)):
        ended, opened = seen.bars[place - 1].ts + seen.interval_ms, seen.bars[place].ts
        if opened > ended and bisect_right(starts, opened + seen.interval_ms) > bisect_left(starts, ended):
            yield seen.bars[begin:place]
            begin = place
    yield seen.bars[begin:]


def _turns(strategy: Strategy, seen: Seen, bars: Sequence[Bar], leader: Seen | None, rules: Rules) -> dict[int, float] | None:
    """Close -> score of every bar at which a view begins; None if that depends on what is not stored."""
    if len(bars) <= strategy.warmup:
        return {}
    plain = kernel.turns(strategy, strategy.params, _series(seen, bars, leader), rules)
    probed = kernel.turns(strategy, strategy.params, _series(seen, bars, leader, probe=True), rules)
    if not np.array_equal(plain, probed):
        return None
    return {bars[int(row[V_BAR])].ts + seen.interval_ms: float(row[V_SCORE]) for row in plain
            if row[V_SCORE] != 0.0 and row[V_SEEN] >= strategy.warmup}


def _series(seen: Seen, bars: Sequence[Bar], leader: Seen | None, *, probe: bool = False) -> Series:
    table: F64 = np.array([tuple(bar) for bar in bars], dtype=np.float64)
    at: I64 = np.array([bar.ts + seen.interval_ms for bar in bars], dtype=np.int64)
    more: dict[str, Any] = {"bid": table[:, 7], "ask": table[:, 8]}
    if leader is not None:
        times = np.array(leader.closes, dtype=np.int64)
        rows = np.searchsorted(times, at, side="right") - 1
        closes = np.array([bar.close for bar in leader.bars], dtype=np.float64)
        more["ref_close"] = np.where(rows >= 0, closes[np.maximum(rows, 0)], np.nan)
    if probe:
        more |= {"mark": table[:, 4] * (1.0 + PROBE), "funding_at": at[:1], "funding_rate": np.full(1, PROBE),
                 "funding_hours": np.full(1, 8.0), "funding_predicted": np.full(1, PROBE), "funding_mark": np.full(1, np.nan)}
    return from_arrays(seen.symbol, seen.asset_class, at, *(table[:, column] for column in (1, 2, 3, 4, 5)),
                       interval_ms=seen.interval_ms, **more)


def _decided(strategy: Strategy, seen: Seen, past: Past) -> Iterator[tuple[int, float]]:
    """(close of the bar it was decided on, score): the opening side of a reversal is decided when the closing one was filled."""
    closes = seen.closes
    for one in past.decisions:
        if (one.strategy, one.symbol, one.asset_class) == (strategy.name, seen.symbol, seen.asset_class):
            place = bisect_right(closes, one.at) - 1
            if place >= 0 and one.at - closes[place] < seen.interval_ms:
                yield closes[place], one.side.sign * abs(one.score)


def _held(past: Past, strategy: str, seen: Seen, at: int) -> bool:
    """Whether it had a trade there at that close, or within a bar of it."""
    bar = seen.interval_ms
    return any(opened - bar <= at <= closed + bar for opened, closed in past.held.get((strategy, seen.symbol), ()))
