"""A process on a clock that runs `SPEED` times as fast: `python hurried.py main.py trade ...`.

Whatever reads the time of day (our clock, ccxt's signatures) sees it fly; what is measured in the machine's own seconds (time-outs of
sockets, the event loop's lag) does not. Nothing else of the program is touched. Processes given the same HURRIED agree on the time.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

VARIABLE = "HURRIED"
CCXT = "HURRIED_CCXT"
"""Set where the process speaks through ccxt."""

CENSUS = "CENSUS"
"""File to which SIGUSR2 writes what the process holds (census.py, beside this file)."""


class Pace(NamedTuple):
    speed: float
    start_ms: int
    """What it was (UTC ms) when the machine's monotonic clock showed `zero_s`."""
    zero_s: float

    def word(self) -> str:
        return f"{self.speed!r} {self.start_ms} {self.zero_s!r}"

    def now_ms(self) -> int:
        return self.start_ms + int((time.monotonic() - self.zero_s) * 1000.0 * self.speed)


def pace_of(word: str) -> Pace:
    speed, start, zero = word.split()
    return Pace(float(speed), int(start), float(zero))


def pace(speed: float, start_ms: int) -> Pace:
    """Beginning now."""
    return Pace(speed, start_ms, time.monotonic())


def take_effect(pace: Pace) -> None:
    """From now on this process lives on that time."""
    zero, start_ns, speed = pace.zero_s, pace.start_ms * 1_000_000, pace.speed

    def time_ns() -> int:
        return start_ns + int((time.monotonic() - zero) * 1e9 * speed)

    time.time_ns, time.time = time_ns, lambda: time_ns() / 1e9


def _delays(pace: Pace) -> None:
    """Waits until an instant are as much shorter."""
    from modules.runtime.clock import WallClock

    made = WallClock.__init__

    def hurried(self: WallClock, *given: Any, **named: Any) -> None:
        made(self, *given, **named)
        self.speed *= pace.speed

    WallClock.__init__ = hurried  # type: ignore[method-assign]


def _pongs() -> None:
    """ccxt waits for pongs in the machine's seconds and dates them by the time of day: it would miss every one. Silence is still noticed,
    by our own watch over the streams."""
    from modules.venues import ccxt_lazy

    ccxt_lazy.install()  # as the program itself would
    from ccxt.async_support.base.ws import client  # type: ignore[import-untyped]

    class Timeless(client.Exchange):  # type: ignore[misc]
        @staticmethod
        def milliseconds() -> int:
            return 0

    client.Exchange = Timeless


if __name__ == "__main__":
    given = pace_of(os.environ[VARIABLE])
    take_effect(given)
    sys.argv = sys.argv[1:]
    _delays(given)
    if os.environ.get(CCXT):
        _pongs()
    if os.environ.get(CENSUS):
        import census  # type: ignore[import-not-found]

        census.on_signal(Path(os.environ[CENSUS]))
    runpy.run_path(sys.argv[0], run_name="__main__")
