"""`validate` and `optimize`: verdicts and plateaus for people and scripts. Wires history, registry, workers, certificates; decides nothing.

Without --data everything runs over the embedded demo market: the verdicts are real, its history is not, so no certificate comes of it.
An interrupted run keeps what was finished and goes on from there.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modules.cli import challenging, inputs, validation_data
from modules.cli.output import emit, number, table
from modules.domain.errors import ConfigurationError
from modules.domain.instrument import AssetClass
from modules.runtime.clock import WallClock

if TYPE_CHECKING:
    from rich.console import Console

    from modules.backtest.basket import Basket
    from modules.backtest.pipeline import Job, Progress
    from modules.backtest.series import Series
    from modules.backtest.structures import Recording
    from modules.backtest.trials import TrialRegistry
    from modules.backtest.validation import Validation
    from modules.backtest.workers import Executor
    from modules.cli.validation_data import Work

LOW_PRIORITY: Final = 10
LINES: Final = 10
"""Progress lines of a whole run where there is no terminal for a bar."""


def validate(arguments: argparse.Namespace) -> int:
    """A verdict per strategy and class; certificates for what is approved on recorded history."""
    from modules.backtest import pipeline

    clock = WallClock(start=0)
    began = clock.now()
    if arguments.report is not None and not arguments.report.resolve().parent.is_dir():
        raise ConfigurationError([f"--report {arguments.report}: its folder does not exist; make it first"])
    work = validation_data.work(arguments)
    at = WallClock().now()
    try:
        with _registries(work) as registries:
            jobs = _jobs(arguments, work, registries, at)
            with _executor(arguments, work) as executor, _progress(arguments, jobs) as progress:
                found = pipeline.validate(jobs, executor, progress)
            found = [_certified(one, work, registries[one.asset_class], at) for one in found]
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept; the same command goes on from there", file=sys.stderr)
        raise
    wall_s = (clock.now() - began) / 1000.0
    document = _document(found, work, wall_s)
    if arguments.report is not None:
        _write_report(arguments.report, found, work, document)
    emit(arguments, document, _show)
    return 0


def optimize(arguments: argparse.Namespace) -> int:
    """The declared space, in sample only: days before the first out-of-sample window. Every set is a counted trial."""
    from modules.backtest import searching

    work = validation_data.work(arguments)
    with _registries(work) as registries:
        jobs = _jobs(arguments, work, registries, WallClock().now())
        with _executor(arguments, work) as executor:
            found = [searching.search(job, executor) for job in jobs]
    entered = challenging.enter(found, {s.name: s for s in work.strategies}, work.origin, inputs.state_folder(work.settings) / "learning") \
        if arguments.challenge else []
    emit(arguments, {"data": work.origin, "searches": found, "challengers": entered}, _show_searches)
    return 1 if any("fault" in one for one in found) else 0


# -- wiring ----------------------------------------------------------------------------------------------------------------------------


@contextmanager
def _registries(work: Work) -> Iterator[Mapping[AssetClass, TrialRegistry]]:
    """One per class: a certificate is for a class, and what is tried in another is no chance to be lucky in this one. One that was edited
    is refused before anything is counted in it."""
    from modules.backtest import trial_anchor
    from modules.backtest.trials import TrialRegistry

    policy, folder = work.policies.validation, work.settings.state_dir / "validation"
    _same_as_journaled(work, folder)
    opened = {of: TrialRegistry(trial_anchor.file_of(folder, of), same_code=float(policy.same_idea_code),
                                same_results=float(policy.same_idea_correlation)) for of in sorted(work.classes)}
    try:
        for one in opened.values():
            one.verify()
        yield opened
    finally:
        for one in opened.values():
            one.close()


def _same_as_journaled(work: Work, folder: Path) -> None:
    """Refuse a registry that is not the one a journal of this state folder knows: K and n would begin again at nothing. Every mode's
    journal is asked; one that cannot be read is the daemon's to complain about."""
    from modules.backtest import trial_anchor
    from modules.domain.errors import JournalCorrupt, StoreUnreadable
    from modules.domain.events import TrialsAnchored
    from modules.store.journal import Journal

    for path in sorted(work.settings.state_dir.glob("*/journal.sqlite")):
        try:
            with Journal(path, read_only=True) as journal:
                known = [fact for fact in journal.of(TrialsAnchored) if isinstance(fact, TrialsAnchored)]
        except JournalCorrupt as error:
            print(f"not asked about trials: {error}", file=sys.stderr)
            continue
        for asset_class in work.classes:
            last = [fact for fact in known if fact.asset_class is asset_class][-1:]
            for fact in last:
                anchor = trial_anchor.Anchor(fact.entries, fact.head)
                if why := trial_anchor.fault(trial_anchor.file_of(folder, asset_class), anchor):
                    raise StoreUnreadable(f"{folder}: {why}")


def _jobs(arguments: argparse.Namespace, work: Work, registries: Mapping[AssetClass, TrialRegistry], at: int) -> list[Job]:
    """Every strategy in every class it trades here."""
    from modules.backtest.basket import basket
    from modules.backtest.kernel import Rules
    from modules.backtest.pipeline import Job
    from modules.cli.structure_runs import replay
    from modules.domain.signal import Structure

    policy = work.policies.validation
    recorded = {one.asset_class for one in work.series.values()}
    series = _heard(work)
    chains, recordings = _structures(work)
    renewed = _renewed(work)
    jobs = []
    for strategy in work.strategies:
        for asset_class in strategy.asset_classes:
            options = strategy.structure is not Structure.SINGLE
            here = work.chains if options else asset_class in recorded
            if asset_class not in work.classes or not (here or arguments.strategy):
                continue
            chosen = chains if options else basket(
                series.values(), asset_class, bars_min=strategy.warmup, share_min=float(policy.basket_share_min),
                named=bool(arguments.symbols))
            terms, issued = renewed.get((strategy.name, asset_class), ("", policy.seed))
            seed = issued if arguments.seed is None else arguments.seed
            jobs.append(Job(strategy, chosen, Rules(work.policies), policy, registries[asset_class], seed, at, True,
                            terms if seed == issued else "", replay if options and recordings else None, recordings if options else {}))
    if not jobs:
        held = ", ".join(sorted(of.value.lower() for of in recorded)) or "nothing"
        raise ConfigurationError([f"{work.origin}: holds {held}; none of these strategies trades that. Name other --classes or another "
                                  "--data, or leave both out for the demo market"])
    return jobs


def _heard(work: Work) -> Mapping[str, Series]:
    """The series with what the news said at each bar: the events of a replay of the same files, and a recording if one is named."""
    from modules.backtest.heard import with_news
    from modules.news import calendar

    shipped, _ = calendar.load(work.settings.policy_dir / "macro_calendar.json", work.policies.news)
    return with_news(work.series, work.policies, (*work.macro_events, *shipped), work.news)


def _structures(work: Work) -> tuple[Basket, Mapping[str, Recording]]:
    """What option structures are replayed over: underlyings with recorded chains, and bars beside them. The demo market's chains take too
    long to write down; its options are not replayed."""
    from modules.backtest.basket import Basket
    from modules.cli.structure_runs import beside, recordings
    from modules.domain.signal import Structure

    asked = AssetClass.OPTION in work.classes and any(one.structure is not Structure.SINGLE for one in work.strategies)
    if work.data is None or not work.chains or not asked:
        return Basket(AssetClass.OPTION, {}), {}
    found = recordings(work.data, work.policies.costs, work.macro_events)
    if not found:
        return Basket(AssetClass.OPTION, {}), {}
    return (Basket(AssetClass.OPTION, {recording.symbol: one for recording, one in found}, beside=beside(work.data)),
            {recording.symbol: recording for recording, _ in found})


def _certificates(work: Work) -> Path:
    return work.settings.state_dir / "certificates"


def _renewed(work: Work) -> dict[tuple[str, AssetClass], tuple[str, int]]:
    """(terms, seed) of each strategy's latest certificate that still holds for this code and these policies: to renew it is no new
    submission."""
    from modules.backtest.pipeline import terms
    from modules.domain import certificate
    from modules.strategies.fingerprint import code_hash

    codes = {strategy.name: code_hash(strategy) for strategy in work.strategies}
    found: dict[tuple[str, AssetClass], tuple[int, str, int]] = {}
    for path in sorted(_certificates(work).glob("*.json")) if _certificates(work).is_dir() else ():
        try:
            one = certificate.load(path)
        except certificate.CertificateError as error:
            print(f"ignored: {error}", file=sys.stderr)
            continue
        key = (one.strategy, one.asset_class)
        now = certificate.bound(work.policies, one.asset_class)
        holds = not certificate.check(one, code_hash=codes.get(one.strategy, ""), params=one.params, policy=now)
        if holds and one.issued_at > found.get(key, (0, "", 0))[0]:
            found[key] = (one.issued_at, terms(one.data_hash, one.policy, one.seed), one.seed)
    return {key: (digest, seed) for key, (_, digest, seed) in found.items()}


@contextmanager
def _executor(arguments: argparse.Namespace, work: Work) -> Iterator[Executor]:
    """Processes here, or a cluster; in front of them what earlier runs finished."""
    from modules.backtest.kept import Kept
    from modules.backtest.workers import Pool

    timeout_s = float(work.policies.validation.task_timeout_s)
    executor: Executor
    if arguments.cluster:
        from modules.backtest.cluster import Cluster

        executor = Cluster(arguments.cluster, timeout_s=timeout_s, nice=LOW_PRIORITY)
    else:
        executor = Pool(arguments.workers or os.cpu_count() or 1, timeout_s=timeout_s, nice=LOW_PRIORITY)
    if not getattr(arguments, "fresh", False):
        executor = Kept(executor, work.settings.state_dir / "validation" / "results")
    try:
        yield executor
    finally:
        executor.close()


@contextmanager
def _progress(arguments: argparse.Namespace, jobs: Sequence[Job]) -> Iterator[Progress]:
    """A bar on a terminal, a few lines elsewhere; on stderr, so that stdout stays the document's."""
    total = sum(2 * len(job.basket.series) + 3 for job in jobs if job.basket.series)
    if not sys.stderr.isatty():
        told = 0

        def line(label: str, ended: int, known: int) -> None:
            nonlocal told
            if ended * LINES // max(1, total) > told or arguments.verbose:
                told = ended * LINES // max(1, total)
                print(f"{min(99, 100 * ended // max(total, known)):3d} % {label}", file=sys.stderr)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=Console(stderr=True),
                  transient=True) as shown:
        task = shown.add_task("starting", total=total)

        def bar(label: str, ended: int, known: int) -> None:
            shown.update(task, completed=ended, total=max(total, known), description=label[:60])

        yield bar


def _certified(found: Validation, work: Work, registry: TrialRegistry, at: int) -> Validation:
    """Write the certificate an approval earned, and into the registry that it did; none from an invented market, whose symbols are those
    of real ones."""
    if found.verdict != "APPROVED" or work.data is None:
        return found
    from modules.backtest.certify import certificate
    from modules.domain.certificate import save

    assert found.trades is not None
    made = certificate(found, found.trades, work.policies, at, str(work.data.resolve()))
    registry.issued(made.strategy, made.digest, at)
    path = save(made, _certificates(work))
    return replace(found, certificate=str(path))


def _document(found: Sequence[Validation], work: Work, wall_s: float) -> dict[str, Any]:
    from modules.backtest import digests

    return {"data_hash": digests.of(sorted({one.data_hash for one in found if one.data_hash})), "trials": sum(one.trials for one in found),
            "wall_s": round(wall_s, 3), "data": work.origin, "demo": work.data is None, "verdicts": [one.document() for one in found]}


def _write_report(path: Path, found: Sequence[Validation], work: Work, document: Mapping[str, Any]) -> None:
    from modules.backtest.report import render

    bars = sum(len(one) for one in work.series.values())
    page = render(found, {"over": work.origin, "bars": f"{bars:,}", "computed in": f"{document['wall_s']:.1f} s",
                          "data": document["data_hash"][:16]})
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError([f"--report {path}: {error.strerror}"]) from None
    print(f"report: {path}", file=sys.stderr)


# -- for people ------------------------------------------------------------------------------------------------------------------------


def _show(out: Console, document: Mapping[str, Any]) -> None:
    verdicts: Sequence[Mapping[str, Any]] = document["verdicts"]
    out.print(f"Validation over {document['data']}: {document['trials']:,} trials counted, {document['wall_s']:.1f} s", markup=False)
    out.print(table("", ("strategy", "class", "verdict", ">Sharpe", ">p", ">trades", ">years", ">at 2x cost", "instruments"), (
        (one["strategy"], one["asset_class"], one["verdict"].replace("_", " "), _short(one["metrics"].get("sharpe"), "{:.2f}"),
         _short(one["metrics"].get("p"), "{:.4f}"), _short(one["metrics"].get("trades"), "{:,.0f}"),
         _short(one["metrics"].get("years"), "{:.1f}"), _short(one["metrics"].get("stressed_net"), "{:+.1%}"), _named(one["instruments"]))
        for one in verdicts)))
    for one in verdicts:
        if one["verdict"] == "APPROVED":
            where = f"certificate {one['certificate']}" if one["certificate"] else "no certificate: the demo market is an invented one"
            out.print(f"{one['strategy']} {one['asset_class']}: {where}. Next: {one['next_command']}", markup=False, soft_wrap=True)
        else:
            out.print(f"{one['strategy']} {one['asset_class']}: {one['missing']}. Next: {one['next_command']}", markup=False,
                      soft_wrap=True)
    if document["demo"]:
        out.print("\nThis is the demo market. Real money needs a verdict over recorded history: --data DIR.", markup=False)


def _short(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _named(symbols: Sequence[str]) -> str:
    return ", ".join(symbols[:3]) + (f" and {len(symbols) - 3} more" if len(symbols) > 3 else "") or "none with enough trades"


def _show_searches(out: Console, document: Mapping[str, Any]) -> None:
    for one in document["searches"]:
        title = f"{one['strategy']} {one['asset_class']} over {document['data']}"
        if "fault" in one:
            out.print(f"{title}: {one['fault']}", markup=False, soft_wrap=True)
            continue
        out.print(f"{title}: {one['sets']} sets, in sample {one['from']} to {one['to']}; {one['trials']:,} trials of this idea so far",
                  markup=False)
        names = list(one["plateau"][0]["params"])
        out.print(table("Best sets, and how their neighbors do", (*names, ">Sharpe", ">neighbors", ">trades", "default"), (
            (*(number(row["params"][name]) for name in names), _short(row["sharpe"], "{:.2f}"), _short(row["neighbours"], "{:.2f}"),
             row["trades"], "*" if row["default"] else "") for row in one["plateau"])))
        out.print(f"validate will ask: {one['asks']}\nNext: {one['next_command']}", markup=False, soft_wrap=True)
    for name in document["challengers"]:
        out.print(f"{name} shadow-trades from the next start as a challenger. Next: python main.py validate -s {name}", markup=False)


