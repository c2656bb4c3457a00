"""OANDA v20 on loopback: REST and the two streams over the account of oanda_book.py, the token checked, with a script of faults.

`faults` holds what goes wrong next: a reply replaced, cut, stalled, dripped or dropped, before or after the request took effect. The
shapes follow the broker's public documents; nobody has held them against production (docs/venues.md).
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple
from weakref import WeakSet

from aiohttp import web

from modules.runtime.clock import WallClock
from tests.emulators.oanda_book import Book, Denied, Row, Spec, Trade, parse_time, wire_time

TOKEN = "emulator-token-4fKq9Zt2-do-not-show"
ACCOUNT = "101-001-1234567-001"
GRANULARITY_S = {"S5": 5, "M1": 60, "M5": 300, "M15": 900, "M30": 1_800, "H1": 3_600, "H4": 14_400, "D": 86_400}
SPECS = (Spec("EUR_USD", 5, -4), Spec("GBP_USD", 5, -4), Spec("USD_JPY", 3, -2, Decimal("0.04"), Decimal("0.0310"), Decimal("-0.0520")))
START = {"EUR_USD": ("1.10000", "1.10012"), "GBP_USD": ("1.27000", "1.27018"), "USD_JPY": ("150.000", "150.016")}
DAYS_CHARGED = {"MONDAY": 1, "TUESDAY": 1, "WEDNESDAY": 3, "THURSDAY": 1, "FRIDAY": 1, "SATURDAY": 0, "SUNDAY": 0}
PAGE_IDS = 100
PAGE_IDS_MAX = 1_000
CANDLES_MAX = 5_000
STALL_S = 30.0
CHUNK_S = 0.05


class Reply(NamedTuple):
    """What goes over the wire instead of the answer. `how`: "answer", "close" (no byte), "reset" (RST), "cut" (half a body), "drip" (a
    byte now and then), "stall" (silence)."""

    status: int = 200
    body: bytes = b""
    how: str = "answer"
    headers: tuple[tuple[str, str], ...] = ()


class Fault(NamedTuple):
    """The next request of `method` whose path ends with or contains `path` gets `reply`; `accepted` = it takes effect all the same."""

    method: str
    path: str
    reply: Reply
    accepted: bool = False


ANSWER_LATE_S = 1.5
"""How late "late" is: the answer itself, when the streams have told what it speaks of."""


class Invalid(Exception):
    """A question the broker cannot read: 400 and its message, no transaction."""


class OandaEmulator:
    """`url` of a running venue; `book` is its truth, `asked` counts requests per (method, path), `faults` is the script."""

    def __init__(self, at: int, *, home: str = "USD", specs: tuple[Spec, ...] = SPECS) -> None:
        self.book = Book(ACCOUNT, home, at, specs={spec.name: spec for spec in specs}, told=self._transaction, priced=self._price)
        self.book.prices = {spec.name: (Decimal(START[spec.name][0]), Decimal(START[spec.name][1])) for spec in specs}
        self.book.open()
        self.faults: list[Fault] = []
        self.always: list[Fault] = []
        """Faults that stay until removed."""
        self.asked: Counter[tuple[str, str]] = Counter()
        self.bodies: list[Row] = []
        """Every POST and PUT body as it arrived."""
        self.forgets_filled = True
        """Client ids name pending orders only: `@id` of a finished one is 404, as others measured on practice accounts."""
        self.behind = 0
        """So many transactions what is read lags behind what was written, as one client saw for half a second after its orders."""
        self.silent = False
        """Streams stay open and say nothing."""
        self.connections: list[float] = []
        """When each connection was made, by the loop's clock."""
        self.deaf: set[str] = set()
        """Kinds of streams ("pricing", "transactions") that only beat and tell nothing."""
        self.unlisted: set[str] = set()
        """Taken off the list: nothing is told of their rules or prices any more."""
        self.heartbeat_s = 5.0
        self.port = 0
        self._streams: set[tuple[str, frozenset[str], asyncio.Queue[Row | None]]] = set()
        self._known: WeakSet[asyncio.Transport] = WeakSet()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def listeners(self) -> int:
        return len(self._streams)

    # -- serving ------------------------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.method, request.path] += 1
        if request.transport is not None and request.transport not in self._known:
            self._known.add(request.transport)
            self.connections.append(asyncio.get_running_loop().time())
        raw = await request.read()
        fault = self._fault(request)
        if fault is not None and not fault.accepted:
            return await self._misbehave(request, fault.reply)
        if request.path.endswith("/stream") and self._trusted(request):
            return await self._stream(request)
        status, answer = self._answer(request, raw)
        if fault is not None and fault.reply.how == "late":
            await asyncio.sleep(ANSWER_LATE_S)
        elif fault is not None:
            return await self._misbehave(request, fault.reply)
        return web.Response(status=status, body=json.dumps(answer).encode(), content_type="application/json",
                            headers={"RequestID": f"4200000{self.book.last}"})

    def _fault(self, request: web.Request) -> Fault | None:
        for fault in (*self.faults, *self.always):
            if fault.method == request.method and fault.path in request.path:
                if fault in self.faults:
                    self.faults.remove(fault)
                return fault
        return None

    async def _misbehave(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        if reply.how == "stall":
            await asyncio.sleep(STALL_S)
        if reply.how == "answer":
            return web.Response(status=reply.status, body=reply.body, headers={"Content-Type": "application/json", **dict(reply.headers)})
        answer = web.StreamResponse(headers={"Content-Length": "500", "Content-Type": "application/json"})
        if reply.how in ("cut", "drip"):
            await answer.prepare(request)
            await answer.write(b'{"orderCreateTransaction":{"id":"')
        if reply.how == "drip":
            for _ in range(int(STALL_S / CHUNK_S)):
                await asyncio.sleep(CHUNK_S)
                await answer.write(b" ")
        if request.transport is not None:
            if reply.how == "reset":
                sock = request.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.transport.close()
        return answer

    def _trusted(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _answer(self, request: web.Request, raw: bytes) -> tuple[int, Row]:
        if not self._trusted(request):
            return 401, {"errorMessage": "Insufficient authorization to perform request."}
        parts = request.path.strip("/").split("/")
        asked: Row = dict(request.query)
        try:
            if raw:
                asked |= json.loads(raw)
                self.bodies.append(asked)
            if parts[:1] != ["v3"]:
                return 404, {"errorMessage": "The requested path does not exist."}
            return self._route(request.method, parts[1:], asked)
        except Invalid as invalid:
            return 400, {"errorMessage": str(invalid)}
        except Denied as denied:
            return denied.status, self._refusal(denied, asked)
        except (json.JSONDecodeError, InvalidOperation):
            return 400, {"errorMessage": "Invalid JSON, ParseErrorCode: 3, Message: Invalid value."}

    def _refusal(self, denied: Denied, asked: Row) -> Row:
        """Only what is wrong with an order as such is a transaction; a parameter nobody can read is not."""
        if denied.reason in ("NO_SUCH_ORDER", "NO_SUCH_TRADE"):
            thing = "order" if denied.reason == "NO_SUCH_ORDER" else "trade"
            message = f"The {thing} ID specified does not exist"
            return {"lastTransactionID": self._last(), "errorMessage": message, "errorCode": denied.reason}
        if denied.reason in ("INVALID_PARAMETER", "INVALID_TYPE"):
            named = "type" if denied.reason == "INVALID_TYPE" else "instrument"
            return {"errorMessage": f"Invalid value specified for 'order.{named}'",
                    "errorCode": "oanda::rest::core::InvalidParameterException"}
        order = asked.get("order") or {}
        if denied.reason == "ORDER_DOESNT_EXIST":
            kind, name = "orderCancelRejectTransaction", "ORDER_CANCEL_REJECT"
            told = {"clientOrderID": denied.which[1:]} if denied.which.startswith("@") else {"orderID": denied.which}
        else:
            kind, name = "orderRejectTransaction", f"{order.get('type', 'MARKET')}_ORDER_REJECT"
            told = {key: order[key] for key in ("instrument", "units", "price", "clientExtensions") if key in order}
        row = self.book.note(name, rejectReason=denied.reason, **told)
        return self.book.related({kind: row, "errorCode": denied.reason, "errorMessage": f"Refused: {denied.reason}"})

    def _last(self) -> str:
        """The newest transaction that reads show."""
        return str(max(int(self.book.last) - self.behind, 0))

    def _route(self, method: str, parts: list[str], asked: Row) -> tuple[int, Row]:
        book = self.book
        if parts[0] == "instruments":
            return 200, self._candles(parts[1], asked)
        if parts == ["accounts"]:
            return 200, {"accounts": [{"id": book.account, "tags": []}]}
        if parts[1] != book.account:
            return 403, {"errorMessage": "The provided request was forbidden."}
        match method, parts[2:]:
            case "GET", []:
                account = self._summary() | {"orders": self._pending(), "trades": [self._trade(t) for t in book.trades.values()],
                                             "positions": self._positions(every=True)}
                return 200, {"account": account, "lastTransactionID": book.last}
            case "GET", ["summary"]:
                return 200, {"account": self._summary(), "lastTransactionID": book.last}
            case "GET", ["instruments"]:
                wanted = asked.get("instruments", "").split(",") if asked.get("instruments") else list(book.specs)
                rows = [self._instrument(book.specs[name]) for name in wanted if name not in self.unlisted]
                return 200, {"instruments": rows, "lastTransactionID": book.last}
            case "GET", ["changes"]:
                return 200, self._changes(int(asked.get("sinceTransactionID", 0)))
            case "GET", ["pricing"]:
                return 200, {"time": wire_time(book.at), "prices": [self._quote(name) for name in asked["instruments"].split(",")]}
            case "POST", ["orders"]:
                return 201, book.create(asked["order"])
            case "GET", ["orders"] | ["pendingOrders"]:
                return 200, {"orders": self._pending(), "lastTransactionID": book.last}
            case "GET", ["orders", which]:
                return 200, {"order": self._order(which), "lastTransactionID": self._last()}
            case "PUT", ["orders", which, "cancel"]:
                order = book.find(which)
                if order is None or order["state"] != "PENDING":
                    raise Denied("ORDER_DOESNT_EXIST", 404, which)
                return 200, book.related({"orderCancelTransaction": book.cancel(order, "CLIENT_REQUEST")})
            case "GET", ["openTrades"] | ["trades"]:
                return 200, {"trades": [self._trade(t) for t in reversed(book.trades.values())], "lastTransactionID": book.last}
            case "PUT", ["trades", which, "close"]:
                if which not in book.trades:
                    raise Denied("NO_SUCH_TRADE", 404)
                trade = book.trades[which]
                units = asked.get("units", "ALL")
                return 200, book.close_trade(trade, abs(trade.units) if units == "ALL" else Decimal(units))
            case "GET", ["openPositions"] | ["positions"]:
                return 200, {"positions": self._positions(every=parts[2] == "positions"), "lastTransactionID": book.last}
            case "GET", ["transactions", *rest]:
                return 200, self._transactions(rest, asked)
        return 404, {"errorMessage": "The requested path does not exist."}

    # -- documents ----------------------------------------------------------------------------------------------------------

    def _summary(self) -> Row:
        book, used = self.book, self.book.margin_used()
        nav = book.nav()
        gained, share = str(nav - book.balance), str((used / nav if nav > 0 else used).quantize(Decimal("0.00001")))
        zeros = dict.fromkeys(("resettablePL", "financing", "commission", "dividendAdjustment", "guaranteedExecutionFees"), "0.0000")
        closeout = {"marginCloseoutUnrealizedPL": gained, "marginCloseoutNAV": str(nav), "marginCloseoutMarginUsed": str(used),
                    "marginCloseoutPercent": str(Decimal(share) / 2), "marginCloseoutPositionValue": str(used),
                    "marginCallMarginUsed": str(used), "marginCallPercent": share, "withdrawalLimit": str(nav - used)}
        return {"id": book.account, "alias": "emulated", "currency": book.home, "balance": str(book.balance), "createdByUserID": 1,
                "createdTime": wire_time(0), "pl": str(sum((Decimal(t.get("pl", 0)) for t in book.transactions), Decimal(0))), **zeros,
                "resettablePLTime": "0", "marginRate": "0.0333", "openTradeCount": len(book.trades), "hedgingEnabled": False,
                "guaranteedStopLossOrderMode": "DISABLED", "openPositionCount": len(self._positions(every=False)),
                "pendingOrderCount": len(self._pending()), "unrealizedPL": gained, "NAV": str(nav), "marginUsed": str(used),
                "marginAvailable": str(nav - used), "positionValue": str(used), **closeout, "lastTransactionID": book.last}

    def _instrument(self, spec: Spec) -> Row:
        return {"name": spec.name, "type": "CURRENCY", "displayName": spec.symbol, "pipLocation": spec.pip,
                "displayPrecision": spec.precision, "tradeUnitsPrecision": 0, "minimumTradeSize": "1",
                "maximumTrailingStopDistance": "1.00000", "minimumTrailingStopDistance": "0.00050", "maximumPositionSize": "0",
                "maximumOrderUnits": str(spec.units_max), "marginRate": str(spec.margin_rate), "guaranteedStopLossOrderMode": "DISABLED",
                "financing": {"longRate": str(spec.long_rate), "shortRate": str(spec.short_rate), "financingDaysOfWeek": [
                    {"dayOfWeek": day, "daysCharged": charged} for day, charged in DAYS_CHARGED.items()]}}

    def _quote(self, name: str) -> Row:
        bid, ask = self.book.prices[name]
        return {"type": "PRICE", "time": wire_time(self.book.at), "instrument": name, "tradeable": self.book.tradeable(name),
                "status": "tradeable" if self.book.tradeable(name) else "non-tradeable",
                "bids": [{"price": str(bid), "liquidity": 10000000}], "asks": [{"price": str(ask), "liquidity": 10000000}],
                "closeoutBid": str(bid), "closeoutAsk": str(ask)}

    def _candles(self, name: str, asked: Row) -> Row:
        """Built from the ticks. One is complete when a later tick has come, however long that takes; intervals without a tick have none."""
        length = GRANULARITY_S[asked.get("granularity", "S5")] * 1_000
        if name not in self.book.specs:
            raise Invalid("Invalid value specified for 'instrument'")
        for key in ("from", "to"):
            if key in asked and parse_time(asked[key]) > self.book.at:
                raise Invalid(f"Invalid value specified for '{key}'. Time is in the future")
        if asked.keys() >= {"from", "to", "count"}:
            raise Invalid("'count' cannot be specified when 'to' and 'from' are set")
        first = parse_time(asked["from"]) if "from" in asked else 0
        last = parse_time(asked["to"]) if "to" in asked else self.book.at + 1
        count = int(asked.get("count", 500))
        if count > CANDLES_MAX or ("from" in asked and "to" in asked and (last - first) // length + 1 > CANDLES_MAX):
            raise Invalid("Maximum value for 'count' exceeded")
        ticks = self.book.ticks.get(name, [])
        groups: dict[int, list[tuple[int, Decimal, Decimal]]] = {}
        for tick in ticks:
            groups.setdefault(tick[0] - tick[0] % length, []).append(tick)
        starts = [start for start in sorted(groups) if first <= start < last]
        if not asked.keys() >= {"from", "to"}:
            starts = starts[:count] if "from" in asked else starts[-count:]
        sides: dict[str, tuple[str, Callable[[Decimal, Decimal], Decimal]]] = {
            "M": ("mid", lambda b, a: (b + a) / 2), "B": ("bid", lambda b, _: b), "A": ("ask", lambda _, a: a)}
        rows = []
        for start in starts:
            row: Row = {"complete": start + length <= ticks[-1][0], "volume": len(groups[start]), "time": wire_time(start)}
            for side in asked.get("price", "M"):
                key, pick = sides[side]
                seen = [pick(bid, ask) for _, bid, ask in groups[start]]
                row[key] = {"o": str(seen[0]), "h": str(max(seen)), "l": str(min(seen)), "c": str(seen[-1])}
            rows.append(row)
        return {"instrument": name, "granularity": asked.get("granularity", "S5"), "candles": rows}

    def _pending(self) -> list[Row]:
        return [order for order in self.book.orders.values() if order["state"] == "PENDING"]

    def _order(self, which: str) -> Row:
        order = self.book.find(which, ended=not self.forgets_filled)
        if order is None or int(order["id"]) > int(self._last()):
            raise Denied("NO_SUCH_ORDER", 404)
        return order

    def _trade(self, trade: Trade) -> Row:
        return {"id": trade.id, "instrument": trade.instrument, "price": str(trade.price), "openTime": wire_time(trade.opened),
                "state": "OPEN", "initialUnits": str(trade.initial), "currentUnits": str(trade.units), "realizedPL": str(trade.realized),
                "unrealizedPL": str(self.book.unrealized(trade)), "financing": str(trade.financing), "dividendAdjustment": "0.0000",
                "marginUsed": str(self.book.margin(trade.instrument, trade.units)), "initialMarginRequired": str(
                    self.book.margin(trade.instrument, trade.initial))}

    def _positions(self, *, every: bool) -> list[Row]:
        rows = []
        for name in self.book.specs:
            trades = [trade for trade in self.book.trades.values() if trade.instrument == name]
            if not trades and not every:
                continue
            nothing = {"pl": "0.0000", "resettablePL": "0.0000", "financing": "0.0000", "dividendAdjustment": "0.0000",
                       "guaranteedExecutionFees": "0.0000"}
            gained = sum((self.book.unrealized(t) for t in trades), Decimal(0))
            row: Row = {"instrument": name, **nothing, "commission": "0.0000", "unrealizedPL": str(gained)}
            for side, sign in (("long", 1), ("short", -1)):
                own = [trade for trade in trades if trade.units * sign > 0]
                units = sum((trade.units for trade in own), Decimal(0))
                gain = sum((self.book.unrealized(trade) for trade in own), Decimal(0))
                row[side] = {"units": str(units), **nothing, "unrealizedPL": str(gain)}
                if own:
                    value = sum((trade.units * trade.price for trade in own), Decimal(0))
                    row[side] |= {"averagePrice": str((value / units).quantize(Decimal("0.00001"))), "tradeIDs": [t.id for t in own]}
            rows.append(row)
        return rows

    def _changes(self, since: int) -> Row:
        rows = self.book.transactions[since:]
        touched = {row.get("orderID", row["id"]) for row in rows}
        found = [order for order in self.book.orders.values() if order["id"] in touched]
        changes: Row = {f"orders{state}": [order for order in found if order["state"] == state.upper()]
                        for state in ("Cancelled", "Filled", "Triggered")}
        changes |= {"ordersCreated": [order for order in found if int(order["id"]) > since], "tradesReduced": [], "positions": [],
                    "tradesOpened": [self._trade(t) for t in self.book.trades.values() if int(t.id) > since],
                    "tradesClosed": [row for number, row in self.book.closed.items() if int(number) > 0], "transactions": rows}
        return {"changes": changes, "state": {"NAV": str(self.book.nav()), "unrealizedPL": str(self.book.nav() - self.book.balance)},
                "lastTransactionID": self.book.last}

    def _transactions(self, rest: list[str], asked: Row) -> Row:
        rows = self.book.transactions[:int(self._last())]
        if rest == ["sinceid"]:
            return {"transactions": rows[int(asked["id"]):][:1_000], "lastTransactionID": self._last()}
        if rest == ["idrange"]:
            found = [row for row in rows if int(asked["from"]) <= int(row["id"]) <= int(asked["to"])]
            return {"transactions": found, "lastTransactionID": self._last()}
        if rest:
            return {"transaction": rows[int(rest[0]) - 1], "lastTransactionID": self._last()}
        for key in ("from", "to"):
            if key in asked and parse_time(asked[key]) > self.book.at:
                raise Invalid(f"Invalid value specified for '{key}'")
        if int(asked.get("pageSize", PAGE_IDS)) > PAGE_IDS_MAX:
            raise Invalid("The specified page size is invalid")
        since, until = parse_time(asked["from"]) if "from" in asked else 0, parse_time(asked["to"]) if "to" in asked else self.book.at
        numbers = [int(row["id"]) for row in rows if since <= parse_time(row["time"]) <= until]
        size = int(asked.get("pageSize", PAGE_IDS))
        pages = [f"{self.url}/v3/accounts/{self.book.account}/transactions/idrange?from={first}&to={min(first + size - 1, numbers[-1])}"
                 for first in range(numbers[0], numbers[-1] + 1, size)] if numbers else []
        return {"from": wire_time(since), "to": wire_time(until), "pageSize": size, "count": len(numbers), "pages": pages,
                "lastTransactionID": self._last()}

    # -- streams ------------------------------------------------------------------------------------------------------------

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        kind = "pricing" if "/pricing/" in request.path else "transactions"
        wanted = frozenset(request.query.get("instruments", "").split(","))
        if kind == "pricing" and not wanted <= self.book.specs.keys() - self.unlisted:
            return web.Response(status=400, body=b'{"errorMessage": "Invalid value specified for \'instruments\'"}')
        queue: asyncio.Queue[Row | None] = asyncio.Queue()
        entry = kind, wanted, queue
        answer = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        self._streams.add(entry)
        if kind == "pricing":
            for name in sorted(wanted & self.book.prices.keys()):
                queue.put_nowait(self._quote(name))
        beating = asyncio.create_task(self._beat(kind, queue))
        try:
            while (row := await queue.get()) is not None:
                if not self.silent and (kind not in self.deaf or row["type"] == "HEARTBEAT"):
                    await answer.write(json.dumps(row).encode() + b"\n")
            return answer
        except (ConnectionResetError, ConnectionError):
            return answer
        finally:
            beating.cancel()
            self._streams.discard(entry)

    async def _beat(self, kind: str, queue: asyncio.Queue[Row | None]) -> None:
        """A heartbeat every so often, however much else there is to say."""
        while True:
            await asyncio.sleep(self.heartbeat_s)
            last = {"lastTransactionID": self.book.last} if kind == "transactions" else {}
            queue.put_nowait({"type": "HEARTBEAT", "time": wire_time(self.book.at), **last})

    def _transaction(self, row: Row) -> None:
        for kind, _, queue in getattr(self, "_streams", ()):
            if kind == "transactions":
                queue.put_nowait(row)

    def _price(self, name: str) -> None:
        for kind, wanted, queue in getattr(self, "_streams", ()):
            if kind == "pricing" and name in wanted:
                queue.put_nowait(self._quote(name))

    def drop_streams(self) -> None:
        """Every stream ends; what happens until they are back is not told again."""
        for _, _, queue in self._streams:
            queue.put_nowait(None)

    def garble(self) -> None:
        """One malformed line to everybody."""
        for _, _, queue in self._streams:
            queue.put_nowait({"type": "PRICE", "instrument": "EUR_USD", "time": None})


class Walk:
    """A seeded random walk of every instrument, one step at a time."""

    def __init__(self, seed: int, specs: Mapping[str, Spec]) -> None:
        self._random = random.Random(seed)
        self._specs = specs

    def step(self, prices: Mapping[str, tuple[Decimal, Decimal]]) -> dict[str, tuple[Decimal, Decimal]]:
        moved = {}
        for name, (bid, ask) in prices.items():
            point = Decimal(1).scaleb(-self._specs[name].precision)
            change = self._random.randint(-9, 9) * point
            spread = max(ask - bid + self._random.randint(-1, 1) * point, 4 * point)
            moved[name] = (bid + change, bid + change + spread)
        return moved


@asynccontextmanager
async def serving(at: int, *, port: int = 0, **options: Any) -> AsyncIterator[OandaEmulator]:
    """A venue on the loopback interface; `port` 0 = a free one. Its time stands still until `book.move`."""
    venue = OandaEmulator(at, **options)
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", venue.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    venue.port = runner.addresses[0][1]
    try:
        yield venue
    finally:
        venue.drop_streams()
        await runner.cleanup()


async def run(port: int, seed: int) -> None:
    """Serve on the wall clock for ever, prices walking four times a second; an hour of past is there at the start."""
    clock = WallClock()
    now = clock.now()
    async with serving(now - 3_600_000, port=port) as venue:
        walk = Walk(seed, venue.book.specs)
        for at in range(now - 3_600_000 + 5_000, now, 5_000):
            venue.book.move(at, walk.step(venue.book.prices))
        venue.book.weekends = True
        print(f"oanda on {venue.url} account {ACCOUNT} token {TOKEN}; also open on weekends", flush=True)
        while True:
            await asyncio.sleep(0.25)
            venue.book.move(clock.now(), walk.step(venue.book.prices))
