"""The trial registry counts every trial once and knows an idea again, whatever it is called."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modules.backtest.ideas import fingerprint, likeness
from modules.backtest.trials import Counted, TrialRegistry
from modules.domain.errors import StoreUnreadable
from modules.strategies.protocol import Strategy
from modules.strategies.registry import all_strategies

ROOT = Path(__file__).resolve().parents[1]
LIKENESS = {"same_code": 0.85, "same_results": 0.9}

ORIGINAL = '''
from typing import NamedTuple
from modules.domain.instrument import AssetClass
from modules.domain.signal import FLAT, Intent
from modules.strategies.protocol import Market, Strategy

class Params(NamedTuple):
    length: int = 20
    band: float = 1.5

class State(NamedTuple):
    mean: float
    bars: int

def smooth(before: float, now: float, length: int) -> float:
    """An average."""
    return before + (now - before) / length

def init(params):
    return State(0.0, 0)

def step(state, market, params):
    mean = smooth(state.mean, market.close, params.length)
    bars = state.bars + 1
    ahead = State(mean, bars)
    if bars < params.length:
        return ahead, FLAT
    if market.close > mean * params.band:
        return ahead, Intent(1.0, market.close * 0.02)
    return ahead, Intent(-1.0, market.close * 0.02)
'''
RENAMED = ORIGINAL.replace("smooth", "helper").replace("mean", "m").replace("length", "n").replace("ahead", "result").replace("band", "k")
REFORMATTED = ORIGINAL.replace('    """An average."""\n', "").replace(
    "bars = state.bars + 1", "bars = (\n        state.bars\n        + 1)  # one more")
REPARAMETERIZED = ORIGINAL.replace("20", "55").replace("1.5", "0.7").replace("0.02", "0.05")
REORDERED = ORIGINAL.replace('''    mean = smooth(state.mean, market.close, params.length)
    bars = state.bars + 1
''', '''    bars = state.bars + 1
    mean = smooth(state.mean, market.close, params.length)
''')
OTHER = ORIGINAL.replace('''    if market.close > mean * params.band:
        return ahead, Intent(1.0, market.close * 0.02)
    return ahead, Intent(-1.0, market.close * 0.02)''', '''    width = market.high - market.low
    rising = market.volume * width - state.mean
    if rising > params.band and market.ref_close == market.ref_close:
        score = min(1.0, rising / width)
        return ahead, Intent(score, width * 3.0, width * 6.0, 12)
    return ahead, FLAT''')


def loaded(folder: Path, name: str, source: str) -> Strategy:
    """A strategy out of a file, as a user's."""
    import importlib.util

    file = folder / f"{name}.py"
    file.write_text(source + f'\nSTRATEGY = Strategy("{name}", "", (AssetClass.SPOT,), Params(), init, step, 20)\n', encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    found: Strategy = module.STRATEGY
    return found


def register(registry: TrialRegistry, idea: str = "a b c d", sets: tuple[int, ...] = (1, 2, 3), *, code: str = "code", basket: str = "BTC",
             data: str = "data") -> Counted:
    return registry.register(strategy="trend", code=code, fingerprint=idea, basket=basket, data=data, sets=[{"n": float(n)} for n in sets])


@pytest.mark.parametrize("source", [RENAMED, REFORMATTED, REPARAMETERIZED, REORDERED], ids=["renamed", "reformatted", "reparameterized",
                                                                                            "reordered"])
def test_an_idea_is_known_again_whatever_it_is_called(tmp_path: Path, source: str) -> None:
    one, other = loaded(tmp_path, "idea_one", ORIGINAL), loaded(tmp_path, "idea_two", source)
    assert source != ORIGINAL and fingerprint(one) == fingerprint(other)
    registry = TrialRegistry(None, **LIKENESS)
    first = register(registry, fingerprint(one))
    assert register(registry, fingerprint(other), code="other").idea == first.idea
    assert registry.count(first.idea).trials == 6


def test_a_helper_that_changes_changes_the_idea_and_another_idea_is_another(tmp_path: Path) -> None:
    one, other = loaded(tmp_path, "idea_one", ORIGINAL), loaded(tmp_path, "idea_two", OTHER)
    helper = loaded(tmp_path, "idea_three", ORIGINAL.replace("(now - before) / length", "max(now, before) * length - now"))
    assert likeness(fingerprint(one), fingerprint(other)) < 0.85
    assert fingerprint(one) != fingerprint(helper)


def test_a_statement_that_does_nothing_does_not_make_a_new_idea(tmp_path: Path) -> None:
    padded = ORIGINAL.replace("    bars = state.bars + 1\n", "    bars = state.bars + 1\n    unused = market.high\n")
    one, other = loaded(tmp_path, "idea_one", ORIGINAL), loaded(tmp_path, "idea_two", padded)
    assert fingerprint(one) != fingerprint(other)
    assert likeness(fingerprint(one), fingerprint(other)) >= 0.85


def test_no_two_shipped_strategies_are_taken_for_one_idea() -> None:
    words = {name: fingerprint(strategy) for name, strategy in all_strategies().items()}
    assert all(likeness(words[one], words[other]) < 0.8 for one in words for other in words if one < other)


def test_the_same_trial_counts_once_however_often_it_is_begun() -> None:
    registry = TrialRegistry(None, **LIKENESS)
    assert (register(registry).new, register(registry).new) == (3, 0)
    assert register(registry, sets=(3, 4)).new == 1
    assert registry.count(register(registry).idea).trials == 4
    assert register(registry, basket="ETH").trials == 7    # other instruments: other trials
    assert register(registry, data="a month later").trials == 7    # the same trial on a longer history
    assert register(registry, code="edited").trials == 10


def test_code_written_anew_is_known_by_its_daily_results() -> None:
    registry = TrialRegistry(None, **LIKENESS)
    draw = np.random.default_rng(1)
    daily = draw.standard_normal((400, 3))
    one, other, third = (register(registry, words, code=words).idea for words in ("a b c d", "e f g h", "i j k l"))
    assert len({one, other, third}) == 3
    registry.submit(one, "first")
    registry.remember(one, code="1", basket="BTC", data="data", first_day=100, daily=daily)
    registry.remember(third, code="3", basket="BTC", data="data", first_day=100, daily=draw.standard_normal((400, 3)))
    opposite = registry.remember(other, code="2", basket="BTC", data="later", first_day=100, daily=-daily[:, :1])
    assert opposite.idea == other    # the opposite of an idea is another idea
    found = registry.remember(other, code="2", basket="BTC", data="later", first_day=150,
                              daily=daily[50:, 1:2] * 3 + 0.3 * draw.standard_normal((350, 1)))
    assert found.idea == one and found.trials == 6 and found.submissions == 1
    assert registry.submit(other, "second") == 2
    assert registry.count(third).trials == 3


def test_submissions_are_numbered_and_a_resumed_one_keeps_its_number() -> None:
    registry = TrialRegistry(None, **LIKENESS)
    idea = register(registry).idea
    assert [registry.submit(idea, run) for run in ("one", "two", "one", "three")] == [1, 2, 1, 3]
    registry.judged(idea, "two", "APPROVED")
    registry.judged(idea, "three", "INSUFFICIENT EVIDENCE")
    assert [registry.submit(idea, run) for run in ("two", "three")] == [2, 3]
    assert registry.count(idea).submissions == 3


def test_what_was_rejected_counts_again_each_time_it_is_judged_again() -> None:
    registry = TrialRegistry(None, **LIKENESS)
    idea = register(registry).idea
    numbers = []
    for _ in range(3):
        numbers.append(registry.submit(idea, "same"))
        assert registry.submit(idea, "same") == numbers[-1], "going on after an interruption is no second judgment"
        registry.judged(idea, "same", "REJECTED")
    assert numbers == [1, 2, 3] and registry.count(idea).submissions == 3


def test_all_that_was_ever_tried_on_the_same_data_comes_back_for_the_test() -> None:
    registry = TrialRegistry(None, **LIKENESS)
    idea = register(registry).idea
    daily = np.random.default_rng(1).standard_normal((200, 3)).astype(np.float32).astype(np.float64)
    registry.remember(idea, code="1", basket="BTC", data="data", first_day=10, daily=daily)
    registry.remember(idea, code="2", basket="BTC", data="data", first_day=12, daily=daily[2:, :1] * 2)
    registry.remember(idea, code="1", basket="BTC", data="data", first_day=10, daily=daily)
    registry.remember(idea, code="1", basket="BTC", data="other data", first_day=10, daily=daily + 1)
    found = registry.columns(idea, basket="BTC", data="data")
    assert found is not None and found[0] == 10 and found[1].shape == (200, 4)
    assert np.array_equal(found[1][:, :3], daily)
    assert registry.columns(idea, basket="ETH", data="data") is None


def test_the_file_survives_and_a_changed_row_is_found(tmp_path: Path) -> None:
    path = tmp_path / "trials.sqlite"
    registry = TrialRegistry(path, **LIKENESS)
    idea = register(registry).idea
    registry.remember(idea, code="1", basket="BTC", data="data", first_day=0, daily=np.random.default_rng(1).standard_normal((90, 2)))
    registry.close()
    again = TrialRegistry(path, **LIKENESS)
    assert again.count(idea).trials == 3 and again.verify() == 5
    again.close()
    with sqlite3.connect(path) as database:
        for statement in ("UPDATE entries SET idea = 'x'", "DELETE FROM entries"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(statement)
        database.execute("DROP TRIGGER entries_no_delete")
        database.execute("DELETE FROM entries WHERE seq = 3")
    with pytest.raises(StoreUnreadable, match="entry 3 was changed or is missing"):
        TrialRegistry(path, **LIKENESS).verify()


def test_a_damaged_registry_is_not_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "trials.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreUnreadable, match="never begun anew"):
        TrialRegistry(path, **LIKENESS)


def test_an_interrupt_in_the_middle_leaves_nothing_half_counted(tmp_path: Path) -> None:
    registry = TrialRegistry(tmp_path / "trials.sqlite", **LIKENESS)

    class Interrupting(list):
        def __iter__(self):  # type: ignore[no-untyped-def]
            yield {"n": 1.0}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.register(strategy="trend", code="c", fingerprint="a b", basket="B", data="d", sets=Interrupting())
    assert registry.verify() == 0
    assert registry.register(strategy="trend", code="c", fingerprint="a b", basket="B", data="d", sets=[{"n": 1.0}]).trials == 1


WRITER = '''
import sys
from pathlib import Path
from modules.backtest.trials import TrialRegistry
registry = TrialRegistry(Path(sys.argv[1]), same_code=0.85, same_results=0.9)
for number in range(40):
    found = registry.register(strategy="s", code="c", fingerprint="a b c", basket="B", data="d",
                              sets=[{"n": float(number)}, {"n": float(number + 1000 * int(sys.argv[2]))}])
    registry.submit(found.idea, f"{sys.argv[2]} {number}")
'''


def test_concurrent_processes_lose_and_double_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trials.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)], cwd=ROOT) for number in (1, 2, 3)]
    assert [writer.wait(timeout=600) for writer in writers] == [0, 0, 0]
    registry = TrialRegistry(path, **LIKENESS)
    found = register(registry, "a b c", ())
    assert (found.trials, found.submissions) == (40 + 3 * 40, 120)
    assert registry.verify() == 160 + 120 + 1
