"""The certificate that an approval earns, from the trades it was earned with. Pure; refuses anything but an approval."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modules.backtest.demotion import drawdown_envelope
from modules.backtest.validation import Validation
from modules.domain.certificate import DAY_MS, Certificate, Envelope, bound
from modules.domain.policies import Policies


def lower_bound(net_r: NDArray[np.float64], level: float) -> float:
    """One-sided lower bound of the mean; -inf below two trades."""
    if len(net_r) < 2:
        return -math.inf
    return float(net_r.mean()) - NormalDist().inv_cdf(level) * float(net_r.std(ddof=1)) / math.sqrt(len(net_r))


def _fill_ratio(validation: Validation) -> float:
    """Share of what was ordered that fills at the daemon's sizes, by the cost model's participation in each bar's volume."""
    measured = float(validation.metrics.get("fill_ratio", math.nan))
    return min(1.0, max(0.0, measured)) if math.isfinite(measured) else 1.0


def certificate(validation: Validation, trades: NDArray[Any], policies: Policies, at: int, source: str = "") -> Certificate:
    """`trades`: the out-of-sample trades (kernel.TRADE) on the certified instruments. `at` UTC ms. `source`: the folder it was earned on.
    Raises ValueError unless APPROVED."""
    if validation.verdict != "APPROVED":
        raise ValueError(f"{validation.strategy}: {validation.verdict} earns no certificate")
    net_r = trades["net"][trades["risk"] > 0.0] / trades["risk"][trades["risk"] > 0.0]
    policy = policies.validation
    confidence = lower_bound(net_r, float(policies.learning.calibration.bound)) / float(policies.risk.expected_r_per_confidence)
    fall = drawdown_envelope(net_r, policy.envelope_trades, quantile=float(policy.envelope_level), block=policy.envelope_block,
                             draws=policy.envelope_draws, seed=validation.seed)
    spans = [(one.begin, one.end) for one in validation.picture.instruments]
    return Certificate(
        strategy=validation.strategy, asset_class=validation.asset_class, instruments=validation.instruments,
        params=dict(validation.params), code_hash=validation.code_hash, data_hash=validation.data_hash,
        policy=bound(policies, validation.asset_class),
        data_from=min(begin for begin, _ in spans), data_until=min(at, max(end for _, end in spans)), issued_at=at,
        revalidate_at=at + policy.revalidate_days * DAY_MS, expires_at=at + policy.valid_days * DAY_MS,
        confidence=min(1.0, max(0.0, confidence)),
        envelope=Envelope(trades=len(net_r), mean_r=float(net_r.mean()), sd_r=float(net_r.std(ddof=1)), drawdown_r=fall,
                          drawdown_trades=policy.envelope_trades,
                          trades_per_year=len(net_r) / validation.metrics["out_years"],
                          slippage_bp=max(0.0, float(trades["slippage"].mean())), fill_ratio=_fill_ratio(validation),
                          win_rate=float(np.mean(trades["net"] > 0.0))),
        metrics={name: float(value) for name, value in validation.metrics.items() if math.isfinite(value)}, seed=validation.seed,
        trials=max(1, validation.trials), submissions=validation.submissions, source=source)
