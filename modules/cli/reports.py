"""Answers to questions, as JSON documents: pure functions of what the authorities know now. The same for a running daemon, whose control
socket serves them, and for a read-only replay of its journal when it is down. All of them hold on empty books.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from modules.cli import sizing
from modules.domain.decision import Decision
from modules.domain.errors import NotFound, OperatorRefused
from modules.domain.instrument import AssetClass
from modules.domain.money import ZERO, text
from modules.domain.position import ClosedTrade
from modules.domain.sessions import iso
from modules.store.codec import to_json
from modules.venues.protocol import TellsContracts

if TYPE_CHECKING:
    from main import Daemon

Arguments = Mapping[str, Any]
Document = dict[str, Any]

DAY_MS: Final = 86_400_000
LAG_MS_MAX: Final = 250.0
"""reliability.md I27."""
ROWS_MAX: Final = 10_000
STOP_SHARE: Final = 0.02
"""How far away the stop of the trade is assumed that "what can be traded at all" is asked with."""


@dataclass(frozen=True)
class Reports:
    """`running` False: the journal alone speaks, so prices and feeds are unknown. `lag` tells the loop's p99 in ms, `judged` the one that
    is a problem when it is too large."""

    daemon: Daemon
    running: bool = True
    lag: Callable[[], float | None] = lambda: None
    judged: Callable[[], float | None] = lambda: None
    waiting: Callable[[], str] = lambda: ""
    """What the start still waits for; "" = nothing."""

    def all(self) -> dict[str, Callable[[Arguments], Document]]:
        """Every question by its verb."""
        return {"status": self.status, "balance": self.balance, "trades": self.trades, "profit": self.profit, "daily": self.daily,
                "performance": self.performance, "explain": self.explain, "funds": self.funds}

    # -- state -------------------------------------------------------------------------------------------------------------

    @property
    def _now(self) -> int:
        return self.daemon.clock.now()

    def _classes(self) -> list[AssetClass]:
        """Classes whose books are open, or that are configured to trade."""
        daemon = self.daemon
        configured = daemon.plan.venue_of if not self.waiting() else ()    # nobody knows yet what a new account holds
        return [c for c in AssetClass if c in configured or daemon.kill_switch.nav(c) is not None]

    def status(self, _: Arguments) -> Document:
        daemon = self.daemon
        feeds = self._feeds() if self.running else {}
        age = self._wallet_age_s()
        document = {
            "mode": daemon.plan.mode, "running": self.running and not self.waiting(),
            "since": iso(daemon.started_at) if daemon.started_at else None,
            "at": iso(self._now), "classes": {c.value: self._class(c) for c in self._classes()}, "feeds": feeds, "wallet_age_s": age,
            "in_doubt": [{"client_order_id": order.client_order_id, "symbol": order.symbol, "side": order.side.value,
                          "quantity": text(order.quantity), "reserved": text(order.reserves)} for order in daemon.executor.in_doubt],
            "loop_lag_ms_p99": self.lag(), "policy_hash": daemon.policies.hash,
        }
        return document | {"problems": self._problems(feeds, age, self.judged())}

    def _class(self, asset_class: AssetClass) -> Document:
        daemon = self.daemon
        halted = daemon.kill_switch.halted_by(asset_class)
        paused = daemon.risk.paused(asset_class)
        equity = daemon.marked_equity(asset_class)
        venue = daemon.plan.venue_of.get(asset_class, "")
        settled = not self.running or daemon.wallets.reconciled.get(venue, False)
        blackout = daemon.news.blackout(asset_class, (), self._now)[0] if self.running else ""
        return {
            "state": "HALTED" if halted else "REDUCING" if paused or not settled else "ACTIVE",
            "currency": daemon.portfolio.ledger(asset_class).currency, "equity": _money(equity),
            "phase": daemon.sizer.phase(equity) if equity is not None else None,
            "drawdown_daily": float(round(daemon.kill_switch.drawdown(asset_class, "day"), 8)),
            "drawdown_monthly": float(round(daemon.kill_switch.drawdown(asset_class, "month"), 8)),
            "drawdown_daily_max": float(daemon.policies.kill_switch.drawdown_daily_max),
            "drawdown_monthly_max": float(daemon.policies.kill_switch.drawdown_monthly_max),
            "open_positions": sum(1 for p in daemon.portfolio.positions.values() if p.asset_class is asset_class),
            "halted_by": halted, "paused": paused, "blackout": blackout, "ramp": self._ramp(asset_class),
        }

    def _ramp(self, asset_class: AssetClass) -> str:
        """How far a class that trades real money is on its ramp; "" = it is over, or this is no real money."""
        if self.daemon.plan.mode != "live":
            return ""
        progress = self.daemon.validation.ramp(asset_class, self._now)
        return progress.note if progress.ramping else ""

    def _feeds(self) -> dict[str, Document]:
        now = self._now
        shown = {}
        for symbol, series in self.daemon.market.series.items():
            age = None if series.closed_at == 0 else max(0.0, round((now - series.closed_at) / 1000.0, 1))
            shown[symbol] = {"state": "lost" if series.lost else "waiting" if age is None else "ok", "age_s": age}
        return shown

    def _wallet_age_s(self) -> float | None:
        if not self.running:
            return None
        ages = [self.daemon.wallets.age_s(c, self._now) for c in self.daemon.plan.venue_of]
        known = [age for age in ages if age is not None]
        return max(known) if known and len(known) == len(ages) else None

    def _problems(self, feeds: Mapping[str, Document], age: float | None, lag: float | None) -> list[str]:
        """What a health check complains about. A halt is not one: it is the daemon doing its work."""
        if not self.running:
            return ["the daemon is not running"]
        if waits := self.waiting():
            return [f"not started yet: {waits}"]
        found = [f"feed {symbol} is lost" for symbol, feed in feeds.items() if feed["state"] == "lost"]
        if not self.daemon.warm:
            found.append("warming up: nothing is opened before the strategies have seen the past")
        limit = self.daemon.policies.risk.wallet_age_s_max
        if age is None or age > limit:
            found.append(f"wallet age {'unknown' if age is None else f'{age:.0f} s'}, limit {limit:.0f} s")
        if lag is not None and lag > LAG_MS_MAX:
            found.append(f"event loop lag p99 {lag:.0f} ms, limit {LAG_MS_MAX:.0f} ms")
        found += self.daemon.executor.problems()
        found += [words for venue in self.daemon.venues.values() if isinstance(venue, TellsContracts) for words in venue.silent()]
        if self.daemon.journal.low_space:
            found.append("the disk is full: entries are closed, what is left of the journal's reserve is for exits; free some space")
        if self.daemon.decisions.degraded:
            found.append(f"decisions are not being recorded ({self.daemon.decisions.degraded}); trading goes on")
        return found

    def balance(self, _: Arguments) -> Document:
        daemon, now = self.daemon, self._now
        shown = {}
        for asset_class in self._classes():
            ledger = daemon.portfolio.ledger(asset_class)
            unrealized = daemon.portfolio.unrealized(asset_class, lambda s: daemon.market.mark(s, now), daemon.market.settle_rate)
            shown[asset_class.value] = {
                "currency": ledger.currency, "equity": _money(daemon.marked_equity(asset_class)), "cash": text(ledger.cash),
                "unrealized": _money(unrealized), "margin": text(daemon.portfolio.margin(asset_class)),
                "reserved": text(daemon.funds.reserved(asset_class)), "transfers": text(ledger.transfers), "net": text(ledger.net),
                "allocated": _money(daemon.funds.allocated(asset_class)),
                "coins": {coin: text(quantity) for coin, quantity in daemon.portfolio.coins(asset_class).items()},
            }
        return {"at": iso(now), "running": self.running, "classes": shown}

    def funds(self, _: Arguments) -> Document:
        funds = self.daemon.funds
        return {"master_on": funds.master_on, "classes": {c.value: {
            "on": funds.class_on(c), "pair_cap": text(funds.pair_cap(c)), "allocated": _money(funds.allocated(c)),
            "reserved": text(funds.reserved(c))} for c in AssetClass}}

    # -- results -----------------------------------------------------------------------------------------------------------

    def trades(self, arguments: Arguments) -> Document:
        daemon = self.daemon
        count = min(whole(arguments, "n", 20), ROWS_MAX)
        return {
            "open": [{
                "trade_id": trade.trade_id, "strategy": trade.opened.strategy, "symbol": trade.opened.symbol,
                "asset_class": trade.opened.asset_class.value, "side": trade.opened.side, "structure": trade.opened.structure,
                "quantity": text(trade.quantity), "entry": text(trade.entry), "stop": self._stop(trade.trade_id, trade.initial_stop),
                "target": trade.opened.target, **self._now_worth(trade.trade_id, trade.opened.symbol),
                "risk": text(trade.opened.risk), "fees": text(trade.fees), "funding": text(trade.funding),
                "opened_at": iso(trade.opened_at) if trade.opened_at else None,
                "closing": trade.requested.value if trade.requested is not None else None, "decision_id": trade.opened.decision_id,
            } for trade in daemon.portfolio.trades.values()],
            "closed": [_closed(trade) for trade in reversed(daemon.portfolio.closed[-count:] if count else [])],
        }

    def _now_worth(self, trade_id: str, symbol: str) -> Document:
        """The present mark, and what the trade would have earned if it were closed there."""
        daemon, now = self.daemon, self._now
        net = daemon.portfolio.net_at_marks(trade_id, lambda each: daemon.market.mark(each, now), daemon.market.settle_rate)
        return {"mark": _money(daemon.market.mark(symbol, now)), "net_now": None if net is None else text(round(net, 8))}

    def _stop(self, trade_id: str, initial: float | None) -> float | None:
        """Where the stop is now, the one it was sized with before the first is placed."""
        trade = self.daemon.executor.trades.get(trade_id)
        return float(trade.stop) if trade is not None and trade.stop is not None else initial

    def profit(self, arguments: Arguments) -> Document:
        days = whole(arguments, "n", 0)
        since = self._now - days * DAY_MS if days else 0
        shown = {}
        for asset_class in self._classes():
            closed = [t for t in self.daemon.portfolio.closed if t.asset_class is asset_class and t.closed_at >= since]
            ledger = self.daemon.portfolio.ledger(asset_class)
            shown[asset_class.value] = {"currency": ledger.currency, **_sums(closed),
                                        "net_with_open": text(ledger.net) if not days else None}
        return {"since": iso(since) if since else None, "running": self.running, "classes": shown}

    def daily(self, arguments: Arguments) -> Document:
        days = max(1, min(whole(arguments, "n", 7), 3650))
        today = self._now // DAY_MS
        classes = self._classes()
        results: dict[tuple[int, AssetClass], list[Decimal]] = {}
        for trade in self.daemon.portfolio.closed:
            if today - days < trade.closed_at // DAY_MS <= today:
                results.setdefault((trade.closed_at // DAY_MS, trade.asset_class), []).append(trade.net)
        return {"running": self.running, "days": [
            {"date": iso(day * DAY_MS)[:10], "classes": {c.value: {
                "trades": len(results.get((day, c), ())), "net": text(sum(results.get((day, c), ()), ZERO))} for c in classes}}
            for day in range(today, today - days, -1)]}

    def performance(self, _: Arguments) -> Document:
        groups: dict[tuple[str, str, AssetClass], list[ClosedTrade]] = {}
        for trade in self.daemon.portfolio.closed:
            groups.setdefault((trade.strategy, trade.symbol, trade.asset_class), []).append(trade)
        rows = [{"strategy": strategy, "symbol": symbol, "asset_class": asset_class.value, **_sums(trades)}
                for (strategy, symbol, asset_class), trades in groups.items()]
        return {"running": self.running, "rows": sorted(rows, key=lambda row: -Decimal(row["net"]))}

    # -- reasons -----------------------------------------------------------------------------------------------------------

    def explain(self, arguments: Arguments) -> Document:
        """Alone the funnel of the last 24 h; with an id (decision or open trade) or a symbol every check of that decision."""
        subject = str(arguments.get("subject") or "")
        if not subject:
            return self._funnels()
        decision = self._decision(subject)
        if decision is None:
            raise NotFound(f"no decision {subject!r}: give a decision's or an open trade's id, or a symbol that had a signal")
        return decision_document(decision)

    def _decision(self, subject: str) -> Decision | None:
        trade = self.daemon.portfolio.trades.get(subject)
        found = self.daemon.decisions.get(trade.opened.decision_id if trade is not None else subject)
        if found is not None:
            return found
        latest = self.daemon.decisions.latest(subject, 1) or self.daemon.decisions.latest(subject.upper(), 1)
        return latest[0] if latest else None

    def _funnels(self) -> Document:
        now = self._now
        funnels = self.daemon.decisions.funnel(now - DAY_MS, now + 1)
        shown = {}
        for asset_class in self._classes():
            funnel = funnels[asset_class]
            miss = funnel.nearest_miss
            equity = self.daemon.marked_equity(asset_class)
            shown[asset_class.value] = {
                "equity": _money(equity), "phase": self.daemon.sizer.phase(equity) if equity is not None else None,
                "bars": funnel.bars, "signals": funnel.signals, "denied": {rule.value: n for rule, n in funnel.denied.items()},
                "orders": funnel.approved, "halted_by": self.daemon.kill_switch.halted_by(asset_class),
                "nearest_miss": None if miss is None else {
                    "decision_id": miss.decision.decision_id, "at": iso(miss.decision.at), "symbol": miss.decision.symbol,
                    "strategy": miss.decision.strategy, "rule": miss.check.rule.value, "measured": to_json(miss.check.measured),
                    "limit": to_json(miss.check.limit), "unit": miss.check.unit},
                "tradable": self._tradable(asset_class, equity), "ramp": self._ramp(asset_class),
            }
        return {"since": iso(now - DAY_MS), "until": iso(now), "running": self.running, "classes": shown}

    def _tradable(self, asset_class: AssetClass, equity: Decimal | None) -> Document:
        """Which instruments this phase can trade at full confidence with a stop 2 % away, and for the others both numbers."""
        daemon, now = self.daemon, self._now
        possible, impossible = [], []
        for symbol, instrument in daemon.market.instruments.items():
            if instrument.asset_class is not asset_class or equity is None:
                continue
            price, rate = daemon.market.mark(symbol, now), daemon.market.settle_rate(symbol)
            if price is None or rate is None or price <= ZERO:
                continue
            entry = float(price)
            stop = None if asset_class is AssetClass.OPTION else entry * (1.0 - STOP_SHARE)
            size = sizing.size_of(sizing.Case(instrument, equity, 1.0, entry, stop, settle_rate=rate), daemon.sizer, daemon.policies)
            if size.approved:
                possible.append(symbol)
            else:
                failed = size.checks[-1]
                impossible.append({"symbol": symbol, "rule": failed.rule.value, "measured": to_json(failed.measured),
                                   "limit": to_json(failed.limit), "unit": failed.unit, "reason": size.reason})
        return {"possible": possible, "impossible": impossible}


# -- pieces ------------------------------------------------------------------------------------------------------------


def decision_document(decision: Decision) -> Document:
    """Every check of one decision, its size's included."""
    size = decision.size
    return {
        "decision_id": decision.decision_id, "at": iso(decision.at), "strategy": decision.strategy, "instrument": decision.symbol,
        "asset_class": decision.asset_class.value, "side": decision.side.value, "score": decision.score, "confidence": decision.confidence,
        "entry": decision.entry, "stop": decision.stop, "target": decision.target, "outcome": decision.outcome.value,
        "stopped_by": decision.stopped_by.value if decision.stopped_by is not None else None,
        "checks": sizing.checks((*decision.checks, *(size.checks if size is not None else ()))),
        "size": sizing.document(size) if size is not None else None, "learning": to_json(decision.learning),
        "policy_hash": decision.policy_hash,
    }


def _closed(trade: ClosedTrade) -> Document:
    return {"trade_id": trade.trade_id, "strategy": trade.strategy, "symbol": trade.symbol, "asset_class": trade.asset_class.value,
            "side": trade.side.value, "quantity": text(trade.quantity), "entry": text(trade.entry), "exit": text(trade.exit),
            "gross": text(trade.gross), "fees": text(trade.fees), "funding": text(trade.funding), "net": text(trade.net),
            "net_r": float(round(trade.net_r, 4)) if trade.net_r is not None else None, "opened_at": iso(trade.opened_at),
            "closed_at": iso(trade.closed_at), "exit_reason": trade.exit_reason.value}


def _sums(trades: Sequence[ClosedTrade]) -> Document:
    wins = [trade.net for trade in trades if trade.net > ZERO]
    losses = [trade.net for trade in trades if trade.net < ZERO]
    in_r = [trade.net_r for trade in trades if trade.net_r is not None]
    return {
        "trades": len(trades), "wins": len(wins), "losses": len(losses), "win_rate": round(len(wins) / len(trades), 4) if trades else None,
        "gross": _total(trade.gross for trade in trades), "fees": _total(trade.fees for trade in trades),
        "funding": _total(trade.funding for trade in trades), "net": _total(trade.net for trade in trades),
        "best": _money(max((trade.net for trade in trades), default=None)),
        "worst": _money(min((trade.net for trade in trades), default=None)),
        "average_r": float(round(sum(in_r, ZERO) / len(in_r), 4)) if in_r else None,
        "profit_factor": float(round(sum(wins, ZERO) / -sum(losses, ZERO), 4)) if losses else None,
    }


def _total(amounts: Iterable[Decimal]) -> str:
    return text(sum(amounts, ZERO))


def _money(value: Decimal | None) -> str | None:
    return None if value is None else text(value)


def whole(arguments: Arguments, name: str, default: int) -> int:
    """A whole number that a person gave. Raises OperatorRefused."""
    value = arguments.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OperatorRefused(f"{name} must be a whole number, not {value!r}")
    return value
