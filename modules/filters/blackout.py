"""Scheduled releases and the news: closed windows, a calendar that has run out, and a mood against the trade. Gates entries only."""

from __future__ import annotations

from typing import Final

from modules.domain.decision import Check, Rule
from modules.domain.instrument import AssetClass
from modules.domain.policies import RiskPolicy
from modules.domain.signal import Signal
from modules.domain.view import View
from modules.filters.compare import at_least, at_most, holds, passes

MINUTE_MS: Final = 60_000.0


def blackout(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    """Minutes until the open window closes; its very name denies, even if nobody knows how long it lasts."""
    if not view.blackout:
        return passes(Rule.BLACKOUT, 0.0, 0.0, "minutes left")
    left = None if view.blackout_until is None else (view.blackout_until - view.at) / MINUTE_MS
    return Check(Rule.BLACKOUT, left, 0.0, "minutes left", False, view.blackout)


def calendar(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    """A macro calendar that does not reach far enough ahead hides the windows it should close."""
    return holds(Rule.CALENDAR_EXHAUSTED, view.calendar_ok, True, "calendar covers the horizon")


def mood(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    """A rising bet needs mood >= -mood_against, a falling one <= +mood_against. No news is neutral by rule: mood only ever lowers."""
    direction = _direction(signal, view)
    bound = -direction * float(policy.mood_against)
    if view.mood is None:
        return passes(Rule.MOOD_AGAINST, 0.0, bound, "mood", "no news: neutral")
    return at_least(Rule.MOOD_AGAINST, view.mood, bound, "mood") if direction > 0 else at_most(Rule.MOOD_AGAINST, view.mood, bound, "mood")


def mood_factor(signal: Signal, view: View, policy: RiskPolicy) -> float:
    """Size multiplier in [mood_size_at_limit, 1]: 1 at a neutral or better mood, linear down to mood_size_at_limit at the bound."""
    if view.mood is None:
        return 1.0
    against = -_direction(signal, view) * view.mood
    if against <= 0.0:
        return 1.0
    bound, least = float(policy.mood_against), float(policy.mood_size_at_limit)
    if not against < bound:
        return least
    return 1.0 - (1.0 - least) * against / bound


def _direction(signal: Signal, view: View) -> int:
    """Which way of the underlying pays: for options the sign of delta, as a bought put is a falling bet."""
    if signal.asset_class is AssetClass.OPTION and view.option is not None and view.option.delta != 0.0:
        return 1 if view.option.delta > 0.0 else -1
    return signal.side.sign
