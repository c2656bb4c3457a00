"""What the terminal shows of a running daemon: a summary that refreshes on a terminal, one plain line per important event elsewhere.

Reads only what a status document says, so it can neither slow nor change trading; its errors never leave it (runtime/supervise).
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, TextIO

from modules.domain.events import (
    DaemonStarted,
    ExitRequested,
    Fact,
    Filled,
    OrderInDoubt,
    Reconciled,
    TradeAbandoned,
)
from modules.domain.policies import Policies
from modules.domain.sessions import iso
from modules.notify.render import sentence

Document = Mapping[str, Any]

REFRESH_S: Final = 1.0
EVENTS_KEPT: Final = 12
STYLES: Final = {"ACTIVE": "green", "REDUCING": "yellow", "HALTED": "bold red"}
QUIET: Final = frozenset({ExitRequested, TradeAbandoned, Reconciled, DaemonStarted})
"""Facts with a sentence that is not worth a line on the terminal; the log has them."""


def trade_size(phase: int, equity: Decimal, policies: Policies) -> str:
    """What a trade is worth in this phase, in a person's words."""
    sizing = policies.sizing
    if phase == 1:
        return f"${sizing.phase_1_notional:f} a trade"
    if phase == 2:
        low, high = (max(sizing.phase_1_notional, equity * share) for share in (sizing.phase_2_fraction_min, sizing.phase_2_fraction_max))
        return f"${low:,.2f} to ${high:,.2f} a trade"
    cap = sizing.good_setup_cap_max if phase == 4 else sizing.position_cap_max
    return f"up to ${equity * cap:,.2f} a position"


def opening_lines(status: Document, policies: Policies, *, next_event: str) -> list[str]:
    """What a person wants to know first: mode, per class equity, phase, what a trade is worth, where it halts, the next release."""
    lines = [f"{status['mode'].upper()}. Market time {status['at'][:16]} UTC."]
    for name, shown in status["classes"].items():
        if shown["equity"] is None:
            lines.append(f"{name}: value unknown, a price is missing.")
            continue
        equity = Decimal(shown["equity"])
        state = f" {shown['state']}: {shown['halted_by']}." if shown["halted_by"] else ""
        halt = -equity * policies.kill_switch.drawdown_daily_max
        lines.append(f"{name} {equity:,.2f} {shown['currency']}, phase {shown['phase']}, {trade_size(shown['phase'], equity, policies)}, "
                     f"halts at {halt:,.2f} today.{state}")
    lines.append(f"Next event: {next_event or 'none known'}. explain, status and kill are python main.py VERB in another terminal.")
    return lines


class Console:
    """`on_fact` is an observer, `run` a peripheral coroutine. `status` gives the status document."""

    def __init__(self, status: Callable[[], Document], opening: Callable[[], Sequence[str]], out: TextIO = sys.stdout) -> None:
        self._status = status
        self._opening = opening
        self._out = out
        self._live = out.isatty()
        self._events: deque[str] = deque(maxlen=EVENTS_KEPT)
        self._broken = False

    def on_fact(self, fact: Fact) -> None:
        if type(fact) in QUIET or (isinstance(fact, Filled) and not fact.order_done):
            return
        said = sentence(fact)
        if said is None:
            return
        line = f"{iso(fact.at)[5:16].replace('T', ' ')} {'! ' if isinstance(fact, OrderInDoubt) else ''}{said}"
        self._events.append(line)
        if not self._live:
            self._print(line)

    def tell(self, words: str, at: int) -> None:
        """What is no fact but should be heard. `at` UTC ms."""
        line = f"{iso(at)[5:16].replace('T', ' ')} ! {words}"
        self._events.append(line)
        if not self._live:
            self._print(line)

    async def run(self) -> None:
        """The opening lines, then the summary for ever."""
        for line in self._opening():
            self._print(line)
        if not self._live:
            await asyncio.Event().wait()
        from rich.console import Console as Terminal
        from rich.live import Live

        with Live(console=Terminal(file=self._out), auto_refresh=False, transient=True) as live:
            while True:
                live.update(self._summary(), refresh=True)
                await asyncio.sleep(REFRESH_S)

    def _print(self, line: str) -> None:
        """A terminal that has gone away is no reason to stop."""
        if self._broken:
            return
        try:
            print(line, file=self._out, flush=True)
        except (OSError, ValueError):
            self._broken = True

    def _summary(self) -> Any:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        status = self._status()
        table = Table(title=f"{status['mode'].upper()}  {status['at'][:16]} UTC", title_justify="left", box=box.SIMPLE_HEAD)
        for column, side in (("class", "left"), ("state", "left"), ("phase", "right"), ("equity", "right"), ("day", "right"),
                             ("month", "right"), ("positions", "right")):
            table.add_column(column, justify=side)  # type: ignore[arg-type]
        for name, shown in status["classes"].items():
            equity = "-" if shown["equity"] is None else f"{Decimal(shown['equity']):,.2f} {shown['currency']}"
            table.add_row(
                name, Text(shown["state"], style=STYLES[shown["state"]]),
                str(shown["phase"] or "-"), equity, _against(shown["drawdown_daily"], shown["drawdown_daily_max"]),
                _against(shown["drawdown_monthly"], shown["drawdown_monthly_max"]), str(shown["open_positions"]))
        problems = [Text(f"! {problem}", style="yellow") for problem in status["problems"]]
        return Group(table, *problems, *(Text(line, overflow="ellipsis", no_wrap=True) for line in self._events))


def _against(drawdown: float, limit: float) -> str:
    return f"{-drawdown * 100 or 0:.2f} / {limit * 100:.0f} %"
