"""Live as a user runs it, on OANDA and on Binance: the real process, the venue in a process of its own, and what only the two can show
together: an entry, parts of fills, one stop, financing, `kill -9`, a second life, an exit; and books that are the venue's to the last unit.
(Bybit: test_process_modes.py.)"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import soak_verdict
from modules.domain.events import BalanceAdjusted, Filled, ForeignFill, FundingBooked, OrderSent, PositionClosed
from modules.domain.order import ExitReason
from modules.domain.sessions import parse_iso
from tests import hurried
from tests.live_process import ABOVE, Daemon, Emulator, installation

SPEED = 30.0
"""A minute of the market in two seconds."""
PATIENCE = 12.0
WAIT_S = 120.0
MONDAY = parse_iso("2026-11-16T06:00:00Z")
LEVELS = {"oanda": 1.105, "binance": 50_500.0}


class Two:
    """The two processes of one test."""

    def __init__(self, folder: Path, venue: str) -> None:
        self.venue, self.pace = venue, hurried.pace(SPEED, MONDAY)
        self.emulator = Emulator(venue, self.pace, 1, folder / "emulator.txt")
        self.app = installation(folder, venue, self.pace, ABOVE.replace("LEVEL\n", f"{LEVELS[venue]}\n"), PATIENCE)
        self.daemon: Daemon

    async def start(self) -> None:
        await self.emulator.start()
        await self.emulator.do("walk", on=False)
        self.daemon = Daemon(self.app, self.venue, self.emulator.url, self.pace, "1m")
        self.daemon.start()
        await self.daemon.running()

    async def state(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.emulator.do("state")
        return found

    async def until(self, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        end = time.monotonic() + WAIT_S
        while not await holds():
            assert self.daemon.ended is None, self.out()
            assert time.monotonic() < end, f"never: {what}; {await self.state()}; {self.out()}"
            await asyncio.sleep(0.1)

    def out(self) -> str:
        return (self.app / "out.txt").read_text(encoding="utf-8")[-2_500:]

    async def open_trades(self) -> int:
        status = await self.daemon.ask("status")
        return -1 if status is None else sum(shown["open_positions"] for shown in status["classes"].values())

    async def rises_until(self, what: str, holds: Callable[[], Awaitable[bool]], prices: dict[str, tuple[str, str]]) -> None:
        """The prices (low, high) of every symbol rise over the level, and again if the first rise came too early: what is not known yet
        (the venue's clock, say) opens nothing, and an entry that was denied is not tried again before the next rise."""
        end = time.monotonic() + WAIT_S
        while not await holds():
            assert time.monotonic() < end, f"never: {what}; {await self.state()}; {self.out()}"
            for number in (0, 1):
                for symbol, levels in prices.items():
                    await self.emulator.do("price", symbol=symbol, price=levels[number])
                for _ in range(30):
                    if number == 0 or not await holds():
                        await asyncio.sleep(5.0 / SPEED)

    async def killed_and_back(self) -> None:
        self.daemon.kill()
        self.daemon.start()
        await self.daemon.running()


def with_two(folder: Path, venue: str, story: Callable[[Two], Awaitable[None]]) -> None:
    async def go() -> None:
        two = Two(folder, venue)
        try:
            await two.start()
            await story(two)
        finally:
            if hasattr(two, "daemon"):
                two.daemon.end()
            await two.emulator.end()

    asyncio.run(go())


async def agreed(two: Two) -> list[Any]:
    """Once its books are the venue's: end it, hold them against the venue's again, and give its facts."""
    async def same() -> bool:
        return not await asyncio.to_thread(soak_verdict.differences, two.app, two.venue, await two.state())

    await two.until("books that are the venue's", same)
    code, _ = await two.daemon.stop()
    assert code == 0, two.out()
    theirs = await two.state()
    assert soak_verdict.differences(two.app, two.venue, theirs) == {}
    facts = soak_verdict.facts_of(two.daemon.state / "journal.sqlite")
    sent = Counter(fact.client_order_id for fact in facts if isinstance(fact, OrderSent))
    assert set(sent.values()) == {1} and dict(await two.emulator.do("sent")) == dict(sent)
    booked = [fact.fill.venue_trade_id for fact in facts if isinstance(fact, Filled)]
    assert sorted(booked) == sorted(await two.emulator.do("fills"))
    assert not [fact for fact in facts if isinstance(fact, BalanceAdjusted | ForeignFill)]
    return facts


@pytest.mark.slow
def test_oanda_live_enters_is_killed_pays_a_night_comes_back_and_exits_and_its_books_are_the_brokers(tmp_path: Path) -> None:
    async def story(two: Two) -> None:
        async def protected() -> bool:
            state = await two.state()
            return bool(state["positions"]) and state["resting"] == 1 and not state["bare_now"]

        await two.rises_until("a position with a stop under it", protected, {"EUR/USD": ("1.10450", "1.10550")})
        held = (await two.state())["positions"]
        await two.emulator.do("funding")
        await two.killed_and_back()
        assert await two.open_trades() == 1
        state = await two.state()
        assert (state["positions"], state["resting"]) == (held, 1), "after the kill there is one position, and one stop"
        await two.emulator.do("funding")
        await two.emulator.do("price", symbol="EUR/USD", price="1.10450")  # under the level, above the stop

        async def flat() -> bool:
            state = await two.state()
            return not state["positions"] and state["resting"] == 0 and await two.open_trades() == 0

        await two.until("flat, and no stop left", flat)
        facts = await agreed(two)
        (closed,) = (fact.trade for fact in facts if isinstance(fact, PositionClosed))
        assert closed.exit_reason is ExitReason.EXIT_SIGNAL and closed.funding != 0
        assert len([fact for fact in facts if isinstance(fact, FundingBooked)]) == 2, "one night while nobody was there"
        assert closed.net == closed.gross - closed.fees + closed.funding

    with_two(tmp_path, "oanda", story)


@pytest.mark.slow
def test_binance_live_fills_in_parts_on_two_wallets_is_killed_pays_funding_comes_back_and_exits(tmp_path: Path) -> None:
    async def story(two: Two) -> None:
        await two.emulator.do("depth", symbol="BTC/USDT:USDT", quantity="0.001")

        async def protected() -> bool:
            state = await two.state()
            return bool(state["positions"]) and "BTC" in state["wallet"] and state["resting"] == 2 and not state["bare_now"]

        await two.rises_until("two positions with a stop each", protected, {
            "BTC/USDT": ("50000", "50900"), "BTC/USDT:USDT": ("50000", "50900")})
        held = await two.state()
        await two.killed_and_back()
        assert await two.open_trades() == 2
        state = await two.state()
        assert {name: state[name] for name in ("wallet", "positions", "resting")} == {
            name: held[name] for name in ("wallet", "positions", "resting")}
        await two.emulator.do("funding")
        for symbol in ("BTC/USDT", "BTC/USDT:USDT"):
            await two.emulator.do("price", symbol=symbol, price="50450")  # under the level, above the stops

        async def flat() -> bool:
            state = await two.state()
            return not state["positions"] and state["resting"] == 0 and await two.open_trades() == 0

        await two.until("flat, and no stop left", flat)
        facts = await agreed(two)
        closed = [fact.trade for fact in facts if isinstance(fact, PositionClosed)]
        assert {trade.exit_reason for trade in closed} == {ExitReason.EXIT_SIGNAL} and len(closed) == 2
        assert len([fact for fact in facts if isinstance(fact, FundingBooked)]) == 1

    with_two(tmp_path, "binance", story)
