"""The sentiment model's network: its gradient is the slope of its loss, what is shipped reads as what was trained, exactly, and its tables
are checked."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from modules.domain.errors import ConfigurationError
from modules.news import features, network
from modules.news.network import Network
from modules.news.network_training import Examples, Schedule, Weights, fit, gradient, likely, start
from modules.news.sentiment import Sentiment

WEIGHTS = Path(__file__).resolve().parents[1] / "modules" / "news" / "data" / "sentiment.json"
SMALL = Schedule(vector_size=5, filters=4, epochs=150, batch=6, rate=2e-2, word_dropout=0.0, vector_dropout=0.0, answer_dropout=0.0)
WORDS = ["rises", "falls", "not", "bitcoin", "losses"]
HEADLINES = [["bitcoin", "rises"], ["bitcoin", "falls"], ["losses", "rises"], ["losses", "falls"], ["not", "falls"], ["bitcoin"]]
LABELS = [0, 2, 2, 0, 0, 1]
DENSE = len(features.DENSE)


def examples() -> Examples:
    rows = [[network.UNKNOWN + 1 + WORDS.index(word) for word in headline] for headline in HEADLINES]
    chance = np.random.default_rng(1)
    dense = chance.integers(-1, 2, (len(rows), DENSE)).astype(np.float32)
    return Examples(rows, dense, np.array(LABELS), chance.uniform(0.5, 2.0, len(rows)).astype(np.float32))


def table(text: str, kind: str) -> NDArray[np.float64]:
    return np.frombuffer(base64.b64decode(text), dtype=kind).astype(np.float64)


def test_the_gradient_is_the_slope_of_the_loss_in_every_weight() -> None:
    part = examples()
    weights: Weights = {name: values.astype(np.float64) for name, values in
                        start(len(WORDS) + 2, DENSE, SMALL, np.random.default_rng(3)).items()}    # differences need a double's digits
    for width in network.WIDTHS:    # away from the kink at zero, where a window of nothing but edge would stand
        weights[f"bias{width}"] += np.random.default_rng(width).uniform(0.02, 0.1, SMALL.filters)
    _, slopes, which = gradient(weights, part, SMALL, None)
    checked = 0
    for name, values in weights.items():
        flat = values.reshape(-1)
        whole = np.zeros_like(values)
        whole[which if name == "vectors" else slice(None)] = slopes[name]
        for place in range(0, flat.size, 3):
            if name == "vectors" and place // SMALL.vector_size == network.PAD:
                continue
            kept = flat[place]
            flat[place] = kept + 1e-6
            above = gradient(weights, part, SMALL, None)[0]
            flat[place] = kept - 1e-6
            below = gradient(weights, part, SMALL, None)[0]
            flat[place] = kept
            assert whole.reshape(-1)[place] == pytest.approx((above - below) / 2e-6, abs=1e-6)
            checked += 1
    assert checked > 60


def test_it_learns_that_a_fall_is_good_news_of_losses_and_bad_news_of_a_coin() -> None:
    part = examples()._replace(dense=np.zeros((len(HEADLINES), DENSE), dtype=np.float32))    # the words alone have to tell
    trained = fit(part, len(WORDS) + 2, SMALL)
    assert likely(trained, part.rows, part.dense).argmax(axis=1).tolist() == LABELS
    again = fit(part, len(WORDS) + 2, SMALL)
    assert all((trained[name] == again[name]).all() for name in trained)


def test_what_is_shipped_reads_as_what_was_trained() -> None:
    part = examples()
    trained = fit(part, len(WORDS) + 2, SMALL)
    shipped = Network(network.packed(WORDS, trained))
    for place, headline in enumerate(HEADLINES):
        logits = np.array(shipped.logits(headline, part.dense[place].tolist()))
        raised = np.exp(logits - logits.max())
        assert raised / raised.sum() == pytest.approx(likely(trained, [part.rows[place]], part.dense[place : place + 1])[0], abs=0.02)


def test_its_sums_are_whole_numbers_that_doubles_hold_exactly_in_any_order() -> None:
    document = json.loads(WEIGHTS.read_text(encoding="utf-8"))["network"]
    size = document["vector_size"]
    strongest = 0.0
    for width in network.WIDTHS:
        filters = np.abs(table(document[f"filters{width}"], "<i2").reshape(width * size, -1)).sum(axis=0).max()
        strongest = max(strongest, float(filters) * 128.0 + float(np.abs(table(document[f"bias{width}"], "<i4")).max()))
    assert float(np.abs(table(document["out"], "<i2").reshape(-1, 3)).sum(axis=0).max()) * strongest < 2.0**53


def test_a_headline_without_a_known_word_and_one_without_any_word_are_read() -> None:
    shipped = Network(network.packed(WORDS, fit(examples(), len(WORDS) + 2, SMALL)))
    assert len(shipped.logits(["unheard", "of"], [0.0] * DENSE)) == len(shipped.logits([], [0.0] * DENSE)) == 3
    assert shipped.logits([], [0.0] * DENSE) == shipped.logits(["unheard"], [0.0] * DENSE)


@pytest.mark.parametrize("change", ["vectors", "filters2", "out", "words"])
def test_a_table_that_is_missing_or_cut_short_is_refused_in_words(change: str) -> None:
    document = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    whole = document["network"]
    without = {key: value for key, value in whole.items() if key != change}
    for damaged in (without, {**whole, change: whole[change][: len(whole[change]) // 2]}):
        with pytest.raises(ConfigurationError, match=r"sentiment\.json"):
            Sentiment({**document, "network": damaged})
