"""The journal's file: its schema, its creation in one step, and the disk space kept back for exits. Refuses a file it did not make."""

from __future__ import annotations

import os
import sqlite3
from functools import cache
from pathlib import Path
from typing import Final

from modules.domain.errors import JournalCorrupt, JournalUnwritable
from modules.store.codec import REMEDY
from modules.store.database import SQLITE_ERRORS, sync_folder

SCHEMA_VERSION: Final = 1
GENESIS: Final = bytes(32)
"""What the first row is chained to."""
SCHEMA: Final = f"""
BEGIN;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('schema_version', '{SCHEMA_VERSION}');
CREATE TABLE facts (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, payload TEXT NOT NULL, hash BLOB NOT NULL);
CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, hash BLOB NOT NULL);
INSERT INTO head VALUES (1, 0, x'{GENESIS.hex()}');
CREATE TRIGGER facts_in_order BEFORE INSERT ON facts WHEN NEW.seq <> (SELECT seq + 1 FROM head)
BEGIN SELECT RAISE(ABORT, 'the journal takes rows in order only'); END;
CREATE TRIGGER facts_head AFTER INSERT ON facts BEGIN UPDATE head SET seq = NEW.seq, hash = NEW.hash; END;
CREATE TRIGGER facts_never_change BEFORE UPDATE ON facts BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER facts_never_go BEFORE DELETE ON facts BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
COMMIT;
"""
_ROOM: Final = 100
"""Pages of the log beyond those after which it is copied into the database: one commit more."""
_SPACIOUS: Final = 256 * 1024 * 1024
"""Bytes that must be free before the log is given its full size ahead of time."""
_PLENTY: Final = 8
"""Times the reserve that must be free before it is taken again."""
OBJECTS: Final = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_stat%' ORDER BY name"
"""Every table and trigger as sqlite keeps it."""


def create(path: Path) -> None:
    """A new, empty journal. It gets its name only when it is complete, so that a file which is there and lacks a table is damaged."""
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise JournalCorrupt(f"{path} is gone but its write-ahead log {log.name} is still there. {REMEDY}")
    new = path.with_name(path.name + ".new")
    try:
        for suffix in ("", "-wal", "-shm"):
            new.with_name(new.name + suffix).unlink(missing_ok=True)
            if suffix:
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        connection = sqlite3.connect(new, isolation_level=None)
        try:
            if connection.execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):
                raise JournalUnwritable(f"{path}: this file system cannot hold a write-ahead log; keep the state folder on a local disk")
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(SCHEMA)
        finally:
            connection.close()
        new.chmod(0o600)
        new.replace(path)
        sync_folder(path.parent)
    except (*SQLITE_ERRORS, OSError) as error:
        raise JournalUnwritable(f"{path}: cannot be created ({error}). Check the disk and the rights of the state folder.") from error


@cache
def intact_objects() -> list[tuple[object, ...]]:
    """Every table and trigger a journal must have, exactly as written."""
    connection = connect(":memory:", 0.0)
    try:
        connection.executescript(SCHEMA)
        return connection.execute(OBJECTS).fetchall()
    finally:
        connection.close()


def connect(database: str, busy_timeout_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(database, uri=database.startswith("file:"), isolation_level=None, timeout=busy_timeout_s)
    connection.text_factory = bytes  # what is hashed is bytes, and a flipped bit need not be UTF-8
    return connection


def make_room(connection: sqlite3.Connection, folder: Path) -> None:
    """Let the write-ahead log have its full size from the start.

    A commit that makes a file longer waits for the file system's own journal too: 0.18 ms against 0.09 for one that writes over what
    is there (measured on ext4). So a transaction larger than the page cache is written into the log and rolled back. Nothing of it
    counts, and the log, which starts over whenever it was copied into the database, never has to grow. Does without where space is
    scarce or somebody else is writing: it is only slower then.
    """
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < _SPACIOUS:
        return
    pages = int(connection.execute("PRAGMA wal_autocheckpoint").fetchone()[0])
    cache = int(connection.execute("PRAGMA cache_size").fetchone()[0])
    try:
        connection.execute("PRAGMA cache_size=10")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE room (page BLOB)")
        connection.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO room"
                           " SELECT zeroblob(3000) FROM n", (pages + _ROOM,))
    except SQLITE_ERRORS:
        pass  # the rollback below is all there is to do
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute(f"PRAGMA cache_size={cache}")


class Reserve:
    """A file of allocated but unused space beside the journal, deleted when the disk is full so that exits can still be journaled."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        self.kept = False
        """False once given up, or if there was no room for it in the first place."""
        if size > 0:
            self._allocate()

    def _allocate(self) -> None:
        path, size = self._path, self._size
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size)
            finally:
                os.close(descriptor)
            self.kept = True
        except OSError:
            path.unlink(missing_ok=True)

    def regain(self) -> bool:
        """Take the space again where there is plenty of it: several times what it needs, so that it does not come and go."""
        if self.kept or self._size <= 0:
            return False
        disk = os.statvfs(self._path.parent)
        if disk.f_bavail * disk.f_frsize < _PLENTY * self._size:
            return False
        self._allocate()
        return self.kept

    def release(self) -> bool:
        """Give the space up. False if there was none left to give."""
        if not self.kept:
            return False
        self.kept = False
        self._path.unlink(missing_ok=True)
        return True
