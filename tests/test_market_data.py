"""What the market is now: only what makes sense gets in, higher timeframes are whole, and a feed that hangs is announced."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from modules.domain.events import Fact, FeedLost, FeedRestored
from modules.domain.instrument import AssetClass
from modules.domain.market import NAN, Bar, Batch, FundingRate, Quote
from modules.domain.sessions import parse_iso
from modules.Market_Data import Higher, MarketData
from modules.store.journal import Journal
from tests.builders import BTC_PERP, BTC_SPOT, EUR_USD, make_instrument, shipped_policies

POLICIES = shipped_policies()
MINUTE = 60_000
HOUR = 60 * MINUTE
START = 1_767_571_200_000
INTERVAL = 5 * MINUTE


class Watch:
    """Market_Data with three instruments and everything it announces."""

    def __init__(self) -> None:
        self.journal = Journal(None)
        self.facts: list[Fact] = []
        self.bars: list[tuple[str, Bar, int]] = []
        self.instants: list[int] = []
        self.journal.react(self.facts.append)
        self.market = MarketData(
            journal=self.journal, risk=POLICIES.risk, kill_switch=POLICIES.kill_switch, costs=POLICIES.costs,
            on_bar=lambda symbol, bar, at: self.bars.append((symbol, bar, at)), after_batch=(self.instants.append,))
        self.market.list_instruments([make_instrument(c) for c in AssetClass], lambda _: INTERVAL)

    def see(self, *bars: tuple[str, Bar], **parts: object) -> None:
        at = max(bar.ts for _, bar in bars) + INTERVAL
        self.market.accept(Batch(at, tuple(bars), **parts))  # type: ignore[arg-type]

    def follow(self, prices: list[float], symbol: str = BTC_SPOT, begin: int = 0) -> None:
        for number, price in enumerate(prices, begin):
            self.see((symbol, bar(number, price)))

    @property
    def accepted(self) -> list[float]:
        return [one.close for _, one, _ in self.bars]


def bar(number: int, close: float, *, open_: float | None = None, high: float | None = None, low: float | None = None, volume: float = 1.0,
        bid: float = NAN, ask: float = NAN) -> Bar:
    first = close if open_ is None else open_
    return Bar(START + number * INTERVAL, first, max(first, close) if high is None else high, min(first, close) if low is None else low,
               close, volume, volume * close, bid, ask)


@pytest.fixture
def watch() -> Watch:
    return Watch()


# -- what makes no sense ----------------------------------------------------------------------------------------------


def test_a_tick_a_thousand_times_away_changes_nothing_and_the_next_sane_bar_goes_on(watch: Watch) -> None:
    watch.follow([50_000.0, 50_010.0])
    before = watch.market.mark(BTC_SPOT, START), watch.market.quote(BTC_SPOT)
    watch.follow([50_000_000.0], begin=2)
    assert (watch.market.mark(BTC_SPOT, START), watch.market.quote(BTC_SPOT)) == before
    assert watch.accepted == [50_000.0, 50_010.0] and watch.market.series[BTC_SPOT].refused == 1
    watch.follow([50_020.0], begin=3)
    assert watch.accepted[-1] == 50_020.0
    assert [type(fact) for fact in watch.facts] == [FeedLost, FeedRestored]


def test_three_bars_that_agree_on_a_new_price_are_believed_at_the_third(watch: Watch) -> None:
    watch.follow([50_000.0, 50.0, 50.1, 50.2, 50.3])
    assert watch.accepted == [50_000.0, 50.2, 50.3]


def test_three_insane_bars_that_do_not_agree_are_not_believed(watch: Watch) -> None:
    watch.follow([50_000.0, 5.0, 5e8, 0.5, 5e7, 50_001.0])
    assert watch.accepted == [50_000.0, 50_001.0]


def test_a_sane_bar_in_between_starts_the_counting_anew(watch: Watch) -> None:
    watch.follow([50_000.0, 50.0, 50.1, 50_000.0, 50.2, 50.3])
    assert watch.accepted == [50_000.0, 50_000.0]


@pytest.mark.parametrize("price, passes", [(250_000.0, False), (249_999.0, True), (10_000.0, False), (10_001.0, True)])
def test_the_border_of_a_believable_jump_is_the_policys(watch: Watch, price: float, passes: bool) -> None:
    assert POLICIES.kill_switch.mark_jump_max == 5
    watch.follow([50_000.0, price])
    assert (watch.accepted[-1] == price) is passes


@pytest.mark.parametrize("nonsense", [
    bar(1, 0.0), bar(1, -5.0), bar(1, math.nan), bar(1, math.inf), bar(1, 50_000.0, low=0.0), bar(1, 50_000.0, high=49_000.0),
    bar(1, 50_000.0, low=50_001.0, high=50_002.0), bar(1, 50_000.0, open_=50_500.0, high=50_100.0), bar(1, 50_000.0, high=math.inf),
    bar(1, 50_000.0, open_=math.nan, high=50_001.0, low=49_999.0),
], ids=["zero", "negative", "nan", "infinite", "low of zero", "high below close", "low above close", "open above high", "endless high",
        "no open"])
def test_a_bar_that_is_no_bar_is_refused_and_said_so(watch: Watch, nonsense: Bar) -> None:
    watch.follow([50_000.0])
    watch.see((BTC_SPOT, nonsense))
    assert watch.accepted == [50_000.0]
    (lost,) = watch.facts
    assert isinstance(lost, FeedLost) and lost.symbol == BTC_SPOT


def test_a_bar_that_has_not_closed_yet_is_refused(watch: Watch) -> None:
    watch.follow([50_000.0])
    watch.market.accept(Batch(START + INTERVAL + 4 * MINUTE, ((BTC_SPOT, bar(1, 50_100.0)),)))
    watch.market.accept(Batch(START + INTERVAL, ((BTC_SPOT, bar(9_999, 50_100.0)),)))
    assert watch.accepted == [50_000.0]
    watch.market.accept(Batch(START + 2 * INTERVAL - 900, ((BTC_SPOT, bar(1, 50_100.0)),)))
    assert watch.accepted == [50_000.0, 50_100.0], "a venue's clock may be off by what the policy allows"


def test_a_repeated_or_older_bar_is_old_news(watch: Watch) -> None:
    watch.follow([50_000.0, 50_001.0, 50_002.0])
    watch.market.accept(Batch(START + 9 * INTERVAL, ((BTC_SPOT, bar(2, 77_777.0)), (BTC_SPOT, bar(0, 77_777.0)))))
    assert watch.accepted == [50_000.0, 50_001.0, 50_002.0] and watch.facts == []


def test_a_symbol_nobody_listed_is_ignored(watch: Watch) -> None:
    watch.see(("XYZ/USDT", bar(0, 1.0)))
    assert watch.bars == []


# -- quotes and marks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bid, ask", [(50_001.0, 49_999.0), (0.0, 50_001.0), (-1.0, 50_001.0), (49_999.0, math.inf), (5e7, 5.1e7),
                                      (5.0, 50_001.0)],
                         ids=["crossed", "no bid", "negative", "endless", "a thousand times", "bid far away"])
def test_a_book_that_makes_no_sense_is_no_quote_and_the_last_one_ages(watch: Watch, bid: float, ask: float) -> None:
    watch.see((BTC_SPOT, bar(0, 50_000.0, bid=49_998.0, ask=50_002.0)))
    watch.see((BTC_SPOT, bar(1, 50_000.0, bid=bid, ask=ask)))
    quote = watch.market.quote(BTC_SPOT)
    assert quote == Quote(START + INTERVAL, 49_998.0, 50_002.0), "the older one, with its age"
    assert watch.accepted == [50_000.0, 50_000.0], "the bar itself is good"


def test_where_no_book_is_recorded_a_quote_is_made_of_the_close_and_marked_as_such(watch: Watch) -> None:
    watch.follow([50_000.0])
    quote = watch.market.quote(BTC_SPOT)
    assert quote is not None and quote.synthetic and quote.bid < 50_000.0 < quote.ask


@pytest.mark.parametrize("quote", [Quote(START + INTERVAL + 1, 50_001.0, 49_999.0), Quote(START + INTERVAL + 1, math.nan, 50_000.0),
                                   Quote(START + INTERVAL + 1, 5e7, 5e7 + 1), Quote(START, 49_990.0, 49_991.0)],
                         ids=["crossed", "nan", "a thousand times", "older"])
def test_a_streamed_quote_that_makes_no_sense_is_dropped(watch: Watch, quote: Quote) -> None:
    watch.follow([50_000.0])
    before = watch.market.quote(BTC_SPOT)
    watch.market.accept(Batch(START + INTERVAL + 1, quotes=((BTC_SPOT, quote),)))
    assert watch.market.quote(BTC_SPOT) == before


def test_a_quote_dated_ahead_is_one_of_now_and_holds_back_none_that_comes_after(watch: Watch) -> None:
    """One wrong stamp of a venue's must not freeze a price for as long as it is ahead, nor make it look fresh for as long."""
    watch.follow([50_000.0])
    now = START + INTERVAL + 1_000
    watch.market.accept(Batch(now, quotes=((BTC_SPOT, Quote(now + HOUR, 50_001.0, 50_002.0)),)))
    assert watch.market.quote(BTC_SPOT) == Quote(now, 50_001.0, 50_002.0)
    watch.market.accept(Batch(now + 500, quotes=((BTC_SPOT, Quote(now + 400, 40_001.0, 40_002.0)),)))
    assert watch.market.quote(BTC_SPOT) == Quote(now + 400, 40_001.0, 40_002.0)


def test_after_our_clock_was_set_back_the_next_quote_counts(watch: Watch) -> None:
    watch.follow([50_000.0])
    ahead = START + INTERVAL + HOUR
    watch.market.accept(Batch(ahead, quotes=((BTC_SPOT, Quote(ahead, 50_001.0, 50_002.0)),)))
    back = START + INTERVAL + 2_000
    watch.market.accept(Batch(back, quotes=((BTC_SPOT, Quote(ahead + 500, 40_001.0, 40_002.0)),)))
    assert watch.market.quote(BTC_SPOT) == Quote(back, 40_001.0, 40_002.0)


def test_a_bar_told_late_does_not_bring_its_old_quote_back(watch: Watch) -> None:
    watch.see((BTC_SPOT, bar(0, 50_000.0, bid=49_998.0, ask=50_002.0)))
    now = START + 2 * INTERVAL + 40_000
    watch.market.accept(Batch(now, quotes=((BTC_SPOT, Quote(now, 50_101.0, 50_102.0)),)))
    watch.market.accept(Batch(now + 1, ((BTC_SPOT, bar(1, 50_050.0, bid=50_048.0, ask=50_052.0)),)))
    assert watch.market.quote(BTC_SPOT) == Quote(now, 50_101.0, 50_102.0) and watch.accepted[-1] == 50_050.0


def test_a_mark_price_is_used_only_at_its_own_instant_and_only_if_it_can_be_true(watch: Watch) -> None:
    watch.see((BTC_PERP, bar(0, 50_000.0)))
    watch.see((BTC_PERP, bar(1, 50_000.0)), marks=((BTC_PERP, 50_025.0),))
    assert watch.market.mark(BTC_PERP, START) == Decimal("50025.0")
    for number, insane in enumerate((5e7, 0.0, -1.0, math.nan, math.inf), 2):
        watch.see((BTC_PERP, bar(number, 50_000.0)), marks=((BTC_PERP, insane),))
        assert watch.market.mark(BTC_PERP, START) == Decimal("50000.0"), "the mid, for want of a mark"


def test_an_unknown_price_is_none_and_never_zero(watch: Watch) -> None:
    assert watch.market.mark(BTC_SPOT, START) is None and watch.market.quote(BTC_SPOT) is None
    assert watch.market.quote_volume_24h(BTC_SPOT, START) is None and watch.market.bar_notional(BTC_SPOT) is None
    assert watch.market.mark("XYZ/USDT", START) is None and watch.market.rate("XYZ", "USDT") is None


# -- feeds --------------------------------------------------------------------------------------------------------------------


def test_a_frozen_feed_is_counted_announced_and_restored(watch: Watch) -> None:
    limit = POLICIES.risk.frozen_bars_max
    watch.follow([50_000.0])
    for number in range(1, limit + 2):
        watch.see((BTC_SPOT, bar(number, 50_000.0, volume=0.0)))
        assert watch.market.series[BTC_SPOT].frozen == number
    (lost,) = watch.facts
    assert isinstance(lost, FeedLost) and "frozen" in lost.reason and lost.at == START + (limit + 1) * INTERVAL
    watch.follow([50_001.0], begin=limit + 2)
    assert watch.market.series[BTC_SPOT].frozen == 0 and isinstance(watch.facts[-1], FeedRestored)


def test_an_unchanged_price_with_volume_is_a_quiet_market_and_not_a_frozen_feed(watch: Watch) -> None:
    watch.follow([50_000.0] * 20)
    assert watch.market.series[BTC_SPOT].frozen == 0 and watch.facts == []


def test_forex_that_is_silent_while_it_trades_is_announced_and_a_weekend_is_not(watch: Watch) -> None:
    """Without a bar no strategy looks at what it holds: one pair whose candles stopped must not go unnoticed for hours."""
    watch.see((EUR_USD, bar(0, 1.1)))
    due = START + 2 * INTERVAL
    watch.market.watch(due + 14 * MINUTE)
    assert watch.facts == [], "a quiet night has minutes without a tick"
    watch.market.watch(due + 16 * MINUTE)
    (lost,) = watch.facts
    assert isinstance(lost, FeedLost) and lost.symbol == EUR_USD
    friday = (parse_iso("2026-01-09T21:55:00Z") - START) // INTERVAL
    watch.see((EUR_USD, bar(friday, 1.1)))
    assert isinstance(watch.facts[-1], FeedRestored)
    sunday = parse_iso("2026-01-11T22:00:00Z")
    for at in (parse_iso("2026-01-10T12:00:00Z"), sunday + MINUTE, sunday + 19 * MINUTE):
        watch.market.watch(at)
    assert len(watch.facts) == 2, "closed, and just open again"
    watch.market.watch(sunday + 20 * MINUTE)
    assert isinstance(watch.facts[-1], FeedLost), "open for a bar and a quarter of an hour, and still nothing"


def test_a_feed_gone_silent_is_announced_once_and_forex_is_not_yet(watch: Watch) -> None:
    watch.see((BTC_SPOT, bar(0, 50_000.0)), (EUR_USD, bar(0, 1.1)))
    watch.market.watch(START + 2 * INTERVAL + 9_000)
    assert watch.facts == []
    for later in (11_000, 12_000, 600_000):
        watch.market.watch(START + 2 * INTERVAL + later)
    (lost,) = watch.facts
    assert isinstance(lost, FeedLost) and lost.symbol == BTC_SPOT
    watch.follow([50_000.0], begin=5)
    assert isinstance(watch.facts[-1], FeedRestored) and watch.market.series[BTC_SPOT].gaps == 1


def test_bars_of_an_instant_are_all_in_before_any_strategy_looks() -> None:
    watch = Watch()
    seen: list[float] = []
    watch.market.on_bar = lambda *_: seen.append(watch.market.series[BTC_PERP].bar.close)  # type: ignore[union-attr]
    watch.see((BTC_SPOT, bar(0, 50_000.0)), (BTC_PERP, bar(0, 50_040.0)))
    assert seen == [50_040.0, 50_040.0] and watch.instants == [START + INTERVAL]


def test_funding_that_is_no_number_is_not_taken(watch: Watch) -> None:
    watch.market.accept(Batch(START, funding=(FundingRate(BTC_PERP, START, 0.0001, 8.0),)))
    watch.market.accept(Batch(START + HOUR, funding=(FundingRate(BTC_PERP, START + HOUR, math.nan, 8.0),)))
    assert watch.market.series[BTC_PERP].funding == 0.0001


def test_the_volume_of_a_day_is_what_was_traded_in_it(watch: Watch) -> None:
    for number in range(300):
        watch.see((BTC_SPOT, bar(number, 50_000.0 + number % 2, volume=2.0)))
    at = START + 300 * INTERVAL
    expected = math.fsum(2.0 * (50_000.0 + number % 2) for number in range(12, 300))
    assert watch.market.quote_volume_24h(BTC_SPOT, at) == pytest.approx(expected, rel=1e-12)
    assert watch.market.quote_volume_24h(BTC_SPOT, at + 12 * HOUR) == pytest.approx(expected / 2, rel=1e-2)


def test_dollar_coins_are_dollars_and_other_rates_come_from_pairs_we_watch(watch: Watch) -> None:
    assert watch.market.rate("USDT", "USD") == 1 and watch.market.rate("EUR", "EUR") == 1
    watch.see((EUR_USD, bar(0, 1.25, bid=1.2499, ask=1.2501)))
    assert watch.market.rate("EUR", "USD") == Decimal("1.25") and watch.market.rate("USD", "EUR") == Decimal(1) / Decimal("1.25")


# -- higher timeframes -----------------------------------------------------------------------------------------------------------


def shown(prices: list[tuple[int, float]], length: int = HOUR) -> list[tuple[float, ...]]:
    """Every different higher bar that was ever shown: (bars since the start at its opening, open, high, low, close)."""
    higher = Higher(length)
    seen: list[tuple[float, ...]] = []
    for number, price in prices:
        higher.accept(bar(number, price, high=price + 1.0, low=price - 1.0), INTERVAL)
        ts, *values = higher.closed
        if ts == ts:
            one = (round(ts - START) // INTERVAL, *values)
            if not seen or seen[-1] != one:
                seen.append(one)
    return seen


def test_an_hour_is_shown_when_its_last_bar_has_closed_and_not_before() -> None:
    assert shown([(n, 100.0 + n) for n in range(11)]) == []
    assert shown([(n, 100.0 + n) for n in range(12)]) == [(0, 100.0, 112.0, 99.0, 111.0)]
    assert shown([(n, 100.0 + n) for n in range(23)]) == [(0, 100.0, 112.0, 99.0, 111.0)]


def test_an_hour_whose_last_bar_never_came_closes_with_what_it_had_when_the_next_begins() -> None:
    assert shown([*((n, 100.0 + n) for n in range(10)), (12, 200.0)]) == [(0, 100.0, 110.0, 99.0, 109.0)]


def test_an_hour_that_was_joined_in_its_middle_is_never_shown() -> None:
    assert shown([(n, 100.0 + n) for n in range(5, 12)]) == []
    assert shown([(n, 100.0 + n) for n in range(5, 24)]) == [(12, 112.0, 124.0, 111.0, 123.0)]
    assert shown([(5, 1.0), (13, 2.0), (14, 3.0), (25, 4.0)]) == [(12, 2.0, 4.0, 1.0, 3.0)]


def test_a_higher_timeframe_as_long_as_a_bar_is_that_bar() -> None:
    assert shown([(0, 5.0), (1, 6.0)], INTERVAL) == [(0, 5.0, 6.0, 4.0, 5.0), (1, 6.0, 7.0, 5.0, 6.0)]


def test_no_higher_bar_ever_shows_the_future() -> None:
    """At any bar, what is shown was over by that bar's close."""
    higher = Higher(HOUR)
    for number in (*range(40), *range(47, 90), *range(120, 200)):
        one = bar(number, 100.0 + number)
        higher.accept(one, INTERVAL)
        assert not higher.closed.ts + HOUR > one.ts + INTERVAL
