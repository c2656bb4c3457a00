"""With FORBID_SKIPS set (as in CI, where everything a test needs is there) a skipped test is a failed run: nothing hides as a skip."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
import structlog

_skipped: list[str] = []


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
