"""What a daemon runs with, whoever starts it: the process, a simulation, a test. No authority, no wiring; main.Daemon makes those of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modules.domain.instrument import AssetClass, Instrument
from modules.domain.policies import Policies
from modules.learning.challenge import Challenger, strategy_of
from modules.venues.paper_venue import PaperVenue

if TYPE_CHECKING:
    from decimal import Decimal
    from pathlib import Path

    from modules.domain.decision import Decision
    from modules.domain.events import Fact
    from modules.news.calendar import Calendar
    from modules.news.setup import Setup
    from modules.runtime.clock import Clock
    from modules.store.candles import Candles
    from modules.store.decisions import Decisions
    from modules.store.journal import Journal
    from modules.strategies.protocol import Strategy
    from modules.venues.protocol import MarketSource, Venue
    from modules.venues.selection import Chooser, Chosen


@dataclass(frozen=True)
class Arrival:
    """What only the venues can tell: themselves, and what of them is traded."""

    venues: Mapping[str, Venue]
    references: Mapping[AssetClass, str]
    symbols: frozenset[str]
    choosers: Mapping[str, Chooser] = field(default_factory=dict)
    """Venue -> how to ask for its instruments anew, where a rule chooses them."""
    chosen: Mapping[str, Chosen] = field(default_factory=dict)
    """What those rules chose for this start."""
    listed: Mapping[str, Sequence[Instrument]] = field(default_factory=dict)
    """Venue -> all it lists, where that was asked for on the way."""


@dataclass(frozen=True)
class Plan:
    """What a daemon is to run with; built by the command line from settings, policies and a price source."""

    mode: str
    policies: Policies
    clock: Clock
    journal: Journal
    decisions: Decisions
    venues: Mapping[str, Venue]
    venue_of: Mapping[AssetClass, str]
    settlement: Mapping[AssetClass, str]
    allocate: Mapping[AssetClass, Decimal | None]
    strategies: Mapping[AssetClass, Sequence[Strategy]]
    references: Mapping[AssetClass, str]
    calendar: Calendar
    arrive: Callable[[], Awaitable[Arrival]] | None = None
    """Connects the venues of `venue_of`, however long that takes; None = they are here already."""
    waits: Callable[[str], None] | None = None
    """Told why the start waits for a venue that does not answer in the middle of it; it is tried again then. None = that is an error."""
    news: Setup | None = None
    """Feeds to ask or a recording to replay; None = no headlines, the calendar alone."""
    halt_file: Path | None = None
    symbols: frozenset[str] | None = None
    """What is traded of all that the venues list; None = everything (simulated markets, where nothing else is listed)."""
    blacklist: Sequence[str] = ()
    whitelist: Sequence[str] = ()
    observers: Sequence[Callable[[Fact], None]] = field(default_factory=tuple)
    """Called with every new fact after every authority has seen it: log, console, recorder."""
    after_batch: Sequence[Callable[[int], None]] = field(default_factory=tuple)
    on_decision: Callable[[Decision], None] | None = None
    candles: Candles | None = None
    """Where closed bars are kept for pictures; None = nowhere."""
    certificates: Path | None = None
    """Folder of the certificates; None = nothing is permitted real money."""
    drift: Sequence[str] | None = None
    """The command that compares what was decided with a replay of the same bars and prints it as JSON; None = nobody compares."""
    trials: Path | None = None
    """Folder of the trial registries that certificates were counted in; None = nobody looks."""
    research: Callable[[str, str], Sequence[str]] | None = None
    """(strategy, asset class) -> the command that searches better parameters in sample; None = nobody searches."""
    learning: Path | None = None
    """Folder for the learner's state as a file; None = the journal alone."""
    challengers: Sequence[Challenger] = ()
    """Re-optimized parameters that trade in their champions' shadow."""
    revalidate: Callable[[str, str], Sequence[str]] | None = None
    """(strategy, asset class) -> the command that validates it and prints its verdict as JSON; None = nobody revalidates."""
    announce: Callable[[str], None] | None = None
    """Told what an owner should hear that is no fact: a certificate running out, a weakened gate."""


def simulated_plan(
    source: MarketSource, *, mode: str, policies: Policies, clock: Clock, journal: Journal, decisions: Decisions,
    wallets: Mapping[AssetClass, Decimal], calendar: Calendar, strategies: Mapping[AssetClass, Sequence[Strategy]],
    halt_file: Path | None = None, blacklist: Sequence[str] = (), whitelist: Sequence[str] = (),
    observers: Sequence[Callable[[Fact], None]] = (), after_batch: Sequence[Callable[[int], None]] = (),
    on_decision: Callable[[Decision], None] | None = None, news: Setup | None = None, candles: Candles | None = None,
    certificates: Path | None = None, trials: Path | None = None, revalidate: Callable[[str, str], Sequence[str]] | None = None,
    drift: Sequence[str] | None = None, research: Callable[[str, str], Sequence[str]] | None = None,
    learning: Path | None = None, challengers: Sequence[Challenger] = (), announce: Callable[[str], None] | None = None,
) -> Plan:
    """A daemon on the paper venue over simulated prices: the demo market or recorded data, virtual time or the wall's."""
    currencies = settlement_currencies(source.instruments, wallets, source.option_currency)
    venue = PaperVenue(source, clock, policies.costs, wallets, currencies)
    return Plan(
        mode=mode, policies=policies, clock=clock, journal=journal, decisions=decisions, venues={venue.name: venue},
        venue_of=dict.fromkeys(wallets, venue.name), settlement=currencies, allocate=dict.fromkeys(wallets), strategies=strategies,
        references=reference_series(source.instruments), calendar=calendar, halt_file=halt_file, blacklist=blacklist, whitelist=whitelist,
        observers=observers, after_batch=after_batch, on_decision=on_decision, news=news,
        candles=candles, certificates=certificates, trials=trials, revalidate=revalidate, drift=drift,
        research=research, learning=learning, challengers=challengers, announce=announce,
    )


def resume_at(journal: Journal) -> int | None:
    """Where a simulated market's time goes on after a restart: UTC ms of the latest fact, None for a new journal."""
    return journal.latest_at


def settlement_currencies(instruments: Sequence[Instrument], classes: Iterable[AssetClass], options: str | None) -> dict[AssetClass, str]:
    """The currency most of a class's instruments settle in; of option contracts, which are listed later, the source says it: `options`."""
    found: dict[AssetClass, str] = {}
    for asset_class in classes:
        settles = Counter(i.settle for i in instruments if i.asset_class is asset_class)
        listed = settles.most_common(1)[0][0] if settles else "USD"
        found[asset_class] = options if asset_class is AssetClass.OPTION and options is not None else listed
    return found


def reference_series(instruments: Sequence[Instrument]) -> dict[AssetClass, str]:
    """The leader each class's strategies may look at: bitcoin for crypto (options: its perpetual), EUR/USD for forex."""
    found: dict[AssetClass, str] = {}
    for asset_class, underlying in ((AssetClass.SPOT, "BTC"), (AssetClass.PERP, "BTC"), (AssetClass.FOREX, "EUR/USD")):
        symbol = next((i.symbol for i in instruments if i.asset_class is asset_class and i.underlying == underlying), None)
        if symbol is not None:
            found[asset_class] = symbol
    leader = found.get(AssetClass.PERP, found.get(AssetClass.SPOT))
    if leader is not None:
        found[AssetClass.OPTION] = leader
    return found


def with_challengers(
    strategies: Mapping[AssetClass, Sequence[Strategy]], challengers: Sequence[Challenger],
) -> dict[AssetClass, tuple[Strategy, ...]]:
    """Every class's strategies and, after them, the challengers of those among them."""
    found = {}
    for asset_class, listed in strategies.items():
        known = {strategy.name: strategy for strategy in listed}
        made = (strategy_of(one, known) for one in challengers if one.asset_class is asset_class)
        found[asset_class] = (*listed, *(one for one in made if one is not None))
    return found
