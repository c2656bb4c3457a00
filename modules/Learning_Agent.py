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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import structlog

from modules.domain.canonical import digest
from modules.domain.events import (
    CalibrationUpdated,
    ChallengerEntered,
    ChallengerJudged,
    Fact,
    OperatorCommand,
    PositionClosed,
    Scope,
    ShadowClosed,
    ShadowOpened,
    StrategyApproved,
    TradeOpened,
    TradingHalted,
    TradingRearmed,
    WeightsUpdated,
)
from modules.domain.instrument import AssetClass
from modules.domain.policies import LearningPolicy
from modules.learning import allocation, calibration, memory
from modules.learning.calibration import Prior
from modules.learning.challenge import Challenger, Contest, contest_of
from modules.learning.memory import ClassMemory, Key, Record
from modules.learning.option_shadow import OptionMarket, OptionShadow, OptionTerms, Shape
from modules.learning.shadow import Entered, Left, Shadow, Terms
from modules.learning.shadow import Key as ShadowKey
from modules.runtime import child, failpoint

if TYPE_CHECKING:
    from modules.runtime.clock import Clock
    from modules.store.journal import Journal

log = structlog.get_logger("Learning_Agent")
DAY_MS: Final = 86_400_000
VERSION: Final = 2
HALF_LIVES: Final = 8
"""Outcomes older than this many half-lives weigh less than 1/256 and are forgotten."""
LOOK_MS: Final = 3_600_000
SEARCH_S: Final = 2 * 3_600.0
"""A search that takes longer is killed."""
COMMAND: Final = "learning"
ACTIONS: Final = ("freeze", "resume", "reset")



class LearningAgent:
    """`weight` and `confidence` for decisions, `apply`/`on_fact` for the journal."""

    def __init__(
        self, *, journal: Journal, policy: LearningPolicy, full_r: float, strategies: Mapping[AssetClass, Sequence[str]],
        terms: Mapping[AssetClass, Terms] | None = None, option_terms: OptionTerms | None = None,
        certified: Callable[[str, AssetClass, int], bool] | None = None, folder: Path | None = None,
    ) -> None:
        """`full_r`: expected net R at confidence 1 (risk_policy's expected_r_per_confidence); `strategies`: names per class, challengers
        not among them; `terms`, `option_terms`: what shadow trades cost; `certified`: whether a strategy has a certificate in force;
        `folder`: where the state is written for people, once a day. The journal is what counts."""
        self._journal = journal
        self._policy = policy
        self._full_r = full_r
        self._names = {c: tuple(sorted(set(names))) for c, names in strategies.items() if names}
        self._records: dict[Key, Record] = {}
        self._classes: dict[AssetClass, ClassMemory] = {}
        self._terms = terms or {}
        self._option_terms = option_terms
        self._certified = certified
        self._folder = folder
        self._open: dict[ShadowKey, ShadowOpened] = {}
        self._shadows: dict[ShadowKey, Shadow | OptionShadow] = {}
        self._queue: list[Fact] = []
        """Shadow facts of this instant."""
        self._contests: list[Contest] = []
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
            ShadowOpened: self._shadow_opened, ShadowClosed: self._shadow_closed, TradeOpened: self._trade_opened,
            ChallengerEntered: self._entered, ChallengerJudged: self._judged,
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
        strategy = self._champion(strategy, asset_class)
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

    # -- shadows and challengers ------------------------------------------------------------------------------------------------

    def shadow(self, strategy: str, symbol: str, asset_class: AssetClass) -> Shadow | None:
        """This strategy's shadow on this series, as the journal left it; None where there is none."""
        if not self._policy.shadow_on or asset_class not in self._terms:
            return None
        key = (strategy, symbol, asset_class)
        made = self._shadows[key] = Shadow(key, self._terms[asset_class])
        if key in self._open:
            made.restore(self._open[key])
        return made

    def option_shadow(self, strategy: str, symbol: str, shape: Shape, underlying: str, market: OptionMarket) -> OptionShadow | None:
        """The same for a structure on the contracts of `underlying`, which is watched on `symbol`."""
        if not self._policy.shadow_on or self._option_terms is None:
            return None
        key = (strategy, symbol, AssetClass.OPTION)
        made = self._shadows[key] = OptionShadow(key, self._option_terms, shape, underlying, market)
        if key in self._open:
            made.restore(self._open[key])
        return made

    def shadowed(self, deeds: Sequence[Entered | Left]) -> None:
        self._queue += [ShadowOpened(*deed) if isinstance(deed, Entered) else ShadowClosed(*deed) for deed in deeds]

    def flush(self) -> None:
        """Put down what the shadows did in this instant: one wait for the disk, after the orders went out."""
        if self._queue:
            facts, self._queue = self._queue, []
            failpoint.hit("learning.before")
            self._journal.append_all(facts)
            failpoint.hit("learning.written")

    def benched(self, strategy: str, asset_class: AssetClass) -> bool:
        """Whether this one only shadow-trades: a challenger, or the champion a promoted one replaced."""
        return any(contest.benched == strategy and contest.asset_class is asset_class for contest in self._contests)

    def challenge(self, challengers: Sequence[Challenger], at: int) -> None:
        """Let those in that the journal does not know: after its replay, before anything trades."""
        known = {(contest.challenger, contest.asset_class) for contest in self._contests}
        for one in challengers:
            if (one.name, one.asset_class) not in known:
                self._journal.append(ChallengerEntered(at, one.champion, one.name, one.asset_class, dict(one.params), one.origin))

    def due(self, at: int) -> bool:
        """Whether what trades is to be optimized anew, counted from the last time (or the first start); then it is counted from now."""
        days = self._policy.challenge.search_days
        if self._folder is None or not days or self.frozen:
            return False
        last = memory.searched_at(self._folder)
        if last is None or at - last >= days * DAY_MS:
            memory.searched(self._folder, at)
        return last is not None and at - last >= days * DAY_MS

    async def run(self, clock: Clock, command: Callable[[str, str], Sequence[str]] | None) -> None:
        """Look every hour whether a search is due (an empty command: there is nothing to search in); what it finds
        stands on the list of challengers and enters at the next start."""
        while command is not None and self._folder is not None:
            await clock.sleep_until(clock.now() + LOOK_MS)
            if self.due(clock.now()):
                for asset_class, names in self._names.items():
                    for name in names:
                        words = command(name, asset_class.value)
                        if not words:
                            continue
                        log.info("search begins", action="search_started", strategy_id=name, asset_class=asset_class.value)
                        try:
                            ended = await child.run(words, timeout_s=SEARCH_S)
                        except (OSError, ValueError) as error:
                            ended = child.Ended(None, b"", str(error))
                        log.info("search ended", action="search_ended", strategy_id=name, code=ended.code, reason=ended.errors[-300:])

    def _champion(self, strategy: str, asset_class: AssetClass) -> str:
        """Whose weight a challenger trades with."""
        for contest in self._contests:
            if contest.challenger == strategy and contest.asset_class is asset_class:
                return contest.champion
        return strategy

    def _entered(self, fact: ChallengerEntered) -> None:
        self._contests.append(contest_of(fact))

    def _judged(self, fact: ChallengerJudged) -> None:
        for contest in self._contests:
            if (contest.challenger, contest.asset_class) == (fact.challenger, fact.asset_class):
                contest.told(fact)

    def _judge(self, at: int) -> None:
        """The gate's word and the paired test, for every challenger that is due. Nobody is promoted over a frozen or halted class."""
        for contest in self._contests:
            found = self._classes.get(contest.asset_class)
            if self.frozen or (found is not None and found.halts):
                continue
            certified = self._certified is not None and self._certified(contest.challenger, contest.asset_class, at)
            verdict = contest.judge(self._day, at, self._policy.challenge, certified)
            if verdict is not None:
                log.warning("challenger judged", action="challenger_judged", strategy_id=verdict.challenger, outcome=verdict.outcome,
                            trades=verdict.trades, p=round(verdict.p, 4), reason=verdict.reason)
                self._journal.append(ChallengerJudged(*verdict))

    def _trade_opened(self, fact: TradeOpened) -> None:
        shadow = self._shadows.get((fact.strategy, fact.symbol, fact.asset_class))
        if shadow is not None:
            shadow.taken(fact.at, fact.interval_ms)

    def _shadow_opened(self, fact: ShadowOpened) -> None:
        self._open[fact.strategy, fact.symbol, fact.asset_class] = fact

    def _shadow_closed(self, fact: ShadowClosed) -> None:
        self._open.pop((fact.strategy, fact.symbol, fact.asset_class), None)
        for contest in self._contests:
            if contest.asset_class is fact.asset_class:
                contest.seen(fact.strategy, self._day, fact.net_r)
        if not fact.taken:
            self._outcome(fact.strategy, fact.asset_class, fact.score, fact.net_r).shadows += 1

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
        self._judge(fact.at)
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
        if self._folder is not None:
            memory.save(self.document(), self._folder)

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
        record.prior, record.fresh = Prior(made.envelope.mean_r, made.envelope.sd_r, made.envelope.win_rate), True

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
