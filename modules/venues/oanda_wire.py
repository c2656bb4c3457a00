"""The wire to OANDA: where it is, one request at a time, and the verdict on every answer. Knows no orders, only their replies.

Refuses plain http except on loopback and never follows a redirect, so the token goes nowhere else. No message of an error holds the
token, the account or a body. A read raises VenueError; a write says `Answered`, `Unsent` or `Unknown` and is sent exactly once: the
default is that nobody knows.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
from pydantic import SecretStr, ValidationError

from modules.domain.errors import ConfigurationError, VenueBusy, VenueDenied, VenueUnreachable
from modules.runtime.clock import Clock
from modules.venues.oanda_schema import Error, Wire

BODY_MAX: Final = 32 << 20
"""Bytes of one reply: 5,000 candles are 2 MB."""
LINE_MAX: Final = 1 << 20
SKEW_MS: Final = 60_000
"""The broker's clock may be so far behind ours. A time it has not reached yet is a bad request there, so none nearer than this is named."""
NOT_SENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
"""No connection was made, so no request can have left."""
FAILED: Final = (aiohttp.ClientError, TimeoutError, OSError, ValueError, EOFError)
"""ValueError: not JSON, not text, or outside our schema."""

Shape = TypeVar("Shape", bound=Wire)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a venue is: roots of REST and of the streams, scheme and host (and port) only."""

    rest: str
    stream: str


PRACTICE: Final = Endpoint("https://api-fxpractice.oanda.com", "https://stream-fxpractice.oanda.com")
PRODUCTION: Final = Endpoint("https://api-fxtrade.oanda.com", "https://stream-fxtrade.oanda.com")


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient the adapter is, in seconds. The broker sends a heartbeat every 5 s and allows 120 requests a second."""

    read_s: float = 10.0
    write_s: float = 8.0
    """Below execution_policy.submit_timeout_s, so that it is we who say what is known."""
    silence_s: float = 10.0
    """A stream that said nothing for so long, not even a heartbeat, is dead."""
    connections_per_s: int = 2
    """More new ones than this the broker rejects."""
    retry_s: float = 1.0
    ban_s: float = 2.0
    """After a 429 that names no time."""
    silence_s_max: float = 900.0
    """However long a time a 429 names, after so long the broker is asked again."""
    audit_s: float = 15.0
    """Transactions are asked for at least this often, whatever the stream says."""
    candle_s: float = 1.0
    """Between two questions for a bar that should have closed."""
    candle_tries: int = 10
    """So many at first; a candle is complete only when the next tick has come, so after that it is asked for more slowly."""
    late_s: float = 5.0
    """Between two questions for a bar that is late, until the next one is due."""
    financing_s: float = 3600.0
    lookback_s: float = 7 * 86_400.0
    """How far back an order is searched for that the broker no longer knows by our id."""


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    body: Any


@dataclass(frozen=True, slots=True)
class Unsent:
    message: str
    until: int | None = None
    """The broker wants silence before this, UTC ms."""


@dataclass(frozen=True, slots=True)
class Unknown:
    message: str


def check_endpoint(endpoint: Endpoint) -> None:
    """Raises ConfigurationError for anything but https, except on loopback, and for what is not a plain root."""
    faults = []
    for url in (endpoint.rest, endpoint.stream):
        parts = urlsplit(url)
        shown = f"{parts.scheme}://{parts.hostname}"
        if parts.scheme != "https" and not (parts.scheme == "http" and _loopback(parts.hostname or "")):
            faults.append(f"endpoint {shown}: https is required; plain http only on loopback")
        if parts.username or parts.password or parts.query or parts.fragment or parts.path not in ("", "/"):
            faults.append(f"endpoint {shown}: scheme, host and port only")
    if faults:
        raise ConfigurationError(faults)


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _decoded(raw: bytes) -> Any:
    """JSON without NaN and Infinity. Raises ValueError, also for nesting no reply has."""
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


class OandaWire:
    """Three sessions, so that a cancel never queues behind candles. `clock` only dates bans."""

    def __init__(self, endpoint: Endpoint, token: SecretStr, clock: Clock, pace: Pace) -> None:
        check_endpoint(endpoint)
        self.pace = pace
        self._rest = endpoint.rest.rstrip("/")
        self._streams = endpoint.stream.rstrip("/")
        self._token = token
        self._clock = clock
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._banned_until = 0
        self._opened: deque[float] = deque(maxlen=pace.connections_per_s)
        """When the last connections were begun, by the loop's clock."""

    def _session(self, purpose: str) -> aiohttp.ClientSession:
        session = self._sessions.get(purpose)
        if session is None or session.closed:
            opening = aiohttp.TraceConfig()
            opening.on_connection_create_start.append(self._hurried if purpose == "trade" else self._paced)
            session = self._sessions[purpose] = aiohttp.ClientSession(
                headers={"Authorization": f"Bearer {self._token.get_secret_value()}", "Accept-Datetime-Format": "RFC3339"},
                cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, trace_configs=[opening])
        return session

    async def _paced(self, *_: Any) -> None:
        """A connection is about to be begun: not before another is allowed."""
        now = asyncio.get_running_loop().time()
        begins = max(now, self._opened[0] + 1.0) if len(self._opened) == self._opened.maxlen else now
        self._opened.append(begins)
        await asyncio.sleep(begins - now)

    async def _hurried(self, *_: Any) -> None:
        """One for an order waits for nobody; the next ones wait for it."""
        self._opened.append(asyncio.get_running_loop().time())

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    # -- reads ------------------------------------------------------------------------------------------------------------

    async def get(self, path: str, shape: type[Shape], query: Mapping[str, str] | None = None) -> Shape:
        """The reply as our schema sees it. Raises VenueUnreachable, VenueBusy or VenueDenied."""
        found = await self.find(path, shape, query)
        if found is None:
            raise VenueUnreachable("oanda: GET answered 404")
        return found

    async def find(self, path: str, shape: type[Shape], query: Mapping[str, str] | None = None) -> Shape | None:
        """Like `get`, but None where the broker says in its own words that there is no such thing."""
        self._check_ban()
        try:
            status, headers, raw = await self._exchange("data", "GET", path, self.pace.read_s, query=query)
            if status == 200:
                return shape.model_validate(_decoded(raw))
            self._judge(status, headers, raw)
            if status == 404 and Error.model_validate(_decoded(raw)):
                return None
        except FAILED as error:
            raise VenueUnreachable(f"oanda: no usable answer to a GET ({_kind(error)})") from None
        raise VenueUnreachable(f"oanda: a GET answered {status}")

    def _check_ban(self) -> None:
        if self._clock.now() < self._banned_until:
            raise VenueBusy("oanda: too many requests", self._banned_until)

    def _judge(self, status: int, headers: Mapping[str, str], raw: bytes) -> None:
        """Raises what a status alone proves of a read."""
        if status == 429:
            self._ban(headers)
            self._check_ban()
        if status in (401, 403):
            Error.model_validate(_decoded(raw))  # a proxy's page is no word of the broker's
            raise VenueDenied(f"oanda: the token is not accepted ({status})")

    def _ban(self, headers: Mapping[str, str]) -> None:
        told = headers.get("Retry-After", "")
        seconds = min(float(told), self.pace.silence_s_max) if told.isdecimal() and len(told) < 20 else self.pace.ban_s
        self._banned_until = max(self._banned_until, self._clock.now() + max(int(seconds * 1000), 1))

    async def _exchange(
        self, purpose: str, method: str, path: str, timeout_s: float, *, query: Mapping[str, str] | None = None, body: Any = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        async with self._session(purpose).request(
            method, self._rest + path, params=query, json=body, allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout_s, connect=timeout_s / 2),
        ) as response:
            parts, size = [], 0
            async for part in response.content.iter_chunked(1 << 16):
                size += len(part)
                if size > BODY_MAX:
                    raise ValueError("a reply without end")
                parts.append(part)
            return response.status, dict(response.headers), b"".join(parts)

    # -- writes -----------------------------------------------------------------------------------------------------------

    async def write(self, method: str, path: str, body: Any = None) -> Answered | Unsent | Unknown:
        """Sent once. Never raises for anything the wire can do."""
        if self._clock.now() < self._banned_until:
            return Unsent("too many requests: not sent before the ban ends", self._banned_until)
        try:
            status, headers, raw = await self._exchange("trade", method, path, self.pace.write_s, body=body)
        except NOT_SENT as error:
            return Unsent(f"no connection ({_kind(error)})")
        except FAILED as error:
            return Unknown(f"no usable answer ({_kind(error)})")
        if status == 429:
            self._ban(headers)
            return Unsent("too many requests", self._banned_until)
        try:
            return Answered(status, _decoded(raw))
        except ValueError:
            return Unknown(f"answered {status} with something that is not JSON")

    # -- streams ----------------------------------------------------------------------------------------------------------

    async def lines(self, path: str, query: Mapping[str, str] | None = None) -> AsyncGenerator[Mapping[str, Any], None]:
        """The objects of a stream, heartbeats too. Raises VenueError when it ends, falls silent or says something unreadable."""
        self._check_ban()
        timeout = aiohttp.ClientTimeout(total=None, connect=self.pace.read_s)
        try:
            async with self._session("stream").get(self._streams + path, params=query, allow_redirects=False, timeout=timeout,
                                                   read_bufsize=LINE_MAX) as response:
                if response.status != 200:
                    self._judge(response.status, response.headers, await response.content.read(LINE_MAX))
                    raise VenueUnreachable(f"oanda: a stream answered {response.status}")
                while True:
                    async with asyncio.timeout(self.pace.silence_s):
                        line = await response.content.readline()
                    if not line:
                        raise VenueUnreachable("oanda: a stream ended")
                    if not line.strip():
                        continue
                    row = _decoded(line)
                    if not isinstance(row, dict):
                        raise VenueUnreachable("oanda: a stream said something that is no object")
                    yield row
        except FAILED as error:
            raise VenueUnreachable(f"oanda: a stream broke ({_kind(error)})") from None


def _kind(error: BaseException) -> str:
    """What may be told of an error: its kind, and of a schema the places, never the values."""
    if isinstance(error, ValidationError):
        places = {".".join(str(part) for part in fault["loc"])[:60] for fault in error.errors(include_input=False, include_url=False)}
        return f"schema: {', '.join(sorted(places)[:3]) or 'shape'}"
    return type(error).__name__
