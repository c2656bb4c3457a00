"""The documentation tells no fiction: every command in it parses, the generated pages are what would be generated now, settings load,
links lead somewhere, and the README's table of commands is run as it stands."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

import config
from modules.cli import reference
from modules.cli.app import run
from modules.cli.arguments import Usage, parse
from tests.daemon_process import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDERS = {"CLASS": "spot", "ID|SYMBOL": "BTC/USDT", "ID|all": "all", "DIR": "somewhere", "FILE": "file", "NAME": "name",
                "FILE.html": "f.html", "FILE.tar.gz": "f.tar.gz", "...": "because", "ADDRESS": "127.0.0.1:8786", "N": "3", "ID": "all",
                "DATE": "20260101"}
COMMAND = re.compile(r"(?:python3? )?(?:-m )?(?:[\w./-]*/)?main\.py((?: [^`\n#]*)?)")


def commands(text: str) -> list[str]:
    """What follows main.py wherever it is written as code."""
    code = [*re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL), *re.findall(r"`([^`\n]+)`", text)]
    return [found.strip() for part in code for line in part.splitlines() for found in COMMAND.findall(line)]


def filled(command: str) -> list[str]:
    """With the optional parts taken, the alternatives decided and the placeholders filled."""
    command = re.sub(r"\$\([^)]*\)", "now", command).replace("\\|", "|").rstrip(")")
    command = command.split(" > ")[0].split(" && ")[0].split(" | ")[0].split(" (")[0].strip()
    words = shlex.split(re.sub(r"[\[\]]", " ", command))
    return [PLACEHOLDERS.get(word, word.split("|")[0] if "|" in word else word) for word in words]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_the_page_is_one_the_program_takes(page: Path) -> None:
    for command in commands(page.read_text(encoding="utf-8")):
        if command.startswith("Daemon: the only wiring"):  # the layout of architecture.md
            continue
        words = filled(command)
        if words and words[0] in ("VERB", "--help"):
            continue
        try:
            parse(words)
        except Usage as fault:
            pytest.fail(f"{page.name}: main.py {command}: {fault}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_settings_example_loads(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(re.findall(r"^ *```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)):
        file = tmp_path / f"{number}.toml"
        file.write_text("\n".join(line.removeprefix("   ") for line in block.splitlines()), encoding="utf-8")
        config.load_settings([file], {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize(("name", "made"), [("configuration.md", reference.configuration), ("commands.md", reference.commands)])
def test_the_generated_pages_are_up_to_date(name: str, made: object) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == made(), "run: python -m modules.cli.reference docs"  # type: ignore[operator]


def test_the_verbs_the_readme_shows_answer_after_a_demo_day(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    assert run(["demo", "--days", "1", "--seed", "7", "--export", "kept", "--state", "state/demo"]) == 0
    capsys.readouterr()
    assert run(["trades", "--json"]) == 0
    traded = json.loads(capsys.readouterr().out)["closed"][0]["symbol"]
    for words in (["status"], ["balance"], ["trades"], ["profit"], ["daily"], ["performance"], ["why"], ["explain", traded],
                  ["list-strategies"], ["list-instruments"], ["list-venues"], ["show-config"], ["journal", "verify"],
                  ["journal", "audit", "kept"], ["export", "trades"], ["report"], ["doctor"], ["version"], ["news"], ["events"],
                  ["size", "--class", "spot", "--equity", "7500", "--confidence", "0.8", "--entry", "100", "--stop", "97"]):
        capsys.readouterr()
        assert run(words) == 0, (words, capsys.readouterr().err)
        assert capsys.readouterr().out.strip(), words
