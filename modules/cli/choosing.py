"""What of a venue is traded, asked of the venue itself: the fixed list of the settings, the usual short one, or what the rule chooses.

A scout without a key asks; it is closed again. The daemon, the drill and the doctor go by the same answer.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final, cast

import structlog

from modules.domain.errors import ConfigurationError, VenueError
from modules.domain.events import InstrumentsChosen
from modules.domain.instrument import Instrument
from modules.domain.policies import Policies
from modules.domain.settings import SelectSettings, VenueSettings
from modules.venues import factory
from modules.venues.selection import Choice, Chosen, Listing, rule_of, symbols_for

if TYPE_CHECKING:
    from modules.runtime.clock import Clock
    from modules.store.journal import Journal

log = structlog.get_logger("choosing")
SECOND_MS: Final = 1_000


def last_choice(journal: Journal, venue: str) -> InstrumentsChosen | None:
    """What the rule chose last, by the journal."""
    found = [fact for fact in journal.of(InstrumentsChosen) if isinstance(fact, InstrumentsChosen) and fact.venue == venue]
    return found[-1] if found else None


class Asking:
    """Asks one venue. Every question raises VenueError, and ConfigurationError where the answer is that nothing is left to trade."""

    def __init__(self, name: str, venue: VenueSettings, policies: Policies, clock: Clock) -> None:
        self._name = name
        self._venue = venue
        self._policies = policies
        self._clock = clock

    async def symbols(self, held: Collection[str] = ()) -> Choice:
        """What is traded now; `held` is kept whatever a list or a rule says."""
        scout = factory.connect(self._name, self._venue, clock=self._clock, policies=self._policies, trading=False, symbols=())
        try:
            choice = await symbols_for(cast(Listing, scout), self._venue, held, now=self._clock.now(),
                                       usual=factory.symbols_of(self._name, self._venue))
        finally:
            await scout.close()
        if not choice.symbols:
            raise ConfigurationError([f"venues.{self._name}.symbols: none of the usual ones is listed there; name what to trade"])
        return choice

    async def by_rule(self) -> Chosen:
        """What the rule chooses now."""
        return await self._asked(None)

    async def going_on(self, last: InstrumentsChosen | None) -> Chosen:
        """The last choice while it stands, for a restart changes nothing; else a new one. One that is too old is better than none: where
        the venue does not answer, or the same rule leaves nothing today, it stands until the daemon asks again."""
        return await self._asked(last)

    async def _asked(self, last: InstrumentsChosen | None) -> Chosen:
        rule = self._venue.select
        assert rule is not None
        scout = factory.connect(self._name, self._venue, clock=self._clock, policies=self._policies, trading=False, symbols=())
        try:
            listing, now = cast(Listing, scout), self._clock.now()
            offered = {one.symbol: one for one in await listing.offered() if one.asset_class in self._venue.classes}
            old = _again(rule, last, offered)
            if old is not None and now - old.asked_at < old.every_ms:
                return old
            try:
                choice = await symbols_for(listing, self._venue, (), now=now)
            except (VenueError, ConfigurationError) as error:
                if old is None:
                    raise
                log.warning("the last choice of instruments stands", action="select", exchange=self._name, reason=str(error))
                return old
            return Chosen(rule_of(rule), now, choice, offered, rule.refresh_period * SECOND_MS)
        finally:
            await scout.close()


def _again(rule: SelectSettings, last: InstrumentsChosen | None, offered: dict[str, Instrument]) -> Chosen | None:
    """The same choice as far as it is still offered; None where there is none, or it was made by another rule."""
    if last is None or last.rule != rule_of(rule):
        return None
    symbols = tuple(symbol for symbol in last.symbols if symbol in offered)
    return Chosen(last.rule, last.asked_at, Choice(symbols, {}), offered, rule.refresh_period * SECOND_MS) if symbols else None
