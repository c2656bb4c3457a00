"""The compiled kernel's loop: bars through a strategy's own `step`, then the order of events of paper venue and executor, without either.

Owns that order and nothing else. One instrument, one strategy; every rule about prices is costs.py's, about money kernel_money.py's. What
a line stands for in the daemon is named where it is not obvious. `step` is put into this module's copy by kernel_build.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

from modules.backtest.costs import (
    AT_OPEN,
    IN_RANGE,
    UNTOUCHED,
    bankruptcy_price,
    impact,
    limit_reached,
    market_fill,
    next_stop,
    participation,
    quote_offset,
    stop_fill,
    stop_raw,
    stop_reached,
    touched,
)
from modules.backtest.kernel_money import (
    ATTENTION,
    BEST,
    CASH,
    CEILING,
    COST,
    DELISTED,
    DUE,
    ENTERED,
    ENTRY_ARRIVAL,
    ENTRY_REST,
    EXIT_AFTER,
    EXIT_ARRIVAL,
    EXIT_REST,
    EXIT_SENT,
    EXIT_SIGNAL,
    EXIT_TRIES,
    FLOOR,
    FORCED,
    FUNDED,
    HELD,
    HOLD,
    INSTANT,
    LAST_LOSS,
    LEVERAGE,
    LIQUIDATED,
    LIQUIDATION,
    LOSSES,
    NAN,
    NEXT,
    NEXT_CLOSE,
    OPENED_AT,
    REASON,
    REVERSAL,
    REVERSAL_HOLD,
    REVERSAL_SCORE,
    REVERSAL_STOP,
    REVERSAL_TARGET,
    RISK,
    ROI,
    ROLLED,
    SENT_AT,
    SIDE,
    SIGNAL_ENTRY,
    SIGNAL_STOP,
    SIGNAL_TARGET,
    STOP_LOSS,
    STOP_OUTS,
    STOP_PRICE,
    STOP_REASON,
    STOP_TIMES,
    TAKEN,
    TARGET_PRICE,
    TIME_EXIT,
    TRAILING,
    TRIGGERED,
    WAITS,
    Numbers,
    at_tick,
    closable,
    closed,
    entered,
    forget,
    left,
    lots,
    modelled,
    net_so_far,
    opening_price,
    pay_financing,
    pay_funding,
    sized,
    watch,
)
from modules.backtest.series import F64, I64
from modules.domain.signal import FLAT
from modules.strategies.indicators import Ring
from modules.strategies.protocol import ChainSlice, Market

MINUTE: Final = 60_000.0
RETRY_LONGEST: Final = 3_600_000.0
"""Trade_Executor.EXIT_RETRY_LONGEST_MS."""
DAY: Final = 86_400_000.0
LARGEST: Final = 1e300
TINY: Final = 1e-9
"""Share of a trade's quantity that is binary noise."""
CHAIN: Final = ChainSlice()

# What `simulate` ends with.
DONE: Final = 0
NONSENSE: Final = 1
"""An intent out of range: score not in [-1, 1], a distance negative, NaN or beyond LARGEST."""


# Rows of `Tape.bars`, one column a bar.
B_AT: Final = 0
B_OPEN: Final = 1
B_HIGH: Final = 2
B_LOW: Final = 3
B_CLOSE: Final = 4
B_VOLUME: Final = 5
B_RAW_BID: Final = 6
"""Recorded quote at the close, NaN = none."""
B_RAW_ASK: Final = 7
B_BID: Final = 8
"""The quote the daemon has at this close: recorded, or synthesized from the modelled spread."""
B_ASK: Final = 9
B_OPEN_BID: Final = 10
B_OPEN_ASK: Final = 11
B_MARK: Final = 12
B_FUNDING: Final = 13
"""Last settled rate per 8 h."""
B_REF_CLOSE: Final = 14
B_RATE: Final = 15
B_AVERAGE: Final = 16
"""Average bar's notional after this bar."""
B_DAY_VOLUME: Final = 17
"""24 h quote volume, USD."""
B_ACCEPTED: Final = 18
"""1 = the daemon believes this bar."""
B_GATE: Final = 19
"""1 = every check that does not depend on the side lets an entry pass."""
B_ENDED: Final = 20
"""1 = trading ends after this bar."""
B_NEXT_CLOSE: Final = 21
"""FOREX: when the market next closes for a weekend or holiday."""
B_HTF_OPEN: Final = 22
B_HTF_HIGH: Final = 23
B_HTF_LOW: Final = 24
B_HTF_CLOSE: Final = 25
B_HTF_TS: Final = 26
BAR_ROWS: Final = 27

# Rows of `Tape.events`, each in order of time and filled up with infinity, of which there is at least one.
E_FUNDING_AT: Final = 0
E_FUNDING_RATE: Final = 1
E_FUNDING_HOURS: Final = 2
E_FUNDING_NEXT: Final = 3
"""The rate expected of the next settlement."""
E_FUNDING_MARK: Final = 4
E_ROLL_AT: Final = 5
"""17:00 New York of every weekday."""
E_ROLL_NIGHTS: Final = 6
E_FINANCING_AT: Final = 7
E_FINANCING_LONG: Final = 8
E_FINANCING_SHORT: Final = 9
E_INSTANTS: Final = 10
E_DAY_LAST: Final = 11
"""Index of the last bar of each UTC day that has any."""
EVENT_ROWS: Final = 12


class Tape(NamedTuple):
    """A series as the kernel reads it, made by kernel_tape. Two arrays, because Numba hands every one of them on by its parts."""

    bars: F64
    """[BAR_ROWS, n]"""
    events: F64
    """[EVENT_ROWS, m]"""


def step(state: Any, market: Market, params: Any) -> Any:
    """Stands for the strategy's own function, which takes its place: a strategy that never wants anything."""
    return state, FLAT


def latest(times: I64, at: float) -> int:
    """Index of the last time at or before `at`; -1 = none."""
    low, high = 0, len(times)
    while low < high:
        middle = (low + high) // 2
        if times[middle] <= at:
            low = middle + 1
        else:
            high = middle
    return low - 1


def room(r: Numbers, p: Ring, t: Tape, bar: int, quantity: float) -> float:
    """How much of an order fills against a bar's volume (PaperDesk._room)."""
    wanted = quantity * r.contract_size
    allowed = participation(wanted, t.bars[B_VOLUME, bar] if r.stated_volume > 0.0 else NAN, r.participation_max, p[TAKEN])
    if allowed >= wanted:
        return quantity
    return lots(r, allowed / r.contract_size)


# -- entries ---------------------------------------------------------------------------------------------------------------------


def payable(r: Numbers, t: Tape, at: float, side: float, hold: float, reward: float) -> bool:
    """The carry filters: what this side would pay, in itself and against what the trade is taken for (filters.carry)."""
    if r.perp > 0.0 and r.dated == 0.0:
        row = latest(t.events[E_FUNDING_AT], at)
        if row < 0:
            return False
        hours = t.events[E_FUNDING_HOURS, row]
        if not side * t.events[E_FUNDING_RATE, row] * 8.0 / hours <= r.funding_max:
            return False
        horizon = hold * r.interval if hold > 0.0 else r.holding_ms
        every = math.floor(hours * 3_600_000.0)
        crossed = math.floor((at + horizon) / every) - math.floor(at / every)
        return affordable(r, side * t.events[E_FUNDING_NEXT, row] * crossed, reward)
    if r.forex > 0.0:
        row = latest(t.events[E_FINANCING_AT], at)
        if row < 0:
            return False
        earned = t.events[E_FINANCING_LONG, row] if side > 0.0 else t.events[E_FINANCING_SHORT, row]
        if not -earned <= r.carry_max:
            return False
        horizon = hold * r.interval if hold > 0.0 else r.holding_ms
        nights, place = 0.0, latest(t.events[E_ROLL_AT], at) + 1
        while t.events[E_ROLL_AT, place] <= at + horizon:
            nights += t.events[E_ROLL_NIGHTS, place]
            place += 1
        return affordable(r, -earned / 365.0 * nights, reward)
    return True


def affordable(r: Numbers, cost: float, reward: float) -> bool:
    if not math.isfinite(cost):
        return False
    return cost <= 0.0 or (reward > 0.0 and cost / reward <= r.share_max)


def rested(r: Numbers, p: Ring, at: float) -> bool:
    """The cooldowns after losses (filters.guards)."""
    if 0.0 < r.cooldown_losses <= p[LOSSES] and at - p[LAST_LOSS] < r.cooldown_ms:
        return False
    wanted = int(r.class_stop_outs)
    count = int(p[STOP_OUTS])
    if 0 < wanted <= count:
        last = p[STOP_TIMES + (count - 1) % 8]
        if p[STOP_TIMES + (count - wanted) % 8] >= last - r.class_window_ms and at - last < r.class_rest_ms:
            return False
    return True


def consider(r: Numbers, p: Ring, t: Tape, bar: int, at: float, score: float, stop: float, target: float, hold: float) -> bool:
    """Signal, checks, size: whether an entry order goes out at `at` (Strategy_Manager.consider)."""
    side = 1.0 if score > 0.0 else -1.0
    if (r.spot > 0.0 and side < 0.0) or r.direction * side < 0.0:
        return False
    entry = t.bars[B_ASK, bar] if side > 0.0 else t.bars[B_BID, bar]
    stopped = entry - side * stop if stop > 0.0 else NAN
    aimed = entry + side * target if target > 0.0 else NAN
    if not aimed > 0.0:
        aimed = NAN
    if stop > 0.0 and not (stopped > 0.0 and side * (entry - stopped) > 0.0):
        return False
    confidence = min(1.0, abs(score))
    if r.gates > 0.0:
        reward = abs(aimed - entry) / entry if aimed == aimed else confidence * r.expected_r * abs(entry - stopped) / entry
        if t.bars[B_GATE, bar] == 0.0 or not payable(r, t, at, side, hold, reward) or not rested(r, p, at):
            return False
    rate = t.bars[B_RATE, bar]
    if r.exact > 0.0:
        quantity, risk, leverage = sized(r, r.wallet + p[CASH], confidence, side, entry, stopped, rate, t.bars[B_DAY_VOLUME, bar])
        if quantity * r.contract_size * t.bars[B_CLOSE, bar] < r.notional_min:
            return False  # the venue refuses the order: MIN_NOTIONAL at its last price
    else:
        quantity, leverage = r.notional / (entry * rate * r.contract_size), max(1.0, r.leverage_max)
        risk = r.notional * (abs(entry - stopped) / entry if stopped == stopped else 1.0)
    if not quantity > 0.0:
        return False
    forget(p)
    p[SIDE], p[ENTRY_REST], p[RISK], p[LEVERAGE] = side, quantity, risk, leverage
    p[OPENED_AT], p[SENT_AT], p[HOLD] = at, at, hold
    p[SIGNAL_ENTRY], p[SIGNAL_STOP], p[SIGNAL_TARGET], p[BEST] = entry, stopped, aimed, entry
    p[ENTRY_ARRIVAL] = 0.5 * (t.bars[B_BID, bar] + t.bars[B_ASK, bar])
    p[NEXT_CLOSE] = t.bars[B_NEXT_CLOSE, bar]
    p[FUNDED], p[INSTANT] = latest(t.events[E_FUNDING_AT], at) + 1, latest(t.events[E_INSTANTS], at) + 1
    p[ROLLED] = latest(t.events[E_ROLL_AT], at) + 1
    return True


def protect(r: Numbers, p: Ring) -> None:
    """Stop and target rest from the first fill on (Trade_Executor._protect)."""
    if p[REASON] != 0.0 or p[STOP_PRICE] == p[STOP_PRICE] or p[SIGNAL_STOP] != p[SIGNAL_STOP]:
        return
    long = p[SIDE] > 0.0
    p[STOP_PRICE], p[STOP_REASON] = at_tick(r, p[SIGNAL_STOP], long), STOP_LOSS
    if p[SIGNAL_TARGET] == p[SIGNAL_TARGET]:
        aimed = at_tick(r, p[SIGNAL_TARGET], long)
        p[TARGET_PRICE] = aimed if aimed > 0.0 else NAN


# -- exits ---------------------------------------------------------------------------------------------------------------------------


def request_exit(r: Numbers, p: Ring, reason: float, at: float) -> None:
    """Ask for the close once; an entry that still works is canceled with it (its end comes with the next settle)."""
    if p[REASON] == 0.0:
        p[REASON] = reason
        p[SENT_AT] = -DAY
        send_exit(r, p, at)


def send_exit(r: Numbers, p: Ring, at: float) -> None:
    p[ATTENTION] = 0.0
    quantity = closable(r, p)
    if quantity > 0.0:
        p[EXIT_REST], p[EXIT_SENT] = quantity, at


def exit_ended(p: Ring) -> None:
    """An exit order ended without closing: the next one may go after a pause that doubles, at the next tick at the earliest."""
    p[EXIT_TRIES] += 1.0
    p[EXIT_AFTER] = p[EXIT_SENT] + min(MINUTE * 2.0 ** min(p[EXIT_TRIES] - 1.0, 8.0), RETRY_LONGEST)
    p[EXIT_REST] = 0.0
    p[ATTENTION] = 1.0


def tick(r: Numbers, p: Ring, at: float) -> None:
    """The executor's tick at a step: an exit that failed goes again when its pause is over."""
    if p[ATTENTION] > 0.0 and p[EXIT_REST] == 0.0 and p[REASON] != 0.0 and at >= p[EXIT_AFTER]:
        send_exit(r, p, at)


def lapse(r: Numbers, p: Ring, at: float) -> bool:
    """Unfilled timeouts at `at`, as they reach the venue when the step settles; whether the trade is over, having never held anything."""
    if p[EXIT_REST] > 0.0 and p[EXIT_SENT] + r.exit_timeout <= at:
        exit_ended(p)
    if p[ENTRY_REST] > 0.0 and p[SENT_AT] + r.entry_timeout <= at:
        p[ENTRY_REST] = 0.0
        if p[ENTERED] == 0.0:
            forget(p)
            return True
    return False


def ends(r: Numbers, p: Ring, record: Any, quantity: float, price: float, fee: float, rate: float, at: float, reason: float,
         arrival: float, bar: int) -> bool:
    """One closing fill; whether it ended the trade."""
    if left(r, p, quantity, price, fee, rate, at, int(reason), arrival):
        closed(r, p, record, bar)
        return True
    return False


def trade_openings(r: Numbers, p: Ring, t: Tape, record: Any, last: int, following: int, at: float) -> None:
    """Orders that wait for an opening get the one of bar `following`, after the latency; `last` is the last closed bar."""
    now = at + r.latency
    bid, ask = t.bars[B_OPEN_BID, following], t.bars[B_OPEN_ASK, following]
    synthetic = not (bid == bid and ask == ask)
    if synthetic:
        bid = ask = t.bars[B_OPEN, following]
    elif ask < bid:
        bid, ask, synthetic = ask, bid, True
    if not (bid > 0.0 and ask < math.inf):
        return
    average, rate = t.bars[B_AVERAGE, last], t.bars[B_RATE, last]
    if p[TRIGGERED] > 0.0 and p[HELD] > 0.0:
        quantity = closable(r, p)
        price = opening_price(r, -p[SIDE], quantity, bid, ask, synthetic, average)
        quantity = room(r, p, t, last, quantity)
        if quantity > 0.0 and price > 0.0 and ends(r, p, record, quantity, price, r.taker_fee, rate, now, p[STOP_REASON],
                                                   p[STOP_PRICE], following):
            return
    if p[EXIT_REST] > 0.0:
        quantity = min(p[EXIT_REST], closable(r, p))
        price = opening_price(r, -p[SIDE], quantity, bid, ask, synthetic, average)
        quantity = room(r, p, t, last, quantity)
        if quantity > 0.0 and price > 0.0:
            p[EXIT_REST] = p[EXIT_REST] - quantity if p[EXIT_REST] - quantity > TINY * p[ENTERED] else 0.0
            if ends(r, p, record, quantity, price, r.taker_fee, rate, now, p[REASON], p[EXIT_ARRIVAL], following):
                if p[REVERSAL] == 0.0 or r.latency > r.late_ms:
                    return
                p[REVERSAL] = 0.0
                if not consider(r, p, t, last, now, p[REVERSAL_SCORE], p[REVERSAL_STOP], p[REVERSAL_TARGET], p[REVERSAL_HOLD]):
                    return
                now += r.latency
    if p[ENTRY_REST] > 0.0:
        quantity = p[ENTRY_REST]
        price = opening_price(r, p[SIDE], quantity, bid, ask, synthetic, average)
        quantity = room(r, p, t, last, quantity)
        if quantity > 0.0 and price > 0.0:
            entered(r, p, quantity, price, rate, now, following)
            protect(r, p)


# -- one bar ---------------------------------------------------------------------------------------------------------------------------


def trigger(r: Numbers, p: Ring, t: Tape, record: Any, bar: int, raw: float, average: float) -> bool:
    """The stop becomes a market order: what the bar's volume allows fills now, the rest at the next openings."""
    side, quantity = -p[SIDE], closable(r, p)
    p[TRIGGERED] = 1.0
    cost = impact(r.impact_bp, quantity * r.contract_size * raw, average)
    price = modelled(r, stop_fill(int(side), raw, r.slippage_bp, cost, r.stop_slippage_bp), side > 0.0)
    quantity = room(r, p, t, bar, quantity)
    if not (quantity > 0.0 and price > 0.0):
        return False
    return ends(r, p, record, quantity, price, r.taker_fee, t.bars[B_RATE, bar], t.bars[B_AT, bar], p[STOP_REASON], p[STOP_PRICE], bar)


def take_profit(r: Numbers, p: Ring, t: Tape, record: Any, bar: int) -> bool:
    quantity = room(r, p, t, bar, closable(r, p))
    if not quantity > 0.0:
        return False
    return ends(r, p, record, quantity, p[TARGET_PRICE], r.maker_fee, t.bars[B_RATE, bar], t.bars[B_AT, bar], ROI, p[TARGET_PRICE], bar)


def liquidate(r: Numbers, p: Ring, t: Tape, record: Any, bar: int, offset: float, reached: int) -> None:
    side = -p[SIDE]
    entry = p[COST] / (p[SIDE] * p[HELD] * r.contract_size)
    if r.perp > 0.0:
        price = bankruptcy_price(int(p[SIDE]), entry, p[LEVERAGE])
    else:
        raw = stop_raw(int(side), t.bars[B_OPEN, bar], p[LIQUIDATION], offset, reached)
        price = stop_fill(int(side), raw, r.slippage_bp, 0.0, r.stop_slippage_bp)
    price = max(r.tick_units / r.tick_scale, modelled(r, price, side > 0.0))
    ends(r, p, record, p[HELD], price, r.taker_fee, t.bars[B_RATE, bar], t.bars[B_AT, bar], LIQUIDATED, price, bar)


def match(r: Numbers, p: Ring, t: Tape, record: Any, bar: int, offset: float) -> None:
    """Resting orders and liquidation in one closed bar (PaperDesk._match): what the open decides, then stops, then the target."""
    _at, began = t.bars[B_AT, bar], t.bars[B_AT, bar] - r.interval
    after_hole = bar > 0 and t.bars[B_AT, bar - 1] < began
    if p[EXIT_REST] > 0.0 and p[EXIT_SENT] + r.exit_timeout < began:
        exit_ended(p)
    if p[ENTRY_REST] > 0.0 and (p[SENT_AT] + r.entry_timeout < began or (after_hole and p[SENT_AT] < began)):
        p[ENTRY_REST] = 0.0
        if p[ENTERED] == 0.0:
            forget(p)
            return
    if not p[HELD] > 0.0:
        return
    order, opened, high, low = int(-p[SIDE]), t.bars[B_OPEN, bar], t.bars[B_HIGH, bar], t.bars[B_LOW, bar]
    average = t.bars[B_AVERAGE, bar - 1] if bar > 0 else NAN
    stop = p[STOP_PRICE] if p[TRIGGERED] == 0.0 else NAN
    reached = stop_reached(order, opened, high, low, stop, offset)
    aimed = limit_reached(order, opened, high, low, p[TARGET_PRICE], offset)
    margin = p[LIQUIDATION]
    if margin > 0.0 and stop_reached(order, opened, high, low, margin, offset) == AT_OPEN:
        liquidate(r, p, t, record, bar, offset, AT_OPEN)
        return
    if reached == AT_OPEN and trigger(r, p, t, record, bar, stop_raw(order, opened, stop, offset, AT_OPEN), average):
        return
    if aimed == AT_OPEN and take_profit(r, p, t, record, bar):
        return
    before = margin > 0.0 and order * (stop - margin) >= 0.0
    if reached == IN_RANGE and not before and trigger(r, p, t, record, bar, stop, average):
        return
    margin = p[LIQUIDATION]
    if margin > 0.0:
        touch = stop_reached(order, opened, high, low, margin, offset)
        if touch != UNTOUCHED:
            liquidate(r, p, t, record, bar, offset, touch)
            return
    if aimed == IN_RANGE and take_profit(r, p, t, record, bar):
        return


def delist(r: Numbers, p: Ring, t: Tape, record: Any, bar: int, reason: int) -> None:
    """Trading ends: closed at the last close like a market order (PaperDesk._delist)."""
    quantity = closable(r, p)
    if not quantity > 0.0:
        forget(p)
        return
    side = -p[SIDE]
    bid, ask = t.bars[B_RAW_BID, bar], t.bars[B_RAW_ASK, bar]
    quoted = 0.0 < bid <= ask
    if not quoted:
        bid = ask = t.bars[B_CLOSE, bar]
    touch = touched(int(side), bid, ask, not quoted, r.half_spread_bp)
    cost = impact(r.impact_bp, quantity * r.contract_size * touch, t.bars[B_AVERAGE, bar])
    price = max(r.tick_units / r.tick_scale, modelled(r, market_fill(int(side), touch, r.slippage_bp, cost), side > 0.0))
    if not ends(r, p, record, quantity, price, r.taker_fee, t.bars[B_RATE, bar], t.bars[B_AT, bar], reason, price, bar):
        closed(r, p, record, bar)


def hold_costs(r: Numbers, p: Ring, t: Tape, last: int, at: float) -> None:
    """Funding settlements and rollovers until `at`, at the mark told with them or the last close."""
    while t.events[E_FUNDING_AT, int(p[FUNDED])] <= at:
        row = int(p[FUNDED])
        p[FUNDED] += 1.0
        if p[HELD] > 0.0 and r.perp > 0.0:
            mark = t.events[E_FUNDING_MARK, row]
            pay_funding(r, p, mark if mark == mark else t.bars[B_CLOSE, last], t.events[E_FUNDING_RATE, row], t.bars[B_RATE, last])
    while t.events[E_ROLL_AT, int(p[ROLLED])] <= at:
        nights = t.events[E_ROLL_NIGHTS, int(p[ROLLED])]
        p[ROLLED] += 1.0
        if p[HELD] > 0.0 and r.forex > 0.0:
            row = latest(t.events[E_FINANCING_AT], at)
            annual = r.unstated
            if row >= 0:
                annual = t.events[E_FINANCING_LONG, row] if p[SIDE] > 0.0 else t.events[E_FINANCING_SHORT, row]
            pay_financing(r, p, t.bars[B_CLOSE, last], annual, int(nights), t.bars[B_RATE, last])


def between_bars(r: Numbers, p: Ring, t: Tape, record: Any, bar: int) -> None:
    """Instants before a bar's close at which something else was told: money accrues, orders lapse and go again."""
    began = t.bars[B_AT, bar] - r.interval
    while p[SIDE] != 0.0 and t.events[E_INSTANTS, int(p[INSTANT])] < t.bars[B_AT, bar]:
        at = float(t.events[E_INSTANTS, int(p[INSTANT])])
        p[INSTANT] += 1.0
        p[REVERSAL] = 0.0
        hold_costs(r, p, t, bar - 1, at)
        tick(r, p, at)
        if lapse(r, p, at):
            return
        if at == began and (p[EXIT_REST] > 0.0 or p[TRIGGERED] > 0.0):
            trade_openings(r, p, t, record, bar - 1, bar, at)


def arm(r: Numbers, p: Ring, t: Tape) -> None:
    """After anything changed: from where on a bar concerns the open trade at all."""
    if p[SIDE] != 0.0:
        watch(r, p)
        following = min(t.events[E_FUNDING_AT, int(p[FUNDED])], t.events[E_INSTANTS, int(p[INSTANT])])
        p[NEXT] = min(following, t.events[E_ROLL_AT, int(p[ROLLED])])


def offset_at(r: Numbers, t: Tape, bar: int) -> float:
    """How far the side an order trades on is off the bar's prices (PaperVenue's Series.offset)."""
    if r.forex == 0.0:
        return 0.0
    return quote_offset(t.bars[B_RAW_BID, bar], t.bars[B_RAW_ASK, bar], t.bars[B_OPEN, bar], r.half_spread_bp)


def before_step(r: Numbers, p: Ring, t: Tape, record: Any, bar: int, offset: float) -> None:
    """Everything that happens to an open trade until the strategy sees the bar."""
    at = t.bars[B_AT, bar]
    between_bars(r, p, t, record, bar)
    if p[SIDE] == 0.0:
        return
    watch(r, p)
    if p[WAITS] > 0.0 or not (t.bars[B_LOW, bar] - offset > p[FLOOR] and t.bars[B_HIGH, bar] + offset < p[CEILING]):
        match(r, p, t, record, bar, offset)
    p[TAKEN] = 0.0
    hold_costs(r, p, t, bar, at)
    if t.bars[B_ENDED, bar] != 0.0 and p[SIDE] != 0.0:
        delist(r, p, t, record, bar, DELISTED)
    if p[SIDE] != 0.0:
        tick(r, p, at)
    arm(r, p, t)


def manage(r: Numbers, p: Ring, t: Tape, bar: int, sign: float) -> None:
    """An open trade at a bar close: the view gone, its time up, or its stop to be trailed (Strategy_Manager._manage)."""
    at, side = t.bars[B_AT, bar], p[SIDE]
    p[EXIT_ARRIVAL] = 0.5 * (t.bars[B_BID, bar] + t.bars[B_ASK, bar])
    if sign != side:
        request_exit(r, p, EXIT_SIGNAL, at)
        return
    if at >= p[DUE]:
        request_exit(r, p, TIME_EXIT, at)
        return
    first = p[SIGNAL_STOP]
    if first != first or (r.break_even_at_r == 0.0 and r.trail_at_r == 0.0):
        return
    p[BEST] = max(p[BEST], t.bars[B_HIGH, bar]) if side > 0.0 else min(p[BEST], t.bars[B_LOW, bar])
    present = p[STOP_PRICE]
    if p[REASON] != 0.0 or p[TRIGGERED] > 0.0 or present != present:
        return
    price = next_stop(int(side), p[SIGNAL_ENTRY], present, p[BEST], abs(p[SIGNAL_ENTRY] - first), r.break_even_at_r, r.trail_at_r,
                      r.trail_distance_r)
    price = at_tick(r, price, side < 0.0)
    if side * (price - present) > 0.0:
        p[STOP_PRICE], p[STOP_REASON] = price, TRAILING


def simulate(params: Any, state: Any, t: Tape, r: Numbers, warmup: int, since: float, until: float, finish: bool, p: Ring, record: Any,
             days: F64, status: I64) -> int:
    """One run over all bars. `status[0]` is always the bar at hand, so that whoever catches what a step raised can name it.

    Entries at since <= close < until; after `until`, and with `finish` at the last bar, what is open is closed. `days` takes the net
    result so far, open trades at their marks, at the last bar of each UTC day. Gives DONE or NONSENSE.
    """
    count, sign, seen, day = t.bars.shape[1], 0.0, 0, 0
    forget(p)
    marked = int(t.events[E_DAY_LAST, 0])
    times, opens, highs, lows, closes = t.bars[B_AT], t.bars[B_OPEN], t.bars[B_HIGH], t.bars[B_LOW], t.bars[B_CLOSE]
    volumes, bids, asks, marks, fundings = t.bars[B_VOLUME], t.bars[B_BID], t.bars[B_ASK], t.bars[B_MARK], t.bars[B_FUNDING]
    trails = r.break_even_at_r > 0.0 or r.trail_at_r > 0.0
    for bar in range(count):
        status[0] = bar
        at = times[bar]
        if p[SIDE] != 0.0:
            offset = offset_at(r, t, bar)
            quiet = lows[bar] - offset > p[FLOOR] and highs[bar] + offset < p[CEILING] and at < p[NEXT]
            if quiet and t.bars[B_ENDED, bar] == 0.0:
                p[TAKEN] = 0.0
            else:
                before_step(r, p, t, record, bar, offset)
        if t.bars[B_ACCEPTED, bar] != 0.0:
            market = Market(
                float(at), float(opens[bar]), float(highs[bar]), float(lows[bar]), float(closes[bar]), float(volumes[bar]),
                float(bids[bar]), float(asks[bar]), float(marks[bar]), float(fundings[bar]), float(t.bars[B_HTF_OPEN, bar]),
                float(t.bars[B_HTF_HIGH, bar]), float(t.bars[B_HTF_LOW, bar]), float(t.bars[B_HTF_CLOSE, bar]),
                float(t.bars[B_HTF_TS, bar]), float(t.bars[B_REF_CLOSE, bar]), CHAIN)
            state, intent = step(state, market, params)
            score, stop, target = intent.score, intent.stop, intent.target
            if not (-1.0 <= score <= 1.0 and 0.0 <= stop < LARGEST and 0.0 <= target < LARGEST and 0 <= intent.hold < LARGEST):
                return NONSENSE
            seen += 1
            before = sign
            sign = 1.0 if score > 0.0 else -1.0 if score < 0.0 else 0.0
            if p[SIDE] != 0.0:
                p[REVERSAL] = 0.0
                if sign != p[SIDE] or at >= p[DUE] or at >= until or trails:
                    manage(r, p, t, bar, sign)
                    if sign != 0.0 and sign != before and sign != p[SIDE] and at < until:
                        p[REVERSAL], p[REVERSAL_SCORE], p[REVERSAL_STOP] = sign, score, stop
                        p[REVERSAL_TARGET], p[REVERSAL_HOLD] = target, float(intent.hold)
                    if at >= until:
                        request_exit(r, p, FORCED, at)
                    arm(r, p, t)
            elif sign != 0.0 and sign != before and seen >= warmup and since <= at < until:
                p[TAKEN] = 0.0
                if consider(r, p, t, bar, at, score, stop, target, float(intent.hold)):
                    arm(r, p, t)
        if p[WAITS] > 0.0 and p[SIDE] != 0.0:
            if not lapse(r, p, at) and bar + 1 < count and times[bar + 1] - r.interval == at:
                trade_openings(r, p, t, record, bar, bar + 1, at)
            arm(r, p, t)
        if bar == marked:
            if finish and bar == count - 1 and p[SIDE] != 0.0:
                delist(r, p, t, record, bar, FORCED)
            days[day] = p[CASH] + (net_so_far(r, p, marks[bar], t.bars[B_RATE, bar]) if p[SIDE] != 0.0 else 0.0)
            day += 1
            marked = int(t.events[E_DAY_LAST, day]) if bar < count - 1 else -1
    return DONE
