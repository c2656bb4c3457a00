"""The report is one file that a browser shows without asking anybody else, with every number beside its bar."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from modules.backtest import report_charts as charts
from modules.backtest.report import render, rolling_sharpe
from tests.validation_examples import empty, example

VOID = {"meta", "br"}


class Outline(HTMLParser):
    """Tags that are open, and everything that refers to somewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "action", "data")]
        self.ids |= {value or "" for name, value in attrs if name == "id"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def outline(page: str) -> Outline:
    found = Outline()
    found.feed(page)
    assert found.open == []
    return found


def test_nothing_is_fetched_and_nothing_runs() -> None:
    page = render([example(), empty()], {"data": "here"})
    found = outline(page)
    assert all(reference.startswith("#") and reference[1:] in found.ids for reference in found.references)
    assert "<script" not in page and "@import" not in page and "url(" not in page and "http" not in page


def test_every_number_stands_beside_its_bar_and_what_is_missing_is_said() -> None:
    one = example()
    words = " ".join(outline(render([one], {})).words)
    for line in one.lines:
        assert line.rule.replace("_", " ").lower() in words
    assert "0.1840" in words and "0.0050" in words
    assert one.missing in words and one.next_command in words


def test_names_from_files_are_text_and_never_markup() -> None:
    page = render([example()], {"data": "<script>alert(1)</script>"})
    assert "<script" not in page and "<b>ETH" not in page and "<soon>" not in page
    assert "&lt;b&gt;ETH/USDT" in page


def test_an_approved_a_rejected_and_an_empty_one_share_a_page() -> None:
    page = render([example(verdict="APPROVED"), example(), empty()], {})
    assert page.count('class="section"') == 3
    assert "step raised ZeroDivisionError" in page
    assert page.count("Nothing to draw") >= 5


@pytest.mark.parametrize("days", [4, 30, 400])
def test_a_short_history_is_drawn_without_an_error_and_without_nonsense_in_it(days: int) -> None:
    page = render([example(days)], {}) if days > 100 else render([empty()], {})
    assert "nan" not in re.findall(r'points="([^"]*)"', page)
    assert not re.search(r'(points|d|x|y|width|height)="[^"]*(nan|inf)', page)


def test_a_rolling_sharpe_is_that_of_its_window_and_flat_days_have_none() -> None:
    draw = np.random.default_rng(3)
    daily = draw.standard_normal(300) * 0.01 + 0.001
    found = rolling_sharpe(daily, 365.0, 90)
    part = daily[110:200]
    assert found[199] == pytest.approx(part.mean() / part.std(ddof=1) * math.sqrt(365.0), rel=1e-9)
    assert np.isnan(found[:89]).all()
    assert np.isnan(rolling_sharpe(np.zeros(300), 365.0, 90)).all()


def test_thinning_a_curve_keeps_its_peaks() -> None:
    x = np.arange(100_000.0)
    y = np.zeros(100_000)
    y[31_415], y[77_777] = 5.0, -7.0
    thin_x, thin_y = charts.thinned(x, y)
    assert len(thin_x) <= charts.POINTS_MAX
    assert (thin_y.max(), thin_y.min()) == (5.0, -7.0)
    assert np.all(np.diff(thin_x) > 0)


def test_axis_labels_are_round_numbers_inside_the_axis() -> None:
    for low, high in ((0.0, 1.0), (-0.037, 0.21), (9_000.0, 64_000.0), (-1e-6, 1e-6)):
        scale = charts.Scale(low, high)
        found = charts.ticks(scale)
        assert 2 <= len(found) <= 6
        assert all(low <= value <= high for value in found)
    assert [text for _, text in charts.day_ticks(charts.Scale(18_262.0, 20_000.0))] == ["2020", "2021", "2022", "2023", "2024"]


def test_a_page_fits_a_phone_as_well_as_a_desk(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a Chromium")
    page = tmp_path / "report.html"
    page.write_text(render([example(), empty()], {"data": "x" * 200}), encoding="utf-8")
    probe = page.read_text().replace("</body>", "<script>document.title = [document.documentElement.scrollWidth, innerWidth, "
                                     "document.querySelectorAll('svg').length].join(' ')</script></body>")
    (tmp_path / "probe.html").write_text(probe, encoding="utf-8")
    for width in (600, 1280):  # a window of a headless browser is at least 500 wide
        shown = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom",
                                f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900",
                                (tmp_path / "probe.html").as_uri()], capture_output=True, text=True, timeout=300,
                               env={**os.environ, "HOME": str(tmp_path)}, check=False)
        told = re.search(r"<title>(\d+) (\d+) (\d+)</title>", shown.stdout)
        assert told is not None, shown.stderr[-500:]
        needed, there, pictures = map(int, told.groups())
        assert needed <= there and pictures >= 6
