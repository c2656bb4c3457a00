"""The benchmarks that count false approvals and compare daemon and kernel: what they tell, what they keep, and what they may leave out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import common, parity, validation_power
from benchmarks.research_ideas import LOOKS, UNRANKED, ranked
from benchmarks.validation_power import Campaign, Kept, Row, tally
from benchmarks.validation_prices import Found
from benchmarks.validation_worlds import Daily, daily_results
from modules.backtest.series import from_arrays
from modules.backtest.verdict import judge
from modules.domain.instrument import AssetClass

POLICY = common.policies().validation.model_copy(update={"bootstrap_draws": 1_000, "evidence_sharpe_multiple": 10.0})


def row(approved: int, worlds: int) -> Row:
    return Row("returns", "noise", worlds, approved, 0.01, False, {})


@pytest.mark.parametrize(("approved", "worlds"), [(0, 500), (3, 217), (183, 200), (200, 200), (1, 1)])
def test_the_interval_is_the_exact_one(approved: int, worlds: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    exact = stats.binomtest(approved, worlds).proportion_ci(0.95, "exact")
    assert row(approved, worlds).interval == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_a_campaign_goes_on_where_it_was_and_other_bars_begin_anew(tmp_path: Path) -> None:
    asked: list[int] = []

    def world(seed: int) -> Found:
        asked.append(seed)
        return Found("APPROVED" if seed == 12 else "REJECTED", () if seed == 12 else ("P_VALUE",))

    few, all_of_it = (Campaign("returns", "noise", count, 0.5, False, 10, world) for count in (3, 5))
    path = tmp_path / "worlds.jsonl"
    first = tally(few, Kept(path, "bars").judged(few), scaled=False)
    again = tally(all_of_it, Kept(path, "bars").judged(all_of_it), scaled=False)
    assert asked == [10, 11, 12, 13, 14] and (first.approved, again.approved, again.worlds) == (1, 1, 5)
    assert again.failed == {"P_VALUE": 4} and again.met
    assert [json.loads(line)["seed"] for line in path.read_text().splitlines()] == asked
    tally(few, Kept(path, "other bars").judged(few), scaled=False)
    assert asked[5:] == [10, 11, 12]


@pytest.mark.parametrize("seed", [4_000_001, 1_000_003])
def test_what_a_hasty_judgment_leaves_out_approves_and_rejects_nothing(seed: int) -> None:
    daily = daily_results(Daily(years=0.8, t=4.25 if seed > 4_000_000 else 0.0), seed)
    for before, submission in ((daily[:, :0], 1), (daily_results(Daily(years=0.8, variants=20), seed + 7), 2)):
        found = [judge(validation_power.evidence(daily, before, POLICY, submission, seed, hasty=hasty), POLICY, submission).verdict
                 for hasty in (True, False)]
        assert [one == "APPROVED" for one in found] == [seed > 4_000_000] * 2


def test_parity_knows_what_is_lacking_and_takes_the_classes_in_turn() -> None:
    rows = [{"bars": 60_000, "trades": 250, "reasons": {"stop_loss": 15, "roi": 40}},
            {"bars": 50_000, "trades": 20, "reasons": {"stop_loss": 4}}]
    assert parity.lacking(rows) == {"trades": 30, "stop_loss": 1}
    assert parity.lacking(rows, ["time_exit"]) == {"trades": 30, "stop_loss": 1, "time_exit": 20}
    assert parity.lacking([]) == {"bars": 100_000, "trades": 300}
    order = [case.asset_class for case in parity.in_turn(parity.CASES)]
    assert order[:6] == [AssetClass.SPOT, AssetClass.PERP, AssetClass.FOREX] * 2 and len(order) == len(parity.CASES)


def test_ranks_are_those_of_the_bars_so_far() -> None:
    draw = np.random.default_rng(3)
    count = LOOKS[-1] + 50
    at = 3_600_000 * np.arange(1, count + 1)
    closes = 100.0 * np.exp(np.cumsum(draw.normal(0.0, 0.01, (4, count)), axis=1))
    coins = {name: from_arrays(name, AssetClass.SPOT, at, close, close, close, close, np.ones(count))
             for name, close in zip(("A/USD", "B/USD", "C/USD", "D/USD"), closes, strict=True)}
    found = {name: one.ref_close for name, one in ranked(coins).items()}
    gone = closes[:, -1] / closes[:, -1 - LOOKS[0]] - 1.0
    shares = [round(100.0 * int(np.sum(gone < own)) / 3) for own in gone]
    assert [int(code[-1]) % 1000 for code in found.values()] == shares
    assert all(code[0] == sum(UNRANKED * 1000.0**place for place in range(4)) for code in found.values())
    part = ranked({name: one.part(0, 900) for name, one in coins.items()})
    assert all(np.array_equal(part[name].ref_close, code[:900]) for name, code in found.items()), "no later bar changes an earlier rank"
