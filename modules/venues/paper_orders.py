"""An order in the paper venue's hands: how far it got, and what its kind and age allow it to do in a bar."""

from __future__ import annotations

from typing import Final

from modules.domain.market import NAN, Bar
from modules.domain.money import ZERO, Decimal
from modules.domain.order import Order, OrderKind, OrderReport, OrderState
from modules.venues.paper_rules import reduces

FRESH_SHARE: Final = 10
"""A limit placed after the first tenth of a bar may not claim a touch from before it: it fills only if the bar closes beyond it."""


class Working:
    """`side` is +1 / -1, `price` the limit or trigger (NaN for market orders). `triggered`: a stop that is a market order by now."""

    __slots__ = ("eligible_at", "filled", "order", "price", "reduces", "side", "state", "submitted_at", "tried_at", "triggered", "venue_id")

    def __init__(self, order: Order, venue_id: str, submitted_at: int, eligible_at: int) -> None:
        self.order = order
        self.venue_id = venue_id
        self.submitted_at = submitted_at
        self.eligible_at = eligible_at
        self.side = order.side.sign
        self.price = float(order.price) if order.price is not None else NAN
        self.reduces = reduces(order)
        self.filled = ZERO
        self.state = OrderState.ACCEPTED
        self.triggered = False
        self.tried_at = -1
        """Step at which it last looked for an opening."""

    @property
    def remaining(self) -> Decimal:
        return self.order.quantity - self.filled

    @property
    def rests(self) -> bool:
        """Waits for a price, not for an opening."""
        return self.order.kind is not OrderKind.MARKET and not self.triggered

    @property
    def works(self) -> bool:
        return self.state is OrderState.ACCEPTED

    def lapsed(self, at: int) -> bool:
        return self.order.expires_at is not None and self.order.expires_at < at

    def late_in(self, bar: Bar, interval: int) -> bool:
        return self.eligible_at > bar.ts + interval // FRESH_SHARE

    def report(self) -> OrderReport:
        return OrderReport(self.order.client_order_id, self.venue_id, self.order.symbol, self.state, self.filled, self.order.quantity)
