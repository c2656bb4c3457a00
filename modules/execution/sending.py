"""What an order looks like and how long it may be tried. Decides; sends nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.money import ONE, ZERO
from modules.domain.order import ExitReason, NotSent, Order, OrderKind, Purpose, derive_id
from modules.domain.policies import CostPolicy, ExecutionPolicy
from modules.execution.lifecycle import Trade

URGENCY: Final = Decimal("0.5")
URGENCY_MAX: Final = Decimal(4)
"""An uncovered short option: by how much of its price each further try goes further, and how far at most (times that price)."""


def modelled_slippage_bp(costs: CostPolicy, instrument: Instrument, kind: OrderKind) -> Decimal:
    """What the cost model expects of an order of negligible size, basis points against arrival."""
    model = costs.of(instrument.asset_class)
    if kind is OrderKind.TARGET:
        return ZERO
    beyond = model.stop_slippage_bp if kind is OrderKind.STOP else model.half_spread_bp
    return Decimal(repr(round(model.slippage_bp + beyond, 6)))


def follow_up(
    trade: Trade, instrument: Instrument, purpose: Purpose, kind: OrderKind, quantity: Decimal, price: Decimal | None,
    reason: ExitReason | None, at: int, *, arrival: Decimal, policy: ExecutionPolicy, costs: CostPolicy, bare: bool,
) -> Order:
    """The next order of a trade under way; `quantity` signed. `arrival`: the price now, for an order that names none. `bare`: nothing
    protects it; an option that is sold uncovered is bought back at any price that one more try offers."""
    side = Side.BUY if quantity > ZERO else Side.SELL
    if bare and instrument.asset_class is AssetClass.OPTION and side is Side.BUY and purpose is Purpose.EXIT:
        arrival *= min(ONE + URGENCY * trade.attempts(purpose, instrument.symbol), URGENCY_MAX)
    timeout = policy.unfilledtimeout_entry_s if purpose is Purpose.ENTRY else policy.unfilledtimeout_exit_s
    opened, symbol = trade.opened, instrument.symbol
    return Order(
        client_order_id=derive_id(opened.trade_id, symbol, opened.at, side, purpose, trade.attempts(purpose, symbol)),
        trade_id=opened.trade_id, decision_id=opened.decision_id, strategy=opened.strategy, venue=trade.venue, symbol=symbol,
        asset_class=instrument.asset_class, side=side, quantity=abs(quantity), kind=kind, purpose=purpose, price=price,
        reduce_only=purpose is not Purpose.ENTRY, leverage=trade.records[0].order.leverage,
        arrival_price=price if price is not None else arrival, slippage_model_bp=modelled_slippage_bp(costs, instrument, kind),
        reserves=ZERO, at=at, expires_at=at + int(timeout * 1000) if kind is OrderKind.MARKET else None, exit_reason=reason)


def patience_s(purpose: Purpose, policy: ExecutionPolicy) -> float:
    """How long an answer is waited for: no longer than a position may be bare, where it is about protecting one."""
    return policy.submit_timeout_s if purpose is Purpose.ENTRY else min(policy.submit_timeout_s, policy.flatten_after_s)


def again_at(order: Order, fate: NotSent, now: int, policy: ExecutionPolicy, speed: float) -> int | None:
    """When an order that provably did not arrive may be sent again with the same id; None = not again. Never before a ban ends; an entry
    only while its decision is fresh, a stop until its position is closed instead, an exit while it still protects."""
    fresh_s = {Purpose.ENTRY: policy.resend_within_s, Purpose.EXIT: policy.protect_within_s}.get(order.purpose, policy.flatten_after_s)
    again = max(now + int(policy.resend_every_s * 1000), fate.until or 0)
    return again if again <= order.at + int(fresh_s * 1000 * speed) else None
