"""May this signal open anything at all: the owner's switch, the kill switch, the certificate, pauses, lists, and shorts without a loan."""

from __future__ import annotations

from typing import Final

from modules.domain.decision import Check, Rule
from modules.domain.instrument import AssetClass, Side
from modules.domain.policies import RiskPolicy
from modules.domain.signal import Signal
from modules.domain.view import TradingState, View
from modules.filters.compare import holds

DAY_MS: Final = 86_400_000.0


def switch(signal: Signal, view: View, policy: RiskPolicy) -> Check | None:
    """Real money moves only with the owner's master and class switch on. Paper spends nothing and needs neither."""
    return holds(Rule.SWITCH_OFF, view.switch_on, True, "switch on") if view.live else None


def halted(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    """A latched halt takes exits only."""
    return holds(Rule.TRADING_HALTED, view.trading_state is TradingState.HALTED, False, "halted", view.halted_by)


def reducing(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    """Start-up and stale inputs take exits only, until they pass."""
    return holds(Rule.TRADING_REDUCING, view.trading_state is TradingState.REDUCING, False, "reducing", view.halted_by)


def certificate(signal: Signal, view: View, policy: RiskPolicy) -> Check | None:
    """Real money needs an unexpired certificate; at its expiry it has expired. Paper trading is never gated."""
    if not view.live:
        return None
    if view.certificate_expires is None:
        return Check(Rule.CERTIFICATE_MISSING, None, 0.0, "days left", False, view.certificate_note or "no certificate")
    left = (view.certificate_expires - view.at) / DAY_MS
    return Check(Rule.CERTIFICATE_MISSING, left, 0.0, "days left", left > 0.0, "" if left > 0.0 else "expired")


def paused(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    return holds(Rule.PAUSED_BY_OPERATOR, view.paused, False, "paused")


def blacklisted(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    return holds(Rule.BLACKLISTED, view.blacklisted, False, "blacklisted")


def short_possible(signal: Signal, view: View, policy: RiskPolicy) -> Check | None:
    """Spot cannot be sold short: a sale closes what we hold, and that is an exit."""
    if signal.asset_class is not AssetClass.SPOT:
        return None
    return holds(Rule.SHORT_NOT_POSSIBLE, signal.side is Side.SELL, False, "short")
