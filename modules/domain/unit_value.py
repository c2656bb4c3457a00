"""Unitized value of one asset class, so that money moved in or out is never profit, loss or drawdown, and its peaks per UTC period.

A deposit buys units and a withdrawal sells them at the present value of one; drawdown is measured on that value (time-weighted return,
as funds reckon it). Periods come from `at` in UTC ms and only ever move forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from modules.domain.money import ONE, ZERO, book

DAY_MS: Final = 86_400_000
DAY: Final = "day"
MONTH: Final = "month"
_EXACT: Final = Decimal("1e-12")
"""Drawdowns are compared to this: what divisions leave behind the 12th digit must not make 5 % more than 5 %."""
_UNIT: Final = Decimal("1e-18")
"""Values of a unit are kept to this: the same worth over the same share must give the same number after a deposit."""


@dataclass(slots=True)
class UnitValue:
    """The first block is what facts say and survives a restart; the second is memory of this run."""

    units: Decimal = ZERO
    known: Decimal | None = None
    """The last value of a unit that any fact stated; None = nothing was ever paid in."""
    day_peak: Decimal = ZERO
    month_peak: Decimal = ZERO
    day_start: int = 0
    month_start: int = 0

    marked: Decimal | None = None
    """Value of a unit at the last mark that was believed."""
    equity: Decimal | None = None
    """The equity it came from, None once units or peaks moved since."""
    floors: tuple[Decimal, Decimal, Decimal, Decimal, Decimal] | None = None
    """(day peak, month peak, day limit, month limit, the lowest value of a unit that is within both limits): see `within`."""
    disbelieved: int = 0
    """Marks in a row that were not believed."""

    @property
    def nav(self) -> Decimal | None:
        return self.marked if self.marked is not None else self.known

    def peak(self, period: str) -> Decimal:
        return self.month_peak if period == MONTH else self.day_peak

    def value_of(self, equity: Decimal, jump: Decimal | None) -> Decimal | None:
        """Value of a unit at `equity`, or None if that is not believable: not positive, or over `jump` times (or under that part of) the
        last one known. `jump` None: a second source agrees, whatever it is."""
        if not equity.is_finite():
            return None
        nav, last = equity / self.units, self.marked if self.marked is not None else self.known
        if jump is not None and (nav <= ZERO or last is None or nav > last * jump or last > nav * jump):
            return None
        return nav.quantize(_UNIT)

    def drawdown(self, period: str, nav: Decimal) -> Decimal:
        """Loss from the period's peak as a fraction of it, to 12 digits; negative above the peak."""
        peak = self.peak(period)
        return ((peak - nav) / peak).quantize(_EXACT) if peak > ZERO else ZERO

    def within(self, nav: Decimal, day: Decimal, month: Decimal) -> bool:
        """Whether `nav` is surely within both drawdown limits. Dividing for the exact drawdowns costs ten times this comparison, and
        rounding is no matter: whatever is at or above peak x (1 - limit) has a drawdown that rounds to the limit at most."""
        floors = self.floors
        if (floors is None or floors[0] is not self.day_peak or floors[1] is not self.month_peak
                or floors[2] is not day or floors[3] is not month):
            lowest = max(self.day_peak * (ONE - day), self.month_peak * (ONE - month))
            floors = self.floors = (self.day_peak, self.month_peak, day, month, lowest)
        return nav >= floors[4]

    def day_peak_money(self) -> Decimal:
        return book(self.day_peak * self.units)

    def buy(self, amount: Decimal, equity_before: Decimal, jump: Decimal, at: int) -> None:
        """`amount` moved in (+) or out (-) when the class was worth `equity_before`. The first units cost 1.

        Without a believable `equity_before` the last value that a fact stated is the price: replay must come to the same units.
        """
        self.equity = None
        if self.known is None:
            if amount > ZERO:
                self.units = amount
                self.known = self.day_peak = self.month_peak = ONE
                self.day_start, self.month_start = day_start(at), month_start(at)
            return
        believable = self.units > ZERO and equity_before > ZERO
        if believable and equity_before <= self.units * self.known * jump and self.units * self.known <= equity_before * jump:
            self.known = (equity_before / self.units).quantize(_UNIT)
            bought = amount * self.units / equity_before
        else:
            bought = amount / self.known
        self.units = max(ZERO, self.units + bought)

    def roll(self, period: str, nav: Decimal, at: int) -> None:
        """A new period, or an operator's re-arm: `nav` is the new peak."""
        self.equity = None
        self.known = nav
        if period == MONTH:
            self.month_peak = nav
            self.month_start = max(self.month_start, month_start(at))
        else:
            self.day_peak = nav
            self.day_start = max(self.day_start, day_start(at))

    def raise_peak(self, nav: Decimal) -> None:
        self.equity = None
        self.known = nav
        self.day_peak = max(self.day_peak, nav)
        self.month_peak = max(self.month_peak, nav)


def day_start(at: int) -> int:
    return at - at % DAY_MS


def month_start(at: int) -> int:
    """First instant of the UTC month of `at`, UTC ms."""
    day = datetime.fromtimestamp(at // 1000, tz=UTC)
    return day_start(at) - (day.day - 1) * DAY_MS
