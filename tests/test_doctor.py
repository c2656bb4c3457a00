"""`doctor`: each fault is one line with its remedy, and nothing secret is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modules.cli.app import run
from tests.daemon_process import ROOT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    return tmp_path


def findings(capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    assert run(["doctor", "--json"]) == code
    return {found["what"]: found for found in json.loads(capsys.readouterr().out)["findings"]}


def test_an_empty_folder_is_fine_for_the_demo(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = findings(capsys)
    assert {found[name]["state"] for name in ("python", "settings", "policies", "daemon", "journal")} == {"ok"}
    assert "macro calendar CPI" in found


def test_every_fault_of_the_settings_is_a_line_of_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.toml").write_text('mode = "papre"\nstrange = 1\n')
    capsys.readouterr()
    assert run(["doctor", "--json"]) == 1
    said = [found["said"] for found in json.loads(capsys.readouterr().out)["findings"] if found["state"] == "fail"]
    assert len(said) == 2 and any("mode" in line for line in said) and any("strange" in line for line in said)


def test_a_key_that_others_can_read_fails_and_is_never_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = folder / "telegram.key"
    key.write_text("123456:very-secret\n")
    key.chmod(0o644)
    (folder / "config.toml").write_text(f'[telegram]\ntoken_file = "{key}"\nchat_id = 1\nuser_ids = [1]\n')
    found = findings(capsys, code=1)["telegram.token_file"]
    assert found["state"] == "fail" and "chmod 600" in found["remedy"] and "very-secret" not in json.dumps(found)
    key.chmod(0o600)
    assert findings(capsys)["telegram.token_file"]["state"] == "ok"
    key.unlink()
    assert "install -m 600" in findings(capsys, code=1)["telegram.token_file"]["remedy"], "there is nothing to chmod"
    key.symlink_to(folder / "config.toml")
    found = findings(capsys, code=1)["telegram.token_file"]
    assert "name the file itself" in found["said"] and "symbolic" not in found["said"] and "chmod" not in found["remedy"]


def test_a_broken_journal_a_halt_file_and_a_bad_certificate_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--days", "1", "--state", "state/demo", "--json"]) == 0
    found = findings(capsys)
    assert found["journal"]["state"] == "ok" and "chain unbroken" in found["journal"]["said"]
    (folder / "state/demo/HALT").touch()
    (folder / "state/certificates").mkdir()
    (folder / "state/certificates/x.json").write_text("{}")
    found = findings(capsys)
    assert found["HALT file"]["state"] == "warn" and found["certificate"]["state"] == "warn"
    journal = folder / "state/demo/journal.sqlite"
    data = bytearray(journal.read_bytes())
    place = data.index(b'"symbol"')
    data[place:place + 8] = b'"smybol"'
    journal.write_bytes(data)
    assert findings(capsys, code=1)["journal"]["state"] == "fail"
