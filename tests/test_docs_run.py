"""What the documentation tells a person to type is typed: every shell block must be shell, every command of the program that needs neither
a network, a key, a running daemon nor hours is run after a demo day, and what is not run here is listed with its reason."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from modules.cli.app import run
from tests.daemon_process import ROOT
from tests.test_docs import PAGES, commands

BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
NOT_HERE = {
    "": "trades for ever (tests/test_process_modes.py)", "trade": "trades for ever (tests/test_process_modes.py)",
    "--mode": "trades for ever (tests/test_process_modes.py)", "new-config": "asks a person (tests/test_new_config.py)",
    "download-data": "needs a venue (tests/test_download.py)", "import-data": "needs foreign files (tests/test_importing.py)",
    "drill": "needs a venue and a key (tests/test_drill.py)", "validate": "takes minutes (tests/test_validation_cli.py)",
    "optimize": "takes minutes (tests/test_validation_cli.py)", "demo": "run once, as the day everything else looks at",
    "reconcile": "needs a running daemon (tests/test_cli.py)", "kill": "needs a running daemon (tests/test_cli.py)",
    "flatten": "needs a running daemon (tests/test_cli.py)", "replay": "takes a recording (tests/test_replay_recorded.py)",
    "list-instruments --venue": "needs a venue (tests/test_ccxt_data.py)", "doctor --telegram": "needs Telegram (tests/test_telegram.py)",
    "learning freeze": "needs a running daemon (tests/test_learning_agent.py)",
    "learning": "needs a running daemon (tests/test_learning_report.py)",
    "new-strategy": "writes into the program's own folder (tests/test_new_strategy.py)",
    "go-live": "needs settings of a venue (tests/test_go_live.py)",
}
"""What a command begins with: why it cannot be run here. The longest that fits decides."""
RUN_ALL_THE_SAME = ("learning --report",)
"""What a longer beginning takes out of the list above again."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text without its indentation) of each block."""
    return [(kind, "\n".join(line.removeprefix(indent) for line in text.splitlines()))
            for indent, kind, text in BLOCK.findall(page.read_text(encoding="utf-8"))]


def shown() -> list[tuple[str, str]]:
    """(page, command line after main.py) of every command that stands in a block, each once."""
    found: dict[str, str] = {}
    for page in PAGES:
        for kind, text in blocks(page):
            if kind not in ("", "sh") or page.name in ("architecture.md", "commands.md"):
                continue
            for command in commands(f"```\n{text}\n```"):
                found.setdefault(command.strip(), page.name)
    return [(page, command) for command, page in found.items()]


def reason(command: str) -> str | None:
    fits = [start for start in (*NOT_HERE, *RUN_ALL_THE_SAME) if (f"{command} ".startswith(f"{start} ") if start else not command)]
    return NOT_HERE.get(max(fits, key=len)) if fits else None


def test_every_shell_block_is_shell() -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash on this machine")
    checked = 0
    for page in PAGES:
        for kind, text in blocks(page):
            if kind == "sh" or (not kind and re.search(r"^(\S*python3?|pytest|dask) ", text, re.MULTILINE)):
                plain = re.sub(r"\[[^\]\n]*\]", "", text)  # optional parts as people write them
                done = subprocess.run([bash, "-n"], input=plain, text=True, capture_output=True, check=False)
                assert done.returncode == 0, f"{page.name}: {text}\n{done.stderr}"
                checked += 1
    assert checked >= 20


def test_every_command_of_the_blocks_is_run_or_has_a_reason(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("policies", "config.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert run(["demo", "--days", "1", "--seed", "7", "--state", "state/demo"]) == 0
    capsys.readouterr()
    assert run(["trades", "--json"]) == 0
    traded = json.loads(capsys.readouterr().out)["closed"][0]["symbol"]
    ran = []
    for page, command in shown():
        if reason(command) is not None:
            continue
        line = re.sub(r"\$\([^)]*\)", "now", command).replace("/var/backups", str(tmp_path))
        line = line.replace("explain BTC/USDT", f"explain {traded}")  # one that had a signal on this day
        words = shlex.split(line)
        capsys.readouterr()
        code = run(words)
        said = capsys.readouterr()
        assert code == 0 and (said.out or said.err).strip(), f"{page}: main.py {command}: {code}: {said.err}"
        ran.append(words[0])
    assert {"why", "explain", "size", "doctor", "status", "trades", "journal", "backup", "list-strategies"} <= set(ran)


def test_no_reason_is_kept_for_a_command_that_is_not_in_the_documentation_and_each_names_a_test_that_exists() -> None:
    known = [command for _, command in shown()]
    for start, why in NOT_HERE.items():
        assert any(f"{command} ".startswith(f"{start} ") or command == start for command in known), f"nobody shows {start!r}"
        for named in re.findall(r"tests/\w+\.py", why):
            assert (ROOT / named).is_file(), named
