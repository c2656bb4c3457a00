"""Several days of the whole daemon, in seconds: the same run twice, the books rebuilt from the journal, nothing lost, nothing foreseen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

import main
from modules.domain.events import (
    BaselineRolled,
    Fact,
    Filled,
    FundingBooked,
    OrderIntended,
    PositionClosed,
    TradeOpened,
    TransferSeen,
)
from modules.domain.instrument import AssetClass
from modules.news.calendar import Calendar
from modules.store.journal import Journal
from modules.venues.protocol import Step
from tests.builders import shipped_policies
from tests.crash_runner import CASH, HOUR_MS, Life, Market24, live, replayed, strategies, unprotected

ROOT = Path(__file__).resolve().parents[1]
DAY_MS = 24 * HOUR_MS
DAYS = 2


def simulated(folder: Path, source: Market24) -> main.Simulation:
    folder.mkdir(parents=True, exist_ok=True)
    policies = shipped_policies()
    return main.simulate(source, policies=policies, wallets=CASH, calendar=Calendar(source.macro_events, policies.news, {}),
                         strategies=strategies(), folder=folder)


@dataclass
class Days:
    life: Life
    facts: list[Fact]


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Days:
    """Two days of trading in every class, with a deposit and a withdrawal."""
    life = live(tmp_path_factory.mktemp("days"), Market24(DAYS * 24))
    return Days(life, [fact for _, fact in life.journal.facts()])


def test_two_days_are_lived_with_every_class_at_work(days: Days) -> None:
    opened = {fact.asset_class for fact in days.facts if isinstance(fact, TradeOpened)}
    assert opened == set(AssetClass)
    assert {type(fact) for fact in days.facts} >= {FundingBooked, BaselineRolled, PositionClosed, TransferSeen}
    assert days.life.daemon.market.bars_seen(AssetClass.SPOT) > DAYS * 288 * 5
    assert days.life.daemon.strategies.quarantined == []


def test_books_and_venue_agree_to_the_last_unit(days: Days) -> None:
    assert days.life.differences == 0 and days.life.daemon.wallets.reconciled == {"demo": True}
    for asset_class, wallet in days.life.venue.books.items():
        assert days.life.daemon.portfolio.wallet_cash(asset_class) == wallet.cash
    assert {seen.fill for seen in days.life.venue._desk.fills} == {fact.fill for fact in days.facts if isinstance(fact, Filled)}
    assert not any(type(fact).__name__ in ("BalanceAdjusted", "ForeignFill", "OrderInDoubt") for fact in days.facts)


def test_money_is_conserved_in_every_class(days: Days) -> None:
    """Cash + what is held at cost = what came in + net of closed trades + fees and funding of open ones: recomputed from the facts."""
    portfolio = days.life.daemon.portfolio
    for asset_class in AssetClass:
        ledger = portfolio.ledger(asset_class)
        moved = sum((fact.amount for fact in days.facts if isinstance(fact, TransferSeen) and fact.asset_class is asset_class), Decimal(0))
        assert ledger.transfers == moved and ledger.net == ledger.gross - ledger.fees + ledger.funding
        paid = sum((fact.amount for fact in days.facts if isinstance(fact, FundingBooked) and fact.asset_class is asset_class), Decimal(0))
        assert ledger.funding == paid
        closed = [fact.trade for fact in days.facts if isinstance(fact, PositionClosed) and fact.trade.asset_class is asset_class]
        assert len(closed) == ledger.trades and all(trade.net == trade.gross - trade.fees + trade.funding for trade in closed)


def test_a_replay_of_the_journal_rebuilds_the_identical_state(days: Days) -> None:
    assert replayed(days.life) == []


def test_a_replay_of_every_part_of_the_journal_is_a_state_of_its_own(days: Days) -> None:
    """Facts are the whole state: what a prefix rebuilds is what the daemon was at that row, whether it was seen row by row or at once."""
    count = days.life.journal.count
    again = Journal(None)
    plan = days.life.daemon.plan
    daemon = main.Daemon(main.Plan(**{
        **{name: getattr(plan, name) for name in plan.__dataclass_fields__}, "journal": again, "observers": (), "after_batch": ()}))
    daemon.market.list_instruments([s.instrument for s in days.life.daemon.market.series.values()], days.life.venue.interval_ms)
    again._reactors.clear()
    for number, fact in enumerate(days.facts, 1):
        again.append(fact)
        if number in (count // 3, count):
            assert main.resume_at(again) == max(one.at for one in days.facts[:number])
    assert daemon.portfolio.state_hash() == days.life.daemon.portfolio.state_hash()
    assert daemon.kill_switch.state_hash() == days.life.daemon.kill_switch.state_hash()
    assert again.head == days.life.journal.head, "the same facts make the same chain"


def test_every_open_position_has_its_stop_and_no_closed_trade_left_an_order(days: Days) -> None:
    assert unprotected(days.life) == []
    trades = set(days.life.daemon.executor.trades)
    assert {record.order.trade_id for record in days.life.daemon.executor.orders.values()} <= trades


def test_no_order_id_and_no_fill_appears_twice(days: Days) -> None:
    intended = [fact.order.client_order_id for fact in days.facts if isinstance(fact, OrderIntended)]
    fills = [(fact.fill.venue, fact.fill.symbol, fact.fill.venue_trade_id) for fact in days.facts if isinstance(fact, Filled)]
    assert len(set(intended)) == len(intended) > 500 and len(set(fills)) == len(fills) > 300


def test_a_new_day_rolls_every_classs_baseline_at_utc_midnight(days: Days) -> None:
    rolled = [fact for fact in days.facts if isinstance(fact, BaselineRolled) and fact.period == "day"]
    start = Market24(1).start
    for asset_class in AssetClass:
        assert [(fact.at - start) // DAY_MS for fact in rolled if fact.asset_class is asset_class] == [1, 2]


# -- the same run twice -------------------------------------------------------------------------------------------------------


TRACE = """
import sys
from pathlib import Path
from tests.test_day_in_the_life import simulated
from tests.crash_runner import Market24
run = simulated(Path(sys.argv[1]), Market24(6, 5))
print(run.daemon.journal.head, run.daemon.journal.count, run.differences, run.daemon.portfolio.state_hash())
"""


def test_the_same_seed_in_two_processes_is_the_same_journal_and_another_seed_another(tmp_path: Path) -> None:
    """With other hash seeds and time zones: neither sets nor the machine's clock may leak into a run."""
    outcomes = []
    for hashes, zone in (("1", "UTC"), ("77", "Asia/Tokyo")):
        done = subprocess.run([sys.executable, "-c", TRACE, str(tmp_path / hashes)], cwd=ROOT, capture_output=True, text=True, timeout=600,
                              env={**os.environ, "PYTHONHASHSEED": hashes, "TZ": zone}, check=True)
        outcomes.append(done.stdout.split())
    assert outcomes[0] == outcomes[1] and int(outcomes[0][1]) > 300 and outcomes[0][2] == "0"
    other = simulated(tmp_path / "other", Market24(6, 6))
    assert other.daemon.journal.head != outcomes[0][0] and other.differences == 0


# -- no look-ahead --------------------------------------------------------------------------------------------------------------


def told_by(facts: Iterator[tuple[int, Fact]], until: int) -> list[str]:
    return [repr(fact) for _, fact in facts if fact.at <= until]


def test_a_run_over_the_beginning_is_the_beginning_of_the_run(tmp_path: Path, days: Days) -> None:
    """The whole daemon, every fact: what it did by an hour does not depend on what came after."""
    hours = 13
    part = live(tmp_path, Market24(hours))
    until = Market24(hours).start + hours * HOUR_MS
    assert told_by(part.journal.facts(), until) == told_by(days.life.journal.facts(), until)
    assert part.journal.count > 1_000


class OtherFuture(Market24):
    """The same market until `turn`; from then on every price of a bar is another one."""

    def __init__(self, hours: float, turn_h: float) -> None:
        super().__init__(hours)
        self.turn = self.start + int(turn_h * HOUR_MS)

    def steps(self) -> Iterator[Step]:
        for one in super().steps():
            if one.at > self.turn:
                one = one._replace(bars=[(symbol, bar._replace(
                    open=bar.open * 0.9, high=bar.high * 0.9, low=bar.low * 0.9, close=bar.close * 0.9)) for symbol, bar in one.bars])
            yield one


def test_another_future_does_not_change_what_was_decided_before_it(tmp_path: Path, days: Days) -> None:
    turn_h = 6
    other = live(tmp_path, OtherFuture(8, turn_h))
    turn = other.daemon.plan.clock.now() - 2 * HOUR_MS
    assert turn == Market24(24).start + turn_h * HOUR_MS
    # Orders decided at the turn's close trade at the opening right after it, which is the present and not the future.
    before, whole = told_by(other.journal.facts(), turn + 50), told_by(days.life.journal.facts(), turn + 50)
    assert before == whole and len(before) > 1_000
    assert other.journal.head != days.life.journal.head
