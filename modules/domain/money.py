"""Money is Decimal from wire to journal. Floats never enter here except through the two named doors below."""

from __future__ import annotations

import math
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_UP, Context, Decimal, InvalidOperation, localcontext, setcontext
from typing import Final

ZERO: Final = Decimal(0)
ONE: Final = Decimal(1)
UNIT: Final = Decimal("0.00000001")
"""The smallest amount any ledger books: 1e-8 of the settlement currency."""

_CONTEXT: Final = Context(prec=34, rounding=ROUND_HALF_EVEN)


def use_money_context() -> None:
    """Make 34 digits the precision of this thread, so that price x quantity x rate is exact for every real instrument."""
    setcontext(_CONTEXT.copy())


use_money_context()


def money(value: str | int | Decimal) -> Decimal:
    """A finite Decimal from a wire string. Raises ValueError on anything else: NaN, Infinity, float, empty text."""
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        raise ValueError(f"money must be text, int or Decimal, not {type(value).__name__}: {value!r}")
    try:
        result = Decimal(value)
    except InvalidOperation:
        raise ValueError(f"not a number: {value!r}") from None
    if not result.is_finite():
        raise ValueError(f"not a finite amount: {value!r}")
    return result


def from_float(value: float, step: Decimal, *, up: bool = False) -> Decimal:
    """The door from statistics to money: a float rounded to a multiple of `step`, down unless `up`.

    The shortest text that reads back as the float is what is rounded, so 0.1 is one tenth. Raises ValueError on NaN and infinity.
    """
    if not math.isfinite(value):
        raise ValueError(f"not a finite number: {value!r}")
    exact = Decimal(repr(value))
    return round_up(exact, step) if up else round_down(exact, step)


def round_down(value: Decimal, step: Decimal) -> Decimal:
    """The largest multiple of `step` not above `value` in magnitude (toward zero)."""
    return (value / step).to_integral_value(ROUND_DOWN) * step


def round_up(value: Decimal, step: Decimal) -> Decimal:
    """The smallest multiple of `step` not below `value` in magnitude (away from zero)."""
    return (value / step).to_integral_value(ROUND_UP) * step


def book(value: Decimal) -> Decimal:
    """Rounded half-even to the ledger's unit of 1e-8: how every computed amount enters a ledger."""
    return value.quantize(UNIT, ROUND_HALF_EVEN)


def ratio(part: Decimal, whole: Decimal) -> Decimal | None:
    """part / whole, or None when `whole` is not positive: a share of nothing is unknown, not zero."""
    return part / whole if whole > ZERO else None


def text(value: Decimal) -> str:
    """Plain decimal notation, never an exponent: what goes into JSON."""
    return format(value, "f")


__all__ = ["ONE", "UNIT", "ZERO", "Decimal", "book", "from_float", "localcontext", "money", "ratio", "round_down", "round_up", "text",
           "use_money_context"]
