"""Charts as HTML with inline SVG: they stretch with the page while lines keep their width and text its size. Numbers in, markup out; pure.

An SVG fills its frame without keeping its shape (`preserveAspectRatio="none"`), so nothing in it may be text or round; labels are HTML
around it, and dots are lines of no length with round ends. Colors are the style sheet's, so that dark mode needs no second drawing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from modules.backtest.validation import Floats

POINTS_MAX: Final = 700
"""More points than a screen has columns are not seen."""
WIDTH: Final = 1000.0
HEIGHT: Final = 300.0


class Scale(NamedTuple):
    low: float
    high: float

    def share(self, value: float) -> float:
        """0 at `low`, 1 at `high`."""
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5


def scale_of(*values: Floats, include: Sequence[float] = (), pad: float = 0.04) -> Scale:
    """Covers every finite value, with a little air; never of no height."""
    known = np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in (*values, np.asarray(include, dtype=np.float64))])
    known = known[np.isfinite(known)]
    if known.size == 0:
        return Scale(0.0, 1.0)
    low, high = float(known.min()), float(known.max())
    air = pad * (high - low) if high > low else abs(high) * 0.1 or 1.0
    return Scale(low - air, high + air)


def ticks(scale: Scale, about: int = 4) -> list[float]:
    """Round numbers inside the scale."""
    span = scale.high - scale.low
    if not span > 0.0 or not math.isfinite(span):
        return []
    step = 10.0 ** math.floor(math.log10(span / about))
    step *= next((factor for factor in (1.0, 2.0, 5.0, 10.0) if span / (step * factor) <= about + 0.5), 10.0)
    first = math.ceil(scale.low / step)
    return [step * number for number in range(first, math.floor(scale.high / step) + 1)]


def day_ticks(scale: Scale, about: int = 6) -> list[tuple[float, str]]:
    """Beginnings of years or months (UTC day numbers) with their names."""
    begin, end = (datetime.fromtimestamp(day * 86_400.0, UTC) for day in (scale.low, scale.high))
    months = (end.year - begin.year) * 12 + end.month - begin.month
    every = next((step for step in (1, 2, 3, 6, 12, 24, 60, 120) if months / step <= about), 240)
    found = []
    for number in range(begin.year * 12 + begin.month - 1, end.year * 12 + end.month):
        if number % every == 0:
            first = datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)
            day = first.timestamp() / 86_400.0
            if scale.low <= day <= scale.high:
                found.append((day, first.strftime("%Y") if every >= 12 else first.strftime("%b %Y" if number % 12 == 0 else "%b")))
    if not found:
        found = [(scale.low, begin.strftime("%d %b")), (scale.high, end.strftime("%d %b"))]
    return found


def thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most POINTS_MAX points that keep every column's lowest and highest value."""
    if len(x) <= POINTS_MAX:
        return x, y
    edges = np.linspace(0, len(x), POINTS_MAX // 2 + 1).astype(int)
    keep: list[int] = []
    for start, stop in pairwise(edges):
        part = y[start:stop]
        keep += sorted({start + int(np.argmin(part)), start + int(np.argmax(part))})
    return x[keep], y[keep]


def _place(point: tuple[float, float], across: Scale, up: Scale) -> str:
    return f"{across.share(point[0]) * WIDTH:.1f} {(1.0 - up.share(point[1])) * HEIGHT:.1f}"


def _points(x: Iterable[float], y: Iterable[float], across: Scale, up: Scale) -> str:
    return " ".join(f"{across.share(a) * WIDTH:.1f},{(1.0 - up.share(b)) * HEIGHT:.1f}" for a, b in zip(x, y, strict=True))


def line(x: Floats, y: Floats, across: Scale, up: Scale, style: str) -> str:
    """A curve; `style` is a class of the style sheet."""
    known = np.isfinite(y)
    x, y = thinned(x[known], y[known])
    return f'<polyline class="{style}" points="{_points(x, y, across, up)}"/>' if len(x) else ""


def area(x: Floats, y: Floats, across: Scale, up: Scale, style: str, base: float = 0.0) -> str:
    """A curve filled down (or up) to `base`."""
    x, y = thinned(x, y)
    if not len(x):
        return ""
    return f'<polygon class="{style}" points="{_points((x[0], *x, x[-1]), (base, *y, base), across, up)}"/>'


def band(start: float, end: float, across: Scale, style: str) -> str:
    """A background over all the height."""
    left, right = (min(1.0, max(0.0, across.share(value))) * WIDTH for value in (start, end))
    return f'<rect class="{style}" x="{left:.1f}" y="0" width="{right - left:.1f}" height="{HEIGHT:g}"/>'


def box(start: float, end: float, low: float, high: float, across: Scale, up: Scale, style: str) -> str:
    left, right, top = across.share(start) * WIDTH, across.share(end) * WIDTH, (1.0 - up.share(high)) * HEIGHT
    return (f'<rect class="{style}" x="{left:.1f}" y="{top:.1f}" width="{max(0.5, right - left):.1f}" '
            f'height="{max(0.0, (1.0 - up.share(low)) * HEIGHT - top):.1f}"/>')


def upright(at: float, across: Scale, style: str) -> str:
    place = across.share(at) * WIDTH
    return f'<path class="{style}" d="M{place:.1f} 0V{HEIGHT:g}"/>'


def level(value: float, up: Scale, style: str) -> str:
    place = (1.0 - up.share(value)) * HEIGHT
    return f'<path class="{style}" d="M0 {place:.1f}H{WIDTH:g}"/>'


def segments(starts: Iterable[tuple[float, float]], ends: Iterable[tuple[float, float]], across: Scale, up: Scale, style: str) -> str:
    """Straight lines from point to point, one path for all."""
    path = "".join(f"M{_place(start, across, up)}L{_place(end, across, up)}" for start, end in zip(starts, ends, strict=True))
    return f'<path class="{style}" d="{path}"/>' if path else ""


def dots(points: Iterable[tuple[float, float]], across: Scale, up: Scale, style: str) -> str:
    path = "".join(f"M{_place(point, across, up)}h0" for point in points)
    return f'<path class="dot {style}" d="{path}"/>' if path else ""


def frame(inside: Sequence[str], across: Scale, up: Scale, *, below: Sequence[tuple[float, str]], number: str = "{:g}",
          height: str = "", label: str = "", flags: Sequence[tuple[float, str, str]] = ()) -> str:
    """Axes, grid and labels around drawings. `number` formats the left axis; `flags` are words above uprights: (x, text, class)."""
    marks = ticks(up)
    grid = "".join(level(value, up, "zero" if value == 0.0 else "rung") for value in marks)
    left = "".join(f'<span style="top:{(1.0 - up.share(value)) * 100:.2f}%">{escape(number.format(value))}</span>' for value in marks)
    bottom = "".join(f'<span style="left:{across.share(place) * 100:.2f}%"{_edge(across.share(place))}>{escape(text)}</span>'
                     for place, text in below)
    words = "".join(f'<b class="{style}" style="left:{across.share(place) * 100:.2f}%"{_edge(across.share(place))}>{escape(text)}</b>'
                    for place, text, style in flags)
    return (f'<div class="chart {height}"><div class="left">{left}</div><div class="plot">{words}<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" '
            f'preserveAspectRatio="none" role="img" aria-label="{escape(label)}">{grid}{"".join(inside)}</svg></div>'
            f'<div class="below">{bottom}</div></div>')


def _edge(share: float) -> str:
    """Labels at the ends lean inwards."""
    return ' class="first"' if share < 0.03 else ' class="last"' if share > 0.95 else ""


def histogram(values: Floats, bins: int, across: Scale) -> tuple[Floats, Floats]:
    """Edges and shares of `values` over the scale."""
    counts, edges = np.histogram(values, bins=bins, range=(across.low, across.high))
    return edges, counts / max(1, values.size)
