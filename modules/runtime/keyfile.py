"""Reads a secret from a file. Refuses one that others can read, that somebody else owns, or that is a link."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from modules.domain.errors import ConfigurationError

BYTES_MAX: Final = 16_384


def read(path: Path, key: str) -> str:
    """The one line in `path`; `key` is the setting that names it. Raises ConfigurationError, which never shows the content."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _refused(key, path, "cannot be read" if not path.is_symlink() else "is a link; name the file itself",
                       type(error).__name__) from None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
            raise _refused(key, path, "must be a plain file that only its owner can read (chmod 600)")
        if found.st_uid not in (0, os.geteuid()):
            raise _refused(key, path, "belongs to somebody else")
        content = os.read(handle, BYTES_MAX + 1)
    finally:
        os.close(handle)
    try:
        secret = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise _refused(key, path, "is not text") from None
    if not secret or len(content) > BYTES_MAX or not secret.isprintable():
        raise _refused(key, path, "must hold one line")
    return secret


def _refused(key: str, path: Path, *why: str) -> ConfigurationError:
    return ConfigurationError([f"{key} = {str(path)!r}: {': '.join(why)}"])
