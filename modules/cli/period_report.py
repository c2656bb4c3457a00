"""`report --from --to`: what a span of time brought and cost, from the journal alone; for people (tables, an HTML page) and taxes (CSV).

The document is a pure function of the books and the decision store. Everything is net of fees and funding unless a column says gross;
sums are per settlement currency and never added up over different ones.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modules.cli import following, inputs
from modules.cli.journal_tools import TRADES, trade_rows
from modules.cli.offline import replayed
from modules.cli.output import emit, money, percent, signed, table
from modules.cli.questions import DECISIONS, JOURNAL
from modules.domain.errors import ConfigurationError
from modules.domain.events import FundingBooked, TradingHalted, TradingRearmed
from modules.domain.instrument import AssetClass
from modules.domain.money import ZERO, text
from modules.domain.position import ClosedTrade
from modules.domain.sessions import iso

if TYPE_CHECKING:
    from main import Daemon

Document = dict[str, Any]
DAY_MS: Final = 86_400_000
FOREVER: Final = 1 << 62


def run(arguments: argparse.Namespace) -> int:
    """Wants `since`, `until` (dates or None), `html` and `csv` (files or None), `json`."""
    settings, policies = inputs.settings_and_policies(arguments, mode=following.mode_of(arguments, files=True))
    folder = inputs.state_folder(settings)
    since, until = inputs.timerange(f"{arguments.since or ''}-{arguments.until or ''}")
    with replayed(settings, policies, folder / JOURNAL, folder / DECISIONS) as daemon:
        document = period(daemon, since or 0, until or FOREVER)
        if arguments.csv is not None:
            _write(arguments.csv, lambda file: csv.writer(file, lineterminator="\n").writerows(
                [TRADES, *trade_rows(daemon, _closed(daemon, since or 0, until or FOREVER))]))
            document["csv"] = str(arguments.csv)
    if arguments.html is not None:
        page = render(document)
        _write(arguments.html, lambda file: file.write(page))
        document["html"] = str(arguments.html)
    emit(arguments, document, _show)
    return 0


def _write(path: Path, fill: Callable[[Any], object]) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            fill(file)
    except OSError as error:
        raise ConfigurationError([f"{path}: {error.strerror}: name a file that can be written"]) from error


# -- the document -------------------------------------------------------------------------------------------------------


def period(daemon: Daemon, since: int, until: int) -> Document:
    """Trades closed, funding booked, halts tripped and decisions taken at `since` <= at < `until` (UTC ms)."""
    closed = _closed(daemon, since, until)
    currency = {c: _currency(daemon, c, closed) for c in AssetClass}
    funding = dict.fromkeys(AssetClass, ZERO)
    halts: list[Document] = []
    for _, fact in daemon.journal.facts():
        if not since <= fact.at < until:
            continue
        if isinstance(fact, FundingBooked):
            funding[fact.asset_class] += fact.amount
        elif isinstance(fact, TradingHalted):
            halts.append({"scope": fact.scope.value, "trigger": fact.trigger.value, "at": iso(fact.at), "measured": fact.measured,
                          "limit": fact.limit, "reason": fact.reason, "rearmed_at": None})
        elif isinstance(fact, TradingRearmed):
            for halt in halts:
                if halt["rearmed_at"] is None and halt["scope"] == fact.scope.value and halt["trigger"] == fact.trigger.value:
                    halt["rearmed_at"] = iso(fact.at)
    funnels = daemon.decisions.funnel(since, until)
    first, last = (min(t.closed_at for t in closed), max(t.closed_at for t in closed)) if closed else (0, 0)
    return {
        "from": iso(since or first) if since or closed else None,
        "to": iso(until if until != FOREVER else last) if since or closed else None,
        "classes": {c.value: {
            "currency": currency[c], **_sums([t for t in closed if t.asset_class is c]), "funding_booked": text(funding[c]),
            "signals": funnels[c].signals, "approved": funnels[c].approved,
            "denials": {rule.value: n for rule, n in sorted(funnels[c].denied.items(), key=lambda item: -item[1])},
            "drawdown_max": _deepest([t for t in closed if t.asset_class is c]),
            "curve": _curve([t for t in closed if t.asset_class is c]),
        } for c in AssetClass if funnels[c].signals or any(t.asset_class is c for t in closed)},
        "strategies": _groups(closed, lambda t: (t.strategy, t.asset_class.value), ("strategy", "asset_class")),
        "instruments": _groups(closed, lambda t: (t.symbol, t.asset_class.value), ("symbol", "asset_class")),
        "months": _groups(closed, lambda t: (iso(t.closed_at)[:7], t.asset_class.value), ("month", "asset_class"), by_result=False),
        "exits": _groups(closed, lambda t: (t.exit_reason.value, t.asset_class.value), ("exit_reason", "asset_class")),
        "halts": halts,
    }


def _closed(daemon: Daemon, since: int, until: int) -> list[ClosedTrade]:
    return [trade for trade in daemon.portfolio.closed if since <= trade.closed_at < until]


def _currency(daemon: Daemon, asset_class: AssetClass, closed: Iterable[ClosedTrade]) -> str:
    """What the class settles in; the journal knows it of what was traded."""
    for trade in closed:
        instrument = daemon.portfolio.instruments.get(trade.symbol)
        if trade.asset_class is asset_class and instrument is not None:
            return instrument.settle
    return ""


def _sums(trades: Sequence[ClosedTrade]) -> Document:
    wins = [t.net for t in trades if t.net > ZERO]
    losses = [t.net for t in trades if t.net < ZERO]
    return {
        "trades": len(trades), "wins": len(wins), "gross": _total(t.gross for t in trades), "fees": _total(t.fees for t in trades),
        "funding": _total(t.funding for t in trades), "net": _total(t.net for t in trades),
        "profit_factor": float(round(sum(wins, ZERO) / -sum(losses, ZERO), 4)) if losses else None,
        "slippage_bp": float(round(sum((t.slippage_bp for t in trades), ZERO) / len(trades), 4)) if trades else None,
        "average_r": _mean([t.net_r for t in trades if t.net_r is not None]),
        "average_hours": round(sum(t.closed_at - t.opened_at for t in trades) / len(trades) / 3_600_000, 2) if trades else None,
    }


def _mean(values: Sequence[Decimal]) -> float | None:
    return float(round(sum(values, ZERO) / len(values), 4)) if values else None


def _total(amounts: Iterable[Decimal]) -> str:
    return text(sum(amounts, ZERO))


def _groups(closed: Sequence[ClosedTrade], key: Callable[[ClosedTrade], tuple[str, ...]], names: Sequence[str], *,
            by_result: bool = True) -> list[Document]:
    found: dict[tuple[str, ...], list[ClosedTrade]] = {}
    for trade in closed:
        found.setdefault(key(trade), []).append(trade)
    rows = [{**dict(zip(names, group, strict=True)), **_sums(trades)} for group, trades in sorted(found.items())]
    return sorted(rows, key=lambda row: -Decimal(row["net"])) if by_result else rows


def _curve(trades: Sequence[ClosedTrade]) -> list[list[Any]]:
    """[closed_at ms, cumulative net] after each trade."""
    total, points = ZERO, []
    for trade in sorted(trades, key=lambda t: t.closed_at):
        total += trade.net
        points.append([trade.closed_at, float(total)])
    return points


def _deepest(trades: Sequence[ClosedTrade]) -> str:
    """Largest fall of the cumulative net result of closed trades, in settlement currency."""
    total = peak = deepest = ZERO
    for trade in sorted(trades, key=lambda t: t.closed_at):
        total += trade.net
        peak = max(peak, total)
        deepest = max(deepest, peak - total)
    return text(deepest)


# -- for people ---------------------------------------------------------------------------------------------------------

_HEAD: Final = (">trades", ">won", ">gross", ">fees", ">funding", ">net", ">R", ">profit factor", ">slippage bp")


def _figures(row: Mapping[str, Any]) -> tuple[str, ...]:
    won = percent(row["wins"] / row["trades"], 0) if row["trades"] else "-"
    return (str(row["trades"]), won, signed(row["gross"]), money(row["fees"]), signed(row["funding"]), signed(row["net"]),
            _short(row["average_r"]), _short(row["profit_factor"]), _short(row["slippage_bp"]))


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


_GROUPS: Final = (("By strategy", "strategies", ("strategy", "asset_class")), ("By instrument", "instruments", ("symbol", "asset_class")),
                  ("By month", "months", ("month", "asset_class")), ("By exit", "exits", ("exit_reason", "asset_class")))


def _tables(document: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """(title, head, rows): the same on the terminal and on the page."""
    shown: list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]] = [
        ("By class", ("class", *_HEAD), [(f"{name} {c['currency']}", *_figures(c)) for name, c in document["classes"].items()])]
    for title, key, names in _GROUPS:
        shown.append((title, (names[0].replace("_", " "), "class", *_HEAD),
                      [(*(row[name] for name in names), *_figures(row)) for row in document[key]]))
    shown.append(("Denied", ("class", ">signals", ">approved", "denied by rule"), [
        (name, str(c["signals"]), str(c["approved"]), ", ".join(f"{rule} {n}" for rule, n in c["denials"].items()) or "-")
        for name, c in document["classes"].items()]))
    shown.append(("Halts", ("at", "class", "trigger", ">measured", ">limit", "re-armed"), [
        (h["at"][:16], h["scope"], h["trigger"], h["measured"], h["limit"], (h["rearmed_at"] or "not yet")[:16])
        for h in document["halts"]]))
    return shown


def _show(out: Any, document: Mapping[str, Any]) -> None:
    if not document["classes"]:
        out.print("No trade was closed and no decision taken in this span.", markup=False)
    else:
        out.print(f"{document['from'][:10]} to {document['to'][:10]} (UTC), net of fees and funding", markup=False)
        for title, head, rows in _tables(document):
            if rows:
                out.print(table(title, head, rows))
    for kind in ("html", "csv"):
        if kind in document:
            out.print(f"{kind.upper()}: {document[kind]}", markup=False)


def render(document: Mapping[str, Any]) -> str:
    """The report as one HTML page that loads nothing from anywhere."""
    from modules.backtest.report_style import STYLE

    tiles = "".join(f'<div class="card tile"><b>{escape(signed(c["net"]))}</b><span>{escape(name)} net, {escape(c["currency"])}, '
                    f'{c["trades"]} trades</span></div>' for name, c in document["classes"].items())
    curves = "".join(
        f'<div class="card"><h3>{escape(name)}: net result of closed trades, {escape(c["currency"])}</h3>{_picture(c["curve"])}</div>'
        for name, c in document["classes"].items() if len(c["curve"]) > 1)
    sheets = "".join(f'<h3 style="margin-top:26px">{escape(title)}</h3><div class="card scroll">{_sheet(head, rows)}</div>'
                     for title, head, rows in _tables(document) if rows)
    span = f"{document['from'][:10]} to {document['to'][:10]} UTC" if document["from"] else "nothing has been traded"
    return ('<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f'<title>Trading report</title><style>{STYLE}</style></head><body><main><header><h1>Trading report</h1>'
            f'<p class="soft small">{escape(span)} · net of fees and funding</p></header><div class="tiles">{tiles}</div>'
            f'<div class="grid">{curves}</div>{sheets}<footer>From the journal; export trades --format csv has every trade.</footer>'
            '</main></body></html>\n')


def _picture(points: Sequence[Sequence[float]]) -> str:
    import numpy as np

    from modules.backtest import report_charts as charts

    x = np.array([point[0] for point in points], dtype=np.float64) / DAY_MS
    y = np.array([point[1] for point in points], dtype=np.float64)
    across, up = charts.scale_of(x, pad=0.0), charts.scale_of(y, include=(0.0,))
    return charts.frame([charts.area(x, y, across, up, "fall-out"), charts.line(x, y, across, up, "out")], across, up,
                        below=charts.day_ticks(across), number="{:+,.4g}", label="Cumulative net result")


def _sheet(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    kinds = [' class="n"' if name.startswith(">") else "" for name in head]
    top = "".join(f"<th{kind}>{escape(name.removeprefix('>'))}</th>" for kind, name in zip(kinds, head, strict=True))
    lines = ("".join(f"<td{kind}>{escape(str(cell))}</td>" for kind, cell in zip(kinds, row, strict=True)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
