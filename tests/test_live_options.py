"""Options with a key, through the whole daemon, on the emulated account: two legs with an answer lost, refused or half filled between them,
a kill with both open, a delivery that is told late, an owner who trades options too. Every order once, never a naked short, and the books
are the wallet to the last unit."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from modules.cli.reports import Reports
from modules.domain.decision import Outcome, Rule
from modules.domain.events import (
    BalanceAdjusted,
    Filled,
    OptionSettled,
    OrderInDoubt,
    OrderSent,
    PositionClosed,
    TransferSeen,
    UnallocatedMoved,
)
from modules.domain.instrument import AssetClass, Side
from modules.domain.signal import Structure
from modules.notify.problems import ProblemWatch
from modules.venues.ccxt_venue import CcxtVenue
from tests.bybit_worlds import PERP
from tests.emulators import bybit as emulator
from tests.emulators.frame import Fault, Reply
from tests.live_worlds import DECIDED, Life
from tests.option_worlds import World, optioned, short_of_cover_ms

D = Decimal
NAKED_MS_MAX = 10_000
BY_HAND = "by-hand"
"""What the account's owner did in the venue's app."""
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
    assert short_of_cover_ms(world.market, world.venue.now()) < NAKED_MS_MAX


async def _traded(world: World, first: Fault | None, second: Fault | None) -> Life:
    """A spread was wanted; what the venue answered to its legs is up to the faults."""
    made = await world.starts_live()
    await world.minute(made)
    await world.minute(made)

    faults = [second] if second is not None else []

    def between(fact: Any) -> None:
        assert naked(world) == [] or any(ticket.link == BY_HAND for ticket in world.market.orders.values())
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


def sold_and_bought(made: Life) -> list[tuple[str, Side]]:
    """Every fill: call or put, and the side."""
    return [(fact.fill.symbol[-1], fact.fill.side) for fact in made.of(Filled)]


WHOLE = [("P", Side.BUY), ("C", Side.BUY), ("P", Side.SELL), ("C", Side.SELL)]
"""An iron condor as it is opened: both its wings first."""


async def test_an_iron_condor_with_a_lost_answer_and_a_kill_in_its_middle_is_never_naked_and_is_closed_what_was_sold_first(
        tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        first = await world.starts_live(structure=Structure.IRON_CONDOR, short_margin=D("0.05"))
        await world.minute(first)
        await world.minute(first)
        world.venue.faults.append(LOST)
        await world.minute(first, "51000")
        await first.until(lambda: len(first.of(Filled)) == 4, "four fills")
        assert sold_and_bought(first) == WHOLE and len(first.of(OrderInDoubt)) == 1 and naked(world) == []
        await first.soon(lambda: agree(world, first))
        symbols = tuple(first.daemon.portfolio.positions)
        await first.die()
        second = await world.starts_live(symbols=symbols, structure=Structure.IRON_CONDOR, short_margin=D("0.05"))
        await second.soon(lambda: agree(world, first, second))
        await world.minute(second, "50000")
        await second.until(lambda: second.of(PositionClosed), "the exit")
        assert [side for _, side in sold_and_bought(second)] == [Side.BUY, Side.BUY, Side.SELL, Side.SELL], "what was sold first"
        await second.soon(lambda: agree(world, first, second))
        await second.end()


async def test_where_the_last_leg_of_an_iron_condor_is_refused_the_others_are_closed_the_sold_one_first(tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        made = await world.starts_live(structure=Structure.IRON_CONDOR, short_margin=D("0.05"))
        await world.minute(made)
        await world.minute(made)

        def between(fact: Any) -> None:
            assert naked(world) == []
            if len(made.of(Filled)) == 3 and isinstance(fact, Filled):
                world.venue.faults.append(REFUSED)

        made.daemon.journal.react(between)
        await world.minute(made, "51000")
        await made.until(lambda: made.of(PositionClosed), "it is flat again")
        assert sold_and_bought(made)[:4] == [*WHOLE[:3], ("P", Side.BUY)] and {side for _, side in sold_and_bought(made)[4:]} == {Side.SELL}
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


@pytest.mark.slow
async def test_where_only_a_part_of_the_short_leg_finds_a_buyer_both_are_closed_the_sold_one_first(tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        made = await world.starts_live()
        await world.minute(made)
        await world.minute(made)

        def thin(fact: Any) -> None:
            if isinstance(fact, Filled):
                first = len(made.of(Filled)) == 1
                world.market.depth.update({("option", name): D("0.01") for name in world.options.terms} if first else {})
                if not first:
                    world.market.depth.clear()

        made.daemon.journal.react(thin)
        await world.minute(made, "51000")
        await made.until(lambda: made.of(Filled), "the protective leg")
        bought = made.of(Filled)[0].fill
        await made.until(lambda: [fact for fact in made.of(Filled) if fact.fill.side is Side.SELL], "a part of the short leg")
        assert made.of(Filled)[1].fill.quantity == D("0.01") < bought.quantity
        await made.until(lambda: made.of(PositionClosed), "flat")
        after = [fact.fill for fact in made.of(Filled)[2:]]
        assert (after[0].symbol, after[0].side, after[0].quantity) == (made.of(Filled)[1].fill.symbol, Side.BUY, D("0.01"))
        assert {fill.symbol for fill in after[1:]} == {bought.symbol}
        await made.soon(lambda: agree(world, made))
        await made.end()


async def test_a_delivery_that_is_told_long_after_the_money_moved_is_waited_for_across_a_restart_and_nothing_is_made_up(
        tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        first = await _traded(world, None, None)
        await first.soon(lambda: agree(world, first))
        symbols = tuple(first.daemon.portfolio.positions)
        world.push(world.expiry - world.clock.now() + 60_000)
        world.options.deliver(world.expiry, "52000", told=False)
        asked = world.venue.asked["/v5/asset/delivery-record"]
        await first.until(lambda: world.venue.asked["/v5/asset/delivery-record"] > asked + 5, "it has asked and asked")
        assert first.of(OptionSettled) == [] and len(first.daemon.portfolio.positions) == 2, "nobody knows yet"
        assert not first.of(UnallocatedMoved)[len(first.of(TransferSeen)):] and not first.of(BalanceAdjusted)
        age = first.daemon.wallets.age_s(AssetClass.OPTION, world.clock.now())
        await first.until(lambda: (first.daemon.wallets.age_s(AssetClass.OPTION, world.clock.now()) or 0.0) > (age or 0.0), "it grows old")
        await first.die()
        second = await world.starts_live(symbols=symbols)
        assert second.daemon.wallets.age_s(AssetClass.OPTION, world.clock.now()) is None, "a wallet that does not agree opens nothing"
        assert len(second.daemon.portfolio.positions) == 2
        world.options.tell()
        await second.until(lambda: second.of(PositionClosed), "the delivery")
        assert sorted(fact.value for fact in second.of(OptionSettled)) == [D(0), D(500)]
        await second.soon(lambda: agree(world, first, second))
        await second.until(lambda: second.daemon.wallets.age_s(AssetClass.OPTION, world.clock.now()) is not None, "it agrees again")
        assert not [fact for one in (first, second) for fact in one.of(UnallocatedMoved) if fact.reason == "unexplained difference"]
        await second.end()


@pytest.mark.slow
async def test_where_the_owner_sells_our_protective_leg_in_the_app_the_short_one_is_bought_back_within_seconds(tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        made = await _traded(world, None, None)
        await made.soon(lambda: agree(world, made))
        bought = made.of(Filled)[0].fill
        (name,) = [name for (kind, name), holding in world.market.holdings.items() if kind == "option" and holding.size > 0]
        world.market.create({"category": "option", "symbol": name, "side": "Sell", "orderType": "Market", "qty": str(bought.quantity),
                             "orderLinkId": BY_HAND})
        await made.until(lambda: made.of(PositionClosed), "flat")
        assert 0 <= short_of_cover_ms(world.market) < NAKED_MS_MAX
        last = made.of(Filled)[-1].fill
        assert (last.side, last.symbol) == (Side.BUY, made.of(Filled)[1].fill.symbol)
        await made.soon(lambda: _cash_agrees(world, made))
        await made.end()


def _cash_agrees(world: World, made: Life) -> None:
    books = sum(made.daemon.portfolio.ledger(one).cash for one in (AssetClass.PERP, AssetClass.OPTION))
    assert books == world.market.wallet["USDT"] and not made.daemon.portfolio.positions
    assert not [holding for (kind, _), holding in world.market.holdings.items() if kind == "option" and holding.size]


@pytest.mark.slow
async def test_the_owners_own_options_are_a_fact_and_what_they_bring_at_their_delivery_is_his(tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        name = next(name for name, terms in world.options.terms.items() if terms.call and terms.strike == D(49_000))
        own = {"category": "option", "symbol": name, "side": "Buy", "orderType": "Market", "qty": "0.5", "orderLinkId": "own"}
        world.market.create(own)
        made = await world.starts_live(allocate={AssetClass.PERP: D(1_000), AssetClass.OPTION: D(5_000)})
        his = made.daemon.wallets.unallocated("bybit")
        assert [quantity for symbol, quantity in his.items() if symbol.endswith("-C")] == [D("0.5")]
        ours = {one: made.daemon.portfolio.ledger(one).cash for one in (AssetClass.PERP, AssetClass.OPTION)}
        world.push(world.expiry - world.clock.now() + 60_000)
        world.options.deliver(world.expiry, "52000")

        def his_again() -> None:
            his = made.daemon.wallets.unallocated("bybit")
            assert not [symbol for symbol, quantity in his.items() if symbol.endswith("-C") and quantity]
            assert his["USDT"] + sum(ours.values()) == world.market.wallet["USDT"]

        await made.soon(his_again)
        assert {one: made.daemon.portfolio.ledger(one).cash for one in ours} == ours, "none of it is ours"
        await made.end()


@pytest.mark.slow
async def test_a_spread_that_ties_up_more_than_is_there_is_denied_before_anything_is_sent(tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        made = await world.starts_live(allocate={AssetClass.PERP: D(1_000), AssetClass.OPTION: D(9_000)}, short_margin=D("60"))
        await world.minute(made)
        await world.minute(made)
        seen = len(DECIDED)
        await world.minute(made, "51000")
        await made.until(lambda: len(DECIDED) > seen, "a decision")
        await made.until(lambda: DECIDED[-1].outcome is Outcome.DENIED, "it is denied")
        assert DECIDED[-1].stopped_by is Rule.SIZE_ABOVE_CEILING and not made.of(OrderSent)
        await made.end()


@pytest.mark.slow
async def test_a_coin_that_is_streamed_from_today_on_gets_its_chain_without_a_restart_and_without_asking_for_all_markets(
        tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        world.options.list("ETH", world.expiry, *(str(2_300 + 50 * step) for step in range(9)))
        made = await world.starts_live()
        venue = made.daemon.venues["bybit"]
        assert isinstance(venue, CcxtVenue) and set(venue.underlyings) == {"BTC"}
        listed = world.venue.asked["/v5/market/instruments-info"]
        venue.watch((PERP, "ETH/USDT:USDT"))
        await made.until(lambda: made.daemon.market.chain("ETH") is not None, "the chain of ETH")
        assert world.venue.asked["/v5/market/instruments-info"] - listed <= 2, "its options were asked for, and no other market"
        await made.end()


@pytest.mark.slow
async def test_a_chain_that_falls_silent_is_told_to_people_and_told_to_be_over(tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        made = await world.starts_live()
        said: list[str] = []
        watch = ProblemWatch(lambda: [words for words in Reports(made.daemon).status({})["problems"] if "options on" in words], said.append)
        world.venue.always = [Fault("market/tickers", Reply(503, b"busy"), False)]
        world.push(300_000)
        for at in (0.0, 31.0):
            watch.look(at)
        assert len(said) == 1 and "options on BTC: bybit has told no chain for 30" in said[0]
        world.venue.always = []
        await world.heard(made)
        for at in (32.0, 70.0):
            watch.look(at)
        assert len(said) == 2 and said[1].startswith("Well again")
        await made.end()
