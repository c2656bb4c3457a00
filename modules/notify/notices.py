"""Which facts a person is told of, under which kind and how urgently. Remembers orders, to tell an entry's fill from an exit's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from modules.domain.events import (
    ApiErrorSeen,
    BalanceAdjusted,
    BlackoutClosed,
    BlackoutOpened,
    BudgetChanged,
    EntriesPaused,
    EntriesResumed,
    Fact,
    FeedLost,
    FeedRestored,
    Filled,
    ForeignFill,
    OperatorCommand,
    OptionSettled,
    OrderInDoubt,
    OrderIntended,
    OrderRejected,
    PhaseChanged,
    PositionClosed,
    SwitchChanged,
    TradeOpened,
    TradingHalted,
    TradingRearmed,
    TransferSeen,
)
from modules.domain.order import Purpose
from modules.notify.outbox import Rank
from modules.notify.render import sentence

KINDS: Final[Mapping[type, tuple[str, Rank]]] = {
    TradingHalted: ("kill", Rank.KILL), TradingRearmed: ("kill", Rank.KILL),
    Filled: ("exit_fill", Rank.FILL), OptionSettled: ("exit_fill", Rank.FILL), PositionClosed: ("exit", Rank.FILL),
    TradeOpened: ("entry", Rank.INFO),
    OrderInDoubt: ("warning", Rank.WARNING), OrderRejected: ("warning", Rank.WARNING), FeedLost: ("warning", Rank.WARNING),
    FeedRestored: ("warning", Rank.WARNING), ApiErrorSeen: ("warning", Rank.WARNING), ForeignFill: ("warning", Rank.WARNING),
    BalanceAdjusted: ("warning", Rank.WARNING),
    PhaseChanged: ("status", Rank.INFO), SwitchChanged: ("status", Rank.INFO), BudgetChanged: ("status", Rank.INFO),
    TransferSeen: ("status", Rank.INFO), EntriesPaused: ("status", Rank.INFO), EntriesResumed: ("status", Rank.INFO),
    BlackoutOpened: ("blackout", Rank.INFO), BlackoutClosed: ("blackout", Rank.INFO), OperatorCommand: ("command", Rank.INFO),
}
ORDERS_KEPT: Final = 5_000
SENTENCE_MAX: Final = 700


class Notice(NamedTuple):
    """`text` is plain. `key` is the same for notices of which only the latest matters."""

    kind: str
    rank: Rank
    text: str
    key: str


class Notices:
    def __init__(self) -> None:
        self._entries: dict[str, None] = {}

    def learn(self, fact: Fact) -> None:
        """A projection: which orders open."""
        if isinstance(fact, OrderIntended) and fact.order.purpose is Purpose.ENTRY:
            self._entries[fact.order.client_order_id] = None
            if len(self._entries) > ORDERS_KEPT:
                del self._entries[next(iter(self._entries))]

    def of(self, fact: Fact) -> Notice | None:
        """What to tell of it; None for what nobody waits for."""
        found = KINDS.get(type(fact))
        text = sentence(fact) if found is not None else None
        if found is None or text is None:
            return None
        kind, rank = found
        if isinstance(fact, Filled) and fact.fill.client_order_id in self._entries:
            kind = "entry_fill"
        key = ""
        if isinstance(fact, (FeedLost, FeedRestored)):
            key = f"feed {fact.symbol}"
        elif isinstance(fact, ApiErrorSeen):
            key = f"api {fact.venue} {fact.kind}"
        return Notice(kind, rank, text[:SENTENCE_MAX], key)
