"""Time, wall and virtual. Nothing else in the program reads a clock, so a year can pass in seconds and twice the same way."""

from __future__ import annotations

import asyncio
import heapq
import selectors
import time
from collections.abc import Callable
from typing import Final, Protocol

Tick = Callable[[int], None]
"""A plain function of `at` (UTC ms) that an authority wants called every so often."""
_LONG_MS: Final = 86_400_000
"""Where nothing is due sooner, look again after this."""


FASTEST_TICK_S: Final = 0.05
"""However fast a demo market runs, ticks do not come more often than this in real time."""


class Clock(Protocol):
    speed: float
    """Market seconds per real second: 1 but for a demo market in a hurry, whose real delays count that many times."""

    def now(self) -> int:
        """UTC milliseconds."""
        ...

    async def sleep_until(self, at: int) -> None:
        """Return at `at` (UTC ms) or at once if that is past. In virtual time nothing else may be due before it."""
        ...

    async def settle(self) -> None:
        """Let every task that can run now run, until all of them wait."""
        ...

    def pulse(self, at: int) -> None:
        """A feed calls this before it hands over what happened at `at`: on virtual time, the ticks that are due run now."""
        ...

    async def drive(self, period_s: float, tick: Tick) -> None:
        """Call `tick(at)` every `period_s` seconds for ever. On virtual time it is called once per pulse at most, never in between:
        where the market's next event is further away than the period, nothing could have changed meanwhile."""
        ...


class WallClock:
    """Real time; `speed` > 1 makes a demo market's seconds pass faster, starting at `start` (UTC ms)."""

    def __init__(self, speed: float = 1.0, start: int | None = None) -> None:
        self.speed = speed
        self._scaled = start is not None
        self._start = start if start is not None else 0
        self._zero = time.monotonic()

    def now(self) -> int:
        if not self._scaled:
            return time.time_ns() // 1_000_000
        return self._start + int((time.monotonic() - self._zero) * 1000.0 * self.speed)

    async def sleep_until(self, at: int) -> None:
        await asyncio.sleep(max(0.0, (at - self.now()) / 1000.0 / self.speed))

    async def settle(self) -> None:
        await asyncio.sleep(0)

    def pulse(self, at: int) -> None:
        pass

    async def drive(self, period_s: float, tick: Tick) -> None:
        while True:
            tick(self.now())
            await asyncio.sleep(max(period_s / self.speed, min(period_s, FASTEST_TICK_S)))


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock leaps to the next timer when every task waits, so simulated time costs no real time."""

    def __init__(self, start: int) -> None:
        super().__init__(selectors.SelectSelector())
        self._virtual = start / 1000.0
        # Timers closer together than this fire together; 1e-9 would fall below float spacing at epoch-sized clocks and spin for ever.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._virtual

    def leap(self, seconds: float) -> bool:
        """Move on to `seconds` unless something else is to run before; whether it is that late now."""
        if self._ready:  # type: ignore[attr-defined]
            return False
        due = self.next_timer()
        if due is not None and due <= seconds:
            return False
        if seconds > self._virtual:
            self._virtual = seconds
        return True

    def next_timer(self) -> float | None:
        """When the earliest timer that still stands is due, None without timers."""
        scheduled = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
        return scheduled[0]._when if scheduled else None

    def ready(self) -> int:
        """How many callbacks wait to run right now."""
        return len(self._ready)  # type: ignore[attr-defined]

    def _run_once(self) -> None:
        if not self._ready and not self._stopping:  # type: ignore[attr-defined]
            due = self.next_timer()
            if due is not None and due > self._virtual:
                self._virtual = due
        super()._run_once()  # type: ignore[misc]


class VirtualClock:
    """Time of a VirtualLoop. Feeds advance it; ticks run at pulses."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.speed = 1.0
        self._loop = loop
        self._ticks: list[tuple[int, Tick]] = []
        self._due: list[int] = []
        self._next_due = 0
        self._settling = 0

    def now(self) -> int:
        return round(self._loop.time() * 1000.0)

    async def sleep_until(self, at: int) -> None:
        """Leaps without suspending when nothing else could run before `at`: what makes 25,000 bars a second possible."""
        if self._loop.leap(at / 1000.0):
            return
        await asyncio.sleep(max(0.0, at / 1000.0 - self._loop.time()))
        await self.settle()

    async def settle(self) -> None:
        # Others that settle at the same time are ready too, but only wait for the rest, as we do.
        self._settling += 1
        while self._loop.ready() >= self._settling:  # noqa: ASYNC110
            await asyncio.sleep(0)
        self._settling -= 1

    def pulse(self, at: int) -> None:
        if at < self._next_due:
            return
        next_due, due_at = at + _LONG_MS, self._due
        for index, (period, tick) in enumerate(self._ticks):
            due = due_at[index]
            if at >= due:
                due = due_at[index] = at + period
                tick(at)
            if due < next_due:
                next_due = due
        self._next_due = next_due

    async def drive(self, period_s: float, tick: Tick) -> None:
        self._ticks.append((int(period_s * 1000), tick))
        self._due.append(0)
        self._next_due = 0
        await asyncio.Event().wait()
