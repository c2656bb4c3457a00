"""The Plan of a daemon process, out of settings and folders, and the commands it starts as processes of their own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import main
from modules.cli import inputs
from modules.cli.page import Pictures
from modules.domain.certificate import Certificate
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.domain.settings import Settings
from modules.learning import challenge
from modules.news import setup as news_setup
from modules.news.calendar import Calendar
from modules.runtime.clock import WallClock
from modules.store.decisions import Decisions
from modules.store.journal import Journal
from modules.store.lock import StateFolder
from modules.venues.demo_market import DemoMarket

if TYPE_CHECKING:
    from modules.domain.decision import Decision
    from modules.domain.events import Fact
    from modules.strategies.protocol import Strategy


@dataclass(frozen=True)
class Watchers:
    """What looks on while the daemon works."""

    observers: Sequence[Callable[[Fact], None]]
    after_batch: Sequence[Callable[[int], None]]
    on_decision: Callable[[Decision], None]
    announce: Callable[[str], None]
    waits: Callable[[str], None]


def planned(
    settings: Settings, policies: Policies, clock: WallClock, folder: StateFolder, journal: Journal, decisions: Decisions,
    pictures: Pictures, strategies: Mapping[AssetClass, Sequence[Strategy]], events: Calendar, source: DemoMarket | None,
    commands: Commands, watchers: Watchers,
) -> main.Plan:
    """On the demo market, `source`, or on the venues of the settings, which `Daemon.start` then waits for."""
    common: dict[str, Any] = {
        "mode": settings.mode, "policies": policies, "clock": clock, "journal": journal, "decisions": decisions, "strategies": strategies,
        "halt_file": folder.halt_file, "news": news_setup.from_settings(settings.news, folder.path), "blacklist": settings.pair_blacklist,
        "whitelist": settings.pair_whitelist, "observers": watchers.observers, "after_batch": watchers.after_batch,
        "on_decision": watchers.on_decision, "candles": pictures.candles, "certificates": settings.state_dir / "certificates",
        "trials": settings.state_dir / "validation", "revalidate": commands.validation,
        "drift": None if source is not None else commands.drift(), "research": None if source is not None else commands.research,
        "learning": folder.path / "learning", "challengers": challenge.load(folder.path / "learning"), "announce": watchers.announce}
    if source is not None:
        return main.simulated_plan(
            source, wallets={c: settings.dry_run_wallet[c] for c in AssetClass},
            calendar=Calendar(source.macro_events, policies.news, covered_until={}), **common)
    from modules.cli import market  # what talks to venues is loaded where there are venues

    allocate: Mapping[AssetClass, Decimal | None] = market.allocate(settings)
    return main.Plan(
        venues={}, venue_of=market.venue_of(settings), settlement=market.settlement(settings), allocate=allocate, references={},
        calendar=events, arrive=lambda: market.opened(settings, policies, clock, journal, watchers.waits), waits=watchers.waits, **common)


class Commands:
    """This program again, in processes of their own, with the same settings. `certificate` gives the one a strategy stands on."""

    def __init__(self, arguments: argparse.Namespace, settings: Settings, folder: StateFolder,
                 certificate: Callable[[str, AssetClass], Certificate | None]) -> None:
        self._arguments = arguments
        self._settings = settings
        self._folder = folder
        self._certificate = certificate

    def validation(self, strategy: str, asset_class: str) -> list[str]:
        files = [word for path in inputs.files(self._arguments) for word in ("--config", str(path))]
        heard = self._folder.path / news_setup.FILE
        news = ["--news", str(heard)] if self._settings.news.enabled and heard.is_file() else []
        return [sys.executable, str(main.__file__), "validate", *files, "--mode", self._settings.mode, "--strategy", strategy, "--classes",
                asset_class.lower(), *news, "--workers", "1", "--json"]

    def drift(self) -> list[str]:
        """What compares this daemon's decisions with a replay of the bars it saw."""
        files = [word for path in inputs.files(self._arguments) for word in ("--config", str(path))]
        return [sys.executable, str(main.__file__), "drift", *files, "--mode", self._settings.mode, "--warm", "--json"]

    def research(self, strategy: str, asset_class: str) -> list[str]:
        """The same for a search in sample that may put a challenger on the list, over the history its certificate was earned on; empty for
        a strategy that never had one: there is no telling which history would be its own."""
        found = self._certificate(strategy, AssetClass(asset_class))
        if found is None or not found.source:
            return []
        command = self.validation(strategy, asset_class)
        return [*(word if word != "validate" else "optimize" for word in command), "--data", found.source, "--challenge"]
