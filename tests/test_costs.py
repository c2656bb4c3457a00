"""The cost model and fill rules: what one bar may do to us, and what it costs. Numbers are worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.backtest import costs
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.liquidation import liquidation_distance

NAN = math.nan
LONG, SHORT = 1, -1
prices = st.floats(50.0, 150.0)


def test_a_market_order_pays_the_far_side_of_the_quote_then_slippage_and_impact() -> None:
    ask = costs.touched(LONG, 99.9, 100.1, False, 50.0)
    assert ask == 100.1
    assert costs.market_fill(LONG, ask, 1.0, 2.0) == pytest.approx(100.1 * 1.0003)
    assert costs.market_fill(SHORT, costs.touched(SHORT, 99.9, 100.1, False, 50.0), 1.0, 2.0) == pytest.approx(99.9 * 0.9997)


def test_a_synthetic_quote_is_never_tighter_than_the_model_but_may_be_wider() -> None:
    assert costs.touched(LONG, 100.0, 100.0, True, 5.0) == pytest.approx(100.05)
    assert costs.touched(SHORT, 100.0, 100.0, True, 5.0) == pytest.approx(99.95)
    assert costs.touched(LONG, 99.0, 101.0, True, 5.0) == 101.0


def test_impact_grows_with_the_square_root_of_the_share_of_an_average_bar() -> None:
    assert costs.impact(10.0, 100.0, 100.0) == 10.0
    assert costs.impact(10.0, 1.0, 100.0) == pytest.approx(1.0)
    assert costs.impact(10.0, 400.0, 100.0) == pytest.approx(20.0)
    assert costs.impact(10.0, 100.0, NAN) == 0.0  # FX states no volume
    assert costs.impact(10.0, 100.0, 0.0) == 10.0


def test_the_average_bar_skips_bars_without_a_volume_and_starts_at_the_first() -> None:
    average = costs.average_notional(NAN, 640.0)
    assert average == 640.0
    assert costs.average_notional(average, NAN) == 640.0
    assert costs.average_notional(average, 0.0) == pytest.approx(630.0)


def test_one_bar_fills_at_most_its_share_of_volume_less_what_it_filled_before() -> None:
    assert costs.participation(5.0, 1000.0, 0.1, 0.0) == 5.0
    assert costs.participation(500.0, 1000.0, 0.1, 0.0) == 100.0
    assert costs.participation(500.0, 1000.0, 0.1, 70.0) == pytest.approx(30.0)
    assert costs.participation(5.0, 0.0, 0.1, 0.0) == 0.0
    assert costs.participation(5.0, NAN, 0.1, 0.0) == 5.0


def test_in_an_ambiguous_bar_the_stop_was_first() -> None:
    assert costs.bar_exit(LONG, 100.0, 111.0, 94.0, 95.0, 110.0, 0.0) == (costs.STOP, 95.0)
    assert costs.bar_exit(SHORT, 100.0, 106.0, 89.0, 105.0, 90.0, 0.0) == (costs.STOP, 105.0)


def test_a_gap_through_the_stop_fills_at_the_open_and_one_beyond_the_target_at_the_target() -> None:
    assert costs.bar_exit(LONG, 93.0, 120.0, 92.0, 95.0, 110.0, 0.0) == (costs.STOP, 93.0)
    assert costs.bar_exit(LONG, 112.0, 113.0, 94.0, 95.0, 110.0, 0.0) == (costs.TARGET, 110.0)  # the open is known to come first
    assert costs.bar_exit(SHORT, 107.0, 108.0, 80.0, 105.0, 90.0, 0.0) == (costs.STOP, 107.0)


def test_a_target_that_is_only_touched_is_not_filled() -> None:
    assert costs.bar_exit(LONG, 100.0, 110.0, 99.0, 95.0, 110.0, 0.0)[0] == costs.NO_EXIT
    assert costs.bar_exit(LONG, 100.0, 110.01, 99.0, 95.0, 110.0, 0.0) == (costs.TARGET, 110.0)


def test_without_stop_or_target_nothing_happens() -> None:
    assert costs.bar_exit(LONG, 100.0, 1e9, 1e-9, NAN, NAN, 0.0)[0] == costs.NO_EXIT


def test_orders_in_bars_of_mids_trigger_on_the_side_they_trade_on() -> None:
    assert costs.bar_exit(LONG, 100.0, 101.0, 95.05, 95.0, NAN, 0.1) == (costs.STOP, 95.0)  # the bid was 94.95
    assert costs.bar_exit(LONG, 100.0, 101.0, 95.05, 95.0, NAN, 0.0)[0] == costs.NO_EXIT
    assert costs.bar_exit(SHORT, 100.0, 101.0, 89.95, NAN, 90.0, 0.1)[0] == costs.NO_EXIT  # the ask was 90.05
    assert costs.bar_exit(LONG, 94.0, 101.0, 93.0, 95.0, NAN, 0.1) == (costs.STOP, 93.9)
    assert costs.quote_offset(1.1, 1.1002, 1.1, 0.5) == pytest.approx(0.0001)
    assert costs.quote_offset(NAN, NAN, 100.0, 0.5) == pytest.approx(0.005)


@given(prices, prices, prices, prices, prices, prices, st.sampled_from((LONG, SHORT)), st.floats(0.0, 0.5))
@settings(max_examples=200, deadline=None)
def test_an_exit_is_never_better_than_the_bar_allows(
    open_price: float, a: float, b: float, stop: float, target: float, spare: float, side: int, offset: float
) -> None:
    high, low = max(open_price, a, b), min(open_price, a, b)
    code, raw = costs.bar_exit(side, open_price, high, low, stop, target, offset)
    if code == costs.STOP:
        assert side * (raw - stop) <= 1e-9  # at the stop or worse
        assert (low - offset <= stop) if side == LONG else (high + offset >= stop)
    elif code == costs.TARGET:
        assert raw == target
        assert (high - offset > target) if side == LONG else (low + offset < target)
    else:
        assert math.isnan(raw)
        assert (low - offset > stop and high - offset <= target) if side == LONG else (high + offset < stop and low + offset >= target)


def test_a_stop_order_loses_its_slippage_beyond_the_raw_price() -> None:
    assert costs.stop_fill(SHORT, 95.0, 1.0, 2.0, 3.0) == pytest.approx(95.0 * (1 - 6e-4))
    assert costs.stop_fill(LONG, 95.0, 1.0, 2.0, 3.0) == pytest.approx(95.0 * (1 + 6e-4))


def test_the_stop_moves_to_break_even_then_trails_and_never_loosens() -> None:
    assert costs.next_stop(LONG, 100.0, 95.0, 104.0, 5.0, 1.0, 2.0, 1.0) == 95.0
    assert costs.next_stop(LONG, 100.0, 95.0, 105.0, 5.0, 1.0, 2.0, 1.0) == 100.0
    assert costs.next_stop(LONG, 100.0, 100.0, 112.0, 5.0, 1.0, 2.0, 1.0) == 107.0
    assert costs.next_stop(LONG, 100.0, 108.0, 112.0, 5.0, 1.0, 2.0, 1.0) == 108.0
    assert costs.next_stop(SHORT, 100.0, 105.0, 88.0, 5.0, 1.0, 2.0, 1.0) == 93.0
    assert costs.next_stop(LONG, 100.0, 95.0, 200.0, 5.0, 0.0, 0.0, 1.0) == 95.0  # both switched off
    assert costs.next_stop(LONG, 100.0, 95.0, 200.0, 0.0, 1.0, 2.0, 1.0) == 95.0  # no initial risk, no R


@given(st.sampled_from((LONG, SHORT)), st.floats(90, 99), st.floats(50, 150), st.floats(0, 3), st.floats(0, 3), st.floats(0, 3))
def test_the_next_stop_is_never_further_away(side: int, stop: float, best: float, even: float, trail: float, distance: float) -> None:
    first = 100.0 - side * (100.0 - stop)
    moved = costs.next_stop(side, 100.0, first, best, 100.0 - stop, even, trail, distance)
    assert side * (moved - first) >= 0.0


def test_longs_pay_positive_funding_and_shorts_receive_it() -> None:
    assert costs.funding(Decimal(10_000), Decimal("0.0001")) == Decimal("-1.0000")
    assert costs.funding(-10_000.0, 0.0001) == pytest.approx(1.0)


def test_fx_financing_is_the_sides_stated_rate_per_calendar_night() -> None:
    assert costs.financing(Decimal(36_500), Decimal("0.01"), 3) == Decimal(3)
    assert costs.financing(36_500.0, -0.03, 1) == pytest.approx(-3.0)


def test_liquidation_is_where_margin_has_shrunk_to_maintenance_for_both_sides() -> None:
    for side in (LONG, SHORT):
        entry, leverage, maintenance = 100.0, 3.0, 0.01
        price = costs.liquidation_price(side, entry, leverage, maintenance)
        assert entry / leverage + side * (price - entry) == pytest.approx(maintenance * price)
        assert entry / leverage + side * (costs.bankruptcy_price(side, entry, leverage) - entry) == pytest.approx(0.0)
    assert costs.liquidation_price(LONG, Decimal(100), Decimal(1), Decimal("0.01")) == 0


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_the_venue_liquidates_where_the_sizer_thinks_it_does(side: Side) -> None:
    instrument = Instrument("X/USDT:USDT", "v", AssetClass.PERP, "X", "USDT", "USDT", "X", Decimal("0.01"), Decimal(1))
    distance = liquidation_distance(instrument, side, Decimal(3), Decimal("0.01"))
    price = costs.liquidation_price(side.sign, Decimal(100), Decimal(3), Decimal("0.01"))
    assert abs(price - 100 * (1 - side.sign * distance)) < Decimal("1e-20")


def test_an_options_fee_is_of_the_underlying_but_at_most_an_eighth_of_the_premium() -> None:
    assert costs.option_fee(Decimal("0.0003"), Decimal(50_000), Decimal(1_000), Decimal("0.125")) == Decimal(15)
    assert costs.option_fee(0.0003, 50_000.0, 40.0, 0.125) == pytest.approx(5.0)


def test_an_option_is_worth_its_intrinsic_value_and_never_less_than_nothing() -> None:
    assert costs.option_value(True, 110.0, 100.0) == 10.0
    assert costs.option_value(True, 90.0, 100.0) == 0.0
    assert costs.option_value(False, Decimal(90), Decimal(100)) == Decimal(10)


def test_the_functions_handed_to_the_kernel_call_each_other_compiled() -> None:
    called: list[str] = []

    def compiler(function: Callable[..., Any]) -> Callable[..., Any]:
        def compiled(*arguments: Any) -> Any:
            called.append(function.__name__)
            return function(*arguments)

        return compiled

    kernel = costs.compile_with(compiler)
    assert kernel["bar_exit"](LONG, 100.0, 111.0, 94.0, 95.0, 110.0, 0.0) == (costs.STOP, 95.0)
    assert called == ["bar_exit", "stop_reached", "limit_reached"]


def test_numba_compiles_them_to_the_same_results() -> None:
    numba = pytest.importorskip("numba")
    kernel = costs.compile_with(numba.njit)
    for name, arguments in {
        "bar_exit": (LONG, 100.0, 111.0, 94.0, 95.0, 110.0, 0.0), "next_stop": (LONG, 100.0, 95.0, 105.0, 5.0, 1.0, 2.0, 1.0),
        "impact": (10.0, 400.0, 100.0), "participation": (500.0, 1000.0, 0.1, 70.0), "liquidation_price": (LONG, 100.0, 3.0, 0.01),
        "stop_fill": (SHORT, 95.0, 1.0, 2.0, 3.0), "touched": (LONG, 100.0, 100.0, True, 5.0), "financing": (36_500.0, 0.02, 3),
        "average_notional": (NAN, 640.0), "quote_offset": (NAN, NAN, 100.0, 0.5), "market_fill": (LONG, 100.0, 1.0, 2.0),
        "funding": (-10_000.0, 0.0001), "bankruptcy_price": (SHORT, 100.0, 3.0), "option_fee": (0.0003, 50_000.0, 40.0, 0.125),
        "option_value": (True, 110.0, 100.0),
    }.items():
        assert kernel[name](*arguments) == getattr(costs, name)(*arguments), name
