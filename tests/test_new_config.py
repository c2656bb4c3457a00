"""`new-config`: whatever is answered, what is written loads; wrong answers are asked again; nothing is overwritten without a yes."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import config
from modules.cli import new_config
from modules.cli.app import run
from modules.domain.instrument import AssetClass
from modules.domain.settings import Settings
from modules.venues import factory

SPOT, PERP, FOREX = AssetClass.SPOT, AssetClass.PERP, AssetClass.FOREX


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def loaded(path: str = "config.toml") -> Settings:
    return config.load_settings([Path(path)], {}, environment={}, env_file=Path("none"))


def key(folder: Path, name: str, content: str, mode: int = 0o600) -> Path:
    path = folder / name
    path.write_text(content)
    path.chmod(mode)
    return path


def test_the_defaults_are_paper_on_bybit_without_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["new-config", "--defaults", "--json"]) == 0
    said, settings = json.loads(capsys.readouterr().out), loaded()
    assert settings.mode == "paper" and settings.venues["bybit"].classes == (SPOT, PERP) and settings.venues["bybit"].key_file is None
    assert settings.dry_run_wallet[SPOT] == 500 and settings.venues["bybit"].allocate[PERP] == 300
    assert stat.S_IMODE(Path("config.toml").stat().st_mode) == 0o600 and said["next"][0] == "python main.py doctor -c config.toml"
    assert len(list(Path().iterdir())) == 1  # nothing half-made is left


def test_every_answer_typed_by_a_person_ends_up_in_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bybit = key(folder, "bybit.key", "key=aaaaaaaa\nsecret=bbbbbbbb\n")
    oanda = key(folder, "oanda.key", "cccccccccc\n")
    telegram = key(folder, "telegram.key", "123:dddddd\n")
    typed(monkeypatch, "paper", "spot, forex", "", str(bybit), "101-001-1-001", str(oanda), "", "750", "1,000", "BTC/USDT eur/usd", "1h",
          str(telegram), "4242", "yes", "no", "my state")
    assert run(["new-config"]) == 0
    settings = loaded()
    bybit_section, oanda_section = settings.venues["bybit"], settings.venues["oanda"]
    assert (bybit_section.classes, bybit_section.symbols, bybit_section.timeframe, bybit_section.key_file) == (
        (SPOT,), ("BTC/USDT",), "1h", bybit)
    assert (oanda_section.classes, oanda_section.symbols, oanda_section.practice) == ((FOREX,), ("EUR/USD",), True)
    assert oanda_section.allocate[FOREX] == 1000
    assert settings.telegram is not None and settings.telegram.chat_id == 4242 and settings.telegram.user_ids == (4242,)
    assert settings.http.enabled and not settings.news.enabled and settings.state_dir == Path("my state")
    assert "aaaaaaaa" not in Path("config.toml").read_text() and "cccccccccc" not in Path("config.toml").read_text()


def test_what_is_not_understood_is_asked_again_with_what_is_allowed(
        folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    loose = key(folder, "loose.key", "key=a\nsecret=b\n", 0o644)
    typed(monkeypatch, "live", "papre", "paper", "option", "stocks", "spot", "by bit", "oanda", "bybitt", "bybit", str(loose), "none", "-5",
          "lots", "500,50", "500", "BITCOIN", "ETH/USDT:USDT", "501", "20", "5", "5m", "none", "perhaps", "no", "no", "state")
    assert run(["new-config"]) == 0
    err = capsys.readouterr().err
    for words in ("go-live", "demo, paper", "option needs perp", "ccxt knows; did you mean bybit?", "spot, perp, option, forex",
                  "no crypto exchange", "chmod 600",
                  "amount above 0", "BTC/USDT:USDT", "is perp, and the classes named are spot", "1 to 500", "like 1m", "yes or no"):
        assert words in err, words
    chosen = loaded().venues["bybit"]
    assert chosen.select is not None and chosen.select.number_assets == 20 and chosen.symbols == ()


def test_the_end_of_the_input_writes_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    typed(monkeypatch, "paper", "spot")
    assert run(["new-config"]) == 1 and "nobody answered" in capsys.readouterr().err and not Path("config.toml").exists()


def test_a_file_that_is_there_stays_unless_a_person_says_yes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    mine = Path("config.toml")
    mine.write_text("# mine\n")
    assert run(["new-config", "--defaults"]) == 1 and "--overwrite" in capsys.readouterr().err and mine.read_text() == "# mine\n"
    typed(monkeypatch, "no")
    assert run(["new-config"]) == 1 and mine.read_text() == "# mine\n"
    assert run(["new-config", "--defaults", "--out", "other.toml"]) == 0 and loaded("other.toml").mode == "paper"
    typed(monkeypatch, "yes", "demo", "none", "no", "state")
    assert run(["new-config"]) == 0 and loaded().mode == "demo"
    assert run(["new-config", "--defaults", "--overwrite"]) == 0 and loaded().mode == "paper"


def test_a_misspelled_answer_is_told_before_a_file_in_the_way_is(capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.toml").write_text("# mine\n")
    for words, said in (("moode=paper", "did you mean mode?"), ("timeframe=5 minutes", "must be like 1m")):
        assert run(["new-config", "--defaults", "--set", words]) == 4
        assert said in capsys.readouterr().err
    assert run(["new-config", "--set", "moode=paper"]) == 4, "nobody is asked anything first"
    assert Path("config.toml").read_text() == "# mine\n"


def test_answers_in_advance_are_checked_like_typed_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["new-config", "--defaults", "--set", "venue=kraken", "--set", "classes=spot"]) == 0
    assert "paper trading only" in capsys.readouterr().err and "kraken" in loaded().venues
    Path("config.toml").unlink()
    for words, said in ((["mode=live"], "begin with paper"), (["moode=paper"], "NAME=ANSWER"), (["classes=forex"], "account number"),
                        (["forex_money=77"], "nobody asks for it"), (["symbols=EUR/USD"], "EUR/USD is forex, and the classes named are"),
                        (["symbols=BTC/USDT"], "none of them is perp"), (["spot_money=500,50"], "500.50"),
                        (["classes=perp,option", "venue=binance"], "binance has no option here; it has spot, perp")):
        assert run(["new-config", "--defaults", *(part for word in words for part in ("--set", word))]) == 4
        assert said in capsys.readouterr().err and not Path("config.toml").exists()


def test_options_are_written_with_their_perpetuals_and_their_money(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["new-config", "--defaults", "--set", "classes=perp,option", "--set", "option_money=400"]) == 0
    section = loaded().venues["bybit"]
    assert section.classes == (PERP, AssetClass.OPTION) and section.allocate[AssetClass.OPTION] == 400
    assert factory.faults("bybit", section, trading=False) == []


ANSWERS = st.fixed_dictionaries({
    "mode": st.sampled_from(["demo", "paper"]), "classes": st.sampled_from(
        ["spot", "perp,spot", "forex", "spot,perp,forex", "perp,forex", "perp,option", "spot,perp,option,forex"]),
    "venue": st.just("bybit"), "key_file": st.sampled_from(["none", "/absent/é \"q\" \\ b.key"]),
    "account_id": st.just("1-2-3-4"), "token_file": st.just("/absent/t"), "practice": st.sampled_from(["yes", "no"]),
    "spot_money": st.decimals(1, 10**6, places=2).map(str), "perp_money": st.just("1"), "forex_money": st.just("2_000.5"),
    "symbols": st.sampled_from(["short", "7"]), "timeframe": st.sampled_from(["1m", "4h"]),
    "telegram_file": st.sampled_from(["none", "/absent/t"]), "chat_id": st.integers(-10**12, 10**12).map(str),
    "page": st.sampled_from(["yes", "n"]), "news": st.sampled_from(["yes", "no"]),
    "state_dir": st.sampled_from(["state", "a 'b' \"c\" #d"]),
})


@given(answers=ANSWERS)
def test_whatever_is_answered_loads(answers: dict[str, str]) -> None:
    found = new_config._answers(answers, ask=False)
    path = Path("made.toml")
    new_config._write(path, new_config.document(found))
    settings = loaded("made.toml")
    assert settings.mode == answers["mode"] and str(settings.state_dir) == answers["state_dir"]
    if answers["mode"] == "paper":
        traded = {c.value.lower() for venue in settings.venues.values() for c in venue.classes}
        assert traded == set(answers["classes"].split(","))
