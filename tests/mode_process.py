"""The real process in paper and live mode, in an installation of its own: this program with one strategy more and policies for a market
in a hurry, pointed at emulated venues. Nothing of it is replaced; the strategy lies where a user's own would.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from modules.domain.errors import DaemonNotRunning
from modules.runtime.control import call
from tests.daemon_process import ROOT
from tests.emulators.bybit import BybitEmulator

LAG_MIN = 600
"""How long ago it is in the emulator's candles: then its minutes may end as often as a test likes, and none in the future."""
STRATEGY = '''"""Long above a price."""
from typing import Any, NamedTuple

from modules.domain.instrument import AssetClass
from modules.domain.signal import Intent
from modules.strategies.protocol import Market, Strategy


class Params(NamedTuple):
    level: float = 50500.0
    stop: float = 0.01


def init(params: Params) -> int:
    return 0


def step(state: int, market: Market, params: Params) -> tuple[int, Intent]:
    """Flat below the level."""
    return state, Intent(0.9 if market.close > params.level else 0.0, market.close * params.stop, 0.0, 0)


STRATEGY = Strategy("above", "long above a price", (AssetClass.SPOT, AssetClass.PERP), Params(), init, step, 1)
'''


def installation(folder: Path) -> Path:
    """`folder`/app: main.py, config.py, modules with one strategy more, and policies that forgive an old candle."""
    app = folder / "app"
    (app / "modules").mkdir(parents=True)
    for name in ("main.py", "config.py"):
        shutil.copy(ROOT / name, app / name)
    for entry in (ROOT / "modules").iterdir():
        if entry.name not in ("strategies", "__pycache__"):
            (app / "modules" / entry.name).symlink_to(entry)
    shutil.copytree(ROOT / "modules" / "strategies", app / "modules" / "strategies", ignore=shutil.ignore_patterns("__pycache__"))
    (app / "modules" / "strategies" / "above.py").write_text(STRATEGY, encoding="utf-8")
    shutil.copytree(ROOT / "policies", app / "policies")
    changed(app, "risk", bar_late_s_max=100_000, frozen_bars_max=1000, clock_offset_s_max=10, quote_age_s_max=30)
    changed(app, "execution", wallet_poll_s=0.5, wallet_settle_s=0.3)
    return app


def changed(app: Path, policy: str, **values: Any) -> None:
    path = app / "policies" / f"{policy}_policy.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


class Modes:
    """`python main.py trade` of an installation, with the settings in its config.toml."""

    def __init__(self, app: Path, mode: str, settings: str) -> None:
        self.app = app
        self.state = app / "state" / mode
        (app / "config.toml").write_text(f'mode = "{mode}"\n{settings}', encoding="utf-8")
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.app / "out.txt").open("ab") as out:
            self._child = subprocess.Popen([sys.executable, str(self.app / "main.py"), "trade"], cwd=self.app, stdout=out, stderr=out,
                                           env={**os.environ, "PYTHONUNBUFFERED": "1"})

    def verb(self, *words: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(self.app / "main.py"), *words], cwd=self.app, capture_output=True, text=True,
                              timeout=60, check=False, env={**os.environ, **(environment or {})})

    @property
    def out(self) -> str:
        return (self.app / "out.txt").read_text(encoding="utf-8")

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        return call(self.state / "control.sock", command, arguments)

    def running(self) -> bool:
        try:
            return bool(self.ask("status")["running"])
        except DaemonNotRunning:
            return False

    def warm(self) -> bool:
        return not any("warming up" in problem for problem in self.ask("status")["problems"])

    def wait(self, what: str, holds: Any, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self._child is not None and self._child.poll() is None, self.out[-3000:]
            if holds():
                return
            time.sleep(0.05)
        log = self.app / "logs" / "trading_bot.json"
        pytest.fail(f"{what}: not within {seconds:g} s: {self.out[-1500:]} {log.read_text()[-3000:] if log.exists() else ''}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self._child is not None
        self._child.send_signal(number)
        return self._child.wait(timeout=20)

    def end(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()


class Hurry:
    """A Bybit whose minutes end twice a second; the price is where `price` says."""

    def __init__(self) -> None:
        self.price = "50000"

    async def run(self, venue: BybitEmulator) -> None:
        market, now = venue.market, ""
        for candles in market.candles.values():
            for candle in candles:
                candle[0] -= LAG_MIN * 60_000
        while True:
            for category in ("spot", "linear"):
                if self.price != now:
                    market.move(category, "BTCUSDT", self.price)
                for name in ("BTCUSDT", "ETHUSDT"):
                    market.walk(category, name, 1, 1) if name == "ETHUSDT" else market.move(category, name, self.price)
                    market.close_bar(category, name)
            now = self.price
            await asyncio.sleep(0.5)
