"""Option structures in validation: the daemon's own replay is the simulator, so that there is no second definition of a spread's legs,
fees, marks or settlement. Slower than the kernel by a thousand times, and therefore over fewer parameter sets.

Owns the translation of a replay's trades and equity into what the kernel's tasks give back. The replay itself is handed in as a function of
the outer shell (`Replay`; modules/cli/structure_runs.py), for a library may not import the daemon. Pure functions of their arguments, for
worker processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modules.backtest import prefix, tasks
from modules.backtest.kernel import REASONS, TRADE
from modules.backtest.series import Series
from modules.backtest.validation import Floats
from modules.domain.policies import Policies
from modules.domain.position import ClosedTrade
from modules.domain.signal import FLAT, Intent
from modules.strategies.protocol import Market, Strategy
from modules.venues.protocol import MacroEvent

DAY_MS: Final = 86_400_000
PATIENCE: Final = 60.0
"""Times the usual patience: one task replays an instrument a dozen times."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One underlying with its chains: the files of `folder` from `since` to `until` (UTC ms), watched on `symbol`."""

    folder: str
    symbol: str
    underlying: str
    since: int
    until: int
    events: tuple[MacroEvent, ...] = ()
    """Releases that close entries."""

    def part(self, since: int, until: int) -> Recording:
        return replace(self, since=max(since, self.since), until=min(until, self.until))


class Replayed(NamedTuple):
    """One run of the daemon, strategy and wallet alone."""

    trades: Sequence[ClosedTrade]
    equity: Sequence[tuple[int, float]]
    """(UTC ms, marked equity) in order of time."""
    wallet: float


Replay = Callable[[Recording, Strategy, Policies], Replayed]


def stressed(policies: Policies, factor: float) -> Policies:
    """The same owner where option orders cost `factor` times the fees, spread and slippage."""
    model, exact = policies.costs.OPTION, Decimal(repr(factor))
    costs = model.model_copy(update={
        "half_spread_bp": model.half_spread_bp * factor, "slippage_bp": model.slippage_bp * factor,
        "maker_fee": model.maker_fee * exact, "taker_fee": model.taker_fee * exact})
    return policies.model_copy(update={"costs": policies.costs.model_copy(update={"OPTION": costs})})


def probe(series: Series, replay: Replay, recording: Recording, strategy: Strategy, policies: Policies, bars: int, cuts: int
          ) -> dict[str, Any]:
    """As tasks.probe: the step on prefixes of the underlying, and the daemon over half of the recording against all of it."""
    shown = series if len(series) <= bars else series.part(0, bars)
    found = prefix.lookahead(strategy, strategy.params, shown, bars_max=bars, cuts=cuts)
    differences, note = sum(cut.differing for cut in found.cuts) + len(found.impurities) + (not found.repeatable), found.reason
    half = recording.since + (recording.until - recording.since) // 2
    whole = _table(replay(recording, strategy, policies).trades, series)
    part = _table(replay(recording.part(recording.since, half), strategy, policies).trades, series)
    ended, begun = whole[whole["exit_at"] < half], part[part["exit_at"] < half]
    if len(ended) != len(begun) or any(not np.array_equal(ended[name], begun[name]) for name in ("entry_at", "exit_at", "side", "net")):
        differences += 1
        note = note or f"trades on {series.symbol} differ when later bars are there"
    return {"differences": int(differences), "note": note}


def sweep(series: Series, replay: Replay, recording: Recording, strategy: Strategy, sets: Sequence[Any], policies: Policies
          ) -> dict[str, Any]:
    """As tasks.sweep, per unit of the opening wallet. `market` and `net_exposure` are put in when the random entries are known."""
    first, days = _days(recording)
    daily, trades, longest = np.zeros((days, len(sets))), np.zeros(len(sets), dtype=np.int64), np.zeros(len(sets), dtype=np.int64)
    for column, params in enumerate(sets):
        run = replay(recording, replace(strategy, params=params), policies)
        daily[:, column], trades[column] = _daily(run, first, days), len(run.trades)
        longest[column] = max((trade.closed_at - trade.opened_at for trade in run.trades), default=0)
    return {"first_day": first, "daily": daily, "trades": trades, "net_exposure": np.zeros(len(sets)), "longest": longest,
            "market": np.zeros(days)}


def test(series: Series, replay: Replay, recording: Recording, strategy: Strategy, windows: Sequence[tuple[Any, int, int]], final: Any,
         policies: Mapping[str, Policies], draws: int, seed: int) -> dict[str, Any]:
    """As tasks.test: each window replayed on its own after a warm-up on the bars before it, plain and stressed, and as many random entries
    into the same structure, held as long on average."""
    first, days = _days(recording)
    runs = {name: [replay(recording.part(begin, end), replace(strategy, params=params), chosen)
                   for params, begin, end in windows if begin < recording.until and end > recording.since]
            for name, chosen in policies.items()}
    daily = {name: np.sum([np.zeros(days), *(_daily(one, first, days) for one in each)], axis=0) for name, each in runs.items()}
    whole = replay(recording, replace(strategy, params=final), policies["plain"])
    dealt = np.array([_daily(replay(recording, random_entries(strategy, whole.trades, series, seed + draw), policies["plain"]), first, days)
                      for draw in range(draws)])
    trades = _table([trade for one in runs["plain"] for trade in one.trades], series)
    priced = trades.copy()  # drawn on the underlying's price: a premium has no place there
    priced["entry"], priced["exit"] = series.close[trades["entry_bar"]], series.close[trades["exit_bar"]]
    return {"first_day": first, "daily": daily | {"phased": daily["plain"]}, "trades": trades, "random": dealt.mean(axis=0),
            "random_net": dealt.sum(axis=1), "whole": _daily(whole, first, days), "fills": np.ones(len(trades)),
            "whole_trades": len(whole.trades), "marks": tasks.marks(series, priced, windows[0][1] if windows else 0)}


def benchmarked(swept: dict[str, Any], tested: Mapping[str, Any]) -> None:
    """What random entries earned is the market's day, and a set is exposed to it by its number of trades (findings.benchmark)."""
    swept["market"] = tested["random"]
    swept["net_exposure"] = swept["trades"] / max(1, tested["whole_trades"])


# -- out of a replay ---------------------------------------------------------------------------------------------------------------------


def _days(recording: Recording) -> tuple[int, int]:
    """(UTC day of the first instant, number of days)."""
    first = recording.since // DAY_MS
    return first, (recording.until - 1) // DAY_MS - first + 1


def _daily(run: Replayed, first: int, days: int) -> Floats:
    """[days] change of marked equity per unit of the opening wallet; a value at midnight ends the day before."""
    last: dict[int, float] = {}
    for at, equity in run.equity:
        last[(at - 1) // DAY_MS - first] = equity
    found, before = np.zeros(days), run.wallet
    for day in range(days):
        now = last.get(day, before)
        found[day], before = (now - before) / run.wallet, now
    return found


def _table(trades: Sequence[ClosedTrade], series: Series) -> NDArray[Any]:
    found = np.zeros(len(trades), dtype=TRADE)
    for row, trade in zip(found, sorted(trades, key=lambda trade: trade.opened_at), strict=True):
        row["entry_at"], row["exit_at"], row["side"] = trade.opened_at, trade.closed_at, trade.side.sign
        row["reason"] = REASONS.index(trade.exit_reason) if trade.exit_reason in REASONS else 0
        row["entry"], row["exit"], row["quantity"], row["ordered"] = (float(one) for one in (
            trade.entry, trade.exit, trade.quantity, trade.quantity))
        row["gross"], row["fees"], row["funding"], row["net"], row["risk"], row["slippage"] = (float(one) for one in (
            trade.gross, trade.fees, trade.funding, trade.net, trade.risk, trade.slippage_bp))
    for bar, at in (("entry_bar", "entry_at"), ("exit_bar", "exit_at")):
        found[bar] = np.minimum(np.searchsorted(series.at, found[at]), len(series) - 1)
    return found


# -- the benchmark that shares a structure but no judgment ---------------------------------------------------------------------------------


class DealtParams(NamedTuple):
    seed: int
    chance: float
    """Of an entry at a bar without a view."""
    hold: int
    longs: float
    """Share of views upward."""


class DealtState(NamedTuple):
    wish: Intent
    left: int


def random_entries(strategy: Strategy, trades: Sequence[ClosedTrade], series: Series, seed: int) -> Strategy:
    """The same structure, entered at random: about as many trades, of the same sides, held as long on average."""
    interval, bars = series.interval_ms, len(series)
    held = [max(1, (trade.closed_at - trade.opened_at) // interval) for trade in trades] or [1]
    free = max(1, bars - strategy.warmup - sum(held))
    params = DealtParams(seed % 2_147_483_647, min(1.0, len(trades) / free), round(sum(held) / len(held)),
                         sum(trade.side.sign > 0 for trade in trades) / max(1, len(trades)))
    return replace(strategy, name=f"{strategy.name}_dealt", params=params, init=_begin, step=_deal, space={})


def _begin(params: DealtParams) -> DealtState:
    return DealtState(FLAT, 0)


def _deal(state: DealtState, market: Market, params: DealtParams) -> tuple[DealtState, Intent]:
    if state.left > 1:
        return DealtState(state.wish, state.left - 1), state.wish
    if state.left == 1 or _draw(market.at, params.seed, 1) >= params.chance:
        return DealtState(FLAT, 0), FLAT
    wish = Intent(1.0 if _draw(market.at, params.seed, 2) < params.longs else -1.0, 0.0, 0.0, params.hold)
    return DealtState(wish, params.hold), wish


def _draw(at: float, seed: int, salt: int) -> float:
    """A number in [0, 1) out of a time and two seeds."""
    value = (int(at // 60_000.0) * 48_271 + seed * 69_621 + salt * 16_807) % 2_147_483_647
    for _ in range(4):
        value = (value * 48_271 + 11 * seed + salt) % 2_147_483_647
    return value / 2_147_483_647.0
