"""A venue without a wire: fills orders over simulated or recorded prices, charges what a venue charges, and keeps its own exact wallet.

Owns the truth a real venue would own: resting orders, fills, cash, coins, positions. May refuse or reject what the instrument's rules or
the wallet forbid. It invents no price: market orders trade at the opening the source states and wait where there is none; resting orders
are matched against the range of each closed bar, the worse order of events first. What is sent between two openings waits for the next
one; only in real time, where people press buttons, an order that closes a position may still have the last.

Order of events within one step: resting orders and liquidations of the bars that closed, funding, financing, expiry, transfers; the
daemon books them; it sees the bars and decides; its orders trade at the openings after the latency; it protects what was filled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Final

from modules.domain.instrument import AssetClass
from modules.domain.market import Bar, Batch
from modules.domain.order import Fate, NotSent, Order
from modules.domain.policies import CostPolicy
from modules.runtime.clock import Clock, VirtualClock
from modules.venues.paper_account import PaperAccount
from modules.venues.paper_book import PaperBook
from modules.venues.paper_desk import PaperDesk
from modules.venues.paper_prices import AVERAGE_BARS, Prices
from modules.venues.paper_restore import Memory, Reader, Resumable, resumed
from modules.venues.protocol import AccountEvent, MarketSource, Step

_BATCH: Final = partial(tuple.__new__, Batch)
"""A Batch out of a tuple, without a Python call."""
SEEDED_AGAIN: Final = 16 * AVERAGE_BARS
"""Bars from which a restart finds the average volume again, to within a ten-millionth of what it was."""


class PaperVenue(PaperAccount):
    """Implements `Venue` over a `MarketSource` on any clock. `wallets` is the opening cash per class, `currencies` what it is in.

    `market_events` may be entered again after it was left: it goes on with the step after the last one.
    """

    def __init__(self, source: MarketSource, clock: Clock, costs: CostPolicy, wallets: Mapping[AssetClass, Decimal],
                 currencies: Mapping[AssetClass, str]) -> None:
        super().__init__(
            source.name, clock, {asset_class: PaperBook(currencies[asset_class], cash) for asset_class, cash in wallets.items()})
        self._source = source
        self._latency = costs.latency_ms
        self._prices = Prices(source, costs)
        self._desk = PaperDesk(source.name, self._prices, costs, self._books, source.start, self._emit)
        self._steps: Iterator[Step] | None = None
        self._known: Step | None = None
        """After a restart: the market as it was known when it stopped, not yet told."""
        self._live = not isinstance(clock, VirtualClock)
        """Real time: orders arrive when they like, between two steps too."""

    def reader(self) -> Reader:
        """What is to be shown the journal, so that `recollect` can be given its memory. Raises RuntimeError once the market has begun."""
        if self._steps is not None:
            raise RuntimeError("the market has begun: its past must be known before")
        return Reader(self.name, self._books, self._latency, self._source.contract)

    def recollect(self, memory: Memory) -> None:
        """Go on where an earlier run of this venue stopped, as the journal tells it (see paper_restore). No facts, no past."""
        if not memory.at:
            return
        self._known, self._steps = resumed(self._source, memory.at)
        self._prices.seed(self._known.at, SEEDED_AGAIN)
        self._desk.recall(memory.orders.values(), memory.fills, memory.numbers, self._known, memory.transfers)
        if self._live and isinstance(self._source, Resumable):
            self._prices.keep_openings(self._desk.held)

    # -- reading ----------------------------------------------------------------------------------------------------------

    @property
    def source(self) -> MarketSource:
        """Where its prices come from."""
        return self._source

    async def history(self, symbol: str, until: int, bars: int) -> Sequence[Bar]:
        return self._source.history(symbol, until, bars)

    def interval_ms(self, symbol: str) -> int:
        return self._source.intervals_ms[symbol]

    async def missed(self, since: int | None = None) -> Sequence[AccountEvent]:
        return ()  # no wire to miss anything on: `reconcile` settles what is on its way

    # -- orders -----------------------------------------------------------------------------------------------------------

    async def submit(self, order: Order) -> Fate:
        if self._closed:
            return NotSent("the paper venue is closed")
        sent_at = self._clock.now()
        between_steps = self._live and not self._prices.at_step and self._desk.tradable_now(order)
        if between_steps:
            # No step is due that would trade it, so the order travels here and trades on arrival, unless a step began meanwhile.
            await self._clock.sleep_until(sent_at + self._latency)
        fate = self._desk.accept(order, self._clock.now(), sent_at + self._latency)
        if between_steps and not self._prices.at_step:
            self._desk.trade_openings(self._clock.now())
        return fate

    # -- time -------------------------------------------------------------------------------------------------------------

    async def market_events(self) -> AsyncIterator[Batch]:
        clock, desk, prices = self._clock, self._desk, self._prices
        if self._steps is None:
            self._steps = self._source.steps()
            prices.seed(self._source.start)
        if self._known is not None:
            known, self._known = self._known, None
            if self._emitted:
                await self._hand_over()
            yield Batch(known.at, (), (), known.marks, known.funding, known.financing, known.chains)
            await clock.settle()
        for step in self._steps:
            at, bars, marks, funding, financing, chains, _, _ = step
            if not clock.reach(at):
                await clock.sleep_until(at)
            desk.take(step)
            prices.at_step = True
            if self._emitted:
                await self._hand_over()
            clock.pulse(at)
            yield _BATCH((at, bars, (), marks, funding, financing, chains))
            if clock.busy():
                await clock.settle()
            # On virtual time every order of this step is in by now; in real time the latency is what they have to come.
            if desk.pending or self._live:
                await self._trade_window(at)
            prices.at_step = False
            if self._live:
                prices.keep_openings(desk.held)

    async def _trade_window(self, at: int) -> None:
        """Fill at the openings, let the daemon answer (a spread's second leg), and again until nothing new is eligible."""
        await self._clock.sleep_until(at + self._latency)
        while True:
            self._desk.trade_openings(self._clock.now())
            if self._emitted:
                await self._hand_over()
            waiting = [working.eligible_at for working in self._desk.pending if working.tried_at != at]
            if not waiting:
                return
            await self._clock.sleep_until(min(waiting))
