"""The research verbs as people and scripts meet them: documents, exit codes, faults with their remedy. Small histories, real files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modules.cli.app import run
from tests import validation_worlds as worlds

ROOT = Path(__file__).resolve().parents[1]


def write(folder: Path, name: str, bars: int, seed: int) -> None:
    """A recording as `demo --export` and download-data name them."""
    one = worlds.world("X/USDT", bars, seed)
    folder.mkdir(exist_ok=True)
    with (folder / f"demo_{name}_1h.csv").open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(("ts", "open", "high", "low", "close", "volume"))
        rows.writerows(zip(one.opened.tolist(), one.open.tolist(), one.high.tolist(), one.low.tolist(), one.close.tolist(),
                           one.volume.tolist(), strict=True))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    write(tmp_path / "data", "BTCUSDT", 2_400, 1)
    write(tmp_path / "data", "ETHUSDT", 2_400, 2)
    return tmp_path


def document(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert run([*argv, "--json"]) == code, capsys.readouterr().err
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


@pytest.mark.parametrize(("argv", "code", "said"), [
    (["validate", "--data", "nowhere"], 4, "not a folder"),
    (["validate", "-s", "trnd", "--data", "data"], 4, "did you mean 'trend'?"),
    (["walk-forward", "-s", "session", "--data", "data", "--classes", "spot"], 4, "they trade forex"),
    (["validate", "--data", "data", "--symbols", "DOGE/USDT"], 4, "is not recorded in data; there are BTC/USDT, ETH/USDT"),
    (["validate", "--data", "data", "--report", "no/such/folder/r.html"], 4, "make it first"),
    (["validate", "--data", "data", "--workers", "0"], 4, "1 to 256"),
    (["validate", "--data", "data", "--workers", "2", "--cluster", "x:1"], 4, "not allowed with"),
    (["validate", "--data", "data", "--timerange", "soon"], 4, "20260101-20260201"),
    (["optimize", "--data", "data"], 4, "-s"),
    (["recursive", "-s", "trend", "--data", "data", "--warmups", "5000"], 4, "has only 2,400 bars"),
    (["validate", "--dat", "data"], 2, "did you mean --data?"),
    (["lookahed"], 2, "did you mean lookahead?"),
])
def test_a_faulty_command_names_what_is_wrong_and_what_would_be_right(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str], code: int, said: str) -> None:
    assert run(argv) == code
    printed = capsys.readouterr()
    assert said in printed.err and printed.out == ""
    assert not (folder / "state" / "certificates").exists()


def test_lookahead_finds_nothing_in_a_shipped_strategy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "lookahead", "-s", "reversion", "-s", "trend", "--data", "data")
    assert {(row["strategy"], row["symbol"], row["biased"]) for row in found["checks"]} == {
        (name, symbol, False) for name in ("reversion", "trend") for symbol in ("BTC/USDT", "ETH/USDT")}
    assert all(row["cuts"] and row["repeatable"] for row in found["checks"])
    assert run(["lookahead", "-s", "trend", "--data", "data", "--symbols", "ETH/USDT"]) == 0
    assert "clean" in capsys.readouterr().out


def test_recursive_shows_from_how_many_bars_on_numbers_agree(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "recursive", "-s", "trend", "--data", "data", "--warmups", "100,200,400")
    row, = found["checks"]
    assert row["warmups"] == [100, 200, 400] and row["declared"] == 768
    first, second, third = row["differences"]["fast"]
    assert first > second > third
    assert run(["recursive", "-s", "trend", "--data", "data", "--warmups", "100,200,400"]) == 0
    assert "wanted holding" in capsys.readouterr().out


def test_too_short_a_history_is_insufficient_evidence_and_no_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The warm-up of every series is longer than its history: nothing is computed, and the verdict says so."""
    for name in ("BTCUSDT", "ETHUSDT"):
        write(folder / "data", name, 500, 3)
    found = document(capsys, "validate", "-s", "trend", "--data", "data", "--classes", "spot", "--report", "report.html")
    assert {"data_hash", "trials", "wall_s", "verdicts"} <= set(found)
    verdict, = found["verdicts"]
    assert {"strategy", "asset_class", "instruments", "verdict", "checks", "metrics", "certificate"} <= set(verdict)
    assert (verdict["verdict"], verdict["certificate"]) == ("INSUFFICIENT_EVIDENCE", None)
    assert "500 bars" in verdict["missing"] and verdict["next_command"]
    assert "INSUFFICIENT EVIDENCE" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_a_whole_verdict_its_page_and_its_document_and_twice_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("validate", "-s", "reversion", "--data", "data", "--classes", "spot", "--report", "report.html", "--workers", "2")
    first, second = document(capsys, *asked), document(capsys, *asked)
    assert {key for key in first if first[key] != second[key]} <= {"wall_s"}
    verdict, = first["verdicts"]
    assert verdict["verdict"] in ("REJECTED", "INSUFFICIENT_EVIDENCE") and verdict["trials"] == 50
    assert all(set(check) == {"rule", "measured", "limit", "unit", "passed", "note", "gate"} for check in verdict["checks"])
    assert np.isfinite(verdict["metrics"]["p"])
    assert (folder / "report.html").stat().st_size > 20_000
    searched = document(capsys, "optimize", "-s", "reversion", "--data", "data", "--classes", "spot")
    assert searched["searches"][0]["trials"] == 50 and searched["searches"][0]["plateau"]
