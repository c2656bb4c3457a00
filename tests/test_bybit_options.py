"""Bybit's options: what the unmodified ccxt says of the emulator, what a chain must be to be believed, and paper trading at its prices, in
the whole daemon, from the entry to the delivery."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from modules.cli import market as where
from modules.domain.errors import ConfigurationError, VenueError, VenueUnreachable
from modules.domain.events import Filled, OptionSettled, OrderExpired, PositionClosed, TradeAbandoned
from modules.domain.instrument import AssetClass, Instrument, Right, Side
from modules.domain.options import delta_of, reprice
from modules.domain.settings import Settings
from modules.domain.signal import Structure
from modules.runtime.clock import WallClock
from modules.store.journal import Journal
from modules.venues import ccxt_bybit_options, factory
from modules.venues.ccxt_binance import BinanceDialect
from modules.venues.ccxt_dialect import Chains
from modules.venues.ccxt_streams import _Basis
from tests.builders import shipped_policies
from tests.bybit_worlds import PERP, until
from tests.ccxt_worlds import BYBIT_GARBAGE
from tests.emulators import bybit as emulator
from tests.emulators.frame import Fault, Reply
from tests.live_worlds import Life
from tests.option_worlds import STRIKES, World, a_week_away, now, option_adapter, optioned, spreads
from tests.test_bybit_emulator import _ccxt

D = Decimal
OPTION = AssetClass.OPTION


# -- the emulator ------------------------------------------------------------------------------------------------------------------


async def test_plain_ccxt_trades_options_here_as_it_would_there() -> None:
    async with emulator.serving() as venue, _ccxt(venue) as client:
        expiry = a_week_away(venue.now())
        venue.market.options.list("BTC", expiry, *STRIKES)
        venue.market.options.list("BTC", expiry, "50000", settle="USDC")
        client.options["fetchMarkets"] = ccxt_bybit_options.market_fields(("BTC",))
        listed = {symbol: one for symbol, one in (await client.load_markets()).items() if one["option"]}
        assert len(listed) == 2 * len(STRIKES) + 2
        symbol = next(name for name in listed if name.startswith("BTC/USDT:USDT-") and name.endswith("-50000-C"))
        assert (listed[symbol]["strike"], listed[symbol]["expiry"], listed[symbol]["settle"]) == (50_000.0, expiry, "USDT")
        greeks = await client.fetch_greeks(symbol)
        assert greeks["markImpliedVolatility"] == 0.6 and 0.5 < greeks["delta"] < 0.56
        assert len(await client.fetch_option_chain("BTC")) == len(listed)
        ask = (await client.fetch_order_book(symbol))["asks"][0][0]
        assert ask == greeks["askPrice"] > greeks["bidPrice"]

        before = venue.market.wallet["USDT"]
        await client.create_order(symbol, "limit", "buy", 0.1, ask, {"timeInForce": "IOC", "clientOrderId": "o1"})
        (fill,) = await client.fetch_my_trades(symbol)
        assert (fill["amount"], fill["price"], fill["fee"]["cost"]) == (0.1, ask, 1.5)  # 0.03 % of the index, a tenth of a coin
        assert venue.market.wallet["USDT"] == before - D(str(ask)) * D("0.1") - D("1.5")
        await client.create_order(symbol, "limit", "buy", 0.1, ask / 2, {"timeInForce": "IOC", "clientOrderId": "o2"})
        ended = {row["clientOrderId"]: row["status"] for row in await client.fetch_canceled_and_closed_orders(symbol)}
        assert ended == {"o1": "closed", "o2": "canceled"}
        await client.create_order(symbol, "limit", "buy", 0.1, ask // 2, {"clientOrderId": "o3"})
        (resting,) = await client.fetch_open_orders(symbol)
        await client.cancel_order(resting["id"], symbol)
        assert await client.fetch_open_orders(symbol) == []
        (position,) = await client.fetch_positions([symbol])
        assert (position["contracts"], position["side"]) == (0.1, "long")

        paid = venue.market.wallet["USDT"]
        venue.market.options.deliver(expiry, "52000")
        assert venue.market.wallet["USDT"] == paid + D(200) - D("0.78")  # 2,000 a coin, less 0.015 % of 52,000
        (record,) = (await client.privateGetV5AssetDeliveryRecord({"category": "option"}))["result"]["list"]
        assert (record["deliveryPrice"], record["position"], record["fee"]) == ("52000", "0.1", "0.78000000")
        (told,) = (await client.publicGetV5MarketNewDeliveryPrice({"category": "option", "baseCoin": "BTC"}))["result"]["list"]
        assert told == {"deliveryPrice": "52000", "deliveryTime": str(expiry)}


# -- what is believed --------------------------------------------------------------------------------------------------------------

RECORDED_AT = 1_711_162_003_672
RECORDED = {
    "symbol": "BTC-27DEC24-55000-P", "bid1Price": "0", "bid1Size": "0", "bid1Iv": "0", "ask1Price": "0", "ask1Size": "0", "ask1Iv": "0",
    "lastPrice": "10980", "highPrice24h": "0", "lowPrice24h": "0", "markPrice": "11814.66756236", "indexPrice": "63838.92",
    "markIv": "0.8866", "underlyingPrice": "71690.55303594", "openInterest": "0.01", "turnover24h": "0", "volume24h": "0",
    "totalVolume": "2", "totalTurnover": "78719", "delta": "-0.23284954", "gamma": "0.0000055", "vega": "191.70757975",
    "theta": "-30.43617927", "predictedDeliveryPrice": "0", "change24h": "0"}
"""What Bybit's own documentation shows as the answer of 2024-03-23 02:46:43 UTC."""
PUT = Instrument("BTC/USDT:USDT-241227-55000-P", "bybit", OPTION, "BTC", "USDT", "USDT", "BTC", D(5), D("0.01"), D("0.01"),
                 expiry=1_735_286_400_000, strike=D(55_000), right=Right.PUT)
WIDE = Chains(400.0, 1.0, 10.0)


def chain_of(*rows: Any, bounds: Chains = WIDE, kept: Iterable[str] = ()) -> Any:
    return ccxt_bybit_options.chain_of("BTC", rows, {"BTC-27DEC24-55000-P": PUT}, bounds, frozenset(kept), RECORDED_AT)


def test_the_answer_bybit_documents_is_believed_and_our_own_formulas_say_the_same() -> None:
    chain = chain_of(RECORDED)
    (quote,) = chain.quotes
    assert (chain.spot, chain.settle_rate, quote.mark, quote.iv, quote.open_interest) == (63_838.92, 1.0, 11814.66756236, 0.8866, 0.01)
    assert quote.bid != quote.bid and quote.ask != quote.ask, "nobody quotes it, which is not a price of 0"
    _, _, mark = reprice(quote, chain._replace(spot=71_690.55), 71_690.55, RECORDED_AT)
    assert mark == pytest.approx(11814.67, rel=1e-3)
    assert delta_of(quote._replace(delta=float("nan")), chain._replace(spot=71_690.55)) == pytest.approx(-0.23284954, abs=0.002)


@pytest.mark.parametrize(("field", "value"), [
    ("markPrice", "23000"), ("markPrice", "1"), ("markIv", "0"), ("markIv", "8.8"), ("markIv", "88.66"), ("underlyingPrice", "7169"),
    ("delta", "0.23"), ("delta", "-23"), ("markPrice", "1e5"), ("indexPrice", "0"), ("indexPrice", "NaN"), ("markPrice", None),
    ("bid1Price", "-1"), ("openInterest", 12.5), ("vega", "inf"), ("ask1Size", "")])
def test_a_row_that_contradicts_itself_or_is_no_row_is_not_believed(field: str, value: Any) -> None:
    with pytest.raises(VenueUnreachable):
        chain_of(RECORDED | {field: value})


def test_what_quote_and_index_are_usually_apart_is_learned_and_one_moment_between_two_messages_is_not() -> None:
    basis = _Basis()
    for _ in range(60):
        assert basis.take(1.001)
    assert basis.ratio == pytest.approx(1.001, abs=1e-5)
    assert basis.take(1.02) and basis.ratio == pytest.approx(1.001, abs=5e-4), "the quote has moved, the index is not told yet"
    before = basis.ratio
    assert not basis.take(1.08) and not basis.take(0.9) and basis.ratio == before, "of something else"


def test_a_side_without_a_size_and_a_crossed_quote_are_no_quotes() -> None:
    (empty,) = chain_of(RECORDED | {"bid1Price": "11700", "bid1Size": "0", "ask1Price": "11900", "ask1Size": "0.5"}).quotes
    assert empty.bid != empty.bid and (empty.ask, empty.ask_size) == (11_900.0, 0.5)
    (crossed,) = chain_of(RECORDED | {"bid1Price": "12000", "bid1Size": "1", "ask1Price": "11900", "ask1Size": "1"}).quotes
    assert crossed.bid != crossed.bid and crossed.ask != crossed.ask


def test_only_what_is_near_is_looked_at_but_what_is_held_always_is() -> None:
    with pytest.raises(VenueUnreachable, match="of 0 options"):
        chain_of(RECORDED, bounds=Chains(45.0, 0.25, 10.0))
    assert len(chain_of(RECORDED, bounds=Chains(45.0, 0.25, 10.0), kept=[PUT.symbol]).quotes) == 1


@pytest.mark.parametrize("changes", [{"optionsType": "Call"}, {"baseCoin": "ETH"}, {"deliveryTime": "1735372800000"}, {"deliveryTime": "0"},
                                     {"symbol": "BTC-27DEC24-x-P-USDT"}, {"symbol": "BTCUSDT"}, {"lotSizeFilter": {}}])
def test_a_contract_whose_row_says_other_than_its_name_is_refused(changes: dict[str, Any]) -> None:
    row = {"symbol": "BTC-27DEC24-55000-P-USDT", "baseCoin": "BTC", "quoteCoin": "USDT", "settleCoin": "USDT", "optionsType": "Put",
           "deliveryTime": "1735286400000", "priceFilter": {"tickSize": "5"}, "lotSizeFilter": {"minOrderQty": "0.01", "qtyStep": "0.01"}}
    made = ccxt_bybit_options.contract(PUT.symbol, row, D(0), D(0))
    assert made == dataclasses.replace(PUT, quantity_min=D("0.01"))
    assert ccxt_bybit_options.contract(PUT.symbol, row | {"settleCoin": "USDC"}, D(0), D(0)) is None
    with pytest.raises(VenueUnreachable):
        ccxt_bybit_options.contract(PUT.symbol, row | changes, D(0), D(0))


async def test_a_garbage_answer_about_options_is_an_error_and_never_an_empty_chain() -> None:
    async with emulator.serving() as venue:
        expiry = a_week_away(venue.now())
        venue.market.options.list("BTC", expiry, *STRIKES)
        made = option_adapter(venue)
        try:
            contract = next(one for one in await made.instruments() if one.asset_class is OPTION)
            asks: dict[str, Any] = {"market/tickers": lambda: made.chain("BTC"), "new-delivery-price": lambda: made.delivered(contract),
                                    "instruments-info": made.instruments}
            for what, body in BYBIT_GARBAGE.items():
                for path, ask in asks.items():
                    venue.always = [Fault(path, Reply(200, body), False)]
                    with pytest.raises(VenueError):
                        raise AssertionError(f"{what} at {path}: {await ask()}")
            venue.always.clear()
            assert len((await made.chain("BTC")).quotes) == 2 * len(STRIKES)
            assert await made.delivered(contract) is None
        finally:
            await made.close()


async def test_a_contract_that_was_listed_since_is_known_with_the_next_chain() -> None:
    async with emulator.serving() as venue:
        expiry = a_week_away(venue.now())
        venue.market.options.list("BTC", expiry, "50000")
        made = option_adapter(venue)
        try:
            assert {quote.strike for quote in (await made.chain("BTC")).quotes} == {50_000.0}
            (fresh, _) = venue.market.options.list("BTC", expiry, "51000")
            chain = await made.chain("BTC")
            assert {quote.strike for quote in chain.quotes} == {50_000.0, 51_000.0}
            assert all(made.contract(quote.symbol) is not None for quote in chain.quotes), fresh
            asked = venue.asked["/v5/market/instruments-info"]
            venue.market.options.list("BTC", expiry, "52000")
            await made.chain("BTC")
            assert venue.asked["/v5/market/instruments-info"] == asked, "not with every chain: it costs a dozen questions"
        finally:
            await made.close()


# -- the whole daemon on paper -------------------------------------------------------------------------------------------------------


def held(made: Life) -> dict[str, Decimal]:
    return {symbol: position.quantity for symbol, position in made.daemon.portfolio.positions.items()}


def cash(made: Iterable[Life]) -> Decimal:
    """The option class's money, worked out from what the lives' journals say was traded and delivered."""
    money = D(15_000)
    for one in made:
        for fact in one.of(Filled):
            money -= fact.fill.side.sign * fact.fill.quantity * fact.fill.price + fact.fill.fee
        for settled in one.of(OptionSettled):
            money += settled.quantity * settled.value - settled.fee
    return money


def charged(fact: Filled, index: str) -> Decimal:
    """0.03 % of the index, at most an eighth of the premium (policies/cost_policy.json)."""
    return min(D("0.0003") * D(index), D("0.125") * fact.fill.price) * fact.fill.quantity


async def _entered(world: World, structure: Structure = Structure.CREDIT_SPREAD, legs: int = 2) -> Life:
    made = await world.starts(spreads(structure))
    await world.minute(made)
    await world.minute(made)
    await world.minute(made, "51000")
    await made.until(lambda: len(made.of(Filled)) >= legs, f"{legs} fills")
    return made


async def test_a_credit_spread_is_entered_marked_carried_over_a_restart_and_ends_at_the_price_it_was_delivered_at(tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        first = await _entered(world)
        bought, sold = first.of(Filled)
        protective, short = (world.paper._desk._prices.known(one.fill.symbol).instrument for one in (bought, sold))
        assert (bought.fill.side, sold.fill.side) == (Side.BUY, Side.SELL)
        assert protective.right is short.right is Right.CALL and protective.expiry == short.expiry == world.expiry
        assert protective.strike is not None and short.strike is not None and protective.strike > short.strike > 51_000
        assert bought.fill.quantity == sold.fill.quantity
        for one in (bought, sold):
            assert one.fill.fee == pytest.approx(charged(one, "51000"), rel=D("1e-4"))
        entered = held(first)
        assert entered == {protective.symbol: bought.fill.quantity, short.symbol: -sold.fill.quantity}

        # The venue's marks are ours: what it says both legs are worth is what the class is worth.
        await world.heard(first)
        marks = {one.symbol: world.options.mark(f"BTC-{_day(one)}-{one.strike}-C-USDT") for one in (protective, short)}
        worth = sum(entered[symbol] * mark for symbol, mark in marks.items())
        equity = first.daemon.marked_equity(OPTION)
        assert equity is not None and equity == pytest.approx(cash([first]) + worth, abs=D(5))
        await first.die()

        second = await world.starts(spreads(), symbols=tuple(entered))
        assert held(second) == entered
        world.push(world.expiry - world.clock.now() + 60_000)
        await second.until(lambda: world.venue.asked["/v5/market/new-delivery-price"] >= 1, "the price of the expiry is asked for")
        assert held(second) == entered and not second.of(OptionSettled), "nobody has told at what price"
        at = short.strike + 400
        world.options.deliver(world.expiry, str(at))
        world.push(30_000)
        await second.until(lambda: len(second.of(PositionClosed)) == 1, "both legs are settled")
        settled = {fact.symbol: fact for fact in second.of(OptionSettled)}
        assert (settled[short.symbol].value, settled[short.symbol].quantity) == (D(400), -sold.fill.quantity)
        assert (settled[protective.symbol].value, settled[protective.symbol].fee) == (D(0), D(0))
        assert settled[short.symbol].fee == min(D("0.00015") * at, D("0.125") * 400) * sold.fill.quantity
        assert held(second) == {}
        books = cash([first, second])
        assert second.daemon.portfolio.ledger(OPTION).cash == books == world.paper.books[OPTION].cash
        await second.end()
        assert not first.of(TradeAbandoned) and not second.of(TradeAbandoned)


async def test_what_expired_while_nobody_ran_is_settled_at_the_next_start_though_the_venue_lists_it_no_more(tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        first = await _entered(world)
        entered = held(first)
        await first.die()
        world.push(world.expiry - world.clock.now() + 60_000)
        world.options.deliver(world.expiry, "50000")
        second = await world.starts(spreads(), symbols=tuple(entered))
        await second.until(lambda: second.of(PositionClosed), "both are settled")
        assert {fact.symbol: fact.quantity for fact in second.of(OptionSettled)} == entered
        assert all((fact.value, fact.fee) == (D(0), D(0)) for fact in second.of(OptionSettled)), "the whole premium was earned"
        assert held(second) == {}
        assert second.daemon.portfolio.ledger(OPTION).cash == cash([first, second]) == world.paper.books[OPTION].cash > D(15_000)
        await second.end()


async def test_more_contracts_than_one_page_holds_are_all_listed() -> None:
    async with emulator.serving() as venue:
        for week in range(3):
            expiry = a_week_away(venue.now()) + week * 7 * 86_400_000
            venue.market.options.list("BTC", expiry, *(str(1_000 * step) for step in range(1, 121)))
        made = option_adapter(venue)
        try:
            assert sum(one.asset_class is OPTION for one in await made.instruments()) == 720
        finally:
            await made.close()


def _day(one: Instrument) -> str:
    from tests.emulators.bybit_options import Terms, contract_id

    assert one.expiry is not None and one.strike is not None
    return contract_id(Terms("BTC", one.expiry, one.strike, True)).split("-")[1]


async def test_a_long_put_is_closed_at_what_is_bid_when_the_view_ends(tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        made = await _entered(world, Structure.LONG_OPTION, 1)
        (bought,) = made.of(Filled)
        assert bought.fill.symbol.endswith("-P") and bought.fill.side is Side.BUY
        await world.minute(made, "50000")
        await made.until(lambda: made.of(PositionClosed), "the exit")
        assert [fact.fill.side for fact in made.of(Filled)] == [Side.BUY, Side.SELL]
        assert held(made) == {}
        assert made.daemon.portfolio.ledger(OPTION).cash == cash([made]) == world.paper.books[OPTION].cash
        await made.end()


async def test_where_the_short_leg_finds_no_quote_the_protective_one_is_sold_again_and_nothing_is_ever_naked(tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        made = await world.starts(spreads())
        await world.minute(made)
        await world.minute(made)

        def gone(fact: Any) -> None:
            """The moment the protective leg is bought nobody bids for anything else, and what was said before is old."""
            if isinstance(fact, Filled) and not world.options.unquoted:
                kept = made.daemon.market.instrument(fact.fill.symbol)
                assert kept is not None
                world.options.unquoted.update(name for name, terms in world.options.terms.items()
                                              if (terms.strike, terms.call) != (kept.strike, kept.right is Right.CALL))
                world.push(40_000)

        made.daemon.journal.react(gone)
        await world.minute(made, "51000")
        await made.until(lambda: made.of(PositionClosed), "the protective leg is closed")
        sides = [(fact.fill.side, fact.fill.symbol) for fact in made.of(Filled)]
        assert [side for side, _ in sides] == [Side.BUY, Side.SELL] and len({symbol for _, symbol in sides}) == 1
        assert held(made) == {} and world.paper.books[OPTION].holdings == {}
        assert any("no fresh quote" in fact.reason for fact in made.of(OrderExpired))
        assert made.daemon.portfolio.ledger(OPTION).cash == cash([made]) == world.paper.books[OPTION].cash
        await made.end()


async def test_no_more_is_bought_than_was_offered_and_no_more_sold_than_was_bought(tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        world.options.size = D("0.3")
        made = await _entered(world)
        assert sorted(held(made).values()) == [D("-0.3"), D("0.3")]
        await made.end()


async def test_an_old_chain_trades_nothing(tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        made = await world.starts(spreads(Structure.LONG_OPTION))
        await world.minute(made)
        await world.minute(made)
        world.venue.always = [Fault("market/tickers", Reply(500, b"<html>"), False)]
        asked = world.venue.asked["/v5/market/tickers"]
        await made.until(lambda: world.venue.asked["/v5/market/tickers"] > asked, "a question that failed")
        world.push(60_000)
        world.market.move("linear", "BTCUSDT", "50510")
        world.market.close_bar("linear", "BTCUSDT")
        await made.until(lambda: made.of(TradeAbandoned), "the entry found no price")
        assert not made.of(Filled) and held(made) == {}
        await made.end()


async def test_a_delivery_price_out_of_line_with_the_market_settles_nothing(tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        made = await _entered(world)
        entered = held(made)
        world.push(world.expiry - world.clock.now() + 60_000)
        row = {"baseCoin": "BTC", "settleCoin": "USDT", "deliveryPrice": "5100000", "deliveryTime": str(world.expiry)}
        world.options.delivered.insert(0, row)
        for questions in (2, 4):  # one for each leg
            await made.until(lambda asked=questions: world.venue.asked["/v5/market/new-delivery-price"] >= asked, "the question")  # type: ignore[misc]
            await world.heard(made)
            world.push(30_000)
        assert held(made) == entered and not made.of(OptionSettled)
        row["deliveryPrice"] = "51000"
        world.push(30_000)
        await made.until(lambda: made.of(PositionClosed), "a price that can be")
        await made.end()


# -- what may be configured ----------------------------------------------------------------------------------------------------------


def settings(url: str = "", mode: str = "paper", classes: tuple[str, ...] = ("PERP", "OPTION"), **more: Any) -> Settings:
    return Settings.model_validate({"mode": mode, "venues": {"bybit": {"classes": classes, "endpoint": url, "timeframe": "1m", **more}}})


def test_real_money_in_options_is_for_bybit_and_refused_by_name_where_a_row_says_paper_only(monkeypatch: pytest.MonkeyPatch) -> None:
    live = settings(mode="live", key_file="k", allocate={"PERP": "100", "OPTION": "100"}).venues["bybit"]
    assert factory.faults("bybit", live, trading=True) == []
    unproven = replace(factory.KNOWN["bybit"], paper_only={OPTION: "nobody has tried it"})
    monkeypatch.setattr(factory, "KNOWN", {**factory.KNOWN, "bybit": unproven})
    (fault,) = factory.faults("bybit", live, trading=True)
    assert fault.startswith("venues.bybit.classes: live trading of OPTION is refused: nobody has tried it")
    monkeypatch.undo()
    assert factory.faults("bybit", settings().venues["bybit"], trading=False) == []
    (fault,) = factory.faults("bybit", settings(classes=("SPOT", "OPTION")).venues["bybit"], trading=False)
    assert "OPTION needs PERP beside it" in fault
    assert any("binance has no OPTION here" in fault for fault in factory.faults("binance", live, trading=False))
    with pytest.raises(ConfigurationError, match="nothing is known here of its options"):
        option_adapter(emulator.BybitEmulator(), dialect=BinanceDialect())


async def test_mode_paper_with_options_is_one_line_of_settings(tmp_path: Path) -> None:
    async with emulator.serving() as venue:
        venue.market.options.list("BTC", a_week_away(now()), "50000")
        with Journal(tmp_path / "journal.sqlite", durable=False) as journal:
            opened = await where.opened(settings(venue.url, options={"every_s": 1}), shipped_policies(), WallClock(), journal, print)
        try:
            assert where.venue_of(settings(venue.url)) == {AssetClass.PERP: "bybit", OPTION: "bybit"}
            assert opened.references[OPTION] == PERP and opened.symbols == {PERP, "ETH/USDT:USDT"}
            chains: list[Any] = []
            async with aclosing(opened.venues["bybit"].market_events()) as events:  # type: ignore[type-var]
                async for batch in events:
                    chains += batch.chains
                    if chains:
                        break
            assert [quote.strike for quote in chains[0].quotes] == [50_000.0, 50_000.0]
            listed = await opened.venues["bybit"].instruments()
            assert sum(one.asset_class is OPTION for one in listed) == 2
        finally:
            for one in opened.venues.values():
                await one.close()


def test_the_emulators_rows_have_every_field_bybit_documents() -> None:
    market = emulator.BybitEmulator().market
    (call, _) = market.options.list("BTC", a_week_away(now()), "50000")
    assert set(market.ticker(("option", call))) == set(RECORDED)
    assert json.dumps(market.listing(market.products["option", call]))


async def test_what_is_held_is_looked_at_however_far_the_market_has_gone(tmp_path: Path) -> None:
    async with optioned(tmp_path) as world:
        made = await _entered(world)
        for price in ("60000", "75000"):
            await world.minute(made, price)
        await until(lambda: made.daemon.market.chain("BTC") is not None)
        chain = made.daemon.market.chain("BTC")
        assert chain is not None and set(held(made)) <= {quote.symbol for quote in chain.quotes}
        await made.end()
