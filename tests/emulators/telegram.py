"""A Bot API on loopback: long polling, messages, photos, buttons, and every way in which the real one misbehaves.

Answers have the shapes of core.telegram.org/bots/api. `say` and `tap` are the person with the phone; `sent` is what the phone shows.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.timing import PATIENCE_S

TOKEN = "123456:EMULATED-token_of_this_test"
OWNER = 4242
BOT = {"id": 123456, "is_bot": True, "first_name": "Trader", "username": "trader_bot"}

FAULTS: dict[str, tuple[int, dict[str, Any]]] = {
    "429": (429, {"ok": False, "error_code": 429, "description": "Too Many Requests: retry after 1", "parameters": {"retry_after": 1}}),
    "409": (409, {"ok": False, "error_code": 409, "description": "Conflict: terminated by other getUpdates request; make sure that only "
                                                                 "one bot instance is running"}),
    "403": (403, {"ok": False, "error_code": 403, "description": "Forbidden: bot was blocked by the user"}),
    "400": (400, {"ok": False, "error_code": 400, "description": "Bad Request: can't parse entities: Unsupported start tag"}),
    "401": (401, {"ok": False, "error_code": 401, "description": "Unauthorized"}),
    "502": (502, {"ok": False, "error_code": 502, "description": "Bad Gateway"}),
}


@dataclass
class Sent:
    """One message on the phone."""

    method: str
    text: str
    at: float
    silent: bool = False
    parse_mode: str = ""
    photo: bytes = b""
    buttons: list[tuple[str, str]] = field(default_factory=list)
    chat_id: int = 0


class BotApi:
    """`faults`: method -> kinds of FAULTS (or "hang") for the next calls; the last one stays if `lasting`."""

    def __init__(self) -> None:
        self.port = 0
        self.sent: list[Sent] = []
        self.asked: Counter[str] = Counter()
        self.faults: dict[str, deque[str]] = {}
        self.lasting: dict[str, str] = {}
        self.offsets: list[int] = []
        self.sloppy_html = False
        self._updates: list[dict[str, Any]] = []
        self._next = 1000
        self._news = asyncio.Event()
        self._arrived = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # -- the person with the phone -----------------------------------------------------------------------------------------

    def say(self, text: str | None, *, user: int = OWNER, chat: int = OWNER, kind: str = "private", age_s: float = 0.0,
            as_: str = "message", **extra: Any) -> int:
        """A message; its update_id."""
        message = {"message_id": self._next, "date": int(time.time() - age_s), "chat": {"id": chat, "type": kind},
                   "from": {"id": user, "is_bot": False, "first_name": "Somebody"}, **extra}
        if text is not None:
            message["text"] = text
        return self.update({as_: message})

    def tap(self, data: str, *, user: int = OWNER, chat: int = OWNER, kind: str = "private") -> int:
        return self.update({"callback_query": {
            "id": str(self._next), "from": {"id": user, "is_bot": False, "first_name": "Somebody"}, "chat_instance": "1", "data": data,
            "message": {"message_id": 1, "date": int(time.time()), "chat": {"id": chat, "type": kind}, "from": BOT, "text": "menu"}}})

    def update(self, body: dict[str, Any], update_id: int | None = None) -> int:
        number = self._next if update_id is None else update_id
        self._next = max(self._next, number) + 1
        self._updates.append({"update_id": number, **body})
        self._news.set()
        return number

    def again(self, update_id: int, body: dict[str, Any]) -> None:
        """The same update once more, whatever was confirmed."""
        self._updates.append({"update_id": update_id, **body, "_again": True})
        self._news.set()

    async def until(self, count: int, timeout_s: float = PATIENCE_S) -> list[Sent]:
        """Wait until the phone shows `count` messages."""
        async with asyncio.timeout(timeout_s):
            while len(self.sent) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.sent

    async def until_text(self, part: str, timeout_s: float = PATIENCE_S, after: int = 0) -> Sent:
        """Wait for a message that holds `part`, not counting the first `after`."""
        async with asyncio.timeout(timeout_s):
            while True:
                found = next((message for message in self.sent[after:] if part in message.text), None)
                if found is not None:
                    return found
                self._arrived.clear()
                await self._arrived.wait()

    # -- the server --------------------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        self.asked[method] += 1
        if request.match_info["token"] != TOKEN:
            return self._fault("401")
        data, photo = await _fields(request)
        waiting = self.faults.get(method)
        fault = waiting.popleft() if waiting else self.lasting.get(method, "")
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault:
            return self._fault(fault)
        if method == "getUpdates":
            return web.json_response({"ok": True, "result": await self._poll(data)})
        if method in ("sendMessage", "sendPhoto"):
            return self._show(method, data, photo)
        return web.json_response({"ok": True, "result": BOT if method == "getMe" else True})

    async def _poll(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        offset = int(data.get("offset") or 0)
        self.offsets.append(offset)
        self._updates = [update for update in self._updates if update["update_id"] >= offset or "_again" in update]
        if not self._updates:
            self._news.clear()
            try:
                async with asyncio.timeout(float(data.get("timeout") or 0)):
                    await self._news.wait()
            except TimeoutError:
                return []
        given = [{key: value for key, value in update.items() if key != "_again"} for update in self._updates[:100]]
        self._updates = [update for update in self._updates if "_again" not in update]
        return given

    def _show(self, method: str, data: dict[str, Any], photo: bytes) -> web.Response:
        text = str(data.get("text") or data.get("caption") or "")
        if not text and method == "sendMessage":
            return web.json_response({"ok": False, "error_code": 400, "description": "Bad Request: message text is empty"}, status=400)
        if len(text) > (4096 if method == "sendMessage" else 1024):
            return web.json_response({"ok": False, "error_code": 400, "description": "Bad Request: message is too long"}, status=400)
        if data.get("parse_mode") == "HTML" and not self.sloppy_html and not _well_formed(text):
            return self._fault("400")
        keyboard = json.loads(data["reply_markup"])["inline_keyboard"] if data.get("reply_markup") else []
        self.sent.append(Sent(method, text, time.monotonic(), str(data.get("disable_notification")).lower() == "true",
                              str(data.get("parse_mode") or ""), photo,
                              [(button["text"], button["callback_data"]) for row in keyboard for button in row], int(data["chat_id"])))
        self._arrived.set()
        return web.json_response({"ok": True, "result": {
            "message_id": len(self.sent), "date": int(time.time()), "chat": {"id": int(data["chat_id"]), "type": "private"}, "text": text}})

    @staticmethod
    def _fault(kind: str) -> web.Response:
        status, body = FAULTS[kind]
        return web.json_response(body, status=status)


def _well_formed(text: str) -> bool:
    """Whether Telegram's HTML parser would take it: known tags, closed in order, & < > escaped."""
    from html.parser import HTMLParser

    class Strict(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.fine = True

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.fine &= tag in ("b", "i", "u", "s", "code", "pre", "a")
            self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            self.fine &= bool(self.open) and self.open.pop() == tag

    parser = Strict()
    parser.feed(text)
    parser.close()
    plain = parser.fine and not parser.open
    return plain and text.count("<") == text.count(">")


async def _fields(request: web.Request) -> tuple[dict[str, Any], bytes]:
    """What was posted, and the file among it."""
    if request.content_type != "multipart/form-data":
        return dict(await request.post()), b""
    data: dict[str, Any] = {}
    photo = b""
    for key, value in (await request.post()).items():
        if isinstance(value, web.FileField):
            photo = value.file.read()
        else:
            data[key] = value
    return data, photo


@asynccontextmanager
async def bot_api() -> AsyncIterator[BotApi]:
    api = BotApi()
    application = web.Application(client_max_size=20_000_000)
    application.router.add_route("*", "/bot{token}/{method}", api.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        api.port = runner.addresses[0][1]
        yield api
    finally:
        await runner.cleanup()
