"""A crypto exchange behind ccxt as a `Venue`. Bybit v5 unified is the one certified; its dialect is ccxt_bybit.py.

Market data and trading go through two clients, so that a cancel never queues behind candles. Owns nothing but what it was told last. May
refuse: an order its own gate finds outside the instrument's rules, a reply that is not what the interface promises, every call while the
venue wants silence. A submit or cancel never raises and never says "refused" without proof: what is not proven is in doubt.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from decimal import Decimal
from functools import partial
from typing import Any, Final

from modules.domain.errors import VenueBusy, VenueDenied, VenueError, VenueUnreachable
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.market import Bar, Batch
from modules.domain.money import ONE, ZERO, text
from modules.domain.order import Accepted, Fate, Fill, InDoubt, NotSent, Order, OrderKind, OrderReport, OrderState, Refused
from modules.runtime.clock import Clock
from modules.venues import ccxt_bybit as bybit
from modules.venues.ccxt_client import WRITES_LEFT, Credentials, Endpoint, connect, foreign_errors, redacted
from modules.venues.ccxt_errors import Judgment, Meaning, judge
from modules.venues.ccxt_gate import outside_rules, sane_bar
from modules.venues.ccxt_streams import AccountStream, MarketStream
from modules.venues.protocol import AccountEvent, Capabilities, ClassWallet, FillSeen, FundingPaid, Transferred, Wallet

EXECUTIONS: Final[Mapping[AssetClass, tuple[str, ...]]] = {
    AssetClass.SPOT: ("Trade",), AssetClass.PERP: ("Trade", "BustTrade", "AdlTrade", "Settle"),
}
"""Kinds of execution that are fills. ccxt asks for "Trade" only unless told, so a liquidation would be missed."""
KINDS: Final = {"spot": AssetClass.SPOT, "swap": AssetClass.PERP}
PAGE: Final = 100
"""Executions per question."""
BARS_MAX: Final = 1_000
"""Per question for candles."""


class CcxtVenue:
    """`symbols`: what to stream. `timeframe`: ccxt's name of the bar length, e.g. "5m". `credentials` None = market data only.

    `split(total)` divides the unified account's cash over our classes (Funds_Controller knows how); without it the first class has all.
    Times are seconds: `stale_s` of silence restarts a public stream, `audit_s` is how often fills, funding and transfers are asked for.
    """

    def __init__(self, clock: Clock, *, classes: Sequence[AssetClass], symbols: Sequence[str], timeframe: str, fees: Mapping[
            AssetClass, tuple[Decimal, Decimal]], credentials: Credentials | None = None, endpoint: Endpoint | None = None,
            timeout_s: float = 10.0, stale_s: float = 10.0, audit_s: float = 15.0,
            split: Callable[[Decimal], Mapping[AssetClass, Decimal]] | None = None) -> None:
        self.name = bybit.NAME
        self.classes = tuple(classes)
        self.symbols = tuple(symbols)
        self.timeframe = timeframe
        self.clock = clock
        self.capabilities = Capabilities(
            set_client_id=True, query_by_client_id=True, trade_history_by_order=True, venue_stop=True,
            resting_target=AssetClass.SPOT not in self.classes,  # on spot a resting target locks the coins its stop would sell
            reduce_only=AssetClass.SPOT not in self.classes)
        self._credentials = credentials
        self._fees = fees
        self._split = split
        self._silent_until = 0
        self._instruments: dict[str, Instrument] = {}
        self._by_id: dict[tuple[str, str], str] = {}
        self._leverage: dict[str, Decimal] = {}
        self._foreign = foreign_errors()
        timeout_ms = int(timeout_s * 1_000)
        opened = partial(connect, bybit.NAME, bybit.fault_in, endpoint=endpoint, options=bybit.OPTIONS, timeout_ms=timeout_ms)
        self.data = opened(credentials=None)
        self.trade: Any = opened(credentials=credentials) if credentials is not None else None
        self._market = MarketStream(self, stale_s)
        self._account = AccountStream(self, audit_s)

    # -- talking ----------------------------------------------------------------------------------------------------------

    async def read(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """The answer to a question. Raises VenueBusy, VenueDenied or VenueUnreachable, whose text holds no secret."""
        self._mind_silence()
        for again in (True, False):
            try:
                return await call()
            except self._foreign as error:
                verdict = judge(error, bybit.CODES, sent=False)
                if verdict.meaning is Meaning.SKEWED and again and await self._resync():
                    continue
                raise self.as_read_error(error, verdict) from None
        raise AssertionError("unreachable")

    def as_read_error(self, error: Exception, verdict: Judgment | None = None) -> VenueError:
        """A foreign error as one of ours; a ban is minded from now on."""
        verdict = verdict or judge(error, bybit.CODES, sent=False)
        said = self._said(error, verdict)
        if verdict.meaning is Meaning.BUSY:
            return VenueBusy(said, self._silence(verdict))
        return VenueDenied(said) if verdict.meaning is Meaning.DENIED else VenueUnreachable(said)

    def _said(self, error: Exception, verdict: Judgment) -> str:
        return f"{self.name}: {verdict.code}: {redacted(str(error), self._credentials)}"

    def _silence(self, verdict: Judgment) -> int:
        until = self.clock.now() + (verdict.retry_after_ms if verdict.retry_after_ms is not None else bybit.CODES.ban_ms)
        self._silent_until = max(self._silent_until, until)
        return self._silent_until

    def _mind_silence(self) -> None:
        if self.clock.now() < self._silent_until:
            raise VenueBusy(f"{self.name}: silent until {self._silent_until}", self._silent_until)

    async def _resync(self) -> bool:
        """Measure the venue's clock again. Whether that worked."""
        try:
            for client in filter(None, (self.data, self.trade)):
                await client.load_time_difference()
        except self._foreign:
            return False
        return True

    async def clock_offset_ms(self) -> int:
        """Our clock minus the venue's, give or take half the round trip."""
        before = self.clock.now()
        theirs = await self.read(lambda: self.data.fetch_time())
        if not isinstance(theirs, int):
            raise VenueUnreachable(f"{self.name}: server time is not a number")
        return (before + self.clock.now()) // 2 - theirs

    async def check_account(self) -> None:
        """Raises VenueDenied for a key that may withdraw or transfer, or an account that is not unified."""
        result = (await self.read(lambda: self._private().privateGetV5UserQueryApi({})))["result"]
        rights = result.get("permissions")
        if not isinstance(rights, dict) or not all(isinstance(names, list) for names in rights.values()):
            raise VenueUnreachable(f"{self.name}: the key's rights are not told")
        forbidden = sorted(bybit.RIGHTS_REFUSED & {str(name) for names in rights.values() for name in names})
        if forbidden:
            raise VenueDenied(f"{self.name}: the key may {', '.join(forbidden)}; make one that may only trade")
        if str(result.get("uta")) != "1":
            raise VenueDenied(f"{self.name}: not a unified account")

    def _private(self) -> Any:
        if self.trade is None:
            raise VenueDenied(f"{self.name}: no key, market data only")
        return self.trade

    # -- market data ------------------------------------------------------------------------------------------------------

    async def instruments(self) -> Sequence[Instrument]:
        """Everything tradable of our classes. Both clients know the markets from then on."""
        markets = await self.read(lambda: self.data.load_markets(True))
        found: dict[str, Instrument] = {}
        kinds = {kind: asset_class for kind, asset_class in KINDS.items() if asset_class in self.classes}
        for symbol, market in markets.items():
            if market["type"] in kinds and market["active"]:
                asset_class = kinds[market["type"]]
                found[symbol] = bybit.instrument(symbol, market["info"], asset_class, *self._fees[asset_class])
                self._by_id[bybit.CATEGORIES[asset_class], market["id"]] = symbol
        if not found:
            raise VenueUnreachable(f"{self.name}: lists no instruments")
        self._instruments = found
        if self.trade is not None:
            self.trade.set_markets(self.data.markets)
        return list(found.values())

    async def known(self) -> Mapping[str, Instrument]:
        """The instruments, asked for once."""
        if not self._instruments:
            await self.instruments()
        return self._instruments

    def interval_ms(self, symbol: str) -> int:
        return int(self.data.parse_timeframe(self.timeframe)) * 1_000

    async def history(self, symbol: str, until: int, bars: int) -> Sequence[Bar]:
        await self.known()
        interval = self.interval_ms(symbol)
        final = min(until, self.clock.now()) // interval * interval  # no bar that closes later: it is still forming
        start, found = final - bars * interval, dict[int, Bar]()
        while start < final:
            limit = min(BARS_MAX, (final - start) // interval)
            span = {"until": start + limit * interval - 1}
            rows = await self.read(partial(self.data.fetch_ohlcv, symbol, self.timeframe, start, limit, span))
            found |= {bar.ts: bar for bar in (sane_bar(row, interval) for row in rows) if start <= bar.ts < final}
            start += limit * interval
        return [found[ts] for ts in sorted(found)]

    async def market_events(self) -> AsyncIterator[Batch]:
        await self.known()
        async with aclosing(self._market.batches()) as batches:
            async for batch in batches:
                yield batch

    # -- account ----------------------------------------------------------------------------------------------------------

    async def account_events(self) -> AsyncIterator[AccountEvent]:
        await self.known()
        async with aclosing(self._account.events()) as events:
            async for event in events:
                yield event

    async def wallet(self) -> Wallet:
        client = self._private()
        await self.known()
        coins = bybit.wallet_coins((await self.read(lambda: client.fetch_balance()))["info"])
        positions = await self._positions(client) if AssetClass.PERP in self.classes else {}
        open_orders = [bybit.report(row, symbol) for asset_class in self.classes for row, symbol in await self._open(asset_class)]
        if bybit.SETTLE not in coins:
            raise VenueUnreachable(f"{self.name}: the wallet names no {bybit.SETTLE}")
        cash = coins.pop(bybit.SETTLE)
        parts = self._split(cash) if self._split is not None else {self.classes[0]: cash}
        held = {coin: amount for coin, amount in coins.items() if amount}
        owner = AssetClass.SPOT if AssetClass.SPOT in self.classes else self.classes[0]
        classes = {asset_class: ClassWallet(bybit.SETTLE, parts.get(asset_class, ZERO), held if asset_class is owner else {},
                                            positions if asset_class is AssetClass.PERP else {}) for asset_class in self.classes}
        return Wallet(self.clock.now(), classes, open_orders)

    async def _positions(self, client: Any) -> dict[str, Decimal]:
        found: dict[str, Decimal] = {}
        for raw in await self._pages(lambda more: client.fetch_positions(None, {"settleCoin": bybit.SETTLE, **more})):
            row = bybit.parsed(bybit.PositionRow, raw, "position")
            if row.size:
                found[self.symbol("linear", row.symbol)] = row.size if row.side == "Buy" else -row.size
        return found

    async def _open(self, asset_class: AssetClass) -> list[tuple[bybit.OrderRow, str]]:
        client, category = self._private(), bybit.CATEGORIES[asset_class]
        raws = await self._pages(lambda more: client.fetch_open_orders(None, None, bybit.PAGE, {"category": category, **more}))
        rows = [bybit.parsed(bybit.OrderRow, raw, "open order") for raw in raws]
        return [(row, self.symbol(category, row.symbol)) for row in rows if row.order_link_id]

    async def _pages(self, ask: Callable[[dict[str, Any]], Awaitable[Any]]) -> list[Any]:
        """The raw rows of every page. ccxt hangs the cursor on one row of each page."""
        raws: list[Any] = []
        more: dict[str, Any] = {}
        while True:
            page = [item["info"] for item in await self.read(partial(ask, more))]
            raws += page
            cursor = next((raw["nextPageCursor"] for raw in page if isinstance(raw, dict) and raw.get("nextPageCursor")), None)
            if cursor is None or cursor == more.get("cursor"):
                return raws
            more = {"cursor": cursor}

    def symbol(self, category: str, market_id: str) -> str:
        """Raises VenueUnreachable for a market we do not know: guessing one would book the wrong thing."""
        try:
            return self._by_id[category, market_id]
        except KeyError:
            raise VenueUnreachable(f"{self.name}: unknown {category} market {market_id[:40]!r}") from None

    async def order(self, client_order_id: str, symbol: str) -> OrderReport | None:
        """Asked among the open orders and then the ended ones: ccxt's fetch_order cannot ask Bybit by client id. Its fetch_open_orders can,
        but drops an answer about another market and says that there is none; so these are the same questions without its sieve."""
        client, instrument = self._private(), (await self.known()).get(symbol)
        if instrument is None:
            raise VenueUnreachable(f"{self.name}: lists no {symbol}")
        category = bybit.CATEGORIES[instrument.asset_class]
        named = {"category": category, "symbol": client.market(symbol)["id"], "orderLinkId": client_order_id}
        for ask in (client.privateGetV5OrderRealtime, client.privateGetV5OrderHistory):
            for raw in (await self.read(partial(ask, dict(named))))["result"]["list"]:
                row = bybit.parsed(bybit.OrderRow, raw, "order")
                if row.order_link_id != client_order_id or self.symbol(category, row.symbol) != symbol:
                    raise VenueUnreachable(f"{self.name}: asked for one order, was told of another")
                return bybit.report(row, symbol)
        return None

    async def fills_since(self, at: int) -> Sequence[FillSeen]:
        """Every fill at or after `at` (UTC ms), liquidations too, oldest first; asked in the spans and pages the venue allows."""
        await self.known()
        seen = [await self.fill(raw, bybit.CATEGORIES[asset_class]) for asset_class in self.classes for kind in EXECUTIONS[asset_class]
                for raw in await self._executions(bybit.CATEGORIES[asset_class], kind, at)]
        return sorted(seen, key=lambda fill: (fill.fill.at, fill.fill.venue_trade_id))

    async def _executions(self, category: str, kind: str, at: int) -> list[Any]:
        client, raws, start = self._private(), list[Any](), max(at, self.clock.now() - bybit.KEPT_MS)
        while start <= self.clock.now():
            asked = {"category": category, "execType": kind, "endTime": start + bybit.SPAN_MS}

            def ask(more: dict[str, Any], start: int = start, asked: dict[str, Any] = asked) -> Awaitable[Any]:
                return client.fetch_my_trades(None, start, PAGE, {**asked, **more})  # type: ignore[no-any-return]

            raws += await self._pages(ask)
            start += bybit.SPAN_MS + 1
        return raws

    async def fill(self, raw: Any, category: str) -> FillSeen:
        row = bybit.parsed(bybit.ExecutionRow, raw, "execution")
        symbol = self.symbol(category, row.symbol)
        instrument, side = self._instruments[symbol], Side.BUY if row.side == "Buy" else Side.SELL
        in_base = instrument.asset_class is AssetClass.SPOT and side is Side.BUY
        fee_currency = row.fee_currency or (instrument.base if in_base else instrument.quote)
        fee_rate = ONE if fee_currency == instrument.settle else row.exec_price if fee_currency == instrument.base else (
            await self._rate(fee_currency, instrument.settle))
        forced = row.exec_type in ("BustTrade", "AdlTrade")
        return FillSeen(Fill(self.name, symbol, row.exec_id, row.order_link_id, side, row.exec_qty, row.exec_price, row.exec_fee,
                             fee_currency, fee_rate, ONE, row.is_maker, row.exec_time, forced, row.exec_type == "Settle"),
                        row.leaves_qty == ZERO)

    async def _rate(self, coin: str, into: str) -> Decimal:
        """What a third coin a fee was paid in is worth now."""
        ticker = await self.read(lambda: self.data.fetch_ticker(f"{coin}/{into}"))
        return bybit.parsed(bybit.LastRow, ticker["info"], "ticker").last_price

    async def funding_since(self, at: int) -> Sequence[FundingPaid]:
        """Funding paid (-) or received (+) at or after `at`, as the venue booked it."""
        await self.known()
        rows = [bybit.parsed(bybit.ExecutionRow, raw, "funding") for raw in await self._executions("linear", "Funding", at)]
        return [FundingPaid(self.name, self.symbol("linear", row.symbol), AssetClass.PERP, -row.exec_fee, float(row.fee_rate),
                            row.exec_time, row.exec_id) for row in rows]

    async def transfers_since(self, at: int) -> Sequence[Transferred]:
        """Deposits and withdrawals of the settlement coin; they belong to the first class."""
        client = self._private()
        raws = []
        for kind in ("TRANSFER_IN", "TRANSFER_OUT"):
            raws += await self._pages(partial(_transfers, client, at, kind))
        rows = [bybit.parsed(bybit.TransferRow, raw, "transfer") for raw in raws]
        return [Transferred(self.classes[0], row.change, row.transaction_time, row.id) for row in rows if row.currency == bybit.SETTLE]

    # -- orders -----------------------------------------------------------------------------------------------------------

    async def submit(self, order: Order) -> Fate:
        if self.trade is None:
            return Refused("no key", "market data only")
        try:
            fault = outside_rules(order, (await self.known()).get(order.symbol))
        except VenueError as error:
            return NotSent(str(error))
        if fault:
            return Refused("rules", fault)
        if order.asset_class is AssetClass.PERP and not order.reduce_only and self._leverage.get(order.symbol) != order.leverage:
            fault = await self._lever(order)
            if fault:
                return NotSent(f"leverage not set: {fault}")
        kind, side, price, parameters = bybit.creation(order)
        quantity = text(order.quantity)
        fate = await self._write(order, lambda: self.trade.create_order(order.symbol, kind, side, quantity, price, dict(parameters)))
        return await self._what_existed(order) if fate is None else fate

    async def _lever(self, order: Order) -> str:
        """Set the leverage an opening order was approved with, before it goes out. What went wrong, "" = nothing."""
        try:
            self._mind_silence()
            await self.trade.set_leverage(text(order.leverage), order.symbol)
        except VenueBusy as busy:
            return str(busy)
        except self._foreign as error:
            verdict = judge(error, bybit.CODES, sent=True)
            if verdict.code != bybit.LEVERAGE_AS_IT_WAS:
                return self._said(error, verdict)
        self._leverage[order.symbol] = order.leverage
        return ""

    async def _what_existed(self, order: Order) -> Fate:
        """The venue says this id was used before. It is ours only if it says the same."""
        try:
            found = await self.order(order.client_order_id, order.symbol)
        except VenueError as error:
            return InDoubt(f"an order of this id exists, asking failed: {error}")
        if found is None or found.quantity != order.quantity:
            return InDoubt("an order of this id exists and is not this one, or is not told yet")
        return Accepted(found.venue_order_id)

    async def cancel(self, order: Order) -> Fate:
        if self.trade is None:
            return Refused("no key", "market data only")
        try:
            await self.known()
        except VenueError as error:
            return NotSent(str(error))
        fate: Fate | None = None
        for triggered in (False, True) if order.asset_class is AssetClass.SPOT and order.kind is OrderKind.STOP else (False,):
            parameters = bybit.cancellation(order, triggered=triggered)
            fate = await self._write(order, partial(self.trade.cancel_order, None, order.symbol, parameters))
            if fate is not None:
                return fate
        return await self._what_ended(order)

    async def _what_ended(self, order: Order) -> Fate:
        """The venue has no open order of this id: ended long ago, or not yet known there."""
        try:
            found = await self.order(order.client_order_id, order.symbol)
        except VenueError as error:
            return InDoubt(f"nothing to cancel, asking failed: {error}")
        if found is None or found.state is OrderState.ACCEPTED:
            return InDoubt("the venue neither cancels it nor says that it ended")
        self._account.look()  # what ended it is told by the audit, if the stream has not
        return Accepted(found.venue_order_id)

    async def _write(self, order: Order, call: Callable[[], Awaitable[Any]]) -> Fate | None:
        """Send once, and say what is proven. Sent a second time only after the venue proved by code that it refused the first for our
        clock. None = ask about the id: it existed before (submit), or is not open (cancel)."""
        for again in (True, False):
            if self.clock.now() < self._silent_until:
                return NotSent(f"{self.name}: silent until {self._silent_until}")
            left: list[str] = []
            token = WRITES_LEFT.set(left)
            try:
                reply = await call()
            except self._foreign as error:
                verdict = judge(error, bybit.CODES, sent=bool(left))
                if verdict.meaning is Meaning.SKEWED and verdict.proven and again and await self._resync():
                    continue
                return self._fate(error, verdict)
            finally:
                WRITES_LEFT.reset(token)
            venue_order_id = bybit.acknowledged(reply.get("info") if isinstance(reply, dict) else None, order.client_order_id)
            return Accepted(venue_order_id) if venue_order_id else InDoubt("the answer does not name this order")
        raise AssertionError("unreachable")

    def _fate(self, error: Exception, verdict: Judgment) -> Fate | None:
        said = self._said(error, verdict)
        if verdict.meaning is Meaning.BUSY:
            self._silence(verdict)
        if verdict.meaning in (Meaning.EXISTED, Meaning.UNKNOWN_ORDER):
            return None
        if not verdict.proven:
            return InDoubt(said)
        match verdict.meaning:
            case Meaning.REFUSED | Meaning.DENIED:
                return Refused(verdict.code, said)
            case Meaning.NOT_SENT | Meaning.BUSY | Meaning.SKEWED:
                return NotSent(said)
            case _:
                return InDoubt(said)

    async def close(self) -> None:
        for client in filter(None, (self.data, self.trade)):
            await client.close()


def _transfers(client: Any, at: int, kind: str, more: dict[str, Any]) -> Awaitable[Any]:
    return client.fetch_ledger(None, at, bybit.PAGE, {"type": kind, **more})  # type: ignore[no-any-return]
