"""The shipped sentiment model: what it must get right, how fast, how small, and that nothing makes it stumble."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.domain.errors import ConfigurationError
from modules.news import features
from modules.news.sentiment import Sentiment, shipped
from tests.timing import within

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "modules" / "news" / "data" / "sentiment.json"
SIGN = {"+": "positive", "0": "neutral", "-": "negative"}


@pytest.mark.parametrize(("title", "label"), [
    ("Bitcoin plunges 10% as liquidations mount", "negative"), ("Ether surges to record high", "positive"),
    ("Company cuts losses in half", "positive"), ("Inflation eases more than expected", "positive"),
    ("Unemployment rises to highest in a decade", "negative"), ("EUR/USD rises as dollar weakens", "positive"),
    ("EUR/USD falls as dollar strengthens", "negative"), ("GBP/USD pares losses", "positive"), ("Stocks give up gains", "negative"),
    ("Shares fail to rally despite strong earnings", "negative"), ("Apple to hold annual meeting on Tuesday", "neutral"),
    ("What is a bitcoin halving?", "neutral"), ("SEC drops lawsuit against exchange", "positive"),
])
def test_plain_headlines_read_as_anybody_would_read_them(title: str, label: str) -> None:
    assert shipped().read(title).label == label


@pytest.mark.parametrize(("domain", "least"), [("crypto", 60.0), ("forex", 75.0), ("stocks", 75.0)])
def test_headlines_it_was_never_trained_on_are_read_well_in_every_domain(domain: str, least: float) -> None:
    rows = [line.split("\t", 1) for line in (ROOT / "benchmarks" / "headlines" / f"{domain}.tsv").read_text(encoding="utf-8").splitlines()]
    readings = [(SIGN[sign], shipped().read(title)) for sign, title in rows]
    scores = []
    for label in SIGN.values():
        right = sum(1 for truth, reading in readings if truth == label == reading.label)
        scores.append(2.0 * right / (sum(1 for truth, _ in readings if truth == label) + sum(1 for _, r in readings if r.label == label)))
    assert 100.0 * sum(scores) / 3.0 >= least


def test_none_of_the_held_headlines_is_in_the_training_data() -> None:
    def normal(path: Path) -> set[str]:
        return {" ".join(features.tokens(line.split("\t", 1)[1]).words) for line in path.read_text(encoding="utf-8").splitlines()}

    trained = set().union(*(normal(path) for path in WEIGHTS.parent.glob("own_*.tsv")))
    held = set().union(*(normal(path) for path in (ROOT / "benchmarks" / "headlines").glob("*.tsv")))
    assert len(held) > 150 and not trained & held


def test_the_weights_are_small_and_say_where_they_are_from() -> None:
    document = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    assert WEIGHTS.stat().st_size < 800_000    # two readers; under a megabyte of program
    assert document["provenance"]["license"] == "MIT" and "sha256" in document["provenance"]["data"][0]


def test_weights_of_other_features_are_refused() -> None:
    document = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    with pytest.raises(ConfigurationError, match="train it again"):
        Sentiment({**document, "dense_names": ["else"]})


def test_a_headline_is_read_in_well_under_a_millisecond_of_processor_time() -> None:
    model = shipped()
    lines = (ROOT / "benchmarks" / "headlines" / "crypto.tsv").read_text(encoding="utf-8").splitlines()
    titles = [line.split("\t", 1)[1] for line in lines]
    best = math.inf
    for _ in range(5):
        began = time.process_time()
        for title in titles:
            model.read(title)
        best = min(best, (time.process_time() - began) / len(titles))
    assert best < within(0.0003)    # 0.13 ms on an idle core


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=600))
def test_any_text_gives_a_bounded_score_twice_the_same(text: str) -> None:
    reading = shipped().read(text)
    assert -1.0 <= reading.score <= 1.0 and math.isclose(sum(reading.probabilities), 1.0) and reading == shipped().read(text)


def test_endless_text_is_read_as_its_beginning() -> None:
    began = time.process_time()
    shipped().read("Bitcoin https://" + "a" * 1_000_000 + " crashes " * 100_000)
    assert time.process_time() - began < within(0.1)


def test_the_live_process_loads_neither_pandas_nor_scipy_for_its_news() -> None:
    code = ("import sys, modules.News_Agent, modules.news.fetch, modules.news.setup; "
            "from modules.news.sentiment import shipped; shipped().read('Bitcoin rallies'); "
            "sys.exit(any(name in sys.modules for name in ('pandas', 'scipy', 'sklearn', 'numba')))")
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
