"""What the daemon needs of a venue, and of a source of simulated prices. Adapters translate; they never decide."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple, Protocol, runtime_checkable

from modules.domain.instrument import AssetClass, Instrument
from modules.domain.market import Bar, Batch, Chain, Financing, FundingRate, Quote
from modules.domain.money import ZERO
from modules.domain.order import Fate, Fill, Order, OrderReport


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a venue can prove it does. Live trading on a venue that lacks one is refused, naming it."""

    set_client_id: bool
    query_by_client_id: bool
    trade_history_by_order: bool
    venue_stop: bool
    """A stop order that rests at the venue and really is one."""
    resting_target: bool
    """A take-profit may rest beside the stop without locking the holding twice."""
    reduce_only: bool
    shared_wallet: bool = False
    """One wallet for all its classes (a unified account): its cash is told as the first class's and divided here."""
    one_execution: bool = False
    """An order trades in one execution or not at all, so that one which is its last is all there will be."""
    in_process: bool = False
    """The paper venue: no wire between us, so its wallet is never stale."""


@dataclass(frozen=True, slots=True)
class ClassWallet:
    """What the venue holds for one asset class, as the venue counts it."""

    currency: str
    cash: Decimal
    """Settlement currency, free and locked together."""
    coins: Mapping[str, Decimal]
    """Other currencies held (base coins of spot positions, dust, fee coins)."""
    positions: Mapping[str, Decimal]
    """Signed quantity per PERP, OPTION or FOREX symbol."""


@dataclass(frozen=True, slots=True)
class Wallet:
    """One consistent snapshot of everything the venue holds for us at `at` (UTC ms)."""

    at: int
    classes: Mapping[AssetClass, ClassWallet]
    open_orders: Sequence[OrderReport]


# What happens to our account, as the venue reports it. At-least-once: duplicates are dropped by their keys.


class OrderDone(NamedTuple):
    """An order ended without (further) fills: canceled, expired or rejected after acceptance."""

    client_order_id: str
    at: int
    how: str
    """"canceled", "expired" or "rejected"."""
    reason: str
    filled: Decimal = ZERO
    """How much of it was filled before, as far as the venue says so: its end is not believed before these fills are booked."""


class FillSeen(NamedTuple):
    fill: Fill
    order_done: bool
    """Nothing of its order is left after it, as the venue counts. Executions before it may still be untold."""


class FundingPaid(NamedTuple):
    """Perp funding or FX financing booked by the venue; `amount` in settlement currency, positive = received."""

    venue: str
    symbol: str
    asset_class: AssetClass
    amount: Decimal
    rate: float
    at: int
    venue_ref: str


class Settled(NamedTuple):
    """An option expired (see domain.events.OptionSettled)."""

    venue: str
    symbol: str
    quantity: Decimal
    value: Decimal
    settle_rate: Decimal
    fee: Decimal
    at: int
    venue_ref: str


class Transferred(NamedTuple):
    asset_class: AssetClass
    amount: Decimal
    at: int
    venue_ref: str


AccountEvent = OrderDone | FillSeen | FundingPaid | Settled | Transferred


class Venue(Protocol):
    """An exchange or broker. Reads raise VenueError; `submit` and `cancel` never raise, they return a Fate."""

    name: str
    capabilities: Capabilities

    async def instruments(self) -> Sequence[Instrument]: ...

    async def history(self, symbol: str, until: int, bars: int) -> Sequence[Bar]:
        """The last `bars` bars closed at or before `until`, oldest first; fewer if the venue has fewer."""
        ...

    def interval_ms(self, symbol: str) -> int:
        """Length of the bars this venue streams for `symbol`."""
        ...

    def market_events(self) -> AsyncIterator[Batch]:
        """Closed bars, quotes and rates as they happen, one batch per instant, in time order. Ends only for recorded data."""
        ...

    def account_events(self) -> AsyncIterator[AccountEvent]: ...

    async def wallet(self) -> Wallet: ...

    async def submit(self, order: Order) -> Fate: ...

    async def cancel(self, order: Order) -> Fate:
        """Accepted = the cancel took effect or the order had already ended (an OrderDone or FillSeen event says which)."""
        ...

    async def order(self, client_order_id: str, symbol: str) -> OrderReport | None:
        """What became of one of our orders; None = the venue does not know it."""
        ...

    async def fills_since(self, at: int) -> Sequence[FillSeen]: ...

    async def missed(self, since: int | None = None) -> Sequence[AccountEvent]:
        """What the account went through since it was last told, here or by `account_events`, oldest first. Asked over the wire now.

        `since` (UTC ms) is said once, at the first call: until when the journal knows this account. None then = a new journal, whose
        past is its opening balance: that call tells nothing and later ones what happened after it. A venue without a wire tells nothing.
        """
        ...

    async def clock_offset_ms(self) -> int | None:
        """Our clock minus the venue's, give or take the way there; None = not measured, so nobody knows."""
        ...

    async def check(self) -> None:
        """Is this the account we may trade on? Asked at start. Raises VenueDenied with what is wrong and the remedy: the key's rights, the
        account's kind, currency or position mode; another VenueError where the venue cannot be asked."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class TellsContracts(Protocol):
    """A venue that knows the rules of each option contract it tells of."""

    def contract(self, symbol: str) -> Instrument | None:
        """None = it does not know it (yet)."""
        ...

    def silent(self) -> Sequence[str]:
        """What it should have told of options and has not, in words, one line each."""
        ...


# -- simulated prices -------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One instant of a price source, in time order. Bars CLOSED at `at`; rates settled and chains listed at `at`."""

    at: int
    bars: Sequence[tuple[str, Bar]] = ()
    marks: Sequence[tuple[str, float]] = ()
    funding: Sequence[FundingRate] = ()
    financing: Sequence[Financing] = ()
    chains: Sequence[Chain] = ()
    transfers: Sequence[tuple[AssetClass, Decimal]] = ()
    """Scripted deposits (+) and withdrawals (-), demo only."""
    ended: Sequence[str] = ()
    """Symbols whose trading ends with the bar that closed at `at`: the venue closes at that close what is still held of them."""


class MacroEvent(NamedTuple):
    """A scheduled release: `kind` is a key of news_policy.windows."""

    at: int
    kind: str
    title: str
    currency: str
    source: str


class MarketSource(Protocol):
    """Where simulated prices come from: the demo market or recorded files. Deterministic: iterating twice gives the same steps."""

    name: str
    instruments: Sequence[Instrument]
    """Everything but option contracts that appear later; those come with `contract`."""
    option_currency: str | None
    """What its option contracts settle in, known before the first is listed; None = there are none."""
    intervals_ms: Mapping[str, int]
    """Bar length per symbol."""
    start: int
    """Trading begins here; bars before are history only."""
    end: int
    macro_events: Sequence[MacroEvent]

    def steps(self) -> Iterator[Step]: ...

    def opening(self, symbol: str) -> Quote | None:
        """Bid and ask at which the bar that OPENS at the present step's `at` starts. None if no bar opens there (a hole, a weekend,
        the end): then nothing trades until one does. Only valid between two steps."""
        ...

    def history(self, symbol: str, until: int, bars: int) -> Sequence[Bar]: ...

    def contract(self, symbol: str) -> Instrument | None:
        """The rules of an option contract seen in a chain."""
        ...
