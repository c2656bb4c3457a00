"""The journal's word when no daemon runs: a read-only replay into the same authorities. Writes nothing, so prices stay unknown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import main
from modules.domain.errors import NotFound
from modules.domain.events import DaemonStarted, Fact, TransferSeen
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.domain.settings import Settings
from modules.news.calendar import Calendar
from modules.runtime.clock import WallClock
from modules.store.decisions import Decisions
from modules.store.journal import Journal

DOLLARS: Final = "USD"


class _Past:
    """What a report asks of the last run: when it began and when it was last heard of."""

    def __init__(self) -> None:
        self.started_at = 0
        self.last_at = 0
        self.classes: set[AssetClass] = set()

    def apply(self, fact: Fact) -> None:
        self.last_at = max(self.last_at, fact.at)
        if isinstance(fact, DaemonStarted):
            self.started_at = fact.at
        elif isinstance(fact, TransferSeen):
            self.classes.add(fact.asset_class)


class _StoppedClock(WallClock):
    """The time of the journal's last fact: a demo's calendar is not the wall's."""

    def __init__(self, past: _Past) -> None:
        super().__init__()
        self._past = past

    def now(self) -> int:
        return self._past.last_at


@contextmanager
def replayed(settings: Settings, policies: Policies, journal_path: Path, decisions_path: Path) -> Iterator[main.Daemon]:
    """A daemon that only remembers. Raises NotFound without a journal, JournalCorrupt on a broken one."""
    if not journal_path.exists():
        raise NotFound(f"no journal at {journal_path}: nothing has run here yet; start with: python main.py")
    past = _Past()
    with Journal(journal_path, read_only=True) as journal:
        decisions = Decisions(decisions_path if decisions_path.exists() else None)
        try:
            daemon = main.Daemon(main.Plan(
                mode=settings.mode, policies=policies, clock=_StoppedClock(past), journal=journal, decisions=decisions, venues={},
                venue_of={}, settlement=dict.fromkeys(AssetClass, DOLLARS), allocate={}, strategies={}, references={},
                calendar=Calendar((), policies.news, {}), halt_file=None))
            journal.project(past.apply)
            journal.replay()
            daemon.started_at = past.started_at
            yield daemon
        finally:
            decisions.close()
