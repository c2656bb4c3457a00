"""`news` and `events`: what people are shown is what decisions are taken by."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from modules.cli import news_reports
from modules.domain.instrument import AssetClass
from modules.domain.sessions import iso, parse_iso
from modules.news.calendar import Calendar
from modules.news.items import Item
from modules.news.setup import FILE
from modules.news.store import NewsStore
from modules.runtime.clock import WallClock
from modules.venues.protocol import MacroEvent
from tests.builders import make_instrument
from tests.test_news_agent import NEWS, agent, headline
from tests.test_news_mood import BAD, HOUR, NOW

ROOT = Path(__file__).resolve().parents[1]


def options(tmp_path: Path, **more: object) -> argparse.Namespace:
    file = tmp_path / "config.toml"
    file.write_text(f'state_dir = "{tmp_path}"\npolicy_dir = "{ROOT / "policies"}"\n', encoding="utf-8")
    return argparse.Namespace(config=[file], json=True, asset=None, days=30.0, verbose=False, **more)


def test_the_news_show_each_mood_with_its_headlines_cautions_and_sources() -> None:
    store = NewsStore(None)
    news = agent(store)
    news.take([headline(BAD[0], "a.example"), headline(BAD[1], "b.example"), headline("Binance to delist Monero", "c.example")])
    store.set_feed("desk", "unreachable", "TimeoutError", NOW, None, 0)
    document = news_reports.news_document(news, NOW + 10)
    (row,) = [each for each in document["moods"] if each["asset"] == "BTC"]
    assert row["mood"] == news.mood(make_instrument(AssetClass.SPOT), NOW + 10) and row["sources"] == 2
    assert {each["title"] for each in row["headlines"]} == set(BAD[:2])
    assert document["cautions"][0]["assets"] == ["XMR"]
    assert document["sources"][0]["reason"] == "TimeoutError"
    json.dumps(document)


def test_the_events_show_when_entries_close_for_whom_and_how_far_each_series_is_known() -> None:
    news = agent(None, events=[MacroEvent(NOW + HOUR, "CPI", "CPI", "USD", "BLS"),
                               MacroEvent(NOW + 20 * 24 * HOUR, "NFP", "jobs", "USD", "BLS"),
                               MacroEvent(NOW + 2 * HOUR, "RATE_DECISION", "ECB", "EUR", "feed")])
    news.calendar = Calendar(news.calendar.events, NEWS, {"CPI": NOW + HOUR})
    document = news_reports.events_document(news, NOW)
    first, second = document["events"]
    assert (first["closes_entries_at"], first["opens_entries_at"]) == (NOW + HOUR // 2, NOW + HOUR + HOUR // 2 + 60_000)
    assert news.blackout(AssetClass.SPOT, (), first["opens_entries_at"]) == ("", None) != news.blackout(AssetClass.SPOT, (), NOW + HOUR)
    assert (second["classes"], second["pairs"]) == (["FOREX"], "EUR")
    assert document["exhausted"] == dict.fromkeys(("SPOT", "PERP", "OPTION", "FOREX"), "CPI")


def test_the_verbs_work_with_and_without_a_recorded_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert news_reports.news(options(tmp_path)) == 0
    assert json.loads(capsys.readouterr().out)["enabled"] is False
    (tmp_path / "demo").mkdir()
    now = WallClock().now()
    store = NewsStore(tmp_path / "demo" / FILE)
    store.add([Item(now - 5000, domain, domain, title, title) for domain, title in (("a.example", BAD[0]), ("b.example", BAD[1]))])
    store.close()
    assert news_reports.news(options(tmp_path)) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["asset"] for row in told["moods"]] == ["BTC"]
    assert parse_iso(told["at"]) >= now and told["at"].endswith("Z")
    assert {headline["seen"] for headline in told["moods"][0]["headlines"]} == {iso(now - 5000)}
    assert news_reports.events(options(tmp_path)) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["series"] and all(row["covered_until"] is None or row["covered_until"].endswith("Z") for row in told["series"])
    assert all(parse_iso(row["closes_entries_at"]) < parse_iso(row["at"]) < parse_iso(row["opens_entries_at"]) for row in told["events"])


def test_people_get_tables_in_which_a_headline_is_never_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    news = agent(NewsStore(None))
    news.take([headline("Bitcoin crashes [red]now[/red]", "a.example"), headline(BAD[1], "b.example"),
               headline("Tether loses peg", "c.example")])
    from modules.cli import output

    news_reports.show_news(output.console(), news_reports.news_document(news, NOW + 10))
    news_reports.show_events(output.console(), news_reports.events_document(news, NOW))
    shown = capsys.readouterr().out
    assert "[red]now[/red]" in shown and "Tether loses peg" in shown and "BTC" in shown
