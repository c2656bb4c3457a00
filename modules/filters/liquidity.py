"""Can we get out again at a price: traded volume, the spread, and for options the contract's open interest. Thin markets turn a stop
into a gift."""

from __future__ import annotations

from modules.domain.decision import Check, Rule
from modules.domain.instrument import AssetClass
from modules.domain.policies import RiskPolicy
from modules.domain.signal import Signal
from modules.domain.view import View
from modules.filters.compare import at_least, at_most, holds


def volume(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    """24 h quote volume in USD (options: the underlying's). FX has no consolidated volume: the owner's list of deep pairs stands in."""
    if signal.asset_class is AssetClass.FOREX:
        return holds(Rule.LIQUIDITY_BELOW_MINIMUM, view.deep_pair, True, "on the list of deep pairs")
    return at_least(Rule.LIQUIDITY_BELOW_MINIMUM, view.quote_volume_24h, policy.quote_volume_24h_min, "USD")


def spread(signal: Signal, view: View, policy: RiskPolicy) -> Check:
    """Live spread against the owner's cap; without a cap (an FX pair on no list) it fails. Options: see `option_spread`, this one is then
    about the quote of the series the strategy watches, which has the option class's wide cap."""
    if view.spread_cap_bp is None:
        return Check(Rule.SPREAD_ABOVE_MAXIMUM, _spread_bp(view), None, "bp", False, "no spread cap for this instrument")
    return at_most(Rule.SPREAD_ABOVE_MAXIMUM, _spread_bp(view), view.spread_cap_bp, "bp")


def option_spread(signal: Signal, view: View, policy: RiskPolicy) -> Check | None:
    """Worst leg, (ask - bid) / mid."""
    if signal.asset_class is not AssetClass.OPTION:
        return None
    share = None if view.option is None else view.option.spread_share
    return at_most(Rule.SPREAD_ABOVE_MAXIMUM, share, policy.option_spread_share_max, "of mid")


def open_interest(signal: Signal, view: View, policy: RiskPolicy) -> Check | None:
    """Thinnest leg: enough contracts, or enough that they are worth. A contract is a whole bitcoin at one venue and a few dollars at
    another, so their number alone says little of a dear one."""
    if signal.asset_class is not AssetClass.OPTION:
        return None
    option = view.option
    contracts = None if option is None else option.open_interest
    counted = at_least(Rule.OPEN_INTEREST_BELOW_MINIMUM, contracts, policy.option_open_interest_min, "contracts")
    if counted.passed or option is None or contracts is None:
        return counted
    worth = contracts * float(view.instrument.contract_size * option.spot)
    return at_least(Rule.OPEN_INTEREST_BELOW_MINIMUM, worth, policy.option_open_interest_usd_min, "USD of the underlying")


def _spread_bp(view: View) -> float | None:
    return view.quote.spread_bp if view.quote is not None and view.quote.sane else None
