"""What the paper venue did before a restart, read back from the journal: its money, holdings, orders, fills and numbers.

A real venue outlives the daemon; this one lives in its memory, so the journal is all that is left of it. What the venue did and nobody
wrote down - an order accepted, a fill, a payment in the very instant of a crash - has not happened. Market time goes on from the last
fact: the steps up to it are not traded again. Refuses a journal that holds what this market or these wallets know nothing of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Protocol, runtime_checkable

from modules.domain.errors import ConfigurationError
from modules.domain.events import (
    BalanceAdjusted,
    Fact,
    Filled,
    ForeignFill,
    FundingBooked,
    InstrumentListed,
    OptionSettled,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderIntended,
    OrderRejected,
    OrderSent,
    TransferSeen,
)
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.market import Chain, Financing, FundingRate
from modules.domain.money import ONE, ZERO
from modules.domain.order import Fill, Order, OrderKind, OrderState
from modules.venues.paper_book import Execution, PaperBook
from modules.venues.paper_orders import Working
from modules.venues.protocol import FillSeen, MarketSource, Step

_NUMBER: Final = re.compile(r"[PT](\d+)")
_ENDS: Final[Mapping[type, OrderState]] = {
    OrderCanceled: OrderState.CANCELED, OrderExpired: OrderState.EXPIRED, OrderRejected: OrderState.REJECTED,
}


@runtime_checkable
class Resumable(Protocol):
    """A source that can go on in the middle without being asked for everything before."""

    def resume(self, at: int) -> Iterator[Step]:
        """The first step, at the last one not after `at`, restates marks, rates and chains known by then, and repeats the transfers of
        that instant; it has no bars. The others are those of `steps`. Between two of them `opening` is valid as ever."""
        ...


@dataclass(slots=True)
class Memory:
    """Everything an earlier run of the venue left. `at`: the latest time of any fact, UTC ms."""

    books: dict[AssetClass, PaperBook]
    latency_ms: int
    at: int = 0
    orders: dict[str, Working] = field(default_factory=dict)
    """All that were ever accepted, ended ones too: their ids must not be used again."""
    fills: list[FillSeen] = field(default_factory=list)
    numbers: int = 0
    """The highest that was given to an order or a fill."""
    transfers: set[str] = field(default_factory=set)
    """References of the transfers that are booked."""
    funded: set[str] = field(default_factory=set)
    """References of the funding and financing that is booked."""
    instruments: dict[str, Instrument] = field(default_factory=dict)
    """Everything that was ever traded, with its rules as they were then."""


class Reader:
    """Feeds facts into a Memory, oldest first: `take` is given the whole journal, in the same pass that rebuilds the books.

    `venue` is whose past it is. `wallets` are the opening books for classes the journal does not open itself; they are changed in place.
    `elsewhere` are the classes of other venues: their money is none of ours. `before_prices` are facts that may be written while the market
    cannot be heard: the time of the last of them is no time until when it was watched.
    `contract` gives the rules of an instrument the journal does not list. `take` raises ConfigurationError where the journal cannot be
    this venue's.
    """

    def __init__(
        self, venue: str, wallets: Mapping[AssetClass, PaperBook], latency_ms: int, contract: Callable[[str], Instrument | None],
        elsewhere: Collection[AssetClass] = (), before_prices: Collection[type[Fact]] = (),
    ) -> None:
        self.memory = self._memory = Memory(dict(wallets), latency_ms)
        self._venue = venue
        self._contract = contract
        self._elsewhere = frozenset(elsewhere)
        self._before_prices = frozenset(before_prices)
        self._instruments = self._memory.instruments
        self._intended: dict[str, Order] = {}
        self._sent_at: dict[str, int] = {}
        self._opened: set[AssetClass] = set()
        self._read: dict[type, Callable[[Any], None]] = {
            InstrumentListed: self._listed, OrderIntended: self._order_intended, OrderSent: self._order_sent,
            OrderAccepted: self._accepted, OrderCanceled: self._ended, OrderExpired: self._ended, OrderRejected: self._ended,
            Filled: self._filled, ForeignFill: self._foreign, FundingBooked: self._funded, OptionSettled: self._settled,
            TransferSeen: self._transferred, BalanceAdjusted: self._adjusted,
        }

    def take(self, fact: Fact) -> None:
        if type(fact) not in self._before_prices:
            self._memory.at = max(self._memory.at, fact.at)
        read = self._read.get(type(fact))
        if read is not None:
            read(fact)

    # -- orders -----------------------------------------------------------------------------------------------------------

    def _listed(self, fact: InstrumentListed) -> None:
        self._instruments[fact.instrument.symbol] = fact.instrument

    def _order_intended(self, fact: OrderIntended) -> None:
        if fact.order.venue == self._venue:
            self._intended[fact.order.client_order_id] = fact.order

    def _order_sent(self, fact: OrderSent) -> None:
        self._sent_at[fact.client_order_id] = fact.at

    def _accepted(self, fact: OrderAccepted) -> None:
        self._place(fact.client_order_id, fact.venue_order_id, fact.at)

    def _place(self, client_order_id: str, venue_order_id: str, at: int) -> Working | None:
        order, known = self._intended.get(client_order_id), self._memory.orders.get(client_order_id)
        if known is not None or order is None:
            return known
        self._count(venue_order_id)
        sent_at = self._sent_at.get(client_order_id, at)
        working = self._memory.orders[client_order_id] = Working(order, venue_order_id, at, sent_at + self._memory.latency_ms)
        return working

    def _ended(self, fact: OrderCanceled | OrderExpired | OrderRejected) -> None:
        working = self._memory.orders.get(fact.client_order_id)
        if working is not None and working.works:
            working.state = _ENDS[type(fact)]

    def _count(self, number: str) -> None:
        found = _NUMBER.fullmatch(number)
        if found is not None:
            self._memory.numbers = max(self._memory.numbers, int(found[1]))

    # -- money ------------------------------------------------------------------------------------------------------------

    def _filled(self, fact: Filled) -> None:
        fill = fact.fill
        if fill.venue != self._venue:
            return
        working = self._place(fill.client_order_id, "", fact.at)
        if working is not None:
            working.filled += fill.quantity
            working.triggered = working.order.kind is OrderKind.STOP
            if fact.order_done:
                working.state = OrderState.FILLED
        self._execute(fill, working.order.leverage if working is not None else ONE, fact.order_done)

    def _foreign(self, fact: ForeignFill) -> None:
        if fact.fill.venue == self._venue:
            self._execute(fact.fill, ONE, True)

    def _execute(self, fill: Fill, leverage: Decimal, done: bool) -> None:
        instrument = self._instruments.get(fill.symbol) or self._contract(fill.symbol)
        if instrument is None:
            raise ConfigurationError([f"the journal holds {fill.symbol}, which this market does not list: use another state folder"])
        self._count(fill.venue_trade_id)
        self._memory.fills.append(FillSeen(fill, done))
        in_base = instrument.asset_class is AssetClass.SPOT and fill.side is Side.BUY and fill.fee_currency == instrument.base
        self._book(instrument.asset_class).apply(Execution(
            instrument, fill.side, fill.quantity, fill.price, fill.settle_rate, fill.fee, in_base, leverage))

    def _book(self, asset_class: AssetClass) -> PaperBook:
        wallet = self._memory.books.get(asset_class)
        if wallet is None:
            raise ConfigurationError([f"the journal holds {asset_class} money, and no such wallet is set: use another state folder"])
        return wallet

    def _funded(self, fact: FundingBooked) -> None:
        if fact.venue == self._venue:
            self._memory.funded.add(fact.venue_ref)
            self._book(fact.asset_class).cash += fact.amount

    def _settled(self, fact: OptionSettled) -> None:
        wallet = self._book(AssetClass.OPTION)
        holding = wallet.holdings.get(fact.symbol)
        if fact.venue == self._venue and holding is not None:
            wallet.expire(holding.instrument, fact.value, fact.settle_rate, fact.fee)

    def _transferred(self, fact: TransferSeen) -> None:
        if fact.asset_class in self._elsewhere:
            return
        self._memory.transfers.add(fact.venue_ref)
        wallet = self._book(fact.asset_class)
        if fact.asset_class not in self._opened:
            self._opened.add(fact.asset_class)
            wallet.cash = ZERO  # the opening balance is a transfer too, and it is the journal's, not today's settings'
        wallet.cash += fact.amount

    def _adjusted(self, fact: BalanceAdjusted) -> None:
        """The books were made equal to the wallet of that moment: so that is what the wallet was."""
        if fact.asset_class in self._elsewhere:
            return
        wallet = self._book(fact.asset_class)
        if fact.currency == wallet.currency:
            wallet.cash += fact.amount
        elif fact.asset_class is AssetClass.SPOT:
            wallet.coins[fact.currency] = wallet.coins.get(fact.currency, ZERO) + fact.amount
        elif (holding := wallet.holdings.get(fact.currency)) is not None:
            share = ONE + fact.amount / holding.quantity
            holding.quantity += fact.amount
            holding.value *= share
            holding.worth *= share
            holding.margin *= share
            if not holding.quantity:
                del wallet.holdings[fact.currency]


def resumed(source: MarketSource, at: int) -> tuple[Step, Iterator[Step]]:
    """The market as known at the last step not after `at`, and the steps after it."""
    if isinstance(source, Resumable):
        steps = source.resume(at)
        return next(steps), steps
    return _caught_up(source, at)


def _caught_up(source: MarketSource, at: int) -> tuple[Step, Iterator[Step]]:
    """The same for a source that can only be walked through. It has moved on by then: no opening is known at the first step."""
    marks: dict[str, float] = {}
    funding: dict[str, FundingRate] = {}
    financing: dict[str, Financing] = {}
    chains: dict[str, Chain] = {}
    last = Step(source.start)
    steps = source.steps()

    def known() -> Step:
        return Step(last.at, (), tuple(marks.items()), tuple(funding.values()), tuple(financing.values()), tuple(chains.values()),
                    last.transfers)

    for step in steps:
        if step.at > at:
            return known(), _one_more(step, steps)
        last = step
        marks.update(step.marks)
        funding.update((rate.symbol, rate) for rate in step.funding)
        financing.update((rate.symbol, rate) for rate in step.financing)
        chains.update((chain.underlying, chain) for chain in step.chains)
    return known(), steps


def _one_more(first: Step, rest: Iterator[Step]) -> Iterator[Step]:
    yield first
    yield from rest


@runtime_checkable
class Forgetful(Protocol):
    """A venue that keeps everything in memory: at a start it is given its past back, before anything is asked of it."""

    def reader(self) -> Reader:
        """What reads the journal for this venue."""
        ...

    def recollect(self, memory: Memory) -> None:
        """Go on from there."""
        ...
