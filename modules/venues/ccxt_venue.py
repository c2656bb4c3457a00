"""A crypto exchange behind ccxt as a `Venue`. What is particular to one exchange is its dialect's (ccxt_bybit.py, ccxt_binance.py); any
other may be spoken to for market data (ccxt_data.py).

Market data and trading go through two clients, so that a cancel never queues behind candles. Owns nothing but what it was told last. May
refuse: an order its own gate finds outside the instrument's rules, a reply that is not what the interface promises, every call while the
venue wants silence. A submit or cancel never raises and never says "refused" without proof: what is not proven is in doubt.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from decimal import Decimal
from functools import partial
from typing import Any, Final

from modules.domain.errors import ConfigurationError, VenueBusy, VenueDenied, VenueError, VenueUnreachable
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.market import Bar, Batch, FundingRate
from modules.domain.money import ZERO, text
from modules.domain.order import Accepted, Fate, InDoubt, NotSent, Order, OrderKind, OrderReport, OrderState, Refused
from modules.runtime.clock import Clock
from modules.venues.ccxt_bybit import BybitDialect
from modules.venues.ccxt_client import WRITES_LEFT, Credentials, Endpoint, connect, foreign_errors, redacted
from modules.venues.ccxt_dialect import Account, Chains, Dialect, KeyFacts, TellsChains, text_only
from modules.venues.ccxt_errors import Judgment, Meaning, judge
from modules.venues.ccxt_gate import outside_rules, sane_bar
from modules.venues.ccxt_optioned import Optioned
from modules.venues.ccxt_streams import AccountStream, MarketStream
from modules.venues.protocol import AccountEvent, ClassWallet, FillSeen, FundingPaid, Settled, Transferred, Wallet
from modules.venues.selection import Statistic

KINDS: Final = {"spot": AssetClass.SPOT, "swap": AssetClass.PERP, "option": AssetClass.OPTION}
FUNDINGS_MAX: Final = 200
"""Per question for settlements: two months of them."""
LEFT_MS: Final = 86_400_000
"""What is streamed no more was flat when it left; for so long a fill that is told late is still looked for, and then it is forgotten."""
BARS_MAX: Final = 1_000
"""Per question for candles."""


def _class_of(symbol: str) -> AssetClass:
    """Of a position: a perpetual or an option contract."""
    return AssetClass.OPTION if symbol.endswith(("-C", "-P")) else AssetClass.PERP


class CcxtVenue(Optioned):
    """`symbols`: what to stream. `timeframe`: ccxt's name of the bar length, e.g. "5m". `credentials` None = market data only.
    `chains`: what is looked at of the options on what is streamed, where OPTION is one of the classes.

    `dialect`: the exchange; Bybit if none is given. `split(total)` shows the cash of an account that several classes share
    class by class (the drill and the doctor ask so); without it the first has all, and Wallet_Sync knows whose it is.
    Times are seconds: `stale_s` of silence restarts a public stream, `audit_s` is how often fills, funding and transfers are asked for,
    `silence_s_max` how long a ban is obeyed at most before the venue is asked again.
    """

    def __init__(self, clock: Clock, *, classes: Sequence[AssetClass], symbols: Sequence[str], timeframe: str, fees: Mapping[
            AssetClass, tuple[Decimal, Decimal]], credentials: Credentials | None = None, endpoint: Endpoint | None = None,
            timeout_s: float = 10.0, stale_s: float = 10.0, audit_s: float = 15.0,
            split: Callable[[Decimal], Mapping[AssetClass, Decimal]] | None = None, dialect: Dialect | None = None,
            chains: Chains | None = None, silence_s_max: float = 900.0) -> None:
        self.dialect: Dialect = dialect or BybitDialect()
        self.name = self.dialect.name
        self.classes = tuple(classes)
        self.symbols = tuple(symbols)
        """Whatever is streamed, or was a while ago: of each of them fills are asked for."""
        self._left: dict[str, int] = {}
        """What is streamed no more -> since when, UTC ms."""
        self.streamed = self.symbols
        self.timeframe = timeframe
        self.clock = clock
        self.capabilities = self.dialect.capabilities(self.classes)
        self._credentials = credentials
        self._fees = fees
        self._split = split
        self._silent_until = 0
        self._silence_ms_max = int(silence_s_max * 1_000)
        self._instruments: dict[str, Instrument] = {}
        self._by_id: dict[tuple[AssetClass, str], str] = {}
        self._leverage: dict[str, Decimal] = {}
        self._ids: dict[AssetClass, dict[str, str]] = {}
        self.chains = chains or Chains()
        self.kept: frozenset[str] = frozenset()
        """Option contracts that stay in their chains whatever the bounds say: what is held."""
        self._heard: dict[str, int] = {}
        self.told: dict[str, int] = {}
        """Symbol -> open time of the last candle that was told as history."""
        self._foreign = foreign_errors()
        timeout_ms = int(timeout_s * 1_000)
        if credentials is not None and not self.dialect.trades:
            raise ConfigurationError([f"{self.name}: market data only, there is nothing a key is good for"])
        if AssetClass.OPTION in self.classes and not isinstance(self.dialect, TellsChains):
            raise ConfigurationError([f"{self.name}: nothing is known here of its options"])
        opened = partial(connect, self.name, self.dialect.fault_in, self.dialect.point, endpoint=endpoint,
                         options=self.dialect.options, timeout_ms=timeout_ms)
        self.data = opened(credentials=None, pace=self.dialect.data_pace)
        if (offered := self.data.timeframes) and timeframe not in offered:
            raise ConfigurationError([f"venues.{self.name}.timeframe: {self.name} has no bars of {timeframe}; it has {', '.join(offered)}"])
        self.trade: Any = opened(credentials=credentials, pace=self.dialect.trade_pace) if credentials is not None else None
        self._market = MarketStream(self, stale_s)
        self._account = AccountStream(self, audit_s)

    # -- talking ----------------------------------------------------------------------------------------------------------

    async def read(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """The answer to a question. Raises VenueBusy, VenueDenied or VenueUnreachable, whose text holds no secret."""
        return await self._ask(call, finding=False)

    async def find(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """The same; None where the venue proves by a listed code that there is no such order."""
        return await self._ask(call, finding=True)

    async def _ask(self, call: Callable[[], Awaitable[Any]], *, finding: bool) -> Any:
        self._mind_silence()
        for again in (True, False):
            try:
                return await call()
            except self._foreign as error:
                verdict = judge(error, self.dialect.codes, sent=False)
                if finding and verdict.meaning is Meaning.UNKNOWN_ORDER and verdict.proven:
                    return None
                if verdict.meaning is Meaning.SKEWED and again and await self._resync():
                    continue
                raise self.as_read_error(error, verdict) from None
        raise AssertionError("unreachable")

    def as_read_error(self, error: Exception, verdict: Judgment | None = None) -> VenueError:
        """A foreign error as one of ours; a ban is minded from now on."""
        verdict = verdict or judge(error, self.dialect.codes, sent=False)
        said = self._said(error, verdict)
        if verdict.meaning is Meaning.BUSY:
            return VenueBusy(said, self._silence(verdict))
        return VenueDenied(said) if verdict.meaning is Meaning.DENIED else VenueUnreachable(said)

    def _said(self, error: Exception, verdict: Judgment) -> str:
        return f"{self.name}: {verdict.code}: {redacted(str(error), self._credentials)}"

    def _silence(self, verdict: Judgment) -> int:
        now = self.clock.now()
        codes = self.dialect.codes
        until = now + (verdict.retry_after_ms if verdict.retry_after_ms is not None else codes.pauses.get(verdict.code, codes.ban_ms))
        if verdict.until is not None:
            until = verdict.until if verdict.retry_after_ms is None else max(until, verdict.until)
        self._silent_until = max(self._silent_until, min(until, now + self._silence_ms_max))
        return self._silent_until

    def _mind_silence(self) -> None:
        if self.clock.now() < self._silent_until:
            raise VenueBusy(f"{self.name}: silent until {self._silent_until}", self._silent_until)

    async def _resync(self) -> bool:
        """Measure the venue's clock again. Whether that worked."""
        try:
            for client in filter(None, (self.data, self.trade)):
                await client.measure_clock()
        except self._foreign:
            return False
        return True

    async def check(self) -> None:
        """The key's rights and the account's kind; every perpetual in one-way mode, because our orders say so."""
        await self.check_account()
        await self.known()
        await self.dialect.check_mode(self)

    async def missed(self, since: int | None = None) -> Sequence[AccountEvent]:
        await self.known()
        return await self._account.audit(since)

    async def clock_offset_ms(self) -> int | None:
        """Our clock minus the venue's, give or take half the round trip; None where the venue has no clock to ask."""
        if not self.data.has.get("fetchTime"):
            return None
        before = self.clock.now()
        theirs = await self.read(lambda: self.data.fetch_time())
        if not isinstance(theirs, int):
            raise VenueUnreachable(f"{self.name}: server time is not a number")
        return (before + self.clock.now()) // 2 - theirs

    async def check_account(self) -> None:
        """Raises VenueDenied for a key that may withdraw or transfer, or an account of the wrong kind."""
        await self.dialect.check_key(self)

    async def key_facts(self) -> KeyFacts:
        """What the venue says of the key beside its rights. Raises VenueError."""
        return await self.dialect.key_facts(self)

    @property
    def trading(self) -> bool:
        return self.trade is not None

    def private(self) -> Any:
        if self.trade is None:
            raise VenueDenied(f"{self.name}: no key, market data only")
        return self.trade

    # -- market data ------------------------------------------------------------------------------------------------------

    async def instruments(self) -> Sequence[Instrument]:
        """Everything tradable of our classes. Both clients know the markets from then on."""
        markets = await self.read(lambda: self.data.load_markets(True))
        if self.trade is not None:
            self.trade.set_markets(self.data.markets)
        await self.dialect.learn(self)
        found = self._listed(markets.values())
        if not found:
            raise VenueUnreachable(f"{self.name}: lists no instruments")
        self._keep(found)
        return list(found.values())

    def _listed(self, markets: Iterable[Mapping[str, Any]]) -> dict[str, Instrument]:
        """What of these is active, of our classes and understood."""
        kinds = {kind: asset_class for kind, asset_class in KINDS.items() if asset_class in self.classes}
        found: dict[str, Instrument] = {}
        for market in markets:
            if market["type"] in kinds and market["active"]:
                asset_class, symbol = kinds[market["type"]], market["symbol"]
                instrument = self.dialect.instrument(symbol, market, asset_class, *self._fees[asset_class])
                if instrument is not None:
                    found[symbol] = instrument
                    self._by_id[asset_class, market["id"]] = symbol
        return found

    def _keep(self, found: dict[str, Instrument]) -> None:
        self._instruments = found
        self._ids = {}
        for (asset_class, market_id), symbol in self._by_id.items():
            if symbol in found:
                self._ids.setdefault(asset_class, {})[market_id] = symbol

    async def known(self) -> Mapping[str, Instrument]:
        """The instruments, asked for once."""
        if not self._instruments:
            await self.instruments()
        return self._instruments

    def ids(self, asset_class: AssetClass) -> Mapping[str, str]:
        return self._ids.get(asset_class, {})

    # what is on offer: see venues.selection

    async def offered(self) -> Sequence[Instrument]:
        return list((await self.known()).values())

    async def statistics(self) -> Sequence[Statistic]:
        from modules.venues import ccxt_archive

        return await ccxt_archive.statistics(self)

    async def listed_before(self, symbol: str, at: int) -> int | None:
        from modules.venues import ccxt_archive

        return await ccxt_archive.listed_before(self, symbol, at)

    async def admit(self, instruments: Sequence[Instrument]) -> None:
        if any(one.symbol not in self._instruments for one in instruments):
            await self.instruments()    # listed since we asked last

    def watch(self, symbols: Sequence[str]) -> None:
        """Stream these from now on and no others; see venues.selection.Watches."""
        gone, now = [symbol for symbol in self.streamed if symbol not in symbols], self.clock.now()
        left = self._left | dict.fromkeys(gone, now)
        self._left = {symbol: at for symbol, at in left.items() if symbol not in symbols and now - at < LEFT_MS}
        for symbol in left.keys() - self._left.keys() - set(symbols):
            self.told.pop(symbol, None)
            self._leverage.pop(symbol, None)
            self.data.ohlcvs.pop(symbol, None)
        self.symbols = (*symbols, *self._left)
        self.streamed = tuple(symbols)
        self._market.changed(gone)

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
        if found:
            self.told[symbol] = max(self.told.get(symbol, 0), max(found))
        return [found[ts] for ts in sorted(found)]

    async def settled_funding(self, symbol: str, since: int) -> Sequence[FundingRate]:
        """Every settlement of a perpetual after `since` (UTC ms) that the venue still tells, oldest first. Raises VenueError."""
        await self.known()
        rows = await self.read(lambda: self.data.fetch_funding_rate_history(symbol, since + 1, FUNDINGS_MAX))
        found = {}
        for row in rows:
            at, rate = row.get("timestamp"), row.get("fundingRate")
            if not isinstance(at, int) or not isinstance(rate, int | float) or not -1.0 < rate < 1.0:
                raise VenueUnreachable(f"{self.name}: a settlement that is none")
            if at > since:
                found[at] = FundingRate(symbol, at, float(rate), 8.0)
        return [found[at] for at in sorted(found)]

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
        await self.known()
        accounts = await self.dialect.accounts(self)
        positions = await self.dialect.positions(self) if AssetClass.PERP in self.classes or AssetClass.OPTION in self.classes else {}
        open_orders = [report for asset_class in self.classes for report in await self.dialect.open_orders(self, asset_class)]
        self.kept = frozenset(symbol for symbol in positions if _class_of(symbol) is AssetClass.OPTION)
        classes: dict[AssetClass, ClassWallet] = {}
        for account in accounts:
            classes |= self._parts(account, positions)
        return Wallet(self.clock.now(), {asset_class: classes[asset_class] for asset_class in self.classes}, open_orders)

    def _parts(self, account: Account, positions: Mapping[str, Decimal]) -> dict[AssetClass, ClassWallet]:
        """What each class has of an account: its part of the cash; coins belong to SPOT where it is one of them."""
        settle = self.dialect.settle
        if settle not in account.coins:
            raise VenueUnreachable(f"{self.name}: the wallet names no {settle}")
        cash = account.coins[settle]
        parts = self._split(cash) if self._split is not None and len(account.classes) > 1 else {account.classes[0]: cash}
        held = {coin: amount for coin, amount in account.coins.items() if amount and coin != settle}
        owner = AssetClass.SPOT if AssetClass.SPOT in account.classes else account.classes[0]
        return {asset_class: ClassWallet(settle, parts.get(asset_class, ZERO), held if asset_class is owner else {},
                                         {symbol: size for symbol, size in positions.items() if _class_of(symbol) is asset_class})
                for asset_class in account.classes}

    def symbol(self, asset_class: AssetClass, market_id: str) -> str:
        """Raises VenueUnreachable for a market we do not know: guessing one would book the wrong thing."""
        try:
            return self._by_id[asset_class, market_id]
        except KeyError:
            raise VenueUnreachable(f"{self.name}: unknown {asset_class.value} market {market_id[:40]!r}") from None

    async def order(self, client_order_id: str, symbol: str) -> OrderReport | None:
        self.private()
        instrument = (await self.known()).get(symbol)
        if instrument is None and isinstance(self.dialect, TellsChains):
            instrument = self.dialect.gone(symbol)
        if instrument is None:
            raise VenueUnreachable(f"{self.name}: lists no {symbol}")
        return await self.dialect.order(self, client_order_id, instrument)

    async def fills_since(self, at: int) -> Sequence[FillSeen]:
        """Every fill at or after `at` (UTC ms), liquidations too, oldest first."""
        await self.known()
        return sorted(await self.dialect.fills_since(self, at), key=lambda seen: (seen.fill.at, seen.fill.venue_trade_id))

    async def rate(self, coin: str, into: str) -> Decimal:
        """What a third coin a fee was paid in is worth now. Raises VenueUnreachable where the venue does not say."""
        ticker = await self.read(lambda: self.data.fetch_ticker(f"{coin}/{into}"))
        try:
            price = text_only(ticker["info"].get("lastPrice"))
        except ValueError:
            price = ZERO
        if price <= ZERO:
            raise VenueUnreachable(f"{self.name}: no price of {coin}/{into}")
        return price

    async def funding_since(self, at: int) -> Sequence[FundingPaid]:
        """Funding paid (-) or received (+) at or after `at`, as the venue booked it."""
        await self.known()
        return await self.dialect.funding_since(self, at)

    async def settled_since(self, at: int) -> Sequence[Settled]:
        """Options that were delivered at or after `at`."""
        await self.known()
        return await self.dialect.settled_since(self, at) if isinstance(self.dialect, TellsChains) else ()

    async def transfers_since(self, at: int) -> Sequence[Transferred]:
        """Deposits and withdrawals of the settlement coin."""
        await self.known()
        return await self.dialect.transfers_since(self, at)

    # -- orders -----------------------------------------------------------------------------------------------------------

    async def submit(self, order: Order) -> Fate:
        if self.trade is None:
            return Refused("no key", "market data only")
        try:
            fault = outside_rules(order, (await self.known()).get(order.symbol))
        except VenueError as error:
            return NotSent(str(error))
        if order.asset_class is AssetClass.OPTION and not order.reduce_only:
            fault = fault or self.unheard(order.symbol.partition("/")[0])
        if fault:
            return Refused("rules", fault)
        if order.asset_class is AssetClass.PERP and not order.reduce_only and self._leverage.get(order.symbol) != order.leverage:
            fault = await self._prepare(order)
            if fault:
                return NotSent(f"leverage not set: {fault}", self._silent_until if self.clock.now() < self._silent_until else None)
        try:
            kind, side, price, parameters = self.dialect.creation(order, self.trade.market(order.symbol))
        except ValueError as error:
            return Refused("rules", str(error))
        quantity = text(order.quantity)
        fate = await self._write(
            order, lambda: self.trade.create_order(order.symbol, kind, side, quantity, price, dict(parameters)), parameters)
        if fate is None:
            fate = await self._what_existed(order)
        if order.kind is OrderKind.MARKET and isinstance(fate, Accepted):
            self._account.expect(order.client_order_id)
        return fate

    async def _prepare(self, order: Order) -> str:
        """Set the leverage an opening order was approved with, before it goes out. What went wrong, "" = nothing."""
        try:
            self._mind_silence()
            await self.dialect.prepare(self, order)
        except VenueError as error:
            return str(error)
        except self._foreign as error:
            verdict = judge(error, self.dialect.codes, sent=True)
            if verdict.meaning is Meaning.BUSY:
                self._silence(verdict)
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
            return InDoubt("an order of this id exists and is not this one, or is not told yet", answered=True)
        return Accepted(found.venue_order_id)

    async def cancel(self, order: Order) -> Fate:
        if self.trade is None:
            return Refused("no key", "market data only")
        try:
            await self.known()
        except VenueError as error:
            return NotSent(str(error))
        for parameters in self.dialect.cancellations(order):
            fate = await self._write(order, partial(self.trade.cancel_order, None, order.symbol, dict(parameters)), parameters)
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
            return InDoubt("the venue neither cancels it nor says that it ended", answered=True)
        self._account.look()  # what ended it is told by the audit, if the stream has not
        return Accepted(found.venue_order_id)

    async def _write(self, order: Order, call: Callable[[], Awaitable[Any]], parameters: Mapping[str, Any]) -> Fate | None:
        """Send once, and say what is proven. Sent a second time only after the venue proved by code that it refused the first for our
        clock. None = ask about the id: it existed before (submit), or is not open (cancel)."""
        for again in (True, False):
            if self.clock.now() < self._silent_until:
                return NotSent(f"{self.name}: silent until {self._silent_until}", self._silent_until)
            left: list[str] = []
            token = WRITES_LEFT.set(left)
            try:
                reply = await call()
            except self._foreign as error:
                verdict = judge(error, self.dialect.codes, sent=bool(left))
                if verdict.meaning is Meaning.SKEWED and verdict.proven and again and await self._resync():
                    continue
                return self._fate(error, verdict)
            finally:
                WRITES_LEFT.reset(token)
            venue_order_id = self.dialect.acknowledged(reply.get("info") if isinstance(reply, dict) else None, order, parameters)
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
                return Refused(verdict.code, said, denied=verdict.meaning is Meaning.DENIED)
            case Meaning.NOT_SENT | Meaning.BUSY | Meaning.SKEWED:
                return NotSent(said, self._silent_until if verdict.meaning is Meaning.BUSY else None)
            case _:
                return InDoubt(said)

    async def close(self) -> None:
        for client in filter(None, (self.data, self.trade)):
            await client.close()
