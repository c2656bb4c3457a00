"""The demo over many seeds: does the money add up, does a replay of the files trade the same, does a stranger find every denial and halt.

    python -m benchmarks.demo_campaign --seeds 50 --json FILE        (about a minute per seed of 30 days)

For every seed the run is exported and then judged by the audit, by tests/independent_ledger.py, by a replay of the exported market and by
tests/independent_rules.py. With --rules every rule that has a threshold is switched off over the seeds until the outcome changes. Exit code
0 if everything held, 1 if not.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import machine
from modules import Logger_Config
from modules.backtest.audit import audit, audit_folder
from modules.backtest.recorded import RecordedSource
from tests import independent_ledger, independent_rules
from tests.builders import shipped_policies
from tests.demo_runs import exported, simulate
from tests.test_demo_is_a_market import OFF, outcome


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
        "trace_hash": simulation.daemon.journal.head}


def switched_off(seeds: Sequence[int], days: int) -> dict[str, int | None]:
    """Rule -> the first seed on which switching it off changes a verdict, a fill or a trade; None = on none of them."""
    found: dict[str, int | None] = dict.fromkeys(OFF)
    for rule in OFF:
        found[rule] = next((seed for seed in seeds if outcome(rule, seed, days) != outcome(None, seed, days)), None)
        print(f"without {rule}: {'nothing changed' if found[rule] is None else f'seed {found[rule]} ends otherwise'}", file=sys.stderr)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_campaign", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=50, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rules", action="store_true", help="also switch every rule off until the outcome changes")
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args(arguments)
    seeds = range(asked.first, asked.first + asked.seeds)
    began, results, denials, halts = time.process_time(), [], Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="demo_campaign_") as folder:
        Logger_Config.configure(Path(folder) / "logs")
        for number, seed in enumerate(seeds, 1):
            with tempfile.TemporaryDirectory(dir=folder) as room:
                result = judge(seed, asked.days, Path(room) / "demo")
            results.append(result)
            denials.update(result["denials"])
            halts.update(result["halts"])
            print(f"{number}/{len(seeds)} seed {seed}: {result['trades']} trades, {result['derived']} of "
                  f"{sum(result['denials'].values())} denials and {sum(result['halts'].values())} halts and re-arms derived again, "
                  f"{len(result['faults'])} faults", file=sys.stderr)
        rules = switched_off(seeds, asked.days) if asked.rules else None
    held = not any(result["faults"] for result in results) and (rules is None or all(rules.values()))
    document = {
        "machine": machine(), "days": asked.days, "seeds": len(results), "held": held, "cpu_s": round(time.process_time() - began, 1),
        "denials": dict(denials.most_common()), "halts": dict(halts.most_common()), "rules_switched_off": rules, "runs": results}
    if asked.json is not None:
        asked.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in document.items() if key != "runs"}, indent=1))
    for result in results:
        for fault in result["faults"][:10]:
            print(f"seed {result['seed']}: {fault}", file=sys.stderr)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
