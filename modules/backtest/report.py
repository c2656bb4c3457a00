"""One HTML page per validation run: self-contained, readable on a phone and on a desk, light and dark. Pure: results in, text out.

Every number that decided stands beside its bar; every picture says what it shows. Nothing is loaded from anywhere and no script runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

import numpy as np

from modules.backtest import report_charts as charts
from modules.backtest.report_style import STYLE
from modules.backtest.validation import Floats, Line, Marks, Picture, Validation

MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
TONES: Final = {"APPROVED": "approved", "REJECTED": "rejected"}
ROLLING: Final = 0.5
"""Years of one rolling Sharpe window."""
DAY_MS: Final = 86_400_000
EMPTY: Final = '<p class="empty">Nothing to draw: too little could be computed.</p>'


def render(validations: Sequence[Validation], facts: Mapping[str, object], title: str = "Validation") -> str:
    """The whole page. `facts` are words and numbers about the run (data, when, how long), shown as they are."""
    counted = [(name, sum(one.verdict == verdict for one in validations), tone) for name, verdict, tone in (
        ("approved", "APPROVED", "approved"), ("rejected", "REJECTED", "rejected"),
        ("insufficient evidence", "INSUFFICIENT EVIDENCE", "insufficient"))]
    tiles = "".join(f'<div class="card tile"><b>{count}</b><span>{name}</span></div>' for name, count, _ in counted)
    tiles += f'<div class="card tile"><b>{sum(one.trials for one in validations):,}</b><span>trials counted</span></div>'
    about = " · ".join(f"{escape(str(name))} {escape(str(value))}" for name, value in facts.items() if value not in ("", None))
    body = "".join(_section(number, one) for number, one in enumerate(validations))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>{escape(title)}</title><style>{STYLE}</style></head><body><main><header><h1>{escape(title)}</h1>'
        f'<p class="soft small">{about}</p></header><div class="tiles">{tiles}</div>{_overview(validations)}{body}'
        '<footer>Past results, simulated with fees, spread, slippage and funding, promise nothing. A strategy trades real money only '
        'with a certificate; paper trading is never gated.</footer></main></body></html>\n')


def _overview(validations: Sequence[Validation]) -> str:
    rows = "".join(
        f'<tr><td><a href="#v{number}">{escape(one.strategy)}</a> <span class="soft">{one.asset_class.value}</span></td>'
        f'<td>{_badge(one)}</td>'
        f'<td class="n">{_number(one.metrics.get("sharpe"))}</td><td class="n">{_number(one.metrics.get("p"), 4)}</td>'
        f'<td class="n">{_count(one.metrics.get("trades"))}</td><td class="n hide">{one.trials:,}</td>'
        f'<td class="soft small hide">{escape(one.missing.partition("; ")[0] or "nothing missing")}</td></tr>'
        for number, one in enumerate(validations))
    return (f'<div class="card scroll"><table><thead><tr><th>strategy</th><th>verdict</th><th class="n">Sharpe</th><th class="n">p</th>'
            f'<th class="n">trades</th><th class="n hide">trials</th><th class="hide">what is missing</th></tr></thead>'
            f'<tbody>{rows}</tbody></table></div>')


def _section(number: int, one: Validation) -> str:
    picture = one.picture
    tone = TONES.get(one.verdict, "insufficient")
    chosen = ", ".join(f"{name} {value:g}" for name, value in one.params.items())
    said = f"<p>{escape(one.missing)}</p>" if one.missing else "<p>Every bar is passed.</p>"
    if one.next_command:
        said += f'<p class="soft small">Next: <code>{escape(one.next_command)}</code></p>'
    cards = "".join((
        _card("Equity, net of all costs", _equity(picture), "wide",
              _key(("k-in", "in sample, final parameters"), ("k-out", "out of sample, walk-forward"))),
        _card("Verdict sheet", _sheet(one.lines), "wide"),
        _card("Could it be luck?", _luck(picture), "", "Best of all sets against the best of as many worthless ones (max-t bootstrap)."),
        _card("Rolling Sharpe, half a year", _rolling(picture), "", _key(("k-in", "in sample"), ("k-out", "out of sample"))),
        _card("Parameter plateau", _plateau(picture), "wide", "Annual Sharpe by parameter; a good set has good neighbors."),
        _card("Trades on price", _trades(picture.marks), "wide",
              f"{escape(picture.marks.symbol)}, out of sample" if picture.marks is not None else ""),
        _card("Months, out of sample, % of notional", _months(picture), "wide"),
        _card("Walk-forward", _windows(picture), "wide", "Parameters are chosen by the days before each window, judged by the days in it."),
        _card("Instruments, out of sample", _instruments(picture), "wide"),
    ))
    return (f'<section class="section" id="v{number}"><div class="head"><h2>{escape(one.strategy)}</h2>'
            f'<span class="soft">{one.asset_class.value}</span>{_badge(one)}</div>'
            f'<p class="soft small">{escape(chosen)}</p><div class="card verdict is-{tone}">{said}</div><div class="grid">{cards}</div>'
            f'<p class="soft small" style="margin-top:10px">data {one.data_hash[:16]} · code {one.code_hash[:16]} · seed {one.seed} · '
            f'submission {one.submissions}</p></section>')


def _card(title: str, inside: str, style: str = "", note: str = "") -> str:
    about = note if note.startswith("<") else f'<p class="key">{note}</p>' if note else ""
    return f'<div class="card {style}"><h3>{escape(title)}</h3>{about}{inside}</div>'


def _key(*entries: tuple[str, str]) -> str:
    return '<p class="key">' + "".join(f'<span><i class="{style}"></i>{escape(text)}</span>' for style, text in entries) + "</p>"


def _badge(one: Validation) -> str:
    return f'<span class="badge {TONES.get(one.verdict, "insufficient")}">{escape(one.verdict)}</span>'


# -- pictures ------------------------------------------------------------------------------------------------------------------------


def _days(first: int, values: Floats) -> Floats:
    return first + np.arange(len(values), dtype=np.float64)


def _equity(picture: Picture) -> str:
    if not len(picture.daily) and not len(picture.tested):
        return EMPTY
    x, y = _days(picture.first_day, picture.daily), np.cumsum(picture.daily)
    tx, ty = _days(picture.test_first_day, picture.tested), np.cumsum(picture.tested)
    across = charts.scale_of(x, tx, pad=0.0)
    up = charts.scale_of(y, ty, include=(0.0,))
    shades = [charts.band(w.test_from, w.test_until, across, "test") for w in picture.windows[::2]]
    upper = charts.frame([*shades, charts.line(x, y, across, up, "in"), charts.line(tx, ty, across, up, "out")], across, up,
                         below=charts.day_ticks(across), number="{:+.0%}" if up.high - up.low > 0.08 else "{:+.1%}", height="tall",
                         label="Cumulative net result as a fraction of notional")
    fall, test_fall = y - np.maximum.accumulate(np.maximum(y, 0.0)), ty - np.maximum.accumulate(np.maximum(ty, 0.0))
    down = charts.scale_of(fall, test_fall, include=(0.0,), pad=0.06)
    down = charts.Scale(down.low, 0.0)
    depths = [charts.area(x, fall, across, down, "fall-in"), charts.area(tx, test_fall, across, down, "fall-out")]
    lower = charts.frame(depths, across, down, below=(), number="{:.0%}" if down.low < -0.08 else "{:.1%}", height="low", label="Drawdown")
    return f'{upper}<h3 style="margin-top:8px">Drawdown</h3>{lower}'


def _luck(picture: Picture) -> str:
    null, observed = picture.null, picture.observed
    if not len(null) or not math.isfinite(observed):
        return EMPTY
    across = charts.scale_of(null, include=(observed, picture.null_limit), pad=0.06)
    edges, shares = charts.histogram(null, 48, across)
    up = charts.Scale(0.0, float(shares.max()) * 1.18)
    bars = [charts.box(low, high, 0.0, share, across, up, "bar beyond" if low >= picture.null_limit else "bar")
            for low, high, share in zip(edges[:-1], edges[1:], shares, strict=True) if share > 0.0]
    flags = [(observed, f"observed {observed:.2f}", "t-out")]
    if math.isfinite(picture.null_limit):
        bars.append(charts.upright(picture.null_limit, across, "mark-bad"))
        if abs(across.share(picture.null_limit) - across.share(observed)) > 0.3:
            flags.append((picture.null_limit, f"needed {picture.null_limit:.2f}", "t-bad"))
    bars.append(charts.upright(observed, across, "mark-out"))
    told = f'<p class="small soft">observed {observed:.2f}, needed {picture.null_limit:.2f}</p>' if len(flags) == 1 else ""
    return charts.frame(bars, across, up, below=[(value, f"{value:g}") for value in charts.ticks(across, 5)], number="{:.0%}",
                        label="Distribution of the best t under chance, and the observed one", flags=flags) + told


def rolling_sharpe(daily: Floats, periods: float, window: int) -> Floats:
    """Annual Sharpe of the `window` days up to each day; NaN before, and where nothing moved."""
    if window < 2 or len(daily) < window:
        return np.full(len(daily), np.nan)
    total, square = np.cumsum(np.r_[0.0, daily]), np.cumsum(np.r_[0.0, daily * daily])
    mean = (total[window:] - total[:-window]) / window
    variance = np.maximum(0.0, (square[window:] - square[:-window]) / window - mean * mean) * window / (window - 1)
    spread = np.sqrt(variance)
    found = np.full(len(daily), np.nan)
    found[window - 1:] = np.divide(mean, spread, out=np.full(len(mean), np.nan), where=spread > 1e-12) * math.sqrt(periods)
    return found


def _rolling(picture: Picture) -> str:
    window = round(ROLLING * 365.0)
    whole, tested = (rolling_sharpe(values, picture.periods, window) for values in (picture.daily, picture.tested))
    if not np.isfinite(whole).any() and not np.isfinite(tested).any():
        return EMPTY
    across = charts.scale_of(_days(picture.first_day, whole), _days(picture.test_first_day, tested), pad=0.0)
    up = charts.scale_of(whole, tested, include=(0.0,))
    return charts.frame([charts.line(_days(picture.first_day, whole), whole, across, up, "in"),
                         charts.line(_days(picture.test_first_day, tested), tested, across, up, "out")],
                        across, up, below=charts.day_ticks(across, 4), label="Rolling Sharpe ratio")


def _plateau(picture: Picture) -> str:
    """A map over the two parameters that matter most, and every set over each parameter."""
    sharpes = picture.sharpes
    if not len(sharpes) or not picture.sets:
        return EMPTY
    names = [name for name in picture.sets[0] if len({one[name] for one in picture.sets}) > 1]
    if not names:
        return f'<p class="small soft">One set only: Sharpe {sharpes[0]:.2f}.</p>'
    influence = {name: _spread(picture, name) for name in names}
    ordered = sorted(names, key=lambda name: -influence[name])
    up = charts.scale_of(sharpes, include=(0.0,), pad=0.08)
    minis = "".join(_mini(picture, name, up) for name in ordered)
    heat = _heat(picture, ordered[0], ordered[1]) if len(ordered) > 1 else ""
    return f'{heat}<div class="minis">{minis}</div>'


def _spread(picture: Picture, name: str) -> float:
    means = [np.nanmean(picture.sharpes[[one[name] == value for one in picture.sets]]) for value in {one[name] for one in picture.sets}]
    return float(np.ptp(np.nan_to_num(means)))


def _mini(picture: Picture, name: str, up: charts.Scale) -> str:
    values = sorted({one[name] for one in picture.sets})
    places = {value: number for number, value in enumerate(values)}
    across = charts.Scale(-0.5, len(values) - 0.5)
    points = [(places[one[name]], sharpe) for one, sharpe in zip(picture.sets, picture.sharpes, strict=True) if math.isfinite(sharpe)]
    inside = [charts.dots(points, across, up, "set")]
    if 0 <= picture.chosen < len(picture.sets) and math.isfinite(picture.sharpes[picture.chosen]):
        best = (float(places[picture.sets[picture.chosen][name]]), float(picture.sharpes[picture.chosen]))
        inside.append(charts.dots([best], across, up, "best"))
    drawn = charts.frame(inside, across, up, below=[(number, f"{value:g}") for value, number in places.items()], height="mini",
                         label=f"Sharpe by {name}")
    return f"<div><h4>{escape(name)}</h4>{drawn}</div>"


def _heat(picture: Picture, down: str, across: str) -> str:
    """Median Sharpe over all other parameters; the chosen set's cell is outlined."""
    rows, columns = (sorted({one[name] for one in picture.sets}) for name in (down, across))
    chosen = picture.sets[picture.chosen] if 0 <= picture.chosen < len(picture.sets) else None
    largest = float(np.nanmax(np.abs(picture.sharpes))) if np.isfinite(picture.sharpes).any() else 0.0
    lines = ""
    for row in rows:
        cells = ""
        for column in columns:
            inside = [s for one, s in zip(picture.sets, picture.sharpes, strict=True) if one[down] == row and one[across] == column]
            best = chosen is not None and chosen[down] == row and chosen[across] == column
            cells += f"<td>{_cell(float(np.median(inside)) if inside else math.nan, largest, '{:.2f}', best)}</td>"
        lines += f'<tr><th class="n">{row:g}</th>{cells}</tr>'
    head = "".join(f'<th style="text-align:center">{column:g}</th>' for column in columns)
    return (f'<div class="scroll"><table class="heat"><thead><tr><th class="n">{escape(down)} ↓ {escape(across)} →</th>{head}</tr></thead>'
            f"<tbody>{lines}</tbody></table></div>")


def _cell(value: float, largest: float, form: str, best: bool = False) -> str:
    if not math.isfinite(value):
        return '<div class="cell" style="--o:0">·</div>'
    shade = 0.1 + 0.55 * min(1.0, abs(value) / largest) if largest > 0.0 and value != 0.0 else 0.0
    return (f'<div class="cell{" minus" if value < 0.0 else ""}{" best" if best else ""}" style="--o:{shade:.2f}">'
            f"{form.format(value)}</div>")


def _trades(marks: Marks | None) -> str:
    if marks is None or not len(marks.at):
        return EMPTY
    at = marks.at.astype(np.float64) / DAY_MS
    across = charts.scale_of(at, pad=0.0)
    up = charts.scale_of(marks.close, marks.entry, marks.exit)
    begin, end = marks.entry_at / DAY_MS, marks.exit_at / DAY_MS
    inside = [charts.line(at, marks.close, across, up, "price")]
    for style, wanted in (("won", marks.net > 0.0), ("lost", ~(marks.net > 0.0))):
        starts = zip(begin[wanted], marks.entry[wanted], strict=True)
        inside.append(charts.segments(starts, zip(end[wanted], marks.exit[wanted], strict=True), across, up, style))
    for style, wanted in (("long", marks.side > 0), ("short", marks.side < 0)):
        inside.append(charts.dots(zip(begin[wanted], marks.entry[wanted], strict=True), across, up, style))
    key = _key(("k-good", "won (line), long entry (dot)"), ("k-bad", "lost (line), short entry (dot)"))
    return key + charts.frame(inside, across, up, below=charts.day_ticks(across), number="{:,.6g}", height="tall",
                              label=f"Price of {marks.symbol} with its trades")


def _months(picture: Picture) -> str:
    if not len(picture.tested):
        return EMPTY
    months: dict[tuple[int, int], float] = {}
    for day, value in enumerate(picture.tested, picture.test_first_day):
        date = datetime.fromtimestamp(day * 86_400, UTC)
        months[date.year, date.month] = months.get((date.year, date.month), 0.0) + 100.0 * float(value)
    largest = max(abs(value) for value in months.values())
    rows = ""
    for year in sorted({year for year, _ in months}):
        cells = "".join(f"<td>{_cell(months.get((year, month), math.nan), largest, '{:+.1f}')}</td>" for month in range(1, 13))
        total = sum(value for (of, _), value in months.items() if of == year)
        rows += f'<tr><th>{year}</th>{cells}<td>{_cell(total, 0.0, "{:+.1f}", False)}</td></tr>'
    head = "".join(f'<th style="text-align:center">{name}</th>' for name in (*MONTHS, "year"))
    return f'<div class="scroll"><table class="months"><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


# -- tables --------------------------------------------------------------------------------------------------------------------------


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], style: str = "") -> str:
    """Columns whose name begins with ">" are numbers. Cells are markup already."""
    head = "".join(f'<th{_n(name)}>{escape(name.removeprefix(">"))}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td{_n(name)}>{cell}</td>" for name, cell in zip(columns, row, strict=True)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table class="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _n(name: str) -> str:
    return ' class="n"' if name.startswith(">") else ""


def _sheet(lines: Sequence[Line]) -> str:
    def mark(line: Line) -> str:
        if not line.gate:
            return '<span class="soft">·</span>'
        return '<b class="yes">✓</b>' if line.passed else '<b class="no">✗</b>'

    return _table(("", "bar", ">measured", ">limit", "unit", ""), ((
        mark(line), escape(line.rule.replace("_", " ").lower()), _number(line.measured, 4), _number(line.limit, 4), escape(line.unit),
        f'<span class="soft small">{escape(line.note)}</span>') for line in lines), "sheet")


def _windows(picture: Picture) -> str:
    if not picture.windows:
        return EMPTY
    return _table(("judged on", ">in sample", ">out of sample", "chosen"), ((
        f"{_date(w.test_from)} to {_date(w.test_until - 1)}", _number(w.in_sample), _number(w.out_of_sample),
        '<span class="soft small">' + escape(", ".join(f"{name} {value:g}" for name, value in w.params.items())) + "</span>")
        for w in picture.windows))


def _instruments(picture: Picture) -> str:
    if not picture.instruments:
        return EMPTY
    return _table(("instrument", ">bars", "recorded", ">trades", ">net", ">Sharpe", ">fees", ">funding", "in a certificate"), ((
        escape(i.symbol), f"{i.bars:,}", f"{_date(i.begin // DAY_MS)} to {_date(i.end // DAY_MS)}", f"{i.trades:,}", f"{i.net:+.2%}",
        _number(i.sharpe), f"{i.fees:.2%}", f"{i.funding:+.2%}",
        ("yes" if i.certified else "no") + (f", {escape(i.note)}" if i.note else ""))
        for i in picture.instruments))


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%d")


def _number(value: Any, places: int = 2) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    value = float(value)
    if value == int(value) and (abs(value) >= 10.0 or places > 2):
        return f"{value:,.0f}"
    return f"{value:,.{places}f}" if abs(value) < 1000.0 else f"{value:,.1f}"


def _count(value: Any) -> str:
    return "–" if value is None else f"{value:,.0f}"
