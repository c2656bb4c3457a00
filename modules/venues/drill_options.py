"""The fire drill of options: the smallest spread there is, bought, sold, bought back and sold again, on a real account.

The same rules as every drill (drill.py): whatever fails, what was sold is bought back, what was bought is sold, and what could not be
undone is named. Refuses contracts that are held already. Nothing rests at the venue: an option order there ends at once, which is a step
of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Final, NamedTuple, Protocol

from modules.domain.errors import VenueError
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.market import Chain, OptionQuote
from modules.domain.money import ONE, ZERO, text
from modules.domain.order import Order, OrderKind, OrderState, Purpose, drill_id
from modules.runtime.clock import Clock
from modules.venues.drill import Drill, Failed, Pace, Step
from modules.venues.protocol import Venue, Wallet
from modules.venues.selection import Listing

FAR: Final = Decimal("0.5")
"""An order at this share of the bid finds nobody and has to end by itself."""
DAYS_MIN: Final = 1.0
"""A contract this close to its expiry may be delivered in the middle of it."""
SPREAD_MAX: Final = 0.2
"""Of the ask: beyond that it is no market to try something in."""
DAY_MS: Final = 86_400_000


class Optioned(Protocol):
    """What an option drill asks of a venue beside what every drill does."""

    @property
    def underlyings(self) -> Mapping[str, str]: ...

    async def chain(self, underlying: str) -> Chain: ...

    def contract(self, symbol: str) -> Instrument | None: ...


class Pair(NamedTuple):
    """A spread to drill: what is bought first, what is sold against it, and what each is quoted at."""

    bought: Instrument
    sold: Instrument
    bought_quote: OptionQuote
    sold_quote: OptionQuote

    @property
    def quantity(self) -> Decimal:
        return max(one for leg in (self.bought, self.sold) for one in (leg.lot, leg.quantity_min))

    @property
    def cost(self) -> float:
        """Both spreads, settlement currency, without fees."""
        return float(self.quantity) * sum(quote.ask - quote.bid for quote in (self.bought_quote, self.sold_quote))


async def cheapest(venue: Optioned, at: int) -> Pair | None:
    """The pair of neighboring contracts whose round trip costs least, over all chains that are looked at. Raises VenueError."""
    found = [pair for underlying in venue.underlyings for pair in _pairs(venue, await venue.chain(underlying), at)]
    return min(found, key=lambda pair: (pair.cost, pair.bought.symbol), default=None)


def _pairs(venue: Optioned, chain: Chain, at: int) -> list[Pair]:
    rows: dict[tuple[int, bool], list[OptionQuote]] = {}
    for quote in chain.quotes:
        if quote.expiry - at >= DAYS_MIN * DAY_MS and _tradable(quote):
            rows.setdefault((quote.expiry, quote.is_call), []).append(quote)
    found = []
    for (_, is_call), quotes in rows.items():
        ordered = sorted(quotes, key=lambda quote: quote.strike, reverse=not is_call)  # a later one is further out, so it covers less
        for sold, bought in itertools.pairwise(ordered):
            rules = venue.contract(bought.symbol), venue.contract(sold.symbol)
            if rules[0] is not None and rules[1] is not None:
                found.append(Pair(rules[0], rules[1], bought, sold))
    return found


def _tradable(quote: OptionQuote) -> bool:
    """Both sides stand there, with a size, and near enough to each other."""
    return 0.0 < quote.bid <= quote.ask < math.inf and quote.ask - quote.bid <= SPREAD_MAX * quote.ask


class OptionDrill(Drill):
    """One run on one pair. `tell` hears every step as it ends."""

    def __init__(self, venue: Venue, listing: Listing, pair: Pair, clock: Clock, tell: Callable[[Step], None], pace: Pace | None = None
                 ) -> None:
        super().__init__(venue, listing, pair.bought, clock, tell, pace)
        self._pair = pair

    def _program(self) -> Mapping[str, Callable[[], Awaitable[str]]]:
        pair = self._pair
        return {
            "account": self._account, "flat before": self._flat_before, "order that finds nobody": self._nobody,
            "buy the protective leg": lambda: self._trade(pair.bought, Side.BUY, Purpose.ENTRY),
            "sell the short leg": lambda: self._trade(pair.sold, Side.SELL, Purpose.ENTRY),
            "both are held": self._both_held,
            "buy the short leg back": lambda: self._trade(pair.sold, Side.BUY, Purpose.EXIT),
            "sell the protective leg": lambda: self._trade(pair.bought, Side.SELL, Purpose.EXIT),
            "flat again": self._flat_again,
        }

    # -- the steps ----------------------------------------------------------------------------------------------------------

    async def _flat_before(self) -> str:
        wallet = await self._venue.wallet()
        part = wallet.classes[AssetClass.OPTION]
        for leg in (self._pair.bought, self._pair.sold):
            if held := part.positions.get(leg.symbol, ZERO):
                raise Failed(f"{text(held)} of {leg.symbol} are held already: close that first")
        cash = max(one.cash for one in wallet.classes.values())  # nobody divides the one wallet in a drill: each class is told all of it
        return f"{cash:,.2f} {part.currency} in the wallet, neither contract is held"

    async def _nobody(self) -> str:
        """A limit far from the market ends by itself, unfilled, and is found by our id."""
        bid = Decimal(repr(self._pair.bought_quote.bid))
        order = self._leg_order(self._pair.bought, Side.BUY, Purpose.ENTRY, bid * FAR)
        await self._submit(order)
        report = await self._report(order, lambda found: found.state is not OrderState.ACCEPTED)
        if report.state not in (OrderState.CANCELED, OrderState.EXPIRED) or report.filled:
            raise Failed(f"an order at half the bid is {report.state.value}, {text(report.filled)} filled")
        return f"found as {report.client_order_id}, ended unfilled"

    async def _trade(self, leg: Instrument, side: Side, purpose: Purpose) -> str:
        quote = self._pair.bought_quote if leg is self._pair.bought else self._pair.sold_quote
        order = self._leg_order(leg, side, purpose, Decimal(repr(quote.ask if side is Side.BUY else quote.bid)))
        await self._submit(order)
        return f"{leg.symbol}: {await self._filled(order)}"

    async def _both_held(self) -> str:
        wanted = {self._pair.bought.symbol: self._pair.quantity, self._pair.sold.symbol: -self._pair.quantity}

        async def told() -> Wallet | None:
            wallet = await self._venue.wallet()
            positions = wallet.classes[AssetClass.OPTION].positions
            return wallet if all(positions.get(symbol) == quantity for symbol, quantity in wanted.items()) else None

        if await self._until(told) is None:
            raise Failed("the account's positions are not the two legs")
        return "the account's positions are the two legs, and nothing sold is uncovered"

    async def _flat_again(self) -> str:
        async def flat() -> Wallet | None:
            wallet = await self._venue.wallet()
            positions = wallet.classes[AssetClass.OPTION].positions
            return wallet if not any(positions.get(leg.symbol) for leg in (self._pair.bought, self._pair.sold)) else None

        if await self._until(flat) is None:
            raise Failed("something is still held")
        return "nothing held, nothing working"

    # -- orders and cleaning up -------------------------------------------------------------------------------------------------

    def _leg_order(self, leg: Instrument, side: Side, purpose: Purpose, arrival: Decimal, quantity: Decimal | None = None) -> Order:
        name = drill_id(leg.symbol, self._began, side, purpose, len(self._ours))
        return Order(
            client_order_id=name, trade_id="drill", decision_id="drill", strategy="drill", venue=self._venue.name, symbol=leg.symbol,
            asset_class=AssetClass.OPTION, side=side, quantity=quantity or self._pair.quantity, kind=OrderKind.MARKET, purpose=purpose,
            price=None, reduce_only=purpose is not Purpose.ENTRY, leverage=ONE, arrival_price=arrival, slippage_model_bp=ZERO,
            reserves=ZERO, at=self._clock.now())

    async def _held_of(self, leg: Instrument) -> Decimal:
        """What our own fills left of one contract, signed."""
        return sum((seen.fill.quantity * seen.fill.side.sign for seen in await self._fills() if seen.fill.symbol == leg.symbol), ZERO)

    async def _cost(self) -> Decimal | None:
        if not self._ours:
            return ZERO
        try:
            fills = [seen.fill for seen in await self._fills()]
            if any([await self._held_of(leg) for leg in (self._pair.bought, self._pair.sold)]):
                return None
        except VenueError:
            return None
        return sum((fill.quantity * fill.price * fill.side.sign + fill.fee * fill.fee_rate for fill in fills), ZERO)

    async def _let_go(self) -> list[str]:
        """What was sold is bought back first; while that is not certain, what covers it stays."""
        for leg in (self._pair.sold, self._pair.bought):
            try:
                held = await self._held_of(leg) if self._ours else ZERO
                if held:
                    side = Side.SELL if held > ZERO else Side.BUY
                    quote = self._pair.bought_quote if leg is self._pair.bought else self._pair.sold_quote
                    arrival = Decimal(repr(quote.ask if side is Side.BUY else quote.bid))
                    order = self._leg_order(leg, side, Purpose.EXIT, arrival, abs(held))
                    await self._submit(order)
                    await self._filled(order)
            except (Failed, VenueError) as error:
                kept = f", and {self._pair.bought.symbol} was kept because it covers that" if leg is self._pair.sold else ""
                return [f"what was traded of {leg.symbol} may still be held{kept} ({error}): close it on the venue's own page, what was "
                        "sold first"]
        return []


def words(pair: Pair) -> str:
    """What is about to be traded, for who is asked."""
    quantity = text(pair.quantity)
    return (f"buy {quantity} {pair.bought.symbol} and sell {quantity} {pair.sold.symbol}, then close both; the spreads are "
            f"about {pair.cost:.2f} {pair.bought.settle}, fees come on top")
