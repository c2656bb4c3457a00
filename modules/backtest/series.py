"""One instrument's recorded history as arrays: what the compiled kernel runs over. Read through RecordedSource, so that replay and
validation see the same files by the same rules.

Owns the columns and their meaning; refuses columns of different lengths and bars that do not follow one another. Holes stay holes: a bar
that was not recorded is simply not there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from modules.backtest.recorded import ENDED_AFTER_MS, RecordedSource
from modules.backtest.recorded_folder import Series as Recorded
from modules.domain.errors import DataError
from modules.domain.instrument import DOLLARS, AssetClass, Instrument
from modules.domain.policies import CostPolicy

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

HOURS_8: Final = 8.0
_LEADERS: Final = ((AssetClass.SPOT, "BTC"), (AssetClass.PERP, "BTC"), (AssetClass.FOREX, "EUR/USD"))
"""Whose close a class's strategies see as `ref_close`, as main.reference_series."""
_NO_TIMES: Final[I64] = np.zeros(0, dtype=np.int64)
_NO_VALUES: Final[F64] = np.zeros(0, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Series:
    """Bars of one instrument, all arrays of length n unless said otherwise. Prices in quote currency; NaN = not recorded."""

    symbol: str
    instrument: Instrument
    interval_ms: int
    at: I64
    """UTC ms of each bar's close, strictly increasing."""
    open: F64
    high: F64
    low: F64
    close: F64
    volume: F64
    """Base units."""
    quote_volume: F64
    bid: F64
    """Quote at the close."""
    ask: F64
    open_bid: F64
    """Quote at the open."""
    open_ask: F64
    mark: F64
    """Mark price told at this very close (perps)."""
    ref_close: F64
    """Close of the class's leader at or before this bar's close."""
    rate: F64
    """One unit of quote currency in settlement currency at this close; 1 where they are the same or both are dollars."""
    funding_at: I64
    """[m] settlements of a perp."""
    funding_rate: F64
    """[m] per settlement, positive = longs pay."""
    funding_hours: F64
    """[m] interval of each settlement."""
    funding_predicted: F64
    """[m] the next rate as the venue foretold it."""
    funding_mark: F64
    """[m] mark price told at the settlement, NaN = none."""
    financing_at: I64
    """[k] when FX financing rates came into force."""
    financing_long: F64
    """[k] annual fraction earned by a long, the broker's markup taken off."""
    financing_short: F64
    instants: I64
    """Times other than a bar's close at which the market had something to say: orders move on there, too."""
    news: F64 = field(default_factory=lambda: _NO_VALUES)
    """[n, 2] the mood at each close and a latency later, NaN = none, infinite = entries are closed (heard.with_news); empty = no news."""

    def __post_init__(self) -> None:
        count = len(self.at)
        if not count:
            raise DataError([f"{self.symbol}: no bars"])
        for name in _BAR_COLUMNS:
            if len(getattr(self, name)) != count:
                raise DataError([f"{self.symbol}: {name} has {len(getattr(self, name))} rows, at has {count}"])
        if len(self.news) not in (0, count):
            raise DataError([f"{self.symbol}: news has {len(self.news)} rows, at has {count}"])
        if not bool(np.all(np.diff(self.at) >= self.interval_ms)):
            raise DataError([f"{self.symbol}: bars must be {self.interval_ms} ms or more apart, in order of time"])
        for name in _ARRAYS:
            getattr(self, name).setflags(write=False)

    def __len__(self) -> int:
        return len(self.at)

    @property
    def asset_class(self) -> AssetClass:
        return self.instrument.asset_class

    @property
    def opened(self) -> I64:
        """UTC ms of each bar's open."""
        return self.at - self.interval_ms

    @property
    def digest(self) -> str:
        """sha256 over the instrument's rules and every column: two series of one digest give the same results."""
        total = hashlib.sha256(f"{self.symbol}|{self.interval_ms}|{self.instrument!r}".encode())
        for name in _ARRAYS:
            column = np.ascontiguousarray(getattr(self, name))
            if name == "news" and not len(column):
                continue  # the same history, whether or not somebody could have asked for news
            total.update(f"|{name}|{len(column)}|".encode())
            total.update(column.tobytes())
        return total.hexdigest()

    def part(self, first: int, last: int) -> Series:
        """Bars first <= i < last with what was told until the last of them."""
        rows, until = slice(first, last), int(self.at[last - 1])
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name in _BAR_COLUMNS}
        settled, financed = self.funding_at <= until, self.financing_at <= until
        columns |= {name: getattr(self, name)[settled] for name in ("funding_at", "funding_rate", "funding_hours", "funding_predicted",
                                                                    "funding_mark")}
        columns |= {name: getattr(self, name)[financed] for name in ("financing_at", "financing_long", "financing_short")}
        columns["instants"] = self.instants[self.instants <= until]
        columns["news"] = self.news[rows]
        return Series(symbol=self.symbol, instrument=self.instrument, interval_ms=self.interval_ms, **columns)


_ARRAYS: Final = tuple(column.name for column in fields(Series) if column.name not in ("symbol", "instrument", "interval_ms"))
_BAR_COLUMNS: Final = _ARRAYS[: _ARRAYS.index("rate") + 1]


def load(folder: Path, classes: Collection[AssetClass] | None = None, *, costs: CostPolicy | None = None,
         timerange: tuple[int | None, int | None] = (None, None), symbols: Collection[str] | None = None,
         timeframe: str | None = None) -> dict[str, Series]:
    """Every instrument recorded in `folder` by its symbol, as the replay would name and read it.

    Unlike there, the range's first bars are not history: what is loaded is all there is. Raises DataError as RecordedSource does.
    """
    return of_source(RecordedSource(folder, classes, timerange, costs=costs, timeframe=timeframe, skip_faulty=True), symbols)


def of_source(source: RecordedSource, symbols: Collection[str] | None = None) -> dict[str, Series]:
    """The arrays of an opened recording, from its start to its end."""
    recorded = {series.instrument.symbol: series for series in source.recordings}
    found = {}
    for symbol, series in recorded.items():
        if symbols is None or symbol in symbols:
            found[symbol] = _series(series, recorded, source.start, source.end)
    return found


def _series(recorded: Recorded, every: Mapping[str, Recorded], start: int, end: int) -> Series:
    bars, instrument, interval = recorded.bars, recorded.instrument, recorded.interval_ms
    rows = slice(*np.searchsorted(bars.ts + interval, (start, end), side="right").tolist())
    at = bars.ts[rows] + interval
    close = np.ascontiguousarray(bars.close[rows])
    unknown = np.full(len(at), np.nan)

    def column(values: F64 | None) -> F64:
        return unknown if values is None else np.ascontiguousarray(values[rows], dtype=np.float64)

    volume = column(bars.volume)
    marks_at, marks = (recorded.marks.ts, recorded.marks.columns["close"]) if recorded.marks is not None else (_NO_TIMES, _NO_VALUES)
    funding = _funding(recorded, marks_at, marks, start, end)
    financing_at, long_rate, short_rate = _financing(recorded, start, end)
    told = np.concatenate([times[(times >= start) & (times <= end)] for times in (marks_at, funding["funding_at"], financing_at)])
    leader = next((series for series in every.values() for asset_class, underlying in _LEADERS
                   if series.instrument.asset_class is asset_class is instrument.asset_class
                   and series.instrument.underlying == underlying), None)
    return Series(
        symbol=instrument.symbol, instrument=instrument, interval_ms=interval, at=at, open=column(bars.open), high=column(bars.high),
        low=column(bars.low), close=close, volume=volume,
        quote_volume=column(bars.quote_volume) if bars.quote_volume is not None else volume * close,
        bid=column(bars.bid), ask=column(bars.ask), open_bid=column(bars.open_bid), open_ask=column(bars.open_ask),
        mark=_exactly(at, marks_at, marks),
        ref_close=unknown if leader is None else _latest(at, leader.bars.ts + leader.interval_ms, leader.bars.close),
        rate=_rate(at, close, instrument, every), financing_at=financing_at, financing_long=long_rate, financing_short=short_rate,
        instants=np.setdiff1d(told, at), **funding)


def _funding(recorded: Recorded, marks_at: I64, marks: F64, start: int, end: int) -> dict[str, Any]:
    if recorded.funding is None:
        return {"funding_at": _NO_TIMES, "funding_rate": _NO_VALUES, "funding_hours": _NO_VALUES, "funding_predicted": _NO_VALUES,
                "funding_mark": _NO_VALUES}
    rows = (recorded.funding.ts >= start) & (recorded.funding.ts <= end)
    at, columns = recorded.funding.ts[rows], recorded.funding.columns
    hours = columns.get("interval_h", np.full(len(rows), float(recorded.funding_interval_h)))
    predicted = columns.get("predicted", np.full(len(rows), np.nan))
    return {"funding_at": at, "funding_rate": columns["funding_rate"][rows], "funding_hours": hours[rows],
            "funding_predicted": predicted[rows], "funding_mark": _exactly(at, marks_at, marks)}


def _financing(recorded: Recorded, start: int, end: int) -> tuple[I64, F64, F64]:
    if recorded.financing is None:
        return _NO_TIMES, _NO_VALUES, _NO_VALUES
    at = np.maximum(recorded.financing.ts, start)  # the rate in force at the start was published before
    at, last_of = np.unique(at[::-1], return_index=True)
    rows = len(recorded.financing.ts) - 1 - last_of
    inside = at <= end
    columns = recorded.financing.columns
    return at[inside], columns["long_rate"][rows][inside], columns["short_rate"][rows][inside]


def _exactly(at: I64, times: I64, values: F64) -> F64:
    """The value told at each very instant, NaN where none was."""
    if not len(times):
        return np.full(len(at), np.nan)
    rows = np.minimum(np.searchsorted(times, at), len(times) - 1)
    return np.where(times[rows] == at, values[rows], np.nan)


def _latest(at: I64, times: I64, values: F64) -> F64:
    """The last value at or before each instant, NaN before the first."""
    rows = np.searchsorted(times, at, side="right") - 1
    return np.where(rows >= 0, values[np.maximum(rows, 0)], np.nan)


def _rate(at: I64, close: F64, instrument: Instrument, every: Mapping[str, Recorded]) -> F64:
    """Quote currency in settlement currency, from the pairs loaded beside it."""
    quote, settle = instrument.quote, instrument.settle
    if quote == settle or (quote in DOLLARS and settle in DOLLARS):
        return np.ones(len(at))
    if instrument.base == settle:
        return 1.0 / close
    for series in every.values():
        pair = (series.instrument.base, series.instrument.quote)
        if series.instrument.asset_class in (AssetClass.SPOT, AssetClass.FOREX) and pair in ((quote, settle), (settle, quote)):
            prices = _latest(at, series.bars.ts + series.interval_ms, series.bars.close)
            return prices if pair == (quote, settle) else 1.0 / prices
    return np.full(len(at), np.nan)


def from_arrays(symbol: str, asset_class: AssetClass, at: I64, open: F64, high: F64, low: F64, close: F64, volume: F64,
                *, instrument: Instrument | None = None, interval_ms: int | None = None, **optional: Any) -> Series:
    """A series of a synthetic world. `optional` are further columns by their names in `Series`; bars are as long as the shortest step
    in `at`. Without an `instrument` it is one in USD with a fine tick and lot and the fees of the cost policy."""
    at = np.ascontiguousarray(at, dtype=np.int64)
    interval = interval_ms if interval_ms is not None else int(np.min(np.diff(at))) if len(at) > 1 else 60_000
    unknown = np.full(len(at), np.nan)
    bars = {"open": open, "high": high, "low": low, "close": close, "volume": volume}
    columns: dict[str, Any] = {name: np.array(values, dtype=np.float64) for name, values in bars.items()}
    columns["quote_volume"] = columns["volume"] * columns["close"]
    columns |= dict.fromkeys(("bid", "ask", "open_bid", "open_ask", "mark", "ref_close"), unknown)
    columns["rate"] = np.ones(len(at))
    columns |= {name: _NO_TIMES if name.endswith("_at") or name == "instants" else _NO_VALUES
                for name in _ARRAYS[_ARRAYS.index("rate") + 1:]}
    columns |= {name: np.array(values) for name, values in optional.items()}
    return Series(symbol=symbol, instrument=instrument or synthetic(symbol, asset_class), interval_ms=interval, at=at, **columns)


def synthetic(symbol: str, asset_class: AssetClass) -> Instrument:
    """The rules of an invented instrument quoted in dollars."""
    base, _, quote = symbol.partition(":")[0].partition("/")
    tick, lot = (Decimal("0.00001"), Decimal(1)) if asset_class is AssetClass.FOREX else (Decimal("0.00000001"), Decimal("0.00000001"))
    return Instrument(
        symbol=symbol, venue="synthetic", asset_class=asset_class, base=base, quote=quote or "USD", settle="USD",
        underlying=symbol if asset_class is AssetClass.FOREX else base, tick=tick, lot=lot,
        leverage_max=Decimal(100) if asset_class in (AssetClass.PERP, AssetClass.FOREX) else Decimal(1),
        funding_interval_h=8 if asset_class is AssetClass.PERP else None)


def ended(series: Series) -> NDArray[np.bool_]:
    """[n] bars after which trading in this market ends for good or for long: what is held is closed there."""
    return np.append(np.diff(series.at) - series.interval_ms >= ENDED_AFTER_MS, False)


