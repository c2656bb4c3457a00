"""What differs between the exchanges behind ccxt: codes, the shape of replies, which parameter really means what, how to ask.

`CcxtVenue` is the same for all; a `Dialect` translates for one. Owns the contract between them and what every dialect's schema needs.
A row that is not exactly what the interface promises is refused: money is taken from the wire's own text, never from ccxt's floats.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from modules.domain.errors import VenueUnreachable
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.market import Chain, FundingRate
from modules.domain.money import money
from modules.domain.order import Order, OrderReport
from modules.runtime.clock import Clock
from modules.venues.ccxt_client import Endpoint, Pace
from modules.venues.ccxt_errors import CodeTable
from modules.venues.protocol import Capabilities, FillSeen, FundingPaid, OrderDone, Settled, Transferred


class Tick(NamedTuple):
    """What one message of a price stream says; None = nothing about that."""

    bid: float | None = None
    ask: float | None = None
    mark: float | None = None
    funding: FundingRate | None = None


class Chains(NamedTuple):
    """What is looked at of a venue's options, and how often: a venue lists hundreds of contracts nobody here would trade."""

    days_max: float = 45.0
    """Expiries up to so many days away."""
    reach: float = 0.25
    """Strikes up to this share of the index away from it."""
    every_s: float = 10.0
    believed_s: float = 30.0
    """A chain that was heard longer ago opens nothing."""


class Account(NamedTuple):
    """One wallet at the venue and the classes that share it."""

    classes: tuple[AssetClass, ...]
    coins: dict[str, Decimal]
    """Free and locked together, by coin; without unrealized results."""


class Creation(NamedTuple):
    """Arguments of ccxt's create_order."""

    kind: str
    side: str
    price: str | None
    parameters: dict[str, Any]


class Adapter(Protocol):
    """What a dialect may use of the adapter it speaks for."""

    name: str
    classes: tuple[AssetClass, ...]
    symbols: tuple[str, ...]
    timeframe: str
    clock: Clock
    data: Any
    """The client for market data."""

    @property
    def trading(self) -> bool:
        """There is a key."""
        ...

    def private(self) -> Any:
        """The client that trades. Raises VenueDenied when there is no key."""
        ...

    async def read(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """The answer to a question, foreign errors as ours."""
        ...

    async def find(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """The same; None where the venue proves by a listed code that there is no such order."""
        ...

    async def instruments(self) -> Sequence[Instrument]:
        """Everything tradable of our classes, asked for anew."""
        ...

    async def list_options(self, coin: str) -> None:
        """List what there is of a coin's options now, and ask for nothing else."""
        ...

    async def known(self) -> Mapping[str, Instrument]: ...

    def ids(self, asset_class: AssetClass) -> Mapping[str, str]:
        """The venue's own id -> our symbol, of everything listed now."""
        ...

    def symbol(self, asset_class: AssetClass, market_id: str) -> str:
        """Raises VenueUnreachable for a market we do not know: guessing one would book the wrong thing."""
        ...

    async def rate(self, coin: str, into: str) -> Decimal:
        """What a third coin is worth now."""
        ...

    async def history(self, symbol: str, until: int, bars: int) -> Sequence[Any]: ...


class KeyFacts(NamedTuple):
    """What decides how long and from where a key works. None = the venue does not tell."""

    addresses: int | None = None
    """How many addresses it is bound to; 0 = it works from anywhere."""
    expires_at: int | None = None
    """UTC ms."""


class Dialect(Protocol):
    """One exchange. A dialect may remember what it was told, so each adapter has its own.

    What asks raises VenueError; an answer that is not as promised is VenueUnreachable, never an empty one.
    """

    name: str
    """ccxt's name of the exchange, and ours."""
    settle: str
    """The coin our ledgers count in there."""
    options: Mapping[str, Any]
    """Of the ccxt client."""
    data_pace: Pace
    """Of the client for market data."""
    trade_pace: Pace
    """Of the client for the account's questions; orders keep to it by themselves, apart from the questions."""
    codes: CodeTable
    trades: bool
    """False: market data only, whatever key there is."""

    def capabilities(self, classes: Sequence[AssetClass]) -> Capabilities: ...

    def fault_in(self, reply: object, url: str) -> str:
        """What is wrong with a reply's envelope, "" = nothing. Called under ccxt's parsers for every answer."""
        ...

    def point(self, client: Any, endpoint: Endpoint) -> None:
        """Turn the client's addresses to another host."""
        ...

    async def learn(self, venue: Adapter) -> None:
        """What must be known of the markets beside ccxt's list of them. Asked before instruments are made."""
        ...

    def instrument(self, symbol: str, market: Mapping[str, Any], asset_class: AssetClass, maker_fee: Decimal, taker_fee: Decimal
                   ) -> Instrument | None:
        """From ccxt's market and its raw row; None = not one we can trade (another settlement)."""
        ...

    # -- market data ------------------------------------------------------------------------------------------------------

    def candles(self, venue: Adapter, symbol: str) -> Callable[[], Awaitable[Sequence[Any]]]:
        """Wait for the next candles of `symbol` as ccxt gives them, the forming one last."""
        ...

    def ticks(self, venue: Adapter, symbol: str) -> Sequence[Callable[[], Awaitable[Tick]]]:
        """Each waits for the next message of one stream about `symbol`."""
        ...

    def carries(self, url: str, symbol: str) -> bool:
        """Whether the public websocket at `url` may carry news of `symbol`: what to open anew after silence."""
        ...

    # -- private streams --------------------------------------------------------------------------------------------------

    def private_socket(self, url: str) -> bool: ...

    def relogin(self, client: Any) -> None:
        """The private streams were found deaf: what to forget so that they are opened with a fresh login."""
        ...

    def fill_streams(self, venue: Adapter) -> Sequence[Callable[[], Awaitable[Any]]]:
        """Each waits until ccxt has heard of another fill; ccxt's `myTrades` then holds it."""
        ...

    def order_streams(self, venue: Adapter) -> Sequence[Callable[[], Awaitable[Any]]]: ...

    async def streamed_fill(self, venue: Adapter, trade: Mapping[str, Any]) -> FillSeen | None:
        """One of ccxt's `myTrades`; None = of no class of ours."""
        ...

    def streamed_end(self, venue: Adapter, order: Mapping[str, Any]) -> OrderDone | None:
        """One of ccxt's `orders` that ended without further fills; None = it has not, or is not ours."""
        ...

    # -- the account ------------------------------------------------------------------------------------------------------

    async def check_key(self, venue: Adapter) -> None:
        """Raises VenueDenied for a key that may move money away, or an account that is not of the kind we speak to."""
        ...

    async def key_facts(self, venue: Adapter) -> KeyFacts:
        """What the venue says of the key beside its rights, for `doctor`."""
        ...

    async def check_mode(self, venue: Adapter) -> None:
        """Raises VenueDenied unless positions are kept one-way, as our orders say."""
        ...

    async def accounts(self, venue: Adapter) -> Sequence[Account]: ...

    async def positions(self, venue: Adapter) -> Mapping[str, Decimal]:
        """Signed quantity by symbol."""
        ...

    async def open_orders(self, venue: Adapter, asset_class: AssetClass) -> Sequence[OrderReport]:
        """Resting and conditional ones, the owner's own too (without a client order id)."""
        ...

    async def order(self, venue: Adapter, client_order_id: str, instrument: Instrument) -> OrderReport | None: ...

    async def fills_since(self, venue: Adapter, at: int) -> Sequence[FillSeen]:
        """Every fill at or after `at` (UTC ms), liquidations too, in any order."""
        ...

    async def funding_since(self, venue: Adapter, at: int) -> Sequence[FundingPaid]: ...

    async def transfers_since(self, venue: Adapter, at: int) -> Sequence[Transferred]:
        """Deposits (+) and withdrawals (-) of the settlement coin."""
        ...

    # -- orders -----------------------------------------------------------------------------------------------------------

    def creation(self, order: Order, market: Mapping[str, Any]) -> Creation:
        """A stop is a conditional order of the venue's own engine, never a market order with a hint. Raises ValueError if it has none."""
        ...

    def cancellations(self, order: Order) -> Sequence[dict[str, Any]]:
        """ccxt's cancel_order parameters that name the order, for each drawer it may lie in, likeliest first."""
        ...

    def acknowledged(self, raw: object, order: Order, parameters: Mapping[str, Any]) -> str:
        """The venue's order id from the answer to a create or cancel (with `parameters`); "" = it proves nothing."""
        ...

    async def prepare(self, venue: Adapter, order: Order) -> None:
        """What must be so before an opening perpetual order: its leverage. Raises what ccxt raises, or VenueError."""
        ...


@runtime_checkable
class TellsChains(Protocol):
    """A dialect whose exchange has options that we speak of."""

    option_coins: Sequence[str]
    """Of which coins they are listed and looked at."""

    def gone(self, symbol: str) -> Instrument | None:
        """A contract that may be listed no more, as its own name tells it: enough to ask about orders in it. None = no contract's name."""
        ...

    async def chain(self, venue: Adapter, underlying: str, bounds: Chains, kept: Collection[str]) -> Chain:
        """The options of `underlying` now, within the bounds; `kept` symbols whatever these say. `spot` is the venue's index."""
        ...

    async def delivered(self, venue: Adapter, instrument: Instrument) -> Decimal | None:
        """The price of the underlying at which this contract's expiry was settled; None = the venue does not say yet."""
        ...

    async def settled_since(self, venue: Adapter, at: int) -> Sequence[Settled]:
        """What of ours was delivered at or after `at` (UTC ms)."""
        ...


# -- schemas ------------------------------------------------------------------------------------------------------------------


def text_only(value: object) -> Decimal:
    """Money as text, finite. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("money is text on this wire")
    return money(value)


def dated(value: object) -> bool:
    """A UTC ms timestamp in text."""
    return isinstance(value, str) and re.fullmatch(r"\d{12,14}", value) is not None


def stamped(value: object) -> bool:
    """A UTC ms timestamp as a number."""
    return isinstance(value, int) and not isinstance(value, bool) and 10**11 < value < 10**14


def _moment(value: object) -> int:
    if not dated(value):
        raise ValueError("not a UTC ms timestamp in text")
    return int(str(value))


def _stamp(value: object) -> int:
    if not stamped(value):
        raise ValueError("not a UTC ms timestamp")
    return int(str(value))


Amount = Annotated[Decimal, BeforeValidator(text_only)]
Positive = Annotated[Decimal, BeforeValidator(text_only), Field(gt=0)]
NotNegative = Annotated[Decimal, BeforeValidator(text_only), Field(ge=0)]
Moment = Annotated[int, BeforeValidator(_moment)]
Stamp = Annotated[int, BeforeValidator(_stamp)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Row(BaseModel):
    """Fields we do not use are the venue's business; those we use must be as promised."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


R = TypeVar("R", bound=BaseModel)


def parsed(model: type[R], raw: object, venue: str, what: str) -> R:
    """`raw` as a row of the interface. Raises VenueUnreachable naming the field, never its content."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, fault["loc"])) or "row" for fault in error.errors()}))
        raise VenueUnreachable(f"{venue}: {what} is not what it should be: {fields}") from None


def number(info: object, name: str) -> float:
    """A finite number out of a ticker's text. Raises ValueError."""
    value = info.get(name) if isinstance(info, Mapping) else None
    if not isinstance(value, str):
        raise ValueError(f"ticker has no {name}")
    return float(money(value))
