"""`journal verify`, `journal audit` and `export`: what the journal, or the files of a run, can prove and tell. All read only."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modules.cli import following, inputs
from modules.cli.offline import replayed
from modules.cli.output import emit
from modules.cli.questions import DECISIONS, JOURNAL
from modules.domain.errors import ConfigurationError, JournalCorrupt, NotFound
from modules.domain.events import BalanceAdjusted, Filled, FundingBooked, OptionSettled, PositionClosed, TransferSeen, UnallocatedMoved
from modules.domain.money import text
from modules.domain.sessions import iso

if TYPE_CHECKING:
    from collections.abc import Mapping

    from main import Daemon
    from modules.domain.position import ClosedTrade

TRADES: Final = ("closed_at", "opened_at", "trade_id", "strategy", "asset_class", "symbol", "side", "quantity", "entry", "exit", "gross",
                 "fees", "funding", "net", "currency", "exit_reason")
FILLS: Final = ("at", "venue", "symbol", "side", "quantity", "price", "fee", "fee_currency", "settle_rate", "maker", "liquidation",
                "client_order_id", "venue_trade_id")
LEDGER: Final = ("at", "asset_class", "kind", "currency", "amount", "reference")


def journal(arguments: argparse.Namespace) -> int:
    """`verify` or `audit DIR`."""
    if arguments.action == "audit":
        if arguments.folder is None:
            raise ConfigurationError(["journal audit needs the folder that demo or replay --export wrote"])
        return audit(arguments)
    if arguments.folder is not None:
        raise ConfigurationError([f"journal verify takes no folder ({arguments.folder}): --file names another journal"])
    return verify(arguments)


def audit(arguments: argparse.Namespace) -> int:
    """Recount an exported run from its files alone: exit code 1 if one unit of it is not what the rest makes it."""
    from modules.backtest.audit import audit_folder  # reads files as replay does: pandas and the like

    folder: Path = arguments.folder
    if not folder.is_dir():
        raise NotFound(f"no folder {folder}: name what demo or replay --export wrote")
    faults = audit_folder(folder)
    emit(arguments, {"folder": str(folder), "reconciled": not faults, "faults": faults}, _show_audit)
    return 1 if faults else 0


def _show_audit(out: Any, document: Mapping[str, Any]) -> None:
    for fault in document["faults"]:
        out.print(f"FAULT: {fault}", markup=False)
    if document["reconciled"]:
        out.print(f"{document['folder']}: every balance, fee, funding row and result adds up to the last unit", markup=False)


def verify(arguments: argparse.Namespace) -> int:
    """The hash chain, every row, and that two rebuilds give the same books. Exit code 1 on a break, naming the row and the remedy."""
    settings, policies = inputs.settings_and_policies(arguments, mode=following.mode_of(arguments, files=True))
    folder = inputs.state_folder(settings)
    path: Path = arguments.file if arguments.file is not None else folder / JOURNAL
    hashes = []
    rows, head, fault = 0, "", ""
    try:
        for _ in range(2):
            with replayed(settings, policies, path, folder / DECISIONS) as daemon:
                rows, head = daemon.journal.count, daemon.journal.head
                hashes.append((daemon.portfolio.state_hash(), daemon.kill_switch.state_hash()))
        if hashes[0] != hashes[1]:
            fault = "two rebuilds of the books differ: this is a fault of the program, not of the file; report it and do not trade"
    except JournalCorrupt as error:
        fault = str(error)
    emit(arguments, {"journal": str(path), "ok": not fault, "rows": rows, "head": head, "state_hash": hashes[0][0] if hashes else None,
                     "fault": fault or None}, _show)
    return 1 if fault else 0


def _show(out: Any, document: Mapping[str, Any]) -> None:
    if document["ok"]:
        out.print(f"{document['journal']}: {document['rows']} rows, chain unbroken, books rebuild the same twice; "
                  f"head {document['head'][:16]}", markup=False)
    else:
        out.print(f"FAULT: {document['fault']}", markup=False)


def export(arguments: argparse.Namespace) -> int:
    """CSV on stdout, oldest first. Times UTC, money in the sub-ledger's currency unless a column says otherwise."""
    settings, policies = inputs.settings_and_policies(arguments, mode=following.mode_of(arguments, files=True))
    folder = inputs.state_folder(settings)
    if not (folder / JOURNAL).exists():
        raise NotFound(f"no journal at {folder / JOURNAL}: nothing has run here yet")
    header, rows = {"trades": (TRADES, _trades), "fills": (FILLS, _fills), "ledger": (LEDGER, _ledger)}[arguments.what]
    with replayed(settings, policies, folder / JOURNAL, folder / DECISIONS) as daemon:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows(daemon))
    return 0


def _currency(daemon: Daemon, symbol: str, fallback: str) -> str:
    instrument = daemon.portfolio.instruments.get(symbol)
    return instrument.settle if instrument is not None else fallback


def _trades(daemon: Daemon) -> Iterator[Sequence[object]]:
    return trade_rows(daemon, daemon.portfolio.closed)


def trade_rows(daemon: Daemon, trades: Iterable[ClosedTrade]) -> Iterator[Sequence[object]]:
    """One row of TRADES for each."""
    for t in trades:
        yield (iso(t.closed_at), iso(t.opened_at), t.trade_id, t.strategy, t.asset_class.value, t.symbol, t.side.value, text(t.quantity),
               text(t.entry), text(t.exit), text(t.gross), text(t.fees), text(t.funding), text(t.net),
               _currency(daemon, t.symbol, daemon.portfolio.ledger(t.asset_class).currency), t.exit_reason.value)


def _fills(daemon: Daemon) -> Iterator[Sequence[object]]:
    for _, fact in daemon.journal.facts():
        if isinstance(fact, Filled):
            f = fact.fill
            yield (iso(f.at), f.venue, f.symbol, f.side.value, text(f.quantity), text(f.price), text(f.fee), f.fee_currency,
                   text(f.settle_rate), f.maker, f.liquidation, f.client_order_id, f.venue_trade_id)


def _ledger(daemon: Daemon) -> Iterator[Sequence[object]]:
    """Everything that moved money but fills: transfers, funding, settlements, adjustments, and each round trip's result."""
    for _, fact in daemon.journal.facts():
        if isinstance(fact, TransferSeen):
            yield iso(fact.at), fact.asset_class.value, "transfer", "", text(fact.amount), fact.venue_ref
        elif isinstance(fact, FundingBooked):
            yield iso(fact.at), fact.asset_class.value, "funding", _currency(daemon, fact.symbol, ""), text(fact.amount), fact.symbol
        elif isinstance(fact, OptionSettled):
            amount = fact.quantity * fact.value * fact.settle_rate - fact.fee
            yield iso(fact.at), "OPTION", "settlement", _currency(daemon, fact.symbol, ""), text(amount), fact.symbol
        elif isinstance(fact, UnallocatedMoved):
            yield iso(fact.at), "unallocated", "owner", fact.currency, text(fact.amount), fact.reason
        elif isinstance(fact, BalanceAdjusted):
            yield iso(fact.at), fact.asset_class.value, "adjustment", fact.currency, text(fact.amount), fact.reason
        elif isinstance(fact, PositionClosed):
            trade = fact.trade
            yield (iso(fact.at), trade.asset_class.value, "trade", _currency(daemon, trade.symbol, ""), text(trade.net), trade.trade_id)
