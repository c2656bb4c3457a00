"""The journal loses nothing it said it has, tells everyone in order, and never hands out facts other than those that were written."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from modules.domain import events
from modules.domain.errors import ConfigurationError, JournalBusy, JournalCorrupt, JournalUnwritable, NotFound, StateLocked
from modules.domain.events import Fact
from modules.domain.instrument import AssetClass
from modules.runtime import failpoint
from modules.store.journal import Journal
from modules.store.lock import StateFolder

REPOSITORY = Path(__file__).resolve().parents[1]


def fact(number: int) -> Fact:
    """The `number`-th fact of a story; every kind of value in it, and long enough to need several pages soon."""
    match number % 4:
        case 0:
            return events.TransferSeen(number, AssetClass.SPOT, Decimal(number) / 8, Decimal(0), f"transfer-{number}")
        case 1:
            return events.OrderRejected(number, f"tb{number:026d}", "-2010", "Account has insufficient balance. " * (number % 5))
        case 2:
            return events.FundingBooked(number, "bybit", "ETH/USDT", AssetClass.PERP, Decimal(-number) / 1000, number / 7, f"f{number}")
        case _:
            return events.BlackoutOpened(number, "CPI", number + 1, number + 2, ("SPOT", "PERP"))


def story(count: int) -> list[Fact]:
    return [fact(number) for number in range(count)]


def write(path: Path, count: int) -> list[Fact]:
    with Journal(path, durable=False) as journal:
        for one in story(count):
            journal.append(one)
    return story(count)


def read(path: Path) -> list[Fact]:
    """Everything a restart would believe."""
    seen: list[Fact] = []
    with Journal(path, durable=False) as journal:
        journal.project(seen.append)
        journal.replay()
    return seen


class Ledger:
    """A toy projection: transfers and funding add up, everything is counted."""

    def __init__(self) -> None:
        self.cash = Decimal(0)
        self.kinds: Counter[str] = Counter()

    def apply(self, one: Fact) -> None:
        self.kinds[type(one).__name__] += 1
        if isinstance(one, events.TransferSeen | events.FundingBooked):
            self.cash += one.amount


# -- keeping -----------------------------------------------------------------------------------------------------------


def test_facts_come_back_in_order_with_their_sequence_numbers(tmp_path: Path) -> None:
    written = write(tmp_path / "journal.sqlite", 20)
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert list(journal.facts()) == list(enumerate(written, start=1))
        assert list(journal.facts(since=17)) == list(enumerate(written, start=1))[17:]
        assert list(journal.facts(since=20)) == list(journal.facts(since=99)) == []
        assert journal.count == 20
        assert journal.verify() == 20
        assert journal.append(fact(20)) == 21


def test_durable_not_durable_and_in_memory_journals_of_the_same_facts_have_the_same_head(tmp_path: Path) -> None:
    journals = [Journal(None), Journal(tmp_path / "a.sqlite"), Journal(tmp_path / "b.sqlite", durable=False)]
    for journal in journals:
        for one in story(30):
            journal.append(one)
        assert [found for _, found in journal.facts()] == story(30)
    assert len({journal.head for journal in journals}) == 1
    assert len(journals[0].head) == 64
    for journal in journals:
        journal.close()
        journal.close()
    with Journal(tmp_path / "a.sqlite") as again:
        assert again.head == journals[0].head


def test_an_append_is_on_disk_before_it_returns(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.append(fact(1))
        with Journal(path, read_only=True) as onlooker:
            assert [one for _, one in onlooker.facts()] == [fact(1)]


def test_a_journal_that_is_not_durable_is_written_in_batches_and_at_flush(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"

    def on_disk() -> int:
        with Journal(path, read_only=True) as onlooker:
            return onlooker.count

    with Journal(path, durable=False) as journal:
        for number in range(5_003):
            journal.append(fact(number))
        assert on_disk() == 5_000
        journal.flush()
        assert on_disk() == 5_003


def test_facts_may_be_appended_while_others_are_being_read(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        for one in story(5):
            journal.append(one)
        for seq, one in journal.facts():
            if seq <= 3:
                journal.append(one)
        assert journal.verify() == 8


def test_replay_gives_the_projections_the_state_they_had(tmp_path: Path) -> None:
    live = Ledger()
    with Journal(tmp_path / "journal.sqlite", durable=False) as journal:
        journal.project(live.apply)
        for one in story(6_000):  # more than one batch and several pages
            journal.append(one)
        beside = Ledger()
        assert journal.rebuild([beside.apply]) == 6_000
    rebuilt = Ledger()
    with Journal(tmp_path / "journal.sqlite") as journal:
        journal.project(rebuilt.apply)
        journal.react(lambda one: pytest.fail("reactors are silent in replay"))
        assert journal.replay() == 6_000
    assert vars(rebuilt) == vars(live) == vars(beside)
    assert live.cash != 0


def test_a_journal_can_be_looked_at_but_not_written_read_only(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Journal(tmp_path / "journal.sqlite", read_only=True)
    write(tmp_path / "journal.sqlite", 3)
    with Journal(tmp_path / "journal.sqlite", read_only=True) as journal:
        assert journal.replay() == 3
        with pytest.raises(JournalUnwritable, match="read-only"):
            journal.append(fact(3))


def test_a_backup_taken_in_use_is_a_whole_journal(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        for one in story(50):
            journal.append(one)
        assert journal.backup(tmp_path / "backup.sqlite") == 50
        journal.append(fact(50))
        with pytest.raises(FileExistsError):
            journal.backup(tmp_path / "backup.sqlite")
    assert read(tmp_path / "backup.sqlite") == story(50)


# -- telling -----------------------------------------------------------------------------------------------------------


def test_projections_hear_a_fact_in_registration_order_before_any_reactor_and_nested_facts_wait_their_turn() -> None:
    journal = Journal(None)
    heard: list[tuple[str, int]] = []

    def chain(one: Fact) -> None:
        heard.append(("chain", one.at))
        if one.at in (0, 1):
            journal.append(fact(one.at + 1))
            heard.append(("chain appended", one.at + 1))
        if one.at == 0:
            journal.append(fact(10))

    journal.project(lambda one: heard.append(("books", one.at)))
    journal.project(lambda one: heard.append(("funds", one.at)))
    journal.react(chain)
    journal.react(lambda one: heard.append(("notify", one.at)))
    journal.append(fact(0))
    assert heard == [
        ("books", 0), ("funds", 0),
        ("chain", 0), ("books", 1), ("funds", 1), ("chain appended", 1), ("books", 10), ("funds", 10), ("notify", 0),
        ("chain", 1), ("books", 2), ("funds", 2), ("chain appended", 2), ("notify", 1),
        ("chain", 10), ("notify", 10),
        ("chain", 2), ("notify", 2),
    ]  # fmt: skip
    assert [one.at for _, one in journal.facts()] == [0, 1, 10, 2]


def test_a_projection_that_appends_is_refused_and_the_journal_takes_nothing_more() -> None:
    journal = Journal(None)

    def meddle(one: Fact) -> None:
        journal.append(fact(99))

    journal.project(meddle)
    with pytest.raises(RuntimeError, match="inside a projection"):
        journal.append(fact(0))
    with pytest.raises(JournalUnwritable, match="restart"):
        journal.append(fact(1))
    assert [one for _, one in journal.facts()] == [fact(0)]


def test_after_a_reactor_failed_nothing_more_is_taken_until_a_restart() -> None:
    journal = Journal(None)

    def fail(one: Fact) -> None:
        raise ZeroDivisionError

    journal.react(fail)
    with pytest.raises(ZeroDivisionError):
        journal.append(fact(0))
    with pytest.raises(JournalUnwritable, match="TransferSeen"):
        journal.append(fact(1))


def test_a_projection_can_neither_miss_facts_nor_see_them_twice(tmp_path: Path) -> None:
    write(tmp_path / "journal.sqlite", 5)
    journal = Journal(tmp_path / "journal.sqlite")
    ledger = Ledger()
    journal.project(ledger.apply)
    with pytest.raises(RuntimeError, match="append before replay"):
        journal.append(fact(5))
    journal.replay()
    with pytest.raises(RuntimeError, match="already hold"):
        journal.replay()
    with pytest.raises(RuntimeError, match="missed 5 facts"):
        journal.project(Ledger().apply)
    assert ledger.kinds.total() == 5
    journal.close()


def test_a_fact_that_would_not_read_back_is_neither_written_nor_told() -> None:
    journal = Journal(None)
    ledger = Ledger()
    journal.project(ledger.apply)
    with pytest.raises(ValueError, match="finite"):
        journal.append(events.PeakRaised(1, AssetClass.SPOT, Decimal("NaN")))
    assert journal.count == 0
    assert not ledger.kinds
    assert journal.append(fact(0)) == 1


# -- tampering and decay -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def broken_into(path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody who knows how to take the triggers off and puts them back as they were."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    yield connection
    for _, definition in triggers:
        connection.execute(definition)
    connection.close()


def test_sqlite_itself_refuses_to_change_delete_or_squeeze_in_a_row(tmp_path: Path) -> None:
    write(tmp_path / "journal.sqlite", 5)
    connection = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    for statement in (
        "UPDATE facts SET at = 0 WHERE seq = 2",
        "DELETE FROM facts WHERE seq = 5",
        "INSERT OR REPLACE INTO facts VALUES (3, 1, 'PeakRaised', '{}', x'00')",
        "INSERT INTO facts VALUES (9, 1, 'PeakRaised', '{}', x'00')",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(statement)
    connection.close()
    assert read(tmp_path / "journal.sqlite") == story(5)


def test_any_single_changed_byte_of_any_row_is_found_and_the_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    write(path, 4)
    pristine = path.read_bytes()
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT seq, at, kind, payload, hash FROM facts").fetchall()
    connection.close()
    changes: list[tuple[int, str, object]] = []
    for seq, at, kind, payload, link in rows:
        changes += [(seq, "at", at ^ (1 << bit)) for bit in range(0, 40, 7)]
        for column, content in (("kind", kind.encode()), ("payload", payload.encode()), ("hash", link)):
            for position in range(len(content)):
                changed = bytearray(content)
                changed[position] ^= 1 << (position % 7)
                changes.append((seq, column, bytes(changed) if column == "hash" else changed.decode()))
    assert len(changes) > 500
    for seq, column, value in changes:
        path.write_bytes(pristine)
        with broken_into(path) as connection:
            connection.execute(f"UPDATE facts SET {column} = ? WHERE seq = ?", (value, seq))
        with pytest.raises(JournalCorrupt, match=f"row {seq}.*restore the last backup"):
            read(path)


def test_a_pause_turned_into_a_resume_is_found(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.append(events.EntriesPaused(1, events.Scope.ALL, "telegram:1"))
        journal.append(fact(1))
    with broken_into(path) as connection:
        connection.execute("UPDATE facts SET kind = 'EntriesResumed' WHERE seq = 1")
    with pytest.raises(JournalCorrupt, match="row 1: the hash chain"):
        read(path)


def test_a_row_rewritten_together_with_its_hash_is_found_because_the_next_row_knows_better(tmp_path: Path) -> None:
    path, other = tmp_path / "journal.sqlite", tmp_path / "other.sqlite"
    write(path, 6)
    with Journal(other, durable=False) as forged:
        for one in [*story(2), events.TransferSeen(2, AssetClass.SPOT, Decimal(1_000_000), Decimal(0), "gift")]:
            forged.append(one)
    with sqlite3.connect(other) as connection:
        row = connection.execute("SELECT at, kind, payload, hash FROM facts WHERE seq = 3").fetchone()
    connection.close()
    with broken_into(path) as connection:
        connection.execute("UPDATE facts SET at = ?, kind = ?, payload = ?, hash = ? WHERE seq = 3", row)
    with pytest.raises(JournalCorrupt, match="row 4: the hash chain"):
        read(path)


@pytest.mark.parametrize(
    "break_in",
    [
        "DELETE FROM facts WHERE seq = 3",
        "DELETE FROM facts WHERE seq = 5",
        "DELETE FROM facts",
        "UPDATE facts SET seq = seq + 10 WHERE seq > 3",
        "UPDATE facts SET payload = CAST(payload AS BLOB) || x'20' WHERE seq = 5",
        "UPDATE facts SET at = 'noon' WHERE seq = 2",
        "UPDATE head SET seq = 4, hash = (SELECT hash FROM facts WHERE seq = 4)",
        "DELETE FROM head",
        "UPDATE meta SET value = 'two'",
        "DELETE FROM meta",
        "CREATE TRIGGER swallow BEFORE INSERT ON facts BEGIN SELECT RAISE(IGNORE); END",
        "DROP TABLE facts",
    ],
)
def test_rows_removed_moved_or_malformed_and_a_changed_schema_are_found(tmp_path: Path, break_in: str) -> None:
    path = tmp_path / "journal.sqlite"
    write(path, 5)
    with contextlib.suppress(sqlite3.OperationalError), broken_into(path) as connection:
        connection.execute(break_in)
    with pytest.raises(JournalCorrupt, match="restore the last backup"):
        read(path)


def test_a_missing_trigger_is_found(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    write(path, 5)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TRIGGER facts_never_change")
    connection.close()
    with pytest.raises(JournalCorrupt, match="triggers"):
        read(path)


def test_a_removed_row_is_called_missing(tmp_path: Path) -> None:
    write(tmp_path / "journal.sqlite", 5)
    with broken_into(tmp_path / "journal.sqlite") as connection:
        connection.execute("DELETE FROM facts WHERE seq = 3")
    with pytest.raises(JournalCorrupt, match="row 3: the row is missing"):
        read(tmp_path / "journal.sqlite")


def test_a_last_row_removed_or_replaced_while_the_journal_is_open_is_found_by_verify(tmp_path: Path) -> None:
    path, other = tmp_path / "journal.sqlite", tmp_path / "other.sqlite"
    with Journal(other, durable=False) as forged:
        for one in [*story(2), events.FeedRestored(2, "BTC/USDT")]:
            forged.append(one)
    with sqlite3.connect(other) as connection:
        row = connection.execute("SELECT at, kind, payload, hash FROM facts WHERE seq = 3").fetchone()
    connection.close()
    journal = Journal(path)
    for one in story(3):
        journal.append(one)
    with broken_into(path) as connection:
        connection.execute("UPDATE facts SET at = ?, kind = ?, payload = ?, hash = ? WHERE seq = 3", row)
        connection.execute("UPDATE head SET hash = ?", row[-1:])
    with pytest.raises(JournalCorrupt, match="row 3: the last row is not the one"):
        journal.verify()
    with broken_into(path) as connection:
        connection.execute("DELETE FROM facts WHERE seq = 3")
    with pytest.raises(JournalCorrupt, match="row 3: the row is missing"):
        journal.verify()
    journal.close()


def test_a_journal_whose_main_file_is_gone_is_not_begun_anew_over_its_log(tmp_path: Path) -> None:
    live = Journal(tmp_path / "journal.sqlite")
    live.append(fact(0))
    lost = tmp_path / "lost"
    lost.mkdir()
    shutil.copy(tmp_path / "journal.sqlite-wal", lost / "journal.sqlite-wal")
    live.close()
    with pytest.raises(JournalCorrupt, match="write-ahead log"):
        Journal(lost / "journal.sqlite")


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 300])
def test_a_file_that_is_no_journal_is_refused_instead_of_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(content)
    with pytest.raises(JournalCorrupt):
        Journal(path)
    assert path.read_bytes() == content


def test_a_truncated_log_leaves_a_prefix_whatever_the_place_200_times(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    live = Journal(path)
    for one in story(300):  # most of the log that is kept for them, and not yet enough to begin it anew
        live.append(one)
    main, log = path.read_bytes(), (tmp_path / "journal.sqlite-wal").read_bytes()
    live.close()
    damaged = tmp_path / "damaged" / "journal.sqlite"
    damaged.parent.mkdir()
    lengths = set()
    places = random.Random(11).sample(range(len(log) + 1), 198)
    for place in [0, len(log), *places]:
        for old in damaged.parent.iterdir():
            old.unlink()
        damaged.write_bytes(main)
        (damaged.parent / "journal.sqlite-wal").write_bytes(log[:place])
        found = read(damaged)
        assert found == story(len(found))
        lengths.add(len(found))
        with Journal(damaged, durable=False) as journal:
            journal.append(fact(len(found)))
            assert journal.verify() == len(found) + 1
    assert {0, 300} <= lengths
    assert len(lengths) > 80


def test_damage_that_sqlite_itself_cannot_spell_is_corruption_too(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    write(path, 3)
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE facts", b"CREATE\xa0TABLE facts"))
    with pytest.raises(JournalCorrupt, match="restore the last backup"):
        read(path)


def flips(size: int, times: int) -> Iterator[tuple[int, int]]:
    source = random.Random(5)
    for time_ in range(times):
        # The first 128 bytes, where one bit says what kind of file this is, deserve more than their share.
        yield (source.randrange(128) if time_ % 4 == 0 else source.randrange(size)), source.randrange(8)


def test_a_flipped_bit_anywhere_in_the_file_is_an_error_or_changes_nothing_100_times(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    written = write(path, 300)
    pristine = path.read_bytes()
    refused = 0
    for place, bit in flips(len(pristine), 100):
        flipped = bytearray(pristine)
        flipped[place] ^= 1 << bit
        for suffix in ("", "-wal", "-shm"):
            (tmp_path / f"journal.sqlite{suffix}").unlink(missing_ok=True)
        path.write_bytes(flipped)
        try:
            found = read(path)
        except (JournalCorrupt, JournalUnwritable):
            refused += 1
        else:
            assert found == written, f"bit {bit} of byte {place} went unnoticed"
    assert refused > 50


# -- storage faults ----------------------------------------------------------------------------------------------------


def test_while_another_program_holds_the_journal_an_append_fails_by_name_and_nothing_is_lost_or_reordered(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    ledger = Ledger()
    with Journal(path, busy_timeout_s=0.05) as journal:
        journal.project(ledger.apply)
        journal.append(fact(0))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            with pytest.raises(JournalBusy, match="locked"):
                journal.append(fact(1))
        assert journal.count == 1
        assert ledger.kinds.total() == 1
        other.execute("ROLLBACK")
        other.close()
        assert journal.append(fact(1)) == 2
    assert read(path) == story(2)


def test_an_append_waits_for_a_lock_that_is_let_go_in_time(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    script = (
        "import sqlite3, sys, time\n"
        f"c = sqlite3.connect({str(path)!r}, isolation_level=None)\n"
        "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); time.sleep(0.3); c.execute('ROLLBACK')\n"
    )
    with Journal(path, busy_timeout_s=10.0) as journal, subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert journal.append(fact(0)) == 1


def test_a_second_writer_is_noticed_before_its_rows_and_ours_mix(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as first, Journal(path) as second:
        first.append(fact(0))
        with pytest.raises(JournalCorrupt, match="another program wrote"):
            second.append(fact(1))
        with pytest.raises(JournalUnwritable):
            second.append(fact(1))
        first.append(fact(1))
    assert read(path) == story(2)


def test_a_full_disk_fails_by_name_leaves_the_books_alone_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    ledger = Ledger()
    with Journal(path, reserve_bytes=0) as journal:
        journal.project(ledger.apply)
        # sqlite says exactly the same to a database that may not grow as to a disk that cannot take it.
        pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
        journal._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(JournalUnwritable, match="disk is full"):
            for one in story(100):
                journal.append(one)
        taken = journal.count
        assert 0 < taken < 100
        assert ledger.kinds.total() == taken
        assert journal.low_space
        journal._connection.execute("PRAGMA max_page_count = 1000000")
        journal.append(fact(taken))
    assert read(path) == story(taken + 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte, where this test run may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("cannot mount a file system here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_on_a_full_disk_the_reserve_still_takes_the_exits(small_disk: Path) -> None:
    path = small_disk / "journal.sqlite"
    ledger = Ledger()
    with Journal(path, reserve_bytes=512 * 1024) as journal:
        journal.project(ledger.apply)
        assert (small_disk / "reserve").stat().st_size == 512 * 1024
        number = 0
        while not journal.low_space:
            journal.append(fact(number))
            number += 1
        assert not (small_disk / "reserve").exists()
        room_for_exits = 0
        with pytest.raises(JournalUnwritable, match="disk is full"):
            while True:
                journal.append(fact(number))
                number += 1
                room_for_exits += 1
        assert room_for_exits >= 20
        assert ledger.kinds.total() == journal.count == number
    assert read(path) == story(number)


def test_the_reserve_is_taken_again_when_there_is_plenty_of_room(small_disk: Path) -> None:
    with Journal(small_disk / "journal.sqlite", reserve_bytes=64 * 1024) as journal:
        assert not journal.regain_space(), "nothing is low"
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        number = 0
        while not journal.low_space:
            journal.append(fact(number))
            number += 1
        assert not journal.regain_space(), "what was just given up is not plenty"
        ballast.unlink()
        assert journal.regain_space() and not journal.low_space
        assert (small_disk / "reserve").stat().st_size == 64 * 1024
        journal.append(fact(number))
    assert read(small_disk / "journal.sqlite") == story(number + 1)


def test_a_disk_without_room_for_the_reserve_is_low_from_the_start(small_disk: Path) -> None:
    with Journal(small_disk / "journal.sqlite") as journal:
        assert journal.low_space
        assert not (small_disk / "reserve").exists()
        assert journal.append(fact(0)) == 1


APPENDER = """
import os, sys
from pathlib import Path
from modules.domain.events import OperatorCommand
from modules.runtime import failpoint
from modules.store.journal import Journal
with Journal(Path(sys.argv[1]), reserve_bytes=0) as journal:
    journal.replay()
    while True:
        number = journal.count
        os.write(1, b"%d\\n" % journal.append(OperatorCommand(number, "pause", "SPOT" * (number % 50), f"telegram:{number}")))
"""


def test_kill_9_at_any_moment_leaves_every_returned_append_and_nothing_torn(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    moments = random.Random(3)
    before = 0
    for _ in range(6):
        child = subprocess.Popen([sys.executable, "-c", APPENDER, str(path)], stdout=subprocess.PIPE, cwd=REPOSITORY)
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(moments.uniform(0.0, 0.15))
        child.send_signal(signal.SIGKILL)
        # The last line may be cut short by the kill: only whole ones were said.
        said = [line for line in (first + child.stdout.read()).splitlines(keepends=True) if line.endswith(b"\n")]
        child.wait()
        child.stdout.close()
        found = read(path)
        assert found == [events.OperatorCommand(n, "pause", "SPOT" * (n % 50), f"telegram:{n}") for n in range(len(found))]
        assert int(said[-1]) <= len(found) <= int(said[-1]) + 1, "an append that returned is gone, or one that nobody made is there"
        assert len(found) > before
        before = len(found)


# -- the state folder ----------------------------------------------------------------------------------------------------


def test_the_state_folder_is_made_closed_to_others(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "deep" / "state") as state:
        assert state.path.stat().st_mode & 0o777 == 0o700
        assert state.journal.parent == state.path
        assert state.halt_file.name == "HALT"
    (tmp_path / "open").mkdir(mode=0o755)
    with StateFolder(tmp_path / "open") as state:
        assert state.path.stat().st_mode & 0o777 == 0o700


def test_a_second_daemon_on_the_same_state_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    script = "import sys, time; from pathlib import Path; from modules.store.lock import StateFolder\n"
    script += "state = StateFolder(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    owner = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "state")], stdout=subprocess.PIPE, cwd=REPOSITORY)
    assert owner.stdout is not None
    owner.stdout.readline()
    with pytest.raises(StateLocked, match=f"process {owner.pid}:"):
        StateFolder(tmp_path / "state")
    owner.kill()  # however it ends, the lock goes with it
    owner.wait()
    owner.stdout.close()
    with StateFolder(tmp_path / "state"), pytest.raises(StateLocked, match=f"process {os.getpid()}:"):
        StateFolder(tmp_path / "state")
    StateFolder(tmp_path / "state").close()


def test_a_state_folder_that_is_a_file_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(ConfigurationError, match="must be a folder"):
        StateFolder(tmp_path / "state")


def test_a_lock_that_is_a_link_to_somewhere_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError):
        StateFolder(tmp_path / "state")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_state_folder_of_another_user_is_a_configuration_error_that_says_whose(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 4711, 4711)
    with pytest.raises(ConfigurationError, match="belongs to user 4711"):
        StateFolder(tmp_path / "state")


def test_a_read_only_state_folder_is_a_configuration_error(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        disk = tmp_path / "state"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", disk], capture_output=True).returncode:
            pytest.skip("root may write everywhere and cannot mount here")
        try:
            with pytest.raises(ConfigurationError, match="can write to"):
                StateFolder(disk)
        finally:
            subprocess.run(["umount", "-l", disk], check=True)
        return
    (tmp_path / "sealed").mkdir(mode=0o500)
    with pytest.raises(ConfigurationError, match="can write to"):
        StateFolder(tmp_path / "sealed" / "state")


# -- facts that happen together ------------------------------------------------------------------------------------------------


def test_facts_that_happen_together_are_told_one_after_the_other_and_acted_on_when_all_are_known(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    with Journal(tmp_path / "journal.sqlite") as journal:
        journal.project(lambda fact: told.append(("projected", fact.at)))
        journal.react(lambda fact: told.append(("acted", fact.at)))
        together = [fact(number) for number in range(3)]
        assert journal.append_all(together) == 3
        times = [one.at for one in together]
        assert told == [*(("projected", at) for at in times), *(("acted", at) for at in times)]
        assert journal.verify() == 3
    assert read(tmp_path / "journal.sqlite") == together


def test_of_facts_that_happen_together_none_has_happened_if_the_commit_did_not(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        journal.append(fact(0))
        head = journal.head
        failpoint.arm("journal.uncommitted:raise")
        with pytest.raises(failpoint.FailpointRaised):
            journal.append_all([fact(1), fact(2)])
        assert journal.count == 1 and journal.head == head
        journal.append_all([fact(1), fact(2)])
        assert journal.verify() == 3


def test_of_facts_that_happen_together_none_is_written_if_one_of_them_cannot_be(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        with pytest.raises(TypeError):
            journal.append_all([fact(0), replace(fact(1), at="now")])  # type: ignore[arg-type]
        assert journal.count == 0 and list(journal.facts()) == []


def test_the_log_never_has_to_grow(tmp_path: Path) -> None:
    """A commit that makes the file longer waits twice as long."""
    disk = os.statvfs(tmp_path)
    if disk.f_bavail * disk.f_frsize < 1 << 28:
        pytest.skip("needs 256 MB of free disk")
    with Journal(tmp_path / "journal.sqlite") as journal:
        size = (tmp_path / "journal.sqlite-wal").stat().st_size
        assert size > 4_000_000
        for number in range(1_200):
            journal.append(fact(number))
        assert (tmp_path / "journal.sqlite-wal").stat().st_size == size
        assert journal.verify() == 1_200
