"""`doctor`: what would go wrong before it does. Each line ok, warn or fail with its remedy; exit code 1 if anything fails.

Reads only. What needs a connection (venues' clocks, keys' rights, Telegram) is asked only where it is configured.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import config
from modules.cli import inputs
from modules.cli.output import emit
from modules.cli.questions import JOURNAL, SOCKET
from modules.domain.certificate import CertificateError, days_left, load
from modules.domain.errors import BotError, ConfigurationError, JournalCorrupt
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.domain.sessions import iso
from modules.domain.settings import Settings
from modules.runtime import keyfile
from modules.runtime.clock import WallClock

if TYPE_CHECKING:
    from rich.console import Console

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"
FREE_FAIL: Final = 64 << 20
FREE_WARN: Final = 1 << 30
FILES_MIN: Final = 1_024
EXPIRY_WARN_DAYS: Final = 14.0


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    state: str
    said: str
    remedy: str = ""


def run(arguments: argparse.Namespace) -> int:
    if arguments.telegram:
        from modules.cli import telegram_setup

        return telegram_setup.run(arguments)
    findings = list(examine(arguments, mode=arguments.mode))
    worst = FAIL if any(f.state == FAIL for f in findings) else WARN if any(f.state == WARN for f in findings) else OK
    emit(arguments, {"result": worst, "findings": [
        {"what": f.what, "state": f.state, "said": f.said, "remedy": f.remedy} for f in findings]}, _show)
    return 1 if worst == FAIL else 0


def _show(out: Console, document: Mapping[str, Any]) -> None:
    from rich.text import Text

    styles = {OK: "green", WARN: "yellow", FAIL: "bold red"}
    for finding in document["findings"]:
        line = Text(f"{finding['state']:<5}", style=styles[finding["state"]])
        line.append(f"{finding['what']}: {finding['said']}", style="default")
        if finding["remedy"]:
            line.append(f"\n     -> {finding['remedy']}", style="default")
        out.print(line)


def examine(arguments: argparse.Namespace, mode: str | None = None, only: AssetClass | None = None) -> Iterator[Finding]:
    """Every finding; what depends on a sound configuration is left out where there is none. As if the settings said `mode`; of the venues
    that which trades `only`."""
    yield _python()
    try:
        settings = inputs.settings_only(arguments, mode=mode)
    except ConfigurationError as error:
        yield from (Finding("settings", FAIL, fault, "correct it, or begin anew with an empty config.toml") for fault in error.faults)
        return
    yield Finding("settings", OK, f"mode {settings.mode}" + (
        "" if inputs.files(arguments) else ", no settings file" + (
            ": the demo market, paper fills, no key" if settings.mode == "demo" else "")))
    yield from (keys := list(_keys(settings)))
    yield from _machine(settings)
    yield from _state(settings)
    try:
        policies = config.load_policies(settings.policy_dir)
    except ConfigurationError as error:
        yield from (Finding("policies", FAIL, fault, "correct it, or restore the shipped file") for fault in error.faults)
        return
    yield Finding("policies", OK, f"hash {policies.hash[:16]}")
    yield from _calendar(settings, policies)
    yield from _certificates(settings)
    yield from _reachable(settings)
    if settings.venues and settings.mode != "demo":
        from modules.cli import doctor_venues

        said = {finding.said for finding in keys}
        yield from (finding for finding in doctor_venues.examine(settings, policies, only) if finding.said not in said)


def _python() -> Finding:
    """Older ones than 3.11 never get here: the program does not start on them."""
    return Finding("python", OK, sys.version.split()[0])


def _keys(settings: Settings) -> Iterator[Finding]:
    """Files that hold secrets: there, ours, and closed to others. Their content is never shown."""
    named: dict[str, Path | None] = {f"venues.{name}.key_file": venue.key_file for name, venue in settings.venues.items()}
    if settings.telegram is not None:
        named["telegram.token_file"] = settings.telegram.token_file
    if settings.mqtt is not None:
        named["mqtt.password_file"] = settings.mqtt.password_file
    for key, path in named.items():
        if path is None:
            continue
        try:
            _ = keyfile.read_pair(path, key) if _is_pair(key) else keyfile.read(path, key)
        except ConfigurationError as error:
            yield Finding(key, FAIL, error.faults[0], _mended(path, error.faults[0]))
        else:
            yield Finding(key, OK, f"{path} is readable by its owner alone")


def _mended(path: Path, fault: str) -> str:
    """What to do about a key file; what it says of the file itself, where nothing more can be said."""
    if not os.path.lexists(path):
        return f"make it: install -m 600 /dev/null {path}, then write the key into it; docs/going-live.md has the steps"
    if fault.endswith("(chmod 600)") and path.is_file():
        return f"chmod 600 {path}, and think of the key as known to whoever could read it: make a new one if others use this machine"
    if fault.endswith("belongs to somebody else"):
        return f"chown {path} to the user that runs the daemon"
    return "docs/going-live.md, step 3, shows what a key file holds and where it may be"


def _is_pair(key: str) -> bool:
    """Exchanges give a key and a secret, everybody else one token."""
    return key.startswith("venues.") and key != "venues.oanda.key_file"


def _machine(settings: Settings) -> Iterator[Finding]:
    for key, folder in (("state_dir", settings.state_dir), ("log_dir", settings.log_dir)):
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(there).free
        state = FAIL if free < FREE_FAIL else WARN if free < FREE_WARN else OK
        remedy = "" if state == OK else "free some space: with a full disk no entry is made, only exits"
        yield Finding(key, state, f"{folder}, {free / (1 << 30):,.1f} GiB free", remedy)
        if not os.access(there, os.W_OK):
            yield Finding(key, FAIL, f"{there} cannot be written by user {os.geteuid()}", "change its owner or name another folder")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < FILES_MIN:
        yield Finding("open files", WARN, f"limit {files}", f"ulimit -n {FILES_MIN} (systemd: LimitNOFILE={FILES_MIN})")


def _state(settings: Settings) -> Iterator[Finding]:
    from modules.runtime.control import call
    from modules.store.journal import Journal

    folder = inputs.state_folder(settings)
    if (folder / SOCKET).exists():
        try:
            problems = call(folder / SOCKET, "status", {}, timeout_s=5.0)["problems"]
        except (BotError, TimeoutError) as error:
            yield Finding("daemon", WARN, f"does not answer: {error}", "look at logs -n 50; restart it if it hangs")
        else:
            yield Finding("daemon", WARN if problems else OK, "; ".join(problems) or "runs, and has nothing to complain of")
    else:
        yield Finding("daemon", OK, "not running")
    if (folder / "HALT").exists():
        yield Finding("HALT file", WARN, f"{folder / 'HALT'} halts every class", "remove it, then: reset-kill all --reason ...")
    if not (folder / JOURNAL).exists():
        yield Finding("journal", OK, "none yet")
        return
    try:
        with Journal(folder / JOURNAL, read_only=True) as journal:
            yield Finding("journal", OK, f"{journal.verify():,} rows, chain unbroken, head {journal.head[:16]}")
    except (JournalCorrupt, BotError) as error:
        yield Finding("journal", FAIL, str(error), "restore a backup; the venue still has what is really held")


def _calendar(settings: Settings, policies: Policies) -> Iterator[Finding]:
    """How far each macro series is known: a class is closed to entries 14 days before one of its series ends."""
    from modules.news import calendar

    at = WallClock().now()
    try:
        events, covered = calendar.load(settings.policy_dir / "macro_calendar.json", policies.news)
    except ConfigurationError as error:
        yield from (Finding("macro calendar", FAIL, fault, "restore the shipped file") for fault in error.faults)
        return
    book = calendar.Calendar(events, policies.news, covered)
    closed = [c.value for c in AssetClass if book.exhausted(c, at)]
    for kind, until in sorted(covered.items()):
        if until is None:
            continue
        days = (until - at) / calendar.DAY
        short = kind in book.running_out(at)
        since = f"entries of {', '.join(closed)} are closed outside the demo" if any(book.exhausted(c, at) == kind for c in AssetClass) \
            else f"entries close from {iso(book.closes_from(kind) or until)[:10]} on"
        yield Finding(f"macro calendar {kind}", WARN if short else OK, f"known for {days:,.0f} more days",
                      f"{since}: switch [news] on, or add dates with their source to policies/macro_calendar.json (docs/news.md)"
                      if short else "")


def _certificates(settings: Settings) -> Iterator[Finding]:
    folder = settings.state_dir / "certificates"
    at = WallClock().now()
    good = 0
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            left = days_left(load(path), at)
        except CertificateError as error:
            yield Finding("certificate", WARN, str(error), "validate that strategy again, and remove the file")
            continue
        if left <= 0.0:
            yield Finding("certificate", WARN, f"{path.name} has expired", "python main.py validate")
        else:
            good += 1
            yield Finding("certificate", WARN if left < EXPIRY_WARN_DAYS else OK, f"{path.name}: {left:.0f} days left")
    if not good:
        live = settings.mode == "live"
        yield Finding("certificates", WARN if live else OK, "none valid: no strategy may trade real money" + (
            "" if live else " (paper and demo are never gated)"), "python main.py validate" if live else "")


def _reachable(settings: Settings) -> Iterator[Finding]:
    """Whether somebody would be told at three in the morning."""
    if settings.telegram is None and settings.mqtt is None and settings.mode != "demo":
        yield Finding("alerts", WARN, "neither [telegram] nor [mqtt] is configured: nobody hears of a halt",
                      "make a bot with @BotFather and put its token into a key file; docs/telegram.md has the steps")

