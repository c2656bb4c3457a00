"""The daemon on MQTT, with the real mosquitto: TLS, passwords and rights as docs/mqtt.md shows them, brokers that die, hang and refuse.

What is claimed to be seen is seen by a subscriber of its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiomqtt import Client, MqttError

from modules.domain.errors import ConfigurationError
from modules.domain.events import FeedLost, PeakRaised, Scope, TradingHalted, Trigger
from modules.domain.instrument import AssetClass
from modules.domain.settings import MqttSettings
from modules.notify.mqtt import PAYLOAD_MAX, WAITING_MAX, MqttPublisher, Pace
from tests.builders import AT
from tests.ports import free_port
from tests.timing import PATIENCE_S, Lateness

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "mqtt.md").read_text(encoding="utf-8")
MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
QUICK = Pace(longest_pause_s=0.2, answer_s=20.0)
HANGS = Pace(longest_pause_s=0.2, answer_s=2.0)
"""For a broker that will not answer: every wait for it costs this."""
needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
NOW = 1_767_614_400_123


def block(language: str) -> str:
    """The one code block of this language in docs/mqtt.md."""
    found = re.search(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found is not None
    return found[1]


def make_certificates(folder: Path) -> None:
    """An authority of our own, and a certificate by it for this machine."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder.mkdir(parents=True)
    begin = datetime.now(UTC) - timedelta(hours=1)

    def made(name: str, authority: Any = None) -> tuple[Any, Any]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer, issuer = (key, subject) if authority is None else (authority[0], authority[1].subject)
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
                   .serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(begin + timedelta(days=2))
                   .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
                   .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False))
        if authority is None:
            builder = builder.add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
        return key, builder.sign(signer, hashes.SHA256())

    authority = made("Test Authority")
    server = made("localhost", authority)
    for name, certificate in (("ca", authority[1]), ("server", server[1])):
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(server[0].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()))


@dataclass
class Broker:
    """A mosquitto of our own. `folder` plays /etc/mosquitto."""

    folder: Path
    port: int
    secure: bool
    process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        if not self.secure:
            text = f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        else:
            make_certificates(self.folder / "certs")
            (self.folder / "acl").write_text(block("acl"))
            (self.folder / "acl").chmod(0o600)
            for flags, user, password in ((("-b", "-c"), "bot", "bot-password"), (("-b",), "watcher", "watcher-password")):
                subprocess.run(["mosquitto_passwd", *flags, str(self.folder / "passwords"), user, password], check=True)
            text = block("mosquitto").replace("/etc/mosquitto", str(self.folder)).replace("listener 8883", f"listener {self.port}")
        (self.folder / "mosquitto.conf").write_text(text + "user root\n")

    async def start(self) -> None:
        assert MOSQUITTO is not None
        self.process = subprocess.Popen([MOSQUITTO, "-c", str(self.folder / "mosquitto.conf")],  # noqa: ASYNC220
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                assert self.process.poll() is None, "mosquitto ended"
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def client(self, user: str = "watcher", **options: Any) -> Client:
        if not self.secure:
            return Client("127.0.0.1", self.port, timeout=30, **options)
        context = ssl.create_default_context(cafile=str(self.folder / "certs" / "ca.crt"))
        return Client("localhost", self.port, username=user, password=f"{user}-password", tls_context=context, timeout=30, **options)

    def settings(self, **changes: Any) -> MqttSettings:
        if not self.secure:
            return MqttSettings.model_validate({"host": "127.0.0.1", "port": self.port, **changes})
        return MqttSettings.model_validate({
            "host": "localhost", "port": self.port, "tls": True, "ca_file": str(self.folder / "certs" / "ca.crt"), "username": "bot",
            "password": "bot-password", **changes})


@asynccontextmanager
async def a_broker(tmp_path: Path, *, secure: bool = False) -> AsyncIterator[Broker]:
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    broker = Broker(folder, free_port(), secure)
    broker.prepare()
    await broker.start()
    try:
        yield broker
    finally:
        broker.kill()


def status_of(state: str = "ACTIVE", equity: str = "1000") -> dict[str, Any]:
    return {"mode": "demo", "at": "2026-01-05T12:00:00Z", "classes": {c.value: {
        "state": state, "equity": equity, "paused": False, "halted_by": "" if state == "ACTIVE" else "manual", "drawdown_daily": 0.01,
        "phase": 1} for c in AssetClass}}


def publisher_for(settings: MqttSettings, status: Callable[[], dict[str, Any]] = status_of, pace: Pace = QUICK,
                  **options: Any) -> MqttPublisher:
    password = settings.password.get_secret_value() if settings.password is not None else ""
    return MqttPublisher(settings=settings, password=password, instance="bot", status=status, now=lambda: NOW, pace=pace, **options)


@dataclass
class Seen:
    """Everything a subscriber was given, by topic below trading_bot/bot."""

    payloads: dict[str, list[bytes]] = field(default_factory=dict)
    retained: set[str] = field(default_factory=set)

    async def until(self, topic: str, fits: Callable[[bytes], bool] = bool, timeout_s: float = PATIENCE_S) -> bytes:
        async with asyncio.timeout(timeout_s):
            while True:
                found = next((payload for payload in self.payloads.get(topic, ()) if fits(payload)), None)
                if found is not None:
                    return found
                await asyncio.sleep(0.01)


@asynccontextmanager
async def watching(broker: Broker) -> AsyncIterator[Seen]:
    seen = Seen()

    async def listen() -> None:
        async with broker.client() as client:
            await client.subscribe("trading_bot/#", qos=1)
            ready.set()
            async for message in client.messages:
                topic = str(message.topic).removeprefix("trading_bot/bot/")
                seen.payloads.setdefault(topic, []).append(bytes(message.payload))
                if message.retain:
                    seen.retained.add(topic)

    ready = asyncio.Event()
    task = asyncio.create_task(listen())
    await ready.wait()
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def running(publisher: MqttPublisher) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(publisher.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def eventually(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():    # noqa: ASYNC110
            await asyncio.sleep(0.01)


HALT = TradingHalted(AT, Scope.SPOT, Trigger.DAILY_DRAWDOWN, "5.1 %", "5 %", None, "below the peak")


# -- what is published -----------------------------------------------------------------------------------------------------------


@needs_broker
async def test_over_tls_with_passwords_and_rights_a_watcher_sees_everything_and_can_say_nothing(tmp_path: Path) -> None:
    async with a_broker(tmp_path, secure=True) as broker:
        publisher = publisher_for(broker.settings(heartbeat_s=0.2), formatter=logging.Formatter("%(message)s"))
        async with watching(broker) as seen, running(publisher):
            publisher.on_fact(HALT)
            publisher.on_fact(PeakRaised(AT, AssetClass.SPOT, Decimal("1.01")))
            publisher.handler.emit(logging.LogRecord("trade", logging.INFO, "f", 1, "a line", None, None))
            publisher.handler.emit(logging.LogRecord("mqtt", logging.INFO, "f", 1, "an echo", None, None))
            assert await seen.until("availability") == b"online"
            event = json.loads(await seen.until("events"))
            told = json.loads(await seen.until("notify"))
            beat = json.loads(await seen.until("hb"))
            assert await seen.until("log") == b"a line"
            state = json.loads(await seen.until("state/spot"))
            update = json.loads(await seen.until("status_updates"))
            async with broker.client("watcher") as stranger:
                await stranger.publish("trading_bot/bot/availability", b"a lie", qos=0, retain=True)
            await asyncio.sleep(0.2)
        async with watching(broker) as later:
            await later.until("availability", lambda payload: payload == b"offline")    # ours, said at the graceful end
            await later.until("state/forex")
    assert event["event"] == "TradingHalted" and event["trigger"] == "daily_drawdown" and event["measured"] == "5.1 %"
    assert told["priority"] == "kill" and told["text"].startswith("HALTED SPOT by daily_drawdown")
    assert beat == {"ts": NOW * 1000, "instance": "bot"}
    assert state["equity"] == "1000" and state["asset_class"] == "SPOT" and state["mode"] == "demo"
    assert update["state"] == "ACTIVE"
    assert len(seen.payloads["events"]) == 1, "a raised peak is the books' own business"
    assert seen.payloads["log"] == [b"a line"]
    assert b"a lie" not in seen.payloads["availability"] + later.payloads["availability"]
    assert later.retained == {"availability", "state/spot", "state/perp", "state/option", "state/forex"}


@needs_broker
async def test_the_states_are_published_when_they_change_and_only_then(tmp_path: Path) -> None:
    status = [status_of()]
    async with a_broker(tmp_path) as broker, watching(broker) as seen, running(publisher_for(broker.settings(), lambda: status[0])):
        await seen.until("state/spot")
        await asyncio.sleep(1.2)
        assert len(seen.payloads["state/spot"]) == 1
        status[0] = status_of("HALTED", "950")
        halted = json.loads(await seen.until("state/spot", lambda payload: b"HALTED" in payload))
        await seen.until("status_updates", lambda payload: b"HALTED" in payload)
    assert halted["equity"] == "950" and halted["halted_by"] == "manual"


@needs_broker
async def test_a_daemon_that_dies_is_seen_as_offline(tmp_path: Path) -> None:
    code = ("import asyncio, sys\nfrom tests.test_mqtt import publisher_for\nfrom modules.domain.settings import MqttSettings\n"
            "asyncio.run(publisher_for(MqttSettings(host='127.0.0.1', port=int(sys.argv[1]))).run())\n")
    async with a_broker(tmp_path) as broker, watching(broker) as seen:
        child = subprocess.Popen([sys.executable, "-c", code, str(broker.port)], cwd=ROOT)  # noqa: ASYNC220
        try:
            await seen.until("availability", lambda payload: payload == b"online")
            await seen.until("state/spot")
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        await seen.until("availability", lambda payload: payload == b"offline")
        async with watching(broker) as later:
            assert await later.until("availability") == b"offline"
            assert "availability" in later.retained


# -- when the broker is unwell ----------------------------------------------------------------------------------------------------


@needs_broker
async def test_a_publisher_told_to_end_while_its_broker_hangs_ends(tmp_path: Path) -> None:
    async with a_broker(tmp_path) as broker:
        publisher = publisher_for(broker.settings(), pace=HANGS)
        task = asyncio.create_task(publisher.run())
        await eventually(lambda: publisher.published >= 10)
        assert broker.process is not None
        broker.process.send_signal(signal.SIGSTOP)
        try:
            task.cancel()
            _, waiting = await asyncio.wait((task,), timeout=PATIENCE_S)
            assert not waiting, "the goodbye that failed took the place of the wish to end"
        finally:
            broker.process.send_signal(signal.SIGCONT)


@needs_broker
async def test_a_broker_killed_and_started_again_is_told_everything_that_counts_anew(tmp_path: Path) -> None:
    async with a_broker(tmp_path) as broker:
        publisher = publisher_for(broker.settings(), pace=HANGS)
        async with running(publisher):
            await eventually(lambda: publisher.published >= 10)    # the states are out
            broker.kill()
            await eventually(lambda: not publisher.connected)
            publisher.on_fact(HALT)    # happens while nobody listens
            await asyncio.sleep(0.3)
            subscribing = asyncio.create_task(broker.start())
            await subscribing
            async with watching(broker) as seen:
                assert await seen.until("availability") == b"online"
                await seen.until("state/perp")
                await eventually(lambda: publisher.connected and not publisher.document({})["waiting"])
        assert publisher.published > 10


@needs_broker
async def test_what_happened_while_the_broker_was_away_is_told_when_it_is_back(tmp_path: Path) -> None:
    async with a_broker(tmp_path) as broker:
        publisher = publisher_for(broker.settings())
        for number in range(5):
            publisher.on_fact(FeedLost(AT, f"COIN{number}", "silence"))
        async with watching(broker) as seen, running(publisher):
            for number in range(5):
                await seen.until("events", lambda payload, coin=f"COIN{number}": coin.encode() in payload)  # type: ignore[misc]


@needs_broker
async def test_a_wrong_password_an_unknown_authority_and_a_stranger_get_nowhere(tmp_path: Path) -> None:
    async with a_broker(tmp_path, secure=True) as broker:
        wrong = publisher_for(broker.settings(password="guessed"))
        make_certificates(tmp_path / "other")
        distrustful = publisher_for(broker.settings(ca_file=str(tmp_path / "other" / "ca.crt")))
        async with running(wrong), running(distrustful):
            await asyncio.sleep(1.0)
            assert not wrong.connected and not distrustful.connected and wrong.published == distrustful.published == 0
        with pytest.raises(MqttError):
            async with Client("localhost", broker.port, timeout=2,
                              tls_context=ssl.create_default_context(cafile=str(broker.folder / "certs" / "ca.crt"))):
                pass


async def assert_on_time_while_facts_pour_in(publisher: MqttPublisher, rounds: int = 60) -> None:
    async with Lateness() as late:
        for number in range(rounds):
            publisher.on_fact(FeedLost(AT, f"COIN{number}", "silence"))
            await asyncio.sleep(0.01)
    assert late.worst_but(1) < 0.25 + 2.0 * late.machine, "measured idle: under 5 ms"


async def test_the_loop_runs_on_time_with_no_broker_at_all() -> None:
    publisher = publisher_for(MqttSettings(host="127.0.0.1", port=free_port()))
    async with running(publisher) as task:
        await assert_on_time_while_facts_pour_in(publisher)
        assert not task.done() and not publisher.connected


async def test_the_loop_runs_on_time_with_a_broker_that_hangs() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    publisher = publisher_for(MqttSettings(host="127.0.0.1", port=server.sockets[0].getsockname()[1]), pace=HANGS)
    async with running(publisher) as task:
        await assert_on_time_while_facts_pour_in(publisher)
        await asyncio.sleep(1.2)    # beyond its patience
        assert not task.done() and not publisher.connected
    server.close()


def test_what_waits_is_bounded_and_what_is_lost_is_counted() -> None:
    publisher = publisher_for(MqttSettings(host="127.0.0.1"))
    for number in range(WAITING_MAX):
        publisher.on_fact(FeedLost(AT, f"COIN{number}", "silence"))    # an event and a notice each
    shown = publisher.document({})
    assert shown["waiting"] == WAITING_MAX and shown["dropped"] == WAITING_MAX


def test_a_payload_is_never_larger_than_the_cap_and_holds_no_secret() -> None:
    publisher = publisher_for(MqttSettings(host="127.0.0.1"), hide=lambda text: text.replace("hunter2", "***"))
    publisher.on_fact(FeedLost(AT, "BTC", "hunter2 " * 10_000))
    publisher.on_fact(FeedLost(AT, "ETH", "hunter2"))
    payloads = [note.payload for note in publisher._waiting]
    assert all(len(payload) <= PAYLOAD_MAX for payload in payloads)
    assert not any(b"hunter2" in payload for payload in payloads) and any(b"***" in payload for payload in payloads)


@pytest.mark.parametrize("given, part", [
    ({"host": "broker.example"}, "tls"), ({"host": "broker.example", "tls": True}, "username"),
    ({"host": "10.0.0.1", "username": "u", "password": "p"}, "tls"), ({"host": "192.168.1.9", "tls": True, "username": "u"}, "password"),
])
def test_off_this_machine_tls_and_a_password_are_required(given: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigurationError, match=part):
        publisher_for(MqttSettings.model_validate(given))


def test_the_settings_in_the_document_are_settings(tmp_path: Path) -> None:
    import tomllib

    given = tomllib.loads(block("toml"))["mqtt"]
    settings = MqttSettings.model_validate(given)
    assert settings.tls and settings.port == 8883 and settings.username == "bot"
