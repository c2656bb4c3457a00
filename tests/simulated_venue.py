"""One life's way to the simulated exchange: a `Venue` without a wire that lies, stalls and repeats as the weather says.

Whatever a daemon does here it does through the same protocol as through a wire.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Final

from modules.domain.errors import VenueBusy, VenueUnreachable
from modules.domain.instrument import Instrument
from modules.domain.market import Bar, Batch, FundingRate, Quote
from modules.domain.order import Accepted, Fate, InDoubt, NotSent, Order, OrderKind, OrderReport
from modules.runtime.clock import VirtualClock
from modules.venues.protocol import AccountEvent, Capabilities, FillSeen, FundingPaid, OrderDone, Transferred, Wallet
from tests.simulated_exchange import MINUTE_MS, NAME, PAST, STEP_MS, SYMBOLS, Exchange, instrument_of, report_of

OVERLAP_MS: Final = 60_000
AUDIT_MS: Final = 15_000
SOON_MS: Final = 2_000


class Dead(BaseException):
    """The process is gone: whoever is still running it may do nothing more."""


class SimulatedVenue:
    """`fuse(where)` is called at every write, before it arrives and after: there a life may end."""

    name = NAME

    def __init__(self, exchange: Exchange, clock: VirtualClock, seed: str, fuse: Callable[[str], None]) -> None:
        self.capabilities = Capabilities(set_client_id=True, query_by_client_id=True, trade_history_by_order=True, venue_stop=True,
                                         resting_target=exchange.alone, reduce_only=exchange.alone, shared_wallet=not exchange.alone)
        self._exchange, self._clock, self._fuse = exchange, clock, fuse
        self._chance = random.Random(seed)
        self._stream: list[tuple[int, int, AccountEvent]] = []
        """What the account's stream will tell: when (UTC ms), a number, the event."""
        self._numbers = count()
        self._since: int | None = None
        self._news, self._asked = asyncio.Event(), False
        self.dead = False
        self.wallet_at = self.prices_at = 0
        """When a wallet, and when prices were handed over last, UTC ms."""
        exchange.listeners.append(self._hear)

    # the wire

    def _on(self, what: str) -> bool:
        return self._exchange.weather.on(what, self._clock.now())

    async def _way(self) -> None:
        """One way over the wire."""
        if self.dead:
            raise Dead
        mean = 3.0 if self._on("slow") else 0.06
        await asyncio.sleep(min(20.0, self._chance.expovariate(1.0 / mean)))
        if self.dead:
            raise Dead

    async def _ask(self) -> None:
        """A question on its way there. Raises VenueError as the weather will have it."""
        await self._way()
        if self._on("busy"):
            raise VenueBusy("too many visits", self._exchange.weather.until["busy"])
        if self._on("down") or (self._on("garbage") and self._chance.random() < 0.5):
            raise VenueUnreachable("nobody there, or nonsense")

    async def _write(self, act: Callable[[], Fate]) -> Fate:
        await self._way()
        self._fuse("before")
        if self._on("busy"):
            return NotSent("too many visits", self._exchange.weather.until["busy"])
        if self._on("down"):
            return self._chance.choice((NotSent("refused"), InDoubt("reset")))
        lost = self._on("lost") and self._chance.random() < 0.7
        hung = self._on("hung") and self._chance.random() < 0.7
        if (lost or hung) and self._chance.random() < 0.35:
            fate: Fate = InDoubt("no answer")  # and it never arrived
        else:
            fate = act()
        self._fuse("after")
        if hung:
            await asyncio.sleep(3_600.0)
        await self._way()
        return InDoubt("no answer") if lost else fate

    def _knows_until(self) -> int:
        """Until when its histories are complete now, UTC ms."""
        lag = self._chance.randint(0, 25_000) if self._on("lagging") else 0
        return self._clock.now() - lag

    # Venue

    async def submit(self, order: Order) -> Fate:
        fate = await self._write(lambda: self._exchange.create(order))
        if order.kind is OrderKind.MARKET and isinstance(fate, Accepted):
            asyncio.get_running_loop().call_later(SOON_MS / 1000.0, self._audit)
        return fate

    async def cancel(self, order: Order) -> Fate:
        return await self._write(lambda: self._exchange.cancel(order))

    async def order(self, client_order_id: str, symbol: str) -> OrderReport | None:
        await self._ask()
        ticket, until = self._exchange.books.find(client_order_id), self._knows_until()
        await self._way()
        return report_of(ticket) if ticket is not None and ticket.created <= until else None

    async def fills_since(self, at: int) -> Sequence[FillSeen]:
        await self._ask()
        until = self._knows_until()
        found = [event for told, event in self._exchange.since(at) if isinstance(event, FillSeen) and told <= until]
        await self._way()
        return found

    async def missed(self, since: int | None = None) -> Sequence[AccountEvent]:
        await self._ask()
        begin, now, until = self._since or since, self._clock.now(), self._knows_until()
        await self._way()
        self._since = now
        if begin is None:
            return []
        return [event for told, event in self._exchange.since(begin - OVERLAP_MS) if told <= until and not isinstance(event, OrderDone)]

    async def wallet(self) -> Wallet:
        await self._ask()
        at = self._clock.now()
        stale = self._on("stale") and self._exchange.snapshots and self._chance.random() < 0.3
        seen = self._chance.choice(list(self._exchange.snapshots)[-7:]) if stale else self._exchange.wallet(at)
        await self._way()
        self.wallet_at = self._clock.now()
        return Wallet(self.wallet_at, seen.classes, seen.open_orders)

    async def clock_offset_ms(self) -> int | None:
        await self._ask()
        return 3_000 if self._on("skewed") else 0

    async def check(self) -> None:
        await self._ask()

    async def instruments(self) -> Sequence[Instrument]:
        await self._ask()
        return [instrument_of(symbol, self._exchange.books.products[key]) for symbol, key in SYMBOLS.items()
                if symbol in self._exchange.symbols]

    def interval_ms(self, symbol: str) -> int:
        return MINUTE_MS

    async def history(self, symbol: str, until: int, bars: int) -> Sequence[Bar]:
        await self._way()
        final = min(until, self._clock.now())
        return [bar for bar in self._exchange.bars[symbol][:PAST + (final - self._exchange.start) // MINUTE_MS]
                if bar.ts + MINUTE_MS <= final][-bars:]

    async def market_events(self) -> AsyncIterator[Batch]:
        exchange, told = self._exchange, self._clock.now() // MINUTE_MS
        while True:
            at = self._clock.now() // STEP_MS * STEP_MS + STEP_MS
            await self._clock.sleep_until(at)
            if self.dead:
                raise Dead
            self._clock.pulse(at)
            if self._on("quiet"):
                continue
            self.prices_at = at
            bars: list[tuple[str, Bar]] = []
            while (told + 1) * MINUTE_MS <= at:
                place = PAST + (told * MINUTE_MS - exchange.start) // MINUTE_MS
                bars += [(symbol, exchange.bars[symbol][place]) for symbol in exchange.symbols if place < len(exchange.bars[symbol])]
                told += 1
            quotes = [(symbol, Quote(at, *exchange.quote(symbol))) for symbol in exchange.symbols]
            funding = [FundingRate(symbol, at - at % 3_600_000, 0.00001, 8.0, 0.00001) for symbol in exchange.symbols if ":" in symbol]
            marks = [(symbol, quote.mid) for symbol, quote in quotes if ":" in symbol]
            yield Batch(at, bars, quotes, marks, funding if bars else ())

    async def account_events(self) -> AsyncIterator[AccountEvent]:
        due = self._clock.now() + AUDIT_MS
        while True:
            now = self._clock.now()
            while self._stream and self._stream[0][0] <= now:
                yield heappop(self._stream)[2]
            if now >= due or self._asked:
                self._asked, due = False, now + AUDIT_MS
                try:
                    for event in await self.missed():
                        yield event
                except (VenueBusy, VenueUnreachable):
                    pass
                continue
            self._news.clear()
            wait = min(self._stream[0][0] if self._stream else due, due) - now
            try:
                async with asyncio.timeout(wait / 1000.0):
                    await self._news.wait()
            except TimeoutError:
                pass
            if self.dead:
                raise Dead

    def _audit(self) -> None:
        self._asked = True
        self._news.set()

    def _hear(self, at: int, event: AccountEvent) -> None:
        """The account's stream: what it tells of an event, and when."""
        if self.dead or self._on("deaf") or isinstance(event, Transferred | FundingPaid):
            return
        for _ in range(2 if self._on("twice") else 1):
            late = self._chance.randint(0, 20_000) if self._on("late") else self._chance.randint(10, 200)
            heappush(self._stream, (at + late, next(self._numbers), event))
        self._news.set()

    def die(self) -> None:
        """This life is over: nothing goes either way any more."""
        self.dead = True
        if self._hear in self._exchange.listeners:
            self._exchange.listeners.remove(self._hear)

    async def close(self) -> None:
        self.die()
