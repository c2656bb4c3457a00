"""Several modes on one machine: a verb speaks to the daemon that runs, asks where it would have to guess, and a kill misses nobody."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from modules.cli import market
from modules.cli.app import run
from modules.domain.errors import OperatorRefused, StateLocked
from modules.domain.settings import Settings, VenueSettings
from modules.runtime.control import ControlServer, answers
from modules.store.lock import AccountLock, StateFolder, holder

ROOT = Path(__file__).resolve().parents[1]
HALTED: dict[str, Any] = {"halted": {"SPOT": "manual"}, "already": False}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    return tmp_path


class Daemon:
    """Holds a mode's state folder and answers, in a thread of its own."""

    def __init__(self, mode: str, *, mute: bool = False) -> None:
        self.mode = mode
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.refuses = ""
        self._mute = mute
        self._up = threading.Event()

    async def _answer(self, command: str, arguments: Mapping[str, Any], by: str) -> dict[str, Any]:
        self.heard.append((command, dict(arguments)))
        if self.refuses:
            raise OperatorRefused(self.refuses)
        if command == "kill":
            return HALTED
        return {"mode": self.mode, "running": True, "since": None, "at": "2026-01-01T00:00:00", "classes": {}, "feeds": {}, "in_doubt": [],
                "wallet_age_s": 0.0, "loop_lag_ms_p99": 0.0, "problems": [], "paused": ["SPOT"]}

    async def _serve(self, path: Path, ended: asyncio.Event) -> None:
        task = None if self._mute else asyncio.create_task(ControlServer(path, self._answer).run())
        for _ in range(6_000):
            if task is None or answers(path):
                break
            await asyncio.sleep(0.01)
        self._up.set()
        await ended.wait()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[Daemon]:
        loop, ended = asyncio.new_event_loop(), asyncio.Event()
        with StateFolder(Path("state") / self.mode) as held:
            thread = threading.Thread(target=loop.run_until_complete, args=(self._serve(held.control_socket.absolute(), ended),))
            thread.start()
            assert self._up.wait(60)
            try:
                yield self
            finally:
                loop.call_soon_threadsafe(ended.set)
                thread.join()
                loop.close()


def said(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert run(argv) == code, capsys.readouterr().err
    both = capsys.readouterr()
    return both.out, both.err


def mode_shown(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[str, str]:
    out, err = said(capsys, "status", "--json", *argv)
    return json.loads(out)["mode"], err


def test_a_verb_follows_the_only_daemon_that_runs_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon("paper").running() as paper:
        mode, err = mode_shown(capsys)
        me = f"process {os.getpid()}"
        assert mode == "paper" and err == f"This is the paper daemon ({me}), the only one that runs; the settings say demo.\n"
        said(capsys, "pause", "spot")
        assert ("pause", {"asset_class": "SPOT"}) in paper.heard
        (folder / "config.toml").write_text('mode = "paper"\n')
        assert mode_shown(capsys) == ("paper", "")


def test_mode_says_which_and_a_daemon_of_another_mode_is_not_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon("paper").running() as paper:
        _, err = said(capsys, "status", "--mode", "demo", code=3)
        assert "no daemon is running on state/demo" in err and "--mode paper" in err
        _, err = said(capsys, "kill", "--mode", "demo", code=3)
        assert "touch state/demo/HALT" in err
        assert not paper.heard


def test_between_two_daemons_nobody_guesses(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon("paper").running() as paper, Daemon("demo").running() as demo:
        for verb in ("status", "why", "flatten", "pause", "funds", "reconcile"):
            _, err = said(capsys, verb, code=4)
            assert "2 daemons run here: paper" in err and "--mode paper or --mode demo" in err
        assert not paper.heard and not demo.heard
        assert mode_shown(capsys, "--mode", "paper")[0] == "paper"
        assert mode_shown(capsys, "--mode", "demo")[0] == "demo"
        (folder / "config.toml").write_text('mode = "paper"\n')  # said outright: that one, and that there is another
        mode, err = mode_shown(capsys)
        assert mode == "paper" and "there runs demo" in err


def test_a_kill_halts_whatever_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon("paper").running() as paper, Daemon("demo").running() as demo:
        out, _ = said(capsys, "kill")
        assert [line.split(": ")[0] for line in out.splitlines() if "Halted" in line] == ["PAPER", "DEMO"]
        assert paper.heard == demo.heard == [("kill", {"asset_class": "ALL"})]
        out, _ = said(capsys, "kill", "perp", "--json")
        assert json.loads(out) == {"daemons": {"paper": HALTED, "demo": HALTED}}
        said(capsys, "kill", "--mode", "paper")
        assert (len(paper.heard), len(demo.heard)) == (3, 2)


def test_a_kill_finds_its_daemon_whatever_the_settings_say(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon("live").running() as live:
        (folder / "config.toml").write_text('mode = "demo"\nstate_dri = "x"\n')  # written in a hurry, and wrong
        out, err = said(capsys, "kill")
        assert live.heard == [("kill", {"asset_class": "ALL"})] and "Halted: SPOT" in out and "the settings are faulty" in err
    (folder / "elsewhere").mkdir()
    (folder / "config.toml").write_text('mode = "dmeo"\nstate_dir = "elsewhere"\n')
    (folder / "elsewhere" / "live").symlink_to(folder / "state" / "live")
    with Daemon("live").running() as live:
        said(capsys, "kill")
        assert live.heard


@pytest.mark.parametrize("why", ["starts", "refuses"])
def test_a_daemon_that_does_not_take_a_kill_gets_the_file(folder: Path, capsys: pytest.CaptureFixture[str], why: str) -> None:
    daemon = Daemon("live", mute=why == "starts")
    daemon.refuses = "not started yet"
    with daemon.running(), Daemon("demo").running() as other:
        out, _ = said(capsys, "kill")
        assert (folder / "state" / "live" / "HALT").exists() and not (folder / "state" / "demo" / "HALT").exists()
        assert "LIVE: it did not take the command" in " ".join(out.split()) and "DEMO: Halted" in out
        assert other.heard
    assert holder(folder / "state" / "live") is None


def test_a_kill_that_reaches_nobody_says_so_and_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon("live", mute=True).running():
        (folder / "state" / "live" / "HALT").symlink_to(folder / "nowhere" / "HALT")
        out, _ = said(capsys, "kill", code=1)
        assert "NOT HALTED" in out


def test_what_ran_last_is_what_is_shown_when_nothing_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "state" / "paper").mkdir(parents=True)
    (folder / "state" / "paper" / "journal.sqlite").touch()
    _, err = said(capsys, "backup", "kept.tar.gz", code=1)  # an empty file is no journal; which one was meant is the question
    assert "This is paper, the only mode that ever ran here; the settings say demo." in err
    (folder / "config.toml").write_text('mode = "demo"\n')
    _, err = said(capsys, "export", "trades", code=2)
    assert "no journal at state/demo" in err


def test_files_of_the_mode_that_the_settings_name_are_read_whoever_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.toml").write_text('mode = "paper"\n')
    (folder / "state" / "paper").mkdir(parents=True)
    (folder / "state" / "paper" / "journal.sqlite").touch()
    with Daemon("demo").running():
        _, err = said(capsys, "backup", "kept.tar.gz", code=1)
        assert "This is paper, as the settings say; there runs demo" in err


def test_looking_who_holds_a_folder_keeps_nobody_from_holding_it(tmp_path: Path) -> None:
    assert holder(tmp_path / "live") is None
    with StateFolder(tmp_path / "live"):
        assert holder(tmp_path / "live") == os.getpid()
        with pytest.raises(StateLocked, match=str(os.getpid())):
            StateFolder(tmp_path / "live")
    assert holder(tmp_path / "live") is None
    looking = os.open(tmp_path / "live" / "lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.1, os.close, (looking,)).start()
    StateFolder(tmp_path / "live").close()  # waits for the moment that somebody looks


HOLD = """
import sys
sys.path.insert(0, sys.argv[1])
from modules.store.lock import AccountLock
held = AccountLock("bybit", sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


def test_an_account_has_one_daemon_whatever_folders_each_has(tmp_path: Path) -> None:
    """As under systemd: another temporary folder, another state folder, nothing else that can be written."""
    account = f"key of {tmp_path}"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(ROOT), account], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                             env={**os.environ, "TMPDIR": str(tmp_path)}, cwd=tmp_path)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(StateLocked, match=f"traded by another daemon of this machine: process {other.pid}"):
            AccountLock("bybit", account)
        AccountLock("binance", account).close()
    finally:
        other.kill()
        other.communicate()
    with AccountLock("bybit", account), pytest.raises(StateLocked):
        AccountLock("bybit", account)
    AccountLock("bybit", account).close()
    assert not any(tmp_path.iterdir())


def test_an_account_is_the_same_however_the_venues_own_address_is_written(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(f'{{"key": "{tmp_path.name}", "secret": "s"}}')
    key.chmod(0o600)

    def settings(endpoint: str) -> Settings:
        venue = VenueSettings.model_validate({"classes": ["SPOT"], "key_file": key, "endpoint": endpoint})
        return Settings(venues={"bybit": venue})

    with ExitStack() as held:
        market.lock_accounts(settings(""), held)
        for endpoint in ("https://api.bybit.com", "https://api.bytick.com/"):
            with ExitStack() as second, pytest.raises(StateLocked):
                market.lock_accounts(settings(endpoint), second)
        with ExitStack() as emulator:
            market.lock_accounts(settings("http://127.0.0.1:1"), emulator)
