"""`new-strategy` writes files that work as they are: they import, keep the rules, and please the linter and the type checker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modules.cli.new_strategy import create
from modules.domain.errors import OperatorRefused
from modules.strategies.registry import discover

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """As much of the project as a strategy stands on, in a folder of its own."""
    for package in ("domain", "runtime", "strategies"):
        shutil.copytree(ROOT / "modules" / package, tmp_path / "modules" / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "modules" / "__init__.py", tmp_path / "modules")
    (tmp_path / "tests").mkdir()
    for name in ("__init__.py", "strategy_contract.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def call(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a tool as the owner would, in the project's root."""
    environment = {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-m", *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_a_new_strategy_and_its_test_are_written_and_the_test_passes(project: Path) -> None:
    written = create("night_owl", project)
    assert [path.relative_to(project).as_posix() for path in written] == ["modules/strategies/night_owl.py", "tests/test_night_owl.py"]
    done = call(project, "pytest", "-p", "no:cacheprovider", "tests/test_night_owl.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_a_new_strategy_is_listed_beside_the_shipped_ones(project: Path) -> None:
    create("night_owl", project)
    found = discover(project / "modules" / "strategies", "listing_example")
    assert found.faults == ()
    assert {"night_owl", "trend"} <= set(found.strategies)
    assert "NightOwlParams" in repr(found.strategies["night_owl"].params)


def test_what_is_written_pleases_the_linter_and_the_type_checker(project: Path) -> None:
    paths = [str(path.relative_to(project)) for path in create("night_owl", project)]
    for tool in (("ruff", "check"), ("ruff", "format", "--check")):
        done = call(project, *tool, *paths)
        assert done.returncode == 0, done.stdout + done.stderr
    done = call(project, "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache" / "new_strategy"), *paths)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "name", ["", "Two Words", "2fast", "class", "match", "a-b", "../escape", "Trend", "größe", "registry", "indicators"]
)
def test_a_name_that_cannot_name_a_strategy_is_refused_and_nothing_is_written(project: Path, name: str) -> None:
    before = sorted(project.rglob("*"))
    with pytest.raises(OperatorRefused):
        create(name, project)
    assert sorted(project.rglob("*")) == before


def test_an_existing_file_is_never_overwritten_and_leaves_nothing_half_done(project: Path) -> None:
    trend = project / "modules" / "strategies" / "trend.py"
    before = trend.read_text()
    with pytest.raises(OperatorRefused, match="never overwritten"):
        create("trend", project)
    assert trend.read_text() == before
    assert not (project / "tests" / "test_trend.py").exists()
    (project / "tests" / "test_idea.py").write_text("# mine\n")
    with pytest.raises(OperatorRefused, match="test_idea"):
        create("idea", project)
    assert not (project / "modules" / "strategies" / "idea.py").exists()


def test_a_folder_that_is_no_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperatorRefused, match="root folder"):
        create("idea", tmp_path)
