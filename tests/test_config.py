"""Settings and policies: precedence, and for every kind of bad input one clear line with file, key, value and remedy, all at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from config import DEMO_WALLETS, LOOSER, load, load_policies, load_settings, tighter
from modules.domain.errors import ConfigurationError
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.domain.settings import Settings
from modules.domain.tightening import patterns

D = Decimal
ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "policies"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shipped policies, to be spoiled."""
    copy = tmp_path / "policies"
    shutil.copytree(SHIPPED, copy)
    return copy


def spoil(folder: Path, name: str, *path: str, value: Any) -> None:
    """Set one key of one policy file, raw JSON text if `value` is bytes."""
    file = folder / name
    tree = json.loads(file.read_text())
    section = tree
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = "@@" if isinstance(value, bytes) else value
    text = json.dumps(tree)
    file.write_text(text.replace('"@@"', value.decode()) if isinstance(value, bytes) else text)


def faults_of(action: Callable[[], object]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        action()
    for fault in caught.value.faults:
        assert "\n" not in fault and fault.isprintable() and len(fault) < 600
    return caught.value.faults


def the_fault(folder: Path) -> str:
    (fault,) = faults_of(lambda: load_policies(folder))
    return fault


def settings_of(tmp_path: Path, toml: str = "", overrides: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None,
                dot_env: str = "") -> Settings:
    file, env_file = tmp_path / "config.toml", tmp_path / ".env"
    file.write_text(toml)
    env_file.write_text(dot_env)
    return load_settings([file], overrides or {}, environment=environment or {}, env_file=env_file)


# -- policies: every kind of bad file ---------------------------------------------------------------------------------------


def test_the_shipped_policies_load_and_their_hash_is_of_their_values_not_their_spelling(folder: Path) -> None:
    shipped = load_policies(SHIPPED)
    assert shipped.sizing.risk_fraction_max == D("0.05") and len(shipped.hash) == 64
    spoil(folder, "sizing_policy.json", "risk_fraction_max", value=b"0.0500")    # a JSON number, other spelling, same value
    same = load_policies(folder)
    assert same.hash == shipped.hash and same.sizing.risk_fraction_max == D("0.05")
    spoil(folder, "sizing_policy.json", "risk_fraction_max", value="0.04")
    assert load_policies(folder).hash != shipped.hash


def test_a_decimal_written_as_a_json_number_keeps_every_digit(folder: Path) -> None:
    spoil(folder, "sizing_policy.json", "risk_fraction_max", value=b"0.0499999999999999999999")
    assert load_policies(folder).sizing.risk_fraction_max == D("0.0499999999999999999999")


@pytest.mark.parametrize(("content", "says"), [
    (b"", "is empty; it must hold one JSON object"),
    (b"  \n ", "is empty"),
    (b"{", "line 1 column 2: is not JSON"),
    (b'{"version": 1,}', "is not JSON"),
    (b"[1, 2]", "must hold one JSON object {...}, not [1, 2]"),
    (b"null", "must hold one JSON object {...}, not null"),
    (b"<html>", "is not JSON"),
    (b"\xff\xfe\x00", "is not UTF-8 text"),
    (b"[" * 200_000, "is nested too deeply"),
    (b'{"a":' * 40 + b"1" + b"}" * 40, "is nested too deeply"),
    (b" " * 1_000_001, "has 1,000,001 bytes, at most 1,000,000 are allowed"),
    (b'{"version": 1e99999999999999999999}', "is not JSON"),
    (b'{"version": ' + b"9" * 5000 + b"}", "is not JSON"),
])
def test_a_file_that_is_no_json_object_is_one_clear_fault(folder: Path, content: bytes, says: str) -> None:
    (folder / "risk_policy.json").write_bytes(content)
    fault = the_fault(folder)
    assert "risk_policy.json" in fault and says in fault


def test_a_byte_order_mark_is_forgiven(folder: Path) -> None:
    file = folder / "risk_policy.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load_policies(folder).hash == load_policies(SHIPPED).hash


def test_a_missing_file_is_named_with_the_misspelled_one_beside_it(folder: Path) -> None:
    (folder / "risk_policy.json").rename(folder / "risk_polcy.json")
    assert "risk_policy.json: is missing; did you mean risk_polcy.json?" in the_fault(folder)


def test_a_folder_in_place_of_a_file_and_a_missing_folder_are_faults(folder: Path) -> None:
    (folder / "risk_policy.json").unlink()
    (folder / "risk_policy.json").mkdir()
    assert "risk_policy.json: cannot be read" in the_fault(folder)
    (one,) = faults_of(lambda: load_policies(folder / "nowhere"))  # not one per file: it was started in the wrong place
    assert "there are no policies in" in one and "Start in the folder of main.py" in one and 'policy_dir = "' in one


def test_duplicate_keys_are_named_with_their_path(folder: Path) -> None:
    file = folder / "sizing_policy.json"
    file.write_text(file.read_text().replace('"PERP": "3", ', '"PERP": "3", "PERP": "30", ', 1))
    fault = the_fault(folder)
    assert "sizing_policy.json: leverage_max.PERP: is given twice" in fault


def test_thousands_of_faults_in_one_file_are_counted_not_listed(folder: Path) -> None:
    (folder / "risk_policy.json").write_text("{" + ", ".join(f'"k{n % 50_000}": 1' for n in range(70_000)) + "}")
    faults = faults_of(lambda: load_policies(folder))
    assert any("k1: is given twice" in fault for fault in faults) and any("and 19900 faults more" in fault for fault in faults)
    assert len(faults) < 205


@pytest.mark.parametrize(("path", "value", "says"), [
    (("risk_fraction_max",), "5", "did you mean 0.05?"),              # the percent typo
    (("risk_fraction_max",), b"5", "did you mean 0.05?"),
    (("risk_fraction_max",), "-0.05", "must be greater than or equal to 0"),
    (("risk_fraction_max",), b"NaN", "must be a finite number"),
    (("risk_fraction_max",), b"Infinity", "must be a finite number"),
    (("risk_fraction_max",), b"-Infinity", "must be a finite number"),
    (("risk_fraction_max",), "NaN", "is not a number"),
    (("risk_fraction_max",), "five", "is not a number; write it like 0.05"),
    (("risk_fraction_max",), "", "is not a number"),
    (("risk_fraction_max",), "0_05", "is not a number"),
    (("risk_fraction_max",), None, "Decimal input should be"),
    (("risk_fraction_max",), True, "is not a number"),
    (("risk_fraction_max",), [], "Decimal input should be"),
    (("phase_1_equity_max",), "0", "must be greater than 0"),
    (("phase_1_equity_max",), b"1e400", "must be less than or equal to"),
    (("leverage_max", "PERP"), "1000", "must be less than or equal to 100"),
    (("liquidation_distance_min",), "1", "must be less than 1"),
    (("exit_price_margin",), "0", "must be greater than 0"),
    (("ramp_trades",), "20", "is not a number; write it without quotes"),
    (("ramp_trades",), 2.5, "must be a valid integer"),
    (("ramp_trades",), -1, "must be greater than or equal to 0"),
    (("ramp_trades",), True, "is not a number"),
    (("leverage_max",), "3", "must be a valid dictionary"),
])
def test_a_bad_value_is_told_with_file_key_value_and_remedy(folder: Path, path: tuple[str, ...], value: Any, says: str) -> None:
    spoil(folder, "sizing_policy.json", *path, value=value)
    fault = the_fault(folder)
    head, told = fault.split(": ", 2)[0], fault.split(": ", 2)[1]
    assert head.endswith("sizing_policy.json") and says in fault
    key, _, shown = told.partition(" = ")
    assert key == ".".join(path) and shown


@pytest.mark.parametrize(("name", "path", "value", "says"), [
    ("risk_policy.json", ("spread_bp_max", "PERP"), -1, "spread_bp_max.PERP = -1: must be greater than or equal to 0"),
    ("risk_policy.json", ("spread_bp_max",), {"SPOT": 30}, "needs all four asset classes; PERP, OPTION, FOREX missing"),
    ("risk_policy.json", ("forex_weekend_flat",), "yes", 'forex_weekend_flat = "yes": must be a valid boolean'),
    ("risk_policy.json", ("forex_deep_pairs",), "EUR/USD", "must be a valid tuple"),
    ("funds_policy.json", ("funds_on",), 1, "funds_on = 1: must be a valid boolean"),
    ("funds_policy.json", ("classes_on", "PERPS"), True, "classes_on.PERPS"),
    ("news_policy.json", ("windows", "CPI"), [30], "windows.CPI.1: is missing"),
    ("news_policy.json", ("windows", "CPI"), [-30, 30], "windows.CPI.0 = -30: must be greater than or equal to 0"),
    ("cost_policy.json", ("PERP", "half_spread_bp"), 20000, "PERP.half_spread_bp = 20000: must be less than or equal to 10000"),
    ("execution_policy.json", ("doubt_query_spacing_s",), [], "doubt_query_spacing_s"),
])
def test_bad_values_in_the_other_files_too(folder: Path, name: str, path: tuple[str, ...], value: Any, says: str) -> None:
    spoil(folder, name, *path, value=value)
    fault = the_fault(folder)
    assert name in fault and says in fault


def test_an_unknown_key_is_told_with_the_nearest_known_one(folder: Path) -> None:
    spoil(folder, "sizing_policy.json", "risk_fraction_maxx", value="0.05")
    assert 'sizing_policy.json: risk_fraction_maxx = "0.05": unknown key; did you mean risk_fraction_max?' in the_fault(folder)
    spoil(folder, "cost_policy.json", "PERP", "slipage_bp", value=1)
    assert any("PERP.slipage_bp = 1: unknown key; did you mean slippage_bp?" in fault for fault in faults_of(lambda: load_policies(folder)))


def test_a_missing_key_is_told_for_no_limit_has_a_default(folder: Path) -> None:
    tree = json.loads((folder / "kill_switch_policy.json").read_text())
    del tree["drawdown_daily_max"]
    (folder / "kill_switch_policy.json").write_text(json.dumps(tree))
    assert "kill_switch_policy.json: drawdown_daily_max: is missing" in the_fault(folder)


@pytest.mark.parametrize(("name", "path", "value", "says"), [
    ("sizing_policy.json", ("phase_2_equity_max",), "900", "phase_1_equity_max (1000) < phase_2_equity_max (900)"),
    ("sizing_policy.json", ("position_cap_min",), "0.06", "position_cap_min (0.06) must not exceed position_cap_max (0.05)"),
    ("kill_switch_policy.json", ("drawdown_daily_max",), "0.2", "drawdown_daily_max (0.2) must not exceed drawdown_monthly_max (0.15)"),
    ("funds_policy.json", ("pair_cap",), "0.6", "pair_cap (0.6) <= pair_cap_max (0.50)"),
    ("cost_policy.json", ("PERP", "leverage"), "5", "PERP.leverage = 5: must not exceed sizing_policy.json's leverage_max.PERP = 3"),
    ("news_policy.json", ("windows", "GDP"), [30, 30], "only one of them has GDP"),
])
def test_values_that_contradict_each_other_are_told_with_both(folder: Path, name: str, path: tuple[str, ...], value: Any,
                                                              says: str) -> None:
    spoil(folder, name, *path, value=value)
    fault = the_fault(folder)
    assert name in fault and says in fault


def test_hostile_text_in_a_policy_stays_on_one_printable_line(folder: Path) -> None:
    spoil(folder, "risk_policy.json", "evil\n\x1b[31mkey", value="\x1b]0;pwned\x07\n" + "x" * 10_000)
    spoil(folder, "news_policy.json", "windows", "a\nb", value=[1, 1])
    assert len(faults_of(lambda: load_policies(folder))) == 2    # faults_of looks at the lines


TREES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                     lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4))


@hypothesis_settings(max_examples=150, deadline=None,
                     suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.one_of(st.binary(max_size=200), TREES.map(lambda tree: json.dumps(tree).encode())))
def test_no_file_content_whatsoever_does_anything_but_load_or_be_refused(folder: Path, content: bytes) -> None:
    (folder / "funds_policy.json").write_bytes(content)
    assert all("funds_policy.json" in fault for fault in faults_of(lambda: load_policies(folder)))


# -- settings --------------------------------------------------------------------------------------------------------------


def test_with_no_configuration_at_all_it_is_the_demo_with_its_own_wallets(tmp_path: Path) -> None:
    settings = load_settings([], {}, environment={}, env_file=tmp_path / "none")
    assert settings.mode == "demo" and settings.dry_run_wallet == DEMO_WALLETS
    assert (settings.demo.seed, settings.demo.speed, settings.demo.days) == (7, 600, 30)
    assert (settings.http.enabled, settings.http.host, settings.http.port) == (False, "127.0.0.1", 8080)
    assert [settings.dry_run_wallet[asset_class] for asset_class in AssetClass] == [D(950), D(4900), D(15000), D(25000)]


VENUES = '''
[venues.bybit]
classes = ["SPOT", "perp"]
key_file = "/etc/bot/bybit.key"
allocate = { SPOT = "500", perp = 300.10 }
[venues.oanda]
classes = ["FOREX"]
account_id = "001-001-1234567-001"
key_file = "/etc/bot/oanda.key"
practice = true
'''


def test_the_documented_example_loads(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, 'mode = "paper"\n' + VENUES + '''
[telegram]
token_file = "/etc/bot/telegram.key"
chat_id = 123456789
user_ids = [123456789]
''')
    bybit = settings.venues["bybit"]
    assert bybit.classes == (AssetClass.SPOT, AssetClass.PERP)
    assert bybit.allocate == {AssetClass.SPOT: D(500), AssetClass.PERP: D("300.10")}    # TOML numbers are exact, too
    assert settings.venues["oanda"].practice and settings.telegram is not None and settings.telegram.user_ids == (123456789,)
    assert set(settings.dry_run_wallet.values()) == {D(1000)}


def test_command_line_beats_environment_beats_dot_env_beats_files_beats_defaults(tmp_path: Path) -> None:
    base = tmp_path / "base.toml"
    base.write_text("[http]\nport = 1\nenabled = true\n[demo]\nseed = 1\nspeed = 1\n")
    last = tmp_path / "last.toml"
    last.write_text("[demo]\nseed = 2\n")
    dot_env = tmp_path / ".env"
    dot_env.write_text("# a comment\nexport BOT__HTTP__PORT='3'\nBOT__DEMO__DAYS=3\nOTHER=1\nBOT__INSTANCE_ID=three # trailing\n")

    def port(files: list[Path], env_file: Path, environment: dict[str, str], overrides: dict[str, Any]) -> int:
        return load_settings(files, overrides, environment=environment, env_file=env_file).http.port

    none = tmp_path / "none"
    assert port([], none, {}, {}) == 8080
    assert port([base], none, {}, {}) == 1
    assert port([base], dot_env, {}, {}) == 3
    assert port([base], dot_env, {"BOT__HTTP__PORT": "4"}, {}) == 4
    assert port([base], dot_env, {"BOT__HTTP__PORT": "4"}, {"http.port": 5}) == 5
    assert port([base], dot_env, {"BOT__HTTP__PORT": "4"}, {"http": {"port": 6, "host": None}}) == 6

    merged = load_settings([base, last], {}, environment={}, env_file=dot_env)
    assert (merged.demo.seed, merged.demo.speed, merged.demo.days) == (2, 1.0, 3)    # merged key by key, the last file wins
    assert merged.http.enabled and merged.instance_id == "three"


def test_the_environment_takes_lists_classes_and_sections(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, 'mode = "paper"', environment={
        "BOT__VENUES__BYBIT__CLASSES": "spot,PERP", "BOT__VENUES__BYBIT__ALLOCATE__SPOT": "12.5", "BOT__DRY_RUN_WALLET__SPOT": "77",
        "BOT__PAIR_BLACKLIST": '["DOGE/*"]', "BOT__STRATEGIES": '{"SPOT": ["trend"]}', "UNRELATED": "x", "BOT_HALF": "x"})
    assert settings.venues["bybit"].classes == (AssetClass.SPOT, AssetClass.PERP)
    assert settings.dry_run_wallet[AssetClass.SPOT] == 77 and settings.dry_run_wallet[AssetClass.PERP] == 1000
    assert settings.strategies == {AssetClass.SPOT: ("trend",)} and settings.pair_blacklist == ("DOGE/*",)


@pytest.mark.parametrize(("toml", "says"), [
    ('mode = "real"', "config.toml: mode = \"real\": must be 'demo', 'paper' or 'live'"),
    ("[http]\nprot = 1", "config.toml: http.prot = 1: unknown key; did you mean port?"),
    ("[venues.x]\nclasses = ['SPOT']\nkeyfile = 'a'", "venues.x.keyfile = \"a\": unknown key; did you mean key_file?"),
    ("[http]\nport = 70000", "http.port = 70000: must be less than or equal to 65535"),
    ("[http]\nport = true", "http.port = true: is not a number"),
    ("[demo]\nspeed = nan", 'demo.speed = "NaN": must be a finite number'),
    ("[demo]\nspeed = -1", "demo.speed = -1: must be greater than 0"),
    ("[dry_run_wallet]\nSPOT = 0", "dry_run_wallet.SPOT = 0: must be greater than 0"),
    ("[dry_run_wallet]\nSTOCKS = 5", "dry_run_wallet.STOCKS"),
    ("max_open_trades = -1", "max_open_trades = -1: must be greater than or equal to 0"),
    ("a = 1\na = 2", "config.toml: is not TOML"),
    ("[[[[", "config.toml: is not TOML"),
    ("x = " + "[" * 500 + "]" * 500, "config.toml: is nested too deeply"),
    ("telegram = 5", "telegram = 5: must be a valid dictionary"),
    ("[telegram]\nchat_id = 1", "telegram: needs exactly one of token_file and token"),
    ("[venues.X]\nclasses = ['SPOT']", "venues.X"),
    ("[venues.x]\nclasses = []", "venues.x.classes = []"),
    ("[venues.x]\nclasses = ['SPOT']\nallocate = {PERP = 1}", "venues.x: allocate names PERP, which is not in classes"),
    ("[venues.x]\nclasses = ['SPOT']\n[venues.y]\nclasses = ['SPOT']", "venues.x and venues.y both name SPOT"),
    ("mode = 'live'", "mode live needs at least one [venues.NAME] section"),
    ("mode = 'live'\n[venues.x]\nclasses = ['SPOT']", "mode live needs key_file in venues.x"),
    ("[mqtt]\nhost = 'h'\nnamespace = 'a/#'", 'mqtt.namespace = "a/#"'),
])
def test_a_bad_setting_is_one_clear_fault(tmp_path: Path, toml: str, says: str) -> None:
    (fault,) = faults_of(lambda: settings_of(tmp_path, toml))
    assert says in fault


def test_the_fault_names_the_layer_that_set_the_value(tmp_path: Path) -> None:
    faults = faults_of(lambda: settings_of(tmp_path, "[http]\nport = 0\n[demo]\nseed = -1", {"mode": "real"}, {"BOT__DEMO__DAYS": "many"},
                                           "BOT__HTTP__HOST=\nnonsense\n"))
    told = {fault.split(": ")[0].rsplit("/", 1)[-1]: fault for fault in faults}
    assert set(told) == {"config.toml", "command line", "environment BOT__DEMO__DAYS", ".env BOT__HTTP__HOST", ".env"}
    assert 'demo.days = "many"' in told["environment BOT__DEMO__DAYS"] and "line 2" in told[".env"]


def test_an_unknown_environment_key_is_a_fault(tmp_path: Path) -> None:
    (fault,) = faults_of(lambda: settings_of(tmp_path, environment={"BOT__HTTP__PROT": "1"}))
    assert 'environment BOT__HTTP__PROT: http.prot = "1": unknown key; did you mean port?' in fault


def test_all_faults_of_all_files_come_at_once(tmp_path: Path, folder: Path) -> None:
    spoil(folder, "sizing_policy.json", "risk_fraction_max", value="5")
    spoil(folder, "sizing_policy.json", "ramp_days", value=-3)
    spoil(folder, "risk_policy.json", "correlation_min", value="x")
    (folder / "news_policy.json").write_text("")
    (folder / "funds_policy.json").unlink()
    file = tmp_path / "config.toml"
    file.write_text(f"policy_dir = '{folder}'\nmode = 'real'\n[http]\nport = 0\n")
    faults = faults_of(lambda: load([file, tmp_path / "other.toml"], {}, environment={}, env_file=tmp_path / ".env"))
    assert len(faults) == 8
    for needle in ("mode = ", "http.port", "other.toml: is missing", "risk_fraction_max", "ramp_days", "correlation_min",
                   "news_policy.json: is empty", "funds_policy.json: is missing"):
        assert sum(needle in fault for fault in faults) == 1, needle


def test_good_settings_and_policies_load_together(tmp_path: Path) -> None:
    settings, policies = load([], {"policy_dir": str(SHIPPED)}, environment={}, env_file=tmp_path / ".env")
    assert settings.policy_dir == SHIPPED and policies.hash == load_policies(SHIPPED).hash


# -- secrets ---------------------------------------------------------------------------------------------------------------


def test_show_config_prints_secrets_as_stars_and_everything_as_json(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "[telegram]\nchat_id = 1\n[mqtt]\nhost = 'h'\n[venues.x]\nclasses = ['SPOT']\nendpoint = 'https://u:hunter2@h/'",
                           environment={"BOT__TELEGRAM__TOKEN": "hunter2", "BOT__MQTT__PASSWORD": "hunter2"})
    shown = settings.public()
    assert shown["telegram"]["token"] == shown["mqtt"]["password"] == "***"
    assert shown["dry_run_wallet"]["SPOT"] == "950"
    assert "hunter2" not in json.dumps(shown) + repr(settings.telegram) + repr(settings.mqtt)


@pytest.mark.parametrize("toml", [
    "[telegram]\nchat_id = 1\ntoken = ['hunter2']", "[venues.x]\nclasses = ['SPOT']\napi_key = 'hunter2'\nsecret = 'hunter2'",
    "[mqtt]\nhost = 'h'\npassword = 'hunter2'\npassword_file = 'f'", "[unknown]\ntoken = 'hunter2'"])
def test_no_fault_ever_prints_a_secret(tmp_path: Path, toml: str) -> None:
    assert "hunter2" not in "".join(faults_of(lambda: settings_of(tmp_path, toml)))


# -- small things others rely on -----------------------------------------------------------------------------------------------


def test_white_and_blacklist_take_symbols_and_patterns_and_the_blacklist_wins(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, 'pair_whitelist = ["BTC/*", "ETH/USDT"]\npair_blacklist = ["BTC/EUR"]')
    assert [settings.tradable(symbol) for symbol in ("BTC/USDT", "BTC/USDT:USDT", "ETH/USDT", "BTC/EUR", "ETH/USDC", "SOL/USDT")] == [
        True, True, True, False, False, False]
    assert settings_of(tmp_path).tradable("ANY/THING")


def test_importing_config_stays_light() -> None:
    code = "import config, sys; print([m for m in ('pandas', 'numpy', 'ccxt', 'aiohttp', 'scipy', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- reload: what loosens ------------------------------------------------------------------------------------------------------


def changed(folder: Path, name: str, *path: str, value: Any) -> Policies:
    spoil(folder, name, *path, value=value)
    return load_policies(folder)


@pytest.mark.parametrize(("name", "path", "value", "loosens"), [
    ("sizing_policy.json", ("risk_fraction_max",), "0.04", False),
    ("sizing_policy.json", ("risk_fraction_max",), "0.06", True),
    ("sizing_policy.json", ("leverage_max", "FOREX"), "30", True),
    ("sizing_policy.json", ("gross_notional_max", "PERP"), "1", False),
    ("sizing_policy.json", ("gross_notional_max", "PERP"), "0", True),         # 0 = no ceiling
    ("sizing_policy.json", ("gross_notional_max", "SPOT"), "1", False),        # from none to one
    ("sizing_policy.json", ("ramp_days",), 7, True),
    ("sizing_policy.json", ("version",), 2, False),
    ("risk_policy.json", ("quote_volume_24h_min",), "1000000", True),
    ("risk_policy.json", ("quote_volume_24h_min",), "9000000", False),
    ("risk_policy.json", ("forex_weekend_flat",), False, True),
    ("risk_policy.json", ("forex_deep_pairs",), ["EUR/USD"], False),
    ("risk_policy.json", ("forex_deep_pairs",), ["EUR/USD", "USD/TRY"], True),
    ("risk_policy.json", ("forex_majors",), ["EUR/USD"], True),                # a major has the tighter spread cap
    ("risk_policy.json", ("correlation_window",), 700, True),                  # no direction known: counts as loosening
    ("kill_switch_policy.json", ("drawdown_daily_max",), "0.04", False),
    ("kill_switch_policy.json", ("drawdown_daily_max",), "0.06", True),
    ("kill_switch_policy.json", ("flatten_on",), ["daily_drawdown"], False),
    ("funds_policy.json", ("funds_on",), True, True),
    ("funds_policy.json", ("classes_on", "SPOT"), False, False),
    ("news_policy.json", ("windows", "CPI"), [60, 30], False),
    ("news_policy.json", ("windows", "CPI"), [30, 20], True),
    ("news_policy.json", ("classes", "CPI"), ["SPOT"], True),
    ("cost_policy.json", ("PERP", "taker_fee"), "0.0004", True),
    ("cost_policy.json", ("PERP", "leverage"), "2", False),
])
def test_only_a_change_that_lets_more_through_is_told_as_loosening(folder: Path, name: str, path: tuple[str, ...], value: Any,
                                                                   loosens: bool) -> None:
    old = load_policies(SHIPPED)
    told = tighter(old, changed(folder, name, *path, value=value))
    assert bool(told) is loosens
    if loosens:
        assert all(" -> " in line for line in told)


def test_a_loosening_is_told_with_key_old_and_new(folder: Path) -> None:
    told = tighter(load_policies(SHIPPED), changed(folder, "sizing_policy.json", "risk_fraction_max", value="0.06"))
    assert told == ['sizing.risk_fraction_max: "0.05" -> "0.06"']


def test_dropping_a_kind_of_event_loosens_and_adding_one_does_not(folder: Path) -> None:
    tree = json.loads((folder / "news_policy.json").read_text())
    for section in ("windows", "classes"):
        del tree[section]["CPI"]
    (folder / "news_policy.json").write_text(json.dumps(tree))
    less, full = load_policies(folder), load_policies(SHIPPED)
    assert len(tighter(full, less)) == 3    # before, after, classes
    assert tighter(less, full) == []


def test_going_there_and_back_again_is_never_tight_both_ways() -> None:
    """Whatever key changes, at least one of the two directions is told as loosening (but for versions)."""
    old = load_policies(SHIPPED)
    for field, section in old.model_dump(exclude={"hash"}).items():
        for key, value in section.items():
            if isinstance(value, Decimal):
                new = old.model_copy(update={field: getattr(old, field).model_copy(update={key: value + D("0.01")})})
                assert tighter(old, new) or tighter(new, old), (field, key)


def test_every_direction_in_the_table_belongs_to_a_key_that_exists() -> None:
    existing = patterns(load_policies(SHIPPED))
    assert LOOSER.keys() <= existing
