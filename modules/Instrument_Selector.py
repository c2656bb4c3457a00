"""Owns which instruments are traded: what of each venue's listing is watched and warmed up, and the owner's rule asked anew every day.

Alone writes InstrumentsChosen. May refuse to let go: an instrument with a position, an order or a stop is watched until it is flat, and so
is what leads its class or carries options; what the rule did not choose opens nothing meanwhile. Where a venue cannot be asked, or the
rule leaves nothing, the last choice stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import structlog

from modules.domain.errors import ConfigurationError, VenueDenied, VenueError
from modules.domain.events import Fact, InstrumentsChosen
from modules.domain.instrument import DOLLARS, AssetClass, Instrument
from modules.domain.market import Bar
from modules.runtime import failpoint
from modules.venues.selection import Chooser, Chosen, Watches

if TYPE_CHECKING:
    from modules.domain.position import Position
    from modules.Market_Data import MarketData
    from modules.runtime.clock import Clock
    from modules.store.candles import Candles
    from modules.store.journal import Journal
    from modules.strategies.protocol import Strategy
    from modules.Strategy_Manager import StrategyManager
    from modules.Trade_Executor import TradeExecutor
    from modules.venues.protocol import Venue

log = structlog.get_logger("Instrument_Selector")

DAY_MS: Final = 86_400_000
HISTORY_MS: Final = 31 * DAY_MS
"""How much past the correlation filter wants at start."""
PICTURED: Final = 200
"""Bars of it that are kept for pictures."""
ASKED_TOGETHER: Final = 4
"""Pasts that are asked for at a time."""
HISTORY_RETRY_S: Final = (1.0, 5.0, 15.0)
"""Waits after each failed attempt to learn a symbol's past."""
LOOK_MS: Final = 60_000
"""How often it is looked whether something that is to go is flat by now, or a choice has grown old."""
AGAIN_MS: Final = 15 * 60_000
"""A choice that could not be made is tried again after this."""

StrategiesNow = Callable[[], Mapping[AssetClass, Sequence["Strategy"]]]


class InstrumentSelector:
    """`positions` by symbol; `strategies_now` gives what runs today, with the parameters in force; `symbols` is what a fixed list or the
    choice at start names, None = everything that is listed; `announce` hears what the owner should know of."""

    def __init__(
        self, *, journal: Journal, clock: Clock, market: MarketData, strategies: StrategyManager, executor: TradeExecutor,
        positions: Mapping[str, Position], strategies_now: StrategiesNow, candles: Candles | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._market = market
        self._strategies = strategies
        self._executor = executor
        self._positions = positions
        self._strategies_now = strategies_now
        self._candles = candles
        self._announce = announce if announce is not None else lambda words: None
        self._choosers: Mapping[str, Chooser] = {}
        self._last: dict[str, InstrumentsChosen] = {}
        self._every_ms: dict[str, int] = {}
        self._again_at: dict[str, int] = {}
        self._listed: dict[str, list[str]] = {}
        """Venue -> the series it streams."""
        self._new: set[str] = set()
        """Came with the last choice and are not warm yet."""
        self._leading: frozenset[str] = frozenset()

    # -- what others ask --------------------------------------------------------------------------------------------------

    def apply(self, fact: Fact) -> None:
        """Projection."""
        if isinstance(fact, InstrumentsChosen):
            self._last[fact.venue] = fact

    @property
    def barred(self) -> Collection[str]:
        """What is watched and may open nothing: the rule did not choose it, or it has only just come."""
        return {symbol for venue, fact in self._last.items() if venue in self._choosers for symbol in fact.kept} | self._new

    # -- the start --------------------------------------------------------------------------------------------------------

    def list(self, venue: Venue, listed: Sequence[Instrument], symbols: frozenset[str] | None) -> None:
        """Watch what of `listed` is traded: `symbols`, None = all of it."""
        traded = listed if symbols is None else [instrument for instrument in listed if instrument.symbol in symbols]
        self._market.list_instruments(traded, venue.interval_ms)
        self._listed[venue.name] = [one.symbol for one in traded if one.symbol in self._market.series]

    def begin(self, choosers: Mapping[str, Chooser], chosen: Mapping[str, Chosen], leading: Collection[str], at: int) -> None:
        """What the rules chose at this start, on record where it is not already; from now on `run` asks `choosers`."""
        self._choosers = choosers
        self._leading = frozenset(leading)
        for name, found in chosen.items():
            self._every_ms[name] = found.every_ms
            symbols = tuple(symbol for symbol in found.choice.symbols if symbol in self._market.series)
            last = self._last.get(name)
            before = {} if last is None else dict.fromkeys((*last.symbols, *last.kept))
            kept = {symbol: self._needed(symbol) or "it was held" for symbol in self._listed[name] if symbol not in symbols}
            went = {symbol: found.choice.left_out.get(symbol, "no longer listed") for symbol in before
                    if symbol not in symbols and symbol not in kept}
            if last is None or (last.rule, last.asked_at, last.symbols, last.kept) != (found.rule, found.asked_at, symbols, kept):
                came = tuple(symbol for symbol in symbols if symbol not in before)
                self._record(InstrumentsChosen(at, name, found.rule, found.asked_at, symbols, kept, came, went))

    async def warm_up(self, venues: Sequence[Venue], at: int) -> None:
        """The past, for the market's books and the strategies. Over a wire it takes a while: what is held is looked after meanwhile."""
        for venue in venues:
            await self._warm(venue, self._listed[venue.name], at)
        failpoint.hit("start.warmed")
        self._market.returns.prepare()

    async def _history(self, venue: Venue, symbol: str, at: int) -> Sequence[Bar]:
        """All the past that is wanted of a symbol. Where a venue does not tell it even when asked again there is none: its strategies then
        open nothing until they have seen enough."""
        bars = HISTORY_MS // venue.interval_ms(symbol)
        for pause in HISTORY_RETRY_S:
            try:
                return await venue.history(symbol, at, bars)
            except VenueError as error:
                log.warning("no history yet", action="warm_up", symbol=symbol, reason=str(error))
                if isinstance(error, VenueDenied):
                    break  # asking again would only keep the other venues waiting
                await asyncio.sleep(pause)
        return ()

    async def _pasts(self, venue: Venue, symbols: Sequence[str], at: int) -> AsyncIterator[tuple[str, Sequence[Bar]]]:
        """Every series' past; over a wire several are asked for at a time, for most of that is waiting. (One after the other nothing is
        handed to the loop, on which a simulated clock would move.)"""
        together = 1 if venue.capabilities.in_process and not isinstance(venue, Watches) else ASKED_TOGETHER
        for first in range(0, len(symbols), together):
            some = symbols[first:first + together]
            if together == 1:
                pasts = [await self._history(venue, some[0], at)]
            else:
                pasts = await asyncio.gather(*(self._history(venue, symbol, at) for symbol in some))
            for symbol, bars in zip(some, pasts, strict=True):
                yield symbol, bars

    async def _warm(self, venue: Venue, symbols: Sequence[str], at: int) -> None:
        """Show the past to the market's books and, as much as they need of it, to the strategies."""
        async for symbol, bars in self._pasts(venue, symbols, at):
            series = self._market.series[symbol]
            needed = max((runner.strategy.warmup for runner in self._strategies.runners.get(symbol, ())), default=0)
            first = max(0, len(bars) - max(needed, DAY_MS // series.interval_ms))
            self._market.remember(symbol, bars[:first])
            if self._candles is not None:
                self._candles.append(symbol, series.interval_ms, bars[-PICTURED:])
            for bar in bars[first:]:
                if self._market.take(symbol, bar):
                    self._strategies.warm(symbol, bar)

    # -- every day --------------------------------------------------------------------------------------------------------

    async def run(self, venues: Mapping[str, Venue]) -> None:
        """Ask each venue with a rule again when its choice has grown old, and let go of what is flat by then. Ends where there is none."""
        while self._choosers:
            await self._clock.sleep_until(self._clock.now() + LOOK_MS)
            for name in self._choosers:
                await self.look(venues[name], self._clock.now())

    async def look(self, venue: Venue, at: int) -> None:
        """One look at one venue's choice."""
        last = self._last[venue.name]
        if at >= max(last.asked_at + self._every_ms[venue.name], self._again_at.get(venue.name, 0)):
            await self._choose(venue, at)
        elif free := {symbol: "flat by now" for symbol in last.kept if not self._needed(symbol)}:
            kept = {symbol: why for symbol, why in last.kept.items() if symbol not in free}
            self._change(venue, InstrumentsChosen(at, venue.name, last.rule, last.asked_at, last.symbols, kept, (), free))

    async def _choose(self, venue: Venue, at: int) -> None:
        name = venue.name
        try:
            found = await self._choosers[name]()
            assert isinstance(venue, Watches)    # as every venue that has instruments by rule
            present = self._listed[name]
            came = [found.instruments[symbol] for symbol in found.choice.symbols if symbol not in present]
            await venue.admit(came)
        except (VenueError, ConfigurationError) as error:
            first = name not in self._again_at
            self._again_at[name] = at + AGAIN_MS
            log.warning("instruments not chosen anew: the last choice stands", action="select", exchange=name, reason=str(error))
            if first:
                self._announce(f"{name}: the day's instruments could not be chosen, the last choice stands: {error}")
            return
        self._again_at.pop(name, None)
        self._every_ms[name] = found.every_ms
        now = self._clock.now()
        symbols = tuple(found.choice.symbols)
        going = [symbol for symbol in present if symbol not in symbols]
        kept = {symbol: why for symbol in going if (why := self._needed(symbol))}
        went = {symbol: found.choice.left_out.get(symbol, "no longer listed") for symbol in going if symbol not in kept}
        self._new = {one.symbol for one in came}
        self._market.list_instruments(came, venue.interval_ms)
        self._strategies.add(self._new, self._strategies_now())
        if came:
            await self._warm(venue, [one.symbol for one in came], now)
            self._market.returns.prepare()
        # What is held may have changed while the past was asked for; from here on nothing waits.
        for symbol in [symbol for symbol in went if self._needed(symbol)]:
            kept[symbol] = self._needed(symbol)
            del went[symbol]
        self._change(venue, InstrumentsChosen(
            self._clock.now(), name, found.rule, found.asked_at, symbols, kept, tuple(one.symbol for one in came), went))
        self._new = set()

    def _change(self, venue: Venue, fact: InstrumentsChosen) -> None:
        """On record first; then the stream, the strategies and the market follow."""
        self._record(fact)
        watched = [*fact.symbols, *fact.kept]
        if fact.came or fact.went:
            assert isinstance(venue, Watches)
            venue.watch(watched)
        for symbol in fact.went:
            self._strategies.remove(symbol)
            self._market.drop(symbol)
        self._listed[venue.name] = [symbol for symbol in watched if symbol in self._market.series]

    def _record(self, fact: InstrumentsChosen) -> None:
        self._journal.append(fact)
        log.info("instruments chosen", action="select", exchange=fact.venue, chosen=list(fact.symbols), came=list(fact.came),
                 went=fact.went, kept=fact.kept)

    def _converts(self, symbol: str) -> str:
        """What else is watched whose money is counted by this pair's price, "" = nothing: without it nobody knows what that is worth."""
        pair = self._market.instrument(symbol)
        for other, series in self._market.series.items():
            one = series.instrument
            if pair is None or other == symbol or _same(one.quote, one.settle):
                continue
            if (pair.base == one.quote and _same(pair.quote, one.settle)) or (pair.quote == one.quote and _same(pair.base, one.settle)):
                return other
        return ""

    def _needed(self, symbol: str) -> str:
        """Why it must stay watched, "" = nothing speaks for it."""
        if symbol in self._positions:
            return "a position is open"
        for trade in self._executor.trades.values():
            if symbol == trade.opened.symbol or any(leg.symbol == symbol for leg in trade.opened.legs):
                return "a trade is open"
        if any(record.order.symbol == symbol and record.working for record in self._executor.orders.values()):
            return "an order or a stop is working"
        if (other := self._converts(symbol)):
            return f"it converts {other}"
        if symbol in self._leading:
            return "it leads its class"
        return "options are watched on it" if self._strategies.carries_options(symbol) else ""


def _same(currency: str, other: str) -> bool:
    return currency == other or (currency in DOLLARS and other in DOLLARS)
