"""The last veto: asked directly, not from the view; what it approves is in the journal with its funds reserved."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from modules.domain.decision import BoundBy, Check, Decision, Leg, Outcome, Rule, Size
from modules.domain.events import (
    Fact,
    Filled,
    InstrumentListed,
    OrderAccepted,
    OrderCanceled,
    OrderIntended,
    PositionClosed,
    Scope,
    TradeOpened,
    Trigger,
)
from modules.domain.instrument import AssetClass, Instrument, Right, Side
from modules.domain.order import ExitReason, Order, OrderKind, Purpose
from modules.domain.position import ClosedTrade
from modules.domain.signal import Signal, Structure
from modules.domain.view import TradingState, View
from modules.filters import gates
from modules.Funds_Controller import FundsController
from modules.Kill_Switch import KillSwitch
from modules.Risk_Management import Approved, ApprovedOrder, ClassMoney, Denied, RiskManagement
from modules.store.journal import Journal
from tests.builders import AT, BTC_CALL, make_fill, make_instrument, make_option_view, make_order, make_signal, make_view, shipped_policies

SPOT, PERP, OPTION, FOREX = AssetClass.SPOT, AssetClass.PERP, AssetClass.OPTION, AssetClass.FOREX
ZERO, ONE = Decimal(0), Decimal(1)
POLICIES = shipped_policies()
SHORT_CALL = "BTC/USDT:USDT-260130-50000-C"
INSTRUMENTS: dict[str, Instrument] = {
    **{instrument.symbol: instrument for instrument in map(make_instrument, AssetClass)},
    SHORT_CALL: make_instrument(OPTION, symbol=SHORT_CALL, strike=Decimal(50000)),
}


class Desk:
    """Risk_Management among real authorities, with a journal in memory and 10,000 in every class."""

    def __init__(self, live: bool = True) -> None:
        self.journal = Journal(None)
        all_on = POLICIES.funds.model_copy(update={"funds_on": True, "classes_on": dict.fromkeys(AssetClass, True)})
        self.funds = FundsController(journal=self.journal, policy=all_on, allocate={})
        self.kill_switch = KillSwitch(journal=self.journal, policy=POLICIES.kill_switch, equity=lambda _: None)
        self.money: ClassMoney | None = ClassMoney(Decimal(10_000), ZERO, ZERO)
        self.risk = RiskManagement(
            journal=self.journal, policies=POLICIES, kill_switch=self.kill_switch, funds=self.funds, money=lambda _: self.money, live=live)
        for projection in (self.funds.apply, self.kill_switch.apply, self.risk.apply):
            self.journal.project(projection)

    @property
    def facts(self) -> list[Fact]:
        return [fact for _, fact in self.journal.facts()]

    def decide(
        self, asset_class: AssetClass = SPOT, minute: float = 0.0, size: Size | None = None, legs: tuple[Leg, ...] | None = None,
        signal: Signal | None = None, view: View | None = None,
    ) -> tuple[Decision, View, Signal]:
        at = AT + round(minute * 60_000)
        signal = signal or make_signal(asset_class, at=at)
        view = view or make_view(asset_class, at=at)
        size = size or sized(asset_class)
        legs = legs if legs is not None else (Leg(view.instrument.symbol, signal.side, size.quantity, Decimal(repr(signal.entry))),)
        checks = gates(signal, view, POLICIES.risk)
        return self.risk.decide(signal, view, checks, size, legs, f"d{minute}"), view, signal

    def approve(self, asset_class: AssetClass = SPOT, minute: float = 0.0, **changes: Any) -> Approved | Denied:
        decision, view, signal = self.decide(asset_class, minute, **changes)
        return self.risk.approve(decision, view, signal, "paper", INSTRUMENTS, view.at)

    def approved(self, asset_class: AssetClass = SPOT, minute: float = 0.0, **changes: Any) -> Order:
        result = self.approve(asset_class, minute, **changes)
        assert isinstance(result, Approved), result
        return result.orders[0].order

    def denied(self, asset_class: AssetClass = SPOT, minute: float = 0.0, **changes: Any) -> Check:
        result = self.approve(asset_class, minute, **changes)
        assert isinstance(result, Denied), result
        assert (result.decision.outcome, result.decision.stopped_by) == (Outcome.DENIED, result.rule)
        assert result.check.rule is result.rule and not result.check.passed and result.orders == ()
        return result.check


def sized(asset_class: AssetClass = SPOT, notional: str = "100", tied_up: str | None = None, quantity: str = "0.002") -> Size:
    return Size(True, 2, Decimal(notional), Decimal(quantity), Decimal(2), Decimal(tied_up or notional), ONE, BoundBy.PHASE_FRACTION, "")


# -- decide --------------------------------------------------------------------------------------------------------------


def test_a_decision_keeps_every_check_and_names_the_first_that_failed() -> None:
    view = make_view(frozen_bars=9, blackout="CPI", open_positions=10)
    decision, _, _ = Desk().decide(view=view)
    assert (decision.outcome, decision.stopped_by) == (Outcome.DENIED, Rule.FEED_FROZEN)
    assert decision.checks == gates(make_signal(), view, POLICIES.risk)
    assert decision.policy_hash == POLICIES.hash


def test_a_failed_size_denies_after_the_gates_even_without_a_check_of_its_own() -> None:
    too_small = Check(Rule.SIZE_BELOW_MINIMUM, Decimal(4), Decimal(5), "USDT", False)
    size = replace(sized(), approved=False, checks=(too_small,))
    assert Desk().decide(size=size)[0].stopped_by is Rule.SIZE_BELOW_MINIMUM
    assert Desk().decide(size=size, view=make_view(paused=True))[0].stopped_by is Rule.PAUSED_BY_OPERATOR
    silent, _, _ = Desk().decide(size=replace(sized(), approved=False, reason="no"))
    assert silent.outcome is Outcome.DENIED and silent.checks[-1].note == "no"
    nothing, _, _ = Desk().decide(legs=())
    assert nothing.outcome is Outcome.DENIED and nothing.stopped_by is Rule.CONTRACT_NOT_FOUND


def test_deciding_writes_nothing() -> None:
    desk = Desk()
    desk.decide()
    assert desk.facts == []


# -- what an approval writes down ------------------------------------------------------------------------------------------------


def test_an_approval_journals_instrument_trade_and_intent_before_anything_is_sent() -> None:
    desk = Desk()
    result = desk.approve()
    assert isinstance(result, Approved)
    order = result.orders[0].order
    listed, opened, intended = desk.facts
    assert listed == InstrumentListed(AT, INSTRUMENTS["BTC/USDT"]) and intended == OrderIntended(AT, order)
    assert isinstance(opened, TradeOpened) and opened.trade_id == order.trade_id == result.trade_id and opened.risk == 2
    assert (opened.legs, opened.stop, opened.hold) == (result.decision.legs, make_signal().stop, 48)
    assert (order.kind, order.purpose, order.reduce_only, order.venue) == (OrderKind.MARKET, Purpose.ENTRY, False, "paper")
    assert (order.quantity, order.notional, order.arrival_price) == (Decimal("0.002"), Decimal(100), Decimal(50_000))
    assert order.expires_at == AT + 60_000 and order.slippage_model_bp == 2


def test_an_instrument_is_listed_once_and_again_when_its_rules_change() -> None:
    desk = Desk()
    desk.approved(minute=0)
    desk.approved(minute=1)
    assert sum(isinstance(fact, InstrumentListed) for fact in desk.facts) == 1
    decision, view, signal = desk.decide(minute=2)
    finer = {**INSTRUMENTS, "BTC/USDT": make_instrument(tick=Decimal("0.001"))}
    assert isinstance(desk.risk.approve(decision, view, signal, "paper", finer, view.at), Approved)
    assert sum(isinstance(fact, InstrumentListed) for fact in desk.facts) == 2


def test_ids_come_from_what_the_order_means_so_the_same_intent_is_denied_the_second_time_and_after_a_restart() -> None:
    desk = Desk()
    first = desk.approved()
    assert desk.denied().rule is Rule.ORDER_IN_DOUBT
    again = Desk()
    for fact in desk.facts:
        again.journal.append(fact)
    assert again.denied().rule is Rule.ORDER_IN_DOUBT
    assert Desk().approved().client_order_id == first.client_order_id
    assert first.client_order_id.isalnum() and len(first.client_order_id) <= 32


def test_spot_reserves_cost_fee_and_slippage() -> None:
    desk = Desk()
    # 100 + 0.1 % fee + (1 + 10) bp slippage and impact
    assert desk.approved(size=sized(notional="100")).reserves == Decimal("100.21")
    assert desk.funds.reserved(SPOT) == Decimal("100.21")


def test_perps_and_forex_reserve_margin_and_fee() -> None:
    # 300 notional at 3x: 100 margin, 5.5 bp fee and 11 bp slippage of the notional
    assert Desk().approved(PERP, size=sized(notional="300", tied_up="100")).reserves == Decimal("100.495")
    # FX: no fee; 0.2 bp of 2,000
    assert Desk().approved(FOREX, size=sized(notional="2000", tied_up="100")).reserves == Decimal("100.04")


def test_a_long_option_reserves_premium_fees_and_slippage_and_a_spread_its_maximum_loss() -> None:
    # the option unit of notional is the maximum loss, fees included; 50 bp slippage
    assert Desk().approved(OPTION, size=sized(notional="103", tied_up="101", quantity="0.1")).reserves == Decimal("103.515")
    assert Desk().approved(OPTION, **spread()).reserves == Decimal("100")


# -- the veto asks the authorities, not the view --------------------------------------------------------------------------------


def test_a_halt_denies_although_the_view_was_still_active() -> None:
    desk = Desk()
    desk.kill_switch.halt(Scope.SPOT, Trigger.MANUAL, at=AT, reason="owner")
    check = desk.denied()
    assert check.rule is Rule.TRADING_HALTED and (check.measured, check.limit) == (1, 0)
    assert isinstance(desk.approve(PERP), Approved)


def test_a_pause_denies_entries_until_it_is_resumed_class_by_class() -> None:
    desk = Desk()
    desk.risk.pause(Scope.ALL, AT, "telegram:owner")
    assert all(desk.risk.paused(c) for c in AssetClass)
    desk.risk.resume(Scope.SPOT, AT, "telegram:owner")
    assert [c for c in AssetClass if desk.risk.paused(c)] == [PERP, OPTION, FOREX]
    assert isinstance(desk.approve(SPOT), Approved)
    assert desk.denied(PERP).rule is Rule.PAUSED_BY_OPERATOR
    again = Desk()
    for fact in desk.facts:
        again.journal.append(fact)
    assert again.risk.paused(PERP) and not again.risk.paused(SPOT)


def test_a_switch_turned_off_denies_real_orders_and_paper_does_not_ask() -> None:
    for desk in (Desk(live=True), Desk(live=False)):
        desk.funds.set_switch(Scope.ALL, False, AT, "owner")
        result = desk.approve()
        assert isinstance(result, Approved) is not desk.risk._live
        if isinstance(result, Denied):
            assert result.rule is Rule.SWITCH_OFF and (result.check.measured, result.check.limit) == (1, 2)


def test_free_funds_are_what_is_left_now_not_what_the_view_saw() -> None:
    desk = Desk()
    desk.money = ClassMoney(Decimal(1000), ZERO, Decimal(799))
    desk.approved(size=sized(notional="100"))           # holds 100.21 of 201
    check = desk.denied(minute=1, size=sized(notional="101"))
    assert check.rule is Rule.SIZE_ABOVE_CEILING
    assert (check.measured, check.limit) == (Decimal("101.101"), Decimal("100.79"))


def test_an_order_may_use_free_funds_to_the_last_cent() -> None:
    desk = Desk()
    desk.money = ClassMoney(Decimal(1000), ZERO, Decimal("899.9"))
    assert isinstance(desk.approve(size=sized(notional="100")), Approved)    # 100 and 0.1 fee
    other = Desk()
    other.money = ClassMoney(Decimal(1000), ZERO, Decimal("899.91"))
    assert isinstance(other.approve(size=sized(notional="100")), Denied)


@pytest.mark.parametrize("money", [None, ClassMoney(ZERO, ZERO, ZERO), ClassMoney(Decimal(-1), ZERO, ZERO)])
def test_unknown_or_no_money_denies(money: ClassMoney | None) -> None:
    desk = Desk()
    desk.money = money
    assert desk.denied().measured is None


def test_a_quarter_of_equity_may_be_ordered_per_minute_and_not_more() -> None:
    desk = Desk()
    desk.approved(size=sized(notional="1500"))
    check = desk.denied(minute=0.5, size=sized(notional="1000.01"))
    assert check.rule is Rule.NOTIONAL_PER_MINUTE_ABOVE_MAXIMUM
    assert (check.measured, check.limit) == (Decimal("0.250001"), Decimal("0.25"))
    desk.approved(minute=0.5, size=sized(notional="1000"))
    assert desk.risk.notional_last_minute(SPOT, AT + 30_000) == 2500
    desk.approved(minute=1.0, size=sized(notional="1500"))     # the first one is a minute old


def test_one_full_size_leveraged_position_is_no_runaway_but_a_second_in_the_same_minute_is_denied() -> None:
    """FX may hold half the equity in one pair, which is more than a quarter: the plan's own largest position always fits."""
    desk = Desk()
    desk.approved(FOREX, size=sized(notional="5000", tied_up="250"))
    check = desk.denied(FOREX, minute=0.5, size=sized(notional="1", tied_up="1"))
    assert check.rule is Rule.NOTIONAL_PER_MINUTE_ABOVE_MAXIMUM and (check.measured, check.limit) == (Decimal("0.5001"), Decimal("0.5"))
    assert Desk().denied(FOREX, size=sized(notional="5000.01", tied_up="250")).limit == Decimal("0.5")
    assert Desk().denied(PERP, size=sized(notional="3000.01", tied_up="1000")).limit == Decimal("0.30")


def test_the_eleventh_order_of_a_minute_is_a_runaway_and_halts_its_class() -> None:
    desk = Desk()
    for second in range(10):
        desk.approved(minute=second / 60, size=sized(notional="10"))
    assert desk.risk.orders_last_minute(SPOT, AT + 9_000) == 10 and desk.kill_switch.state(SPOT) is TradingState.ACTIVE
    check = desk.denied(minute=10 / 60, size=sized(notional="10"))
    assert check.rule is Rule.ORDERS_PER_MINUTE_ABOVE_MAXIMUM and (check.measured, check.limit) == (11, 10)
    assert desk.kill_switch.state(SPOT) is TradingState.HALTED and desk.kill_switch.state(PERP) is TradingState.ACTIVE
    halt = desk.kill_switch.halts()[0]
    assert (halt.trigger, halt.measured, halt.limit, halt.until) == (Trigger.RUNAWAY, "11", "10", None)
    assert desk.denied(minute=5).rule is Rule.TRADING_HALTED


def test_ten_orders_a_minute_for_ever_are_no_runaway() -> None:
    desk = Desk()
    for step in range(40):
        order = desk.approved(minute=step * 0.1, size=sized(notional="10"))
        desk.journal.append(OrderCanceled(AT, order.client_order_id, ""))
    assert desk.kill_switch.halts() == []


def test_a_runaway_that_the_gates_already_stopped_halts_too_but_not_a_signal_that_was_denied_anyway() -> None:
    desk = Desk()
    denied_anyway = make_view(orders_last_minute=10, blackout="CPI")
    assert desk.denied(view=denied_anyway).rule is Rule.BLACKOUT
    assert desk.kill_switch.halts() == []
    assert desk.denied(view=make_view(orders_last_minute=10)).rule is Rule.ORDERS_PER_MINUTE_ABOVE_MAXIMUM
    assert desk.kill_switch.state(SPOT) is TradingState.HALTED


def test_twenty_open_entries_are_the_limit_and_ended_ones_do_not_count() -> None:
    desk = Desk()
    orders = [desk.approved(minute=step, size=sized(notional="10")) for step in range(20)]
    assert desk.risk.open_orders(SPOT) == 20
    check = desk.denied(minute=21, size=sized(notional="10"))
    assert check.rule is Rule.OPEN_ORDERS_ABOVE_MAXIMUM and (check.measured, check.limit) == (21, 20)
    desk.journal.append(Filled(AT, make_fill(orders[0]), True))
    desk.journal.append(OrderCanceled(AT, orders[1].client_order_id, ""))
    assert desk.risk.open_orders(SPOT) == 18
    desk.journal.append(OrderAccepted(AT, orders[1].client_order_id, "late"))
    assert desk.risk.open_orders(SPOT) == 19


def test_a_denied_order_leaves_no_trace_in_the_journal() -> None:
    desk = Desk()
    desk.risk.pause(Scope.SPOT, AT, "owner")
    before = len(desk.facts)
    desk.denied()
    assert len(desk.facts) == before and desk.funds.reserved(SPOT) == 0


def test_legs_larger_than_the_size_unknown_ones_and_empty_ones_are_denied() -> None:
    def leg(symbol: str, quantity: str, side: Side = Side.BUY) -> tuple[Leg, ...]:
        return (Leg(symbol, side, Decimal(quantity), ONE),)

    assert Desk().denied(legs=leg("BTC/USDT", "0.0021")).rule is Rule.SIZE_ABOVE_CEILING
    assert Desk().denied(legs=leg("BTC/USDT", "0")).rule is Rule.SIZE_BELOW_MINIMUM
    assert Desk().denied(legs=leg("DOGE/USDT", "0.002")).rule is Rule.CONTRACT_NOT_FOUND
    assert Desk().denied(legs=leg("BTC/USDT:USDT", "0.002")).rule is Rule.CONTRACT_NOT_FOUND
    assert Desk().denied(legs=leg("BTC/USDT", "0.002", Side.SELL)).rule is Rule.SHORT_NOT_POSSIBLE


# -- options --------------------------------------------------------------------------------------------------------------


def spread(protect: str = BTC_CALL, sell: str = SHORT_CALL, quantity: str = "0.1") -> dict[str, Any]:
    """A call credit spread: the protective call is bought first."""
    units = Decimal(quantity)
    legs = (Leg(protect, Side.BUY, units, Decimal(600)), Leg(sell, Side.SELL, units, Decimal(1000)))
    return {
        "legs": legs, "size": sized(notional="100", quantity=quantity),
        "signal": make_signal(OPTION, structure=Structure.CREDIT_SPREAD),
        "view": make_view(OPTION, option=make_option_view(delta=-0.1, vega=-500.0)),
    }


def test_only_the_first_leg_of_a_structure_is_intended_at_first() -> None:
    desk = Desk()
    order = desk.approved(OPTION, **spread())
    assert (order.symbol, order.side) == (BTC_CALL, Side.BUY)
    assert [type(fact) for fact in desk.facts] == [InstrumentListed, InstrumentListed, TradeOpened, OrderIntended]


def test_a_short_option_needs_a_bought_one_before_it_of_its_kind_that_lives_as_long() -> None:
    call, short = INSTRUMENTS[BTC_CALL], INSTRUMENTS[SHORT_CALL]
    assert call.expiry is not None
    two = spread()["legs"]
    bad_covers = [replace(call, right=Right.PUT), replace(call, expiry=call.expiry - 1), replace(call, underlying="ETH")]
    for cover in bad_covers:
        desk = Desk()
        decision, view, signal = desk.decide(OPTION, **spread())
        result = desk.risk.approve(decision, view, signal, "paper", {BTC_CALL: cover, SHORT_CALL: short}, AT)
        assert isinstance(result, Denied) and result.rule is Rule.SHORT_NOT_POSSIBLE
    less = (replace(two[0], quantity=Decimal("0.05")), two[1])
    for legs in ((two[1],), (two[1], two[0]), less, (*two, two[1])):  # the last: what covers one sold call covers no second
        assert Desk().denied(OPTION, **{**spread(), "legs": legs}).rule is Rule.SHORT_NOT_POSSIBLE


def test_the_option_book_is_judged_even_if_the_caller_forgot_it() -> None:
    view = make_view(OPTION, option=make_option_view(delta=3.0))
    check = Desk().denied(OPTION, view=view, size=sized(notional="100", quantity="0.1"))
    assert check.rule is Rule.DELTA_ABOVE_MAXIMUM and check.measured == Decimal("1.5")


def second_leg(first: Order, quantity: str = "0.1", **changes: Any) -> Order:
    return make_order(INSTRUMENTS[SHORT_CALL], **{
        "trade_id": first.trade_id, "client_order_id": "second", "side": Side.SELL, "quantity": Decimal(quantity), "reserves": ZERO,
        **changes})


def test_a_second_leg_goes_up_to_what_the_first_has_filled_and_holds_the_maximum_loss() -> None:
    desk = Desk()
    first = desk.approved(OPTION, **spread())
    assert isinstance(desk.risk.approve_follow_up(second_leg(first)), Check)          # nothing filled yet
    desk.journal.append(Filled(AT, make_fill(first, quantity=Decimal("0.06")), True))
    too_much = desk.risk.approve_follow_up(second_leg(first, "0.07"))
    assert isinstance(too_much, Check) and (too_much.measured, too_much.limit) == (Decimal("0.07"), Decimal("0.06"))
    approved = desk.risk.approve_follow_up(second_leg(first, "0.06"))
    assert isinstance(approved, ApprovedOrder) and approved.order.reserves == 2      # the trade's risk
    assert desk.facts[-1] == OrderIntended(AT, approved.order)
    assert isinstance(desk.risk.approve_follow_up(second_leg(first, "0.01", client_order_id="third")), Check)


def test_a_second_leg_is_recognized_after_a_restart_and_forgotten_once_the_trade_is_closed() -> None:
    desk = Desk()
    first = desk.approved(OPTION, **spread())
    desk.journal.append(Filled(AT, make_fill(first), True))
    again = Desk()
    for fact in desk.facts:
        again.journal.append(fact)
    assert isinstance(again.risk.approve_follow_up(second_leg(first)), ApprovedOrder)
    closed = ClosedTrade(first.trade_id, "s", BTC_CALL, OPTION, Side.BUY, ONE, ONE, ONE, ZERO, ZERO, ZERO, ZERO, ONE, ZERO, AT, AT,
                         ExitReason.EXIT_SIGNAL, 0.5, 0.5)
    desk.journal.append(PositionClosed(AT, closed))
    assert isinstance(desk.risk.approve_follow_up(second_leg(first)), Check)


@pytest.mark.parametrize("changes", [
    {"side": Side.BUY}, {"trade_id": "other"}, {"quantity": ZERO}, {"symbol": BTC_CALL, "side": Side.BUY}, {"symbol": "BTC-X"},
])
def test_a_second_leg_that_was_not_planned_is_denied(changes: dict[str, Any]) -> None:
    desk = Desk()
    first = desk.approved(OPTION, **spread())
    desk.journal.append(Filled(AT, make_fill(first), True))
    count = len(desk.facts)
    assert isinstance(desk.risk.approve_follow_up(replace(second_leg(first), **changes)), Check)
    assert len(desk.facts) == count


def test_a_halt_between_the_legs_denies_the_second() -> None:
    desk = Desk()
    first = desk.approved(OPTION, **spread())
    desk.journal.append(Filled(AT, make_fill(first), True))
    desk.kill_switch.halt(Scope.OPTION, Trigger.MANUAL, at=AT, reason="owner")
    check = desk.risk.approve_follow_up(second_leg(first))
    assert isinstance(check, Check) and check.rule is Rule.TRADING_HALTED


# -- exits ----------------------------------------------------------------------------------------------------------------


def test_exits_and_stops_pass_halted_paused_switched_off_and_penniless() -> None:
    desk = Desk()
    desk.kill_switch.halt(Scope.ALL, Trigger.MANUAL, at=AT, reason="owner")
    desk.risk.pause(Scope.ALL, AT, "owner")
    desk.funds.set_switch(Scope.ALL, False, AT, "owner")
    desk.money = None
    for purpose in (Purpose.EXIT, Purpose.STOP, Purpose.TARGET):
        order = make_order(purpose=purpose, side=Side.SELL)
        assert desk.risk.approve_exit(order).order == order
        assert desk.facts[-1] == OrderIntended(AT, order)
    assert desk.risk.orders_last_minute(SPOT, AT) == desk.risk.open_orders(SPOT) == 0


@pytest.mark.parametrize("order", [
    make_order(), make_order(purpose=Purpose.EXIT, reduce_only=False), make_order(purpose=Purpose.ENTRY, reduce_only=True)])
def test_an_order_that_could_open_exposure_is_no_exit(order: Order) -> None:
    desk = Desk()
    with pytest.raises(ValueError, match="not reduce-only"):
        desk.risk.approve_exit(order)
    assert desk.facts == []


def test_nobody_else_can_make_an_approved_order() -> None:
    with pytest.raises(PermissionError):
        ApprovedOrder(make_order(), object())
    genuine = Desk().risk.approve_exit(make_order(purpose=Purpose.EXIT))
    with pytest.raises(ValueError, match="token"):
        replace(genuine, order=make_order())    # type: ignore[call-arg]
    with pytest.raises(dataclasses.FrozenInstanceError):
        genuine.order = make_order()    # type: ignore[misc]
