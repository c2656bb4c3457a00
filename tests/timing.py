"""Bounds on processor time that mean the same on every machine: a test's budget is scaled by how slow this one is at this moment.

The bounds guard against an order of magnitude (a merge that compares every bar with every series); figures are taken by benchmarks/.
"""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

REFERENCE_S = 0.0125
"""What `_work` takes on the machine the bounds were set on, idle."""
HEADROOM = 3.0
"""Caches shared with other programs slow different work by different factors."""


def _work() -> int:
    value = 0
    for number in range(200_000):
        value = (value * 31 + number) % 1_000_003
    return value


def best_of(work: Callable[[], object], rounds: int = 5) -> float:
    """Processor seconds of the fastest of `rounds` calls."""
    best = float("inf")
    for _ in range(rounds):
        began = process_time()
        work()
        best = min(best, process_time() - began)
    return best


def within(budget: float) -> float:
    """`budget` (any unit of time, measured on the reference machine, idle) as this machine may take for it now."""
    return budget * HEADROOM * max(1.0, best_of(_work) / REFERENCE_S)
