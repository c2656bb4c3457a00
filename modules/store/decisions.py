"""Every decision with all its checks, traded or not: what `explain` shows. Owns the decisions file, which may be pruned or lost.

Nothing here can stop trading: records wait in memory while the disk takes none, and the oldest are dropped (and counted) at last.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modules.domain.decision import Check, Decision, Outcome, Rule
from modules.domain.errors import StoreUnreadable
from modules.domain.instrument import AssetClass
from modules.store import codec
from modules.store.database import PrunableDatabase

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS decisions (
    decision_id TEXT PRIMARY KEY, at INTEGER NOT NULL, symbol TEXT NOT NULL, asset_class TEXT NOT NULL, outcome TEXT NOT NULL,
    stopped_by TEXT, miss REAL, payload TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS decisions_at ON decisions (at);
CREATE INDEX IF NOT EXISTS decisions_symbol ON decisions (symbol, at);
CREATE TABLE IF NOT EXISTS bars (asset_class TEXT NOT NULL, hour INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (asset_class, hour));
"""
_ADD: Final = "INSERT OR REPLACE INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_ADD_BARS: Final = "INSERT INTO bars VALUES (?, ?, ?) ON CONFLICT (asset_class, hour) DO UPDATE SET n = n + excluded.n"
_HOUR_MS: Final = 3_600_000
_BATCH: Final = 200
"""Decisions per transaction: about ten milliseconds of the loop's time at most."""
_KEPT_MAX: Final = 10_000
"""Decisions kept in memory while the disk takes none."""


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A denied decision that one check alone stopped. `distance` = |measured - limit| / |limit|: how far that check was from passing."""

    decision: Decision
    check: Check
    distance: float


@dataclass(frozen=True, slots=True)
class Funnel:
    """What became of one class's bars. `signals` = `approved` + the sum of `denied`, counted by the first rule that denied.

    `bars` counts whole UTC hours: those of every hour that the span touches.
    """

    asset_class: AssetClass
    bars: int
    signals: int
    approved: int
    denied: dict[Rule, int]
    nearest_miss: NearMiss | None


class Decisions:
    """`path` None = in memory. Spans are `since` <= at < `until`, UTC ms. Writing never raises; reading raises StoreUnreadable."""

    def __init__(self, path: Path | None) -> None:
        self._database = PrunableDatabase(path, _SCHEMA)
        self._recorded: list[Decision] = []
        self._unwritten: list[tuple[object, ...]] = []
        self._bars: defaultdict[tuple[AssetClass, int], int] = defaultdict(int)
        self.dropped = 0
        """Decisions lost because the disk took none for too long."""

    @property
    def degraded(self) -> str:
        return self._database.degraded

    @property
    def notice(self) -> str:
        return self._database.notice

    # -- writing ---------------------------------------------------------------------------------------------------------

    def record(self, decision: Decision) -> None:
        """Keep `decision`; an earlier one with the same id is replaced. On disk at the next flush."""
        self._recorded.append(decision)
        if len(self._recorded) >= _BATCH:
            self.flush()

    def count_bars(self, asset_class: AssetClass, n: int, at: int) -> None:
        """`n` closed bars of this class were looked at, at `at`: the mouth of the funnel."""
        self._bars[asset_class, at // _HOUR_MS] += n

    def flush(self) -> None:
        # Encoded once, here, however often the disk then has to be asked.
        self._unwritten.extend(map(_row, self._recorded))
        self._recorded.clear()
        if not self._unwritten and not self._bars:
            return
        bars = [(asset_class.value, hour, n) for (asset_class, hour), n in self._bars.items()]
        if self._database.write([(_ADD, self._unwritten), (_ADD_BARS, bars)]):
            self._unwritten.clear()
            self._bars.clear()
        else:
            excess = max(0, len(self._unwritten) - _KEPT_MAX)
            self.dropped += excess
            del self._unwritten[:excess]

    def prune(self, before: int) -> int:
        """Delete decisions taken before `before`; return how many."""
        self.flush()
        with self._database.reading() as connection:
            connection.execute("DELETE FROM bars WHERE hour < ?", (before // _HOUR_MS,))
            return connection.execute("DELETE FROM decisions WHERE at < ?", (before,)).rowcount

    def close(self) -> None:
        self.flush()
        self._database.close()

    # -- reading ---------------------------------------------------------------------------------------------------------

    def get(self, decision_id: str) -> Decision | None:
        found = list(self._select("WHERE decision_id = ?", decision_id))
        return found[0] if found else None

    def latest(self, symbol: str | None = None, limit: int = 20) -> list[Decision]:
        """The newest `limit`, newest first."""
        if symbol is None:
            return list(self._select("ORDER BY at DESC, rowid DESC LIMIT ?", limit))
        return list(self._select("WHERE symbol = ? ORDER BY at DESC, rowid DESC LIMIT ?", symbol, limit))

    def search(self, *, symbol: str = "", rule: str = "", outcome: str = "", limit: int = 50) -> list[Decision]:
        """The newest `limit` that fit, newest first; "" = any. `rule` is what denied it first."""
        wanted = [(column, value) for column, value in (("symbol", symbol), ("stopped_by", rule), ("outcome", outcome)) if value]
        condition = " AND ".join(f"{column} = ?" for column, _ in wanted)
        where = f"WHERE {condition} " if wanted else ""
        return list(self._select(f"{where}ORDER BY at DESC, rowid DESC LIMIT ?", *(value for _, value in wanted), limit))

    def between(self, since: int, until: int) -> Iterator[Decision]:
        """Oldest first."""
        return self._select("WHERE at >= ? AND at < ? ORDER BY at, rowid", since, until)

    def hours(self) -> dict[AssetClass, frozenset[int]]:
        """The hours since 1970 (UTC) in which bars of a class were looked at."""
        self.flush()
        with self._database.reading() as connection:
            rows = connection.execute("SELECT asset_class, hour FROM bars WHERE n > 0").fetchall()
        return {of: frozenset(int(hour) for name, hour in rows if name == of.value) for of in AssetClass}

    def funnel(self, since: int, until: int) -> dict[AssetClass, Funnel]:
        """Bars -> signals -> denials by rule -> approved, for every asset class, with the nearest miss."""
        self.flush()
        with self._database.reading() as connection:
            counts = connection.execute(
                "SELECT asset_class, outcome, stopped_by, count(*) FROM decisions WHERE at >= ? AND at < ?"
                " GROUP BY 1, 2, 3 ORDER BY 4 DESC",
                (since, until),
            ).fetchall()
            bars = dict(
                connection.execute(
                    "SELECT asset_class, sum(n) FROM bars WHERE hour >= ? AND hour * ? < ? GROUP BY 1", (since // _HOUR_MS, _HOUR_MS, until)
                ).fetchall()
            )
        funnels = {}
        for asset_class in AssetClass:
            mine = [(outcome, stopped_by, n) for name, outcome, stopped_by, n in counts if name == asset_class]
            funnels[asset_class] = Funnel(
                asset_class=asset_class,
                bars=bars.get(asset_class.value, 0),
                signals=sum(n for _, _, n in mine),
                approved=sum(n for outcome, _, n in mine if outcome == Outcome.APPROVED),
                denied={Rule(stopped_by): n for outcome, stopped_by, n in mine if outcome == Outcome.DENIED and stopped_by is not None},
                nearest_miss=self._nearest_miss(asset_class, since, until),
            )
        return funnels

    def _nearest_miss(self, asset_class: AssetClass, since: int, until: int) -> NearMiss | None:
        nearest = "WHERE miss IS NOT NULL AND asset_class = ? AND at >= ? AND at < ? ORDER BY miss, at DESC LIMIT 1"
        for decision in self._select(nearest, asset_class.value, since, until):
            miss = _miss(decision)
            if miss is not None:
                return NearMiss(decision, *miss)
        return None

    def _select(self, condition: str, *parameters: object) -> Iterator[Decision]:
        self.flush()
        with self._database.reading() as connection:
            rows = connection.execute(f"SELECT payload FROM decisions {condition}", parameters).fetchall()
        return (_read(payload) for (payload,) in rows)


def _row(decision: Decision) -> tuple[object, ...]:
    miss = _miss(decision)
    return (
        decision.decision_id,
        decision.at,
        decision.symbol,
        decision.asset_class.value,
        decision.outcome.value,
        decision.stopped_by.value if decision.stopped_by is not None else None,
        miss[1] if miss is not None else None,
        codec.pack(decision).decode(),
    )


def _read(payload: str) -> Decision:
    try:
        return codec.unpack(Decision, payload.encode())
    except (ValueError, TypeError) as error:
        raise StoreUnreadable(f"a recorded decision is damaged: {error}") from error


def _miss(decision: Decision) -> tuple[Check, float] | None:
    """The only check that failed and its relative distance from passing; None if several failed or it has no two finite numbers.

    Sizer's own checks count too. A limit of zero has no relative distance, so it is never the nearest.
    """
    if decision.outcome is not Outcome.DENIED:
        return None
    checks = decision.checks if decision.size is None else decision.checks + decision.size.checks
    failed = {check.rule: check for check in checks if not check.passed}
    if len(failed) != 1:
        return None
    (check,) = failed.values()
    if check.measured is None or not check.limit:
        return None
    distance = abs((float(check.measured) - float(check.limit)) / float(check.limit))
    return (check, distance) if math.isfinite(distance) else None
