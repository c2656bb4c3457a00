"""The gate's judgment: every bar is held, and what is missing is said in trades, years or costs."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest

from modules.backtest.verdict import Evidence, Outcome, adjusted, judge, limit, years_needed
from modules.domain.instrument import AssetClass
from tests.builders import shipped_policies

POLICY = shipped_policies().validation
GOOD = Evidence(
    strategy="trend", asset_class=AssetClass.SPOT, trades=900, years=5.0, out_years=3.5, trials=50, tested=50, p=0.0004, t=5.1,
    critical_t=3.7, excess_p=0.0004, sharpe=1.9, psr=0.999, net=1.2, loss_probability=0.01,
    stressed_net=0.8, trade_share=0.05, month_share=0.1,
    drawdown=0.04, neighbours_share=0.9, efficiency=0.8, dsr=0.7, pbo=0.45)

ONE_BAR_MISSED: dict[str, dict[str, Any]] = {
    "RUNS": {"fault": "step raised ZeroDivisionError at bar 7"}, "PREFIX_DIFFERENCES": {"prefix_differences": 3},
    "TRADES": {"trades": 500}, "SAMPLE_YEARS": {"years": 3.4}, "P_VALUE": {"p": 0.0051}, "P_VALUE_EXCESS": {"excess_p": 0.2},
    "SHARPE": {"sharpe": 1.0}, "PSR": {"psr": 0.949}, "LOSS_PROBABILITY": {"loss_probability": 0.21}, "NET_STRESSED": {"stressed_net": 0.0},
    "TRADE_SHARE": {"trade_share": 0.41}, "MONTH_SHARE": {"month_share": 0.41}, "DRAWDOWN_BOOTSTRAP": {"drawdown": 0.16},
    "NEIGHBOURS_SHARPE_SHARE": {"neighbours_share": 0.49}}


def test_evidence_that_passes_every_bar_is_approved_and_the_next_step_is_going_live() -> None:
    found = judge(GOOD, POLICY, 1)
    assert found.verdict is Outcome.APPROVED and found.failed == () and found.missing == ""
    assert found.next_command == "python main.py go-live SPOT"
    assert {check.rule for check in found.checks if check.gate} == set(ONE_BAR_MISSED)
    assert {check.rule for check in found.checks if not check.gate} == {"WALK_FORWARD_EFFICIENCY", "DEFLATED_SHARPE", "PBO"}


@pytest.mark.parametrize("rule", ONE_BAR_MISSED)
def test_each_bar_alone_stops_an_approval(rule: str) -> None:
    found = judge(replace(GOOD, **ONE_BAR_MISSED[rule]), POLICY, 1)
    assert found.failed == (rule,)
    expected = Outcome.INSUFFICIENT_EVIDENCE if rule in ("TRADES", "SAMPLE_YEARS") else Outcome.REJECTED
    assert found.verdict is expected and found.missing and found.next_command.startswith("python main.py ")


@pytest.mark.parametrize("name", ["p", "excess_p", "sharpe", "psr", "loss_probability", "stressed_net", "trade_share", "month_share",
                                  "drawdown", "neighbours_share"])
def test_what_could_not_be_measured_passes_nothing(name: str) -> None:
    unknown: dict[str, Any] = {name: math.nan}
    found = judge(replace(GOOD, **unknown), POLICY, 1)
    assert found.verdict is Outcome.REJECTED and "could not be measured" in found.missing


def test_numbers_that_are_reported_only_decide_nothing() -> None:
    assert judge(replace(GOOD, dsr=0.0, pbo=1.0, efficiency=-1.0), POLICY, 1).verdict is Outcome.APPROVED


def test_the_second_submission_must_be_far_surer_and_uncounted_columns_are_paid_for() -> None:
    once = replace(GOOD, p=0.004)
    assert judge(once, POLICY, 1).verdict is Outcome.APPROVED
    assert judge(once, POLICY, 2).failed == ("P_VALUE",)
    assert limit(POLICY, 2) == 0.0015
    earlier = replace(once, trials=100)    # fifty more were tried before and are not in the test
    assert adjusted(earlier, earlier.p) == pytest.approx(0.008)
    assert judge(earlier, POLICY, 1).failed == ("P_VALUE",)


def test_an_idea_cannot_be_submitted_until_it_passes() -> None:
    """Whatever the submissions have in common, the chance that one of them approves noise is at most the sum of what they are allowed."""
    allowed = [limit(POLICY, number) for number in range(1, 100_001)]
    assert allowed[0] == POLICY.p_value_max and sum(allowed) < POLICY.p_value_max + POLICY.p_value_later < 0.01
    assert all(later < earlier for earlier, later in itertools.pairwise(allowed))
    assert all(one <= POLICY.p_value_max / number for number, one in enumerate(allowed, 1))    # domain.md section 7
    generous = POLICY.model_copy(update={"p_value_later": 1.0})
    assert limit(generous, 4) == POLICY.p_value_max / 4


def test_an_idea_that_was_judged_too_often_is_told_so() -> None:
    number = next(n for n in range(1, 1000) if limit(POLICY, n) * (POLICY.bootstrap_draws_max + 1) < 1.0)
    assert number > 30
    found = judge(replace(GOOD, critical_t=math.inf, p=0.0001), POLICY, number)
    assert found.verdict is Outcome.INSUFFICIENT_EVIDENCE and f"submission {number} of this idea" in found.missing
    assert "judged too often" in found.missing
    before = judge(replace(GOOD, critical_t=3.9, p=limit(POLICY, number - 1), excess_p=0.0), POLICY, number - 1)
    assert before.verdict is Outcome.APPROVED


def test_missing_trades_are_said_in_trades_and_years() -> None:
    found = judge(replace(GOOD, trades=401), POLICY, 1)
    assert "100 more out-of-sample trades are needed (has 401, bar > 500), about 0.9 years" in found.missing
    assert "download-data" in found.next_command and "validate -s trend" in found.next_command


def test_missing_years_follow_from_t_being_sharpe_times_the_root_of_years() -> None:
    assert years_needed(POLICY, AssetClass.SPOT, 4.0) == 4.0    # twice the floor of 1, for four years, has t = 4
    found = judge(replace(GOOD, critical_t=5.0), POLICY, 1)
    assert found.verdict is Outcome.INSUFFICIENT_EVIDENCE and "1.25 more years are needed (has 5.00, bar 6.25" in found.missing


def test_too_little_evidence_of_something_bad_says_both() -> None:
    found = judge(replace(GOOD, trades=20, sharpe=-2.0), POLICY, 1)
    assert found.verdict is Outcome.INSUFFICIENT_EVIDENCE and "as it stands it would be rejected: SHARPE -2" in found.missing


def test_a_rejection_for_luck_says_how_long_it_would_have_to_go_on() -> None:
    found = judge(replace(GOOD, p=0.03, t=3.0, critical_t=3.6), POLICY, 1)
    assert "P_VALUE 0.03 (bar 0.005 probability)" in found.missing and "about 2.2 more years" in found.missing
    assert "no length of sample would help" in judge(replace(GOOD, p=0.99, t=-1.0), POLICY, 1).missing


def test_a_rejection_for_costs_says_at_which_multiple_it_breaks_even() -> None:
    found = judge(replace(GOOD, net=0.3, stressed_net=-0.3), POLICY, 1)
    assert "breaks even at 1.50 times the modelled fees and slippage, 2 must be survived" in found.missing
    assert found.next_command == "python main.py optimize -s trend"


def test_a_cheat_or_a_fault_is_rejected_however_little_evidence_there_is() -> None:
    assert judge(replace(GOOD, trades=3, prefix_differences=1), POLICY, 1).verdict is Outcome.REJECTED
    found = judge(replace(GOOD, trades=3, fault="step hung for 120 s"), POLICY, 1)
    assert found.verdict is Outcome.REJECTED and found.missing == "step hung for 120 s"
    assert judge(replace(GOOD, prefix_differences=-1), POLICY, 1).verdict is Outcome.REJECTED    # not checked is not passed


def test_a_strategy_with_nothing_to_vary_has_no_neighbours_to_be_compared_with() -> None:
    assert judge(replace(GOOD, neighbours_share=math.nan, has_neighbours=False), POLICY, 1).verdict is Outcome.APPROVED
