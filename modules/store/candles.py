"""Closed bars per instrument and interval. Owns the candle file; a bar once stored is never restated."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from modules.domain.market import Bar
from modules.store.database import PrunableDatabase

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY, symbol TEXT NOT NULL, interval_ms INTEGER NOT NULL, UNIQUE (symbol, interval_ms)
);
CREATE TABLE IF NOT EXISTS candles (
    series INTEGER NOT NULL, ts INTEGER NOT NULL, open REAL, high REAL, low REAL, close REAL,
    volume REAL, quote_volume REAL, bid REAL, ask REAL,
    PRIMARY KEY (series, ts)
) WITHOUT ROWID;
"""
_ADD_SERIES: Final = "INSERT OR IGNORE INTO series (symbol, interval_ms) VALUES (?, ?)"
_ADD_BAR: Final = """INSERT OR IGNORE INTO candles SELECT id, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11 FROM series
                     WHERE symbol = ?1 AND interval_ms = ?2"""
_BARS: Final = """SELECT ts, open, high, low, close, volume, quote_volume, bid, ask FROM candles
                  WHERE series = (SELECT id FROM series WHERE symbol = ? AND interval_ms = ?)"""
_BATCH: Final = 1_000
"""Bars per transaction. What a crash loses is asked of the venue again."""
_KEPT_MAX: Final = 100_000
"""Bars kept in memory while the disk takes none; the oldest go first."""


class Candles:
    """`path` None = in memory. Times are UTC ms of a bar's *open*; bars come back oldest first, NaN where a field was not recorded.

    Writing never raises (see `degraded`); reading and pruning raise StoreUnreadable.
    """

    def __init__(self, path: Path | None) -> None:
        self._database = PrunableDatabase(path, _SCHEMA)
        self._unwritten: list[tuple[object, ...]] = []
        self._series: set[tuple[str, int]] = set()

    @property
    def degraded(self) -> str:
        return self._database.degraded

    @property
    def notice(self) -> str:
        return self._database.notice

    def append(self, symbol: str, interval_ms: int, bars: Iterable[Bar]) -> None:
        """Store closed bars. A time already there keeps its first bar: what was decided on must stay what is on record."""
        self._series.add((symbol, interval_ms))
        self._unwritten.extend((symbol, interval_ms, int(bar.ts), *map(float, bar[1:])) for bar in bars)
        if len(self._unwritten) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        if not self._unwritten:
            return
        if self._database.write([(_ADD_SERIES, sorted(self._series)), (_ADD_BAR, self._unwritten)]):
            self._unwritten = []
            self._series.clear()
        else:
            del self._unwritten[:-_KEPT_MAX]

    def kept(self) -> list[tuple[str, int]]:
        """(symbol, interval in ms) of every series there are bars of, by name."""
        self.flush()
        with self._database.reading() as connection:
            return [(str(row[0]), int(row[1])) for row in connection.execute("SELECT symbol, interval_ms FROM series ORDER BY 1, 2")]

    def last(self, symbol: str, interval_ms: int, n: int) -> list[Bar]:
        """The newest `n` bars."""
        return self._select(f"{_BARS} ORDER BY ts DESC LIMIT ?", (symbol, interval_ms, n))[::-1]

    def range(self, symbol: str, interval_ms: int, since: int, until: int) -> list[Bar]:
        """Bars that open at `since` <= ts < `until`."""
        return self._select(f"{_BARS} AND ts >= ? AND ts < ? ORDER BY ts", (symbol, interval_ms, since, until))

    def prune(self, before: int) -> int:
        """Delete bars that opened before `before`; return how many."""
        self.flush()
        with self._database.reading() as connection:
            return connection.execute("DELETE FROM candles WHERE ts < ?", (before,)).rowcount

    def close(self) -> None:
        self.flush()
        self._database.close()

    def _select(self, statement: str, parameters: tuple[object, ...]) -> list[Bar]:
        self.flush()
        with self._database.reading() as connection:
            rows = connection.execute(statement, parameters).fetchall()
        # SQLite has no NaN: it stores NULL.
        return [Bar(row[0], *(math.nan if value is None else value for value in row[1:])) for row in rows]
