"""Takes other programs' recordings into an ArchiveFolder: freqtrade's feather, JSON and parquet, and CSV. Every row or none of a file.

A faulty file is one clear error, the others are taken all the same. Refuses rows that contradict what the folder holds already. The same
file twice changes nothing.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from modules.backtest.archive_folder import ArchiveFolder, Merged, SeriesFile
from modules.backtest.feather import read_feather
from modules.backtest.importing_names import Source
from modules.backtest.importing_text import read_text
from modules.backtest.recorded_files import I64, Table, bars_of, fault, iso, read_table
from modules.domain.errors import DataError
from modules.domain.instrument import AssetClass
from modules.venues.archive import COLUMNS, FUNDING_HOURS, Kind, Row, settled, settlement_hours

CHUNK: Final = 20_000
"""Rows put on disk at a time."""
RATE_MAX: Final = 1.0
CANDLE: Final = "a row is [time in ms, open, high, low, close, volume]"
_FREQTRADE: Final = ("date", "open", "high", "low", "close", "volume")


class Taken(NamedTuple):
    """What a file brought."""

    source: Source
    file: SeriesFile
    interval_ms: int
    rows: int
    """In the source; every one of them is in the file now."""
    merged: Merged
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Read:
    table: Table
    """ts and numbers, strictly in order of time."""
    interval_ms: int
    rows: int
    notes: tuple[str, ...]


def take(source: Source, folder: ArchiveFolder) -> Taken:
    """Read, check and keep one file. Raises DataError with what is wrong and where, ConfigurationError where replay could not read it."""
    read = _read(source)
    file = folder.series(source.venue, source.kind, source.market, read.interval_ms)
    file.recover()
    table = _fresh(source, file, read.table)
    for part in _contiguous(table["ts"], read.interval_ms):
        rows = list(_lines(table, COLUMNS[source.kind], part))
        step = read.interval_ms if source.kind is not Kind.FUNDING else 1
        file.add(rows, (int(rows[0][0]), int(rows[-1][0]) + step), sync=False)
    return Taken(source, file, read.interval_ms, read.rows, file.merge(), read.notes)


# -- reading ----------------------------------------------------------------------------------------------------------------


def _read(source: Source) -> _Read:
    path, name = source.path, source.path.name.lower()
    if name.endswith(".feather"):
        raw = _dated(path, read_feather(path))
    elif name.endswith((".json", ".json.gz")):
        raw = _json(path)
    elif name.endswith(".parquet"):
        raw = read_table(path)
    else:
        raw = read_text(path, source.market)
    count = len(raw["ts"])
    ordered, notes = _in_order(path, raw)
    if source.kind is Kind.FUNDING:
        return _Read(_rates(path, ordered), 0, count, notes)
    if bool((ordered["ts"] % 1_000 == 999).any()):
        raise fault(path, f"its times end in .999 ({iso(int(ordered['ts'][0]))}): they are when bars closed", "write when they opened")
    bars, interval = bars_of(path, ordered, source.timeframe or None)
    if source.market.asset_class is AssetClass.FOREX and bars.quote_volume is None and bars.volume is not None:
        notes = (*notes, "volume left out: in forex it counts ticks")
    table: Table = {"ts": bars.ts, "open": bars.open, "high": bars.high, "low": bars.low, "close": bars.close}
    forex = source.market.asset_class is AssetClass.FOREX and bars.quote_volume is None
    for column in COLUMNS[Kind.BARS][5:]:
        values = getattr(bars, column)
        if values is not None and not (forex and column == "volume"):
            table[column] = values
    return _Read(table, interval, count, notes)


def _dated(path: Path, table: Table) -> Table:
    if "date" not in table or not len(table["date"]):
        what = "holds no rows" if "date" in table else f"has no column date (has {', '.join(table) or 'none'})"
        raise fault(path, what, "delete it, or let freqtrade download it again")
    if table["date"].dtype.kind != "i":
        raise fault(path, "its column date holds no times", "let freqtrade download it again")
    return {"ts": table["date"], **{name: values for name, values in table.items() if name != "date"}}


def _json(path: Path) -> Table:
    """freqtrade's rows [ms, open, high, low, close, volume]."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.name.lower().endswith(".gz") else path.read_bytes()
        rows: Any = json.loads(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise fault(path, f"cannot be read ({type(error).__name__}: {error})", "copy or download it again") from error
    except (ValueError, RecursionError) as error:
        place = f"row {error.lineno}, column {error.colno}: " if isinstance(error, json.JSONDecodeError) else ""
        raise fault(path, f"{place}is no JSON (is the file cut off?)", "copy or download it again") from None
    if not isinstance(rows, list) or not rows:
        raise fault(path, "holds no rows" if rows == [] else "is no list of candles", CANDLE)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list) or len(row) != 6 or not all(value is None or type(value) in (int, float) for value in row) or (
                row[0] is None):
            raise fault(path, f"row {number}: {json.dumps(row)[:60]} is no candle", CANDLE)
    columns = np.array(rows, dtype=np.float64).T
    return {"ts": columns[0].astype(np.int64), **dict(zip(_FREQTRADE[1:], columns[1:], strict=True))}


def _in_order(path: Path, table: Table) -> tuple[Table, tuple[str, ...]]:
    """Newest-first becomes oldest-first; a row that is there twice, equal in every number, counts once. Anything else stays as it is, for
    the checks to find."""
    notes: list[str] = []
    ts: I64 = table["ts"]
    if len(ts) > 1 and bool((np.diff(ts) <= 0).all()) and ts[0] != ts[-1]:
        table = {name: np.ascontiguousarray(column[::-1]) for name, column in table.items()}
        ts = table["ts"]
        notes.append("newest came first: turned around")
    twice = np.flatnonzero(np.diff(ts) == 0)
    numbers = [column for column in table.values() if column.dtype.kind in "fiu"]
    equal = [row for row in twice.tolist() if all(column[row] == column[row + 1] or (column[row] != column[row] and column[row + 1] != (
        column[row + 1])) for column in numbers)]
    if equal:
        keep = np.ones(len(ts), dtype=bool)
        keep[equal] = False
        table = {name: column[keep] for name, column in table.items()}
        notes.append(f"{len(equal)} rows were there twice, the same")
    return table, tuple(notes)


def _rates(path: Path, table: Table) -> Table:
    """Funding: a column of that name, else freqtrade's, which keeps the rate as `open`."""
    name = next((column for column in ("funding_rate", "open") if column in table), None)
    if name is None:
        raise fault(path, f"has no column funding_rate (has {', '.join(table)})", "name it so")
    ts: I64 = np.array([settled(at) for at in table["ts"].tolist()], dtype=np.int64)
    rates = np.asarray(table[name], dtype=np.float64)
    for rows, what in ((np.flatnonzero(np.diff(ts) <= 0) + 1, "its time does not come after the one before"),
                       (np.flatnonzero(~(np.abs(rates) <= RATE_MAX)), "its rate is no fraction per settlement (0.0001 is 0.01 %)")):
        if len(rows):
            row = int(rows[0])
            raise fault(path, f"row {row + 1} ({iso(int(ts[row]))}): {what}", "correct it or leave the row out")
    hours = np.array(settlement_hours(ts.tolist(), FUNDING_HOURS), dtype=np.int64)
    return {"ts": ts, "funding_rate": rates, "interval_h": hours}


# -- keeping -----------------------------------------------------------------------------------------------------------------


def _lines(table: Table, columns: tuple[str, ...], rows: slice) -> Iterator[Row]:
    count = len(range(*rows.indices(len(table["ts"]))))
    unknown = [float("nan")] * count
    parts = [table[name][rows].tolist() if name in table else unknown for name in columns]
    return zip(*parts, strict=True)


def _contiguous(ts: I64, interval_ms: int) -> Iterator[slice]:
    """Stretches without a hole, in chunks: a later download asks the venue for what lies between them."""
    if not len(ts):
        return
    edges = [0, *((np.flatnonzero(np.diff(ts) > interval_ms) + 1).tolist() if interval_ms else ()), len(ts)]
    for first, last in pairwise(edges):
        for start in range(first, last, CHUNK):
            yield slice(start, min(start + CHUNK, last))


def _fresh(source: Source, file: SeriesFile, table: Table) -> Table:
    """The rows that the file has not. Raises DataError where it has one and says something else."""
    there = file.numbers()
    ts, kept = table["ts"], there["ts"]
    place = np.searchsorted(kept, ts)
    known = place < len(kept)
    known[known] = kept[place[known]] == ts[known]
    rows, old = np.flatnonzero(known), place[known]  # the same instants, there and here
    differ = np.zeros(len(rows), dtype=bool)
    for name in COLUMNS[source.kind][1:]:
        if name in table:
            one, other = np.asarray(table[name], dtype=np.float64)[rows], there[name][old]
            differ |= (one != other) & ~np.isnan(one) & ~np.isnan(other)
    if bool(differ.any()):
        at, count = int(np.flatnonzero(differ)[0]), int(differ.sum())
        row = int(rows[at])
        said, have = (", ".join(f"{name} {float(values[name][place]):.10g}" for name in COLUMNS[source.kind][1:5] if name in table)
                      for values, place in ((table, row), (there, int(old[at]))))
        where = f"row {row + 1} ({iso(int(ts[row]))}{f', {count} rows in all' if count > 1 else ''})"
        raise DataError([f"{source.path.name}: {where} says {said} where {file.path.name} has {have}; which is right? "
                         "Import into another folder, or delete the file that is wrong"])
    return {name: column[~known] for name, column in table.items()}
