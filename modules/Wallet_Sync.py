"""Owns the last thing the venues said we have, and holds it against the books. Every difference becomes a fact.

May refuse: a start on an account that is not what it should be or does not reconcile, and decisions on a stale wallet or an unmeasured
clock (by telling their age). Listens to each venue's account events (fills, funding, settlements, transfers) and hands each to the
authority that books it. Alone writes TransferSeen, BalanceAdjusted, UnallocatedMoved and Reconciled; FundingBooked and OptionSettled are
written here on Portfolio_Manager's behalf, once per venue reference.

Of every wallet, per currency: sum of the classes' books + the owner's part = what the venue says. The owner's part is a projection too,
so a difference is never swallowed: it is a fact, believed when it was seen again and again for a minute, and only after everything the
venue has to tell was booked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import structlog

from modules.domain.errors import ConfigurationError, VenueBusy, VenueError, VenueUnreachable
from modules.domain.events import (
    BalanceAdjusted,
    Fact,
    FundingBooked,
    OptionSettled,
    Reconciled,
    TransferSeen,
    UnallocatedMoved,
)
from modules.domain.instrument import AssetClass
from modules.domain.money import ZERO, book
from modules.domain.policies import ExecutionPolicy, Policies
from modules.domain.pools import Pool, divided, divided_position, merged, pools_of, share_of_net
from modules.execution import deliveries
from modules.execution.account import AccountBook
from modules.runtime import failpoint
from modules.venues.protocol import AccountEvent, ClassWallet, FillSeen, FundingPaid, OrderDone, Settled, Transferred, Venue, Wallet

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
OVERLAP_MS: Final = 60_000
"""A restart asks again for this much of what was told before: a venue's history may lag behind, and repeats change nothing. More than any
lag we know of; asking for too much costs one answer."""
HELD_POLLS: Final = 2
"""So many looks in the time of one while something is held or on order: a stop that somebody canceled is missed by nobody else where the
account's stream is deaf."""
CLOCK_KEPT: Final = 3
"""A measured clock offset holds for so many of its polls: clocks drift while nobody looks."""
FUNDING_LATE_MS: Final = 3_600_000
"""Funding of a position of ours may be told this long after it was closed; later ones are the owner's. Bounds how slow a venue's history
may be, and moves no money where the owner holds nothing of the instrument."""

Difference = tuple[str, str, Decimal]
"""(wallet of a venue, currency or symbol, how much more the venue holds than everything explains)."""


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
        self._agreed_at: dict[str, int] = {}
        """Venue -> its last wallet that agreed with the books, or whose every difference was booked."""
        self._wallets: dict[AssetClass, ClassWallet] = {}
        self._told = AccountBook(frozenset({venue_of[AssetClass.SPOT]} if AssetClass.SPOT in venue_of else ()))
        self._offsets: dict[str, tuple[int, int]] = {}
        """Venue -> (our clock less its clock in ms, when that was measured)."""
        self._poke: dict[str, asyncio.Event] = {name: asyncio.Event() for name in venues}
        self._differences: dict[str, dict[Difference, int]] = {}
        """What each venue's last comparison found and did not book, with the time of the wallet that showed it first."""
        self.reconciled: dict[str, bool] = dict.fromkeys(venues, False)
        self._checked: set[str] = set()
        """Venues whose account was found to be what it should be."""

    def attach(self, executor: TradeExecutor) -> None:
        self._executor = executor
        executor.attach(self.owners_part, self.unexplained)

    def adopt(self, policies: Policies) -> None:
        """Poll by the owner's new numbers from the next wait on."""
        self._policy = policies.execution

    # -- what decisions ask -----------------------------------------------------------------------------------------------

    def age_s(self, asset_class: AssetClass, at: int) -> float | None:
        """Seconds since this class's wallet was last known; None before the first reconciliation."""
        venue = self._venue_of.get(asset_class)
        if venue is None or not self.reconciled[venue]:
            return None
        if self._venues[venue].capabilities.in_process:
            return 0.0
        seen = self._agreed_at.get(venue)
        return None if seen is None else (at - seen) / 1000.0

    def clock_offset_s(self, asset_class: AssetClass) -> float | None:
        """How far our clock is ahead of the venue's; None = nobody has measured it lately. An in-process venue has ours."""
        venue = self._venue_of.get(asset_class)
        if venue is None:
            return None
        if self._venues[venue].capabilities.in_process:
            return 0.0
        offset, measured_at = self._offsets.get(venue, (0, 0))
        fresh = venue in self._offsets and self._clock.now() - measured_at <= CLOCK_KEPT * self._policy.clock_poll_s * 1000
        return offset / 1000.0 if fresh else None

    def equity(self, asset_class: AssetClass) -> Decimal | None:
        """E of domain.md section 1: never more than the synced wallet shows, nor than the owner's allocation plus its own result."""
        if asset_class not in self._wallets:
            return None
        worth = self._worth(asset_class)
        return None if worth is None else self._funds.sizing_equity(asset_class, worth, self._portfolio.ledger(asset_class).transfers)

    def unallocated(self, venue: str) -> dict[str, Decimal]:
        """What the owner holds at a venue beside us: cash, coins and signed positions by name, over all its wallets."""
        return self._told.unallocated(venue)

    def owners_part(self, venue: str, symbol: str) -> Decimal:
        """How much of an instrument the owner holds himself at a venue: the spot coins or the signed position."""
        return self._told.owners(venue, self._named(symbol)) + self._told.strange(symbol)

    def unexplained(self, venue: str, symbol: str) -> Decimal:
        """How much more of an instrument (spot coins, or a signed position) the venue's last wallet had than everything explains."""
        name = self._named(symbol)
        return sum((amount for _, of, amount in self._differences.get(venue, ()) if of == name), ZERO)

    def _named(self, symbol: str) -> str:
        """What a wallet calls it."""
        instrument = self._portfolio.instruments.get(symbol)
        return instrument.base if instrument is not None and instrument.asset_class is AssetClass.SPOT else symbol

    # -- listening and polling --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Listen to every venue's account events, and audit its wallet every poll and after every event that moved money."""
        async with asyncio.TaskGroup() as group:
            for name, venue in self._venues.items():
                group.create_task(self._listen(venue), name=f"account {name}")
                group.create_task(self._audit(venue), name=f"audit {name}")
                if not venue.capabilities.in_process:
                    group.create_task(self._watch_clock(venue), name=f"clock {name}")

    async def _listen(self, venue: Venue) -> None:
        async for event in venue.account_events():
            self.take(event)
            self._poke[venue.name].set()

    async def _audit(self, venue: Venue) -> None:
        poke, failed = self._poke[venue.name], 0
        while True:
            if venue.capabilities.in_process:
                await poke.wait()
            else:
                try:
                    async with asyncio.timeout(self._pause_s(venue, failed)):
                        await poke.wait()
                        # What else comes with it comes now, and a venue's wallet may be a moment behind its executions.
                        await self._clock.sleep_until(self._clock.now() + int(self._policy.wallet_settle_s * 1000))
                except TimeoutError:
                    pass  # nothing happened: the regular poll
            poke.clear()
            await self._clock.settle()
            try:
                wallet = await self._look(venue)
            except VenueError as error:
                failed += 1
                if isinstance(error, VenueBusy) or not self._held(venue) or failed % (2 * HELD_POLLS) == 1:
                    await self._clock.sleep_until(self._executor.on_failure(venue, error))
                continue
            failed = 0
            self._kill_switch.on_call(venue.name, self._clock.now(), True, "", "")
            if not poke.is_set():  # else money moved meanwhile: compare after it is booked
                self.compare(venue.name, wallet)

    def _held(self, venue: Venue) -> bool:
        return any(trade.venue == venue.name for trade in self._executor.trades.values())

    def _pause_s(self, venue: Venue, failed: int) -> float:
        """How long a wallet is left alone where nothing happens, machine's seconds. `failed`: looks in a row that failed. While something
        is held each of those is tried once more soon; of what is seen so often every fourth counts, as one a poll does else."""
        if not self._held(venue):
            return self._policy.wallet_poll_s
        return self._policy.wallet_settle_s / self._clock.speed if failed % 2 else self._policy.wallet_poll_s / HELD_POLLS

    async def _look(self, venue: Venue) -> Wallet:
        """The wallet, after whatever would explain a difference has been asked for and booked. Raises VenueError."""
        asked = self._clock.now()
        wallet = await venue.wallet()
        if venue.capabilities.in_process:
            return wallet
        marked = self._told.known_until.get(venue.name, 0)
        if self._unexplained(venue.name, wallet) or self._executor.unlisted(venue.name, wallet):
            await self._hear(venue)
            wallet = await venue.wallet()
        elif asked - marked >= self._policy.account_mark_s * 1000:
            await self._hear(venue)
            if not self._unexplained(venue.name, wallet):
                self._journal.append(Reconciled(asked, venue.name, 0))
        await self._executor.look_after(venue, wallet)
        return wallet

    async def _hear(self, venue: Venue, since: int | None = None) -> int:
        """Ask what no stream has told, and book it. Returns how many events there were. Raises VenueError."""
        events = await venue.missed(since)
        for event in events:
            self.take(event)
        return len(events)

    async def _watch_clock(self, venue: Venue) -> None:
        while True:
            measured = await self._measure(venue)
            wait_s = self._policy.clock_poll_s if measured else min(self._policy.clock_poll_s, self._policy.wallet_settle_s)
            await self._clock.sleep_until(self._clock.now() + int(wait_s * 1000))

    async def _measure(self, venue: Venue) -> bool:
        """Compare our clock with the venue's. Whether that worked."""
        try:
            offset = await venue.clock_offset_ms()
        except VenueError as error:
            await self._clock.sleep_until(self._executor.on_failure(venue, error))
            return False
        if offset is not None:
            self._offsets[venue.name] = offset, self._clock.now()
        return offset is not None

    def take(self, event: AccountEvent) -> None:
        """One thing the venue says happened to our account, to the authority that books it. Repeats change nothing."""
        if isinstance(event, FillSeen):
            self._executor.on_fill(event)
        elif isinstance(event, OrderDone):
            self._executor.on_done(event)
        elif isinstance(event, FundingPaid):
            self._take_funding(event)
        elif isinstance(event, Settled):
            if (event.venue, event.venue_ref) not in self._told.booked:
                failpoint.hit("settlement.before")
                self._journal.append(OptionSettled(event.at, event.venue, event.symbol, event.quantity, event.value, event.settle_rate,
                                                   event.fee, event.venue_ref))
        else:
            self._take_transfer(event)

    def _take_funding(self, event: FundingPaid) -> None:
        """Ours as far as the position it was charged on was ours; the rest is the owner's, who may hold the same instrument by hand."""
        owners_ref = f"{event.venue_ref} owner"
        known = {(event.venue, event.venue_ref), (event.venue, owners_ref), ("", owners_ref)}
        if known & self._told.booked or self._before_books(event.asset_class, event.at):
            return
        failpoint.hit("funding.before")
        pool = self._pool_of(event.asset_class)
        alone = self._sole_owner(pool)
        owners = self.owners_part(event.venue, event.symbol)
        traded = event.at - self._told.traded_at(event.symbol) < FUNDING_LATE_MS
        if not owners and (alone is not None or traded or event.symbol in self._portfolio.positions):
            ours = event.amount
        else:
            ours = book(event.amount * share_of_net(self._held_at(event.symbol, event.at), owners))
        rest, facts = event.amount - ours, list[Fact]()
        if ours or not rest:
            facts.append(FundingBooked(event.at, event.venue, event.symbol, event.asset_class, ours, event.rate, event.venue_ref))
        if rest and alone is not None:
            facts.append(self._transfer(event.at, alone, rest, owners_ref))
        elif rest:
            currency = self._portfolio.ledger(event.asset_class).currency
            facts.append(UnallocatedMoved(event.at, event.venue, pool.name, currency, rest, f"funding of {event.symbol}", owners_ref))
        self._journal.append_all(facts)

    def _held_at(self, symbol: str, at: int) -> Decimal:
        """How much of it we held at `at` (UTC ms), signed, as far as the last fills tell."""
        position = self._portfolio.positions.get(symbol)
        return (position.quantity if position is not None else ZERO) - self._told.moved_since(symbol, at)

    def _take_transfer(self, event: Transferred) -> None:
        """A deposit is the owner's until he allocates it; a withdrawal takes the owner's part first, and only then from the classes."""
        if ("", event.venue_ref) in self._told.booked or self._before_books(event.asset_class, event.at):
            return
        failpoint.hit("transfer.before")
        pool = self._pool_of(event.asset_class)
        alone = self._sole_owner(pool)
        if alone is not None:
            self._journal.append(self._transfer(event.at, alone, event.amount, event.venue_ref))
            return
        currency = self._portfolio.ledger(event.asset_class).currency
        part = divided(event.amount, self._owned(pool, currency), {c: self._portfolio.wallet_cash(c) for c in pool.classes})
        owners = UnallocatedMoved(event.at, pool.venue, pool.name, currency, part.owners, "transfer", event.venue_ref)
        self._journal.append_all((owners, *(self._transfer(event.at, asset_class, amount, f"{event.venue_ref} {asset_class}")
                                            for asset_class, amount in part.classes.items())))

    def _before_books(self, asset_class: AssetClass, at: int) -> bool:
        """Whether what happened at `at` is in the class's opening balance already. (An in-process venue's clock is ours and it tells
        nothing twice.)"""
        if asset_class not in self._venue_of:
            return True  # a class nobody trades here: its money is the owner's, and shows in the wallet
        if self._venues[self._venue_of[asset_class]].capabilities.in_process:
            return False
        opened = self._told.opened_at.get(asset_class)
        return opened is None or at < opened

    def _transfer(self, at: int, asset_class: AssetClass, amount: Decimal, reference: str) -> TransferSeen:
        worth = self._portfolio.equity(asset_class, lambda symbol: self._market.mark(symbol, at), self._market.settle_rate)
        return TransferSeen(at, asset_class, amount, worth if worth is not None else self._portfolio.ledger(asset_class).cash, reference)

    # -- projection -------------------------------------------------------------------------------------------------------

    def apply(self, fact: Fact) -> None:
        self._told.apply(fact)

    # -- reconciliation ---------------------------------------------------------------------------------------------------

    async def reconcile(self, venue: Venue) -> int:
        """At start: is it the right account; the opening balances of a new journal; what happened while we were away; a stop under what has
        none; then everything compared. A difference that stays is booked by the audits that follow, and nothing is opened before. Returns
        how many it found. Raises VenueError if the venue cannot be asked or the account is not one to trade on (VenueDenied, with the
        remedy): then nothing starts."""
        asked = self._clock.now()
        if not self.reconciled[venue.name] and venue.name not in self._checked:
            await venue.check()
            await self._measure(venue)
            self._checked.add(venue.name)  # a start that fails further on goes on from here
        known = max(self._told.known_until.get(venue.name, 0) - OVERLAP_MS, self._first_opening(venue.name))
        await self._hear(venue, known or None)
        wallet = await self._open_books(venue)
        await self._executor.catch_up(venue, wallet)
        if not self.reconciled[venue.name] and not venue.capabilities.in_process:
            await self._executor.protect(venue)  # all that was missed is booked: what a crash left without a stop waits for no comparison
        differences = 0
        for again in range(PASSES_MAX):
            if again and not venue.capabilities.in_process:
                await self._clock.sleep_until(self._clock.now() + int(self._policy.wallet_settle_s * 1000))
            await self._hear(venue)
            wallet = await venue.wallet()
            await self._clock.settle()  # what is on its way from the venue is booked before it counts as a difference
            found_now = self.compare(venue.name, wallet)
            if not found_now:
                break
            differences = max(differences, found_now)
        self._journal.append(Reconciled(asked, venue.name, differences))
        self.reconciled[venue.name] = True
        return differences

    def _first_opening(self, venue: str) -> int:
        return min((at for asset_class, at in self._told.opened_at.items() if self._venue_of.get(asset_class) == venue), default=0)

    async def _open_books(self, venue: Venue) -> Wallet:
        """Open the books of classes that have none with what is in their wallets: all at once, and only from a wallet in which nothing
        moved while it was read. Raises ConfigurationError where nobody has said whose money it is."""
        for _ in range(PASSES_MAX):
            wallet = await venue.wallet()
            fresh = [pool for pool in self._pools(venue.name, wallet) if self._unopened(pool)]
            if not fresh:
                return wallet
            if not await self._hear(venue):
                self._journal.append_all([fact for pool in fresh for fact in self._opening(pool, wallet)])
                failpoint.hit("start.opening")
                return wallet
        raise VenueUnreachable(f"{venue.name}: the account moved whenever it was read; try again when it is quiet")

    def _unopened(self, pool: Pool) -> list[AssetClass]:
        return [asset_class for asset_class in pool.classes if ("", f"opening {asset_class}") not in self._told.booked]

    def _opening(self, pool: Pool, wallet: Wallet) -> list[Fact]:
        cash = self._cash_in(pool, wallet)
        new = self._unopened(pool)
        alone = self._sole_owner(pool)
        if alone is not None:
            shares = {alone: cash}
        else:
            spare = cash if len(new) == len(pool.classes) else self._owned(pool, self._currency_of(pool, wallet))
            shares = {**dict.fromkeys(new, ZERO), **self._funds.grants(new, dict.fromkeys(new, ZERO), spare)}
        facts: list[Fact] = [TransferSeen(wallet.at, asset_class, amount, ZERO, f"opening {asset_class}")
                             for asset_class, amount in shares.items()]
        if self._venues[pool.venue].capabilities.in_process or len(new) < len(pool.classes):
            if alone is None and len(new) < len(pool.classes):
                facts.append(UnallocatedMoved(wallet.at, pool.venue, pool.name, self._currency_of(pool, wallet),
                                              -sum(shares.values(), ZERO), "allocated"))
            return facts
        # What else is there on the first day is the owner's: cash beyond the allocations, coins, positions.
        owners = {self._currency_of(pool, wallet): cash - sum(shares.values(), ZERO), **self._held_in(pool, wallet)}
        return facts + [UnallocatedMoved(wallet.at, pool.venue, pool.name, name, amount, "opening")
                        for name, amount in owners.items() if amount]

    # -- whose it is ------------------------------------------------------------------------------------------------------

    def _pools(self, venue: str, wallet: Wallet) -> tuple[Pool, ...]:
        return self._pools_of(venue, tuple(wallet.classes))

    def _pools_of(self, venue: str, classes: Sequence[AssetClass]) -> tuple[Pool, ...]:
        return pools_of(venue, classes, shared=self._venues[venue].capabilities.shared_wallet)

    def _pool_of(self, asset_class: AssetClass) -> Pool:
        venue = self._venue_of[asset_class]
        together = [other for other, name in self._venue_of.items() if name == venue]
        return next(pool for pool in self._pools_of(venue, together) if asset_class in pool.classes)

    def _sole_owner(self, pool: Pool) -> AssetClass | None:
        """The class that owns all the cash of its wallet: nobody shares it and the owner allocates no part of it. Raises
        ConfigurationError for classes that share a wallet without an allocation each."""
        given = [self._funds.allocated(asset_class) for asset_class in pool.classes]
        if len(pool.classes) == 1 and (given[0] is None or self._venues[pool.venue].capabilities.in_process):
            return pool.classes[0]
        if None in given:
            names = ", ".join(asset_class.value for asset_class, amount in zip(pool.classes, given, strict=True) if amount is None)
            raise ConfigurationError([f"venues.{pool.venue}.allocate: {names}: classes that share one wallet need an amount each"])
        return None

    def _owned(self, pool: Pool, name: str) -> Decimal:
        return self._told.owners_in(pool.venue, pool.name).get(name, ZERO)

    def _currency_of(self, pool: Pool, wallet: Wallet) -> str:
        return wallet.classes[pool.classes[0]].currency

    def _cash_in(self, pool: Pool, wallet: Wallet) -> Decimal:
        return sum((wallet.classes[asset_class].cash for asset_class in pool.classes), ZERO)

    def _held_in(self, pool: Pool, wallet: Wallet) -> dict[str, Decimal]:
        return merged(part for asset_class in pool.classes for part in (wallet.classes[asset_class].coins,
                                                                        wallet.classes[asset_class].positions))

    # -- comparing --------------------------------------------------------------------------------------------------------

    def compare(self, venue: str, wallet: Wallet) -> int:
        """Hold the venue's wallet against the books. A difference is booked at once where it is what the owner traded by hand, else when
        every look for as long as a venue may take to tell what explains it has shown the same one, and nothing of ours may have traded
        that nobody has told. Returns how many differ. Until then, and while a wallet differs in another way every time, it is nothing to
        decide on: the last one that agreed gets no younger."""
        self._wallets |= wallet.classes
        before, found = self._differences.get(venue, {}), self._unexplained(venue, wallet)
        now = found - (waits := self._undelivered(venue, wallet, found))
        if waits and venue in self._agreed_at:
            log.warning("a delivery of options is not told yet", action="reconcile", venue=venue, reason=", ".join(sorted(
                f"{name} {amount}" for _, name, amount in waits)))
        seen = {difference: before.get(difference, wallet.at) for difference in now}
        proof_ms = 0 if self._venues[venue].capabilities.in_process else int(self._policy.difference_proof_s * 1000)
        doubtful = self._executor.untold(venue)
        proven = {difference for difference, since in seen.items()
                  if (difference in before and wallet.at - since >= proof_ms and not doubtful)
                  or difference[2] == self._told.explained(difference[1])}
        for pool in self._pools(venue, wallet):
            for name, amount in [(name, amount) for of, name, amount in sorted(proven) if of == pool.name]:
                log.error("wallet differs from the books", action="reconcile", venue=venue, wallet=pool.name, reason=f"{name} {amount}")
                self._journal.append_all(self._settled(pool, wallet, name, amount))
        self._differences[venue] = {difference: since for difference, since in seen.items() if difference not in proven}
        if now == proven and not waits:
            self._agreed_at[venue] = wallet.at
        if not found and not self._venues[venue].capabilities.in_process:
            self._allot(venue, wallet)
        return len(now)

    def _unexplained(self, venue: str, wallet: Wallet) -> frozenset[Difference]:
        found: set[Difference] = set()
        for pool in self._pools(venue, wallet):
            currency = self._currency_of(pool, wallet)
            held = merged((self._held_in(pool, wallet), {currency: self._cash_in(pool, wallet)}))
            known = merged((*(self._portfolio.coins(asset_class) for asset_class in pool.classes),
                            {currency: sum((self._portfolio.wallet_cash(asset_class) for asset_class in pool.classes), ZERO)},
                            self._told.owners_in(venue, pool.name)))
            found |= {(pool.name, name, held.get(name, ZERO) - known.get(name, ZERO)) for name in held.keys() | known.keys()}
        return frozenset(difference for difference in found if difference[2] != ZERO)

    def _undelivered(self, venue: str, wallet: Wallet, found: frozenset[Difference]) -> frozenset[Difference]:
        """What of the differences a delivery of options explains that nobody has told yet. Nothing is booked for it, and no such wallet
        counts as one that agrees, until it is told or has been waited for too long."""
        ours = deliveries.awaited(self._portfolio.positions, self._portfolio.instruments, wallet.at, self._policy.delivery_wait_s)
        cash = {pool.name: self._currency_of(pool, wallet) for pool in self._pools(venue, wallet) if AssetClass.OPTION in pool.classes}
        return frozenset(deliveries.held_back(found, ours, cash, self._portfolio.instruments, wallet.at))

    def _settled(self, pool: Pool, wallet: Wallet, name: str, amount: Decimal) -> list[Fact]:
        """The facts that make an unexplained difference the owner's or ours."""
        cash = name == self._currency_of(pool, wallet)
        reason = "unexplained difference"
        alone = pool.classes[0] if len(pool.classes) == 1 else None
        if alone is not None and (self._venues[pool.venue].capabilities.in_process or (cash and self._sole_owner(pool) is not None)):
            return [BalanceAdjusted(wallet.at, alone, name, amount, reason)]
        position = any(name in wallet.classes[asset_class].positions for asset_class in pool.classes) or name in self._portfolio.positions
        books = {asset_class: self._portfolio.wallet_cash(asset_class) if cash else self._portfolio.coins(asset_class).get(name, ZERO)
                 for asset_class in pool.classes}
        part = (divided_position if position else divided)(amount, self._owned(pool, name), books)
        facts: list[Fact] = [BalanceAdjusted(wallet.at, asset_class, name, ours, reason) for asset_class, ours in part.classes.items()]
        if part.owners:
            facts.append(UnallocatedMoved(wallet.at, pool.venue, pool.name, name, part.owners, reason))
        return facts

    def _allot(self, venue: str, wallet: Wallet) -> None:
        """Where the owner allocates: move money between his part and the classes until each has been given its allocation, as far as it
        reaches. Follows his changes, and deposits that make up for an allocation that did not fit."""
        for pool in self._pools(venue, wallet):
            if self._sole_owner(pool) is not None:
                continue
            currency = self._currency_of(pool, wallet)
            given = {asset_class: self._portfolio.ledger(asset_class).transfers for asset_class in pool.classes}
            moves = self._funds.grants(pool.classes, given, self._owned(pool, currency))
            for asset_class, amount in moves.items():
                spare = self._portfolio.wallet_cash(asset_class) - self._funds.reserved(asset_class) - self._portfolio.margin(asset_class)
                moved = max(amount, -max(ZERO, spare))
                if moved:
                    self._journal.append_all((
                        self._transfer(wallet.at, asset_class, moved, f"allocated {asset_class} {wallet.at}"),
                        UnallocatedMoved(wallet.at, venue, pool.name, currency, -moved, "allocated")))

