"""Which policy changes let more through: a reload takes tighter limits at once, looser ones need the owner's confirmation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final

from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.domain.settings import plain

Key = tuple[str, ...]
_CLASSES: Final = frozenset(asset_class.value for asset_class in AssetClass)


class Looser(Enum):
    """In which direction a value lets more through."""

    HIGHER = "higher"
    HIGHER_OR_ZERO = "higher, and 0 = no limit"
    LOWER = "lower"
    """False counts as lower than true."""
    MORE = "more entries"
    FEWER = "fewer entries"
    NEVER = "never"


def _table(groups: Mapping[Looser, str]) -> dict[str, Looser]:
    return {key: looser for looser, keys in groups.items() for key in keys.split()}


LOOSER: Final[Mapping[str, Looser]] = _table({
    Looser.NEVER: """
        sizing.version risk.version kill_switch.version execution.version costs.version funds.version news.version
        learning.version validation.version validation.windows validation.train_share validation.sets_max
        validation.random_draws validation.task_timeout_s validation.warn_days""",
    Looser.HIGHER: """
        sizing.phase_1_notional sizing.phase_2_fraction_min sizing.phase_2_fraction_max sizing.risk_fraction_min sizing.risk_fraction_max
        sizing.position_cap_min sizing.position_cap_max sizing.good_setup_cap_min sizing.good_setup_cap_max sizing.daily_risk_budget
        sizing.leverage_max.* sizing.volume_share_max sizing.exit_price_margin sizing.ramp_lot_equity_max
        sizing.phase_announced_beyond
        risk.option_spread_share_max risk.correlation_min risk.correlated_others_max risk.funding_rate_8h_max risk.carry_annual_max
        risk.carry_reward_share_max risk.spread_bp_max.* risk.spread_bp_majors_max risk.quote_age_s_max risk.chain_age_s_max
        risk.bar_late_s_max risk.wallet_age_s_max risk.clock_offset_s_max risk.frozen_bars_max risk.cooldown_losses
        risk.cooldown_stop_outs risk.max_open_trades risk.orders_per_minute_max risk.notional_per_minute_max risk.open_orders_max
        risk.option_delta_max risk.option_vol_loss_max risk.option_shock_loss_max risk.mood_against risk.mood_size_at_limit
        kill_switch.drawdown_daily_max kill_switch.drawdown_monthly_max kill_switch.slippage_events_max
        kill_switch.slippage_model_multiple kill_switch.slippage_floor_bp.* kill_switch.api_consecutive_failures_max
        kill_switch.api_errors_max kill_switch.api_error_share_max kill_switch.api_calls_min kill_switch.orders_in_doubt_max
        execution.protect_within_s execution.flatten_after_s execution.stop_limit_slack execution.resend_within_s
        execution.wallet_poll_s execution.clock_poll_s costs.*.leverage
        funds.funds_on funds.classes_on.* funds.pair_cap funds.pair_cap_min funds.pair_cap_max funds.drill_days_max
        news.mood.domains_min news.mood.weight_floor news.mood.weight_min news.cautions.secondhand_domains_min
        validation.evidence_sharpe_multiple validation.p_value_max validation.p_value_later validation.loss_probability_max
        validation.trade_share_max validation.month_share_max validation.drawdown_max.*
        validation.same_idea_correlation validation.same_idea_code validation.valid_days validation.revalidate_days""",
    Looser.HIGHER_OR_ZERO: "sizing.gross_notional_max.* sizing.instrument_notional_max.*",
    Looser.LOWER: """
        sizing.phase_1_equity_max sizing.phase_2_equity_max sizing.phase_3_equity_max sizing.good_setup_confidence_min
        sizing.good_setup_reward_to_risk_min sizing.liquidation_distance_min sizing.learning_weight_min sizing.ramp_trades sizing.ramp_days
        risk.quote_volume_24h_min risk.option_open_interest_min risk.option_open_interest_usd_min
        risk.correlation_returns_min risk.rollover_minutes risk.forex_weekend_flat risk.expiry_days_min
        risk.cooldown_instrument_s risk.cooldown_window_s risk.cooldown_class_s
        kill_switch.slippage_window_s kill_switch.api_errors_window_s kill_switch.api_probes_good kill_switch.api_probes_window_s
        costs.latency_ms costs.*.half_spread_bp costs.*.slippage_bp costs.*.impact_bp costs.*.stop_slippage_bp costs.*.maker_fee
        costs.*.taker_fee costs.*.maintenance_margin costs.forex_financing_markup news.windows.* news.horizon_days
        news.cautions.hours.*
        validation.trades_min validation.instrument_trades_min validation.bootstrap_draws validation.psr_min validation.sharpe_min.*
        validation.stress_multiple validation.drawdown_level validation.neighbours_share_min
        validation.embargo funds.paper_days_min funds.paper_hours_min""",
    Looser.MORE: "risk.forex_deep_pairs",
    Looser.FEWER: "risk.forex_majors kill_switch.flatten_on news.classes.*",
})
"""Policy key (`*` = any asset class or event) -> the direction that loosens. A key that is not here loosens whenever it changes:
of a mood's half-life or of what one source may weigh, for one, neither direction is the stricter."""


def _flat(value: object, path: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Leaves by path; tuples stay whole except an event's (minutes before, minutes after)."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, (*path, str(plain(key))))
    elif path[:2] == ("news", "windows"):
        assert isinstance(value, tuple)
        yield from (((*path, end), minutes) for end, minutes in zip(("before", "after"), value, strict=True))
    else:
        yield path, value


def _pattern(path: Key) -> str:
    if path[:2] in (("news", "windows"), ("news", "classes")):
        return ".".join((*path[:2], "*"))
    if path[:3] == ("news", "cautions", "hours"):
        return "news.cautions.hours.*"
    return ".".join("*" if part in _CLASSES else part for part in path)


def flattened(policies: Policies) -> dict[str, Any]:
    """Every policy value by its dotted key."""
    return {".".join(path): value for path, value in _flat(policies.model_dump(exclude={"hash"}))}


def loosens(key: str, old: Any, new: Any) -> bool:
    """Whether going from `old` to `new` (None = absent) at a dotted key lets more through; an equal value never does."""
    return bool(old != new) and _loosens(LOOSER.get(_pattern(tuple(key.split(".")))), old, new)


def patterns(policies: Policies) -> set[str]:
    """Every key there is, as LOOSER spells it."""
    return {_pattern(path) for path, _ in _flat(policies.model_dump(exclude={"hash"}))}


def _loosens(looser: Looser | None, old: Any, new: Any) -> bool:
    """Whether going from `old` to `new` (None = absent; they differ) lets more through."""
    if looser is Looser.NEVER:
        return False
    if looser is None or ((old is None or new is None) and looser not in (Looser.LOWER, Looser.FEWER)):
        return True
    match looser:
        case Looser.HIGHER:
            return bool(new > old)
        case Looser.HIGHER_OR_ZERO:
            return bool(new == 0 or (old != 0 and new > old))
        case Looser.LOWER:
            return new is None or (old is not None and bool(new < old))
        case Looser.MORE:
            return not set(new) <= set(old)
        case Looser.FEWER:
            return not set(old or ()) <= set(new or ())
    return True


def _shown(value: object) -> str:
    return json.dumps(plain(value), ensure_ascii=True)


def tighter(old: Policies, new: Policies) -> list[str]:
    """The changes from `old` to `new` that loosen, as "key: old -> new"; empty = `new` may take effect at once."""
    before, after = (dict(_flat(policies.model_dump(exclude={"hash"}))) for policies in (old, new))
    return [
        f"{'.'.join(path)}: {_shown(before.get(path))} -> {_shown(after.get(path))}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path) and _loosens(LOOSER.get(_pattern(path)), before.get(path), after.get(path))
    ]
