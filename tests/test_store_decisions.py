"""Why it did not trade, kept with the numbers; a file that may be lost and never stops anything."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest

from modules.domain.decision import BoundBy, Check, Decision, Leg, Number, Outcome, Rule, Size
from modules.domain.errors import StoreUnreadable
from modules.domain.instrument import AssetClass, Side
from modules.store.decisions import Decisions

HOUR = 3_600_000
NOON = 1_750_003_200_000


def passed(rule: Rule) -> Check:
    return Check(rule, 1, 2, "x", True)


def failed(rule: Rule, measured: Number, limit: Number) -> Check:
    return Check(rule, measured, limit, "bp", False, note="measured over the last hour")


def decision(
    number: int,
    *failures: Check,
    at: int | None = None,
    symbol: str = "BTC/USDT",
    asset_class: AssetClass = AssetClass.SPOT,
    size: Size | None = None,
) -> Decision:
    return Decision(
        decision_id=f"d{number}", at=NOON + number if at is None else at, strategy="trend", symbol=symbol, asset_class=asset_class,
        side=Side.BUY, score=0.7, confidence=0.61, entry=100.0, stop=97.0, target=None,
        outcome=Outcome.DENIED if failures else Outcome.APPROVED, stopped_by=failures[0].rule if failures else None,
        checks=(passed(Rule.SWITCH_OFF), *failures, passed(Rule.BLACKOUT)), size=size,
        legs=(Leg(symbol, Side.BUY, Decimal("0.5"), Decimal("100.1")),), policy_hash="abc", learning={"weight": 0.5, "why": "12 trades"},
    )  # fmt: skip


SIZE = Size(
    False, 2, Decimal(0), Decimal(0), Decimal(0), Decimal(0), Decimal(1), BoundBy.LOT, "below the minimum",
    (failed(Rule.SIZE_BELOW_MINIMUM, Decimal("9.99"), Decimal(10)),), ((BoundBy.RISK, Decimal("9.99")),),
)  # fmt: skip


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Decisions:
    return Decisions(None if request.param == "memory" else tmp_path / "decisions.sqlite")


def test_a_decision_comes_back_whole_by_its_id_even_before_it_is_on_disk(store: Decisions) -> None:
    whole = decision(1, failed(Rule.SPREAD_ABOVE_MAXIMUM, 12.5, 10.0), size=SIZE)
    store.record(whole)
    assert store.get("d1") == whole
    assert store.get("d2") is None


def test_decisions_survive_a_restart_and_a_bar_decided_again_replaces_the_first(tmp_path: Path) -> None:
    first = Decisions(tmp_path / "decisions.sqlite")
    for number in range(500):
        first.record(decision(number))
    first.count_bars(AssetClass.SPOT, 7, NOON)
    first.close()
    again = Decisions(tmp_path / "decisions.sqlite")
    again.record(decision(3, failed(Rule.BLACKOUT, 5, 30)))
    again.count_bars(AssetClass.SPOT, 2, NOON)
    funnel = again.funnel(NOON, NOON + HOUR)[AssetClass.SPOT]
    assert (funnel.bars, funnel.signals, funnel.approved, funnel.denied) == (9, 500, 499, {Rule.BLACKOUT: 1})
    again.close()


def test_latest_is_newest_first_and_between_is_oldest_first_without_its_end(store: Decisions) -> None:
    for number in range(6):
        store.record(decision(number, symbol="ETH/USDT" if number % 2 else "BTC/USDT"))
    assert [one.decision_id for one in store.latest(limit=3)] == ["d5", "d4", "d3"]
    assert [one.decision_id for one in store.latest("ETH/USDT", limit=2)] == ["d5", "d3"]
    assert store.latest("DOGE/USDT") == []
    assert [one.decision_id for one in store.between(NOON + 1, NOON + 4)] == ["d1", "d2", "d3"]


def test_the_funnel_counts_bars_signals_denials_by_first_rule_and_orders_per_class(store: Decisions) -> None:
    for at in (NOON, NOON + HOUR, NOON + 2 * HOUR):
        store.count_bars(AssetClass.SPOT, 12, at)
    store.count_bars(AssetClass.PERP, 5, NOON)
    store.record(decision(1))
    store.record(decision(2, failed(Rule.SPREAD_ABOVE_MAXIMUM, 12.0, 10.0), failed(Rule.BLACKOUT, 5, 30)))
    store.record(decision(3, failed(Rule.SPREAD_ABOVE_MAXIMUM, 15.0, 10.0)))
    store.record(decision(4, failed(Rule.WALLET_STALE, None, 60.0)))
    store.record(decision(5, failed(Rule.BLACKOUT, 5, 30), asset_class=AssetClass.PERP))
    store.record(decision(6, at=NOON + 2 * HOUR))
    funnels = store.funnel(NOON, NOON + 2 * HOUR)
    spot = funnels[AssetClass.SPOT]
    assert (spot.bars, spot.signals, spot.approved) == (24, 4, 1)
    assert spot.denied == {Rule.SPREAD_ABOVE_MAXIMUM: 2, Rule.WALLET_STALE: 1}
    assert spot.signals == spot.approved + sum(spot.denied.values())
    perp = funnels[AssetClass.PERP]
    assert (perp.bars, perp.signals, perp.approved, perp.denied) == (5, 1, 0, {Rule.BLACKOUT: 1})
    forex = funnels[AssetClass.FOREX]
    assert (forex.bars, forex.signals, forex.approved, forex.denied, forex.nearest_miss) == (0, 0, 0, {}, None)


def test_the_nearest_miss_failed_one_check_only_and_has_both_numbers(store: Decisions) -> None:
    store.record(decision(1, failed(Rule.SPREAD_ABOVE_MAXIMUM, 10.01, 10.0), failed(Rule.BLACKOUT, 5, 30)))  # nearer, but two failed
    store.record(decision(2, failed(Rule.CORRELATED_POSITIONS_ABOVE_MAXIMUM, 4, 3)))
    store.record(decision(3, failed(Rule.SPREAD_ABOVE_MAXIMUM, 10.5, 10.0)))  # the one: 5 % over
    store.record(decision(4, failed(Rule.LIQUIDITY_BELOW_MINIMUM, Decimal(900_000), Decimal(1_000_000))))
    store.record(decision(5, failed(Rule.WALLET_STALE, None, 60.0)))  # no number: never a near miss
    store.record(decision(6, failed(Rule.FUNDING_ABOVE_MAXIMUM, 0.0001, 0)))  # no relative distance to zero
    store.record(decision(7, failed(Rule.CARRY_ABOVE_MAXIMUM, float("nan"), 0.5)))
    miss = store.funnel(NOON, NOON + HOUR)[AssetClass.SPOT].nearest_miss
    assert miss is not None
    assert miss.decision.decision_id == "d3"
    assert (miss.check.measured, miss.check.limit, miss.check.unit) == (10.5, 10.0, "bp")
    assert miss.distance == pytest.approx(0.05)


def test_a_size_just_below_the_minimum_is_a_near_miss_whether_or_not_the_decision_repeats_sizers_check(store: Decisions) -> None:
    store.record(decision(1, SIZE.checks[0], size=SIZE))
    miss = store.funnel(NOON, NOON + HOUR)[AssetClass.SPOT].nearest_miss
    assert miss is not None
    assert miss.check.rule is Rule.SIZE_BELOW_MINIMUM
    assert miss.distance == pytest.approx(0.001)
    store.record(decision(1, failed(Rule.SPREAD_ABOVE_MAXIMUM, 10.0001, 10.0), size=SIZE))  # with the size, two failed
    assert store.funnel(NOON, NOON + HOUR)[AssetClass.SPOT].nearest_miss is None


def test_prune_forgets_what_is_older_and_counts_it(store: Decisions) -> None:
    for number in range(10):
        store.record(decision(number, at=NOON + number * HOUR))
        store.count_bars(AssetClass.SPOT, 1, NOON + number * HOUR)
    assert store.prune(NOON + 4 * HOUR) == 4
    funnel = store.funnel(0, NOON + 100 * HOUR)[AssetClass.SPOT]
    assert (funnel.bars, funnel.signals) == (6, 6)


def test_a_disk_that_takes_nothing_stops_nothing_and_is_made_up_for_later(tmp_path: Path) -> None:
    store = Decisions(tmp_path / "decisions.sqlite")
    other = sqlite3.connect(tmp_path / "decisions.sqlite", isolation_level=None)
    store._database.connection.execute("PRAGMA busy_timeout = 10")
    other.execute("BEGIN IMMEDIATE")
    for number in range(450):
        store.record(decision(number))
    store.count_bars(AssetClass.SPOT, 3, NOON)
    store.flush()
    assert "locked" in store.degraded
    other.execute("ROLLBACK")
    other.close()
    funnel = store.funnel(NOON, NOON + HOUR)[AssetClass.SPOT]
    assert (funnel.bars, funnel.signals, store.dropped) == (3, 450, 0)
    assert store.degraded == ""
    store.close()


def test_when_the_disk_stays_away_the_oldest_go_and_are_counted(tmp_path: Path) -> None:
    store = Decisions(tmp_path / "decisions.sqlite")
    store._database.connection.execute("PRAGMA query_only = ON")
    for number in range(10_500):
        store.record(decision(number))
    store.flush()
    store._database.connection.execute("PRAGMA query_only = OFF")
    assert store.dropped == 500
    assert [one.decision_id for one in store.between(0, NOON + HOUR)][:1] == ["d500"]
    assert store.latest(limit=1)[0].decision_id == "d10499"
    store.close()


def test_a_damaged_file_is_moved_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    (tmp_path / "decisions.sqlite").write_bytes(b"rubbish" * 1000)
    store = Decisions(tmp_path / "decisions.sqlite")
    assert "damaged" in store.notice
    assert (tmp_path / "decisions.sqlite.damaged").read_bytes() == b"rubbish" * 1000
    store.record(decision(1))
    store.close()
    assert Decisions(tmp_path / "decisions.sqlite").get("d1") == decision(1)


def test_a_damaged_record_says_so_instead_of_inventing(tmp_path: Path) -> None:
    store = Decisions(tmp_path / "decisions.sqlite")
    store.record(decision(1))
    store.flush()
    store._database.connection.execute("UPDATE decisions SET payload = '{}'")
    with pytest.raises(StoreUnreadable, match="damaged"):
        store.get("d1")
    store.close()
