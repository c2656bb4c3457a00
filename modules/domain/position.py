"""Open positions and finished trades."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from modules.domain.instrument import AssetClass, Side
from modules.domain.order import ExitReason


@dataclass(frozen=True, slots=True)
class Position:
    """What the bot holds of one instrument. `quantity` is signed; `entry` the average price in quote currency.

    `cost`: settlement currency paid (spot, options: signed cash out) or entry notional (margined: signed). `margin` is what it ties
    up at the venue (0 for spot). Average prices are for showing; the ledger keeps sums.
    """

    symbol: str
    asset_class: AssetClass
    underlying: str
    trade_id: str
    strategy: str
    quantity: Decimal
    entry: Decimal
    cost: Decimal
    margin: Decimal
    leverage: Decimal
    opened_at: int
    fees: Decimal
    funding: Decimal

    @property
    def side(self) -> Side:
        return Side.BUY if self.quantity > 0 else Side.SELL


@dataclass(frozen=True, slots=True)
class ClosedTrade:
    """An entry-to-exit round trip (all legs). Money in settlement currency; `net` = `gross` - `fees` + `funding`.

    `risk` is what the stop was modelled to lose when the trade was sized, so `net / risk` is the net R-multiple.
    """

    trade_id: str
    strategy: str
    symbol: str
    asset_class: AssetClass
    side: Side
    quantity: Decimal
    entry: Decimal
    exit: Decimal
    gross: Decimal
    fees: Decimal
    funding: Decimal
    net: Decimal
    risk: Decimal
    slippage_bp: Decimal
    opened_at: int
    closed_at: int
    exit_reason: ExitReason
    confidence: float
    score: float

    @property
    def net_r(self) -> Decimal | None:
        return self.net / self.risk if self.risk > 0 else None
