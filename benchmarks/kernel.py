"""P1 to P3: how fast the compiled kernel is. `python -m benchmarks.kernel [--bars 525600] [--json FILE]`.

One deterministic 1-minute series; an EMA cross with a stop and a target through the shipped `step` contract, costs and rules, beside a
bare Numba loop that does the same arithmetic with nothing around it, in one process and one run: the ratios are what counts. CPU seconds,
best of thirty (P1) or three, in turns, compilation apart.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks import common
from modules.backtest import kernel
from modules.backtest.series import F64, Series, from_arrays
from modules.domain.instrument import AssetClass
from modules.domain.signal import FLAT, Intent
from modules.strategies.compiled import compiled
from modules.strategies.indicators import NAN, ema, ema_weight
from modules.strategies.protocol import Market, Strategy

P1: Final = 3.0
P2_S: Final = 1.2
P3_S: Final = 0.7
PAIRS: Final = 200
WINDOWS: Final = 12
OF_WINDOW: Final = 50
FEE: Final = 0.001
SLIP: Final = 0.0005


class CrossParams(NamedTuple):
    fast: int = 20
    slow: int = 50
    stop: float = 0.02
    target: float = 0.04


class CrossState(NamedTuple):
    fast: float
    slow: float
    bars: int


def init(params: CrossParams) -> CrossState:
    return CrossState(NAN, NAN, 0)


def step(state: CrossState, market: Market, params: CrossParams) -> tuple[CrossState, Intent]:
    fast = ema(state.fast, market.close, ema_weight(params.fast))
    slow = ema(state.slow, market.close, ema_weight(params.slow))
    ahead = CrossState(fast, slow, state.bars + 1)
    if state.bars < params.slow or not fast > slow:
        return ahead, FLAT
    return ahead, Intent(1.0, params.stop * market.close, params.target * market.close, 0)


CROSS: Final = Strategy(name="cross", description="EMA cross, long or flat", asset_classes=(AssetClass.SPOT,), params=CrossParams(),
                        init=init, step=step, warmup=50)


def bare(opens: F64, highs: F64, lows: F64, closes: F64, nf: int, ns: int, stop: float, target: float, fee: float, slip: float) -> float:
    """The limit: the same rules as one loop over four arrays."""
    quick, slow = 2.0 / (nf + 1.0), 2.0 / (ns + 1.0)
    f = s = closes[0]
    cash, held, entry, floor, ceiling = 0.0, 0.0, 0.0, 0.0, 0.0
    above, wanted = False, 0
    for bar in range(len(closes)):
        if wanted == 1:
            entry = opens[bar] * (1.0 + slip)
            held = 1.0 / entry
            cash -= fee
            floor, ceiling = entry * (1.0 - stop), entry * (1.0 + target)
        elif wanted == -1:
            price = opens[bar] * (1.0 - slip)
            cash += held * price * (1.0 - fee) - 1.0
            held = 0.0
        wanted = 0
        if held > 0.0:
            price = 0.0
            if opens[bar] <= floor:
                price = opens[bar] * (1.0 - slip)
            elif lows[bar] <= floor:
                price = floor * (1.0 - slip)
            elif highs[bar] > ceiling:
                price = ceiling
            if price > 0.0:
                cash += held * price * (1.0 - fee) - 1.0
                held = 0.0
        f += quick * (closes[bar] - f)
        s += slow * (closes[bar] - s)
        now = f > s
        if bar > ns and now != above:
            if now and held == 0.0:
                wanted = 1
            elif not now and held > 0.0:
                wanted = -1
        above = now
    return cash


def market(bars: int, seed: int = 7) -> Series:
    generator = np.random.default_rng(seed)
    close = 30_000.0 * np.exp(np.cumsum(generator.normal(0.0, common.SIGMA, bars)))
    opened = np.concatenate([[30_000.0], close[:-1]])
    high = np.maximum(opened, close) * (1.0 + np.abs(generator.normal(0.0, 0.0004, bars)))
    low = np.minimum(opened, close) * (1.0 - np.abs(generator.normal(0.0, 0.0004, bars)))
    at = common.START + common.MINUTE * np.arange(1, bars + 1)
    return from_arrays("BTC/USD", AssetClass.SPOT, at, opened, high, low, close, np.full(bars, 100.0))


def best(*works: Callable[[], Any], times: int) -> list[float]:
    """CPU seconds of the fastest of `times` runs of each, in turns: whatever else the machine does disturbs all of them alike."""
    for work in works:
        work()  # compiles
    found = [math.inf] * len(works)
    for _ in range(times):
        for number, work in enumerate(works):
            began = time.process_time()
            work()
            found[number] = min(found[number], time.process_time() - began)
    return found


def measure(bars: int) -> dict[str, Any]:
    series, rules = market(bars), kernel.Rules(common.policies())
    pairs = [CrossParams(fast, slow) for fast in range(5, 25) for slow in range(30, 80, 5)][:PAIRS]
    columns = (series.open, series.high, series.low, series.close)
    loop = compiled(bare, error_model="numpy")
    span = int(series.at[-1] - series.at[0])
    until = [int(series.at[0]) + span * (window + 1) // (WINDOWS + 1) for window in range(WINDOWS)]

    def bare_sweep() -> None:
        for pair in pairs:
            loop(*columns, *pair, FEE, SLIP)

    def walk_forward() -> None:
        """As windows are chosen: one sweep gives every window's in-sample days, the chosen pair runs once more on each window after."""
        found = kernel.sweep(CROSS, pairs[:OF_WINDOW], series, rules)
        for window, end in enumerate(until):
            day = end // 86_400_000 - found.first_day
            chosen = int(np.argmax(found.daily[:day].sum(axis=0)))
            following = until[window + 1] if window + 1 < WINDOWS else int(series.at[-1])
            kernel.run(CROSS, pairs[chosen], series, rules, trade_from=end, trade_until=following)

    began = time.process_time()
    kernel.run(CROSS, pairs[0], series, rules)
    cold = time.process_time() - began
    one, limit = best(lambda: kernel.run(CROSS, CROSS.params, series, rules), lambda: loop(*columns, *CROSS.params, FEE, SLIP), times=30)
    sweep, limit_sweep = best(lambda: kernel.sweep(CROSS, pairs, series, rules), bare_sweep, times=3)
    windows, = best(walk_forward, times=3)
    return {"bars": bars, "first_s": cold, "p1_s": one, "p1_bars_per_s": bars / one, "bare_bars_per_s": bars / limit,
            "p1_ratio": one / limit,
            "p2_s": sweep, "p2_ratio": sweep / limit_sweep, "p3_s": windows, "memory_mb": common.memory_mb(),
            "trades": len(kernel.run(CROSS, CROSS.params, series, rules).trades)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=int, default=525_600)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    print(f"machine: {common.machine()}")
    figures = common.rounded(measure(options.bars))
    print(f"  P1 one backtest   {figures['p1_bars_per_s'] / 1e6:8.1f} M bars/s, {figures['p1_ratio']:.2f} x the bare loop's time "
          f"({figures['bare_bars_per_s'] / 1e6:.0f} M bars/s); goal {P1}")
    print(f"  P2 sweep of {PAIRS}   {figures['p2_s']:8.2f} s CPU, {figures['p2_ratio']:.2f} x the bare loops; goal {P2_S} s")
    print(f"  P3 walk-forward   {figures['p3_s']:8.2f} s CPU ({WINDOWS} x {OF_WINDOW}); goal {P3_S} s")
    print(f"  the first run took {figures['first_s']:.2f} s CPU, compilation included; {figures['trades']} trades")
    if options.json is not None:
        options.json.write_text(json.dumps({"benchmark": "kernel", "machine": common.machine(), **figures}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
