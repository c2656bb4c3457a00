"""How orders were executed against the price at their decision: catastrophic fills and orders in doubt, counted for the kill switch."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from modules.domain.events import Filled, OrderInDoubt
from modules.domain.instrument import AssetClass
from modules.domain.ledger import slippage_bp
from modules.domain.money import ZERO
from modules.domain.order import Order
from modules.domain.policies import KillSwitchPolicy

_ENDED: Final = 300
"""Ended orders that late fills may still belong to. Bounds memory, decides nothing."""


@dataclass(slots=True)
class _Execution:
    """An order's fills so far, for its quantity-weighted price."""

    order: Order
    quantity: Decimal = ZERO
    value: Decimal = ZERO


class Executions:
    """State from facts alone. Times are UTC ms."""

    __slots__ = ("_ended", "_executions", "_floor", "_multiple", "_window_ms", "in_doubt", "slipped")

    def __init__(self, policy: KillSwitchPolicy) -> None:
        self._floor = {asset_class: Decimal(str(floor)) for asset_class, floor in policy.slippage_floor_bp.items()}
        self._multiple = policy.slippage_model_multiple
        self._window_ms = int(policy.slippage_window_s * 1000)
        self._executions: dict[str, _Execution] = {}
        self._ended: dict[str, None] = {}
        self.slipped: dict[AssetClass, dict[str, int]] = {asset_class: {} for asset_class in AssetClass}
        """Client order id of each catastrophic execution -> when it was learned."""
        self.in_doubt: dict[str, str] = {}
        """Client order id -> venue ("" if the order is not known)."""

    def intended(self, order: Order) -> None:
        self._executions[order.client_order_id] = _Execution(order)

    def doubted(self, fact: OrderInDoubt) -> None:
        if fact.client_order_id in self._ended:
            return  # a stream told its last fill before the answer to it was lost: there is nothing left to find out
        execution = self._executions.get(fact.client_order_id)
        self.in_doubt[fact.client_order_id] = execution.order.venue if execution is not None else ""

    def found(self, client_order_id: str) -> None:
        self.in_doubt.pop(client_order_id, None)

    def ended(self, client_order_id: str) -> None:
        self.in_doubt.pop(client_order_id, None)
        self._ended[client_order_id] = None
        if len(self._ended) > _ENDED:
            oldest = next(iter(self._ended))
            del self._ended[oldest]
            self._executions.pop(oldest, None)

    def asset_class(self, client_order_id: str) -> AssetClass | None:
        execution = self._executions.get(client_order_id)
        return execution.order.asset_class if execution is not None else None

    def filled(self, fact: Filled) -> None:
        """One order is one event, by the quantity-weighted price of its fills so far: a better rest may undo a bad beginning."""
        fill = fact.fill
        execution = self._executions.get(fill.client_order_id)
        if execution is None:
            return
        self.found(fill.client_order_id)
        execution.quantity += fill.quantity
        execution.value += fill.quantity * fill.price
        if fact.order_done:
            self.ended(fill.client_order_id)
        order = execution.order
        if order.arrival_price <= ZERO or not execution.quantity:
            return
        slipped = slippage_bp(order.side, execution.value / execution.quantity, order.arrival_price)
        events = self.slipped[order.asset_class]
        if slipped > max(self._multiple * order.slippage_model_bp, self._floor[order.asset_class]):
            events.setdefault(order.client_order_id, fact.at)
            for old in [key for key, seen in events.items() if fact.at - seen >= self._window_ms]:
                del events[old]
        else:
            events.pop(order.client_order_id, None)

    def catastrophes(self, asset_class: AssetClass, at: int) -> int:
        """Catastrophic executions within the rolling window."""
        return sum(1 for seen in self.slipped[asset_class].values() if at - seen < self._window_ms)

    def forgive(self, asset_class: AssetClass) -> None:
        """The halt they led to was cleared: counting starts again."""
        self.slipped[asset_class].clear()
