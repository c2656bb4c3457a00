"""The control channel's hands on Bybit and Binance: control.py over the market of bybit_market.py and binance_market.py."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from typing import Any

from tests.emulators.binance import BinanceEmulator
from tests.emulators.binance_market import BinanceMarket
from tests.emulators.bybit import BybitEmulator
from tests.emulators.bybit_market import Denied, Key
from tests.emulators.control import FUNDING_MS, LAG_MS, LATE_S, MINUTE_MS, PREFIX, WORTH, ZERO, Hands, Row, put
from tests.emulators.frame import Fault, Reply

THIN = Decimal(60)
"""What one execution trades at most under "thin", of the quote currency."""
BOOKS = ("wallet-balance", "position/list", "/account", "/balance", "positionRisk")
FILLS = {"execution", "order", "user:spot", "user:linear"}
"""Topics on which fills are told."""


class CryptoHands(Hands):
    """`traded`: the daemon's symbol -> the venue's market."""

    venue: BybitEmulator | BinanceEmulator

    def __init__(self, venue: BybitEmulator | BinanceEmulator, seed: int, speed: float) -> None:
        self.venue, self.market = venue, venue.market
        venue.pace = speed
        self.traded: dict[str, Key] = {}
        for key, product in self.market.products.items():
            if key[0] in ("spot", "linear") and product.base in ("BTC", "ETH"):
                self.traded[f"{product.base}/USDT" + (":USDT" if key[0] == "linear" else "")] = key
        super().__init__(seed, speed, 0.012)
        self._began = {symbol: self.market.price[key] for symbol, key in self.traded.items()}
        self._minute, self._funded = venue.now() // MINUTE_MS, venue.now() // FUNDING_MS
        self._quiet: set[str] = set()
        self._emit = self.market.emit
        self.market.emit = self._tell
        self._read = {"spot": 0, "linear": 0}
        self._ours = Counter[str]()
        self._fills: list[str] = []
        self._twice: Counter[str] = Counter()
        self._arrived = 0

    def symbols(self) -> list[str]:
        return list(self.traded)

    # -- the market -------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        minute, funded = self.venue.now() // MINUTE_MS, self.venue.now() // FUNDING_MS
        while self._minute < minute:
            self._minute += 1
            for category, name in self.traded.values():
                self.market.close_bar(category, name)
        if self._funded != funded:
            self._funded = funded
            self.funding("0.0001")
        for symbol, key in self.traded.items():
            course = self.courses[symbol]
            if course.hold or not self.moves:
                self.market.move(*key, self.market.price[key])
            else:
                tick = self.market.products[key].tick
                self.price(symbol, (self._began[symbol] * Decimal(course.step()) / tick).to_integral_value() * tick)
        self._look()

    def price(self, symbol: str, price: Decimal) -> None:
        self.market.move(*self.traded[symbol], price)

    def funding(self, rate: str) -> None:
        for category, name in self.traded.values():
            if category == "linear" and self.market.holdings[category, name].size:
                self.market.fund(name, rate)

    def depth(self, symbol: str, quantity: Decimal) -> None:
        self.market.depth[self.traded[symbol]] = quantity

    # -- what goes wrong --------------------------------------------------------------------------------------------------

    def fault(self, asked: Row) -> bool:
        headers = tuple((str(name), str(value)) for name, value in asked.get("headers", {}).items())
        reply = Reply(int(asked.get("status", 200)), str(asked.get("body", "")).encode(), str(asked.get("how", "answer")), headers)
        made = Fault(asked["path"], reply, bool(asked.get("accepted", False)), str(asked.get("method", "")))
        return put(self.venue.always if asked.get("stays") else self.venue.faults, made, asked)

    def clear(self) -> None:
        self.venue.faults.clear()
        self.venue.always.clear()
        self._quiet.clear()
        self.venue.skew_ms = self.venue.lag_ms = 0
        self.venue.old = ()
        self.market.depth.clear()

    async def drop(self) -> None:
        await self.venue.drop()

    def garble(self) -> None:
        self.venue.garble()

    def quiet(self, what: str, on: bool) -> None:
        match what:
            case "lagging":
                self.venue.lag_ms = LAG_MS if on else 0
            case "old":
                self.venue.old = BOOKS if on else ()
            case "thin":
                self.market.depth.clear()
                for key in self.traded.values() if on else ():
                    lot = self.market.products[key].lot
                    self.market.depth[key] = max(lot, THIN / self.market.price[key] // lot * lot)
            case "silent" | "deaf" | "late" | "twice":
                (self._quiet.add if on else self._quiet.discard)(what)
            case _:
                raise ValueError(what)

    def skew(self, ms: int) -> None:
        self.venue.skew_ms = ms

    def _tell(self, topic: str, rows: list[Row]) -> None:
        if "silent" in self._quiet or ("deaf" in self._quiet and topic in FILLS):
            return
        if topic in FILLS and "late" in self._quiet:
            asyncio.get_running_loop().call_later(LATE_S, self._emit, topic, rows)
        else:
            self._emit(topic, rows)
        if topic in FILLS and "twice" in self._quiet:
            self._emit(topic, rows)

    # -- the owner --------------------------------------------------------------------------------------------------------

    def trade(self, symbol: str, quantity: Decimal) -> None:
        category, name = self.traded[symbol]
        side, amount = "Buy" if quantity > 0 else "Sell", str(abs(quantity))
        if isinstance(self.venue, BinanceEmulator):
            self.venue.market.place(category, {"symbol": name, "type": "MARKET", "side": side.upper(), "quantity": amount})
        else:
            unit = {"marketUnit": "baseCoin"} if category == "spot" else {}
            self.market.create({"category": category, "symbol": name, "orderType": "Market", "side": side, "qty": amount, **unit})

    def close(self, symbol: str, share: Decimal) -> bool:
        key = self.traded[symbol]
        lot, size = self.market.products[key].lot, self.market.holdings[key].size
        part = abs(size) * share // lot * lot
        if part:
            self.trade(symbol, part if size < ZERO else -part)
        return bool(part)

    def expire(self) -> None:
        if not isinstance(self.venue, BinanceEmulator):
            raise Denied(0, "streams are opened with a signature here")
        self.venue.forget_listen_key()

    def transfer(self, amount: Decimal) -> None:
        self.market.transfer("USDT", str(amount))

    def cancel(self) -> int:
        resting = [ticket for ticket in self.market.orders.values() if ticket.status == "Untriggered"]
        if isinstance(self.venue, BinanceEmulator):
            algos = [algo for algo in self.venue.market.algos.values() if algo.status == "NEW"]
            for algo in algos:
                self.venue.market.drop_algo({"algoId": algo.id})
            for ticket in resting:
                self.venue.market.drop("spot", {"symbol": ticket.product.id, "orderId": ticket.id})
            return len(resting) + len(algos)
        for ticket in resting:
            drawer = {"orderFilter": "StopOrder"} if ticket.product.category == "spot" else {}
            self.market.cancel({"category": ticket.product.category, "symbol": ticket.product.id, "orderId": ticket.id, **drawer})
        return len(resting)

    # -- the oracle -------------------------------------------------------------------------------------------------------

    def books(self) -> Row:
        if isinstance(self.venue, BinanceEmulator):
            purses = self.venue.market.purses
            wallet = dict(purses["spot"])
            wallet["USDT"] += purses["linear"]["USDT"]
        else:
            wallet = dict(self.market.wallet)
        positions = {symbol: self.market.holdings[key].size for symbol, key in self.traded.items() if key[0] == "linear"}
        return {"wallet": {coin: str(amount) for coin, amount in wallet.items() if amount},
                "positions": {symbol: str(size) for symbol, size in positions.items() if size}, "resting": len(self._under())}

    def sent(self) -> Counter[str]:
        """Bodies that were read; what a fault swallowed never arrived."""
        for path, body in self.venue.bodies[self._arrived:]:
            name = body.get("orderLinkId") or body.get("newClientOrderId") or body.get("clientAlgoId")
            if path.endswith(("/order/create", "/order", "/algoOrder")) and name and (body.get("qty") or body.get("quantity")):
                self._twice[str(name)] += 1
        self._arrived = len(self.venue.bodies)
        return self._twice

    def fills(self) -> list[str]:
        self._executed()
        return list(self._fills)

    def _executed(self) -> None:
        """Read on in the venue's executions: which were the bot's, and what spot coins they left it."""
        if isinstance(self.venue, BinanceEmulator):
            self._traded_there(self.venue.market)
            return
        rows = self.market.executions
        for row in rows[self._read["spot"]:]:
            if row["execType"] == "Trade" and str(row["orderLinkId"]).startswith(PREFIX):
                self._fills.append(str(row["execId"]))
                if row["category"] == "spot":
                    self._moved(row["symbol"], row["side"] == "Buy", Decimal(row["execQty"]), Decimal(row["execFee"]), row["feeCurrency"])
        self._read["spot"] = len(rows)

    def _traded_there(self, market: BinanceMarket) -> None:
        triggered = {algo.actual: algo.link for algo in market.algos.values() if algo.actual}
        for category, rows in market.trades.items():
            for row in rows[self._read[category]:]:
                name = str(row["orderId"])
                if not triggered.get(name, market.orders[name].link).startswith(PREFIX):
                    continue
                self._fills.append(str(row["id"]))
                if category == "spot":
                    self._moved(row["symbol"], row["isBuyer"], Decimal(row["qty"]), Decimal(row["commission"]), row["commissionAsset"])
            self._read[category] = len(rows)

    def _moved(self, name: str, bought: bool, quantity: Decimal, fee: Decimal, fee_coin: str) -> None:
        paid = fee if fee_coin == self.market.products["spot", name].base else ZERO
        self._ours[name] += (quantity if bought else -quantity) - paid  # type: ignore[assignment]

    def asked(self) -> int:
        return sum(count for path, count in self.venue.asked.items() if " " in path)

    def _under(self) -> list[tuple[Key, Decimal]]:
        """(market, signed quantity) of every resting stop."""
        found = [((t.product.category, t.product.id), t.quantity if t.buy else -t.quantity) for t in self.market.orders.values()
                 if t.status == "Untriggered"]
        if isinstance(self.venue, BinanceEmulator):
            found += [(("linear", algo.product.id), algo.quantity if algo.buy else -algo.quantity)
                      for algo in self.venue.market.algos.values() if algo.status == "NEW"]
        return found

    def _look(self) -> None:
        """Is everything the bot holds under stops? Spot coins are the owner's too, so they are counted by the bot's own executions."""
        market = self.market
        self._executed()
        under = Counter[Key]()
        for key, quantity in self._under():
            under[key] += quantity  # type: ignore[assignment]
        for symbol, key in self.traded.items():
            held: Any = market.holdings[key].size if key[0] == "linear" else self._ours[key[1]]
            short = abs(held) - (-under[key] if held > 0 else under[key])
            self.bare.look(symbol, bool(abs(held)) and short * market.price[key] > WORTH, lambda: "; ".join(self.done))
