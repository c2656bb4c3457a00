"""The statistics of validation against oracles nobody here computed: the printed figures of the papers, jsharpe, arch, and brute force."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest

from modules.backtest import metrics, overfit, resampling, walk_forward
from modules.backtest.bootstrap import Aim, drawdown_quantile, draws_for, max_t, politis_white, standard_error, stationary_indexes
from modules.domain.instrument import AssetClass


def noise(days: int, width: int, seed: int, phi: float = 0.0, common: float = 0.5) -> np.ndarray:
    """Correlated AR(1) columns with volatility clustering, mean zero."""
    draw = np.random.default_rng(seed)
    found = draw.standard_normal((days, width)) * math.sqrt(1 - common) + draw.standard_normal((days, 1)) * math.sqrt(common)
    found *= np.exp(0.3 * np.sin(np.arange(days) / 40.0))[:, None]
    for day in range(1, days):
        found[day] += phi * found[day - 1]
    return found * 0.01


# -- the printed figures of domain.md 7 --------------------------------------------------------------------------------------------


def test_the_probabilistic_sharpe_ratio_is_the_printed_one() -> None:
    assert round(metrics.psr(0.458, 24, -2.448, 10.164), 4) == 0.9134
    assert round(metrics.psr(0.458, 24), 4) == 0.9817


def test_the_deflated_sharpe_ratio_is_the_printed_one() -> None:
    ratio, variance = 2.5 / math.sqrt(250), 0.5 / 250
    assert round(metrics.dsr(ratio, 1250, -3, 10, 100, variance), 4) == 0.9004
    assert round(metrics.dsr(ratio, 1250, -3, 10, 46, variance), 4) == 0.9505


def test_expected_maxima_backtest_length_track_record_and_kelly_are_the_printed_ones() -> None:
    assert round(metrics.expected_max_sharpe(10), 4) == 1.5746
    assert round(metrics.expected_max_sharpe(100), 4) == 2.5306
    assert round(metrics.min_btl(45), 3) == 4.998
    assert round(metrics.min_trl(2 / math.sqrt(250), 1 / math.sqrt(250)) / 250, 3) == 2.731
    assert round(metrics.kelly(0.53), 10) == 0.06


def test_jsharpe_agrees_on_probabilistic_and_expected_maximum_ratios() -> None:
    jsharpe = pytest.importorskip("jsharpe")
    draw = np.random.default_rng(3)
    for _ in range(20):
        observed, skew, kurt, count = draw.normal(0.1, 0.1), draw.normal(0, 0.5), draw.uniform(3, 9), int(draw.integers(50, 2000))
        # jsharpe's default is the variance at the benchmark's ratio; at the observed one it is the formula of the papers.
        variance = jsharpe.sharpe_ratio_variance(observed, count, gamma3=skew, gamma4=kurt)
        theirs = jsharpe.probabilistic_sharpe_ratio(observed, SR0=0.0, variance=variance)
        assert metrics.psr(observed, count + 1, skew, kurt) == pytest.approx(float(theirs), abs=1e-12)
        trials, variance = int(draw.integers(2, 500)), draw.uniform(0.1, 2)
        theirs = jsharpe.expected_maximum_sharpe_ratio(trials, variance, SR0=0)
        assert metrics.expected_max_sharpe(trials, variance) == pytest.approx(float(theirs), rel=1e-9)


# -- the bootstrap -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phi", [0.0, 0.1, 0.3, 0.8, -0.5])
def test_arch_finds_the_same_block_length(phi: float) -> None:
    bootstrap = pytest.importorskip("arch.bootstrap")
    for count in (120, 700, 1500):
        values = noise(count, 1, count, phi)[:, 0]
        theirs = float(bootstrap.optimal_block_length(values)["stationary"].iloc[0])
        assert politis_white(values) == pytest.approx(max(1.0, theirs), rel=1e-9)


def test_arch_s_stationary_bootstrap_spreads_means_as_ours_does() -> None:
    bootstrap = pytest.importorskip("arch.bootstrap")
    values = noise(400, 1, 5, 0.3)[:, 0]
    theirs = bootstrap.StationaryBootstrap(6, values, seed=1).apply(np.mean, 4000)[:, 0]
    ours = values[stationary_indexes(len(values), 6.0, 4000, 1)].mean(axis=1)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.06)
    assert ours.mean() == pytest.approx(theirs.mean(), abs=4 * ours.std() / math.sqrt(4000))
    assert ours.std() == pytest.approx(standard_error(values[:, None], 6.0)[0] / math.sqrt(len(values)), rel=0.05)


def test_blocks_are_geometric_and_wrap_around() -> None:
    rows = stationary_indexes(500, 8.0, 200, 9)
    breaks = np.mean((np.diff(rows, axis=1) % 500) != 1)
    assert 1 / breaks == pytest.approx(8.0, rel=0.05)
    assert np.bincount(rows.ravel(), minlength=500).std() < 50 and rows.min() == 0 and rows.max() == 499


def test_the_fast_loop_gives_what_its_definition_says() -> None:
    """Resample by resample: the rows drawn, their blocks, their studentized mean, the largest over the columns."""
    daily, block, draws = noise(90, 4, 2, 0.2), 5.0, 60
    found = max_t(daily, draws, 12, block=block)
    centered = daily - daily.mean(axis=0)
    expected = []
    for rows in stationary_indexes(90, block, draws, 12):
        borders = [0, *(np.flatnonzero((np.diff(rows) % 90) != 1) + 1), 90]
        sample = centered[rows]
        mean, spread = sample.mean(axis=0), np.zeros(4)
        for begin, end in itertools.pairwise(borders):
            spread += (sample[begin:end].sum(axis=0) - (end - begin) * mean) ** 2
        expected.append(float(np.max(sample.sum(axis=0) / np.sqrt(spread))))
    # Two blocks that happen to follow one another look like one here: rare, and the only difference.
    same = np.isclose(np.sort(expected), found.maxima, rtol=1e-9)
    assert same.mean() > 0.5 and np.allclose(np.sort(expected), found.maxima, atol=0.4)


def test_compiled_and_plain_loops_give_the_same_bits() -> None:
    totals = np.concatenate((np.zeros((1, 3)), np.cumsum(np.tile(noise(40, 3, 4), (2, 1)), axis=0)))
    plain, fast = np.empty(5), np.empty(5)
    with np.errstate(over="ignore"):
        resampling.maxima(totals, np.zeros(3), np.uint64(7), 0, 4.0, plain)
    resampling.compiled_loops().maxima(totals, np.zeros(3), np.uint64(7), 0, 4.0, fast)
    assert plain.tobytes() == fast.tobytes()
    again = np.empty(2)
    resampling.compiled_loops().maxima(totals, np.zeros(3), np.uint64(7), 3, 4.0, again)
    assert again.tobytes() == fast[3:].tobytes()    # a part of the draws, computed elsewhere, is that part


def test_the_best_of_ten_noises_is_significant_as_often_as_it_should_be() -> None:
    for phi in (0.0, 0.3):
        found = np.array([max_t(noise(500, 6, 1000 + seed, phi), 200, seed).p for seed in range(120)])
        assert np.mean(found <= 0.05) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 120), phi
        assert np.mean(found <= 0.20) > 0.08, phi    # and it is no test that never rejects


def test_a_real_edge_is_found_among_trials_and_its_own_p_value_is_the_smallest() -> None:
    daily = noise(1500, 20, 8)
    daily[:, 7] += 0.01 * 6.0 / math.sqrt(1500)
    found = max_t(daily, 2000, 1)
    assert found.best == 7 and found.p <= 0.005 and found.p_of[7] == found.p
    assert found.t[7] > found.critical(0.005) > found.critical(0.05)
    assert np.sum(found.p_of <= 0.05) == 1


def test_constants_short_samples_and_faulty_values_prove_nothing() -> None:
    assert max_t(np.zeros((100, 3)), 1000, 1).p == 1.0
    assert max_t(np.full((100, 1), 0.01), 1000, 1).p == 1.0    # the same gain every day: no spread to measure it by
    assert max_t(np.zeros((1, 2)), 1000, 1).p == 1.0
    mixed = noise(300, 2, 1)
    mixed[:, 1] = 0.0
    assert max_t(mixed, 1000, 1).t[1] == -math.inf
    once = np.zeros((60, 1))
    once[7] = 0.01    # in one resample of three the only day that moves is not drawn
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = max_t(once, 2000, 1, block=1.0)
    assert np.isneginf(drawn.quantiles).any() and np.isfinite(drawn.quantiles).any() and not np.isnan(drawn.quantiles).any()
    assert list(drawn.quantiles) == sorted(drawn.quantiles) and (drawn.quantiles[0], drawn.quantiles[-1]) == (
        drawn.maxima[0], drawn.maxima[-1])
    with pytest.raises(ValueError, match="finite"):
        max_t(np.full((10, 1), np.nan), 10, 1)


def test_an_early_submission_can_be_shown_with_ten_thousand_draws_and_a_late_one_asks_for_more() -> None:
    assert draws_for(0.005, 10_000) == 10_000
    assert draws_for(0.005 / 100, 10_000) == 400_000
    assert draws_for(0.005 / 100, 10_000, 250_000) == 250_000    # so many can show it, if less surely
    assert draws_for(1e-6, 10_000, 250_000) == 10_000    # so many cannot: more than that would be for nothing
    few = max_t(noise(300, 1, 3), 1000, 1)
    assert few.critical(1 / 5000) == math.inf


@pytest.mark.parametrize("seed", range(6))
def test_a_test_that_stops_early_decides_as_one_that_does_not(seed: int) -> None:
    """Noise and edges from hopeless to plain, against limits around their p values."""
    daily = noise(400, 4, seed)
    daily[:, 2] += 0.01 * 0.8 * seed / math.sqrt(400)
    whole = max_t(daily, 3000, 7)
    for limit in (0.0005, 0.005, 0.05, float(whole.p_of[2]), float(whole.p_of[2]) * 0.999):
        found = max_t(daily, 3000, 7, aim=Aim(2, limit, 200))
        assert (found.p_of[2] <= limit) == (whole.p_of[2] <= limit), limit
        assert found.asked == 3000 and found.draws in (200, 400, 800, 1600, 3000)
        if found.draws == 3000:    # whatever was kept going is the same test to the last bit
            assert found.maxima.tobytes() == whole.maxima.tobytes()
        else:
            assert found.p_of[2] > limit and math.isfinite(found.critical(limit)) == (limit * 3001 >= 1.0)
    assert max_t(daily, 3000, 7, aim=Aim(2, 1e-9, 200)).critical(1e-9) == math.inf    # not even all that were asked for show it


def test_a_first_submission_takes_all_its_resamples_as_ever() -> None:
    daily = noise(200, 3, 5)
    with_aim, without = max_t(daily, 2000, 3, aim=Aim(0, 0.005, 2000)), max_t(daily, 2000, 3)
    assert with_aim.draws == with_aim.asked == 2000 and with_aim.maxima.tobytes() == without.maxima.tobytes()


def test_bootstrapped_drawdowns_are_as_deep_as_arch_s() -> None:
    bootstrap = pytest.importorskip("arch.bootstrap")
    values = noise(300, 1, 6)[:, 0] + 0.001
    theirs = bootstrap.StationaryBootstrap(4, values, seed=2).apply(metrics.max_drawdown, 2000)[:, 0]
    assert drawdown_quantile(values, 0.95, 4000, 1, block=4.0) == pytest.approx(float(np.quantile(theirs, 0.95)), rel=0.06)


# -- overfitting -------------------------------------------------------------------------------------------------------------------


def brute_force(daily: np.ndarray, blocks: int) -> tuple[float, float]:
    """Bailey et al. 2017, word by word."""
    parts = np.array_split(np.arange(len(daily)), blocks)
    overfitted, lost, count = 0, 0, 0
    for chosen in itertools.combinations(range(blocks), blocks // 2):
        inside = np.concatenate([parts[number] for number in chosen])
        outside = np.concatenate([parts[number] for number in range(blocks) if number not in chosen])
        best = int(np.argmax(daily[inside].mean(axis=0) / daily[inside].std(axis=0)))
        after = daily[outside].mean(axis=0) / daily[outside].std(axis=0)
        rank = sorted(after).index(after[best]) + 1
        share = rank / (daily.shape[1] + 1)
        overfitted += math.log(share / (1 - share)) <= 0
        lost += after[best] <= 0
        count += 1
    return overfitted / count, lost / count


@pytest.mark.parametrize("seed", range(6))
def test_overfitting_is_what_brute_force_over_all_splits_finds(seed: int) -> None:
    daily = noise(160 + 8 * seed, 7, seed)
    daily[:, 0] += 0.0005 * seed
    found = overfit.cscv(daily, 8)
    assert (found.pbo, found.loss_probability) == pytest.approx(brute_force(daily[: len(daily) // 8 * 8], 8), abs=1e-12)


def test_one_trial_cannot_be_overfitted_but_it_can_lose() -> None:
    found = overfit.cscv(noise(400, 1, 1) - 0.002)
    assert math.isnan(found.pbo) and found.loss_probability > 0.9 and found.splits == 12870
    assert math.isnan(overfit.cscv(noise(20, 3, 1)).loss_probability)


# -- walk-forward ------------------------------------------------------------------------------------------------------------------


def test_windows_tile_the_days_and_leave_purge_and_embargo_before_them() -> None:
    steps = walk_forward.windows(1000, 7, 0.01, 5, 0.3)
    assert steps[0].test_from == 300 and steps[-1].test_until == 1000
    assert all(one.test_until == other.test_from for one, other in itertools.pairwise(steps))
    assert all(step.test_from - step.train_until == 15 for step in steps)
    assert walk_forward.windows(12, 7, 0.01, 5, 0.3) == ()


def test_what_happens_in_a_window_or_just_before_it_cannot_change_the_choice_for_it() -> None:
    daily = noise(1000, 12, 4)
    steps = walk_forward.windows(1000, 5, 0.01, 5, 0.3)
    before = walk_forward.walk(daily, steps)
    for number, step in enumerate(steps):
        changed = daily.copy()
        changed[step.train_until :] = noise(1000, 12, 5)[step.train_until :] + 0.01
        assert walk_forward.walk(changed, steps).chosen[: number + 1] == before.chosen[: number + 1]
    assert len(before.tested) == 700


def test_neighbours_are_one_step_in_one_parameter_and_a_plateau_beats_a_peak() -> None:
    sets = [{"fast": float(fast), "slow": float(slow)} for fast in (5, 10, 20) for slow in (50, 100, 200)]
    near = walk_forward.neighbours(sets)
    assert near[4] == (1, 7, 3, 5) and set(near[0]) == {1, 3}
    daily = np.tile(noise(500, 1, 1, common=0.0), (1, 9)) - noise(500, 1, 1, common=0.0).mean()
    daily = daily + np.array([5, 5, 0, 5, 4, 0, 0, 0, 6])[None, :] * 1e-4
    assert walk_forward.choose(daily) == 8
    assert walk_forward.choose(daily, near) == 0
    assert overfit.neighbours_share(daily, 8, near[8]) == pytest.approx(0.0, abs=1e-9)
    assert overfit.neighbours_share(daily, 0, near[0]) == pytest.approx(1.0)


# -- pooling and shares ------------------------------------------------------------------------------------------------------------


def test_a_basket_is_the_mean_of_its_instruments_and_the_weekend_of_forex_is_booked_on_monday() -> None:
    first, pooled = metrics.pool((10, 12), (np.array([1.0, 1.0, 1.0]), np.array([4.0])), AssetClass.SPOT)
    assert first == 10 and pooled.tolist() == [0.5, 0.5, 2.5]
    friday = 1     # 1970-01-02
    first, pooled = metrics.pool((friday,), (np.array([1.0, 2.0, 4.0, 8.0, 16.0]),), AssetClass.FOREX)
    assert pooled.tolist() == [1.0, 14.0, 16.0]
    assert metrics.day_numbers(first, 3, AssetClass.FOREX).tolist() == [1, 4, 5]


def test_shares_months_and_drawdowns() -> None:
    days = np.arange(59)
    assert metrics.monthly(days, np.ones(59)).tolist() == [31.0, 28.0]
    assert metrics.largest_share(np.array([5.0, 3.0, 2.0])) == 0.5
    assert metrics.largest_share(np.array([5.0, -6.0])) == math.inf
    assert metrics.max_drawdown(np.array([-0.1, 0.3, -0.2, -0.05, 0.5])) == pytest.approx(0.25)
    assert math.isnan(metrics.sharpe(np.full(10, 0.1), 365)) and metrics.ratios(np.full((10, 1), 0.1))[0] == -math.inf
