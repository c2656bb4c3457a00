"""`size`: what Sizer would do with one trade, and which rule bound it. Exit code 0 whether or not it would trade."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modules.cli import inputs, sizing
from modules.cli.output import emit, money, table, table_of_checks
from modules.domain.decision import Size
from modules.domain.errors import ConfigurationError, NotFound
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.policies import Policies
from modules.Sizer import Sizer

if TYPE_CHECKING:
    from rich.console import Console


def run(arguments: argparse.Namespace) -> int:
    _, policies = inputs.settings_and_policies(arguments)
    faults = [f"--{name}: must be between 0 and 1" for name in ("confidence",) if not 0.0 <= arguments.confidence <= 1.0]
    faults += [f"--{name.replace('_', '-')}: must not be negative" for name in ("open_risk", "drawdown_today")
               if getattr(arguments, name) < 0]
    faults += [f"--{name}: must be above 0" for name in ("lot", "leverage") if getattr(arguments, name) is not None
               and getattr(arguments, name) <= 0]
    if faults:
        raise ConfigurationError(faults)
    case = sizing.Case(
        instrument=_instrument(arguments, policies), equity=arguments.equity, confidence=arguments.confidence, entry=arguments.entry,
        stop=arguments.stop, target=arguments.target, side=Side(arguments.side.upper()) if arguments.side else None,
        good=arguments.good_setup, free=arguments.free, volume_24h=arguments.volume_24h, liquidation=arguments.liquidation,
        open_risk=arguments.open_risk, drawdown_today=arguments.drawdown_today)
    size = sizing.size_of(case, Sizer(policies.sizing, policies.costs), policies)
    emit(arguments, sizing.document(size), lambda out, document: _show(out, document, size))
    return 0


def _instrument(arguments: argparse.Namespace, policies: Policies) -> Instrument:
    asset_class = AssetClass(arguments.asset_class)
    if arguments.symbol is None:
        return sizing.plain_instrument(asset_class, policies, lot=arguments.lot, minimum=arguments.minimum, leverage=arguments.leverage)
    from modules.venues.demo.catalog import INSTRUMENTS, option_contract

    listed = next((i for i in INSTRUMENTS if i.symbol == arguments.symbol and i.asset_class is asset_class), None)
    if listed is None and asset_class is AssetClass.OPTION:
        listed = option_contract(arguments.symbol)
    if listed is None:
        known = ", ".join(i.symbol for i in INSTRUMENTS if i.asset_class is asset_class) or "contracts of the demo's chains"
        raise NotFound(f"the demo market lists no {asset_class} {arguments.symbol!r}; it has {known}")
    changes = {"lot": arguments.lot, "notional_min": arguments.minimum, "leverage_max": arguments.leverage}
    return dataclasses.replace(listed, **{name: value for name, value in changes.items() if value is not None})


def _show(out: Console, document: Mapping[str, Any], size: Size) -> None:
    if size.approved:
        out.print(f"Phase {size.phase}: {money(size.notional)} ({size.quantity.normalize():f} units), at risk {money(size.risk)}, "
                  f"tied up {money(size.tied_up)} at {size.leverage.normalize():f}x; bound by {size.bound_by}.", markup=False)
    else:
        out.print(f"Phase {size.phase or '-'}: no trade. {size.reason}", markup=False)
    if size.ceilings:
        out.print(table("Every limit that was looked at", ("by", ">notional"),
                        ((by.value, money(limit)) for by, limit in sorted(size.ceilings, key=lambda ceiling: ceiling[1]))))
    out.print(table_of_checks(document["checks"]))
