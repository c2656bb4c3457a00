"""What ccxt's errors mean for an order: one table, by (HTTP status, the venue's own code, cause), never by class alone.

ccxt's classes are hints: it calls "order creation timeout" an InvalidOrder and "system error" an ExchangeError. So the default is in
doubt; a refusal must be proven by a code on the venue's allow-list. Owns the table; decides nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple


class Meaning(StrEnum):
    REFUSED = "refused"
    """The venue said no; counts only with a listed code."""
    NOT_SENT = "not sent"
    IN_DOUBT = "in doubt"
    BUSY = "busy"
    """Not accepted: rate limit or ban. Silence until it is over."""
    SKEWED = "skewed"
    """Not accepted: our clock and the venue's differ."""
    DENIED = "denied"
    """Not accepted: the key is not allowed to."""
    EXISTED = "existed"
    """An order with this client id was there before: ask about it."""
    UNKNOWN_ORDER = "unknown order"
    """No proof of anything: ask about it."""


_M = Meaning
CLASSES: Final[Mapping[str, Meaning]] = {
    "BaseError": _M.IN_DOUBT, "ExchangeError": _M.IN_DOUBT, "AuthenticationError": _M.DENIED, "PermissionDenied": _M.DENIED,
    "AccountNotEnabled": _M.DENIED, "AccountSuspended": _M.DENIED, "ArgumentsRequired": _M.REFUSED, "BadRequest": _M.REFUSED,
    "BadSymbol": _M.REFUSED, "OperationRejected": _M.REFUSED, "NoChange": _M.REFUSED, "MarginModeAlreadySet": _M.REFUSED,
    "MarketClosed": _M.REFUSED, "ManualInteractionNeeded": _M.REFUSED, "RestrictedLocation": _M.DENIED, "InsufficientFunds": _M.REFUSED,
    "InvalidAddress": _M.IN_DOUBT, "AddressPending": _M.IN_DOUBT, "InvalidOrder": _M.REFUSED, "OrderNotFound": _M.UNKNOWN_ORDER,
    "OrderNotCached": _M.IN_DOUBT, "OrderImmediatelyFillable": _M.REFUSED, "OrderNotFillable": _M.REFUSED,
    "DuplicateOrderId": _M.EXISTED, "ContractUnavailable": _M.REFUSED, "NotSupported": _M.REFUSED, "InvalidProxySettings": _M.NOT_SENT,
    "ExchangeClosedByUser": _M.NOT_SENT, "OperationFailed": _M.IN_DOUBT, "NetworkError": _M.IN_DOUBT, "DDoSProtection": _M.BUSY,
    "RateLimitExceeded": _M.BUSY, "ExchangeNotAvailable": _M.IN_DOUBT, "OnMaintenance": _M.IN_DOUBT, "InvalidNonce": _M.SKEWED,
    "ChecksumError": _M.IN_DOUBT, "RequestTimeout": _M.IN_DOUBT, "BadResponse": _M.IN_DOUBT, "NullResponse": _M.IN_DOUBT,
    "CancelPending": _M.IN_DOUBT, "UnsubscribeError": _M.IN_DOUBT,
}
"""Every class of ccxt's error tree; a test walks the tree and fails on one that is missing here."""
LOCAL_REFUSALS: Final = frozenset({"ArgumentsRequired", "BadRequest", "BadSymbol", "InvalidOrder", "NotSupported", "ContractUnavailable"})
"""Raised by ccxt itself before anything is sent: the order can never go out as it is."""
NEVER_CONNECTED: Final = frozenset({"ClientConnectorError", "ClientConnectorDNSError", "ClientConnectorSSLError",
                                    "ClientConnectorCertificateError", "gaierror", "ConnectionRefusedError", "ConnectionTimeoutError"})
"""Names of causes that prove no connection was made."""


@dataclass(frozen=True, slots=True)
class CodeTable:
    """What one venue's own codes mean for a write, whatever class ccxt gives them. `pattern` finds the code in an error's text."""

    pattern: re.Pattern[str]
    codes: Mapping[str, Meaning]
    statuses: Mapping[int, Meaning]
    """HTTP statuses that mean something without a code."""
    ban_ms: int
    """How long to be silent after a ban that names no end."""
    pauses: Mapping[str, int] = field(default_factory=dict)
    """Codes of limits that are counted by the second -> how long to be silent after one, ms. Exits wait too, so no longer than that."""
    banned_until: re.Pattern[str] | None = None
    """Finds the end of a ban, UTC ms, in an error's text."""
    phrases: Mapping[str, Meaning] = field(default_factory=dict)
    """Words that mean something else than the listed code they come with."""


class Judgment(NamedTuple):
    meaning: Meaning
    code: str
    """The venue's own code, or "http 503", or the class's name."""
    proven: bool
    """Said by a code on the venue's list, or by the transport itself."""
    retry_after_ms: int | None
    until: int | None = None
    """UTC ms: the end of a ban, where the text says it."""


def judge(error: BaseException, table: CodeTable, *, sent: bool) -> Judgment:
    """What `error` says, and whether that is proof. `sent`: whether a request that writes had left before it was raised."""
    name = type(error).__name__
    status: int | None = getattr(error, "http_status", None)
    after: int | None = getattr(error, "retry_after_ms", None)
    said = getattr(error, "venue_said", "") or str(error) if status is not None else ""
    found = table.pattern.search(said)
    banned = table.banned_until.search(said) if table.banned_until is not None else None
    until = int(banned.group(1)) if banned is not None else None
    if found and found.group(1) in table.codes:
        meaning = next((other for words, other in table.phrases.items() if words in said), table.codes[found.group(1)])
        return Judgment(meaning, found.group(1), True, after, until)
    if type(error.__cause__).__name__ in NEVER_CONNECTED:
        return Judgment(Meaning.NOT_SENT, type(error.__cause__).__name__, True, None)
    code = found.group(1) if found else f"http {status}" if status is not None and status >= 300 else name
    meaning = table.statuses.get(status or 0) or CLASSES.get(name, Meaning.IN_DOUBT)
    if sent or meaning in (Meaning.BUSY, Meaning.DENIED, Meaning.SKEWED):
        return Judgment(meaning, code, False, after, until)
    if status is None and name in LOCAL_REFUSALS:
        return Judgment(Meaning.REFUSED, name, True, None)
    return Judgment(Meaning.NOT_SENT, code, True, after)
