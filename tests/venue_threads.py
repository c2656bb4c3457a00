"""An emulated venue in a thread of its own, for tests of verbs that run their own event loop, and the settings that point at it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from modules.runtime.clock import WallClock
from tests.emulators import binance as binance_emulator
from tests.emulators import bybit as bybit_emulator
from tests.emulators import oanda as oanda_emulator
from tests.emulators.binance import BinanceEmulator
from tests.emulators.bybit import BybitEmulator
from tests.emulators.oanda import OandaEmulator
from tests.timing import PATIENCE_S

Emulator = TypeVar("Emulator")
START_S = PATIENCE_S


@contextmanager
def served(made: Callable[[], AbstractAsyncContextManager[Emulator]], work: Callable[[Emulator], Any] | None = None) -> Iterator[Emulator]:
    """The emulator while it serves; `work(emulator)` is a coroutine that runs beside it, like a price walk."""
    ready, found, ended = threading.Event(), list[Emulator](), list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]()

    async def life() -> None:
        stop = asyncio.Event()
        ended.append((asyncio.get_running_loop(), stop))
        async with made() as emulator:
            found.append(emulator)
            beside = asyncio.create_task(work(emulator)) if work is not None else None
            ready.set()
            await stop.wait()
            if beside is not None:
                beside.cancel()
                await asyncio.gather(beside, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(life()), daemon=True)
    thread.start()
    assert ready.wait(START_S), "the emulator did not start"
    try:
        yield found[0]
    finally:
        loop, stop = ended[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(START_S)


def bybit() -> Any:
    """A `served` Bybit whose prices stand still."""
    return served(bybit_emulator.serving)


def binance() -> Any:
    """A `served` Binance, spot and USD-M, whose prices stand still."""
    return served(binance_emulator.serving)


def oanda() -> Any:
    """A `served` OANDA on the wall clock, open on weekends too, whose prices stand still."""
    clock = WallClock()

    async def tick(venue: OandaEmulator) -> None:
        venue.book.weekends = True
        venue.heartbeat_s = 0.2
        while True:
            venue.book.move(clock.now(), dict(venue.book.prices))
            await asyncio.sleep(0.1)

    return served(lambda: oanda_emulator.serving(clock.now()), tick)


SHARED = 'allocate = { SPOT = "500", PERP = "300" }'


def bybit_settings(folder: Path, venue: BybitEmulator, more: str = SHARED, mode: str = "live", classes: str = '"SPOT", "PERP"') -> Path:
    """config.toml and a key file in `folder`; `more` are lines of its [venues.bybit]."""
    key = folder / "bybit.key"
    key.write_text(f"key={bybit_emulator.KEY}\nsecret={bybit_emulator.SECRET}\n")
    key.chmod(0o600)
    return _settings(folder, mode, f"""[venues.bybit]
classes = [{classes}]
key_file = "{key}"
endpoint = "{venue.url}"
symbols = ["BTC/USDT", "BTC/USDT:USDT"]
{more}""")


def binance_settings(folder: Path, venue: BinanceEmulator) -> Path:
    key = folder / "binance.key"
    key.write_text(f"key={binance_emulator.KEY}\nsecret={binance_emulator.SECRET}\n")
    key.chmod(0o600)
    return _settings(folder, "live", f"""[venues.binance]
classes = ["SPOT", "PERP"]
key_file = "{key}"
endpoint = "{venue.url}"
symbols = ["BTC/USDT", "BTC/USDT:USDT"]
{SHARED}""")


def oanda_settings(folder: Path, venue: OandaEmulator, more: str = "", mode: str = "live") -> Path:
    key = folder / "oanda.key"
    key.write_text(f"{oanda_emulator.TOKEN}\n")
    key.chmod(0o600)
    return _settings(folder, mode, f"""[venues.oanda]
classes = ["FOREX"]
account_id = "{oanda_emulator.ACCOUNT}"
key_file = "{key}"
endpoint = "{venue.url}"
symbols = ["EUR/USD"]
{more}""")


def _settings(folder: Path, mode: str, venues: str) -> Path:
    path = folder / "config.toml"
    path.write_text(f'mode = "{mode}"\nstate_dir = "{folder / "state"}"\nlog_dir = "{folder / "logs"}"\n{venues}\n')
    return path
