"""The live ramp: a class's first real trades are as small as trades can be, and start again so after a halt that cost money or trust.

A projection of facts alone, so a restart changes nothing of it. Days are time that the daemon was there and the class was not halted: a
week in which it did not run shows nothing of how it trades. Decides nothing; Sizer makes a size of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modules.domain.events import DaemonStarted, Fact, PositionClosed, Scope, TradingHalted, TradingRearmed, Trigger
from modules.domain.instrument import AssetClass
from modules.domain.policies import SizingPolicy

DAY_MS: Final = 86_400_000
GAP_MS: Final = 2 * 3_600_000
"""A running daemon writes something down more often than this: at least that books and venue agree (execution_policy.account_mark_s)."""
RESTARTS: Final = frozenset({Trigger.DAILY_DRAWDOWN, Trigger.MONTHLY_DRAWDOWN, Trigger.SLIPPAGE, Trigger.MANUAL})
"""What a venue's outage or an order in doubt says nothing about is how we trade: those halts leave the ramp as it is."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a class has come, against what the policy asks for. Both must be reached."""

    trades: int
    trades_min: int
    days: float
    days_min: int
    restarted: str = ""
    """What it last started again for, "" = it never did."""

    @property
    def ramping(self) -> bool:
        return self.trades < self.trades_min or self.days < self.days_min

    @property
    def note(self) -> str:
        """In words, with every number."""
        again = f", begun again after {self.restarted}" if self.restarted else ""
        return f"live ramp: {self.trades} of {self.trades_min} closed trades, {self.days:.1f} of {self.days_min} days{again}"


class LiveRamp:
    """Trades opened and closed with real money since the ramp last began, and how long was traded since the first of them, per class."""

    def __init__(self) -> None:
        self._live = False
        self._trades = dict.fromkeys(AssetClass, 0)
        self._since: dict[AssetClass, int | None] = dict.fromkeys(AssetClass)
        """The opening of the first trade that counts; days before anything was traded prove nothing."""
        self._begun = dict.fromkeys(AssetClass, 0)
        self._restarted = dict.fromkeys(AssetClass, "")
        self._heard = 0
        """When the live daemon last wrote anything down, UTC ms; 0 = it does not run."""
        self._spans: dict[AssetClass, list[list[int]]] = {asset_class: [] for asset_class in AssetClass}
        """From when to when each class was traded, UTC ms; the last one grows."""
        self._halts: set[tuple[Scope, Trigger, str]] = set()

    def apply(self, fact: Fact) -> None:
        if self._heard and not isinstance(fact, DaemonStarted):
            self._beat(fact.at)
        if isinstance(fact, PositionClosed):
            trade = fact.trade
            if self._live and trade.opened_at >= self._begun[trade.asset_class]:
                self._trades[trade.asset_class] += 1
                first = self._since[trade.asset_class]
                self._since[trade.asset_class] = trade.opened_at if first is None else min(first, trade.opened_at)
        elif isinstance(fact, TradingHalted):
            self._halts.add((fact.scope, fact.trigger, fact.venue))
            if fact.trigger in RESTARTS:
                for asset_class in AssetClass:
                    if fact.scope.covers(asset_class):
                        self._restart(asset_class, fact)
        elif isinstance(fact, TradingRearmed):
            self._halts.discard((fact.scope, fact.trigger, fact.venue))
        elif isinstance(fact, DaemonStarted):
            self._live = fact.mode == "live"
            self._heard = fact.at if self._live else 0

    def _beat(self, at: int) -> None:
        """The daemon lives at `at`, so it has lived since it was last heard of, unless that is too long ago."""
        since = self._heard
        if at <= since:
            return
        self._heard = at
        if at - since > GAP_MS:
            return
        for asset_class, spans in self._spans.items():
            if self._halts and any(scope.covers(asset_class) for scope, _, _ in self._halts):
                continue
            if spans and spans[-1][1] == since:
                spans[-1][1] = at
            else:
                spans.append([since, at])

    def _restart(self, asset_class: AssetClass, fact: TradingHalted) -> None:
        self._trades[asset_class], self._since[asset_class], self._begun[asset_class] = 0, None, fact.at
        self._restarted[asset_class] = f"a {fact.trigger.value.replace('_', ' ')} halt"

    def progress(self, asset_class: AssetClass, at: int, policy: SizingPolicy) -> Progress:
        """As of `at` (UTC ms)."""
        since = self._since[asset_class]
        traded = 0 if since is None else sum(max(0, min(end, at) - max(begin, since)) for begin, end in self._spans[asset_class])
        days = traded / DAY_MS
        return Progress(self._trades[asset_class], policy.ramp_trades, days, policy.ramp_days, self._restarted[asset_class])
