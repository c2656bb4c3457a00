"""What the tests of Binance and its adapter share; the rest is bybit_worlds.py's: a venue on loopback, our adapter in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pydantic import SecretStr

from modules.domain.instrument import AssetClass
from modules.venues.ccxt_binance import BinanceDialect
from modules.venues.ccxt_client import Credentials, Endpoint
from modules.venues.ccxt_venue import CcxtVenue
from tests.bybit_worlds import BOTH, FEES, PERP, SPOT, PushedClock
from tests.emulators import binance as emulator


def endpoint(venue: emulator.BinanceEmulator) -> Endpoint:
    return Endpoint(venue.url, venue.url.replace("http", "ws"))


def adapter(venue: emulator.BinanceEmulator, *, classes: Sequence[AssetClass] = BOTH, symbols: Sequence[str] = (SPOT, PERP),
            **changes: Any) -> CcxtVenue:
    settings: dict[str, Any] = {
        "credentials": Credentials(SecretStr(emulator.KEY), SecretStr(emulator.SECRET)), "endpoint": endpoint(venue), "timeout_s": 30.0,
        "stale_s": 20.0, "audit_s": 30.0, "timeframe": "1m", "fees": FEES, "dialect": BinanceDialect(), **changes}
    made = CcxtVenue(PushedClock(), classes=classes, symbols=symbols, **settings)
    for client in filter(None, (made.data, made.trade)):
        client.enableRateLimit = False  # loopback needs none, and it costs 50 ms a call
        client.timeout_on_exit = 0
    return made


@asynccontextmanager
async def binance(**changes: Any) -> AsyncIterator[tuple[emulator.BinanceEmulator, CcxtVenue]]:
    """A running emulator and an adapter that talks to it."""
    async with emulator.serving() as venue:
        made = adapter(venue, **changes)
        try:
            yield venue, made
        finally:
            await made.close()
