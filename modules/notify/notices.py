"""Which facts a person is told of, under which kind and how urgently. Never twice what was just said.

Remembers orders, to tell an entry's fill from an exit's and to say what became of one in doubt, and when it last spoke of a feed or of a
venue's errors: through a night of outage a person hears of it every quarter of an hour, with the number of what was left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from modules.domain.events import (
    ApiErrorSeen,
    BalanceAdjusted,
    BlackoutClosed,
    BlackoutOpened,
    BudgetChanged,
    ChallengerEntered,
    ChallengerJudged,
    EntriesPaused,
    EntriesResumed,
    ExitRequested,
    Fact,
    FeedLost,
    FeedRestored,
    Filled,
    ForeignFill,
    ForeignOrder,
    InstrumentsChosen,
    OperatorCommand,
    OptionSettled,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderInDoubt,
    OrderIntended,
    OrderRejected,
    PhaseChanged,
    PositionClosed,
    StrategyApproved,
    StrategyDemoted,
    StrategyRejected,
    StrategyRevoked,
    SwitchChanged,
    TradeAbandoned,
    TradeOpened,
    TradingHalted,
    TradingRearmed,
    TransferSeen,
    UnallocatedMoved,
)
from modules.domain.order import ExitReason, Purpose
from modules.notify.outbox import Rank
from modules.notify.render import sentence

KINDS: Final[Mapping[type, tuple[str, Rank]]] = {
    TradingHalted: ("kill", Rank.KILL), TradingRearmed: ("kill", Rank.KILL),
    Filled: ("exit_fill", Rank.FILL), OptionSettled: ("exit_fill", Rank.FILL), PositionClosed: ("exit", Rank.FILL),
    TradeOpened: ("entry", Rank.INFO),
    OrderInDoubt: ("warning", Rank.WARNING), OrderRejected: ("warning", Rank.WARNING), FeedLost: ("warning", Rank.WARNING),
    FeedRestored: ("warning", Rank.WARNING), ApiErrorSeen: ("warning", Rank.WARNING), ForeignFill: ("warning", Rank.WARNING),
    BalanceAdjusted: ("warning", Rank.WARNING), ForeignOrder: ("warning", Rank.WARNING), ExitRequested: ("warning", Rank.FILL),
    StrategyDemoted: ("warning", Rank.WARNING), StrategyRevoked: ("warning", Rank.WARNING), StrategyRejected: ("warning", Rank.WARNING),
    OrderAccepted: ("warning", Rank.WARNING), OrderCanceled: ("warning", Rank.WARNING), OrderExpired: ("warning", Rank.WARNING),
    TradeAbandoned: ("entry", Rank.INFO), StrategyApproved: ("status", Rank.INFO), ChallengerEntered: ("status", Rank.INFO),
    ChallengerJudged: ("status", Rank.INFO), UnallocatedMoved: ("status", Rank.INFO),
    PhaseChanged: ("status", Rank.INFO), SwitchChanged: ("status", Rank.INFO), BudgetChanged: ("status", Rank.INFO),
    TransferSeen: ("status", Rank.INFO), EntriesPaused: ("status", Rank.INFO), EntriesResumed: ("status", Rank.INFO),
    InstrumentsChosen: ("status", Rank.INFO),
    BlackoutOpened: ("blackout", Rank.INFO), BlackoutClosed: ("blackout", Rank.INFO), OperatorCommand: ("command", Rank.INFO),
}
ENDED: Final = (OrderAccepted, OrderCanceled, OrderExpired)
"""Worth a message only of an order that was in doubt."""
ORDERS_KEPT: Final = 5_000
SENTENCE_MAX: Final = 700
QUIET_MS: Final = 900_000
"""For how long one feed's or one venue's trouble is not told again."""


class Notice(NamedTuple):
    """`text` is plain. `key` is the same for notices of which only the latest matters."""

    kind: str
    rank: Rank
    text: str
    key: str


@dataclass(slots=True)
class _Told:
    """When a trouble was last told of, and how often it came back since."""

    at: int
    left_out: int = 0


class Notices:
    """`learn` every fact once (a projection), then ask `of` for those that are new."""

    def __init__(self) -> None:
        self._entries: dict[str, None] = {}
        self._doubted: dict[str, None] = {}
        self._resolved: dict[str, Fact] = {}
        self._symbols: dict[str, str] = {}
        self._told: dict[str, _Told] = {}

    def learn(self, fact: Fact) -> None:
        """A projection: which orders open, which are in doubt, what a trade is in."""
        if isinstance(fact, OrderIntended) and fact.order.purpose is Purpose.ENTRY:
            _keep(self._entries, fact.order.client_order_id, None)
        elif isinstance(fact, TradeOpened):
            _keep(self._symbols, fact.trade_id, fact.symbol)
        elif isinstance(fact, OrderInDoubt):
            _keep(self._doubted, fact.client_order_id, None)
        elif isinstance(fact, (*ENDED, OrderRejected)) and fact.client_order_id in self._doubted:
            del self._doubted[fact.client_order_id]
            _keep(self._resolved, fact.client_order_id, fact)

    def of(self, fact: Fact) -> Notice | None:
        """What to tell of it; None for what nobody waits for."""
        found = KINDS.get(type(fact))
        text = self._text(fact) if found is not None else None
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
        if key:
            said = self._again(key, fact, text)
            if said is None:
                return None
            text = said
        return Notice(kind, rank, text[:SENTENCE_MAX], key)

    def _text(self, fact: Fact) -> str | None:
        if isinstance(fact, ENDED):
            if self._resolved.get(fact.client_order_id) is not fact:
                return None
            became = {OrderAccepted: "it is at the venue", OrderCanceled: "it is canceled", OrderExpired: "it has expired"}[type(fact)]
            return f"No longer in doubt: order {fact.client_order_id}: {became}."
        if isinstance(fact, ExitRequested):
            if fact.reason is not ExitReason.EMERGENCY_EXIT:
                return None
            symbol = self._symbols.get(fact.trade_id, "")
            return f"{symbol}: no stop could be kept at the venue, so trade {fact.trade_id} is being closed now.".removeprefix(": ")
        if isinstance(fact, TradeAbandoned):
            return f"{self._symbols.get(fact.trade_id, 'a trade')}: the entry ended without a fill, nothing is held: {fact.reason}."
        return sentence(fact)

    def _again(self, key: str, fact: Fact, text: str) -> str | None:
        """`text`, or None while the same was told a moment ago. That a feed is back is told if its loss was."""
        told = self._told.get(key)
        if isinstance(fact, FeedRestored):
            return text if told is None or not told.left_out else None
        if told is not None and 0 <= fact.at - told.at < QUIET_MS:
            told.left_out += 1
            return None
        self._told[key] = _Told(fact.at)
        return text if told is None or not told.left_out else f"{text} ({told.left_out} more since the last message.)"


def _keep(known: dict[str, Any], key: str, value: object) -> None:
    known[key] = value
    if len(known) > ORDERS_KEPT:
        del known[next(iter(known))]
