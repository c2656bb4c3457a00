"""Options with a key, through the whole daemon, on the emulated account: two legs with an answer lost or refused between them, a kill with
both open, a delivery. The settings refuse this to real money (venues/factory.py says why); here nothing does, so that what is built of
it is held to something: every order once, never a naked short, and the books are the wallet to the last unit."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from modules.domain.events import BalanceAdjusted, Filled, OptionSettled, OrderInDoubt, OrderSent, PositionClosed
from modules.domain.instrument import AssetClass, Side
from tests.emulators import bybit as emulator
from tests.emulators.frame import Fault, Reply
from tests.live_worlds import Life
from tests.option_worlds import World, optioned

D = Decimal
LOST = Fault("order/create", Reply(how="close"), True, "POST")
REFUSED = Fault("order/create", emulator.coded(110007), False, "POST")


def naked(world: World) -> list[str]:
    """Short contracts that no long one of the same expiry and kind, and as large, bounds."""
    held = [(world.options.terms[name], holding.size) for (kind, name), holding in world.market.holdings.items()
            if kind == "option" and holding.size and name in world.options.terms]
    net: Counter[Any] = Counter()
    for terms, size in held:
        net[terms.base, terms.expiry, terms.call] += size  # type: ignore[assignment]
    return [str(key) for key, size in net.items() if size < 0]


def agree(world: World, *lives: Life) -> None:
    """One wallet for both classes: their books together are it, nothing was made up, and each order went out once."""
    made = lives[-1]
    books = sum(made.daemon.portfolio.ledger(one).cash for one in (AssetClass.PERP, AssetClass.OPTION))
    assert books == world.market.wallet["USDT"]
    positions = {symbol: position.quantity for symbol, position in made.daemon.portfolio.positions.items()}
    held = {name: holding.size for (kind, name), holding in world.market.holdings.items() if kind == "option" and holding.size}
    assert sorted(positions.values()) == sorted(held.values())
    assert not [fact for one in lives for fact in one.of(BalanceAdjusted)]
    sent = Counter(fact.client_order_id for one in lives for fact in one.of(OrderSent))
    created = Counter(body["orderLinkId"] for path, body in world.venue.bodies if path.endswith("order/create"))
    assert set(sent.values()) <= {1} and set(created.values()) <= {1} and created.keys() <= sent.keys()


async def _traded(world: World, first: Fault | None, second: Fault | None) -> Life:
    """A spread was wanted; what the venue answered to its legs is up to the faults."""
    made = await world.starts_live()
    await world.minute(made)
    await world.minute(made)

    faults = [second] if second is not None else []

    def between(fact: Any) -> None:
        assert naked(world) == []
        if isinstance(fact, Filled) and faults:
            world.venue.faults.append(faults.pop())

    made.daemon.journal.react(between)
    if first is not None:
        world.venue.faults.append(first)
    await world.minute(made, "51000")
    await made.until(lambda: len(made.of(Filled)) >= 2, "two fills")
    return made


@pytest.mark.parametrize(("first", "second"), [
    pytest.param(None, LOST, id="the answer to the short leg is lost"),
    pytest.param(LOST, None, id="the answer to the protective leg is lost", marks=pytest.mark.slow)])
async def test_a_leg_in_doubt_is_asked_about_and_the_spread_ends_as_it_was_meant(tmp_path: Path, first: Fault | None, second: Fault | None
                                                                              ) -> None:
    async with optioned(tmp_path) as world:
        made = await _traded(world, first, second)
        assert [fact.fill.side for fact in made.of(Filled)] == [Side.BUY, Side.SELL]
        assert len(made.of(OrderInDoubt)) == 1
        await made.soon(lambda: agree(world, made))
        await world.minute(made, "50000")
        await made.until(lambda: made.of(PositionClosed), "the exit")
        assert [fact.fill.side for fact in made.of(Filled)[2:]] == [Side.BUY, Side.SELL], "what was sold is bought back first"
        await made.soon(lambda: agree(world, made))
        await made.end()


async def test_where_the_short_leg_is_refused_the_protective_one_is_sold_again(tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        made = await _traded(world, None, REFUSED)
        await made.until(lambda: made.of(PositionClosed), "it is flat again")
        assert len({fact.fill.symbol for fact in made.of(Filled)}) == 1
        await made.soon(lambda: agree(world, made))
        await made.end()


async def test_both_legs_outlive_a_kill_and_their_delivery_is_booked_once(tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        first = await _traded(world, None, None)
        await first.soon(lambda: agree(world, first))
        symbols = tuple(first.daemon.portfolio.positions)
        await first.die()
        second = await world.starts_live(symbols=symbols)
        await second.soon(lambda: agree(world, first, second))
        world.push(world.expiry - world.clock.now() + 60_000)
        world.options.deliver(world.expiry, "52000")
        await second.until(lambda: second.of(PositionClosed), "the delivery")
        assert sorted(fact.value for fact in second.of(OptionSettled)) == [D(0), D(500)]
        await second.soon(lambda: agree(world, first, second))
        await second.end()
