"""Is this the same bet again: rolling correlation of hourly returns, and the gate that limits how many such bets stand side by side.

`ReturnsBook` owns the hourly log returns of every watched series on one grid of hours, and the sums a correlation is made of for every
pair. A return that comes in changes the sums of its own row only, and the end of an hour nothing at all: no bar ever waits for the
products of all pairs, and a question takes a few vector operations instead of a pass over 720 hours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from modules.domain.decision import Check, Rule
from modules.domain.instrument import AssetClass
from modules.domain.policies import RiskPolicy
from modules.domain.signal import Signal
from modules.domain.view import Correlated, View
from modules.filters.compare import count_at_most

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Index = NDArray[np.intp]

NAN: Final = math.nan
CONSTANT_WITHIN: Final = 1e-12
"""Log returns that differ by no more than this over the whole window are one number and rounding: a constant series."""
SUSPECT_SQUARES: Final = 1e-6
"""A sum of squared deviations below this (returns of 0.004 % per hour) may be mostly the rounding residue of running sums: such a pair is
computed from its returns instead."""
FIRST_CAPACITY: Final = 8
FAR: Final = 32
"""Hours a row may be behind before making its sums from scratch is quicker than going hour by hour."""
MANY: Final = 8
"""When more than one row in so many is stale, multiplying whole matrices is quicker than going row by row."""
# A pair (i, j) is summed over the hours both have: how many, i's returns and squares, j's returns and squares, and the products.
MIRRORED: Final = np.array([0, 3, 4, 1, 2, 5])
"""Which of the six sums of (j, i) is which of (i, j)."""
_SIX: Final = np.arange(6)[None, :, None]
_LEAVE_AND_ENTER: Final = np.array(((-1.0,), (1.0,)))
_NOTHING: Final = (0.0, 0.0, 0.0)


class ReturnsBook:
    """Hourly log returns of many symbols over the last `window` hours, and the correlation of any two of them.

    Hours are whole numbers on one grid (UTC ms // 3,600,000). The window ends at the newest hour anybody was heard of. Memory is
    4 x window x capacity plus 6 x capacity^2 numbers of 8 bytes: 9 MB at 200 symbols (capacity 256).

    What holds at every moment, whatever came late or not at all, for every pair of rows that is not stale: its six sums are those over
    the slots in which both rows hold the same hour. A row that was brought up to the newest hour holds no others.
    """

    _powers: Floats
    """[power, hour modulo window, row]: 1, x and x^2 of every return x; all 0 where there is none."""
    _hours: Counts
    """[hour modulo window, row]: which hour that slot of that row is about; -1 before its first."""
    _sums: Floats
    """[i, which, j]: what row i's own returns brought; the sum of a pair is that of (i, j) plus the mirrored one of (j, i)."""

    def __init__(self, window: int) -> None:
        if window < 2:
            raise ValueError(f"a correlation needs a window of at least 2 hours, not {window}")
        self._window = window
        self._rows: dict[str, int] = {}
        self._newest = 0
        """The newest hour on the grid; meaningless before the first symbol."""
        self._reached: list[int] = []
        """Up to which hour each row's slots are filled."""
        self._own: list[tuple[float, float, float]] = []
        """How many returns a row holds, their sum and the sum of their squares."""
        self._renewed: list[int] = []
        """The hour at which each row's sums were last made from scratch."""
        self._stale: set[int] = set()
        """Rows whose sums do not match their returns: they are made anew before the next question is answered."""
        self._version = 0
        self._cached: dict[str, tuple[int, Floats, Counts]] = {}
        self._crowd: tuple[object, list[int]] = (None, [])
        self._last_hour: list[int] = []
        self._last_close: list[float] = []
        self._base_close: list[float] = []
        """Close of the hour before `_last_hour`, NaN if missing: an hour's close may be corrected within the hour."""
        self._allocate(FIRST_CAPACITY)

    @property
    def symbols(self) -> tuple[str, ...]:
        """In the order of `row`."""
        return tuple(self._rows)

    def accept(self, symbol: str, hour: int, close: float) -> None:
        """Take in the last close of `hour`. The same hour again replaces it; an earlier one raises ValueError.

        A missing hour (or a close that is no positive number) leaves no return for that hour and none for the next.
        """
        row = self._rows.get(symbol)
        if row is None:
            row = self._add(symbol, hour)
        elif hour < self._last_hour[row]:
            raise ValueError(f"{symbol}: hour {hour} after hour {self._last_hour[row]}")
        if hour > self._last_hour[row]:
            self._base_close[row] = self._last_close[row] if hour == self._last_hour[row] + 1 else NAN
            self._last_hour[row] = hour
        self._last_close[row] = close if math.isfinite(close) and close > 0.0 else NAN
        if hour > self._newest:
            self._newest = hour
        self._version += 1
        if hour <= self._newest - self._window:
            return
        change = self._last_close[row] / self._base_close[row]
        value = math.log(change) if change == change else 0.0
        behind = hour - self._reached[row]
        if behind > 0 and (hour < self._newest or behind > FAR):
            self._stale.add(row)
        if behind > 1:
            self._reach(row, hour - 1)
        self._put(row, hour, (1.0, value, value * value) if change == change else _NOTHING)
        if hour - self._renewed[row] >= self._window and row not in self._stale:
            self._renew(row)

    def prepare(self) -> None:
        """Do now what the first question after many returns would have to wait for."""
        self._refresh()

    def pair(self, a: str, b: str) -> tuple[float, int]:
        """(Pearson correlation, number of hours it rests on) over the hours of the window in which both have a return.

        NaN for an unknown symbol, fewer than 2 common returns or a series that is constant over them. Equals numpy.corrcoef of the
        same returns to 1e-9.
        """
        rho, count = self.matrix([a, b])
        return float(rho[0, 1]), int(count[0, 1])

    def row(self, candidate: str) -> tuple[Floats, Counts]:
        """`pair(candidate, other)` for every symbol of `symbols` at once; kept until the next return comes in. Raises KeyError."""
        cached = self._cached.get(candidate)
        if cached is None or cached[0] != self._version:
            size, own = len(self._rows), self._rows[candidate]
            self._bring_up((own,))
            sums = self._sums[:size, :, own].T[MIRRORED]
            sums += self._sums[own, :, :size]
            sums[:, own] = self._with_itself(own)
            cached = self._cached[candidate] = (self._version, *self._correlations(sums, own, None))
        return cached[1], cached[2]

    def beside(self, candidate: str, others: Sequence[str]) -> tuple[list[float], list[int]]:
        """`pair(candidate, other)` for each of a few `others`."""
        own = self._rows.get(candidate)
        rows = [self._rows.get(other, -1) for other in others]
        if own is None or -1 in rows:
            rho, count = self.matrix([candidate, *others])
            return rho[0, 1:].tolist(), count[0, 1:].tolist()
        self._bring_up((own,))
        index = np.array(rows)
        sums = self._sums[index, :, own].T[MIRRORED]
        sums += self._sums[own].take(index, axis=1)
        if own in rows:
            sums[:, index == own] = np.array(self._with_itself(own))[:, None]
        among, hours = self._correlations(sums, own, index)
        return among.tolist(), hours.tolist()

    def matrix(self, symbols: Sequence[str]) -> tuple[Floats, Counts]:
        """`pair` of every two of `symbols`: two arrays of shape (k, k). Unknown symbols have NaN and 0."""
        named = [self._rows.get(symbol, -1) for symbol in symbols]
        rows = np.array(named, dtype=np.intp)
        self._bring_up([row for row in named if row >= 0])
        half = self._sums[rows[:, None, None], _SIX, rows]
        sums = (half + half[:, MIRRORED].transpose(2, 1, 0)).transpose(1, 0, 2).copy()
        known = (rows[:, None] >= 0) & (rows >= 0)
        for i, j in zip(*np.nonzero((rows[:, None] == rows) & known), strict=True):
            sums[:, i, j] = self._with_itself(named[i])
        rho, count = self._correlations(sums, rows[:, None], rows)
        if -1 in named:
            rho[~known], count[~known] = NAN, 0
        return rho, count

    # -- correlations out of sums -----------------------------------------------------------------------------------------

    def _with_itself(self, row: int) -> tuple[float, ...]:
        n, linear, squares = self._own[row]
        return n, linear, squares, linear, squares, squares

    def _correlations(self, sums: Floats, i: int | Index, j: Index | None) -> tuple[Floats, Counts]:
        """Pearson's r = (n Sxy - Sx Sy) / sqrt((n Sxx - Sx^2)(n Syy - Sy^2)) from the six sums (overwritten) of rows i and j (None: all)."""
        n, left, right, products = sums[0], sums[1:3], sums[3:5], sums[5]
        count = n.astype(np.int64)
        products *= n
        products -= left[0] * right[0]
        squares = sums[2::2]  # i's and j's
        squares *= n
        linear = sums[1:4:2]
        linear *= linear
        squares -= linear
        if np.minimum.reduce(squares, axis=None) <= SUSPECT_SQUARES * self._window:
            rho = self._with_care(n, products, squares, *np.broadcast_arrays(i, np.arange(n.size) if j is None else j))
        else:
            spread = squares[0] * squares[1]
            rho = np.divide(products, np.sqrt(spread, out=spread), out=products)
        np.minimum(rho, 1.0, out=rho)
        return np.maximum(rho, -1.0, out=rho), count

    def _with_care(self, n: Floats, products: Floats, squares: Floats, i: Index, j: Index) -> Floats:
        """As above where some sums are too small to be trusted."""
        suspect = squares.min(axis=0) <= SUSPECT_SQUARES * n
        rho: Floats = products / np.sqrt(np.where(suspect, 1.0, squares[0] * squares[1]))
        for index in zip(*np.nonzero(suspect), strict=True):
            rho[index] = self._exact(int(i[index]), int(j[index])) if n[index] >= 2.0 else NAN
        return rho

    def _exact(self, i: int, j: int) -> float:
        """The correlation from the returns themselves, in two passes."""
        there, returns, hours = self._powers[0], self._powers[1], self._hours
        common = (there[:, i] > 0.0) & (there[:, j] > 0.0) & (hours[:, i] == hours[:, j])
        x, y = returns[common, i], returns[common, j]
        if np.ptp(x) <= CONSTANT_WITHIN or np.ptp(y) <= CONSTANT_WITHIN:
            return NAN
        x, y = x - x.mean(), y - y.mean()
        return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))

    # -- keeping the sums -------------------------------------------------------------------------------------------------

    def _put(self, row: int, hour: int, entering: tuple[float, float, float]) -> None:
        """Let a row's slot be about `hour`, with this return, and its sums about what is now in the slot instead of what was."""
        slot, size = hour % self._window, len(self._rows)
        powers, hours = self._powers[:, slot, :size], self._hours[slot, :size]
        held, leaving = int(hours[row]), powers[:, row].tolist()
        hours[row] = -2  # a row's sums with itself are kept apart
        if row not in self._stale:
            n, linear, squares = self._own[row]
            self._own[row] = (n + entering[0] - leaving[0], linear + entering[1] - leaving[1], squares + entering[2] - leaving[2])
            # Those who hold the hour that leaves lose a product, those who hold the hour that comes gain one.
            change = np.array((leaving, entering))
            holders = hours == np.array(((held,), (hour,)))
            moved = change.T @ (holders * _LEAVE_AND_ENTER)
            sums = self._sums[row, :, :size]
            sums[5] += moved[1] * powers[1]
            sums[3:5] += moved[0] * powers[1:]
            moved *= powers[0]
            sums[:3] += moved
        hours[row] = hour
        powers[:, row] = entering
        if hour > self._reached[row]:
            self._reached[row] = hour

    def _reach(self, row: int, hour: int) -> None:
        """Fill the slots of a row up to `hour` with no returns."""
        for missing in range(max(self._reached[row], hour - self._window) + 1, hour + 1):
            self._put(row, missing, _NOTHING)

    def _bring_up(self, rows: Sequence[int]) -> None:
        """Before a question about `rows`: up to the newest hour, and nothing stale."""
        for row in rows:
            behind = self._newest - self._reached[row]
            if behind > FAR:
                self._stale.add(row)
            if behind:
                self._reach(row, self._newest)
        if self._stale:
            self._refresh()

    def _refresh(self) -> None:
        """Make the sums of stale rows from their returns."""
        if MANY * len(self._stale) < len(self._rows):
            for row in tuple(self._stale):
                self._renew(row)
            return
        size = len(self._rows)
        powers = self._powers[:, :, :size]
        powers[:, self._hours[:, :size] <= self._newest - self._window] = 0.0  # of rows nobody has heard of for long
        there, returns, squares = powers
        for which, (left, right) in enumerate(((there, there), (returns, there), (squares, there))):
            product = left.T @ right
            product *= 0.5
            self._sums[:size, which, :size] = product
            if which:
                self._sums[:size, which + 2, :size] = product.T
        np.multiply(returns.T @ returns, 0.5, out=self._sums[:size, 5, :size])
        self._own = list(zip(*powers.sum(axis=1).tolist(), strict=True))
        # Rows are renewed in turn, so that no hour has to do it for all of them.
        self._renewed = [self._newest - row % self._window for row in range(size)]
        self._stale.clear()

    def _renew(self, row: int) -> None:
        """The same for one row: all of a pair's sum is put down with this one, and nothing is left with the other."""
        size = len(self._rows)
        mine = self._powers[:, :, row]
        same = self._hours[:, :size] == self._hours[:, row, None]
        there, returns, squares = self._powers[:, :, :size]
        sums = self._sums[row, :, :size]
        sums[:3] = mine @ (there * same)
        sums[4] = mine[0] @ (squares * same)
        shared = returns * same
        sums[3], sums[5] = mine[0] @ shared, mine[1] @ shared
        self._sums[:size, :, row] = 0.0
        sums[:, row] = 0.0
        self._own[row] = (float(mine[0].sum()), float(mine[1].sum()), float(mine[2].sum()))
        self._renewed[row] = self._newest
        self._stale.discard(row)

    def _add(self, symbol: str, hour: int) -> int:
        row = len(self._rows)
        if row == 0:
            self._newest = hour
        if row == self._powers.shape[2]:
            powers, hours, sums = self._powers, self._hours, self._sums
            self._allocate(2 * row)
            self._powers[:, :, :row], self._hours[:, :row], self._sums[:row, :, :row] = powers, hours, sums
        self._rows[symbol] = row
        self._reached.append(hour - 1)
        self._renewed.append(hour - row % self._window)
        self._own.append(_NOTHING)
        self._last_hour.append(hour)
        self._last_close.append(NAN)
        self._base_close.append(NAN)
        return row

    def _allocate(self, capacity: int) -> None:
        self._powers = np.zeros((3, self._window, capacity))
        self._hours = np.full((self._window, capacity), -1, dtype=np.int64)
        self._sums = np.zeros((capacity, 6, capacity))

    # -- what is open already ---------------------------------------------------------------------------------------------

    def crowd(self, positions: Sequence[OpenPosition], minimum: float, returns_min: int) -> Sequence[int]:
        """With how many others each of `positions` is highly correlated (see `correlated`); kept until a return or a position changes."""
        asked = (self._version, tuple(positions), minimum, returns_min)
        if self._crowd[0] != asked:
            codes: dict[str, int] = {}
            names = np.array([codes.setdefault(position[2], len(codes)) for position in positions])
            signs = np.array([position[3] for position in positions], dtype=np.float64)
            rho, count = self.matrix([position[0] for position in positions])
            sides = signs[:, None] * signs
            adjusted: Floats = np.where(names[:, None] == names, sides, np.where((count >= returns_min) & (rho == rho), rho * sides, 1.0))
            high = (adjusted >= minimum).sum(axis=1) - (np.diagonal(adjusted) >= minimum)
            self._crowd = (asked, high.tolist())
        return self._crowd[1]


OpenPosition = tuple[str, AssetClass, str, int]
"""(symbol of the series it moves with, asset class, underlying, side sign: +1 long, -1 short, for options the sign of delta)."""


def correlated(
    returns: ReturnsBook, symbol: str, side_sign: int, underlying: str, open_positions: Sequence[OpenPosition], *, minimum: float,
    returns_min: int,
) -> tuple[Correlated, ...]:
    """How every open position (or working entry) moves with a candidate, sides included, and with how many others it already does.

    Two on the same underlying correlate by 1 x their sides. Too few common returns or a constant series count as 1 whatever the sides:
    what we cannot measure is the same bet. One entry per trade: the legs of one structure are one position.
    """
    if not open_positions:
        return ()
    others = returns.crowd(open_positions, minimum, returns_min)
    rho, count = returns.beside(symbol, [position[0] for position in open_positions])
    found = []
    for (other, asset_class, bet, sign), value, hours, number in zip(open_positions, rho, count, others, strict=True):
        sides = float(side_sign * sign)
        adjusted = sides if bet == underlying else value * sides if hours >= returns_min and value == value else 1.0
        found.append(Correlated(other, asset_class, adjusted, hours, number))
    return tuple(found)


def correlation(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    """After the trade neither the candidate nor any open position, over all classes, may have more than `correlated_others_max` others
    highly correlated with it. Measured is the largest such number; NaN counts as correlated."""
    minimum = float(policy.correlation_min)
    most, who, together = 0, "", 0
    for position in view.correlated:
        high = not position.correlation < minimum
        together += high
        if position.others + high > most:
            most, who = position.others + high, position.symbol
    if together >= most:
        most, who = together, signal.symbol
    limit = policy.correlated_others_max
    return count_at_most(Rule.CORRELATED_POSITIONS_ABOVE_MAXIMUM, most, limit, "highly correlated others", f"around {who}" if most else "")
