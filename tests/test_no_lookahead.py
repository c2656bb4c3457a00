"""No strategy may know the future: what it says about a bar must not depend on the bars after it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.domain.signal import Intent
from modules.strategies.protocol import Market, Strategy
from modules.strategies.registry import all_strategies
from tests.strategy_contract import broken_rules, random_walk, run

BARS = 1800
WALKS = {seed: random_walk(bars=BARS, seed=seed) for seed in range(3)}
EVERY_STRATEGY = pytest.mark.parametrize("strategy", all_strategies().values(), ids=list(all_strategies()))


@EVERY_STRATEGY
def test_running_on_a_prefix_equals_the_prefix_of_the_run(strategy: Strategy) -> None:
    whole = {seed: run(strategy, walk) for seed, walk in WALKS.items()}

    @settings(max_examples=6, deadline=None)
    @given(st.sampled_from(sorted(WALKS)), st.integers(min_value=1, max_value=BARS - 1))
    def holds(seed: int, length: int) -> None:
        assert run(strategy, WALKS[seed][:length]) == whole[seed][:length]

    holds()


@EVERY_STRATEGY
def test_another_future_does_not_change_the_past(strategy: Strategy) -> None:
    split = 1500
    crash = [bar._replace(open=1.0, high=2.0, low=0.5, close=1.0) for bar in WALKS[0][split:]]
    assert run(strategy, WALKS[0])[:split] == run(strategy, WALKS[0][:split] + crash)[:split]


@EVERY_STRATEGY
def test_two_runs_interleaved_do_not_disturb_each_other(strategy: Strategy) -> None:
    alone = [run(strategy, WALKS[seed]) for seed in (0, 1)]
    states: list[Any] = [strategy.init(strategy.params), strategy.init(strategy.params)]
    together: list[list[Intent]] = [[], []]
    for bars in zip(WALKS[0], WALKS[1], strict=True):
        for which, bar in enumerate(bars):
            states[which], intent = strategy.step(states[which], bar, strategy.params)
            together[which].append(intent)
    assert together == alone


class _Nothing(NamedTuple):
    length: int = 1


def test_the_contract_notices_a_strategy_with_a_memory_outside_its_state() -> None:
    calls: list[int] = []

    def step(state: int, market: Market, params: _Nothing) -> tuple[int, Intent]:
        calls.append(1)
        return state, Intent(0.5 if len(calls) > 500 else 0.0, 1.0, 0.0, 0)

    leaky = replace(next(iter(all_strategies().values())), init=lambda params: 0, step=step, params=_Nothing(), warmup=0)
    assert any("two runs" in rule for rule in broken_rules(leaky, random_walk(bars=400, seed=0)))
