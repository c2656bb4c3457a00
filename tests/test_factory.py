"""Which venue may do what, and everything that speaks against a configuration, said at once and before anything connects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modules.domain.errors import ConfigurationError
from modules.domain.instrument import AssetClass
from modules.domain.settings import Settings, VenueSettings
from modules.runtime.clock import WallClock
from modules.venues import factory
from modules.venues.ccxt_venue import CcxtVenue
from modules.venues.oanda_venue import OandaVenue
from tests.builders import shipped_policies


def venue(*classes: str, **changes: Any) -> VenueSettings:
    return VenueSettings.model_validate({"classes": classes, **changes})


@pytest.mark.parametrize(("name", "settings", "reason"), [
    ("kraken", venue("SPOT", key_file="k"), "live trading is refused: ccxt cannot find an order there by client order id"),
    ("bybyt", venue("SPOT", key_file="k"), "Did you mean bybit?"),
    ("someexchange", venue("SPOT", key_file="k"), "live trading is refused: nobody has shown that it can set and find orders by client"),
    ("bybit", venue("FOREX", key_file="k"), "classes: bybit has no FOREX here; it has SPOT, PERP"),
    ("bybit", venue("SPOT", "PERP", key_file="k"), "allocate: SPOT, PERP: classes that share one wallet need an amount each"),
    ("bybit", venue("SPOT"), "key_file: live trading needs the file that holds its key"),
    ("oanda", venue("FOREX", key_file="k"), "account_id: the account's number is needed"),
    ("kraken", venue("SPOT", key_file="k", testnet=True), "testnet: kraken has none that is known here"),
    ("bybit", venue("SPOT", key_file="k", practice=True), "practice: is OANDA's word and does nothing at bybit; say testnet = true"),
    ("bybit", venue("SPOT", key_file="k", testnet=True, endpoint="https://api.bybit.com"), "api.bybit.com would go before testnet"),
    ("oanda", venue("FOREX", key_file="k", account_id="1", practice=True, endpoint="https://api-fxtrade.oanda.com"), "before practice"),
    ("oanda", venue("FOREX", key_file="k", account_id="1", timeframe="7m"), "timeframe: oanda has no bars of 7m; it has 1m, 2m, 4m, 5m"),
])
def test_live_trading_where_something_is_missing_is_refused_by_name(name: str, settings: VenueSettings, reason: str) -> None:
    found = factory.faults(name, settings, trading=True)
    assert any(fault.startswith(f"venues.{name}") and reason in fault for fault in found), found
    with pytest.raises(ConfigurationError, match="venues"):
        factory.connect(name, settings, clock=WallClock(), policies=shipped_policies(), trading=True, symbols=())


def test_a_mistyped_exchange_is_told_which_one_was_meant() -> None:
    with pytest.raises(ConfigurationError, match="ccxt knows no exchange of this name; did you mean kraken"):
        factory.connect("krakenn", venue("SPOT"), clock=WallClock(), policies=shipped_policies(), trading=False, symbols=("BTC/USDT",))


def test_market_data_needs_no_key_but_oandas() -> None:
    for name in factory.KNOWN:
        row = factory.known(name)
        assert bool(factory.faults(name, venue(*row.classes), trading=False)) == (name == "oanda"), name


def test_every_certified_venue_has_a_playground_and_a_short_list_for_each_class() -> None:
    for name, row in factory.KNOWN.items():
        if row.live:
            assert row.testnet is not None, name
            for asset_class in row.classes:
                assert factory.symbols_of(name, venue(asset_class.value)), (name, asset_class)


def test_bars_of_a_length_the_exchange_has_not_are_refused_with_those_it_has() -> None:
    with pytest.raises(ConfigurationError, match=r"venues.bybit.timeframe: bybit has no bars of 7m; it has 1m, 3m, 5m"):
        factory.connect("bybit", venue("SPOT", timeframe="7m"), clock=WallClock(), policies=shipped_policies(), trading=False, symbols=())


def test_only_its_own_playground_and_an_emulator_are_play_money() -> None:
    here = "http://127.0.0.1:18976"
    for settings, place in (
            (venue("SPOT"), factory.PRODUCTION), (venue("SPOT", testnet=True), factory.PLAYGROUND),
            (venue("FOREX", practice=True), factory.PLAYGROUND), (venue("SPOT", testnet=True, endpoint=here), factory.EMULATOR),
            (venue("SPOT", endpoint="https://api-testnet.bybit.com"), factory.PRODUCTION)):
        assert factory.place_of(settings) == place, settings


def test_an_endpoint_of_ones_own_goes_before_testnet_and_plain_text_is_for_loopback_only(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret-token")
    token.chmod(0o600)
    broker = venue("FOREX", key_file=token, account_id="101-001-1", endpoint="http://example.com")
    with pytest.raises(ConfigurationError, match="https is required"):
        factory.connect("oanda", broker, clock=WallClock(), policies=shipped_policies(), trading=False, symbols=("EUR/USD",))


async def test_the_adapters_it_makes_know_their_symbols_and_bar_length(tmp_path: Path) -> None:
    token, key = tmp_path / "token", tmp_path / "key"
    token.write_text("secret-token")
    key.write_text('{"key": "k", "secret": "s"}')
    for path in (token, key):
        path.chmod(0o600)
    clock, policies = WallClock(), shipped_policies()
    broker = factory.connect("oanda", venue("FOREX", key_file=token, account_id="101-001-1", practice=True, timeframe="15m"), clock=clock,
                             policies=policies, trading=True, symbols=("EUR/USD",))
    exchange = factory.connect("bybit", venue("SPOT", key_file=key, timeframe="1h"), clock=clock, policies=policies, trading=True,
                               symbols=("BTC/USDT",))
    assert isinstance(broker, OandaVenue) and isinstance(exchange, CcxtVenue)
    assert (broker.interval_ms("EUR/USD"), exchange.interval_ms("BTC/USDT")) == (900_000, 3_600_000)
    assert exchange.trading and exchange.symbols == ("BTC/USDT",)
    for made in (broker, exchange):
        await made.close()


def test_mode_paper_with_nothing_else_is_spot_and_perpetuals_of_bybit_without_a_key() -> None:
    (name, default), = Settings.model_validate({"mode": "paper"}).venues.items()
    assert (name, default.classes, default.key_file) == ("bybit", (AssetClass.SPOT, AssetClass.PERP), None)
    assert factory.faults(name, default, trading=False) == []
    assert Settings.model_validate({"mode": "demo"}).venues == {}
