"""The web page: a read-only look at the running daemon for the person who owns it. Owns the wire, the headers and who may look.

Serves loopback only, answers GET only, changes nothing. A request whose Host is not this machine's is refused (a web site in the owner's
browser could otherwise read it by rebinding a name), and every page forbids foreign scripts, frames and requests. Documents are plain
functions of what the authorities know, asked at most once a second each however many people look, so that nobody who looks can slow
trading. Not TLS, no password: reach it from elsewhere through `ssh -L`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from aiohttp import web

from modules.domain.errors import BotError, ConfigurationError, NotFound

Document = Callable[[Mapping[str, str]], dict[str, Any]]
"""What the query string asks -> JSON types. May raise BotError."""

PAGE: Final = Path(__file__).with_name("page")
ICON: Final = "/icon.svg"
STYLE: Final = "style.css"
SCRIPTS: Final = ("charts.js", "page.js")
FRESH_S: Final = 1.0
"""How long an answer is given again instead of being made anew."""
CACHED_MAX: Final = 64
FIRST: Final = ("status", "balance", "trades?n=15", "decisions?n=25", "chart?n=200", "equity?days=7", "instruments", "news", "events",
                "certificates", "learning")
"""What the page asks for when it opens. The answers ride in the page itself, so that nothing is waited for."""
SLOT: Final = b'<script id="first" type="application/json">'
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def assembled(folder: Path = PAGE) -> tuple[bytes, str]:
    """The page with its style and scripts in it, so that a look costs one request, and the policy that lets exactly these scripts run."""
    page = (folder / "index.html").read_bytes()
    style = (folder / STYLE).read_bytes()
    page = page.replace(f'<link rel="stylesheet" href="/{STYLE}">'.encode(), b"<style>\n" + style + b"</style>", 1)
    allowed = []
    for name in SCRIPTS:
        script = (folder / name).read_bytes()
        page = page.replace(f'<script src="/{name}"></script>'.encode(), b"<script>" + script + b"</script>", 1)
        allowed.append(f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'")
    return page, (f"default-src 'none'; script-src {' '.join(allowed)}; style-src 'unsafe-inline'; img-src 'self'; connect-src 'self'; "
                  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


def check_loopback(host: str) -> None:
    """Raises ConfigurationError for an address that others could reach."""
    if host == "localhost":
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise ConfigurationError([f"http.host = {host!r}: the page has no password, so it is served on this machine only (127.0.0.1, ::1); "
                              "to see it from elsewhere: ssh -L 8080:127.0.0.1:8080 you@this-machine"])


class WebPage:
    """`documents`: /api/NAME -> its document. `problems` lists what /healthz complains of. `metrics` renders Prometheus' text."""

    def __init__(self, host: str, port: int, documents: Mapping[str, Document], problems: Callable[[], list[str]],
                 metrics: Callable[[], bytes], first: Sequence[str] = FIRST) -> None:
        check_loopback(host)
        self._host = host
        self._port = port
        self._documents = dict(documents)
        self._problems = problems
        self._metrics = metrics
        self._first = first
        self._cached: dict[str, tuple[float, bytes]] = {}
        self._shell, self._policy = assembled()
        self.refused = 0
        self.served_on = 0
        """The port it listens on; 0 before it does."""

    async def run(self) -> None:
        """Serve for ever. Raises OSError if the port is taken."""
        runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=1.0, handle_signals=False)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self._port)
            await site.start()
            self.served_on = int(runner.addresses[0][1])
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard], client_max_size=1024)
        application.router.add_get("/", self._index)
        application.router.add_get(ICON, self._icon)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/metrics", self._metrics_page)
        application.router.add_get("/api/{name}", self._api)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        if not self._ours(request.host) or request.method not in ("GET", "HEAD"):
            self.refused += 1
            response: web.StreamResponse = web.Response(status=403 if request.method in ("GET", "HEAD") else 405,
                                                        text="this page is read-only and for this machine only\n")
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = web.Response(status=error.status, text=f"{error.reason}\n")
        response.headers.update(HEADERS)
        response.headers["Content-Security-Policy"] = self._policy
        return response

    def _ours(self, host: str) -> bool:
        """Whether the name the browser asked for is this machine's own."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        return name.strip("[]") in ("localhost", "127.0.0.1", "::1", self._host)

    async def _index(self, _: web.Request) -> web.Response:
        """The page with its first answers in it; what cannot be answered is left out, and the page asks for it and shows why."""
        answers = []
        for asked in self._first:
            name, words = f"{asked}?".split("?")[:2]
            document = self._documents.get(name)
            if document is None:
                continue
            with suppress(BotError):
                answers.append(orjson.dumps(asked) + b":" + self._answer(f"/api/{asked}", document, dict(parse_qsl(words))))
            await asyncio.sleep(0)  # trading goes first: no answer waits for the sum of them
        first = b"{" + b",".join(answers).replace(b"<", b"\\u003c") + b"}"
        body = self._shell.replace(SLOT, SLOT + first, 1)
        return web.Response(body=body, content_type="text/html", charset="utf-8")

    async def _icon(self, _: web.Request) -> web.Response:
        return web.Response(body=(PAGE / ICON[1:]).read_bytes(), content_type="image/svg+xml", charset="utf-8")

    async def _healthz(self, _: web.Request) -> web.Response:
        problems = self._problems()
        return web.Response(status=503 if problems else 200, text="".join(f"{line}\n" for line in problems) or "ok\n")

    async def _metrics_page(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _api(self, request: web.Request) -> web.Response:
        document = self._documents.get(request.match_info["name"])
        if document is None:
            return self._sorry(404, NotFound(f"there are: {', '.join(sorted(self._documents))}"))
        if len(request.query_string) > 500:
            return self._sorry(400, BotError("the question is too long"))
        try:
            body = self._answer(request.path_qs, document, request.query)
        except NotFound as error:
            return self._sorry(404, error)
        except BotError as error:
            return self._sorry(400, error)
        return web.Response(body=body, content_type="application/json")

    @staticmethod
    def _sorry(status: int, error: BotError) -> web.Response:
        return web.Response(status=status, body=orjson.dumps({"error": str(error)}), content_type="application/json")

    def _answer(self, key: str, document: Document, query: Mapping[str, str]) -> bytes:
        now = asyncio.get_running_loop().time()
        known = self._cached.get(key)
        if known is not None and now - known[0] < FRESH_S:
            return known[1]
        body = orjson.dumps(document(query))
        if len(self._cached) >= CACHED_MAX:
            self._cached.pop(next(iter(self._cached)))
        self._cached[key] = (now, body)
        return body
