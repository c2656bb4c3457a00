"""The prices layer of `benchmarks.validation_power`: planted markets through the whole validation pipeline, each with its own registry."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks import common, validation_worlds
from benchmarks.validation_worlds import COLUMNS, PERIODS, SURE, Memory, Params, World, basket, plateau, strategy
from modules.backtest import kernel, metrics, walk_forward
from modules.backtest.basket import Basket
from modules.backtest.bootstrap import joint_block, standard_error
from modules.backtest.grid import grid
from modules.backtest.kernel import Rules
from modules.backtest.pipeline import Job, validate
from modules.backtest.trials import TrialRegistry
from modules.backtest.validation import Floats, Validation, plain
from modules.backtest.workers import Serial
from modules.domain.policies import ValidationPolicy
from modules.domain.signal import Intent
from modules.strategies.protocol import Market, Strategy

CALIBRATION_WORLDS: Final = 6
SEARCHES: Final = 4
"""Secants: t is concave in what is planted, and after these it is met to .01."""
HOPELESS: Final = 0.5
"""Below this walk-forward Sharpe ratio, by the sweep alone, the floor of 1 is out of reach and the rest is spared."""
MEMORY: Final[list[float]] = []
TABLE: Final = np.zeros(100_000)
PACKED: tuple[float, ...] = ()
CHEATS: Final = (("remembers", True), ("tabled", True), ("hoards", True), ("encloses", True), ("packed", True), ("tuned", True),
                 ("remembers", False), ("hoards", False))
"""With their steps compiled or as they are."""
SHORT_YEARS: Final = 0.4


def remembers(state: Memory, market: Market, params: Params) -> tuple[Memory, Intent]:
    """Keeps the closes of an earlier run outside its state, and looks the next one up."""
    MEMORY.append(market.close)
    ahead = MEMORY[state.bars + 1] if len(MEMORY) > state.bars + 1 else market.close
    return Memory(state.bars + 1), Intent(1.0 if ahead > market.close else -1.0, 0.3 * market.close, 0.0, 0)


def tabled(state: Memory, market: Market, params: Params) -> tuple[Memory, Intent]:
    """Carries the future as a table."""
    return Memory(state.bars + 1), Intent(1.0 if TABLE[state.bars + 1] > market.close else -1.0, 0.3 * market.close, 0.0, 0)


def hoards(state: Memory, market: Market, params: Params, seen: list[float] = []) -> tuple[Memory, Intent]:  # noqa: B006
    """The same in a default argument."""
    seen.append(market.close)
    ahead = seen[state.bars + 1] if len(seen) > state.bars + 1 else market.close
    return Memory(state.bars + 1), Intent(1.0 if ahead > market.close else -1.0, 0.3 * market.close, 0.0, 0)


def encloses(table: Floats) -> Any:
    """The same in a closure."""
    def step(state: Memory, market: Market, params: Params) -> tuple[Memory, Intent]:
        ahead = table[min(state.bars + 1, len(table) - 1)]
        return Memory(state.bars + 1), Intent(1.0 if ahead > market.close else -1.0, 0.3 * market.close, 0.0, 0)

    return step


def packed(state: Memory, market: Market, params: Params) -> tuple[Memory, Intent]:
    """Carries which way every bar will go, fifty-three of them in a number."""
    bit = math.floor(PACKED[state.bars // 53] / 2.0 ** (state.bars % 53)) % 2.0
    return Memory(state.bars + 1), Intent(SURE if bit > 0.5 else -SURE, 0.3 * market.close, 0.0, 0)


def tuned(state: Memory, market: Market, params: Any) -> tuple[Memory, Intent]:
    """The same in its parameters."""
    bit = math.floor(params[state.bars // 53] / 2.0 ** (state.bars % 53)) % 2.0
    return Memory(state.bars + 1), Intent(SURE if bit > 0.5 else -SURE, 0.3 * market.close, 0.0, 0)


def in_bits(market: Basket) -> tuple[float, ...]:
    """Which way the basket goes after every bar, fifty-three bars a number."""
    ups = np.diff(np.sum([np.log(one.close) for one in market.series.values()], axis=0)) > 0.0
    whole = np.append(ups, np.zeros(-len(ups) % 53 + 53, dtype=bool)).reshape(-1, 53)
    return tuple((whole @ (2.0 ** np.arange(53))).tolist())


class Found(NamedTuple):
    """What became of one world."""

    verdict: str
    failed: tuple[str, ...]
    p: float | None = None
    sharpe: float | None = None
    """Annual, out of sample."""
    number: int = 1
    """Which submission it was."""


class Prices:
    """Campaigns over planted markets."""

    def __init__(self, policy: ValidationPolicy, years: float) -> None:
        self.policy, self.years = policy, years
        self.rules = Rules(common.policies())

    # -- campaigns: seed -> what became of that world; what has to be measured first waits for the first of them --------------

    def noise(self, phi: float) -> Callable[[int], Found]:
        """All variants are worth exactly nothing after costs."""
        free = World(self.years, autocorrelation=phi)
        world = cache(lambda: replace(free, everywhere=self.calibrated(free)[0]))
        return lambda seed: self._judged(world(), strategy(free.variants), seed, hasty=True)

    def longs(self) -> Callable[[int], Found]:
        """Random entries, long only, in a market that rises with a Sharpe ratio of 2 (the pool of two instruments)."""
        drift = 2.0 / math.sqrt(PERIODS) * validation_worlds.DAILY_VOLATILITY / math.sqrt(len(validation_worlds.SYMBOLS))
        return lambda seed: self._judged(World(self.years, drift=drift), strategy(50, short=False), seed, hasty=True)

    def planted(self, variants: int, t: float) -> Callable[[int], Found]:
        world = cache(lambda: self.carrying(variants, t))
        return lambda seed: self._judged(world(), strategy(variants), seed, hasty=False)

    def cheating(self, seed: int) -> Found:
        """The cheats in turn, each on the same markets. Numba will not have lists, and what it refuses was not seen through: the two that
        need them run as they are as well, on a short market."""
        number = seed % len(CHEATS)
        name, compiled = CHEATS[number]
        market = basket(World(self.years if compiled else SHORT_YEARS), seed - number)
        closes = next(iter(market.series.values())).close
        for kept in (MEMORY, *(hoards.__defaults__ or ())):
            kept.clear()
        TABLE[: len(closes)] = closes
        globals()["PACKED"] = known = in_bits(market)
        steps = {"remembers": remembers, "tabled": tabled, "hoards": hoards, "encloses": encloses(closes.copy()), "packed": packed,
                 "tuned": tuned}
        cheat = replace(strategy(1), name=name, step=steps[name])
        if cheat.step is tuned:
            fields = namedtuple("fields", [f"bits_{place}" for place in range(len(known))])  # type: ignore[misc]
            cheat = replace(cheat, params=fields(*known), init=lambda params: Memory(0))
        return told(self.verdict(cheat, market, seed, compiled=compiled))

    def carrying(self, variants: int, t: float) -> World:
        """A world whose edge carriers have `t` on their out-of-sample days, net, on average: planting an edge moves the market, and with it
        the spread of every result, so what has to be planted is looked for by measuring. What makes up for costs goes to those that
        carry the edge only: the others lose their costs, as in life."""
        world = World(self.years, variants=variants)
        cost, spread = self.calibrated(world)
        days = self.years * 365 * (1 - self.policy.train_share)
        edge = t * spread / math.sqrt(days)
        if variants == 1:  # one signal's edge is the same at every bar it is held: nothing but the mean moves
            return replace(world, edge=cost + edge)
        plain = [self.results(strategy(variants), basket(world, seed))[0] for seed in range(CALIBRATION_WORLDS)]
        costs = self._luck(world, strategy(variants)) - float(np.mean(plain))
        last, reached = 0.0, 0.0
        for _ in range(SEARCHES):
            found = self._t_of(replace(world, edge=cost + edge), plain, costs) * math.sqrt(days)
            last, reached, edge = edge, found, edge + (t - found) * (edge - last) / (found - reached)
        return replace(world, edge=cost + edge)

    def _t_of(self, world: World, plain: list[Floats], costs: float) -> float:
        """t per sqrt(day) of the carriers in planted worlds: what they gain over the same worlds unplanted, less costs, over the spread
        they have there. The luck of the calibration's seeds is in both and cancels."""
        planted = strategy(world.variants)
        places = [one.row * COLUMNS + one.column for one in grid(planted, self.policy.sets_max)]
        gained, spread = [], []
        for seed, before in enumerate(plain):
            daily, _ = self.results(planted, basket(world, seed))
            carrying = [column for column, place in enumerate(places) if place in plateau(seed)]
            gained.append(float(daily[:, carrying].mean() - before[:, carrying].mean()))
            spread.append(float(standard_error(daily[:, carrying], joint_block(daily)).mean()))
        return (float(np.mean(gained)) - costs) / float(np.mean(spread))

    # -- one world ---------------------------------------------------------------------------------------------------

    def _judged(self, world: World, planted: Strategy, seed: int, *, hasty: bool) -> Found:
        """`hasty`: spare what the sweep alone shows to be out of reach."""
        market = basket(world, seed)
        if hasty and (reached := self._walk_sharpe(planted, market)) < HOPELESS:
            return Found("REJECTED", ("SHARPE",), None, reached)
        return told(self.verdict(planted, market, seed))

    def verdict(self, planted: Strategy, market: Basket, seed: int, *, compiled: bool = True) -> Validation:
        registry = TrialRegistry(None, same_code=self.policy.same_idea_code, same_results=self.policy.same_idea_correlation)
        job = Job(strategy=planted, basket=market, rules=self.rules, policy=self.policy, registry=registry, seed=seed, at=0,
                  compiled=compiled)
        return validate([job], Serial())[0]

    def results(self, planted: Strategy, market: Basket) -> tuple[Floats, Floats]:
        """[days, K] pooled daily results, and trades [K]."""
        sets = grid(planted, self.policy.sets_max)
        swept = [kernel.sweep(planted, sets, one, self.rules) for one in market.series.values()]
        _, daily = metrics.pool([one.first_day for one in swept], [one.daily for one in swept], market.asset_class)
        return daily, np.sum([one.trades for one in swept], axis=0)

    def _walk_sharpe(self, planted: Strategy, market: Basket) -> float:
        daily, _ = self.results(planted, market)
        sets = tuple({"row": float(one.row), "column": float(one.column)} for one in grid(planted, self.policy.sets_max))
        steps = walk_forward.windows(len(daily), self.policy.windows, self.policy.embargo, 1, self.policy.train_share)
        walk = walk_forward.walk(daily, steps, walk_forward.neighbours(sets))
        return metrics.sharpe(walk.tested, PERIODS)

    def calibrated(self, world: World) -> tuple[float, float]:
        """(daily mean that has to be planted for a variant's net to be zero, sqrt(n) x standard error of its daily mean), measured: noise
        worlds with and without a small planted mean, the same seeds, so that nothing but the planting differs."""
        small = 0.001
        planted = strategy(world.variants)
        plain, moved, spreads = [], [], []
        for seed in range(CALIBRATION_WORLDS):
            daily, _ = self.results(planted, basket(world, seed))
            plain.append(daily.mean())
            moved.append(self.results(planted, basket(replace(world, everywhere=small), seed))[0].mean())
            spreads.append(float(daily.std(axis=0).mean()))
        answer = (np.mean(moved) - np.mean(plain)) / small
        # Noise worlds have zero gross mean in truth: their net is the costs, and what little drift their seeds have cancels in `costs`.
        costs = -float(np.mean(plain)) + self._luck(world, planted)
        phi = world.autocorrelation
        return costs / answer, float(np.mean(spreads)) * math.sqrt((1 + phi) / (1 - phi)) / answer

    def _luck(self, world: World, planted: Strategy) -> float:
        """Mean gross result of the calibration worlds: the same trades without fees, spread and slippage."""
        free = replace(self.rules, fee_factor=0.0, slippage_factor=0.0)
        sets = grid(planted, self.policy.sets_max)
        found = []
        for seed in range(CALIBRATION_WORLDS):
            market = basket(world, seed)
            swept = [kernel.sweep(planted, sets, one, free) for one in market.series.values()]
            found.append(float(np.mean([one.daily.mean() for one in swept])))
        return float(np.mean(found))


def told(found: Validation) -> Found:
    return Found(found.verdict, tuple(line.rule for line in found.lines if line.gate and not line.passed),
                 plain(found.metrics.get("p")), plain(found.metrics.get("sharpe")))
