"""Combinatorially symmetric cross-validation: does the best in sample stay good out of sample? Pure.

Source: Bailey, Borwein, Lopez de Prado & Zhu, The Probability of Backtest Overfitting (2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from modules.backtest.metrics import ratios

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Overfit:
    """Over all ways to halve the blocks; NaN where fewer days than blocks were given."""

    pbo: float
    """Share of splits in which the best in sample ranks at or below the median out of sample. 1 trial has no rank: NaN."""
    loss_probability: float
    """Share of splits in which the best in sample does not earn out of sample."""
    splits: int


@cache
def _halves(blocks: int) -> Floats:
    """[splits, blocks] 1 where a block is in sample."""
    chosen = list(combinations(range(blocks), blocks // 2))
    halves = np.zeros((len(chosen), blocks))
    halves[np.arange(len(chosen))[:, None], chosen] = 1.0
    return halves


def cscv(daily: Floats, blocks: int = 16) -> Overfit:
    """All blocks!/(blocks/2)!^2 splits of [days, K] into halves of consecutive blocks, judged by Sharpe ratio. `blocks` is even."""
    count, width = daily.shape
    if count < 2 * blocks or not width:
        return Overfit(math.nan, math.nan, 0)
    bounds = np.linspace(0, count, blocks + 1).astype(np.int64)
    sums = np.add.reduceat(daily, bounds[:-1], axis=0)
    squares = np.add.reduceat(daily**2, bounds[:-1], axis=0)
    lengths = np.diff(bounds).astype(np.float64)
    inside = _halves(blocks)
    in_sample, _ = _ratio(inside, sums, squares, lengths)
    out_sample, mean = _ratio(1.0 - inside, sums, squares, lengths)
    rows = np.arange(len(inside))
    best = np.argmax(in_sample, axis=1)
    its = out_sample[rows, best]
    lost = float(np.mean(mean[rows, best] <= 0.0))
    if width == 1:
        return Overfit(math.nan, lost, len(inside))
    below = np.sum(out_sample < its[:, None], axis=1) + 0.5 * (np.sum(out_sample == its[:, None], axis=1) - 1)
    return Overfit(float(np.mean((below + 1.0) / (width + 1.0) <= 0.5)), lost, len(inside))


def _ratio(inside: Floats, sums: Floats, squares: Floats, lengths: Floats) -> tuple[Floats, Floats]:
    """[splits, K] Sharpe ratios and means of the chosen blocks taken together."""
    count = (inside @ lengths)[:, None]
    mean = inside @ sums / count
    variance = np.maximum(inside @ squares / count - mean**2, 0.0)
    moves = variance > 1e-24
    return np.where(moves, mean / np.sqrt(np.where(moves, variance, 1.0)), -np.inf), mean


def neighbours_share(daily: Floats, chosen: int, neighbours: tuple[int, ...]) -> float:
    """Median Sharpe ratio of the chosen set's neighbours over its own; NaN without neighbours or if its own is not positive."""
    every = ratios(daily)
    if not neighbours or not every[chosen] > 0.0:
        return math.nan
    return float(np.median(every[list(neighbours)]) / every[chosen])
