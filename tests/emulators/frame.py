"""What emulated crypto exchanges share: the script of faults, how a reply goes wrong, the websockets with their queues."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import WSMsgType, web

from tests.emulators.bybit_market import Row

ANSWER_LATE_S = 1.5
"""Well before who asked gives up."""


class Reply(NamedTuple):
    """What goes over the wire instead of the answer. `how`: "answer", "close" (no byte), "cut" (half a body), "stall" (silence); "late" is
    the answer itself, when all it speaks of has long been told."""

    status: int = 200
    body: bytes = b""
    how: str = "answer"
    headers: tuple[tuple[str, str], ...] = ()


class Fault(NamedTuple):
    """The next request whose path contains `path` gets `reply`; `accepted` = it takes effect all the same. `method` "" = any."""

    path: str
    reply: Reply
    accepted: bool
    method: str = ""


class Frame:
    """`url` and `stream` of a running venue; `asked` counts requests per path, `faults` is the script."""

    cut = b'{"orderId":"'
    """Half a body."""

    def __init__(self) -> None:
        self.skew_ms = 0
        self.pace = 1.0
        """How many of the venue's seconds pass in one of the machine's: what it grants a message on its way is as many times as long."""
        self.faults: list[Fault] = []
        self.always: list[Fault] = []
        """Faults that stay until removed."""
        self.asked: Counter[str] = Counter()
        self.bodies: list[tuple[str, Row]] = []
        """Every accepted or refused write as it arrived."""
        self.port = 0
        self.lag_ms = 0
        """So much younger things are not in any history yet: executions, and orders that ended."""
        self.old: tuple[str, ...] = ()
        """Parts of paths. What is asked there is answered as it was answered first: a copy that is not brought up to date."""
        self._copies: dict[str, tuple[int, Any, dict[str, str]]] = {}
        self._sockets: dict[web.WebSocketResponse, tuple[str, set[str], asyncio.Queue[str | None]]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def now(self) -> int:
        """The venue's clock, UTC ms."""
        return time.time_ns() // 1_000_000 + self.skew_ms

    # -- REST -------------------------------------------------------------------------------------------------------------

    async def rest(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path] += 1
        self.asked[f"{request.method} {request.path}"] += 1
        raw = await request.read()
        fault = self._fault(request.method, request.path)
        if fault is not None and not fault.accepted:
            return await self._misbehave(request, fault.reply)
        status, answer, headers = self._copied(request, self.answer(request, raw))
        if fault is not None and fault.reply.how == "late":
            await asyncio.sleep(ANSWER_LATE_S)
        elif fault is not None:
            return await self._misbehave(request, fault.reply)
        return web.Response(status=status, body=json.dumps(answer).encode(), content_type="application/json", headers=headers)

    def told_by(self) -> int:
        """What happened later is in no history yet, UTC ms."""
        return self.now() - self.lag_ms

    def _copied(self, request: web.Request, told: tuple[int, Any, dict[str, str]]) -> tuple[int, Any, dict[str, str]]:
        if request.method != "GET" or not any(part in request.path for part in self.old):
            self._copies.clear()
            return told
        asked = "&".join(sorted(f"{name}={value}" for name, value in request.query.items() if name not in ("timestamp", "signature")))
        return self._copies.setdefault(f"{request.path}?{asked}", told)

    def answer(self, request: web.Request, raw: bytes) -> tuple[int, Any, dict[str, str]]:
        """(status, document, headers)."""
        raise NotImplementedError

    def _fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.path in path and fault.method in ("", method):
                self.faults.remove(fault)
                return fault
        return next((fault for fault in self.always if fault.path in path and fault.method in ("", method)), None)

    async def _misbehave(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        if reply.how == "stall":
            await asyncio.sleep(30)
        if reply.how == "answer":
            return web.Response(status=reply.status, body=reply.body, headers={"Content-Type": "application/json", **dict(reply.headers)})
        answer = web.StreamResponse(headers={"Content-Length": "500", "Content-Type": "application/json"})
        if reply.how == "cut":
            await answer.prepare(request)
            await answer.write(self.cut)
        if request.transport is not None:
            request.transport.close()
        return answer

    # -- websockets -------------------------------------------------------------------------------------------------------

    async def socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        topics: set[str] = set()
        self._sockets[socket] = request.path, topics, queue
        writer = asyncio.create_task(self._write(socket, queue))
        session = self.opened(request, topics)
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    break
                self.hear(session, request.path, json.loads(message.data), topics, queue)
        finally:
            writer.cancel()
            self._sockets.pop(socket, None)
        return socket

    def opened(self, request: web.Request, topics: set[str]) -> Row:
        """What is known of a fresh connection; handed to `hear`."""
        return {}

    def hear(self, session: Row, path: str, asked: Row, topics: set[str], queue: asyncio.Queue[str | None]) -> None:
        """A message of the client's."""
        raise NotImplementedError

    async def _write(self, socket: web.WebSocketResponse, queue: asyncio.Queue[str | None]) -> None:
        while (text := await queue.get()) is not None:
            await socket.send_str(text)

    @property
    def listeners(self) -> Counter[str]:
        """How many sockets listen to each topic."""
        return Counter(topic for _, topics, _ in self._sockets.values() for topic in topics)

    async def drop(self) -> None:
        """Every websocket is gone; what happens until they are back is not told again."""
        for socket in list(self._sockets):
            await socket.close(code=1001)

    def garble(self) -> None:
        """One malformed frame to everybody."""
        for _, _, queue in self._sockets.values():
            queue.put_nowait('{"topic": "execution", "data": [')


@asynccontextmanager
async def listening(venue: Frame, sockets: tuple[str, ...], port: int) -> AsyncIterator[None]:
    """`venue` on the loopback interface until the block ends; port 0 = a free one. `sockets`: paths of its websockets."""
    application = web.Application()
    for path in sockets:
        application.router.add_get(path, venue.socket)
    application.router.add_route("*", "/{tail:.*}", venue.rest)
    runner = web.AppRunner(application, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    venue.port = runner.addresses[0][1]
    try:
        yield
    finally:
        await venue.drop()
        await runner.cleanup()
