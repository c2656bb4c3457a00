"""What people see of learning: the command line's words, the web page's rows, and the page with pictures, from the same facts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from modules.cli import learning_report
from modules.cli.app import run
from modules.cli.challenging import enter, proposed, with_challengers
from modules.cli.page_reports import PageReports
from modules.cli.questions import JOURNAL
from modules.cli.reports import Reports
from modules.domain.events import ChallengerJudged, Fact, WeightsUpdated
from modules.domain.instrument import AssetClass
from modules.learning import challenge
from modules.learning.calibration import Prior
from modules.store.candles import Candles
from modules.store.equity import EquityCurve
from modules.store.journal import Journal
from modules.strategies.registry import all_strategies
from tests.builders import AT, DAY_MS, shipped_policies
from tests.test_learning_agent import closed, year
from tests.test_operator_desk import quiet_daemon

SPOT = AssetClass.SPOT
POLICY = shipped_policies().learning


def story() -> list[Fact]:
    facts = year(80)
    facts += [WeightsUpdated(AT + day * DAY_MS, SPOT, {"trend": 1.0, "breakout": 1.0 - day / 100.0}, {"uniform": 1.0}, day, ("a <reason>",))
              for day in (7, 14, 21)]
    facts.append(ChallengerJudged(AT + 80 * DAY_MS, "trend", "trend_0a1b2c3d", SPOT, "DROPPED", 101, 70, -0.02, 0.6, "not better"))
    return facts


def test_the_page_draws_weights_results_and_reliability_and_loads_nothing() -> None:
    page = learning_report.render(story(), POLICY)
    assert page.count("<svg") == 3 and page.count("<polyline") >= 5 and "trend_0a1b2c3d" in page
    assert "a &lt;reason&gt;" in page and "<script" not in page and not re.search(r"(?:src|href)=\"(?!#)", page)
    assert "shown, not used" in page


def test_the_page_of_nothing_says_so() -> None:
    assert "Nothing to draw yet" in learning_report.render([], POLICY)


def test_odds_are_predicted_from_earlier_outcomes_only() -> None:
    """Results that turn for good after the hundredth: odds of the block right after it still know nothing of that."""
    rows = [(float(day), 0.5, 1.0 if day < 100 else -1.0) for day in range(150)]
    told = learning_report.predictions(rows, Prior(0.0, 1.0), POLICY)
    assert len(told) == 100 and all(odds > 0.9 for odds, _ in told[50:75]) and all(odds < 0.9 for odds, _ in told[75:])


def test_the_verb_writes_the_page_from_the_journal_without_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("BOT__STATE_DIR", str(tmp_path))
    page = tmp_path / "learning.html"
    assert run(["learning", "--report", str(page), "--json"]) == 2, "no journal, nothing to show"
    (tmp_path / "demo").mkdir(exist_ok=True)
    with Journal(tmp_path / "demo" / JOURNAL) as journal:
        for fact in story()[1:30]:
            journal.append(fact)
    capsys.readouterr()
    assert run(["learning", "--report", str(page), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(page) and "<svg" in page.read_text()
    assert run(["learning", "freeze", "--report", str(page), "--json"]) == 4


def test_the_web_page_gets_a_row_for_every_strategy(tmp_path: Path) -> None:
    daemon = quiet_daemon()
    daemon.learning._names = {SPOT: ("breakout", "trend")}
    daemon.learning._reset()
    daemon.journal.append(closed(0, "trend", 1.5))
    reports = PageReports(daemon, Reports(daemon), EquityCurve(None), Candles(None))
    document = reports.all()["learning"]({})
    assert [(row["strategy"], row["n"], row["weight"]) for row in document["strategies"]] == [("breakout", 0, 1.0), ("trend", 1, 1.0)]
    assert {"strategy", "asset_class", "weight", "n", "expected_r", "reason"} <= document["strategies"][0].keys()
    assert document["in_force"] is False and "allocation is off" in document["strategies"][0]["reason"]


# -- from a search to a challenger -----------------------------------------------------------------------------------------------------


def search(best: dict[str, float], *, default: bool = False) -> dict[str, object]:
    return {"strategy": "trend", "asset_class": "SPOT", "from": "2020-01-01", "to": "2022-01-01",
            "plateau": [{"params": best, "sharpe": 1.4, "default": default}]}


def test_the_best_set_of_a_search_becomes_a_challenger_once_and_can_be_validated_by_its_name(tmp_path: Path) -> None:
    known = dict(all_strategies())
    name, values = next(iter(known["trend"].space.items()))
    value = float(next(value for value in values if value != getattr(known["trend"].params, name)))
    (entered,) = enter([search({name: value})], known, "DIR", tmp_path)
    assert enter([search({name: value})], known, "DIR", tmp_path) == []
    (listed,) = challenge.load(tmp_path)
    assert listed.name == entered and listed.params[name] == value and len(listed.params) == len(known["trend"].params)
    found = with_challengers(known, tmp_path)[entered]
    assert getattr(found.params, name) == value and found.asset_classes == (SPOT,)


def test_what_trades_already_challenges_nobody() -> None:
    known = dict(all_strategies())
    assert proposed([search({}, default=True), {"strategy": "trend", "asset_class": "SPOT", "fault": "x"}], known, "DIR") == ()


def test_predictions_need_outcomes() -> None:
    assert learning_report.predictions([(0.0, 0.5, float(np.float64(1.0)))] * 10, Prior(0.0, 1.0), POLICY) == []
