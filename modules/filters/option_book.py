"""Options only: is there a contract, does it live long enough, and what would the whole option book do after the trade."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Final

from modules.domain.decision import Check, Rule, Size
from modules.domain.instrument import AssetClass
from modules.domain.money import ratio
from modules.domain.policies import RiskPolicy
from modules.domain.signal import Signal
from modules.domain.view import OptionView, View
from modules.filters.compare import at_least, at_most, holds

VOLATILITY_SHOCK: Final = Decimal("0.10")
"""Ten volatility points: the shock `option_vol_loss_max` is defined for, and what View.class_vol_loss was reckoned with."""
DAY_MS: Final = 86_400_000.0


def contract(signal: Signal, view: View, policy: RiskPolicy) -> Check | None:
    """The chain holds what the strategy wants, at the wanted maturity and delta."""
    if signal.asset_class is not AssetClass.OPTION:
        return None
    return holds(Rule.CONTRACT_NOT_FOUND, view.option is not None, True, "contract found")


def expiry(signal: Signal, view: View, policy: RiskPolicy) -> Check | None:
    """No new position this close to its expiry: options, and dated futures, which would have to be closed again at once."""
    if signal.asset_class is AssetClass.OPTION:
        days = None if view.option is None else view.option.days_to_expiry
    elif view.instrument.expiry is not None:
        days = (view.instrument.expiry - view.at) / DAY_MS
    else:
        return None
    return at_least(Rule.EXPIRY_TOO_NEAR, days, policy.expiry_days_min, "days to expiry")


def option_book(signal: Signal, view: View, size: Size, policy: RiskPolicy) -> tuple[Check, ...]:
    """The class's whole option book after this trade, as shares of equity: net delta on either side, loss if volatility rises ten
    points, loss on a 3-sigma day. () for other classes."""
    if signal.asset_class is not AssetClass.OPTION:
        return ()
    option = view.option
    delta = None if option is None else _after(option.class_delta_value, _decimal(option.delta), option.spot, size.quantity)
    vol_loss = None if option is None else _vol_loss(option, size.quantity)
    shock = None if option is None else _after(option.class_shock_loss, option.shock_loss, Decimal(1), size.quantity)
    return (
        at_most(Rule.DELTA_ABOVE_MAXIMUM, _share(None if delta is None else abs(delta), view), policy.option_delta_max, "of equity"),
        at_most(Rule.VEGA_LOSS_ABOVE_MAXIMUM, _share(vol_loss, view), policy.option_vol_loss_max, "of equity at +10 vol points"),
        at_most(Rule.SHOCK_LOSS_ABOVE_MAXIMUM, _share(shock, view), policy.option_shock_loss_max, "of equity on a 3-sigma day"),
    )


def _vol_loss(option: OptionView, quantity: Decimal) -> Decimal | None:
    """A structure that gains from rising volatility (positive vega) lowers the book's loss."""
    vega = _decimal(option.vega)
    return _after(option.class_vol_loss, None if vega is None else -vega, VOLATILITY_SHOCK, quantity)


def _after(book: Decimal, per_unit: Decimal | None, factor: Decimal, quantity: Decimal) -> Decimal | None:
    """The book's figure plus `quantity` x `per_unit` x `factor`; None if any of them is not a number."""
    if per_unit is None or not (book.is_finite() and per_unit.is_finite() and factor.is_finite() and quantity.is_finite()):
        return None
    return book + quantity * per_unit * factor


def _share(value: Decimal | None, view: View) -> Decimal | None:
    return None if value is None or view.equity is None else ratio(value, view.equity)


def _decimal(value: float) -> Decimal | None:
    return Decimal(repr(value)) if math.isfinite(value) else None
