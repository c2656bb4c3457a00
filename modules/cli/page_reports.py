"""What the web page shows beyond the command line's own reports: equity over time, the decision feed, prices with trades on them.

Pure functions of what the stores and authorities hold; JSON types only, money as text where it is money, floats where it is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

from modules.cli.news_reports import events_document, in_iso, news_document
from modules.domain.decision import Outcome, Rule
from modules.domain.errors import NotFound, OperatorRefused
from modules.domain.position import ClosedTrade
from modules.domain.sessions import iso

if TYPE_CHECKING:
    from main import Daemon
    from modules.cli.reports import Reports
    from modules.domain.decision import Decision
    from modules.notify.web import Document
    from modules.store.candles import Candles
    from modules.store.equity import EquityCurve

Query = Mapping[str, str]
DAY_MS: Final = 86_400_000
POINTS: Final = 250
"""A picture is not drawn finer: a quarter of a wide screen, or a phone."""
BARS_MAX: Final = 500
ROWS_MAX: Final = 200


@dataclass(frozen=True)
class PageReports:
    daemon: Daemon
    reports: Reports
    curve: EquityCurve
    candles: Candles

    def all(self) -> dict[str, Document]:
        """/api/NAME -> its document."""
        reports = self.reports
        return {
            "status": reports.status, "balance": reports.balance, "performance": reports.performance,
            "profit": lambda query: reports.profit(_numbers(query)), "daily": lambda query: reports.daily(_numbers(query)),
            "trades": lambda query: reports.trades(_numbers(query)), "explain": lambda query: reports.explain(query),
            "decisions": self.decisions, "equity": self.equity, "chart": self.chart, "instruments": self.instruments,
            "certificates": self.certificates, "learning": self.learning,
            "news": lambda _: in_iso(news_document(self.daemon.news, self._now)),
            "events": lambda _: in_iso(events_document(self.daemon.news, self._now)),
        }

    @property
    def _now(self) -> int:
        return self.daemon.clock.now()

    def decisions(self, query: Query) -> dict[str, Any]:
        """The newest decisions: ?symbol=&rule=&outcome=APPROVED|DENIED&n=."""
        outcome, rule = query.get("outcome", ""), query.get("rule", "")
        if outcome and outcome not in set(Outcome):
            raise OperatorRefused(f"outcome must be one of {', '.join(Outcome)}, not {outcome!r}")
        if rule and rule not in set(Rule):
            raise NotFound(f"there is no rule {rule!r}")
        found = self.daemon.decisions.search(
            symbol=query.get("symbol", ""), rule=rule, outcome=outcome, limit=_whole(query, "n", 40, ROWS_MAX))
        return {"decisions": [_row(decision) for decision in found], "rules": [rule.value for rule in Rule]}

    def equity(self, query: Query) -> dict[str, Any]:
        """Marked equity and drawdown per class over the last ?days=."""
        days = _whole(query, "days", 7, 3_650)
        now = self._now
        curves = self.curve.read(self.daemon.classes, now - days * DAY_MS, now, POINTS)
        return {"days": days, "until": now, "classes": {c.value: {
            "currency": self.daemon.portfolio.ledger(c).currency,
            "points": [[p.at, float(round(p.equity, 2)), round(p.drawdown_daily, 5), round(p.nav, 6)] for p in points]}
            for c, points in curves.items()}}

    def instruments(self, _: Query) -> dict[str, Any]:
        """What the page can draw: the symbols, those with open trades and the most traded first."""
        return {"instruments": self._drawable()}

    def _drawable(self) -> list[dict[str, Any]]:
        counts: dict[str, int] = {}
        for trade in self.daemon.portfolio.closed[-1_000:]:
            counts[trade.symbol] = counts.get(trade.symbol, 0) + 1
        held = {trade.opened.symbol for trade in self.daemon.portfolio.trades.values()}
        series = self.daemon.market.series
        ordered = sorted(series, key=lambda symbol: (symbol not in held, -counts.get(symbol, 0), symbol))
        return [{"symbol": s, "asset_class": series[s].instrument.asset_class.value, "held": s in held, "trades": counts.get(s, 0)}
                for s in ordered]

    def chart(self, query: Query) -> dict[str, Any]:
        """Bars of ?symbol= (the newest ?n=; without one the first of `instruments`) and what was traded on them."""
        symbol = query.get("symbol", "") or next((row["symbol"] for row in self._drawable()), "")
        series = self.daemon.market.series.get(symbol)
        if series is None:
            raise NotFound(f"no instrument {symbol!r} is watched")
        bars = self.candles.last(symbol, series.interval_ms, _whole(query, "n", 200, BARS_MAX))
        since = int(bars[0].ts) if bars else self._now
        recent = takewhile(lambda trade: trade.closed_at >= since, reversed(self.daemon.portfolio.closed))  # they are kept in order
        closed = [trade for trade in recent if trade.symbol == symbol][::-1]
        working = [trade for trade in self.daemon.portfolio.trades.values() if trade.opened.symbol == symbol and trade.opened_at]
        return {
            "symbol": symbol, "interval_ms": series.interval_ms,
            "bars": [[int(bar.ts), bar.open, bar.high, bar.low, bar.close] for bar in bars],
            "trades": [_drawn(trade) for trade in closed] + [{
                "trade_id": trade.trade_id, "strategy": trade.opened.strategy, "side": trade.opened.side, "entry_at": trade.opened_at,
                "entry": float(trade.entry), "exit_at": None, "exit": None, "net": None, "reason": None,
                "stop": self._stop(trade.trade_id, trade.initial_stop), "target": trade.opened.target} for trade in working],
        }

    def certificates(self, _: Query) -> dict[str, Any]:
        """Every strategy that ever had a certificate, and how it stands now."""
        return {"certificates": [{
            "strategy": strategy, "asset_class": asset_class.value, "valid": not standing.void, "state": standing.void or "in force",
            "days_left": round(standing.days_left, 1), "expires_at": iso(standing.certificate.expires_at),
            "sharpe": standing.certificate.metrics.get("sharpe"), "trades": standing.certificate.envelope.trades,
            "live_trades": standing.trades, "live_net_r": standing.net_r, "instruments": list(standing.certificate.instruments),
        } for (strategy, asset_class), standing in self.daemon.validation.standings(self._now).items()],
            "faults": list(self.daemon.validation.faults)}

    def learning(self, _: Query) -> dict[str, Any]:
        """What is believed of every strategy, and why."""
        learning = self.daemon.learning
        return {"strategies": learning.rows(), "in_force": self.daemon.policies.learning.allocation_on, "frozen": learning.frozen}

    def _stop(self, trade_id: str, initial: float | None) -> float | None:
        trade = self.daemon.executor.trades.get(trade_id)
        return float(trade.stop) if trade is not None and trade.stop is not None else initial


def _drawn(trade: ClosedTrade) -> dict[str, Any]:
    return {"trade_id": trade.trade_id, "strategy": trade.strategy, "side": trade.side.value, "entry_at": trade.opened_at,
            "entry": float(trade.entry), "exit_at": trade.closed_at, "exit": float(trade.exit), "net": float(trade.net),
            "reason": trade.exit_reason.value, "stop": None, "target": None}


def _row(decision: Decision) -> dict[str, Any]:
    failed = next((check for check in decision.checks if not check.passed), None)
    if failed is None and decision.size is not None:
        failed = next((check for check in decision.size.checks if not check.passed), None)
    return {
        "decision_id": decision.decision_id, "at": iso(decision.at), "symbol": decision.symbol, "asset_class": decision.asset_class.value,
        "strategy": decision.strategy, "side": decision.side.value, "confidence": decision.confidence, "outcome": decision.outcome.value,
        "stopped_by": decision.stopped_by.value if decision.stopped_by is not None else None,
        "measured": _plain(failed.measured) if failed is not None else None, "limit": _plain(failed.limit) if failed is not None else None,
        "unit": failed.unit if failed is not None else "",
        "bound_by": decision.size.bound_by.value if decision.size is not None and decision.size.bound_by is not None else None,
    }


def _plain(value: object) -> float | str | None:
    if isinstance(value, (Decimal, int, float)):
        return float(value)
    return None if value is None else str(value)


def _whole(query: Query, name: str, default: int, largest: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise OperatorRefused(f"{name} must be a whole number, not {text[:20]!r}")
    return max(1, min(int(text), largest))


def _numbers(query: Query) -> dict[str, Any]:
    """The query's numbers as the command line's reports take them."""
    return {"n": _whole(query, "n", 20, 10_000)} if query.get("n") else {}
