"""Owns approvals: which strategy may open with real money, until when, how sure it may be, and whether it still is what was validated.

May refuse: a strategy without a valid certificate for exactly this code, parameters, instrument and class, in live trading. Paper trading
is never gated. Permission needs the journaled approval, its intact file in state/certificates and the trial registry it was counted in, no
shorter than the journal knows it. Alone writes StrategyApproved, StrategyRejected, StrategyRevoked, StrategyDemoted and TrialsAnchored;
revalidates on a schedule in a child process of the lowest priority.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from modules.backtest import demotion
from modules.backtest.answers import drift_rows, verdict_on
from modules.backtest.certificate_folder import CertificateFolder
from modules.backtest.live_watch import LiveWatch
from modules.backtest.trial_anchor import Anchor, Registries
from modules.domain import certificate as certificates
from modules.domain import gate
from modules.domain.certificate import Certificate
from modules.domain.events import (
    Fact,
    Filled,
    OrderCanceled,
    OrderExpired,
    OrderIntended,
    OrderRejected,
    PositionClosed,
    StrategyApproved,
    StrategyDemoted,
    StrategyRejected,
    StrategyRevoked,
    TrialsAnchored,
)
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.domain.ramp import LiveRamp, Progress
from modules.runtime import child
from modules.runtime.clock import IDLE
from modules.strategies import fingerprint
from modules.strategies.protocol import Strategy

if TYPE_CHECKING:
    from modules.runtime.clock import Clock
    from modules.store.journal import Journal

log = structlog.get_logger("Validation_Manager")
DAY: Final = certificates.DAY_MS
TICK_S: Final = 60.0
SKEW_MS: Final = 300_000
"""A certificate may be dated this much ahead of our clock."""
ANCHOR_MS: Final = 3_600_000
"""How often the journal is told how far the trial registries have come, at most; before an approval it is told at once."""
HOUR_MS: Final = 3_600_000
DRIFT_S: Final = 1_800.0
"""A comparison of live and replay that takes longer is killed, and made a day later."""
REVALIDATION_S: Final = 6 * 3_600.0
"""A revalidation that takes longer is killed and tried again a day later."""
Key = tuple[str, AssetClass]
Command = Callable[[str, str], Sequence[str]]
"""(strategy, asset class) -> the command line that validates it and prints its verdict as JSON."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Why a permission is over although its certificate has not expired."""

    at: int
    reason: str
    demoted: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """A strategy's permission as it stands: for reports."""

    certificate: Certificate
    void: str
    """Empty = in force."""
    days_left: float
    trades: int
    net_r: float


class ValidationManager:
    """`permission` for decisions, `tick` for time, `apply`/`on_fact` for the journal, `run` for revalidation."""

    def __init__(
        self, *, journal: Journal, policies: Policies, strategies: Mapping[AssetClass, Sequence[Strategy]] | None = None,
        folder: Path | None = None, command: Command | None = None, announce: Callable[[str], None] | None = None,
        trials: Path | None = None, drift: Sequence[str] | None = None,
    ) -> None:
        self._journal = journal
        self._policies = policies
        self._folder = CertificateFolder(folder) if folder is not None else None
        self._drift = drift
        self._registries = Registries(trials) if trials is not None else None
        self._anchored_at = -ANCHOR_MS
        self._command = command
        self._announce = announce
        self._installed = {(s.name, asset_class): s for asset_class, listed in (strategies or {}).items() for s in listed}
        self._hashes: dict[str, str] = {}
        self._fitted: dict[Key, Strategy] = {}
        self.on_fitted: Callable[[Strategy, AssetClass], None] | None = None
        """Told when a strategy is to run with other parameters from now on."""
        self._granted: dict[Key, Certificate] = {}
        self._ended: dict[Key, Ended] = {}
        self._watch = LiveWatch()
        self._ramp = LiveRamp()
        self._void: dict[Key, str] = {}
        self._bound: dict[AssetClass, Mapping[str, str]] = {}
        self._warned: dict[tuple[Key, int], int] = {}
        self._tried: dict[tuple[Key, int], int] = {}
        """Both by strategy, class and date of issue."""
        self._due: asyncio.Queue[Certificate] = asyncio.Queue()
        self.faults: tuple[str, ...] = ()
        """One line per certificate file that permits nothing."""
        self._handlers: Mapping[type, Callable[[Any], None]] = {
            OrderIntended: self._watch.intended, Filled: self._watch.filled, PositionClosed: self._watch.closed,
            StrategyApproved: self._approved, StrategyRejected: self._rejected, StrategyRevoked: self._revoked,
            StrategyDemoted: self._demoted, TrialsAnchored: self._anchored,
            **dict.fromkeys((OrderCanceled, OrderExpired, OrderRejected), lambda fact: self._watch.over(fact.client_order_id)),
        }

    # -- questions ----------------------------------------------------------------------------------------------------------

    def permission(self, strategy: str, symbol: str, asset_class: AssetClass, at: int) -> tuple[Certificate | None, str]:
        """(certificate, "") if this strategy may open this instrument with real money now, else (None, why not); an expired one comes back
        with "expired" so that the check can show by how much."""
        key = (strategy, asset_class)
        found = self._granted.get(key)
        if found is None:
            return None, next((fault for fault in self.faults if f"{strategy}-{asset_class.value}-" in fault), "no certificate")
        if key in self._ended:
            return None, self._ended[key].reason
        if key in self._void:
            return None, self._void[key]
        if symbol not in found.instruments:
            return None, f"{symbol} is not in the certificate ({len(found.instruments)} instruments)"
        return found, "" if at < found.expires_at else "expired"

    def certificate(self, strategy: str, symbol: str, asset_class: AssetClass, at: int) -> Certificate | None:
        """The certificate in force for exactly this now, None without one."""
        found, why_not = self.permission(strategy, symbol, asset_class, at)
        return None if why_not else found

    def certified(self, strategy: str, asset_class: AssetClass, at: int) -> bool:
        """Whether it has a certificate in force, whatever the instruments."""
        key = (strategy, asset_class)
        found = self._granted.get(key)
        return found is not None and key not in self._ended and key not in self._void and at < found.expires_at

    def confidence(self, strategy: str, asset_class: AssetClass, score: float, *, live: bool) -> float:
        """A certificate's ceiling on the score; without one the score on paper and nothing in live trading."""
        found = self._granted.get((strategy, asset_class))
        if found is not None and (strategy, asset_class) not in self._ended:
            return min(score, found.confidence)
        return 0.0 if live else score

    def ramp(self, asset_class: AssetClass, at: int) -> Progress:
        """How far the class is on its live ramp, as of `at` (UTC ms)."""
        return self._ramp.progress(asset_class, at, self._policies.sizing)

    def running(self, strategy: Strategy, asset_class: AssetClass) -> Strategy:
        """As it is to run here: with the parameters its latest certificate is for, as installed if it never had one for this code. What
        ended a permission does not change them: on paper goes on what was trading."""
        return self._fitted.get((strategy.name, asset_class), strategy)

    def standings(self, at: int) -> Mapping[Key, Standing]:
        """Every strategy that ever had a certificate."""
        standings = {}
        for key, found in self._granted.items():
            late = "" if at < found.expires_at else "expired"
            void = self._ended[key].reason if key in self._ended else self._void.get(key, late)
            standings[key] = Standing(found, void, certificates.days_left(found, at), self._watch[key].trades, self._watch[key].sum_r)
        return standings

    def adopt(self, policies: Policies) -> None:
        """Work by the owner's new numbers; a loosened cap or another cost voids what was certified with the old one."""
        self._policies = policies
        self._bound = {}
        self._check_all()

    # -- facts ----------------------------------------------------------------------------------------------------------------

    def apply(self, fact: Fact) -> None:
        self._ramp.apply(fact)
        handler = self._handlers.get(type(fact))
        if handler is not None:
            handler(fact)

    def _rejected(self, fact: StrategyRejected) -> None:
        if fact.verdict == "REJECTED":
            self._end((fact.strategy, fact.asset_class), fact.at, f"revalidation rejected it: {fact.missing}")

    def _revoked(self, fact: StrategyRevoked) -> None:
        self._end((fact.strategy, fact.asset_class), fact.at, f"revoked by {fact.by}: {fact.reason}")

    def _demoted(self, fact: StrategyDemoted) -> None:
        self._end((fact.strategy, fact.asset_class), fact.at, f"demoted to paper: {fact.reason}", demoted=True)

    def _anchored(self, fact: TrialsAnchored) -> None:
        if self._registries is not None:
            self._registries.remember(fact.asset_class, Anchor(fact.entries, fact.head))

    def _approved(self, fact: StrategyApproved) -> None:
        found = fact.certificate
        key = (found.strategy, found.asset_class)
        ended = self._ended.get(key)
        # What was demoted comes back only on evidence that holds what demoted it; other ends are lifted by any later certificate.
        if ended is not None and (found.data_until if ended.demoted else found.issued_at) > ended.at:
            del self._ended[key]
        known = self._granted.get(key)
        self._granted[key] = found
        if known is None or known.digest != found.digest:
            self._watch.begin(key, found.envelope, self._policies.learning.demotion)
        self._fit(key, found)

    def _fit(self, key: Key, found: Certificate) -> None:
        """From now on the strategy runs with the certified parameters, if it still is what was certified."""
        installed = self._installed.get(key)
        if installed is None or self._code_of(installed) != found.code_hash:
            return
        fitted, before = fingerprint.with_params(installed, found.params), self._fitted.get(key, installed)
        if fitted is None:
            return
        self._fitted[key] = fitted
        if self.on_fitted is not None and fitted.params != before.params:
            self.on_fitted(fitted, key[1])
            self._tell(f"{key[0]} ({key[1].value}) now runs with the parameters of its new certificate. It opens again after "
                       f"{fitted.warmup} bars on each instrument, or at once after a restart.")

    def _end(self, key: Key, at: int, reason: str, *, demoted: bool = False) -> None:
        if key in self._granted:
            self._ended[key] = Ended(at, reason, demoted)

    def on_fact(self, fact: Fact) -> None:
        """Demote whoever the monitors have had enough of, at the fact that showed it."""
        if isinstance(fact, PositionClosed | Filled | OrderCanceled | OrderExpired | OrderRejected):
            self._demote(fact.at)

    def on_drift(self, strategy: str, asset_class: AssetClass, found: demotion.Drift, at: int) -> None:
        """A replay of the bars that were traded live is to be compared; too many differences demote."""
        monitor = self._watch.get((strategy, asset_class))
        if monitor is not None:
            monitor.drift(found)
            self._demote(at)

    def _demote(self, at: int) -> None:
        for key, alarm in self._watch.alarms():
            if key not in self._ended:
                log.warning("strategy demoted to paper", action="strategy_demoted", strategy_id=key[0], asset_class=key[1].value,
                            watch=alarm.watch, measured=alarm.measured, limit=alarm.limit, reason=alarm.reason)
                self._journal.append(StrategyDemoted(at, *key, alarm.watch, alarm.measured, alarm.limit, alarm.reason))
                self._tell(f"{key[0]} ({key[1].value}) is demoted to paper: {alarm.reason}. {alarm.watch} {alarm.measured:.3g}, limit "
                           f"{alarm.limit:.3g}. Open positions are closed by their own rules.")

    def revoke(self, strategy: str, asset_class: AssetClass, *, at: int, by: str, reason: str) -> bool:
        """Take a permission back; False if there was none."""
        if (strategy, asset_class) not in self._granted or (strategy, asset_class) in self._ended:
            return False
        self._journal.append(StrategyRevoked(at, strategy, asset_class, by, reason))
        return True

    # -- time -------------------------------------------------------------------------------------------------------------------

    def start(self, at: int) -> None:
        """After the journal's replay: say whether the gate was weakened, and look at every certificate."""
        if said := gate.weakened(self._policies.validation):
            log.warning(said, action="gate_weakened")
            self._tell(said)
        self.tick(at)

    def tick(self, at: int) -> int | None:
        """Look at the folder, warn of what runs out, queue what is due, and demote what a crash kept from being demoted. Without a
        folder and a certificate nothing of that can come up."""
        if self._registries is not None:
            self._look_at_trials(self._registries, at)
        if self._folder is not None:
            self._scan(self._folder, at)
        self._demote(at)
        for key, found in self._granted.items():
            if key not in self._ended:
                self._warn(found, at)
                tried = self._tried.get((key, found.issued_at))
                if self._command is not None and at >= found.revalidate_at and (tried is None or at - tried >= DAY):
                    self._tried[key, found.issued_at] = at
                    self._due.put_nowait(found)
        return None if self._folder is not None or self._watch or self._granted else IDLE

    def _warn(self, found: Certificate, at: int) -> None:
        """Once per threshold (and once more after a restart)."""
        left = certificates.days_left(found, at)
        passed = [days for days in self._policies.validation.warn_days if left <= days]
        threshold = 0 if left <= 0 else min(passed, default=-1)
        issue = ((found.strategy, found.asset_class), found.issued_at)
        if threshold < 0 or self._warned.get(issue) == threshold:
            return
        self._warned[issue] = threshold
        said = f"expires in {left:.1f} days" if left > 0 else "has expired: no entries, exits run on"
        log.warning("certificate runs out", action="certificate_expiring", strategy_id=found.strategy, days_left=round(left, 2))
        self._tell(f"The certificate of {found.strategy} ({found.asset_class.value}) {said}. Next: main.py validate -s {found.strategy}")

    def _tell(self, words: str) -> None:
        if self._announce is not None:
            self._announce(words)

    # -- the trial registries -----------------------------------------------------------------------------------------------------

    def _look_at_trials(self, registries: Registries, at: int) -> None:
        """Have the journal remember how far they have come, and say when one is not the one it knows."""
        if registries.look():
            for asset_class, why in registries.faults.items():
                log.error("trial registry refused", action="trials_lost", asset_class=asset_class.value, reason=why)
                self._tell(f"{asset_class.value}: {why}. Until then no certificate of this class permits anything.")
            self._check_all()
        if at - self._anchored_at >= ANCHOR_MS:
            self._anchor(registries, at)

    def _anchor(self, registries: Registries, at: int) -> None:
        self._anchored_at = at
        for asset_class, found in registries.grown():
            self._journal.append(TrialsAnchored(at, asset_class, found.entries, found.head))

    # -- certificates on disk -----------------------------------------------------------------------------------------------------

    def _scan(self, folder: CertificateFolder, at: int) -> None:
        """Read files that are new or changed; bring into force what is newer than what we have."""
        looked = folder.look(again=bool(self.faults))
        if looked is None:
            return
        whole, faults = looked
        for path, found in whole:
            if fault := self._consider(found, path, at):
                faults.append(f"{path}: {fault}")
        for fault in faults:
            if fault not in self.faults:
                log.error("certificate refused", action="certificate_refused", reason=fault)
        self.faults = tuple(faults)
        self._check_all()

    def _consider(self, found: Certificate, path: Path, at: int) -> str:
        """Bring a certificate into force, or say why it cannot be; "" also for one that is known, expired or older."""
        key = (found.strategy, found.asset_class)
        known = self._granted.get(key)
        if known is not None and (known.digest == found.digest or known.issued_at >= found.issued_at):
            return ""
        if key not in self._installed:
            return f"is for {found.strategy} ({found.asset_class.value}), which does not run here; it permits nothing"
        if at >= found.expires_at:
            return ""
        if found.issued_at > at + SKEW_MS:
            return "is dated in the future; it permits nothing"
        longest = self._policies.validation.valid_days
        if found.expires_at - found.issued_at > longest * DAY:
            return f"is valid for {(found.expires_at - found.issued_at) / DAY:.0f} days, at most {longest} are allowed; it permits nothing"
        if faults := self._differences(key, found):
            return f"is not for what runs here: {'; '.join(faults)}"
        if self._registries is not None:
            self._registries.look()
            if why := self._registries.refuses(found.asset_class, found.digest):
                return why
            self._anchor(self._registries, at)
        self._journal.append(StrategyApproved(at, found, path.name))
        return ""

    def _differences(self, key: Key, found: Certificate) -> tuple[str, ...]:
        strategy = self._installed.get(key)
        if strategy is None:
            return ("this strategy does not run here",)
        if key[1] not in self._bound:
            self._bound[key[1]] = certificates.bound(self._policies, key[1])
        # It runs with whatever parameters of its own the certificate names (`running`); only those that cannot be its own are a fault.
        params = fingerprint.params_of(fingerprint.with_params(strategy, found.params) or strategy)
        return certificates.check(found, code_hash=self._code_of(strategy), params=params, policy=self._bound[key[1]])

    def _code_of(self, strategy: Strategy) -> str:
        if strategy.name not in self._hashes:
            self._hashes[strategy.name] = fingerprint.code_hash(strategy)
        return self._hashes[strategy.name]

    def _check_all(self) -> None:
        """Which journaled approvals hold for the code, parameters, policies and files there are now."""
        intact = self._folder.intact if self._folder is not None else frozenset()
        self._void = {}
        lost: Mapping[AssetClass, str] = self._registries.faults if self._registries is not None else {}
        for key, found in self._granted.items():
            if key[1] in lost:
                self._void[key] = lost[key[1]]
            elif self._folder is None or found.digest not in intact:
                self._void[key] = f"its file {found.file_name} is gone or damaged"
            elif faults := self._differences(key, found):
                self._void[key] = "; ".join(faults)

    # -- revalidation ---------------------------------------------------------------------------------------------------------------

    async def run(self, clock: Clock) -> None:
        """Tick every minute; validate what is due, one strategy after the other."""
        async with asyncio.TaskGroup() as group:
            group.create_task(clock.drive(TICK_S, self.tick), name="Validation_Manager tick")
            if self._command is not None:
                group.create_task(self._revalidate(clock, self._command), name="revalidation")
            if self._drift is not None:
                group.create_task(self._compare(clock, self._drift), name="live against replay")

    async def _compare(self, clock: Clock, command: Sequence[str]) -> None:
        """An hour after the start, and once a day: what the daemon decided beside what its strategies say over the bars it saw."""
        await clock.sleep_until(clock.now() + HOUR_MS)
        while True:
            try:
                ended = await child.run(command, timeout_s=DRIFT_S)
            except (OSError, ValueError) as error:
                ended = child.Ended(None, b"", str(error))
            self.compared(ended, clock.now())
            await clock.sleep_until(clock.now() + DAY)

    def compared(self, ended: child.Ended, at: int) -> None:
        """A comparison ended: its differences go to the monitors."""
        rows = drift_rows(ended.output)
        if rows is None:
            log.error("no comparison of live and replay", action="drift_failed", code=ended.code, reason=ended.errors[-300:])
            return
        for row in rows:
            log.info("live beside replay", action="drift_compared", strategy_id=row["strategy"], asset_class=row["asset_class"],
                     compared=row["compared"], different=row["different"], reason=row["why_not"] or row["first"])
            self.on_drift(row["strategy"], AssetClass(row["asset_class"]),
                          demotion.Drift(row["compared"], row["different"], row["first"]), at)

    async def _revalidate(self, clock: Clock, command: Command) -> None:
        while True:
            found = await self._due.get()
            log.info("revalidation begins", action="validation_started", strategy_id=found.strategy, asset_class=found.asset_class.value)
            try:
                over = ["--data", found.source] if found.source else []
                words = [*command(found.strategy, found.asset_class.value), *over]
                ended = await child.run(words, timeout_s=REVALIDATION_S)
            except (OSError, ValueError) as error:
                ended = child.Ended(None, b"", str(error))
            self.concluded(found, ended, clock.now())

    def concluded(self, found: Certificate, ended: child.Ended, at: int) -> None:
        """A revalidation ended: an approval is in the folder by now, anything else is journaled, nonsense is tried again in a day."""
        verdict, missing = verdict_on(ended.output, found)
        log.info("revalidation ended", action="validation_ended", strategy_id=found.strategy, verdict=verdict or "none", code=ended.code)
        if verdict == "APPROVED" and self._folder is not None:
            self._scan(self._folder, at)
        elif verdict in ("REJECTED", "INSUFFICIENT_EVIDENCE"):
            self._journal.append(StrategyRejected(at, found.strategy, found.asset_class, verdict, missing))
            self._tell(f"Revalidation of {found.strategy} ({found.asset_class.value}): {verdict.replace('_', ' ').lower()}. {missing}")
        else:
            log.error("revalidation gave no verdict", action="validation_failed", strategy_id=found.strategy, code=ended.code,
                      reason=ended.errors[-300:])
