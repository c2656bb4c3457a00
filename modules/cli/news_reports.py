"""`news` and `events`: moods with the headlines behind them, cautions, sources; what releases come and what each will close.

The documents are made from a News_Agent, so Telegram and the web page may show the very same: `news_document(daemon.news, at)`,
`events_document(daemon.news, at, days)`. The verbs ask the running daemon; while none runs, the calendar file and the store that it kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from modules.cli import following, inputs, output
from modules.cli.questions import SOCKET
from modules.domain.errors import DaemonNotRunning
from modules.domain.instrument import AssetClass
from modules.domain.sessions import iso
from modules.news import calendar
from modules.news.calendar import DAY, Calendar
from modules.news.setup import FILE, Setup
from modules.news.store import NewsStore
from modules.News_Agent import RECALL_MS, NewsAgent
from modules.runtime.clock import WallClock
from modules.runtime.control import call
from modules.store.journal import Journal

if TYPE_CHECKING:
    from rich.console import Console

HEADLINES: Final = 5
"""Shown per mood."""
DAYS: Final = 14
TIMES: Final = frozenset({"at", "until", "good_at", "seen", "closes_entries_at", "opens_entries_at", "covered_until"})
"""Keys of the documents that hold UTC ms."""
MINUTE: Final = 60_000


def news(arguments: argparse.Namespace) -> int:
    """`news [ASSET]`: wants `config`, `json` and `asset` (None = all)."""
    asset = arguments.asset.upper() if arguments.asset else None
    document = _asked(arguments, "news", {} if asset is None else {"subject": asset})
    if document is None:
        document = news_document(*_agent(arguments), None if asset is None else (asset,))
    _emit(arguments, document, show_news)
    return 0


def events(arguments: argparse.Namespace) -> int:
    """`events [--days N]`: wants `config`, `json` and `days`."""
    document = _asked(arguments, "events", {"days": arguments.days})
    if document is None:
        document = events_document(*_agent(arguments), arguments.days)
    _emit(arguments, document, show_events)
    return 0


def _asked(arguments: argparse.Namespace, verb: str, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the running daemon decides by: a demo market has a calendar and a time of its own. None, and said so, while none runs."""
    folder = following.folder_of(arguments)
    try:
        return call(folder / SOCKET, verb, asked)
    except DaemonNotRunning as absent:
        print(f"{absent}: by the calendar file and what was recorded", file=sys.stderr)
        return None


def _emit(arguments: argparse.Namespace, document: dict[str, Any], show: Callable[[Console, Mapping[str, Any]], None]) -> None:
    output.emit(arguments, in_iso(document) if arguments.json else document, show)


def in_iso(document: Any) -> Any:
    """The same document with every time as UTC ISO-8601, as programs are told times everywhere."""
    if isinstance(document, dict):
        return {key: iso(value) if key in TIMES and value is not None else in_iso(value) for key, value in document.items()}
    return [in_iso(each) for each in document] if isinstance(document, list) else document


def _agent(arguments: argparse.Namespace) -> tuple[NewsAgent, int]:
    """An agent that only looks back: the shipped calendar as the store's snapshots correct it, and the store's headlines."""
    settings, policies = inputs.settings_and_policies(arguments, mode=following.mode_of(arguments))
    clock = WallClock()
    at = clock.now()
    known, covered = calendar.load(settings.policy_dir / "macro_calendar.json", policies.news)
    path = inputs.state_folder(settings) / FILE
    setup = Setup(NewsStore(path), since=at - RECALL_MS) if path.is_file() else None
    agent = NewsAgent(
        journal=Journal(None), clock=clock, calendar=Calendar(known, policies.news, covered), policy=policies.news, setup=setup)
    agent.blackout(AssetClass.SPOT, (), at)    # takes in what was seen by now
    return agent, at


# -- documents ---------------------------------------------------------------------------------------------------------------


def news_document(agent: NewsAgent, at: int, assets: Sequence[str] | None = None) -> dict[str, Any]:
    """JSON types only. Moods are -1..1; `assets` None = everything that anybody spoke about."""
    on = agent.moods is not None
    wanted = assets if assets is not None else agent.moods.assets() if agent.moods is not None else ()
    moods = []
    for asset in wanted:
        mood = agent.mood_of_asset(asset, at)
        if mood is None and assets is None:
            continue
        moods.append({
            "asset": asset, "mood": None if mood is None else mood.value, "sources": 0 if mood is None else mood.domains,
            "headlines": [] if mood is None else [
                {"title": c.title, "domain": c.domain, "score": c.score, "weight": c.weight, "seen": c.seen}
                for c in mood.stories[:HEADLINES]],
        })
    moods.sort(key=_strength)
    return {
        "at": at, "enabled": on, "moods": moods,
        "cautions": [{"kind": c.kind, "headline": c.headline, "domain": c.domain, "at": c.at, "until": c.until, "assets": sorted(c.assets),
                      "classes": sorted(asset_class.value for asset_class in c.classes)} for c in agent.cautions_at(at)],
        "sources": [{"source": name, "state": state, "reason": reason, "at": when, "good_at": good, "headlines": count}
                    for name, state, reason, when, good, count in agent.sources()],
    }


def _strength(row: Mapping[str, Any]) -> tuple[float, str]:
    return -abs(row["mood"] or 0.0), row["asset"]


def events_document(agent: NewsAgent, at: int, days: float = DAYS) -> dict[str, Any]:
    """JSON types only. What comes within `days`, when entries close and open again and for whom; how far each series is known."""
    book = agent.calendar
    return {
        "at": at, "days": days,
        "events": [{
            "kind": window.event.kind, "title": window.event.title, "currency": window.event.currency, "at": window.event.at,
            "closes_entries_at": window.opens, "opens_entries_at": window.closes + MINUTE,
            "open_window": window.opens <= at <= window.closes,
            "classes": sorted(asset_class.value for asset_class in window.classes), "pairs": _pairs(window), "source": window.event.source,
        } for window in book.upcoming(at, days)],
        "series": [{"kind": kind, "covered_until": until, "days_left": None if until is None else (until - at) / DAY,
                    "closes_entries_at": book.closes_from(kind)}
                   for kind, until in sorted(book.covered_until.items())],
        "exhausted": {asset_class.value: kind for asset_class in AssetClass if (kind := book.exhausted(asset_class, at))},
    }


def _pairs(window: calendar.Window) -> str:
    """Which pairs of FOREX a window closes: those of its currency, or all."""
    if AssetClass.FOREX not in window.classes:
        return ""
    return window.event.currency if window.event.kind in calendar.WEEKLY_KINDS else "all"


# -- for people --------------------------------------------------------------------------------------------------------------


def show_news(console: Console, document: Mapping[str, Any]) -> None:
    if not document["enabled"]:
        console.print("News are off or nothing was recorded yet ([news] enabled = true): moods are neutral.", markup=False)
    rows = [(row["asset"], "-" if row["mood"] is None else f"{row['mood']:+.2f}", row["sources"],
             "\n".join(f"{each['score']:+.2f} {each['title']} ({each['domain']})" for each in row["headlines"]))
            for row in document["moods"]]
    if rows:
        console.print(output.table("Moods", ("asset", ">mood", ">sources", "headlines behind it"), rows))
    if document["cautions"]:
        console.print(output.table("Cautions: entries closed", ("until (UTC)", "kind", "for", "headline"), [
            (_when(row["until"]), row["kind"], ", ".join(row["assets"] or row["classes"]), f"{row['headline']} ({row['domain']})")
            for row in document["cautions"]]))
    if document["sources"]:
        console.print(output.table("Sources", ("source", "state", "last good (UTC)", ">headlines", "reason"), [
            (row["source"], row["state"], "-" if row["good_at"] is None else _when(row["good_at"]), row["headlines"], row["reason"])
            for row in document["sources"]]))


def show_events(console: Console, document: Mapping[str, Any]) -> None:
    rows = [(_when(row["at"]), row["kind"], f"{row['title']} ({row['currency']})",
             f"{_when(row['closes_entries_at'])} - {_when(row['opens_entries_at'])[11:]}" + (" NOW" if row["open_window"] else ""),
             ", ".join(row["classes"]) + (f" ({row['pairs']} pairs)" if row["pairs"] not in ("", "all") else ""), row["source"])
            for row in document["events"]]
    console.print(output.table(f"Releases of the next {document['days']:g} days (UTC)",
                               ("release", "kind", "what", "entries closed", "for", "according to"), rows))
    for row in document["series"]:
        if row["covered_until"] is not None:
            console.print(f"{row['kind']} is known until {_when(row['covered_until'])[:10]} ({row['days_left']:.0f} days); without further "
                          f"dates entries close from {_when(row['closes_entries_at'])[:10]} on.", markup=False)
    for asset_class, kind in document["exhausted"].items():
        console.print(f"{asset_class}: entries are closed, the calendar of {kind} does not reach far enough ahead.", markup=False)


def _when(at: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at / 1000.0, UTC).strftime("%Y-%m-%d %H:%M")


__all__ = ["events", "events_document", "news", "news_document", "show_events", "show_news"]
