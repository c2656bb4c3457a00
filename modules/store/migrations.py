"""Brings a journal of an older released schema up to the present one. Owns the steps; refuses a journal of a newer program.

A step is a script that takes the file from one schema to the next. All steps run in one transaction, after a verified copy of the file was
put beside it (`journal.sqlite.schema-1`), and must leave every row and its hash as they are: the chain is checked before and after. What is
only looked at is never changed: it is brought up to date in memory. Facts of old rows need no step; store/codec fills what they lack.

Rules for whoever adds a step: never change an old one; create tables anew instead of altering them, so that the result is what a new
journal has, word for word (`intact_objects` compares it); keep a sample of the schema that ends with it in tests/journals.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Final

from modules.domain.errors import JournalVersion

STEPS: Final[Mapping[int, str]] = {}
"""Schema number -> the script that makes the next one of it. There has been one schema so far."""


def check(found: int, present: int, steps: Mapping[int, str] = STEPS) -> bool:
    """Whether a journal of schema `found` must be brought up to `present`. Raises JournalVersion for one that cannot be."""
    if found > present:
        raise JournalVersion(
            f"it is of schema {found}, this program knows schemas up to {present}: a newer version wrote it. Run that version again, or "
            "restore the backup that was taken before the upgrade")
    if missing := [number for number in range(found, present) if number not in steps]:
        raise JournalVersion(f"it is of schema {found}, and there is no way from schema {missing[0]} to {missing[0] + 1}")
    return found < present


def bring_up(connection: sqlite3.Connection, found: int, present: int, steps: Mapping[int, str] = STEPS,
             before: Callable[[], None] | None = None) -> None:
    """Run every step from `found` to `present`: all of them or none. `before` makes the copy; if it raises, nothing is changed."""
    if not check(found, present, steps):
        return
    if before is not None:
        before()
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number in range(found, present):
            for statement in statements(steps[number]):
                connection.execute(statement)
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(present),))
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def statements(script: str) -> list[str]:
    """The statements of a script one by one: executescript would end the transaction they must share."""
    found, begun = [], ""
    for piece in script.split(";")[:-1]:
        begun += f"{piece};"
        if sqlite3.complete_statement(begun):    # not inside a trigger or a text
            found.append(begun.strip())
            begun = ""
    begun += script.rpartition(";")[2]
    if begun.strip():
        raise ValueError(f"an unfinished statement: {begun.strip()[:60]}")
    return found


__all__ = ["STEPS", "bring_up", "check", "statements"]
