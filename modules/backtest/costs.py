"""The one cost model and the one set of fill rules, for the paper venue, replay and the compiled validation kernel.

Owns formulas only: every number comes in as an argument (policies/cost_policy.json). All functions are pure and take scalars; none uses a
dict or an object, so Numba compiles them unchanged. Those that end in booked money work on Decimals just as well, and the paper venue
calls them that way: one formula, exact where it is money.

Conventions: `side` is +1 for a long position or a buying order, -1 for a short or a selling one. Prices are in quote currency, costs in
basis points of price and always against us. NaN means "none": no stop, no target, no volume known. Where one bar leaves the order of
events open, the worse order for us is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from types import FunctionType
from typing import Any, Final, TypeVar

Number = TypeVar("Number", float, Decimal)

NAN: Final = math.nan
BASIS_POINT: Final = 1e-4
DAYS_PER_YEAR: Final = 365
"""Annual financing rates are paid per calendar night, actual/365, as OANDA does."""
AVERAGE_WEIGHT: Final = 1.0 / 64.0
"""Weight of the newest bar in the average bar's notional: an exponential mean over about 64 bars."""

# What `bar_exit` finds.
NO_EXIT: Final = 0
STOP: Final = 1
TARGET: Final = 2

# When within a bar a resting order's price was reached.
UNTOUCHED: Final = 0
AT_OPEN: Final = 1
IN_RANGE: Final = 2


# -- what a fill costs ------------------------------------------------------------------------------------------------


def average_notional(average: float, notional: float) -> float:
    """The running average bar's notional after one more bar (quote currency). NaN on either side means unknown and is skipped."""
    if math.isnan(notional):
        return average
    if math.isnan(average):
        return notional
    return average + (notional - average) * AVERAGE_WEIGHT


def impact(impact_bp: float, notional: float, average: float) -> float:
    """Market impact in basis points: square-root law, `impact_bp` x sqrt(order notional / notional of an average bar).

    0 where the market states no volume (FX); an average of zero counts as an order of one whole average bar.
    """
    if math.isnan(average):
        return 0.0
    if average <= 0.0:
        return impact_bp
    return impact_bp * math.sqrt(notional / average)


def touched(side: int, bid: float, ask: float, synthetic: bool, half_spread_bp: float) -> float:
    """The side of the quote a market order of `side` takes: the ask to buy, the bid to sell.

    A synthetic quote is never tighter than the modelled spread around its mid.
    """
    touch = ask if side > 0 else bid
    if not synthetic:
        return touch
    modelled = 0.5 * (bid + ask) * (1.0 + side * half_spread_bp * BASIS_POINT)
    return max(touch, modelled) if side > 0 else min(touch, modelled)


def market_fill(side: int, touch: float, slippage_bp: float, impact_cost_bp: float) -> float:
    """Price of a market order: the touched side of the quote, plus slippage and impact."""
    return touch * (1.0 + side * (slippage_bp + impact_cost_bp) * BASIS_POINT)


def stop_slippage(slippage_bp: float, impact_cost_bp: float, stop_slippage_bp: float) -> float:
    """What a stop loses beyond its trigger, in basis points. Crossing the spread is part of `stop_slippage_bp`."""
    return slippage_bp + impact_cost_bp + stop_slippage_bp


def stop_fill(side: int, raw: float, slippage_bp: float, impact_cost_bp: float, stop_slippage_bp: float) -> float:
    """Price of a triggered stop *order* of `side` whose raw price (trigger, or the open it gapped to) is `raw`."""
    return raw * (1.0 + side * stop_slippage(slippage_bp, impact_cost_bp, stop_slippage_bp) * BASIS_POINT)


def participation(wanted: float, volume: float, participation_max: float, taken: float) -> float:
    """How much of `wanted` (base units) one bar may fill: at most `participation_max` of its volume, less what it already filled.

    A market without volume figures (NaN) fills everything; one in which nothing traded fills nothing.
    """
    if math.isnan(volume):
        return wanted
    return max(0.0, min(wanted, volume * participation_max - taken))


# -- what happens to resting orders within one bar ----------------------------------------------------------------------


def quote_offset(bid: float, ask: float, open_price: float, half_spread_bp: float) -> float:
    """Half the spread in price units: what the side an order trades on is off a bar of mids.

    For markets whose orders trigger on bid and ask (FX). Where orders trigger on trades (crypto venues) the offset is 0. `bid` and `ask`
    are the bar's own, synthesized from the model's half spread where not recorded.
    """
    if bid > 0.0 and ask >= bid:
        return 0.5 * (ask - bid)
    return open_price * half_spread_bp * BASIS_POINT


def stop_reached(side: int, open_price: float, high: float, low: float, stop: float, offset: float) -> int:
    """When a stop *order* of `side` (a sell stop protects a long) triggered: UNTOUCHED, AT_OPEN (gapped through) or IN_RANGE."""
    if math.isnan(stop):
        return UNTOUCHED
    if side < 0:
        if open_price - offset <= stop:
            return AT_OPEN
        return IN_RANGE if low - offset <= stop else UNTOUCHED
    if open_price + offset >= stop:
        return AT_OPEN
    return IN_RANGE if high + offset >= stop else UNTOUCHED


def stop_raw(side: int, open_price: float, stop: float, offset: float, reached: int) -> float:
    """Price at which a triggered stop order starts to trade: its trigger, or the open's own side when it gapped through."""
    return open_price + side * offset if reached == AT_OPEN else stop


def limit_reached(side: int, open_price: float, high: float, low: float, limit: float, offset: float) -> int:
    """When a limit *order* of `side` was filled. The price must trade *through* it: a touch leaves us in the queue.

    AT_OPEN (the bar opened beyond it) fills at the limit all the same, never better.
    """
    if math.isnan(limit):
        return UNTOUCHED
    if side < 0:
        if open_price - offset > limit:
            return AT_OPEN
        return IN_RANGE if high - offset > limit else UNTOUCHED
    if open_price + offset < limit:
        return AT_OPEN
    return IN_RANGE if low + offset < limit else UNTOUCHED


def bar_exit(side: int, open_price: float, high: float, low: float, stop: float, target: float, offset: float) -> tuple[int, float]:
    """How a position of `side` leaves within one bar: (NO_EXIT | STOP | TARGET, raw price before slippage).

    The open comes first, and it is known: a gap through the stop fills there, a gap beyond the target fills at the target. After that
    the path is unknown: if the range holds both, the stop was first.
    """
    stopped = stop_reached(-side, open_price, high, low, stop, offset)
    if stopped == AT_OPEN:
        return STOP, stop_raw(-side, open_price, stop, offset, stopped)
    reached = limit_reached(-side, open_price, high, low, target, offset)
    if reached == AT_OPEN:
        return TARGET, target
    if stopped == IN_RANGE:
        return STOP, stop
    if reached == IN_RANGE:
        return TARGET, target
    return NO_EXIT, NAN


def next_stop(
    side: int, entry: float, stop: float, best: float, initial_risk: float,
    break_even_at_r: float, trail_at_r: float, trail_distance_r: float,
) -> float:
    """Where a position's stop belongs once `best` (the best price since entry) is known. It only ever tightens.

    `initial_risk` is the distance from entry to the first stop, 1 R. From `break_even_at_r` R on the stop is at the entry; from
    `trail_at_r` R on it follows `best` at `trail_distance_r` R. 0 switches either off.
    """
    if not initial_risk > 0.0:
        return stop
    gained_r = side * (best - entry) / initial_risk
    tightest = stop
    if break_even_at_r > 0.0 and gained_r >= break_even_at_r and side * (entry - tightest) > 0.0:
        tightest = entry
    if trail_at_r > 0.0 and gained_r >= trail_at_r:
        trailed = best - side * trail_distance_r * initial_risk
        if side * (trailed - tightest) > 0.0:
            tightest = trailed
    return tightest


# -- what holding costs -------------------------------------------------------------------------------------------------


def funding(signed_notional: Number, rate: Number) -> Number:
    """Perp funding received (negative = paid) on a position worth `signed_notional` at the mark: longs pay a positive rate."""
    return -signed_notional * rate


def financing(notional: Number, annual_rate: Number, nights: int) -> Number:
    """FX financing received (negative = paid) for `nights` on an unsigned `notional`. `annual_rate` is what this side earns as its broker
    states it: whoever states a rate has taken his markup off already."""
    return notional * annual_rate * nights / DAYS_PER_YEAR


def liquidation_price(side: int, entry: Number, leverage: Number, maintenance_margin: Number) -> Number:
    """Price at which an isolated position's margin has shrunk to the maintenance margin; 0 = never (a long at leverage 1).

    Solves entry / leverage + side x (P - entry) = maintenance_margin x P for P.
    """
    return entry * (1 - side / leverage) / (1 - side * maintenance_margin)


def bankruptcy_price(side: int, entry: Number, leverage: Number) -> Number:
    """Price at which an isolated position's whole margin is gone: where the venue closes it, whatever it got itself."""
    return entry * (1 - side / leverage)


# -- options --------------------------------------------------------------------------------------------------------------


def option_fee(fee: Number, underlying: Number, premium: Number, cap: Number) -> Number:
    """Fee per base unit: `fee` x price of the underlying, at most `cap` x the premium (trade) or value (settlement). Bybit, Deribit."""
    return min(fee * underlying, cap * premium)


def option_value(is_call: bool, underlying: Number, strike: Number) -> Number:
    """Intrinsic value per base unit in the strike's currency."""
    gain = underlying - strike if is_call else strike - underlying
    return gain if gain > 0 else gain - gain


# -- for the compiled kernel ------------------------------------------------------------------------------------------------

KERNEL: Final[tuple[Callable[..., Any], ...]] = (
    average_notional, impact, touched, market_fill, stop_slippage, stop_fill, participation, quote_offset, stop_reached, stop_raw,
    limit_reached, bar_exit, next_stop, funding, financing, liquidation_price, bankruptcy_price, option_fee, option_value,
)
"""Every function above, callees before callers."""


def compile_with(compiler: Callable[[Callable[..., Any]], Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """The same functions by name, each passed through `compiler` (numba.njit) and calling each other's compiled forms."""
    namespace: dict[str, Any] = dict(globals())
    for function in KERNEL:
        assert isinstance(function, FunctionType)
        namespace[function.__name__] = compiler(FunctionType(function.__code__, namespace, function.__name__))
    return {function.__name__: namespace[function.__name__] for function in KERNEL}
