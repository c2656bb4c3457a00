"""Builds the operator's channels, Telegram and MQTT, around a daemon, where the settings ask for them. Refuses by ConfigurationError.

What they hear of facts is handed on through `attempt`: an observer that failed would close the journal, and a channel must never do that.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from modules.Logger_Config import JsonFormatter, redactor
from modules.runtime import keyfile
from modules.runtime.clock import WallClock
from modules.runtime.supervise import attempt

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import SecretStr

    from main import Daemon
    from modules.cli.reports import Reports
    from modules.domain.events import Fact
    from modules.domain.settings import Settings
    from modules.notify.mqtt import MqttPublisher
    from modules.Telegram_Agent import TelegramAgent

log = structlog.get_logger("channels")
Works = dict[str, Callable[[], Awaitable[None]]]
"""Task name -> what runs for ever under supervision."""


def secret(given: SecretStr | None, path: Path | None, key: str) -> str:
    """A secret from the environment or its file, from now on hidden in the log; "" if neither is set."""
    value = given.get_secret_value() if given is not None else keyfile.read(path, key) if path is not None else ""
    redactor.add(value)
    return value


class Parting(Protocol):
    """How a channel says that the daemon ends."""

    async def __call__(self, text: str, *, bad: bool, within_s: float) -> None: ...


def build(settings: Settings, daemon: Daemon, reports: Reports, next_event: Callable[[], str],
          heard: list[Callable[[str], None]] | None = None, partings: list[Parting] | None = None,
          greetings: list[Callable[[], None]] | None = None) -> Works:
    """Call before the journal is replayed: the channels learn from its past. `heard` takes how each is told what is no fact, `partings`
    how each is told that this is the end, `greetings` what says the first words of those that waited for the start with them."""
    heard = [] if heard is None else heard
    greetings = [] if greetings is None else greetings
    partings = [] if partings is None else partings
    works: Works = {}
    if settings.telegram is not None:
        agent = telegram(settings, daemon, reports, next_event)
        _listen(daemon, "Telegram", agent.learn, agent.on_fact)
        daemon.desk.attach({"telegram": agent.document})
        heard.append(agent.tell)
        partings.append(agent.last_words)
        greetings.append(agent.greet)
        works["Telegram"] = agent.run
    if settings.mqtt is not None:
        publisher = mqtt(settings, reports)
        logging.getLogger().addHandler(publisher.handler)
        _listen(daemon, "MQTT", publisher.learn, publisher.on_fact)
        daemon.desk.attach({"mqtt": publisher.document})
        heard.append(lambda words: publisher.tell(words, daemon.clock.now()))
        works["MQTT"] = publisher.run
    return works


def telegram(settings: Settings, daemon: Daemon, reports: Reports, next_event: Callable[[], str]) -> TelegramAgent:
    from modules.notify import phone
    from modules.Telegram_Agent import TelegramAgent

    given = settings.telegram
    assert given is not None

    def opening() -> str:
        if reports.waiting():
            return ""    # nothing is known yet that the first message tells
        proven: Mapping[str, Any] = daemon.desk.handle("validation", {}, "")
        return phone.first_message(reports.status({}), daemon.policies, certified=proven["certified"], strategies=proven["strategies"],
                                   next_event=next_event(), funds=reports.funds({}))

    return TelegramAgent(settings=given, token=secret(given.token, given.token_file, "telegram.token_file"), desk=daemon.desk,
                         now=WallClock().now, opening=opening, hide=redactor.text)


def mqtt(settings: Settings, reports: Reports) -> MqttPublisher:
    from modules.notify.mqtt import MqttPublisher

    given = settings.mqtt
    assert given is not None
    return MqttPublisher(settings=given, password=secret(given.password, given.password_file, "mqtt.password_file"),
                         instance=settings.instance_id, status=lambda: reports.status({}), now=WallClock().now, formatter=JsonFormatter(),
                         hide=redactor.text)


def _listen(daemon: Daemon, name: str, learn: Callable[[Fact], None], on_fact: Callable[[Fact], None]) -> None:
    def guarded(function: Callable[[Fact], None]) -> Callable[[Fact], None]:
        def call(fact: Fact) -> None:
            _, error = attempt(function, fact)
            if error is not None:
                log.error(f"{name} could not take a fact", reason=f"{type(error).__name__}: {error}")
        return call

    daemon.journal.project(guarded(learn))
    daemon.journal.react(guarded(on_fact))
