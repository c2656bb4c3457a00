"""A fact that went through the journal is the fact that went in, and everything else is refused by name."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.domain import events
from modules.domain.decision import BoundBy, Check, Decision, Outcome, Rule, Size
from modules.domain.errors import JournalCorrupt
from modules.domain.events import Fact
from modules.domain.instrument import AssetClass, Instrument, Right, Side
from modules.domain.market import Quote
from modules.domain.order import Fill, Order, OrderKind, Purpose
from modules.store import codec

AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False, min_value=Decimal("-1e20"), max_value=Decimal("1e20"))
# Characters include half surrogate pairs and NUL: that is what hostile text from outside holds.
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(alphabet=st.characters(exclude_categories=()), max_size=12),
    int: st.integers(-(2**63) + 1, 2**63 - 1),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    Decimal: AMOUNTS,
    types.NoneType: st.none(),
}


def values_of(declared: Any) -> st.SearchStrategy[Any]:
    """Any value that a field declared as `declared` may hold."""
    if declared in VALUES:
        return VALUES[declared]
    if get_origin(declared) in (Union, types.UnionType):
        members = get_args(declared)
        if str in members and float in members:  # there "inf" would be text: such a place is for finite numbers
            return st.one_of(VALUES[str], st.floats(allow_nan=False, allow_infinity=False))
        return st.one_of([values_of(member) for member in members])
    if get_origin(declared) is tuple:
        inside = get_args(declared)
        if inside[-1] is Ellipsis:
            return st.lists(values_of(inside[0]), max_size=3).map(tuple)
        return st.tuples(*[values_of(member) for member in inside])
    if get_origin(declared) is dict:
        return st.dictionaries(values_of(get_args(declared)[0]), values_of(get_args(declared)[1]), max_size=3)
    if issubclass(declared, Enum):
        return st.sampled_from(declared)
    hints = get_type_hints(declared)
    return st.builds(declared, **{field.name: values_of(hints[field.name]) for field in dataclasses.fields(declared)})


def order(**changes: Any) -> Order:
    plain = Order(
        client_order_id="tb0", trade_id="t", decision_id="d", strategy="trend", venue="paper", symbol="BTC/USDT",
        asset_class=AssetClass.SPOT, side=Side.BUY, quantity=Decimal("0.5"), kind=OrderKind.LIMIT,
        purpose=Purpose.ENTRY, price=Decimal("100.10"), reduce_only=False,
        leverage=Decimal(1), arrival_price=Decimal(100), slippage_model_bp=Decimal("3.5"), reserves=Decimal("50.05"), at=7,
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def through(fact: Fact) -> Fact:
    kind, payload = codec.encode(fact)
    return codec.decode(kind, payload, 1)


@pytest.mark.parametrize("kind", get_args(Fact), ids=lambda kind: kind.__name__)
def test_every_kind_of_fact_reads_back_equal_and_of_the_same_types(kind: type) -> None:
    @settings(max_examples=15, deadline=None, database=None, derandomize=True)
    @given(values_of(kind))
    def check(fact: Any) -> None:
        back = through(fact)
        assert type(back) is kind
        assert back == fact
        for field in dataclasses.fields(kind):
            assert type(getattr(back, field.name)) is type(getattr(fact, field.name))

    check()


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(values_of(Decision))
def test_a_decision_reads_back_equal(decision: Decision) -> None:
    assert codec.unpack(Decision, codec.pack(decision)) == decision


def test_what_reads_back_is_as_frozen_and_hashable_as_what_went_in() -> None:
    back = through(events.OrderIntended(1, order()))
    assert isinstance(back, events.OrderIntended)
    assert hash(back) == hash(events.OrderIntended(1, order()))
    assert repr(back) == repr(events.OrderIntended(1, order()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        back.at = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        back.order.quantity = Decimal(2)  # type: ignore[misc]
    assert dataclasses.replace(back, at=3) == events.OrderIntended(3, order())


def test_money_is_plain_text_without_an_exponent() -> None:
    amounts = {"1E+3": "1000", "1E-8": "0.00000001", "-0.00": "-0.00", "12345678901234567890.123456789": "12345678901234567890.123456789"}
    for written, plain in amounts.items():
        _, payload = codec.encode(events.PeakRaised(1, AssetClass.SPOT, Decimal(written)))
        assert json.loads(payload)["nav"] == plain


@pytest.mark.parametrize("number", [math.inf, -math.inf, 5e-324, 0.1 + 0.2, -0.0, 1e308])
def test_floats_read_back_to_the_last_bit(number: float) -> None:
    back = through(events.FundingBooked(1, "v", "s", AssetClass.PERP, Decimal(1), number, "r"))
    assert isinstance(back, events.FundingBooked)
    assert back.rate.hex() == number.hex()


def test_a_rate_that_is_not_a_number_stays_one() -> None:
    back = through(events.FundingBooked(1, "v", "s", AssetClass.PERP, Decimal(1), math.nan, "r"))
    assert isinstance(back, events.FundingBooked)
    assert math.isnan(back.rate)


def test_a_numpy_float_is_written_as_the_float_it_is() -> None:
    back = through(events.FundingBooked(1, "v", "s", AssetClass.PERP, Decimal(1), np.float64(0.1), "r"))
    assert isinstance(back, events.FundingBooked)
    assert type(back.rate) is float
    assert back.rate == 0.1


@pytest.mark.parametrize(
    "fact",
    [
        events.PeakRaised(1, AssetClass.SPOT, 1.5),  # type: ignore[arg-type]
        events.PeakRaised(1, "SPOT", Decimal(1)),  # type: ignore[arg-type]
        events.PeakRaised(True, AssetClass.SPOT, Decimal(1)),
        events.PeakRaised(1, AssetClass.SPOT, Decimal("NaN")),
        events.PeakRaised(1, AssetClass.SPOT, Decimal("Infinity")),
        events.PeakRaised(2**63, AssetClass.SPOT, Decimal(1)),
        events.OrderIntended(1, None),  # type: ignore[arg-type]
        events.BlackoutOpened(1, "CPI", 1, 2, ["SPOT"]),  # type: ignore[arg-type]
        order(),
    ],
    ids=["float money", "text enum", "bool time", "NaN money", "infinite money", "65 bits", "missing order", "list", "not a fact"],
)
def test_a_value_that_would_not_read_back_the_same_is_refused_before_it_is_written(fact: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        codec.encode(fact)


def test_an_old_row_lacks_fields_that_have_a_default_by_now_and_still_decodes() -> None:
    one = Decimal(1)
    fill = Fill("v", "s", "1", "c", Side.SELL, one, Decimal(2), Decimal(0), "USDT", one, one, True, 5, liquidation=False)
    kind, payload = codec.encode(events.Filled(5, fill, True))
    old = json.loads(payload)
    del old["fill"]["liquidation"]
    assert codec.decode(kind, json.dumps(old).encode(), 1) == events.Filled(5, fill, True)

    listed = Instrument("s", "v", AssetClass.SPOT, "B", "Q", "Q", "B", Decimal("0.1"), Decimal("0.01"))
    kind, payload = codec.encode(events.InstrumentListed(1, listed))
    old = json.loads(payload)
    for field in dataclasses.fields(Instrument)[9:]:
        del old["instrument"][field.name]
    assert codec.decode(kind, json.dumps(old).encode(), 1) == events.InstrumentListed(1, listed)


@pytest.mark.parametrize(
    ("kind", "payload", "named"),
    [
        (b"PeakLowered", b"{}", "PeakLowered"),
        (b"PeakRaised", b'{"at":1,"asset_class":"SPOT"}', "nav"),
        (b"PeakRaised", b'{"at":1,"asset_class":"SPOT","nav":"1","since":4}', "since"),
        (b"PeakRaised", b'{"at":1,"asset_class":"SPOT","value":"1"}', "value"),
        (b"PeakRaised", b'{"at":1,"asset_class":"STOCK","nav":"1"}', "STOCK"),
        (b"PeakRaised", b'{"at":1,"asset_class":"SPOT","nav":1.5}', "nav"),
        (b"PeakRaised", b'{"at":1,"asset_class":"SPOT","nav":"NaN"}', "NaN"),
        (b"PeakRaised", b'{"at":1,"asset_class":"SPOT","nav":"lots"}', "lots"),
        (b"PeakRaised", b'{"at":"1","asset_class":"SPOT","nav":"1"}', "at"),
        (b"PeakRaised", b'{"at":true,"asset_class":"SPOT","nav":"1"}', "at"),
        (b"PeakRaised", b'{"at":NaN,"asset_class":"SPOT","nav":"1"}', "PeakRaised"),
        (b"PeakRaised", b'{"at":1,"asset_class":"SPOT","nav":"1"', "PeakRaised"),
        (b"PeakRaised", b"[]", "object"),
        (b"PeakRaised", b"\xff\xfe", "PeakRaised"),
        (b"OrderIntended", b'{"at":1,"order":null}', "order"),
        (b"FundingBooked", b'{"at":1,"venue":"v","symbol":"s","asset_class":"PERP","amount":"1","rate":"high","venue_ref":""}', "high"),
    ],
)
def test_a_malformed_row_is_corruption_that_names_the_row_and_the_remedy(kind: bytes, payload: bytes, named: str) -> None:
    with pytest.raises(JournalCorrupt, match="row 4711") as caught:
        codec.decode(kind, payload, 4711)
    assert named in str(caught.value)
    assert "restore the last backup" in str(caught.value)


class Corner(NamedTuple):
    quote: Quote
    rules: tuple[Rule, ...]


def test_to_json_prints_any_mix_of_ours_with_money_as_text() -> None:
    one = Decimal(1)
    size = Size(True, 1, Decimal("1E+1"), one, one, one, one, BoundBy.RISK, "", (), ((BoundBy.LOT, Decimal(2)),))
    check = Check(Rule.BLACKOUT, None, math.nan, "min", False)
    document = {
        AssetClass.SPOT: size,
        "corner": Corner(Quote(1, 0.5, math.nan), (Rule.BLACKOUT,)),
        "checks": [check],
        "set": {Right.PUT, Right.CALL},
        7: Outcome.DENIED,
    }
    printed = json.loads(json.dumps(codec.to_json(document), allow_nan=False))
    assert printed["SPOT"]["notional"] == "10"
    assert printed["SPOT"]["ceilings"] == [["lot", "2"]]
    assert printed["corner"] == {"quote": {"at": 1, "bid": 0.5, "ask": None, "synthetic": False}, "rules": ["BLACKOUT"]}
    assert printed["checks"] == [{"rule": "BLACKOUT", "measured": None, "limit": None, "unit": "min", "passed": False, "note": ""}]
    assert printed["set"] == ["C", "P"]
    assert printed["7"] == "DENIED"


def test_to_json_refuses_what_it_does_not_know() -> None:
    for stranger in (object(), b"bytes", {1.5: "x"}, Order):
        with pytest.raises(TypeError):
            codec.to_json(stranger)
