"""`trade`: from the command line to a running daemon. Looks at everything that speaks against the start, locks, opens the journal, runs.

Order matters: every fault is said before anything is written; the lock comes before the journal; what runs then is `process.Process`.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack

from modules import Logger_Config
from modules.cli import inputs, start_checks
from modules.cli.process import Process
from modules.domain.errors import ConfigurationError
from modules.domain.policies import Policies
from modules.domain.settings import Settings
from modules.news import calendar
from modules.news.calendar import Calendar
from modules.runtime.clock import WallClock
from modules.store.journal import Journal
from modules.store.lock import StateFolder


def run(arguments: argparse.Namespace) -> int:
    settings, policies = start_checks.demand(
        arguments, mode=arguments.mode, demo__speed=arguments.speed, demo__seed=arguments.seed)
    strategies = inputs.strategies(settings)
    events, covered = calendar.load(settings.policy_dir / "macro_calendar.json", policies.news)
    Logger_Config.configure(settings.log_dir, console=not sys.stdout.isatty())
    with ExitStack() as held:
        folder = held.enter_context(StateFolder(inputs.state_folder(settings)))
        if settings.mode == "live":
            from modules.cli import market  # what talks to venues is loaded where there are venues

            market.lock_accounts(settings, held)
            _warned(settings, policies)
        if settings.mode == "demo":
            _same_market(folder, settings.demo.seed)
        journal = held.enter_context(Journal(folder.journal))
        return Process(arguments, settings, policies, folder, journal, strategies, Calendar(events, policies.news, covered)).run()


def _warned(settings: Settings, policies: Policies) -> None:
    """Says on stderr what will not be traded; that nothing would be has been refused before."""
    from modules.cli import permits

    for words in permits.gate(settings, policies, WallClock().now()).warned:
        print(words, file=sys.stderr)


def _same_market(folder: StateFolder, seed: int) -> None:
    """A journal goes on in the market it began in. Raises ConfigurationError for another seed."""
    path = folder.path / "demo_seed"
    known = path.read_text(encoding="ascii").strip() if path.exists() else ""
    if known and known != str(seed):
        raise ConfigurationError([f"demo.seed = {seed}: {folder.path} holds the books of market {known}; go on with --seed {known}, or "
                                  "give this one another state_dir"])
    path.write_text(f"{seed}\n", encoding="ascii")
