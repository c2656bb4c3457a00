"""One UTC day of the demo market as compact columns, and the mishaps planted in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from modules.domain.market import NAN, Bar, Financing, FundingRate, Quote
from modules.venues.demo.catalog import (
    FROZEN,
    HOLE,
    HOLE_SYMBOL,
    INSANE,
    INSANE_MULTIPLE,
    INSANE_SYMBOL,
    PERPS,
    REOPENING_BARS,
    REOPENING_SHARE,
    SPOTS,
    Fault,
    perp_symbol,
    spot_symbol,
)

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
_BAR: Final = partial(tuple.__new__, Bar)
"""A Bar out of a tuple, without a Python call for each of the quarter million that a start wants."""


@dataclass(frozen=True, slots=True)
class Columns:
    """One instrument's bars of one day; fewer than a day holds around holes and weekends."""

    ts: I64
    values: tuple[F64, ...]
    """open, high, low, close, volume, quote_volume."""
    quotes: tuple[F64, ...] = ()
    """bid and ask at the close, bid and ask at the open; empty where the market does not record them."""

    def bars(self, first: int = 0, last: int | None = None) -> list[Bar]:
        columns = [part[first:last].tolist() for part in (self.ts, *self.values, *self.quotes[:2])]
        columns.extend([NAN] * len(columns[0]) for _ in range(len(Bar._fields) - len(columns)))
        return list(map(_BAR, zip(*columns, strict=True)))

    def opened_by(self, ts: int) -> int:
        """How many of the bars had opened at `ts`."""
        return int(np.searchsorted(self.ts, ts, side="right"))

    def opening(self, ts: int) -> Quote | None:
        """Bid and ask at the open of the bar that opens at `ts`; both the open itself, marked synthetic, where quotes are not recorded."""
        row = self.opened_by(ts) - 1
        if row < 0 or int(self.ts[row]) != ts:
            return None
        if self.quotes:
            return Quote(ts, float(self.quotes[2][row]), float(self.quotes[3][row]))
        price = float(self.values[0][row])
        return Quote(ts, price, price, synthetic=True)


@dataclass(slots=True)
class Day:
    """Everything one UTC day holds but the option chains, which are derived from it."""

    midnight: int
    columns: dict[str, Columns] = field(default_factory=dict)
    marks: dict[str, F64] = field(default_factory=dict)
    """Per perpetual, one at each bar's close."""
    funding: dict[int, list[FundingRate]] = field(default_factory=dict)
    """By settlement time, from eight hours after midnight to the next midnight."""
    financing: list[Financing] = field(default_factory=list)
    """Of the day's rollover; empty on weekends."""
    index: dict[str, F64] = field(default_factory=dict)
    """Per option underlying, its spot price at each bar's close."""
    volatility: dict[str, F64] = field(default_factory=dict)
    """Per option underlying, the at-the-money level at each full hour (annual), the last one at the next midnight."""


def rounded(values: Sequence[float] | F64, digits: int) -> F64:
    """To `digits` decimals. An integer over a power of ten is the double nearest to that decimal, so it prints as one."""
    scale = float(10**digits)
    return np.asarray(np.rint(np.asarray(values, dtype=np.float64) * scale) / scale)


def plant_faults(cycle_day: int, day: Day) -> None:
    """Spoil what the script spoils on this day of the cycle. The path behind the bars goes on undisturbed."""
    crypto = (*map(spot_symbol, SPOTS), *map(perp_symbol, PERPS))
    for fault, symbols, spoil in ((FROZEN, crypto, _freeze), (HOLE, (HOLE_SYMBOL,), _remove), (INSANE, (INSANE_SYMBOL,), _derange)):
        if fault.day == cycle_day:
            for symbol in symbols:
                day.columns[symbol] = spoil(day.columns[symbol], fault)


def _freeze(columns: Columns, fault: Fault) -> Columns:
    stop = fault.first + fault.bars
    last = columns.values[3][fault.first - 1]
    for part, value in zip(columns.values, (last, last, last, last, 0.0, 0.0), strict=True):
        part[fault.first:stop] = value
    for part, bid_or_ask in zip(columns.quotes, columns.quotes[:2] * 2, strict=True):
        part[fault.first:stop] = bid_or_ask[fault.first - 1]
    for part in columns.values[4:]:
        part[stop:stop + REOPENING_BARS] *= REOPENING_SHARE
    return columns


def _remove(columns: Columns, fault: Fault) -> Columns:
    gone = slice(fault.first, fault.first + fault.bars)
    return Columns(np.delete(columns.ts, gone), tuple(np.delete(part, gone) for part in columns.values),
                   tuple(np.delete(part, gone) for part in columns.quotes))


def _derange(columns: Columns, fault: Fault) -> Columns:
    _, high, _, close, *_ = columns.values
    bars = slice(fault.first, fault.first + fault.bars)
    close[bars] *= INSANE_MULTIPLE
    high[bars] = close[bars]
    return columns
