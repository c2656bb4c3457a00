"""When forex trades and when it rolls over: New York wall time, so daylight saving is the zone's business and not ours.

The week closes on Friday and opens on Sunday, both 17:00 New York. Christmas and New Year's Day are closed the world over, and on their
eves banks leave at noon New York (the recordings of four brokers end between 17:00 and 20:00 UTC). Positions roll at 17:00 on every
weekday, and brokers pause for it (OANDA's published hours: 16:58 to 17:03 in 2022, 16:59 to 17:05 since). Value dates: T+2 pairs pay three
nights on Wednesday (the weekend of the value date), T+1 pairs (USD/CAD, USD/TRY) on Thursday.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

NEW_YORK: Final = ZoneInfo("America/New_York")
ROLLOVER_HOUR: Final = 17
EVE_HOUR: Final = 12
EVES: Final = frozenset({(12, 24), (12, 31)})
HOLIDAYS: Final = frozenset({(12, 25), (1, 1)})
NEXT_DAY_PAIRS: Final = frozenset({"USD/CAD", "USD/TRY"})
DAY: Final = 86_400_000


@lru_cache(maxsize=4096)
def _rollover_of_day(day: int) -> int:
    """UTC ms of 17:00 New York on the UTC date that is `day` days after the epoch."""
    date = datetime.fromtimestamp(day * 86400, UTC).date()
    return int(datetime(date.year, date.month, date.day, ROLLOVER_HOUR, tzinfo=NEW_YORK).timestamp() * 1000)


@lru_cache(maxsize=4096)
def _noon_of_eve(day: int) -> int | None:
    """UTC ms of noon New York if the UTC date `day` is a holiday's eve."""
    date = datetime.fromtimestamp(day * 86400, UTC).date()
    if (date.month, date.day) not in EVES:
        return None
    return int(datetime(date.year, date.month, date.day, EVE_HOUR, tzinfo=NEW_YORK).timestamp() * 1000)


@lru_cache(maxsize=4096)
def _holiday(day: int) -> bool:
    date = datetime.fromtimestamp(day * 86400, UTC).date()
    return (date.month, date.day) in HOLIDAYS


def _weekday(day: int) -> int:
    """Monday 0 .. Sunday 6."""
    return (day + 3) % 7


def forex_open(at: int) -> bool:
    """Whether forex trades at `at` (UTC ms): not from Friday 17:00 to Sunday 17:00 New York, nor from noon on a holiday's eve to 17:00 on
    the holiday."""
    day = at // DAY
    noon = _noon_of_eve(day)
    if (noon is not None and at >= noon) or (_holiday(day) and at < _rollover_of_day(day)):
        return False
    weekday = _weekday(day)
    if weekday == 5:
        return False
    if weekday == 4:
        return at < _rollover_of_day(day)
    if weekday == 6:
        return at >= _rollover_of_day(day)
    return True


def rolling(at: int) -> bool:
    """Whether brokers pause for the rollover at `at` (UTC ms): from a minute before 17:00 New York to five after, every day, they may
    neither quote nor fill."""
    rollover = _rollover_of_day(at // DAY)
    return rollover - 60_000 <= at < rollover + 300_000


def next_rollover(at: int) -> int:
    """The first 17:00 New York on a weekday strictly after `at` (UTC ms)."""
    day = at // DAY
    while _rollover_of_day(day) <= at or _weekday(day) >= 5:
        day += 1
    return _rollover_of_day(day)


def minutes_to_rollover(at: int) -> float:
    """Minutes to the nearer 17:00 New York, before or after, any day."""
    day = at // DAY
    return min(abs(_rollover_of_day(d) - at) for d in (day - 1, day, day + 1)) / 60_000.0


@lru_cache(maxsize=4096)
def next_close(at: int) -> int:
    """When forex next closes for a weekend or a holiday, at or after `at` (UTC ms)."""
    day = at // DAY
    while True:
        noon = _noon_of_eve(day)
        if noon is not None and noon >= at and _weekday(day) < 5:
            return noon
        if _weekday(day) == 4 and _rollover_of_day(day) >= at and not _holiday(day) and noon is None:
            return _rollover_of_day(day)
        day += 1


def nights(symbol: str, rollover: int) -> int:
    """How many nights' financing one rollover charges: 1, or 3 on Wednesday (Thursday for T+1 pairs); 7 in a full week."""
    weekday = _weekday(rollover // DAY)
    triple = 3 if symbol.partition("#")[0] in NEXT_DAY_PAIRS else 2
    return 3 if weekday == triple else 1


def nights_between(symbol: str, since: int, until: int) -> int:
    """Nights a position opened at `since` and closed at `until` pays for."""
    total, at = 0, next_rollover(since)
    while at <= until:
        total += nights(symbol, at)
        at = next_rollover(at)
    return total


def utc_day(at: int) -> int:
    """Days since the epoch: the key of a UTC day."""
    return at // DAY


def utc_month(at: int) -> tuple[int, int]:
    """(year, month) in UTC."""
    moment = datetime.fromtimestamp(at / 1000.0, UTC)
    return moment.year, moment.month


def iso(at: int) -> str:
    """UTC ISO-8601 with milliseconds, as every log line and JSON document writes time."""
    return (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=at)).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at % 1000:03d}Z"


def parse_iso(text: str) -> int:
    """UTC ms of an ISO-8601 date or time; a time without zone is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
