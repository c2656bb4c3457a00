"""The demo over many seeds: does the money add up, does a replay of the files trade the same, does a stranger find every denial and halt,
and is every rule at work at least once.

    python -m benchmarks.demo_campaign --seeds 50 --json FILE        (about a minute per seed of 30 days)

For every seed the run is exported and then judged by the audit, by tests/independent_ledger.py, by a replay of the exported market and by
tests/independent_rules.py. FILE is written anew after every seed. With --rules every rule that has a threshold is switched off over the
seeds until the outcome changes. Exit code 0 if everything held, 1 if not.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import machine
from main import Simulation
from modules import Logger_Config
from modules.backtest.audit import audit, audit_folder
from modules.backtest.recorded import RecordedSource
from modules.domain.decision import Outcome, Rule
from modules.domain.events import BlackoutOpened, Fact, OptionSettled
from tests import independent_ledger, independent_rules
from tests.builders import shipped_policies
from tests.demo_runs import exported, simulate
from tests.test_demo_is_a_market import OFF, outcome
from tests.test_demo_shows_every_rule import SHOWN


def unseen(simulation: Simulation) -> list[str]:
    """What thirty days should show and this run did not: rules that denied nothing, halts, phases, funding, expiries."""
    recorder = simulation.recorder
    failed = {check.rule for decision in recorder.decisions if decision.outcome is Outcome.DENIED
              for check in decision.checks if not check.passed}
    failed |= {decision.stopped_by for decision in recorder.decisions if decision.stopped_by is not None}
    rules: Sequence[Rule] = (*SHOWN, Rule.OPEN_INTEREST_BELOW_MINIMUM, Rule.SHOCK_LOSS_ABOVE_MAXIMUM, Rule.VEGA_LOSS_ABOVE_MAXIMUM,
                             Rule.NOTIONAL_PER_MINUTE_ABOVE_MAXIMUM)
    facts: Sequence[Fact] = [fact for _, fact in simulation.daemon.journal.facts()]
    rearmed = {halt["trigger"] for halt in recorder.halts if halt["rearmed_at"] is not None}
    shown: Mapping[str, bool] = {
        **{rule.value: rule in failed for rule in rules},
        **{f"halt and re-arm: {trigger}": trigger in rearmed for trigger in ("daily_drawdown", "slippage")},
        **{f"phase {phase}": any(each["phase"] == phase for known in recorder.phases.values() for each in known) for phase in (1, 2, 3, 4)},
        "blackout": any(isinstance(fact, BlackoutOpened) for fact in facts),
        "funding paid": any(fact.amount < 0 for fact in recorder.funding),
        "funding received": any(fact.amount > 0 for fact in recorder.funding),
        "expired in the money": any(isinstance(fact, OptionSettled) and fact.value > 0 for fact in facts),
        "expired out of the money": any(isinstance(fact, OptionSettled) and fact.value == 0 for fact in facts)}
    return [name for name, seen in shown.items() if not seen]


def judge(seed: int, days: int, folder: Path) -> dict[str, Any]:
    """One seed's verdicts; `faults` is empty if all held."""
    simulation = exported(seed, days, folder)
    faults = [*audit(simulation), *audit_folder(folder)]
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        if independent_ledger.main(folder):
            faults.append(f"independent ledger: {told.getvalue()}")
    source = RecordedSource(folder, costs=shipped_policies().costs)
    replayed = simulate(source, wallets=source.wallets or {})
    if replayed.daemon.journal.head != simulation.daemon.journal.head:
        faults.append("a replay of the exported market left another journal")
    if replayed.recorder.decisions != simulation.recorder.decisions:
        faults.append("a replay of the exported market decided otherwise")
    report = independent_rules.rederive(folder)
    recorder = simulation.recorder
    return {
        "seed": seed, "faults": [*faults, *report.faults], "fills": len(recorder.fills), "trades": len(recorder.trades),
        "funding": len(recorder.funding), "settlements": len(recorder.settlements), "decisions": report.decisions,
        "denials": dict(report.denials), "derived": sum(report.denials_derived.values()), "halts": dict(report.halts),
        "unseen": unseen(simulation), "trace_hash": simulation.daemon.journal.head}


def switched_off(seeds: Sequence[int], days: int) -> dict[str, int | None]:
    """Rule -> the first seed on which switching it off changes a verdict, a fill or a trade; None = on none of them."""
    found: dict[str, int | None] = dict.fromkeys(OFF)
    for rule in OFF:
        found[rule] = next((seed for seed in seeds if outcome(rule, seed, days) != outcome(None, seed, days)), None)
        print(f"without {rule}: {'nothing changed' if found[rule] is None else f'seed {found[rule]} ends otherwise'}", file=sys.stderr)
    return found


def report(results: Sequence[dict[str, Any]], days: int, began: float, rules: Mapping[str, int | None] | None) -> dict[str, Any]:
    """The whole campaign so far. `unseen` counts, per thing to be seen, the seeds that did not show it."""
    denials, halts, unseen_on = Counter[str](), Counter[str](), Counter[str]()
    for result in results:
        denials.update(result["denials"])
        halts.update(result["halts"])
        unseen_on.update(result["unseen"])
    held = not any(result["faults"] for result in results) and (rules is None or all(rules.values()))
    return {
        "machine": machine(), "days": days, "seeds": len(results), "held": held, "cpu_s": round(time.process_time() - began, 1),
        "faults": sum(len(result["faults"]) for result in results), "denials": dict(denials.most_common()),
        "denials_derived": sum(result["derived"] for result in results), "halts": dict(halts.most_common()),
        "unseen": dict(unseen_on.most_common()), "rules_switched_off": rules, "runs": list(results)}


def write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_campaign", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=50, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rules", action="store_true", help="also switch every rule off until the outcome changes")
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args(arguments)
    seeds = range(asked.first, asked.first + asked.seeds)
    began, results = time.process_time(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory(prefix="demo_campaign_") as folder:
        Logger_Config.configure(Path(folder) / "logs")
        for number, seed in enumerate(seeds, 1):
            with tempfile.TemporaryDirectory(dir=folder) as room:
                result = judge(seed, asked.days, Path(room) / "demo")
            results.append(result)
            print(f"{number}/{len(seeds)} seed {seed}: {result['trades']} trades, {result['derived']} of "
                  f"{sum(result['denials'].values())} denials and {sum(result['halts'].values())} halts and re-arms derived again, "
                  f"{len(result['faults'])} faults, not seen: {', '.join(result['unseen']) or 'nothing'}", file=sys.stderr, flush=True)
            if asked.json is not None:
                write(asked.json, report(results, asked.days, began, None))
        rules = switched_off(seeds, asked.days) if asked.rules else None
    document = report(results, asked.days, began, rules)
    if asked.json is not None:
        write(asked.json, document)
    print(json.dumps({key: value for key, value in document.items() if key != "runs"}, indent=1))
    for result in results:
        for fault in result["faults"][:10]:
            print(f"seed {result['seed']}: {fault}", file=sys.stderr)
    return 0 if document["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
