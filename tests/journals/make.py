"""Freezes the present schema: `python -m tests.journals.make`. To be run before the release of a schema, not after."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import tempfile
import types
from contextlib import closing
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from modules.cli.app import run
from modules.domain.events import Fact
from modules.domain.instrument import AssetClass
from modules.store.codec import to_json
from modules.store.journal import Journal
from modules.store.journal_file import SCHEMA_VERSION
from tests.journals import HERE, books

ROWS = 400
PLAIN: dict[Any, Any] = {str: "text", int: 1_767_614_400_000, float: 0.25, bool: True, Decimal: Decimal("12.5"), types.NoneType: None}


def example(declared: Any, name: str = "") -> Any:
    """A value that a field declared so may hold, with its name in it where it is text."""
    if declared is str:
        return name or "text"
    if declared in PLAIN:
        return PLAIN[declared]
    origin, inside = get_origin(declared), get_args(declared)
    if origin in (Union, types.UnionType):
        return example(inside[0], name)
    if origin is tuple:
        return (example(inside[0], name),) if inside[-1] is Ellipsis else tuple(example(each, name) for each in inside)
    if origin is dict:
        return {example(inside[0], name): example(inside[1], name)}
    if issubclass(declared, Enum):
        return next(iter(declared))
    hints = get_type_hints(declared)
    return declared(**{field.name: example(hints[field.name], field.name) for field in dataclasses.fields(declared)})


def dump(path: Path, target: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        target.write_text("\n".join(connection.iterdump()) + "\n", encoding="utf-8")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assert run(["demo", "--days", "2", "--seed", "7", "--state", str(folder / "state")]) == 0
        with Journal(folder / "state" / "journal.sqlite", read_only=True) as whole, Journal(folder / "story.sqlite") as story:
            for seq, fact in whole.facts():
                if seq <= ROWS:
                    story.append(fact)
        with Journal(folder / "kinds.sqlite") as kinds:
            for kind in get_args(Fact):
                kinds.append(example(kind))
            told = [to_json(fact) for _, fact in kinds.facts()]
            head = kinds.head
        with Journal(folder / "story.sqlite", read_only=True) as story:
            stated = {"kinds": {"head": head, "facts": told}, "story": {"head": story.head, "rows": story.count, "books": books(story)}}
        dump(folder / "story.sqlite", HERE / f"schema_{SCHEMA_VERSION}_story.sql")
        dump(folder / "kinds.sqlite", HERE / f"schema_{SCHEMA_VERSION}_kinds.sql")
        (HERE / f"schema_{SCHEMA_VERSION}.json").write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")
    print(f"froze schema {SCHEMA_VERSION}: {len(told)} kinds, {ROWS} rows of {len(AssetClass)} classes")


if __name__ == "__main__":
    main()
