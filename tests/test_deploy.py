"""The deploy files, as far as a machine without a container engine can hold them to their word; the image itself is not built here."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from modules.cli.arguments import parse
from tests.daemon_process import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8")
UNIT = (ROOT / "deploy" / "trading-bot.service").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest) with lines joined and comments gone."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


def exec_form(name: str) -> list[str]:
    text = next(rest for word, rest in instructions() if word == name)
    return re.findall(r'"([^"]+)"', text)


def test_everything_the_image_copies_exists() -> None:
    copied = [shlex.split(rest) for word, rest in instructions() if word == "COPY"]
    sources = [source for words in copied if not words[0].startswith("--from") for source in words[:-1]]
    assert {"main.py", "config.py", "modules", "policies", "requirements.lock"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source


def test_the_commands_of_the_image_and_of_compose_are_ones_the_program_takes() -> None:
    entry, command, health = exec_form("ENTRYPOINT"), exec_form("CMD"), exec_form("HEALTHCHECK")
    assert entry == ["python", "main.py"] == health[:2]
    parse(command)
    parse(health[2:])
    test = re.search(r"test: \[CMD, (.*)\]", COMPOSE)
    assert test is not None and [word.strip() for word in test[1].split(",")] == health, "compose asks what the image asks"


def test_the_image_runs_without_root_and_writes_only_where_its_volume_is() -> None:
    words = dict(instructions())
    order = [word for word, _ in instructions()]
    assert words["USER"] == "bot" and order.index("USER") < order.index("ENTRYPOINT")
    environment = dict(item.split("=", 1) for item in words["ENV"].split())
    volume = words["VOLUME"]
    assert all(environment[name].startswith(f"{volume}/") for name in ("BOT__STATE_DIR", "BOT__LOG_DIR"))
    assert f"chown bot:bot {volume}" in DOCKERFILE and "PYTHONDONTWRITEBYTECODE" in environment
    for line in ("read_only: true", "cap_drop: [ALL]", "no-new-privileges:true", f"data:{volume}", "restart: on-failure"):
        assert line in COMPOSE
    grace = re.search(r"stop_grace_period: (\d+)s", COMPOSE)
    assert grace is not None and int(grace[1]) >= 20


def test_compose_builds_from_the_folder_that_holds_the_dockerfile() -> None:
    found = re.search(r"build: (\S+)", COMPOSE)
    assert found is not None and (ROOT / "deploy" / found[1]).resolve() == ROOT.resolve()


def test_the_service_starts_what_the_program_takes() -> None:
    start = re.search(r"^ExecStart=\S+/python main\.py (.*)$", UNIT, re.MULTILINE)
    assert start is not None
    parse(shlex.split(start[1]))
    assert "Type=notify" in UNIT and "WatchdogSec=" in UNIT and "--sd-notify" in start[1]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine (Debian: apt-get install systemd)")
def test_systemd_itself_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    """Its program and user are this machine's, because those of a server are not here."""
    here = re.sub(r"^ExecStart=.*$", "ExecStart=/bin/true", UNIT, flags=re.MULTILINE)
    here = re.sub(r"^(User|WorkingDirectory)=.*\n", "", here, flags=re.MULTILINE)
    file = tmp_path / "trading-bot.service"
    file.write_text(here, encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "trading-bot.service" in line]
    assert not said, said
