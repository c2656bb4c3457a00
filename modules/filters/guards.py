"""Limits on ourselves: cooldowns after losses, how many positions and orders, one owner per instrument, nothing on top of a doubt."""

from __future__ import annotations

from modules.domain.decision import Check, Rule
from modules.domain.policies import RiskPolicy
from modules.domain.signal import Signal
from modules.domain.view import View
from modules.filters.compare import at_most, count_at_most, passes


def cooldown_instrument(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    """After `cooldown_losses` losing trades in a row the instrument rests, counted from the last of them. 0 losses = never."""
    active = 0 < policy.cooldown_losses <= view.losses_in_a_row
    return _cooldown(Rule.COOLDOWN_INSTRUMENT, active, view.last_loss_at, policy.cooldown_instrument_s, view,
                     view.losses_in_a_row, "losses in a row")


def cooldown_class(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    """After `cooldown_stop_outs` stop-outs within the window the class rests, counted from the last of them. 0 stop-outs = never."""
    active = 0 < policy.cooldown_stop_outs <= view.stop_outs_4h
    return _cooldown(Rule.COOLDOWN_CLASS, active, view.last_stop_out_at, policy.cooldown_class_s, view, view.stop_outs_4h, "stop-outs")


def open_positions(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    return count_at_most(Rule.OPEN_POSITIONS_ABOVE_MAXIMUM, view.open_positions + 1, policy.max_open_trades, "positions after the trade")


def owner(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    """A strategy owns an instrument until it is flat. Its own reversal may be decided while the close is still under way."""
    foreign = view.owned_by not in ("", signal.strategy)
    return count_at_most(Rule.INSTRUMENT_OWNED, int(foreign), 0, "other owners", view.owned_by)


def doubt(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    return count_at_most(Rule.ORDER_IN_DOUBT, int(view.in_doubt), 0, "orders in doubt")


def orders_per_minute(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    return count_at_most(
        Rule.ORDERS_PER_MINUTE_ABOVE_MAXIMUM, view.orders_last_minute + 1, policy.orders_per_minute_max, "entries in a minute")


def open_orders(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    return count_at_most(Rule.OPEN_ORDERS_ABOVE_MAXIMUM, view.open_orders + 1, policy.open_orders_max, "open orders after the trade")


def _cooldown(rule: Rule, active: bool, since: int | None, rest_s: float, view: View, count: int, of: str) -> Check:
    """Seconds the rest still lasts; over when none is left."""
    if not active:
        return passes(rule, 0.0, 0.0, "s left")
    return at_most(rule, None if since is None else max(0.0, rest_s - (view.at - since) / 1000.0), 0.0, "s left", f"{count} {of}")
