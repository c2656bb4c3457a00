"""Configures structured JSON logging: one object per line in logs/trading_bot.json, whatever the text contains, secrets redacted.

A full disk or an unlinked file never stops trading: a line that cannot be written is counted and dropped.
"""

from __future__ import annotations

import logging
import logging.handlers
import re
import sys
import time
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from modules.domain import sessions
from modules.runtime import keyfile

QUIET: Final = ("httpx", "httpcore", "telegram", "ccxt", "aiohttp", "aiomqtt", "asyncio", "mqtt", "urllib3")
_SECRET_SHAPES: Final = re.compile(
    r"(/bot)\d+:[A-Za-z0-9_-]+|((?:signature|apiKey|api_key|secret|token|passphrase|Authorization|X-BAPI-SIGN|X-BAPI-API-KEY)"
    r"[\"']?\s*[=:]\s*[\"']?)(?:Bearer\s+)?[^\s\"'&,}]+",
    re.IGNORECASE,
)
LENGTH_MAX: Final = 4000


class Redactor:
    """Removes loaded secrets by value, and what looks like one by shape."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._values = sorted((s for s in secrets if len(s) >= 6), key=len, reverse=True)

    def add(self, secret: str) -> None:
        if len(secret) >= 6 and secret not in self._values:
            self._values = sorted([*self._values, secret], key=len, reverse=True)

    def text(self, text: str) -> str:
        for value in self._values:
            if value in text:
                text = text.replace(value, "***")
        return _SECRET_SHAPES.sub(lambda m: f"{m.group(1) or m.group(2)}***", text)


redactor = Redactor()
keyfile.tell(redactor.add)


class SafeRotatingFile(logging.handlers.RotatingFileHandler):
    """Rotates by size; counts what it could not write instead of raising or printing tracebacks."""

    lost = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name logging calls
        SafeRotatingFile.lost += 1


def _line(fields: MutableMapping[str, Any]) -> str:
    """One JSON object without line breaks; every string bounded and redacted."""
    clean = {key: redactor.text(value)[:LENGTH_MAX] if isinstance(value, str) else value for key, value in fields.items()}
    return redactor.text(orjson.dumps(clean, default=str, option=orjson.OPT_NON_STR_KEYS).decode())


class JsonFormatter(logging.Formatter):
    """Third-party records and ours alike as one JSON line with the names the owner's tools know."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "timestamp": sessions.iso(getattr(record, "at", None) or int(record.created * 1000)), "levelname": record.levelname,
            "name": record.name, "module": record.module, "funcName": record.funcName, "lineno": record.lineno,
        }
        extra = getattr(record, "fields", None)
        message = record.getMessage()
        if extra:
            fields |= extra
        fields["message"] = message
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _line(fields)


def _to_logging(logger: logging.Logger, level: str, event: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    message = str(event.pop("event"))
    at = event.pop("at", None)
    return (message,), {"extra": {"fields": {k: v for k, v in event.items() if v is not None}, "at": at}, "stacklevel": 3}


def configure(folder: Path | None, *, level: str = "INFO", console: bool = False, megabytes: int = 20, files: int = 10) -> Path | None:
    """Send every log record of this process to `folder`/trading_bot.json (None = nowhere); warnings to stderr too if `console`."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.setLevel(level)
    path = None
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "trading_bot.json"
            handler = SafeRotatingFile(path, maxBytes=megabytes * 1_000_000, backupCount=files, delay=True, encoding="utf-8")
            handler.setFormatter(JsonFormatter())
            root.addHandler(handler)
        except OSError as error:
            path = None
            print(f"logs cannot be written to {folder}: {error}; trading goes on without a log file", file=sys.stderr)
    if console or path is None:
        stream = logging.StreamHandler(sys.stderr)
        stream.setLevel(logging.WARNING)
        stream.setFormatter(JsonFormatter())
        root.addHandler(stream)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.Formatter.converter = time.gmtime
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.contextvars.merge_contextvars, _to_logging],
        wrapper_class=structlog.stdlib.BoundLogger, logger_factory=structlog.stdlib.LoggerFactory(), cache_logger_on_first_use=False,
    )
    return path
