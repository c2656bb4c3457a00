"""Headlines and calendar snapshots as first seen. Owns news.db; what replays, validation and restarts know of the past comes from here.

Losing it costs memory, no money: nothing here raises while trading. Rows are only ever added, in the order in which they were acted on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from modules.domain.errors import StoreUnreadable
from modules.news.items import Item
from modules.news.releases import Snapshot
from modules.store.database import PrunableDatabase
from modules.venues.protocol import MacroEvent

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS items (
    seq INTEGER PRIMARY KEY, first_seen INTEGER NOT NULL, source TEXT NOT NULL, domain TEXT NOT NULL, guid TEXT NOT NULL,
    title TEXT NOT NULL, published INTEGER, codes TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS items_seen ON items (first_seen);
CREATE TABLE IF NOT EXISTS snapshots (seq INTEGER PRIMARY KEY, fetched INTEGER NOT NULL, source TEXT NOT NULL, payload TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS feeds (
    source TEXT PRIMARY KEY, state TEXT NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL, good_at INTEGER, items INTEGER NOT NULL
);
"""
_ADD: Final = "INSERT INTO items (first_seen, source, domain, guid, title, published, codes) VALUES (?, ?, ?, ?, ?, ?, ?)"
_ADD_SNAPSHOT: Final = "INSERT INTO snapshots (fetched, source, payload) VALUES (?, ?, ?)"
_SET_FEED: Final = "INSERT OR REPLACE INTO feeds VALUES (?, ?, ?, ?, ?, ?)"
_WAITING_MAX: Final = 5_000
"""Rows kept in memory while the disk takes none; then the oldest are lost, and counted."""


class NewsStore:
    """`path` None = in memory. Writing never raises; opening and reading raise StoreUnreadable."""

    def __init__(self, path: Path | None) -> None:
        self._database = PrunableDatabase(path, _SCHEMA)
        self._database.connection.execute("PRAGMA busy_timeout=2")    # rows wait in memory, the event loop does not
        self._waiting: list[tuple[str, tuple[object, ...]]] = []
        self.dropped = 0

    @classmethod
    def recording(cls, path: Path) -> NewsStore:
        """A copy in memory of what `path` holds, for replays; the file is only read. Raises StoreUnreadable if it is no news store."""
        store = cls(None)
        store._database.copy_from(path)
        for _ in (*store.items(until=0), *store.snapshots()):
            break  # both tables are there
        return store

    @property
    def degraded(self) -> str:
        return self._database.degraded

    @property
    def notice(self) -> str:
        return self._database.notice

    def add(self, items: Sequence[Item]) -> None:
        """Items in the order in which they were taken."""
        self._write([(_ADD, (i.first_seen, i.source, i.domain, i.guid, i.title, i.published, " ".join(i.codes))) for i in items])

    def add_snapshot(self, snapshot: Snapshot) -> None:
        payload = json.dumps({"first": snapshot.first, "last": snapshot.last, "whole": snapshot.whole,
                              "events": [list(event) for event in snapshot.events]})
        self._write([(_ADD_SNAPSHOT, (snapshot.fetched, snapshot.source, payload))])

    def set_feed(self, source: str, state: str, reason: str, at: int, good_at: int | None, items: int) -> None:
        """How a source fares, for `news` on the command line."""
        self._write([(_SET_FEED, (source, state, reason, at, good_at, items))])

    def _write(self, rows: list[tuple[str, tuple[object, ...]]]) -> None:
        self._waiting += rows
        if self._waiting and self._database.write([(statement, [row]) for statement, row in self._waiting]):
            self._waiting.clear()
        elif len(self._waiting) > _WAITING_MAX:
            self.dropped += len(self._waiting) - _WAITING_MAX
            del self._waiting[:-_WAITING_MAX]

    def items(self, since: int = 0, until: int | None = None) -> Iterator[Item]:
        """since <= first_seen < until, in the order in which they were taken."""
        with self._database.reading() as connection:
            for row in connection.execute(
                    "SELECT first_seen, source, domain, guid, title, published, codes FROM items"
                    " WHERE first_seen >= ? AND first_seen < ? ORDER BY seq", (since, 2**62 if until is None else until)):
                yield Item(row[0], row[1], row[2], row[3], row[4], row[5], tuple(row[6].split()))

    def snapshots(self) -> Iterator[Snapshot]:
        """Every calendar snapshot, oldest first."""
        with self._database.reading() as connection:
            for fetched, source, payload in connection.execute("SELECT fetched, source, payload FROM snapshots ORDER BY seq"):
                try:
                    raw = json.loads(payload)
                    events = tuple(MacroEvent(*event) for event in raw["events"])
                    snapshot = Snapshot(fetched, source, raw["first"], raw["last"], raw["whole"], events)
                except (ValueError, TypeError, KeyError) as error:
                    raise StoreUnreadable(f"calendar snapshot of {source} at {fetched}: {error!r}. Move the news store away; "
                                          "trading does not need it.") from None
                yield snapshot

    def feeds(self) -> list[tuple[str, str, str, int, int | None, int]]:
        """(source, state, reason, at, last good, items) per feed."""
        with self._database.reading() as connection:
            return list(connection.execute("SELECT source, state, reason, at, good_at, items FROM feeds ORDER BY source"))

    def prune(self, before: int) -> int:
        """Delete headlines first seen before `before`; calendar snapshots stay. Returns how many."""
        with self._database.reading() as connection:
            return connection.execute("DELETE FROM items WHERE first_seen < ?", (before,)).rowcount

    def close(self) -> None:
        self._database.close()
