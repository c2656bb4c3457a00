"""The unmodified ccxt against the Binance emulator: it speaks the wire ccxt knows. (python-binance: see emulators/binance_clients.py.)"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.bybit_worlds import until
from tests.emulators.binance import KEY, SECRET, BinanceEmulator, serving
from tests.timing import PATIENCE_S


@asynccontextmanager
async def _ccxt(venue: BinanceEmulator, kind: str) -> AsyncIterator[Any]:
    """ccxt.pro as anybody would make it, but for its address."""
    import ccxt.pro  # type: ignore[import-untyped]

    client = ccxt.pro.binance({"apiKey": KEY, "secret": SECRET, "enableRateLimit": False, "options": {
        "defaultType": kind, "fetchMarkets": {"types": ["spot", "linear"]}, "fetchMargins": False}})
    stream = venue.url.replace("http", "ws")
    for name, url in list(client.urls["api"].items()):
        if isinstance(url, str):
            client.urls["api"][name] = venue.url + "/" + url.split("://", 1)[1].split("/", 1)[1]
    client.urls["api"]["ws"] |= {"spot": f"{stream}/stream/ws", "linear": f"{stream}/fstream/ws", "ws-api": {
        "spot": f"{stream}/ws-api/v3", "linear": f"{stream}/ws-fapi/v1"}}
    client.has["fetchCurrencies"] = False
    client.timeout_on_exit = 0
    try:
        yield client
    finally:
        await client.close()


async def test_plain_ccxt_trades_spot_here_as_it_would_there() -> None:
    async with serving() as venue, _ccxt(venue, "spot") as client:
        assert {"BTC/USDT", "BNB/USDT", "BTC/USDT:USDT"} <= set(await client.load_markets())
        assert (await client.fetch_balance())["USDT"]["total"] == 10_000
        assert len(await client.fetch_ohlcv("BTC/USDT", "1m", limit=5)) == 5
        assert (await client.fetch_ticker("BTC/USDT"))["ask"] == 50_000.01
        fills = asyncio.create_task(client.watch_my_trades())
        await until(lambda: venue.listeners["user:spot"])
        bought = await client.create_order("BTC/USDT", "market", "buy", 0.01, None, {"clientOrderId": "a"})
        assert (bought["status"], bought["clientOrderId"], len(bought["trades"])) == ("closed", "a", 1)
        (fill,) = await asyncio.wait_for(fills, PATIENCE_S)
        assert (fill["fee"]["currency"], fill["fee"]["cost"], fill["symbol"]) == ("BTC", 0.00001, "BTC/USDT")
        stop = await client.create_order("BTC/USDT", "market", "sell", 0.009, None, {"triggerPrice": 49_000})
        assert (await client.fetch_open_orders("BTC/USDT"))[0]["triggerPrice"] == 49_000
        assert (await client.fetch_order(stop["id"], "BTC/USDT"))["status"] == "open"
        assert (await client.cancel_order(stop["id"], "BTC/USDT"))["status"] == "canceled"
        assert [trade["amount"] for trade in await client.fetch_my_trades("BTC/USDT")] == [0.01]


async def test_plain_ccxt_trades_perpetuals_here_as_it_would_there() -> None:
    async with serving() as venue, _ccxt(venue, "swap") as client:
        await client.load_markets()
        symbol = "BTC/USDT:USDT"
        assert (await client.fetch_balance())["USDT"]["total"] == 10_000
        await client.set_leverage(5, symbol)
        fills = asyncio.create_task(client.watch_my_trades())
        await until(lambda: venue.listeners["user:linear"])
        await client.create_order(symbol, "market", "buy", 0.01, None, {"clientOrderId": "b"})
        (fill,) = await asyncio.wait_for(fills, PATIENCE_S)
        assert (fill["symbol"], fill["fee"]["currency"]) == (symbol, "USDT")
        stop = await client.create_order(symbol, "market", "sell", 0.01, None, {"triggerPrice": 49_000, "reduceOnly": True})
        assert await client.fetch_open_orders(symbol) == [], "a stop is not among the plain orders"
        assert [one["id"] for one in await client.fetch_open_orders(symbol, None, None, {"trigger": True})] == [stop["id"]]
        assert [position["contracts"] for position in await client.fetch_positions([symbol])] == [0.01]
        venue.market.fund("BTCUSDT", "0.0001")
        assert [paid["amount"] for paid in await client.fetch_funding_history(symbol)] == [-0.05]
        venue.market.move("linear", "BTCUSDT", "48999")
        assert await client.fetch_open_orders(symbol, None, None, {"trigger": True}) == []
        assert venue.market.holdings["linear", "BTCUSDT"].size == 0
        assert [trade["side"] for trade in await client.fetch_my_trades(symbol)] == ["buy", "sell"]
