"""Paper trading on a live market: another venue's prices, our own fills and our own wallet. No key, and nothing ever leaves for the venue.

Owns what PaperVenue owns, on a market that nobody can stop: prices come as they come, late, twice or not at all, and the process may not be
there to see them. Restarted, it first holds what rested against the bars it missed. May refuse what the instrument's rules or the wallet
forbid; knows no price that the market did not show.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from decimal import Decimal
from itertools import count
from typing import Final, Protocol, runtime_checkable

import structlog

from modules.domain.errors import VenueError
from modules.domain.events import (
    BaselineRolled,
    BlackoutClosed,
    BlackoutOpened,
    BudgetChanged,
    DaemonStarted,
    EntriesPaused,
    EntriesResumed,
    OperatorCommand,
    SwitchChanged,
    TradingHalted,
    TradingRearmed,
)
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.market import NAN, Bar, Batch, FundingRate
from modules.domain.order import Fate, NotSent, Order
from modules.domain.policies import Policies
from modules.runtime.clock import Clock
from modules.venues.live_desk import LiveDesk
from modules.venues.live_quotes import LiveQuotes
from modules.venues.paper_account import PaperAccount
from modules.venues.paper_book import PaperBook
from modules.venues.paper_prices import AVERAGE_BARS, Prices
from modules.venues.paper_restore import Memory, Reader
from modules.venues.protocol import AccountEvent, Step, TellsContracts, Venue
from modules.venues.selection import Watches

log = structlog.get_logger("live_paper")

DELIVERY_MS: Final = 15_000
"""How often the price of an expiry is asked for until it is told."""
RETRY_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Waits between attempts to learn what was missed; the last one repeats."""

BEFORE_PRICES: Final = (DaemonStarted, OperatorCommand, TradingHalted, TradingRearmed, EntriesPaused, EntriesResumed, SwitchChanged,
                        BudgetChanged, BaselineRolled, BlackoutOpened, BlackoutClosed)
"""What is written down while a start waits for the venue, and says nothing of what the market did."""


@runtime_checkable
class TellsFunding(Protocol):
    """A data venue that knows the funding of the past."""

    async def settled_funding(self, symbol: str, since: int) -> Sequence[FundingRate]:
        """Every settlement after `since` (UTC ms), oldest first: `rate` was settled at `at`. Raises VenueError."""
        ...


@runtime_checkable
class TellsOptions(Protocol):
    """A data venue whose batches carry chains."""

    kept: frozenset[str]
    """Contracts that stay in its chains whatever it leaves out else; set from here."""

    def contract(self, symbol: str) -> Instrument | None:
        """The rules of a contract that a chain told of."""
        ...

    async def delivered(self, instrument: Instrument) -> Decimal | None:
        """The price of the underlying that an expired contract was settled at; None = not told yet. Raises VenueError."""
        ...


class LivePaperVenue(PaperAccount):
    """A `Venue` over the market half of another, `data`, which it closes with itself.

    `instruments` are what is traded of it; `books` the opening wallets; `elsewhere` the classes that other venues have; `chain_age_s` how
    long an option chain is believed.
    """

    def __init__(self, data: Venue, instruments: Sequence[Instrument], clock: Clock, policies: Policies,
                 books: Mapping[AssetClass, PaperBook], elsewhere: Sequence[AssetClass] = (), chain_age_s: float = 30.0) -> None:
        super().__init__(data.name, clock, books)
        self._data = data
        self._latency = policies.costs.latency_ms
        self._elsewhere = elsewhere
        self._quotes = LiveQuotes(
            instruments, data.interval_ms, clock, policies.risk.quote_age_s_max, float(policies.kill_switch.mark_jump_max),
            self._contract)
        self._jump = float(policies.kill_switch.mark_jump_max)
        self._remembered: Mapping[str, Instrument] = {}
        """What an earlier run traded, whether or not it is still listed."""
        self._delivered: dict[str, Decimal] = {}
        """Prices told for expired contracts that are still held."""
        self._asking: asyncio.Task[None] | None = None
        self._ask_at = 0
        self._prices = Prices(self._quotes, policies.costs)
        self._prices.at_step = True  # there is always a present moment
        self._desk: LiveDesk = LiveDesk(
            data.name, self._prices, policies.costs, self._books, clock.now(), self._emit, chain_age_s * 1000.0, self._jump)
        self._memory: Memory | None = None
        """What an earlier run left, while it is not known yet what it missed."""

    # -- the past -----------------------------------------------------------------------------------------------------------

    def reader(self) -> Reader:
        """What is to be shown the journal, so that `recollect` can be given its memory."""
        return Reader(self.name, self._books, self._latency, self._instrument, self._elsewhere, BEFORE_PRICES)

    def _instrument(self, symbol: str) -> Instrument | None:
        series = self._prices.series.get(symbol)
        return series.instrument if series is not None else None

    def recollect(self, memory: Memory) -> None:
        """Take over what an earlier run left; `missed` tells what the market has done to it since. No facts, no past."""
        if memory.at:
            self._memory = memory
            self._remembered = {symbol: one for symbol, one in memory.instruments.items() if one.asset_class is AssetClass.OPTION}
            self._desk.recall(memory.orders.values(), memory.fills, memory.numbers, Step(memory.at), memory.transfers)

    async def missed(self, since: int | None = None) -> Sequence[AccountEvent]:
        """What the market did to our orders and positions while nobody ran, each once. Waits until the venue can be asked. Funding is asked
        for from the last instant on record: of several settlements in it some may be booked and some not."""
        if self._memory is None:
            return ()
        memory, self._memory = self._memory, None
        symbols = self._watched()
        for attempt in count():
            try:
                past = {symbol: await self._past(symbol, memory.at) for symbol in symbols}
                funding = [rate for symbol in symbols for rate in await self._funding(symbol, memory.at - 1)]
                break
            except VenueError as error:
                pause = RETRY_S[min(attempt, len(RETRY_S) - 1)]
                log.warning(f"what was missed is not known yet, again in {pause:g} s", action="catch_up", reason=str(error))
                await asyncio.sleep(pause)
        self._relive(memory, past, funding)
        events: list[AccountEvent] = []
        while not self._events.empty():
            event = self._events.get_nowait()
            if event is not None:
                events.append(event)
        if events:
            log.info("caught up with the market", action="catch_up", reason=f"{len(events)} events while nobody ran")
        return events

    def _relive(self, memory: Memory, past: Mapping[str, Sequence[Bar]], funding: Sequence[FundingRate]) -> None:
        """Bars and settlements in the order they happened, those seen before the end only as the past."""
        due = sorted((rate for rate in funding), key=lambda rate: rate.at, reverse=True)
        for at, symbol, bar in sorted((bar.ts + self.interval_ms(symbol), symbol, bar) for symbol, bars in past.items() for bar in bars):
            while due and due[-1].at < at:
                self._desk.settled((due.pop(),), memory.funded)
            if at <= memory.at:
                self._prices.series[symbol].remember((bar,))
            else:
                self._desk.bar(symbol, bar, broken=bar.ts < memory.at)
        self._desk.settled(reversed(due), memory.funded)

    def _watched(self) -> list[str]:
        """What something rests on or is held in; with a forex pair all of them, for one converts another. Options have no bars: what became
        of those that ended meanwhile is asked for like any other expiry's."""
        watched = [symbol for symbol in self._desk.watched if self._prices.known(symbol).asset_class is not AssetClass.OPTION]
        known = {symbol: self._prices.known(symbol).asset_class for symbol in watched}
        if AssetClass.FOREX in known.values():
            watched = sorted({*watched, *(name for name, one in self._prices.series.items() if one.asset_class is AssetClass.FOREX)})
        return watched

    async def _past(self, symbol: str, since: int) -> Sequence[Bar]:
        """Bars closed since, and as many before as the average volume wants."""
        now = self._clock.now()
        return await self._data.history(symbol, now, max(0, now - since) // self.interval_ms(symbol) + 1 + AVERAGE_BARS)

    async def _funding(self, symbol: str, since: int) -> Sequence[FundingRate]:
        if self._prices.known(symbol).asset_class is not AssetClass.PERP or symbol not in self._desk.held:
            return ()
        if isinstance(self._data, TellsFunding):
            return await self._data.settled_funding(symbol, since)
        log.warning("funding of the time nobody ran is not known here and not booked", action="catch_up", symbol=symbol)
        return ()

    # -- market -------------------------------------------------------------------------------------------------------------

    async def history(self, symbol: str, until: int, bars: int) -> Sequence[Bar]:
        """The venue's. What has closed since a bar was last seen is matched too, for it may close while the daemon warms up."""
        found = await self._data.history(symbol, until, bars)
        series = self._prices.series.get(symbol)
        if series is not None and series.bar is None:
            series.remember(found[-AVERAGE_BARS:])
        elif series is not None:
            for bar in found:
                self._desk.bar(symbol, bar)
        return found

    def interval_ms(self, symbol: str) -> int:
        return self._data.interval_ms(symbol)

    async def admit(self, instruments: Sequence[Instrument]) -> None:
        assert isinstance(self._data, Watches)
        await self._data.admit(instruments)
        for one in instruments:
            if one.symbol not in self._prices.series:
                self._quotes.admit(one, self._data.interval_ms(one.symbol))
                self._prices.admit(one, self._data.interval_ms(one.symbol))

    def watch(self, symbols: Sequence[str]) -> None:
        """What is no longer streamed keeps its last price; nothing is held there, or it would be streamed."""
        assert isinstance(self._data, Watches)
        self._data.watch(symbols)

    async def market_events(self) -> AsyncIterator[Batch]:
        self._keep()
        # A protocol's AsyncIterator may be a generator, and then has to be closed with us.
        async with aclosing(self._data.market_events()) as batches:  # type: ignore[type-var]
            async for batch in batches:
                told = await self._completed(batch)
                self._take(told)
                self._keep()
                if self._emitted:
                    await self._hand_over()
                self._clock.pulse(told.at)
                yield told

    async def _completed(self, batch: Batch) -> Batch:
        """The bars of a batch with those before them that no batch told, in the order of closing."""
        bars: list[tuple[str, Bar]] = []
        for symbol, bar in batch.bars:
            series = self._prices.series.get(symbol)
            if series is not None and series.closed_at and bar.ts > series.closed_at:
                bars += [(symbol, missing) for missing in await self._between(symbol, series.closed_at, bar.ts)]
            bars.append((symbol, bar))
        bars.sort(key=lambda named: named[1].ts)
        return batch._replace(bars=tuple(bars)) if len(bars) > len(batch.bars) else batch

    async def _between(self, symbol: str, since: int, until: int) -> Sequence[Bar]:
        try:
            found = await self._data.history(symbol, until, (until - since) // self.interval_ms(symbol))
        except VenueError as error:
            log.warning("a hole stays a hole", action="listen", symbol=symbol, reason=str(error))
            return ()
        return [bar for bar in found if since <= bar.ts < until]

    def _take(self, batch: Batch) -> None:
        """What this moment does to the account: closed bars before quotes, which are newer than any of them."""
        now, desk, series = self._clock.now(), self._desk, self._prices.series
        desk.rates(batch.funding, batch.financing, now)
        for symbol, bar in batch.bars:
            if symbol in series:
                desk.bar(symbol, bar)
        for symbol, quote in batch.quotes:
            if symbol in series:
                bar_now = series[symbol].bar
                if self._quotes.take(symbol, quote, bar_now.close if bar_now is not None else NAN):
                    desk.quote(symbol, quote, now)
        for chain in batch.chains:
            desk.chain(chain)
        self._settle_options(now)
        if desk.pending:
            desk.trade(now)

    # -- options ----------------------------------------------------------------------------------------------------------

    def contract(self, symbol: str) -> Instrument | None:
        """The rules of a contract that a chain told of, or that an earlier run traded."""
        return self._contract(symbol)

    def silent(self) -> Sequence[str]:
        return self._data.silent() if isinstance(self._data, TellsContracts) else ()

    def _contract(self, symbol: str) -> Instrument | None:
        known = self._remembered.get(symbol)
        return self._data.contract(symbol) if known is None and isinstance(self._data, TellsOptions) else known

    def _keep(self) -> None:
        """What is held or waits stays in the chains, however far the market has gone from it."""
        if isinstance(self._data, TellsOptions):
            waits = (working.order.symbol for working in self._desk.pending if working.order.asset_class is AssetClass.OPTION)
            wallet = self._books.get(AssetClass.OPTION)
            self._data.kept = frozenset((*waits, *(wallet.holdings if wallet is not None else ())))

    def _settle_options(self, now: int) -> None:
        """What expired ends at the price it was delivered at. Until the venue tells that price it stays as it is; it is asked again."""
        due = self._desk.expired(now)
        for instrument in due:
            if (price := self._delivered.pop(instrument.symbol, None)) is not None:
                self._desk.deliver(instrument, price, now)
        waiting = [instrument for instrument in self._desk.expired(now) if instrument.symbol not in self._delivered] if due else []
        if waiting and now >= self._ask_at and (self._asking is None or self._asking.done()):
            self._ask_at = now + DELIVERY_MS
            self._asking = asyncio.create_task(self._ask(waiting), name="deliveries")

    async def _ask(self, expired: Sequence[Instrument]) -> None:
        """On the side, so that nothing waits for an answer but who is told of it."""
        for instrument in expired:
            assert isinstance(self._data, TellsOptions)  # else there would be no options
            try:
                price = await self._data.delivered(instrument)
            except VenueError as error:
                log.warning("the price of an expiry is not known yet", action="settle", symbol=instrument.symbol, reason=str(error))
                return
            spot = self._prices.spot(instrument.underlying)
            if price is not None and spot is not None and not spot / self._jump < float(price) < spot * self._jump:
                log.error("the price of an expiry is not believed", action="settle", symbol=instrument.symbol, reason=f"{price} where "
                          f"{instrument.underlying} stands at {spot:g}")
            elif price is not None:
                self._delivered[instrument.symbol] = price

    # -- orders -----------------------------------------------------------------------------------------------------------

    async def submit(self, order: Order) -> Fate:
        if self._closed:
            return NotSent("the paper venue is closed")
        arrives = self._clock.now() + self._latency
        await self._clock.sleep_until(arrives)
        now = self._clock.now()
        fate = self._desk.accept(order, now, min(now, arrives))
        self._desk.trade(now)
        return fate

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        await super().close()
        await self._data.close()
