"""The curve behind the pictures: on its grid, thinned with age, never in trading's way."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from modules.domain.instrument import AssetClass
from modules.store.equity import FINE_MS, GRID_MS, HOUR_MS, EquityCurve, Point

SPOT = AssetClass.SPOT
START = 1_767_571_200_000


def filled(path: Path | None, hours: int) -> EquityCurve:
    curve = EquityCurve(path)
    for at in range(START, START + hours * HOUR_MS, GRID_MS):
        assert curve.due(at)
        curve.record(at, {SPOT: (Decimal(at - START), 1.0, 0.01, 0.02)})
        assert not curve.due(at + GRID_MS - 1)
    return curve


def test_a_point_is_money_to_the_last_unit_at_its_grid_instant(tmp_path: Path) -> None:
    curve = EquityCurve(tmp_path / "equity.sqlite")
    curve.record(START + 17, {SPOT: (Decimal("950.12345678"), 1.0, 0.01, 0.02)})
    curve.close()
    again = EquityCurve(tmp_path / "equity.sqlite").read([SPOT], START, START + 1)
    assert again == {SPOT: [Point(START, Decimal("950.12345678"), 1.0, 0.01, 0.02)]}


def test_of_too_many_points_the_last_of_each_equal_span_is_drawn() -> None:
    curve = filled(None, 20)
    points = curve.read([SPOT], START, START + 20 * HOUR_MS, points_max=20)[SPOT]
    assert [point.at for point in points] == [START + hour * HOUR_MS + 11 * GRID_MS for hour in range(20)]


def test_after_a_week_only_the_hours_are_kept() -> None:
    curve = filled(None, 10)
    curve.flush()
    curve.thin_out(START + FINE_MS + 5 * HOUR_MS)
    points = curve.read([SPOT], START, START + 10 * HOUR_MS)[SPOT]
    assert len(points) == 5 + 5 * 12
    assert all(point.at % HOUR_MS == 0 for point in points[:5])
