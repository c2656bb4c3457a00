"""An order's life: four fates, doubt and its proof, protective stops, exits, spreads, halts, a full lane. The venue is a fake behind the
same protocol; books, kill switch, risk and journal are the real ones; time is virtual."""


from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from modules.domain.errors import VenueBusy, VenueDenied, VenueUnreachable
from modules.domain.events import (
    ExitRequested,
    FeedRestored,
    Filled,
    ForeignFill,
    ForeignOrder,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderInDoubt,
    OrderIntended,
    OrderRejected,
    OrderSent,
    PositionClosed,
    Scope,
    TradeAbandoned,
    TradingHalted,
    Trigger,
)
from modules.domain.instrument import Side
from modules.domain.order import Accepted, ExitReason, Fate, InDoubt, NotSent, Order, OrderKind, OrderReport, OrderState, Purpose, Refused
from modules.Trade_Executor import TradeExecutor
from modules.venues.protocol import FillSeen, OrderDone, Wallet
from tests.builders import AT, BTC_PERP, BTC_SPOT, make_fill, make_order
from tests.executor_rig import (
    CALL_HIGH,
    CALL_LOW,
    INSTRUMENTS,
    PERP,
    POLICIES,
    Answer,
    D,
    FakeVenue,
    Rig,
    hang,
    opened,
    played,
    reopened,
)

# -- four fates --------------------------------------------------------------------------------------------------------


@played
async def test_every_step_of_an_accepted_order_is_on_record_before_the_next(rig: Rig) -> None:
    order = rig.enter()
    assert rig.venue.submitted == [], "nothing leaves before the lane runs"
    await rig.clock.settle()
    assert rig.venue.submitted == [order] and rig.state(order) is OrderState.ACCEPTED
    steps = [type(fact) for fact in rig.facts if getattr(fact, "client_order_id", "") == order.client_order_id]
    assert steps == [OrderSent, OrderAccepted]


def test_the_order_is_on_record_as_sent_when_the_venue_sees_it() -> None:
    rig = Rig()
    seen: list[list[type]] = []

    async def look(order: Order) -> Fate:
        seen.append([type(fact) for fact in rig.facts[-2:]])
        return Accepted("V1")

    async def scenario(rig: Rig) -> None:
        rig.venue.answers["entry"] = [look]
        rig.enter()
        await rig.clock.settle()

    rig.play(scenario)
    assert seen == [[OrderIntended, OrderSent]]


@played
async def test_a_refused_entry_ends_with_its_code_and_frees_its_funds(rig: Rig) -> None:
    rig.venue.answers["entry"] = [Refused("INSUFFICIENT", "no money")]
    order = rig.enter()
    assert rig.funds.reserved(PERP) > 0
    await rig.clock.settle()
    assert rig.state(order) is OrderState.REJECTED and rig.funds.reserved(PERP) == 0
    (rejected,) = rig.of(OrderRejected)
    assert isinstance(rejected, OrderRejected) and rejected.code == "INSUFFICIENT"
    assert len(rig.of(TradeAbandoned)) == 1 and rig.executor.trades == {}


@played
async def test_an_entry_that_never_left_is_sent_again_with_the_same_id_while_it_is_fresh_and_then_ends(rig: Rig) -> None:
    rig.venue.answers["entry"] = [NotSent("no route to host")] * 99
    order = rig.enter()
    await rig.wait(120)
    assert rig.state(order) is OrderState.EXPIRED and rig.executor.trades == {} and len(rig.of(OrderSent)) == 1
    assert set(rig.venue.submitted) == {order} and 3 <= len(rig.venue.submitted) <= POLICIES.execution.resend_within_s + 1


@played
async def test_an_entry_that_arrives_at_the_second_attempt_is_one_order(rig: Rig) -> None:
    rig.venue.answers["entry"] = [NotSent("connection refused")]
    order = rig.enter()
    await rig.wait(2)
    assert rig.venue.submitted == [order, order] and rig.state(order) is OrderState.ACCEPTED
    assert len(rig.of(OrderSent)) == len(rig.of(OrderIntended)) == 1


@played
async def test_nothing_is_sent_before_a_ban_ends_and_an_entry_does_not_wait_for_it(rig: Rig) -> None:
    await opened(rig)
    (stop,) = rig.resting(Purpose.STOP)
    until = rig.clock.now() + 30_000
    rig.venue.answers["entry"] = [NotSent("too many requests", until)]
    entry = rig.enter(BTC_SPOT, trade_id="trade-2")
    await rig.wait(1)
    assert rig.state(entry) is OrderState.EXPIRED, "its decision would be stale by then"
    sent = len(rig.venue.submitted)
    rig.executor.on_done(OrderDone(stop.client_order_id, rig.clock.now(), "canceled", "by the owner"))
    await rig.wait(28)
    assert len(rig.venue.submitted) == sent, "the venue wants silence"
    await rig.wait(5)
    assert [order.purpose for order in rig.venue.submitted[sent:]] == [Purpose.STOP]
    (halt,) = [fact for fact in rig.of(TradingHalted) if fact.trigger is Trigger.API_ERRORS][:1]
    assert halt.until == until


@played
async def test_a_key_that_is_not_accepted_on_a_submit_halts_until_an_operator_re_arms(rig: Rig) -> None:
    rig.venue.answers["entry"] = [Refused("401", "the token is not accepted", denied=True)]
    rig.enter()
    await rig.clock.settle()
    assert {fact.trigger for fact in rig.of(TradingHalted)} == {Trigger.API_AUTHENTICATION}


@played
async def test_a_stop_that_cannot_be_placed_in_time_is_an_exit(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    rig.venue.answers["stop"] = [InDoubt("no answer")] * 9  # for all we know there is none
    rig.fill(order)
    await rig.wait(POLICIES.execution.flatten_after_s - 1)
    assert rig.sent(Purpose.EXIT) == []
    await rig.wait(2)
    assert [(exit.kind, exit.reduce_only, exit.exit_reason) for exit in rig.sent(Purpose.EXIT)] == [
        (OrderKind.MARKET, True, ExitReason.EMERGENCY_EXIT)]


@played
async def test_a_stop_the_owner_cancels_is_put_back_and_one_that_stands_is_left_alone(rig: Rig) -> None:
    await opened(rig)
    (stop,) = rig.resting(Purpose.STOP)
    await rig.wait(60)
    assert rig.sent(Purpose.EXIT) == [] and rig.resting(Purpose.STOP) == [stop]
    rig.executor.on_done(OrderDone(stop.client_order_id, rig.clock.now(), "canceled", "by the owner"))
    await rig.wait(3)
    (again,) = rig.resting(Purpose.STOP)
    assert (again.quantity, again.price) == (stop.quantity, stop.price) and again != stop
    await rig.wait(60)
    assert rig.sent(Purpose.EXIT) == []


@played
async def test_an_order_the_venue_lists_no_more_is_asked_about_and_its_end_booked(rig: Rig) -> None:
    await opened(rig)
    (stop,) = rig.resting(Purpose.STOP)
    await rig.wait(5)
    rig.venue.knows[stop.client_order_id] = OrderReport(stop.client_order_id, "V2", BTC_PERP, OrderState.CANCELED, D(0), stop.quantity)
    (target,) = rig.resting(Purpose.TARGET)
    working = [OrderReport(target.client_order_id, "V3", BTC_PERP, OrderState.ACCEPTED, D(0), target.quantity)]
    seen = Wallet(rig.clock.now(), {}, working)
    assert [record.order for record in rig.executor.unlisted("paper", seen)] == [stop]
    await rig.executor.look_after(rig.venue, seen)
    await rig.wait(2)
    assert rig.state(stop) is OrderState.CANCELED and len(rig.resting(Purpose.STOP)) == 1


@played
async def test_the_fill_of_an_order_the_venue_lists_no_more_is_read_by_itself_where_nobody_told_it(rig: Rig) -> None:
    entry = rig.enter(stop=49_000.0)
    await rig.wait(5)
    name, quantity = entry.client_order_id, entry.quantity
    rig.venue.knows[name] = OrderReport(name, "V1", BTC_PERP, OrderState.FILLED, quantity, quantity)
    fill = make_fill(entry, price=D(50_000), fee=D("0.01"), venue_trade_id="T7", at=rig.clock.now() - 2_000)
    rig.venue.fills = [FillSeen(fill, True), FillSeen(replace(fill, client_order_id="by hand", venue_trade_id="T8"), True)]
    assert rig.portfolio.positions == {}
    for _ in range(2):
        await rig.executor.look_after(rig.venue, Wallet(rig.clock.now(), {}, []))
        await rig.wait(1)
    assert rig.portfolio.positions[BTC_PERP].quantity == entry.quantity and len(rig.of(Filled)) == 1 and rig.of(ForeignFill) == []
    assert [stop.quantity for stop in rig.resting(Purpose.STOP)] == [entry.quantity]


@played
async def test_a_cancel_that_was_acknowledged_and_not_carried_out_is_sent_again(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    rig.executor.cancel_entries(lambda _: True, "paused")
    await rig.wait(1)
    listed = [OrderReport(order.client_order_id, "V1", BTC_PERP, OrderState.ACCEPTED, D(0), order.quantity)]
    await rig.executor.look_after(rig.venue, Wallet(rig.clock.now() - 900, {}, listed))
    assert rig.venue.canceled == [order.client_order_id], "a picture as old as the cancel proves nothing"
    await rig.wait(5)
    await rig.executor.look_after(rig.venue, Wallet(rig.clock.now(), {}, listed))
    await rig.wait(1)
    assert rig.venue.canceled == [order.client_order_id] * 2


@played
async def test_a_stop_whose_end_nobody_tells_leaves_no_position_bare_for_long(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    rig.fill(order, "0.03")
    await rig.clock.settle()
    rig.fill(order, "0.07")  # the stop for the first part is canceled, and its end is never told
    await rig.wait(POLICIES.execution.flatten_after_s + 3)
    assert rig.venue.canceled
    assert [sent.purpose for sent in rig.sent(Purpose.EXIT)] == [Purpose.EXIT]


@played
async def test_an_order_by_hand_is_put_on_record_and_another_daemons_halts_and_refuses_a_start(rig: Rig) -> None:
    by_hand, another = (OrderReport(name, f"V9{name}", BTC_PERP, OrderState.ACCEPTED, D(0), D(1)) for name in ("", "tbsomebodyelse"))
    for _ in range(2):
        await rig.executor.look_after(rig.venue, Wallet(rig.clock.now(), {}, [by_hand]))
    assert [fact.client_order_id for fact in rig.of(ForeignOrder)] == [""] and rig.of(TradingHalted) == []
    with pytest.raises(VenueDenied, match="another daemon's: stop that one"):
        await rig.executor.catch_up(rig.venue, Wallet(rig.clock.now(), {}, [another]))
    await rig.executor.look_after(rig.venue, Wallet(rig.clock.now(), {}, [another]))
    assert [fact.trigger for fact in rig.of(TradingHalted)] == [Trigger.MANUAL] and rig.venue.canceled == []


@played
async def test_a_position_the_owner_closes_at_the_venue_is_a_closed_trade_and_no_mystery(rig: Rig) -> None:
    order = await opened(rig)
    by_hand = replace(make_fill(order, price=D(51_000), fee=D("0.5"), venue_trade_id="H1", side=Side.SELL), client_order_id="")
    rig.executor.on_fill(FillSeen(replace(by_hand, quantity=D("0.25")), True))
    await rig.clock.settle()
    (closed,) = rig.of(PositionClosed)
    assert closed.trade.exit_reason == ExitReason.FORCE_EXIT and rig.portfolio.positions == {}
    (rest,) = rig.of(ForeignFill)
    assert (rest.fill.quantity, rest.fill.fee) == (D("0.15"), D("0.3"))
    rig.executor.on_fill(FillSeen(replace(by_hand, quantity=D("0.25")), True))
    assert len(rig.of(ForeignFill)) == 1


@played
async def test_coins_the_owner_sells_are_his_own_before_they_are_ours(rig: Rig) -> None:
    order = await opened(rig)
    rig.executor.attach(lambda venue, symbol: D(1))
    by_hand = replace(make_fill(order, price=D(51_000), fee=D("0.5"), venue_trade_id="H1", side=Side.SELL), client_order_id="")
    rig.executor.on_fill(FillSeen(by_hand, True))
    assert len(rig.of(ForeignFill)) == 1 and rig.of(PositionClosed) == []


def test_after_a_crash_nothing_is_settled_until_what_was_in_doubt_and_bare_is_cleared_up() -> None:
    rig = Rig()

    async def crashed(rig: Rig) -> None:
        await opened(rig)
        rig.venue.answers["entry"] = [hang]
        rig.enter(BTC_SPOT, trade_id="trade-2")
        await rig.clock.settle()
        assert rig.executor.settled, "a doubt of this life closes its own instrument only"

    rig.play(crashed)
    venue = FakeVenue()

    async def scenario(rig: Rig) -> None:
        assert not rig.executor.settled
        await rig.wait(120)
        assert rig.executor.settled and rig.executor.in_doubt == []

    restarted(rig, scenario, venue)


@pytest.mark.parametrize("answer", [InDoubt("garbled reply"), hang], ids=["garbled", "no answer"])
@played
async def test_an_order_in_doubt_keeps_its_funds_and_closes_its_instrument(rig: Rig, answer: Answer) -> None:
    rig.venue.answers["entry"] = [answer]
    order = rig.enter()
    reserved = rig.funds.reserved(PERP)
    await rig.wait(14)
    assert rig.state(order) is OrderState.IN_DOUBT
    assert rig.executor.doubtful(BTC_PERP) and not rig.executor.doubtful(BTC_SPOT)
    assert rig.funds.reserved(PERP) == reserved > 0
    assert rig.executor.in_doubt == [order]


# -- doubt and its end -------------------------------------------------------------------------------------------------


@played
async def test_an_order_in_doubt_is_asked_about_with_growing_pauses_and_never_sent_again(rig: Rig) -> None:
    rig.venue.answers["entry"] = [InDoubt("time-out")]
    rig.enter()
    await rig.wait(50)
    assert len(rig.venue.submitted) == 1
    pauses = [round((b - a) / 1000) for a, b in zip([AT, *rig.venue.asked_at], rig.venue.asked_at, strict=False)]
    assert pauses[:5] == [1, 2, 4, 8, 15]


@played
async def test_an_order_in_doubt_that_the_venue_knows_is_adopted(rig: Rig) -> None:
    rig.venue.answers["entry"] = [InDoubt("time-out")]
    order = rig.enter()
    rig.venue.knows[order.client_order_id] = OrderReport(order.client_order_id, "V9", BTC_PERP, OrderState.ACCEPTED, D(0), D("0.1"))
    await rig.wait(2)
    assert rig.state(order) is OrderState.ACCEPTED and not rig.executor.doubtful(BTC_PERP) and rig.executor.in_doubt == []
    assert rig.executor.orders[order.client_order_id].venue_order_id == "V9"


@played
async def test_fills_of_an_order_in_doubt_are_booked_before_its_end_is_believed(rig: Rig) -> None:
    rig.venue.answers["entry"] = [InDoubt("time-out")]
    order = rig.enter()
    rig.venue.knows[order.client_order_id] = OrderReport(order.client_order_id, "V9", BTC_PERP, OrderState.FILLED, D("0.1"), D("0.1"))
    await rig.wait(4)
    assert rig.state(order) is OrderState.IN_DOUBT, "it says filled, and the fills are not there yet"
    rig.venue.fills.append(FillSeen(make_fill(order, quantity=D("0.1"), fee=D("0.01"), venue_trade_id="T7", at=AT - 30_000), True))
    await rig.wait(8)
    assert rig.state(order) is OrderState.FILLED and rig.portfolio.positions[BTC_PERP].quantity == D("0.1")
    assert rig.protected() == D("0.1")


@pytest.mark.parametrize("state, kind", [(OrderState.CANCELED, OrderCanceled), (OrderState.EXPIRED, OrderExpired),
                                         (OrderState.REJECTED, OrderRejected)])
@played
async def test_an_order_in_doubt_found_ended_ends(rig: Rig, state: OrderState, kind: type) -> None:
    rig.venue.answers["entry"] = [InDoubt("time-out")]
    order = rig.enter()
    rig.venue.knows[order.client_order_id] = OrderReport(order.client_order_id, "V9", BTC_PERP, state, D(0), D("0.1"))
    await rig.wait(2)
    assert len(rig.of(kind)) == 1 and rig.executor.trades == {} and rig.funds.reserved(PERP) == 0


@played
async def test_absence_is_proven_by_spaced_misses_enough_time_and_a_fence_and_only_then_believed(rig: Rig) -> None:
    rig.venue.answers["entry"] = [InDoubt("time-out")]
    order = rig.enter()
    await rig.wait(58)
    assert rig.state(order) is OrderState.IN_DOUBT and len(rig.venue.asked) >= 5, "five misses, but not sixty seconds"
    assert rig.venue.canceled == []
    await rig.wait(40)
    assert rig.state(order) is OrderState.EXPIRED and rig.venue.canceled == [order.client_order_id], "fenced by a cancel"
    assert len(rig.venue.submitted) == 1 and rig.executor.trades == {}
    (expired,) = rig.of(OrderExpired)
    assert isinstance(expired, OrderExpired) and "never placed" in expired.reason


def test_an_order_that_appears_behind_the_fence_is_adopted_after_all() -> None:
    rig = Rig()

    async def appear(order: Order) -> Fate:
        rig.venue.knows[order.client_order_id] = OrderReport(order.client_order_id, "V9", BTC_PERP, OrderState.CANCELED, D(0), D("0.1"))
        return Accepted("V9")

    async def scenario(rig: Rig) -> None:
        rig.venue.answers["entry"] = [InDoubt("time-out")]
        rig.venue.cancel_answers = [appear]
        order = rig.enter()
        await rig.wait(120)
        assert rig.state(order) is OrderState.CANCELED

    rig.play(scenario)


@pytest.mark.parametrize("fault", [VenueUnreachable("down"), VenueBusy("banned", AT + 9_000), VenueDenied("bad key")],
                         ids=["unreachable", "busy", "denied"])
@played
async def test_a_question_that_fails_is_no_miss_and_counts_against_the_venue(rig: Rig, fault: Exception) -> None:
    rig.venue.answers["entry"] = [InDoubt("time-out")]
    rig.venue.faults = [fault] * 3
    order = rig.enter()
    await rig.wait(62)
    assert rig.state(order) is OrderState.IN_DOUBT, "three of the questions were no answers"
    errors = [fact for fact in rig.facts if type(fact).__name__ == "ApiErrorSeen"]
    assert len(errors) == 4  # the submit and three questions


@played
async def test_a_partial_fill_resolves_the_doubt(rig: Rig) -> None:
    rig.venue.answers["entry"] = [InDoubt("time-out")]
    order = rig.enter()
    await rig.clock.settle()
    rig.fill(order, "0.04")
    assert rig.state(order) is OrderState.ACCEPTED and not rig.executor.doubtful(BTC_PERP)
    assert rig.executor.in_doubt == []


@played
async def test_an_order_partly_filled_that_the_venue_has_forgotten_ends_by_the_same_proof(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    rig.fill(order, "0.04")
    rig.venue.cancel_answers = [Refused("UNKNOWN", "no such order")]
    await rig.wait(61)  # the unfilled timeout asks for a cancel, which the venue refuses
    assert rig.state(order) is OrderState.IN_DOUBT
    await rig.wait(120)
    assert rig.state(order) is OrderState.EXPIRED and rig.protected() == D("0.04")


# -- fills -------------------------------------------------------------------------------------------------------------


@played
async def test_a_fill_is_booked_once_however_often_it_is_told(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    seen = rig.fill(order, "0.04", number="T1")
    rig.executor.on_fill(seen)
    rig.executor.on_fill(seen._replace(order_done=True))
    assert len(rig.of(Filled)) == 1 and rig.portfolio.positions[BTC_PERP].quantity == D("0.04")


@played
async def test_the_same_trade_id_on_another_symbol_is_another_fill(rig: Rig) -> None:
    perp, spot = rig.enter(), rig.enter(BTC_SPOT, trade_id="trade-2")
    await rig.clock.settle()
    rig.fill(perp, number="T1")
    rig.fill(spot, number="T1")
    assert len(rig.of(Filled)) == 2


def test_a_fill_before_its_acknowledgement_is_ours() -> None:
    rig = Rig()

    async def fill_first(order: Order) -> Fate:
        rig.fill(order)
        return Accepted("V1")

    async def scenario(rig: Rig) -> None:
        rig.venue.answers["entry"] = [fill_first]
        order = rig.enter()
        await rig.clock.settle()
        assert rig.state(order) is OrderState.FILLED and rig.protected() == D("0.1")

    rig.play(scenario)


@played
async def test_an_execution_nobody_ordered_is_foreign_and_touches_no_trade(rig: Rig) -> None:
    strange = make_fill(make_order(INSTRUMENTS[BTC_PERP]), client_order_id="by-hand", fee=D("0.01"))
    rig.executor.on_fill(FillSeen(strange, True))
    assert len(rig.of(ForeignFill)) == 1 and rig.portfolio.positions == {}
    rig.executor.on_fill(FillSeen(strange, True))
    assert len(rig.of(ForeignFill)) == 1


# -- protection --------------------------------------------------------------------------------------------------------


@played
async def test_right_after_the_fill_stop_and_target_rest_at_the_venue(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    rig.fill(order)
    await rig.clock.settle()
    (stop,), (target,) = rig.sent(Purpose.STOP), rig.sent(Purpose.TARGET)
    assert (stop.side, stop.quantity, stop.price, stop.reduce_only) == (Side.SELL, D("0.1"), D("49000.0"), True)
    assert (target.side, target.quantity, target.price) == (Side.SELL, D("0.1"), D("52000.0"))


@played
async def test_a_shorts_stop_is_above_it_and_rounded_toward_less_risk(rig: Rig) -> None:
    order = rig.enter(side=Side.SELL, stop=51_000.07, target=48_000.0)
    await rig.clock.settle()
    rig.fill(order)
    await rig.clock.settle()
    (stop,) = rig.sent(Purpose.STOP)
    assert (stop.side, stop.price) == (Side.BUY, D("51000.0"))


@played
async def test_each_partial_fill_moves_the_stop_to_what_is_held_and_never_are_there_two(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    for quantity, held in (("0.03", "0.03"), ("0.02", "0.05"), ("0.05", "0.1")):
        rig.fill(order, quantity)
        await rig.clock.settle()
        assert len(rig.resting(Purpose.STOP)) == 1
        for old in list(rig.venue.canceled):  # the venue confirms what was canceled
            rig.venue.canceled.remove(old)
            rig.executor.on_done(OrderDone(old, rig.clock.now(), "canceled", "on request"))
            assert rig.protected() <= D(held), "more stops than position"
        await rig.clock.settle()
        assert rig.protected() == D(held) and len(rig.resting(Purpose.STOP)) == len(rig.resting(Purpose.TARGET)) == 1


@played
async def test_a_stop_that_is_being_filled_is_left_alone_and_only_the_target_shrinks(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    rig.fill(order)
    await rig.clock.settle()
    (stop,), (target,) = rig.resting(Purpose.STOP), rig.resting(Purpose.TARGET)
    rig.fill(stop, "0.04")
    await rig.clock.settle()
    assert rig.venue.canceled == [target.client_order_id]
    rig.ended(target)
    await rig.clock.settle()
    assert rig.resting(Purpose.STOP) == [stop] and rig.resting(Purpose.TARGET)[0].quantity == D("0.06")


@played
async def test_what_cannot_be_protected_is_not_held(rig: Rig) -> None:
    rig.venue.answers["stop"] = [Refused("WOULD_TRIGGER", "price is through it")]
    order = rig.enter()
    await rig.clock.settle()
    rig.fill(order)
    await rig.clock.settle()
    (wish,) = rig.of(ExitRequested)
    assert isinstance(wish, ExitRequested) and wish.reason is ExitReason.EMERGENCY_EXIT
    (out,) = rig.sent(Purpose.EXIT)
    assert (out.side, out.quantity, out.reduce_only) == (Side.SELL, D("0.1"), True)
    assert len(rig.sent(Purpose.STOP)) == 1, "it is not tried again"


@played
async def test_a_target_the_venue_refuses_is_done_without(rig: Rig) -> None:
    rig.venue.answers["target"] = [Refused("PRICE", "too far")]
    order = rig.enter()
    await rig.clock.settle()
    rig.fill(order)
    await rig.wait(30)
    assert len(rig.sent(Purpose.TARGET)) == 1 and rig.protected() == D("0.1") and rig.of(ExitRequested) == []


@played
async def test_a_stop_somebody_else_canceled_is_put_back_within_a_tick(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    rig.fill(order)
    await rig.clock.settle()
    (stop,) = rig.resting(Purpose.STOP)
    rig.ended(stop, reason="by the owner, in the venue's app")
    await rig.wait(1)
    (again,) = rig.resting(Purpose.STOP)
    assert again.client_order_id != stop.client_order_id and again.price == stop.price and rig.protected() == D("0.1")


@played
async def test_a_stop_moves_only_toward_less_risk(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    rig.fill(order)
    await rig.clock.settle()
    (stop,) = rig.resting(Purpose.STOP)
    rig.executor.move_stop("trade-1", D("48000.0"), rig.clock.now())
    await rig.clock.settle()
    assert rig.venue.canceled == []
    rig.executor.move_stop("trade-1", D("49500.0"), rig.clock.now())
    await rig.clock.settle()
    assert rig.venue.canceled == [stop.client_order_id]
    rig.ended(stop)
    await rig.clock.settle()
    (moved,) = rig.resting(Purpose.STOP)
    assert moved.price == D("49500.0") and moved.exit_reason is ExitReason.TRAILING_STOP_LOSS


@played
async def test_a_cancel_without_an_answer_is_repeated_at_the_next_tick(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    rig.fill(order)
    await rig.clock.settle()
    rig.venue.cancel_answers = [InDoubt("time-out")]
    rig.executor.move_stop("trade-1", D("49500.0"), rig.clock.now())
    await rig.wait(2)
    assert len(rig.venue.canceled) == 2 and len(set(rig.venue.canceled)) == 1


@played
async def test_a_refused_cancel_means_asking_what_became_of_the_order(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    rig.fill(order)
    await rig.clock.settle()
    (stop,) = rig.resting(Purpose.STOP)
    rig.venue.cancel_answers = [Refused("UNKNOWN", "no such order")]
    rig.venue.knows[stop.client_order_id] = OrderReport(stop.client_order_id, "V2", BTC_PERP, OrderState.CANCELED, D(0), D("0.1"))
    rig.executor.move_stop("trade-1", D("49500.0"), rig.clock.now())
    await rig.wait(3)
    assert len(rig.of(OrderInDoubt)) == 1 and rig.state(stop) is OrderState.CANCELED
    (again,) = rig.resting(Purpose.STOP)
    assert again.price == D("49500.0")


# -- exits -------------------------------------------------------------------------------------------------------------


@played
async def test_asking_twice_for_an_exit_sends_one_order(rig: Rig) -> None:
    await opened(rig)
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    rig.executor.request_exit("trade-1", ExitReason.TIME_EXIT, rig.clock.now())
    await rig.wait(5)
    assert len(rig.sent(Purpose.EXIT)) == 1 and len(rig.of(ExitRequested)) == 1


@played
async def test_flat_closes_the_trade_and_cancels_what_still_rests(rig: Rig) -> None:
    await opened(rig)
    resting = {order.client_order_id for order in (*rig.resting(Purpose.STOP), *rig.resting(Purpose.TARGET))}
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    await rig.clock.settle()
    rig.fill(rig.sent(Purpose.EXIT)[0], price="50100")
    await rig.clock.settle()
    assert len(rig.of(PositionClosed)) == 1 and rig.executor.trades == {}
    assert set(rig.venue.canceled) == resting and len(resting) == 2
    for order in list(rig.executor.orders.values()):
        rig.ended(order.order)
    assert rig.executor.orders == {}


@played
async def test_an_exit_that_does_not_fill_is_tried_again_with_growing_patience(rig: Rig) -> None:
    await opened(rig)
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    for _ in range(3):
        await rig.wait(61)
        rig.ended(rig.sent(Purpose.EXIT)[-1], "expired", "unfilled")
        await rig.wait(1)
    tries = [order.at for order in rig.sent(Purpose.EXIT)]
    assert len(tries) >= 3 and tries[2] - tries[1] > tries[1] - tries[0]
    assert len({order.client_order_id for order in rig.sent(Purpose.EXIT)}) == len(tries)


@played
async def test_an_exit_that_never_reached_the_venue_waits_no_longer_after_a_long_outage(rig: Rig) -> None:
    await opened(rig)
    rig.venue.answers["exit"] = [NotSent("no route to host")] * 100_000
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    await rig.wait(70 * 60)
    rig.venue.answers["exit"] = []
    await rig.wait(120)
    assert rig.state(rig.sent(Purpose.EXIT)[-1]) is OrderState.ACCEPTED, "two minutes after the venue is back the exit is there"


@played
async def test_a_feed_that_comes_back_ends_the_patience_of_exits_on_it(rig: Rig) -> None:
    await opened(rig)
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    await rig.wait(1)
    for patience in (62, 122, 242, 1):
        rig.ended(rig.sent(Purpose.EXIT)[-1], "expired", "unfilled")
        await rig.wait(patience)
    sent = len(rig.sent(Purpose.EXIT))
    rig.journal.append(FeedRestored(rig.clock.now(), "OTHER/USDT"))
    await rig.wait(2)
    assert len(rig.sent(Purpose.EXIT)) == sent, "minutes are left to wait"
    rig.journal.append(FeedRestored(rig.clock.now(), rig.sent(Purpose.EXIT)[-1].symbol))
    await rig.wait(2)
    assert len(rig.sent(Purpose.EXIT)) == sent + 1
    rig.ended(rig.sent(Purpose.EXIT)[-1], "expired", "unfilled")
    await rig.wait(62)
    assert len(rig.sent(Purpose.EXIT)) == sent + 2, "patience begins anew, with a minute"


@played
async def test_the_rest_of_an_exit_that_filled_in_part_is_sent_again(rig: Rig) -> None:
    await opened(rig)
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    await rig.clock.settle()
    (out,) = rig.sent(Purpose.EXIT)
    rig.fill(out, "0.03")
    rig.ended(out, "expired", "unfilled")
    await rig.wait(130)
    assert rig.sent(Purpose.EXIT)[1].quantity == D("0.07")


@played
async def test_where_resting_orders_lock_the_coins_the_stop_goes_before_the_exit(rig: Rig) -> None:
    rig.venue.capabilities = replace(rig.venue.capabilities, resting_target=False)
    await opened(rig, BTC_SPOT)
    (stop,) = rig.resting(Purpose.STOP)
    assert rig.sent(Purpose.TARGET) == [], "beside the stop there is nothing left to lock"
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    await rig.clock.settle()
    assert rig.venue.canceled == [stop.client_order_id] and rig.sent(Purpose.EXIT) == []
    rig.ended(stop)
    await rig.clock.settle()
    assert len(rig.sent(Purpose.EXIT)) == 1


@played
async def test_an_exit_while_the_entry_still_works_cancels_the_entry_and_closes_what_fills_meanwhile(rig: Rig) -> None:
    order = rig.enter()
    await rig.clock.settle()
    rig.fill(order, "0.04")
    await rig.clock.settle()
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    await rig.clock.settle()
    assert order.client_order_id in rig.venue.canceled and rig.sent(Purpose.EXIT)[0].quantity == D("0.04")
    rig.fill(order, "0.06")  # it crossed the cancel
    rig.fill(rig.sent(Purpose.EXIT)[0])
    await rig.wait(70)
    assert rig.sent(Purpose.EXIT)[1].quantity == D("0.06")


# -- late fills --------------------------------------------------------------------------------------------------------


@played
async def test_a_fill_after_its_order_was_given_up_is_adopted_and_closed_at_once(rig: Rig) -> None:
    rig.venue.answers["entry"] = [NotSent("so it seemed")] * 99
    order = rig.enter()
    await rig.wait(POLICIES.execution.resend_within_s + 1)
    assert rig.executor.trades == {}
    rig.fill(order)
    await rig.clock.settle()
    assert rig.of(ForeignFill) == [] and rig.state(order) is OrderState.FILLED
    (out,) = rig.sent(Purpose.EXIT)
    assert out.quantity == D("0.1") and out.exit_reason is ExitReason.EMERGENCY_EXIT
    rig.fill(out)
    assert rig.portfolio.positions == {} and rig.executor.trades == {}


@played
async def test_the_stop_follows_what_the_venue_of_its_own_left_of_a_position(rig: Rig) -> None:
    entry = await opened(rig)
    (stop,) = rig.resting(Purpose.STOP)
    part = replace(make_fill(entry), client_order_id="", venue_trade_id="adl", side=Side.SELL, quantity=D("0.03"), liquidation=True)
    rig.executor.on_fill(FillSeen(part, False))
    await rig.wait(2)
    assert stop.client_order_id in rig.venue.canceled
    rig.ended(stop)
    await rig.wait(1)
    assert rig.protected() == D("0.07") == rig.portfolio.positions[BTC_PERP].quantity


@played
async def test_an_exit_and_a_stop_that_both_fill_leave_nothing_open(rig: Rig) -> None:
    await opened(rig)
    (stop,) = rig.resting(Purpose.STOP)
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    await rig.clock.settle()
    rig.fill(rig.sent(Purpose.EXIT)[0])
    assert rig.portfolio.positions == {}
    rig.fill(stop)  # it had triggered before the cancel came
    await rig.clock.settle()
    back = rig.sent(Purpose.EXIT)[-1]
    assert (back.side, back.quantity) == (Side.BUY, D("0.1"))
    rig.fill(back)
    assert rig.portfolio.positions == {} and rig.executor.trades == {} and len(rig.of(PositionClosed)) == 2


def test_a_late_fill_is_still_closed_if_the_daemon_dies_before_it_asked() -> None:
    rig = Rig()

    async def scenario(rig: Rig) -> None:
        rig.venue.answers["entry"] = [NotSent("so it seemed")] * 99
        order = rig.enter()
        await rig.wait(POLICIES.execution.resend_within_s + 1)
        rig.journal._reactors.clear()  # the power goes right after the row
        rig.fill(order)

    rig.play(scenario)
    again = Rig(reopened(rig.journal), FakeVenue())

    async def restarted(rig: Rig) -> None:
        rig.executor.recover(rig.clock.now())
        await rig.clock.settle()
        assert rig.sent(Purpose.EXIT)[0].quantity == D("0.1")

    again.play(restarted)


def test_a_late_fill_whose_closing_was_wished_before_the_daemon_died_is_closed_by_the_next() -> None:
    rig = Rig()

    async def scenario(rig: Rig) -> None:
        rig.venue.answers["entry"] = [NotSent("so it seemed")] * 99
        order = rig.enter()
        await rig.wait(POLICIES.execution.resend_within_s + 1)
        rig.journal._reactors.clear()
        rig.fill(order)
        (late,) = rig.executor.trades
        rig.journal.append(ExitRequested(rig.clock.now(), late, ExitReason.EMERGENCY_EXIT))  # and the power goes

    rig.play(scenario)
    again = Rig(reopened(rig.journal), FakeVenue())

    async def restarted(rig: Rig) -> None:
        rig.executor.recover(rig.clock.now())
        await rig.wait(2)
        assert [order.quantity for order in rig.sent(Purpose.EXIT)] == [D("0.1")]

    again.play(restarted)


# -- spreads -----------------------------------------------------------------------------------------------------------


def test_the_second_leg_of_a_spread_follows_the_first_for_what_it_filled() -> None:
    rig = Rig()

    async def scenario(rig: Rig) -> None:
        first = rig.enter_spread()
        await rig.clock.settle()
        rig.fill(first, "0.04")
        await rig.clock.settle()
        assert rig.sent(Purpose.ENTRY, CALL_HIGH) == [], "the first is still filling"
        rig.ended(first, "expired", "unfilled timeout")
        await rig.clock.settle()
        (second,) = rig.sent(Purpose.ENTRY, CALL_HIGH)
        assert (second.side, second.quantity) == (Side.SELL, D("0.04"))

    rig.play(scenario)


@played
async def test_where_the_second_leg_fails_the_first_is_closed(rig: Rig) -> None:
    first = rig.enter_spread()
    await rig.clock.settle()
    rig.venue.answers["entry"] = [Refused("MARGIN", "no")]
    rig.fill(first)
    await rig.clock.settle()
    (out,) = rig.sent(Purpose.EXIT)
    assert (out.symbol, out.side, out.quantity, out.exit_reason) == (CALL_LOW, Side.SELL, D("0.10"), ExitReason.EMERGENCY_EXIT)


@played
async def test_a_halt_between_the_legs_closes_the_first(rig: Rig) -> None:
    first = rig.enter_spread()
    await rig.clock.settle()
    rig.kill_switch.halt(Scope.OPTION, Trigger.MANUAL, at=rig.clock.now(), reason="test")
    rig.fill(first)
    await rig.clock.settle()
    assert rig.sent(Purpose.ENTRY, CALL_HIGH) == [] and rig.sent(Purpose.EXIT)[0].symbol == CALL_LOW


@played
async def test_the_short_leg_is_bought_back_before_the_long_one_is_sold(rig: Rig) -> None:
    rig.fill(await _first_leg(rig))
    await rig.clock.settle()
    rig.fill(rig.sent(Purpose.ENTRY, CALL_HIGH)[0])
    await rig.clock.settle()
    rig.executor.request_exit("spread-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    await rig.wait(3)
    assert [order.symbol for order in rig.sent(Purpose.EXIT)] == [CALL_HIGH]
    rig.fill(rig.sent(Purpose.EXIT)[0])
    await rig.clock.settle()
    assert [order.symbol for order in rig.sent(Purpose.EXIT)] == [CALL_HIGH, CALL_LOW]
    rig.fill(rig.sent(Purpose.EXIT)[1])
    assert len(rig.of(PositionClosed)) == 1


async def _first_leg(rig: Rig) -> Order:
    first = rig.enter_spread()
    await rig.clock.settle()
    return first


@played
async def test_an_exit_wished_while_the_second_leg_was_on_its_way_leaves_what_covers_it_until_that_is_bought_back(rig: Rig) -> None:
    rig.fill(await _first_leg(rig))
    await rig.clock.settle()
    (second,) = rig.sent(Purpose.ENTRY, CALL_HIGH)
    rig.executor.request_exit("spread-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    await rig.clock.settle()
    rig.fill(second)  # it crossed the cancel
    await rig.wait(70)
    assert [order.symbol for order in rig.sent(Purpose.EXIT)] == [CALL_HIGH]
    rig.fill(rig.sent(Purpose.EXIT)[0])
    await rig.clock.settle()
    assert [order.symbol for order in rig.sent(Purpose.EXIT)] == [CALL_HIGH, CALL_LOW]


# -- time, halts, lanes ------------------------------------------------------------------------------------------------


@played
async def test_an_entry_that_does_not_fill_in_time_is_canceled_once(rig: Rig) -> None:
    order = rig.enter()
    await rig.wait(59)
    assert rig.venue.canceled == []
    await rig.wait(10)
    assert rig.venue.canceled == [order.client_order_id]
    rig.ended(order)
    assert rig.executor.trades == {} and rig.funds.reserved(PERP) == 0


@played
async def test_a_halt_cancels_working_entries_and_never_exits_nor_stops(rig: Rig) -> None:
    await opened(rig)
    rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    waiting, other = rig.enter(trade_id="trade-2"), rig.enter(BTC_SPOT, trade_id="trade-3")
    await rig.clock.settle()
    rig.kill_switch.halt(Scope.PERP, Trigger.MANUAL, at=rig.clock.now(), reason="test")
    await rig.clock.settle()
    assert rig.venue.canceled == [waiting.client_order_id]
    assert rig.state(other) is OrderState.ACCEPTED and rig.protected() == D("0.1")
    assert len(rig.sent(Purpose.EXIT)) == 1


@played
async def test_an_entry_still_in_the_lane_when_the_halt_comes_never_leaves(rig: Rig) -> None:
    order = rig.enter()
    rig.kill_switch.halt(Scope.ALL, Trigger.MANUAL, at=rig.clock.now(), reason="test")
    await rig.wait(5)
    assert rig.venue.submitted == [] and rig.state(order) is OrderState.CANCELED and rig.executor.trades == {}


@played
async def test_a_halt_that_flattens_closes_what_it_covers(rig: Rig) -> None:
    await opened(rig)
    rig.executor._kill_policy = POLICIES.kill_switch.model_copy(update={"flatten_on": ("manual",)})
    rig.journal.append(TradingHalted(rig.clock.now(), Scope.PERP, Trigger.MANUAL, "", "", None, "test"))
    await rig.clock.settle()
    assert rig.sent(Purpose.EXIT)[0].exit_reason is ExitReason.KILL_SWITCH


def test_a_full_lane_refuses_the_entry_and_it_ends_unsent() -> None:
    rig = Rig(lane_size=1)

    async def scenario(rig: Rig) -> None:
        first, second = rig.enter(), rig.enter(BTC_SPOT, trade_id="trade-2")
        await rig.clock.settle()
        assert rig.venue.submitted == [first] and rig.state(second) is OrderState.CANCELED
        (canceled,) = rig.of(OrderCanceled)
        assert isinstance(canceled, OrderCanceled) and canceled.reason == "lane full"

    rig.play(scenario)


def test_a_lane_that_is_full_when_stop_and_target_are_due_protects_a_tick_later_and_does_not_hang() -> None:
    rig = Rig(lane_size=1)

    async def scenario(rig: Rig) -> None:
        order = rig.enter()
        await rig.clock.settle()
        rig.fill(order)  # stop takes the only place, the target finds none
        await rig.wait(3)
        assert rig.protected() == D("0.1") and len(rig.resting(Purpose.TARGET)) == 1
        assert len(rig.facts) < 100

    rig.play(scenario)


@played
async def test_after_the_shutdown_began_no_entry_leaves_but_exits_do(rig: Rig) -> None:
    await opened(rig)
    rig.executor.stop_opening()
    entry = rig.enter(BTC_SPOT, trade_id="trade-2")
    rig.executor.request_exit("trade-1", ExitReason.FORCE_EXIT, rig.clock.now())
    await rig.clock.settle()
    assert entry not in rig.venue.submitted and rig.state(entry) is OrderState.CANCELED and len(rig.sent(Purpose.EXIT)) == 1


def test_an_order_too_old_before_it_could_be_sent_is_not_sent() -> None:
    rig = Rig()

    async def slow(order: Order) -> Fate:
        await asyncio.sleep(9.0)
        return Accepted("V1")

    async def scenario(rig: Rig) -> None:
        rig.venue.answers["entry"] = [slow] * 8
        orders = [rig.enter(trade_id=f"trade-{n}") for n in range(8)]
        await rig.wait(100)
        assert len(rig.venue.submitted) == 7 and rig.state(orders[-1]) is OrderState.EXPIRED

    rig.play(scenario)


# -- start -------------------------------------------------------------------------------------------------------------


def restarted(before: Rig, scenario: Callable[[Rig], Awaitable[None]], venue: FakeVenue | None = None) -> None:
    """A new life on the journal of an old one: replay, recover, then `scenario`."""
    rig = Rig(reopened(before.journal), venue or FakeVenue())

    async def whole(rig: Rig) -> None:
        await scenario(rig)

    rig.executor.recover(rig.clock.now())
    rig.play(whole)


def test_an_intent_that_never_left_ends_at_the_start() -> None:
    rig = Rig()
    order = rig.enter()
    rig.loop.close()

    async def scenario(rig: Rig) -> None:
        await rig.wait(3)
        assert rig.state(order) is OrderState.EXPIRED and rig.venue.submitted == [] and rig.executor.trades == {}

    restarted(rig, scenario)


def test_an_order_sent_without_an_answer_is_in_doubt_from_the_start() -> None:
    rig = Rig()
    order = rig.enter()
    rig.journal.append(OrderSent(AT, order.client_order_id))
    rig.loop.close()

    async def scenario(rig: Rig) -> None:
        assert rig.executor.doubtful(BTC_PERP) and rig.executor.in_doubt == [order]
        await rig.wait(100)
        assert rig.venue.submitted == [] and rig.state(order) is OrderState.EXPIRED

    restarted(rig, scenario)


def test_a_position_found_without_its_stop_gets_one_within_a_tick() -> None:
    rig = Rig()
    order = rig.enter()
    rig.journal.append(OrderSent(AT, order.client_order_id))
    rig.journal.append(OrderAccepted(AT, order.client_order_id, "V1"))
    rig.journal._reactors.clear()  # the power goes right after the fill
    rig.fill(order)
    rig.loop.close()

    async def scenario(rig: Rig) -> None:
        await rig.wait(1)
        assert rig.protected() == D("0.1") and len(rig.sent(Purpose.STOP)) == 1

    restarted(rig, scenario)


def test_an_exit_that_never_left_because_the_process_died_is_sent_at_once_where_its_stop_is_gone_already() -> None:
    rig = Rig()
    order = rig.enter(BTC_SPOT)
    for fact in (OrderSent(AT, order.client_order_id), OrderAccepted(AT, order.client_order_id, "V1")):
        rig.journal.append(fact)
    rig.journal._reactors.clear()
    rig.fill(order)
    rig.executor._keeper.work_exit(rig.executor.trades["trade-1"], AT)  # it is not wanted yet
    rig.journal.append(ExitRequested(AT, "trade-1", ExitReason.EXIT_SIGNAL))
    rig.executor._keeper.work_exit(rig.executor.trades["trade-1"], AT)  # intended, and the power goes
    (intended,) = [r.order for r in rig.executor.trades["trade-1"].working(Purpose.EXIT)]
    rig.loop.close()

    async def scenario(rig: Rig) -> None:
        await rig.wait(2)
        assert rig.state(intended) is OrderState.EXPIRED and len(rig.sent(Purpose.EXIT)) == 1, "nothing else protects it"

    restarted(rig, scenario)


def test_how_long_a_position_is_bare_is_counted_from_the_venues_first_answer_and_not_anew_from_later_ones() -> None:
    rig = Rig()
    order = rig.enter()
    for fact in (OrderSent(AT, order.client_order_id), OrderAccepted(AT, order.client_order_id, "V1")):
        rig.journal.append(fact)
    rig.journal._reactors.clear()
    rig.fill(order)
    rig.loop.close()

    async def scenario(rig: Rig) -> None:
        rig.venue.answers["stop"] = [InDoubt("no answer")] * 9
        await rig.wait(30)  # nobody could do anything yet
        began = rig.clock.now()
        for _ in range(3):
            await rig.executor.protect(rig.venue)
            await rig.wait(1)
        assert rig.executor._keeper.bare.since["trade-1"] == began

    again = Rig(reopened(rig.journal), FakeVenue())
    again.executor.recover(again.clock.now())

    async def alone() -> None:  # beside no lane and no tick: the start has not come so far
        await scenario(again)

    again.loop.run_until_complete(alone())
    again.loop.close()


def test_a_wish_to_close_while_the_venue_is_awaited_is_on_record_and_is_sent_when_it_answers() -> None:
    rig = Rig()

    async def life(rig: Rig) -> None:
        await opened(rig)

    rig.play(life)
    again = Rig(reopened(rig.journal), FakeVenue())
    again.executor.recover(again.clock.now())

    async def start() -> None:
        again.executor.request_exit("trade-1", ExitReason.FORCE_EXIT, again.clock.now(), later=True)
        await asyncio.sleep(0)
        assert len(again.of(ExitRequested)) == 1 and not again.executor.trades["trade-1"].working(Purpose.EXIT), "not even intended"
        await again.executor.protect(again.venue)
        assert [order.purpose for order in again.venue.submitted] == [Purpose.EXIT]

    again.loop.run_until_complete(start())
    again.loop.close()


def test_half_a_spread_found_at_the_start_is_closed() -> None:
    rig = Rig()
    first = rig.enter_spread()
    rig.journal.append(OrderSent(AT, first.client_order_id))
    rig.journal.append(OrderAccepted(AT, first.client_order_id, "V1"))
    rig.journal._reactors.clear()
    rig.fill(first)
    rig.loop.close()

    async def scenario(rig: Rig) -> None:
        await rig.wait(1)
        assert rig.sent(Purpose.ENTRY) == [] and rig.sent(Purpose.EXIT)[0].symbol == CALL_LOW

    restarted(rig, scenario)


def test_a_stop_whose_trade_has_ended_is_canceled_at_the_start() -> None:
    rig = Rig()

    async def life(rig: Rig) -> None:
        await opened(rig)
        rig.venue.cancel_answers = [hang, hang]
        rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
        await rig.clock.settle()
        rig.fill(rig.sent(Purpose.EXIT)[0])

    rig.play(life)
    left = {record.order.client_order_id for record in rig.executor.orders.values() if record.working}
    assert len(left) == 2

    async def scenario(rig: Rig) -> None:
        await rig.clock.settle()
        assert set(rig.venue.canceled) == left

    restarted(rig, scenario)


def test_fills_missed_while_we_were_away_are_booked_once_and_unlisted_orders_asked_about() -> None:
    rig = Rig()

    async def life(rig: Rig) -> None:
        await opened(rig)

    rig.play(life)
    (stop,), (target,) = rig.resting(Purpose.STOP), rig.resting(Purpose.TARGET)
    venue = FakeVenue()
    venue.fills = [FillSeen(make_fill(stop, price=D(49_000), fee=D("0.01"), venue_trade_id="T99", at=AT + 5), True)]
    venue.knows[target.client_order_id] = OrderReport(target.client_order_id, "V3", BTC_PERP, OrderState.CANCELED, D(0), D("0.1"))

    async def scenario(rig: Rig) -> None:
        for _ in range(2):
            await rig.executor.catch_up(venue, await venue.wallet())
        assert rig.portfolio.positions == {} and len(rig.of(PositionClosed)) == 1 and len(rig.of(Filled)) == 1
        assert rig.state(target) is OrderState.CANCELED

    restarted(rig, scenario, venue)


def test_an_order_of_ours_that_rests_at_the_venue_though_it_ended_here_is_canceled() -> None:
    rig = Rig()

    async def life(rig: Rig) -> None:
        rig.ended(rig.enter(), "canceled")
        await rig.clock.settle()

    rig.play(life)
    venue = FakeVenue()
    (entry,) = [fact.order for fact in rig.facts if isinstance(fact, OrderIntended)]
    venue.working = [OrderReport(entry.client_order_id, "V1", BTC_PERP, OrderState.ACCEPTED, D(0), D("0.1"))]

    async def scenario(rig: Rig) -> None:
        await rig.executor.catch_up(venue, await venue.wallet())
        assert venue.canceled == [entry.client_order_id]

    restarted(rig, scenario, venue)


def test_a_replay_rebuilds_every_record_and_trade() -> None:
    rig = Rig()

    async def life(rig: Rig) -> None:
        await opened(rig)
        second = rig.enter(BTC_SPOT, trade_id="trade-2")
        await rig.clock.settle()
        rig.fill(second, "0.04")
        rig.executor.request_exit("trade-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
        await rig.clock.settle()
        rig.fill(rig.sent(Purpose.EXIT)[0])
        await rig.clock.settle()

    rig.play(life)
    again = Rig(reopened(rig.journal))
    again.loop.close()

    def told(executor: TradeExecutor) -> dict[str, object]:
        return {"orders": {k: (r.state, r.filled, r.venue_order_id) for k, r in executor.orders.items()},
                "trades": {k: (t.filled, t.exit_reason, t.stop, t.stop_reason, len(t.records)) for k, t in executor.trades.items()},
                "ended": set(executor._life._ended), "seen": executor._life._seen, "expiring": set(executor._expiring)}

    assert told(again.executor) == told(rig.executor)
