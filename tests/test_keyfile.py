"""Files that hold secrets: one format error, every way to be readable by others, and nothing of a content in any message or log line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modules.domain.errors import ConfigurationError
from modules.Logger_Config import redactor
from modules.runtime import keyfile

KEY, SECRET = "kAy-0123456789", "s3cret-abcdefghijkl"


def held(folder: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "venue.key"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as refused:
        keyfile.read_pair(path, "venues.bybit.key_file")
    (fault,) = refused.value.faults
    assert SECRET not in fault and KEY not in fault and fault.startswith("venues.bybit.key_file = ")
    return fault


@pytest.mark.parametrize("content", [
    f"key={KEY}\nsecret={SECRET}\n", f"secret = '{SECRET}'\n\n KEY = \"{KEY}\"\r\n", f'{{"key": "{KEY}", "secret": "{SECRET}"}}',
])
def test_a_venues_key_is_two_lines_or_json(tmp_path: Path, content: str) -> None:
    assert keyfile.read_pair(held(tmp_path, content), "venues.bybit.key_file") == (KEY, SECRET)


@pytest.mark.parametrize("content", [
    f"{KEY}\n{SECRET}\n", f"key={KEY}", f"key={KEY}\nsecret=", f"key={KEY}\nsecret={SECRET}\npassphrase=x", f'{{"key": "{KEY}"}}',
    f'{{"key": "{KEY}", "secret": 7}}', f'["{KEY}", "{SECRET}"]', f"key={KEY}\nsecret={SECRET} {SECRET}", "{" * 5_000,
    f"key={KEY}\x07\nsecret={SECRET}",
])
def test_anything_else_is_refused_with_the_format_that_is_wanted(tmp_path: Path, content: str) -> None:
    assert "must hold {\"key\"" in refusal(held(tmp_path, content)) and "the two lines" in refusal(held(tmp_path, content))


@pytest.mark.parametrize(("content", "why"), [
    ("", "is empty"), (" \n", "is empty"), (b"\xff\xfe\x00", "is not text"), ("x" * 20_000, "too long")])
def test_a_file_that_holds_no_secret_says_what_it_holds(tmp_path: Path, content: str | bytes, why: str) -> None:
    assert why in refusal(held(tmp_path, content))


def test_what_others_could_read_or_swap_is_refused(tmp_path: Path) -> None:
    good = f"key={KEY}\nsecret={SECRET}\n"
    for mode in (0o640, 0o604, 0o660, 0o777):
        assert "chmod 600" in refusal(held(tmp_path, good, mode))
    path = held(tmp_path, good)
    (tmp_path / "link").symlink_to(path)
    assert "is a link" in refusal(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "plain file" in refusal(tmp_path / "pipe")
    assert "plain file" in refusal(tmp_path) and "cannot be read" in refusal(tmp_path / "absent")


def test_a_key_in_a_git_work_tree_is_refused_however_deep_or_linked(tmp_path: Path) -> None:
    tree = tmp_path / "clone"
    (tree / "deep" / "er").mkdir(parents=True)
    path = held(tree / "deep" / "er", f"key={KEY}\nsecret={SECRET}\n")
    assert keyfile.read_pair(path, "k") == (KEY, SECRET)
    (tree / ".git").write_text("gitdir: elsewhere\n")  # a linked work tree has a file there, a clone a folder
    assert "git work tree" in refusal(path) and "/etc/bot" in refusal(path)
    (tmp_path / "beside").symlink_to(tree / "deep")
    assert "git work tree" in refusal(tmp_path / "beside" / "er" / "venue.key")


def test_what_was_read_is_hidden_from_the_log_from_then_on(tmp_path: Path) -> None:
    fresh = "never-seen-before-81Jx"
    assert fresh in redactor.text(f"venue said {fresh}")
    keyfile.read_pair(held(tmp_path, f"key={KEY}\nsecret={fresh}\n"), "k")
    assert fresh not in redactor.text(f"venue said {fresh}") and KEY not in redactor.text(KEY)
