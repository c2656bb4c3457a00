"""Where a daemon trades: real accounts, or paper on their live prices. Opens the venues the settings name and waits until they answer.

Refuses, with every fault at once and before anything leaves for a network: live trading where a venue lacks a capability, a missing key,
a class the venue has not, an account that another daemon has. A venue that cannot be reached is asked again with growing pauses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from decimal import Decimal
from typing import TYPE_CHECKING, Final, TypeVar

import main
from modules.cli.choosing import Asking, last_choice
from modules.domain.errors import ConfigurationError, VenueBusy, VenueDenied, VenueError
from modules.domain.events import PositionClosed, TradeAbandoned, TradeOpened
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.policies import Policies
from modules.domain.settings import Settings, VenueSettings
from modules.runtime import keyfile
from modules.store.lock import AccountLock
from modules.venues import factory
from modules.venues.live_paper import LivePaperVenue
from modules.venues.paper_book import PaperBook
from modules.venues.protocol import Venue
from modules.venues.selection import Chooser, Chosen

if TYPE_CHECKING:
    from modules.runtime.clock import Clock
    from modules.store.journal import Journal

RETRY_S: Final = (2.0, 5.0, 10.0, 30.0, 60.0)
"""Waits between attempts to reach a venue at start; the last one repeats."""
RETRY_HELD_S: Final = (0.5, 1.0, 2.0, 5.0)
"""The same while something is held there: nobody looks after its stop meanwhile."""
T = TypeVar("T")


def check(settings: Settings) -> None:
    """Raises ConfigurationError with everything that speaks against trading these venues in this mode."""
    trading = settings.mode == "live"
    faults = [fault for name, venue in settings.venues.items() for fault in factory.faults(name, venue, trading=trading)]
    if faults:
        raise ConfigurationError(faults)


def lock_accounts(settings: Settings, held: ExitStack) -> None:
    """Hold every account that is traded with real money for as long as `held` lasts. Raises StateLocked, ConfigurationError."""
    for name, venue in settings.venues.items():
        account = venue.account_id
        if not account and venue.key_file is not None:
            account, _ = keyfile.read_pair(venue.key_file, f"venues.{name}.key_file")
        # An emulator is another account. Any other address is not: the venue's own may be written out, and has more than one name.
        emulator = venue.endpoint.rstrip("/") if factory.on_this_machine(venue.endpoint) else ""
        held.enter_context(AccountLock(name, f"{account} {emulator}".strip()))


def venue_of(settings: Settings) -> dict[AssetClass, str]:
    """Which venue trades each class."""
    return {asset_class: name for name, venue in settings.venues.items() for asset_class in venue.classes}


def settlement(settings: Settings) -> dict[AssetClass, str]:
    """The currency each class's books are kept in."""
    return {asset_class: _currency(settings, name) for asset_class, name in venue_of(settings).items()}


def allocate(settings: Settings) -> dict[AssetClass, Decimal | None]:
    """What each class may use of its wallet; on paper everything."""
    return {asset_class: venue.allocate.get(asset_class) if settings.mode == "live" else None
            for venue in settings.venues.values() for asset_class in venue.classes}


async def opened(settings: Settings, policies: Policies, clock: Clock, journal: Journal, told: Callable[[str], None]) -> main.Arrival:
    """The venues of `settings`, reached. Waits for those that do not answer and tells why. Raises ConfigurationError where waiting would
    not help."""
    held, where = _held(journal), venue_of(settings)
    venues: dict[str, Venue] = {}
    traded: list[Instrument] = []
    choosers: dict[str, Chooser] = {}
    chosen: dict[str, Chosen] = {}
    listed: dict[str, Sequence[Instrument]] = {}
    await asyncio.to_thread(factory.prepare, tuple(settings.venues))
    async with AsyncExitStack() as unless_all:
        for name, venue in settings.venues.items():
            keep = {symbol for symbol, asset_class in held.items() if where.get(asset_class) == name and not _contract(symbol)}
            opening = _Opening(name, venue, settings, policies, clock, keep, journal)
            waits = RETRY_HELD_S if name in {where.get(asset_class) for asset_class in held.values()} else RETRY_S
            found, instruments = await _reached(name, clock, told, opening.open, waits)
            unless_all.push_async_callback(found.close)
            venues[name], listed[name] = found, opening.listed
            traded += instruments
            if opening.chosen is not None:
                choosers[name], chosen[name] = opening.asking.by_rule, opening.chosen
        unless_all.pop_all()
    symbols = (*(instrument.symbol for instrument in traded), *(symbol for symbol in held if _contract(symbol)))
    return main.Arrival(venues, main.reference_series(traded), frozenset(symbols), choosers, chosen, listed)


def _currency(settings: Settings, name: str) -> str:
    return settings.venues[name].settlement or factory.known(name).settlement


def _contract(symbol: str) -> bool:
    """An option contract: it is streamed with its underlying, not by its own name."""
    return symbol.endswith(("-C", "-P"))


def _held(journal: Journal) -> dict[str, AssetClass]:
    """Symbols of trades that were open when the journal ended: what is held is streamed whatever the rules say today."""
    open_trades: dict[str, TradeOpened] = {}
    for fact in journal.of(TradeOpened, PositionClosed, TradeAbandoned):
        if isinstance(fact, TradeOpened):
            open_trades[fact.trade_id] = fact
        elif isinstance(fact, PositionClosed):
            open_trades.pop(fact.trade.trade_id, None)
        elif isinstance(fact, TradeAbandoned):
            open_trades.pop(fact.trade_id, None)
    return {symbol: trade.asset_class for trade in open_trades.values() for symbol in (trade.symbol, *(leg.symbol for leg in trade.legs))}


class _Opening:
    """One venue: what of it is traded, and the adapter for that."""

    def __init__(self, name: str, venue: VenueSettings, settings: Settings, policies: Policies, clock: Clock, held: set[str],
                 journal: Journal) -> None:
        self._name = name
        self._venue = venue
        self._settings = settings
        self._policies = policies
        self._clock = clock
        self._held = held
        self._journal = journal
        self.asking = Asking(name, venue, policies, clock)
        self.chosen: Chosen | None = None
        """What its rule chose, where it has one."""
        self.listed: Sequence[Instrument] = ()
        """All it lists; empty where paper trades on its prices."""

    def _connect(self, symbols: Sequence[str], *, trading: bool) -> Venue:
        return factory.connect(self._name, self._venue, clock=self._clock, policies=self._policies, trading=trading, symbols=symbols)

    async def open(self) -> tuple[Venue, list[Instrument]]:
        symbols = await self._chosen()
        live = self._settings.mode == "live"
        async with AsyncExitStack() as unless_listed:
            venue = self._connect(symbols, trading=live)
            unless_listed.push_async_callback(venue.close)
            listed = await venue.instruments()
            unless_listed.pop_all()
        wanted = frozenset(symbols)
        instruments = [instrument for instrument in listed if instrument.symbol in wanted]
        self.listed = listed if live else ()
        return venue if live else self._paper(venue, instruments), instruments

    async def _chosen(self) -> Sequence[str]:
        if self._venue.select is None:
            return (await self.asking.symbols(self._held)).symbols
        self.chosen = await self.asking.going_on(last_choice(self._journal, self._name))
        return tuple(dict.fromkeys((*self.chosen.choice.symbols, *self._held)))

    def _paper(self, data: Venue, instruments: Sequence[Instrument]) -> LivePaperVenue:
        books = {asset_class: PaperBook(_currency(self._settings, self._name), self._settings.dry_run_wallet[asset_class])
                 for asset_class in self._venue.classes}
        elsewhere = [c for c in AssetClass if c not in books and any(c in venue.classes for venue in self._settings.venues.values())]
        return LivePaperVenue(data, instruments, self._clock, self._policies, books, elsewhere, factory.chains_of(self._venue).believed_s)


async def _reached(name: str, clock: Clock, told: Callable[[str], None], ask: Callable[[], Awaitable[T]], waits: Sequence[float]) -> T:
    """The answer, however long the venue takes to be there; each failure is told. Raises ConfigurationError if it denies us."""
    attempt = 0
    while True:
        try:
            return await ask()
        except VenueDenied as error:
            raise ConfigurationError([f"venues.{name}: {error}"]) from None
        except VenueError as error:
            pause = waits[min(attempt, len(waits) - 1)]
            attempt += 1
            told(f"{name} cannot be reached, again in {pause:g} s: {error}")
            await asyncio.sleep(pause)
            if isinstance(error, VenueBusy):
                await clock.sleep_until(error.until)
