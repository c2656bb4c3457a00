"""The command line as people and scripts meet it: exit codes, faults, documents, and the real process from start to SIGTERM."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from modules.cli.app import ready_to_end, run
from modules.cli.inputs import timerange
from modules.notify.console import _against
from tests.daemon_process import Process
from tests.timing import PATIENCE_S, within_wall

ROOT = Path(__file__).resolve().parents[1]
CHECK_KEYS = {"rule", "measured", "limit", "unit", "passed", "note"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place to run in, with the shipped policies."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    return tmp_path


def document(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> dict[str, Any]:
    """The one JSON document a verb prints."""
    capsys.readouterr()
    assert run([*argv, "--json"]) == code, capsys.readouterr().err
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


# -- exit codes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("argv", "code", "said"), [
    (["statsu"], 2, "did you mean status?"),
    (["frobnicate"], 2, "there are: trade, demo"),
    (["demo", "--sed", "3"], 2, "did you mean --seed?"),
    (["demo", "--days", "0"], 4, "1 to 3650"),
    (["events", "--days", "nan"], 4, "finite"),
    (["events", "--days", "-1"], 4, "above 0"),
    (["size", "--class", "spto", "--equity", "1", "--confidence", "1", "--entry", "1"], 4, "did you mean spot?"),
    (["size", "--class", "spot", "--equity", "NaN", "--confidence", "1", "--entry", "1"], 4, "finite"),
    (["size", "--class", "spot", "--equity", "1000", "--confidence", "1.5", "--entry", "1"], 4, "between 0 and 1"),
    (["reset-kill", "spot"], 4, "--reason"),
    (["status"], 3, "no daemon"),
    (["status", "--healthy"], 3, "no daemon"),
    (["kill"], 3, "HALT"),
    (["trades", "--json"], 3, "no journal"),
    (["logs"], 2, "no log"),
    (["export", "trades"], 2, "no journal"),
    (["journal", "verify"], 2, "no journal"),
    (["trade", "--mode", "live"], 4, "venue"),
    (["replay", "--data", "nowhere"], 4, "not a folder"),
    (["replay", "--data", ".", "--timerange", "yesterday"], 4, "20260101-20260201"),
    (["funds", "maybe"], 4, "on or off"),
    (["new-strategy", "Not-A-Name"], 1, "lower-case"),
    (["version"], 0, ""),
    (["list-strategies"], 0, ""),
    (["list-instruments", "--class", "perp"], 0, ""),
    (["list-venues"], 0, ""),
    (["show-config", "--policies"], 0, ""),
    (["--help"], 0, ""),
])
def test_every_end_has_its_exit_code_and_says_why_on_stderr(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str], code: int, said: str,
) -> None:
    assert run(argv) == code
    printed = capsys.readouterr()
    assert said in printed.err
    if code:
        assert printed.out == ""


@pytest.mark.parametrize("text", ["20210101-20220101", "2021-01-01:2022-01-01", "2021-01-01..2022-01-01", "2021-01-01-2022-01-01",
                                  "1609459200-1640995200"])
def test_a_time_range_is_understood_however_it_is_written(text: str) -> None:
    assert timerange(text) == (1_609_459_200_000, 1_640_995_200_000)


def test_a_faulty_configuration_lists_every_fault_of_every_file_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "one.toml").write_text('mode = "paper"\ndry_run_walet = 3\n[http]\nport = 99999\n')
    (folder / "two.toml").write_text("[demo]\nspeed = -1\n")
    assert run(["show-config", "-c", "one.toml", "-c", "two.toml"]) == 4
    said = capsys.readouterr().err
    for fault in ("dry_run_walet", "did you mean dry_run_wallet?", "http.port = 99999", "demo.speed = -1", "one.toml", "two.toml"):
        assert fault in said


def test_a_venue_that_cannot_be_traded_live_says_why_and_which_mode_works(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.toml").write_text('mode = "live"\n[venues.kraken]\nclasses = ["SPOT"]\nkey_file = "k"\n')
    assert run(["trade"]) == 4
    said = capsys.readouterr().err
    assert "live trading is refused" in said and 'mode = "paper"' in said
    assert not (folder / "state").exists()


def test_no_daemon_starts_with_a_calendar_that_lacks_a_series(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "policies").unlink()
    shutil.copytree(ROOT / "policies", folder / "policies")
    shipped = json.loads((folder / "policies" / "macro_calendar.json").read_text())
    shipped["series"] = [series for series in shipped["series"] if series["kind"] != "CPI"]
    (folder / "policies" / "macro_calendar.json").write_text(json.dumps(shipped))
    assert run(["trade"]) == 4
    assert "macro_calendar.json: series: CPI is missing" in capsys.readouterr().err
    assert not (folder / "state").exists()


def test_show_config_shows_no_secret(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT__TELEGRAM__TOKEN", "123456:CANARY-token")
    monkeypatch.setenv("BOT__TELEGRAM__CHAT_ID", "1")
    shown = document(capsys, "show-config")
    assert shown["settings"]["telegram"]["token"] == "***"


# -- size ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("equity", "phase"), [
    ("0.01", 1), ("999.99", 1), ("1000", 1), ("1000.01", 2), ("5000", 2), ("5000.01", 3), ("20000", 3), ("20000.01", 4),
])
def test_a_border_belongs_to_the_phase_below_it(folder: Path, capsys: pytest.CaptureFixture[str], equity: str, phase: int) -> None:
    shown = document(capsys, "size", "--class", "spot", "--equity", equity, "--confidence", "0.8", "--entry", "100", "--stop", "97")
    assert set(shown) == {"approved", "phase", "notional", "quantity", "risk", "bound_by", "reason", "checks"}
    assert shown["phase"] == phase
    assert all(set(check) == CHECK_KEYS for check in shown["checks"])


@pytest.mark.parametrize(("equity", "confidence", "notional", "bound_by"), [
    ("500", "0.3", "10", "phase_fixed"),
    ("1000", "1", "10", "phase_fixed"),
    ("5000", "0.8", "45", "phase_fraction"),         # 5,000 x (0.5 % + 0.8 x 0.5 %)
    ("7500", "0.8", "315", "position_cap"),          # 7,500 x (1 % + 0.8 x 4 %)
])
def test_what_a_trade_is_worth_by_the_owners_plan(
    folder: Path, capsys: pytest.CaptureFixture[str], equity: str, confidence: str, notional: str, bound_by: str,
) -> None:
    shown = document(capsys, "size", "--class", "spot", "--equity", equity, "--confidence", confidence, "--entry", "100", "--stop", "97")
    assert Decimal(shown["notional"]) == Decimal(notional)
    assert shown["bound_by"] == bound_by


def test_a_good_setup_of_phase_four_may_tie_up_twice_as_much(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("size", "--class", "spot", "--equity", "30000", "--confidence", "1", "--entry", "100", "--stop", "99.5")
    assert Decimal(document(capsys, *asked)["notional"]) == 1500
    assert Decimal(document(capsys, *asked, "--good-setup")["notional"]) == 3000


def test_a_lot_above_ten_dollars_is_denied_with_both_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = document(capsys, "size", "--class", "perp", "--equity", "300", "--confidence", "1", "--entry", "104000", "--stop", "103000",
                     "--lot", "0.0001")
    assert shown["approved"] is False
    failed = shown["checks"][-1]
    assert failed["rule"] == "SIZE_BELOW_MINIMUM"
    assert [Decimal(failed[side]) for side in ("measured", "limit")] == [Decimal(10), Decimal("10.4")]


# -- a simulated run ------------------------------------------------------------------------------------------------------


def test_a_demo_day_prints_one_document_and_twice_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (document(capsys, "demo", "--days", "1", "--seed", "7") for _ in range(2))
    assert first["reconciled"] is True
    assert set(first) == {"seed", "from", "to", "bars", "wall_s", "bars_per_s", "trace_hash", "reconciled", "classes", "blackouts",
                          "trade_log"}
    assert {key for key in first if first[key] != second[key]} <= {"wall_s", "bars_per_s"}
    assert set(first["classes"]) == {"SPOT", "PERP", "OPTION", "FOREX"}
    for shown in first["classes"].values():
        assert {"equity_start", "equity_end", "equity_curve", "trades", "gross_pnl", "net_pnl", "fees", "funding", "slippage_bp",
                "drawdown_daily_max", "drawdown_monthly_max", "phases", "denials", "halts"} <= set(shown)
    lines = [json.loads(line) for line in (folder / first["trade_log"]).read_text().splitlines()]
    assert {"signal", "reject", "order_intent", "order_ack", "fill", "close"} <= {line.get("action") for line in lines}


# -- the real process -----------------------------------------------------------------------------------------------------


@pytest.fixture
def process(folder: Path) -> Iterator[Process]:
    started = Process(folder)
    yield started
    started.end()


def test_the_daemon_trades_on_paper_obeys_and_goes_on_after_a_restart(process: Process, capsys: pytest.CaptureFixture[str]) -> None:
    process.wait("a trade", lambda: process.ask("trades")["open"] or process.ask("trades")["closed"])
    assert run(["status", "--healthy"]) == 0
    coming = document(capsys, "events", "--days", "30")    # the demo market's own calendar, at its own time, not the shipped one's
    assert abs(_hours(coming["at"], process.ask("status")["at"])) < 24 and coming["exhausted"] == {}
    assert coming["events"] and {event["source"] for event in coming["events"]} == {"demo"}
    second = process.second()
    assert second.returncode == 1 and "belongs to the running process" in second.stderr

    assert set(document(capsys, "kill")["halted"]) == {"SPOT", "PERP", "OPTION", "FOREX"}
    open_then = {trade["trade_id"] for trade in process.ask("trades")["open"]}
    at = process.ask("status")["at"]
    process.wait("three hours", lambda: _hours(process.ask("status")["at"], at) >= 3)
    assert {trade["trade_id"] for trade in process.ask("trades")["open"]} <= open_then
    assert process.ask("status")["classes"]["SPOT"]["state"] == "HALTED"

    code, seconds = process.stop()
    assert (code, seconds < within_wall(10.0)) == (0, True)
    assert not (process.state / "control.sock").exists()

    down = document(capsys, "status")
    assert down["running"] is False and down["classes"]["SPOT"]["state"] == "HALTED"
    assert document(capsys, "journal", "verify")["ok"] is True
    assert document(capsys, "events")["series"], "while nothing runs, the shipped calendar"
    assert run(["export", "fills"]) == 0
    fills = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert fills and {"at", "symbol", "price", "fee"} <= set(fills[0])
    assert run(["trade", "--seed", "8"]) == 4  # these are the books of market 7

    last = down["at"]
    process.start()
    process.wait("a status", lambda: process.ask("status")["at"] > last)
    assert process.ask("status")["classes"]["FOREX"]["state"] == "HALTED"
    assert process.ask("reset-kill", asset_class="ALL", reason="tested")["halted"] == {}
    (process.state / "HALT").touch()
    process.wait("the HALT file's halt", lambda: process.ask("status")["classes"]["PERP"]["state"] == "HALTED")
    code, seconds = process.stop(signal.SIGINT)
    assert (code, seconds < within_wall(10.0)) == (0, True)


def _hours(later: str, earlier: str) -> float:
    from modules.domain.sessions import parse_iso

    return (parse_iso(later) - parse_iso(earlier)) / 3_600_000


def test_a_daemon_told_to_end_while_it_still_loads_ends_with_code_0(folder: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end, ready_to_end("trade"):
        signal.raise_signal(signal.SIGTERM)
    assert end.value.code == 0
    with ready_to_end("demo"):
        assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_live_process_does_not_load_what_only_research_needs() -> None:
    code = ("import sys, modules.cli.trade; "
            "print(sorted(set(sys.modules) & {'pandas', 'numba', 'scipy', 'fastparquet', 'ccxt', 'telegram'}))")
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert printed.stdout.strip() == "[]", printed.stderr


def test_version_does_not_load_the_daemon() -> None:
    code = ("import sys; from modules.cli.app import run; run(['version']); "
            "print(sorted(set(sys.modules) & {'numpy', 'pydantic', 'main', 'rich.table'}))")
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert printed.stdout.splitlines()[-1] == "[]", printed.stderr


def test_another_python_than_the_installed_one_is_told_in_words() -> None:
    """`python main.py` outside the environment ended in a traceback about a missing module."""
    done = subprocess.run([sys.executable, "-S", "main.py", "doctor"], cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert done.returncode == 1 and ".venv/bin/python main.py" in done.stderr and "Traceback" not in done.stderr


def test_no_drawdown_is_not_shown_as_less_than_nothing() -> None:
    assert (_against(0.0, 0.05), _against(0.0123, 0.05)) == ("0.00 / 5 %", "-1.23 / 5 %")
