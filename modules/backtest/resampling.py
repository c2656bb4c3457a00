"""The loops of the stationary bootstrap, written so that Numba can compile them and plain Python can run them. Owns its own random numbers.

SplitMix64 (Steele, Lea & Flood 2014) per resample, seeded by (seed, number of the resample): the same resamples on every machine, in every
process, compiled or not, and in whatever order they are drawn. Blocks have geometric lengths and wrap around the end (Politis & Romano
1994). Only worker processes call `compiled_loops`: the live process never loads Numba.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modules.strategies.compiled import cache_folder, compiled

Floats = NDArray[np.float64]
VECTOR: Final = 8
"""Columns that are added up at a time; the widest vectors hold so many."""
Integers = NDArray[np.int64]


class Loops(NamedTuple):
    """Compiled forms of the functions below, by their names."""

    indexes: Callable[..., Any]
    maxima: Callable[..., Any]
    drawdowns: Callable[..., Any]


def mix(state: np.uint64) -> np.uint64:
    """SplitMix64's output function."""
    first = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    second = (first ^ (first >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return second ^ (second >> np.uint64(31))


def indexes(rows: Integers, seed: np.uint64, draw: int, block: float) -> None:
    """Fill `rows` with one resample of 0 .. len(rows) - 1 in blocks of mean length `block`."""
    count = len(rows)
    golden = np.uint64(0x9E3779B97F4A7C15)
    state = mix(seed + golden * np.uint64(draw + 1))
    unit = 1.0 / 9007199254740992.0
    goes_on = math.log1p(-1.0 / block) if block > 1.0 else -math.inf
    done = 0
    while done < count:
        state += golden
        start = int((mix(state) >> np.uint64(11)) * unit * count)
        state += golden
        length = 1
        if block > 1.0:
            length += int(math.log(1.0 - (mix(state) >> np.uint64(11)) * unit) / goes_on)
        length = min(length, count - done)
        for step in range(length):
            rows[done + step] = (start + step) % count
        done += length


def maxima(totals: Floats, spread_floor: Floats, seed: np.uint64, first: int, block: float, out: Floats) -> None:
    """out[b] = max over columns of the studentized mean of resample `first` + b, centered on the sample's.

    `totals` [2 n + 1, K]: running sums of the centered sample laid twice end to end, so that a block's sum is one difference. A
    resample's standard error is that of its own blocks: sqrt(sum over blocks of (sum - length x mean)^2), which has the sample's
    `bootstrap.standard_error` as its expectation; a column whose sum of squares is below its floor counts nothing.
    """
    count, width = (totals.shape[0] - 1) // 2, totals.shape[1]
    # Whole vectors: what is left over would be done one by one, and two columns of fifty took a quarter of the time.
    wide = width if width < VECTOR else (width + VECTOR - 1) // VECTOR * VECTOR
    sums = np.zeros((totals.shape[0], wide))
    sums[:, :width] = totals
    golden = np.uint64(0x9E3779B97F4A7C15)
    unit = 1.0 / 9007199254740992.0
    goes_on = math.log1p(-1.0 / block) if block > 1.0 else -math.inf
    total = np.zeros(wide)
    squares = np.zeros(wide)
    by_length = np.zeros(wide)
    for number in range(len(out)):
        state = mix(seed + golden * np.uint64(first + number + 1))
        total[:] = 0.0
        squares[:] = 0.0
        by_length[:] = 0.0
        lengths = 0.0
        done = 0
        while done < count:
            state += golden
            start = int((mix(state) >> np.uint64(11)) * unit * count)
            state += golden
            length = 1
            if block > 1.0:
                length += int(math.log(1.0 - (mix(state) >> np.uint64(11)) * unit) / goes_on)
            length = min(length, count - done)
            lengths += float(length) * length
            begin, end, weight = sums[start], sums[start + length], float(length)
            for column in range(wide):  # one row each: this loop is where the time goes, and so it becomes vector instructions
                part = end[column] - begin[column]
                total[column] += part
                squares[column] += part * part
                by_length[column] += part * weight
            done += length
        best = -math.inf
        for column in range(width):
            mean = total[column] / count
            spread = squares[column] - 2.0 * mean * by_length[column] + mean * mean * lengths
            if spread > spread_floor[column]:
                best = max(best, total[column] / math.sqrt(spread))
        out[number] = best


def drawdowns(daily: Floats, seed: np.uint64, block: float, out: Floats) -> None:
    """out[b] = deepest fall of the running sum of resample b from its highest point so far (0 at the start)."""
    count = len(daily)
    rows = np.zeros(count, dtype=np.int64)
    for number in range(len(out)):
        indexes(rows, seed, number, block)
        equity, peak, worst = 0.0, 0.0, 0.0
        for row in rows:
            equity += daily[row]
            peak = max(peak, equity)
            worst = max(worst, peak - equity)
        out[number] = worst


@cache
def compiled_loops() -> Loops:
    """Numba's forms, kept on disk between runs. Raises ImportError without Numba."""
    return Loops(*(compiled(function, folder=cache_folder()) for function in (indexes, maxima, drawdowns)))
