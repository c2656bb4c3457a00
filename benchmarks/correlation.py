"""Correlation of one candidate against 199 others: our running sums against numpy.corrcoef and pandas, same returns, same answers.

    python -m benchmarks.correlation [--json FILE] [--instruments N] [--hours N]

What is timed for us is everything one bar costs: every bar closes an hour (the dearest case; on 5-minute bars one in twelve does), so each
takes in the candidate's new return *and* asks for its 199 correlations. The others pay for their 199 correlations only. Prints one line
each and fails (exit code 1) if our figures differ from numpy's by more than 1e-9.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.domain.instrument import AssetClass
from modules.filters.correlation import ReturnsBook, correlated

WINDOW = 720
TOLERANCE = 1e-9
OPEN_POSITIONS = 10


def closes_of(instruments: int, hours: int, seed: int) -> NDArray[np.float64]:
    """[instrument, hour]: prices with one common factor, 1 % of the hours missing (NaN)."""
    generator = np.random.default_rng(seed)
    common = generator.normal(0.0, 0.005, hours)
    returns = np.outer(generator.uniform(0.2, 1.5, instruments), common) + generator.normal(0.0, 0.005, (instruments, hours))
    closes = 100.0 * np.exp(np.cumsum(returns, axis=1))
    closes[generator.random((instruments, hours)) < 0.01] = np.nan
    return closes


def log_returns(closes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.diff(np.log(closes), axis=1)


def with_numpy(returns: NDArray[np.float64], candidate: int) -> NDArray[np.float64]:
    """numpy.corrcoef per pair over the hours both have."""
    x, result = returns[candidate], np.full(len(returns), np.nan)
    here = np.isfinite(x)
    for other in range(len(returns)):
        if other != candidate:
            common = here & np.isfinite(returns[other])
            result[other] = np.corrcoef(x[common], returns[other][common])[0, 1]
    return result


def median_us(repeat: int, run: Callable[[], object]) -> float:
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        run()
        times.append((time.perf_counter() - began) * 1e6)
    return statistics.median(times)


def ours(closes: NDArray[np.float64], symbols: list[str], measured_hours: int) -> tuple[ReturnsBook, dict[str, float]]:
    """Fill the book, then time whole hours: everybody's return comes in and everybody asks for his row."""
    book = ReturnsBook(WINDOW)
    instruments, hours = closes.shape
    began = time.perf_counter()
    for hour in range(hours - measured_hours):
        for row, symbol in enumerate(symbols):
            book.accept(symbol, hour, float(closes[row, hour]))
    book.prepare()  # as at the daemon's start
    filled = time.perf_counter()
    accepting = asking = 0.0
    for hour in range(hours - measured_hours, hours):
        for row, symbol in enumerate(symbols):
            t0 = time.perf_counter()
            book.accept(symbol, hour, float(closes[row, hour]))
            t1 = time.perf_counter()
            book.row(symbol)
            asking += time.perf_counter() - t1
            accepting += t1 - t0
    bars = measured_hours * instruments
    return book, {
        "fill_us_per_return": (filled - began) * 1e6 / (hours - measured_hours) / instruments,
        "per_5m_bar_us": (accepting + 2.0 * asking) * 1e6 / bars / 12.0,
        "accept_us": accepting * 1e6 / bars, "row_us": asking * 1e6 / bars, "per_bar_us": (accepting + asking) * 1e6 / bars,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=None, help="also write the figures to this file")
    parser.add_argument("--instruments", type=int, default=200)
    parser.add_argument("--hours", type=int, default=1000)
    options = parser.parse_args(arguments)
    symbols = [f"C{i}/USDT" for i in range(options.instruments)]
    closes = closes_of(options.instruments, options.hours, seed=1)
    book, figures = ours(closes, symbols, measured_hours=24)

    returns = log_returns(closes)[:, -WINDOW:]
    figures["numpy_us"] = median_us(5, lambda: with_numpy(returns, 0))
    worst = 0.0
    for candidate in (0, options.instruments // 2, options.instruments - 1):
        difference = np.abs(book.row(symbols[candidate])[0] - with_numpy(returns, candidate))
        worst = max(worst, float(np.nanmax(difference)))
    figures["worst_difference"] = worst

    held = [(symbol, AssetClass.SPOT, symbol, 1) for symbol in symbols[1:1 + OPEN_POSITIONS]]
    figures["gate_input_us"] = median_us(200, lambda: correlated(book, symbols[0], 1, symbols[0], held, minimum=0.6, returns_min=240))
    if importlib.util.find_spec("pandas") is not None:
        import pandas as pd

        frame = pd.DataFrame(returns.T, columns=symbols)
        figures["pandas_us"] = median_us(5, lambda: frame.corrwith(frame[symbols[0]]))

    print(f"one candidate against {options.instruments - 1} others, {WINDOW} hourly returns, 1 % of the hours missing")
    parts = f"new return {figures['accept_us']:.1f} + row {figures['row_us']:.1f}"
    print(f"  ours, per hourly bar      {figures['per_bar_us']:10.1f} us   ({parts})")
    print(f"  ours, per 5-minute bar    {figures['per_5m_bar_us']:10.1f} us   (two of twelve rows computed, ten kept)")
    print(f"  numpy.corrcoef per pair   {figures['numpy_us']:10.1f} us")
    if "pandas_us" in figures:
        print(f"  pandas corrwith           {figures['pandas_us']:10.1f} us")
    print(f"  filling the book          {figures['fill_us_per_return']:10.1f} us per return")
    print(f"  the gate's input with {OPEN_POSITIONS} open positions {figures['gate_input_us']:.1f} us")
    print(f"  largest difference from numpy {worst:.2e} (allowed {TOLERANCE:.0e})")
    if options.json is not None:
        report = {"instruments": options.instruments, "window": WINDOW, **figures}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
