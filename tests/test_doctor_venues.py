"""`doctor` against emulated venues: what is wrong fails with its remedy, what cannot be asked is a warning, no secret is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modules.cli.app import run
from tests import venue_threads
from tests.daemon_process import ROOT
from tests.emulators.bybit import SECRET

ALLOCATE = 'allocate = { SPOT = "500", PERP = "300" }'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    return tmp_path


def findings(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    capsys.readouterr()
    code = run(["doctor", "--json"])
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err and "Traceback" not in said.err
    return code, {found["what"]: found for found in json.loads(said.out)["findings"]}


def test_a_good_account_at_bybit_is_ok_line_by_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with venue_threads.bybit() as venue:
        venue_threads.bybit_settings(folder, venue, ALLOCATE)
        code, found = findings(capsys)
    for line in (".key_file", " reachable", " account", " wallet", " clock"):
        assert found[f"venues.bybit{line}"]["state"] == "ok", found
    assert code == 0 and "can neither withdraw nor transfer" in found["venues.bybit account"]["said"]
    assert found["venues.bybit key's addresses"]["state"] == "warn" and "any address" in found["venues.bybit key's addresses"]["said"]
    assert "expires in" in found["venues.bybit key's end"]["said"]


def test_a_good_account_at_binance_is_ok_line_by_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with venue_threads.binance() as venue:
        venue_threads.binance_settings(folder, venue)
        code, found = findings(capsys)
    for line in (".key_file", " reachable", " account", " wallet", " clock"):
        assert found[f"venues.binance{line}"]["state"] == "ok", found
    assert code == 0 and "venues.binance key's addresses" in found


def test_a_key_that_may_withdraw_fails_and_names_the_right(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with venue_threads.bybit() as venue:
        venue.rights["Wallet"] = ["Withdraw"]
        venue_threads.bybit_settings(folder, venue, ALLOCATE)
        code, found = findings(capsys)
    assert code == 1 and found["venues.bybit account"]["state"] == "fail" and "Withdraw" in found["venues.bybit account"]["said"]


def test_a_clock_that_is_seconds_off_fails_with_both_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with venue_threads.bybit() as venue:
        venue.skew_ms = -4_000
        venue_threads.bybit_settings(folder, venue, ALLOCATE)
        code, found = findings(capsys)
    clock = found["venues.bybit clock"]
    assert code == 1 and clock["state"] == "fail" and clock["said"].startswith(("+3,", "+4,")) and "set-ntp" in clock["remedy"]


def test_a_misspelled_symbol_and_unshared_money_are_told_before_the_start(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with venue_threads.bybit() as venue:
        venue_threads.bybit_settings(folder, venue, "")
        code, found = findings(capsys)
        assert code == 1 and "allocate" in found["venues.bybit"]["said"]
        path = venue_threads.bybit_settings(folder, venue, ALLOCATE)
        path.write_text(path.read_text().replace('"BTC/USDT",', '"BTC/USTD",'))
        code, found = findings(capsys)
    assert code == 1 and "did you mean BTC/USDT?" in found["venues.bybit.symbols"]["said"]


def test_a_class_that_the_list_leaves_without_an_instrument_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with venue_threads.bybit() as venue:
        path = venue_threads.bybit_settings(folder, venue, ALLOCATE)
        path.write_text(path.read_text().replace(', "BTC/USDT:USDT"', ""))
        code, found = findings(capsys)
    assert code == 0 and found["venues.bybit PERP"]["state"] == "warn" and "trade nothing" in found["venues.bybit PERP"]["said"]
    assert "venues.bybit SPOT" not in found


def test_without_a_network_doctor_warns_and_ends(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with venue_threads.bybit() as venue:
        venue_threads.bybit_settings(folder, venue, ALLOCATE)
    code, found = findings(capsys)
    assert code == 0 and found["venues.bybit reachable"]["state"] == "warn" and "network" in found["venues.bybit reachable"]["remedy"]
    assert "venues.bybit account" not in found


def test_oanda_is_asked_for_its_account_and_its_time(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with venue_threads.oanda() as venue:
        path = venue_threads.oanda_settings(folder, venue)
        code, found = findings(capsys)
        for line in (".key_file", " reachable", " account", " wallet", " clock"):
            assert found[f"venues.oanda{line}"]["state"] == "ok", found
        assert code == 0 and "10,000.00 USD" in found["venues.oanda wallet"]["said"]
        assert "its rights are not told" in found["venues.oanda account"]["said"], "OANDA tells nobody what a token may do"
        path.write_text(path.read_text() + 'settlement = "EUR"\n')
        code, found = findings(capsys)
    assert code == 1 and "set venues.oanda.settlement" in found["venues.oanda account"]["said"]


def test_a_wrong_token_fails_and_is_not_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with venue_threads.oanda() as venue:
        venue_threads.oanda_settings(folder, venue)
        (folder / "oanda.key").write_text("another-token-altogether\n")
        code, found = findings(capsys)
    assert code == 1 and "fail" in {found[name]["state"] for name in found if name.startswith("venues.oanda")}
    assert "another-token" not in json.dumps(found)
    assert any("for this account number" in found[name]["remedy"] for name in found if name.startswith("venues.oanda"))


def test_what_only_oanda_has_is_not_taken_for_a_testnet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`practice = true` did nothing at Bybit, and doctor called it a testnet: drill would have traded real money without asking."""
    (folder / "bybit.key").write_text("key=aaaaaaaa\nsecret=bbbbbbbb\n")
    (folder / "bybit.key").chmod(0o600)
    (folder / "config.toml").write_text(
        f'mode = "paper"\n[venues.bybit]\nclasses = ["SPOT"]\npractice = true\nkey_file = "{folder / "bybit.key"}"\n')
    code, found = findings(capsys)
    assert code == 1 and "does nothing at bybit; say testnet = true" in found["venues.bybit"]["said"]
    assert run(["drill", "spot"]) == 4 and "practice" in capsys.readouterr().err


def test_a_venue_without_the_capability_is_refused_for_live_by_its_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "k.key").write_text("key=aaaaaaaa\nsecret=bbbbbbbb\n")
    (folder / "k.key").chmod(0o600)
    (folder / "config.toml").write_text(f'mode = "live"\n[venues.kraken]\nclasses = ["SPOT"]\nkey_file = "{folder / "k.key"}"\n')
    code, found = findings(capsys)
    assert code == 1 and "client order id" in found["venues.kraken"]["said"] and "list-venues" in found["venues.kraken"]["remedy"]
