"""The parameter sets that are tried: the declared space around the defaults, thinned if it is too large. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

from modules.strategies.protocol import Strategy


def grid(strategy: Strategy, sets_max: int) -> tuple[Any, ...]:
    """At most `sets_max` parameter sets, the defaults first, then those that differ in one parameter, in two, ...

    Sets near each other are kept together, so that a chosen set has neighbours to be compared with. Within one distance nearer values
    come first and no parameter is preferred: of a distance that does not fit whole, sets are taken evenly. The same every time.
    """
    names = [name for name in strategy.space if len(set(strategy.space[name])) > 0]
    defaults = strategy.params
    others = {name: _others(strategy.space[name], getattr(defaults, name)) for name in names}
    found = [defaults]
    for distance in range(1, len(names) + 1):
        ring = [defaults._replace(**dict(zip(changed, values, strict=True)))
                for changed in combinations(names, distance) for values in product(*(others[name] for name in changed))]
        room = sets_max - len(found)
        if room <= 0:
            break
        found += ring if len(ring) <= room else [ring[place * len(ring) // room] for place in range(room)]
    return tuple(found)


def _others(values: Sequence[float], default: float) -> list[float]:
    """Values of a space without the default, nearest first."""
    return sorted({value for value in values if value != default}, key=lambda value: (abs(value - default), value))
