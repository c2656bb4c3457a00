"""What learning believes, as one self-contained page: weights over time, cumulative net R, and whether predicted odds came true.

Made from the journal's facts alone, so it needs no daemon. Pure: facts in, text out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

import numpy as np

from modules.backtest import report_charts as charts
from modules.backtest.report_style import STYLE
from modules.domain.events import ChallengerJudged, Fact, PositionClosed, ShadowClosed, StrategyApproved, WeightsUpdated
from modules.domain.instrument import ASSET_CLASSES, AssetClass
from modules.domain.policies import LearningPolicy
from modules.domain.sessions import iso
from modules.learning.calibration import Prior, calibrate

DAY_MS: Final = 86_400_000.0
COLORS: Final = 8
UNKNOWN: Final = Prior(0.0, 1.0)
"""Of a strategy without a certificate."""
BLOCK: Final = 25
FIRST: Final = 50
"""Outcomes before the first prediction, and between two calibrations, of the reliability diagram."""
BINS: Final = 10
EMPTY: Final = '<p class="soft">Nothing to draw yet.</p>'
MORE_STYLE: Final = """
.s0{--c:#1d6fdc}.s1{--c:#cf4436}.s2{--c:#0b8f62}.s3{--c:#b77700}.s4{--c:#8a4fd3}.s5{--c:#0a93a8}.s6{--c:#c2417c}.s7{--c:#6b7280}
polyline.s{stroke:var(--c);stroke-width:1.8}.key i.s{border-color:var(--c)}.dot.s{stroke:var(--c);stroke-width:9}
"""


@dataclass
class Story:
    """What the journal says of one class."""

    weights: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """Strategy -> (UTC day, weight)."""
    outcomes: dict[str, list[tuple[float, float, float]]] = field(default_factory=lambda: defaultdict(list))
    """Strategy -> (UTC day, score, net R), in the order they closed."""
    shadows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    why: tuple[str, ...] = ()


def read(facts: Iterable[Fact]) -> tuple[dict[AssetClass, Story], dict[tuple[str, AssetClass], Prior], list[ChallengerJudged]]:
    """Everything the page shows: one outcome per signal, as Learning_Agent counts them."""
    stories: dict[AssetClass, Story] = defaultdict(Story)
    priors: dict[tuple[str, AssetClass], Prior] = {}
    judged = []
    for fact in facts:
        if isinstance(fact, WeightsUpdated):
            story = stories[fact.asset_class]
            story.why = fact.reasons
            for name, weight in fact.weights.items():
                story.weights[name].append((fact.at / DAY_MS, weight))
        elif isinstance(fact, PositionClosed) and fact.trade.net_r is not None:
            trade = fact.trade
            stories[trade.asset_class].outcomes[trade.strategy].append((fact.at / DAY_MS, abs(trade.score), float(trade.net_r or 0)))
        elif isinstance(fact, ShadowClosed) and not fact.taken:
            stories[fact.asset_class].outcomes[fact.strategy].append((fact.at / DAY_MS, fact.score, fact.net_r))
            stories[fact.asset_class].shadows[fact.strategy] += 1
        elif isinstance(fact, StrategyApproved):
            made = fact.certificate
            priors[made.strategy, made.asset_class] = Prior(
                made.envelope.mean_r, made.envelope.sd_r, made.envelope.win_rate)
        elif isinstance(fact, ChallengerJudged):
            judged.append(fact)
    return dict(stories), priors, judged


def render(facts: Iterable[Fact], policy: LearningPolicy) -> str:
    """The whole page."""
    stories, priors, judged = read(facts)
    outcomes = sum(len(rows) for story in stories.values() for rows in story.outcomes.values())
    shadows = sum(sum(story.shadows.values()) for story in stories.values())
    tiles = "".join(f'<div class="card tile"><b>{value}</b><span>{name}</span></div>' for name, value in (
        ("outcomes", f"{outcomes:,}"), ("of them only a shadow's", f"{shadows:,}"), ("classes", str(len(stories))),
        ("weights", "in force" if policy.allocation_on else "shown, not used")))
    body = "".join(_class(asset_class, stories[asset_class], priors, policy) for asset_class in ASSET_CLASSES if asset_class in stories)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>Learning</title><style>{STYLE}{MORE_STYLE}</style></head><body><main><header><h1>Learning</h1>'
        '<p class="soft small">What each strategy would have earned, traded or not, net of costs; one outcome per signal. It may only '
        f'choose and lower.</p></header><div class="tiles">{tiles}</div>{body or EMPTY}{_challengers(judged)}'
        '<footer>R = net result over the risk taken. Odds are predicted from earlier outcomes only, then compared with what came.</footer>'
        '</main></body></html>\n')


def _class(asset_class: AssetClass, story: Story, priors: Mapping[tuple[str, AssetClass], Prior], policy: LearningPolicy) -> str:
    names = sorted({*story.weights, *story.outcomes})
    why = escape("; ".join(story.why)) or "no weights yet: they come with the first full week"
    return (
        f'<section class="section"><div class="head"><h2>{asset_class.value}</h2></div><p class="soft small">{why}</p>'
        f'<div class="grid"><div class="card wide scroll">{_table(names, story)}</div>'
        f'<div class="card wide"><h3>Weights over time</h3>{_key(names)}{_weights(names, story)}</div>'
        f'<div class="card"><h3>Cumulative net R</h3>{_key(names)}{_cumulative(names, story)}</div>'
        f'<div class="card"><h3>Predicted odds against what came</h3>{_reliability(asset_class, story, priors, policy)}</div></div>'
        '</section>')


def _table(names: Sequence[str], story: Story) -> str:
    rows = []
    for name in names:
        results = np.array([row[2] for row in story.outcomes.get(name, ())])
        weight = story.weights[name][-1][1] if story.weights.get(name) else 1.0
        since = iso(int(story.outcomes[name][0][0] * DAY_MS))[:10] if story.outcomes.get(name) else "-"
        mean, won = (f"{results.mean():+.3f}", f"{(results > 0).mean():.0%}") if len(results) else ("-", "-")
        rows.append(f'<tr><td>{escape(name)}</td><td class="n">{weight:.2f}</td><td class="n">{len(results)}</td>'
                    f'<td class="n">{story.shadows.get(name, 0)}</td><td class="n">{mean}</td><td class="n">{won}</td>'
                    f'<td class="n">{results.sum():+.1f}</td><td class="soft small">{since}</td></tr>')
    return ('<table><thead><tr><th>strategy</th><th class="n">weight</th><th class="n">outcomes</th><th class="n">shadow</th>'
            '<th class="n">mean R</th><th class="n">won</th><th class="n">sum R</th><th>since</th></tr></thead>'
            f'<tbody>{"".join(rows)}</tbody></table>')


def _key(names: Sequence[str]) -> str:
    return '<p class="key">' + "".join(f'<span><i class="s s{number % COLORS}"></i>{escape(name)}</span>'
                                       for number, name in enumerate(names)) + "</p>"


def _drawn(curves: Sequence[tuple[int, Sequence[float], Sequence[float]]], up: charts.Scale, label: str, number: str) -> str:
    """Curves of (color, x in days, y)."""
    across = charts.scale_of(*(np.array(x) for _, x, _ in curves), pad=0.0)
    if all(min(x) == max(x) for _, x, _ in curves):  # none, or but one instant
        return EMPTY
    inside = [charts.line(np.array(x), np.array(y), across, up, f"s s{color % COLORS}") for color, x, y in curves]
    return charts.frame(inside, across, up, below=charts.day_ticks(across), number=number, label=label)


def _weights(names: Sequence[str], story: Story) -> str:
    curves = []
    last = max((points[-1][0] for points in story.weights.values() if points), default=0.0)
    for color, name in enumerate(names):
        x: list[float] = []
        y: list[float] = []
        for day, weight in story.weights.get(name, ()):
            x += [day, day]
            y += [y[-1] if y else 1.0, weight]
        if x:
            curves.append((color, [*x, last], [*y, y[-1]]))
    return _drawn(curves, charts.Scale(0.0, 1.04), "weight of each strategy over time", "{:.1f}")


def _cumulative(names: Sequence[str], story: Story) -> str:
    curves = [(color, [row[0] for row in story.outcomes[name]], np.cumsum([row[2] for row in story.outcomes[name]]).tolist())
              for color, name in enumerate(names) if len(story.outcomes.get(name, ())) > 1]
    up = charts.scale_of(*(np.array(y) for _, _, y in curves), include=(0.0,))
    return _drawn(curves, up, "cumulative net R of each strategy", "{:g}")


def predictions(outcomes: Sequence[tuple[float, float, float]], prior: Prior, policy: LearningPolicy) -> list[tuple[float, bool]]:
    """(predicted odds of a profit, whether it came), each predicted from earlier outcomes only."""
    scores, results = (np.array([row[column] for row in outcomes]) for column in (1, 2))
    found: list[tuple[float, bool]] = []
    for begin in range(FIRST, len(outcomes), BLOCK):
        made = calibrate(scores[:begin], results[:begin], prior, policy.calibration, 1.0)
        found += [(made.wins.at(float(score)), bool(net_r > 0.0))
                  for score, net_r in zip(scores[begin:begin + BLOCK], results[begin:begin + BLOCK], strict=True)]
    return found


def _reliability(asset_class: AssetClass, story: Story, priors: Mapping[tuple[str, AssetClass], Prior], policy: LearningPolicy) -> str:
    told = [pair for name, rows in story.outcomes.items() for pair in predictions(rows, priors.get((name, asset_class), UNKNOWN), policy)]
    if not told:
        return f'<p class="soft">It takes more than {FIRST} outcomes of one strategy.</p>'
    odds, came = np.array([pair[0] for pair in told]), np.array([pair[1] for pair in told])
    place = np.minimum((odds * BINS).astype(int), BINS - 1)
    points, ranges, error = [], [], 0.0
    for one in range(BINS):
        held = place == one
        if held.any():
            x, y, spread = float(odds[held].mean()), float(came[held].mean()), 1.0 / float(held.sum()) ** 0.5
            points.append((x, y))
            ranges.append(((x, max(0.0, y - spread)), (x, min(1.0, y + spread))))
            error += abs(x - y) * float(held.mean())
    scale = charts.Scale(0.0, 1.0)
    inside = [charts.segments([(0.0, 0.0)], [(1.0, 1.0)], scale, scale, "mark-soft"),
              charts.segments([low for low, _ in ranges], [high for _, high in ranges], scale, scale, "price"),
              charts.dots(points, scale, scale, "s s0")]
    below = [(share, f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return (f'<p class="soft small">{len(told)} predictions, expected calibration error {error:.3f}; the dashed line is perfect, bars are '
            f'two standard errors</p>{charts.frame(inside, scale, scale, below=below, number="{:.0%}", label="reliability diagram")}')


def _challengers(judged: Sequence[ChallengerJudged]) -> str:
    if not judged:
        return ""
    rows = "".join(f'<tr><td>{escape(one.challenger)}</td><td>{one.outcome.replace("_", " ").lower()}</td><td class="n">{one.trades}</td>'
                   f'<td class="n">{one.difference_r:+.3f}</td><td class="n">{one.p:.3f}</td><td>{iso(one.at)[:10]}</td>'
                   f'<td class="soft small">{escape(one.reason)}</td></tr>' for one in judged)
    return ('<section class="section"><h2>Challengers</h2><div class="card scroll"><table><thead><tr><th>challenger</th><th>outcome</th>'
            '<th class="n">trades</th><th class="n">R a day more</th><th class="n">p</th><th>when</th><th>why</th></tr></thead>'
            f'<tbody>{rows}</tbody></table></div></section>')
