"""Owns approvals: which strategy may open with real money, until when, and how sure it may be.

May refuse: a strategy without a valid certificate, in live trading. Paper trading is never gated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from modules.domain.instrument import AssetClass
from modules.domain.policies import SizingPolicy
from modules.domain.position import ClosedTrade

DAY: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Certificate:
    """The dated permission for one strategy on one basket. `confidence` is its ceiling, [0, 1]; `expires` UTC ms."""

    strategy: str
    asset_class: AssetClass
    symbols: frozenset[str]
    expires: int
    confidence: float


class ValidationManager:
    def __init__(
        self, certificates: Mapping[tuple[str, AssetClass], Certificate], sizing: SizingPolicy, live_since: int | None = None
    ) -> None:
        self._certificates = dict(certificates)
        self._sizing = sizing
        self._live_since = live_since

    def certificate(self, strategy: str, symbol: str, asset_class: AssetClass, at: int) -> Certificate | None:
        """The certificate that covers this strategy on this symbol now; None if there is none, it expired, or the symbol is not in it."""
        found = self._certificates.get((strategy, asset_class))
        return found if found is not None and at < found.expires and symbol in found.symbols else None

    def confidence(self, strategy: str, asset_class: AssetClass, score: float, *, live: bool) -> float:
        """A certificate's ceiling on the score; without one the score on paper and nothing in live trading."""
        found = self._certificates.get((strategy, asset_class))
        if found is not None:
            return min(score, found.confidence)
        return 0.0 if live else score

    def ramping(self, asset_class: AssetClass, closed: Sequence[ClosedTrade], at: int) -> bool:
        """The live ramp: fewer closed trades or days of live trading than the policy asks for."""
        trades = sum(1 for trade in closed if trade.asset_class is asset_class)
        days = 0.0 if self._live_since is None else (at - self._live_since) / DAY
        return trades < self._sizing.ramp_trades or days < self._sizing.ramp_days
