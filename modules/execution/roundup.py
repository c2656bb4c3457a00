"""Holds a venue's open orders against ours: what ended unheard, what rests there though we have done with it, what is not ours at all.

Asks the venue and takes back what should not be there; what it finds is told to its owner, who puts it on record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog

from modules.domain.money import ZERO
from modules.domain.order import WORKING, Accepted, OrderReport, OrderState
from modules.domain.policies import ExecutionPolicy
from modules.execution.doubt import SKEW_MS
from modules.execution.lifecycle import Lifecycle, Record
from modules.execution.wire import Wire
from modules.venues.protocol import FillSeen, Venue, Wallet

log = structlog.get_logger("Trade_Executor")


class Findings(Protocol):
    """Who puts on record what is found."""

    def on_fill(self, seen: FillSeen) -> None: ...

    def adopt_report(self, record: Record, report: OrderReport) -> None: ...

    def doubt(self, record: Record, reason: str) -> None: ...

    def cancel(self, record: Record, reason: str) -> None: ...

    def note_foreign(self, venue: Venue, report: OrderReport, *, starting: bool) -> None: ...


class RoundUp:
    def __init__(self, life: Lifecycle, wire: Wire, now: Callable[[], int], policy: Callable[[], ExecutionPolicy], owner: Findings) -> None:
        self._life = life
        self._wire = wire
        self._now = now
        self._policy = policy
        self._owner = owner

    async def catch_up(self, venue: Venue, wallet: Wallet) -> None:
        """After a start: book the fills that happened while nobody listened, ask about orders the venue no longer lists as working,
        and cancel those of ours that rest there though we have done with them. Raises VenueError if the venue cannot be asked."""
        working = [r for r in self._life.orders.values() if r.order.venue == venue.name and r.state is OrderState.ACCEPTED]
        if working:
            # Every order that could have filled unseen was working at our last word, so the oldest of them says how far back to ask.
            for seen in await venue.fills_since(min(record.order.at for record in working) - SKEW_MS):
                self._owner.on_fill(seen)
        await self.look_after(venue, wallet, starting=True)

    def unlisted(self, venue: str, wallet: Wallet, *, starting: bool = False) -> list[Record]:
        """Our working orders that the venue does not list though it has had them for a while: they ended and nobody told us, or it does
        not know them."""
        listed = {report.client_order_id for report in wallet.open_orders}
        until = self._now() if starting else wallet.at - int(self._policy().wallet_settle_s * 1000)
        return [record for record in self._life.orders.values() if record.state is OrderState.ACCEPTED and record.order.venue == venue
                and record.order.client_order_id not in listed and record.accepted_at <= until]

    async def look_after(self, venue: Venue, wallet: Wallet, *, starting: bool = False) -> None:
        """Ask about orders the venue lists no more, cancel those of ours that rest there though we have done with them, and tell of
        strangers. Raises VenueError; VenueDenied if another daemon's orders are found at start."""
        for record in self.unlisted(venue.name, wallet, starting=starting):
            report = await venue.order(record.order.client_order_id, record.order.symbol)
            record.told = max(record.told, report.filled if report is not None else ZERO)
            if report is not None and report.filled > record.filled:
                # It traded and nobody told us, whatever streams and audits take for told: what was bought has no stop until it is known.
                for seen in await venue.fills_since(record.order.at - SKEW_MS):
                    if seen.fill.client_order_id == report.client_order_id:
                        self._owner.on_fill(seen)
            if record.state is not OrderState.ACCEPTED:
                continue
            if report is not None and report.state not in WORKING:
                self._owner.adopt_report(record, report)
            elif report is None:
                self._owner.doubt(record, "the venue does not list it")
        for report in wallet.open_orders:
            known = self._life.record(report.client_order_id)
            if known is None:
                self._owner.note_foreign(venue, report, starting=starting)
            elif not known.working:
                await self._take_back(venue, known)
            elif self._stood_canceled(known, wallet.at):
                known.cancel_sent, known.cancel_acknowledged_at = False, 0
                self._owner.cancel(known, "its cancel was acknowledged and not carried out")

    async def _take_back(self, venue: Venue, record: Record) -> None:
        """An order that ended here rests there. One that stays in spite of this is still listed at the next look, and canceled again."""
        fate = await self._wire.cancel(venue, record.order)
        self._wire.count_cancel(venue, fate)
        if not isinstance(fate, Accepted):
            log.error("an order that ended here rests at the venue", action="cancel", venue=venue.name,
                      client_order_id=record.order.client_order_id, reason=fate.message)

    def _stood_canceled(self, record: Record, at: int) -> bool:
        """Whether a venue that acknowledged a cancel still lists the order at `at`, long after."""
        acknowledged = record.cancel_acknowledged_at
        return bool(record.cancel_sent and acknowledged and at - acknowledged >= self._policy().wallet_settle_s * 1000)
