"""What the compiled kernel does to one trade: prices to the tick, quantities to the lot, every fill's money, sizes. Pure float functions.

Owns no rule: formulas of cost are modules/backtest/costs.py's, the order of events is the paper venue's and the executor's. Compiled by
kernel.py together with costs.py; plain Python runs the same lines. `p` is one run's state: a record, which Numba hands on by its address
and whose fields it finds without asking what an index could mean.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from modules.backtest.costs import financing, funding, impact, liquidation_price, market_fill, touched
from modules.strategies.indicators import Ring

NAN: Final = math.nan
UNITS: Final = 1e8
"""Ledger units of 1e-8 in one."""

STOP_MEMORY: Final = 64
"""As many stop-outs are remembered; risk_policy asks about no more."""

# Why a trade ended: places in REASONS of kernel.py, as floats. Numba compiles a function anew for every whole number it is called with.
NO_REASON: Final = 0.0
STOP_LOSS: Final = 1.0
ROI: Final = 2.0
EXIT_SIGNAL: Final = 3.0
TIME_EXIT: Final = 4.0
TRAILING: Final = 5.0
LIQUIDATED: Final = 6.0
DELISTED: Final = 7.0
FORCED: Final = 8.0


class State:
    """One run so far, as one record. First the trade under way:"""

    side: float
    held: float
    entered: float
    entered_value: float
    exited: float
    exited_value: float
    cost: float
    """Spot: what is held cost, settlement currency. Margined: its signed value at entry, quote currency."""
    gross: float
    fees: float
    funding: float
    entry_rest: float
    """Quantity the entry order still wants; the order works while it is positive."""
    exit_rest: float
    exit_sent: float
    exit_after: float
    exit_tries: float
    reason: float
    """Why its exit was asked for, 0 = not."""
    stop_price: float
    target_price: float
    stop_rest: float
    triggered: float
    stop_reason: float
    opened_at: float
    hold: float
    signal_entry: float
    signal_stop: float
    signal_target: float
    best: float
    risk: float
    leverage: float
    liquidation: float
    attention: float
    entry_bar: float
    first_at: float
    last_at: float
    last_reason: float
    slipped: float
    """Sum of quantity x basis points lost against arrival."""
    exit_arrival: float
    entry_arrival: float
    planned: float
    """Quantity of the entry order."""
    floor: float
    ceiling: float
    """Between them no resting order can care about a bar."""
    next_close: float
    """FOREX: when the week of its entry ends."""
    sent_at: float
    """When the entry order was sent."""
    waits: float
    # The run:
    due: float
    """When it has been held long enough, or the week is over."""
    cash: float
    losses: float
    last_loss: float
    taken: float
    """Base units filled in the bar that is open now."""
    reversal: float
    """Side of the opening half of a reversal, 0 = none."""
    reversal_score: float
    reversal_stop: float
    reversal_target: float
    reversal_hold: float
    trades: float
    funded: float
    """Settlements that are past."""
    rolled: float
    instant: float
    stop_outs: float
    next: float
    """When money accrues next, or the market says something between two bars."""
    unfilled: float
    """Entry orders that ended without a fill."""
    stop_times: Ring
    """[STOP_MEMORY] the last stop-outs, UTC ms."""


class Row:
    """A recorded trade, as one record: `kernel.TRADE` in floats."""

    entry_at: float
    exit_at: float
    entry_bar: float
    exit_bar: float
    side: float
    reason: float
    entry: float
    exit: float
    quantity: float
    gross: float
    fees: float
    funding: float
    net: float
    risk: float
    slippage: float
    ordered: float


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


def closable(r: Numbers, p: State) -> float:
    """What of the position an order can close: whole lots."""
    return lots(r, p.held)


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


def slipped(p: State, side: float, quantity: float, price: float, arrival: float) -> None:
    if arrival > 0.0:
        p.slipped += quantity * side * (price - arrival) / arrival * 1e4


def watch(r: Numbers, p: State) -> None:
    """Where the nearest resting prices are (PaperVenue's `quiet`), whether an order waits for an opening, and when its time is up."""
    side = p.side
    waits = p.exit_rest > 0.0 or p.entry_rest > 0.0 or p.triggered > 0.0 or p.attention > 0.0
    p.waits = 1.0 if waits else 0.0
    p.due = p.opened_at + p.hold * r.interval if p.hold > 0.0 else math.inf
    if r.forex > 0.0 and r.weekend_flat > 0.0:
        p.due = min(p.due, p.next_close - 2.0 * r.interval - r.rollover_ms)
    if p.waits > 0.0:
        p.floor = math.inf
        return
    floor, ceiling = -math.inf, math.inf
    if p.liquidation > 0.0:
        if side > 0.0:
            floor = p.liquidation
        else:
            ceiling = p.liquidation
    below, above = (p.stop_price, p.target_price) if side > 0.0 else (p.target_price, p.stop_price)
    if below == below:
        floor = max(floor, below)
    if above == above:
        ceiling = min(ceiling, above)
    p.floor, p.ceiling = floor, ceiling


def liquidation_watched(r: Numbers, p: State) -> None:
    """Where the venue would close what is held; 0 = nowhere."""
    p.liquidation = 0.0
    if r.spot == 0.0 and p.held > 0.0:
        entry = p.cost / (p.side * p.held * r.contract_size)
        p.liquidation = max(0.0, liquidation_price(int(p.side), entry, p.leverage, r.maintenance))


def entered(r: Numbers, p: State, quantity: float, price: float, rate: float, at: float, bar: int) -> None:
    """Book one fill of the entry order."""
    side, size = p.side, r.contract_size
    rate = rate_at(r, price, rate)
    if p.entered == 0.0:
        p.entry_bar, p.first_at = bar, at
    p.last_at = at
    p.entry_rest -= quantity
    if lots(r, p.entry_rest) <= 1e-9 * quantity:
        p.entry_rest = 0.0
    p.taken += quantity * size
    slipped(p, side, quantity, price, p.entry_arrival)
    worth = quantity * size * price * rate
    if r.spot > 0.0:
        fee = charged(r, quantity * size * r.taker_fee)
        value = booked(r, fee * price * rate)
        p.fees += value
        p.cost += booked(r, worth) - value
        quantity -= fee
    else:
        p.fees += charged(r, worth * r.taker_fee)
        p.cost += side * quantity * size * price
    p.held += quantity
    p.entered += quantity
    p.entered_value += quantity * price
    liquidation_watched(r, p)


def left(r: Numbers, p: State, quantity: float, price: float, fee_rate: float, rate: float, at: float, reason: float,
         arrival: float) -> bool:
    """Book one fill that closes; whether nothing is left but dust, whose cost then is part of the loss."""
    side, size = p.side, r.contract_size
    rate = rate_at(r, price, rate)
    p.exited += quantity
    p.exited_value += quantity * price
    p.last_at, p.last_reason = at, reason
    p.taken += quantity * size
    slipped(p, -side, quantity, price, arrival)
    worth = quantity * size * price * rate
    p.fees += charged(r, worth * fee_rate)
    share = quantity / p.held
    last = share >= 1.0 - 1e-15
    if r.spot > 0.0:
        cost = p.cost if last else booked(r, p.cost * share)
        p.gross += booked(r, worth) - cost
    else:
        cost = p.cost if last else p.cost * share
        p.gross += booked(r, (side * quantity * size * price - cost) * rate)
    p.cost = 0.0 if last else p.cost - cost
    p.held = 0.0 if last else p.held - quantity
    if closable(r, p) > 1e-9 * p.entered:
        liquidation_watched(r, p)
        return False
    if r.spot > 0.0:
        p.gross -= p.cost
    return True


def opening_price(r: Numbers, side: float, quantity: float, bid: float, ask: float, synthetic: bool, average: float) -> float:
    """What a market order of `side` gets at an opening, at its tick."""
    touch = touched(int(side), bid, ask, synthetic, r.half_spread_bp)
    cost = impact(r.impact_bp, quantity * r.contract_size * touch, average)
    return modelled(r, market_fill(int(side), touch, r.slippage_bp, cost), side > 0.0)


# -- what holding costs ----------------------------------------------------------------------------------------------------------------


def pay_funding(r: Numbers, p: State, price: float, settled: float, rate: float) -> None:
    notional = p.side * p.held * r.contract_size * price * rate_at(r, price, rate)
    p.funding += booked(r, funding(notional, settled))


def pay_financing(r: Numbers, p: State, price: float, annual: float, nights: int, rate: float) -> None:
    notional = p.held * r.contract_size * price * rate_at(r, price, rate)
    p.funding += booked(r, financing(notional, annual, nights))


def net_so_far(r: Numbers, p: State, price: float, rate: float) -> float:
    """Result of the open trade if what is left were worth `price`: settlement currency."""
    net: float = p.gross - p.fees + p.funding
    if p.held > 0.0:
        value = p.held * r.contract_size * price * rate
        if r.spot > 0.0:
            net += value - p.cost
        else:
            net += p.side * value - p.cost * rate
    return net


def closed(r: Numbers, p: State, into: Row, bar: int) -> None:
    """Write the trade down and count what cooldowns ask about."""
    net = booked(r, p.gross - p.fees + p.funding)  # sums of ledger units: what is beyond one is binary noise
    into.entry_at, into.exit_at, into.entry_bar, into.exit_bar = p.first_at, p.last_at, p.entry_bar, bar
    into.side, into.reason = p.side, p.last_reason
    into.entry, into.exit = p.entered_value / p.entered, p.exited_value / p.exited
    into.quantity, into.gross, into.fees, into.funding = p.entered, p.gross, p.fees, p.funding
    into.net, into.risk = net, p.risk
    into.slippage = p.slipped / (p.entered + p.exited)
    into.ordered = p.planned
    p.trades += 1.0
    p.cash += net
    # A result below half a ledger unit is rounding: the books say 0, which is no loss.
    if net < (-0.5 / UNITS if r.exact > 0.0 else 0.0):
        p.losses += 1.0
        p.last_loss = p.last_at
        if p.last_reason in (STOP_LOSS, TRAILING, LIQUIDATED):
            p.stop_times[int(p.stop_outs) % STOP_MEMORY] = p.last_at
            p.stop_outs += 1.0
    else:
        p.losses = 0.0
    forget(p)


def forget(p: State) -> None:
    """No trade is under way."""
    p.side = p.held = p.entered = p.entered_value = p.exited = p.exited_value = 0.0
    p.cost = p.gross = p.fees = p.funding = p.entry_rest = p.exit_rest = 0.0
    p.exit_sent = p.exit_after = p.exit_tries = p.reason = p.stop_rest = p.triggered = 0.0
    p.stop_reason = p.opened_at = p.hold = p.signal_entry = p.signal_stop = p.signal_target = 0.0
    p.best = p.risk = p.leverage = p.liquidation = p.attention = p.entry_bar = 0.0
    p.first_at = p.last_at = p.last_reason = p.slipped = p.exit_arrival = p.entry_arrival = 0.0
    p.planned = p.floor = p.ceiling = p.next_close = p.sent_at = p.waits = 0.0
    p.stop_price = p.target_price = NAN
