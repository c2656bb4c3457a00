"""Whole-daemon runs the demo tests share: one simulation as `main.py demo` does it, and its export."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import main
from modules.backtest.export import HISTORY_DAYS, export_market
from modules.backtest.export_run import export_run
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.domain.settings import DEMO_WALLETS
from modules.news.calendar import Calendar
from modules.strategies.registry import all_strategies
from modules.venues.demo_market import DemoMarket
from modules.venues.protocol import MarketSource
from tests.builders import shipped_policies

WALLETS: Mapping[AssetClass, Decimal] = DEMO_WALLETS


def simulate(source: MarketSource, *, policies: Policies | None = None, wallets: Mapping[AssetClass, Decimal] = WALLETS) -> main.Simulation:
    """Every strategy on every class it is for. Journal and decisions go where the operating system forgets them."""
    policies = policies or shipped_policies()
    strategies = {c: [s for s in all_strategies().values() if c in s.asset_classes] for c in AssetClass}
    with tempfile.TemporaryDirectory(prefix="demo_run_") as folder:
        return main.simulate(source, policies=policies, wallets=wallets, calendar=Calendar(source.macro_events, policies.news, {}),
                             strategies=strategies, folder=Path(folder))


def exported(seed: int, days: int, folder: Path, *, policies: Policies | None = None, history_days: int = HISTORY_DAYS) -> main.Simulation:
    """A demo run and everything about it in `folder`."""
    export_market(DemoMarket(seed, days), folder, wallets=WALLETS, history_days=history_days)
    simulation = simulate(DemoMarket(seed, days), policies=policies)
    export_run(simulation, folder)
    return simulation
