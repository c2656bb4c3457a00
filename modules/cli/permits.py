"""Whether real money may be traded, asked without a daemon: switches, certificates, the ramp; and the one change `go-live` may make.

Reads the live journal as it is; a change is made under the state folder's lock, so never beside a daemon. `gate` is what a live start
is held against.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modules.backtest import trial_anchor
from modules.domain import certificate as certificates
from modules.domain.certificate import Certificate, CertificateError
from modules.domain.errors import NotFound, OperatorRefused, StoreUnreadable
from modules.domain.events import Fact, PositionClosed, Scope, TradeAbandoned, TradeOpened
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.domain.ramp import LiveRamp, Progress
from modules.domain.settings import Settings, VenueSettings
from modules.Funds_Controller import FundsController
from modules.store.journal import Journal
from modules.store.lock import StateFolder
from modules.strategies import fingerprint, registry


def live_folder(settings: Settings) -> Path:
    return settings.state_dir / "live"


def venue_of(settings: Settings, asset_class: AssetClass) -> tuple[str, VenueSettings]:
    """The venue that trades a class. Raises NotFound."""
    found = next(((name, venue) for name, venue in settings.venues.items() if asset_class in venue.classes), None)
    if found is None:
        raise NotFound(f"no [venues.NAME] in the settings trades {asset_class.value}; new-config writes one")
    return found


def _past(settings: Settings) -> Iterator[Fact]:
    """What is on record of live trading; nothing before its first start."""
    path = live_folder(settings) / "journal.sqlite"
    if path.exists():
        with Journal(path, read_only=True) as journal:
            yield from (fact for _, fact in journal.facts())


def switches(settings: Settings, policies: Policies) -> FundsController:
    """As the live journal left them; before the first live start, as the policy has them. It takes no change."""
    funds = FundsController(_Nowhere(), policies.funds, {})  # type: ignore[arg-type]
    for fact in _past(settings):
        funds.apply(fact)
    return funds


def ramp(settings: Settings, policies: Policies, asset_class: AssetClass, at: int) -> Progress:
    made = LiveRamp()
    for fact in _past(settings):
        made.apply(fact)
    return made.progress(asset_class, at, policies.sizing)


def open_trades(settings: Settings) -> frozenset[str]:
    """Trades of the live journal that are not over."""
    found: set[str] = set()
    for fact in _past(settings):
        if isinstance(fact, TradeOpened):
            found.add(fact.trade_id)
        elif isinstance(fact, TradeAbandoned):
            found.discard(fact.trade_id)
        elif isinstance(fact, PositionClosed):
            found.discard(fact.trade.trade_id)
    return frozenset(found)


def certified(settings: Settings, policies: Policies, asset_class: AssetClass, at: int) -> tuple[list[str], list[str]]:
    """What may trade the class, one line per certificate in force; and why the others may not."""
    good: list[str] = []
    bad: list[str] = []
    folder = settings.state_dir / "certificates"
    installed = registry.all_strategies()
    policy = certificates.bound(policies, asset_class)
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            found = certificates.load(path)
        except CertificateError as error:
            bad.append(str(error))
            continue
        if found.asset_class is not asset_class:
            continue
        strategy, left = installed.get(found.strategy), certificates.days_left(found, at)
        if strategy is None:
            bad.append(f"{path.name}: {found.strategy} is not installed")
        elif not _counted(settings, found):
            bad.append(f"{path.name}: the trial registry knows of no approval that became it")
        elif left <= 0.0:
            bad.append(f"{path.name}: has expired")
        elif faults := certificates.check(found, code_hash=fingerprint.code_hash(strategy), policy=policy,
                                          params=fingerprint.params_of(fingerprint.with_params(strategy, found.params) or strategy)):
            bad.append(f"{path.name}: {faults[0]}")
        else:
            good.append(f"{found.strategy} on {len(found.instruments)} instruments, {left:.0f} days left")
    return good, bad


def _counted(settings: Settings, found: Certificate) -> bool:
    """Whether the trial registry says that it was earned here."""
    try:
        return trial_anchor.issued(trial_anchor.file_of(settings.state_dir / "validation", found.asset_class), found.digest)
    except StoreUnreadable:
        return False


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether a live daemon may start. Something still open is always looked after: then it starts, and opens nothing it may not."""

    refused: tuple[str, ...]
    """Why not, in plain words; () = it may."""
    warned: tuple[str, ...]
    """What it will not do, per class."""


def gate(settings: Settings, policies: Policies, at: int) -> Gate:
    """For mode live, before anything connects. A class without switch or certificate is not traded; without any class there is nothing
    to start for, unless trades are open from before."""
    funds, faults, ready = switches(settings, policies), [], 0
    for asset_class in (asset_class for venue in settings.venues.values() for asset_class in venue.classes):
        why = []
        if not (check := funds.switch_check(asset_class)).passed:
            why.append(f"its funds switches are not on ({check.note})")
        if not certified(settings, policies, asset_class, at)[0]:
            why.append("no strategy has a valid certificate for it")
        ready += not why
        if why:
            faults.append(f"{asset_class.value} will open nothing: {' and '.join(why)}; next: go-live {asset_class.value.lower()}")
    if ready or open_trades(settings):
        return Gate((), tuple(faults))
    return Gate((*faults, "mode live: no class may trade, so there is nothing to start for; paper needs none of this (--mode paper)"), ())


class _Nowhere:
    """The journal of a daemon that never ran: holds nothing and takes nothing."""

    def append(self, fact: object) -> None:
        raise OperatorRefused("there is no journal to write to")


def demand(settings: Settings, policies: Policies, asset_class: AssetClass) -> None:
    """Raises OperatorRefused while a switch forbids real orders of the class."""
    check = switches(settings, policies).switch_check(asset_class)
    if not check.passed:
        raise OperatorRefused(f"the funds switches forbid real orders ({check.note}); go-live {asset_class.value.lower()} says what is "
                              "missing and asks for them")


def switch_on(settings: Settings, policies: Policies, asset_class: AssetClass, at: int) -> None:
    """Journal the owner's yes for the class and the master switch, where they are off. Raises StateLocked beside a daemon."""
    with StateFolder(live_folder(settings)) as folder, Journal(folder.journal) as journal:
        funds = FundsController(journal, policies.funds, {})
        journal.project(funds.apply)
        journal.replay()
        if not funds.class_on(asset_class):
            funds.set_switch(Scope(asset_class.value), True, at, "go-live")
        if not funds.master_on:
            funds.set_switch(Scope.ALL, True, at, "go-live")
