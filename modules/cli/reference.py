"""docs/configuration.md and docs/commands.md, made from the models and the grammar that are in force, so that they cannot be wrong.

    python -m modules.cli.reference docs

A test makes them again and compares. The words are the models' own docstrings, read from their source.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from modules.cli import arguments as grammar
from modules.domain import policies, settings
from modules.domain.settings import plain

ROOT: Final = Path(__file__).resolve().parents[2]
KINDS: Final = {"Fraction": "fraction 0-1", "Share": "fraction 0-1", "Money": "amount", "Positive": "above 0",
                "Multiple": "0-100 times", "Fee": "-1 to 1", "Count": "whole number",
                "Seconds": "seconds", "Amount": "0 or more", "BasisPoints": "basis points"}
SETTINGS_INTRO: Final = """# Configuration

Settings say where and how to run; policies say what the owner decides. Precedence: command line, then environment
(`BOT__SECTION__KEY`, e.g. `BOT__HTTP__PORT=8081`), then `.env`, then the files given with `-c` (else `config.toml`), then the defaults
below. Unknown keys are errors, all faults are reported at once, and `python main.py show-config --policies` prints what is in force with
secrets as `***`. With no settings file at all the daemon trades the embedded demo market on paper.

This page is made by `python -m modules.cli.reference docs` from the program's own models.

## Settings (`config.toml`)
"""
POLICIES_INTRO: Final = """
## Policies (`policies/*.json`)

Fractions are fractions: `0.05` is 5 %. A value above 1 is refused with "did you mean 0.05?". No risk limit has a default in the program: a
missing key is an error. `SIGHUP` reloads: a tighter set takes effect at once, a looser one needs a restart, a faulty one changes nothing.
The values below are the shipped ones.
"""
COMMANDS_INTRO: Final = """# Commands

`python main.py VERB`. Exit codes: 0 ok, 1 failed, 2 not found, 3 daemon not running, 4 configuration or policy error, 5 time-out. Every
verb takes `-c FILE` (repeatable, the last wins) and `-v`; those that print a result take `--json`: one document on stdout, logs go to
stderr and the log file. A shell completes verbs and options after `source <(python main.py completion bash)`.

This page is made by `python -m modules.cli.reference docs` from the program's own grammar.
"""


def words(model: type[BaseModel]) -> dict[str, str]:
    """Field -> the docstring below it, of this class and those it is made of."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not issubclass(owner, BaseModel) or owner is BaseModel:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, after in zip(body.body, [*body.body[1:], None], strict=True):
            if (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and isinstance(after, ast.Expr)
                    and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)):
                found[statement.target.id] = " ".join(after.value.value.split())
    return found


def kinds(model: type[BaseModel]) -> dict[str, str]:
    """Field -> the type as its author wrote it."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        found |= {name: annotation for name, annotation in inspect.get_annotations(owner).items() if isinstance(annotation, str)}
    return found


def _kind(annotation: str) -> str:
    for name, said in KINDS.items():
        if annotation == name or annotation.startswith(f"Annotated[{name},"):
            return said
    return ""


def inner(annotation: Any) -> type[BaseModel] | None:
    """The model a field holds, itself, optional or as the values of a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Annotated, Union, UnionType, dict, tuple):
        for part in get_args(annotation):
            model = inner(part)
            if model is not None:
                return model
    return None


def sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every table of a settings file with its model, the top one first."""
    yield path, model
    for name, field in model.model_fields.items():
        held = inner(field.annotation)
        if held is not None:
            many = get_origin(field.annotation) is dict
            yield from sections(held, f"{path}.{name}".lstrip(".") + (".NAME" if many else ""))


def _said(value: Any) -> str:
    if value is PydanticUndefined:
        return "**required**"
    shown = plain(value)
    return "-" if shown in (None, "", [], {}) else f"`{json.dumps(shown, ensure_ascii=False)}`".replace("|", "\\|")


def _type(annotation: Any, written: str) -> str:
    if kind := _kind(written):
        return kind
    if get_origin(annotation) is Annotated:
        return _type(get_args(annotation)[0], "")
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(_type(part, "") for part in get_args(annotation) if part is not NoneType)
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{part}`" for part in get_args(annotation))
    if get_origin(annotation) is tuple:
        return "list"
    if get_origin(annotation) is dict:
        return "table"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "Path": "file or folder",
            "SecretStr": "secret text"}.get(getattr(annotation, "__name__", ""), getattr(annotation, "__name__", "").lower())


def configuration() -> str:
    lines = [SETTINGS_INTRO]
    for path, model in sections(settings.Settings, ""):
        about = (model.__doc__ or "").strip().split("\n")[0]
        lines.append(f"### `[{path}]`\n" if path else "### Top of the file\n")
        if path and about:
            lines.append(f"{about}\n")
        lines += ["| key | what | default | meaning |", "|---|---|---|---|"]
        texts, written = words(model), kinds(model)
        for name, field in model.model_fields.items():
            if inner(field.annotation) is None:
                default = field.get_default(call_default_factory=True)
                lines.append(f"| `{name}` | {_type(field.annotation, written.get(name, ''))} | {_said(default)} | {texts.get(name, '')} |")
        lines.append("")
    lines.append(POLICIES_INTRO)
    for file in sorted((ROOT / "policies").glob("*_policy.json")):
        model = _policy_model(file.stem)
        about = re.sub(r"policies/\S+\.json|\(domain\.md[^)]*\)", "", (model.__doc__ or "").split("\n")[0]).strip(" :.")
        lines += [f"### `{file.name}`\n", *([f"{about[0].upper()}{about[1:]}.\n"] if about else [])]
        lines += ["| key | what | shipped | meaning |", "|---|---|---|---|"]
        lines += _policy_rows(model, json.loads(file.read_text(encoding="utf-8")), "")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _policy_model(stem: str) -> type[BaseModel]:
    """sizing_policy -> SizingPolicy; cost_policy -> CostPolicy."""
    found: type[BaseModel] = getattr(policies, "".join(part.capitalize() for part in stem.split("_")))
    return found


def _policy_rows(model: type[BaseModel], shipped: dict[str, Any], path: str) -> Iterator[str]:
    texts, written = words(model), kinds(model)
    for name, field in model.model_fields.items():
        value = shipped.get(name)
        held = inner(field.annotation)
        if held is not None and isinstance(value, dict) and not isinstance(next(iter(value.values()), None), dict):
            yield from _policy_rows(held, value, f"{path}{name}.")
        else:
            yield f"| `{path}{name}` | {_type(field.annotation, written.get(name, ''))} | {_said(value)} | {texts.get(name, '')} |"


def commands() -> str:
    _, verbs = grammar.parser()
    lines = [COMMANDS_INTRO]
    done = set()
    for parser in verbs.values():
        if id(parser) in done:
            continue
        done.add(id(parser))
        names = [name for name, other in verbs.items() if other is parser]
        lines.append(f"## `{names[0]}`" + (f" (also `{'`, `'.join(names[1:])}`)" if names[1:] else "") + "\n")
        lines.append(f"{(parser.description or '').strip()}.\n")
        rows = []
        for action in parser._actions:
            if action.dest in ("help", "config", "verbose", "json"):
                continue
            name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
            value = f" {action.metavar}" if action.option_strings and action.metavar and action.nargs != 0 else ""
            choices = f"one of {', '.join(map(str, action.choices))}" if action.choices else ""
            said = "; ".join(part for part in (action.help or "", choices) if part)
            rows.append(f"| `{name}{value}` | {said} |".replace("*", "\\*"))
        if rows:
            lines += ["| argument | meaning |", "|---|---|", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        print("usage: python -m modules.cli.reference FOLDER", file=sys.stderr)
        return 4
    for name, text in (("configuration.md", configuration()), ("commands.md", commands())):
        (Path(argv[0]) / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
