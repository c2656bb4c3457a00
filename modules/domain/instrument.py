"""What can be traded, with the rules a venue puts on it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from modules.domain.money import ONE, ZERO, round_down, round_up

DOLLARS: Final = frozenset({"USD", "USDT", "USDC"})
"""Currencies that count as one another in every ledger: a dollar coin is a dollar."""


class AssetClass(StrEnum):
    SPOT = "SPOT"
    PERP = "PERP"
    OPTION = "OPTION"
    FOREX = "FOREX"


ASSET_CLASSES: Final = tuple(AssetClass)
"""To walk over where it is done once a bar: iterating the enum itself costs ten times as much."""


class Side(StrEnum):
    BUY = "BUY"
    SELL = "SELL"

    @property
    def sign(self) -> int:
        return 1 if self is Side.BUY else -1

    @property
    def opposite(self) -> Side:
        return Side.SELL if self is Side.BUY else Side.BUY


class Right(StrEnum):
    CALL = "C"
    PUT = "P"


@dataclass(frozen=True, slots=True)
class Instrument:
    """A tradable thing at a venue. `symbol` is the ccxt unified form and is unique in one daemon.

    Prices are in `quote`; P&L and margin settle in `settle`, the sub-ledger's currency for linear instruments. `contract_size` is
    base units per unit of quantity. For an inverse contract quantity x contract_size is in quote currency.
    """

    symbol: str
    venue: str
    asset_class: AssetClass
    base: str
    quote: str
    settle: str
    underlying: str
    """What moves it, for correlation and exposure: "BTC" for BTC/USDT, BTC/USDT:USDT and every BTC option; "EUR/USD" for itself."""
    tick: Decimal
    lot: Decimal
    quantity_min: Decimal = ZERO
    notional_min: Decimal = ZERO
    contract_size: Decimal = ONE
    inverse: bool = False
    maker_fee: Decimal = ZERO
    """Fraction of notional; negative is a rebate."""
    taker_fee: Decimal = ZERO
    leverage_max: Decimal = ONE
    maintenance_margin: Decimal = ZERO
    """Fraction of notional below which the venue liquidates (PERP, FOREX)."""
    funding_interval_h: int | None = None
    expiry: int | None = None
    """UTC ms."""
    strike: Decimal | None = None
    right: Right | None = None
    pip: Decimal | None = None
    short_margin: Decimal = ZERO
    """Options: what the venue ties up of a unit sold beside its premium, as a share of the strike; 0 = nothing but what it can lose."""

    def round_quantity_down(self, quantity: Decimal) -> Decimal:
        return round_down(quantity, self.lot)

    def round_price(self, price: Decimal, *, up: bool) -> Decimal:
        return round_up(price, self.tick) if up else round_down(price, self.tick)

    def notional(self, quantity: Decimal, price: Decimal) -> Decimal:
        """Size of `quantity` at `price` in quote currency. Unsigned in, unsigned out."""
        return quantity * self.contract_size if self.inverse else quantity * self.contract_size * price

    def quantity_for(self, notional: Decimal, price: Decimal) -> Decimal:
        """Unrounded quantity whose notional at `price` is `notional`."""
        return notional / self.contract_size if self.inverse else notional / (self.contract_size * price)

    def pnl(self, quantity: Decimal, entry: Decimal, exit_price: Decimal) -> Decimal:
        """Gross result of a signed `quantity` from `entry` to `exit_price`: quote currency, or base currency for inverse contracts."""
        if self.inverse:
            return quantity * self.contract_size * (ONE / entry - ONE / exit_price)
        return quantity * self.contract_size * (exit_price - entry)

    def tied_up_sold(self, quantity: Decimal) -> Decimal:
        """What the venue ties up of so many option contracts sold, their premium aside; quote currency. `quantity` unsigned."""
        return quantity * self.contract_size * self.short_margin * self.strike if self.strike is not None else ZERO

    @property
    def is_margined(self) -> bool:
        """PERP and FOREX post margin and settle the difference; SPOT and OPTION exchange the full price."""
        return self.asset_class in (AssetClass.PERP, AssetClass.FOREX)
