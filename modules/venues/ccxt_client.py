"""ccxt made safe to talk through: where it points, what it may retry, and a gate under its parsers that lets no garbage pass.

ccxt turns a web page into an empty wallet and an accepted order without an id. Each client made here looks at every reply before ccxt
does, tells each error the HTTP status it came with, and notes when a request that writes leaves. Refuses plain http except on loopback.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from pydantic import SecretStr

from modules.domain.errors import ConfigurationError
from modules.venues import ccxt_lazy

WRITES_LEFT: Final[ContextVar[list[str] | None]] = ContextVar("writes_left", default=None)
"""A list a writer puts here gets the path of every POST that is about to leave."""
SHOWN_MAX: Final = 300
SAID_MAX: Final = 2_000
"""Of an error's body, kept to find the venue's code in; never shown."""
_QUERY: Final = re.compile(r"(https?://[^\s?]+)\?\S*")
KEPT: Final[Mapping[str, int]] = {"ordersLimit": 300, "tradesLimit": 300, "OHLCVLimit": 100}
"""What ccxt keeps of what its streams tell, orders and fills of an account and candles of a symbol each: for who comes late by a moment.
Its own 1,000 of each are 20 MB, and what is missed all the same is found by the audit."""


@dataclass(frozen=True, slots=True)
class Credentials:
    key: SecretStr
    secret: SecretStr


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a venue is: its REST and websocket roots, scheme and host (and port) only. None = the venue's own addresses."""

    rest: str
    stream: str


class Pace(NamedTuple):
    """How fast a venue is asked: `burst` units of its limits at once where it was quiet before, and then one every `every_ms`."""

    burst: float = 1.0
    every_ms: float | None = None
    """None = as ccxt has it."""


def check_endpoint(endpoint: Endpoint | None) -> None:
    """Raises ConfigurationError for anything but https/wss, except on loopback."""
    faults = []
    for text, secure in ((endpoint.rest, "https"), (endpoint.stream, "wss")) if endpoint is not None else ():
        parts = urlsplit(text)
        if parts.scheme != secure and not (parts.scheme in ("http", "ws") and _loopback(parts.hostname or "")):
            faults.append(f"endpoint {_shown_url(text)}: {secure} is required; plain text only on loopback")
        if parts.username or parts.password or parts.query:
            faults.append(f"endpoint {_shown_url(text)}: no user, password or query here")
    if faults:
        raise ConfigurationError(faults)


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _shown_url(text: str) -> str:
    parts = urlsplit(text)
    return f"{parts.scheme}://{parts.hostname}"


def redacted(text: str, credentials: Credentials | None) -> str:
    """One short line without our secrets and without any query string."""
    if credentials is not None:
        for secret in (credentials.key, credentials.secret):
            text = text.replace(secret.get_secret_value(), "***")
    return " ".join(_QUERY.sub(r"\1", text).split())[:SHOWN_MAX]


@cache
def foreign_errors() -> tuple[type[Exception], ...]:
    """What a call through ccxt may raise: its own errors, the transport's, and what its parsers make of nonsense. Imports ccxt."""
    ccxt_lazy.install()
    import aiohttp
    from ccxt.base.errors import BaseError  # type: ignore[import-untyped]

    return (BaseError, aiohttp.ClientError, OSError, TimeoutError, AttributeError, TypeError, ValueError, LookupError, ArithmeticError)


def connect(name: str, fault_in: Callable[[object, str], str], point: Callable[[Any, Endpoint], None], *, endpoint: Endpoint | None,
            credentials: Credentials | None, options: Mapping[str, Any], timeout_ms: int, pace: Pace) -> Any:
    """A ccxt client of exchange `name`, with streams where ccxt.pro has them. `fault_in(reply, url)` says what is wrong with a reply,
    "" = nothing; `point(client, endpoint)` turns its addresses there.

    Its writes are never repeated by ccxt. The caller has to `await client.close()`. Imports ccxt (about half a second).
    """
    ccxt_lazy.install()
    import ccxt.pro  # type: ignore[import-untyped]

    check_endpoint(endpoint)
    logging.getLogger("ccxt").setLevel(logging.WARNING)  # at DEBUG it writes keys and signatures
    settings: dict[str, Any] = {"timeout": timeout_ms, "options": {**KEPT, **options, "maxRetriesOnFailure": 0},
                                "tokenBucket": {"capacity": pace.burst, "tokens": pace.burst - 1.0}}
    if pace.every_ms is not None:
        settings |= {"rateLimit": pace.every_ms}
    if credentials is not None:
        settings |= {"apiKey": credentials.key.get_secret_value(), "secret": credentials.secret.get_secret_value()}
    client = _guarded(getattr(ccxt.pro, name, None) or getattr(ccxt.async_support, name), fault_in)(settings)
    client.ssl_context = _trusted(client.cafile)
    if client.options["maxRetriesOnFailure"] != 0:
        raise ConfigurationError([f"{name}: ccxt would repeat writes"])
    if endpoint is not None:
        point(client, endpoint)
    return client


def prepare(names: Iterable[str]) -> None:
    """Load ccxt, these of its exchanges and the authorities it trusts: half a second of the processor, for a thread while a loop runs."""
    ccxt_lazy.install()
    import ccxt.pro

    for name in names:
        getattr(ccxt.pro, name, None)
    _trusted(ccxt.pro.Exchange().cafile)


@cache
def _trusted(cafile: str) -> ssl.SSLContext:
    """The authorities in a file: reading them holds up the loop for 40 ms, so all clients have one."""
    return ssl.create_default_context(cafile=cafile)


def reconnect(client: Any, which: Callable[[str], bool], why: str) -> None:
    """Drop the websockets of `client` whose address is one of `which`: who waits on one is told of a lost connection and the next watch
    opens it again. (ccxt's own close cancels whoever waits, which looks like the end of the program.)"""
    from ccxt.base.errors import NetworkError

    for url, socket in list(client.clients.items()):
        if which(url):
            socket.on_error(NetworkError(why))


def moved(urls: Any, endpoint: Endpoint) -> Any:
    """The same addresses at another host, paths kept."""
    if isinstance(urls, Mapping):
        return {name: moved(url, endpoint) for name, url in urls.items()}
    scheme, _, rest = str(urls).partition("://")
    path = rest.partition("/")[2]
    root = (endpoint.stream if scheme.startswith("ws") else endpoint.rest).rstrip("/")
    return f"{root}/{path}" if path else root


def _guarded(base: Any, fault_in: Callable[[object, str], str]) -> Any:
    """The exchange class with a gate under its parsers."""
    from ccxt.base.errors import BadResponse, BaseError

    from modules.runtime import redirects

    class Guarded(base):  # type: ignore[misc]
        ahead_ms = 0
        """How far our clock is ahead of the venue's, as last measured. What ccxt signs is dated by `milliseconds`, of which its own
        correction reaches REST requests alone: a private stream of a machine whose clock is late would stay shut for ever."""
        answered = 0
        retry_after = ""
        said = ""

        def milliseconds(self) -> int:
            return int(super().milliseconds()) - self.ahead_ms

        def handle_pong(self, client: Any, message: Any) -> Any:
            """What watches the connection compares this with our own clock."""
            answer = super().handle_pong(client, message)
            client.lastPong = super().milliseconds()
            return answer

        def init_throttler(self, cost: Any = None) -> None:
            super().init_throttler(cost)
            self.writes = type(self.throttler)(self.tokenBucket, self.asyncio_loop)

        async def throttle(self, cost: Any = None) -> Any:
            """An order or its cancel waits its turn among its own, and behind no question: some cost seconds of the venue's limits."""
            return await (self.throttler if WRITES_LEFT.get() is None else self.writes)(cost)

        def open(self, lazy: bool = False) -> None:
            before = self.session
            super().open(lazy)
            if self.session is not before:
                self.session.trace_configs.append(redirects.refused())

        async def measure_clock(self) -> None:
            """Date by the venue's clock from now on."""
            await self.load_time_difference()
            self.ahead_ms += self.options["timeDifference"]
            self.options["timeDifference"] = 0

        async def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
            left = WRITES_LEFT.get()
            if method != "GET" and left is not None:
                left.append(url)
            self.answered = 0
            try:
                reply = await super().fetch(url, method, headers, body)
            except BaseError as error:
                # Nothing else ran between ccxt seeing the status and raising, so what was noted is this call's.
                if error.__cause__ is None and self.answered:
                    error.http_status, error.venue_said = self.answered, self.said
                    error.retry_after_ms = int(float(self.retry_after) * 1000) if re.fullmatch(r"\d{1,6}", self.retry_after) else None
                raise
            fault = f"HTTP status {self.answered}" if self.answered >= 300 else fault_in(reply, url)
            if fault:
                raise BadResponse(f"{self.id} {fault}")
            return reply

        def handle_errors(self, status: int, *others: Any) -> Any:
            self.answered = status
            self.said = str(others[4] or "")[:SAID_MAX]  # ccxt leaves the venue's code out of some of its own texts
            self.retry_after = str({name.lower(): value for name, value in (others[3] or {}).items()}.get("retry-after", ""))
            return super().handle_errors(status, *others)

    return Guarded
