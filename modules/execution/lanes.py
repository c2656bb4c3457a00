"""The queues of orders and cancels on their way to a venue: first in, first out, bounded. Decides only which queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import NamedTuple

from modules.domain.order import Order, Purpose
from modules.execution.lifecycle import Record
from modules.venues.protocol import Venue


class Command(NamedTuple):
    record: Record
    cancel: bool
    reason: str


Work = Callable[[Venue, Command], Awaitable[None]]


class Lanes:
    """Two per venue: an entry whose answer does not come must not hold up another position's stop."""

    def __init__(self, venues: Mapping[str, Venue], size: int) -> None:
        self._venues = venues
        self._lanes: dict[tuple[str, bool], asyncio.Queue[Command]] = {
            (name, entries): asyncio.Queue(size) for name in venues for entries in (True, False)}

    def put(self, command: Command) -> bool:
        """False = its lane is full."""
        try:
            self._of(command.record.order).put_nowait(command)
        except asyncio.QueueFull:
            return False
        return True

    def _of(self, order: Order) -> asyncio.Queue[Command]:
        """Cancels wait behind the order they cancel. In this process no answer is ever late, and one lane keeps one order of things."""
        entries = order.purpose is Purpose.ENTRY and not self._venues[order.venue].capabilities.in_process
        return self._lanes[order.venue, entries]

    def jobs(self, work: Work) -> Iterator[tuple[str, Coroutine[None, None, None]]]:
        """(name, what works a lane for ever) of each."""
        for (name, entries), lane in self._lanes.items():
            yield f"lane {name}{' entries' if entries else ''}", _worked(self._venues[name], lane, work)

    async def drain(self, venue: Venue, work: Work) -> None:
        """Work off what waits for one venue."""
        for entries in (False, True):
            lane = self._lanes[venue.name, entries]
            while not lane.empty():
                await work(venue, lane.get_nowait())


async def _worked(venue: Venue, lane: asyncio.Queue[Command], work: Work) -> None:
    while True:
        await work(venue, await lane.get())
