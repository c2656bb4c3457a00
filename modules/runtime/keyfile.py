"""Reads a secret from a file. Refuses one that others can read, that somebody else owns, that is a link, or that git could take along.

What was read is told to whoever asked to hide it (`tell`: the log). No error shows a content.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from modules.domain.errors import ConfigurationError

BYTES_MAX: Final = 16_384
_PAIR: Final = ("key", "secret")
_told: Final[list[Callable[[str], None]]] = []


def tell(hear: Callable[[str], None]) -> None:
    """From now on `hear` is told of every secret that is read, so that it can be hidden wherever it might be written."""
    _told.append(hear)


def read(path: Path, key: str) -> str:
    """The one line in `path`; `key` is the setting that names it. Raises ConfigurationError, which never shows the content."""
    secret = _text(path, key)
    if not secret.isprintable():
        raise _refused(key, path, "must hold one line")
    return _heard(secret)


def read_pair(path: Path, key: str) -> tuple[str, str]:
    """A crypto venue's (key, secret): a JSON object {"key": ..., "secret": ...}, or two lines key=... and secret=... . Raises
    ConfigurationError, which never shows the content."""
    content = _text(path, key)
    try:
        found = json.loads(content) if content.startswith("{") else dict(_assigned(line) for line in content.splitlines() if line.strip())
    except (ValueError, RecursionError):
        found = None
    pair = [found.get(name) for name in _PAIR] if isinstance(found, dict) and found.keys() == set(_PAIR) else []
    words = [word for word in pair if isinstance(word, str) and word and word.isprintable() and not any(c.isspace() for c in word)]
    if len(words) != len(_PAIR):
        raise _refused(key, path, 'must hold {"key": "...", "secret": "..."}, or the two lines key=... and secret=...')
    return _heard(words[0]), _heard(words[1])


def _heard(secret: str) -> str:
    for hear in _told:
        hear(secret)
    return secret


def _assigned(line: str) -> tuple[str, str]:
    name, sign, value = line.partition("=")
    if not sign:
        raise ValueError("no =")
    return name.strip().lower(), value.strip().strip("\"'")


def _text(path: Path, key: str) -> str:
    """What `path` holds, if it is ours alone."""
    if (tree := _git_tree(path)) is not None:
        raise _refused(key, path, f"lies in the git work tree {str(tree)!r}, where one commit would publish it; keep it elsewhere, "
                                  "like /etc/bot or ~/.config/bot")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _refused(key, path, "is a link; name the file itself" if path.is_symlink() else
                       f"cannot be read: {error.strerror or type(error).__name__}") from None
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
    if not secret or len(content) > BYTES_MAX:
        raise _refused(key, path, "is empty" if not secret else "is far too long for a secret")
    return secret


def _git_tree(path: Path) -> Path | None:
    """The work tree that holds `path`, links resolved; None = none does."""
    there = Path(os.path.realpath(path))
    return next((folder for folder in there.parents if os.path.lexists(folder / ".git")), None)


def _refused(key: str, path: Path, why: str) -> ConfigurationError:
    return ConfigurationError([f"{key} = {str(path)!r}: {why}"])
