"""Bodies of news feeds to items: RSS, Atom, CryptoPanic's JSON. Pure functions; what is hostile or broken raises FeedBroken.

XML goes through expat with document types and entities refused outright, depth, fields and item counts bounded: billion laughs and
external entities end at their declaration. Nothing here believes a date, a title or a link beyond its length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit
from xml.parsers import expat

import orjson

from modules.domain.errors import BotError
from modules.news.items import NAME_MAX, TITLE_MAX, Item, clean_codes, one_line

ITEMS_MAX: Final = 200
"""Of one fetch; feeds carry 20 to 100."""
DEPTH_MAX: Final = 40
FIELD_MAX: Final = 8_000
"""Characters of one XML field that are kept."""
_FIELDS: Final = {"title": "title", "link": "link", "guid": "guid", "id": "guid", "pubdate": "date", "published": "date",
                  "updated": "updated", "date": "date", "issued": "date"}
_YEARS: Final = (2000, 2100)


class FeedBroken(BotError):
    """A body that is not what its source promises."""


class _Stop(Exception):
    """Enough items read."""


class _Reader:
    """expat handlers that keep only the fields of item and entry elements."""

    def __init__(self) -> None:
        self.items: list[dict[str, str]] = []
        self._depth = 0
        self._item: dict[str, str] | None = None
        self._item_depth = 0
        self._field = ""
        self._text: list[str] = []
        self._length = 0
        self.root = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise FeedBroken(f"XML nested deeper than {DEPTH_MAX}")
        local = name.rpartition(" ")[2].lower()
        self.root = self.root or local
        if local in ("item", "entry") and self._item is None:
            self._item, self._item_depth = {}, self._depth
        elif self._item is not None and self._depth == self._item_depth + 1:
            self._field = _FIELDS.get(local, "")
            self._text, self._length = [], 0
            if local == "link" and attributes.get("href") and attributes.get("rel", "alternate") == "alternate":
                self._item.setdefault("link", attributes["href"][:FIELD_MAX])

    def end(self, name: str) -> None:
        if self._item is not None:
            if self._depth == self._item_depth:
                self.items.append(self._item)
                self._item = None
                if len(self.items) >= ITEMS_MAX:
                    raise _Stop
            elif self._depth == self._item_depth + 1 and self._field:
                if text := "".join(self._text).strip():
                    self._item.setdefault(self._field, text)
                self._field = ""
        self._depth -= 1

    def data(self, text: str) -> None:
        if self._field and self._length < FIELD_MAX:
            self._text.append(text[: FIELD_MAX - self._length])
            self._length += len(text)


def _refuse(*_: object) -> None:
    raise FeedBroken("XML with a document type or entities of its own")


def parse_xml(body: bytes, source: str, domain: str, at: int) -> list[Item]:
    """RSS 0.9x-2.0 and Atom. Raises FeedBroken on anything else: HTML, broken encodings, entity bombs."""
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = reader.start, reader.end, reader.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = parser.UnparsedEntityDeclHandler = _refuse
    parser.ExternalEntityRefHandler = lambda *_: 0
    try:
        parser.Parse(body, True)
    except _Stop:
        pass
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise FeedBroken(f"not XML: {one_line(str(error), 120)}") from None
    if reader.root not in ("rss", "feed", "rdf"):
        raise FeedBroken(f"not a feed but <{one_line(reader.root, 40)}>")
    return [item for fields in reader.items if (item := _item(fields, source, domain, at)) is not None]


def _item(fields: dict[str, str], source: str, domain: str, at: int) -> Item | None:
    title = one_line(fields.get("title", ""))
    if not title:
        return None
    guid = one_line(fields.get("guid") or fields.get("link") or title, NAME_MAX)
    return Item(at, source, domain, guid, title, moment(fields.get("date") or fields.get("updated") or ""))


def parse_cryptopanic(body: bytes, source: str, domain: str, at: int) -> list[Item]:
    """CryptoPanic posts, v1 and v2: the writer's domain and the coins come with each. Raises FeedBroken."""
    document = load_json(body)
    rows = document.get("results") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        raise FeedBroken("JSON without results")
    items = []
    for row in rows[:ITEMS_MAX]:
        if not isinstance(row, dict) or not isinstance(row.get("title"), str):
            continue
        title = one_line(row["title"], TITLE_MAX)
        origin = row.get("source")
        writer = row.get("domain") or (origin.get("domain") if isinstance(origin, dict) else None)
        coins = row.get("currencies", row.get("instruments"))
        codes = [coin["code"] for coin in coins if isinstance(coin, dict) and isinstance(coin.get("code"), str)] \
            if isinstance(coins, list) else []
        guid = str(row.get("id") or row.get("url") or title)
        if title:
            items.append(Item(at, source, (domain_of(str(writer)) if writer else "") or domain, one_line(guid, NAME_MAX), title,
                              moment(str(row.get("published_at") or "")), clean_codes(codes)))
    return items


def load_json(body: bytes) -> Any:
    """Raises FeedBroken; a wall of HTML is named as what it is."""
    try:
        return orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        start = body[:200].lstrip().lower()
        what = "HTML instead of JSON" if start.startswith((b"<!doctype", b"<html", b"<")) else f"not JSON: {one_line(str(error), 100)}"
        raise FeedBroken(what) from None


def moment(text: str) -> int | None:
    """UTC ms of an RFC 822 or ISO 8601 date; None for anything else, empty ones and absurd years. A date without zone counts as UTC."""
    text = text.strip()[:64]
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        try:
            found = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    if not _YEARS[0] <= found.year <= _YEARS[1]:
        return None
    return int((found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp() * 1000)


def domain_of(address: str) -> str:
    """The registrable-looking end of a host name: what counts as one writer. "" where there is none."""
    try:
        host = urlsplit(address if "//" in address else "//" + address).hostname or ""
    except ValueError:    # brackets that hold no address
        return ""
    parts = [part for part in one_line(host.lower(), 120).split(".") if part]
    short = len(parts) > 2 and len(parts[-2]) <= 3 and len(parts[-1]) == 2
    return ".".join(parts[-3:] if short else parts[-2:])


def changed(items: Sequence[Item], known: dict[str, str]) -> list[Item]:
    """Items not fetched before in this wording, oldest first; `known` (guid -> digest) is brought up to date."""
    fresh = []
    for item in reversed(items):
        digest = hashlib.sha256(item.title.encode()).hexdigest()[:16]
        if known.get(item.guid) != digest:
            known[item.guid] = digest
            fresh.append(item)
    while len(known) > 20 * ITEMS_MAX:
        known.pop(next(iter(known)))
    return fresh
