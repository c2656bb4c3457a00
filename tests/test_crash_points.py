"""The daemon is killed (SIGKILL, a real process) at every journal step of an order's life, started again, and must have lost nothing.

Each life of the daemon is a process of its own, forked from this one, which has everything imported. The venue's log of what reached it
is written by the test's witness before the venue acts, so "sent twice" is not asked of the daemon. The rest of the evidence: books equal
to the venue's wallet, one stop per position, an intact journal, and a fresh replay that rebuilds the very same state.
"""

from __future__ import annotations

import ast
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from modules.domain.errors import ConfigurationError
from modules.domain.events import (
    Fact,
    Filled,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderInDoubt,
    OrderIntended,
    OrderRejected,
    OrderSent,
    TradingHalted,
    TransferSeen,
)
from modules.domain.order import Purpose
from modules.runtime import failpoint
from modules.store.journal import Journal
from tests.crash_runner import reached_venue, run_once, whole_market
from tests.timing import within

ROOT = Path(__file__).resolve().parents[1]
HOURS = 1.2
"""Of market time per life: every class trades, stops and targets are hit."""
PATIENCE_S = 180.0

KILLS = (
    "journal.uncommitted:kill@3", "order.before_sent:kill@9", "order.answered:kill@9", "order.fate_booked:kill@9", "fill.before:kill@6",
    "fill.booked:kill@6", "protect.before:kill@4", "protect.resize:kill@2", "cancel.answered:kill@2", "exit.requested:kill",
    "close.written:kill@2", "journal.row_written:kill@137", "learning.before:kill@4",
    "learning.written:kill@4",
)
MORE_KILLS = tuple(
    f"{name}:kill@{visit}" for name in failpoint.POINTS for visit in (1, 2, 5, 11)
    if not name.startswith(("start.", "doubt.", "halt.", "baseline.", "funding.", "settlement.", "transfer.", "stop."))
)


def run(folder: Path, specification: str = "", hours: float = HOURS) -> int:
    """One life of the daemon in a process of its own; its exit code (-9 = killed)."""
    whole_market()  # made once, inherited by every child
    child = os.fork()
    if not child:
        code = 1
        try:
            run_once(str(folder), hours, specification)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)  # never back into pytest
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"{specification or 'the restart'} hung for {PATIENCE_S:g} s")


def facts_of(folder: Path) -> list[Fact]:
    with Journal(folder / "journal.sqlite", read_only=True) as journal:
        return [fact for _, fact in journal.facts()]


def killed_and_restarted(folder: Path, specification: str, hours: float = HOURS) -> dict[str, Any]:
    """Kill at the failpoint, start again, let it end; its report."""
    assert run(folder, specification, hours) == -signal.SIGKILL, f"{specification} was never reached"
    assert not (folder / "report.json").exists()
    assert run(folder, hours=hours) == 0
    document: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return document


def assert_nothing_was_lost(folder: Path, document: dict[str, Any]) -> None:
    assert document["differences_at_start"] == 0 and document["differences"] == 0, "books and venue disagree"
    assert document["unprotected"] == [], "an open position without its stop"
    assert document["replayed"] == [], "a replay of the journal is not what the daemon was"
    assert document["in_doubt"] == 0 and document["quarantined"] == []
    facts = facts_of(folder)  # verifies the chain
    sent = Counter(line[0] for line in reached_venue(folder))
    assert [order for order, times in sent.items() if times > 1] == [], "an order reached the venue twice"
    intended = Counter(fact.order.client_order_id for fact in facts if isinstance(fact, OrderIntended))
    assert max(intended.values()) == 1, "one id for two intents"
    on_record = {fact.client_order_id for fact in facts if isinstance(fact, OrderSent)}
    assert set(sent) <= on_record <= set(intended), "something left before it was on record"
    fills = [(fact.fill.venue, fact.fill.symbol, fact.fill.venue_trade_id) for fact in facts if isinstance(fact, Filled)]
    assert len(set(fills)) == len(fills), "a fill was booked twice"
    filled: Counter[str] = Counter()
    for fact in facts:
        if isinstance(fact, Filled):
            filled[fact.fill.client_order_id] += fact.fill.quantity  # type: ignore[assignment]
    quantity = {fact.order.client_order_id: fact.order.quantity for fact in facts if isinstance(fact, OrderIntended)}
    assert all(filled[order] <= quantity[order] for order in filled if order), "more was filled than ordered"
    assert_one_stop_at_a_time(facts)


def assert_one_stop_at_a_time(facts: list[Fact]) -> None:
    """Never two working stops of one trade (I14): from acceptance to end, by the journal."""
    stops: dict[str, str] = {}
    resting: dict[str, set[str]] = {}
    for fact in facts:
        ended = ""
        if isinstance(fact, OrderIntended) and fact.order.purpose is Purpose.STOP:
            stops[fact.order.client_order_id] = fact.order.trade_id
        elif isinstance(fact, OrderAccepted) and fact.client_order_id in stops:
            of_trade = resting.setdefault(stops[fact.client_order_id], set())
            of_trade.add(fact.client_order_id)
            assert len(of_trade) == 1, f"two stops of trade {stops[fact.client_order_id]}"
        elif isinstance(fact, OrderCanceled | OrderExpired | OrderRejected):
            ended = fact.client_order_id
        elif isinstance(fact, Filled) and fact.order_done:
            ended = fact.fill.client_order_id
        if ended in stops:
            resting.setdefault(stops[ended], set()).discard(ended)


@pytest.mark.parametrize("specification", KILLS)
def test_killed_at_any_step_of_an_orders_life_nothing_is_lost_and_nothing_sent_twice(
    tmp_path: Path, specification: str
) -> None:
    assert_nothing_was_lost(tmp_path, killed_and_restarted(tmp_path, specification))


@pytest.mark.slow
@pytest.mark.parametrize("specification", MORE_KILLS)
def test_killed_at_every_failpoint_again_and_again(tmp_path: Path, specification: str) -> None:
    code = run(tmp_path, specification, 5)
    if code == 0:
        pytest.skip("not visited that often in five hours")
    assert code == -signal.SIGKILL and run(tmp_path, hours=5) == 0
    assert_nothing_was_lost(tmp_path, json.loads((tmp_path / "report.json").read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("row", range(40, 1200, 23))
def test_killed_after_any_row_of_the_journal(tmp_path: Path, row: int) -> None:
    assert_nothing_was_lost(tmp_path, killed_and_restarted(tmp_path, f"journal.row_written:kill@{row}", 6))


def test_an_order_that_had_left_without_an_answer_is_in_doubt_and_ends_by_proof(tmp_path: Path) -> None:
    document = killed_and_restarted(tmp_path, "order.sent:kill@9")
    assert_nothing_was_lost(tmp_path, document)
    facts = facts_of(tmp_path)
    doubted = next(fact for fact in facts if isinstance(fact, OrderInDoubt))
    assert "before the restart" in doubted.reason
    end = next(fact for fact in facts if isinstance(fact, OrderExpired) and fact.client_order_id == doubted.client_order_id)
    assert "never placed" in end.reason and end.at - doubted.at >= 5_000
    assert document["in_doubt"] == 0


def test_an_intent_that_never_left_ends_and_is_not_sent_by_the_next_life(tmp_path: Path) -> None:
    assert run(tmp_path, "entry.intended:kill@4") == -signal.SIGKILL
    last = [fact for fact in facts_of(tmp_path) if isinstance(fact, OrderIntended)][-1].order.client_order_id
    assert run(tmp_path) == 0
    assert_nothing_was_lost(tmp_path, json.loads((tmp_path / "report.json").read_text()))
    assert last not in {line[0] for line in reached_venue(tmp_path)}


def test_killed_while_starting_again_and_again_it_converges(tmp_path: Path) -> None:
    assert run(tmp_path, "fill.booked:kill@8") == -signal.SIGKILL
    before = len(facts_of(tmp_path))
    for name in [name for name in failpoint.POINTS if name.startswith("start.") and name != "start.opening"]:
        assert run(tmp_path, f"{name}:kill") == -signal.SIGKILL, name
    grown = len(facts_of(tmp_path)) - before
    assert grown < 40, "every start adds to the journal more than that it started"
    assert run(tmp_path) == 0
    document = json.loads((tmp_path / "report.json").read_text())
    assert_nothing_was_lost(tmp_path, document)


def test_killed_at_the_opening_balances_all_are_booked_together_and_none_twice(tmp_path: Path) -> None:
    assert run(tmp_path, "start.opening:kill", 0.5) == -signal.SIGKILL
    assert len([fact for fact in facts_of(tmp_path) if isinstance(fact, TransferSeen)]) == 4, "one commit: no crash leaves half of them"
    assert run(tmp_path, hours=0.5) == 0
    opened = [fact.venue_ref for fact in facts_of(tmp_path) if isinstance(fact, TransferSeen)]
    assert sorted(opened) == ["opening FOREX", "opening OPTION", "opening PERP", "opening SPOT"]


def test_a_halt_that_was_not_yet_written_when_the_power_went_is_latched_again(tmp_path: Path) -> None:
    """The HALT file is there before and after: killed before the row, the next life writes it, and no entry leaves in between."""
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "HALT").touch()
    assert run(tmp_path, "halt.before:kill", 0.5) == -signal.SIGKILL
    assert not [fact for fact in facts_of(tmp_path) if isinstance(fact, TradingHalted)]
    assert run(tmp_path, "halt.written:kill", 0.5) == -signal.SIGKILL
    assert run(tmp_path, hours=0.5) == 0
    assert [fact for fact in facts_of(tmp_path) if isinstance(fact, TradingHalted)]
    assert json.loads((tmp_path / "report.json").read_text())["halts"] == ["manual"]
    assert reached_venue(tmp_path) == []


def test_the_variable_in_the_environment_kills_the_real_program(tmp_path: Path) -> None:
    environment = {**os.environ, "FAILPOINT": "order.sent:kill"}
    code = subprocess.run([sys.executable, "-m", "tests.crash_runner", str(tmp_path), "1"], cwd=ROOT, env=environment, check=False,
                          timeout=PATIENCE_S).returncode
    assert code == -signal.SIGKILL
    last = facts_of(tmp_path)[-1]
    assert isinstance(last, OrderSent) and reached_venue(tmp_path) == [], "on record, and no byte has left"


# -- failpoints themselves ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _disarmed() -> Any:
    yield
    failpoint.arm("")


def test_every_failpoint_is_in_the_code_and_every_one_in_the_code_is_listed() -> None:
    found: Counter[str] = Counter()
    for path in [ROOT / "main.py", *(ROOT / "modules").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "failpoint.hit":
                assert isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno}: a failpoint's name is a constant"
                found[node.args[0].value] += 1  # type: ignore[index]
    assert set(found) == set(failpoint.POINTS)
    assert len(failpoint.POINTS) >= 30


def test_a_failpoint_acts_at_its_visit_and_only_then() -> None:
    failpoint.arm("fill.before:raise@3, done.before:raise")
    failpoint.hit("fill.before")
    failpoint.hit("fill.before")
    with pytest.raises(failpoint.FailpointRaised, match=r"fill\.before"):
        failpoint.hit("fill.before")
    failpoint.hit("fill.before")
    with pytest.raises(failpoint.FailpointRaised):
        failpoint.hit("done.before")


def test_a_sleeping_failpoint_blocks_the_process_for_as_long_as_it_says() -> None:
    failpoint.arm("fill.before:sleep=0.05")
    began = time.perf_counter()
    failpoint.hit("fill.before")
    assert time.perf_counter() - began >= 0.05


def test_unarmed_a_failpoint_costs_less_than_a_microsecond() -> None:
    failpoint.arm("")
    hit, rounds = failpoint.hit, 20_000
    best = min(_time(hit, rounds) for _ in range(5))
    assert best / rounds < within(1e-6)


def _time(function: Any, rounds: int) -> float:
    began = time.process_time()
    for _ in itertools.repeat(None, rounds):
        function("fill.before")
    return time.process_time() - began


@pytest.mark.parametrize("specification", ["fill.before", "fill.before:explode", "no.such.point:kill", "fill.before:kill@0",
                                           "fill.before:kill=3", "fill.before:sleep=x", "fill.before:raise@-1"])
def test_a_failpoint_that_makes_no_sense_is_refused_and_changes_nothing(specification: str) -> None:
    failpoint.arm("done.before:raise")
    with pytest.raises(ConfigurationError, match="FAILPOINT"):
        failpoint.arm(specification)
    with pytest.raises(failpoint.FailpointRaised):
        failpoint.hit("done.before")


def test_all_faults_of_a_specification_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        failpoint.arm("nowhere.at.all:kill,fill.before:explode")
    assert len(caught.value.faults) == 2
