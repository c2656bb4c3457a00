"""What a simulated run is remembered by: equity curves, drawdowns, denials, halts, and the JSON document of `demo` and `replay`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from modules.domain.decision import Decision, Outcome
from modules.domain.events import (
    BaselineRolled,
    BlackoutOpened,
    Fact,
    Filled,
    FundingBooked,
    OptionSettled,
    PeakRaised,
    PhaseChanged,
    PositionClosed,
    TradingHalted,
    TradingRearmed,
    TransferSeen,
)
from modules.domain.instrument import AssetClass
from modules.domain.money import ZERO, book, text
from modules.domain.sessions import iso

HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR
HOURLY_DAYS_MAX: Final = 60
"""Runs up to this long keep an hourly equity curve, longer ones a daily one."""


class Recorder:
    """Hears every new fact, every decision and every instant of a run. Attach `on_fact`, `on_decision` and `after_batch`."""

    def __init__(self, length_ms: int) -> None:
        self._equity: Callable[[AssetClass], Decimal | None] = lambda _: None
        self._drawdown: Callable[[AssetClass, str], Decimal] = lambda _, __: ZERO
        self._nav: Callable[[AssetClass], Decimal | None] = lambda _: None
        self._classes: tuple[AssetClass, ...] = ()
        self._noted: dict[AssetClass, Decimal | None] = dict.fromkeys(AssetClass)
        self._lowest: dict[AssetClass, Decimal | None] = dict.fromkeys(AssetClass)
        """The lowest value of a unit since its peaks last moved, None right after: above it no drawdown can be a new worst."""
        self._step = HOUR if length_ms <= HOURLY_DAYS_MAX * DAY else DAY
        self._next = 0
        self.curve: dict[AssetClass, list[tuple[int, Decimal]]] = {c: [] for c in AssetClass}
        self.worst: dict[AssetClass, dict[str, Decimal]] = {c: {"day": ZERO, "month": ZERO} for c in AssetClass}
        self.denials: dict[AssetClass, Counter[str]] = {c: Counter() for c in AssetClass}
        self.signals: Counter[AssetClass] = Counter()
        self.halts: list[dict[str, Any]] = []
        self.phases: dict[AssetClass, list[dict[str, Any]]] = {c: [] for c in AssetClass}
        self.trades: list[PositionClosed] = []
        self.fills: list[Filled] = []
        self.funding: list[FundingBooked] = []
        self.settlements: list[OptionSettled] = []
        self.transfers: list[TransferSeen] = []
        self.decisions: list[Decision] = []
        self.blackouts = 0

    def attach(self, equity: Callable[[AssetClass], Decimal | None], drawdown: Callable[[AssetClass, str], Decimal],
               nav: Callable[[AssetClass], Decimal | None], classes: Iterable[AssetClass]) -> None:
        """Where to ask for a class's marked equity, its drawdown of "day" or "month" and the value of a unit, for which classes."""
        self._equity = equity
        self._drawdown = drawdown
        self._nav = nav
        self._classes = tuple(classes)

    def on_decision(self, decision: Decision) -> None:
        self.signals[decision.asset_class] += 1
        if decision.outcome is Outcome.DENIED and decision.stopped_by is not None:
            self.denials[decision.asset_class][decision.stopped_by.value] += 1
        self.decisions.append(decision)

    def on_fact(self, fact: Fact) -> None:
        kind = type(fact)
        if kind is PeakRaised or kind is BaselineRolled:
            self._lowest[fact.asset_class] = None  # type: ignore[union-attr]
        elif kind is Filled:
            self.fills.append(fact)  # type: ignore[arg-type]
        elif kind is PositionClosed:
            self.trades.append(fact)  # type: ignore[arg-type]
        elif kind is FundingBooked:
            self.funding.append(fact)  # type: ignore[arg-type]
        elif kind is OptionSettled:
            self.settlements.append(fact)  # type: ignore[arg-type]
        elif kind is TransferSeen:
            self.transfers.append(fact)  # type: ignore[arg-type]
        elif isinstance(fact, TradingHalted):
            for asset_class in AssetClass:
                if fact.scope.covers(asset_class):
                    self.halts.append({"class": asset_class, "trigger": fact.trigger.value, "at": fact.at, "measured": fact.measured,
                                       "limit": fact.limit, "rearmed_at": None})
        elif isinstance(fact, TradingRearmed):
            for halt in self.halts:
                if halt["rearmed_at"] is None and halt["trigger"] == fact.trigger.value and fact.scope.covers(halt["class"]):
                    halt["rearmed_at"] = fact.at
        elif isinstance(fact, PhaseChanged):
            self.phases[fact.asset_class].append({"at": iso(fact.at), "phase": fact.phase})
        elif isinstance(fact, BlackoutOpened):
            self.blackouts += 1

    def after_batch(self, at: int) -> None:
        """After every instant's marks: the worst drawdowns, and the equity curve on its grid."""
        noted, value = self._noted, self._nav
        for asset_class in self._classes:
            nav = value(asset_class)
            if nav is not noted[asset_class]:  # the same value again cannot be further down
                noted[asset_class] = nav
                lowest = self._lowest[asset_class]
                if lowest is None or nav is None or nav < lowest:
                    self._lowest[asset_class] = nav
                    self._note_drawdown(asset_class)
        if at >= self._next:
            self._next = at - at % self._step + self._step
            self.sample(at)

    def sample(self, at: int) -> None:
        for asset_class in self._classes:
            equity = self._equity(asset_class)
            if equity is not None:
                self.curve[asset_class].append((at, equity))

    def _note_drawdown(self, asset_class: AssetClass) -> None:
        worst = self.worst[asset_class]
        for period in ("day", "month"):
            drawdown = self._drawdown(asset_class, period)
            if drawdown > worst[period]:
                worst[period] = drawdown

    def classes(self, wanted: Mapping[AssetClass, Decimal]) -> dict[str, dict[str, Any]]:
        """The per-class part of the document; `wanted` names the classes and their opening balances."""
        documents: dict[str, dict[str, Any]] = {}
        for asset_class, opening in wanted.items():
            trades = [fact.trade for fact in self.trades if fact.trade.asset_class is asset_class]
            curve = self.curve[asset_class]
            slippage = [trade.slippage_bp for trade in trades]
            documents[asset_class.value] = {
                "equity_start": text(opening),
                "equity_end": text(book(curve[-1][1])) if curve else text(opening),
                "equity_curve": [[iso(at), text(book(equity))] for at, equity in curve],
                "signals": self.signals[asset_class],
                "trades": len(trades),
                "gross_pnl": text(sum((trade.gross for trade in trades), ZERO)),
                "net_pnl": text(sum((trade.net for trade in trades), ZERO)),
                "fees": text(sum((trade.fees for trade in trades), ZERO)),
                "funding": text(sum((trade.funding for trade in trades), ZERO)),
                "slippage_bp": float(round(sum(slippage, ZERO) / len(slippage), 4)) if slippage else 0.0,
                "drawdown_daily_max": float(round(self.worst[asset_class]["day"], 6)),
                "drawdown_monthly_max": float(round(self.worst[asset_class]["month"], 6)),
                "phases": self.phases[asset_class],
                "denials": dict(sorted(self.denials[asset_class].items())),
                "halts": [{key: (iso(value) if key in ("at", "rearmed_at") and value is not None else value)
                           for key, value in halt.items() if key != "class"} for halt in self.halts if halt["class"] is asset_class],
            }
        return documents
