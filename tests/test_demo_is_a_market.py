"""The demo is a market and not a script: a replay of its files trades the same, a stranger finds every denial and halt in them again, and
every rule matters."""

from __future__ import annotations

import ast
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import main
from modules.backtest.export_run import export_run
from modules.backtest.recorded import RecordedSource
from modules.domain.policies import Policies
from modules.venues.demo_market import DemoMarket
from tests import independent_market, independent_rules
from tests.builders import shipped_policies
from tests.demo_runs import WALLETS, exported, simulate

SEEDS = (7, 2)
DAYS = 2
SHIPPED = shipped_policies()


@dataclass(frozen=True)
class Demo:
    simulation: main.Simulation
    folder: Path


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, Demo]:
    folders = {seed: tmp_path_factory.mktemp("demo") / str(seed) for seed in SEEDS}
    return {seed: Demo(exported(seed, DAYS, folder), folder) for seed, folder in folders.items()}


@pytest.fixture(params=SEEDS)
def demo(request: pytest.FixtureRequest, demos: Mapping[int, Demo]) -> Demo:
    return demos[request.param]


def changed(part: str, **values: Any) -> Policies:
    """The shipped policies with some values of one of them replaced."""
    return SHIPPED.model_copy(update={part: getattr(SHIPPED, part).model_copy(update=values)})


# -- the same market from files -------------------------------------------------------------------------------------------------------


def test_a_replay_of_the_exported_market_is_the_same_run_to_the_last_bit(demo: Demo) -> None:
    """Compared: every journal row (the chain's head is a hash over all of them: trades, orders, fills, funding, peaks, halts), every
    decision with all its checks, and the document of all classes. Source, mode and instrument names are the same too, as the files name
    them."""
    source = RecordedSource(demo.folder, costs=SHIPPED.costs)
    again = simulate(source, wallets=source.wallets or {})
    assert [fact.trade for fact in again.recorder.trades] == [fact.trade for fact in demo.simulation.recorder.trades]
    assert [fact.fill for fact in again.recorder.fills] == [fact.fill for fact in demo.simulation.recorder.fills]
    assert again.recorder.decisions == demo.simulation.recorder.decisions
    assert again.recorder.classes(WALLETS) == demo.simulation.recorder.classes(WALLETS)
    assert again.daemon.journal.head == demo.simulation.daemon.journal.head
    assert again.differences == demo.simulation.differences == 0


def test_the_same_seed_is_the_same_run_and_another_seed_another(demos: Mapping[int, Demo]) -> None:
    first, second = (demos[seed].simulation for seed in SEEDS)
    assert simulate(DemoMarket(SEEDS[0], DAYS)).daemon.journal.head == first.daemon.journal.head
    assert first.daemon.journal.head != second.daemon.journal.head


# -- every denial and halt, derived again ------------------------------------------------------------------------------------------------


def test_the_independent_rules_import_none_of_ours() -> None:
    for module in (independent_rules, independent_market):
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        ours = {name for name in imported if name.partition(".")[0] not in (*sys.stdlib_module_names, "numpy")}
        assert ours <= {"tests.independent_market"}


def test_a_stranger_derives_every_denial_again(demo: Demo) -> None:
    report = independent_rules.rederive(demo.folder)
    assert report.faults == []
    assert report.decisions == len(demo.simulation.recorder.decisions) > 30
    underived = {rule for rule, count in report.denials.items() if report.denials_derived[rule] < count}
    assert underived <= {rule for rule, _ in independent_rules.TAKEN_AS_STATED}, "only sizes may be taken as stated"
    assert sum(report.denials.values()) - sum(report.denials_derived.values()) <= 0.15 * sum(report.denials.values())
    assert {"CORRELATED_POSITIONS_ABOVE_MAXIMUM", "INSTRUMENT_OWNED", "SHORT_NOT_POSSIBLE"} <= report.denials_derived.keys()


NERVOUS = {
    "drawdown": changed("kill_switch", drawdown_daily_max=Decimal("0.001"), drawdown_monthly_max=Decimal("0.002")),
    "slippage": changed("kill_switch", slippage_events_max=2, slippage_model_multiple=Decimal(1),
                        slippage_floor_bp=dict.fromkeys(SHIPPED.kill_switch.slippage_floor_bp, 1.0)),
    "our own caps": changed(
        "risk", cooldown_losses=1, cooldown_stop_outs=2, max_open_trades=2, orders_per_minute_max=2, correlated_others_max=1,
        notional_per_minute_max=Decimal("0.05"), cooldown_instrument_s=14_400.0, quote_volume_24h_min=Decimal(40_000_000),
        funding_rate_8h_max=Decimal("0.0001"), carry_annual_max=Decimal("0.009"), carry_reward_share_max=Decimal("0.02"),
        frozen_bars_max=1, rollover_minutes=120.0, expiry_days_min=5.0, option_delta_max=Decimal("0.2"),
        option_spread_share_max=Decimal("0.02")),
}
"""Policies so strict that a few days show halts and denials which a quiet market has in months."""


@pytest.mark.parametrize("name", NERVOUS)
def test_a_stranger_derives_every_halt_and_denial_of_a_nervous_owner(demos: Mapping[int, Demo], name: str, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(demos[SEEDS[0]].folder, folder, ignore=shutil.ignore_patterns("run"))
    simulation = simulate(DemoMarket(SEEDS[0], DAYS), policies=NERVOUS[name])
    export_run(simulation, folder)
    report = independent_rules.rederive(folder)
    assert report.faults == []
    halts = {"drawdown": {"daily_drawdown halted", "daily_drawdown rearmed", "monthly_drawdown halted"}, "slippage": {"slippage halted"}}
    assert halts.get(name, set()) <= report.halts.keys()
    if name in halts:
        assert report.denials_derived["TRADING_HALTED"] > 0
    else:
        assert len(report.denials_derived) >= 10, report.denials_derived


def test_a_denial_or_a_halt_that_did_not_follow_is_found(demos: Mapping[int, Demo], tmp_path: Path) -> None:
    """The judge must be able to say no: numbers, verdicts and halts are forged in turn."""
    folder = tmp_path / "demo"
    shutil.copytree(demos[SEEDS[0]].folder, folder)
    decisions, journal = folder / "run" / "decisions.jsonl", folder / "run" / "journal.jsonl"
    lines = decisions.read_text(encoding="utf-8").splitlines()
    forged = []
    for rule, key, value in (("LIQUIDITY_BELOW_MINIMUM", "measured", 1.0), ("CORRELATED_POSITIONS_ABOVE_MAXIMUM", "passed", False),
                             ("CARRY_SHARE_ABOVE_MAXIMUM", "passed", False), ("COOLDOWN_INSTRUMENT", "measured", 60.0)):
        index = next(i for i, line in enumerate(lines) if i not in forged and any(
            check["rule"] == rule and check["passed"] for check in json.loads(line)["checks"]))
        decision = json.loads(lines[index])
        next(check for check in decision["checks"] if check["rule"] == rule and check["passed"])[key] = value
        lines[index] = json.dumps(decision)
        forged.append(index)
    decisions.write_text("\n".join(lines) + "\n", encoding="utf-8")
    halt = {"seq": 10**6, "kind": "TradingHalted", "at": DemoMarket(SEEDS[0], DAYS).end, "scope": "SPOT", "trigger": "daily_drawdown"}
    with journal.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(halt) + "\n")
    faults = independent_rules.rederive(folder).faults
    assert len([fault for fault in faults if "daily_drawdown" in fault]) == 1
    for index in forged:
        assert any(fault.startswith(json.loads(lines[index])["decision_id"]) for fault in faults), lines[index]


# -- every rule matters --------------------------------------------------------------------------------------------------------------------

_WIDE = dict.fromkeys(SHIPPED.risk.spread_bp_max, 10_000.0)
_SIZING = SHIPPED.sizing
OFF: Mapping[str, Policies] = {
    "liquidity": changed("risk", quote_volume_24h_min=Decimal(0)),
    "correlation": changed("risk", correlated_others_max=99),
    "funding": changed("risk", funding_rate_8h_max=Decimal(1)),
    "carry": changed("risk", carry_annual_max=Decimal(1)),
    "carry share of reward": changed("risk", carry_reward_share_max=Decimal(1)),
    "spread": changed("risk", spread_bp_max=_WIDE, spread_bp_majors_max=10_000.0),
    "frozen feed": changed("risk", frozen_bars_max=10**6),
    "rollover": changed("risk", rollover_minutes=0.0),
    "flat before the weekend": changed("risk", forex_weekend_flat=False),
    "blackout": changed("news", classes=dict.fromkeys(SHIPPED.news.classes, ())),
    "cooldown of an instrument": changed("risk", cooldown_losses=0),
    "cooldown of a class": changed("risk", cooldown_stop_outs=0),
    "open positions": changed("risk", max_open_trades=99),
    "daily drawdown": changed("kill_switch", drawdown_daily_max=Decimal(1), drawdown_monthly_max=Decimal(1)),
    "option shock": changed("risk", option_shock_loss_max=Decimal(1)),
    "notional per minute": changed("risk", notional_per_minute_max=Decimal(1)),
    "option delta": changed("risk", option_delta_max=Decimal(1)),
    "option spread": changed("risk", option_spread_share_max=Decimal(1)),
    "catastrophic slippage": changed("kill_switch", slippage_events_max=10**6),
    "position cap": changed("sizing", position_cap_min=Decimal(1), position_cap_max=Decimal(1), good_setup_cap_min=Decimal(1),
                            good_setup_cap_max=Decimal(1)),
    "one pair's notional": changed("sizing", instrument_notional_max=_SIZING.instrument_notional_max.model_copy(
        update={"FOREX": Decimal(0)})),
}
"""Rule -> the shipped policies with this one threshold loosened completely. Without a threshold, so not here: one owner per instrument, no
short spot, stale quotes and bars, the permission rules."""

RARE: Mapping[str, tuple[Policies, Policies]] = {
    "owner's pair cap": (changed("funds", pair_cap=Decimal("0.001"), pair_cap_min=Decimal("0.001")),
                         changed("funds", pair_cap=Decimal(1), pair_cap_max=Decimal(1))),
}
"""Rule -> (strict, off) for rules whose shipped thresholds nothing in a demo can come to: the owner's pair cap is as wide as the widest
position cap, which therefore binds first. A strict threshold must change the run against none at all."""


Outcome = tuple[list[Any], list[Any], list[Any]]


def outcome_of(policies: Policies, seed: int, days: int) -> Outcome:
    """What came of a run: every decision's verdict and reason, every fill and every trade."""
    recorder = simulate(DemoMarket(seed, days), policies=policies).recorder
    return ([(d.decision_id, d.outcome, d.stopped_by) for d in recorder.decisions], [fact.fill for fact in recorder.fills],
            [fact.trade for fact in recorder.trades])


@cache
def outcome(rule: str | None, seed: int, days: int) -> Outcome:
    """Under the shipped policies, without `rule`."""
    return outcome_of(OFF[rule] if rule is not None else SHIPPED, seed, days)


@pytest.mark.parametrize("rule", ["liquidity", "carry", "one pair's notional"])
def test_switching_a_rule_off_changes_what_happens_within_a_day(rule: str) -> None:
    assert any(outcome(rule, seed, 1) != outcome(None, seed, 1) for seed in range(1, 7))


@pytest.mark.parametrize("rule", RARE)
def test_a_rule_that_cannot_bind_as_shipped_changes_what_happens_once_it_is_strict(rule: str) -> None:
    strict, off = RARE[rule]
    assert outcome_of(strict, SEEDS[0], DAYS) != outcome_of(off, SEEDS[0], DAYS)


@pytest.mark.parametrize("rule", ["cooldown of a class", "open positions"])
def test_switching_off_what_the_first_rush_provokes_changes_what_happens_within_two_days(rule: str) -> None:
    assert outcome(rule, SEEDS[0], DAYS) != outcome(None, SEEDS[0], DAYS)


@pytest.mark.slow
@pytest.mark.parametrize("rule", OFF)
def test_switching_any_rule_off_changes_what_happens_within_thirty_days(rule: str) -> None:
    """Rare things (a frozen feed while a strategy wants in) may take some months to matter: the first seed that shows it."""
    assert any(outcome(rule, seed, 30) != outcome(None, seed, 30) for seed in range(1, 13))
