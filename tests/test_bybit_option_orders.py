"""Orders, fills, positions and deliveries of options over Bybit's wire, held to the same as everything else: the books are the wallet to
the last unit, and what is not proven is in doubt."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from modules.domain.errors import VenueError, VenueUnreachable
from modules.domain.instrument import AssetClass, Side
from modules.domain.money import ZERO
from modules.domain.order import Accepted, OrderKind, OrderState, Refused
from modules.venues import ccxt_bybit_options
from modules.venues.ccxt_dialect import Chains
from modules.venues.protocol import AccountEvent, FillSeen, OrderDone, Settled
from tests import test_ccxt_faults
from tests.bybit_worlds import Listener, PushedClock
from tests.ccxt_worlds import BYBIT_GARBAGE, WORLDS
from tests.emulators.frame import Fault, Reply
from tests.option_worlds import a_week_away, contract, now, option_account, option_adapter, option_order

D = Decimal
OPTION = AssetClass.OPTION


def booked(events: list[AccountEvent]) -> Decimal:
    """What the events did to the wallet."""
    money = ZERO
    for event in events:
        if isinstance(event, FillSeen):
            money -= event.fill.side.sign * event.fill.quantity * event.fill.price + event.fill.fee
        elif isinstance(event, Settled):
            money += event.quantity * event.value - event.fee
    return money


async def test_a_spread_is_bought_sold_and_delivered_and_its_events_are_the_wallet_to_the_last_unit() -> None:
    async with option_account(audit_s=0.2) as (venue, made), Listener(made) as heard:
        await made.missed()
        await heard.until(lambda _: venue.listeners["execution"] and venue.listeners["order"])
        before, expiry = venue.market.wallet["USDT"], a_week_away(now())
        far, near = (str(venue.market.ask(("option", f"BTC-{_day()}-{strike}-C-USDT"))) for strike in ("54000", "51000"))
        for sent in (option_order("1", arrival=far, symbol=contract("C", "54000")), option_order("2", Side.SELL, arrival=near),
                     option_order("3", Side.SELL, "0.04", arrival=far, symbol=contract("C", "54000"), reduce=True)):
            assert isinstance(await made.submit(sent), Accepted)
        await heard.until(lambda events: sum(isinstance(event, FillSeen) for event in events) == 3)
        positions = (await made.wallet()).classes[OPTION].positions
        assert positions == {contract(): D("-0.1"), contract("C", "54000"): D("0.06")}
        assert (await made.wallet()).classes[AssetClass.PERP].positions == {}
        assert before + booked(heard.events) == venue.market.wallet["USDT"]
        report = await made.order("tb2", contract())
        assert report is not None and (report.state, report.filled) == (OrderState.FILLED, D("0.1"))
        assert (await made.wallet()).open_orders == []

        venue.market.options.deliver(expiry, "53000.5")
        await heard.until(lambda events: sum(isinstance(event, Settled) for event in events) == 2)
        settled = {event.symbol: event for event in heard.events if isinstance(event, Settled)}
        assert (settled[contract()].quantity, settled[contract()].value) == (D("-0.1"), D("2000.5"))
        assert (settled[contract("C", "54000")].quantity, settled[contract("C", "54000")].value) == (D("0.06"), D(0))
        assert before + booked(heard.events) == venue.market.wallet["USDT"]
        assert (await made.wallet()).classes[OPTION].positions == {}
        told = len(heard.events)
        await made.instruments()  # by now it is listed no more, and the next audits tell nothing twice
        asked = venue.asked["/v5/asset/delivery-record"]
        await heard.until(lambda _: venue.asked["/v5/asset/delivery-record"] > asked + 1)
        assert len(heard.events) == told


async def test_what_was_delivered_while_nobody_ran_is_told_at_the_next_start_though_it_is_listed_no_more() -> None:
    async with option_account() as (venue, made):
        await made.submit(option_order("1"))
        venue.market.options.deliver(a_week_away(now()), "53000")
        for record in venue.market.options.records:
            record["deliveryTime"] = now() - 2 * 3_600_000  # it is told late, under the time of the expiry
        for contracts in ("52000", "50000"):
            venue.market.options.list("BTC", a_week_away(now()) + 7 * 86_400_000, contracts)
        reborn = option_adapter(venue, credentials=made._credentials)  # a new process: nothing is remembered
        try:
            events = await reborn.missed(now() - 60_000)
        finally:
            await reborn.close()
        fills = [event.fill for event in events if isinstance(event, FillSeen)]
        assert [(fill.symbol, fill.quantity) for fill in fills] == [(contract(), D("0.1"))]
        (settled,) = (event for event in events if isinstance(event, Settled))
        assert (settled.symbol, settled.value, settled.quantity) == (contract(), D(2000), D("0.1"))


async def test_a_market_order_is_a_limit_that_ends_at_once_a_bounded_way_from_the_price_it_was_decided_at() -> None:
    async with option_account() as (venue, made), Listener(made) as heard:
        await heard.until(lambda _: venue.listeners["order"])
        key = "option", f"BTC-{_day()}-51000-C-USDT"
        ask = venue.market.ask(key)
        cheap = option_order("1", arrival=str(ask / 2))
        assert isinstance(await made.submit(cheap), Accepted)
        await heard.until(lambda events: any(isinstance(event, OrderDone) for event in events))
        assert venue.market.executions == [], "the market had gone further than the bound"
        assert isinstance(await made.submit(option_order("2", arrival=str(ask))), Accepted)
        sent = [body for path, body in venue.bodies if path.endswith("order/create")]
        assert [(body["orderType"], body["timeInForce"]) for body in sent] == [("Limit", "IOC")] * 2
        assert D(sent[1]["price"]) == pytest.approx(ask * D("1.1"), abs=5)
        (row,) = venue.market.executions
        assert D(row["execPrice"]) <= ask * D("1.01")
        await made.submit(option_order("3", Side.SELL, arrival=str(ask), reduce=True))
        assert D(venue.bodies[-1][1]["price"]) == pytest.approx(ask * D("0.7"), abs=5) and venue.bodies[-1][1]["reduceOnly"] is True
        for kind in (OrderKind.STOP, OrderKind.TARGET, OrderKind.LIMIT):
            resting = replace(option_order("4"), kind=kind, price=D(1000))
            assert isinstance(await made.submit(resting), Refused)
        assert len([body for path, body in venue.bodies if path.endswith("order/create")]) == 3


async def test_on_a_chain_nobody_has_heard_nothing_is_opened_and_everything_may_be_closed_and_it_is_said() -> None:
    clock = PushedClock()
    async with option_account(chains=Chains(45.0, 0.25, 10.0, 30.0)) as (venue, made):
        made.clock = clock
        for client in (made.data, made.trade):
            client.milliseconds = clock.now
        await made.chain("BTC")
        assert isinstance(await made.submit(option_order("1")), Accepted) and made.silent() == []
        for each in (venue, clock):
            setattr(each, "skew_ms" if each is venue else "ahead_ms", 31_000)
        refused = await made.submit(option_order("2"))
        assert isinstance(refused, Refused) and "was not heard" in refused.message
        assert made.silent() == ["options on BTC: bybit has told no chain for 31 s"]
        assert isinstance(await made.submit(option_order("3", Side.SELL, reduce=True)), Accepted)
        await made.chain("BTC")
        assert made.silent() == [] and isinstance(await made.submit(option_order("4")), Accepted)


async def test_what_is_held_stays_in_its_chain_however_far_the_market_has_gone_from_it() -> None:
    async with option_account(chains=Chains(45.0, 0.02, 10.0, 600.0)) as (_, made):
        far = contract("C", "54000")
        assert far not in [quote.symbol for quote in (await made.chain("BTC")).quotes]
        await made.submit(option_order("1", symbol=far, arrival="2000"))
        await made.wallet()
        assert far in [quote.symbol for quote in (await made.chain("BTC")).quotes]


async def test_what_became_of_an_order_in_a_contract_that_is_listed_no_more_can_still_be_asked() -> None:
    async with option_account() as (venue, made):
        await made.submit(option_order("1"))
        venue.market.options.deliver(a_week_away(now()), "53000")
        venue.market.options.list("BTC", a_week_away(now()) + 7 * 86_400_000, "52000")
        reborn = option_adapter(venue, credentials=made._credentials)
        try:
            report = await reborn.order("tb1", contract())
            assert report is not None and (report.symbol, report.state, report.filled) == (contract(), OrderState.FILLED, D("0.1"))
            assert await reborn.order("tb2", contract()) is None
            with pytest.raises(VenueUnreachable):
                await reborn.order("tb1", "BTC/USDT:USDT-261399-1-C")
        finally:
            await reborn.close()


def _day() -> str:
    from tests.emulators.bybit_options import Terms, contract_id

    return contract_id(Terms("BTC", a_week_away(now()), D(1), True)).split("-")[1]


async def test_the_owners_usdc_options_are_none_of_our_business() -> None:
    async with option_account() as (venue, made):
        await made.instruments()
        (theirs, _) = venue.market.options.list("BTC", a_week_away(now()), "50500", settle="USDC")
        for link, price in (("own", "100000"), ("rest", "5")):
            venue.market.create({"category": "option", "symbol": theirs, "side": "Buy", "orderType": "Limit", "qty": "0.1", "price": price,
                                 "orderLinkId": link})
        wallet = await made.wallet()
        assert wallet.classes[OPTION].positions == {} and wallet.open_orders == []
        assert await made.fills_since(now() - 60_000) == []


@pytest.mark.parametrize("name", [
    "BTC-32DEC26-50000-C-USDT", "BTC-4DEC26-50000-C", "BTCUSDT", "BTC-4DEC26-0-C-USDT", "", "BTC-4DEC26-1-X-USDT"])
def test_a_name_that_is_no_contracts_is_unknown(name: str) -> None:
    assert ccxt_bybit_options.symbol_of("ETH-4DEC26-2500.5-P-USDT") == "ETH/USDT:USDT-261204-2500.5-P"
    with pytest.raises(VenueUnreachable):
        ccxt_bybit_options.symbol_of(name)


async def test_a_garbage_answer_about_the_account_is_an_error_and_never_an_empty_one() -> None:
    async with option_account() as (venue, made):
        await made.instruments()
        await made.submit(option_order("1"))
        asks: dict[str, Any] = {
            "position/list": lambda: made.wallet(), "order/realtime": lambda: made.wallet(),
            "order/history": lambda: made.order("tb1", contract()), "execution/list": lambda: made.fills_since(now() - 60_000),
            "delivery-record": lambda: made.settled_since(now() - 60_000)}
        for what, body in BYBIT_GARBAGE.items():
            for path, ask in asks.items():
                venue.always = [Fault(path, Reply(200, body), False)]
                with pytest.raises(VenueError):
                    raise AssertionError(f"{what} at {path}: {await ask()}")


# -- the write-fault matrix, as every other kind of order is held to it ----------------------------------------------------------------



def _unhurried(**changes: Any) -> Any:
    """For a story whose clock leaps: no chain grows old."""
    return option_account(chains=Chains(45.0, 0.25, 0.1, 1e9), **changes)


WORLD = replace(WORLDS[0], name="bybit option", open=_unhurried, made=option_order, resting=option_order)
MATRIX = {test.__name__.removeprefix("test_"): test for test in (
    test_ccxt_faults.test_a_submit_the_venue_accepted_is_never_called_rejected_or_unsent_whatever_it_answers,
    test_ccxt_faults.test_a_submit_that_never_took_effect_is_never_called_accepted,
    test_ccxt_faults.test_only_a_listed_code_proves_a_refusal, test_ccxt_faults.test_nobody_listening_is_not_sent,
    test_ccxt_faults.test_a_wrong_clock_is_measured_once_and_the_order_goes_out_once)}


@pytest.mark.parametrize("held", [
    pytest.param(name, marks=[pytest.mark.slow] if "never_took_effect" in name else []) for name in MATRIX])
async def test_an_options_order_is_held_to_the_fault_matrix(held: str) -> None:
    """But for cancels: none of ours ever rests."""
    await MATRIX[held](WORLD)
