"""Every rule a signal must pass before it is sized: one pure function each, all of them always evaluated.

A gate takes (signal, view, policy) and gives a Check with its measured value, limit and unit, or None where its rule has no meaning for
the class (funding for spot) or the mode (certificates on paper). Libraries and authorities may call `gates`; nobody may skip one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from modules.domain.decision import Check
from modules.domain.policies import RiskPolicy
from modules.domain.signal import Signal
from modules.domain.view import View
from modules.filters import blackout, carry, correlation, freshness, guards, liquidity, option_book, permission

Gate = Callable[[Signal, View, RiskPolicy], Check | None]

PIPELINE: Final[tuple[Gate, ...]] = (
    # permission: may we trade at all
    permission.switch, permission.halted, permission.reducing, permission.certificate, permission.paused, permission.blacklisted,
    permission.short_possible,
    # inputs: do we see what is there
    freshness.wallet, freshness.quote, freshness.bar, freshness.frozen, freshness.clock_skew,
    # market: is it open, deep, and not the same bet again
    freshness.session, freshness.rollover, liquidity.spread, liquidity.volume, correlation.correlation,
    carry.funding, carry.funding_share, carry.financing, carry.financing_share,
    # events and news
    blackout.blackout, blackout.calendar, blackout.mood,
    # ourselves
    guards.cooldown_instrument, guards.cooldown_class, guards.open_positions, guards.owner, guards.doubt, guards.orders_per_minute,
    guards.open_orders,
    # option book, as far as it can be known before the size
    option_book.contract, option_book.expiry, liquidity.option_spread, liquidity.open_interest,
)
"""The order in which a denial is named: a decision's `stopped_by` is the first failed one."""


def gates(signal: Signal, view: View, policy: RiskPolicy) -> tuple[Check, ...]:
    """All checks that apply, in pipeline order, passed ones too: "why did it not trade?" always has an answer with numbers."""
    return tuple([check for gate in PIPELINE if (check := gate(signal, view, policy)) is not None])
