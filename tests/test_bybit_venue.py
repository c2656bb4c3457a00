"""What is Bybit's alone: its codes, its unified account. The traps it shares with other exchanges are in test_ccxt_traps.py."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from modules.domain.errors import ConfigurationError, VenueDenied, VenueError, VenueUnreachable
from modules.domain.instrument import AssetClass
from modules.domain.order import Accepted, InDoubt, OrderState
from modules.venues.ccxt_client import Endpoint, check_endpoint
from modules.venues.protocol import Venue
from tests.bybit_worlds import PERP, SPOT, bybit, order
from tests.emulators.bybit import Fault, Reply, coded
from tests.emulators.bybit_market import Market


async def test_instruments_are_as_the_venue_lists_them() -> None:
    async with bybit() as (_, made):
        found = {instrument.symbol: instrument for instrument in await made.instruments()}
        spot, perp = found[SPOT], found[PERP]
        assert (spot.tick, spot.lot, spot.notional_min, spot.settle) == (Decimal("0.01"), Decimal("0.000001"), Decimal("5"), "USDT")
        assert (perp.tick, perp.lot, perp.leverage_max, perp.funding_interval_h) == (Decimal("0.10"), Decimal("0.001"), Decimal("100"), 8)
        assert made.name == "bybit" and isinstance(_venue(made).capabilities.venue_stop, bool)


def _venue(made: Venue) -> Venue:
    """For the type checker: the adapter is a Venue."""
    return made


# -- the traps of the wire ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", [SPOT, PERP])
async def test_a_duplicate_client_id_is_the_order_sent_before_not_a_refusal(symbol: str) -> None:
    async with bybit() as (venue, made):
        first = await made.submit(order("1", symbol))
        assert await made.submit(order("1", symbol)) == first
        assert len(venue.market.orders) == 1
        assert isinstance(await made.submit(order("1", symbol, quantity="0.02")), InDoubt), "one id never carries two contents"


async def test_a_system_error_is_no_rejection() -> None:
    async with bybit() as (venue, made):
        venue.faults.append(Fault("order/create", coded(10016, "System error. Please try again later."), True))
        assert isinstance(await made.submit(order("1")), InDoubt)
        report = await made.order("tb1", SPOT)
        assert report is not None and report.state is OrderState.FILLED


async def test_a_leverage_that_was_set_before_does_not_stop_an_order() -> None:
    async with bybit() as (venue, made):
        assert isinstance(await made.submit(order("1", PERP, leverage="10")), Accepted)  # the venue's own default: "not modified"
        assert isinstance(await made.submit(order("2", PERP, leverage="3")), Accepted)
        assert venue.market.holdings["linear", "BTCUSDT"].leverage == 3
        assert not isinstance(await made.submit(order("3", PERP, leverage="101")), Accepted)
        assert venue.asked["/v5/order/create"] == 2


async def test_an_execution_of_an_unknown_market_is_refused_not_guessed() -> None:
    async with bybit() as (venue, made):
        await made.submit(order("1"))
        venue.market.executions[-1]["symbol"] = "APEXUSDT"
        with pytest.raises(VenueError, match="unknown SPOT market"):
            await made.fills_since(made.clock.now() - 60_000)


async def test_an_answer_about_another_symbol_is_no_answer() -> None:
    async with bybit() as (venue, made):
        await made.submit(order("1"))
        row = next(iter(venue.market.orders.values())).row() | {"symbol": "ETHUSDT"}
        told = {"retCode": 0, "retMsg": "OK", "result": {"list": [row]}}
        venue.always = [Fault("order/", Reply(200, json.dumps(told).encode()), False)]
        with pytest.raises(VenueUnreachable, match="another"):
            await made.order("tb1", SPOT)


# -- keys and addresses -------------------------------------------------------------------------------------------------------


def test_plain_http_is_refused_unless_the_host_is_loopback() -> None:
    check_endpoint(Endpoint("http://127.0.0.1:8080", "ws://localhost:8080"))
    check_endpoint(Endpoint("https://api-testnet.bybit.com", "wss://stream-testnet.bybit.com"))
    for rest in ("http://api.bybit.com", "http://127.0.0.1.evil.example", "ftp://127.0.0.1", "https://user:pa55@api.bybit.com"):
        with pytest.raises(ConfigurationError) as error:
            check_endpoint(Endpoint(rest, "wss://stream.bybit.com"))
        assert "pa55" not in str(error.value)


async def test_a_key_that_may_withdraw_is_refused() -> None:
    async with bybit() as (venue, made):
        await made.check_account()
        venue.rights["Wallet"] = ["Withdraw"]
        with pytest.raises(VenueDenied, match="Withdraw"):
            await made.check_account()


async def test_a_wallet_without_its_currency_is_no_wallet() -> None:
    async with bybit() as (venue, made):
        await made.wallet()
        del venue.market.wallet["USDT"]
        with pytest.raises(VenueUnreachable):
            await made.wallet()


async def test_a_shared_wallet_is_divided_as_we_are_told_and_nothing_is_lost() -> None:
    def split(total: Decimal) -> dict[AssetClass, Decimal]:
        return {AssetClass.SPOT: total - Decimal("300"), AssetClass.PERP: Decimal("300")}

    async with bybit(split=split) as (_, made):
        classes = (await made.wallet()).classes
        assert {asset_class: part.cash for asset_class, part in classes.items()} == {
            AssetClass.SPOT: Decimal("9700"), AssetClass.PERP: Decimal("300")}


def test_the_emulators_price_path_is_the_same_for_the_same_seed() -> None:
    paths = []
    for seed in (1, 1, 2):
        market = Market(lambda: 1_795_370_903_673)
        market.walk("spot", "BTCUSDT", 50, seed)
        paths.append(market.price["spot", "BTCUSDT"])
    assert paths[0] == paths[1] != paths[2]
