"""What may pass between ccxt and us whatever the venue: orders within the instrument's rules, candles that can be candles.

ccxt lets negative amounts, negative prices and None through to the venue. Refuses what is outside the rules; knows no venue.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

from modules.domain.errors import VenueUnreachable
from modules.domain.instrument import Instrument
from modules.domain.market import Bar
from modules.domain.money import ZERO
from modules.domain.order import Order, OrderKind


def outside_rules(order: Order, instrument: Instrument | None) -> str:
    """Why the order may not go out, "" if it may. `instrument` is what the venue lists under the order's symbol."""
    if instrument is None or instrument.asset_class is not order.asset_class:
        return f"no {order.asset_class.value} instrument {order.symbol}"
    quantity, price = order.quantity, order.price
    if not quantity.is_finite() or quantity <= ZERO or quantity % instrument.lot or quantity < instrument.quantity_min:
        return f"quantity {quantity} is not at least {instrument.quantity_min} in steps of {instrument.lot}"
    if (price is None) != (order.kind is OrderKind.MARKET):
        return f"a {order.kind.value} order with price {price}"
    if price is not None and (not price.is_finite() or price <= ZERO or price % instrument.tick):
        return f"price {price} is not positive in steps of {instrument.tick}"
    worth = instrument.notional(quantity, price or order.arrival_price)
    return "" if order.reduce_only or worth >= instrument.notional_min else f"notional {worth} is below {instrument.notional_min}"


def sane_bar(row: Any, interval: int) -> Bar:
    """ccxt's [open time ms, open, high, low, close, volume] as a Bar. Raises VenueUnreachable on a candle that cannot be one.

    ccxt drops the quote volume; volume x close stands for it.
    """
    sane = isinstance(row, list) and len(row) == 6 and isinstance(row[0], int) and row[0] > 0 and row[0] % interval == 0 and all(
        isinstance(value, float | int) and not isinstance(value, bool) and isfinite(value) for value in row[1:])
    if not sane or not 0 < row[3] <= min(row[1], row[4]) <= max(row[1], row[4]) <= row[2] or row[5] < 0:
        raise VenueUnreachable("a candle is not what it should be")
    volume, close = float(row[5]), float(row[4])
    return Bar(row[0], float(row[1]), float(row[2]), float(row[3]), close, volume, volume * close)
