"""What was learned can only lower, is the same after every replay, stands still when it should, and explains itself."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.domain.events import (
    CalibrationUpdated,
    Fact,
    OperatorCommand,
    PositionClosed,
    Scope,
    StrategyApproved,
    TradingHalted,
    TradingRearmed,
    Trigger,
    WeightsUpdated,
)
from modules.domain.instrument import AssetClass, Side
from modules.domain.order import ExitReason
from modules.domain.position import ClosedTrade
from modules.learning.calibration import Curve
from modules.Learning_Agent import LearningAgent
from modules.Sizer import Sizer
from modules.store.journal import Journal
from tests.builders import AT, BTC_SPOT, DAY_MS, make_signal, make_view, shipped_policies
from tests.certificates import certificate
from tests.test_operator_desk import quiet_daemon

SPOT = AssetClass.SPOT
NAMES = ("breakout", "reversion", "trend")
ON = shipped_policies().learning.model_copy(update={"allocation_on": True})
BY = "cli:owner"


def agent(journal: Journal, **changes: Any) -> LearningAgent:
    made = LearningAgent(journal=journal, policy=ON.model_copy(update=changes), full_r=0.25, strategies={SPOT: NAMES})
    journal.project(made.apply)
    journal.react(made.on_fact)
    return made


def closed(day: int, strategy: str, net_r: float, score: float = 0.5) -> PositionClosed:
    at, net = AT + day * DAY_MS, Decimal(repr(net_r))
    return PositionClosed(at, ClosedTrade(
        trade_id=f"{strategy}{day}", strategy=strategy, symbol=BTC_SPOT, asset_class=SPOT, side=Side.BUY, quantity=Decimal(1),
        entry=Decimal(1), exit=Decimal(1), gross=net, fees=Decimal(0), funding=Decimal(0), net=net, risk=Decimal(1),
        slippage_bp=Decimal(0), opened_at=at, closed_at=at, exit_reason=ExitReason.STOP_LOSS, confidence=0.5, score=score))


def year(days: int = 200, seed: int = 1) -> list[Fact]:
    """Trend earns, the others do not; one trade a day each."""
    generator = np.random.default_rng(seed)
    facts: list[Fact] = [StrategyApproved(AT, certificate(), "x")]
    for day in range(days):
        for name in NAMES:
            net_r = float(generator.normal(0.35 if name == "trend" else -0.25, 1.0))
            facts.append(closed(day, name, round(net_r, 6), float(round(generator.uniform(-1.0, 1.0), 3))))
    return facts


def told(journal: Journal, kind: type) -> list[Any]:
    return [fact for _, fact in journal.facts() if isinstance(fact, kind)]


def feed(journal: Journal, facts: list[Fact]) -> None:
    for fact in facts:
        journal.append(fact)


# -- what it learns -------------------------------------------------------------------------------------------------------------------


def test_the_strategy_that_earns_keeps_its_size_and_the_losers_fade_with_facts_that_say_so() -> None:
    journal = Journal(None)
    learned = agent(journal)
    feed(journal, year())
    assert learned.weight("trend", SPOT) > 0.9 and learned.weight("reversion", SPOT) < 0.5
    last = told(journal, WeightsUpdated)[-1]
    assert last.weights["trend"] == learned.weight("trend", SPOT) and sum(last.beliefs.values()) == pytest.approx(1.0) and last.reasons
    renewed = told(journal, CalibrationUpdated)
    assert renewed and all(fact.strategy == "trend" for fact in renewed), "only a certificate brings the prior a calibration needs"


def test_nothing_is_known_at_first_and_of_strangers() -> None:
    learned = agent(Journal(None))
    assert learned.weight("trend", SPOT) == learned.weight("nobody", SPOT) == learned.weight("trend", AssetClass.PERP) == 1.0
    assert learned.confidence("trend", SPOT, 0.9, 0.4) == 0.4


def test_losses_lower_the_confidence_and_gains_never_raise_it_above_what_was_given() -> None:
    journal = Journal(None)
    learned = agent(journal)
    feed(journal, [StrategyApproved(AT, certificate(), "x"), *(closed(day, "trend", 1.0) for day in range(60))])
    assert learned.confidence("trend", SPOT, 0.5, 0.6) == 0.6
    feed(journal, [closed(60 + day, "trend", -1.0) for day in range(120)])
    assert learned.confidence("trend", SPOT, 0.5, 0.6) == 0.0


def test_a_decision_carries_weight_evidence_and_three_reasons() -> None:
    journal = Journal(None)
    learned = agent(journal)
    feed(journal, year(60))
    said = learned.explain("trend", SPOT, 0.5)
    assert {"weight", "n", "days", "expected_r", "lower_r", "p_win", "reason_1", "reason_2", "reason_3"} == said.keys()
    assert said["n"] == 60 and 0.0 < float(said["p_win"]) < 1.0
    off = agent(Journal(None), allocation_on=False)
    assert off.weight("trend", SPOT) == 1.0 and "off" in str(off.explain("trend", SPOT, 0.5)["reason_1"])


# -- replay ---------------------------------------------------------------------------------------------------------------------------


def test_a_replay_of_the_journal_gives_the_same_state_to_the_last_bit_and_tells_nothing_anew(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.db", durable=False) as journal:
        learned = agent(journal)
        feed(journal, year(90))
        state, count = learned.document(), journal.count
        hash_before = learned.state_hash()
    with Journal(tmp_path / "j.db", durable=False) as journal:
        again = agent(journal)
        journal.replay()
        assert again.document() == state and again.state_hash() == hash_before
        journal.append(OperatorCommand(AT + 89 * DAY_MS, "status", "", BY))
        assert journal.count == count + 1
    assert json.loads(json.dumps(state)) == state and state["version"] == 2


def test_wherever_the_process_dies_the_same_journal_gives_the_same_weights(tmp_path: Path) -> None:
    """The daemon is cut off after every so many facts; what follows ends where an uninterrupted life ends."""
    whole = Journal(None)
    one = agent(whole)
    feed(whole, year(40))
    path = tmp_path / "j.db"
    facts = year(40)
    for begin in range(0, len(facts), 7):
        with Journal(path, durable=False) as journal:
            learned = agent(journal)
            journal.replay()
            feed(journal, facts[begin:begin + 7])
            last = learned.state_hash()
    assert last == one.state_hash()


# -- standing still -----------------------------------------------------------------------------------------------------------------


def test_days_on_which_the_class_is_halted_teach_nothing() -> None:
    journal = Journal(None)
    learned = agent(journal)
    feed(journal, year(50))
    before = learned.document()["classes"]["SPOT"]
    journal.append(TradingHalted(AT + 49 * DAY_MS, Scope.SPOT, Trigger.DAILY_DRAWDOWN, "6 %", "5 %", None, "x"))
    feed(journal, [closed(day, "trend", -2.0) for day in range(50, 80)])
    after = learned.document()["classes"]["SPOT"]
    assert (after["weights"], after["days"]) == (before["weights"], before["days"])
    journal.append(TradingRearmed(AT + 80 * DAY_MS, Scope.SPOT, Trigger.DAILY_DRAWDOWN, BY, "x"))
    feed(journal, [closed(day, "trend", -2.0) for day in range(81, 90)])
    assert learned.document()["classes"]["SPOT"]["days"] > before["days"]


def test_silence_is_no_evidence() -> None:
    journal = Journal(None)
    learned = agent(journal)
    feed(journal, year(50))
    journal.append(OperatorCommand(AT + 400 * DAY_MS, "status", "", BY))
    assert learned.document()["classes"]["SPOT"]["days"] <= 50 + int(ON.stale_days_max)


def test_the_operator_freezes_resumes_and_resets_and_all_of_it_survives_a_restart() -> None:
    daemon = quiet_daemon()
    assert daemon.desk.handle("learning", {"action": "freeze"}, BY) == {"learning": "freeze"}
    assert daemon.learning.frozen
    daemon.desk.handle("learning", {"action": "resume"}, BY)
    assert not daemon.learning.frozen
    journal = Journal(None)
    learned = agent(journal)
    feed(journal, year(60))
    journal.append(OperatorCommand(AT + 60 * DAY_MS, "learning", '{"action": "reset"}', BY))
    assert learned.weight("reversion", SPOT) == 1.0 and learned.document()["records"]["reversion SPOT"]["closed"] == 0
    again = LearningAgent(journal=journal, policy=ON, full_r=0.25, strategies={SPOT: NAMES})
    for _, fact in journal.facts():
        again.apply(fact)
    assert again.state_hash() == learned.state_hash()


# -- it may only lower ----------------------------------------------------------------------------------------------------------------


def test_over_a_hundred_thousand_learner_states_nothing_is_ever_raised() -> None:
    """Random ones and adversarial ones: NaN, infinite and absurd weights and curves, put in by hand."""
    journal = Journal(None)
    learned = agent(journal)
    feed(journal, year(15))
    found, record = learned._classes[SPOT], learned._records["trend", SPOT]
    assert record.calibration is not None
    generator = np.random.default_rng(7)
    wild = np.array([np.nan, np.inf, -np.inf, -5.0, 7.0, 1e300, 0.3, 1.0])
    for number in range(100_000):
        weights = wild[generator.integers(0, 8, 3)] if number % 2 else generator.random(3)
        value = float(wild[number % 8]) if number % 2 else float(generator.normal(0.0, 1.0))
        found.belief = found.belief._replace(weights=weights)
        record.calibration = record.calibration._replace(lower=Curve(KNOTS, np.array([value, value])))
        given_confidence = number % 101 / 100.0
        assert 0.0 <= learned.confidence("trend", SPOT, 0.5, given_confidence) <= given_confidence
        assert 0.0 <= learned.weight(NAMES[number % 3], SPOT) <= 1.0


KNOTS = np.array([0.0, 1.0])
SIZER = Sizer(shipped_policies().sizing, shipped_policies().costs)


@settings(max_examples=150, deadline=None)
@given(weight=st.floats(0.0, 1.0), lowered=st.floats(0.0, 1.0), confidence=st.floats(0.0, 1.0),
       equity=st.decimals("200", "90000", places=2))
def test_size_with_learning_is_at_most_size_with_the_certificates_confidence_and_weight_one(
    weight: float, lowered: float, confidence: float, equity: Decimal,
) -> None:
    view = make_view(SPOT, equity=equity, free=equity, day_peak=equity, certificate_confidence=confidence)
    full = SIZER.size(make_signal(SPOT, confidence=confidence), view, good=True)
    less = SIZER.size(make_signal(SPOT, confidence=min(confidence, lowered)), replace(view, learning_weight=weight), good=True)
    assert less.notional <= full.notional or not less.approved


def test_the_agent_holds_nothing_that_could_permit_unhalt_or_raise() -> None:
    held = {type(value).__name__ for value in vars(agent(Journal(None))).values()}
    assert held <= {"Journal", "LearningPolicy", "float", "dict", "list", "int", "bool", "NoneType"}
