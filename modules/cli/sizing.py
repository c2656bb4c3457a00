"""Questions to Sizer outside the pipeline: a View in which all is well but for what one asks about. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from modules.domain.decision import Size
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.money import ONE, ZERO
from modules.domain.policies import CostPolicy, Policies
from modules.domain.signal import Signal, Structure
from modules.domain.view import OptionView, TradingState, View
from modules.store.codec import to_json

if TYPE_CHECKING:
    from modules.Sizer import Sizer

AMPLE_VOLUME: Final = 1e12
"""USD in 24 h where none is told: the volume then binds nothing."""
FINE_LOT: Final = Decimal("0.00000001")
_INTERVAL_MS: Final = 300_000


@dataclass(frozen=True, slots=True)
class Case:
    """One trade as a person would put it. Money in settlement currency; None = does not bind."""

    instrument: Instrument
    equity: Decimal
    confidence: float
    entry: float
    stop: float | None = None
    target: float | None = None
    side: Side | None = None
    good: bool = False
    free: Decimal | None = None
    volume_24h: float | None = None
    liquidation: float | None = None
    open_risk: Decimal = ZERO
    drawdown_today: Decimal = ZERO
    settle_rate: Decimal = ONE


def plain_instrument(asset_class: AssetClass, policies: Policies, *, lot: Decimal | None = None, minimum: Decimal | None = None,
                     leverage: Decimal | None = None) -> Instrument:
    """An instrument without a name: quoted and settled in dollars, the cost policy's fees, and no rule but those that are given."""
    model = policies.costs.of(asset_class)
    forex = asset_class is AssetClass.FOREX
    return Instrument(
        symbol="X/USD", venue="", asset_class=asset_class, base="X", quote="USD", settle="USD", underlying="X", tick=FINE_LOT,
        lot=lot if lot is not None else ONE if forex else FINE_LOT, notional_min=minimum if minimum is not None else ZERO,
        maker_fee=model.maker_fee, taker_fee=model.taker_fee, maintenance_margin=model.maintenance_margin,
        leverage_max=leverage if leverage is not None else policies.sizing.leverage_max.of(asset_class),
    )


def size_of(case: Case, sizer: Sizer, policies: Policies) -> Size:
    return sizer.size(_signal(case), _view(case, policies), good=case.good)


def document(size: Size) -> dict[str, Any]:
    """The JSON document of `size`."""
    return {
        "approved": size.approved, "phase": size.phase, "notional": to_json(size.notional), "quantity": to_json(size.quantity),
        "risk": to_json(size.risk), "bound_by": to_json(size.bound_by), "reason": size.reason, "checks": checks(size.checks),
    }


def checks(found: Any) -> list[dict[str, Any]]:
    return [{"rule": check.rule.value, "measured": to_json(check.measured), "limit": to_json(check.limit), "unit": check.unit,
             "passed": check.passed, "note": check.note} for check in found]


def _signal(case: Case) -> Signal:
    side = case.side or (Side.SELL if case.stop is not None and case.stop > case.entry else Side.BUY)
    option = case.instrument.asset_class is AssetClass.OPTION
    return Signal(
        at=0, strategy="asked", symbol=case.instrument.symbol, asset_class=case.instrument.asset_class, side=side,
        score=case.confidence * side.sign, confidence=case.confidence, entry=case.entry, stop=case.stop, target=case.target, hold=0,
        interval_ms=_INTERVAL_MS, structure=Structure.LONG_OPTION if option else Structure.SINGLE)


def _view(case: Case, policies: Policies) -> View:
    instrument, asset_class = case.instrument, case.instrument.asset_class
    option = asset_class is AssetClass.OPTION
    return View(
        at=0, live=False, instrument=instrument, trading_state=TradingState.ACTIVE, halted_by="", paused=False, switch_on=True,
        blacklisted=False, certificate_expires=None, certificate_confidence=None, wallet_age_s=0.0, quote=None, quote_age_s=0.0,
        bar_age_s=0.0, frozen_bars=0, clock_offset_s=0.0, session_open=True, minutes_to_rollover=None, spread_cap_bp=None,
        quote_volume_24h=case.volume_24h if case.volume_24h is not None else AMPLE_VOLUME, deep_pair=asset_class is AssetClass.FOREX,
        correlated=(), funding_rate_8h=None, funding_settlements=0, funding_rate=None, financing_annual=None, financing_nights=0,
        reward=None, blackout="", blackout_until=None, calendar_ok=True, mood=None, open_positions=0, losses_in_a_row=0, last_loss_at=None,
        stop_outs_4h=0, last_stop_out_at=None, owned_by="", in_doubt=False, orders_last_minute=0, notional_last_minute=ZERO, open_orders=0,
        equity=case.equity, free=case.free if case.free is not None else case.equity, day_peak=case.equity + case.drawdown_today,
        drawdown_today=case.drawdown_today, open_risk=case.open_risk, gross_notional=ZERO, position_tied_up=ZERO, position_notional=ZERO,
        settle_rate=case.settle_rate, pair_cap=policies.funds.pair_cap, stop_slippage=_stop_slippage(policies.costs, asset_class),
        learning_weight=1.0, ramp=False, option=_option(case) if option else None, liquidation_price=case.liquidation)


def _stop_slippage(costs: CostPolicy, asset_class: AssetClass) -> float:
    model = costs.of(asset_class)
    return (model.slippage_bp + model.stop_slippage_bp) / 1e4


def _option(case: Case) -> OptionView:
    """A long option at a premium of `entry` per unit: what it costs is what it can lose."""
    cost = Decimal(repr(case.entry)) * case.instrument.contract_size * case.settle_rate
    return OptionView(days_to_expiry=30.0, spread_share=0.0, open_interest=None, cost=cost, max_loss=cost, delta=0.0, vega=0.0,
                      shock_loss=ZERO, class_delta_value=ZERO, class_vol_loss=ZERO, class_shock_loss=ZERO, spot=ZERO)
