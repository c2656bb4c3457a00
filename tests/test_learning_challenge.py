"""Re-optimized parameters take over only with the gate's word and one paired test, and what turns out worse goes back by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modules.domain.errors import ConfigurationError
from modules.domain.events import ChallengerEntered, ChallengerJudged, OperatorCommand, ShadowClosed
from modules.domain.instrument import AssetClass
from modules.domain.order import ExitReason
from modules.learning import challenge
from modules.learning.challenge import Challenger, paired, strategy_of
from modules.learning.shadow import terms_of
from modules.Learning_Agent import LearningAgent
from modules.store.journal import Journal
from modules.strategies.registry import all_strategies
from tests.builders import AT, BTC_SPOT, DAY_MS, shipped_policies

SPOT = AssetClass.SPOT
POLICIES = shipped_policies()
PARAMS = {name: float(getattr(all_strategies()["trend"].params, name)) for name in all_strategies()["trend"].params._fields}
ONE = Challenger("trend", SPOT, PARAMS, "optimize")


class Bench:
    """A learner with one challenger, whose certificate the test gives and takes."""

    def __init__(self, journal: Journal | None = None, seed: int = 3) -> None:
        self.journal = Journal(None) if journal is None else journal
        self.certified = True
        self.agent = LearningAgent(
            journal=self.journal, policy=POLICIES.learning, full_r=0.25, strategies={SPOT: ["trend", "breakout"]}, terms=terms_of(POLICIES),
            certified=lambda *_: self.certified)
        self.journal.project(self.agent.apply)
        self.journal.react(self.agent.on_fact)
        self.generator, self.day = np.random.default_rng(seed), 0

    def live(self, days: int, edge: float) -> None:
        """A trade a day of both; the challenger's earn `edge` R more."""
        for _ in range(days):
            common = float(self.generator.normal(0.0, 1.0))
            for name, more in (("trend", 0.0), (ONE.name, edge)):
                at = AT + self.day * DAY_MS
                net_r = common + more + float(self.generator.normal(0, 0.5))
                self.journal.append(ShadowClosed(at, name, BTC_SPOT, SPOT, at - 1, 0.5, net_r,
                                                 ExitReason.ROI, False))
            self.day += 1
        self.journal.append(OperatorCommand(AT + self.day * DAY_MS, "status", "", "cli:owner"))

    def verdicts(self) -> list[str]:
        return [fact.outcome for _, fact in self.journal.facts() if isinstance(fact, ChallengerJudged)]

    @property
    def benched(self) -> list[str]:
        return [name for name in ("trend", ONE.name) if self.agent.benched(name, SPOT)]


def entered(seed: int = 3) -> Bench:
    bench = Bench(seed=seed)
    bench.agent.challenge((ONE,), AT)
    return bench


def test_a_challenger_only_shadow_trades_until_a_hundred_trades_and_a_certificate_say_otherwise() -> None:
    bench = entered()
    assert bench.benched == [ONE.name] and not bench.agent.benched(ONE.name, AssetClass.PERP)
    bench.live(99, 0.5)
    assert bench.benched == [ONE.name] and not bench.verdicts()
    bench.live(5, 0.5)
    assert bench.verdicts() == ["PROMOTED"] and bench.benched == ["trend"]


def test_without_a_certificate_no_result_is_good_enough() -> None:
    bench = entered()
    bench.certified = False
    bench.live(300, 1.0)
    assert not bench.verdicts() and bench.benched == [ONE.name]
    bench.live(70, 1.0)
    assert bench.verdicts() == ["DROPPED"] and bench.benched == [ONE.name]


def test_one_that_is_no_better_is_dropped_at_its_one_look() -> None:
    bench = entered()
    bench.live(110, -0.1)
    assert bench.verdicts() == ["DROPPED"]
    bench.live(200, 2.0)
    assert bench.verdicts() == ["DROPPED"], "there is no second look"


def test_a_promoted_one_that_turns_out_worse_goes_back_by_itself() -> None:
    bench = entered()
    bench.live(105, 0.5)
    bench.live(60, -0.6)
    assert bench.verdicts() == ["PROMOTED", "ROLLED_BACK"] and bench.benched == [ONE.name]


def test_a_promoted_one_goes_back_the_day_its_certificate_ends() -> None:
    bench = entered()
    bench.live(105, 0.5)
    bench.certified = False
    bench.live(2, 0.5)
    assert bench.verdicts() == ["PROMOTED", "ROLLED_BACK"]


def test_nobody_is_promoted_while_learning_is_frozen() -> None:
    bench = entered()
    bench.journal.append(OperatorCommand(AT, "learning", '{"action": "freeze"}', "cli:owner"))
    bench.live(150, 0.8)
    assert not bench.verdicts()
    bench.journal.append(OperatorCommand(AT + bench.day * DAY_MS, "learning", '{"action": "resume"}', "cli:owner"))
    bench.live(2, 0.8)
    assert bench.verdicts() == ["PROMOTED"]


def test_a_promoted_challenger_trades_with_its_champions_weight_and_the_journal_knows_it_all(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.db", durable=False) as journal:
        bench = Bench(journal)
        bench.agent.challenge((ONE,), AT)
        bench.agent.challenge((ONE,), AT)
        bench.live(130, 0.5)
        state, benched = bench.agent.document(), bench.benched
        assert sum(isinstance(fact, ChallengerEntered) for _, fact in journal.facts()) == 1
    with Journal(tmp_path / "j.db", durable=False) as journal:
        again = Bench(journal)
        journal.replay()
        assert again.agent.document() == state and again.benched == benched == ["trend"]
        on = POLICIES.learning.model_copy(update={"allocation_on": True})
        again.agent.adopt(on, 0.25)
        assert again.agent.weight(ONE.name, SPOT) == again.agent.weight("trend", SPOT)


# -- the test itself -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("persistence", [0.0, 0.3])
def test_challengers_no_better_are_promoted_about_as_often_as_the_policy_allows(persistence: float) -> None:
    generator = np.random.default_rng(5)
    found = 0
    for _ in range(2_000):
        noise = generator.standard_t(4, 140)
        for day in range(1, 140):
            noise[day] += persistence * noise[day - 1]
        mean, p = paired(noise[20:])
        found += mean > 0.0 and p <= 0.05
    assert found / 2_000 <= (0.07 if not persistence else 0.08)


def test_a_clear_difference_is_seen_and_too_few_days_show_nothing() -> None:
    noise = np.random.default_rng(6).normal(0.3, 1.0, 120)
    assert paired(noise)[1] < 0.05 < paired(-noise)[1]
    assert paired(noise[:10])[1] == paired(np.zeros(50))[1] == paired(np.zeros(0))[1] == 1.0


# -- the file -------------------------------------------------------------------------------------------------------------------------


def test_the_list_reads_back_and_keeps_the_newest_of_each_champion(tmp_path: Path) -> None:
    newer = replace(ONE, params={**PARAMS, next(iter(PARAMS)): 7.0})
    challenge.save((ONE, newer), tmp_path)
    assert challenge.load(tmp_path) == (newer,) and challenge.load(tmp_path / "nowhere") == ()
    assert ONE.name != newer.name and ONE.name.isidentifier()


@pytest.mark.parametrize("text", ["", "[]", '{"version": 9, "challengers": []}', '{"version": 1, "challengers": [{"champion": ""}]}'])
def test_a_file_that_is_no_list_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / challenge.FILE).write_text(text)
    with pytest.raises(ConfigurationError, match=challenge.FILE):
        challenge.load(tmp_path)


def test_a_challenger_is_its_champions_code_with_other_parameters() -> None:
    known: dict[str, Any] = dict(all_strategies())
    made = strategy_of(ONE, known)
    assert made is not None and made.step is known["trend"].step and made.params == known["trend"].params and made.name == ONE.name
    assert [type(value) for value in made.params] == [type(value) for value in known["trend"].params]
    assert strategy_of(replace(ONE, champion="nobody"), known) is None
    assert strategy_of(replace(ONE, params={"x": 1.0}), known) is None
