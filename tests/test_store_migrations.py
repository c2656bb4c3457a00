"""Journals of every released schema open; a newer one is refused and left alone; an upgrade happens whole or not at all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from modules.domain.errors import JournalCorrupt, JournalUnwritable, JournalVersion
from modules.domain.events import EntriesPaused, Scope
from modules.store import migrations
from modules.store.codec import to_json
from modules.store.journal import Journal
from modules.store.journal_file import OBJECTS, SCHEMA, SCHEMA_VERSION, intact_objects
from tests.builders import AT
from tests.journals import HERE, books, unpacked

RELEASED = range(1, SCHEMA_VERSION + 1)


def stated(schema: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / f"schema_{schema}.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("schema", RELEASED)
@pytest.mark.parametrize("read_only", [True, False], ids=["looked at", "opened"])
def test_the_story_of_a_released_schema_replays_to_the_books_it_had(tmp_path: Path, schema: int, read_only: bool) -> None:
    path, story = unpacked(f"schema_{schema}_story", tmp_path), stated(schema)["story"]
    with Journal(path, read_only=read_only) as journal:
        assert journal.verify() == story["rows"] and journal.head == story["head"]
        assert books(journal) == story["books"]
        if not read_only:
            journal.append(EntriesPaused(AT, Scope.SPOT, "after the upgrade"))
    with Journal(path, read_only=True) as journal:
        assert journal.verify() == story["rows"] + (not read_only)


@pytest.mark.parametrize("schema", RELEASED)
def test_every_kind_of_fact_of_a_released_schema_reads_as_it_was_written(tmp_path: Path, schema: int) -> None:
    """A field may be added with a default since; none may be lost or read differently."""
    path, kinds = unpacked(f"schema_{schema}_kinds", tmp_path), stated(schema)["kinds"]
    with Journal(path, read_only=True) as journal:
        journal.verify()
        assert journal.head == kinds["head"]
        for (_, fact), was in zip(journal.facts(), kinds["facts"], strict=True):
            assert _within(was, to_json(fact)), type(fact).__name__


def _within(was: Any, now: Any) -> bool:
    if isinstance(was, dict):
        return isinstance(now, dict) and all(key in now and _within(value, now[key]) for key, value in was.items())
    return bool(was == now)


def test_a_journal_of_a_newer_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = unpacked("schema_1_story", tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE meta SET value = ?", (str(SCHEMA_VERSION + 1),))
    before = path.read_bytes()
    for read_only in (True, False):
        with pytest.raises(JournalVersion, match=r"a newer version wrote it. .* Nothing was changed"):
            Journal(path, read_only=read_only)
    assert path.read_bytes() == before


# -- how a step will be taken: with two schemas of this test's own ----------------------------------------------------------

NOTED: Final = """
CREATE TABLE facts_2 (
    seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, payload TEXT NOT NULL, hash BLOB NOT NULL, note TEXT
);
INSERT INTO facts_2 SELECT seq, at, kind, payload, hash, NULL FROM facts;
DROP TRIGGER facts_never_go;
DROP TABLE facts;
ALTER TABLE facts_2 RENAME TO facts;
CREATE TRIGGER facts_never_go BEFORE DELETE ON facts BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
"""
NAMED: Final = "CREATE TABLE names (name TEXT);"
STEPS: Final[Mapping[int, str]] = {1: NOTED, 2: NAMED}


def opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def test_every_step_between_is_taken_and_no_row_or_hash_is_touched(tmp_path: Path) -> None:
    path = unpacked("schema_1_story", tmp_path)
    with closing(opened(path)) as connection:
        rows = connection.execute("SELECT seq, at, kind, payload, hash FROM facts").fetchall()
        copied: list[str] = []
        migrations.bring_up(connection, 1, 3, STEPS, before=lambda: copied.append("copied"))
        assert copied == ["copied"]
        assert connection.execute("SELECT seq, at, kind, payload, hash FROM facts").fetchall() == rows
        assert connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone() == ("3",)
        assert connection.execute("SELECT count(*) FROM names").fetchone() == (0,)


@pytest.mark.parametrize("broken", ["INSERT INTO nowhere VALUES (1);", "CREATE TABLE facts (seq INTEGER);"])
def test_a_step_that_fails_leaves_the_journal_of_the_old_program(tmp_path: Path, broken: str) -> None:
    path = unpacked("schema_1_story", tmp_path)
    with closing(opened(path)) as connection, pytest.raises(sqlite3.OperationalError):
        migrations.bring_up(connection, 1, 3, {1: NOTED, 2: NAMED + broken})
    with Journal(path, read_only=True) as journal:
        assert journal.verify() == stated(1)["story"]["rows"]


def test_without_its_copy_nothing_is_upgraded(tmp_path: Path) -> None:
    def no_room() -> None:
        raise JournalUnwritable("no room for the copy")

    path = unpacked("schema_1_story", tmp_path)
    with closing(opened(path)) as connection, pytest.raises(JournalUnwritable, match="no room"):
        migrations.bring_up(connection, 1, 3, STEPS, before=no_room)
    with Journal(path, read_only=True) as journal:
        journal.verify()


def test_a_gap_between_the_schemas_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalVersion, match="no way from schema 2 to 3"):
        migrations.check(1, 4, {1: NOTED, 3: NAMED})


def test_a_step_ends_where_a_new_journal_begins() -> None:
    """What the shipped steps make of schema 1 is, word for word, what this program creates."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.text_factory = bytes
        connection.executescript(SCHEMA if SCHEMA_VERSION == 1 else (HERE / "schema_1_story.sql").read_text(encoding="utf-8"))
        migrations.bring_up(connection, 1, SCHEMA_VERSION)
        assert connection.execute(OBJECTS).fetchall() == intact_objects()


def test_a_schema_number_that_is_none_is_damage(tmp_path: Path) -> None:
    for value in ("", "01", "one", "-1", "1.0"):
        folder = tmp_path / f"n{value}"
        folder.mkdir()
        path = unpacked("schema_1_story", folder)
        with closing(opened(path)) as connection:
            connection.execute("UPDATE meta SET value = ?", (value,))
        with pytest.raises(JournalCorrupt, match="schema's number"):
            Journal(path)
