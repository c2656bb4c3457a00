"""ccxt.pro's streams made honest: closed candles only, holes filled over REST, silence noticed, and an audit behind the private ones.

ccxt ends its receive loop silently on one malformed frame, and replays nothing after a reconnection. So silence restarts a public
stream, and fills, funding and transfers are asked for over REST at intervals: the stream is the fast path, the audit is the truth.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import structlog

from modules.domain.errors import VenueError, VenueUnreachable
from modules.domain.instrument import AssetClass
from modules.domain.market import Bar, Batch, Chain, FundingRate, Quote
from modules.venues.ccxt_client import foreign_errors, reconnect
from modules.venues.ccxt_dialect import Tick
from modules.venues.ccxt_gate import sane_bar
from modules.venues.protocol import AccountEvent, FillSeen

if TYPE_CHECKING:
    from modules.venues.ccxt_venue import CcxtVenue

log = structlog.get_logger("ccxt_venue")

RETRY_S: Final = (0.2, 1.0, 2.0, 5.0, 10.0)
"""Waits between attempts to listen again; the last one repeats."""
OVERLAP_MS: Final = 60_000
"""An audit asks again for this much of what it has seen: the venue's history may lag behind its stream."""
DELIVERED_LATE_MS: Final = 86_400_000
"""How long after an expiry its delivery may be told, under the time of the expiry."""
INDEX_GAP_MAX: Final = 0.05
"""Between an index and the quote of what it is the index of, as a share, beside what is usual."""
BASIS_WEIGHT: Final = 0.2
BASIS_STEP: Final = 0.002
"""How fast what is usual between them is learned: so much of each new difference, which counts as this share at most."""
KEPT: Final = 10_000
"""Fills and ended orders remembered as told; more than ccxt keeps and an audit asks for."""
SOON_S: Final = 2.0
"""How long a stream may take to tell a market order's fill before it is asked for; twice as long each time after that."""


@asynccontextmanager
async def _running(*jobs: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """The jobs, for as long as the block lasts."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Stream:
    """Listening again and again to one thing."""

    def __init__(self, venue: CcxtVenue) -> None:
        self._venue = venue
        self._foreign = foreign_errors()
        self._lost: tuple[type[BaseException], ...] = (VenueError, asyncio.CancelledError, *self._foreign)

    async def _listen(self, what: str, once: Callable[[], Awaitable[None]], lost: Callable[[], None]) -> None:
        """Await `once` for ever; after a failure `lost()` is told and the wait grows."""
        failures = 0
        while True:
            try:
                await once()
                failures = 0
            except self._lost as error:
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                    raise  # it is us who shall end, and not ccxt that dropped a connection under us
                lost()
                shown = self._venue.as_read_error(error) if isinstance(error, self._foreign) else error
                log.warning("stream lost", action="listen", reason=f"{what}: {shown}")
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1


class _Candles:
    """One symbol's candles as they stream in; hands over those that closed. `trusted`: nothing was missed of the forming one."""

    def __init__(self, interval: int, handed: int = 0) -> None:
        self.interval = interval
        self.forming: Bar | None = None
        self.handed = handed
        """Open time of the last candle handed over, here or as history; 0 = none was."""
        self.trusted = True

    def take(self, bar: Bar) -> tuple[Bar | None, int]:
        """(a candle that closed, how many to ask for over REST because they were missed)."""
        before, self.forming = self.forming, bar if self.forming is None or bar.ts >= self.forming.ts else self.forming
        if before is None and self.handed:  # what closed between the history and the first word of the stream
            missed = max(0, (bar.ts - self.handed) // self.interval - 1)
            self.handed = max(self.handed, bar.ts - self.interval)
            return None, missed
        if before is None or bar.ts <= before.ts:
            return None, 0
        missed = (bar.ts - (self.handed or before.ts - self.interval)) // self.interval - 1
        whole, self.trusted = self.trusted and missed == 1, True
        self.handed = bar.ts - self.interval
        return (before, 0) if whole else (None, missed)


class _Basis:
    """How far a quote usually stands from the index of the same thing, as a ratio."""

    def __init__(self) -> None:
        self.ratio = 1.0

    def take(self, ratio: float) -> bool:
        """Look once more; False = too far apart to be of the same thing."""
        away = ratio / self.ratio - 1.0
        if abs(away) > INDEX_GAP_MAX:
            return False
        self.ratio *= 1.0 + BASIS_WEIGHT * min(max(away, -BASIS_STEP), BASIS_STEP)
        return True


class MarketStream(_Stream):
    def __init__(self, venue: CcxtVenue, stale_s: float) -> None:
        super().__init__(venue)
        self._stale_s = stale_s
        self._bars: list[tuple[str, Bar]] = []
        self._quotes: dict[str, Quote] = {}
        self._marks: dict[str, float] = {}
        self._funding: dict[str, FundingRate] = {}
        self._chains: dict[str, Chain] = {}
        self._mids: dict[str, tuple[float, float]] = {}
        """Where each symbol was quoted last: (monotonic seconds, mid)."""
        self._news = asyncio.Event()

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """Closed bars never dropped; of quotes, marks and rates only the newest."""
        venue = self._venue
        streams: dict[str, list[asyncio.Task[None]]] = {}
        async with _running() as tasks:
            while True:
                self._follow(streams, tasks)
                await self._woken(tasks)
                self._news.clear()
                bars, self._bars = self._bars, []
                quotes, self._quotes = tuple(self._quotes.items()), {}
                marks, self._marks = tuple(self._marks.items()), {}
                funding, self._funding = tuple(self._funding.values()), {}
                chains, self._chains = tuple(self._chains.values()), {}
                bars.sort(key=lambda named: named[1].ts)
                yield Batch(venue.clock.now(), tuple(bars), quotes, marks, funding, (), chains)

    def _follow(self, streams: dict[str, list[asyncio.Task[None]]], tasks: list[asyncio.Task[None]]) -> None:
        """Listen to every symbol that is to be streamed and to the options on it, and to no other."""
        venue = self._venue
        chains = {f"options {coin}": (coin, symbol) for coin, symbol in venue.underlyings.items()}
        for symbol in [symbol for symbol in streams if symbol not in venue.streamed and symbol not in chains]:
            for task in streams.pop(symbol):
                task.cancel()
                tasks.remove(task)
        for symbol in venue.streamed:
            if symbol not in streams:
                candles = _Candles(venue.interval_ms(symbol), venue.told.get(symbol, 0))
                jobs = [self._watch_bars(symbol, candles), *(self._watch_tick(symbol, wait) for wait in venue.dialect.ticks(venue, symbol))]
                streams[symbol] = [asyncio.create_task(job) for job in jobs]
                tasks += streams[symbol]
        for name, (coin, symbol) in chains.items():
            if name not in streams:
                streams[name] = [asyncio.create_task(self._watch_chain(coin, symbol))]
                tasks += streams[name]

    def changed(self, gone: Sequence[str]) -> None:
        """Other symbols are to be streamed. The connections that carried those that are `gone` are opened anew: that is how a venue is
        told to send them no more, whatever it calls it. What is missed meanwhile is asked for as after any lost connection."""
        self._news.set()
        if gone:
            carries = self._venue.dialect.carries
            reconnect(self._venue.data, lambda url: any(carries(url, symbol) for symbol in gone), "other symbols are streamed")

    async def _woken(self, tasks: list[asyncio.Task[None]]) -> None:
        """There is news, or a listener died of a bug, which then is ours."""
        news = asyncio.create_task(self._news.wait())
        try:
            done, _ = await asyncio.wait([news, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
        for task in done - {news}:
            task.result()

    async def _heard(self, symbol: str, watching: Awaitable[Tick]) -> Tick:
        """The next message; silence for too long restarts the symbol's connections, its candles' too. (Candles alone may be silent
        for a minute in a quiet market, so silence is measured on quotes.)"""
        try:
            async with asyncio.timeout(self._stale_s):
                return await watching
        except TimeoutError:
            reconnect(self._venue.data, lambda url: self._venue.dialect.carries(url, symbol), "silent")
            raise VenueUnreachable(f"silent for {self._stale_s:g} s") from None

    async def _watch_bars(self, symbol: str, candles: _Candles) -> None:
        wait = self._venue.dialect.candles(self._venue, symbol)

        async def once() -> None:
            for row in await wait():
                closed, missed = candles.take(bar := sane_bar(row, candles.interval))
                if missed:
                    self._hand(symbol, await self._missed(symbol, bar.ts, missed, candles.interval))
                elif closed is not None:
                    self._hand(symbol, [closed])

        def lost() -> None:
            candles.trusted = False

        await self._listen(f"candles {symbol}", once, lost)

    async def _missed(self, symbol: str, until: int, count: int, interval: int) -> Sequence[Bar]:
        """Candles that no stream told whole, over REST; which may know the last of them a little later than the stream. What it still
        does not know then stays a hole."""
        found: Sequence[Bar] = ()
        for wait in RETRY_S:
            try:
                found = await self._venue.history(symbol, until, count)
            except VenueError as error:
                log.warning("hole not filled yet", action="listen", reason=f"candles {symbol}: {error}")
            if found and found[-1].ts == until - interval:
                return found
            await asyncio.sleep(wait)
        return found

    def _hand(self, symbol: str, bars: Sequence[Bar]) -> None:
        self._bars += [(symbol, bar) for bar in bars]
        self._news.set()

    async def _watch_tick(self, symbol: str, wait: Callable[[], Awaitable[Tick]]) -> None:
        async def once() -> None:
            tick = await self._heard(symbol, wait())
            if tick.bid is not None and tick.ask is not None:
                self._quote(symbol, tick.bid, tick.ask)
            if tick.mark is not None:
                self._marks[symbol] = tick.mark
            if tick.funding is not None:
                self._funding[symbol] = tick.funding
            self._news.set()

        await self._listen(f"quotes {symbol}", once, lambda: None)

    def _quote(self, symbol: str, bid: float, ask: float) -> None:
        quote = Quote(self._venue.clock.now(), bid, ask)
        if not quote.sane:
            raise VenueUnreachable(f"{symbol}: a crossed or empty quote")
        self._quotes[symbol] = quote
        self._mids[symbol] = asyncio.get_running_loop().time(), quote.mid

    async def _watch_chain(self, coin: str, symbol: str) -> None:
        """Ask for the chain again and again. It is told against the price that moves between two of them, the underlying's own quote, so
        that repricing it begins where the venue left off. What quote and index usually are apart is learned slowly: at any one moment the
        one may have moved where the other is not told yet. An index far from the quote is not believed."""
        basis = _Basis()

        async def once() -> None:
            chain = await self._venue.chain(coin)
            said, mid = self._mids.get(symbol, (-math.inf, math.nan))
            if asyncio.get_running_loop().time() - said <= self._stale_s and not basis.take(mid / chain.spot):
                raise VenueUnreachable(f"the index of {coin} is {chain.spot:g} where {symbol} stands at {mid:g}")
            chain = chain._replace(spot=chain.spot * basis.ratio)
            self._chains[coin] = chain
            self._news.set()
            await asyncio.sleep(self._venue.chains.every_s)

        await self._listen(f"options {coin}", once, lambda: None)


class AccountStream(_Stream):
    def __init__(self, venue: CcxtVenue, audit_s: float) -> None:
        super().__init__(venue)
        self._audit_s = audit_s
        self._queue: asyncio.Queue[AccountEvent] = asyncio.Queue()
        self._told: dict[tuple[str, str], None] = {}
        """(symbol, execution) told lately, oldest first."""
        self._ended: dict[str, None] = {}
        """Orders whose end was told lately."""
        self._seen: dict[tuple[str, str], object] = {}
        """Of each order ccxt holds that has not ended: its last row that was looked at. There are hundreds, and every word of one ends the
        wait. A row that cannot be read is complained of once."""
        self._expected: set[str] = set()
        """Market orders that were taken and whose last fill was not told yet."""
        self._asked = asyncio.Event()
        self._auditing = asyncio.Lock()
        self._since: int | None = None
        """Until when the account has been asked about twice, UTC ms: one answer may leave out what the next one tells."""
        self._once = 0
        """Until when once."""
        self.missed = 0
        """Fills the audit found that no stream had told."""

    def look(self) -> None:
        """Audit now."""
        self._asked.set()

    def expect(self, client_order_id: str) -> None:
        """A market order was taken. A fill that no stream tells soon is asked for: until it is known, what was bought has no stop."""
        self._expected.add(client_order_id)
        asyncio.get_running_loop().call_later(SOON_S, self._remind, client_order_id, SOON_S)

    def _met(self, seen: FillSeen) -> None:
        """A fill was told. Only the last one ends the expectation: of several the stream may have lost the others."""
        if seen.order_done:
            self._expected.discard(seen.fill.client_order_id)

    def _remind(self, client_order_id: str, waited_s: float) -> None:
        if client_order_id not in self._expected:
            return
        if waited_s >= self._audit_s:  # the regular audits know by now what there is to know
            self._expected.discard(client_order_id)
            return
        self.look()
        asyncio.get_running_loop().call_later(waited_s, self._remind, client_order_id, 2.0 * waited_s)

    def _start_anew(self) -> None:
        """A private stream failed: audit, and sign in on a fresh connection. (After a login that was refused, for a wrong clock say, ccxt
        waits on the old one for an answer to a login it does not send again.)"""
        self.look()
        reconnect(self._venue.trade, self._venue.dialect.private_socket, "signing in anew")

    async def events(self) -> AsyncGenerator[AccountEvent, None]:
        venue = self._venue
        jobs = [self._watch_fills(wait) for wait in venue.dialect.fill_streams(venue)]
        jobs += [self._watch_orders(wait) for wait in venue.dialect.order_streams(venue)]
        async with _running(*jobs, self._audits()) as tasks:
            while True:
                event = asyncio.create_task(self._queue.get())
                try:
                    done, _ = await asyncio.wait([event, *tasks], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not event.done():
                        event.cancel()
                for task in done - {event}:
                    task.result()
                yield event.result()

    def _news(self, kind: str, reference: str) -> bool:
        """Whether this was never told; from now on it was. `kind`: a fill's symbol, else what it is."""
        key = kind, reference
        if key in self._told:
            return False
        self._told[key] = None
        return True

    async def audit(self, since: int | None) -> list[AccountEvent]:
        """Ask over REST what nobody has told yet, from `since` (UTC ms) on if this is the first time; None then = from now on, and what
        is known by now is past. Raises VenueError."""
        venue = self._venue
        async with self._auditing:
            now = venue.clock.now()
            new_journal = self._since is None and since is None
            begin = self._since or since or now
            start = begin - OVERLAP_MS
            fills = await venue.fills_since(start)
            funding = await venue.funding_since(start) if AssetClass.PERP in venue.classes else ()
            settled = await venue.settled_since(start - DELIVERED_LATE_MS) if AssetClass.OPTION in venue.classes else ()
            moved = await venue.transfers_since(start)
            # Only now is anything noted as told: where one question fails, what the others answered is asked for again.
            found: list[tuple[int, AccountEvent]] = [
                (seen.fill.at, seen) for seen in fills if self._news(seen.fill.symbol, seen.fill.venue_trade_id)]
            found += [(paid.at, paid) for paid in funding if self._news("funding", paid.venue_ref)]
            found += [(ended.at, ended) for ended in settled if self._news("settled", ended.venue_ref)]
            found += [(transfer.at, transfer) for transfer in moved if self._news("transfer", transfer.venue_ref)]
            self._since, self._once = self._once or begin, now
            for told in (self._told, self._ended):
                for key in list(told)[:-KEPT]:
                    del told[key]  # type: ignore[arg-type]
        found.sort(key=lambda dated: dated[0])
        return [] if new_journal else [event for _, event in found]

    async def _watch_fills(self, wait: Callable[[], Awaitable[Any]]) -> None:
        venue = self._venue

        async def once() -> None:
            await wait()
            # What it returns leaves out what arrived in the same moment, or while we asked about another; the cache has it all.
            looked_at: set[tuple[str, str]] = set()
            while trades := [trade for trade in venue.private().myTrades or ()
                             if (trade["symbol"], trade["id"]) not in self._told and (trade["symbol"], trade["id"]) not in looked_at]:
                for trade in trades:
                    looked_at.add((trade["symbol"], trade["id"]))
                    seen = await venue.dialect.streamed_fill(venue, trade)
                    if seen is not None and self._news(seen.fill.symbol, seen.fill.venue_trade_id):
                        self._met(seen)
                        self._queue.put_nowait(seen)

        await self._listen("fills", once, self._start_anew)

    async def _watch_orders(self, wait: Callable[[], Awaitable[Any]]) -> None:
        venue = self._venue

        async def once() -> None:
            await wait()
            orders = {(order["symbol"], order["id"]): order for order in venue.private().orders or ()}
            self._seen = {key: row for key, row in self._seen.items() if key in orders}
            for key, order in orders.items():
                if self._seen.get(key) is (row := order["info"]):
                    continue
                self._seen[key] = row
                done = venue.dialect.streamed_end(venue, order)
                if done is None:
                    continue
                del self._seen[key]  # under whose name it ended may be learned later
                if done.client_order_id not in self._ended:
                    self._ended[done.client_order_id] = None
                    self._queue.put_nowait(done)

        await self._listen("orders", once, self._start_anew)

    async def _audits(self) -> None:
        """What the streams may have missed since we began to listen. A fill they missed means that they are deaf: they start anew."""
        venue = self._venue
        primed = False

        async def once() -> None:
            nonlocal primed
            events = await self.audit(None)
            for event in events:
                if isinstance(event, FillSeen):
                    self._met(event)
                self._queue.put_nowait(event)
            missed = sum(isinstance(event, FillSeen) for event in events)
            if missed and primed:
                self.missed += missed
                log.warning("fills missed by the stream", action="audit", reason=f"{missed} fills")
                reconnect(venue.trade, venue.dialect.private_socket, "deaf")
                venue.dialect.relogin(venue.trade)
            primed = True
            try:
                async with asyncio.timeout(self._audit_s):
                    await self._asked.wait()
            except TimeoutError:
                pass  # nobody asked: the regular audit
            self._asked.clear()

        await self._listen("audit", once, lambda: None)
