"""Time, virtual and wall: a year in no time, in order, the same way twice; and a wall clock that can run a market faster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from modules.runtime.clock import IDLE, VirtualClock, VirtualLoop, WallClock
from tests.timing import within

T = TypeVar("T")
START = 1_767_571_200_000
YEAR_MS = 365 * 86_400_000


def on_virtual_time(work: Coroutine[Any, Any, T], loop: VirtualLoop) -> T:
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def clocked(start: int = START) -> tuple[VirtualLoop, VirtualClock]:
    loop = VirtualLoop(start)
    return loop, VirtualClock(loop)


def test_a_year_of_sleeping_takes_no_time() -> None:
    loop, clock = clocked()

    async def sleeper() -> int:
        for day in range(1, 366):
            await clock.sleep_until(START + day * 86_400_000)
        return clock.now()

    began = time.process_time()
    assert on_virtual_time(sleeper(), loop) == START + YEAR_MS
    assert time.process_time() - began < within(1.0)


def test_milliseconds_stay_exact_at_epoch_sized_times() -> None:
    loop, clock = clocked()

    async def step() -> list[int]:
        seen = []
        for ms in (1, 2, 50, 51, 999, 1000):
            await clock.sleep_until(START + ms)
            seen.append(clock.now() - START)
        return seen

    assert on_virtual_time(step(), loop) == [1, 2, 50, 51, 999, 1000]


def test_sleepers_wake_in_the_order_of_their_times_whoever_came_first() -> None:
    loop, clock = clocked()
    woken: list[tuple[str, int]] = []

    async def sleep(name: str, *waits: int) -> None:
        for wait in waits:
            await clock.sleep_until(START + wait)
            woken.append((name, clock.now() - START))

    async def all_of_them() -> None:
        await asyncio.gather(sleep("a", 300, 301, 5000), sleep("b", 100, 4000), sleep("c", 200, 302, 303))

    on_virtual_time(all_of_them(), loop)
    assert [at for _, at in woken] == sorted(at for _, at in woken)
    assert woken[0] == ("b", 100) and woken[-1] == ("a", 5000)


def test_nobody_leaps_over_a_timer_of_somebody_else() -> None:
    """Else an order would be answered after the bar that came later than the answer."""
    loop, clock = clocked()
    seen: list[tuple[str, int]] = []

    async def other() -> None:
        await asyncio.sleep(0.050)
        seen.append(("answer", clock.now() - START))

    async def feed() -> None:
        task = asyncio.create_task(other())
        await asyncio.sleep(0)
        await clock.sleep_until(START + 300_000)
        seen.append(("bar", clock.now() - START))
        await task

    on_virtual_time(feed(), loop)
    assert seen == [("answer", 50), ("bar", 300_000)]


def test_a_time_that_is_past_returns_at_once_and_never_turns_back() -> None:
    loop, clock = clocked()

    async def step() -> int:
        await clock.sleep_until(START + 1000)
        await clock.sleep_until(START + 10)
        return clock.now() - START

    assert on_virtual_time(step(), loop) == 1000


def test_settling_lets_a_whole_chain_of_tasks_finish() -> None:
    loop, clock = clocked()
    done: list[int] = []

    async def chain(depth: int) -> None:
        await asyncio.sleep(0)
        done.append(depth)
        if depth:
            asyncio.get_running_loop().create_task(chain(depth - 1))

    async def settle() -> int:
        task = asyncio.create_task(chain(20))
        await clock.settle()
        await task
        return len(done)

    assert on_virtual_time(settle(), loop) == 21


def test_settling_does_not_wait_for_timers_nor_for_others_who_settle() -> None:
    loop, clock = clocked()
    order: list[str] = []

    async def settles(name: str) -> None:
        await clock.settle()
        order.append(name)

    async def run() -> None:
        late = asyncio.create_task(asyncio.sleep(10.0))
        await asyncio.gather(settles("one"), settles("two"), settles("three"))
        assert clock.now() == START and not late.done()
        late.cancel()

    on_virtual_time(run(), loop)
    assert sorted(order) == ["one", "three", "two"]


def test_a_tick_comes_once_per_pulse_at_most_and_not_before_its_period_is_over() -> None:
    loop, clock = clocked()
    fast: list[int] = []
    slow: list[int] = []

    async def run() -> None:
        ticks = [asyncio.create_task(clock.drive(1.0, fast.append)), asyncio.create_task(clock.drive(600.0, slow.append))]
        await asyncio.sleep(0)
        for minute in (0, 5, 10, 10, 15, 20):
            clock.pulse(START + minute * 60_000)
        for task in ticks:
            task.cancel()

    on_virtual_time(run(), loop)
    assert [(at - START) // 60_000 for at in fast] == [0, 5, 10, 15, 20]
    assert [(at - START) // 60_000 for at in slow] == [0, 10, 20]


def test_a_tick_that_says_when_it_has_work_sleeps_until_then_unless_a_fact_stirs_it() -> None:
    loop, clock = clocked()
    sleeper: list[int] = []
    other: list[int] = []

    def sleepy(at: int) -> int:
        sleeper.append((at - START) // 60_000)
        return START + 30 * 60_000

    async def run() -> None:
        ticks = [asyncio.create_task(clock.drive(60.0, sleepy)), asyncio.create_task(clock.drive(60.0, other.append))]
        await asyncio.sleep(0)
        for minute in (0, 10, 20, 21, 29, 30, 31):
            if minute == 20:
                clock.stir()
            clock.pulse(START + minute * 60_000)
        for task in ticks:
            task.cancel()

    on_virtual_time(run(), loop)
    assert sleeper == [0, 20, 30, 31]  # 31: what it answers is past, so its period is all that counts
    assert len(other) == 7


def test_what_stirs_a_tick_that_was_called_a_moment_ago_is_looked_at_when_it_is_due_again() -> None:
    loop, clock = clocked()
    seen: list[int] = []

    def tick(at: int) -> int:
        seen.append(at - START)
        return IDLE

    async def run() -> None:
        task = asyncio.create_task(clock.drive(1.0, tick))
        await asyncio.sleep(0)
        for milliseconds in (0, 300, 700, 1_000, 2_000):
            if milliseconds == 300:
                clock.stir()
            clock.pulse(START + milliseconds)
        task.cancel()

    on_virtual_time(run(), loop)
    assert seen == [0, 1_000]


def test_a_fact_that_one_tick_writes_wakes_those_after_it_at_once_and_those_before_it_at_the_next_pulse() -> None:
    loop, clock = clocked()
    seen: list[tuple[str, int]] = []

    def sleeper(name: str) -> Callable[[int], int]:
        def tick(at: int) -> int:
            seen.append((name, (at - START) // 60_000))
            return IDLE
        return tick

    def writer(at: int) -> None:
        if at == START + 60_000:
            clock.stir()

    async def run() -> None:
        ticks = [asyncio.create_task(clock.drive(1.0, tick)) for tick in (sleeper("before"), writer, sleeper("after"))]
        await asyncio.sleep(0)
        for minute in range(5):
            clock.pulse(START + minute * 60_000)
        for task in ticks:
            task.cancel()

    on_virtual_time(run(), loop)
    assert seen == [("before", 0), ("after", 0), ("after", 1), ("before", 2), ("after", 2)]


def test_a_tick_that_comes_late_to_the_clock_is_not_forgotten() -> None:
    loop, clock = clocked()
    seen: list[int] = []

    async def run() -> None:
        early = asyncio.create_task(clock.drive(600.0, lambda _: None))
        await asyncio.sleep(0)
        clock.pulse(START)
        late = asyncio.create_task(clock.drive(60.0, seen.append))
        await asyncio.sleep(0)
        clock.pulse(START + 60_000)
        early.cancel()
        late.cancel()

    on_virtual_time(run(), loop)
    assert seen == [START + 60_000]


def test_two_runs_of_the_same_tasks_are_the_same_run() -> None:
    def run() -> list[tuple[int, int]]:
        loop, clock = clocked()
        trace: list[tuple[int, int]] = []

        async def worker(number: int) -> None:
            for step in range(1, 40):
                await clock.sleep_until(START + step * (7 + number) * 13)
                trace.append((number, clock.now()))
                await clock.settle()

        async def all_of_them() -> None:
            await asyncio.gather(*(worker(number) for number in range(6)))

        on_virtual_time(all_of_them(), loop)
        return trace

    assert run() == run()


def test_an_exception_in_a_task_is_not_swallowed_by_virtual_time() -> None:
    loop, clock = clocked()

    async def fails() -> None:
        await clock.sleep_until(START + 1000)
        raise LookupError("found")

    try:
        on_virtual_time(fails(), loop)
    except LookupError as error:
        assert str(error) == "found"
    else:
        raise AssertionError("it was swallowed")


# -- the wall --------------------------------------------------------------------------------------------------------------------


def test_the_wall_clock_is_utc_in_milliseconds() -> None:
    assert abs(WallClock().now() - time.time() * 1000.0) < 60_000.0


async def test_a_fast_wall_clock_passes_market_seconds_faster() -> None:
    clock = WallClock(1000.0, START)
    began = time.monotonic()
    await clock.sleep_until(START + 60_000)
    passed = time.monotonic() - began
    assert clock.now() >= START + 60_000 and 0.03 < passed < 60.0


async def test_a_clock_that_goes_on_after_a_restart_begins_where_it_is_told() -> None:
    assert 0 <= WallClock(1.0, START + 12_345).now() - (START + 12_345) < 60_000


def test_a_held_market_waits_for_its_daemon_and_then_goes_on_from_where_it_was() -> None:
    clock = WallClock(1000.0, START)
    with clock.held():
        at = clock.now()
        time.sleep(0.3)
        assert clock.now() == at
        released = time.monotonic()
    assert at <= clock.now() <= at + (time.monotonic() - released) * 1_000_000.0    # what was slept is not made up for
    time.sleep(0.01)
    assert clock.now() > at


async def test_on_the_wall_a_tick_comes_every_period() -> None:
    clock = WallClock(100.0, START)
    seen: list[int] = []
    task = asyncio.create_task(clock.drive(1.0, seen.append))
    async with asyncio.timeout(60.0):
        while len(seen) < 3:  # noqa: ASYNC110 - real time is what is tested
            await asyncio.sleep(0.01)
    task.cancel()
    assert seen == sorted(seen) and seen[-1] - seen[0] >= 1_900
    count = len(seen)
    clock.pulse(START)  # a feed's pulse means nothing here
    assert len(seen) == count


async def test_settling_on_the_wall_lets_a_task_that_is_ready_run() -> None:
    ran: list[bool] = []
    asyncio.get_running_loop().call_soon(ran.append, True)
    await WallClock().settle()
    assert ran == [True]
