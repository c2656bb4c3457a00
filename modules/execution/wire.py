"""Takes orders and cancels to their venues and brings back fates. Trade_Executor's hands: nobody else has one.

Sends nothing while a venue wants silence, waits for no answer longer than the order's purpose allows, and sends an order again only where
it provably never arrived. How calls end is counted here. Writes no fact: what a fate means for an order is its owner's to put on record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from modules.domain.errors import VenueBusy, VenueError
from modules.domain.order import Accepted, Fate, InDoubt, NotSent, Order, Refused
from modules.domain.policies import ExecutionPolicy
from modules.execution.lifecycle import Record
from modules.execution.sending import again_at, patience_s
from modules.execution.silence import Silence
from modules.runtime.clock import Clock
from modules.venues.protocol import Venue

log = structlog.get_logger("Trade_Executor")


class Health(Protocol):
    """Who counts how calls to venues end."""

    def on_call(self, venue: str, at: int, ok: bool, kind: str, message: str, until: int | None = None) -> None: ...

    def on_failure(self, venue: str, at: int, error: VenueError) -> None: ...


class Wire:
    def __init__(self, clock: Clock, health: Health, policy: Callable[[], ExecutionPolicy]) -> None:
        self._clock = clock
        self._health = health
        self._policy = policy
        self.silence = Silence()

    async def submit(self, venue: Venue, record: Record, still: Callable[[], bool]) -> Fate:
        """Send it, and while it provably never arrived and is `still` wanted, send it again. Its last fate."""
        fate = await self._submit(venue, record.order)
        while isinstance(fate, NotSent) and (again := self._again_at(venue, record.order, fate)) is not None:
            await self._clock.sleep_until(again)
            if not still():
                break
            fate = await self._submit(venue, record.order)
        self._count(venue, fate)
        return fate

    async def _submit(self, venue: Venue, order: Order) -> Fate:
        patience = patience_s(order.purpose, self._policy())
        try:
            async with asyncio.timeout(patience):
                return await venue.submit(order)
        except TimeoutError:
            return InDoubt(f"no answer within {patience:g} s")

    def _again_at(self, venue: Venue, order: Order, fate: NotSent) -> int | None:
        now = self._clock.now()
        if fate.until is not None:
            fate = NotSent(fate.message, self.mind(venue.name, fate.until))
        self._health.on_call(venue.name, now, False, "error" if fate.until is None else "rate_limit", fate.message, fate.until)
        return again_at(order, fate, now, self._policy(), self._clock.speed)

    def _count(self, venue: Venue, fate: Fate) -> None:
        """That it never left was counted when that was decided."""
        at = self._clock.now()
        match fate:
            case Accepted():
                self._health.on_call(venue.name, at, True, "", "")
            case Refused(_, message, denied):
                # It answered, so the venue is healthy; unless it is us it does not accept.
                self._health.on_call(venue.name, at, not denied, "authentication" if denied else "", message if denied else "")
            case InDoubt(message, answered):
                self._health.on_call(venue.name, at, answered, "" if answered else "error", "" if answered else message)

    async def cancel(self, venue: Venue, order: Order) -> Fate:
        """Ask once for an order's end. The caller counts the answer (`count_cancel`) where it means something of the venue."""
        patience = patience_s(order.purpose, self._policy())
        try:
            async with asyncio.timeout(patience):
                return await venue.cancel(order)
        except TimeoutError:
            return InDoubt(f"no answer to a cancel within {patience:g} s")

    def count_cancel(self, venue: Venue, fate: Fate) -> None:
        """Any answer but a denial is a good call, whatever it decides; a ban is minded."""
        at = self._clock.now()
        until = self.mind(venue.name, fate.until) if isinstance(fate, NotSent) and fate.until is not None else None
        answered = isinstance(fate, Accepted | Refused) or (isinstance(fate, InDoubt) and fate.answered)
        denied = isinstance(fate, Refused) and fate.denied
        kind = "authentication" if denied else "rate_limit" if until is not None else "" if answered else "error"
        message = "" if isinstance(fate, Accepted) or not kind else fate.message
        self._health.on_call(venue.name, at, not kind, kind, message, until)

    def answered(self, venue: Venue) -> None:
        """A question was."""
        self._health.on_call(venue.name, self._clock.now(), True, "", "")

    def failed(self, venue: Venue, error: VenueError) -> int:
        """A question failed: counted, and a ban minded. Returns when the venue may be asked again, UTC ms."""
        now = self._clock.now()
        if not isinstance(error, VenueBusy):
            self._health.on_failure(venue.name, now, error)
            return now
        until = self.mind(venue.name, error.until)
        self._health.on_call(venue.name, now, False, "rate_limit", str(error), until)
        return until

    def mind(self, venue: str, until: int) -> int:
        """A venue wants silence until `until` (UTC ms): nothing of ours goes there before. Returns until when that is."""
        now, longest_s = self._clock.now(), self._policy().silence_s_max
        if until - now > longest_s * 1000:
            log.error("a ban that is longer than we obey", action="ban", venue=venue,
                      reason=f"{(until - now) / 1000:.0f} s; asked again after {longest_s:g} s")
        return self.silence.mind(venue, until, now, longest_s * 1000)

    async def quiet(self, venue: Venue) -> None:
        """Return when the venue may be talked to."""
        if (until := self.silence.until(venue.name)) > self._clock.now():
            await self._clock.sleep_until(until)
