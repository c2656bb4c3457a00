"""What the paper venue knows about prices at this moment, and nothing later: last bars, openings, chains, conversion rates.

May say "unknown" (None): then nothing is traded or converted at it. The source's openings may only be asked while the source stands at the
present step; afterwards only those kept before it moved on are known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal
from typing import Final, Protocol

from modules.backtest import costs
from modules.domain.errors import ConfigurationError
from modules.domain.instrument import DOLLARS, AssetClass, Instrument, Side
from modules.domain.market import NAN, Bar, Chain, OptionQuote, Quote
from modules.domain.money import ONE
from modules.domain.options import reprice, settle_rate_at
from modules.domain.order import OrderKind
from modules.domain.policies import CostModel, CostPolicy
from modules.venues.paper_orders import Working

INFINITE: Final = math.inf
AVERAGE_BARS: Final = 64
"""History that seeds the average bar's notional."""
STATES_VOLUME: Final = frozenset({AssetClass.SPOT, AssetClass.PERP})
"""FX feeds count ticks, options trade at quotes: their bars limit no fill."""
_RATE: Final = Context(prec=16)
_STANDS_FOR: Final = (AssetClass.PERP, AssetClass.SPOT)
"""Whose price stands for an underlying, best first."""


class PriceSource(Protocol):
    """What is asked of a market: the demo's, recorded files, or a live one. See `MarketSource` for what each means."""

    @property
    def instruments(self) -> Sequence[Instrument]: ...

    @property
    def intervals_ms(self) -> Mapping[str, int]: ...

    def opening(self, symbol: str) -> Quote | None: ...

    def history(self, symbol: str, until: int, bars: int) -> Sequence[Bar]: ...

    def contract(self, symbol: str) -> Instrument | None: ...


class Series:
    """One symbol: its last closed bar, the orders that rest on it, where its position would be liquidated (0 = nowhere)."""

    __slots__ = ("asset_class", "average", "bar", "ceiling", "changed", "close", "closed_at", "floor", "instrument", "interval",
                 "liquidation", "long", "mids", "model", "orders", "taken")

    def __init__(self, instrument: Instrument, model: CostModel, interval: int) -> None:
        self.instrument = instrument
        self.asset_class = instrument.asset_class
        self.model = model
        self.interval = interval
        self.bar: Bar | None = None
        self.close = NAN
        """The last close as conversions see it: known for every series of an instant before the first order of it is matched."""
        self.closed_at = 0
        """0 = no bar yet."""
        self.average = NAN
        """Average bar's notional, quote currency."""
        self.orders: list[Working] = []
        self.liquidation = 0.0
        self.long = True
        """Side of the position that `liquidation` is about."""
        self.taken = 0.0
        """Base units filled so far in the bar that is open now."""
        self.mids = self.asset_class is AssetClass.FOREX
        """Its bars are mids and its orders trigger on bid and ask."""
        self.changed = True
        """Orders or liquidation price are not what `floor` and `ceiling` were computed from."""
        self.floor = -INFINITE
        self.ceiling = INFINITE

    def quiet(self, bar: Bar) -> bool:
        """Whether nothing that rests here can care about `bar`: it stayed between the nearest prices below and above."""
        if self.changed:
            self._watch()
        offset = self.offset(bar) if self.mids else 0.0
        return bar.low - offset > self.floor and bar.high + offset < self.ceiling

    def _watch(self) -> None:
        """The nearest prices at which something happens. Entries and orders with a timeout may end at any bar: they are never quiet."""
        self.changed = False
        self.floor, self.ceiling = (self.liquidation, INFINITE) if self.long else (-INFINITE, self.liquidation or INFINITE)
        for working in self.orders:
            if not working.rests or not working.reduces or working.order.expires_at is not None:
                self.floor = INFINITE
            elif (working.order.kind is OrderKind.STOP) == (working.side < 0):
                self.floor = max(self.floor, working.price)
            else:
                self.ceiling = min(self.ceiling, working.price)

    def remember(self, bars: Iterable[Bar]) -> None:
        """Bars of the past: the last one, and the average volume. Nothing is matched against them."""
        for bar in bars:
            self.average = costs.average_notional(self.average, bar.quote_volume)
            self.bar = bar
            self.close = bar.close
            self.closed_at = bar.ts + self.interval

    def offset(self, bar: Bar) -> float:
        """How far the side an order trades on is off the bar's prices (costs.quote_offset)."""
        return costs.quote_offset(bar.bid, bar.ask, bar.open, self.model.half_spread_bp) if self.mids else 0.0

    def volume(self, bar: Bar | None) -> float:
        return bar.volume if bar is not None and self.asset_class in STATES_VOLUME else NAN


class Prices:
    """Every series and chain of one source."""

    def __init__(self, source: PriceSource, policy: CostPolicy) -> None:
        self.series = {i.symbol: Series(i, policy.of(i.asset_class), source.intervals_ms[i.symbol]) for i in source.instruments}
        self.chains: dict[str, Chain] = {}
        self._source = source
        self._policy = policy
        self._pairs = {(s.instrument.base, s.instrument.quote): s for s in self._of(AssetClass.SPOT, AssetClass.FOREX)}
        self._underlyings: dict[str, list[Series]] = {}
        for series in self._of(*_STANDS_FOR):
            self._underlyings.setdefault(series.instrument.underlying, []).append(series)
        self._listed: dict[str, dict[str, OptionQuote]] = {}
        self.at_step = False
        """The source stands at the present step: its openings may be asked."""
        self._kept: dict[str, Quote | None] = {}

    def admit(self, instrument: Instrument, interval_ms: int) -> None:
        """One more series, from now on."""
        series = self.series[instrument.symbol] = Series(instrument, self._policy.of(instrument.asset_class), interval_ms)
        if instrument.asset_class in (AssetClass.SPOT, AssetClass.FOREX):
            self._pairs[instrument.base, instrument.quote] = series
        if instrument.asset_class in _STANDS_FOR:
            self._underlyings.setdefault(instrument.underlying, []).append(series)

    def _of(self, *classes: AssetClass) -> Iterable[Series]:
        return (series for asset_class in classes for series in self.series.values() if series.asset_class is asset_class)

    def find(self, symbol: str) -> Series | None:
        """The series of a symbol; an option contract gets one when it is first asked for."""
        series = self.series.get(symbol)
        if series is None and (contract := self._source.contract(symbol)) is not None:
            series = self.series[symbol] = Series(contract, self._policy.of(contract.asset_class), 0)
        return series

    def known(self, symbol: str) -> Series:
        """As `find`. Raises ConfigurationError where the source lists no such symbol: then what is held of it can never be closed."""
        series = self.find(symbol)
        if series is None:
            raise ConfigurationError([f"the journal holds {symbol}, which this market does not list: use another state folder"])
        return series

    def seed(self, until: int, bars: int = AVERAGE_BARS) -> None:
        """Last bar and average volume from before `until`, so that the first orders find a market."""
        for symbol, series in self.series.items():
            if symbol not in self._source.intervals_ms:
                continue  # option contracts trade at quotes
            series.remember(self._source.history(symbol, until, bars))

    # -- openings -----------------------------------------------------------------------------------------------------------

    def keep_openings(self, held: Iterable[str]) -> None:
        """The source is about to move on: remember the openings of symbols a position is held in, so that it can still be closed."""
        self._kept = {symbol: self._source.opening(symbol) for symbol in held if symbol in self._source.intervals_ms}

    def forget(self) -> None:
        """A new step began: the kept openings are the past."""
        if self._kept:
            self._kept = {}

    def opening(self, symbol: str) -> Quote | None:
        """Bid and ask at which the bar that is open now began; None if none is open or it is not known any more."""
        quote = self._source.opening(symbol) if self.at_step else self._kept.get(symbol)
        return quote if quote is not None and quote.sane else None

    # -- prices and rates ----------------------------------------------------------------------------------------------------

    def last(self, series: Series) -> Decimal | None:
        """Last close as money, None before the first bar."""
        return Decimal(repr(series.bar.close)) if series.bar is not None else None

    def settle_rate(self, instrument: Instrument, price: Decimal, currency: str) -> Decimal | None:
        """The instrument's quote currency in settlement currency. For a pair whose base *is* the settlement currency 1 / its own price
        (USD/JPY in dollars), else the latest price of a pair that joins the two; None if there is none."""
        if instrument.quote == currency or (instrument.quote in DOLLARS and currency in DOLLARS):
            return ONE  # as Market_Data reckons: a dollar coin is a dollar
        if instrument.asset_class is AssetClass.OPTION:
            return self._chain_rate(instrument)
        if instrument.base == currency:
            return _RATE.divide(ONE, price)
        direct = self._pairs.get((instrument.quote, currency))
        if direct is not None and direct.close > 0.0:  # NaN, before its first bar, is not
            return _RATE.create_decimal_from_float(direct.close)
        inverse = self._pairs.get((currency, instrument.quote))
        if inverse is not None and inverse.close > 0.0:
            return _RATE.divide(ONE, Decimal(repr(inverse.close)))
        return None

    def _chain_rate(self, instrument: Instrument) -> Decimal | None:
        chain, spot = self.chains.get(instrument.underlying), self.spot(instrument.underlying)
        if chain is None or spot is None:
            return None
        return Decimal(repr(settle_rate_at(chain, spot)))

    def spot(self, underlying: str) -> float | None:
        """The underlying's price now: its perpetual's opening or last close, else its spot pair's, else the chain's own index."""
        chain = self.chains.get(underlying)
        since = chain.at if chain is not None else 0
        for series in self._underlyings.get(underlying, ()):
            quote = self.opening(series.instrument.symbol)
            if quote is not None:
                return quote.mid
            if series.bar is not None and series.closed_at >= since:
                return series.bar.close
        return chain.spot if chain is not None else None

    def option_touch(self, instrument: Instrument, side: Side, at: int) -> float | None:
        """The ask (to buy) or bid (to sell) of a contract now: the last chain's quote repriced; None without a quote on that side."""
        chain, spot = self.chains.get(instrument.underlying), self.spot(instrument.underlying)
        quote = self.contract_quote(instrument)
        if chain is None or quote is None or spot is None:
            return None
        bid, ask, _ = reprice(quote, chain, spot, at)
        touch = ask if side is Side.BUY else bid
        return touch if touch > 0.0 else None  # NaN compares false

    def contract_quote(self, instrument: Instrument) -> OptionQuote | None:
        """What the last chain said of a contract; None = nothing."""
        chain = self.chains.get(instrument.underlying)
        if chain is None:
            return None
        listed = self._listed.get(chain.underlying)
        if listed is None:
            listed = self._listed[chain.underlying] = {quote.symbol: quote for quote in chain.quotes}
        return listed.get(instrument.symbol)

    def list_chain(self, chain: Chain) -> None:
        self.chains[chain.underlying] = chain
        self._listed.pop(chain.underlying, None)
