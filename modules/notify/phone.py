"""Documents as messages for a phone: HTML as Telegram reads it, tables narrow enough for one hand. Pure.

Everything from outside (symbols, headlines, log lines) is escaped; nothing here is longer than a message may be.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from modules.domain.policies import Policies
from modules.notify.chat_words import WORDS, Wish
from modules.notify.console import trade_size
from modules.notify.outbox import TEXT_MAX

Document = Mapping[str, Any]
Documents = Mapping[str, Document]

ROWS_MAX: Final = 25
LINE_MAX: Final = 400


def escaped(text: object, longest: int = LINE_MAX) -> str:
    """Plain text that is safe inside a message."""
    plain = "".join(c if c.isprintable() else " " for c in str(text))
    return html.escape(plain if len(plain) <= longest else plain[: longest - 1] + "…", quote=False)


def fit(lines: Iterable[str]) -> str:
    """Whole lines up to what one message takes, with the number of those left out. A line is never cut: it may hold a tag."""
    kept: list[str] = []
    left, length = 0, 0
    for line in lines:
        length += len(line) + 1
        if left or length > TEXT_MAX - 40:
            left += 1
        else:
            kept.append(line)
    return "\n".join((*kept, f"… {left} more") if left else kept)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Fixed width, columns named ">x" aligned right; at most ROWS_MAX rows."""
    every = [[_cell(cell) for cell in row] for row in rows]
    cells = every[:ROWS_MAX]
    heads = [column.removeprefix(">") for column in columns]
    widths = [max(len(head), *(len(row[index]) for row in cells)) if cells else len(head) for index, head in enumerate(heads)]

    def line(row: Sequence[str]) -> str:
        shown = (cell.rjust(width) if column.startswith(">") else cell.ljust(width)
                 for cell, width, column in zip(row, widths, columns, strict=True))
        return html.escape(" ".join(shown).rstrip(), quote=False)

    body = [line(heads), *map(line, cells)]
    size = 0
    kept = [one for one in body if (size := size + len(one) + 1) < TEXT_MAX - 300]
    more = len(body) - len(kept) + len(every) - len(cells)
    return "<pre>" + "\n".join(kept) + "</pre>" + (f"\n… {more} more" if more else "")


def _cell(value: object) -> str:
    return "".join(c if c.isprintable() else " " for c in str(value))[:24]


def money(value: object) -> str:
    return "-" if value is None else f"{Decimal(str(value)):,.2f}"


def signed(value: object) -> str:
    return "-" if value is None else f"{Decimal(str(value)):+,.2f}"


def short(value: object) -> str:
    """A price or a quantity in few characters."""
    return "-" if value is None else f"{float(str(value)):.6g}"


def percent(value: object, places: int = 2) -> str:
    return "-" if value is None else f"{float(str(value)) * 100:.{places}f}%"


def when(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%m-%d %H:%M")


def _classes(document: Document, wish: Wish) -> list[tuple[str, Document]]:
    wanted = wish.arguments.get("asset_class", "ALL")
    return [(name, shown) for name, shown in document["classes"].items() if wanted in ("ALL", name)]


# -- state ---------------------------------------------------------------------------------------------------------------


def first_message(status: Document, policies: Policies, *, certified: int, strategies: int, next_event: str,
                  funds: Document | None = None) -> str:
    """What a person wants to know first after a start. `funds`: how the switches stand; they say something where money is real."""
    mode = status["mode"].upper()
    lines = []
    for name, shown in status["classes"].items():
        if shown["equity"] is None:
            lines.append(f"{name}: value unknown, a price is missing.")
            continue
        equity = Decimal(shown["equity"])
        halt = -equity * policies.kill_switch.drawdown_daily_max
        line = (f"{name} {equity:,.2f} {shown['currency']}, phase {shown['phase']}, {trade_size(shown['phase'], equity, policies)}, "
                f"halts at {halt:,.2f} today.")
        if shown["halted_by"]:
            line += f" HALTED by {shown['halted_by']}."
        elif shown["paused"]:
            line += " Entries are paused."
        if status["mode"] == "live" and funds is not None and not (funds["master_on"] and funds["classes"][name]["on"]):
            line += " Its funds are OFF: no real order goes out."
        lines.append(line)
    verdict = f"{certified} of {strategies} strategies certified" + (": nothing can trade live." if not certified else ".")
    said = [f"<b>{mode}.</b> {escaped(lines[0])}" if lines else f"<b>{mode}.</b>", *map(escaped, lines[1:]), verdict,
            f"Next event: {escaped(next_event or 'none known')}.", "/why /kill /help"]
    return fit(said)


def _status(documents: Documents, wish: Wish) -> str:
    status, trades = documents["status"], documents["trades"]
    chosen = _classes(status, wish)
    names = {name for name, _ in chosen}
    lines = [f"<b>{escaped(status['mode'].upper())}</b>, market time {escaped(status['at'][:16].replace('T', ' '))}"]
    lines.append(table(("class", ">equity", ">day", ">month", ">pos"), (
        (name, money(c["equity"]), percent(-c["drawdown_daily"] or 0, 1), percent(-c["drawdown_monthly"] or 0, 1), c["open_positions"])
        for name, c in chosen)))
    for name, c in chosen:
        words = [f"halted by {c['halted_by']}"] if c["halted_by"] else []
        words += ["entries paused"] if c["paused"] else []
        words += [f"blackout {c['blackout']}"] if c["blackout"] else []
        if words:
            lines.append(f"<b>{name}</b>: {escaped('; '.join(words))}")
    held = [trade for trade in trades["open"] if trade["asset_class"] in names]
    if wish.arguments.get("subject", "").lower() == "table" or len(held) > 4:
        lines.append(table(("symbol", "side", ">now", ">net"), (
            (t["symbol"], t["side"], short(t["mark"]), signed(t["net_now"])) for t in held)))
    else:
        lines += [f"{escaped(t['side'])} {short(t['quantity']).removeprefix('-')} <b>{escaped(t['symbol'])}</b> from {short(t['entry'])}, "
                  f"now {short(t['mark'])}: <b>{signed(t['net_now'])}</b>, stop {short(t['stop'])}, at risk {money(t['risk'])} "
                  f"({escaped(t['strategy'])}, <code>{escaped(t['trade_id'])}</code>)" for t in held]
    if not held:
        lines.append("Nothing is open.")
    lines += [f"⚠ {escaped(problem)}" for problem in status["problems"]]
    if status["in_doubt"]:
        lines.append(f"⚠ {len(status['in_doubt'])} orders in doubt")
    return fit(lines)


def _health(documents: Documents, _: Wish) -> str:
    status = documents["status"]
    feeds = status["feeds"].values()
    lost = [symbol for symbol, feed in status["feeds"].items() if feed["state"] == "lost"]
    lag = status["loop_lag_ms_p99"]
    lines = ["All is well." if not status["problems"] else "<b>Not well:</b>", *(f"⚠ {escaped(p)}" for p in status["problems"])]
    lines.append(f"Feeds {len(feeds) - len(lost)} of {len(feeds)}, wallet {short(status['wallet_age_s'])} s old, loop lag p99 "
                 f"{'-' if lag is None else f'{lag:.0f} ms'}, {len(status['in_doubt'])} orders in doubt.")
    return fit(lines)


def _balance(documents: Documents, wish: Wish) -> str:
    chosen = _classes(documents["balance"], wish)
    lines = [table(("class", ">equity", ">cash", ">open"), (
        (name, money(c["equity"]), money(c["cash"]), signed(c["unrealized"])) for name, c in chosen))]
    for name, c in chosen:
        coins = ", ".join(f"{coin} {short(quantity)}" for coin, quantity in c["coins"].items())
        lines.append(f"{name}: {escaped(c['currency'])}, reserved {money(c['reserved'])}, net so far {signed(c['net'])}"
                     + (f", holds {escaped(coins)}" if coins else ""))
    return fit(lines)


def _phase(documents: Documents, wish: Wish) -> str:
    return fit(f"<b>{name}</b> {money(c['equity'])} {escaped(c['currency'])}: phase {c['phase'] or '-'}, {escaped(c['a_trade'])}"
               for name, c in _classes(documents["phase"], wish))


# -- results -------------------------------------------------------------------------------------------------------------


def _profit(documents: Documents, wish: Wish) -> str:
    document = documents["profit"]
    since = f"Since {document['since'][:10]}" if document["since"] else "Since the beginning"
    chosen = _classes(document, wish)
    return fit([since, table(("class", ">trades", ">won", ">net"), (
        (name, c["trades"], percent(c["win_rate"], 0), signed(c["net"])) for name, c in chosen)),
        *(f"{name}: {signed(c['gross'])} gross - {money(c['fees'])} fees {signed(c['funding'])} funding; best {signed(c['best'])}, worst "
          f"{signed(c['worst'])}" for name, c in chosen if c["trades"])])


def _periods(documents: Documents, wish: Wish) -> str:
    document = documents[wish.name]
    rows = document["days"] if "days" in document else document["periods"]
    wanted = wish.arguments.get("asset_class", "ALL")
    names = [name for name in (rows[0]["classes"] if rows else ()) if wanted in ("ALL", name)]

    def net(row: Document, name: str) -> str:
        return f"{Decimal(row['classes'][name]['net']):+,.1f}" if row["classes"][name]["trades"] else "-"

    labels = [row.get("date", row.get("label", "")) for row in rows]
    return fit(["Net of closed trades, UTC", table((wish.name, *(f">{name}" for name in names)), (
        (label[5:] if wish.name == "daily" else label, *(net(row, name) for name in names))
        for label, row in zip(labels, rows, strict=True)))])


def _performance(documents: Documents, wish: Wish) -> str:
    wanted = wish.arguments.get("asset_class", "ALL")
    rows = [row for row in documents["performance"]["rows"] if wanted in ("ALL", row["asset_class"])]
    if not rows:
        return "No trade has closed yet."
    return table(("strategy", "symbol", ">n", ">net"), (
        (row["strategy"][:10], row["symbol"][:12], row["trades"], signed(row["net"])) for row in rows))


def _trades(documents: Documents, wish: Wish) -> str:
    wanted = wish.arguments.get("asset_class", "ALL")
    rows = [row for row in documents["trades"]["closed"] if wanted in ("ALL", row["asset_class"])]
    if not rows:
        return "No trade has closed yet."
    return fit([table(("closed", "symbol", ">net", "by"), (
        (row["closed_at"][5:16].replace("T", " "), row["symbol"][:12], signed(row["net"]), row["exit_reason"]) for row in rows))])


def _count(documents: Documents, _: Wish) -> str:
    document = documents["count"]
    each = ", ".join(f"{name} {count}" for name, count in document["classes"].items() if count)
    return f"{document['open']} of at most {document['max']} trades are open{': ' + escaped(each) if each else ''}."


# -- reasons -------------------------------------------------------------------------------------------------------------


def _why(documents: Documents, _: Wish) -> str:
    document = documents["explain"]
    if "classes" not in document:
        return _decision(document)
    lines = ["<b>The last 24 h</b>"]
    for name, c in document["classes"].items():
        denied = ", ".join(f"{rule} {count}" for rule, count in sorted(c["denied"].items(), key=lambda item: -item[1])[:4])
        lines.append(f"<b>{name}</b>: {c['bars']} bars, {c['signals']} signals, {c['orders']} orders"
                     + (f"; denied: {escaped(denied)}" if denied else ""))
        if c["halted_by"]:
            lines.append(f"  halted by {escaped(c['halted_by'])}")
        if (miss := c["nearest_miss"]) is not None:
            lines.append(f"  nearest miss: {escaped(miss['symbol'])}, {escaped(miss['rule'])} {_number(miss['measured'])} against "
                         f"{_number(miss['limit'])} {escaped(miss['unit'])} (<code>/why {escaped(miss['decision_id'])}</code>)")
        possible, impossible = c["tradable"]["possible"], c["tradable"]["impossible"]
        if possible or impossible:
            lines.append(f"  {len(possible)} of {len(possible) + len(impossible)} instruments tradable")
    return fit(lines)


def _decision(document: Document) -> str:
    stopped = f", stopped by <b>{escaped(document['stopped_by'])}</b>" if document["stopped_by"] else ""
    lines = [f"{escaped(document['outcome'])}{stopped}: {escaped(document['strategy'])} wanted {escaped(document['side'])} "
             f"{escaped(document['instrument'])} at {escaped(document['at'][:16])}, confidence {document['confidence']:.2f}."]
    lines += [f"{'✓' if check['passed'] else '✗'} {escaped(check['rule'])} {_number(check['measured'])}"
              + (f" / {_number(check['limit'])}" if check["limit"] is not None else "") for check in
              sorted(document["checks"], key=lambda check: bool(check["passed"]))]
    return fit(lines)


def _number(value: object) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    try:
        return f"{float(str(value)):.5g}"
    except ValueError:
        return escaped(value, 40)


def _events(documents: Documents, _: Wish) -> str:
    document = documents["events"]
    lines = [f"{when(row['at'])} <b>{escaped(row['kind'])}</b> {escaped(row['title'], 60)}: entries closed "
             f"{when(row['closes_entries_at'])[6:]}-{when(row['opens_entries_at'])[6:]} for {escaped(', '.join(row['classes']))}"
             + (" NOW" if row["open_window"] else "") for row in document["events"]]
    lines += [f"⚠ {escaped(name)}: entries are closed, the calendar of {escaped(kind)} does not reach far enough ahead"
              for name, kind in document["exhausted"].items()]
    return fit(["Times are UTC.", *lines]) if lines else "No release is known for the days to come."


def _news(documents: Documents, wish: Wish) -> str:
    document = documents["news"]
    if not document["enabled"]:
        return "News are off ([news] enabled = true turns them on): moods are neutral."
    lines = [f"⚠ {escaped(row['kind'])} until {when(row['until'])}: {escaped(row['headline'], 120)}" for row in document["cautions"]]
    for row in document["moods"][:15]:
        lines.append(f"<b>{escaped(row['asset'])}</b> {'-' if row['mood'] is None else format(row['mood'], '+.2f')}"
                     + (f": {escaped(row['headlines'][0]['title'], 100)}" if row["headlines"] else ""))
    return fit(lines) or "Nobody spoke about anything yet."


def _validation(documents: Documents, _: Wish) -> str:
    document = documents["validation"]
    lines = [f"{document['certified']} of {document['strategies']} strategies certified"
             + (": nothing can trade live." if not document["certified"] else ".")]
    lines += [f"{escaped(row['strategy'])} {row['asset_class']}: {row['symbols']} instruments" for row in document["rows"]]
    return fit(lines)


def _learning(documents: Documents, _: Wish) -> str:
    document = documents["learning"]
    lines = document["lines"] if "lines" in document else [f"{key}: {value}" for key, value in _flat(document)]
    return fit(escaped(line, 200) for line in lines) or "Nothing was learned yet."


# -- lists and tools -------------------------------------------------------------------------------------------------------


def _locks(documents: Documents, _: Wish) -> str:
    return fit(f"<b>{escaped(row['scope'])}</b> {escaped(row['what'])}: {escaped(row['reason'])}"
               for row in documents["locks"]["locks"]) or "Nothing keeps entries closed."


def _whitelist(documents: Documents, _: Wish) -> str:
    document = documents["whitelist"]
    return fit([f"Allowed: {escaped(', '.join(document['patterns']) or 'everything that is watched')}",
                *(f"{name}: {escaped(', '.join(symbols), 1_000)}" for name, symbols in document["symbols"].items() if symbols)])


def _blacklist(documents: Documents, _: Wish) -> str:
    document = documents["blacklist"]
    configured = [f"By the settings: {escaped(', '.join(document['configured']) or 'none')}"] if "configured" in document else []
    return fit([*configured, f"Barred by you: {escaped(', '.join(document['barred']) or 'none')} (/unlock PAIR takes one off)"])


def _unlock(documents: Documents, wish: Wish) -> str:
    document = documents["unlock"]
    return f"{_paused(documents, wish)} Barred by you: {escaped(', '.join(document['barred']) or 'none')}."


def _show_config(documents: Documents, _: Wish) -> str:
    lines = [f"{key} = {value}" for key, value in _flat(documents["show-config"]["settings"])]
    return "<pre>" + fit(escaped(line, 120) for line in lines) + "</pre>"


def _flat(tree: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        elif value not in (None, [], ""):
            yield f"{path}{key}", value


def _logs(documents: Documents, _: Wish) -> str:
    lines = documents["logs"]["lines"]
    return fit(f"{escaped(line['at'][5:19].replace('T', ' '))} {escaped(line['level'])} {escaped(line['message'], 200)}"
               for line in lines) or "The log is empty."


def _version(documents: Documents, _: Wish) -> str:
    document = documents["version"]
    return (f"Version {escaped(document['version'])}, {escaped(document['mode'])}, policies <code>{escaped(document['policy_hash'][:8])}"
            f"</code>, running since {escaped((document['since'] or '-')[:16].replace('T', ' '))}.")


# -- commands --------------------------------------------------------------------------------------------------------------


def _paused(documents: Documents, wish: Wish) -> str:
    document = next(iter(documents.values()))
    paused = document.get("paused", [])
    halted = ", ".join(document.get("halted", ()))
    return f"Entries paused: {', '.join(paused) or 'none'}. Exits and stops run on." + (
        f" Still halted: {escaped(halted)}; /reset_kill re-arms." if halted else "")


def _kill(documents: Documents, _: Wish) -> str:
    document = documents["kill"]
    unwritten = " The journal could not be written (disk full?); the halt holds in memory." if document.get("unwritten") else ""
    return (f"<b>{'Already halted' if document['already'] else 'HALTED'}</b>: {escaped(', '.join(document['halted']))}. Entries are "
            f"canceled, stops stay. /reset_kill class reason re-arms.{unwritten}")


def _reset_kill(documents: Documents, _: Wish) -> str:
    document = documents["reset-kill"]
    return (f"Re-armed: {escaped(', '.join(document['cleared']))}. Still halted: "
            f"{escaped(', '.join(document['halted']) or 'none')}.")


def _closing(documents: Documents, _: Wish) -> str:
    document = next(iter(documents.values()))
    closing = document["closing"]
    named = ", ".join(trade["symbol"] for trade in closing)
    if closing and document.get("waits"):
        return (f"Noted, {len(closing)} to close as soon as the venue answers: {escaped(named)}. Until then its stops at the venue are all "
                f"that acts ({escaped(document['waits'])}).")
    return f"Closing {len(closing)}: {escaped(named) or 'nothing is open'}. This stops no new entries; /pause or /kill does."


def _funds(documents: Documents, _: Wish) -> str:
    document = documents["funds"]
    return fit([f"Funds are {'on' if document['master_on'] else 'OFF'} (real orders only; paper ignores the switches)",
                table(("class", "switch", ">pair cap"), (
                    (name, "on" if c["on"] else "OFF", percent(c["pair_cap"], 1)) for name, c in document["classes"].items()))])


def _reconcile(documents: Documents, _: Wish) -> str:
    return fit(f"{escaped(venue)}: {count or 'no'} differences" for venue, count in documents["reconcile"]["differences"].items()) \
        or "There is no venue to compare with."


def _reload(documents: Documents, _: Wish) -> str:
    return fit(map(escaped, documents["reload"]["lines"]))


_SHOW: Final[Mapping[str, Callable[[Documents, Wish], str]]] = {
    "status": _status, "health": _health, "balance": _balance, "phase": _phase, "profit": _profit, "daily": _periods, "weekly": _periods,
    "monthly": _periods, "performance": _performance, "trades": _trades, "count": _count, "why": _why, "events": _events, "news": _news,
    "validation": _validation, "learning": _learning, "locks": _locks, "whitelist": _whitelist, "blacklist": _blacklist,
    "show_config": _show_config, "logs": _logs, "version": _version, "pause": _paused, "resume": _paused, "unlock": _unlock,
    "kill": _kill, "reset_kill": _reset_kill, "forceexit": _closing, "flatten": _closing, "funds": _funds, "reconcile": _reconcile,
    "reload_config": _reload,
}


def show(wish: Wish, documents: Documents) -> str:
    """The answer to `wish` as a message."""
    return _SHOW[wish.name](documents, wish) or "There is nothing to show."    # an empty message is refused


def caption(wish: Wish, documents: Documents) -> str:
    """What stands under a picture: at most 1,024 characters."""
    text = _SHOW[wish.name](documents, wish) if wish.name in _SHOW else ""
    return text if len(text) <= 1_000 else ""


def help_text() -> str:
    return fit(["<b>What I understand</b> (a class may follow: spot perp option forex)",
                *(f"/{name} {escaped(word.help)}" for name, word in WORDS.items())])


def summary(title: str, profit: Document, status: Document) -> str:
    """The daily or weekly summary."""
    rows = [(name, c["trades"], signed(c["net"]), money(status["classes"].get(name, {}).get("equity")))
            for name, c in profit["classes"].items()]
    lines = [f"<b>{escaped(title)}</b>", table(("class", ">trades", ">net", ">equity"), rows)]
    lines += [f"{name}: halted by {escaped(c['halted_by'])}" for name, c in status["classes"].items() if c["halted_by"]]
    return fit(lines)


def heartbeat(status: Document) -> str:
    """A sign of life in one line."""
    halted = [name for name, c in status["classes"].items() if c["halted_by"]]
    held = sum(c["open_positions"] for c in status["classes"].values())
    state = f"halted: {', '.join(halted)}" if halted else "trading"
    wrong = f"; {len(status['problems'])} problems, see /health" if status["problems"] else ""
    return escaped(f"Alive: {status['mode']}, {state}, {held} positions{wrong}.")


__all__ = ["caption", "escaped", "first_message", "fit", "heartbeat", "help_text", "show", "summary", "table"]
