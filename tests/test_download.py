"""download-data: what it keeps is what the venue told, each row once, whatever was cut, banned, killed or asked for twice in between."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import config
from modules.backtest.archive_folder import ArchiveFolder, missing, united
from modules.backtest.downloading import fetch, plan
from modules.backtest.gaps import Recorded, holes, outages
from modules.backtest.recorded import RecordedSource
from modules.cli.app import run
from modules.cli.download import connected
from modules.domain.errors import StateLocked, VenueUnreachable
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.settings import VenueSettings
from modules.runtime.clock import WallClock
from modules.venues.archive import Kind, Page, settlement_hours
from modules.venues.ccxt_archive import _candles
from tests.archive_worlds import (
    DAY,
    HOUR,
    MINUTE,
    START,
    binance_past,
    bybit_past,
    bybit_settings,
    candles,
    oanda_settings,
    settings_file,
    threaded,
)
from tests.builders import make_instrument
from tests.daemon_process import ROOT
from tests.emulators import binance, bybit, oanda
from tests.timing import PATIENCE_S

SPOT, PERP = AssetClass.SPOT, AssetClass.PERP
KLINE = "/v5/market/kline"


def candles_of(path: Path) -> list[tuple[int | float, ...]]:
    """A file's bars as the emulators keep theirs."""
    return [(int(row["ts"]), *(float(row[name]) for name in ("open", "high", "low", "close", "volume"))) for row in rows_of(path)]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def download(*words: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["download-data", *words, "--json"]) == code, capsys.readouterr().err
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def from_bybit(folder: Path, venue: bybit.BybitEmulator, symbols: str = "BTC/USDT", since: str = "20260301", until: str = "20260304",
               ) -> list[str]:
    return ["-c", str(bybit_settings(folder, venue)), "--venue", "bybit", "--symbols", symbols, "--since", since, "--until", until, "--out",
            str(folder / "out")]


# -- against the emulated venues ------------------------------------------------------------------------------------------------


def test_what_is_kept_is_what_the_venue_told_and_replay_runs_on_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with bybit_past(spot_BTCUSDT=candles(2_500, without=range(900, 1_100))) as venue:
        words = from_bybit(tmp_path, venue, "BTC/USDT,BTC/USDT:USDT")
        told = download(*words, capsys=capsys)
        truth = venue.market.candles["spot", "BTCUSDT"]
        assert candles_of(tmp_path / "out" / "bybit_BTCUSDT_1m.csv") == [(one[0], *map(float, one[1:])) for one in truth]
        assert [row["funding_rate"] for row in rows_of(tmp_path / "out" / "bybit_BTCUSDT-PERP_funding.csv")] == [
            f"{float(rate)!r}" for _, rate in venue.funding["BTCUSDT"]]
        assert {row["interval_h"] for row in rows_of(tmp_path / "out" / "bybit_BTCUSDT-PERP_funding.csv")} == {"8"}
        assert len(rows_of(tmp_path / "out" / "bybit_BTCUSDT-PERP_1m_mark.csv")) == 2_500
        spot = next(one for one in told["series"] if one["file"] == "bybit_BTCUSDT_1m.csv")
        assert (spot["missing"], spot["gaps"]) == (200, [{"from": "2026-03-02T15:00:00.000Z", "until": "2026-03-02T18:20:00.000Z",
                                                           "bars": 200}])
        assert told["complete"] and told["outages"] == []  # the perpetual traded on: a hole of one series is nobody's outage

        asked = venue.asked[KLINE]
        again = download(*words, capsys=capsys)
        assert venue.asked[KLINE] == asked and all(one["new_rows"] == 0 for one in again["series"]), "known already: not asked for again"

    rules = {one["symbol"]: one for one in json.loads((tmp_path / "out" / "instruments.json").read_text())}
    assert (rules["BTC/USDT"]["tick"], rules["BTC/USDT"]["lot"], rules["BTC/USDT:USDT"]["notional_min"]) == ("0.01", "0.000001", "5")
    source = RecordedSource(tmp_path / "out", costs=None)
    assert {one.symbol: str(one.lot) for one in source.instruments} == {"BTC/USDT": "0.000001", "BTC/USDT:USDT": "0.001"}
    assert run(["replay", "--data", str(tmp_path / "out"), "--json"]) == 0
    replayed = json.loads(capsys.readouterr().out)
    assert replayed["bars"] == 2_300 + 2_500 and replayed["reconciled"]


def test_a_ban_is_waited_out_and_a_cut_answer_asked_for_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with bybit_past() as venue:
        venue.faults += [bybit.Fault("instruments-info", bybit.Reply(how="cut"), False),
                         bybit.Fault(KLINE, bybit.Reply(429, b"too many", headers=(("Retry-After", "1"),)), False),
                         bybit.Fault(KLINE, bybit.Reply(how="cut"), False), bybit.Fault(KLINE, bybit.Reply(how="close"), False)]
        began = time.monotonic()
        told = download(*from_bybit(tmp_path, venue), capsys=capsys)
        assert time.monotonic() - began > 2.0 and not venue.faults
    assert told["complete"] and len(rows_of(tmp_path / "out" / "bybit_BTCUSDT_1m.csv")) == 2_500


def test_killed_in_the_middle_it_shows_no_half_row_and_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with bybit_past(4 * 1_440) as venue:
        words = from_bybit(tmp_path, venue, until="20260306")
        part = tmp_path / "out" / ".download" / "bybit_BTCUSDT_1m.csv.part"
        child = subprocess.Popen([sys.executable, str(ROOT / "main.py"), "download-data", *words], cwd=ROOT, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE)
        deadline = time.monotonic() + 2 * PATIENCE_S
        while not (part.exists() and part.read_bytes().count(b"#") > 2):
            assert child.poll() is None and time.monotonic() < deadline, child.stderr and child.stderr.read()
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not list((tmp_path / "out").glob("*.csv")), "replay sees whole files only"
        before = part.read_bytes()
        certain = before[:before.rindex(b"\n#") + 1].count(b"\n17")
        part.write_bytes(before + b"1772700000000,1000.1,1001")  # and the power went in the middle of a row

        asked = venue.asked[KLINE]
        told = download(*words, capsys=capsys)
        assert told["complete"] and told["series"][0]["new_rows"] == 4 * 1_440
        truth = [(one[0], *map(float, one[1:])) for one in venue.market.candles["spot", "BTCUSDT"]]
        assert candles_of(tmp_path / "out" / "bybit_BTCUSDT_1m.csv") == truth
        assert certain >= 1_000, "what was on disk is not asked for again:"
        assert venue.asked[KLINE] - asked == -(-(4 * 1_440 - certain) // 1_000)
    assert not part.exists()


def test_binance_is_downloaded_the_same_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with binance_past() as venue:
        path = settings_file(tmp_path, "binance", classes=["SPOT", "PERP"], endpoint=venue.url)
        venue.faults.append(binance.Fault("/fapi/v1/klines", binance.Reply(429, b'{"code": -1003, "msg": "Too many requests."}',
                                                                           headers=(("Retry-After", "1"),)), False))
        told = download("-c", str(path), "--venue", "binance", "--symbols", "BTC/USDT,BTC/USDT:USDT", "--since", "20260302", "--until",
                        "20260303", "--out", str(tmp_path / "out"), capsys=capsys)
        assert run(["list-instruments", "-c", str(path), "--venue", "binance", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {one["file"]: one["rows"] for one in told["series"]} == {
        "binance_BTCUSDT_1m.csv": 1_200, "binance_BTCUSDT-PERP_1m.csv": 1_200, "binance_BTCUSDT-PERP_1m_mark.csv": 1_200,
        "binance_BTCUSDT-PERP_funding.csv": 3}
    assert [int(row["ts"]) - START for row in rows_of(tmp_path / "out" / "binance_BTCUSDT-PERP_funding.csv")] == [0, 8 * HOUR, 16 * HOUR]
    assert all(one["spread_ratio"] for one in listed["instruments"]), "perpetuals too, whose list of 24 h figures has no bid and ask"


@pytest.mark.slow
def test_interrupted_by_hand_it_keeps_what_came(tmp_path: Path) -> None:
    with bybit_past() as venue:
        venue.always.append(bybit.Fault("/v5/market/funding", bybit.Reply(how="stall"), False))
        words = from_bybit(tmp_path, venue, "BTC/USDT:USDT")
        child = subprocess.Popen([sys.executable, str(ROOT / "main.py"), "download-data", *words], cwd=ROOT, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True)
        parts = tmp_path / "out" / ".download"
        deadline = time.monotonic() + 2 * PATIENCE_S
        while not (tmp_path / "out" / "bybit_BTCUSDT-PERP_1m.csv").exists() or not venue.asked["/v5/market/funding/history"]:
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130 and "goes on where it was" in said
    assert len(rows_of(tmp_path / "out" / "bybit_BTCUSDT-PERP_1m.csv")) == 2_500 and not list(parts.glob("*.part"))


def test_a_second_writer_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with bybit_past(100) as venue, ArchiveFolder(tmp_path / "out"):
        assert run(["download-data", *from_bybit(tmp_path, venue)]) == 1
        said = capsys.readouterr().err
        assert "another download or import is writing here" in said and str(os.getpid()) in said
        with pytest.raises(StateLocked):
            ArchiveFolder(tmp_path / "out")


def test_what_cannot_be_downloaded_is_refused_before_anything_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with bybit_past(100) as venue:
        assert run(["download-data", *from_bybit(tmp_path, venue, "BTC/USDC")]) == 2
        assert "BTC/USDC: bybit does not list it; did you mean BTC/USDT" in capsys.readouterr().err
        assert run(["download-data", *from_bybit(tmp_path, venue, since="20260309")]) == 4
        assert run(["download-data", *from_bybit(tmp_path, venue), "--timeframe", "7m"]) == 4
        assert "has no bars of 7m; it has 1m," in capsys.readouterr().err
        assert not venue.asked[KLINE]


def test_candles_of_a_broker_keep_bid_and_ask_and_a_weekend_is_no_hole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    friday = START - 3 * DAY + 20 * HOUR
    with threaded(lambda: oanda.serving(friday)) as venue:
        walk = oanda.Walk(7, venue.book.specs)
        quiet = range(70, 80)
        for number in range(5 * 24 * 60):
            at = friday + number * MINUTE
            if (at < friday + 2 * HOUR or at >= START - 2 * HOUR) and number not in quiet:
                venue.book.move(at, walk.step(venue.book.prices))
        words = ["-c", str(oanda_settings(tmp_path, venue)), "--venue", "oanda", "--symbols", "EUR/USD", "--since", "20260227", "--until",
                 "20260303", "--out", str(tmp_path / "out")]
        venue.faults += [oanda.Fault("GET", "/candles", oanda.Reply(429, b"{}", headers=(("Retry-After", "1"),))),
                         oanda.Fault("GET", "/candles", oanda.Reply(how="cut"))]
        told = download(*words, capsys=capsys)
        ticks = venue.book.ticks["EUR_USD"]
        kept = rows_of(tmp_path / "out" / "oanda_EURUSD_1m.csv")
        inside = [tick for tick in ticks if tick[0] < START + DAY]
        assert [(int(row["ts"]), float(row["bid"]), float(row["ask"]), float(row["open_bid"]), row["volume"]) for row in kept] == [
            (at, float(bid), float(ask), float(bid), "") for at, bid, ask in inside]
        bars = told["series"][0]
        assert [gap["bars"] for gap in bars["gaps"]] == [10], "ten quiet minutes on Friday; weekends and rollovers are no holes"
        assert any("CARRY_ABOVE_MAXIMUM" in note for note in told["notes"])
        told = download(*words, "--assume-financing", capsys=capsys)
    assert any("today's" in note for note in told["notes"])
    source = RecordedSource(tmp_path / "out", costs=None)
    first = next(step for step in source.steps() if step.financing)
    assert first.at == source.start and first.financing[0].long_rate == -0.015


# -- a venue that answers as it likes --------------------------------------------------------------------------------------------


@dataclass
class Moody:
    """An archive that gives any non-empty part of what it has: the first rows, the last, or all; now and then nothing, once."""

    times: list[int]
    chance: random.Random
    name: str = "moody"
    asked: list[tuple[int, int]] = field(default_factory=list)
    silent: set[tuple[int, int]] = field(default_factory=set)

    async def offered(self) -> Sequence[Instrument]:
        return ()

    def tells(self, kind: Kind, instrument: Instrument, interval_ms: int) -> bool:
        return kind is Kind.BARS

    def span_ms(self, kind: Kind, instrument: Instrument, interval_ms: int) -> int:
        return 50 * interval_ms

    def step_ms(self, kind: Kind, instrument: Instrument, interval_ms: int) -> int:
        return interval_ms

    async def first(self, instrument: Instrument, since: int) -> int:
        return since

    async def page(self, kind: Kind, instrument: Instrument, interval_ms: int, since: int, until: int) -> Page:
        self.asked.append((since, until))
        found = [at for at in self.times if since <= at < until]
        if found and (since, until) not in self.silent and self.chance.random() < 0.2:
            self.silent.add((since, until))
            return Page([])
        most = self.chance.choice((3, 20, 100))
        part = found[:most] if self.chance.random() < 0.5 else found[-most:]
        return Page([(at, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0) for at in part])

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("seed", range(12))
def test_every_row_comes_once_however_a_venue_pages(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    times = [START + number * MINUTE for number in range(400) if chance.random() < 0.9 and not 120 < number < 190]
    archive, instrument = Moody(times, chance), make_instrument(SPOT)

    async def go(until: int) -> int:
        with ArchiveFolder(tmp_path) as folder:
            jobs, _ = plan(folder, archive, [instrument], MINUTE, START, until, [Kind.BARS])
            (done,) = await fetch(archive, jobs, WallClock(), say=print, advance=lambda job, at: None)
            assert done.failed is None
            return done.merged.rows

    half = START + 200 * MINUTE
    assert asyncio.run(go(half)) == sum(at < half for at in times)
    archive.asked.clear()
    assert asyncio.run(go(START + 400 * MINUTE)) == len(times)
    assert all(since >= half for since, _ in archive.asked), "the first half is known"
    (path,) = tmp_path.glob("*.csv")
    assert [int(row["ts"]) for row in rows_of(path)] == times


def test_a_venue_that_only_keeps_its_last_candles_is_not_asked_for_each_page_before(tmp_path: Path) -> None:
    class Short(Moody):
        async def page(self, kind: Kind, instrument: Instrument, interval_ms: int, since: int, until: int) -> Page:
            self.asked.append((since, until))
            rows = [[at, 1.0, 1.0, 1.0, 1.0, 1.0] for at in self.times[-60:]]
            return _candles(kind, rows, interval_ms, since, until, START + DAY)

    times = [START + number * MINUTE for number in range(1_000)]
    archive = Short(times, random.Random(1))

    async def go() -> int:
        with ArchiveFolder(tmp_path) as folder:
            jobs, _ = plan(folder, archive, [make_instrument(SPOT)], MINUTE, START, START + 1_000 * MINUTE, [Kind.BARS])
            (done,) = await fetch(archive, jobs, WallClock(), say=print, advance=lambda job, at: None)
            return done.merged.rows

    assert asyncio.run(go()) == 60 and len(archive.asked) <= 6


def test_a_venue_that_stops_answering_leaves_the_rest_for_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.backtest.downloading.PATIENCE_S", (0.01, 0.01))

    class Dying(Moody):
        async def page(self, kind: Kind, instrument: Instrument, interval_ms: int, since: int, until: int) -> Page:
            if since > START + 150 * MINUTE:
                raise VenueUnreachable("gone")
            return await super().page(kind, instrument, interval_ms, since, until)

    times = [START + number * MINUTE for number in range(400)]

    async def go(archive: Moody) -> tuple[int, bool]:
        with ArchiveFolder(tmp_path) as folder:
            jobs, _ = plan(folder, archive, [make_instrument(SPOT)], MINUTE, START, START + 400 * MINUTE, [Kind.BARS])
            (done,) = await fetch(archive, jobs, WallClock(), say=print, advance=lambda job, at: None)
            return done.merged.rows, done.failed is not None

    rows, failed = asyncio.run(go(Dying(times, random.Random(1))))
    assert failed and 100 <= rows < 400
    assert asyncio.run(go(Moody(times, random.Random(2)))) == (400, False)


def test_a_file_somebody_changed_is_asked_for_again_and_what_is_there_stays(tmp_path: Path) -> None:
    times = [START + number * MINUTE for number in range(60)]

    async def go() -> tuple[int, int, int]:
        with ArchiveFolder(tmp_path) as folder:
            archive = Moody(times, random.Random(3))
            jobs, _ = plan(folder, archive, [make_instrument(SPOT)], MINUTE, START, START + 60 * MINUTE, [Kind.BARS])
            (done,) = await fetch(archive, jobs, WallClock(), say=print, advance=lambda job, at: None)
            return done.merged.rows, done.merged.fresh, done.merged.differing

    assert asyncio.run(go()) == (60, 60, 0)
    (path,) = tmp_path.glob("*.csv")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:10], lines[10].replace("1.0", "2.0"), *lines[30:]]) + "\n")
    assert asyncio.run(go()) == (60, 19, 1)
    path.unlink()
    assert asyncio.run(go())[:2] == (60, 60)


def test_a_symbol_of_another_venue_needs_another_folder(tmp_path: Path) -> None:
    with ArchiveFolder(tmp_path) as folder:
        folder.list_instruments([make_instrument(SPOT, venue="bybit")])
        folder.check_venue("bybit", [make_instrument(SPOT, venue="bybit")])
        with pytest.raises(Exception, match="rules of bybit; use another folder"):
            folder.check_venue("binance", [make_instrument(SPOT, venue="binance")])


def test_two_bar_lengths_in_one_folder_have_the_same_rules(tmp_path: Path) -> None:
    rules = make_instrument(SPOT, venue="bybit")
    with ArchiveFolder(tmp_path) as folder:
        folder.list_instruments([rules])
        for length in (MINUTE, 5 * MINUTE):
            file = folder.series("bybit", Kind.BARS, rules, length)
            file.add([(START + number * length, *[100.0] * 5, *[500.0] * 5) for number in range(20)], (START, START + 20 * length))
            file.merge()
    found = {one.symbol: one for one in RecordedSource(tmp_path, costs=None).instruments}
    assert set(found) == {rules.symbol, f"{rules.symbol}#bybit-1m"}
    assert {one.tick for one in found.values()} == {rules.tick} and {one.lot for one in found.values()} == {rules.lot}


def test_any_venue_of_ccxt_says_what_history_it_keeps(tmp_path: Path) -> None:
    async def go() -> dict[str, tuple[bool, bool, bool]]:
        clock, policies = WallClock(), config.load_policies(ROOT / "policies")
        found = {}
        for name in ("kraken", "okx", "bitget"):
            settings = VenueSettings(classes=(SPOT,) if name == "kraken" else (SPOT, PERP))
            _, archive = connected(name, settings, policies, clock, ())
            spot, perp = make_instrument(SPOT), make_instrument(PERP)
            found[name] = (archive.tells(Kind.BARS, spot, MINUTE), archive.tells(Kind.BARS, spot, 7 * MINUTE),
                           archive.tells(Kind.FUNDING, perp, MINUTE))
            assert archive.span_ms(Kind.BARS, spot, MINUTE) >= 100 * MINUTE <= archive.span_ms(Kind.BARS, perp, MINUTE)
            await archive.close()
        return found

    assert asyncio.run(go()) == {"kraken": (True, False, False), "okx": (True, False, True), "bitget": (True, False, True)}


# -- small parts --------------------------------------------------------------------------------------------------------------------


def test_spans_are_joined_and_what_is_missing_is_found() -> None:
    assert united([(5, 9), (1, 3), (3, 4), (7, 8), (9, 9)]) == [(1, 4), (5, 9)]
    assert missing((0, 10), [(1, 4), (5, 9)]) == [(0, 1), (4, 5), (9, 10)]
    assert missing((2, 6), [(0, 10)]) == [] and missing((2, 6), []) == [(2, 6)]


def test_a_rate_knows_the_hours_it_was_for() -> None:
    times = [START + hours * HOUR for hours in (0, 8, 16, 20, 24, 40, 48)]
    assert settlement_hours(times, 8) == [8, 8, 8, 4, 4, 8, 8]  # a settlement is missing before the one at hour 40
    assert settlement_hours([START], 4) == [4] and settlement_hours([], 8) == []


def test_a_hole_that_all_series_share_is_an_outage() -> None:
    import numpy as np

    def series(*absent: range) -> Recorded:
        return Recorded(np.array([START + n * MINUTE for n in range(500) if not any(n in one for one in absent)]), MINUTE, SPOT)

    found = {"A": series(range(100, 120), range(300, 302)), "B": series(range(95, 118)), "C": series(range(100, 140))}
    gaps = {name: holes(one) for name, one in found.items()}
    ((hole, names),) = outages(found, gaps)
    assert (hole.since, hole.until, hole.bars) == (START + 100 * MINUTE, START + 118 * MINUTE, 18) and names == ("A", "B", "C")
    alone = {"A": found["A"]}
    assert outages(alone, {"A": gaps["A"]}) == [], "one series proves no outage"
