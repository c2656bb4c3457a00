"""Whether and how large the compiled kernel enters: Strategy_Manager.consider, the filters that ask for a side, and the Sizer, in floats.

Owns no rule: each function names what it stands for in the daemon. Compiled by kernel.py; plain Python runs the same lines.
"""

from __future__ import annotations

import math

from modules.backtest.kernel_money import (
    NAN,
    STOP_MEMORY,
    Numbers,
    State,
    forget,
    sized,
    welcome,
)
from modules.backtest.kernel_rows import (
    E_FINANCING_AT,
    E_FINANCING_LONG,
    E_FINANCING_SHORT,
    E_FUNDING_AT,
    E_FUNDING_HOURS,
    E_FUNDING_NEXT,
    E_FUNDING_RATE,
    E_INSTANTS,
    E_ROLL_AT,
    E_ROLL_NIGHTS,
    O_NEWS,
    O_NEWS_LATE,
    O_NEXT_CLOSE,
    Tape,
)
from modules.backtest.series import F64


def told(t: Tape, bar: int) -> int:
    """The column of Tape.told that holds for a bar."""
    return bar if t.told.shape[1] > 1 else 0


def latest(times: F64, at: float) -> int:
    """Index of the last time at or before `at`; -1 = none."""
    if not times[0] <= at:
        return -1
    low, high = 0, len(times)
    while low < high:
        middle = (low + high) // 2
        if times[middle] <= at:
            low = middle + 1
        else:
            high = middle
    return low - 1


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


def rested(r: Numbers, p: State, at: float) -> bool:
    """The cooldowns after losses (filters.guards)."""
    if 0.0 < r.cooldown_losses <= p.losses and at - p.last_loss < r.cooldown_ms:
        return False
    wanted = int(r.class_stop_outs)
    count = int(p.stop_outs)
    if 0 < wanted <= count:
        last = p.stop_times[(count - 1) % STOP_MEMORY]
        if p.stop_times[(count - wanted) % STOP_MEMORY] >= last - r.class_window_ms and at - last < r.class_rest_ms:
            return False
    return True


def consider(r: Numbers, p: State, t: Tape, bar: int, at: float, score: float, stop: float, target: float, hold: float) -> bool:
    """Signal, checks, size: whether an entry order goes out at `at` (Strategy_Manager.consider)."""
    here, side = t.points[bar], 1.0 if score > 0.0 else -1.0
    if (r.spot > 0.0 and side < 0.0) or r.direction * side < 0.0:
        return False
    entry = here.ask if side > 0.0 else here.bid
    stopped = entry - side * stop if stop > 0.0 else NAN
    aimed = entry + side * target if target > 0.0 else NAN
    if not aimed > 0.0:
        aimed = NAN
    if stop > 0.0 and not (stopped > 0.0 and side * (entry - stopped) > 0.0):
        return False
    confidence, share = min(1.0, abs(score)), 1.0
    if r.gates > 0.0:
        reward = abs(aimed - entry) / entry if aimed == aimed else confidence * r.expected_r * abs(entry - stopped) / entry
        if here.gate == 0.0 or not payable(r, t, at, side, hold, reward) or not rested(r, p, at):
            return False
        share = welcome(r, t.told[O_NEWS if at == here.at else O_NEWS_LATE, told(t, bar)], side)
        if share == 0.0:
            return False
    rate = here.rate
    if r.exact > 0.0:
        quantity, risk, leverage = sized(r, r.wallet + p.cash, confidence, side, entry, stopped, rate, here.day_volume,
                                         share)
        if quantity * r.contract_size * here.close < r.notional_min:
            return False  # the venue refuses the order: MIN_NOTIONAL at its last price
    else:
        quantity, leverage = share * r.notional / (entry * rate * r.contract_size), max(1.0, r.leverage_max)
        risk = share * r.notional * (abs(entry - stopped) / entry if stopped == stopped else 1.0)
    if not quantity > 0.0:
        return False
    forget(p)
    p.side, p.entry_rest, p.risk, p.leverage, p.planned = side, quantity, risk, leverage, quantity
    p.opened_at, p.sent_at, p.hold = at, at, hold
    p.signal_entry, p.signal_stop, p.signal_target, p.best = entry, stopped, aimed, entry
    p.entry_arrival = 0.5 * (here.bid + here.ask)
    p.next_close = t.told[O_NEXT_CLOSE, told(t, bar)]
    p.funded, p.instant = latest(t.events[E_FUNDING_AT], at) + 1, latest(t.events[E_INSTANTS], at) + 1
    p.rolled = latest(t.events[E_ROLL_AT], at) + 1
    return True
