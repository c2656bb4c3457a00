"""Do we see the market and our money as they are now: ages of wallet, quote and bar, a frozen feed, our clock, and whether it is open."""

from __future__ import annotations

from modules.domain.decision import Check, Rule
from modules.domain.instrument import AssetClass
from modules.domain.policies import RiskPolicy
from modules.domain.signal import Signal
from modules.domain.view import View
from modules.filters.compare import at_least, at_most, passes


def wallet(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    return at_most(Rule.WALLET_STALE, view.wallet_age_s, policy.wallet_age_s_max, "s")


def quote(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    """A crossed, zero or missing quote has no age."""
    sane = view.quote is not None and view.quote.sane
    return at_most(Rule.QUOTE_STALE, view.quote_age_s if sane else None, policy.quote_age_s_max, "s", "" if sane else "no sane quote")


def bar(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    """Lateness of the closed bar the signal stands on, counted from its close: a late signal is about another market."""
    return at_most(Rule.BAR_STALE, view.bar_age_s, policy.bar_late_s_max, "s")


def frozen(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    """`frozen_bars_max` bars without a trade *are* frozen, so the limit itself fails."""
    unit = "unchanged bars (fewer pass)"
    if view.frozen_bars < policy.frozen_bars_max:
        return passes(Rule.FEED_FROZEN, view.frozen_bars, policy.frozen_bars_max, unit)
    return Check(Rule.FEED_FROZEN, view.frozen_bars, policy.frozen_bars_max, unit, False)


def clock_skew(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    offset = None if view.clock_offset_s is None else abs(view.clock_offset_s)
    return at_most(Rule.CLOCK_SKEW, offset, policy.clock_offset_s_max, "s")


def session(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    """FX is closed from Friday to Sunday 17:00 New York; for other classes closed means that the venue says so."""
    measured = None if view.session_open is None else int(view.session_open)
    return at_least(Rule.SESSION_CLOSED, measured, 1, "session open")


def rollover(signal: Signal, view: View, policy: RiskPolicy) -> Check | None:
    """Around 17:00 New York, FX spreads widen to many times their normal width."""
    if signal.asset_class is not AssetClass.FOREX:
        return None
    return at_least(Rule.SESSION_CLOSED, view.minutes_to_rollover, policy.rollover_minutes, "minutes from the rollover")
