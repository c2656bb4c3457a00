"""Sizer: what one signal may trade, by the owner's four phases. Pure arithmetic; owns only the phase it last announced.

May refuse: equity not positive, an input unknown, no stop where risk needs one, a stop behind its liquidation, a phase-1 trade that a
ceiling would shrink, anything below the venue's minimum or that its own stop could not sell again. Writes PhaseChanged.

How a size comes about: `_desire` (the phase's own rule) -> the smallest of the ceilings -> learning and mood (only downward) -> live
ramp -> rounded down to the lot. *Notional* is in settlement currency throughout. For options the unit of notional is the maximum
loss, fees included, so that one formula serves all four classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import ROUND_UP, Context, Decimal
from typing import TYPE_CHECKING, Final

from modules.domain.decision import BoundBy, Check, Number, Rule, Size
from modules.domain.errors import BotError
from modules.domain.events import Fact, PhaseChanged
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.liquidation import leverage_safe, liquidation_distance
from modules.domain.money import ONE, ZERO, round_down, round_up
from modules.domain.policies import CostPolicy, SizingPolicy
from modules.domain.signal import Signal, Structure
from modules.domain.view import View
from modules.runtime.clock import IDLE

if TYPE_CHECKING:
    from modules.runtime.clock import Clock
    from modules.store.journal import Journal

WATCH_S: Final = 300.0
"""How often the phases are looked at for an announcement; a size always takes the phase of its own moment."""
_UNIT_PRICE: Final = Context(prec=18, rounding=ROUND_UP)
"""For the value of one unit of quantity: up, never understated; and 18 digits, so that quantity x value is exact and one lot is one lot."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whose money and how sure. Money in settlement currency."""

    phase: int
    equity: Decimal
    confidence: Decimal
    dollar: Decimal
    """One US dollar."""
    fixed: Decimal
    """Phase 1's $10."""
    rate: Decimal
    """One unit of the instrument's quote currency."""


@dataclass(frozen=True, slots=True)
class Trade:
    """One signal measured: all that the rules below need, computed once. Shares are fractions of notional."""

    account: Account
    unit_price: Decimal
    """Notional of one unit of quantity."""
    loss_share: Decimal
    """What the stop would lose, its slippage and fees both ways included."""
    tied_share: Decimal
    """What is tied up: cost, margin, premium or maximum loss."""
    fee_share: Decimal
    """What the opening costs on top, out of free funds."""
    leverage: Decimal
    """What the position is opened with: reduced until the stop keeps its distance from liquidation."""
    leverage_unreduced: Decimal
    leverage_limit: Decimal
    """What owner, venue and cost model allow."""
    quantity_min: Decimal
    """Smallest quantity the venue takes."""
    quantity_sellable: Decimal
    """Smallest quantity whose stop the venue takes, at the stop price less the policy's margin; 0 = there is no stop order."""
    quantity_kept: Decimal
    """Share of the quantity that is left after the entry's fee (spot buys pay it in the coin)."""
    quantity_exitable: Decimal
    """Smallest quantity that can be bought and sold again."""
    checks: tuple[Check, ...]


class Denial(BotError):
    """Ends a sizing with one failed check. Never leaves `Sizer.size`."""

    def __init__(self, rule: Rule, measured: Number, limit: Number, unit: str, note: str) -> None:
        self.check = Check(rule, measured, limit, unit, False, note)
        super().__init__(note)


# -- inputs: unknown never passes ----------------------------------------------------------------------------------------


def _known(value: Decimal | None) -> Decimal | None:
    return value if value is not None and value.is_finite() else None


def _exact(value: float | None) -> Decimal | None:
    """A float's shortest text as Decimal; None stays None, and NaN and infinity become it."""
    return None if value is None or not math.isfinite(value) else Decimal(repr(float(value)))


def _positive(value: Decimal | None, rule: Rule, unit: str, note: str) -> Decimal:
    value = _known(value)
    if value is None or value <= ZERO:
        raise Denial(rule, value, ZERO, unit, note)
    return value


def _share(value: float, rule: Rule, note: str) -> Decimal:
    """A number clipped to [0, 1]: nothing may raise a size. Not a number denies."""
    exact = _exact(value)
    if exact is None:
        raise Denial(rule, None, ZERO, "share", note)
    return min(ONE, max(ZERO, exact))


def _confidence(signal: Signal, view: View) -> Decimal:
    """The smaller of the live one and the certificate's."""
    live = _share(signal.confidence, Rule.SIZE_BELOW_MINIMUM, "confidence unknown")
    if view.certificate_confidence is None:
        return live
    return min(live, _share(view.certificate_confidence, Rule.SIZE_BELOW_MINIMUM, "the certificate's confidence unknown"))


# -- measuring ---------------------------------------------------------------------------------------------------------


def _clear(distance: Decimal, room: Decimal | None) -> Decimal | None:
    """Stop-to-liquidation distance as a share of the entry-to-liquidation distance."""
    return ONE - distance / room if room is not None and room > ZERO else None


def _leverage_used(signal: Signal, view: View, policy: SizingPolicy, leverage: Decimal, maintenance: Decimal, entry: Decimal,
                   stop: Decimal) -> tuple[Decimal, Check]:
    """`leverage`, reduced to whole numbers as far as the stop needs it, and the check with its numbers.

    A price the *venue* names is not ours to argue with: if that is too near, the trade is denied, not shrunk.
    """
    distance, limit = abs(entry - stop) / entry, policy.liquidation_distance_min
    if view.liquidation_price is not None:
        told = _exact(view.liquidation_price)
        clear = _clear(distance, None if told is None else (entry - told) * signal.side.sign / entry)
        if clear is None or clear < limit:
            raise Denial(Rule.LIQUIDATION_TOO_NEAR, clear, limit, "share", "the venue's liquidation price against the stop")
    safe = leverage_safe(view.instrument, signal.side, distance, maintenance, limit)
    used = min(leverage, max(ONE, round_down(safe, ONE)))
    clear = _clear(distance, liquidation_distance(view.instrument, signal.side, used, maintenance))
    if safe < ONE:
        raise Denial(Rule.LIQUIDATION_TOO_NEAR, clear, limit, "share", "the stop is too near its liquidation even without leverage")
    return used, Check(Rule.LIQUIDATION_TOO_NEAR, clear, limit, "share", True, f"at {used.normalize():f}x")


def _stop(signal: Signal, entry: Decimal) -> Decimal | None:
    """The stop price, None if there is none. One that is not on the losing side is worse than none."""
    if signal.stop is None:
        return None
    stop = _exact(signal.stop)
    if stop is None or stop <= ZERO or (entry - stop) * signal.side.sign <= ZERO:
        raise Denial(Rule.STOP_MISSING, stop, entry, "price", "the stop is not on the losing side of the entry")
    return stop


def _smallest(instrument: Instrument, price: Decimal) -> Decimal:
    """Smallest quantity the venue takes at `price`."""
    least = max(instrument.lot, instrument.quantity_min)
    if instrument.notional_min > ZERO:
        least = max(least, instrument.quantity_for(instrument.notional_min, price))
    return round_up(least, instrument.lot)


def _measure(signal: Signal, view: View, policy: SizingPolicy, costs: CostPolicy, account: Account) -> Trade:
    """A spot, perp or FX trade. Loss share: (distance to the stop + slippage there + fees both ways) / entry."""
    instrument, sign = view.instrument, signal.side.sign
    model = costs.of(instrument.asset_class)
    entry = _positive(_exact(signal.entry), Rule.QUOTE_STALE, instrument.quote, "no entry price")
    stop = _stop(signal, entry)
    fee = max(instrument.taker_fee, model.taker_fee)
    limit = min(policy.leverage_max.of(instrument.asset_class), instrument.leverage_max, model.leverage)
    leverage = used = ONE
    checks: tuple[Check, ...] = ()
    if stop is None:
        if account.phase >= 3 or instrument.is_margined:
            raise Denial(Rule.STOP_MISSING, None, None, "price", "no stop, so the risk is unknown")
        loss = ONE + fee    # spot without a stop can lose all it cost
    else:
        slippage = _exact(view.stop_slippage)
        if slippage is None or slippage < ZERO:
            raise Denial(Rule.SIZE_ABOVE_CEILING, slippage, ZERO, "share", "expected stop slippage unknown")
        exit_price = max(ZERO, stop - sign * slippage * entry)
        loss = ((entry - exit_price) * sign + fee * (entry + exit_price)) / entry
        if instrument.is_margined:
            leverage = max(ONE, limit)
            maintenance = max(instrument.maintenance_margin, model.maintenance_margin)
            used, clear = _leverage_used(signal, view, policy, leverage, maintenance, entry, stop)
            checks = (clear,)
    kept = ONE - fee if instrument.asset_class is AssetClass.SPOT and signal.side is Side.BUY else ONE
    quantity_min = _smallest(instrument, entry)
    sellable = _smallest(instrument, (entry if stop is None else stop) * policy.exit_price_margin)
    return Trade(
        account=account, unit_price=_UNIT_PRICE.multiply(instrument.notional(ONE, entry), account.rate),
        loss_share=loss, tied_share=ONE / used, fee_share=fee, leverage=used, leverage_unreduced=leverage, leverage_limit=limit,
        quantity_min=quantity_min, quantity_sellable=sellable, quantity_kept=kept,
        quantity_exitable=max(quantity_min, round_up(sellable / kept, instrument.lot)), checks=checks)


def _measure_option(signal: Signal, view: View, policy: SizingPolicy, account: Account) -> Trade:
    """An option structure of defined risk: the maximum loss is notional and risk in one; a long option ties up its premium."""
    instrument, option = view.instrument, view.option
    if option is None:
        raise Denial(Rule.CONTRACT_NOT_FOUND, None, None, "", "no option contract to size")
    if signal.structure is Structure.SINGLE and signal.side is Side.SELL:
        raise Denial(Rule.SHORT_NOT_POSSIBLE, None, None, "", "a naked short option has no defined risk")
    credit = signal.structure.sells
    max_loss = _positive(option.max_loss, Rule.CONTRACT_NOT_FOUND, instrument.settle, "maximum loss per unit")
    tied = max_loss if credit else _positive(option.cost, Rule.CONTRACT_NOT_FOUND, instrument.settle, "premium per unit")
    unit_price = _UNIT_PRICE.plus(max(max_loss, tied))
    least = max(instrument.lot, instrument.quantity_min)
    if instrument.notional_min > ZERO and not credit:
        least = max(least, instrument.notional_min * account.rate / tied)
    quantity_min = round_up(least, instrument.lot)
    return Trade(
        account=account, unit_price=unit_price, loss_share=ONE, tied_share=tied / unit_price, fee_share=ONE - tied / unit_price,
        leverage=ONE, leverage_unreduced=ONE, leverage_limit=policy.leverage_max.of(instrument.asset_class),
        quantity_min=quantity_min, quantity_sellable=ZERO, quantity_kept=ONE, quantity_exitable=quantity_min, checks=())


# -- what the phase wants ----------------------------------------------------------------------------------------------


def _between(low: Decimal, high: Decimal, share: Decimal) -> Decimal:
    return low + (high - low) * share


def _fraction(trade: Trade, policy: SizingPolicy) -> tuple[BoundBy, Decimal]:
    """Phase 2: max($10, 0.5 to 1.0 % of equity by confidence), lifted to the venue's minimum while that is within the 1.0 %.

    The minimum meant is one that can be sold again, too: lifted to less, the trade would only be denied as not exitable.
    """
    account = trade.account
    notional = max(account.fixed, account.equity * _between(policy.phase_2_fraction_min, policy.phase_2_fraction_max, account.confidence))
    least = trade.quantity_exitable * trade.unit_price
    if notional < least <= account.equity * policy.phase_2_fraction_max:
        return BoundBy.LOT, least
    return BoundBy.PHASE_FRACTION, notional


def _desire(trade: Trade, policy: SizingPolicy) -> tuple[BoundBy, Decimal]:
    """The phase's own rule, before any ceiling. Percent-risk never asks for less than phase 2's formula."""
    account = trade.account
    if account.phase == 1:
        return BoundBy.PHASE_FIXED, account.fixed
    floor = _fraction(trade, policy)
    if account.phase == 2:
        return floor
    notional = account.equity * _between(policy.risk_fraction_min, policy.risk_fraction_max, account.confidence) / trade.loss_share
    return (BoundBy.RISK, notional) if notional >= floor[1] else floor


def _cap(account: Account, policy: SizingPolicy, good: bool) -> Decimal:
    """The position cap as a fraction of equity; wider for a good setup in phase 4."""
    ordinary = _between(policy.position_cap_min, policy.position_cap_max, account.confidence)
    lowest = policy.good_setup_confidence_min
    if account.phase < 4 or not good or account.confidence < lowest:
        return ordinary
    share = (account.confidence - lowest) / (ONE - lowest) if lowest < ONE else ONE
    return max(ordinary, _between(policy.good_setup_cap_min, policy.good_setup_cap_max, share))


# -- ceilings: the highest notional each allows; None = its input is unknown ---------------------------------------------------


def position_cap(trade: Trade, view: View, policy: SizingPolicy, good: bool) -> Decimal:
    """What the instrument's whole position may tie up; never less than phase 2's formula, so that growing into phase 3 shrinks nothing."""
    allowed = max(trade.account.equity * _cap(trade.account, policy, good), _fraction(trade, policy)[1] * trade.tied_share)
    return (allowed - max(ZERO, view.position_tied_up)) / trade.tied_share


def free_funds(trade: Trade, view: View) -> Decimal | None:
    free = _known(view.free)
    return None if free is None else free / (trade.tied_share + trade.fee_share)


def pair_cap(trade: Trade, view: View) -> Decimal:
    """The owner's cap per instrument, measured like the position cap."""
    return (view.pair_cap * trade.account.equity - max(ZERO, view.position_tied_up)) / trade.tied_share


def daily_budget(trade: Trade, view: View, policy: SizingPolicy) -> Decimal | None:
    """Today's drawdown + open risk + this trade's risk within the day's budget: stops at their modelled cost cannot trip the halt."""
    peak, drawdown = _known(view.day_peak), _known(view.drawdown_today)
    if peak is None or drawdown is None:
        return None
    return (peak * policy.daily_risk_budget - max(ZERO, drawdown) - max(ZERO, view.open_risk)) / trade.loss_share


def volume_share(trade: Trade, view: View, policy: SizingPolicy) -> Decimal | None:
    volume = _exact(view.quote_volume_24h)
    return None if volume is None else volume * trade.account.dollar * policy.volume_share_max


def _margin_ceilings(trade: Trade, view: View, policy: SizingPolicy, good: bool) -> list[tuple[BoundBy, Decimal | None]]:
    """Those that limit what is tied up: in notional they depend on the leverage."""
    ceilings: list[tuple[BoundBy, Decimal | None]] = []
    if trade.account.phase >= 3:
        ceilings.append((BoundBy.POSITION_CAP, position_cap(trade, view, policy, good)))
    return [*ceilings, (BoundBy.FREE_FUNDS, free_funds(trade, view)), (BoundBy.PAIR_CAP, pair_cap(trade, view))]


def _ceilings(trade: Trade, view: View, policy: SizingPolicy, good: bool) -> list[tuple[BoundBy, Decimal]]:
    """Every ceiling that applies to this class, none below zero. Raises Denial where one's input is unknown."""
    equity, asset_class = trade.account.equity, view.instrument.asset_class
    reduced = trade.leverage < trade.leverage_unreduced
    full = replace(trade, tied_share=ONE / trade.leverage_unreduced) if reduced else trade
    found = _margin_ceilings(full, view, policy, good)
    found.append((BoundBy.DAILY_BUDGET, daily_budget(trade, view, policy)))
    found.append((BoundBy.LEVERAGE, equity * trade.leverage_limit - max(ZERO, view.position_notional)))
    if multiple := policy.gross_notional_max.of(asset_class):
        found.append((BoundBy.GROSS_NOTIONAL, equity * multiple - max(ZERO, view.gross_notional)))
    if multiple := policy.instrument_notional_max.of(asset_class):
        found.append((BoundBy.GROSS_NOTIONAL, equity * multiple - max(ZERO, view.position_notional)))
    if reduced:
        found += [(BoundBy.LIQUIDATION_DISTANCE, limit) for _, limit in _margin_ceilings(trade, view, policy, good)]
    if asset_class is not AssetClass.FOREX or not view.deep_pair:    # FX has no consolidated volume: the owner's list stands in for it
        found.append((BoundBy.VOLUME_SHARE, volume_share(trade, view, policy)))
    ceilings = []
    for bound_by, limit in found:
        if limit is None:
            raise Denial(Rule.SIZE_ABOVE_CEILING, None, None, view.instrument.settle, f"{bound_by} unknown")
        ceilings.append((bound_by, max(ZERO, limit)))
    return ceilings


def _ramp(trade: Trade, policy: SizingPolicy) -> Decimal:
    """The first live trades: $10, or one (sellable) lot while that is at most 1 % of equity."""
    lot = trade.quantity_exitable * trade.unit_price
    return max(trade.account.fixed, lot) if lot <= trade.account.equity * policy.ramp_lot_equity_max else trade.account.fixed


# -- the authority -----------------------------------------------------------------------------------------------------


class Sizer:
    """Four-phase sizing. `size` is pure; `watch` announces a class's change of phase, `apply` restores the last announced ones."""

    def __init__(self, policy: SizingPolicy, costs: CostPolicy, journal: Journal | None = None) -> None:
        self.policy = policy
        self.costs = costs
        self._journal = journal
        self._phases: dict[AssetClass, int] = {}
        self._watched: dict[AssetClass, Decimal | None] = {}
        """The equity each class was last looked at with: the same again is in the same phase."""

    def adopt(self, policy: SizingPolicy) -> None:
        """Work by the owner's new numbers from the next signal on."""
        self.policy = policy
        self._watched.clear()

    # -- phases --

    def phase(self, equity: Decimal, usd_rate: Decimal = ONE) -> int:
        """1 to 4 for `equity` in settlement currency, worth `usd_rate` US dollars a unit. A border belongs to the phase below it."""
        dollars = equity * usd_rate
        borders = (self.policy.phase_1_equity_max, self.policy.phase_2_equity_max, self.policy.phase_3_equity_max)
        return 1 + sum(dollars > border for border in borders)

    def _within(self, phase: int, equity: Decimal, usd_rate: Decimal) -> bool:
        """Whether `equity` is in `phase`."""
        policy, dollars = self.policy, equity if usd_rate is ONE else equity * usd_rate
        if phase == 4:
            return dollars > policy.phase_3_equity_max
        if phase == 3:
            return policy.phase_2_equity_max < dollars <= policy.phase_3_equity_max
        if phase == 2:
            return policy.phase_1_equity_max < dollars <= policy.phase_2_equity_max
        return phase == 1 and dollars <= policy.phase_1_equity_max

    def watch(self, asset_class: AssetClass, equity: Decimal | None, at: int, usd_rate: Decimal = ONE) -> None:
        """Journals PhaseChanged if the class is in another phase than last announced (0 = never announced), by more than the margin of
        the policy: an equity that hovers around a border is no news. Unknown equity says nothing."""
        if equity is None or not equity.is_finite():
            return
        before = self._phases.get(asset_class, 0)
        if self._within(before, equity, usd_rate):  # asked at every instant: two comparisons instead of a count over all borders
            return
        phase = self.phase(equity, usd_rate)
        if before:
            beyond = self.policy.phase_announced_beyond
            phase = self.phase(equity * (ONE - beyond if phase > before else ONE + beyond), usd_rate)
            if phase == before:
                return
        fact = PhaseChanged(at, asset_class, before, phase, equity)
        if self._journal is not None:
            self._journal.append(fact)
        self.apply(fact)    # once more than the journal's own call does no harm: it only stores the phase

    async def run(
        self, clock: Clock, equity: Callable[[AssetClass], Decimal | None], classes: Iterable[AssetClass] = AssetClass,
        holds: Callable[[AssetClass], bool] = lambda _: True,
    ) -> None:
        """Watch the phases of the sub-ledgers of `classes` for ever. `holds`: whether a class has anything open; while none has, only
        facts move money."""
        watched = tuple(classes)

        def tick(at: int) -> int | None:
            following: int | None = IDLE
            for asset_class in watched:
                worth = equity(asset_class)
                if worth is not self._watched.get(asset_class):
                    self._watched[asset_class] = worth
                    self.watch(asset_class, worth, at)
                if holds(asset_class):
                    following = None
            return following

        await clock.drive(WATCH_S, tick)

    def apply(self, fact: Fact) -> None:
        if isinstance(fact, PhaseChanged):
            self._phases[fact.asset_class] = fact.phase

    # -- size --

    def size(self, signal: Signal, view: View, *, good: bool, mood_factor: float = 1.0) -> Size:
        """What `signal` may trade in `view`. `good`: every check passed and the setup is a good one; `mood_factor` in [0, 1] only lowers.

        A denied Size carries the failed check with its numbers last in `checks`. Never raises on bad market or wallet data.
        """
        phase = 0
        checks: list[Check] = []
        ceilings: list[tuple[BoundBy, Decimal]] = []
        bound_by: BoundBy | None = None
        try:
            account = self._account(signal, view)
            phase = account.phase
            checks.append(Check(Rule.EQUITY_NOT_POSITIVE, account.equity, ZERO, view.instrument.settle, True))
            if view.instrument.asset_class is AssetClass.OPTION:
                trade = _measure_option(signal, view, self.policy, account)
            else:
                trade = _measure(signal, view, self.policy, self.costs, account)
            checks.extend(trade.checks)
            desired = _desire(trade, self.policy)
            ceilings = [desired, *_ceilings(trade, view, self.policy, good)]
            bound_by, notional = min(ceilings, key=lambda ceiling: ceiling[1])
            bound_by, notional = self._lowered(view, account, desired[1], bound_by, notional, mood_factor, checks)
            if view.ramp:
                ramp = _ramp(trade, self.policy)
                ceilings.append((BoundBy.LIVE_RAMP, ramp))
                if ramp < notional:
                    bound_by, notional = BoundBy.LIVE_RAMP, ramp
                checks.append(Check(Rule.SIZE_ABOVE_CEILING, notional, ramp, view.instrument.settle, True, view.ramp_note or "live ramp"))
            quantity = self._rounded(view, trade, bound_by, notional, checks)
        except Denial as denial:
            return Size(False, phase, ZERO, ZERO, ZERO, ZERO, ONE, bound_by, _why(denial.check), (*checks, denial.check), tuple(ceilings))
        notional = quantity * trade.unit_price
        return Size(True, phase, notional, quantity, notional * trade.loss_share, notional * trade.tied_share, trade.leverage, bound_by,
                    f"phase {phase}, {notional:.2f} {view.instrument.settle}, bound by {bound_by}", tuple(checks), tuple(ceilings))

    def _account(self, signal: Signal, view: View) -> Account:
        equity = _positive(view.equity, Rule.EQUITY_NOT_POSITIVE, view.instrument.settle, "equity of the sub-ledger")
        rate = _positive(view.settle_rate, Rule.QUOTE_STALE, view.instrument.settle, f"no rate from {view.instrument.quote}")
        usd_rate = _positive(view.usd_rate, Rule.QUOTE_STALE, "USD", "no rate from settlement currency to US dollars")
        dollar = ONE / usd_rate
        return Account(self.phase(equity, usd_rate), equity, _confidence(signal, view), dollar, self.policy.phase_1_notional * dollar, rate)

    def _lowered(self, view: View, account: Account, desired: Decimal, bound_by: BoundBy, notional: Decimal, mood_factor: float,
                 checks: list[Check]) -> tuple[BoundBy, Decimal]:
        """Learning and mood. Phase 1 knows only its $10 or nothing: what would shrink it denies it."""
        weight = _share(view.learning_weight, Rule.LEARNING_WEIGHT_BELOW_MINIMUM, "learning weight unknown")
        mood = _share(mood_factor, Rule.LEARNING_WEIGHT_BELOW_MINIMUM, "mood unknown")
        factor = weight * mood
        if account.phase == 1:
            currency, least = view.instrument.settle, self.policy.learning_weight_min
            if notional < desired:
                raise Denial(Rule.SIZE_ABOVE_CEILING, desired, notional, currency, f"phase 1 trades it all or not at all; {bound_by}")
            checks.append(Check(Rule.SIZE_ABOVE_CEILING, desired, desired, currency, True, "no ceiling is below it"))
            if factor < least:
                raise Denial(Rule.LEARNING_WEIGHT_BELOW_MINIMUM, factor, least, "weight", "learning x mood")
            checks.append(Check(Rule.LEARNING_WEIGHT_BELOW_MINIMUM, factor, least, "weight", True, "learning x mood"))
            return bound_by, notional
        if factor < ONE:
            return (BoundBy.LEARNING if weight <= mood else BoundBy.MOOD), notional * factor
        return bound_by, notional

    def _rounded(self, view: View, trade: Trade, bound_by: BoundBy, notional: Decimal, checks: list[Check]) -> Decimal:
        """The quantity on the lot grid, at most `notional`, that the venue takes and that its stop can sell again."""
        instrument = view.instrument
        quantity = instrument.round_quantity_down(notional / trade.unit_price)
        if quantity * trade.unit_price > notional:    # the quotient was rounded up to a whole lot in its last digit
            quantity -= instrument.lot
        least = trade.quantity_min * trade.unit_price
        if quantity < trade.quantity_min:
            raise Denial(Rule.SIZE_BELOW_MINIMUM, notional, least, instrument.settle, f"the venue's minimum; bound by {bound_by}")
        checks.append(Check(Rule.SIZE_BELOW_MINIMUM, quantity * trade.unit_price, least, instrument.settle, True, "the venue's minimum"))
        if trade.quantity_sellable > ZERO:
            left = instrument.round_quantity_down(quantity * trade.quantity_kept)
            if left < trade.quantity_sellable:
                raise Denial(Rule.NOT_EXITABLE, left, trade.quantity_sellable, instrument.base, "left after fees, its stop cannot sell it")
            checks.append(Check(Rule.NOT_EXITABLE, left, trade.quantity_sellable, instrument.base, True, "left after fees"))
        return quantity


def _why(check: Check) -> str:
    measured = "unknown" if check.measured is None else f"{float(check.measured):.8g}"
    limit = "" if check.limit is None else f" against {float(check.limit):.8g}"
    return f"{check.rule}: {measured}{limit} {check.unit} ({check.note})"
