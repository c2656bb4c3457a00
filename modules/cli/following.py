"""Which daemon a verb means: that of `--mode`, else the only one that runs, else that of the settings. Says so where they differ.

Every mode has a state folder of its own, and the daemon on it holds its lock: whoever holds one runs. Refuses to guess between two.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from modules.cli import inputs
from modules.domain.errors import ConfigurationError
from modules.domain.settings import Settings
from modules.runtime import control
from modules.store import lock

MODES: Final = ("live", "paper", "demo")
"""The one with the most at stake first."""
SOCKET: Final = "control.sock"
JOURNAL: Final = "journal.sqlite"


def running(state_dir: Path) -> dict[str, int]:
    """Mode -> process of every daemon on a state folder below `state_dir`; 0 = its number cannot be told."""
    found = {}
    for mode in MODES:
        process = lock.holder(state_dir / mode)
        if process is not None or control.answers(state_dir / mode / SOCKET):
            found[mode] = process or 0
    return found


def told(process: int) -> str:
    return f"process {process}" if process else "a process"


def mode_of(arguments: argparse.Namespace, *, files: bool = False) -> str:
    """The mode whose daemon or journal is meant. `files`: the journal is read, whoever runs; then what the settings say outright is done.

    Asked once; from then on it stands in `arguments`. Raises ConfigurationError where several daemons run and neither --mode nor the
    settings say which.
    """
    if getattr(arguments, "mode", None) is None:
        arguments.mode = _found(inputs.settings_only(arguments), files=files)
    return str(arguments.mode)


def _found(settings: Settings, *, files: bool) -> str:
    found = running(settings.state_dir)
    outright = "mode" in settings.model_fields_set
    if outright and (settings.mode in found or (files and _used(settings, settings.mode))):
        if others := [f"{mode} ({told(process)})" for mode, process in found.items() if mode != settings.mode]:
            _note(f"{settings.mode}, as the settings say; there runs {' and '.join(others)} too: --mode asks another")
        return settings.mode
    if len(found) > 1:
        raise ConfigurationError([f"{len(found)} daemons run here: " + ", ".join(
            f"{mode} ({told(process)})" for mode, process in found.items()) + "; say which one is meant: " + " or ".join(
            f"--mode {mode}" for mode in found)])
    for mode, process in found.items():
        if mode != settings.mode:
            _note(f"the {mode} daemon ({told(process)}), the only one that runs; the settings say {settings.mode}")
        return mode
    past = [mode for mode in MODES if _used(settings, mode)]
    if not outright and len(past) == 1 and past[0] != settings.mode:
        _note(f"{past[0]}, the only mode that ever ran here; the settings say {settings.mode}")
        return past[0]
    return settings.mode


def folder_of(arguments: argparse.Namespace) -> Path:
    """The state folder of the daemon that is meant. Asks nothing of the settings but where state is kept."""
    return inputs.settings_only(arguments).state_dir / mode_of(arguments)


def _used(settings: Settings, mode: str) -> bool:
    return (settings.state_dir / mode / JOURNAL).exists()


def _note(words: str) -> None:
    """On stderr: what a verb prints stays clean."""
    print(f"This is {words}.", file=sys.stderr)
