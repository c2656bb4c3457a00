"""Compiles validation's kernel for given strategies ahead of time, so that the first verdict need not wait a minute for it. Worker-side:
loads Numba. Owns nothing; the machine code goes where the kernel keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from modules.backtest import bootstrap, kernel
from modules.backtest.kernel import TRADE, Rules, Run, StrategyFault
from modules.backtest.series import Series, from_arrays
from modules.domain.instrument import AssetClass
from modules.domain.signal import Structure
from modules.strategies.protocol import Strategy

BARS: Final = 400
HOUR: Final = 3_600_000


def warm(strategies: Iterable[Strategy], rules: Rules) -> int:
    """How many strategies can be validated from now on without compiling. One that fails is validation's to complain about."""
    series, done = _series(), 0
    for strategy in strategies:
        if strategy.structure is Structure.SINGLE:
            try:
                kernel.run(strategy, strategy.params, series, rules)
            except StrategyFault:
                continue
            done += 1
    statistics(rules)
    return done


def statistics(rules: Rules) -> None:
    """Compile what a verdict needs besides a strategy and its trades: one worker can, while another compiles those."""
    series = _series()
    trade = np.zeros(1, dtype=TRADE)
    trade["entry_bar"], trade["exit_bar"], trade["side"], trade["entry"], trade["quantity"] = 10, 12, 1, 100.0, 1.0
    kernel.random_entries(Run(trade, np.zeros(1), 0, 0.0, 0.0), series, rules, 1, 1)
    daily = np.sin(np.arange(200.0) ** 2).reshape(100, 2)
    bootstrap.max_t(daily, 10, 1)
    bootstrap.drawdown_quantile(daily[:, 0], 0.95, 10, 1)


def _series() -> Series:
    """A market that trends up and down, so that something is traded."""
    close = 100.0 * np.exp(0.1 * np.sin(np.arange(BARS) / 30.0))
    opened = np.concatenate((close[:1], close[:-1]))
    at = (np.arange(BARS, dtype=np.int64) + 450_000) * HOUR
    return from_arrays("WARM/USD", AssetClass.SPOT, at, opened, np.maximum(opened, close), np.minimum(opened, close), close,
                       np.full(BARS, 1e5))
