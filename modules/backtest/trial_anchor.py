"""The trial registry as the daemon looks at it: read-only, without NumPy, and held against what the journal remembers of it.

A registry is a chain, so nobody can change it in the middle; but a file can be deleted, cut short or exchanged for a fresh one, and then K
and n would begin again at nothing. The journal therefore remembers how long each registry was and its last hash (TrialsAnchored): a
registry that has not got exactly that entry is not the one that was counted in. Owns nothing; raises StoreUnreadable.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modules.domain.errors import StoreUnreadable
from modules.domain.instrument import AssetClass

GENESIS: Final = "0" * 64
CERTIFICATE: Final = "certificate"
"""Kind of entry that says which certificate an approval became; its key is the certificate's digest."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A registry's length and the hash of its last entry."""

    entries: int = 0
    head: str = GENESIS


def file_of(folder: Path, asset_class: AssetClass) -> Path:
    """Where a class's trials are counted."""
    return folder / f"trials-{asset_class.value.lower()}.db"


def head_of(path: Path) -> Anchor:
    """How far a registry has come; nothing of a file that is not there."""
    with _reading(path) as database:
        row = database.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone() if database is not None else None
    return Anchor(int(row[0]), str(row[1])) if row is not None else Anchor()


def fault(path: Path, known: Anchor) -> str:
    """Why this cannot be the registry that once ended with `known`; "" if it can."""
    if known.entries == 0:
        return ""
    with _reading(path) as database:
        row = database.execute("SELECT hash FROM entries WHERE seq = ?", (known.entries,)).fetchone() if database is not None else None
    if row is not None and row[0] == known.head:
        return ""
    how = "is gone" if not path.exists() else f"has no entry {known.entries}" if row is None else f"has another entry {known.entries}"
    return f"the trial registry {path.name} {how}, the journal knows one: trials were lost. Restore it from a backup"


def issued(path: Path, digest: str) -> bool:
    """Whether the registry says that this very certificate came of an approval counted in it."""
    with _reading(path) as database:
        return database is not None and database.execute(
            "SELECT 1 FROM entries WHERE kind = ? AND key = ?", (CERTIFICATE, digest)).fetchone() is not None


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection | None]:
    """None where there is no file."""
    if not path.exists():
        yield None
        return
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=2.0)) as database:
            yield database
    except sqlite3.Error as error:
        raise StoreUnreadable(f"{path}: {error}") from error


class Registries:
    """Every class's registry beside what the journal remembers of it. `look` when the folder may have changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._marks: dict[AssetClass, tuple[tuple[int, int] | None, ...]] = {}
        self._known: dict[AssetClass, Anchor] = {}
        self._present: dict[AssetClass, Anchor] = {}
        self.faults: dict[AssetClass, str] = {}
        """Why a class's registry is not the one that was counted in."""

    def remember(self, asset_class: AssetClass, anchor: Anchor) -> None:
        """What the journal says."""
        if anchor.entries >= self._known.get(asset_class, Anchor()).entries:
            self._known[asset_class] = anchor
            self._marks.pop(asset_class, None)

    def look(self) -> bool:
        """Read what changed; whether a fault came or went."""
        before = dict(self.faults)
        for asset_class in AssetClass:
            path = file_of(self._folder, asset_class)
            marks = tuple(map(_mark, (path, path.with_name(f"{path.name}-wal"))))
            if marks == self._marks.get(asset_class):
                continue
            try:
                self._present[asset_class] = head_of(path)
                found = fault(path, self._known.get(asset_class, Anchor()))
            except StoreUnreadable as error:  # looked at again next time: somebody may be in the middle of writing it
                found = str(error)
            else:
                self._marks[asset_class] = marks
            self.faults.pop(asset_class, None)
            if found:
                self.faults[asset_class] = found
        return self.faults != before

    def grown(self) -> list[tuple[AssetClass, Anchor]]:
        """Those that are longer than the journal knows."""
        return [(asset_class, present) for asset_class, present in self._present.items()
                if asset_class not in self.faults and present.entries > self._known.get(asset_class, Anchor()).entries]

    def refuses(self, asset_class: AssetClass, digest: str) -> str:
        """Why a certificate of this digest was not earned here; "" if it was."""
        path = file_of(self._folder, asset_class)
        try:
            if issued(path, digest):
                return self.faults.get(asset_class, "")
        except StoreUnreadable as error:
            return str(error)
        return f"the trial registry {path.name} knows of no approval that became this certificate; it permits nothing"


def _mark(path: Path) -> tuple[int, int] | None:
    """When a file was last written, and its size; None = it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
