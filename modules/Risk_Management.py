"""Owns the last veto: alone turns a decision into an ApprovedOrder, and only on what the authorities themselves say at that moment.

May refuse: everything that opens exposure - a halted or paused class, a switch that is off, more orders or notional per minute, more open
orders or more money than there is, a leg that would leave an option position with undefined risk. Never refuses an exit. Alone writes
InstrumentListed (at the first trade), TradeOpened, OrderIntended, EntriesPaused and EntriesResumed. Calls the kill switch on a runaway.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, replace
from decimal import ROUND_UP, Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from modules.domain.decision import Check, Decision, Leg, Outcome, Rule, Size
from modules.domain.events import (
    EntriesPaused,
    EntriesResumed,
    Fact,
    Filled,
    InstrumentListed,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderIntended,
    OrderRejected,
    PositionClosed,
    Scope,
    TradeAbandoned,
    TradeOpened,
    Trigger,
)
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.money import UNIT, ZERO, ratio
from modules.domain.order import Order, OrderKind, Purpose, derive_id
from modules.domain.policies import CostModel, Policies
from modules.domain.signal import Signal
from modules.domain.view import TradingState, View
from modules.filters.compare import at_least, at_most, holds
from modules.filters.option_book import option_book
from modules.runtime import failpoint

if TYPE_CHECKING:
    from modules.Funds_Controller import FundsController
    from modules.Kill_Switch import KillSwitch
    from modules.store.journal import Journal

MINUTE_MS: Final = 60_000
BASIS_POINTS: Final = Decimal(10_000)
_TOKEN: Final = object()
"""What only this module can hand to ApprovedOrder."""


@dataclass(frozen=True, slots=True)
class ApprovedOrder:
    """The only thing a venue lane takes. Built by Risk_Management alone; its OrderIntended is in the journal."""

    order: Order
    token: InitVar[object]

    def __post_init__(self, token: object) -> None:
        if token is not _TOKEN:
            raise PermissionError("only Risk_Management approves orders")


@dataclass(frozen=True, slots=True)
class Approved:
    """`orders` is the first leg's; later legs go through `approve_follow_up` once it has filled. `decision` holds the veto's checks too."""

    orders: tuple[ApprovedOrder, ...]
    trade_id: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class Denied:
    """`check` has the numbers of `rule`, the first that failed; `decision` says so as well."""

    rule: Rule
    check: Check
    decision: Decision
    orders: tuple[ApprovedOrder, ...] = ()


class ClassMoney(NamedTuple):
    """One class's money now, settlement currency: E of domain.md section 1, posted margin, market value of spot and option positions."""

    equity: Decimal
    margin: Decimal
    positions_value: Decimal


class _Reserves(NamedTuple):
    needed: Decimal
    """What must be free."""
    held: Decimal
    """What is reserved: `needed` plus modelled slippage."""


@dataclass(slots=True)
class _Structure:
    """An option trade of several legs, until it is closed: what was approved and how much of each leg is ordered and filled."""

    opened: TradeOpened
    orders: set[str]
    ordered: dict[str, Decimal]
    filled: dict[str, Decimal]


class RiskManagement:
    """`money` tells a class's money from its authorities, None while any of it is unknown. `live`: orders spend real money."""

    def __init__(
        self, journal: Journal, policies: Policies, kill_switch: KillSwitch, funds: FundsController, *,
        money: Callable[[AssetClass], ClassMoney | None], live: bool,
    ) -> None:
        self._journal = journal
        self._policies = policies
        self._kill_switch = kill_switch
        self._funds = funds
        self._money = money
        self._live = live
        self._paused: set[AssetClass] = set()
        self._listed: dict[str, Instrument] = {}
        self._entries: dict[str, AssetClass] = {}
        """Every entry ever intended: the same intent can never be sent twice."""
        self._working: dict[str, AssetClass] = {}
        self._recent: dict[AssetClass, deque[tuple[int, Decimal]]] = {asset_class: deque() for asset_class in AssetClass}
        self._structures: dict[str, _Structure] = {}
        self._handlers: dict[type, Callable[[Any], None]] = {
            InstrumentListed: self._on_listed, TradeOpened: self._on_opened, OrderIntended: self._on_intended, Filled: self._on_filled,
            OrderCanceled: self._on_ended, OrderExpired: self._on_ended, OrderRejected: self._on_ended, OrderAccepted: self._on_accepted,
            PositionClosed: self._on_closed, TradeAbandoned: self._on_abandoned, EntriesPaused: self._on_paused,
            EntriesResumed: self._on_resumed,
        }

    def adopt(self, policies: Policies) -> None:
        """Work by the owner's new numbers from the next decision on."""
        self._policies = policies

    # -- the decision -----------------------------------------------------------------------------------------------------

    def decide(
        self, signal: Signal, view: View, checks: Sequence[Check], size: Size | None, legs: Sequence[Leg], decision_id: str, *,
        learning: dict[str, float | str] | None = None,
    ) -> Decision:
        """Signal, checks and size as one record. Approved only if every check passed, the size stands and there is something to trade;
        `stopped_by` is the first failed check in the order given, the size's own after the gates'. Pure."""
        every = (*checks, *(size.checks if size is not None else ()))
        failed = next((check for check in every if not check.passed), None)
        if failed is None and (size is None or not size.approved or not legs):
            failed = Check(Rule.CONTRACT_NOT_FOUND, 0, 1, "legs", False, "nothing to trade")
            if size is None or not size.approved:
                failed = Check(Rule.SIZE_BELOW_MINIMUM, None, None, "quantity", False, "not sized" if size is None else size.reason)
            checks = (*checks, failed)
        return Decision(
            decision_id=decision_id, at=view.at, strategy=signal.strategy, symbol=signal.symbol, asset_class=signal.asset_class,
            side=signal.side, score=signal.score, confidence=signal.confidence, entry=signal.entry, stop=signal.stop, target=signal.target,
            outcome=Outcome.APPROVED if failed is None else Outcome.DENIED, stopped_by=None if failed is None else failed.rule,
            checks=tuple(checks), size=size, legs=tuple(legs), policy_hash=self._policies.hash, learning=learning or {},
            hold=signal.hold, interval_ms=signal.interval_ms,
        )

    # -- the veto ---------------------------------------------------------------------------------------------------------

    def approve(
        self, decision: Decision, view: View, signal: Signal, venue: str, instruments: Mapping[str, Instrument], at: int
    ) -> Approved | Denied:
        """Ask every authority once more, then journal the trade and its first order. Hand in denied decisions too: one that only the
        cap on orders per minute stopped is a runaway, and a runaway halts its class.

        What comes back `Approved` is in the journal with its funds reserved. Raises JournalUnwritable: then nothing may be sent.
        """
        if decision.outcome is not Outcome.APPROVED or decision.size is None:
            size_checks = decision.size.checks if decision.size is not None else ()
            failed = [check for check in (*decision.checks, *size_checks) if not check.passed]
            self._halt_runaway(decision.asset_class, failed, at)
            return Denied(failed[0].rule, failed[0], decision)
        size = decision.size
        first = instruments.get(decision.legs[0].symbol) if decision.legs else None
        reserves = None if first is None else self._reservation(signal, size, first, _tied_up_sold(decision.legs, instruments))
        checks = self._veto(decision, size, view, signal, instruments, reserves, at)
        failed = [check for check in checks if not check.passed]
        decision = replace(decision, checks=(*decision.checks, *checks))
        if failed or first is None or reserves is None:
            self._halt_runaway(decision.asset_class, failed, at)
            return Denied(failed[0].rule, failed[0], replace(decision, outcome=Outcome.DENIED, stopped_by=failed[0].rule))
        order = self._first_order(decision, size, view, signal, venue, first, reserves.held, at)
        self._write_down(decision, size, signal, order, instruments, at)
        return Approved((ApprovedOrder(order, _TOKEN),), order.trade_id, decision)

    def approve_follow_up(self, order: Order) -> ApprovedOrder | Check:
        """A later leg of an approved option structure: as planned, at most as much as the legs before it have filled, and not while the
        class is halted or switched off. A Check is the one that failed: then the legs that are there must be closed."""
        structure = self._structures.get(order.trade_id)
        room = ZERO if structure is None else _room(structure, order)
        checks = (
            *self._permission(order.asset_class),
            Check(Rule.SIZE_ABOVE_CEILING, order.quantity, room, "quantity of this leg", ZERO < order.quantity <= room, order.symbol),
        )
        failed = next((check for check in checks if not check.passed), None)
        if failed is not None or structure is None:
            return failed if failed is not None else checks[-1]
        sold = self._listed.get(order.symbol)
        held = sold.tied_up_sold(order.quantity) if sold is not None and order.side is Side.SELL else ZERO
        order = replace(order, reserves=max(order.reserves, structure.opened.risk, held))
        self._journal.append(OrderIntended(order.at, order))
        return ApprovedOrder(order, _TOKEN)

    def approve_exit(self, order: Order) -> ApprovedOrder:
        """Protective and closing orders always pass, halted or not. Raises ValueError for one that could open exposure: that is a bug."""
        if not order.reduce_only or order.purpose is Purpose.ENTRY:
            raise ValueError(f"{order.purpose} {order.client_order_id} on {order.symbol} is not reduce-only: it needs a decision")
        failpoint.hit("exit.before_intent")
        self._journal.append(OrderIntended(order.at, order))
        failpoint.hit("exit.intended")
        return ApprovedOrder(order, _TOKEN)

    def _permission(self, asset_class: AssetClass) -> tuple[Check, ...]:
        """The kill switch and, where the money is real, the owner's switches, asked directly."""
        state, why = self._kill_switch.state(asset_class), self._kill_switch.halted_by(asset_class)
        return (
            holds(Rule.TRADING_HALTED, state is TradingState.HALTED, False, "halted", why),
            holds(Rule.TRADING_REDUCING, state is TradingState.REDUCING, False, "reducing", why),
            *((self._funds.switch_check(asset_class),) if self._live else ()),
        )

    def _veto(
        self, decision: Decision, size: Size, view: View, signal: Signal, instruments: Mapping[str, Instrument],
        reserves: _Reserves | None, at: int,
    ) -> tuple[Check, ...]:
        policy, asset_class, legs = self._policies.risk, decision.asset_class, decision.legs
        money = self._money(asset_class)
        equity = None if money is None else money.equity
        share = None if equity is None else ratio(self.notional_last_minute(asset_class, at) + size.notional, equity)
        free = None if money is None else self._funds.free(asset_class, money.equity, money.margin, money.positions_value)
        needed = None if reserves is None else reserves.needed
        known = [instruments[leg.symbol] for leg in legs if leg.symbol in instruments]
        of_class = sum(instrument.asset_class is asset_class for instrument in known)
        first_id = derive_id(signal.strategy, legs[0].symbol, signal.at, legs[0].side, Purpose.ENTRY, 0) if legs else ""
        booked = any(check.rule is Rule.DELTA_ABOVE_MAXIMUM for check in decision.checks)
        return (
            *self._permission(asset_class),
            holds(Rule.PAUSED_BY_OPERATOR, self.paused(asset_class), False, "paused"),
            holds(Rule.TRADING_REDUCING, self._journal.low_space, False, "disk full", "the journal's reserve is for exits only"),
            at_least(Rule.CONTRACT_NOT_FOUND, of_class, max(1, len(legs)), "legs with a known instrument of the class"),
            _defined_risk(legs, known),
            at_most(Rule.SIZE_ABOVE_CEILING, max((leg.quantity for leg in legs), default=None), size.quantity, "largest leg's quantity"),
            at_least(Rule.SIZE_BELOW_MINIMUM, min((leg.quantity for leg in legs), default=None), UNIT, "smallest leg's quantity"),
            at_most(Rule.ORDER_IN_DOUBT, int(first_id in self._entries), 0, "times intended before"),
            at_most(Rule.ORDERS_PER_MINUTE_ABOVE_MAXIMUM, self.orders_last_minute(asset_class, at) + 1, policy.orders_per_minute_max,
                    "entries in a minute"),
            at_most(Rule.NOTIONAL_PER_MINUTE_ABOVE_MAXIMUM, share, self._notional_per_minute_max(asset_class), "of equity in a minute"),
            at_most(Rule.OPEN_ORDERS_ABOVE_MAXIMUM, self.open_orders(asset_class) + 1, policy.open_orders_max,
                    "open entries after the trade"),
            at_most(Rule.SIZE_ABOVE_CEILING, needed, free, f"free {view.instrument.settle}"),
            *(() if booked else option_book(signal, view, size, policy)),
        )

    def _notional_per_minute_max(self, asset_class: AssetClass) -> Decimal:
        """The owner's cap, or one full-size position of this class where the sizing policy allows a larger one: a leveraged position
        the plan permits is no runaway, a second one in the same minute is."""
        sizing, costs = self._policies.sizing, self._policies.costs.of(asset_class)
        one = sizing.good_setup_cap_max * min(costs.leverage, sizing.leverage_max.of(asset_class))
        ceiling = sizing.instrument_notional_max.of(asset_class)
        return max(self._policies.risk.notional_per_minute_max, min(one, ceiling) if ceiling else one)

    def _halt_runaway(self, asset_class: AssetClass, failed: Sequence[Check], at: int) -> None:
        """Only the cap on orders per minute stands between this order and the venue: something sends orders in a loop."""
        check = next((check for check in failed if check.rule is Rule.ORDERS_PER_MINUTE_ABOVE_MAXIMUM), None)
        if check is not None and all(other.rule is check.rule for other in failed):
            self._kill_switch.halt(
                Scope(asset_class.value), Trigger.RUNAWAY, at=at, measured=str(check.measured), limit=str(check.limit), until=None,
                reason="more entries in a minute than the hard cap allows")

    # -- the order --------------------------------------------------------------------------------------------------------

    def _reservation(self, signal: Signal, size: Size, instrument: Instrument, sold: Decimal) -> _Reserves:
        """Cost incl. fees for spot and long options, margin and fees for perps and FX, maximum loss (fees included) for spreads, or what
        the venue ties up of them where that is more (`sold`: it looks at each leg by itself).

        What is held is that plus the modelled slippage and impact, so that a worse fill is still covered.
        """
        model = self._policies.costs.of(instrument.asset_class)
        slippage = (_exact(model.slippage_bp) + _exact(model.impact_bp)) / BASIS_POINTS * size.notional
        fee = max(instrument.taker_fee, model.taker_fee) * size.notional
        if instrument.asset_class is AssetClass.OPTION:
            fee = ZERO
        if signal.structure.sells:
            slippage = ZERO
        needed = max((size.tied_up if instrument.is_margined else size.notional) + fee, sold)
        return _Reserves(needed.quantize(UNIT, ROUND_UP), (needed + slippage).quantize(UNIT, ROUND_UP))

    def _first_order(
        self, decision: Decision, size: Size, view: View, signal: Signal, venue: str, instrument: Instrument, reserves: Decimal, at: int
    ) -> Order:
        leg = decision.legs[0]
        client_order_id = derive_id(signal.strategy, leg.symbol, signal.at, leg.side, Purpose.ENTRY, 0)
        arrival = leg.price
        if instrument.symbol == view.instrument.symbol and view.option is None and view.quote is not None and view.quote.sane:
            arrival = (_exact(view.quote.bid) + _exact(view.quote.ask)) / 2
        model = self._policies.costs.of(instrument.asset_class)
        return Order(
            client_order_id=client_order_id, trade_id="tr" + client_order_id[2:18], decision_id=decision.decision_id,
            strategy=signal.strategy, venue=venue, symbol=leg.symbol, asset_class=decision.asset_class, side=leg.side,
            quantity=leg.quantity, kind=OrderKind.MARKET, purpose=Purpose.ENTRY, price=None, reduce_only=False, leverage=size.leverage,
            arrival_price=arrival, slippage_model_bp=_slippage_bp(model, instrument.asset_class), reserves=reserves,
            at=at, expires_at=at + round(self._policies.execution.unfilledtimeout_entry_s * 1000.0), notional=size.notional)

    def _write_down(
        self, decision: Decision, size: Size, signal: Signal, order: Order, instruments: Mapping[str, Instrument], at: int
    ) -> None:
        """Trade and order in one commit: no crash leaves the one without the other, and the entry waits for the disk once."""
        legs = dict.fromkeys(leg.symbol for leg in decision.legs)
        listed = [InstrumentListed(at, instruments[symbol]) for symbol in legs if self._listed.get(symbol) != instruments[symbol]]
        failpoint.hit("entry.before_trade")
        opened = TradeOpened(
            at=at, trade_id=order.trade_id, decision_id=decision.decision_id, strategy=signal.strategy, symbol=signal.symbol,
            asset_class=decision.asset_class, side=signal.side.value, structure=signal.structure.value, score=signal.score,
            confidence=signal.confidence, entry=signal.entry, stop=signal.stop, target=signal.target, hold=signal.hold,
            interval_ms=signal.interval_ms, risk=size.risk, legs=decision.legs)
        self._journal.append_all((*listed, opened, OrderIntended(at, order)))
        failpoint.hit("entry.intended")

    # -- the operator's pause ---------------------------------------------------------------------------------------------

    def paused(self, asset_class: AssetClass) -> bool:
        return asset_class in self._paused

    def pause(self, scope: Scope, at: int, by: str) -> None:
        """No new entries until resumed; exits and stops run on."""
        self._journal.append(EntriesPaused(at, scope, by))

    def resume(self, scope: Scope, at: int, by: str) -> None:
        self._journal.append(EntriesResumed(at, scope, by))

    # -- our own caps -----------------------------------------------------------------------------------------------------

    def orders_last_minute(self, asset_class: AssetClass, at: int) -> int:
        """Entries intended in the 60 s before `at`. Exits never count: a full book must stay closable."""
        return sum(1 for when, _ in self._recent[asset_class] if at - when < MINUTE_MS)

    def notional_last_minute(self, asset_class: AssetClass, at: int) -> Decimal:
        """Their notional, settlement currency."""
        return sum((notional for when, notional in self._recent[asset_class] if at - when < MINUTE_MS), ZERO)

    def open_orders(self, asset_class: AssetClass) -> int:
        """Working entries, those in doubt included."""
        return sum(1 for of in self._working.values() if of is asset_class)

    # -- projection -------------------------------------------------------------------------------------------------------

    def apply(self, fact: Fact) -> None:
        handler = self._handlers.get(type(fact))
        if handler is not None:
            handler(fact)

    def _on_listed(self, fact: InstrumentListed) -> None:
        self._listed[fact.instrument.symbol] = fact.instrument

    def _on_opened(self, fact: TradeOpened) -> None:
        if len(fact.legs) > 1:
            self._structures[fact.trade_id] = _Structure(fact, set(), {}, {})

    def _on_intended(self, fact: OrderIntended) -> None:
        order = fact.order
        if order.purpose is not Purpose.ENTRY:
            return
        self._entries[order.client_order_id] = self._working[order.client_order_id] = order.asset_class
        recent = self._recent[order.asset_class]
        recent.append((fact.at, order.notional))
        while fact.at - recent[0][0] >= MINUTE_MS:
            recent.popleft()
        structure = self._structures.get(order.trade_id)
        if structure is not None:
            structure.orders.add(order.client_order_id)
            structure.ordered[order.symbol] = structure.ordered.get(order.symbol, ZERO) + order.quantity

    def _on_filled(self, fact: Filled) -> None:
        fill = fact.fill
        if fact.order_done:
            self._working.pop(fill.client_order_id, None)
        for structure in self._structures.values():
            if fill.client_order_id in structure.orders:
                structure.filled[fill.symbol] = structure.filled.get(fill.symbol, ZERO) + fill.quantity

    def _on_ended(self, fact: OrderCanceled | OrderExpired | OrderRejected) -> None:
        self._working.pop(fact.client_order_id, None)

    def _on_accepted(self, fact: OrderAccepted) -> None:
        """Late evidence may bring an entry back that we took for ended."""
        asset_class = self._entries.get(fact.client_order_id)
        if asset_class is not None:
            self._working[fact.client_order_id] = asset_class

    def _on_closed(self, fact: PositionClosed) -> None:
        self._structures.pop(fact.trade.trade_id, None)

    def _on_abandoned(self, fact: TradeAbandoned) -> None:
        self._structures.pop(fact.trade_id, None)

    def _on_paused(self, fact: EntriesPaused) -> None:
        self._paused.update(c for c in AssetClass if fact.scope.covers(c))

    def _on_resumed(self, fact: EntriesResumed) -> None:
        self._paused.difference_update(c for c in AssetClass if fact.scope.covers(c))


def _room(structure: _Structure, order: Order) -> Decimal:
    """How much of this leg may still be ordered: what is planned, and no more than every leg before it has filled."""
    legs = structure.opened.legs
    index = next((i for i, leg in enumerate(legs) if leg.symbol == order.symbol and leg.side is order.side), 0)
    if index == 0:
        return ZERO
    filled = min(structure.filled.get(leg.symbol, ZERO) for leg in legs[:index])
    return min(legs[index].quantity, filled) - structure.ordered.get(order.symbol, ZERO)


def _tied_up_sold(legs: Sequence[Leg], instruments: Mapping[str, Instrument]) -> Decimal:
    """What the venue will tie up of the legs that are sold, and what those cost that are bought, where it says so; settlement currency."""
    sold = sum((rules.tied_up_sold(leg.quantity) for leg in legs if leg.side is Side.SELL and (rules := instruments.get(leg.symbol))), ZERO)
    return sold + sum((leg.quantity * leg.price for leg in legs if leg.side is Side.BUY), ZERO) if sold else ZERO


def _defined_risk(legs: Sequence[Leg], known: Sequence[Instrument]) -> Check:
    """Nothing is sold short whose loss has no bound: no spot, and no option without at least as many bought ones before it of the same
    kind, on the same underlying, that live at least as long and cover nothing else."""
    covers: list[tuple[Instrument, Decimal]] = []
    naked = 0
    for leg, instrument in zip(legs, known, strict=False):
        if leg.side is Side.BUY:
            covers.append((instrument, leg.quantity))
        elif instrument.asset_class is AssetClass.SPOT:
            naked += 1
        elif instrument.asset_class is AssetClass.OPTION:
            place = next((place for place, (cover, left) in enumerate(covers) if left >= leg.quantity
                          and cover.underlying == instrument.underlying and cover.right is instrument.right
                          and (cover.expiry or 0) >= (instrument.expiry or 0)), None)
            if place is None:
                naked += 1
            else:
                covers[place] = (covers[place][0], covers[place][1] - leg.quantity)
    return at_most(Rule.SHORT_NOT_POSSIBLE, naked, 0, "legs sold without cover")


def _slippage_bp(model: CostModel, asset_class: AssetClass) -> Decimal:
    """Expected adverse slippage of a market entry: against the mid, half the spread counts; an option's arrival is the far side."""
    half_spread = ZERO if asset_class is AssetClass.OPTION else _exact(model.half_spread_bp)
    return half_spread + _exact(model.slippage_bp)


def _exact(value: float) -> Decimal:
    return Decimal(repr(value))


__all__ = ["Approved", "ApprovedOrder", "ClassMoney", "Denied", "RiskManagement"]
