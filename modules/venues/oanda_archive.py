"""OANDA's past and its present spreads: complete candles with bid and ask, today's interest. What it never tells is what interest was.

Decides nothing. Refuses, by VenueUnreachable, a reply about something else or out of order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from modules.domain.errors import VenueUnreachable
from modules.domain.instrument import Instrument
from modules.domain.market import NAN
from modules.domain.sessions import iso, parse_iso
from modules.runtime.clock import Clock
from modules.venues.archive import Kind, Page, Row
from modules.venues.oanda_feed import GRANULARITY, PAGE
from modules.venues.oanda_orders import unwired, wired
from modules.venues.oanda_schema import Candle, CandlesReply, PricesReply
from modules.venues.oanda_wire import SKEW_MS, OandaWire
from modules.venues.selection import Statistic

if TYPE_CHECKING:
    from modules.venues.oanda_venue import OandaVenue

DAY_MS: Final = 86_400_000
PAIRS: Final = 100
"""Per question for prices: their names are in its address."""


class OandaArchive:
    """Over an adapter's own wire, so that its schema, its patience and its bans hold here too."""

    def __init__(self, venue: OandaVenue) -> None:
        self.name = venue.name
        self._venue = venue

    async def offered(self) -> Sequence[Instrument]:
        return await self._venue.offered()

    def tells(self, kind: Kind, instrument: Instrument, interval_ms: int) -> bool:
        return kind is Kind.FINANCING or (kind is Kind.BARS and interval_ms in GRANULARITY)

    def span_ms(self, kind: Kind, instrument: Instrument, interval_ms: int) -> int:
        return PAGE * interval_ms

    def step_ms(self, kind: Kind, instrument: Instrument, interval_ms: int) -> int:
        return DAY_MS if kind is Kind.FINANCING else interval_ms

    async def first(self, instrument: Instrument, since: int) -> int:
        """By one question for the first daily candle."""
        candles = await self._venue.candles(instrument.symbol, DAY_MS, {"from": iso(since), "count": "1"})
        return max(since, candles[0].time) if candles else since

    async def page(self, kind: Kind, instrument: Instrument, interval_ms: int, since: int, until: int) -> Page:
        if kind is Kind.FINANCING:
            today = await self._venue.interest(instrument.symbol)
            return Page([today] if today is not None and since <= today[0] < until else [])
        candles = await self._venue.candles(instrument.symbol, interval_ms, {"from": iso(since), "to": iso(until - 1)})
        rows = [_row(candle) for candle in candles if since <= candle.time < until]
        sane = [row for row in rows if 0 < row[3] <= min(row[1], row[4]) <= max(row[1], row[4]) <= row[2]]
        return Page(sane, len(rows) - len(sane))

    async def close(self) -> None:
        await self._venue.close()


def _row(candle: Candle) -> Row:
    """Mids as the feed tells them live; the quotes at open and close beside them. The broker counts ticks: no volume."""
    mid, bid, ask = candle.mid, candle.bid, candle.ask
    return candle.time, mid.o, mid.h, mid.l, mid.c, NAN, NAN, bid.c, ask.c, bid.o, ask.o


async def candles(wire: OandaWire, clock: Clock, symbol: str, interval_ms: int, span: dict[str, str]) -> Sequence[Candle]:
    """Complete candles of the span, oldest first. `span`: from and to (inclusive), or from and count."""
    granularity = GRANULARITY[interval_ms]
    if "to" in span and parse_iso(span["to"]) > clock.now() - SKEW_MS:
        span = {"from": span["from"], "count": str(PAGE)}
    reply = await wire.get(f"/v3/instruments/{wired(symbol)}/candles", CandlesReply, {
        "granularity": granularity, "price": "MBA", "dailyAlignment": "0", "alignmentTimezone": "UTC", **span})
    if (reply.instrument, reply.granularity) != (wired(symbol), granularity):
        raise VenueUnreachable("oanda: candles of something else")
    if any(later.time <= earlier.time for earlier, later in pairwise(reply.candles)):
        raise VenueUnreachable("oanda: candles out of order")
    now = clock.now()
    return [candle for candle in reply.candles if candle.complete and candle.time + interval_ms <= now + interval_ms // 2]


async def statistics(wire: OandaWire, root: str, symbols: Sequence[str]) -> Sequence[Statistic]:
    """Bid and ask now; the broker counts no volume. Raises VenueError."""
    found: list[Statistic] = []
    for first in range(0, len(symbols), PAIRS):
        asked = ",".join(wired(symbol) for symbol in symbols[first:first + PAIRS])
        for line in (await wire.get(f"{root}/pricing", PricesReply, {"instruments": asked})).prices:
            bid = max((rung.price for rung in line.bids), default=math.nan)
            ask = min((rung.price for rung in line.asks), default=math.nan)
            found.append(Statistic(unwired(line.instrument), math.nan, bid, ask))
    return found
