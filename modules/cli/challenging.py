"""From a search in sample to a challenger: the best plateau, if it is not what trades already. It gains nothing by it but a shadow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modules.domain.instrument import AssetClass
from modules.learning import challenge
from modules.learning.challenge import Challenger, strategy_of
from modules.strategies.protocol import Strategy


def proposed(searches: Sequence[Mapping[str, Any]], known: Mapping[str, Strategy], origin: str) -> tuple[Challenger, ...]:
    """One per search whose best set (judged with its neighbors) is not the champion's own."""
    found = []
    for one in searches:
        best = one["plateau"][0] if one.get("plateau") else None
        champion = known.get(one["strategy"])
        if best is None or best["default"] or champion is None:
            continue
        params = {name: float(value) for name, value in champion.params._asdict().items()}
        params |= {name: float(value) for name, value in best["params"].items()}
        found.append(Challenger(champion.name, AssetClass(one["asset_class"]), params,
                                f"optimize over {origin}, {one['from']} to {one['to']}: in-sample Sharpe {best['sharpe']}"))
    return tuple(found)


def enter(searches: Sequence[Mapping[str, Any]], known: Mapping[str, Strategy], origin: str, folder: Path) -> list[str]:
    """Put what was found on the list beside what stands there; the names of those that are new to it."""
    before = challenge.load(folder)
    found = proposed(searches, known, origin)
    if found:
        challenge.save((*before, *found), folder)
    return [one.name for one in found if one not in before]


def with_challengers(known: Mapping[str, Strategy], folder: Path) -> dict[str, Strategy]:
    """The strategies of this installation, and the challengers on the list by their own names."""
    made = (strategy_of(one, known) for one in challenge.load(folder))
    return dict(known) | {one.name: one for one in made if one is not None}
