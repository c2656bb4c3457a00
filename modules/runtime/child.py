"""Runs a command as a child process beside the daemon, at the lowest priority, and brings back what it wrote."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

NICEST: Final = 19
BYTES_MAX: Final = 16_000_000
_TAIL: Final = 2_000


@dataclass(frozen=True, slots=True)
class Ended:
    """`code` as the shell has it; None = killed because its time was up."""

    code: int | None
    output: bytes
    errors: str
    """The last of what it wrote to its standard error."""


async def run(command: Sequence[str], *, timeout_s: float) -> Ended:
    """Start `command` (no shell), wait for its end. Killed after `timeout_s` or when the caller is canceled. Raises OSError if there is
    no such program, ValueError if it writes more than 16 MB."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True)
    try:
        _yield_to_everybody(process.pid)
        assert process.stdout is not None and process.stderr is not None
        async with asyncio.timeout(timeout_s):
            output, errors = await asyncio.gather(_all_of(process.stdout), _last_of(process.stderr))
            return Ended(await process.wait(), output, errors.decode(errors="replace"))
    except TimeoutError:
        return Ended(None, b"", f"killed after {timeout_s:.0f} s")
    finally:
        if process.returncode is None:
            _kill_family(process.pid)
            await process.wait()


def _yield_to_everybody(pid: int) -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, pid, NICEST)
    except ProcessLookupError:
        return  # it has ended already


def _kill_family(pid: int) -> None:
    """It leads a session of its own, so its workers go with it."""
    try:
        os.killpg(pid, 9)
    except ProcessLookupError:
        return


async def _all_of(stream: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := await stream.read(65_536):
        size += len(part)
        if size > BYTES_MAX:
            raise ValueError(f"a child wrote more than {BYTES_MAX:,} bytes")
        parts.append(part)
    return b"".join(parts)


async def _last_of(stream: asyncio.StreamReader) -> bytes:
    tail = b""
    while part := await stream.read(65_536):
        tail = (tail + part)[-_TAIL:]
    return tail
