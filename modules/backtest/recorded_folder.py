"""Takes a folder of recordings apart: which file is which instrument's bars, marks, rates; which series of a symbol is the main one.

Refuses a folder with faulty files, all faults at once, unless told to leave those out. Whatever is not used is named with its reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from modules.backtest.recorded_calendar import InterestRates, Replay, financing_of, merged_events, read_events, read_interest, read_replay
from modules.backtest.recorded_chains import Chains, merge_chains, read_chains
from modules.backtest.recorded_files import Bars, Values, iso, join_bars, join_values, read_bars, read_universe, read_values
from modules.backtest.recorded_names import (
    BID_ONLY_VENUES,
    SUFFIXES,
    USD_VOLUME_VENUES,
    Kind,
    Market,
    Named,
    NotOurs,
    market_of,
    name_of,
    timeframe_of,
)
from modules.backtest.recorded_specs import Steps, instrument_of, read_instruments, venue_steps
from modules.domain.errors import DataError
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.policies import CostPolicy
from modules.venues.protocol import MacroEvent

HOUR_MS: Final = 3_600_000
_ORDER: Final = list(AssetClass)


@dataclass(frozen=True, slots=True)
class Series:
    """One instrument's bars with what belongs to them. Marks are stamped with the time they were valid at (their bar's close)."""

    instrument: Instrument
    interval_ms: int
    bars: Bars
    marks: Values | None = None
    funding: Values | None = None
    funding_interval_h: int = 8
    financing: Values | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    series: list[Series]
    chains: Chains | None
    chain_venue: str
    contracts: dict[str, Instrument]
    """Option contracts an export lists."""
    events: list[MacroEvent]
    replay: Replay
    skipped: list[tuple[str, str]]
    notes: list[str]


@dataclass(slots=True)
class _Found:
    """Everything read so far, by what it belongs to. Keys: (venue, market) and, for bars, the bar length."""

    bars: dict[tuple[str, Market, int], list[Bars]] = field(default_factory=lambda: defaultdict(list))
    values: dict[tuple[Kind, str, Market], list[Values]] = field(default_factory=lambda: defaultdict(list))
    chains: list[tuple[Path, dict[str, npt.NDArray[Any]]]] = field(default_factory=list)
    chain_venue: str = ""
    events: list[MacroEvent] = field(default_factory=list)
    interest: InterestRates = field(default_factory=lambda: InterestRates({}))
    skipped: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def load_folder(folder: Path, classes: Collection[AssetClass] | None, timerange: tuple[int | None, int | None], costs: CostPolicy | None,
                timeframe: str | None, *, skip_faulty: bool) -> Loaded:
    """Reads what `classes`, `timerange` (UTC ms) and `timeframe` ask for. Raises DataError with every fault of every file."""
    if not folder.is_dir():
        raise DataError([f"{folder}: no such folder; name one that holds recorded files"])
    wanted = frozenset(classes) if classes is not None else frozenset(AssetClass)
    found = _Found()
    for path in sorted(path for path in folder.rglob("*") if path.name.endswith(SUFFIXES)):
        named = name_of(path)
        reason = named.reason if isinstance(named, NotOurs) else _unwanted(named, wanted, timeframe)
        if isinstance(named, NotOurs) or reason:
            found.skipped.append((str(path.relative_to(folder)), reason))
            continue
        try:
            _read(named, found, timeframe)
        except DataError as error:
            if skip_faulty:
                found.skipped.append((str(path.relative_to(folder)), "; ".join(error.faults)))
            else:
                found.faults.extend(error.faults)
    replay, listed = Replay(), list[Instrument]()
    try:
        if (folder / "replay.json").is_file():
            replay = read_replay(folder / "replay.json")
        if (folder / "instruments.json").is_file():
            listed = read_instruments(folder / "instruments.json")
    except DataError as error:
        found.faults.extend(error.faults)
    if found.faults:
        raise DataError(found.faults)
    return _assemble(found, folder, timerange, costs, replay, listed)


def _unwanted(named: Named, wanted: frozenset[AssetClass], timeframe: str | None) -> str:
    """Why this file is not read, "" if it is."""
    asset_class = {Kind.CHAIN: AssetClass.OPTION, Kind.UNIVERSE: AssetClass.SPOT, Kind.INTEREST: AssetClass.FOREX}.get(named.kind)
    if named.market is not None:
        asset_class = named.market.asset_class
    if asset_class is not None and asset_class not in wanted:
        return f"{asset_class} was not asked for"
    if timeframe and named.kind in (Kind.BARS, Kind.UNIVERSE) and named.timeframe not in (timeframe, None):
        return f"bars of {named.timeframe}, {timeframe} was asked for"
    return ""


def _read(named: Named, found: _Found, timeframe: str | None) -> None:
    path, market = named.path, named.market
    if named.kind is Kind.EVENTS:
        found.events.extend(read_events(path))
    elif named.kind is Kind.INTEREST:
        found.interest = read_interest(path)
    elif named.kind is Kind.CHAIN:
        found.chains.append((path, read_chains(path)))
        found.chain_venue = named.venue
    elif named.kind is Kind.UNIVERSE:
        _read_universe(named, found)
    elif market is None:
        raise AssertionError(f"{path.name}: a {named.kind} file without a market")
    elif named.kind is Kind.BARS:
        bars, interval = read_bars(path, named.timeframe)
        if timeframe and timeframe_of(interval) != timeframe:
            found.skipped.append((path.name, f"bars of {timeframe_of(interval)}, {timeframe} was asked for"))
        else:
            found.bars[named.venue, market, interval].append(bars)
    elif named.kind is Kind.MARK:
        found.values[Kind.MARK, named.venue, market].append(_read_marks(named))
    elif named.kind is Kind.FUNDING:
        values = read_values(path, ("funding_rate",), positive=False, optional=("predicted", "interval_h"))
        found.values[Kind.FUNDING, named.venue, market].append(values)
    else:
        found.values[Kind.FINANCING, named.venue, market].append(read_values(path, ("long_rate", "short_rate"), positive=False))


def _read_universe(named: Named, found: _Found) -> None:
    """A universe is a venue of its own, so that it stands beside longer recordings of the same symbols instead of mixing with them."""
    for symbol, (bars, interval) in read_universe(named.path, named.timeframe).items():
        market = market_of(symbol)
        if isinstance(market, str):
            found.skipped.append((f"{named.path.name}: {symbol}", market))
        else:
            found.bars[f"{named.venue}_universe", market, interval].append(bars)


def _read_marks(named: Named) -> Values:
    """Mark closes at the time they were valid. A file without a bar length in its name and only a price per instant is taken as it is."""
    bars, interval = read_bars(named.path, named.timeframe)
    return Values(bars.ts + interval, {"close": bars.close})


def _assemble(found: _Found, folder: Path, timerange: tuple[int | None, int | None], costs: CostPolicy | None, replay: Replay,
              listed: list[Instrument]) -> Loaded:
    after, until = timerange
    chains = _chains(found, until)
    joined: list[tuple[str, Market, int, Bars]] = []
    for (venue, market, interval), parts in found.bars.items():
        bars = join_bars(parts)
        opened, closed = int(bars.ts[0]), int(bars.ts[-1]) + interval
        if (after is not None and closed <= after) or (until is not None and opened + interval > until):
            found.skipped.append((f"{venue} {market.symbol} {timeframe_of(interval)}",
                                  f"{iso(opened)} to {iso(closed)} is outside the time range"))
            continue
        if until is not None and closed > until:
            bars = bars.take(slice(0, int(np.searchsorted(bars.ts, until - interval, side="right"))))
        joined.append((venue, market, interval, bars))
    _require_something(found, folder, joined, chains)
    rules = {instrument.symbol: instrument for instrument in listed}
    positions = {instrument.symbol: index for index, instrument in enumerate(listed)}
    known = venue_steps(folder)
    notes: list[str] = []
    series = [_series(found, entry, symbol, _rule(rules, symbol, entry), known, costs, notes) for symbol, entry in _symbols(joined).items()]
    series.sort(key=lambda one: (positions.get(one.instrument.symbol, len(positions)), _ORDER.index(one.instrument.asset_class),
                                 one.instrument.symbol))
    if chains is not None:
        watched = {one.instrument.underlying for one in series}
        notes.extend(f"{underlying} options: no bars of {underlying} here, so no strategy watches it and its volume is unknown"
                     for underlying in sorted(set(chains.underlyings) - watched))
    contracts = {symbol: rule for symbol, rule in rules.items() if rule.asset_class is AssetClass.OPTION}
    events = merged_events([*found.events, *replay.events()])
    return Loaded(series, chains, found.chain_venue, contracts, events, replay, found.skipped, notes)


def _rule(rules: dict[str, Instrument], symbol: str, entry: tuple[str, Market, int, Bars]) -> Instrument | None:
    """The listed rules of a series: its own, or for a further series of one market those of its venue."""
    plain = rules.get(entry[1].symbol)
    if symbol in rules or plain is None or plain.venue != entry[0]:
        return rules.get(symbol)
    return replace(plain, symbol=symbol)


def _require_something(found: _Found, folder: Path, joined: list[tuple[str, Market, int, Bars]], chains: Chains | None) -> None:
    if joined or chains is not None:
        return
    left_out = [f"{name}: {reason}" for name, reason in found.skipped[:20]]
    raise DataError([f"{folder}: nothing to replay; put files named like binance_BTCUSDT_1h.parquet there, or widen classes, timeframe "
                     "and time range", *left_out])


def _chains(found: _Found, until: int | None) -> Chains | None:
    if not found.chains:
        return None
    chains = merge_chains(found.chains)
    found.chains.clear()
    return None if until is not None and int(chains.at[0]) > until else chains


def _symbols(joined: list[tuple[str, Market, int, Bars]]) -> dict[str, tuple[str, Market, int, Bars]]:
    """The series of the widest time span keeps the plain symbol; the others say where they are from: LINK/USDT#binance-5m."""
    by_symbol: dict[str, list[tuple[str, Market, int, Bars]]] = defaultdict(list)
    for entry in joined:
        by_symbol[entry[1].symbol].append(entry)
    named: dict[str, tuple[str, Market, int, Bars]] = {}
    for symbol, entries in by_symbol.items():
        entries.sort(key=lambda entry: (int(entry[3].ts[0]) - int(entry[3].ts[-1]), -len(entry[3]), entry[0]))
        for place, entry in enumerate(entries):
            named[symbol if place == 0 else f"{symbol}#{entry[0]}-{timeframe_of(entry[2])}"] = entry
    return named


def _series(found: _Found, entry: tuple[str, Market, int, Bars], symbol: str, rule: Instrument | None,
            known: dict[tuple[str, str, bool], Steps], costs: CostPolicy | None, notes: list[str]) -> Series:
    venue, market, interval, bars = entry
    half_spread = costs.of(market.asset_class).half_spread_bp / 1e4 if costs is not None else 0.0
    marks, funding, financing = (join_values(parts) if (parts := found.values.get((kind, venue, market))) else None
                                 for kind in (Kind.MARK, Kind.FUNDING, Kind.FINANCING))
    hours = _settlement_hours(funding) if funding is not None else 8
    instrument = rule or instrument_of(market, symbol, venue, known=known, decimals=bars.decimals, price=float(bars.close[-1]), costs=costs,
                                       funding_interval_h=hours)
    bars = _normalized(bars, venue, market, half_spread)
    if market.asset_class is AssetClass.FOREX and financing is None:
        markup = float(costs.forex_financing_markup) if costs is not None else 0.0
        financing = financing_of(instrument, found.interest, int(bars.ts[0]), int(bars.ts[-1]) + interval, markup)
        if financing is None:
            notes.append(f"{symbol}: no interest rates recorded, so what holding it costs is unknown and the carry filter denies it")
    return Series(instrument, interval, bars, marks, funding, hours, financing)


def _normalized(bars: Bars, venue: str, market: Market, half_spread: float) -> Bars:
    """Prices as mids, volume in base units, no volume where the market has none (forex: tick counts at best)."""
    if market.asset_class is AssetClass.FOREX:
        if bars.quote_volume is None:
            bars = replace(bars, volume=None)
        if venue in BID_ONLY_VENUES and bars.bid is None and half_spread > 0.0:
            up = 1.0 + half_spread
            bars = replace(bars, open=bars.open * up, high=bars.high * up, low=bars.low * up, close=bars.close * up)
    elif market.asset_class is AssetClass.PERP and venue in USD_VOLUME_VENUES and bars.volume is not None:
        bars = replace(bars, volume=bars.volume / bars.close, quote_volume=bars.volume)
    return bars


def _settlement_hours(funding: Values) -> int:
    told = funding.columns.get("interval_h", np.zeros(0))
    if len(told := told[np.isfinite(told)]):
        return max(1, round(float(np.median(told))))
    return max(1, round(float(np.median(np.diff(funding.ts))) / HOUR_MS)) if len(funding.ts) > 1 else 8
