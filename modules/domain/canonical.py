"""One text for one state, so that two ways of reaching it (live and replay) can be compared by a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal

from modules.domain.money import text


def digest(state: object) -> str:
    """sha256, hex, over plain values, dataclasses, mappings, sets and sequences of them. 1.0 and 1.00 are one number; the order in which
    a mapping or a set was filled does not matter, that of a sequence does."""
    return hashlib.sha256("\n".join(_lines("", state)).encode()).hexdigest()


def _lines(path: str, value: object) -> Iterator[str]:
    """One line per leaf."""
    if isinstance(value, Decimal):
        yield f"{path}={text(value.normalize()) if value else '0'}"
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from _lines(f"{path}.{key}", value[key])
    elif isinstance(value, set | frozenset):
        yield f"{path}={sorted(map(str, value))}"
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _lines(f"{path}.{index}", item)
    elif is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            yield from _lines(f"{path}.{each.name}", getattr(value, each.name))
    else:
        yield f"{path}={value!r}"
