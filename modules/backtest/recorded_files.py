"""Reads recorded series from parquet and CSV into numpy columns and refuses what is broken: all faults of a file at once.

What a market really did is never a fault: wicks to nearly zero, frozen feeds, crossed closes and holes pass. What no market can do is:
times that run backward or repeat, prices that are not numbers, a high below its low, two bar lengths in one file.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from modules.backtest.recorded_names import interval_of, timeframe_of
from modules.domain.errors import DataError

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Table = dict[str, npt.NDArray[Any]]

EARLIEST: Final = -631_152_000_000
LATEST: Final = 4_102_444_800_000
"""1950 and 2100: anything outside is a wrong unit."""
REGIME_RUN: Final = 24
"""This many equal steps in a row that are not the bar length mean a second bar length; holes never look like that."""
DECIMALS_MAX: Final = 10
_TIME_NAMES: Final = ("ts", "timestamp", "open_time", "opentime", "date", "datetime", "time")
_ALIASES: Final = {"quote_asset_volume": "quote_volume", "quotevolume": "quote_volume", "volume_quote": "quote_volume", "vol": "volume",
                   "rate": "funding_rate", "fundingrate": "funding_rate"}
_PRICES: Final = ("open", "high", "low", "close")
_BIDASK: Final = tuple(f"{side}_{price}" for side in ("bid", "ask") for price in _PRICES)


@dataclass(frozen=True, slots=True)
class Bars:
    """One series of closed bars, columns of equal length. `ts` is the open time in UTC ms; None = the recording has no such column."""

    ts: I64
    open: F64
    high: F64
    low: F64
    close: F64
    volume: F64 | None = None
    quote_volume: F64 | None = None
    bid: F64 | None = None
    ask: F64 | None = None
    open_bid: F64 | None = None
    open_ask: F64 | None = None
    decimals: int = 0
    """Digits after the point the recorded prices use."""

    def __len__(self) -> int:
        return len(self.ts)

    def take(self, rows: slice | npt.NDArray[Any]) -> Bars:
        """The same series with only these rows, as copies so that the whole can be freed."""
        kept: dict[str, Any] = {field.name: np.array(column[rows]) for field in fields(self)
                                if isinstance(column := getattr(self, field.name), np.ndarray)}
        return replace(self, **kept)


@dataclass(frozen=True, slots=True)
class Values:
    """A series of one or more numbers per instant (mark closes, funding rates, financing rates). `ts` in UTC ms."""

    ts: I64
    columns: dict[str, F64]


def read_table(path: Path) -> Table:
    """All columns of a parquet or CSV file, names lower case, time as `ts` in UTC ms.

    Raises DataError if the file cannot be read, has no time column or no rows."""
    table = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    found = [name for name in _TIME_NAMES if name in table]
    if not found:
        raise fault(path, f"has no time column (has {', '.join(table) or 'none'})", "name one column ts, timestamp, open_time or date")
    if not len(table[found[0]]):
        raise fault(path, "holds no rows", "delete it or record it again")
    ts = _milliseconds(path, table[found[0]])
    return {"ts": ts, **{name: column for name, column in table.items() if name not in found}}


def read_bars(path: Path, timeframe: str | None) -> tuple[Bars, int]:
    """Bars of one symbol and their length in ms. Files with bid_* and ask_* columns become mids with the quotes beside them."""
    return bars_of(path, read_table(path), timeframe)


def read_universe(path: Path, timeframe: str | None) -> dict[str, tuple[Bars, int]]:
    """Bars per symbol (BASE/QUOTE) of a long-format file."""
    table = read_table(path)
    if "symbol" not in table:
        raise fault(path, "has no column symbol", "a universe file holds one row per bar and symbol")
    names = table.pop("symbol").astype(str)
    result: dict[str, tuple[Bars, int]] = {}
    faults: list[str] = []
    symbols, codes = np.unique(names, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[order], np.arange(len(symbols) + 1))
    for index, symbol in enumerate(symbols.tolist()):
        rows = order[edges[index]: edges[index + 1]]
        try:
            result[symbol] = bars_of(path, {name: column[rows] for name, column in table.items()}, timeframe, f"{symbol}: ")
        except DataError as error:
            faults.extend(error.faults)
    if faults:
        raise DataError(faults)
    return result


def bars_of(path: Path, table: Table, timeframe: str | None, prefix: str = "") -> tuple[Bars, int]:
    """Checked bars and their length in ms out of raw columns. Raises DataError with every fault found."""
    bidask = all(name in table for name in _BIDASK)
    wanted = _BIDASK if bidask else _PRICES
    missing = [name for name in wanted if name not in table]
    if missing:
        raise fault(path, f"{prefix}lacks {', '.join(missing)} (has {', '.join(table)})", "bars need ts, open, high, low, close and volume")
    ts: I64 = table["ts"]
    faults = time_faults(ts)
    interval, odd = _interval(ts, timeframe) if not faults else (0, [])
    faults += odd
    numbers = [*_number_faults(ts, table, wanted), *_volume_faults(ts, table)]
    if not numbers:
        numbers = [text for side in (("bid_", "ask_") if bidask else ("",)) for text in _range_faults(ts, table, side)]
    if faults or numbers:
        raise DataError([f"{path.name}: {prefix}{text}" for text in (*faults, *numbers)])
    raw = {name: _floats(table[name]) for name in wanted}
    decimals = _decimals(list(raw.values()))
    if bidask:
        mids = {price: 0.5 * (raw[f"bid_{price}"] + raw[f"ask_{price}"]) for price in _PRICES}
        quotes = {"bid": raw["bid_close"], "ask": raw["ask_close"], "open_bid": raw["bid_open"], "open_ask": raw["ask_open"]}
        return Bars(ts, **mids, volume=_optional(table, "volume"), quote_volume=None, **quotes, decimals=decimals), interval
    extra: dict[str, Any] = {name: _optional(table, name) for name in ("volume", "quote_volume", "bid", "ask", "open_bid", "open_ask")}
    return Bars(ts, **raw, **extra, decimals=decimals), interval


def read_values(path: Path, wanted: tuple[str, ...], *, positive: bool, optional: tuple[str, ...] = ()) -> Values:
    """A series of plain numbers per instant. Raises DataError on missing columns, bad times or numbers that are none."""
    table = read_table(path)
    missing = [name for name in wanted if name not in table]
    if missing:
        raise fault(path, f"lacks {', '.join(missing)} (has {', '.join(table)})", f"needs ts, {', '.join(wanted)}")
    ts: I64 = table["ts"]
    faults = [*time_faults(ts), *_number_faults(ts, table, wanted, positive=positive)]
    if not positive and not faults:
        for name in wanted:
            wild = np.flatnonzero(np.abs(table[name]) > 1.0)
            if len(wild):
                faults.append(_at(ts, wild, f"{name} is {table[name][wild[0]]}; rates are fractions: write 0.0001 for 0.01 %"))
    if faults:
        raise DataError([f"{path.name}: {text}" for text in faults])
    present = (*wanted, *(name for name in optional if name in table))
    return Values(ts, {name: _floats(table[name]) for name in present})


def join_bars(parts: list[Bars]) -> Bars:
    """Files of one series in time order as one; where they overlap the earlier file's rows stay. Holes between them stay holes."""
    if len(parts) == 1:
        return parts[0]
    parts = sorted(parts, key=lambda part: int(part.ts[0]))
    joined: dict[str, Any] = {}
    rows = np.unique(np.concatenate([part.ts for part in parts]), return_index=True)[1]
    for field in fields(Bars):
        if field.name == "decimals":
            joined["decimals"] = max(part.decimals for part in parts)
            continue
        columns = [getattr(part, field.name) for part in parts]
        if any(column is not None for column in columns):
            filled = [np.full(len(part), np.nan) if column is None else column for part, column in zip(parts, columns, strict=True)]
            joined[field.name] = np.concatenate(filled)[rows]
    return Bars(**joined)


def join_values(parts: list[Values]) -> Values:
    """Like `join_bars`, for plain numbers."""
    if len(parts) == 1:
        return parts[0]
    parts = sorted(parts, key=lambda part: int(part.ts[0]))
    times, rows = np.unique(np.concatenate([part.ts for part in parts]), return_index=True)
    common = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    return Values(times, {name: np.concatenate([part.columns[name] for part in parts])[rows] for name in common})


def fault(path: Path, what: str, remedy: str) -> DataError:
    return DataError([f"{path.name}: {what}; {remedy}"])


def iso(at: int) -> str:
    """UTC text of a time in ms; the bare number where no calendar reaches."""
    return datetime.fromtimestamp(at / 1000.0, UTC).strftime("%Y-%m-%d %H:%M") if EARLIEST <= at <= LATEST else str(at)


def time_faults(ts: I64, *, repeats: bool = False) -> list[str]:
    """Out of range, backward or (unless `repeats`) duplicate times."""
    faults = []
    wild = np.flatnonzero((ts < EARLIEST) | (ts > LATEST))
    if len(wild):
        faults.append(f"row {wild[0] + 1} ({len(wild)} in all): time {int(ts[wild[0]])} lies outside 1950-2100; ts is UTC milliseconds")
    steps = np.diff(ts)
    backward = np.flatnonzero(steps < 0)
    if len(backward):
        faults.append(_at(ts, backward + 1, "time runs backward; sort the rows by ts"))
    same = np.flatnonzero(steps == 0)
    if len(same) and not repeats:
        faults.append(_at(ts, same + 1, "the same time twice; keep one row per ts"))
    return faults


def _number_faults(ts: I64, table: Table, wanted: tuple[str, ...], *, positive: bool = True) -> list[str]:
    faults = []
    for name in wanted:
        column = table[name]
        if column.dtype.kind not in "fiu":
            faults.append(f"{name} holds text; only plain numbers with a decimal point")
            continue
        lost = np.flatnonzero(~np.isfinite(column))
        if len(lost):
            faults.append(_at(ts, lost, f"{name} is not a number (is the file cut off?); leave the row out: a hole is allowed"))
        low = np.flatnonzero(column <= 0)
        if positive and len(low):
            faults.append(_at(ts, low, f"{name} is {column[low[0]]}; prices are above zero, leave the row out"))
    return faults


def _volume_faults(ts: I64, table: Table) -> list[str]:
    faults = []
    for name in ("volume", "quote_volume"):
        if name not in table:
            continue
        if table[name].dtype.kind not in "fiu":
            faults.append(f"{name} holds text; only plain numbers with a decimal point")
        elif len(low := np.flatnonzero(table[name] < 0)):
            faults.append(_at(ts, low, f"{name} is {table[name][low[0]]}; volume is zero or more, empty where unknown"))
    return faults


def _range_faults(ts: I64, table: Table, side: str) -> list[str]:
    first, high, low, last = (table[f"{side}{name}"] for name in ("open", "high", "low", "close"))
    inverted = np.flatnonzero(high < low)
    if len(inverted):
        row = inverted[0]
        return [_at(ts, inverted, f"{side}high {high[row]} is below {side}low {low[row]}; are the columns swapped?")]
    outside = np.flatnonzero((np.maximum(first, last) > high) | (np.minimum(first, last) < low))
    if len(outside):
        return [_at(ts, outside, f"{side}open or {side}close lies outside {side}low..{side}high; leave the row out")]
    return []


def _interval(ts: I64, timeframe: str | None) -> tuple[int, list[str]]:
    """Bar length in ms: the name's, else the most common step; with what contradicts it."""
    steps = np.diff(ts)
    steps = steps[steps > 0]
    named = interval_of(timeframe) if timeframe else None
    if not len(steps):
        return (named, []) if named else (0, ["the bar length is unknown; name the file VENUE_MARKET_TIMEFRAME, like binance_BTCUSDT_1h"])
    lengths, counts = np.unique(steps, return_counts=True)
    common = int(lengths[np.argmax(counts)])
    interval = named or common
    if named and named not in lengths:
        return interval, [f"its name says {timeframe} but its bars are {timeframe_of(common)} apart; rename the file"]
    if int(lengths[0]) < interval:
        row = np.flatnonzero(np.diff(ts) == lengths[0])[0] + 1
        return interval, [f"mixed bar lengths: {timeframe_of(int(lengths[0]))} and {timeframe_of(interval)} (first in row {row + 1}); "
                          "one length per file"]
    runs = np.flatnonzero(np.diff(steps, prepend=-1, append=-1))
    long = np.flatnonzero((np.diff(runs) >= REGIME_RUN) & (steps[runs[:-1]] != interval))
    if len(long):
        row, other = int(runs[long[0]]), int(steps[runs[long[0]]])
        return interval, [f"mixed bar lengths: {timeframe_of(interval)}, from row {row + 1} on {timeframe_of(other)}; one length per file"]
    return interval, []


def _at(ts: I64, rows: npt.NDArray[np.intp], what: str) -> str:
    first = int(rows[0])
    more = f", {len(rows)} rows in all" if len(rows) > 1 else ""
    return f"row {first + 1} ({iso(int(ts[first]))}{more}): {what}"


def _floats(column: npt.NDArray[Any]) -> F64:
    return np.ascontiguousarray(column, dtype=np.float64)


def _optional(table: Table, name: str) -> F64 | None:
    return _floats(table[name]) if name in table and table[name].dtype.kind in "fiu" else None


def _decimals(columns: list[F64]) -> int:
    """Digits after the point the prices use, from up to 2,000 values of each column."""
    sample = np.concatenate([column[:: max(1, len(column) // 2000)] for column in columns])
    for digits in range(DECIMALS_MAX):
        if bool(np.all(np.abs(np.round(sample, digits) - sample) <= 1e-10 * sample)):
            return digits
    return DECIMALS_MAX


def _milliseconds(path: Path, column: npt.NDArray[Any]) -> I64:
    """UTC ms from numbers (s, ms, us or ns, told apart by size), datetimes or ISO texts."""
    if column.dtype.kind in "iuf":
        if column.dtype.kind == "f" and not bool(np.all(np.isfinite(column))):
            row = int(np.flatnonzero(~np.isfinite(column))[0])
            raise fault(path, f"row {row + 1} has no time (is the file cut off?)", "every row needs its time")
        size = float(np.median(np.abs(column))) if len(column) else 0.0
        # 1e11 s is the year 5138, 1e11 ms is 1973: the four units never overlap in any year a market recorded
        scale = 1000.0 if size < 1e11 else 1.0 if size < 1e14 else 1e-3 if size < 1e17 else 1e-6
        if scale == 1.0:
            return column.astype(np.int64)
        if scale > 1.0:
            return np.asarray(np.round(column.astype(np.float64) * scale), dtype=np.int64)
        return np.asarray(column.astype(np.int64) // round(1.0 / scale), dtype=np.int64)
    import pandas as pd

    try:
        times = pd.to_datetime(pd.Series(column), utc=True, format="ISO8601" if column.dtype.kind in "OUT" else None)
    except (ValueError, TypeError) as error:
        raise fault(path, f"its times cannot be read ({error})", "write ISO times in UTC (2024-01-31 14:00) or UTC milliseconds") from error
    if bool(times.isna().any()):
        raise fault(path, f"row {int(times.isna().to_numpy().argmax()) + 1} has no time (is the file cut off?)", "every row needs its time")
    return np.asarray(times.dt.as_unit("ms").astype("int64").to_numpy(), dtype=np.int64)


def _read_parquet(path: Path) -> Table:
    import fastparquet
    from cramjam import DecompressionError
    from fastparquet.util import ParquetException

    try:
        with path.open("rb") as handle:
            head = handle.read(4)
            handle.seek(-min(8, path.stat().st_size), 2)
            tail = handle.read(8)
        if head != b"PAR1" or tail[4:] != b"PAR1":
            raise fault(path, "is cut off or not parquet (no PAR1 mark at both ends)", "download it again")
        if struct.unpack("<I", tail[:4])[0] + 12 > path.stat().st_size:
            raise fault(path, "is cut off (its footer is longer than the file)", "download it again")
        frame = fastparquet.ParquetFile(str(path)).to_pandas()
    # What damaged bytes make fastparquet raise, found by flipping them: it does not wrap its decoders' own errors.
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RuntimeError, MemoryError,
            struct.error, DecompressionError, ParquetException) as error:
        raise fault(path, f"cannot be read: it is damaged or not parquet ({type(error).__name__}: {error})", "download it again") from error
    return _columns(frame)


def _read_csv(path: Path) -> Table:
    import pandas as pd

    try:
        # pandas 3.1 and later read floats back exactly without being asked (and deprecate the asking): a test holds it to that
        frame = pd.read_csv(path, low_memory=False)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise fault(path, f"cannot be read ({type(error).__name__}: {error})", "it must be comma-separated with one header line") from error
    return _columns(frame)


def _columns(frame: Any) -> Table:
    named = {str(name).strip().lower().replace(" ", "_"): frame[name].to_numpy() for name in frame.columns}
    return {_ALIASES.get(name, name): column for name, column in named.items()}
