"""What the compiled kernel does to one trade: prices to the tick, quantities to the lot, every fill's money, sizes. Pure float functions.

Owns no rule: formulas of cost are modules/backtest/costs.py's, the order of events is the paper venue's and the executor's. Compiled by
kernel.py together with costs.py; plain Python runs the same lines. `p` is one run's state, a float64 vector with the places named here.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

from modules.backtest.costs import financing, funding, impact, liquidation_price, market_fill, touched
from modules.strategies.indicators import Ring

NAN: Final = math.nan
UNITS: Final = 1e8
"""Ledger units of 1e-8 in one."""

# Places in `p`. The trade under way:
SIDE: Final = 0
HELD: Final = 1
ENTERED: Final = 2
ENTERED_VALUE: Final = 3
EXITED: Final = 4
EXITED_VALUE: Final = 5
COST: Final = 6
"""Spot: what is held cost, settlement currency. Margined: its signed value at entry, quote currency."""
GROSS: Final = 7
FEES: Final = 8
FUNDING: Final = 9
ENTRY_REST: Final = 10
"""Quantity the entry order still wants; the order works while it is positive."""
EXIT_REST: Final = 11
EXIT_SENT: Final = 12
EXIT_AFTER: Final = 13
EXIT_TRIES: Final = 14
REASON: Final = 15
"""Why its exit was asked for, 0 = not."""
STOP_PRICE: Final = 16
TARGET_PRICE: Final = 17
STOP_REST: Final = 18
TRIGGERED: Final = 19
STOP_REASON: Final = 20
OPENED_AT: Final = 21
HOLD: Final = 22
SIGNAL_ENTRY: Final = 23
SIGNAL_STOP: Final = 24
SIGNAL_TARGET: Final = 25
BEST: Final = 26
RISK: Final = 27
LEVERAGE: Final = 28
LIQUIDATION: Final = 29
ATTENTION: Final = 30
ENTRY_BAR: Final = 31
FIRST_AT: Final = 32
LAST_AT: Final = 33
LAST_REASON: Final = 34
SLIPPED: Final = 35
"""Sum of quantity x basis points lost against arrival."""
EXIT_ARRIVAL: Final = 36
ENTRY_ARRIVAL: Final = 37
PLANNED: Final = 38
"""Quantity of the entry order."""
FLOOR: Final = 39
CEILING: Final = 40
"""Between them no resting order can care about a bar."""
NEXT_CLOSE: Final = 41
"""FOREX: when the week of its entry ends."""
SENT_AT: Final = 42
"""When the entry order was sent."""
WAITS: Final = 65
DUE: Final = 66
"""When it has been held long enough, or the week is over."""
TRADE_FIELDS: Final = 43
# The run:
CASH: Final = 43
LOSSES: Final = 63
LAST_LOSS: Final = 64
TAKEN: Final = 44
"""Base units filled in the bar that is open now."""
REVERSAL: Final = 45
"""Side of the opening half of a reversal, 0 = none."""
REVERSAL_SCORE: Final = 46
REVERSAL_STOP: Final = 47
REVERSAL_TARGET: Final = 48
REVERSAL_HOLD: Final = 49
TRADES: Final = 50
FUNDED: Final = 51
"""Settlements that are past."""
ROLLED: Final = 52
INSTANT: Final = 53
STOP_OUTS: Final = 54
NEXT: Final = 67
"""When money accrues next, or the market says something between two bars."""
UNFILLED: Final = 68
"""Entry orders that ended without a fill."""
STOP_TIMES: Final = 70
STOP_MEMORY: Final = 64
"""As many stop-outs are remembered, UTC ms, from STOP_TIMES on; risk_policy asks about no more."""
PLACES: Final = 134

# Why a trade ended: places in REASONS of kernel.py.
NO_REASON: Final = 0
STOP_LOSS: Final = 1
ROI: Final = 2
EXIT_SIGNAL: Final = 3
TIME_EXIT: Final = 4
TRAILING: Final = 5
LIQUIDATED: Final = 6
DELISTED: Final = 7
FORCED: Final = 8

# Columns of a recorded trade.
R_ENTRY_AT: Final = 0
R_EXIT_AT: Final = 1
R_ENTRY_BAR: Final = 2
R_EXIT_BAR: Final = 3
R_SIDE: Final = 4
R_REASON: Final = 5
R_ENTRY: Final = 6
R_EXIT: Final = 7
R_QUANTITY: Final = 8
R_GROSS: Final = 9
R_FEES: Final = 10
R_FUNDING: Final = 11
R_NET: Final = 12
R_RISK: Final = 13
R_SLIPPAGE: Final = 14
R_ORDERED: Final = 15
COLUMNS: Final = 16


class Numbers(NamedTuple):
    """Policies and instrument as plain numbers, made by kernel_rules. Flags are 0.0 or 1.0; times in ms."""

    half_spread_bp: float
    slippage_bp: float
    impact_bp: float
    stop_slippage_bp: float
    maker_fee: float
    taker_fee: float
    participation_max: float
    maintenance: float
    latency: float
    entry_timeout: float
    exit_timeout: float
    break_even_at_r: float
    trail_at_r: float
    trail_distance_r: float
    interval: float
    tick_units: float
    tick_scale: float
    """A price is n x tick_units / tick_scale: both are whole, so it is the nearest float to the exact decimal."""
    lot_units: float
    lot_scale: float
    quantity_min: float
    notional_min: float
    contract_size: float
    spot: float
    perp: float
    forex: float
    stated_volume: float
    inverse_rate: float
    """The settlement currency is the pair's base: a fill converts at its own price."""
    exact: float
    """Prices, quantities and money are rounded as the daemon's; off: every trade has the same notional."""
    notional: float
    """Where not exact: of every trade, settlement currency."""
    wallet: float
    gates: float
    direction: float
    weekend_flat: float
    rollover_ms: float
    funding_max: float
    carry_max: float
    share_max: float
    holding_ms: float
    expected_r: float
    cooldown_losses: float
    cooldown_ms: float
    class_stop_outs: float
    class_window_ms: float
    class_rest_ms: float
    late_ms: float
    phase_1: float
    phase_2: float
    phase_3: float
    fixed: float
    fraction_min: float
    fraction_max: float
    risk_min: float
    risk_max: float
    cap_min: float
    cap_max: float
    good_from: float
    good_min: float
    good_max: float
    daily_budget: float
    leverage_max: float
    gross_max: float
    instrument_max: float
    clear_min: float
    volume_share: float
    exit_margin: float
    pair_cap: float
    sizing_fee: float
    deep: float
    dated: float
    """A dated future pays no funding."""
    mood_against: float
    mood_least: float
    """Share of the size that is left at that mood."""
    share_least: float
    """Phase 1 trades it all; where the mood leaves less than this share, not at all."""
    unstated: float
    """What a forex position earns a year where nobody states a rate."""


# -- rounding ------------------------------------------------------------------------------------------------------------------


def booked(r: Numbers, value: float) -> float:
    """money.book: half-even to 1e-8."""
    return round(value * UNITS) / UNITS if r.exact > 0.0 else value


def charged(r: Numbers, value: float) -> float:
    """paper_book.charge: a fee rounded up to 1e-8; the thousandth of a unit forgives binary noise."""
    return math.ceil(value * UNITS - 1e-3) / UNITS if r.exact > 0.0 else value


def modelled(r: Numbers, price: float, up: bool) -> float:
    """A modelled price at its tick, against us: first to the 12 digits that mean something, as PaperDesk does."""
    if not (r.exact > 0.0 and price > 0.0):
        return price
    scale: float = 10.0 ** (11.0 - math.floor(math.log10(price)))
    number = round(price * scale) / scale * r.tick_scale / r.tick_units
    slack = 5e-13 * number
    ticks = math.ceil(number - slack) if up else math.floor(number + slack)
    return ticks * r.tick_units / r.tick_scale


def at_tick(r: Numbers, price: float, up: bool) -> float:
    """money.from_float: an order's price on the tick grid."""
    if not r.exact > 0.0:
        return price
    ticks = round(price * r.tick_scale / r.tick_units)
    exact = ticks * r.tick_units / r.tick_scale  # the float nearest to that tick: which side of it the price is on is what counts
    if up and price > exact:
        return (ticks + 1) * r.tick_units / r.tick_scale
    if not up and price < exact:
        return (ticks - 1) * r.tick_units / r.tick_scale
    return exact


def lots(r: Numbers, quantity: float) -> float:
    """Rounded down to whole lots."""
    if not r.exact > 0.0:
        return quantity
    return math.floor(quantity * r.lot_scale / r.lot_units + 1e-6) * r.lot_units / r.lot_scale


def lots_up(r: Numbers, quantity: float) -> float:
    return math.ceil(quantity * r.lot_scale / r.lot_units - 1e-9) * r.lot_units / r.lot_scale


def closable(r: Numbers, p: Ring) -> float:
    """What of the position an order can close: whole lots."""
    return lots(r, p[HELD])


# -- sizes -----------------------------------------------------------------------------------------------------------------------


def between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def smallest(r: Numbers, price: float) -> float:
    """Smallest quantity the venue takes at `price` (Sizer)."""
    least = max(r.lot_units / r.lot_scale, r.quantity_min)
    if r.notional_min > 0.0:
        least = max(least, r.notional_min / (r.contract_size * price))
    return lots_up(r, least)


def leverage_used(r: Numbers, side: float, distance: float) -> float:
    """Whole-numbered leverage at which the stop stays clear of liquidation; 0 = at none (domain.liquidation)."""
    needed = distance / (1.0 - r.clear_min)
    safe = 1.0 / (r.maintenance + (1.0 - side * r.maintenance) * needed)
    if safe < 1.0:
        return 0.0
    return min(max(1.0, r.leverage_max), max(1.0, math.floor(safe)))


def welcome(r: Numbers, mood: float, side: float) -> float:
    """Share of its size that the news leaves an entry, 0 = denied (filters.blackout). `mood` as kernel_rows.B_NEWS."""
    if math.isnan(mood):
        return 1.0
    if math.isinf(mood) or -side * mood > r.mood_against:
        return 0.0
    against = -side * mood
    if against <= 0.0:
        return 1.0
    if not against < r.mood_against:
        return r.mood_least
    return 1.0 - (1.0 - r.mood_least) * against / r.mood_against


def sized(r: Numbers, equity: float, confidence: float, side: float, entry: float, stop: float, rate: float, volume: float,
          share: float) -> tuple[float, float, float]:
    """(quantity, risk in settlement currency, leverage) by the owner's four phases, one instrument alone, lowered to `share` by the news;
    quantity 0 = denied (Sizer)."""
    margined = r.spot == 0.0
    fee, used, whole = r.sizing_fee, 1.0, 1.0
    phase = 1 + (equity > r.phase_1) + (equity > r.phase_2) + (equity > r.phase_3)
    if math.isnan(stop):
        if phase >= 3 or margined:
            return 0.0, 0.0, 1.0
        loss = 1.0 + fee
    else:
        slippage = (r.slippage_bp + r.stop_slippage_bp) / 1e4
        out = max(0.0, stop - side * slippage * entry)
        loss = ((entry - out) * side + fee * (entry + out)) / entry
        if margined:
            whole = max(1.0, r.leverage_max)
            used = leverage_used(r, side, abs(entry - stop) / entry)
            if used == 0.0:
                return 0.0, 0.0, 1.0
    if not (equity > 0.0 and rate > 0.0):
        return 0.0, 0.0, 1.0
    unit = r.contract_size * entry * rate
    kept = 1.0 - fee if r.spot > 0.0 and side > 0.0 else 1.0
    least = smallest(r, entry)
    sellable = smallest(r, (entry if math.isnan(stop) else stop) * r.exit_margin)
    exitable = max(least, lots_up(r, sellable / kept))
    confidence = min(1.0, max(0.0, confidence))
    fraction = max(r.fixed, equity * between(r.fraction_min, r.fraction_max, confidence))
    lifted = exitable * unit
    if fraction < lifted <= equity * r.fraction_max:
        fraction = lifted
    desired = r.fixed
    if phase == 2:
        desired = fraction
    elif phase > 2:
        desired = max(fraction, equity * between(r.risk_min, r.risk_max, confidence) / loss)
    notional = min(desired, ceilings(r, equity, confidence, phase, fraction, loss, used, whole, volume))
    if phase == 1 and (notional < desired or share < r.share_least):
        return 0.0, 0.0, 1.0
    if phase > 1:
        notional *= share
    quantity = lots(r, notional / unit)
    if quantity < least or lots(r, quantity * kept) < sellable:
        return 0.0, 0.0, 1.0
    return quantity, quantity * unit * loss, used


def ceilings(r: Numbers, equity: float, confidence: float, phase: int, fraction: float, loss: float, used: float, whole: float,
             volume: float) -> float:
    """The smallest of the Sizer's ceilings for a class that holds nothing."""
    cap = between(r.cap_min, r.cap_max, confidence)
    if phase == 4 and confidence >= r.good_from:
        share = (confidence - r.good_from) / (1.0 - r.good_from) if r.good_from < 1.0 else 1.0
        cap = max(cap, between(r.good_min, r.good_max, share))
    tied = 1.0 / used
    lowest = equity * r.leverage_max
    if phase >= 3:
        lowest = min(lowest, max(equity * cap, fraction * tied) / tied)
        if used < whole:
            lowest = min(lowest, max(equity * cap, fraction / whole) * whole)
    lowest = min(lowest, equity / (tied + r.sizing_fee), r.pair_cap * equity / tied)
    lowest = min(lowest, equity * r.daily_budget / loss)
    if r.gross_max > 0.0:
        lowest = min(lowest, equity * r.gross_max)
    if r.instrument_max > 0.0:
        lowest = min(lowest, equity * r.instrument_max)
    if r.forex == 0.0 or r.deep == 0.0:
        lowest = min(lowest, volume * r.volume_share) if volume == volume else 0.0
    return max(0.0, lowest)


# -- fills -------------------------------------------------------------------------------------------------------------------------


def rate_at(r: Numbers, price: float, rate: float) -> float:
    """One unit of quote currency in settlement currency at a fill."""
    return 1.0 / price if r.inverse_rate > 0.0 else rate


def slipped(p: Ring, side: float, quantity: float, price: float, arrival: float) -> None:
    if arrival > 0.0:
        p[SLIPPED] += quantity * side * (price - arrival) / arrival * 1e4


def watch(r: Numbers, p: Ring) -> None:
    """Where the nearest resting prices are (PaperVenue's `quiet`), whether an order waits for an opening, and when its time is up."""
    side = p[SIDE]
    waits = p[EXIT_REST] > 0.0 or p[ENTRY_REST] > 0.0 or p[TRIGGERED] > 0.0 or p[ATTENTION] > 0.0
    p[WAITS] = 1.0 if waits else 0.0
    p[DUE] = p[OPENED_AT] + p[HOLD] * r.interval if p[HOLD] > 0.0 else math.inf
    if r.forex > 0.0 and r.weekend_flat > 0.0:
        p[DUE] = min(p[DUE], p[NEXT_CLOSE] - 2.0 * r.interval - r.rollover_ms)
    if p[WAITS] > 0.0:
        p[FLOOR] = math.inf
        return
    floor, ceiling = -math.inf, math.inf
    if p[LIQUIDATION] > 0.0:
        if side > 0.0:
            floor = p[LIQUIDATION]
        else:
            ceiling = p[LIQUIDATION]
    for place in (STOP_PRICE, TARGET_PRICE):
        price = p[place]
        if price == price:
            if (place == STOP_PRICE) == (side > 0.0):
                floor = max(floor, price)
            else:
                ceiling = min(ceiling, price)
    p[FLOOR], p[CEILING] = floor, ceiling


def liquidation_watched(r: Numbers, p: Ring) -> None:
    """Where the venue would close what is held; 0 = nowhere."""
    p[LIQUIDATION] = 0.0
    if r.spot == 0.0 and p[HELD] > 0.0:
        entry = p[COST] / (p[SIDE] * p[HELD] * r.contract_size)
        p[LIQUIDATION] = max(0.0, liquidation_price(int(p[SIDE]), entry, p[LEVERAGE], r.maintenance))


def entered(r: Numbers, p: Ring, quantity: float, price: float, rate: float, at: float, bar: int) -> None:
    """Book one fill of the entry order."""
    side, size = p[SIDE], r.contract_size
    rate = rate_at(r, price, rate)
    if p[ENTERED] == 0.0:
        p[ENTRY_BAR], p[FIRST_AT] = bar, at
    p[LAST_AT] = at
    p[ENTRY_REST] -= quantity
    if lots(r, p[ENTRY_REST]) <= 1e-9 * quantity:
        p[ENTRY_REST] = 0.0
    p[TAKEN] += quantity * size
    slipped(p, side, quantity, price, p[ENTRY_ARRIVAL])
    worth = quantity * size * price * rate
    if r.spot > 0.0:
        fee = charged(r, quantity * size * r.taker_fee)
        value = booked(r, fee * price * rate)
        p[FEES] += value
        p[COST] += booked(r, worth) - value
        quantity -= fee
    else:
        p[FEES] += charged(r, worth * r.taker_fee)
        p[COST] += side * quantity * size * price
    p[HELD] += quantity
    p[ENTERED] += quantity
    p[ENTERED_VALUE] += quantity * price
    liquidation_watched(r, p)


def left(r: Numbers, p: Ring, quantity: float, price: float, fee_rate: float, rate: float, at: float, reason: int,
         arrival: float) -> bool:
    """Book one fill that closes; whether nothing is left but dust, whose cost then is part of the loss."""
    side, size = p[SIDE], r.contract_size
    rate = rate_at(r, price, rate)
    p[EXITED] += quantity
    p[EXITED_VALUE] += quantity * price
    p[LAST_AT], p[LAST_REASON] = at, reason
    p[TAKEN] += quantity * size
    slipped(p, -side, quantity, price, arrival)
    worth = quantity * size * price * rate
    p[FEES] += charged(r, worth * fee_rate)
    share = quantity / p[HELD]
    last = share >= 1.0 - 1e-15
    if r.spot > 0.0:
        cost = p[COST] if last else booked(r, p[COST] * share)
        p[GROSS] += booked(r, worth) - cost
    else:
        cost = p[COST] if last else p[COST] * share
        p[GROSS] += booked(r, (side * quantity * size * price - cost) * rate)
    p[COST] = 0.0 if last else p[COST] - cost
    p[HELD] = 0.0 if last else p[HELD] - quantity
    if closable(r, p) > 1e-9 * p[ENTERED]:
        liquidation_watched(r, p)
        return False
    if r.spot > 0.0:
        p[GROSS] -= p[COST]
    return True


def opening_price(r: Numbers, side: float, quantity: float, bid: float, ask: float, synthetic: bool, average: float) -> float:
    """What a market order of `side` gets at an opening, at its tick."""
    touch = touched(int(side), bid, ask, synthetic, r.half_spread_bp)
    cost = impact(r.impact_bp, quantity * r.contract_size * touch, average)
    return modelled(r, market_fill(int(side), touch, r.slippage_bp, cost), side > 0.0)


# -- what holding costs ----------------------------------------------------------------------------------------------------------------


def pay_funding(r: Numbers, p: Ring, price: float, settled: float, rate: float) -> None:
    notional = p[SIDE] * p[HELD] * r.contract_size * price * rate_at(r, price, rate)
    p[FUNDING] += booked(r, funding(notional, settled))


def pay_financing(r: Numbers, p: Ring, price: float, annual: float, nights: int, rate: float) -> None:
    notional = p[HELD] * r.contract_size * price * rate_at(r, price, rate)
    p[FUNDING] += booked(r, financing(notional, annual, nights))


def net_so_far(r: Numbers, p: Ring, price: float, rate: float) -> float:
    """Result of the open trade if what is left were worth `price`: settlement currency."""
    net: float = p[GROSS] - p[FEES] + p[FUNDING]
    if p[HELD] > 0.0:
        value = p[HELD] * r.contract_size * price * rate
        if r.spot > 0.0:
            net += value - p[COST]
        else:
            net += p[SIDE] * value - p[COST] * rate
    return net


def closed(r: Numbers, p: Ring, record: Any, bar: int) -> None:
    """Write the trade down and count what cooldowns ask about. The record may be full: then only the count grows."""
    net = booked(r, p[GROSS] - p[FEES] + p[FUNDING])  # sums of ledger units: what is beyond one is binary noise
    row = int(p[TRADES])
    if row < record.shape[0]:
        into = record[row]
        into[R_ENTRY_AT], into[R_EXIT_AT], into[R_ENTRY_BAR], into[R_EXIT_BAR] = p[FIRST_AT], p[LAST_AT], p[ENTRY_BAR], bar
        into[R_SIDE], into[R_REASON] = p[SIDE], p[LAST_REASON]
        into[R_ENTRY], into[R_EXIT] = p[ENTERED_VALUE] / p[ENTERED], p[EXITED_VALUE] / p[EXITED]
        into[R_QUANTITY], into[R_GROSS], into[R_FEES], into[R_FUNDING] = p[ENTERED], p[GROSS], p[FEES], p[FUNDING]
        into[R_NET], into[R_RISK] = net, p[RISK]
        into[R_SLIPPAGE] = p[SLIPPED] / (p[ENTERED] + p[EXITED])
        into[R_ORDERED] = p[PLANNED]
    p[TRADES] += 1.0
    p[CASH] += net
    # A result below half a ledger unit is rounding: the books say 0, which is no loss.
    if net < (-0.5 / UNITS if r.exact > 0.0 else 0.0):
        p[LOSSES] += 1.0
        p[LAST_LOSS] = p[LAST_AT]
        if p[LAST_REASON] in (STOP_LOSS, TRAILING, LIQUIDATED):
            p[STOP_TIMES + int(p[STOP_OUTS]) % STOP_MEMORY] = p[LAST_AT]
            p[STOP_OUTS] += 1.0
    else:
        p[LOSSES] = 0.0
    forget(p)


def forget(p: Ring) -> None:
    """No trade is under way."""
    for place in range(TRADE_FIELDS):
        p[place] = 0.0
    p[WAITS] = 0.0
    p[STOP_PRICE] = p[TARGET_PRICE] = NAN
