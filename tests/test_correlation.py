"""Rolling correlations equal numpy's on the hours both series have, whatever is missing, corrected or late."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from modules.domain.instrument import AssetClass
from modules.domain.view import Correlated
from modules.filters.correlation import OpenPosition, ReturnsBook, correlated

NAN = math.nan
Floats = NDArray[np.float64]
FIRST_HOUR = 490_000


def random_closes(symbols: int, hours: int, seed: int, missing: float = 0.0, scale: float = 0.01) -> Floats:
    """[symbol, hour] with one common factor."""
    generator = np.random.default_rng(seed)
    common = generator.normal(0.0, scale, hours)
    returns = np.outer(generator.uniform(-1.5, 1.5, symbols), common) + generator.normal(0.0, scale, (symbols, hours))
    closes = 100.0 * np.exp(np.cumsum(returns, axis=1))
    closes[generator.random((symbols, hours)) < missing] = NAN
    return closes


def filled(closes: Floats, window: int) -> ReturnsBook:
    """Hour by hour, everybody in turn, as live; a missing hour is simply not told."""
    book = ReturnsBook(window)
    for hour in range(closes.shape[1]):
        for row in range(closes.shape[0]):
            if closes[row, hour] == closes[row, hour]:
                book.accept(str(row), FIRST_HOUR + hour, float(closes[row, hour]))
    return book


def by_numpy(closes: Floats, window: int, a: int, b: int) -> tuple[float, int]:
    """numpy.corrcoef over the last `window` hours in which both have a close now and an hour before."""
    returns = np.diff(np.log(closes), axis=1)[:, -window:]
    common = np.isfinite(returns[a]) & np.isfinite(returns[b])
    x, y = returns[a][common], returns[b][common]
    if len(x) < 2 or np.ptp(x) < 1e-12 or np.ptp(y) < 1e-12:
        return NAN, len(x)
    return float(np.corrcoef(x, y)[0, 1]), len(x)


def assert_same(book: ReturnsBook, closes: Floats, window: int) -> None:
    for a in range(closes.shape[0]):
        for b in range(closes.shape[0]):
            expected, count = by_numpy(closes, window, a, b)
            rho, n = book.pair(str(a), str(b))
            assert n == count
            assert rho == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("hours", [3, 40, 64, 65, 66, 200])
def test_every_pair_equals_numpy_before_and_after_the_window_is_full(hours: int) -> None:
    closes = random_closes(5, hours, seed=hours)
    assert_same(filled(closes, 64), closes, 64)


@pytest.mark.parametrize("missing", [0.02, 0.3, 0.7])
def test_a_missing_hour_leaves_out_its_own_return_and_the_next(missing: float) -> None:
    closes = random_closes(5, 150, seed=7, missing=missing)
    closes[:, -1] = 100.0    # somebody is heard of in the last hour, so that both windows end there
    assert_same(filled(closes, 64), closes, 64)


def test_more_symbols_than_there_was_room_for_change_nothing() -> None:
    closes = random_closes(20, 90, seed=3, missing=0.05)
    closes[0, -1] = 100.0
    assert_same(filled(closes, 48), closes, 48)


def test_symbols_that_join_late_do_not_disturb_those_that_are_there() -> None:
    closes = random_closes(20, 90, seed=3)
    closes[6:, :60] = NAN
    closes[15:, :80] = NAN
    assert_same(filled(closes, 48), closes, 48)


def test_symbols_filled_one_after_the_other_as_at_start_give_the_same() -> None:
    closes = random_closes(6, 120, seed=5)
    book = ReturnsBook(64)
    for row in range(6):
        for hour in range(120):
            book.accept(str(row), FIRST_HOUR + hour, float(closes[row, hour]))
    assert_same(book, closes, 64)


def test_a_return_that_comes_late_is_counted_where_it_belongs() -> None:
    """A series without trades tells its hour only when the next bar comes, when the others are hours ahead."""
    closes = random_closes(4, 100, seed=11)
    book = ReturnsBook(64)
    for hour in range(100):
        for row in range(3):
            book.accept(str(row), FIRST_HOUR + hour, float(closes[row, hour]))
        if hour % 10 == 9:
            book.pair("0", "3")
            for late in range(hour - 9, hour + 1):
                book.accept("3", FIRST_HOUR + late, float(closes[3, late]))
                book.pair("1", "3")
    assert_same(book, closes, 64)


def test_an_hour_told_again_replaces_its_close() -> None:
    closes = random_closes(3, 80, seed=13)
    book = ReturnsBook(64)
    for hour in range(80):
        for row in range(3):
            for draft in (closes[row, hour] * 1.5, closes[row, hour] * 0.5, closes[row, hour]):
                book.accept(str(row), FIRST_HOUR + hour, float(draft))
                book.row(str(row))
    assert_same(book, closes, 64)


def test_a_silence_longer_than_the_window_forgets_everything() -> None:
    book = filled(random_closes(2, 50, seed=1), 32)
    book.accept("0", FIRST_HOUR + 500, 100.0)
    assert book.pair("0", "1")[1] == 0
    closes = random_closes(2, 40, seed=2)
    for hour in range(40):
        for row in range(2):
            book.accept(str(row), FIRST_HOUR + 600 + hour, float(closes[row, hour]))
    assert_same(book, closes, 32)


def test_running_sums_stay_exact_after_years_and_after_a_crash_has_left_the_window() -> None:
    """Rounding must not pile up, nor the residue of a 60 % hour drown the quiet ones after it."""
    closes = random_closes(3, 3000, seed=17, scale=0.0005)
    closes[:, 1200:] *= 0.4
    closes[1, 1900:] *= 3.0
    assert_same(filled(closes, 256), closes, 256)


def test_nothing_of_a_wild_past_is_left_in_the_sums_once_they_are_renewed() -> None:
    """Swings of e^8 leave rounding in running sums that would show in a quiet series long after they have left the window."""
    generator = np.random.default_rng(41)
    wild, quiet = generator.normal(0.0, 0.1, (2, 301)), generator.normal(0.0, 4e-4, (2, 200))
    wild += np.where(np.arange(301) % 2 == 0, 8.0, -8.0)
    closes = np.exp(np.cumsum(np.concatenate([wild, quiet], axis=1), axis=1))
    assert_same(filled(closes, 64), closes, 64)


def test_a_constant_series_has_no_correlation_even_after_a_wild_past() -> None:
    generator = np.random.default_rng(0)
    closes = random_closes(3, 200, seed=19, scale=0.2)
    closes[1, 100:] = 5.0                                                  # pegged
    closes[2, 100:] = closes[2, 99] * np.exp(0.001 * np.arange(1, 101))    # grows by the same rate every hour
    closes[0] = 100.0 * np.exp(np.cumsum(generator.normal(0.0, 0.01, 200)))
    book = filled(closes, 64)
    assert math.isnan(book.pair("0", "1")[0]) and math.isnan(book.pair("0", "2")[0]) and math.isnan(book.pair("1", "1")[0])
    assert book.pair("0", "1")[1] == 64


def test_a_pegged_coin_with_rare_small_ticks_is_still_exact() -> None:
    generator = np.random.default_rng(4)
    closes = random_closes(3, 400, seed=23)
    closes[1] = 1.0 + 1e-5 * generator.integers(-1, 2, 400)
    closes[2] = closes[1] + 1e-6 * generator.integers(-1, 2, 400)
    assert_same(filled(closes, 256), closes, 256)


def test_a_row_is_what_the_pairs_are_and_is_kept_only_until_the_next_return() -> None:
    closes = random_closes(9, 100, seed=29, missing=0.1)
    book = filled(closes, 64)
    rho, count = book.row("4")
    for symbol, value, n in zip(book.symbols, rho, count, strict=True):
        assert (value, n) == (pytest.approx(book.pair("4", symbol)[0], abs=1e-12), book.pair("4", symbol)[1])
    assert book.row("4")[0] is rho
    book.accept("0", FIRST_HOUR + 100, 105.0)
    assert book.row("4")[0] is not rho


@pytest.mark.parametrize("close", [0.0, -1.0, NAN, math.inf])
def test_a_close_that_is_no_price_is_a_missing_hour(close: float) -> None:
    closes = random_closes(2, 30, seed=31)
    told = ReturnsBook(16)
    for hour in range(30):
        told.accept("0", FIRST_HOUR + hour, float(closes[0, hour]))
        told.accept("1", FIRST_HOUR + hour, close if hour == 25 else float(closes[1, hour]))
    closes[1, 25] = NAN
    assert_same(told, closes, 16)


def test_an_earlier_hour_of_the_same_symbol_is_an_error_and_unknown_symbols_know_nothing() -> None:
    book = ReturnsBook(16)
    book.accept("0", FIRST_HOUR, 1.0)
    with pytest.raises(ValueError, match="hour"):
        book.accept("0", FIRST_HOUR - 1, 1.0)
    assert book.pair("0", "nobody")[1] == 0 and math.isnan(book.pair("nobody", "0")[0])
    with pytest.raises(ValueError, match="window"):
        ReturnsBook(1)


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(16, 40), st.floats(0.0, 0.5), st.integers(2, 90))
@settings(max_examples=40, deadline=None)
def test_any_history_equals_numpy(seed: int, symbols: int, window: int, missing: float, hours: int) -> None:
    closes = random_closes(symbols, hours, seed, missing)
    closes[:, -1] = 100.0
    assert_same(filled(closes, window), closes, window)


# -- what the gate gets to see ------------------------------------------------------------------------------------------------

SPOT, PERP, FOREX = AssetClass.SPOT, AssetClass.PERP, AssetClass.FOREX


def three_series() -> ReturnsBook:
    """A and B move together (0.9), C against both, D on its own; E is constant and F young."""
    generator = np.random.default_rng(37)
    base = generator.normal(0.0, 0.01, 300)
    noise = generator.normal(0.0, 0.01, (3, 300))
    returns = {"A": base, "B": base + 0.3 * noise[0], "C": -base + 0.3 * noise[1], "D": noise[2], "E": 0.0 * base}
    book = ReturnsBook(720)
    for symbol, series in returns.items():
        for hour, close in enumerate(100.0 * np.exp(np.cumsum(series))):
            book.accept(symbol, FIRST_HOUR + hour, float(close))
    for hour in range(200, 300):
        book.accept("F", FIRST_HOUR + hour, 100.0 + hour + math.sin(hour))
    return book


BOOK = three_series()


def ask(symbol: str, sign: int, *positions: OpenPosition, **changes: Any) -> list[Correlated]:
    arguments: dict[str, Any] = {"minimum": 0.6, "returns_min": 240, **changes}
    return list(correlated(BOOK, symbol, sign, symbol, positions, **arguments))


def values(found: Sequence[Correlated]) -> list[float]:
    return [round(position.correlation, 1) for position in found]


def test_sides_turn_the_sign_of_a_correlation() -> None:
    long_b, short_b, long_c, short_c = (("B", SPOT, "B", 1), ("B", PERP, "B", -1), ("C", SPOT, "C", 1), ("C", PERP, "C", -1))
    positive = round(BOOK.pair("A", "B")[0], 1)
    assert positive == 1.0
    assert values(ask("A", 1, long_b, short_b, long_c, short_c)) == [1.0, -1.0, -1.0, 1.0]
    assert values(ask("A", -1, long_b, short_b, long_c, short_c)) == [-1.0, 1.0, 1.0, -1.0]
    assert abs(values(ask("A", 1, ("D", SPOT, "D", 1)))[0]) < 0.3


def test_the_same_underlying_counts_as_one_times_the_sides_without_any_history() -> None:
    spot, short_perp = ("X/USDT", SPOT, "X", 1), ("X/USDT:USDT", PERP, "X", -1)
    found = correlated(ReturnsBook(720), "X/USDC", 1, "X", [spot, short_perp], minimum=0.6, returns_min=240)
    assert [position.correlation for position in found] == [1.0, -1.0]


def test_too_few_returns_a_constant_series_and_an_unknown_one_count_as_the_same_bet_on_either_side() -> None:
    for sign in (1, -1):
        found = ask("A", sign, ("E", SPOT, "E", 1), ("F", SPOT, "F", 1), ("nobody", SPOT, "N", 1), ("F", SPOT, "F", -1))
        assert [position.correlation for position in found] == [1.0, 1.0, 1.0, 1.0]
        assert [position.common_returns for position in found] == [299, 99, 0, 99]


def test_the_number_of_common_returns_decides_at_its_limit() -> None:
    known, short = ask("A", -1, ("B", SPOT, "B", 1), returns_min=299), ask("A", -1, ("B", SPOT, "B", 1), returns_min=300)
    assert known[0].correlation < -0.9 and short[0].correlation == 1.0


def test_others_counts_the_open_positions_each_is_already_correlated_with_on_its_side() -> None:
    positions = [("A", SPOT, "A", 1), ("B", SPOT, "B", 1), ("C", PERP, "C", -1), ("C", FOREX, "C2", 1), ("D", SPOT, "D", 1)]
    assert [position.others for position in ask("D", 1, *positions)] == [2, 2, 2, 0, 0]
    assert [position.others for position in ask("A", 1, *positions[:1])] == [0]
    assert [(position.symbol, position.asset_class) for position in ask("A", 1, *positions)] == [(p[0], p[1]) for p in positions]


def test_without_open_positions_there_is_nothing_to_compare() -> None:
    assert ask("A", 1) == []
