"""Signs of life: how late the event loop runs, and what systemd is told (READY, WATCHDOG, STOPPING) without a library."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from typing import Final

SAMPLE_S: Final = 0.05
SAMPLES: Final = 1_200
"""The last minute."""


class LoopLag:
    """How much later than asked the loop wakes us, milliseconds."""

    def __init__(self) -> None:
        self._late: deque[float] = deque(maxlen=SAMPLES)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + SAMPLE_S
            await asyncio.sleep(SAMPLE_S)
            self._late.append(max(0.0, (loop.time() - due) * 1000.0))

    def p99_ms(self) -> float | None:
        """99th percentile of the last minute, or of as much of it as there is; None before the first sample."""
        ordered = sorted(self._late)
        return round(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 1) if ordered else None

    def judged_ms(self) -> float | None:
        """The same once there is a whole minute to judge by: of the first seconds one late waking is the 99th percentile, and every start
        has one."""
        return self.p99_ms() if len(self._late) == SAMPLES else None


def notify(message: str) -> bool:
    """One datagram to $NOTIFY_SOCKET; False if there is none or nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect("\0" + address[1:] if address[0] == "@" else address)
            sender.sendall(message.encode())
    except OSError:
        return False
    return True


async def watchdog() -> None:
    """READY=1 now, then WATCHDOG=1 at half of $WATCHDOG_USEC (30 s without one) for as long as the loop runs."""
    notify("READY=1")
    given = os.environ.get("WATCHDOG_USEC", "")
    period = int(given) / 2e6 if given.isdigit() and int(given) > 0 else 30.0
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(period)
