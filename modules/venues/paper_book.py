"""The paper venue's own truth about money: one exact ledger per asset class. Refuses fills the class cannot pay for.

It is kept apart from Portfolio_Manager on purpose: the books of the bot are reconciled against this one as against any venue's. Amounts
enter in units of 1e-8 of the settlement currency; positions keep sums (quantity, entry value), never an average price, so a position
closed in pieces ends exactly where one closed at once does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal

from modules.backtest import costs
from modules.domain.instrument import AssetClass, Instrument, Right, Side
from modules.domain.money import ONE, UNIT, ZERO, book, round_down

INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"
BALANCE = "BALANCE"
UNCOVERED = "UNCOVERED"


def charge(amount: Decimal) -> Decimal:
    """A fee rounded against us to 1e-8: a cost up, a rebate down."""
    return amount.quantize(UNIT, ROUND_CEILING)


@dataclass(slots=True)
class Holding:
    """A PERP, FOREX or OPTION position. `quantity` and `value` are signed; `margin` is what it ties up, `worth` its entry notional."""

    instrument: Instrument
    quantity: Decimal = ZERO
    value: Decimal = ZERO
    """Sum of quantity x contract size x price at entry, quote currency."""
    worth: Decimal = ZERO
    """The same, unsigned, in settlement currency at the rates of the entries."""
    margin: Decimal = ZERO
    strike_rate: Decimal = ONE
    """Options: strike currency in settlement currency, for collateral."""

    @property
    def side(self) -> int:
        return 1 if self.quantity > 0 else -1

    @property
    def entry(self) -> Decimal:
        return self.value / (self.quantity * self.instrument.contract_size)

    @property
    def leverage(self) -> Decimal:
        return self.worth / self.margin


@dataclass(frozen=True, slots=True)
class Execution:
    """What one fill does to the ledger. `fee` is in base coin where `fee_in_base`, else in settlement currency and already rounded."""

    instrument: Instrument
    side: Side
    quantity: Decimal
    price: Decimal
    settle_rate: Decimal
    fee: Decimal
    fee_in_base: bool
    leverage: Decimal


@dataclass(slots=True)
class PaperBook:
    """One asset class: settlement cash, base coins of spot, holdings of everything else."""

    currency: str
    cash: Decimal
    coins: dict[str, Decimal] = field(default_factory=dict)
    holdings: dict[str, Holding] = field(default_factory=dict)
    bought: dict[str, Decimal] = field(default_factory=dict)
    """SPOT: coins bought through each symbol and not yet sold. Two pairs of one coin must not sell each other's, and what a sale leaves
    below a lot is nobody's any more: else the dust of many trades would one day pass for a position."""

    def position(self, instrument: Instrument) -> Decimal:
        """Signed quantity held; for SPOT the coins bought through this very symbol."""
        if instrument.asset_class is AssetClass.SPOT:
            return self.bought.get(instrument.symbol, ZERO)
        holding = self.holdings.get(instrument.symbol)
        return holding.quantity if holding is not None else ZERO

    def reducible(self, instrument: Instrument, side: Side) -> Decimal:
        """How much an order of `side` can close at most, in whole lots; 0 = nothing on the other side of it."""
        position = self.position(instrument)
        return round_down(abs(position), instrument.lot) if position * side.sign < ZERO else ZERO

    @property
    def free(self) -> Decimal:
        """Cash that neither margin nor the collateral of short options ties up. Minus infinity while an option is uncovered."""
        collateral = option_collateral(self.holdings.values())
        if collateral is None:
            return Decimal("-Infinity")
        return self.cash - collateral - sum((h.margin for h in self.holdings.values()), ZERO)

    def refusal(self, execution: Execution) -> str:
        """Why the class cannot take this fill, as a code; "" = it can. What lowers risk is never refused."""
        instrument, position = execution.instrument, self.position(execution.instrument)
        if instrument.asset_class is AssetClass.SPOT:
            if execution.side is Side.SELL:
                return BALANCE if execution.quantity > position else ""
            return INSUFFICIENT_FUNDS if _cost(execution) > self.cash else ""
        closes_only = position * execution.side.sign < ZERO and execution.quantity <= abs(position)
        if closes_only and instrument.asset_class is not AssetClass.OPTION:
            return ""
        after = self._copy()
        after.apply(execution)
        free = after.free
        if free >= ZERO or (free.is_finite() and free >= self.free):
            return ""
        return INSUFFICIENT_FUNDS if free.is_finite() else UNCOVERED

    def apply(self, execution: Execution) -> None:
        """Book one fill (architecture: SPOT and OPTION exchange the full price, PERP and FOREX settle the difference)."""
        if not execution.fee_in_base:
            self.cash -= execution.fee
        if execution.instrument.is_margined:
            self._settle_difference(execution)
            return
        self.cash -= execution.side.sign * _cost(execution)
        if execution.instrument.asset_class is AssetClass.SPOT:
            received = execution.side.sign * execution.quantity - (execution.fee if execution.fee_in_base else ZERO)
            self.coins[execution.instrument.base] = self.coins.get(execution.instrument.base, ZERO) + received
            kept = self.bought.get(execution.instrument.symbol, ZERO) + received
            if execution.side is Side.SELL and kept < execution.instrument.lot:
                self.bought.pop(execution.instrument.symbol, None)
            else:
                self.bought[execution.instrument.symbol] = kept
        else:
            holding = self._holding(execution.instrument)
            holding.quantity += execution.side.sign * execution.quantity
            holding.strike_rate = ONE if execution.instrument.quote == execution.instrument.base else execution.settle_rate
            self._drop_if_flat(holding)

    def expire(self, instrument: Instrument, value: Decimal, settle_rate: Decimal, fee: Decimal) -> Decimal:
        """Cash-settle an option holding at `value` per base unit (quote currency). Gives back the signed quantity that was settled."""
        holding = self.holdings.pop(instrument.symbol)
        self.cash += book(holding.quantity * instrument.contract_size * value * settle_rate) - fee
        return holding.quantity

    def _settle_difference(self, execution: Execution) -> None:
        instrument, sign = execution.instrument, execution.side.sign
        holding = self._holding(instrument)
        closed = min(execution.quantity, abs(holding.quantity)) if holding.quantity * sign < ZERO else ZERO
        if closed > ZERO:
            held = abs(holding.quantity)
            kept = (held - closed) / held
            released = holding.value * closed / held if kept else holding.value
            proceeds = -sign * closed * instrument.contract_size * execution.price
            self.cash += book((proceeds - released) * execution.settle_rate)
            holding.quantity += sign * closed
            holding.value -= released
            holding.worth *= kept
            holding.margin = book(holding.margin * kept)
        opened = execution.quantity - closed
        if opened > ZERO:
            value = opened * instrument.contract_size * execution.price
            worth = value * execution.settle_rate
            holding.quantity += sign * opened
            holding.value += sign * value
            holding.worth += worth
            holding.margin += charge(worth / execution.leverage)
        self._drop_if_flat(holding)

    def _holding(self, instrument: Instrument) -> Holding:
        holding = self.holdings.get(instrument.symbol)
        if holding is None:
            holding = self.holdings[instrument.symbol] = Holding(instrument)
        return holding

    def _drop_if_flat(self, holding: Holding) -> None:
        if holding.quantity == ZERO:
            del self.holdings[holding.instrument.symbol]

    def _copy(self) -> PaperBook:
        holdings = {s: Holding(h.instrument, h.quantity, h.value, h.worth, h.margin, h.strike_rate) for s, h in self.holdings.items()}
        return PaperBook(self.currency, self.cash, dict(self.coins), holdings, dict(self.bought))


def _cost(execution: Execution) -> Decimal:
    """Unsigned price paid or received for SPOT and OPTION, settlement currency."""
    return book(execution.quantity * execution.instrument.contract_size * execution.price * execution.settle_rate)


def option_collateral(holdings: Iterable[Holding]) -> Decimal | None:
    """Cash that short options need: per underlying and expiry the worst payoff of all contracts together, settlement currency.

    That is the full strike for a lone short put and the width for a vertical spread or an iron condor. None = a short call that no long
    call covers: its loss has no bound. The payoff is piecewise linear, so its minimum is at 0, at a strike, or at infinity.
    """
    groups: dict[tuple[str, int | None], list[Holding]] = {}
    for holding in holdings:
        if holding.instrument.asset_class is AssetClass.OPTION:
            groups.setdefault((holding.instrument.underlying, holding.instrument.expiry), []).append(holding)
    total = ZERO
    for group in groups.values():
        if all(holding.quantity > ZERO for holding in group):
            continue
        calls = sum((h.quantity * h.instrument.contract_size for h in group if h.instrument.right is Right.CALL), ZERO)
        if calls < ZERO:
            return None
        total -= min(ZERO, *(_payoff(group, spot) for spot in (ZERO, *(strike_of(h.instrument) for h in group))))
    return book(total)


def _payoff(group: Iterable[Holding], spot: Decimal) -> Decimal:
    total = ZERO
    for holding in group:
        instrument = holding.instrument
        value = costs.option_value(instrument.right is Right.CALL, spot, strike_of(instrument))
        total += holding.quantity * instrument.contract_size * value * holding.strike_rate
    return total


def strike_of(instrument: Instrument) -> Decimal:
    """The strike of an option contract. Raises ValueError for anything else."""
    if instrument.strike is None:
        raise ValueError(f"{instrument.symbol} has no strike")
    return instrument.strike
