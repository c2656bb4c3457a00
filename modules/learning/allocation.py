"""How much of its size each strategy keeps: fixed-share over three forecasters, weekly, slow to turn. Pure; weights are in [0, 1].

Every strategy's shadow result is known every day, whether it was traded or not, so nothing has to be explored. The forecasters: uniform
(everybody keeps everything), empirical Bayes (each mean drawn to the mean of all as far as the spread between them is noise) and the
decayed mean drawn to zero. Each weighs a strategy by the probability that its mean is above zero. How far each forecaster is believed
follows Herbster and Warmuth, "Tracking the best expert", Machine Learning 32 (1998): exponential weights, then a fixed share spread over
all, so that a forecaster that was wrong for long can come back within weeks.

Arrays may carry leading axes (a benchmark runs 400 worlds at once); the last one is the strategy or the forecaster.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modules.domain.policies import AllocationPolicy

Floats = NDArray[np.float64]
FORECASTERS: Final = ("uniform", "empirical_bayes", "decayed_mean")
_TINY: Final = 1e-12


class Belief(NamedTuple):
    """All that is remembered. `f8[..., n]` by strategy, `f8[..., 3]` by forecaster."""

    days: int
    total: Floats
    """Decayed sum of daily net results, and of their squares, and of the days."""
    square: Floats
    effective: float
    pending: tuple[Floats, ...]
    """Days since the last decision."""
    trust: Floats
    """Forecasters' own weights; they add up to 1."""
    proposed: Floats
    """f8[..., 3, n]: what each forecaster last proposed."""
    weights: Floats
    """What is in force."""


def hedge(weights: Floats, gains: Floats, rate: float) -> Floats:
    """Exponential weights (Freund and Schapire 1997): `weights` times exp(rate * gains), adding up to 1 along the last axis."""
    raised = rate * gains
    grown: Floats = weights * np.exp(raised - raised.max(axis=-1, keepdims=True))
    total: Floats = grown.sum(axis=-1, keepdims=True)
    return grown / total


def fixed_share(weights: Floats, gains: Floats, rate: float, share: float) -> Floats:
    """Exponential weights, then `share` of everybody's weight goes to the others in equal parts (Herbster and Warmuth 1998, fig. 1)."""
    grown = hedge(weights, gains, rate)
    others = grown.shape[-1] - 1
    return (1.0 - share) * grown + (share / others) * (1.0 - grown) if others else grown


def hedge_bound(periods: int, experts: int) -> float:
    """Most that Hedge with the best fixed rate loses against the best expert, losses in [0, 1]: sqrt(T ln N / 2)."""
    return math.sqrt(periods * math.log(experts) / 2.0)


def fixed_share_bound(periods: int, experts: int, switches: int) -> float:
    """The same against the best sequence with `switches` changes: sqrt(T / 2 ((m + 1) ln N + (T - 1) H(m / (T - 1))))."""
    part = switches / (periods - 1)
    entropy = 0.0 if part in (0.0, 1.0) else -part * math.log(part) - (1.0 - part) * math.log(1.0 - part)
    return math.sqrt(periods / 2.0 * ((switches + 1) * math.log(experts) + (periods - 1) * entropy))


def first(shape: tuple[int, ...]) -> Belief:
    """Nothing known: everybody keeps everything. `shape` ends with the number of strategies."""
    forecasters = (*shape[:-1], len(FORECASTERS))
    return Belief(0, np.zeros(shape), np.zeros(shape), 0.0, (), np.full(forecasters, 1.0 / len(FORECASTERS)),
                  np.ones((*forecasters, shape[-1])), np.ones(shape))


def observe(belief: Belief, results: Floats, policy: AllocationPolicy) -> Belief:
    """One UTC day's net results (R) of every strategy, f8[..., n]; every `period_days` the weights move."""
    belief = belief._replace(days=belief.days + 1, pending=(*belief.pending, results))
    return belief if len(belief.pending) < policy.period_days else _decided(belief, policy)


def _decided(belief: Belief, policy: AllocationPolicy) -> Belief:
    """The end of a period: trust whoever was right, let the forecasters propose anew, go part of the way."""
    keep, length = 0.5 ** (1.0 / float(policy.mean_half_life_days)), len(belief.pending)
    rows = np.stack(belief.pending)
    ages = keep ** np.arange(length - 1, -1, -1)
    old = keep**length
    total = old * belief.total + np.tensordot(ages, rows, 1)
    square = old * belief.square + np.tensordot(ages, rows * rows, 1)
    effective = old * belief.effective + float(ages.sum())
    week = rows.sum(axis=0)
    belief = belief._replace(total=total, square=square, effective=effective, pending=())
    scale = np.sqrt(np.maximum(square.mean(axis=-1, keepdims=True) / effective, _TINY))
    gains = (belief.proposed * week[..., None, :]).sum(axis=-1)
    gains = gains / (np.sqrt((belief.proposed**2).sum(axis=-1) + _TINY) * scale * math.sqrt(length))
    trust = fixed_share(belief.trust, gains, float(policy.rate), float(policy.switch_share))
    proposed = proposals(belief, policy)
    wanted = (trust[..., None] * proposed).sum(axis=-2)
    wanted = wanted / np.maximum(wanted.max(axis=-1, keepdims=True), _TINY)
    moved = belief.weights + float(policy.step_max) * (wanted - belief.weights)
    weights = np.clip(np.where(np.abs(wanted - belief.weights) >= float(policy.move_min), moved, belief.weights), 0.0, 1.0)
    return belief._replace(trust=trust, proposed=proposed, weights=weights)


def proposals(belief: Belief, policy: AllocationPolicy) -> Floats:
    """f8[..., 3, n] in [0, 1], in the order of FORECASTERS."""
    count, prior = belief.effective, float(policy.shrink)
    sharpness = float(policy.temperature)
    mean = belief.total / count
    # One variance for all: an own one would tell apart what a few weeks cannot.
    variance = np.maximum((belief.square / count - mean * mean).mean(axis=-1, keepdims=True), _TINY)
    noise = variance / count
    centre = mean.mean(axis=-1, keepdims=True)
    between = np.maximum(((mean - centre) ** 2).sum(axis=-1, keepdims=True) / max(1, mean.shape[-1] - 1) - noise, 0.0)
    kept = between / (between + noise)
    spread = np.sqrt(kept * noise + noise / mean.shape[-1])
    bayes = _above_zero(sharpness * (centre + kept * (mean - centre)) / spread)
    decayed = _above_zero(sharpness * (belief.total / (count + prior)) / np.sqrt(variance / (count + prior)))
    return np.stack([np.ones_like(mean), bayes, decayed], axis=-2)


def _above_zero(z: Any) -> Floats:
    """Standard normal distribution function (logistic approximation of Bowling et al. 2009, error below 1.4e-4)."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(1.5976 * z + 0.07056 * z**3, -40.0, 40.0))), dtype=np.float64)
