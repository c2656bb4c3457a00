"""The append-only journal: the truth about what we meant and did. Alone writes the journal file; refuses an append that is not on disk.

One row per fact, chained: each row's hash covers the hash before it, so a changed, missing, added or moved row is found, and the last
row's sequence number and hash are kept a second time on another page, so that lost rows at the end are found too. (SQLite's own
integrity check sees none of that.) A truncated write-ahead log leaves a prefix of the facts: those commits are gone, as after a
power cut on a lying disk, and reconciliation with the venue finds what they said.

Books are projections, rebuilt by `replay`; reactors act on new facts only. An append is: row on disk, then every projection, then -
from a queue drained by the outermost append - every reactor.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from modules.domain.errors import JournalBusy, JournalCorrupt, JournalUnwritable, JournalVersion, NotFound
from modules.domain.events import Fact
from modules.runtime import failpoint
from modules.store import codec, migrations
from modules.store.codec import REMEDY
from modules.store.database import CACHE, SQLITE_ERRORS, code_of, primary_code_of, sync_folder
from modules.store.journal_file import GENESIS, OBJECTS, SCHEMA, SCHEMA_VERSION, Reserve, connect, create, intact_objects, make_room

Receiver = Callable[[Fact], None]

_BATCH: Final = 5_000
"""Rows per commit when not durable."""
_PAGE: Final = 2_000
"""Rows per read: short queries never hold the log back from being checkpointed."""

_SELECT: Final = "SELECT seq, at, kind, payload, hash FROM facts WHERE seq > ? ORDER BY seq LIMIT ?"
_INSERT: Final = "INSERT INTO facts VALUES (?, ?, ?, ?, ?)"
_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
"""What a full disk looks like; both fail before anything is written, so the same row may be tried again."""
_LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

_READ_ONLY: Final = "this journal was opened read-only"

_Row = tuple[int, int, str, str, bytes]
_Stored = tuple[int, int, bytes, bytes, bytes]
"""As it comes back; a damaged file may well hold other types."""


def _link(previous: bytes, seq: int, at: int, kind: bytes, payload: bytes) -> bytes:
    """A row's hash. No kind holds "|", so no two rows read the same."""
    return hashlib.sha256(b"%b%d|%d|%b|%b" % (previous, seq, at, kind, payload)).digest()


def head_of(facts: Iterable[Fact]) -> str:
    """The head (see `Journal.head`) of a journal that would hold `facts` from its first row on."""
    link = GENESIS
    for seq, fact in enumerate(facts, 1):
        kind, payload = codec.encode(fact)
        link = _link(link, seq, fact.at, kind, payload)
    return link.hex()


class Journal:
    """See the module. `path` None keeps it in memory (tests).

    `durable`: every append is on disk (WAL, synchronous=FULL) before it returns. Otherwise (replay, demo) rows are written every 5,000
    and at `flush` and `close`. `busy_timeout_s`: how long an append waits for another connection's lock. `reserve_bytes`: disk space
    kept back in a file `reserve` beside a durable journal; it is given up when the disk is full, so that exits can still be journaled.
    `read_only`: for looking at a journal that may belong to a running daemon.

    Raises JournalCorrupt if the file is no intact journal, JournalVersion if a newer program wrote it, JournalUnwritable if it cannot be
    opened for writing. Not for threads.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        durable: bool = True,
        read_only: bool = False,
        busy_timeout_s: float = 5.0,
        reserve_bytes: int = 8 * 1024 * 1024,
    ) -> None:
        self._path = path
        self._durable = durable and path is not None
        self._read_only = read_only
        self.low_space = False
        """The disk is (nearly) full and the reserve is gone: no new exposure, only exits."""
        self._projections: list[Receiver] = []
        self._reactors: list[Receiver] = []
        self._pending: deque[Fact] = deque()
        self._unwritten: list[_Row] = []
        self._projecting = False
        self._draining = False
        self._fed = False
        self._closed = False
        self._fault = _READ_ONLY if read_only else ""
        if path is not None and not path.exists():
            if read_only:
                raise NotFound(f"no journal at {path}")
            create(path)
        self._connection = self._connect(busy_timeout_s)
        self._count, self._hash = self._look_at_head()
        self._reserve: Reserve | None = None
        if self._durable and not read_only and path is not None:
            make_room(self._connection, path.parent)
            self._reserve = Reserve(path.with_name("reserve"), reserve_bytes)
            self.low_space = reserve_bytes > 0 and not self._reserve.kept

    # -- receivers -------------------------------------------------------------------------------------------------------

    def project(self, projection: Receiver) -> None:
        """Feed every fact to `projection`, in registration order, at append and at replay. It must only change its own state."""
        if self._fed and self._count:
            raise RuntimeError(f"a projection registered now would have missed {self._count} facts: register before replay or append")
        self._projections.append(projection)

    def react(self, reactor: Receiver) -> None:
        """Call `reactor` for facts appended from now on, never in replay. It may append."""
        self._reactors.append(reactor)

    # -- writing ---------------------------------------------------------------------------------------------------------

    def append(self, fact: Fact) -> int:
        """Write `fact` and tell everyone. Returns its sequence number (from 1).

        Raises JournalBusy or JournalUnwritable: then the fact did not happen, no one was told, and what depends on it must not go out.
        Raises TypeError or ValueError if the fact would not read back the same. RuntimeError from inside a projection, or if earlier
        rows have not been replayed into the projections.
        """
        return self.append_all((fact,))

    def append_all(self, facts: Sequence[Fact]) -> int:
        """Write `facts`, which happen together: all of them are on disk, after one wait for it, or none. Then every projection sees them
        one after the other, then the reactors. Returns the last sequence number. Raises as `append` does.
        """
        if self._fault:
            raise JournalUnwritable(self._fault)
        if self._projecting:
            raise RuntimeError(f"{type(facts[0]).__name__} appended from inside a projection: only reactors may append")
        if self._projections and not self._fed:
            if self._count:
                raise RuntimeError(f"append before replay: the projections have not seen the {self._count} facts on disk")
            self._fed = True
        seq, link, rows = self._count, self._hash, []
        for fact in facts:
            kind, payload = codec.encode(fact)
            seq += 1
            link = _link(link, seq, fact.at, kind, payload)
            rows.append((seq, fact.at, kind.decode(), payload.decode(), link))
        failpoint.hit("journal.before_row")
        self._write(rows)
        self._count, self._hash = seq, link
        failpoint.hit("journal.row_written")
        for fact in facts:
            self._tell_projections(fact)
        failpoint.hit("journal.projected")
        if self._reactors:
            self._pending.extend(facts)
            if not self._draining:
                self._drain()
        return seq

    def _tell_projections(self, fact: Fact) -> None:
        self._projecting = True
        try:
            for projection in self._projections:
                projection(fact)
            self._projecting = False
        finally:
            if self._projecting:
                self._projecting = False
                self._fault = f"a projection failed on {type(fact).__name__} (row {self._count}): the books are half updated; restart"

    def _drain(self) -> None:
        # Facts appended by a reactor wait their turn here instead of recursing: everyone sees all facts in journal order.
        self._draining = True
        try:
            while self._pending:
                fact = self._pending.popleft()
                for reactor in self._reactors:
                    reactor(fact)
            self._draining = False
        finally:
            if self._draining:
                self._draining = False
                self._fault = f"a reactor failed on {type(fact).__name__}: some have not acted on it; restart to reconcile"

    def _write(self, rows: list[_Row]) -> None:
        if self._durable:
            self._insert(rows)
            return
        self._unwritten.extend(rows)
        if len(self._unwritten) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Put on disk what is not there yet; nothing to do for a durable journal. Raises JournalUnwritable; the rows are kept."""
        if self._unwritten:
            self._insert(self._unwritten)
            self._unwritten = []

    def _insert(self, rows: list[_Row]) -> None:
        """All of `rows` or none. On a full disk the reserve is given up and the rows are tried once more."""
        try:
            self._execute(rows)
        except SQLITE_ERRORS as error:
            if code_of(error) not in _FULL or self._reserve is None or not self._reserve.release():
                raise self._refusal(error) from error
            self.low_space = True
            try:
                self._execute(rows)
            except SQLITE_ERRORS as again:
                raise self._refusal(again) from again

    def _execute(self, rows: list[_Row]) -> None:
        if len(rows) == 1:
            self._connection.execute(_INSERT, rows[0])  # outside a transaction a statement is its own: begun, written, synced
            return
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(_INSERT, rows)
            failpoint.hit("journal.uncommitted")
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def regain_space(self) -> bool:
        """Take the reserve again if there is plenty of space by now; True if entries may be journaled again. Cheap while nothing is low."""
        if not self.low_space or self._fault or self._reserve is None or not self._reserve.regain():
            return False
        self.low_space = False
        return True

    def _refusal(self, error: Exception) -> JournalUnwritable | JournalCorrupt:
        primary = primary_code_of(error)
        if primary in _LOCKED:
            return JournalBusy(f"{self._path}: another program holds the journal locked ({error}). Close it; nothing was written.")
        if code_of(error) in _FULL:
            self.low_space = True
            return JournalUnwritable(f"{self._path}: the disk is full ({error}). Free some space; nothing was written.")
        if primary == sqlite3.SQLITE_CONSTRAINT:
            self._fault = f"{self._path}: another program wrote to the journal ({error}); stop it and restart"
            return JournalCorrupt(self._fault)
        if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            self._fault = f"{self._path}: {error} at row {self._count + 1}. {REMEDY}"
            return JournalCorrupt(self._fault)
        # After a failed sync nobody knows what the disk holds: no row may follow until a restart has read it back.
        self._fault = f"{self._path}: {error}. Check the disk and the rights of the state folder, then restart."
        return JournalUnwritable(self._fault)

    # -- reading ---------------------------------------------------------------------------------------------------------

    @property
    def head(self) -> str:
        """Hash of the last row, hexadecimal: two journals with one head hold the same facts."""
        return self._hash.hex()

    @property
    def count(self) -> int:
        """Number of facts, which is also the last sequence number."""
        return self._count

    @property
    def latest_at(self) -> int | None:
        """The latest time any fact is about, UTC ms; None without facts. (Facts told late may stand behind newer ones.)"""
        self.flush()
        latest: int | None = self._read("SELECT max(at) FROM facts")[0][0]
        return latest

    def facts(self, since: int = 0) -> Iterator[tuple[int, Fact]]:
        """(sequence number, fact) of every row after `since`, oldest first, the chain verified on the way. Raises JournalCorrupt."""
        for page in self._pages(since):
            for seq, _, kind, payload, _ in page:
                yield seq, codec.decode(kind, payload, seq)

    def at(self, at: int, kinds: Sequence[type[Fact]]) -> list[Fact]:
        """Facts of some kinds about one moment, UTC ms. Reads the whole file: for questions that are seldom asked."""
        return self._of(kinds, "at = ? AND ", (at,))

    def of(self, *kinds: type[Fact]) -> list[Fact]:
        """Facts of some kinds, oldest first. Reads the whole file, and does not check the chain: `replay` and `verify` do."""
        return self._of(kinds, "", ())

    def _of(self, kinds: Sequence[type[Fact]], condition: str, parameters: tuple[int, ...]) -> list[Fact]:
        self.flush()
        names = [kind.__name__ for kind in kinds]
        statement = f"SELECT seq, kind, payload FROM facts WHERE {condition}kind IN ({', '.join('?' * len(names))}) ORDER BY seq"
        return [codec.decode(kind, payload, seq) for seq, kind, payload in self._read(statement, (*parameters, *names))]

    def replay(self, also: Sequence[Receiver] = ()) -> int:
        """Rebuild: feed every fact to every projection, verifying the chain, and return how many. Once, before the first append.

        `also`: whoever wants to see the past on the same pass and nothing of what comes later.
        Raises JournalCorrupt on a break; the projections are then unusable.
        """
        if self._fed and self._count:
            raise RuntimeError("the projections already hold these facts")
        self._fed = True
        self._fault = "replay failed: the books are incomplete; restore the journal, then restart"
        rows = self.rebuild((*self._projections, *also))
        self._fault = _READ_ONLY if self._read_only else ""
        return rows

    def rebuild(self, projections: Iterable[Receiver]) -> int:
        """Feed every fact to fresh `projections` that are not registered here, to compare them with the live ones."""
        receivers = list(projections)
        self._projecting = True
        try:
            for page in self._pages(0):
                for seq, _, kind, payload, _ in page:
                    fact = codec.decode(kind, payload, seq)
                    for projection in receivers:
                        projection(fact)
        finally:
            self._projecting = False
        return self._count

    def verify(self) -> int:
        """Check every row, the chain and the last hash; return the number of rows. Raises JournalCorrupt naming the first bad row."""
        for _ in self.facts():
            pass
        return self._count

    def _pages(self, since: int) -> Iterator[list[_Stored]]:
        """Every row after `since`, a page at a time, each page checked against the chain before it is handed out."""
        self.flush()
        seq, until = max(since, 0), self._count
        if seq > until:
            return
        link = self._hash_at(seq)
        while seq < until:
            rows = self._read(_SELECT, (seq, min(_PAGE, until - seq)), seq + 1)
            if not rows:
                raise self._corrupt(seq + 1, "the row is missing")
            for found, at, kind, payload, stored in rows:
                seq += 1
                if found != seq:
                    raise self._corrupt(seq, "the row is missing")
                try:
                    link = _link(link, seq, at, kind, payload)
                except TypeError:
                    raise self._corrupt(seq, "the row is malformed") from None
                if link != stored:
                    raise self._corrupt(seq, "the hash chain is broken: this row was changed, or one before it removed")
            yield rows
        if until == self._count and link != self._hash:
            raise self._corrupt(seq, "the last row is not the one that was written last")

    def _hash_at(self, seq: int) -> bytes:
        if seq == 0:
            return GENESIS
        rows = self._read("SELECT hash FROM facts WHERE seq = ?", (seq,), seq + 1)
        if not rows or type(rows[0][0]) is not bytes:
            raise self._corrupt(seq, "the row is missing")
        link: bytes = rows[0][0]
        return link

    def _read(self, statement: str, parameters: tuple[int | str, ...] = (), row: int = 0) -> list[Any]:
        try:
            return self._connection.execute(statement, parameters).fetchall()
        except SQLITE_ERRORS as error:
            if primary_code_of(error) in _LOCKED:
                raise JournalBusy(f"{self._path}: another program holds the journal locked ({error}). Close it.") from error
            raise self._corrupt(row, str(error)) from error

    def _corrupt(self, row: int, what: str) -> JournalCorrupt:
        return JournalCorrupt(f"{self._path or 'journal'}: row {row}: {what}. {REMEDY}")

    # -- the file ----------------------------------------------------------------------------------------------------------

    def _connect(self, busy_timeout_s: float) -> sqlite3.Connection:
        if self._path is None:
            connection = connect(":memory:", busy_timeout_s)
            connection.executescript(SCHEMA)
            return connection
        try:
            connection = connect(f"{self._path.resolve().as_uri()}?mode={'ro' if self._read_only else 'rw'}", busy_timeout_s)
        except SQLITE_ERRORS as error:
            raise JournalUnwritable(f"{self._path}: {error}. Check the rights of the state folder.") from error
        try:
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA cell_size_check=ON")
            connection.execute(f"PRAGMA cache_size={CACHE}")
            connection.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'OFF'}")
        except SQLITE_ERRORS as error:
            connection.close()
            if primary_code_of(error) in _LOCKED:
                raise JournalBusy(f"{self._path}: another program holds the journal locked ({error}). Close it.") from error
            raise self._corrupt(0, str(error)) from error
        return connection

    def _look_at_head(self) -> tuple[int, bytes]:
        """(count, last hash) if schema and head are intact; the rows in between are `replay`'s business."""
        try:
            self._bring_up_to_date()
            if self._read(OBJECTS) != intact_objects():
                raise self._corrupt(0, "its tables or triggers were changed")
            heads = self._read("SELECT h.seq, h.hash, f.seq, f.hash FROM head h LEFT JOIN facts f ON f.seq = (SELECT max(seq) FROM facts)")
            if len(heads) != 1:
                raise self._corrupt(0, "its record of the last row is gone")
            count, link, last, last_link = heads[0]
            if type(count) is not int or type(link) is not bytes or (last or 0) != count or (last_link or GENESIS) != link:
                raise self._corrupt(count if type(count) is int else 0, "the last row is not the one that was written last")
        except (JournalBusy, JournalCorrupt, JournalUnwritable, JournalVersion):
            self._connection.close()
            raise
        return count, link

    def _bring_up_to_date(self) -> None:
        """A journal of an older schema becomes one of the present: on disk, with a copy of the old beside it, or, if it is only looked at,
        in memory."""
        rows = self._read("SELECT value FROM meta WHERE key = 'schema_version'")
        value = rows[0][0] if len(rows) == 1 else b""
        if not isinstance(value, bytes) or not value.isdigit() or str(int(value)).encode() != value:
            raise self._corrupt(0, "its schema's number is gone")
        found = int(value)
        try:
            if not migrations.check(found, SCHEMA_VERSION):
                return
            if self._read_only:
                copy = connect(":memory:", 0.0)
                self._connection.backup(copy)
                self._connection.close()
                self._connection = copy
                migrations.bring_up(copy, found, SCHEMA_VERSION)
            else:
                migrations.bring_up(self._connection, found, SCHEMA_VERSION, before=lambda: self._keep_old(found))
        except JournalVersion as error:
            raise JournalVersion(f"{self._path}: {error}. Nothing was changed.") from None
        except SQLITE_ERRORS as error:
            raise JournalUnwritable(f"{self._path}: cannot be brought from schema {found} to {SCHEMA_VERSION} ({error}). Nothing was "
                                    "changed.") from error

    def _keep_old(self, found: int) -> None:
        """The file as it was, beside it; one that is there already was made by an attempt before."""
        assert self._path is not None
        target = self._path.with_name(f"{self._path.name}.schema-{found}")
        if not target.exists():
            self._copy_to(target)

    def backup(self, target: Path) -> int:
        """A consistent, verified copy in a new file `target`, while the journal stays in use. Returns its number of rows.

        Raises FileExistsError rather than overwrite an older backup, JournalUnwritable if it cannot be written.
        """
        if target.exists():
            raise FileExistsError(f"{target} exists already")
        self.flush()
        return self._copy_to(target)

    def _copy_to(self, target: Path) -> int:
        new = target.with_name(target.name + ".new")
        new.unlink(missing_ok=True)
        try:
            copy = sqlite3.connect(new, isolation_level=None)
            try:
                self._connection.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")  # one self-contained file until it is opened again
            finally:
                copy.close()
            new.chmod(0o600)
            with Journal(new, read_only=True) as check:
                rows = check.verify()
            new.replace(target)
            sync_folder(target.parent)
        except (*SQLITE_ERRORS, OSError) as error:
            raise JournalUnwritable(f"{target}: cannot write the backup ({error})") from error
        return rows

    def close(self) -> None:
        """Flush and close. Safe to call twice."""
        try:
            if not self._closed:
                self.flush()
        finally:
            self._closed = True
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
