"""Owns moods and blackout windows. May refuse entries inside a window, and while a series of the calendar is exhausted.

Alone writes BlackoutOpened and BlackoutClosed. Exits are never its business. Without a news source moods are silent (None), which is
neutral by rule: mood can only lower a size, so silence is safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import structlog

from modules.domain.events import BlackoutClosed, BlackoutOpened, Fact
from modules.domain.instrument import AssetClass, Instrument
from modules.news.calendar import Calendar, Window

if TYPE_CHECKING:
    from modules.runtime.clock import Clock
    from modules.store.journal import Journal

log = structlog.get_logger("News_Agent")
CHECK_S: Final = 30.0


class NewsAgent:
    def __init__(self, *, journal: Journal, clock: Clock, calendar: Calendar) -> None:
        self._journal = journal
        self._clock = clock
        self.calendar = calendar
        self._open: dict[str, int] = {}
        """Windows announced as open: name -> until."""
        self._warned: set[str] = set()
        self.blackouts_opened = 0

    async def run(self) -> None:
        await self._clock.drive(CHECK_S, self.tick)

    def tick(self, at: int) -> None:
        """Announce windows that opened or closed since the last look."""
        windows = self.calendar.open_windows(at)
        if not windows and not self._open:
            return
        open_now = {_name(window): window for window in windows}
        if open_now.keys() == self._open.keys():
            return
        for name, window in open_now.items():
            if name not in self._open:
                classes = tuple(sorted(c.value for c in window.classes))
                self._journal.append(BlackoutOpened(at, name, window.event.at, window.closes, classes))
        for name in [name for name in self._open if name not in open_now]:
            self._journal.append(BlackoutClosed(at, name))

    def apply(self, fact: Fact) -> None:
        if isinstance(fact, BlackoutOpened):
            self._open[fact.event] = fact.until
            self.blackouts_opened += 1
        elif isinstance(fact, BlackoutClosed):
            self._open.pop(fact.event, None)

    # -- what decisions ask ----------------------------------------------------------------------------------------------

    def blackout(self, asset_class: AssetClass, currencies: Sequence[str], at: int) -> tuple[str, int | None]:
        """(name, until) of an open window that closes this class's entries, ("", None) without one."""
        for window in self.calendar.open_windows(at):
            if window.covers(asset_class, currencies):
                return _name(window), window.closes
        return "", None

    def calendar_ok(self, asset_class: AssetClass, at: int) -> bool:
        """False while a series this class pauses for is known for less than the policy's horizon: said once, loudly."""
        kind = self.calendar.exhausted(asset_class, at)
        if kind and kind not in self._warned:
            self._warned.add(kind)
            log.error("macro calendar exhausted: entries closed", action="event_pause", reason=kind, asset_class=asset_class.value)
        return not kind

    def mood(self, instrument: Instrument, at: int) -> float | None:
        """-1..1, None while nothing was heard about it."""
        return None


def _name(window: Window) -> str:
    return f"{window.event.kind} {window.event.title}"
