"""The validation kernel: what it trades is what the daemon trades. The default run takes its lines in plain Python, which are the ones that
get compiled; the slow tests compile them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pytest

from benchmarks import common, parity
from modules.backtest import kernel, kernel_tape, tasks
from modules.backtest.kernel import REASONS, Rules, Run, StrategyFault
from modules.backtest.series import Series
from modules.domain.instrument import AssetClass
from modules.domain.order import ExitReason
from modules.domain.signal import FLAT, Intent, Structure
from modules.strategies.protocol import Market, Strategy
from modules.strategies.registry import all_strategies
from tests.test_series import MINUTE, START, walk

NEEDS_DATA = pytest.mark.skipif(not parity.SHARED.is_dir(), reason="the recordings are not here")


class Plan(NamedTuple):
    enter: int = 10
    leave: int = 40
    side: float = 1.0
    stop: float = 0.0
    target: float = 0.0
    hold: int = 0


class Count(NamedTuple):
    bars: int


def begin(params: Plan) -> Count:
    return Count(0)


def planned(state: Count, market: Market, params: Plan) -> tuple[Count, Intent]:
    """A view from bar `enter` to bar `leave`."""
    bars = state.bars + 1
    if params.enter <= bars <= params.leave:
        return Count(bars), Intent(params.side, params.stop, params.target, params.hold)
    return Count(bars), FLAT


def strategy(step: Callable[..., Any] = planned, **changed: Any) -> Strategy:
    return Strategy(name="planned", description="a view from one bar to another", asset_classes=tuple(AssetClass), params=Plan(**changed),
                    init=begin, step=step, warmup=0)


def rules(**changed: Any) -> Rules:
    return Rules(common.policies(), gates=False, **changed)


def plain(what: Strategy, series: Series, by: Rules | None = None, **window: Any) -> Run:
    return kernel.run(what, what.params, series, by or rules(), compiled=False, **window)


def reason(run: Run, trade: int = 0) -> ExitReason | None:
    return REASONS[int(run.trades["reason"][trade])]


def flat(bars: int = 60, price: float = 100.0) -> Series:
    """A market that does not move."""
    series = walk(bars)
    still = np.full(bars, price)
    return replace(series, open=still, high=still.copy(), low=still.copy(), close=still.copy())


def shaped(series: Series, bar: int, **prices: float) -> Series:
    columns = {name: getattr(series, name).copy() for name in prices}
    for name, price in prices.items():
        columns[name][bar] = price
    return replace(series, **columns)


def test_a_view_enters_at_the_next_open_and_leaves_at_the_open_after_it_is_gone() -> None:
    run = plain(strategy(), walk())
    (trade,) = run.trades
    assert (trade["entry_bar"], trade["exit_bar"]) == (10, 41)
    assert trade["entry_at"] == START + 10 * MINUTE + 50
    assert reason(run) is ExitReason.EXIT_SIGNAL


def test_the_round_trip_in_a_still_market_costs_spread_slippage_impact_and_two_fees() -> None:
    run = plain(strategy(), flat())
    model = common.policies().costs.SPOT
    impact = model.impact_bp * math.sqrt(1_000.0 / 1e8)
    entry = 100.0 * (1 + model.half_spread_bp / 1e4) * (1 + (model.slippage_bp + impact) / 1e4)
    leave = 100.0 * (1 - model.half_spread_bp / 1e4) * (1 - (model.slippage_bp + impact) / 1e4)
    assert run.trades["entry"][0] == pytest.approx(entry, rel=1e-6)
    assert run.trades["exit"][0] == pytest.approx(leave, rel=1e-6)
    fee = float(model.taker_fee)
    assert run.trades["net"][0] == pytest.approx(run.trades["quantity"][0] * (leave * (1 - fee) - entry / (1 - fee)), rel=1e-4)
    assert run.daily.sum() == pytest.approx(run.trades["net"].sum() / 1_000.0)


def test_a_bar_that_holds_stop_and_target_is_a_stop() -> None:
    run = plain(strategy(stop=2.0, target=2.0), shaped(flat(), 20, high=105.0, low=95.0))
    assert reason(run) is ExitReason.STOP_LOSS
    assert run.trades["exit_bar"][0] == 20
    assert run.trades["exit"][0] < 98.01


def test_a_target_must_be_traded_through_and_fills_at_its_price() -> None:
    aimed = 100.0 * (1 + common.policies().costs.SPOT.half_spread_bp / 1e4) + 2.0
    assert reason(plain(strategy(stop=5.0, target=2.0), shaped(flat(), 20, high=aimed))) is ExitReason.EXIT_SIGNAL
    run = plain(strategy(stop=5.0, target=2.0), shaped(flat(), 20, high=aimed + 0.001))
    assert reason(run) is ExitReason.ROI
    assert run.trades["exit"][0] == pytest.approx(aimed, rel=1e-12)


def test_nothing_trades_inside_a_hole_and_the_stop_fills_at_the_open_after_it() -> None:
    series = flat()
    at = series.at.copy()
    at[20:] += 600 * MINUTE
    after = shaped(replace(series, at=at), 20, open=80.0, low=79.0)
    run = plain(strategy(stop=2.0), after)
    assert reason(run) is ExitReason.STOP_LOSS
    assert run.trades["exit_bar"][0] == 20
    assert 79.9 < run.trades["exit"][0] < 80.0


def test_an_entry_before_a_hole_is_given_up() -> None:
    series = flat()
    at = series.at.copy()
    at[10:] += 600 * MINUTE
    assert len(plain(strategy(), replace(series, at=at)).trades) == 0


def test_a_holding_time_ends_a_trade_and_the_view_must_turn_before_the_next_one() -> None:
    run = plain(strategy(hold=5), flat())
    assert len(run.trades) == 1
    assert reason(run) is ExitReason.TIME_EXIT
    assert run.trades["exit_bar"][0] - run.trades["entry_bar"][0] == 5


def test_spot_is_never_sold_short_and_a_direction_allows_one_side_only() -> None:
    assert len(plain(strategy(side=-1.0), flat()).trades) == 0
    perp = walk(200, AssetClass.PERP)
    assert plain(strategy(side=-1.0), perp).trades["side"].tolist() == [-1]
    assert len(plain(strategy(side=-1.0), perp, direction=1).trades) == 0


def test_a_long_pays_positive_funding_on_its_notional() -> None:
    series = flat()
    series = replace(series, instrument=replace(walk(60, AssetClass.PERP).instrument), funding_at=series.at[[20]],
                     funding_rate=np.array([0.001]), funding_hours=np.array([8.0]), funding_predicted=np.array([np.nan]),
                     funding_mark=np.array([101.0]))
    run = plain(strategy(stop=5.0), series)
    assert run.trades["funding"][0] == pytest.approx(-run.trades["quantity"][0] * 101.0 * 0.001, rel=1e-12)


def test_entries_keep_to_their_window_and_what_is_open_is_forced_out_at_its_end() -> None:
    series = flat()
    assert len(plain(strategy(), series, trade_from=int(series.at[12])).trades) == 0
    run = plain(strategy(), series, trade_until=int(series.at[20]))
    assert reason(run) is ExitReason.FORCE_EXIT
    assert run.trades["exit_bar"][0] == 21


def test_twice_the_costs_cost_about_twice() -> None:
    once, twice = plain(strategy(), flat()), plain(strategy(), flat(), kernel.stressed(rules(), 2.0))
    assert twice.trades["net"][0] == pytest.approx(2.0 * once.trades["net"][0], rel=1e-2)


def test_no_prefix_of_the_data_changes_an_earlier_trade() -> None:
    what = parity.strategies()["random_01"]
    series = walk(1500)
    whole, part = plain(what, series), plain(what, series.part(0, 900), finish=False)
    assert len(part.trades) > 3
    assert (whole.trades[: len(part.trades)] == part.trades).all()


def test_a_blackout_and_a_thin_market_let_nothing_in() -> None:
    series = replace(walk(200), volume=np.full(200, 1e6), quote_volume=np.full(200, 1e8))
    gated = replace(rules(), gates=True)
    assert len(plain(strategy(), series, gated).trades) == 1
    shut = np.full((200, 2), np.nan)
    shut[5:12] = np.inf
    assert len(plain(strategy(), replace(series, news=shut), gated).trades) == 0
    assert len(plain(strategy(), replace(series, quote_volume=np.full(200, 10.0)), gated).trades) == 0


# -- strategies that misbehave ---------------------------------------------------------------------------------------------------------


def raising(state: Count, market: Market, params: Plan) -> tuple[Count, Intent]:
    return Count(state.bars + 1), Intent(1.0 / (30 - state.bars), 0.0, 0.0, 0)


def not_a_number(state: Count, market: Market, params: Plan) -> tuple[Count, Intent]:
    return Count(state.bars + 1), Intent(math.nan if state.bars == 7 else 0.0, 0.0, 0.0, 0)


def absurd(state: Count, market: Market, params: Plan) -> tuple[Count, Intent]:
    return Count(state.bars + 1), Intent(0.5, 1e308 if state.bars == 7 else 1.0, 0.0, 0)


@pytest.mark.parametrize(("step", "bar", "words"), [(raising, 30, "ZeroDivisionError"), (not_a_number, 7, "out of range"),
                                                    (absurd, 7, "out of range")])
def test_a_strategy_that_misbehaves_is_named_with_its_bar(step: Callable[..., Any], bar: int, words: str) -> None:
    with pytest.raises(StrategyFault, match=words) as caught:
        plain(strategy(step), flat())
    assert (caught.value.bar, caught.value.at) == (bar, int(flat().at[bar]))


def test_prices_that_are_no_prices_are_not_believed() -> None:
    series = shaped(flat(), 15, open=math.nan, high=math.nan, low=math.nan, close=math.nan)
    assert np.isfinite(plain(strategy(), series).trades["net"]).all()


def test_the_fill_ratio_is_what_the_bars_volume_let_through() -> None:
    series = walk(60)
    thin = replace(series, volume=np.full(60, 4.0 * 1_000.0 / float(series.close[10])))  # a tenth of it: 400 of the 1,000 wanted
    found = kernel.run(strategy(), Plan(), thin, rules(), compiled=False)
    shares = tasks.filled([found], 1.0 - 0.001)
    assert len(shares) == 1 and shares[0] == pytest.approx(0.4, rel=0.05)
    dry = kernel.run(strategy(), Plan(), replace(series, volume=np.zeros(60)), rules(), compiled=False)
    assert dry.unfilled == 1 and tasks.filled([dry], 1.0).tolist() == [0.0]


@pytest.mark.parametrize(("left", "bars"), [(3.0, 41), (60.0, 43)])
def test_coins_that_no_venue_takes_any_more_end_a_trade_and_are_lost(left: float, bars: int) -> None:
    """The bar's volume lets all but `left` USD of the position out before the order lapses (Portfolio_Manager._sweep)."""
    series = replace(flat(), volume=np.full(60, 1e6), instrument=replace(flat().instrument, notional_min=Decimal(5)))
    whole = plain(strategy(), series).trades[0]
    sold = whole["quantity"] * (1.0 - left / 1_000.0)
    volume = series.volume.copy()
    volume[40] = sold / float(common.policies().costs.SPOT.participation_max)
    volume[41] = 0.0
    found = plain(strategy(), replace(series, volume=volume)).trades
    assert len(found) == 1 and found["exit_bar"][0] == bars
    assert whole["net"] - found["net"][0] == pytest.approx(left if bars == 41 else 0.0, abs=0.1)


@pytest.mark.parametrize("stop_outs", [0, 9, 64])
def test_any_number_of_stop_outs_the_policy_allows_can_be_asked_about(stop_outs: int) -> None:
    policies = common.policies()
    asked = policies.model_copy(update={"risk": policies.risk.model_copy(update={"cooldown_stop_outs": stop_outs})})
    assert len(kernel.run(strategy(), Plan(), walk(60), Rules(asked, gates=False), compiled=False).trades) == 1


def test_option_structures_are_refused_by_name() -> None:
    option = next(one for one in all_strategies().values() if one.structure is not Structure.SINGLE)
    with pytest.raises(StrategyFault, match=option.name):
        plain(option, flat())


# -- against the daemon -----------------------------------------------------------------------------------------------------------------


@NEEDS_DATA
def test_the_kernel_trades_what_the_daemon_trades_on_a_short_recording() -> None:
    case = parity.CASES[0]
    daemon = parity.in_a_process_of_its_own(case, "random_01", parity.SHARED, 4000)
    ours, bars = parity.kernel_trades(case, "random_01", parity.SHARED, 4000, compiled=False)
    assert bars == 4000
    assert len(ours) > 20
    assert list(parity.differences(daemon, ours)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trend", "reversion", "breakout", "random_01", "random_02"])
def test_the_compiled_kernel_gives_the_same_bits_as_plain_python(name: str) -> None:
    what, series = parity.strategies()[name], walk(5000, AssetClass.PERP)
    quick, slow = kernel.run(what, what.params, series, rules()), plain(what, series)
    assert len(slow.trades) > 0
    assert (quick.trades == slow.trades).all()
    assert (quick.daily == slow.daily).all()
    assert (kernel.sweep(what, [what.params], series, rules()).daily[:, 0] == slow.daily).all()


@pytest.mark.slow
@pytest.mark.parametrize("step", [raising, not_a_number])
def test_a_compiled_strategy_that_misbehaves_is_named_with_its_bar_too(step: Callable[..., Any]) -> None:
    what = strategy(step)
    with pytest.raises(StrategyFault) as caught:
        kernel.run(what, what.params, flat(), rules())
    assert caught.value.bar == (30 if step is raising else 7)


@pytest.mark.slow
@NEEDS_DATA
def test_every_strategy_trades_on_real_bars_as_in_the_daemon() -> None:
    assert parity.main([]) == 0


def test_a_process_keeps_the_tapes_it_used_last_and_no_more_than_it_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (walk(60, seed=seed) for seed in (1, 2, 3))
    kept = kernel_tape.tape(first, rules(), 1, quick=False)
    assert kernel_tape.tape(first, rules(), 1, quick=False) is kept
    monkeypatch.setattr(kernel_tape, "TAPES_BYTES_MAX", sum(array.nbytes for array in kept))
    kernel_tape.tape(second, rules(), 1, quick=False)
    assert kernel_tape.tape(first, rules(), 1, quick=False) is kept  # two: the one in use, and room for one more
    kernel_tape.tape(third, rules(), 1, quick=False)
    assert kernel_tape.tape(first, rules(), 1, quick=False) is kept
    kernel_tape.tape(second, rules(), 1, quick=False)
    kernel_tape.tape(third, rules(), 1, quick=False)
    assert kernel_tape.tape(first, rules(), 1, quick=False) is not kept


def half_said(state: Count, market: Market, params: Plan) -> tuple[Count, Intent]:
    return state, Intent(params.side, market.close * 0.01)


def test_an_intent_that_leaves_values_to_their_defaults_runs_plain_and_is_refused_compiled_by_file_line_and_remedy() -> None:
    pytest.importorskip("numba")
    what = strategy(half_said)
    assert plain(what, flat()).daily.size
    with pytest.raises(StrategyFault, match=r"strategy planned: test_kernel\.py, line \d+: Intent\(.*\) gives 2 of an Intent's 4 values"):
        kernel.run(what, what.params, flat(), rules())
