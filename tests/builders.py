"""Builders the tests share: a world in which everything passes, and `changes` for the one thing a test is about.

The defaults are BTC at 50,000 on a quiet Monday noon with 10,000 USDT behind it; every gate passes on them, for each asset class.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from modules.domain.instrument import AssetClass, Instrument, Right, Side
from modules.domain.market import Quote
from modules.domain.order import Fill, Order, OrderKind, Purpose, derive_id
from modules.domain.policies import (
    CostPolicy,
    ExecutionPolicy,
    FundsPolicy,
    KillSwitchPolicy,
    LearningPolicy,
    NewsPolicy,
    Policies,
    Policy,
    RiskPolicy,
    SizingPolicy,
    ValidationPolicy,
)
from modules.domain.signal import Signal, Structure
from modules.domain.view import OptionView, TradingState, View

AT = 1_767_614_400_000
"""Monday 2026-01-05 12:00 UTC, in ms."""
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
STRATEGY = "trend"

BTC_SPOT = "BTC/USDT"
BTC_PERP = "BTC/USDT:USDT"
BTC_CALL = "BTC/USDT:USDT-260130-52000-C"
EUR_USD = "EUR/USD"

POLICIES = Path(__file__).resolve().parents[1] / "policies"
P = TypeVar("P", bound=Policy)


def _shipped(kind: type[P], name: str) -> P:
    return kind.model_validate_json((POLICIES / f"{name}.json").read_text(encoding="utf-8"))


@cache
def shipped_policies() -> Policies:
    """The policies as they are in policies/*.json."""
    return Policies(
        sizing=_shipped(SizingPolicy, "sizing_policy"),
        risk=_shipped(RiskPolicy, "risk_policy"),
        kill_switch=_shipped(KillSwitchPolicy, "kill_switch_policy"),
        execution=_shipped(ExecutionPolicy, "execution_policy"),
        costs=_shipped(CostPolicy, "cost_policy"),
        funds=_shipped(FundsPolicy, "funds_policy"),
        news=_shipped(NewsPolicy, "news_policy"),
        learning=_shipped(LearningPolicy, "learning_policy"),
        validation=_shipped(ValidationPolicy, "validation_policy"),
        hash="0" * 16,
    )


def risk_policy(**changes: Any) -> RiskPolicy:
    """The shipped risk policy with fields replaced (not validated again)."""
    return shipped_policies().risk.model_copy(update=changes)


def make_instrument(asset_class: AssetClass = AssetClass.SPOT, **changes: Any) -> Instrument:
    """One instrument per class: BTC/USDT, its perpetual, a call on it, EUR/USD."""
    return replace(_INSTRUMENTS[asset_class], **changes)


_INSTRUMENTS = {
    AssetClass.SPOT: Instrument(
        symbol=BTC_SPOT, venue="paper", asset_class=AssetClass.SPOT, base="BTC", quote="USDT", settle="USDT", underlying="BTC",
        tick=Decimal("0.01"), lot=Decimal("0.00001"), quantity_min=Decimal("0.00001"), notional_min=Decimal("5"),
        maker_fee=Decimal("0.001"), taker_fee=Decimal("0.001"),
    ),
    AssetClass.PERP: Instrument(
        symbol=BTC_PERP, venue="paper", asset_class=AssetClass.PERP, base="BTC", quote="USDT", settle="USDT", underlying="BTC",
        tick=Decimal("0.1"), lot=Decimal("0.0001"), quantity_min=Decimal("0.0001"), notional_min=Decimal("5"),
        maker_fee=Decimal("0.0002"), taker_fee=Decimal("0.00055"), leverage_max=Decimal("50"), maintenance_margin=Decimal("0.01"),
        funding_interval_h=8,
    ),
    AssetClass.OPTION: Instrument(
        symbol=BTC_CALL, venue="paper", asset_class=AssetClass.OPTION, base="BTC", quote="USDT", settle="USDT", underlying="BTC",
        tick=Decimal("5"), lot=Decimal("0.01"), quantity_min=Decimal("0.01"), taker_fee=Decimal("0.0003"),
        maker_fee=Decimal("0.0003"), expiry=AT + 25 * DAY_MS, strike=Decimal("52000"), right=Right.CALL,
    ),
    AssetClass.FOREX: Instrument(
        symbol=EUR_USD, venue="paper", asset_class=AssetClass.FOREX, base="EUR", quote="USD", settle="USD", underlying="EUR/USD",
        tick=Decimal("0.00001"), lot=Decimal("1"), quantity_min=Decimal("1"), leverage_max=Decimal("30"),
        maintenance_margin=Decimal("0.01"), pip=Decimal("0.0001"),
    ),
}


def make_quote(asset_class: AssetClass = AssetClass.SPOT, at: int = AT) -> Quote:
    """Half a basis point (BTC, EUR/USD) or 6 % (the call) wide."""
    if asset_class is AssetClass.FOREX:
        return Quote(at, 1.09995, 1.10005)
    if asset_class is AssetClass.OPTION:
        return Quote(at, 970.0, 1030.0)
    return Quote(at, 49_998.0, 50_002.0)


def make_signal(asset_class: AssetClass = AssetClass.SPOT, side: Side = Side.BUY, **changes: Any) -> Signal:
    """A wish at the close of a 5-minute bar: stop 2 % away, target 4 %."""
    entry = 1.1 if asset_class is AssetClass.FOREX else 50_002.0
    symbol = BTC_PERP if asset_class is AssetClass.OPTION else _INSTRUMENTS[asset_class].symbol
    signal = Signal(
        at=AT, strategy=STRATEGY, symbol=symbol, asset_class=asset_class, side=side, score=0.7 * side.sign, confidence=0.6, entry=entry,
        stop=entry * (1 - 0.02 * side.sign), target=entry * (1 + 0.04 * side.sign), hold=48, interval_ms=300_000,
        structure=Structure.LONG_OPTION if asset_class is AssetClass.OPTION else Structure.SINGLE,
    )
    return replace(signal, **changes)


def make_option_view(**changes: Any) -> OptionView:
    """A long call: premium 1,000 per unit, in an empty option book."""
    view = OptionView(
        days_to_expiry=25.0, spread_share=0.06, open_interest=250.0, cost=Decimal("1015"), max_loss=Decimal("1030"), delta=0.4,
        vega=5_000.0, shock_loss=Decimal("800"), class_delta_value=Decimal(0), class_vol_loss=Decimal(0), class_shock_loss=Decimal(0),
        spot=Decimal("50000"),
    )
    return replace(view, **changes)


def make_view(asset_class: AssetClass = AssetClass.SPOT, **changes: Any) -> View:
    """A snapshot on which a long of the class passes every gate; `changes` are View fields."""
    is_forex, is_perp, is_option = (asset_class is c for c in (AssetClass.FOREX, AssetClass.PERP, AssetClass.OPTION))
    view = View(
        at=AT, live=True, instrument=make_instrument(asset_class),
        trading_state=TradingState.ACTIVE, halted_by="", paused=False, switch_on=True, blacklisted=False,
        certificate_expires=AT + 30 * DAY_MS, certificate_confidence=0.6,
        wallet_age_s=3.0, quote=make_quote(asset_class), quote_age_s=0.5, bar_age_s=0.2, frozen_bars=0, clock_offset_s=0.01,
        session_open=True, minutes_to_rollover=300.0 if is_forex else None,
        spread_cap_bp=3.0 if is_forex else 15.0 if is_perp else 1000.0 if is_option else 30.0,
        quote_volume_24h=None if is_forex else 2e9, deep_pair=is_forex, correlated=(),
        funding_rate_8h=0.0001 if is_perp else None, funding_settlements=3 if is_perp else 0,
        funding_rate=0.0001 if is_perp else None,
        financing_annual=-0.02 if is_forex else None, financing_nights=1 if is_forex else 0, reward=0.04,
        blackout="", blackout_until=None, calendar_ok=True, mood=None,
        open_positions=0, losses_in_a_row=0, last_loss_at=None, stop_outs_4h=0, last_stop_out_at=None, owned_by="", in_doubt=False,
        orders_last_minute=0, notional_last_minute=Decimal(0), open_orders=0,
        equity=Decimal("10000"), free=Decimal("10000"), day_peak=Decimal("10000"), drawdown_today=Decimal(0), open_risk=Decimal(0),
        gross_notional=Decimal(0), position_tied_up=Decimal(0), position_notional=Decimal(0), settle_rate=Decimal(1),
        pair_cap=Decimal("0.10"), stop_slippage=0.0004, learning_weight=1.0, ramp=False,
        option=make_option_view() if is_option else None,
    )
    return replace(view, **changes)


def make_order(instrument: Instrument | None = None, **changes: Any) -> Order:
    """A market entry of 0.01 units at the builder's prices; `purpose` and `attempt`-like variety come through `changes`."""
    traded = instrument or make_instrument()
    side: Side = changes.get("side", Side.BUY)
    purpose: Purpose = changes.get("purpose", Purpose.ENTRY)
    price = Decimal("1.1") if traded.asset_class is AssetClass.FOREX else Decimal("50000")
    quantity: Decimal = changes.get("quantity", Decimal("0.01"))
    reserves = traded.notional(quantity, price) if purpose is Purpose.ENTRY else Decimal(0)
    order = Order(
        client_order_id=derive_id(STRATEGY, traded.symbol, AT, side, purpose, 0), trade_id="trade-1", decision_id="decision-1",
        strategy=STRATEGY, venue=traded.venue, symbol=traded.symbol, asset_class=traded.asset_class, side=side, quantity=quantity,
        kind=OrderKind.MARKET, purpose=purpose, price=None, reduce_only=purpose is not Purpose.ENTRY, leverage=Decimal(1),
        arrival_price=price, slippage_model_bp=Decimal(2), reserves=reserves,
        at=AT, expires_at=AT + 60_000,
    )
    return replace(order, **changes)


def make_fill(order: Order | None = None, **changes: Any) -> Fill:
    """A complete fill of `order` at its arrival price, fee 0.1 % in USDT."""
    filled = order or make_order()
    fill = Fill(
        venue=filled.venue, symbol=filled.symbol, venue_trade_id="1", client_order_id=filled.client_order_id, side=filled.side,
        quantity=filled.quantity, price=filled.arrival_price, fee=filled.quantity * filled.arrival_price / 1000, fee_currency="USDT",
        fee_rate=Decimal(1), settle_rate=Decimal(1), maker=False, at=filled.at + 50,
    )
    return replace(fill, **changes)
