"""`backup` and `restore`: nothing is lost, nothing is overwritten, and what is not sound is not put back."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modules.backtest.trial_anchor import head_of
from modules.backtest.trials import TrialRegistry
from modules.cli.app import run
from modules.store.journal import Journal
from modules.store.lock import StateFolder
from tests.daemon_process import ROOT, Process


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a demo day's journal in its state folder."""
    place = tmp_path_factory.mktemp("lived")
    (place / "policies").symlink_to(ROOT / "policies")
    with pytest.MonkeyPatch.context() as there:
        there.chdir(place)
        assert run(["demo", "--days", "1", "--state", "state/demo", "--json"]) == 0
    return place


@pytest.fixture
def folder(lived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, for one test to spoil."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(lived, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path


def head(path: Path) -> str:
    with Journal(path, read_only=True) as journal:
        return journal.head


def test_what_was_lost_comes_back_to_the_last_row(folder: Path) -> None:
    before = head(folder / "state/demo/journal.sqlite")
    (folder / "state/demo/HALT").touch()
    assert run(["backup", "kept.tar.gz"]) == 0
    assert (folder / "kept.tar.gz").stat().st_mode & 0o077 == 0
    for path in (folder / "state/demo").iterdir():
        path.unlink()
    assert run(["restore", "kept.tar.gz"]) == 0
    assert head(folder / "state/demo/journal.sqlite") == before
    assert (folder / "state/demo/HALT").exists(), "a halt by hand survives"
    assert run(["journal", "verify"]) == 0 and run(["profit"]) == 0


def test_the_registry_of_trials_and_the_certificates_come_back_where_they_are_gone_and_nowhere_else(folder: Path) -> None:
    path, certificate = folder / "state/validation/trials-spot.db", folder / "state/certificates/x.json"
    registry = TrialRegistry(path, same_code=0.85, same_results=0.9)
    counted = registry.register(strategy="x", code="c", fingerprint="f", basket="b", data="d", sets=({"a": 1.0},))
    certificate.parent.mkdir()
    certificate.write_text("{}")
    assert run(["backup", "kept.tar.gz"]) == 0
    registry.submit(counted.idea, "later")
    longer = registry.anchor
    registry.close()
    assert run(["restore", "kept.tar.gz"]) == 0
    assert head_of(path) == longer, "what is there has gone on since"
    certificate.unlink()
    for one in path.parent.glob("trials-*"):
        one.unlink()
    assert run(["restore", "kept.tar.gz"]) == 0
    assert head_of(path).entries == longer.entries - 1 and certificate.exists()
    assert not (folder / "state/demo/shared").exists()


def test_what_is_there_is_moved_aside_never_overwritten(folder: Path) -> None:
    assert run(["backup", "kept.tar.gz"]) == 0
    (folder / "state/demo/demo_seed").write_text("9\n")
    assert run(["restore", "kept.tar.gz"]) == 0
    assert (folder / "state/demo.before-restore-1/demo_seed").read_text() == "9\n"
    assert run(["restore", "kept.tar.gz"]) == 0
    assert (folder / "state/demo.before-restore-2/journal.sqlite").exists()
    assert run(["backup", "kept.tar.gz"]) == 4, "nor is an archive"


def test_a_damaged_foreign_or_dangerous_archive_changes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["backup", "kept.tar.gz"]) == 0
    good = (folder / "kept.tar.gz").read_bytes()
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "state/demo").iterdir()}

    def refused(data: bytes, why: str) -> None:
        (folder / "bad.tar.gz").write_bytes(data)
        capsys.readouterr()
        assert run(["restore", "bad.tar.gz"]) == 1
        assert why in capsys.readouterr().err
        now = {path.name: path.stat().st_mtime_ns for path in (folder / "state/demo").iterdir() if path.name != "lock"}
        assert now == {name: at for name, at in before.items() if name != "lock"}
        assert not list((folder / "state").glob(".restore_*"))

    refused(good[:-200], "damaged")
    refused(b"no archive", "damaged")
    refused(_changed(good, lambda name, data: data[:4096 * 3] + b"\xff" * 64 + data[4096 * 3 + 64:] if name == "journal.sqlite" else data),
            "journal")
    refused(_changed(good, lambda name, data: data.replace(b'"demo"', b'"live"') if name == "backup.json" else data), "mode live")
    refused(_changed(good, lambda _, data: data, "../../evil"), "no backup")
    refused(_changed(good, lambda _, data: data, "/etc/evil"), "no backup")
    refused(_changed(good, lambda name, data: data.replace(b'"format": 1', b'"format": 2') if name == "backup.json" else data), "format 2")


def _changed(archive: bytes, change: object, added: str = "") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=made, mode="w:gz") as new:
        for member in old.getmembers():
            part = old.extractfile(member)
            assert part is not None
            data = change(member.name, part.read())  # type: ignore[operator]
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
        if added:
            entry = tarfile.TarInfo(added)
            entry.size = 4
            new.addfile(entry, io.BytesIO(b"evil"))
    return made.getvalue()


def test_a_folder_that_a_daemon_holds_is_not_touched(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["backup", "kept.tar.gz"]) == 0
    with StateFolder(folder / "state/demo"):
        assert run(["restore", "kept.tar.gz"]) == 1
        assert "belongs to the running process" in capsys.readouterr().err


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    started = Process(tmp_path, speed=1800)
    yield started
    started.end()


def test_a_backup_of_a_running_daemon_is_consistent(
        process: Process, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(process.folder)
    process.wait("a trade", lambda: process.ask("trades")["open"] or process.ask("trades")["closed"])
    assert run(["backup", "kept.tar.gz", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["rows"] > 10
    with tarfile.open(process.folder / "kept.tar.gz") as archive:
        archive.extractall(process.folder / "out", filter="data")
    connection = sqlite3.connect(process.folder / "out/journal.sqlite")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
