"""`drill` on emulated accounts: every step is seen at the venue itself, and a fault in the middle leaves nothing behind or says what."""

from __future__ import annotations

import asyncio
import io
import json
import stat
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from modules.cli import drill as verb
from modules.cli.app import run
from modules.domain.errors import OperatorRefused
from modules.domain.instrument import AssetClass
from modules.domain.settings import VenueSettings
from modules.store.lock import AccountLock, StateFolder
from modules.venues import drill, factory
from tests import venue_threads
from tests.bybit_worlds import PERP, SPOT
from tests.bybit_worlds import bybit as bybit_world
from tests.daemon_process import ROOT
from tests.emulators.bybit import KEY, SECRET, BybitEmulator, Fault, Reply, coded
from tests.emulators.oanda import Fault as OandaFault
from tests.emulators.oanda import Reply as OandaReply
from tests.test_oanda_venue import Desk, desk
from tests.timing import STORY_S

D = Decimal
STEPS = ["account", "flat before", "price", "far limit order", "query by our id", "cancel", "minimum buy", "stop at the venue",
         "stop seen resting", "cancel the stop", "sell", "flat again"]
PACE = drill.Pace(30.0, 0.02)
BRIEF = drill.Pace(2.0, 0.02)
"""Where the venue will never say what it must."""
REJECTED = coded(170131, "Insufficient balance.")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    return tmp_path


def drilled(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    capsys.readouterr()
    code = run(["drill", *words, "--json"])
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err and "Traceback" not in said.err
    return code, json.loads(said.out) if said.out else {}, said.err


def held(venue: BybitEmulator) -> Decimal:
    return sum((abs(holding.size) for holding in venue.market.holdings.values()), D(0)) + venue.market.wallet.get("BTC", D(0))


def at_bybit(symbol: str, prepare: Callable[[BybitEmulator], None] = lambda _: None, after: str = "price",
             pace: drill.Pace = PACE) -> tuple[drill.Outcome, BybitEmulator]:
    """One drill on an emulated Bybit that `prepare` spoils once the step `after` is done ("": before); nothing of ours may be working there
    at the end unless it is named."""

    async def go() -> tuple[drill.Outcome, BybitEmulator]:
        async with asyncio.timeout(STORY_S), bybit_world() as (venue, made):
            if not after:
                prepare(venue)
            instrument = next(one for one in await made.instruments() if one.symbol == symbol)
            outcome = await drill.Drill(
                made, made, instrument, made.clock, lambda step: prepare(venue) if step.name == after else None, pace).run()
            open_orders = [ticket.link for ticket in venue.market.orders.values() if ticket.open]
            assert all(any(link in words for words in outcome.left) for link in open_orders), (open_orders, outcome)
            return outcome, venue

    return asyncio.run(go())


def failed_at(outcome: drill.Outcome) -> str:
    assert not outcome.passed
    return next(step.name for step in outcome.steps if not step.ok)


# -- it passes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asset_class", ["spot", "perp"])
def test_a_drill_at_bybit_passes_every_step_and_is_kept_for_its_owner(
        folder: Path, capsys: pytest.CaptureFixture[str], asset_class: str) -> None:
    with venue_threads.bybit() as venue:
        venue_threads.bybit_settings(folder, venue)
        code, document, err = drilled(capsys, asset_class)
        lost, coins = D(10_000) - venue.market.wallet["USDT"], held(venue)
    assert (code, document.get("passed"), document.get("left")) == (0, True, []), (document, err)
    assert [step["step"] for step in document["steps"]] == STEPS and all(step["ok"] for step in document["steps"])
    assert D(document["cost"]) == lost > 0  # to the last digit what the venue's own ledger lost
    assert coins < D("0.000001")  # less than a lot
    path = Path(document["file"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and json.loads(path.read_text())["place"] == "emulator"
    assert SECRET not in path.read_text() and err.count("\nok  ") + err.startswith("ok  ") == len(STEPS)
    (kept,) = verb.kept(folder / "state", "bybit", AssetClass(asset_class.upper()))
    assert kept["passed"] and kept["endpoint"] == venue.url


@pytest.mark.slow  # ccxt keeps to the pace that Binance allows
@pytest.mark.parametrize("asset_class", ["spot", "perp"])
def test_a_drill_at_binance_passes_every_step(folder: Path, capsys: pytest.CaptureFixture[str], asset_class: str) -> None:
    with venue_threads.binance() as venue:
        venue_threads.binance_settings(folder, venue)
        code, document, err = drilled(capsys, asset_class)
    assert (code, document.get("left")) == (0, []) and [step["step"] for step in document["steps"]] == STEPS, (document, err)


def test_a_drill_at_oanda_passes_every_step(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with venue_threads.oanda() as venue:
        venue_threads.oanda_settings(folder, venue)
        code, document, err = drilled(capsys, "forex")
        lost, position = D(10_000) - venue.book.balance, venue.book.position("EUR_USD")
    assert (code, document.get("left")) == (0, []) and [step["step"] for step in document["steps"]] == STEPS, (document, err)
    assert position == 0 and D(document["cost"]) == lost > 0


def test_the_cheapest_instrument_is_taken() -> None:
    async def go() -> str:
        async with asyncio.timeout(STORY_S), bybit_world() as (_, made):
            found = drill.cheapest([one for one in await made.instruments() if ":" in one.symbol], await made.statistics())
            return "" if found is None else found[0].symbol

    assert asyncio.run(go()) == "ETH/USDT:USDT"  # $25 a lot, not $50
    assert drill.cheapest([], []) is None


# -- it refuses -----------------------------------------------------------------------------------------------------------------


def test_it_refuses_while_a_daemon_or_a_halt_file_holds_the_account(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with venue_threads.bybit() as venue:
        venue_threads.bybit_settings(folder, venue)
        with AccountLock("bybit", f"{KEY} {venue.url}"):
            code, _, err = drilled(capsys, "spot")
            assert code == 1 and "bybit" in err
        with StateFolder(folder / "state" / "live") as state:
            code, _, err = drilled(capsys, "spot")
            assert code == 1 and "running process" in err
        state.halt_file.touch()
        code, _, err = drilled(capsys, "spot")
        assert code == 1 and "HALT" in err and not venue.market.orders


def test_real_money_needs_the_switches_and_then_a_yes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with venue_threads.bybit() as venue:
        path = venue_threads.bybit_settings(folder, venue)
        path.write_text(path.read_text().replace(f'endpoint = "{venue.url}"', ""))
        code, _, err = drilled(capsys, "spot")
    assert code == 1 and "funds switches forbid" in err and "go-live spot" in err
    real = verb.Ground("bybit", VenueSettings(classes=(AssetClass.SPOT,)), factory.PRODUCTION)
    with pytest.raises(OperatorRefused, match="--confirm"):
        verb.ask(real, "buy and sell something")  # nobody sits at a test's stdin
    tunnel = verb.Ground("bybit", VenueSettings(classes=(AssetClass.SPOT,), endpoint="http://127.0.0.1:8080"), factory.EMULATOR)
    verb.ask(tunnel, "buy and sell something")
    assert "http://127.0.0.1:8080 is on this machine, so it is taken for an emulator" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_is_asked_at_an_address_on_this_machine_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tunnel = verb.Ground("bybit", VenueSettings(classes=(AssetClass.SPOT,), endpoint="http://127.0.0.1:8080"), factory.EMULATOR)
    for answer in ("no", "yes"):
        monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
        with pytest.raises(OperatorRefused, match="nothing was sent"):
            verb.ask(tunnel, "buy and sell something")
    monkeypatch.setattr("sys.stdin", Terminal("drill\n"))
    verb.ask(tunnel, "buy and sell something")
    monkeypatch.setattr("sys.stdin", Terminal(""))
    verb.ask(verb.Ground("bybit", VenueSettings(classes=(AssetClass.SPOT,), testnet=True), factory.PLAYGROUND), "play")


def test_testnet_and_a_class_nobody_trades_are_told_in_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with venue_threads.bybit() as venue:
        venue_threads.bybit_settings(folder, venue)
        assert "--testnet" in drilled(capsys, "spot", "--testnet")[2]  # it names an endpoint already
        code, _, err = drilled(capsys, "forex")
        assert code == 2 and "trades FOREX" in err and not venue.market.orders


def test_an_instrument_that_is_not_flat_is_left_alone(folder: Path) -> None:
    def owner_is_long(venue: BybitEmulator) -> None:
        venue.market.holdings["linear", "BTCUSDT"].size = D("0.5")

    outcome, venue = at_bybit(PERP, owner_is_long, after="")
    assert failed_at(outcome) == "flat before" and not venue.market.orders and venue.market.holdings["linear", "BTCUSDT"].size == D("0.5")


def test_the_owners_coins_are_never_sold() -> None:
    def owner_has_coins(venue: BybitEmulator) -> None:
        venue.market.wallet["BTC"] = D("0.75")

    outcome, venue = at_bybit(SPOT, owner_has_coins, after="")
    assert outcome.passed and D("0.75") <= venue.market.wallet["BTC"] < D("0.750001")


# -- faults in the middle -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", [SPOT, PERP])
@pytest.mark.parametrize(("after", "step"), [
    ("price", "far limit order"), ("cancel", "minimum buy"), ("minimum buy", "stop at the venue"), ("cancel the stop", "sell")])
@pytest.mark.parametrize(("reply", "accepted"), [(REJECTED, False), (Reply(how="close"), True)], ids=["refused", "reply lost"])
def test_a_fault_at_any_order_is_cleaned_up(symbol: str, after: str, step: str, reply: Reply, accepted: bool) -> None:
    outcome, venue = at_bybit(symbol, lambda venue: venue.faults.append(Fault("order/create", reply, accepted)), after)
    assert failed_at(outcome) == step and outcome.left == () and outcome.steps[-1].name == "cleaned up"
    assert held(venue) < D("0.000001"), "something is still held"


def test_an_order_that_nobody_knows_of_is_named_with_its_id_and_what_to_do() -> None:
    outcome, _ = at_bybit(SPOT, lambda venue: venue.faults.append(Fault("order/create", Reply(how="close"), False)), pace=BRIEF)
    (left,) = outcome.left
    assert "order tb" in left and "by hand" in left and "does not know it" in left


def test_a_stop_that_fires_at_once_fails_the_drill() -> None:
    """The trap that a parameter nobody understands makes of a stop: a market order. What it protected is gone, nothing else is."""

    def prepare(venue: BybitEmulator) -> None:
        real = venue.market.create

        def create(body: dict[str, Any]) -> Any:
            return real({name: value for name, value in body.items() if not name.startswith("trigger")})

        venue.market.create = create  # type: ignore[method-assign]

    outcome, venue = at_bybit(PERP, prepare)
    assert failed_at(outcome) == "stop seen resting" and outcome.left == () and held(venue) == 0


def test_an_interrupted_drill_cleans_up(folder: Path) -> None:
    async def go() -> tuple[drill.Outcome, BybitEmulator]:
        async with asyncio.timeout(STORY_S), bybit_world() as (venue, made):
            instrument = next(one for one in await made.instruments() if one.symbol == PERP)

            def stop_after_the_buy(step: drill.Step) -> None:
                if step.name == "minimum buy":
                    task.cancel()

            task = asyncio.create_task(drill.Drill(
                made, made, instrument, made.clock, stop_after_the_buy, PACE).run())
            return await task, venue

    outcome, venue = asyncio.run(go())
    assert failed_at(outcome) == "interrupted" and outcome.left == () and held(venue) == 0


@pytest.mark.parametrize(("fault", "step"), [
    (OandaFault("POST", "/orders", OandaReply(how="close"), accepted=True), "far limit order"),
    (OandaFault("PUT", "/cancel", OandaReply(500, b"{}")), "cancel"),
])
def test_a_fault_at_oanda_is_cleaned_up(fault: OandaFault, step: str) -> None:
    async def talk(found: Desk) -> drill.Outcome:
        found.emulator.faults.append(fault)
        instrument = next(one for one in await found.venue.instruments() if one.symbol == "EUR/USD")
        outcome = await drill.Drill(found.venue, found.venue, instrument, found.clock, lambda _: None, PACE).run()
        assert found.book.position("EUR_USD") == 0 and not [row for row in found.book.orders.values() if row["state"] == "PENDING"]
        return outcome

    async def go() -> drill.Outcome:
        async with asyncio.timeout(STORY_S), desk() as found:
            return await talk(found)

    outcome = asyncio.run(go())
    assert failed_at(outcome) == step and outcome.left == ()


def test_a_closed_market_fails_in_the_brokers_words_and_leaves_nothing() -> None:
    async def go() -> drill.Outcome:
        async with asyncio.timeout(STORY_S), desk() as found:
            found.book.halted.add("EUR_USD")
            instrument = next(one for one in await found.venue.instruments() if one.symbol == "EUR/USD")
            return await drill.Drill(found.venue, found.venue, instrument, found.clock, lambda _: None, PACE).run()

    outcome = asyncio.run(go())
    assert not outcome.passed and outcome.left == () and "HALT" in next(step.said for step in outcome.steps if not step.ok)
