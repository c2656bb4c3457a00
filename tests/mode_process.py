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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from modules.domain.errors import DaemonNotRunning
from modules.runtime.control import call
from tests.daemon_process import ROOT
from tests.emulators.bybit import BybitEmulator
from tests.timing import PATIENCE_S

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


def installation(folder: Path, strategy: str | None = STRATEGY) -> Path:
    """`folder`/app: main.py, config.py, modules with one strategy more ("above"; None = none), policies that forgive an old candle."""
    app = folder / "app"
    (app / "modules").mkdir(parents=True)
    for name in ("main.py", "config.py"):
        shutil.copy(ROOT / name, app / name)
    for entry in (ROOT / "modules").iterdir():
        if entry.name not in ("strategies", "__pycache__"):
            (app / "modules" / entry.name).symlink_to(entry)
    shutil.copytree(ROOT / "modules" / "strategies", app / "modules" / "strategies", ignore=shutil.ignore_patterns("__pycache__"))
    if strategy is not None:
        (app / "modules" / "strategies" / "above.py").write_text(strategy, encoding="utf-8")
    shutil.copytree(ROOT / "policies", app / "policies")
    changed(app, "risk", bar_late_s_max=100_000, frozen_bars_max=1000, clock_offset_s_max=10, quote_age_s_max=30)
    changed(app, "execution", wallet_poll_s=0.5, wallet_settle_s=0.3, difference_proof_s=0.3)
    return app


CERTIFY = """
import json, sys
from pathlib import Path
import config
from modules.backtest.trial_anchor import file_of
from modules.backtest.trials import TrialRegistry
from modules.domain.certificate import Certificate, Envelope, bound, save
from modules.domain.instrument import AssetClass
from modules.runtime.clock import WallClock
from modules.strategies.fingerprint import code_hash, params_of
from modules.strategies.registry import get
name, word, instruments, numbers = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
at, day, one, asset_class = WallClock().now(), 86_400_000, get(name), AssetClass(word)
made = Certificate(strategy=name, asset_class=asset_class, instruments=tuple(instruments), params=params_of(one),
                   code_hash=code_hash(one), data_hash="d" * 64,
                   policy=bound(config.load_policies(Path("policies")), asset_class),
                   data_from=at - 700 * day, data_until=at - day, issued_at=at, revalidate_at=at + 30 * day, expires_at=at + 45 * day,
                   confidence=0.6, envelope=Envelope(**numbers), metrics={"sharpe": 1.9, "p_value": 0.001}, seed=7, trials=24,
                   submissions=1)
save(made, Path("state/certificates"))
registry = TrialRegistry(file_of(Path("state/validation"), asset_class), same_code=0.85, same_results=0.9)
registry.issued(name, made.digest, at)
registry.close()
"""
ENVELOPE: dict[str, float] = {
    "trades": 800, "trades_per_year": 300.0, "mean_r": 0.2, "sd_r": 1.0, "drawdown_r": 30.0, "drawdown_trades": 300, "slippage_bp": 4.0,
    "fill_ratio": 0.98, "win_rate": 0.58}


def certify(app: Path, strategy: str, asset_class: str, instruments: Sequence[str], *, environment: Mapping[str, str] | None = None,
            **envelope: float) -> None:
    """A certificate as `validate` would leave it, on record in the trial registry. With HURRIED in the environment, on that clock."""
    script = app / "certify.py"
    script.write_text(CERTIFY, encoding="utf-8")
    hurried = [str(ROOT / "tests" / "hurried.py")] if environment else []
    command = [sys.executable, *hurried, str(script), strategy, asset_class, json.dumps(list(instruments)), json.dumps(ENVELOPE | envelope)]
    done = subprocess.run(command, cwd=app, capture_output=True, text=True, timeout=120, check=False,
                          env={**os.environ, "PYTHONPATH": str(app), **(environment or {})})
    assert done.returncode == 0, done.stderr


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
                              timeout=2 * PATIENCE_S, check=False, env={**os.environ, **(environment or {})})

    @property
    def out(self) -> str:
        return (self.app / "out.txt").read_text(encoding="utf-8")

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        return call(self.state / "control.sock", command, arguments, timeout_s=PATIENCE_S)

    def running(self) -> bool:
        try:
            return bool(self.ask("status")["running"])
        except (DaemonNotRunning, TimeoutError):
            return False

    def warm(self) -> bool:
        return not any("warming up" in problem for problem in self.ask("status")["problems"])

    def wait(self, what: str, holds: Any, seconds: float = 2 * PATIENCE_S) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self._child is not None and self._child.poll() is None, self.out[-3000:]
            if holds():
                return
            time.sleep(0.05)
        log = self.app / "logs" / "trading_bot.json"
        pytest.fail(f"{what}: not within {seconds:g} s: {self.out[-1500:]} {log.read_text()[-3000:] if log.exists() else ''}")

    def ends(self, seconds: float) -> bool:
        """Whether it ends by itself within so long, and then not by its own will."""
        assert self._child is not None
        try:
            return self._child.wait(timeout=seconds) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self._child is not None
        self._child.send_signal(number)
        return self._child.wait(timeout=PATIENCE_S)

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
