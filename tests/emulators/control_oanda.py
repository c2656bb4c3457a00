"""The control channel's hands on OANDA: control.py over the account of oanda_book.py."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from tests.emulators.control import PREFIX, ZERO, Hands, Row, put
from tests.emulators.oanda import Fault, OandaEmulator, Reply
from tests.emulators.oanda_book import Denied
from tests.hurried import Pace

BEHIND = 2
"""Transactions that what is read is behind what was written under "lagging"."""


class OandaHands(Hands):
    """The owner trades USD/JPY, the bot the two others: of one netted pair nobody could say whose it is."""

    def __init__(self, venue: OandaEmulator, seed: int, pace: Pace) -> None:
        self.venue, self.book, self._pace = venue, venue.book, pace
        super().__init__(seed, pace.speed, 0.0015)
        self._began = {symbol: self.book.prices[_wired(symbol)] for symbol in self.symbols()}
        self._skew_ms = 0
        self._read = self._filled = 0
        self._sent: Counter[str] = Counter()
        self._fills: list[str] = []

    def symbols(self) -> list[str]:
        return [spec.symbol for spec in self.book.specs.values()]

    def past(self, minutes: int) -> None:
        """So many minutes of ticks before now, five seconds of the market apart."""
        now = self._pace.now_ms()
        for at in range(now - minutes * 60_000, now, 5_000):
            self.book.move(max(at, self.book.at), {_wired(symbol): self._step(symbol) for symbol in self.symbols()})

    # -- the market -------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        prices = {}
        for symbol in self.symbols():
            still = self.courses[symbol].hold or not self.moves
            prices[_wired(symbol)] = self.book.prices[_wired(symbol)] if still else self._step(symbol)
        self.book.move(max(self.book.at, self._pace.now_ms() + self._skew_ms), prices)
        self._look()

    def _step(self, symbol: str) -> tuple[Decimal, Decimal]:
        bid, ask = self._began[symbol]
        point = Decimal(1).scaleb(-self.book.specs[_wired(symbol)].precision)
        moved = (bid * Decimal(self.courses[symbol].step())).quantize(point)
        return moved, moved + (ask - bid)

    def price(self, symbol: str, price: Decimal) -> None:
        bid, ask = self._began[symbol]
        self.book.move(max(self.book.at, self._pace.now_ms() + self._skew_ms), {_wired(symbol): (price, price + (ask - bid))})

    def funding(self, rate: str) -> None:
        """A night's financing, now. The rates are the account's."""
        self.book._finance(self.book.at)

    def depth(self, symbol: str, quantity: Decimal) -> None:
        raise ValueError("the broker fills all or nothing")

    # -- what goes wrong --------------------------------------------------------------------------------------------------

    def fault(self, asked: Row) -> bool:
        headers = tuple((str(name), str(value)) for name, value in asked.get("headers", {}).items())
        reply = Reply(int(asked.get("status", 200)), str(asked.get("body", "")).encode(), str(asked.get("how", "answer")), headers)
        made = Fault(str(asked.get("method", "GET")), asked["path"], reply, bool(asked.get("accepted", False)))
        return put(self.venue.always if asked.get("stays") else self.venue.faults, made, asked)

    def clear(self) -> None:
        self.venue.faults.clear()
        self.venue.always.clear()
        self.venue.silent, self.venue.forgets_filled = False, True
        self.venue.deaf = set()
        self._skew_ms = self.venue.behind = 0

    async def drop(self) -> None:
        self.venue.drop_streams()

    def garble(self) -> None:
        self.venue.garble()

    def quiet(self, what: str, on: bool) -> None:
        """Fills are asked for by number here: told twice or late they would be a bell rung twice or late. "late" is deaf to the bell."""
        if what == "silent":
            self.venue.silent = on
        elif what in ("deaf", "late"):
            self.venue.deaf = {"transactions"} if on else set()
        elif what == "twice":
            self.venue.forgets_filled = not on
        elif what == "lagging":
            self.venue.behind = BEHIND if on else 0
        elif what in ("old", "thin"):
            raise Denied("UNKNOWN")
        else:
            raise ValueError(what)

    def skew(self, ms: int) -> None:
        self._skew_ms = ms

    # -- the owner --------------------------------------------------------------------------------------------------------

    def trade(self, symbol: str, quantity: Decimal) -> None:
        self.book.create({"type": "MARKET", "instrument": _wired(symbol), "units": str(quantity), "timeInForce": "FOK"})

    def close(self, symbol: str, share: Decimal) -> bool:
        held = self.book.position(_wired(symbol))
        part = int(abs(held) * share)
        if part:
            self.trade(symbol, Decimal(part if held < 0 else -part))
        return bool(part)

    def expire(self) -> None:
        raise Denied("UNKNOWN")

    def transfer(self, amount: Decimal) -> None:
        self.book.transfer(amount)

    def cancel(self) -> int:
        resting = [order for order in self.book.orders.values() if order["state"] == "PENDING"]
        for order in resting:
            self.book.cancel(order, "CLIENT_REQUEST")
        return len(resting)

    # -- the oracle -------------------------------------------------------------------------------------------------------

    def books(self) -> Row:
        held = {symbol: self.book.position(_wired(symbol)) for symbol in self.symbols()}
        return {"wallet": {self.book.home: str(self.book.balance)},
                "positions": {symbol: str(units) for symbol, units in held.items() if units},
                "resting": sum(order["state"] == "PENDING" for order in self.book.orders.values())}

    def _heard(self) -> None:
        for row in self.book.transactions[self._read:]:
            name = (row.get("clientExtensions") or {}).get("id", "")
            if name.startswith(PREFIX) and row["type"].endswith("_ORDER"):
                self._sent[name] += 1
            if row["type"] == "ORDER_FILL" and row.get("clientOrderID", "").startswith(PREFIX):
                self._fills.append(row["id"])
        self._read = len(self.book.transactions)

    def sent(self) -> Counter[str]:
        self._heard()
        return self._sent

    def fills(self) -> list[str]:
        self._heard()
        return list(self._fills)

    def asked(self) -> int:
        return sum(self.venue.asked.values())

    def _look(self) -> None:
        under: Counter[str] = Counter()
        for order in self.book.orders.values():
            if order["state"] == "PENDING" and order["type"] == "STOP":
                under[order["instrument"]] += Decimal(order["units"])  # type: ignore[assignment]
        for name, spec in self.book.specs.items():
            if spec.symbol == "USD/JPY":
                continue
            held, stops = self.book.position(name), Decimal(under[name])
            self.bare.look(spec.symbol, held != ZERO and abs(held) > (-stops if held > 0 else stops), lambda: "; ".join(self.done))




def _wired(symbol: str) -> str:
    return symbol.replace("/", "_")
