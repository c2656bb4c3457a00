"""What the three SQLite files share: opening them, and giving sqlite's errors our names. Owns no data."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from modules.domain.errors import StoreUnreadable

SQLITE_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)
"""What a sqlite3 call may raise: where a damaged schema gets into sqlite's message, Python fails to decode that message."""
CACHE: Final = -512
"""Pages of a file kept in memory, in KiB (minus is sqlite's sign for that): what is written goes to the end, and little is read twice. The
2 MB a file that sqlite keeps otherwise are most of what a day adds to the process."""
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})


def code_of(error: Exception) -> int:
    """sqlite's extended result code, 0 if the error is Python's own (a closed connection)."""
    if isinstance(error, UnicodeDecodeError):
        return sqlite3.SQLITE_CORRUPT
    return int(getattr(error, "sqlite_errorcode", 0))


def primary_code_of(error: Exception) -> int:
    return code_of(error) & 0xFF


def sync_folder(folder: Path) -> None:
    """Make new, renamed and deleted names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class PrunableDatabase:
    """A SQLite file that trading can do without: losing its last second, or all of it, costs explanations but no money.

    So nothing here ever stops the daemon: a damaged file is moved aside at opening and a new one begun, and a write that fails is kept
    for later by the caller while `degraded` says why. Reads that fail raise StoreUnreadable. `path` None = in memory.
    """

    def __init__(self, path: Path | None, schema: str) -> None:
        self.degraded = ""
        """Why the last write did not reach the disk, "" = it did."""
        self.notice = ""
        """That a damaged file was replaced at opening, "" = it was not."""
        self._path = path
        try:
            self.connection = self._open(schema)
        except SQLITE_ERRORS as error:
            if path is None or primary_code_of(error) not in _DAMAGED:
                raise StoreUnreadable(f"{path}: {error}. Check the disk and the rights of the state folder.") from error
            self.notice = f"{path.name} was damaged ({error}); it is now {self._move_aside(path).name} and a new one was begun"
            self.connection = self._open(schema)

    def _open(self, schema: str) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path or ":memory:", isolation_level=None, timeout=1.0)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA cache_size={CACHE}")
            connection.executescript(schema)
        except SQLITE_ERRORS:
            connection.close()
            raise
        if self._path is not None:
            self._path.chmod(0o600)
        return connection

    @staticmethod
    def _move_aside(path: Path) -> Path:
        aside = path.with_name(path.name + ".damaged")
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return aside

    def write(self, statements: Sequence[tuple[str, Sequence[tuple[object, ...]]]]) -> bool:
        """Run each (statement, rows) in one transaction. False (and `degraded` set, nothing written) if the disk does not take it."""
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            for statement, rows in statements:
                self.connection.executemany(statement, rows)
            self.connection.execute("COMMIT")
        except SQLITE_ERRORS as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            self.degraded = f"{self._path.name if self._path else 'in-memory database'}: {error}"
            return False
        self.degraded = ""
        return True

    def copy_from(self, path: Path) -> None:
        """Take over all that the file at `path` holds, which is only read, also while another process writes it. Raises StoreUnreadable."""
        try:
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=1.0)) as recorded:
                recorded.backup(self.connection)
        except SQLITE_ERRORS as error:
            raise StoreUnreadable(f"{path}: {error}") from error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self.connection
        except SQLITE_ERRORS as error:
            raise StoreUnreadable(f"{self._path}: {error}. Stop the daemon and move the file away; trading does not need it.") from error

    def close(self) -> None:
        self.connection.close()
