"""An embedded market to try the daemon on: twenty-six instruments and three option chains, deterministic by seed, no network, no files.

`DemoMarket` is a MarketSource. The same seed gives the same market on every machine and in every run; a shorter run is a prefix of a
longer one, and an endless one (days=None) is made day by day in bounded memory. Prices are 5-minute bars in regimes that some strategies
can live on and others cannot; the mishaps (crash, squeeze, hung feed, hole, insane print, wide spreads, excessive funding) stand in
`demo.catalog`. Refuses a negative seed, no days at all, and a start that is not a UTC midnight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Final

from modules.domain.instrument import Instrument
from modules.domain.market import Bar, Chain, Financing, FundingRate, Quote
from modules.venues.demo.catalog import (
    BAR_MS,
    BARS_PER_DAY,
    BARS_PER_HOUR,
    CYCLE_DAYS,
    DAY_MS,
    DEFAULT_START,
    HISTORY_DAYS,
    HOUR_MS,
    INSTRUMENTS,
    MACRO_EVENTS,
    OPTION_CURRENCY,
    OPTION_UNDERLYINGS,
    SOURCE,
    TRANSFERS,
    option_contract,
)
from modules.venues.demo.commodities import CommodityMarket
from modules.venues.demo.crypto import CryptoMarket
from modules.venues.demo.days import Day, plant_faults
from modules.venues.demo.forex import ForexMarket
from modules.venues.demo.options import OptionMarket
from modules.venues.demo.weather import Noise
from modules.venues.protocol import MacroEvent, Step

KEPT_DAYS: Final = 100
"""Days kept in memory for `history`; older ones are made again from the beginning if somebody asks."""
LISTED_AHEAD_MS: Final = 70 * DAY_MS
"""No option is listed longer than this before it expires: four Fridays, and on to the month's last."""
ENDLESS: Final = 253_370_764_800_000
"""`end` of a market without one: the year 9999."""


class DemoMarket:
    """See the module's docstring. `days` None = endless; `start` UTC ms, a midnight."""

    name = SOURCE
    option_currency: str | None = OPTION_CURRENCY

    def __init__(self, seed: int, days: int | None, *, start: int | None = None) -> None:
        begin = DEFAULT_START if start is None else start
        if seed < 0:
            raise ValueError(f"seed must not be negative: {seed}")
        if days is not None and days < 1:
            raise ValueError(f"days must be at least 1: {days}")
        if begin % DAY_MS or begin < 0:
            raise ValueError(f"start must be a UTC midnight in milliseconds: {begin}")
        self.seed = seed
        self.start = begin
        self.end = ENDLESS if days is None else begin + days * DAY_MS
        self.instruments: Sequence[Instrument] = INSTRUMENTS
        self.intervals_ms: Mapping[str, int] = {instrument.symbol: BAR_MS for instrument in INSTRUMENTS}
        self.macro_events: Sequence[MacroEvent] = tuple(event for event in MACRO_EVENTS if event.at >= begin - HISTORY_DAYS * DAY_MS)
        self._at = begin
        self._days: dict[int, Day] = {}
        self._rewind()

    def _rewind(self) -> None:
        self._days.clear()
        self._next = -HISTORY_DAYS
        self._crypto = CryptoMarket(self.seed)
        self._forex = ForexMarket(self.seed)
        self._commodities = CommodityMarket(self.seed)

    def _day(self, number: int) -> Day:
        """Day 0 begins at `start`. Each is made from the state the one before left, so all before it are made first."""
        if number not in self._days and number < self._next:
            self._rewind()
        while self._next <= number:
            day = Day(self.start + self._next * DAY_MS)
            noise = Noise(self.seed, self._next)
            self._crypto.make(self._next, day, noise)
            self._forex.make(day, noise)
            self._commodities.make(self._next, day, noise)
            if self._next >= 0:
                plant_faults(self._next % CYCLE_DAYS, day)
            self._days[self._next] = day
            self._days.pop(self._next - KEPT_DAYS, None)
            self._next += 1
        return self._days[number]

    # -- MarketSource ---------------------------------------------------------------------------------------------------

    def steps(self) -> Iterator[Step]:
        """One step every five minutes. The first, at `start`, has no bars but every rate and chain known by then; the last is at `end`."""
        return self._steps_from(self.start)

    def resume(self, at: int) -> Iterator[Step]:
        """The steps of somebody who has seen this market up to `at` before: the first, at the last step not after `at`, restates every
        rate and chain known by then (and the transfers of that very step), the others are those of `steps`."""
        return self._steps_from(max(self.start, min(at, self.end) - (min(at, self.end) - self.start) % BAR_MS))

    def _steps_from(self, since: int) -> Iterator[Step]:
        chains = {underlying: OptionMarket(underlying, self.seed) for underlying in OPTION_UNDERLYINGS}
        transfers = {self.start + transfer.after_ms: (transfer.asset_class, transfer.amount) for transfer in TRANSFERS}
        first, begun = divmod(since - self.start, DAY_MS)
        known = self._known_chains(since, chains)
        self._at = since
        yield Step(since, (), self._known_marks(since), self._known_funding(since), self._known_financing(since), known,
                   (transfers[since],) if since in transfers else ())
        for number in count(first) if self.end == ENDLESS else range(first, (self.end - self.start) // DAY_MS):
            day = self._day(number)
            skipped = begun // BAR_MS if number == first else 0
            for slot, bars in enumerate(self._by_slot(day)[skipped:], skipped):
                at = day.midnight + (slot + 1) * BAR_MS
                rollover = day.financing and day.financing[0].at == at
                self._at = at
                yield Step(at, bars, _marks(day, slot), day.funding.get(at, ()), day.financing if rollover else (),
                           _chains(day, slot, chains) if (slot + 1) % BARS_PER_HOUR == 0 else (),
                           (transfers[at],) if at in transfers else ())

    def opening(self, symbol: str) -> Quote | None:
        if self._at >= self.end or symbol not in self.intervals_ms:
            return None
        return self._day((self._at - self.start) // DAY_MS).columns[symbol].opening(self._at)

    def history(self, symbol: str, until: int, bars: int) -> Sequence[Bar]:
        """Reaches back HISTORY_DAYS before `start`. Raises KeyError for a symbol that has no bars."""
        if symbol not in self.intervals_ms:
            raise KeyError(symbol)
        last = min(until, self.end) - BAR_MS
        number = (last - self.start) // DAY_MS
        parts: list[list[Bar]] = []
        missing = bars
        while missing > 0 and number >= -HISTORY_DAYS:
            columns = self._day(number).columns[symbol]
            stop = columns.opened_by(last)
            parts.append(columns.bars(max(0, stop - missing), stop))
            missing -= len(parts[-1])
            number -= 1
        return [bar for part in reversed(parts) for bar in part]

    def contract(self, symbol: str) -> Instrument | None:
        return option_contract(symbol)

    # -- parts of a step ------------------------------------------------------------------------------------------------

    def _by_slot(self, day: Day) -> list[list[tuple[str, Bar]]]:
        slots: list[list[tuple[str, Bar]]] = [[] for _ in range(BARS_PER_DAY)]
        for instrument in INSTRUMENTS:
            symbol = instrument.symbol
            for bar in day.columns[symbol].bars():
                slots[(bar.ts - day.midnight) // BAR_MS].append((symbol, bar))
        return slots

    def _last_slot(self, at: int) -> tuple[Day, int]:
        """The bar that closed at `at`: its day and its place in it."""
        number, rest = divmod(at - BAR_MS - self.start, DAY_MS)
        return self._day(number), rest // BAR_MS

    def _known_marks(self, at: int) -> list[tuple[str, float]]:
        return _marks(*self._last_slot(at))

    def _known_funding(self, at: int) -> Sequence[FundingRate]:
        """What was settled last, at or before `at`."""
        number = (at - BAR_MS - self.start) // DAY_MS
        settled = {**self._day(number - 1).funding, **self._day(number).funding}
        return settled[max(when for when in settled if when <= at)]

    def _known_financing(self, at: int) -> list[Financing]:
        """The rates of the last rollover at or before `at`, restated at `at`."""
        number = (at - BAR_MS - self.start) // DAY_MS
        while not self._day(number).financing or self._day(number).financing[0].at > at:
            number -= 1
        return [rate._replace(at=at) for rate in self._day(number).financing]

    def _known_chains(self, at: int, markets: Mapping[str, OptionMarket]) -> list[Chain]:
        """The chains of the last full hour. Strikes stay listed once they are, so the hours before have to be walked through as well."""
        hour = at - at % HOUR_MS
        for passed in range(max(self.start, hour - LISTED_AHEAD_MS), hour, HOUR_MS):
            day, slot = self._last_slot(passed)
            for name, market in markets.items():
                market.follow(passed, float(day.index[name][slot]), float(day.volatility[name][slot // BARS_PER_HOUR]))
        return _chains(*self._last_slot(hour), markets)


def _marks(day: Day, slot: int) -> list[tuple[str, float]]:
    return [(symbol, float(marks[slot])) for symbol, marks in day.marks.items()]


def _chains(day: Day, slot: int, markets: Mapping[str, OptionMarket]) -> list[Chain]:
    at, hour = day.midnight + (slot + 1) * BAR_MS, slot // BARS_PER_HOUR
    return [market.chain(at, float(day.index[name][slot]), float(day.volatility[name][hour])) for name, market in markets.items()]


