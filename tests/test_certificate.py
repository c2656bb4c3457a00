"""A certificate permits exactly what was validated, and a file that is not one permits nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.domain.certificate import CertificateError, bound, check, load, parse, save
from modules.domain.events import StrategyApproved
from modules.domain.gate import weakened
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.store import codec
from modules.strategies.fingerprint import code_hash, params_of
from modules.strategies.indicators import ema
from modules.strategies.registry import FOLDER, discover, get
from tests.builders import AT, shipped_policies
from tests.certificates import certificate


def faults(policies: Policies, asset_class: AssetClass = AssetClass.SPOT, **changes: Any) -> tuple[str, ...]:
    """What stands between the shared certificate and these policies."""
    found = certificate(asset_class=asset_class)
    now: dict[str, Any] = {"code_hash": found.code_hash, "params": found.params, "policy": bound(policies, asset_class), **changes}
    return check(found, **now)


def with_policy(part: str, **changes: Any) -> Policies:
    shipped = shipped_policies()
    return shipped.model_copy(update={part: getattr(shipped, part).model_copy(update=changes)})


# -- the file ------------------------------------------------------------------------------------------------------------------


def test_a_certificate_reads_back_as_it_was_written_and_so_does_its_fact(tmp_path: Path) -> None:
    written = certificate()
    path = save(written, tmp_path)
    assert load(path) == written
    fact = StrategyApproved(AT, written, path.name)
    assert codec.decode(*codec.encode(fact), 1) == fact


def test_whole_numbers_in_a_fields_place_for_fractions_make_the_same_certificate(tmp_path: Path) -> None:
    whole = certificate(params={name: int(value) if value == int(value) else value for name, value in certificate().params.items()})
    assert load(save(whole, tmp_path)).digest == certificate().digest


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(min_value=0, max_value=100_000))
def test_a_file_cut_short_anywhere_permits_nothing(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = save(certificate(), tmp_path_factory.mktemp("c")).read_text().rstrip("\n")
    with pytest.raises(CertificateError):
        parse(text[:cut % len(text)], "x.json")


@pytest.mark.parametrize("field, value", [
    ("confidence", 0.99), ("expires_at", AT * 2), ("instruments", ["DOGE/USDT"]), ("strategy", "reversion"), ("data_hash", "e" * 64)])
def test_an_edited_file_permits_nothing(field: str, value: Any, tmp_path: Path) -> None:
    path = save(certificate(), tmp_path)
    tree = json.loads(path.read_text())
    tree["certificate"][field] = value
    path.write_text(json.dumps(tree))
    with pytest.raises(CertificateError, match="changed after it was issued") as caught:
        load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [
    "", "{}", "[]", "null", "NaN", '{"certificate": {}, "digest": ""}', '{"certificate": 7, "digest": 7}', "[" * 100_000,
    '{"certificate": {"version": 2}, "digest": "x"}'])
def test_a_foreign_file_is_one_clear_error(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(CertificateError) as caught:
        load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_bytes_that_are_no_text_and_a_file_that_is_not_there_are_errors_too(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    for name in ("x.json", "absent.json"):
        with pytest.raises(CertificateError, match=name):
            load(tmp_path / name)


@pytest.mark.parametrize("changes", [
    {"confidence": 1.2}, {"confidence": float("nan")}, {"instruments": ()}, {"expires_at": AT - 1}, {"code_hash": "short"},
    {"metrics": {"sharpe": float("inf")}}, {"data_until": AT + 1}])
def test_what_no_validation_could_have_found_is_not_even_written(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CertificateError):
        save(certificate(**changes), tmp_path)
    assert not list(tmp_path.iterdir())


# -- what it is bound to -----------------------------------------------------------------------------------------------------------


def test_under_what_it_was_issued_for_it_holds() -> None:
    for asset_class in AssetClass:
        assert faults(shipped_policies(), asset_class) == ()


def test_another_parameter_or_other_code_voids_it_and_says_which() -> None:
    assert "slow = 400.0, certified 384.0" in faults(shipped_policies(), params={**certificate().params, "slow": 400.0})[0]
    assert "code changed" in faults(shipped_policies(), code_hash="0" * 64)[0]


def test_other_costs_void_it_in_either_direction() -> None:
    for fee in ("0.0009", "0.0011"):
        spot = shipped_policies().costs.SPOT.model_copy(update={"taker_fee": Decimal(fee)})
        assert any("costs.SPOT.taker_fee" in fault for fault in faults(with_policy("costs", SPOT=spot)))


def test_the_costs_of_another_class_are_none_of_its_business() -> None:
    perp = shipped_policies().costs.PERP.model_copy(update={"taker_fee": Decimal("0.01")})
    assert faults(with_policy("costs", PERP=perp)) == ()


def test_a_tightened_cap_does_not_void_it_and_a_loosened_one_does() -> None:
    now = shipped_policies().risk.funding_rate_8h_max
    assert faults(with_policy("risk", funding_rate_8h_max=now / 2), AssetClass.PERP) == ()
    assert "risk.funding_rate_8h_max" in faults(with_policy("risk", funding_rate_8h_max=now * 2), AssetClass.PERP)[0]
    volume = shipped_policies().risk.quote_volume_24h_min
    assert faults(with_policy("risk", quote_volume_24h_min=volume * 2)) == ()
    assert "quote_volume_24h_min" in faults(with_policy("risk", quote_volume_24h_min=volume / 2))[0]


def test_what_changes_no_simulated_result_does_not_void_it() -> None:
    assert faults(with_policy("execution", wallet_poll_s=99.0)) == ()
    assert faults(with_policy("kill_switch", drawdown_daily_max=Decimal("0.01"))) == ()


# -- the code ------------------------------------------------------------------------------------------------------------------------


def _plain(state: Any, market: Any, params: Any) -> Any:
    return state, ema(state, market.close, 0.1)


def _other(state: Any, market: Any, params: Any) -> Any:
    return state, ema(state, market.close, 0.2)


def test_every_shipped_strategy_has_a_hash_of_its_own_and_keeps_it() -> None:
    names = ("trend", "breakout", "reversion", "carry", "session", "long_option", "credit_spread")
    hashes = [code_hash(get(name)) for name in names]
    assert len(set(hashes)) == len(names) and hashes == [code_hash(get(name)) for name in names]


def test_a_changed_constant_helper_or_declaration_is_other_code() -> None:
    trend = get("trend")
    assert code_hash(replace(trend, step=_plain)) != code_hash(replace(trend, step=_other))
    assert code_hash(replace(trend, warmup=trend.warmup + 1)) != code_hash(trend)


def test_comments_and_layout_are_not_code_and_a_helpers_constant_is(tmp_path: Path) -> None:
    plain = (FOLDER / "trend.py").read_text()
    helper = "from modules.strategies.indicators import"
    for name, text in (("plain", plain), ("commented", plain.replace("    separation =", "    # a word about it\n\n    separation =")),
                       ("changed", plain.replace("state.bars + 1", "state.bars + 2"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.py").write_text(text)
        assert helper in text
    one, same, other = (
        code_hash(discover(tmp_path / name, f"tmp_{name}").strategies["trend"]) for name in ("plain", "commented", "changed"))
    assert one == same == code_hash(get("trend"))
    assert one != other


def test_parameters_are_not_code_and_are_named_one_by_one() -> None:
    trend = get("trend")
    other = replace(trend, params=trend.params._replace(slow=500))
    assert code_hash(other) == code_hash(trend)
    assert params_of(other)["slow"] == 500.0


# -- a weakened gate -----------------------------------------------------------------------------------------------------------------


def test_the_shipped_gate_is_not_weak_and_a_weakened_one_states_its_rate() -> None:
    validation = shipped_policies().validation
    assert weakened(validation) == ""
    said = weakened(validation.model_copy(update={"p_value_max": 0.05}))
    assert "p_value_max 0.05 (shipped 0.005)" in said and "5.0%" in said
    assert "p_value_later 0.02 (shipped 0.003)" in (later := weakened(validation.model_copy(update={"p_value_later": 0.02})))
    assert "2.5% however often" in later
    assert "67% as the best of 100" in weakened(validation.model_copy(update={"p_value_max": 1.0}))
    assert "trades_min 100 (shipped 500)" in weakened(validation.model_copy(update={"trades_min": 100}))


@pytest.mark.parametrize("asset_class", [AssetClass.OPTION, AssetClass.FOREX])
def test_a_bar_that_one_class_has_lower_than_another_is_watched_by_itself(asset_class: AssetClass) -> None:
    validation = shipped_policies().validation
    raised = {**validation.drawdown_max, asset_class: Decimal("0.15")}
    assert f"drawdown_max.{asset_class} 0.15 (shipped 0.12)" in weakened(validation.model_copy(update={"drawdown_max": raised}))
    floor = {**validation.sharpe_min, asset_class: Decimal("0.5")}
    assert f"sharpe_min.{asset_class} 0.5 (shipped 1)" in weakened(validation.model_copy(update={"sharpe_min": floor}))


def test_a_stricter_gate_is_nothing_to_warn_of() -> None:
    validation = shipped_policies().validation
    assert weakened(validation.model_copy(update={"p_value_max": 0.001, "trades_min": 900})) == ""
