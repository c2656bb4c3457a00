"""Owns what the bot believes about its own strategies: how much of its size each keeps, and what its score is worth.

May only choose and lower: a weight is in [0, 1] and a calibrated confidence never exceeds what it was given. It cannot unhalt, extend a
certificate, permit anything or raise a cap: it holds no reference to whoever could. A projection of the journal: days roll when a fact of
a later day arrives, so that a replay ends in the same state to the last bit. Alone writes CalibrationUpdated, WeightsUpdated, ShadowOpened,
ShadowClosed, ChallengerEntered and ChallengerJudged. Nothing is
learned from a day on which the class was halted, frozen by the operator, or without a closed trade for too long.

One outcome per signal: the ledger's where the book traded it, its shadow's (ShadowClosed) where it did not. Shadow facts wait in a queue
until the instant's decisions are made (`flush`): they must not delay an order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from modules.domain.canonical import digest
from modules.domain.events import (
    CalibrationUpdated,
    Fact,
    OperatorCommand,
    PositionClosed,
    Scope,
    StrategyApproved,
    TradingHalted,
    TradingRearmed,
    WeightsUpdated,
)
from modules.domain.instrument import ASSET_CLASSES, AssetClass
from modules.domain.policies import LearningPolicy
from modules.learning import allocation, calibration
from modules.learning.calibration import Calibration, Prior

if TYPE_CHECKING:
    from modules.store.journal import Journal

DAY_MS: Final = 86_400_000
VERSION: Final = 1
HALF_LIVES: Final = 8
"""Outcomes older than this many half-lives weigh less than 1/256 and are forgotten."""
COMMAND: Final = "learning"
ACTIONS: Final = ("freeze", "resume", "reset")
Key = tuple[str, AssetClass]



class LearningAgent:
    """`weight` and `confidence` for decisions, `apply`/`on_fact` for the journal."""

    def __init__(self, *, journal: Journal, policy: LearningPolicy, full_r: float, strategies: Mapping[AssetClass, Sequence[str]]) -> None:
        """`full_r`: expected net R at confidence 1 (risk_policy's expected_r_per_confidence); `strategies`: names per class."""
        self._journal = journal
        self._policy = policy
        self._full_r = full_r
        self._names = {c: tuple(sorted(set(names))) for c, names in strategies.items() if names}
        self._records: dict[Key, Record] = {}
        self._classes: dict[AssetClass, ClassMemory] = {}
        self._changed = False
        """Since the last look at what is to be told."""
        self._why: dict[Key, dict[str, float | str]] = {}
        """Reasons as long as nothing new was learned."""
        self._day = 0
        self.frozen = False
        """By the operator."""
        self._reset()
        self._handlers: Mapping[type, Callable[[Any], None]] = {
            PositionClosed: self._closed, StrategyApproved: self._approved, TradingHalted: self._halted, TradingRearmed: self._rearmed,
            OperatorCommand: self._commanded, WeightsUpdated: self._weights_told, CalibrationUpdated: self._calibration_told,
        }

    def _reset(self) -> None:
        priors = {key: record.prior for key, record in self._records.items()}
        halts = {asset_class: found.halts for asset_class, found in self._classes.items()}
        self._records = {}
        for key, prior in priors.items():
            self._record(key).prior = prior
        self._classes = {c: ClassMemory(names, allocation.first((len(names),)), halts.get(c, set())) for c, names in self._names.items()}
        self._changed = True

    def adopt(self, policy: LearningPolicy, full_r: float) -> None:
        """The owner's new numbers, from the next day on."""
        self._policy, self._full_r = policy, full_r
        self._why.clear()

    # -- decisions ----------------------------------------------------------------------------------------------------------

    def weight(self, strategy: str, asset_class: AssetClass) -> float:
        """What multiplies this strategy's size: in [0, 1]; 1 while allocation is off or nothing is known of it."""
        found = self._classes.get(asset_class)
        if not self._policy.allocation_on or found is None or strategy not in found.names:
            return 1.0
        weight: float = found.belief.weights.item(found.names.index(strategy))
        return min(1.0, max(0.0, weight)) if weight == weight else 0.0

    def confidence(self, strategy: str, asset_class: AssetClass, score: float, given: float) -> float:
        """`given` or what the outcomes allow, whichever is less. Without a certificate's prior nothing is calibrated."""
        record = self._records.get((strategy, asset_class))
        if record is None or record.calibration is None:
            return given
        return min(given, record.calibration.confidence(score))

    def explain(self, strategy: str, asset_class: AssetClass, score: float) -> dict[str, float | str]:
        """For a decision's record: weight, what it stands on, and the top three reasons."""
        found, record = self._classes.get(asset_class), self._records.get((strategy, asset_class))
        weight, count = self.weight(strategy, asset_class), 0 if record is None else record.closed
        said: dict[str, float | str] = {"weight": weight, "n": float(count), "days": float(found.belief.days if found is not None else 0)}
        if record is not None and record.calibration is not None:
            said["expected_r"] = record.calibration.expected.at(score)
            said["lower_r"] = record.calibration.lower.at(score)
            said["p_win"] = record.calibration.wins.at(score)
        reasons = self._why.get((strategy, asset_class))
        if reasons is None:
            reasons = self._why[strategy, asset_class] = {
                f"reason_{number}": reason for number, reason in enumerate(self._reasons(strategy, asset_class)[:3], 1)}
        said.update(reasons)
        return said

    def _reasons(self, strategy: str, asset_class: AssetClass) -> list[str]:
        return memory.reasons(strategy, self._classes.get(asset_class), self._records.get((strategy, asset_class)),
                              allocation_on=self._policy.allocation_on, frozen=self.frozen)

    # -- facts ----------------------------------------------------------------------------------------------------------------

    def apply(self, fact: Fact) -> None:
        day = fact.at // DAY_MS
        if day > self._day:
            self._roll(day)
            self._why.clear()
        handler = self._handlers.get(type(fact))
        if handler is not None:
            self._why.clear()
            handler(fact)

    def on_fact(self, fact: Fact) -> None:
        """Put down what changed with this fact: weights that moved, calibrations that were renewed."""
        if not self._changed:
            return
        self._changed = False
        for (strategy, asset_class), record in self._records.items():
            made = record.calibration
            if made is not None and made.outcomes != record.announced:
                self._journal.append(CalibrationUpdated(
                    fact.at, strategy, asset_class, made.outcomes, made.expected.at(1.0), made.lower.at(1.0), made.confidence(1.0)))
        for asset_class, found in self._classes.items():
            weights = dict(zip(found.names, found.belief.weights.tolist(), strict=True))
            if weights != found.announced and found.belief.days:
                self._journal.append(WeightsUpdated(
                    fact.at, asset_class, weights, dict(zip(allocation.FORECASTERS, found.belief.trust.tolist(), strict=True)),
                    found.belief.days, tuple(self._reasons(found.names[0], asset_class)[:2])))

    def _weights_told(self, fact: WeightsUpdated) -> None:
        if fact.asset_class in self._classes:
            self._classes[fact.asset_class].announced = fact.weights

    def _calibration_told(self, fact: CalibrationUpdated) -> None:
        self._record((fact.strategy, fact.asset_class)).announced = fact.outcomes

    def _closed(self, fact: PositionClosed) -> None:
        trade = fact.trade
        if trade.net_r is not None:
            self._outcome(trade.strategy, trade.asset_class, trade.score, float(trade.net_r))

    def _outcome(self, strategy: str, asset_class: AssetClass, score: float, net_r: float) -> Record:
        record = self._record((strategy, asset_class))
        record.outcome(score, net_r, self._policy.turnover_penalty_r, float(self._policy.drawdown_penalty))
        found = self._classes.get(asset_class)
        if found is not None:
            found.last_closed = self._day
        return record

    def _record(self, key: Key) -> Record:
        found = self._records.get(key)
        if found is None:
            longest = int(HALF_LIVES * self._policy.calibration.half_life_trades)
            found = self._records[key] = Record(deque(maxlen=longest), deque(maxlen=longest))
        return found

    def _approved(self, fact: StrategyApproved) -> None:
        """A certificate brings the prior; what was learned about this strategy before is kept."""
        made = fact.certificate
        record = self._record((made.strategy, made.asset_class))
        record.prior, record.fresh = Prior(made.envelope.mean_r, made.envelope.sd_r), True

    def _halted(self, fact: TradingHalted) -> None:
        for asset_class, found in self._classes.items():
            if fact.scope.covers(asset_class):
                found.halts.add((fact.scope.value, fact.trigger.value))

    def _rearmed(self, fact: TradingRearmed) -> None:
        for asset_class, found in self._classes.items():
            if fact.scope.covers(asset_class):
                found.halts.discard((fact.scope.value, fact.trigger.value))
                if fact.scope is not Scope.ALL:
                    found.halts.discard((Scope.ALL.value, fact.trigger.value))

    def _commanded(self, fact: OperatorCommand) -> None:
        if fact.command != COMMAND:
            return
        action = next((action for action in ACTIONS if f'"action": "{action}"' in fact.arguments), "")
        if action == "reset":
            self._reset()
        elif action:
            self.frozen = action == "freeze"

    def _roll(self, day: int) -> None:
        """The days before `day` are over: observe each, then renew the calibrations that have new outcomes."""
        begun, self._day = self._day, day
        if not begun:
            return
        stale = int(self._policy.stale_days_max)
        for asset_class, found in self._classes.items():
            records = [self._records.get((name, asset_class)) for name in found.names]
            learning = not self.frozen and not found.halts and found.last_closed is not None
            # Days without any close count as zero until they are too many; what follows is silence, not evidence.
            last = (found.last_closed or 0) + stale
            results = np.array([0.0 if record is None else record.today for record in records])
            for number in range(begun, min(day, last + 1) if learning else begun):
                found.belief = allocation.observe(found.belief, results if number == begun else np.zeros(len(results)),
                                                  self._policy.allocation)
            for record in records:
                if record is not None:
                    record.today = 0.0
        self._changed = True
        for record in self._records.values():
            if record.fresh and record.prior is not None and not self.frozen:
                record.fresh = False
                record.calibration = calibration.calibrate(
                    np.array(record.scores), np.array(record.net_r), record.prior, self._policy.calibration, self._full_r)

    # -- state ------------------------------------------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """All that is believed, as JSON: versioned; equal documents are equal states."""
        return {"version": VERSION, "day": self._day, "frozen": self.frozen, "allocation_on": self._policy.allocation_on,
                "classes": {c.value: found.document() for c, found in self._classes.items()},
                "records": {f"{name} {c.value}": memory.record_document(record) for (name, c), record in sorted(self._records.items())},
                "shadows": {" ".join(key): fact.at for key, fact in sorted(self._open.items())},
                "contests": [contest.document() for contest in self._contests]}

    def state_hash(self) -> str:
        return digest(self.document())

    def lines(self) -> list[str]:
        """What it believes, in words, for people."""
        said = memory.lines(self._classes, self._records, allocation_on=self._policy.allocation_on, frozen=self.frozen)
        for contest in self._contests:
            state = "over" if contest.over else "promoted, watched" if contest.promoted else "shadow-trading"
            said.append(f"challenger {contest.challenger} of {contest.champion} ({contest.asset_class.value}): {state}, "
                        f"{contest.trades} trades")
        return said

    def rows(self) -> list[dict[str, Any]]:
        """One per strategy and class: weight, n, expected net R at full score, the first reasons. For tables."""
        return [{
            "strategy": name, "asset_class": asset_class.value, "weight": weight,
            "n": 0 if record is None else record.closed,
            "shadow": 0 if record is None else record.shadows,
            "expected_r": None if record is None or record.calibration is None else record.calibration.expected.at(1.0),
            "total_r": 0.0 if record is None else record.total_r,
            "reason": "; ".join(self._reasons(name, asset_class)[:3]),
        } for asset_class, found in self._classes.items() for name, weight in zip(found.names, found.belief.weights.tolist(), strict=True)
            for record in (self._records.get((name, asset_class)),)]
