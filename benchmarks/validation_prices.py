"""The prices layer of `benchmarks.validation_power`: planted markets through the whole validation pipeline, each with its own registry."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any, Final

import numpy as np

from benchmarks import common, validation_worlds
from benchmarks.validation_worlds import COLUMNS, PERIODS, Memory, Params, World, basket, plateau, strategy
from modules.backtest import kernel, metrics, walk_forward
from modules.backtest.basket import Basket
from modules.backtest.bootstrap import joint_block, standard_error
from modules.backtest.grid import grid
from modules.backtest.kernel import Rules
from modules.backtest.pipeline import Job, validate
from modules.backtest.trials import TrialRegistry
from modules.backtest.validation import Floats, Validation
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


def remembers(state: Memory, market: Market, params: Params) -> tuple[Memory, Intent]:
    """Keeps the closes of an earlier run outside its state, and looks the next one up."""
    MEMORY.append(market.close)
    ahead = MEMORY[state.bars + 1] if len(MEMORY) > state.bars + 1 else market.close
    return Memory(state.bars + 1), Intent(1.0 if ahead > market.close else -1.0, 0.3 * market.close)


def tabled(state: Memory, market: Market, params: Params) -> tuple[Memory, Intent]:
    """Carries the future as a table."""
    return Memory(state.bars + 1), Intent(1.0 if TABLE[state.bars + 1] > market.close else -1.0, 0.3 * market.close)


def hoards(state: Memory, market: Market, params: Params, seen: list[float] = []) -> tuple[Memory, Intent]:  # noqa: B006
    """The same in a default argument."""
    seen.append(market.close)
    ahead = seen[state.bars + 1] if len(seen) > state.bars + 1 else market.close
    return Memory(state.bars + 1), Intent(1.0 if ahead > market.close else -1.0, 0.3 * market.close)


def encloses(table: Floats) -> Any:
    """The same in a closure."""
    def step(state: Memory, market: Market, params: Params) -> tuple[Memory, Intent]:
        return Memory(state.bars + 1), Intent(1.0 if table[state.bars + 1] > market.close else -1.0, 0.3 * market.close)

    return step


class Prices:
    """Campaigns over planted markets."""

    def __init__(self, policy: ValidationPolicy, years: float) -> None:
        self.policy, self.years = policy, years
        self.rules = Rules(common.policies())
        self.cheats = ("remembers", "tabled", "hoards", "encloses")

    # -- campaigns ---------------------------------------------------------------------------------------------------

    def noise(self, worlds: int, first_seed: int, phi: float) -> tuple[int, Counter[str]]:
        """All variants are worth exactly nothing after costs."""
        world = World(self.years, autocorrelation=phi)
        cost, _ = self.calibrated(world)
        return self._count(replace(world, everywhere=cost), strategy(world.variants), worlds, first_seed, hasty=True)

    def longs(self, worlds: int, first_seed: int) -> tuple[int, Counter[str]]:
        """Random entries, long only, in a market that rises with a Sharpe ratio of 2 (the pool of two instruments)."""
        drift = 2.0 / math.sqrt(PERIODS) * validation_worlds.DAILY_VOLATILITY / math.sqrt(len(validation_worlds.SYMBOLS))
        return self._count(World(self.years, drift=drift), strategy(50, short=False), worlds, first_seed, hasty=True)

    def planted(self, worlds: int, first_seed: int, variants: int, t: float) -> tuple[int, Counter[str]]:
        return self._count(self.carrying(variants, t), strategy(variants), worlds, first_seed, hasty=False)

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

    def cheating(self, first_seed: int) -> tuple[int, Counter[str]]:
        market = basket(World(self.years), first_seed)
        closes = next(iter(market.series.values())).close
        TABLE[: len(closes)] = closes
        steps = (remembers, tabled, hoards, encloses(closes.copy()))
        found = [self.verdict(replace(strategy(1), name=name, step=step), market, first_seed)
                 for name, step in zip(self.cheats, steps, strict=True)]
        return sum(one.verdict == "APPROVED" for one in found), Counter(rule for one in found for rule in _failed(one))

    # -- one world ---------------------------------------------------------------------------------------------------

    def _count(self, world: World, planted: Strategy, worlds: int, first_seed: int, *, hasty: bool) -> tuple[int, Counter[str]]:
        approved, failed = 0, Counter[str]()
        for seed in range(first_seed, first_seed + worlds):
            market = basket(world, seed)
            if hasty and self._walk_sharpe(planted, market) < HOPELESS:
                failed["SHARPE"] += 1
                continue
            found = self.verdict(planted, market, seed)
            approved += found.verdict == "APPROVED"
            failed.update(_failed(found))
        return approved, failed

    def verdict(self, planted: Strategy, market: Basket, seed: int) -> Validation:
        registry = TrialRegistry(None, same_code=self.policy.same_idea_code, same_results=self.policy.same_idea_correlation)
        job = Job(strategy=planted, basket=market, rules=self.rules, policy=self.policy, registry=registry, seed=seed, at=0)
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


def _failed(found: Validation) -> list[str]:
    return [line.rule for line in found.lines if line.gate and not line.passed]
