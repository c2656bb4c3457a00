"""`list-venues`: what each venue can do here, live or for data, what it lacks in words, and whether a drill of yours has shown it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from modules.cli import drill, inputs
from modules.cli.output import emit, table
from modules.domain.settings import Settings
from modules.venues import factory

if TYPE_CHECKING:
    from rich.console import Console

MODES: Final = {
    "demo": "embedded market, paper fills, no key, no network",
    "paper": "real prices, paper fills; no key (OANDA's prices want a token)",
    "live": "real money at a venue certified below; go-live CLASS leads there",
}


def run(arguments: argparse.Namespace) -> int:
    settings = inputs.settings_only(arguments)
    names = [*factory.KNOWN, *(name for name in settings.venues if name not in factory.KNOWN)]
    emit(arguments, {"mode": settings.mode, "modes": MODES, "venues": [_venue(name, settings) for name in names]}, _show)
    return 0


def _venue(name: str, settings: Settings) -> dict[str, Any]:
    row, configured = factory.known(name), settings.venues.get(name)
    return {
        "name": name, "classes": [c.value for c in row.classes], "live": row.live, "missing": row.missing,
        "paper_only": {asset_class.value: why for asset_class, why in row.paper_only.items()},
        "testnet": row.testnet is not None, "token_for_data": row.needs_token, "settlement": row.settlement,
        "configured": [c.value for c in configured.classes] if configured is not None else [],
        "drills": [{name: log.get(name) for name in ("asset_class", "began", "endpoint", "passed")} for asset_class in row.classes
                   for log in drill.kept(settings.state_dir, name, asset_class)[-1:]],
    }


def _drilled(venue: Mapping[str, Any]) -> str:
    return ", ".join(f"{log['asset_class']} {'passed' if log['passed'] else 'FAILED'} {log['began'][:10]} ({log['endpoint']})"
                     for log in venue["drills"]) or "never"


def _show(out: Console, document: Mapping[str, Any]) -> None:
    out.print(table("", ("mode", "what it is"), (((f"{mode} *" if mode == document["mode"] else mode), says)
                                                 for mode, says in document["modes"].items())))
    out.print(table("", ("venue", "classes", "live", "testnet", "configured for", "your last drill"), (
        (venue["name"], ", ".join(venue["classes"]), "yes" if venue["live"] else "no", "yes" if venue["testnet"] else "no",
         ", ".join(venue["configured"]), _drilled(venue)) for venue in document["venues"])))
    for venue in document["venues"]:
        if not venue["live"]:
            out.print(f"{venue['name']} is for data and paper only: {venue['missing']}", markup=False)
        for asset_class, why in venue["paper_only"].items():
            out.print(f"{venue['name']} {asset_class} is for paper only: {why}", markup=False)
    out.print("Any other exchange that ccxt knows can be used for data and paper. What was verified of the live ones, and by whom: "
              "docs/venues.md", markup=False)
