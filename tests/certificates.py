"""Certificates the tests share: one for a strategy as it is installed, under the shipped policies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modules.domain.certificate import Certificate, Envelope, bound
from modules.domain.instrument import AssetClass
from modules.strategies.fingerprint import code_hash, params_of
from modules.strategies.registry import get
from tests.builders import AT, BTC_SPOT, DAY_MS, STRATEGY, shipped_policies

ENVELOPE = Envelope(
    trades=800, trades_per_year=300.0, mean_r=0.2, sd_r=1.0, drawdown_r=30.0, drawdown_trades=300, slippage_bp=4.0, fill_ratio=0.98,
    win_rate=0.58)


def certificate(strategy: str = STRATEGY, asset_class: AssetClass = AssetClass.SPOT, **changes: Any) -> Certificate:
    """Issued at the builders' noon for 45 days on bitcoin; `changes` are its fields."""
    installed = get(strategy)
    made = Certificate(
        strategy=strategy, asset_class=asset_class, instruments=(BTC_SPOT,), params=params_of(installed), code_hash=code_hash(installed),
        data_hash="d" * 64, policy=bound(shipped_policies(), asset_class), data_from=AT - 700 * DAY_MS, data_until=AT - DAY_MS,
        issued_at=AT, revalidate_at=AT + 30 * DAY_MS, expires_at=AT + 45 * DAY_MS, confidence=0.6, envelope=ENVELOPE,
        metrics={"sharpe": 1.9, "p_value": 0.001}, seed=7, trials=24, submissions=1)
    return replace(made, **changes)
