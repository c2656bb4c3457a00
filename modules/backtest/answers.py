"""What validation's child processes print, read with suspicion: output that is not such a document says nothing. Pure."""

from __future__ import annotations

import json
from typing import Any, Final

from modules.domain.certificate import Certificate
from modules.domain.instrument import AssetClass

_ROW: Final = {"strategy": str, "compared": int, "different": int, "first": str, "why_not": str}


def drift_rows(output: bytes) -> list[dict[str, Any]] | None:
    """What `drift --json` printed; None if that is no such document."""
    try:
        rows = json.loads(output)["strategies"]
        for row in rows:
            AssetClass(row["asset_class"])
            if not all(isinstance(row[name], kind) for name, kind in _ROW.items()):
                return None
    except (ValueError, TypeError, KeyError):
        return None
    found: list[dict[str, Any]] = rows
    return found


def verdict_on(output: bytes, found: Certificate) -> tuple[str, str]:
    """(verdict, what is missing) about this strategy and class in the document `validate --json` prints, or in one verdict of it; ("", "")
    if there is none. What the invented demo market says is no verdict on a certificate: that was earned on recorded history."""
    try:
        tree = json.loads(output)
    except ValueError:
        return "", ""
    if isinstance(tree, dict) and tree.get("demo"):
        return "", ""
    inner = tree.get("verdicts", tree) if isinstance(tree, dict) else tree
    for one in inner if isinstance(inner, list) else [inner]:
        if isinstance(one, dict) and (one.get("strategy"), one.get("asset_class")) == (found.strategy, found.asset_class.value):
            return str(one.get("verdict", "")).replace(" ", "_"), str(one.get("missing", ""))[:300]
    return "", ""
