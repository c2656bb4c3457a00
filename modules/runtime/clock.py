"""Time, wall and virtual. Nothing else in the program reads a clock, so a year can pass in seconds and twice the same way."""

from __future__ import annotations

import asyncio
import heapq
import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Final, Protocol

Tick = Callable[[int], int | None]
"""A plain function of `at` (UTC ms) that an authority wants called every so often. It may answer when it next has something to do (UTC
ms): until then nothing but a new fact can give it work."""
IDLE: Final = 1 << 62
"""What a tick answers that only a new fact can give work."""
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

    def reach(self, at: int) -> bool:
        """Be at `at` without suspending, where nothing else is to run before; False = `sleep_until` has to do it."""
        ...

    async def settle(self) -> None:
        """Let every task that can run now run, until all of them wait."""
        ...

    def busy(self) -> bool:
        """Whether there is anything to settle."""
        ...

    def stir(self) -> None:
        """A new fact: every tick looks again at the next pulse."""
        ...

    def pulse(self, at: int) -> None:
        """A feed calls this before it hands over what happened at `at`: on virtual time, the ticks that are due run now."""
        ...

    async def drive(self, period_s: float, tick: Tick) -> None:
        """Call `tick(at)` every `period_s` seconds for ever. On virtual time it is called once per pulse at most, never in between:
        where the market's next event is further away than the period, nothing could have changed meanwhile; and not before the instant
        it answered unless something stirs."""
        ...


def pause(seconds: float) -> None:
    """Wait on the wall's time, blocking: for what happens before there is a loop."""
    time.sleep(seconds)


class WallClock:
    """Real time; `speed` > 1 makes a demo market's seconds pass faster, starting at `start` (UTC ms)."""

    def __init__(self, speed: float = 1.0, start: int | None = None) -> None:
        self.speed = speed
        self._scaled = start is not None
        self._start = start if start is not None else 0
        self._zero = time.monotonic()
        self._held: int | None = None

    def now(self) -> int:
        if not self._scaled:
            return time.time_ns() // 1_000_000
        if self._held is not None:
            return self._held
        return self._start + int((time.monotonic() - self._zero) * 1000.0 * self.speed)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A demo market waits while its daemon starts; else a slow machine would begin hours late, with every feed stale. Real time
        waits for nobody."""
        self._held = self.now()
        try:
            yield
        finally:
            self._start, self._zero, self._held = self._held, time.monotonic(), None

    async def sleep_until(self, at: int) -> None:
        await asyncio.sleep(max(0.0, (at - self.now()) / 1000.0 / self.speed))

    def reach(self, at: int) -> bool:
        return False

    async def settle(self) -> None:
        await asyncio.sleep(0)

    def busy(self) -> bool:
        return True

    def stir(self) -> None:
        pass

    def pulse(self, at: int) -> None:
        pass

    async def drive(self, period_s: float, tick: Tick) -> None:
        while True:
            tick(self.now())
            await asyncio.sleep(max(period_s / self.speed, min(period_s, FASTEST_TICK_S)))


class _Selector(selectors.SelectSelector):
    """Nothing outside has a say in simulated time: the operating system is only asked when there is nothing else to do."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return [] if timeout is not None and timeout <= 0.0 else super().select(timeout)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock leaps to the next timer when every task waits, so simulated time costs no real time."""

    def __init__(self, start: int) -> None:
        super().__init__(_Selector())
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


class _Drive:
    """One tick: when it may be called again, and when it wants to be (not before)."""

    __slots__ = ("due", "period", "place", "tick", "wanted")

    def __init__(self, place: int, period: int, tick: Tick) -> None:
        self.place = place
        self.period = period
        self.tick = tick
        self.due = self.wanted = 0

    def call(self, at: int) -> None:
        self.due = at + self.period
        wanted = self.tick(at)
        self.wanted = self.due if wanted is None or wanted < self.due else wanted


_wanted: Final = attrgetter("wanted")


class VirtualClock:
    """Time of a VirtualLoop. Feeds advance it; ticks run at pulses."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.speed = 1.0
        self._loop = loop
        self._drives: list[_Drive] = []
        self._first: _Drive | None = None
        """The tick that is due first, when it is, and when the next one is: most pulses are for one alone, or for none."""
        self._next_due = 0
        self._second_due = 0
        self._stirred = False
        self._settling = 0

    def now(self) -> int:
        return round(self._loop.time() * 1000.0)

    def reach(self, at: int) -> bool:
        """Leaps when nothing else could run before `at`: what makes 25,000 bars a second possible."""
        loop, seconds = self._loop, at / 1000.0
        if loop._scheduled:  # type: ignore[attr-defined]
            return loop.leap(seconds)
        if loop._ready:  # type: ignore[attr-defined]
            return False
        if seconds > loop._virtual:
            loop._virtual = seconds
        return True

    async def sleep_until(self, at: int) -> None:
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

    def busy(self) -> bool:
        return bool(self._loop._ready)  # type: ignore[attr-defined]

    def stir(self) -> None:
        self._stirred = True
        self._next_due = 0

    def pulse(self, at: int) -> None:
        if at < self._next_due:
            return
        stirred, self._stirred, place, first = self._stirred, False, 0, self._first
        if first is not None and not stirred and at < self._second_due:
            first.call(at)
            if not self._stirred and first.wanted <= self._second_due:
                self._next_due = first.wanted
                return
            place = first.place + 1
        for drive in self._drives[place:]:
            # A fact that one tick writes stirs those after it at this very pulse, those before it at the next.
            if at >= (drive.due if stirred or self._stirred else drive.wanted):
                drive.call(at)
            elif stirred or self._stirred:
                drive.wanted = min(drive.wanted, drive.due)  # it was called a moment ago: what stirred is looked at when it is due again
        order = sorted(self._drives, key=_wanted)
        self._first = order[0] if order else None
        self._second_due = order[1].wanted if len(order) > 1 else IDLE
        self._next_due = order[0].wanted if order and not self._stirred else 0

    async def drive(self, period_s: float, tick: Tick) -> None:
        self._drives.append(_Drive(len(self._drives), int(period_s * 1000), tick))
        self._first, self._next_due = None, 0
        await asyncio.Event().wait()
