"""`demo --export` writes market and run; a stranger recounts it from the files alone, and one unit more anywhere is found."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from modules.backtest.audit_journal import journal_faults
from modules.backtest.export_run import read_run
from modules.cli.app import run
from tests import independent_ledger

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Any]]:
    """What a person gets who types it, and the document that was printed."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    told = subprocess.run([sys.executable, str(ROOT / "main.py"), "demo", "--days", "2", "--seed", "7", "--export", str(folder), "--json"],
                          capture_output=True, text=True, check=False, cwd=ROOT, env={"BOT__LOG_DIR": str(folder.parent / "logs")})
    assert told.returncode == 0, told.stderr
    return folder, json.loads(told.stdout)


def test_an_export_holds_the_run_beside_the_market_and_its_money_adds_up_from_the_files_alone(
        exported: tuple[Path, Mapping[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    folder, document = exported
    assert document["reconciled"] is True and document["export"] == str(folder / "run")
    with (folder / "run" / "fills.csv").open(encoding="utf-8", newline="") as handle:
        fills = list(csv.DictReader(handle))
    stranger = [sys.executable, str(Path(independent_ledger.__file__)), str(folder)]
    told = subprocess.run(stranger, capture_output=True, text=True, check=False)
    counted = json.loads(told.stdout)
    assert told.returncode == 0 and counted["reconciled"] is True
    assert counted["counted"]["fills"] == len(fills) > 20
    assert counted["counted"]["trades"] == sum(c["trades"] for c in document["classes"].values())
    assert run(["journal", "audit", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(folder), "reconciled": True, "faults": []}


def test_one_fill_changed_by_one_unit_ends_the_audit_with_false_and_exit_code_1(
        exported: tuple[Path, Mapping[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    path = exported[0] / "run" / "fills.csv"
    written = path.read_text(encoding="utf-8")
    header, *rows = csv.reader(written.splitlines())
    fee = header.index("fee")
    row = rows[len(rows) // 2]
    amount = Decimal(row[fee])
    row[fee] = format(amount + Decimal(1).scaleb(int(amount.as_tuple().exponent)), "f")
    path.write_text("\n".join(",".join(cells) for cells in (header, *rows)) + "\n", encoding="utf-8")
    try:
        assert run(["journal", "audit", str(exported[0]), "--json"]) == 1
        told = json.loads(capsys.readouterr().out)
        assert told["reconciled"] is False and told["faults"]
        assert independent_ledger.main(exported[0]) == 1
        assert json.loads(capsys.readouterr().out)["reconciled"] is False
    finally:
        path.write_text(written, encoding="utf-8")


EDITS = [*(("trades", column) for column in ("symbol", "side", "risk", "slippage_bp", "strategy")), ("funding", "rate"), ("funding", "at"),
         ("orders", "quantity"), ("instruments", "tick"), ("fills", "maker"), *((table, "") for table in ("orders", "trades", "fills"))]


@pytest.mark.parametrize(("table", "column"), EDITS, ids=[f"{table}-{column or 'a row dropped'}" for table, column in EDITS])
def test_what_no_sum_would_show_is_found_in_the_journal_beside_it(
        exported: tuple[Path, Mapping[str, Any]], table: str, column: str) -> None:
    path = exported[0] / "run" / f"{table}.csv"
    written = path.read_text(encoding="utf-8")
    header, *rows = csv.reader(written.splitlines())
    if column:
        cell = rows[len(rows) // 2][header.index(column)]
        rows[len(rows) // 2][header.index(column)] = {"BUY": "SELL", "SELL": "BUY", "0": "1", "1": "0"}.get(cell, f"1{cell}")
    else:
        del rows[len(rows) // 2]
    path.write_text("\n".join(",".join(cells) for cells in (header, *rows)) + "\n", encoding="utf-8")
    try:
        faults = journal_faults(exported[0], read_run(exported[0]))
        assert len(faults) == 1 and f"{table}.csv" in faults[0] and (column or "missing") in faults[0], faults
    finally:
        path.write_text(written, encoding="utf-8")


@pytest.mark.parametrize("edit", ["a number", "a row dropped", "the last row dropped"])
def test_a_journal_edited_together_with_the_tables_no_longer_ends_in_its_last_hash(
        exported: tuple[Path, Mapping[str, Any]], edit: str) -> None:
    path = exported[0] / "run" / "journal.jsonl"
    written = path.read_text(encoding="utf-8")
    lines = written.splitlines()
    middle = next(index for index, line in enumerate(lines) if '"FundingBooked"' in line)
    if edit == "a number":
        lines[middle] = lines[middle].replace('"rate":', '"rate":1')
    else:
        del lines[middle if edit == "a row dropped" else -1]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        assert any("journal.jsonl" in fault for fault in journal_faults(exported[0], read_run(exported[0])))
    finally:
        path.write_text(written, encoding="utf-8")


@pytest.mark.parametrize(("words", "code", "said"), [
    (["journal", "audit"], 4, "needs the folder"), (["journal", "audit", "nowhere"], 2, "no folder nowhere"),
    (["journal", "verify", "here"], 4, "--file names another journal")])
def test_an_audit_of_nothing_says_what_is_missing(words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == code
    assert said in capsys.readouterr().err


def test_a_daemons_state_folder_is_told_apart_from_an_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["journal", "audit", str(tmp_path)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "no folder that demo or replay --export wrote" in said and "journal verify" in said and "Errno" not in said


def test_the_options_ledger_is_in_the_currency_its_contracts_settle_in(exported: tuple[Path, Mapping[str, Any]]) -> None:
    ledgers = json.loads((exported[0] / "run" / "ledger.json").read_text(encoding="utf-8"))
    assert {name: (ledger["currency"], ledger["venue"]["currency"]) for name, ledger in ledgers.items()} == {
        "SPOT": ("USDT", "USDT"), "PERP": ("USDT", "USDT"), "OPTION": ("USDT", "USDT"), "FOREX": ("USD", "USD")}
