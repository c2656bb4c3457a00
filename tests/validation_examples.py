"""A validation made up for tests of its report: seeded, nothing computed from a market."""

from __future__ import annotations

import itertools
import math

import numpy as np

from modules.backtest.validation import Line, Marks, OnInstrument, Picture, Validation, Window
from modules.domain.instrument import AssetClass

FIRST_DAY = 18_262
"""2020-01-01."""


def example(days: int = 1_500, seed: int = 7, verdict: str = "REJECTED") -> Validation:
    draw = np.random.default_rng(seed)
    daily = draw.standard_normal(days) * 0.004 + 0.0002
    test_from = days // 3
    values = itertools.product((48, 96, 144), (288, 384, 576), (0.75, 1.5))
    sets = tuple({"fast": float(a), "slow": float(b), "band": c} for a, b, c in values)
    windows = tuple(
        Window(FIRST_DAY, FIRST_DAY + day, FIRST_DAY + day, min(days, day + 125) + FIRST_DAY, sets[number % len(sets)], 1.1, 0.4)
        for number, day in enumerate(range(test_from, days, 125)))
    at = (FIRST_DAY + np.arange(0, days, 2)) * 86_400_000
    close = 9_000.0 * np.exp(np.cumsum(draw.standard_normal(len(at)) * 0.03))
    begin = np.sort(draw.choice(len(at) - 12, 60, replace=False))
    end = begin + draw.integers(2, 12, 60)
    side = draw.choice((-1, 1), 60)
    net = side * (close[end] - close[begin]) / close[begin]
    marks = Marks("BTC/USDT", at, close, at[begin], close[begin], at[end], close[end], side, net)
    lines = (
        Line("TRADES", 412.0, 500.0, "trades", False, "88 more, about 0.7 years"),
        Line("MAX_T_P_VALUE", 0.184, 0.005, "probability", False, "the best of 18 sets is what chance gives"),
        Line("SHARPE", 0.62, 1.0, "per year", False),
        Line("PSR", 0.913, 0.95, "probability", False),
        Line("DRAWDOWN_BOOTSTRAP", 0.081, 0.15, "of equity", True, "95 %, phase-3 sizing on 10,000"),
        Line("DEFLATED_SHARPE", 0.41, None, "probability", True, gate=False),
        Line("PREFIX", math.nan, None, "", True),
    )
    picture = Picture(
        365.0, FIRST_DAY, daily, FIRST_DAY + test_from, daily[test_from:], sets, 4, draw.standard_normal(len(sets)) * 0.4 + 0.5, 1.9,
        np.abs(draw.standard_normal(2_000)) + 0.8, 3.1, windows,
        (OnInstrument("BTC/USDT", 36_000, int(at[0]), int(at[-1]), 220, 0.11, 0.7, 0.05, 0.0, True),
         OnInstrument("<b>ETH/USDT", 36_000, int(at[0]), int(at[-1]), 12, -0.02, -0.3, 0.01, 0.0, False, "12 of 30 trades")), marks)
    return Validation("trend", AssetClass.SPOT, verdict, lines, {"sharpe": 0.62, "p": 0.184, "trades": 412.0},
                      "" if verdict == "APPROVED" else "Sharpe 0.62 is below 1.0; at this Sharpe 21 more years would be needed <soon>.",
                      "python main.py download-data --venue binance --symbols SOL/USDT", sets[4], ("BTC/USDT",), 54, 2, "ab" * 32,
                      "cd" * 32, 7, picture)


def empty() -> Validation:
    return Validation("odd", AssetClass.PERP, "INSUFFICIENT EVIDENCE", (), {}, "step raised ZeroDivisionError",
                      "python main.py lookahead -s odd", {}, (), 0, 0, "", "", 7, Picture(365.0))
