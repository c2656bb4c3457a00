"""With FORBID_SKIPS set (as in CI, where everything a test needs is there) a skipped test is a failed run: nothing hides as a skip.

Hypothesis gives an example no time limit here: what it would measure is how busy the machine is. Run in parallel, the files that take
longest begin first, so that no worker is left alone with one at the end.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import hypothesis
import pytest
import structlog

hypothesis.settings.register_profile("no time limit", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("no time limit")
_skipped: list[str] = []
LONGEST_FIRST = (
    "test_demo_is_a_market", "test_day_in_the_life", "test_demo_shows_every_rule", "test_process_modes", "test_ccxt_faults",
    "test_live_bybit", "test_pipeline", "test_process_full_disk", "test_web_page", "test_cli", "test_compiled_strategies", "test_docs",
    "test_offline", "test_oanda_venue", "test_learning_shadow", "test_period_report", "test_replay_with_news", "test_validation_news",
    "test_backup", "test_new_strategy", "test_demo_reconciles", "test_export_and_audit", "test_operator_desk", "test_replay_recorded",
    "test_ccxt_traps", "test_live_oanda", "test_live_binance", "test_mqtt", "test_telegram", "test_workers", "test_drill",
    "test_demo_market")
"""Files, roughly by how long they take; a name more or less changes how long a run takes and nothing else."""


def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "loadscopereorder", False):
        config.option.loadscopereorder = False  # xdist begins with the files that have most tests, which are not the longest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        rank = {name: place for place, name in enumerate(LONGEST_FIRST)}
        items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A test that configures logging (the command line does) leaves no trace in the next one."""
    root = logging.getLogger()
    handlers, level, disabled = list(root.handlers), root.level, logging.root.manager.disable
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.disable(disabled)
    structlog.reset_defaults()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(f"{report.nodeid}: {report.longrepr[2] if isinstance(report.longrepr, tuple) else ''}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if os.environ.get("FORBID_SKIPS") and _skipped and exitstatus == 0:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if os.environ.get("FORBID_SKIPS"):
        for line in _skipped:
            terminalreporter.write_line(f"SKIPPED where skips are forbidden: {line}")
