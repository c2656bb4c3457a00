"""The trading rules of recorded instruments: an export's own, else a venue's property table, else what the prices themselves show.

Owns no policy: fees, leverage and maintenance margin come from the cost policy (zero and 1 x without one).
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, NamedTuple

from modules.backtest.recorded_chains import Contract, plain_number
from modules.backtest.recorded_files import fault
from modules.backtest.recorded_names import METALS, Market
from modules.domain.instrument import AssetClass, Instrument, Right
from modules.domain.money import ONE, ZERO
from modules.domain.policies import CostPolicy

PROPERTIES: Final = Path("meta") / "symbol_properties.csv.gz"
NOTIONAL_MIN: Final = Decimal(5)
"""What Binance, Bybit and OKX ask of a spot or perp order, in quote currency."""
PERP_LOT_MIN: Final = Decimal("0.001")
"""Without a property table: one lot of a BTC perp was never less at the big venues."""
OPTION_TICK: Final = Decimal("0.0001")
OPTION_LOTS: Final = {"ETH": ONE}
"""Deribit trades ETH options in whole contracts, BTC's in tenths: open interest in the recordings shows it."""
OPTION_LOT: Final = Decimal("0.1")
_DECIMALS: Final = frozenset(("tick", "lot", "quantity_min", "notional_min", "contract_size", "maker_fee", "taker_fee", "leverage_max",
                              "maintenance_margin", "strike", "pip", "short_margin"))


class Steps(NamedTuple):
    tick: Decimal
    lot: Decimal


def venue_steps(folder: Path) -> dict[tuple[str, str, bool], Steps]:
    """(venue, BASEQUOTE, perpetual) -> tick and lot from meta/symbol_properties.csv.gz in or beside `folder`; empty without one.

    The table is a present-day snapshot: recorded prices with more decimals than its tick show that the tick was finer then."""
    path = next((parent / PROPERTIES for parent in (folder, folder.parent) if (parent / PROPERTIES).is_file()), None)
    if path is None:
        return {}
    found: dict[tuple[str, str, bool], Steps] = {}
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as handle:
            for row in csv.reader(handle):
                if len(row) < 8 or row[0].startswith("#") or row[2] not in ("crypto", "cryptofuture", "forex", "cfd"):
                    continue
                steps = _steps(row[6], row[7])
                if steps is not None:
                    found.setdefault((row[0].lower(), row[1].upper(), row[2] == "cryptofuture"), steps)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise fault(path, f"cannot be read ({type(error).__name__}: {error})", "download it again or delete it") from error
    return found


def instrument_of(market: Market, symbol: str, venue: str, *, known: Mapping[tuple[str, str, bool], Steps], decimals: int, price: float,
                  costs: CostPolicy | None, funding_interval_h: int | None) -> Instrument:
    """Rules for one recorded series. `decimals` is what its prices use, `price` a recent one: they stand in where no table names it."""
    asset_class = market.asset_class
    perpetual = asset_class is AssetClass.PERP
    steps = known.get((venue, market.base + market.quote, perpetual))
    seen = ONE.scaleb(-decimals)
    tick = min(steps.tick, seen) if steps is not None else seen
    if asset_class is AssetClass.FOREX:
        lot = ONE
    elif steps is not None:
        lot = steps.lot
    else:
        lot = _lot_at(price)
        lot = max(lot, PERP_LOT_MIN) if perpetual else lot
    return Instrument(symbol, venue, asset_class, market.base, market.quote, market.settle, market.underlying, tick, lot, quantity_min=lot,
                      notional_min=ZERO if asset_class is AssetClass.FOREX else NOTIONAL_MIN,
                      funding_interval_h=(funding_interval_h or 8) if perpetual else None,
                      pip=_pip(market) if asset_class is AssetClass.FOREX else None, **_costs(costs, asset_class))


def option_of(contract: Contract, venue: str, costs: CostPolicy | None, tick: Decimal = OPTION_TICK) -> Instrument:
    """Rules for one listed option: contract size 1, prices in `contract.quote`."""
    lot = OPTION_LOTS.get(contract.base, OPTION_LOT)
    return Instrument(contract.symbol, venue, AssetClass.OPTION, contract.base, contract.quote, contract.settle, contract.base, tick, lot,
                      quantity_min=lot, expiry=contract.expiry, strike=Decimal(plain_number(contract.strike)), right=contract.right,
                      **_costs(costs, AssetClass.OPTION))


def read_instruments(path: Path) -> list[Instrument]:
    """Instruments of an exported folder, in its order. Raises DataError if a field is missing, unknown or no number."""
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise fault(path, f"cannot be read ({error})", "export the folder again") from error
    if isinstance(rows, dict):
        rows = rows.get("instruments", list(rows.values()))
    result = []
    for row in rows:
        try:
            result.append(_instrument(row))
        except (TypeError, ValueError, AttributeError, InvalidOperation) as error:
            raise fault(path, f"instrument {row!r} is faulty ({error})", "export the folder again") from error
    return result


def _instrument(row: Mapping[str, Any]) -> Instrument:
    known = {field.name for field in fields(Instrument)}
    unknown = set(row) - known
    if unknown:
        raise ValueError(f"unknown fields {', '.join(sorted(unknown))}")
    values: dict[str, Any] = {name: Decimal(str(value)) if name in _DECIMALS and value is not None else value
                              for name, value in row.items()}
    values["asset_class"] = AssetClass(values["asset_class"])
    values["right"] = Right(values["right"]) if values.get("right") else None
    return Instrument(**values)


def _costs(costs: CostPolicy | None, asset_class: AssetClass) -> dict[str, Any]:
    if costs is None:
        return {}
    model = costs.of(asset_class)
    return {"maker_fee": model.maker_fee, "taker_fee": model.taker_fee, "leverage_max": model.leverage,
            "maintenance_margin": model.maintenance_margin}


def _steps(tick: str, lot: str) -> Steps | None:
    try:
        steps = Steps(Decimal(tick), Decimal(lot))
    except InvalidOperation:
        return None
    return steps if steps.tick > ZERO and steps.lot > ZERO else None


def _lot_at(price: float) -> Decimal:
    """The power of ten worth between 0.10 and 1.00 at `price`, at most one unit: $10 then rounds by at most 10 %."""
    return ONE.scaleb(min(0, math.floor(-math.log10(price))))


def _pip(market: Market) -> Decimal:
    return Decimal("0.01") if market.quote == "JPY" or market.base in METALS else Decimal("0.0001")
