"""OANDA's market in our words: closed candles asked for when they are due, quotes from the pricing stream, financing rates by the hour.

Decides nothing. What falls silent is asked for again; the daemon's own watch over each instrument says when that took too long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from itertools import pairwise
from typing import Final

import structlog

from modules.domain.errors import VenueBusy, VenueError, VenueUnreachable
from modules.domain.market import NAN, Bar, Batch, Financing, Quote
from modules.domain.sessions import forex_open, iso
from modules.runtime.clock import Clock
from modules.venues.oanda_orders import unwired, wired
from modules.venues.oanda_schema import Candle, CandlesReply, HeartbeatLine, InstrumentRow, PriceLine
from modules.venues.oanda_wire import SKEW_MS, OandaWire

log = structlog.get_logger("oanda")

GRANULARITY: Final = {
    5_000: "S5", 10_000: "S10", 15_000: "S15", 30_000: "S30", 60_000: "M1", 120_000: "M2", 240_000: "M4", 300_000: "M5", 600_000: "M10",
    900_000: "M15", 1_800_000: "M30", 3_600_000: "H1", 7_200_000: "H2", 10_800_000: "H3", 14_400_000: "H4", 21_600_000: "H6",
    28_800_000: "H8", 43_200_000: "H12", 86_400_000: "D",
}
InstrumentsReader = Callable[[], Awaitable[Sequence[InstrumentRow]]]
"""Asks for the account's currency pairs."""
BEATS_KEPT: Final = 3
"""A heartbeat says something of the clocks for so many of its longest silences."""
PAGE: Final = 5_000
"""Candles of one reply at most."""


class Feed:
    """`intervals`: bar length in ms per symbol that is streamed."""

    def __init__(self, wire: OandaWire, account: str, clock: Clock, intervals: Mapping[str, int]) -> None:
        self._wire = wire
        self._account = account
        self._clock = clock
        self._intervals = dict(intervals)
        self._streamed = tuple(intervals)
        self._changed = asyncio.Event()
        """Other symbols are to be quoted."""
        self._told: dict[str, int] = {}
        """Open time of the last bar told per symbol."""
        self._beat: tuple[int, int] | None = None
        """The last heartbeat: when it came by our clock, and when by the broker's."""

    def offset_ms(self) -> int | None:
        """Our clock less the broker's at its last heartbeat, network delay included. None before the first, and once several are
        overdue: clocks drift while nobody looks. (A price tells the time it was made, which on a quiet pair is long ago.)"""
        if self._beat is None or self._clock.now() - self._beat[0] > BEATS_KEPT * self._wire.pace.silence_s * 1000:
            return None
        return self._beat[0] - self._beat[1]

    # -- candles ----------------------------------------------------------------------------------------------------------

    async def candles(self, symbol: str, query: Mapping[str, str]) -> list[Bar]:
        """Complete candles only, oldest first. Raises VenueError, also for a reply about something else."""
        granularity = GRANULARITY[self._intervals[symbol]]
        reply = await self._wire.get(f"/v3/instruments/{wired(symbol)}/candles", CandlesReply, {
            "granularity": granularity, "price": "MBA", "dailyAlignment": "0", "alignmentTimezone": "UTC", **query})
        if (reply.instrument, reply.granularity) != (wired(symbol), granularity):
            raise VenueUnreachable("oanda: candles of something else")
        times = [candle.time for candle in reply.candles]
        if any(later <= earlier for earlier, later in pairwise(times)):
            raise VenueUnreachable("oanda: candles out of order")
        length, now = self._intervals[symbol], self._clock.now()
        # `complete` is the broker's word; a bar that could not have ended by any clock is not believed even so.
        return [_bar(candle) for candle in reply.candles if candle.complete and candle.time + length <= now + length // 2]

    async def history(self, symbol: str, until: int, bars: int) -> Sequence[Bar]:
        length = self._intervals[symbol]
        found: list[Bar] = []
        end = until
        while len(found) < bars:
            past = {"to": iso(end)} if end < self._clock.now() - SKEW_MS else {}
            page = await self.candles(symbol, {"count": str(min(PAGE, bars - len(found) + 1)), **past})
            fresh = [bar for bar in page if bar.ts + length <= until and (not found or bar.ts < found[0].ts)]
            if not fresh:
                break
            found = fresh + found
            end = found[0].ts
        found = found[-bars:] if bars > 0 else []
        if found:
            self._told[symbol] = max(self._told.get(symbol, 0), found[-1].ts)
        return found

    async def _fresh(self, symbol: str) -> list[Bar]:
        length = self._intervals[symbol]
        last = self._told.get(symbol)
        since = self._clock.now() // length * length - length if last is None else last  # known, and never in the future
        bars = [bar for bar in await self.candles(symbol, {"from": iso(since), "count": str(PAGE)}) if last is None or bar.ts > last]
        if bars:
            self._told[symbol] = bars[-1].ts
        return bars

    def learn(self, symbols: Sequence[str], length: int) -> None:
        """Candles of `length` ms may be asked of these too; `watch` streams them."""
        self._intervals |= dict.fromkeys(symbols, length)

    def watch(self, symbols: Sequence[str]) -> None:
        """Stream these from now on and no others."""
        self._streamed = tuple(symbols)
        self._changed.set()

    def _missing(self, length: int, due: int) -> list[str]:
        """Whose last bar before `due` was not told yet."""
        return sorted(symbol for symbol in self._streamed
                      if self._intervals[symbol] == length and self._told.get(symbol, -length) + length < due)

    async def _poll(self, length: int, queue: asyncio.Queue[Batch]) -> None:
        """Every bar of this length once it has closed, those of one round in one batch; holes are filled when the wire is back. The broker
        calls a candle complete when the next tick has come, on a quiet pair long after its end: it is asked for until the next is due."""
        pace = self._wire.pace
        while True:
            due = self._clock.now() // length * length
            tries, failing = 0, set[str]()
            while (missing := self._missing(length, due)) and self._clock.now() < due + length:
                if tries >= pace.candle_tries and not forex_open(self._clock.now()):
                    break
                await self._ask(missing, failing, queue)
                tries += 1
                if self._missing(length, due):
                    await asyncio.sleep(pace.candle_s if tries < pace.candle_tries else pace.late_s)
            await self._clock.sleep_until(due + length)

    async def _ask(self, symbols: Sequence[str], failing: set[str], queue: asyncio.Queue[Batch]) -> None:
        """Tell what bars there are of these. Each that fails is put on `failing`, and told of once."""
        found: dict[int, list[tuple[str, Bar]]] = {}
        for symbol in symbols:
            try:
                bars = await self._fresh(symbol)
            except VenueError as error:
                if symbol not in failing:
                    log.warning("no candles", action="candles", symbol=symbol, reason=str(error))
                failing.add(symbol)
                continue
            for bar in bars:
                found.setdefault(bar.ts, []).append((symbol, bar))
        for ts in sorted(found):
            queue.put_nowait(Batch(self._clock.now(), bars=found[ts]))

    # -- quotes and rates -------------------------------------------------------------------------------------------------

    async def _requoted(self, queue: asyncio.Queue[Batch]) -> None:
        """The pricing stream, opened anew when other symbols are to be quoted."""
        while True:
            self._changed.clear()
            tasks = [asyncio.create_task(self._quotes(queue)), asyncio.create_task(self._changed.wait())]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if tasks[0].done():
                    tasks[0].result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _quotes(self, queue: asyncio.Queue[Batch]) -> None:
        names = ",".join(wired(symbol) for symbol in sorted(self._streamed))
        while True:
            try:
                async with aclosing(self._wire.lines(f"/v3/accounts/{self._account}/pricing/stream", {"instruments": names})) as lines:
                    async for row in lines:
                        if row.get("type") == "PRICE":
                            self._quote(row, queue)
                        elif row.get("type") == "HEARTBEAT":
                            self._beat = self._clock.now(), _beat(row)
            except VenueBusy as busy:
                await self._clock.sleep_until(busy.until)
            except VenueError as error:
                log.warning("the pricing stream ended", action="quotes", reason=str(error))
            await asyncio.sleep(self._wire.pace.retry_s)

    def _quote(self, row: Mapping[str, object], queue: asyncio.Queue[Batch]) -> None:
        try:
            line = PriceLine.model_validate(row)
        except ValueError:
            raise VenueUnreachable("oanda: a price outside our schema") from None
        now, symbol = self._clock.now(), unwired(line.instrument)
        if symbol not in self._streamed or not (line.trades and line.bids and line.asks):
            return
        quote = Quote(line.time, max(rung.price for rung in line.bids), min(rung.price for rung in line.asks))
        if quote.sane:
            queue.put_nowait(Batch(now, quotes=[(symbol, quote)]))

    async def _rates(self, rows: InstrumentsReader, queue: asyncio.Queue[Batch]) -> None:
        pace = self._wire.pace
        while True:
            wait = pace.financing_s
            try:
                now = self._clock.now()
                rates = [Financing(unwired(row.name), now, float(row.financing.long_rate), float(row.financing.short_rate))
                         for row in await rows() if row.financing is not None and unwired(row.name) in self._streamed]
                queue.put_nowait(Batch(self._clock.now(), financing=rates))
            except VenueError as error:
                log.warning("no financing rates", action="financing", reason=str(error))
                wait = pace.audit_s
            await asyncio.sleep(wait)

    async def events(self, rows: InstrumentsReader) -> AsyncGenerator[Batch, None]:
        """Everything as it happens. A bug in one of the parts ends the feed with its error."""
        queue: asyncio.Queue[Batch] = asyncio.Queue()
        lengths = sorted(set(self._intervals.values()))
        parts = [self._requoted(queue), self._rates(rows, queue), *(self._poll(length, queue) for length in lengths)]
        tasks = [asyncio.create_task(part, name="oanda feed") for part in parts]
        try:
            while True:
                getter = asyncio.ensure_future(queue.get())
                try:
                    done, _ = await asyncio.wait((getter, *tasks), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not getter.done():
                        getter.cancel()
                if getter not in done:
                    next(iter(done)).result()
                    raise RuntimeError("a part of the feed ended")
                yield getter.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _beat(row: Mapping[str, object]) -> int:
    try:
        return HeartbeatLine.model_validate(row).time
    except ValueError:
        raise VenueUnreachable("oanda: a heartbeat outside our schema") from None


def _bar(candle: Candle) -> Bar:
    """Mids, with the quote at the close. The broker counts ticks, not units: no volume."""
    mid = candle.mid
    return Bar(candle.time, mid.o, mid.h, mid.l, mid.c, NAN, NAN, candle.bid.c, candle.ask.c)
