"""Owns what the bot believes about its own strategies: how much of its size each keeps, and what its score is worth.

May only choose and lower: a weight is in [0, 1] and a calibrated confidence never exceeds what it was given. It cannot unhalt, extend a
certificate, permit anything or raise a cap: it holds no reference to whoever could. A projection of the journal: days roll when a fact of
a later day arrives, so that a replay ends in the same state to the last bit. Alone writes CalibrationUpdated and WeightsUpdated. Nothing is
learned from a day on which the class was halted, frozen by the operator, or without a closed trade for too long.
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


@dataclass(slots=True)
class _Record:
    """One strategy's outcomes, oldest first, and its running reward."""

    scores: deque[float]
    net_r: deque[float]
    closed: int = 0
    today: float = 0.0
    running: float = 0.0
    peak: float = 0.0
    prior: Prior | None = None
    """From its certificate; without one its score is not calibrated."""
    calibration: Calibration | None = None
    fresh: bool = False
    """Outcomes came in since the last calibration."""
    announced: int = -1
    """Outcomes in the last CalibrationUpdated."""


@dataclass(slots=True)
class _Class:
    """One asset class's allocation."""

    names: tuple[str, ...]
    belief: allocation.Belief
    halts: set[tuple[str, str]] = field(default_factory=set)
    last_closed: int | None = None
    announced: dict[str, float] = field(default_factory=dict)


class LearningAgent:
    """`weight` and `confidence` for decisions, `apply`/`on_fact` for the journal."""

    def __init__(self, *, journal: Journal, policy: LearningPolicy, full_r: float, strategies: Mapping[AssetClass, Sequence[str]]) -> None:
        """`full_r`: expected net R at confidence 1 (risk_policy's expected_r_per_confidence); `strategies`: names per class."""
        self._journal = journal
        self._policy = policy
        self._full_r = full_r
        self._names = {c: tuple(sorted(set(names))) for c, names in strategies.items() if names}
        self._records: dict[Key, _Record] = {}
        self._classes: dict[AssetClass, _Class] = {}
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
        self._classes = {c: _Class(names, allocation.first((len(names),)), halts.get(c, set())) for c, names in self._names.items()}
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
                f"reason_{number}": reason for number, reason in enumerate(self._reasons(strategy, found, record)[:3], 1)}
        said.update(reasons)
        return said

    def _reasons(self, strategy: str, found: _Class | None, record: _Record | None) -> list[str]:
        if found is None or strategy not in found.names:
            return ["this strategy is not weighed"]
        reasons = [] if self._policy.allocation_on else ["allocation is off: everybody keeps its size"]
        if self.frozen or found.halts:
            reasons.append("frozen by the operator" if self.frozen else "frozen while the class is halted")
        belief, index = found.belief, found.names.index(strategy)
        trust, trusted = max(zip(belief.trust.tolist(), allocation.FORECASTERS, strict=True))
        reasons.append(f"{trusted} is believed most ({trust:.0%})")
        mean = belief.total.item(index) / belief.effective if belief.effective > 0.0 else 0.0
        reasons.append(f"decayed net result {mean:+.4f} R a day over {belief.days} days")
        reasons.append(f"{record.closed if record is not None else 0} closed trades, fell {_fall(record):.1f} R from its peak")
        return reasons

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
                    found.belief.days, tuple(self._reasons(found.names[0], found, None)[:3])))

    def _weights_told(self, fact: WeightsUpdated) -> None:
        if fact.asset_class in self._classes:
            self._classes[fact.asset_class].announced = fact.weights

    def _calibration_told(self, fact: CalibrationUpdated) -> None:
        self._record((fact.strategy, fact.asset_class)).announced = fact.outcomes

    def _closed(self, fact: PositionClosed) -> None:
        trade = fact.trade
        if trade.net_r is None:
            return
        record, net_r = self._record((trade.strategy, trade.asset_class)), float(trade.net_r)
        record.scores.append(abs(trade.score))
        record.net_r.append(net_r)
        record.closed += 1
        record.fresh = True
        before = record.peak - record.running
        record.running += net_r
        record.peak = max(record.peak, record.running)
        deeper = max(0.0, record.peak - record.running - before)
        record.today += net_r - self._policy.turnover_penalty_r - float(self._policy.drawdown_penalty) * deeper
        found = self._classes.get(trade.asset_class)
        if found is not None:
            found.last_closed = self._day

    def _record(self, key: Key) -> _Record:
        found = self._records.get(key)
        if found is None:
            longest = int(HALF_LIVES * self._policy.calibration.half_life_trades)
            found = self._records[key] = _Record(deque(maxlen=longest), deque(maxlen=longest))
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
        classes = {c.value: {
            "names": list(found.names), "weights": found.belief.weights.tolist(), "trust": found.belief.trust.tolist(),
            "total": found.belief.total.tolist(), "square": found.belief.square.tolist(), "effective": found.belief.effective,
            "pending": [row.tolist() for row in found.belief.pending], "days": found.belief.days, "halts": sorted(map(list, found.halts)),
            "last_closed": found.last_closed,
        } for c, found in self._classes.items()}
        records = {f"{name} {c.value}": {
            "closed": record.closed, "today": record.today, "running": record.running, "peak": record.peak,
            "scores": list(record.scores), "net_r": list(record.net_r),
            "expected_r": record.calibration.expected.value.tolist() if record.calibration is not None else None,
            "lower_r": record.calibration.lower.value.tolist() if record.calibration is not None else None,
        } for (name, c), record in sorted(self._records.items())}
        return {"version": VERSION, "day": self._day, "frozen": self.frozen, "allocation_on": self._policy.allocation_on,
                "classes": classes, "records": records}

    def state_hash(self) -> str:
        return digest(self.document())

    def lines(self) -> list[str]:
        """What it believes, in words, for people."""
        said = ["frozen by the operator" if self.frozen else "learning", "weights multiply sizes" if self._policy.allocation_on else
                "weights are computed but not used (learning_policy.json: allocation_on)"]
        for asset_class in ASSET_CLASSES:
            found = self._classes.get(asset_class)
            if found is not None and found.belief.days:
                said.append(f"{asset_class.value}: " + ", ".join(
                    f"{name} {weight:.2f}" for name, weight in zip(found.names, found.belief.weights.tolist(), strict=True))
                    + f" after {found.belief.days} days")
        return said


def _fall(record: _Record | None) -> float:
    return 0.0 if record is None else record.peak - record.running
