"""Until when each venue wants to hear nothing of us. Pure bookkeeping; refuses to believe in a silence without end."""

from __future__ import annotations


class Silence:
    """Bans by venue. However long one is said to last (a Retry-After of days, or of nonsense), after `longest_ms` from now the venue is
    asked again: a request too early costs a longer ban at most, an exit that never leaves may cost everything."""

    def __init__(self) -> None:
        self._until: dict[str, int] = {}

    def mind(self, venue: str, until: int, now: int, longest_ms: float) -> int:
        """A venue asked for silence until `until` (UTC ms). Returns until when it gets it."""
        self._until[venue] = max(min(until, now + int(longest_ms)), self._until.get(venue, 0))
        return self._until[venue]

    def until(self, venue: str) -> int:
        """UTC ms; 0 = it has never wanted any."""
        return self._until.get(venue, 0)

    def asked_at(self, now: int) -> list[tuple[str, int]]:
        """Venues that want silence now, and until when they get it."""
        return [(venue, until) for venue, until in self._until.items() if until > now]
