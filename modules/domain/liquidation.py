"""Where isolated margin runs out, and the leverage at which a stop still comes first."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from modules.domain.instrument import Instrument, Side
from modules.domain.money import ONE, ZERO

_NEVER: Final = Decimal("Infinity")


def liquidation_distance(instrument: Instrument, side: Side, leverage: Decimal, maintenance: Decimal) -> Decimal:
    """Distance from entry to liquidation as a fraction of entry: not positive = at once, infinite = never (unleveraged inverse short).

    Liquidation is where margin (notional / `leverage`) plus P&L falls to `maintenance` x the notional at that price: for a linear
    long at entry x (1 - 1/L) / (1 - maintenance), for a short at entry x (1 + 1/L) / (1 + maintenance).
    """
    spare = ONE / leverage - maintenance
    if not instrument.inverse:
        return spare / (ONE - side.sign * maintenance)
    denominator = ONE + side.sign / leverage
    return spare / denominator if denominator > ZERO else _NEVER


def leverage_safe(instrument: Instrument, side: Side, stop_distance: Decimal, maintenance: Decimal, distance_min: Decimal) -> Decimal:
    """Highest leverage at which a stop `stop_distance` (fraction of entry) away is still `distance_min` of the way clear of liquidation.

    Solves stop_distance = (1 - distance_min) x liquidation_distance(L) for L.
    """
    needed = stop_distance / (ONE - distance_min)
    if not instrument.inverse:
        return ONE / (maintenance + (ONE - side.sign * maintenance) * needed)
    return max(ZERO, ONE - side.sign * needed) / (maintenance + needed)
