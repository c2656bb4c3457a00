"""`new-strategy NAME`: writes a strategy that runs, and a test that holds it to the rules. Owns the two templates.

Refuses a name that Python, the registry or an existing file cannot take, and never overwrites: either both files are new or none is
written.
"""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from modules.domain.errors import OperatorRefused
from modules.strategies.registry import LIBRARY

NAME = re.compile(r"[a-z][a-z0-9_]*")

_STRATEGY = Template('''"""$title: say in one sentence what this strategy believes about markets, and when it is wrong.

It comes as a working example: long while the close is above its exponential average by more than a band, short below it.
"""

from __future__ import annotations

from typing import NamedTuple

from modules.domain.instrument import AssetClass
from modules.domain.signal import FLAT, Intent
from modules.strategies.indicators import NAN, Atr, atr_init, atr_step, ema, ema_weight, graded
from modules.strategies.protocol import Market, Strategy


class ${prefix}Params(NamedTuple):
    """Everything that may be tuned. Lengths are bars; `space` below says which values a search may try."""

    average: int = 288
    atr: int = 96
    band: float = 3.0
    """Distance from the average that starts a view, in average true ranges."""
    stop: float = 8.0
    """Stop distance, in average true ranges."""
    reward: float = 2.0
    """Target distance as a multiple of the stop distance."""


class ${prefix}State(NamedTuple):
    """Everything remembered from bar to bar: floats, ints, bools and indicator states."""

    average: float
    atr: Atr
    side: float
    bars: int


def init(params: ${prefix}Params) -> ${prefix}State:
    return ${prefix}State(NAN, atr_init(), 0.0, 0)


def step(state: ${prefix}State, market: Market, params: ${prefix}Params) -> tuple[${prefix}State, Intent]:
    """One closed bar in, the holding wanted from the next open on out. See docs/strategies.md for what may be used here."""
    average = ema(state.average, market.close, ema_weight(params.average))
    atr = atr_step(state.atr, market.high, market.low, market.close, params.atr)
    bars = state.bars + 1
    distance = (market.close - average) / atr.value if atr.value > 0.0 else 0.0
    side = state.side
    if side * distance <= 0.0:  # flat, or back across the average
        side = 0.0
        if distance > params.band:
            side = 1.0
        elif distance < -params.band:
            side = -1.0
    if bars < params.average or not atr.value > 0.0:
        side = 0.0
    ahead = ${prefix}State(average, atr, side, bars)
    if side == 0.0:
        return ahead, FLAT
    stop = params.stop * atr.value
    score = side * graded((abs(distance) - params.band) / params.band)
    return ahead, Intent(score, stop, params.reward * stop, 0)


STRATEGY = Strategy(
    name="$name",
    description="$title: one line for list-strategies.",
    asset_classes=(AssetClass.SPOT, AssetClass.PERP, AssetClass.FOREX),
    params=${prefix}Params(),
    init=init,
    step=step,
    warmup=288,
    space={"average": (144, 288, 576), "band": (2.0, 3.0, 4.0), "stop": (6.0, 8.0, 12.0)},
)
''')

_TEST = Template('''"""$title keeps the rules every strategy keeps. Add what *it* promises: given these bars, then this view."""

from __future__ import annotations

from modules.strategies.$name import STRATEGY
from modules.strategies.registry import contradictions
from tests.strategy_contract import broken_rules, random_walk, run


def test_${name}_declares_nothing_that_contradicts_itself() -> None:
    assert contradictions(STRATEGY) == []


def test_${name}_keeps_the_rules_of_every_strategy_on_random_walks() -> None:
    for seed in range(3):
        assert broken_rules(STRATEGY, random_walk(bars=2000, seed=seed)) == []


def test_${name}_takes_a_view_at_all() -> None:
    assert any(intent.score != 0.0 for intent in run(STRATEGY, random_walk(bars=4000, seed=1)))
''')


def create(name: str, folder: Path) -> list[Path]:
    """Write modules/strategies/NAME.py and tests/test_NAME.py under `folder`, the project's root. Returns both paths.

    Raises OperatorRefused if the name cannot be used or a file is in the way; then nothing has been written.
    """
    if not NAME.fullmatch(name) or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise OperatorRefused(f"{name!r} cannot name a strategy: use lower-case letters, digits and underscores, beginning with a letter")
    if name in LIBRARY:
        raise OperatorRefused(f"{name!r} is a module the strategies stand on; choose another name")
    module = folder / "modules" / "strategies" / f"{name}.py"
    test = folder / "tests" / f"test_{name}.py"
    for path in (module, test):
        if path.exists():
            raise OperatorRefused(f"{path.relative_to(folder)} exists and is never overwritten; choose another name")
        if not path.parent.is_dir():
            raise OperatorRefused(f"{path.parent} is not there: give the project's root folder")
    title = name.replace("_", " ").capitalize()
    words = {"name": name, "title": title, "prefix": "".join(part.capitalize() for part in name.split("_"))}
    for path, template in ((module, _STRATEGY), (test, _TEST)):
        with path.open("x", encoding="utf-8") as file:
            file.write(template.substitute(words))
    return [module, test]
