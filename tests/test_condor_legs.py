"""Iron condors: what four legs can lose at every price they may end at, by the textbook shape of the whole rather than leg by leg."""

from __future__ import annotations

import math
import random

import pytest

from modules.domain.instrument import Side
from modules.domain.market import OptionQuote
from modules.domain.options import choose, structure_risk
from modules.domain.signal import Structure
from tests.test_options_math import AT, a_chain

WINGS_FIRST = [Side.BUY, Side.BUY, Side.SELL, Side.SELL]


# -- what it can lose ----------------------------------------------------------------------------------------------------------------


def paid_at(end: float, strikes: tuple[float, float, float, float], credit: float) -> float:
    """Profit of a short condor by its textbook shape, not leg by leg: the credit inside, less what price has gone beyond a sold strike,
    no further than that side's wing."""
    low, put, call, high = strikes
    if end < put:
        return credit - min(put - end, put - low)
    return credit - min(max(0.0, end - call), high - call)


@pytest.mark.parametrize("coin", [False, True])
@pytest.mark.parametrize("delta", [0.2, 0.3, 0.4])
@pytest.mark.parametrize("width", [0.02, 0.06, 0.11])
def test_a_condor_can_lose_its_wider_wing_minus_its_credit_and_no_end_costs_more(coin: bool, delta: float, width: float) -> None:
    chain = a_chain(coin=coin)
    legs = choose(Structure.IRON_CONDOR, chain, Side.BUY, 14.0, delta, width, AT, 2.0)
    assert legs is not None and [side for _, side in legs] == WINGS_FIRST
    (low, _), (high, _), (put, _), (call, _) = sorted(legs[:2], key=_strike) + sorted(legs[2:], key=_strike)
    assert (low.is_call, put.is_call, call.is_call, high.is_call) == (False, False, True, True)
    assert low.strike < put.strike < call.strike < high.strike and len({quote.expiry for quote, _ in legs}) == 1
    priced = [(quote, side, (quote.ask if side is Side.BUY else quote.bid) * chain.settle_rate) for quote, side in legs]
    credit = -math.fsum(side.sign * price for _, side, price in priced)
    assert credit > 0.0
    risk = structure_risk(Structure.IRON_CONDOR, priced, chain.spot, AT, chain=chain)
    ends = [0.0, *(step / 8.0 for step in range(1, 8 * 300)), 1e9]
    worst = min(paid_at(end, (low.strike, put.strike, call.strike, high.strike), credit) for end in ends)
    assert risk.max_loss == risk.cost == pytest.approx(-worst, abs=1e-9)
    assert risk.vega < 0.0 and 0.0 < risk.shock_loss < risk.max_loss
    assert choose(Structure.IRON_CONDOR, chain, Side.SELL, 14.0, delta, width, AT, 2.0) == legs, "it has no direction"


def _strike(leg: tuple[OptionQuote, Side]) -> float:
    return leg[0].strike


def test_wings_of_any_two_widths_are_bounded_by_the_wider_and_anything_else_is_no_condor() -> None:
    chance = random.Random(5)
    quotes = {(quote.strike, quote.is_call): quote for quote in a_chain().quotes if quote.expiry == a_chain().quotes[0].expiry}
    strikes = sorted({strike for strike, _ in quotes})
    for _ in range(200):
        low, put, call, high = sorted(chance.sample(strikes, 4))
        prices = [chance.uniform(0.1, 3.0) for _ in range(4)]
        legs = [(quotes[low, False], Side.BUY, prices[0]), (quotes[high, True], Side.BUY, prices[1]),
                (quotes[put, False], Side.SELL, prices[2]), (quotes[call, True], Side.SELL, prices[3])]
        credit = prices[2] + prices[3] - prices[0] - prices[1]
        worst = min(paid_at(end, (low, put, call, high), credit) for end in [0.0, *strikes, 1e9])
        assert structure_risk(Structure.IRON_CONDOR, legs, 100.0, AT).max_loss == pytest.approx(-worst, abs=1e-9)
        for wrong in (legs[::-1], legs[2:] + legs[:2], legs[:3], [legs[1], legs[1], *legs[2:]]):
            with pytest.raises(ValueError, match="not the legs of a iron_condor"):
                structure_risk(Structure.IRON_CONDOR, wrong, 100.0, AT)


def test_a_chain_without_one_of_the_sides_has_no_condor() -> None:
    chain = a_chain()
    for kind in (True, False):
        half = chain._replace(quotes=[quote for quote in chain.quotes if quote.is_call is kind])
        assert choose(Structure.IRON_CONDOR, half, Side.BUY, 14.0, 0.3, 0.06, AT, 2.0) is None
    dear = chain._replace(quotes=[quote._replace(bid=quote.bid * 0.3, ask=quote.ask * 2.0) for quote in chain.quotes])
    assert choose(Structure.IRON_CONDOR, dear, Side.BUY, 14.0, 0.3, 0.03, AT, 2.0) is None, "no credit at the prices we would get"
