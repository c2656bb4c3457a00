"""What our paper orders may trade at on a live market: the last bid and ask we heard, for as long as they can be believed.

Owns the newest sane quote of each symbol. Refuses one that is crossed, empty or far away from the last closed bar, and one that is too old:
then there is no price, and no price is ever invented.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from modules.domain.instrument import AssetClass, Instrument
from modules.domain.market import Bar, Quote
from modules.runtime.clock import Clock

STILL: Final = 30
"""A quiet market changes nothing for some minutes; one that says nothing for longer has most likely lost its feed."""


class LiveQuotes:
    """A price source for the paper desk. `age_s`: how long a quote is believed; `jump`: how many times a quote may be off the last close;
    `contract`: what an option contract is.

    A quote older than `age_s` still stands while its connection speaks - another symbol of its class was quoted within `age_s`, so
    silence means that nothing changed - but never for longer than one bar, or STILL times `age_s`.
    """

    def __init__(self, instruments: Sequence[Instrument], interval_ms: Callable[[str], int], clock: Clock, age_s: float,
                 jump: float, contract: Callable[[str], Instrument | None] = lambda symbol: None) -> None:
        self.instruments = instruments
        self._contract = contract
        self.intervals_ms: dict[str, int] = {instrument.symbol: interval_ms(instrument.symbol) for instrument in instruments}
        self._classes = {instrument.symbol: instrument.asset_class for instrument in instruments}
        self._clock = clock
        self._age_ms = age_s * 1000.0
        self._still_ms = STILL * self._age_ms
        self._jump = jump
        self._quotes: dict[str, Quote] = {}
        self._heard: dict[AssetClass, int] = {}

    def admit(self, instrument: Instrument, interval_ms: int) -> None:
        self.instruments = (*self.instruments, instrument)
        self.intervals_ms[instrument.symbol] = interval_ms
        self._classes[instrument.symbol] = instrument.asset_class

    def take(self, symbol: str, quote: Quote, close: float) -> bool:
        """Believe `quote` from now on, whatever time it names itself; False = refused. `close`: of the last bar, NaN = none known."""
        asset_class = self._classes.get(symbol)
        if asset_class is None or not quote.sane or quote.mid > close * self._jump or quote.mid * self._jump < close:
            return False
        now = self._clock.now()
        self._quotes[symbol] = quote._replace(at=now)
        self._heard[asset_class] = now
        return True

    def opening(self, symbol: str) -> Quote | None:
        """Bid and ask to trade at now; None = nobody can know."""
        quote = self._quotes.get(symbol)
        if quote is None:
            return None
        now = self._clock.now()
        age, silence = now - quote.at, now - self._heard[self._classes[symbol]]
        if age < 0:  # the clock was set back
            return None
        connected = 0 <= silence <= self._age_ms
        return quote if age <= self._age_ms or (connected and age <= min(self.intervals_ms[symbol], self._still_ms)) else None

    def history(self, symbol: str, until: int, bars: int) -> Sequence[Bar]:
        """None of its own: the past of a live market is asked for over the wire."""
        return ()

    def contract(self, symbol: str) -> Instrument | None:
        """The rules of an option contract; None = the market names none of this name."""
        return self._contract(symbol)
