"""The bars to live trading as domain.md section 7 measured them, and what an owner who lowered one is told. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from modules.domain.instrument import AssetClass
from modules.domain.policies import ValidationPolicy

Bar = float | Mapping[AssetClass, float]
"""One number, or one per class."""
_SHIPPED: Final[Mapping[str, Bar]] = {
    "trades_min": 500, "evidence_sharpe_multiple": 2.0, "psr_min": 0.95, "stress_multiple": 2.0, "neighbours_share_min": 0.5,
    "sharpe_min": dict.fromkeys(AssetClass, 1.0), "instrument_trades_min": 30, "bootstrap_draws": 10_000, "drawdown_level": 0.95,
    "drawdown_equity": 10_000, "embargo": 0.01,
}
"""The bars that domain.md section 7 measured, where less is weaker."""
_SHIPPED_CAPS: Final[Mapping[str, Bar]] = {
    "p_value_max": 0.005, "p_value_later": 0.003, "loss_probability_max": 0.2, "trade_share_max": 0.4, "month_share_max": 0.4,
    "drawdown_max": {AssetClass.SPOT: 0.15, AssetClass.PERP: 0.15, AssetClass.OPTION: 0.12, AssetClass.FOREX: 0.12},
    "valid_days": 45, "same_idea_code": 0.85, "same_idea_correlation": 0.9, "envelope_level": 0.99,
}
"""Where more is weaker."""


def weakened(policy: ValidationPolicy) -> str:
    """What an owner who lowered a bar of validation_policy.json is told at every start; "" if none is lower than shipped.

    The significance gate holds its level whatever the number of variants (domain.md section 7: p <= .01 approves 1.0-1.3 % of worthless
    strategies), so its level is the rate. Without it (from .5 on) the measured rates of the remaining bars are told instead.
    """
    lower = list(_beyond(policy, _SHIPPED, -1.0))
    higher = list(_beyond(policy, _SHIPPED_CAPS, 1.0))
    if not lower and not higher:
        return ""
    level, later = float(policy.p_value_max), float(policy.p_value_later)
    rate = (f"about {level:.1%} of worthless strategies are approved at their first submission (0.5% as shipped), {level + later:.1%} "
            "however often they are submitted (0.8%)" if level < 0.5 else
            "of worthless strategies 9% are approved at one try, 40% as the best of 20 and 67% as the best of 100")
    return f"The gate to live trading is weaker than shipped: {', '.join(lower + higher)}. False approvals: {rate}."


def _beyond(policy: ValidationPolicy, bars: Mapping[str, Bar], direction: float) -> Iterator[str]:
    """Every bar that was moved in `direction`, class by class where each has its own."""
    for name, shipped in bars.items():
        present = getattr(policy, name)
        if not isinstance(shipped, Mapping):
            if direction * (float(present) - shipped) > 0.0:
                yield f"{name} {float(present):g} (shipped {shipped:g})"
            continue
        for asset_class, bar in shipped.items():
            if direction * (float(present[asset_class]) - bar) > 0.0:
                yield f"{name}.{asset_class.value} {float(present[asset_class]):g} (shipped {bar:g})"
