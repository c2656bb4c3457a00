"""Three ways to know too much, and the check that finds each of them."""

from __future__ import annotations

import math
from collections import namedtuple
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest

from modules.backtest import prefix
from modules.backtest.series import Series, from_arrays
from modules.domain.instrument import AssetClass
from modules.domain.signal import Intent
from modules.strategies.indicators import ema, ema_weight
from modules.strategies.protocol import Market, Strategy
from modules.strategies.registry import all_strategies

HOUR = 3_600_000
MEMORY: list[float] = []
FUTURE: dict[float, float] = {}


class Params(NamedTuple):
    length: int = 20


class State(NamedTuple):
    average: float
    bars: int


def init(params: Params) -> State:
    return State(float("nan"), 0)


def honest(state: State, market: Market, params: Params) -> tuple[State, Intent]:
    average = ema(state.average, market.close, ema_weight(params.length))
    return State(average, state.bars + 1), Intent(1.0 if market.close > average else -1.0, 1.0, 0.0, 0)


def remembers(state: State, market: Market, params: Params) -> tuple[State, Intent]:
    """Knows more the longer it has lived, whoever's life it was."""
    MEMORY.append(market.close)
    return state, Intent(1.0 if market.close < max(MEMORY) else -1.0, 1.0, 0.0, 0)


def reads_ahead(state: State, market: Market, params: Params) -> tuple[State, Intent]:
    return state, Intent(1.0 if FUTURE.get(market.at, 0.0) > market.close else -1.0, 1.0, 0.0, 0)


def breaks(state: State, market: Market, params: Params) -> tuple[State, Intent]:
    return State(1.0 / (state.bars - 50), state.bars + 1), Intent()


def strategy(step: Any) -> Strategy:
    return Strategy("odd", "", (AssetClass.SPOT,), Params(), init, step, 20)


def walk(bars: int, seed: int = 7) -> Series:
    draw = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(draw.standard_normal(bars) * 0.01))
    at = (np.arange(bars) + 400_001) * HOUR
    return from_arrays("BTC/USDT", AssetClass.SPOT, at, close, close * 1.001, close * 0.999, close, np.full(bars, 1e3))


def looked(step: Any, series: Series) -> prefix.Lookahead:
    return prefix.lookahead(strategy(step), Params(), series, bars_max=600, cuts=5)


def test_an_honest_step_gives_the_same_answers_whatever_comes_later() -> None:
    found = looked(honest, walk(800))
    assert not found.biased and found.reason == ""
    assert len(found.cuts) == 5 and all(cut.signals > 0 and cut.differing == 0 for cut in found.cuts)


def test_a_step_that_remembers_outside_its_state_is_found() -> None:
    MEMORY.clear()
    found = looked(remembers, walk(800))
    assert found.biased and any(cut.differing for cut in found.cuts)
    assert found.impurities == ("remembers refers to MEMORY, a list: only constants and functions may be used",)


def test_a_step_that_was_given_the_future_is_found_by_what_it_refers_to() -> None:
    series = walk(800)
    FUTURE.update(zip(series.at[:-1].astype(float).tolist(), series.close[1:].tolist(), strict=True))
    found = looked(reads_ahead, series)
    assert found.biased and "FUTURE, a dict" in found.reason


def test_a_closure_and_a_default_argument_are_memories_too() -> None:
    kept: list[float] = []

    def closes_over(state: State, market: Market, params: Params) -> tuple[State, Intent]:
        kept.append(market.close)
        return state, Intent()

    def by_default(state: State, market: Market, params: Params, past: Any = kept) -> tuple[State, Intent]:
        return state, Intent()

    assert "kept, a list" in prefix.impurities(strategy(closes_over))[0]
    assert "default 0, a list" in prefix.impurities(strategy(by_default))[0]


GOOD_HOURS = tuple(float(hour) for hour in range(0, 3_000, 7))
BITS = 1 << 40_000


class Kept:
    known: ClassVar[dict[float, float]] = {}


def knows_a_table(state: State, market: Market, params: Params) -> tuple[State, Intent]:
    return state, Intent(1.0 if market.at / HOUR in GOOD_HOURS else 0.0, 1.0, 0.0, 0)


def knows_a_number(state: State, market: Market, params: Params) -> tuple[State, Intent]:
    return state, Intent(1.0 if BITS >> (int(market.at) // HOUR % 40_000) & 1 else 0.0, 1.0, 0.0, 0)


PACKED = tuple(float((1 << 53) - 3 * number) for number in range(12))
"""Fifty-three bars each."""


def knows_packed(state: State, market: Market, params: Params) -> tuple[State, Intent]:
    hour = int(market.at // HOUR) % 636
    return state, Intent(math.floor(PACKED[hour // 53] / 2.0 ** (hour % 53)) % 2.0, 1.0, 0.0, 0)


def keeps_it_on_a_class(state: State, market: Market, params: Params) -> tuple[State, Intent]:
    return state, Intent(1.0 if Kept.known.get(market.at, 0.0) > market.close else 0.0, 1.0, 0.0, 0)


@pytest.mark.parametrize(("step", "said"), [
    (knows_a_table, "digits, at most 150"), (knows_a_number, "digits, at most 150"), (knows_packed, "digits, at most 150"),
    (keeps_it_on_a_class, "refers to Kept")])
def test_history_written_down_in_the_code_is_found(step: Any, said: str) -> None:
    """Walk-forward cannot: to a table of good hours every window is in sample."""
    found = prefix.impurities(Strategy("cheat", "", (AssetClass.SPOT,), Params(), init, step, 0))
    assert any(said in fault for fault in found), found


def test_history_written_down_in_the_parameters_or_as_statements_is_found_too() -> None:
    fields: Any = namedtuple("fields", [f"p{number}" for number in range(12)])  # type: ignore[misc]
    wide = fields(*PACKED)
    assert "digits, at most 150" in prefix.impurities(Strategy("cheat", "", (AssetClass.SPOT,), wide, init, honest, 0))[0]
    few = wide._replace(**dict.fromkeys(wide._fields, 0.25))
    assert prefix.impurities(Strategy("rule", "", (AssetClass.SPOT,), few, init, honest, 0)) == []
    told: dict[str, Any] = {"State": State, "Intent": Intent}
    digits = ["    b = b + b + 1", "    b = b + b"] * 500
    lines = ["def spelled(state, market, params):", "    b = 0", *digits, "    return state, Intent(b % 2)"]
    exec("\n".join(lines), told)
    assert "units long" in prefix.impurities(Strategy("cheat", "", (AssetClass.SPOT,), Params(), init, told["spelled"], 0))[0]


@pytest.mark.parametrize(("value", "digits"), [
    (0.0, 0), (1000, 1), (0.001, 1), (-1.5e-9, 2), (math.nan, 0), (True, 0), (86_400_000.0, 3), (1 / 3, 16), ((2, (0.25, None)), 3),
    ("ab", 4.8)])
def test_a_number_is_as_long_as_it_takes_to_write_it_down(value: Any, digits: float) -> None:
    assert prefix._digits(value) == digits


def test_no_shipped_strategy_refers_to_anything_it_should_not() -> None:
    assert {name: prefix.impurities(one) for name, one in all_strategies().items()} == {name: [] for name in all_strategies()}


def test_a_step_that_raises_does_so_by_its_own_name() -> None:
    with pytest.raises(ZeroDivisionError):
        looked(breaks, walk(800))


def test_an_average_forgets_where_its_history_began_at_the_rate_it_must() -> None:
    series = walk(2_000)
    found = prefix.recursive(strategy(honest), Params(), series, (20, 40, 80, 160), places=4)
    gaps = found.differences["average"]
    assert all(later < earlier for earlier, later in pairwise(gaps))
    keeps = 1.0 - ema_weight(20)
    assert gaps[3] < 10.0 * keeps**140 * gaps[0]
    assert "bars" not in found.differences  # a counter is no number to compare


def test_the_check_shows_the_higher_timeframe_the_daemon_shows() -> None:
    """Only closed bars of it, and none whose beginning was not seen."""
    series = walk(30)
    seen = list(prefix.markets(series, 4))
    opened = (series.at - HOUR) % (4 * HOUR) // HOUR
    first = int(np.flatnonzero(opened == 0)[0])
    assert all(np.isnan(market.htf_close) for market in seen[: first + 3])
    assert seen[first + 3].htf_close == series.close[first + 3]
    assert seen[first + 5].htf_high == series.high[first : first + 4].max()
    assert seen[first + 5].htf_ts == series.at[first] - HOUR
