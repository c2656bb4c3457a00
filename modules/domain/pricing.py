"""Option mathematics: prices, greeks and implied volatility of European options.

Pure float64, standard library only. Volatilities and rates are annual and continuous (0.6 = 60 %), time is in years of 365 days, prices
are in the currency of spot and strike unless a function says coin. Unknown is NaN, in and out; nothing here raises on market data.

Formulas: Black (1976), Black-Scholes-Merton (1973), Garman-Kohlhagen (1983), as in Hull, Options, Futures, and Other Derivatives.
"""

from __future__ import annotations

import math
from typing import NamedTuple

NAN = math.nan

_SQRT_2 = math.sqrt(2.0)
_SQRT_2_PI = math.sqrt(2.0 * math.pi)
_ITERATIONS = 100


def normal_cdf(x: float) -> float:
    """P(N <= x); accurate in both tails, which 1 - normal_cdf(-x) is not."""
    return 0.5 * math.erfc(-x / _SQRT_2)


def normal_pdf(x: float) -> float:
    return math.exp(-0.5 * x * x) / _SQRT_2_PI


# --- prices ---------------------------------------------------------------------------------------------------------------------


def black_76(forward: float, strike: float, years: float, iv: float, rate: float = 0.0, *, is_call: bool) -> float:
    """Price today of a European option on a forward (Black 1976). At zero time or volatility: the discounted intrinsic value."""
    sign = 1.0 if is_call else -1.0
    discount = math.exp(-rate * years)
    deviation = iv * math.sqrt(years)
    if not deviation > 0.0 or not forward > 0.0 or not strike > 0.0:
        if math.isnan(deviation) or math.isnan(forward) or math.isnan(strike):
            return NAN
        return discount * max(0.0, sign * (forward - strike))
    d1 = math.log(forward / strike) / deviation + 0.5 * deviation
    return discount * sign * (forward * normal_cdf(sign * d1) - strike * normal_cdf(sign * (d1 - deviation)))


def black_scholes(spot: float, strike: float, years: float, iv: float, rate: float = 0.0, yield_: float = 0.0, *, is_call: bool) -> float:
    """European option on an asset that pays a continuous `yield_` (Black-Scholes-Merton)."""
    return black_76(spot * math.exp((rate - yield_) * years), strike, years, iv, rate, is_call=is_call)


def garman_kohlhagen(spot: float, strike: float, years: float, iv: float, domestic: float, foreign: float, *, is_call: bool) -> float:
    """European option on a currency pair: the foreign rate is the asset's yield. Price in domestic currency per foreign unit."""
    return black_scholes(spot, strike, years, iv, domestic, foreign, is_call=is_call)


def expiry_value(strike: float, settlement: float, *, is_call: bool, in_coin: bool = False) -> float:
    """What a contract pays per base unit at the settlement price: in the strike's currency, or in coin for coin-settled ones."""
    value = max(0.0, settlement - strike if is_call else strike - settlement)
    return value / settlement if in_coin else value


class Greeks(NamedTuple):
    """Sensitivities per base unit, in the strike's currency."""

    price: float
    delta: float
    """Per 1.00 of spot."""
    gamma: float
    """Change of delta per 1.00 of spot."""
    vega: float
    """Per 1.00 of volatility (100 points)."""
    theta: float
    """Per year."""
    rho: float
    """Per 1.00 of the domestic rate."""


def greeks(spot: float, strike: float, years: float, iv: float, rate: float = 0.0, yield_: float = 0.0, *, is_call: bool) -> Greeks:
    """Black-Scholes-Merton greeks (Hull, ch. "The Greek letters"). Expired, or without volatility: delta of the intrinsic value, rest 0."""
    price = black_scholes(spot, strike, years, iv, rate, yield_, is_call=is_call)
    sign = 1.0 if is_call else -1.0
    root = math.sqrt(years)
    deviation = iv * root
    if not deviation > 0.0:
        if math.isnan(price):
            return Greeks(NAN, NAN, NAN, NAN, NAN, NAN)
        return Greeks(price, sign if sign * (spot - strike) > 0.0 else 0.0, 0.0, 0.0, 0.0, 0.0)
    d1 = (math.log(spot / strike) + (rate - yield_) * years) / deviation + 0.5 * deviation
    d2 = d1 - deviation
    decay = math.exp(-yield_ * years)
    discount = math.exp(-rate * years)
    density = decay * normal_pdf(d1)
    held = sign * decay * normal_cdf(sign * d1)
    owed = sign * strike * discount * normal_cdf(sign * d2)
    return Greeks(
        price=price,
        delta=held,
        gamma=density / (spot * deviation),
        vega=spot * density * root,
        theta=-0.5 * spot * density * iv / root + yield_ * spot * held - rate * owed,
        rho=years * owed,
    )


# --- implied volatility ---------------------------------------------------------------------------------------------------------


def implied_volatility(price: float, forward: float, strike: float, years: float, rate: float = 0.0, *, is_call: bool) -> float:
    """The Black-76 volatility at which the option costs `price`; NaN where no volatility does (outside the no-arbitrage bounds).

    Solved on the out-of-the-money side (put-call parity), where the price is all time value, and on its logarithm, which is nearly
    straight where the price itself is nearly flat: Newton steps inside a shrinking bracket, bisection when one would leave it. Round
    trip to 1e-8 wherever the price still carries that much information; deep in the money float64 has lost it before we see it.
    """
    if not (price > 0.0 and forward > 0.0 and strike > 0.0 and years > 0.0):
        return NAN
    undiscounted = price * math.exp(rate * years)
    out_call = strike >= forward
    value = undiscounted
    if is_call != out_call:
        value = undiscounted - (forward - strike if is_call else strike - forward)
    bound = forward if out_call else strike
    if not 0.0 < value < bound:
        return NAN
    # In units of total deviation s = iv x sqrt(years): the price rises strictly from 0 to `bound`.
    low, high = 0.0, 1.0
    while black_76(forward, strike, 1.0, high, is_call=out_call) < value:
        low, high = high, 2.0 * high
        if high > 128.0:
            return NAN
    wanted = math.log(value)
    moneyness = math.log(forward / strike)
    # The price's inflection point (Manaster and Koehler 1982) is where Newton is safe to start.
    guess = math.sqrt(2.0 * abs(moneyness))
    if not low < guess < high:
        guess = 0.5 * (low + high)
    for _ in range(_ITERATIONS):
        model = black_76(forward, strike, 1.0, guess, is_call=out_call)
        if model < value:
            low = guess
        else:
            high = guess
        slope = forward * normal_pdf(moneyness / guess + 0.5 * guess)
        following = guess - (math.log(model) - wanted) * model / slope if model > 0.0 and slope > 0.0 else low
        if not low < following < high:
            following = 0.5 * (low + high)
        if abs(following - guess) <= 1e-15 * guess or following in (low, high):
            guess = following
            break
        guess = following
    return guess / math.sqrt(years)
