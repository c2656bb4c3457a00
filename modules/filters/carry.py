"""What holding this side costs: perp funding and FX financing, against a ceiling and against the reward the trade is taken for.

Positive funding is paid by longs to shorts. Who is paid always passes; an unknown rate never does.
"""

from __future__ import annotations

import math
from typing import Final

from modules.domain.decision import Check, Rule
from modules.domain.instrument import AssetClass
from modules.domain.policies import RiskPolicy
from modules.domain.signal import Signal
from modules.domain.view import View
from modules.filters.compare import at_most, passes

DAYS_PER_YEAR: Final = 365.0
"""FX financing is quoted per calendar year and charged per night."""


def funding(signal: Signal, view: View, policy: RiskPolicy) -> Check | None:
    """The rate this side pays per 8 h; negative = it is paid."""
    if not _funded(signal, view):
        return None
    rate = view.funding_rate_8h
    return at_most(Rule.FUNDING_ABOVE_MAXIMUM, None if rate is None else signal.side.sign * rate, policy.funding_rate_8h_max, "per 8 h")


def funding_share(signal: Signal, view: View, policy: RiskPolicy) -> Check | None:
    """Rate x settlements the trade will probably cross, as a share of its expected reward."""
    if not _funded(signal, view):
        return None
    rate = view.funding_rate
    return _share(None if rate is None else signal.side.sign * rate * view.funding_settlements, view, policy)


def financing(signal: Signal, view: View, policy: RiskPolicy) -> Check | None:
    """What this side pays per year; negative = it earns."""
    if signal.asset_class is not AssetClass.FOREX:
        return None
    earned = view.financing_annual
    return at_most(Rule.CARRY_ABOVE_MAXIMUM, None if earned is None else -earned, policy.carry_annual_max, "per year")


def financing_share(signal: Signal, view: View, policy: RiskPolicy) -> Check | None:
    """The nights' financing as a share of the expected reward."""
    if signal.asset_class is not AssetClass.FOREX:
        return None
    earned = view.financing_annual
    return _share(None if earned is None else -earned / DAYS_PER_YEAR * view.financing_nights, view, policy)


def _funded(signal: Signal, view: View) -> bool:
    """A dated future settles at expiry and has no funding."""
    return signal.asset_class is AssetClass.PERP and view.instrument.expiry is None


def _share(cost: float | None, view: View, policy: RiskPolicy) -> Check:
    """`cost` is a fraction of the entry price, as the reward is. Nothing to pay needs no reward to be measured against."""
    limit, unit = policy.carry_reward_share_max, "of expected reward"
    if cost is None or not math.isfinite(cost):
        return Check(Rule.CARRY_SHARE_ABOVE_MAXIMUM, None, limit, unit, False, "unknown rate")
    if cost <= 0.0:
        return passes(Rule.CARRY_SHARE_ABOVE_MAXIMUM, 0.0, limit, unit, "pays nothing" if cost == 0.0 else "is paid")
    if view.reward is None or not view.reward > 0.0:
        return Check(Rule.CARRY_SHARE_ABOVE_MAXIMUM, None, limit, unit, False, "unknown reward")
    return at_most(Rule.CARRY_SHARE_ABOVE_MAXIMUM, cost / view.reward, limit, unit)
