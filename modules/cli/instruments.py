"""`list-instruments`: what can be traded on the demo market or at a real venue, and what the settings' rule makes of each."""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modules import Logger_Config
from modules.cli import inputs
from modules.cli.output import emit, number, table
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.money import text
from modules.domain.sessions import iso
from modules.domain.settings import SelectSettings
from modules.runtime.clock import WallClock

if TYPE_CHECKING:
    from rich.console import Console

    from modules.venues.selection import Statistic


def run(arguments: argparse.Namespace) -> int:
    if arguments.venue is None or arguments.venue == "demo":
        emit(arguments, _demo(arguments.asset_class), _show_demo)
    else:
        Logger_Config.configure(None)
        emit(arguments, asyncio.run(_venue(arguments)), _show)
    return 0


def _demo(asset_class: str | None) -> dict[str, Any]:
    from modules.store.codec import to_json
    from modules.venues.demo.catalog import INSTRUMENTS

    chosen = [one for one in INSTRUMENTS if asset_class in (None, one.asset_class.value)]
    return {"venue": "demo", "instruments": [to_json(one) for one in chosen]}


def _show_demo(out: Console, document: Mapping[str, Any]) -> None:
    columns = ("symbol", "class", ">tick", ">lot", ">minimum", ">taker fee", ">leverage")
    out.print(table("Demo market (options come with its chains)", columns, (
        (i["symbol"], i["asset_class"], number(i["tick"]), number(i["lot"]), number(i["notional_min"]), number(i["taker_fee"]),
         number(i["leverage_max"])) for i in document["instruments"])))


async def _venue(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the venue offers now, its figures, and which of it the configured rule (else the default one) would choose."""
    from modules.cli.download import connected, venue_settings
    from modules.venues import factory
    from modules.venues.selection import by_rule, symbols_for

    settings, policies = inputs.settings_and_policies(arguments)
    clock, name = WallClock(), arguments.venue
    configured = settings.venues.get(name)
    here = venue_settings(settings, name, (), configured.timeframe if configured is not None else "5m")
    if arguments.asset_class is not None:
        here = here.model_copy(update={"classes": (AssetClass(arguments.asset_class),)})
    rule = here.select or (SelectSettings() if configured is None else None)
    listing, archive = connected(name, here, policies, clock, ())
    try:
        offered = {one.symbol: one for one in await listing.offered() if one.asset_class in here.classes}
        if rule is not None:
            choice = await by_rule(listing, list(offered.values()), rule, (), now=clock.now())
        else:
            choice = await symbols_for(listing, here, (), now=clock.now(), usual=factory.symbols_of(name, here))
        figures = {row.symbol: row for row in await listing.statistics()}
    finally:
        await archive.close()
    left_out = {symbol: choice.left_out.get(symbol, "not among the symbols of the settings") for symbol in offered
                if symbol not in choice.symbols}
    rows = [_row(offered[symbol], figures.get(symbol), "") for symbol in choice.symbols if symbol in offered]
    if arguments.all:
        rows += [_row(offered[symbol], figures.get(symbol), reason) for symbol, reason in left_out.items()]
    return {"venue": name, "rule": "select" if rule is not None else "symbols", "chosen": list(choice.symbols), "left_out": len(left_out),
            "instruments": rows}


def _row(one: Instrument, figures: Statistic | None, reason: str) -> dict[str, Any]:
    volume = figures.quote_volume_24h if figures is not None else math.nan
    spread = figures.spread_ratio if figures is not None else math.nan
    listed = figures.listed_at if figures is not None else None
    return {"symbol": one.symbol, "asset_class": one.asset_class.value, "chosen": not reason, "reason": reason,
            "volume_24h_usd": None if math.isnan(volume) else volume, "spread_ratio": None if math.isnan(spread) else round(spread, 8),
            "listed_by": None if listed is None else iso(listed), "tick": text(one.tick), "lot": text(one.lot),
            "quantity_min": str(one.quantity_min), "notional_min": str(one.notional_min), "maker_fee": str(one.maker_fee),
            "taker_fee": str(one.taker_fee), "leverage_max": str(one.leverage_max)}


def _show(out: Console, document: Mapping[str, Any]) -> None:
    how = "by rule (select)" if document["rule"] == "select" else "by fixed list (symbols, else the usual ones)"
    out.print(table(f"{document['venue']}: {len(document['chosen'])} chosen {how}, {document['left_out']} left out",
                    ("symbol", "class", ">24 h USD", ">spread", ">lot", ">minimum", ">taker fee", "why not"), (
        (i["symbol"], i["asset_class"], "-" if i["volume_24h_usd"] is None else f"{i['volume_24h_usd']:,.0f}",
         "-" if i["spread_ratio"] is None else f"{i['spread_ratio'] * 100:.3f} %", i["lot"], number(i["notional_min"]),
         number(i["taker_fee"]), i["reason"]) for i in document["instruments"])))
