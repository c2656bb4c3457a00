"""A fire drill on a real account, with the smallest orders there are: does every wire that trading depends on do what we think it does?

Owns the order of the steps and the cleaning up: whatever fails, what was sent is canceled, what was bought is sold, and what could not be
undone is named. Refuses an instrument that is not flat before. Talks to one venue; writes nothing down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple, TypeVar

from modules.domain.errors import BotError, VenueDenied, VenueError
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.money import ONE, ZERO, round_up, text
from modules.domain.order import TERMINAL, Accepted, Fate, InDoubt, Order, OrderKind, OrderReport, OrderState, Purpose, Refused, drill_id
from modules.runtime.clock import Clock
from modules.venues.protocol import FillSeen, Venue, Wallet
from modules.venues.selection import Listing, Statistic

FAR: Final = Decimal("0.85")
"""Where the limit order rests, as a share of the bid: too far to be filled, near enough for price bands."""
STOP: Final = Decimal("0.90")
"""Where the stop rests: it must be seen there, not fire."""
MARGIN: Final = Decimal("1.05")
"""Bought is this much more than the venue's minimum, so that after the fee and a move it can still be sold."""
SKEW_MS: Final = 60_000
"""Fills are asked for from this much before the first order: the venue's clock may be behind ours."""

Found = TypeVar("Found")


class Pace(NamedTuple):
    """Seconds: how long to wait for the venue to say what it must say, and between two questions."""

    patience_s: float = 20.0
    poll_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    ok: bool
    said: str
    ms: int


@dataclass(frozen=True, slots=True)
class Outcome:
    passed: bool
    steps: tuple[Step, ...]
    cost: Decimal | None
    """What it cost in settlement currency, fees and spread; None = not known."""
    left: tuple[str, ...]
    """What could not be cleaned up, in words; () = nothing is left."""


class Failed(BotError):
    """A step did not show what it must. Never leaves `Drill.run`."""


def quantity_for(instrument: Instrument, bid: Decimal) -> Decimal:
    """The smallest quantity that can be bought, protected by a stop below and sold again."""
    kept = ONE - instrument.taker_fee if instrument.asset_class is AssetClass.SPOT else ONE
    least = max(instrument.lot, instrument.quantity_min)
    if instrument.notional_min > ZERO:
        least = max(least, instrument.quantity_for(instrument.notional_min * MARGIN, bid * FAR))
    return round_up(least / kept, instrument.lot)


def cheapest(instruments: Sequence[Instrument], statistics: Sequence[Statistic]) -> tuple[Instrument, Statistic] | None:
    """The instrument whose smallest round trip moves the least money, of those with a sane quote; None if there is none."""
    known = {row.symbol: row for row in statistics if row.spread_ratio == row.spread_ratio}
    priced = [(instrument, known[instrument.symbol]) for instrument in instruments if instrument.symbol in known]

    def worth(pair: tuple[Instrument, Statistic]) -> tuple[Decimal, str]:
        bid = Decimal(repr(pair[1].bid))
        return pair[0].notional(quantity_for(pair[0], bid), bid), pair[0].symbol

    return min(priced, key=worth, default=None)


class Drill:
    """One run on one instrument. `tell` hears every step as it ends."""

    def __init__(self, venue: Venue, listing: Listing, instrument: Instrument, clock: Clock, tell: Callable[[Step], None],
                 pace: Pace | None = None) -> None:
        self._venue = venue
        self._listing = listing
        self._instrument = instrument
        self._clock = clock
        self._tell = tell
        self._pace = pace if pace is not None else Pace()
        self._began = clock.now()
        self._steps: list[Step] = []
        self._working: dict[str, Order] = {}
        """Sent, and not proven to have ended."""
        self._ours: set[str] = set()
        self._bid = self._ask = ZERO
        self._coins_before = ZERO
        self._buy: Order | None = None
        self._stop: Order | None = None

    async def run(self) -> Outcome:
        """Every step until one fails; then, whatever happened, cleaned up. An interruption counts as a failure."""
        passed = True
        try:
            for name, step in self._program().items():
                await self._do(name, step)
        except (Failed, VenueError):
            passed = False
        except asyncio.CancelledError:
            passed = False
            self._note("interrupted", False, "by whoever ran it", self._clock.now())
        left = [] if passed else await self._clean_up()
        return Outcome(passed, tuple(self._steps), await self._cost(), tuple(left))

    def _program(self) -> Mapping[str, Callable[[], Awaitable[str]]]:
        return {
            "account": self._account, "flat before": self._flat_before, "price": self._price,
            "far limit order": self._far_order, "query by our id": self._query, "cancel": self._cancel_far,
            "minimum buy": self._minimum_buy, "stop at the venue": self._rest_stop, "stop seen resting": self._see_stop,
            "cancel the stop": self._cancel_stop, "sell": self._sell, "flat again": self._flat_again,
        }

    async def _do(self, name: str, step: Callable[[], Awaitable[str]]) -> None:
        began = self._clock.now()
        try:
            said = await step()
        except (Failed, VenueError) as error:
            self._note(name, False, str(error), began)
            raise
        self._note(name, True, said, began)

    def _note(self, name: str, ok: bool, said: str, began: int) -> None:
        step = Step(name, ok, said, self._clock.now() - began)
        self._steps.append(step)
        self._tell(step)

    # -- the steps ----------------------------------------------------------------------------------------------------------

    async def _account(self) -> str:
        await self._venue.check()
        return "the venue takes the key and tells of no right it must not have; the account is the right kind"

    async def _flat_before(self) -> str:
        wallet = await self._venue.wallet()
        symbol, part = self._instrument.symbol, wallet.classes[self._instrument.asset_class]
        if held := part.positions.get(symbol, ZERO):
            raise Failed(f"{text(held)} of {symbol} are held already: close that, or drill another --symbol")
        if working := [report.client_order_id for report in wallet.open_orders if report.symbol == symbol]:
            raise Failed(f"{len(working)} orders of ours rest on {symbol} ({working[0]}): cancel them first")
        self._coins_before = part.coins.get(self._instrument.base, ZERO)
        return f"{part.cash:,.2f} {part.currency} in cash, nothing held and nothing working"

    async def _price(self) -> str:
        row = next((row for row in await self._listing.statistics() if row.symbol == self._instrument.symbol), None)
        if row is None or not row.spread_ratio == row.spread_ratio:
            raise Failed(f"{self._instrument.symbol} has no sane quote now; is its market closed?")
        self._bid, self._ask = Decimal(repr(row.bid)), Decimal(repr(row.ask))
        return f"{self._instrument.symbol} bid {row.bid:g}, ask {row.ask:g}"

    async def _far_order(self) -> str:
        price = self._instrument.round_price(self._bid * FAR, up=False)
        order = self._order(Side.BUY, quantity_for(self._instrument, self._bid), OrderKind.LIMIT, Purpose.ENTRY, price)
        self._buy = order
        await self._submit(order)
        return f"buy {text(order.quantity)} at {text(price)} accepted"

    async def _query(self) -> str:
        assert self._buy is not None
        report = await self._report(self._buy, lambda found: found.state is OrderState.ACCEPTED)
        if report.filled != ZERO:
            raise Failed(f"{text(report.filled)} of an order {(ONE - FAR):.0%} below the market are filled")
        return f"found as {report.client_order_id}, resting"

    async def _cancel_far(self) -> str:
        assert self._buy is not None
        return await self._cancel(self._buy)

    async def _minimum_buy(self) -> str:
        order = self._buy = self._order(Side.BUY, quantity_for(self._instrument, self._bid), OrderKind.MARKET, Purpose.ENTRY, None)
        await self._submit(order)
        return await self._filled(order)

    async def _rest_stop(self) -> str:
        held = await self._held()
        price = self._instrument.round_price(self._bid * STOP, up=False)
        self._stop = self._order(Side.SELL, self._instrument.round_quantity_down(held), OrderKind.STOP, Purpose.STOP, price)
        await self._submit(self._stop)
        return f"sell {text(self._stop.quantity)} at {text(price)} accepted"

    async def _see_stop(self) -> str:
        """A stop that was taken for a market order would be gone, and what it protects with it."""
        assert self._stop is not None
        stop = self._stop
        report = await self._report(stop, lambda found: found.state is not OrderState.SENT)
        if report.state is not OrderState.ACCEPTED or report.filled != ZERO:
            raise Failed(f"the stop is {report.state.value}, {text(report.filled)} filled: it did not rest")

        async def listed() -> Wallet | None:
            wallet = await self._venue.wallet()
            return wallet if any(row.client_order_id == stop.client_order_id for row in wallet.open_orders) else None

        if await self._until(listed) is None:
            raise Failed("the stop is not among the account's open orders")
        if await self._held() < stop.quantity:
            raise Failed("the stop rests, but what it protects is gone")
        return "among the account's open orders, and what it protects is still held"

    async def _cancel_stop(self) -> str:
        assert self._stop is not None
        return await self._cancel(self._stop)

    async def _sell(self) -> str:
        held = self._instrument.round_quantity_down(await self._held())
        order = self._order(Side.SELL, held, OrderKind.MARKET, Purpose.EXIT, None)
        await self._submit(order)
        return await self._filled(order)

    async def _flat_again(self) -> str:
        async def flat() -> Wallet | None:
            wallet = await self._venue.wallet()
            part = wallet.classes[self._instrument.asset_class]
            clear = not part.positions.get(self._instrument.symbol, ZERO) and not any(
                row.client_order_id in self._ours for row in wallet.open_orders)
            if self._instrument.asset_class is AssetClass.SPOT:
                clear = clear and part.coins.get(self._instrument.base, ZERO) - self._coins_before < self._instrument.lot
            return wallet if clear else None

        if (wallet := await self._until(flat)) is None:
            raise Failed("something is still held, or still rests")
        dust = wallet.classes[self._instrument.asset_class].coins.get(self._instrument.base, ZERO) - self._coins_before
        left = f" but {text(dust)} {self._instrument.base}, less than can be sold" if dust > ZERO else ""
        return f"nothing held{left}, nothing working"

    # -- orders -------------------------------------------------------------------------------------------------------------

    def _order(self, side: Side, quantity: Decimal, kind: OrderKind, purpose: Purpose, price: Decimal | None) -> Order:
        symbol = self._instrument.symbol
        name = drill_id(symbol, self._began, side, purpose, len(self._ours))
        return Order(
            client_order_id=name, trade_id="drill", decision_id="drill", strategy="drill", venue=self._venue.name, symbol=symbol,
            asset_class=self._instrument.asset_class, side=side, quantity=quantity, kind=kind, purpose=purpose, price=price,
            reduce_only=side is Side.SELL, leverage=ONE, arrival_price=self._bid, slippage_model_bp=ZERO, reserves=ZERO,
            at=self._clock.now())

    async def _submit(self, order: Order) -> None:
        """Sent once. Anything but a clear yes fails the drill; what became of it is the clean-up's to find out."""
        self._ours.add(order.client_order_id)
        self._working[order.client_order_id] = order
        fate = await self._venue.submit(order)
        if isinstance(fate, Accepted):
            return
        if not isinstance(fate, InDoubt):
            del self._working[order.client_order_id]
        raise Failed(_words(fate))

    async def _cancel(self, order: Order) -> str:
        fate = await self._venue.cancel(order)
        if not isinstance(fate, Accepted):
            raise Failed(_words(fate))
        report = await self._report(order, lambda found: found.state in TERMINAL)
        if report.state is not OrderState.CANCELED:
            raise Failed(f"after the cancel it is {report.state.value}")
        return "the venue says that it is canceled"

    async def _filled(self, order: Order) -> str:
        report = await self._report(order, lambda found: found.state in TERMINAL)
        if report.state is not OrderState.FILLED:
            raise Failed(f"the market order ended {report.state.value}, {text(report.filled)} filled")

        async def told() -> Sequence[FillSeen] | None:
            fills = [seen for seen in await self._fills() if seen.fill.client_order_id == order.client_order_id]
            return fills if sum((seen.fill.quantity for seen in fills), ZERO) >= order.quantity else None

        fills = await self._until(told)
        if fills is None:
            raise Failed("filled, but the venue does not tell the fills")
        paid = sum((seen.fill.quantity * seen.fill.price for seen in fills), ZERO)
        fee = sum((seen.fill.fee * seen.fill.fee_rate for seen in fills), ZERO)
        return f"{text(order.quantity)} at {paid / order.quantity:.8g}, fee {fee:.6f} {self._instrument.settle}"

    async def _report(self, order: Order, enough: Callable[[OrderReport], bool]) -> OrderReport:
        """What the venue says of an order once it says `enough`. One that ended needs no cleaning up."""

        async def asked() -> OrderReport | None:
            found = await self._venue.order(order.client_order_id, order.symbol)
            if found is not None and found.state in TERMINAL:
                self._working.pop(order.client_order_id, None)
            return found if found is not None and enough(found) else None

        found = await self._until(asked)
        if found is None:
            raise Failed(f"asked for {order.client_order_id} for {self._pace.patience_s:g} s, the venue does not say what it must")
        return found

    async def _until(self, ask: Callable[[], Awaitable[Found | None]]) -> Found | None:
        """The first answer that is one; None when patience ends. One question that fails is asked again, the last one's error raised."""
        end = self._clock.now() + self._pace.patience_s * 1_000
        while True:
            late = self._clock.now() >= end
            try:
                found = await ask()
            except VenueError as error:
                if late or isinstance(error, VenueDenied):
                    raise
                found = None
            if found is not None or late:
                return found
            await asyncio.sleep(self._pace.poll_s)

    async def _fills(self) -> list[FillSeen]:
        return [seen for seen in await self._venue.fills_since(self._began - SKEW_MS) if seen.fill.client_order_id in self._ours]

    async def _held(self) -> Decimal:
        """What our own fills left, base-coin fees taken off."""
        held = ZERO
        for seen in await self._fills():
            fill = seen.fill
            held += fill.quantity * fill.side.sign
            if self._instrument.asset_class is AssetClass.SPOT and fill.fee_currency == self._instrument.base:
                held -= fill.fee
        return held

    async def _cost(self) -> Decimal | None:
        """Paid less received, fees in, in settlement currency. None if it cannot be asked, or something is still held."""
        if not self._ours:
            return ZERO
        try:
            fills = [seen.fill for seen in await self._fills()]
        except VenueError:
            return None
        # A fee taken in the coin itself is in the price already: less was sold than was bought.
        in_coin = self._instrument.base if self._instrument.asset_class is AssetClass.SPOT else ""
        held = sum((fill.quantity * fill.side.sign - (fill.fee if fill.fee_currency == in_coin else ZERO) for fill in fills), ZERO)
        if held >= self._instrument.lot:
            return None
        paid = sum((fill.quantity * fill.price * fill.side.sign * fill.settle_rate for fill in fills), ZERO)
        return paid + sum((fill.fee * fill.fee_rate for fill in fills if fill.fee_currency != in_coin), ZERO)

    # -- cleaning up --------------------------------------------------------------------------------------------------------

    async def _clean_up(self) -> list[str]:
        """Cancel what works, sell what is held, and name what could not be undone. Never raises VenueError."""
        began, left = self._clock.now(), list[str]()
        for order in list(self._working.values()):
            if (trouble := await self._undo(order)):
                left.append(trouble)
        left += await self._let_go()
        if self._ours:
            self._note("cleaned up", not left, "; ".join(left) or "what was sent is canceled, what was bought is sold", began)
        return left

    async def _undo(self, order: Order) -> str:
        """"" once the venue says that it ended."""
        said = "no answer"

        async def ended() -> bool | None:
            nonlocal said
            try:
                fate = await self._venue.cancel(order)
                found = await self._venue.order(order.client_order_id, order.symbol)
            except VenueError as error:
                said = str(error)
                return None
            said = "the venue does not know it (yet)" if found is None else f"it is {found.state.value}; {_words(fate)}"
            return True if found is not None and found.state in TERMINAL else None

        if await self._until(ended):
            self._working.pop(order.client_order_id, None)
            return ""
        what = f"{order.side.value.lower()} {text(order.quantity)} {order.symbol}"
        return f"order {order.client_order_id} ({what}) may still be there: {said}. Look at the venue's own page and cancel it by hand"

    async def _let_go(self) -> list[str]:
        """Sell what our fills left. A position is only ever reduced; coins are sold as far as they are ours."""
        try:
            held = self._instrument.round_quantity_down(await self._held()) if self._ours else ZERO
            if held <= ZERO:
                return []
            order = self._order(Side.SELL, held, OrderKind.MARKET, Purpose.EXIT, None)
            await self._submit(order)
            await self._filled(order)
        except (Failed, VenueError) as error:
            return [f"what was bought of {self._instrument.symbol} may still be held ({error}): sell it on the venue's own page"]
        return []


def _words(fate: Fate) -> str:
    match fate:
        case Accepted():
            return "accepted"
        case Refused():
            return f"refused by the venue ({fate.code}): {fate.message}"
        case InDoubt():
            return f"in doubt: {fate.message}"
        case _:
            return f"not sent: {fate.message}"
