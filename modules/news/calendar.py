"""The macro calendar: scheduled releases, the windows they close, and how far ahead we know them.

Dates are local wall time with an IANA zone, so daylight saving moves the UTC minute by itself. Every row says where it comes from.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from modules.domain.errors import ConfigurationError
from modules.domain.instrument import AssetClass
from modules.domain.policies import NewsPolicy
from modules.venues.protocol import MacroEvent

MINUTE: Final = 60_000
DAY: Final = 86_400_000
WEEKLY_KINDS: Final = frozenset({"RATE_DECISION", "HIGH"})
"""Kinds that come only from feeds: their absence closes nothing."""


@dataclass(frozen=True, slots=True)
class Window:
    """One blackout: entries of `classes` are closed from `opens` to `closes` (UTC ms, both inclusive)."""

    event: MacroEvent
    opens: int
    closes: int
    classes: frozenset[AssetClass]

    def covers(self, asset_class: AssetClass, currencies: Sequence[str]) -> bool:
        if asset_class not in self.classes:
            return False
        if asset_class is AssetClass.FOREX and self.event.kind in WEEKLY_KINDS:
            return self.event.currency in currencies
        return True


class Calendar:
    """All known releases as windows, plus each series' horizon. Unknown kinds are refused by name."""

    def __init__(self, events: Iterable[MacroEvent], policy: NewsPolicy, covered_until: Mapping[str, int | None]) -> None:
        unique: dict[tuple[str, int, str], MacroEvent] = {}
        for event in events:
            if event.kind in policy.windows:
                unique.setdefault((event.kind, event.at, event.currency), event)
        self.events: tuple[MacroEvent, ...] = tuple(sorted(unique.values(), key=lambda e: (e.at, e.kind)))
        self.covered_until = dict(covered_until)
        self._policy = policy
        self.windows: tuple[Window, ...] = tuple(sorted(
            (Window(e, e.at - policy.windows[e.kind][0] * MINUTE, e.at + policy.windows[e.kind][1] * MINUTE,
                    frozenset(policy.classes.get(e.kind, ()))) for e in self.events), key=lambda w: (w.opens, w.closes)))
        self._opens = [window.opens for window in self.windows]
        self._longest = max((window.closes - window.opens for window in self.windows), default=0)

    def open_windows(self, at: int) -> list[Window]:
        """Every window that is open at `at`."""
        first = bisect_left(self._opens, at - self._longest)
        return [window for window in self.windows[first:bisect_right(self._opens, at)] if window.closes >= at]

    def next_change(self, at: int) -> int | None:
        """The first instant after `at` at which a window opens or has closed; None = there is none."""
        changes = [window.closes + 1 for window in self.open_windows(at)]
        following = bisect_right(self._opens, at)
        return min([*changes, *self._opens[following:following + 1]], default=None)

    def upcoming(self, at: int, days: float) -> list[Window]:
        return [window for window in self.windows if at <= window.closes and window.opens <= at + days * DAY]

    def exhausted(self, asset_class: AssetClass, at: int) -> str:
        """Name of a series whose known dates end within the policy's horizon, "" = none: past it we would not know when to pause."""
        for kind, until in self.covered_until.items():
            if until is not None and asset_class in self._policy.classes.get(kind, ()) and at + self._policy.horizon_days * DAY > until:
                return kind
        return ""


def load(path: Path, policy: NewsPolicy) -> tuple[list[MacroEvent], dict[str, int | None]]:
    """The shipped calendar file: events in UTC ms and each series' horizon. Raises ConfigurationError naming every fault."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError([f"{path.name}: cannot be read as JSON: {error}; restore the shipped file"]) from None
    faults: list[str] = []
    events: list[MacroEvent] = []
    covered: dict[str, int | None] = {}
    for index, series in enumerate(document.get("series", [])):
        where = f"{path.name}: series[{index}]"
        kind = series.get("kind")
        if kind not in policy.windows:
            faults.append(f"{where}.kind: {kind!r} has no window in news_policy.json; known: {', '.join(policy.windows)}")
            continue
        try:
            zone = ZoneInfo(series["zone"])
            hour, minute = (int(part) for part in series["time"].split(":"))
            covered[kind] = _utc(series["covered_until"], 23, 59, zone)
            for row in series["dates"]:
                moved = row.get("moved_to", row["date"])
                events.append(MacroEvent(_utc(moved, hour, minute, zone), kind, series["title"], series["currency"], row["source"]))
        except (KeyError, TypeError, ValueError, ZoneInfoNotFoundError) as error:
            faults.append(f"{where}: {type(error).__name__}: {error}; each series needs kind, title, currency, zone, time HH:MM, "
                          "covered_until, dates [{date, source}]")
    if faults:
        raise ConfigurationError(faults)
    return events, covered


def _utc(day: str, hour: int, minute: int, zone: ZoneInfo) -> int:
    when = date.fromisoformat(day)
    local = datetime(when.year, when.month, when.day, hour, minute, tzinfo=zone)
    return int(local.astimezone(UTC).timestamp() * 1000)
