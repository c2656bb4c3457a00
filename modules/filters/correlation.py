"""Is this the same bet again: rolling correlation of hourly returns, and the gate that limits how many such bets stand side by side.

`ReturnsBook` owns the hourly log returns of every watched series on one grid of hours, and the sums a correlation is made of for every
pair. A return that comes in is only written down, and so is the end of an hour: no bar waits for the products of all pairs. Whoever is
asked about brings the sums of his own row up to date, a vector operation for the hours since he was asked last, instead of a pass over
all 720; the newest hour, whose returns are still coming in, is added for the answer only.
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
SLACK: Final = 48
"""Hours that are kept beyond the window: so far may a row be behind and still be brought up to date."""
FEW: Final = 8
"""Rows (or hours behind) up to which repairing is quicker than making sums from the returns."""
LATE_MAX: Final = 100_000
"""Late returns remembered; beyond, every row is made from scratch."""
# A pair (i, j) is summed over the hours both have: how many, i's returns and squares, j's returns and squares, and the products. Each
# is one of (1, x, x^2) of i times one of (1, y, y^2) of j, and 0 where the return is missing.
LEFT: Final = np.array([0, 1, 2, 0, 0, 1])
RIGHT: Final = np.array([0, 0, 0, 1, 2, 1])
_NEEDED: Final = 3 * LEFT + RIGHT
"""Which of all nine products."""
NEVER: Final = -1


class ReturnsBook:
    """Hourly log returns of many symbols over the last `window` hours, and the correlation of any two of them.

    Hours are whole numbers on one grid (UTC ms // 3,600,000). The window ends at the newest hour anybody was heard of. Memory is
    3 x (window + 48) x capacity plus 6 x capacity^2 floats of 8 bytes: 8 MB at 200 symbols (capacity 256).
    """

    _powers: Floats
    """[hour modulo (window + SLACK), power, row]: 1, x and x^2 of every return x; all 0 where there is none."""
    _sums: Floats
    """[row, which, other]: the six sums (LEFT, RIGHT) of a row with every other, as of the hour `_summed` of that row."""

    def __init__(self, window: int) -> None:
        if window < 2:
            raise ValueError(f"a correlation needs a window of at least 2 hours, not {window}")
        self._window = window
        self._slots = window + SLACK
        self._rows: dict[str, int] = {}
        self._newest = 0
        """The newest hour on the grid; meaningless before the first symbol."""
        self._summed: list[int] = []
        """The last hour each row's sums take in (window - 1 hours up to it), NEVER if they are to be made from scratch."""
        self._renewed: list[int] = []
        """The hour at which they were last made from scratch, which sheds the rounding of running sums."""
        self._late: list[int] = []
        """Rows of which a return came, or was corrected, after others may have summed that hour, in the order in which it happened."""
        self._heard: list[int] = []
        """How many of these each row's sums take in."""
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
            self._advance(hour)
        if hour > self._newest - self._window:
            change = self._last_close[row] / self._base_close[row]
            value = math.log(change) if change == change else 0.0
            self._powers[hour % self._slots, :, row] = (change == change, value, value * value)
            if hour < self._newest:
                self._summed[row] = NEVER
                if len(self._late) >= LATE_MAX:
                    self._late.clear()
                    self._summed, self._heard = [NEVER] * len(self._rows), [0] * len(self._rows)
                self._late.append(row)
        self._version += 1

    def prepare(self) -> None:
        """Do now what the first questions after many returns would have to wait for."""
        self._renew_all()

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
            self._bring_up(own)
            newest = self._powers[self._newest % self._slots]
            sums = newest.take(RIGHT, axis=0)
            sums *= newest[:, own].take(LEFT)[:, None]
            sums += self._sums[own]
            sums = sums[:, :size]
            cached = self._cached[candidate] = (self._version, *self._correlations(sums, own, None))
        return cached[1], cached[2]

    def beside(self, candidate: str, others: Sequence[str]) -> tuple[list[float], list[int]]:
        """`pair(candidate, other)` for each of a few `others`. Who was not asked about for long is answered from the returns of those."""
        own = self._rows.get(candidate, -1)
        rows = [self._rows.get(other, -1) for other in others]
        if own < 0 or -1 in rows:
            rho, count = self.matrix([candidate, *others])
            return rho[0, 1:].tolist(), count[0, 1:].tolist()
        index = np.array(rows)
        if self._up_to_date(own, FEW):
            self._bring_up(own)
            newest = self._powers[self._newest % self._slots]
            sums = newest[RIGHT[:, None], index] * newest[LEFT, own, None] + self._sums[own].take(index, axis=1)
        else:
            sums = self._from_scratch(own, index, self._newest)
        among, hours = self._correlations(sums, own, index)
        return among.tolist(), hours.tolist()

    def matrix(self, symbols: Sequence[str]) -> tuple[Floats, Counts]:
        """`pair` of every two of `symbols`: two arrays of shape (k, k). Unknown symbols have NaN and 0."""
        named = [self._rows.get(symbol, -1) for symbol in symbols]
        rows = np.array(named, dtype=np.intp)
        if FEW * sum(not self._up_to_date(row, SLACK) for row in named if row >= 0) > len(self._rows):
            self._renew_all()
        for row in named:
            if row >= 0:
                self._bring_up(row)
        newest = self._powers[self._newest % self._slots].take(rows, axis=1)
        sums = self._sums[rows[:, None], :, rows].transpose(2, 0, 1) + newest[LEFT, :, None] * newest[RIGHT, None, :]
        rho, count = self._correlations(sums, rows[:, None], rows)
        if -1 in named:
            unknown = (rows[:, None] < 0) | (rows < 0)
            rho[unknown], count[unknown] = NAN, 0
        return rho, count

    # -- correlations out of sums -----------------------------------------------------------------------------------------

    def _correlations(self, sums: Floats, i: int | Index, j: Index | None) -> tuple[Floats, Counts]:
        """Pearson's r = (n Sxy - Sx Sy) / sqrt((n Sxx - Sx^2)(n Syy - Sy^2)) from the six sums of rows i and j (None: all), overwritten."""
        # One row after the other: numpy takes four times as long for two rows at once that do not lie together.
        n, linear, squares, other_linear, other_squares, products = sums
        count = n.astype(np.int64)
        products *= n
        products -= linear * other_linear
        squares *= n
        linear *= linear
        squares -= linear
        other_squares *= n
        other_linear *= other_linear
        other_squares -= other_linear
        smaller = np.minimum(squares, other_squares)
        if smaller.min() <= SUSPECT_SQUARES * self._window:
            spread = squares * other_squares
            rho = self._with_care(n, products, spread, smaller, *np.broadcast_arrays(i, np.arange(n.size) if j is None else j))
        else:
            squares *= other_squares
            rho = np.divide(products, np.sqrt(squares, out=squares), out=products)
        np.minimum(rho, 1.0, out=rho)
        return np.maximum(rho, -1.0, out=rho), count

    def _with_care(self, n: Floats, products: Floats, spread: Floats, smaller: Floats, i: Index, j: Index) -> Floats:
        """As above where some sums are too small to be trusted."""
        suspect = smaller <= SUSPECT_SQUARES * n
        rho: Floats = products / np.sqrt(np.where(suspect, 1.0, spread))
        for index in zip(*np.nonzero(suspect), strict=True):
            rho[index] = self._exact(int(i[index]), int(j[index])) if n[index] >= 2.0 else NAN
        return rho

    def _exact(self, i: int, j: int) -> float:
        """The correlation from the returns themselves, in two passes."""
        here = self._within(self._newest)
        there, returns = self._powers[:, 0], self._powers[:, 1]
        common = (there[:, i] > 0.0) & (there[:, j] > 0.0) & here
        x, y = returns[common, i], returns[common, j]
        if np.ptp(x) <= CONSTANT_WITHIN or np.ptp(y) <= CONSTANT_WITHIN:
            return NAN
        x, y = x - x.mean(), y - y.mean()
        return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))

    # -- keeping the sums -------------------------------------------------------------------------------------------------

    def _advance(self, hour: int) -> None:
        """Make `hour` the newest. Its slot, and those of hours nobody was heard of in, are empty until returns come."""
        for entering in range(max(self._newest + 1, hour - self._slots + 1), hour + 1):
            self._powers[entering % self._slots] = 0.0
        self._newest = hour

    def _within(self, until: int) -> NDArray[np.bool_]:
        """Which slots hold an hour of the window, and not one after `until` either."""
        here = np.zeros(self._slots, dtype=np.bool_)
        here[np.arange(self._newest - self._window + 1, until + 1) % self._slots] = True
        return here

    def _up_to_date(self, row: int, hours: int) -> bool:
        """Whether a row is at most so many hours, and few late returns, behind."""
        summed, until = self._summed[row], self._newest - 1
        return (summed != NEVER and until - summed <= hours and len(self._late) - self._heard[row] <= FEW
                and until - self._renewed[row] < self._window)

    def _bring_up(self, row: int) -> None:
        """Let the sums of a row take in every hour before the newest."""
        until, summed = self._newest - 1, self._summed[row]
        sums = self._sums[row]
        if not self._up_to_date(row, SLACK):
            sums[:] = self._from_scratch(row, slice(None), until)
            self._renewed[row] = until
        else:
            if summed < until:
                entering = range(summed + 1, until + 1)
                slots = [hour % self._slots for hour in (*entering, *(hour - self._window + 1 for hour in entering))]
                powers = self._powers.take(slots, axis=0)
                own = powers[:, :, row].T.copy()
                own[:, len(entering):] *= -1.0  # these leave
                products = own @ powers.reshape(len(slots), -1)
                sums += products.reshape(9, -1).take(_NEEDED, axis=0)
            if self._heard[row] < len(self._late):
                others = np.array(self._late[self._heard[row]:])
                sums[:, others] = self._from_scratch(row, others, until)
        self._summed[row], self._heard[row] = until, len(self._late)

    def _from_scratch(self, row: int, others: slice | Index, until: int) -> Floats:
        """The six sums of a row with some others from their returns in the hours of the window up to `until`."""
        own = self._powers[:, :, row] * self._within(until)[:, None]
        powers = self._powers[:, :, others]
        products = (own.T @ powers.reshape(self._slots, -1)).reshape(3, 3, -1)
        found: Floats = products[LEFT, RIGHT]
        return found

    def _renew_all(self) -> None:
        """The same for every row with every other, up to the hour before the newest."""
        size, until = len(self._rows), self._newest - 1
        powers = self._powers[:, :, :size] * self._within(until)[:, None, None]
        for which, (left, right) in enumerate(zip(LEFT, RIGHT, strict=True)):
            self._sums[:size, which, :size] = powers[:, left].T @ powers[:, right]
        self._late.clear()
        self._summed, self._heard = [until] * size, [0] * size
        # Next time they are renewed in turn, so that no hour has to do it for all of them.
        self._renewed = [until - row % self._window for row in range(size)]

    def _add(self, symbol: str, hour: int) -> int:
        row = len(self._rows)
        if row == 0:
            self._newest = hour
        if row == self._powers.shape[2]:
            powers, sums = self._powers, self._sums
            self._allocate(2 * row)
            self._powers[:, :, :row], self._sums[:row, :, :row] = powers, sums
        self._rows[symbol] = row
        self._summed.append(NEVER)
        self._renewed.append(hour)
        self._heard.append(0)
        self._last_hour.append(hour)
        self._last_close.append(NAN)
        self._base_close.append(NAN)
        return row

    def _allocate(self, capacity: int) -> None:
        self._powers = np.zeros((self._slots, 3, capacity))
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
