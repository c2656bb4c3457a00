"""Watches a certified strategy trade and says when it is no longer what was validated. Pure: the same trades give the same alarm.

Six watches, each with its own number, bar and reason: the net result per trade (CUSUM), slippage against the model (CUSUM), entries that
do not fill (CUSUM), the fall of the running result beyond the bootstrap's 99 % envelope, wins against the predicted probability (a betting
martingale), and live signals or fills that a replay of the same bars does not show. Speed and false alarms trade against each other;
`python -m benchmarks.demotion` measures both.

CUSUM: E. S. Page, Biometrika 41 (1954); its mean time between false alarms after D. Siegmund, Sequential Analysis (1985), eq. 2.56.
Martingale: J. Ville (1939): one that starts at 1 and is fair under the hypothesis exceeds 1 / a with probability at most a, ever.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from modules.domain.certificate import Envelope
from modules.domain.policies import DemotionPolicy

_OVERSHOOT: Final = 1.166
"""Siegmund's correction for looking at discrete times: twice 0.583."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Why a strategy has to go back to paper."""

    watch: str
    """edge, slippage, fill_ratio, drawdown, calibration or drift."""
    measured: float
    limit: float
    reason: str


def cusum_limit(shift: float, run_length: float) -> float:
    """The bar of a one-sided CUSUM on standard normal values, reference value shift / 2, that is passed once in `run_length` values.

    Solves run_length = (exp(y) - y - 1) / (shift^2 / 2) with y = shift * (limit + 1.166) by bisection.
    """
    wanted = run_length * shift * shift / 2.0
    low, high = 0.0, 60.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if math.expm1(middle) - middle < wanted else (low, middle)
    return max(1.0, low / shift - _OVERSHOOT)


class Monitor:
    """One certified strategy from the day of its certificate on. Feed it in the order things happened; `alarm` stays once it is set."""

    __slots__ = ("_edge_limit", "_policy", "alarm", "bets", "edge", "envelope", "fills", "peak_r", "shortfall", "slippage", "sum_r",
                 "trades")

    def __init__(self, envelope: Envelope, policy: DemotionPolicy) -> None:
        self.envelope = envelope
        self._policy = policy
        between = max(1.0, float(policy.edge_false_alarm_years) * envelope.trades_per_year)
        self._edge_limit = cusum_limit(float(policy.edge_shift_r) / envelope.sd_r, between)
        self.edge = self.slippage = self.shortfall = 0.0
        self.sum_r = self.peak_r = 0.0
        self.bets = 0.0
        """Natural logarithm of the martingale's stake."""
        self.trades = 0
        self.fills = 0
        self.alarm: Alarm | None = None

    def trade(self, net_r: float, predicted_win: float | None = None) -> Alarm | None:
        """A trade closed at `net_r` times its risk, after all costs; `predicted_win` in (0, 1) as it was when the trade was decided."""
        policy, envelope = self._policy, self.envelope
        self.trades += 1
        standardized = (net_r - envelope.mean_r) / envelope.sd_r
        reference = 0.5 * float(policy.edge_shift_r) / envelope.sd_r
        self.edge = max(0.0, self.edge - standardized - reference)
        self.sum_r += net_r
        self.peak_r = max(self.peak_r, self.sum_r)
        likely = envelope.win_rate if predicted_win is None else predicted_win
        # What 500 trades say about a win rate is uncertain itself: two standard errors of benefit of the doubt.
        likely = max(0.0, likely - 2.0 * math.sqrt(max(likely * (1.0 - likely), 0.0) / envelope.trades))
        self.bets += math.log1p(float(policy.calibration_stake) * (likely - (1.0 if net_r > 0.0 else 0.0)))
        fall, evidence, said = self.peak_r - self.sum_r, math.exp(min(self.bets, 50.0)), f"after {self.trades} trades"
        if self.edge > self._edge_limit:
            return self._raise("edge", self.edge, self._edge_limit, f"net results fell below what was validated ({envelope.mean_r:+.3f} R "
                               f"a trade; {self.sum_r / self.trades:+.3f} R {said})")
        if fall > envelope.drawdown_r:
            return self._raise("drawdown", fall, envelope.drawdown_r, f"fell {fall:.1f} R from its peak, the 99 % envelope is "
                               f"{envelope.drawdown_r:.1f} R, {said}")
        if evidence > 1.0 / float(policy.calibration_alpha):
            return self._raise("calibration", evidence, 1.0 / float(policy.calibration_alpha),
                               f"wins less often than predicted ({likely:.1%}) {said}")
        return self.alarm

    def fill(self, slippage_bp: float, model_bp: float) -> Alarm | None:
        """A market or stop fill's adverse slippage beside what the model expected of it, both in basis points of the price."""
        policy = self._policy
        self.fills += 1
        ratio = slippage_bp / max(model_bp, float(policy.slippage_floor_bp))
        bounded = min(max(ratio, -float(policy.slippage_ratio_clip)), float(policy.slippage_ratio_clip))
        self.slippage = max(0.0, self.slippage + bounded - 0.5 * (1.0 + float(policy.slippage_multiple)))
        if self.slippage > policy.slippage_limit:
            return self._raise("slippage", self.slippage, float(policy.slippage_limit),
                               f"fills cost well more than modelled, {self.fills} seen (last"
                               f" {slippage_bp:.1f} bp, modelled {model_bp:.1f} bp)")
        return self.alarm

    def entry(self, ordered: float, filled: float) -> Alarm | None:
        """An entry order ended: what was ordered of it and what filled."""
        policy = self._policy
        share = min(1.0, filled / ordered) if ordered > 0.0 else 1.0
        self.shortfall = max(0.0, self.shortfall + self.envelope.fill_ratio - share - float(policy.fill_ratio_slack))
        if self.shortfall > policy.fill_ratio_limit:
            return self._raise("fill_ratio", self.shortfall, float(policy.fill_ratio_limit),
                               f"entries fill less than modelled (last {share:.0%}, "
                               f"modelled {self.envelope.fill_ratio:.0%})")
        return self.alarm

    def drift(self, found: Drift) -> Alarm | None:
        """What a replay of the same bars did differently."""
        policy = self._policy
        if found.different >= policy.drift_min and found.share > float(policy.drift_share_max):
            return self._raise("drift", found.share, float(policy.drift_share_max),
                               f"{found.different} of {found.compared} live signals and"
                               f" fills differ from a replay of the same bars; first: {found.first}")
        return self.alarm

    def _raise(self, watch: str, measured: float, limit: float, reason: str) -> Alarm:
        if self.alarm is None:
            self.alarm = Alarm(watch, measured, limit, reason)
        return self.alarm


@dataclass(frozen=True, slots=True)
class Drift:
    """How live and replay compare over the same bars."""

    compared: int
    different: int
    first: str

    @property
    def share(self) -> float:
        return self.different / self.compared if self.compared else 0.0


@dataclass(frozen=True, slots=True)
class Deed:
    """A signal or a fill, live or replayed. `at` is the bar's close (UTC ms); `price` NaN for a signal."""

    at: int
    symbol: str
    what: str
    """entry signal, exit signal, entry or exit."""
    side: int
    price: float


def compare(live: Sequence[Deed], replayed: Sequence[Deed], tolerance: float) -> Drift:
    """Signals must be the same, fills of the same side within `tolerance` (fraction of the price)."""
    one, other = _by_key(live), _by_key(replayed)
    different, first = 0, ""
    keys = sorted(one.keys() | other.keys())
    for key in keys:
        here, there = one.get(key), other.get(key)
        said = _difference(here, there, tolerance)
        if said:
            different += 1
            first = first or f"{key[1]} {key[2]} at {key[0]}: {said}"
    return Drift(len(keys), different, first)


def _by_key(deeds: Sequence[Deed]) -> Mapping[tuple[int, str, str], Deed]:
    return {(deed.at, deed.symbol, deed.what): deed for deed in deeds}


def _difference(live: Deed | None, replayed: Deed | None, tolerance: float) -> str:
    if live is None or replayed is None:
        return "only in replay" if live is None else "only live"
    if live.side != replayed.side:
        return "another side"
    if math.isnan(live.price) != math.isnan(replayed.price) or abs(live.price - replayed.price) > tolerance * abs(replayed.price):
        return f"{live.price} live, {replayed.price} in replay"
    return ""


def drawdown_envelope(net_r: NDArray[np.float64], trades: int, *, quantile: float, block: int, draws: int, seed: int) -> float:
    """The `quantile` of the deepest fall of the running sum over `trades` trades, by moving blocks of `net_r` (f8[n]); R units.

    H. R. Kuensch, Annals of Statistics 17 (1989), blocks wrapped around the end. Raises ValueError on an empty sample.
    """
    if net_r.size == 0:
        raise ValueError("no trades to draw from")
    generator = np.random.default_rng(seed)
    blocks = -(-trades // block)
    starts = generator.integers(0, net_r.size, size=(draws, blocks))
    index = (starts[:, :, None] + np.arange(block)).reshape(draws, -1)[:, :trades] % net_r.size
    running = np.cumsum(net_r[index], axis=1)
    peaks = np.maximum.accumulate(np.maximum(running, 0.0), axis=1)
    return float(np.quantile((peaks - running).max(axis=1), quantile))
