"""What a venue tells of its past, page by page: bars, marks, funding, interest. The same few questions for every venue.

Adapters translate and check each row; a row that cannot be is left out and counted, never repaired. Whoever asks decides what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Final, NamedTuple, Protocol

from modules.domain.instrument import Instrument

Row = tuple[float | int, ...]
"""One line of a recorded file, its first number the time in UTC ms; NaN = not told."""


class Kind(StrEnum):
    BARS = "bars"
    MARK = "mark"
    FUNDING = "funding"
    FINANCING = "financing"


COLUMNS: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.BARS: ("ts", "open", "high", "low", "close", "volume", "quote_volume", "bid", "ask", "open_bid", "open_ask"),
    Kind.MARK: ("ts", "open", "high", "low", "close"),
    Kind.FUNDING: ("ts", "funding_rate", "interval_h", "predicted"),
    Kind.FINANCING: ("ts", "long_rate", "short_rate"),
}
"""The files' columns, as our own exports write them and replay reads them. `ts` is a bar's open, a settlement's time."""


FUNDING_HOURS: Final = 8
"""Between two settlements at most, at any venue; a longer step is a settlement that is missing."""
_HOUR_MS: Final = 3_600_000
_MINUTE_MS: Final = 60_000
_BOOKED_MS: Final = 10_000


def settled(at: int) -> int:
    """When a settlement was made, from when it was written down (UTC ms): venues stamp it up to some seconds after the full minute."""
    return at // _MINUTE_MS * _MINUTE_MS if at % _MINUTE_MS <= _BOOKED_MS else at


def settlement_hours(times: Sequence[int], usual: int) -> list[int]:
    """Hours each rate was for: since the settlement before it (the first: until the next). Venues change the interval; `usual` stands
    where a settlement is missing."""
    steps = [later - earlier for earlier, later in pairwise(times)]
    return [step // _HOUR_MS if step % _HOUR_MS == 0 and _HOUR_MS <= step <= FUNDING_HOURS * _HOUR_MS else usual
            for step in (*(steps[:1] or [0]), *steps)] if times else []


class Page(NamedTuple):
    rows: Sequence[Row]
    """In time order, each within the span that was asked for. A venue may give only the first or only the last part of a span."""
    refused: int = 0
    """Rows that could not be what they said."""
    begins: int | None = None
    """Where what the venue has begins, if it answered with that instead: some give their last candles whatever they are asked for."""


class Archive(Protocol):
    """Reads raise VenueError: VenueBusy with the end of a ban, VenueUnreachable where asking again may help."""

    name: str

    async def offered(self) -> Sequence[Instrument]:
        """Every instrument of the classes it was connected for."""
        ...

    def tells(self, kind: Kind, instrument: Instrument, interval_ms: int) -> bool:
        """Whether the venue keeps such a history at all."""
        ...

    def span_ms(self, kind: Kind, instrument: Instrument, interval_ms: int) -> int:
        """The longest span one question may cover."""
        ...

    def step_ms(self, kind: Kind, instrument: Instrument, interval_ms: int) -> int:
        """How far apart two rows usually are."""
        ...

    async def first(self, instrument: Instrument, since: int) -> int:
        """A time not after its first bar at or after `since` (UTC ms): `since` itself where the venue cannot say."""
        ...

    async def page(self, kind: Kind, instrument: Instrument, interval_ms: int, since: int, until: int) -> Page:
        """Rows at since <= ts < until, closed ones only."""
        ...

    async def close(self) -> None: ...
