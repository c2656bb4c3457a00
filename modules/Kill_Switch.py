"""Owns the trading state of every asset class: ACTIVE, or HALTED while at least one trigger is latched. Refuses new exposure; exits and
protective stops are never its business.

Triggers (domain.md section 4): daily and monthly drawdown on unitized net asset value, catastrophic slippage, failing venues, orders in
doubt, a runaway, the operator or a HALT file. Alone writes TradingHalted, TradingRearmed, BaselineRolled, PeakRaised, ApiErrorSeen.
Units, peaks, latched halts and counters are a projection of those facts, so that a crash changes none of them; only the last marks and
good calls live in memory. Periods derive from `at` in UTC and only ever move forward: a clock that jumps back rolls nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog

from modules.domain.canonical import digest
from modules.domain.errors import JournalUnwritable, OperatorRefused, VenueBusy, VenueDenied, VenueError
from modules.domain.events import (
    ApiErrorSeen,
    BalanceAdjusted,
    BaselineRolled,
    DaemonStarted,
    Fact,
    Filled,
    InstrumentListed,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderInDoubt,
    OrderIntended,
    OrderRejected,
    PeakRaised,
    Scope,
    TradingHalted,
    TradingRearmed,
    TransferSeen,
    Trigger,
)
from modules.domain.executions import Executions
from modules.domain.instrument import AssetClass
from modules.domain.ledger import counts_as_transfer
from modules.domain.money import ZERO
from modules.domain.policies import KillSwitchPolicy
from modules.domain.unit_value import DAY, DAY_MS, MONTH, UnitValue, day_start, month_start
from modules.domain.venue_health import VenueHealth
from modules.domain.view import TradingState
from modules.runtime import failpoint
from modules.runtime.clock import IDLE

if TYPE_CHECKING:
    from modules.runtime.clock import Clock
    from modules.store.journal import Journal

log = structlog.get_logger("Kill_Switch")

_MESSAGE: Final = 300
_SHORTEST_MONTH: Final = 28 * DAY_MS
_BY_OPERATOR_ONLY: Final = frozenset({Trigger.MONTHLY_DRAWDOWN, Trigger.API_AUTHENTICATION, Trigger.MANUAL})
_BASELINE_OF: Final = {Trigger.DAILY_DRAWDOWN: DAY, Trigger.MONTHLY_DRAWDOWN: MONTH}
_API: Final = frozenset({Trigger.API_ERRORS, Trigger.API_AUTHENTICATION})


class Latch(NamedTuple):
    """What is latched: several may hold one class at once, also the same trigger for two venues."""

    scope: Scope
    trigger: Trigger
    venue: str


_BY_FILE: Final = Latch(Scope.ALL, Trigger.MANUAL, "")


class KillSwitch:
    """See the module. `equity` gives a class's marked equity now (None = a price is missing). `halt_file`: its mere existence halts ALL.
    `venues`: which classes trade where, as far as instruments have not told yet; an unknown venue's faults halt ALL."""

    def __init__(
        self, journal: Journal, policy: KillSwitchPolicy, equity: Callable[[AssetClass], Decimal | None], halt_file: Path | None = None,
        venues: Mapping[str, frozenset[AssetClass]] | None = None,
    ) -> None:
        self._journal = journal
        self._policy = policy
        self._equity = equity
        self._halt_file = halt_file
        self._limits = {DAY: policy.drawdown_daily_max, MONTH: policy.drawdown_monthly_max}
        self._values = {asset_class: UnitValue() for asset_class in AssetClass}
        self._halts: dict[Latch, TradingHalted] = {}
        self._unwritten: set[Latch] = set()
        """Latched in memory, but the journal could not be written (yet)."""
        self._halted: frozenset[AssetClass] = frozenset()
        self._executions = Executions(policy)
        self._health: dict[str, VenueHealth] = {}
        self._classes: dict[str, set[AssetClass]] = {name: set(classes) for name, classes in (venues or {}).items()}
        self._handlers: dict[type, Callable[[Any], None]] = {
            TransferSeen: self._transfer_seen,
            BalanceAdjusted: self._balance_adjusted,
            BaselineRolled: self._baseline_rolled,
            PeakRaised: self._peak_raised,
            TradingHalted: self._trading_halted,
            TradingRearmed: self._trading_rearmed,
            InstrumentListed: self._listed,
            OrderIntended: self._order_intended,
            OrderAccepted: self._order_found,
            OrderRejected: self._order_ended,
            OrderCanceled: self._order_ended,
            OrderExpired: self._order_ended,
            OrderInDoubt: self._order_in_doubt,
            Filled: self._filled,
            ApiErrorSeen: self._api_error_seen,
            DaemonStarted: self._daemon_started,
        }
        self._found_at_start = self._halt_file_found()
        """Until the first tick has put it on record, nothing in the journal's past clears it."""
        if self._found_at_start:
            self._latch(self._by_file(0))

    def adopt(self, policy: KillSwitchPolicy) -> None:
        """Work by the owner's new limits from the next mark on; what is latched stays latched."""
        self._policy = policy
        self._limits = {DAY: policy.drawdown_daily_max, MONTH: policy.drawdown_monthly_max}
        self._window_ms = int(policy.slippage_window_s * 1000)

    # -- facts in, facts out ----------------------------------------------------------------------------------------------

    def apply(self, fact: Fact) -> None:
        """Projection."""
        handler = self._handlers.get(type(fact))
        if handler is not None:
            handler(fact)

    def on_fact(self, fact: Fact) -> None:
        """Reactor: trips on slippage, API errors and orders in doubt. At a start it looks again at what a crash may have cut off."""
        kind = type(fact)
        if kind is Filled:
            asset_class = self._executions.asset_class(fact.fill.client_order_id)  # type: ignore[union-attr]
            if asset_class is not None:
                self._check_slippage(asset_class, fact.at)
        elif kind is ApiErrorSeen:
            self._check_venue(fact.venue, fact.at)  # type: ignore[union-attr]
        elif kind is OrderInDoubt:
            self._check_doubt(fact.at)
        elif kind is DaemonStarted:
            for asset_class in AssetClass:
                self._check_slippage(asset_class, fact.at)
            for venue in tuple(self._health):
                self._check_venue(venue, fact.at)
            self._check_doubt(fact.at)

    # -- what others ask -------------------------------------------------------------------------------------------------

    def state(self, asset_class: AssetClass) -> TradingState:
        return TradingState.HALTED if asset_class in self._halted else TradingState.ACTIVE

    def halted_by(self, asset_class: AssetClass) -> str:
        """Every latched trigger that covers the class, with its numbers; "" if it is active."""
        return "; ".join(_told(fact) for fact in self._halts.values() if fact.scope.covers(asset_class))

    def halts(self) -> list[TradingHalted]:
        """Everything latched, oldest first."""
        return list(self._halts.values())

    def nav(self, asset_class: AssetClass) -> Decimal | None:
        """Value of a unit at the last believed mark, before the first of this run the last one a fact stated. None = books not open."""
        value = self._values[asset_class]
        return value.marked if value.marked is not None else value.known

    def drawdown(self, asset_class: AssetClass, period: str) -> Decimal:
        """Loss from the peak of the "day" or "month" as a fraction of it, by `nav`. Never negative."""
        value = self._values[asset_class]
        return max(ZERO, value.drawdown(period, value.nav)) if value.nav is not None else ZERO

    def day_peak(self, asset_class: AssetClass) -> Decimal | None:
        """The day's peak in settlement currency at the present units; None = books not open."""
        value = self._values[asset_class]
        return value.day_peak_money() if value.units else None

    def disbelieved(self, asset_class: AssetClass) -> int:
        """How many marks in a row were too far off to be believed. While it is not 0 the class's drawdown is not being watched."""
        return self._values[asset_class].disbelieved

    def state_hash(self) -> str:
        """sha256 over everything facts alone have made: live and replayed must agree."""
        values = {
            asset_class: (value.units, value.known, value.day_peak, value.month_peak, value.day_start, value.month_start)
            for asset_class, value in self._values.items()
        }
        return digest((values, self._halts, self._executions.slipped, self._executions.in_doubt))

    # -- marking ---------------------------------------------------------------------------------------------------------

    async def run(self, clock: Clock) -> None:
        """Look at everything twice a second for ever: a HALT file halts within one."""
        await clock.drive(0.5, self.tick)

    def tick(self, at: int) -> int | None:
        """Look for the HALT file, mark every class (which rolls baselines at UTC borders), re-arm what may re-arm by itself.

        Where the market only moves between `mark`s, as in a simulation, the next work is the next UTC day: that is answered unless
        there is a file to look for, something latched or disbelieved, or an option, whose worth goes with time."""
        if self._found_at_start or self._halt_file_found():
            self._found_at_start = False
            self._trip(self._by_file(at))
        for latch in tuple(self._unwritten):
            self._trip(self._halts[latch])
        for asset_class, value in self._values.items():
            if value.units:
                self.mark(asset_class, self._equity(asset_class), at)
        if self._halts:
            for latch, halt in tuple(self._halts.items()):
                why = self._may_rearm(latch, halt, at)
                if why:
                    self._write(TradingRearmed(at, latch.scope, latch.trigger, "kill_switch", why, latch.venue))
        if self._halt_file is not None or self._halts or self._values[AssetClass.OPTION].units:
            return None
        days = [value.day_start for value in self._values.values() if value.units]
        if any(value.disbelieved for value in self._values.values()) or any(at < day for day in days):
            return None
        return min(days, default=IDLE) + DAY_MS

    def mark(self, asset_class: AssetClass, equity: Decimal | None, at: int, *, confirmed: bool = False) -> None:
        """Take the class's equity: ratchet the peaks, roll the periods, trip.

        A mark of None is no mark. One whose unit value is more than mark_jump_max times (or under that part of) the last believed one
        is not believed unless `confirmed` by a second source. An `at` before the present day measures, but moves no baseline.
        """
        value = self._values[asset_class]
        if equity is None or not value.units:
            return
        if equity == value.equity and value.day_start <= at < value.day_start + DAY_MS:
            return
        nav = value.value_of(equity, None if confirmed else self._policy.mark_jump_max)
        if nav is None:
            value.disbelieved += 1
            value.equity = None
            return
        value.disbelieved = 0
        value.marked = nav
        self._roll(asset_class, value, nav, at)
        if at >= value.day_start and nav > min(value.day_peak, value.month_peak):
            self._write(PeakRaised(at, asset_class, nav))
        value.equity = equity
        self._check_drawdown(asset_class, value, nav, at)

    def _roll(self, asset_class: AssetClass, value: UnitValue, nav: Decimal, at: int) -> None:
        if at >= value.month_start + _SHORTEST_MONTH and month_start(at) > value.month_start:
            failpoint.hit("baseline.before")
            self._write(BaselineRolled(at, asset_class, MONTH, nav, "new UTC month"))
        if at >= value.day_start + DAY_MS:
            failpoint.hit("baseline.before")
            self._write(BaselineRolled(at, asset_class, DAY, nav, "new UTC day"))

    def _check_drawdown(self, asset_class: AssetClass, value: UnitValue, nav: Decimal, at: int) -> None:
        if value.within(nav, self._limits[DAY], self._limits[MONTH]):
            return
        for trigger, period in _BASELINE_OF.items():
            measured, limit = value.drawdown(period, nav), self._limits[period]
            if measured > limit:
                until = max(day_start(at), value.day_start) + DAY_MS if period == DAY else None
                reason = f"unit value {nav:.8f} is {measured * 100:.4f} % under the {period}'s peak of {value.peak(period):.8f}"
                self.halt(Scope(asset_class.value), trigger, at=at, measured=f"{measured * 100:.4f} %", limit=f"{limit * 100:.4f} %",
                          until=until, reason=reason)

    # -- halting and re-arming ---------------------------------------------------------------------------------------------

    def halt(
        self, scope: Scope, trigger: Trigger, *, at: int, measured: str = "", limit: str = "", until: int | None = None, reason: str = "",
        venue: str = "",
    ) -> bool:
        """Latch a halt; False if it already is (and not for longer). It holds in memory even if the journal cannot be written."""
        if trigger in _BY_OPERATOR_ONLY:
            until = None
        return self._trip(TradingHalted(at, scope, trigger, measured, limit, until, reason, venue))

    def _trip(self, fact: TradingHalted) -> bool:
        latch = Latch(fact.scope, fact.trigger, fact.venue)
        latched = self._halts.get(latch)
        if latched is not None and latch not in self._unwritten:
            longer = latched.until is not None and fact.until is not None and fact.until > latched.until
            if not longer:
                return False
        self._latch(fact)
        failpoint.hit("halt.before")
        return self._write(fact) or latched is None

    def _latch(self, fact: TradingHalted) -> None:
        latch = Latch(fact.scope, fact.trigger, fact.venue)
        self._halts[latch] = fact
        self._unwritten.add(latch)
        self._recount()

    def rearm(self, scope: Scope, *, at: int, by: str, reason: str) -> list[TradingHalted]:
        """An operator clears what is latched on `scope` (ALL: everything). Drawdown triggers start again from the present value.

        Raises OperatorRefused without a name or a reason, if nothing is latched there, while the HALT file exists, and if the present
        value of a class halted by drawdown is unknown. JournalUnwritable if it cannot be put on record: then nothing was re-armed.
        """
        if not by.strip() or not reason.strip():
            raise OperatorRefused("re-arming needs a name and a reason")
        chosen = [latch for latch in self._halts if scope is Scope.ALL or latch.scope is scope]
        if not chosen:
            wider = "; ALL is halted, re-arm ALL" if any(latch.scope is Scope.ALL for latch in self._halts) else ""
            raise OperatorRefused(f"nothing is halted for {scope}{wider}")
        if _BY_FILE in chosen and self._halt_file_found():
            raise OperatorRefused(f"remove the file {self._halt_file} first: while it exists everything stays halted")
        baselines = [
            (asset_class, _BASELINE_OF[latch.trigger], self._present_nav(asset_class))
            for latch in chosen if latch.trigger in _BASELINE_OF
            for asset_class in AssetClass if latch.scope.covers(asset_class) and self._values[asset_class].units
        ]
        cleared = [self._halts[latch] for latch in chosen]
        # Baselines first: a crash in between leaves the class halted, not armed against an old peak.
        for asset_class, period, nav in baselines:
            self._journal.append(BaselineRolled(at, asset_class, period, nav, f"re-armed by {by}: {reason}"))
        for latch in chosen:
            self._journal.append(TradingRearmed(at, latch.scope, latch.trigger, by, reason, latch.venue))
        return cleared

    def _present_nav(self, asset_class: AssetClass) -> Decimal:
        value = self._values[asset_class]
        equity = self._equity(asset_class)
        nav = value.value_of(equity, self._policy.mark_jump_max) if equity is not None else None
        if nav is None:
            raise OperatorRefused(f"{asset_class} cannot be re-armed: its present value is unknown (a price is missing or insane)")
        return nav

    def _may_rearm(self, latch: Latch, halt: TradingHalted, at: int) -> str:
        """Why a latched halt clears by itself now, "" if it does not."""
        trigger, due = latch.trigger, halt.until is not None and at >= halt.until
        if trigger in _BY_OPERATOR_ONLY:
            return ""
        covered = [asset_class for asset_class in AssetClass if latch.scope.covers(asset_class)]
        if trigger is Trigger.DAILY_DRAWDOWN:
            # Not before a sane mark has rolled the day's baseline: against the old peak it would trip again.
            values = [self._values[asset_class] for asset_class in covered]
            rolled = all(not value.units or value.day_start >= (halt.until or 0) for value in values)
            return "a new UTC day" if due and rolled else ""
        if trigger is Trigger.SLIPPAGE:
            left = sum(self._executions.catastrophes(asset_class, at) for asset_class in covered)
            return "" if left else "no catastrophic fill left in the window"
        if trigger is Trigger.API_ERRORS or trigger is Trigger.ORDERS_IN_DOUBT:
            return self._venue_recovered(latch, halt, at)
        return "its time is over" if due else ""

    def _venue_recovered(self, latch: Latch, halt: TradingHalted, at: int) -> str:
        if latch.trigger is Trigger.ORDERS_IN_DOUBT and len(self._executions.in_doubt) > self._policy.orders_in_doubt_max:
            return ""
        health = self._health_of(latch.venue)
        if halt.until is not None and at >= max(halt.until, health.banned_until) and health.trips(self._policy, at) is None:
            return "the ban is over"
        return "the venue answers again" if halt.until is None and health.recovered(self._policy, at) else ""

    # -- venues ----------------------------------------------------------------------------------------------------------

    def on_call(self, venue: str, at: int, ok: bool, kind: str, message: str, until: int | None = None) -> None:
        """How a call to a venue ended. `kind`: error, authentication or rate_limit (`until` = end of the ban, None = no ban)."""
        if ok:
            self._health_of(venue).good(at)
            return
        count = self._health_of(venue).consecutive + 1
        self._write(ApiErrorSeen(at, venue, kind, message[:_MESSAGE], until, count))

    def on_failure(self, venue: str, at: int, error: VenueError) -> None:
        """A read failed: our key is not accepted, the venue wants silence, or there was no usable answer."""
        if isinstance(error, VenueDenied):
            self.on_call(venue, at, False, "authentication", str(error))
        elif isinstance(error, VenueBusy):
            self.on_call(venue, at, False, "rate_limit", str(error), error.until)
        else:
            self.on_call(venue, at, False, "error", str(error))

    def _health_of(self, venue: str) -> VenueHealth:
        health = self._health.get(venue)
        if health is None:
            health = self._health[venue] = VenueHealth(self._policy)
        return health

    def _scopes_of(self, venue: str) -> list[Scope]:
        classes = self._classes.get(venue)
        return [Scope(asset_class.value) for asset_class in AssetClass if asset_class in classes] if classes else [Scope.ALL]

    def _check_venue(self, venue: str, at: int) -> None:
        trip = self._health_of(venue).trips(self._policy, at)
        if trip is None:
            return
        for scope in self._scopes_of(venue):
            self.halt(scope, trip.trigger, at=at, measured=trip.measured, limit=trip.limit, until=trip.until,
                      reason=f"{venue}: {trip.reason}", venue=venue)

    def _check_doubt(self, at: int) -> None:
        count, limit = len(self._executions.in_doubt), self._policy.orders_in_doubt_max
        if count <= limit:
            return
        for venue in sorted(set(self._executions.in_doubt.values())):
            for scope in self._scopes_of(venue):
                self.halt(scope, Trigger.ORDERS_IN_DOUBT, at=at, measured=f"{count} orders in doubt", limit=str(limit),
                          reason=f"{venue}: nobody knows what became of {count} orders", venue=venue)

    # -- slippage --------------------------------------------------------------------------------------------------------

    def _check_slippage(self, asset_class: AssetClass, at: int) -> None:
        count, limit = self._executions.catastrophes(asset_class, at), self._policy.slippage_events_max
        if count and count >= limit:
            hours = self._policy.slippage_window_s / 3600
            self.halt(Scope(asset_class.value), Trigger.SLIPPAGE, at=at, measured=f"{count} catastrophic fills in {hours:g} h",
                      limit=str(limit), reason="fills far worse than the price at the decision")

    # -- writing ---------------------------------------------------------------------------------------------------------

    def _write(self, fact: Fact) -> bool:
        """Append, or go on without: what watches over the money must not die of a full disk. An unwritten halt holds in memory."""
        try:
            self._journal.append(fact)
        except JournalUnwritable as error:
            log.error("fact not written", action=type(fact).__name__, reason=str(error))
            return False
        return True

    def _halt_file_found(self) -> bool:
        try:
            return self._halt_file is not None and self._halt_file.exists()
        except OSError:
            return True  # a state folder that cannot be read is no state to trade in

    def _by_file(self, at: int) -> TradingHalted:
        return TradingHalted(at, Scope.ALL, Trigger.MANUAL, "HALT file", "no file", None, "a file HALT is in the state folder")

    def _recount(self) -> None:
        self._halted = frozenset(c for c in AssetClass if any(latch.scope.covers(c) for latch in self._halts))

    # -- projection: value -----------------------------------------------------------------------------------------------

    def _transfer_seen(self, fact: TransferSeen) -> None:
        self._values[fact.asset_class].buy(fact.amount, fact.equity_before, self._policy.mark_jump_max, fact.at)

    def _balance_adjusted(self, fact: BalanceAdjusted) -> None:
        value = self._values[fact.asset_class]
        value.equity = None
        if counts_as_transfer(fact):
            value.buy(fact.amount, fact.equity_before, self._policy.mark_jump_max, fact.at)

    def _baseline_rolled(self, fact: BaselineRolled) -> None:
        self._values[fact.asset_class].roll(fact.period, fact.nav, fact.at)

    def _peak_raised(self, fact: PeakRaised) -> None:
        self._values[fact.asset_class].raise_peak(fact.nav)

    # -- projection: halts and counters ------------------------------------------------------------------------------------

    def _trading_halted(self, fact: TradingHalted) -> None:
        latch = Latch(fact.scope, fact.trigger, fact.venue)
        self._halts[latch] = fact
        if not (self._found_at_start and latch == _BY_FILE):
            self._unwritten.discard(latch)
        if fact.venue:
            self._health_of(fact.venue).restart_probes()
        self._recount()

    def _trading_rearmed(self, fact: TradingRearmed) -> None:
        latch = Latch(fact.scope, fact.trigger, fact.venue)
        if not (self._found_at_start and latch == _BY_FILE):
            self._halts.pop(latch, None)
            self._unwritten.discard(latch)
        if fact.trigger is Trigger.SLIPPAGE:
            for asset_class in AssetClass:
                if fact.scope.covers(asset_class):
                    self._executions.forgive(asset_class)
        # A venue that halts several classes is forgiven when the last of them is re-armed.
        if fact.trigger in _API and not any(other.venue == fact.venue and other.trigger in _API for other in self._halts):
            self._health_of(fact.venue).forgive()
        self._recount()

    def _listed(self, fact: InstrumentListed) -> None:
        self._classes.setdefault(fact.instrument.venue, set()).add(fact.instrument.asset_class)

    def _order_intended(self, fact: OrderIntended) -> None:
        self._executions.intended(fact.order)
        self._classes.setdefault(fact.order.venue, set()).add(fact.order.asset_class)

    def _order_in_doubt(self, fact: OrderInDoubt) -> None:
        self._executions.doubted(fact)

    def _order_found(self, fact: OrderAccepted) -> None:
        self._executions.found(fact.client_order_id)

    def _order_ended(self, fact: OrderRejected | OrderCanceled | OrderExpired) -> None:
        self._executions.ended(fact.client_order_id)

    def _filled(self, fact: Filled) -> None:
        self._executions.filled(fact)

    def _daemon_started(self, fact: DaemonStarted) -> None:
        for health in self._health.values():
            health.started(fact.at)

    def _api_error_seen(self, fact: ApiErrorSeen) -> None:
        self._health_of(fact.venue).bad(fact)


def _told(fact: TradingHalted) -> str:
    """One halt in words: what, how much against which limit, until when."""
    what = f"{fact.scope} {fact.trigger}"
    numbers = f" {fact.measured} (limit {fact.limit})" if fact.measured else ""
    until = f" until {datetime.fromtimestamp(fact.until // 1000, tz=UTC):%Y-%m-%d %H:%M} UTC" if fact.until is not None else ""
    return f"{what}{numbers}{until}: {fact.reason}" if fact.reason else f"{what}{numbers}{until}"


__all__ = ["DAY", "MONTH", "KillSwitch", "Latch"]
