"""The live ramp: twenty closed trades and fourteen days per class, real money only, begun again after a halt that cost money or trust."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from modules.domain.decision import BoundBy, Rule
from modules.domain.events import DaemonStarted, PositionClosed, Reconciled, Scope, TradingHalted, TradingRearmed, Trigger
from modules.domain.instrument import AssetClass
from modules.domain.ramp import DAY_MS, LiveRamp, Progress
from tests.builders import AT, shipped_policies
from tests.test_sizer import a_signal, a_view, size
from tests.test_validation_manager import closed

SPOT, PERP = AssetClass.SPOT, AssetClass.PERP
POLICY = shipped_policies().sizing
HOUR_MS = 3_600_000
LATER = AT + 15 * DAY_MS


def trade(asset_class: AssetClass = SPOT, opened: int = AT, ended: int | None = None) -> PositionClosed:
    at = opened if ended is None else ended
    made = closed(1.0, at)
    return PositionClosed(at, replace(made.trade, asset_class=asset_class, opened_at=opened))


def halt(trigger: Trigger, scope: Scope = Scope.SPOT, at: int = AT + DAY_MS) -> TradingHalted:
    return TradingHalted(at, scope, trigger, "6 %", "5 %", None, "because")


def rearm(trigger: Trigger, scope: Scope = Scope.SPOT, at: int = AT + DAY_MS + HOUR_MS) -> TradingRearmed:
    return TradingRearmed(at, scope, trigger, "owner", "looked at it", "")


def ran(since: int, until: int) -> list[Reconciled]:
    """What a daemon that runs writes down every hour."""
    return [Reconciled(at, "bybit", 0) for at in range(since + HOUR_MS, until + 1, HOUR_MS)]


def ramp_of(*facts: Any, mode: str = "live", until: int = LATER) -> LiveRamp:
    """One daemon from AT to `until`, and what happened meanwhile."""
    made = LiveRamp()
    for fact in (DaemonStarted(AT, mode, "1", ""), *sorted((*facts, *ran(AT, until)), key=lambda fact: fact.at)):
        made.apply(fact)
    return made


def standing(ramp: LiveRamp, at: int = LATER, asset_class: AssetClass = SPOT) -> Progress:
    return ramp.progress(asset_class, at, POLICY)


def test_both_the_trades_and_the_days_are_asked_for() -> None:
    assert (POLICY.ramp_trades, POLICY.ramp_days) == (20, 14)
    nineteen, twenty = ramp_of(*[trade()] * 19), ramp_of(*[trade()] * 20)
    assert standing(nineteen).ramping and not standing(twenty).ramping
    assert standing(twenty, AT + 14 * DAY_MS - 1).ramping and not standing(twenty, AT + 14 * DAY_MS).ramping


def test_days_on_which_the_daemon_did_not_run_do_not_count() -> None:
    ramp = ramp_of(*[trade()] * 20, until=AT + 3 * DAY_MS)
    assert standing(ramp, AT + 90 * DAY_MS).days == 3.0
    ramp.apply(DaemonStarted(AT + 60 * DAY_MS, "live", "1", ""))
    for fact in ran(AT + 60 * DAY_MS, AT + 70 * DAY_MS):
        ramp.apply(fact)
    assert standing(ramp, AT + 90 * DAY_MS).days == 13.0
    ramp.apply(Reconciled(AT + 75 * DAY_MS, "bybit", 0))  # five days without a sign of life, whatever the reason
    assert standing(ramp, AT + 90 * DAY_MS).days == 13.0
    for fact in ran(AT + 75 * DAY_MS, AT + 76 * DAY_MS):
        ramp.apply(fact)
    assert not standing(ramp, AT + 90 * DAY_MS).ramping


def test_a_restart_loses_nothing_but_the_time_nobody_ran() -> None:
    ramp = LiveRamp()
    for day in range(20):
        ramp.apply(DaemonStarted(AT + day * DAY_MS, "live", "1", ""))
        ramp.apply(trade(opened=AT))
        for fact in ran(AT + day * DAY_MS, AT + day * DAY_MS + 23 * HOUR_MS):
            ramp.apply(fact)
    assert standing(ramp, AT + 20 * DAY_MS).days == pytest.approx(20 * 23 / 24)


def test_days_count_from_the_first_trade_and_not_from_the_first_start() -> None:
    late = ramp_of(*[trade(opened=AT + 10 * DAY_MS)] * 30)
    assert standing(late).ramping and standing(late).days == 5.0 and standing(ramp_of()).days == 0.0


def test_each_class_has_its_own() -> None:
    ramp = ramp_of(*[trade(PERP)] * 20)
    assert not standing(ramp, asset_class=PERP).ramping and standing(ramp).trades == 0


def test_paper_trades_prove_nothing() -> None:
    assert standing(ramp_of(*[trade()] * 40, mode="paper")).trades == 0


@pytest.mark.parametrize("trigger", [Trigger.DAILY_DRAWDOWN, Trigger.MONTHLY_DRAWDOWN, Trigger.SLIPPAGE, Trigger.MANUAL])
def test_a_halt_that_cost_money_or_trust_begins_it_again(trigger: Trigger) -> None:
    ramp = ramp_of(*[trade()] * 20, *[trade(PERP)] * 20, halt(trigger), rearm(trigger, at=AT + 2 * DAY_MS), until=AT + 16 * DAY_MS)
    again = standing(ramp)
    assert again.ramping and again.trades == 0 and trigger.value.replace("_", " ") in again.note
    assert not standing(ramp, asset_class=PERP).ramping
    ramp.apply(trade(opened=AT, ended=AT + 2 * DAY_MS))  # opened before the halt: it does not count
    assert standing(ramp).trades == 0
    for _ in range(20):
        ramp.apply(trade(opened=AT + 2 * DAY_MS))
    assert not standing(ramp, AT + 16 * DAY_MS).ramping


def test_a_halt_of_everything_begins_every_class_again() -> None:
    ramp = ramp_of(*[trade()] * 20, *[trade(PERP)] * 20, halt(Trigger.MANUAL, Scope.ALL))
    assert standing(ramp).ramping and standing(ramp, asset_class=PERP).ramping


@pytest.mark.parametrize("trigger", [Trigger.API_ERRORS, Trigger.API_AUTHENTICATION, Trigger.ORDERS_IN_DOUBT])
def test_an_outage_of_the_venue_does_not(trigger: Trigger) -> None:
    ramp = ramp_of(*[trade()] * 20, halt(trigger), rearm(trigger))
    assert not standing(ramp).ramping
    assert standing(ramp).days == pytest.approx(15 - 1 / 24), "what was halted was not traded"
    assert standing(ramp_of(*[trade(PERP)] * 20, halt(trigger)), asset_class=PERP).days == 15.0


def test_the_size_says_how_far_the_ramp_is_with_every_number() -> None:
    note = standing(ramp_of(*[trade()] * 7), AT + 3 * DAY_MS).note
    view = a_view(equity="7500", ramp=True, ramp_note=note)
    bound = size(a_signal(), view)
    check = next(check for check in bound.checks if check.note == note)
    assert (bound.bound_by, bound.notional) == (BoundBy.LIVE_RAMP, Decimal(10)) and note in str(check)
    assert check.rule is Rule.SIZE_ABOVE_CEILING and check.limit == Decimal(10) and check.measured == Decimal(10) and check.passed
    assert "7 of 20 closed trades, 3.0 of 14 days" in note and BoundBy.LIVE_RAMP in dict(bound.ceilings)
