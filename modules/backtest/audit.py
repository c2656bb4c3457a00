"""Recounts a run's money from the rows of what happened, by arithmetic of its own, and holds it against the books and the wallet.

Owns the verdict "reconciled". Nothing of Portfolio_Manager or the paper venue's book is used: cash, coins, positions, fees, funding, every
closed trade and equity are added up anew, then every fee, conversion, funding row and settlement is re-derived from the market
(audit_market), and every cell of an export is held against the journal beside it (audit_journal). Faults are words; no faults =
reconciled, to the last unit of 1e-8.

`python -m modules.backtest.audit FOLDER` audits an exported run: prints {"reconciled": ..., "faults": [...]}, exit code 0 or 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modules.backtest.audit_journal import journal_faults
from modules.backtest.audit_market import SIXTEEN, Tape, _book, market_faults
from modules.backtest.export_run import Row, Run, read_run, run_of
from modules.domain.errors import DataError

if TYPE_CHECKING:
    from main import Simulation

ZERO: Final = Decimal(0)
FAULTS_MAX: Final = 200
"""Told; a run with more is counted."""


@dataclass(slots=True)
class _Held:
    """What one trade holds of one instrument, signed. `cost` in settlement currency, `basis` = quantity x contract size x entry price."""

    row: Row
    quantity: Decimal = ZERO
    cost: Decimal = ZERO
    basis: Decimal = ZERO


@dataclass(slots=True)
class _Sum:
    """One trade's or one class's running result."""

    gross: Decimal = ZERO
    fees: Decimal = ZERO
    funding: Decimal = ZERO

    @property
    def net(self) -> Decimal:
        return self.gross - self.fees + self.funding


@dataclass(slots=True)
class _Class(_Sum):
    currency: str = ""
    cash: Decimal = ZERO
    transfers: Decimal = ZERO
    coins: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    """What the venue should hold beside cash, by coin (spot) or symbol."""
    dust: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    trades: int = 0
    wins: int = 0


@dataclass(slots=True)
class _Leg:
    """First leg's totals of a trade: (quantity, quantity x price) in and out."""

    symbol: str
    entered: Decimal = ZERO
    entered_value: Decimal = ZERO
    exited: Decimal = ZERO
    exited_value: Decimal = ZERO


class _Recount:
    """Everything that happened, in order of `seq`."""

    def __init__(self, run: Run) -> None:
        self.classes = {name: _Class(currency=str(ledger["currency"])) for name, ledger in run.ledgers.items()}
        self.trades: dict[str, _Sum] = defaultdict(_Sum)
        self.held: dict[tuple[str, str], _Held] = {}
        self.legs: dict[str, _Leg] = {}
        self.faults: list[str] = []
        self._seen: set[tuple[str, str]] = set()
        happened = sorted(((int(row["seq"]), name, row) for name, rows in run.tables.items() if "seq" in (rows[0] if rows else ())
                           for row in rows), key=lambda entry: entry[0])
        for _, name, row in happened:
            getattr(self, f"_{name}")(row)

    def _once(self, kind: str, reference: str) -> None:
        if (kind, reference) in self._seen:
            self.faults.append(f"{kind} {reference} is there twice")
        self._seen.add((kind, reference))

    def _orders(self, row: Row) -> None:
        self._once("order", row["client_order_id"])

    def _transfers(self, row: Row) -> None:
        self._once("transfer", row["venue_ref"])
        book = self.classes[row["asset_class"]]
        book.cash += Decimal(row["amount"])
        book.transfers += Decimal(row["amount"])

    def _adjustments(self, row: Row) -> None:
        self.faults.append(f"{row['asset_class']}: {row['amount']} {row['currency']} was booked only to make books and wallet agree "
                           f"({row['reason']})")

    def _fills(self, row: Row) -> None:
        self._once("fill", row["venue_trade_id"])
        book, trade = self.classes[row["asset_class"]], self.trades[row["trade_id"]]
        sign = 1 if row["side"] == "BUY" else -1
        quantity, price, rate, fee = (Decimal(row[key]) for key in ("quantity", "price", "settle_rate", "fee"))
        size, margined = Decimal(row["contract_size"]), row["margined"] == "1"
        value = _book(fee * Decimal(row["fee_rate"]))
        in_kind = row["asset_class"] == "SPOT" and sign > 0 and row["fee_currency"] == row["base"]
        book.fees += value
        trade.fees += value
        if in_kind:
            quantity -= fee
        else:
            book.cash -= value
        worth = _book((quantity if margined else Decimal(row["quantity"])) * size * price * rate)
        if not margined:
            book.cash -= sign * worth
            worth -= value if in_kind else ZERO
        book.coins[row["base"] if row["asset_class"] == "SPOT" else row["symbol"]] += sign * quantity
        held = self.held.setdefault((row["trade_id"], row["symbol"]), _Held(row))
        if held.quantity * sign >= ZERO:
            held.quantity += sign * quantity
            held.cost += sign * worth
            held.basis += sign * quantity * size * price
            self._leg(row, quantity, price, entered=True)
            return
        if quantity > abs(held.quantity):
            self.faults.append(f"fill {row['venue_trade_id']} closes {quantity} {row['symbol']} where {abs(held.quantity)} were held")
        cost, basis = self._released(held, quantity)
        if margined:
            gross = _book((-sign * quantity * size * price - basis) * rate)
            book.cash += gross
        else:
            gross = -sign * worth - cost
        book.gross += gross
        trade.gross += gross
        self._leg(row, quantity, price, entered=False)

    def _leg(self, row: Row, quantity: Decimal, price: Decimal, *, entered: bool) -> None:
        leg = self.legs.setdefault(row["trade_id"], _Leg(row["symbol"]))
        if leg.symbol != row["symbol"]:
            return
        if entered:
            leg.entered += quantity
            leg.entered_value += quantity * price
        else:
            leg.exited += quantity
            leg.exited_value += quantity * price

    def _released(self, held: _Held, part: Decimal) -> tuple[Decimal, Decimal]:
        """`part` (unsigned) leaves with its share of the cost, rounded, and of the basis; the last part takes all that is left."""
        whole = abs(held.quantity)
        if part >= whole:
            cost, basis = held.cost, held.basis
            held.quantity = held.cost = held.basis = ZERO
            return cost, basis
        cost, basis = _book(held.cost * part / whole), held.basis * part / whole
        held.quantity -= part if held.quantity > ZERO else -part
        held.cost -= cost
        held.basis -= basis
        return cost, basis

    def _funding(self, row: Row) -> None:
        self._once("funding", row["venue_ref"])
        book, amount = self.classes[row["asset_class"]], Decimal(row["amount"])
        book.cash += amount
        book.funding += amount
        holder = next((trade_id for (trade_id, symbol), held in self.held.items() if symbol == row["symbol"] and held.quantity), None)
        if holder is None:
            self.faults.append(f"funding {row['venue_ref']}: nothing was held of {row['symbol']}")
        else:
            self.trades[holder].funding += amount

    def _settlements(self, row: Row) -> None:
        self._once("settlement", row["venue_ref"])
        book, quantity, fee = self.classes["OPTION"], Decimal(row["quantity"]), Decimal(row["fee"])
        payoff = _book(quantity * Decimal(row["contract_size"]) * Decimal(row["value"]) * Decimal(row["settle_rate"]))
        book.cash += payoff - fee
        book.fees += fee
        book.coins[row["symbol"]] -= quantity
        held = self.held.get((row["trade_id"], row["symbol"]))
        if held is None or held.quantity != quantity:
            self.faults.append(f"settlement {row['venue_ref']} of {quantity}: {held.quantity if held else 0} were held")
            return
        cost, _ = self._released(held, abs(quantity))
        book.gross += payoff - cost
        trade = self.trades[row["trade_id"]]
        trade.gross += payoff - cost
        trade.fees += fee
        self._leg(held.row, abs(quantity), Decimal(row["value"]), entered=False)

    def _trades(self, row: Row) -> None:
        """A closed trade: what is left of it (spot only) is dust, its cost a loss. Then its result must be what the rows add up to."""
        trade_id = row["trade_id"]
        self._once("trade", trade_id)
        book, trade = self.classes[row["asset_class"]], self.trades[trade_id]
        for (owner, symbol), held in self.held.items():
            if owner == trade_id and held.quantity:
                if row["asset_class"] != "SPOT":
                    self.faults.append(f"trade {trade_id} was closed while it held {held.quantity} {symbol}")
                    continue
                book.dust[held.row["base"]] += held.quantity
                cost, _ = self._released(held, abs(held.quantity))
                book.gross -= cost
                trade.gross -= cost
        book.trades += 1
        book.wins += trade.net > ZERO
        leg = self.legs.get(trade_id, _Leg(""))
        self._same(f"trade {trade_id}", row, {
            "gross": trade.gross, "fees": trade.fees, "funding": trade.funding, "net": trade.net, "quantity": leg.entered,
            "entry": _average(leg.entered_value, leg.entered), "exit": _average(leg.exited_value, leg.exited)})

    def _same(self, name: str, stated: Mapping[str, Any], counted: Mapping[str, Decimal]) -> None:
        for key, amount in counted.items():
            if Decimal(stated[key]) != amount:
                self.faults.append(f"{name}: {key} is {stated[key]}, the rows add up to {amount}")

    # -- at the end -----------------------------------------------------------------------------------------------------

    def compare(self, run: Run) -> None:
        for name, stated in run.ledgers.items():
            book = self.classes[name]
            self._same(f"ledger {name}", stated, {
                "cash": book.cash, "transfers": book.transfers, "gross": book.gross, "fees": book.fees, "funding": book.funding,
                "net": book.net, "trades": Decimal(book.trades), "wins": Decimal(book.wins)})
            self._same(f"wallet {name}", stated["venue"], {"cash": book.cash})
            wallet = {**stated["venue"]["coins"], **stated["venue"]["positions"]}
            positions = {symbol: held.quantity for (_, symbol), held in self.held.items() if held.row["asset_class"] == name}
            self._same_amounts(f"wallet {name}", wallet, book.coins)
            self._same_amounts(f"dust {name}", stated["dust"], book.dust)
            self._same_amounts(f"positions {name}", stated["positions"], _nonzero_sums(self.held, name) if positions else {})
            self._conserved(name, book)
            self._equity(name, stated, book)

    def _same_amounts(self, name: str, stated: Mapping[str, str], counted: Mapping[str, Decimal]) -> None:
        for key in sorted(stated.keys() | {key for key, amount in counted.items() if amount}):
            there, ours = Decimal(stated.get(key, "0")), counted.get(key, ZERO)
            if there != ours:
                self.faults.append(f"{name}: {there} {key}, the rows add up to {ours}")

    def _conserved(self, name: str, book: _Class) -> None:
        """Money conservation: cash + cost of open spot and options = transfers + net."""
        cost = sum((h.cost for h in self.held.values() if h.row["asset_class"] == name and h.row["margined"] != "1"), ZERO)
        if book.cash + cost != book.transfers + book.net:
            self.faults.append(f"ledger {name}: {book.cash + cost - book.transfers - book.net} {book.currency} came from nowhere")

    def _equity(self, name: str, stated: Mapping[str, Any], book: _Class) -> None:
        """Cash, plus what is held at the marks stated, to 1e-8."""
        if stated["equity_end"] is None:
            return
        worth = book.cash
        for (_, symbol), held in self.held.items():
            if held.row["asset_class"] == name and held.quantity:
                mark = stated["marks"].get(symbol)
                if mark is None or mark["mark"] is None or mark["rate"] is None:
                    self.faults.append(f"ledger {name}: equity is stated without a mark of {symbol}")
                    return
                value = held.quantity * Decimal(held.row["contract_size"]) * Decimal(mark["mark"])
                worth += (value - held.basis if held.row["margined"] == "1" else value) * Decimal(mark["rate"])
        if _book(worth) != _book(Decimal(stated["equity_end"])):
            self.faults.append(f"ledger {name}: equity is {stated['equity_end']}, the rows add up to {worth}")


def _nonzero_sums(held: Mapping[tuple[str, str], _Held], name: str) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for (_, symbol), entry in held.items():
        if entry.row["asset_class"] == name:
            sums[symbol] += entry.quantity
    return sums


def _average(total: Decimal, quantity: Decimal) -> Decimal:
    return SIXTEEN.divide(total, quantity) if quantity else ZERO


# -- the verdict ------------------------------------------------------------------------------------------------------------


def run_faults(run: Run) -> list[str]:
    """What does not add up within the rows, the books and the wallet, whatever the market was."""
    if missing := [f"an unknown class {row['asset_class']}" for name in ("fills", "transfers", "funding") for row in run.tables[name]
                   if row["asset_class"] not in run.ledgers]:
        return missing[:1]
    recount = _Recount(run)
    recount.compare(run)
    return recount.faults


def audit(simulation: Simulation) -> list[str]:
    """Faults of a finished run, in words; empty = every balance, fee, funding row and result adds up to the last unit.

    Reads the source once more from its beginning.
    """
    run = run_of(simulation)
    return _shortened([*run_faults(run), *_rows_lost(simulation, run), *market_faults(run, Tape(simulation.venue.source, run))])


def _rows_lost(simulation: Simulation, run: Run) -> Iterator[str]:
    """The recorder, which fed the document, must have heard what the journal holds."""
    recorder = simulation.recorder
    heard: Mapping[str, Sequence[object]] = {"fills": recorder.fills, "funding": recorder.funding, "settlements": recorder.settlements,
                                             "transfers": recorder.transfers, "trades": recorder.trades}
    for name, facts in heard.items():
        if len(facts) != len(run.tables[name]):
            yield f"the recorder heard {len(facts)} {name}, the journal holds {len(run.tables[name])}"


def audit_folder(folder: Path) -> list[str]:
    """The same for what `export_run` wrote; against the market too if it was exported beside it (replay.json). A folder that cannot be
    read is a fault."""
    try:
        run = read_run(folder)
        faults = [*run_faults(run), *journal_faults(folder, run)]
        if (folder / "replay.json").is_file():
            faults += market_faults(run, Tape(_recorded(folder, run), run))
        return _shortened(faults)
    except DataError as error:
        return [str(fault) for fault in error.faults]
    except InvalidOperation:
        return [f"{folder}: a cell that must hold a number does not"]
    except FileNotFoundError as error:
        return [f"{folder} has no {Path(str(error.filename)).name}: it is no folder that demo or replay --export wrote (a daemon's journal "
                "is checked by journal verify)"]
    except (OSError, ValueError, KeyError) as error:
        return [f"{folder}: {type(error).__name__}: {error}; export the run again"]


def _recorded(folder: Path, run: Run) -> Any:
    from modules.backtest.recorded import RecordedSource
    from modules.domain.policies import CostPolicy

    return RecordedSource(folder, costs=CostPolicy.model_validate(run.policies["costs"]))


def _shortened(faults: list[str]) -> list[str]:
    left = len(faults) - FAULTS_MAX
    return faults if left <= 0 else [*faults[:FAULTS_MAX], f"and {left} more"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m modules.backtest.audit", description="Recount an exported run's money.")
    parser.add_argument("folder", type=Path, help="what demo or replay --export wrote")
    faults = audit_folder(parser.parse_args(arguments).folder)
    print(json.dumps({"reconciled": not faults, "faults": faults}, ensure_ascii=False, indent=1))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
