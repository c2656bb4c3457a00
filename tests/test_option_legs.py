"""Two legs of an option structure among real authorities, with everything that can come between them: the protective leg is there before
anything is sold and stays until that is bought back, whatever is told late, lost or done by somebody else."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from modules.domain.events import ExitRequested, OrderCanceled, PositionClosed
from modules.domain.instrument import Instrument, Right, Side
from modules.domain.order import Accepted, ExitReason, InDoubt, NotSent, Order, OrderReport, OrderState, Purpose
from modules.execution import structures
from modules.venues.protocol import FillSeen, OrderDone
from tests.builders import AT, make_fill, make_instrument, make_order
from tests.executor_rig import CALL_HIGH, CALL_LOW, OPTION, POLICIES, FakeVenue, Rig, played, reopened

D = Decimal
DAY_MS = 86_400_000


def exits(rig: Rig) -> list[tuple[str, Side, Decimal]]:
    return [(order.symbol, order.side, order.quantity) for order in rig.sent(Purpose.EXIT)]


async def both_sent(rig: Rig) -> Order:
    """The protective leg is bought and the short one on its way; that one."""
    first = rig.enter_spread()
    await rig.clock.settle()
    rig.fill(first)
    await rig.clock.settle()
    (second,) = rig.sent(Purpose.ENTRY, CALL_HIGH)
    return second


async def spread(rig: Rig) -> Order:
    second = await both_sent(rig)
    rig.fill(second, price="600")
    await rig.clock.settle()
    return second


def taken_away(symbol: str, side: Side, quantity: str = "0.10") -> FillSeen:
    """The account's owner traded it in the venue's app."""
    order = make_order(make_instrument(OPTION), quantity=D(quantity), symbol=symbol, side=side)
    return FillSeen(replace(make_fill(order, price=D(900), at=AT + 60_000, venue_trade_id="own1"), client_order_id=""), True)


@played
async def test_while_nobody_knows_what_became_of_the_short_leg_what_covers_it_stays_and_goes_once_it_is_proven_absent(rig: Rig) -> None:
    rig.venue.answers["entry"] = [Accepted("V1"), InDoubt("no answer")]
    await both_sent(rig)
    rig.executor.request_exit("spread-1", ExitReason.KILL_SWITCH, rig.clock.now())
    await rig.wait(30)
    assert exits(rig) == [], "it may be there: what would cover it is not sold"
    await rig.wait(90)
    assert exits(rig) == [(CALL_LOW, Side.SELL, D("0.10"))]
    rig.fill(rig.sent(Purpose.EXIT)[0])
    assert len(rig.of(PositionClosed)) == 1


@played
async def test_a_short_leg_in_doubt_that_is_found_filled_completes_the_spread(rig: Rig) -> None:
    rig.venue.answers["entry"] = [Accepted("V1"), InDoubt("no answer")]
    second = await both_sent(rig)
    rig.venue.fills.append(FillSeen(make_fill(second, price=D(600), at=rig.clock.now(), venue_trade_id="lost"), True))
    rig.venue.knows[second.client_order_id] = OrderReport(second.client_order_id, "V2", CALL_HIGH, OrderState.FILLED, D("0.10"), D("0.10"))
    await rig.wait(5)
    assert exits(rig) == [] and rig.portfolio.positions[CALL_HIGH].quantity == D("-0.10")


@played
async def test_an_end_that_is_told_before_the_fills_it_speaks_of_waits_for_them(rig: Rig) -> None:
    second = await both_sent(rig)
    rig.executor.on_done(OrderDone(second.client_order_id, rig.clock.now(), "canceled", "the rest found nobody", D("0.06")))
    await rig.clock.settle()
    assert exits(rig) == [], "a leg that seems not to be there is there: what covers it is not sold"
    rig.fill(second, "0.06")
    await rig.clock.settle()
    assert len(rig.of(OrderCanceled)) == 1
    assert exits(rig) == [(CALL_HIGH, Side.BUY, D("0.06"))], "half a spread is no spread, and what was sold is bought back first"
    rig.fill(rig.sent(Purpose.EXIT)[0])
    await rig.clock.settle()
    assert exits(rig)[1:] == [(CALL_LOW, Side.SELL, D("0.10"))]


@played
async def test_an_end_whose_fills_no_stream_tells_is_asked_about(rig: Rig) -> None:
    second = await both_sent(rig)
    rig.venue.fills.append(FillSeen(make_fill(second, quantity=D("0.06"), price=D(600), at=rig.clock.now(), venue_trade_id="deaf"), False))
    name = second.client_order_id
    rig.venue.knows[name] = OrderReport(name, "V2", CALL_HIGH, OrderState.CANCELED, D("0.06"), D("0.10"))
    rig.executor.on_done(OrderDone(second.client_order_id, rig.clock.now(), "canceled", "", D("0.06")))
    await rig.wait(3)
    assert exits(rig) == [(CALL_HIGH, Side.BUY, D("0.06"))]


@played
async def test_where_the_owner_sells_what_covers_the_short_leg_that_is_bought_back_at_once_and_every_second_until_it_is(rig: Rig) -> None:
    await spread(rig)
    began = rig.clock.now()
    rig.executor.on_fill(taken_away(CALL_LOW, Side.SELL))
    await rig.wait(1)
    assert exits(rig) == [(CALL_HIGH, Side.BUY, D("0.10"))]
    assert "that is sold and that nothing covers" in rig.executor.problems()[0]
    for tries in range(1, 4):
        rig.ended(rig.sent(Purpose.EXIT)[-1], "canceled", "EC_NoImmediateQtyToFill")
        await rig.wait(3)
        assert len(exits(rig)) > tries
    prices = [order.arrival_price for order in rig.sent(Purpose.EXIT)]
    assert prices == sorted(set(prices)), "each goes further than the one before"
    rig.fill(rig.sent(Purpose.EXIT)[-1])
    await rig.clock.settle()
    assert rig.clock.now() - began <= 10_000 and len(rig.of(PositionClosed)) == 1
    assert rig.executor.problems() == []


@played
async def test_a_short_leg_that_fills_after_it_was_given_up_and_its_cover_sold_is_bought_back_at_once(rig: Rig) -> None:
    second = await both_sent(rig)
    rig.ended(second, "expired", "found nobody")
    await rig.clock.settle()
    rig.fill(rig.sent(Purpose.EXIT)[0])
    await rig.clock.settle()
    assert len(rig.of(PositionClosed)) == 1
    rig.fill(second, number="late")
    await rig.clock.settle()
    assert exits(rig)[-1] == (CALL_HIGH, Side.BUY, D("0.10")), "at once, not at the next tick"


@played
async def test_an_answer_to_the_buying_back_that_never_comes_is_not_waited_for_while_nothing_covers(rig: Rig) -> None:
    await spread(rig)
    rig.venue.answers["exit"] = [InDoubt("no answer")]
    rig.executor.on_fill(taken_away(CALL_LOW, Side.SELL))
    await rig.wait(8)
    assert len(exits(rig)) >= 2, "an order that may only reduce finds nothing to reduce twice"
    assert all(order.reduce_only for order in rig.sent(Purpose.EXIT))


@played
async def test_an_exit_that_never_leaves_while_its_cover_stands_waits_for_it(rig: Rig) -> None:
    await spread(rig)
    rig.venue.answers["exit"] = [NotSent("no connection")] * 30
    rig.executor.request_exit("spread-1", ExitReason.EXIT_SIGNAL, rig.clock.now())
    await rig.wait(5)
    assert {symbol for symbol, _, _ in exits(rig)} == {CALL_HIGH}
    assert rig.executor.problems() == [], "it is covered"


@pytest.mark.parametrize(("told", "wanted"), [
    pytest.param(None, [(CALL_LOW, Side.SELL, D("0.10"))], id="never sent"),
    pytest.param("0.04", [(CALL_HIGH, Side.BUY, D("0.04"))], id="a part of it")])
def test_after_a_restart_half_a_spread_is_closed(told: str | None, wanted: list[object]) -> None:
    rig = Rig()

    async def before(rig: Rig) -> None:
        first = rig.enter_spread()
        await rig.clock.settle()
        if told is None:
            rig.risk.approve_follow_up = lambda order: _gone()  # type: ignore[assignment,method-assign,return-value]
            with pytest.raises(_Killed):
                rig.fill(first)
            return
        rig.fill(first)
        await rig.clock.settle()
        (second,) = rig.sent(Purpose.ENTRY, CALL_HIGH)
        rig.fill(second, told)
        await rig.clock.settle()
        rig.executor.request_exit = lambda *_: None  # type: ignore[method-assign]
        rig.ended(second, "canceled", "the process ends here")

    rig.play(before)
    again = Rig(reopened(rig.journal), FakeVenue())

    async def after(rig: Rig) -> None:
        rig.executor.recover(rig.clock.now())
        await rig.clock.settle()
        assert exits(rig) == wanted
        assert [fact.reason for fact in rig.of(ExitRequested)] == [ExitReason.EMERGENCY_EXIT]

    again.play(after)


class _Killed(Exception):
    """The process is gone."""


def _gone() -> None:
    raise _Killed


# -- what is covered --------------------------------------------------------------------------------------------------------------


def call(strike: str, days: int, right: Right = Right.CALL) -> Instrument:
    return make_instrument(OPTION, symbol=f"{strike}{right}{days}", strike=D(strike), right=right, expiry=AT + days * DAY_MS)


@pytest.mark.parametrize(("held", "uncovered"), [
    ([(call("52000", 7), "1"), (call("50000", 7), "-1")], "0"),
    ([(call("52000", 7), "0.4"), (call("50000", 7), "-1")], "0.6"),
    ([(call("52000", 7, Right.PUT), "1"), (call("50000", 7), "-1")], "1"),
    ([(call("52000", 6), "1"), (call("50000", 7), "-1")], "1"),
    ([(call("52000", 8), "1"), (call("50000", 7), "-0.5"), (call("51000", 8), "-1")], "0.5"),
    ([(call("50000", 0), "-1")], "0"),
    ([(call("50000", 7), "1")], "0")], ids=[
        "a spread", "a part of it", "a put covers no call", "a cover that ends first", "one cover for two", "expired", "bought only"])
def test_what_is_sold_is_covered_by_what_lives_as_long_and_is_of_its_kind(held: list[tuple[Instrument, str]], uncovered: str) -> None:
    rules = {one.symbol: one for one, _ in held}
    assert structures.naked({one.symbol: D(quantity) for one, quantity in held}, rules.get, AT) == D(uncovered)


def test_the_policy_closes_what_nothing_covers_within_ten_seconds() -> None:
    assert POLICIES.execution.flatten_after_s < POLICIES.execution.protect_within_s <= 10.0
