"""Rounds of spreads on the emulated account while everything that can go wrong between two legs does, in an order that a seed chooses:
answers lost before and after the order took effect, refusals, garbage, thin books, the process killed between two facts. Afterwards:
nothing sent twice, nothing ever sold uncovered, books equal to the wallet to the last unit."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from modules.domain.events import Fact, Filled, OrderSent, PositionClosed, TradeAbandoned, TradeOpened
from tests.emulators import bybit as emulator
from tests.emulators.frame import Fault, Reply
from tests.live_worlds import DECIDED, Life
from tests.option_worlds import D, World, optioned, short_of_cover_ms
from tests.test_live_options import agree

ROUNDS = 8
FAULTS = {
    "lost after it took effect": Fault("order/create", Reply(how="close"), True, "POST"),
    "lost before it took effect": Fault("order/create", Reply(how="close"), False, "POST"),
    "garbage": Fault("order/create", Reply(200, b"<html>"), True, "POST"),
    "refused": Fault("order/create", emulator.coded(110007), False, "POST"),
    "asking fails": Fault("order/realtime", Reply(500, b"{}"), False),
}


class Storm:
    def __init__(self, world: World, seed: int) -> None:
        self.world, self.chance = world, random.Random(seed)
        self.lives: list[Life] = []
        self.met: list[str] = []
        self.kill_at: type[Fact] | None = None
        self.killed = False

    async def starts(self) -> Life:
        self.world.venue.faults.clear()  # a start that cannot ask asks again, but only where the process does: test_process_modes.py
        symbols = tuple(self.lives[-1].daemon.portfolio.positions) if self.lives else ()
        made = await self.world.starts_live(symbols=symbols)
        made.daemon.journal.react(self._bad_luck)
        self.lives.append(made)
        return made

    def _bad_luck(self, fact: Fact) -> None:
        """Between two facts."""
        if self.kill_at is not None and isinstance(fact, self.kill_at):
            self.kill_at, self.killed = None, True
        if isinstance(fact, OrderSent | Filled) and self.chance.random() < 0.35:
            name = self.chance.choice(list(FAULTS))
            self.met.append(name)
            self.world.venue.faults.append(FAULTS[name])
        if isinstance(fact, Filled) and self.chance.random() < 0.15:
            self.met.append("thin")
            self.world.market.depth.update({("option", one): D("0.01") for one in self.world.options.terms})
        elif isinstance(fact, Filled):
            self.world.market.depth.clear()

    async def through(self, made: Life, done: Any, what: str) -> Life:
        """Until it is done; if the process is to die on the way, it does, and another goes on."""
        await made.until(lambda: self.killed or done(made), what)
        if self.killed:
            self.killed = False
            self.met.append("killed")
            await made.die()
            made = await self.starts()
            await made.until(lambda: done(made), f"{what}, after a kill")
        return made


def _decided(storm: Storm, before: int) -> Callable[[], bool]:
    return lambda: len(DECIDED) > before or storm.killed


def _opened(made: Life) -> bool:
    """Whole, or over."""
    trades = made.daemon.executor.trades
    return not trades or all(trade.exit_reason is None and all(made.daemon.portfolio.positions.get(leg.symbol) is not None
                                                               for leg in trade.opened.legs) for trade in trades.values())


def _flat(made: Life) -> bool:
    return not made.daemon.executor.trades and not made.daemon.portfolio.positions


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
async def test_rounds_of_spreads_in_bad_weather_send_nothing_twice_leave_nothing_uncovered_and_lose_no_unit(
        tmp_path: Path, seed: int) -> None:
    async with optioned(tmp_path) as world:
        storm = Storm(world, seed)
        made = await storm.starts()
        for _ in range(ROUNDS):
            await world.minute(made, "50000")
            if storm.chance.random() < 0.4:
                storm.kill_at = storm.chance.choice((TradeOpened, OrderSent, Filled))
            before = len(DECIDED)
            await world.minute(made, "51000")
            with suppress(AssertionError):  # now and then it is not ready to decide: then this round has no spread
                await made.until(_decided(storm, before), "a decision", 10.0)
            made = await storm.through(made, _opened, "a spread, or nothing")
            await world.minute(made, "50000")
            world.market.depth.clear()
            made = await storm.through(made, _flat, "flat again")
        world.venue.faults.clear()
        storm.kill_at = None
        made = await storm.through(made, _flat, "flat at the end")
        await made.soon(lambda: agree(world, *storm.lives))
        assert short_of_cover_ms(world.market, world.venue.now()) == 0
        opened = sum(len(one.of(TradeOpened)) for one in storm.lives)
        ended = sum(len(one.of(PositionClosed)) + len(one.of(TradeAbandoned)) for one in storm.lives)
        assert opened >= ROUNDS // 2 and ended <= opened and storm.met, (opened, ended, storm.met)
        print(f"seed {seed}: {opened} spreads, {len(world.market.executions)} executions, {len(storm.lives)} lives, met {storm.met}")
        await made.end()
