"""How results are shown: one JSON document, or tables for people. Decides nothing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console

BLOCKS: Final = "▁▂▃▄▅▆▇█"
WIDTH_MIN: Final = 100
"""Tables are not squeezed below this where there is no terminal to fit into."""


def emit(arguments: argparse.Namespace, document: Mapping[str, Any], show: Callable[[Console, Mapping[str, Any]], None]) -> None:
    """Print `document` as JSON if asked to, else as `show` draws it."""
    if arguments.json:
        print(json.dumps(document, ensure_ascii=False))
    else:
        show(console(), document)


def console() -> Console:
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=max(WIDTH_MIN, 160), no_color=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Any:
    """A rich table; columns whose name begins with ">" are aligned right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))  # Text: symbols are never markup
    return made


def money(value: Decimal | str | None, places: int = 2) -> str:
    """"1,234.50"; an unknown amount is a dash."""
    return "-" if value is None else f"{Decimal(value):,.{places}f}"


def signed(value: Decimal | str | None, places: int = 2) -> str:
    return "-" if value is None else f"{Decimal(value):+,.{places}f}"


def percent(fraction: float | Decimal | str | None, places: int = 2) -> str:
    return "-" if fraction is None else f"{float(fraction) * 100:.{places}f} %"


def number(value: Any) -> str:
    """A measured value or a limit, short."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{float(value):,.6g}" if abs(float(value)) < 1e15 else f"{float(value):.6g}"


def picture(values: Sequence[float], width: int = 60) -> str:
    """An equity curve as one line of blocks, lowest to highest of its own range."""
    if not values:
        return ""
    step = max(1.0, len(values) / width)
    picked = [values[min(len(values) - 1, int(index * step))] for index in range(min(width, len(values)))]
    picked[-1] = values[-1]
    low, high = min(picked), max(picked)
    if high == low:
        return BLOCKS[3] * len(picked)
    return "".join(BLOCKS[min(7, int((value - low) / (high - low) * 8))] for value in picked)


def table_of_checks(checks: Iterable[Mapping[str, Any]]) -> Any:
    """Every check with measured and limit."""
    return table("", ("", "rule", ">measured", ">limit", "unit", "note"), (
        ("ok" if check["passed"] else "NO", check["rule"], number(check["measured"]), number(check["limit"]), check["unit"],
         check.get("note", "")) for check in checks))
