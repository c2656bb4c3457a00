"""The live ramp: a class's first real trades are as small as trades can be, and start again so after a halt that cost money or trust.

A projection of facts alone, so a restart changes nothing of it. Decides nothing; Sizer makes a size of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modules.domain.events import DaemonStarted, Fact, PositionClosed, TradingHalted, Trigger
from modules.domain.instrument import AssetClass
from modules.domain.policies import SizingPolicy

DAY_MS: Final = 86_400_000
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
    """Trades opened and closed with real money since the ramp last began, and since when, per class."""

    def __init__(self) -> None:
        self._live = False
        self._trades = dict.fromkeys(AssetClass, 0)
        self._since: dict[AssetClass, int | None] = dict.fromkeys(AssetClass)
        """The opening of the first trade that counts; days before anything was traded prove nothing."""
        self._begun = dict.fromkeys(AssetClass, 0)
        self._restarted = dict.fromkeys(AssetClass, "")

    def apply(self, fact: Fact) -> None:
        if isinstance(fact, PositionClosed):
            trade = fact.trade
            if self._live and trade.opened_at >= self._begun[trade.asset_class]:
                self._trades[trade.asset_class] += 1
                first = self._since[trade.asset_class]
                self._since[trade.asset_class] = trade.opened_at if first is None else min(first, trade.opened_at)
        elif isinstance(fact, TradingHalted):
            if fact.trigger in RESTARTS:
                for asset_class in AssetClass:
                    if fact.scope.covers(asset_class):
                        self._restart(asset_class, fact)
        elif isinstance(fact, DaemonStarted):
            self._live = fact.mode == "live"

    def _restart(self, asset_class: AssetClass, fact: TradingHalted) -> None:
        self._trades[asset_class], self._since[asset_class], self._begun[asset_class] = 0, None, fact.at
        self._restarted[asset_class] = f"a {fact.trigger.value.replace('_', ' ')} halt"

    def progress(self, asset_class: AssetClass, at: int, policy: SizingPolicy) -> Progress:
        """As of `at` (UTC ms)."""
        since = self._since[asset_class]
        days = 0.0 if since is None else max(0.0, (at - since) / DAY_MS)
        return Progress(self._trades[asset_class], policy.ramp_trades, days, policy.ramp_days, self._restarted[asset_class])
