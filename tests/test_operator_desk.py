"""What an operator can do to a daemon: every command goes on record, to the authority whose right it is, and no further."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest

import main
from modules.cli.reports import Reports
from modules.domain.errors import NotFound, OperatorRefused
from modules.domain.events import Fact, OperatorCommand, OrderIntended, PositionClosed, TradeOpened, TransferSeen
from modules.domain.instrument import AssetClass
from modules.domain.order import ExitReason, Purpose
from modules.domain.settings import DEMO_WALLETS
from modules.domain.view import TradingState
from modules.news.calendar import Calendar
from modules.runtime.clock import VirtualClock, VirtualLoop
from modules.store.decisions import Decisions
from modules.store.journal import Journal
from modules.strategies.registry import all_strategies
from modules.venues.demo_market import DemoMarket
from tests.builders import AT, shipped_policies

HOUR = 3_600_000
BY = "cli:tester"


class StillClock:
    """It is always the builders' noon."""

    speed = 1.0

    def now(self) -> int:
        return AT

    async def sleep_until(self, at: int) -> None: ...

    async def settle(self) -> None: ...

    def pulse(self, at: int) -> None: ...

    def reach(self, at: int) -> bool:
        return True

    def busy(self) -> bool:
        return False

    def stir(self) -> None: ...

    async def drive(self, period_s: float, tick: Callable[[int], int | None]) -> None: ...


def quiet_daemon() -> main.Daemon:
    """Every authority, opened books, no market."""
    policies = shipped_policies()
    daemon = main.Daemon(main.Plan(
        mode="demo", policies=policies, clock=StillClock(), journal=Journal(None), decisions=Decisions(None), venues={}, venue_of={},
        settlement=dict.fromkeys(AssetClass, "USDT"), allocate=dict.fromkeys(AssetClass), strategies={}, references={},
        calendar=Calendar((), policies.news, {})))
    daemon.journal.replay()
    for asset_class in AssetClass:
        daemon.journal.append(TransferSeen(AT, asset_class, Decimal(1000), Decimal(0), f"opening {asset_class}"))
    daemon.desk.attach(Reports(daemon).all())
    return daemon


def recorded(daemon: main.Daemon, kind: type) -> list[Any]:
    return [fact for _, fact in daemon.journal.facts() if isinstance(fact, kind)]


def a_day(commands: Mapping[int, Callable[[main.Daemon], Any]], days: int = 1) -> tuple[main.Daemon, list[Fact]]:
    """A demo day with `commands` given right after the bars of these hours; the daemon and all facts."""
    source, policies = DemoMarket(7, days), shipped_policies()
    loop = VirtualLoop(source.start)
    due = sorted(commands.items())
    facts: list[Fact] = []

    def after(at: int) -> None:
        while due and at >= source.start + due[0][0] * HOUR:
            due.pop(0)[1](daemon)

    async def life() -> None:
        await daemon.run()

    try:
        asyncio.set_event_loop(loop)
        plan = main.simulated_plan(
            source, mode="demo", policies=policies, clock=VirtualClock(loop), journal=Journal(None, durable=False),
            decisions=Decisions(None), wallets=DEMO_WALLETS, calendar=Calendar(source.macro_events, policies.news, {}),
            strategies={c: [s for s in all_strategies().values() if c in s.asset_classes] for c in AssetClass},
            observers=(facts.append,), after_batch=(after,))
        daemon = main.Daemon(plan)
        loop.run_until_complete(life())
        return daemon, facts
    finally:
        asyncio.set_event_loop(None)
        loop.close()


# -- on record ---------------------------------------------------------------------------------------------------------


def test_every_command_is_on_record_with_its_words_and_who_gave_it_and_no_question_is() -> None:
    daemon = quiet_daemon()
    daemon.desk.handle("pause", {"asset_class": "SPOT"}, BY)
    daemon.desk.handle("status", {}, BY)
    daemon.desk.handle("explain", {}, BY)
    assert recorded(daemon, OperatorCommand) == [OperatorCommand(AT, "pause", '{"asset_class": "SPOT"}', BY)]


def test_a_pause_closes_entries_of_its_class_alone_until_resumed() -> None:
    daemon = quiet_daemon()
    assert daemon.desk.handle("pause", {"asset_class": "perp"}, BY) == {"paused": ["PERP"]}
    assert daemon.risk.paused(AssetClass.PERP) and not daemon.risk.paused(AssetClass.SPOT)
    assert daemon.desk.handle("status", {}, BY)["classes"]["PERP"]["state"] == "REDUCING"
    assert daemon.desk.handle("resume", {}, BY) == {"paused": [], "halted": {}}
    assert not daemon.risk.paused(AssetClass.PERP)


def test_a_kill_latches_until_somebody_re_arms_it_with_a_reason() -> None:
    daemon = quiet_daemon()
    assert daemon.desk.handle("kill", {}, BY)["already"] is False
    assert all(daemon.kill_switch.state(c) is TradingState.HALTED for c in AssetClass)
    assert daemon.desk.handle("kill", {}, BY)["already"] is True
    assert daemon.desk.handle("resume", {}, BY)["halted"].keys() == {"SPOT", "PERP", "OPTION", "FOREX"}, "it is not enough"
    with pytest.raises(OperatorRefused, match="reason"):
        daemon.desk.handle("reset-kill", {"asset_class": "ALL"}, BY)
    with pytest.raises(OperatorRefused, match="ALL"):
        daemon.desk.handle("reset-kill", {"asset_class": "SPOT", "reason": "looked into it"}, BY)
    assert daemon.desk.handle("reset-kill", {"asset_class": "ALL", "reason": "looked into it"}, BY)["halted"] == {}
    assert all(daemon.kill_switch.state(c) is TradingState.ACTIVE for c in AssetClass)


def test_an_unknown_command_class_or_trade_is_not_found_and_leaves_no_trace() -> None:
    daemon = quiet_daemon()
    before = daemon.journal.head
    with pytest.raises(NotFound, match="did you mean pause"):
        daemon.desk.handle("puase", {}, BY)
    unknown = (("pause", {"asset_class": "BONDS"}), ("forceexit", {"subject": "t-unknown"}), ("explain", {"subject": "d0"}))
    for command, arguments in unknown:
        with pytest.raises(NotFound):
            daemon.desk.handle(command, arguments, BY)
    assert daemon.journal.head == before


# -- funds -------------------------------------------------------------------------------------------------------------


def test_what_gives_the_bot_more_room_needs_a_confirmation_and_what_takes_some_does_not() -> None:
    daemon = quiet_daemon()
    with pytest.raises(OperatorRefused, match="--confirm"):
        daemon.desk.handle("funds", {"on": True}, BY)
    assert not daemon.funds.master_on
    assert daemon.desk.handle("funds", {"on": True, "confirm": True}, BY)["master_on"] is True
    assert daemon.desk.handle("funds", {"on": False}, BY)["master_on"] is False
    assert daemon.desk.handle("funds", {"on": False}, BY)["classes"]["SPOT"].keys() == {"on", "pair_cap", "allocated", "reserved"}
    low, _ = daemon.funds.pair_cap_bounds
    daemon.desk.handle("funds", {"pair_cap": str(low), "asset_class": "SPOT"}, BY)
    assert daemon.funds.pair_cap(AssetClass.SPOT) == low
    with pytest.raises(OperatorRefused, match="--confirm"):
        daemon.desk.handle("funds", {"pair_cap": str(low * 2), "asset_class": "SPOT"}, BY)


def test_a_pair_cap_outside_the_owners_bounds_is_refused_whoever_confirms_and_half_a_change_is_none() -> None:
    daemon = quiet_daemon()
    before = daemon.journal.head
    for nonsense in ("5", "-1", "NaN", "lots"):
        with pytest.raises(OperatorRefused):
            daemon.desk.handle("funds", {"on": True, "pair_cap": nonsense, "confirm": True}, BY)
    with pytest.raises(OperatorRefused, match="name it"):
        daemon.desk.handle("funds", {"allocate": "100"}, BY)
    assert daemon.journal.head == before


def test_without_a_change_funds_tells_how_switches_and_caps_stand() -> None:
    document = quiet_daemon().desk.handle("funds", {}, BY)
    assert document["master_on"] is False
    assert set(document["classes"]) == {"SPOT", "PERP", "OPTION", "FOREX"}


# -- reports hold on anything ---------------------------------------------------------------------------------------------


def test_every_report_holds_on_empty_books() -> None:
    policies = shipped_policies()
    daemon = main.Daemon(main.Plan(
        mode="demo", policies=policies, clock=StillClock(), journal=Journal(None), decisions=Decisions(None), venues={}, venue_of={},
        settlement={}, allocate={}, strategies={}, references={}, calendar=Calendar((), policies.news, {})))
    daemon.journal.replay()
    for name, report in Reports(daemon, running=False).all().items():
        assert isinstance(report({}), dict), name


def test_a_number_that_is_none_is_refused() -> None:
    daemon = quiet_daemon()
    for nonsense in ("7", -1, True, 1.5):
        with pytest.raises(OperatorRefused):
            daemon.desk.handle("daily", {"n": nonsense}, BY)


# -- in a market ---------------------------------------------------------------------------------------------------------


def test_flatten_closes_everything_reduce_only_and_a_kill_lets_nothing_new_open() -> None:
    asked: dict[str, Any] = {}

    def stop(daemon: main.Daemon) -> None:
        daemon.desk.attach(Reports(daemon).all())
        asked["open"] = set(daemon.executor.trades)
        asked["at"] = daemon.clock.now()
        asked["trades"] = daemon.desk.handle("trades", {}, BY)
        daemon.desk.handle("kill", {}, BY)
        asked["closing"] = daemon.desk.handle("flatten", {}, BY)["closing"]

    daemon, facts = a_day({9: stop})
    assert asked["open"]
    assert {trade["trade_id"] for trade in asked["closing"]} == asked["open"]
    assert {trade["trade_id"] for trade in asked["trades"]["open"]} == asked["open"]
    assert not daemon.portfolio.positions
    later = [fact for fact in facts if fact.at >= asked["at"]]
    assert not [fact for fact in later if isinstance(fact, TradeOpened)]
    exits = [f.order for f in later if isinstance(f, OrderIntended) and f.order.purpose is Purpose.EXIT]
    assert exits and all(order.reduce_only for order in exits)
    ended = {f.trade.trade_id: f.trade.exit_reason for f in later if isinstance(f, PositionClosed)}
    assert {ended[trade_id] for trade_id in asked["open"] if trade_id in ended} == {ExitReason.FORCE_EXIT}


def test_forceexit_closes_the_one_trade_and_a_pause_keeps_its_class_from_opening() -> None:
    asked: dict[str, Any] = {}

    def close_one(daemon: main.Daemon) -> None:
        asked["before"] = set(daemon.executor.trades)
        asked["chosen"] = next(iter(daemon.executor.trades))
        daemon.desk.handle("forceexit", {"subject": asked["chosen"]}, BY)
        daemon.desk.handle("pause", {"asset_class": "FOREX"}, BY)
        asked["at"] = daemon.clock.now()

    _, facts = a_day({9: close_one})
    assert len(asked["before"]) > 1
    forced = [f.trade.trade_id for f in facts if isinstance(f, PositionClosed) and f.trade.exit_reason is ExitReason.FORCE_EXIT]
    assert forced == [asked["chosen"]]
    opened = [f for f in facts if isinstance(f, TradeOpened) and f.at >= asked["at"]]
    assert not [f for f in opened if f.asset_class is AssetClass.FOREX]


async def test_reconcile_asks_the_venue_and_is_on_record() -> None:
    daemon = quiet_daemon()
    assert await daemon.desk.answer("reconcile", {}, BY) == {"differences": {}}
    assert [fact.command for fact in recorded(daemon, OperatorCommand)] == ["reconcile"]
