"""From a closed bar to a decision: entries on an edge, exits first, reversals, time exits, and the quarantine of strategies gone wrong.

The whole daemon runs on an hour or two of the demo market with strategies written here: what they say decides what must happen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from modules.domain.events import EntriesResumed, ExitRequested, Fact, Filled, OrderIntended, PositionClosed, Scope, TradeOpened
from modules.domain.instrument import AssetClass, Side
from modules.domain.order import ExitReason, Purpose
from modules.domain.signal import Intent, Structure
from modules.strategies.protocol import Market, Strategy
from tests.crash_runner import HOUR_MS, Life, live, market

D = Decimal
BAR_MS = 300_000
START = market(3).start
BTC = "BTC/USDT"


class Nothing(NamedTuple):
    """No parameters."""


class Told(NamedTuple):
    """A view in fractions of the price."""

    sign: float
    hold: int = 0
    stop: float = 0.02
    target: float = 0.08


def strategy(say: Callable[[int], Any], name: str = "told", *, classes: tuple[AssetClass, ...] = (AssetClass.SPOT,), warmup: int = 1,
             structure: Structure = Structure.SINGLE) -> Strategy:
    """`say(bars since the market's start)` -> what step returns, or the view it should return."""
    def step(state: int, seen: Market, params: Nothing) -> Any:
        said = say((int(seen.at) - START) // BAR_MS)
        if isinstance(said, Told):
            said = Intent(0.8 * said.sign, seen.close * said.stop, seen.close * said.target, said.hold) if said.sign else Intent()
        return (state + 1, said) if isinstance(said, Intent) else said

    return Strategy(name, name, classes, Nothing(), lambda _: 0, step, warmup, structure=structure, days=3.0, delta=0.45)


def wide(sign: float, hold: int = 0) -> Told:
    """A view with a stop and a target that are not reached in an hour."""
    return Told(sign, hold)


@dataclass
class Seen:
    life: Life
    facts: list[Fact]

    def of(self, kind: type, symbol: str = BTC) -> list[Any]:
        return [fact for fact in self.facts if type(fact) is kind and symbol in _symbols(fact)]

    def decisions(self, symbol: str = BTC) -> list[Any]:
        return [decision for decision in self.life.daemon.strategies.last_decisions if decision.symbol == symbol]


def _symbols(fact: Any) -> tuple[str, ...]:
    trade = getattr(fact, "trade", None)
    order = getattr(fact, "order", None)
    fill = getattr(fact, "fill", None)
    return tuple(part.symbol for part in (trade, order, fill) if part is not None) or (getattr(fact, "symbol", ""),)


def run(folder: Path, *chosen: Strategy, hours: float = 1.0, hook: Callable[[Life, int], None] | None = None) -> Seen:
    life = live(folder, market(hours), hook=hook, chosen={c: [s for s in chosen if c in s.asset_classes] for c in AssetClass})
    assert life.differences == 0
    return Seen(life, [fact for _, fact in life.journal.facts()])


def bar_of(at: int) -> int:
    """Bars since the start, of the instant a fact belongs to."""
    return (at - START) // BAR_MS


# -- entries ------------------------------------------------------------------------------------------------------------------


def test_an_entry_is_made_when_the_sign_changes_and_fills_at_the_next_open(tmp_path: Path) -> None:
    seen = run(tmp_path, strategy(lambda bar: wide(1.0 if bar >= 4 else 0.0)))
    (opened,), (bought,) = seen.of(TradeOpened), seen.of(Filled)
    assert bar_of(opened.at) == 4 and opened.at % BAR_MS == 0, "decided at the close of a bar"
    assert bought.fill.side is Side.BUY and bought.at == opened.at + 50, "after the latency, at the opening of the next"


def test_a_view_that_stays_is_one_entry_even_after_its_stop_was_hit(tmp_path: Path) -> None:
    near = Told(1.0, 0, 0.0007, 0.5)
    seen = run(tmp_path, strategy(lambda bar: near if bar >= 2 else Told(0.0)), hours=3)
    assert len(seen.of(TradeOpened)) == 1 and len(seen.decisions()) == 1
    (closed,) = seen.of(PositionClosed)
    assert closed.trade.exit_reason in (ExitReason.STOP_LOSS, ExitReason.TRAILING_STOP_LOSS)


def test_a_denied_entry_is_not_tried_again_until_the_sign_changes(tmp_path: Path) -> None:
    def pause(life: Life, at: int) -> None:
        if at == START:
            life.daemon.risk.pause(Scope.SPOT, at, "test")
        if at == START + 6 * BAR_MS:
            life.daemon.risk.resume(Scope.SPOT, at, "test")

    seen = run(tmp_path, strategy(lambda bar: wide(0.0 if bar < 2 or bar == 9 else 1.0)), hook=pause)
    assert [bar_of(decision.at) for decision in seen.decisions()] == [2, 10]
    (opened,) = seen.of(TradeOpened)
    assert bar_of(opened.at) == 10 and bar_of(next(f.at for f in seen.facts if isinstance(f, EntriesResumed))) == 6


def test_a_view_from_before_the_start_is_no_entry(tmp_path: Path) -> None:
    """It has been long for days: what moved it is history, and so is the price it was worth."""
    assert run(tmp_path, strategy(lambda _: wide(1.0))).of(TradeOpened) == []


def test_nothing_opens_before_a_strategy_has_seen_what_it_needs(tmp_path: Path) -> None:
    flips = strategy(lambda bar: wide(1.0 if bar % 4 < 2 else 0.0), warmup=2 * 288 + 7)
    opened = run(tmp_path, flips, hours=2).of(TradeOpened)
    assert opened and min(bar_of(fact.at) for fact in opened) >= 7


def test_an_instrument_belongs_to_one_strategy_until_it_is_flat(tmp_path: Path) -> None:
    seen = run(tmp_path, strategy(lambda bar: wide(1.0 if bar >= 2 else 0.0), "first"),
               strategy(lambda bar: wide(1.0 if bar >= 4 else 0.0), "second"))
    assert {fact.strategy for fact in seen.of(TradeOpened)} == {"first"}
    (denied,) = [decision for decision in seen.decisions() if decision.strategy == "second"]
    assert denied.stopped_by == "INSTRUMENT_OWNED"


# -- exits --------------------------------------------------------------------------------------------------------------------


def test_a_view_that_is_gone_is_an_exit_at_the_next_open(tmp_path: Path) -> None:
    seen = run(tmp_path, strategy(lambda bar: wide(1.0 if 2 <= bar < 7 else 0.0)))
    (asked,) = [fact for fact in seen.facts if isinstance(fact, ExitRequested)
                and fact.trade_id == seen.of(TradeOpened)[0].trade_id]
    (closed,) = seen.of(PositionClosed)
    assert bar_of(asked.at) == 7 and asked.reason is ExitReason.EXIT_SIGNAL
    assert closed.trade.closed_at == asked.at + 50 and closed.trade.exit_reason is ExitReason.EXIT_SIGNAL


@pytest.mark.parametrize("hold", [1, 3])
def test_a_trade_whose_time_is_up_ends_after_so_many_bars(tmp_path: Path, hold: int) -> None:
    seen = run(tmp_path, strategy(lambda bar: wide(1.0 if bar >= 2 else 0.0, hold)))
    (closed,) = seen.of(PositionClosed)
    assert bar_of(closed.trade.closed_at) == 2 + hold and closed.trade.exit_reason is ExitReason.TIME_EXIT
    assert len(seen.of(TradeOpened)) == 1, "the sign has not changed, so it is no new entry"


def test_a_reversal_closes_first_and_opens_the_other_side_in_the_same_instant(tmp_path: Path) -> None:
    turns = strategy(lambda bar: wide(0.0 if bar < 2 else 1.0 if bar < 6 else -1.0), classes=(AssetClass.PERP,))
    seen = run(tmp_path, turns)
    symbol = "SOL/USDT:USDT"
    first, second = seen.of(TradeOpened, symbol)
    (closed,) = seen.of(PositionClosed, symbol)
    assert (first.side, second.side) == ("BUY", "SELL") and bar_of(second.at) == 6
    assert first.trade_id == closed.trade.trade_id and closed.at <= second.at < closed.at + 5_000
    order = [type(fact).__name__ for fact in seen.facts if fact in (closed, second)]
    assert order == ["PositionClosed", "TradeOpened"]


def test_a_reversal_that_cannot_open_still_closes(tmp_path: Path) -> None:
    def pause(life: Life, at: int) -> None:
        if at == START + 5 * BAR_MS:
            life.daemon.risk.pause(Scope.PERP, at, "test")

    turns = strategy(lambda bar: wide(0.0 if bar < 2 else 1.0 if bar < 6 else -1.0), classes=(AssetClass.PERP,))
    seen = run(tmp_path, turns, hook=pause)
    symbol = "SOL/USDT:USDT"
    assert len(seen.of(TradeOpened, symbol)) == len(seen.of(PositionClosed, symbol)) == 1
    assert [decision.stopped_by for decision in seen.decisions(symbol)][-1] == "PAUSED_BY_OPERATOR"


def test_spot_is_never_sold_short(tmp_path: Path) -> None:
    seen = run(tmp_path, strategy(lambda bar: wide(-1.0 if bar >= 2 else 0.0)))
    assert seen.of(TradeOpened) == [] and seen.decisions()[0].stopped_by == "SHORT_NOT_POSSIBLE"


def test_a_trailing_stop_follows_the_price_and_never_turns_back(tmp_path: Path) -> None:
    seen = run(tmp_path, strategy(lambda bar: Told(1.0, 0, 0.0015, 0.3) if bar >= 2 else Told(0.0)), hours=3)
    for symbol in {fact.symbol for fact in seen.facts if isinstance(fact, TradeOpened)}:
        for trade in seen.of(TradeOpened, symbol):
            stops = [fact.order.price for fact in seen.of(OrderIntended, symbol)
                     if fact.order.purpose is Purpose.STOP and fact.order.trade_id == trade.trade_id]
            assert stops == sorted(stops)


# -- quarantine -----------------------------------------------------------------------------------------------------------------


def _raise(_: int) -> Any:
    raise ZeroDivisionError("oops")


class Half(NamedTuple):
    """An intent that lacks what it should have."""

    score: float = 0.5


GONE_WRONG: dict[str, Callable[[int], Any]] = {
    "raises": _raise,
    "nothing": lambda _: None,
    "no pair": lambda _: (1, 2, 3),
    "a list": lambda _: [0, Intent()],
    "no intent": lambda _: (0, 0.5),
    "half an intent": lambda _: (0, Half()),
    "score nan": lambda _: Intent(math.nan, 100.0, 100.0),
    "score too large": lambda _: Intent(1.5, 100.0, 100.0),
    "score a word": lambda _: Intent("up", 100.0, 100.0),  # type: ignore[arg-type]
    "score nothing": lambda _: Intent(None, 100.0, 100.0),  # type: ignore[arg-type]
    "stop nan": lambda _: Intent(0.5, math.nan, 100.0),
    "stop negative": lambda _: Intent(0.5, -1.0, 100.0),
    "stop endless": lambda _: Intent(0.5, math.inf, 100.0),
    "target huge": lambda _: Intent(0.5, 100.0, 1e308),
    "target a word": lambda _: Intent(0.5, 100.0, "far"),  # type: ignore[arg-type]
    "hold negative": lambda _: Intent(0.5, 100.0, 100.0, -1),
    "hold nan": lambda _: Intent(0.5, 100.0, 100.0, math.nan),  # type: ignore[arg-type]
    "hold endless": lambda _: Intent(0.5, 100.0, 100.0, math.inf),  # type: ignore[arg-type]
}


def test_strategies_gone_wrong_are_out_by_name_and_the_good_one_goes_on(tmp_path: Path) -> None:
    """All of them at once, from bar 3 on: every one is out at bar 3, with its reason, and the daemon trades on."""
    def spoiled(wrong: Callable[[int], Any]) -> Callable[[int], Any]:
        return lambda bar: wrong(bar) if bar >= 3 else Intent()

    bad = [strategy(spoiled(wrong), name) for name, wrong in GONE_WRONG.items()]
    seen = run(tmp_path, *bad, strategy(lambda bar: wide(1.0 if bar >= 5 else 0.0), "good"))
    quarantined = {entry.strategy: entry.reason for entry in seen.life.daemon.strategies.quarantined}
    assert quarantined.keys() == GONE_WRONG.keys() and len(seen.life.daemon.strategies.quarantined) == len(GONE_WRONG)
    assert "ZeroDivisionError: oops" in quarantined["raises"] and "NoneType" in quarantined["nothing"]
    assert {fact.strategy for fact in seen.of(TradeOpened)} == {"good"}


def test_a_strategy_that_goes_wrong_on_one_series_is_out_on_all_and_what_it_holds_is_closed(tmp_path: Path) -> None:
    calls: list[int] = []

    def say(bar: int) -> Any:
        calls.append(bar)
        if bar == 6:
            raise KeyError("only once, on whichever series comes first")
        return wide(1.0 if bar >= 2 else 0.0)

    seen = run(tmp_path, strategy(say, "fragile"))
    opened = [fact for fact in seen.facts if isinstance(fact, TradeOpened)]
    assert len(opened) >= 2, "it held several instruments"
    asked = [fact for fact in seen.facts if isinstance(fact, ExitRequested)]
    assert {fact.trade_id for fact in asked} == {fact.trade_id for fact in opened}
    assert {(fact.reason, bar_of(fact.at)) for fact in asked} == {(ExitReason.EMERGENCY_EXIT, 6)}
    assert max(calls) == 6 and calls.count(6) == 1, "nobody asks it again"
    assert seen.life.daemon.executor.trades == {}


def test_a_strategy_that_fails_on_history_never_trades(tmp_path: Path) -> None:
    def say(bar: int) -> Any:
        if bar < -100:
            raise ValueError("no past for me")
        return wide(1.0 if bar >= 2 else 0.0)

    seen = run(tmp_path, strategy(say, "fragile"), hours=0.5)
    assert seen.of(TradeOpened) == [] and len(seen.life.daemon.strategies.quarantined) == 1


# -- the record ------------------------------------------------------------------------------------------------------------------


def test_every_decision_carries_every_check_with_its_numbers(tmp_path: Path) -> None:
    seen = run(tmp_path, strategy(lambda bar: wide(1.0 if bar >= 2 else 0.0)), strategy(
        lambda bar: wide(-1.0 if bar >= 2 else 0.0), "perps", classes=(AssetClass.PERP,)))
    decisions = list(seen.life.daemon.strategies.last_decisions)
    assert {decision.outcome for decision in decisions} == {"APPROVED", "DENIED"}
    for decision in decisions:
        assert len(decision.checks) > 15 and all(check.rule for check in decision.checks)
        assert (decision.stopped_by is None) == (decision.outcome == "APPROVED")
    assert len({decision.decision_id for decision in decisions}) == len(decisions)


def test_no_decision_is_made_while_the_process_waits(tmp_path: Path) -> None:
    """From the look to the reservation nothing else runs: two strategies that want all the money get it one after the other."""
    seen = run(tmp_path, *(strategy(lambda bar: wide(1.0 if bar >= 2 else 0.0), f"s{n}", classes=(AssetClass.SPOT,)) for n in range(3)))
    entries = [fact.order for fact in seen.facts if isinstance(fact, OrderIntended) and fact.order.purpose is Purpose.ENTRY]
    spent: dict[int, Decimal] = {}
    for order in entries:
        spent[order.at] = spent.get(order.at, D(0)) + order.reserves
    free = seen.life.daemon.portfolio.ledger(AssetClass.SPOT).transfers
    assert entries and max(spent.values()) <= free


def test_a_restart_does_not_take_an_old_view_for_a_new_one(tmp_path: Path) -> None:
    told = strategy(lambda bar: wide(1.0 if bar >= 2 else 0.0, 4))
    chosen = {c: [told] if c is AssetClass.SPOT else [] for c in AssetClass}
    first = live(tmp_path, market(3), until=START + HOUR_MS, chosen=chosen)
    again = live(tmp_path, market(3), chosen=chosen)
    count = sum(isinstance(fact, TradeOpened) for _, fact in first.journal.facts())
    assert count and sum(isinstance(fact, TradeOpened) for _, fact in again.journal.facts()) == count


def test_a_trade_keeps_its_strategy_and_its_clock_over_a_restart(tmp_path: Path) -> None:
    told = strategy(lambda bar: wide(1.0 if bar >= 2 else 0.0, 20))
    chosen = {c: [told] if c is AssetClass.SPOT else [] for c in AssetClass}
    live(tmp_path, market(3), until=START + HOUR_MS, chosen=chosen)
    again = live(tmp_path, market(3), chosen=chosen)
    seen = Seen(again, [fact for _, fact in again.journal.facts()])
    (closed,) = seen.of(PositionClosed)
    assert bar_of(closed.trade.closed_at) == 22 and closed.trade.exit_reason is ExitReason.TIME_EXIT


