"""A series as the kernel reads it: which row of which array holds what. Made by kernel_tape, read by the compiled loops.

Owns the places only; refuses nothing.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from numpy.typing import NDArray

from modules.backtest.series import F64

# Rows of `Tape.bars`, one column a bar: what strategies look at.
B_AT: Final = 0
B_OPEN: Final = 1
B_HIGH: Final = 2
B_LOW: Final = 3
B_CLOSE: Final = 4
B_VOLUME: Final = 5
B_BID: Final = 6
"""The quote the daemon has at this close: recorded, or synthesized from the modelled spread."""
B_ASK: Final = 7
B_MARK: Final = 8
B_FUNDING: Final = 9
"""Last settled rate per 8 h."""
B_REF_CLOSE: Final = 10
B_ACCEPTED: Final = 11
"""1 = the daemon believes this bar."""
B_HTF_OPEN: Final = 12
B_HTF_HIGH: Final = 13
B_HTF_LOW: Final = 14
B_HTF_CLOSE: Final = 15
B_HTF_TS: Final = 16
BAR_ROWS: Final = 17

# Rows of `Tape.told`: what few instruments have. One column a bar, or a single one where nothing was told at any bar.
O_RAW_BID: Final = 0
"""Recorded quote at the close, NaN = none."""
O_RAW_ASK: Final = 1
O_NEXT_CLOSE: Final = 2
"""FOREX: when the market next closes for a weekend or holiday."""
O_NEWS: Final = 3
"""What the news said at the close (Series.news): the mood, NaN = none, infinite = entries are closed."""
O_NEWS_LATE: Final = 4
"""The same a latency later, when the close that a reversal waits for has been filled."""
TOLD_ROWS: Final = 5

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
"""Index of the bars after which trading ends."""
EVENT_ROWS: Final = 13


class Bar:
    """What trades look at, of one bar: a record of two cache lines."""

    at: float
    open: float
    high: float
    low: float
    close: float
    volume: float
    bid: float
    ask: float
    open_bid: float
    open_ask: float
    rate: float
    average: float
    """Average bar's notional after this bar."""
    day_volume: float
    """24 h quote volume, USD."""
    accepted: float
    gate: float
    """1 = every check that does not depend on the side lets an entry pass."""
    ended: float
    """1 = trading ends after this bar."""


class Tape(NamedTuple):
    """A series as the kernel reads it, made by kernel_tape. Few arrays, because Numba hands every one of them on by its parts."""

    bars: F64
    """[BAR_ROWS, n]: for whoever goes through all bars."""
    points: NDArray[Any]
    """[n] records of Bar's fields: a trade wants a dozen numbers of one bar, which then are two cache lines, not twelve."""
    told: F64
    """[TOLD_ROWS, n or 1]"""
    events: F64
    """[EVENT_ROWS, m]"""


class Turn:
    """A bar at which the sign of a strategy's score changes, and what it wants there: a record."""

    bar: float
    """Its index; infinity after the last turn."""
    seen: float
    """Bars the strategy has seen, this one included."""
    score: float
    stop: float
    target: float
    hold: float


# The same as columns, for whoever writes them.
V_BAR: Final = 0
V_SEEN: Final = 1
V_SCORE: Final = 2
V_STOP: Final = 3
V_TARGET: Final = 4
V_HOLD: Final = 5
TURN_COLUMNS: Final = 6
