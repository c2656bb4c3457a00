"""Fetches a venue's past into an ArchiveFolder: what is missing there and nothing else, page by page, each on disk before the next.

A hole at the edge of an answer counts as one only when the venue said so twice. Bans are waited out; a venue that does not answer is
asked again for minutes and then given up, with all that came kept. Invents nothing: what the venue does not tell stays a hole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, TypeVar

from modules.backtest.archive_folder import ArchiveFolder, Merged, SeriesFile, Span, missing
from modules.domain.errors import VenueBusy, VenueError, VenueUnreachable
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.sessions import iso
from modules.runtime.clock import Clock
from modules.venues.archive import Archive, Kind, Page, Row

DAY_MS: Final = 86_400_000
SURE_MS: Final = DAY_MS
"""What is empty and younger than this is asked for again next time: venues fill their history late after an outage."""
PATIENCE_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0, 60.0)
"""Waits between two tries of a question that got no answer; then the series is given up for this run."""
AT_ONCE: Final = 4
"""Series fetched side by side: they share the venue's limiter and fill each other's waits for the wire."""

T = TypeVar("T")
Say = Callable[[str], None]
Advance = Callable[["Job", int], None]


class Job(NamedTuple):
    """One series to fetch: rows at since <= ts < until, UTC ms."""

    instrument: Instrument
    kind: Kind
    interval_ms: int
    since: int
    until: int
    file: SeriesFile


@dataclass(slots=True)
class Fetched:
    """What became of one job."""

    job: Job
    merged: Merged
    refused: int = 0
    """Rows the venue told that cannot be."""
    assumed: bool = False
    """Interest before the first row on record is today's."""
    failed: VenueError | None = None
    """Why it is not complete; running it again goes on from there."""


def plan(folder: ArchiveFolder, archive: Archive, instruments: Sequence[Instrument], interval_ms: int, since: int, until: int,
         kinds: Iterable[Kind]) -> tuple[list[Job], list[str]]:
    """The jobs, and in words what the venue has no history of. Raises ConfigurationError for a symbol that replay could not read."""
    jobs, untold = [], []
    for kind in kinds:
        without = []
        for one in instruments:
            if kind in (Kind.MARK, Kind.FUNDING) and one.asset_class is not AssetClass.PERP:
                continue
            if kind is Kind.FINANCING and one.asset_class is not AssetClass.FOREX:
                continue
            if not archive.tells(kind, one, interval_ms):
                without.append(one.symbol)
                continue
            last = until // interval_ms * interval_ms if kind in (Kind.BARS, Kind.MARK) else until
            first = -(-since // interval_ms) * interval_ms if kind in (Kind.BARS, Kind.MARK) else since
            jobs.append(Job(one, kind, interval_ms, first, max(first, last), folder.series(archive.name, kind, one, interval_ms)))
        if without:
            untold.append(f"{archive.name} tells no {kind.value} history of {', '.join(without)}")
    return jobs, untold


async def fetch(archive: Archive, jobs: Sequence[Job], clock: Clock, *, say: Say, advance: Advance,
                assume_financing: bool = False) -> list[Fetched]:
    """Every job, to its end or to what the venue would not answer; in the order of `jobs`. Canceled, it keeps what came."""
    turn = asyncio.Semaphore(AT_ONCE)
    starts: dict[str, asyncio.Task[int]] = {}

    async def one(job: Job) -> Fetched:
        async with turn:
            return await _Fetch(archive, job, clock, say, advance, starts).run(assume_financing=assume_financing)

    return list(await asyncio.gather(*map(one, jobs)))


async def patiently(question: Callable[[], Awaitable[T]], name: str, clock: Clock, say: Say) -> T:
    """The answer, however long a ban lasts. Raises VenueError where patience ends or asking again cannot help."""
    tries = iter(PATIENCE_S)
    while True:
        try:
            return await question()
        except VenueBusy as busy:
            say(f"{name} wants silence until {iso(busy.until)[:19]}")
            await clock.sleep_until(busy.until + 1)
        except VenueUnreachable as error:
            wait = next(tries, None)
            if wait is None:
                raise
            say(f"{error}; again in {wait:.0f} s")
            await clock.sleep_until(clock.now() + round(wait * 1_000))


class _Fetch:
    """One job at work."""

    def __init__(self, archive: Archive, job: Job, clock: Clock, say: Say, advance: Advance, starts: dict[str, asyncio.Task[int]]) -> None:
        self._archive, self._job, self._clock, self._say, self._advance = archive, job, clock, say, advance
        self._starts = starts
        self._refused = 0
        self._begins: int | None = None
        """Where the venue said that its rows begin, when it had none of a span."""

    async def run(self, *, assume_financing: bool) -> Fetched:
        job = self._job
        recovered = job.file.recover()
        failed: VenueError | None = None
        assumed = False
        try:
            if job.kind is Kind.FINANCING:
                assumed = await self._interest(assume=assume_financing)
            else:
                for span in missing((job.since, job.until), job.file.covered()):
                    await self._span(span)
            self._advance(job, job.until)
        except VenueError as error:
            failed = error
        finally:
            merged = job.file.merge()  # canceled too: what came is whole
        fresh = merged.fresh + (recovered.fresh if recovered is not None else 0)
        return Fetched(job, Merged(merged.rows, fresh, merged.differing, merged.first, merged.last), self._refused, assumed, failed)

    async def _span(self, span: Span) -> None:
        job, (since, until) = self._job, span
        length = self._archive.span_ms(job.kind, job.instrument, job.interval_ms)
        if since == job.since and until - since > length:
            first = min(until, max(since, await self._first()))
            if first > since:
                job.file.add([], (since, first))
                since = first
        while since < until:
            end, self._begins = min(since + length, until), None
            async for rows, part in self._pages(since, end):
                if rows or part[1] <= self._clock.now() - SURE_MS:
                    job.file.add(rows, part)
                self._advance(job, part[1])
            since = end
            if self._begins is not None and end < (leap := min(self._begins, until)):
                job.file.add([], (end, leap))
                since = leap

    async def _first(self) -> int:
        """Where the instrument's bars begin, asked once for all kinds of its series."""
        symbol = self._job.instrument.symbol
        if symbol not in self._starts:
            self._starts[symbol] = asyncio.ensure_future(
                self._ask(partial(self._archive.first, self._job.instrument, self._job.since)))
        return await asyncio.shield(self._starts[symbol])

    async def _pages(self, since: int, until: int) -> AsyncIterator[tuple[Sequence[Row], Span]]:
        """The rows of a span in order, each with the part it is all of. A venue may answer with the first or the last of what it has, or
        with nothing: what lies before and after is asked for again, until it says "nothing" to the same question a second time."""
        job = self._job
        step = self._archive.step_ms(job.kind, job.instrument, job.interval_ms)
        waiting: list[tuple[Span, Page | None, bool]] = [((since, until), None, False)]
        while waiting:
            span, page, again = waiting.pop()
            if page is not None:
                yield page.rows, span
                continue
            found = await self._ask(partial(self._archive.page, job.kind, job.instrument, job.interval_ms, *span))
            self._refused += found.refused
            if not found.rows:
                if again:
                    self._begins = found.begins
                    yield (), span
                else:
                    waiting.append((span, None, True))
                continue
            first, last = int(found.rows[0][0]), int(found.rows[-1][0])
            following = last + (1 if job.kind is Kind.FUNDING else step)
            before, after = first - step >= span[0], last + step < span[1]
            if after:
                waiting.append(((following, span[1]), None, False))
            waiting.append(((first if before else span[0], following if after else span[1]), found, False))
            if before:
                waiting.append(((span[0], first), None, False))

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        return await patiently(question, self._archive.name, self._clock, self._say)

    async def _interest(self, *, assume: bool) -> bool:
        """Today's rates as one more row: a venue that tells no past builds one up from now on."""
        job = self._job
        rows = (await self._ask(partial(self._archive.page, job.kind, job.instrument, job.interval_ms, 0, 1 << 62))).rows
        known = job.file.times()
        assumed = assume and bool(rows) and (not len(known) or int(known[0]) > job.since)
        if rows:
            today = rows[-1]
            whole = [(job.since, *today[1:]), today] if assumed and job.since < today[0] else [today]
            job.file.add(whole, (int(today[0]), int(today[0]) + 1))
        return assumed
