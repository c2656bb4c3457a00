"""The state folder: exists, belongs to us, is closed to others, and has one daemon at a time. Refuses everything else.

An account has one daemon too: those of other machines show by their orders, those of this one by a lock.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import stat
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from modules.domain.errors import ConfigurationError, StateLocked
from modules.runtime.clock import pause

LOOKS: Final = 10
LOOK_S: Final = 0.05
"""Whoever only looks whether a folder is held (`holder`) holds it for that moment: a lock is asked for a few times."""


class StateFolder:
    """Holds the folder `path` (created 0700) under an exclusive lock until `close` or the end of the process, however it ends.

    Raises StateLocked naming the process that has it, ConfigurationError if the folder is not a writable folder of ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_owner()
            path.chmod(0o700)
            self._descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                [f"state folder {path}: {error.strerror}: it must be a folder that user {os.geteuid()} owns and can write to"]
            ) from error
        try:
            self._lock()
        except BlockingIOError:
            owner = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise StateLocked(
                f"state folder {path} belongs to the running process {owner or '(unknown)'}: stop it first, or use another state folder"
            ) from None
        except OSError as error:
            os.close(self._descriptor)
            raise ConfigurationError([f"state folder {path}: cannot be locked ({error.strerror}): keep it on a local disk"]) from error
        try:
            # Written in place and padded, so that a reader never sees half a number.
            os.pwrite(self._descriptor, f"{os.getpid():<10}\n".encode(), 0)
        except OSError as error:
            os.close(self._descriptor)
            raise ConfigurationError([f"state folder {path}: {error.strerror}: free some space"]) from error

    def _lock(self) -> None:
        for look in range(LOOKS):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if look + 1 == LOOKS:
                    raise
                pause(LOOK_S)
            else:
                return

    def _check_owner(self) -> None:
        found = self.path.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(0, "is not a folder")
        if found.st_uid != os.geteuid():
            raise ConfigurationError(
                [
                    f"state folder {self.path}: belongs to user {found.st_uid}, but the daemon runs as user {os.geteuid()}: "
                    f"run it as that user, or change the owner of the folder and everything in it"
                ]
            )

    @property
    def journal(self) -> Path:
        return self.path / "journal.sqlite"

    @property
    def decisions(self) -> Path:
        return self.path / "decisions.sqlite"

    @property
    def candles(self) -> Path:
        return self.path / "candles.sqlite"

    @property
    def equity(self) -> Path:
        return self.path / "equity.sqlite"

    @property
    def halt_file(self) -> Path:
        """While it exists every class is halted (Kill_Switch)."""
        return self.path / "HALT"

    @property
    def control_socket(self) -> Path:
        return self.path / "control.sock"

    def close(self) -> None:
        """Give the lock up. The file stays: deleting it would let two daemons lock two files of one name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def holder(path: Path) -> int | None:
    """The process that holds the state folder `path`; 0 = one whose number cannot be read, None = nobody. Changes nothing."""
    try:
        descriptor = os.open(path / "lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        number = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        return int(number) if number.isdigit() else 0
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


class AccountLock:
    """Holds one account of a venue for this process, whatever its state folder is, until `close` or the end of the process.

    `account` is its number, or the key that opens it; only a digest of it is shown. Held by the kernel under a name and not as a file:
    a service may have a temporary folder of its own (PrivateTmp) and may write nowhere else, and a file left behind would hold nobody.
    Reaches as far as the machine's network: not into a container with one of its own. Raises StateLocked naming the process.
    """

    def __init__(self, venue: str, account: str) -> None:
        name = hashlib.blake2b(f"{venue} {account}".encode(), digest_size=12).hexdigest()
        address = f"\0trading-bot-{venue}-{name}"
        self._held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._held.bind(address)
            self._held.listen(64)    # so that a second one can ask the kernel who we are
        except OSError as error:
            self._held.close()
            if error.errno != errno.EADDRINUSE:
                raise ConfigurationError([f"venues.{venue}: its account cannot be locked ({error.strerror})"]) from error
            raise StateLocked(f"this account at {venue} is traded by another daemon of this machine: process {_listener(address)}: stop "
                              "it first, or use another account") from None

    def close(self) -> None:
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _listener(address: str) -> str:
    """The number of the process that listens at `address`, by the kernel's word."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        try:
            client.connect(address)
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return "(unknown)"
    return str(struct.unpack("3i", credentials)[0])
