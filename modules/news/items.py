"""One headline as it reached us. Text from outside is data: bounded, one line, never a command."""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

TITLE_MAX: Final = 400
NAME_MAX: Final = 300
CODES_MAX: Final = 20
_TAG: Final = re.compile(r"<[^<>]{0,300}>")
_SPACES: Final = re.compile(r"\s+")
_CODE: Final = re.compile(r"[A-Z0-9]{2,12}")


@dataclass(frozen=True, slots=True)
class Item:
    """`first_seen` is when we fetched it, the only time that decisions and replays go by (UTC ms)."""

    first_seen: int
    source: str
    """Name of our feed."""
    domain: str
    """Who wrote it: what independence and the source cap are reckoned by."""
    guid: str
    """The source's own name for it: the same again is an edit or a repetition."""
    title: str
    published: int | None = None
    """As the source claims; None = it does not say."""
    codes: tuple[str, ...] = ()
    """Coins the source itself tagged."""


def one_line(text: str, limit: int = TITLE_MAX) -> str:
    """Printable text on one line: markup, controls, direction marks and half surrogates removed, entities resolved, cut at `limit`."""
    plain = _TAG.sub("", html.unescape(text[: 4 * limit]))
    plain = "".join(" " if c.isspace() else c for c in unicodedata.normalize("NFC", plain)
                    if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    return _SPACES.sub(" ", plain).strip()[:limit]


def clean_codes(codes: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return tuple(sorted({code for code in codes[:CODES_MAX] if _CODE.fullmatch(code)}))
