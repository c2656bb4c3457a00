"""How far our orders and trades have come, as the journal tells it: what Trade_Executor decides on. Writes nothing, refuses nothing.

A projection: replay gives the same state. Ended orders and trades are remembered for a while, because a venue may still report a fill of
one; a fill's key is remembered until newer ones push it out, and then the journal itself is asked about fills that old.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from modules.domain.events import (
    ExitRequested,
    Fact,
    Filled,
    ForeignFill,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderInDoubt,
    OrderIntended,
    OrderRejected,
    OrderSent,
    PositionClosed,
    TradeAbandoned,
    TradeOpened,
)
from modules.domain.money import ZERO
from modules.domain.order import TRANSITIONS, WORKING, ExitReason, Fill, Order, OrderState, Purpose
from modules.domain.position import Position

ENDED_KEPT: Final = 300
"""Ended orders and trades remembered for late fills: bounds memory, decides nothing."""
FILLS_KEPT: Final = 20_000
"""Keys of fills in memory, about 5 MB; of older ones the journal is asked."""


class Record:
    """One order and how far it has come."""

    __slots__ = ("accepted_at", "cancel_acknowledged_at", "cancel_sent", "filled", "order", "state", "told", "venue_order_id")

    def __init__(self, order: Order) -> None:
        self.order = order
        self.state = OrderState.INTENT
        self.filled = ZERO
        self.told = ZERO
        """How much of it has traded as far as the venue has said so: more than `filled` where executions are still to be told."""
        self.venue_order_id = ""
        self.accepted_at = 0
        """Since when the venue has it, UTC ms."""
        self.cancel_sent = False
        self.cancel_acknowledged_at = 0
        """UTC ms at which the venue said it would cancel this; 0 = it has not."""

    @property
    def working(self) -> bool:
        return self.state in WORKING


class Trade:
    """One round trip under way: its orders and what is wanted of it."""

    __slots__ = ("exit_after", "exit_reason", "exit_tries", "filled", "late", "opened", "records", "stop", "stop_reason", "venue")

    def __init__(self, opened: TradeOpened) -> None:
        self.opened = opened
        self.records: list[Record] = []
        self.exit_reason: ExitReason | None = None
        self.exit_tries: dict[str, int] = {}
        self.exit_after: dict[str, int] = {}
        """Symbol -> exit orders that ended without closing it, and when (UTC ms) the next one may go."""
        self.filled = False
        self.venue = ""
        self.stop: Decimal | None = None
        """Where the protective stop is or should be; None until one was wanted."""
        self.stop_reason = ExitReason.STOP_LOSS
        self.late = False
        """It had ended when a late fill brought it back: nobody watches it, so it is only ever closed."""

    def working(self, *purposes: Purpose, symbol: str | None = None) -> list[Record]:
        return [r for r in self.records if r.working and r.order.purpose in purposes and (symbol is None or r.order.symbol == symbol)]

    def refused(self, target: Decimal, quantity: Decimal) -> bool:
        """Whether the venue has rejected this very target order: sending it again at every tick would only flood venue and journal."""
        return any(r.state is OrderState.REJECTED and r.order.purpose is Purpose.TARGET and r.order.price == target
                   and r.order.quantity == quantity for r in self.records)

    def covered(self, quantity: Decimal) -> bool:
        """Whether a stop that the venue has confirmed rests under `quantity` (unsigned)."""
        resting = (r.order.quantity - r.filled for r in self.records
                   if r.state is OrderState.ACCEPTED and r.order.purpose is Purpose.STOP and not r.cancel_sent)
        return sum(resting, ZERO) >= quantity

    def attempts(self, purpose: Purpose, symbol: str) -> int:
        return sum(1 for r in self.records if r.order.purpose is purpose and r.order.symbol == symbol)


class Lifecycle:
    """All orders that have not ended, those of open trades, and the trades. `positions` are the books' (live). `booked_at` finds the fills
    in the journal that happened at a time, UTC ms. Mappings are live: read, don't keep."""

    def __init__(
        self, positions: Mapping[str, Position], booked_at: Callable[[int], list[Fill]], fills_kept: int = FILLS_KEPT,
    ) -> None:
        self._positions = positions
        self._booked_at = booked_at
        self._fills_kept = fills_kept
        self.orders: dict[str, Record] = {}
        """Every order that has not ended, and those of open trades."""
        self.trades: dict[str, Trade] = {}
        self.doubts: dict[str, Record] = {}
        self.expiring: dict[str, Record] = {}
        """Those with a timeout."""
        self.attention: set[str] = set()
        """Trades that want something done at the next tick: an exit to place again, a stop to put back."""
        self._ended: dict[str, Record] = {}
        self._ended_trades: dict[str, TradeOpened] = {}
        self._seen: dict[tuple[str, str, str], int] = {}
        """Key of a fill -> when it happened, in the order in which they were booked."""
        self._forgotten_until = -1
        """No fill later than this has been pushed out of `_seen`, UTC ms."""
        self._apply: dict[type, Callable[[Any], None]] = {
            TradeOpened: self._apply_trade, OrderIntended: self._apply_intended, OrderSent: self._apply_sent,
            OrderAccepted: self._apply_accepted, OrderRejected: self._apply_ended, OrderCanceled: self._apply_ended,
            OrderExpired: self._apply_ended, OrderInDoubt: self._apply_doubt, Filled: self._apply_fill,
            ForeignFill: self._apply_foreign, ExitRequested: self._apply_exit, PositionClosed: self._apply_closed,
            TradeAbandoned: self._apply_abandoned,
        }

    def booked(self, fill: Fill) -> bool:
        """Whether this very execution is in the journal already."""
        if _key(fill) in self._seen:
            return True
        return fill.at <= self._forgotten_until and any(_key(known) == _key(fill) for known in self._booked_at(fill.at))

    def _remember(self, fill: Fill) -> None:
        self._seen[_key(fill)] = fill.at
        if len(self._seen) > self._fills_kept:
            oldest = next(iter(self._seen))
            self._forgotten_until = max(self._forgotten_until, self._seen.pop(oldest))

    def apply(self, fact: Fact) -> None:
        method = self._apply.get(type(fact))
        if method is not None:
            method(fact)

    def _apply_trade(self, fact: TradeOpened) -> None:
        self.trades[fact.trade_id] = Trade(fact)

    def _apply_intended(self, fact: OrderIntended) -> None:
        order = fact.order
        record = self.orders[order.client_order_id] = Record(order)
        trade = self.trades.get(order.trade_id)
        if trade is not None:
            trade.records.append(record)
            trade.venue = order.venue
            if order.purpose is Purpose.STOP:
                trade.stop, trade.stop_reason = order.price, order.exit_reason or ExitReason.STOP_LOSS
        if order.expires_at is not None:
            self.expiring[order.client_order_id] = record

    def _move(self, client_order_id: str, state: OrderState) -> Record | None:
        """Follow the state table; a move it does not allow is old news and changes nothing."""
        record = self.record(client_order_id)
        if record is None or state not in TRANSITIONS[record.state]:
            return None
        record.state = state
        if state is not OrderState.IN_DOUBT:
            self.doubts.pop(client_order_id, None)
        if not record.working:
            self.expiring.pop(client_order_id, None)
            if record.order.trade_id not in self.trades:
                self._retire(record)
        elif client_order_id in self._ended:  # late evidence: it works after all
            self.orders[client_order_id] = self._ended.pop(client_order_id)
        return record

    def _apply_sent(self, fact: OrderSent) -> None:
        self._move(fact.client_order_id, OrderState.SENT)

    def _apply_accepted(self, fact: OrderAccepted) -> None:
        record = self._move(fact.client_order_id, OrderState.ACCEPTED)
        if record is not None:
            record.venue_order_id, record.accepted_at = fact.venue_order_id, fact.at

    def _apply_ended(self, fact: OrderRejected | OrderCanceled | OrderExpired) -> None:
        state = {OrderRejected: OrderState.REJECTED, OrderCanceled: OrderState.CANCELED, OrderExpired: OrderState.EXPIRED}[type(fact)]
        self._move(fact.client_order_id, state)

    def _apply_doubt(self, fact: OrderInDoubt) -> None:
        record = self._move(fact.client_order_id, OrderState.IN_DOUBT)
        if record is not None:
            self.doubts[fact.client_order_id] = record

    def _apply_fill(self, fact: Filled) -> None:
        fill = fact.fill
        self._remember(fill)
        record = self.record(fill.client_order_id)
        if record is None:
            return
        record.filled += fill.quantity
        if fact.order_done:
            self._move(fill.client_order_id, OrderState.FILLED)
        elif record.state in (OrderState.SENT, OrderState.IN_DOUBT):
            self._move(fill.client_order_id, OrderState.ACCEPTED)
        trade = self.trade_of(record, fill.symbol) or self._revive(record, fill.symbol)
        if trade is not None:
            trade.filled = True

    def trade_of(self, record: Record, symbol: str) -> Trade | None:
        """The open trade an order belongs to. A late fill may have begun another one under the books' own name for it."""
        trade = self.trades.get(record.order.trade_id)
        if trade is None and (position := self._positions.get(symbol)) is not None:
            trade = self.trades.get(position.trade_id)
        return trade

    def _revive(self, record: Record, symbol: str) -> Trade | None:
        """A fill came after its trade had ended (a cancel crossed it): what it left in the books is a trade again, to be closed at once."""
        position, opened = self._positions.get(symbol), self._ended_trades.get(record.order.trade_id)
        if position is None or opened is None or position.trade_id in self.trades:
            return None
        trade = self.trades[position.trade_id] = Trade(replace(opened, trade_id=position.trade_id))
        trade.venue, trade.late = record.order.venue, True
        trade.records.append(record)
        if not record.working:
            self.orders[record.order.client_order_id] = record  # an open trade's orders are all there
            self._ended.pop(record.order.client_order_id, None)
        return trade

    def _apply_foreign(self, fact: ForeignFill) -> None:
        self._remember(fact.fill)

    def _apply_exit(self, fact: ExitRequested) -> None:
        trade = self.trades.get(fact.trade_id)
        if trade is not None:
            trade.exit_reason = fact.reason
            self.attention.add(fact.trade_id)

    def _apply_closed(self, fact: PositionClosed) -> None:
        self._forget(fact.trade.trade_id)

    def _apply_abandoned(self, fact: TradeAbandoned) -> None:
        self._forget(fact.trade_id)

    def _forget(self, trade_id: str) -> None:
        trade = self.trades.pop(trade_id, None)
        self.attention.discard(trade_id)
        if trade is not None:
            self._ended_trades[trade_id] = trade.opened
            if len(self._ended_trades) > ENDED_KEPT:
                del self._ended_trades[next(iter(self._ended_trades))]
            for record in trade.records:
                if not record.working:
                    self._retire(record)

    def _retire(self, record: Record) -> None:
        """An ended order of an ended trade: kept for a while, because a venue may still report a fill of it."""
        if self.orders.pop(record.order.client_order_id, None) is not None:
            self._ended[record.order.client_order_id] = record
            if len(self._ended) > ENDED_KEPT:
                del self._ended[next(iter(self._ended))]

    def record(self, client_order_id: str) -> Record | None:
        return self.orders.get(client_order_id) or self._ended.get(client_order_id)


def _key(fill: Fill) -> tuple[str, str, str]:
    return fill.venue, fill.symbol, fill.venue_trade_id
