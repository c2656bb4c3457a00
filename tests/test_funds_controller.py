"""Who may spend what: switches, budgets, reservations. Everything is a projection of the journal."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.domain.errors import OperatorRefused
from modules.domain.events import (
    BudgetChanged,
    Fact,
    Filled,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderInDoubt,
    OrderIntended,
    OrderRejected,
    PositionClosed,
    Scope,
    SwitchChanged,
)
from modules.domain.instrument import AssetClass, Side
from modules.domain.order import ExitReason, Order, Purpose
from modules.domain.position import ClosedTrade
from modules.Funds_Controller import FundsController
from modules.store.journal import Journal
from tests.builders import AT, make_fill, make_instrument, make_order, shipped_policies

SPOT, PERP, OPTION, FOREX = AssetClass.SPOT, AssetClass.PERP, AssetClass.OPTION, AssetClass.FOREX
ZERO = Decimal(0)
Allocate = dict[AssetClass, Decimal | None]


def controller(allocate: Allocate | None = None, journal: Journal | None = None, **policy: Any) -> tuple[FundsController, Journal]:
    book = journal or Journal(None)
    funds = FundsController(journal=book, policy=shipped_policies().funds.model_copy(update=policy), allocate=allocate or {})
    book.project(funds.apply)
    return funds, book


def entry(reserves: str = "100", asset_class: AssetClass = SPOT, quantity: str = "0.01", name: str = "a") -> Order:
    return make_order(make_instrument(asset_class), client_order_id=name, reserves=Decimal(reserves), quantity=Decimal(quantity))


def filled(order: Order, quantity: str, done: bool) -> Filled:
    return Filled(AT, make_fill(order, quantity=Decimal(quantity)), done)


def closed(asset_class: AssetClass, net: str) -> PositionClosed:
    one = Decimal(1)
    return PositionClosed(AT, ClosedTrade(
        "t", "s", "X", asset_class, Side.BUY, one, one, one, Decimal(net), ZERO, ZERO, Decimal(net), one, ZERO, AT, AT,
        ExitReason.EXIT_SIGNAL, 0.5, 0.5))


# -- switches -------------------------------------------------------------------------------------------------------------


def test_at_first_start_the_bot_may_not_use_funds_and_only_spot_has_its_class_switch_on() -> None:
    funds, _ = controller()
    assert not funds.master_on and [c for c in AssetClass if funds.class_on(c)] == [SPOT]
    assert not any(funds.switch_on(c) for c in AssetClass)


def test_an_order_needs_the_master_and_its_class_switch() -> None:
    funds, _ = controller()
    funds.set_switch(Scope.ALL, True, AT, "telegram:owner")
    assert funds.switch_on(SPOT) and not funds.switch_on(PERP)
    check = funds.switch_check(PERP)
    assert (check.measured, check.limit, check.passed, check.note) == (1, 2, False, "off: PERP")
    funds.set_switch(Scope.PERP, True, AT, "telegram:owner")
    assert funds.switch_check(PERP).passed
    funds.set_switch(Scope.ALL, False, AT, "telegram:owner")
    assert not funds.switch_on(SPOT) and not funds.switch_on(PERP) and funds.class_on(PERP)


def test_every_change_is_in_the_journal_with_who_and_when() -> None:
    funds, journal = controller()
    funds.set_switch(Scope.ALL, True, AT, "telegram:owner")
    funds.set_pair_cap(Scope.SPOT, Decimal("0.2"), AT + 1, "cli:root")
    funds.set_allocate(PERP, Decimal(500), AT + 2, "cli:root")
    assert [fact for _, fact in journal.facts()] == [
        SwitchChanged(AT, Scope.ALL, True, "telegram:owner"),
        BudgetChanged(AT + 1, Scope.SPOT, Decimal("0.2"), None, "cli:root"),
        BudgetChanged(AT + 2, Scope.PERP, None, Decimal(500), "cli:root"),
    ]


def test_a_restart_finds_switches_budgets_and_reservations_as_they_were() -> None:
    funds, journal = controller({SPOT: Decimal(1000)})
    funds.set_switch(Scope.ALL, True, AT, "owner")
    funds.set_pair_cap(Scope.ALL, Decimal("0.3"), AT, "owner")
    journal.append(closed(SPOT, "-50"))
    funds.set_allocate(SPOT, Decimal(800), AT, "owner")
    journal.append(OrderIntended(AT, entry()))
    journal.append(filled(entry(), "0.004", False))
    again, _ = controller({SPOT: Decimal(1000)})
    for _, fact in journal.facts():
        again.apply(fact)
    assert again.switch_on(SPOT) and again.pair_cap(FOREX) == Decimal("0.3") and again.allocated(SPOT) == 800
    assert again.reserved(SPOT) == funds.reserved(SPOT) == 60
    assert again.sizing_equity(SPOT, Decimal(5000), Decimal(5050)) == funds.sizing_equity(SPOT, Decimal(5000), Decimal(5050)) == 800


# -- loosening ------------------------------------------------------------------------------------------------------------


def test_only_changes_that_give_more_room_ask_for_a_confirmation() -> None:
    funds, _ = controller({SPOT: Decimal(1000)}, funds_on=False)

    def cap(scope: Scope, value: str) -> BudgetChanged:
        return BudgetChanged(AT, scope, Decimal(value), None, "owner")

    def allocate(scope: Scope, value: str) -> BudgetChanged:
        return BudgetChanged(AT, scope, None, Decimal(value), "owner")

    loosening: list[SwitchChanged | BudgetChanged] = [
        SwitchChanged(AT, Scope.ALL, True, "owner"), SwitchChanged(AT, Scope.PERP, True, "owner"), cap(Scope.SPOT, "0.11"),
        allocate(Scope.SPOT, "1000.01")]
    others: list[SwitchChanged | BudgetChanged] = [
        SwitchChanged(AT, Scope.ALL, False, "owner"), SwitchChanged(AT, Scope.SPOT, True, "owner"),
        SwitchChanged(AT, Scope.SPOT, False, "owner"), cap(Scope.SPOT, "0.10"), cap(Scope.ALL, "0.05"), allocate(Scope.SPOT, "1000"),
        allocate(Scope.PERP, "1000000")]
    assert [funds.loosens(change) for change in loosening] == [True] * len(loosening)
    assert [funds.loosens(change) for change in others] == [False] * len(others)
    funds.set_pair_cap(Scope.PERP, Decimal("0.05"), AT, "owner")
    assert funds.loosens(cap(Scope.ALL, "0.10"))


@pytest.mark.parametrize("value", ["0.009", "0.51", "NaN", "-1"])
def test_a_pair_cap_outside_one_to_fifty_percent_is_refused_and_nothing_changes(value: str) -> None:
    funds, journal = controller()
    with pytest.raises(OperatorRefused, match=r"0\.01 to 0\.50"):
        funds.set_pair_cap(Scope.ALL, Decimal(value), AT, "owner")
    assert funds.pair_cap(SPOT) == Decimal("0.10") and not list(journal.facts())


@pytest.mark.parametrize("value", ["0.01", "0.50"])
def test_a_pair_cap_at_its_bounds_is_taken(value: str) -> None:
    funds, _ = controller()
    funds.set_pair_cap(Scope.SPOT, Decimal(value), AT, "owner")
    assert funds.pair_cap(SPOT) == Decimal(value) and funds.pair_cap(PERP) == Decimal("0.10")


@pytest.mark.parametrize("value", ["-0.01", "NaN", "Infinity"])
def test_an_allocation_that_is_no_money_is_refused(value: str) -> None:
    funds, _ = controller()
    with pytest.raises(OperatorRefused):
        funds.set_allocate(SPOT, Decimal(value), AT, "owner")


# -- reservations -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [
    OrderCanceled(AT, "a", ""), OrderExpired(AT, "a", ""), OrderRejected(AT, "a", "", ""), filled(entry(), "0.01", True),
    filled(entry(), "0.004", True),
])
def test_an_order_holds_its_funds_until_it_ends(ending: Fact) -> None:
    funds, journal = controller()
    journal.append(OrderIntended(AT, entry("100")))
    journal.append(OrderIntended(AT, entry("30", PERP, name="b")))
    assert (funds.reserved(SPOT), funds.reserved(PERP), funds.reserved(OPTION)) == (Decimal(100), Decimal(30), ZERO)
    journal.append(OrderAccepted(AT, "a", "v"))
    assert funds.reserved(SPOT) == 100
    journal.append(ending)
    assert (funds.reserved(SPOT), funds.reserved(PERP)) == (ZERO, Decimal(30))


def test_an_order_in_doubt_keeps_its_funds() -> None:
    funds, journal = controller()
    journal.append(OrderIntended(AT, entry()))
    journal.append(OrderInDoubt(AT, "a", "timeout"))
    assert funds.reserved(SPOT) == 100


def test_what_has_filled_is_in_the_books_and_no_longer_reserved() -> None:
    funds, journal = controller()
    journal.append(OrderIntended(AT, entry("100", quantity="3")))
    journal.append(filled(entry("100", quantity="3"), "1", False))
    journal.append(filled(entry("100", quantity="3"), "1", False))
    assert abs(funds.reserved(SPOT) - Decimal(100) / 3) < Decimal("1e-20")
    journal.append(filled(entry("100", quantity="3"), "1", True))
    assert funds.reserved(SPOT) == 0


def test_an_order_that_turns_out_to_be_alive_locks_its_funds_again() -> None:
    funds, journal = controller()
    journal.append(OrderIntended(AT, entry("100")))
    journal.append(filled(entry("100"), "0.005", False))
    journal.append(OrderExpired(AT, "a", "proof of absence"))
    assert funds.reserved(SPOT) == 0
    journal.append(OrderAccepted(AT, "a", "v"))
    assert funds.reserved(SPOT) == 50


def test_exits_reserve_nothing_and_facts_about_unknown_orders_change_nothing() -> None:
    funds, journal = controller()
    stop = make_order(purpose=Purpose.STOP, client_order_id="stop")
    journal.append(OrderIntended(AT, stop))
    journal.append(filled(replace(stop, client_order_id="unknown"), "1", True))
    journal.append(OrderCanceled(AT, "unknown", ""))
    assert funds.reserved(SPOT) == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("ofcxe"), st.integers(1, 5)), max_size=30))
@settings(max_examples=80, deadline=None)
def test_reservations_are_never_negative_and_vanish_with_their_orders(steps: list[tuple[str, str, int]]) -> None:
    funds, _ = controller()
    for name, step, units in steps:
        order = entry("100", quantity="7", name=name)
        facts: dict[str, Fact] = {
            "o": OrderIntended(AT, order), "f": filled(order, str(units), False), "x": filled(order, str(units), True),
            "c": OrderCanceled(AT, name, ""), "e": OrderAccepted(AT, name, "v")}
        funds.apply(facts[step])
        assert 0 <= funds.reserved(SPOT) <= 300
    for name in "abc":
        funds.apply(OrderCanceled(AT, name, ""))
    assert funds.reserved(SPOT) == 0


# -- free funds and E -----------------------------------------------------------------------------------------------------------


def test_free_is_equity_less_reservations_margin_and_positions_and_never_negative() -> None:
    funds, journal = controller()
    journal.append(OrderIntended(AT, entry("100")))
    assert funds.free(SPOT, Decimal(1000), ZERO, Decimal(300)) == 600
    assert funds.free(PERP, Decimal(1000), Decimal(250), ZERO) == 750
    assert funds.free(SPOT, Decimal(100), ZERO, Decimal(300)) == 0
    assert funds.free(OPTION, Decimal(1000), Decimal(200), Decimal(-80)) == 800


def test_without_an_allocation_equity_is_what_the_wallet_shows() -> None:
    funds, _ = controller()
    assert funds.sizing_equity(SPOT, Decimal(1234), Decimal(1000)) == 1234


@pytest.mark.parametrize(("worth", "transfers", "equity"), [
    ("5000", "5000", "1000"),     # nothing happened
    ("5200", "5000", "1200"),     # the class earned 200: they are its own
    ("4700", "5000", "700"),      # it lost 300: out of its allocation, not out of the rest of the wallet
    ("3900", "5000", "-100"),     # more than its allocation: nothing left to size on
    ("600", "600", "600"),        # the wallet shows less than was allotted
    ("6000", "6000", "1000"),     # a deposit is no result
])
def test_equity_is_the_allocation_plus_the_classes_own_result_and_never_more_than_the_wallet_shows(
    worth: str, transfers: str, equity: str
) -> None:
    funds, _ = controller({SPOT: Decimal(1000)})
    assert funds.sizing_equity(SPOT, Decimal(worth), Decimal(transfers)) == Decimal(equity)


def test_a_new_allocation_counts_the_result_since_it_was_made() -> None:
    funds, journal = controller({SPOT: Decimal(1000)})
    journal.append(closed(SPOT, "-300"))
    journal.append(closed(PERP, "-40"))
    assert funds.sizing_equity(SPOT, Decimal(4700), Decimal(5000)) == 700
    funds.set_allocate(SPOT, Decimal(1000), AT, "owner")
    assert funds.sizing_equity(SPOT, Decimal(4700), Decimal(5000)) == 1000
    journal.append(closed(SPOT, "-100"))
    assert funds.sizing_equity(SPOT, Decimal(4600), Decimal(5000)) == 900


def test_allocations_above_a_shared_wallet_scale_pro_rata() -> None:
    funds, _ = controller({SPOT: Decimal(3000), PERP: Decimal(1000)})
    shared = (SPOT, PERP)
    assert funds.allocation_scale(shared, Decimal(4000)) == 1
    assert funds.allocation_scale(shared, Decimal(2000)) == Decimal("0.5")
    worth = Decimal(2000)
    parts = [funds.sizing_equity(c, worth, worth, wallet_total=worth, sharing=shared) for c in shared]
    assert parts == [1500, 500]


def test_on_a_shared_wallet_an_unknown_total_or_a_missing_allocation_is_unknown_equity() -> None:
    funds, _ = controller({SPOT: Decimal(3000)})
    one = Decimal(1)
    assert funds.sizing_equity(SPOT, one, one, wallet_total=Decimal(9000), sharing=(SPOT, PERP)) is None
    both, _ = controller({SPOT: Decimal(3000), PERP: Decimal(1000)})
    assert both.sizing_equity(SPOT, one, one, wallet_total=None, sharing=(SPOT, PERP)) is None
    assert both.allocation_scale((SPOT, PERP), ZERO) == 0
