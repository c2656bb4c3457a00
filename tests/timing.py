"""Bounds on time that mean the same on every machine: a test's budget is scaled by how slow this one is at this moment.

Three kinds. Processor time (`within`): the bounds guard against an order of magnitude (a merge that compares every bar with every
series); figures are taken by benchmarks/. What is bound to come (`PATIENCE_S`): the wait ends when it came, and its limit is only reached
by a failure. The lateness of an event loop (`Lateness`): compared with a thread that only sleeps in the same seconds, because a busy
machine makes both late and a loop that is held makes only itself late.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import monotonic, perf_counter, process_time, sleep
from types import TracebackType

PATIENCE_S = 60.0
"""Wall seconds a test waits for what must come: so many that only a failure reaches them, on a machine four times slower, beside others."""
STORY_S = 300.0
"""The same for a whole test that waits for many things."""
REFERENCE_S = 0.0125
"""What `_work` takes on the machine the bounds were set on, idle."""
HEADROOM = 3.0
"""Caches shared with other programs slow different work by different factors."""


def _work() -> int:
    value = 0
    for number in range(200_000):
        value = (value * 31 + number) % 1_000_003
    return value


def best_of(work: Callable[[], object], rounds: int = 5) -> float:
    """Processor seconds of the fastest of `rounds` calls."""
    best = float("inf")
    for _ in range(rounds):
        began = process_time()
        work()
        best = min(best, process_time() - began)
    return best


def within(budget: float) -> float:
    """`budget` (any unit of time, measured on the reference machine, idle) as this machine may take for it now."""
    return budget * HEADROOM * max(1.0, best_of(_work) / REFERENCE_S)


def within_wall(budget: float) -> float:
    """`within` for time on the wall: as much more as other programs make this one wait for its turn."""
    began, before = perf_counter(), process_time()
    for _ in range(20):
        _work()
    waited = (perf_counter() - began) / max(process_time() - before, 1e-6)
    return within(budget) * max(1.0, waited)


class Lateness:
    """While the block lasts: how late the running loop is, and how late a thread is that only sleeps.

    A call that blocks the loop lets go of the interpreter, or is made to after 5 ms, so the thread wakes in time although the loop does
    not; a machine that gives this process no time makes both late. `worst_but` leaves out the n worst of the loop's figures.
    """

    def __init__(self, every_s: float = 0.01) -> None:
        self.every_s = every_s
        self.loop: list[float] = []
        self.thread: list[float] = []
        self._over = threading.Event()
        self._sleeper = threading.Thread(target=self._sleep, name="lateness", daemon=True)

    def _sleep(self) -> None:
        while not self._over.is_set():
            due = monotonic() + self.every_s
            sleep(self.every_s)
            self.thread.append(max(0.0, monotonic() - due))

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self.every_s
            await asyncio.sleep(self.every_s)
            self.loop.append(max(0.0, loop.time() - due))

    async def __aenter__(self) -> Lateness:
        self._sleeper.start()
        self._turning = asyncio.create_task(self._turn())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._turning.cancel()
        await asyncio.gather(self._turning, return_exceptions=True)
        self._sleeper.join()

    def worst_but(self, n: int) -> float:
        return sorted(self.loop)[-1 - n] if len(self.loop) > n else 0.0

    @property
    def machine(self) -> float:
        """Seconds the machine itself made a sleeper wait too long, at worst."""
        return max(self.thread, default=0.0)
