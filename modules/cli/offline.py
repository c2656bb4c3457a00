"""The journal's word when no daemon runs: a read-only replay into the same authorities. Writes nothing, so prices stay unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import main
from modules.domain.errors import NotFound
from modules.domain.events import DaemonStarted, Fact, InstrumentListed, TransferSeen
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.domain.settings import Settings
from modules.news.calendar import Calendar
from modules.runtime.clock import WallClock
from modules.store.decisions import Decisions
from modules.store.journal import Journal

DOLLARS: Final = "USD"
"""What a class that never traded is shown in."""


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
                venue_of={}, settlement=_currencies(settings, journal), allocate={}, strategies={}, references={},
                calendar=Calendar((), policies.news, {}), halt_file=None))
            journal.project(past.apply)
            journal.replay()
            daemon.started_at = past.started_at
            yield daemon
        finally:
            decisions.close()


def _currencies(settings: Settings, journal: Journal) -> dict[AssetClass, str]:
    """What each class's books were kept in: as its venue is set up, else what most of its instruments on record settle in."""
    listed = (fact.instrument for fact in journal.of(InstrumentListed) if isinstance(fact, InstrumentListed))
    seen: dict[AssetClass, Counter[str]] = {asset_class: Counter() for asset_class in AssetClass}
    for instrument in listed:
        seen[instrument.asset_class][instrument.settle] += 1
    found = {asset_class: counts.most_common(1)[0][0] if counts else "" for asset_class, counts in seen.items()}
    if not found[AssetClass.OPTION]:
        found[AssetClass.OPTION] = found[AssetClass.PERP]    # no contract was ever traded; crypto options share the crypto account
    for venue in settings.venues.values() if settings.mode != "demo" else ():
        found |= {asset_class: venue.settlement for asset_class in venue.classes if venue.settlement}
    return {asset_class: currency or DOLLARS for asset_class, currency in found.items()}
