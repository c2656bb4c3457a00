"""The demotion monitor finds what went wrong soon, leaves alone what goes on as validated, and says which number it was."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.demotion import KINDS, delays, envelope, false_alarms
from modules.backtest.demotion import Alarm, Deed, Drift, Monitor, compare, cusum_limit, drawdown_envelope
from tests.builders import shipped_policies
from tests.certificates import ENVELOPE

POLICY = shipped_policies().learning.demotion
NAN = math.nan


def until_alarm(monitor: Monitor, step: object, most: int) -> tuple[int, Alarm]:
    for number in range(1, most + 1):
        alarm = step(monitor)  # type: ignore[operator]
        if alarm is not None:
            return number, alarm
    raise AssertionError(f"no alarm in {most}")


def test_the_bar_of_the_cusum_is_passed_as_rarely_as_asked() -> None:
    """Simulated against Siegmund's formula, which is good to a few per cent."""
    shift, wanted = 0.5, 300.0
    limit = cusum_limit(shift, wanted)
    generator, lengths = np.random.default_rng(1), []
    for _ in range(1_500):
        total, length = 0.0, 0
        while total <= limit:
            total = max(0.0, total - generator.standard_normal() - shift / 2)
            length += 1
        lengths.append(length)
    assert np.mean(lengths) == pytest.approx(wanted, rel=0.12)


def test_losing_steadily_where_winning_was_validated_is_an_alarm_with_numbers() -> None:
    number, alarm = until_alarm(Monitor(ENVELOPE, POLICY), lambda m: m.trade(-0.5), 100)
    assert alarm.watch == "edge" and alarm.measured > alarm.limit and number < 40
    assert "+0.200 R a trade; -0.500 R after" in alarm.reason


def test_slippage_at_three_times_the_model_is_found_within_ten_trades() -> None:
    number, alarm = until_alarm(Monitor(ENVELOPE, POLICY), lambda m: m.fill(12.0, 4.0), 21)
    assert alarm.watch == "slippage" and number <= 20  # two fills a trade


def test_slippage_as_modelled_and_a_single_wild_fill_are_no_alarm() -> None:
    monitor = Monitor(ENVELOPE, POLICY)
    assert all(monitor.fill(4.0, 4.0) is None for _ in range(10_000))
    assert monitor.fill(4_000.0, 4.0) is None


def test_entries_that_half_fill_are_found_and_a_rare_miss_is_not() -> None:
    number, alarm = until_alarm(Monitor(ENVELOPE, POLICY), lambda m: m.entry(2.0, 1.0), 30)
    assert alarm.watch == "fill_ratio" and number < 12
    rare = Monitor(ENVELOPE, POLICY)
    assert all(rare.entry(1.0, 0.0 if number % 50 == 0 else 1.0) is None for number in range(5_000))


def test_a_fall_beyond_the_envelope_is_an_alarm_even_if_it_comes_in_one_trade() -> None:
    monitor = Monitor(ENVELOPE, POLICY.model_copy(update={"edge_false_alarm_years": 1e9}))
    for _ in range(20):
        assert monitor.trade(0.2) is None
    alarm = monitor.trade(-30.5)
    assert alarm is not None and alarm.watch in ("edge", "drawdown")


def test_a_win_rate_far_below_the_prediction_is_a_calibration_failure() -> None:
    """Results as high as validated, but from a few lucky winners: only the calibration sees it."""
    monitor = Monitor(ENVELOPE, POLICY)
    results = iter([3.0, -0.5, -0.5, -0.5] * 100)
    _, alarm = until_alarm(monitor, lambda m: m.trade(next(results)), 400)
    assert alarm.watch == "calibration"


def test_the_martingale_keeps_its_promise_when_wins_come_as_predicted() -> None:
    """Ville: at most alpha of all such strategies are ever accused; with two errors of grace far fewer."""
    generator, accused = np.random.default_rng(3), 0
    for _ in range(300):
        monitor = Monitor(ENVELOPE, POLICY.model_copy(update={"edge_false_alarm_years": 1e12}))
        for won in generator.random(500) < ENVELOPE.win_rate:
            alarm = monitor.trade(0.9 if won else -0.76)
            if alarm is not None and alarm.watch == "calibration":
                accused += 1
                break
    assert accused <= 6


def test_the_first_alarm_stays() -> None:
    monitor = Monitor(ENVELOPE, POLICY)
    _, first = until_alarm(monitor, lambda m: m.fill(40.0, 4.0), 50)
    assert monitor.trade(-100.0) == first == monitor.alarm


# -- live against replay ---------------------------------------------------------------------------------------------------------


def deeds(count: int) -> list[Deed]:
    return [Deed(1_000 * n, "BTC/USDT", "entry", 1, 100.0 + n) for n in range(count)]


def test_the_same_deeds_are_no_drift() -> None:
    assert compare(deeds(20), deeds(20), 1e-9) == Drift(20, 0, "")


def test_a_missing_deed_another_side_and_another_price_are_drift_and_the_first_is_named() -> None:
    live = [deed if n != 4 else Deed(deed.at, deed.symbol, deed.what, -1, deed.price) for n, deed in enumerate(deeds(20))][1:]
    replayed = deeds(20)
    replayed[9] = Deed(9_000, "BTC/USDT", "entry", 1, 110.0)
    found = compare(live, replayed, 1e-4)
    assert (found.compared, found.different) == (20, 3) and found.first == "BTC/USDT entry at 0: only in replay"
    monitor = Monitor(ENVELOPE, POLICY)
    alarm = monitor.drift(found)
    assert alarm is not None and alarm.watch == "drift" and alarm.measured == pytest.approx(0.15)


def test_signals_have_no_price_and_one_late_bar_is_no_demotion() -> None:
    one = [Deed(1, "A", "entry signal", 1, NAN)]
    assert compare(one, one, 0.0).different == 0
    assert Monitor(ENVELOPE, POLICY).drift(Drift(40, 1, "x")) is None


# -- the envelope and the figures ----------------------------------------------------------------------------------------------------


def test_the_envelope_of_independent_trades_is_what_simulating_them_gives() -> None:
    generator = np.random.default_rng(5)
    sample = generator.standard_normal(20_000)
    sample = (sample - sample.mean()) / sample.std() + 0.2
    found = drawdown_envelope(sample, 200, quantile=0.99, block=1, draws=4_000, seed=9)
    runs = np.cumsum(generator.normal(0.2, 1.0, (4_000, 200)), axis=1)
    falls = (np.maximum.accumulate(np.maximum(runs, 0.0), axis=1) - runs).max(axis=1)
    assert found == pytest.approx(float(np.quantile(falls, 0.99)), rel=0.1)
    assert found == drawdown_envelope(sample, 200, quantile=0.99, block=1, draws=4_000, seed=9)


@pytest.mark.parametrize("kind", ["normal", "winners 1.5 R"])
def test_the_figures_hold_in_small(kind: str) -> None:
    """`python -m benchmarks.demotion` shows the whole table."""
    draw = KINDS[kind]
    good = envelope(draw, 300.0, 1)
    rate, _ = false_alarms(draw, good, POLICY, 40, 1)
    assert rate <= 1.0
    assert np.median(delays(draw, good, POLICY, 60, 1, mean=-0.1, multiple=1.0, warm=50)) <= 100
    assert np.median(delays(draw, good, POLICY, 60, 1, mean=0.2, multiple=3.0, warm=0)) <= 10
