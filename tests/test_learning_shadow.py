"""What every strategy would have earned: its shadow trades as the paper venue would, is judged like a ledger, and survives a restart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import main
from modules.domain.events import PositionClosed, ShadowClosed, ShadowOpened
from modules.domain.instrument import AssetClass
from modules.domain.market import NAN, Bar
from modules.domain.order import ExitReason
from modules.domain.policies import Policies
from modules.domain.signal import Intent
from modules.learning.shadow import Entered, Left, Shadow, terms_of
from modules.Learning_Agent import LearningAgent
from modules.store.journal import Journal
from modules.venues.demo_market import DemoMarket
from tests.builders import AT, BTC_SPOT, shipped_policies
from tests.demo_runs import simulate

SPOT, PERP = AssetClass.SPOT, AssetClass.PERP
MINUTE = 60_000
POLICIES: Policies = shipped_policies()
TERMS = terms_of(POLICIES)


@cache
def demo() -> main.Simulation:
    """Five days of the demo market with everything shipped; on one of them the book trades an option structure."""
    return simulate(DemoMarket(4, 5))


def facts(kind: type) -> list[Any]:
    return [fact for _, fact in demo().daemon.journal.facts() if isinstance(fact, kind)]


class Tape:
    """One series seen by one shadow: bars go in, deeds come out."""

    def __init__(self, asset_class: AssetClass = SPOT, shadow: Shadow | None = None) -> None:
        self.shadow = shadow or Shadow(("trend", BTC_SPOT, asset_class), TERMS[asset_class])
        self.series = SimpleNamespace(
            interval_ms=MINUTE, ask=100.01, bid=99.99, funding_at=0, funding=NAN, mark_at=0, mark_price=NAN, financing=None, bar=None)
        self.at = AT

    def bar(self, opened: float, high: float, low: float, close: float, sign: int = 1, skip: int = 0) -> Sequence[Entered | Left]:
        begun = self.at + skip * MINUTE
        self.at = begun + MINUTE
        self.series.bar = made = Bar(begun, opened, high, low, close, 1.0, 100.0, NAN, NAN)
        self.series.ask, self.series.bid = close * 1.0001, close * 0.9999
        return self.shadow.on_bar(self.series, made, self.at, sign)

    def want(self, sign: int = 1, stop: float = 2.0, target: float = 4.0, hold: int = 0) -> None:
        self.shadow.want(self.series, Intent(0.5 * sign, stop, target, hold), self.at, sign)


# -- against the paper venue -----------------------------------------------------------------------------------------------------------


def test_a_shadow_of_a_trade_the_book_took_ends_as_the_paper_venue_ended_it() -> None:
    """The venue matches orders, books money and counts fees by other code; per trade the two agree to a few hundredths of an R."""
    shadows = [fact for fact in facts(ShadowClosed) if fact.taken]
    pairs = []
    for trade in (fact.trade for fact in facts(PositionClosed) if fact.trade.asset_class is not AssetClass.OPTION):
        same = [fact for fact in shadows if (fact.strategy, fact.symbol) == (trade.strategy, trade.symbol)
                and abs(fact.opened_at - trade.opened_at) < 5 * MINUTE]
        assert len(same) == 1, f"{trade.trade_id} has no shadow"
        pairs.append((float(trade.net_r or 0), same[0].net_r))
    book, shadow = np.array(pairs).T
    assert len(pairs) >= 20 and book.std() > 0.5
    assert np.abs(shadow - book).max() < 0.1 and abs((shadow - book).mean()) < 0.005


def test_the_shadow_of_an_option_structure_the_book_took_ends_as_the_paper_venue_ended_it() -> None:
    trades = [fact.trade for fact in facts(PositionClosed) if fact.trade.asset_class is AssetClass.OPTION]
    shadows = [fact for fact in facts(ShadowClosed) if fact.asset_class is AssetClass.OPTION]
    assert trades and len(shadows) > len(trades), "what is too big for the book has a shadow all the same"
    for trade in trades:
        same, = (fact for fact in shadows if fact.strategy == trade.strategy and abs(fact.opened_at - trade.opened_at) < 5 * MINUTE)
        assert same.taken and same.symbol == trade.symbol
        assert abs(same.net_r - float(trade.net_r or 0)) < 0.02
    for fact in facts(ShadowOpened):
        if fact.asset_class is AssetClass.OPTION:
            assert fact.legs and fact.risk > 0.0 and (len(fact.legs) == 1 or fact.legs[0].side > 0), "the protective leg first"
            assert all(leg.symbol.startswith(fact.symbol.partition("/")[0]) for leg in fact.legs)


def test_what_the_book_did_not_take_teaches_too_and_nothing_counts_twice() -> None:
    daemon = demo().daemon
    only_shadow = sum(not fact.taken for fact in facts(ShadowClosed))
    booked = sum(fact.trade.net_r is not None for fact in facts(PositionClosed))
    records = daemon.learning.document()["records"].values()
    assert only_shadow > booked > 0
    assert sum(record["shadows"] for record in records) == only_shadow
    assert sum(record["closed"] for record in records) == only_shadow + booked


def test_shadows_are_in_nobodys_ledger() -> None:
    daemon = demo().daemon
    for asset_class in AssetClass:
        closed = [fact.trade for fact in facts(PositionClosed) if fact.trade.asset_class is asset_class]
        assert daemon.portfolio.ledger(asset_class).trades == len(closed)


# -- bar by bar ------------------------------------------------------------------------------------------------------------------------


def test_it_enters_at_the_next_open_and_the_stop_comes_before_the_target() -> None:
    tape = Tape()
    tape.want()
    (entered, left) = tape.bar(100.0, 110.0, 90.0, 100.0)
    assert isinstance(entered, Entered) and entered.opened_at == AT and entered.entry > 100.0
    assert isinstance(left, Left) and left.reason is ExitReason.STOP_LOSS and left.net_r == pytest.approx(-1.0, abs=0.02)
    assert not tape.shadow.busy


def test_a_target_pays_its_distance_less_what_trading_costs() -> None:
    tape = Tape()
    tape.want()
    tape.bar(100.0, 101.0, 99.0, 100.0)
    (left,) = tape.bar(100.0, 105.0, 99.5, 104.5)
    assert isinstance(left, Left) and left.reason is ExitReason.ROI
    risk = 2.0 + 100.01 * (4e-4 + 2 * 0.001)
    gain = 104.01 - 100.0 * (1 + 1e-4) * (1 + 1e-4) - 0.001 * (104.01 + 100.02)
    assert left.net_r == pytest.approx(gain / risk, abs=1e-4)


def test_when_the_view_is_gone_it_leaves_at_the_next_open() -> None:
    tape = Tape()
    tape.want(target=0.0)
    tape.bar(100.0, 101.0, 99.0, 100.5)
    assert not tape.bar(100.5, 101.0, 99.0, 101.0, sign=0)
    (left,) = tape.bar(101.5, 101.6, 101.4, 101.5, sign=0)
    assert isinstance(left, Left) and left.reason is ExitReason.EXIT_SIGNAL and left.net_r > 0.3


def test_its_time_is_up_after_the_bars_it_asked_for() -> None:
    tape = Tape()
    tape.want(target=0.0, hold=2)
    deeds = [deed for _ in range(4) for deed in tape.bar(100.0, 100.5, 99.5, 100.0)]
    assert isinstance(deeds[-1], Left) and deeds[-1].reason is ExitReason.TIME_EXIT and deeds[-1].at == AT + 3 * MINUTE


def test_it_turns_round_at_one_open() -> None:
    tape = Tape(PERP)
    tape.want(target=0.0)
    tape.bar(100.0, 100.5, 99.5, 100.0)
    tape.bar(100.0, 100.5, 99.5, 100.0, sign=-1)
    tape.want(sign=-1)
    left, entered = tape.bar(100.0, 100.5, 99.5, 100.0, sign=-1)
    assert isinstance(left, Left) and isinstance(entered, Entered) and entered.side == -1


def test_an_entry_does_not_wait_out_a_hole_and_a_refused_one_is_forgotten() -> None:
    tape = Tape()
    tape.want()
    assert not tape.bar(100.0, 101.0, 99.0, 100.0, skip=3) and not tape.shadow.busy
    tape.want()
    tape.shadow.refused()
    assert not tape.bar(100.0, 101.0, 99.0, 100.0) and not tape.shadow.busy


def test_a_coin_is_not_sold_short_and_without_a_stop_there_is_no_r() -> None:
    tape = Tape()
    tape.want(sign=-1)
    tape.want(stop=0.0)
    assert not tape.shadow.busy


def test_longs_pay_a_positive_funding_rate_once() -> None:
    paid, free = Tape(PERP), Tape(PERP)
    for tape in (paid, free):
        tape.want(target=0.0)
        tape.bar(100.0, 100.5, 99.5, 100.0)
    paid.series.funding_at, paid.series.funding = paid.at, 0.001
    results = []
    for tape in (paid, free):
        tape.bar(100.0, 100.5, 99.5, 100.0)
        tape.bar(100.0, 100.5, 99.5, 100.0, sign=0)
        (left,) = tape.bar(100.0, 100.5, 99.5, 100.0, sign=0)
        assert isinstance(left, Left)
        results.append(left.net_r)
    assert results[1] - results[0] == pytest.approx(0.1 / (2.0 + 100.01 * (4e-4 + 2 * 0.00055)), rel=1e-3)


def test_the_books_own_trade_marks_its_shadow() -> None:
    tape = Tape()
    tape.want()
    tape.shadow.taken(tape.at, MINUTE)
    (entered,) = tape.bar(100.0, 101.0, 99.0, 100.0)
    assert isinstance(entered, Entered) and entered.taken
    tape.want()
    tape.shadow.taken(tape.at + 5 * MINUTE, MINUTE)
    assert tape.shadow.busy


# -- restart --------------------------------------------------------------------------------------------------------------------------


def learner(journal: Journal) -> LearningAgent:
    made = LearningAgent(journal=journal, policy=POLICIES.learning, full_r=0.25, strategies={SPOT: ["trend"]}, terms=TERMS)
    journal.project(made.apply)
    journal.react(made.on_fact)
    return made


def life(agent: LearningAgent, bars: Sequence[tuple[float, float, float, float]], at: int = AT, *, wants: bool = False) -> Iterator[Any]:
    shadow = agent.shadow("trend", BTC_SPOT, SPOT)
    assert shadow is not None
    tape = Tape(shadow=shadow)
    tape.at = at
    if wants:
        tape.want()
    for bar in bars:
        deeds = tape.bar(*bar)
        agent.shadowed(deeds)
        agent.flush()
        yield from deeds


def test_what_a_shadow_held_when_the_process_ended_goes_on_to_the_same_end(tmp_path: Path) -> None:
    bars = [(100.0, 101.0, 99.0, 100.0), (100.0, 101.0, 99.5, 100.5), (100.5, 106.0, 100.0, 105.0)]
    whole = learner(Journal(None))
    (*_, expected) = life(whole, bars, wants=True)
    with Journal(tmp_path / "j.db", durable=False) as journal:
        list(life(learner(journal), bars[:1], wants=True))
        assert any(isinstance(fact, ShadowOpened) for _, fact in journal.facts())
    with Journal(tmp_path / "j.db", durable=False) as journal:
        agent = learner(journal)
        journal.replay()
        (again,) = life(agent, bars[1:], AT + MINUTE)
        assert again == expected
        assert agent.state_hash() == whole.state_hash()


def test_without_the_policy_nobody_has_a_shadow() -> None:
    off = POLICIES.learning.model_copy(update={"shadow_on": False})
    agent = LearningAgent(journal=Journal(None), policy=off, full_r=0.25, strategies={SPOT: ["trend"]}, terms=TERMS)
    assert agent.shadow("trend", BTC_SPOT, SPOT) is None


def test_shadows_change_nothing_that_the_book_does() -> None:
    off = POLICIES.model_copy(update={"learning": POLICIES.learning.model_copy(update={"shadow_on": False})})
    without = simulate(DemoMarket(4, 3), policies=off)
    end = max(fill.fill.at for fill in without.recorder.fills)
    assert not any(isinstance(fact, ShadowOpened) for _, fact in without.daemon.journal.facts())
    assert without.recorder.fills == [fill for fill in demo().recorder.fills if fill.fill.at <= end] and len(without.recorder.fills) > 10


def test_a_bar_called_untouched_is_one_on_which_nothing_happens() -> None:
    """Every bar is asked first and shown anyway: none that was said not to matter did anything."""
    generator, skipped = np.random.default_rng(4), 0
    for asset_class in (SPOT, PERP):
        for sign in (1, -1):
            for hold in (0, 5):
                tape, price = Tape(asset_class), 100.0
                for number in range(300):
                    if not tape.shadow.busy:
                        tape.want(sign=sign if asset_class is PERP else 1, stop=1.0, target=1.5, hold=hold)
                    side = sign if asset_class is PERP else 1
                    view = side if number % 23 else 0
                    opened, price = price, price * float(np.exp(generator.normal(0.0, 0.002)))
                    high, low = max(opened, price) * 1.0005, min(opened, price) * 0.9995
                    coming = Bar(tape.at, opened, high, low, price, 1.0, 1.0, NAN, NAN)
                    said = tape.shadow.untouched(tape.series, coming, tape.at + MINUTE, view)
                    deeds = tape.bar(opened, high, low, price, sign=view)
                    assert not (said and deeds)
                    skipped += said
    assert skipped > 300
