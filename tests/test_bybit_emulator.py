"""The unmodified ccxt against the Bybit emulator: it speaks the wire ccxt knows. (pybit: see emulators/bybit_clients.py.)"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.bybit_worlds import until
from tests.emulators.bybit import KEY, SECRET, BybitEmulator, serving
from tests.timing import PATIENCE_S


@asynccontextmanager
async def _ccxt(venue: BybitEmulator) -> AsyncIterator[Any]:
    """ccxt.pro as anybody would make it, but for its address."""
    import ccxt.pro  # type: ignore[import-untyped]

    client = ccxt.pro.bybit({"apiKey": KEY, "secret": SECRET, "enableRateLimit": False, "options": {"defaultType": "spot"}})
    stream = venue.url.replace("http", "ws")
    client.urls["api"] = {"public": venue.url, "private": venue.url, "ws": {
        "public": {name: f"{stream}/v5/public/{name}" for name in ("spot", "linear", "inverse", "option")},
        "private": {"contract": f"{stream}/v5/private", "spot": {"unified": f"{stream}/v5/private"}}}}
    client.timeout_on_exit = 0
    try:
        yield client
    finally:
        await client.close()


async def test_plain_ccxt_trades_spot_and_perpetuals_here_as_it_would_there() -> None:
    async with serving() as venue, _ccxt(venue) as client:
        assert set(await client.load_markets()) == {"BTC/USDT", "ETH/USDT", "BTC/USDT:USDT", "ETH/USDT:USDT"}
        assert (await client.fetch_balance())["USDT"]["total"] == 10_000
        assert len(await client.fetch_ohlcv("BTC/USDT:USDT", "1m", limit=5)) == 5
        assert (await client.fetch_ticker("BTC/USDT"))["ask"] == 50_000.01
        fills = asyncio.create_task(client.watch_my_trades())
        await until(lambda: venue.listeners["execution"])
        bought = await client.create_order("BTC/USDT", "market", "buy", 0.01, None, {"clientOrderId": "a"})
        assert bought["id"] and bought["status"] is None, "Bybit's acknowledgement has no status"
        (fill,) = await asyncio.wait_for(fills, PATIENCE_S)
        assert (fill["fee"]["currency"], fill["fee"]["cost"]) == ("BTC", 0.00001)
        await client.create_order("BTC/USDT:USDT", "market", "buy", 0.01, None, {"clientOrderId": "b"})
        await client.create_order("BTC/USDT:USDT", "limit", "buy", 0.01, 40_000)
        await client.create_order("BTC/USDT:USDT", "market", "sell", 0.01, None,
                                  {"triggerPrice": 49_000, "triggerDirection": "descending", "reduceOnly": True})
        assert len(await client.fetch_open_orders("BTC/USDT:USDT")) == 2
        assert [position["contracts"] for position in await client.fetch_positions()] == [0.01]
        venue.market.fund("BTCUSDT", "0.0001")
        assert [paid["amount"] for paid in await client.fetch_funding_history("BTC/USDT:USDT")] == [0.05]
        venue.market.move("linear", "BTCUSDT", "48999")
        await client.cancel_all_orders("BTC/USDT:USDT")
        assert await client.fetch_open_orders("BTC/USDT:USDT") == []
        assert venue.market.holdings["linear", "BTCUSDT"].size == 0
