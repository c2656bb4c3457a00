"""Errors we can handle, by name. Everything else is a bug and ends the process."""

from __future__ import annotations


class BotError(Exception):
    """Base of the errors this program raises on purpose."""


class ConfigurationError(BotError):
    """Settings, policies or data files are faulty. `faults` holds one line each: file, key, value, what is allowed. Exit code 4."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class DataError(ConfigurationError):
    """A market data file is unreadable, truncated, unsorted, duplicated or holds nonsense."""


class StateLocked(BotError):
    """Another daemon owns this state folder. Exit code 1."""


class JournalCorrupt(BotError):
    """The hash chain is broken: refuse to trade, say which row and how to restore."""


class JournalVersion(BotError):
    """The journal is of another version of this program than this one can open: nothing is wrong with it, and nothing was changed."""


class JournalUnwritable(BotError):
    """A fact could not be put on disk (disk full, I/O error, read-only): it did not happen, so nothing that depends on it may go out."""


class JournalBusy(JournalUnwritable):
    """Another connection kept the journal locked for longer than the time-out. The append may be tried again."""


class StoreUnreadable(BotError):
    """The decisions or candles file cannot be read. It holds nothing that trading needs: move it away and go on."""


class NotFound(BotError):
    """The thing asked for does not exist. Exit code 2."""


class DaemonNotRunning(BotError):
    """The control socket has nobody behind it. Exit code 3."""


class OperatorRefused(BotError):
    """An operator's command cannot be carried out, and why."""


class VenueError(BotError):
    """Base of what a venue adapter may raise from a *read*. Submits and cancels never raise: they return a Fate."""


class VenueUnreachable(VenueError):
    """No usable answer: time-out, refused connection, garbage. Retry later; counts toward API error escalation."""


class VenueDenied(VenueError):
    """Authentication or permission failure: halts every class on this venue at once."""


class VenueBusy(VenueError):
    """Rate limited or banned until `until` (UTC ms): no request to this host before that."""

    def __init__(self, message: str, until: int) -> None:
        self.until = until
        super().__init__(message)
