"""The words of the chat: every command, what it takes, and what it asks of the operator desk. Refuses what makes no sense, with a hint.

Names are freqtrade's where the thing is the same. Nothing here is executed; a command becomes a `Wish`, and the desk says whether that
needs a one-time code.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modules.domain.errors import OperatorRefused

CLASSES: Final = ("SPOT", "PERP", "OPTION", "FOREX")
WORD_MAX: Final = 80


@dataclass(frozen=True, slots=True)
class Word:
    """One command. `asks`: what the desk is asked, in order. `takes`: n (a number), class, subject, reason, switch.
    `needs`: which of these must be given."""

    asks: tuple[str, ...]
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    help: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants: `name` as typed (its alias resolved), the desk's questions, and the arguments."""

    name: str
    asks: tuple[str, ...]
    arguments: Mapping[str, Any]


WORDS: Final[dict[str, Word]] = {
    "status": Word(("status", "trades"), ("class", "subject"), help="[table] state, equity, open trades"),
    "profit": Word(("profit",), ("n", "class"), help="[days] result after all costs"),
    "daily": Word(("daily",), ("n", "class"), help="[n] result per day"),
    "weekly": Word(("weekly",), ("n", "class"), help="[n] result per week"),
    "monthly": Word(("monthly",), ("n", "class"), help="[n] result per month"),
    "balance": Word(("balance",), ("class",), help="what each class holds"),
    "performance": Word(("performance",), ("class",), help="result per strategy, with a picture"),
    "equity": Word(("equity",), ("n", "class"), help="[days] equity as a picture"),
    "trades": Word(("trades",), ("n", "class"), help="[n] the last closed trades"),
    "count": Word(("count",), help="open trades against the limit"),
    "why": Word(("explain",), ("subject",), help="[symbol] why it trades or not"),
    "phase": Word(("phase",), ("class",), help="which phase, what a trade is worth"),
    "events": Word(("events",), help="releases to come"),
    "news": Word(("news",), ("subject",), help="[asset] moods and headlines"),
    "validation": Word(("validation",), help="which strategies are certified"),
    "learning": Word(("learning",), help="what it has learned"),
    "locks": Word(("locks",), help="what keeps entries closed"),
    "whitelist": Word(("whitelist",), help="what may be traded"),
    "blacklist": Word(("blacklist",), ("subject",), help="[pair] bar a pair from entries"),
    "health": Word(("status",), help="feeds, wallet, event loop"),
    "show_config": Word(("show-config",), help="settings in force, secrets hidden"),
    "logs": Word(("logs",), ("n",), help="[n] the last lines of the log"),
    "version": Word(("version",), help="this program's version"),
    "pause": Word(("pause",), ("class",), help="[class] no new entries; stops run on"),
    "kill": Word(("kill",), ("class",), help="[class] halt until re-armed; stops stay"),
    "reconcile": Word(("reconcile",), help="compare books and venue now"),
    "resume": Word(("resume",), ("class",), help="[class] entries again (code)"),
    "unlock": Word(("unlock",), ("subject",), ("subject",), help="class or pair: entries again (code)"),
    "forceexit": Word(("forceexit",), ("subject",), help="id or all: close now (code)"),
    "flatten": Word(("flatten",), ("class",), help="[class] close everything now (code)"),
    "reset_kill": Word(("reset-kill",), ("class", "reason"), ("class", "reason"), help="class reason: re-arm (code)"),
    "funds": Word(("funds",), ("switch", "class"), help="[on|off] [class] switches for real money"),
    "reload_config": Word(("reload",), help="read the policies again"),
}
ALIASES: Final = {"stop": "pause", "stopentry": "pause", "stopbuy": "pause", "forcesell": "forceexit", "fx": "forceexit",
                  "explain": "why", "reload": "reload_config", "reset-kill": "reset_kill", "config": "show_config"}
OURSELVES: Final = ("start", "help", "cancel")
"""Commands that the agent answers itself."""
STOPS: Final = frozenset({"pause", "kill"})
"""What only ever takes away: heard however old it is."""


def parse(text: str) -> Wish:
    """"/pause spot" as a Wish. Raises OperatorRefused with what was probably meant."""
    head, *words = text.split()
    name = head.removeprefix("/").partition("@")[0].lower()
    name = ALIASES.get(name, name)
    word = WORDS.get(name)
    if name in OURSELVES:
        return Wish(name, (), {})
    if word is None:
        near = difflib.get_close_matches(name, [*WORDS, *ALIASES, *OURSELVES], 1)
        raise OperatorRefused(f"there is no /{name[:30]}" + (f"; did you mean /{near[0]}?" if near else "; /help shows what there is"))
    arguments = _arguments(name, word, words)
    missing = [need for need in word.needs if need not in arguments and not (need == "class" and "asset_class" in arguments)]
    if missing:
        raise OperatorRefused(f"/{name} needs {' and '.join(missing)}: /{name} {word.help.partition(':')[0]}")
    if name == "funds" and arguments and "on" not in arguments:
        raise OperatorRefused("say on or off, and a class or nothing for all: /funds off spot")
    return Wish(name, word.asks, arguments)


def _arguments(name: str, word: Word, words: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    left = list(words)
    while left:
        given = left[0]
        plain = given.upper()
        if "class" in word.takes and "asset_class" not in found and (plain in CLASSES or plain == "ALL"):
            found["asset_class"] = plain
        elif "n" in word.takes and "n" not in found and given.isascii() and given.isdigit() and len(given) <= 4:
            found["n"] = int(given)
        elif "switch" in word.takes and "on" not in found and plain in ("ON", "OFF"):
            found["on"] = plain == "ON"
        elif "reason" in word.takes and "asset_class" in found:
            found["reason"] = " ".join(left)
            break
        elif "subject" in word.takes and "subject" not in found and len(given) <= WORD_MAX:
            found["subject"] = given
        else:
            raise OperatorRefused(_hint(name, word, given))
        left.pop(0)
    return found


def _hint(name: str, word: Word, given: str) -> str:
    if "class" in word.takes and "subject" not in word.takes:
        near = difflib.get_close_matches(given.upper(), CLASSES, 1)
        meant = f"did you mean {near[0].lower()}?" if near else "classes are " + ", ".join(CLASSES).lower()
        return f"/{name} {given[:30]}: {meant}"
    return f"/{name} does not take {given[:30]!r}"


__all__ = ["ALIASES", "CLASSES", "OURSELVES", "STOPS", "WORDS", "Wish", "Word", "parse"]
