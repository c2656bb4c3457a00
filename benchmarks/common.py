"""What every benchmark shares: what machine it ran on, memory, and a deterministic market of any size."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import config
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.market import NAN, Bar, FundingRate, Quote
from modules.domain.policies import Policies
from modules.strategies.protocol import Strategy
from modules.strategies.registry import all_strategies
from modules.venues.protocol import MacroEvent, Step

ROOT: Final = Path(__file__).resolve().parents[1]
MINUTE: Final = 60_000
DAY: Final = 86_400_000
START: Final = 1_672_531_200_000
"""2023-01-01 UTC."""
WALLET: Final = Decimal(100_000)
SIGMA: Final = 0.001
"""Standard deviation of a 1-minute return: 72 % a year."""
_BAR: Final = partial(tuple.__new__, Bar)
"""A Bar out of a tuple, without a Python call."""
_STEP: Final = partial(tuple.__new__, Step)
PARTS: Final = 6
"""Prices drawn per bar; open, high, low and close are taken from them."""


def machine() -> dict[str, object]:
    """What the figures belong to."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")), cpu)
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system(),
            "load_1m": round(os.getloadavg()[0], 2)}


def memory_mb() -> float:
    """Resident memory of this process in MB (10^6 bytes); NaN where /proc does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return math.nan


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of log(cost) over log(size), least squares: 1 is linear."""
    x, y = np.log(sizes), np.log(costs)
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0..1) of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def policies() -> Policies:
    return config.load_policies(ROOT / "policies")


def strategies_of(asset_class: AssetClass, names: Sequence[str] = ()) -> list[Strategy]:
    """The shipped strategies of a class; with `names` only those."""
    return [s for s in all_strategies().values() if asset_class in s.asset_classes and (not names or s.name in names)]


def instrument(number: int, asset_class: AssetClass) -> Instrument:
    base = f"C{number}"
    perp = asset_class is AssetClass.PERP
    return Instrument(
        symbol=f"{base}/USDT:USDT" if perp else f"{base}/USDT", venue=SeriesSource.name, asset_class=asset_class, base=base, quote="USDT",
        settle="USDT", underlying=base, tick=Decimal("0.01"), lot=Decimal("0.00001"), quantity_min=Decimal("0.00001"),
        notional_min=Decimal(5), maker_fee=Decimal("0.0002"), taker_fee=Decimal("0.00055") if perp else Decimal("0.001"),
        leverage_max=Decimal(50) if perp else Decimal(1), maintenance_margin=Decimal("0.005") if perp else Decimal(0),
        funding_interval_h=8 if perp else None,
    )


class SeriesSource:
    """A `MarketSource` of `count` instruments of one class with one bar of `interval` ms each per step, made as it is read.

    A random walk whose end is tied to its beginning, prices rounded to 0.01. `past` bars come before `start`. `stagger`: the instruments'
    bars close one after the other, spread evenly over the interval, one step each; without, all close together in one step. The same
    arguments give the same market. Memory: 48 bytes a bar.
    """

    name = "bench"
    macro_events: Sequence[MacroEvent] = ()
    option_currency: str | None = None

    def __init__(self, bars: int, *, count: int = 1, asset_class: AssetClass = AssetClass.SPOT, interval: int = MINUTE, past: int = 4_320,
                 stagger: bool = False, start: int = START, seed: int = 7) -> None:
        self.instruments: Sequence[Instrument] = [instrument(number, asset_class) for number in range(count)]
        self.intervals_ms: Mapping[str, int] = {i.symbol: interval for i in self.instruments}
        self.start, self.end = start, start + bars * interval
        self._interval, self._past, self._bars = interval, past, bars
        self._perps = asset_class is AssetClass.PERP
        self._columns = {
            i.symbol: _walk(np.random.default_rng((seed, row)), past + bars, SIGMA * math.sqrt(interval / MINUTE))
            for row, i in enumerate(self.instruments)
        }
        self._offset = {i.symbol: row * interval // count if stagger else 0 for row, i in enumerate(self.instruments)}
        self._at = start

    def _slice(self, symbol: str, first: int, stop: int) -> list[Bar]:
        """Bars `first` to `stop` (not included), counted from the beginning of the past."""
        begin = self.start + self._offset[symbol]
        ts = range(begin + (first - self._past) * self._interval, begin + (stop - self._past) * self._interval, self._interval)
        columns: list[list[float]] = self._columns[symbol][:, first:stop].tolist()
        return list(map(_BAR, zip(ts, *columns, repeat(NAN), repeat(NAN), strict=False)))

    def steps(self) -> Iterator[Step]:
        chunk = max(1, 1440 // len(self.instruments))
        symbols = [i.symbol for i in self.instruments]
        staggered = any(self._offset.values())
        for first in range(self._past, self._past + self._bars, chunk):
            stop = min(first + chunk, self._past + self._bars)
            at = self.start + (first - self._past) * self._interval
            for bars in zip(*(self._slice(symbol, first, stop) for symbol in symbols), strict=True):
                if staggered:
                    for symbol, bar in zip(symbols, bars, strict=True):
                        self._at = bar.ts + self._interval
                        yield Step(self._at, ((symbol, bar),))
                    continue
                at += self._interval
                self._at = at
                funding: tuple[FundingRate, ...] = ()
                if self._perps and at % (DAY // 3) == 0:
                    funding = tuple(FundingRate(symbol, at, 0.00005, 8.0) for symbol in symbols)
                yield _STEP((at, tuple(zip(symbols, bars)), (), funding, (), (), (), ()))  # noqa: B905 - zipped strictly above

    def opening(self, symbol: str) -> Quote | None:
        row, late = divmod(self._at - self.start - self._offset[symbol], self._interval)
        if late or row >= self._bars:
            return None
        price = float(self._columns[symbol][0, row + self._past])
        return Quote(self._at, price, price, synthetic=True)

    def history(self, symbol: str, until: int, bars: int) -> Sequence[Bar]:
        stop = min(self._past + self._bars, (until - self.start - self._offset[symbol]) // self._interval + self._past)
        return self._slice(symbol, max(0, stop - bars), stop)

    def contract(self, symbol: str) -> Instrument | None:
        return None


def _walk(generator: np.random.Generator, bars: int, sigma: float) -> NDArray[np.float64]:
    """Rows open, high, low, close, volume, quote volume; float64 [6, bars]."""
    path = np.cumsum(generator.standard_normal(bars * PARTS) * (sigma / math.sqrt(PARTS)))
    path -= np.linspace(0.0, path[-1], path.size)
    prices = np.round(30_000.0 * np.exp(path), 2).reshape(bars, PARTS)
    close = prices[:, -1]
    opened = np.concatenate(([30_000.0], close[:-1]))
    high, low = np.maximum(prices.max(axis=1), opened), np.minimum(prices.min(axis=1), opened)
    volume = np.round(np.exp(generator.standard_normal(bars) * 0.8 + 3.0), 4)
    return np.stack([opened, high, low, close, volume, volume * close])


def rounded(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Floats to five significant digits: more is noise."""
    return {key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in figures.items()}
