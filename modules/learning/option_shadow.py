"""An option structure's trades as if it had the market to itself: the paper venue's fills and costs, one unit, no book behind it. Pure.

Like shadow.py, for structures: the contracts are chosen at the close at which the view begins, as the book would, and bought and sold at
the next open, repriced from the last chain with spread, slippage and fees. It ends when the view does, when its time is up (both at the
next open at which every leg has a price) or with the contracts, settled at the underlying's price. One R is what it can lose at most.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple, Protocol

from modules.backtest import costs as cost_model
from modules.domain import options
from modules.domain.events import ShadowLeg, ShadowOpened
from modules.domain.instrument import Side
from modules.domain.market import Bar, Chain, OptionQuote
from modules.domain.order import ExitReason
from modules.domain.policies import Policies
from modules.domain.signal import Structure
from modules.learning.shadow import FOREVER, Entered, Key, Left

NO_STOP: Final = 0.0


class OptionMarket(Protocol):
    """What is known of chains. Market_Data is one."""

    def chain(self, underlying: str) -> Chain | None: ...
    def contract(self, symbol: str) -> OptionQuote | None: ...


class OptionTerms(NamedTuple):
    """What trading contracts costs, as numbers, and how old (ms) a chain may be to be traded on."""

    slippage_bp: float
    taker_fee: float
    settlement_fee: float
    fee_cap: float
    chain_age_ms: float


def option_terms_of(policies: Policies) -> OptionTerms:
    costs = policies.costs
    return OptionTerms(costs.OPTION.slippage_bp, float(costs.OPTION.taker_fee), float(costs.option_settlement_fee),
                       float(costs.option_fee_cap), policies.risk.chain_age_s_max * 1000.0)


class Shape(NamedTuple):
    """Which contracts a strategy means: see options.choose."""

    structure: Structure
    days: float
    delta: float
    width: float


class _Wish(NamedTuple):
    """A structure that waits for the next open."""

    at: int
    score: float
    hold: int
    legs: tuple[tuple[OptionQuote, Side], ...]
    risk: float
    taken: bool


class OptionShadow:
    """One structure strategy's shadow on one underlying: nothing, contracts waiting for the next open, or a structure held."""

    __slots__ = ("_hold", "_leaving", "_legs", "_market", "_next", "_paid", "_risk", "_score", "_shape", "_side", "_taken", "_underlying",
                 "_until", "busy", "key", "opened_at", "terms")

    def __init__(self, key: Key, terms: OptionTerms, shape: Shape, underlying: str, market: OptionMarket) -> None:
        self.key = key
        self.terms = terms
        self._shape = shape
        self._underlying = underlying
        self._market = market
        self.busy = False
        """Something is held or waits: every bar concerns it."""
        self._next: _Wish | None = None
        self._forget()

    def _forget(self) -> None:
        self._side, self._taken = 0, False
        self._legs: tuple[ShadowLeg, ...] = ()
        self._paid = self._risk = self._score = 0.0
        self._hold = self._until = self.opened_at = 0
        self._leaving: ExitReason | None = None
        self.busy = self._next is not None

    # -- what the strategy wants ------------------------------------------------------------------------------------------

    def want(self, series: Any, intent: Any, at: int, sign: int) -> None:
        """The view turned to `sign` at this close: its contracts at the next open. None if the chain does not have them."""
        chain, spot = self._fresh(at), float(series.bar.close)
        if chain is None:
            return
        shape = self._shape
        chosen = options.choose(
            shape.structure, chain, Side.BUY if sign > 0 else Side.SELL, shape.days, shape.delta, shape.width, at, 0.0, spot=spot)
        priced = [(quote, side, self._price(quote.symbol, side.sign, spot, at)) for quote, side in chosen or ()]
        if not priced or not all(price is not None and price > 0.0 for _, _, price in priced):
            return
        legs = [(quote, side, price) for quote, side, price in priced if price is not None]
        worst = options.structure_risk(shape.structure, legs, spot, at, chain=chain).max_loss
        worst += 2.0 * math.fsum(self._fee(self.terms.taker_fee, spot, price) for _, _, price in legs)  # as Sizer's loss per unit
        if 0.0 < worst < math.inf:
            self._next = _Wish(at, float(intent.score), int(intent.hold), tuple((quote, side) for quote, side, _ in legs), worst, False)
            self.busy = True

    def refused(self) -> None:
        """The market itself forbade the entry: it would not have been traded."""
        self._next = None
        self.busy = self._side != 0

    def taken(self, at: int, interval_ms: int) -> None:
        """The book opened the same signal: its own result is the one that counts."""
        if self._next is not None and at - self._next.at < interval_ms:
            self._next = self._next._replace(taken=True)

    def untouched(self, _series: Any, _bar: Bar, at: int, sign: int) -> bool:
        """Whether this bar cannot concern what is held: nothing due, nothing waiting, the view as it was."""
        return self._next is None and self._leaving is None and sign == self._side and at < self._until

    # -- one bar ----------------------------------------------------------------------------------------------------------

    def on_bar(self, series: Any, bar: Bar, at: int, sign: int | None) -> list[Entered | Left]:
        """What happened at this bar's open, then at its close. `sign` is the view now; None while history is shown again."""
        told: list[Entered | Left] = []
        if self._leaving is not None and bar.ts < self._expiry():
            closed = self._close(bar, at, self._leaving)
            if closed is not None:
                told.append(closed)
        if self._next is not None:
            self._enter(series, bar, at, told)
        if self._side:
            self._until = min(self._expiry(), self.opened_at + self._hold * series.interval_ms if self._hold > 0 else FOREVER)
            if at >= self._expiry():
                told.append(self._settle(bar, at))
            elif sign is not None and sign != self._side:
                self._leaving = ExitReason.EXIT_SIGNAL
            elif sign is not None and at >= self._until:
                self._leaving = ExitReason.TIME_EXIT
        return told

    def _enter(self, series: Any, bar: Bar, at: int, told: list[Entered | Left]) -> None:
        wish, self._next = self._next, None
        assert wish is not None
        legs = []
        for quote, side in wish.legs:
            price = self._price(quote.symbol, side.sign, bar.open, bar.ts)
            if price is not None and price > 0.0:
                legs.append(ShadowLeg(quote.symbol, side.sign, price, quote.strike, quote.expiry, quote.is_call))
        if bar.ts - wish.at >= series.interval_ms or self._side or len(legs) < len(wish.legs):  # an entry does not wait out a hole
            self.busy = self._side != 0
            return
        direction = 1 if wish.score > 0.0 else -1
        paid = math.fsum(leg.side * leg.price + self._fee(self.terms.taker_fee, bar.open, leg.price) for leg in legs)
        opened = Entered(
            at, *self.key, direction, wish.score, paid, NO_STOP, None, wish.risk, wish.hold, bar.ts, wish.taken, tuple(legs))
        self.restore(opened)
        told.append(opened)

    def restore(self, opened: Entered | ShadowOpened) -> None:
        """Hold what a fact says was opened: now, or before a restart."""
        self._side, self._score, self._hold, self._legs = opened.side, opened.score, opened.hold, opened.legs
        self._paid, self._risk, self._taken = opened.entry, opened.risk, opened.taken
        self.opened_at, self._leaving, self._until, self.busy = opened.opened_at, None, 0, True

    def _expiry(self) -> int:
        return min((leg.expiry for leg in self._legs), default=FOREVER)

    def _fresh(self, at: int) -> Chain | None:
        chain = self._market.chain(self._underlying)
        return chain if chain is not None and at - chain.at <= self.terms.chain_age_ms else None

    def _price(self, symbol: str, order: int, spot: float, at: int) -> float | None:
        """A market order of one base unit (`order` +1 buys) in settlement currency; None without a quote on that side."""
        chain, quote = self._fresh(at), self._market.contract(symbol)
        if chain is None or quote is None:
            return None
        bid, ask, _ = options.reprice(quote, chain, spot, at)
        touch = ask if order > 0 else bid
        if not touch > 0.0:  # NaN compares false
            return None
        return cost_model.market_fill(order, touch, self.terms.slippage_bp, 0.0) * options.settle_rate_at(chain, spot)

    def _fee(self, rate: float, spot: float, premium: float) -> float:
        return cost_model.option_fee(rate, spot, premium, self.terms.fee_cap)

    def _close(self, bar: Bar, at: int, reason: ExitReason) -> Left | None:
        """Out at this open; None while a leg has no price: it is held on. What nobody bids for is sold for nothing."""
        got = 0.0
        for leg in self._legs:
            price = self._price(leg.symbol, -leg.side, bar.open, bar.ts)
            if price is None and leg.side > 0 and self._fresh(bar.ts) is not None and self._market.contract(leg.symbol) is not None:
                price = 0.0
            if price is None:
                return None
            got += leg.side * price - self._fee(self.terms.taker_fee, bar.open, price)
        return self._left(got, at, reason)

    def _settle(self, bar: Bar, at: int) -> Left:
        """In cash, at the underlying's price."""
        got = 0.0
        for leg in self._legs:
            value = cost_model.option_value(leg.is_call, bar.close, leg.strike)
            got += leg.side * value - self._fee(self.terms.settlement_fee, bar.close, value)
        return self._left(got, at, ExitReason.EXPIRY)

    def _left(self, got: float, at: int, reason: ExitReason) -> Left:
        closed = Left(at, *self.key, self.opened_at, abs(self._score), (got - self._paid) / self._risk, reason, self._taken)
        self._forget()
        return closed
