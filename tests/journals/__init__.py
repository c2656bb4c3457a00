"""Frozen journals (README.md), and what is asked of them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from modules.domain.instrument import AssetClass
from modules.domain.money import text
from modules.Portfolio_Manager import PortfolioManager
from modules.store.journal import Journal

HERE = Path(__file__).resolve().parent


def books(journal: Journal) -> dict[str, Any]:
    """What a replay makes of the money: cash, net, closed and open trades per class."""
    portfolio = PortfolioManager(journal=journal, settlement=dict.fromkeys(AssetClass, "USDT"))
    journal.project(portfolio.apply)
    journal.replay()
    return {c.value: {"cash": text(portfolio.ledger(c).cash), "net": text(portfolio.ledger(c).net),
                      "closed": sum(trade.asset_class is c for trade in portfolio.closed),
                      "open": sum(trade.opened.asset_class is c for trade in portfolio.trades.values())} for c in AssetClass}


def unpacked(name: str, folder: Path) -> Path:
    """The frozen journal `name` as a file."""
    path = folder / "journal.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((HERE / f"{name}.sql").read_text(encoding="utf-8"))
    return path
