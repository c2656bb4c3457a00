"""The bars to live trading as domain.md section 7 measured them, and what an owner who lowered one is told. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from modules.domain.policies import ValidationPolicy

_SHIPPED: Final[Mapping[str, float]] = {
    "trades_min": 500, "evidence_sharpe_multiple": 2.0, "psr_min": 0.95, "stress_multiple": 2.0, "neighbours_share_min": 0.5,
    "sharpe_min": 1.0, "instrument_trades_min": 30, "bootstrap_draws": 10_000, "drawdown_level": 0.95,
}
"""The bars that domain.md section 7 measured, where less is weaker."""
_SHIPPED_CAPS: Final[Mapping[str, float]] = {
    "p_value_max": 0.005, "loss_probability_max": 0.2, "trade_share_max": 0.4, "month_share_max": 0.4, "drawdown_max": 0.15,
    "valid_days": 45, "same_idea_code": 0.85, "same_idea_correlation": 0.9,
}
"""Where more is weaker."""


def weakened(policy: ValidationPolicy) -> str:
    """What an owner who lowered a bar of validation_policy.json is told at every start; "" if none is lower than shipped.

    The significance gate holds its level whatever the number of variants (domain.md section 7: p <= .01 approves 1.0-1.3 % of worthless
    strategies), so its level is the rate. Without it (from .5 on) the measured rates of the remaining bars are told instead.
    """
    lower = [f"{name} {_least(getattr(policy, name)):g} (shipped {bar:g})" for name, bar in _SHIPPED.items()
             if _least(getattr(policy, name)) < bar]
    higher = [f"{name} {_most(getattr(policy, name)):g} (shipped {bar:g})" for name, bar in _SHIPPED_CAPS.items()
              if _most(getattr(policy, name)) > bar]
    if not lower and not higher:
        return ""
    level = float(policy.p_value_max)
    rate = (f"about {level:.1%} of worthless strategies are approved at their first submission (0.5% as shipped)" if level < 0.5 else
            "of worthless strategies 9% are approved at one try, 40% as the best of 20 and 67% as the best of 100")
    return f"The gate to live trading is weaker than shipped: {', '.join(lower + higher)}. False approvals: {rate}."


def _values(value: Any) -> Iterable[float]:
    return map(float, value.values()) if isinstance(value, Mapping) else (float(value),)


def _least(value: Any) -> float:
    return min(_values(value))


def _most(value: Any) -> float:
    return max(_values(value))
