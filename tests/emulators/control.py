"""The control channel of a venue that runs as a process of its own: POST /COMMAND with a JSON object on a loopback port of its own.

What the weather, the owner and the exchange's own people do is said here: prices, faults, silent and deaf streams, late and repeated
fills, a clock that is wrong, trades by hand, deposits, funding. `state` is the oracle: the venue's own books, what was sent to it and how
often, and how long a position of the bot's had no stop under it. Commands are in README.md.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from aiohttp import web

from tests.emulators import bybit_market, oanda_book

Row = dict[str, Any]
ZERO = Decimal(0)
TICK_S = 0.25
MINUTE_MS = 60_000
FUNDING_MS = 8 * 3_600_000
LAG_MS = 30_000
"""How far a history is behind under "lagging"."""
LATE_S = 3.0
"""How much later fills are told under "late"."""
BARE_S = 10.0
"""From here on a position without a stop counts as unprotected for too long."""
WORTH = Decimal(5)
"""What is worth less (of the quote currency) is dust: no venue takes a stop for it."""
PREFIX = "tb"
"""How the bot's own order ids begin."""


class Course:
    """One price's way: legs up and down around where it began, each some bars long, with noise. Multiples of the beginning."""

    def __init__(self, seed: int, swing: float, ticks: tuple[int, int]) -> None:
        self._chance, self._swing, self._ticks = random.Random(seed), swing, ticks
        self._at, self._goal, self._left, self._up = 1.0, 1.0, 0, seed % 2 == 0
        self.hold = False
        """Stay: somebody else says what the price is."""

    def step(self) -> float:
        if self._left == 0:
            self._up = not self._up
            self._goal = 1.0 + (1.0 if self._up else -1.0) * self._swing * self._chance.uniform(0.4, 1.6)
            self._left = self._chance.randint(*self._ticks)
        self._at += (self._goal - self._at) / self._left + self._chance.gauss(0.0, self._swing / 60.0)
        self._left -= 1
        return self._at

    def leap(self, share: float) -> None:
        self._at *= 1.0 + share


def put(waiting: list[Any], fault: Any, asked: Row) -> bool:
    """Add it to the script, for as long as is asked."""
    if any((one.path, one.method) == (fault.path, fault.method) for one in waiting):
        return False
    waiting.append(fault)
    if "within_s" in asked:
        asyncio.get_running_loop().call_later(float(asked["within_s"]), _gone, waiting, fault)
    return True


def _gone(waiting: list[Any], fault: Any) -> None:
    waiting[:] = [one for one in waiting if one is not fault]


class Bare:
    """How long a symbol was held by the bot with less than all of it under stops, in the machine's seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since: dict[str, tuple[float, bool]] = {}
        """Symbol -> (since when, whether the daemon was not there then)."""
        self._away = False
        self._up: float | None = None
        """When the new process was first heard of; None while it is not."""
        self.longest_s = self.restart_longest_s = self.up_longest_s = 0.0
        """While the daemon ran; from the birth of a new process on, where it found a position without a stop; and of that, from its first
        question to the venue on."""
        self.spells: list[Row] = []
        """Those longer than BARE_S, with what was done to the venue before they ended."""

    def look(self, symbol: str, bare: bool, why: Callable[[], str]) -> None:
        now = self._now()
        if not bare:
            began, away = self._since.pop(symbol, (now, False))
            if now - began > BARE_S:
                self.spells.append({"symbol": symbol, "seconds": round(now - began, 1), "restart": away, "after": why()})
            return
        began, away = self._since.setdefault(symbol, (now, self._away))
        if away:
            self.restart_longest_s = max(self.restart_longest_s, now - began)
            self.up_longest_s = max(self.up_longest_s, now - max(began, self._up) if self._up is not None else 0.0)
        else:
            self.longest_s = max(self.longest_s, now - began)

    def away(self, gone: bool) -> None:
        """The daemon was killed and its next process is being born; or that one is there."""
        self._away = gone
        if gone:
            self._since.clear()
            self._up = None

    def heard_of(self) -> None:
        """The new process asks its first question."""
        if self._up is None:
            self._up = self._now()

    @property
    def now(self) -> list[str]:
        return sorted(self._since)


class Hands(ABC):
    """What can be done to a venue. `symbols` by the daemon's names; `moves` = prices walk by themselves."""

    def __init__(self, seed: int, speed: float, swing: float) -> None:
        self.bare, self.moves = Bare(), True
        bar = 60.0 / speed / TICK_S
        ticks = max(4, int(bar * 3)), max(8, int(bar * 9))
        self.courses = {symbol: Course(seed * 1_000 + row, swing, ticks) for row, symbol in enumerate(self.symbols())}
        self._asked_before = 0
        self.done: list[str] = []
        """The last things that were done, newest last."""
        self.refused = 0

    @abstractmethod
    def symbols(self) -> list[str]: ...

    @abstractmethod
    def tick(self) -> None:
        """A moment passes."""

    @abstractmethod
    def fault(self, asked: Row) -> bool:
        """What the next such request gets, `within_s` from now where that is given: a hiccup does not wait for who comes later. False: one
        waits there already; faults do not pile up."""

    @abstractmethod
    def clear(self) -> None:
        """No fault is left, streams speak, the clock is right."""

    @abstractmethod
    async def drop(self) -> None: ...

    @abstractmethod
    def garble(self) -> None: ...

    @abstractmethod
    def quiet(self, what: str, on: bool) -> None:
        """"silent": no stream says anything; "deaf": those of the account; "late", "twice": fills are told so. "lagging": history is half a
        minute behind; "old": wallet and positions are told as they were; "thin": little trades per execution."""

    @abstractmethod
    def skew(self, ms: int) -> None: ...

    @abstractmethod
    def trade(self, symbol: str, quantity: Decimal) -> None:
        """The owner buys (+) or sells by hand."""

    @abstractmethod
    def close(self, symbol: str, share: Decimal) -> bool:
        """The owner closes so much of the position there by hand; False: there is none."""

    @abstractmethod
    def expire(self) -> None:
        """What the account's streams were opened with runs out."""

    @abstractmethod
    def transfer(self, amount: Decimal) -> None: ...

    @abstractmethod
    def cancel(self) -> int:
        """The owner cancels every resting stop in the venue's app; how many."""

    @abstractmethod
    def books(self) -> Row: ...

    @abstractmethod
    def sent(self) -> Counter[str]:
        """How often each of the bot's order ids arrived."""

    @abstractmethod
    def fills(self) -> list[str]:
        """The venue's ids of the bot's own executions."""

    @abstractmethod
    def asked(self) -> int:
        """Requests so far."""

    def notice(self) -> None:
        """Whether somebody has asked since the daemon was killed."""
        if self.asked() > self._asked_before:
            self.bare.heard_of()

    def state(self) -> Row:
        sent = self.sent()
        return self.books() | {
            "orders": len(sent), "twice": sorted(name for name, count in sent.items() if count > 1), "fills": len(self.fills()),
            "requests": self.asked(), "bare_longest_s": round(self.bare.longest_s, 2),
            "bare_restart_s": round(self.bare.restart_longest_s, 2), "bare_up_s": round(self.bare.up_longest_s, 2),
            "bare_spells": self.bare.spells, "bare_now": self.bare.now}

    async def do(self, command: str, asked: Row) -> Any:
        """One command. Raises KeyError for one that is none, Denied where the venue does not do it."""
        if command not in ("state", "fills", "sent", "bare"):
            self.done = [*self.done[-4:], f"{command} {asked.get('path') or asked.get('what') or ''}".strip()]
        match command:
            case "state":
                return self.state()
            case "bare":
                return self.bare.now
            case "fills":
                return self.fills()
            case "sent":
                return dict(self.sent())
            case "price":
                course = self.courses[asked["symbol"]]
                if "share" in asked:
                    course.leap(float(asked["share"]))
                else:
                    course.hold = True
                    self.price(asked["symbol"], Decimal(str(asked["price"])))
            case "walk":
                self.moves = bool(asked["on"])
            case "fault":
                return "done" if self.fault(asked) else None
            case "clear":
                self.clear()
            case "drop":
                await self.drop()
            case "garble":
                self.garble()
            case "quiet":
                self.quiet(asked["what"], bool(asked["on"]))
            case "skew":
                self.skew(int(asked["ms"]))
            case "trade":
                self.trade(asked["symbol"], Decimal(str(asked["quantity"])))
            case "close":
                return "done" if self.close(asked["symbol"], Decimal(str(asked["share"]))) else None
            case "expire":
                self.expire()
            case "transfer":
                self.transfer(Decimal(str(asked["amount"])))
            case "cancel":
                return self.cancel()
            case "funding":
                self.funding(str(asked.get("rate", "0.0001")))
            case "depth":
                self.depth(asked["symbol"], Decimal(str(asked["quantity"])))
            case "away":
                self.bare.away(bool(asked["on"]))
                self._asked_before = self.asked()
            case _:
                raise KeyError(command)
        return "done"

    @abstractmethod
    def price(self, symbol: str, price: Decimal) -> None: ...

    @abstractmethod
    def funding(self, rate: str) -> None: ...

    @abstractmethod
    def depth(self, symbol: str, quantity: Decimal) -> None:
        """At most so much trades per execution."""


@asynccontextmanager
async def controlled(hands: Hands, port: int) -> AsyncIterator[int]:
    """Serve the channel while the block runs and let the market go on; yields the port (0 = a free one)."""
    async def answer(request: web.Request) -> web.Response:
        raw = await request.read()
        try:
            return web.json_response({"answer": await hands.do(request.match_info["command"], json.loads(raw) if raw else {})})
        except (bybit_market.Denied, oanda_book.Denied) as denied:
            hands.refused += 1
            return web.json_response({"denied": str(denied)}, status=409)
        except (KeyError, ValueError) as error:
            return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)

    async def live() -> None:
        while True:
            hands.tick()
            hands.notice()
            await asyncio.sleep(TICK_S)

    application = web.Application()
    application.router.add_post("/{command}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    living = asyncio.create_task(live(), name="market")
    living.add_done_callback(lambda task: None if task.cancelled() else print(f"the market ended: {task.exception()!r}", flush=True))
    try:
        yield runner.addresses[0][1]
    finally:
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        await runner.cleanup()
