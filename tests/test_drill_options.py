"""The drill of options on an emulated account: the smallest spread, seen at the venue itself, and what a fault in the middle leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal

import pytest

from modules.domain.instrument import AssetClass, Right
from modules.venues import drill, drill_options
from tests.emulators.bybit import BybitEmulator, Fault, Reply, coded
from tests.option_worlds import option_account, option_order, short_of_cover_ms
from tests.timing import STORY_S

D = Decimal
STEPS = ["account", "flat before", "order that finds nobody", "buy the protective leg", "sell the short leg", "both are held",
         "buy the short leg back", "sell the protective leg", "flat again"]
REFUSED = coded(110007, "ab not enough for new order")


def held(venue: BybitEmulator) -> list[Decimal]:
    return [holding.size for (kind, _), holding in venue.market.holdings.items() if kind == "option" and holding.size]


def drilled(prepare: Callable[[BybitEmulator], None] = lambda _: None, after: str = "", patience_s: float = 30.0
            ) -> tuple[drill.Outcome, BybitEmulator, drill_options.Pair]:
    """One drill, which `prepare` spoils once the step `after` is done."""
    async def go() -> tuple[drill.Outcome, BybitEmulator, drill_options.Pair]:
        async with asyncio.timeout(STORY_S), option_account() as (venue, made):
            await made.instruments()
            pair = await drill_options.cheapest(made, made.clock.now())
            assert pair is not None
            if not after:
                prepare(venue)
            pace = drill.Pace(patience_s, 0.02)
            outcome = await drill_options.OptionDrill(
                made, made, pair, made.clock, lambda step: prepare(venue) if step.name == after else None, pace).run()
            assert short_of_cover_ms(venue.market, venue.now()) == 0, "whatever happens, nothing is ever sold uncovered"
            return outcome, venue, pair

    return asyncio.run(go())


def test_a_drill_buys_and_sells_the_smallest_spread_and_costs_what_the_venues_ledger_lost() -> None:
    outcome, venue, pair = drilled()
    assert (outcome.passed, outcome.left) == (True, ()), outcome
    assert [step.name for step in outcome.steps] == STEPS
    assert outcome.cost == D(10_000) - venue.market.wallet["USDT"] > 0 and held(venue) == []
    assert next(step.said for step in outcome.steps if step.name == "flat before").startswith("10,000.00 USDT in the wallet")
    assert drill_options.words(pair).endswith(f"the spreads are about {pair.cost:.2f} USDT, fees come on top")
    assert pair.quantity == D("0.01") and pair.bought.right is pair.sold.right
    assert pair.bought.strike is not None and pair.sold.strike is not None
    assert (pair.bought.strike > pair.sold.strike) == (pair.bought.right is Right.CALL), "what is bought lies further out"


def test_where_the_short_leg_is_refused_the_protective_one_is_sold_again() -> None:
    outcome, venue, _ = drilled(lambda venue: venue.faults.append(Fault("order/create", REFUSED, False, "POST")), "buy the protective leg")
    assert (outcome.passed, outcome.left, held(venue)) == (False, (), []), outcome
    assert outcome.cost == D(10_000) - venue.market.wallet["USDT"] > 0


def test_where_the_answer_to_the_buying_back_is_lost_it_is_asked_about_and_nothing_is_bought_twice() -> None:
    outcome, venue, _ = drilled(lambda venue: venue.faults.append(Fault("order/create", Reply(how="close"), True, "POST")), "both are held")
    assert (outcome.passed, outcome.left, held(venue)) == (False, (), []), outcome


def test_what_cannot_be_bought_back_is_named_and_what_covers_it_is_kept() -> None:
    def spoil(venue: BybitEmulator) -> None:
        venue.always = [Fault("order/create", REFUSED, False, "POST")]

    outcome, venue, pair = drilled(spoil, "both are held", 2.0)
    assert not outcome.passed and sorted(held(venue)) == [-pair.quantity, pair.quantity]
    assert pair.sold.symbol in outcome.left[0] and pair.bought.symbol in outcome.left[0] and "sold first" in outcome.left[0]


def test_a_contract_that_is_held_already_is_left_alone() -> None:
    async def go() -> None:
        async with asyncio.timeout(STORY_S), option_account() as (venue, made):
            await made.instruments()
            pair = await drill_options.cheapest(made, made.clock.now())
            assert pair is not None
            mine = option_order("mine", symbol=pair.bought.symbol, quantity="0.01", arrival=repr(pair.bought_quote.ask))
            await made.submit(mine)
            before = len(venue.bodies)
            outcome = await drill_options.OptionDrill(made, made, pair, made.clock, lambda _: None, drill.Pace(5.0, 0.02)).run()
            assert not outcome.passed and outcome.steps[-1].name == "flat before" and len(venue.bodies) == before
            assert held(venue) == [D("0.01")]

    asyncio.run(go())


@pytest.mark.parametrize("size", ["0", "5"])
def test_only_contracts_quoted_on_both_sides_are_drilled(size: str) -> None:
    async def go() -> None:
        async with asyncio.timeout(STORY_S), option_account() as (venue, made):
            venue.market.options.size = D(size)
            await made.instruments()
            pair = await drill_options.cheapest(made, made.clock.now())
            assert (pair is None) == (size == "0")
            assert pair is None or pair.bought.asset_class is AssetClass.OPTION

    asyncio.run(go())
