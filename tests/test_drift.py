"""Live against replay: what the daemon decided, beside what its strategies say over the very bars it saw."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import main
from modules.backtest.recorded import RecordedSource
from modules.cli.app import run
from modules.domain.events import StrategyDemoted
from modules.domain.instrument import AssetClass
from modules.news.calendar import Calendar
from modules.runtime import child
from modules.runtime.clock import VirtualClock, VirtualLoop
from modules.store.candles import Candles
from modules.store.decisions import Decisions
from modules.store.journal import Journal
from modules.strategies.registry import get
from tests.builders import AT, STRATEGY, shipped_policies
from tests.test_validation_cli import ROOT, write
from tests.test_validation_manager import World

SPOT = AssetClass.SPOT
NAMES = ("breakout", "reversion", "trend")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of a daemon that looked at 2,400 hours of two markets."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    for number, name in enumerate(("BTCUSDT", "ETHUSDT"), 1):
        write(tmp_path / "data", name, 2_400, number)
    folder = tmp_path / "state" / "demo"
    folder.mkdir(parents=True)
    lived(tmp_path / "data", folder)
    return folder


def lived(data: Path, folder: Path) -> None:
    rules = shipped_policies()
    source = RecordedSource(data, (SPOT,), costs=rules.costs)
    loop = VirtualLoop(source.start)
    journal, decisions, candles = Journal(folder / "journal.sqlite"), Decisions(folder / "decisions.sqlite"), Candles(
        folder / "candles.sqlite")
    try:
        asyncio.set_event_loop(loop)
        daemon = main.Daemon(main.simulated_plan(
            source, mode="demo", policies=rules, clock=VirtualClock(loop), journal=journal, decisions=decisions, candles=candles,
            wallets={SPOT: Decimal(10_000)}, calendar=Calendar((), rules.news, {}), strategies={SPOT: [get(name) for name in NAMES]},
            after_batch=(lambda at: daemon.strategies.count_bars(at),)))
        loop.run_until_complete(daemon.run())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
        candles.close()
        decisions.close()
        journal.close()


def drift(capsys: pytest.CaptureFixture[str], code: int) -> tuple[dict[str, Any], bytes]:
    capsys.readouterr()
    assert run(["drift", "--days", "365", "--json"]) == code, capsys.readouterr().err
    printed = capsys.readouterr().out
    return {row["strategy"]: row for row in json.loads(printed)["strategies"] if row["asset_class"] == "SPOT"}, printed.encode()


def test_a_daemon_that_did_what_its_strategies_say_differs_in_nothing(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = drift(capsys, 0)
    for name in ("breakout", "trend"):
        assert found[name]["compared"] >= 5 and found[name]["different"] == 0, found[name]
    assert run(["drift"]) == 0 and "Decided and replayed" in capsys.readouterr().out


def test_signals_that_the_bars_do_not_give_are_found_and_send_the_strategy_back_to_paper(
        state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(state / "candles.sqlite") as stored:  # what it decided on is not what is on record
        stored.execute("UPDATE candles SET close = close * 0.97, low = low * 0.97 WHERE ts % 50400000 = 0")
    found, printed = drift(capsys, 1)
    assert found["trend"]["drifts"] and found["trend"]["first"]

    world = World(tmp_path / "certificates")
    world.issue()
    assert world.allowed() and STRATEGY == "trend"
    world.manager.compared(child.Ended(1, printed, ""), AT + 1)
    (fact,) = world.facts(StrategyDemoted)
    assert fact.watch == "drift" and not world.allowed() and "differ from a replay of the same bars" in world.why_not()


@pytest.mark.parametrize("output", [b"", b"[]", b'{"strategies": 3}', b'{"strategies": [{"strategy": "trend"}]}', b"Traceback ..."])
def test_a_comparison_that_failed_demotes_nobody(tmp_path: Path, output: bytes) -> None:
    world = World(tmp_path / "certificates")
    world.issue()
    world.manager.compared(child.Ended(1, output, "broken"), AT + 1)
    assert world.allowed() and not world.facts(StrategyDemoted)


def test_what_is_not_stored_is_not_compared_and_said_so(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["drift", "--days", "365", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["strategies"]
    assert {row["why_not"] for row in rows if row["asset_class"] == "OPTION"} == {"it looks at option chains, which are not stored"}
    assert all(row["compared"] == 0 and not row["drifts"] for row in rows if row["asset_class"] != "SPOT")
