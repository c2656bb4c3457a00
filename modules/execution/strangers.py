"""What somebody else did at the venue, and what of it concerns us. Pure."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from modules.domain.money import ZERO, book
from modules.domain.order import DRILL_MARK, Fill
from modules.domain.position import Position


def divided_fill(fill: Fill, position: Position | None, owners: Decimal) -> tuple[Fill | None, Fill | None]:
    """Somebody else's execution: (what of it closed our position, what is his own). What cannot have been his holding (`owners`, signed)
    was ours: he closed it at the venue."""
    part = ZERO
    if position is not None and position.quantity * fill.side.sign < ZERO:
        his = abs(owners) if owners * fill.side.sign < ZERO else ZERO
        part = min(abs(position.quantity), max(ZERO, fill.quantity - his))
    rest = fill.quantity - part
    return part_of(fill, part, by_owner=True) if part else None, part_of(fill, rest) if rest else None


def part_of(fill: Fill, quantity: Decimal, *, by_owner: bool = False) -> Fill:
    """So much of an execution, with its share of the fee. Only a drill's keeps its name."""
    fee = fill.fee if quantity == fill.quantity else book(fill.fee * quantity / fill.quantity)
    drilled = fill.client_order_id if fill.client_order_id.startswith(DRILL_MARK) else ""
    return replace(fill, quantity=quantity, fee=fee, client_order_id=drilled, by_owner=by_owner)
