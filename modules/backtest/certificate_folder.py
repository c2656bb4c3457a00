"""The folder the certificates lie in: which files are whole, read once each until they change. Owns no file and no permission."""

from __future__ import annotations

from pathlib import Path

from modules.domain import certificate as certificates
from modules.domain.certificate import Certificate, CertificateError
from modules.runtime.supervise import attempt

Mark = tuple[int, int]


class CertificateFolder:
    """`look` again and again; files that did not change are not read again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[Path, tuple[Mark, Certificate | None]] = {}
        """What was read of each file, and when it was last written and its size then."""

    def look(self, *, again: bool) -> tuple[list[tuple[Path, Certificate]], list[str]] | None:
        """(whole certificates, one line per file that is none); None if nothing changed and nobody wants to hear it `again`."""
        marks = self._marks()
        if not again and marks == {path: mark for path, (mark, _) in self._files.items()}:
            return None
        read: dict[Path, tuple[Mark, Certificate | None]] = {}
        faults: list[str] = []
        for path, mark in marks.items():
            known = self._files.get(path)
            if known is not None and known[0] == mark and known[1] is not None:
                read[path] = known
                continue
            try:
                read[path] = (mark, certificates.load(path))
            except CertificateError as error:
                read[path] = (mark, None)
                faults.append(str(error))
        self._files = read
        return [(path, found) for path, (_, found) in read.items() if found is not None], faults

    @property
    def intact(self) -> frozenset[str]:
        """Digests of the certificates that were whole when last looked at."""
        return frozenset(found.digest for _, found in self._files.values() if found is not None)

    def _marks(self) -> dict[Path, Mark]:
        found = {}
        for path in sorted(self._folder.glob("*.json")):
            status, error = attempt(path.stat)
            if error is None:  # else it went between listing and looking
                found[path] = (status.st_mtime_ns, status.st_size)
        return found
