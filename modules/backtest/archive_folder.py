"""A folder of recorded series that grows and can be killed at any instant: whole files only, one writer, nothing asked for twice.

What is fetched goes page by page into a part file that replay does not see; a line after each page says which span it covers. Whatever
comes after the last such line was cut off and is fetched again. Then part and file become one new file in one rename. Refuses a second
writer and a symbol that another venue already has here.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from modules.backtest.export import instrument_row
from modules.backtest.recorded_files import I64, Table
from modules.backtest.recorded_names import Market, NotOurs, name_of, timeframe_of
from modules.backtest.recorded_specs import read_instruments
from modules.domain.errors import ConfigurationError, DataError, StateLocked
from modules.domain.instrument import AssetClass, Instrument
from modules.store.lock import StateFolder
from modules.venues.archive import COLUMNS, Kind, Row

WORKSHOP: Final = ".download"
"""Part files, and what was asked for; replay looks at file names and sees none of ours there."""
MARK: Final = "#"
INSTRUMENTS: Final = "instruments.json"
Span = tuple[int, int]
"""Since, until: UTC ms, until exclusive."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What one file holds now."""

    rows: int
    fresh: int
    """Rows that were not there before."""
    differing: int
    """Rows told again with other numbers; the first telling stays."""
    first: int | None
    last: int | None


def united(spans: Iterable[Span]) -> list[Span]:
    """The same time, each instant once, in order."""
    found: list[Span] = []
    for since, until in sorted(span for span in spans if span[0] < span[1]):
        if found and since <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], until)
        else:
            found.append((since, until))
    return found


def missing(wanted: Span, have: Iterable[Span]) -> list[Span]:
    """The parts of `wanted` that `have` does not cover, in order."""
    found: list[Span] = []
    at, until = wanted
    for first, last in united(have):
        if last <= at or first >= until:
            continue
        if first > at:
            found.append((at, first))
        at = last
    if at < until:
        found.append((at, until))
    return found


def line_of(row: Row) -> str:
    """Numbers that read back to the last bit; unknown is empty."""
    return ",".join("" if value != value else repr(value) for value in row) + "\n"


class ArchiveFolder:
    """The folder `path` (made if absent), held under a lock until `close`. Raises StateLocked and ConfigurationError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError([f"{path}: {error.strerror}: name a folder that can be written to"]) from None
        try:
            self._lock = StateFolder(path / WORKSHOP)
        except StateLocked:
            owner = (path / WORKSHOP / "lock").read_text(encoding="ascii", errors="replace").strip()
            raise StateLocked(f"{path}: another download or import is writing here (process {owner}): wait for it, or use another "
                              "folder") from None

    def series(self, venue: str, kind: Kind, market: Instrument | Market, interval_ms: int) -> SeriesFile:
        """The file of one series. Raises ConfigurationError where replay could not tell by its name what it holds."""
        ending = {Kind.BARS: timeframe_of(interval_ms), Kind.MARK: f"{timeframe_of(interval_ms)}_mark", Kind.FUNDING: "funding",
                  Kind.FINANCING: "financing"}[kind]
        perpetual = "-PERP" if market.asset_class is AssetClass.PERP else ""
        for between in ("", "-"):
            named = name_of(self.path / f"{venue}_{market.base}{between}{market.quote}{perpetual}_{ending}.csv")
            if not isinstance(named, NotOurs) and named.market is not None and (
                    (named.market.symbol, named.market.asset_class, named.kind) == (market.symbol, market.asset_class, kind.value)):
                return SeriesFile(self.path, named.path.name, COLUMNS[kind])
        reason = named.reason if isinstance(named, NotOurs) else "a file's name cannot say what it is"
        raise ConfigurationError([f"{market.symbol}: cannot be kept for replay: {reason}"])

    def check_venue(self, venue: str, instruments: Sequence[Instrument]) -> None:
        """Raises ConfigurationError if a symbol here has another venue's rules: one folder has one set of rules per symbol."""
        listed = {one.symbol: one.venue for one in self._listed()}
        if faults := [f"{self.path}: {one.symbol} is kept here with the rules of {listed[one.symbol]}; use another folder for {venue}"
                      for one in instruments if listed.get(one.symbol, one.venue) != one.venue]:
            raise ConfigurationError(faults)

    def list_instruments(self, instruments: Sequence[Instrument]) -> None:
        """Add their rules to instruments.json; newer ones replace older."""
        rules = {one.symbol: one for one in (*self._listed(), *instruments)}
        write_whole(self.path / INSTRUMENTS, json.dumps([instrument_row(one) for one in rules.values()], indent=1) + "\n")

    def _listed(self) -> list[Instrument]:
        path = self.path / INSTRUMENTS
        return read_instruments(path) if path.is_file() else []

    def close(self) -> None:
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class SeriesFile:
    """One CSV file `name` of `folder`. `add` is on disk when it returns; replay sees it after `merge`."""

    def __init__(self, folder: Path, name: str, columns: Sequence[str]) -> None:
        self.path = folder / name
        self._columns = columns
        self._part = folder / WORKSHOP / f"{name}.part"
        self._notes = folder / WORKSHOP / f"{name}.json"
        self._open: int | None = None

    def recover(self) -> Merged | None:
        """Take in what an interrupted run left; None if there was nothing."""
        return self.merge() if self._part.exists() else None

    def covered(self) -> list[Span]:
        """What was asked for already. Nothing, if the file was changed or deleted since: then all of it is asked for again."""
        try:
            notes = json.loads(self._notes.read_bytes())
            same = notes["bytes"] == (self.path.stat().st_size if self.path.exists() else 0)
            return united((int(since), int(until)) for since, until in notes["asked"]) if same else []
        except (OSError, ValueError, TypeError, LookupError):
            return []

    def add(self, rows: Sequence[Row], span: Span, *, sync: bool = True) -> None:
        """Put one page on disk, and that it is all there is of `span`. Rows of later pages must be later. `sync` False: certain only after
        `merge`. Raises ConfigurationError."""
        content = "".join(map(line_of, rows)) + f"{MARK}{span[0]},{span[1]}\n"
        try:
            if self._open is None:
                self._open = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            left = memoryview(content.encode())
            while left:
                left = left[os.write(self._open, left):]
            if sync:
                os.fsync(self._open)
        except OSError as error:
            raise ConfigurationError([f"{self._part}: {error.strerror}; what is there is kept, free some space and run it again"]) from None

    def merge(self) -> Merged:
        """Part and file as one new file, in one rename; then the part is gone. Killed in between, `recover` does it again."""
        if self._open is not None:
            os.close(self._open)
            self._open = None
        if not self._part.exists():
            times = self.times()
            return Merged(len(times), 0, 0, int(times[0]) if len(times) else None, int(times[-1]) if len(times) else None)
        self._check_header()
        asked = [*self.covered(), *_spans(self._part)]
        tally = _Tally()
        fresh = self.path.with_name(f".{self.path.name}.new")
        try:
            with fresh.open("w", encoding="utf-8", newline="") as out:
                for line in tally.joined(_rows(self.path), _rows(self._part, committed=True), self.path.name):
                    if tally.rows == 1:
                        out.write(",".join(self._columns) + "\n")
                    out.write(line)
                out.flush()
                os.fsync(out.fileno())
            if tally.fresh:
                fresh.replace(self.path)
            else:
                fresh.unlink()
            self._note(asked)
            self._part.unlink()
        except OSError as error:
            raise ConfigurationError([f"{self.path}: {error.strerror}; nothing is lost, free some space and run it again"]) from None
        return Merged(tally.rows, tally.fresh, tally.differing, tally.first, tally.last)

    def _note(self, asked: Iterable[Span]) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        write_whole(self._notes, json.dumps({"bytes": size, "asked": united(asked)}))

    def times(self) -> I64:
        """The time of every row, as replay will see them."""
        return self.numbers(("ts",))["ts"]

    def numbers(self, columns: Sequence[str] | None = None) -> Table:
        """Its columns (all of them, unless named): `ts` int64, the others float64. Raises DataError if it is none of ours."""
        import pandas as pd

        wanted = list(columns or self._columns)
        self._check_header()
        if not self.path.exists():
            return {name: np.zeros(0, dtype=np.int64 if name == "ts" else np.float64) for name in wanted}
        try:
            frame = pd.read_csv(self.path, usecols=wanted, dtype={name: "int64" if name == "ts" else "float64" for name in wanted})
        except (ValueError, pd.errors.ParserError) as error:
            raise DataError([f"{self.path.name}: cannot be read ({error}); move it away, and it is made again"]) from None
        return {name: frame[name].to_numpy() for name in wanted}

    def _check_header(self) -> None:
        if self.path.exists():
            with self.path.open(encoding="utf-8", errors="replace") as handle:
                head = handle.readline().strip()
            if head != (wanted := ",".join(self._columns)):
                raise DataError([f"{self.path.name}: row 1: {head[:60]!r} is not the first line of a file of ours ({wanted}); "
                                 "move it away, or use another folder"])


class _Tally:
    """Counts what a merge did."""

    def __init__(self) -> None:
        self.rows = self.fresh = self.differing = 0
        self.first: int | None = None
        self.last: int | None = None

    def joined(self, kept: Iterator[tuple[int, str]], new: Iterator[tuple[int, str]], name: str) -> Iterator[str]:
        """Both in order of time; what is kept already stays as it is."""
        old, add = next(kept, None), next(new, None)
        while old is not None or add is not None:
            if add is None or (old is not None and old[0] < add[0]):
                assert old is not None
                line, old = old, next(kept, None)
            elif old is None or add[0] < old[0]:
                line, add = add, next(new, None)
                if self.last is not None and line[0] == self.last:
                    continue
                self.fresh += 1
            else:
                self.differing += old[1] != add[1]
                add = next(new, None)
                continue
            if self.last is not None and line[0] <= self.last:
                raise DataError([f"{name}: row {self.rows + 1}: time {line[0]} does not come after {self.last}; sort the rows by ts"])
            self.rows += 1
            self.first, self.last = line[0] if self.first is None else self.first, line[0]
            yield line[1]


def _rows(path: Path, *, committed: bool = False) -> Iterator[tuple[int, str]]:
    """Time and text of each row. `committed`: only what comes before the last mark."""
    if not path.exists():
        return
    end = _committed(path) if committed else math.inf
    with path.open(encoding="utf-8", newline="") as handle:
        place = 0
        for number, line in enumerate(handle, 1):
            place += len(line)
            if place > end:
                return
            if line.startswith((MARK, "ts,")):
                continue
            try:
                at = int(line.partition(",")[0])
            except ValueError:
                raise DataError([f"{path.name}: row {number}: {line[:40]!r} does not begin with a time in UTC ms; is it one of ours? "
                                 "Move it away"]) from None
            yield at, line if line.endswith("\n") else line + "\n"


def _committed(path: Path) -> int:
    """How many bytes of a part file are certain: up to the last complete mark."""
    certain = place = 0
    with path.open("rb") as handle:
        for line in handle:
            place += len(line)
            if line.startswith(MARK.encode()) and line.endswith(b"\n"):
                certain = place
    return certain


def _spans(path: Path) -> Iterator[Span]:
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as handle:
            for line in handle:
                if line.startswith(MARK) and line.endswith("\n"):
                    since, _, until = line[1:].partition(",")
                    yield int(since), int(until)


def write_whole(path: Path, content: str) -> None:
    """The new content or the old, never a part of either."""
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w", encoding="utf-8") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    fresh.replace(path)

