"""What the paper venue's front desk says to an order before it looks at the account: the instrument's own rules, coded as venues do."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from modules.domain.instrument import AssetClass, Instrument
from modules.domain.money import ONE, ZERO, text
from modules.domain.order import Order, OrderKind, Refused

PRICED: Final = frozenset({OrderKind.LIMIT, OrderKind.STOP, OrderKind.TARGET})


def reduces(order: Order) -> bool:
    """Whether the order can only ever make a position smaller. Spot cannot be sold short, so a spot sale always does."""
    return order.reduce_only or order.kind is OrderKind.TARGET or (order.asset_class is AssetClass.SPOT and order.side.sign < 0)


def malformed(order: Order, instrument: Instrument, price: Decimal | None, now: int) -> Refused | None:
    """The first rule of the instrument that the order breaks, None if none. `price` is the last one known (quote currency).

    Codes: CLASS, INVERSE, KIND, CONTRACT_EXPIRED, EXPIRED, QUANTITY, LOT, MIN_QUANTITY, PRICE, TICK, LEVERAGE, MIN_NOTIONAL.
    """
    if order.asset_class is not instrument.asset_class:
        return Refused("CLASS", f"{order.symbol} is {instrument.asset_class}, not {order.asset_class}")
    if instrument.inverse:
        return Refused("INVERSE", f"{order.symbol}: only linear contracts are simulated")
    if instrument.asset_class is AssetClass.OPTION and order.kind is not OrderKind.MARKET:
        return Refused("KIND", f"{order.symbol}: options trade at the chain's quote, as market orders only")
    if instrument.expiry is not None and instrument.expiry <= now:
        return Refused("CONTRACT_EXPIRED", f"{order.symbol} expired at {instrument.expiry}")
    if order.expires_at is not None and order.expires_at <= now:
        return Refused("EXPIRED", f"order expired at {order.expires_at}, it is {now}")
    return _quantity(order, instrument) or _price(order, instrument) or _size(order, instrument, order.price or price)


def _quantity(order: Order, instrument: Instrument) -> Refused | None:
    if not order.quantity.is_finite() or order.quantity <= ZERO:
        return Refused("QUANTITY", f"quantity {order.quantity} is not positive")
    if order.quantity % instrument.lot != ZERO:
        return Refused("LOT", f"quantity {text(order.quantity)} is not a multiple of {text(instrument.lot)}")
    if order.quantity < instrument.quantity_min:
        return Refused("MIN_QUANTITY", f"quantity {text(order.quantity)} is below {text(instrument.quantity_min)}")
    return None


def _price(order: Order, instrument: Instrument) -> Refused | None:
    if order.kind not in PRICED:
        return None
    if order.price is None or not order.price.is_finite() or order.price <= ZERO:
        return Refused("PRICE", f"a {order.kind} order needs a positive price, not {order.price}")
    if order.price % instrument.tick != ZERO:
        return Refused("TICK", f"price {text(order.price)} is not a multiple of {text(instrument.tick)}")
    return None


def _size(order: Order, instrument: Instrument, price: Decimal | None) -> Refused | None:
    if instrument.is_margined and not ONE <= order.leverage <= instrument.leverage_max:
        return Refused("LEVERAGE", f"leverage {text(order.leverage)} is outside 1 to {text(instrument.leverage_max)}")
    # Venues let any remainder of a derivative position be closed; a spot sale below the minimum they do not take.
    if order.reduce_only and instrument.asset_class is not AssetClass.SPOT:
        return None
    if price is not None and instrument.notional(order.quantity, price) < instrument.notional_min:
        notional = instrument.notional(order.quantity, price)
        return Refused("MIN_NOTIONAL", f"notional {text(notional)} {instrument.quote} is below {text(instrument.notional_min)}")
    return None
