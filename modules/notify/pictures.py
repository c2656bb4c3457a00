"""Equity curves and results as PNG, for a phone. Pure, and far too slow (tens of milliseconds) for the daemon's loop.

`drawn` has a child process of low priority draw: a thread would share the interpreter's lock with trading, and the daemon never holds
Pillow. `python -m modules.notify.pictures KIND` is that child: a document as JSON in, a PNG out.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modules.domain.errors import OperatorRefused

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

WIDTH: Final = 900
PANEL: Final = 260
MARGIN: Final = 24
GUTTER: Final = 110
"""Room on the right for the numbers."""
BAR: Final = 30
BARS_MAX: Final = 24
INK, SOFT, PAPER, GRID = "#1c2430", "#66717f", "#ffffff", "#e3e7ec"
LINE, FALL = "#0067a5", "#f6c9b8"
GAIN, LOSS = "#1b7f79", "#b5482a"
"""Told apart by people who see no red or green too, and bars by their side."""


DRAW_S: Final = 30.0
"""How long a picture may take."""
ROOT: Final = Path(__file__).resolve().parents[2]
PNG: Final = b"\x89PNG"


async def drawn(kind: str, document: Mapping[str, Any]) -> bytes:
    """`equity` or `performance` of `document`, drawn by a child. Raises OperatorRefused if it cannot be had."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "modules.notify.pictures", kind, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(DRAW_S):
            picture, _ = await child.communicate(json.dumps(document).encode())
    except TimeoutError:
        picture = b""
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if not picture.startswith(PNG):
        raise OperatorRefused("the picture could not be drawn; the figures are in /profit and /performance")
    return picture


def equity(document: Mapping[str, Any]) -> bytes:
    """One panel per class that has two points or more: equity as a line, how far below its peak as an area, the result in percent.

    Points are [at, equity, daily drawdown, monthly drawdown, value of a unit]."""
    from PIL import Image, ImageDraw

    shown = [(name, c) for name, c in document["classes"].items() if len(c["points"]) > 1]
    image = Image.new("RGB", (WIDTH, max(1, len(shown)) * PANEL), PAPER)
    draw = ImageDraw.Draw(image)
    if not shown:
        draw.text((MARGIN, PANEL // 2), "No equity was recorded in this time yet.", fill=SOFT, font=_font(22))
    for index, (name, c) in enumerate(shown):
        _panel(draw, index * PANEL, name, c["currency"], c["points"])
    return _png(image)


def _panel(draw: ImageDraw, top: int, name: str, currency: str, points: Sequence[Sequence[float]]) -> None:
    left, right, high_y, low_y = MARGIN, WIDTH - GUTTER, top + 58, top + PANEL - 36
    begin, end = points[0][0], points[-1][0]
    values = [point[1] for point in points]
    low, high = min(values), max(values)
    spread = (high - low) or max(abs(high), 1.0) * 0.001

    def place(at: float, value: float) -> tuple[float, float]:
        return left + (at - begin) / max(1.0, end - begin) * (right - left), low_y - (value - low) / spread * (low_y - high_y)

    line = [place(point[0], point[1]) for point in points]
    peaks, peak = [], values[0]
    for point in points:
        peak = max(peak, point[1])
        peaks.append(place(point[0], peak))
    for y in (high_y, low_y):
        draw.line((left, y, right, y), fill=GRID, width=1)
    draw.polygon([*line, *reversed(peaks)], fill=FALL)
    draw.line(line, fill=LINE, width=3, joint="curve")
    worth = [point[4] for point in points]    # of a unit: deposits and withdrawals are no result
    change = worth[-1] / worth[0] - 1.0 if worth[0] else 0.0
    draw.text((left, top + 14), f"{name}  {values[-1]:,.2f} {currency}", fill=INK, font=_font(24))
    told = f"{change:+.2%}, worst {max(point[2] for point in points):.2%} below the day's peak"
    draw.text((right, top + 18), told, fill=SOFT, font=_font(18), anchor="ra")
    draw.text((right + 8, high_y), f"{high:,.0f}" if high - low > 20 else f"{high:,.2f}", fill=SOFT, font=_font(16), anchor="lm")
    draw.text((right + 8, low_y), f"{low:,.0f}" if high - low > 20 else f"{low:,.2f}", fill=SOFT, font=_font(16), anchor="lm")
    for at, x, anchor in ((begin, left, "la"), (end, right, "ra")):
        draw.text((x, low_y + 8), f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M}", fill=SOFT, font=_font(16), anchor=anchor)


def performance(document: Mapping[str, Any]) -> bytes:
    """Net result per strategy and instrument as bars to the right (gain) or left (loss); beyond BARS_MAX the best and the worst."""
    from PIL import Image, ImageDraw

    rows = list(document["rows"])
    if len(rows) > BARS_MAX:
        rows = rows[: BARS_MAX // 2] + rows[-BARS_MAX // 2:]
    image = Image.new("RGB", (WIDTH, MARGIN * 2 + 44 + BAR * max(1, len(rows))), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, 16), "Net result per strategy and instrument", fill=INK, font=_font(24))
    nets = [float(row["net"]) for row in rows]
    largest = max((abs(net) for net in nets), default=0.0) or 1.0
    middle, reach = 620, 170
    for index, (row, net) in enumerate(zip(rows, nets, strict=True)):
        y = MARGIN + 44 + index * BAR
        length = max(1.0, abs(net) / largest * reach)
        box = (middle, y, middle + length, y + BAR - 8) if net >= 0 else (middle - length, y, middle, y + BAR - 8)
        draw.rectangle(box, fill=GAIN if net >= 0 else LOSS)
        label = f"{row['strategy']} {row['symbol']}"[:36]
        draw.text((MARGIN, y), f"{label} ({row['trades']})", fill=INK, font=_font(17))
        draw.text((WIDTH - MARGIN, y), f"{net:+,.2f}", fill=INK, font=_font(17), anchor="ra")
    return _png(image)


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _png(image: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=4)
    return out.getvalue()


def main() -> None:
    os.nice(10)
    draw = {"equity": equity, "performance": performance}[sys.argv[1]]
    sys.stdout.buffer.write(draw(json.load(sys.stdin.buffer)))


if __name__ == "__main__":
    main()


__all__ = ["drawn", "equity", "performance"]
