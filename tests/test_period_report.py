"""`report`: every sum adds up to the ledger, however it is cut, and nothing outside the span is counted."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import main
from modules.cli.app import run
from modules.cli.period_report import FOREVER, period, render
from modules.domain.instrument import AssetClass
from modules.domain.money import ZERO
from modules.venues.demo_market import DemoMarket
from tests.daemon_process import ROOT
from tests.demo_runs import simulate

D = Decimal
DAYS = 3


@dataclass(frozen=True)
class Told:
    daemon: main.Daemon
    whole: Mapping[str, Any]


@pytest.fixture(scope="module")
def told() -> Told:
    daemon = simulate(DemoMarket(7, DAYS)).daemon
    return Told(daemon, period(daemon, 0, FOREVER))


def test_by_strategy_instrument_month_and_exit_the_same_money_as_by_class(told: Told) -> None:
    for figure in ("net", "gross", "fees", "funding"):
        by_class = {name: D(c[figure]) for name, c in told.whole["classes"].items()}
        for cut in ("strategies", "instruments", "months", "exits"):
            sums = dict.fromkeys(by_class, ZERO)
            for row in told.whole[cut]:
                sums[row["asset_class"]] += D(row[figure])
            assert sums == by_class, (figure, cut)


def test_net_is_the_ledgers_less_what_open_trades_have_paid_so_far(told: Told) -> None:
    for name, shown in told.whole["classes"].items():
        asset_class = AssetClass(name)
        open_so_far = sum((t.gross - t.fees + t.funding for t in told.daemon.portfolio.trades.values()
                           if t.opened.asset_class is asset_class), ZERO)
        assert D(shown["net"]) + open_so_far == told.daemon.portfolio.ledger(asset_class).net
        assert [point[1] for point in shown["curve"][-1:]] == pytest.approx([float(shown["net"])] if shown["trades"] else [])


def test_two_halves_of_a_span_are_the_whole(told: Told) -> None:
    middle = sorted(t.closed_at for t in told.daemon.portfolio.closed)[len(told.daemon.portfolio.closed) // 2]
    halves = [period(told.daemon, 0, middle), period(told.daemon, middle, FOREVER)]
    for name, shown in told.whole["classes"].items():
        parts = [half["classes"].get(name, {"net": "0", "trades": 0, "signals": 0}) for half in halves]
        assert sum((D(part["net"]) for part in parts), ZERO) == D(shown["net"])
        assert sum(part["trades"] for part in parts) == shown["trades"]
        assert sum(part["signals"] for part in parts) == shown["signals"]


def test_the_page_loads_nothing_and_names_every_strategy(told: Told) -> None:
    page = render(told.whole)
    assert "http" not in page.replace("http-equiv", "") and "<script" not in page
    assert all(f"<td>{row['strategy']}</td>" in page for row in told.whole["strategies"])


def test_the_verb_writes_page_and_list_from_the_journal_alone(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    assert run(["demo", "--days", "2", "--state", "state/demo", "--json"]) == 0
    capsys.readouterr()
    assert run(["report", "--html", "r.html", "--csv", "r.csv", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = list(csv.DictReader((tmp_path / "r.csv").open()))
    assert len(rows) == sum(c["trades"] for c in document["classes"].values()) > 0
    assert sum((D(row["net"]) for row in rows), ZERO) == sum((D(c["net"]) for c in document["classes"].values()), ZERO)
    assert "<h1>Trading report</h1>" in (tmp_path / "r.html").read_text()
    assert run(["report", "--from", "20300101", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == {}
    assert run(["report", "--from", "2026-13-01"]) == 4
    assert run(["report", "--csv", "/nowhere/r.csv"]) == 4
    assert "can be written" in capsys.readouterr().err
