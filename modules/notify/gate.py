"""Who is listened to, and how a dangerous word is confirmed. Pure: refuses and counts; executes nothing.

A message counts only from a known person in the one private chat, typed there and then. Strangers get no answer at all: silence tells
them nothing. What stops the bot is heard however old it is; what loosens or flattens is old after a minute and needs a one-time code.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

LENGTH_MAX: Final = 300
AHEAD_MS: Final = 60_000
"""A message dated further into our future than this has a date that cannot be believed."""
TRIES: Final = 3
CODE_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Said:
    """One update, whatever it is. `at` is when it was sent (UTC ms; a tap: now). `foreign` names what makes it no message of its own."""

    update_id: int
    user_id: int
    chat_id: int
    private: bool
    at: int
    text: str
    foreign: str = ""
    """"edited", "forwarded", "via_bot", "other", "no_text" or ""."""


class Gate:
    """`refuse` says why an update is ignored; every refusal is counted by its reason in `refused`."""

    def __init__(self, chat_id: int, user_ids: Collection[int], age_ms: int) -> None:
        self._chat_id = chat_id
        self._user_ids = frozenset(user_ids)
        self._age_ms = age_ms
        self._latest = -1
        self.refused: Counter[str] = Counter()

    def refuse(self, said: Said) -> str:
        """Why it is not listened to; "" if it is. Age is judged later: it matters for what was said (`stale`)."""
        reason = self._reason(said)
        if reason:
            self.refused[reason] += 1
        self._latest = max(self._latest, said.update_id)
        return reason

    def _reason(self, said: Said) -> str:
        if said.update_id <= self._latest:
            return "replayed"
        if said.user_id not in self._user_ids:
            return "stranger"
        if not said.private or said.chat_id != self._chat_id:
            return "other_chat"
        if said.foreign:
            return said.foreign
        if len(said.text) > LENGTH_MAX:
            return "oversized"
        return "" if said.text.isprintable() else "injected"

    def stale(self, said: Said, now: int, *, tightens: bool) -> bool:
        """Whether it is too old (or dated too far ahead) to be acted upon; counted. What tightens is never too old."""
        if tightens or -AHEAD_MS <= now - said.at <= self._age_ms:
            return False
        self.refused["stale"] += 1
        return True


@dataclass(frozen=True, slots=True)
class Asked:
    """What a code would set in motion."""

    code: str
    command: str
    arguments: Mapping[str, Any]
    until: int


class Codes:
    """One open question per person. `digits` makes a code nobody can guess."""

    def __init__(self, digits: Callable[[int], str], valid_ms: int) -> None:
        self._digits = digits
        self._valid_ms = valid_ms
        self._asked: dict[int, Asked] = {}
        self._tries: dict[int, int] = {}

    def ask(self, user_id: int, command: str, arguments: Mapping[str, Any], now: int) -> Asked:
        """A new code; an older one of the same person is void."""
        asked = Asked(self._digits(CODE_DIGITS), command, dict(arguments), now + self._valid_ms)
        self._asked[user_id], self._tries[user_id] = asked, 0
        return asked

    def redeem(self, user_id: int, text: str, now: int) -> Asked | str:
        """What was confirmed, else why nothing was. A code works once."""
        asked = self._asked.get(user_id)
        if asked is None:
            return "there is nothing to confirm"
        if now > asked.until:
            self.forget(user_id)
            return "that code is too old; give the command again"
        if hmac.compare_digest(asked.code, text) if text.isascii() else False:
            self.forget(user_id)
            return asked
        self._tries[user_id] += 1
        if self._tries[user_id] >= TRIES:
            self.forget(user_id)
            return "wrong code; give the command again"
        return "wrong code"

    def forget(self, user_id: int) -> bool:
        """Void what is open; False if nothing was."""
        self._tries.pop(user_id, None)
        return self._asked.pop(user_id, None) is not None


__all__ = ["Asked", "Codes", "Gate", "Said"]
