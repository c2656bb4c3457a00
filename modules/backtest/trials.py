"""The trial registry: every parameter set ever tried, per idea. Append-only, hash-chained, shared by concurrent processes.

Owns what K (trials) and n (judged submissions) are; nobody resets them. An idea is recognized under another name, layout or parameters by
the likeness of its code, and under other code by the likeness of its daily results on the same basket. A trial is registered before its
results are looked at, once per (code, parameters, data): an interrupted validation neither loses nor doubles it.
Refuses a file whose chain is broken (StoreUnreadable).
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from modules.backtest.ideas import likeness
from modules.backtest.trial_anchor import CERTIFICATE, GENESIS, Anchor
from modules.domain.canonical import digest
from modules.domain.errors import StoreUnreadable

Floats = NDArray[np.float64]
_BUSY_S: Final = 60.0
_OVERLAP_DAYS: Final = 60
"""Fewer common days than this make no likeness."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, idea TEXT NOT NULL, basket TEXT NOT NULL, subject TEXT NOT NULL,
    body TEXT NOT NULL, days BLOB, hash TEXT NOT NULL, UNIQUE (kind, key));
CREATE INDEX IF NOT EXISTS entries_idea ON entries (kind, idea);
CREATE TRIGGER IF NOT EXISTS entries_no_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'the trial registry is append-only'); END;
CREATE TRIGGER IF NOT EXISTS entries_no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'the trial registry is append-only'); END;
"""
IDEA, TRIAL, RESULT, LINK, SUBMISSION, VERDICT = "idea", "trial", "result", "link", "submission", "verdict"


@dataclass(frozen=True, slots=True)
class Counted:
    """Where an idea stands."""

    idea: str
    """Name of the idea: that of its first fingerprint."""
    trials: int
    """K: different (code, parameters, basket) ever tried, over all that was recognized as this idea."""
    submissions: int
    """n: judged so far."""
    new: int = 0
    """Trials that this very call added."""


class TrialRegistry:
    """One SQLite file (WAL, synchronous FULL). `path` None = in memory, for tests and what counts for nothing.

    `same_code`, `same_results`: from which share of equal statements, which correlation of daily results two things are the same idea.
    """

    def __init__(self, path: Path | None, *, same_code: float, same_results: float) -> None:
        self._path = path
        self._same_code, self._same_results = same_code, same_results
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(path if path is not None else ":memory:", isolation_level=None, timeout=_BUSY_S)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise StoreUnreadable(f"{path}: {error}. Restore it from a backup: the registry is never begun anew by itself.") from error

    def close(self) -> None:
        self._database.close()

    # -- counting --------------------------------------------------------------------------------------------------

    def register(self, *, strategy: str, code: str, fingerprint: str, basket: str, data: str, sets: Sequence[Mapping[str, float]],
                 at: int = 0) -> Counted:
        """Count these trials, before anything of their results is known. Doing it again changes nothing.

        `code`: digest of the exact code; `fingerprint`: `ideas.fingerprint`; `basket`: instruments, bar length and first day as text (a
        longer history of the same basket is the same trial, another choice of instruments is another); `data`: digest of the arrays;
        `at` UTC ms.
        """
        with self._transaction():
            name = self._recognize(fingerprint, strategy)
            new = 0
            for params in sets:
                key = digest({"code": code, "params": dict(params), "data": data, "basket": basket})
                subject = digest({"code": code, "params": dict(params), "basket": basket})
                new += self._append(TRIAL, key, name, basket, {"strategy": strategy, "params": dict(params), "at": at}, subject)
            return self._counted(name, new)

    def remember(self, idea: str, *, code: str, basket: str, data: str, first_day: int, daily: Floats, at: int = 0) -> Counted:
        """Keep the pooled daily results [days, K] of one registered grid, and recognize the idea by them. Once per (code, data, values)."""
        columns = np.ascontiguousarray(daily if daily.ndim == 2 else daily[:, None], dtype=np.float32)
        packed = zlib.compress(columns.tobytes(), 1)
        key = digest({"code": code, "data": data, "basket": basket, "values": hashlib.sha256(columns.tobytes()).hexdigest()})
        with self._transaction():
            name = self._root(idea)
            for other, begin, theirs in self._results(basket):
                if self._root(other) != self._root(name) and _alike(first_day, columns, begin, theirs) >= self._same_results:
                    self._link(other, name, "results")
            about = {"data": data, "first_day": first_day, "shape": list(columns.shape), "at": at}
            self._append(RESULT, key, name, basket, about, days=packed)
            return self._counted(self._root(name), 0)

    def submit(self, idea: str, run: str, at: int = 0) -> int:
        """Count one submission to judgment and return n. Called again with the same `run` (a resumed validation, the scheduled revalidation
        of an approval under the run that earned it) it returns that submission's number; what was rejected and is judged again counts
        again, however little changed."""
        with self._transaction():
            name = self._root(idea)
            rejected = sum(verdict == "REJECTED" for verdict in self._verdicts(run))
            key = f"{run} again {rejected}" if rejected else run
            self._append(SUBMISSION, key, name, "", {"at": at})
            return self._keys(SUBMISSION, name).index(key) + 1

    def judged(self, idea: str, run: str, verdict: str, at: int = 0) -> None:
        """Note what came of a submission: a rejected one counts anew when it is judged again."""
        with self._transaction():
            number = len(self._verdicts(run))
            self._append(VERDICT, f"{run} {number}", self._root(idea), "", {"verdict": verdict, "at": at, "run": run})

    @property
    def anchor(self) -> Anchor:
        """How far the registry has come: a certificate says where it was counted, the journal remembers it."""
        row = self._database.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
        return Anchor(int(row[0]), str(row[1])) if row is not None else Anchor()

    def issued(self, strategy: str, digest: str, at: int = 0) -> None:
        """Note which certificate an approval became: one that is not noted here permits nothing."""
        with self._transaction():
            self._append(CERTIFICATE, digest, "", "", {"strategy": strategy, "at": at})

    def _verdicts(self, run: str) -> list[str]:
        rows = self._database.execute("SELECT body FROM entries WHERE kind = ? AND key >= ? AND key < ?", (VERDICT, f"{run} ", f"{run}!"))
        return [str(json.loads(body)["verdict"]) for body, in rows.fetchall()]

    def count(self, idea: str) -> Counted:
        with self._transaction():
            return self._counted(self._root(idea), 0)

    def columns(self, idea: str, *, basket: str, data: str) -> tuple[int, Floats] | None:
        """(first day, [days, all trials]) of every remembered grid of this idea on exactly this data, for the max-t test over all of
        them, equal columns once; None if nothing was remembered."""
        with self._transaction():
            family = set(self._family(self._root(idea)))
            found = [(begin, theirs) for other, begin, theirs in self._results(basket, data) if other in family]
        if not found:
            return None
        first = min(begin for begin, _ in found)
        last = max(begin + len(theirs) for begin, theirs in found)
        table = np.zeros((last - first, sum(theirs.shape[1] for _, theirs in found)))
        column = 0
        for begin, theirs in found:
            table[begin - first : begin - first + len(theirs), column : column + theirs.shape[1]] = theirs
            column += theirs.shape[1]
        _, kept = np.unique(table, axis=1, return_index=True)
        return first, np.ascontiguousarray(table[:, np.sort(kept)])

    def verify(self) -> int:
        """Number of entries of an intact chain. Raises StoreUnreadable at the first row that was changed."""
        before, count = GENESIS, 0
        for seq, kind, key, idea, basket, subject, body, days, found in self._database.execute(
                "SELECT seq, kind, key, idea, basket, subject, body, days, hash FROM entries ORDER BY seq"):
            count += 1
            if seq != count or found != _hash(before, kind, key, idea, basket, subject, body, days):
                raise StoreUnreadable(f"{self._path}: entry {count} was changed or is missing; restore the trial registry from a backup")
            before = found
        return count

    # -- inside one transaction ------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            with self._database:  # commits, or rolls back what an error or an interrupt left half done
                yield
        except sqlite3.Error as error:
            raise StoreUnreadable(f"{self._path}: {error}") from error

    def _append(self, kind: str, key: str, idea: str, basket: str, body: Mapping[str, Any], subject: str = "",
                days: bytes | None = None) -> int:
        """1 if the entry is new, 0 if it was there."""
        if self._database.execute("SELECT 1 FROM entries WHERE kind = ? AND key = ?", (kind, key)).fetchone():
            return 0
        last = self._database.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone() or (0, GENESIS)
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        row = (kind, key, idea, basket, subject, text, days)
        self._database.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (last[0] + 1, *row, _hash(last[1], *row)))
        return 1

    def _recognize(self, fingerprint: str, strategy: str) -> str:
        """The idea this code belongs to, a new one if it is like none. The likest earlier code decides."""
        key = hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
        known = self._database.execute("SELECT key, body FROM entries WHERE kind = ? ORDER BY seq", (IDEA,)).fetchall()
        if any(key == other for other, _ in known):
            return self._root(key)
        like = [(likeness(fingerprint, json.loads(body)["fingerprint"]), other) for other, body in known]
        self._append(IDEA, key, key, "", {"strategy": strategy, "fingerprint": fingerprint})
        for share, other in like:  # one idea that resembles two makes them one
            if share >= self._same_code and self._root(other) != self._root(key):
                self._link(other, key, "code")
        return self._root(key)

    def _link(self, one: str, other: str, by: str) -> None:
        roots = self._root(one), self._root(other)
        self._append(LINK, " ".join(roots), roots[0], "", {"by": by})

    def _links(self) -> dict[str, str]:
        """Idea -> the earlier one it turned out to be."""
        rows = self._database.execute("SELECT key FROM entries WHERE kind = ? ORDER BY seq", (LINK,)).fetchall()
        order = {key: number for number, (key,) in enumerate(
            self._database.execute("SELECT key FROM entries WHERE kind = ? ORDER BY seq", (IDEA,)).fetchall())}
        parents: dict[str, str] = {}
        for (key,) in rows:
            one, other = (_last(parents, name) for name in key.split())
            if one != other:
                early, late = sorted((one, other), key=lambda name: order.get(name, -1))
                parents[late] = early
        return parents

    def _root(self, idea: str) -> str:
        return _last(self._links(), idea)

    def _family(self, root: str) -> list[str]:
        parents = self._links()
        names = [key for (key,) in self._database.execute("SELECT key FROM entries WHERE kind = ?", (IDEA,)).fetchall()]
        return [name for name in {*names, root} if _last(parents, name) == root]

    def _keys(self, kind: str, root: str) -> list[str]:
        family = set(self._family(root))
        rows = self._database.execute("SELECT key, idea FROM entries WHERE kind = ? ORDER BY seq", (kind,)).fetchall()
        return [key for key, idea in rows if idea in family]

    def _counted(self, root: str, new: int) -> Counted:
        family = set(self._family(root))
        rows = self._database.execute("SELECT DISTINCT idea, subject FROM entries WHERE kind = ?", (TRIAL,)).fetchall()
        subjects = {subject for idea, subject in rows if idea in family}
        return Counted(root, len(subjects), len(self._keys(SUBMISSION, root)), new)

    def _results(self, basket: str, data: str | None = None) -> Iterator[tuple[str, int, Floats]]:
        rows = self._database.execute("SELECT idea, body, days FROM entries WHERE kind = ? AND basket = ? ORDER BY seq", (RESULT, basket))
        for idea, body, packed in rows.fetchall():
            about = json.loads(body)
            if data is None or about["data"] == data:
                values = np.frombuffer(zlib.decompress(packed), dtype=np.float32).reshape(about["shape"])
                yield idea, int(about["first_day"]), values.astype(np.float64)


def _last(parents: Mapping[str, str], name: str) -> str:
    while name in parents:
        name = parents[name]
    return name


def _hash(before: str, kind: str, key: str, idea: str, basket: str, subject: str, body: str, days: bytes | None) -> str:
    blob = "" if days is None else hashlib.sha256(days).hexdigest()
    return hashlib.sha256(json.dumps([before, kind, key, idea, basket, subject, body, blob]).encode()).hexdigest()


def _alike(first: int, ours: NDArray[Any], begin: int, theirs: NDArray[Any]) -> float:
    """The highest correlation between any column of one grid and any of the other over their common days."""
    left, right = max(first, begin), min(first + len(ours), begin + len(theirs))
    if right - left < _OVERLAP_DAYS:
        return -1.0
    one, other = (_standard(np.asarray(table, dtype=np.float64)[left - start : right - start])
                  for start, table in ((first, ours), (begin, theirs)))
    return float(np.max(one.T @ other)) if one.size and other.size else -1.0


def _standard(table: Floats) -> Floats:
    """Columns of length one around their mean, constant ones left out."""
    centered = table - table.mean(axis=0)
    length = np.sqrt(np.sum(centered**2, axis=0))
    moves = length > 1e-12
    result: Floats = centered[:, moves] / length[moves]
    return result
