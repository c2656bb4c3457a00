"""Every filter passes at its limit and fails past it, with both numbers; what is not known never passes; sides matter."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.domain.decision import Check, Rule, Size
from modules.domain.instrument import AssetClass, Side
from modules.domain.market import Quote
from modules.domain.policies import RiskPolicy
from modules.domain.signal import Signal
from modules.domain.view import Correlated, TradingState, View
from modules.filters import PIPELINE, gates
from modules.filters.blackout import mood_factor
from modules.filters.option_book import option_book
from tests.builders import AT, DAY_MS, make_instrument, make_option_view, make_signal, make_view, risk_policy, shipped_policies

SPOT, PERP, OPTION, FOREX = AssetClass.SPOT, AssetClass.PERP, AssetClass.OPTION, AssetClass.FOREX
POLICY = shipped_policies().risk
MINUTE = 60_000
R = Rule


def found(checks: tuple[Check, ...], rule: Rule, unit: str = "") -> Check:
    """The one check of `rule` (and unit, where a rule has two)."""
    (check,) = [c for c in checks if c.rule is rule and (not unit or unit in c.unit)]
    return check


def judge(
    rule: Rule, asset_class: AssetClass = SPOT, side: Side = Side.BUY, policy: RiskPolicy = POLICY, unit: str = "", **changes: Any
) -> Check:
    """What one rule says of the builder's world with `changes`."""
    return found(gates(make_signal(asset_class, side), make_view(asset_class, **changes), policy), rule, unit)


def option_check(rule: Rule, unit: str = "", **changes: Any) -> Check:
    return judge(rule, OPTION, unit=unit, option=make_option_view(**changes))


def spread_quote(bp: float) -> Quote:
    """Around 10,000, where one basis point is exactly 1."""
    return Quote(AT, 10_000.0 - bp / 2, 10_000.0 + bp / 2)


def correlated_with(*pairs: tuple[float, int]) -> tuple[Correlated, ...]:
    """Open positions as (correlation with the candidate, how many others each is already correlated with)."""
    return tuple(Correlated(f"P{i}", SPOT, rho, 720, others) for i, (rho, others) in enumerate(pairs))


# -- the pipeline ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asset_class", AssetClass)
def test_a_quiet_world_passes_every_gate(asset_class: AssetClass) -> None:
    checks = gates(make_signal(asset_class), make_view(asset_class), POLICY)
    assert [check for check in checks if not check.passed] == []


@pytest.mark.parametrize("asset_class", AssetClass)
def test_the_checks_come_in_pipeline_order_and_all_of_them_even_if_all_fail(asset_class: AssetClass) -> None:
    quiet, dark = make_view(asset_class), darkness(asset_class)
    signal = make_signal(asset_class)
    assert [c.rule for c in gates(signal, quiet, POLICY)] == [c.rule for c in gates(signal, dark, POLICY)]
    order = [c.rule for c in gates(signal, quiet, POLICY)]
    milestones = [R.TRADING_HALTED, R.WALLET_STALE, R.SESSION_CLOSED, R.BLACKOUT, R.COOLDOWN_INSTRUMENT]
    assert [order.index(rule) for rule in milestones] == sorted(order.index(rule) for rule in milestones)
    if asset_class is OPTION:
        assert order[-4:] == [R.CONTRACT_NOT_FOUND, R.EXPIRY_TOO_NEAR, R.SPREAD_ABOVE_MAXIMUM, R.OPEN_INTEREST_BELOW_MINIMUM]


def darkness(asset_class: AssetClass) -> View:
    """Nothing is known that may be unknown."""
    unknown = dict.fromkeys([
        "certificate_expires", "wallet_age_s", "quote", "quote_age_s", "bar_age_s", "clock_offset_s", "session_open", "spread_cap_bp",
        "minutes_to_rollover", "quote_volume_24h", "funding_rate_8h", "funding_rate", "financing_annual", "reward", "option",
    ])
    return make_view(asset_class, **{**unknown, "deep_pair": False})


@pytest.mark.parametrize("asset_class", AssetClass)
def test_whatever_is_unknown_fails_its_check_and_is_shown_as_none(asset_class: AssetClass) -> None:
    expected = {R.CERTIFICATE_MISSING, R.WALLET_STALE, R.QUOTE_STALE, R.BAR_STALE, R.CLOCK_SKEW, R.SESSION_CLOSED, R.SPREAD_ABOVE_MAXIMUM,
                R.LIQUIDITY_BELOW_MINIMUM}
    expected |= {
        SPOT: set(), PERP: {R.FUNDING_ABOVE_MAXIMUM, R.CARRY_SHARE_ABOVE_MAXIMUM},
        FOREX: {R.CARRY_ABOVE_MAXIMUM, R.CARRY_SHARE_ABOVE_MAXIMUM},
        OPTION: {R.CONTRACT_NOT_FOUND, R.EXPIRY_TOO_NEAR, R.OPEN_INTEREST_BELOW_MINIMUM},
    }[asset_class]
    failed = [c for c in gates(make_signal(asset_class), darkness(asset_class), POLICY) if not c.passed]
    assert {c.rule for c in failed} == expected
    yes_or_no = {R.CONTRACT_NOT_FOUND} | ({R.LIQUIDITY_BELOW_MINIMUM} if asset_class is FOREX else set())
    assert all(c.measured is None for c in failed if c.rule not in yes_or_no)


NUMBERS = [("wallet_age_s", SPOT), ("quote_age_s", SPOT), ("bar_age_s", SPOT), ("clock_offset_s", SPOT), ("quote_volume_24h", SPOT),
           ("funding_rate_8h", PERP), ("funding_rate", PERP), ("financing_annual", FOREX), ("minutes_to_rollover", FOREX), ("mood", SPOT)]


@pytest.mark.parametrize(("name", "asset_class"), NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_fails(name: str, asset_class: AssetClass, value: float) -> None:
    failed = [c for c in gates(make_signal(asset_class), make_view(asset_class, **{name: value}), POLICY) if not c.passed]
    assert failed
    assert all(c.measured is None for c in failed)


# -- at the limit and past it ----------------------------------------------------------------------------------------------

Case = tuple[Rule, AssetClass, str, Any, Any, float, float]
CASES: list[Case] = [
    # rule, class, view field, value at the limit, value past it, both measured values
    (R.WALLET_STALE, SPOT, "wallet_age_s", 60.0, 60.001, 60.0, 60.001),
    (R.QUOTE_STALE, SPOT, "quote_age_s", 10.0, 10.001, 10.0, 10.001),
    (R.BAR_STALE, SPOT, "bar_age_s", 5.0, 5.001, 5.0, 5.001),
    (R.FEED_FROZEN, SPOT, "frozen_bars", 5, 6, 5, 6),
    (R.CLOCK_SKEW, SPOT, "clock_offset_s", -1.0, -1.001, 1.0, 1.001),
    (R.CLOCK_SKEW, SPOT, "clock_offset_s", 1.0, 1.001, 1.0, 1.001),
    (R.SPREAD_ABOVE_MAXIMUM, SPOT, "quote", spread_quote(30.0), spread_quote(30.01), 30.0, 30.01),
    (R.SPREAD_ABOVE_MAXIMUM, PERP, "quote", spread_quote(15.0), spread_quote(15.01), 15.0, 15.01),
    (R.SPREAD_ABOVE_MAXIMUM, FOREX, "quote", spread_quote(3.0), spread_quote(3.01), 3.0, 3.01),
    (R.LIQUIDITY_BELOW_MINIMUM, SPOT, "quote_volume_24h", 5_000_000.0, 4_999_999.99, 5_000_000.0, 4_999_999.99),
    (R.LIQUIDITY_BELOW_MINIMUM, OPTION, "quote_volume_24h", 5_000_000.0, 4_999_999.99, 5_000_000.0, 4_999_999.99),
    (R.LIQUIDITY_BELOW_MINIMUM, FOREX, "deep_pair", True, False, 1, 0),
    (R.FUNDING_ABOVE_MAXIMUM, PERP, "funding_rate_8h", 0.0005, 0.000501, 0.0005, 0.000501),
    (R.CARRY_ABOVE_MAXIMUM, FOREX, "financing_annual", -0.05, -0.0501, 0.05, 0.0501),
    (R.OPEN_POSITIONS_ABOVE_MAXIMUM, SPOT, "open_positions", 9, 10, 10, 11),
    (R.ORDERS_PER_MINUTE_ABOVE_MAXIMUM, SPOT, "orders_last_minute", 9, 10, 10, 11),
    (R.OPEN_ORDERS_ABOVE_MAXIMUM, SPOT, "open_orders", 19, 20, 20, 21),
    (R.MOOD_AGAINST, SPOT, "mood", -0.5, -0.501, -0.5, -0.501),
    (R.CERTIFICATE_MISSING, SPOT, "certificate_expires", AT + DAY_MS, AT, 1.0, 0.0),
    (R.PAUSED_BY_OPERATOR, SPOT, "paused", False, True, 0, 1),
    (R.BLACKLISTED, SPOT, "blacklisted", False, True, 0, 1),
    (R.SWITCH_OFF, SPOT, "switch_on", True, False, 1, 0),
    (R.ORDER_IN_DOUBT, SPOT, "in_doubt", False, True, 0, 1),
    (R.CALENDAR_EXHAUSTED, SPOT, "calendar_ok", True, False, 1, 0),
    (R.TRADING_HALTED, SPOT, "trading_state", TradingState.ACTIVE, TradingState.HALTED, 0, 1),
    (R.TRADING_REDUCING, SPOT, "trading_state", TradingState.ACTIVE, TradingState.REDUCING, 0, 1),
]


@pytest.mark.parametrize(("rule", "asset_class", "field", "inside", "outside", "measured", "past"), CASES)
def test_a_rule_passes_at_its_limit_and_fails_past_it_with_both_numbers(
    rule: Rule, asset_class: AssetClass, field: str, inside: Any, outside: Any, measured: float, past: float
) -> None:
    # An option trade has two spread rules, on two things; the others are the only one of their rule.
    good, bad = judge(rule, asset_class, **{field: inside}), judge(rule, asset_class, **{field: outside})
    assert good.passed and not bad.passed
    assert good.measured == pytest.approx(measured) and bad.measured == pytest.approx(past)
    assert good.limit == bad.limit and good.limit is not None and good.unit == bad.unit != ""


OPTION_CASES = [
    (R.EXPIRY_TOO_NEAR, "", "days_to_expiry", 2.0, 1.99),
    (R.SPREAD_ABOVE_MAXIMUM, "of mid", "spread_share", 0.10, 0.1001), (R.SPREAD_ABOVE_MAXIMUM, "of mid", "spread_share", 0.10, None),
    (R.OPEN_INTEREST_BELOW_MINIMUM, "", "open_interest", 100.0, None), (R.EXPIRY_TOO_NEAR, "", "days_to_expiry", 2.0, math.nan),
]


@pytest.mark.parametrize(("rule", "unit", "field", "inside", "outside"), OPTION_CASES)
def test_an_option_contract_passes_at_its_limit_and_fails_past_it(rule: Rule, unit: str, field: str, inside: float, outside: Any) -> None:
    good, bad = option_check(rule, unit, **{field: inside}), option_check(rule, unit, **{field: outside})
    assert good.passed and good.measured == inside
    assert not bad.passed and bad.measured == (outside if outside == outside else None)


def test_open_interest_is_enough_by_its_number_or_by_what_it_stands_for_and_says_which() -> None:
    """A contract of the tests stands for one coin at 50,000."""
    many, dear, few = (option_check(R.OPEN_INTEREST_BELOW_MINIMUM, "", open_interest=contracts) for contracts in (100.0, 20.0, 19.9))
    assert many.passed and (many.measured, many.unit) == (100.0, "contracts")
    assert dear.passed and (dear.measured, dear.unit) == (1_000_000.0, "USD of the underlying")
    assert not few.passed and few.measured == pytest.approx(995_000.0)


# -- permission -----------------------------------------------------------------------------------------------------------


def test_paper_trading_needs_neither_certificate_nor_switch() -> None:
    checks = gates(make_signal(), make_view(live=False, certificate_expires=None, switch_on=False), POLICY)
    assert all(check.passed for check in checks)
    assert not {R.CERTIFICATE_MISSING, R.SWITCH_OFF} & {check.rule for check in checks}


def test_live_trading_without_certificate_is_denied() -> None:
    check = judge(R.CERTIFICATE_MISSING, certificate_expires=None)
    assert not check.passed and check.measured is None


def test_a_halt_says_what_halted() -> None:
    assert judge(R.TRADING_HALTED, trading_state=TradingState.HALTED, halted_by="daily_drawdown 0.051 > 0.05").note.startswith("daily_draw")


def test_spot_cannot_be_sold_short_but_perps_can() -> None:
    assert not judge(R.SHORT_NOT_POSSIBLE, SPOT, Side.SELL).passed
    assert judge(R.SHORT_NOT_POSSIBLE, SPOT, Side.BUY).passed
    assert R.SHORT_NOT_POSSIBLE not in {c.rule for c in gates(make_signal(PERP, Side.SELL), make_view(PERP), POLICY)}


# -- freshness and session ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "quote", [None, Quote(AT, 0.0, 1.0), Quote(AT, 101.0, 100.0), Quote(AT, math.nan, 100.0), Quote(AT, 1.0, math.inf)])
def test_a_missing_crossed_or_zero_quote_is_stale_however_young_and_has_no_spread(quote: Quote | None) -> None:
    for rule in (R.QUOTE_STALE, R.SPREAD_ABOVE_MAXIMUM):
        check = judge(rule, quote=quote, quote_age_s=0.0)
        assert not check.passed and check.measured is None


@pytest.mark.parametrize(("is_open", "passed"), [(True, True), (False, False), (None, False)])
def test_a_closed_session_denies_every_class(is_open: bool | None, passed: bool) -> None:
    for asset_class in AssetClass:
        assert judge(R.SESSION_CLOSED, asset_class, unit="session", session_open=is_open).passed is passed


def test_five_minutes_around_the_forex_rollover_are_closed() -> None:
    at_limit = judge(R.SESSION_CLOSED, FOREX, unit="rollover", minutes_to_rollover=5.0)
    inside = judge(R.SESSION_CLOSED, FOREX, unit="rollover", minutes_to_rollover=4.99)
    assert at_limit.passed and not inside.passed and (inside.measured, inside.limit) == (4.99, 5.0)
    assert [c.unit for c in gates(make_signal(), make_view(), POLICY) if c.rule is R.SESSION_CLOSED] == ["session open"]


# -- liquidity ------------------------------------------------------------------------------------------------------------


def test_without_a_spread_cap_the_spread_fails_but_is_shown() -> None:
    check = judge(R.SPREAD_ABOVE_MAXIMUM, FOREX, spread_cap_bp=None, quote=spread_quote(2.0))
    assert not check.passed and check.limit is None and check.measured == pytest.approx(2.0)


def test_forex_is_judged_by_the_list_of_deep_pairs_not_by_volume() -> None:
    assert judge(R.LIQUIDITY_BELOW_MINIMUM, FOREX, quote_volume_24h=None, deep_pair=True).passed
    assert not judge(R.LIQUIDITY_BELOW_MINIMUM, SPOT, quote_volume_24h=None, deep_pair=True).passed


# -- correlation ------------------------------------------------------------------------------------------------------------


def test_a_third_correlated_position_is_taken() -> None:
    check = judge(R.CORRELATED_POSITIONS_ABOVE_MAXIMUM, correlated=correlated_with((0.9, 1), (0.9, 1)))
    assert check.passed and (check.measured, check.limit) == (2, 2)


def test_a_fourth_correlated_position_is_denied_with_both_numbers() -> None:
    check = judge(R.CORRELATED_POSITIONS_ABOVE_MAXIMUM, correlated=correlated_with((0.9, 2), (0.9, 2), (0.9, 2)))
    assert not check.passed and (check.measured, check.limit) == (3, 2)


def test_a_candidate_with_one_correlated_position_is_denied_if_that_one_would_get_its_third() -> None:
    """The rule protects the positions that are already there, not only the candidate."""
    check = judge(R.CORRELATED_POSITIONS_ABOVE_MAXIMUM, correlated=correlated_with((0.9, 2), (0.1, 1), (0.1, 1)))
    assert not check.passed and check.measured == 3 and check.note == "around P0"


def test_a_position_that_already_has_three_denies_even_an_uncorrelated_candidate() -> None:
    assert not judge(R.CORRELATED_POSITIONS_ABOVE_MAXIMUM, correlated=correlated_with((0.0, 3))).passed


def test_highly_correlated_begins_at_the_limit_and_only_on_the_same_side() -> None:
    full = correlated_with((0.6, 0), (0.6, 0), (0.6, 0))
    below = correlated_with((0.5999, 0), (0.5999, 0), (0.5999, 0))
    hedges = correlated_with((-0.95, 0), (-0.95, 0), (-0.95, 0))
    unknown = correlated_with((math.nan, 0), (math.nan, 0), (math.nan, 0))
    measured = [judge(R.CORRELATED_POSITIONS_ABOVE_MAXIMUM, correlated=c).measured for c in (full, below, hedges, unknown)]
    assert measured == [3, 0, 0, 3]


# -- funding and carry --------------------------------------------------------------------------------------------------------


def test_funding_is_what_this_side_pays() -> None:
    long = judge(R.FUNDING_ABOVE_MAXIMUM, PERP, Side.BUY, funding_rate_8h=0.002)
    short = judge(R.FUNDING_ABOVE_MAXIMUM, PERP, Side.SELL, funding_rate_8h=0.002)
    paying_short = judge(R.FUNDING_ABOVE_MAXIMUM, PERP, Side.SELL, funding_rate_8h=-0.002)
    assert (long.passed, long.measured) == (False, 0.002)
    assert (short.passed, short.measured) == (True, -0.002)
    assert (paying_short.passed, paying_short.measured) == (False, 0.002)


def test_funding_may_cost_a_quarter_of_the_expected_reward() -> None:
    at_limit = judge(R.CARRY_SHARE_ABOVE_MAXIMUM, PERP, funding_rate=0.0005, funding_settlements=2, reward=0.004)
    past = judge(R.CARRY_SHARE_ABOVE_MAXIMUM, PERP, funding_rate=0.0005, funding_settlements=3, reward=0.004)
    assert at_limit.passed and at_limit.measured == pytest.approx(0.25)
    assert not past.passed and past.measured == pytest.approx(0.375) and past.limit == Decimal("0.25")


def test_forex_financing_is_what_this_side_earns_and_a_quarter_of_the_reward_at_most() -> None:
    """The view already holds this side's figure: minus means it pays, whatever the side."""
    for side in Side:
        assert not judge(R.CARRY_ABOVE_MAXIMUM, FOREX, side, financing_annual=-0.06).passed
        assert judge(R.CARRY_ABOVE_MAXIMUM, FOREX, side, financing_annual=0.06).passed
    nights: dict[str, Any] = {"financing_annual": -0.0365, "reward": 0.0012}
    assert judge(R.CARRY_SHARE_ABOVE_MAXIMUM, FOREX, financing_nights=3, **nights).passed
    past = judge(R.CARRY_SHARE_ABOVE_MAXIMUM, FOREX, financing_nights=4, **nights)
    assert not past.passed and past.measured == pytest.approx(4 * 0.0001 / 0.0012)


def test_being_paid_needs_no_reward_but_paying_does() -> None:
    assert judge(R.CARRY_SHARE_ABOVE_MAXIMUM, PERP, Side.SELL, funding_rate=0.0001, reward=None).passed
    assert judge(R.CARRY_SHARE_ABOVE_MAXIMUM, FOREX, financing_annual=0.01, reward=None).passed
    for reward in (None, 0.0, -0.01, math.nan):
        unknown = judge(R.CARRY_SHARE_ABOVE_MAXIMUM, PERP, funding_rate=0.0001, reward=reward)
        assert not unknown.passed and unknown.measured is None


def test_a_dated_future_has_no_funding_but_an_expiry() -> None:
    def view(days: float) -> View:
        future = make_instrument(PERP, expiry=AT + round(days * DAY_MS), funding_interval_h=None)
        return make_view(PERP, instrument=future, funding_rate=None, funding_rate_8h=None)

    checks = gates(make_signal(PERP), view(2.0), POLICY)
    assert all(check.passed for check in checks) and R.FUNDING_ABOVE_MAXIMUM not in {check.rule for check in checks}
    near = found(gates(make_signal(PERP), view(1.5), POLICY), R.EXPIRY_TOO_NEAR)
    assert not near.passed and (near.measured, near.limit) == (1.5, 2.0)


@pytest.mark.parametrize("asset_class", [SPOT, OPTION])
def test_what_has_no_carry_has_no_carry_checks(asset_class: AssetClass) -> None:
    rules = {check.rule for check in gates(make_signal(asset_class), make_view(asset_class), POLICY)}
    assert not rules & {R.FUNDING_ABOVE_MAXIMUM, R.CARRY_ABOVE_MAXIMUM, R.CARRY_SHARE_ABOVE_MAXIMUM}


# -- events and mood ------------------------------------------------------------------------------------------------------------


def test_an_open_blackout_denies_and_says_how_long() -> None:
    check = judge(R.BLACKOUT, blackout="CPI", blackout_until=AT + 30 * MINUTE)
    assert not check.passed and (check.measured, check.note) == (30.0, "CPI")
    assert not judge(R.BLACKOUT, blackout="CPI", blackout_until=None).passed
    assert not judge(R.BLACKOUT, blackout="CPI", blackout_until=AT - MINUTE).passed
    assert judge(R.BLACKOUT, blackout="", blackout_until=AT + 30 * MINUTE).passed


def test_mood_is_against_by_side_and_no_news_is_neutral() -> None:
    assert judge(R.MOOD_AGAINST, PERP, Side.SELL, mood=-1.0).passed
    assert judge(R.MOOD_AGAINST, PERP, Side.SELL, mood=0.5).passed
    bad = judge(R.MOOD_AGAINST, PERP, Side.SELL, mood=0.51)
    assert not bad.passed and (bad.measured, bad.limit) == (0.51, 0.5)
    assert judge(R.MOOD_AGAINST, PERP, Side.BUY, mood=1.0).passed
    assert judge(R.MOOD_AGAINST, mood=None).passed


def test_a_bought_put_is_judged_as_the_falling_bet_it_is() -> None:
    put = make_option_view(delta=-0.4)
    assert judge(R.MOOD_AGAINST, OPTION, option=put, mood=-0.9).passed
    assert not judge(R.MOOD_AGAINST, OPTION, option=put, mood=0.9).passed


@pytest.mark.parametrize(
    ("mood", "factor"), [(None, 1.0), (0.0, 1.0), (0.8, 1.0), (-0.25, 0.75), (-0.5, 0.5), (-0.9, 0.5), (math.nan, 0.5)])
def test_mood_lowers_size_linearly_to_the_policy_share_at_the_bound(mood: float | None, factor: float) -> None:
    assert mood_factor(make_signal(PERP), make_view(PERP, mood=mood), POLICY) == factor
    mirrored = None if mood is None else -mood
    assert mood_factor(make_signal(PERP, Side.SELL), make_view(PERP, mood=mirrored), POLICY) == factor


@given(st.floats(-1.0, 1.0), st.sampled_from(Side), st.decimals("0", "1", places=3), st.decimals("0", "1", places=3))
@settings(max_examples=200, deadline=None)
def test_mood_only_ever_lowers(mood: float, side: Side, bound: Decimal, least: Decimal) -> None:
    policy = risk_policy(mood_against=bound, mood_size_at_limit=least)
    assert float(least) <= mood_factor(make_signal(PERP, side), make_view(PERP, mood=mood), policy) <= 1.0


# -- guards -----------------------------------------------------------------------------------------------------------------


def test_three_losses_in_a_row_rest_the_instrument_for_half_an_hour() -> None:
    def after(minutes: float, losses: int = 3) -> Check:
        return judge(R.COOLDOWN_INSTRUMENT, losses_in_a_row=losses, last_loss_at=AT - round(minutes * MINUTE))

    assert not after(29.0).passed and after(29.0).measured == 60.0 and after(29.0).note == "3 losses in a row"
    assert after(30.0).passed and after(30.0).measured == 0.0
    assert after(1.0, losses=2).passed
    assert not judge(R.COOLDOWN_INSTRUMENT, losses_in_a_row=3, last_loss_at=None).passed


def test_five_stop_outs_rest_the_class_for_four_hours_from_the_last() -> None:
    def after(hours: float, stop_outs: int = 5) -> Check:
        return judge(R.COOLDOWN_CLASS, stop_outs_4h=stop_outs, last_stop_out_at=AT - round(hours * 60 * MINUTE))

    assert not after(3.5).passed and after(3.5).measured == 1800.0
    assert after(4.0).passed
    assert after(0.1, stop_outs=4).passed
    assert not judge(R.COOLDOWN_CLASS, stop_outs_4h=5, last_stop_out_at=None).passed


def test_a_cooldown_of_zero_trades_is_off() -> None:
    policy = risk_policy(cooldown_losses=0, cooldown_stop_outs=0)
    assert judge(R.COOLDOWN_INSTRUMENT, policy=policy, losses_in_a_row=9, last_loss_at=AT).passed
    assert judge(R.COOLDOWN_CLASS, policy=policy, stop_outs_4h=9, last_stop_out_at=AT).passed


def test_an_instrument_belongs_to_one_strategy_until_it_is_flat() -> None:
    taken = judge(R.INSTRUMENT_OWNED, owned_by="breakout")
    assert not taken.passed and (taken.measured, taken.limit, taken.note) == (1, 0, "breakout")
    assert judge(R.INSTRUMENT_OWNED, owned_by="").passed
    assert judge(R.INSTRUMENT_OWNED, owned_by=make_signal().strategy).passed


# -- the option book after the trade --------------------------------------------------------------------------------------------

SIZED = Size(True, 3, Decimal("1030"), Decimal(1), Decimal("1030"), Decimal("1030"), Decimal(1), None, "")


def book(quantity: str = "1", equity: str | None = "10000", signal: Signal | None = None, **option: Any) -> dict[Rule, Check]:
    view = make_view(OPTION, option=make_option_view(**option), equity=None if equity is None else Decimal(equity))
    checks = option_book(signal or make_signal(OPTION), view, replace(SIZED, quantity=Decimal(quantity)), POLICY)
    return {check.rule: check for check in checks}


@pytest.mark.parametrize(("delta", "before", "measured", "passed"), [
    (0.1, "0", "0.5", True), (0.1, "0.01", "0.500001", False), (-0.1, "0", "0.5", True), (-0.1, "-100", "0.51", False),
    (-0.1, "9000", "0.4", True),
])
def test_net_delta_of_the_book_stays_within_half_the_equity_on_either_side(
    delta: float, before: str, measured: str, passed: bool
) -> None:
    check = book(delta=delta, class_delta_value=Decimal(before))[R.DELTA_ABOVE_MAXIMUM]
    assert (check.measured, check.limit, check.passed) == (Decimal(measured), Decimal("0.50"), passed)


@pytest.mark.parametrize(("vega", "before", "measured", "passed"), [
    (-2000.0, "0", "0.02", True), (-2000.0, "1", "0.0201", False), (2000.0, "300", "0.01", True), (5000.0, "0", "-0.05", True),
])
def test_ten_volatility_points_cost_at_most_two_percent_and_long_volatility_is_a_gain(
    vega: float, before: str, measured: str, passed: bool
) -> None:
    check = book(vega=vega, class_vol_loss=Decimal(before))[R.VEGA_LOSS_ABOVE_MAXIMUM]
    assert (check.measured, check.limit, check.passed) == (Decimal(measured), Decimal("0.02"), passed)


def test_a_three_sigma_day_costs_at_most_five_percent_and_quantity_counts() -> None:
    at_limit = book("0.5", shock_loss=Decimal(800), class_shock_loss=Decimal(100))[R.SHOCK_LOSS_ABOVE_MAXIMUM]
    past = book("0.51", shock_loss=Decimal(800), class_shock_loss=Decimal(100))[R.SHOCK_LOSS_ABOVE_MAXIMUM]
    assert at_limit.passed and at_limit.measured == Decimal("0.05")
    assert not past.passed and past.measured == Decimal("0.0508")


def test_an_option_book_that_cannot_be_reckoned_is_denied() -> None:
    for checks in (book(equity=None), book(equity="0"), book(equity="-1")):
        assert all(not c.passed and c.measured is None for c in checks.values())
    unknown = book(delta=math.nan, vega=math.inf, shock_loss=Decimal("Infinity"))
    assert all(not c.passed and c.measured is None for c in unknown.values())
    no_contract = option_book(make_signal(OPTION), make_view(OPTION, option=None), SIZED, POLICY)
    assert len(no_contract) == 3 and all(not c.passed and c.measured is None for c in no_contract)


def test_other_classes_have_no_option_book() -> None:
    assert option_book(make_signal(PERP), make_view(PERP), SIZED, POLICY) == ()


# -- properties of all of them ------------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_gates_never_raise_and_never_pass_an_absent_measurement(data: st.DataObject) -> None:
    asset_class = data.draw(st.sampled_from(AssetClass))
    number = st.one_of(st.none(), st.floats())
    changes: dict[str, Any] = {name: data.draw(number) for name in (
        "wallet_age_s", "quote_age_s", "bar_age_s", "clock_offset_s", "minutes_to_rollover", "spread_cap_bp", "quote_volume_24h",
        "funding_rate_8h", "funding_rate", "financing_annual", "reward", "mood")}
    if asset_class is OPTION and data.draw(st.booleans()):
        changes["option"] = make_option_view(delta=data.draw(st.floats()), days_to_expiry=data.draw(st.floats()),
                                             spread_share=data.draw(number), open_interest=data.draw(number))
    for check in gates(make_signal(asset_class, data.draw(st.sampled_from(Side))), make_view(asset_class, **changes), POLICY):
        if check.passed:
            assert check.measured is not None and math.isfinite(check.measured) and check.limit is not None


def test_no_gate_is_listed_twice() -> None:
    assert all(a is not b for a, b in permutations(PIPELINE, 2))
