"""Instruments by rule: the most traded, narrow, old enough ones are chosen, every other one is left out for a reason that is true."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import config
from modules.cli.app import run
from modules.cli.instruments import _row
from modules.domain.errors import ConfigurationError
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.settings import SelectSettings, Settings, VenueSettings, matches
from modules.venues.selection import DAY_MS, Choice, Statistic, choose, symbols_for, usd_volume
from tests.archive_worlds import START, bybit_past, bybit_settings, oanda_settings, settings_file, threaded
from tests.builders import make_instrument
from tests.emulators import oanda

SPOT, PERP, FOREX = AssetClass.SPOT, AssetClass.PERP, AssetClass.FOREX
NOW = START + 400 * DAY_MS
RULE = SelectSettings(number_assets=2, min_value=Decimal(1_000_000), max_spread_ratio=0.002, min_days_listed=30)


def market(symbol: str, asset_class: AssetClass = SPOT) -> Instrument:
    base, _, quote = symbol.partition("/")
    return replace(make_instrument(asset_class, symbol=symbol), base=base, quote=quote.partition(":")[0])


def row(symbol: str, volume: float = 5e6, spread: float = 0.001, days: int | None = 300) -> Statistic:
    return Statistic(symbol, volume, 100.0 * (1 - spread), 100.0, None if days is None else NOW - days * DAY_MS)


def chosen(rows: Sequence[Statistic], rule: SelectSettings = RULE, **options: Any) -> Choice:
    return choose([market(one.symbol, PERP if ":" in one.symbol else SPOT) for one in rows], rows, rule, now=NOW, **options)


def test_the_most_traded_come_first_and_the_rest_is_told_its_place() -> None:
    choice = chosen([row("A/USDT", 3e6), row("B/USDT", 9e6), row("C/USDT", 4e6), row("B/USDT:USDT", 2e6)])
    assert choice.symbols == ("B/USDT", "C/USDT", "B/USDT:USDT"), "each class has its own places"
    assert choice.left_out == {"A/USDT": "place 3 by 24 h volume $3,000,000; number_assets is 2"}


@pytest.mark.parametrize(("one", "reason"), [
    (row("X/USDT", 9e5), "24 h volume $900,000 is below $1,000,000"), (row("X/USDT", math.nan), "its 24 h volume is unknown"),
    (row("X/USDT", spread=0.003), "spread 0.300% is above 0.200%"), (row("X/USDT", spread=math.nan), "its spread is unknown"),
    (Statistic("X/USDT", 5e6, 101.0, 100.0, 0), "its spread is unknown"),
    (row("X/USDT", days=7), "listed 7 days ago; min_days_listed is 30"),
    (row("X/USDT", days=None), "its age is unknown"), (row("X/EUR"), "quoted in EUR, not in USDT, USDC, USD"),
    (row("USDC/USDT"), "on pair_blacklist"), (row("BTC3L/USDT"), "on pair_blacklist"),
])
def test_what_fails_a_rule_or_is_unknown_is_left_out_with_the_reason(one: Statistic, reason: str) -> None:
    assert chosen([one]) == Choice((), {one.symbol: reason})


def test_a_coin_that_only_ends_like_a_leveraged_token_is_none() -> None:
    assert chosen([row("JUP/USDT"), row("SOL/USDT")]).symbols == ("JUP/USDT", "SOL/USDT")


def test_white_and_blacklists_take_shell_patterns_and_freqtrades_expressions() -> None:
    for pattern in ("BTC/USDT", "BTC/*", "BTC/.*", "(BTC|ETH)/.*", "*/USDT"):
        assert matches("BTC/USDT", [pattern]), pattern
    assert not matches("WBTC/USDT", ["BTC/*", "BTC/.*"]) and not matches("BTC/USDT", [".*UP/.*", "BTC"])
    assert not Settings(pair_blacklist=("BTC/.*",)).tradable("BTC/USDT") and Settings(pair_whitelist=("BTC/.*",)).tradable("BTC/USDT")
    rows = [row("BTC/USDT"), row("ETH/USDT"), row("SOL/USDT")]
    listed = RULE.model_copy(update={"pair_whitelist": ("(BTC|ETH)/.*",), "pair_blacklist": ("ETH/*",)})
    assert chosen(rows, listed) == Choice(("BTC/USDT",), {"ETH/USDT": "on pair_blacklist", "SOL/USDT": "not on pair_whitelist"})


@pytest.mark.parametrize(("pattern", "why"), [
    ("DOGE", "no symbol"), ("DOGEUSDT", "no symbol"), ("(DOGE|SHIB/.*", "no regular expression"), ("a b", "no symbol")])
def test_a_pattern_that_could_bar_nothing_is_refused(pattern: str, why: str) -> None:
    for section in (Settings, SelectSettings):
        for name in ("pair_blacklist", "pair_whitelist"):
            with pytest.raises(ValidationError, match=why):
                section.model_validate({name: [pattern]})


def test_what_is_held_is_kept_whatever_the_rule_says() -> None:
    choice = chosen([row("A/USDT"), row("B/USDT", 1.0)], held=["B/USDT", "GONE/USDT"])
    assert choice.symbols == ("A/USDT", "B/USDT", "GONE/USDT") and choice.left_out == {}


def test_forex_is_ranked_by_spread_and_asked_for_neither_volume_nor_age() -> None:
    pairs = [Statistic(symbol, math.nan, bid, ask) for symbol, bid, ask in (
        ("EUR/USD", 1.1, 1.1001), ("USD/TRY", 30.0, 30.3), ("GBP/USD", 1.3, 1.3003), ("USD/JPY", 150.0, 150.01))]
    choice = choose([market(one.symbol, FOREX) for one in pairs], pairs, RULE, now=NOW)
    assert choice.symbols == ("USD/JPY", "EUR/USD")
    assert choice.left_out == {"USD/TRY": "spread 0.990% is above 0.200%", "GBP/USD": "place 3 by spread 0.023%; number_assets is 2"}


def test_equal_figures_give_the_same_choice_in_any_order() -> None:
    rows = [row(f"{name}/USDT") for name in "DACB"]
    assert chosen(rows).symbols == chosen(rows[::-1]).symbols == ("A/USDT", "B/USDT")


def test_only_a_dollar_volume_is_a_volume_in_dollars() -> None:
    assert usd_volume("USDT", 5) == 5.0
    assert all(math.isnan(usd_volume(quote, volume)) for quote, volume in (("BTC", 5.0), ("USDT", None), ("USDT", -1.0), ("USD", True)))


# -- asking a venue -----------------------------------------------------------------------------------------------------------------


@dataclass
class Exchange:
    """A listing whose ages cost one question each."""

    rows: list[Statistic]
    born: dict[str, int | None]
    name: str = "bybit"
    asked: list[str] = field(default_factory=list)

    async def offered(self) -> Sequence[Instrument]:
        return [market(one.symbol) for one in self.rows]

    async def statistics(self) -> Sequence[Statistic]:
        return self.rows

    async def listed_before(self, symbol: str, at: int) -> int | None:
        self.asked.append(symbol)
        born = self.born[symbol]
        return born if born is not None and born <= at else None


def asked_of(venue: Exchange, settings: VenueSettings, held: Sequence[str] = (), **options: Any) -> Choice:
    return asyncio.run(symbols_for(venue, settings, held, now=NOW, **options))


def test_the_age_is_asked_only_of_those_it_could_still_change() -> None:
    volumes = {"A": 9e6, "B": 8e6, "C": 7e6, "D": 6e6, "E": 5e5}
    venue = Exchange([row(f"{name}/USDT", volume, days=None) for name, volume in volumes.items()],
                     {"A/USDT": NOW - 5 * DAY_MS, "B/USDT": NOW - 500 * DAY_MS, "C/USDT": NOW - 90 * DAY_MS, "D/USDT": 0, "E/USDT": 0})
    choice = asked_of(venue, VenueSettings(classes=(SPOT,), select=RULE))
    assert choice.symbols == ("B/USDT", "C/USDT")
    assert venue.asked == ["A/USDT", "B/USDT", "C/USDT"], "D and E could not have been chosen"
    assert choice.left_out["A/USDT"] == "listed 0 days ago; min_days_listed is 30"
    assert choice.left_out["D/USDT"] == "its age is unknown" and choice.left_out["E/USDT"].startswith("24 h volume")


def test_a_fixed_list_must_be_listed_and_the_usual_one_need_not_be() -> None:
    venue = Exchange([row("BTC/USDT"), row("ETH/USDT")], {})
    assert asked_of(venue, VenueSettings(classes=(SPOT,), symbols=("ETH/USDT",)), ["BTC/USDT"]).symbols == ("ETH/USDT", "BTC/USDT")
    with pytest.raises(ConfigurationError, match=r"venues.bybit.symbols: ETC/USDT is not listed there; did you mean ETH/USDT\?"):
        asked_of(venue, VenueSettings(classes=(SPOT,), symbols=("ETC/USDT",)))
    assert asked_of(venue, VenueSettings(classes=(SPOT,)), usual=("SOL/USDT", "BTC/USDT")).symbols == ("BTC/USDT",)


def test_a_restart_that_holds_something_goes_on_without_what_is_listed_no_longer() -> None:
    """Else a delisting keeps the daemon down at its next start, and whatever it holds elsewhere is looked after by nobody."""
    venue = Exchange([row("BTC/USDT"), row("ETH/USDT")], {})
    choice = asked_of(venue, VenueSettings(classes=(SPOT,), symbols=("ETH/USDT", "LUNA/USDT")), ["BTC/USDT"])
    assert choice.symbols == ("ETH/USDT", "BTC/USDT")
    gone = asked_of(venue, VenueSettings(classes=(SPOT,), symbols=("LUNA/USDT",)), ["LUNA/USDT"])
    assert gone.symbols == ("LUNA/USDT",), "what is held is kept, and nobody else's pairs take its place"


def test_a_rule_that_leaves_nothing_is_refused_with_a_way_to_look() -> None:
    with pytest.raises(ConfigurationError, match=r"leaves none of 1 instruments.*list-instruments --venue bybit --all"):
        asked_of(Exchange([row("A/USDT", 1.0)], {}), VenueSettings(classes=(SPOT,), select=RULE))


def test_the_settings_section_takes_the_rule_and_refuses_nonsense(tmp_path: Path) -> None:
    path = settings_file(tmp_path, "bybit", classes=["SPOT"])
    path.write_text(path.read_text() + '[venues.bybit.select]\nnumber_assets = 5\nmax_spread_ratio = 0.001\npair_blacklist = ["DOGE/*"]\n')
    select = config.load_settings([path], {}).venues["bybit"].select
    assert select is not None and (select.number_assets, select.pair_blacklist, select.min_days_listed) == (5, ("DOGE/*",), 30)
    for line in ("number_assets = 0", "max_spread_ratio = 20", 'pair_whitelist = [" "]', "top = 5"):
        settings_file(tmp_path, "bybit", classes=["SPOT"])
        path.write_text(path.read_text() + f"[venues.bybit.select]\n{line}\n")
        with pytest.raises(ConfigurationError):
            config.load_settings([path], {})


# -- the emulated venues ----------------------------------------------------------------------------------------------------------------


def listed(*words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["list-instruments", *words, "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_list_instruments_shows_a_venues_figures_and_the_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with bybit_past(60) as venue:
        path = bybit_settings(tmp_path, venue)
        path.write_text(path.read_text() + '[venues.bybit.select]\nmin_days_listed = 0\npair_blacklist = ["ETH/*"]\n')
        told = listed("-c", str(path), "--venue", "bybit", "--all", capsys=capsys)
    assert told["chosen"] == ["BTC/USDT", "BTC/USDT:USDT"] and told["left_out"] == 2
    figures = {one["symbol"]: one for one in told["instruments"]}
    assert figures["BTC/USDT"]["volume_24h_usd"] == 50_000_000.0 and 0 < figures["BTC/USDT"]["spread_ratio"] < 1e-4
    assert figures["ETH/USDT"]["reason"] == "on pair_blacklist" and not figures["ETH/USDT"]["chosen"]


def test_a_rule_that_leaves_nothing_can_still_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with threaded(lambda: oanda.serving(START)) as venue:
        path = oanda_settings(tmp_path, venue)
        path.write_text(path.read_text() + '[venues.oanda.select]\npair_whitelist = ["XAU/*"]\n')
        told = listed("-c", str(path), "--venue", "oanda", "--all", capsys=capsys)
    assert told["chosen"] == [] and {one["reason"] for one in told["instruments"]} == {"not on pair_whitelist"}


def test_list_instruments_of_a_broker_goes_by_spread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with threaded(lambda: oanda.serving(START)) as venue:
        path = oanda_settings(tmp_path, venue)
        path.write_text(path.read_text() + "[venues.oanda.select]\nnumber_assets = 2\n")
        told = listed("-c", str(path), "--venue", "oanda", "--all", capsys=capsys)
    assert told["chosen"] == ["USD/JPY", "EUR/USD"]
    assert told["instruments"][-1]["reason"] == "place 3 by spread 0.014%; number_assets is 2"


def test_without_a_venue_it_shows_the_demo_market(capsys: pytest.CaptureFixture[str]) -> None:
    told = listed("--class", "spot", capsys=capsys)
    assert told["venue"] == "demo" and {one["asset_class"] for one in told["instruments"]} == {"SPOT"}


def test_a_tiny_lot_is_written_out() -> None:
    shown = _row(make_instrument(lot=Decimal("1E-7")), None, "")
    assert shown["lot"] == "0.0000001"
