"""What may go wrong between us and a venue at the worst moment: bans without end, stops and exits nobody has heard of, cancels that are
lost. Nothing may be sold twice, and nothing stays bare for longer than the policy says. (See executor_rig for the world this plays in.)"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import pytest
from pydantic import ValidationError

from modules.domain.errors import VenueBusy
from modules.domain.events import ApiErrorSeen, OrderExpired, TradingHalted, Trigger
from modules.domain.order import Accepted, ExitReason, Fate, InDoubt, NotSent, Order, OrderReport, OrderState, Purpose, Refused
from modules.domain.policies import ExecutionPolicy
from modules.venues.protocol import FillSeen, Wallet
from tests.builders import AT, BTC_PERP, BTC_SPOT, make_fill
from tests.executor_rig import POLICIES, D, Rig, hang, opened, played

POLICY = POLICIES.execution
MONTH_MS = 30 * 86_400_000
LOCKING = {"resting_target": False}
"""A spot venue: what rests locks its coins."""


# -- bans --------------------------------------------------------------------------------------------------------------


@played
async def test_a_ban_of_a_month_holds_an_exit_up_for_minutes_and_the_owner_hears_of_it(rig: Rig) -> None:
    await opened(rig)
    rig.venue.answers["exit"] = [NotSent("banned", rig.clock.now() + MONTH_MS)]
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    await rig.wait(30)
    assert any("ban" in problem for problem in rig.executor.problems())
    await rig.wait(POLICY.silence_s_max + 2 * POLICY.exit_retry_s)
    assert rig.state(rig.sent(Purpose.EXIT)[-1]) is OrderState.ACCEPTED
    assert not rig.executor.problems()


@played
async def test_a_ban_that_is_believable_is_obeyed_to_its_end(rig: Rig) -> None:
    await opened(rig)
    rig.venue.answers["exit"] = [NotSent("banned", rig.clock.now() + 600_000)]
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    await rig.wait(599)
    assert len(rig.sent(Purpose.EXIT)) == 1, "the one that was answered with the ban"
    await rig.wait(2 * POLICY.exit_retry_s)
    assert rig.state(rig.sent(Purpose.EXIT)[-1]) is OrderState.ACCEPTED


@played
async def test_a_ban_met_while_a_doubt_is_cleared_up_silences_the_lanes_too(rig: Rig) -> None:
    async def fence(_: Order) -> Fate:
        rig.venue.faults.append(VenueBusy("too many requests", rig.clock.now() + 300_000))
        return Accepted("")

    rig.venue.answers["entry"] = [InDoubt("no answer")]
    rig.venue.cancel_answers = [fence]
    rig.enter()
    await rig.wait(POLICY.doubt_proof_s + 31)
    assert "rate_limit" in {fact.kind for fact in rig.of(ApiErrorSeen)}
    other = rig.enter(BTC_SPOT, trade_id="trade-2")
    await rig.wait(30)
    assert other not in rig.venue.submitted, "the ban is minded"
    assert not rig.of(OrderExpired), "a question that was not answered proves nothing"


@played
async def test_a_fence_that_never_reached_the_venue_is_none(rig: Rig) -> None:
    rig.venue.answers["entry"] = [InDoubt("no answer")]
    rig.venue.cancel_answers = [NotSent("no route to host")]
    order = rig.enter()
    await rig.wait(POLICY.doubt_proof_s + 5)
    assert rig.venue.canceled == [order.client_order_id] and rig.state(order) is OrderState.IN_DOUBT
    await rig.wait(31)
    assert rig.venue.canceled == [order.client_order_id] * 2 and rig.state(order) is OrderState.EXPIRED


# -- cancels nobody waits for ----------------------------------------------------------------------------------------------


async def _rests_though_it_ended(rig: Rig, *fates: Fate) -> Order:
    order = rig.enter()
    await rig.clock.settle()
    rig.ended(order)
    await rig.clock.settle()
    rig.venue.cancel_answers = list(fates)
    return order


def _listed(rig: Rig, order: Order) -> Wallet:
    return Wallet(rig.clock.now(), {}, [OrderReport(order.client_order_id, "V1", BTC_PERP, OrderState.ACCEPTED, D(0), order.quantity)])


@played
async def test_a_denied_cancel_of_an_order_that_should_not_be_there_halts(rig: Rig) -> None:
    order = await _rests_though_it_ended(rig, Refused("403", "key revoked", denied=True))
    await rig.executor.look_after(rig.venue, _listed(rig, order))
    assert {fact.trigger for fact in rig.of(TradingHalted)} == {Trigger.API_AUTHENTICATION}


@played
async def test_a_ban_met_by_the_cancel_of_an_order_that_should_not_be_there_is_minded(rig: Rig) -> None:
    order = await _rests_though_it_ended(rig, NotSent("too many requests", AT + 120_000))
    await rig.executor.look_after(rig.venue, _listed(rig, order))
    other = rig.enter(BTC_SPOT, trade_id="trade-2")
    await rig.wait(30)
    assert other not in rig.venue.submitted
    assert [fact.kind for fact in rig.of(ApiErrorSeen)] == ["rate_limit"]


@played
async def test_a_cancel_without_an_answer_of_an_order_that_should_not_be_there_is_sent_again_at_the_next_look(rig: Rig) -> None:
    order = await _rests_though_it_ended(rig, InDoubt("no answer"))
    await rig.executor.look_after(rig.venue, _listed(rig, order))
    await rig.executor.look_after(rig.venue, _listed(rig, order))
    assert rig.venue.canceled == [order.client_order_id] * 2
    assert [fact.kind for fact in rig.of(ApiErrorSeen)] == ["error"]


# -- coins are sold once -----------------------------------------------------------------------------------------------------


async def _spot_with_a_stop_in_doubt(rig: Rig, owners: str) -> None:
    rig.venue.capabilities = replace(rig.venue.capabilities, **LOCKING)
    rig.executor.attach(lambda venue, symbol: Decimal(owners))
    rig.venue.answers["stop"] = [InDoubt("no answer")]
    await opened(rig, BTC_SPOT)
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())


@played
async def test_beside_the_owners_coins_an_exit_waits_until_a_stop_in_doubt_is_known_not_to_be_there(rig: Rig) -> None:
    await _spot_with_a_stop_in_doubt(rig, "1")
    await rig.wait(POLICY.doubt_proof_s - 1)
    assert rig.sent(Purpose.EXIT) == [], "the stop may rest there, and would sell his"
    await rig.wait(5)
    assert len(rig.sent(Purpose.EXIT)) == 1


@played
async def test_beside_the_owners_coins_a_stop_in_doubt_that_is_found_goes_before_the_exit(rig: Rig) -> None:
    await _spot_with_a_stop_in_doubt(rig, "1")
    await rig.clock.settle()
    (stop,) = rig.resting(Purpose.STOP)
    rig.venue.knows[stop.client_order_id] = OrderReport(stop.client_order_id, "V2", BTC_SPOT, OrderState.ACCEPTED, D(0), stop.quantity)
    await rig.wait(3)
    assert rig.venue.canceled == [stop.client_order_id] and rig.sent(Purpose.EXIT) == []
    rig.ended(stop)
    await rig.wait(2)
    assert len(rig.sent(Purpose.EXIT)) == 1


@played
async def test_coins_that_are_ours_alone_are_sold_at_once_whatever_became_of_their_stop(rig: Rig) -> None:
    await _spot_with_a_stop_in_doubt(rig, "0.00000001")
    await rig.clock.settle()
    assert len(rig.sent(Purpose.EXIT)) == 1


# -- never bare for long -----------------------------------------------------------------------------------------------------


@played
async def test_an_entry_whose_answer_does_not_come_holds_up_nobody_elses_stop(rig: Rig) -> None:
    first = rig.enter()
    await rig.clock.settle()
    rig.venue.answers["entry"] = [hang]
    rig.enter(BTC_SPOT, trade_id="trade-2")
    await rig.wait(1)
    rig.fill(first)
    await rig.clock.settle()
    assert [order.symbol for order in rig.sent(Purpose.STOP)] == [BTC_PERP]


@pytest.mark.parametrize("lost", [1, 2])
def test_where_the_stop_and_exits_are_lost_another_exit_goes_out_in_time(lost: int) -> None:
    @played
    async def story(rig: Rig) -> None:
        order = rig.enter()
        await rig.clock.settle()
        rig.venue.answers |= {"stop": [InDoubt("no answer")] * 9, "exit": [InDoubt("no answer")] * lost}
        rig.fill(order)
        await rig.wait(POLICY.protect_within_s)
        exits = rig.sent(Purpose.EXIT)
        assert rig.state(exits[-1]) is OrderState.ACCEPTED and len(exits) == lost + 1
        assert len({exit.client_order_id for exit in exits}) == lost + 1 and all(exit.reduce_only for exit in exits)

    story()


@played
async def test_no_second_exit_goes_beside_one_in_doubt_where_the_owner_holds_the_same(rig: Rig) -> None:
    rig.executor.attach(lambda venue, symbol: D("0.5"))
    order = rig.enter()
    await rig.clock.settle()
    rig.venue.answers |= {"stop": [InDoubt("no answer")] * 9, "exit": [InDoubt("no answer")]}
    rig.fill(order)
    await rig.wait(POLICY.doubt_proof_s)
    assert len(rig.sent(Purpose.EXIT)) == 1, "two that fill would sell his"
    await rig.wait(60)
    assert len(rig.sent(Purpose.EXIT)) == 2, "it is proven that the first was never there"


@played
async def test_a_stop_that_goes_while_the_exit_is_in_doubt_is_put_back(rig: Rig) -> None:
    rig.executor.attach(lambda venue, symbol: D("0.5"))
    await opened(rig)
    (stop,) = rig.resting(Purpose.STOP)
    rig.venue.answers["exit"] = [InDoubt("no answer")]
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    await rig.wait(1)
    assert rig.venue.canceled == [stop.client_order_id] and rig.sent(Purpose.EXIT) == [], "if both were filled one would sell his"
    rig.ended(stop)
    await rig.wait(2)
    assert rig.protected() == D("0.1") and len(rig.sent(Purpose.EXIT)) == 1
    (again,) = rig.resting(Purpose.STOP)
    rig.fill(rig.sent(Purpose.EXIT)[0])
    await rig.wait(1)
    assert again.client_order_id in rig.venue.canceled, "flat, so nothing may rest"


@played
async def test_an_exit_that_is_refused_where_no_stop_stands_is_tried_again_within_seconds(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    rig.venue.answers |= {"stop": [Refused("110007", "not now")], "exit": [Refused("110007", "not now")] * 3}
    rig.fill(order)
    await rig.wait(POLICY.protect_within_s)
    tries = [exit.at for exit in rig.sent(Purpose.EXIT)]
    assert len(tries) == 4 and rig.state(rig.sent(Purpose.EXIT)[-1]) is OrderState.ACCEPTED
    assert [round((b - a) / 1000) for a, b in pairwise(tries)] == [1, 2, 4], "and more patiently each time"


@played
async def test_an_exit_that_is_refused_while_the_stop_stands_is_tried_again_with_patience(rig: Rig) -> None:
    await opened(rig)
    rig.venue.answers["exit"] = [Refused("110007", "not now")]
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    await rig.wait(POLICY.exit_retry_s - 2)
    assert len(rig.sent(Purpose.EXIT)) == 1
    await rig.wait(4)
    assert len(rig.sent(Purpose.EXIT)) == 2


@played
async def test_a_rejected_stop_is_not_sent_again_and_again_while_the_exit_is_in_doubt(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    rig.venue.answers |= {"stop": [Refused("110092", "would trigger at once")] * 99, "exit": [InDoubt("no answer")] * 99}
    rig.fill(order)
    await rig.wait(30)
    assert len(rig.sent(Purpose.STOP)) == 1


@played
async def test_no_second_exit_goes_beside_one_in_doubt_while_a_stop_stands(rig: Rig) -> None:
    await opened(rig)
    rig.venue.answers["exit"] = [InDoubt("no answer")]
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    await rig.wait(POLICY.doubt_proof_s)
    assert len(rig.sent(Purpose.EXIT)) == 1


@played
async def test_a_stop_whose_answer_does_not_come_is_waited_for_no_longer_than_the_position_may_be_bare(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    rig.venue.answers["stop"] = [hang]
    rig.fill(order)
    await rig.wait(POLICY.flatten_after_s + 2)
    assert len(rig.sent(Purpose.EXIT)) == 1


@played
async def test_an_exit_that_never_left_is_followed_by_the_next_at_once_where_no_stop_stands(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    rig.venue.answers |= {"stop": [NotSent("no route to host")] * 99, "exit": [NotSent("no route to host")] * 20}
    rig.fill(order)
    await rig.wait(POLICY.flatten_after_s + 30)
    assert rig.state(rig.sent(Purpose.EXIT)[-1]) is OrderState.ACCEPTED, "the venue is back, and it is there within seconds"


@played
async def test_a_canceled_stop_whose_end_nobody_tells_is_asked_about_and_the_next_one_stands_in_time(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    rig.fill(order, "0.03")
    await rig.clock.settle()
    (first,) = rig.resting(Purpose.STOP)
    rig.venue.knows[first.client_order_id] = OrderReport(first.client_order_id, "V2", BTC_PERP, OrderState.CANCELED, D(0), first.quantity)
    rig.fill(order, "0.07")
    await rig.wait(POLICY.flatten_after_s - 1)
    assert rig.state(first) is OrderState.CANCELED and rig.protected() == D("0.1") and rig.sent(Purpose.EXIT) == []


@played
async def test_cancels_that_a_lagging_venue_can_say_nothing_of_halt_nothing(rig: Rig) -> None:
    await opened(rig)
    (stop,) = rig.sent(Purpose.STOP)
    rig.venue.cancel_answers = [InDoubt("it is not open, and no history has it yet", answered=True)] * 30
    rig.venue.answers["exit"] = [Accepted("V")]
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    await rig.wait(1)
    rig.fill(rig.sent(Purpose.EXIT)[0])
    await rig.wait(30)
    assert rig.venue.canceled.count(stop.client_order_id) > 5, "asked again until somebody knows"
    assert not rig.of(ApiErrorSeen) and not rig.of(TradingHalted), "it answers, and every answer was right"


def _executed(rig: Rig, order: Order, quantity: str, number: str, *, last: bool) -> FillSeen:
    """One of several executions of one millisecond; `last` = nothing of the order is left after it, as the venue counts."""
    return FillSeen(make_fill(order, quantity=D(quantity), price=D(50_000), fee=D("0.01"), at=rig.clock.now(), venue_trade_id=number), last)


async def _leaving(rig: Rig) -> Order:
    """The exit of a spot trade, on its way."""
    await opened(rig, BTC_SPOT)
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    await rig.wait(2)
    (exit,) = rig.sent(Purpose.EXIT)
    return exit


@played
async def test_an_exit_whose_last_execution_is_told_before_the_others_is_not_sent_again(rig: Rig) -> None:
    exit = await _leaving(rig)
    for number, quantity, last in (("C", "0.03", True), ("A", "0.05", False), ("B", "0.02", False)):
        rig.executor.on_fill(_executed(rig, exit, quantity, number, last=last))
        await rig.clock.settle()
    assert rig.sent(Purpose.EXIT) == [exit], "what it sold twice would have been its owner's"
    assert rig.state(exit) is OrderState.FILLED and not rig.executor.trades


@played
async def test_an_exit_of_which_the_venue_filled_less_for_good_is_asked_about_and_the_rest_is_sold(rig: Rig) -> None:
    exit = await _leaving(rig)
    rig.venue.knows[exit.client_order_id] = OrderReport(exit.client_order_id, "V", BTC_SPOT, OrderState.FILLED, D("0.03"), D("0.03"))
    rig.executor.on_fill(_executed(rig, exit, "0.03", "C", last=True))
    await rig.wait(POLICY.resend_every_s + POLICY.exit_retry_s + 2)
    assert rig.state(exit) is OrderState.EXPIRED
    assert [order.quantity for order in rig.sent(Purpose.EXIT)] == [D("0.1"), D("0.07")]


@played
async def test_an_exit_whose_remaining_executions_nobody_tells_is_asked_about_and_not_sent_again(rig: Rig) -> None:
    exit = await _leaving(rig)
    rig.venue.knows[exit.client_order_id] = OrderReport(exit.client_order_id, "V", BTC_SPOT, OrderState.FILLED, D("0.1"), D("0.1"))
    rig.venue.fills = [_executed(rig, exit, "0.07", "A", last=False), _executed(rig, exit, "0.03", "C", last=True)]
    rig.executor.on_fill(rig.venue.fills[1])
    await rig.wait(POLICY.resend_every_s + 2)
    assert rig.sent(Purpose.EXIT) == [exit] and rig.state(exit) is OrderState.FILLED and not rig.executor.trades


def test_a_policy_that_would_close_a_bare_position_too_late_is_refused() -> None:
    numbers = POLICY.model_dump() | {"flatten_after_s": POLICY.protect_within_s}
    with pytest.raises(ValidationError, match="closing a position takes time too"):
        ExecutionPolicy.model_validate(numbers)
