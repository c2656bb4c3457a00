"""A series as the kernel reads it: which row of which array holds what. Made by kernel_tape, read by the compiled loops.

Owns the places only; refuses nothing.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from numpy.typing import NDArray

from modules.backtest.series import F64

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
B_RATE: Final = 13
B_AVERAGE: Final = 14
"""Average bar's notional after this bar."""
B_DAY_VOLUME: Final = 15
"""24 h quote volume, USD."""
B_ACCEPTED: Final = 16
"""1 = the daemon believes this bar."""
B_GATE: Final = 17
"""1 = every check that does not depend on the side lets an entry pass."""
B_ENDED: Final = 18
"""1 = trading ends after this bar."""
B_NEXT_CLOSE: Final = 19
"""FOREX: when the market next closes for a weekend or holiday."""
B_NEWS: Final = 20
"""What the news said at the close (Series.news): the mood, NaN = none, infinite = entries are closed."""
B_NEWS_LATE: Final = 21
"""The same a latency later, when the close that a reversal waits for has been filled."""
B_FUNDING: Final = 22
"""Last settled rate per 8 h."""
B_REF_CLOSE: Final = 23
B_HTF_OPEN: Final = 24
B_HTF_HIGH: Final = 25
B_HTF_LOW: Final = 26
B_HTF_CLOSE: Final = 27
B_HTF_TS: Final = 28
BAR_ROWS: Final = 29
POINT_COLUMNS: Final = 22
"""The rows from here on only strategies look at; those before are the fields of Bar."""

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
E_ENDED: Final = 12
"""Index of the bars of B_ENDED."""
EVENT_ROWS: Final = 13


class Bar:
    """The rows that trades look at, of one bar: a record."""

    at: float
    open: float
    high: float
    low: float
    close: float
    volume: float
    raw_bid: float
    raw_ask: float
    bid: float
    ask: float
    open_bid: float
    open_ask: float
    mark: float
    rate: float
    average: float
    day_volume: float
    accepted: float
    gate: float
    ended: float
    next_close: float
    news: float
    news_late: float


class Tape(NamedTuple):
    """A series as the kernel reads it, made by kernel_tape. Few arrays, because Numba hands every one of them on by its parts."""

    bars: F64
    """[BAR_ROWS, n]: for whoever goes through all bars."""
    points: NDArray[Any]
    """[n] the same as records of Bar's fields: a trade wants a dozen numbers of one bar, which then are three cache lines, not twelve."""
    events: F64
    """[EVENT_ROWS, m]"""

# Columns of a strategy's turns: the bars at which the sign of its score changes, and what it wants there.
V_BAR: Final = 0
V_SEEN: Final = 1
"""Bars the strategy has seen, this one included."""
V_SCORE: Final = 2
V_STOP: Final = 3
V_TARGET: Final = 4
V_HOLD: Final = 5
TURN_COLUMNS: Final = 6
