"""Writes down what one simulated run did, so that a stranger with the folder can recompute every number in it.

Owns the layout of FOLDER/run: amounts are exact decimals as text, times UTC ms, `seq` the fact's row in the journal, by which rows of
different files are put in order. Beside it, where the market was exported too, lie the prices everything was made from.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modules.domain.events import (
    BalanceAdjusted,
    Fact,
    Filled,
    FundingBooked,
    OptionSettled,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderIntended,
    OrderRejected,
    PositionClosed,
    TransferSeen,
)
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.money import text
from modules.domain.order import Order
from modules.domain.position import ClosedTrade
from modules.store.codec import to_json

if TYPE_CHECKING:
    from main import Simulation

FOLDER: Final = "run"
HEAD: Final = "head.json"
"""The journal's number of rows and its last hash, which covers every row."""
FILLS: Final = (
    "seq", "at", "venue", "symbol", "asset_class", "base", "quote", "settle", "contract_size", "margined", "inverse", "side", "quantity",
    "price", "fee", "fee_currency", "fee_rate", "settle_rate", "maker", "liquidation", "client_order_id", "trade_id", "purpose",
    "venue_trade_id", "order_done")
FUNDING: Final = ("seq", "at", "venue", "symbol", "asset_class", "amount", "rate", "venue_ref")
SETTLEMENTS: Final = ("seq", "at", "venue", "symbol", "trade_id", "contract_size", "quantity", "value", "settle_rate", "fee", "venue_ref")
TRANSFERS: Final = ("seq", "at", "asset_class", "amount", "equity_before", "venue_ref")
ADJUSTMENTS: Final = ("seq", "at", "asset_class", "currency", "amount", "reason")
TRADES: Final = ("seq", *(field.name for field in fields(ClosedTrade)))
ORDERS: Final = ("seq", *(field.name for field in fields(Order)), "accepted", "ended", "ended_at", "reason")
INSTRUMENTS: Final = tuple(field.name for field in fields(Instrument))
HEADERS: Final[Mapping[str, tuple[str, ...]]] = {
    "fills": FILLS, "funding": FUNDING, "settlements": SETTLEMENTS, "transfers": TRANSFERS, "adjustments": ADJUSTMENTS, "trades": TRADES,
    "orders": ORDERS, "instruments": INSTRUMENTS}

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Run:
    """What one run did, as the files say it: every cell is text."""

    tables: Mapping[str, Sequence[Row]]
    ledgers: Mapping[str, Mapping[str, Any]]
    """Per class what the books and what the venue's own wallet say at the end."""
    policies: Mapping[str, Any]


def run_of(simulation: Simulation) -> Run:
    """Everything `export_run` writes about money, without writing it."""
    daemon = simulation.daemon
    return Run(tables_of(daemon.journal.facts(), daemon.portfolio.instruments), _ledgers(simulation),
               daemon.policies.model_dump(mode="json"))


def export_run(simulation: Simulation, folder: Path) -> Path:
    """Write the run into FOLDER/run (made if absent, beside an exported market) and return that path.

    fills, funding, settlements, transfers, adjustments, trades, orders, instruments (CSV); ledger, policies, halts, head (JSON);
    decisions and journal (one JSON object a line). Raises FileExistsError if a run was written there before.
    """
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise FileExistsError(f"{target} is not empty: export into a new folder, so that two runs are never mixed")
    run = run_of(simulation)
    for name, rows in run.tables.items():
        with (target / f"{name}.csv").open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, HEADERS[name], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    _write_json(target / "ledger.json", run.ledgers)
    _write_json(target / "policies.json", run.policies)
    _write_json(target / "halts.json", to_json(simulation.recorder.halts))
    _write_lines(target / "decisions.jsonl", (to_json(decision) for decision in simulation.recorder.decisions))
    _write_json(target / HEAD, {"rows": simulation.daemon.journal.count, "hash": simulation.daemon.journal.head})
    _write_lines(target / "journal.jsonl", (
        {"seq": seq, "kind": type(fact).__name__, **to_json(fact)} for seq, fact in simulation.daemon.journal.facts()))
    return target


def read_run(folder: Path) -> Run:
    """What `export_run` wrote into `folder`. Raises OSError for a missing file and ValueError for one that is not what it was."""
    target = folder / FOLDER
    tables: dict[str, list[Row]] = {}
    for name, header in HEADERS.items():
        with (target / f"{name}.csv").open(encoding="utf-8", newline="") as handle:
            reader = csv.DictReader(handle)
            rows = list(reader)
        if tuple(reader.fieldnames or ()) != header or any(None in row or None in row.values() for row in rows):
            raise ValueError(f"{target / name}.csv does not have the columns {', '.join(header)}")
        tables[name] = rows
    return Run(tables, _read_json(target / "ledger.json"), _read_json(target / "policies.json"))


# -- rows -----------------------------------------------------------------------------------------------------------------


def tables_of(facts: Iterable[tuple[int, Fact]], instruments: Mapping[str, Instrument]) -> dict[str, list[Row]]:
    """One pass over (row in the journal, fact), which hold what the recorder heard, in order. `instruments` may grow on the way."""
    rows: dict[str, list[Row]] = {name: [] for name in HEADERS}
    orders: dict[str, tuple[Order, Row]] = {}
    holder: dict[str, str] = {}
    for seq, fact in facts:
        match fact:
            case OrderIntended(_, order):
                row = _row(ORDERS, {"seq": seq, **_fields(order)})
                orders[order.client_order_id] = (order, row)
                rows["orders"].append(row)
            case OrderAccepted(_, client_order_id, _):
                orders[client_order_id][1].update(accepted="1", ended="", ended_at="", reason="")
            case Filled(_, fill, done):
                known = orders.get(fill.client_order_id)
                order_or_none = known[0] if known is not None else None
                if order_or_none is not None and order_or_none.purpose.value == "entry":
                    holder[fill.symbol] = order_or_none.trade_id
                rows["fills"].append(_fill_row(seq, fact, instruments[fill.symbol], order_or_none, holder.get(fill.symbol, "")))
                if done and known is not None:
                    known[1].update(ended="filled", ended_at=str(fill.at))
            case OptionSettled():
                rows["settlements"].append(_row(SETTLEMENTS, {
                    "seq": seq, **_fields(fact), "trade_id": holder.get(fact.symbol, ""),
                    "contract_size": instruments[fact.symbol].contract_size}))
            case FundingBooked():
                rows["funding"].append(_row(FUNDING, {"seq": seq, **_fields(fact)}))
            case TransferSeen():
                rows["transfers"].append(_row(TRANSFERS, {"seq": seq, **_fields(fact)}))
            case BalanceAdjusted():
                rows["adjustments"].append(_row(ADJUSTMENTS, {"seq": seq, **_fields(fact)}))
            case PositionClosed(_, trade):
                rows["trades"].append(_row(TRADES, {"seq": seq, **_fields(trade)}))
            case OrderCanceled() | OrderExpired() | OrderRejected():
                _end(orders, fact)
    rows["instruments"] = [_row(INSTRUMENTS, _fields(instrument)) for _, instrument in sorted(instruments.items())]
    return rows


def _end(orders: Mapping[str, tuple[Order, Row]], fact: OrderCanceled | OrderExpired | OrderRejected) -> None:
    known = orders.get(fact.client_order_id)
    if known is not None:
        how = type(fact).__name__.removeprefix("Order").lower()
        known[1].update(ended=how, ended_at=str(fact.at), reason=fact.reason)


def _fill_row(seq: int, fact: Filled, instrument: Instrument, order: Order | None, holder: str) -> Row:
    """A liquidation has no order: it belongs to the trade that held the instrument."""
    return _row(FILLS, {
        "seq": seq, **_fields(fact.fill), "asset_class": instrument.asset_class, "base": instrument.base, "quote": instrument.quote,
        "settle": instrument.settle, "contract_size": instrument.contract_size, "margined": instrument.is_margined,
        "inverse": instrument.inverse, "trade_id": order.trade_id if order is not None else holder,
        "purpose": order.purpose if order is not None else "liquidation", "order_done": fact.order_done})


def _fields(record: Fact | Order | ClosedTrade | Instrument | Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _row(header: Sequence[str], values: Mapping[str, Any]) -> Row:
    return {name: _cell(values.get(name)) for name in header}


def _cell(value: Any) -> str:
    """Money in full, floats as they read back, yes and no as 1 and 0, unknown as nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Decimal):
        return text(value)
    if isinstance(value, float):
        return repr(value)
    return str(value)


# -- balances ---------------------------------------------------------------------------------------------------------------


def _ledgers(simulation: Simulation) -> dict[str, dict[str, Any]]:
    return {asset_class.value: _ledger(simulation, asset_class) for asset_class in simulation.venue.books}


def _ledger(simulation: Simulation, asset_class: AssetClass) -> dict[str, Any]:
    """Our books and the venue's side by side, and equity at the end with the marks it was reckoned at."""
    daemon = simulation.daemon
    ledger = daemon.portfolio.ledger(asset_class)
    wallet = simulation.venue.books[asset_class]
    at = daemon.clock.now()
    held = {s: p for s, p in sorted(daemon.portfolio.positions.items()) if p.asset_class is asset_class}
    marks = {symbol: {"mark": daemon.market.mark(symbol, at), "rate": daemon.market.settle_rate(symbol)} for symbol in held}
    return {
        "currency": ledger.currency, "cash": text(ledger.cash), "transfers": text(ledger.transfers), "gross": text(ledger.gross),
        "fees": text(ledger.fees), "funding": text(ledger.funding), "net": text(ledger.net), "trades": ledger.trades, "wins": ledger.wins,
        "fees_charged": _amounts(ledger.fees_charged), "dust": _amounts(ledger.dust),
        "positions": {symbol: text(position.quantity) for symbol, position in held.items()},
        "equity_end": _optional(daemon.marked_equity(asset_class)), "at": at,
        "marks": {symbol: {name: _optional(value) for name, value in mark.items()} for symbol, mark in marks.items()},
        "venue": {
            "currency": wallet.currency, "cash": text(wallet.cash), "coins": _amounts(wallet.coins),
            "positions": {symbol: text(holding.quantity) for symbol, holding in sorted(wallet.holdings.items())}},
    }


def _amounts(amounts: Mapping[str, Decimal]) -> dict[str, str]:
    """Without the zeros, which say nothing."""
    return {name: text(amount) for name, amount in sorted(amounts.items()) if amount}


def _optional(value: Decimal | None) -> str | None:
    return None if value is None else text(value)


# -- files ------------------------------------------------------------------------------------------------------------------


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _write_lines(path: Path, documents: Iterable[Any]) -> None:
    with path.open("w", encoding="utf-8") as handle:
        for document in documents:
            handle.write(json.dumps(document, separators=(",", ":")) + "\n")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
