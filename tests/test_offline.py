"""What a finished run's journal and decisions say when nobody runs, and an end that comes before the beginning."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modules.cli.app import run
from modules.store.journal import Journal
from tests.daemon_process import ROOT

EARLY = """
import os, runpy, signal, sys
sys.argv = ["main.py", *sys.argv[2:]]
sys.path.insert(0, os.path.dirname(os.path.abspath("main.py")))
sys.addaudithook(lambda event, given: os.kill(os.getpid(), signal.SIGTERM) if event == "import" and given[0] == "modules.cli.app" else None)
runpy.run_path("main.py", run_name="__main__")
"""
"""Told to end at its first import of ours."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("day")
    (made / "policies").symlink_to(ROOT / "policies")
    told = subprocess.run([sys.executable, str(ROOT / "main.py"), "demo", "--days", "1", "--seed", "7", "--state", "state/demo"],
                          cwd=made, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    return made


def asked(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    assert run([*words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_each_class_is_told_in_its_own_currency(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status = asked(folder, monkeypatch, capsys, "status")
    assert not status["running"]
    assert {name: shown["currency"] for name, shown in status["classes"].items()} == {
        "SPOT": "USDT", "PERP": "USDT", "OPTION": "USDT", "FOREX": "USD"}


def test_the_funnel_begins_with_the_bars_that_each_class_looked_at(
        folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An option has no bars; its strategies look at their underlying's: three perpetuals, every five minutes."""
    bars = {name: shown["bars"] for name, shown in asked(folder, monkeypatch, capsys, "explain")["classes"].items()}
    assert bars["SPOT"] >= 6 * 288 and bars["PERP"] >= 16 * 288
    assert bars["OPTION"] % 3 == 0 and 3 * 250 < bars["OPTION"] <= 3 * 300


def test_an_open_trade_is_told_without_a_price_as_unknown(
        folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for trade in asked(folder, monkeypatch, capsys, "trades")["open"]:
        assert (trade["mark"], trade["net_now"]) == (None, None)


@pytest.mark.parametrize(("words", "code"), [((), 0), (("trade",), 0), (("--mode", "demo"), 0), (("demo",), -signal.SIGTERM)],
                         ids=["alone", "trade", "an option", "another verb"])
def test_a_daemon_told_to_end_before_it_has_loaded_ends_in_good_order(words: tuple[str, ...], code: int) -> None:
    ended = subprocess.run([sys.executable, "-c", EARLY, "--", *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == code, ended.stderr


def test_a_journal_without_a_row_is_no_daemon_of_1970(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A start that never reached its venue leaves one behind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    (tmp_path / "state" / "demo").mkdir(parents=True)
    Journal(tmp_path / "state" / "demo" / "journal.sqlite").close()
    assert run(["status"]) == 3
    said = capsys.readouterr()
    assert "is still empty" in said.err and "1970" not in said.out + said.err
