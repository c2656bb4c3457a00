"""Named places where a test may make the process die, fail or stall, to prove that nothing is lost there. Off unless FAILPOINT is set.

    FAILPOINT=order.sent:kill          at the first visit: SIGKILL to ourselves, as a power cut would
    FAILPOINT=order.sent:raise@3       at the third visit: FailpointRaised
    FAILPOINT=fill.booked:sleep=2.5    at the first visit: block the whole process for 2.5 s
    FAILPOINT=a:kill@2,b:sleep         several, comma between

An unset variable costs one function call with nothing in it. Refuses a name that is not in POINTS: a misspelled failpoint tests nothing.
"""

from __future__ import annotations

import os
import re
import signal
import time
from typing import Final

from modules.domain.errors import BotError, ConfigurationError

POINTS: Final = {
    "journal.before_row": "every append: nothing on disk yet",
    "journal.uncommitted": "several facts at once: their rows are written and not committed, so none of them has happened",
    "journal.row_written": "every append: the row is on disk, no projection knows it",
    "journal.projected": "every append: the books know it, no reactor has acted",
    "entry.before_trade": "approved, and nothing of it journaled",
    "entry.intended": "trade and order are on disk, the order is not in the lane",
    "exit.before_intent": "a protective or closing order is wanted, nothing journaled",
    "exit.intended": "its intent is on disk, it is not in the lane",
    "follow_up.intended": "a spread's later leg is intended, not in the lane",
    "order.before_sent": "about to be sent, nothing journaled about it",
    "order.sent": "OrderSent is on disk, no byte has left",
    "order.answered": "the venue has answered, the answer is not on disk",
    "order.fate_booked": "its fate is on disk",
    "cancel.before": "a cancel is about to leave",
    "cancel.answered": "the cancel is answered, its effect not booked",
    "done.before": "the venue ended an order, not booked",
    "fill.before": "a fill is known, not booked",
    "fill.booked": "Filled is on disk, no reactor has acted on it",
    "protect.before": "filled, and the stop not yet placed",
    "protect.placed": "the stop is on its way",
    "protect.resize": "an outdated stop or target is about to be canceled",
    "exit.requested": "ExitRequested is on disk, no exit order",
    "close.before": "flat, PositionClosed not written",
    "close.written": "PositionClosed is on disk, other reactors have not acted",
    "halt.before": "a halt is latched in memory only",
    "halt.written": "TradingHalted is on disk, entries not yet canceled",
    "baseline.before": "a new day's or month's baseline is not written",
    "funding.before": "funding is known, not booked",
    "settlement.before": "an option's settlement is known, not booked",
    "transfer.before": "a transfer is known, not booked",
    "doubt.asking": "about to ask the venue what became of an order in doubt",
    "doubt.fenced": "absence fenced by a cancel, not yet booked",
    "start.replayed": "start: books rebuilt, nothing else",
    "start.restored": "start: the paper venue remembers, nothing written",
    "start.announced": "start: DaemonStarted is on disk",
    "start.opening": "start: the opening balances are booked",
    "start.recovered": "start: unfinished orders ended or in doubt",
    "start.reconciled": "start: compared and booked",
    "start.warmed": "start: everything but the first bar",
    "learning.before": "shadow trades were opened or closed, nothing of it journaled",
    "learning.written": "shadow facts are on disk and learned from, the next instant has not begun",
    "stop.before": "graceful end: entries not yet canceled",
}
"""Name -> what is and is not true there."""

_SPECIFICATION: Final = re.compile(
    r"(?P<name>[a-z_.]+):(?P<action>kill|raise|sleep)(?:(?<=sleep)=(?P<seconds>\d+(?:\.\d+)?))?(?:@(?P<visit>[1-9]\d*))?")


class FailpointRaised(BotError):
    """What the action `raise` raises."""


class _Armed:
    """One failpoint waiting for its visit."""

    __slots__ = ("action", "left", "seconds")

    def __init__(self, action: str, seconds: float, visit: int) -> None:
        self.action = action
        self.seconds = seconds
        self.left = visit


_armed: dict[str, _Armed] = {}


def arm(specification: str) -> None:
    """Replace what is armed by `specification` ("" = nothing). Raises ConfigurationError naming every part that makes no sense."""
    wanted: dict[str, _Armed] = {}
    faults: list[str] = []
    for part in filter(None, (piece.strip() for piece in specification.split(","))):
        found = _SPECIFICATION.fullmatch(part)
        if found is None:
            faults.append(f"FAILPOINT {part!r}: must be name:action or name:action@visit, action kill, raise, sleep or sleep=seconds")
        elif found["name"] not in POINTS:
            faults.append(f"FAILPOINT {part!r}: there is no {found['name']}; there are {', '.join(sorted(POINTS))}")
        else:
            wanted[found["name"]] = _Armed(found["action"], float(found["seconds"] or 1.0), int(found["visit"] or 1))
    if faults:
        raise ConfigurationError(faults)
    _armed.clear()
    _armed.update(wanted)


def hit(name: str) -> None:
    """The code is at the failpoint `name`."""
    if _armed:
        _visit(name)


def _visit(name: str) -> None:
    armed = _armed.get(name)
    if armed is None:
        return
    armed.left -= 1
    if armed.left:
        return
    del _armed[name]
    if armed.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if armed.action == "raise":
        raise FailpointRaised(f"failpoint {name}")
    time.sleep(armed.seconds)


arm(os.environ.get("FAILPOINT", ""))
