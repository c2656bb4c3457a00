"""What should rest under a position, and for how long it has had nothing under it. Decides; sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from modules.domain.instrument import Instrument
from modules.domain.money import from_float
from modules.domain.order import ExitReason, OrderKind, OrderState, Purpose
from modules.domain.signal import Structure
from modules.execution.lifecycle import Record, Trade


class Wanted(NamedTuple):
    """A protective order that should rest at the venue."""

    purpose: Purpose
    kind: OrderKind
    price: Decimal
    reason: ExitReason


def guarded(trade: Trade) -> bool:
    """Whether this trade is one that a stop protects (a structure's legs limit its loss themselves)."""
    return trade.opened.structure == Structure.SINGLE and trade.opened.stop is not None


def lacks(trade: Trade) -> str:
    """What is wrong where nothing protects it, in words."""
    return "is held without a confirmed stop" if guarded(trade) else "has a leg that is sold and that nothing covers"


def wanted(trade: Trade, instrument: Instrument, *, long: bool, resting_target: bool) -> list[Wanted]:
    """The stop, and the target where the venue can rest both. Sets the trade's stop the first time, rounded toward less risk."""
    opened = trade.opened
    if opened.stop is None:
        return []
    if trade.stop is None:
        trade.stop = from_float(opened.stop, instrument.tick, up=long)
    found = [Wanted(Purpose.STOP, OrderKind.STOP, trade.stop, trade.stop_reason)]
    refused = any(r.state is OrderState.REJECTED and r.order.purpose is Purpose.TARGET for r in trade.records)  # and it would be again
    if opened.target is not None and not refused and resting_target:
        target = from_float(opened.target, instrument.tick, up=long)
        found.append(Wanted(Purpose.TARGET, OrderKind.TARGET, target, ExitReason.ROI))
    return found


def fits(working: Sequence[Record], quantity: Decimal, price: Decimal) -> bool:
    """Whether exactly one order works there, for what is held (unsigned) and at its price."""
    return len(working) == 1 and working[0].order.quantity - working[0].filled == quantity and working[0].order.price == price


class Bare:
    """Trade -> since when (UTC ms) what it holds has no confirmed stop under it."""

    def __init__(self) -> None:
        self.since: dict[str, int] = {}

    def begin(self, trade_id: str, at: int) -> None:
        self.since.setdefault(trade_id, at)

    def end(self, trade_id: str) -> None:
        self.since.pop(trade_id, None)

    def __contains__(self, trade_id: str) -> bool:
        return trade_id in self.since

    def __bool__(self) -> bool:
        return bool(self.since)
