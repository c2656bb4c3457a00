"""Recorded history as a price source: the traps of the shared recordings, every kind of broken file, an export read back exactly."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastparquet
import numpy as np
import pandas as pd
import pytest

from modules.backtest.export import export_market
from modules.backtest.recorded import RecordedSource
from modules.backtest.recorded_calendar import kind_of
from modules.backtest.recorded_files import read_bars
from modules.backtest.recorded_names import Market, Named, NotOurs, interval_of, market_of, name_of, timeframe_of
from modules.domain.errors import DataError
from modules.domain.instrument import AssetClass, Right
from modules.domain.market import Bar, Quote
from modules.domain.policies import CostPolicy
from modules.venues.demo_market import DemoMarket
from modules.venues.protocol import Step
from tests.timing import within

SHARED = Path(os.environ.get("BOT_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "market_data"
COSTS = CostPolicy.model_validate_json((Path(__file__).resolve().parents[1] / "policies" / "cost_policy.json").read_text())
HOUR = 3_600_000
MINUTE = 60_000
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared recordings are absent")


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def linked(tmp_path: Path, *patterns: str) -> Path:
    """A folder of links to just these shared recordings."""
    folder = tmp_path / "data"
    folder.mkdir()
    for pattern in patterns:
        found = list(SHARED.glob(pattern))
        assert found, pattern
        for path in found:
            (folder / path.parent.name).mkdir(exist_ok=True)
            (folder / path.parent.name / path.name).symlink_to(path)
    return folder


def recorded(folder: Path, first: str | None = None, last: str | None = None, **options: Any) -> RecordedSource:
    timerange = (at(first) if first else None, at(last) if last else None)
    return RecordedSource(folder, options.pop("classes", None), timerange, costs=COSTS, **options)


def bars_by_close(source: RecordedSource, symbol: str) -> dict[int, Bar]:
    return {step.at: bar for step in source.steps() for name, bar in step.bars if name == symbol}


def same(value: Any) -> Any:
    """Comparable: NaN equals NaN, a list equals a tuple."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return tuple(map(same, value)) if isinstance(value, (tuple, list)) else value


# -- files of a user --------------------------------------------------------------------------------------------------


HEADER = "ts,open,high,low,close,volume\n"
START = at("2024-01-01 00:00")


def rows(count: int, *, start: int = START, step: int = HOUR) -> list[list[Any]]:
    return [[start + index * step, 100.0 + index, 101.0 + index, 99.0 + index, 100.5 + index, 10.0] for index in range(count)]


def write(folder: Path, name: str, lines: Iterable[Iterable[Any]], header: str = HEADER) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(header + "".join(",".join(map(str, line)) + "\n" for line in lines))
    return path


def test_a_plain_csv_of_a_user_is_replayed_bar_by_bar_with_openings_only_where_a_bar_opens(tmp_path: Path) -> None:
    write(tmp_path, "binance_BTCUSDT_1h.csv", rows(3) + rows(2, start=START + 5 * HOUR))
    source = recorded(tmp_path)

    steps = list(source.steps())

    assert [step.at for step in steps] == [START + hour * HOUR for hour in (1, 2, 3, 6, 7)]
    assert (source.start, source.end) == (START, START + 7 * HOUR)
    assert same(steps[0].bars) == same([("BTC/USDT", Bar(START, 100.0, 101.0, 99.0, 100.5, 10.0, 10.0 * 100.5))])
    openings = {step.at: source.opening("BTC/USDT") for step in source.steps()}
    assert openings[START + HOUR] == Quote(START + HOUR, 101.0, 101.0, synthetic=True)
    assert openings[START + 3 * HOUR] is None, "no bar opens at the hole's edge"
    assert openings[START + 6 * HOUR] is not None
    assert openings[START + 7 * HOUR] is None, "the end"
    assert source.opening("DOGE/USDT") is None


def test_iterating_twice_gives_the_same_steps_and_a_time_range_leaves_earlier_bars_as_history(tmp_path: Path) -> None:
    write(tmp_path, "binance_BTCUSDT_1h.csv", rows(48))
    write(tmp_path, "binance_ETHUSDT_1h.csv", rows(48))
    source = recorded(tmp_path, "2024-01-01 12:00", "2024-01-02 00:00")

    first, second = same(list(source.steps())), same(list(source.steps()))

    assert first == second and len(first) == 12
    assert first[0][0] == at("2024-01-01 13:00"), "the bar that closed at the start is history"
    assert [name for name, _ in first[0][1]] == ["BTC/USDT", "ETH/USDT"]
    history = source.history("BTC/USDT", source.start, 5)
    assert [bar.ts for bar in history] == [START + hour * HOUR for hour in (7, 8, 9, 10, 11)]
    assert len(source.history("BTC/USDT", source.start, 500)) == 12
    assert source.history("BTC/USDT", START, 5) == []


@pytest.mark.parametrize(("header", "stamp"), [
    ("date,open,high,low,close,volume\n", lambda ts: datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")),
    ("timestamp,open,high,low,close,volume\n", lambda ts: ts // 1000),
    ("open_time,Open,High,Low,Close,Volume\n", lambda ts: ts * 1000),
    ("Open Time,open,high,low,close,volume\n", lambda ts: datetime.fromtimestamp(ts / 1000, UTC).isoformat()),
])
def test_times_under_other_names_and_in_other_units_are_understood(tmp_path: Path, header: str, stamp: Any) -> None:
    write(tmp_path, "kraken_BTC-USDT_1h.csv", [[stamp(row[0]), *row[1:]] for row in rows(4)], header)

    assert [bar.ts for bar in recorded(tmp_path).history("BTC/USDT", START + 4 * HOUR, 9)] == [row[0] for row in rows(4)]


def test_without_a_property_table_the_rules_come_from_the_prices_and_ten_dollars_can_be_traded(tmp_path: Path) -> None:
    def priced(name: str, price: str) -> None:
        write(tmp_path, name, [[START + index * HOUR, price, price, price, price, 5.0] for index in range(3)])

    priced("binance_BTCUSDT_1h.csv", "60000.25")
    priced("binance_BTCUSDT-PERP_1h.csv", "60000.5")
    priced("binance_DOGEUSDT_1h.csv", "0.12345")
    priced("oanda_EURUSD_1h.csv", "1.08765")
    priced("oanda_USDJPY_1h.csv", "150.123")
    rules = {one.symbol: one for one in recorded(tmp_path).instruments}

    assert (rules["BTC/USDT"].tick, rules["BTC/USDT"].lot) == (Decimal("0.01"), Decimal("0.00001"))
    assert rules["BTC/USDT:USDT"].lot == Decimal("0.001"), "a perp lot of $60: phase 1 cannot trade it, as at the real venue"
    assert (rules["DOGE/USDT"].tick, rules["DOGE/USDT"].lot) == (Decimal("0.00001"), Decimal(1))
    assert (rules["EUR/USD"].lot, rules["EUR/USD"].pip, rules["EUR/USD"].settle) == (Decimal(1), Decimal("0.0001"), "USD")
    assert (rules["USD/JPY"].pip, rules["USD/JPY"].tick, rules["USD/JPY"].settle) == (Decimal("0.01"), Decimal("0.001"), "USD")
    assert rules["BTC/USDT"].notional_min == Decimal(5) and rules["BTC/USDT"].taker_fee == COSTS.SPOT.taker_fee
    assert rules["BTC/USDT:USDT"].leverage_max == COSTS.PERP.leverage and rules["BTC/USDT:USDT"].funding_interval_h == 8


def test_the_widest_series_keeps_the_plain_symbol_and_the_others_say_where_they_are_from(tmp_path: Path) -> None:
    write(tmp_path, "binance_LINKUSDT_1h.csv", rows(100))
    write(tmp_path, "binance_LINKUSDT_5m.csv", rows(300, step=5 * MINUTE))
    write(tmp_path, "kraken_LINKUSDT_1h.csv", rows(20))
    source = recorded(tmp_path)

    assert dict(source.intervals_ms) == {"LINK/USDT": HOUR, "LINK/USDT#binance-5m": 5 * MINUTE, "LINK/USDT#kraken-1h": HOUR}
    assert {one.underlying for one in source.instruments} == {"LINK"}
    assert dict(recorded(tmp_path, timeframe="5m").intervals_ms) == {"LINK/USDT": 5 * MINUTE}


def test_only_the_classes_asked_for_are_read_and_the_rest_is_named(tmp_path: Path) -> None:
    write(tmp_path, "binance_BTCUSDT_1h.csv", rows(5))
    write(tmp_path, "binance_BTCUSDT-PERP_1h.csv", rows(5))
    write(tmp_path, "oanda_EURUSD_1h.csv", changed(2, 4, ""))
    source = recorded(tmp_path, classes={AssetClass.PERP})

    assert list(source.intervals_ms) == ["BTC/USDT:USDT"]
    assert dict(source.skipped) == {"binance_BTCUSDT_1h.csv": "SPOT was not asked for", "oanda_EURUSD_1h.csv": "FOREX was not asked for"}


def test_broken_chains_are_refused_by_contract_snapshot_and_row(tmp_path: Path) -> None:
    header = "ts,instrument,type,strike,expiry_ts,index_price,bid,ask,mark,mark_iv,delta,vega,open_interest\n"
    good = [START, "BTC-31JAN24-40000-C", "call", 40000.0, at("2024-01-31 08:00"), 42000.0, "", 0.07, 0.065, 0.6, 0.7, 30.0, 12.0]
    write(tmp_path, "deribit_chain_1.csv", [good, good], header)
    write(tmp_path, "deribit_chain_2.csv", [[*good[:5], 0.0, *good[6:]], ["BTC?" if cell == good[1] else cell for cell in good]], header)

    with pytest.raises(DataError) as error:
        recorded(tmp_path)

    text = "\n".join(error.value.faults)
    assert len(error.value.faults) == 3
    assert "twice in one snapshot" in text and "'BTC?' is not understood" in text and "index_price is 0.0" in text
    write(tmp_path, "deribit_chain_1.csv", [good, [START + HOUR, *good[1:]]], header)
    chain, _ = [chain for step in recorded(tmp_path, skip_faulty=True).steps() for chain in step.chains]
    assert (chain.spot, chain.settle_rate, chain.quotes[0].symbol) == (42000.0, 42000.0, "BTC/USD:BTC-240131-40000-C")


def test_a_continuation_file_prolongs_its_series_and_an_overlap_is_taken_once(tmp_path: Path) -> None:
    write(tmp_path, "binance_SOLUSDT_1h.csv", rows(10))
    write(tmp_path, "binance_SOLUSDT_1h_2024.csv", rows(10, start=START + 8 * HOUR))
    write(tmp_path, "binance_SOLUSDT_1h_2025-06.csv", rows(2, start=START + 1000 * HOUR))
    bars = bars_by_close(recorded(tmp_path), "SOL/USDT")

    assert len(bars) == 20 and max(bars) == START + 1002 * HOUR
    assert bars[START + 9 * HOUR].open == 108.0, "the earlier file's row of the overlap"


def test_a_folder_without_a_series_says_what_lies_there_and_why_it_is_not_used(tmp_path: Path) -> None:
    write(tmp_path, "mydata.csv", rows(3))
    write(tmp_path, "bittrex_ADABTC_1m.csv", rows(3, step=MINUTE))

    with pytest.raises(DataError) as error:
        recorded(tmp_path)

    assert "nothing to replay" in error.value.faults[0]
    assert any("mydata.csv" in fault and "VENUE_MARKET_TIMEFRAME" in fault for fault in error.value.faults)
    assert any("bittrex" in fault and "cannot pay in BTC" in fault for fault in error.value.faults)
    with pytest.raises(DataError, match="no such folder"):
        recorded(tmp_path / "absent")
    write(tmp_path, "binance_BTCUSDT_1h.csv", rows(3))
    with pytest.raises(DataError, match="outside the time range"):
        recorded(tmp_path, "2030-01-01")


# -- broken files -----------------------------------------------------------------------------------------------------


def changed(row: int, column: int, value: Any) -> list[list[Any]]:
    table = rows(60)
    table[row][column] = value
    return table


BROKEN = {
    "unsorted": ([*rows(10)[5:], *rows(10)[:5]], "time runs backward; sort"),
    "twice": ([*rows(5), *rows(5)[4:]], "the same time twice; keep one"),
    "nan": (changed(7, 4, ""), "row 8 (2024-01-01 07:00): close is not a number"),
    "negative": (changed(7, 3, -1.0), "low is -1.0; prices are above zero"),
    "zero": (changed(7, 1, 0.0), "open is 0.0; prices are above zero"),
    "inverted": (changed(7, 2, 1.0), "high 1.0 is below low 106.0"),
    "outside": (changed(7, 4, 500.0), "lies outside low..high"),
    "future": (changed(59, 0, at("2150-01-01")), "lies outside 1950-2100"),
    "text": (changed(7, 4, "n/a?"), "close holds text"),
    "volume": (changed(7, 5, -3.0), "volume is -3.0; volume is zero or more"),
    "mixed": ([*rows(40), *rows(40, start=START + 40 * HOUR, step=4 * HOUR)], "mixed bar lengths: 1h, from row 41 on 4h"),
    "closer": ([*rows(40), *rows(40, start=START + 40 * HOUR, step=5 * MINUTE)], "mixed bar lengths: 5m and 1h"),
    "mislabeled": (rows(40, step=4 * HOUR), "its name says 1h but its bars are 4h apart"),
    "empty": ([], "holds no rows"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_refused_with_the_row_and_the_remedy(tmp_path: Path, kind: str) -> None:
    table, expected = BROKEN[kind]
    write(tmp_path, "binance_BTCUSDT_1h.csv", table)
    write(tmp_path, "binance_ETHUSDT_1h.csv", rows(10))

    with pytest.raises(DataError) as error:
        recorded(tmp_path)

    assert len(error.value.faults) == 1 and expected in error.value.faults[0], error.value.faults
    assert error.value.faults[0].startswith("binance_BTCUSDT_1h.csv: ")
    source = recorded(tmp_path, skip_faulty=True)
    assert list(source.intervals_ms) == ["ETH/USDT"] and expected in dict(source.skipped)["binance_BTCUSDT_1h.csv"]


def test_all_faults_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    table = changed(7, 4, "")
    table[9][1] = -2.0
    table[20][0] = table[19][0]
    write(tmp_path, "binance_BTCUSDT_1h.csv", table)
    write(tmp_path, "binance_ETHUSDT_1h.csv", [row[:4] for row in rows(5)], "ts,open,high,low\n")
    write(tmp_path, "binance_ETHUSDT-PERP_funding.csv", [[START, 0.01], [START + 8 * HOUR, 1.5]], "ts,funding_rate\n")
    write(tmp_path, "binance_SOLUSDT_1h.csv", [[1, 2]], "a,b\n")
    write(tmp_path, "binance_ADAUSDT_1h.csv", [["yesterday", 1, 1, 1, 1, 1]])
    (tmp_path / "binance_XRPUSDT_1h.csv").write_text("")
    (tmp_path / "replay.json").write_text("{")

    with pytest.raises(DataError) as error:
        recorded(tmp_path)

    text = "\n".join(error.value.faults)
    assert len(error.value.faults) == 9
    for part in ("close is not a number", "open is -2.0", "the same time twice", "lacks close", "rates are fractions", "has no time column",
                 "its times cannot be read", "EmptyDataError", "replay.json"):
        assert part in text, text


def test_a_truncated_or_damaged_parquet_file_is_named_and_never_anything_but_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "binance_BTCUSDT_1h.parquet"
    frame = pd.DataFrame(rows(2_000), columns=pd.Index(["ts", "open", "high", "low", "close", "volume"]))
    fastparquet.write(str(path), frame, compression="ZSTD")
    whole = path.read_bytes()
    assert len(recorded(tmp_path).history("BTC/USDT", START + 9999 * HOUR, 5000)) == 2_000

    for length in (0, 3, 8, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut off|damaged"):
            recorded(tmp_path)
    rng = random.Random(3)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            recorded(tmp_path)
        except DataError:
            refused += 1
    assert refused >= 10


def test_what_the_market_really_did_is_no_fault(tmp_path: Path) -> None:
    table = rows(60)
    table[10][3] = 0.0001  # a wick to nothing
    for row in table[20:34]:
        row[1:] = [120.0, 120.0, 120.0, 120.0, 0.0]  # a frozen feed
    del table[40:50]
    write(tmp_path, "binance_LINKUSDT_1h.csv", table)

    assert len(bars_by_close(recorded(tmp_path), "LINK/USDT")) == 50


# -- the shared recordings --------------------------------------------------------------------------------------------


@needs_shared
def test_link_fell_to_nearly_nothing_and_came_back_within_one_hour(tmp_path: Path) -> None:
    source = recorded(linked(tmp_path, "crypto_spot/binance_LINKUSDT_*", "meta/*"), "2020-03-12", "2020-03-13")
    bar = bars_by_close(source, "LINK/USDT")[at("2020-03-12 11:00")]

    assert (bar.low, bar.close) == (0.0001, 2.4693)
    rules = source.instruments[0]
    assert rules.lot == Decimal("0.01") and rules.tick == Decimal("0.0001"), "finer than today's 0.001, as prices were then"


@needs_shared
def test_on_2023_03_24_the_feed_froze_and_then_left_a_hole_without_openings(tmp_path: Path) -> None:
    source = recorded(linked(tmp_path, "crypto_spot/binance_*_5m*"), "2023-03-24 11:00", "2023-03-24 15:00")
    frozen, openings = [], {}
    for step in source.steps():
        openings[step.at] = source.opening("BTC/USDT")
        frozen += [bar for name, bar in step.bars if name == "BTC/USDT" and bar.volume == 0.0]

    assert len(source.instruments) == 8 and len(frozen) == 14 and len({bar.close for bar in frozen}) == 1
    assert not [time for time in openings if at("2023-03-24 12:40") < time < at("2023-03-24 14:05")]
    assert openings[at("2023-03-24 12:40")] is None and openings[at("2023-03-24 14:05")] is not None


@needs_shared
def test_perpetuals_come_with_their_marks_and_funding_and_their_2026_continuation(tmp_path: Path) -> None:
    folder = linked(tmp_path, "crypto_perp/binance_BTCUSDT-PERP_*", "crypto_perp/binance_DOGE*", "meta/*")
    source = recorded(folder, "2024-12-30", "2026-01-05")
    steps = list(source.steps())
    rules = {one.symbol: one for one in source.instruments}

    assert set(rules) == {"BTC/USDT:USDT", "DOGE/USDT:USDT"}
    assert rules["BTC/USDT:USDT"].lot == Decimal("0.001") and rules["BTC/USDT:USDT"].settle == "USDT"
    assert rules["BTC/USDT:USDT"].funding_interval_h == 8
    bars = [bar for step in steps for name, bar in step.bars if name == "BTC/USDT:USDT"]
    assert [bar.ts for bar in bars if at("2024-12-31 22:00") <= bar.ts <= at("2026-01-01 01:00")] == [
        at("2024-12-31 22:00"), at("2024-12-31 23:00"), at("2026-01-01 00:00"), at("2026-01-01 01:00")]
    funding = [rate for step in steps for rate in step.funding if rate.symbol == "BTC/USDT:USDT"]
    assert funding[0].at == at("2024-12-30 00:00") and {rate.interval_h for rate in funding} == {8.0}
    assert all(rate.at == step.at for step in steps for rate in step.funding)
    marked = [step for step in steps if step.at == at("2026-01-01 01:00")]
    assert [name for name, _ in marked[0].marks] == ["BTC/USDT:USDT"] and marked[0].marks[0][1] == pytest.approx(87774.556297)


@needs_shared
def test_ftx_volume_is_dollars_and_coinbase_quotes_are_bid_and_ask(tmp_path: Path) -> None:
    folder = linked(tmp_path, "crypto_perp/ftx_*", "crypto_spot/coinbase_*")
    source = recorded(folder)
    ftx = source.history("BTC/USD:USD", at("2022-01-02"), 1)[0]

    raw = read_bars(next((folder / "crypto_perp").iterdir()), "1m")[0]
    assert raw.volume is not None and ftx.quote_volume == float(raw.volume[np.searchsorted(raw.ts, ftx.ts)]) > 1e4
    assert ftx.volume == pytest.approx(ftx.quote_volume / ftx.close)
    assert source.intervals_ms["BTC/USD"] == HOUR and source.intervals_ms["BTC/USD#coinbase-1m"] == MINUTE
    bar = source.history("ETH/USD", at("2017-12-18"), 1)[0]
    assert bar.bid < bar.close < bar.ask and bar.close == 0.5 * (bar.bid + bar.ask) and math.isnan(bar.volume)


@needs_shared
def test_forex_is_mids_with_quotes_no_volume_and_settles_in_dollars(tmp_path: Path) -> None:
    source = recorded(linked(tmp_path, "forex/oanda_EURUSD_1h*", "forex/oanda_EURUSD_1m*", "forex/fxcm_EURUSD_1h*", "forex/oanda_XAU*",
                             "forex/mt5_USDJPY*", "forex/ecb*", "forex/*ticks*", "macro/oecd*"), "2014-05-02 00:00", "2014-05-02 06:00")
    opening = None
    for step in source.steps():
        if step.at == at("2014-05-02 03:00"):
            opening = source.opening("EUR/USD")
    bar = source.history("EUR/USD", source.end, 1)[0]

    assert set(source.intervals_ms) == {"EUR/USD", "EUR/USD#oanda-1m", "XAU/USD", "USD/JPY"}
    assert {one.settle for one in source.instruments} == {"USD"} and {one.lot for one in source.instruments} == {Decimal(1)}
    assert opening is not None and opening.sane and not opening.synthetic and 0.0 < opening.spread_bp < 10.0
    assert math.isnan(bar.volume) and math.isnan(bar.quote_volume) and bar.bid <= bar.close <= bar.ask
    skipped = dict(source.skipped)
    assert "fixings" in skipped["forex/ecb_reference_rates_1d.parquet"] and "ticks" in skipped["forex/fxcm_EURUSD_ticks_20140502.parquet"]
    assert "outside the time range" in skipped["fxcm EUR/USD 1h"]
    yen = source.history("USD/JPY", source.end, 1)[0]
    raw = read_bars(next((tmp_path / "data" / "forex").glob("mt5*")), "1h")[0]
    bid = float(raw.close[np.searchsorted(raw.ts, yen.ts)])
    assert yen.close == pytest.approx(bid * 1.00005) and math.isnan(yen.bid) and math.isnan(yen.volume), "only bids were recorded"


@needs_shared
def test_forex_financing_is_the_interest_difference_known_at_the_time_less_the_markup(tmp_path: Path) -> None:
    source = recorded(linked(tmp_path, "forex/oanda_NZDUSD_1h*", "macro/oecd*"), "2014-06-15", "2014-08-15")
    told = [rate for step in source.steps() for rate in step.financing]

    assert [rate.at for rate in told] == [at("2014-06-15"), at("2014-07-01"), at("2014-08-01")]
    table = fastparquet.ParquetFile(str(SHARED / "macro" / "oecd_short_term_interest_monthly.parquet")).to_pandas()
    percent = {(row.location, row.month): row.rate_pct for row in table.itertuples()}
    for rate, month in zip(told, ("2014-05", "2014-06", "2014-07"), strict=True):  # in June only May's average is known
        difference = (percent["NZL", month] - percent["USA", month]) / 100.0
        assert rate.long_rate == pytest.approx(difference - float(COSTS.forex_financing_markup))
    assert all(rate.long_rate + rate.short_rate == pytest.approx(-0.02) for rate in told)
    (tmp_path / "data" / "macro" / "oecd_short_term_interest_monthly.parquet").unlink()
    assert "carry filter" in recorded(tmp_path / "data").notes[0], "unknown is said, not made up"


@needs_shared
def test_crossed_fxcm_closes_stay_crossed_and_a_crossed_opening_costs_its_width(tmp_path: Path) -> None:
    source = recorded(linked(tmp_path, "forex/fxcm_GBPUSD_1m*"))
    crossed, turned = 0, 0
    for step in source.steps():
        crossed += sum(bar.ask < bar.bid for _, bar in step.bars)
        opening = source.opening("GBP/USD")
        if opening is not None:
            assert opening.sane
            turned += opening.synthetic

    assert crossed == 347 and turned > 0


@needs_shared
def test_the_bittrex_file_has_real_holes_but_no_ledger_can_pay_for_it(tmp_path: Path) -> None:
    folder = linked(tmp_path, "gaps/*", "crypto_spot/binance_ETHUSDT_1m*")
    bars, interval = read_bars(next((folder / "gaps").iterdir()), "1m")

    assert interval == MINUTE and int((np.diff(bars.ts) > MINUTE).sum()) == 1421
    assert "cannot pay in BTC" in dict(recorded(folder).skipped)["gaps/bittrex_ADABTC_1m_2018-07.parquet"]


@needs_shared
def test_the_universe_is_379_pairs_beside_the_longer_recordings(tmp_path: Path) -> None:
    source = recorded(linked(tmp_path, "crypto_spot/binance_universe*", "crypto_spot/binance_BTCUSDT_1h*"))
    week = source.history("BTC/USDT#binance_universe-1h", at("2024-07-30"), 24)

    assert len(source.instruments) == 380 and source.intervals_ms["BTC/USDT"] == HOUR
    assert len(week) == 24 and week[0].quote_volume == pytest.approx(week[0].volume * week[0].close, rel=0.02)
    assert week[0].quote_volume != week[0].volume * week[0].close, "the recorded one, not our product"


@needs_shared
def test_deribit_chains_are_in_coin_and_the_overlapping_crash_week_is_taken_once(tmp_path: Path) -> None:
    source = recorded(linked(tmp_path, "options/*2026-02*", "options/us_*"))
    chains = [chain for step in source.steps() for chain in step.chains]
    snapshots = {chain.at for chain in chains}

    assert len(snapshots) == 28 + 20 - 5 and len(chains) == 2 * len(snapshots)
    assert all(len({quote.symbol for quote in chain.quotes}) == len(chain.quotes) for chain in chains)
    first = chains[0]
    assert (first.underlying, first.at) == ("BTC", at("2026-02-01 15:33") + first.at % MINUTE)
    assert first.spot == first.settle_rate == pytest.approx(76960.85)
    quote = next(quote for quote in first.quotes if quote.symbol == "BTC/USD:BTC-260202-70000-C")
    assert (quote.strike, quote.is_call, quote.bid, quote.ask, quote.iv) == (70000.0, True, 0.091, 0.093, 1.2953999999999999)
    assert any(math.isnan(quote.bid) for quote in first.quotes), "no quote is NaN, not 0"
    rules = source.contract(quote.symbol)
    assert rules is not None and (rules.quote, rules.settle, rules.underlying) == ("BTC", "USD", "BTC")
    assert (rules.strike, rules.right, rules.expiry) == (Decimal(70000), Right.CALL, at("2026-02-02 08:00"))
    assert (rules.lot, rules.tick, rules.contract_size) == (Decimal("0.1"), Decimal("0.0001"), Decimal(1))
    assert source.contract("BTC/USD:BTC-300101-1-C") is None and source.opening(quote.symbol) is None
    assert source.instruments == () and sum("US listed" in reason for _, reason in source.skipped) == 2
    assert len(source.notes) == 2 and "no bars of BTC" in source.notes[0]
    ether = source.contract(chains[1].quotes[0].symbol)
    assert ether is not None and ether.lot == Decimal(1), "Deribit's ETH open interest is in whole contracts"


@needs_shared
def test_the_calendars_give_cpi_nfp_and_fomc_once_a_day_and_no_member_speaks(tmp_path: Path) -> None:
    events = recorded(linked(tmp_path, "macro/*", "crypto_perp/binance_BTCUSDT-PERP_1h.parquet")).macro_events
    fomc = [event for event in events if event.kind == "FOMC"]

    assert [event.at for event in fomc if event.at < at("2020-05-01")] == [
        at("2019-12-11 19:00"), at("2020-01-29 19:00"), at("2020-03-03 15:00"), at("2020-03-15 21:00"), at("2020-04-29 18:00")]
    assert not [event for event in events if "FOMC Member" in event.title]
    assert not [event for event in fomc if event.at // 86_400_000 == at("2023-02-01") // 86_400_000], "a known hole of the file stays"
    for kind in ("CPI", "NFP", "FOMC"):
        days = [event.at // 86_400_000 for event in events if event.kind == kind]
        assert len(days) == len(set(days)) and len(days) > 30
    assert list(events) == sorted(events)


def test_titles_are_told_apart() -> None:
    assert kind_of("USD", "high", "FOMC Statement") == "FOMC"
    assert kind_of("USD", "medium", "Federal Funds Rate") == "FOMC"
    assert kind_of("USD", "low", "FOMC Member Bowman Speaks") is None
    assert kind_of("USD", "high", "ADP Non-Farm Employment Change") == "HIGH"
    assert kind_of("USD", "high", "Non-Farm Employment Change") == "NFP"
    assert kind_of("USD", "high", "CPI m/m") == "CPI"
    assert kind_of("GBP", "high", "CPI y/y") == "HIGH"
    assert kind_of("GBP", "high", "Official Bank Rate") == "RATE_DECISION"
    assert kind_of("EUR", "low", "German PPI m/m") is None


def test_names_say_what_a_file_holds() -> None:
    def named(name: str) -> tuple[str, str, str, str | None]:
        found = name_of(Path("x") / name)
        assert isinstance(found, Named), found
        return found.kind, found.venue, found.market.symbol if found.market else "", found.timeframe

    assert named("binance_BTCUSDT-PERP_1h_mark_2026.parquet") == ("mark", "binance", "BTC/USDT:USDT", "1h")
    assert named("binance_DOGEUSDT-PERP_funding_2026-01.parquet") == ("funding", "binance", "DOGE/USDT:USDT", None)
    assert named("okx_BTC_USDT_15m.csv") == ("bars", "okx", "BTC/USDT", "15m")
    assert named("deribit_BTC_ETH_chain_2026-02-03_to_07_6h.parquet") == ("chain", "deribit", "", None)
    assert isinstance(name_of(Path("l2/binance_spot_BTCUSDT_20240808_depth.parquet")), NotOurs)
    assert market_of("XAUUSD") == Market(AssetClass.FOREX, "XAU", "USD", "USD", "XAU/USD", "XAU/USD")
    assert market_of("EURUSDT") == Market(AssetClass.SPOT, "EUR", "USDT", "USDT", "EUR/USDT", "EUR")
    for length in ("1m", "5m", "4h", "1d", "1w"):
        milliseconds = interval_of(length)
        assert milliseconds is not None and timeframe_of(milliseconds) == length


# -- an export read back ----------------------------------------------------------------------------------------------


def test_an_exported_demo_is_replayed_to_the_last_bit(tmp_path: Path) -> None:
    demo = DemoMarket(7, 1)
    export_market(demo, tmp_path / "out", wallets={AssetClass.SPOT: Decimal("950.00"), AssetClass.PERP: Decimal(4900)})
    source = RecordedSource(tmp_path / "out", costs=COSTS)

    assert (source.name, source.seed, source.start, source.end) == ("demo", 7, demo.start, demo.end)
    assert tuple(source.instruments) == tuple(demo.instruments) and dict(source.intervals_ms) == dict(demo.intervals_ms)
    assert tuple(source.macro_events) == tuple(demo.macro_events)
    assert source.wallets == {AssetClass.SPOT: Decimal(950), AssetClass.PERP: Decimal(4900)} and source.transfers == ()
    listed = None
    for theirs, ours in zip(demo.steps(), source.steps(), strict=True):
        assert same(theirs) == same(ours)
        for symbol in demo.intervals_ms:
            assert demo.opening(symbol) == source.opening(symbol)
        listed = theirs.chains[0].quotes[0].symbol if theirs.chains else listed
    assert listed is not None and source.contract(listed) == demo.contract(listed)
    for symbol in demo.intervals_ms:
        assert same(demo.history(symbol, demo.start, 300)) == same(source.history(symbol, source.start, 300))


def test_scripted_transfers_of_an_export_happen_when_they_did(tmp_path: Path) -> None:
    write(tmp_path, "demo_BTCUSDT_1h.csv", rows(5))
    (tmp_path / "replay.json").write_text(json.dumps({
        "name": "demo", "seed": 3, "start": START + HOUR, "end": START + 4 * HOUR, "wallets": None, "macro_events": [],
        "transfers": [{"at": START + 2 * HOUR + MINUTE, "asset_class": "SPOT", "amount": "600"}]}))
    source = recorded(tmp_path)

    assert [(step.at, step.transfers) for step in source.steps() if step.transfers] == [
        (START + 2 * HOUR + MINUTE, [(AssetClass.SPOT, Decimal(600))])]
    assert source.wallets is None and (source.start, source.end) == (START + HOUR, START + 4 * HOUR)
    assert [(step.at, source.opening("BTC/USDT") is None) for step in source.steps()][-1] == (source.end, True), "too late"
    second = source.history("BTC/USDT", START + 2 * HOUR, 1)[0]
    assert same(next(iter(source.steps()))) == same(Step(START + 2 * HOUR, [("BTC/USDT", second)]))


@needs_shared
def test_years_of_bars_merge_at_a_few_microseconds_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = linked(tmp_path, "crypto_spot/binance_*_1h.parquet", "crypto_perp/binance_ETH*")
    began = time.process_time()
    source = recorded(folder)
    loaded = time.process_time()
    bars = last = 0
    for step in source.steps():
        assert step.at > last
        last = step.at
        bars += len(step.bars)
    took = time.process_time() - loaded

    with capsys.disabled():
        print(f"\nrecorded: {bars} bars read in {loaded - began:.2f} s, merged at {took / bars * 1e6:.2f} us a bar")
    assert bars == sum(len(source.history(symbol, source.end, 10**9)) for symbol in source.intervals_ms)
    assert took / bars < within(15e-6), "a merge that compares every bar with every series"
