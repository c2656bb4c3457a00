"""Owns the operator's voice: where every command arrives, whatever channel it came by. Alone writes OperatorCommand.

May refuse: a command it does not know, a class or trade that is not there, and whatever gives the bot more room without a confirmation.
It decides nothing itself: each command is put on record and handed to the authority whose right it is. Questions change nothing and are
not put on record; the reports that answer them are handed in with `attach`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from modules.domain.errors import JournalUnwritable, NotFound, OperatorRefused
from modules.domain.events import BudgetChanged, Fact, OperatorCommand, Scope, SwitchChanged, Trigger
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
_PAIR_MAX: Final = 80
_BARRED_MAX: Final = 200
ALSO_QUESTIONS: Final = ("funds", "blacklist", "learning")
"""Commands that, without arguments, ask how things stand."""
LEARNING: Final = ("freeze", "resume", "reset")
CONFIRMED: Final = frozenset({"resume", "unlock", "reset-kill", "flatten", "forceexit"})
"""What loosens or flattens: a channel that anybody may hold in the hand asks for a one-time code first."""


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
            "forceexit": self._force_exit, "funds": self._change_funds, "blacklist": self._bar, "unlock": self._unlock,
            "reload": self._reload, "learning": self._learn,
        }
        self.waiting: Callable[[], str] = str
        """What the start still waits for, "" = nothing. Then no venue can be asked; whatever stops or closes is taken all the same, put on
        record and carried out at the venue's first answer."""
        self._barred: dict[str, None] = {}
        self._fresh: Callable[[], tuple[list[str], Callable[[], None]]] | None = None

    def reloads(self, fresh: Callable[[], tuple[list[str], Callable[[], None]]]) -> None:
        """How policies are read again: `fresh` gives what the files on disk would loosen, and how to adopt them. May raise BotError."""
        self._fresh = fresh

    def attach(self, reports: Mapping[str, Report]) -> None:
        """Questions by name; each is a pure function of its arguments and of what the authorities know now."""
        self._reports.update(reports)

    def handle(self, command: str, arguments: Arguments, by: str) -> Document:
        """Carry out one command or answer one question. Raises NotFound and OperatorRefused, which say why."""
        report = self._reports.get(command)
        if report is not None and not (command in ALSO_QUESTIONS and arguments):
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
        if waits := self.waiting():
            raise OperatorRefused(f"not started yet: {waits}; kill, pause, flatten and forceexit are taken")
        self._record(command, {}, by, self._clock.now())
        return {"differences": {name: await self._wallets.reconcile(venue) for name, venue in self._venues.items()}}

    def needs_confirmation(self, command: str, arguments: Arguments) -> bool:
        """Whether this gives the bot more room or closes what it holds. A command that cannot be judged needs one."""
        if command == "reload":
            return self._fresh is not None and bool(self._fresh()[0])
        if command != "funds" or not arguments:
            return command in CONFIRMED
        return any(self._funds.loosens(change) for change in _funds_changes(arguments, "", self._clock.now()))

    def apply(self, fact: Fact) -> None:
        """Projection: which instruments an operator barred from entries, across restarts."""
        if not isinstance(fact, OperatorCommand) or fact.command not in ("blacklist", "unlock"):
            return
        pair = str(json.loads(fact.arguments or "{}").get("subject", ""))
        if fact.command == "blacklist" and pair:
            self._barred[pair] = None
        else:
            self._barred.pop(pair, None)

    @property
    def barred(self) -> Collection[str]:
        """Symbols an operator barred from entries; exits and stops run on."""
        return self._barred.keys()

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
        return {"paused": self._paused(), "halted": self._halted()}

    def _paused(self) -> list[str]:
        return [asset_class.value for asset_class in AssetClass if self._risk.paused(asset_class)]

    def _kill(self, arguments: Arguments, by: str, at: int) -> Document:
        scope = _scope(arguments)
        # The halt before the record of who asked: a full disk must not keep anybody from stopping.
        fresh = self._kill_switch.halt(scope, Trigger.MANUAL, at=at, reason=f"by {by}")
        try:
            self._record("kill", arguments, by, at)
        except JournalUnwritable:
            # It holds in memory, and Kill_Switch puts it on record as soon as there is room.
            self._executor.cancel_entries(scope.covers, "halted by the operator")
            return {"halted": self._halted(), "already": not fresh, "unwritten": True}
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

    def _bar(self, arguments: Arguments, by: str, at: int) -> Document:
        """No entries in one instrument, until it is unlocked. Barring it twice changes nothing."""
        pair = _pair(arguments)
        if pair not in self._barred:
            if len(self._barred) >= _BARRED_MAX:
                raise OperatorRefused(f"{_BARRED_MAX} instruments are barred already; put patterns into pair_blacklist instead")
            self._record("blacklist", {"subject": pair}, by, at)
        return {"barred": list(self._barred)}

    def _unlock(self, arguments: Arguments, by: str, at: int) -> Document:
        """Entries again: of a class (or all) that was paused, or in an instrument that was barred."""
        pair = _pair(arguments)
        if pair.upper() in set(Scope):
            self._resume({"asset_class": pair}, by, at)
        elif pair in self._barred:
            self._record("unlock", {"subject": pair}, by, at)
        else:
            near = difflib.get_close_matches(pair, self._barred, 1)
            raise NotFound(f"{pair} is not barred by an operator" + (f"; did you mean {near[0]}?" if near else ""))
        return {"paused": self._paused(), "barred": list(self._barred)}

    def _learn(self, arguments: Arguments, by: str, at: int) -> Document:
        """Freeze, resume or forget what was learned: the record itself is what Learning_Agent goes by."""
        action = str(arguments.get("action") or "")
        if action not in LEARNING:
            raise OperatorRefused(f"learning {action}: takes {', '.join(LEARNING)}, or nothing to see what is believed")
        self._record("learning", {"action": action}, by, at)
        return {"learning": action}

    def _reload(self, arguments: Arguments, by: str, at: int) -> Document:
        """Policies from their files: tighter ones at once, looser ones with "confirm"."""
        if self._fresh is None:
            raise OperatorRefused("policies cannot be read again here")
        loosened, adopt = self._fresh()
        if loosened and arguments.get("confirm") is not True:
            raise OperatorRefused("nothing was changed: this would loosen " + "; ".join(loosened))
        self._record("reload", {"confirm": True} if loosened else {}, by, at)
        adopt()
        return {"lines": ["The policies were read again and are in force.", *(f"Loosened: {line}" for line in loosened)]}

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
        """"waits": why nothing is sent yet. The wish is on record: it outlives a restart."""
        symbols, waits = [self._executor.trades[trade_id].opened.symbol for trade_id in trade_ids], self.waiting()
        for trade_id in trade_ids:
            self._executor.request_exit(trade_id, ExitReason.FORCE_EXIT, at, later=bool(waits))
        named = [{"trade_id": trade_id, "symbol": symbol} for trade_id, symbol in zip(trade_ids, symbols, strict=True)]
        return {"closing": named} | ({"waits": waits} if waits else {})

    # -- funds ---------------------------------------------------------------------------------------------------------------

    def _change_funds(self, arguments: Arguments, by: str, at: int) -> Document:
        """{"on": bool}, {"pair_cap": fraction}, {"allocate": amount}, each with or without "asset_class"; "confirm" for what loosens."""
        scope = _scope(arguments)
        on, cap, amount = arguments.get("on"), _amount(arguments, "pair_cap"), _amount(arguments, "allocate")
        changes = _funds_changes(arguments, by, at)
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
            c.value: {"on": self._funds.class_on(c), "pair_cap": text(self._funds.pair_cap(c)),
                      "allocated": None if (given := self._funds.allocated(c)) is None else text(given),
                      "reserved": text(self._funds.reserved(c))} for c in AssetClass}}

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


def _funds_changes(arguments: Arguments, by: str, at: int) -> list[SwitchChanged | BudgetChanged]:
    """What `funds` with these arguments would change. Raises OperatorRefused."""
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
    return changes


def _pair(arguments: Arguments) -> str:
    pair = str(arguments.get("subject") or "").strip()
    if not pair or len(pair) > _PAIR_MAX or not pair.isprintable():
        raise OperatorRefused("name an instrument, like BTC/USDT")
    return pair


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
