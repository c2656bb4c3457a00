"""What goes wrong in a soak, and how often: seeded, in times a day of the market, so that a day's worth comes whatever the speed.

Each kind is one function on the venue's control channel. A condition that lasts (deaf streams, a wrong clock) ends after some of the
machine's seconds, because what has to notice it counts in those.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from tests.live_process import VENUES, Emulator

HTML: Final = "<html><body>502 Bad Gateway</body></html>"

GARBAGE: Final = (HTML, "null", "[]", "{", "{}")


class Paths(NamedTuple):
    """Where each venue is hurt: (method, part of the path)."""

    order: tuple[str, str]
    cancel: tuple[str, str]
    wallet: tuple[str, str]
    reads: tuple[tuple[str, str], ...]
    busy: str
    """Body of "too many requests"."""
    empty: str
    """A well-formed list of nothing."""


PATHS: Final = {
    "bybit": Paths(("POST", "order/create"), ("POST", "order/cancel"), ("GET", "wallet-balance"),
                   (("GET", "order/realtime"), ("GET", "execution/list"), ("GET", "position/list"), ("GET", "market/kline")),
                   json.dumps({"retCode": 10006, "retMsg": "Too many visits!", "result": {}, "retExtInfo": {}, "time": 1}),
                   json.dumps({"retCode": 0, "retMsg": "OK", "result": {"category": "linear", "list": [], "nextPageCursor": ""},
                               "retExtInfo": {}, "time": 1})),
    "binance": Paths(("POST", "/order"), ("DELETE", "/order"), ("GET", "/balance"),
                     (("GET", "openOrders"), ("GET", "userTrades"), ("GET", "positionRisk"), ("GET", "klines")),
                     json.dumps({"code": -1003, "msg": "Too many requests; please use the websocket for live updates."}), "[]"),
    "oanda": Paths(("POST", "/orders"), ("PUT", "/cancel"), ("GET", "/v3/accounts/"),
                   (("GET", "/transactions/sinceid"), ("GET", "/candles"), ("GET", "/pricing/stream"), ("GET", "/orders/@")), "{}", "{}"),
}
PER_DAY: Final = {
    # answers to writes
    "order accepted, 502": 24, "order accepted, cut off": 16, "order lost, 502": 12, "order hangs": 6, "order refused, busy": 4,
    "cancel accepted, 502": 10, "cancel lost": 8, "order answered late": 8, "cancel answered late": 6,
    # reads
    "wallet 500": 24, "read 503": 40, "read garbage": 24, "read hangs": 6, "ban for 5 s": 4,
    "history lags": 8, "wallet is old": 8, "read says nothing": 10,
    # streams
    "streams cut": 30, "garbled frame": 16, "all silent": 6, "account deaf": 8, "fills late": 10, "fills twice": 10, "listening expires": 4,
    # the clock, the owner, the market
    "clock 3 s off": 3, "owner buys": 12, "owner sells": 8, "owner cancels stops": 8, "deposit": 6, "withdrawal": 4, "price leaps": 14,
    "owner closes some": 6, "owner closes all": 3, "funding": 6, "thin book": 10,
}
LASTS_S: Final = {"all silent": (12.0, 25.0), "account deaf": (8.0, 20.0), "fills late": (8.0, 20.0), "fills twice": (8.0, 20.0),
                  "history lags": (4.0, 15.0), "wallet is old": (2.0, 7.0), "thin book": (10.0, 40.0),
                  "clock 3 s off": (10.0, 25.0)}
"""The machine's seconds, at least and at most."""
HICCUP_S: Final = 20.0
"""How long a read that goes wrong waits for who asks, the machine's seconds: longer than the slowest regular question."""
QUIET: Final = {"all silent": "silent", "account deaf": "deaf", "fills late": "late", "fills twice": "twice",
                "history lags": "lagging", "wallet is old": "old", "thin book": "thin"}


class Weather:
    """`run` until canceled; `did` counts what was done. `intensity` multiplies how often."""

    def __init__(self, venue: str, emulator: Emulator, seed: int, speed: float, intensity: float) -> None:
        self.did: Counter[str] = Counter()
        self._venue, self._emulator, self._speed = venue, emulator, speed
        self._chance, self._paths = random.Random(seed), PATHS[venue]
        self._gap_s = 86_400.0 / speed / sum(PER_DAY.values()) / intensity
        self._lasting: set[asyncio.Task[None]] = set()
        self._bought = 0

    async def run(self) -> None:
        kinds, weights = list(PER_DAY), list(PER_DAY.values())
        try:
            while True:
                await asyncio.sleep(self._chance.expovariate(1.0 / self._gap_s))
                kind = self._chance.choices(kinds, weights)[0]
                if await self._do(kind):
                    self.did[kind] += 1
        finally:
            for task in self._lasting:
                task.cancel()

    async def _fault(self, at: tuple[str, str], how: str = "answer", status: int = 502, body: str = HTML, *, accepted: bool = False,
                     headers: dict[str, str] | None = None) -> bool:
        """False: something waits there already. What hits a write waits for one; what hits a read is over after a while."""
        passing = {} if at in (self._paths.order, self._paths.cancel) else {"within_s": HICCUP_S}
        return await self._emulator.do("fault", method=at[0], path=at[1], how=how, status=status, body=body, accepted=accepted,
                                       headers=headers or {}, **passing) is not None

    async def _do(self, kind: str) -> bool:
        """One thing; whether the venue did it."""
        paths, chance = self._paths, self._chance
        if kind in LASTS_S:
            return await self._last(kind)
        now: dict[str, Callable[[], Awaitable[Any]]] = {
            "order accepted, 502": lambda: self._fault(paths.order, accepted=True),
            "order accepted, cut off": lambda: self._fault(paths.order, chance.choice(("cut", "close")), accepted=True),
            "order lost, 502": lambda: self._fault(paths.order),
            "order hangs": lambda: self._fault(paths.order, "stall", accepted=chance.random() < 0.5),
            "order refused, busy": lambda: self._fault(paths.order, status=429, body=paths.busy, headers={"Retry-After": "2"}),
            "cancel accepted, 502": lambda: self._fault(paths.cancel, accepted=True),
            "cancel lost": lambda: self._fault(paths.cancel),
            "wallet 500": lambda: self._fault(paths.wallet, status=500),
            "read 503": lambda: self._fault(chance.choice(paths.reads), status=503),
            "read garbage": lambda: self._fault(chance.choice(paths.reads), status=200, body=chance.choice(GARBAGE)),
            "read hangs": lambda: self._fault(chance.choice(paths.reads), "stall"),
            "ban for 5 s": lambda: self._fault(paths.wallet, status=429, body=paths.busy,
                                               headers={"Retry-After": f"{5 * self._speed:.0f}"}),
            "order answered late": lambda: self._fault(paths.order, "late", accepted=True),
            "cancel answered late": lambda: self._fault(paths.cancel, "late", accepted=True),
            "read says nothing": lambda: self._fault(chance.choice(paths.reads), status=200, body=paths.empty),
            "listening expires": lambda: self._emulator.do("expire"),
            "owner closes some": lambda: self._closes(str(round(chance.uniform(0.2, 0.7), 2))),
            "owner closes all": lambda: self._closes("1"),
            "funding": lambda: self._emulator.do("funding", rate=chance.choice(("0.0003", "-0.0002"))),
            "streams cut": lambda: self._emulator.do("drop"),
            "garbled frame": lambda: self._emulator.do("garble"),
            "owner buys": self._buys, "owner sells": self._sells,
            "owner cancels stops": lambda: self._emulator.do("cancel"),
            "deposit": lambda: self._emulator.do("transfer", amount=str(chance.randint(5, 300))),
            "withdrawal": lambda: self._emulator.do("transfer", amount=str(-chance.randint(5, 40))),
            "price leaps": lambda: self._emulator.do("price", symbol=chance.choice(VENUES[self._venue].symbols),
                                                     share=chance.choice((-1, 1)) * 1.4 * VENUES[self._venue].stop),
        }
        return await now[kind]() not in (None, False)

    async def _last(self, kind: str) -> bool:
        if any(task.get_name() == kind for task in self._lasting):
            return False
        task = asyncio.create_task(self._spell(kind, self._chance.uniform(*LASTS_S[kind])), name=kind)
        self._lasting.add(task)
        task.add_done_callback(self._lasting.discard)
        return True

    async def _spell(self, kind: str, seconds: float) -> None:
        if kind == "clock 3 s off":
            await self._emulator.do("skew", ms=int(3_000 * self._speed))
            await asyncio.sleep(seconds)
            await self._emulator.do("skew", ms=0)
            return
        await self._emulator.do("quiet", what=QUIET[kind], on=True)
        await asyncio.sleep(seconds)
        await self._emulator.do("quiet", what=QUIET[kind], on=False)

    async def _closes(self, share: str) -> Any:
        """What only the bot holds: a position of one sign."""
        held = [symbol for symbol in VENUES[self._venue].symbols if ":" in symbol or self._venue == "oanda"]
        return await self._emulator.do("close", symbol=self._chance.choice(held), share=share)

    async def _buys(self) -> Any:
        """In a market where his and the bot's can be told apart: spot coins, and a pair the bot does not trade."""
        done = await (self._emulator.do("trade", symbol="USD/JPY", quantity="300") if self._venue == "oanda" else
                      self._emulator.do("trade", symbol="BTC/USDT", quantity="0.0005"))
        self._bought += done is not None
        return done

    async def _sells(self) -> Any:
        if not self._bought:
            return None
        self._bought -= 1
        return await (self._emulator.do("trade", symbol="USD/JPY", quantity="-300") if self._venue == "oanda" else
                      self._emulator.do("trade", symbol="BTC/USDT", quantity="-0.0004"))
