"""Owns the last thing the venues said we have, and holds it against the books. Every difference becomes a fact.

May refuse: a start before reconciliation, and decisions on a stale wallet (by telling its age). Listens to each venue's account events
(fills, funding, settlements, transfers) and hands each to the authority that books it. Alone writes TransferSeen, BalanceAdjusted and
Reconciled; FundingBooked and OptionSettled are written here on Portfolio_Manager's behalf, once per venue reference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import structlog

from modules.domain.errors import VenueError
from modules.domain.events import BalanceAdjusted, Fact, FundingBooked, OptionSettled, Reconciled, TransferSeen
from modules.domain.instrument import AssetClass
from modules.domain.money import ZERO
from modules.domain.policies import ExecutionPolicy
from modules.runtime import failpoint
from modules.venues.protocol import AccountEvent, ClassWallet, FillSeen, FundingPaid, OrderDone, Settled, Venue, Wallet

if TYPE_CHECKING:
    from modules.Funds_Controller import FundsController
    from modules.Kill_Switch import KillSwitch
    from modules.Market_Data import MarketData
    from modules.Portfolio_Manager import PortfolioManager
    from modules.runtime.clock import Clock
    from modules.store.journal import Journal
    from modules.Trade_Executor import TradeExecutor

log = structlog.get_logger("Wallet_Sync")

PASSES_MAX: Final = 3
"""How often a start compares before it goes on with what is booked by then: the second pass books what the first saw."""

Difference = tuple[AssetClass, str, Decimal]
"""(class, currency or symbol, how much more the venue holds than the books say)."""


class WalletSync:
    def __init__(
        self, *, journal: Journal, clock: Clock, venues: Mapping[str, Venue], venue_of: Mapping[AssetClass, str],
        portfolio: PortfolioManager, funds: FundsController, kill_switch: KillSwitch, market: MarketData, policy: ExecutionPolicy,
        worth: Callable[[AssetClass], Decimal | None],
    ) -> None:
        """`worth`: a class's books at present marks, None while a mark is missing."""
        self._journal = journal
        self._clock = clock
        self._venues = venues
        self._venue_of = venue_of
        self._portfolio = portfolio
        self._funds = funds
        self._kill_switch = kill_switch
        self._market = market
        self._policy = policy
        self._worth = worth
        self._executor: TradeExecutor
        self._seen_at: dict[str, int] = {}
        self._wallets: dict[AssetClass, ClassWallet] = {}
        self._booked: set[tuple[str, str]] = set()
        self._poke: dict[str, asyncio.Event] = {name: asyncio.Event() for name in venues}
        self._differences: dict[str, frozenset[Difference]] = {}
        """What each venue's last comparison found."""
        self.reconciled: dict[str, bool] = dict.fromkeys(venues, False)

    def attach(self, executor: TradeExecutor) -> None:
        self._executor = executor

    # -- what decisions ask -----------------------------------------------------------------------------------------------

    def age_s(self, asset_class: AssetClass, at: int) -> float | None:
        """Seconds since this class's wallet was last known; None before the first reconciliation."""
        venue = self._venue_of.get(asset_class)
        if venue is None or not self.reconciled[venue]:
            return None
        if self._venues[venue].capabilities.in_process:
            return 0.0
        seen = self._seen_at.get(venue)
        return None if seen is None else (at - seen) / 1000.0

    def clock_offset_s(self, asset_class: AssetClass) -> float | None:
        """How far our clock is from the venue's; an in-process venue has ours."""
        venue = self._venue_of.get(asset_class)
        return 0.0 if venue is not None and self._venues[venue].capabilities.in_process else None

    def equity(self, asset_class: AssetClass) -> Decimal | None:
        """E of domain.md section 1: never more than the synced wallet shows, nor than the owner's allocation plus its own result."""
        if asset_class not in self._wallets:
            return None
        worth = self._worth(asset_class)
        return None if worth is None else self._funds.sizing_equity(asset_class, worth, self._portfolio.ledger(asset_class).transfers)

    # -- listening and polling --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Listen to every venue's account events, and audit its wallet every poll and after every event that moved money."""
        async with asyncio.TaskGroup() as group:
            for name, venue in self._venues.items():
                group.create_task(self._listen(venue), name=f"account {name}")
                group.create_task(self._audit(venue), name=f"audit {name}")

    async def _listen(self, venue: Venue) -> None:
        async for event in venue.account_events():
            self.take(event)
            self._poke[venue.name].set()

    async def _audit(self, venue: Venue) -> None:
        poke = self._poke[venue.name]
        while True:
            if venue.capabilities.in_process:
                await poke.wait()
            else:
                try:
                    async with asyncio.timeout(self._policy.wallet_poll_s):
                        await poke.wait()
                except TimeoutError:
                    pass  # nothing happened: the regular poll
            poke.clear()
            await self._clock.settle()
            try:
                wallet = await venue.wallet()
            except VenueError as error:
                self._kill_switch.on_call(venue.name, self._clock.now(), False, "error", str(error))
                continue
            self._kill_switch.on_call(venue.name, self._clock.now(), True, "", "")
            if not poke.is_set():  # else money moved meanwhile: compare after it is booked
                self.compare(venue.name, wallet)

    def take(self, event: AccountEvent) -> None:
        """One thing the venue says happened to our account, to the authority that books it. Repeats change nothing."""
        if isinstance(event, FillSeen):
            self._executor.on_fill(event)
        elif isinstance(event, OrderDone):
            self._executor.on_done(event)
        elif isinstance(event, FundingPaid):
            if (event.venue, event.venue_ref) not in self._booked:
                failpoint.hit("funding.before")
                self._journal.append(FundingBooked(event.at, event.venue, event.symbol, event.asset_class, event.amount, event.rate,
                                                   event.venue_ref))
        elif isinstance(event, Settled):
            if (event.venue, event.venue_ref) not in self._booked:
                failpoint.hit("settlement.before")
                self._journal.append(OptionSettled(event.at, event.venue, event.symbol, event.quantity, event.value, event.settle_rate,
                                                   event.fee, event.venue_ref))
        elif ("", event.venue_ref) not in self._booked:
            failpoint.hit("transfer.before")
            before = self._portfolio.equity(event.asset_class, lambda symbol: self._market.mark(symbol, event.at), self._market.settle_rate)
            self._journal.append(TransferSeen(event.at, event.asset_class, event.amount,
                                              before if before is not None else self._portfolio.ledger(event.asset_class).cash,
                                              event.venue_ref))

    # -- projection -------------------------------------------------------------------------------------------------------

    def apply(self, fact: Fact) -> None:
        kind = type(fact)
        if kind is FundingBooked or kind is OptionSettled:
            self._booked.add((fact.venue, fact.venue_ref))  # type: ignore[union-attr]
        elif kind is TransferSeen:
            self._booked.add(("", fact.venue_ref))  # type: ignore[union-attr]

    # -- reconciliation ---------------------------------------------------------------------------------------------------

    async def reconcile(self, venue: Venue) -> int:
        """At start: the opening balances of a new journal, then what happened while we were away, then everything compared and every
        difference booked. Returns how many differences it found. Raises VenueError if the venue cannot be asked: then nothing starts."""
        wallet = await venue.wallet()
        for asset_class, found in wallet.classes.items():
            reference = f"opening {asset_class}"
            if ("", reference) not in self._booked:
                self._journal.append(TransferSeen(wallet.at, asset_class, found.cash, ZERO, reference))
                failpoint.hit("start.opening")
        await self._executor.catch_up(venue, wallet)
        differences = 0
        for _ in range(PASSES_MAX):
            wallet = await venue.wallet()
            await self._clock.settle()  # what is on its way from the venue is booked before it counts as a difference
            found_now = self.compare(venue.name, wallet)
            if not found_now:
                break
            differences = max(differences, found_now)
        self._journal.append(Reconciled(self._clock.now(), venue.name, differences))
        self.reconciled[venue.name] = True
        return differences

    def compare(self, venue: str, wallet: Wallet) -> int:
        """Hold the venue's wallet against the books; the same difference seen twice in a row is booked. Returns how many differ."""
        self._seen_at[venue] = wallet.at
        before, now = self._differences.get(venue, frozenset()), set[Difference]()
        for asset_class, found in wallet.classes.items():
            self._wallets[asset_class] = found
            for currency, amount in self._differences_of(asset_class, found):
                difference = (asset_class, currency, amount)
                now.add(difference)
                if difference in before:
                    log.error("wallet differs from the books", action="reconcile", asset_class=asset_class.value,
                              reason=f"{currency} {amount}")
                    self._journal.append(BalanceAdjusted(wallet.at, asset_class, currency, amount, "unexplained difference"))
        self._differences[venue] = frozenset(now - before)  # what was booked is none any more
        return len(now)

    def _differences_of(self, asset_class: AssetClass, found: ClassWallet) -> list[tuple[str, Decimal]]:
        differences = [(found.currency, found.cash - self._portfolio.wallet_cash(asset_class))]
        coins = {currency: -amount for currency, amount in self._portfolio.coins(asset_class).items()}
        for currency, amount in (*found.coins.items(), *found.positions.items()):
            coins[currency] = coins.get(currency, ZERO) + amount
        return [(currency, amount) for currency, amount in (*differences, *coins.items()) if amount != ZERO]
