"""An account at a venue without a wire: what both paper venues are, whatever their prices come from.

Owns the truth a real venue would own - resting orders, fills, cash, coins, positions - and tells it as a real one would. Decides nothing
about prices: the desk does that, fed by whoever inherits this.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

from modules.domain.instrument import AssetClass, Instrument
from modules.domain.order import Fate, NotSent, Order, OrderReport
from modules.runtime.clock import Clock
from modules.venues.paper_book import PaperBook
from modules.venues.paper_desk import PaperDesk
from modules.venues.paper_prices import Prices
from modules.venues.protocol import AccountEvent, Capabilities, ClassWallet, FillSeen, Wallet


class PaperAccount:
    """The account half of a `Venue`. Who inherits it sets `_prices` and `_desk` and adds the market, `submit` and the way time passes."""

    capabilities = Capabilities(set_client_id=True, query_by_client_id=True, trade_history_by_order=True, venue_stop=True,
                                resting_target=True, reduce_only=True, in_process=True)
    _prices: Prices
    _desk: PaperDesk

    def __init__(self, name: str, clock: Clock, books: Mapping[AssetClass, PaperBook]) -> None:
        self.name = name
        self._clock = clock
        self._books = dict(books)
        self._events: asyncio.Queue[AccountEvent | None] = asyncio.Queue()
        self._emitted = False
        self._closed = False

    @property
    def books(self) -> Mapping[AssetClass, PaperBook]:
        """Its own truth about money, class by class. Live: read, never write."""
        return self._books

    async def instruments(self) -> Sequence[Instrument]:
        """Everything the source lists, and the option contracts of the chains seen so far."""
        for chain in self._prices.chains.values():
            for quote in chain.quotes:
                self._prices.find(quote.symbol)
        return [series.instrument for series in self._prices.series.values()]

    async def wallet(self) -> Wallet:
        classes = {
            asset_class: ClassWallet(
                wallet.currency, wallet.cash, {coin: quantity for coin, quantity in wallet.coins.items() if quantity},
                {symbol: holding.quantity for symbol, holding in wallet.holdings.items()},
            )
            for asset_class, wallet in self._books.items()
        }
        working = [order.report() for series in self._prices.series.values() for order in series.orders]
        return Wallet(self._clock.now(), classes, working)

    async def order(self, client_order_id: str, symbol: str) -> OrderReport | None:
        working = self._desk.orders.get(client_order_id)
        return working.report() if working is not None and working.order.symbol == symbol else None

    async def fills_since(self, at: int) -> Sequence[FillSeen]:
        """Every fill at or after `at`, oldest first."""
        return [seen for seen in self._desk.fills if seen.fill.at >= at]

    async def clock_offset_ms(self) -> int | None:
        return 0

    async def check(self) -> None:
        """Our own account: nothing to be wrong with it."""

    async def account_events(self) -> AsyncIterator[AccountEvent]:
        while (event := await self._events.get()) is not None:
            yield event

    async def cancel(self, order: Order) -> Fate:
        if self._closed:
            return NotSent("the paper venue is closed")
        return self._desk.cancel(order, self._clock.now())

    async def close(self) -> None:
        self._closed = True
        self._events.put_nowait(None)

    def _emit(self, event: AccountEvent) -> None:
        self._emitted = True
        self._events.put_nowait(event)

    async def _hand_over(self) -> None:
        """Let the daemon book what happened before anything else does."""
        self._emitted = False
        await self._clock.settle()
