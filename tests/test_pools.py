"""Whose money is in a wallet: whatever differs is divided without a rest, the owner's part never goes below nothing, ours never grows."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from modules.domain.instrument import AssetClass
from modules.domain.pools import divided, divided_position, merged, pools_of, pro_rata
from modules.Funds_Controller import FundsController
from modules.store.journal import Journal
from tests.builders import shipped_policies

D = Decimal
SPOT, PERP, FOREX = AssetClass.SPOT, AssetClass.PERP, AssetClass.FOREX
money = st.decimals(-1_000_000, 1_000_000, places=8)
positive = st.decimals(0, 1_000_000, places=8)


@given(money, positive, st.dictionaries(st.sampled_from([SPOT, PERP]), positive, min_size=1))
def test_a_difference_is_divided_without_a_rest(difference: Decimal, owners: Decimal, books: dict[AssetClass, Decimal]) -> None:
    part = divided(difference, owners, books)
    assert part.owners + sum(part.classes.values(), D(0)) == difference
    assert owners + part.owners >= 0 and all(amount <= 0 for amount in part.classes.values())
    if owners + difference >= 0:
        assert part.classes == {}, "the owner's part covers it"


@given(money, money, money)
def test_of_a_net_position_ours_is_what_is_there_of_it_and_never_more_than_before(
        difference: Decimal, owners: Decimal, ours: Decimal) -> None:
    part = divided_position(difference, owners, {PERP: ours})
    left = ours + part.classes.get(PERP, D(0))
    assert part.owners + part.classes.get(PERP, D(0)) == difference
    assert abs(left) <= abs(ours) and left * ours >= 0
    found = ours + owners + difference
    assert left == 0 if found * ours <= 0 else abs(left) <= abs(found)


@given(positive.filter(bool), st.dictionaries(st.sampled_from([SPOT, PERP, FOREX]), positive.filter(bool), min_size=1))
def test_shares_add_up_to_the_last_unit(amount: Decimal, weights: dict[AssetClass, Decimal]) -> None:
    parts = pro_rata(amount, weights)
    assert sum(parts.values(), D(0)) == amount and all(part >= 0 for part in parts.values())


def test_one_wallet_for_all_is_one_pool_and_else_each_class_has_its_own() -> None:
    (one,) = pools_of("bybit", (SPOT, PERP), shared=True)
    assert (one.name, one.classes) == ("", (SPOT, PERP))
    assert [pool.name for pool in pools_of("binance", (SPOT, PERP), shared=False)] == ["SPOT", "PERP"]
    assert [pool.name for pool in pools_of("bybit", (SPOT,), shared=True)] == ["SPOT"]
    assert merged([{"A": D(1), "B": D(2)}, {"A": D(-1)}]) == {"B": D(2)}


def test_grants_fill_allocations_scale_them_and_take_back_what_the_owner_takes_back() -> None:
    funds = FundsController(Journal(None), shipped_policies().funds, {SPOT: D(3_000), PERP: D(6_000)})
    both = (SPOT, PERP)
    nothing = dict.fromkeys(both, D(0))
    assert funds.grants(both, nothing, D(10_000)) == {SPOT: D(3_000), PERP: D(6_000)}
    assert funds.grants(both, nothing, D(6_000)) == {SPOT: D(2_000), PERP: D(4_000)}
    assert funds.grants(both, nothing, D(0)) == funds.grants(both, nothing, D(-5)) == {}
    assert funds.grants(both, {SPOT: D(3_000), PERP: D(7_000)}, D(500)) == {PERP: D(-1_000)}
    assert funds.grants(both, {SPOT: D(3_000), PERP: D(6_000)}, D(500)) == {}
