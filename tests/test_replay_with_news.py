"""A replay with recorded headlines decides as a daemon that heard them then: the same moods bit for bit, and nothing before its time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import main
from modules.backtest.export import export_market
from modules.cli.app import run
from modules.domain.decision import Decision
from modules.domain.instrument import AssetClass
from modules.domain.settings import DEMO_WALLETS
from modules.news.calendar import Calendar
from modules.news.items import Item
from modules.news.setup import Setup
from modules.news.store import NewsStore
from modules.store.codec import to_json
from modules.strategies.registry import all_strategies
from modules.venues.demo_market import DemoMarket
from tests.builders import shipped_policies

HOUR = 3_600_000
SEED, DAYS = 7, 1
HACK_AT = 14 * HOUR
HEADLINES = (
    (2 * HOUR, "a.example", "Bitcoin crashes as sellers panic"), (2 * HOUR + 5, "b.example", "Bitcoin plunges in heavy losses"),
    (3 * HOUR, "c.example", "Ether slumps on fears of a hack"), (3 * HOUR + 9, "a.example", "Ether falls sharply amid selloff"),
    (HACK_AT, "desk.example", "Bybit exchange hacked, $1.4 billion in ether stolen"))


def recording(path: Path, count: int = len(HEADLINES)) -> Path:
    store = NewsStore(path)
    start = DemoMarket(SEED, DAYS).start
    store.add([Item(start + at, domain, domain, title, title) for at, domain, title in HEADLINES[:count]])
    store.close()
    return path


def heard(folder: Path, news: Path) -> list[Decision]:
    """The decisions of a daemon that is told each headline when it was seen."""
    folder.mkdir()
    policies = shipped_policies()
    source = DemoMarket(SEED, DAYS)
    strategies = {c: [s for s in all_strategies().values() if c in s.asset_classes] for c in AssetClass}
    return main.simulate(source, policies=policies, wallets=DEMO_WALLETS, calendar=Calendar(source.macro_events, policies.news, {}),
                         strategies=strategies, folder=folder, news=Setup(NewsStore(news))).recorder.decisions


def replayed(market: Path, news: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What `replay --news` decided, from its own export."""
    capsys.readouterr()
    assert run(["replay", "--data", str(market), "--news", str(news), "--export", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reconciled"] is True
    return [json.loads(line) for line in (out / "run" / "decisions.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("news") / "market"
    export_market(DemoMarket(SEED, DAYS), folder, wallets=DEMO_WALLETS)
    return folder


def moods(decisions: list[dict[str, Any]]) -> list[float]:
    return [check["measured"] for decision in decisions for check in decision["checks"]
            if check["rule"] == "MOOD_AGAINST" and check["measured"]]


def test_a_replay_with_recorded_headlines_has_the_moods_of_who_heard_them_then_bit_for_bit(
        market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("BOT__LOG_DIR", str(tmp_path / "logs"))
    news = recording(tmp_path / "news.db")
    before = news.read_bytes()
    live = json.loads(json.dumps([to_json(decision) for decision in heard(tmp_path / "live", news)]))
    again = replayed(market, news, tmp_path / "out", capsys)
    for decision in (*live, *again):
        decision.pop("policy_hash")  # the command line's policies are read from files, those of tests have none
    assert again == live
    assert moods(again), "some mood was measured"
    assert news.read_bytes() == before, "a recording is only read"

    hack = DemoMarket(SEED, DAYS).start + HACK_AT
    unaware = replayed(market, recording(tmp_path / "shorter.db", len(HEADLINES) - 1), tmp_path / "unaware", capsys)
    for decision in unaware:
        decision.pop("policy_hash")
    assert [d for d in again if d["at"] < hack] == [d for d in unaware if d["at"] < hack], "nobody knew of it before"
    assert any(d["stopped_by"] == "BLACKOUT" for d in again if d["at"] >= hack)
    assert not any(d["stopped_by"] == "BLACKOUT" for d in unaware)


@pytest.mark.parametrize(("content", "said"), [(None, "is not a file"), (b"no database at all, but long enough to be one", "news.db")])
def test_a_recording_that_is_none_is_one_clear_error(market: Path, tmp_path: Path, content: bytes | None, said: str,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "news.db"
    if content is not None:
        path.write_bytes(content)
    assert run(["replay", "--data", str(market), "--news", str(path)]) == 4
    assert said in capsys.readouterr().err
    assert content is None or path.read_bytes() == content, "left alone"
