"""The shipped calendar corrected by what feeds said: added releases, moved ones, longer horizons. Pure; every change says who says so.

A feed can always add a window. It can take one away only by moving it: it must list the same series elsewhere within three weeks and be
silent about the old day although it speaks of that week. A series' horizon grows only by an agency's own calendar, which lists them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from modules.domain.policies import NewsPolicy
from modules.news.calendar import WEEKLY_KINDS, Calendar
from modules.news.releases import DAY, Snapshot
from modules.venues.protocol import MacroEvent

MOVE_MAX: Final = 21 * DAY
"""A release further away is the next one of its series, not this one moved."""
GAP_MAX: Final = 62 * DAY
"""Between two releases of a monthly series: more, and one is missing between them."""
SAME: Final = 12 * 3_600_000
"""Times closer than this are one release, retimed."""

_COMPANION: Final = re.compile(r"press conference|projections", re.IGNORECASE)
"""Parts of a decision's day: where the decision itself is known they retime nothing."""


@dataclass(frozen=True, slots=True)
class Change:
    """A release that a feed moved (`before` and `after`) or added (`before` None)."""

    kind: str
    title: str
    before: int | None
    after: int
    source: str

    @property
    def name(self) -> tuple[str, int | None, int]:
        return self.kind, self.before, self.after


def merge(
    shipped: Iterable[MacroEvent], covered: Mapping[str, int | None], snapshots: Sequence[Snapshot], policy: NewsPolicy
) -> tuple[Calendar, list[Change]]:
    """The calendar after `snapshots`, oldest first, and what they changed in it."""
    events = [event for event in shipped if event.kind in policy.windows]
    until = dict(covered)
    changes: list[Change] = []
    for snapshot in snapshots:
        for kind in sorted({event.kind for event in snapshot.events}):
            if kind not in policy.windows:
                continue
            given = _earliest_of_day([event for event in snapshot.events if event.kind == kind])
            if kind in WEEKLY_KINDS:
                known = {(event.at, event.currency) for event in events if event.kind == kind}
                events += [event for event in given if (event.at, event.currency) not in known]
                continue
            events, made = _corrected(events, kind, given, snapshot)
            changes += made
            if snapshot.whole and (last := until.get(kind)) is not None:
                until[kind] = max(last, _unbroken(last, given, [event.at for event in events if event.kind == kind]))
    return Calendar(events, policy, until), changes


def _unbroken(until: int, given: Sequence[MacroEvent], known: Sequence[int]) -> int:
    """How far past `until` an agency lists a series without leaving months out; what comes after a hole is no horizon."""
    reached = max((at for at in known if at <= until), default=until)
    for event in given:
        if event.at > reached:
            if event.at - reached > GAP_MAX:
                break
            reached = event.at
    return reached


def _earliest_of_day(events: Iterable[MacroEvent]) -> list[MacroEvent]:
    """Statement, decision and press conference of one day are one event, at its beginning; HIGH ones stand alone."""
    found: dict[tuple[object, ...], MacroEvent] = {}
    for event in sorted(events):
        found.setdefault((event.kind, event.currency, event.at if event.kind == "HIGH" else event.at // DAY), event)
    return sorted(found.values())


def _corrected(
    events: list[MacroEvent], kind: str, given: Sequence[MacroEvent], snapshot: Snapshot
) -> tuple[list[MacroEvent], list[Change]]:
    """`events` with one series as `snapshot` has it."""
    changes: list[Change] = []
    known = [event for event in events if event.kind == kind]
    rest = [event for event in events if event.kind != kind]
    for event in given:
        if any(old.at == event.at or (_COMPANION.search(event.title) and abs(old.at - event.at) <= SAME) for old in known):
            continue
        near = sorted((abs(old.at - event.at), old) for old in known
                      if abs(old.at - event.at) <= MOVE_MAX and not any(abs(g.at - old.at) <= SAME for g in given if g is not event))
        moved = next((old for gap, old in near if gap <= SAME or snapshot.first - SAME <= old.at <= snapshot.last + SAME), None)
        if moved is not None:
            known.remove(moved)
        known.append(event)
        changes.append(Change(kind, event.title, None if moved is None else moved.at, event.at, snapshot.source))
    return rest + known, changes
