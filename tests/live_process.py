"""Two real processes: an emulated venue with its control channel, and the daemon as a user runs it in mode live, in a folder of its own.

The daemon is `main.py trade` in mode live: switches, certificate, keys, journal. With a speed above 1 both live on a clock that runs so
many times as fast (tests/hurried.py); what the policies bound in seconds of the market is then as many times as long, so that it is as long
in the machine's seconds as it ships.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from modules.domain.errors import BotError
from modules.runtime.control import call
from tests import census, hurried, mode_process
from tests.daemon_process import ROOT
from tests.emulators import binance, bybit, oanda

READY_S: Final = 240.0
"""What a process may take to be there: a start into bad weather is tried again after growing pauses."""


@dataclass(frozen=True)
class Traded:
    """What of a venue is traded, and with how much."""

    classes: tuple[str, ...]
    symbols: tuple[str, ...]
    allocate: str
    stop: float
    """Distance of the stop, as a share of the price."""
    key: str
    account: str = ""
    settle: str = "USDT"


_PAIRS: Final = ("BTC/USDT", "ETH/USDT", "BTC/USDT:USDT", "ETH/USDT:USDT")
VENUES: Final = {
    "bybit": Traded(("SPOT", "PERP"), _PAIRS, 'allocate = { SPOT = "3000", PERP = "6000" }', 0.01,
                    f"key={bybit.KEY}\nsecret={bybit.SECRET}\n"),
    "binance": Traded(("SPOT", "PERP"), _PAIRS, 'allocate = { SPOT = "3000", PERP = "6000" }', 0.01,
                      f"key={binance.KEY}\nsecret={binance.SECRET}\n"),
    "oanda": Traded(("FOREX",), ("EUR/USD", "GBP/USD"), 'allocate = { FOREX = "8000" }', 0.002, oanda.TOKEN, oanda.ACCOUNT, "USD"),
}
SWING: Final = '''"""With the last few bars' mean, against it flat or short."""
from typing import NamedTuple

from modules.domain.instrument import AssetClass
from modules.domain.signal import Intent
from modules.strategies.protocol import Market, Strategy


class Params(NamedTuple):
    stop: float = STOP


def init(params: Params) -> float:
    return 0.0


def step(state: float, market: Market, params: Params) -> tuple[float, Intent]:
    """Long above the mean, short below it; not before the price has left it by a twentieth of the stop."""
    mean = market.close if state == 0.0 else state + (market.close - state) / 4.0
    away = market.close / mean - 1.0
    score = 0.9 if away > params.stop / 20.0 else -0.9 if away < -params.stop / 20.0 else 0.0
    return mean, Intent(score, market.close * params.stop, 0.0, 0)


STRATEGY = Strategy("trader", "with the swing", (CLASSES,), Params(), init, step, 5)
'''
SECONDS: Final = {
    "risk": {"quote_age_s_max": 10, "bar_late_s_max": 5, "wallet_age_s_max": 60, "clock_offset_s_max": 1},
    "execution": {"unfilledtimeout_entry_s": 60, "unfilledtimeout_exit_s": 60, "wallet_settle_s": 1, "clock_poll_s": 60,
                  "difference_proof_s": 12},
}
"""Limits in seconds of the market, as shipped; but a difference is believed sooner, for a minute of the machine's is most of an hour."""
OFTEN: Final[dict[str, dict[str, Any]]] = {
    "risk": {"quote_volume_24h_min": "1000", "orders_per_minute_max": 1_000, "notional_per_minute_max": "1", "open_orders_max": 200,
             "frozen_bars_max": 1_000, "cooldown_losses": 60, "cooldown_stop_outs": 0, "correlation_returns_min": 2,
             "correlated_others_max": 10, "carry_reward_share_max": "1"}}
"""So that it trades as often as the market gives reason to."""
NEVER_DEMOTED: Final = {"edge_shift_r": "50", "slippage_limit": "100000000", "fill_ratio_limit": "100000000", "calibration_alpha": "1e-9",
                        "drift_min": 1_000_000, "drift_share_max": "1"}
"""A strategy whose fills the weather makes worse every hour would soon be back on paper, as it should be; here it goes on."""


ABOVE: Final = '''"""Long above a level, flat below it."""
from typing import NamedTuple

from modules.domain.instrument import AssetClass
from modules.domain.signal import Intent
from modules.strategies.protocol import Market, Strategy


class Params(NamedTuple):
    level: float = LEVEL
    stop: float = STOP


def init(params: Params) -> int:
    return 0


def step(state: int, market: Market, params: Params) -> tuple[int, Intent]:
    return state, Intent(0.9 if market.close > params.level else 0.0, market.close * params.stop, 0.0, 0)


STRATEGY = Strategy("trader", "long above a level", (CLASSES,), Params(), init, step, 1)
'''


def installation(folder: Path, venue: str, pace: hurried.Pace, strategy: str = SWING, patience: float = 1.0) -> Path:
    """A folder with the program, one strategy more ("trader"), policies and certificates. `patience` multiplies every limit in seconds."""
    traded = VENUES[venue]
    app = mode_process.installation(folder, strategy=None)
    for entry in (app / "modules").iterdir():
        if entry.is_symlink() and entry.is_dir():  # a copy: a run of hours outlives the tree it began with
            entry.unlink()
            shutil.copytree(ROOT / "modules" / entry.name, entry, symlinks=True)
        elif entry.is_symlink():
            entry.unlink()
            shutil.copy2(ROOT / "modules" / entry.name, entry)
    classes = ", ".join(f"AssetClass.{name}" for name in traded.classes) + ","
    text = strategy.replace("STOP\n", f"{traded.stop}\n").replace("CLASSES,", classes)
    (app / "modules" / "strategies" / "trader.py").write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "policies", app / "policies", dirs_exist_ok=True)
    for policy, values in SECONDS.items():
        mode_process.changed(app, policy, **{name: value * pace.speed * patience for name, value in values.items()})
    for policy, values in OFTEN.items():
        mode_process.changed(app, policy, **values)
    demotion = json.loads((app / "policies" / "learning_policy.json").read_text(encoding="utf-8"))["demotion"]
    mode_process.changed(app, "learning", demotion=demotion | NEVER_DEMOTED)
    mode_process.changed(app, "funds", funds_on=True, classes_on=dict.fromkeys(("SPOT", "PERP", "OPTION", "FOREX"), True), pair_cap="0.5")
    for name in ("hurried.py", "census.py"):
        shutil.copy(ROOT / "tests" / name, app / name)
    for asset_class in traded.classes:
        perp = asset_class == "PERP"
        mode_process.certify(app, "trader", asset_class, [s for s in traded.symbols if (":" in s) == perp],
                             environment={hurried.VARIABLE: pace.word()}, mean_r=0.0, sd_r=5.0, drawdown_r=10_000.0, slippage_bp=500.0,
                             fill_ratio=0.3, win_rate=0.3)
    return app


class Emulator:
    """A venue in a process of its own."""

    def __init__(self, venue: str, pace: hurried.Pace, seed: int, out: Path) -> None:
        self._command = [sys.executable, "-m", "tests.emulators", venue, "--control", "0", "--seed", str(seed)]
        hurry = {} if pace.speed == 1.0 else {hurried.VARIABLE: pace.word()}
        self._environment = {**os.environ, **hurry, "PYTHONUNBUFFERED": "1"}
        self._out = out
        self._child: subprocess.Popen[bytes] | None = None
        self.url = self._control = ""
        self._session: aiohttp.ClientSession | None = None

    def _born(self) -> subprocess.Popen[bytes]:
        with self._out.open("wb") as out:
            return subprocess.Popen(self._command, cwd=ROOT, env=self._environment, stdout=out, stderr=out)

    async def start(self) -> None:
        self._child = self._born()
        until = time.monotonic() + READY_S
        while " control " not in (said := self._out.read_text(encoding="utf-8")):
            if self._child.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the emulator did not start: {said[-2000:]}")
            await asyncio.sleep(0.1)
        words = said.split()
        self.url, self._control = words[2], words[4]
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))

    async def do(self, command: str, **asked: Any) -> Any:
        """The channel's answer; None where the venue does not do it. Raises RuntimeError for a command that is none."""
        assert self._session is not None
        async with self._session.post(f"{self._control}/{command}", json=asked) as reply:
            said = await reply.json()
            if reply.status == 409:
                return None
            if reply.status != 200:
                raise RuntimeError(f"{command} {asked}: {said}")
            return said["answer"]

    async def end(self) -> None:
        if self._session is not None:
            await self._session.close()
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            await asyncio.to_thread(self._child.wait)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Daemon:
    """`main.py trade` of an installation: started, asked, killed, watched from outside through /proc."""

    def __init__(self, app: Path, venue: str, url: str, pace: hurried.Pace, timeframe: str, counted: bool = False) -> None:
        traded = VENUES[venue]
        self.app, self.port, self._pace = app, _free_port(), pace
        self.state = app / "state" / "live"
        self._more = {hurried.CCXT: "" if traded.account else "1", hurried.CENSUS: str(app / "census.jsonl") if counted else ""}
        key = app / "venue.key"
        key.write_text(traded.key, encoding="utf-8")
        key.chmod(0o600)
        account = f'account_id = "{traded.account}"\n' if traded.account else ""
        listed = ", ".join(f'"{one}"' for one in traded.symbols)
        wanted = "\n".join(f'{name} = {["trader"] if name in traded.classes else []}'.replace("'", '"')
                           for name in ("SPOT", "PERP", "FOREX"))
        classes = ", ".join(f'"{name}"' for name in traded.classes)
        (app / "config.toml").write_text(
            f'mode = "live"\n[http]\nenabled = true\nport = {self.port}\n[strategies]\n{wanted}\n[venues.{venue}]\nclasses = [{classes}]\n'
            f'endpoint = "{url}"\ntimeframe = "{timeframe}"\nsymbols = [{listed}]\nkey_file = "{key}"\n{account}{traded.allocate}\n',
            encoding="utf-8")
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """A new process; at the wall's pace it is `main.py trade` and nothing else."""
        plain = self._pace.speed == 1.0 and not self._more[hurried.CENSUS]
        command = [sys.executable, *([] if plain else [str(self.app / "hurried.py")]), str(self.app / "main.py"), "trade"]
        with (self.app / "out.txt").open("ab") as out:
            self._child = subprocess.Popen(command, cwd=self.app, stdout=out, stderr=out, env={
                **os.environ, hurried.VARIABLE: self._pace.word(), **self._more, "PYTHONUNBUFFERED": "1"})

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def ended(self) -> int | None:
        return None if self._child is None else self._child.poll()

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any] | None:
        """The control socket's answer; None while there is none, or it is refused."""
        try:
            return await asyncio.to_thread(call, self.state / "control.sock", command, arguments)
        except (BotError, OSError):
            return None

    async def running(self) -> None:
        """Until it has started and its strategies decide. Raises RuntimeError where it ended instead."""
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            if self.ended is not None:
                break
            shown = await self.ask("status")
            if shown is not None and shown["running"] and not any("warming up" in problem for problem in shown["problems"]):
                return
            await asyncio.sleep(0.2)
        raise RuntimeError(f"the daemon is not there: {(self.app / 'out.txt').read_text(encoding='utf-8')[-3000:]}")

    def census(self) -> None:
        """Have it write down what it holds, and wait until it has."""
        path, until = self.app / "census.jsonl", time.monotonic() + 60.0
        before = path.stat().st_size if path.exists() else 0
        os.kill(self.pid, signal.SIGUSR2)
        while time.monotonic() < until and not (path.exists() and path.stat().st_size > before and path.read_bytes().endswith(b"\n")):
            time.sleep(0.1)

    def grown(self) -> dict[str, list[str]]:
        """What there was more of at the last census than at the first."""
        lines = (self.app / "census.jsonl").read_text(encoding="utf-8").splitlines()
        return census.grown(json.loads(lines[0]), json.loads(lines[-1]))

    def kill(self) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGKILL)
        self._child.wait()

    async def stop(self) -> tuple[int, float]:
        """(exit code, seconds it took) of SIGTERM."""
        assert self._child is not None
        began = time.monotonic()
        self._child.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(self._child.wait, 60)
        return code, time.monotonic() - began

    def end(self) -> None:
        if self.ended is None and self._child is not None:
            self.kill()

    def measured(self) -> dict[str, float]:
        """Resident memory (MB of 10^6 bytes), descriptors, threads and processor seconds, as the system tells them."""
        folder = Path(f"/proc/{self.pid}")
        pages = int((folder / "statm").read_text().split()[1])
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        ticks = os.sysconf("SC_CLK_TCK")
        return {"rss_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6, "descriptors": float(len(os.listdir(folder / "fd"))),
                "threads": float(fields[17]), "cpu_s": (int(fields[11]) + int(fields[12])) / ticks,
                "journal_mb": sum(path.stat().st_size for path in self.state.glob("journal.sqlite*")) / 1e6}

    async def metrics(self, session: aiohttp.ClientSession) -> dict[str, float]:
        """/metrics without labels; {} while the page is not there."""
        try:
            async with session.get(f"http://127.0.0.1:{self.port}/metrics", timeout=aiohttp.ClientTimeout(total=10)) as reply:
                lines = (await reply.text()).splitlines()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return {}
        rows = (line.rsplit(" ", 1) for line in lines if line and line[0] != "#" and "{" not in line)
        return {name: float(value) for name, value in rows}

    def log_lines(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for path in sorted((self.app / "logs").glob("trading_bot.json*"), reverse=True):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    found.append(json.loads(line))
                except ValueError:
                    found.append({"level": "error", "event": "a log line that is no JSON"})
        return found
