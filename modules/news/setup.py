"""What a News_Agent is to work with: feeds and a store live, a recording in replays, or nothing at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from modules.domain.errors import ConfigurationError
from modules.domain.settings import NewsSettings
from modules.news.sources import NAMES, SOURCES, Shape, Source
from modules.news.store import NewsStore

FILE: Final = "news.db"
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Setup:
    store: NewsStore
    sources: Sequence[Source] = ()
    """Asked while running; none = the store is a recording, replayed by the time its items were first seen."""
    token: str = ""
    since: int = 0
    """A recording is replayed from what was first seen then (UTC ms)."""


def from_settings(settings: NewsSettings, folder: Path) -> Setup | None:
    """None where the owner has not switched news on. Raises ConfigurationError naming every fault, StoreUnreadable."""
    if not settings.enabled:
        return None
    faults = [f"news.off: {name!r} is no source; known are {', '.join(sorted(NAMES))}" for name in settings.off if name not in NAMES]
    faults += [f"news.endpoints.{name}: no such source; known are {', '.join(sorted(NAMES))}" for name in settings.endpoints
               if name not in NAMES]
    for name, address in settings.endpoints.items():
        parts = urlsplit(address)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            faults.append(f"news.endpoints.{name}: must be https (http only on loopback)")
    token = _token(settings, faults)
    if faults:
        raise ConfigurationError(faults)
    sources = [replace(source, endpoint=settings.endpoints.get(source.name, source.endpoint)) for source in SOURCES
               if source.name not in settings.off and (source.shape is not Shape.CRYPTOPANIC or token)]
    return Setup(NewsStore(folder / FILE), sources, token)


def _token(settings: NewsSettings, faults: list[str]) -> str:
    if settings.cryptopanic_token is not None:
        return settings.cryptopanic_token.get_secret_value()
    path = settings.cryptopanic_token_file
    if path is None:
        return ""
    try:
        if path.is_symlink() or path.stat().st_mode & 0o077:
            faults.append(f"news.cryptopanic_token_file: {path.name} must be a plain file that only its owner can read (chmod 600)")
            return ""
        token = path.read_text(encoding="utf-8").strip()
        if len(token.split()) != 1:
            faults.append(f"news.cryptopanic_token_file: {path.name} must hold the token on one line and nothing else")
        return token
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"news.cryptopanic_token_file: cannot be read: {type(error).__name__}")
        return ""
