"""The macro calendar: which minute entries close, which they open again, what moves a window and what ends all of them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from modules.domain.errors import ConfigurationError
from modules.domain.events import BlackoutClosed, BlackoutOpened, Fact
from modules.domain.instrument import AssetClass
from modules.news import calendar, refresh
from modules.news.calendar import Calendar
from modules.news.feeds import FeedBroken
from modules.news.releases import Snapshot, kind_of, parse_ics, parse_weekly
from modules.News_Agent import NewsAgent
from modules.runtime.clock import WallClock
from modules.store.journal import Journal
from modules.venues.protocol import MacroEvent
from tests.builders import shipped_policies

NEWS = shipped_policies().news
FILE = Path(__file__).resolve().parents[1] / "policies" / "macro_calendar.json"
MINUTE = 60_000
DAY = 86_400_000



def hours(text: str) -> list[str]:
    return text.split()


# Written by hand from the dates: New York is at UTC-4 from 2025-03-09 to 2025-11-02, 2026-03-08 to 2026-11-01 and 2027-03-14 to
# 2027-11-07, else at UTC-5.
FOMC = hours("""2025-01-29T19:00 2025-03-19T18:00 2025-05-07T18:00 2025-06-18T18:00 2025-07-30T18:00 2025-09-17T18:00 2025-10-29T18:00
    2025-12-10T19:00 2026-01-28T19:00 2026-03-18T18:00 2026-04-29T18:00 2026-06-17T18:00 2026-07-29T18:00 2026-09-16T18:00
    2026-10-28T18:00 2026-12-09T19:00 2027-01-27T19:00 2027-03-17T18:00 2027-04-28T18:00 2027-06-09T18:00 2027-07-28T18:00
    2027-09-15T18:00 2027-10-27T18:00 2027-12-08T19:00""")
CPI = hours("""2025-01-15T13:30 2025-02-12T13:30 2025-03-12T12:30 2025-04-10T12:30 2025-05-13T12:30 2025-06-11T12:30 2025-07-15T12:30
    2025-08-12T12:30 2025-09-11T12:30 2025-10-24T12:30 2025-12-18T13:30 2026-01-13T13:30 2026-02-13T13:30 2026-03-11T12:30
    2026-04-10T12:30 2026-05-12T12:30 2026-06-10T12:30 2026-07-14T12:30 2026-08-12T12:30 2026-09-11T12:30 2026-10-14T12:30
    2026-11-10T13:30 2026-12-10T13:30""")
NFP = hours("""2025-01-10T13:30 2025-02-07T13:30 2025-03-07T13:30 2025-04-04T12:30 2025-05-02T12:30 2025-06-06T12:30 2025-07-03T12:30
    2025-08-01T12:30 2025-09-05T12:30 2025-11-20T13:30 2025-12-16T13:30 2026-01-09T13:30 2026-02-11T13:30 2026-03-06T13:30
    2026-04-03T12:30 2026-05-08T12:30 2026-06-05T12:30 2026-07-02T12:30 2026-08-07T12:30 2026-09-04T12:30 2026-10-02T12:30
    2026-11-06T13:30 2026-12-04T13:30""")
TABLE = [*(("FOMC", text, 60, 90) for text in FOMC), *(("CPI", text, 30, 30) for text in CPI), *(("NFP", text, 30, 30) for text in NFP)]


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def shipped() -> Calendar:
    events, covered = calendar.load(FILE, NEWS)
    return Calendar(events, NEWS, covered)


def agent(of: Calendar, journal: Journal | None = None) -> NewsAgent:
    return NewsAgent(journal=journal or Journal(None), clock=WallClock(), calendar=of, policy=NEWS)


@pytest.mark.parametrize(("kind", "scheduled", "before", "after"), TABLE)
def test_every_known_release_closes_and_opens_entries_at_its_utc_minute(kind: str, scheduled: str, before: int, after: int) -> None:
    news, release = agent(shipped()), at(scheduled)
    for asset_class in AssetClass:
        for minute, closed in ((-before - 1, False), (-before, True), (0, True), (after, True), (after + 1, False)):
            name, until = news.blackout(asset_class, ("BTC", "USDT"), release + minute * MINUTE)
            assert name.startswith(kind) is closed, (asset_class, minute, name)
            assert until == (release + after * MINUTE if closed else None)


def test_between_two_changes_the_calendar_names_the_same_windows_are_open() -> None:
    of = shipped()
    moment, changes = of.windows[0].opens - 1, 0
    while (following := of.next_change(moment)) is not None:
        assert of.open_windows(moment) == of.open_windows(following - 1) != of.open_windows(following)
        moment, changes = following, changes + 1
    assert changes > len(of.windows) and moment == max(window.closes for window in of.windows) + 1


def test_the_shipped_file_has_exactly_the_known_dates_and_each_says_where_it_is_from() -> None:
    calendar_now = shipped()
    assert sorted((event.kind, event.at) for event in calendar_now.events) == sorted((kind, at(text)) for kind, text, _, _ in TABLE)
    assert all(event.source for event in calendar_now.events)


def test_a_row_that_says_moved_to_takes_its_window_along(tmp_path: Path) -> None:
    document = json.loads(FILE.read_text(encoding="utf-8"))
    series = next(series for series in document["series"] if series["kind"] == "CPI")
    next(row for row in series["dates"] if row["date"] == "2026-03-11")["moved_to"] = "2026-03-13"
    (tmp_path / "macro_calendar.json").write_text(json.dumps(document), encoding="utf-8")
    events, covered = calendar.load(tmp_path / "macro_calendar.json", NEWS)
    news = agent(Calendar(events, NEWS, covered))
    assert news.blackout(AssetClass.SPOT, ("BTC", "USDT"), at("2026-03-11T12:30")) == ("", None)
    assert news.blackout(AssetClass.SPOT, ("BTC", "USDT"), at("2026-03-13T12:30"))[0] == "CPI US Consumer Price Index"


def test_an_unreadable_calendar_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="restore the shipped file"):
        calendar.load(tmp_path / "none.json", NEWS)
    (tmp_path / "bad.json").write_text('{"series": [{"kind": "CPI", "zone": "Mars/Olympus"}]}', encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"series\[0\]"):
        calendar.load(tmp_path / "bad.json", NEWS)


BROKEN: dict[str, tuple[str, str, str]] = {
    "a list instead of an object": (".*", "[]", "the document"),
    "nothing in it": (".*", "{}", "series"),
    "no series at all": (r'"series": \[.*\]', '"series": []', "CPI is missing"),
    "one series gone": (r',\s*\{"kind": "NFP".*\]\}', "", "NFP is missing"),
    "a series without dates": (r'("kind": "CPI".*?"dates": )\[.*?\]', r"\1[]", r"series\[1\]\.dates"),
    "a misspelled key, which would hide a moved release": (r'"2026-03-11",', r'"2026-03-11", "moved_too": "2026-03-13",', "moved_too"),
    "a key given twice": (r'"kind": "CPI",', r'"kind": "CPI", "time": "09:00",', "'time' is given twice"),
    "a date given twice": (r'"2026-03-11"', '"2026-02-13"', "2026-02-13 is given 2 times"),
    "a date that is a number": (r'"2026-03-11"', "20260311", r"dates\[13\]\.date"),
    "a day that no month has": (r'"2026-03-11"', '"2026-02-30"', "out of range"),
    "a zone nobody knows": (r"America/New_York", "America/Old_York", "no IANA time zone"),
    "an hour no day has": (r'"time": "08:30"', '"time": "24:30"', "24:30"),
    "deep nesting": (".*", "[" * 100_000, "cannot be read as JSON"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_calendar_that_would_forget_a_window_is_refused_and_says_where(fault: str, tmp_path: Path) -> None:
    pattern, replacement, told = BROKEN[fault]
    text, changed = re.subn(pattern, replacement, FILE.read_text(encoding="utf-8"), count=1, flags=re.DOTALL)
    assert changed == 1
    (tmp_path / "macro_calendar.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=told) as refusal:
        calendar.load(tmp_path / "macro_calendar.json", NEWS)
    assert all("macro_calendar.json" in fault for fault in refusal.value.faults)


def test_a_calendar_that_ends_within_two_weeks_closes_entries_and_says_so_once() -> None:
    news = agent(shipped())
    last = at("2027-01-01T04:59")    # 23:59 in New York on the last day of the schedules known
    with capture_logs() as logs:
        assert news.calendar_ok(AssetClass.SPOT, last - 14 * DAY)
        assert logs == []
        for _ in range(3):
            assert not news.calendar_ok(AssetClass.SPOT, last - 14 * DAY + MINUTE)
    assert [(line["log_level"], line["reason"]) for line in logs] == [("error", "CPI")]
    assert not news.calendar_ok(AssetClass.FOREX, at("2027-06-01T00:00"))


def test_the_end_of_the_calendar_is_foretold_weeks_before_entries_close() -> None:
    news, closes = agent(shipped()), at("2027-01-01T04:59") - 14 * DAY
    assert news.calendar.closes_from("NFP") == closes
    with capture_logs() as logs:
        news.tick(closes - 14 * DAY)
        assert not [line for line in logs if line.get("action") == "calendar_horizon"]
        for minute in (1, 2, 3):
            news.tick(closes - 14 * DAY + minute * MINUTE)
    told = [(line["log_level"], line["reason"], line["entries_close"]) for line in logs if line.get("action") == "calendar_horizon"]
    assert told == [("warning", "CPI", closes), ("warning", "NFP", closes)]
    assert news.calendar_ok(AssetClass.SPOT, closes)


# -- feeds -----------------------------------------------------------------------------------------------------------------


def weekly(*rows: dict[str, str]) -> bytes:
    return json.dumps([{"forecast": "", "previous": "", **row} for row in rows]).encode()


def row(title: str, date: str, country: str = "USD", impact: str = "High") -> dict[str, str]:
    return {"title": title, "country": country, "date": date, "impact": impact}


def corrected(*snapshots: Snapshot) -> tuple[NewsAgent, list[refresh.Change]]:
    base = shipped()
    merged, changes = refresh.merge(base.events, base.covered_until, snapshots, NEWS)
    return agent(merged), changes


def test_a_release_that_a_feed_lists_on_another_day_of_its_week_moves_the_window() -> None:
    monday = at("2026-03-08T22:00")
    news, changes = corrected(parse_weekly(weekly(
        row("Retail Sales m/m", "2026-03-09T08:30:00-04:00"), row("CPI y/y", "2026-03-13T08:30:00-04:00"),
        row("Core CPI m/m", "2026-03-13T08:30:00-04:00")), "forexfactory", monday))
    assert news.blackout(AssetClass.PERP, ("BTC", "USDT"), at("2026-03-11T12:30"))[0] == ""
    assert news.blackout(AssetClass.PERP, ("BTC", "USDT"), at("2026-03-13T12:30"))[0] == "CPI CPI y/y"
    assert [(change.before, change.after) for change in changes] == [(at("2026-03-11T12:30"), at("2026-03-13T12:30"))]


def test_a_release_retimed_within_its_day_moves_and_a_confirmed_one_changes_nothing() -> None:
    same = parse_weekly(weekly(row("CPI y/y", "2026-03-11T08:30:00-04:00")), "forexfactory", at("2026-03-09T00:00"))
    assert corrected(same)[1] == []
    later = parse_weekly(weekly(row("CPI y/y", "2026-03-11T10:00:00-04:00")), "forexfactory", at("2026-03-09T00:00"))
    news, _ = corrected(same, later)
    assert news.blackout(AssetClass.SPOT, ("BTC", "USDT"), at("2026-03-11T12:30"))[0] == ""
    assert news.blackout(AssetClass.SPOT, ("BTC", "USDT"), at("2026-03-11T14:00"))[0] != ""


def test_a_feed_that_leaves_a_release_out_takes_no_window_away() -> None:
    news, changes = corrected(parse_weekly(weekly(
        row("Retail Sales m/m", "2026-03-09T08:30:00-04:00"), row("UoM Sentiment", "2026-03-13T10:00:00-04:00", impact="Low")),
        "forexfactory", at("2026-03-09T00:00")))
    assert changes == []
    assert news.blackout(AssetClass.SPOT, ("BTC", "USDT"), at("2026-03-11T12:30"))[0] != ""


def test_the_press_conference_half_an_hour_later_does_not_shift_the_decision() -> None:
    news, changes = corrected(parse_weekly(weekly(row("FOMC Press Conference", "2026-03-18T14:30:00-04:00")), "ff",
                                                at("2026-03-16T00:00")))
    assert changes == []
    assert news.blackout(AssetClass.FOREX, ("EUR", "USD"), at("2026-03-18T17:00"))[0] != ""


def test_rate_decisions_and_high_impact_events_close_the_pairs_of_their_currency_and_no_others() -> None:
    news, _ = corrected(parse_weekly(weekly(
        row("Main Refinancing Rate", "2026-04-16T08:15:00-04:00", "EUR"), row("Unemployment Rate", "2026-04-15T21:30:00-04:00", "AUD")),
        "forexfactory", at("2026-04-13T00:00")))
    decision, jobs = at("2026-04-16T12:15"), at("2026-04-16T01:30")
    assert news.blackout(AssetClass.FOREX, ("EUR", "USD"), decision - 30 * MINUTE)[0].startswith("RATE_DECISION")
    assert news.blackout(AssetClass.FOREX, ("EUR", "USD"), decision + 61 * MINUTE)[0] == ""
    assert news.blackout(AssetClass.FOREX, ("GBP", "USD"), decision)[0] == ""
    assert news.blackout(AssetClass.SPOT, ("BTC", "EUR"), decision)[0] == ""
    assert news.blackout(AssetClass.FOREX, ("AUD", "JPY"), jobs)[0].startswith("HIGH")
    assert news.blackout(AssetClass.FOREX, ("EUR", "USD"), jobs)[0] == ""


def test_two_currencies_releases_of_one_minute_close_the_pairs_of_both() -> None:
    news, _ = corrected(parse_weekly(weekly(
        row("Employment Change", "2026-04-09T08:30:00-04:00", "CAD"), row("Trade Balance", "2026-04-09T08:30:00-04:00", "EUR")),
        "forexfactory", at("2026-04-06T00:00")))
    for pair in (("AUD", "CAD"), ("EUR", "GBP")):
        assert news.blackout(AssetClass.FOREX, pair, at("2026-04-09T12:00"))[0].startswith("HIGH")


@pytest.mark.parametrize(("currency", "impact", "title", "kind"), [
    ("USD", "High", "Federal Funds Rate", "FOMC"), ("USD", "High", "FOMC Statement", "FOMC"),
    ("USD", "High", "FOMC Press Conference", "FOMC"), ("USD", "High", "FOMC Economic Projections", "FOMC"),
    ("USD", "High", "FOMC Press Conference (Chair Powell speaks)", "FOMC"), ("USD", "High", "Non Farm Payrolls", "NFP"),
    ("USD", "High", "FOMC Statement Minutes", "HIGH"), ("USD", "Low", "CPI Revisions", None),
    ("USD", "Low", "FOMC Member Waller Speaks", None), ("USD", "High", "FOMC Member Waller Speaks", None),
    ("USD", "High", "Fed Chair Powell Speaks", "HIGH"), ("USD", "High", "FOMC Meeting Minutes", "HIGH"),
    ("USD", "Medium", "FOMC Meeting Minutes", None), ("USD", "High", "Core CPI m/m", "CPI"), ("USD", "High", "CPI y/y", "CPI"),
    ("USD", "Low", "Cleveland Fed Median CPI m/m", None), ("USD", "High", "Non-Farm Employment Change", "NFP"),
    ("USD", "High", "ADP Non-Farm Employment Change", "HIGH"), ("GBP", "High", "CPI y/y", "HIGH"), ("GBP", "Medium", "CPI y/y", None),
    ("GBP", "High", "Official Bank Rate", "RATE_DECISION"), ("EUR", "High", "Main Refinancing Rate", "RATE_DECISION"),
    ("EUR", "Low", "ECB President Lagarde Speaks", None), ("JPY", "High", "BOJ Policy Rate", "RATE_DECISION"),
    ("All", "High", "OPEC Meetings", None), ("USD", "Holiday", "Bank Holiday", None),
])
def test_titles_and_impact_together_say_what_a_release_closes(currency: str, impact: str, title: str, kind: str | None) -> None:
    assert kind_of(currency, impact, title) == kind


def ics(*events: tuple[str, str]) -> bytes:
    body = "".join(f"BEGIN:VEVENT\r\nSUMMARY:{title}\r\nDTSTART{start}\r\nEND:VEVENT\r\n" for title, start in events)
    return f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{body}END:VCALENDAR\r\n".encode()


def test_an_agencys_own_calendar_brings_next_years_dates_and_a_longer_horizon() -> None:
    snapshot = parse_ics(ics(
        ("Consumer Price Index", ";TZID=US-Eastern:20261210T083000"), ("Consumer Price Index for December 2026", ":20270113T133000Z"),
        *(("Consumer Price Index", f";TZID=America/New_York:2027{month:02}12T083000") for month in range(2, 7)),
        ("Consumer Price\r\n  Index", ";TZID=America/New_York:20270714T083000"), ("Employment Situation", ";VALUE=DATE:20270108"),
        ("State Employment and Unemployment", ":20270120T150000Z")), "bls_calendar", at("2026-11-22T00:00"))
    news, _ = corrected(snapshot)
    for text in ("2027-01-13T13:30", "2027-07-14T12:30", "2027-01-08T13:30"):
        assert news.blackout(AssetClass.SPOT, ("BTC", "USDT"), at(text) - 30 * MINUTE)[0] != "", text
        assert news.blackout(AssetClass.SPOT, ("BTC", "USDT"), at(text) - 31 * MINUTE)[0] == "", text
    assert news.calendar.covered_until["CPI"] == at("2027-07-14T12:30")
    assert news.calendar_ok(AssetClass.SPOT, at("2026-12-20T00:00"))
    assert not agent(shipped()).calendar_ok(AssetClass.SPOT, at("2026-12-20T00:00"))


def test_a_hole_in_an_agencys_calendar_ends_what_it_is_known_to_cover() -> None:
    news, _ = corrected(parse_ics(ics(
        ("Consumer Price Index", ";VALUE=DATE:20270113"), ("Consumer Price Index", ";VALUE=DATE:20270210"),
        ("Consumer Price Index", ";VALUE=DATE:20270714"), ("Employment Situation", ";VALUE=DATE:20900108")),
        "bls_calendar", at("2026-11-22T00:00")))
    assert news.calendar.covered_until["CPI"] == at("2027-02-10T13:30")
    assert news.calendar.covered_until["NFP"] == at("2027-01-01T04:59")
    assert not news.calendar_ok(AssetClass.SPOT, at("2027-02-01T00:00"))


def test_an_agencys_calendar_that_breaks_off_is_refused() -> None:
    whole = ics(("Consumer Price Index", ";VALUE=DATE:20270113"), ("Consumer Price Index", ";VALUE=DATE:20270210"))
    for cut in (len(whole) - 5, len(whole) // 2):
        with pytest.raises(FeedBroken):
            parse_ics(whole[:cut], "bls_calendar", at("2026-11-22T00:00"))


def test_a_release_of_mainland_china_closes_the_pairs_of_the_yuan_abroad() -> None:
    news, _ = corrected(parse_weekly(weekly(row("GDP q/y", "2026-04-15T22:00:00-04:00", "CNY")), "forexfactory", at("2026-04-13T00:00")))
    assert news.blackout(AssetClass.FOREX, ("USD", "CNH"), at("2026-04-16T02:00"))[0].startswith("HIGH")


@pytest.mark.parametrize("body", [
    b"<!DOCTYPE html><html>Rate limited</html>", b"", b"{}", b"[]",
    b'[{"title": "CPI y/y", "country": "USD", "date": "", "impact": "High"}]',
    b'[{"title": "CPI y/y", "country": "USD", "date": "2199-01-01T00:00:00-05:00", "impact": "High"}]', b"[1, null, \"x\"]", b"[" * 5000,
])
def test_a_calendar_body_without_one_usable_release_is_refused(body: bytes) -> None:
    with pytest.raises(FeedBroken):
        parse_weekly(body, "forexfactory", at("2026-03-09T00:00"))


def test_an_ics_file_with_an_unknown_time_zone_is_refused_rather_than_guessed() -> None:
    with pytest.raises(FeedBroken, match="time zone"):
        parse_ics(ics(("Consumer Price Index", ";TZID=Mars/Olympus:20270113T083000")), "bls_calendar", at("2026-11-22T00:00"))
    with pytest.raises(FeedBroken):
        parse_ics(b"<html>moved</html>", "bls_calendar", at("2026-11-22T00:00"))


def test_a_window_is_announced_when_it_opens_and_when_it_closes_and_only_once() -> None:
    journal, seen = Journal(None), list[Fact]()
    events = [MacroEvent(at("2026-03-11T12:30"), "CPI", "CPI", "USD", "test")]
    news = agent(Calendar(events, NEWS, {}), journal)
    journal.project(news.apply)
    journal.react(seen.append)
    for text in ("11:59", "12:00", "12:30", "13:00", "13:01", "13:02"):
        news.tick(at(f"2026-03-11T{text}"))
    assert [type(fact) for fact in seen] == [BlackoutOpened, BlackoutClosed]
    assert isinstance(seen[0], BlackoutOpened) and seen[0].until == at("2026-03-11T13:00") and len(seen[0].classes) == 4
