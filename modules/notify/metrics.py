"""Prometheus metrics of the running daemon, made from its own status documents when somebody scrapes. Owns the metrics' names.

Money is exported as floats: a monitoring system is not a ledger. prometheus_client is imported only where metrics are served.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from modules.domain.events import Fact

Document = Mapping[str, Any]
STATES: Final = {"ACTIVE": 0, "REDUCING": 1, "HALTED": 2}
PER_CLASS: Final = (
    # metric, where in the status document, what it is
    ("equity", "equity", "Marked equity of the sub-ledger, settlement currency"),
    ("phase", "phase", "Sizing phase 1-4"),
    ("drawdown_daily_ratio", "drawdown_daily", "Drawdown from the UTC day's peak, fraction"),
    ("drawdown_daily_limit_ratio", "drawdown_daily_max", "Above this the class halts for the day"),
    ("drawdown_monthly_ratio", "drawdown_monthly", "Drawdown from the UTC month's peak, fraction"),
    ("drawdown_monthly_limit_ratio", "drawdown_monthly_max", "Above this the class halts until an operator re-arms it"),
    ("open_positions", "open_positions", "Positions held"),
)


class Metrics:
    """`status` and `balance` are the reports' documents; `gauges` further plain numbers by name (journal rows, ...).

    `on_fact` counts facts by kind as they happen. `render` gives the exposition text.
    """

    def __init__(self, status: Callable[[], Document], balance: Callable[[], Document],
                 gauges: Mapping[str, tuple[str, Callable[[], float | None]]], version: str) -> None:
        from prometheus_client import CollectorRegistry, ProcessCollector

        self._status = status
        self._balance = balance
        self._gauges = dict(gauges)
        self._version = version
        self._facts: Counter[str] = Counter()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def on_fact(self, fact: Fact) -> None:
        """An observer: counts."""
        self._facts[type(fact).__name__] += 1

    def render(self) -> bytes:
        from prometheus_client import generate_latest

        return generate_latest(self._registry)

    def collect(self) -> Iterator[Any]:
        """What prometheus_client asks a collector for."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        status, balance = self._status(), self._balance()
        about = GaugeMetricFamily("trading_bot_info", "Version and mode; always 1", labels=("version", "mode"))
        about.add_metric((self._version, status["mode"]), 1.0)
        yield about
        for name, key, help_text in PER_CLASS:
            family = GaugeMetricFamily(f"trading_bot_{name}", help_text, labels=("asset_class",))
            for asset_class, shown in status["classes"].items():
                if shown[key] is not None:
                    family.add_metric((asset_class,), float(shown[key]))
            yield family
        state = GaugeMetricFamily("trading_bot_trading_state", "0 active, 1 reducing (exits only), 2 halted", labels=("asset_class",))
        for asset_class, shown in status["classes"].items():
            state.add_metric((asset_class,), STATES[shown["state"]])
        yield state
        for name, key in (("net_result", "net"), ("cash", "cash"), ("reserved", "reserved"), ("margin", "margin")):
            family = GaugeMetricFamily(f"trading_bot_{name}", f"{key} of the sub-ledger, settlement currency", labels=("asset_class",))
            for asset_class, shown in balance["classes"].items():
                family.add_metric((asset_class,), float(shown[key]))
            yield family
        age = GaugeMetricFamily("trading_bot_feed_age_seconds", "Since the instrument's last closed bar", labels=("symbol",))
        lost = GaugeMetricFamily("trading_bot_feed_lost", "1 where the feed is silent", labels=("symbol",))
        for symbol, feed in status["feeds"].items():
            if feed["age_s"] is not None:
                age.add_metric((symbol,), feed["age_s"])
            lost.add_metric((symbol,), float(feed["state"] == "lost"))
        yield age
        yield lost
        facts = CounterMetricFamily("trading_bot_facts", "Facts journaled since the start, by kind", labels=("kind",))
        for kind, count in sorted(self._facts.items()):
            facts.add_metric((kind,), count)
        yield facts
        plain: dict[str, tuple[str, float | None]] = {
            "orders_in_doubt": ("Orders whose fate is unknown", len(status["in_doubt"])),
            "wallet_age_seconds": ("Since the venue's wallet was read", status["wallet_age_s"]),
            "loop_lag_p99_ms": ("How late the event loop runs, 99th percentile of the last minute", status["loop_lag_ms_p99"]),
            "problems": ("How many things /healthz complains of", len(status["problems"])),
            **{name: (help_text, value()) for name, (help_text, value) in self._gauges.items()}}
        for name, (help_text, measured) in plain.items():
            if measured is not None:
                yield GaugeMetricFamily(f"trading_bot_{name}", help_text, value=float(measured))
