"""The comparisons every gate is made of. Owns nothing; an absent, NaN or infinite input never passes.

Yes-or-no inputs and counts take few values, so their Checks, which are immutable, are made once and handed out again: a third of the
time of all gates together.
"""

from __future__ import annotations

import math
from decimal import Decimal
from functools import lru_cache

from modules.domain.decision import Check, Number, Rule

_isfinite = math.isfinite


def at_most(rule: Rule, measured: Number, limit: Number, unit: str, note: str = "") -> Check:
    """Passes when `measured` <= `limit`: at the limit is inside."""
    if measured is None or limit is None or not _isfinite(measured):
        return Check(rule, None, limit, unit, False, note or "unknown")
    return Check(rule, measured, limit, unit, _ordered(measured, limit), note)


def at_least(rule: Rule, measured: Number, limit: Number, unit: str, note: str = "") -> Check:
    """Passes when `measured` >= `limit`: at the limit is inside."""
    if measured is None or limit is None or not _isfinite(measured):
        return Check(rule, None, limit, unit, False, note or "unknown")
    return Check(rule, measured, limit, unit, _ordered(limit, measured), note)


@lru_cache(maxsize=4096)
def holds(rule: Rule, value: bool, wanted: bool, unit: str, note: str = "") -> Check:
    """A yes-or-no input as the numbers 1 and 0."""
    return Check(rule, int(value), int(wanted), unit, value is wanted, note)


@lru_cache(maxsize=4096)
def count_at_most(rule: Rule, measured: int, limit: int, unit: str, note: str = "") -> Check:
    """`at_most` for whole numbers."""
    return Check(rule, measured, limit, unit, measured <= limit, note)


@lru_cache(maxsize=256)
def passes(rule: Rule, measured: float, limit: float | Decimal, unit: str, note: str = "") -> Check:
    """A rule that has nothing to say about this signal: measured is its neutral value."""
    return Check(rule, measured, limit, unit, True, note)


def _ordered(smaller: Decimal | float, larger: Decimal | float) -> bool:
    """Two Decimals compare exactly. A float and a Decimal compare as floats: the float 0.0005 is a hair above the Decimal 0.0005, and
    would fail a limit it exactly meets."""
    if isinstance(smaller, Decimal) and isinstance(larger, Decimal):
        return smaller <= larger
    return float(smaller) <= float(larger)
