"""The daemon's voice on MQTT: publishes, never listens. Periphery: bounded, reconnects by itself; no broker stops trading.

Topics under {namespace}/{instance}: `log`, `events`, `notify`, `status_updates`, `hb`, retained `state/{class}`, and retained
`availability`, whose last will says "offline" when the process dies. Refuses to speak in the clear or without a name to a broker that is
not on this machine.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import structlog

from modules.domain.errors import ConfigurationError
from modules.domain.events import BaselineRolled, Fact, InstrumentListed, PeakRaised
from modules.domain.money import text
from modules.domain.settings import MqttSettings
from modules.notify.notices import Notices

if TYPE_CHECKING:
    from aiomqtt import Client

log = structlog.get_logger("mqtt_publisher")

Document = Mapping[str, Any]
ONLINE: Final = b"online"
OFFLINE: Final = b"offline"
PAYLOAD_MAX: Final = 16_384
WAITING_MAX: Final = 2_000
SILENT: Final = (BaselineRolled, PeakRaised, InstrumentListed)
"""Facts that only the books need; they are not published as events."""
FIRST_PAUSE_S: Final = 1.0
KEEPALIVE_S: Final = 15
ANSWER_S: Final = 5.0
FAREWELL_S: Final = 2.0
STATE_S: Final = 1.0
"""How often the classes' states are looked at."""


@dataclass(frozen=True, slots=True)
class Pace:
    longest_pause_s: float = 60.0
    answer_s: float = ANSWER_S


@dataclass(frozen=True, slots=True)
class Note:
    """One message to publish."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


def check_wire(settings: MqttSettings) -> None:
    """Raises ConfigurationError for a wire that others could read or write on."""
    try:
        near = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        near = settings.host == "localhost"
    faults = []
    if not near and not settings.tls:
        faults.append(f"mqtt.host = {settings.host!r}: off this machine it needs tls = true")
    if not near and not (settings.username and (settings.password or settings.password_file)):
        faults.append(f"mqtt.host = {settings.host!r}: off this machine it needs username and password_file")
    if faults:
        raise ConfigurationError(faults)


class MqttPublisher:
    """`run` for ever, supervised; `learn` is a projection, `on_fact` an observer, `handler` a log handler to add where wanted.

    `status` gives the status document, asked once a second; `now` is wall time (UTC ms); `hide` takes secrets out of text.
    Raises ConfigurationError (see check_wire), or for a file of authorities that cannot be read.
    """

    def __init__(
        self, *, settings: MqttSettings, password: str, instance: str, status: Callable[[], Document], now: Callable[[], int],
        formatter: logging.Formatter | None = None, hide: Callable[[str], str] = str, pace: Pace | None = None,
    ) -> None:
        check_wire(settings)
        self._settings = settings
        self._password = password
        self._instance = settings.instance_id or instance
        self._prefix = f"{settings.namespace}/{self._instance}"
        self._status = status
        self._now = now
        self._hide = hide
        self._pace = pace or Pace()
        self._tls = tls_context(settings)
        self._notices = Notices()
        self._waiting: deque[Note] = deque(maxlen=WAITING_MAX)
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._states: dict[str, bytes] = {}
        self.handler = LogHandler(self._log_line, formatter)
        self.handler.setLevel(settings.log_level)
        self.published = 0
        self.dropped = 0
        self.connected = False

    # -- what there is to tell -------------------------------------------------------------------------------------------------

    def learn(self, fact: Fact) -> None:
        self._notices.learn(fact)

    def on_fact(self, fact: Fact) -> None:
        """Queue the fact as an event and, where people are told of it, as a sentence; never waits."""
        self._notices.learn(fact)
        if isinstance(fact, SILENT):
            return
        self._queue("events", {"event": type(fact).__name__, **_plain(fact)})
        notice = self._notices.of(fact)
        if notice is not None:
            self._queue("notify", {"at": fact.at, "kind": notice.kind, "priority": notice.rank.name.lower(), "text": notice.text}, qos=1)

    def tell(self, text: str, at: int) -> None:
        """Queue what is no fact but should be heard: a certificate running out, a weakened gate. `at` UTC ms."""
        self._queue("notify", {"at": at, "kind": "warning", "priority": "warning", "text": text}, qos=1)

    def _log_line(self, line: str) -> None:
        self._put(Note(f"{self._prefix}/log", line.encode()[:PAYLOAD_MAX]))

    def _queue(self, topic: str, document: Document, *, qos: int = 0) -> None:
        self._put(Note(f"{self._prefix}/{topic}", self._hide(_json(document).decode()).encode(), qos))

    def _put(self, note: Note) -> None:
        """May be called from any thread: log lines come from everywhere."""
        if len(self._waiting) == WAITING_MAX:
            self.dropped += 1
        self._waiting.append(note)
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake.set)

    def document(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """How the channel does, for the operator desk."""
        return {"connected": self.connected, "published": self.published, "waiting": len(self._waiting), "dropped": self.dropped}

    # -- life ------------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect, publish, and connect again when the broker goes, until canceled; then say "offline" ourselves."""
        from aiomqtt import MqttError

        self._loop = asyncio.get_running_loop()
        pause, told = FIRST_PAUSE_S, ""
        while True:
            try:
                await asyncio.create_task(self._connection(), name="MQTT connection")
            except (MqttError, OSError) as error:
                _mind_cancellation()
                if self.connected:
                    pause, told = FIRST_PAUSE_S, ""
                reason = f"{type(error).__name__}: {error}"
                if reason != told:
                    log.warning("MQTT is not reachable; trading goes on", reason=reason)
                told = reason
            finally:
                self.connected = False
            await asyncio.sleep(min(pause, self._pace.longest_pause_s))
            pause = min(2.0 * pause, self._pace.longest_pause_s)

    async def _connection(self) -> None:
        """One connection, in a task of its own: how often a task was canceled only tells something before its first task group."""
        async with self._client() as client:
            log.info("MQTT connected", reason=f"{self._settings.host}:{self._settings.port}")
            self.connected = True
            await self._publish_all(client)

    def _client(self) -> Client:
        from aiomqtt import Client, Will

        settings = self._settings
        return Client(
            settings.host, settings.port, username=settings.username or None, password=self._password or None,
            identifier=f"{settings.namespace}-{self._instance}", keepalive=KEEPALIVE_S, timeout=self._pace.answer_s,
            will=Will(f"{self._prefix}/availability", OFFLINE, qos=1, retain=True), tls_context=self._tls,
            max_queued_outgoing_messages=WAITING_MAX, max_queued_incoming_messages=1, logger=logging.getLogger("mqtt"))

    async def _publish_all(self, client: Client) -> None:
        try:
            await self._send(client, Note(f"{self._prefix}/availability", ONLINE, 1, True))
            self._states.clear()    # a new broker may remember nothing
            async with asyncio.TaskGroup() as group:
                group.create_task(self._drain(client))
                group.create_task(self._beat(client))
                group.create_task(self._watch(client))
        except asyncio.CancelledError:
            await client.publish(f"{self._prefix}/availability", OFFLINE, qos=1, retain=True, timeout=FAREWELL_S)
            raise
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _drain(self, client: Client) -> None:
        while True:
            while self._waiting:
                note = self._waiting[0]
                await self._send(client, note)
                if self._waiting and self._waiting[0] is note:    # else it was pushed out meanwhile
                    self._waiting.popleft()
            self._wake.clear()
            if not self._waiting:
                await self._wake.wait()

    async def _beat(self, client: Client) -> None:
        while True:
            await self._send(client, Note(f"{self._prefix}/hb", _json({"ts": self._now() * 1000, "instance": self._instance})))
            await asyncio.sleep(self._settings.heartbeat_s)

    async def _watch(self, client: Client) -> None:
        """The classes' states: retained when they change, and a status update when one halts, pauses or goes on."""
        known: dict[str, tuple[Any, ...]] = {}
        while True:
            for note in self._changes(self._status(), known):
                await self._send(client, note)
            await asyncio.sleep(STATE_S)

    def _changes(self, status: Document, known: dict[str, tuple[Any, ...]]) -> Iterator[Note]:
        for name, shown in status["classes"].items():
            payload = _json({**shown, "asset_class": name, "mode": status["mode"]})
            if self._states.get(name) != payload:
                self._states[name] = payload
                yield Note(f"{self._prefix}/state/{name.lower()}", payload, 1, True)
            told = (shown["state"], shown["paused"], shown["halted_by"])
            if known.get(name) != told:
                known[name] = told
                yield Note(f"{self._prefix}/status_updates", _json({
                    "at": status["at"], "mode": status["mode"], "asset_class": name, "state": shown["state"], "paused": shown["paused"],
                    "halted_by": shown["halted_by"]}), 1)

    async def _send(self, client: Client, note: Note) -> None:
        await client.publish(note.topic, note.payload, qos=note.qos, retain=note.retain, timeout=self._pace.answer_s)
        self.published += 1
        _mind_cancellation()


def _mind_cancellation() -> None:
    """Raises CancelledError in a task that was told to end. The library waits with asyncio.wait_for, which on Python 3.11 loses a
    cancellation that meets an answer, and an error while saying goodbye takes its place: then this task would never end."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class LogHandler(logging.Handler):
    """Hands every line to `take`; the MQTT library's own lines are left out, or each would make another."""

    def __init__(self, take: Callable[[str], None], formatter: logging.Formatter | None) -> None:
        super().__init__()
        self._take = take
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(("mqtt", "aiomqtt", "paho")):
            self._take(self.format(record))


# -- pieces ---------------------------------------------------------------------------------------------------------------------


def tls_context(settings: MqttSettings) -> ssl.SSLContext | None:
    if not settings.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file is not None else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError([f"mqtt.ca_file = {str(settings.ca_file)!r}: cannot be read: {type(error).__name__}"]) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _plain(value: Any) -> Any:
    """JSON types only, money as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Decimal):
        return text(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list, set, frozenset)):
        return [_plain(item) for item in value]
    return value


def _json(document: Document) -> bytes:
    """At most PAYLOAD_MAX bytes of JSON; what is larger is replaced by its name."""
    payload = json.dumps(document, separators=(",", ":"), ensure_ascii=False, default=str).encode()
    if len(payload) > PAYLOAD_MAX:
        payload = json.dumps({"event": document.get("event", ""), "at": document.get("at"), "too_large": len(payload)}).encode()
    return payload


__all__ = ["MqttPublisher", "Pace", "check_wire"]
