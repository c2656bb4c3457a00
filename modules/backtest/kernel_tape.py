"""A series as the kernel reads it: what the daemon would have believed, quoted and let pass at each bar, worked out once for all runs.

Owns nothing: the sessions are domain.sessions's, checks those of filters and Market_Data, done here for all bars at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from modules.backtest import kernel_rows as places
from modules.backtest.costs import average_notional
from modules.backtest.kernel_money import Numbers
from modules.backtest.kernel_rows import Tape
from modules.backtest.kernel_rules import Rules, plain
from modules.backtest.series import F64, I64, Series, ended
from modules.domain import sessions
from modules.domain.instrument import AssetClass
from modules.domain.market import AGREEING_BARS
from modules.strategies.compiled import cache_folder, compiled

HOUR: Final = 3_600_000
DAY: Final = 86_400_000
BAR: Final = np.dtype((np.record, [(name, "f8") for name in places.Bar.__annotations__]))
CACHE_LINE: Final = 64
ROLLS_AHEAD: Final = 400 * DAY
NUMBERS: Final = np.dtype((np.record, [(name, "f8") for name in Numbers._fields]))
"""Numba hands a record on by its address, a tuple of sixty numbers sixty times."""
TAPES_BYTES_MAX: Final = 64_000_000
"""What a process keeps of tapes, the one at hand apart; the longest unused go first."""
_KEPT: WeakKeyDictionary[Series, dict[Any, Tape]] = WeakKeyDictionary()
_NUMBERS: WeakKeyDictionary[Series, dict[Any, NDArray[Any]]] = WeakKeyDictionary()
_LOOPS: dict[str, Callable[..., Any]] = {}


def averages(quote_volume: F64) -> F64:
    """The average bar's notional after each bar (costs.average_notional)."""
    found = np.empty(len(quote_volume))
    average = np.nan
    for bar in range(len(quote_volume)):
        average = average_notional(average, quote_volume[bar])
        found[bar] = average
    return found


def higher(at: I64, opened: F64, high: F64, low: F64, close: F64, accepted: Any, interval: int, length: int) -> F64:
    """[5, n] ts, open, high, low, close of the last higher bar that was complete at each close (Market_Data.Higher)."""
    found = np.full((5, len(at)), np.nan)
    shown = np.full(5, np.nan)
    begun, whole = -1, False
    first = top = bottom = last = np.nan
    for bar in range(len(at)):
        if accepted[bar] != 0:
            opened_at = at[bar] - interval
            ts = opened_at - opened_at % length
            if ts != begun:
                if begun >= 0:
                    if whole:
                        shown[0], shown[1], shown[2], shown[3], shown[4] = begun, first, top, bottom, last
                    whole = True
                if ts == opened_at:
                    whole = True
                begun, first, top, bottom = ts, opened[bar], high[bar], low[bar]
            else:
                top, bottom = max(top, high[bar]), min(bottom, low[bar])
            last = close[bar]
            if opened_at + interval == ts + length:
                if whole:
                    shown[0], shown[1], shown[2], shown[3], shown[4] = ts, first, top, bottom, last
                whole = True
                begun = -1
        found[:, bar] = shown
    return found


def loop(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """A compiled loop, built once a process; `options` go to Numba."""
    if function.__name__ not in _LOOPS:
        _LOOPS[function.__name__] = compiled(function, folder=cache_folder(), **options)
    return _LOOPS[function.__name__]


def numbers(series: Series, rules: Rules, direction: int) -> NDArray[Any]:
    """[1] of NUMBERS: the rules for this series; kept as long as the series is."""
    kept = _NUMBERS.setdefault(series, {})
    key = (rules.policies.hash, rules.phased, rules.wallet, rules.notional, rules.gates, rules.fee_factor, rules.slippage_factor, direction)
    found = kept.get(key)
    if found is None:
        found = kept[key] = np.array([tuple(rules.numbers(series.instrument, series.interval_ms, direction))], dtype=NUMBERS)
    return found


def tape(series: Series, rules: Rules, htf_multiple: int, *, quick: bool = True) -> Tape:
    """The series under these rules' gates; kept as long as the series is, and there is room. Not `quick`: worked out without Numba, to
    the same bits."""
    kept = _KEPT.pop(series, {})
    key = (rules.policies.hash, rules.gates, htf_multiple)
    found = kept.get(key)
    if found is None:
        found = kept[key] = _tape(series, rules, htf_multiple, loop if quick else plainly)
    others = sum(_bytes(tapes) for tapes in _KEPT.values())
    while others > TAPES_BYTES_MAX:
        others -= _bytes(_KEPT.pop(next(iter(_KEPT))))
    _KEPT[series] = kept  # the last one used is the last one to go
    return found


def _bytes(tapes: Mapping[Any, Tape]) -> int:
    return sum(array.nbytes for one in tapes.values() for array in one)


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def _tape(series: Series, rules: Rules, htf_multiple: int, made: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Tape:
    policies, at, close = rules.policies, series.at, series.close
    jump = float(policies.kill_switch.mark_jump_max)
    accepted = _accepted(series, jump)
    bid, ask, fresh = _quotes(series, policies.costs.of(series.asset_class).half_spread_bp / 1e4, jump)
    volume = _day_volume(series)
    before = np.concatenate([close[:1], close[:-1]])
    with np.errstate(invalid="ignore"):
        told = np.isfinite(series.mark) & (series.mark > before / jump) & (series.mark < before * jump)
    settled = np.searchsorted(series.funding_at, at, side="right") - 1
    per_8h = series.funding_rate * (8.0 / series.funding_hours)
    funding = np.where(settled >= 0, per_8h[np.maximum(settled, 0)], np.nan) if len(per_8h) else np.full(len(at), np.nan)
    foretold = np.where(np.isnan(series.funding_predicted), series.funding_rate, series.funding_predicted)
    high = made(higher)(at, series.open, series.high, series.low, close, accepted, series.interval_ms, series.interval_ms * htf_multiple)
    over, forex = ended(series), series.asset_class is AssetClass.FOREX
    roll_at, nights = _rollovers(series) if forex else (at[:0], at[:0])
    gate = _gate(series, rules, bid, ask, fresh, volume) if rules.gates else np.ones(len(at), dtype=np.uint8)
    rows: dict[int, NDArray[Any] | float] = {
        places.B_AT: at, places.B_OPEN: series.open, places.B_HIGH: series.high, places.B_LOW: series.low, places.B_CLOSE: close,
        places.B_VOLUME: series.volume, places.B_BID: bid, places.B_ASK: ask, places.B_MARK: np.where(told, series.mark, close),
        places.B_FUNDING: funding, places.B_REF_CLOSE: series.ref_close, places.B_ACCEPTED: accepted,
        places.B_HTF_TS: high[0], places.B_HTF_OPEN: high[1], places.B_HTF_HIGH: high[2], places.B_HTF_LOW: high[3],
        places.B_HTF_CLOSE: high[4]}
    points = _points(len(at), {
        "at": at, "open": series.open, "high": series.high, "low": series.low, "close": close, "volume": series.volume, "bid": bid,
        "ask": ask, "open_bid": series.open_bid, "open_ask": series.open_ask, "rate": series.rate,
        "average": made(averages)(series.quote_volume), "day_volume": volume, "accepted": accepted, "gate": gate, "ended": over})
    events: dict[int, NDArray[Any]] = {
        places.E_FUNDING_AT: series.funding_at, places.E_FUNDING_RATE: series.funding_rate, places.E_FUNDING_HOURS: series.funding_hours,
        places.E_FUNDING_NEXT: foretold, places.E_FUNDING_MARK: series.funding_mark, places.E_ROLL_AT: roll_at,
        places.E_ROLL_NIGHTS: nights,
        places.E_FINANCING_AT: series.financing_at, places.E_FINANCING_LONG: series.financing_long,
        places.E_FINANCING_SHORT: series.financing_short, places.E_INSTANTS: series.instants, places.E_DAY_LAST: day_last(at),
        places.E_ENDED: np.flatnonzero(over)}
    return Tape(_matrix(places.BAR_ROWS, len(at), rows), points, _told(series),
                _matrix(places.EVENT_ROWS, max(map(len, events.values())) + 1, events))


def _points(count: int, columns: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """[count] records of Bar, each in as few cache lines as it has room in."""
    space = np.empty((count + 1) * BAR.itemsize, dtype=np.uint8)
    first = -space.ctypes.data % CACHE_LINE
    found = space[first : first + count * BAR.itemsize].view(BAR)
    for name, values in columns.items():
        found[name] = values
    return found


def _told(series: Series) -> F64:
    """Tape.told: of a market whose quotes nobody recorded, that never closes and of which no news was heard, one column."""
    forex, quoted = series.asset_class is AssetClass.FOREX, not bool(np.isnan(series.bid).all() and np.isnan(series.ask).all())
    rows: dict[int, NDArray[Any] | float] = {
        places.O_RAW_BID: series.bid if quoted else np.nan, places.O_RAW_ASK: series.ask if quoted else np.nan,
        places.O_NEXT_CLOSE: _by_hour(series.at, sessions.next_close, up=True) if forex else np.nan,
        places.O_NEWS: series.news[:, 0] if len(series.news) else np.nan,
        places.O_NEWS_LATE: series.news[:, 1] if len(series.news) else np.nan}
    return _matrix(places.TOLD_ROWS, len(series) if quoted or forex or len(series.news) else 1, rows)


def _matrix(count: int, length: int, rows: Mapping[int, NDArray[Any] | float]) -> F64:
    """Rows as one array; what is shorter is filled up with infinity."""
    found = np.full((count, length), np.inf)
    for place, values in rows.items():
        if isinstance(values, float):
            found[place] = values
        else:
            found[place, : len(values)] = values
    return found


def _accepted(series: Series, jump: float) -> NDArray[np.uint8]:
    """Bars Market_Data takes: prices that make sense and no close out of line that later ones do not confirm."""
    close, high, low, opened = series.close, series.high, series.low, series.open
    with np.errstate(invalid="ignore", divide="ignore"):
        sane = (low > 0.0) & (low <= close) & (close <= high) & (high < np.inf) & (low <= opened) & (opened <= high)
        steps = np.abs(np.log(close[1:] / close[:-1]))
    if bool(sane.all()) and bool((steps < np.log(jump) - 1e-9).all()):
        return np.ones(len(close), dtype=np.uint8)
    taken = np.zeros(len(close), dtype=np.uint8)
    last, refused, run = 0.0, 0.0, 0
    for bar, price in enumerate(close.tolist()):
        fits = bool(sane[bar]) and (last == 0.0 or (last < price * jump and price < last * jump)
                                    or (run > 0 and refused / jump < price < refused * jump and run + 1 >= AGREEING_BARS))
        if fits:
            taken[bar], last, run = 1, price, 0
        else:
            run = run + 1 if run and refused > 0.0 and 1 / jump < price / refused < jump else 1
            refused = price
    return taken


def _quotes(series: Series, half: float, jump: float) -> tuple[F64, F64, NDArray[np.bool_]]:
    """(bid, ask) the daemon has at each close and whether they are that very bar's: an absurd book leaves the last one standing."""
    close = series.close
    known = ~(np.isnan(series.bid) | np.isnan(series.ask))
    with np.errstate(invalid="ignore"):
        good = known & (close / jump < series.bid) & (series.bid <= series.ask) & (series.ask < close * jump)
    fresh = good | ~known
    bid = np.where(good, series.bid, close - close * half)
    ask = np.where(good, series.ask, close + close * half)
    if not bool(fresh.all()):
        last = np.maximum.accumulate(np.where(fresh, np.arange(len(close)), -1))
        bid = np.where(last >= 0, bid[np.maximum(last, 0)], np.nan)
        ask = np.where(last >= 0, ask[np.maximum(last, 0)], np.nan)
    return bid, ask, fresh


def _day_volume(series: Series) -> F64:
    """Quote volume of the 24 h up to each close, USD; NaN where a bar of them has none."""
    known = np.isfinite(series.quote_volume)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, series.quote_volume, 0.0))])
    missing = np.concatenate([[0], np.cumsum(~known)])
    first = np.searchsorted(series.at, series.at - DAY, side="right")
    rows = np.arange(1, len(series) + 1)
    found: F64 = np.where(missing[rows] > missing[first], np.nan, (total[rows] - total[first]) * series.rate)
    return found


def _gate(series: Series, rules: Rules, bid: F64, ask: F64, fresh: NDArray[np.bool_], volume: F64) -> NDArray[np.uint8]:
    """Whether every check that does not ask for a side passes at each close (filters.freshness, liquidity)."""
    risk, at, close = rules.policies.risk, series.at, series.close
    cap = rules.spread_cap(series.instrument)
    if cap is None:
        return np.zeros(len(at), dtype=np.uint8)
    with np.errstate(invalid="ignore"):
        passes = fresh & (bid > 0.0) & (ask >= bid) & ((ask - bid) / (0.5 * (bid + ask)) * 1e4 <= cap)
        still = np.concatenate([[False], (close[1:] == close[:-1]) & (series.volume[1:] == 0.0)])
        rows = np.arange(len(at))
        run = rows - np.maximum.accumulate(np.where(still, -1, rows))
        passes &= run < risk.frozen_bars_max
        if series.asset_class is not AssetClass.FOREX:
            passes &= volume >= float(risk.quote_volume_24h_min)
    if series.asset_class is AssetClass.FOREX:
        passes &= plain(series.symbol) in risk.forex_deep_pairs
        passes &= _by_hour(at, sessions.forex_open)
        if risk.forex_weekend_flat:
            passes &= _by_hour(at + 2 * series.interval_ms, sessions.forex_open)
        passes &= _minutes_to_rollover(at) >= float(risk.rollover_minutes)
    return passes.astype(np.uint8)


def _by_hour(at: I64, function: Callable[[int], Any], *, up: bool = False) -> NDArray[Any]:
    """A function of time that changes at full hours only: at one (`up`) after or before the instant."""
    hours = -(-at // HOUR) if up else at // HOUR
    unique, places = np.unique(hours, return_inverse=True)
    return np.array([function(hour * HOUR) for hour in unique.tolist()])[places]


def _minutes_to_rollover(at: I64) -> F64:
    """Linear between full hours, where sessions.minutes_to_rollover is asked."""
    before, after = _by_hour(at, sessions.minutes_to_rollover), _by_hour(at + HOUR, sessions.minutes_to_rollover)
    minutes = (at % HOUR) / 60_000.0
    found: F64 = np.where(after < before, before - minutes, before + minutes)
    return found


def _rollovers(series: Series) -> tuple[I64, I64]:
    times = [sessions.next_rollover(int(series.at[0]) - series.interval_ms - DAY)]
    while times[-1] <= int(series.at[-1]) + ROLLS_AHEAD:
        times.append(sessions.next_rollover(times[-1]))
    return np.array(times, dtype=np.int64), np.array([sessions.nights(series.symbol, at) for at in times], dtype=np.int64)


def day_last(at: I64) -> I64:
    """Last bar of each UTC day; a bar that closes at midnight belongs to the day it ends."""
    days = (at - 1) // DAY
    found: I64 = np.append(np.nonzero(np.diff(days))[0], len(at) - 1).astype(np.int64)
    return found
