"""Recorded history as a price source: shared recordings, an exported demo, a user's own files. The same steps every time it is iterated.

Owns the merged time line. Holes stay holes: a bar that was not recorded never closes and nothing can be traded at its open. A volume in
quote units that was not recorded is volume x close.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from modules.backtest.recorded_chains import Contract
from modules.backtest.recorded_files import F64, I64, Bars, iso
from modules.backtest.recorded_folder import Loaded, load_folder
from modules.backtest.recorded_folder import Series as Recorded
from modules.backtest.recorded_specs import option_of
from modules.domain.errors import DataError
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.market import Bar, Financing, FundingRate, Quote
from modules.domain.policies import CostPolicy
from modules.venues.protocol import MacroEvent, Step

CHUNK_ROWS: Final = 16_384
"""Bars turned into objects at a time: enough to spread numpy's cost, few enough to stay in cache."""
_SAMPLE: Final = 64
ENDED_AFTER_MS: Final = 7 * 86_400_000
"""No bar for this long is no outage or holiday (the longest on record: 5 days): the recording ended there, even if another one of the
same market begins years later."""


class RecordedSource:
    """A MarketSource over `folder` (searched recursively).

    `classes` None = all; `timerange` (start, end) in UTC ms, None = open: trading begins at start, earlier bars are history. `timeframe`
    keeps only bars of that length ("1h"). `costs` gives fees, leverage and the spread assumed where only bids were recorded.
    Raises DataError listing every fault of every file; with `skip_faulty` those files are left out and named in `skipped`.

    Several series of one symbol (bar lengths, venues): the widest in time keeps the plain symbol, the others are
    "LINK/USDT#binance-5m". `skipped` says which files were not used and why, `notes` what will be missing in the replay.
    """

    def __init__(self, folder: Path, classes: Collection[AssetClass] | None = None, timerange: tuple[int | None, int | None] = (None, None),
                 *, costs: CostPolicy | None, timeframe: str | None = None, skip_faulty: bool = False) -> None:
        loaded = load_folder(folder, classes, timerange, costs, timeframe, skip_faulty=skip_faulty)
        self._costs = costs
        self._loaded: Loaded = loaded
        self._series = loaded.series
        self._by_symbol = {series.instrument.symbol: series for series in loaded.series}
        replay = loaded.replay
        self.name = replay.name or folder.resolve().name
        self.instruments: Sequence[Instrument] = tuple(series.instrument for series in loaded.series)
        self.intervals_ms: Mapping[str, int] = {series.instrument.symbol: series.interval_ms for series in loaded.series}
        self.macro_events: Sequence[MacroEvent] = tuple(loaded.events)
        self.skipped = loaded.skipped
        self.notes = loaded.notes
        self.seed = replay.seed
        self.wallets: Mapping[AssetClass, Decimal] | None = replay.wallets
        self.transfers: Sequence[tuple[int, AssetClass, Decimal]] | None = (
            tuple((one.at, one.asset_class, one.amount) for one in replay.transfers) if replay.transfers is not None else None)
        settles = [c.settle for c in (loaded.contracts.values() or (loaded.chains.contracts if loaded.chains is not None else ()))]
        self.option_currency: str | None = Counter(settles).most_common(1)[0][0] if settles else None
        self.start, self.end = self._span(folder, (timerange[0] if timerange[0] is not None else replay.start,
                                                   timerange[1] if timerange[1] is not None else replay.end))
        self._at = self.start

    @property
    def asset_classes(self) -> frozenset[AssetClass]:
        """Every class that has bars here, and OPTION if chains were recorded."""
        classes = {instrument.asset_class for instrument in self.instruments}
        return frozenset(classes | {AssetClass.OPTION}) if self._loaded.chains is not None else frozenset(classes)

    @property
    def chain_span(self) -> tuple[int, int] | None:
        """UTC ms of the first and the last snapshot of option chains; None without any."""
        chains = self._loaded.chains
        return (int(chains.at[0]), int(chains.at[-1]) + 1) if chains is not None else None

    @property
    def chain_underlyings(self) -> tuple[str, ...]:
        """Of the option chains, by name."""
        chains = self._loaded.chains
        return tuple(sorted(set(chains.underlyings))) if chains is not None else ()

    @property
    def recordings(self) -> Sequence[Recorded]:
        """Every series as it was read: columns, not steps. Read, never write."""
        return self._series

    def steps(self) -> Iterator[Step]:
        """Bars that closed after `start` and everything else from `start` on, until `end`, grouped by instant."""
        for after, until in pairwise(self._windows()):
            yield from self._window(after, until)

    def opening(self, symbol: str) -> Quote | None:
        """Recorded bid and ask at the open; where there are none both are the open itself, marked synthetic: the paper venue widens those
        by the modelled spread. A crossed recording (bid and ask sampled apart) is turned, so that it costs its width and does not pay it.
        """
        series = self._by_symbol.get(symbol)
        if series is None or self._at >= self.end:
            return None
        bars = series.bars
        row = int(np.searchsorted(bars.ts, self._at))
        if row == len(bars) or int(bars.ts[row]) != self._at:
            return None
        if bars.open_bid is not None and bars.open_ask is not None:
            bid, ask = float(bars.open_bid[row]), float(bars.open_ask[row])
            if bid == bid and ask == ask:  # not NaN: recorded
                return Quote(self._at, min(bid, ask), max(bid, ask), synthetic=ask < bid)
        price = float(bars.open[row])
        return Quote(self._at, price, price, synthetic=True)

    def history(self, symbol: str, until: int, bars: int) -> Sequence[Bar]:
        """The last `bars` bars closed at or before `until` (UTC ms), oldest first; fewer if the recording begins later."""
        series = self._by_symbol.get(symbol)
        if series is None:
            return []
        last = int(np.searchsorted(series.bars.ts, until - series.interval_ms, side="right"))
        rows = slice(max(0, last - bars), last)
        return list(map(Bar._make, zip(*(column.tolist() for column in _columns(series.bars, rows)), strict=True)))

    def contract(self, symbol: str) -> Instrument | None:
        """The rules of an option contract seen in a recorded chain; None for any other symbol."""
        known = self._loaded.contracts.get(symbol)
        if known is not None:
            return known
        contract = self._contracts.get(symbol)
        if contract is None:
            return None
        rules = self._loaded.contracts[symbol] = option_of(contract, self._loaded.chain_venue, self._costs)
        return rules

    @cached_property
    def _contracts(self) -> Mapping[str, Contract]:
        chains = self._loaded.chains
        return {contract.symbol: contract for contract in chains.contracts} if chains is not None else {}

    @cached_property
    def _ended(self) -> Mapping[int, Sequence[str]]:
        """Closes after which a symbol has no bar for ENDED_AFTER_MS of this replay."""
        found: dict[int, list[str]] = defaultdict(list)
        for series in self._series:
            closes = series.bars.ts + series.interval_ms
            following = np.append(series.bars.ts[1:], max(self.end, int(closes[-1])))
            for at in closes[following - closes >= ENDED_AFTER_MS].tolist():
                found[at].append(series.instrument.symbol)
        return found

    def _span(self, folder: Path, asked: tuple[int | None, int | None]) -> tuple[int, int]:
        """Where trading begins and ends: what is asked, inside what is recorded."""
        first = [int(series.bars.ts[0]) for series in self._series]
        last = [int(series.bars.ts[-1]) + series.interval_ms for series in self._series]
        if self._loaded.chains is not None:
            first.append(int(self._loaded.chains.at[0]))
            last.append(int(self._loaded.chains.at[-1]))
        start = max(min(first), asked[0]) if asked[0] is not None else min(first)
        end = min(max(last), asked[1]) if asked[1] is not None else max(last)
        if start >= end:
            raise DataError([f"{folder}: nothing was recorded in the time range asked for; the files span {iso(min(first))} to "
                             f"{iso(max(last))}"])
        return start, end

    def _windows(self) -> list[int]:
        """Edges of time windows with about CHUNK_ROWS bars each; the first lies just before `start` so that nothing at it is lost."""
        closes = [series.bars.ts[::_SAMPLE] + series.interval_ms for series in self._series]
        sample = np.sort(np.concatenate(closes)) if closes else np.zeros(0, dtype=np.int64)
        inner = sample[(sample > self.start) & (sample < self.end)][:: CHUNK_ROWS // _SAMPLE]
        return [self.start - 1, *np.unique(inner).tolist(), self.end]

    def _window(self, after: int, until: int) -> Iterator[Step]:
        """Steps at after < at <= until."""
        bars, counts = self._bars(max(after, self.start), until)
        marks, funding, financing = self._rates(after, until)
        recorded = self._loaded.chains
        chains = recorded.groups(after, until) if recorded is not None else {}
        transfers: dict[int, list[tuple[AssetClass, Decimal]]] = defaultdict(list)
        for at, asset_class, amount in self.transfers or ():
            if after < at <= until:
                transfers[at].append((asset_class, amount))
        ended = self._ended
        for at in sorted({*counts, *marks, *funding, *financing, *chains, *transfers}):
            self._at = at
            yield Step(at, list(islice(bars, counts.get(at, 0))), marks.get(at, ()), funding.get(at, ()), financing.get(at, ()),
                       [recorded.chain(group) for group in chains[at]] if recorded is not None and at in chains else (),
                       transfers.get(at, ()), ended.get(at, ()))

    def _bars(self, after: int, until: int) -> tuple[Iterator[tuple[str, Bar]], dict[int, int]]:
        """Bars closed at after < at <= until in order of (time, instrument), and how many closed at each instant.

        They become objects one by one as they are taken: thousands alive at once would keep the garbage collector busy (measured: half
        of all time)."""
        closes: list[I64] = []
        parts: list[tuple[F64 | I64, ...]] = []
        owners: list[tuple[int, int]] = []
        for index, series in enumerate(self._series):
            ts, length = series.bars.ts, series.interval_ms
            first, last = np.searchsorted(ts, (after - length, until - length), side="right").tolist()
            if first < last:
                rows = slice(first, last)
                closes.append(ts[rows] + length)
                parts.append(_columns(series.bars, rows))
                owners.append((index, last - first))
        if not parts:
            return iter(()), {}
        times = np.concatenate(closes)
        order = np.argsort(times, kind="stable")  # stable: bars of one instant stay in the instruments' order
        symbols = [self._series[index].instrument.symbol for index, _ in owners]
        owner = np.repeat(np.arange(len(owners)), [count for _, count in owners])[order]
        columns = [np.concatenate(column)[order].tolist() for column in zip(*parts, strict=True)]
        named = zip(map(symbols.__getitem__, owner.tolist()), map(Bar._make, zip(*columns, strict=True)), strict=True)
        instants, counts = np.unique(times, return_counts=True)
        return named, dict(zip(instants.tolist(), counts.tolist(), strict=True))

    def _rates(self, after: int, until: int) -> tuple[dict[int, list[tuple[str, float]]], dict[int, list[FundingRate]],
                                                      dict[int, list[Financing]]]:
        marks: dict[int, list[tuple[str, float]]] = defaultdict(list)
        funding: dict[int, list[FundingRate]] = defaultdict(list)
        financing: dict[int, list[Financing]] = defaultdict(list)
        for series in self._series:
            symbol = series.instrument.symbol
            if series.marks is not None:
                for at, price in _rows(series.marks.ts, after, until, series.marks.columns["close"]):
                    marks[at].append((symbol, price))
            if series.funding is not None:
                columns = series.funding.columns
                unknown = np.full(len(series.funding.ts), np.nan)
                hours = np.full(len(series.funding.ts), float(series.funding_interval_h))
                told = columns.get("interval_h", unknown)
                for at, rate, interval_h, predicted in _rows(series.funding.ts, after, until, columns["funding_rate"],
                                                             np.where(np.isfinite(told), told, hours), columns.get("predicted", unknown)):
                    funding[at].append(FundingRate(symbol, at, rate, interval_h, predicted))
            if series.financing is not None:
                # the rate in force when trading begins was published before: it is told at the first instant
                ts = np.maximum(series.financing.ts, self.start)
                ts, last_of = np.unique(ts[::-1], return_index=True)
                rows = len(series.financing.ts) - 1 - last_of
                for at, long_rate, short_rate in _rows(ts, after, until, series.financing.columns["long_rate"][rows],
                                                       series.financing.columns["short_rate"][rows]):
                    financing[at].append(Financing(symbol, at, long_rate, short_rate))
        return marks, funding, financing


def _rows(ts: I64, after: int, until: int, *columns: F64) -> Iterator[tuple[Any, ...]]:
    first, last = np.searchsorted(ts, (after, until), side="right").tolist()
    return zip(ts[first:last].tolist(), *(column[first:last].tolist() for column in columns), strict=True)


def _columns(bars: Bars, rows: slice) -> tuple[npt.NDArray[Any], ...]:
    """The columns of `Bar` in its order; what was not recorded is NaN."""
    close = bars.close[rows]
    unknown = np.full(len(close), np.nan)
    volume = bars.volume[rows] if bars.volume is not None else unknown
    quote_volume = bars.quote_volume[rows] if bars.quote_volume is not None else volume * close
    bid = bars.bid[rows] if bars.bid is not None else unknown
    ask = bars.ask[rows] if bars.ask is not None else unknown
    return bars.ts[rows], bars.open[rows], bars.high[rows], bars.low[rows], close, volume, quote_volume, bid, ask
