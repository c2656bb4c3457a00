"""What the tests of Bybit and its adapter share: a venue on loopback, our adapter in front of it, a clock a test may push, orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from pydantic import SecretStr

from modules.domain.instrument import AssetClass, Side
from modules.domain.money import ZERO
from modules.domain.order import Order, OrderKind, Purpose
from modules.runtime.clock import WallClock
from modules.venues.ccxt_client import Credentials, Endpoint
from modules.venues.ccxt_venue import CcxtVenue
from modules.venues.protocol import AccountEvent
from tests.emulators import bybit as emulator
from tests.timing import PATIENCE_S

SPOT, PERP = "BTC/USDT", "BTC/USDT:USDT"
FEES = {AssetClass.SPOT: (Decimal("0.001"), Decimal("0.001")), AssetClass.PERP: (Decimal("0.0002"), Decimal("0.00055"))}
BOTH = (AssetClass.SPOT, AssetClass.PERP)


class PushedClock(WallClock):
    """The wall's time, and what a test adds to it."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_ms = 0

    def now(self) -> int:
        return super().now() + self.ahead_ms


def endpoint(venue: emulator.BybitEmulator) -> Endpoint:
    return Endpoint(venue.url, venue.url.replace("http", "ws"))


def adapter(venue: emulator.BybitEmulator, *, classes: Sequence[AssetClass] = BOTH, symbols: Sequence[str] = (SPOT, PERP),
            **changes: Any) -> CcxtVenue:
    settings: dict[str, Any] = {
        "credentials": Credentials(SecretStr(emulator.KEY), SecretStr(emulator.SECRET)), "endpoint": endpoint(venue), "timeout_s": 30.0,
        "stale_s": 20.0, "audit_s": 30.0, "timeframe": "1m", "fees": FEES, **changes}
    made = CcxtVenue(PushedClock(), classes=classes, symbols=symbols, **settings)
    for client in filter(None, (made.data, made.trade)):
        client.enableRateLimit = False  # loopback needs none, and it costs 20 ms a call
        client.timeout_on_exit = 0
    return made


@asynccontextmanager
async def bybit(**changes: Any) -> AsyncIterator[tuple[emulator.BybitEmulator, CcxtVenue]]:
    """A running emulator and an adapter that talks to it."""
    async with emulator.serving() as venue:
        made = adapter(venue, **changes)
        try:
            yield venue, made
        finally:
            await made.close()


def order(name: str, symbol: str = SPOT, side: Side = Side.BUY, quantity: str = "0.01", *, kind: OrderKind = OrderKind.MARKET,
          price: str | None = None, reduce: bool = False, leverage: str = "10") -> Order:
    purpose = Purpose.STOP if kind is OrderKind.STOP else Purpose.EXIT if reduce else Purpose.ENTRY
    return Order(
        client_order_id=f"tb{name}", trade_id="t", decision_id="d", strategy="s", venue="bybit", symbol=symbol,
        asset_class=AssetClass.PERP if ":" in symbol else AssetClass.SPOT, side=side, quantity=Decimal(quantity), kind=kind,
        purpose=purpose, price=None if price is None else Decimal(price), reduce_only=reduce, leverage=Decimal(leverage),
        arrival_price=Decimal("50000"), slippage_model_bp=ZERO, reserves=ZERO, at=0)


def stop(name: str, symbol: str, price: str, quantity: str = "0.01") -> Order:
    """A protective stop under a long."""
    return order(name, symbol, Side.SELL, quantity, kind=OrderKind.STOP, price=price, reduce=True)


class Listener:
    """Collects an adapter's account events in the background."""

    def __init__(self, made: CcxtVenue) -> None:
        self.events: list[AccountEvent] = []
        self._made = made

    async def _run(self) -> None:
        async for event in self._made.account_events():
            self.events.append(event)

    async def __aenter__(self) -> Listener:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, condition: Any, seconds: float = PATIENCE_S) -> None:
        """Wait until `condition(self.events)`; a dead listener or the time's end is the test's failure."""
        async with asyncio.timeout(seconds):
            while not condition(self.events):
                if self._task.done():
                    self._task.result()
                await asyncio.sleep(0.01)


async def until(condition: Any, seconds: float = PATIENCE_S) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is about what others do
            await asyncio.sleep(0.01)
