"""Asks the feeds: conditional requests, pauses that grow, limits of size and time. A dead, broken or silent source is flagged, never fatal.

Bodies are parsed in a thread, headlines read a few at a time, so that nothing here holds the event loop. Owns no moods: what it finds
goes to `on_items` and `on_snapshot`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final, Protocol
from urllib.parse import urlencode

import aiohttp
import structlog

from modules.news import feeds, releases
from modules.news.feeds import FeedBroken
from modules.news.items import Item, one_line
from modules.news.releases import Snapshot
from modules.news.sources import Shape, Source
from modules.runtime import redirects

log = structlog.get_logger("News_Agent")

BYTES_MAX: Final = 2_000_000
TOTAL_S: Final = 20.0
"""For a whole answer, however slowly it drips."""
PAUSE_MAX_S: Final = 3_600.0
REFUSAL_MAX_S: Final = 21_600.0
"""The longest a source may send us away (Retry-After)."""
STEP: Final = 2
"""Headlines handed over at once: 1.6 ms of reading, comparing and storing on a busy machine with 6,000 headlines kept."""
_AGENT: Final = "self-learning-trading-bot (news reader)"
_TYPES: Final = {Shape.XML: "application/rss+xml, application/atom+xml, application/xml;q=0.9, */*;q=0.5",
                 Shape.ICS: "text/calendar, */*;q=0.5"}


class _Clock(Protocol):
    def now(self) -> int: ...


class FeedState:
    """What is known of one source's health; `reason` is for people."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.state = "new"
        self.reason = ""
        self.failures = 0
        self.good_at: int | None = None
        self.newest_at: int | None = None
        """When the latest headline nobody had before came; the first good answer, until one has."""
        self.items = 0
        self.tag = ""
        self.modified = ""
        self.known: dict[str, str] = {}

    def remember(self, item: Item) -> None:
        """An item on record from before a restart."""
        feeds.changed([item], self.known)
        self.newest_at = max(item.first_seen, self.newest_at or 0)

    def answered(self, at: int) -> None:
        """A good answer. One that repeats itself for days is worth no more than none: the source is silent."""
        self.good_at = at
        self.newest_at = at if self.newest_at is None else self.newest_at
        hours = (at - self.newest_at) / 3_600_000.0
        silent = 0.0 < self.source.silent_h < hours
        self.state, self.reason = ("silent", f"nothing new for {hours:.0f} hours") if silent else ("good", "")


@dataclass(frozen=True)
class Feeds:
    """Every source's coroutine. `on_items` and `on_snapshot` are plain functions on the event loop; `announce` stores health."""

    sources: Sequence[Source]
    clock: _Clock
    on_items: Callable[[Sequence[Item]], None]
    on_snapshot: Callable[[Snapshot], None]
    announce: Callable[[FeedState, int], None]
    token: str = ""
    """CryptoPanic's."""
    states: dict[str, FeedState] = field(default_factory=dict)
    total_s: float = TOTAL_S

    async def run(self) -> None:
        """Ask for ever. Errors of our own making leave (and are the supervisor's); the world's are flagged here."""
        timeout = aiohttp.ClientTimeout(total=self.total_s, sock_connect=10.0, sock_read=15.0)
        async with (aiohttp.ClientSession(timeout=timeout, headers={"User-Agent": _AGENT}, cookie_jar=aiohttp.DummyCookieJar(),
                                          max_line_size=16_384, max_field_size=16_384,
                                          trace_configs=[redirects.refused(to_plain_only=True)]) as session,
                    asyncio.TaskGroup() as group):
            for number, source in enumerate(self.sources):
                group.create_task(self._watch(session, source, 0.5 * number), name=f"feed {source.name}")

    async def _watch(self, session: aiohttp.ClientSession, source: Source, delay_s: float) -> None:
        await asyncio.sleep(min(delay_s, source.every_s))
        while True:
            pause = await self.ask(session, source)
            await asyncio.sleep(pause)

    async def ask(self, session: aiohttp.ClientSession, source: Source) -> float:
        """One request and what follows from it; seconds until the next."""
        state = self.states.setdefault(source.name, FeedState(source))
        was = state.state
        try:
            pause = await self._fetch(session, source, state)
            state.failures = 0
        except _Refused as refused:
            state.failures += 1
            state.state, state.reason = "refused", str(refused)
            pause = max(refused.pause_s, self._backed_off(state))
        except (FeedBroken, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            state.failures += 1
            state.state = "broken" if isinstance(error, FeedBroken) else "unreachable"
            state.reason = self._hidden(one_line(f"{type(error).__name__}: {error}", 160))
            pause = self._backed_off(state)
        if state.state != was and state.state != "good":
            log.warning("news source failing", action="news_source", source=source.name, state=state.state, reason=state.reason)
        elif was not in ("new", "good") and state.state == "good":
            log.info("news source is back", action="news_source", source=source.name)
        self.announce(state, self.clock.now())
        return pause

    def _hidden(self, text: str) -> str:
        return text.replace(self.token, "***") if self.token else text

    @staticmethod
    def _backed_off(state: FeedState) -> float:
        return max(state.source.every_s, min(PAUSE_MAX_S, state.source.every_s * 2.0 ** min(state.failures - 1, 10)))

    async def _fetch(self, session: aiohttp.ClientSession, source: Source, state: FeedState) -> float:
        headers = {"Accept": _TYPES.get(source.shape, "application/json")}
        if state.tag:
            headers["If-None-Match"] = state.tag
        if state.modified:
            headers["If-Modified-Since"] = state.modified
        address = source.endpoint
        if source.shape is Shape.CRYPTOPANIC:
            address += "?" + urlencode({"auth_token": self.token, "public": "true", "kind": "news"})
        async with session.get(address, headers=headers, max_redirects=3) as answer:
            if answer.status == 304:
                if not (state.tag or state.modified):
                    raise FeedBroken("HTTP 304 to who never had anything")
                state.answered(self.clock.now())
                return source.every_s
            if answer.status in (429, 403, 503):
                raise _Refused(f"HTTP {answer.status}", _retry_after(answer.headers.get("Retry-After", ""), self.clock.now()))
            if answer.status != 200:
                raise FeedBroken(f"HTTP {answer.status}")
            body = await _bounded(answer)
            tag, modified = answer.headers.get("ETag", "")[:200], answer.headers.get("Last-Modified", "")[:64]
        await self._hand_over(source, state, body)
        state.tag, state.modified = tag, modified
        state.answered(self.clock.now())
        return source.every_s

    async def _hand_over(self, source: Source, state: FeedState, body: bytes) -> None:
        at = self.clock.now()
        if source.shape.is_calendar:
            read = releases.parse_weekly if source.shape is Shape.WEEKLY else releases.parse_ics
            self.on_snapshot(await asyncio.to_thread(read, body, source.name, at))
            return
        parse = feeds.parse_cryptopanic if source.shape is Shape.CRYPTOPANIC else feeds.parse_xml
        items = feeds.changed(await asyncio.to_thread(parse, body, source.name, source.domain, at), state.known)
        state.items += len(items)
        state.newest_at = at if items else state.newest_at
        for start in range(0, len(items), STEP):
            self.on_items(items[start : start + STEP])
            await asyncio.sleep(0)


class _Refused(Exception):
    def __init__(self, message: str, pause_s: float) -> None:
        super().__init__(message)
        self.pause_s = pause_s


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    """The body. Raises FeedBroken beyond BYTES_MAX, whatever the headers say and however well it was compressed."""
    if (answer.content_length or 0) > BYTES_MAX:
        raise FeedBroken(f"{answer.content_length:,} bytes; at most {BYTES_MAX:,} are read")
    parts, size = [], 0
    async for part in answer.content.iter_chunked(65_536):
        size += len(part)
        if size > BYTES_MAX:
            raise FeedBroken(f"more than {BYTES_MAX:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _retry_after(text: str, at: int) -> float:
    """Seconds, from a number or a date; 0 = none given. Never longer than REFUSAL_MAX_S."""
    if text.strip().isdecimal():
        return min(float(text.strip()[:9]), REFUSAL_MAX_S)
    try:
        return min(max(0.0, parsedate_to_datetime(text).timestamp() - at / 1000.0), REFUSAL_MAX_S)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
