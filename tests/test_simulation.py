"""Whole daemons on virtual time in seeded weather (tests/simulated_life.py). Long campaigns: `python -m benchmarks.simulation`."""

from __future__ import annotations

import pytest

from benchmarks import simulation, simulation_mutants
from tests.simulated_life import played


@pytest.mark.parametrize("seed", [3, 17])
def test_hours_of_faults_deaths_and_an_owner_who_meddles_leave_every_invariant_standing(seed: int) -> None:
    simulation.quiet()
    history = played(seed, hours=3.0, intensity=3.0)
    assert history.monitor.violations == []
    assert history.trades > 10 and len(history.lives) > 1 and len(history.exchange.weather.seen) > 10
    assert min(history.monitor.checks[law] for law in ("I01", "I02", "I08", "I10", "I12", "I13", "I14", "I15", "I16", "I17", "L1")) >= 1


def test_one_seed_is_one_history_row_for_row() -> None:
    simulation.quiet()
    first, again, other = (played(seed, hours=0.5, intensity=3.0) for seed in (5, 5, 6))
    assert (first.head, first.rows) == (again.head, again.rows) and first.head != other.head


@pytest.mark.parametrize("mutant", [
    "orders leave before they are on record", "no stop is placed, and nothing closes what has none", "sizes are not rounded"])
def test_a_safeguard_that_is_switched_off_is_noticed(mutant: str) -> None:
    simulation.quiet()
    assert simulation_mutants.noticed(mutant, [1], hours=0.5, intensity=1.0)["noticed_by"]


@pytest.mark.slow
@pytest.mark.parametrize("mutant", simulation_mutants.MUTANTS)
def test_every_safeguard_that_is_switched_off_is_noticed(mutant: str) -> None:
    simulation.quiet()
    assert simulation_mutants.noticed(mutant, range(1, 21), hours=8.0, intensity=2.0)["noticed_by"]
