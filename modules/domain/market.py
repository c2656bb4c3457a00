"""What a venue tells us about prices. Bars, quotes and rates are float64: they meet money only in Sizer and in a venue's fill."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

NAN = math.nan
AGREEING_BARS: Final = 3
"""A jump this many bars in a row agree on is a new price (a split, a re-denomination), not a bad tick."""


class Bar(NamedTuple):
    """A *closed* candle. `ts` is its OPEN time in UTC ms; it closed at ts + interval.

    For bid/ask recordings open..close are mids. `bid`/`ask` are the quote at the close, NaN where not recorded (then synthesized from
    the cost model's spread and flagged). `volume` is base units, `quote_volume` quote units; NaN where the market has none (FX).
    """

    ts: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float
    bid: float = NAN
    ask: float = NAN


class Quote(NamedTuple):
    """Best bid and ask at `at` (UTC ms). `synthetic` marks one derived from a trade price and a modelled spread."""

    at: int
    bid: float
    ask: float
    synthetic: bool = False

    @property
    def mid(self) -> float:
        return 0.5 * (self.bid + self.ask)

    @property
    def spread_bp(self) -> float:
        return (self.ask - self.bid) / self.mid * 1e4

    @property
    def sane(self) -> bool:
        return math.isfinite(self.bid) and math.isfinite(self.ask) and 0.0 < self.bid <= self.ask


class FundingRate(NamedTuple):
    """Perps: `rate` per settlement, positive = longs pay, settled at `at`. `predicted` is what the next settlement will probably be."""

    symbol: str
    at: int
    rate: float
    interval_h: float
    predicted: float = NAN


class Financing(NamedTuple):
    """FX: annualized fraction *earned* by a long and by a short position (negative = paid), as OANDA states it."""

    symbol: str
    at: int
    long_rate: float
    short_rate: float


class OptionQuote(NamedTuple):
    """One contract of a chain snapshot. Prices in the instrument's quote currency; NaN bid or ask = no quote on that side."""

    symbol: str
    expiry: int
    strike: float
    is_call: bool
    bid: float
    ask: float
    mark: float
    iv: float
    delta: float
    vega: float
    """As venues state it: change of the price in USD per volatility point (0.01)."""
    open_interest: float
    bid_size: float = NAN
    ask_size: float = NAN
    """What the best bid and ask are good for, in quantity; NaN = not told."""


class Chain(NamedTuple):
    """All listed options of one underlying at `at`. `spot` is the index price in the underlying's quote currency (USD/USDT).

    `settle_rate` converts the contracts' quote currency into the sub-ledger's currency: 1 for USDT options, the index for coin-quoted ones.
    """

    underlying: str
    at: int
    spot: float
    settle_rate: float
    quotes: Sequence[OptionQuote]


class ChainSlice(NamedTuple):
    """What an option strategy sees of a chain: NaN where unknown. Volatilities are annual (0.6 = 60 %)."""

    iv_atm: float = NAN
    """Of the expiry nearest to the strategy's `days`."""
    iv_put_25: float = NAN
    iv_call_25: float = NAN
    days: float = NAN


class Batch(NamedTuple):
    """Everything a venue has to say about one instant, in the order the daemon takes it in: what one `async for` step yields."""

    at: int
    bars: Sequence[tuple[str, Bar]] = ()
    quotes: Sequence[tuple[str, Quote]] = ()
    marks: Sequence[tuple[str, float]] = ()
    funding: Sequence[FundingRate] = ()
    financing: Sequence[Financing] = ()
    chains: Sequence[Chain] = ()
