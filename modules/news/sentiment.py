"""The default sentiment model: two small readers that read a headline in a fifth of a millisecond. Owns nothing; decides nothing.

Its weights are shipped as JSON with their provenance (`data/sentiment.json`), made by modules/news/train.py. Three classes: the mean of
what a linear reader makes of the words and a network of their order (modules/news/network.py), each by softmax. They err on different
headlines, so that where they are sure together they are seldom wrong. Where the lexicon's sum contradicts them the score is damped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

from modules.domain.errors import ConfigurationError
from modules.news import features
from modules.news.network import Network

POSITIVE: Final = "positive"
NEUTRAL: Final = "neutral"
NEGATIVE: Final = "negative"
SCALE: Final = 100.0
"""Weights are whole hundredths."""
CONTRADICTED: Final = 0.5
"""What is left of a score whose sign the lexicon contradicts."""
_NET: Final = features.DENSE.index("net_sign")


class Reading(NamedTuple):
    score: float
    """-1..1: probability of positive less probability of negative."""
    label: str
    probabilities: tuple[float, float, float]
    """positive, neutral, negative."""


class Sentiment:
    """Immutable once made; safe to share."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Raises ConfigurationError where the weights do not belong to this program's features, or are damaged."""
        if tuple(document.get("dense_names", ())) != features.DENSE:
            raise ConfigurationError(["sentiment.json: its numbers are not those of modules/news/features.py; train it again"])
        self.provenance: Mapping[str, Any] = document["provenance"]
        self.digest: str = document["digest"]
        self._bias = _pair(document["bias"])
        self._dense = [_pair(pair) for pair in document["dense"]]
        self._grams = {gram: _pair(pair) for gram, pair in document["grams"].items()}
        try:
            self._network = Network(document["network"])
        except (KeyError, ValueError) as error:
            raise ConfigurationError([f"modules/news/data/sentiment.json: network: {error}; restore the shipped file"]) from None

    def read(self, text: str) -> Reading:
        found = features.tokens(text)
        numbers = features.dense(found)
        positive, negative = self._bias
        for number, (up, down) in zip(numbers, self._dense, strict=True):
            if number:
                positive += number * up
                negative += number * down
        unique = dict.fromkeys(features.grams(found))
        if unique:
            sum_up = sum_down = 0.0
            known = self._grams
            for gram in unique:
                pair = known.get(gram)
                if pair is not None:
                    sum_up += pair[0]
                    sum_down += pair[1]
            share = 1.0 / math.sqrt(len(unique))
            positive += share * sum_up
            negative += share * sum_down
        one, other = _softmax((positive, 0.0, negative)), _softmax(self._network.logits(found.words, numbers))
        likely = ((one[0] + other[0]) / 2.0, (one[1] + other[1]) / 2.0, (one[2] + other[2]) / 2.0)
        score = likely[0] - likely[2]
        if numbers[_NET] * score < 0.0:
            score *= CONTRADICTED
        label = (POSITIVE, NEUTRAL, NEGATIVE)[max(range(3), key=likely.__getitem__)]
        return Reading(score, label, likely)


def _softmax(logits: Sequence[float]) -> tuple[float, float, float]:
    top = max(logits)
    positive, neutral, negative = (math.exp(logit - top) for logit in logits)
    total = positive + neutral + negative
    return positive / total, neutral / total, negative / total


def _pair(pair: Sequence[float]) -> tuple[float, float]:
    return pair[0] / SCALE, pair[1] / SCALE


@cache
def shipped() -> Sentiment:
    """The model that comes with the program. Raises ConfigurationError if its file is missing or not JSON."""
    try:
        document = json.loads(files("modules.news").joinpath("data/sentiment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError([f"modules/news/data/sentiment.json: {error}; restore the shipped file"]) from None
    return Sentiment(document)
