"""An exchange nobody certified: market data for paper trading and downloads, by stream where ccxt has one and by questions elsewhere.

Coins.ph has no streams in ccxt, Kraken has; both are played by a small server in the shapes their public documents show.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from modules.domain.errors import ConfigurationError, VenueBusy, VenueDenied, VenueError, VenueUnreachable
from modules.domain.instrument import AssetClass
from modules.domain.market import Batch
from modules.domain.order import Refused
from modules.venues.ccxt_client import Credentials, Endpoint
from modules.venues.ccxt_data import DataDialect
from modules.venues.ccxt_venue import CcxtVenue
from tests.bybit_worlds import FEES, PushedClock, order, until
from tests.emulators.bybit_market import MINUTE_MS, Row
from tests.emulators.frame import Fault, Frame, Reply, listening

SYMBOL = "BTC/USDT"


class Small(Frame):
    """Public data of Coins.ph over REST, of Kraken over REST and its second websocket."""

    def __init__(self) -> None:
        super().__init__()
        start = self.now() // MINUTE_MS * MINUTE_MS
        self.candles: list[list[Any]] = [[start - back * MINUTE_MS, "50000", "50020", "49990", "50010", "1.5"] for back in range(20)][::-1]
        self.bid, self.ask = "50009.9", "50010.1"

    def answer(self, request: web.Request, raw: bytes) -> tuple[int, Any, dict[str, str]]:
        path, asked = request.path.rsplit("/", 1)[-1], dict(request.query)
        told: dict[str, Any] = {
            "exchangeInfo": {"timezone": "UTC", "serverTime": str(self.now()), "exchangeFilters": [], "symbols": [self._listed()]},
            "time": {"serverTime": self.now()}, "klines": self._klines(asked), "24hr": [self._day()],
            "Time": {"error": [], "result": {"unixtime": self.now() // 1_000, "rfc1123": ""}},
            "Assets": {"error": [], "result": {"XXBT": {"aclass": "currency", "altname": "XBT", "decimals": 10, "display_decimals": 5},
                                               "USDT": {"aclass": "currency", "altname": "USDT", "decimals": 8, "display_decimals": 4}}},
            "AssetPairs": {"error": [], "result": {"XBTUSDT": self._pair()}},
        }
        return (200, told[path], {}) if path in told else (404, {"code": -1, "msg": "no such path"}, {})

    def _listed(self) -> Row:
        return {"symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "baseAssetPrecision": "6", "quoteAsset": "USDT",
                "quoteAssetPrecision": "2", "orderTypes": ["LIMIT", "MARKET"], "filters": [
                    {"minPrice": "0.1", "maxPrice": "999999", "tickSize": "0.1", "filterType": "PRICE_FILTER"},
                    {"minQty": "0.00001", "maxQty": "9999", "stepSize": "0.00001", "filterType": "LOT_SIZE"},
                    {"minNotional": "5", "filterType": "NOTIONAL"}]}

    def _pair(self) -> Row:
        return {"altname": "XBTUSDT", "wsname": "XBT/USDT", "aclass_base": "currency", "base": "XXBT", "aclass_quote": "currency",
                "quote": "USDT", "lot": "unit", "cost_decimals": 10, "pair_decimals": 1, "lot_decimals": 8, "lot_multiplier": 1,
                "leverage_buy": [], "leverage_sell": [], "fees": [[0, 0.4]], "fees_maker": [[0, 0.25]], "fee_volume_currency": "ZUSD",
                "margin_call": 80, "margin_stop": 40, "ordermin": "0.00005", "costmin": "0.5", "tick_size": "0.1", "status": "online"}

    def _klines(self, asked: dict[str, str]) -> list[list[Any]]:
        start, end = int(asked.get("startTime", 0)), int(asked.get("endTime", 1 << 60))
        found = [[*row, row[0] + MINUTE_MS - 1, "75000", 9, "1", "1"] for row in self.candles if start <= row[0] <= end]
        return found[:int(asked.get("limit", 500))]

    def _day(self) -> Row:
        return {"symbol": "BTCUSDT", "priceChange": "1", "priceChangePercent": "0.1", "weightedAvgPrice": "50000",
                "prevClosePrice": "50000", "lastPrice": "50010", "lastQty": "1", "bidPrice": self.bid, "bidQty": "1",
                "askPrice": self.ask, "askQty": "1",
                "openPrice": "50000", "highPrice": "50100", "lowPrice": "49900", "volume": "100", "quoteVolume": "5000000",
                "openTime": self.now() - 86_400_000, "closeTime": self.now(), "firstId": 1, "lastId": 9, "count": 9}

    def hear(self, session: Row, path: str, asked: Row, topics: set[str], queue: asyncio.Queue[str | None]) -> None:
        if asked.get("method") != "subscribe":
            return
        wanted = asked["params"]
        topics.add(wanted["channel"])
        queue.put_nowait(json.dumps({"method": "subscribe", "success": True, "req_id": asked.get("req_id"), "result": {
            "channel": wanted["channel"], "symbol": wanted["symbol"][0], "snapshot": True}}))
        if wanted["channel"] == "ticker":
            queue.put_nowait(json.dumps({"channel": "ticker", "type": "snapshot", "data": [{
                "symbol": "BTC/USDT", "bid": float(self.bid), "bid_qty": 1.0, "ask": float(self.ask), "ask_qty": 1.0, "last": 50010.0,
                "volume": 9.0, "vwap": 50000.0, "low": 49000.0, "high": 51000.0, "change": 1.0, "change_pct": 0.1}]}))
        else:
            for row in self.candles[-2:]:
                self.tell_bar(row, queue)

    def tell_bar(self, row: list[Any], queue: asyncio.Queue[str | None]) -> None:
        begin = datetime.fromtimestamp(row[0] / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000000Z")
        queue.put_nowait(json.dumps({"channel": "ohlc", "type": "update", "timestamp": begin, "data": [{
            "symbol": "BTC/USDT", "open": float(row[1]), "high": float(row[2]), "low": float(row[3]), "close": float(row[4]), "trades": 3,
            "volume": float(row[5]), "vwap": 50000.0, "interval_begin": begin, "interval": 1, "timestamp": begin}]}))


@asynccontextmanager
async def exchange(name: str) -> AsyncIterator[tuple[Small, CcxtVenue]]:
    server = Small()
    async with listening(server, ("/v2",), 0):
        made = CcxtVenue(PushedClock(), classes=(AssetClass.SPOT,), symbols=(SYMBOL,), timeframe="1m", fees=FEES, timeout_s=30.0,
                         endpoint=Endpoint(server.url, server.url.replace("http", "ws")), dialect=DataDialect(name))
        made.data.enableRateLimit = False
        made.data.timeout_on_exit = 0
        try:
            yield server, made
        finally:
            await made.close()


@pytest.mark.parametrize("name", ["coinsph", "kraken"])
async def test_the_rules_of_a_market_are_read_from_what_ccxt_knows(name: str) -> None:
    async with exchange(name) as (_, made):
        (found,) = await made.instruments()
        assert (found.symbol, found.venue, found.tick, found.settle) == (SYMBOL, name, Decimal("0.1"), "USDT")
        assert found.lot < Decimal("0.0001") and found.quantity_min > 0 and found.notional_min > 0
        assert made.capabilities.venue_stop is made.capabilities.set_client_id is False


@pytest.mark.parametrize("name", ["coinsph", "kraken"])
async def test_prices_and_closed_candles_arrive_by_question_or_by_stream(name: str) -> None:
    async with exchange(name) as (server, made):
        told: list[Batch] = []

        async def listen() -> None:
            async for batch in made.market_events():
                told.append(batch)

        task = asyncio.create_task(listen())
        try:
            closed = server.candles[-2][0]
            await until(lambda: any(bar.ts == closed for batch in told for _, bar in batch.bars) and any(batch.quotes for batch in told))
            bars = [bar for batch in told for _, bar in batch.bars]
            assert (bars[-1].ts, bars[-1].close) == (closed, 50_010.0), "the forming candle is not told"
            (_, quote) = next(batch.quotes[0] for batch in told if batch.quotes)
            assert (quote.bid, quote.ask) == (50_009.9, 50_010.1)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_history_is_whole_and_without_the_forming_candle() -> None:
    async with exchange("coinsph") as (server, made):
        bars = await made.history(SYMBOL, made.clock.now() + 600_000, 10)
        assert [bar.ts for bar in bars] == [row[0] for row in server.candles[-1 - len(bars):-1]] and len(bars) in (9, 10)


async def test_an_exchange_nobody_certified_is_not_traded_on() -> None:
    async with exchange("coinsph") as (_, made):
        assert isinstance(await made.submit(order("1")), Refused)
        for read in (made.wallet, made.check, lambda: made.fills_since(0), lambda: made.order("tb1", SYMBOL)):
            with pytest.raises(VenueDenied):
                await read()
    key = Credentials(SecretStr("k"), SecretStr("s"))
    with pytest.raises(ConfigurationError, match="market data only"):
        CcxtVenue(PushedClock(), classes=(AssetClass.SPOT,), symbols=(SYMBOL,), timeframe="1m", fees=FEES, credentials=key,
                  dialect=DataDialect("coinsph"))
    with pytest.raises(ConfigurationError, match="no exchange of this name"):
        DataDialect("cryptsy")


async def test_pages_and_words_are_no_market_data() -> None:
    async with exchange("coinsph") as (server, made):
        await made.instruments()
        for body in (b"<html>cloud</html>", b"null", b"", b"{}", b'"busy"'):
            server.always = [Fault("klines", Reply(200, body), False)]
            with pytest.raises(VenueUnreachable):
                await made.history(SYMBOL, made.clock.now(), 5)
        server.always = [Fault("24hr", Reply(429, b"", headers=(("Retry-After", "9"),)), False)]
        with pytest.raises(VenueError) as busy:
            await made.dialect.ticks(made, SYMBOL)[0]()
        assert isinstance(busy.value, VenueBusy) and busy.value.until > made.clock.now() + 7_000


async def test_a_market_whose_price_has_two_empty_sides_has_no_price() -> None:
    async with exchange("coinsph") as (server, made):
        await made.instruments()
        server.bid = "0"
        with pytest.raises(VenueUnreachable, match="no bid and ask"):
            await made.dialect.ticks(made, SYMBOL)[0]()
