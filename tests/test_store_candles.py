"""Closed bars, once stored, stay what they were."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from modules.domain.market import Bar
from modules.store.candles import Candles

MINUTE = 60_000
START = 1_750_003_200_000


def bar(number: int, price: float = 100.0) -> Bar:
    return Bar(START + number * MINUTE, price, price + 1, price - 1, price + 0.1, 12.5, 1250.25, price - 0.05, price + 0.05)


def bars(count: int) -> list[Bar]:
    return [bar(number, 100.0 + number / 7) for number in range(count)]


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Candles:
    return Candles(None if request.param == "memory" else tmp_path / "candles.sqlite")


def test_bars_come_back_to_the_last_bit_oldest_first(store: Candles) -> None:
    store.append("BTC/USDT", MINUTE, reversed(bars(2_500)))
    assert store.last("BTC/USDT", MINUTE, 3) == bars(2_500)[-3:]
    assert store.last("BTC/USDT", MINUTE, 9_999) == bars(2_500)
    assert store.range("BTC/USDT", MINUTE, START + 5 * MINUTE, START + 8 * MINUTE) == bars(2_500)[5:8]


def test_a_bar_once_stored_is_not_restated(store: Candles) -> None:
    store.append("BTC/USDT", MINUTE, [bar(0, 100.0), bar(1, 101.0)])
    store.append("BTC/USDT", MINUTE, [bar(1, 999.0), bar(2, 102.0)])
    store.flush()
    store.append("BTC/USDT", MINUTE, [bar(0, 999.0)])
    assert store.last("BTC/USDT", MINUTE, 9) == [bar(0, 100.0), bar(1, 101.0), bar(2, 102.0)]


def test_instruments_and_intervals_do_not_mix(store: Candles) -> None:
    store.append("BTC/USDT", MINUTE, [bar(0, 1.0)])
    store.append("BTC/USDT", 5 * MINUTE, [bar(0, 2.0)])
    store.append("ETH/USDT", MINUTE, [bar(0, 3.0)])
    assert store.last("BTC/USDT", MINUTE, 9) == [bar(0, 1.0)]
    assert store.last("BTC/USDT", 5 * MINUTE, 9) == [bar(0, 2.0)]
    assert store.last("ETH/USDT", MINUTE, 9) == [bar(0, 3.0)]
    assert store.last("ETH/USDT", 5 * MINUTE, 9) == []


def test_a_download_beside_the_daemon_does_not_mix_instruments_either(tmp_path: Path) -> None:
    daemon, download = Candles(tmp_path / "candles.sqlite"), Candles(tmp_path / "candles.sqlite")
    daemon.append("BTC/USDT", MINUTE, [bar(0, 1.0)])
    download.append("ETH/USDT", MINUTE, [bar(0, 3.0)])
    download.flush()
    daemon.flush()
    assert daemon.last("ETH/USDT", MINUTE, 9) == download.last("ETH/USDT", MINUTE, 9) == [bar(0, 3.0)]
    assert download.last("BTC/USDT", MINUTE, 9) == [bar(0, 1.0)]
    daemon.close()
    download.close()


def test_what_was_not_recorded_stays_unknown_and_numpy_numbers_become_plain_ones(store: Candles) -> None:
    partial = Bar(np.int64(START), np.float64(1.1), 2.0, 0.5, 1.5, math.nan, math.nan)  # type: ignore[arg-type]
    store.append("EUR/USD", MINUTE, [partial])
    (back,) = store.last("EUR/USD", MINUTE, 1)
    assert back[:5] == (START, 1.1, 2.0, 0.5, 1.5)
    assert all(math.isnan(value) for value in back[5:])
    assert {type(value) for value in back} == {int, float}


def test_prune_deletes_the_oldest_and_counts_them(store: Candles) -> None:
    store.append("BTC/USDT", MINUTE, bars(10))
    store.append("ETH/USDT", MINUTE, bars(10))
    assert store.prune(START + 4 * MINUTE) == 8
    assert store.last("BTC/USDT", MINUTE, 99) == bars(10)[4:]


def test_bars_survive_a_restart(tmp_path: Path) -> None:
    first = Candles(tmp_path / "candles.sqlite")
    first.append("BTC/USDT", MINUTE, bars(5))
    first.close()
    again = Candles(tmp_path / "candles.sqlite")
    again.append("BTC/USDT", MINUTE, bars(7))
    assert again.last("BTC/USDT", MINUTE, 99) == bars(7)
    again.close()


def test_a_disk_that_takes_nothing_stops_nothing_and_is_made_up_for_later(tmp_path: Path) -> None:
    store = Candles(tmp_path / "candles.sqlite")
    store._database.connection.execute("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(tmp_path / "candles.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.append("BTC/USDT", MINUTE, bars(1_500))
    assert "locked" in store.degraded
    other.execute("ROLLBACK")
    other.close()
    assert store.last("BTC/USDT", MINUTE, 9_999) == bars(1_500)
    assert store.degraded == ""
    store.close()
