"""Small verbs: version, show-config, the lists, new-strategy, logs."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modules.cli.output import emit, table
from modules.domain.errors import NotFound

if TYPE_CHECKING:
    from rich.console import Console

ROOT: Final = Path(__file__).resolve().parents[2]
FOLLOW_S: Final = 0.25
ENCODING: Final = "utf-8"


def version(arguments: argparse.Namespace) -> int:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding=ENCODING))["project"]
    emit(arguments, {"name": project["name"], "version": project["version"], "python": sys.version.split()[0]},
         lambda out, d: out.print(f"{d['name']} {d['version']} (Python {d['python']})", markup=False))
    return 0


def show_config(arguments: argparse.Namespace) -> int:
    from modules.cli import inputs
    from modules.domain.settings import plain

    settings, policies = inputs.settings_and_policies(arguments, mode=arguments.mode)
    document: dict[str, Any] = {"settings": settings.public(), "policy_hash": policies.hash}
    if arguments.policies:
        document["policies"] = plain(policies.model_dump(exclude={"hash"}))
    emit(arguments, document, _show_config)
    return 0


def _show_config(out: Console, document: Mapping[str, Any]) -> None:
    for section in ("settings", "policies"):
        if section in document:
            out.print(table(section, ("key", "value"), _leaves(document[section])))
    out.print(f"policy hash {document['policy_hash']}", markup=False)


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        shown = ", ".join(map(str, tree)) if isinstance(tree, list) else "" if tree is None or tree == {} else str(tree)
        yield path, shown


def list_strategies(arguments: argparse.Namespace) -> int:
    from modules.strategies import registry

    document = {
        "strategies": [{"name": s.name, "description": s.description, "asset_classes": [c.value for c in s.asset_classes],
                        "structure": s.structure.value, "warmup": s.warmup, "params": s.params._asdict(),
                        "space": {name: list(values) for name, values in s.space.items()}} for s in registry.all_strategies().values()],
        "quarantined": list(registry.faults()),
    }
    emit(arguments, document, _show_strategies)
    return 0


def _show_strategies(out: Console, document: Mapping[str, Any]) -> None:
    out.print(table("", ("strategy", "classes", "structure", "what it does"), (
        (s["name"], ", ".join(s["asset_classes"]), s["structure"], s["description"]) for s in document["strategies"])))
    for fault in document["quarantined"]:
        out.print(f"quarantined: {fault}", markup=False)


def new_strategy(arguments: argparse.Namespace) -> int:
    from modules.cli.new_strategy import create

    paths = create(arguments.name, ROOT)
    emit(arguments, {"files": [str(path.relative_to(ROOT)) for path in paths]},
         lambda out, d: out.print("wrote " + " and ".join(d["files"]) + "; run its test, then: python main.py demo", markup=False))
    return 0


# -- logs --------------------------------------------------------------------------------------------------------------


def logs(arguments: argparse.Namespace) -> int:
    """The last lines; with -f also those to come, when the file is rotated too. Ends with Ctrl-C."""
    from modules.cli import inputs

    path = inputs.settings_only(arguments).log_dir / "trading_bot.json"
    if not path.exists() and not arguments.follow:
        raise NotFound(f"no log at {path} yet")
    for line in _tail(path, arguments.n, arguments.follow):
        sys.stdout.write(line)
        sys.stdout.flush()
    return 0


def _tail(path: Path, count: int, follow: bool) -> Iterator[str]:
    handle = None
    try:
        if path.exists():
            handle = path.open(encoding=ENCODING, errors="replace")
            yield from deque(handle, maxlen=count)
        pending = ""
        while follow:
            if handle is not None and (part := handle.readline()):
                pending += part
                if pending.endswith("\n"):
                    yield pending
                    pending = ""
                continue
            if _replaced(path, handle):
                if handle is not None:
                    handle.close()
                handle, pending = path.open(encoding=ENCODING, errors="replace"), ""
                continue
            time.sleep(FOLLOW_S)
    finally:
        if handle is not None:
            handle.close()


def _replaced(path: Path, handle: Any) -> bool:
    """Whether the name now means another file than the one we read, or the same one cut short."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    if handle is None:
        return True
    mine = os.fstat(handle.fileno())
    return (mine.st_ino, mine.st_dev) != (found.st_ino, found.st_dev) or found.st_size < handle.tell()
