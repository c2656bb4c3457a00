"""What every strategy promises, as one function: for the shipped strategies' tests and for those `new-strategy` writes."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from modules.domain.market import NAN, ChainSlice
from modules.domain.signal import Intent, Structure
from modules.strategies.protocol import Market, Strategy

START = 1_767_225_600_000
"""2026-01-01 00:00 UTC, a Thursday."""
INTERVAL_MS = 300_000


def random_walk(*, bars: int, seed: int, volatility: float = 0.002, blind: bool = False, price: float = 100.0) -> list[Market]:
    """Bars of a random walk whose volatility swells and ebbs, with funding, a higher timeframe, a reference and a chain.

    `blind`: everything a venue may not tell is NaN. `volatility`: standard deviation of a bar's return at its middle level.
    """
    source = random.Random(seed)
    markets: list[Market] = []
    hour: list[float] = []
    higher = (NAN, NAN, NAN, NAN, NAN)
    reference, funding = 1000.0, 0.0001
    for number in range(bars):
        level = volatility * (1.0 + 0.7 * math.sin(number / 300.0 + seed))
        opened, price = price, price * math.exp(source.gauss(0.0, level))
        high = max(opened, price) * (1.0 + abs(source.gauss(0.0, level / 3.0)))
        low = min(opened, price) * (1.0 - abs(source.gauss(0.0, level / 3.0)))
        reference *= math.exp(source.gauss(0.0, level))
        if number % 96 == 0:
            funding = source.gauss(0.0001, 0.0002)
        implied = max(0.05, level * math.sqrt(105_120.0) * (1.1 + 0.4 * math.sin(number / 700.0)))
        hour += [high, low]
        if (number + 1) % 12 == 0:
            higher = (opened, max(hour), min(hour), price, float(START + (number - 11) * INTERVAL_MS))
            hour.clear()
        at = float(START + (number + 1) * INTERVAL_MS)
        if blind:
            markets.append(Market(at, opened, high, low, price, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, ChainSlice()))
            continue
        chain = ChainSlice(implied, implied * 1.05, implied * 0.98, 14.0)
        spread = price * 0.0001
        markets.append(
            Market(at, opened, high, low, price, 10.0, price - spread, price + spread, price, funding, *higher, reference, chain)
        )
    return markets


def run(strategy: Strategy, markets: Sequence[Market]) -> list[Intent]:
    """A fresh state over all bars: one intent a bar."""
    state = strategy.init(strategy.params)
    intents = []
    for market in markets:
        state, intent = strategy.step(state, market, strategy.params)
        intents.append(intent)
    return intents


def broken_rules(strategy: Strategy, markets: Sequence[Market]) -> list[str]:
    """One line per promise that these bars show broken; empty for a sound strategy.

    Same input, same output; a prefix of the bars gives the prefix of the answers (no look-ahead); every number finite; score within
    [-1, 1]; a stop with every view that is not an option structure; no negative distance; no view before the declared warm-up is over.
    """
    whole = run(strategy, markets)
    broken = []
    if run(strategy, markets) != whole:
        broken.append("two runs over the same bars differ: it remembers something outside its state")
    for length in sorted({1, len(markets) // 3, len(markets) // 2, len(markets) - 1}):
        if run(strategy, markets[:length]) != whole[:length]:
            broken.append(f"its answers on the first {length} bars change when more bars follow")
    for number, intent in enumerate(whole):
        if not all(math.isfinite(value) for value in intent):
            broken.append(f"bar {number}: not finite: {intent}")
        elif not -1.0 <= intent.score <= 1.0:
            broken.append(f"bar {number}: score {intent.score} is outside [-1, 1]")
        elif intent.stop < 0.0 or intent.target < 0.0 or intent.hold < 0:
            broken.append(f"bar {number}: a distance or holding time is negative: {intent}")
        elif intent.score != 0.0 and strategy.structure is Structure.SINGLE and not intent.stop > 0.0:
            broken.append(f"bar {number}: a view without a stop cannot be sized: {intent}")
        elif intent.score != 0.0 and number + 1 < strategy.warmup:
            broken.append(f"bar {number}: a view before its warm-up of {strategy.warmup} bars is over")
        if len(broken) >= 5:
            break
    return broken
