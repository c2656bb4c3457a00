"""What live trading shows of the strategies that hold a certificate: every order, fill and closed trade of theirs goes to their monitor.

Owns the monitors and the orders under way; decides nothing: whoever asks reads the alarms. Pure, fed with facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from modules.backtest import demotion
from modules.domain.certificate import Envelope
from modules.domain.events import Filled, OrderIntended, PositionClosed
from modules.domain.instrument import AssetClass
from modules.domain.money import ZERO
from modules.domain.order import Order, OrderKind, Purpose
from modules.domain.policies import DemotionPolicy

Key = tuple[str, AssetClass]


class LiveWatch:
    """One monitor per (strategy, class) that was ever granted anything."""

    def __init__(self) -> None:
        self._monitors: dict[Key, demotion.Monitor] = {}
        self._orders: dict[str, tuple[Key, Order, Decimal]] = {}
        """Orders that work, and what was filled of them."""

    def __bool__(self) -> bool:
        return bool(self._monitors)

    def __getitem__(self, key: Key) -> demotion.Monitor:
        return self._monitors[key]

    def get(self, key: Key) -> demotion.Monitor | None:
        return self._monitors.get(key)

    def begin(self, key: Key, envelope: Envelope, policy: DemotionPolicy) -> None:
        """A new certificate's envelope: what was seen before counts no more."""
        self._monitors[key] = demotion.Monitor(envelope, policy)

    def alarms(self) -> Iterator[tuple[Key, demotion.Alarm]]:
        """Who has had enough of whom."""
        for key, monitor in self._monitors.items():
            if monitor.alarm is not None:
                yield key, monitor.alarm

    # -- facts ----------------------------------------------------------------------------------------------------------------

    def intended(self, fact: OrderIntended) -> None:
        key = (fact.order.strategy, fact.order.asset_class)
        if key in self._monitors:
            self._orders[fact.order.client_order_id] = (key, fact.order, ZERO)

    def filled(self, fact: Filled) -> None:
        known = self._orders.get(fact.fill.client_order_id)
        if known is None:
            return
        key, order, before = known
        self._orders[order.client_order_id] = (key, order, before + fact.fill.quantity)
        if order.kind in (OrderKind.MARKET, OrderKind.STOP) and order.arrival_price > 0:
            adverse = (fact.fill.price - order.arrival_price) / order.arrival_price * order.side.sign * 10_000
            self._monitors[key].fill(float(adverse), float(order.slippage_model_bp))
        if fact.order_done:
            self.over(order.client_order_id)

    def over(self, client_order_id: str) -> None:
        """An order's end: how much of an entry was filled counts."""
        known = self._orders.pop(client_order_id, None)
        if known is not None and known[1].purpose is Purpose.ENTRY:
            self._monitors[known[0]].entry(float(known[1].quantity), float(known[2]))

    def closed(self, fact: PositionClosed) -> None:
        monitor = self._monitors.get((fact.trade.strategy, fact.trade.asset_class))
        net_r = fact.trade.net_r
        if monitor is not None and net_r is not None:
            monitor.trade(float(net_r))
