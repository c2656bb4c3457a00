"""The command line: finds the verb, runs it, and turns every error we can name into a sentence on stderr and an exit code.

0 ok, 1 failed, 2 not found, 3 daemon not running, 4 configuration or policy error, 5 time-out. Heavy modules are imported by the verb
that needs them, so that `version` and `status` answer at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from modules.cli.arguments import Usage, parse
from modules.domain.errors import BotError, ConfigurationError, DaemonNotRunning, NotFound
from modules.runtime import collector

OK: Final = 0
FAILED: Final = 1
NOT_FOUND: Final = 2
NOT_RUNNING: Final = 3
FAULTY: Final = 4
TIMED_OUT: Final = 5
INTERRUPTED: Final = 130

VERBS: Final = {
    "trade": "trade:run",
    "demo": "simulated:demo", "replay": "simulated:replay",
    "size": "size:run",
    "validate": "validation:validate", "optimize": "validation:optimize",
    "lookahead": "validation_checks:lookahead", "recursive": "validation_checks:recursive",
    "drift": "drift:run",
    "news": "news_reports:news", "events": "news_reports:events",
    **dict.fromkeys(("status", "balance", "trades", "profit", "daily", "performance", "explain"), "questions:run"),
    **dict.fromkeys(("pause", "resume", "reset-kill", "flatten", "forceexit", "funds", "learning", "reconcile"), "commands:run"),
    "kill": "killing:run",
    "journal": "journal_tools:journal", "export": "journal_tools:export",
    "report": "period_report:run", "backup": "backup:backup", "restore": "backup:restore",
    "completion": "completion:run", "doctor": "doctor:run",
    "logs": "tools:logs", "new-strategy": "tools:new_strategy", "show-config": "tools:show_config", "version": "tools:version",
    "new-config": "new_config:run", "drill": "drill:run", "go-live": "go_live:run",
    "download-data": "download:run", "import-data": "importing:run",
    "list-strategies": "tools:list_strategies", "list-instruments": "instruments:run", "list-venues": "venues:run",
}
"""Verb -> module of this package and function in it: Namespace -> exit code."""


def run(argv: Sequence[str]) -> int:
    """Run one command line (without the program's name); the exit code."""
    try:
        arguments = parse(argv)
    except Usage as usage:
        return _fail(str(usage), usage.code)
    except SystemExit as end:  # after --help
        return int(end.code or 0)
    return _guarded(arguments)


def _guarded(arguments: argparse.Namespace) -> int:
    try:
        with ready_to_end(arguments.verb):
            return _verb(arguments.verb)(arguments)
    except ConfigurationError as error:
        count = len(error.faults)
        return _fail("\n".join((f"{count} fault{'s' if count != 1 else ''}:", *(f"  {fault}" for fault in error.faults))), FAULTY)
    except NotFound as error:
        return _fail(str(error), NOT_FOUND)
    except DaemonNotRunning as error:
        return _fail(str(error), NOT_RUNNING)
    except TimeoutError as error:
        return _fail(str(error) or "no answer in time", TIMED_OUT)
    except BotError as error:
        return _fail(str(error), FAILED)
    except BrokenPipeError:
        # Whoever read us has gone (`| head`): nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)


@contextmanager
def ready_to_end(verb: str) -> Iterator[None]:
    """A daemon that is told to end while it still loads ends as it does later: with code 0. Its loop takes the signal over."""
    if verb != "trade" or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(OK))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _verb(name: str) -> Callable[[argparse.Namespace], int]:
    module, _, function = VERBS[name].partition(":")
    with collector.paused():  # imports make nothing but what stays
        found: Callable[[argparse.Namespace], int] = getattr(importlib.import_module(f"modules.cli.{module}"), function)
    return found


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
