"""An embedded market to try the daemon on: fourteen instruments and two option chains, deterministic by seed, no network, no files.

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
from modules.domain.market import Bar, Chain, Financing, Quote
from modules.venues.demo.catalog import (
    BAR_MS,
    BARS_PER_DAY,
    BARS_PER_HOUR,
    CYCLE_DAYS,
    DAY_MS,
    DEFAULT_START,
    HISTORY_DAYS,
    INSTRUMENTS,
    MACRO_EVENTS,
    OPTION_UNDERLYINGS,
    SOURCE,
    TRANSFERS,
    option_contract,
)
from modules.venues.demo.crypto import CryptoMarket
from modules.venues.demo.days import Day, plant_faults
from modules.venues.demo.forex import ForexMarket
from modules.venues.demo.options import OptionMarket
from modules.venues.demo.weather import Noise
from modules.venues.protocol import MacroEvent, Step

KEPT_DAYS: Final = 100
"""Days kept in memory for `history`; older ones are made again from the beginning if somebody asks."""
ENDLESS: Final = 253_370_764_800_000
"""`end` of a market without one: the year 9999."""


class DemoMarket:
    """See the module's docstring. `days` None = endless; `start` UTC ms, a midnight."""

    name = SOURCE

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

    def _day(self, number: int) -> Day:
        """Day 0 begins at `start`. Each is made from the state the one before left, so all before it are made first."""
        if number not in self._days and number < self._next:
            self._rewind()
        while self._next <= number:
            day = Day(self.start + self._next * DAY_MS)
            noise = Noise(self.seed, self._next)
            self._crypto.make(self._next, day, noise)
            self._forex.make(day, noise)
            if self._next >= 0:
                plant_faults(self._next % CYCLE_DAYS, day)
            self._days[self._next] = day
            self._days.pop(self._next - KEPT_DAYS, None)
            self._next += 1
        return self._days[number]

    # -- MarketSource ---------------------------------------------------------------------------------------------------

    def steps(self) -> Iterator[Step]:
        """One step every five minutes. The first, at `start`, has no bars but every rate and chain known by then; the last is at `end`."""
        chains = {underlying: OptionMarket(underlying, self.seed) for underlying in OPTION_UNDERLYINGS}
        transfers = {self.start + transfer.after_ms: (transfer.asset_class, transfer.amount) for transfer in TRANSFERS}
        before = self._day(-1)
        self._at = self.start
        yield Step(self.start, marks=_marks(before, BARS_PER_DAY - 1), funding=before.funding[self.start], financing=self._last_financing(),
                   chains=_chains(before, BARS_PER_DAY - 1, chains))
        for number in count() if self.end == ENDLESS else range((self.end - self.start) // DAY_MS):
            day = self._day(number)
            for slot, bars in enumerate(self._by_slot(day)):
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

    def _last_financing(self) -> list[Financing]:
        """The rates of the last rollover before the start, restated at the start."""
        number = -1
        while not self._day(number).financing:
            number -= 1
        return [rate._replace(at=self.start) for rate in self._day(number).financing]


def _marks(day: Day, slot: int) -> list[tuple[str, float]]:
    return [(symbol, float(marks[slot])) for symbol, marks in day.marks.items()]


def _chains(day: Day, slot: int, markets: Mapping[str, OptionMarket]) -> list[Chain]:
    at, hour = day.midnight + (slot + 1) * BAR_MS, slot // BARS_PER_HOUR
    return [market.chain(at, float(day.index[name][slot]), float(day.volatility[name][hour])) for name, market in markets.items()]


