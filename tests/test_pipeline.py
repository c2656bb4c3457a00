"""From strategies and history to verdicts: what is planted is found, what cheats or breaks is quarantined, and neither the place nor an
interruption can be seen in a result."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import config
from modules.backtest import pipeline, searching, walk_forward
from modules.backtest.basket import Basket, basket
from modules.backtest.certify import certificate
from modules.backtest.grid import grid
from modules.backtest.ideas import fingerprint
from modules.backtest.kept import Kept
from modules.backtest.kernel import Rules
from modules.backtest.report import render
from modules.backtest.series import Series
from modules.backtest.trials import TrialRegistry
from modules.backtest.validation import Validation
from modules.backtest.workers import Outcome, Pool, Serial, Task
from modules.domain import certificate as certificates
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.strategies.protocol import Strategy
from modules.strategies.registry import all_strategies
from tests import validation_worlds as worlds

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # inf - inf: a figure nobody computed
ROOT = Path(__file__).resolve().parents[1]
AT = 1_800_000_000_000
SYMBOLS = ("AAA/USDT:USDT", "BBB/USDT:USDT")


@pytest.fixture(scope="module")
def policies() -> Policies:
    """The shipped ones with a smaller bootstrap and fewer sets, so that a test takes a second."""
    shipped = config.load_policies(ROOT / "policies")
    return shipped.model_copy(update={"validation": shipped.validation.model_copy(update={
        "bootstrap_draws": 2_000, "sets_max": 5, "windows": 4, "random_draws": 20, "trades_min": 60,
        "evidence_sharpe_multiple": 6.0})})


@pytest.fixture(scope="module")
def planted() -> dict[str, Series]:
    return {symbol: worlds.world(symbol, 3_600, number, 0.8) for number, symbol in enumerate(SYMBOLS)}


@pytest.fixture(scope="module")
def noise() -> dict[str, Series]:
    return {SYMBOLS[0]: worlds.world(SYMBOLS[0], 1_200, 10)}


@pytest.fixture(scope="module")
def approved(planted: dict[str, Series], policies: Policies) -> Validation:
    """What three tests look at from different sides."""
    return judged(worlds.strategy(worlds.echo), planted, policies)


def registry(path: Path | None = None) -> TrialRegistry:
    return TrialRegistry(path, same_code=0.85, same_results=0.9)


def job(strategy: Strategy, series: dict[str, Series], policies: Policies, trials: TrialRegistry | None = None) -> pipeline.Job:
    chosen = basket(series.values(), AssetClass.PERP, bars_min=strategy.warmup, share_min=0.25)
    return pipeline.Job(strategy, chosen, Rules(policies), policies.validation, trials or registry(), 7, AT, compiled=False)


def judged(strategy: Strategy, series: dict[str, Series], policies: Policies) -> Validation:
    found, = pipeline.validate([job(strategy, series, policies)], Serial())
    return found


def text(found: Sequence[Validation]) -> str:
    return json.dumps([one.document() for one in found], sort_keys=True)


# -- verdicts ----------------------------------------------------------------------------------------------------------------------


def test_a_planted_edge_is_approved_and_earns_a_certificate_for_what_it_was_shown_on(
    approved: Validation, policies: Policies, tmp_path: Path) -> None:
    found = approved
    assert found.verdict == "APPROVED", found.missing
    assert found.instruments == SYMBOLS and found.missing == "" and found.trials == 5
    assert found.trades is not None
    made = certificate(found, found.trades, policies, AT, "somewhere")
    read = certificates.load(certificates.save(made, tmp_path))
    assert certificates.check(read, code_hash=found.code_hash, params=found.params,
                              policy=certificates.bound(policies, AssetClass.PERP)) == ()
    assert read.source == "somewhere", "revalidation reads it again"
    assert 0.0 < read.confidence <= 1.0 and read.envelope.trades == len(found.trades)
    assert "class=\"section\"" in render([found], {})


def test_noise_is_rejected_and_told_what_is_missing(noise: dict[str, Series], policies: Policies) -> None:
    found = judged(worlds.strategy(worlds.echo), noise, policies)
    assert found.verdict != "APPROVED"
    assert "P_VALUE" in found.missing and found.next_command.startswith("python main.py")
    with pytest.raises(ValueError, match="earns no certificate"):
        certificate(found, np.zeros(0), policies, AT)


def test_out_of_sample_numbers_are_those_of_trades_that_the_windows_own_parameters_made(
    approved: Validation, policies: Policies) -> None:
    found = approved
    picture = found.picture
    assert len(picture.windows) == policies.validation.windows
    assert all(window.train_until <= window.test_from < window.test_until for window in picture.windows)
    assert picture.test_first_day == picture.windows[0].test_from
    assert found.trades is not None
    assert sum(one.trades for one in picture.instruments) == found.metrics["trades"] == len(found.trades)
    assert found.metrics["net"] == pytest.approx(float(picture.tested.sum()), abs=1e-12)
    assert found.trades["entry_at"].min() >= picture.windows[0].test_from * 86_400_000


def test_costs_are_paid_in_the_stressed_run(approved: Validation) -> None:
    assert approved.metrics["stressed_net"] < approved.metrics["net"]


# -- bad strategies and bad data -------------------------------------------------------------------------------------------------------


def test_a_strategy_that_breaks_is_quarantined_by_name_of_its_fault_and_the_others_go_on(
    noise: dict[str, Series], policies: Policies) -> None:
    breaking = ((worlds.raises, "ZeroDivisionError"), (worlds.returns_nan, "out of range"), (worlds.returns_giants, "out of range"))
    jobs = [job(worlds.strategy(each), noise, policies) for each in (*(step for step, _ in breaking), worlds.echo)]
    *broken, good = pipeline.validate(jobs, Serial())
    for bad, (_, said) in zip(broken, breaking, strict=True):
        assert bad.verdict == "REJECTED" and said in bad.missing and bad.missing.startswith("quarantined")
    assert good.metrics["trades"] > 0 and not good.failed_task


@pytest.mark.slow
def test_a_strategy_that_hangs_is_stopped_and_the_others_go_on(noise: dict[str, Series], policies: Policies) -> None:
    one = {SYMBOLS[0]: worlds.world(SYMBOLS[0], 1_500, 3)}
    with Pool(1, timeout_s=30.0, nice=0) as pool:
        jobs = [job(worlds.strategy(worlds.hangs), one, policies), job(worlds.strategy(worlds.silent), one, policies)]
        hung, silent = pipeline.validate(jobs, pool)
    assert hung.verdict == "REJECTED" and "hung" in hung.missing
    assert silent.verdict == "INSUFFICIENT EVIDENCE"


def test_a_strategy_that_was_given_the_future_is_rejected_however_good_it_looks(noise: dict[str, Series], policies: Policies) -> None:
    noise = {symbol: one.part(0, 600) for symbol, one in noise.items()}
    for one in noise.values():
        worlds.KNOWN.update(zip(one.at[:-1].astype(float).tolist(), one.close[1:].tolist(), strict=True))
    found = judged(worlds.strategy(worlds.peeks, space={}), noise, policies)
    assert found.verdict == "REJECTED" and "PREFIX_DIFFERENCES" in found.missing
    assert "lookahead" in found.next_command


@pytest.mark.parametrize("step", [worlds.silent, worlds.once])
def test_no_trade_and_one_trade_are_no_evidence(step: Any, noise: dict[str, Series], policies: Policies) -> None:
    found = judged(worlds.strategy(step, space={}), noise, policies)
    assert found.verdict == "INSUFFICIENT EVIDENCE"
    assert found.missing


def test_constant_prices_and_too_few_bars_are_no_evidence(policies: Policies) -> None:
    still = worlds.world(SYMBOLS[0], 1_000, 1)
    flat = np.full(1_000, 100.0)
    constant = replace(still, open=flat, high=flat, low=flat, close=flat)
    assert judged(worlds.strategy(worlds.echo), {SYMBOLS[0]: constant}, policies).verdict != "APPROVED"
    short = judged(worlds.strategy(worlds.echo), {SYMBOLS[0]: worlds.world(SYMBOLS[0], 20, 1)}, policies)
    assert short.verdict == "INSUFFICIENT EVIDENCE" and "20 bars" in short.missing
    few = judged(worlds.strategy(worlds.echo), {SYMBOLS[0]: worlds.world(SYMBOLS[0], 200, 1)}, policies)
    assert few.verdict == "INSUFFICIENT EVIDENCE"


def test_option_structures_say_why_they_cannot_be_judged(policies: Policies) -> None:
    strategy = all_strategies()["credit_spread"]
    empty = pipeline.Job(strategy, Basket(AssetClass.OPTION, {}), Rules(policies), policies.validation, registry(), 7, AT)
    found, = pipeline.validate([empty], Serial())
    assert found.verdict == "INSUFFICIENT EVIDENCE" and "no recorded option chains" in found.missing


# -- trials, interruption, place ---------------------------------------------------------------------------------------------------------


class Interrupted(Serial):
    """Somebody presses Ctrl-C after so many tasks."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._left = after

    def next(self) -> tuple[Task, Outcome]:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return super().next()


def test_an_interrupted_run_goes_on_where_it_was_and_counts_every_trial_once(
    noise: dict[str, Series], policies: Policies, tmp_path: Path) -> None:
    strategy = worlds.strategy(worlds.echo)
    straight = pipeline.validate([job(strategy, noise, policies)], Serial())
    trials = registry(tmp_path / "trials.db")
    for after in (1, 2, 4, 5):
        with pytest.raises(KeyboardInterrupt):
            pipeline.validate([job(strategy, noise, policies, trials)], Kept(Interrupted(1 if after > 1 else after), tmp_path / "kept"))
    executor = Kept(Serial(), tmp_path / "kept")
    resumed = pipeline.validate([job(strategy, noise, policies, trials)], executor)
    assert executor.reused >= 4
    assert text(resumed) == text(straight)
    assert (resumed[0].trials, resumed[0].submissions) == (5, 1)
    trials.verify()


def test_judging_again_what_was_rejected_counts_and_so_does_every_other_way_to_ask_again(
    noise: dict[str, Series], policies: Policies) -> None:
    trials = registry()
    first, = pipeline.validate([job(worlds.strategy(worlds.echo), noise, policies, trials)], Serial())
    again, = pipeline.validate([job(worlds.strategy(worlds.echo), noise, policies, trials)], Serial())
    other, = pipeline.validate([job(worlds.strategy(worlds.echo, "renamed", {"threshold": (0.5, 0.6)}), noise, policies, trials)], Serial())
    counts = first.verdict == "REJECTED"
    assert again.submissions == 1 + counts
    assert other.submissions == 2 + counts and other.trials == 6, "a renamed strategy is the same idea, its defaults were tried before"


def test_another_seed_window_or_cost_is_another_submission_and_a_renewal_is_none(noise: dict[str, Series], policies: Policies) -> None:
    first = job(worlds.strategy(worlds.echo), noise, policies)
    sets = grid(first.strategy, 5)
    perp = policies.costs.PERP
    cheap = policies.costs.model_copy(update={"PERP": perp.model_copy(update={"taker_fee": perp.taker_fee / 2})})
    others = (
        replace(first, seed=8), replace(first, policy=policies.validation.model_copy(update={"windows": 5})),
        replace(first, policy=policies.validation.model_copy(update={"embargo": 0.02})),
        replace(first, rules=Rules(policies.model_copy(update={"costs": cheap}))))
    assert len({one.run_id(sets) for one in (first, *others)}) == 5
    bound = certificates.bound(policies, AssetClass.PERP)
    longer = basket((worlds.world(SYMBOLS[0], 1_300, 10),), AssetClass.PERP, bars_min=24, share_min=0.25)
    renewal = replace(first, basket=longer, renews=pipeline.terms(first.basket.data_hash, bound, first.seed))
    assert renewal.run_id(sets) == first.run_id(sets) != replace(renewal, renews="").run_id(sets)


class Watched(Serial):
    """Remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[Task] = []

    def submit(self, task: Task) -> None:
        self.tasks.append(task)
        super().submit(task)


def test_a_late_submission_is_allowed_many_resamples_and_noise_does_not_wait_for_all_of_them(
    noise: dict[str, Series], policies: Policies) -> None:
    echo, trials, executor = worlds.strategy(worlds.echo), registry(), Watched()
    idea = trials.register(strategy="echo", code="before", fingerprint=fingerprint(echo), basket="", data="", sets=()).idea
    for number in range(1, 8):
        trials.submit(idea, f"submission {number}")
    found, = pipeline.validate([job(echo, noise, policies, trials)], executor)
    allowed = next(line.limit for line in found.lines if line.rule == "P_VALUE")
    assert found.submissions == 8 and allowed == pytest.approx(0.003 / 56)
    tests = [task for task in executor.tasks if "resamples" in task.label]
    assert len(tests) == 2 and all("373,334 resamples" in task.label for task in tests) and found.metrics["bootstrap_draws"] == 4_000
    assert all(1.5 < task.patience < 2.0 for task in tests), "373,334 times five columns take longer than a task usually may"


def test_a_search_counts_its_trials_and_looks_at_no_day_that_validate_will_judge(noise: dict[str, Series], policies: Policies) -> None:
    trials = registry()
    strategy = worlds.strategy(worlds.echo)
    found = searching.search(job(strategy, noise, policies, trials), Serial())
    assert found["trials"] == 5 and len(found["plateau"]) == 5
    assert sum(row["default"] for row in found["plateau"]) == 1
    after, = pipeline.validate([job(strategy, noise, policies, trials)], Serial())
    assert after.trials == 5
    assert found["to"] < np.datetime_as_string(np.datetime64(after.picture.windows[0].test_from, "D"))


def test_two_processes_one_of_which_is_killed_give_the_document_of_one(noise: dict[str, Series], policies: Policies) -> None:
    jobs = [job(worlds.strategy(worlds.echo), noise, policies), job(worlds.strategy(worlds.once, space={}), noise, policies)]
    alone = pipeline.validate(jobs, Serial())
    killed: list[int] = []
    with Pool(2, timeout_s=600.0, nice=0) as pool:
        def kill_one(label: str, ended: int, known: int) -> None:
            if ended == 2 and pool.processes:
                killed.append(pool.processes[0])
                os.kill(killed[0], 9)

        jobs = [job(worlds.strategy(worlds.echo), noise, policies), job(worlds.strategy(worlds.once, space={}), noise, policies)]
        pooled = pipeline.validate(jobs, pool, kill_one)
    assert killed
    assert text(pooled) == text(alone)


# -- grids and baskets -------------------------------------------------------------------------------------------------------------------


def test_a_grid_begins_with_the_defaults_and_keeps_neighbours_together() -> None:
    strategy = all_strategies()["trend"]
    sets = grid(strategy, 50)
    assert len(sets) == len(set(sets)) == 50 and sets[0] == strategy.params
    around = walk_forward.neighbours([{name: float(value) for name, value in one._asdict().items()} for one in sets])
    assert len(around[0]) == 10, "one step up and one down in each of five parameters"
    assert all(around)
    assert set(grid(strategy, 1_000)) >= set(sets) and len(grid(strategy, 1_000)) == 243


def test_of_two_recordings_of_one_market_the_longer_is_taken_and_names_and_lengths_alone_decide() -> None:
    long, short = worlds.world("AAA/USDT:USDT", 3_000, 1), worlds.world("AAA/USDT:USDT#other", 2_000, 2)
    tiny = worlds.world("CCC/USDT:USDT", 400, 3)
    found = basket([short, tiny, long], AssetClass.PERP, bars_min=24, share_min=0.25)
    assert list(found.series) == ["AAA/USDT:USDT"]
    assert set(found.notes) == {"AAA/USDT:USDT#other", "CCC/USDT:USDT"}
    assert list(basket([short, tiny, long], AssetClass.PERP, bars_min=24, share_min=0.25, named=True).series) == [
        "AAA/USDT:USDT", "AAA/USDT:USDT#other", "CCC/USDT:USDT"]


