"""How an order in doubt is searched for, and when its absence is proven (reliability.md section 3). Writes no fact."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Final, Protocol

from modules.domain.errors import VenueError
from modules.domain.order import InDoubt, NotSent, OrderReport, OrderState
from modules.domain.policies import ExecutionPolicy
from modules.execution.lifecycle import Record
from modules.execution.wire import Wire
from modules.runtime import failpoint
from modules.runtime.clock import Clock
from modules.venues.protocol import FillSeen, Venue

SKEW_MS: Final = 60_000
"""How much earlier than by our clock a venue may have stamped a fill of an order of ours: more than any clock we trade by is wrong, and
asking for too much costs one answer."""


class Search:
    """One order's search. Proof of absence: enough spaced misses over enough time; then the asker puts up a fence (a cancel by client id)
    and misses once more. A question that failed is no miss."""

    def __init__(self, began: int) -> None:
        self._began = began
        self._asked = 0
        self.misses = 0

    def next_at(self, now: int, policy: ExecutionPolicy) -> int:
        """When to ask next, UTC ms: pauses grow, the last one repeats."""
        spacing = policy.doubt_query_spacing_s
        pause_s = spacing[min(self._asked, len(spacing) - 1)]
        self._asked += 1
        return now + int(pause_s * 1000.0)

    def long(self, now: int, policy: ExecutionPolicy) -> bool:
        """Whether it has lasted for so long that a wallet which shows what it looks for must have that from somewhere else."""
        return now - self._began >= policy.doubt_longest_s * 1000

    def missed(self, now: int, policy: ExecutionPolicy) -> bool:
        """The venue answered and did not know the order. Whether that is enough for the fence."""
        self.misses += 1
        return self.misses >= policy.doubt_misses_min and (now - self._began) / 1000.0 >= policy.doubt_proof_s


class Words(Protocol):
    """Who puts on record what a venue says of an order."""

    def on_fill(self, seen: FillSeen) -> None: ...

    def adopt_report(self, record: Record, report: OrderReport) -> None: ...

    def given_up(self, record: Record, misses: int) -> None: ...

    def shows(self, record: Record) -> bool:
        """Whether the venue's wallet has what (a part of) it would have moved and nothing else explains."""
        ...


class Doubts:
    """Asks venues what became of orders. `words` hears every answer; `task` begins something that runs beside everything else."""

    def __init__(self, venues: Mapping[str, Venue], clock: Clock, wire: Wire, policy: Callable[[], ExecutionPolicy], words: Words,
                 task: Callable[[Coroutine[None, None, None], str], None]) -> None:
        self._venues = venues
        self._clock = clock
        self._wire = wire
        self._policy = policy
        self._words = words
        self._task = task
        self._resolving: set[str] = set()

    def ask(self, record: Record) -> None:
        """Begin to resolve an order in doubt; once per order."""
        client_order_id = record.order.client_order_id
        if client_order_id not in self._resolving:
            self._task(self._resolve(record), f"doubt {client_order_id}")

    async def _resolve(self, record: Record) -> None:
        if record.order.client_order_id in self._resolving:
            return
        self._resolving.add(record.order.client_order_id)
        try:
            await self._find_out(record)
        finally:
            self._resolving.discard(record.order.client_order_id)

    async def _find_out(self, record: Record) -> None:
        """Ask the venue until the order is found or its absence is proven (reliability.md section 3).

        Proof: enough spaced misses over enough time, a full trade history since the sending without it, a cancel by client id as a
        fence, one more miss, and a wallet that does not show what it would have moved. Only then is it given up; the strategy may decide
        anew, nothing is re-sent here.
        """
        order, venue = record.order, self._venues[record.order.venue]
        search = Search(self._clock.now())
        while record.state is OrderState.IN_DOUBT:
            await self._clock.sleep_until(search.next_at(self._clock.now(), self._policy()))
            failpoint.hit("doubt.asking")
            try:
                if await self.inquire(venue, record) or not search.missed(self._clock.now(), self._policy()):
                    continue
                fence = await self._wire.cancel(venue, order)
                if not isinstance(fence, InDoubt):  # which is all that some venues can say of an order they have never seen
                    self._wire.count_cancel(venue, fence)
                if isinstance(fence, NotSent):
                    continue  # no fence stands
                report = await venue.order(order.client_order_id, order.symbol)
            except VenueError as error:
                await self._clock.sleep_until(self._wire.failed(venue, error))
                continue
            failpoint.hit("doubt.fenced")
            if report is not None:
                self._words.adopt_report(record, report)
            elif record.state is OrderState.IN_DOUBT and (search.long(self._clock.now(), self._policy()) or not self._words.shows(record)):
                self._words.given_up(record, search.misses)

    async def inquire(self, venue: Venue, record: Record) -> bool:
        """Ask what became of an order, and book its fills before its end is believed. Whether the venue knows it. Raises VenueError."""
        order = record.order
        report = await venue.order(order.client_order_id, order.symbol)
        fills = await venue.fills_since(order.at - SKEW_MS)
        self._wire.answered(venue)
        for seen in fills:
            if seen.fill.client_order_id == order.client_order_id:
                self._words.on_fill(seen)
        if report is not None:
            self._words.adopt_report(record, report)
        return report is not None

    def hear_out(self, record: Record) -> None:
        """It is at its end, as the venue says (a stop's cancel was acknowledged, a last execution is told), and nothing stands in for it
        before that is known: so it is asked for if nobody tells it."""
        venue = self._venues[record.order.venue]
        if not venue.capabilities.in_process:
            self._task(self._await_end(venue, record), f"end of {record.order.client_order_id}")

    async def _await_end(self, venue: Venue, record: Record) -> None:
        await self._clock.sleep_until(self._clock.now() + int(self._policy().resend_every_s * 1000))
        if record.state is OrderState.ACCEPTED:
            try:
                await self.inquire(venue, record)
            except VenueError as error:
                self._wire.failed(venue, error)
