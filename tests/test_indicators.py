"""Indicators against independent definitions."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.domain.signal import Intent
from modules.strategies.holding import NOTHING, kept, taken
from modules.strategies.indicators import (
    NAN,
    atr_init,
    atr_step,
    day_number,
    deviation,
    donchian_init,
    donchian_step,
    ema,
    ema_weight,
    graded,
    minute_of_day,
    rsi_init,
    rsi_step,
    variance_init,
    variance_step,
    weekday,
    window_init,
    window_step,
    zscore,
)

prices = st.floats(min_value=1e-6, max_value=1e7, allow_nan=False, allow_infinity=False)


def test_an_ema_starts_at_its_first_value_and_weighs_by_two_over_period_plus_one() -> None:
    value = ema(NAN, 10.0, ema_weight(3))
    assert value == 10.0
    value = ema(value, 20.0, ema_weight(3))
    assert value == 15.0
    assert ema(value, 15.0, ema_weight(3)) == 15.0


def test_an_atr_is_the_plain_mean_of_true_ranges_first_and_wilders_average_after() -> None:
    bars = [(10.0, 8.0, 9.0), (12.0, 9.0, 11.0), (11.0, 6.0, 7.0), (8.0, 7.5, 8.0), (20.0, 19.0, 19.5)]
    true_ranges = [2.0, 3.0, 5.0, 1.0, 12.0]  # the last from the gap: 20 - 8
    state = atr_init()
    seen = []
    for high, low, close in bars:
        state = atr_step(state, high, low, close, 3)
        seen.append(state.value)
    third = sum(true_ranges[:3]) / 3
    fourth = (third * 2 + true_ranges[3]) / 3
    fifth = (fourth * 2 + true_ranges[4]) / 3
    assert seen == pytest.approx([2.0, 2.5, third, fourth, fifth], rel=1e-14)
    assert [atr_step(atr_init(), 10.0, 8.0, 9.0, 3).seen, state.seen] == [1, 3]


def test_rsi_reproduces_the_textbook_series_of_fourteen_days() -> None:
    closes = [44.34, 44.09, 44.15, 43.61, 44.33, 44.83, 45.10, 45.42, 45.84, 46.08, 45.89, 46.03, 45.61, 46.28, 46.28, 46.00, 46.03]
    state = rsi_init()
    values = []
    for close in closes:
        state = rsi_step(state, close, 14)
        values.append(state.value)
    assert [round(value, 2) for value in values[14:]] == [70.46, 66.25, 66.48]


def test_rsi_is_fifty_while_nothing_moves_and_a_hundred_while_everything_rises() -> None:
    state = rsi_init()
    for _ in range(20):
        state = rsi_step(state, 5.0, 14)
    assert state.value == 50.0
    state = rsi_init()
    for close in range(1, 40):
        state = rsi_step(state, float(close), 14)
    assert state.value == 100.0


@settings(max_examples=60, deadline=None)
@given(st.lists(prices, min_size=1, max_size=80), st.integers(min_value=1, max_value=17))
def test_a_donchian_channel_is_the_highest_and_lowest_of_exactly_the_last_bars(values: list[float], period: int) -> None:
    state = donchian_init(period)
    for number, value in enumerate(values):
        state = donchian_step(state, value * 1.01, value)
        window = values[max(0, number + 1 - period) : number + 1]
        assert (state.high, state.low) == (max(window) * 1.01, min(window))
        assert state.seen == min(number + 1, period)


@settings(max_examples=60, deadline=None)
@given(st.lists(prices, min_size=2, max_size=80), st.integers(min_value=2, max_value=17))
def test_a_window_has_the_mean_and_deviation_numpy_finds_in_the_last_values(values: list[float], period: int) -> None:
    state = window_init(period)
    for number, value in enumerate(values):
        state = window_step(state, value)
        recent = np.array(values[max(0, number + 1 - period) : number + 1])
        scale = float(np.abs(values[: number + 1]).max())
        assert state.mean == pytest.approx(float(recent.mean()), abs=1e-12 * scale)
        assert state.m2 / state.seen == pytest.approx(float(recent.var()), abs=1e-12 * scale * scale)


def test_a_window_far_from_zero_does_not_drift_over_a_hundred_thousand_bars() -> None:
    source = random.Random(5)
    state = window_init(288)
    recent: list[float] = []
    for _ in range(100_000):
        value = 1_000_000.0 + source.gauss(0.0, 0.5)
        state = window_step(state, value)
        recent.append(value)
    truth = np.array(recent[-288:])
    assert deviation(state) == pytest.approx(float(truth.std()), rel=1e-9)
    assert zscore(state, recent[-1]) == pytest.approx(float((recent[-1] - truth.mean()) / truth.std()), abs=1e-6)


def test_the_z_score_of_a_market_that_does_not_move_is_zero_not_rounding_noise() -> None:
    state = window_init(10)
    for _ in range(25):
        state = window_step(state, 0.1)
    assert zscore(state, 0.1) == 0.0
    assert zscore(window_init(10), 3.0) == 0.0


def test_realized_variance_is_per_year_whatever_the_bar_length_and_the_holes() -> None:
    for minutes in (1, 5, 60):
        state = variance_init()
        at, price = 0.0, 100.0
        for number in range(200):
            elapsed = minutes * (1 + number % 3)  # holes in the data
            at += elapsed * 60_000.0
            price *= 1.0 + (0.8 * math.sqrt(elapsed / 525_600.0)) * (1.0 if number % 2 else -1.0)
            state = variance_step(state, price, at, 50)
        assert math.sqrt(state.value) == pytest.approx(0.8, rel=1e-9)


def test_a_bar_that_comes_twice_teaches_the_variance_nothing() -> None:
    state = variance_step(variance_init(), 100.0, 1000.0, 10)
    again = variance_step(state, 110.0, 1000.0, 10)
    assert (again.value, again.seen) == (0.0, 0)


def test_the_clock_of_a_bar_agrees_with_the_calendar() -> None:
    for moment in (
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 10, 25, 23, 59, 59, 999_000, tzinfo=UTC),
        datetime(2024, 2, 29, 7, 5, tzinfo=UTC),
    ):
        at = float(round(moment.timestamp() * 1000))
        assert minute_of_day(at) == moment.hour * 60 + moment.minute
        assert weekday(at) == moment.weekday()
        assert day_number(at) == (moment.date() - datetime(1970, 1, 1, tzinfo=UTC).date()).days


def test_a_score_starts_at_four_tenths_and_ends_at_one() -> None:
    assert [graded(strength) for strength in (-1.0, 0.0, 0.5, 1.0, 7.0, NAN)] == [0.4, 0.4, 0.7, 1.0, 1.0, 0.4]


def test_a_held_view_ends_at_its_stop_its_target_or_its_time() -> None:
    long = taken(0.6, 100.0, 2.0, 4.0, 10)
    assert kept(long, 101.0, 98.1).intent == Intent(0.6, 2.0, 4.0, 10)
    assert kept(long, 101.0, 98.0) == NOTHING
    assert kept(long, 104.0, 99.0) == NOTHING
    short = taken(-0.6, 100.0, 2.0, 4.0, 10)
    assert kept(short, 101.9, 99.0).intent.score == -0.6
    assert kept(short, 102.0, 99.0) == NOTHING
    assert kept(short, 101.0, 96.0) == NOTHING
    brief = kept(taken(0.6, 100.0, 2.0, 4.0, 2), 101.0, 99.0)
    assert brief.bars == 1
    assert kept(brief, 101.0, 99.0) == NOTHING
    endless = taken(0.5, 100.0, 0.0, 0.0, 0)
    assert kept(endless, 1e9, 1e-9).bars == 1
