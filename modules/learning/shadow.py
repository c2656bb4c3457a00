"""Every strategy's trades as if each had the market to itself: the paper venue's fills and costs, one unit, no book behind it. Pure.

A shadow trade follows the daemon's position rules and the cost model's own functions (backtest/costs.py): in at the next open, stop before
target, out at the next open when the view is gone, its time is up or forex closes; spread, slippage, fees, funding and financing are paid.
Size is one unit, so market impact and partial fills do not arise; neither do the account's limits, for they say nothing about a strategy.
Nothing is done on a bar on which nothing is held and no view changes. Option structures have theirs in option_shadow.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from modules.backtest import costs as cost_model
from modules.domain import sessions
from modules.domain.events import ShadowLeg, ShadowOpened
from modules.domain.instrument import ASSET_CLASSES, AssetClass
from modules.domain.market import NAN, Bar
from modules.domain.order import ExitReason
from modules.domain.policies import Policies

MINUTE: Final = 60_000
FOREVER: Final = 1 << 62
Key = tuple[str, str, AssetClass]
"""Strategy, symbol, class."""


class Terms(NamedTuple):
    """One class's costs as numbers, and the exit rules of the owner's policies."""

    half_spread_bp: float
    slippage_bp: float
    stop_slippage_bp: float
    maker_fee: float
    taker_fee: float
    break_even_at_r: float
    trail_at_r: float
    trail_distance_r: float
    weekend_flat: bool
    rollover_ms: int


def terms_of(policies: Policies) -> Mapping[AssetClass, Terms]:
    execution, found = policies.execution, {}
    for asset_class in ASSET_CLASSES:
        model = policies.costs.of(asset_class)
        found[asset_class] = Terms(
            model.half_spread_bp, model.slippage_bp, model.stop_slippage_bp, float(model.maker_fee), float(model.taker_fee),
            execution.break_even_at_r, execution.trail_at_r, execution.trail_distance_r,
            asset_class is AssetClass.FOREX and policies.risk.forex_weekend_flat, int(policies.risk.rollover_minutes * MINUTE))
    return found


class Entered(NamedTuple):
    """What a ShadowOpened says, field by field."""

    at: int
    strategy: str
    symbol: str
    asset_class: AssetClass
    side: int
    score: float
    entry: float
    stop: float
    target: float | None
    risk: float
    hold: int
    opened_at: int
    taken: bool
    legs: tuple[ShadowLeg, ...] = ()


class Left(NamedTuple):
    """What a ShadowClosed says, field by field."""

    at: int
    strategy: str
    symbol: str
    asset_class: AssetClass
    opened_at: int
    score: float
    net_r: float
    reason: ExitReason
    taken: bool


class _Wish(NamedTuple):
    """An entry that waits for the next open."""

    at: int
    score: float
    expected: float
    stop: float
    target: float | None
    hold: int
    taken: bool


class Shadow:
    """One strategy's shadow on one series: nothing, an entry waiting for the next open, or a trade. Prices in quote currency."""

    __slots__ = ("_aim", "_best", "_ceiling", "_costs", "_entry", "_first_stop", "_floor", "_funded_at", "_hold", "_leaving", "_next",
                 "_risk", "_score", "_side", "_stop", "_taken", "_until", "busy", "key", "opened_at", "terms")

    def __init__(self, key: Key, terms: Terms) -> None:
        self.key = key
        self.terms = terms
        self.busy = False
        """Something is held or waits: every bar concerns it."""
        self._side = 0
        self._next: _Wish | None = None
        """An entry at the next open."""
        self._leaving: ExitReason | None = None
        self._forget()

    def _forget(self) -> None:
        self._side, self._leaving, self._taken = 0, None, False
        self._entry = self._stop = self._first_stop = self._aim = self._best = self._risk = self._score = NAN
        self._costs, self._floor, self._ceiling, self._until = 0.0, math.inf, 0.0, 0
        self.opened_at = self._funded_at = self._hold = 0
        self.busy = self._next is not None

    # -- what the strategy wants ------------------------------------------------------------------------------------------

    def want(self, series: Any, intent: Any, at: int, sign: int) -> None:
        """The view turned to `sign` at this close: in at the next open (a short of a coin cannot be). Stop and target are set now."""
        if sign < 0 and self.key[2] is AssetClass.SPOT:
            return
        touch = float(series.ask if sign > 0 else series.bid)
        stop, aim = touch - sign * float(intent.stop), touch + sign * float(intent.target)
        if intent.stop > 0.0 and stop > 0.0:  # without one a trade has no R
            target = aim if intent.target > 0.0 and aim > 0.0 else None
            self._next = _Wish(at, float(intent.score), touch, stop, target, int(intent.hold), False)
            self.busy = True

    def refused(self) -> None:
        """The market itself forbade the entry (closed, too wide, blacked out): it would not have been traded."""
        self._next = None
        self.busy = self._side != 0

    def taken(self, at: int, interval_ms: int) -> None:
        """The book opened the same signal: its own result is the one that counts."""
        if self._next is not None and at - self._next.at < interval_ms:
            self._next = self._next._replace(taken=True)

    def untouched(self, series: Any, bar: Bar, at: int, sign: int) -> bool:
        """Whether this bar cannot concern what is held: neither stop nor target within its range, nothing due, the view as it was."""
        return (self._floor < bar.low and bar.high < self._ceiling and sign == self._side and at < self._until
                and series.funding_at <= self._funded_at and self._leaving is None and self._next is None)

    # -- one bar ------------------------------------------------------------------------------------------------------------

    def on_bar(self, series: Any, bar: Bar, at: int, sign: int | None) -> list[Entered | Left]:
        """What happened within this closed bar, then at its close. `sign` is the view now; None while history is shown again."""
        told: list[Entered | Left] = []
        if self._leaving is not None:
            told.append(self._left(self._market_price(series, bar, -self._side), self.terms.taker_fee, at, self._leaving, series))
        if self._next is not None:
            self._enter(series, bar, at, told)
        if self._side:
            self._hold_costs(series, at)
            closed = self._match(series, bar, at)
            if closed is not None:
                told.append(closed)
            elif sign is not None:
                self._judge(series, bar, at, sign)
        return told

    def _enter(self, series: Any, bar: Bar, at: int, told: list[Entered | Left]) -> None:
        wish, self._next = self._next, None
        assert wish is not None
        if bar.ts - wish.at >= series.interval_ms or self._side:  # an entry does not wait out a hole
            self.busy = self._side != 0
            return
        side = 1 if wish.score > 0.0 else -1
        slips = (self.terms.slippage_bp + self.terms.stop_slippage_bp) * cost_model.BASIS_POINT
        risk = abs(wish.expected - wish.stop) + wish.expected * (slips + 2.0 * self.terms.taker_fee)  # as Sizer's loss per unit
        entry = self._market_price(series, bar, side)
        opened = Entered(at, *self.key, side, wish.score, entry, wish.stop, wish.target, risk, wish.hold,
                         bar.ts, wish.taken)
        self.restore(opened)
        told.append(opened)

    def restore(self, opened: Entered | ShadowOpened) -> None:
        """Hold what a fact says was opened: now, or before a restart."""
        self._side, self._score, self._entry, self._hold = opened.side, opened.score, opened.entry, opened.hold
        self._stop = self._first_stop = opened.stop
        self._aim = NAN if opened.target is None else opened.target
        self.opened_at = self._funded_at = opened.opened_at
        self._taken, self._best = opened.taken, opened.entry
        trails = self.terms.break_even_at_r > 0.0 or self.terms.trail_at_r > 0.0
        if not trails and self.key[2] is not AssetClass.FOREX:  # there a spread is about every bar, and the weekend comes
            beyond = self._aim if self._aim == self._aim else math.inf * self._side
            self._floor, self._ceiling = (self._stop, beyond) if self._side > 0 else (beyond, self._stop)
        self._risk, self._costs, self._leaving, self.busy = opened.risk, self.terms.taker_fee * opened.entry, None, True

    def _market_price(self, series: Any, bar: Bar, order: int) -> float:
        """A market order of one unit at this bar's open; never inside the modelled spread, nor inside the spread quoted last."""
        known = 0.5 * (series.ask - series.bid) / bar.open / cost_model.BASIS_POINT if series.ask > series.bid > 0.0 else 0.0
        touch = cost_model.touched(order, bar.open, bar.open, True, max(known, self.terms.half_spread_bp))
        return cost_model.market_fill(order, touch, self.terms.slippage_bp, 0.0)

    def _match(self, series: Any, bar: Bar, at: int) -> Left | None:
        offset = 0.0
        if self.key[2] is AssetClass.FOREX:
            offset = cost_model.quote_offset(bar.bid, bar.ask, bar.open, self.terms.half_spread_bp)
        exit_kind, raw = cost_model.bar_exit(self._side, bar.open, bar.high, bar.low, self._stop, self._aim, offset)
        if exit_kind == cost_model.STOP:
            price = cost_model.stop_fill(-self._side, raw, self.terms.slippage_bp, 0.0, self.terms.stop_slippage_bp)
            reason = ExitReason.STOP_LOSS if self._stop == self._first_stop else ExitReason.TRAILING_STOP_LOSS
            return self._left(price, self.terms.taker_fee, at, reason, series)
        if exit_kind == cost_model.TARGET:
            return self._left(raw, self.terms.maker_fee, at, ExitReason.ROI, series)
        return None

    def _judge(self, series: Any, bar: Bar, at: int, sign: int) -> None:
        """At the close: view gone, forex about to close, time up; else the stop may follow (Strategy_Manager's own order)."""
        side, terms = self._side, self.terms
        self._until = self.opened_at + self._hold * series.interval_ms if self._hold > 0 else FOREVER
        if sign != side:
            self._leaving = ExitReason.EXIT_SIGNAL
        elif (terms.weekend_flat and at + 2 * series.interval_ms + terms.rollover_ms >= sessions.next_close(self.opened_at)) or (
                self._hold > 0 and at - self.opened_at >= self._hold * series.interval_ms):
            self._leaving = ExitReason.TIME_EXIT
        elif terms.break_even_at_r > 0.0 or terms.trail_at_r > 0.0:
            self._best = max(self._best, bar.high) if side > 0 else min(self._best, bar.low)
            self._stop = cost_model.next_stop(
                side, self._entry, self._stop, self._best, abs(self._entry - self._first_stop),
                terms.break_even_at_r, terms.trail_at_r, terms.trail_distance_r)

    def _hold_costs(self, series: Any, at: int) -> None:
        """Funding that was settled since it was last looked at, on one unit at the mark."""
        if self.key[2] is AssetClass.PERP and self._funded_at < series.funding_at <= at and math.isfinite(series.funding):
            mark = series.mark_price if series.mark_at == series.funding_at else series.bar.close
            self._costs -= cost_model.funding(self._side * mark, series.funding)
            self._funded_at = series.funding_at

    def _left(self, price: float, fee: float, at: int, reason: ExitReason, series: Any) -> Left:
        net = self._side * (price - self._entry) - self._costs - fee * price
        if self.key[2] is AssetClass.FOREX and series.financing is not None:
            annual = series.financing.long_rate if self._side > 0 else series.financing.short_rate
            net += cost_model.financing(self._entry, annual, sessions.nights_between(self.key[1], self.opened_at, at))
        closed = Left(at, *self.key, self.opened_at, abs(self._score), net / self._risk, reason, self._taken)
        self._forget()
        return closed
