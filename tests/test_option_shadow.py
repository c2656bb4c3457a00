"""The shadow of an option structure, bar by bar: which contracts, at what price, what it costs, and how it ends."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from modules.domain import options
from modules.domain.events import ShadowClosed, ShadowOpened
from modules.domain.instrument import AssetClass
from modules.domain.market import NAN, Bar, Chain, OptionQuote
from modules.domain.order import ExitReason
from modules.domain.pricing import black_76
from modules.domain.signal import Intent, Structure
from modules.learning.option_shadow import OptionShadow, Shape, option_terms_of
from modules.learning.shadow import Entered, Left
from modules.Learning_Agent import LearningAgent
from modules.store.codec import decode, encode
from modules.store.journal import Journal
from tests.builders import AT, shipped_policies

HOUR = 3_600_000
EXPIRY = AT + 48 * HOUR
VOLATILITY = 0.6
POLICIES = shipped_policies()
TERMS = option_terms_of(POLICIES)
KEY = ("seller", "BTC/USDT:USDT", AssetClass.OPTION)
SPREAD = Shape(Structure.CREDIT_SPREAD, 0.0, 0.3, 0.04)
CALL = Shape(Structure.LONG_OPTION, 0.0, 0.5, 0.0)


def quote(strike: float, *, is_call: bool = False, bid: bool = True) -> OptionQuote:
    mark = black_76(100_000.0, strike, 48 / 24 / 365, VOLATILITY, is_call=is_call)
    return OptionQuote(f"BTC-{strike:.0f}-{'C' if is_call else 'P'}", EXPIRY, strike, is_call, mark * 0.99 if bid else NAN, mark * 1.01,
                       mark, VOLATILITY, NAN, NAN, 500.0)


PUTS = (quote(94_000.0), quote(98_000.0), quote(100_000.0))
CALLS = (quote(100_000.0, is_call=True),)


class Market:
    """One chain that can be changed, grow old or lose a contract."""

    def __init__(self, quotes: tuple[OptionQuote, ...] = PUTS + CALLS) -> None:
        self.quotes = quotes
        self.at = AT
        self.told = True

    def chain(self, underlying: str) -> Chain | None:
        return Chain(underlying, self.at, 100_000.0, 1.0, self.quotes)

    def contract(self, symbol: str) -> OptionQuote | None:
        return next((one for one in self.quotes if one.symbol == symbol), None)


def candle(at: int, price: float) -> Bar:
    return Bar(at, price, price, price, price, 1.0, 1e5, NAN, NAN)


class Tape:
    def __init__(self, shape: Shape, market: Market | None = None) -> None:
        self.market = market or Market()
        self.shadow = OptionShadow(KEY, TERMS, shape, "BTC", self.market)
        self.series = SimpleNamespace(interval_ms=HOUR, bar=candle(AT - HOUR, 100_000.0))
        self.at = AT

    def want(self, sign: int = 1, hold: int = 0) -> None:
        self.shadow.want(self.series, Intent(0.5 * sign, 0.0, 0.0, hold), self.at, sign)

    def bar(self, price: float, sign: int | None = 1) -> list[Entered | Left]:
        if self.market.told:
            self.market.at = self.at
        made = candle(self.at, price)
        self.series.bar, self.at = made, self.at + HOUR
        return self.shadow.on_bar(self.series, made, self.at, sign)


def sold(tape: Tape) -> Entered:
    tape.want()
    opened, = tape.bar(100_000.0)
    assert isinstance(opened, Entered)
    return opened


def test_a_put_spread_is_sold_at_the_next_open_the_protective_leg_first_and_its_risk_is_all_it_can_lose() -> None:
    opened = sold(Tape(SPREAD))
    assert [(leg.symbol, leg.side) for leg in opened.legs] == [("BTC-94000-P", 1), ("BTC-98000-P", -1)]
    slip = POLICIES.costs.OPTION.slippage_bp / 1e4
    bought, written = (options.reprice(one, Tape(SPREAD).market.chain("BTC"), 100_000.0, AT) for one in PUTS[:2])  # type: ignore[arg-type]
    assert [leg.price for leg in opened.legs] == pytest.approx([bought[1] * (1 + slip), written[0] * (1 - slip)])
    fees = sum(min(0.0003 * 100_000.0, 0.125 * leg.price) for leg in opened.legs)
    assert opened.entry == pytest.approx(opened.legs[0].price - opened.legs[1].price + fees) and opened.entry < 0.0, "a credit"
    assert opened.risk == pytest.approx(4_000.0 + opened.legs[0].price - opened.legs[1].price + 2 * fees)
    assert opened.side == 1 and opened.target is None


@pytest.mark.parametrize(("price", "worth"), [(105_000.0, 0.0), (97_000.0, -1_000.0), (90_000.0, -4_000.0)])
def test_at_expiry_it_is_worth_what_the_underlying_says_and_never_costs_more_than_one_r(price: float, worth: float) -> None:
    tape = Tape(SPREAD)
    opened = sold(tape)
    while tape.at < EXPIRY - HOUR:
        assert not tape.bar(100_000.0)
    closed, = tape.bar(price)
    assert isinstance(closed, Left) and closed.reason is ExitReason.EXPIRY
    fees = sum(min(0.00015 * price, 0.125 * max(0.0, leg.strike - price)) for leg in opened.legs)
    assert closed.net_r == pytest.approx((worth - fees - opened.entry) / opened.risk)
    assert closed.net_r >= -1.0 and not tape.shadow.busy


def test_when_the_view_is_gone_or_the_time_is_up_it_is_bought_back_at_the_next_open() -> None:
    for hold, last, reason in ((0, -1, ExitReason.EXIT_SIGNAL), (2, 1, ExitReason.TIME_EXIT)):
        tape = Tape(SPREAD)
        tape.want(hold=hold)
        opened, = tape.bar(100_000.0)
        assert not tape.bar(100_000.0, last), "told at the close, done at the open"
        assert not tape.shadow.untouched(tape.series, tape.series.bar, tape.at + HOUR, 1), "decided is decided"
        now = tape.at
        closed, = tape.bar(100_000.0, last)
        assert isinstance(closed, Left) and isinstance(opened, Entered) and closed.reason is reason
        chain, slip = tape.market.chain("BTC"), POLICIES.costs.OPTION.slippage_bp / 1e4
        assert chain is not None
        sold_at = options.reprice(PUTS[0], chain, 100_000.0, now)[0] * (1 - slip)
        bought_at = options.reprice(PUTS[1], chain, 100_000.0, now)[1] * (1 + slip)
        fees = sum(min(0.0003 * 100_000.0, 0.125 * price) for price in (sold_at, bought_at))
        assert closed.net_r == pytest.approx((sold_at - bought_at - fees - opened.entry) / opened.risk)


def test_an_option_that_nobody_bids_for_is_sold_for_nothing_and_what_nobody_offers_is_held_on() -> None:
    tape = Tape(CALL)
    opened = sold(tape)
    tape.market.quotes = (quote(100_000.0, is_call=True, bid=False),)
    tape.bar(100_000.0, -1)
    closed, = tape.bar(100_000.0, -1)
    assert isinstance(closed, Left) and closed.net_r == pytest.approx(-opened.entry / opened.risk) and closed.net_r >= -1.0
    spread = Tape(SPREAD)
    sold(spread)
    spread.market.quotes = PUTS[:1]
    spread.bar(100_000.0, -1)
    assert not spread.bar(100_000.0, -1) and spread.shadow.busy
    spread.market.quotes = PUTS
    assert len(spread.bar(100_000.0, -1)) == 1


def test_what_is_not_known_is_not_traded() -> None:
    stale = Market()
    stale.at, stale.told = AT - int(TERMS.chain_age_ms) - HOUR, False
    for market in (stale, Market(()), Market(PUTS[:1])):
        tape = Tape(SPREAD, market)
        tape.want()
        assert not tape.shadow.busy and not tape.bar(100_000.0)
    late = Tape(SPREAD)
    late.want()
    late.at += 5 * HOUR
    assert not late.bar(100_000.0) and not late.shadow.busy, "an entry does not wait out a hole"
    lame = Tape(SPREAD)
    lame.want()
    lame.market.quotes = PUTS[1:2]
    assert not lame.bar(100_000.0) and not lame.shadow.busy, "one leg alone is another trade"
    refused = Tape(SPREAD)
    refused.want()
    refused.shadow.refused()
    assert not refused.bar(100_000.0)


def test_a_bar_called_untouched_is_one_on_which_nothing_happens() -> None:
    tape = Tape(SPREAD)
    sold(tape)
    while tape.at < EXPIRY:
        quiet = tape.shadow.untouched(tape.series, tape.series.bar, tape.at + HOUR, 1)
        assert not (tape.bar(100_000.0) and quiet)
    assert not tape.shadow.busy


def test_what_it_held_when_the_process_ended_goes_on_from_the_journal_to_the_same_end_to_the_last_bit() -> None:
    def agent(journal: Journal) -> LearningAgent:
        made = LearningAgent(journal=journal, policy=POLICIES.learning, full_r=0.25, strategies={AssetClass.OPTION: ["seller"]},
                             option_terms=TERMS)
        journal.project(made.apply)
        journal.react(made.on_fact)
        return made

    tape, journal = Tape(SPREAD), Journal(None)
    first = agent(journal)
    opened = sold(tape)
    first.shadowed([opened])
    first.flush()
    fact = next(fact for _, fact in journal.facts() if isinstance(fact, ShadowOpened))
    again = Tape(SPREAD, tape.market)
    kind, payload = encode(fact)
    assert decode(kind, payload, 1) == fact
    again.shadow.restore(fact)
    again.at = tape.at
    ends = []
    for one in (tape, again):
        one.bar(99_900.0, -1)
        ends.append(one.bar(99_800.0, -1))
    assert ends[0] == ends[1] and len(ends[0]) == 1
    first.shadowed(ends[0])
    first.flush()
    assert [fact.net_r for _, fact in journal.facts() if isinstance(fact, ShadowClosed)] == [ends[0][0].net_r]  # type: ignore[union-attr]
    assert first.document()["records"], "it taught"
