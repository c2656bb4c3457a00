"""Owns the operator's voice: where every command arrives, whatever channel it came by. Alone writes OperatorCommand.

May refuse: a command it does not know, a class or trade that is not there, and whatever gives the bot more room without a confirmation.
It decides nothing itself: each command is put on record and handed to the authority whose right it is. Questions change nothing and are
not put on record; the reports that answer them are handed in with `attach`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from modules.domain.errors import NotFound, OperatorRefused
from modules.domain.events import BudgetChanged, OperatorCommand, Scope, SwitchChanged, Trigger
from modules.domain.instrument import AssetClass
from modules.domain.money import text
from modules.domain.order import ExitReason

if TYPE_CHECKING:
    from modules.Funds_Controller import FundsController
    from modules.Kill_Switch import KillSwitch
    from modules.Risk_Management import RiskManagement
    from modules.runtime.clock import Clock
    from modules.store.journal import Journal
    from modules.Trade_Executor import TradeExecutor
    from modules.venues.protocol import Venue
    from modules.Wallet_Sync import WalletSync

Arguments = Mapping[str, Any]
Document = dict[str, Any]
Report = Callable[[Arguments], Document]

_LENGTH_MAX: Final = 500


class OperatorDesk:
    """`handle` for everything that decides at once, `answer` for that and what must talk to a venue first (reconcile)."""

    def __init__(
        self, *, journal: Journal, clock: Clock, kill_switch: KillSwitch, funds: FundsController, risk: RiskManagement,
        executor: TradeExecutor, wallets: WalletSync, venues: Mapping[str, Venue],
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._kill_switch = kill_switch
        self._funds = funds
        self._risk = risk
        self._executor = executor
        self._wallets = wallets
        self._venues = venues
        self._reports: dict[str, Report] = {}
        self._commands: dict[str, Callable[[Arguments, str, int], Document]] = {
            "pause": self._pause, "resume": self._resume, "kill": self._kill, "reset-kill": self._reset_kill, "flatten": self._flatten,
            "forceexit": self._force_exit, "funds": self._change_funds,
        }

    def attach(self, reports: Mapping[str, Report]) -> None:
        """Questions by name; each is a pure function of its arguments and of what the authorities know now."""
        self._reports.update(reports)

    def handle(self, command: str, arguments: Arguments, by: str) -> Document:
        """Carry out one command or answer one question. Raises NotFound and OperatorRefused, which say why."""
        report = self._reports.get(command)
        if report is not None and not (command == "funds" and arguments):
            return report(arguments)
        action = self._commands.get(command)
        if action is None:
            known = [*self._commands, *self._reports, "reconcile"]
            near = difflib.get_close_matches(command, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            raise NotFound(f"there is no command {command!r}; {hint}")
        return action(arguments, by, self._clock.now())

    async def answer(self, command: str, arguments: Arguments, by: str) -> Document:
        """As `handle`; `reconcile` asks every venue first."""
        if command != "reconcile":
            return self.handle(command, arguments, by)
        self._record(command, {}, by, self._clock.now())
        return {"differences": {name: await self._wallets.reconcile(venue) for name, venue in self._venues.items()}}

    def _record(self, command: str, arguments: Arguments, by: str, at: int) -> None:
        given = {name: value for name, value in arguments.items() if value not in (None, "")}
        words = json.dumps(given, sort_keys=True, default=str)[:_LENGTH_MAX] if given else ""
        self._journal.append(OperatorCommand(at, command, words, by))

    # -- entries and halts --------------------------------------------------------------------------------------------------

    def _pause(self, arguments: Arguments, by: str, at: int) -> Document:
        scope = _scope(arguments)
        self._record("pause", arguments, by, at)
        self._risk.pause(scope, at, by)
        return {"paused": self._paused()}

    def _resume(self, arguments: Arguments, by: str, at: int) -> Document:
        scope = _scope(arguments)
        self._record("resume", arguments, by, at)
        self._risk.resume(scope, at, by)
        return {"paused": self._paused()}

    def _paused(self) -> list[str]:
        return [asset_class.value for asset_class in AssetClass if self._risk.paused(asset_class)]

    def _kill(self, arguments: Arguments, by: str, at: int) -> Document:
        scope = _scope(arguments)
        # The halt before the record of who asked: a full disk must not keep anybody from stopping.
        fresh = self._kill_switch.halt(scope, Trigger.MANUAL, at=at, reason=f"by {by}")
        self._record("kill", arguments, by, at)
        return {"halted": self._halted(), "already": not fresh}

    def _reset_kill(self, arguments: Arguments, by: str, at: int) -> Document:
        scope = _scope(arguments, required=True)
        reason = str(arguments.get("reason") or "").strip()
        if not reason:
            raise OperatorRefused("reset-kill needs a reason: it goes into the journal")
        self._record("reset-kill", arguments, by, at)
        cleared = self._kill_switch.rearm(scope, at=at, by=by, reason=reason)
        return {"cleared": [f"{fact.scope} {fact.trigger}" for fact in cleared], "halted": self._halted()}

    def _halted(self) -> dict[str, str]:
        return {c.value: reason for c in AssetClass if (reason := self._kill_switch.halted_by(c))}

    # -- closing -------------------------------------------------------------------------------------------------------------

    def _flatten(self, arguments: Arguments, by: str, at: int) -> Document:
        scope = _scope(arguments)
        self._record("flatten", arguments, by, at)
        chosen = [trade_id for trade_id, trade in self._executor.trades.items() if scope.covers(trade.opened.asset_class)]
        return self._close(chosen, at)

    def _force_exit(self, arguments: Arguments, by: str, at: int) -> Document:
        subject = str(arguments.get("subject") or "")
        trades = self._executor.trades
        chosen = list(trades) if subject == "all" else [
            trade_id for trade_id, trade in trades.items() if subject in (trade_id, trade.opened.symbol)]
        if not chosen and subject != "all":
            near = difflib.get_close_matches(subject, [*trades, *(trade.opened.symbol for trade in trades.values())], 1)
            raise NotFound(f"no open trade {subject!r}" + (f"; did you mean {near[0]}?" if near else f"; {len(trades)} are open"))
        self._record("forceexit", arguments, by, at)
        return self._close(chosen, at)

    def _close(self, trade_ids: list[str], at: int) -> Document:
        symbols = [self._executor.trades[trade_id].opened.symbol for trade_id in trade_ids]
        for trade_id in trade_ids:
            self._executor.request_exit(trade_id, ExitReason.FORCE_EXIT, at)
        return {"closing": [{"trade_id": trade_id, "symbol": symbol} for trade_id, symbol in zip(trade_ids, symbols, strict=True)]}

    # -- funds ---------------------------------------------------------------------------------------------------------------

    def _change_funds(self, arguments: Arguments, by: str, at: int) -> Document:
        """{"on": bool}, {"pair_cap": fraction}, {"allocate": amount}, each with or without "asset_class"; "confirm" for what loosens."""
        scope = _scope(arguments)
        on, cap, amount = arguments.get("on"), _amount(arguments, "pair_cap"), _amount(arguments, "allocate")
        if on is not None and not isinstance(on, bool):
            raise OperatorRefused("a switch is on or off")
        if amount is not None and scope is Scope.ALL:
            raise OperatorRefused("an allocation is one class's: name it")
        changes: list[SwitchChanged | BudgetChanged] = []
        if on is not None:
            changes.append(SwitchChanged(at, scope, on, by))
        if cap is not None or amount is not None:
            changes.append(BudgetChanged(at, scope, cap, amount, by))
        if not changes:
            raise OperatorRefused("nothing to change: say on or off, --pair-cap or --allocate")
        if arguments.get("confirm") is not True and any(self._funds.loosens(change) for change in changes):
            raise OperatorRefused("this gives the bot more room than it has now; say it again with --confirm")
        if cap is not None:
            self._check_cap(cap)
        self._record("funds", arguments, by, at)
        if on is not None:
            self._funds.set_switch(scope, on, at, by)
        if cap is not None:
            self._funds.set_pair_cap(scope, cap, at, by)
        if amount is not None:
            self._funds.set_allocate(AssetClass(scope.value), amount, at, by)
        return {"master_on": self._funds.master_on, "classes": {
            c.value: {"on": self._funds.class_on(c), "pair_cap": text(self._funds.pair_cap(c))} for c in AssetClass}}

    def _check_cap(self, cap: Decimal) -> None:
        low, high = self._funds.pair_cap_bounds
        if not low <= cap <= high:
            raise OperatorRefused(f"a pair cap of {cap:f} is outside {low:f} to {high:f} of equity")


def _scope(arguments: Arguments, *, required: bool = False) -> Scope:
    """The class that is named, ALL if none is."""
    name = arguments.get("asset_class")
    if not name and required:
        raise OperatorRefused("name the class, or all")
    try:
        return Scope(str(name or "ALL").upper())
    except ValueError:
        raise NotFound(f"there is no asset class {name!r}: SPOT, PERP, OPTION, FOREX or ALL") from None


def _amount(arguments: Arguments, name: str) -> Decimal | None:
    value = arguments.get(name)
    if value is None:
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise OperatorRefused(f"{name} {value!r} is not a number") from None
    if not amount.is_finite() or amount < 0:
        raise OperatorRefused(f"{name} {value!r} is not an amount")
    return amount


__all__ = ["OperatorDesk", "Report"]
