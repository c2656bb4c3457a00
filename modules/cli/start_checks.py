"""Everything that speaks against a start and can be known before anything connects, said in one go: who corrects one fault at a time starts
ten times. Reads files only; asks no venue and changes nothing."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from modules.cli import inputs
from modules.domain.errors import ConfigurationError
from modules.domain.policies import Policies
from modules.domain.settings import Settings
from modules.runtime import keyfile
from modules.runtime.clock import WallClock


def demand(arguments: argparse.Namespace, **overrides: Any) -> tuple[Settings, Policies]:
    """Settings and policies to start with. Raises ConfigurationError with every fault of them, of what they name and of what live trading
    asks for."""
    settings, policies, faults = inputs.examined(arguments, **overrides)
    if settings is not None:
        faults += faults_of(settings, policies)
    if faults or settings is None or policies is None:
        raise ConfigurationError(list(dict.fromkeys(faults)))
    return settings, policies


def faults_of(settings: Settings, policies: Policies | None) -> list[str]:
    """Beside what settings and policies themselves say. `policies` None = they are faulty: what needs them is not looked at."""
    return [fault for check in _checks(settings, policies) for fault in _told(check)]


def _told(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except ConfigurationError as error:
        return error.faults
    return []


def _checks(settings: Settings, policies: Policies | None) -> Iterator[Callable[[], object]]:
    yield lambda: inputs.strategies(settings)
    if policies is not None:
        yield lambda: _calendar(settings, policies)
    yield from _secrets(settings)
    if settings.mode == "demo":
        return
    from modules.cli import market  # what talks to venues is loaded where there are venues
    from modules.venues.ccxt_client import Endpoint, check_endpoint

    yield lambda: market.check(settings)
    for name, venue in settings.venues.items():
        if venue.endpoint:
            root = venue.endpoint.rstrip("/")
            yield partial(_named, name, partial(check_endpoint, Endpoint(root, "ws" + root.removeprefix("http"))))
        if venue.key_file is not None and (settings.mode == "live" or name == "oanda"):
            read: Callable[[Path, str], object] = keyfile.read if name == "oanda" else keyfile.read_pair
            yield partial(read, venue.key_file, f"venues.{name}.key_file")
    if settings.mode == "live" and policies is not None:
        yield lambda: _permitted(settings, policies)


def _named(name: str, check: Callable[[], object]) -> None:
    """The same faults, each with the section it is in."""
    try:
        check()
    except ConfigurationError as error:
        raise ConfigurationError(list(dict.fromkeys(f"venues.{name}.{fault}" for fault in error.faults))[:1]) from None


def _calendar(settings: Settings, policies: Policies) -> None:
    from modules.news import calendar

    calendar.load(settings.policy_dir / "macro_calendar.json", policies.news)


def _secrets(settings: Settings) -> Iterator[Callable[[], object]]:
    for key, path in (("telegram.token_file", settings.telegram.token_file if settings.telegram is not None else None),
                      ("mqtt.password_file", settings.mqtt.password_file if settings.mqtt is not None else None)):
        if path is not None:
            yield partial(keyfile.read, path, key)
    if settings.telegram is not None and not settings.telegram.chat_id:
        yield _no_chat
    if settings.mqtt is not None:
        from modules.notify import mqtt

        yield partial(mqtt.check_wire, settings.mqtt)


def _no_chat() -> None:
    raise ConfigurationError(["telegram.chat_id: is missing; `doctor --telegram` shows it"])


def _permitted(settings: Settings, policies: Policies) -> None:
    from modules.cli import permits

    gate = permits.gate(settings, policies, WallClock().now())
    if gate.refused:
        raise ConfigurationError(list(gate.refused))
