"""Settings (where and how to run) and policies (what the owner decides): one load that reports every fault at once.

Precedence: command line > environment `BOT__SECTION__KEY` > `.env` > config files (last wins, merged key by key) > defaults.
Refuses by ConfigurationError, one line per fault: file, key = value, what is allowed. Secrets are files, or SecretStr from the
environment; no fault and no listing ever prints one. `tighter` tells which policy changes loosen a limit.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from modules.domain.errors import ConfigurationError
from modules.domain.instrument import AssetClass
from modules.domain.policies import (
    CostPolicy,
    ExecutionPolicy,
    FundsPolicy,
    KillSwitchPolicy,
    LearningPolicy,
    NewsPolicy,
    Policies,
    RiskPolicy,
    SizingPolicy,
    ValidationPolicy,
    VersionedPolicy,
)
from modules.domain.settings import DEMO_WALLETS, Settings, VenueSettings, plain
from modules.domain.tightening import LOOSER, Looser, tighter

__all__ = ["DEMO_WALLETS", "LOOSER", "Looser", "Settings", "VenueSettings", "load", "load_policies", "load_settings", "tighter"]

POLICY_FILES: Final[Mapping[str, type[VersionedPolicy]]] = {
    "sizing": SizingPolicy, "risk": RiskPolicy, "kill_switch": KillSwitchPolicy, "execution": ExecutionPolicy, "costs": CostPolicy,
    "funds": FundsPolicy, "news": NewsPolicy, "learning": LearningPolicy, "validation": ValidationPolicy,
}
"""Field of Policies -> its model; the file is FIELD_policy.json, cost_policy.json for the costs."""

FILE_BYTES_MAX: Final = 1_000_000
NESTING_MAX: Final = 16
LENIENT_TRIES: Final = 4
"""What one fault hides shows when it is taken out; a settings file has few levels."""
FAULTS_MAX: Final = 100
"""Per file; the rest is counted."""
_PREFIX: Final = "BOT__"
_SECRET: Final = re.compile(r"(token|secret|password|passphrase|(^|_)key)$", re.IGNORECASE)
_CLASS_NAMES: Final = frozenset(asset_class.value for asset_class in AssetClass)

Tree = dict[str, Any]
Key = tuple[str, ...]


# -- reading files, strictly ---------------------------------------------------------------------------------------------


class _Object(dict[str, Any]):
    """A JSON object that remembers the keys it was given twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice = sorted(key for key, times in Counter(key for key, _ in pairs).items() if times > 1) if len(pairs) > len(self) else []


def _duplicates(value: object, path: Key = ()) -> Iterator[Key]:
    if isinstance(value, _Object):
        yield from ((*path, key) for key in value.twice)
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _duplicates(item, (*path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _duplicates(item, (*path, str(index)))


def _too_deep(tree: object) -> bool:
    """Level by level, so that depth itself can do no harm here or later."""
    level: list[object] = [tree]
    for _ in range(NESTING_MAX):
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())]
    return bool(level)


def _json(content: str) -> Any:
    """Numbers stay exact (Decimal); NaN and Infinity become Decimals that no field takes. Too deep raises RecursionError."""
    tree = json.loads(content, object_pairs_hook=_Object, parse_float=Decimal, parse_constant=Decimal)
    if _too_deep(tree):
        raise RecursionError
    return tree


def _toml(content: str) -> Tree:
    tree = tomllib.loads(content, parse_float=Decimal)
    if _too_deep(tree):
        raise RecursionError
    return tree


def _read(path: Path, faults: list[str]) -> Tree | None:
    """The tree in a .json or .toml file, or None with the reason in `faults`. A byte order mark is forgiven."""
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            faults.append(f"{path}: has {size:,} bytes, at most {FILE_BYTES_MAX:,} are allowed; is it the right file?")
            return None
        content = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, _names(path.parent), 1)
        faults.append(f"{path}: is missing" + (f"; did you mean {near[0]}?" if near else f"; it must exist in {path.parent.absolute()}"))
        return None
    except UnicodeDecodeError as error:
        faults.append(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8")
        return None
    except OSError as error:
        faults.append(f"{path}: cannot be read: {error.strerror}; check its kind and its rights")
        return None
    if not content.strip() and path.suffix != ".toml":
        faults.append(f"{path}: is empty; it must hold one JSON object")
        return None
    try:
        tree = _toml(content) if path.suffix == ".toml" else _json(content)
    except RecursionError:
        faults.append(f"{path}: is nested too deeply; at most {NESTING_MAX} levels are read")
        return None
    except json.JSONDecodeError as error:
        faults.append(f"{path}: line {error.lineno} column {error.colno}: is not JSON: {error.msg}")
        return None
    except (ValueError, ArithmeticError) as error:    # TOML errors; integers or exponents beyond any number
        faults.append(f"{path}: is not {'TOML' if path.suffix == '.toml' else 'JSON'}: {_short(str(error))}")
        return None
    if not isinstance(tree, dict):
        faults.append(f"{path}: must hold one JSON object {{...}}, not {_short(_text(tree))}")
        return None
    faults.extend(_limited(str(path), [f"{path}: {_name(key)}: is given twice; keep one of them" for key in _duplicates(tree)]))
    return tree


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []


# -- faults, in words ------------------------------------------------------------------------------------------------------


def _short(shown: str) -> str:
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _name(path: Key) -> str:
    return _short(".".join(path))


def _text(value: object) -> str:
    """A value as its file shows it, on one line."""
    try:
        return json.dumps(plain(value), ensure_ascii=True, default=str)
    except (RecursionError, ArithmeticError):
        return f"a {type(value).__name__}"


def _shown(path: Key, value: object) -> str:
    if any(_SECRET.search(part) for part in path) or (isinstance(value, dict) and any(_SECRET.search(str(key)) for key in value)):
        return "***"
    return _short(_text(value))


def _fields(model: type[BaseModel], path: Key) -> list[str]:
    """Keys that are allowed in the section at `path` of `model`."""
    section: type[BaseModel] | None = model
    for part in path:
        annotation = section.model_fields[part].annotation if section is not None and part in section.model_fields else None
        if section is not None and annotation is not None:
            section = _section_in(annotation)
    return sorted(section.model_fields) if section is not None else []


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds: itself, or as an optional, or as the values of a dict."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := _section_in(argument)) is not None), None)


def _sentence(error: ErrorDetails, model: type[BaseModel], path: Key) -> str:
    """What is wrong and what is allowed."""
    match error["type"]:
        case "missing":
            return "is missing; it has no default and must be given"
        case "extra_forbidden":
            allowed = _fields(model, path[:-1])
            near = difflib.get_close_matches(path[-1].lower(), allowed, 1)
            more = f" and {len(allowed) - 8} more" if len(allowed) > 8 else ""
            return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; allowed are {', '.join(allowed[:8])}{more}"
        case "value_error":
            return str(error["ctx"]["error"])
        case "finite_number":
            return "must be a finite number"
    return error["msg"].replace("Input should be", "must be")


def _limited(origin: str, faults: Sequence[str]) -> list[str]:
    more = len(faults) - FAULTS_MAX
    return [*faults[:FAULTS_MAX], f"{origin}: and {more} faults more"] if more > 0 else list(faults)


def _faults(error: ValidationError, model: type[BaseModel], source: Mapping[Key, str], default_source: str) -> Iterator[str]:
    if error.error_count() > FAULTS_MAX:
        yield f"{default_source}: has {error.error_count()} faults; these are the first {FAULTS_MAX}"
    for detail in error.errors(include_url=False)[:FAULTS_MAX]:
        path = tuple(str(part) for part in detail["loc"] if part != "[key]")
        origin = next((source[path[:end]] for end in range(len(path), -1, -1) if path[:end] in source), default_source)
        sentence = _sentence(detail, model, path)
        if not path:
            yield f"{origin}: {sentence}"
        elif detail["type"] == "missing" or (detail["type"] == "value_error" and isinstance(detail["input"], dict)):
            yield f"{origin}: {_name(path)}: {sentence}"    # no value to show, or the sentence names those that clash
        else:
            yield f"{origin}: {_name(path)} = {_shown(path, detail['input'])}: {sentence}"


def _refusal(faults: Sequence[str]) -> ConfigurationError:
    """One printable line each, whatever a file holds."""
    return ConfigurationError(["".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in fault) for fault in faults])


# -- settings from their layers --------------------------------------------------------------------------------------------


def _dot_env(path: Path, faults: list[str]) -> dict[str, str]:
    """KEY=VALUE lines; `export`, quotes and # comments as shells have them. Values are never shown."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path}: cannot be read: {type(error).__name__}")
        return {}
    values = {}
    for number, line in enumerate(lines, 1):
        line = line.strip().removeprefix("export ").strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.strip().isidentifier():
            faults.append(f"{path}: line {number}: must be KEY=VALUE")
            continue
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        else:
            value = value.split(" #", 1)[0].rstrip()
        values[key.strip()] = value
    return values


def _from_environment(variables: Mapping[str, str], label: str, faults: list[str]) -> Iterator[tuple[str, Tree]]:
    """One layer per BOT__SECTION__KEY; values that open with [ or { are JSON."""
    for name in sorted(variables):
        if not name.startswith(_PREFIX):
            continue
        path = tuple(name.removeprefix(_PREFIX).lower().split("__"))
        value: Any = variables[name]
        if len(path) > NESTING_MAX or not all(path):
            faults.append(f"{label} {name}: must be BOT__KEY or BOT__SECTION__KEY")
            continue
        if value.lstrip()[:1] in ("[", "{"):
            try:
                value = _json(value)
            except (ValueError, ArithmeticError, RecursionError):
                faults.append(f"{label} {name} = {_shown(path, value)}: is not JSON")
                continue
            faults.extend(f"{label} {name}: {_name(key)}: is given twice; keep one of them" for key in _duplicates(value))
        for part in reversed(path):
            value = {part: value}
        yield f"{label} {name}", value


def _nested(overrides: Mapping[str, Any]) -> Tree:
    """{"http.port": 1, "demo": {"seed": 7}} as one tree. None = not given on the command line."""
    tree: Tree = {}
    for key, value in overrides.items():
        if value is None:
            continue
        value = _nested(value) if isinstance(value, Mapping) else value
        for part in reversed(key.split(".")):
            value = {part: value}
        _merge(tree, value, {}, "")
    return tree


def _merge(into: Tree, tree: Mapping[str, Any], source: dict[Key, str], name: str, path: Key = ()) -> None:
    """Deep merge, the later one wins; `source` learns where each key came from."""
    per_class = bool(path) and path[-1] in ("dry_run_wallet", "strategies", "allocate")
    for key, value in tree.items():
        key = key.upper() if per_class and key.upper() in _CLASS_NAMES else key
        source[(*path, key)] = name
        if isinstance(value, dict):
            if not isinstance(into.get(key), dict):
                into[key] = {}
            _merge(into[key], value, source, name, (*path, key))
        else:
            into[key] = value


def _settings(files: Sequence[Path], overrides: Mapping[str, Any], environment: Mapping[str, str], env_file: Path,
              faults: list[str]) -> tuple[Settings | None, Path]:
    """The settings, as far as they can be understood: with the reasons in `faults`, what is faulty left at its default; None = nothing can
    be. And the policy folder as far as it can be known."""
    merged, source = _merged(files, overrides, environment, env_file, faults)
    default_source = str(files[-1]) if files else "settings"
    settings, told, forgotten, clashes = None, set[str](), set[str](), list[str]()
    for lenient in (False, *(True,) * LENIENT_TRIES):
        try:
            settings = Settings.model_validate(merged, context=clashes if lenient else None)
            faults.extend(fault for clash in clashes if (fault := f"{default_source}: {clash}") not in told)
            break
        except ValidationError as error:
            found = dict.fromkeys(fault for fault in _faults(error, Settings, source, default_source)
                                  if fault not in told and not any(f": {name}: is missing" in fault for name in forgotten))
            told |= found.keys()
            faults.extend(found)
            for detail in error.errors(include_url=False):
                path = tuple(str(part) for part in detail["loc"] if part != "[key]")
                _forget(merged, path, whole=detail["type"] == "missing")
                forgotten.add(_name(path))
    return settings, settings.policy_dir if settings is not None else Path(str(merged.get("policy_dir", "policies")))


def _forget(tree: Tree, path: Key, *, whole: bool) -> None:
    """Take out what stands at `path`, or, `whole`, the section that lacks it: so that everything else can be looked at too."""
    if whole:
        path = path[:-1]
    node: Any = tree
    for at, part in enumerate(path):
        if not isinstance(node, dict) or part not in node:
            return    # inside a value: a list's item, or what a value is made of
        if at + 1 == len(path) or not isinstance(node[part], dict):
            del node[part]
            return
        node = node[part]


def _merged(files: Sequence[Path], overrides: Mapping[str, Any], environment: Mapping[str, str], env_file: Path,
            faults: list[str]) -> tuple[Tree, dict[Key, str]]:
    """All layers as one tree, and where each key of it came from."""
    layers: list[tuple[str, Tree]] = [(str(path), tree) for path in files if (tree := _read(path, faults)) is not None]
    layers += _from_environment(_dot_env(env_file, faults), str(env_file), faults)
    layers += _from_environment(environment, "environment", faults)
    layers.append(("command line", _nested(overrides)))
    merged: Tree = {}
    source: dict[Key, str] = {}
    for name, layer in layers:
        _merge(merged, layer, source, name)
    return merged, source


def load_settings(files: Sequence[Path], overrides: Mapping[str, Any], *, environment: Mapping[str, str] | None = None,
                  env_file: Path = Path(".env")) -> Settings:
    """Settings from all layers. `overrides` (command line) may be nested or dotted; None there means not given.

    Raises ConfigurationError with every fault of every layer.
    """
    faults: list[str] = []
    settings, _ = _settings(files, overrides, os.environ if environment is None else environment, env_file, faults)
    if settings is None or faults:
        raise _refusal(faults)
    return settings


def state_dir(files: Sequence[Path], *, environment: Mapping[str, str] | None = None, env_file: Path = Path(".env")) -> Path:
    """Where state is kept, as far as faulty settings let it be known: for who must stop something whatever else is wrong."""
    merged = _merged(files, {}, os.environ if environment is None else environment, env_file, [])[0]
    return Path(str(merged.get("state_dir", Settings.model_fields["state_dir"].default))).expanduser()


# -- policies ----------------------------------------------------------------------------------------------------------


def _policy_path(folder: Path, field: str) -> Path:
    return folder / ("cost_policy.json" if field == "costs" else f"{field}_policy.json")


def _policies(folder: Path, faults: list[str]) -> Policies | None:
    """All policies, or None with the reasons in `faults`."""
    found: dict[str, Any] = {}
    if not any(_policy_path(folder, field).exists() for field in POLICY_FILES):
        faults.append(_without_policies(folder))
        return None
    for field, model in POLICY_FILES.items():
        path = _policy_path(folder, field)
        tree = _read(path, faults)
        if tree is None:
            continue
        try:
            found[field] = model.model_validate(tree)
        except ValidationError as error:
            faults.extend(_faults(error, model, {}, str(path)))
    if "costs" in found and "sizing" in found:
        for asset_class in AssetClass:
            used, allowed = found["costs"].of(asset_class).leverage, found["sizing"].leverage_max.of(asset_class)
            if used > allowed:
                faults.append(f"{_policy_path(folder, 'costs')}: {asset_class.value}.leverage = {used}: "
                              f"must not exceed sizing_policy.json's leverage_max.{asset_class.value} = {allowed}")
    if faults or len(found) < len(POLICY_FILES):
        return None
    canonical = json.dumps({field: plain(found[field].model_dump()) for field in POLICY_FILES}, sort_keys=True, separators=(",", ":"))
    return Policies(hash=hashlib.sha256(canonical.encode()).hexdigest(), **found)


def _without_policies(folder: Path) -> str:
    """One fault instead of one per file: it was started in the wrong place."""
    shipped = Path(__file__).resolve().parent / "policies"
    there = f"; the shipped ones are in {shipped}" if shipped.is_dir() and shipped != folder.absolute() else ""
    return (f"policy_dir = {folder}: there are no policies in {folder.absolute()}{there}. Start in the folder of main.py, copy that folder "
            f"of policies here and make them yours, or name it: policy_dir = \"{shipped if there else '/path/to/policies'}\"")


def load_policies(folder: Path) -> Policies:
    """All policy files of `folder`; `hash` is sha256 over their canonical JSON (numbers by value, not by spelling).

    Raises ConfigurationError with every fault of every file.
    """
    faults: list[str] = []
    policies = _policies(folder, faults)
    if policies is None:
        raise _refusal(faults)
    return policies


def load(files: Sequence[Path], overrides: Mapping[str, Any], *, environment: Mapping[str, str] | None = None,
         env_file: Path = Path(".env")) -> tuple[Settings, Policies]:
    """Settings and the policies they point to. Raises ConfigurationError with every fault of both at once."""
    settings, policies, faults = examine(files, overrides, environment=environment, env_file=env_file)
    if settings is None or policies is None or faults:
        raise ConfigurationError(faults)
    return settings, policies


def examine(files: Sequence[Path], overrides: Mapping[str, Any], *, environment: Mapping[str, str] | None = None,
            env_file: Path = Path(".env")) -> tuple[Settings | None, Policies | None, list[str]]:
    """Settings and policies as far as they can be understood, and every fault of both: for who goes on looking for more. Where there is
    a fault, what is faulty has its default, or both are None; nothing may be run with that."""
    faults: list[str] = []
    settings, folder = _settings(files, overrides, os.environ if environment is None else environment, env_file, faults)
    policy_faults: list[str] = []
    policies = _policies(folder, policy_faults)
    return settings, policies, _refusal([*faults, *policy_faults]).faults
