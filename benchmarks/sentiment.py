"""The sentiment model: quality on headlines it was not trained on, per class, and the time of one reading.

`python -m benchmarks.sentiment` reads benchmarks/headlines/*.tsv, which no model was trained on (a test holds that; docs/news.md
says why they are no blind test). `--headlines FOLDER` reads other files of that form, one per domain: a sign (+, 0 or -), a tab, a title
on each line. `--tfns FILE` adds five-fold cross-validation in its training domain and each of our own domains left out (four minutes;
needs scipy). Where vaderSentiment happens to be installed it is measured beside ours.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

from benchmarks import common
from modules.news.sentiment import NEGATIVE, NEUTRAL, POSITIVE, shipped

LABELS: Final = {"+": POSITIVE, "0": NEUTRAL, "-": NEGATIVE}
FOLDER: Final = Path(__file__).parent / "headlines"


def headlines(folder: Path = FOLDER) -> dict[str, list[tuple[str, str]]]:
    """(label, title) per domain. Ends the program with the row at fault where a file has another form, or the folder has none."""
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(folder.glob("*.tsv")):
        found[path.stem] = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            sign, _, title = line.partition("\t")
            if line and (sign not in LABELS or not title):
                sys.exit(f"{path}: line {number}: wants +, 0 or -, a tab and a title")
            if line:
                found[path.stem].append((LABELS[sign], title))
    if not any(found.values()):
        sys.exit(f"{folder}: no headlines in it: wants DOMAIN.tsv files of a sign (+, 0 or -), a tab and a title on each line")
    return found


def macro_f1(truth: list[str], guessed: list[str]) -> dict[str, float]:
    """Percent per class, and their mean as "macro"."""
    result = {}
    for label in LABELS.values():
        right = sum(1 for t, g in zip(truth, guessed, strict=True) if t == g == label)
        result[label] = 200.0 * right / max(1, truth.count(label) + guessed.count(label))
    return {**result, "macro": sum(result.values()) / 3.0}


def opposite(truth: list[str], scores: list[float]) -> float:
    """Percent of wrong-signed readings among the fifth that is surest of itself."""
    surest = sorted(zip(scores, truth, strict=True), key=lambda pair: -abs(pair[0]))[: max(1, len(truth) // 5)]
    return 100.0 * sum(1 for score, label in surest if (score > 0) == (label == NEGATIVE) and label != NEUTRAL) / len(surest)


def reading_ms(titles: list[str], repeat: int) -> float:
    """Processor time per headline, the best of `repeat` passes."""
    model, best = shipped(), float("inf")
    for _ in range(repeat):
        began = time.process_time()
        for title in titles:
            model.read(title)
        best = min(best, (time.process_time() - began) / len(titles) * 1e3)
    return best


def vader(rows: list[tuple[str, str]]) -> dict[str, float] | None:
    if importlib.util.find_spec("vaderSentiment") is None:
        return None
    analyzer: Any = importlib.import_module("vaderSentiment.vaderSentiment").SentimentIntensityAnalyzer()
    compounds = [analyzer.polarity_scores(title)["compound"] for _, title in rows]
    return macro_f1([label for label, _ in rows], [POSITIVE if c >= 0.05 else NEGATIVE if c <= -0.05 else NEUTRAL for c in compounds])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sentiment", description=__doc__)
    parser.add_argument("--headlines", type=Path, default=FOLDER, metavar="FOLDER", help="DOMAIN.tsv files of a sign, a tab and a title")
    parser.add_argument("--tfns", type=Path, help="the Twitter Financial News training split, as CSV: adds cross-validation")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sets = headlines(options.headlines)
    report: dict[str, Any] = {"machine": common.machine(), "model": shipped().digest, "headlines": options.headlines.name, "measured": {}}
    for domain, rows in sets.items():
        readings = [shipped().read(title) for _, title in rows]
        truth = [label for label, _ in rows]
        wrong = opposite(truth, [r.score for r in readings])
        found = {**macro_f1(truth, [r.label for r in readings]), "opposite": wrong, "rows": len(rows)}
        report["measured"][domain] = found
        print(f"{domain:8}", "  ".join(f"{name} {value:.1f}" for name, value in found.items()))
        if (peer := vader(rows)) is not None:
            report.setdefault("vader", {})[domain] = peer
            print("  vader ", "  ".join(f"{name} {value:.1f}" for name, value in peer.items()))
    report["ms per headline"] = reading_ms([title for rows in sets.values() for _, title in rows], options.repeat)
    print(f"{report['ms per headline']:.3f} ms per headline (goal 0.3)")
    if options.tfns is not None:
        from modules.news import train

        report["cross-validation"] = {name: found._asdict() for name, found in train.cross_validate(options.tfns).items()}
        for name, found in report["cross-validation"].items():
            print(f"{name:18} macro-F1 {found['macro_f1']:.1f}  per class {', '.join(f'{v:.1f}' for v in found['per_class'])}  "
                  f"opposite {found['opposite']:.1f} %")
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
