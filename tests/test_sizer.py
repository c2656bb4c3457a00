"""The four-phase sizing plan: borders, worked examples, every rule that can bind, and properties over any account."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, event, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from config import load_policies
from modules.domain.decision import BoundBy, Check, Rule, Size
from modules.domain.events import Fact, PhaseChanged
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.liquidation import leverage_safe, liquidation_distance
from modules.domain.market import Quote
from modules.domain.policies import SizingPolicy
from modules.domain.signal import Signal, Structure
from modules.domain.view import OptionView, TradingState, View
from modules.runtime.clock import WallClock
from modules.Sizer import Sizer
from modules.store.journal import Journal

D = Decimal
POLICIES = load_policies(Path(__file__).resolve().parents[1] / "policies")
EXAMPLES = hypothesis_settings(max_examples=10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "release" else 300, deadline=None,
                               suppress_health_check=[HealthCheck.too_slow])    # a busy machine is not a fault of the code

SPOT = Instrument("BTC/USDT", "demo", AssetClass.SPOT, "BTC", "USDT", "USDT", "BTC", D("0.01"), D("0.000001"), taker_fee=D("0.001"))
PERP = Instrument("BTC/USDT:USDT", "demo", AssetClass.PERP, "BTC", "USDT", "USDT", "BTC", D("0.1"), D("0.001"), taker_fee=D("0.00055"),
                  leverage_max=D(50), maintenance_margin=D("0.005"))
FOREX = Instrument("EUR/USD", "demo", AssetClass.FOREX, "EUR", "USD", "USD", "EUR/USD", D("0.00001"), D(1), leverage_max=D(30))
OPTION = Instrument("BTC/USDT:USDT-261225-100000-C", "demo", AssetClass.OPTION, "BTC", "USDT", "USDT", "BTC", D("0.1"), D("0.1"))
BY_CLASS = {instrument.asset_class: instrument for instrument in (SPOT, PERP, FOREX, OPTION)}


def a_signal(instrument: Instrument = SPOT, confidence: float = 0.8, entry: float = 100.0, stop: float | None = 97.0, side: Side = Side.BUY,
             structure: Structure = Structure.SINGLE) -> Signal:
    return Signal(0, "trend", instrument.symbol, instrument.asset_class, side, confidence, confidence, entry, stop, None, 0, 300_000,
                  structure)


def a_view(instrument: Instrument = SPOT, equity: str | Decimal | None = "7500", **changes: Any) -> View:
    """A free account: everything free, nothing open, a deep market, no reductions."""
    money = None if equity is None else D(equity)
    view = View(
        at=0, live=True, instrument=instrument, trading_state=TradingState.ACTIVE, halted_by="", paused=False, switch_on=True,
        blacklisted=False, certificate_expires=1, certificate_confidence=None, wallet_age_s=1.0, quote=Quote(0, 99.99, 100.0),
        quote_age_s=1.0, bar_age_s=1.0, frozen_bars=0, clock_offset_s=0.0, session_open=True, minutes_to_rollover=None,
        spread_cap_bp=30.0, quote_volume_24h=1e9, deep_pair=True, correlated=(), funding_rate_8h=0.0, funding_settlements=0,
        funding_rate=0.0, financing_annual=0.0, financing_nights=0, reward=0.06, blackout="", blackout_until=None, calendar_ok=True,
        mood=None, open_positions=0, losses_in_a_row=0, last_loss_at=None, stop_outs_4h=0, last_stop_out_at=None, owned_by="",
        in_doubt=False, orders_last_minute=0, notional_last_minute=D(0), open_orders=0, equity=money, free=money, day_peak=money,
        drawdown_today=D(0), open_risk=D(0), gross_notional=D(0), position_tied_up=D(0), position_notional=D(0), settle_rate=D(1),
        pair_cap=D("0.10"), stop_slippage=0.0004, learning_weight=1.0, ramp=False)
    return dataclasses.replace(view, **changes)


def an_option(cost: str = "50", max_loss: str = "52") -> OptionView:
    return OptionView(20.0, 0.02, 500.0, D(cost), D(max_loss), 0.3, 10.0, D(20), D(0), D(0), D(0), D(60000))


def sizer(**changes: Any) -> Sizer:
    return Sizer(SizingPolicy.model_validate(POLICIES.sizing.model_dump() | changes), POLICIES.costs)


def size(signal: Signal, view: View, *, good: bool = False, mood_factor: float = 1.0, **policy: Any) -> Size:
    return sizer(**policy).size(signal, view, good=good, mood_factor=mood_factor)


def with_instrument(instrument: Instrument, **changes: Any) -> Instrument:
    return dataclasses.replace(instrument, **changes)


def refusal(result: Size) -> Check:
    assert not result.approved
    assert result.quantity == result.notional == result.risk == result.tied_up == 0
    assert not result.checks[-1].passed
    assert result.checks[-1].rule.value in result.reason
    return result.checks[-1]


# -- phases --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("equity", "phase"), [
    ("0.01", 1), ("1000.00", 1), ("1000.01", 2), ("5000.00", 2), ("5000.01", 3), ("20000.00", 3), ("20000.01", 4), ("1e9", 4)])
def test_a_border_belongs_to_the_phase_below_it(equity: str, phase: int) -> None:
    assert sizer().phase(D(equity)) == phase
    assert size(a_signal(), a_view(equity=equity)).phase == phase


def test_phase_borders_are_dollars_whatever_the_account_counts_in() -> None:
    assert sizer().phase(D("950"), usd_rate=D("1.08")) == 2    # 950 EUR are 1,026 dollars
    ten_dollars = size(a_signal(), a_view(equity="800", usd_rate=D("1.25")))    # 800 EUR are exactly 1,000 dollars
    assert (ten_dollars.phase, ten_dollars.notional) == (1, D(8))


def test_phase_1_trades_exactly_ten_dollars_at_any_confidence() -> None:
    for confidence in (0.0, 0.3, 1.0):
        result = size(a_signal(confidence=confidence), a_view(equity="1000"))
        assert (result.approved, result.notional, result.quantity, result.bound_by) == (True, D(10), D("0.1"), BoundBy.PHASE_FIXED)
        # entry 100, stop 97, slippage 0.04: (3.04 + 0.1 % of 100 + 0.1 % of 96.96) / 100 = 3.23696 % of $10
        assert result.risk == D("0.323696")


def test_phase_1_is_rounded_down_by_less_than_one_lot() -> None:
    result = size(a_signal(entry=100.0), a_view(with_instrument(SPOT, lot=D("0.03")), "500"))
    assert result.notional == D(9)    # 3 lots of $3; 4 would be $12
    assert D(10) - result.notional < D("0.03") * 100


@pytest.mark.parametrize(("changes", "bound_by"), [
    ({"free": D("9.99")}, BoundBy.FREE_FUNDS), ({"pair_cap": D("0.019")}, BoundBy.PAIR_CAP),
    ({"quote_volume_24h": 999.0}, BoundBy.VOLUME_SHARE), ({"drawdown_today": D("24.8")}, BoundBy.DAILY_BUDGET),
    ({"open_risk": D("24.8")}, BoundBy.DAILY_BUDGET), ({"position_notional": D("490.01")}, BoundBy.LEVERAGE)])
def test_in_phase_1_a_ceiling_denies_with_both_numbers_and_never_shrinks(changes: dict[str, Any], bound_by: BoundBy) -> None:
    result = size(a_signal(), a_view(equity="500", **changes))
    check = refusal(result)
    assert (check.rule, check.measured, result.bound_by) == (Rule.SIZE_ABOVE_CEILING, D(10), bound_by)
    assert isinstance(check.limit, Decimal) and check.limit < 10


def test_in_phase_1_learning_and_mood_deny_below_a_half_and_else_leave_the_ten_dollars() -> None:
    assert size(a_signal(), a_view(equity="500", learning_weight=0.5)).notional == D(10)
    assert size(a_signal(), a_view(equity="500", learning_weight=0.8), mood_factor=0.7).notional == D(10)    # 0.56
    check = refusal(size(a_signal(), a_view(equity="500", learning_weight=0.7), mood_factor=0.7))    # 0.49
    assert (check.rule, check.measured, check.limit) == (Rule.LEARNING_WEIGHT_BELOW_MINIMUM, D("0.49"), D("0.5"))


@pytest.mark.parametrize(("equity", "confidence", "notional"), [
    ("1000.01", 0.0, "10"),        # 0.5 % would be 5.00
    ("1600", 0.0, "10"),           # 8.00
    ("1600", 1.0, "16"),           # 1.0 %
    ("3000", 0.5, "22.5"),         # 0.75 %
    ("5000", 0.0, "25"),
    ("5000", 1.0, "50"),
])
def test_phase_2_trades_half_to_one_percent_by_confidence_but_at_least_ten_dollars(equity: str, confidence: float, notional: str) -> None:
    result = size(a_signal(confidence=confidence), a_view(equity=equity))
    assert (result.notional, result.bound_by) == (D(notional), BoundBy.PHASE_FRACTION)


def test_phase_2_is_lifted_to_the_venues_minimum_only_within_one_percent() -> None:
    perp = with_instrument(PERP, lot=D("0.01"), quantity_min=D("0.2"))    # one minimum is 0.2 x 100 = $20
    lifted = size(a_signal(perp, 0.0), a_view(perp, "2000"))
    assert (lifted.notional, lifted.bound_by) == (D(20), BoundBy.LOT)    # exactly 1.0 %
    check = refusal(size(a_signal(perp, 0.0), a_view(perp, "1999.99")))
    assert (check.rule, check.measured, check.limit) == (Rule.SIZE_BELOW_MINIMUM, D(10), D(20))


def test_a_spot_lift_goes_to_what_the_stop_can_still_sell() -> None:
    spot = with_instrument(SPOT, lot=D("0.01"), notional_min=D(15))
    result = size(a_signal(spot, 0.0), a_view(spot, "2000"))
    # stop 97 x 0.95 = 92.15: 0.17 are 15.67 to sell; bought 0.18 since the fee leaves 0.17 of it on the lot grid
    assert (result.quantity, result.notional, result.bound_by) == (D("0.18"), D(18), BoundBy.LOT)


def test_a_phase_2_lift_never_undoes_a_reduction_by_learning() -> None:
    perp = with_instrument(PERP, lot=D("0.01"), quantity_min=D("0.15"))
    assert size(a_signal(perp, 0.0), a_view(perp, "2000")).notional == D(15)
    assert refusal(size(a_signal(perp, 0.0), a_view(perp, "2000", learning_weight=0.9))).measured == D("13.5")


def test_the_worked_example_of_phase_3_is_bound_by_the_position_cap() -> None:
    # E = 7500, c = 0.8, entry 100, stop 97. Risk: 0.5 % + 4.5 % x 0.8 = 4.1 % of 7500 = 307.50.
    # Loss share: (3 + 0.04 slippage + 0.1 % x (100 + 96.96)) / 100 = 0.0323696, so percent-risk alone would buy 9,499.65.
    # Position cap: 1 % + 4 % x 0.8 = 4.2 % of 7500 = 315.00, and the smaller wins: 3.15 units that lose 315 x 0.0323696 at the stop.
    result = size(a_signal(), a_view())
    assert (result.phase, result.notional, result.quantity, result.bound_by) == (3, D("315"), D("3.15"), BoundBy.POSITION_CAP)
    assert result.risk == D("10.196424") and result.tied_up == D(315) and result.leverage == 1
    ceilings = dict(result.ceilings)
    assert round(ceilings[BoundBy.RISK], 2) == D("9499.65")
    assert ceilings[BoundBy.PAIR_CAP] == D(750) and round(ceilings[BoundBy.FREE_FUNDS], 2) == D("7492.51")
    assert round(ceilings[BoundBy.DAILY_BUDGET], 2) == D("11584.94")    # 375 / 0.0323696


def test_percent_risk_binds_where_the_stop_is_far() -> None:
    # c = 0: risk 0.5 % of 20,000 = 100. Entry 100, stop 40: (60.04 + 0.1 % x 139.96) / 100 = 0.6017996 -> 166.168... under the cap of 200.
    result = size(a_signal(confidence=0.0, stop=40.0), a_view(equity="20000"))
    assert (result.quantity, result.bound_by) == (D("1.661682"), BoundBy.RISK)
    assert D("99.999") < result.risk <= D(100)


def test_percent_risk_never_asks_for_less_than_phase_2_would() -> None:
    # Entry 100, stop 1: the stop loses all but a hundredth; 0.5 % of 10,000 at risk would buy 50.4..., phase 2's formula gives 50 at c = 0.
    # At 0.4 % risk (policy) it would be 40.4: the floor of 50 holds.
    result = size(a_signal(confidence=0.0, stop=1.0), a_view(equity="10000"), risk_fraction_min=D("0.004"))
    assert (result.notional, result.bound_by) == (D(50), BoundBy.PHASE_FRACTION)


def test_the_floor_of_phase_2_is_itself_under_every_further_ceiling() -> None:
    result = size(a_signal(confidence=0.0), a_view(equity="10000", free=D("20.02")))
    assert (result.notional, result.bound_by) == (D(20), BoundBy.FREE_FUNDS)


@pytest.mark.parametrize(("confidence", "good", "share"), [
    (0.0, False, "0.01"), (0.5, False, "0.03"), (0.8, False, "0.042"), (1.0, False, "0.05"),
    (0.79, True, "0.0416"),    # not confident enough: the ordinary cap
    (0.8, True, "0.05"), (0.9, True, "0.075"), (1.0, True, "0.10")])
def test_the_cap_in_phase_4_reaches_ten_percent_only_for_good_setups(confidence: float, good: bool, share: str) -> None:
    result = size(a_signal(confidence=confidence), a_view(equity="25000"), good=good)
    assert (result.phase, result.notional, result.bound_by) == (4, D(share) * 25000, BoundBy.POSITION_CAP)


def test_a_good_setup_means_nothing_in_phase_3() -> None:
    assert size(a_signal(confidence=1.0), a_view(equity="20000"), good=True).notional == D(1000)


def test_the_position_cap_counts_what_the_position_already_ties_up() -> None:
    assert size(a_signal(), a_view(position_tied_up=D(300))).notional == D(15)
    assert refusal(size(a_signal(), a_view(position_tied_up=D(315)))).rule is Rule.SIZE_BELOW_MINIMUM


def test_the_pair_cap_and_a_pairs_notional_count_what_is_already_there() -> None:
    assert size(a_signal(), a_view(pair_cap=D("0.04"), position_tied_up=D(200))).notional == D(100)    # 4 % of 7500 = 300
    euro = size(a_signal(FOREX, 1.0, 1.25, 1.2375), a_view(FOREX, "10000", position_notional=D(4000)))
    assert (euro.notional, euro.bound_by) == (D(1000), BoundBy.GROSS_NOTIONAL)    # half of 10,000 less 4,000


def test_an_owners_cap_below_phase_2s_formula_still_lets_phase_2s_formula_through() -> None:
    # so that growing from 5,000.00 to 5,000.01 shrinks nothing
    assert size(a_signal(confidence=0.0), a_view(equity="10000"), position_cap_min=D("0.001")).notional == D(50)


def test_the_dearer_of_the_venues_and_the_cost_models_fee_is_counted() -> None:
    # as in the worked example of phase 1: 3.04 + 0.1 % x 196.96 without the venue's fee, 3.04 + 0.2 % x 196.96 with a dearer one
    assert size(a_signal(), a_view(with_instrument(SPOT, taker_fee=D(0)), "500")).risk == D("0.323696")
    assert size(a_signal(), a_view(with_instrument(SPOT, taker_fee=D("0.002")), "500")).risk == D("0.343392")


def test_the_venues_own_leverage_limit_is_kept() -> None:
    slow = with_instrument(PERP, leverage_max=D(2))
    result = size(a_signal(slow), a_view(slow))
    assert (result.leverage, result.notional, result.tied_up) == (D(2), D(630), D(315))


def test_the_markets_volume_is_in_dollars_whatever_the_account_counts_in() -> None:
    result = size(a_signal(), a_view(quote_volume_24h=10_000.0, usd_rate=D("1.25")))    # 1 % = 100 dollars = 80 EUR
    assert (result.notional, result.bound_by) == (D(80), BoundBy.VOLUME_SHARE)


def test_the_certificates_lower_confidence_wins_and_its_higher_one_does_not() -> None:
    assert size(a_signal(confidence=0.8), a_view(certificate_confidence=0.5)).notional == D(225)    # 3 %
    assert size(a_signal(confidence=0.5), a_view(certificate_confidence=0.8)).notional == D(225)


def test_a_perp_ties_up_margin_so_its_cap_is_measured_on_that() -> None:
    # 4.2 % of 7500 = 315 margin x 3 = 945 notional, 9.45 units. Risk: (3.04 + 0.055 % x 196.96) / 100 = 0.03148328 x 945.
    result = size(a_signal(PERP), a_view(PERP))
    assert (result.notional, result.tied_up, result.leverage, result.bound_by) == (D(945), D(315), D(3), BoundBy.POSITION_CAP)
    assert result.risk == D("29.7516996")


def test_forex_in_its_home_currency_counts_in_the_account_currency() -> None:
    # USD/JPY at 150 in a dollar account: one unit costs 150 x 1/150 = $1. 3,000 of equity, c = 0.5: 0.75 % = 22.5 -> 22 units.
    yen = with_instrument(FOREX, symbol="USD/JPY", base="USD", quote="JPY")
    result = size(a_signal(yen, 0.5, 150.0, 149.0), a_view(yen, "3000", settle_rate=D(1) / D(150)))
    assert result.quantity == 22 and abs(result.notional - 22) < D("1e-12")


def test_one_forex_pair_is_at_most_half_of_equity_in_notional() -> None:
    # c = 1: cap 5 % of 10,000 = 500 margin x 20 = 10,000; half of equity is 5,000 (1.25 a unit).
    result = size(a_signal(FOREX, 1.0, 1.25, 1.2375), a_view(FOREX, "10000"))
    assert (result.quantity, result.notional, result.bound_by) == (D(4000), D(5000), BoundBy.GROSS_NOTIONAL)


# -- options ---------------------------------------------------------------------------------------------------------------


def test_a_long_option_needs_no_stop_and_risks_its_whole_cost() -> None:
    # E = 15,000, c = 1: risk 5 % = 750 / 52 a unit = 14.4; the cap of 750 on premium (50 a unit) would allow 15.0: percent-risk wins.
    signal = a_signal(OPTION, 1.0, stop=None, structure=Structure.LONG_OPTION)
    result = size(signal, a_view(OPTION, "15000", option=an_option()))
    assert (result.quantity, result.bound_by) == (D("14.4"), BoundBy.RISK)
    assert result.risk == result.notional == D("748.8") and result.tied_up == D("720.0")


def test_a_credit_spread_ties_up_its_maximum_loss() -> None:
    signal = a_signal(OPTION, 0.5, stop=None, side=Side.SELL, structure=Structure.CREDIT_SPREAD)
    result = size(signal, a_view(OPTION, "15000", option=an_option(cost="45", max_loss="90")))
    # c = 0.5: cap 3 % of 15,000 = 450 = 5 units of 90; risk 2.75 % = 412.50 = 4.58 units wins -> 4.5
    assert (result.quantity, result.tied_up, result.risk) == (D("4.5"), D("405"), D("405"))


def test_a_contract_above_ten_dollars_is_a_clean_denial_in_phase_1() -> None:
    signal = a_signal(OPTION, 1.0, stop=None, structure=Structure.LONG_OPTION)
    check = refusal(size(signal, a_view(OPTION, "500", option=an_option("150", "152"))))
    assert (check.rule, check.measured, check.limit) == (Rule.SIZE_BELOW_MINIMUM, D(10), D("15.2"))


def test_a_naked_short_option_and_an_option_without_a_contract_are_denied() -> None:
    assert refusal(size(a_signal(OPTION, side=Side.SELL), a_view(OPTION, option=an_option()))).rule is Rule.SHORT_NOT_POSSIBLE
    assert refusal(size(a_signal(OPTION, structure=Structure.LONG_OPTION), a_view(OPTION))).rule is Rule.CONTRACT_NOT_FOUND


# -- stops and liquidation -----------------------------------------------------------------------------------------------


def test_a_signal_without_a_stop_is_denied_where_risk_needs_one() -> None:
    assert size(a_signal(stop=None), a_view(equity="500")).approved
    assert size(a_signal(stop=None), a_view(equity="3000")).approved
    assert refusal(size(a_signal(stop=None), a_view(equity="7500"))).rule is Rule.STOP_MISSING
    assert refusal(size(a_signal(PERP, stop=None), a_view(PERP, "3000"))).rule is Rule.STOP_MISSING


def test_spot_without_a_stop_is_taken_to_risk_all_it_cost() -> None:
    assert size(a_signal(stop=None), a_view(equity="500")).risk == D("10.010")


@pytest.mark.parametrize(("side", "stop"), [
    (Side.BUY, 100.0), (Side.BUY, 101.0), (Side.SELL, 99.0), (Side.BUY, 0.0), (Side.BUY, float("nan"))])
def test_a_stop_that_is_not_on_the_losing_side_is_denied(side: Side, stop: float) -> None:
    assert refusal(size(a_signal(side=side, stop=stop), a_view())).rule is Rule.STOP_MISSING


def test_liquidation_prices_are_those_of_isolated_margin() -> None:
    # 10x, 1 % maintenance. Long: margin 10 at 100; at P the equity 10 + (P - 100) = 1 % of P -> P = 90 / 0.99 = 90.909...
    assert round(100 * (1 - liquidation_distance(PERP, Side.BUY, D(10), D("0.01"))), 3) == D("90.909")
    # Short: 10 + (100 - P) = 1 % of P -> P = 110 / 1.01 = 108.911
    assert round(100 * (1 + liquidation_distance(PERP, Side.SELL, D(10), D("0.01"))), 3) == D("108.911")
    # Inverse long, 1,000 dollars at 100 = 10 coins, margin 1: 1 + 1000/100 - 1000/P = 1 % of 1000/P -> P = 1010 / 11 = 91.818
    inverse = with_instrument(PERP, inverse=True)
    assert round(100 * (1 - liquidation_distance(inverse, Side.BUY, D(10), D("0.01"))), 3) == D("91.818")
    # Inverse short: 1 + 1000/P - 10 = 1 % of 1000/P -> P = 990 / 9 = 110
    assert round(100 * (1 + liquidation_distance(inverse, Side.SELL, D(10), D("0.01"))), 3) == D(110)
    assert liquidation_distance(inverse, Side.SELL, D(1), D("0.01")) == D("Infinity")


@EXAMPLES
@given(st.booleans(), st.sampled_from(Side), st.decimals("0.001", "0.5", places=4), st.decimals("0", "0.05", places=3))
def test_at_the_safe_leverage_the_stop_is_exactly_clear_of_liquidation(inverse: bool, side: Side, distance: Decimal,
                                                                       maintenance: Decimal) -> None:
    instrument = with_instrument(PERP, inverse=inverse)
    leverage = leverage_safe(instrument, side, distance, maintenance, D("0.2"))
    room = liquidation_distance(instrument, side, leverage, maintenance)
    assert abs((room - distance) / room - D("0.2")) < D("1e-20")


def test_leverage_is_reduced_until_the_stop_is_clear_and_the_margin_limits_then_bind_harder() -> None:
    # Stop 30 % away: needed 0.3 / 0.8 = 0.375; 1 / (0.01 + 0.99 x 0.375) = 2.62 -> 2x. c = 0.5: 3 % of 10,000 = 300 margin -> 600, not 900.
    result = size(a_signal(PERP, 0.5, stop=70.0), a_view(PERP, "10000"))
    assert (result.leverage, result.notional, result.tied_up, result.bound_by) == (D(2), D(600), D(300), BoundBy.LIQUIDATION_DISTANCE)
    clear = next(check for check in result.checks if check.rule is Rule.LIQUIDATION_TOO_NEAR)
    # at 2x liquidation is 50 / 0.99 = 50.505 away from 100 by 49.495: the stop leaves 19.495 of it, 39.4 %
    assert clear.passed and isinstance(clear.measured, Decimal) and round(clear.measured, 3) == D("0.394")


def test_a_stop_behind_liquidation_even_without_leverage_is_denied() -> None:
    check = refusal(size(a_signal(PERP, stop=19.0), a_view(PERP)))    # 81 of 100 away, at 1x liquidation is at 0
    assert (check.rule, check.measured, check.limit) == (Rule.LIQUIDATION_TOO_NEAR, D("0.19"), D("0.2"))


def test_a_venues_own_liquidation_price_that_is_too_near_is_not_argued_with() -> None:
    assert size(a_signal(PERP), a_view(PERP, liquidation_price=96.25)).approved    # 0.75 of 3.75 = exactly 20 %
    check = refusal(size(a_signal(PERP), a_view(PERP, liquidation_price=96.3)))
    assert check.rule is Rule.LIQUIDATION_TOO_NEAR and isinstance(check.measured, Decimal) and round(check.measured, 3) == D("0.189")
    assert refusal(size(a_signal(PERP), a_view(PERP, liquidation_price=101.0))).measured is None


# -- reductions, ramp, rounding -----------------------------------------------------------------------------------------


def test_learning_and_mood_multiply_and_the_smaller_is_named() -> None:
    both = size(a_signal(), a_view(learning_weight=0.5), mood_factor=0.8)
    assert (both.notional, both.bound_by) == (D(126), BoundBy.LEARNING)    # 315 x 0.4
    assert size(a_signal(), a_view(learning_weight=0.8), mood_factor=0.5).bound_by is BoundBy.MOOD
    assert size(a_signal(confidence=0.0), a_view(equity="3000", learning_weight=0.2)).notional == D(3)    # under phase 2's floor
    assert size(a_signal(), a_view(learning_weight=7.0), mood_factor=3.0).notional == D(315)    # nothing raises
    assert size(a_signal(), a_view(learning_weight=7.0), mood_factor=0.5).notional == D("157.5")    # nor makes up for the other
    assert size(a_signal(confidence=9.0), a_view()).notional == D(375)    # 5 %, as at 1
    assert refusal(size(a_signal(), a_view(learning_weight=0.0))).rule is Rule.SIZE_BELOW_MINIMUM


def test_the_live_ramp_trades_ten_dollars_or_one_lot_while_that_is_one_percent_of_equity() -> None:
    ten = size(a_signal(), a_view(ramp=True))
    assert (ten.notional, ten.bound_by) == (D(10), BoundBy.LIVE_RAMP)
    coarse = with_instrument(PERP, lot=D("0.75"))
    lot = size(a_signal(coarse), a_view(coarse, "7500", ramp=True))
    assert (lot.notional, lot.bound_by) == (D(75), BoundBy.LIVE_RAMP)    # exactly 1 % of equity
    assert refusal(size(a_signal(coarse), a_view(coarse, "7499", ramp=True))).limit == D(75)
    less = size(a_signal(confidence=0.0), a_view(equity="2500", ramp=True, learning_weight=0.2))
    assert (less.notional, less.bound_by) == (D("2.5"), BoundBy.LEARNING)


def test_not_even_the_34th_digit_is_rounded_up_to_another_lot() -> None:
    # The pair cap leaves 1 - 1e-34; in lots of 0.5 that is 2 - 2e-34, which 34 digits round to 2.
    halves = with_instrument(PERP, lot=D("0.5"), leverage_max=D(1))
    result = size(a_signal(halves, entry=1.0, stop=0.97), a_view(halves, "10000", pair_cap=D("0.00009999999999999999999999999999999999")))
    assert (result.quantity, result.bound_by) == (D("0.5"), BoundBy.PAIR_CAP)


def test_below_the_venues_minimum_is_denied_with_both_numbers() -> None:
    check = refusal(size(a_signal(), a_view(with_instrument(SPOT, notional_min=D(12)), "500")))
    assert (check.rule, check.measured) == (Rule.SIZE_BELOW_MINIMUM, D(10)) and check.limit == D(12)


def test_what_its_own_stop_could_not_sell_is_denied() -> None:
    # $10 at 100 = 0.1; the fee leaves 0.0999; at the stop 97 x 0.95 = 92.15 that is 9.206, the venue wants 9.50: 0.103093 units
    check = refusal(size(a_signal(), a_view(with_instrument(SPOT, notional_min=D("9.5")), "500")))
    assert (check.rule, check.measured, check.limit) == (Rule.NOT_EXITABLE, D("0.0999"), D("0.103093"))
    assert size(a_signal(), a_view(with_instrument(SPOT, notional_min=D("9.2")), "500")).approved


def test_without_a_stop_exitable_is_asked_at_the_entry_price() -> None:
    # 0.0999 x 100 x 0.95 = 9.4905
    assert size(a_signal(stop=None), a_view(with_instrument(SPOT, notional_min=D("9.49")), "500")).approved
    assert refusal(size(a_signal(stop=None), a_view(with_instrument(SPOT, notional_min=D("9.5")), "500"))).rule is Rule.NOT_EXITABLE


def test_a_whole_coin_that_loses_its_fee_cannot_be_sold_again() -> None:
    coin = with_instrument(SPOT, lot=D(1))
    assert refusal(size(a_signal(coin, entry=10.0, stop=9.0), a_view(coin, "500"))).rule is Rule.NOT_EXITABLE


# -- every rule that can bind ------------------------------------------------------------------------------------------------

COARSE = with_instrument(PERP, quantity_min=D("0.2"))
BINDING: dict[BoundBy, Size] = {
    BoundBy.PHASE_FIXED: size(a_signal(), a_view(equity="500")),
    BoundBy.PHASE_FRACTION: size(a_signal(), a_view(equity="3000")),
    BoundBy.RISK: size(a_signal(confidence=0.0, stop=40.0), a_view(equity="20000")),
    BoundBy.POSITION_CAP: size(a_signal(), a_view()),
    BoundBy.FREE_FUNDS: size(a_signal(), a_view(free=D(100))),
    BoundBy.DAILY_BUDGET: size(a_signal(), a_view(drawdown_today=D(300), open_risk=D(70))),
    BoundBy.LEVERAGE: size(a_signal(), a_view(pair_cap=D(1), position_tied_up=D(100), position_notional=D(7000)),
                           position_cap_min=D(1), position_cap_max=D(1)),
    BoundBy.GROSS_NOTIONAL: size(a_signal(PERP), a_view(PERP, gross_notional=D(14900))),
    BoundBy.LIQUIDATION_DISTANCE: size(a_signal(PERP, 0.5, stop=70.0), a_view(PERP, "10000")),
    BoundBy.VOLUME_SHARE: size(a_signal(), a_view(quote_volume_24h=10_000.0)),
    BoundBy.PAIR_CAP: size(a_signal(), a_view(pair_cap=D("0.01"))),
    BoundBy.LIVE_RAMP: size(a_signal(), a_view(ramp=True)),
    BoundBy.LEARNING: size(a_signal(), a_view(learning_weight=0.9)),
    BoundBy.MOOD: size(a_signal(), a_view(), mood_factor=0.9),
    BoundBy.LOT: size(a_signal(COARSE, 0.0), a_view(COARSE, "2000")),
}
NOTIONALS = {
    BoundBy.FREE_FUNDS: "99.9", BoundBy.LEVERAGE: "500", BoundBy.GROSS_NOTIONAL: "100", BoundBy.VOLUME_SHARE: "100", BoundBy.PAIR_CAP: "75",
    BoundBy.LEARNING: "283.5", BoundBy.MOOD: "283.5", BoundBy.DAILY_BUDGET: "154.4659",
}


@pytest.mark.parametrize("bound_by", BoundBy)
def test_every_rule_that_can_bind_is_reached_and_named(bound_by: BoundBy) -> None:
    result = BINDING[bound_by]
    assert result.approved and result.bound_by is bound_by
    assert bound_by.value in result.reason
    assert min(amount for _, amount in result.ceilings) >= result.notional
    if bound_by in NOTIONALS:
        assert result.notional == D(NOTIONALS[bound_by])


# -- unknown inputs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("equity", [None, "0", "-1", "NaN"])
def test_equity_that_is_unknown_or_not_positive_is_denied(equity: str | None) -> None:
    assert refusal(size(a_signal(), a_view(equity=equity, free=D(100)))).rule is Rule.EQUITY_NOT_POSITIVE


@pytest.mark.parametrize(("changes", "rule", "note"), [
    ({"free": None}, Rule.SIZE_ABOVE_CEILING, "free_funds"), ({"day_peak": None}, Rule.SIZE_ABOVE_CEILING, "daily_budget"),
    ({"drawdown_today": None}, Rule.SIZE_ABOVE_CEILING, "daily_budget"), ({"settle_rate": None}, Rule.QUOTE_STALE, "no rate"),
    ({"settle_rate": D(0)}, Rule.QUOTE_STALE, "no rate"), ({"usd_rate": None}, Rule.QUOTE_STALE, "dollars"),
    ({"quote_volume_24h": None}, Rule.SIZE_ABOVE_CEILING, "volume_share"),
    ({"quote_volume_24h": float("nan")}, Rule.SIZE_ABOVE_CEILING, "volume_share"),
    ({"stop_slippage": float("nan")}, Rule.SIZE_ABOVE_CEILING, "slippage"), ({"stop_slippage": -0.01}, Rule.SIZE_ABOVE_CEILING, "slippage"),
    ({"learning_weight": float("nan")}, Rule.LEARNING_WEIGHT_BELOW_MINIMUM, "unknown"),
    ({"certificate_confidence": float("nan")}, Rule.SIZE_BELOW_MINIMUM, "confidence")])
@pytest.mark.parametrize("equity", ["500", "7500"])
def test_an_unknown_input_denies_and_is_named(equity: str, changes: dict[str, Any], rule: Rule, note: str) -> None:
    check = refusal(size(a_signal(), a_view(equity=equity, **changes)))
    assert check.rule is rule and note in check.note


@pytest.mark.parametrize("signal", [a_signal(entry=float("nan")), a_signal(entry=0.0), a_signal(confidence=float("nan"))])
def test_a_signal_with_nonsense_in_it_is_denied(signal: Signal) -> None:
    refusal(size(signal, a_view()))


def test_forex_outside_the_deep_pairs_needs_a_volume() -> None:
    signal = a_signal(FOREX, 1.0, 1.25, 1.2375)
    assert size(signal, a_view(FOREX, quote_volume_24h=None)).approved
    assert "volume_share" in refusal(size(signal, a_view(FOREX, quote_volume_24h=None, deep_pair=False))).note


# -- properties --------------------------------------------------------------------------------------------------------------

BORDERS = st.sampled_from([D(x) for x in ("1000", "1000.01", "5000", "5000.01", "20000", "20000.01")])
EQUITIES = st.one_of(BORDERS, *(st.decimals(low, high, places=2) for low, high in ((0, 1000), (1000, 5000), (5000, 20000), (20000, 10**6))))
SHARES = st.floats(0, 1)
WEIGHTS = st.one_of(st.just(1.0), st.floats(0, 1))


@st.composite
def trades(draw: st.DrawFn) -> tuple[Signal, Instrument]:
    """Any class, side, price and stop, with lots worth from a hundred-thousandth to ten dollars."""
    asset_class = draw(st.sampled_from(AssetClass))
    entry = draw(st.floats(1.0, 10.0)) * 10.0 ** draw(st.integers(-4, 4))
    worth = 52.0 if asset_class is AssetClass.OPTION else entry
    lot = D(1).scaleb(draw(st.integers(-5, 1)) - math.floor(math.log10(worth)) - 1)
    instrument = with_instrument(
        BY_CLASS[asset_class], lot=lot, quantity_min=lot * draw(st.sampled_from([0, 1, 5])),
        notional_min=draw(st.sampled_from([D(0), D(5), D(12)])))
    side = draw(st.sampled_from(Side))
    distance = draw(st.one_of(st.floats(1e-4, 0.1), st.floats(1e-4, 0.9)))
    structure = Structure.SINGLE
    if asset_class is AssetClass.OPTION:
        structure = draw(st.sampled_from([Structure.LONG_OPTION, Structure.CREDIT_SPREAD]))
    return a_signal(instrument, draw(SHARES), entry, entry * (1 - side.sign * distance), side, structure), instrument


def what_the_stop_loses(signal: Signal, view: View, result: Size) -> Decimal:
    """Independently: (distance + slippage) + fees both ways, on the quantity."""
    if view.option is not None:
        return result.quantity * view.option.max_loss
    assert signal.stop is not None and view.settle_rate is not None
    entry, stop, sign = D(repr(signal.entry)), D(repr(signal.stop)), signal.side.sign
    fee = max(view.instrument.taker_fee, POLICIES.costs.of(view.instrument.asset_class).taker_fee)
    exit_price = max(D(0), stop - sign * D(repr(view.stop_slippage)) * entry)
    return result.quantity * ((entry - exit_price) * sign + fee * (entry + exit_price)) * view.settle_rate


@EXAMPLES
@given(trades(), st.data())
def test_no_size_is_ever_above_any_cap(trade: tuple[Signal, Instrument], data: st.DataObject) -> None:
    def pick(*values: str) -> Decimal:
        return D(data.draw(st.sampled_from(values)))

    signal, instrument = trade
    equity = data.draw(EQUITIES)
    option = an_option("50", "52") if instrument.asset_class is AssetClass.OPTION else None
    view = a_view(
        instrument, equity, free=data.draw(EQUITIES), day_peak=equity * pick("1", "1.03", "1.1"),
        drawdown_today=equity * pick("0", "0.01", "0.04"), open_risk=equity * pick("0", "0.02"),
        gross_notional=equity * pick("0", "0.5", "1.99"), position_tied_up=equity * pick("0", "0.009", "0.04"),
        position_notional=equity * pick("0", "0.3", "0.99"),
        settle_rate=pick("1", "0.006666666666666666666666666666666667", "1.0831"), pair_cap=pick("0.01", "0.1", "0.5"),
        quote_volume_24h=data.draw(st.one_of(st.just(1e9), st.floats(0, 1e6))),
        learning_weight=data.draw(WEIGHTS), ramp=data.draw(st.booleans()), option=option, stop_slippage=data.draw(st.floats(0, 0.01)))
    mood, good = data.draw(WEIGHTS), data.draw(st.booleans())
    result = size(signal, view, good=good, mood_factor=mood)
    event(f"phase {result.phase} {'approved' if result.approved else 'denied'}")
    if not result.approved:
        refusal(result)
        return

    a_hair = D("1e-12") * result.notional
    policy, asset_class, rate = POLICIES.sizing, instrument.asset_class, view.settle_rate
    assert rate is not None and view.free is not None and view.day_peak is not None and view.drawdown_today is not None
    notional = result.quantity * (D(repr(signal.entry)) * rate if option is None else option.max_loss)
    assert abs(notional - result.notional) <= a_hair
    risk = what_the_stop_loses(signal, view, result)
    assert abs(risk - result.risk) <= a_hair
    leverage = {AssetClass.PERP: D(3), AssetClass.FOREX: D(20)}.get(asset_class, D(1))
    assert 1 <= result.leverage <= leverage
    tied = result.tied_up
    if option is None:
        assert abs(tied - notional / result.leverage) <= a_hair
    elif signal.structure is Structure.LONG_OPTION:
        assert abs(tied - result.quantity * option.cost) <= a_hair
    assert result.quantity % instrument.lot == 0 and result.quantity >= instrument.quantity_min
    assert tied <= view.free + a_hair
    assert risk + view.drawdown_today + view.open_risk <= view.day_peak * D("0.05") + a_hair
    assert tied + view.position_tied_up <= view.pair_cap * equity + a_hair
    if asset_class is not AssetClass.FOREX:
        assert notional <= D(repr(view.quote_volume_24h)) * D("0.01") + a_hair
    if multiple := policy.gross_notional_max.of(asset_class):
        assert notional + view.gross_notional <= multiple * equity + a_hair
    if asset_class is AssetClass.FOREX:
        assert notional + view.position_notional <= equity / 2 + a_hair
    if result.phase == 1:
        lot_value = instrument.lot * notional / result.quantity
        assert 10 - lot_value < notional <= 10 + a_hair
        return
    factor = D(repr(view.learning_weight)) * D(repr(mood))
    if result.phase == 2:
        assert notional <= max(D(10), equity * D("0.01")) * factor + a_hair
        return
    assert tied + view.position_tied_up <= equity * (D("0.10") if good and result.phase == 4 else D("0.05")) + a_hair
    assert risk <= max(equity * D("0.05"), D(10)) * factor + a_hair
    if view.ramp:
        assert notional <= max(D(10), equity * D("0.01")) + a_hair


@EXAMPLES
@given(trades(), EQUITIES, EQUITIES, SHARES, SHARES, st.booleans())
def test_on_a_free_account_more_equity_or_more_confidence_never_means_less(
        trade: tuple[Signal, Instrument], one: Decimal, other: Decimal, low: float, high: float, good: bool) -> None:
    signal, instrument = trade
    option = an_option() if instrument.asset_class is AssetClass.OPTION else None
    poor, rich = (a_view(instrument, equity, option=option) for equity in sorted((one, other)))
    careful, sure = (dataclasses.replace(signal, confidence=confidence) for confidence in sorted((low, high)))
    start = size(careful, poor, good=good).notional
    assert start <= size(careful, rich, good=good).notional
    assert start <= size(sure, poor, good=good).notional


@EXAMPLES
@given(trades(), EQUITIES, SHARES, SHARES)
def test_learning_and_mood_only_ever_lower(trade: tuple[Signal, Instrument], equity: Decimal, weight: float, mood: float) -> None:
    signal, instrument = trade
    option = an_option() if instrument.asset_class is AssetClass.OPTION else None
    full = size(signal, a_view(instrument, equity, option=option))
    assume(full.approved)
    lowered = size(signal, a_view(instrument, equity, option=option, learning_weight=weight), mood_factor=mood)
    assert lowered.notional <= full.notional


# -- the announced phase ---------------------------------------------------------------------------------------------------


def test_a_change_of_phase_is_journaled_once_and_survives_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    first = Sizer(POLICIES.sizing, POLICIES.costs, journal)
    journal.project(first.apply)
    for at, equity in enumerate(["900", "950", "1010.11", "1200", None, "5050.51"]):
        first.watch(AssetClass.SPOT, None if equity is None else D(equity), at)
    first.watch(AssetClass.PERP, D(900), 9)
    told = [fact for _, fact in journal.facts() if isinstance(fact, PhaseChanged)]
    assert [(fact.at, fact.asset_class.value, fact.phase_before, fact.phase) for fact in told] == [
        (0, "SPOT", 0, 1), (2, "SPOT", 1, 2), (5, "SPOT", 2, 3), (9, "PERP", 0, 1)]
    journal.close()

    again = Journal(tmp_path / "journal.sqlite")
    second = Sizer(POLICIES.sizing, POLICIES.costs, again)
    again.project(second.apply)
    again.replay()
    second.watch(AssetClass.SPOT, D(6000), 10)    # still phase 3: nothing to say
    facts: list[Fact] = [fact for _, fact in again.facts()]
    assert len(facts) == len(told)
    again.close()


async def test_running_it_announces_every_class_whose_equity_is_known() -> None:
    journal = Journal(None)
    watcher = Sizer(POLICIES.sizing, POLICIES.costs, journal)
    journal.project(watcher.apply)
    equities = {AssetClass.SPOT: D(950), AssetClass.PERP: None, AssetClass.OPTION: D(15000), AssetClass.FOREX: D(25000)}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await watcher.run(WallClock(), equities.__getitem__)
    told = [fact for _, fact in journal.facts() if isinstance(fact, PhaseChanged)]
    assert [(fact.asset_class.value, fact.phase) for fact in told] == [("SPOT", 1), ("OPTION", 3), ("FOREX", 4)]
    journal.close()


def test_an_equity_that_hovers_around_a_border_is_no_news_and_is_sized_by_the_border_all_the_same() -> None:
    journal = Journal(None)
    sizer = Sizer(POLICIES.sizing, POLICIES.costs, journal)
    journal.project(sizer.apply)
    for at, equity in enumerate(["999.99", "1000.01", "999.00", "1009.00", "991.00", "1000.00", "1010.11", "1000.00", "990.20", "990.09"]):
        sizer.watch(AssetClass.SPOT, D(equity), at)
    told = [(fact.at, fact.phase) for _, fact in journal.facts() if isinstance(fact, PhaseChanged)]
    assert told == [(0, 1), (6, 2), (9, 1)]
    assert [sizer.phase(D(equity)) for equity in ("1000.00", "1000.01", "990.20")] == [1, 2, 1]
