"""The compiled kernel's second half: a strategy's turns into trades, in the order of events of paper venue and executor, without either.

Owns that order and nothing else. One instrument, one strategy; every rule about prices is costs.py's, about money kernel_money.py's, about
entries kernel_entry.py's. What a line stands for in the daemon is named where it is not obvious. It skips the bars that cannot concern
anybody: while flat to the next turn, while a trade lies between its prices to whatever comes first.
"""

from __future__ import annotations

import math
from typing import Any, Final

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
from modules.backtest.kernel_entry import consider, latest
from modules.backtest.kernel_money import (
    ATTENTION,
    BEST,
    CASH,
    CEILING,
    COST,
    DELISTED,
    DUE,
    ENTERED,
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
    INSTANT,
    LEVERAGE,
    LIQUIDATED,
    LIQUIDATION,
    NAN,
    NEXT,
    REASON,
    REVERSAL,
    REVERSAL_HOLD,
    REVERSAL_SCORE,
    REVERSAL_STOP,
    REVERSAL_TARGET,
    ROI,
    ROLLED,
    SENT_AT,
    SIDE,
    SIGNAL_ENTRY,
    SIGNAL_STOP,
    SIGNAL_TARGET,
    STOP_LOSS,
    STOP_PRICE,
    STOP_REASON,
    TAKEN,
    TARGET_PRICE,
    TIME_EXIT,
    TRAILING,
    TRIGGERED,
    UNFILLED,
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
    watch,
)
from modules.backtest.kernel_rows import (
    B_ACCEPTED,
    B_ASK,
    B_AT,
    B_AVERAGE,
    B_BID,
    B_CLOSE,
    B_ENDED,
    B_HIGH,
    B_LOW,
    B_MARK,
    B_OPEN,
    B_OPEN_ASK,
    B_OPEN_BID,
    B_RATE,
    B_RAW_ASK,
    B_RAW_BID,
    B_VOLUME,
    E_DAY_LAST,
    E_FINANCING_AT,
    E_FINANCING_LONG,
    E_FINANCING_SHORT,
    E_FUNDING_AT,
    E_FUNDING_MARK,
    E_FUNDING_RATE,
    E_INSTANTS,
    E_ROLL_AT,
    E_ROLL_NIGHTS,
    V_BAR,
    V_HOLD,
    V_SCORE,
    V_SEEN,
    V_STOP,
    V_TARGET,
    Tape,
)
from modules.backtest.series import F64
from modules.strategies.indicators import Ring

MINUTE: Final = 60_000.0
RETRY_LONGEST: Final = 3_600_000.0
"""Trade_Executor.EXIT_RETRY_LONGEST_MS."""
DAY: Final = 86_400_000.0
TINY: Final = 1e-9
"""Share of a trade's quantity that is binary noise."""


def room(r: Numbers, p: Ring, t: Tape, bar: int, quantity: float) -> float:
    """How much of an order fills against a bar's volume (PaperDesk._room)."""
    wanted = quantity * r.contract_size
    allowed = participation(wanted, t.points[bar, B_VOLUME] if r.stated_volume > 0.0 else NAN, r.participation_max, p[TAKEN])
    if allowed >= wanted:
        return quantity
    return lots(r, allowed / r.contract_size)


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
            p[UNFILLED] += 1.0
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
    bid, ask = t.points[following, B_OPEN_BID], t.points[following, B_OPEN_ASK]
    synthetic = not (bid == bid and ask == ask)
    if synthetic:
        bid = ask = t.points[following, B_OPEN]
    elif ask < bid:
        bid, ask, synthetic = ask, bid, True
    if not (bid > 0.0 and ask < math.inf):
        return
    average, rate = t.points[last, B_AVERAGE], t.points[last, B_RATE]
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
    return ends(r, p, record, quantity, price, r.taker_fee, t.points[bar, B_RATE], t.points[bar, B_AT], p[STOP_REASON], p[STOP_PRICE], bar)


def take_profit(r: Numbers, p: Ring, t: Tape, record: Any, bar: int) -> bool:
    quantity = room(r, p, t, bar, closable(r, p))
    if not quantity > 0.0:
        return False
    return ends(r, p, record, quantity, p[TARGET_PRICE], r.maker_fee, t.points[bar, B_RATE], t.points[bar, B_AT], ROI, p[TARGET_PRICE], bar)


def liquidate(r: Numbers, p: Ring, t: Tape, record: Any, bar: int, offset: float, reached: int) -> None:
    side = -p[SIDE]
    entry = p[COST] / (p[SIDE] * p[HELD] * r.contract_size)
    if r.perp > 0.0:
        price = bankruptcy_price(int(p[SIDE]), entry, p[LEVERAGE])
    else:
        raw = stop_raw(int(side), t.points[bar, B_OPEN], p[LIQUIDATION], offset, reached)
        price = stop_fill(int(side), raw, r.slippage_bp, 0.0, r.stop_slippage_bp)
    price = max(r.tick_units / r.tick_scale, modelled(r, price, side > 0.0))
    ends(r, p, record, p[HELD], price, r.taker_fee, t.points[bar, B_RATE], t.points[bar, B_AT], LIQUIDATED, price, bar)


def match(r: Numbers, p: Ring, t: Tape, record: Any, bar: int, offset: float) -> None:
    """Resting orders and liquidation in one closed bar (PaperDesk._match): what the open decides, then stops, then the target."""
    _at, began = t.points[bar, B_AT], t.points[bar, B_AT] - r.interval
    after_hole = bar > 0 and t.points[bar - 1, B_AT] < began
    if p[EXIT_REST] > 0.0 and p[EXIT_SENT] + r.exit_timeout < began:
        exit_ended(p)
    if p[ENTRY_REST] > 0.0 and (p[SENT_AT] + r.entry_timeout < began or (after_hole and p[SENT_AT] < began)):
        p[ENTRY_REST] = 0.0
        if p[ENTERED] == 0.0:
            p[UNFILLED] += 1.0
            forget(p)
            return
    if not p[HELD] > 0.0:
        return
    order, opened, high, low = int(-p[SIDE]), t.points[bar, B_OPEN], t.points[bar, B_HIGH], t.points[bar, B_LOW]
    average = t.points[bar - 1, B_AVERAGE] if bar > 0 else NAN
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
    bid, ask = t.points[bar, B_RAW_BID], t.points[bar, B_RAW_ASK]
    quoted = 0.0 < bid <= ask
    if not quoted:
        bid = ask = t.points[bar, B_CLOSE]
    touch = touched(int(side), bid, ask, not quoted, r.half_spread_bp)
    cost = impact(r.impact_bp, quantity * r.contract_size * touch, t.points[bar, B_AVERAGE])
    price = max(r.tick_units / r.tick_scale, modelled(r, market_fill(int(side), touch, r.slippage_bp, cost), side > 0.0))
    if not ends(r, p, record, quantity, price, r.taker_fee, t.points[bar, B_RATE], t.points[bar, B_AT], reason, price, bar):
        closed(r, p, record, bar)


def hold_costs(r: Numbers, p: Ring, t: Tape, last: int, at: float) -> None:
    """Funding settlements and rollovers until `at`, at the mark told with them or the last close."""
    while t.events[E_FUNDING_AT, int(p[FUNDED])] <= at:
        row = int(p[FUNDED])
        p[FUNDED] += 1.0
        if p[HELD] > 0.0 and r.perp > 0.0:
            mark = t.events[E_FUNDING_MARK, row]
            pay_funding(r, p, mark if mark == mark else t.points[last, B_CLOSE], t.events[E_FUNDING_RATE, row], t.points[last, B_RATE])
    while t.events[E_ROLL_AT, int(p[ROLLED])] <= at:
        nights = t.events[E_ROLL_NIGHTS, int(p[ROLLED])]
        p[ROLLED] += 1.0
        if p[HELD] > 0.0 and r.forex > 0.0:
            row = latest(t.events[E_FINANCING_AT], at)
            annual = r.unstated
            if row >= 0:
                annual = t.events[E_FINANCING_LONG, row] if p[SIDE] > 0.0 else t.events[E_FINANCING_SHORT, row]
            pay_financing(r, p, t.points[last, B_CLOSE], annual, int(nights), t.points[last, B_RATE])


def between_bars(r: Numbers, p: Ring, t: Tape, record: Any, bar: int) -> None:
    """Instants before a bar's close at which something else was told: money accrues, orders lapse and go again."""
    began = t.points[bar, B_AT] - r.interval
    while p[SIDE] != 0.0 and t.events[E_INSTANTS, int(p[INSTANT])] < t.points[bar, B_AT]:
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
    return quote_offset(t.points[bar, B_RAW_BID], t.points[bar, B_RAW_ASK], t.points[bar, B_OPEN], r.half_spread_bp)


def before_step(r: Numbers, p: Ring, t: Tape, record: Any, bar: int, offset: float) -> None:
    """Everything that happens to an open trade until the strategy sees the bar."""
    at = t.points[bar, B_AT]
    between_bars(r, p, t, record, bar)
    if p[SIDE] == 0.0:
        return
    watch(r, p)
    if p[WAITS] > 0.0 or not (t.points[bar, B_LOW] - offset > p[FLOOR] and t.points[bar, B_HIGH] + offset < p[CEILING]):
        match(r, p, t, record, bar, offset)
    p[TAKEN] = 0.0
    hold_costs(r, p, t, bar, at)
    if t.points[bar, B_ENDED] != 0.0 and p[SIDE] != 0.0:
        delist(r, p, t, record, bar, DELISTED)
    if p[SIDE] != 0.0:
        tick(r, p, at)
    arm(r, p, t)


def manage(r: Numbers, p: Ring, t: Tape, bar: int, sign: float) -> None:
    """An open trade at a bar close: the view gone, its time up, or its stop to be trailed (Strategy_Manager._manage)."""
    at, side = t.points[bar, B_AT], p[SIDE]
    p[EXIT_ARRIVAL] = 0.5 * (t.points[bar, B_BID] + t.points[bar, B_ASK])
    if sign != side:
        request_exit(r, p, EXIT_SIGNAL, at)
        return
    if at >= p[DUE]:
        request_exit(r, p, TIME_EXIT, at)
        return
    first = p[SIGNAL_STOP]
    if first != first or (r.break_even_at_r == 0.0 and r.trail_at_r == 0.0):
        return
    p[BEST] = max(p[BEST], t.points[bar, B_HIGH]) if side > 0.0 else min(p[BEST], t.points[bar, B_LOW])
    present = p[STOP_PRICE]
    if p[REASON] != 0.0 or p[TRIGGERED] > 0.0 or present != present:
        return
    price = next_stop(int(side), p[SIGNAL_ENTRY], present, p[BEST], abs(p[SIGNAL_ENTRY] - first), r.break_even_at_r, r.trail_at_r,
                      r.trail_distance_r)
    price = at_tick(r, price, side < 0.0)
    if side * (price - present) > 0.0:
        p[STOP_PRICE], p[STOP_REASON] = price, TRAILING


def undisturbed(r: Numbers, p: Ring, t: Tape, bar: int, last: int) -> int:
    """The first bar from `bar` on, at most `last`, that concerns an open trade for which no order waits."""
    lows, highs, ended = t.bars[B_LOW], t.bars[B_HIGH], t.bars[B_ENDED]
    floor, ceiling = p[FLOOR], p[CEILING]
    if r.forex > 0.0:
        while bar < last:
            offset = offset_at(r, t, bar)
            if not (lows[bar] - offset > floor and highs[bar] + offset < ceiling and ended[bar] == 0.0):
                return bar
            bar += 1
        return bar
    while bar < last and lows[bar] > floor and highs[bar] < ceiling and ended[bar] == 0.0:
        bar += 1
    return bar


def earliest(times: F64, bar: int, last: int, at: float) -> int:
    """The first bar from `bar` on that closes at `at` or later, at most `last`."""
    if last <= bar or times[last - 1] < at:
        return last
    low, high = bar, last
    while low < high:
        middle = (low + high) // 2
        if times[middle] < at:
            low = middle + 1
        else:
            high = middle
    return low


def lived(r: Numbers, p: Ring, t: Tape, record: Any, bar: int) -> None:
    """What a bar does to an open trade until the strategy sees it."""
    offset = offset_at(r, t, bar)
    quiet = t.points[bar, B_LOW] - offset > p[FLOOR] and t.points[bar, B_HIGH] + offset < p[CEILING] and t.points[bar, B_AT] < p[NEXT]
    if quiet and t.points[bar, B_ENDED] == 0.0:
        p[TAKEN] = 0.0
    else:
        before_step(r, p, t, record, bar, offset)


def held(r: Numbers, p: Ring, t: Tape, bar: int, turns: F64, turn: int, turned: bool, sign: float, until: float, trails: bool) -> None:
    """The strategy has seen a bar while a trade is open."""
    at = t.points[bar, B_AT]
    p[REVERSAL] = 0.0
    if sign == p[SIDE] and at < p[DUE] and at < until and not trails:
        return
    manage(r, p, t, bar, sign)
    if turned and sign != 0.0 and sign != p[SIDE] and at < until:
        p[REVERSAL], p[REVERSAL_SCORE], p[REVERSAL_STOP] = sign, turns[turn, V_SCORE], turns[turn, V_STOP]
        p[REVERSAL_TARGET], p[REVERSAL_HOLD] = turns[turn, V_TARGET], turns[turn, V_HOLD]
    if at >= until:
        request_exit(r, p, FORCED, at)
    arm(r, p, t)


def simulate(turns: F64, t: Tape, numbers: Any, warmup: int, since: float, until: float, finish: bool, p: Ring, record: Any,
             days: F64) -> None:
    """One run over all bars. Entries at since <= close < until; after `until`, and with `finish` at the last bar, what is open is closed.
    `days` takes the net result so far, open trades at their marks, at the last bar of each UTC day. `numbers` is an array of one record
    of Numbers: Numba knows an array's type at a glance, not a record's."""
    r, count, sign, turn, day, bar = numbers[0], t.bars.shape[1], 0.0, 0, 0, 0
    forget(p)
    times = t.bars[B_AT]
    trails = r.break_even_at_r > 0.0 or r.trail_at_r > 0.0
    while day < len(days):
        following = int(turns[turn, V_BAR]) if turn < len(turns) else count
        if p[SIDE] == 0.0:
            while following < count and turns[turn, V_SCORE] == 0.0:
                sign, turn = 0.0, turn + 1
                following = int(turns[turn, V_BAR]) if turn < len(turns) else count
            bar = following
        elif p[WAITS] == 0.0 and sign == p[SIDE] and not trails:
            last = earliest(times, bar, min(following, int(t.events[E_DAY_LAST, day])), min(p[NEXT], p[DUE], until))
            reached = undisturbed(r, p, t, bar, last)
            if reached > bar:
                bar, p[TAKEN] = reached, 0.0
        while day < len(days) and t.events[E_DAY_LAST, day] < bar:
            days[day] = p[CASH]
            day += 1
        if bar >= count:
            return
        at = times[bar]
        turned = bar == following
        if p[SIDE] != 0.0:
            lived(r, p, t, record, bar)
        if turned:
            score = turns[turn, V_SCORE]
            sign = 1.0 if score > 0.0 else -1.0 if score < 0.0 else 0.0
        if p[SIDE] != 0.0:
            if t.points[bar, B_ACCEPTED] != 0.0:
                held(r, p, t, bar, turns, turn, turned, sign, until, trails)
        elif turned and sign != 0.0 and turns[turn, V_SEEN] >= warmup and since <= at < until:
            p[TAKEN] = 0.0
            if consider(r, p, t, bar, at, turns[turn, V_SCORE], turns[turn, V_STOP], turns[turn, V_TARGET], turns[turn, V_HOLD]):
                arm(r, p, t)
        if turned:
            turn += 1
        if p[WAITS] > 0.0 and p[SIDE] != 0.0:
            if not lapse(r, p, at) and bar + 1 < count and times[bar + 1] - r.interval == at:
                trade_openings(r, p, t, record, bar, bar + 1, at)
            arm(r, p, t)
        if bar == int(t.events[E_DAY_LAST, day]):
            if finish and bar == count - 1 and p[SIDE] != 0.0:
                delist(r, p, t, record, bar, FORCED)
            days[day] = p[CASH] + (net_so_far(r, p, t.points[bar, B_MARK], t.points[bar, B_RATE]) if p[SIDE] != 0.0 else 0.0)
            day += 1
        bar += 1
