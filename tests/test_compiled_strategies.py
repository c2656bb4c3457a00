"""What validation compiles is what the live process runs: the same bits, bar for bar. Most of its time is Numba compiling."""

from __future__ import annotations

import importlib.util
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from modules.strategies.compiled import compiled
from modules.strategies.indicators import donchian_init, donchian_step, rsi_init, rsi_step, window_init, window_step
from modules.strategies.protocol import Strategy
from modules.strategies.registry import all_strategies
from tests.daemon_process import ROOT
from tests.strategy_contract import random_walk

NEEDS_NUMBA = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")


@NEEDS_NUMBA
@pytest.mark.parametrize("strategy", all_strategies().values(), ids=list(all_strategies()))
def test_the_compiled_step_returns_the_same_bits_as_the_plain_one(strategy: Strategy) -> None:
    step, init = compiled(strategy.step), compiled(strategy.init)
    plain_state, quick_state = strategy.init(strategy.params), init(strategy.params)
    views = 0
    for market in random_walk(bars=4000, seed=7):
        plain_state, plain = strategy.step(plain_state, market, strategy.params)
        quick_state, quick = step(quick_state, market, strategy.params)
        assert tuple(plain) == tuple(quick)
        views += plain.score != 0.0
    assert views > 0 or strategy.name == "session", "a walk on which nothing happens proves nothing"


@NEEDS_NUMBA
def test_compiled_indicators_return_the_same_bits_as_plain_ones() -> None:
    fast_window, fast_channel, fast_rsi = compiled(window_step), compiled(donchian_step), compiled(rsi_step)
    source = random.Random(11)
    plain_window, quick_window = window_init(31), window_init(31)
    plain_channel, quick_channel = donchian_init(29), donchian_init(29)
    plain_rsi, quick_rsi = rsi_init(), rsi_init()
    price = 100.0
    for _ in range(500):
        price *= math.exp(source.gauss(0.0, 0.01))
        plain_window, quick_window = window_step(plain_window, price), fast_window(quick_window, price)
        plain_channel, quick_channel = donchian_step(plain_channel, price * 1.01, price), fast_channel(quick_channel, price * 1.01, price)
        plain_rsi, quick_rsi = rsi_step(plain_rsi, price, 14), fast_rsi(quick_rsi, price, 14)
        assert plain_window[1:] == quick_window[1:]
        assert plain_channel[2:] == quick_channel[2:]
        assert plain_rsi == quick_rsi


def test_only_a_plain_function_can_be_compiled() -> None:
    with pytest.raises(TypeError, match="plain Python function"):
        compiled(print)


def test_the_live_process_loads_every_strategy_without_numba_pandas_or_scipy() -> None:
    program = (
        "import sys; from modules.strategies.registry import all_strategies; import modules.domain.options; assert all_strategies();"
        "print([name for name in ('numba', 'pandas', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- machine code kept between processes --------------------------------------------------------------------------------------------------


def total(values: Any) -> Any:
    found = values[0] - values[0]
    for value in values:
        found += value
    return found


@NEEDS_NUMBA
def test_processes_that_save_two_signatures_at_once_never_take_one_name_for_both(tmp_path: Path) -> None:
    """Both begin with an empty folder; Numba itself would call either file number 1, and whoever loads it runs the other's code."""
    names = []
    for number, values in enumerate((np.arange(4, dtype=np.int64), np.arange(4, dtype=np.float64))):
        folder = tmp_path / str(number)
        assert compiled(total, folder=folder)(values) == 6
        names.append({path.name for path in folder.rglob("*.nbc")})
    assert all(map(len, names)) and not names[0] & names[1]
    both = tmp_path / "both"
    for _ in range(2):  # the second time from the disk
        kept: Any = compiled(total, folder=both)
        assert kept(np.arange(4, dtype=np.int64)) == 6 and kept(np.array([0.5, 1.0])) == 1.5
    assert sum(kept.stats.cache_hits.values()) == 2


class _Pair(NamedTuple):
    a: float
    b: float


@NEEDS_NUMBA
def test_named_tuples_of_one_name_from_two_modules_never_share_a_file(tmp_path: Path) -> None:
    """A program run as `__main__` and its module imported have types that Numba names alike and tells apart."""
    names = []
    for module in ("one", "two"):
        made: Any = type("Pair", (_Pair,), {"__module__": module, "__slots__": ()})
        folder = tmp_path / module
        assert compiled(total, folder=folder)(made(1.5, 2.0)) == 3.5
        names.append({path.name for path in folder.rglob("*.nbc")})
    assert all(map(len, names)) and not names[0] & names[1]


@NEEDS_NUMBA
def test_a_function_kept_as_part_of_another_is_not_what_python_calls(tmp_path: Path) -> None:
    """The first process compiles `indexes` within `drawdowns`, without a door from Python; the second calls it by that door."""
    draws = "from modules.backtest import bootstrap; import numpy; "
    for what in ("bootstrap.drawdown_quantile(numpy.arange(9.0), 0.9, 5, 1, block=3.0)", "bootstrap.stationary_indexes(9, 3.0, 2, 1)"):
        ended = subprocess.run([sys.executable, "-c", draws + what], cwd=ROOT, env=os.environ | {"KERNEL_CACHE": str(tmp_path)},
                               capture_output=True, text=True, check=False)
        assert ended.returncode == 0, (what, ended.returncode, ended.stderr)
