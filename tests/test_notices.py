"""Everything an owner must hear has a message at the right level; what only the machine needs has none; nothing is said over and over."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, get_args

import pytest

from modules.domain import events
from modules.domain.events import (
    ApiErrorSeen,
    BalanceAdjusted,
    ChallengerEntered,
    ChallengerJudged,
    ExitRequested,
    Fact,
    FeedLost,
    FeedRestored,
    Filled,
    ForeignFill,
    ForeignOrder,
    InstrumentsChosen,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderInDoubt,
    OrderIntended,
    OrderRejected,
    Scope,
    StrategyDemoted,
    StrategyRejected,
    StrategyRevoked,
    TradeAbandoned,
    TradeOpened,
    TradingHalted,
    TradingRearmed,
    Trigger,
    UnallocatedMoved,
)
from modules.domain.instrument import AssetClass, Side
from modules.domain.order import ExitReason, Purpose
from modules.domain.settings import NOTICES
from modules.notify.notices import KINDS, Notices
from modules.notify.outbox import Rank
from modules.notify.problems import LOOK_S, PATIENCE_S, ProblemWatch
from tests.builders import AT, make_fill, make_order

MINUTE = 60_000
OF_THE_MACHINE = {
    "DaemonStarted", "InstrumentListed", "OrderIntended", "OrderSent", "FundingBooked", "Reconciled", "BaselineRolled", "PeakRaised",
    "CalibrationUpdated", "WeightsUpdated", "ShadowOpened", "ShadowClosed", "TrialsAnchored",
}
"""What is not told one by one: the first message, the reports and the log have it."""


def test_every_kind_of_fact_is_told_or_is_known_to_be_of_no_interest() -> None:
    """Whoever adds a fact says which."""
    every = {kind.__name__ for kind in get_args(Fact)}
    told = {kind.__name__ for kind in KINDS}
    assert told | (OF_THE_MACHINE & every) == every and not told & OF_THE_MACHINE
    assert {kind for kind, _ in KINDS.values()} <= set(NOTICES)


def hears(*facts: Any) -> list[tuple[str, Rank, str]]:
    notices = Notices()
    heard = []
    for fact in facts:
        notices.learn(fact)
        notice = notices.of(fact)
        if notice is not None:
            heard.append((notice.kind, notice.rank, notice.text))
    return heard


ENTRY = make_order(client_order_id="entry", purpose=Purpose.ENTRY)
TRADE = TradeOpened(
    at=AT, trade_id="t1", decision_id="d1", strategy="trend", symbol="BTC/USDT", asset_class=AssetClass.SPOT, side=Side.BUY.value,
    structure="single", score=0.6, confidence=0.6, entry=50_000.0, stop=49_000.0, target=None, hold=0, interval_ms=300_000, risk=Decimal(1))
TOLD: list[tuple[str, list[Any], str, Rank, str]] = [
    ("a halt", [TradingHalted(AT, Scope.SPOT, Trigger.DAILY_DRAWDOWN, "5.1 %", "5 %", None, "x", "")], "kill", Rank.KILL, "HALTED SPOT"),
    ("a re-arming", [TradingRearmed(AT, Scope.SPOT, Trigger.MANUAL, "cli", "looked", "")], "kill", Rank.KILL, "RE-ARMED SPOT"),
    ("a venue that is down", [ApiErrorSeen(AT, "bybit", "error", "connection refused", None, 3)], "warning", Rank.WARNING,
     "connection refused"),
    ("a feed that stops", [FeedLost(AT, "BTC/USDT", "silence")], "warning", Rank.WARNING, "feed lost"),
    ("an order in doubt", [OrderInDoubt(AT, "o1", "time-out")], "warning", Rank.WARNING, "nobody knows yet"),
    ("its end", [OrderInDoubt(AT, "o1", "time-out"), OrderAccepted(AT, "o1", "v1")], "warning", Rank.WARNING, "No longer in doubt"),
    ("a rejection", [OrderRejected(AT, "o1", "10001", "no funds")], "warning", Rank.WARNING, "no funds"),
    ("a fill that is not ours", [ForeignFill(AT, make_fill())], "warning", Rank.WARNING, "Not ours"),
    ("an order that is not ours", [ForeignOrder(AT, "bybit", "BTC/USDT", "v9", "")], "warning", Rank.WARNING, "nobody we know"),
    ("a position without a stop", [TRADE, ExitRequested(AT, "t1", ExitReason.EMERGENCY_EXIT)], "warning", Rank.FILL,
     "no stop could be kept"),
    ("books that differ", [BalanceAdjusted(AT, AssetClass.SPOT, "USDT", Decimal("-1.5"), "x")], "warning", Rank.WARNING, "differed"),
    ("a demotion", [StrategyDemoted(AT, "trend", AssetClass.SPOT, "drawdown", 0.31, 0.25, "worse than validated")], "warning", Rank.WARNING,
     "demoted to paper"),
    ("a revocation", [StrategyRevoked(AT, "trend", AssetClass.SPOT, "owner", "x")], "warning", Rank.WARNING, "revoked"),
    ("a revalidation that failed", [StrategyRejected(AT, "trend", AssetClass.SPOT, "REJECTED", "PBO 0.6")], "warning", Rank.WARNING,
     "PBO 0.6"),
    ("a challenger", [ChallengerEntered(AT, "trend", "trend@1", AssetClass.SPOT, {}, "x")], "status", Rank.INFO, "no money is on them"),
    ("a challenger's verdict", [ChallengerJudged(AT, "trend", "trend@1", AssetClass.SPOT, "PROMOTED", 80, 40, 0.05, 0.01, "better")],
     "status", Rank.INFO, "promoted after 80 trades"),
    ("the owner's own money", [UnallocatedMoved(AT, "bybit", "", "USDT", Decimal(100), "deposit")], "status", Rank.INFO, "owner's part"),
    ("other instruments", [InstrumentsChosen(AT, "bybit", "{}", AT, ("BTC/USDT",), {}, ("BTC/USDT",), {"ADA/USDT": "on pair_blacklist"})],
     "status", Rank.INFO, "new BTC/USDT; gone ADA/USDT (on pair_blacklist)"),
    ("an entry", [TRADE], "entry", Rank.INFO, "stop 49,000"),
    ("an entry that never was", [TRADE, TradeAbandoned(AT, "t1", "order expired")], "entry", Rank.INFO,
     "BTC/USDT: the entry ended without a fill"),
    ("an entry's fill", [OrderIntended(AT, ENTRY), Filled(AT, make_fill(ENTRY), True)], "entry_fill", Rank.FILL, "Bought"),
    ("an exit's fill", [Filled(AT, make_fill(make_order(client_order_id="exit")), True)], "exit_fill", Rank.FILL, "Bought"),
]


@pytest.mark.parametrize(("facts", "kind", "rank", "part"), [row[1:] for row in TOLD], ids=[row[0] for row in TOLD])
def test_what_matters_is_told_at_its_level_in_words(facts: list[Any], kind: str, rank: Rank, part: str) -> None:
    heard = hears(*facts)[-1]
    assert heard[:2] == (kind, rank) and part in heard[2], heard
    assert len(heard[2]) < 400 and "{" not in heard[2]


@pytest.mark.parametrize("end", [
    lambda name: OrderAccepted(AT, name, "v1"), lambda name: OrderCanceled(AT, name, "by us"), lambda name: OrderExpired(AT, name, "time")])
def test_an_order_that_was_never_in_doubt_ends_without_a_word_and_doubt_is_lifted_once(end: Callable[[str], Any]) -> None:
    assert hears(end("o1")) == []
    heard = hears(OrderInDoubt(AT, "o1", "time-out"), end("o2"), end("o1"), end("o1"))
    assert [text.split(":")[0] for _, _, text in heard] == ["IN DOUBT", "No longer in doubt"]


def test_ordinary_exits_are_told_by_their_fills_alone() -> None:
    assert hears(*(ExitRequested(AT, "t1", reason) for reason in ExitReason if reason is not ExitReason.EMERGENCY_EXIT)) == []


def test_a_night_of_outage_is_a_message_a_quarter_of_an_hour_with_the_number_left_out() -> None:
    heard = hears(*(ApiErrorSeen(AT + second * 1000, "bybit", "error", "time-out", None, second + 1) for second in range(0, 3_600, 5)))
    assert len(heard) == 4
    assert "179 more since" in heard[1][2]


def test_a_feed_that_comes_and_goes_is_told_once_and_one_that_is_back_for_good_again() -> None:
    flapping = [fact for number in range(10) for fact in (
        FeedLost(AT + number * MINUTE, "BTC/USDT", "silence"), FeedRestored(AT + number * MINUTE + 30_000, "BTC/USDT"))]
    assert [text for _, _, text in hears(*flapping)] == ["BTC/USDT: feed lost, no entries on it: silence.", "BTC/USDT: feed is back."]
    others = hears(FeedLost(AT, "BTC/USDT", "silence"), FeedLost(AT, "ETH/USDT", "silence"), FeedRestored(AT, "ETH/USDT"))
    assert len(others) == 3, "every feed for itself"


# -- what is wrong and is no fact --------------------------------------------------------------------------------------------


class Watched:
    def __init__(self) -> None:
        self.problems: list[str] = []
        self.heard: list[str] = []
        self.watch = ProblemWatch(lambda: self.problems, self.heard.append)
        self.now = 0.0

    def live(self, seconds: float, *problems: str) -> list[str]:
        """Look every LOOK_S seconds while `problems` last; what was said."""
        self.problems, said = list(problems), len(self.heard)
        for _ in range(int(seconds / LOOK_S)):
            self.now += LOOK_S
            self.watch.look(self.now)
        return self.heard[said:]


def test_a_full_disk_is_told_at_once_and_its_end_too() -> None:
    watched = Watched()
    assert watched.live(LOOK_S, "the disk is full: entries are closed") == ["Not well: the disk is full: entries are closed."]
    assert watched.live(600, "the disk is full: entries are closed") == []
    assert watched.live(PATIENCE_S * 2) == ["Well again: no longer the disk is full: entries are closed."]


def test_what_lasts_a_moment_is_no_message_and_changing_numbers_are_one_problem() -> None:
    watched = Watched()
    assert watched.live(PATIENCE_S - LOOK_S, "wallet age 61 s, limit 60 s") == []
    assert watched.live(60) == []
    heard = [said for age in range(61, 200, 5) for said in watched.live(LOOK_S, f"wallet age {age} s, limit 60 s")]
    assert len(heard) == 1 and heard[0].startswith("Not well: wallet age 9")


def test_a_feed_that_stays_lost_is_told_after_a_quarter_of_an_hour_with_its_fellows_in_one_message() -> None:
    watched = Watched()
    assert watched.live(890, "feed BTC/USDT is lost", "feed ETH/USDT is lost") == []
    assert watched.live(60, "feed BTC/USDT is lost", "feed ETH/USDT is lost") == ["Not well: feed BTC/USDT is lost; feed ETH/USDT is lost."]


def test_the_events_module_is_the_only_place_of_facts() -> None:
    assert all(kind.__module__ == events.__name__ for kind in get_args(Fact))
