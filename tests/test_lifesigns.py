"""The gauge of the loop's lateness: told at once, held against the daemon once there is a minute to judge by."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from modules.runtime.clock import VirtualLoop
from modules.runtime.lifesigns import LoopLag


def test_one_late_waking_at_the_start_is_told_but_is_no_problem_of_a_daemon_that_has_not_run_a_minute() -> None:
    loop, lag = VirtualLoop(0), LoopLag()

    async def life() -> None:
        measuring = asyncio.create_task(lag.run())
        await asyncio.sleep(0.01)
        loop._virtual += 2.0    # a start that holds the loop for two seconds
        await asyncio.sleep(0.2)
        assert lag.p99_ms() == pytest.approx(1_960.0, abs=100.0)
        assert lag.judged_ms() is None
        await asyncio.sleep(61.0)
        assert lag.judged_ms() == lag.p99_ms() == pytest.approx(0.0, abs=0.1)
        measuring.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await measuring

    loop.run_until_complete(life())
    loop.close()
