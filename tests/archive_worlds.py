"""What the tests of downloads share: an emulated venue in a thread of its own, with a past of our choosing, and settings that find it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from tests.emulators import binance, bybit, oanda

V = TypeVar("V")
MINUTE = 60_000
HOUR, DAY = 60 * MINUTE, 1_440 * MINUTE
START = 1_772_409_600_000
"""2026-03-02 00:00 UTC, a Monday."""


@contextmanager
def threaded(serving: Callable[[], AbstractAsyncContextManager[V]]) -> Iterator[V]:
    """A running venue that answers while the test itself waits for the command line."""
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    found: list[V] = []

    async def serve() -> None:
        async with serving() as venue:
            found.append(venue)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(20.0)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20.0)
        loop.close()


def candles(minutes: int, *, start: int = START, without: range = range(0)) -> list[list[Any]]:
    """One-minute candles whose every number tells its place, so that none can be mistaken for another."""
    made = []
    for number in range(minutes):
        if number not in without:
            base = Decimal(1000) + Decimal(number) / 100
            made.append([start + number * MINUTE, base, base + 2, base - 1, base + 1, Decimal(number % 50 + 1) / 10])
    return made


@contextmanager
def bybit_past(minutes: int = 2_500, **pasts: Any) -> Iterator[bybit.BybitEmulator]:
    """Bybit with `minutes` of BTC in spot and perp from START on, and three settlements a day."""
    with threaded(bybit.serving) as venue:
        for key in venue.market.products:
            venue.market.candles[key] = pasts.get(f"{key[0]}_{key[1]}", candles(minutes))
        venue.funding["BTCUSDT"] = [(START + 8 * HOUR * number, f"0.000{number % 9 + 1}") for number in range(minutes // 480 + 1)]
        yield venue


@contextmanager
def binance_past(minutes: int = 1_200) -> Iterator[binance.BinanceEmulator]:
    """The same on Binance; settlements are stamped some ms late, as there."""
    with threaded(binance.serving) as venue:
        for key in venue.market.products:
            venue.market.candles[key] = candles(minutes)
        venue.funding["BTCUSDT"] = [(START + 8 * HOUR * number + 3, f"0.000{number % 9 + 1}") for number in range(minutes // 480 + 1)]
        yield venue


def settings_file(folder: Path, name: str, **values: Any) -> Path:
    """A config.toml with one venue."""
    path = folder / "config.toml"
    lines = [f"{key} = {'true' if value is True else repr(value).replace(chr(39), chr(34))}" for key, value in values.items()]
    path.write_text(f"[venues.{name}]\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def bybit_settings(folder: Path, venue: bybit.BybitEmulator, **more: Any) -> Path:
    return settings_file(folder, "bybit", classes=["SPOT", "PERP"], endpoint=venue.url, **more)


def oanda_settings(folder: Path, venue: oanda.OandaEmulator) -> Path:
    key = folder / "oanda.key"
    key.write_text(oanda.TOKEN, encoding="utf-8")
    key.chmod(0o600)
    return settings_file(folder, "oanda", classes=["FOREX"], endpoint=venue.url, account_id=oanda.ACCOUNT, key_file=str(key))
