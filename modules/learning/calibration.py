"""What a score is worth: expected net R, the probability of a profit, and how sure one may be of it (domain.md section 8). Pure.

Below `isotonic_from` outcomes the expected net R is a regression on the score, drawn to the validated out-of-sample mean as if that were
`prior_weight` more outcomes, and the probability is beta calibration (Kull, Silva Filho and Flach, AISTATS 2017), which holds Platt's
curve and the identity; above it both are monotone steps (isotonic regression, pool adjacent violators: Ayer et al. 1955). Older outcomes
count less, half after `half_life_trades` trades. Confidence = lower bound of expected net R / `full_r`, clipped to [0, 1].
"""

from __future__ import annotations

from bisect import bisect_right
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modules.domain.policies import CalibrationPolicy

Floats = NDArray[np.float64]
_EDGE: Final = 1e-6
_STEPS: Final = 40
_BETA_FREEDOM: Final = 2.0
_ISOTONIC_FREEDOM: Final = 8.0
"""About ln(n) - 1 steps arise by chance from n outcomes in order (Barlow et al. 1972); far fewer than the curve may have."""
DOUBT: Final = 3.0


class Prior(NamedTuple):
    """From the certificate: out-of-sample mean and standard deviation of net R, and the share of trades that won; None = not known."""

    mean_r: float
    sd_r: float
    win_rate: float | None = None


class Curve(NamedTuple):
    """Knots over the absolute score in [0, 1]; between them linear, beyond them flat."""

    score: Floats
    value: Floats

    def at(self, score: float) -> float:
        wanted = abs(score)
        right = bisect_right(self.score, wanted)  # a third of what np.interp costs for one number
        if right == 0 or right == len(self.score):
            return float(self.value.item(min(right, len(self.score) - 1)))
        low, high = self.score.item(right - 1), self.score.item(right)
        below, above = self.value.item(right - 1), self.value.item(right)
        return float(below + (above - below) * (wanted - low) / (high - low))


class Calibration(NamedTuple):
    """What the outcomes so far say. `expected` and `lower` in net R, `wins` a probability."""

    outcomes: int
    expected: Curve
    lower: Curve
    wins: Curve
    full_r: float

    def confidence(self, score: float) -> float:
        """In [0, 1]; 0 where the lower bound is not above zero."""
        return min(1.0, max(0.0, self.lower.at(score) / self.full_r))


def calibrate(scores: Floats, net_r: Floats, prior: Prior, policy: CalibrationPolicy, full_r: float) -> Calibration:
    """From closed trades in the order they closed: f8[n] scores (sign ignored) and net R. Empty arrays give the prior alone."""
    x = np.clip(np.abs(scores), 0.0, 1.0)
    weights = decayed(len(x), float(policy.half_life_trades))
    won = (net_r > 0.0).astype(np.float64)
    isotonic = len(x) >= policy.isotonic_from
    expected, error = _regression(x, net_r, weights, prior, float(policy.prior_weight))
    if isotonic:
        expected = _monotone(x, net_r, weights, prior.mean_r, float(policy.prior_weight))
    distance = NormalDist().inv_cdf(float(policy.bound))
    lower = Curve(expected.score, expected.value - distance * np.interp(expected.score, error.score, error.value))
    # A win rate that was validated counts as much as the mean that was. One guessed from a bell curve, which results rarely follow, counts
    # as two outcomes: enough where there are none, nothing beside a hundred.
    unseen, mass = prior.win_rate, float(policy.prior_weight)
    if unseen is None:
        unseen, mass = 1.0 - NormalDist(prior.mean_r, max(prior.sd_r, _EDGE)).cdf(0.0), 2.0
    base = (float(weights @ won) + mass * unseen) / (float(weights.sum()) + mass)
    wins = _flat(base)
    if isotonic:
        wins = _earned(_monotone(x, won, weights, base, 2.0), x, won, weights, base, _ISOTONIC_FREEDOM)
    elif len(x) >= _STEPS:
        wins = _earned(beta(x, won, weights), x, won, weights, base, _BETA_FREEDOM)
    return Calibration(len(x), expected, lower, wins, full_r)


def decayed(count: int, half_life: float) -> Floats:
    """Weights of outcomes, oldest first; the last one weighs 1."""
    found: Floats = 0.5 ** (np.arange(count - 1, -1, -1, dtype=np.float64) / half_life)
    return found


def _earned(curve: Curve, x: Floats, won: Floats, weights: Floats, base: float, degrees: float) -> Curve:
    """`curve` drawn to the base rate as far as its gain in likelihood could be chance: scores that say nothing must do no harm.

    Under no relation twice the gain is about chi squared with `degrees` of freedom (Wilks 1938): nothing is kept up to DOUBT times what
    that is on average, everything from twice that on.
    """
    told = np.clip(np.interp(x, curve.score, curve.value), _EDGE, 1.0 - _EDGE)
    flat = min(max(base, _EDGE), 1.0 - _EDGE)
    gain = float(weights @ np.where(won > 0.0, np.log(told / flat), np.log((1.0 - told) / (1.0 - flat))))
    kept = min(1.0, max(0.0, 2.0 * gain / (DOUBT * degrees) - 1.0))
    return Curve(curve.score, base + kept * (np.clip(curve.value, 0.0, 1.0) - base))


def _flat(value: float) -> Curve:
    return Curve(np.array([0.0, 1.0]), np.array([value, value]))


def _regression(x: Floats, y: Floats, weights: Floats, prior: Prior, prior_weight: float) -> tuple[Curve, Curve]:
    """(expected, its standard error): a line whose level is drawn to the prior mean and whose slope to nothing, both with prior_weight.

    Conjugate normal regression about the mean score; the prior's slope has the spread that would make the score matter as much as noise.
    """
    total = float(weights.sum())
    middle = float(weights @ x / total) if total > 0.0 else 0.5
    apart = x - middle
    level = (float(weights @ y) + prior_weight * prior.mean_r) / (total + prior_weight)
    steep = float(weights @ apart**2)
    slope = max(0.0, float(weights @ (apart * (y - level))) / (steep + prior_weight / 12.0))  # 1/12: variance of a uniform score
    rest = y - level - slope * apart
    variance = (float(weights @ rest**2) + prior_weight * prior.sd_r**2) / (total + prior_weight)
    # Effective number of outcomes: decayed weights carry less than they add up to (Kish).
    effective = total**2 / float(weights @ weights) if total > 0.0 else 0.0
    knots = np.linspace(0.0, 1.0, 21)
    around = variance / (effective + prior_weight) + variance * (knots - middle) ** 2 / (steep + prior_weight / 12.0)
    return Curve(knots, level + slope * (knots - middle)), Curve(knots, np.sqrt(around))


def pool_adjacent_violators(values: Floats, weights: Floats) -> Floats:
    """The nondecreasing sequence nearest to `values` in weighted squares."""
    level: list[float] = []
    mass: list[float] = []
    size: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        level.append(value)
        mass.append(weight)
        size.append(1)
        while len(level) > 1 and level[-2] >= level[-1]:
            joint = mass[-2] + mass[-1]
            level[-2] = (mass[-2] * level[-2] + mass[-1] * level[-1]) / joint
            mass[-2], size[-2] = joint, size[-2] + size[-1]
            del level[-1], mass[-1], size[-1]
    return np.repeat(np.array(level), size)


def _monotone(x: Floats, y: Floats, weights: Floats, prior_mean: float, prior_weight: float) -> Curve:
    """Isotonic steps, each drawn to the prior's level by its share of `prior_weight`, on at most 40 knots (means of the pooled scores)."""
    order = np.argsort(x, kind="stable")
    fitted = pool_adjacent_violators(y[order], weights[order])
    edges = np.flatnonzero(np.diff(fitted)) + 1
    bounds = np.concatenate(([0], edges, [len(x)]))
    mass = np.add.reduceat(weights[order], bounds[:-1])
    score = np.add.reduceat(weights[order] * x[order], bounds[:-1]) / mass
    share = prior_weight / len(mass)
    value = (mass * fitted[bounds[:-1]] + share * prior_mean) / (mass + share)
    return Curve(score, pool_adjacent_violators(value, mass + share))


def beta(x: Floats, won: Floats, weights: Floats) -> Curve:
    """Beta calibration: logit P(win) = a ln(x) - b ln(1 - x) + c with a, b >= 0, by Newton's method with a weak pull to a = b = 1.

    With a = b = 1 and c = 0 a score that is already a probability stays as it is.
    """
    clipped = np.clip(x, _EDGE, 1.0 - _EDGE)
    design = np.column_stack([np.log(clipped), -np.log1p(-clipped), np.ones_like(clipped)])
    found = np.array([1.0, 1.0, 0.0])
    pull = np.array([1.0, 1.0, 0.1])
    free = np.array([True, True, True])
    for _ in range(3):  # at most two of the slopes can turn out negative and be fixed at zero
        for _ in range(25):
            likely = 1.0 / (1.0 + np.exp(-np.clip(design @ found, -35.0, 35.0)))
            gradient = design.T @ (weights * (won - likely)) - pull * (found - np.array([1.0, 1.0, 0.0]))
            hessian = (design * (weights * likely * (1.0 - likely))[:, None]).T @ design + np.diag(pull)
            step = np.zeros(3)
            step[free] = np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
            found = found + np.clip(step, -2.0, 2.0)
            if np.abs(step).max() < 1e-9:
                break
        negative = (found < 0.0) & np.array([True, True, False])
        if not negative.any():
            break
        found[negative], free[negative] = 0.0, False
    knots = np.linspace(0.0, 1.0, _STEPS + 1)
    inner = np.clip(knots, _EDGE, 1.0 - _EDGE)
    shape = np.column_stack([np.log(inner), -np.log1p(-inner), np.ones_like(inner)])
    return Curve(knots, 1.0 / (1.0 + np.exp(-np.clip(shape @ found, -35.0, 35.0))))
