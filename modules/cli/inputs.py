"""What a verb runs with: settings, policies, strategies and the calendar, from files and command line. Refuses by ConfigurationError."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import config
from modules.domain import sessions
from modules.domain.errors import ConfigurationError, StoreUnreadable
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.domain.settings import Settings

if TYPE_CHECKING:
    from modules.news.store import NewsStore
    from modules.strategies.protocol import Strategy

DEFAULT_FILE: Final = Path("config.toml")
_DATE: Final = r"\d{8}(?:T?\d{4})?|\d{4}-\d{2}-\d{2}|\d{13}|\d{10}"
_RANGE: Final = re.compile(rf"({_DATE})?(?:-|:|\.\.)({_DATE})?")


def files(arguments: argparse.Namespace) -> Sequence[Path]:
    """What -c names, else config.toml if it is there."""
    given: list[Path] = arguments.config
    return given or ([DEFAULT_FILE] if DEFAULT_FILE.is_file() else [])


def settings_and_policies(arguments: argparse.Namespace, **overrides: Any) -> tuple[Settings, Policies]:
    """Both, every fault at once. The settings' own cap on open trades tightens the policy's."""
    settings, policies = config.load(files(arguments), _dotted(overrides))
    return settings, tightened(settings, policies)


def examined(arguments: argparse.Namespace, **overrides: Any) -> tuple[Settings | None, Policies | None, list[str]]:
    """As far as both can be understood, and every fault of them: for who looks for more before anything is refused."""
    settings, policies, faults = config.examine(files(arguments), _dotted(overrides))
    return settings, None if policies is None or settings is None else tightened(settings, policies), faults


def settings_only(arguments: argparse.Namespace, **overrides: Any) -> Settings:
    return config.load_settings(files(arguments), _dotted(overrides))


def _dotted(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in overrides.items() if value is not None}


def tightened(settings: Settings, policies: Policies) -> Policies:
    cap = settings.max_open_trades
    if cap is None or cap >= policies.risk.max_open_trades:
        return policies
    return policies.model_copy(update={"risk": policies.risk.model_copy(update={"max_open_trades": cap})})


def state_folder(settings: Settings) -> Path:
    """One per mode: demo money never meets another mode's journal."""
    return settings.state_dir / settings.mode


def recorded_news(path: Path) -> NewsStore:
    """A recording of headlines, only read. Raises ConfigurationError if `path` is none."""
    from modules.news.store import NewsStore

    if not path.is_file():
        raise ConfigurationError([f"--news {path}: is not a file; name the news.db of a state folder"])
    try:
        return NewsStore.recording(path)
    except StoreUnreadable as error:
        raise ConfigurationError([f"--news {error}; it must be the news.db of a state folder"]) from None


def strategies(settings: Settings) -> dict[AssetClass, list[Strategy]]:
    """Per class those that the settings name, else all that fit it. Raises ConfigurationError naming every one that cannot be used."""
    from modules.strategies import registry

    chosen: dict[AssetClass, list[Strategy]] = {}
    faults: list[str] = []
    known = registry.all_strategies()
    for asset_class in AssetClass:
        names = settings.strategies.get(asset_class)
        if names is None:
            chosen[asset_class] = [strategy for strategy in known.values() if asset_class in strategy.asset_classes]
            continue
        chosen[asset_class] = []
        for name in names:
            if name not in known:
                faults.append(f"strategies.{asset_class.value}: {registry.not_found(name, known, registry.faults())}")
            elif asset_class not in known[name].asset_classes:
                fits = ", ".join(found.value for found in known[name].asset_classes)
                faults.append(f"strategies.{asset_class.value}: {name} is for {fits} only")
            else:
                chosen[asset_class].append(known[name])
    if faults:
        raise ConfigurationError(faults)
    return chosen


def timerange(text: str) -> tuple[int | None, int | None]:
    """"A-B" in UTC ms, either side may be open; dates as 20260131, 2026-01-31, or a timestamp in s or ms."""
    found = _RANGE.fullmatch(text)
    if found is None:
        raise ConfigurationError([f"--timerange {text!r}: must be like 20260101-20260201, 20260101- or -20260201"])
    start, end = (_instant(part, text) if part else None for part in found.groups())
    if start is not None and end is not None and start >= end:
        raise ConfigurationError([f"--timerange {text!r}: ends before it begins"])
    return start, end


def _instant(part: str, whole: str) -> int:
    if part.isdigit() and len(part) in (10, 13):
        return int(part) * (1000 if len(part) == 10 else 1)
    try:
        return sessions.parse_iso(part)
    except ValueError:
        raise ConfigurationError([f"--timerange {whole!r}: {part!r} is no date"]) from None
