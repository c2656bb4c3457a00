"""The venue's wallet against our books: what is told is booked once, and what nothing explains is seen twice before it is believed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import pytest

from modules.domain.errors import VenueBusy, VenueDenied, VenueUnreachable
from modules.domain.events import (
    ApiErrorSeen,
    BalanceAdjusted,
    Filled,
    ForeignFill,
    FundingBooked,
    OptionSettled,
    OrderCanceled,
    Reconciled,
    TradingHalted,
    TransferSeen,
    UnallocatedMoved,
)
from modules.domain.instrument import AssetClass, Side
from modules.domain.order import InDoubt, OrderReport, OrderState, Purpose
from modules.execution.account import AccountBook
from modules.venues.protocol import AccountEvent, ClassWallet, FillSeen, FundingPaid, OrderDone, Settled, Transferred, Wallet
from modules.Wallet_Sync import WalletSync
from tests.builders import AT, BTC_CALL, BTC_PERP, BTC_SPOT, make_fill, make_order
from tests.executor_rig import INSTRUMENTS, POLICIES, FakeVenue, Rig

D = Decimal
SPOT, PERP, OPTION, FOREX = AssetClass.SPOT, AssetClass.PERP, AssetClass.OPTION, AssetClass.FOREX


class AccountVenue(FakeVenue):
    """A venue whose wallets are set by the test, one per question; the last one stays."""

    def __init__(self, *wallets: Wallet) -> None:
        super().__init__()
        self.wallets = list(wallets)
        self.read_at: list[int] = []

    async def wallet(self) -> Wallet:
        self.read_at.append(self.clock.now() if self.clock is not None else 0)
        if self.faults:
            raise self.faults.pop(0)
        return self.wallets.pop(0) if len(self.wallets) > 1 else self.wallets[0]


def wallet(at: int = AT, *, spot: str = "10000", perp: str = "10000", coins: dict[str, Decimal] | None = None,
           positions: dict[str, Decimal] | None = None) -> Wallet:
    return Wallet(at, {SPOT: ClassWallet("USDT", D(spot), coins or {}, {}), PERP: ClassWallet("USDT", D(perp), {}, positions or {})}, [])


class Desk(Rig):
    """The executor's rig with a Wallet_Sync over it."""

    def __init__(self, *wallets: Wallet) -> None:
        venue = AccountVenue(*(wallets or (wallet(),)))
        super().__init__(venue=venue)
        self.account = venue
        self.sync = WalletSync(
            journal=self.journal, clock=self.clock, venues={venue.name: venue}, venue_of=dict.fromkeys(AssetClass, venue.name),
            portfolio=self.portfolio, funds=self.funds, kill_switch=self.kill_switch, market=self.market, policy=POLICIES.execution,
            worth=self.worth)
        self.sync.attach(self.executor)
        # What the rig's own journal holds so far are the opening balances: told to the projection as at a replay.
        for _, fact in self.journal.facts():
            self.sync.apply(fact)
        self.journal._projections.append(self.sync.apply)

    def worth(self, asset_class: AssetClass) -> Decimal | None:
        return self.portfolio.equity(asset_class, lambda symbol: self.market.mark(symbol, AT), self.market.settle_rate)

    def reconcile(self) -> int:
        return self.loop.run_until_complete(self.sync.reconcile(self.account))


PROVEN = AT + int(POLICIES.execution.difference_proof_s * 1000)
"""When a difference first seen at AT has stood for as long as it takes to be believed."""


def adjustments(desk: Desk) -> list[tuple[AssetClass, str, Decimal]]:
    return [(fact.asset_class, fact.currency, fact.amount) for fact in desk.facts if isinstance(fact, BalanceAdjusted)]


# -- differences --------------------------------------------------------------------------------------------------------------


def test_a_difference_is_booked_once_it_has_stood_for_as_long_as_a_history_may_lag_behind_its_wallet() -> None:
    desk = Desk()
    for at in (AT, AT + 7_500, PROVEN - 1):
        assert desk.sync.compare("paper", wallet(at, perp="9990")) == 1 and adjustments(desk) == []
    assert desk.sync.compare("paper", wallet(PROVEN, perp="9990")) == 1 and adjustments(desk) == [(PERP, "USDT", D(-10))]
    assert desk.portfolio.wallet_cash(PERP) == D(9990)
    assert desk.sync.compare("paper", wallet(PROVEN, perp="9990")) == 0


def test_nothing_is_booked_as_unexplained_while_an_order_is_in_doubt_that_may_be_what_explains_it() -> None:
    desk = Desk()

    async def story(desk: Rig) -> None:
        assert isinstance(desk, Desk)
        desk.venue.answers["entry"] = [InDoubt("no answer")]
        order = desk.enter(BTC_PERP)
        await desk.clock.settle()
        for at in (AT, PROVEN, 2 * PROVEN - AT):
            desk.sync.compare("paper", wallet(at, positions={BTC_PERP: D("0.1")}))
        assert adjustments(desk) == [] and desk.sync.unallocated("paper") == {}, "it may be ours: nobody knows yet"
        desk.fill(order)
        assert desk.portfolio.positions[BTC_PERP].quantity == D("0.1") and not desk.executor.in_doubt

    desk.play(story)


def test_a_position_that_is_gone_is_not_written_off_while_the_venue_speaks_of_fills_of_ours_that_no_history_has_yet() -> None:
    desk = Desk()

    async def story(desk: Rig) -> None:
        assert isinstance(desk, Desk)
        desk.venue.capabilities = replace(desk.venue.capabilities, resting_target=False)
        order = desk.enter(BTC_PERP)
        await desk.clock.settle()
        desk.fill(order)
        await desk.clock.settle()
        (stop,) = desk.sent(Purpose.STOP)
        cash = desk.portfolio.wallet_cash(PERP)
        lost = wallet(perp=str(cash - 100))
        desk.account.knows[stop.client_order_id] = OrderReport(stop.client_order_id, "V", BTC_PERP, OrderState.FILLED, D("0.1"), D("0.1"))
        for at in (AT, PROVEN, 2 * PROVEN - AT):
            await desk.executor.look_after(desk.account, replace(lost, at=at + 2_000))
            assert desk.sync.compare("paper", replace(lost, at=at + 2_000)) == 2
        assert adjustments(desk) == [] and desk.portfolio.positions[BTC_PERP].quantity == D("0.1")
        desk.fill(stop, price="49000")
        assert BTC_PERP not in desk.portfolio.positions, "its own fill closed it, and no other was opened"

    desk.play(story)


@pytest.mark.parametrize(("shown", "found"), [("0.1", False), ("0.04", False), ("-0.1", True), ("0.3", True), ("0", True)])
def test_an_order_that_nobody_finds_is_not_given_up_while_the_wallet_shows_what_it_would_have_moved(shown: str, found: bool) -> None:
    desk = Desk()

    async def story(desk: Rig) -> None:
        assert isinstance(desk, Desk)
        desk.venue.answers["entry"] = [InDoubt("no answer")]
        order = desk.enter(BTC_PERP)
        await desk.clock.settle()
        held = {BTC_PERP: D(shown)} if shown != "0" else {}
        policy = POLICIES.execution
        for _ in range(2):
            desk.sync.compare("paper", wallet(desk.clock.now(), positions=held))
            await desk.wait(policy.doubt_proof_s + policy.doubt_query_spacing_s[-1])
        assert desk.state(order) is (OrderState.EXPIRED if found else OrderState.IN_DOUBT)
        if not found:
            await desk.wait(policy.doubt_longest_s)
            assert desk.state(order) is OrderState.EXPIRED, "it was the owner all the time"

    desk.play(story)


def by_hand(quantity: str, at: int = AT + 1_000, number: str = "H1") -> FillSeen:
    """The owner trades the perpetual in the venue's app; signed."""
    side = Side.BUY if D(quantity) > 0 else Side.SELL
    order = make_order(INSTRUMENTS[BTC_PERP], side=side, quantity=abs(D(quantity)), client_order_id="")
    return FillSeen(replace(make_fill(order, fee=D(0)), venue_trade_id=number, client_order_id="", at=at), True)


def test_what_the_owner_trades_by_hand_is_his_at_once_and_booked_at_the_next_look() -> None:
    desk = Desk()
    desk.sync.take(by_hand("-0.3"))
    assert desk.sync.owners_part("paper", BTC_PERP) == D("-0.3"), "so nothing is opened against it"
    assert desk.sync.compare("paper", wallet(AT + 2_000, positions={BTC_PERP: D("-0.3")})) == 1
    assert desk.sync.unallocated("paper") == {BTC_PERP: D("-0.3")} == {BTC_PERP: desk.sync.owners_part("paper", BTC_PERP)}
    assert desk.sync.compare("paper", wallet(AT + 3_000, positions={BTC_PERP: D("-0.3")})) == 0 and adjustments(desk) == []


@pytest.mark.parametrize("coins", [True, False])
def test_the_money_a_pair_begins_with_is_no_coin_where_pairs_are_positions(coins: bool) -> None:
    told = AccountBook(frozenset({"oanda"} if coins else ()))
    bought = replace(make_fill(make_order(INSTRUMENTS[BTC_SPOT]), fee=D("0.01")), venue="oanda", symbol="USD/JPY", quantity=D(300),
                     fee_currency="USD", at=AT)
    told.apply(ForeignFill(AT, bought))
    found = told.explained("USD"), told.explained("USD/JPY")
    assert found == ((D("299.99"), D("299.99")) if coins else (D(0), D(300)))
    told.apply(UnallocatedMoved(AT + 1, "oanda", "FOREX", "USD", D("-0.24"), "unexplained difference"))
    assert told.strange("USD/JPY") == (0 if coins else 300), "a difference of money says nothing of a position"


def test_what_he_traded_that_was_booked_before_its_fills_were_told_is_counted_once() -> None:
    desk = Desk()
    for at in (AT + 2_000, PROVEN + 2_000):
        desk.sync.compare("paper", wallet(at, positions={BTC_PERP: D("0.3")}))
    desk.sync.take(by_hand("0.3"))
    assert desk.sync.owners_part("paper", BTC_PERP) == D("0.3")
    assert desk.sync.compare("paper", wallet(PROVEN + 3_000, positions={BTC_PERP: D("0.3")})) == 0


def test_what_he_bought_and_sold_again_between_two_looks_is_nothing_and_closes_nothing_of_ours() -> None:
    desk = Desk()

    async def story(desk: Rig) -> None:
        assert isinstance(desk, Desk)
        order = desk.enter(BTC_PERP)
        await desk.clock.settle()
        desk.fill(order)
        desk.sync.take(by_hand("0.3", AT + 1_000))
        desk.sync.take(by_hand("-0.3", AT + 2_000, "H2"))
        assert desk.portfolio.positions[BTC_PERP].quantity == D("0.1") and desk.sync.owners_part("paper", BTC_PERP) == 0

    desk.play(story)


def test_a_difference_that_was_only_a_fill_on_its_way_is_never_booked() -> None:
    desk = Desk()
    assert desk.sync.compare("paper", wallet(perp="9990")) == 1
    assert desk.sync.compare("paper", wallet()) == 0
    assert desk.sync.compare("paper", wallet(perp="9990")) == 1
    assert adjustments(desk) == []


def test_two_different_differences_in_a_row_are_two_first_sights() -> None:
    desk = Desk()
    desk.sync.compare("paper", wallet(perp="9990"))
    desk.sync.compare("paper", wallet(spot="9990"))
    desk.sync.compare("paper", wallet(PROVEN, spot="9980"))
    assert adjustments(desk) == []
    desk.sync.compare("paper", wallet(2 * PROVEN - AT, spot="9980"))
    assert adjustments(desk) == [(SPOT, "USDT", D(-20))]


def test_coins_and_positions_are_compared_by_name_and_what_is_not_ours_is_the_owners() -> None:
    desk = Desk()
    odd = wallet(coins={"BTC": D("0.5")}, positions={BTC_PERP: D("-0.1")})
    assert desk.sync.compare("paper", odd) == 2
    assert desk.sync.compare("paper", replace(odd, at=PROVEN)) == 2
    assert adjustments(desk) == [] and desk.sync.unallocated("paper") == {"BTC": D("0.5"), BTC_PERP: D("-0.1")}, "the owner's, not ours"
    assert desk.sync.compare("paper", odd) == 0


def test_a_wallet_that_differs_in_another_way_every_time_grows_old() -> None:
    desk = Desk()
    desk.reconcile()
    for minute in range(1, 4):
        desk.sync.compare("paper", wallet(AT + minute * 60_000, perp=str(9990 - minute)))
    assert desk.sync.age_s(PERP, AT + 180_000) == 180.0, "nothing to decide on"
    desk.sync.compare("paper", wallet(AT + 240_000, perp="9987"))
    assert desk.sync.age_s(PERP, AT + 240_000) == 0.0, "booked, and so it agrees"


def test_funding_of_a_class_that_is_not_traded_here_is_not_ours() -> None:
    desk = Desk()
    del desk.sync._venue_of[OPTION]  # type: ignore[attr-defined]
    desk.sync.take(FundingPaid("paper", "BTC/USD:BTC-1", OPTION, D(-3), 0.0, AT, "f-1"))
    assert desk.of(FundingBooked) == []


def test_books_that_hold_more_than_the_venue_differ_too() -> None:
    desk = Desk()

    async def hold(desk: Rig) -> None:
        order = desk.enter(BTC_SPOT)
        await desk.clock.settle()
        desk.fill(order)

    desk.play(hold)
    held = desk.portfolio.positions[BTC_SPOT].quantity
    cash = desk.portfolio.wallet_cash(SPOT)
    gone = wallet(spot=str(cash))
    assert desk.sync.compare("paper", wallet(spot=str(cash), coins={"BTC": held})) == 0
    assert desk.sync.compare("paper", gone) == 1
    desk.sync.compare("paper", replace(gone, at=PROVEN))
    assert adjustments(desk) == [(SPOT, "BTC", -held)]


# -- what the venue tells -----------------------------------------------------------------------------------------------------


def test_funding_is_booked_once_per_reference() -> None:
    desk = Desk()
    paid = FundingPaid("paper", BTC_PERP, PERP, D("-1.5"), 0.0001, AT, "funding:1")
    for event in (paid, paid, paid._replace(venue_ref="funding:2")):
        desk.sync.take(event)
    assert len(desk.of(FundingBooked)) == 2 and desk.portfolio.wallet_cash(PERP) == D(9997)


def test_a_settlement_is_booked_once_per_reference() -> None:
    desk = Desk()
    settled = Settled("paper", BTC_CALL, D("0.1"), D(700), D(1), D("0.2"), AT, "expiry:1")
    desk.sync.take(settled)
    desk.sync.take(settled)
    assert len(desk.of(OptionSettled)) == 1


def test_a_deposit_is_no_profit_and_a_withdrawal_no_drawdown() -> None:
    desk = Desk()
    before = desk.kill_switch.nav(SPOT)
    for amount, reference in ((D(600), "t1"), (D(-5000), "t2")):
        desk.sync.take(Transferred(SPOT, amount, AT, reference))
        desk.sync.take(Transferred(SPOT, amount, AT, reference))
    ledger = desk.portfolio.ledger(SPOT)
    assert ledger.cash == D(5600) and ledger.transfers == D(5600) and ledger.net == 0
    desk.kill_switch.mark(SPOT, ledger.cash, AT + 1)
    assert desk.kill_switch.nav(SPOT) == before and desk.kill_switch.drawdown(SPOT, "day") == 0
    moved = [fact for fact in desk.facts if isinstance(fact, TransferSeen) and fact.venue_ref in ("t1", "t2")]
    assert [(fact.amount, fact.equity_before) for fact in moved] == [(D(600), D(10_000)), (D(-5000), D(10_600))]


def test_a_transfer_while_a_price_is_missing_is_priced_by_the_cash() -> None:
    desk = Desk()
    desk.market.series[BTC_SPOT].quoted_at = 0

    async def hold(desk: Rig) -> None:
        order = desk.enter(BTC_SPOT, stop=49_000.0)
        await desk.clock.settle()
        desk.fill(order)

    desk.play(hold)
    desk.sync.take(Transferred(SPOT, D(100), AT, "t1"))
    (moved,) = [fact for fact in desk.facts if isinstance(fact, TransferSeen) and fact.venue_ref == "t1"]
    assert moved.equity_before == desk.portfolio.ledger(SPOT).cash - 100


def test_fills_and_ends_go_to_the_executor() -> None:
    desk = Desk()

    async def scenario(desk: Rig) -> None:
        assert isinstance(desk, Desk)
        order, other = desk.enter(), desk.enter(BTC_SPOT, trade_id="trade-2")
        await desk.clock.settle()
        seen = FillSeen(make_fill(order, quantity=order.quantity, fee=D("0.01")), True)
        desk.sync.take(seen)
        desk.sync.take(seen)
        desk.sync.take(OrderDone(other.client_order_id, AT + 5, "canceled", "by the owner"))

    desk.play(scenario)
    assert len(desk.of(Filled)) == 1 and len(desk.of(OrderCanceled)) == 1


# -- the start -------------------------------------------------------------------------------------------------------------------


def test_before_it_is_reconciled_no_wallet_has_an_age_and_no_class_an_equity() -> None:
    desk = Desk()
    assert desk.sync.age_s(SPOT, AT) is None and desk.sync.equity(SPOT) is None
    desk.reconcile()
    assert desk.sync.age_s(SPOT, AT + 3_000) == 3.0 and desk.sync.equity(SPOT) == D(10_000)
    assert desk.sync.equity(OPTION) is None, "a class the venue does not know has no equity"


def test_an_agreeing_start_takes_one_look_and_says_so() -> None:
    desk = Desk()
    assert desk.reconcile() == 0
    (done,) = desk.of(Reconciled)
    assert isinstance(done, Reconciled) and done.differences == 0 and adjustments(desk) == []


def test_a_difference_found_at_the_start_is_booked_when_it_has_stood_for_long_enough_and_nothing_opens_before() -> None:
    desk = Desk(wallet(perp="9000"))
    assert desk.reconcile() == 1
    assert adjustments(desk) == [] and desk.sync.age_s(PERP, AT) is None, "a history that lags may still explain it"
    desk.sync.compare("paper", wallet(PROVEN, perp="9000"))
    assert adjustments(desk) == [(PERP, "USDT", D(-1000))] and desk.portfolio.wallet_cash(PERP) == D(9000)
    assert desk.sync.compare("paper", wallet(PROVEN, perp="9000")) == 0 and desk.sync.age_s(PERP, PROVEN) == 0.0
    (done,) = desk.of(Reconciled)
    assert isinstance(done, Reconciled) and done.differences == 1


def test_a_wallet_that_was_read_too_early_costs_a_second_look_and_nothing_else() -> None:
    desk = Desk(wallet(perp="9000"), wallet(perp="9000"), wallet())
    assert desk.reconcile() == 1 and adjustments(desk) == []


def test_the_opening_balances_are_transfers_and_are_made_once() -> None:
    desk = Desk()
    for _ in range(2):
        desk.reconcile()
    assert [fact for fact in desk.facts if isinstance(fact, TransferSeen) and fact.at > AT] == []
    fresh = Desk()
    fresh.sync._told.booked.clear()
    fresh.reconcile()
    opened = [fact for fact in fresh.facts if isinstance(fact, TransferSeen)][-2:]
    assert [(fact.asset_class, fact.amount, fact.venue_ref) for fact in opened] == [
        (SPOT, D(10_000), "opening SPOT"), (PERP, D(10_000), "opening PERP")]


def test_what_filled_while_we_were_away_is_booked_before_anything_counts_as_a_difference() -> None:
    desk = Desk()

    async def life(desk: Rig) -> None:
        order = desk.enter()
        await desk.clock.settle()
        desk.fill(order)
        await desk.clock.settle()

    desk.play(life)
    (stop,) = [record.order for record in desk.executor.orders.values() if record.working and record.order.purpose.value == "stop"]
    (target,) = [record.order for record in desk.executor.orders.values() if record.working and record.order.purpose.value == "target"]
    venue = desk.account
    venue.fills = [FillSeen(make_fill(stop, price=D(49_000), fee=D("0.01"), venue_trade_id="T99"), True)]
    venue.knows[target.client_order_id] = OrderReport(target.client_order_id, "V3", BTC_PERP, OrderState.CANCELED, D(0), D("0.1"))
    venue.wallets = [wallet(perp="9899.98")]  # less fees of 0.01 each way and 100 of loss
    loop = asyncio.new_event_loop()
    try:
        desk.clock._loop = loop  # type: ignore[assignment]
        desk.sync._clock = _Still(AT + 9)  # type: ignore[assignment]
        desk.executor._clock = _Still(AT + 9)  # type: ignore[assignment]
        assert loop.run_until_complete(desk.sync.reconcile(venue)) == 0
    finally:
        loop.close()
    assert adjustments(desk) == [] and desk.portfolio.positions == {} and desk.portfolio.wallet_cash(PERP) == D("9899.98")


class _Still:
    """A clock that stands."""

    def __init__(self, at: int) -> None:
        self._at = at

    def now(self) -> int:
        return self._at

    async def settle(self) -> None:
        await asyncio.sleep(0)


def test_a_venue_that_cannot_be_asked_starts_nothing() -> None:
    desk = Desk()
    desk.account.faults = [VenueUnreachable("down")]
    with pytest.raises(VenueUnreachable):
        desk.reconcile()
    assert desk.sync.reconciled == {"paper": False} and desk.sync.age_s(SPOT, AT) is None


# -- the audit -------------------------------------------------------------------------------------------------------------------


def test_a_wallet_is_audited_every_poll_and_grows_old_while_the_venue_is_silent() -> None:
    desk = Desk()
    poll = POLICIES.execution.wallet_poll_s

    async def scenario() -> None:
        await desk.sync.reconcile(desk.account)
        running = asyncio.ensure_future(desk.sync.run())
        desk.account.wallets = [wallet(AT + 15_000)]
        await asyncio.sleep(poll + 1)
        assert desk.sync.age_s(SPOT, desk.clock.now()) == pytest.approx(1.0, abs=0.1)
        desk.account.faults = [VenueUnreachable("down")] * 100
        await asyncio.sleep(60)
        age = desk.sync.age_s(SPOT, desk.clock.now())
        assert age is not None and age > 60 > POLICIES.risk.wallet_age_s_max - 1, "too old for any entry"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    desk.loop.run_until_complete(scenario())
    desk.loop.close()
    assert len([fact for fact in desk.facts if type(fact).__name__ == "ApiErrorSeen"]) == 4


def test_while_something_is_held_the_wallet_is_read_twice_as_often_and_a_look_that_failed_is_tried_once_more_soon() -> None:
    desk = Desk()

    async def scenario() -> None:
        await desk.sync.reconcile(desk.account)
        desk.enter()
        desk.account.faults = [VenueUnreachable("down")] * 5
        desk.account.read_at.clear()
        running = asyncio.ensure_future(desk.sync.run())
        await asyncio.sleep(60)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    desk.loop.run_until_complete(scenario())
    desk.loop.close()
    half, soon = POLICIES.execution.wallet_poll_s / 2.0, POLICIES.execution.wallet_settle_s
    pauses = [(later - earlier) / 1000.0 for earlier, later in pairwise([AT, *desk.account.read_at])]
    assert pauses[:7] == pytest.approx([half, soon, half, soon, half, soon, half], abs=0.1)
    assert len([fact for fact in desk.facts if type(fact).__name__ == "ApiErrorSeen"]) == 2, "no more than if it were read every poll"


def test_an_in_process_venue_is_never_stale_and_has_our_clock() -> None:
    desk = Desk()
    assert desk.sync.clock_offset_s(SPOT) is None, "nobody has read the venue's clock"
    desk.account.capabilities = replace(desk.account.capabilities, in_process=True)
    desk.reconcile()
    assert desk.sync.age_s(SPOT, AT + 10**9) == 0.0 and desk.sync.clock_offset_s(SPOT) == 0.0


# -- on a wire ------------------------------------------------------------------------------------------------------------------


def test_what_the_venue_has_to_tell_is_booked_before_anything_counts_as_a_difference() -> None:
    """Funding and a withdrawal while we were away: the wallet differs by them, and they are booked once, as what they are."""
    desk = Desk(wallet(perp="9000.5"))
    told: list[AccountEvent] = [FundingPaid("paper", BTC_PERP, PERP, D("0.5"), 0.0001, AT + 1, "f1"),
                                Transferred(PERP, D(-1000), AT + 2, "t1")]
    desk.account.untold = list(told)
    desk.sync.apply(Reconciled(AT + 500_000, "paper", 0))
    assert desk.reconcile() == 0
    assert adjustments(desk) == [] and len(desk.of(FundingBooked)) == 1 and desk.portfolio.wallet_cash(PERP) == D("9000.5")
    assert desk.account.told_since[0] == AT + 440_000, "from a little before the account was last known"
    desk.account.untold = list(told)
    assert desk.reconcile() == 0 and len(desk.of(FundingBooked)) == 1, "repeats change nothing"


def test_a_new_journal_opens_with_a_wallet_in_which_nothing_moved_while_it_was_read() -> None:
    desk = Desk(wallet(perp="9000"), wallet(perp="9250"))
    desk.sync._told.booked.clear()
    desk.sync._told.opened_at.clear()
    desk.account.untold = [Transferred(PERP, D(50), AT - 9, "old")]
    first = desk.account.missed

    async def missed(since: int | None = None) -> Sequence[AccountEvent]:
        told = await first(since)
        if len(desk.account.told_since) == 2:  # a deposit crosses the first look
            return [Transferred(PERP, D(250), AT + 1, "t1")]
        return told

    desk.account.missed = missed  # type: ignore[method-assign]
    desk.reconcile()
    opened = [(fact.asset_class, fact.amount) for fact in desk.of(TransferSeen) if fact.venue_ref.startswith("opening")]
    assert opened[-2:] == [(SPOT, D(10_000)), (PERP, D(9_250))]
    assert desk.account.told_since[0] is None and not [f for f in desk.of(TransferSeen) if f.venue_ref in ("old", "t1")]


def test_an_account_that_is_not_ours_to_trade_on_is_no_start() -> None:
    desk = Desk()
    desk.account.denied = VenueDenied("paper: the key may Withdraw; make one that may only trade")
    with pytest.raises(VenueDenied, match="make one"):
        desk.reconcile()
    assert desk.of(Reconciled) == [] and desk.sync.age_s(SPOT, AT) is None


@pytest.mark.parametrize(("error", "kind", "trigger"), [
    (VenueDenied("the token is not accepted"), "authentication", "api_authentication"),
    (VenueBusy("banned", AT + 100_000), "rate_limit", "api_errors"),
    (VenueUnreachable("down"), "error", None),
])
def test_a_read_that_fails_is_told_to_the_kill_switch_as_what_it_is(error: Exception, kind: str, trigger: str | None) -> None:
    desk = Desk()

    async def scenario() -> None:
        await desk.sync.reconcile(desk.account)
        running = asyncio.ensure_future(desk.sync.run())
        await asyncio.sleep(1)
        desk.account.faults = [error]
        asked = len(desk.account.told_since)
        await asyncio.sleep(POLICIES.execution.wallet_poll_s + 1)
        (seen,) = desk.of(ApiErrorSeen)
        assert (seen.kind, seen.until) == (kind, getattr(error, "until", None))
        assert {fact.trigger.value for fact in desk.of(TradingHalted)} == ({trigger} if trigger else set())
        if isinstance(error, VenueBusy):
            before = desk.sync._agreed_at["paper"]
            await asyncio.sleep(40)
            assert desk.sync._agreed_at["paper"] == before and len(desk.account.told_since) == asked, "nobody asks before the ban ends"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    desk.loop.run_until_complete(scenario())
    desk.loop.close()


def test_the_venues_clock_is_measured_again_and_again_and_an_old_measurement_is_none() -> None:
    desk = Desk()
    poll = POLICIES.execution.clock_poll_s

    async def scenario() -> None:
        desk.account.offset_ms = None
        await desk.sync.reconcile(desk.account)
        assert desk.sync.clock_offset_s(SPOT) is None, "unknown is not zero"
        running = asyncio.ensure_future(desk.sync.run())
        desk.account.offset_ms = -250
        await asyncio.sleep(3)
        assert desk.sync.clock_offset_s(SPOT) == -0.25
        desk.account.offset_ms = 1_500
        await asyncio.sleep(poll + 1)
        assert desk.sync.clock_offset_s(SPOT) == 1.5
        desk.account.offset_ms = None
        await asyncio.sleep(3 * poll + 1)
        assert desk.sync.clock_offset_s(SPOT) is None, "clocks drift while nobody looks"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    desk.loop.run_until_complete(scenario())
    desk.loop.close()


def test_funding_of_a_position_that_is_the_owners_is_the_owners() -> None:
    desk = Desk()
    desk.funds._allocated[PERP] = D(5_000)
    desk.account.untold = []
    desk.sync.take(FundingPaid("paper", BTC_PERP, PERP, D("-1.5"), 0.0001, AT, "funding:1"))
    desk.sync.take(FundingPaid("paper", BTC_PERP, PERP, D("-1.5"), 0.0001, AT, "funding:1"))
    assert desk.of(FundingBooked) == [] and desk.sync.unallocated("paper") == {"USDT": D("-1.5")}


def _shared_with_the_owner(ours: str, owners: str, *, allocated: bool = True) -> Desk:
    """A desk that holds `ours` of the perpetual in an account whose owner holds `owners` of it by hand."""
    desk = Desk()
    if allocated:
        desk.funds._allocated[PERP] = D(5_000)
    if D(ours):
        order = desk.enter(side=Side.BUY if D(ours) > 0 else Side.SELL, quantity=str(abs(D(ours))))
        desk.fill(order)
    if D(owners):
        desk.journal.append(UnallocatedMoved(AT, "paper", PERP.value, BTC_PERP, D(owners), "by hand"))
    return desk


def _paid(desk: Desk, amount: str = "-3", at: int = AT) -> tuple[Decimal, Decimal]:
    """Ours and the owner's part of a funding that is told twice."""
    before = desk.sync.unallocated("paper").get("USDT", D(0))
    for _ in range(2):
        desk.sync.take(FundingPaid("paper", BTC_PERP, PERP, D(amount), 0.0001, at, f"funding:{at}"))
    owners = desk.sync.unallocated("paper").get("USDT", D(0)) - before
    return sum((fact.amount for fact in desk.of(FundingBooked)), D(0)), owners


@pytest.mark.parametrize(("ours", "owners", "share"), [
    ("0.1", "0", "-3"), ("0.1", "0.2", "-1"), ("0.1", "0.5", "-0.5"), ("-0.1", "-0.2", "-1"),
    ("0.3", "-0.1", "-3"),  # he nets against us: the whole rest is ours
    ("0.1", "-0.3", "0"),  # ours is netted away, the rest is his
    ("0", "0.2", "0"),
])
def test_funding_of_what_the_owner_holds_too_is_shared_by_whose_the_position_is(ours: str, owners: str, share: str) -> None:
    assert _paid(_shared_with_the_owner(ours, owners)) == (D(share), D(-3) - D(share))


def test_the_owners_funding_in_a_wallet_that_is_all_ours_is_a_withdrawal_and_no_loss_of_ours() -> None:
    desk = _shared_with_the_owner("0.1", "0.2", allocated=False)
    cash, transfers = desk.portfolio.ledger(PERP).cash, desk.portfolio.ledger(PERP).transfers
    assert _paid(desk)[0] == D(-1)
    assert desk.portfolio.ledger(PERP).cash == cash - 3, "the venue took it all from this wallet"
    assert desk.portfolio.ledger(PERP).transfers == transfers - 2


def test_funding_that_is_told_late_is_shared_by_what_was_held_when_it_was_charged() -> None:
    desk = _shared_with_the_owner("0.1", "0.2")
    exit = replace(desk.enter(side=Side.SELL, quantity="0.1", trade_id="out"), reduce_only=True)
    charged = AT
    desk.executor.on_fill(FillSeen(make_fill(exit, quantity=D("0.1"), at=AT + 1_000, venue_trade_id="T99"), True))
    assert BTC_PERP not in desk.portfolio.positions
    assert _paid(desk, at=charged) == (D(-1), D(-2))


def test_that_an_account_was_fully_told_is_put_on_record_now_and_then() -> None:
    desk = Desk()

    async def scenario() -> None:
        await desk.sync.reconcile(desk.account)
        running = asyncio.ensure_future(desk.sync.run())
        await asyncio.sleep(2.1 * POLICIES.execution.account_mark_s)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    desk.loop.run_until_complete(scenario())
    desk.loop.close()
    assert len(desk.of(Reconciled)) == 3


def test_a_difference_no_stream_explained_is_asked_about_before_it_is_believed() -> None:
    desk = Desk()

    async def scenario() -> None:
        await desk.sync.reconcile(desk.account)
        running = asyncio.ensure_future(desk.sync.run())
        await asyncio.sleep(1)
        desk.account.wallets = [wallet(perp="10000.5")]
        desk.account.untold = [FundingPaid("paper", BTC_PERP, PERP, D("0.5"), 0.0001, AT + 1, "f1")]
        await asyncio.sleep(3 * POLICIES.execution.wallet_poll_s)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    desk.loop.run_until_complete(scenario())
    desk.loop.close()
    assert adjustments(desk) == [] and [fact.amount for fact in desk.of(FundingBooked)] == [D("0.5")]


def test_a_fee_in_a_third_coin_leaves_the_owners_coins_his_and_the_books_exact() -> None:
    desk = Desk()
    mine = wallet(coins={"BNB": D("1.5")})
    desk.sync.compare("paper", mine)
    desk.sync.compare("paper", replace(mine, at=PROVEN))
    assert desk.sync.unallocated("paper") == {"BNB": D("1.5")}

    async def hold(desk: Rig) -> None:
        assert isinstance(desk, Desk)
        order = desk.enter(BTC_SPOT)
        await desk.clock.settle()
        desk.sync.take(FillSeen(make_fill(order, fee=D("0.01"), fee_currency="BNB", fee_rate=D(600)), True))

    desk.play(hold)
    ledger = desk.portfolio.ledger(SPOT)
    assert ledger.fees == D(6), "what the coin was worth"
    after = wallet(spot="5000", coins={"BNB": D("1.49"), "BTC": D("0.1")})
    assert desk.sync.compare("paper", after) == 0
    assert desk.sync.unallocated("paper") == {"BNB": D("1.5")} and adjustments(desk) == []
