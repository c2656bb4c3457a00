"""`status`, `balance`, `trades`, `profit`, `daily`, `performance`, `explain`: asked of the running daemon, else of its journal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from modules.cli import following, inputs
from modules.cli.output import emit, money, number, percent, signed, table, table_of_checks
from modules.domain.errors import DaemonNotRunning
from modules.runtime.control import call

if TYPE_CHECKING:
    from rich.console import Console

Document = Mapping[str, Any]

SOCKET: Final = following.SOCKET
JOURNAL: Final = following.JOURNAL
DECISIONS: Final = "decisions.sqlite"
HEALTH_S: Final = 5.0


def run(arguments: argparse.Namespace) -> int:
    folder = following.folder_of(arguments)
    asked = {name: value for name in ("n", "subject") if (value := getattr(arguments, name, None)) not in (None, "")}
    if arguments.verb == "status" and arguments.healthy:
        return _healthy(call(folder / SOCKET, "status", {}, timeout_s=HEALTH_S))
    try:
        document = call(folder / SOCKET, arguments.verb, asked)
    except DaemonNotRunning as absent:
        document = _from_journal(arguments, folder.name, asked, absent)
    emit(arguments, document, _SHOW[arguments.verb])
    return 0


def _healthy(document: Document) -> int:
    for problem in document["problems"]:
        print(problem, file=sys.stderr)
    return 1 if document["problems"] else 0


def _from_journal(arguments: argparse.Namespace, mode: str, asked: Mapping[str, Any], absent: DaemonNotRunning) -> dict[str, Any]:
    """What the journal says; where there is none either, that no daemon runs is the answer."""
    from modules.cli.offline import replayed
    from modules.cli.reports import Reports

    path = inputs.settings_only(arguments, mode=mode).state_dir / mode / JOURNAL
    if not path.exists():
        raise DaemonNotRunning(f"{absent}, and no journal at {path}: nothing has run here yet; start with: python main.py")
    settings, policies = inputs.settings_and_policies(arguments, mode=mode)
    folder = inputs.state_folder(settings)
    with replayed(settings, policies, folder / JOURNAL, folder / DECISIONS) as daemon:
        if not daemon.clock.now():
            raise DaemonNotRunning(f"{absent}, and the journal at {path} is still empty: no start here has reached its venue yet")
        print(f"{absent}: this is what its journal says", file=sys.stderr)
        return Reports(daemon, running=False).all()[arguments.verb](asked)


# -- for people --------------------------------------------------------------------------------------------------------


def _status(out: Console, document: Document) -> None:
    since = f" since {document['since'][:16]}" if document["since"] else ""
    waits = any(problem.startswith("not started yet") for problem in document["problems"])
    alive = "" if document["running"] else " (NOT STARTED YET)" if waits else " (NOT RUNNING)"
    out.print(f"{document['mode'].upper()}{alive}{since}, market time {document['at'][:16]} UTC", markup=False)
    out.print(table("", ("class", "state", ">phase", ">equity", ">day's drawdown", ">limit", ">month's", ">limit", ">positions",
                         "halted by"), (
        (name, c["state"] + (" (paused)" if c["paused"] else "") + (f" (blackout {c['blackout']})" if c["blackout"] else ""),
         c["phase"] or "-", f"{money(c['equity'])} {c['currency']}", percent(c["drawdown_daily"]), percent(c["drawdown_daily_max"]),
         percent(c["drawdown_monthly"]), percent(c["drawdown_monthly_max"]), c["open_positions"], c["halted_by"] or "-")
        for name, c in document["classes"].items())))
    lost = [symbol for symbol, feed in document["feeds"].items() if feed["state"] == "lost"]
    if document["running"]:
        lag = document["loop_lag_ms_p99"]
        fine = f"{len(document['feeds']) - len(lost)} of {len(document['feeds'])} fine" + (f" (lost: {', '.join(lost)})" if lost else "")
        late = "-" if lag is None else f"{lag:.0f} ms"
        out.print(f"Feeds: {fine}. Loop lag p99 {late}. Orders in doubt: {len(document['in_doubt'])}.", markup=False)
    for name, c in document["classes"].items():
        if c.get("ramp"):
            out.print(f"{name}: {c['ramp']}", markup=False)
    for problem in document["problems"]:
        out.print(f"! {problem}", markup=False)


def _balance(out: Console, document: Document) -> None:
    out.print(table("", ("class", ">equity", ">cash", ">unrealized", ">margin", ">reserved", ">net so far", "coins"), (
        (name, f"{money(c['equity'])} {c['currency']}", money(c["cash"]), signed(c["unrealized"]), money(c["margin"]), money(c["reserved"]),
         signed(c["net"]), ", ".join(f"{coin} {quantity}" for coin, quantity in c["coins"].items()) or "-")
        for name, c in document["classes"].items())))


def _trades(out: Console, document: Document) -> None:
    columns = ("trade", "strategy", "symbol", "side", ">quantity", ">entry", ">now", ">net now", ">stop", ">at risk", "since")
    out.print(table("Open", columns, (
        (t["trade_id"], t["strategy"], t["symbol"], t["side"], number(t["quantity"]), number(t["entry"]),
         "-" if t["mark"] is None else number(t["mark"]), signed(t["net_now"]), number(t["stop"]), money(t["risk"]),
         (t["opened_at"] or "working")[:16] + (f" closing: {t['closing']}" if t["closing"] else ""))
        for t in document["open"])))
    out.print(table("Closed, newest first", ("closed", "strategy", "symbol", "side", ">entry", ">exit", ">net", ">R", "by"), (
        (t["closed_at"][:16], t["strategy"], t["symbol"], t["side"], number(t["entry"]), number(t["exit"]), signed(t["net"]),
         "-" if t["net_r"] is None else f"{t['net_r']:+.2f}", t["exit_reason"]) for t in document["closed"])))


def _profit(out: Console, document: Document) -> None:
    out.print(table(f"Since {document['since'][:10]}" if document["since"] else "", (
        "class", ">trades", ">won", ">gross", ">fees", ">funding", ">net", ">best", ">worst", ">average R", ">profit factor"), (
        (name, c["trades"], percent(c["win_rate"], 0), signed(c["gross"]), money(c["fees"]), signed(c["funding"]),
         f"{signed(c['net'])} {c['currency']}", signed(c["best"]), signed(c["worst"]), _plain(c["average_r"]), _plain(c["profit_factor"]))
        for name, c in document["classes"].items())))


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _daily(out: Console, document: Document) -> None:
    names = list(document["days"][0]["classes"]) if document["days"] else []
    out.print(table("Net per UTC day (closed trades)", ("day", *(f">{name}" for name in names)), (
        (day["date"], *(f"{signed(c['net'])} ({c['trades']})" if c["trades"] else "-" for c in day["classes"].values()))
        for day in document["days"])))


def _performance(out: Console, document: Document) -> None:
    out.print(table("", ("strategy", "symbol", "class", ">trades", ">won", ">net", ">average R"), (
        (row["strategy"], row["symbol"], row["asset_class"], row["trades"], percent(row["win_rate"], 0), signed(row["net"]),
         _plain(row["average_r"])) for row in document["rows"])))


def _explain(out: Console, document: Document) -> None:
    if "classes" not in document:
        stopped = f", stopped by {document['stopped_by']}" if document["stopped_by"] else ""
        reason = (document["size"] or {}).get("reason", "")
        out.print(f"{document['outcome']}{stopped}: {document['strategy']} wanted {document['side']} {document['instrument']} at "
                  f"{document['at'][:19]} (confidence {document['confidence']:.2f}). {reason}", markup=False)
        out.print(table_of_checks(document["checks"]))
        return
    out.print(f"The last 24 h, {document['since'][:16]} to {document['until'][:16]} UTC", markup=False)
    out.print(table("", ("class", ">phase", ">equity", ">bars", ">signals", ">orders", "denied by rule"), (
        (name, c["phase"] or "-", money(c["equity"]), c["bars"], c["signals"], c["orders"],
         ", ".join(f"{rule} {count}" for rule, count in c["denied"].items()) or "-") for name, c in document["classes"].items())))
    for name, c in document["classes"].items():
        if c["halted_by"]:
            out.print(f"{name}: halted by {c['halted_by']}", markup=False)
        if (miss := c["nearest_miss"]) is not None:
            out.print(f"{name}: nearest miss {miss['strategy']} on {miss['symbol']} at {miss['at'][11:16]}: {miss['rule']} "
                      f"{number(miss['measured'])} against {number(miss['limit'])} {miss['unit']} (explain {miss['decision_id']})",
                      markup=False)
        out.print(_can_trade(name, c), markup=False)
        if c.get("ramp"):
            out.print(f"{name}: {c['ramp']}: every trade is as small as trades can be", markup=False)


def _can_trade(name: str, c: Document) -> str:
    """"PERP 300.00: BTC/USDT:USDT impossible, 10 against 10.40 USDT"."""
    possible, impossible = c["tradable"]["possible"], c["tradable"]["impossible"]
    if not possible and not impossible:
        return f"{name} {money(c['equity'])}: no prices, so what it can trade is unknown"
    shown = [f"{entry['symbol']} impossible, {number(entry['measured'])} against {number(entry['limit'])} {entry['unit']} ({entry['rule']})"
             for entry in impossible[:5]]
    more = f"; and {len(impossible) - 5} more impossible" if len(impossible) > 5 else ""
    count = f"{len(possible)} of {len(possible) + len(impossible)} instruments tradable"
    return f"{name} {money(c['equity'])}: " + "; ".join((count, *shown)) + more


_SHOW: Final[Mapping[str, Callable[[Console, Document], None]]] = {
    "status": _status, "balance": _balance, "trades": _trades, "profit": _profit, "daily": _daily, "performance": _performance,
    "explain": _explain,
}
