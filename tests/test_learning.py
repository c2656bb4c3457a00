"""Allocation and calibration: bounds that were proved, oracles nobody here wrote, and figures in small."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.learning import allocate
from modules.domain.policies import LearningPolicy
from modules.learning import allocation
from modules.learning.calibration import Prior, beta, calibrate, decayed, pool_adjacent_violators
from tests.builders import shipped_policies

Floats = NDArray[np.float64]
POLICY: LearningPolicy = shipped_policies().learning
PRIOR = Prior(0.2, 1.0)


# -- allocation --------------------------------------------------------------------------------------------------------------------


def adversaries(count: int, periods: int, experts: int) -> Floats:
    """Losses f8[count, periods, experts] in [0, 1]: noise, drifting leaders, alternating blocks, and one that punishes the leader."""
    generator = np.random.default_rng(11)
    kinds = [
        generator.random((count // 4, periods, experts)),
        (np.arange(periods)[:, None] // generator.integers(3, 60, (count // 4, 1, 1)) % experts != np.arange(experts)).astype(float),
        (generator.random((count // 4, periods, experts)) < generator.random((count // 4, 1, experts))).astype(float),
        np.repeat(generator.random((count // 4, -(-periods // 25), experts)) < 0.5, 25, axis=1)[:, :periods].astype(float),
    ]
    return np.concatenate(kinds)


def suffered(losses: Floats, rate: float, share: float) -> Floats:
    """Total loss of the mixture on each sequence; the adversary of the last tenth hits whoever weighs most."""
    sequences, periods, experts = losses.shape
    weights, total = np.full((sequences, experts), 1.0 / experts), np.zeros(sequences)
    hits = slice(0, sequences // 10)
    for period in range(periods):
        losses[hits, period] = weights[hits] == weights[hits].max(axis=1, keepdims=True)
        total += (weights * losses[:, period]).sum(axis=1)
        weights = allocation.fixed_share(weights, -losses[:, period], rate, share)
    return total


def test_hedges_regret_bound_holds_on_a_thousand_adversarial_sequences() -> None:
    losses = adversaries(1_000, 200, 5)
    total = suffered(losses, math.sqrt(8 * math.log(5) / 200), 0.0)
    assert (total - losses.sum(axis=1).min(axis=1)).max() <= allocation.hedge_bound(200, 5)


@pytest.mark.parametrize("switches", [1, 4])
def test_fixed_shares_bound_holds_against_every_best_sequence_with_so_many_switches(switches: int) -> None:
    losses = adversaries(1_000, 200, 5)
    bound = allocation.fixed_share_bound(200, 5, switches)
    total = suffered(losses, math.sqrt(8 * (bound**2 * 2 / 200) / 200), switches / 199)
    best = np.full((switches + 1, *losses.shape[::2]), np.inf)
    best[0] = 0.0
    for period in range(200):
        before = best.copy()
        for used in range(1, switches + 1):
            best[used] = np.minimum(before[used], before[used - 1].min(axis=1, keepdims=True))
        best += losses[:, period]
    assert (total - best.min(axis=(0, 2))).max() <= bound


def test_a_bound_that_is_broken_is_seen() -> None:
    """With a rate far too high, the leader-punishing adversary costs more than Hedge's bound."""
    losses = adversaries(100, 200, 5)
    assert (suffered(losses, 50.0, 0.0) - losses.sum(axis=1).min(axis=1)).max() > allocation.hedge_bound(200, 5)


def test_exponential_weights_agree_with_river() -> None:
    ensemble = pytest.importorskip("river.ensemble")
    base, optim = pytest.importorskip("river.base"), pytest.importorskip("river.optim")

    class Says(base.Regressor):  # type: ignore[misc,name-defined]
        def __init__(self, value: float) -> None:
            self.value = value

        def learn_one(self, x: object, y: float) -> None: ...

        def predict_one(self, x: object) -> float:
            return self.value

    values, rate = (0.1, 0.5, 0.8), 0.3
    model = ensemble.EWARegressor([Says(value) for value in values], loss=optim.losses.Squared(), learning_rate=rate)
    weights = np.full(3, 1.0 / 3.0)
    for y in np.random.default_rng(2).random(50):
        model.learn_one({}, y)  # its weights add up to 1 from its first outcome on
        weights = allocation.hedge(weights, -((np.array(values) - y) ** 2), rate)
        assert float(weights @ np.array(values)) == pytest.approx(model.predict_one({}), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4), max_size=60))
def test_weights_stay_in_zero_to_one_whatever_the_results(rows: list[list[float]]) -> None:
    belief = allocation.first((4,))
    for row in rows:
        belief = allocation.observe(belief, np.array(row), POLICY.allocation)
        assert (belief.weights >= 0.0).all() and (belief.weights <= 1.0).all()
        assert belief.trust.sum() == pytest.approx(1.0)


def test_a_steady_loser_fades_and_weights_only_move_at_the_end_of_a_period() -> None:
    generator, belief = np.random.default_rng(4), allocation.first((3,))
    for day in range(280):
        before = belief.weights
        belief = allocation.observe(belief, generator.standard_normal(3) + np.array([0.3, 0.3, -0.3]), POLICY.allocation)
        assert (day + 1) % 7 == 0 or (belief.weights == before).all()
    assert belief.weights[2] < 0.5 and belief.weights[:2].max() > 0.9


def test_the_same_results_in_a_batch_or_alone_give_the_same_weights() -> None:
    results = np.random.default_rng(5).standard_normal((100, 6, 4))
    batch, alone = allocation.first((6, 4)), allocation.first((4,))
    for row in results:
        batch, alone = allocation.observe(batch, row, POLICY.allocation), allocation.observe(alone, row[2], POLICY.allocation)
    assert batch.weights[2] == pytest.approx(alone.weights, rel=1e-12)


@pytest.mark.slow
def test_the_allocation_figures_hold_in_small() -> None:
    found = allocate(100, 3, POLICY.allocation)
    assert found["120-day regimes"]["share"] >= 0.6 and found["365-day regimes"]["share"] >= 0.6
    assert found["nothing to learn"]["share"] >= 0.93
    assert all(world["methods"]["learned"]["turnover"] <= 0.05 for world in found.values())


# -- calibration --------------------------------------------------------------------------------------------------------------------


def test_pool_adjacent_violators_agrees_with_scipy() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    generator = np.random.default_rng(6)
    for size in (1, 2, 7, 300):
        values, weights = generator.standard_normal(size), generator.random(size) + 0.1
        assert pool_adjacent_violators(values, weights) == pytest.approx(optimize.isotonic_regression(values, weights=weights).x, abs=1e-10)


def test_beta_calibration_agrees_with_a_plain_optimizer() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    generator = np.random.default_rng(7)
    x = generator.random(400)
    won = (generator.random(400) < x**2).astype(float)
    weights = decayed(400, 250.0)
    design = np.column_stack([np.log(x), -np.log1p(-x), np.ones_like(x)])

    def loss(p: Floats) -> float:
        z = design @ p
        return float(weights @ (np.logaddexp(0.0, z) - won * z) + 0.5 * ((p[0] - 1) ** 2 + (p[1] - 1) ** 2 + 0.1 * p[2] ** 2))

    best = optimize.minimize(loss, [1.0, 1.0, 0.0], bounds=[(0, None), (0, None), (None, None)]).x
    curve = beta(x, won, weights)
    for knot, value in zip(curve.score[1:-1], curve.value[1:-1], strict=True):
        z = best @ np.array([math.log(knot), -math.log1p(-knot), 1.0])
        assert value == pytest.approx(1.0 / (1.0 + math.exp(-z)), abs=2e-4)


def errors(power: float, outcomes: int, runs: int) -> tuple[float, float, float]:
    """(ECE, log loss above the base rate's, log loss above the truth's), mean over runs, on fresh outcomes."""
    generator, found = np.random.default_rng(8), []
    for _ in range(runs):
        x, fresh = generator.random(outcomes), generator.random(20_000)
        made = calibrate(x, np.where(generator.random(outcomes) < x**power, 1.0, -1.0), Prior(0.0, 1.0), POLICY.calibration, 0.25)
        won = generator.random(20_000) < fresh**power
        told = np.interp(fresh, made.wins.score, made.wins.value)
        bins = np.minimum((told * 15).astype(int), 14)
        ece = sum(abs(told[bins == b].mean() - won[bins == b].mean()) * (bins == b).mean() for b in range(15) if (bins == b).any())
        found.append((ece, _log_loss(told, won) - _log_loss(np.full(20_000, won.mean()), won),
                      _log_loss(told, won) - _log_loss(fresh**power, won)))
    means = np.mean(found, axis=0)
    return float(means[0]), float(means[1]), float(means[2])


def _log_loss(told: Floats, won: NDArray[np.bool_]) -> float:
    bounded = np.clip(told, 1e-6, 1.0 - 1e-6)
    return float(-np.where(won, np.log(bounded), np.log1p(-bounded)).mean())


def test_a_planted_distortion_is_straightened_and_calibrated_scores_are_not_harmed() -> None:
    for power in (2.0, 1.0):
        ece, above_base, above_truth = errors(power, 20_000, 4)
        assert ece <= 0.03 and above_base <= 0.002 and above_truth <= 0.01
    for outcomes in (100, 900):
        ece, above_base, _ = errors(2.0, outcomes, 6)
        assert ece <= 0.06 and above_base <= 0.002


def test_a_validated_win_rate_counts_as_fifty_outcomes_so_that_two_hundred_lose_less_than_two_thousandths() -> None:
    generator, above = np.random.default_rng(9), []
    for _ in range(40):
        x, won = generator.random(200), generator.random(200) < 0.4
        past = float((generator.random(500) < 0.4).mean())
        made = calibrate(x, np.where(won, 1.5, -1.0), Prior(0.0, 1.0, past), POLICY.calibration, 0.25)
        told = np.interp(generator.random(20_000), made.wins.score, made.wins.value)
        expected = -0.4 * np.log(told) - 0.6 * np.log1p(-told)
        above.append(float(expected.mean()) + 0.4 * math.log(0.4) + 0.6 * math.log(0.6))
    assert np.mean(above) <= 0.002
    assert calibrate(np.zeros(0), np.zeros(0), Prior(0.1, 1.0, 0.35), POLICY.calibration, 0.25).wins.at(1.0) == pytest.approx(0.35)


@pytest.mark.parametrize("outcomes", [900, 20_000])
def test_scores_that_say_nothing_cost_next_to_nothing_against_the_base_rate(outcomes: int) -> None:
    generator, above = np.random.default_rng(9), []
    for _ in range(10):
        x, won = generator.random(outcomes), generator.random(outcomes) < 0.4
        made = calibrate(x, np.where(won, 1.5, -1.0), Prior(0.0, 1.0), POLICY.calibration, 0.25)
        fresh = generator.random(20_000) < 0.4
        above.append(_log_loss(np.interp(generator.random(20_000), made.wins.score, made.wins.value), fresh)
                     - _log_loss(np.full(20_000, 0.4), fresh))
    assert np.mean(above) <= 0.002


def test_without_outcomes_the_prior_alone_speaks_with_the_weight_of_fifty() -> None:
    made = calibrate(np.array([]), np.array([]), PRIOR, POLICY.calibration, 0.25)
    assert made.expected.at(0.5) == pytest.approx(0.2)
    assert made.lower.at(0.5) == pytest.approx(0.2 - 0.8416212 / math.sqrt(50))
    assert made.confidence(0.5) == pytest.approx((0.2 - 0.8416212 / math.sqrt(50)) / 0.25)


def test_fifty_outcomes_weigh_as_much_as_the_prior_and_losses_end_all_confidence() -> None:
    quick = POLICY.calibration.model_copy(update={"half_life_trades": 1e9})
    made = calibrate(np.full(50, 0.5), np.full(50, -0.4), PRIOR, quick, 0.25)
    assert made.expected.at(0.5) == pytest.approx((0.2 - 0.4) / 2, abs=1e-6)
    assert made.confidence(0.5) == 0.0


def test_a_rare_huge_loss_lowers_confidence_more_than_its_win_rate_would() -> None:
    often = np.where(np.arange(400) % 20 == 0, -6.0, 0.3)
    trend = np.where(np.arange(400) % 5 < 2, 2.0, -1.0)
    scores = np.full(400, 0.5)
    weak, strong = (calibrate(scores, results, PRIOR, POLICY.calibration, 0.25) for results in (often, trend))
    assert weak.wins.at(0.5) > 0.85 > 0.5 > strong.wins.at(0.5)
    assert weak.confidence(0.5) < strong.confidence(0.5)


def test_newer_outcomes_count_twice_as_much_as_those_a_half_life_older() -> None:
    assert decayed(251, 250.0)[[0, -1]] == pytest.approx([0.5, 1.0])
