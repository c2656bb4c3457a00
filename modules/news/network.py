"""The sentiment model's second reader: a small convolutional network over the words in their order. Owns nothing; decides nothing.

Where the first reader (modules/news/sentiment.py) adds up words, this one hears what stands beside what: filters over one, two and three
neighboring words, of each filter its strongest answer anywhere in the headline, and the lexicon's numbers. After Y. Kim, Convolutional
Neural Networks for Sentence Classification, EMNLP 2014.

All weights are whole numbers and all sums stay below 2**53, so a headline's logits are the same to the last bit on every machine,
whatever order its processor adds in.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from modules.news import features

F64 = NDArray[np.float64]
PAD: Final = 0
"""The row of no word: zeros, before and after a headline."""
UNKNOWN: Final = 1
WIDTHS: Final = (1, 2, 3)
VECTOR_SCALE: Final = 64.0
FILTER_SCALE: Final = 1024.0
OUT_SCALE: Final = 1024.0
"""How many units of the shipped whole numbers make one of the trained weights."""
WORDS_MAX: Final = 40
"""Words of a headline that are read."""


class Network:
    """Immutable once made; safe to share."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """`document` as `packed` makes it. Raises ValueError or KeyError where a table is missing or has another size."""
        self._rows = {word: UNKNOWN + 1 + index for index, word in enumerate(document["words"].split(" "))}
        filters = len(_unpacked(document["bias1"], "<i4"))
        size = int(document["vector_size"])
        self._vectors = _unpacked(document["vectors"], "i1").reshape(len(self._rows) + 2, size)
        self._filters = [_unpacked(document[f"filters{width}"], "<i2").reshape(width * size, filters) for width in WIDTHS]
        self._bias = [_unpacked(document[f"bias{width}"], "<i4") for width in WIDTHS]
        out = _unpacked(document["out"], "<i2").reshape(len(WIDTHS) * filters + len(features.DENSE), 3)
        self._out = out[: len(WIDTHS) * filters]
        self._dense: list[list[float]] = (out[len(WIDTHS) * filters :] / OUT_SCALE).tolist()
        self._out_bias: list[float] = (_unpacked(document["out_bias"], "<i2") / OUT_SCALE).tolist()

    def logits(self, words: Sequence[str], dense: Sequence[float]) -> list[float]:
        """Of positive, neutral and negative. `words` and `dense` as modules/news/features.py gives them."""
        rows = [self._rows.get(word, UNKNOWN) for word in words[:WORDS_MAX]] or [UNKNOWN]
        edge = [PAD] * (WIDTHS[-1] - 1)
        values = self._vectors[edge + rows + edge]
        strongest = []
        for width, filters, bias in zip(WIDTHS, self._filters, self._bias, strict=True):
            skip, count = WIDTHS[-1] - width, len(rows) + width - 1
            beside = [values[skip + place : skip + place + count] for place in range(width)]
            answers = np.concatenate(beside, axis=1) @ filters
            strongest.append(np.maximum(answers.max(axis=0) + bias, 0.0))
        found: list[float] = (np.concatenate(strongest) @ self._out / (VECTOR_SCALE * FILTER_SCALE * OUT_SCALE)).tolist()
        for number, weights in zip(dense, self._dense, strict=True):
            if number:
                found = [value + number * weight for value, weight in zip(found, weights, strict=True)]
        return [value + bias for value, bias in zip(found, self._out_bias, strict=True)]


def packed(words: Sequence[str], weights: Mapping[str, NDArray[np.float32]]) -> dict[str, Any]:
    """The shipped form of trained weights (modules/news/network_training.py): whole numbers in base64. `words` are those of the rows from
    UNKNOWN + 1 on."""
    result: dict[str, Any] = {
        "words": " ".join(words), "vector_size": weights["vectors"].shape[1],
        "vectors": _pack(weights["vectors"] * VECTOR_SCALE, "i1"),
        "out": _pack(weights["out"] * OUT_SCALE, "<i2"), "out_bias": _pack(weights["out_bias"] * OUT_SCALE, "<i2"),
    }
    for width in WIDTHS:
        result[f"filters{width}"] = _pack(weights[f"filters{width}"] * FILTER_SCALE, "<i2")
        result[f"bias{width}"] = _pack(weights[f"bias{width}"] * VECTOR_SCALE * FILTER_SCALE, "<i4")
    return result


def _pack(values: NDArray[np.float32], kind: str) -> str:
    room = np.iinfo(np.dtype(kind))
    return base64.b64encode(np.clip(np.rint(values), room.min, room.max).astype(kind).tobytes()).decode()


def _unpacked(text: str, kind: str) -> F64:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=kind).astype(np.float64)
