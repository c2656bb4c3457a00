"""Owns moods, blackout windows and cautions. May refuse entries inside a window, after an extraordinary headline, and while a series of
the calendar is exhausted.

Alone writes BlackoutOpened and BlackoutClosed. Exits are never its business. Without a news source moods are silent (None), which is
neutral by rule: mood can only lower a size, so silence is safe. What it knows at an instant is what had been seen by then: the same
recording gives the same moods again, bit for bit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from modules.domain.errors import StoreUnreadable
from modules.domain.events import BlackoutClosed, BlackoutOpened, Fact
from modules.domain.instrument import AssetClass, Instrument
from modules.news import cautions, refresh
from modules.news.calendar import WEEKLY_KINDS, Calendar, Window
from modules.news.mood import HOUR, Mood, Moods
from modules.news.sentiment import shipped
from modules.runtime.clock import IDLE
from modules.runtime.supervise import keep_running

if TYPE_CHECKING:
    from modules.domain.policies import NewsPolicy
    from modules.news.cautions import Caution
    from modules.news.fetch import Feeds, FeedState
    from modules.news.items import Item
    from modules.news.releases import Snapshot
    from modules.news.setup import Setup
    from modules.runtime.clock import Clock
    from modules.store.journal import Journal

log = structlog.get_logger("News_Agent")
CHECK_S: Final = 30.0
RECALL_MS: Final = 8 * 24 * HOUR
"""How much of its store a restarted agent reads again: more than moods, cautions and stories reach back together."""
BACK_MS: Final = HOUR
"""A decision that asked about an instant later than that after the clock's now asked by a clock that was wrong."""
SPOKEN_MS: Final = 60 * 24 * HOUR
"""How long after the last day it speaks of a calendar feed's answer is kept: longer than any release is moved."""


class NewsAgent:
    """`setup` None = no news at all; with sources: feeds are asked; without: its store is replayed as time passes."""

    def __init__(
        self, *, journal: Journal, clock: Clock, calendar: Calendar, policy: NewsPolicy | None = None, setup: Setup | None = None
    ) -> None:
        self._journal = journal
        self._clock = clock
        self.calendar = calendar
        self._base = calendar
        self._policy = policy
        self._store = setup.store if setup is not None else None
        self._open: dict[str, int] = {}
        """Windows announced as open: name -> until."""
        self._warned: set[str] = set()
        self._foretold: set[str] = set()
        """Series that were said to run out soon."""
        self.blackouts_opened = 0
        self.moods: Moods | None = None
        self.cautions: list[Caution] = []
        self._snapshots: list[Snapshot] = []
        self._changes: set[tuple[str, int | None, int]] = set()
        self._coming: Iterator[Item] | None = None
        self._next: Item | None = None
        self._asked = 0
        """The latest instant that anybody asked about."""
        self._stamp = 0
        self._snapshots_coming: list[Snapshot] = []
        self.feeds: Feeds | None = None
        if policy is not None and setup is not None:
            self.moods = Moods(policy.mood, shipped())
            if setup.sources:
                self._wire(setup)
            else:
                self._coming = setup.store.items(setup.since)
                self._next = next(self._coming, None)
                self._snapshots_coming = list(setup.store.snapshots())

    def _wire(self, setup: Setup) -> None:
        """Feeds, and what they had said before we were last stopped."""
        from modules.news.fetch import Feeds, FeedState  # replays need no network library

        at = self._clock.now()
        states = {source.name: FeedState(source) for source in setup.sources}
        self.feeds = Feeds(setup.sources, self._clock, self.take, self.take_snapshot, self._announce, setup.token, states)
        try:
            for item in setup.store.items(at - RECALL_MS):
                self._consider(item)
                if item.source in states:
                    states[item.source].remember(item)
        except StoreUnreadable as error:    # positions wait for their exits; headlines can be forgotten
            log.error("news store damaged: earlier headlines are forgotten", action="news_store", reason=str(error))
        try:
            for snapshot in setup.store.snapshots():
                if snapshot.last >= at - SPOKEN_MS:
                    self._snapshots.append(snapshot)
        except StoreUnreadable as error:
            log.error("news store damaged: what calendar feeds said since is forgotten", action="news_store", reason=str(error))
        if self._policy is not None:
            self.calendar, changes = refresh.merge(self._base.events, self._base.covered_until, self._snapshots, self._policy)
            self._changes.update(change.name for change in changes)

    def adopt(self, policy: NewsPolicy) -> None:
        """Work by the owner's new windows and numbers from the next decision on."""
        if self._policy is None:
            return
        self._policy = policy
        self._base = Calendar(self._base.events, policy, self._base.covered_until)
        self.calendar, _ = refresh.merge(self._base.events, self._base.covered_until, self._snapshots, policy)
        if self.moods is not None:
            self.moods.adopt(policy.mood)

    # -- life -----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch the calendar as a core task; the feeds beside it may fail and be restarted without end."""
        if self.feeds is None:
            await self._clock.drive(CHECK_S, self.tick)
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._clock.drive(CHECK_S, self.tick), name="News_Agent calendar")
            group.create_task(keep_running("news feeds", self.feeds.run, _announce_restart), name="News_Agent feeds")

    def tick(self, at: int) -> int | None:
        """Announce windows and cautions that opened or closed since the last look. Answers when the next will, as far as recordings
        tell; feeds may say something at any time."""
        self._advance(at)
        for kind in self.calendar.running_out(at):
            if kind not in self._foretold:
                log.warning("macro calendar runs out", action="calendar_horizon", reason=kind,
                            entries_close=self.calendar.closes_from(kind))
                self._foretold.add(kind)
        self.cautions = [caution for caution in self.cautions if caution.until >= at]
        open_now = {_name(window): (window.event.at, window.closes, window.classes) for window in self.calendar.open_windows(at)}
        open_now |= {caution.name: (caution.at, caution.until, caution.classes) for caution in self.cautions if caution.at <= at}
        if open_now.keys() != self._open.keys():
            for name, (scheduled, until, classes) in open_now.items():
                if name not in self._open:
                    self._journal.append(BlackoutOpened(at, name, scheduled, until, tuple(sorted(c.value for c in classes))))
            for name in [name for name in self._open if name not in open_now]:
                self._journal.append(BlackoutClosed(at, name))
        return None if self.feeds is not None else self._next_change(at)

    def _next_change(self, at: int) -> int:
        """The first instant after `at` at which a recording has something new, or a window or caution opens or closes."""
        changes = [self.calendar.next_change(at)]
        changes += [caution.at if caution.at > at else caution.until + 1 for caution in self.cautions]
        changes += [snapshot.fetched for snapshot in self._snapshots_coming[:1]]
        if self._next is not None:
            changes.append(self._next.first_seen)
        return min((change for change in changes if change is not None), default=IDLE)

    def apply(self, fact: Fact) -> None:
        if isinstance(fact, BlackoutOpened):
            self._open[fact.event] = fact.until
            self.blackouts_opened += 1
        elif isinstance(fact, BlackoutClosed):
            self._open.pop(fact.event, None)

    # -- what comes in ---------------------------------------------------------------------------------------------------

    def take(self, items: Sequence[Item]) -> None:
        """Headlines first seen now, in order: on record first, then in the moods.

        None is stamped with an instant that a decision has looked at already, nor before the last one: so a replay, which gives a
        decision all that was seen by its time, gives it exactly what it had.
        """
        stamped = []
        for item in items:
            if item.first_seen < max(self._asked, self._stamp) - BACK_MS:
                # The clock was put back: what it said before is no instant to wait for.
                log.error("clock put back: headlines count from now on", action="news_clock", seconds=(self._asked - item.first_seen) / 1e3)
                self._asked = self._stamp = item.first_seen
            self._stamp = max(item.first_seen, self._asked + 1, self._stamp)
            stamped.append(replace(item, first_seen=self._stamp))
        if self._store is not None:
            self._store.add(stamped)
        for item in stamped:
            self._consider(item)

    def _consider(self, item: Item) -> None:
        if self.moods is None or self._policy is None:
            return
        found = cautions.raised(self.moods.take(item), item.first_seen, self.cautions, self._policy.cautions)
        if found is not None:
            self.cautions.append(found)
            log.error("extraordinary headline: entries closed", action="event_pause", reason=found.name, until=found.until,
                      assets=sorted(found.assets))

    def take_snapshot(self, snapshot: Snapshot) -> None:
        """What a calendar feed says now; kept if it is not what it said before."""
        last = next((old for old in reversed(self._snapshots) if old.source == snapshot.source), None)
        if last is not None and (last.events, last.first, last.last) == (snapshot.events, snapshot.first, snapshot.last):
            return
        if self._store is not None and self._coming is None:
            self._store.add_snapshot(snapshot)
        self._correct(snapshot, loud=True)

    def _correct(self, snapshot: Snapshot, *, loud: bool) -> None:
        if self._policy is None:
            return
        since = snapshot.fetched - SPOKEN_MS
        self._snapshots = [*(old for old in self._snapshots if old.last >= since), snapshot]
        # On top of what the earlier ones made of it: all of them again would take longer with every week.
        lasting = [event for event in self.calendar.events if event.at >= since or event.kind not in WEEKLY_KINDS]
        self.calendar, changes = refresh.merge(lasting, self.calendar.covered_until, (snapshot,), self._policy)
        for change in changes:
            if loud and change.name not in self._changes:
                log.warning("macro calendar changed", action="calendar_change", release=f"{change.kind} {change.title}",
                            before=change.before, after=change.after, source=change.source)
            self._changes.add(change.name)
        self._foretold &= set(self.calendar.running_out(snapshot.fetched))
        self._warned = {kind for kind in self._warned if self.calendar.covered_until.get(kind) == self._base.covered_until.get(kind)}

    def _advance(self, at: int) -> None:
        """In a replay: take what had been seen by `at`, in the recorded order."""
        self._asked = max(self._asked, at)
        while self._snapshots_coming and self._snapshots_coming[0].fetched <= at:
            self._correct(self._snapshots_coming.pop(0), loud=False)
        if self._coming is None:
            return
        while self._next is not None and self._next.first_seen <= at:
            self._consider(self._next)
            self._next = next(self._coming, None)

    def _announce(self, state: FeedState, at: int) -> None:
        if self._store is not None:
            self._store.set_feed(state.source.name, state.state, state.reason, at, state.good_at, state.items)

    # -- what decisions ask ----------------------------------------------------------------------------------------------

    def blackout(self, asset_class: AssetClass, currencies: Sequence[str], at: int) -> tuple[str, int | None]:
        """(name, until) of an open window or caution that closes this class's entries, ("", None) without one."""
        self._advance(at)
        for window in self.calendar.open_windows(at):
            if window.covers(asset_class, currencies):
                return _name(window), window.closes
        for caution in self.cautions:
            if caution.at <= at <= caution.until and caution.covers(asset_class, currencies):
                return caution.name, caution.until
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
        if self.moods is None:
            return None
        self._advance(at)
        return self.moods.value(instrument, at)

    def cautions_at(self, at: int) -> list[Caution]:
        """Those in force, newest first."""
        self._advance(at)
        return sorted((c for c in self.cautions if c.at <= at <= c.until), key=lambda c: (-c.at, c.name))

    def sources(self) -> list[tuple[str, str, str, int, int | None, int]]:
        """(source, state, reason, at, last good answer, headlines) per feed; empty without a store."""
        return [] if self._store is None else self._store.feeds()

    def mood_of_asset(self, asset: str, at: int) -> Mood | None:
        """The mood about one coin, or about one currency whatever it is traded against."""
        if self.moods is None:
            return None
        self._advance(at)
        return self.moods.of_asset(asset, at)

    def mood_of(self, instrument: Instrument, at: int) -> Mood | None:
        """The mood with the headlines behind it."""
        if self.moods is None:
            return None
        self._advance(at)
        return self.moods.of(instrument, at)


def _name(window: Window) -> str:
    return f"{window.event.kind} {window.event.title}"


def _announce_restart(name: str, error: BaseException, pause_s: float) -> None:
    log.error("peripheral task failed; it is started again", action="restart", task=name, reason=repr(error), pause_s=pause_s)
