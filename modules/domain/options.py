"""Chains of options: what a snapshot is worth now, which contracts a structure means, what it can lose, the smile a strategy sees.

Pure float64 over `OptionQuote` and `Chain`; the formulas are in `pricing` and reachable from here. Unknown is NaN, in and out: nothing
here raises on market data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from modules.domain.instrument import Side
from modules.domain.market import NAN, Chain, ChainSlice, OptionQuote
from modules.domain.pricing import Greeks as Greeks
from modules.domain.pricing import black_76 as black_76
from modules.domain.pricing import black_scholes as black_scholes
from modules.domain.pricing import expiry_value as expiry_value
from modules.domain.pricing import garman_kohlhagen as garman_kohlhagen
from modules.domain.pricing import greeks as greeks
from modules.domain.pricing import implied_volatility as implied_volatility
from modules.domain.pricing import normal_cdf as normal_cdf
from modules.domain.signal import Structure

YEAR_MS = 365.0 * 86_400_000.0
DAY_MS = 86_400_000.0

HALF_SPREAD_MIN = 0.0025
"""Of mark: a repriced quote is never tighter than this on either side, however tight the snapshot was."""
FORWARD_GAP_MAX = 0.02
FORWARD_GAP_ANNUAL_MAX = 0.20
"""Bounds of a believable forward, as log distance from spot: so much at once, and so much per year. Beyond it is a stale mark."""
DELTA_GAP_MAX = 0.15
"""A contract whose delta is further from the wanted one is another trade."""

_ITERATIONS = 100


def years_between(at: int, expiry: int) -> float:
    """Years from `at` to `expiry` (both UTC ms), 0 once expired."""
    return max(0.0, (expiry - at) / YEAR_MS)


# --- a snapshot, later ----------------------------------------------------------------------------------------------------------


class Model(NamedTuple):
    """A contract's snapshot turned into what moves with the market. NaN volatility = no model."""

    iv: float
    carry: float
    """Annual growth of the forward over spot, so that it meets spot at expiry."""
    discount: float
    """Annual rate at which the premium is discounted: the carry for coin-quoted contracts, whose premium is in coin at the forward (the
    usual Black-Scholes without yield), 0 for USD-quoted ones."""


def model_of(quote: OptionQuote, chain: Chain) -> Model:
    """Fits the snapshot's own mark: by the forward if the venue states a volatility, by the volatility if it does not.

    A venue computes mark and volatility against a future of the same expiry that a snapshot of the index does not show, hence the
    forward is the one at which the stated volatility gives the stated mark. If none within the bounds does, it is spot.
    """
    years = years_between(chain.at, quote.expiry)
    value = reference(quote) * chain.settle_rate
    if not (quote.iv > 0.0 and years > 0.0):
        return Model(implied_volatility(value, chain.spot, quote.strike, years, is_call=quote.is_call), 0.0, 0.0)
    carry = _implied_carry(value, quote, chain, years) if value > 0.0 else 0.0
    return Model(quote.iv, carry, carry if _coin_quoted(chain) else 0.0)


def _implied_carry(value: float, quote: OptionQuote, chain: Chain, years: float) -> float:
    """Annual carry c at which spot x exp(c years) prices the contract at `value`; 0 if none within the bounds does.

    Newton on g = c x years inside a shrinking bracket: a call's value rises with g, a put's falls, discounted or not.
    """
    spot, strike, sign = chain.spot, quote.strike, 1.0 if quote.is_call else -1.0
    discounted = _coin_quoted(chain)
    deviation = quote.iv * math.sqrt(years)

    def excess(growth: float) -> float:
        price = black_76(spot * math.exp(growth), strike, years, quote.iv, is_call=quote.is_call)
        return sign * ((price * math.exp(-growth) if discounted else price) - value)

    high = FORWARD_GAP_MAX + FORWARD_GAP_ANNUAL_MAX * years
    low = -high
    if not excess(low) < 0.0 < excess(high):
        return 0.0
    guess = 0.0
    for _ in range(_ITERATIONS):
        gap = excess(guess)
        if gap < 0.0:
            low = guess
        else:
            high = guess
        d1 = (math.log(spot / strike) + guess) / deviation + 0.5 * deviation
        if discounted:
            slope = strike * math.exp(-guess) * normal_cdf(sign * (d1 - deviation))
        else:
            slope = spot * math.exp(guess) * normal_cdf(sign * d1)
        following = guess - gap / slope if slope > 0.0 else low
        if not low < following < high:
            following = 0.5 * (low + high)
        if abs(following - guess) <= 1e-14:
            return following / years
        guess = following
    return guess / years


def _coin_quoted(chain: Chain) -> bool:
    return chain.settle_rate != 1.0


def reference(quote: OptionQuote) -> float:
    """The snapshot's own value of the contract: its mark, else the mid of a two-sided quote, else NaN. In quote currency."""
    if quote.mark > 0.0:
        return quote.mark
    return 0.5 * (quote.bid + quote.ask)


def settle_rate_at(chain: Chain, spot_now: float) -> float:
    """The chain's settle rate with spot at `spot_now`: 1 stays 1 (USD-quoted options), an index moves with spot (coin-quoted ones)."""
    return chain.settle_rate * spot_now / chain.spot if _coin_quoted(chain) else 1.0


def model_value(quote: OptionQuote, model: Model, spot: float, at: int, *, iv_shift: float = 0.0) -> float:
    """Value per base unit in the strike's currency at this spot and time, volatility shifted in parallel by `iv_shift`."""
    years = years_between(at, quote.expiry)
    if years <= 0.0:
        return expiry_value(quote.strike, spot, is_call=quote.is_call)
    forward = spot * math.exp(model.carry * years)
    return black_76(forward, quote.strike, years, model.iv + iv_shift, model.discount, is_call=quote.is_call)


def reprice(
    quote: OptionQuote, chain: Chain, spot_now: float, at: int, *, half_spread_min: float = HALF_SPREAD_MIN
) -> tuple[float, float, float]:
    """What a snapshot's quote is now: (bid, ask, mark) in the instrument's quote currency, by Black-76 with the snapshot's volatility.

    At the snapshot's own spot and time it is the snapshot's own mark. Each side keeps its distance from the mark relative to the mark,
    at least `half_spread_min`; a side without a quote stays NaN. From expiry on all quoted sides are the intrinsic value. NaN where the
    snapshot has neither volatility nor value. Coin-quoted contracts (settle rate = index) are worth their USD value over spot.
    """
    rate = settle_rate_at(chain, spot_now)
    if at >= quote.expiry:
        mark = expiry_value(quote.strike, spot_now, is_call=quote.is_call) / rate
        return (NAN if math.isnan(quote.bid) else mark, NAN if math.isnan(quote.ask) else mark, mark)
    mark = model_value(quote, model_of(quote, chain), spot_now, at) / rate
    was = reference(quote)
    if not was > 0.0:
        was = NAN
    below = _at_least(1.0 - quote.bid / was, half_spread_min)
    above = _at_least(quote.ask / was - 1.0, half_spread_min)
    bid = NAN if math.isnan(quote.bid) else max(0.0, mark * (1.0 - below))
    ask = NAN if math.isnan(quote.ask) else mark * (1.0 + above)
    return bid, ask, mark


def _at_least(share: float, least: float) -> float:
    return share if share > least else least  # NaN compares false: an unknown spread is the least one


# --- the smile a strategy sees --------------------------------------------------------------------------------------------------


def delta_of(quote: OptionQuote, chain: Chain, spot: float | None = None, at: int | None = None) -> float:
    """Delta per base unit: the snapshot's own, or the model's at `spot` and `at` or where the venue gives none; NaN without volatility."""
    if spot is None and not math.isnan(quote.delta):
        return quote.delta
    return contract_greeks(quote, model_of(quote, chain), chain.spot if spot is None else spot, chain.at if at is None else at).delta


def slice_of(chain: Chain, days: float, at: int) -> ChainSlice:
    """What an option strategy sees of the chain: volatilities of the expiry nearest to `days` from `at`; NaN where unknown.

    At the money is the mean of the two strikes nearest to spot, weighted by nearness, out-of-the-money sides only (they are the ones
    that trade); a 25-delta volatility is that of the contract whose delta is nearest, if within 0.15 of it.
    """
    live = [quote for quote in chain.quotes if quote.expiry > at and quote.iv > 0.0]
    if not live:
        return ChainSlice()
    wanted = at + days * DAY_MS
    expiry = min({quote.expiry for quote in live}, key=lambda moment: (abs(moment - wanted), moment))
    row = [quote for quote in live if quote.expiry == expiry]
    above = min((q for q in row if q.strike >= chain.spot), key=lambda q: (q.strike, not q.is_call), default=None)
    below = max((q for q in row if q.strike <= chain.spot), key=lambda q: (q.strike, not q.is_call), default=None)
    if above is None or below is None:
        atm = NAN  # spot outside the listed strikes: extrapolating a smile is inventing one
    elif above.strike == below.strike:
        atm = 0.5 * (above.iv + below.iv)
    else:
        weight = (chain.spot - below.strike) / (above.strike - below.strike)
        atm = below.iv + weight * (above.iv - below.iv)
    return ChainSlice(atm, _wing(row, chain, -0.25), _wing(row, chain, 0.25), (expiry - at) / DAY_MS)


def _wing(row: Sequence[OptionQuote], chain: Chain, delta: float) -> float:
    """Volatility of the contract whose delta is nearest to `delta` (negative: puts)."""
    nearest = _nearest_delta([(q, delta_of(q, chain)) for q in row if q.is_call == (delta > 0.0)], abs(delta))
    return NAN if nearest is None else nearest.iv


# --- structures -----------------------------------------------------------------------------------------------------------------


def choose(
    structure: Structure,
    chain: Chain,
    side: Side,
    days: float,
    delta: float,
    width: float,
    at: int,
    expiry_days_min: float,
    *,
    spot: float | None = None,
) -> list[tuple[OptionQuote, Side]] | None:
    """The contracts a structure means in this chain, in the order they must be traded; None if the chain does not have them.

    The expiry is the nearest with at least max(`days`, `expiry_days_min`) left; only contracts quoted on both sides count, since what
    is opened must be closed. LONG_OPTION: the call (BUY: bullish) or put (SELL: bearish) whose |delta| is nearest. CREDIT_SPREAD: BUY
    sells a put spread, SELL a call spread; the short leg by |delta|, the protective one `width` x spot further out, *first* in the
    list: if the second order fails, what is left is a long option. A spread without a credit, or paying more than its width, is None.
    IRON_CONDOR: both spreads, whatever the side, below and above each other's strikes; both protective legs first.

    Deltas are the snapshot's; give `spot` to take those of the present spot and `at` instead (a recorded chain may be a day old).
    """
    if structure is Structure.SINGLE:
        return None
    earliest = at + max(days, expiry_days_min) * DAY_MS
    quoted = [quote for quote in chain.quotes if quote.expiry >= earliest and quote.bid > 0.0 and quote.ask >= quote.bid]
    if not quoted:
        return None
    expiry = min(quote.expiry for quote in quoted)
    market = spot if spot is not None else chain.spot
    by_right = {right: [(quote, delta_of(quote, chain, spot, at)) for quote in quoted if quote.expiry == expiry and quote.is_call is right]
                for right in (True, False)}
    bullish = side is Side.BUY
    if structure is Structure.LONG_OPTION:
        bought = _nearest_delta(by_right[bullish], delta)
        return [(bought, Side.BUY)] if bought is not None else None
    if structure is Structure.CREDIT_SPREAD:
        return _vertical(by_right[not bullish], delta, width * market, chain.settle_rate)
    puts, calls = (_vertical(by_right[right], delta, width * market, chain.settle_rate) for right in (False, True))
    if puts is None or calls is None or puts[1][0].strike >= calls[1][0].strike:
        return None  # it could lose on both sides at once
    return [puts[0], calls[0], puts[1], calls[1]]


def _vertical(
    row: Sequence[tuple[OptionQuote, float]], delta: float, width: float, settle_rate: float
) -> list[tuple[OptionQuote, Side]] | None:
    """A spread that takes in a credit, of contracts of one right and expiry with their deltas: the one that is sold by |delta|, the one
    that protects it about `width` (quote currency) further out, that first. None if there is none, or no credit within its width."""
    sold = _nearest_delta(row, delta)
    if sold is None:
        return None
    outward = 1.0 if sold.is_call else -1.0
    further = [quote for quote, _ in row if outward * (quote.strike - sold.strike) > 0.0]
    if not further:
        return None
    wanted = sold.strike + outward * width
    protective = min(further, key=lambda quote: (abs(quote.strike - wanted), quote.strike))
    credit = (sold.bid - protective.ask) * settle_rate
    if not 0.0 < credit < abs(protective.strike - sold.strike):
        return None
    return [(protective, Side.BUY), (sold, Side.SELL)]


def _nearest_delta(row: Sequence[tuple[OptionQuote, float]], wanted: float) -> OptionQuote | None:
    """The contract whose |delta| is nearest to `wanted`, the lower strike of two; None if none is within 0.15. NaN deltas don't count."""
    near = [(abs(abs(delta) - wanted), quote.strike, quote) for quote, delta in row if abs(abs(delta) - wanted) < DELTA_GAP_MAX]
    return min(near, key=lambda entry: entry[:2])[2] if near else None


class StructureRisk(NamedTuple):
    """One base unit of a structure, settlement currency, fees not included. NaN where a leg lacks a price or a volatility."""

    cost: float
    """Cash it ties up: the premium of a long option, collateral minus credit of a spread."""
    max_loss: float
    """The most it can lose."""
    delta: float
    """Base units of the underlying, signed."""
    vega: float
    """Per 1.00 of volatility."""
    shock_loss: float
    """Loss on a 3-sigma day, the worse of both directions, at once or by the next day; never negative."""


def structure_risk(
    structure: Structure, legs: Sequence[tuple[OptionQuote, Side, float]], spot: float, at: int, *, chain: Chain | None = None
) -> StructureRisk:
    """What one unit of a structure costs and can lose. A leg is (contract, side, price we would trade at, in settlement currency).

    LONG_OPTION: the loss is bounded by the premium. CREDIT_SPREAD (protective leg first, as from `choose`): by the distance of the
    strikes minus the credit. IRON_CONDOR: by the wider of its two distances minus all of the credit, for the price ends on one side only.
    With the `chain` the contracts come from, values and greeks use the forward its marks imply; without it the forward is spot. Raises
    ValueError if the legs are not such a structure: that is a bug, not market data.
    """
    premium = math.fsum(side.sign * price for _, side, price in legs)
    if structure is Structure.LONG_OPTION and [side for _, side, _ in legs] == [Side.BUY]:
        cost = premium
    elif structure is Structure.CREDIT_SPREAD and [side for _, side, _ in legs] == [Side.BUY, Side.SELL]:
        cost = abs(legs[0][0].strike - legs[1][0].strike) + premium
    elif structure is Structure.IRON_CONDOR and _condor([(quote, side) for quote, side, _ in legs]):
        cost = max(abs(legs[0][0].strike - legs[2][0].strike), abs(legs[1][0].strike - legs[3][0].strike)) + premium
    else:
        raise ValueError(f"not the legs of a {structure}: {[(quote.symbol, side.value) for quote, side, _ in legs]}")
    book = [(quote, _model(quote, chain), float(side.sign)) for quote, side, _ in legs]
    sensitivities = [(units, contract_greeks(quote, model, spot, at)) for quote, model, units in book]
    return StructureRisk(
        cost=cost,
        max_loss=cost,
        delta=math.fsum(units * greek.delta for units, greek in sensitivities),
        vega=math.fsum(units * greek.vega for units, greek in sensitivities),
        shock_loss=shock_loss(book, spot, at),
    )


def _condor(legs: Sequence[tuple[OptionQuote, Side]]) -> bool:
    """A put and a call bought, then a put and a call sold between them: only one of the two spreads can lose at expiry."""
    if [side for _, side in legs] != [Side.BUY, Side.BUY, Side.SELL, Side.SELL] or [leg.is_call for leg, _ in legs] != [False, True] * 2:
        return False
    (low, _), (high, _), (put, _), (call, _) = legs
    return len({leg.expiry for leg, _ in legs}) == 1 and low.strike < put.strike < call.strike < high.strike


def contract_greeks(quote: OptionQuote, model: Model, spot: float, at: int) -> Greeks:
    """Greeks of one base unit at the present spot and time, in the strike's currency; the forward moves along with spot."""
    years = years_between(at, quote.expiry)
    return greeks(spot, quote.strike, years, model.iv, model.discount, model.discount - model.carry, is_call=quote.is_call)


def shock_loss(book: Sequence[tuple[OptionQuote, Model, float]], spot: float, at: int) -> float:
    """What contracts of *one* underlying lose together on a 3-sigma day, by full revaluation; 0 if every such day is a gain.

    Each entry is (contract, its model, signed base units); netting them here is what makes a spread a spread. The day's sigma is the
    largest volatility in the book.
    """
    iv = max((model.iv for _, model, _ in book), default=0.0)
    totals = [0.0, 0.0, 0.0, 0.0]
    for quote, model, units in book:
        for scenario, move in enumerate(_moves(quote, model, spot, at, iv)):
            totals[scenario] += units * move
    if any(math.isnan(total) for total in totals):
        return NAN
    return max(0.0, -min(totals))


def shock_moves(quote: OptionQuote, spot: float, at: int, *, chain: Chain | None = None) -> tuple[float, float, float, float]:
    """What one bought base unit gains (+) or loses (-) on a 3-sigma day of its own volatility: down and up at once, down and up by the
    next day."""
    model = _model(quote, chain)
    return _moves(quote, model, spot, at, model.iv)


def _moves(quote: OptionQuote, model: Model, spot: float, at: int, iv: float) -> tuple[float, float, float, float]:
    """Both at once and a day later: a seller fears the move itself, a buyer also the day that passes with it."""
    move = 3.0 * iv * math.sqrt(1.0 / 365.0)
    down, up = spot * max(0.0, 1.0 - move), spot * (1.0 + move)
    tomorrow = at + int(DAY_MS)
    now = model_value(quote, model, spot, at)
    return (
        model_value(quote, model, down, at) - now,
        model_value(quote, model, up, at) - now,
        model_value(quote, model, down, tomorrow) - now,
        model_value(quote, model, up, tomorrow) - now,
    )


def _model(quote: OptionQuote, chain: Chain | None) -> Model:
    return Model(quote.iv, 0.0, 0.0) if chain is None else model_of(quote, chain)
