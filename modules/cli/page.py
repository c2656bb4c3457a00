"""Everything the web page needs beside the daemon: curves and candles on disk, metrics, the server. Built only where [http] is enabled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from modules.domain.instrument import AssetClass
from modules.store.candles import Candles
from modules.store.equity import EquityCurve

if TYPE_CHECKING:
    from main import Daemon
    from modules.cli.reports import Reports
    from modules.domain.settings import HttpSettings
    from modules.notify.metrics import Metrics
    from modules.notify.web import WebPage
    from modules.store.lock import StateFolder

KEEP_CANDLES_MS: Final = 30 * 86_400_000


class Pictures:
    """The curve of every class's equity and the bars behind the price chart, kept in the state folder."""

    def __init__(self, folder: StateFolder) -> None:
        self.curve = EquityCurve(folder.equity)
        self.candles = Candles(folder.candles)

    def sample(self, daemon: Daemon, at: int) -> None:
        """After every batch: the classes' equity on the curve's grid. A class whose value is unknown is left out."""
        if not self.curve.due(at):
            return
        points = {}
        switch = daemon.kill_switch
        for asset_class in daemon.classes:
            equity, nav = daemon.marked_equity(asset_class), switch.nav(asset_class)
            if equity is not None and nav is not None:
                points[asset_class] = (
                    equity, float(nav), float(switch.drawdown(asset_class, "day")), float(switch.drawdown(asset_class, "month")))
        self.curve.record(at, points)

    def flush(self) -> None:
        self.curve.flush()
        self.candles.flush()

    def prune(self, now: int) -> None:
        self.curve.thin_out(now)
        self.candles.prune(now - KEEP_CANDLES_MS)

    def close(self) -> None:
        self.curve.close()
        self.candles.close()


def metrics(daemon: Daemon, reports: Reports, version: str) -> Metrics:
    from modules.notify.metrics import Metrics

    return Metrics(lambda: reports.status({}), lambda: reports.balance({}), {
        "journal_rows": ("Facts in the journal", lambda: daemon.journal.count),
        "closed_trades": ("Round trips in the books", lambda: len(daemon.portfolio.closed)),
        "asyncio_tasks": ("Tasks of the event loop", lambda: len(asyncio.all_tasks())),
        "bars": ("Closed bars seen since the start", lambda: sum(daemon.market.bars_seen(c) for c in AssetClass)),
    }, version)


def server(settings: HttpSettings, daemon: Daemon, reports: Reports, pictures: Pictures, measured: Metrics) -> WebPage:
    """Raises ConfigurationError for an address that others could reach."""
    from modules.cli.page_reports import PageReports
    from modules.notify.web import WebPage

    documents = PageReports(daemon, reports, pictures.curve, pictures.candles).all()
    return WebPage(settings.host, settings.port, documents, lambda: list(reports.status({})["problems"]), measured.render)
