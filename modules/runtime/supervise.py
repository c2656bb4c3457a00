"""Who may die of what: a core task's error ends the process, a peripheral one is restarted with back-off and announced."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

Announce = Callable[[str, BaseException, float], None]
"""(task name, error, seconds until restart)"""


async def keep_running(
    name: str, run: Callable[[], Awaitable[None]], announce: Announce, *, first_s: float = 1.0, longest_s: float = 60.0
) -> None:
    """Run a peripheral coroutine (news, Telegram, web page) for ever; its errors never reach trading.

    The pause doubles from `first_s` to `longest_s` and starts again after ten quiet minutes.
    """
    pause = first_s
    while True:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await run()
            return
        except Exception as error:  # the one place that may: what failed here is not ours to handle
            if loop.time() - began > 600.0:
                pause = first_s
            announce(name, error, pause)
        await asyncio.sleep(pause)
        pause = min(2.0 * pause, longest_s)


def attempt_step(step: Callable[[Any, Any, Any], Any], state: Any, market: Any, params: Any) -> Any:
    """As `attempt` for the one call that is made at every bar: its result, or the exception it raised in its place."""
    try:
        return step(state, market, params)
    except Exception as error:  # as below
        return error


def attempt(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Exception | None]:
    """Call code that is not ours (a user's strategy) and give back (result, None) or (None, what it raised)."""
    try:
        return function(*arguments), None
    except Exception as error:  # a strategy may raise anything; it is quarantined, the daemon goes on
        return None, error
