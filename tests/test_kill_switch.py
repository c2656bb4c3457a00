"""The kill switch: what trips it, what does not, what survives a restart, and who may re-arm it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.domain.errors import JournalUnwritable, OperatorRefused
from modules.domain.events import (
    ApiErrorSeen,
    BalanceAdjusted,
    BaselineRolled,
    DaemonStarted,
    Fact,
    Filled,
    InstrumentListed,
    OrderAccepted,
    OrderInDoubt,
    OrderIntended,
    PeakRaised,
    Scope,
    TradingHalted,
    TradingRearmed,
    TransferSeen,
    Trigger,
)
from modules.domain.instrument import AssetClass, Side
from modules.domain.policies import KillSwitchPolicy
from modules.domain.unit_value import DAY, DAY_MS, MONTH, UnitValue
from modules.domain.view import TradingState
from modules.Kill_Switch import KillSwitch
from modules.store.journal import Journal
from tests.builders import AT, make_fill, make_instrument, make_order, shipped_policies
from tests.timing import within

SPOT, PERP = AssetClass.SPOT, AssetClass.PERP
D = Decimal
MIDNIGHT = AT - AT % DAY_MS
SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    return int(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp() * 1000)


@dataclass
class Desk:
    """A kill switch on a journal, and the equities it is told when it asks."""

    journal: Journal
    switch: KillSwitch
    equities: dict[AssetClass, Decimal | None]
    orders: int = 0
    seen: list[Fact] = field(default_factory=list)

    def mark(self, equity: str, at: int, asset_class: AssetClass = SPOT) -> None:
        self.equities[asset_class] = D(equity)
        self.switch.mark(asset_class, D(equity), at)

    def transfer(self, amount: str, before: str, at: int, asset_class: AssetClass = SPOT) -> None:
        self.journal.append(TransferSeen(at, asset_class, D(amount), D(before), f"t{at}"))
        self.equities[asset_class] = D(before) + D(amount)

    def execute(self, slippage_bp: str, at: int, *, parts: int = 1, asset_class: AssetClass = SPOT, model_bp: str = "2",
                side: Side = Side.BUY) -> None:
        """An order decided at 50,000, filled that much worse."""
        self.orders += 1
        order = replace(make_order(make_instrument(asset_class), side=side), client_order_id=f"order{self.orders}", at=at,
                        slippage_model_bp=D(model_bp), arrival_price=D(50_000))
        self.journal.append(OrderIntended(at, order))
        price = D(50_000) * (1 + side.sign * D(slippage_bp) / 10_000)
        for part in range(parts):
            fill = make_fill(order, venue_trade_id=f"{self.orders}-{part}", quantity=order.quantity / parts, price=price, at=at)
            self.journal.append(Filled(at, fill, part == parts - 1))

    def facts(self, kind: type) -> list[Fact]:
        return [fact for _, fact in self.journal.facts() if isinstance(fact, kind)]

    def halted(self, asset_class: AssetClass = SPOT) -> bool:
        return self.switch.state(asset_class) is TradingState.HALTED


def policy() -> KillSwitchPolicy:
    return shipped_policies().kill_switch


def desk_on(
    journal: Journal, halt_file: Path | None = None, rules: KillSwitchPolicy | None = None, *, reacting: bool = True,
) -> Desk:
    equities: dict[AssetClass, Decimal | None] = dict.fromkeys(AssetClass)
    switch = KillSwitch(journal=journal, policy=rules or policy(), equity=lambda asset_class: equities[asset_class], halt_file=halt_file)
    journal.project(switch.apply)
    if reacting:
        journal.react(switch.on_fact)
    return Desk(journal, switch, equities)


@pytest.fixture
def desk() -> Desk:
    """SPOT and PERP opened with 10,000 each at noon."""
    made = desk_on(Journal(None))
    for asset_class in (SPOT, PERP):
        made.journal.append(InstrumentListed(AT, make_instrument(asset_class)))
        made.transfer("10000", "0", AT, asset_class)
    return made


def replayed(desk: Desk) -> KillSwitch:
    """A second kill switch that knows only what is in the journal."""
    again = KillSwitch(journal=desk.journal, policy=policy(), equity=lambda _: None)
    for _, fact in desk.journal.facts():
        again.apply(fact)
    return again


# -- drawdown ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("equity", "halted"), [("9501.00", False), ("9500.00", False), ("9499.99", True), ("9499.00", True)])
def test_a_day_may_lose_five_percent_but_not_a_cent_more(desk: Desk, equity: str, halted: bool) -> None:
    desk.mark(equity, AT + MINUTE)
    assert desk.halted() is halted


def test_a_drawdown_of_4_99_and_5_00_percent_does_not_trip_and_5_01_does(desk: Desk) -> None:
    desk.mark("9501", AT + 1)
    desk.mark("9500", AT + 2)
    assert desk.switch.drawdown(SPOT, "day") == D("0.05")
    assert not desk.halted()
    desk.mark("9499", AT + 3)
    halt = desk.switch.halts()[0]
    assert (halt.trigger, halt.scope, halt.measured, halt.limit) == (Trigger.DAILY_DRAWDOWN, Scope.SPOT, "5.0100 %", "5.0000 %")
    assert halt.until == MIDNIGHT + DAY_MS


@given(start=st.integers(100, 10**9), peak=st.integers(1, 300))
@settings(max_examples=100, deadline=None)
def test_exactly_five_percent_never_trips_however_the_division_comes_out(start: int, peak: int) -> None:
    desk = desk_on(Journal(None))
    desk.transfer(str(D(start) / 100), "0", AT)
    high = D(start + start * peak // 101) / 100
    desk.mark(str(high), AT + 1)
    desk.mark(str(high * D("0.95")), AT + 2)
    assert not desk.halted()
    desk.mark(str(high * D("0.9499")), AT + 3)
    assert desk.halted()


def test_the_daily_drawdown_is_measured_from_the_days_highest_mark(desk: Desk) -> None:
    desk.mark("11000", AT + 1)
    desk.mark("10450", AT + 2)
    assert not desk.halted()
    desk.mark("10449", AT + 3)
    assert desk.halted()
    assert desk.switch.day_peak(SPOT) == D(11_000)


def test_a_halt_of_one_class_leaves_the_others_alone(desk: Desk) -> None:
    desk.mark("9000", AT + 1)
    assert desk.halted(SPOT)
    assert not desk.halted(PERP)
    assert "daily_drawdown 10.0000 % (limit 5.0000 %) until 2026-01-06 00:00 UTC" in desk.switch.halted_by(SPOT)
    assert desk.switch.halted_by(PERP) == ""


def test_every_new_peak_is_a_fact_and_an_old_one_is_not(desk: Desk) -> None:
    for equity in ("10100", "10050", "10100", "10200"):
        desk.mark(equity, AT + 1)
    assert [fact.nav for fact in desk.facts(PeakRaised) if isinstance(fact, PeakRaised)] == [D("1.01"), D("1.02")]


def test_the_day_rolls_at_utc_midnight_and_the_daily_halt_with_it(desk: Desk) -> None:
    desk.mark("9400", AT + 1)
    desk.switch.tick(MIDNIGHT + DAY_MS - 1)
    assert desk.halted()
    desk.switch.tick(MIDNIGHT + DAY_MS)
    assert not desk.halted()
    assert desk.switch.drawdown(SPOT, "day") == 0
    assert desk.switch.drawdown(SPOT, "month") == D("0.06")
    (rearmed,) = desk.facts(TradingRearmed)
    assert isinstance(rearmed, TradingRearmed)
    assert (rearmed.trigger, rearmed.by) == (Trigger.DAILY_DRAWDOWN, "kill_switch")


def test_the_daily_halt_stays_past_midnight_until_a_sane_mark_rolls_the_baseline(desk: Desk) -> None:
    desk.mark("9400", AT + 1)
    desk.equities[SPOT] = None
    desk.switch.tick(MIDNIGHT + DAY_MS + HOUR)
    assert desk.halted()
    desk.equities[SPOT] = D("9400")
    desk.switch.tick(MIDNIGHT + DAY_MS + 2 * HOUR)
    assert not desk.halted()


def test_a_month_may_lose_fifteen_percent_over_many_days_and_only_an_operator_ends_that_halt(desk: Desk) -> None:
    for day, equity in enumerate(("9600", "9200", "8800", "8500"), start=1):
        desk.mark(equity, MIDNIGHT + day * DAY_MS)
        assert not desk.halted(), equity
    desk.mark("8499", MIDNIGHT + 4 * DAY_MS + HOUR)
    assert [(h.trigger, h.until) for h in desk.switch.halts()] == [(Trigger.MONTHLY_DRAWDOWN, None)]
    desk.switch.tick(utc(2026, 2, 1, 1))
    desk.switch.tick(utc(2026, 3, 1, 1))
    assert desk.halted(), "a new month rolls the baseline but does not re-arm"
    desk.switch.rearm(Scope.SPOT, at=utc(2026, 3, 1, 2), by="telegram:anna", reason="reviewed the month")
    assert not desk.halted()


def test_both_drawdowns_may_hold_one_class_and_it_trades_again_when_the_last_is_cleared(desk: Desk) -> None:
    desk.mark("8000", AT + 1)
    assert {h.trigger for h in desk.switch.halts()} == {Trigger.DAILY_DRAWDOWN, Trigger.MONTHLY_DRAWDOWN}
    desk.switch.tick(MIDNIGHT + DAY_MS)
    assert {h.trigger for h in desk.switch.halts()} == {Trigger.MONTHLY_DRAWDOWN}
    assert desk.halted()


def test_an_operators_rearm_starts_the_drawdown_again_from_the_present_value(desk: Desk) -> None:
    desk.mark("9400", AT + 1)
    cleared = desk.switch.rearm(Scope.SPOT, at=AT + 2, by="cli:anna", reason="one bad fill, explained")
    assert [h.trigger for h in cleared] == [Trigger.DAILY_DRAWDOWN]
    assert not desk.halted()
    (rolled,) = desk.facts(BaselineRolled)
    assert isinstance(rolled, BaselineRolled)
    assert (rolled.period, rolled.nav, rolled.reason) == ("day", D("0.94"), "re-armed by cli:anna: one bad fill, explained")
    desk.mark("8930", AT + 3)
    assert not desk.halted(), "8930 is exactly 5 % under 9400"
    desk.mark("8929", AT + 4)
    assert desk.halted()


def test_rearming_on_the_first_of_a_month_before_its_first_mark_does_not_lose_the_months_baseline(desk: Desk) -> None:
    desk.mark("9400", utc(2026, 1, 31, 23))
    desk.switch.mark(SPOT, D("9300"), utc(2026, 1, 31, 23, 30))
    desk.journal.append(TradingHalted(utc(2026, 1, 31, 23, 40), Scope.SPOT, Trigger.DAILY_DRAWDOWN, "", "", utc(2026, 2, 5), "kept longer"))
    desk.switch.rearm(Scope.SPOT, at=utc(2026, 2, 1, 0, 1), by="cli:anna", reason="tested")
    desk.mark("9300", utc(2026, 2, 1, 0, 2))
    assert desk.switch.drawdown(SPOT, "month") == 0


@pytest.mark.parametrize(("by", "reason"), [("anna", "  "), ("", "because")])
def test_rearming_without_a_reason_or_a_name_is_refused(desk: Desk, by: str, reason: str) -> None:
    desk.mark("9400", AT + 1)
    with pytest.raises(OperatorRefused, match="a name and a reason"):
        desk.switch.rearm(Scope.SPOT, at=AT + 2, by=by, reason=reason)
    assert desk.halted()


def test_rearming_a_drawdown_without_a_present_value_is_refused(desk: Desk) -> None:
    desk.mark("9400", AT + 1)
    desk.equities[SPOT] = None
    with pytest.raises(OperatorRefused, match="present value is unknown"):
        desk.switch.rearm(Scope.SPOT, at=AT + 2, by="anna", reason="because")
    assert desk.halted()


def test_rearming_a_class_that_only_all_halts_is_refused_and_says_so(desk: Desk) -> None:
    desk.switch.halt(Scope.ALL, Trigger.MANUAL, at=AT, reason="holiday")
    with pytest.raises(OperatorRefused, match="re-arm ALL"):
        desk.switch.rearm(Scope.SPOT, at=AT + 2, by="anna", reason="because")


# -- transfers --------------------------------------------------------------------------------------------------------


def test_a_deposit_is_no_profit_and_does_not_hide_a_loss(desk: Desk) -> None:
    desk.mark("9600", AT + 1)
    desk.transfer("100000", "9600", AT + 2)
    desk.mark("109600", AT + 3)
    assert desk.switch.nav(SPOT) == D("0.96")
    assert desk.switch.drawdown(SPOT, "day") == D("0.04")
    assert not desk.facts(PeakRaised)
    desk.mark("108000", AT + 4)
    assert desk.halted(), "another 1.46 % of the larger sum makes 5.4 %"


def test_a_withdrawal_is_no_drawdown(desk: Desk) -> None:
    desk.transfer("-9000", "10000", AT + 1)
    desk.mark("1000", AT + 2)
    assert not desk.halted()
    assert desk.switch.day_peak(SPOT) == D(1_000)
    desk.mark("949", AT + 3)
    assert desk.halted()


def test_everything_withdrawn_and_paid_in_again_continues_at_the_old_unit_value(desk: Desk) -> None:
    desk.mark("9700", AT + 1)
    desk.transfer("-9700", "9700", AT + 2)
    desk.switch.tick(AT + 3)
    desk.transfer("500", "0", AT + 4)
    desk.mark("500", AT + 5)
    assert desk.switch.nav(SPOT) == D("0.97")
    assert not desk.halted()


def test_a_difference_counts_as_result_unless_it_says_transfer(desk: Desk) -> None:
    desk.journal.append(BalanceAdjusted(AT + 1, SPOT, "USDT", D(-4000), "transfer found in the history", D(10_000)))
    desk.mark("6000", AT + 2)
    assert not desk.halted()
    desk.journal.append(BalanceAdjusted(AT + 3, SPOT, "USDT", D(-600), "unexplained difference"))
    desk.mark("5400", AT + 4)
    assert desk.halted()


MOVES = st.lists(st.tuples(st.booleans(), st.integers(-900, 900)), min_size=1, max_size=30)


@given(moves=MOVES)
@settings(max_examples=100, deadline=None)
def test_transfers_never_change_the_value_of_a_unit(moves: list[tuple[bool, int]]) -> None:
    """Against a twin account that sees the same returns and no transfers."""
    desk = desk_on(Journal(None))
    desk.transfer("10000", "0", AT)
    equity, nav, at = D(10_000), D(1), AT
    for is_transfer, size in moves:
        at += SECOND
        if is_transfer:
            amount = equity * D(size) / 1000
            desk.transfer(str(amount), str(equity), at)
            equity += amount
        else:
            equity *= 1 + D(size) / 100_000
            nav *= 1 + D(size) / 100_000
        desk.mark(str(equity), at)
        marked = desk.switch.nav(SPOT)
        assert marked is not None
        assert abs(marked - nav) <= D("1e-15")
    assert replayed(desk).state_hash() == desk.switch.state_hash()


# -- insane marks, clocks, restarts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wild", ["10000000", "10", "0", "-5", "NaN", "Infinity"])
def test_one_wild_tick_neither_moves_a_baseline_nor_trips(desk: Desk, wild: str) -> None:
    desk.mark(wild, AT + 1)
    assert not desk.halted()
    assert desk.switch.disbelieved(SPOT) == 1
    desk.mark("9700", AT + 2)
    assert desk.switch.drawdown(SPOT, "day") == D("0.03")
    assert desk.switch.disbelieved(SPOT) == 0
    assert not desk.facts(PeakRaised)


def test_a_crash_that_a_second_source_confirms_is_believed(desk: Desk) -> None:
    desk.switch.mark(SPOT, D(500), AT + 1)
    assert not desk.halted()
    desk.switch.mark(SPOT, D(500), AT + 2, confirmed=True)
    assert desk.halted()


def test_a_missing_price_is_no_mark(desk: Desk) -> None:
    desk.mark("10300", AT + 1)
    desk.switch.mark(SPOT, None, MIDNIGHT + DAY_MS)
    assert desk.switch.day_peak(SPOT) == D(10_300)
    assert not desk.facts(BaselineRolled)


def test_a_clock_that_jumps_back_moves_no_baseline_but_the_limit_holds(desk: Desk) -> None:
    desk.mark("10200", MIDNIGHT + DAY_MS)
    before = desk.switch.state_hash()
    for at in (AT, MIDNIGHT - 40 * DAY_MS, 1_000):
        desk.mark("10300", at)
        desk.mark("10100", at)
    assert desk.switch.state_hash() == before
    desk.mark("9600", AT)
    assert desk.halted()
    desk.switch.tick(AT + 1)
    desk.switch.tick(MIDNIGHT + DAY_MS + HOUR)
    assert desk.halted(), "the day it tripped on is not over"


def test_a_rearm_under_a_clock_that_jumped_back_does_not_bring_yesterday_back(desk: Desk) -> None:
    desk.mark("10000", MIDNIGHT + DAY_MS)
    desk.mark("9400", MIDNIGHT + DAY_MS + 1)
    desk.switch.rearm(Scope.SPOT, at=AT, by="anna", reason="looked at it")
    desk.mark("9300", MIDNIGHT + DAY_MS + 2)
    assert desk.switch.day_peak(SPOT) == D(9_400), "the same day goes on from the value at the re-arm"


def test_a_daylight_saving_change_is_no_new_day(desk: Desk) -> None:
    desk.mark("10500", utc(2026, 3, 29, 0, 30))
    rolled = len(desk.facts(BaselineRolled))
    for hour in (1, 2, 3, 23):
        desk.mark("10400", utc(2026, 3, 29, hour))
    assert len(desk.facts(BaselineRolled)) == rolled
    assert desk.switch.day_peak(SPOT) == D(10_500)


def test_halts_peaks_and_slippage_survive_a_restart(tmp_path: Path) -> None:
    first = desk_on(Journal(tmp_path / "journal.sqlite"))
    first.transfer("10000", "0", AT)
    first.transfer("5000", "0", AT, PERP)
    first.mark("10400", AT + 1)
    first.execute("80", AT + 2, asset_class=PERP)
    first.execute("80", AT + 3, asset_class=PERP)
    first.mark("9800", AT + 4)
    first.switch.halt(Scope.FOREX, Trigger.MANUAL, at=AT + 5, reason="holiday")
    before, told = first.switch.state_hash(), [first.switch.halted_by(c) for c in AssetClass]
    first.journal.close()

    second = desk_on(Journal(tmp_path / "journal.sqlite"))
    second.journal.replay()
    second.journal.append(DaemonStarted(AT + HOUR, "paper", "1", ""))
    assert second.switch.state_hash() == before
    assert [second.switch.halted_by(c) for c in AssetClass] == told
    assert second.halted(SPOT)
    assert not second.halted(PERP)
    assert second.switch.day_peak(SPOT) == D(10_400)
    second.orders = first.orders
    second.execute("80", AT + HOUR, asset_class=PERP)
    assert second.halted(PERP), "the third within 24 h, two of them before the restart"
    second.journal.close()


def test_a_crash_between_the_third_slip_and_its_halt_is_made_good_at_the_next_start() -> None:
    cut_off = desk_on(Journal(None), reacting=False)  # as if the process had died before its reactors ran
    for hour in range(3):
        cut_off.execute("90", AT + hour * HOUR)
    assert not cut_off.halted()
    cut_off.journal.react(cut_off.switch.on_fact)
    cut_off.journal.append(DaemonStarted(AT + 4 * HOUR, "paper", "1", ""))
    assert cut_off.halted()


# -- slippage ---------------------------------------------------------------------------------------------------------


def test_three_catastrophic_fills_in_24_hours_trip_and_two_do_not(desk: Desk) -> None:
    desk.execute("51", AT)
    desk.execute("51", AT + HOUR, side=Side.SELL)
    assert not desk.halted()
    desk.execute("51", AT + DAY_MS - 1)
    assert desk.halted()
    assert desk.switch.halts()[0].measured == "3 catastrophic fills in 24 h"


def test_a_catastrophe_24_hours_ago_no_longer_counts(desk: Desk) -> None:
    for at in (AT, AT + HOUR, AT + DAY_MS):
        desk.execute("60", at)
    assert not desk.halted()


@pytest.mark.parametrize(("asset_class", "bp", "model", "counts"), [
    (SPOT, "50", "2", False), (SPOT, "50.1", "2", True), (SPOT, "60", "12", False), (SPOT, "60.1", "12", True),
    (AssetClass.FOREX, "10.1", "0.2", True), (AssetClass.FOREX, "10", "0.2", False),
    (AssetClass.OPTION, "500", "50", False), (AssetClass.OPTION, "501", "50", True), (SPOT, "-400", "2", False),
])
def test_an_event_is_above_the_larger_of_five_times_the_model_and_the_class_floor(
    desk: Desk, asset_class: AssetClass, bp: str, model: str, counts: bool,
) -> None:
    for minute in range(3):
        desk.execute(bp, AT + minute * MINUTE, asset_class=asset_class, model_bp=model)
    assert desk.halted(asset_class) is counts


def test_partial_fills_of_one_order_are_one_event(desk: Desk) -> None:
    desk.execute("90", AT, parts=5)
    desk.execute("90", AT + 1, parts=5)
    assert not desk.halted()


@pytest.mark.parametrize(("part", "halted"), [("0.1", False), ("0.3", True)])
def test_an_order_is_judged_by_its_quantity_weighted_price(desk: Desk, part: str, halted: bool) -> None:
    """A tenth at 200 bp and the rest at 10 bp is 29 bp: bad luck, no catastrophe. Three tenths make 67 bp."""
    for index in range(3):
        order = replace(make_order(quantity=D(1)), client_order_id=f"o{index}")
        desk.journal.append(OrderIntended(AT, order))
        desk.journal.append(Filled(AT, make_fill(order, venue_trade_id=f"{index}a", quantity=D(part), price=D(51_000)), False))
        desk.journal.append(Filled(AT, make_fill(order, venue_trade_id=f"{index}b", quantity=1 - D(part), price=D(50_050)), True))
    assert desk.halted() is halted


def test_the_slippage_halt_ends_when_the_window_has_emptied(desk: Desk) -> None:
    for hour in range(3):
        desk.execute("70", AT + hour * HOUR)
    desk.switch.tick(AT + DAY_MS + HOUR)
    assert desk.halted(), "one is still in the window"
    desk.switch.tick(AT + DAY_MS + 2 * HOUR)
    assert not desk.halted()


def test_an_operators_rearm_after_slippage_starts_the_count_again(desk: Desk) -> None:
    for hour in range(3):
        desk.execute("70", AT + hour * HOUR)
    desk.switch.rearm(Scope.ALL, at=AT + 3 * HOUR, by="anna", reason="venue had an outage")
    desk.execute("70", AT + 4 * HOUR)
    assert not desk.halted()


# -- venues -----------------------------------------------------------------------------------------------------------


def fail(desk: Desk, times: int, at: int, step: int = SECOND, kind: str = "error") -> None:
    for index in range(times):
        desk.switch.on_call("paper", at + index * step, False, kind, "HTTP 500")


def test_five_consecutive_failures_halt_every_class_of_the_venue_and_a_good_call_breaks_the_row(desk: Desk) -> None:
    fail(desk, 4, AT)
    desk.switch.on_call("paper", AT + 5 * SECOND, True, "", "")
    fail(desk, 4, AT + 6 * SECOND)
    assert not desk.halted()
    desk.switch.on_call("paper", AT + 11 * SECOND, False, "error", "HTTP 500")
    assert desk.halted(SPOT)
    assert desk.halted(PERP)
    assert not desk.halted(AssetClass.FOREX), "nothing of FOREX trades there"


def test_a_failing_venue_rearms_after_three_good_probes_over_sixty_seconds(desk: Desk) -> None:
    fail(desk, 5, AT)
    for second in (10, 20, 30, 69):
        desk.switch.on_call("paper", AT + second * SECOND, True, "", "")
        desk.switch.tick(AT + second * SECOND)
        assert desk.halted()
    desk.switch.on_call("paper", AT + 70 * SECOND, True, "", "")
    desk.switch.tick(AT + 70 * SECOND)
    assert not desk.halted()


def test_a_failure_among_the_probes_starts_them_again(desk: Desk) -> None:
    fail(desk, 5, AT)
    for second in (10, 40):
        desk.switch.on_call("paper", AT + second * SECOND, True, "", "")
    fail(desk, 1, AT + 50 * SECOND)
    desk.switch.on_call("paper", AT + 80 * SECOND, True, "", "")
    desk.switch.tick(AT + 80 * SECOND)
    assert desk.halted()


def test_ten_errors_within_five_minutes_trip_though_good_calls_lie_between(desk: Desk) -> None:
    for index in range(10):
        assert not desk.halted()
        desk.switch.on_call("paper", AT + index * 33 * SECOND, True, "", "")
        fail(desk, 1, AT + index * 33 * SECOND)
    assert desk.halted()


def test_more_than_a_fifth_of_fifty_calls_failing_trips() -> None:
    desk = desk_on(Journal(None), rules=policy().model_copy(update={"api_errors_max": 1000}))
    desk.journal.append(InstrumentListed(AT, make_instrument()))
    for index in range(50):
        desk.switch.on_call("paper", AT + index * SECOND, index % 5 != 4, "error", "HTTP 500")
    assert not desk.halted(), "10 of 50 is exactly a fifth"
    desk.switch.on_call("paper", AT + 50 * SECOND, False, "error", "HTTP 500")
    assert desk.halted()
    assert desk.switch.halts()[0].measured == "11 of 51 calls failed in 600 s"


def test_an_authentication_error_halts_at_once_and_only_an_operator_ends_it(desk: Desk) -> None:
    desk.switch.on_call("paper", AT, False, "authentication", "key revoked")
    assert desk.halted()
    for second in range(10, 300, 10):
        desk.switch.on_call("paper", AT + second * SECOND, True, "", "")
        desk.switch.tick(AT + second * SECOND)
    desk.switch.tick(AT + 40 * DAY_MS)
    assert desk.halted()
    assert replayed(desk).halted_by(SPOT) == desk.switch.halted_by(SPOT)
    desk.switch.rearm(Scope.ALL, at=AT + 41 * DAY_MS, by="anna", reason="new key")
    assert not desk.halted()
    desk.journal.append(DaemonStarted(AT + 42 * DAY_MS, "paper", "1", ""))
    assert not desk.halted(), "what an operator cleared does not come back by itself"


def test_a_ban_halts_until_its_end_and_a_longer_one_extends_it(desk: Desk) -> None:
    desk.switch.on_call("paper", AT, False, "rate_limit", "418", AT + 2 * MINUTE)
    desk.switch.on_call("paper", AT + MINUTE, False, "rate_limit", "418", AT + 5 * MINUTE)
    desk.switch.tick(AT + 3 * MINUTE)
    assert desk.halted()
    desk.switch.tick(AT + 5 * MINUTE)
    assert not desk.halted()


def test_faults_of_a_venue_nobody_knows_halt_everything() -> None:
    desk = desk_on(Journal(None))
    desk.switch.on_call("mystery", AT, False, "authentication", "denied")
    assert all(desk.halted(asset_class) for asset_class in AssetClass)


def test_two_failing_venues_hold_one_class_until_both_answer(desk: Desk) -> None:
    desk.journal.append(InstrumentListed(AT, make_instrument(venue="second", symbol="ETH/USDT")))
    for venue in ("paper", "second"):
        for index in range(5):
            desk.switch.on_call(venue, AT + index, False, "error", "HTTP 500")
    for second in (10, 40, 71):
        desk.switch.on_call("paper", AT + second * SECOND, True, "", "")
    desk.switch.tick(AT + 72 * SECOND)
    assert [h.venue for h in desk.switch.halts()] == ["second"]
    assert desk.halted(SPOT)
    assert not desk.halted(PERP)


def test_an_error_is_journaled_with_a_bounded_message(desk: Desk) -> None:
    desk.switch.on_call("paper", AT, False, "error", "x" * 100_000)
    (seen,) = desk.facts(ApiErrorSeen)
    assert isinstance(seen, ApiErrorSeen)
    assert len(seen.message) == 300
    assert seen.consecutive == 1


def test_a_fourth_order_in_doubt_trips_and_resolution_with_probes_rearms(desk: Desk) -> None:
    for index in range(4):
        assert not desk.halted()
        order = replace(make_order(), client_order_id=f"d{index}")
        desk.journal.append(OrderIntended(AT, order))
        desk.journal.append(OrderInDoubt(AT + index, order.client_order_id, "time-out"))
    assert desk.halted()
    for second in (10, 40, 71):
        desk.switch.on_call("paper", AT + second * SECOND, True, "", "")
    desk.switch.tick(AT + 72 * SECOND)
    assert desk.halted(), "still four in doubt"
    desk.journal.append(OrderAccepted(AT + 73 * SECOND, "d0", "v0"))
    desk.switch.tick(AT + 74 * SECOND)
    assert not desk.halted()


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_all_covers_every_class_and_time_does_not_end_a_manual_halt(desk: Desk) -> None:
    assert desk.switch.halt(Scope.ALL, Trigger.MANUAL, at=AT, until=AT + 1, reason="/halt by telegram:anna")
    assert not desk.switch.halt(Scope.ALL, Trigger.MANUAL, at=AT + 1, reason="again")
    desk.switch.tick(AT + 90 * DAY_MS)
    assert all(desk.halted(asset_class) for asset_class in AssetClass)
    assert len(desk.facts(TradingHalted)) == 1


def test_rearming_all_clears_every_latch_of_every_class(desk: Desk) -> None:
    desk.switch.halt(Scope.ALL, Trigger.MANUAL, at=AT)
    desk.switch.halt(Scope.FOREX, Trigger.RUNAWAY, at=AT, measured="11 orders a minute", limit="10")
    desk.mark("9000", AT + 1)
    desk.switch.rearm(Scope.ALL, at=AT + 2, by="anna", reason="checked everything")
    assert not any(desk.halted(asset_class) for asset_class in AssetClass)
    assert len(desk.facts(TradingRearmed)) == 3


def test_the_halt_file_halts_everything_and_removing_it_does_not_rearm(tmp_path: Path) -> None:
    file = tmp_path / "HALT"
    desk = desk_on(Journal(None), halt_file=file)
    desk.switch.tick(AT)
    assert not desk.halted()
    file.touch()
    desk.switch.tick(AT + 1)
    assert all(desk.halted(asset_class) for asset_class in AssetClass)
    with pytest.raises(OperatorRefused, match="remove the file"):
        desk.switch.rearm(Scope.ALL, at=AT + 2, by="anna", reason="forgot the file")
    file.unlink()
    desk.switch.tick(AT + 3)
    assert desk.halted()
    assert len(desk.facts(TradingHalted)) == 1
    desk.switch.rearm(Scope.ALL, at=AT + 4, by="anna", reason="file removed")
    assert not desk.halted()


def test_a_halt_file_found_at_start_holds_from_the_first_moment_whatever_the_journal_says(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    first = desk_on(journal)
    first.switch.halt(Scope.ALL, Trigger.MANUAL, at=AT)
    first.switch.rearm(Scope.ALL, at=AT + 1, by="anna", reason="drill")
    journal.close()
    (tmp_path / "HALT").touch()
    again = desk_on(Journal(tmp_path / "journal.sqlite"), halt_file=tmp_path / "HALT")
    assert again.halted()
    again.journal.replay()
    assert again.halted()
    (tmp_path / "HALT").unlink()
    again.switch.tick(AT + 2)
    assert again.halted()
    assert len(again.facts(TradingHalted)) == 2
    again.journal.close()


class FullDisk(Journal):
    """A journal on a disk that can be full."""

    full = False

    def append(self, fact: Fact) -> int:
        if self.full:
            raise JournalUnwritable("disk full")
        return super().append(fact)


def test_a_halt_works_on_a_full_disk_and_is_put_on_record_when_there_is_room(tmp_path: Path) -> None:
    journal = FullDisk(None)
    desk = desk_on(journal, halt_file=tmp_path / "HALT")
    desk.transfer("10000", "0", AT)
    journal.full = True
    (tmp_path / "HALT").touch()
    desk.switch.tick(AT + 1)
    assert desk.halted()
    desk.mark("9000", AT + 2)
    assert {h.trigger for h in desk.switch.halts()} == {Trigger.MANUAL, Trigger.DAILY_DRAWDOWN}
    assert not desk.facts(TradingHalted)
    with pytest.raises(JournalUnwritable):
        (tmp_path / "HALT").unlink()
        desk.switch.rearm(Scope.ALL, at=AT + 3, by="anna", reason="too early")
    assert desk.halted()
    journal.full = False
    desk.switch.tick(AT + 4)
    assert len(desk.facts(TradingHalted)) == 2
    assert replayed(desk).halted_by(SPOT) != ""


# -- cost -------------------------------------------------------------------------------------------------------------


def best_us(work: Callable[[], object], repeats: int = 2_000, rounds: int = 5) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = process_time()
        for _ in range(repeats):
            work()
        best = min(best, (process_time() - start) / repeats * 1e6)
    return best


def test_a_mark_that_changes_nothing_costs_next_to_nothing(desk: Desk) -> None:
    equity = D("10000")
    desk.switch.mark(SPOT, equity, AT + 1)
    assert best_us(lambda: desk.switch.mark(SPOT, equity, AT + 2)) <= within(2.0)


@given(
    st.tuples(*[st.decimals("0.000001", "1000000", places=18)] * 3),
    st.decimals("0.001", "0.5", places=4), st.decimals("0.001", "0.5", places=4),
    st.sampled_from([D(0), D("1e-18"), D("-1e-18"), D("1e-12"), D("-1e-12"), D("-1e-11")]),
)
@settings(max_examples=300)
def test_what_needs_no_division_to_be_within_the_limits_is_within_them(
    values: tuple[D, D, D], day: D, month: D, off: D,
) -> None:
    value = UnitValue(units=D(1), day_peak=values[0], month_peak=values[1])
    border = max(values[0] * (1 - day), values[1] * (1 - month)).quantize(D("1e-18"))
    for nav in (values[2], border, border + off):
        exact = value.drawdown(DAY, nav) <= day and value.drawdown(MONTH, nav) <= month
        assert exact or not value.within(nav, day, month)
        clearly = value.drawdown(DAY, nav) < day and value.drawdown(MONTH, nav) < month
        assert value.within(nav, day, month) or not clearly
    value.day_peak = 2 * values[0]
    assert value.within(border, day, month) == (border >= max(2 * values[0] * (1 - day), values[1] * (1 - month)))
