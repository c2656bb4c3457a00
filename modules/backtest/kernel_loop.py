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
from modules.backtest.kernel_entry import consider, latest, told
from modules.backtest.kernel_money import (
    DELISTED,
    EXIT_SIGNAL,
    FORCED,
    LIQUIDATED,
    NAN,
    ROI,
    STOP_LOSS,
    TIME_EXIT,
    TRAILING,
    Numbers,
    Row,
    State,
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
    B_AT,
    B_HIGH,
    B_LOW,
    B_MARK,
    E_DAY_LAST,
    E_ENDED,
    E_FINANCING_AT,
    E_FINANCING_LONG,
    E_FINANCING_SHORT,
    E_FUNDING_AT,
    E_FUNDING_MARK,
    E_FUNDING_RATE,
    E_INSTANTS,
    E_ROLL_AT,
    E_ROLL_NIGHTS,
    O_RAW_ASK,
    O_RAW_BID,
    Bar,
    Tape,
    Turn,
)
from modules.backtest.series import F64
from modules.strategies.compiled import prefetch

MINUTE: Final = 60_000.0
RETRY_LONGEST: Final = 3_600_000.0
"""Trade_Executor.EXIT_RETRY_LONGEST_MS."""
DAY: Final = 86_400_000.0
AHEAD: Final = 2
"""So many turns before its own is a bar asked for."""
TINY: Final = 1e-9
"""Share of a trade's quantity that is binary noise."""


def room(r: Numbers, p: State, here: Bar, quantity: float) -> float:
    """How much of an order fills against a bar's volume (PaperDesk._room)."""
    wanted = quantity * r.contract_size
    allowed = participation(wanted, here.volume if r.stated_volume > 0.0 else NAN, r.participation_max, p.taken)
    if allowed >= wanted:
        return quantity
    return lots(r, allowed / r.contract_size)


def protect(r: Numbers, p: State) -> None:
    """Stop and target rest from the first fill on (Trade_Executor._protect)."""
    if p.reason != 0.0 or p.stop_price == p.stop_price or p.signal_stop != p.signal_stop:
        return
    long = p.side > 0.0
    p.stop_price, p.stop_reason = at_tick(r, p.signal_stop, long), STOP_LOSS
    if p.signal_target == p.signal_target:
        aimed = at_tick(r, p.signal_target, long)
        p.target_price = aimed if aimed > 0.0 else NAN


# -- exits ---------------------------------------------------------------------------------------------------------------------------


def request_exit(r: Numbers, p: State, reason: float, at: float) -> None:
    """Ask for the close once; an entry that still works is canceled with it (its end comes with the next settle)."""
    if p.reason == 0.0:
        p.reason = reason
        p.sent_at = -DAY
        send_exit(r, p, at)


def send_exit(r: Numbers, p: State, at: float) -> None:
    p.attention = 0.0
    quantity = closable(r, p)
    if quantity > 0.0:
        p.exit_rest, p.exit_sent = quantity, at


def exit_ended(r: Numbers, p: State, into: Row, bar: int) -> bool:
    """An exit order ended without closing: the next one may go after a pause that doubles, at the next tick at the earliest. Unless it left
    so little of coins that no venue takes them: then the trade is over, and what they cost is lost (Portfolio_Manager._sweep)."""
    some = p.exited > 0.0 and p.last_at >= p.exit_sent and p.last_reason == p.reason
    if r.spot > 0.0 and some and (p.exit_rest < r.quantity_min or p.exit_rest * r.contract_size * p.exit_arrival < r.notional_min):
        p.gross -= p.cost
        closed(r, p, into, bar)
        return True
    p.exit_tries += 1.0
    p.exit_after = p.exit_sent + min(MINUTE * 2.0 ** min(p.exit_tries - 1.0, 8.0), RETRY_LONGEST)
    p.exit_rest = 0.0
    p.attention = 1.0
    return False


def tick(r: Numbers, p: State, at: float) -> None:
    """The executor's tick at a step: an exit that failed goes again when its pause is over."""
    if p.attention > 0.0 and p.exit_rest == 0.0 and p.reason != 0.0 and at >= p.exit_after:
        send_exit(r, p, at)


def lapse(r: Numbers, p: State, into: Row, bar: int, at: float) -> bool:
    """Unfilled timeouts at `at`, as they reach the venue when the step settles; whether the trade is over: it never held anything, or what
    it holds nobody takes."""
    if p.exit_rest > 0.0 and p.exit_sent + r.exit_timeout <= at and exit_ended(r, p, into, bar):
        return True
    if p.entry_rest > 0.0 and p.sent_at + r.entry_timeout <= at:
        p.entry_rest = 0.0
        if p.entered == 0.0:
            p.unfilled += 1.0
            forget(p)
            return True
    return False


def ends(r: Numbers, p: State, into: Row, quantity: float, price: float, fee: float, rate: float, at: float, reason: float,
         arrival: float, bar: int) -> bool:
    """One closing fill; whether it ended the trade."""
    if left(r, p, quantity, price, fee, rate, at, reason, arrival):
        closed(r, p, into, bar)
        return True
    return False


def trade_openings(r: Numbers, p: State, t: Tape, into: Row, last: int, following: int, at: float) -> None:
    """Orders that wait for an opening get the one of bar `following`, after the latency; `last` is the last closed bar."""
    here = t.points[last]
    ahead = t.points[following]
    now = at + r.latency
    bid, ask = ahead.open_bid, ahead.open_ask
    synthetic = not (bid == bid and ask == ask)
    if synthetic:
        bid = ask = ahead.open
    elif ask < bid:
        bid, ask, synthetic = ask, bid, True
    if not (bid > 0.0 and ask < math.inf):
        return
    average, rate = here.average, here.rate
    if p.triggered > 0.0 and p.held > 0.0:
        quantity = closable(r, p)
        price = opening_price(r, -p.side, quantity, bid, ask, synthetic, average)
        quantity = room(r, p, here, quantity)
        if quantity > 0.0 and price > 0.0 and ends(r, p, into, quantity, price, r.taker_fee, rate, now, p.stop_reason,
                                                   p.stop_price, following):
            return
    if p.exit_rest > 0.0:
        quantity = min(p.exit_rest, closable(r, p))
        price = opening_price(r, -p.side, quantity, bid, ask, synthetic, average)
        quantity = room(r, p, here, quantity)
        if quantity > 0.0 and price > 0.0:
            p.exit_rest = p.exit_rest - quantity if p.exit_rest - quantity > TINY * p.entered else 0.0
            if ends(r, p, into, quantity, price, r.taker_fee, rate, now, p.reason, p.exit_arrival, following):
                if p.reversal == 0.0 or r.latency > r.late_ms:
                    return
                p.reversal = 0.0
                if not consider(r, p, t, last, now, p.reversal_score, p.reversal_stop, p.reversal_target, p.reversal_hold):
                    return
                now += r.latency
    if p.entry_rest > 0.0:
        quantity = p.entry_rest
        price = opening_price(r, p.side, quantity, bid, ask, synthetic, average)
        quantity = room(r, p, here, quantity)
        if quantity > 0.0 and price > 0.0:
            entered(r, p, quantity, price, rate, now, following)
            protect(r, p)


# -- one bar ---------------------------------------------------------------------------------------------------------------------------


def trigger(r: Numbers, p: State, into: Row, here: Bar, bar: int, raw: float, average: float) -> bool:
    """The stop becomes a market order: what the bar's volume allows fills now, the rest at the next openings."""
    side, quantity = -p.side, closable(r, p)
    p.triggered = 1.0
    cost = impact(r.impact_bp, quantity * r.contract_size * raw, average)
    price = modelled(r, stop_fill(int(side), raw, r.slippage_bp, cost, r.stop_slippage_bp), side > 0.0)
    quantity = room(r, p, here, quantity)
    if not (quantity > 0.0 and price > 0.0):
        return False
    return ends(r, p, into, quantity, price, r.taker_fee, here.rate, here.at, p.stop_reason, p.stop_price, bar)


def take_profit(r: Numbers, p: State, into: Row, here: Bar, bar: int) -> bool:
    quantity = room(r, p, here, closable(r, p))
    if not quantity > 0.0:
        return False
    return ends(r, p, into, quantity, p.target_price, r.maker_fee, here.rate, here.at, ROI, p.target_price, bar)


def liquidate(r: Numbers, p: State, into: Row, here: Bar, bar: int, offset: float, reached: int) -> None:
    side = -p.side
    entry = p.cost / (p.side * p.held * r.contract_size)
    if r.perp > 0.0:
        price = bankruptcy_price(int(p.side), entry, p.leverage)
    else:
        raw = stop_raw(int(side), here.open, p.liquidation, offset, reached)
        price = stop_fill(int(side), raw, r.slippage_bp, 0.0, r.stop_slippage_bp)
    price = max(r.tick_units / r.tick_scale, modelled(r, price, side > 0.0))
    ends(r, p, into, p.held, price, r.taker_fee, here.rate, here.at, LIQUIDATED, price, bar)


def match(r: Numbers, p: State, into: Row, here: Bar, before: Bar, bar: int, offset: float) -> None:
    """Resting orders and liquidation in one closed bar (PaperDesk._match): what the open decides, then stops, then the target. `before`
    is the bar before it, itself if it is the first."""
    began = here.at - r.interval
    after_hole = before.at < began
    if p.exit_rest > 0.0 and p.exit_sent + r.exit_timeout < began and exit_ended(r, p, into, bar):
        return
    if p.entry_rest > 0.0 and (p.sent_at + r.entry_timeout < began or (after_hole and p.sent_at < began)):
        p.entry_rest = 0.0
        if p.entered == 0.0:
            p.unfilled += 1.0
            forget(p)
            return
    if not p.held > 0.0:
        return
    order, opened, high, low = int(-p.side), here.open, here.high, here.low
    average = before.average if bar > 0 else NAN
    stop = p.stop_price if p.triggered == 0.0 else NAN
    reached = stop_reached(order, opened, high, low, stop, offset)
    aimed = limit_reached(order, opened, high, low, p.target_price, offset)
    margin = p.liquidation
    if margin > 0.0 and stop_reached(order, opened, high, low, margin, offset) == AT_OPEN:
        liquidate(r, p, into, here, bar, offset, AT_OPEN)
        return
    if reached == AT_OPEN and trigger(r, p, into, here, bar, stop_raw(order, opened, stop, offset, AT_OPEN), average):
        return
    if aimed == AT_OPEN and take_profit(r, p, into, here, bar):
        return
    closer = margin > 0.0 and order * (stop - margin) >= 0.0
    if reached == IN_RANGE and not closer and trigger(r, p, into, here, bar, stop, average):
        return
    margin = p.liquidation
    if margin > 0.0:
        touch = stop_reached(order, opened, high, low, margin, offset)
        if touch != UNTOUCHED:
            liquidate(r, p, into, here, bar, offset, touch)
            return
    if aimed == IN_RANGE and take_profit(r, p, into, here, bar):
        return


def delist(r: Numbers, p: State, into: Row, here: Bar, bid: float, ask: float, bar: int, reason: float) -> None:
    """Trading ends: closed at the last close, whose recorded quote is `bid`, `ask`, like a market order (PaperDesk._delist)."""
    quantity = closable(r, p)
    if not quantity > 0.0:
        forget(p)
        return
    side = -p.side
    quoted = 0.0 < bid <= ask
    if not quoted:
        bid = ask = here.close
    touch = touched(int(side), bid, ask, not quoted, r.half_spread_bp)
    cost = impact(r.impact_bp, quantity * r.contract_size * touch, here.average)
    price = max(r.tick_units / r.tick_scale, modelled(r, market_fill(int(side), touch, r.slippage_bp, cost), side > 0.0))
    if not ends(r, p, into, quantity, price, r.taker_fee, here.rate, here.at, reason, price, bar):
        closed(r, p, into, bar)


def hold_costs(r: Numbers, p: State, t: Tape, last: int, at: float) -> None:
    """Funding settlements and rollovers until `at`, at the mark told with them or the last close."""
    here = t.points[last]
    while t.events[E_FUNDING_AT, int(p.funded)] <= at:
        row = int(p.funded)
        p.funded += 1.0
        if p.held > 0.0 and r.perp > 0.0:
            mark = t.events[E_FUNDING_MARK, row]
            pay_funding(r, p, mark if mark == mark else here.close, t.events[E_FUNDING_RATE, row], here.rate)
    while t.events[E_ROLL_AT, int(p.rolled)] <= at:
        nights = t.events[E_ROLL_NIGHTS, int(p.rolled)]
        p.rolled += 1.0
        if p.held > 0.0 and r.forex > 0.0:
            row = latest(t.events[E_FINANCING_AT], at)
            annual = r.unstated
            if row >= 0:
                annual = t.events[E_FINANCING_LONG, row] if p.side > 0.0 else t.events[E_FINANCING_SHORT, row]
            pay_financing(r, p, here.close, annual, int(nights), here.rate)


def between_bars(r: Numbers, p: State, t: Tape, into: Row, bar: int) -> None:
    """Instants before a bar's close at which something else was told: money accrues, orders lapse and go again."""
    here = t.points[bar]
    began = here.at - r.interval
    while p.side != 0.0 and t.events[E_INSTANTS, int(p.instant)] < here.at:
        at = float(t.events[E_INSTANTS, int(p.instant)])
        p.instant += 1.0
        p.reversal = 0.0
        hold_costs(r, p, t, bar - 1, at)
        tick(r, p, at)
        if lapse(r, p, into, bar, at):
            return
        if at == began and (p.exit_rest > 0.0 or p.triggered > 0.0):
            trade_openings(r, p, t, into, bar - 1, bar, at)


def arm(r: Numbers, p: State, events: F64) -> None:
    """After anything changed: from where on a bar concerns the open trade at all."""
    if p.side != 0.0:
        watch(r, p)
        following = min(events[E_FUNDING_AT, int(p.funded)], events[E_INSTANTS, int(p.instant)])
        p.next = min(following, events[E_ROLL_AT, int(p.rolled)])


def offset_at(r: Numbers, t: Tape, bar: int) -> float:
    """FOREX: how far the side an order trades on is off the bar's prices (PaperVenue's Series.offset)."""
    return quote_offset(t.told[O_RAW_BID, bar], t.told[O_RAW_ASK, bar], t.points[bar].open, r.half_spread_bp)


def before_step(r: Numbers, p: State, t: Tape, into: Row, bar: int, offset: float) -> None:
    """Everything that happens to an open trade until the strategy sees the bar."""
    here = t.points[bar]
    at, told_at = here.at, p.next
    if told_at < at:
        between_bars(r, p, t, into, bar)
        if p.side == 0.0:
            return
    watch(r, p)
    if p.waits > 0.0 or not (here.low - offset > p.floor and here.high + offset < p.ceiling):
        match(r, p, into, here, t.points[max(bar - 1, 0)], bar, offset)
    p.taken = 0.0
    if told_at <= at:
        hold_costs(r, p, t, bar, at)
    if here.ended != 0.0 and p.side != 0.0:
        delist(r, p, into, here, t.told[O_RAW_BID, told(t, bar)], t.told[O_RAW_ASK, told(t, bar)], bar, DELISTED)
    if p.side != 0.0:
        tick(r, p, at)
    arm(r, p, t.events)


def manage(r: Numbers, p: State, here: Bar, sign: float) -> None:
    """An open trade at a bar close: the view gone, its time up, or its stop to be trailed (Strategy_Manager._manage)."""
    at, side = here.at, p.side
    p.exit_arrival = 0.5 * (here.bid + here.ask)
    if sign != side:
        request_exit(r, p, EXIT_SIGNAL, at)
        return
    if at >= p.due:
        request_exit(r, p, TIME_EXIT, at)
        return
    first = p.signal_stop
    if first != first or (r.break_even_at_r == 0.0 and r.trail_at_r == 0.0):
        return
    p.best = max(p.best, here.high) if side > 0.0 else min(p.best, here.low)
    present = p.stop_price
    if p.reason != 0.0 or p.triggered > 0.0 or present != present:
        return
    price = next_stop(int(side), p.signal_entry, present, p.best, abs(p.signal_entry - first), r.break_even_at_r, r.trail_at_r,
                      r.trail_distance_r)
    price = at_tick(r, price, side < 0.0)
    if side * (price - present) > 0.0:
        p.stop_price, p.stop_reason = price, TRAILING


def undisturbed(lows: F64, highs: F64, floor: float, ceiling: float, bar: int, last: int) -> int:
    """The first bar from `bar` on, at most `last`, that reaches out of a trade's prices."""
    while bar < last and lows[bar] > floor and highs[bar] < ceiling:
        bar += 1
    return bar


def unquoted(r: Numbers, p: State, t: Tape, bar: int, last: int) -> int:
    """The same where orders trade beside the bar's prices."""
    lows, highs = t.bars[B_LOW], t.bars[B_HIGH]
    floor, ceiling = p.floor, p.ceiling
    while bar < last:
        offset = offset_at(r, t, bar)
        if not (lows[bar] - offset > floor and highs[bar] + offset < ceiling):
            return bar
        bar += 1
    return bar


def earliest(times: F64, bar: int, last: int, at: float) -> int:
    """The first bar from `bar` on that closes at `at` or later, at most `last`."""
    if last <= bar or times[len(times) - 1] < at or times[last - 1] < at:  # the end is at hand, the bar before `last` far away
        return last
    low, high = bar, last
    while low < high:
        middle = (low + high) // 2
        if times[middle] < at:
            low = middle + 1
        else:
            high = middle
    return low


def lived(r: Numbers, p: State, t: Tape, into: Row, bar: int) -> None:
    """What a bar does to an open trade until the strategy sees it."""
    here = t.points[bar]
    offset = offset_at(r, t, bar) if r.forex > 0.0 else 0.0
    quiet = here.low - offset > p.floor and here.high + offset < p.ceiling and here.at < p.next
    if quiet and here.ended == 0.0:
        p.taken = 0.0
    else:
        before_step(r, p, t, into, bar, offset)


def held(r: Numbers, p: State, here: Bar, wish: Turn, turned: bool, sign: float, until: float, trails: bool) -> bool:
    """The strategy has seen a bar while a trade is open; whether that changed anything. `wish` counts if it has `turned`."""
    at = here.at
    p.reversal = 0.0
    if sign == p.side and at < p.due and at < until and not trails:
        return False
    manage(r, p, here, sign)
    if turned and sign != 0.0 and sign != p.side and at < until:
        p.reversal, p.reversal_score, p.reversal_stop = sign, wish.score, wish.stop
        p.reversal_target, p.reversal_hold = wish.target, wish.hold
    if at >= until:
        request_exit(r, p, FORCED, at)
    return True


def skipped(r: Numbers, p: State, t: Tape, bar: int, last: int, ending: int, until: float) -> int:
    """The first bar from `bar` on that can concern an open trade for which no order waits; `last` at most. `ending` is the first of the
    bars after which trading ends that is not past."""
    last = earliest(t.bars[B_AT], bar, last, min(p.next, p.due, until))
    if t.events[E_ENDED, ending] < last:
        last = int(t.events[E_ENDED, ending])
    if r.forex > 0.0:
        return unquoted(r, p, t, bar, last)
    return undisturbed(t.bars[B_LOW], t.bars[B_HIGH], p.floor, p.ceiling, bar, last)


def soon(turns: Any, turn: int, t: Tape) -> None:
    """The view will turn before long, and orders trade a bar later: most of a trade's time would be waiting for memory."""
    if turn + AHEAD < len(turns) - 1:
        bar = int(turns[turn + AHEAD].bar)
        prefetch(t.points, bar)
        prefetch(t.points, bar + 1)
        prefetch(t.bars[B_LOW], bar + 1)
        prefetch(t.bars[B_HIGH], bar + 1)


def simulate(turns: Any, t: Tape, numbers: Any, first: int, warmup: int, since: float, until: float, finish: bool, state: Any,
             record: Any, days: F64) -> None:
    """One run over all bars from `first` on. Entries at since <= close < until; after `until`, and with `finish` at the last bar, what
    is open is closed. `turns` are records of Turn, ended by one at no bar; `record` has a Row for each of them. `days` takes the net
    result so far, open trades at their marks, at the last bar of each UTC day. `numbers` is an array of one record of Numbers and
    `state` one of State: Numba knows an array's type at a glance, not a record's."""
    p: State = state[0]
    r, count, sign, turn, day, bar, ending = numbers[0], t.bars.shape[1], 0.0, 0, 0, first, 0
    forget(p)
    trails = r.break_even_at_r > 0.0 or r.trail_at_r > 0.0
    while day < len(days):
        following = turns[turn].bar
        if p.side == 0.0:
            while following < count and turns[turn].score == 0.0:
                sign, turn = 0.0, turn + 1
                following = turns[turn].bar
                soon(turns, turn, t)
            bar = int(min(following, float(count)))
        elif p.waits == 0.0 and sign == p.side and not trails:
            while t.events[E_ENDED, ending] < bar:
                ending += 1
            reached = skipped(r, p, t, bar, int(min(following, t.events[E_DAY_LAST, day])), ending, until)
            if reached > bar:
                bar, p.taken = reached, 0.0
        while day < len(days) and t.events[E_DAY_LAST, day] < bar:
            days[day] = p.cash
            day += 1
        if bar >= count:
            return
        here, wish = t.points[bar], turns[turn]
        at = here.at
        turned = wish.bar == bar
        if p.side != 0.0:
            lived(r, p, t, record[int(p.trades)], bar)
        if turned:
            sign = 1.0 if wish.score > 0.0 else -1.0 if wish.score < 0.0 else 0.0
        if p.side != 0.0:
            if here.accepted != 0.0 and held(r, p, here, wish, turned, sign, until, trails):
                arm(r, p, t.events)
        elif turned and sign != 0.0 and wish.seen >= warmup and since <= at < until:
            p.taken = 0.0
            if consider(r, p, t, bar, at, wish.score, wish.stop, wish.target, wish.hold):
                arm(r, p, t.events)
        if turned:
            turn += 1
            soon(turns, turn, t)
        if p.waits > 0.0 and p.side != 0.0:
            if not lapse(r, p, record[int(p.trades)], bar, at) and bar + 1 < count and t.points[bar + 1].at - r.interval == at:
                trade_openings(r, p, t, record[int(p.trades)], bar, bar + 1, at)
            arm(r, p, t.events)
        if bar == int(t.events[E_DAY_LAST, day]):
            if finish and bar == count - 1 and p.side != 0.0:
                delist(r, p, record[int(p.trades)], here, t.told[O_RAW_BID, told(t, bar)], t.told[O_RAW_ASK, told(t, bar)], bar, FORCED)
            days[day] = p.cash + (net_so_far(r, p, t.bars[B_MARK, bar], here.rate) if p.side != 0.0 else 0.0)
            day += 1
        bar += 1
