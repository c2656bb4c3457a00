"""What a chat asks beyond the command line's own reports, as JSON documents: weeks, locks, lists, log lines, pictures' points.

Attached to the operator desk beside cli/reports, so every channel may ask them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modules.cli.news_reports import DAYS, events_document, news_document
from modules.cli.reports import whole
from modules.domain.instrument import AssetClass
from modules.domain.money import ZERO, text
from modules.domain.sessions import iso
from modules.notify.console import trade_size

if TYPE_CHECKING:
    from main import Daemon
    from modules.cli.reports import Reports
    from modules.domain.settings import Settings
    from modules.store.equity import EquityCurve

Arguments = Mapping[str, Any]
Document = dict[str, Any]
DAY_MS: Final = 86_400_000
POINTS: Final = 400
TAIL_BYTES: Final = 65_536
LINES_MAX: Final = 50
PERIODS_MAX: Final = 60


@dataclass(frozen=True)
class ChatReports:
    """`curve` None: no equity was recorded. `log_file`: the daemon's own log."""

    daemon: Daemon
    reports: Reports
    settings: Settings
    version: str
    curve: EquityCurve | None
    log_file: Path

    def all(self) -> dict[str, Callable[[Arguments], Document]]:
        return {
            "weekly": self.weekly, "monthly": self.monthly, "count": self.count, "phase": self.phase, "locks": self.locks,
            "whitelist": self.whitelist, "blacklist": self.blacklist, "show-config": self.show_config, "logs": self.logs,
            "version": self.about, "validation": self.validation, "learning": self.learning, "equity": self.equity,
            "news": self.news, "events": self.events,
        }

    @property
    def _now(self) -> int:
        return self.daemon.clock.now()

    # -- results -----------------------------------------------------------------------------------------------------------

    def weekly(self, arguments: Arguments) -> Document:
        """Net of closed trades per ISO week, newest first."""
        return self._periods(arguments, lambda at: f"{_utc(at):%G-W%V}", 7)

    def monthly(self, arguments: Arguments) -> Document:
        """Net of closed trades per month, newest first."""
        return self._periods(arguments, lambda at: f"{_utc(at):%Y-%m}", 28)

    def _periods(self, arguments: Arguments, label: Callable[[int], str], days: int) -> Document:
        count = max(1, min(whole(arguments, "n", 6), PERIODS_MAX))
        labels: list[str] = []
        at = self._now
        while len(labels) < count:
            if (name := label(at)) not in labels:
                labels.append(name)
            at -= days * DAY_MS // 4
        results: dict[tuple[str, AssetClass], list[Decimal]] = {}
        for trade in self.daemon.portfolio.closed:
            results.setdefault((label(trade.closed_at), trade.asset_class), []).append(trade.net)
        classes = self.daemon.classes
        return {"periods": [{"label": name, "classes": {c.value: {
            "trades": len(results.get((name, c), ())), "net": text(sum(results.get((name, c), ()), ZERO))} for c in classes}}
            for name in labels]}

    def equity(self, arguments: Arguments) -> Document:
        """Marked equity, drawdowns and the value of a unit per class over the last n days."""
        days = max(1, min(whole(arguments, "n", 7), 3_650))
        now = self._now
        wanted = str(arguments.get("asset_class") or "ALL")
        classes = [c for c in self.daemon.classes if wanted in ("ALL", c.value)]
        curves = self.curve.read(classes, now - days * DAY_MS, now, POINTS) if self.curve is not None else {}
        return {"days": days, "until": now, "classes": {c.value: {
            "currency": self.daemon.portfolio.ledger(c).currency,
            "points": [[p.at, float(p.equity), p.drawdown_daily, p.drawdown_monthly, p.nav] for p in points]}
            for c, points in curves.items()}}

    # -- state -------------------------------------------------------------------------------------------------------------

    def count(self, _: Arguments) -> Document:
        trades = [trade.opened.asset_class for trade in self.daemon.portfolio.trades.values()]
        return {"open": len(trades), "max": self.daemon.policies.risk.max_open_trades,
                "classes": {c.value: trades.count(c) for c in self.daemon.classes}}

    def phase(self, _: Arguments) -> Document:
        shown = {}
        for asset_class in self.daemon.classes:
            equity = self.daemon.marked_equity(asset_class)
            phase = self.daemon.sizer.phase(equity) if equity is not None else None
            shown[asset_class.value] = {
                "equity": None if equity is None else text(equity), "currency": self.daemon.portfolio.ledger(asset_class).currency,
                "phase": phase, "a_trade": "its value is unknown, a price is missing" if equity is None or phase is None
                else trade_size(phase, equity, self.daemon.policies)}
        return {"classes": shown}

    def locks(self, _: Arguments) -> Document:
        """Everything that keeps entries closed now."""
        daemon, now = self.daemon, self._now
        found = [{"scope": fact.scope.value, "what": f"halted by {fact.trigger.value}", "reason": fact.reason or fact.measured,
                  "until": iso(fact.until) if fact.until is not None else None} for fact in daemon.kill_switch.halts()]
        for asset_class in daemon.classes:
            if daemon.risk.paused(asset_class):
                found.append({"scope": asset_class.value, "what": "paused", "reason": "by an operator", "until": None})
            name, until = daemon.news.blackout(asset_class, (), now)
            if name:
                found.append({"scope": asset_class.value, "what": "blackout", "reason": name,
                              "until": iso(until) if until is not None else None})
        found += [{"scope": symbol, "what": "barred", "reason": "by an operator", "until": None} for symbol in daemon.desk.barred]
        return {"locks": found}

    def whitelist(self, _: Arguments) -> Document:
        series = self.daemon.market.series
        return {"patterns": list(self.settings.pair_whitelist), "symbols": {c.value: [
            symbol for symbol, each in series.items() if each.instrument.asset_class is c and self.settings.tradable(symbol)
            and symbol not in self.daemon.desk.barred] for c in self.daemon.classes}}

    def blacklist(self, _: Arguments) -> Document:
        return {"configured": list(self.settings.pair_blacklist), "barred": list(self.daemon.desk.barred)}

    def validation(self, _: Arguments) -> Document:
        """Certified strategies, and on how many of the watched instruments."""
        at, validation = self._now, self.daemon.validation
        rows, certified = [], set()
        for asset_class, strategies in self.daemon.plan.strategies.items():
            symbols = [symbol for symbol, each in self.daemon.market.series.items() if each.instrument.asset_class is asset_class]
            for strategy in strategies:
                covered = sum(validation.certificate(strategy.name, symbol, asset_class, at) is not None for symbol in symbols)
                if covered:
                    certified.add(strategy.name)
                    rows.append({"strategy": strategy.name, "asset_class": asset_class.value, "symbols": covered})
        names = {strategy.name for strategies in self.daemon.plan.strategies.values() for strategy in strategies}
        return {"strategies": len(names), "certified": len(certified), "rows": rows}

    def learning(self, _: Arguments) -> Document:
        learning = self.daemon.learning
        return {"enabled": self.daemon.policies.learning.allocation_on, "lines": learning.lines(), "strategies": learning.rows(),
                "state": learning.document(),
                "state_hash": learning.state_hash()}

    def news(self, arguments: Arguments) -> Document:
        asset = str(arguments.get("subject") or "").upper()
        return news_document(self.daemon.news, self._now, (asset,) if asset else None)

    def events(self, arguments: Arguments) -> Document:
        """What comes within `days` and what it will close."""
        days = arguments.get("days")
        return events_document(self.daemon.news, self._now, float(days) if isinstance(days, int | float) and days > 0 else DAYS)

    # -- tools -------------------------------------------------------------------------------------------------------------

    def show_config(self, _: Arguments) -> Document:
        return {"settings": self.settings.public()}

    def about(self, _: Arguments) -> Document:
        daemon = self.daemon
        return {"version": self.version, "mode": daemon.plan.mode, "policy_hash": daemon.policies.hash,
                "since": iso(daemon.started_at) if daemon.started_at else None}

    def logs(self, arguments: Arguments) -> Document:
        """The last lines of the log, newest last. A log that cannot be read is an empty one."""
        count = max(1, min(whole(arguments, "n", 10), LINES_MAX))
        try:
            with self.log_file.open("rb") as handle:
                handle.seek(max(0, handle.seek(0, 2) - TAIL_BYTES))
                raw = handle.read(TAIL_BYTES).splitlines()[-count:]
        except OSError:
            raw = []
        lines = []
        for line in raw:
            try:
                fields = json.loads(line)
            except ValueError:
                continue    # the first one may be cut
            if isinstance(fields, dict):
                lines.append({"at": str(fields.get("timestamp", "")), "level": str(fields.get("levelname", "")),
                              "message": str(fields.get("message", ""))})
        return {"lines": lines}


def _utc(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1000, UTC)
