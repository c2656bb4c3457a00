"""Is this the same bet again: rolling correlation of hourly returns, and the gate that limits how many such bets stand side by side.

`ReturnsBook` owns the hourly log returns of every watched series on one grid of hours, and the sums a correlation is made of for every
pair. The sums cover the hours before the newest; the newest hour, whose returns are still coming in, is added when somebody asks. So a
new return costs a write, an hour's end one rank-1 update, and a question a few vector operations instead of a pass over 720 hours.
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
FEW: Final = 32
"""Up to so many symbols one operation on all six matrices at once is quicker than six that spare the memory."""
MANY: Final = 8
"""When more than one row in so many is stale, multiplying whole matrices is quicker than going row by row."""
SPARSE: Final = 4
"""When fewer than one symbol in so many has a return, gathering those few is quicker than a pass over whole matrices."""
# A pair (i, j) is summed over the hours both have: how many, i's and j's returns, i's and j's squares, and the products. Each is one
# of (1, x, x^2) of i times one of (1, y, y^2) of j, and 0 where the return is missing.
LEFT: Final = np.array([0, 1, 0, 2, 0, 1])
RIGHT: Final = np.array([0, 0, 1, 0, 2, 1])


class ReturnsBook:
    """Hourly log returns of many symbols over the last `window` hours, and the correlation of any two of them.

    Hours are whole numbers on one grid (UTC ms // 3,600,000). The window ends at the newest hour anybody was heard of. Memory is
    3 x window x capacity plus 7 x capacity^2 floats of 8 bytes: 8 MB at 200 symbols (capacity 256).
    """

    _powers: Floats
    """[power, hour modulo window, symbol]: 1, x and x^2 of every return x; all 0 where there is none."""
    _sums: Floats
    """[which, i, j]: the six sums of every pair (LEFT, RIGHT) over the hours of the window before the newest."""

    def __init__(self, window: int) -> None:
        if window < 2:
            raise ValueError(f"a correlation needs a window of at least 2 hours, not {window}")
        self._window = window
        self._rows: dict[str, int] = {}
        self._newest = 0
        """The newest hour on the grid; meaningless before the first symbol."""
        self._renewed = 0
        """The hour at which all sums were last made from scratch."""
        self._stale: set[int] = set()
        """Rows whose sums no longer match their returns: they are made anew before they are next used."""
        self._version = 0
        self._cached: dict[str, tuple[int, Floats, Counts]] = {}
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
            self._advance(hour)
        if hour > self._newest - self._window:
            change = self._last_close[row] / self._base_close[row]
            value = math.log(change) if change == change else 0.0
            self._powers[:, hour % self._window, row] = (change == change, value, value * value)
            if hour < self._newest:
                self._stale.add(row)
        self._version += 1

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
            self._refresh()
            size, own = len(self._rows), self._rows[candidate]
            newest = self._powers[:, self._newest % self._window, :size]
            sums = newest[RIGHT]
            sums *= newest[LEFT, own, None]
            sums += self._sums[:, own, :size]
            cached = self._cached[candidate] = (self._version, *self._correlations(sums, np.array([own]), np.arange(size)))
        return cached[1], cached[2]

    def matrix(self, symbols: Sequence[str]) -> tuple[Floats, Counts]:
        """`pair` of every two of `symbols`: two arrays of shape (k, k). Unknown symbols have NaN and 0."""
        self._refresh()
        rows = np.array([self._rows.get(symbol, -1) for symbol in symbols], dtype=np.intp)
        newest = self._powers[:, self._newest % self._window].take(rows, axis=1)
        sums = self._sums[:, rows[:, None], rows]
        sums += newest[LEFT, :, None] * newest[RIGHT, None, :]
        rho, count = self._correlations(sums, rows[:, None], rows)
        if -1 in rows:
            unknown = (rows[:, None] < 0) | (rows < 0)
            rho[unknown], count[unknown] = NAN, 0
        return rho, count

    # -- correlations out of sums -----------------------------------------------------------------------------------------

    def _correlations(self, sums: Floats, i: Index, j: Index) -> tuple[Floats, Counts]:
        """Pearson's r = (Sxy - Sx Sy / n) / sqrt((Sxx - Sx^2 / n)(Syy - Sy^2 / n)) from the six sums (overwritten) of rows i and j."""
        n, linear, squares, products = sums[0], sums[1:3], sums[3:5], sums[5]
        weight = 1.0 / np.maximum(n, 1.0)
        products -= linear[0] * linear[1] * weight
        linear *= linear
        linear *= weight
        squares -= linear
        if squares.min(initial=1.0) <= SUSPECT_SQUARES:
            rho = self._with_care(n, products, squares, *np.broadcast_arrays(i, j))
        else:
            rho = products / np.sqrt(squares[0] * squares[1])
        return np.minimum(np.maximum(rho, -1.0), 1.0), n.astype(np.int64)

    def _with_care(self, n: Floats, products: Floats, squares: Floats, i: Index, j: Index) -> Floats:
        """As above where some sums are too small to be trusted."""
        suspect = squares.min(axis=0) <= SUSPECT_SQUARES
        rho: Floats = products / np.sqrt(np.where(suspect, 1.0, squares[0] * squares[1]))
        for index in zip(*np.nonzero(suspect), strict=True):
            rho[index] = self._exact(int(i[index]), int(j[index])) if n[index] >= 2.0 else NAN
        return rho

    def _exact(self, i: int, j: int) -> float:
        """The correlation from the returns themselves, in two passes."""
        there, returns = self._powers[0], self._powers[1]
        common = (there[:, i] > 0.0) & (there[:, j] > 0.0)
        x, y = returns[common, i], returns[common, j]
        if np.ptp(x) <= CONSTANT_WITHIN or np.ptp(y) <= CONSTANT_WITHIN:
            return NAN
        x, y = x - x.mean(), y - y.mean()
        return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))

    # -- keeping the sums -------------------------------------------------------------------------------------------------

    def _advance(self, hour: int) -> None:
        """Make `hour` the newest: the sums take in the one that was, and lose the one that falls out of the window."""
        if hour == self._newest + 1 and hour - self._renewed < self._window:
            self._add_hour(self._newest % self._window, 1.0)
            self._add_hour(hour % self._window, -1.0)
        else:
            # After a long silence, and once per window to shed the rounding of running sums, everything is made from scratch.
            self._stale.update(range(len(self._rows)))
            self._renewed = hour
        for entering in range(max(self._newest + 1, hour - self._window + 1), hour + 1):
            self._powers[:, entering % self._window] = 0.0
        self._newest = hour

    def _add_hour(self, slot: int, sign: float) -> None:
        """Add (or with sign -1 take away) one hour's returns to the sums of every pair: a rank-1 update of each matrix.

        Most of a long list of symbols may have had no return that hour (their recording has ended or not begun): those are left out.
        """
        size = len(self._rows)
        powers, product = self._powers[:, slot, :size], self._scratch[:size, :size]
        signed = sign * powers
        if size <= FEW:
            self._sums[:, :size, :size] += powers[LEFT, :, None] * signed[RIGHT, None, :]
            return
        there = np.flatnonzero(powers[0])
        if SPARSE * len(there) < size:
            rows, few, signed_few = there[:, None], powers[:, there], signed[:, there]
            for sums, left, right in zip(self._sums, LEFT, RIGHT, strict=True):
                sums[rows, there] += few[left][:, None] * signed_few[right]
            return
        for sums, left, right in zip(self._sums, LEFT, RIGHT, strict=True):
            np.multiply(powers[left][:, None], signed[right], out=product)
            sums[:size, :size] += product

    def _refresh(self) -> None:
        """Make the sums of stale rows from their returns, without the newest hour."""
        if not self._stale:
            return
        size = len(self._rows)
        if MANY * len(self._stale) >= size:
            powers = self._powers[:, :, :size].copy()
            powers[:, self._newest % self._window] = 0.0
            for sums, left, right in zip(self._sums, LEFT, RIGHT, strict=True):
                np.matmul(powers[left].T, powers[right], out=sums[:size, :size])
            self._stale.clear()
            return
        for row in self._stale:
            own = self._powers[:, :, row].copy()
            own[:, self._newest % self._window] = 0.0
            for sums, left, right in zip(self._sums, LEFT, RIGHT, strict=True):
                sums[row] = own[left] @ self._powers[right]
                sums[:, row] = own[right] @ self._powers[left]
        self._stale.clear()

    def _add(self, symbol: str, hour: int) -> int:
        row = len(self._rows)
        if row == 0:
            self._newest = self._renewed = hour
        capacity = self._powers.shape[2]
        if row == capacity:
            powers = self._powers
            self._allocate(2 * capacity)
            self._powers[:, :, :row] = powers
            self._stale.update(range(row))
        self._rows[symbol] = row
        self._last_hour.append(hour)
        self._last_close.append(NAN)
        self._base_close.append(NAN)
        return row

    def _allocate(self, capacity: int) -> None:
        self._powers = np.zeros((3, self._window, capacity))
        self._sums = np.zeros((6, capacity, capacity))
        self._scratch = np.empty((capacity, capacity))


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
    codes: dict[str, int] = {}
    names = np.array([codes.setdefault(u, len(codes)) for u in (underlying, *[position[2] for position in open_positions])])
    signs = np.array([side_sign, *[position[3] for position in open_positions]], dtype=np.float64)
    rho, count = returns.matrix([symbol, *[position[0] for position in open_positions]])
    sides = signs[:, None] * signs
    adjusted: Floats = np.where(names[:, None] == names, sides, np.where((count >= returns_min) & (rho == rho), rho * sides, 1.0))
    others = (adjusted[1:, 1:] >= minimum).sum(axis=1) - (np.diagonal(adjusted)[1:] >= minimum)
    return tuple([
        Correlated(position[0], position[1], value, hours, number)
        for position, value, hours, number in zip(
            open_positions, adjusted[0, 1:].tolist(), count[0, 1:].tolist(), others.tolist(), strict=True)
    ])


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
