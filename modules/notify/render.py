"""One sentence in plain English and one log line per fact. Pure but for FactLogger, which remembers orders to name them in full.

Facts that no person waits for (an order sent, a peak raised) have no sentence; every fact has a log line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from modules.domain.decision import Decision, Outcome
from modules.domain.events import (
    ApiErrorSeen,
    BalanceAdjusted,
    BaselineRolled,
    BlackoutClosed,
    BlackoutOpened,
    BudgetChanged,
    ChallengerEntered,
    ChallengerJudged,
    DaemonStarted,
    EntriesPaused,
    EntriesResumed,
    ExitRequested,
    Fact,
    FeedLost,
    FeedRestored,
    Filled,
    ForeignFill,
    ForeignOrder,
    FundingBooked,
    InstrumentListed,
    InstrumentsChosen,
    OperatorCommand,
    OptionSettled,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderInDoubt,
    OrderIntended,
    OrderRejected,
    OrderSent,
    PeakRaised,
    PhaseChanged,
    PositionClosed,
    Reconciled,
    Scope,
    StrategyApproved,
    StrategyDemoted,
    StrategyRejected,
    StrategyRevoked,
    SwitchChanged,
    TradeAbandoned,
    TradeOpened,
    TradingHalted,
    TradingRearmed,
    TransferSeen,
    Trigger,
    UnallocatedMoved,
)
from modules.domain.money import text
from modules.domain.order import DRILL_MARK, Fill, Order
from modules.domain.sessions import iso

Line = tuple[str, str, dict[str, Any]]
"""(level, message, fields)"""

_ORDERS_KEPT: Final = 5_000
_ASIA, _LONDON, _NEW_YORK = range(7), range(7, 13), range(13, 21)
_DAY_HOURS: Final = 24
_HOUR_MS: Final = 3_600_000


def session(at: int) -> str:
    """Which part of the trading day `at` (UTC ms) falls into, by UTC hour."""
    hour = at // _HOUR_MS % _DAY_HOURS
    return "asia" if hour in _ASIA else "london" if hour in _LONDON else "new_york" if hour in _NEW_YORK else "pacific"


def _amount(value: Decimal, places: int = 2) -> str:
    return f"{value:,.{places}f}"


def _price(value: Decimal | float) -> str:
    exact = Decimal(f"{value:.7g}") if isinstance(value, float) else value
    return f"{exact.normalize():,f}"


def _when(at: int) -> str:
    return iso(at)[11:16]


def _scope(scope: Scope) -> str:
    return "all classes" if scope is Scope.ALL else scope.value


# -- sentences ---------------------------------------------------------------------------------------------------------


def _opened(fact: TradeOpened) -> str:
    legs = ", ".join(f"{leg.side} {_price(leg.quantity)} {leg.symbol}" for leg in fact.legs) or f"{fact.side} {fact.symbol}"
    stop = f"stop {_price(fact.stop)}" if fact.stop is not None else "no stop"
    return f"{fact.asset_class}: {fact.strategy} opens {legs} near {_price(fact.entry)}, {stop}, at risk {_amount(fact.risk)}."


def _fill(fill: Fill) -> str:
    verb = "Bought" if fill.side.sign > 0 else "Sold"
    forced = f" by the venue ({_forced(fill)})" if fill.liquidation else " by the owner, at the venue" if fill.by_owner else ""
    fee = f"{_price(fill.fee)} {fill.fee_currency}"
    return f"{verb} {_price(fill.quantity)} {fill.symbol} at {_price(fill.price)}{forced}, fee {fee}."


def _forced(fill: Fill) -> str:
    return "delisted" if fill.delisted else "liquidation"


def _closed(fact: PositionClosed) -> str:
    trade = fact.trade
    in_r = f" ({trade.net_r:+.2f} R)" if trade.net_r is not None else ""
    return (f"{trade.asset_class}: {trade.strategy} closed {trade.symbol} by {trade.exit_reason}: {trade.net:+,.2f} net{in_r}"
            f" = {trade.gross:+,.2f} gross - {_amount(trade.fees)} fees {trade.funding:+,.2f} funding.")


def _halted(fact: TradingHalted) -> str:
    numbers = f": {fact.measured} against {fact.limit}" if fact.measured and fact.limit else ""
    until = f"until {iso(fact.until)[:16]} UTC" if fact.until is not None else "until re-armed"
    if fact.trigger is Trigger.MANUAL:
        said = fact.reason or "by the operator"
        return f"HALTED {_scope(fact.scope)}{' ' if said.startswith('by ') else ': '}{said}. No entries {until}."
    return f"HALTED {_scope(fact.scope)} by {fact.trigger}{numbers}. No entries {until}. {fact.reason}".rstrip()


def _budget(fact: BudgetChanged) -> str:
    cap = f"pair cap {fact.pair_cap * 100:.2f} % of equity" if fact.pair_cap is not None else ""
    allocate = f"allocation {_amount(fact.allocate)}" if fact.allocate is not None else ""
    return f"{_scope(fact.scope)}: {' and '.join(filter(None, (cap, allocate)))} by {fact.by}."


def _transfer(fact: TransferSeen) -> str:
    what = "opens with" if fact.venue_ref.startswith("opening") else "deposit of" if fact.amount > 0 else "withdrawal of"
    return f"{fact.asset_class}: {what} {_amount(abs(fact.amount))}."


def _chosen(fact: InstrumentsChosen) -> str | None:
    """Only changes are worth a sentence."""
    parts = [f"new {', '.join(fact.came)}"] if fact.came else []
    parts += [f"gone {', '.join(f'{symbol} ({why})' for symbol, why in fact.went.items())}"] if fact.went else []
    parts += [f"watched only {', '.join(f'{symbol} ({why})' for symbol, why in fact.kept.items())}"] if fact.kept else []
    return f"{fact.venue}: {len(fact.symbols)} instruments by rule; {'; '.join(parts)}." if parts else None


_SENTENCES: Final[Mapping[type, Callable[[Any], str | None]]] = {
    DaemonStarted: lambda f: f"{f.mode.upper()} started, version {f.version}, policies {f.policy_hash[:8]}.",
    FeedLost: lambda f: f"{f.symbol}: feed lost, no entries on it: {f.reason}.",
    FeedRestored: lambda f: f"{f.symbol}: feed is back.",
    InstrumentsChosen: _chosen,
    TradeOpened: _opened,
    OrderRejected: lambda f: f"The venue rejected order {f.client_order_id}: {f.code} {f.reason}.",
    OrderInDoubt: lambda f: f"IN DOUBT: nobody knows yet what became of order {f.client_order_id}: {f.reason}. Its funds stay reserved.",
    Filled: lambda f: _fill(f.fill),
    ForeignFill: lambda f: f"{'Of a drill' if f.fill.client_order_id.startswith(DRILL_MARK) else 'Not ours'}: {_fill(f.fill)}",
    OptionSettled: lambda f: f"{f.symbol} expired: {_price(f.quantity)} settled at {_price(f.value)} each, fee {_price(f.fee)}.",
    PositionClosed: _closed,
    PhaseChanged: lambda f: (f"{f.asset_class} is in phase {f.phase} (equity {_amount(f.equity)})."
                             if not f.phase_before else
                             f"{f.asset_class}: phase {f.phase_before} to {f.phase} at an equity of {_amount(f.equity)}."),
    TransferSeen: _transfer,
    UnallocatedMoved: lambda f: f"{f.venue}: the owner's part changed by {f.currency} {_price(f.amount)}: {f.reason}.",
    ForeignOrder: lambda f: f"{f.venue}: an order of nobody we know rests on the account: {f.symbol} {f.client_order_id or 'by hand'}.",
    BalanceAdjusted: lambda f: f"{f.asset_class}: {f.currency} differed from the books by {_price(f.amount)}, booked: {f.reason}.",
    Reconciled: lambda f: f"{f.venue}: books and venue compared, {f.differences or 'no'} difference{'s' if f.differences != 1 else ''}.",
    ApiErrorSeen: lambda f: f"{f.venue}: {f.kind}: {f.message}" + (f" ({f.consecutive} in a row)." if f.consecutive > 1 else "."),
    TradingHalted: _halted,
    TradingRearmed: lambda f: f"RE-ARMED {_scope(f.scope)} ({f.trigger}) by {f.by}: {f.reason}.",
    SwitchChanged: lambda f: f"Funds {'on' if f.on else 'OFF'} for {_scope(f.scope)} by {f.by}.",
    BudgetChanged: _budget,
    OperatorCommand: lambda f: f"Command from {f.by}: {f.command} {f.arguments}".rstrip() + ".",
    EntriesPaused: lambda f: f"Entries PAUSED for {_scope(f.scope)} by {f.by}; exits and stops run on.",
    EntriesResumed: lambda f: f"Entries resumed for {_scope(f.scope)} by {f.by}.",
    BlackoutOpened: lambda f: (f"Blackout for {f.event} (at {_when(f.scheduled)}) until {_when(f.until)} UTC: "
                               f"no entries in {', '.join(f.classes)}."),
    BlackoutClosed: lambda f: f"Blackout for {f.event} is over.",
    ExitRequested: lambda f: f"Closing trade {f.trade_id}: {f.reason}.",
    TradeAbandoned: lambda f: f"Trade {f.trade_id} never began: {f.reason}.",
    StrategyApproved: lambda f: (f"{f.certificate.strategy} ({f.certificate.asset_class}) is certified for "
                                 f"{len(f.certificate.instruments)} instruments until {iso(f.certificate.expires_at)[:10]}."),
    StrategyRejected: lambda f: f"{f.strategy} ({f.asset_class}): revalidation says {f.verdict.replace('_', ' ').lower()}. {f.missing}",
    StrategyRevoked: lambda f: f"The certificate of {f.strategy} ({f.asset_class}) is revoked by {f.by}: {f.reason}.",
    StrategyDemoted: lambda f: (f"{f.strategy} ({f.asset_class}) is demoted to paper: {f.reason} "
                                f"({f.watch} {f.measured:.3g}, limit {f.limit:.3g})."),
    ChallengerEntered: lambda f: (f"{f.champion} ({f.asset_class}): new parameters trade in its shadow as {f.challenger}; no money is on "
                                  "them."),
    ChallengerJudged: lambda f: (f"{f.champion} ({f.asset_class}): {f.challenger} is {f.outcome.replace('_', ' ').lower()} after "
                                 f"{f.trades} trades on {f.days} days, {f.difference_r:+.3f} R a day against it (p {f.p:.3f}). {f.reason}"),
}


def sentence(fact: Fact) -> str | None:
    """What happened, in plain English with the numbers; None for facts that only the machine needs."""
    made = _SENTENCES.get(type(fact))
    return made(fact) if made is not None else None


# -- log lines ---------------------------------------------------------------------------------------------------------

_ACTIONS: Final[Mapping[type, str]] = {
    OrderIntended: "order_intent", OrderSent: "order_sent", OrderInDoubt: "order_in_doubt", OrderAccepted: "order_ack",
    OrderRejected: "reject", OrderCanceled: "cancel", OrderExpired: "cancel", Filled: "fill", ForeignFill: "fill",
    PositionClosed: "close", OptionSettled: "close", TradeAbandoned: "cancel", ExitRequested: "close",
    Reconciled: "reconcile", BalanceAdjusted: "reconcile", TradingHalted: "kill_switch_activated", TradingRearmed: "kill_switch_reset",
    SwitchChanged: "funds_change", BudgetChanged: "funds_change", TransferSeen: "wallet_sync", FundingBooked: "wallet_sync",
    UnallocatedMoved: "wallet_sync", ForeignOrder: "reconcile",
    BlackoutOpened: "event_pause", BlackoutClosed: "event_pause", TradeOpened: "size",
}
_LEVELS: Final[Mapping[type, str]] = {
    TradingHalted: "CRITICAL", OrderInDoubt: "WARNING", OrderRejected: "WARNING", FeedLost: "WARNING", ApiErrorSeen: "WARNING",
    ForeignFill: "WARNING", ForeignOrder: "WARNING", StrategyDemoted: "WARNING", StrategyRevoked: "WARNING", StrategyRejected: "WARNING",
    BalanceAdjusted: "ERROR", TradingRearmed: "WARNING", EntriesPaused: "WARNING",
    BaselineRolled: "DEBUG", PeakRaised: "DEBUG", InstrumentListed: "DEBUG",
}
_SAME: Final = (
    "client_order_id", "trade_id", "decision_id", "symbol", "asset_class", "phase", "equity", "confidence", "reason", "mode", "policy_hash",
    "amount", "currency", "measured", "limit", "trigger", "by", "command", "arguments", "period", "nav", "differences", "side", "scope",
    "until", "on", "code", "rate", "quantity", "value")
_NAMES: Final[Mapping[str, str]] = {name: name for name in _SAME} | {
    "strategy": "strategy_id", "venue": "exchange", "pair_cap": "pair_cap_pct", "allocate": "allowed_funds", "kind": "error_kind"}
"""Attribute of a fact -> its name in the log."""


def _plain(value: Any) -> Any:
    return text(value) if isinstance(value, Decimal) else str(value) if isinstance(value, str) else value


def log_fields(fact: Fact) -> Line:
    """(level, message, fields) of one fact. Money is text; `event` is the fact's name, `action` one of the owner's words."""
    kind = type(fact)
    fields: dict[str, Any] = {"event": kind.__name__, "action": _ACTIONS.get(kind)}
    for attribute, name in _NAMES.items():
        value = getattr(fact, attribute, None)
        if value is not None:
            fields[name] = _plain(value)
    if isinstance(fact, (Filled, ForeignFill)):
        fields |= _fill_fields(fact.fill)
    elif isinstance(fact, OrderIntended):
        fields |= order_fields(fact.order)
    elif isinstance(fact, PositionClosed):
        trade = fact.trade
        fields |= {
            "trade_id": trade.trade_id, "strategy_id": trade.strategy, "symbol": trade.symbol, "asset_class": trade.asset_class.value,
            "side": trade.side.value, "fees_usd": text(trade.fees), "pnl_net_usd": text(trade.net), "pnl_gross_usd": text(trade.gross),
            "funding_usd": text(trade.funding), "exit_reason": trade.exit_reason.value, "confidence": trade.confidence,
            "signal_score": trade.score}
    elif isinstance(fact, TradeOpened):
        fields |= {"signal_score": fact.score, "risk_usd": text(fact.risk)}
    elif isinstance(fact, InstrumentListed):
        fields |= {"symbol": fact.instrument.symbol, "asset_class": fact.instrument.asset_class.value, "exchange": fact.instrument.venue}
    elif isinstance(fact, (BlackoutOpened, BlackoutClosed)):
        fields["reason"] = fact.event
    return _LEVELS.get(kind, "INFO"), sentence(fact) or _fallback(fact), fields


def _fallback(fact: Fact) -> str:
    return " ".join(filter(None, (type(fact).__name__, str(getattr(fact, "client_order_id", "") or getattr(fact, "symbol", "")))))


def _fill_fields(fill: Fill) -> dict[str, Any]:
    fields = {"client_order_id": fill.client_order_id, "symbol": fill.symbol, "exchange": fill.venue, "side": fill.side.value,
              "quantity": text(fill.quantity), "price": text(fill.price), "fees_usd": text(fill.fee * fill.fee_rate),
              "fee_currency": fill.fee_currency}
    return fields | ({"exit_reason": _forced(fill)} if fill.liquidation else {})


def order_fields(order: Order) -> dict[str, Any]:
    """What is known of an order, under the names of the log."""
    return {"client_order_id": order.client_order_id, "trade_id": order.trade_id, "decision_id": order.decision_id,
            "strategy_id": order.strategy, "exchange": order.venue, "symbol": order.symbol, "asset_class": order.asset_class.value,
            "side": order.side.value, "quantity": text(order.quantity), "leverage": text(order.leverage),
            "size_usd": text(order.notional) if order.notional else None, "order_kind": order.kind.value, "purpose": order.purpose.value,
            "exit_reason": order.exit_reason.value if order.exit_reason is not None else None}


def decision_fields(decision: Decision) -> Line:
    """The log line of a decision: `signal` if it trades, `reject` with the rule and both numbers if not."""
    size = decision.size
    fields: dict[str, Any] = {
        "event": "Decision", "action": "signal" if decision.outcome is Outcome.APPROVED else "reject", "decision_id": decision.decision_id,
        "asset_class": decision.asset_class.value, "symbol": decision.symbol, "strategy_id": decision.strategy, "side": decision.side.value,
        "signal_score": decision.score, "confidence": decision.confidence, "policy_hash": decision.policy_hash,
        "reason": decision.stopped_by.value if decision.stopped_by is not None else "",
        "phase": size.phase if size is not None else None, "size_usd": text(size.notional) if size is not None else None,
        "leverage": text(size.leverage) if size is not None else None,
    }
    return "INFO", decision_sentence(decision), fields


def decision_sentence(decision: Decision) -> str:
    what = f"{decision.asset_class}: {decision.strategy} wants {decision.side} {decision.symbol} at {_price(decision.entry)}"
    size = decision.size
    if decision.outcome is Outcome.APPROVED and size is not None:
        return f"{what}: approved, {_amount(size.notional)} (bound by {size.bound_by}), at risk {_amount(size.risk)}."
    every = (*decision.checks, *(size.checks if size is not None else ()))
    check = next((check for check in every if check.rule is decision.stopped_by and not check.passed), None)
    if check is None:
        return f"{what}: denied, {decision.stopped_by}."
    measured = "unknown" if check.measured is None else f"{float(check.measured):.6g}"
    limit = f" (limit {float(check.limit):.6g} {check.unit})".replace(" )", ")") if check.limit is not None else ""
    return f"{what}: denied, {check.rule} {measured}{limit}."


class FactLogger:
    """Writes one log line per new fact and per decision, with the time they carry. `mode` goes into every line."""

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._log = logging.getLogger("trading_bot")
        self._orders: dict[str, Order] = {}

    def learn(self, fact: Fact) -> None:
        """Remember orders, so that later facts about them name instrument and trade. A projection: past facts count too."""
        if isinstance(fact, OrderIntended):
            self._orders[fact.order.client_order_id] = fact.order
            if len(self._orders) > _ORDERS_KEPT:
                del self._orders[next(iter(self._orders))]

    def on_fact(self, fact: Fact) -> None:
        self.learn(fact)
        level, message, fields = log_fields(fact)
        order = self._orders.get(fields.get("client_order_id", ""))
        if order is not None:
            fields = order_fields(order) | {key: value for key, value in fields.items() if value is not None}
        self._write(fact.at, level, message, fields)

    def on_decision(self, decision: Decision) -> None:
        self._write(decision.at, *decision_fields(decision))

    def _write(self, at: int, level: str, message: str, fields: dict[str, Any]) -> None:
        known = {key: value for key, value in fields.items() if value is not None}
        self._log.log(logging.getLevelNamesMapping()[level], "%s", message,
                      extra={"fields": {"mode": self._mode, "session": session(at), **known}, "at": at})
