"""Trains the sentiment model and measures it. A developer's tool: the daemon never imports it (it needs scipy).

    python -m modules.news.train TFNS.csv            trains on everything and writes data/sentiment.json
    python -m modules.news.train TFNS.csv --measure  cross-validation, domains left out, sets never trained on

Data: the Twitter Financial News Sentiment training split (MIT; not part of this repository) and our own headlines in data/own_*.tsv.
Two readers whose probabilities are averaged. The first is a multinomial logistic regression, L2, minimized by L-BFGS; every headline is
shown twice, the second time without its words, so that the lexicon's numbers learn to stand alone: words of a domain nobody labeled carry
no weight, its grammar does. The second is the network of modules/news/network_training.py.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from modules.news import features, network, network_training
from modules.news.sentiment import CONTRADICTED, NEGATIVE, NEUTRAL, POSITIVE, SCALE, Sentiment

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
LABELS: Final = (POSITIVE, NEUTRAL, NEGATIVE)
SIGNS: Final = {"+": 0, "0": 1, "-": 2}
DOMAINS: Final = ("crypto", "forex", "stocks")
DATA: Final = Path(__file__).parent / "data"
FOLDS: Final = 5
CONFIDENT_SHARE: Final = 0.2


@dataclass(frozen=True)
class Recipe:
    """What was chosen on the development data (docs/news.md says how)."""

    penalty_dense: float = 1e-5
    penalty_grams: float = 2e-5
    balance: float = 0.75
    """Class weights are (inverse frequency) to this power."""
    own_weight: float = 1.0
    wordless_weight: float = 0.5
    frequency_min: int = 3
    grams_max: int = 12_000
    iterations: int = 150
    word_frequency_min: int = 3
    network: network_training.Schedule = field(default_factory=network_training.Schedule)


RECIPE: Final = Recipe()


class Headlines(NamedTuple):
    texts: list[str]
    labels: I64


class Features(NamedTuple):
    dense: F64
    grams: list[list[str]]
    words: list[list[str]]

    def take(self, rows: I64) -> Features:
        return Features(self.dense[rows], [self.grams[row] for row in rows], [self.words[row] for row in rows])


class Linear(NamedTuple):
    vocabulary: dict[str, int]
    weights: F64
    """(dense + grams) x (positive, negative), neutral being zero."""
    bias: F64


class Model(NamedTuple):
    linear: Linear
    words: list[str]
    network: network_training.Weights


# -- data ------------------------------------------------------------------------------------------------------------------


def read_csv(path: Path) -> Headlines:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], LABELS.index(row["label"])) for row in csv.DictReader(file)]
    return Headlines([text for text, _ in rows], np.array([label for _, label in rows], dtype=np.int64))


def read_tsv(path: Path) -> Headlines:
    rows = [line.split("\t", 1) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return Headlines([text for _, text in rows], np.array([SIGNS[sign] for sign, _ in rows], dtype=np.int64))


def extract(texts: Sequence[str]) -> Features:
    found = [features.tokens(text) for text in texts]
    return Features(np.array([features.dense(tokens) for tokens in found]), [list(dict.fromkeys(features.grams(t))) for t in found],
                    [t.words[: network.WORDS_MAX] for t in found])


def _matrix(data: Features, vocabulary: dict[str, int]) -> Any:
    columns: list[int] = []
    values: list[float] = []
    starts = [0]
    for grams in data.grams:
        known = [vocabulary[gram] for gram in grams if gram in vocabulary]
        columns += known
        values += [1.0 / np.sqrt(max(1, len(grams)))] * len(known)
        starts.append(len(columns))
    words = sparse.csr_matrix((values, columns, starts), shape=(len(data.grams), len(vocabulary)))
    return sparse.hstack([sparse.csr_matrix(data.dense), words]).tocsr()


# -- fitting ---------------------------------------------------------------------------------------------------------------


def fit(main: tuple[Features, I64], own: Sequence[tuple[Features, I64]], recipe: Recipe = RECIPE) -> Model:
    """`main` is weighted by class balance, `own` sets by own_weight."""
    counts = np.bincount(main[1], minlength=3)
    weights = [(len(main[1]) / 3.0 / counts)[main[1]] ** recipe.balance, *(np.full(len(y), recipe.own_weight) for _, y in own)]
    parts = [main[0], *(x for x, _ in own)]
    data = Features(np.vstack([x.dense for x in parts]), [g for x in parts for g in x.grams], [w for x in parts for w in x.words])
    labels, weight = np.concatenate([main[1], *(y for _, y in own)]), np.concatenate(weights)
    return Model(_fit_linear(data, labels, weight, recipe), *_fit_network(data, labels, weight, recipe))


def _fit_linear(data: Features, labels: I64, weight: F64, recipe: Recipe) -> Linear:
    frequency = Counter(gram for grams in data.grams for gram in grams)
    vocabulary = {gram: index for index, gram in enumerate(sorted(g for g, n in frequency.items() if n >= recipe.frequency_min))}
    wordless = data._replace(grams=[[] for _ in data.grams])
    matrix = sparse.vstack([_matrix(data, vocabulary), _matrix(wordless, vocabulary)]).tocsr()
    solution, bias = _solve(matrix, np.concatenate([labels, labels]), np.concatenate([weight, recipe.wordless_weight * weight]),
                            np.concatenate([np.full(data.dense.shape[1], recipe.penalty_dense),
                                            np.full(len(vocabulary), recipe.penalty_grams)]), recipe.iterations)
    return _pruned(Linear(vocabulary, solution, bias), data.dense.shape[1], recipe.grams_max)


def _fit_network(data: Features, labels: I64, weight: F64, recipe: Recipe) -> tuple[list[str], network_training.Weights]:
    frequency = Counter(word for words in data.words for word in set(words))
    words = sorted(word for word, n in frequency.items() if n >= recipe.word_frequency_min)
    examples = network_training.Examples(_rows(data, words), data.dense.astype(np.float32), labels, weight.astype(np.float32))
    return words, network_training.fit(examples, len(words) + network.UNKNOWN + 1, recipe.network)


def _rows(data: Features, words: Sequence[str]) -> list[list[int]]:
    row = {word: index for index, word in enumerate(words, start=network.UNKNOWN + 1)}
    return [[row.get(word, network.UNKNOWN) for word in headline] or [network.UNKNOWN] for headline in data.words]


def _solve(matrix: Any, labels: I64, weight: F64, penalty: F64, iterations: int) -> tuple[F64, F64]:
    columns = matrix.shape[1]
    truth = np.eye(3)[labels]
    transposed, total = matrix.T.tocsr(), weight.sum()

    def loss(flat: F64) -> tuple[float, F64]:
        weights, bias = flat[: columns * 3].reshape(columns, 3), flat[columns * 3 :]
        logits = matrix @ weights + bias
        logits -= logits.max(axis=1, keepdims=True)
        raised = np.exp(logits)
        likely = raised / raised.sum(axis=1, keepdims=True)
        error = (likely - truth) * weight[:, None] / total
        value = -(weight * np.log((likely * truth).sum(axis=1) + 1e-30)).sum() / total + 0.5 * (penalty[:, None] * weights**2).sum()
        return float(value), np.concatenate([(transposed @ error + penalty[:, None] * weights).ravel(), error.sum(axis=0)])

    found = optimize.minimize(loss, np.zeros(columns * 3 + 3), jac=True, method="L-BFGS-B", options={"maxiter": iterations}).x
    weights, bias = found[: columns * 3].reshape(columns, 3), found[columns * 3 :]
    return weights[:, [0, 2]] - weights[:, [1]], bias[[0, 2]] - bias[1]


def _pruned(model: Linear, dense: int, grams_max: int) -> Linear:
    """Keeps the grams that matter most."""
    size = np.abs(model.weights[dense:]).sum(axis=1)
    grams = sorted(model.vocabulary, key=model.vocabulary.__getitem__)
    kept = sorted(np.argsort(-size, kind="stable")[:grams_max].tolist())
    return Linear({grams[index]: new for new, index in enumerate(kept)},
                  np.vstack([model.weights[:dense], model.weights[dense:][kept]]), model.bias)


def document(model: Model, provenance: dict[str, Any]) -> dict[str, Any]:
    """The shipped form: whole numbers; the digest names the model in moods and decisions."""
    linear, dense = model.linear, len(features.DENSE)
    whole = np.rint(linear.weights * SCALE).astype(int).tolist()
    body = {
        "dense_names": list(features.DENSE), "bias": np.rint(linear.bias * SCALE).astype(int).tolist(), "dense": whole[:dense],
        "grams": {gram: pair for gram, pair in zip(linear.vocabulary, whole[dense:], strict=True) if any(pair)},
        "network": network.packed(model.words, model.network),
    }
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
    return {"provenance": provenance, "digest": digest, **body}


# -- measuring ---------------------------------------------------------------------------------------------------------------


class Measure(NamedTuple):
    macro_f1: float
    """Percent."""
    per_class: tuple[float, float, float]
    opposite: float
    """Percent of wrong-signed among the most confident fifth."""
    rows: int


def measure(labels: I64, likely: F64, scores: F64) -> Measure:
    guessed = likely.argmax(axis=1)
    per_class = tuple(200.0 * float(((labels == c) & (guessed == c)).sum()) / max(1, int((labels == c).sum() + (guessed == c).sum()))
                      for c in range(3))
    surest = np.argsort(-np.abs(scores), kind="stable")[: max(1, int(CONFIDENT_SHARE * len(labels)))]
    wrong = ((scores[surest] > 0) & (labels[surest] == 2)) | ((scores[surest] < 0) & (labels[surest] == 0))
    return Measure(sum(per_class) / 3.0, (per_class[0], per_class[1], per_class[2]), 100.0 * float(wrong.mean()), len(labels))


def predict(model: Model, data: Features) -> tuple[F64, F64]:
    """(probabilities, scores) as Sentiment.read would give them, up to rounding."""
    linear = model.linear
    logits = np.asarray(_matrix(data, linear.vocabulary) @ linear.weights + linear.bias)
    logits = np.stack([logits[:, 0], np.zeros(len(logits)), logits[:, 1]], axis=1)
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    heard = network_training.likely(model.network, _rows(data, model.words), data.dense.astype(np.float32))
    likely = (raised / raised.sum(axis=1, keepdims=True) + heard) / 2.0
    score = likely[:, 0] - likely[:, 2]
    return likely, np.where(data.dense[:, features.DENSE.index("net_sign")] * score < 0.0, CONTRADICTED * score, score)


def read_all(model: Sentiment, headlines: Headlines) -> Measure:
    """The shipped model itself on a set."""
    readings = [model.read(text) for text in headlines.texts]
    return measure(headlines.labels, np.array([r.probabilities for r in readings]), np.array([r.score for r in readings]))


def cross_validate(path: Path, recipe: Recipe = RECIPE) -> dict[str, Measure]:
    """In domain: five folds of near-duplicate clusters. Each own domain: a model that saw neither it nor its words' labels."""
    main = read_csv(path)
    data = extract(main.texts)
    own = {domain: read_tsv(DATA / f"own_{domain}.tsv") for domain in DOMAINS}
    own_data = {domain: extract(headlines.texts) for domain, headlines in own.items()}
    sets = [(own_data[domain], own[domain].labels) for domain in DOMAINS]
    fold = _folds(main.texts)
    likely, scores = np.zeros((len(fold), 3)), np.zeros(len(fold))
    for k in range(FOLDS):
        train, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        likely[held], scores[held] = predict(fit((data.take(train), main.labels[train]), sets, recipe), data.take(held))
    result = {"in domain": measure(main.labels, likely, scores)}
    for domain in DOMAINS:
        model = fit((data, main.labels), [pair for name, pair in zip(DOMAINS, sets, strict=True) if name != domain], recipe)
        result[f"{domain} left out"] = measure(own[domain].labels, *predict(model, own_data[domain]))
    return result


def _folds(texts: Sequence[str]) -> I64:
    """Headlines that begin alike share a fold, so that no near-copy of a tested one was trained on."""
    keys = [" ".join(features.tokens(text).words[:4]) for text in texts]
    return np.array([int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % FOLDS for key in keys], dtype=np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tfns", type=Path)
    parser.add_argument("--measure", action="store_true")
    arguments = parser.parse_args()
    if arguments.measure:
        for name, found in cross_validate(arguments.tfns).items():
            classes = " ".join(f"{label} {value:.1f}" for label, value in zip(LABELS, found.per_class, strict=True))
            print(f"{name:18} macro-F1 {found.macro_f1:.1f} ({classes}), opposite {found.opposite:.1f} %, {found.rows} headlines")
        return
    headlines = read_csv(arguments.tfns)
    own = [read_tsv(DATA / f"own_{domain}.tsv") for domain in DOMAINS]
    model = fit((extract(headlines.texts), headlines.labels), [(extract(h.texts), h.labels) for h in own])
    provenance = {
        "made_by": "modules/news/train.py", "license": "MIT",
        "data": ["Twitter Financial News Sentiment, training split, MIT license per its card, "
                 f"{len(headlines.texts)} headlines, sha256 {hashlib.sha256(arguments.tfns.read_bytes()).hexdigest()}",
                 *(f"own_{domain}.tsv, written for this project, {len(h.texts)} headlines"
                   for domain, h in zip(DOMAINS, own, strict=True))],
        "recipe": asdict(RECIPE),
    }
    shipped = document(model, provenance)
    (DATA / "sentiment.json").write_text(json.dumps(shipped, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{shipped['digest']}: {len(shipped['grams'])} grams")


if __name__ == "__main__":
    main()
