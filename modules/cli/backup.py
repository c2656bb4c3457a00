"""`backup FILE` and `restore FILE`: the state folder as one archive, taken while the daemon runs, and put back only if it proves sound.

The archive holds what cannot be had again - the journal, the recorded headlines, the certificates - and what explains it (decisions,
pictures). It holds no key and no password; settings files may, and stay out too. A restore never overwrites: the folder that is there is
moved aside, and the journal in the archive must pass its own hash chain before anything is moved.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any, Final

from modules.cli import following, inputs
from modules.cli.output import emit
from modules.domain.errors import BotError, ConfigurationError, JournalCorrupt, NotFound
from modules.domain.sessions import iso
from modules.runtime.clock import WallClock
from modules.store.journal import Journal
from modules.store.lock import StateFolder

JOURNAL: Final = "journal.sqlite"
DATABASES: Final = (JOURNAL, "decisions.sqlite", "candles.sqlite", "equity.sqlite", "news.db")
PLAIN: Final = ("demo_seed", "HALT")
FOLDERS: Final = ("certificates", "learning", "validation")
SHARED: Final = "shared"
"""In the archive: what all modes have in common, beside their folders: certificates and the registries their trials were counted in."""
MANIFEST: Final = "backup.json"
FORMAT: Final = 1
BYTES_MAX: Final = 1 << 36
"""No archive of ours is larger than this when unpacked (64 GiB)."""


class BackupRefused(BotError):
    """An archive that cannot be made or put back; says why."""


def backup(arguments: argparse.Namespace) -> int:
    """Wants `file`."""
    settings = inputs.settings_only(arguments, mode=following.mode_of(arguments, files=True))
    folder = inputs.state_folder(settings)
    if not (folder / JOURNAL).exists():
        raise NotFound(f"no journal at {folder / JOURNAL}: there is nothing to keep yet")
    target: Path = arguments.file
    if target.exists():
        raise ConfigurationError([f"{target}: exists already; name a new file"])
    at = WallClock().now()
    try:
        with tempfile.TemporaryDirectory(prefix="backup_", dir=target.parent) as name:
            document = _archive(folder, Path(name), settings.mode, at)
            made = Path(name) / "archive"
            made.chmod(0o600)
            made.rename(target)
    except OSError as error:
        raise ConfigurationError([f"{target}: {error.strerror}: name a file on a disk with room"]) from None
    emit(arguments, {"file": str(target), "bytes": target.stat().st_size, **document}, lambda out, d: out.print(
        f"{d['file']}: {d['rows']} journal rows, head {d['head'][:16]}, {', '.join(d['parts'])}. Keys and settings files are not in it.",
        markup=False))
    return 0


def _archive(folder: Path, work: Path, mode: str, at: int) -> dict[str, Any]:
    """Consistent copies first (the daemon may be writing), then their proof, then the archive."""
    parts = [name for name in DATABASES if (folder / name).exists()]
    for name in parts:
        _copy(folder / name, work / name)
    with Journal(work / JOURNAL, read_only=True) as journal:
        document = {"format": FORMAT, "mode": mode, "at": iso(at), "rows": journal.verify(), "head": journal.head}
    parts += [name for name in PLAIN if (folder / name).is_file()]
    parts += [str(path.relative_to(folder)) for kind in FOLDERS for path in sorted((folder / kind).rglob("*.json"))]
    parts += _shared(folder.parent, work)
    document["parts"] = parts
    with tarfile.open(work / "archive", "x:gz", compresslevel=6) as archive:
        manifest = json.dumps(document, indent=1).encode()
        entry = tarfile.TarInfo(MANIFEST)
        entry.size, entry.mtime = len(manifest), at // 1000
        archive.addfile(entry, io.BytesIO(manifest))
        for name in parts:
            archive.add(work / name if (work / name).exists() else folder / name, arcname=name, recursive=False)
    return document


def _shared(state: Path, work: Path) -> list[str]:
    """Copy it to where the archive takes it from. After the journal: a registry may be ahead of what a journal knows, never behind."""
    names = []
    for source in (*sorted((state / "certificates").glob("*.json")), *sorted((state / "validation").glob("trials-*.db"))):
        name = f"{SHARED}/{source.parent.name}/{source.name}"
        target = work / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".db":
            _copy(source, target)
        else:
            target.write_bytes(source.read_bytes())
        names.append(name)
    return names


def _put_back_shared(folder: Path) -> None:
    """Only what is not there: another mode may have gone on with it, and a registry only ever grows."""
    for source in sorted(path for path in (folder / SHARED).rglob("*") if path.is_file()):
        target = folder.parent / source.relative_to(folder / SHARED)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if target.exists():
            source.unlink()
        else:
            source.rename(target)
    shutil.rmtree(folder / SHARED, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    """SQLite's own online backup: a consistent copy of a database that is being written to."""
    try:
        with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new, pages=1_000)
    except sqlite3.Error as error:
        raise BackupRefused(f"{source}: cannot be copied ({error}); stop the daemon and run journal verify") from None


def restore(arguments: argparse.Namespace) -> int:
    """Wants `file`. Refused while a daemon runs on the folder."""
    settings = inputs.settings_only(arguments, mode=arguments.mode)
    source: Path = arguments.file
    if not source.is_file():
        raise NotFound(f"no archive {source}")
    folder = inputs.state_folder(settings)
    with StateFolder(folder):  # whoever holds it is told so, and stays untouched
        pass
    with tempfile.TemporaryDirectory(prefix=".restore_", dir=folder.parent) as name:
        new = Path(name) / "state"
        new.mkdir(mode=0o700)
        document = _unpacked(source, new)
        if document["mode"] != settings.mode:
            raise BackupRefused(f"{source}: is of mode {document['mode']}, meant is {settings.mode}; their money must never meet: "
                                f"--mode {document['mode']} puts it where it belongs")
        aside = _aside(folder)
        new.rename(folder)
        _put_back_shared(folder)
    shown = {"file": str(source), "state": str(folder), "before": str(aside) if aside is not None else None, **document}
    emit(arguments, shown, lambda out, d: out.print(
        f"{d['state']}: {d['rows']} journal rows as of {d['at'][:16]}, chain unbroken." + (
            f" What was there is now {d['before']}." if d["before"] else "") + " The next start reconciles with the venue.", markup=False))
    return 0


def _aside(folder: Path) -> Path | None:
    """Move what is there out of the way; an empty folder goes."""
    if not any(path.name != "lock" for path in folder.iterdir()):
        (folder / "lock").unlink(missing_ok=True)
        folder.rmdir()
        return None
    for number in range(1, 10_000):
        aside = folder.with_name(f"{folder.name}.before-restore-{number}")
        if not aside.exists():
            folder.rename(aside)
            return aside
    raise BackupRefused(f"{folder.parent}: holds 9,999 folders of earlier restores; remove some")


def _unpacked(source: Path, new: Path) -> Mapping[str, Any]:
    """The manifest of a sound archive, its parts in `new`. Raises BackupRefused naming what is wrong."""
    try:
        with tarfile.open(source, "r:gz") as archive:
            members = {member.name: member for member in archive.getmembers()}
            if MANIFEST not in members or not all(_allowed(member) for member in members.values()):
                raise BackupRefused(f"{source}: is no backup of this program")
            if sum(member.size for member in members.values()) > BYTES_MAX:
                raise BackupRefused(f"{source}: is larger than any backup of this program")
            archive.extractall(new, filter="data")
        document: dict[str, Any] = json.loads((new / MANIFEST).read_bytes())
        (new / MANIFEST).unlink()
        if document.get("format") != FORMAT:
            raise BackupRefused(
                f"{source}: has format {document.get('format')!r}, this program reads {FORMAT}; use the version that made it")
        with Journal(new / JOURNAL, read_only=True) as journal:
            if (journal.verify(), journal.head) != (document["rows"], document["head"]):
                raise BackupRefused(f"{source}: its journal is not the one that was backed up")
    except (tarfile.TarError, EOFError, OSError, ValueError, KeyError) as error:
        raise BackupRefused(f"{source}: is damaged ({error}); nothing was changed") from None
    except JournalCorrupt as error:
        raise BackupRefused(f"{source}: its journal is damaged ({error}); nothing was changed") from None
    for path in new.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return document


def _allowed(member: tarfile.TarInfo) -> bool:
    """A plain file with a name this program gives."""
    path = PurePosixPath(member.name)
    known = member.name in (MANIFEST, *DATABASES, *PLAIN) or (path.parts[0] in FOLDERS and path.suffix == ".json") or (
        path.parts[0] == SHARED and path.suffix in (".json", ".db"))
    return member.isreg() and known and ".." not in path.parts and not path.is_absolute()
