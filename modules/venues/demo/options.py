"""Option chains of the demo market: what is listed, and what each contract is quoted at, from an index price and a volatility level.

Marks are Black-76 on the forward without discounting, so calls and puts of one strike obey C - P = F - K. Published numbers are rounded,
which hides the last bit in which one machine's exp and log may differ from another's. Expiries are at 08:00 UTC: the next six days, the
next three Fridays and the last Friday of a month after those.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from modules.domain.market import NAN, Chain, OptionQuote
from modules.venues.demo.catalog import DAY_MS, OPTIONS, OptionListing, option_symbol

_YEAR_MS: Final = 365.0 * DAY_MS
_EXPIRY_HOUR: Final = 8
_BASIS: Final = 0.04
"""Annual premium of the forward over the index."""
_SKEW: Final = -0.06
_SMILE: Final = 0.08
"""Volatility = level x (1 + skew x m + smile x (sqrt(1 + m^2) - 1)), m = moneyness in standard deviations to expiry: wings straight
enough that no butterfly is free."""
_TERM: Final = 0.55
_TERM_ANCHOR_DAYS: Final = 14.0
"""A level far from its long-run mean is felt in full up to about two weeks and fades beyond."""
_HALF_SPREAD_SHARE: Final = 0.015
_HALF_SPREAD_FAR: Final = 0.008
_HALF_SPREAD_INDEX: Final = 0.00002
"""Half spread = of the cheaper side's premium (0.015 + 0.008 m^2), plus this much of the index."""
_ROOT_HALF: Final = math.sqrt(0.5)
_DENSITY: Final = 1.0 / math.sqrt(2.0 * math.pi)
_STRIKES_EACH_SIDE: Final = 4
_REACH: Final = 2.0
"""Strikes are listed this many standard deviations around the forward."""


class _Series(NamedTuple):
    """One expiry as listed so far: strikes are added as the market moves and never taken away before they expire."""

    expiry: int
    step: int
    strikes: list[int]
    contracts: dict[int, tuple[str, str, float]]
    """Per strike: the call's and the put's symbol, and how many contracts would be open if it were at the money."""


class OptionMarket:
    """The chain of one underlying. Feed `chain` with rising times; two markets fed alike answer alike."""

    def __init__(self, underlying: str, seed: int) -> None:
        self._underlying = underlying
        self._listing: OptionListing = OPTIONS[underlying]
        self._seed = seed
        self._series: dict[int, _Series] = {}

    def chain(self, at: int, spot: float, level: float) -> Chain:
        """All contracts alive after `at`; `level` is the at-the-money volatility for short expiries. One expiring at `at` is gone."""
        for expiry in [expiry for expiry in self._series if expiry <= at]:
            del self._series[expiry]
        quotes: list[OptionQuote] = []
        for expiry in expiries(at):
            years = (expiry - at) / _YEAR_MS
            volatility = _term(level, self._listing.volatility, years)
            forward = spot * (1.0 + _BASIS * years)
            series = self._list(expiry, at, forward, volatility * math.sqrt(years))
            quotes += self._quotes(series, years, spot, forward, volatility)
        return Chain(self._underlying, at, spot, 1.0, quotes)

    def follow(self, at: int, spot: float, level: float) -> None:
        """List what `chain` would list, and quote nothing: to catch up with a past that nobody asks the prices of."""
        for expiry in [expiry for expiry in self._series if expiry <= at]:
            del self._series[expiry]
        for expiry in expiries(at):
            years = (expiry - at) / _YEAR_MS
            self._list(expiry, at, spot * (1.0 + _BASIS * years), _term(level, self._listing.volatility, years) * math.sqrt(years))

    def _list(self, expiry: int, at: int, forward: float, deviation: float) -> _Series:
        series = self._series.get(expiry)
        if series is None:
            step = self._listing.strike_step * _strike_multiple((expiry - at) / DAY_MS)
            series = self._series[expiry] = _Series(expiry, step, [], {})
        reach = min(_REACH * deviation * forward, _STRIKES_EACH_SIDE * series.step)
        first, last = math.ceil((forward - reach) / series.step), math.floor((forward + reach) / series.step)
        for multiple in range(first, last + 1):
            strike = multiple * series.step
            if strike > 0 and strike not in series.contracts:
                series.contracts[strike] = (option_symbol(self._underlying, expiry, strike, is_call=True),
                                            option_symbol(self._underlying, expiry, strike, is_call=False),
                                            self._listing.open_interest * self._crowd(expiry, strike))
                series.strikes.append(strike)
                series.strikes.sort()
        return series

    def _quotes(self, series: _Series, years: float, spot: float, forward: float, level: float) -> list[OptionQuote]:
        root = math.sqrt(years)
        scale = 1.0 / (level * root)
        per_unit = float(1 / Decimal(self._listing.tick))
        expiry = series.expiry
        quotes = []
        for strike in series.strikes:
            moneyness = math.log(strike / forward) * scale
            squared = moneyness * moneyness
            volatility = round(level * (1.0 + _SKEW * moneyness + _SMILE * (math.sqrt(1.0 + squared) - 1.0)), 6)
            call, put, delta, vega = _black_76(forward, float(strike), volatility * root)
            half = (_HALF_SPREAD_SHARE + _HALF_SPREAD_FAR * squared) * min(call, put) + _HALF_SPREAD_INDEX * spot
            vega = round(vega * root * 0.01, 4)
            call_symbol, put_symbol, crowd = series.contracts[strike]
            interest = float(round(crowd / ((1.0 + squared) * (1.0 + squared))))
            for symbol, is_call, price, side_delta in ((call_symbol, True, call, delta), (put_symbol, False, put, delta - 1.0)):
                bid, ask = math.floor((price - half) * per_unit), math.ceil((price + half) * per_unit)
                quotes.append(OptionQuote(symbol, expiry, float(strike), is_call, bid / per_unit if bid > 0 else NAN, ask / per_unit,
                                          round(price, 4), volatility, round(side_delta, 6), vega, interest))
        return quotes

    def _crowd(self, expiry: int, strike: int) -> float:
        """A contract's own popularity, 0.5 to 1.5: an integer hash, for it must not depend on what else is listed."""
        mixed = (strike * 2_654_435_761 ^ expiry // DAY_MS * 40_503 ^ self._seed * 97) & 0xFFFFFFFF
        mixed = (mixed ^ mixed >> 15) * 2_246_822_519 & 0xFFFFFFFF
        return 0.5 + (mixed >> 12) / 1_048_576.0


def expiries(at: int) -> list[int]:
    """UTC ms of the expiries listed at `at`, nearest first."""
    today = datetime.fromtimestamp(at / 1000, UTC).replace(hour=_EXPIRY_HOUR, minute=0, second=0, microsecond=0)
    first = today if int(today.timestamp()) * 1000 > at else today + timedelta(days=1)
    friday = first + timedelta(days=(4 - first.weekday()) % 7)
    days = {first + timedelta(days=count) for count in range(6)} | {friday + timedelta(weeks=count) for count in range(3)}
    month = friday + timedelta(weeks=3)
    while (month + timedelta(weeks=1)).month == month.month:
        month += timedelta(weeks=1)
    days.add(month)
    return sorted(int(day.timestamp()) * 1000 for day in days)


def _strike_multiple(days: float) -> int:
    if days < 5.0:
        return 1
    return 2 if days < 17.0 else 5


def _term(level: float, long_run: float, years: float) -> float:
    days = years * 365.0
    return level + _TERM * (long_run - level) * max(0.0, 1.0 - _TERM_ANCHOR_DAYS / days)


def _black_76(forward: float, strike: float, deviation: float) -> tuple[float, float, float, float]:
    """Undiscounted call, put, call delta, and vega per sqrt(year) of volatility; `deviation` = volatility x sqrt(years).

    Both rights of a strike at once, which halves the work of a chain. Black, "The pricing of commodity contracts" (1976).
    """
    d1 = math.log(forward / strike) / deviation + 0.5 * deviation
    probability = 0.5 * math.erfc(-d1 * _ROOT_HALF)
    call = forward * probability - strike * 0.5 * math.erfc((deviation - d1) * _ROOT_HALF)
    call = max(call, forward - strike, 0.0)
    return call, call - forward + strike, probability, forward * _DENSITY * math.exp(-0.5 * d1 * d1)
