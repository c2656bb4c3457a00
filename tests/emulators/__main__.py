"""`python -m tests.emulators VENUE --port N`: one emulated venue on the loopback interface until interrupted (see README.md).

With `--control N` (0 = any free port) it can be told what goes wrong, over a channel of its own, and its prices go up and down in legs;
`HURRIED` in the environment makes its time as fast as the daemon's (tests/hurried.py).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable

from tests import hurried
from tests.emulators import binance, bybit, oanda
from tests.emulators.control import Hands, controlled
from tests.emulators.control_crypto import CryptoHands
from tests.emulators.control_oanda import OandaHands

VENUES: dict[str, Callable[[int, int], Awaitable[None]]] = {
    # name -> serve(port, seed): runs until canceled and prints where it listens
    "binance": binance.run,
    "bybit": bybit.run,
    "oanda": oanda.run,
}
PAST_MIN = 300
"""Minutes of candles that are there at the start, as the other venues have them."""


def _pace() -> hurried.Pace:
    word = os.environ.get(hurried.VARIABLE)
    if not word:
        return hurried.pace(1.0, time.time_ns() // 1_000_000)
    given = hurried.pace_of(word)
    hurried.take_effect(given)
    return given


async def _commanded(venue: str, port: int, control: int, seed: int) -> None:
    """As `VENUES[venue]`, but the market is the control channel's."""
    pace = _pace()
    async with contextlib.AsyncExitStack() as held:
        hands: Hands
        if venue == "oanda":
            broker = await held.enter_async_context(oanda.serving(pace.now_ms() - PAST_MIN * 60_000, port=port))
            broker.book.weekends = True
            hands = OandaHands(broker, seed, pace)
            hands.past(PAST_MIN)
            url = broker.url
        else:
            exchange = await held.enter_async_context((bybit if venue == "bybit" else binance).serving(port))
            hands, url = CryptoHands(exchange, seed, pace.speed), exchange.url
        channel = await held.enter_async_context(controlled(hands, control))
        print(f"{venue} on {url} control http://127.0.0.1:{channel}", flush=True)
        await asyncio.Event().wait()


async def _serve(venue: str, port: int, control: int | None, seed: int) -> None:
    await (VENUES[venue](port, seed) if control is None else _commanded(venue, port, control, seed))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.emulators", description=__doc__)
    parser.add_argument("venue", choices=sorted(VENUES))
    parser.add_argument("--port", type=int, default=0, help="0 = any free port")
    parser.add_argument("--control", type=int, help="port of the control channel; none without it")
    parser.add_argument("--seed", type=int, default=1, help="of the price path")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(arguments.venue, arguments.port, arguments.control, arguments.seed))


if __name__ == "__main__":
    main()
