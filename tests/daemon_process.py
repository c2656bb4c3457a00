"""The real process, for tests that must not trust anything less: started, asked over its control socket, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from modules.runtime.control import call
from tests.timing import PATIENCE_S

ROOT = Path(__file__).resolve().parents[1]


class Process:
    """`python main.py` in a folder of its own."""

    def __init__(self, folder: Path, *arguments: str, speed: float = 1800) -> None:
        self.folder = folder
        self._command = [sys.executable, str(ROOT / "main.py"), "trade", "--speed", f"{speed:g}", *arguments]
        self.state = folder / "state" / "demo"
        self._out = (folder / "out.txt").open("a")
        self._child = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(self._command, cwd=self.folder, stdout=self._out, stderr=self._out,
                                 env={**os.environ, "PYTHONUNBUFFERED": "1"})
        self._child = child
        return child

    def second(self) -> subprocess.CompletedProcess[str]:
        """Another daemon on the same state."""
        return subprocess.run([sys.executable, str(ROOT / "main.py")], cwd=self.folder, capture_output=True, text=True,
                              timeout=2 * PATIENCE_S)

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        return call(self.state / "control.sock", command, arguments, timeout_s=PATIENCE_S)

    def wait(self, what: str, holds: Any, seconds: float = 2 * PATIENCE_S) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self._child.poll() is None, (self.folder / "out.txt").read_text()
            if (self.state / "control.sock").exists() and holds():
                return
            time.sleep(0.1)
        pytest.fail(f"{what} did not happen within {seconds:g} s: {(self.folder / 'out.txt').read_text()[-2000:]}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """(exit code, seconds it took)."""
        began = time.monotonic()
        self._child.send_signal(number)
        return self._child.wait(timeout=PATIENCE_S), time.monotonic() - began

    def end(self) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        self._out.close()
