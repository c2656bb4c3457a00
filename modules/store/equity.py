"""Owns the curve of marked equity per asset class that pictures are drawn from. Losing it costs pictures, never money.

One row per class and grid instant; beyond a week only the hourly ones are kept, so a year of four classes is about 35,000 rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from modules.domain.instrument import AssetClass
from modules.domain.money import text
from modules.store.database import PrunableDatabase

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS equity (
    at INTEGER NOT NULL, asset_class TEXT NOT NULL, equity TEXT NOT NULL, nav REAL NOT NULL, day REAL NOT NULL,
    month REAL NOT NULL,
    PRIMARY KEY (asset_class, at)
) WITHOUT ROWID;
"""
# One step down the primary key per span drawn, however many rows lie in it: a year of hours costs what a day costs.
_THINNED: Final = """
WITH RECURSIVE spans(begin, stop) AS (
    SELECT ?1, (?1 / ?2 + 1) * ?2 UNION ALL SELECT stop, stop + ?2 FROM spans WHERE stop <= ?3
)
SELECT e.at, e.equity, e.nav, e.day, e.month FROM spans JOIN equity AS e ON e.asset_class = ?4 AND e.at = (
    SELECT max(at) FROM equity WHERE asset_class = ?4 AND at >= begin AND at < stop AND at <= ?3)
ORDER BY e.at
"""
GRID_MS: Final = 300_000
HOUR_MS: Final = 3_600_000
FINE_MS: Final = 7 * 24 * HOUR_MS
"""How long the five-minute points are kept."""
_WAITING_MAX: Final = 4_000


@dataclass(frozen=True, slots=True)
class Point:
    """Marked equity in settlement currency; `nav` is a unit's value, which deposits and withdrawals don't change; drawdowns from the
    day's and month's peak as fractions >= 0."""

    at: int
    equity: Decimal
    nav: float
    drawdown_daily: float
    drawdown_monthly: float


class EquityCurve:
    """`path` None = in memory. Writing never raises; reading raises StoreUnreadable."""

    def __init__(self, path: Path | None) -> None:
        self._database = PrunableDatabase(path, _SCHEMA)
        self._waiting: list[tuple[object, ...]] = []
        self._next = 0

    def due(self, at: int) -> bool:
        """Whether `at` (UTC ms) lies beyond the grid instant last recorded."""
        return at >= self._next

    def record(self, at: int, points: Mapping[AssetClass, tuple[Decimal, float, float, float]]) -> None:
        """{class: (equity, nav, daily, monthly drawdown)} at the grid instant before `at`; a later one of the same instant replaces it."""
        grid = at - at % GRID_MS
        self._next = grid + GRID_MS
        self._waiting.extend((grid, c.value, text(equity), *figures) for c, (equity, *figures) in points.items())
        del self._waiting[:-_WAITING_MAX]

    def flush(self) -> None:
        if self._waiting and self._database.write([("INSERT OR REPLACE INTO equity VALUES (?, ?, ?, ?, ?, ?)", self._waiting)]):
            self._waiting.clear()

    def thin_out(self, now: int) -> None:
        """Forget the points between the hours that are older than a week."""
        self._database.write([("DELETE FROM equity WHERE at < ? AND at % ? != 0", [(now - FINE_MS, HOUR_MS)])])

    def read(self, classes: Iterable[AssetClass], since: int, until: int, points_max: int = 1_000) -> dict[AssetClass, list[Point]]:
        """Oldest first, since <= at <= until; of more than `points_max` the last one of each equal span."""
        self.flush()
        span = max(GRID_MS, (until - since) // max(1, points_max))
        curves: dict[AssetClass, list[Point]] = {}
        with self._database.reading() as connection:
            for asset_class in classes:
                rows = connection.execute(_THINNED, (since, span, until, asset_class.value)).fetchall()
                curves[asset_class] = [Point(at, Decimal(equity), *figures) for at, equity, *figures in rows]
        return curves

    def close(self) -> None:
        self.flush()
        self._database.close()
