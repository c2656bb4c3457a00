"""From the scheduled search to the promotion and back: a challenger that `optimize` finds, that the gate certifies, that trades in the
shadow, takes over and goes back when it does worse; and the same one without the gate's word, which never takes over.

The search and the gate are the real program in processes of their own, in an installation of its own with a strategy of the owner's; the
months of trading after them pass on virtual time.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

import main
from modules.backtest.recorded import RecordedSource
from modules.domain.events import ChallengerEntered, ChallengerJudged, Fact, Scope, ShadowClosed, SwitchChanged, TradeOpened
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.learning import challenge
from modules.learning.shadow import terms_of
from modules.Learning_Agent import LearningAgent
from modules.news.calendar import Calendar
from modules.runtime.clock import VirtualClock, VirtualLoop, WallClock
from modules.store.decisions import Decisions
from modules.store.journal import Journal
from modules.strategies.protocol import Strategy
from modules.strategies.registry import discover
from tests.builders import shipped_policies

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).resolve().parents[1]
SPOT: Final = AssetClass.SPOT
HOUR: Final = 3_600_000
PROVING, EARNING, TURNED = 4_800, 36 * 24, 12 * 24
"""Hours of history that is validated, of live trading with the edge, and with the opposite of it."""
NAMES: Final = ("BTC", "ETH", "SOL", "ADA")
STRATEGY: Final = '''"""Follows what the volume foretells. Installed with parameters that hardly ever trade."""

from __future__ import annotations

from typing import NamedTuple

from modules.domain.instrument import AssetClass
from modules.domain.signal import Intent
from modules.strategies.protocol import Market, Strategy


class Params(NamedTuple):
    threshold: float = 1.9
    hold: int = 6


class State(NamedTuple):
    side: float
    left: int


def init(params: Params) -> State:
    return State(0.0, 0)


def step(state: State, market: Market, params: Params) -> tuple[State, Intent]:
    wanted = market.volume / 1000.0 - 1.0
    side = state.side
    left = state.left - 1
    if left <= 0:
        side = 0.0
        left = 0
        if wanted > params.threshold:
            side = 1.0
            left = params.hold
    return State(side, left), Intent(side, 0.05 * market.close if side != 0.0 else 0.0, 0.0, 0)


STRATEGY = Strategy("planted", "follows the volume", (AssetClass.SPOT,), Params(), init, step, 24,
                    {"threshold": (0.25, 0.5, 1.9), "hold": (6, 12)})
'''


def rows(seed: int, begin: int, edges: tuple[float, float, float]) -> Iterator[str]:
    """An hourly random walk whose volume foretells the next hours' drift, by so much in each of the three spans."""
    spans = (PROVING, EARNING, TURNED)
    bars, draw = sum(spans), np.random.default_rng(seed)
    signal = np.clip(np.repeat(draw.standard_normal(bars // 12 + 1), 12)[:bars], -0.9, 3.0)
    moves = 0.004 * (draw.standard_normal(bars) + np.repeat(edges, spans) * np.concatenate(((0.0,), signal[:-1])))
    close = 10_000.0 * np.exp(np.cumsum(moves))
    opened = np.concatenate(((10_000.0,), close[:-1]))
    reach = np.abs(draw.standard_normal(bars)) * 0.001
    for bar in range(bars):
        high, low = max(opened[bar], close[bar]) * (1.0 + reach[bar]), min(opened[bar], close[bar]) * (1.0 - reach[bar])
        yield f"{begin + bar * HOUR},{opened[bar]:.2f},{high:.2f},{low:.2f},{close[bar]:.2f},{1000.0 * (1.0 + signal[bar]):.6f}"


def recorded(folder: Path, begin: int, edges: tuple[float, float, float], count: int | None = None) -> Path:
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        lines = ["ts,open,high,low,close,volume", *list(rows(number, begin, edges))[:count]]
        (folder / f"binance_{name}USDT_1h.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def policies() -> Policies:
    """The shipped ones with a gate sized to half a year, a contest sized to a month, and a trader who never tires."""
    shipped = shipped_policies()
    validation = shipped.validation.model_copy(update={
        "bootstrap_draws": 2_000, "sets_max": 6, "windows": 4, "random_draws": 20, "trades_min": 60, "evidence_sharpe_multiple": 6.0})
    risk = shipped.risk.model_copy(update={"cooldown_losses": 1_000, "cooldown_stop_outs": 8, "correlated_others_max": 9})
    kill = shipped.kill_switch.model_copy(update={"drawdown_daily_max": Decimal(1), "drawdown_monthly_max": Decimal(1)})
    contest = shipped.learning.challenge.model_copy(update={"trades_min": 60, "rollback_trades_min": 10, "days_max": 40, "search_days": 7})
    learning = shipped.learning.model_copy(update={"challenge": contest})
    return shipped.model_copy(update={"validation": validation, "risk": risk, "kill_switch": kill, "learning": learning})


@dataclass
class Installation:
    """The program with the owner's strategy and policies, and what it has recorded until now."""

    folder: Path
    live_from: int
    strategy: Strategy

    @property
    def learning(self) -> Path:
        return self.folder / "state" / "demo" / "learning"

    def command(self, *words: str) -> list[str]:
        return [sys.executable, str(self.folder / "main.py"), *words, "--classes", "spot", "--workers", "1", "--json"]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "BOT__STATE_DIR": str(self.folder / "state"),
                "BOT__LOG_DIR": str(self.folder / "logs")}

    def verdict(self, name: str, data: Path) -> dict[str, Any]:
        done = subprocess.run(self.command("validate", "-s", name, "--data", str(data)), cwd=self.folder, env=self.environment(),
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found: dict[str, Any] = json.loads(done.stdout)["verdicts"][0]
        return found


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("installation")
    for name in ("modules", "policies"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("main.py", "config.py"):
        shutil.copy(ROOT / name, folder)
    (folder / "modules" / "strategies" / "planted.py").write_text(STRATEGY, encoding="utf-8")
    for name in ("validation", "learning"):
        path = folder / "policies" / f"{name}_policy.json"
        path.write_text(getattr(policies(), name).model_dump_json(), encoding="utf-8")
    live_from = (time.time_ns() // 1_000_000 // HOUR + 2) * HOUR
    recorded(folder / "history", live_from - PROVING * HOUR, (0.3, 0.7, -0.7), PROVING)
    recorded(folder / "worthless", live_from - PROVING * HOUR, (0.0, 0.0, 0.0), PROVING)
    strategy = discover(folder / "modules" / "strategies", "promotion_example").strategies["planted"]
    return Installation(folder, live_from, strategy)


@pytest.fixture(scope="module")
def found(installed: Installation) -> challenge.Challenger:
    """What the scheduled search found: the learner's own schedule, a week of it in two seconds, and the real `optimize`."""
    clock, journal = WallClock(7 * 24 * 3_600 / 2.0, installed.live_from), Journal(None)
    agent = LearningAgent(
        journal=journal, policy=policies().learning, full_r=0.25, strategies={SPOT: ["planted"]}, terms=terms_of(policies()),
        certified=lambda *_: False, folder=installed.learning)

    def research(strategy: str, asset_class: str) -> list[str]:
        return ["env", *(f"{name}={value}" for name, value in installed.environment().items() if name.startswith("BOT__")),
                *installed.command("optimize", "-s", strategy, "--data", str(installed.folder / "history"), "--challenge")]

    async def until_found() -> None:
        running = asyncio.create_task(agent.run(clock, research))
        for _ in range(6_000):
            if challenge.load(installed.learning):
                break
            await asyncio.sleep(0.1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(until_found())
    one, = challenge.load(installed.learning)
    return one


def lived(installed: Installation, found: challenge.Challenger, history: Path, state: Path, certificates: Path | None) -> list[Fact]:
    """The live daemon's two months from now on."""
    state.mkdir(exist_ok=True)
    rules = policies()
    source = RecordedSource(history, (SPOT,), (installed.live_from, None), costs=rules.costs)
    loop = VirtualLoop(source.start)
    try:
        asyncio.set_event_loop(loop)
        journal = Journal(None)
        daemon = main.Daemon(main.simulated_plan(
            source, mode="live", policies=rules, clock=VirtualClock(loop), journal=journal, decisions=Decisions(state / "decisions.sqlite"),
            wallets={SPOT: Decimal(10_000)}, calendar=Calendar((), rules.news, {}), strategies={SPOT: [installed.strategy]},
            certificates=certificates, challengers=(found,)))

        async def life() -> None:
            await daemon.start()
            for scope in (Scope.ALL, Scope.SPOT):
                journal.append(SwitchChanged(installed.live_from, scope, True, "owner"))
            await daemon.run()

        loop.run_until_complete(life())
        return [fact for _, fact in journal.facts()]
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def judged(facts: list[Fact]) -> list[ChallengerJudged]:
    return [fact for fact in facts if isinstance(fact, ChallengerJudged)]


def test_the_scheduled_search_finds_a_challenger_that_the_gate_certifies_that_takes_over_and_goes_back_when_it_does_worse(
        installed: Installation, found: challenge.Challenger, tmp_path: Path) -> None:
    assert found.champion == "planted" and found.params["threshold"] < 1.9, "better than what is installed"
    verdict = installed.verdict(found.name, installed.folder / "history")
    assert verdict["verdict"] == "APPROVED", verdict["missing"]
    assert verdict["params"] == found.params and Path(verdict["certificate"]).parent == installed.folder / "state" / "certificates"

    history = recorded(tmp_path / "history", installed.live_from - PROVING * HOUR, (0.3, 0.7, -0.7))
    facts = lived(installed, found, history, tmp_path / "state", installed.folder / "state" / "certificates")
    entered, = (fact for fact in facts if isinstance(fact, ChallengerEntered))
    assert entered.challenger == found.name
    promoted, back = judged(facts)
    assert (promoted.outcome, back.outcome) == (challenge.PROMOTED, challenge.ROLLED_BACK)
    assert promoted.trades >= 60 and promoted.p <= 0.05 and promoted.difference_r > 0.0
    turned = installed.live_from + EARNING * HOUR
    assert promoted.at < turned < back.at, "it goes back only after its edge turned round"

    shadows = [fact for fact in facts if isinstance(fact, ShadowClosed) and fact.strategy == found.name and fact.at < promoted.at]
    assert len(shadows) >= promoted.trades
    opened = [fact for fact in facts if isinstance(fact, TradeOpened)]
    assert opened and {fact.strategy for fact in opened} == {found.name}, "the champion has no certificate and opens nothing"
    assert promoted.at <= opened[0].at and opened[-1].at <= back.at, "real money only between the promotion and the roll-back"


@pytest.mark.parametrize("data", ["worthless", None])
def test_a_challenger_that_the_gate_did_not_approve_is_never_promoted_however_well_its_shadow_trades(
        installed: Installation, found: challenge.Challenger, tmp_path: Path, data: str | None) -> None:
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    if data is not None:
        verdict = installed.verdict(found.name, installed.folder / data)
        assert verdict["verdict"] in ("REJECTED", "INSUFFICIENT_EVIDENCE") and verdict["certificate"] is None
    history = recorded(tmp_path / "history", installed.live_from - PROVING * HOUR, (0.3, 0.7, 0.7))
    facts = lived(installed, found, history, tmp_path / "state", certificates)
    dropped, = judged(facts)
    assert dropped.outcome == challenge.DROPPED and dropped.trades >= 60 and dropped.p <= 0.05, "better by far, and not certified"
    assert "no certificate" in dropped.reason
    assert not [fact for fact in facts if isinstance(fact, TradeOpened)]
