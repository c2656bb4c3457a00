"""`pause`, `resume`, `reset-kill`, `flatten`, `forceexit`, `funds`, `reconcile`: to the running daemon through its socket."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules.cli import following, inputs
from modules.cli.output import emit, money, percent, table
from modules.cli.questions import JOURNAL, SOCKET
from modules.domain.errors import ConfigurationError, DaemonNotRunning, NotFound
from modules.runtime.control import call

if TYPE_CHECKING:
    from rich.console import Console

SCOPES = ("spot", "perp", "option", "forex", "all")


def run(arguments: argparse.Namespace) -> int:
    folder = following.folder_of(arguments)
    if getattr(arguments, "report", None) is not None:
        return _learning_page(arguments, folder)
    asked = _funds(arguments) if arguments.verb == "funds" else {
        name: value for name in ("asset_class", "reason", "subject", "action") if (value := getattr(arguments, name, None)) is not None}
    try:
        document = call(folder / SOCKET, arguments.verb, asked)
    except DaemonNotRunning as absent:
        if arguments.verb in ("pause", "flatten"):
            raise DaemonNotRunning(f"{absent}; to have it start halted: touch {folder / 'HALT'}") from None
        raise
    emit(arguments, document, lambda out, shown: _show(out, arguments.verb, shown))
    return 0


def _learning_page(arguments: argparse.Namespace, folder: Path) -> int:
    """`learning --report FILE.html`: from the journal, whether or not a daemon runs."""
    from modules.cli import learning_report
    from modules.store.journal import Journal

    if arguments.action is not None:
        raise ConfigurationError([f"learning {arguments.action}: changes what is learned; --report only shows it"])
    if not (folder / JOURNAL).exists():
        raise NotFound(f"no journal at {folder / JOURNAL}: nothing has run here yet; start with: python main.py")
    _, policies = inputs.settings_and_policies(arguments)
    with Journal(folder / JOURNAL, read_only=True) as journal:
        page = learning_report.render((fact for _, fact in journal.facts()), policies.learning)
    try:
        arguments.report.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError([f"--report {arguments.report}: {error.strerror}"]) from None
    emit(arguments, {"report": str(arguments.report)}, lambda out, shown: out.print(f"report: {shown['report']}", markup=False))
    return 0


def _funds(arguments: argparse.Namespace) -> dict[str, Any]:
    """The loose words of `funds`: on or off, and a class."""
    asked: dict[str, Any] = {}
    for word in map(str.lower, arguments.words):
        if word in ("on", "off") and "on" not in asked:
            asked["on"] = word == "on"
        elif word in SCOPES and "asset_class" not in asked:
            asked["asset_class"] = word.upper()
        else:
            raise ConfigurationError([f"funds {word}: takes on or off, and one of {', '.join(SCOPES)}"])
    for name in ("pair_cap", "allocate"):
        if getattr(arguments, name) is not None:
            asked[name] = str(getattr(arguments, name))
    if asked and arguments.confirm:
        asked["confirm"] = True
    if set(asked) == {"asset_class"}:
        raise ConfigurationError(["funds: says a class but not what to change: on, off, --pair-cap or --allocate"])
    return asked


def _show(out: Console, verb: str, document: Mapping[str, Any]) -> None:
    if verb == "funds":
        out.print(f"Funds are {'on' if document['master_on'] else 'OFF'} (real orders only; paper ignores the switches)", markup=False)
        out.print(table("", ("class", "switch", ">pair cap", ">allocated", ">reserved"), (
            (name, "on" if c["on"] else "OFF", percent(c["pair_cap"]), money(c.get("allocated")), money(c.get("reserved")))
            for name, c in document["classes"].items())))
        return
    if verb == "learning":
        out.print("\n".join(document.get("lines", (f"Learning: {document.get('learning')}. It is on record.",))), markup=False)
        return
    lines = {
        "pause": lambda: f"Entries paused: {', '.join(document['paused']) or 'none'}. Exits and stops run on.",
        "resume": lambda: f"Entries paused: {', '.join(document['paused']) or 'none'}." + (
            f" Still halted, which only reset-kill ends: {', '.join(document['halted'])}." if document.get("halted") else ""),
        "reset-kill": lambda: f"Re-armed: {', '.join(document['cleared'])}. Still halted: {', '.join(document['halted']) or 'none'}.",
        "reconcile": lambda: "; ".join(f"{venue}: {count or 'no'} differences" for venue, count in document["differences"].items()),
    }
    closing = [f"{trade['symbol']} ({trade['trade_id']})" for trade in document.get("closing", ())]
    if closing and document.get("waits"):
        out.print(f"Noted, {len(closing)} to close as soon as the venue answers: {', '.join(closing)}. Until then their stops at the venue "
                  f"are all that acts ({document['waits']}).", markup=False)
        return
    out.print(lines.get(verb, lambda: f"Closing {len(closing)}: {', '.join(closing) or 'nothing is open'}. "
                        "This stops no new entries; pause or kill does.")(), markup=False)
