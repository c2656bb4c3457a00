"""A venue that is not there at the start keeps nobody from seeing, asking or stopping the daemon that waits for it. The real process."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from modules.cli import market
from modules.domain.errors import OperatorRefused
from modules.domain.events import DaemonStarted, EntriesPaused, TradeOpened, TradingHalted
from modules.domain.instrument import AssetClass
from modules.domain.settings import Settings
from modules.runtime.clock import WallClock
from modules.store.journal import Journal
from tests import venue_threads
from tests.builders import shipped_policies
from tests.emulators import bybit as bybit_emulator
from tests.emulators.telegram import OWNER, TOKEN, BotApi, bot_api
from tests.mode_process import Hurry, Modes, installation
from tests.timing import PATIENCE_S


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return installation(tmp_path)


@pytest.fixture
def ended() -> Iterator[list[Modes]]:
    started: list[Modes] = []
    yield started
    for process in started:
        process.end()


def settings(app: Path, venue: str, phone: str, port: int) -> str:
    token = app / "telegram.key"
    token.write_text(TOKEN)
    token.chmod(0o600)
    return f"""
[strategies]
SPOT = []
[venues.bybit]
classes = ["SPOT"]
endpoint = "{venue}"
timeframe = "1m"
symbols = ["BTC/USDT"]
[telegram]
token_file = "{token}"
chat_id = {OWNER}
user_ids = [{OWNER}]
base_url = "{phone}"
[http]
enabled = true
port = {port}
"""


def health(port: int) -> tuple[int, str]:
    """(0, "") while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE_S) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def heard(phone: BotApi, part: str) -> bool:
    return any(part in message.text for message in list(phone.sent))


def facts(process: Modes, kind: type) -> list[object]:
    with Journal(process.state / "journal.sqlite", read_only=True) as journal:
        return [fact for _, fact in journal.facts() if isinstance(fact, kind)]


async def _idle(phone: BotApi) -> None:
    """Its loop turns: what another thread says (`say`) is seen at once and not when a long poll ends."""
    while True:  # noqa: ASYNC110 - that it turns is all
        await asyncio.sleep(0.05)


def test_while_a_venue_is_waited_for_everything_else_is_up_and_a_halt_holds(app: Path, ended: list[Modes]) -> None:
    with socket.socket() as reserved, venue_threads.served(bot_api, _idle) as phone:
        reserved.bind(("127.0.0.1", 0))
        port = free_port()
        nowhere = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        process = Modes(app, "paper", settings(app, nowhere, phone.url, port))
        ended.append(process)
        process.start()
        process.wait("a word about it", lambda: "bybit cannot be reached, again in 5 s" in process.out)
        assert process.out.count("bybit cannot be reached, again in 2 s") == 1  # each attempt is told once
        process.wait("the web page", lambda: health(port)[0] == 503)
        _, said = health(port)
        assert "not started yet: bybit cannot be reached" in said
        process.wait("a word on the phone", lambda: heard(phone, "Not started yet: bybit cannot be reached"))
        with pytest.raises(OperatorRefused, match=r"not started yet: .*kill, pause, flatten and forceexit are taken"):
            process.ask("reconcile")
        assert not process.ask("flatten")["closing"]
        shown = process.verb("status")
        assert shown.returncode == 0 and "NOT STARTED YET" in shown.stdout

        (process.state / "HALT").touch()
        process.wait("a halt by file", lambda: heard(phone, "HALTED all classes: a file HALT"))
        phone.say("/kill spot")
        process.wait("the answer", lambda: heard(phone, "HALTED</b>: SPOT"))
        assert process.ask("pause")["paused"] == ["SPOT", "PERP", "OPTION", "FOREX"]
        assert process.stop() == 0
        assert process.out.rstrip().endswith("The daemon was stopped before it had started; nothing is open.")
        assert heard(phone, "was stopped before it had started")
        assert len(facts(process, TradingHalted)) == 2 and len(facts(process, EntriesPaused)) == 1 and not facts(process, DaemonStarted)
        (process.state / "HALT").unlink()

    with venue_threads.served(bybit_emulator.serving, Hurry().run) as venue, venue_threads.served(bot_api, _idle) as phone:
        process = Modes(app, "paper", settings(app, venue.url, phone.url, port))
        ended.append(process)
        process.start()
        process.wait("it has started", process.running)
        process.wait("the first message", lambda: heard(phone, "PAPER"))
        spot = process.ask("status")["classes"]["SPOT"]
        assert spot["state"] == "HALTED" and spot["paused"] and spot["equity"] == "1000"
        assert not heard(phone, "Not started yet")
        assert process.stop() == 0
        assert process.out.rstrip().endswith("The daemon was stopped; nothing is open.")


async def test_a_venue_where_something_is_held_is_asked_again_sooner() -> None:
    told: list[str] = []
    async with bybit_emulator.serving() as venue:
        where = Settings.model_validate({"mode": "paper", "venues": {"bybit": {
            "classes": ["SPOT"], "endpoint": venue.url, "timeframe": "1m", "symbols": ["BTC/USDT"]}}})
        venue.faults += [bybit_emulator.Fault("instruments-info", bybit_emulator.Reply(503, b""), False)] * 2
        with Journal(None) as journal:
            journal.append(TradeOpened(
                1, "t1", "d1", "trader", "BTC/USDT", AssetClass.SPOT, "buy", "single", 1.0, 0.6, 100.0, 97.0, None, 0, 60_000, Decimal(1)))
            arrived = await market.opened(where, shipped_policies(), WallClock(), journal, told.append)
        for one in arrived.venues.values():
            await one.close()
    assert [words.partition(": ")[0] for words in told] == [f"bybit cannot be reached, again in {pause} s" for pause in ("0.5", "1")]
