"""`python -m tests.emulators VENUE --port N`: one emulated venue on the loopback interface until interrupted (see README.md)."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from tests.emulators import binance, bybit, oanda

VENUES: dict[str, Callable[[int, int], Awaitable[None]]] = {
    # name -> serve(port, seed): runs until canceled and prints where it listens
    "binance": binance.run,
    "bybit": bybit.run,
    "oanda": oanda.run,
}


async def _serve(venue: str, port: int, seed: int) -> None:
    await VENUES[venue](port, seed)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.emulators", description=__doc__)
    parser.add_argument("venue", choices=sorted(VENUES))
    parser.add_argument("--port", type=int, default=0, help="0 = any free port")
    parser.add_argument("--seed", type=int, default=1, help="of the price path")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(arguments.venue, arguments.port, arguments.seed))


if __name__ == "__main__":
    main()
