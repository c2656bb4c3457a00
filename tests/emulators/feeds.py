"""News sources on loopback: recorded shapes of feeds, and every way in which one can misbehave. Each path has one behavior."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

RSS = """<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0" xmlns:dc="http://purl.org/dc/elements/1.1/"><channel><title>Desk</title><link>https://desk.example/</link>{items}</channel></rss>"""
ATOM = """<?xml version="1.0" encoding="utf-8"?>
<feed xmlns="http://www.w3.org/2005/Atom"><title>Live</title>
<entry><title type="html">EUR/USD climbs &amp;amp; holds above 1.10</title><link rel="alternate" href="https://live.example/1"/>
<id>tag:live.example,2026:1</id><updated>2026-03-02T10:00:00Z</updated></entry></feed>"""
CRYPTOPANIC = {"count": 2, "next": None, "previous": None, "results": [
    {"kind": "news", "domain": "decrypt.co", "source": {"title": "Decrypt", "region": "en", "domain": "decrypt.co"},
     "title": "Ether <span>surges</span> on record ETF inflows &amp; staking demand", "published_at": "2026-03-02T10:00:00Z", "slug": "x",
     "currencies": [{"code": "ETH", "title": "Ethereum", "slug": "ethereum", "url": "https://x/"}], "id": 11, "url": "https://x/11",
     "created_at": "2026-03-02T10:00:01Z", "votes": {"negative": 0, "positive": 3}},
    {"kind": "news", "source": {"domain": "theblock.co"}, "title": "Kraken hires a new auditor", "published_at": None, "id": 12},
    {"title": None}, "garbage",
]}
LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol1 "&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;">
<!ENTITY lol2 "&lol1;&lol1;&lol1;&lol1;&lol1;&lol1;&lol1;&lol1;">]><rss><channel><item><title>&lol2;</title></item></channel></rss>"""
BOMB = gzip.compress(b" " * 20_000_000, 1)
EXTERNAL = b"""<?xml version="1.0"?><!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/hostname">]>
<rss><channel><item><title>&x;</title></item></channel></rss>"""


def item(title: str, guid: str, date: str = "Mon, 02 Mar 2026 10:00:00 GMT") -> str:
    return f"<item><title>{title}</title><link>https://desk.example/{guid}</link><guid>{guid}</guid><pubDate>{date}</pubDate></item>"


def rss(*items: str) -> bytes:
    return RSS.format(items="".join(items)).encode()


class FeedServer:
    """`url(path)` of a running server; `bodies[path]` may be changed between requests; `asked` counts them, `headers` keeps the last."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.headers: dict[str, dict[str, str]] = {}
        self.port = 0
        self.retry_after = "900"
        self._special: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
            "/html": self._html, "/big": self._big, "/bomb": self._bomb, "/busy": self._busy, "/drip": self._drip, "/cut": self._cut,
            "/loop": self._loop, "/unchanged": self._unchanged,
            "/conditional": self._conditional, "/error": self._error,
        }

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path] += 1
        self.headers[request.path] = {**request.headers, "query": request.query_string}
        special = self._special.get(request.path)
        if special is not None:
            return await special(request)
        body = self.bodies.get(request.path)
        return web.Response(status=404) if body is None else web.Response(body=body)

    async def _html(self, _: web.Request) -> web.Response:
        return web.Response(text="<!DOCTYPE html><html><body>Request denied: limit exceeded</body></html>", content_type="application/json")

    async def _big(self, _: web.Request) -> web.Response:
        return web.Response(body=b"<rss><channel><item><title>" + b"A" * 10_000_000)

    async def _bomb(self, _: web.Request) -> web.Response:
        return web.Response(body=BOMB, headers={"Content-Encoding": "gzip"})

    async def _busy(self, _: web.Request) -> web.Response:
        return web.Response(status=429, text="<html>slow down</html>", headers={"Retry-After": self.retry_after})

    async def _unchanged(self, _: web.Request) -> web.Response:
        return web.Response(status=304)

    async def _error(self, _: web.Request) -> web.Response:
        return web.Response(status=500)

    async def _loop(self, _: web.Request) -> web.Response:
        raise web.HTTPFound("/loop")

    async def _conditional(self, request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == '"v1"':
            return web.Response(status=304)
        return web.Response(body=self.bodies["/conditional"], headers={"ETag": '"v1"', "Last-Modified": "Mon, 02 Mar 2026 10:00:00 GMT"})

    async def _drip(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(200):
            await answer.write(b" ")
            await asyncio.sleep(0.05)
        return answer

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "5000"})
        await answer.prepare(request)
        await answer.write(b"<rss><channel>")
        if request.transport is not None:
            request.transport.close()
        return answer


@asynccontextmanager
async def serving() -> AsyncIterator[FeedServer]:
    server = FeedServer()
    server.bodies["/panic"] = json.dumps(CRYPTOPANIC).encode()
    application = web.Application()
    application.router.add_get("/{tail:.*}", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()
