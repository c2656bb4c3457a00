"""How well one venue has been answering: counters for the kill switch's API escalation. Decides nothing by itself but says what tripped.

Errors are facts and survive a restart; good calls are only counted, so after a restart recovery is counted from the start again.
"""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from typing import Final, NamedTuple

from modules.domain.events import ApiErrorSeen, Trigger
from modules.domain.money import ZERO
from modules.domain.policies import KillSwitchPolicy

_SECOND: Final = 1_000


class Trip(NamedTuple):
    trigger: Trigger
    measured: str
    limit: str
    until: int | None
    reason: str


class VenueHealth:
    """Counters of one venue. Times are UTC ms."""

    __slots__ = (
        "_errors", "_good", "_kept_ms", "_probe_first", "_probe_last", "_probes", "_share_ms", "banned_until", "consecutive", "denied",
    )

    def __init__(self, policy: KillSwitchPolicy) -> None:
        self._share_ms = int(policy.api_calls_window_s * _SECOND)
        self._kept_ms = int(max(policy.api_calls_window_s, policy.api_errors_window_s) * _SECOND)
        self._errors: deque[int] = deque()
        self._good: deque[list[int]] = deque()
        """[second, good calls in it]"""
        self._probes = 0
        self._probe_first = 0
        self._probe_last = 0
        self.consecutive = 0
        self.banned_until = 0
        self.denied = ""
        """What the venue said when it refused our key; stays until an operator re-arms."""

    def good(self, at: int) -> None:
        """A call was answered."""
        self.consecutive = 0
        if not self._probes:
            self._probe_first = at
        self._probes += 1
        self._probe_last = at
        second = at // _SECOND
        if self._good and self._good[-1][0] == second:
            self._good[-1][1] += 1
            return
        self._good.append([second, 1])
        while self._good[0][0] * _SECOND <= at - self._share_ms:
            self._good.popleft()

    def bad(self, fact: ApiErrorSeen) -> None:
        """A call failed."""
        self.consecutive = fact.consecutive or self.consecutive + 1
        self._errors.append(fact.at)
        while self._errors[0] <= fact.at - self._kept_ms and len(self._errors) > 1:
            self._errors.popleft()
        if fact.kind == "authentication":
            self.denied = fact.message or "authentication refused"
        if fact.kind == "rate_limit" and fact.until is not None:
            self.banned_until = max(self.banned_until, fact.until)
        self.restart_probes()

    def started(self, at: int) -> None:
        """The daemon started. Good calls leave no trace in the journal, so failures in a row from long ago are not in a row any more."""
        if self._errors and at - self._errors[-1] >= self._kept_ms:
            self.consecutive = 0

    def restart_probes(self) -> None:
        """Recovery is counted from now on."""
        self._probes = 0

    def forgive(self) -> None:
        """An operator re-armed: what was, was. A ban stands, it is the venue's."""
        self.consecutive = 0
        self.denied = ""
        self._errors.clear()

    def recovered(self, policy: KillSwitchPolicy, at: int) -> bool:
        """Enough good calls over enough time since the last error, and no ban."""
        spread = (self._probe_last - self._probe_first) / _SECOND
        return at >= self.banned_until and self._probes >= policy.api_probes_good and spread >= policy.api_probes_window_s

    def trips(self, policy: KillSwitchPolicy, at: int) -> Trip | None:
        """The worst reason to halt now, or None."""
        if self.denied:
            return Trip(Trigger.API_AUTHENTICATION, "refused", "accepted", None, self.denied)
        if self.banned_until > at:
            return Trip(Trigger.API_ERRORS, f"banned until {self.banned_until}", "no ban", self.banned_until, "rate-limit ban")
        if self.consecutive >= policy.api_consecutive_failures_max:
            limit = f"{policy.api_consecutive_failures_max} consecutive failures"
            return Trip(Trigger.API_ERRORS, f"{self.consecutive} consecutive failures", limit, None, "consecutive failures")
        window = policy.api_errors_window_s
        recent = sum(1 for error in self._errors if at - error < window * _SECOND)
        if recent >= policy.api_errors_max:
            return Trip(Trigger.API_ERRORS, f"{recent} errors in {window:g} s", f"{policy.api_errors_max} errors", None, "error count")
        return self._share(policy, at)

    def _share(self, policy: KillSwitchPolicy, at: int) -> Trip | None:
        errors = sum(1 for error in self._errors if at - error < self._share_ms)
        calls = errors + sum(count for second, count in self._good if at - second * _SECOND < self._share_ms)
        if calls < policy.api_calls_min or not errors:
            return None
        share = Decimal(errors) / calls if calls else ZERO
        if share <= policy.api_error_share_max:
            return None
        measured = f"{errors} of {calls} calls failed in {policy.api_calls_window_s:g} s"
        return Trip(Trigger.API_ERRORS, measured, f"{policy.api_error_share_max * 100:f} %", None, "error share")
