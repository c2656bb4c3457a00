"""The executor's memory of fills: bounded, and yet no execution is ever booked twice."""

from __future__ import annotations

from dataclasses import replace

from modules.domain.events import Fact, Filled
from modules.domain.order import Fill
from modules.execution.lifecycle import Lifecycle
from modules.store.journal import Journal
from tests.builders import make_fill, make_instrument, make_order

KEPT = 5


def of_one_order(count: int) -> list[Fill]:
    """Executions a second apart; every other one is told later than the next."""
    fill = make_fill(make_order(make_instrument()))
    fills = [replace(fill, venue_trade_id=f"T{number}", at=fill.at + number * 1000) for number in range(count)]
    for number in range(0, count - 1, 2):
        fills[number], fills[number + 1] = fills[number + 1], fills[number]
    return fills


def lived_through(fills: list[Fill]) -> tuple[Lifecycle, Journal, list[int]]:
    journal, asked = Journal(None), []

    def booked_at(at: int) -> list[Fill]:
        asked.append(at)
        facts: list[Fact] = journal.at(at, (Filled,))
        return [fact.fill for fact in facts if isinstance(fact, Filled)]

    life = Lifecycle({}, booked_at, KEPT)
    journal.project(life.apply)
    for fill in fills:
        assert not life.booked(fill)
        journal.append(Filled(fill.at, fill, False))
    return life, journal, asked


def test_every_fill_that_was_booked_is_known_however_old_it_is() -> None:
    fills = of_one_order(40)
    life, _, _ = lived_through(fills)
    assert all(life.booked(fill) for fill in fills)


def test_memory_holds_the_newest_keys_only() -> None:
    life, _, _ = lived_through(of_one_order(40))
    assert len(life._seen) == KEPT


def test_the_journal_is_asked_about_old_fills_only() -> None:
    fills = of_one_order(40)
    life, _, asked = lived_through(fills)
    asked.clear()
    assert life.booked(fills[-1]) and asked == []
    assert life.booked(fills[0]) and asked == [fills[0].at]


def test_another_execution_of_the_same_old_moment_is_not_taken_for_a_known_one() -> None:
    fills = of_one_order(40)
    life, _, _ = lived_through(fills)
    assert not life.booked(replace(fills[0], venue_trade_id="other"))
    assert not life.booked(replace(fills[0], symbol="ETH/USDT"))
