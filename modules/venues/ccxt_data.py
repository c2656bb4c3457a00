"""Any exchange ccxt knows, for market data only: what paper trading and downloads need, and nothing that needs a key.

Streams where ccxt.pro has them, questions at intervals elsewhere. Owns no rule of any one exchange, so it believes ccxt's tables only as
far as they are whole: a market without tick, lot or a dollar settlement is left out. Refuses trading: nobody has shown what a stop
means there.
"""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NoReturn

from modules.domain.errors import ConfigurationError, VenueDenied, VenueUnreachable
from modules.domain.instrument import DOLLARS, AssetClass, Instrument
from modules.domain.market import FundingRate
from modules.domain.money import ONE, ZERO
from modules.domain.order import Order, OrderReport
from modules.venues.ccxt_client import Endpoint, Pace, moved
from modules.venues.ccxt_dialect import Account, Adapter, Creation, KeyFacts, Tick
from modules.venues.ccxt_errors import CodeTable, Meaning
from modules.venues.protocol import Capabilities, FillSeen, FundingPaid, OrderDone, Transferred

POLL_S: Final = 4.0
"""Between two questions for prices; below the silence the watchdog allows."""
LAG_S: Final = 2.0
"""After a bar's end before it is asked for, and between two attempts."""
FUNDING_MS: Final = 300_000
"""How often funding rates are asked for."""
FUNDING_HOURS: Final = 8
CODES: Final = CodeTable(pattern=re.compile(r"(?!)"), codes={}, statuses={401: Meaning.DENIED, 418: Meaning.BUSY, 429: Meaning.BUSY},
                         ban_ms=60_000)
_HOUR_MS: Final = 3_600_000


def exists(name: str) -> bool:
    """Whether ccxt.pro has an exchange of this name. Imports ccxt."""
    import ccxt.pro  # type: ignore[import-untyped]

    return name in ccxt.pro.exchanges or (hasattr(ccxt.async_support, name) and name in ccxt.async_support.exchanges)


def _meant(name: str) -> str:
    import ccxt.async_support  # type: ignore[import-untyped]

    near = difflib.get_close_matches(name, ccxt.async_support.exchanges, 1, 0.7)
    return f"; did you mean {near[0]}?" if near else ""


class DataDialect:
    """`name`: ccxt's. Raises ConfigurationError for one it does not know."""

    settle = "USDT"
    codes: CodeTable = CODES
    trades = False
    options: Mapping[str, Any] = {"fetchCurrencies": False}
    data_pace = trade_pace = Pace()

    def __init__(self, name: str) -> None:
        if not exists(name):
            raise ConfigurationError([f"venues.{name}: ccxt knows no exchange of this name" + _meant(name)])
        self.name = name
        self._decimals = False
        self._tickers: dict[str, Any] = {}
        self._asked_at = {False: 0, True: 0}
        """When spot's and when the perpetuals' prices were asked for last."""
        self._asking = asyncio.Lock()
        self._funding: dict[str, tuple[int, Tick]] = {}

    def capabilities(self, classes: Sequence[AssetClass]) -> Capabilities:
        return Capabilities(set_client_id=False, query_by_client_id=False, trade_history_by_order=False, venue_stop=False,
                            resting_target=False, reduce_only=False)

    def fault_in(self, reply: object, url: str) -> str:
        """Envelopes differ; a page, a word or nothing at all is no reply anywhere."""
        return "" if isinstance(reply, list) or (isinstance(reply, dict) and reply) else f"reply is {type(reply).__name__}"

    def point(self, client: Any, endpoint: Endpoint) -> None:
        client.urls["api"] = moved(client.urls["api"], endpoint)

    async def learn(self, venue: Adapter) -> None:
        from ccxt.base.decimal_to_precision import SIGNIFICANT_DIGITS, TICK_SIZE  # type: ignore[import-untyped]

        if venue.data.precisionMode == SIGNIFICANT_DIGITS:
            raise VenueUnreachable(f"{self.name}: its prices have significant digits and no tick; it cannot be used here")
        self._decimals = venue.data.precisionMode != TICK_SIZE

    def instrument(self, symbol: str, market: Mapping[str, Any], asset_class: AssetClass, maker_fee: Decimal, taker_fee: Decimal
                   ) -> Instrument | None:
        perp = asset_class is AssetClass.PERP
        if perp and (not market.get("linear") or market.get("settle") not in DOLLARS):
            return None
        tick, lot = self._step(market["precision"].get("price")), self._step(market["precision"].get("amount"))
        if tick is None or lot is None:
            return None
        limits = market.get("limits") or {}
        return Instrument(
            symbol=symbol, venue=self.name, asset_class=asset_class, base=market["base"], quote=market["quote"],
            settle=market["settle"] if perp else market["quote"], underlying=market["base"], tick=tick, lot=lot,
            quantity_min=_least(limits, "amount"), notional_min=_least(limits, "cost"),
            contract_size=(_decimal(market.get("contractSize")) or ONE) if perp else ONE, maker_fee=maker_fee, taker_fee=taker_fee,
            leverage_max=max(ONE, _decimal((limits.get("leverage") or {}).get("max")) or ONE) if perp else ONE,
            funding_interval_h=FUNDING_HOURS if perp else None)

    def _step(self, precision: object) -> Decimal | None:
        """A tick or lot; some exchanges count decimals instead."""
        found = _decimal(precision)
        if found is not None and self._decimals:
            return ONE.scaleb(-int(found))
        return found if found is not None and found > ZERO else None

    # -- market data ------------------------------------------------------------------------------------------------------

    def candles(self, venue: Adapter, symbol: str) -> Callable[[], Awaitable[Sequence[Any]]]:
        if venue.data.has.get("watchOHLCV"):
            return lambda: venue.data.watch_ohlcv(symbol, venue.timeframe)
        interval = int(venue.data.parse_timeframe(venue.timeframe)) * 1_000
        newest = 0

        async def poll() -> Sequence[Any]:
            nonlocal newest
            if newest:
                await asyncio.sleep(max(LAG_S, (newest + interval - venue.clock.now()) / 1_000 + LAG_S))
            start = (venue.clock.now() // interval - 2) * interval
            rows = await venue.read(lambda: venue.data.fetch_ohlcv(symbol, venue.timeframe, start, 3))
            if isinstance(rows, list) and rows and isinstance(rows[-1], list) and rows[-1] and isinstance(rows[-1][0], int):
                newest = rows[-1][0]
            return rows if isinstance(rows, list) else ()

        return poll

    def ticks(self, venue: Adapter, symbol: str) -> Sequence[Callable[[], Awaitable[Tick]]]:
        async def stream() -> Tick:
            best = (await venue.data.watch_bids_asks([symbol]))[symbol]
            return Tick(float(best["bid"]), float(best["ask"]))

        async def poll() -> Tick:
            if symbol in self._tickers:
                await asyncio.sleep(POLL_S)
            best = await self._ticker(venue, symbol)
            return Tick(float(best["bid"]), float(best["ask"]))

        async def funding() -> Tick:
            return await self._rate(venue, symbol)

        quotes = stream if venue.data.has.get("watchBidsAsks") else poll
        return (quotes, funding) if ":" in symbol and venue.data.has.get("fetchFundingRate") else (quotes,)

    async def _ticker(self, venue: Adapter, symbol: str) -> Any:
        """All symbols' prices in one question where that can be asked; who comes next takes the same answer."""
        perp = ":" in symbol
        async with self._asking:
            if venue.clock.now() - self._asked_at[perp] >= POLL_S * 500 or symbol not in self._tickers:
                if venue.data.has.get("fetchTickers"):
                    alike = [one for one in venue.symbols if (":" in one) == perp]
                    self._tickers |= await venue.read(lambda: venue.data.fetch_tickers(alike))
                else:
                    self._tickers[symbol] = await venue.read(lambda: venue.data.fetch_ticker(symbol))
                self._asked_at[perp] = venue.clock.now()
            told = self._tickers.get(symbol)
        if not isinstance(told, dict) or not told.get("bid") or not told.get("ask"):
            raise VenueUnreachable(f"{self.name}: no bid and ask of {symbol}")
        return told

    async def _rate(self, venue: Adapter, symbol: str) -> Tick:
        """Mark and funding; between two questions what was told last, so that the watchdog is not woken for nothing."""
        asked_at, told = self._funding.get(symbol, (0, Tick()))
        if asked_at:
            await asyncio.sleep(POLL_S)
        if venue.clock.now() - asked_at < FUNDING_MS:
            return told._replace(mark=None)
        row = await venue.read(lambda: venue.data.fetch_funding_rate(symbol))
        now, rate, mark = venue.clock.now(), row.get("fundingRate"), row.get("markPrice")
        if not isinstance(rate, int | float) or not -1.0 < rate < 1.0:
            raise VenueUnreachable(f"{self.name}: no funding rate of {symbol}")
        hours = int(str(row.get("interval"))[:-1]) if re.fullmatch(r"\d+h", str(row.get("interval"))) else FUNDING_HOURS
        due = row.get("fundingTimestamp") or row.get("nextFundingTimestamp")
        due = due if isinstance(due, int) and due > now else (now // (hours * _HOUR_MS) + 1) * hours * _HOUR_MS
        rates = FundingRate(symbol, due - hours * _HOUR_MS, float(rate), float(hours), float(rate))
        told = Tick(mark=float(mark) if isinstance(mark, int | float) and mark > 0 else None, funding=rates)
        self._funding[symbol] = now, told
        return told

    def carries(self, url: str, symbol: str) -> bool:
        return True

    # -- what it refuses --------------------------------------------------------------------------------------------------

    def _refuse(self) -> NoReturn:
        raise VenueDenied(f"{self.name}: market data only")

    def private_socket(self, url: str) -> bool:
        return False

    def relogin(self, client: Any) -> None:
        self._refuse()

    def fill_streams(self, venue: Adapter) -> Sequence[Callable[[], Awaitable[Any]]]:
        self._refuse()

    def order_streams(self, venue: Adapter) -> Sequence[Callable[[], Awaitable[Any]]]:
        self._refuse()

    async def streamed_fill(self, venue: Adapter, trade: Mapping[str, Any]) -> FillSeen | None:
        self._refuse()

    def streamed_end(self, venue: Adapter, order: Mapping[str, Any]) -> OrderDone | None:
        self._refuse()

    async def check_key(self, venue: Adapter) -> None:
        self._refuse()

    async def key_facts(self, venue: Adapter) -> KeyFacts:
        self._refuse()

    async def check_mode(self, venue: Adapter) -> None:
        self._refuse()

    async def accounts(self, venue: Adapter) -> Sequence[Account]:
        self._refuse()

    async def positions(self, venue: Adapter) -> Mapping[str, Decimal]:
        self._refuse()

    async def open_orders(self, venue: Adapter, asset_class: AssetClass) -> Sequence[OrderReport]:
        self._refuse()

    async def order(self, venue: Adapter, client_order_id: str, instrument: Instrument) -> OrderReport | None:
        self._refuse()

    async def fills_since(self, venue: Adapter, at: int) -> Sequence[FillSeen]:
        self._refuse()

    async def funding_since(self, venue: Adapter, at: int) -> Sequence[FundingPaid]:
        self._refuse()

    async def transfers_since(self, venue: Adapter, at: int) -> Sequence[Transferred]:
        self._refuse()

    def creation(self, order: Order, market: Mapping[str, Any]) -> Creation:
        raise ValueError(f"{self.name}: market data only")

    def cancellations(self, order: Order) -> Sequence[dict[str, Any]]:
        self._refuse()

    def acknowledged(self, raw: object, order: Order, parameters: Mapping[str, Any]) -> str:
        return ""

    async def prepare(self, venue: Adapter, order: Order) -> None:
        self._refuse()


def _decimal(value: object) -> Decimal | None:
    """A positive number out of ccxt's floats; None = not told."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    found = Decimal(repr(value))
    return found if found.is_finite() and found >= ZERO else None


def _least(limits: Mapping[str, Any], name: str) -> Decimal:
    return _decimal((limits.get(name) or {}).get("min")) or ZERO
