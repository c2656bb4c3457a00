"""Macro calendars as feeds give them, ForexFactory's weekly JSON and ICS files, and which titles close what. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from modules.news.feeds import FeedBroken, load_json, moment
from modules.news.items import one_line
from modules.venues.protocol import MacroEvent

ROWS_MAX: Final = 2_000
DAY: Final = 86_400_000
_ZONES: Final = {"us-eastern": "America/New_York", "eastern standard time": "America/New_York", "us/eastern": "America/New_York"}
_TRADED_AS: Final = {"CNY": "CNH"}
"""Releases are listed under the currency at home, pairs under the one abroad."""
_ICS_TIME: Final = re.compile(r"(\d{8})(?:T(\d{4})(\d{2})?(Z?))?")
_SPEECH: Final = re.compile(r"\b(speaks?|speech|testif\w+|testimony|remarks|minutes|member|interview)\b", re.IGNORECASE)
_FOMC: Final = re.compile(r"^(fomc (statement|decision|rate decision|economic projections|press conference|meeting$)|federal funds rate"
                          r"|fed (interest )?rate decision|fed press conference)", re.IGNORECASE)
_CPI: Final = re.compile(r"^(core )?cpi\b|^consumer price index\b", re.IGNORECASE)
_NFP: Final = re.compile(r"^non[- ]?farm (employment change|payrolls)|^nfp\b|\(nfp\)|^(the )?employment situation\b", re.IGNORECASE)
_OTHER_CPI: Final = re.compile(r"\b(flash|median|trimmed|adjusted wage|c-cpi|chained|state|revisions?|revised)\b|veterans", re.IGNORECASE)
_RATES: Final = re.compile(r"^(main refinancing rate|official bank rate|official cash rate|cash rate|overnight rate|snb policy rate"
                           r"|boj policy rate|monetary policy (summary|statement)|rate statement|boc rate statement|rba rate statement|"
                           r"rbnz rate statement|(ecb|boc|boj|snb|rba|rbnz|boe) (press conference|rate decision)|policy rate|"
                           r"interest rate decision|deposit facility rate|cash rate statement)\b", re.IGNORECASE)
ICS_TITLES: Final = {"CPI": re.compile(r"^consumer price index( for [a-z]+( \d{4})?)?$", re.IGNORECASE),
                     "NFP": re.compile(r"^(the )?employment situation( for [a-z]+( \d{4})?)?$", re.IGNORECASE)}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one calendar feed said at one fetch. It speaks of everything from `first` to `last` (UTC ms)."""

    fetched: int
    source: str
    first: int
    last: int
    whole: bool
    """It lists a series' every date there (an agency's own calendar), not just what it finds worth listing."""
    events: tuple[MacroEvent, ...]


def kind_of(currency: str, impact: str, title: str) -> str | None:
    """The blackout kind of a release; None for those that close nothing. A member's speech or the minutes are never the decision."""
    speech = _SPEECH.search(title) is not None
    if currency == "USD" and _FOMC.search(title) and "minutes" not in title.lower():
        return "FOMC"
    if currency == "USD" and not speech:
        if _NFP.search(title) and "adp" not in title.lower():
            return "NFP"
        if _CPI.search(title) and not _OTHER_CPI.search(title):
            return "CPI"
    elif currency != "USD" and not speech and _RATES.search(title):
        return "RATE_DECISION"
    if impact.lower() != "high" or not re.fullmatch(r"[A-Z]{3}", currency):
        return None
    return None if re.search(r"\bmember\b", title, re.IGNORECASE) else "HIGH"


def parse_weekly(body: bytes, source: str, at: int) -> Snapshot:
    """ForexFactory's week. Rows without a date are left out; none usable at all raises FeedBroken, as does anything but a list."""
    rows = load_json(body)
    if not isinstance(rows, list):
        raise FeedBroken("JSON that is not a list of releases")
    events, moments = [], []
    for row in rows[:ROWS_MAX]:
        if not isinstance(row, dict):
            continue
        text = {key: row.get(key) if isinstance(row.get(key), str) else "" for key in ("title", "country", "date", "impact")}
        when = moment(str(text["date"]))
        if when is None or abs(when - at) > 60 * DAY:
            continue
        moments.append(when)
        title, currency = one_line(str(text["title"]), 120), one_line(str(text["country"]), 8)
        currency = _TRADED_AS.get(currency, currency)
        kind = kind_of(currency, str(text["impact"]), title)
        if kind is not None:
            events.append(MacroEvent(when, kind, title, currency, source))
    if not moments:
        raise FeedBroken("a calendar without a single dated release")
    return Snapshot(at, source, min(moments), max(moments), False, tuple(sorted(events)))


def parse_ics(body: bytes, source: str, at: int, zone: str = "America/New_York", time: str = "08:30") -> Snapshot:
    """An agency's own calendar: CPI and the employment situation. Whole-day entries get the series' usual `time`. Raises FeedBroken."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FeedBroken("an ICS file that is not UTF-8") from None
    if not text.lstrip().upper().startswith("BEGIN:VCALENDAR"):
        raise FeedBroken("not an ICS file")
    if not text.rstrip().upper().endswith("END:VCALENDAR"):
        raise FeedBroken("an ICS file that breaks off")
    events = []
    for entry in _entries(text):
        title = one_line(entry.get("SUMMARY", ("", ""))[1].replace("\\,", ",").replace("\\n", " "), 120)
        kind = next((kind for kind, pattern in ICS_TITLES.items() if pattern.search(title)), None)
        start = entry.get("DTSTART")
        if kind is None or start is None or entry.get("STATUS", ("", ""))[1].upper() == "CANCELLED":
            continue
        when = _ics_moment(start[0], start[1], zone, time)
        if when is not None:
            events.append(MacroEvent(when, kind, title, "USD", source))
    if not events:
        raise FeedBroken("an ICS file without any release that we know")
    return Snapshot(at, source, min(e.at for e in events), max(e.at for e in events), True, tuple(sorted(events)))


def _entries(text: str) -> Iterator[dict[str, tuple[str, str]]]:
    """VEVENTs as name -> (parameters, value), folded lines joined."""
    entry: dict[str, tuple[str, str]] | None = None
    count = 0
    for line in text.replace("\r\n", "\n").replace("\n ", "").replace("\n\t", "").split("\n"):
        upper = line.strip().upper()
        if upper == "BEGIN:VEVENT":
            entry = {}
        elif upper == "END:VEVENT" and entry is not None:
            yield entry
            entry, count = None, count + 1
            if count >= ROWS_MAX:
                return
        elif entry is not None and ":" in line:
            head, _, value = line.partition(":")
            name, _, parameters = head.partition(";")
            entry.setdefault(name.strip().upper(), (parameters, value.strip()))


def _ics_moment(parameters: str, value: str, zone: str, time: str) -> int | None:
    """None where it is not a date. Raises FeedBroken for a zone nobody knows: guessing it would be an hour wrong some day."""
    found = _ICS_TIME.fullmatch(value)
    if found is None:
        return None
    day, clock, _, utc = found.groups()
    name = next((part.partition("=")[2].strip('"') for part in parameters.split(";") if part.upper().startswith("TZID=")), "")
    try:
        place = UTC if utc else ZoneInfo(_ZONES.get(name.lower(), name) or zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise FeedBroken(f"unknown time zone {one_line(name, 40)!r}") from None
    try:
        when = datetime.strptime(day + (clock or time.replace(":", "")), "%Y%m%d%H%M").replace(tzinfo=place)
    except ValueError:
        return None
    return int(when.timestamp() * 1000)
