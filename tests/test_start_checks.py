"""Whoever starts it hears everything that is wrong at once, and in a folder without policies the one thing that is."""

from __future__ import annotations

from pathlib import Path

import pytest

import config
from modules.cli.app import run
from modules.domain.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    return tmp_path


def faults(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    """What a start is refused for, one line each."""
    capsys.readouterr()
    assert run(["trade", *argv]) == 4
    head, *lines = capsys.readouterr().err.splitlines()
    assert head == f"{len(lines)} fault{'s' if len(lines) != 1 else ''}:"
    return [line.strip() for line in lines]


def settings(folder: Path, *lines: str, more: str = "") -> None:
    key = folder / "bybit.key"
    key.write_text("key=a-key-of-mine\nsecret=its-secret\n")
    key.chmod(0o644)
    (folder / "config.toml").write_text("\n".join(("mode = \"live\"", *lines, f"""
[venues.bybit]
classes = ["SPOT", "PERP"]
key_file = "{key}"
endpoint = "http://bybit.example"
allocate = {{ SPOT = "500" }}
""", more)))


def test_a_live_start_says_everything_that_is_missing_in_one_go(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings(folder, more='[telegram]\ntoken_file = "nowhere.key"\n[strategies]\nSPOT = ["braekout"]\n')
    said = faults(capsys)
    for part in ("venues.bybit.endpoint http://bybit.example: https is required",
                 "venues.bybit.allocate: PERP: classes that share one wallet", "venues.bybit.key_file",
                 "SPOT will open nothing: its funds switches are not on",
                 "no strategy has a valid certificate for it", "PERP will open nothing", "telegram.token_file", "telegram.chat_id",
                 "did you mean 'breakout'?"):
        assert any(part in line for line in said), (part, said)
    assert "its-secret" not in "".join(said) and not (folder / "state").exists()


def test_what_is_misspelled_hides_nothing_of_the_rest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings(folder, "instnace_id = \"x\"", "max_open_trades = -1", more='[venues.kraken]\nclasses = ["SPOT"]\ntimefrme = "5m"\n')
    said = faults(capsys)
    for part in ("instnace_id", "max_open_trades = -1", "did you mean timeframe?", "both name SPOT",
                 "mode live needs key_file in venues.kraken",
                 "https is required", "venues.kraken: live trading is refused", "will open nothing"):
        assert any(part in line for line in said), (part, said)
    assert len(said) == len(set(said))


def test_faulty_policies_do_not_hide_the_rest_either(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "policies").unlink()
    (folder / "policies").mkdir()
    for path in (ROOT / "policies").iterdir():
        (folder / "policies" / path.name).write_bytes(path.read_bytes())
    risk = folder / "policies" / "risk_policy.json"
    risk.write_text(risk.read_text().replace('"max_open_trades"', '"max_opne_trades"'))
    settings(folder)
    said = faults(capsys)
    assert any("risk_policy.json" in line for line in said) and any("https is required" in line for line in said)


def test_paper_asks_for_less(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings(folder)
    (only,) = faults(capsys, "--mode", "paper")
    assert only == "venues.bybit.endpoint http://bybit.example: https is required; plain text only on loopback"


def test_a_folder_without_policies_is_one_fault_with_the_remedy(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (only,) = faults(capsys)
    assert f"there are no policies in {tmp_path / 'policies'}" in only and f'policy_dir = "{ROOT / "policies"}"' in only
    assert run(["status"]) == 3, "what asks nothing of the policies is not kept from answering"
    assert run(["size", "--class", "spot", "--equity", "1000", "--confidence", "1", "--entry", "1"]) == 4
    assert capsys.readouterr().err.count("policies") and not (tmp_path / "state").exists()


def test_of_faulty_settings_only_what_is_sound_is_looked_at_further(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('state_dir = "books"\nlog_dri = "x"\n[http]\nport = 0\nenabled = true\n[mqtt]\nport = 1\n')
    seen, _, said = config.examine([path], {"policy_dir": str(ROOT / "policies")}, environment={}, env_file=tmp_path / "none")
    assert seen is not None and (str(seen.state_dir), seen.http.port, seen.http.enabled, seen.mqtt) == ("books", 8080, True, None)
    assert len(said) == 3
    with pytest.raises(ConfigurationError) as refused:
        config.load([path], {"policy_dir": str(ROOT / "policies")}, environment={}, env_file=tmp_path / "none")
    assert refused.value.faults == said
