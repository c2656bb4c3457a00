"""Trades of several option legs: which leg is opened next, which may be closed now, and whether anything is sold that nothing covers.

Decides only. The rule behind all of it: what is bought is there before what it covers is sold, and stays until that is bought back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from modules.domain.decision import Leg
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.money import ZERO
from modules.domain.order import Purpose
from modules.domain.signal import Structure
from modules.execution.lifecycle import Record, Trade

Rules = Callable[[str], Instrument | None]


class NextLeg(NamedTuple):
    leg: Leg
    quantity: Decimal
    """Unsigned: what is planned, and no more than every leg before it has filled."""


def made_of_legs(trade: Trade) -> bool:
    """Whether its legs bound its loss, and no stop does."""
    return trade.opened.structure != Structure.SINGLE


def symbols(trade: Trade) -> tuple[str, ...]:
    return tuple(leg.symbol for leg in trade.opened.legs) or (trade.opened.symbol,)


def entered(trade: Trade, symbol: str) -> Decimal:
    """How much of a leg its entries have filled, unsigned."""
    return sum((record.filled for record in _entries(trade, symbol)), ZERO)


def next_leg(trade: Trade) -> NextLeg | None:
    """The first leg that was never sent; None = all were."""
    filled: Decimal | None = None
    for leg in trade.opened.legs:
        if not _entries(trade, leg.symbol):
            return NextLeg(leg, leg.quantity if filled is None else min(leg.quantity, filled))
        done = entered(trade, leg.symbol)
        filled = done if filled is None else min(filled, done)
    return None


def carries_on(trade: Trade, record: Record) -> bool:
    """An entry ended short of its quantity: whether the legs after it follow for what there is. What was bought covers less then; a part
    of what was to be sold is half a spread, and that is no spread."""
    return record.order.side is Side.BUY and record.filled > ZERO


def incomplete(trade: Trade) -> bool:
    """A leg was never sent, or one that sells ended with less than was wanted of it. After a restart: what it was decided on is history
    now, so what there is of it is closed."""
    if any(record.working for leg in trade.opened.legs for record in _entries(trade, leg.symbol)):
        return False  # its end tells
    return any(not (sent := _entries(trade, leg.symbol)) or (
        leg.side is Side.SELL and any(record.filled < record.order.quantity for record in sent)) for leg in trade.opened.legs)


def to_close(held: Mapping[str, Decimal], opening: Sequence[Record]) -> Mapping[str, Decimal]:
    """What may be closed now of what is held (signed, by symbol): what was sold first. What was bought stays while anything is sold, and
    while an order that sells may still fill, whatever nobody knows of it."""
    shorts = {symbol: quantity for symbol, quantity in held.items() if quantity < ZERO}
    if shorts:
        return shorts
    return {} if any(record.order.side is Side.SELL for record in opening) else held


def naked(held: Mapping[str, Decimal], rules: Rules, at: int) -> Decimal:
    """How many contracts are sold that no bought one of the same kind covers that lives at least as long. Contracts that have expired
    are nobody's risk any more: what becomes of them is settled. `held` signed, by symbol; `at` UTC ms."""
    live = [(rule, quantity) for symbol, quantity in held.items() if quantity and (rule := rules(symbol)) is not None
            and rule.asset_class is AssetClass.OPTION and not expired(rule, at)]
    covers: list[tuple[Instrument, Decimal]] = [(rule, quantity) for rule, quantity in live if quantity > ZERO]
    bare = ZERO
    for short, rest in sorted(((rule, -quantity) for rule, quantity in live if quantity < ZERO), key=lambda one: -(one[0].expiry or 0)):
        for place, (rule, left) in enumerate(covers):
            if (rule.underlying, rule.right) == (short.underlying, short.right) and (rule.expiry or 0) >= (short.expiry or 0):
                part = min(rest, left)
                covers[place], rest = (rule, left - part), rest - part
        bare += rest
    return bare


def expired(instrument: Instrument, at: int) -> bool:
    """Whether an option contract trades no more: its delivery is all that can still happen to it."""
    return instrument.asset_class is AssetClass.OPTION and instrument.expiry is not None and instrument.expiry <= at


def _entries(trade: Trade, symbol: str) -> list[Record]:
    return [record for record in trade.records if record.order.purpose is Purpose.ENTRY and record.order.symbol == symbol]
