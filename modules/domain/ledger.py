"""The arithmetic of booking: what one execution, settlement or adjustment does to a sub-ledger and to a position. Reads no journal.

Every computed amount enters a ledger through `book` (1e-8, half-even), and positions are kept as sums, so nothing is lost to rounding:
a partial close takes its share of the cost, rounded, and the remainder stays. For every class, always and exactly:

    net                                      = gross - fees + funding
    cash + cost of open spot and options     = transfers + net

What was thrown away: average prices as state. They are computed for showing only; P&L comes from the sums.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Final, NamedTuple

from modules.domain.events import BalanceAdjusted
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.money import ONE, ZERO, book
from modules.domain.order import Fill
from modules.domain.position import Position

_SHOWN: Final = Context(prec=16)
_BASIS_POINTS: Final = Decimal(10_000)


def average(total: Decimal, quantity: Decimal) -> Decimal:
    """total / quantity to 16 significant digits, 0 for no quantity: a price for showing, never booked with."""
    return _SHOWN.divide(total, quantity) if quantity else ZERO


def counts_as_transfer(fact: BalanceAdjusted) -> bool:
    """Whether an adjustment says of itself that it is money moved by the owner, not a result."""
    return fact.reason.strip().lower().startswith("transfer")


def slippage_bp(side: Side, price: Decimal, arrival: Decimal) -> Decimal:
    """Execution against the price at the decision, basis points, adverse positive. `arrival` must be positive."""
    return side.sign * (price - arrival) / arrival * _BASIS_POINTS


@dataclass(slots=True)
class SubLedger:
    """The books of one asset class, in `currency`. Read it freely; only booking functions write it.

    `fees_charged` counts fees in the currencies the venue charged (negative = rebates). `coin_fees` is the part of `fees` that left
    our books as cash though the venue took a coin for it: venue cash = `cash` + `coin_fees`, and its coins are that much fewer.
    `unassigned` is net result that no trade explains (funding after the close, adjustments). `slippage` is adverse-positive money
    against arrival prices, over `turnover`; it is inside `gross`, never taken off again.
    """

    asset_class: AssetClass
    currency: str
    cash: Decimal = ZERO
    transfers: Decimal = ZERO
    gross: Decimal = ZERO
    fees: Decimal = ZERO
    funding: Decimal = ZERO
    adjustments: Decimal = ZERO
    """Part of `gross`: differences to the wallet that nothing explained."""
    unassigned: Decimal = ZERO
    coin_fees: Decimal = ZERO
    slippage: Decimal = ZERO
    turnover: Decimal = ZERO
    trades: int = 0
    wins: int = 0
    dust: dict[str, Decimal] = field(default_factory=dict)
    fees_charged: dict[str, Decimal] = field(default_factory=dict)
    coins_spent: dict[str, Decimal] = field(default_factory=dict)
    """The coins behind `coin_fees`."""

    @property
    def net(self) -> Decimal:
        return self.gross - self.fees + self.funding

    @property
    def slippage_bp(self) -> Decimal | None:
        """Notional-weighted over every fill of the class, adverse positive; None before the first."""
        return book(self.slippage / self.turnover * _BASIS_POINTS) if self.turnover else None

    def charge(self, currency: str, amount: Decimal, value: Decimal, *, in_kind: bool) -> None:
        """Book a fee of `amount` `currency` worth `value`. `in_kind`: the venue kept part of the coins bought, so no cash left."""
        self.fees += value
        self.fees_charged[currency] = self.fees_charged.get(currency, ZERO) + amount
        if in_kind:
            return
        self.cash -= value
        if currency != self.currency:
            self.coin_fees += value
            self.coins_spent[currency] = self.coins_spent.get(currency, ZERO) + amount

    def keep_dust(self, coin: str, quantity: Decimal) -> None:
        self.dust[coin] = self.dust.get(coin, ZERO) + quantity


class Booking(NamedTuple):
    """What one execution did: money in the sub-ledger's currency, quantities unsigned."""

    gross: Decimal
    fee: Decimal
    closed: Decimal
    opened: Decimal


@dataclass(slots=True)
class Holding:
    """The exact sums behind one open position, all signed like `quantity` (margin is not).

    `cost`: settlement currency paid (spot, options) or notional at entry (margined), booked. `basis`: sum of quantity x contract size
    x price in quote currency, or for inverse contracts sum of quantity x contract size / price in base currency, unrounded.
    `units`: quantity x contract size.
    """

    instrument: Instrument
    trade_id: str
    strategy: str
    opened_at: int
    quantity: Decimal = ZERO
    units: Decimal = ZERO
    cost: Decimal = ZERO
    basis: Decimal = ZERO
    margin: Decimal = ZERO
    leverage: Decimal = ONE
    fees: Decimal = ZERO
    funding: Decimal = ZERO
    margined: bool = field(init=False)
    """From the instrument, kept because it is asked at every mark; so is `inverse` (margined only)."""
    inverse: bool = field(init=False)

    def __post_init__(self) -> None:
        self.margined = self.instrument.is_margined
        self.inverse = self.instrument.inverse and self.margined

    def add(self, quantity: Decimal, cost: Decimal, price: Decimal, leverage: Decimal) -> None:
        units = quantity * self.instrument.contract_size
        self.quantity += quantity
        self.units += units
        self.cost += cost
        self.leverage = leverage
        self.basis += units / price if self.inverse else units * price
        if self.margined:
            self.margin += book(abs(cost) / leverage)

    def release(self, part: Decimal) -> tuple[Decimal, Decimal]:
        """Take `part` (unsigned, at most what is held) out: its share of (cost, basis). The last part takes all that is left."""
        held = abs(self.quantity)
        if part == held:
            cost, basis = self.cost, self.basis
            self.quantity = self.units = self.cost = self.basis = self.margin = ZERO
            return cost, basis
        cost = book(self.cost * part / held)
        basis = self.basis * part / held
        self.margin -= book(self.margin * part / held)
        self.cost -= cost
        self.basis -= basis
        self.quantity -= part if self.quantity > ZERO else -part
        self.units = self.quantity * self.instrument.contract_size
        return cost, basis

    def hand_over(self, trade_id: str, strategy: str, at: int) -> None:
        """The fill crossed zero: what is held now was opened at `at` by another trade (or the other way round by the same)."""
        self.trade_id, self.strategy, self.opened_at = trade_id, strategy, at
        self.fees = self.funding = ZERO

    def marked(self, price: Decimal) -> Decimal:
        """What the position adds to equity at `price`, in quote currency: its P&L if margined, else its whole value."""
        if not self.margined:
            return self.units * price
        if self.inverse:
            return (self.basis - self.units / price) * price
        return self.units * price - self.basis

    def entry(self) -> Decimal:
        """Average entry price in quote currency, for showing."""
        if self.inverse:
            return average(self.units, self.basis)
        return average(self.basis, self.units)

    def shown(self) -> Position:
        instrument = self.instrument
        return Position(
            symbol=instrument.symbol, asset_class=instrument.asset_class, underlying=instrument.underlying, trade_id=self.trade_id,
            strategy=self.strategy, quantity=self.quantity, entry=self.entry(), cost=self.cost, margin=self.margin,
            leverage=self.leverage, opened_at=self.opened_at, fees=self.fees, funding=self.funding,
        )


def book_fill(ledger: SubLedger, holding: Holding, fill: Fill, leverage: Decimal) -> Booking:
    """Book one execution; a fill that crosses zero is a close and an open in one.

    SPOT and OPTION exchange the full price; PERP and FOREX settle the difference on closing (for inverse contracts, whose P&L is in
    base currency, converted at the fill's price). A spot buy's fee in the coin bought lowers the quantity: its value is a fee and not
    a cost of what is left, so that it counts once.
    """
    instrument = holding.instrument
    sign = fill.side.sign
    margined = holding.margined
    fee = book(fill.fee * fill.fee_rate)
    in_kind = (
        instrument.asset_class is AssetClass.SPOT
        and fill.side is Side.BUY
        and fill.fee_currency == instrument.base
        and fill.fee < fill.quantity
    )
    ledger.charge(fill.fee_currency, fill.fee, fee, in_kind=in_kind)
    quantity = fill.quantity - fill.fee if in_kind else fill.quantity
    if margined:
        worth = book(instrument.notional(quantity, fill.price) * fill.settle_rate)
    else:
        worth = book(fill.quantity * instrument.contract_size * fill.price * fill.settle_rate)
        ledger.cash -= sign * worth
        if in_kind:
            worth -= fee

    held = holding.quantity
    closed = min(quantity, abs(held)) if held * sign < ZERO else ZERO
    opened = quantity - closed
    gross = worth_closed = ZERO
    if closed:
        worth_closed = book(worth * closed / quantity) if opened else worth
        holding_sign = -sign
        cost, basis = holding.release(closed)
        if margined:
            gross = book(_settled(instrument, holding_sign * closed, basis, fill.price) * fill.settle_rate)
            ledger.cash += gross
        else:
            gross = holding_sign * worth_closed - cost
        ledger.gross += gross
    if opened:
        holding.add(sign * opened, sign * (worth - worth_closed), fill.price, leverage)
    return Booking(gross, fee, closed, opened)


def _settled(instrument: Instrument, quantity: Decimal, basis: Decimal, price: Decimal) -> Decimal:
    """P&L in quote currency of closing `quantity` (signed) that was entered for `basis`: instrument.pnl from sums instead of averages."""
    units = quantity * instrument.contract_size
    return (basis - units / price) * price if instrument.inverse else units * price - basis


def book_settlement(ledger: SubLedger, holding: Holding, part: Decimal, value: Decimal, rate: Decimal, fee: Decimal) -> Booking:
    """An option expired: `part` (unsigned) of the position is worth `value` per base unit, long receives, short pays."""
    sign = 1 if holding.quantity > ZERO else -1
    payoff = book(sign * part * holding.instrument.contract_size * value * rate)
    cost, _ = holding.release(part)
    gross = payoff - cost
    ledger.cash += payoff
    ledger.gross += gross
    ledger.charge(ledger.currency, fee, fee, in_kind=False)
    return Booking(gross, fee, part, ZERO)


def book_write_off(ledger: SubLedger, holding: Holding, part: Decimal) -> Decimal:
    """`part` (unsigned) leaves the position for nothing (dust, coins gone from the wallet): the gross result, a loss of its cost.

    Margined positions lose no cost: their cash difference is booked by itself.
    """
    cost, _ = holding.release(part)
    if holding.margined:
        return ZERO
    ledger.gross -= cost
    return -cost
