"""The control socket: how the command line talks to the running daemon. One JSON object per line, one reply per line, owner only (0600).

Owns the wire and its limits. Refuses and counts whatever is not a well-formed request: too long, too slow, not JSON, wrong shape; nothing
of that reaches the operator desk, and no client can make the daemon wait. Who is speaking is what the kernel says, not the client.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from modules.domain.errors import BotError, ConfigurationError, DaemonNotRunning, NotFound, OperatorRefused

REQUEST_BYTES_MAX: Final = 16_384
REPLY_BYTES_MAX: Final = 16_000_000
ARGUMENTS_MAX: Final = 20
TEXT_MAX: Final = 1_000
CLIENTS_MAX: Final = 8
REQUESTS_PER_CLIENT_MAX: Final = 100
IDLE_S: Final = 5.0
"""How long a client may take to send its line, or to take our reply."""
ANSWER_S: Final = 8.0
_PATH_MAX: Final = 100
"""Longer paths do not fit into a socket address (108 bytes)."""

Answer = Callable[[str, Mapping[str, Any], str], Awaitable[dict[str, Any]]]
"""(command, arguments, by) -> document. May raise BotError."""

_CODES: Final[tuple[tuple[type[BotError], int], ...]] = ((NotFound, 2), (ConfigurationError, 4), (BotError, 1))
"""Error -> exit code of the client, the first that fits."""
_ERRORS: Final[Mapping[int, type[BotError]]] = {1: OperatorRefused, 2: NotFound}


class Malformed(BotError):
    """A request that is none."""


def parse_request(line: bytes) -> tuple[str, dict[str, Any]]:
    """(command, arguments) of one line. Raises Malformed on anything but {"command": text, "arguments": {name: scalar}}."""
    try:
        request = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Malformed("not one JSON object in UTF-8") from None
    if not isinstance(request, dict) or not set(request) <= {"command", "arguments"}:
        raise Malformed("must be an object with command and arguments, nothing else")
    command, arguments = request.get("command"), request.get("arguments", {})
    if not isinstance(command, str) or not 0 < len(command) <= 40:
        raise Malformed("command must be a word")
    if not isinstance(arguments, dict) or len(arguments) > ARGUMENTS_MAX:
        raise Malformed(f"arguments must be an object with at most {ARGUMENTS_MAX} names")
    for name, value in arguments.items():
        if len(name) > 40 or not (value is None or isinstance(value, (bool, int, float, str))):
            raise Malformed("arguments must be text, numbers or true/false")
        if isinstance(value, str) and (len(value) > TEXT_MAX or not value.isprintable()):
            raise Malformed(f"text must be printable and at most {TEXT_MAX} characters")
        if isinstance(value, int) and abs(value) > 2**53:
            raise Malformed("a number is out of range")
    return command, arguments


def _no_constant(name: str) -> float:
    raise ValueError(name)


class ControlServer:
    """Serves `answer` on a socket at `path`. `run` for ever inside the daemon; `refused` counts what was no request."""

    def __init__(self, path: Path, answer: Answer, *, idle_s: float = IDLE_S, answer_s: float = ANSWER_S) -> None:
        self._path = path
        self._idle_s = idle_s
        self._answer_s = answer_s
        self._answer = answer
        self._clients = 0
        self.refused = 0
        self.served = 0

    async def run(self) -> None:
        """Raises OSError if the socket cannot be made. The file goes when it ends."""
        listener = _listen(self._path)
        try:
            server = await asyncio.start_unix_server(self._serve, sock=listener, limit=REQUEST_BYTES_MAX)
            async with server:
                await server.serve_forever()
        finally:
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        by = _peer(writer)
        self._clients += 1
        try:
            if by is None or self._clients > CLIENTS_MAX:
                self.refused += 1
                return
            for _ in range(REQUESTS_PER_CLIENT_MAX):
                if not await self._one(reader, writer, by):
                    return
        except (ConnectionError, TimeoutError):
            self.refused += 1
        finally:
            self._clients -= 1
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, by: str) -> bool:
        """One request; False when this client is done with."""
        try:
            async with asyncio.timeout(self._idle_s):
                line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as rest:
            self.refused += bool(rest.partial)
            return False
        except asyncio.LimitOverrunError:
            await self._reply(writer, _failure(f"a request has at most {REQUEST_BYTES_MAX} bytes", 4))
            self.refused += 1
            return False
        try:
            command, arguments = parse_request(line)
        except Malformed as error:
            self.refused += 1
            await self._reply(writer, _failure(str(error), 4))
            return False
        self.served += 1
        await self._reply(writer, await self._handle(command, arguments, by))
        return True

    async def _handle(self, command: str, arguments: dict[str, Any], by: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._answer_s):
                return {"ok": True, "result": await self._answer(command, arguments, by)}
        except TimeoutError:
            return _failure(f"{command} is taking longer than {self._answer_s:g} s", 5)
        except BotError as error:
            return _failure(str(error), next(code for kind, code in _CODES if isinstance(error, kind)))

    async def _reply(self, writer: asyncio.StreamWriter, document: dict[str, Any]) -> None:
        writer.write(json.dumps(document, ensure_ascii=True).encode() + b"\n")
        async with asyncio.timeout(self._idle_s):
            await writer.drain()


def _failure(message: str, code: int) -> dict[str, Any]:
    return {"ok": False, "error": message, "code": code}


def _peer(writer: asyncio.StreamWriter) -> str | None:
    """Who is on the other end, by the kernel's word; None for another user than ours or root."""
    peer: socket.socket = writer.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    if user not in (0, os.geteuid()):
        return None
    try:
        return f"cli:{pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"cli:{user}"


class _Address:
    """A socket address for a path of any length: a long one is named relative to its opened folder."""

    def __init__(self, path: Path) -> None:
        self._folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY) if len(os.fsencode(path)) > _PATH_MAX else None
        self.name = str(path) if self._folder is None else f"/proc/self/fd/{self._folder}/{path.name}"

    def close(self) -> None:
        if self._folder is not None:
            os.close(self._folder)


def _listen(path: Path) -> socket.socket:
    """A listening socket at `path`, closed to others from its first moment. A left-over one of ours is replaced."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"{path} is in the way and is no socket")
        path.unlink()
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    address = _Address(path)
    before = os.umask(0o177)
    try:
        listener.bind(address.name)
        listener.listen(CLIENTS_MAX)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
        address.close()
    return listener


def _elsewhere(path: Path) -> str:
    """What a person should know who started another mode than the settings name: which one answers beside `path`, and how to ask it."""
    for other in sorted(path.parent.parent.glob(f"*/{path.name}")):
        mode = other.parent.name
        if other.parent != path.parent and answers(other):
            return f" (one runs on {other.parent}; to ask it: --mode {mode})"
    return ""


def answers(path: Path) -> bool:
    """Whether somebody listens behind `path`. Asks nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        try:
            address = _Address(path)
            try:
                client.connect(address.name)
            finally:
                address.close()
        except OSError:
            return False
    return True


def call(path: Path, command: str, arguments: Mapping[str, Any], *, timeout_s: float = 10.0) -> dict[str, Any]:
    """Ask the daemon behind `path` (blocking). Raises DaemonNotRunning, TimeoutError, OperatorRefused, NotFound, ConfigurationError."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(timeout_s)
    with client:
        try:
            address = _Address(path)
            try:
                client.connect(address.name)
            finally:
                address.close()
            client.sendall(json.dumps({"command": command, "arguments": dict(arguments)}).encode() + b"\n")
            reply = _line(client)
        except TimeoutError:
            raise TimeoutError(f"the daemon did not answer {command} within {timeout_s:g} s") from None
        except OSError:
            raise DaemonNotRunning(f"no daemon is running on {path.parent}{_elsewhere(path)}") from None
    if reply.get("ok") is True:
        result: dict[str, Any] = reply["result"]
        return result
    message, code = str(reply.get("error", "refused")), reply.get("code")
    if code == 5:
        raise TimeoutError(message)
    if code == 4:
        raise ConfigurationError([message])
    raise _ERRORS.get(code if isinstance(code, int) else 1, OperatorRefused)(message)


def _line(client: socket.socket) -> dict[str, Any]:
    parts: list[bytes] = []
    size = 0
    while not (parts and parts[-1].endswith(b"\n")):
        part = client.recv(65_536)
        size += len(part)
        if not part or size > REPLY_BYTES_MAX:
            raise ConnectionError("the daemon hung up")
        parts.append(part)
    try:
        reply = json.loads(b"".join(parts))
    except ValueError:
        raise ConnectionError("the daemon's answer makes no sense") from None
    if not isinstance(reply, dict):
        raise ConnectionError("the daemon's answer makes no sense")
    return reply
