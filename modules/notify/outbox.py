"""The one queue of messages to a person: most important first, bounded, like ones together. Never drops what concerns a kill.

Beyond its bound the oldest of the least important go, and are counted. What failed to be sent comes back to the front of its rank.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

TEXT_MAX: Final = 3_900
"""Telegram takes 4,096 characters; what is added at the end must fit too."""

Buttons = tuple[tuple[tuple[str, str], ...], ...]
"""Rows of (label, data)."""


class Rank(IntEnum):
    """First things first. An answer is what somebody is waiting for with the phone in the hand."""

    KILL = 0
    ANSWER = 1
    FILL = 2
    WARNING = 3
    INFO = 4


@dataclass(frozen=True, slots=True)
class Message:
    """`text` is HTML as Telegram reads it. `together`: may share one message with its like. `key`: a newer one of the same key that
    still waits replaces the older (a feed that comes and goes); "" = never. `photo` is a PNG, then `text` is its caption."""

    rank: Rank
    text: str
    silent: bool = False
    together: bool = False
    key: str = ""
    photo: bytes | None = None
    buttons: Buttons = ()
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class Parcel:
    """What goes out in one request, and the messages it is made of."""

    message: Message
    parts: tuple[Message, ...]


class Outbox:
    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._waiting: dict[Rank, deque[Message]] = {rank: deque() for rank in Rank}
        self.dropped = 0
        """Messages that were given up since somebody last asked (`confess`)."""
        self.dropped_ever = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, message: Message) -> None:
        """Queue `message` behind its rank."""
        queue = self._waiting[message.rank]
        if message.key and message.rank is not Rank.KILL:
            for index, other in enumerate(queue):
                if other.key == message.key:
                    queue[index] = replace(message, repeats=other.repeats + 1)
                    return
        queue.append(message)
        self._shed()

    def _shed(self) -> None:
        while len(self) > self._largest:
            rank = next((rank for rank in reversed(Rank) if rank is not Rank.KILL and self._waiting[rank]), None)
            if rank is None:
                return    # nothing but kills: they stay, whatever the bound says
            self._waiting[rank].popleft()
            self.dropped += 1
            self.dropped_ever += 1

    def take(self) -> Parcel | None:
        """The most important message, together with those of its like that fit behind it; None if nothing waits."""
        queue = next((queue for queue in self._waiting.values() if queue), None)
        if queue is None:
            return None
        parts = [queue.popleft()]
        first = parts[0]
        if first.together:
            length = len(_told(first))
            while queue and queue[0].together and (length := length + 1 + len(_told(queue[0]))) <= TEXT_MAX:
                parts.append(queue.popleft())
        merged = replace(first, text="\n".join(map(_told, parts)), silent=all(part.silent for part in parts))
        return Parcel(merged, tuple(parts))

    def give_back(self, parcel: Parcel) -> None:
        """It could not be sent: in front again, as the messages it was made of."""
        self._waiting[parcel.message.rank].extendleft(reversed(parcel.parts))
        self._shed()

    def confess(self) -> int:
        """How many were dropped since this was last asked."""
        count, self.dropped = self.dropped, 0
        return count

    def ranks(self) -> Iterator[tuple[Rank, int]]:
        return ((rank, len(queue)) for rank, queue in self._waiting.items())


def _told(message: Message) -> str:
    return message.text if message.repeats == 1 else f"{message.text} ({message.repeats} times)"
