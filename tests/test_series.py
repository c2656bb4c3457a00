"""Recorded columns as the kernel reads them: the replay's own reader, holes kept, and a digest that notices every change."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from benchmarks import common
from modules.backtest.recorded import ENDED_AFTER_MS, RecordedSource
from modules.backtest.series import Series, ended, from_arrays, load, of_source
from modules.domain.errors import DataError
from modules.domain.instrument import AssetClass

MINUTE = 60_000
START = 1_700_000_040_000 - 1_700_000_040_000 % 86_400_000


def walk(bars: int = 200, asset_class: AssetClass = AssetClass.SPOT, seed: int = 1) -> Series:
    generator = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(generator.normal(0.0, 0.002, bars)))
    opened = np.concatenate([[100.0], close[:-1]])
    high, low = np.maximum(opened, close) * 1.001, np.minimum(opened, close) * 0.999
    return from_arrays("BTC/USD", asset_class, START + MINUTE * np.arange(1, bars + 1), opened, high, low, close, np.full(bars, 1e6))


def recording(folder: Path, bars: int = 50) -> Path:
    rows = ["ts,open,high,low,close,volume"]
    rows += [f"{START + 5 * MINUTE * number},{100 + number},{102 + number},{99 + number},{101 + number},{10 + number}"
             for number in range(bars) if number not in (20, 21)]
    (folder / "binance_BTCUSDT_5m.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def test_a_recording_has_the_bars_the_replay_sees_and_its_holes_stay_holes(tmp_path: Path) -> None:
    source = RecordedSource(recording(tmp_path), costs=common.policies().costs)
    (series,) = of_source(source).values()
    steps = [(symbol, bar, step.at) for step in source.steps() for symbol, bar in step.bars]
    assert [at for _, _, at in steps] == series.at.tolist()
    assert [(bar.open, bar.high, bar.low, bar.close, bar.volume) for _, bar, _ in steps] == list(
        zip(series.open.tolist(), series.high.tolist(), series.low.tolist(), series.close.tolist(), series.volume.tolist(), strict=True))
    assert len(series) == 48
    assert int(np.max(np.diff(series.at))) == 15 * MINUTE
    assert load(tmp_path, costs=common.policies().costs)["BTC/USDT"].digest == series.digest


def test_the_digest_notices_one_price_and_one_rule_of_the_instrument() -> None:
    series = walk()
    other = series.close.copy()
    other[17] += 1e-9
    assert walk().digest == series.digest
    assert replace(series, close=other).digest != series.digest
    assert replace(series, instrument=replace(series.instrument, tick=Decimal("0.5"))).digest != series.digest


def test_a_part_knows_nothing_of_what_came_after_it() -> None:
    at = START + MINUTE * np.arange(1, 201)
    series = replace(walk(), funding_at=at[[10, 150]], funding_rate=np.array([1e-4, 2e-4]), funding_hours=np.full(2, 8.0),
                     funding_predicted=np.full(2, np.nan), funding_mark=np.full(2, np.nan))
    part = series.part(0, 100)
    assert len(part) == 100
    assert part.funding_at.tolist() == [int(at[10])]


def test_columns_that_do_not_fit_are_refused() -> None:
    series = walk()
    with pytest.raises(DataError, match="close has 199 rows"):
        replace(series, close=series.close[1:])
    with pytest.raises(DataError, match="in order of time"):
        replace(series, at=series.at[::-1].copy())


def test_nobody_can_write_into_a_series() -> None:
    with pytest.raises(ValueError, match="read-only"):
        walk().close[0] = 1.0


def test_a_week_without_bars_ends_trading_but_the_end_of_the_recording_does_not() -> None:
    series = walk(4)
    at = series.at.copy()
    at[2:] += ENDED_AFTER_MS
    assert ended(replace(series, at=at)).tolist() == [False, True, False, False]
