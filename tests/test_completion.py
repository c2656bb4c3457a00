"""Completion as a shell does it: a real bash sources the script and is asked what comes next."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from modules.cli.app import VERBS
from modules.cli.completion import bash, fish, words

BASH = shutil.which("bash")


def completed(*typed: str) -> list[str]:
    """What bash offers after `typed`, the last of which is being typed."""
    asked = f"""{bash()}
COMP_WORDS=({" ".join(f'"{word}"' for word in typed)}); COMP_CWORD={len(typed) - 1}
_trading_bot_python; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    assert BASH is not None
    return subprocess.run([BASH, "-c", asked], capture_output=True, text=True, check=True, timeout=120).stdout.split()


@pytest.mark.skipif(BASH is None, reason="no bash on this machine")
def test_bash_completes_verbs_options_and_classes() -> None:
    assert completed("python", "main.py", "sta") == ["status"]
    assert completed("python", "main.py", "demo", "--da") == ["--days"]
    assert completed("python", "main.py", "pause", "fo") == ["forex"]
    assert completed("python", "main.py", "-v", "export", "tr") == ["trades"]
    assert set(completed("python", "main.py", "journal", "")) >= {"verify", "audit"}


def test_every_verb_is_completed() -> None:
    assert set(VERBS) <= set(words())
    assert all(f"-a {verb} " in fish() for verb in VERBS)
