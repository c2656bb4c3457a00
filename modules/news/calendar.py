"""The macro calendar: scheduled releases, the windows they close, and how far ahead we know them.

Dates are local wall time with an IANA zone, so daylight saving moves the UTC minute by itself. Every row says where it comes from.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from modules.domain.errors import ConfigurationError
from modules.domain.instrument import AssetClass
from modules.domain.policies import NewsPolicy, Policy, VersionedPolicy
from modules.venues.protocol import MacroEvent

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MINUTE: Final = 60_000
DAY: Final = 86_400_000
WEEKLY_KINDS: Final = frozenset({"RATE_DECISION", "HIGH"})
"""Kinds that come only from feeds: their absence closes nothing."""
FAULTS_MAX: Final = 20
SHAPE: Final = "each series needs kind, title, currency, zone, time HH:MM, covered_until, dates [{date, source, moved_to if it moved}]"


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

    def closes_from(self, kind: str) -> int | None:
        """When entries close because this series is known no further (UTC ms); None = it only ever comes from feeds."""
        until = self.covered_until.get(kind)
        return None if until is None else until - int(self._policy.horizon_days * DAY)

    def running_out(self, at: int) -> list[str]:
        """Series whose horizon comes within as long again: time to add dates before entries close."""
        ahead = at + int(self._policy.horizon_days * DAY)
        return sorted(kind for kind in self.covered_until
                      if self._policy.classes.get(kind) and (closes := self.closes_from(kind)) is not None and closes < ahead)

    def exhausted(self, asset_class: AssetClass, at: int) -> str:
        """Name of a series whose known dates end within the policy's horizon, "" = none: past it we would not know when to pause."""
        for kind, until in self.covered_until.items():
            if until is not None and asset_class in self._policy.classes.get(kind, ()) and at + self._policy.horizon_days * DAY > until:
                return kind
        return ""


def _iso_day(value: object) -> object:
    """Numbers would be taken for seconds since 1970."""
    if not isinstance(value, str):
        raise ValueError("is not a date; write it like \"2026-01-13\"")
    return date.fromisoformat(value)


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"is no IANA time zone: {error}") from None
    return name


_Day = Annotated[date, BeforeValidator(_iso_day)]


class _Row(Policy):
    date: _Day
    source: Annotated[str, Field(min_length=1)]
    moved_to: _Day | None = None


class _Series(Policy):
    """One kind of release, its dates in the local time of `zone`."""

    kind: str
    title: Annotated[str, Field(min_length=1)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    zone: Annotated[str, AfterValidator(_zone)]
    time: Annotated[str, Field(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    covered_until: _Day
    dates: Annotated[tuple[_Row, ...], Field(min_length=1)]


class _File(VersionedPolicy):
    series: tuple[_Series, ...]


def load(path: Path, policy: NewsPolicy) -> tuple[list[MacroEvent], dict[str, int | None]]:
    """The shipped calendar file: events in UTC ms and each series' horizon. Raises ConfigurationError naming every fault.

    A series that is not there is a fault too: nobody would know that its windows never open.
    """
    try:
        found = _File.model_validate(_document(path))
    except ValidationError as error:
        raise ConfigurationError([_sentence(path, detail) for detail in error.errors(include_url=False)[:FAULTS_MAX]]) from None
    kinds = [series.kind for series in found.series]
    known = [kind for kind in policy.windows if kind not in WEEKLY_KINDS]
    faults = [f"{path}: series[{index}].kind = {kind!r}: has no window in news_policy.json; known are {', '.join(known)}"
              for index, kind in enumerate(kinds) if kind not in known]
    faults += [f"{path}: series: {kind} is given {kinds.count(kind)} times; keep one of them" for kind in known if kinds.count(kind) > 1]
    faults += [f"{path}: series: {kind} is missing, but news_policy.json has a window for it; give its dates (or restore the shipped file)"
               for kind in known if kind not in kinds]
    events: list[MacroEvent] = []
    covered: dict[str, int | None] = {}
    for index, series in enumerate(found.series):
        zone = ZoneInfo(series.zone)
        hour, minute = (int(part) for part in series.time.split(":"))
        covered[series.kind] = _utc(series.covered_until, 23, 59, zone)
        twice = Counter(row.date for row in series.dates)
        faults += [f"{path}: series[{index}].dates: {day} is given {n} times; keep one of them" for day, n in twice.items() if n > 1]
        events += [MacroEvent(_utc(row.moved_to or row.date, hour, minute, zone), series.kind, series.title, series.currency, row.source)
                   for row in series.dates]
    if faults:
        raise ConfigurationError(faults)
    return events, covered


def _document(path: Path) -> object:
    """The file's JSON. A key given twice is refused: the reader and the writer would each believe another one."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError([f"{path}: cannot be read as JSON: {error}; restore the shipped file"]) from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if twice := [key for key, n in Counter(key for key, _ in pairs).items() if n > 1]:
        raise ValueError(f"{', '.join(map(repr, twice))} is given twice in one object")
    return dict(pairs)


def _sentence(path: Path, detail: ErrorDetails) -> str:
    """File, key, value and what is allowed."""
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    shown = "" if detail["type"] == "missing" else f" = {str(detail['input'])[:80]!r}"
    wrong = "unknown key" if detail["type"] == "extra_forbidden" else detail["msg"].replace("Input should be", "must be")
    return f"{path}: {where or 'the document'}{shown}: {wrong}; {SHAPE}"


def _utc(day: date, hour: int, minute: int, zone: ZoneInfo) -> int:
    local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
    return int(local.astimezone(UTC).timestamp() * 1000)
