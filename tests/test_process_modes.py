"""Paper and live as a user runs them: the real process, its settings file, its control socket, signals; venues on loopback."""

from __future__ import annotations

import shutil
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from modules.domain.events import Filled, FundingBooked, OrderSent, TransferSeen
from modules.domain.instrument import AssetClass
from modules.domain.money import ZERO
from modules.store.journal import Journal
from tests import venue_threads
from tests.emulators import bybit as bybit_emulator
from tests.emulators import oanda as oanda_emulator
from tests.mode_process import Hurry, Modes, certify, changed, installation

D = Decimal


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return installation(tmp_path)


@pytest.fixture
def ended() -> Iterator[list[Modes]]:
    """Whatever a test starts ends with it."""
    started: list[Modes] = []
    yield started
    for process in started:
        process.end()


def bybit_at(url: str, classes: str = '"SPOT"', more: str = "") -> str:
    return f"""
[venues.bybit]
classes = [{classes}]
endpoint = "{url}"
timeframe = "1m"
{more}
"""


ONE_STRATEGY = '[strategies]\nSPOT = ["above"]\nPERP = []\nFOREX = []\n'
BITCOIN = 'symbols = ["BTC/USDT"]'


def facts(process: Modes, *kinds: type) -> list[object]:
    with Journal(process.state / "journal.sqlite", read_only=True) as journal:
        return [fact for _, fact in journal.facts() if isinstance(fact, kinds)]


def test_paper_needs_no_key_fills_on_live_prices_and_sends_nothing_to_the_venue(app: Path, ended: list[Modes]) -> None:
    hurry = Hurry()
    with venue_threads.served(bybit_emulator.serving, hurry.run) as venue:
        process = Modes(app, "paper", ONE_STRATEGY + bybit_at(venue.url, more=BITCOIN))
        ended.append(process)
        process.start()
        process.wait("it has started", process.running)
        assert process.ask("status")["mode"] == "paper"
        process.wait("it has warmed up", process.warm)
        hurry.price = "51000"
        process.wait("a paper position", lambda: process.ask("status")["classes"]["SPOT"]["open_positions"] == 1)
        hurry.price = "50000"
        process.wait("its end", lambda: process.ask("status")["classes"]["SPOT"]["open_positions"] == 0)
        assert "PAPER" in process.out
        assert process.stop() == 0
        bought, sold = (fact.fill for fact in facts(process, Filled))  # type: ignore[attr-defined]
        assert D("51000") < bought.price < D("51100") and D("49900") < sold.price < D("50000")  # the ask, the bid, and modelled slippage
        assert venue.bodies == []
        assert not [path for path in venue.asked if "/market/" not in path]


@pytest.mark.slow
def test_paper_on_two_venues_at_once_and_on_again_after_a_kill(app: Path, ended: list[Modes]) -> None:
    with venue_threads.served(bybit_emulator.serving, Hurry().run) as bybit, venue_threads.oanda() as oanda:
        token = app / "oanda.token"
        token.write_text(oanda_emulator.TOKEN)
        token.chmod(0o600)
        process = Modes(app, "paper", ONE_STRATEGY + bybit_at(bybit.url, '"SPOT", "PERP"') + f"""
[venues.oanda]
classes = ["FOREX"]
account_id = "{oanda_emulator.ACCOUNT}"
key_file = "{token}"
endpoint = "{oanda.url}"
symbols = ["EUR/USD"]
timeframe = "1h"
""")
        ended.append(process)
        process.start()
        process.wait("it has started", process.running)
        process.stop(signal.SIGKILL)
        process.start()
        process.wait("it has started again", process.running)
        shown = process.ask("status")
        assert {name: one["equity"] for name, one in shown["classes"].items()} == {"SPOT": "1000", "PERP": "1000", "FOREX": "1000"}
        assert shown["feeds"].keys() == {"BTC/USDT", "ETH/USDT", "BTC/USDT:USDT", "ETH/USDT:USDT", "EUR/USD"}
        assert process.stop() == 0
        opened = facts(process, TransferSeen)
        assert len(opened) == 3
        assert {method for method, _ in oanda.asked} == {"GET"}


def test_without_a_network_it_says_so_keeps_trying_and_can_be_stopped_at_any_time(app: Path, ended: list[Modes]) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        process = Modes(app, "paper", bybit_at(f"http://127.0.0.1:{reserved.getsockname()[1]}"))
        ended.append(process)
        process.start()
        process.wait("a word about it", lambda: "bybit cannot be reached, again in" in process.out)
        status = process.ask("status")
        assert (status["running"], status["classes"]) == (False, {}) and "bybit cannot be reached" in status["problems"][0]
        asked = process.verb("kill", "spot")
        assert asked.returncode == 0 and "Halted: SPOT" in asked.stdout  # it holds from the start on: tests/test_waiting_start.py
        assert process.stop() == 0
    assert "Traceback" not in process.out


def live_settings(app: Path, url: str) -> str:
    key = app / "bybit.key"
    key.write_text(f"key={bybit_emulator.KEY}\nsecret={bybit_emulator.SECRET}\n")
    key.chmod(0o600)
    changed(app, "funds", funds_on=True)
    certify(app, "above", "SPOT", ["BTC/USDT"])
    return ONE_STRATEGY + bybit_at(url, more=f'{BITCOIN}\nkey_file = "{key}"\nallocate = {{ SPOT = "900" }}')


def test_live_buys_is_killed_comes_back_sells_and_its_books_are_the_venues(app: Path, ended: list[Modes]) -> None:
    hurry = Hurry()
    with venue_threads.served(bybit_emulator.serving, hurry.run) as venue:
        process = Modes(app, "live", live_settings(app, venue.url))
        ended.append(process)
        venue.faults.append(bybit_emulator.Fault("account/wallet-balance", bybit_emulator.Reply(500, b"<html>"), False))
        process.start()
        process.wait("a word about the start", lambda: "the start failed, again in 2 s: bybit" in process.out)
        process.wait("it has started", process.running)
        for folder in ("certificates", "validation"):
            shutil.copytree(app / "state" / folder, app / "elsewhere" / folder)
        asked = venue.asked["/v5/user/query-api"]
        second = process.verb("trade", environment={"BOT__STATE_DIR": "elsewhere"})
        assert second.returncode == 1 and "this account at bybit is traded by another daemon of this machine" in second.stderr
        assert venue.asked["/v5/user/query-api"] == asked  # it was not even asked who we are
        process.wait("it has warmed up", process.warm)

        def resting() -> list[object]:
            return [ticket for ticket in venue.market.orders.values() if ticket.status == "Untriggered"]

        hurry.price = "51000"
        process.wait("a position with a stop under it", lambda: venue.market.wallet.get("BTC", ZERO) > ZERO and len(resting()) == 1)
        process.stop(signal.SIGKILL)
        process.start()
        process.wait("it has started again", process.running)
        process.wait("it has warmed up again", process.warm)
        assert process.ask("status")["classes"]["SPOT"]["open_positions"] == 1
        assert len(resting()) == 1
        hurry.price = "50000"
        process.wait("the exit", lambda: process.ask("status")["classes"]["SPOT"]["open_positions"] == 0)
        process.wait("no stop is left", lambda: resting() == [])
        assert process.stop() == 0

        sent = Counter(fact.client_order_id for fact in facts(process, OrderSent))  # type: ignore[attr-defined]
        created = [body["orderLinkId"] for path, body in venue.bodies if path.endswith("order/create")]
        assert set(sent.values()) == {1} and sorted(created) == sorted(sent)
        # The books, rebuilt from the journal's fills alone, and the venue's own ledger.
        cash, coins = D("10000"), ZERO
        for fact in facts(process, Filled, FundingBooked):
            assert isinstance(fact, Filled)
            fill = fact.fill
            cash -= fill.side.sign * fill.quantity * fill.price + (fill.fee if fill.fee_currency == "USDT" else ZERO)
            coins += fill.side.sign * fill.quantity - (fill.fee if fill.fee_currency == "BTC" else ZERO)
        assert (cash, coins) == (venue.market.wallet["USDT"], venue.market.wallet["BTC"])


def test_live_where_a_capability_is_missing_is_refused_by_name_before_anything_happens(app: Path) -> None:
    process = Modes(app, "live", '[venues.kraken]\nclasses = ["SPOT"]\nkey_file = "k"\n')
    done = process.verb("trade")
    assert done.returncode == 4, done.stderr
    assert "venues.kraken: live trading is refused: ccxt cannot find an order there by client order id" in done.stderr
    assert not process.state.exists()


def test_live_without_switch_or_certificate_is_refused_in_plain_words_before_anything_happens(app: Path) -> None:
    settings = live_settings(app, "http://127.0.0.1:9")
    changed(app, "funds", funds_on=False)
    process = Modes(app, "live", settings)
    done = process.verb("trade")
    assert done.returncode == 4 and "SPOT will open nothing: its funds switches are not on (off: master)" in done.stderr, done.stderr
    assert "go-live spot" in done.stderr and not (process.state / "journal.sqlite").exists()
    changed(app, "funds", funds_on=True)
    for path in (app / "state" / "certificates").iterdir():
        path.unlink()
    done = process.verb("trade")
    assert done.returncode == 4 and "no strategy has a valid certificate" in done.stderr


def test_paper_with_nothing_configured_is_spot_and_perpetuals_of_bybit(app: Path) -> None:
    shown = Modes(app, "paper", "").verb("show-config", "--json")
    assert shown.returncode == 0, shown.stderr
    assert '"bybit"' in shown.stdout and all(f'"{c.value}"' in shown.stdout for c in (AssetClass.SPOT, AssetClass.PERP))
