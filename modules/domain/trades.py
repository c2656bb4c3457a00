"""Round trips from entry to exit: their running sums, and which order belongs to which. Knows nothing of cash or positions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from modules.domain.events import TradeOpened
from modules.domain.instrument import Side
from modules.domain.ledger import Holding, average, slippage_bp
from modules.domain.money import ZERO, book
from modules.domain.order import ExitReason, Fill, Order, Purpose
from modules.domain.position import ClosedTrade

_REMEMBERED: Final = 100
"""Ended trades whose orders are still known, so that a late fill finds its trade. Bounds memory, decides nothing."""


@dataclass(frozen=True, slots=True)
class OpenTrade:
    """A round trip that has not ended, for showing and managing. Money in settlement currency, so far.

    `quantity` (signed, still open) and `entry` (average) are the first leg's, `initial_stop` is the stop it was sized with (in the
    watched symbol's prices). `opened_at` is the first fill's, 0 while there is none. `requested` is why its exit was asked for.
    """

    opened: TradeOpened
    legs: tuple[str, ...]
    quantity: Decimal
    entry: Decimal
    gross: Decimal
    fees: Decimal
    funding: Decimal
    initial_stop: float | None
    opened_at: int
    requested: ExitReason | None

    @property
    def trade_id(self) -> str:
        return self.opened.trade_id


@dataclass(slots=True)
class Leg:
    """What one instrument's fills did within a trade: unsigned quantities and quantity x price."""

    entered: Decimal = ZERO
    entered_value: Decimal = ZERO
    exited: Decimal = ZERO
    exited_value: Decimal = ZERO


@dataclass(slots=True)
class OrderRecord:
    """An order and how far it got."""

    order: Order
    filled: Decimal = ZERO
    ended: bool = False


_REASON_OF_PURPOSE: Final = {
    Purpose.STOP: ExitReason.STOP_LOSS,
    Purpose.TARGET: ExitReason.ROI,
}


@dataclass(slots=True)
class TradeBook:
    """The running sums of one round trip, all legs."""

    opened: TradeOpened
    legs: dict[str, Leg] = field(default_factory=dict)
    intended: dict[str, Decimal] = field(default_factory=dict)
    """Symbol -> the largest entry order's quantity: what `opened.risk` was sized for."""
    orders: list[str] = field(default_factory=list)
    entries: set[str] = field(default_factory=set)
    """The working orders that may still open more."""
    gross: Decimal = ZERO
    fees: Decimal = ZERO
    funding: Decimal = ZERO
    slippage_sum: Decimal = ZERO
    slippage_weight: Decimal = ZERO
    opened_at: int = 0
    last_at: int = 0
    requested: ExitReason | None = None
    exit_reason: ExitReason | None = None
    finished: bool = False

    @property
    def trade_id(self) -> str:
        return self.opened.trade_id

    @property
    def net(self) -> Decimal:
        return self.gross - self.fees + self.funding

    def entered(self, symbol: str, quantity: Decimal, price: Decimal, at: int) -> None:
        leg = self.legs.get(symbol)
        if leg is None:
            leg = self.legs[symbol] = Leg()
            self.opened_at = self.opened_at or at
        leg.entered += quantity
        leg.entered_value += quantity * price
        self.last_at = max(self.last_at, at)

    def exited(self, symbol: str, quantity: Decimal, price: Decimal, gross: Decimal, reason: ExitReason, at: int) -> None:
        leg = self.legs[symbol]
        leg.exited += quantity
        leg.exited_value += quantity * price
        self.gross += gross
        self.exit_reason = reason
        self.last_at = max(self.last_at, at)

    def slipped(self, fill: Fill, arrival: Decimal) -> None:
        if arrival > ZERO:
            self.slippage_sum += fill.quantity * slippage_bp(fill.side, fill.price, arrival)
            self.slippage_weight += fill.quantity

    def reason_for(self, order: Order | None, fill: Fill) -> ExitReason:
        """Why this execution closed something: the venue's own doing, the order's own reason, its purpose, or what was asked for."""
        if fill.liquidation:
            return ExitReason.DELISTED if fill.delisted else ExitReason.LIQUIDATION
        if fill.by_owner:
            return ExitReason.FORCE_EXIT
        if order is not None and order.exit_reason is not None:
            return order.exit_reason
        if order is not None and order.purpose in _REASON_OF_PURPOSE:
            return _REASON_OF_PURPOSE[order.purpose]
        return self.requested or ExitReason.EXIT_SIGNAL

    def shown(self, holding: Holding | None) -> OpenTrade:
        """`holding` is the first leg's, None when that is flat."""
        first = next(iter(self.legs.values()), None)
        return OpenTrade(
            opened=self.opened, legs=tuple(self.legs), quantity=holding.quantity if holding is not None else ZERO,
            entry=average(first.entered_value, first.entered) if first is not None else ZERO, gross=self.gross, fees=self.fees,
            funding=self.funding, initial_stop=self.opened.stop, opened_at=self.opened_at, requested=self.requested,
        )

    def result(self) -> ClosedTrade:
        """The finished round trip. Quantity and prices are the first leg's."""
        opened = self.opened
        first = next(iter(self.legs.values()))
        return ClosedTrade(
            trade_id=opened.trade_id, strategy=opened.strategy, symbol=opened.symbol, asset_class=opened.asset_class,
            side=Side(opened.side), quantity=first.entered, entry=average(first.entered_value, first.entered),
            exit=average(first.exited_value, first.exited), gross=self.gross, fees=self.fees, funding=self.funding, net=self.net,
            risk=opened.risk, slippage_bp=book(self.slippage_sum / self.slippage_weight) if self.slippage_weight else ZERO,
            opened_at=self.opened_at, closed_at=self.last_at, exit_reason=self.exit_reason or self.requested or ExitReason.FORCE_EXIT,
            confidence=opened.confidence, score=opened.score,
        )


class TradeRegister:
    """Which trades are open and which order belongs to which of them."""

    __slots__ = ("_ended", "_orders", "_successor", "open")

    def __init__(self) -> None:
        self.open: dict[str, TradeBook] = {}
        self._ended: dict[str, TradeBook] = {}
        self._successor: dict[str, str] = {}
        self._orders: dict[str, OrderRecord] = {}

    def begin(self, fact: TradeOpened) -> None:
        self.open[fact.trade_id] = TradeBook(fact)

    def record(self, client_order_id: str) -> OrderRecord | None:
        return self._orders.get(client_order_id)

    def intend(self, order: Order) -> TradeBook | None:
        """A new order; the trade it belongs to."""
        self._orders[order.client_order_id] = OrderRecord(order)
        trade = self.open.get(order.trade_id)
        if trade is None:
            return None
        trade.orders.append(order.client_order_id)
        if order.purpose is Purpose.ENTRY:
            trade.entries.add(order.client_order_id)
            trade.intended[order.symbol] = max(order.quantity, trade.intended.get(order.symbol, ZERO))
        return trade

    def revive(self, record: OrderRecord) -> TradeBook | None:
        """Late evidence: an order taken for ended works after all."""
        if not record.ended or record.filled >= record.order.quantity:
            return None
        record.ended = False
        trade = self.of(record.order)
        if trade is not None and record.order.purpose is Purpose.ENTRY:
            trade.entries.add(record.order.client_order_id)
        return trade

    def finish_order(self, record: OrderRecord) -> TradeBook | None:
        """The order can do no more; the open trade it belonged to."""
        record.ended = True
        trade = self.open.get(self._latest(record.order.trade_id))
        if trade is not None:
            trade.entries.discard(record.order.client_order_id)
        return trade

    def _latest(self, trade_id: str) -> str:
        while trade_id in self._successor:
            trade_id = self._successor[trade_id]
        return trade_id

    def of(self, order: Order) -> TradeBook | None:
        """The trade an order belongs to. A fill that comes after its trade ended reopens an abandoned one, and becomes a trade of its
        own (named trade_id+1) where PositionClosed is already written: what is in the journal is never told twice."""
        trade_id = self._latest(order.trade_id)
        trade = self.open.get(trade_id)
        if trade is not None:
            return trade
        ended = self._ended.get(trade_id)
        if ended is None:
            return None
        if ended.finished:
            trade = TradeBook(replace(ended.opened, trade_id=f"{trade_id}+1"))
            self._successor[trade_id] = trade.trade_id
        else:
            trade = self._ended.pop(trade_id)
        self.open[trade.trade_id] = trade
        return trade

    def end(self, trade: TradeBook, *, finished: bool) -> None:
        """`finished`: its result is in the journal; else it never held anything."""
        trade.finished = finished
        self.open.pop(trade.trade_id, None)
        self._ended[trade.trade_id] = trade
        if len(self._ended) > _REMEMBERED:
            oldest = self._ended.pop(next(iter(self._ended)))
            self._successor.pop(oldest.trade_id, None)
            for client_order_id in oldest.orders:
                self._orders.pop(client_order_id, None)
