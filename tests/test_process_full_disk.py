"""The real daemon on a disk that is truly full: openings stop, exits go on, and it is stopped from the phone, the command line and by a
file within a second each - also when not one more byte can be written.

A file system of a few megabytes is mounted for it and filled to the last byte; where that is not permitted these tests skip.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from modules.domain.errors import DaemonNotRunning, OperatorRefused
from modules.domain.events import Fact, OperatorCommand, PositionClosed, TradeOpened, TradingHalted
from modules.store.journal import Journal
from tests.daemon_process import ROOT, Process
from tests.emulators.telegram import OWNER, TOKEN, BotApi, bot_api
from tests.timing import PATIENCE_S, within_wall

MEGABYTES = 24
KILL_S = 1.0
"""What the owner was promised; a busy machine gets as much more as it is slower."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a file system here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Until not one more byte fits."""
    with (disk / "ballast").open("ab", buffering=0) as ballast:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    ballast.write(b"x" * size)
            except OSError:
                continue


class Daemon:
    """The process, its state and its log on `disk`, with a phone."""

    def __init__(self, folder: Path, disk: Path, api: BotApi, speed: float) -> None:
        self.disk = disk
        self.folder = folder
        (folder / "policies").symlink_to(ROOT / "policies")
        (folder / "config.toml").write_text(
            f'state_dir = "{disk}/state"\nlog_dir = "{disk}/logs"\n[telegram]\ntoken_file = "{folder}/token"\nchat_id = {OWNER}\n'
            f'user_ids = [{OWNER}]\nbase_url = "{api.url}"\n', encoding="utf-8")
        (folder / "token").write_text(TOKEN, encoding="utf-8")
        (folder / "token").chmod(0o600)
        self.process = Process(folder, "-c", "config.toml", speed=speed)
        self.process.state = disk / "state" / "demo"

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        return await asyncio.to_thread(lambda: self.process.ask(command, **arguments))

    async def wait(self, what: str, holds: Any, seconds: float = 2 * PATIENCE_S) -> None:
        await asyncio.to_thread(self.process.wait, what, holds, seconds)

    async def halted(self) -> dict[str, bool]:
        return {name: bool(shown["halted_by"]) for name, shown in (await self.ask("status"))["classes"].items()}

    async def seconds_until_halted(self, names: set[str], began: float) -> float:
        while not {name for name, halted in (await self.halted()).items() if halted} >= names:
            assert time.monotonic() - began < PATIENCE_S, f"{names} were not halted"
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def killed_three_ways(self, api: BotApi) -> dict[str, float]:
        """Seconds from the word to the halt."""
        took: dict[str, float] = {}
        began = time.monotonic()
        api.say("/kill spot")
        took["phone"] = await self.seconds_until_halted({"SPOT"}, began)
        began = time.monotonic()
        typed = await asyncio.create_subprocess_exec(
            sys.executable, str(ROOT / "main.py"), "kill", "perp", "-c", "config.toml", cwd=self.folder, stdout=subprocess.PIPE)
        took["command line"] = await self.seconds_until_halted({"PERP"}, began)
        assert "PERP" in (await typed.communicate())[0].decode() and typed.returncode == 0
        began = time.monotonic()
        (self.process.state / "HALT").touch()
        took["HALT file"] = await self.seconds_until_halted({"SPOT", "PERP", "OPTION", "FOREX"}, began)
        print("seconds until halted:", ", ".join(f"{way} {seconds:.2f}" for way, seconds in took.items()))
        return took

    def facts(self) -> list[Fact]:
        with Journal(self.process.state / "journal.sqlite", read_only=True) as journal:
            journal.verify()
            return [fact for _, fact in journal.facts()]

    def filled(self) -> set[str]:
        """The trades that hold something."""
        return {trade["trade_id"] for trade in self.process.ask("trades")["open"] if trade["opened_at"]}

    async def write_until(self, enough: Any) -> None:
        """Commands, which are on record, until `enough(problems)`."""
        for _ in range(5_000):
            if enough((await self.ask("status"))["problems"]):
                return
            for _ in range(20):
                await self.ask("pause", asset_class="OPTION")
        pytest.fail("the disk never got full")


@asynccontextmanager
async def running(folder: Path, disk: Path, speed: float) -> AsyncIterator[tuple[Daemon, BotApi]]:
    async with bot_api() as api:
        daemon = Daemon(folder, disk, api, speed)
        try:
            await daemon.wait("an answer", lambda: daemon.process.ask("status"))
            yield daemon, api
        finally:
            daemon.process.end()


async def use_up(daemon: Daemon) -> None:
    """Fill the disk and make the daemon write until its reserve is gone too."""
    end = time.monotonic() + 2 * PATIENCE_S
    refused = ""
    while "disk is full" not in refused:
        assert time.monotonic() < end, "the journal still finds room"
        fill(daemon.disk)
        try:
            for _ in range(50):
                await daemon.ask("pause", asset_class="OPTION")
                await daemon.ask("blacklist", subject="NO/PE" + "x" * 60)
                await daemon.ask("unlock", subject="NO/PE" + "x" * 60)
        except OperatorRefused as refusal:
            refused = str(refusal)
        except DaemonNotRunning:
            pytest.fail(f"it ended: {(daemon.folder / 'out.txt').read_text()[-2000:]}")
    fill(daemon.disk)


@pytest.mark.slow
async def test_on_a_full_disk_openings_stop_exits_go_on_and_every_kill_is_on_record(tmp_path: Path, disk: Path) -> None:
    async with running(tmp_path, disk, 900) as (daemon, api):
        await daemon.wait("an open trade", daemon.filled, 240.0)
        fill(disk)
        await daemon.write_until(lambda problems: any("disk is full" in problem for problem in problems))
        at_full = len(daemon.facts())
        told = await api.until_text("the disk is full", 20.0)
        assert "entries are closed" in told.text
        held = daemon.filled()
        assert held, "nothing to close"
        await daemon.ask("flatten")
        await daemon.wait("the exits on the full disk", lambda: not held & daemon.filled(), 240.0)
        took = await daemon.killed_three_ways(api)
        assert all(seconds < within_wall(KILL_S) for seconds in took.values()), took
        status = await daemon.ask("status")
        assert any("disk is full" in problem for problem in status["problems"])
        later = daemon.facts()[at_full:]
        assert not [fact for fact in later if isinstance(fact, TradeOpened)]
        assert [fact for fact in later if isinstance(fact, PositionClosed)]
        assert {fact.scope.value for fact in later if isinstance(fact, TradingHalted)} == {"SPOT", "PERP", "ALL"}
        assert f"telegram:{OWNER}" in {fact.by for fact in later if isinstance(fact, OperatorCommand)}
        code, seconds = await asyncio.to_thread(daemon.process.stop)
        assert (code, seconds < within_wall(10.0)) == (0, True)
        assert "was stopped" in (await api.until_text("was stopped")).text


async def test_when_not_one_byte_can_be_written_a_kill_holds_in_memory_and_a_restart_finds_the_file(tmp_path: Path, disk: Path) -> None:
    """At the pace of the wall nothing happens on the market meanwhile, so that the reserve is used up by commands alone."""
    async with running(tmp_path, disk, 1) as (daemon, api):
        await use_up(daemon)
        before = daemon.facts()
        took = await daemon.killed_three_ways(api)
        assert all(seconds < within_wall(KILL_S) for seconds in took.values()), took
        assert "holds in memory" in (await api.until_text("HALTED")).text
        assert daemon.facts() == before, "there was no room for a single row"
        code, _ = await asyncio.to_thread(daemon.process.stop)
        assert code == 0, "it ends in good order"
        (disk / "ballast").unlink()
        daemon.process.start()
        await daemon.wait("the restart", lambda: daemon.process.ask("status"))
        assert all((await daemon.halted()).values()), "the file halts again, and now it is on record"
        assert {fact.trigger for fact in daemon.facts() if isinstance(fact, TradingHalted)} == {"manual"}
