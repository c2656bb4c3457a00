"""The control socket among friends and strangers: what is no request is refused, counted, and never reaches the operator desk."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.domain.errors import ConfigurationError, DaemonNotRunning, NotFound, OperatorRefused
from modules.runtime import control
from modules.runtime.control import ControlServer, Malformed, call, parse_request
from tests.timing import PATIENCE_S


class Desk:
    """Remembers what reached it."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any], str]] = []

    async def answer(self, command: str, arguments: Mapping[str, Any], by: str) -> dict[str, Any]:
        self.heard.append((command, dict(arguments), by))
        if command == "missing":
            raise NotFound("no such thing")
        if command == "refuse":
            raise OperatorRefused("not today")
        if command == "slow":
            await asyncio.sleep(60)
        return {"echo": command}


async def begun() -> None:
    """The server listens: making its socket takes turns of the loop, and no time."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def serving(path: Path, desk: Desk, **limits: float) -> AsyncIterator[ControlServer]:
    server = ControlServer(path, desk.answer, **limits)
    task = asyncio.create_task(server.run())
    await begun()
    try:
        yield server
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def raw(path: Path, data: bytes, *, hang_up: bool = True) -> bytes:
    """Send bytes as they are; what came back."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(data)
        await writer.drain()
        if hang_up and writer.can_write_eof():
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_request_comes_to_the_desk_with_the_name_the_kernel_gives_its_sender(tmp_path: Path) -> None:
    desk = Desk()
    async with serving(tmp_path / "control.sock", desk):
        answer = await asyncio.to_thread(call, tmp_path / "control.sock", "status", {"n": 3})
    assert answer == {"echo": "status"}
    ((command, arguments, by),) = desk.heard
    assert (command, arguments) == ("status", {"n": 3})
    assert by.startswith("cli:")


async def test_the_socket_is_the_owners_alone_and_gone_when_the_server_ends(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path, Desk()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


@pytest.mark.parametrize("line", [
    b"\n", b"status\n", b"[]\n", b"null\n", b'"status"\n', b"{}\n", b'{"command": 1}\n', b'{"command": ""}\n',
    b'{"command": "status", "by": "root"}\n', b'{"command": "status", "arguments": []}\n', b"\xff\xfe\n",
    b'{"command": "status", "arguments": {"n": [1]}}\n', b'{"command": "status", "arguments": {"n": NaN}}\n',
    b'{"command": "kill", "arguments": {"reason": "a\\nb"}}\n', b'{"command": "' + b"x" * 41 + b'"}\n', b"[" * 5_000 + b"\n",
    json.dumps({"command": "s", "arguments": {f"k{i}": i for i in range(21)}}).encode() + b"\n",
    json.dumps({"command": "s", "arguments": {"t": "x" * 1_001}}).encode() + b"\n",
    json.dumps({"command": "s", "arguments": {"n": 2**60}}).encode() + b"\n",
], ids=range(19))
async def test_what_is_no_request_is_refused_and_counted_and_the_next_client_is_served(tmp_path: Path, line: bytes) -> None:
    desk = Desk()
    path = tmp_path / "control.sock"
    async with serving(path, desk) as server:
        reply = json.loads(await raw(path, line))
        assert reply["ok"] is False and reply["code"] == 4
        assert server.refused == 1
        assert desk.heard == []
        assert await asyncio.to_thread(call, path, "status", {}) == {"echo": "status"}


async def test_a_line_without_an_end_is_cut_off_at_the_cap(tmp_path: Path) -> None:
    desk = Desk()
    path = tmp_path / "control.sock"
    async with serving(path, desk) as server:
        await raw(path, b"x" * (control.REQUEST_BYTES_MAX * 4), hang_up=False)
        assert server.refused == 1
        assert desk.heard == []


async def test_half_a_request_is_counted_and_never_run(tmp_path: Path) -> None:
    desk = Desk()
    path = tmp_path / "control.sock"
    async with serving(path, desk) as server:
        assert await raw(path, b'{"command": "kill"}') == b""
        assert (server.refused, desk.heard) == (1, [])


async def test_a_client_that_says_nothing_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path, Desk(), idle_s=0.1) as server:
        assert await raw(path, b"", hang_up=False) == b""
        assert server.refused == 1


async def test_more_clients_than_allowed_are_turned_away_and_those_inside_stay(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path, Desk()) as server:
        inside = [await asyncio.open_unix_connection(str(path)) for _ in range(control.CLIENTS_MAX)]
        await asyncio.sleep(0.05)
        assert await raw(path, b'{"command": "status"}\n') == b""
        assert server.refused == 1
        reader, writer = inside[0]
        writer.write(b'{"command": "status"}\n')
        assert json.loads(await reader.readline())["ok"] is True
        for _, each in inside:
            each.close()


async def test_errors_of_the_desk_come_back_as_the_errors_they_were(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path, Desk(), answer_s=0.1):
        for command, kind in (("missing", NotFound), ("refuse", OperatorRefused), ("slow", TimeoutError)):
            with pytest.raises(kind):
                await asyncio.to_thread(call, path, command, {})
        with pytest.raises(ConfigurationError):
            await asyncio.to_thread(call, path, "x" * 50, {})


def test_nobody_behind_the_socket_is_a_daemon_that_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with pytest.raises(DaemonNotRunning):
        call(path, "status", {})
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left_over:
        left_over.bind(str(path))
    with pytest.raises(DaemonNotRunning):
        call(path, "status", {})


async def test_a_daemon_of_another_mode_is_named_with_the_way_to_ask_it(tmp_path: Path) -> None:
    for mode in ("demo", "paper"):
        (tmp_path / mode).mkdir()
    desk = Desk()
    async with serving(tmp_path / "paper" / "control.sock", desk):
        with pytest.raises(DaemonNotRunning, match=r"on .*demo \(one runs on .*paper; to ask it: --mode paper"):
            await asyncio.to_thread(call, tmp_path / "demo" / "control.sock", "kill", {})
    assert not desk.heard
    with pytest.raises(DaemonNotRunning, match=r"demo$"):
        await asyncio.to_thread(call, tmp_path / "demo" / "control.sock", "kill", {})


def test_a_daemon_that_does_not_answer_is_a_time_out(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(TimeoutError):
            call(path, "status", {}, timeout_s=0.1)


async def test_a_left_over_socket_is_replaced_but_a_file_in_its_place_is_not(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left_over:
        left_over.bind(str(path))
    server = ControlServer(path, Desk().answer)
    task = asyncio.create_task(server.run())
    await begun()
    assert await asyncio.to_thread(call, path, "status", {}) == {"echo": "status"}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        await ControlServer(path, Desk().answer).run()
    assert path.read_text() == "precious"


async def test_a_state_folder_with_a_path_too_long_for_a_socket_works_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30) / ("longer" * 20)
    folder.mkdir(parents=True)
    async with serving(folder / "control.sock", Desk()):
        assert await asyncio.to_thread(call, folder / "control.sock", "status", {}) == {"echo": "status"}


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["command", "arguments", "x"]), inner, max_size=3),
    max_leaves=8).map(lambda tree: json.dumps(tree).encode())))
def test_whatever_is_sent_parses_to_words_and_scalars_or_is_malformed(line: bytes) -> None:
    try:
        command, arguments = parse_request(line)
    except Malformed:
        return
    assert isinstance(command, str)
    assert all(value is None or isinstance(value, (bool, int, float, str)) for value in arguments.values())
