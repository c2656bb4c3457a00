"""The money of a demo run adds up to the last unit, and whoever changes one unit of it is found out."""

from __future__ import annotations

import ast
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import pytest

import main
from modules.backtest.audit import audit, audit_folder, run_faults
from modules.backtest.audit import main as audit_program
from modules.backtest.export_run import Row, export_run, read_run, run_of
from modules.domain.instrument import AssetClass
from tests import independent_ledger
from tests.demo_runs import exported

SEEDS = (7, 21)
DAYS = 2
LEDGER = Path(independent_ledger.__file__)


@dataclass(frozen=True)
class Demo:
    simulation: main.Simulation
    folder: Path


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, Demo]:
    folders = {seed: tmp_path_factory.mktemp("demo") / str(seed) for seed in SEEDS}
    return {seed: Demo(exported(seed, DAYS, folder, history_days=1), folder) for seed, folder in folders.items()}


@pytest.fixture(params=SEEDS)
def demo(request: pytest.FixtureRequest, demos: Mapping[int, Demo]) -> Demo:
    return demos[request.param]


@pytest.fixture
def copy(demos: Mapping[int, Demo], tmp_path: Path) -> Iterator[Path]:
    """The first export, to be tampered with."""
    folder = tmp_path / "copy"
    shutil.copytree(demos[SEEDS[0]].folder, folder)
    yield folder
    shutil.rmtree(folder)


def edit(folder: Path, name: str, change: Callable[[list[Row]], None]) -> None:
    path = folder / "run" / f"{name}.csv"
    with path.open(encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(handle)
        rows, header = list(reader), list(reader.fieldnames or ())
    change(rows)
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def one_unit_more(cell: str) -> str:
    """The number with its last digit one higher."""
    amount = Decimal(cell)
    return format(amount + Decimal(1).scaleb(int(amount.as_tuple().exponent)), "f")


def test_a_demo_run_reconciles_with_books_wallet_market_and_a_stranger(demo: Demo) -> None:
    assert demo.simulation.differences == 0
    assert len(demo.simulation.recorder.fills) > 20
    assert {fact.asset_class.value for fact in demo.simulation.recorder.funding} == {"PERP", "FOREX"}
    assert audit(demo.simulation) == []
    assert audit_folder(demo.folder) == []
    told = subprocess.run([sys.executable, str(LEDGER), str(demo.folder)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    document = json.loads(told.stdout)
    assert document["reconciled"] is True
    assert document["counted"]["fills"] == len(demo.simulation.recorder.fills)
    assert document["counted"]["funding"] == len(demo.simulation.recorder.funding)


def test_the_independent_program_imports_none_of_ours() -> None:
    tree = ast.parse(LEDGER.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert all(name.partition(".")[0] in sys.stdlib_module_names for name in imported), imported


@pytest.mark.parametrize("column", ["quantity", "price", "fee"])
def test_one_fill_changed_by_one_unit_is_found_by_both(copy: Path, column: str, capsys: pytest.CaptureFixture[str]) -> None:
    def change(rows: list[Row]) -> None:
        row = rows[len(rows) // 2]
        row[column] = one_unit_more(row[column])

    edit(copy, "fills", change)
    assert independent_ledger.main(copy) == 1
    assert json.loads(capsys.readouterr().out)["reconciled"] is False
    assert audit_program([str(copy)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["reconciled"] is False and told["faults"]


def test_the_independent_program_says_false_and_exit_code_1(copy: Path) -> None:
    edit(copy, "fills", lambda rows: rows[0].update(price=one_unit_more(rows[0]["price"])))
    told = subprocess.run([sys.executable, str(LEDGER), str(copy)], capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert json.loads(told.stdout)["reconciled"] is False


@pytest.mark.parametrize("column", ["quantity", "price", "fee"])
def test_any_fill_changed_by_one_unit_breaks_the_books(demo: Demo, column: str) -> None:
    """Every fill in turn, without looking at the market at all: books and wallet alone find it."""
    run = run_of(demo.simulation)
    fills = run.tables["fills"]
    for index, row in enumerate(fills):
        forged = [*fills[:index], {**row, column: one_unit_more(row[column])}, *fills[index + 1:]]
        assert run_faults(replace(run, tables={**run.tables, "fills": forged})), (row["symbol"], row["venue_trade_id"])


@pytest.mark.parametrize("change", [
    pytest.param(lambda rows: rows.pop(len(rows) // 2), id="missing"),
    pytest.param(lambda rows: rows.insert(1, dict(rows[0])), id="duplicated"),
    pytest.param(lambda rows: rows.append({**rows[-1], "venue_ref": "funding:made:up"}), id="invented"),
    pytest.param(lambda rows: rows[0].update(amount=one_unit_more(rows[0]["amount"])), id="one unit more"),
])
def test_a_funding_row_that_is_not_as_it_was_is_found_by_both(copy: Path, change: Callable[[list[Row]], None],
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    edit(copy, "funding", change)
    assert independent_ledger.main(copy) == 1
    assert json.loads(capsys.readouterr().out)["reconciled"] is False
    assert audit_folder(copy)


def test_funding_that_books_and_wallet_agree_on_is_still_held_against_the_market(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Books, wallet and row forged alike: only the recorded rates can tell."""
    forged: list[Row] = []

    def change(rows: list[Row]) -> None:
        row = next(row for row in reversed(rows) if row["asset_class"] == "PERP")
        row["amount"] = one_unit_more(row["amount"])
        forged.append(row)

    edit(copy, "funding", change)
    path = copy / "run" / "ledger.json"
    ledgers = json.loads(path.read_text(encoding="utf-8"))
    book = ledgers["PERP"]
    for place, key in ((book, "cash"), (book, "funding"), (book, "net"), (book, "equity_end"), (book["venue"], "cash")):
        place[key] = format(Decimal(place[key]) + Decimal("0.00000001"), "f")
    path.write_text(json.dumps(ledgers), encoding="utf-8")
    assert any("due were" in fault for fault in audit_folder(copy))
    assert independent_ledger.main(copy) == 1
    assert forged[0]["venue_ref"] in capsys.readouterr().out


def test_a_wallet_that_holds_a_unit_less_is_found(demo: Demo) -> None:
    run = run_of(demo.simulation)
    for name, ledger in run.ledgers.items():
        stolen = {**ledger["venue"], "cash": format(Decimal(ledger["venue"]["cash"]) - Decimal("0.00000001"), "f")}
        faults = run_faults(replace(run, ledgers={**run.ledgers, name: {**ledger, "venue": stolen}}))
        assert len(faults) == 1 and faults[0].startswith(f"wallet {name}: cash"), faults


def test_an_export_reads_back_as_what_was_written_and_is_never_written_over(demo: Demo) -> None:
    written, read = run_of(demo.simulation), read_run(demo.folder)
    assert read == replace(written, policies=read.policies)
    assert json.loads(json.dumps(written.policies)) == read.policies
    with pytest.raises(FileExistsError, match="two runs are never mixed"):
        export_run(demo.simulation, demo.folder)


@pytest.mark.parametrize("damage", [
    pytest.param(lambda folder: (folder / "run" / "fills.csv").unlink(), id="a file is missing"),
    pytest.param(lambda folder: (folder / "run" / "ledger.json").write_text("{"), id="a file is cut off"),
    pytest.param(lambda folder: edit(folder, "fills", lambda rows: rows[0].update(price="many")), id="a price is a word"),
])
def test_a_damaged_export_is_a_fault_and_no_traceback(copy: Path, damage: Callable[[Path], None],
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    damage(copy)
    assert audit_program([str(copy)]) == 1
    assert len(json.loads(capsys.readouterr().out)["faults"]) == 1
    assert independent_ledger.main(copy) == 1


def test_net_is_gross_less_fees_plus_funding_in_every_class(demo: Demo) -> None:
    for shown in demo.simulation.recorder.classes(dict.fromkeys(AssetClass, Decimal(0))).values():
        assert Decimal(shown["gross_pnl"]) - Decimal(shown["fees"]) + Decimal(shown["funding"]) == Decimal(shown["net_pnl"])
