"""Which of a venue's instruments are traded, by the owner's rule: the most traded with narrow spreads that have been listed a while.

Owns the choice and its reasons. `choose` is pure; `symbols_for` asks the venue what it needs to know. A measure nobody knows never passes;
what is held is always kept. Refuses a rule that leaves nothing and a fixed list that names what the venue does not list.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, runtime_checkable

import structlog

from modules.domain.errors import ConfigurationError
from modules.domain.instrument import ASSET_CLASSES, DOLLARS, AssetClass, Instrument
from modules.domain.settings import SelectSettings, VenueSettings, matches, plain

log = structlog.get_logger("selection")

DAY_MS: Final = 86_400_000
UNKNOWN_AGE: Final = "its age is unknown"
"""The one measure that is asked for only where everything else passes."""


class Statistic(NamedTuple):
    """What a venue says of one instrument now. NaN and None = it does not say."""

    symbol: str
    quote_volume_24h: float = math.nan
    """USD."""
    bid: float = math.nan
    ask: float = math.nan
    listed_at: int | None = None
    """UTC ms; some time that is not before the listing, at least."""

    @property
    def spread_ratio(self) -> float:
        """(ask - bid) / ask; NaN unless both are sane."""
        return (self.ask - self.bid) / self.ask if 0.0 < self.bid <= self.ask < math.inf else math.nan


class Choice(NamedTuple):
    symbols: tuple[str, ...]
    """Best first, class by class; held ones that no rule would have chosen come last."""
    left_out: Mapping[str, str]
    """Symbol -> why not."""


class Listing(Protocol):
    """What a venue adapter tells of its whole market. Reads raise VenueError."""

    name: str

    async def offered(self) -> Sequence[Instrument]:
        """Every instrument of the configured classes, streamed or not."""
        ...

    async def statistics(self) -> Sequence[Statistic]:
        """One row per offered instrument that the venue speaks of, in its order."""
        ...

    async def listed_before(self, symbol: str, at: int) -> int | None:
        """Open time (UTC ms) of a daily candle at or before `at`, the earliest that costs one question; None = there is none."""
        ...


class Chosen(NamedTuple):
    """A venue's choice by the owner's rule."""

    rule: str
    """What it was made by, in one line: another rule is another choice."""
    asked_at: int
    """UTC ms."""
    choice: Choice
    """Without what is held."""
    instruments: Mapping[str, Instrument]
    """The rules of everything that is offered."""
    every_ms: int
    """How long it stands."""


Chooser = Callable[[], Awaitable[Chosen]]
"""Asks a venue anew. Raises VenueError, ConfigurationError where the rule leaves nothing."""


@runtime_checkable
class Watches(Protocol):
    """A venue whose stream can be changed while it runs."""

    async def admit(self, instruments: Sequence[Instrument]) -> None:
        """These may be asked for their past and traded from now on. Raises VenueError."""
        ...

    def watch(self, symbols: Sequence[str]) -> None:
        """Stream exactly these from now on. All of them were admitted, or there from the start."""
        ...


def rule_of(rule: SelectSettings) -> str:
    """The rule in one line; equal rules give equal lines."""
    return json.dumps(plain(rule.model_dump()), sort_keys=True, separators=(",", ":"))


def choose(instruments: Sequence[Instrument], statistics: Sequence[Statistic], rule: SelectSettings, *, now: int,
           held: Collection[str] = ()) -> Choice:
    """The `rule.number_assets` best of each class, and of every other instrument why it was left out. `now` is UTC ms.

    Ranked by 24 h quote volume, forex by spread. Equal ones in the order of their names, so that the same figures give the same choice.
    """
    known = {row.symbol: row for row in statistics}
    chosen: list[str] = []
    left_out: dict[str, str] = {}
    for asset_class in ASSET_CLASSES:
        passed: list[tuple[float, str]] = []
        for instrument in instruments:
            if instrument.asset_class is not asset_class:
                continue
            row = known.get(instrument.symbol, Statistic(instrument.symbol))
            if reason := _against(instrument, row, rule, now):
                left_out[instrument.symbol] = reason
            else:
                forex = asset_class is AssetClass.FOREX
                passed.append((row.spread_ratio if forex else -row.quote_volume_24h, instrument.symbol))
        passed.sort()
        chosen += [symbol for _, symbol in passed[:rule.number_assets]]
        for place, (measure, symbol) in enumerate(passed[rule.number_assets:], rule.number_assets + 1):
            by = f"spread {measure:.3%}" if asset_class is AssetClass.FOREX else f"24 h volume ${-measure:,.0f}"
            left_out[symbol] = f"place {place} by {by}; number_assets is {rule.number_assets}"
    kept = [symbol for symbol in dict.fromkeys(held) if symbol not in chosen]
    return Choice((*chosen, *kept), {symbol: reason for symbol, reason in left_out.items() if symbol not in kept})


def _against(instrument: Instrument, row: Statistic, rule: SelectSettings, now: int) -> str:
    """Why the rule leaves it out whatever the others are like, "" if it does not. Age comes last: it is the dearest to ask for."""
    symbol, forex = instrument.symbol, instrument.asset_class is AssetClass.FOREX
    if instrument.asset_class is AssetClass.OPTION:
        return "options come with their underlyings"
    if matches(symbol, rule.pair_blacklist):
        return "on pair_blacklist"
    if rule.pair_whitelist and not matches(symbol, rule.pair_whitelist):
        return "not on pair_whitelist"
    if not forex:
        if instrument.quote not in rule.quote_currencies:
            return f"quoted in {instrument.quote}, not in {', '.join(rule.quote_currencies)}"
        if math.isnan(row.quote_volume_24h):
            return "its 24 h volume is unknown"
        if row.quote_volume_24h < rule.min_value:
            return f"24 h volume ${row.quote_volume_24h:,.0f} is below ${rule.min_value:,.0f}"
    spread = row.spread_ratio
    if math.isnan(spread):
        return "its spread is unknown"
    if spread > rule.max_spread_ratio:
        return f"spread {spread:.3%} is above {rule.max_spread_ratio:.3%}"
    if rule.min_days_listed and not forex:
        if row.listed_at is None:
            return UNKNOWN_AGE
        days = (now - row.listed_at) / DAY_MS
        if days < rule.min_days_listed:
            return f"listed {max(days, 0.0):.0f} days ago; min_days_listed is {rule.min_days_listed}"
    return ""


async def symbols_for(listing: Listing, settings: VenueSettings, held: Collection[str], *, now: int, usual: Sequence[str] = ()) -> Choice:
    """What to trade on this venue: by `settings.select` where there is one, else the fixed `settings.symbols`, which must be listed, else
    those of `usual` that are. `held` symbols are always kept. `now` is UTC ms.

    Raises VenueError, and ConfigurationError where nothing would be left or a fixed symbol is not listed; but where something is held a
    start goes on without it, for it is needed more than a list is right.
    """
    offered = [one for one in await listing.offered() if one.asset_class in settings.classes]
    names = {one.symbol for one in offered}
    if settings.select is None:
        if absent := [_absent(listing.name, symbol, names) for symbol in settings.symbols if symbol not in names]:
            if not held:
                raise ConfigurationError(absent)
            log.error("not listed any more, and not traded", action="select", exchange=listing.name, reason="; ".join(absent))
        fixed = [symbol for symbol in settings.symbols or usual if symbol in names]
        return Choice(tuple(dict.fromkeys((*fixed, *held))), {})
    choice = await by_rule(listing, offered, settings.select, held, now=now)
    log.info("instruments chosen", action="select", exchange=listing.name, chosen=list(choice.symbols), left_out=len(choice.left_out))
    if not choice.symbols:
        few = [f"venues.{listing.name}.select: {symbol}: {reason}" for symbol, reason in list(choice.left_out.items())[:5]]
        raise ConfigurationError([f"venues.{listing.name}.select: leaves none of {len(offered)} instruments; loosen it, or see: "
                                  f"python main.py list-instruments --venue {listing.name} --all", *few])
    return choice


async def by_rule(listing: Listing, offered: Sequence[Instrument], rule: SelectSettings, held: Collection[str], *, now: int) -> Choice:
    """`choose`, asking the age only of those that it could still change. May choose nothing. Raises VenueError."""
    rows = {row.symbol: row for row in await listing.statistics()}
    ageless = rule.model_copy(update={"min_days_listed": 0})
    while True:
        choice = choose(offered, list(rows.values()), rule, now=now, held=held)
        unknown = {symbol for symbol, reason in choice.left_out.items() if reason == UNKNOWN_AGE}
        if not unknown:
            return choice
        # Those whose age is known and too low are out of the running; of the rest the best could be chosen if they are old enough.
        running = [one for one in offered if one.symbol not in choice.left_out or one.symbol in unknown]
        wanted = [symbol for symbol in choose(running, list(rows.values()), ageless, now=now).symbols if symbol in unknown]
        if not wanted:
            return choice
        for symbol in wanted:
            at = await listing.listed_before(symbol, now - rule.min_days_listed * DAY_MS)
            rows[symbol] = rows[symbol]._replace(listed_at=at if at is not None else now)


def _absent(venue: str, symbol: str, names: Collection[str]) -> str:
    near = alike(symbol, names)
    return f"venues.{venue}.symbols: {symbol} is not listed there" + (f"; did you mean {near}?" if near else "")


def alike(symbol: str, names: Collection[str]) -> str:
    """What was probably meant by `symbol`, "" = nothing that is listed. That two are paid for in the same coin makes them no more alike."""
    bases = {name.partition("/")[0]: None for name in names}
    for base in difflib.get_close_matches(symbol.partition("/")[0].upper(), list(bases), 3, 0.6):
        if near := difflib.get_close_matches(symbol.upper(), [name for name in names if name.partition("/")[0] == base], 1):
            return near[0]
    return ""


def usd_volume(quote: str, quote_volume: object) -> float:
    """A venue's 24 h quote volume in USD: NaN unless it is a number in a dollar currency."""
    sane = isinstance(quote_volume, int | float) and not isinstance(quote_volume, bool) and math.isfinite(quote_volume)
    return float(quote_volume) if sane and quote in DOLLARS and quote_volume >= 0 else math.nan  # type: ignore[arg-type, operator]
