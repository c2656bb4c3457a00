"""The demo daemon is stopped and started again: its paper venue, books, stops, halts and pauses are what they were, and time goes on."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import main
from modules.domain.errors import ConfigurationError
from modules.domain.events import (
    BalanceAdjusted,
    Fact,
    Filled,
    FundingBooked,
    InstrumentListed,
    OptionSettled,
    OrderAccepted,
    OrderCanceled,
    OrderIntended,
    OrderSent,
    Scope,
    TransferSeen,
    Trigger,
)
from modules.domain.instrument import AssetClass, Side
from modules.domain.order import Accepted, ExitReason, OrderKind, OrderState, Purpose, Refused
from modules.domain.view import TradingState
from modules.runtime.clock import VirtualClock, VirtualLoop, WallClock
from modules.store.journal import Journal
from modules.venues.demo_market import DemoMarket
from modules.venues.paper_restore import Forgetful, Reader, resumed
from modules.venues.paper_venue import PaperVenue
from modules.venues.protocol import Step
from tests.builders import make_fill, make_instrument, make_order, shipped_policies
from tests.crash_runner import CASH, HOUR_MS, Life, live, market, policies, report, unprotected

D = Decimal
HOURS = 6
CURRENCIES = {AssetClass.SPOT: "USDT", AssetClass.PERP: "USDT", AssetClass.OPTION: "USDT", AssetClass.FOREX: "USD"}


@cache
def demo() -> DemoMarket:
    """One for all tests that only look at it: a market remembers the days it has made."""
    return DemoMarket(3, 1)


def fresh_venue(source: Any, wallets: dict[AssetClass, Decimal] = CASH, clock: Any = None) -> PaperVenue:
    return PaperVenue(source, clock or VirtualClock(VirtualLoop(source.start)), shipped_policies().costs, wallets, CURRENCIES)


def restore(venue: PaperVenue, facts: Iterable[Fact]) -> None:
    """As a start does, which shows the facts to the books on the same pass."""
    reader = venue.reader()
    for fact in facts:
        reader.take(fact)
    venue.recollect(reader.memory)


def picture(venue: PaperVenue) -> dict[str, Any]:
    """Everything a venue's memory is made of, as plain values; prices of the moment left out."""
    desk = venue._desk
    return {
        "cash": {c: book.cash for c, book in desk.books.items()},
        "coins": {c: {k: v for k, v in book.coins.items() if v} for c, book in desk.books.items()},
        "bought": {c: dict(book.bought) for c, book in desk.books.items()},
        "holdings": {symbol: (held.quantity, held.value, held.worth, held.margin, held.strike_rate)
                     for book in desk.books.values() for symbol, held in book.holdings.items()},
        "free": {c: book.free for c, book in desk.books.items()},
        "orders": {k: (w.state, w.filled, w.venue_id, w.order, w.submitted_at, w.eligible_at) for k, w in desk.orders.items()},
        "resting": {s: [w.order.client_order_id for w in series.orders] for s, series in venue._prices.series.items() if series.orders},
        "fills": [seen.fill for seen in desk.fills],
        "held": set(desk.held),
        "liquidation": {s: series.liquidation for s, series in venue._prices.series.items() if series.liquidation},
        "rollover": desk._rollover,
    }


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Life, list[tuple[int, int, dict[str, Any]]]]:
    """A run, and what its venue looked like at every seventh instant: (facts by then, at, picture)."""
    pictures: list[tuple[int, int, dict[str, Any]]] = []
    seen = 0

    def look(life: Life, at: int) -> None:
        nonlocal seen
        seen += 1
        if seen % 7 == 0:
            pictures.append((life.journal.count, at, picture(life.venue)))

    life = live(tmp_path_factory.mktemp("watched"), market(HOURS), hook=look)
    return life, pictures


def test_the_venue_read_back_from_the_journal_is_the_venue_that_never_stopped(
    watched: tuple[Life, list[tuple[int, int, dict[str, Any]]]]
) -> None:
    life, pictures = watched
    facts = [fact for _, fact in life.journal.facts()]
    assert len(pictures) >= 8 and len(pictures[-1][2]["orders"]) > 100 and any(p["holdings"] for _, _, p in pictures)
    for count, at, before in pictures:
        venue = fresh_venue(market(HOURS))
        restore(venue, facts[:count])
        assert venue._known is not None and at - 300_000 <= venue._known.at <= at
        again = picture(venue)
        # A fact may be missing since the last step, so the clock may stand a step earlier; nothing that is money or an order may.
        if venue._known.at == at:
            assert again == before
        else:
            assert {k: v for k, v in again.items() if k != "rollover"} == {k: v for k, v in before.items() if k != "rollover"}


def test_no_number_the_venue_gave_out_is_ever_given_out_again(watched: tuple[Life, list[tuple[int, int, dict[str, Any]]]]) -> None:
    life, pictures = watched
    facts = [fact for _, fact in life.journal.facts()]
    venue = fresh_venue(market(HOURS))
    restore(venue, facts[: pictures[5][0]])
    used = {fact.venue_order_id for fact in facts[: pictures[5][0]] if isinstance(fact, OrderAccepted)}
    used |= {fact.fill.venue_trade_id for fact in facts[: pictures[5][0]] if isinstance(fact, Filled)}
    number = venue._desk._next_number()
    assert used and number > max(int(name[1:]) for name in used)


def test_reading_the_journal_back_twice_gives_the_same_venue(watched: tuple[Life, list[tuple[int, int, dict[str, Any]]]]) -> None:
    life, _ = watched
    facts = [fact for _, fact in life.journal.facts()]
    once, twice = fresh_venue(market(HOURS)), fresh_venue(market(HOURS))
    restore(once, facts)
    restore(twice, iter(facts))
    assert picture(once) == picture(twice)


# -- the daemon ---------------------------------------------------------------------------------------------------------------


STOPS = (1.3, 1.99, 2.0, 2.4, 5.0)
"""Hours after which the daemon is stopped; scripted transfers fall due at 2 and at 5."""


@dataclass
class Interrupted:
    """A run in six lives on one journal, and what each found when it had started: (differences, trades open, unprotected ones)."""

    lives: list[Life]
    stands: list[tuple[int, int, list[str]]]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    folder, source = tmp_path_factory.mktemp("interrupted"), market(HOURS)
    stands: list[tuple[int, int, list[str]]] = []

    def look(life: Life) -> None:
        stands.append((life.differences_at_start, len(life.daemon.executor.trades), unprotected(life)))

    ends = [source.start + int(stop * HOUR_MS) for stop in STOPS]
    return Interrupted([live(folder, source, until=until, on_started=look) for until in (*ends, None)], stands)


def test_after_a_restart_books_and_venue_agree_and_every_open_trade_has_its_stop(interrupted: Interrupted) -> None:
    assert [differences for differences, _, _ in interrupted.stands] == [0] * 6
    assert sum(trades for _, trades, _ in interrupted.stands) > 5, "the restarts found nothing open: this proves nothing"
    assert [missing for _, _, missing in interrupted.stands] == [[]] * 6
    for life in interrupted.lives:
        assert life.differences == 0 and unprotected(life) == [] and not life.daemon.executor.in_doubt
        assert life.daemon.strategies.quarantined == []


def test_the_last_of_many_lives_is_what_its_journal_says(interrupted: Interrupted) -> None:
    last = interrupted.lives[-1]
    assert report(last)["replayed"] == []
    for asset_class in AssetClass:
        ledger = last.daemon.portfolio.ledger(asset_class)
        assert last.daemon.portfolio.wallet_cash(asset_class) == last.venue.books[asset_class].cash
        assert ledger.net == ledger.gross - ledger.fees + ledger.funding


def test_trading_goes_on_after_a_restart_and_no_fill_is_taken_for_a_repeat(interrupted: Interrupted) -> None:
    last = interrupted.lives[-1]
    fills = [fact.fill for _, fact in last.journal.facts() if isinstance(fact, Filled)]
    for begin, end in itertools.pairwise((*STOPS[2:], HOURS)):
        since, until = (market(HOURS).start + int(hour * HOUR_MS) for hour in (begin, end))
        assert sum(since < fill.at < until for fill in fills) > 5
    assert len({(fill.symbol, fill.venue_trade_id) for fill in fills}) == len(fills)
    assert {seen.fill for seen in last.venue._desk.fills} == set(fills), "the venue filled what the daemon did not book"


def test_transfers_of_the_script_are_made_once_however_often_the_daemon_restarts(interrupted: Interrupted) -> None:
    facts = [fact for _, fact in interrupted.lives[-1].journal.facts() if isinstance(fact, TransferSeen)]
    assert [(fact.asset_class, fact.amount) for fact in facts if fact.venue_ref.startswith("transfer")] == [
        (AssetClass.SPOT, D(600)), (AssetClass.FOREX, D(-2500))]


def test_market_time_goes_on_from_where_it_stopped(interrupted: Interrupted) -> None:
    at = [fact.at for _, fact in interrupted.lives[-1].journal.facts()]
    assert max(later - sooner for sooner, later in itertools.pairwise(at)) < HOUR_MS
    # Nothing is told late by more than the step the clock stood in.
    assert min(later - sooner for sooner, later in itertools.pairwise(at)) >= -300_000


def test_a_transfer_that_the_crash_swallowed_is_made_at_the_restart(tmp_path: Path) -> None:
    life = live(tmp_path, market(HOURS), until=market(HOURS).start + 2 * HOUR_MS)
    facts = [fact for _, fact in life.journal.facts()]
    due = market(HOURS).start + 2 * HOUR_MS
    kept = [fact for fact in facts if not (isinstance(fact, TransferSeen) and fact.venue_ref.startswith("transfer"))]
    assert len(kept) == len(facts) - 1 and max(fact.at for fact in kept) >= due, "nothing else is known of that instant"
    venue = fresh_venue(market(HOURS))
    restore(venue, kept)
    whole = fresh_venue(market(HOURS))
    restore(whole, facts)
    assert venue._desk.books[AssetClass.SPOT].cash == whole._desk.books[AssetClass.SPOT].cash


def test_halts_pauses_and_baselines_survive(tmp_path: Path) -> None:
    source = market(HOURS)

    def tighten(life: Life, at: int) -> None:
        if at == source.start + HOUR_MS:
            life.daemon.kill_switch.halt(Scope.SPOT, Trigger.MANUAL, at=at, reason="test")
            life.daemon.risk.pause(Scope.FOREX, at, "test")

    first = live(tmp_path, source, until=source.start + 2 * HOUR_MS, hook=tighten)
    second = live(tmp_path, source, until=source.start + 4 * HOUR_MS)
    switch, before = second.daemon.kill_switch, first.daemon.kill_switch
    assert switch.state(AssetClass.SPOT) is TradingState.HALTED and switch.state(AssetClass.PERP) is TradingState.ACTIVE
    assert second.daemon.risk.paused(AssetClass.FOREX) and not second.daemon.risk.paused(AssetClass.PERP)
    for asset_class in AssetClass:
        assert switch._values[asset_class].day_start == before._values[asset_class].day_start
        assert switch._values[asset_class].units == before._values[asset_class].units or asset_class is AssetClass.SPOT
    since = source.start + 2 * HOUR_MS + 1
    entered = {f.order.asset_class for _, f in second.journal.facts() if isinstance(f, OrderIntended) and f.at >= since
               and f.order.purpose is Purpose.ENTRY}
    assert AssetClass.PERP in entered and AssetClass.SPOT not in entered and AssetClass.FOREX not in entered


def test_an_exit_that_was_wished_before_the_stop_is_carried_out_after_it(tmp_path: Path) -> None:
    source = market(HOURS)
    wished: list[str] = []

    def close_all(life: Life, at: int) -> None:
        if at == source.start + 3 * HOUR_MS and life.daemon.executor.trades:
            # The wish is on record; the process ends before the market opens again.
            for trade_id, trade in list(life.daemon.executor.trades.items()):
                life.daemon.executor.request_exit(trade_id, ExitReason.FORCE_EXIT, at)
                if trade.filled:
                    wished.append(trade_id)

    live(tmp_path, source, until=source.start + 3 * HOUR_MS, hook=close_all)
    after = live(tmp_path, source, until=source.start + 4 * HOUR_MS)
    closed = {trade.trade_id for trade in after.daemon.portfolio.closed}
    assert wished and set(wished) <= closed
    assert not set(wished) & set(after.daemon.executor.trades)


def test_a_journal_of_nothing_but_a_start_starts_the_market_at_its_beginning(tmp_path: Path) -> None:
    source = market(HOURS)
    assert main.resume_at(Journal(None)) is None
    live(tmp_path, source, until=source.start)
    with Journal(tmp_path / "journal.sqlite", read_only=True) as journal:
        assert main.resume_at(journal) == source.start
    assert report(live(tmp_path, source, until=source.start + HOUR_MS))["differences"] == 0


# -- a source that can be entered in the middle ----------------------------------------------------------------------------------


@cache
def whole_day() -> list[Step]:
    return list(demo().steps())


@pytest.mark.parametrize("hours", [0, 0.01, 8, 21.04, 24])
def test_the_demo_market_entered_in_the_middle_goes_on_as_if_it_had_been_watched(hours: float) -> None:
    whole = whole_day()
    at = whole[0].at + int(hours * HOUR_MS)
    known, rest = resumed(demo(), at)
    index = max(i for i, one in enumerate(whole) if one.at <= at)
    assert known.at == whole[index].at and known.bars == ()
    assert repr(list(rest)) == repr(whole[index + 1:])
    chains = {chain.underlying: chain for one in whole[: index + 1] for chain in one.chains}
    assert repr(list(chains.values())) == repr(list(known.chains))
    assert repr(known.marks) == repr(whole[index].marks)
    assert list(known.funding) == list(next(one.funding for one in reversed(whole[: index + 1]) if one.funding))


def test_a_source_that_cannot_be_entered_is_walked_through_and_knows_the_same() -> None:
    class Walked:
        """The demo market without its door in the middle."""

        def __init__(self) -> None:
            self._market = DemoMarket(3, 1)
            self.start = self._market.start

        def steps(self) -> Iterator[Any]:
            return self._market.steps()

    at = demo().start + 5 * HOUR_MS + 1
    known, rest = resumed(demo(), at)
    walked, following = resumed(Walked(), at)  # type: ignore[arg-type]
    assert walked.at == known.at and repr(next(following)) == repr(next(rest))
    assert repr(sorted(walked.chains)) == repr(sorted(known.chains)) and sorted(walked.marks) == sorted(known.marks)
    assert sorted(walked.funding) == sorted(known.funding)


# -- facts a demo day does not have, one by one -----------------------------------------------------------------------------------


BTC = replace(make_instrument(AssetClass.SPOT), venue="demo")
PERP = replace(make_instrument(AssetClass.PERP), venue="demo", leverage_max=D(20))
AT = demo().start + HOUR_MS


def story(*facts: Fact) -> PaperVenue:
    venue = fresh_venue(demo(), {AssetClass.SPOT: D(1), AssetClass.PERP: D(1000)})
    restore(venue, [TransferSeen(AT, AssetClass.SPOT, D(5000), D(0), "opening SPOT"), *facts])
    return venue


def test_the_opening_balance_is_the_journals_and_not_todays_settings() -> None:
    assert story()._desk.books[AssetClass.SPOT].cash == D(5000)
    assert story()._desk.books[AssetClass.PERP].cash == D(1000), "a class the journal does not open keeps its setting"


def test_an_order_that_was_sent_and_never_answered_is_not_at_the_venue() -> None:
    order = make_order(BTC, at=AT)
    venue = story(InstrumentListed(AT, BTC), OrderIntended(AT, order), OrderSent(AT, order.client_order_id))
    assert venue._desk.orders == {}
    assert asyncio.run(venue.order(order.client_order_id, order.symbol)) is None


def test_a_half_filled_order_keeps_working_for_its_rest_and_its_id_cannot_be_used_again() -> None:
    order = make_order(BTC, at=AT, expires_at=None)
    fill = make_fill(order, quantity=D("0.004"), venue_trade_id="T41", venue="demo", fee=D("0.00000400"), fee_currency="BTC")
    venue = story(InstrumentListed(AT, BTC), OrderIntended(AT, order), OrderSent(AT, order.client_order_id),
                  OrderAccepted(AT, order.client_order_id, "P40"), Filled(AT + 50, fill, False))
    (working,) = venue._desk.pending
    assert working.remaining == D("0.006") and venue._desk._next_number() == 42
    assert venue._desk.books[AssetClass.SPOT].coins["BTC"] == D("0.003996")
    refused = asyncio.run(venue.submit(order))
    assert isinstance(refused, Refused) and refused.code == "DUPLICATE"


def test_a_stop_that_had_begun_to_fill_goes_on_as_a_market_order() -> None:
    entry = make_order(BTC, at=AT, expires_at=None)
    stop = make_order(BTC, at=AT, side=Side.SELL, purpose=Purpose.STOP, kind=OrderKind.STOP, price=D("49000.00"), quantity=D("0.00999"),
                      expires_at=None)
    bought = make_fill(entry, venue_trade_id="T2", venue="demo", fee=D("0.00001"), fee_currency="BTC")
    sold = make_fill(stop, quantity=D("0.004"), venue_trade_id="T4", venue="demo")
    facts: list[Fact] = [InstrumentListed(AT, BTC)]
    for number, order in ((1, entry), (3, stop)):
        facts += [OrderIntended(AT, order), OrderSent(AT, order.client_order_id), OrderAccepted(AT, order.client_order_id, f"P{number}")]
    venue = story(*facts, Filled(AT + 50, bought, True), Filled(AT + 60, sold, False))
    (working,) = venue._desk.pending
    assert working.order is stop and working.triggered and not working.rests


def test_what_would_only_reduce_a_position_that_is_gone_is_canceled_and_said_so() -> None:
    stop = make_order(PERP, at=AT, side=Side.SELL, purpose=Purpose.STOP, kind=OrderKind.STOP, price=D("49000.0"), expires_at=None)
    venue = story(InstrumentListed(AT, PERP), OrderIntended(AT, stop), OrderSent(AT, stop.client_order_id),
                  OrderAccepted(AT, stop.client_order_id, "P1"))
    assert venue._desk.orders[stop.client_order_id].state is OrderState.CANCELED
    assert venue._events.get_nowait().client_order_id == stop.client_order_id  # type: ignore[union-attr]


def test_margin_leverage_and_entry_sums_come_back_exactly() -> None:
    entry = make_order(PERP, at=AT, leverage=D(3), quantity=D("0.0700"), expires_at=None)
    first = make_fill(entry, quantity=D("0.03"), price=D("50000.1"), venue_trade_id="T2", venue="demo", fee=D("0.82500165"))
    second = make_fill(entry, quantity=D("0.04"), price=D("50003.7"), venue_trade_id="T3", venue="demo", fee=D("1.1"))
    exit_order = make_order(PERP, at=AT, side=Side.SELL, purpose=Purpose.EXIT, quantity=D("0.05"), expires_at=None)
    sold = make_fill(exit_order, quantity=D("0.05"), price=D("50100.0"), venue_trade_id="T5", venue="demo", fee=D("1.37775"))
    facts: list[Fact] = [InstrumentListed(AT, PERP)]
    for number, order in ((1, entry), (4, exit_order)):
        facts += [OrderIntended(AT, order), OrderSent(AT, order.client_order_id), OrderAccepted(AT, order.client_order_id, f"P{number}")]
    venue = story(*facts, Filled(AT, first, False), Filled(AT, second, True), Filled(AT, sold, True),
                  FundingBooked(AT, "demo", PERP.symbol, AssetClass.PERP, D("-0.25"), 0.0001, "funding:1"))
    holding = venue._desk.books[AssetClass.PERP].holdings[PERP.symbol]
    value = D("0.03") * D("50000.1") + D("0.04") * D("50003.7")
    released = value * D("0.05") / D("0.07")
    assert holding.quantity == D("0.02") and holding.value == value - released
    gain = (D("0.05") * D("50100.0") - released).quantize(D("1e-8"))
    assert venue._desk.books[AssetClass.PERP].cash == D(1000) - D("0.82500165") - D("1.1") - D("1.37775") + gain - D("0.25")
    assert abs(holding.leverage - 3) < D("0.0001") and venue._prices.series[PERP.symbol].liquidation > 0.0


def test_an_order_that_ended_is_remembered_with_its_end() -> None:
    order = make_order(PERP, at=AT)
    venue = story(InstrumentListed(AT, PERP), OrderIntended(AT, order), OrderSent(AT, order.client_order_id),
                  OrderAccepted(AT, order.client_order_id, "P9"), OrderCanceled(AT, order.client_order_id, "unfilledtimeout"))
    found = asyncio.run(venue.order(order.client_order_id, order.symbol))
    assert found is not None and found.state is OrderState.CANCELED and found.venue_order_id == "P9"
    assert isinstance(asyncio.run(venue.cancel(order)), Accepted)


def test_a_difference_that_was_booked_is_what_the_wallet_was() -> None:
    venue = story(BalanceAdjusted(AT, AssetClass.SPOT, "USDT", D("-1.5"), "unexplained difference"),
                  BalanceAdjusted(AT, AssetClass.SPOT, "BTC", D("0.1"), "unexplained difference"))
    assert venue._desk.books[AssetClass.SPOT].cash == D("4998.5") and venue._desk.books[AssetClass.SPOT].coins["BTC"] == D("0.1")


def test_an_option_that_expired_is_gone_and_its_value_is_cash() -> None:
    source = demo()
    known, _ = resumed(source, AT)
    quote = known.chains[0].quotes[0]
    call = source.contract(quote.symbol)
    assert call is not None
    order = make_order(call, at=AT, quantity=D("0.10"), expires_at=None)
    fill = make_fill(order, quantity=D("0.10"), price=D(500), venue="demo", venue_trade_id="T2", fee=D("0.5"))
    wallets = {AssetClass.OPTION: D(1000)}
    facts: list[Fact] = [InstrumentListed(AT, call), OrderIntended(AT, order), OrderSent(AT, order.client_order_id),
                         OrderAccepted(AT, order.client_order_id, "P1"), Filled(AT, fill, True)]
    held = fresh_venue(source, wallets)
    restore(held, facts)
    assert held._desk.books[AssetClass.OPTION].holdings[call.symbol].quantity == D("0.10") and held._desk._next_expiry == call.expiry
    gone = fresh_venue(source, wallets)
    restore(gone, [*facts, OptionSettled(AT, "demo", call.symbol, D("0.10"), D(700), D(1), D("0.2"), f"expiry:{call.symbol}")])
    assert gone._desk.books[AssetClass.OPTION].holdings == {}
    assert gone._desk.books[AssetClass.OPTION].cash == D(1000) - D(50) - D("0.5") + D(70) - D("0.2")


def test_a_journal_of_another_market_is_refused_and_the_symbol_named() -> None:
    strange = replace(BTC, symbol="XYZ/USDT", base="XYZ", underlying="XYZ")
    order = make_order(strange, at=AT, expires_at=None)
    fill = make_fill(order, venue="demo", venue_trade_id="T2", fee=D(0))
    with pytest.raises(ConfigurationError, match="XYZ/USDT"):
        story(InstrumentListed(AT, strange), OrderIntended(AT, order), OrderSent(AT, order.client_order_id),
              OrderAccepted(AT, order.client_order_id, "P1"), Filled(AT, fill, True))


def test_money_of_a_class_without_a_wallet_is_refused_and_the_class_named() -> None:
    with pytest.raises(ConfigurationError, match="OPTION"):
        story(TransferSeen(AT, AssetClass.OPTION, D(5), D(0), "opening OPTION"))


def test_the_past_cannot_be_given_to_a_market_that_has_begun() -> None:
    venue = fresh_venue(demo())
    restore(venue, [TransferSeen(AT, AssetClass.SPOT, D(5000), D(0), "opening SPOT")])
    with pytest.raises(RuntimeError, match="begun"):
        restore(venue, [])


def test_a_venue_with_a_memory_of_its_own_is_left_alone() -> None:
    assert not isinstance(object(), Forgetful) and isinstance(fresh_venue(demo()), Forgetful)


def test_facts_of_another_venue_are_none_of_its_business() -> None:
    elsewhere = make_order(PERP, at=AT, venue="kraken")
    facts = (InstrumentListed(AT, PERP), OrderIntended(AT, elsewhere), OrderSent(AT, elsewhere.client_order_id),
             OrderAccepted(AT, elsewhere.client_order_id, "77"), Filled(AT, make_fill(elsewhere), True))
    reader = Reader("demo", {}, 50, lambda _: None)
    for fact in facts:
        reader.take(fact)
    memory = reader.memory
    assert memory.orders == {} and memory.fills == [] and memory.at == AT


# -- in real time -----------------------------------------------------------------------------------------------------------------


async def test_in_real_time_a_held_position_can_be_closed_right_after_a_restart(tmp_path: Path) -> None:
    entry = make_order(PERP, at=AT, quantity=D("0.0100"), expires_at=None)
    fill = make_fill(entry, venue="demo", venue_trade_id="T2", fee=D("0.1"))
    source = demo()
    venue = fresh_venue(source, {AssetClass.PERP: D(1000)}, WallClock(100.0, AT + 60_000))
    restore(venue, [InstrumentListed(AT, PERP), OrderIntended(AT, entry), OrderSent(AT, entry.client_order_id),
                    OrderAccepted(AT, entry.client_order_id, "P1"), Filled(AT, fill, True)])
    events = venue.market_events()
    known = await anext(events)
    assert known.bars == () and known.chains and known.funding
    close = make_order(PERP, at=AT + 60_000, side=Side.SELL, purpose=Purpose.EXIT, quantity=D("0.0100"), expires_at=None)
    assert isinstance(await venue.submit(close), Accepted)
    assert venue._desk.orders[close.client_order_id].state is OrderState.FILLED
    assert venue._desk.books[AssetClass.PERP].holdings == {}
    await venue.close()


def test_the_policies_of_these_tests_are_the_shipped_ones_but_for_what_they_say() -> None:
    assert policies().sizing == shipped_policies().sizing and policies().costs == shipped_policies().costs
