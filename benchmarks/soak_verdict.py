"""What a soak showed: slopes of what must not grow, the books against the venue's, and whether each bar was held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

import config
from benchmarks import common
from modules.cli import offline
from modules.domain.events import (
    BalanceAdjusted,
    Fact,
    Filled,
    OrderInDoubt,
    OrderSent,
    PositionClosed,
    TradingHalted,
    UnallocatedMoved,
)
from modules.domain.instrument import AssetClass
from modules.domain.money import ZERO
from modules.store.journal import Journal
from tests.live_process import VENUES

GROWTH_MAX: Final = 0.05
"""Of resident memory over the second half, by a straight line."""
MB_PER_1000_ORDERS_MAX: Final = 25.0
"""What fills is of a fixed size: ccxt's caches and our books of ended orders hold 300 each, and until then a life grows by some 20 MB
(--census with PYTHONTRACEMALLOC=1 says which line holds it). Only closed trades are kept for good, about a kilobyte each."""
MORE_MAX: Final = {"descriptors": 3.0, "threads": 1.0, "tasks": 3.0}
"""More at the end of the second half than at its beginning, by a straight line: connections come and go."""
LAG_MS_MAX: Final = 250.0
BARE_S_MAX: Final = 10.0
STOP_S_MAX: Final = 10.0
MINUTES_MIN: Final = 10.0
"""A shorter run says nothing about growth and seconds: caches of a fixed size still fill, and it only shows that everything works."""
SAMPLES_MIN: Final = 12
"""Fewer in the second half, and no line is drawn through them."""


class Sample(NamedTuple):
    at_s: float
    """Since the soak began, the machine's seconds."""
    orders: int
    """The bot's, as the venue counts them."""
    life: int
    """How often the daemon had been started."""
    rss_mb: float
    descriptors: float
    threads: float
    tasks: float
    journal_mb: float
    lag_p99_ms: float
    """Of the minute before."""


class Line(NamedTuple):
    first: float
    last: float
    """Of the fitted straight line."""

    @property
    def more(self) -> float:
        return self.last - self.first


def fitted(samples: Sequence[Sample], name: str) -> Line | None:
    """A straight line through a figure over time; None with too few points, or none that is known."""
    points = [(sample.at_s, getattr(sample, name)) for sample in samples if not np.isnan(getattr(sample, name))]
    if len(points) < SAMPLES_MIN:
        return None
    at, values = np.array(points).T
    slope, start = np.polyfit(at - at[0], values, 1)
    return Line(float(start), float(start + slope * (at[-1] - at[0])))


def second_half(samples: Sequence[Sample]) -> list[Sample]:
    """Of the last life, what lies in the second half of the whole."""
    if not samples:
        return []
    middle = samples[-1].at_s / 2.0
    return [sample for sample in samples if sample.at_s >= middle and sample.life == samples[-1].life]


def slopes(samples: Sequence[Sample]) -> dict[str, Any]:
    """What grew in the second half."""
    half = second_half(samples)
    hours = (half[-1].at_s - half[0].at_s) / 3600.0 if half else 0.0
    orders = half[-1].orders - half[0].orders if half else 0
    found: dict[str, Any] = {"minutes": round(hours * 60.0, 1), "orders": orders}
    for name in ("rss_mb", "descriptors", "threads", "tasks", "journal_mb"):
        line = fitted(half, name)
        found[name] = None if line is None else {"first": round(line.first, 3), "last": round(line.last, 3)}
    line = fitted(half, "rss_mb")
    if line is not None:
        found |= {"rss_mb_per_hour": round(line.more / hours, 2), "rss_growth": round(line.more / line.first, 4),
                  "rss_mb_per_1000_orders": round(line.more * 1000.0 / orders, 2) if orders else None}
    lags = [sample.lag_p99_ms for sample in samples if not np.isnan(sample.lag_p99_ms)]
    found |= {"lag_p99_ms_worst_minute": max(lags, default=None),
              "lag_p99_ms_median_minute": common.percentile(lags, 0.5) if lags else None}
    return found


# -- the books -----------------------------------------------------------------------------------------------------------


def facts_of(journal: Path) -> list[Fact]:
    with Journal(journal, read_only=True) as opened:
        return [fact for _, fact in opened.facts()]


def differences(app: Path, venue: str, theirs: dict[str, Any]) -> dict[str, str]:
    """Currency or symbol -> books and the owner's part less what the venue says, where that is not zero."""
    traded, state = VENUES[venue], app / "state" / "live"
    settings = config.load_settings([app / "config.toml"], {"state_dir": str(app / "state"), "policy_dir": str(app / "policies")},
                                    environment={})
    ours: Counter[str] = Counter()
    with offline.replayed(settings, config.load_policies(app / "policies"), state / "journal.sqlite", state / "nowhere") as daemon:
        for name in traded.classes:
            asset_class = AssetClass(name)
            ours[traded.settle] += daemon.portfolio.wallet_cash(asset_class)  # type: ignore[assignment]
            for coin, amount in daemon.portfolio.coins(asset_class).items():
                ours[coin] += amount  # type: ignore[assignment]
        for symbol, position in daemon.portfolio.positions.items():
            if position.asset_class is not AssetClass.SPOT:
                ours[symbol] += position.quantity  # type: ignore[assignment]
        for key, amount in daemon.wallets.unallocated(venue).items():
            ours[key] += amount  # type: ignore[assignment]
    for key, text in (theirs["wallet"] | theirs["positions"]).items():
        ours[key] -= Decimal(text)  # type: ignore[assignment]
    return {key: str(amount) for key, amount in ours.items() if amount != ZERO}


def told(facts: Sequence[Fact], venue_fills: Sequence[str]) -> dict[str, Any]:
    """What the journal says happened."""
    sent = Counter(fact.client_order_id for fact in facts if isinstance(fact, OrderSent))
    booked = Counter((fact.fill.symbol, fact.fill.venue_trade_id) for fact in facts if isinstance(fact, Filled))
    names = {name for _, name in booked}
    return {
        "facts": dict(Counter(type(fact).__name__ for fact in facts).most_common()),
        "orders": len(sent), "sent_twice": sorted(name for name, count in sent.items() if count > 1),
        "booked_twice": sorted(name for (_, name), count in booked.items() if count > 1),
        "fills_missing": sorted(set(venue_fills) - names)[:20],
        "round_trips": sum(isinstance(fact, PositionClosed) for fact in facts),
        "halts": dict(Counter(fact.trigger.value for fact in facts if isinstance(fact, TradingHalted))),
        "in_doubt": sum(isinstance(fact, OrderInDoubt) for fact in facts),
        "became_the_owners": [f"{fact.currency} {fact.amount}" for fact in facts
                              if isinstance(fact, UnallocatedMoved) and fact.reason == "unexplained difference"],
        "adjusted": [f"{fact.currency} {fact.amount}" for fact in facts if isinstance(fact, BalanceAdjusted)],
    }


# -- the verdict ---------------------------------------------------------------------------------------------------------


class Bar(NamedTuple):
    what: str
    measured: Any
    limit: Any
    held: bool


def judged(report: dict[str, Any]) -> list[Bar]:
    """Every bar, held or not. What could not be measured is not held, but where the run was too short to draw a line (smoke)."""
    grown, venue, journal, bars = report["slopes"], report["venue"], report["journal"], list[Bar]()
    if grown["rss_mb"] is not None and report["real_minutes"] >= MINUTES_MIN:
        bars.append(Bar("memory, growth over the second half", grown["rss_growth"], GROWTH_MAX, grown["rss_growth"] <= GROWTH_MAX))
        per = grown["rss_mb_per_1000_orders"]
        if per is not None:
            bars.append(Bar("memory, MB per 1,000 orders", per, MB_PER_1000_ORDERS_MAX, per <= MB_PER_1000_ORDERS_MAX))
        for name, limit in MORE_MAX.items():
            line = grown[name]
            more = None if line is None else round(line["last"] - line["first"], 2)
            bars.append(Bar(f"{name}, more at the end of it", more, limit, more is not None and more <= limit))
    if report["real_minutes"] >= MINUTES_MIN:
        lag, code_s = grown["lag_p99_ms_worst_minute"], report["stopped"]
        bars += [
            Bar("loop lag p99 of the worst minute, ms", lag, LAG_MS_MAX, lag is not None and lag < LAG_MS_MAX),
            Bar("longest without a stop, s", venue["bare_longest_s"], BARE_S_MAX, venue["bare_longest_s"] <= BARE_S_MAX),
            Bar("the same from a new process's birth, s", venue["bare_restart_s"], BARE_S_MAX, venue["bare_restart_s"] <= BARE_S_MAX),
            Bar("seconds from SIGTERM to the end", code_s[1], STOP_S_MAX, code_s[1] < STOP_S_MAX),
            Bar("it traded: round trips", journal["round_trips"], 1, journal["round_trips"] >= 1),
        ]
    bars += [
        Bar("orders the venue got twice", len(venue["twice"]), 0, not venue["twice"]),
        Bar("orders sent twice by the journal", len(journal["sent_twice"]), 0, not journal["sent_twice"]),
        Bar("fills booked twice", len(journal["booked_twice"]), 0, not journal["booked_twice"]),
        Bar("fills of the venue's that were never booked", len(journal["fills_missing"]), 0, not journal["fills_missing"]),
        Bar("differences between the books and the venue", report["differences"], {}, not report["differences"]),
        Bar("differences adjusted on the way", journal["adjusted"], [], not journal["adjusted"]),
        Bar("orders in doubt at the end", report["in_doubt_at_end"], 0, report["in_doubt_at_end"] == 0),
        Bar("exit code", report["stopped"][0], 0, report["stopped"][0] == 0),
        Bar("ended by itself", report["died"], 0, report["died"] == 0),
    ]
    return bars
