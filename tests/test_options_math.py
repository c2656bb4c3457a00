"""Option mathematics against the textbook's printed digits, against its own identities, and on a chain that moves."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from modules.domain.instrument import Side
from modules.domain.market import NAN, Chain, OptionQuote
from modules.domain.options import (
    DAY_MS,
    YEAR_MS,
    Model,
    choose,
    contract_greeks,
    delta_of,
    model_of,
    model_value,
    reprice,
    shock_loss,
    shock_moves,
    slice_of,
    structure_risk,
)
from modules.domain.pricing import black_76, black_scholes, expiry_value, garman_kohlhagen, greeks, implied_volatility, normal_cdf
from modules.domain.signal import Structure

AT = 1_767_225_600_000
DAY = int(DAY_MS)
SHARED = Path(__file__).resolve().parents[2] / "shared"

ratios = st.floats(min_value=0.4, max_value=2.5)
times = st.floats(min_value=0.003, max_value=2.0)
volatilities = st.floats(min_value=0.05, max_value=2.0)
rates = st.floats(min_value=-0.05, max_value=0.15)


# --- printed digits -------------------------------------------------------------------------------------------------------------


def test_hulls_european_call_and_put() -> None:
    assert round(black_scholes(42.0, 40.0, 0.5, 0.2, 0.1, is_call=True), 4) == 4.7594
    assert round(black_scholes(42.0, 40.0, 0.5, 0.2, 0.1, is_call=False), 4) == 0.8086


def test_hulls_greeks_of_a_twenty_week_call() -> None:
    found = greeks(49.0, 50.0, 0.3846, 0.2, 0.05, is_call=True)
    assert round(found.price, 4) == 2.4005
    assert round(found.delta, 4) == 0.5216
    assert round(found.gamma, 4) == 0.0655
    assert round(found.vega, 3) == 12.105
    assert round(found.theta, 3) == -4.305
    assert round(found.rho, 3) == 8.907


def test_hulls_implied_volatility() -> None:
    forward = 21.0 * math.exp(0.1 * 0.25)
    assert round(implied_volatility(1.875, forward, 20.0, 0.25, 0.1, is_call=True), 4) == 0.2345


def test_hulls_futures_put_and_currency_call() -> None:
    assert round(black_76(20.0, 20.0, 4 / 12, 0.25, 0.09, is_call=False), 4) == 1.1166
    assert round(garman_kohlhagen(1.6, 1.6, 4 / 12, 0.2, 0.08, 0.11, is_call=True), 4) == 0.0639


# --- identities -----------------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(ratios, times, volatilities, rates)
def test_put_call_parity_holds_to_twelve_digits(ratio: float, years: float, iv: float, rate: float) -> None:
    call = black_76(1.0, ratio, years, iv, rate, is_call=True)
    put = black_76(1.0, ratio, years, iv, rate, is_call=False)
    assert abs(call - put - math.exp(-rate * years) * (1.0 - ratio)) <= 1e-12


@settings(max_examples=200, deadline=None)
@given(ratios, times, volatilities, rates, st.booleans(), st.floats(min_value=1e-4, max_value=1e6))
def test_implied_volatility_round_trips_to_eight_digits(
    ratio: float, years: float, iv: float, rate: float, is_call: bool, forward: float
) -> None:
    strike = forward * ratio
    price = black_76(forward, strike, years, iv, rate, is_call=is_call)
    # What float64 can carry: an error of one unit in the last place of the price, divided by vega.
    deviation = iv * math.sqrt(years)
    d1 = math.log(1.0 / ratio) / deviation + 0.5 * deviation
    vega = forward * math.exp(-0.5 * d1 * d1) / math.sqrt(2.0 * math.pi) * math.sqrt(years)
    assume(price > 0.0 and vega > 0.0 and max(forward, strike) * 1e-15 / vega < 1e-10)
    assert implied_volatility(price, forward, strike, years, rate, is_call=is_call) == pytest.approx(iv, abs=1e-8)


def test_implied_volatility_reaches_far_out_of_the_money_where_prices_are_tiny() -> None:
    for strike in (400.0, 1000.0, 3000.0):
        price = black_76(100.0, strike, 0.25, 0.6, is_call=True)
        assert 0.0 < price < 1e-3
        assert implied_volatility(price, 100.0, strike, 0.25, is_call=True) == pytest.approx(0.6, abs=1e-8)


def test_no_volatility_is_implied_by_a_price_outside_the_bounds() -> None:
    for price in (0.0, -1.0, NAN, 100.0, 150.0):
        assert math.isnan(implied_volatility(price, 100.0, 90.0, 0.5, is_call=True))
    assert math.isnan(implied_volatility(9.99, 100.0, 90.0, 0.5, is_call=True)), "below intrinsic value"
    assert math.isnan(implied_volatility(5.0, 100.0, 90.0, 0.0, is_call=True)), "expired"


@settings(max_examples=25, deadline=None)
@given(ratios, st.floats(min_value=0.05, max_value=2.0), st.floats(min_value=0.1, max_value=1.0), st.booleans())
def test_the_price_is_the_integral_of_the_payoff_over_the_lognormal_density(ratio: float, years: float, iv: float, is_call: bool) -> None:
    deviation = iv * math.sqrt(years)

    def payoff(z: float) -> float:
        settlement = math.exp(deviation * z - 0.5 * deviation * deviation)
        return expiry_value(ratio, settlement, is_call=is_call) * float(stats.norm.pdf(z))

    kink = (math.log(ratio) + 0.5 * deviation * deviation) / deviation
    expected, _ = integrate.quad(payoff, -12.0, 12.0, points=[min(11.9, max(-11.9, kink))], limit=200)
    assert black_76(1.0, ratio, years, iv, is_call=is_call) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(ratios, st.floats(min_value=0.05, max_value=2.0), st.floats(min_value=0.1, max_value=1.5), rates, rates, st.booleans())
def test_greeks_are_the_slopes_of_the_price(ratio: float, years: float, iv: float, rate: float, foreign: float, is_call: bool) -> None:
    spot = 100.0
    found = greeks(spot, spot * ratio, years, iv, rate, foreign, is_call=is_call)

    def price(spot_: float = spot, years_: float = years, iv_: float = iv, rate_: float = rate) -> float:
        return black_scholes(spot_, spot * ratio, years_, iv_, rate_, foreign, is_call=is_call)

    step = 1e-3
    assert found.delta == pytest.approx((price(spot + step) - price(spot - step)) / (2 * step), abs=1e-6)
    assert found.gamma == pytest.approx((price(spot + 0.05) - 2 * price() + price(spot - 0.05)) / 0.0025, abs=1e-5)
    assert found.vega == pytest.approx((price(iv_=iv + 1e-5) - price(iv_=iv - 1e-5)) / 2e-5, abs=1e-3)
    assert found.theta == pytest.approx(-(price(years_=years + 1e-6) - price(years_=years - 1e-6)) / 2e-6, abs=1e-2)
    assert found.rho == pytest.approx((price(rate_=rate + 1e-6) - price(rate_=rate - 1e-6)) / 2e-6, abs=1e-2)


def test_an_expired_option_is_worth_its_intrinsic_value_and_has_no_other_greek_than_delta() -> None:
    assert black_76(110.0, 100.0, 0.0, 0.5, is_call=True) == 10.0
    assert tuple(greeks(110.0, 100.0, 0.0, 0.5, is_call=True)) == (10.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    assert tuple(greeks(110.0, 100.0, 0.0, 0.5, is_call=False)) == (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert expiry_value(100.0, 80.0, is_call=False) == 20.0
    assert expiry_value(100.0, 125.0, is_call=True, in_coin=True) == 0.2


def test_unknown_stays_unknown() -> None:
    assert math.isnan(black_76(100.0, 100.0, 0.5, NAN, is_call=True))
    assert all(math.isnan(value) for value in greeks(100.0, 100.0, 0.5, NAN, is_call=True))


def test_the_normal_distribution_keeps_its_digits_in_the_far_tail() -> None:
    for x in (-30.0, -8.0, -1.0, 0.0, 3.0):
        assert normal_cdf(x) == pytest.approx(float(stats.norm.cdf(x)), rel=1e-12)


# --- chains ---------------------------------------------------------------------------------------------------------------------


def a_chain(
    *, spot: float = 100.0, carry: float = 0.05, coin: bool = False, iv: float = 0.6, days: tuple[int, ...] = (3, 10, 21, 60)
) -> Chain:
    """A chain a venue could quote: marks off a future with `carry`, a skew, half a per cent of spread each side, 3 % steps in strike."""
    quotes = []
    for left in days:
        expiry = AT + left * DAY
        years = left / 365.0
        for number in range(-14, 15):
            strike = round(spot * 1.03**number, 4)
            volatility = iv * (1.0 - 0.3 * math.log(strike / spot))
            for is_call in (True, False):
                model = Model(volatility, carry, carry if coin else 0.0)
                blank = OptionQuote("", expiry, strike, is_call, NAN, NAN, NAN, volatility, NAN, NAN, 500.0)
                value = model_value(blank, model, spot, AT) / (spot if coin else 1.0)
                greek = greeks(spot * math.exp(carry * years), strike, years, volatility, is_call=is_call)
                name = f"X-{left}-{strike}-{'C' if is_call else 'P'}"
                quotes.append(
                    OptionQuote(
                        name, expiry, strike, is_call, value * 0.995, value * 1.005, value, volatility, greek.delta, greek.vega, 500.0
                    )
                )
    return Chain("X", AT, spot, spot if coin else 1.0, quotes)


@pytest.mark.parametrize("coin", [False, True])
def test_at_the_snapshots_own_instant_a_quote_is_worth_what_the_snapshot_says(coin: bool) -> None:
    chain = a_chain(coin=coin)
    for quote in chain.quotes:
        if quote.mark > 1e-9:
            assert reprice(quote, chain, chain.spot, chain.at) == pytest.approx((quote.bid, quote.ask, quote.mark), rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("coin", [False, True])
def test_a_repriced_quote_is_what_the_venue_would_quote_at_that_spot_and_time(coin: bool) -> None:
    """The chain is rebuilt by the venue's own formula a day and 8 % later; only the snapshot and spot are given."""
    chain = a_chain(coin=coin)
    later, spot = AT + DAY, 108.0
    rate = spot if coin else 1.0
    for quote in chain.quotes:
        if abs(quote.delta) < 0.02:
            continue
        truth = model_value(quote, Model(quote.iv, 0.05, 0.05 if coin else 0.0), spot, later) / rate
        bid, ask, mark = reprice(quote, chain, spot, later)
        assert mark == pytest.approx(truth, rel=1e-6, abs=1e-9)
        assert (bid / mark, ask / mark) == pytest.approx((0.995, 1.005), rel=1e-6)


def test_a_side_without_a_quote_stays_without_and_a_tight_one_is_widened_to_the_minimum() -> None:
    chain = a_chain()
    quote = next(q for q in chain.quotes if abs(q.delta - 0.5) < 0.1)
    bid, ask, mark = reprice(quote._replace(bid=NAN), chain, 101.0, AT)
    assert math.isnan(bid)
    assert ask > mark > 0.0
    tight = quote._replace(bid=quote.mark, ask=quote.mark)
    bid, ask, mark = reprice(tight, chain, 101.0, AT, half_spread_min=0.01)
    assert (bid, ask) == pytest.approx((mark * 0.99, mark * 1.01))


def test_a_quote_whose_mark_lies_outside_its_own_spread_still_comes_out_in_order() -> None:
    chain = a_chain()
    quote = next(q for q in chain.quotes if abs(q.delta - 0.5) < 0.1)
    bid, ask, mark = reprice(quote._replace(bid=quote.mark * 1.1, ask=quote.mark * 1.2), chain, 100.0, AT)
    assert 0.0 < bid < mark < ask


def test_from_expiry_on_a_contract_is_its_intrinsic_value_in_its_own_currency() -> None:
    for coin in (False, True):
        chain = a_chain(coin=coin)
        quote = next(q for q in chain.quotes if q.is_call and q.strike < 95.0)
        value = (130.0 - quote.strike) / (130.0 if coin else 1.0)
        assert reprice(quote, chain, 130.0, quote.expiry) == pytest.approx((value, value, value), rel=1e-12)


def test_without_a_stated_volatility_the_mark_implies_one_and_without_both_nothing_is_known() -> None:
    chain = a_chain(carry=0.0)
    quote = next(q for q in chain.quotes if abs(q.delta - 0.5) < 0.1)
    assert model_of(quote._replace(iv=NAN), chain).iv == pytest.approx(quote.iv, abs=1e-8)
    assert model_of(quote._replace(mark=NAN, bid=NAN, ask=NAN), chain) == Model(quote.iv, 0.0, 0.0)
    assert all(math.isnan(v) for v in reprice(quote._replace(iv=NAN, mark=NAN, bid=NAN, ask=NAN), chain, 100.0, AT))
    absurd = quote._replace(mark=quote.mark * 30.0)
    assert model_of(absurd, chain).carry == 0.0, "a stale mark is not a forward"


def test_the_slice_finds_the_nearest_expiry_and_reads_the_skew() -> None:
    found = slice_of(a_chain(), 14.0, AT)
    assert found.days == 10.0
    assert found.iv_atm == pytest.approx(0.6, abs=1e-12)
    assert found.iv_put_25 > found.iv_atm > found.iv_call_25
    between = a_chain()._replace(spot=101.5)
    assert 0.594 < slice_of(between, 21.0, AT).iv_atm < 0.6
    assert all(math.isnan(value) for value in slice_of(a_chain()._replace(quotes=()), 14.0, AT))
    assert math.isnan(slice_of(a_chain()._replace(spot=500.0), 14.0, AT).iv_atm), "spot beyond every strike"


# --- structures -----------------------------------------------------------------------------------------------------------------


def test_a_long_option_is_the_first_expiry_late_enough_and_the_delta_nearest() -> None:
    chain = a_chain()
    [(call, side)] = choose(Structure.LONG_OPTION, chain, Side.BUY, 14.0, 0.45, 0.0, AT, 2.0) or []
    assert (side, call.is_call, (call.expiry - AT) / DAY) == (Side.BUY, True, 21)
    assert all(abs(call.delta - 0.45) <= abs(q.delta - 0.45) for q in chain.quotes if q.is_call and q.expiry == call.expiry)
    [(put, side)] = choose(Structure.LONG_OPTION, chain, Side.SELL, 14.0, 0.45, 0.0, AT, 2.0) or []
    assert (side, put.is_call) == (Side.BUY, False)
    [(soon, _)] = choose(Structure.LONG_OPTION, chain, Side.BUY, 0.0, 0.45, 0.0, AT, 5.0) or []
    assert (soon.expiry - AT) / DAY == 10, "the policy's fewest days bind"


def test_a_credit_spread_buys_its_protection_first_and_sells_nearer_the_money() -> None:
    chain = a_chain()
    for side, is_call in ((Side.BUY, False), (Side.SELL, True)):
        (protective, bought), (short, sold) = choose(Structure.CREDIT_SPREAD, chain, side, 14.0, 0.25, 0.06, AT, 2.0) or []
        assert (bought, sold) == (Side.BUY, Side.SELL)
        assert protective.is_call is short.is_call is is_call
        assert abs(short.delta) == pytest.approx(0.25, abs=0.06)
        assert (protective.strike > short.strike) is is_call
        assert abs(protective.strike - short.strike) == pytest.approx(6.0, abs=2.0)
        assert short.bid > protective.ask


def test_a_structure_the_chain_does_not_have_is_none() -> None:
    chain = a_chain()
    assert choose(Structure.LONG_OPTION, chain, Side.BUY, 90.0, 0.45, 0.0, AT, 2.0) is None, "no expiry that far"
    assert choose(Structure.SINGLE, chain, Side.BUY, 14.0, 0.45, 0.0, AT, 2.0) is None
    for bid in (NAN, 0.0):
        one_sided = chain._replace(quotes=[quote._replace(bid=bid) for quote in chain.quotes])
        assert choose(Structure.LONG_OPTION, one_sided, Side.BUY, 14.0, 0.45, 0.0, AT, 2.0) is None, "could not be sold again"
    deep = chain._replace(quotes=[quote for quote in chain.quotes if abs(quote.delta) > 0.8])
    assert choose(Structure.LONG_OPTION, deep, Side.BUY, 14.0, 0.25, 0.0, AT, 2.0) is None, "another trade than the one wanted"
    wide = chain._replace(quotes=[quote._replace(bid=quote.bid * 0.3, ask=quote.ask * 2.0) for quote in chain.quotes])
    assert choose(Structure.CREDIT_SPREAD, wide, Side.BUY, 14.0, 0.25, 0.03, AT, 2.0) is None, "no credit at the prices we would get"


def test_deltas_of_a_day_old_chain_can_be_taken_at_the_present_spot() -> None:
    chain = a_chain()
    [(stale, _)] = choose(Structure.LONG_OPTION, chain, Side.BUY, 14.0, 0.45, 0.0, AT + DAY, 2.0) or []
    [(fresh, _)] = choose(Structure.LONG_OPTION, chain, Side.BUY, 14.0, 0.45, 0.0, AT + DAY, 2.0, spot=112.0) or []
    assert fresh.strike > stale.strike
    assert delta_of(fresh, chain, 112.0, AT + DAY) == pytest.approx(0.45, abs=0.1)


def priced(chain: Chain, structure: Structure, side: Side) -> list[tuple[OptionQuote, Side, float]]:
    legs = choose(structure, chain, side, 14.0, 0.3, 0.06, AT, 2.0) or []
    return [(quote, leg, (quote.ask if leg is Side.BUY else quote.bid) * chain.settle_rate) for quote, leg in legs]


@pytest.mark.parametrize("coin", [False, True])
def test_a_long_option_can_lose_its_premium_and_loses_most_of_it_on_a_bad_day(coin: bool) -> None:
    chain = a_chain(coin=coin)
    legs = priced(chain, Structure.LONG_OPTION, Side.BUY)
    risk = structure_risk(Structure.LONG_OPTION, legs, chain.spot, AT, chain=chain)
    assert risk.cost == risk.max_loss == pytest.approx(legs[0][2])
    assert risk.delta == pytest.approx(legs[0][0].delta, abs=0.01)
    assert risk.vega > 0.0
    assert 0.3 * risk.max_loss < risk.shock_loss < risk.max_loss


@pytest.mark.parametrize("coin", [False, True])
@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_a_credit_spread_can_lose_its_width_minus_its_credit_at_every_settlement(coin: bool, side: Side) -> None:
    chain = a_chain(coin=coin)
    legs = priced(chain, Structure.CREDIT_SPREAD, side)
    (protective, _, paid), (short, _, received) = legs
    risk = structure_risk(Structure.CREDIT_SPREAD, legs, chain.spot, AT, chain=chain)
    width = abs(protective.strike - short.strike)
    assert risk.max_loss == risk.cost == pytest.approx(width - (received - paid))
    results = [
        received - paid + expiry_value(protective.strike, x, is_call=short.is_call) - expiry_value(short.strike, x, is_call=short.is_call)
        for x in [0.01, *range(50, 200), 1e6]
    ]
    assert min(results) == pytest.approx(-risk.max_loss, abs=1e-9)
    assert (risk.delta > 0.0) is (side is Side.BUY)
    assert risk.vega < 0.0
    assert 0.0 < risk.shock_loss < risk.max_loss


def test_an_iron_condor_buys_both_its_wings_first_and_sells_between_them_whatever_the_side() -> None:
    chain = a_chain()
    legs = choose(Structure.IRON_CONDOR, chain, Side.BUY, 14.0, 0.25, 0.06, AT, 2.0) or []
    assert legs == choose(Structure.IRON_CONDOR, chain, Side.SELL, 14.0, 0.25, 0.06, AT, 2.0)
    assert [(quote.is_call, side) for quote, side in legs] == [(False, Side.BUY), (True, Side.BUY), (False, Side.SELL), (True, Side.SELL)]
    low, high, put, call = (quote.strike for quote, _ in legs)
    assert low < put < 100.0 < call < high and len({quote.expiry for quote, _ in legs}) == 1
    overlapping = choose(Structure.IRON_CONDOR, chain, Side.BUY, 14.0, 0.75, 0.06, AT, 2.0)
    assert overlapping is None, "the put that is sold above the call that is sold loses on both sides at once"


@pytest.mark.parametrize("coin", [False, True])
@pytest.mark.parametrize("width", [0.04, 0.06])
def test_an_iron_condor_can_lose_its_wider_side_minus_all_of_its_credit_at_every_settlement(coin: bool, width: float) -> None:
    chain = a_chain(coin=coin)
    legs = [(quote, side, (quote.ask if side is Side.BUY else quote.bid) * chain.settle_rate)
            for quote, side in choose(Structure.IRON_CONDOR, chain, Side.BUY, 14.0, 0.25, width, AT, 2.0) or []]
    risk = structure_risk(Structure.IRON_CONDOR, legs, chain.spot, AT, chain=chain)
    results = [sum(side.sign * (max(0.0, x - quote.strike if quote.is_call else quote.strike - x) - price) for quote, side, price in legs)
               for x in [0.0, *(strike / 4 for strike in range(200, 800)), 1e4]]
    assert min(results) == pytest.approx(-risk.max_loss, abs=1e-9) and risk.cost == risk.max_loss
    assert max(results) == pytest.approx(-sum(side.sign * price for _, side, price in legs)), "the credit, between the strikes"
    assert risk.vega < 0.0 and abs(risk.delta) < 0.1 and 0.0 < risk.shock_loss < risk.max_loss


def test_a_book_nets_its_legs_where_single_shocks_would_add_up() -> None:
    chain = a_chain()
    legs = priced(chain, Structure.CREDIT_SPREAD, Side.BUY)
    book = [(quote, model_of(quote, chain), float(side.sign)) for quote, side, _ in legs]
    together = shock_loss(book, chain.spot, AT)
    apart = sum(shock_loss([entry], chain.spot, AT) for entry in book)
    assert together == structure_risk(Structure.CREDIT_SPREAD, legs, chain.spot, AT, chain=chain).shock_loss
    assert 0.0 < together < 0.7 * apart
    assert shock_loss([], 100.0, AT) == 0.0
    assert math.isnan(shock_loss([(legs[0][0], Model(NAN, 0.0, 0.0), 1.0)], 100.0, AT))


def test_the_shock_is_three_daily_deviations_by_full_revaluation() -> None:
    chain = a_chain(carry=0.0)
    quote = next(q for q in chain.quotes if q.is_call and abs(q.delta - 0.5) < 0.1)
    down_now, up_now, down_later, up_later = shock_moves(quote, 100.0, AT)
    move = 3.0 * quote.iv / math.sqrt(365.0)
    years = (quote.expiry - AT) / YEAR_MS
    base = black_76(100.0, quote.strike, years, quote.iv, is_call=True)
    assert down_now == pytest.approx(black_76(100.0 * (1 - move), quote.strike, years, quote.iv, is_call=True) - base)
    assert up_now == pytest.approx(black_76(100.0 * (1 + move), quote.strike, years, quote.iv, is_call=True) - base)
    assert down_later < down_now < 0.0 < up_later < up_now, "a day later time value is gone"
    assert shock_moves(quote, 100.0, AT, chain=chain) == pytest.approx((down_now, up_now, down_later, up_later), rel=1e-6)


def test_contract_greeks_move_the_forward_along_with_spot() -> None:
    for coin in (False, True):
        chain = a_chain(coin=coin)
        quote = next(q for q in chain.quotes if q.is_call and abs(q.delta - 0.4) < 0.1)
        model = model_of(quote, chain)
        slope = (model_value(quote, model, 100.01, AT) - model_value(quote, model, 99.99, AT)) / 0.02
        assert contract_greeks(quote, model, 100.0, AT).delta == pytest.approx(slope, abs=1e-7)


def test_legs_that_are_not_the_structure_are_a_bug() -> None:
    chain = a_chain()
    legs = priced(chain, Structure.CREDIT_SPREAD, Side.BUY)
    with pytest.raises(ValueError, match="not the legs of a credit_spread"):
        structure_risk(Structure.CREDIT_SPREAD, legs[::-1], chain.spot, AT)
    with pytest.raises(ValueError, match="not the legs of a long_option"):
        structure_risk(Structure.LONG_OPTION, legs, chain.spot, AT)
    condor = priced(chain, Structure.IRON_CONDOR, Side.BUY)
    for wrong in (legs, condor[::-1], [condor[0], condor[1], condor[3], condor[2]], condor[:3]):
        with pytest.raises(ValueError, match="not the legs of a iron_condor"):
            structure_risk(Structure.IRON_CONDOR, wrong, chain.spot, AT)


# --- recorded chains ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "market_data" / "options").is_dir(), reason="no recorded market data here")
@pytest.mark.filterwarnings("ignore")
def test_recorded_deribit_marks_are_reproduced_and_the_next_day_is_predicted_better_than_by_standing_still() -> None:
    import pandas as pd

    rows = pd.read_parquet(SHARED / "market_data" / "options" / "deribit_BTC_ETH_chain_2026-02_1d.parquet", engine="fastparquet")
    rows = rows[rows.currency == "BTC"]
    chains = []
    for at in sorted(set(rows.ts))[:2]:
        day = rows[rows.ts == at]
        spot = float(day.index_price.median())
        columns = zip(
            day.instrument, day.expiry_ts, day.strike, day.type, day.bid, day.ask, day.mark, day.mark_iv, day.delta, day.vega, strict=True
        )
        quotes = [
            OptionQuote(
                str(name),
                int(expiry),
                float(strike),
                kind == "call",
                float(bid),
                float(ask),
                float(mark),
                float(iv),
                float(d),
                float(v),
                0.0,
            )
            for name, expiry, strike, kind, bid, ask, mark, iv, d, v in columns
        ]
        chains.append(Chain("BTC", int(at), spot, spot, quotes))
    first, second = chains
    for quote in first.quotes:
        assert reprice(quote, first, first.spot, first.at)[2] == pytest.approx(quote.mark, abs=1e-8)
    after = {quote.symbol: quote.mark for quote in second.quotes}
    kept = [quote for quote in first.quotes if quote.symbol in after and 0.1 < abs(quote.delta) < 0.9]
    model = sorted(abs(reprice(quote, first, second.spot, second.at)[2] - after[quote.symbol]) for quote in kept)
    still = sorted(abs(quote.mark - after[quote.symbol]) for quote in kept)
    assert model[len(kept) // 2] < 0.15 * still[len(kept) // 2]
