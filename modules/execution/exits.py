"""How positions are closed: how patiently, and when a second exit may go beside one nobody has heard of. Decides only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from modules.domain.order import OrderState, Purpose
from modules.domain.policies import ExecutionPolicy
from modules.execution import structures
from modules.execution.lifecycle import Record, Trade

DOUBLINGS_MAX: Final = 16
"""Bounds the shift; exit_retry_longest_s is reached long before."""


def be_patient(trade: Trade, record: Record, policy: ExecutionPolicy, *, unseen: bool, bare: bool) -> None:
    """An exit ended without closing its leg: when the next may go. Patience grows only with what the venue had and did not fill; one that
    it never had waits no longer than an outage lasts, and not at all where nothing protects (`bare`): no stop under a position, nothing
    that covers what was sold. There, what the venue refuses is tried again within seconds, for it may take it by then."""
    symbol = record.order.symbol
    naked = bare and structures.made_of_legs(trade)
    tries = trade.exit_tries[symbol] = 1 if unseen or naked else trade.exit_tries.get(symbol, 0) + 1
    first_s, longest_s = (policy.resend_every_s, policy.exit_retry_s) if bare else (policy.exit_retry_s, policy.exit_retry_longest_s)
    wait_s = policy.resend_every_s if naked else min(first_s * 2 ** min(tries - 1, DOUBLINGS_MAX), longest_s)
    trade.exit_after[symbol] = record.order.at + (0 if unseen and bare else int(wait_s * 1000))


def may_be_lost(trade: Trade) -> bool:
    """Whether nobody knows what became of any of its exits, and no stop of its has been rejected (one more would be)."""
    working = trade.working(Purpose.EXIT)
    rejected = any(r.state is OrderState.REJECTED and r.order.purpose is Purpose.STOP for r in trade.records)
    return bool(working) and not rejected and all(record.state is OrderState.IN_DOUBT for record in working)


def beside(working: Sequence[Record], at: int, policy: ExecutionPolicy, speed: float) -> bool:
    """Whether another exit is due though some have been sent: nobody knows what became of any of them, and no stop protects meanwhile.
    Only for what cannot be sold twice (the caller sees to that). The pause grows with each."""
    if any(record.state is not OrderState.IN_DOUBT for record in working):
        return False
    pause_ms = policy.flatten_after_s / 2 * len(working) * 1000 * speed
    return at - max(record.order.at for record in working) >= pause_ms
