"""OANDA v20 as a `Venue`: forex on one account of the broker's, practice, production or emulated; only the endpoint differs.

The transactions are the truth about the account: the stream only rings the bell, what happened is then asked for by number, in order, each
once. A submit is sent once and ends in a Fate; only the broker's own listed word is a refusal. Not yet held against production: see
docs/venues.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from decimal import Decimal
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

import structlog
from pydantic import SecretStr

from modules.domain.errors import ConfigurationError, VenueBusy, VenueDenied, VenueError, VenueUnreachable
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.market import Bar, Batch
from modules.domain.money import ONE, ZERO
from modules.domain.order import Accepted, Fate, Order, OrderReport, OrderState, Refused
from modules.domain.sessions import iso
from modules.runtime.clock import Clock
from modules.venues import oanda_archive, oanda_orders
from modules.venues.oanda_codes import Meaning, meaning
from modules.venues.oanda_feed import GRANULARITY, Feed
from modules.venues.oanda_orders import unwired
from modules.venues.oanda_schema import (
    Account,
    AccountReply,
    AnyInstrument,
    Candle,
    Filled,
    InstrumentRow,
    InstrumentsReply,
    OrderReply,
    Pages,
    SummaryReply,
    Told,
    Transactions,
    transaction,
)
from modules.venues.oanda_wire import SKEW_MS, Endpoint, OandaWire, Pace
from modules.venues.protocol import AccountEvent, Capabilities, ClassWallet, FillSeen, Wallet
from modules.venues.selection import Statistic

log = structlog.get_logger("oanda")

CLOSEOUT: Final = Decimal("0.5")
"""The broker closes everything when equity falls to half of the margin used ..."""
JAPAN: Final = "-009-"
"""... and in this division, the second part of an account's number, to all of it."""
SENT_KEPT: Final = 1_000
"""Orders whose time of sending is remembered."""


class OandaVenue:
    """`intervals` is the bar length in ms per symbol to stream, "EUR/USD" and so on; `settle` the account's currency, which is checked.

    `seen_until` (UTC ms): until when the journal knows this account; what happened since is told by `account_events` too. None = a
    new journal, which begins with the first wallet. Raises ConfigurationError for an endpoint without TLS (but loopback), an account
    id that is none, or a bar length the broker has not.
    """

    name = "oanda"
    capabilities = Capabilities(set_client_id=True, query_by_client_id=True, trade_history_by_order=True, venue_stop=True,
                                resting_target=True, reduce_only=True, one_execution=True)

    def __init__(self, endpoint: Endpoint, account: str, token: SecretStr, clock: Clock, intervals: Mapping[str, int], *,
                 settle: str = "USD", pace: Pace | None = None, seen_until: int | None = None) -> None:
        faults = [f"venues.oanda: no candles of {ms} ms for {symbol}" for symbol, ms in intervals.items() if ms not in GRANULARITY]
        if not account.replace("-", "").isalnum():
            faults.append("venues.oanda.account_id: digits and dashes")
        if faults:
            raise ConfigurationError(faults)
        self._pace = pace if pace is not None else Pace()
        self._wire = OandaWire(endpoint, token, clock, self._pace)
        self._clock = clock
        self._account = account
        self._root = f"/v3/accounts/{account}"
        self._intervals = dict(intervals)
        self._settle = settle
        self._seen_until = seen_until
        self._feed = Feed(self._wire, account, clock, intervals)
        self._listed: dict[str, Instrument] = {}
        self._sent_at: dict[str, int] = {}
        """When each order of this process was sent: how far back its history begins."""
        self._cursor: int | None = None
        """The last transaction that was told."""
        self._bell = asyncio.Event()

    # -- market -----------------------------------------------------------------------------------------------------------

    async def instruments(self) -> Sequence[Instrument]:
        """The pairs of `intervals`; one that is not offered to this account (any more) is left out from then on. Raises VenueUnreachable
        if none is."""
        rows = {unwired(row.name): row for row in await self._rows()}
        if absent := sorted(self._intervals.keys() - rows.keys()):
            told = f"oanda: not offered to this account: {', '.join(absent)}"
            if len(absent) == len(self._intervals):
                raise VenueUnreachable(told)
            log.error("a pair is not offered", action="instruments", reason=told)
            for symbol in absent:
                del self._intervals[symbol]
            self._feed.watch(list(self._intervals))
        self._listed = {symbol: self._instrument(rows[symbol]) for symbol in self._intervals}
        return list(self._listed.values())

    async def _rows(self) -> Sequence[InstrumentRow]:
        reply = await self._wire.get(f"{self._root}/instruments", InstrumentsReply)
        try:
            return [InstrumentRow.model_validate(row) for row in reply.instruments if AnyInstrument.model_validate(row).type == "CURRENCY"]
        except ValueError:
            raise VenueUnreachable("oanda: an instrument outside our schema") from None

    def _instrument(self, row: InstrumentRow) -> Instrument:
        base, quoted = row.name.split("_")
        closeout = ONE if JAPAN in self._account else CLOSEOUT
        return Instrument(
            symbol=unwired(row.name), venue=self.name, asset_class=AssetClass.FOREX, base=base, quote=quoted, settle=self._settle,
            underlying=unwired(row.name), tick=ONE.scaleb(-row.display_precision), lot=ONE.scaleb(-row.trade_units_precision),
            quantity_min=row.minimum_trade_size, leverage_max=ONE / row.margin_rate, maintenance_margin=row.margin_rate * closeout,
            pip=ONE.scaleb(row.pip_location))

    # what is on offer, and its past: see venues.selection and venues.archive

    async def offered(self) -> Sequence[Instrument]:
        """Every currency pair this account may trade, streamed or not."""
        return [self._instrument(row) for row in await self._rows()]

    async def statistics(self) -> Sequence[Statistic]:
        return await oanda_archive.statistics(self._wire, self._root, [unwired(row.name) for row in await self._rows()])

    async def listed_before(self, symbol: str, at: int) -> int | None:
        """Nobody asks how old a currency is."""
        return None

    async def candles(self, symbol: str, interval_ms: int, span: dict[str, str]) -> Sequence[Candle]:
        return await oanda_archive.candles(self._wire, self._clock, symbol, interval_ms, span)

    async def interest(self, symbol: str) -> tuple[int, float, float] | None:
        """Now, and what a long and a short position earn a year as fractions; None = not told."""
        rates = next((row.financing for row in await self._rows() if unwired(row.name) == symbol), None)
        return None if rates is None else (self._clock.now(), float(rates.long_rate), float(rates.short_rate))

    async def history(self, symbol: str, until: int, bars: int) -> Sequence[Bar]:
        return await self._feed.history(symbol, until, bars)

    def interval_ms(self, symbol: str) -> int:
        return self._intervals[symbol]

    async def admit(self, instruments: Sequence[Instrument]) -> None:
        """See venues.selection.Watches. All bars are as long as the others are."""
        length = next(iter(self._intervals.values()))
        for one in instruments:
            self._intervals[one.symbol] = length
            self._listed[one.symbol] = one
        self._feed.learn([one.symbol for one in instruments], length)

    def watch(self, symbols: Sequence[str]) -> None:
        self._feed.watch(symbols)

    async def market_events(self) -> AsyncIterator[Batch]:
        async with aclosing(self._feed.events(self._rows)) as events:
            async for batch in events:
                yield batch

    async def clock_offset_ms(self) -> int | None:
        """Our clock less the broker's at its last heartbeat, network delay included; None before the first and while none comes."""
        return self._feed.offset_ms()

    # -- account ----------------------------------------------------------------------------------------------------------

    async def wallet(self) -> Wallet:
        """Balance, positions and pending orders of one instant; also rings for an audit if transactions are untold. Raises
        VenueUnreachable for an account or a currency that is not ours."""
        asked = self._clock.now()
        reply = await self._wire.get(self._root, AccountReply)
        account, last = reply.account, int(reply.last_transaction_id)
        if account.id != self._account or account.currency != self._settle:
            raise VenueUnreachable("oanda: the wallet of another account or in another currency")
        if self._cursor is None:
            self._cursor = await self._begin(last)
        if last < self._cursor:
            raise VenueUnreachable("oanda: the account as it was before what it told")
        if last > self._cursor:
            self._bell.set()
        held = ClassWallet(self._settle, account.balance, {}, _positions(account))
        reports = [oanda_orders.report_of(row, unwired(row.instrument)) for row in account.orders
                   if row.instrument is not None and row.units is not None]
        return Wallet(asked, {AssetClass.FOREX: held}, reports)

    async def _begin(self, last: int) -> int:
        """The transaction after which this journal has yet to hear of the account."""
        if self._seen_until is None:
            return last
        rows = await self._history_since(self._seen_until)
        return int(rows[0].id) - 1 if rows else last

    async def account_events(self) -> AsyncIterator[AccountEvent]:
        """What happened since the cursor, in order, again and again: at the stream's bell, after our own writes, and at least every
        `audit_s`. Errors of the wire are waited out here; the wallet's poll is what reports them."""
        listener = asyncio.create_task(self._listen(), name="oanda transactions")
        listener.add_done_callback(lambda _: self._bell.set())
        try:
            while True:
                self._bell.clear()
                try:
                    for event in await self.missed():
                        yield event
                except VenueError as error:
                    log.warning("no transactions", action="audit", reason=str(error))
                    await asyncio.sleep(self._pace.retry_s)
                    continue
                if listener.done():
                    listener.result()
                try:
                    async with asyncio.timeout(self._pace.audit_s):
                        await self._bell.wait()
                except TimeoutError:
                    pass  # the regular audit
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def missed(self, since: int | None = None) -> Sequence[AccountEvent]:
        """See the protocol. Raises VenueError."""
        if self._cursor is None:
            self._seen_until = since if since is not None else self._seen_until
            self._cursor = await self._begin(int((await self._wire.get(f"{self._root}/summary", SummaryReply)).last_transaction_id))
        events: list[AccountEvent] = []
        cursor, last = self._cursor, None
        while last is None or cursor < last:
            reply_rows = await self._wire.get(f"{self._root}/transactions/sinceid", Transactions, {"id": str(cursor)})
            rows, last = _told(reply_rows.transactions), int(reply_rows.last_transaction_id)
            numbers = [int(row.id) for row in rows]
            if any(b <= a for a, b in zip([cursor, *numbers], numbers, strict=False)) or (not rows and last > cursor):
                raise VenueUnreachable("oanda: transactions out of order or left out")
            for row in rows:
                events.extend(oanda_orders.events_of(row, self.name, self._settle))
            cursor = numbers[-1] if numbers else cursor
        self._cursor = cursor
        return events

    async def _listen(self) -> None:
        """The transaction stream: whatever it says, there may be something to ask for."""
        while True:
            try:
                async with aclosing(self._wire.lines(f"{self._root}/transactions/stream")) as lines:
                    async for row in lines:
                        if row.get("type") != "HEARTBEAT" or _number(row.get("lastTransactionID")) > (self._cursor or 0):
                            self._bell.set()
            except VenueBusy as busy:
                await self._clock.sleep_until(busy.until)
            except VenueError as error:
                log.warning("the transaction stream ended", action="account", reason=str(error))
                self._bell.set()
            await asyncio.sleep(self._pace.retry_s)

    async def fills_since(self, at: int) -> Sequence[FillSeen]:
        return [oanda_orders.fill_of(row, self.name, self._settle) for row in await self._history_since(at) if isinstance(row, Filled)]

    async def _history_since(self, at: int) -> list[Told]:
        """Every transaction since `at` (UTC ms). The broker answers with addresses of pages: only their numbers are used."""
        since = min(at, self._clock.now() - SKEW_MS)
        reply = await self._wire.get(f"{self._root}/transactions", Pages, {"from": iso(since), "pageSize": "1000"})
        rows: list[Told] = []
        for page in reply.pages:
            asked = parse_qs(urlsplit(page).query)
            first, last = (_number(asked.get(key, [""])[0]) for key in ("from", "to"))
            if not 0 < first <= last:
                raise VenueUnreachable("oanda: a page of transactions without numbers")
            part = await self._wire.get(f"{self._root}/transactions/idrange", Transactions, {"from": str(first), "to": str(last)})
            if not part.transactions:
                raise VenueUnreachable("oanda: a page of transactions without any")
            rows.extend(row for row in _told(part.transactions) if row.time >= at)
        return rows

    # -- orders -----------------------------------------------------------------------------------------------------------

    async def submit(self, order: Order) -> Fate:
        instrument = self._listed.get(order.symbol)
        fault = oanda_orders.fault_of(order, instrument)
        if fault or instrument is None:
            return Refused(oanda_orders.LOCAL, fault)
        self._sent_at[order.client_order_id] = self._clock.now()
        if len(self._sent_at) > SENT_KEPT:
            del self._sent_at[next(iter(self._sent_at))]  # what nobody remembers is searched for a week back
        answer = await self._wire.write("POST", f"{self._root}/orders", oanda_orders.body_of(order, instrument))
        self._bell.set()
        return oanda_orders.submitted(order, answer)

    async def cancel(self, order: Order) -> Fate:
        answer = await self._wire.write("PUT", f"{self._root}/orders/{_specifier(order.client_order_id)}/cancel")
        self._bell.set()
        fate = oanda_orders.canceled(order, answer)
        if not isinstance(fate, Refused) or meaning(fate.code) is not Meaning.MISSING:
            return fate
        try:
            report = await self.order(order.client_order_id, order.symbol)
        except VenueError:
            return fate
        return Accepted(report.venue_order_id) if report is not None and report.state is not OrderState.ACCEPTED else fate

    async def order(self, client_order_id: str, symbol: str) -> OrderReport | None:
        """By our id; where the broker knows our id no more (it need only name pending orders), from the account's transactions."""
        report: OrderReport | None = None
        reply = await self._wire.find(f"{self._root}/orders/{_specifier(client_order_id)}", OrderReply)
        if reply is not None:
            row = reply.order
            if row.client_extensions.id != client_order_id or row.instrument is None or unwired(row.instrument) != symbol:
                raise VenueUnreachable("oanda: asked for one order, told of another")
            report = oanda_orders.report_of(row, symbol)
            if report.state is not OrderState.CANCELED:
                return report
        sent = self._sent_at.get(client_order_id)
        since = self._clock.now() - int(self._pace.lookback_s * 1000) if sent is None else sent - SKEW_MS
        found = oanda_orders.history_of(client_order_id, symbol, await self._history_since(since))
        return found if found is not None else report

    async def close(self) -> None:
        await self._wire.close()

    async def check(self) -> None:
        """The token opens this account, it is in the expected currency, and it nets positions. (A v20 token cannot withdraw.)"""
        account = (await self._wire.get(f"{self._root}/summary", SummaryReply)).account
        if account.id != self._account:
            raise VenueDenied(f"oanda: the token answers for another account than {self._account}: mend venues.oanda.account_id")
        if account.currency != self._settle:
            raise VenueDenied(f"oanda: the account is in {account.currency}, not {self._settle}: set venues.oanda.settlement to it")
        if account.hedging_enabled:
            raise VenueDenied("oanda: the account holds long and short side by side (hedging); use one that nets: a sub-account without it")
        if account.guaranteed_stop_loss_order_mode == "REQUIRED":
            raise VenueDenied("oanda: the account wants a guaranteed stop on every trade, which this program does not use")


def _specifier(client_order_id: str) -> str:
    return "@" + quote(client_order_id, safe="")


def _number(value: Any) -> int:
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) <= 20 else 0


def _told(rows: Sequence[Any]) -> list[Told]:
    try:
        return [transaction(row) for row in rows]
    except ValueError:
        raise VenueUnreachable("oanda: a transaction outside our schema") from None


def _positions(account: Account) -> dict[str, Decimal]:
    held = {unwired(row.instrument): row.long.units + row.short.units for row in account.positions}
    return {symbol: units for symbol, units in held.items() if units != ZERO}
