"""What an OANDA account is made of: prices, orders, trades and transactions, booked exactly in Decimal. Knows nothing of the wire.

The book is the oracle: `balance` after every transaction, the transactions in order, FIFO trades. Amounts in home currency are kept to
1e-4, as the broker's documents show them. Time is UTC ms and moves only by `move`. Trading stops from 16:59 to 17:05 New York every day, as
the broker's hours say: nothing ticks then and market orders end as MARKET_HALTED.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any
from zoneinfo import ZoneInfo

from modules.domain.sessions import forex_open, iso, next_rollover, nights

Row = dict[str, Any]
CENT = Decimal("0.0001")
YEAR_DAYS = 365
KINDS = {"MARKET": "MARKET_ORDER", "LIMIT": "LIMIT_ORDER", "STOP": "STOP_ORDER", "STOP_LOSS": "STOP_LOSS_ORDER",
         "TAKE_PROFIT": "TAKE_PROFIT_ORDER"}
RESTING = ("LIMIT", "STOP", "STOP_LOSS", "TAKE_PROFIT")
BREAK = (16 * 60 + 59, 17 * 60 + 5)
"""Minutes of New York's day between which nothing trades."""
NEW_YORK = ZoneInfo("America/New_York")


def in_break(at: int) -> bool:
    local = datetime.fromtimestamp(at / 1000, NEW_YORK)
    return BREAK[0] <= local.hour * 60 + local.minute < BREAK[1]


def wire_time(at: int) -> str:
    """RFC 3339 with nanoseconds, as the broker writes it."""
    return iso(at)[:-1] + "000000Z"


@dataclass(frozen=True)
class Spec:
    """One instrument's rules."""

    name: str
    precision: int
    pip: int
    margin_rate: Decimal = Decimal("0.0333")
    long_rate: Decimal = Decimal("-0.0150")
    short_rate: Decimal = Decimal("-0.0050")
    units_max: Decimal = Decimal(100_000_000)

    @property
    def symbol(self) -> str:
        return self.name.replace("_", "/")


@dataclass
class Trade:
    """One opened lot; positions are the sum of them, closed oldest first."""

    id: str
    instrument: str
    price: Decimal
    units: Decimal
    opened: int
    initial: Decimal
    realized: Decimal = Decimal(0)
    financing: Decimal = Decimal(0)
    extensions: Row | None = None


@dataclass
class Denied(Exception):
    """A request refused with the broker's own reason."""

    reason: str
    status: int = 400
    which: str = ""
    """The order that was meant."""


@dataclass
class Book:
    account: str
    home: str
    at: int
    balance: Decimal = Decimal("10000.0000")
    specs: dict[str, Spec] = field(default_factory=dict)
    prices: dict[str, tuple[Decimal, Decimal]] = field(default_factory=dict)
    ticks: dict[str, list[tuple[int, Decimal, Decimal]]] = field(default_factory=dict)
    transactions: list[Row] = field(default_factory=list)
    orders: dict[str, Row] = field(default_factory=dict)
    trades: dict[str, Trade] = field(default_factory=dict)
    closed: dict[str, Row] = field(default_factory=dict)
    halted: set[str] = field(default_factory=set)
    weekends: bool = False
    """Trade on weekends and through the daily break too: for somebody who tries it on a Sunday."""
    told: Callable[[Row], None] = lambda _: None
    """Hears every transaction."""
    priced: Callable[[str], None] = lambda _: None
    """Hears every price change."""

    def open(self) -> None:
        """The account's first transactions."""
        self.note("CREATE", divisionID=1, homeCurrency=self.home, siteID=1, accountUserID=1, accountNumber=1)
        self.note("TRANSFER_FUNDS", amount=str(self.balance), fundingReason="CLIENT_FUNDING", accountBalance=str(self.balance))

    # -- transactions -----------------------------------------------------------------------------------------------------

    @property
    def last(self) -> str:
        return str(len(self.transactions))

    def note(self, kind: str, batch: str = "", **fields: Any) -> Row:
        number = str(len(self.transactions) + 1)
        row = {"id": number, "time": wire_time(self.at), "userID": 1, "accountID": self.account, "batchID": batch or number,
               "requestID": f"4200000{number}", "type": kind, **fields}
        self.transactions.append(row)
        self.told(row)
        return row

    def transfer(self, amount: Decimal) -> None:
        """A deposit or withdrawal by the owner."""
        self.balance += amount
        self.note("TRANSFER_FUNDS", amount=str(amount), fundingReason="CLIENT_FUNDING", accountBalance=str(self.balance))

    # -- prices and time ---------------------------------------------------------------------------------------------------

    def move(self, at: int, prices: Mapping[str, tuple[Decimal, Decimal]]) -> None:
        """Time is `at` and these are the prices now: rollovers on the way are charged, then resting orders meet the prices."""
        while (rollover := next_rollover(self.at)) <= at:
            self.at = rollover
            self._finance(rollover)
        self.at = at
        for name, (bid, ask) in prices.items():
            self.prices[name] = (bid, ask)
            if self.weekends or not in_break(at):
                self.ticks.setdefault(name, []).append((at, bid, ask))
            self.priced(name)
        self._expire()
        for name in prices:
            self._match(name)

    def factor(self, currency: str, gain: bool) -> Decimal:
        """Home currency per unit of `currency`, the side against us."""
        if currency == self.home:
            return Decimal(1)
        for name, (bid, ask) in self.prices.items():
            base, quote = name.split("_")
            if (base, quote) == (currency, self.home):
                return bid if gain else ask
            if (base, quote) == (self.home, currency):
                return (1 / ask if gain else 1 / bid).quantize(Decimal("1e-12"))
        raise AssertionError(f"no price to convert {currency}")

    def homed(self, amount: Decimal, currency: str) -> Decimal:
        return (amount * self.factor(currency, amount > 0)).quantize(CENT, ROUND_HALF_EVEN)

    def tradeable(self, name: str) -> bool:
        return name in self.prices and name not in self.halted and (self.weekends or (forex_open(self.at) and not in_break(self.at)))

    # -- account ------------------------------------------------------------------------------------------------------------

    def unrealized(self, trade: Trade) -> Decimal:
        bid, ask = self.prices[trade.instrument]
        return self.homed(trade.units * ((bid if trade.units > 0 else ask) - trade.price), trade.instrument[4:])

    def margin(self, name: str, units: Decimal) -> Decimal:
        bid, ask = self.prices[name]
        return (abs(units) * self.specs[name].margin_rate * (bid + ask) / 2 * self.factor(name[4:], False)).quantize(CENT)

    def margin_used(self) -> Decimal:
        return sum((self.margin(name, self.position(name)) for name in self.specs if self.position(name)), Decimal(0))

    def nav(self) -> Decimal:
        return self.balance + sum((self.unrealized(trade) for trade in self.trades.values()), Decimal(0))

    def position(self, name: str) -> Decimal:
        return sum((trade.units for trade in self.trades.values() if trade.instrument == name), Decimal(0))

    def _finance(self, at: int) -> None:
        """17:00 New York: each trade pays or earns its instrument's rate for the nights this rollover counts."""
        total, rows = Decimal(0), []
        for name, spec in self.specs.items():
            parts = []
            for trade in self.trades.values():
                if trade.instrument != name:
                    continue
                bid, ask = self.prices[name]
                rate = spec.long_rate if trade.units > 0 else spec.short_rate
                paid = self.homed(abs(trade.units) * (bid + ask) / 2 * rate / YEAR_DAYS * nights(spec.symbol, at), name[4:])
                trade.financing += paid
                parts.append({"tradeID": trade.id, "financing": str(paid)})
            if parts:
                amount = sum((Decimal(part["financing"]) for part in parts), Decimal(0))
                rows.append({"instrument": name, "financing": str(amount), "openTradeFinancings": parts,
                             "accountFinancingMode": "DAILY_INSTRUMENT",
                             "homeConversionFactors": {"gainQuoteHome": None, "lossQuoteHome": None}})
                total += amount
        if rows:
            self.balance += total
            self.note("DAILY_FINANCING", financing=str(total), accountBalance=str(self.balance), positionFinancings=rows)

    # -- orders -------------------------------------------------------------------------------------------------------------

    def find(self, specifier: str, *, ended: bool = False) -> Row | None:
        """An order by its id, or by `@` and the client's. A client id names pending orders only; with `ended`, else the newest too."""
        if not specifier.startswith("@"):
            return self.orders.get(specifier)
        found = [o for o in self.orders.values() if (o.get("clientExtensions") or {}).get("id") == specifier[1:]]
        pending = [o for o in found if o["state"] == "PENDING"]
        return pending[-1] if pending else found[-1] if found and ended else None

    def create(self, asked: Row) -> Row:
        """POST /orders: the body of the answer, 201. Raises Denied."""
        kind, name = asked.get("type", ""), asked.get("instrument", "")
        self._check(asked, kind, name)
        units = Decimal(asked["units"])
        told = {key: asked[key] for key in ("price", "timeInForce", "positionFill", "gtdTime", "clientExtensions", "stopLossOnFill",
                                            "takeProfitOnFill", "triggerCondition", "priceBound") if asked.get(key) is not None}
        created = self.note(KINDS[kind], instrument=name, units=str(units), reason="CLIENT_ORDER", **told)
        order = {"id": created["id"], "createTime": created["time"], "state": "PENDING", "type": kind, "instrument": name,
                 "units": str(units), **told}
        self.orders[order["id"]] = order
        reply: Row = {"orderCreateTransaction": created}
        if kind == "MARKET":
            reply |= self._execute(order)
        else:
            reply |= self._meet(order)
        return self.related(reply)

    def related(self, reply: Row) -> Row:
        numbers = [row["id"] for row in reply.values() if isinstance(row, dict) and "id" in row]
        return {**reply, "relatedTransactionIDs": numbers, "lastTransactionID": self.last}

    def _check(self, asked: Row, kind: str, name: str) -> None:
        if kind not in ("MARKET", "LIMIT", "STOP"):
            raise Denied("INVALID_TYPE")
        if name not in self.specs:
            raise Denied("INVALID_PARAMETER")
        text = asked.get("units")
        if not isinstance(text, str):
            raise Denied("UNITS_MISSING" if text is None else "UNITS_INVALID")
        units = Decimal(text)
        if not units:
            raise Denied("UNITS_INVALID")
        if units != units.to_integral_value():
            raise Denied("UNITS_PRECISION_EXCEEDED")
        if abs(units) > self.specs[name].units_max:
            raise Denied("UNITS_LIMIT_EXCEEDED")
        if kind != "MARKET":
            self._check_price(asked.get("price"), name, "PRICE")
        for key, prefix in (("stopLossOnFill", "STOP_LOSS_ON_FILL_PRICE"), ("takeProfitOnFill", "TAKE_PROFIT_ON_FILL_PRICE")):
            if asked.get(key):
                self._check_price(asked[key].get("price"), name, prefix)
        wanted = (asked.get("clientExtensions") or {}).get("id")
        if wanted is not None and any(o["state"] == "PENDING" and (o.get("clientExtensions") or {}).get("id") == wanted
                                      for o in self.orders.values()):
            raise Denied("CLIENT_ORDER_ID_ALREADY_EXISTS")
        if kind == "MARKET" and asked.get("timeInForce", "FOK") not in ("FOK", "IOC"):
            raise Denied("TIME_IN_FORCE_INVALID")

    def _check_price(self, text: Any, name: str, prefix: str) -> None:
        if text is None:
            raise Denied(f"{prefix}_MISSING")
        if not isinstance(text, str) or Decimal(text) <= 0:
            raise Denied(f"{prefix}_INVALID")
        if len(text.partition(".")[2]) > self.specs[name].precision:
            raise Denied(f"{prefix}_PRECISION_EXCEEDED")

    def cancel(self, order: Row, reason: str, batch: str = "") -> Row:
        told = self.note("ORDER_CANCEL", batch, orderID=order["id"], reason=reason, **self._client(order))
        order |= {"state": "CANCELLED", "cancellingTransactionID": told["id"], "cancelledTime": told["time"]}
        return told

    def _client(self, order: Row) -> Row:
        ours = (order.get("clientExtensions") or {}).get("id")
        return {"clientOrderID": ours} if ours else {}

    def _expire(self) -> None:
        for order in list(self.orders.values()):
            if order["state"] == "PENDING" and order.get("gtdTime") and _at(order["gtdTime"]) <= self.at:
                self.cancel(order, "TIME_IN_FORCE_EXPIRED")

    # -- matching -----------------------------------------------------------------------------------------------------------

    def _match(self, name: str) -> None:
        for order in list(self.orders.values()):
            if order["state"] == "PENDING" and order["instrument"] == name:
                self._meet(order)

    def _meet(self, order: Row) -> Row:
        """A resting order meets the present price: what it caused, if anything."""
        name, kind = order["instrument"], order["type"]
        if not self.tradeable(name):
            return {}
        bid, ask = self.prices[name]
        buy, price = Decimal(order["units"]) > 0, Decimal(order["price"])
        now = ask if buy else bid
        if kind in ("STOP", "STOP_LOSS"):
            hit = now >= price if buy else now <= price
        else:
            hit = now <= price if buy else now >= price
        return self._execute(order) if hit else {}

    def _execute(self, order: Row) -> Row:
        """Fill the order at the present price, or cancel it with the reason why not."""
        name, units = order["instrument"], Decimal(order["units"])
        if not self.tradeable(name):
            return {"orderCancelTransaction": self.cancel(order, "MARKET_HALTED", order["id"])}
        bid, ask = self.prices[name]
        price = ask if units > 0 else bid
        held = self.position(name)
        against = held if held * units < 0 else Decimal(0)
        opening = max(abs(units) - abs(against), Decimal(0))
        if order.get("positionFill") == "REDUCE_ONLY" and opening:
            return {"orderCancelTransaction": self.cancel(order, "INSUFFICIENT_LIQUIDITY", order["id"])}
        if opening and self.margin(name, opening) > self.nav() - self.margin_used() + self.margin(name, against):
            return {"orderCancelTransaction": self.cancel(order, "INSUFFICIENT_MARGIN", order["id"])}
        bound = order.get("priceBound")
        if bound is not None and (price > Decimal(bound) if units > 0 else price < Decimal(bound)):
            return {"orderCancelTransaction": self.cancel(order, "BOUNDS_VIOLATION", order["id"])}
        return {"orderFillTransaction": self._fill(order, units, price, opening)}

    def _fill(self, order: Row, units: Decimal, price: Decimal, opening: Decimal, only: str = "") -> Row:
        name, sign = order["instrument"], 1 if units > 0 else -1
        number = str(len(self.transactions) + 1)
        left, raw, closed = abs(units) - opening, Decimal(0), []
        for trade in sorted(self.trades.values(), key=lambda each: int(each.id)):
            if not left or trade.instrument != name or (only or trade.id) != trade.id:
                continue
            part = min(left, abs(trade.units))
            gross = part * (price - trade.price) * -sign
            raw, left = raw + gross, left - part
            closed.append((trade, part, gross))
        realized = Decimal(0)
        rows: list[Row] = []
        reduced: list[Row] = []
        for trade, part, gross in closed:
            share = self.homed(gross, name[4:])
            trade.units += part * sign
            trade.realized += share
            realized += share
            told = rows if not trade.units else reduced
            told.append({"tradeID": trade.id, "units": str(part * sign), "price": str(price), "realizedPL": str(share),
                         "financing": "0.0000"})
            if not trade.units:
                del self.trades[trade.id]
                self.closed[trade.id] = {"id": trade.id, "state": "CLOSED", "instrument": name, "realizedPL": str(trade.realized)}
        self.balance += realized
        opened = {"tradeID": number, "units": str(opening * sign), "price": str(price)} if opening else None
        if opening:
            self.trades[number] = Trade(number, name, price, opening * sign, self.at, opening * sign)
        bid, ask = self.prices[name]
        gains, losses = str(self.factor(name[4:], True)), str(self.factor(name[4:], False))
        filled = self.note(
            "ORDER_FILL", order["id"], orderID=order["id"], **self._client(order), instrument=name, units=str(units),
            requestedUnits=str(units), price=str(price), fullVWAP=str(price), reason=KINDS[order["type"]], pl=str(realized),
            quotePL=str(raw), financing="0.0000", baseFinancing="0.00000000000000", commission="0.0000", guaranteedExecutionFee="0.0000",
            quoteGuaranteedExecutionFee="0", accountBalance=str(self.balance), gainQuoteHomeConversionFactor=gains,
            lossQuoteHomeConversionFactor=losses, halfSpreadCost=str((abs(units) * (ask - bid) / 2).quantize(CENT)),
            homeConversionFactors={"gainQuoteHome": {"factor": gains}, "lossQuoteHome": {"factor": losses}},
            fullPrice={"bids": [{"price": str(bid), "liquidity": "10000000"}], "asks": [{"price": str(ask), "liquidity": "10000000"}],
                       "closeoutBid": str(bid), "closeoutAsk": str(ask), "timestamp": wire_time(self.at)},
            **({"tradeOpened": opened} if opened else {}), **({"tradesClosed": rows} if rows else {}),
            **({"tradeReduced": reduced[0]} if reduced else {}))
        order |= {"state": "FILLED", "fillingTransactionID": filled["id"], "filledTime": filled["time"],
                  "tradeClosedIDs": [row["tradeID"] for row in rows], **({"tradeOpenedID": number} if opening else {})}
        self._link(order, number if opening else "", -sign * opening)
        for pending in list(self.orders.values()):
            if pending["state"] == "PENDING" and pending.get("tradeID") in self.closed:
                self.cancel(pending, "LINKED_TRADE_CLOSED", filled["batchID"])
        return filled

    def _link(self, order: Row, trade: str, units: Decimal) -> None:
        """Stop loss and take profit that the order wanted on its fill."""
        for key, kind in (("stopLossOnFill", "STOP_LOSS"), ("takeProfitOnFill", "TAKE_PROFIT")):
            if trade and order.get(key):
                asked = {k: v for k, v in order[key].items() if k in ("price", "timeInForce", "clientExtensions")}
                made = self.note(KINDS[kind], order["id"], tradeID=trade, reason="ON_FILL", triggerCondition="DEFAULT", **asked)
                self.orders[made["id"]] = {"id": made["id"], "createTime": made["time"], "state": "PENDING", "type": kind, "tradeID": trade,
                                           "instrument": order["instrument"], "units": str(units), **asked}

    def close_trade(self, trade: Trade, units: Decimal) -> Row:
        """PUT /trades/{id}/close."""
        if units > abs(trade.units):
            raise Denied("CLOSE_TRADE_UNITS_EXCEED_TRADE_SIZE")
        signed = -units if trade.units > 0 else units
        created = self.note("MARKET_ORDER", instrument=trade.instrument, units=str(signed), timeInForce="FOK", positionFill="REDUCE_ONLY",
                            reason="TRADE_CLOSE", tradeClose={"tradeID": trade.id, "units": str(units)})
        order = {"id": created["id"], "createTime": created["time"], "state": "PENDING", "type": "MARKET",
                 "instrument": trade.instrument, "units": str(signed)}
        self.orders[order["id"]] = order
        if not self.tradeable(trade.instrument):
            return self.related({"orderCreateTransaction": created,
                                 "orderCancelTransaction": self.cancel(order, "MARKET_HALTED", order["id"])})
        bid, ask = self.prices[trade.instrument]
        filled = self._fill(order, signed, bid if signed < 0 else ask, Decimal(0), trade.id)
        return self.related({"orderCreateTransaction": created, "orderFillTransaction": filled})


def _at(text: str) -> int:
    """UTC ms of the broker's RFC 3339 (or unix seconds)."""
    if text.replace(".", "").isdigit():
        return int(Decimal(text) * 1000)
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


parse_time = _at
