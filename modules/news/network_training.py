"""Trains the sentiment model's network (modules/news/network.py). A developer's tool, as modules/news/train.py, which calls it.

Plain numpy: cross-entropy with smoothed labels, dropout of words, of vector components and of answers, Adam (Kingma and Ba 2015) with a
rising and falling rate, and the running mean of the weights as result. The gradient is checked against differences by a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modules.news.network import PAD, WIDTHS

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Weights = dict[str, F32]
"""vectors (words, size), filtersN (N * size, filters), biasN (filters,), out (answers and lexicon numbers, 3), out_bias (3,)."""
_WIDEST: Final = WIDTHS[-1]


@dataclass(frozen=True)
class Schedule:
    """What was chosen on the development data (docs/news.md says how)."""

    vector_size: int = 48
    filters: int = 48
    epochs: int = 6
    batch: int = 64
    rate: float = 2e-3
    word_dropout: float = 0.1
    vector_dropout: float = 0.2
    answer_dropout: float = 0.4
    smoothing: float = 0.05
    decay: float = 1e-4
    mean_memory: float = 0.998
    seed: int = 0


class Examples(NamedTuple):
    rows: Sequence[Sequence[int]]
    """Each headline's words as rows of the vectors; at least one."""
    dense: F32
    labels: I64
    weights: F32


def start(words: int, dense: int, schedule: Schedule, chance: np.random.Generator) -> Weights:
    def drawn(*shape: int) -> F32:
        return np.asarray(chance.standard_normal(shape) / np.sqrt(shape[0]), dtype=np.float32)

    vectors = (0.3 * chance.standard_normal((words, schedule.vector_size))).astype(np.float32)
    vectors[PAD] = 0.0
    found = {"vectors": vectors, "out": drawn(len(WIDTHS) * schedule.filters + dense, 3), "out_bias": np.zeros(3, dtype=np.float32)}
    for width in WIDTHS:
        found[f"filters{width}"] = drawn(width * schedule.vector_size, schedule.filters)
        found[f"bias{width}"] = np.zeros(schedule.filters, dtype=np.float32)
    return found


def likely(weights: Weights, rows: Sequence[Sequence[int]], dense: F32) -> F32:
    """Probabilities (headlines, 3) of positive, neutral, negative."""
    values = weights["vectors"][_padded(rows)]
    answers = [np.maximum((_windows(values, width) @ weights[f"filters{width}"]).max(axis=1) + weights[f"bias{width}"], 0.0)
               for width in WIDTHS]
    return _softmax(np.concatenate([*answers, dense], axis=1) @ weights["out"] + weights["out_bias"])


def _softmax(logits: F32) -> F32:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=logits.dtype)


def _padded(rows: Sequence[Sequence[int]]) -> I64:
    longest = max(len(row) for row in rows)
    found = np.full((len(rows), longest + 2 * (_WIDEST - 1)), PAD, dtype=np.int64)
    for place, row in enumerate(rows):
        found[place, _WIDEST - 1 : _WIDEST - 1 + len(row)] = row
    return found


def _windows(values: F32, width: int) -> F32:
    """(headlines, places, width * size): every `width` neighbors, as far as one of them may be a word."""
    skip = _WIDEST - width
    count = values.shape[1] - 2 * skip - width + 1
    return np.concatenate([values[:, skip + place : skip + place + count] for place in range(width)], axis=2)


def gradient(weights: Weights, part: Examples, schedule: Schedule, chance: np.random.Generator | None) -> tuple[float, Weights, I64]:
    """(loss, slopes, the rows of the vectors that have slopes); those of "vectors" are for these rows alone. Without `chance` nothing is
    dropped out."""
    padded = _padded(part.rows)
    count, size = len(part.rows), schedule.vector_size
    values = weights["vectors"][padded]
    keep = np.ones_like(values)
    if chance is not None:
        keep = (chance.random(padded.shape) >= schedule.word_dropout)[:, :, None] * _dropout(values.shape, schedule.vector_dropout, chance)
    seen = values * keep
    answers, kept = [], []
    for width in WIDTHS:
        windows = _windows(seen, width)
        raw = windows @ weights[f"filters{width}"] + weights[f"bias{width}"]
        best = raw.argmax(axis=1)
        top = np.take_along_axis(raw, best[:, None, :], axis=1)[:, 0, :]
        answers.append(np.maximum(top, 0.0))
        kept.append((width, windows, best, top > 0.0))
    joined = np.concatenate([*answers, part.dense], axis=1)
    mask = np.ones_like(joined) if chance is None else _dropout(joined.shape, schedule.answer_dropout, chance)
    chosen = joined * mask
    guessed = _softmax(chosen @ weights["out"] + weights["out_bias"])
    truth = np.full((count, 3), schedule.smoothing / 3.0, dtype=values.dtype)
    truth[np.arange(count), part.labels] += 1.0 - schedule.smoothing
    share = (part.weights / part.weights.sum())[:, None]
    loss = float(-(share * truth * np.log(guessed + 1e-12)).sum())

    error = (guessed - truth) * share
    slopes: Weights = {"out": chosen.T @ error, "out_bias": error.sum(axis=0)}
    back = (error @ weights["out"].T) * mask
    to_seen = np.zeros_like(values)
    for place, (width, windows, best, active) in enumerate(kept):
        to_top = back[:, place * schedule.filters : (place + 1) * schedule.filters] * active
        to_raw = np.zeros((count, windows.shape[1], schedule.filters), dtype=values.dtype)
        np.put_along_axis(to_raw, best[:, None, :], to_top[:, None, :], axis=1)
        flat = to_raw.reshape(-1, schedule.filters)
        slopes[f"filters{width}"] = windows.reshape(len(flat), -1).T @ flat
        slopes[f"bias{width}"] = to_top.sum(axis=0)
        to_windows = (flat @ weights[f"filters{width}"].T).reshape(count, windows.shape[1], width, size)
        for offset in range(width):
            first = _WIDEST - width + offset
            to_seen[:, first : first + windows.shape[1]] += to_windows[:, :, offset]
    which, where = np.unique(padded, return_inverse=True)
    total = np.zeros((len(which), size), dtype=values.dtype)
    np.add.at(total, where.ravel(), (to_seen * keep).reshape(-1, size))
    total[which == PAD] = 0.0
    slopes["vectors"] = total
    return loss, slopes, which


def _dropout(shape: tuple[int, ...], share: float, chance: np.random.Generator) -> F32:
    return np.asarray((chance.random(shape) >= share) / (1.0 - share), dtype=np.float32)


def fit(examples: Examples, words: int, schedule: Schedule) -> Weights:
    """The same weights for the same examples, `words` rows of vectors and seed."""
    chance = np.random.default_rng(schedule.seed)
    weights = start(words, examples.dense.shape[1], schedule, chance)
    mean = {name: values.copy() for name, values in weights.items()}
    first = {name: np.zeros_like(values) for name, values in weights.items()}
    second = {name: np.zeros_like(values) for name, values in weights.items()}
    lengths = np.array([len(row) for row in examples.rows])
    steps = schedule.epochs * -(-len(lengths) // schedule.batch)
    step = 0
    for _ in range(schedule.epochs):
        order = np.argsort(lengths // 4 + 6.0 * chance.random(len(lengths)), kind="stable")    # like lengths together: less padding
        batches = [order[at : at + schedule.batch] for at in range(0, len(order), schedule.batch)]
        for batch in chance.permutation(len(batches)):
            chosen = batches[batch]
            part = Examples([examples.rows[index] for index in chosen], examples.dense[chosen], examples.labels[chosen],
                            examples.weights[chosen])
            _, slopes, which = gradient(weights, part, schedule, chance)
            step += 1
            done = step / steps
            rate = schedule.rate * min(done / 0.2, (1.0 - done) / 0.8 + 1e-3)
            memory = min(schedule.mean_memory, step / (step + 10.0))
            for name, slope in slopes.items():
                at = which if name == "vectors" else slice(None)
                first[name][at] += 0.1 * (slope - first[name][at])
                second[name][at] += 0.01 * (slope * slope - second[name][at])
                move = first[name][at] / (1.0 - 0.9**step) / (np.sqrt(second[name][at] / (1.0 - 0.99**step)) + 1e-8)
                if name != "vectors":
                    move += schedule.decay * weights[name][at]
                weights[name][at] -= np.float32(rate) * move
                mean[name][at] += np.float32(1.0 - memory) * (weights[name][at] - mean[name][at])
    return mean
