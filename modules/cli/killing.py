"""`kill`: halts whatever runs. Without --mode every daemon below the state folder, for who types it wants everything to stop.

A daemon that has the lock and does not answer in time - it starts, hangs, or refuses - is halted by its HALT file, which it looks for
twice a second and at every start. Faulty settings keep nobody from stopping. Exit code 0 only if each was halted or has the file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import config
from modules.cli import following, inputs
from modules.cli.output import emit
from modules.domain.errors import BotError, ConfigurationError, DaemonNotRunning
from modules.runtime.control import call

if TYPE_CHECKING:
    from rich.console import Console

PATIENCE_S: Final = 5.0
"""A daemon that takes longer gets the file."""
HALT: Final = "HALT"


def run(arguments: argparse.Namespace) -> int:
    state_dir, mode = _where(arguments)
    found = following.running(state_dir)
    if arguments.mode is not None:
        found = {arguments.mode: found[arguments.mode]} if arguments.mode in found else {}
        mode = arguments.mode
    if not found:
        raise DaemonNotRunning(f"no daemon is running on {state_dir / mode}; to have it start halted: touch {state_dir / mode / HALT}. One "
                               f"that keeps its state elsewhere than in {state_dir.absolute()}, like a service, is not seen from here: say "
                               "BOT__STATE_DIR=/its/folder before the command, or -c its settings")
    halted = {mode: _halt(state_dir / mode, arguments.asset_class) for mode in found}
    document = next(iter(halted.values())) | {"mode": next(iter(halted))} if len(halted) == 1 else {"daemons": halted}
    emit(arguments, document, lambda out, shown: _show(out, halted))
    return 1 if any("trouble" in one for one in halted.values()) else 0


def _where(arguments: argparse.Namespace) -> tuple[Path, str]:
    """Where state is kept, and the settings' mode; as far as faulty settings let it be known."""
    try:
        settings = inputs.settings_only(arguments)
    except ConfigurationError as error:
        state_dir = config.state_dir(inputs.files(arguments))
        print(f"the settings are faulty ({error.faults[0]}); halting what runs below {state_dir}", file=sys.stderr)
        return state_dir, "live"
    return settings.state_dir, settings.mode


def _halt(folder: Path, asset_class: str) -> dict[str, Any]:
    try:
        return call(folder / following.SOCKET, "kill", {"asset_class": asset_class}, timeout_s=PATIENCE_S)
    except (BotError, TimeoutError) as error:
        why = str(error)
    try:
        (folder / HALT).touch(mode=0o600)
    except OSError as error:
        return {"halted": {}, "already": False, "file": None, "why": why,
                "trouble": f"{folder / HALT} cannot be made either: {error.strerror}; stop the process, close at the venue's own page"}
    return {"halted": {}, "already": False, "file": str(folder / HALT), "why": why}


def _show(out: Console, halted: Mapping[str, Mapping[str, Any]]) -> None:
    for mode, document in halted.items():
        name = f"{mode.upper()}: " if len(halted) > 1 else ""
        if "trouble" in document:
            out.print(f"{name}NOT HALTED: {document['why']}; {document['trouble']}", style="bold red", markup=False)
        elif "file" in document:
            out.print(f"{name}it did not take the command ({document['why']}), so {document['file']} was made: it halts every class within "
                      "a second, or when it starts. Re-arm: remove the file, then reset-kill all --reason ...", markup=False)
        else:
            out.print(name + ("Already halted: " if document["already"] else "Halted: ") + f"{', '.join(document['halted'])}. Entries are "
                      "canceled, stops stay. Re-arm with: reset-kill CLASS --reason ...", markup=False)
