"""import-data: other programs' files become ours without losing a row, and a bad file is one clear error with its row and a remedy."""

from __future__ import annotations

import csv
import gzip
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modules.backtest.archive_folder import ArchiveFolder
from modules.backtest.feather import read_feather
from modules.backtest.importing import take
from modules.backtest.importing_names import Passed, Source, survey
from modules.backtest.recorded import RecordedSource
from modules.cli.app import run
from modules.domain.errors import ConfigurationError, DataError
from modules.domain.instrument import AssetClass
from modules.venues.archive import Kind
from tests.archive_worlds import HOUR, MINUTE, START, bybit_past, bybit_settings

FOREIGN = Path(__file__).parent / "foreign"
NAMES = ("open", "high", "low", "close", "volume")


def imported(source: Path, out: Path, *words: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["import-data", str(source), "--out", str(out), *words, "--json"]) == code
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def rows_of(path: Path) -> list[tuple[int, ...]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return [tuple(float(row[name] or "nan") if name != "ts" else int(row["ts"]) for name in ("ts", *NAMES))  # type: ignore[misc]
                for row in csv.DictReader(handle)]


def fault_of(name: str, content: str | bytes, folder: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of one bad file; nothing is written of it."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    told = imported(path, folder / "out", *words, capsys=capsys, code=1)
    assert not list((folder / "out").glob("*.csv")), "nothing of a faulty file"
    ((fault),) = told["faults"]
    assert name in fault["fault"]
    return str(fault["fault"])


def candle_lines(count: int, form: str = "{at},{o},{h},{l},{c},{v}", *, step: int = HOUR, scale: float = 1.0) -> list[str]:
    found = []
    for number in range(count):
        price = 100.0 + number
        found.append(form.format(at=int((START + number * step) * scale), o=price, h=price + 2, l=price - 1, c=price + 1, v=number + 0.5))
    return found


TRUTH = [(START + number * HOUR, 100.0 + number, 102.0 + number, 99.0 + number, 101.0 + number, number + 0.5) for number in range(30)]


# -- freqtrade ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "expected"), [("BTC_USDT-5m.feather", "BTC_USDT-5m"),
                                                ("futures/BTC_USDT_USDT-1h-futures.feather", "BTC_USDT_USDT-1h")])
def test_feather_reads_as_arrow_itself_wrote_it(name: str, expected: str) -> None:
    found = read_feather(FOREIGN / "binance" / name)
    with (FOREIGN / f"{expected}.expected.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    times = np.array([row["date"].removesuffix("+00:00").replace(" ", "T") for row in rows], dtype="M8[ms]").astype(np.int64)
    assert found["date"].tolist() == times.tolist()
    for column in NAMES:
        assert found[column].tolist() == [float(row[column]) for row in rows], column


def test_a_folder_of_freqtrade_becomes_one_that_replay_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "user_data" / "data" / "binance"
    shutil.copytree(FOREIGN / "binance", source)
    rows = [[at, *numbers] for at, *numbers in TRUTH]
    (source / "ETH_USDT-1h.json").write_text(json.dumps(rows))
    (source / "SOL_USDT-1h.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    (source / "ETH_BTC-1h.json").write_text(json.dumps(rows))
    (source / "BTC_USDT-trades.feather").write_bytes(b"")
    (source / "ADA_USDT-1h.feather").write_bytes((source / "BTC_USDT-5m.feather").read_bytes()[:3_000])
    told = imported(tmp_path / "user_data", tmp_path / "out", capsys=capsys, code=1)
    assert {one["file"]: (one["rows"], one["new_rows"], one["missing"]) for one in told["files"]} == {
        "binance_BTCUSDT_5m.csv": (26, 26, 4), "binance_ETHUSDT_1h.csv": (30, 30, 0), "binance_SOLUSDT_1h.csv": (30, 30, 0),
        "binance_BTCUSDT-PERP_1h.csv": (25, 25, 0), "binance_BTCUSDT-PERP_1h_mark.csv": (25, 25, 0),
        "binance_BTCUSDT-PERP_funding.csv": (3, 3, 0)}
    assert [Path(one["file"]).name for one in told["left_alone"]] == ["BTC_USDT-trades.feather", "ETH_BTC-1h.json"]
    ((fault),) = told["faults"]
    assert fault["fault"].startswith("ADA_USDT-1h.feather: is cut off or not feather") and "copy or download it again" in fault["fault"]
    assert rows_of(tmp_path / "out" / "binance_ETHUSDT_1h.csv") == TRUTH == rows_of(tmp_path / "out" / "binance_SOLUSDT_1h.csv")

    (source / "ADA_USDT-1h.feather").unlink()
    again = imported(tmp_path / "user_data", tmp_path / "out", capsys=capsys)
    assert all(one["new_rows"] == 0 for one in again["files"]), "the same files twice change nothing"

    loaded = {one.instrument.symbol: one for one in RecordedSource(tmp_path / "out", costs=None).recordings}
    assert set(loaded) == {"BTC/USDT", "ETH/USDT", "SOL/USDT", "BTC/USDT:USDT"}
    perp = loaded["BTC/USDT:USDT"]
    assert perp.marks is not None and perp.funding is not None and perp.instrument.funding_interval_h == 8
    assert perp.funding.columns["funding_rate"].tolist() == [0.0001, -0.00005, 0.0002]
    assert perp.funding.ts.tolist() == [1_704_067_200_000 + hours * HOUR for hours in (0, 8, 16)], "booked some ms late: made on the hour"


def test_damaged_feather_is_an_error_and_never_a_crash(tmp_path: Path) -> None:
    whole = (FOREIGN / "binance" / "BTC_USDT-5m.feather").read_bytes()
    chance, path, refused = random.Random(5), tmp_path / "BTC_USDT-5m.feather", 0
    for number in range(150):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 3))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged[:chance.randrange(len(damaged))] if number % 5 == 0 else damaged)
        try:
            read_feather(path)
        except DataError as error:
            refused += 1
            assert "BTC_USDT-5m.feather: " in str(error)
    assert refused > 40


FIRST, SECOND = "[[1772409600000, 1, 2, 0.5, 1.5, 3], ", "row 2 (2026-03-02 01:00): "


@pytest.mark.parametrize(("name", "content", "said"), [
    ("BTC_USDT-1h.json", f"{FIRST}[1772413200000, 1, 2", "is no JSON (is the file cut off?)"),
    ("BTC_USDT-1h.json", f"{FIRST}[1772413200000, 1, 2, 0.5, 1.5]]", "row 2: "),
    ("BTC_USDT-1h.json", f"{FIRST}[1772413200000, null, 2, 0.5, 1.5, 3]]", f"{SECOND}open is not"),
    ("BTC_USDT-1h.json", f"{FIRST}[1772413200000, 1, 2, 2.5, 1.5, 3]]", f"{SECOND}high 2.0 is below"),
    ("BTC_USDT-1h.json", f"{FIRST}[1772409600000, 1, 2, 0.5, 1.6, 3]]", "the same time twice"),
    ("BTC_USDT-1h.json", "{}", "is no list of candles"), ("BTC_USDT-1h.json", "[]", "holds no rows"),
    ("BTC_USDT-1h.json.gz", gzip.compress(b"[[1772409600000, 1, 2, 0.5, 1.5, 3]]", mtime=0)[:-9], "cannot be read (EOFError"),
    ("BTC_USDT-1h.feather", b"FEA1", "is feather of version 1"), ("BTC_USDT-1h.feather", b"", "is empty"),
    ("BTC_USDT-1h.h5", b"x", "freqtrade convert-data"),
    ("BTC_USDT_USDT-8h-funding_rate.json", "[[1772409600000, 0.01, 0, 0, 0, 0], [1772438400000, 3.5, 0, 0, 0, 0]]",
     "row 2 (2026-03-02 08:00): its rate"),
])
def test_a_bad_file_of_freqtrade_is_one_clear_error(
        name: str, content: str | bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in fault_of(name, content, tmp_path, capsys=capsys)


# -- CSV ------------------------------------------------------------------------------------------------------------------------------

ISO = [f"2026-03-{2 + number // 24:02d} {number % 24:02d}:00:00" for number in range(30)]


def dated(form: str, times: list[str]) -> list[str]:
    return [line.replace("@", at) for line, at in zip(candle_lines(30, form), times, strict=True)]


@pytest.mark.parametrize(("name", "lines"), [
    ("BTCUSDT-1h.csv", ["ts,open,high,low,close,volume", *candle_lines(30)]),
    ("BTCUSDT-1h.csv", ["timestamp,open,high,low,close,volume", *candle_lines(30, scale=0.001)]),
    ("BTCUSDT-1h.csv", ["Date,Open,High,Low,Close,Volume", *dated("@,{o},{h},{l},{c},{v}", ISO)]),
    ("BTCUSDT-1h.csv", ["Date;Open;High;Low;Close;Volume", *dated("@;{o};{h};{l};{c};{v}", [f"{at}+00:00" for at in ISO])]),
    ("BTC-USDT_1h.txt", ["<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>", *dated(
        "@\t{o}\t{h}\t{l}\t{c}\t9\t{v}\t1", [at.replace("-", ".").replace(" ", "\t") for at in ISO])]),
    ("BTCUSDT_H1.csv", dated("@,{o},{h},{l},{c},{v}", [at[:16].replace("-", ".").replace(" ", ",") for at in ISO])),
    ("BTCUSDT-1h-2026-03.csv", candle_lines(30, "{at},{o},{h},{l},{c},{v},1772413199999,5.0,3,1.0,2.0,0")),
    ("BTCUSDT-1h-2026-03.csv", candle_lines(30, "{at}000,{o},{h},{l},{c},{v},1772413199999000,5.0,3,1.0,2.0,0")),
    ("Binance_BTCUSDT_1h.csv", ["https://somewhere.example", "Unix,Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USDT,tradecount",
                                *reversed(candle_lines(30, "{at},whenever,BTCUSDT,{o},{h},{l},{c},{v},7.0,4"))]),
    ("BTCUSDT-1h.csv", ["Gmt time,Open,High,Low,Close,Volume", *dated(
        "@,{o},{h},{l},{c},{v}", [f"{at[8:10]}.03.2026 {at[11:]}.000" for at in ISO])]),
    ("BTCUSDT_1h.csv", dated("@;{o};{h};{l};{c};{v}", [at.replace("-", "").replace(":", "") for at in ISO])),
], ids=["ms", "seconds", "dates", "zone", "mt5", "mt4", "binance", "microseconds", "newest-first", "dukascopy", "histdata"])
def test_a_csv_is_read_however_its_author_wrote_it(
        name: str, lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    told = imported(tmp_path / name, tmp_path / "out", capsys=capsys)
    assert told["files"][0]["rows"] == 30
    (path,) = (tmp_path / "out").glob("*_BTCUSDT_1h.csv")
    assert rows_of(path) == TRUTH


def test_it_may_be_packed_wide_or_marked_and_named_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\r\n".join(["time,o,h,l,c,v", *candle_lines(30)]) + "\r\n"
    for number, raw in enumerate((text.encode("utf-16"), text.encode("utf-8-sig"), gzip.compress(text.encode()))):
        path = tmp_path / f"{number}" / f"export{'.csv.gz' if number == 2 else '.csv'}"
        path.parent.mkdir()
        path.write_bytes(raw)
        words = ("--symbol", "ETH/USDT:USDT", "--timeframe", "1h", "--venue", "bybit")
        imported(path, path.parent / "out", *words, capsys=capsys)
        assert rows_of(path.parent / "out" / "bybit_ETHUSDT-PERP_1h.csv") == TRUTH


@pytest.mark.parametrize(("lines", "said"), [
    (["ts,open,high,low,close,volume", *candle_lines(5), "1772427600000,105,107"], "row 7 has 3 columns, not 6 (is the file cut off?)"),
    (["ts,open,high,low,close,volume", *candle_lines(5), "1772427600000,105,107,104,abc,1"], "row 7: close is 'abc', which is no number"),
    (["date,open,high,low,close,volume", "2026-03-02,1,2,0.5,1,1", "03/04/2026,1,2,0.5,1,1"], "row 3: its time '03/04/2026'"),
    (["date,open,high,low,close,volume", "03/02/2026,1,2,0.5,1,1", "03/04/2026,1,2,0.5,1,1"], "row 2: its time"),
    (["open,high,low,close,volume", "1,2,0.5,1,1"], "row 1 names no time column"),
    (["ts;open;high;low;close;volume", "1772409600000;1,5;2,5;0,5;1,0;3", "1772413200000;1,5;2,5;0,5;1,0;3"], "decimal point"),
    (["ts,open,high,low,close,volume"], "holds no rows"), ([""], "is empty"),
    (["ts,open,high,low,close,close,volume", "1,2,3,4,5,6,7"], "more than one column for close"),
    (["ts,open,high,low,close,volume", "1772413199999,1,2,0.5,1,1", "1772416799999,1,2,0.5,1,1"], "they are when bars closed"),
    (["ts,open,high,low,close,volume", *candle_lines(3), candle_lines(1)[0]], "time runs backward"),
    (["ts,open,high,low,close,volume", *candle_lines(3), candle_lines(3)[2].replace("103.0", "103.5")], "the same time twice"),
    (["ts,open,high,low,close,volume", *candle_lines(4, step=MINUTE)], "its name says 1h but its bars are 1m apart"),
])
def test_a_bad_csv_is_one_clear_error_with_its_row(
        lines: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in fault_of("BTCUSDT-1h.csv", "\n".join(lines) + "\n", tmp_path, capsys=capsys)


def test_a_file_whose_name_tells_nothing_wants_its_symbol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = fault_of("prices.csv", "\n".join(["ts,open,high,low,close,volume", *candle_lines(5)]), tmp_path, capsys=capsys)
    assert "give the file alone with --symbol" in said
    for option, value, wanted in (("--symbol", "BTCUSDT", "write BTC/USDT"), ("--timeframe", "7x", "write 1m"),
                                  ("--venue", "My Bank", "small letters")):
        assert run(["import-data", str(tmp_path / "prices.csv"), "--out", str(tmp_path / "out"), option, value]) == 4
        assert wanted in capsys.readouterr().err
    assert run(["import-data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 4


# -- keeping ----------------------------------------------------------------------------------------------------------------------------


def test_rows_that_contradict_what_is_there_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "BTCUSDT-1h.csv"
    path.write_text("\n".join(["ts,open,high,low,close,volume", *candle_lines(10)]) + "\n")
    imported(path, tmp_path / "out", capsys=capsys)
    path.write_text("\n".join(["ts,open,high,low,close,volume", *candle_lines(30)[5:]]) + "\n")
    told = imported(path, tmp_path / "out", capsys=capsys)
    assert (told["files"][0]["new_rows"], told["files"][0]["rows_now"]) == (20, 30)
    path.write_text("\n".join(["ts,open,high,low,close,volume", *candle_lines(10)]).replace("105.0,107.0", "105.5,107.0") + "\n")
    fault = imported(path, tmp_path / "out", capsys=capsys, code=1)["faults"][0]["fault"]
    assert "row 6 (2026-03-02 05:00, 2 rows in all) says open 105.5" in fault and "has open 105," in fault and "which is right?" in fault
    (kept,) = (tmp_path / "out").glob("*.csv")
    assert rows_of(kept) == TRUTH


def test_a_download_goes_on_where_an_import_ended_and_fills_its_holes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with bybit_past(600) as venue:
        truth = [(one[0], *map(float, one[1:])) for one in venue.market.candles["spot", "BTCUSDT"]]
        some = [row for number, row in enumerate(truth[:400]) if not 100 <= number < 130]
        (tmp_path / "BTCUSDT-1m.csv").write_text("\n".join(["ts,open,high,low,close,volume", *(",".join(map(repr, row)) for row in some)]))
        imported(tmp_path / "BTCUSDT-1m.csv", tmp_path / "out", "--venue", "bybit", capsys=capsys)
        assert run(["download-data", "-c", str(bybit_settings(tmp_path, venue)), "--venue", "bybit", "--symbols", "BTC/USDT", "--since",
                    "20260302", "--until", "20260303", "--out", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["series"][0]
    assert (told["rows"], told["new_rows"], told["differing"]) == (600, 230, 0)
    assert rows_of(tmp_path / "out" / "bybit_BTCUSDT_1m.csv") == truth


def test_an_interrupted_import_is_taken_up_again(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-1h.csv"
    path.write_text("\n".join(["ts,open,high,low,close,volume", *candle_lines(30)]) + "\n")
    (source,) = survey(path)
    assert isinstance(source, Source) and (source.kind, source.market.asset_class) == (Kind.BARS, AssetClass.SPOT)
    with ArchiveFolder(tmp_path / "out") as folder:
        file = folder.series("imported", Kind.BARS, source.market, HOUR)
        before = [(at, *[1.0] * 10) for at in (START - 2 * HOUR, START - HOUR)]
        file.add(before, (START - 2 * HOUR, START))
        (tmp_path / "out" / ".download" / f"{file.path.name}.part").open("a").write(f"{START},9.9,9")  # cut off here
        assert take(source, folder).merged.rows == 32
    assert rows_of(file.path)[2:] == TRUTH


@pytest.mark.parametrize(("name", "symbol", "kind", "timeframe", "venue"), [
    ("BTC_USDT-5m.feather", "BTC/USDT", Kind.BARS, "5m", "kraken"),
    ("futures/1000SHIB_USDT_USDT-1h-futures.feather", "1000SHIB/USDT:USDT", Kind.BARS, "1h", "kraken"),
    ("EURUSD_M15.csv", "EUR/USD", Kind.BARS, "15m", "imported"), ("DAT_ASCII_EURUSD_M1_2024.csv", "EUR/USD", Kind.BARS, "1m", "imported"),
    ("bybit_ETHUSDT-PERP_1m_mark.csv", "ETH/USDT:USDT", Kind.MARK, "1m", "bybit"),
    ("bybit_ETHUSDT-PERP_funding.csv", "ETH/USDT:USDT", Kind.FUNDING, "", "bybit"),
])
def test_a_name_says_what_a_file_holds(name: str, symbol: str, kind: Kind, timeframe: str, venue: str, tmp_path: Path) -> None:
    path = tmp_path / "kraken" / name
    path.parent.mkdir(parents=True)
    path.touch()
    (found,) = survey(tmp_path / "kraken")
    assert isinstance(found, Source)
    assert (found.market.symbol, found.kind, found.timeframe, found.venue) == (symbol, kind, timeframe, venue)


@pytest.mark.parametrize("name", [
    "BTC_USDT_USDT-1h-index.feather", "BTC_USDT-1Mo.feather", "BTC_USDT-trades.json.gz", "ETH_BTC-1h.feather"])
def test_what_replay_has_no_use_for_is_left_alone_with_a_word(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    (found,) = survey(tmp_path)
    assert isinstance(found, Passed) and not found.fault and found.reason


def test_a_symbol_for_a_whole_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        list(survey(tmp_path, symbol="BTC/USDT"))
