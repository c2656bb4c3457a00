"""What a simulated run goes by: the owner's policies, how trades are sized, which gates are up, and stress on costs.

Owns the translation of policies and an instrument into the kernel's plain numbers; refuses an inverse contract, which nobody simulates.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from modules.backtest.kernel_money import Numbers
from modules.domain.errors import DataError
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.policies import Policies


@dataclass(frozen=True)
class Rules:
    """`phased`: sizes, ticks, lots and ledger units as the daemon's, beginning with `wallet` (settlement currency); else every trade is
    worth `notional` at entry, unrounded, less what the mood takes off. `gates`: the filters that concern one instrument alone apply, and
    what the news said (Series.news). The factors stress fees, and spread, slippage and impact."""

    policies: Policies
    phased: bool = False
    wallet: float = 10_000.0
    notional: float = 1_000.0
    gates: bool = True
    fee_factor: float = 1.0
    slippage_factor: float = 1.0

    def numbers(self, instrument: Instrument, interval_ms: int, direction: int = 0) -> Numbers:
        """Everything as floats. Raises DataError for what cannot be simulated."""
        if instrument.inverse or instrument.asset_class is AssetClass.OPTION:
            raise DataError([f"{instrument.symbol}: the kernel runs linear spot, perpetual and forex instruments"])
        policies, asset_class = self.policies, instrument.asset_class
        model, sizing, risk, execution = policies.costs.of(asset_class), policies.sizing, policies.risk, policies.execution
        tick_units, tick_scale = _steps(instrument.tick)
        lot_units, lot_scale = _steps(instrument.lot)
        fee, slip = self.fee_factor, self.slippage_factor
        forex = asset_class is AssetClass.FOREX
        return Numbers(
            half_spread_bp=model.half_spread_bp * slip, slippage_bp=model.slippage_bp * slip, impact_bp=model.impact_bp * slip,
            stop_slippage_bp=model.stop_slippage_bp * slip, maker_fee=float(model.maker_fee) * fee, taker_fee=float(model.taker_fee) * fee,
            participation_max=float(model.participation_max),
            maintenance=float(max(instrument.maintenance_margin, model.maintenance_margin)), latency=float(policies.costs.latency_ms),
            entry_timeout=execution.unfilledtimeout_entry_s * 1000.0, exit_timeout=execution.unfilledtimeout_exit_s * 1000.0,
            break_even_at_r=float(execution.break_even_at_r), trail_at_r=float(execution.trail_at_r),
            trail_distance_r=float(execution.trail_distance_r), interval=float(interval_ms), tick_units=tick_units, tick_scale=tick_scale,
            lot_units=lot_units, lot_scale=lot_scale, quantity_min=float(instrument.quantity_min),
            notional_min=float(instrument.notional_min), contract_size=float(instrument.contract_size),
            spot=float(asset_class is AssetClass.SPOT), perp=float(asset_class is AssetClass.PERP), forex=float(forex),
            stated_volume=float(not forex), inverse_rate=float(instrument.base == instrument.settle), exact=float(self.phased),
            notional=self.notional, wallet=self.wallet, gates=float(self.gates), direction=float(direction),
            weekend_flat=float(risk.forex_weekend_flat), rollover_ms=float(risk.rollover_minutes) * 60_000.0,
            funding_max=float(risk.funding_rate_8h_max), carry_max=float(risk.carry_annual_max),
            share_max=float(risk.carry_reward_share_max), holding_ms=float(int(risk.holding_default_s * 1000)),
            expected_r=float(risk.expected_r_per_confidence), cooldown_losses=float(risk.cooldown_losses),
            cooldown_ms=risk.cooldown_instrument_s * 1000.0, class_stop_outs=float(risk.cooldown_stop_outs),
            class_window_ms=float(int(risk.cooldown_window_s * 1000)), class_rest_ms=risk.cooldown_class_s * 1000.0,
            late_ms=risk.bar_late_s_max * 1000.0, phase_1=float(sizing.phase_1_equity_max), phase_2=float(sizing.phase_2_equity_max),
            phase_3=float(sizing.phase_3_equity_max), fixed=float(sizing.phase_1_notional),
            fraction_min=float(sizing.phase_2_fraction_min), fraction_max=float(sizing.phase_2_fraction_max),
            risk_min=float(sizing.risk_fraction_min), risk_max=float(sizing.risk_fraction_max), cap_min=float(sizing.position_cap_min),
            cap_max=float(sizing.position_cap_max), good_from=float(sizing.good_setup_confidence_min),
            good_min=float(sizing.good_setup_cap_min), good_max=float(sizing.good_setup_cap_max),
            daily_budget=float(sizing.daily_risk_budget),
            leverage_max=float(min(sizing.leverage_max.of(asset_class), instrument.leverage_max, model.leverage)),
            gross_max=float(sizing.gross_notional_max.of(asset_class)),
            instrument_max=float(sizing.instrument_notional_max.of(asset_class)),
            clear_min=float(sizing.liquidation_distance_min), volume_share=float(sizing.volume_share_max),
            exit_margin=float(sizing.exit_price_margin), pair_cap=float(policies.funds.pair_cap),
            sizing_fee=float(max(instrument.taker_fee, model.taker_fee)),
            deep=float(plain(instrument.symbol) in risk.forex_deep_pairs), dated=float(instrument.expiry is not None),
            unstated=-float(policies.costs.forex_financing_markup), mood_against=float(risk.mood_against),
            mood_least=float(risk.mood_size_at_limit), share_least=float(sizing.learning_weight_min))

    def spread_cap(self, instrument: Instrument) -> float | None:
        """Basis points; None where the owner allows none (View_Builder._spread_cap)."""
        risk, symbol = self.policies.risk, plain(instrument.symbol)
        if instrument.asset_class is not AssetClass.FOREX:
            return float(risk.spread_bp_max[instrument.asset_class])
        if symbol in risk.forex_majors:
            return float(risk.spread_bp_majors_max)
        return float(risk.spread_bp_max[AssetClass.FOREX]) if symbol in risk.forex_deep_pairs else None


def plain(symbol: str) -> str:
    """A symbol without the name of its recording."""
    return symbol.partition("#")[0]


def _steps(step: Decimal) -> tuple[float, float]:
    """`step` as units / scale, both whole: n x units / scale is then the float nearest to the exact n x step."""
    exponent = step.normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    scale = Decimal(10) ** max(0, -exponent)
    return float(step * scale), float(scale)
