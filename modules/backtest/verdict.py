"""The gate's judgment: every number held against its bar, and what is missing. Pure; decides APPROVED, REJECTED or INSUFFICIENT EVIDENCE.

May refuse any strategy. A number that could not be measured is NaN and passes nothing. Too little evidence is neither an approval nor a
rejection: it is said how much more is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from modules.backtest.validation import Line
from modules.domain.instrument import AssetClass
from modules.domain.policies import ValidationPolicy


class Outcome(StrEnum):
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    INSUFFICIENT_EVIDENCE = "INSUFFICIENT EVIDENCE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was measured about one strategy in one class. Sharpe ratios are annual and net; NaN = could not be measured."""

    strategy: str
    asset_class: AssetClass
    # the sample
    trades: int
    """Out of sample."""
    years: float
    """Of the days that `p` is computed on."""
    out_years: float
    """Of the out-of-sample days."""
    trials: int
    """Every trial of the idea the registry has ever counted, K."""
    tested: int
    """How many of them are columns of the max-t test; the others multiply its p value (union bound)."""
    # significance
    p: float
    """Of the chosen parameters in the max-t test over all trials (`MaxT.p_of[chosen]`)."""
    t: float
    critical_t: float
    """What `t` has to reach for this submission (`MaxT.critical(limit(...))`)."""
    excess_p: float
    """The same on the excess over random entries with the same exposure."""
    # out of sample
    sharpe: float
    psr: float
    """P(Sharpe > 0)."""
    net: float
    """Sum of out-of-sample daily results per unit of notional."""
    # vetoes
    loss_probability: float
    stressed_net: float
    """`net` at the policy's multiple of fees and slippage."""
    trade_share: float
    month_share: float
    drawdown: float
    """Bootstrapped, fraction of equity, at phase-3 sizing."""
    neighbours_share: float
    """NaN with `has_neighbours` False where the strategy has nothing to vary."""
    has_neighbours: bool = True
    prefix_differences: int = 0
    """Bars at which a run on a prefix differs from the run on everything: look-ahead or hidden state. -1 = not checked."""
    prefix_note: str = ""
    fault: str = ""
    """That the strategy raised, hung, or returned what is no number; "" = it ran."""
    reason: str = ""
    """Why there cannot be enough evidence (for instance: options never trade in recorded chains); "" = nothing special."""
    # reported, no gates
    efficiency: float = math.nan
    """Walk-forward efficiency."""
    dsr: float = math.nan
    pbo: float = math.nan
    extra: Mapping[str, float] | None = None
    """Further numbers for the document."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`checks` holds every bar with measured, limit and unit; `missing` and `next_command` are for people."""

    verdict: Outcome
    checks: tuple[Line, ...]
    metrics: Mapping[str, float]
    missing: str
    next_command: str
    failed: tuple[str, ...]
    """Rules that were not passed, gates only."""


EVIDENCE_RULES: Final = ("TRADES", "SAMPLE_YEARS")
_HINTS: Final = (
    # The first failed rule in this order names the next command.
    ("RUNS", "python main.py recursive -s {strategy}"),
    ("PREFIX_DIFFERENCES", "python main.py lookahead -s {strategy}"),
    ("NET_STRESSED", "python main.py optimize -s {strategy}"),
    ("NEIGHBOURS_SHARPE_SHARE", "python main.py optimize -s {strategy}"),
    ("LOSS_PROBABILITY", "python main.py optimize -s {strategy}"),
)
_MORE_DATA: Final = "python main.py download-data --symbols ... --since ..., then python main.py validate -s {strategy} --data DIR"


def limit(policy: ValidationPolicy, submissions: int) -> float:
    """The p value allowed at the n-th judged submission of an idea (n from 1).

    Over however many submissions these add up to at most p_value_max + p_value_later, as 1/2 + 1/6 + 1/12 + ... = 1: the chance that
    one of them approves noise is no larger (union bound: whatever the submissions have in common, whoever chooses them).
    """
    first = float(policy.p_value_max)
    return first if submissions <= 1 else min(first / submissions, float(policy.p_value_later) / (submissions * (submissions - 1)))


def years_needed(policy: ValidationPolicy, asset_class: AssetClass, critical_t: float) -> float:
    """Years in which a strategy with the policy's multiple of its class's Sharpe floor reaches `critical_t` (t = Sharpe x sqrt(years))."""
    reached = policy.evidence_sharpe_multiple * policy.sharpe_min[asset_class]
    return (critical_t / reached) ** 2 if reached > 0.0 else 0.0


def judge(evidence: Evidence, policy: ValidationPolicy, submissions: int) -> Verdict:
    """Hold the evidence against every bar of domain.md section 7. `submissions`: the idea's judged submissions, this one included."""
    checks = _checks(evidence, policy, submissions)
    failed = tuple(check.rule for check in checks if check.gate and not check.passed)
    if not failed:
        outcome = Outcome.APPROVED
    elif evidence.fault or "PREFIX_DIFFERENCES" in failed or not set(EVIDENCE_RULES) & set(failed):
        outcome = Outcome.REJECTED  # a strategy that fails or looks ahead does so whatever is still to come
    else:
        outcome = Outcome.INSUFFICIENT_EVIDENCE
    metrics = {
        "p": adjusted(evidence, evidence.p), "t": evidence.t, "critical_t": evidence.critical_t,
        "excess_p": adjusted(evidence, evidence.excess_p), "sharpe": evidence.sharpe, "psr": evidence.psr, "dsr": evidence.dsr,
        "pbo": evidence.pbo, "loss_probability": evidence.loss_probability, "efficiency": evidence.efficiency,
        "trades": float(evidence.trades), "years": evidence.years, "out_years": evidence.out_years, "net": evidence.net,
        "stressed_net": evidence.stressed_net, "drawdown": evidence.drawdown, **(evidence.extra or {})}
    return Verdict(outcome, checks, metrics, _missing(outcome, evidence, policy, checks, failed, submissions),
                   _next_command(outcome, evidence, failed), failed)


def adjusted(evidence: Evidence, p: float) -> float:
    """A p value that also pays for trials that are not columns of the test: at most K / tested times as large (union bound)."""
    paid = p * max(1.0, evidence.trials / max(1, evidence.tested))
    return paid if math.isnan(paid) else min(1.0, paid)


def _checks(evidence: Evidence, policy: ValidationPolicy, submissions: int) -> tuple[Line, ...]:
    asset_class, allowed = evidence.asset_class, limit(policy, submissions)
    needed = years_needed(policy, asset_class, evidence.critical_t)
    over = f"over {evidence.trials} trials, submission {submissions}"
    drawdown = f"{policy.drawdown_level:.0%} of bootstrapped histories, phase-3 sizing on {policy.drawdown_equity:f}"
    return (
        Line("RUNS", float(bool(evidence.fault)), 0.0, "faults", not evidence.fault, evidence.fault),
        Line("PREFIX_DIFFERENCES", float(evidence.prefix_differences), 0.0, "bars", evidence.prefix_differences == 0,
             evidence.prefix_note or ("not checked" if evidence.prefix_differences < 0 else "")),
        _above("TRADES", evidence.trades, policy.trades_min, "trades", evidence.reason or "out of sample"),
        Line("SAMPLE_YEARS", evidence.years, needed, "years", evidence.years >= needed,
             f"so that Sharpe {policy.evidence_sharpe_multiple * policy.sharpe_min[asset_class]:g} would have passed"),
        _at_most("P_VALUE", adjusted(evidence, evidence.p), allowed, "probability", over),
        _at_most("P_VALUE_EXCESS", adjusted(evidence, evidence.excess_p), allowed, "probability", "over random entries, same exposure"),
        _above("SHARPE", evidence.sharpe, policy.sharpe_min[asset_class], "per year", "net, out of sample"),
        Line("PSR", evidence.psr, policy.psr_min, "probability", evidence.psr >= policy.psr_min, "that the true Sharpe is above 0"),
        _at_most("LOSS_PROBABILITY", evidence.loss_probability, policy.loss_probability_max, "probability", "of the in-sample best"),
        _above("NET_STRESSED", evidence.stressed_net, 0.0, "of notional", f"at {policy.stress_multiple:g} x fees and slippage"),
        _at_most("TRADE_SHARE", evidence.trade_share, policy.trade_share_max, "of profit", "largest trade"),
        _at_most("MONTH_SHARE", evidence.month_share, policy.month_share_max, "of profit", "best month"),
        _at_most("DRAWDOWN_BOOTSTRAP", evidence.drawdown, policy.drawdown_max[asset_class], "of equity", drawdown),
        Line("NEIGHBOURS_SHARPE_SHARE", evidence.neighbours_share, policy.neighbours_share_min, "of the chosen",
             not evidence.has_neighbours or evidence.neighbours_share >= policy.neighbours_share_min,
             "" if evidence.has_neighbours else "nothing to vary"),
        Line("WALK_FORWARD_EFFICIENCY", evidence.efficiency, None, "of in-sample", True, gate=False),
        Line("DEFLATED_SHARPE", evidence.dsr, None, "probability", True, gate=False),
        Line("PBO", evidence.pbo, None, "probability", True, "near 0.5 on a flat plateau of good parameters", gate=False),
    )


def _above(rule: str, measured: float, bar: float, unit: str, note: str) -> Line:
    """Equal does not pass."""
    return Line(rule, float(measured), float(bar), unit, measured > bar, note)


def _at_most(rule: str, measured: float, bar: float, unit: str, note: str) -> Line:
    """Equal passes."""
    return Line(rule, measured, bar, unit, measured <= bar, note)


def _missing(outcome: Outcome, evidence: Evidence, policy: ValidationPolicy, checks: tuple[Line, ...], failed: tuple[str, ...],
             submissions: int) -> str:
    if outcome is Outcome.APPROVED:
        return ""
    if evidence.fault:
        return evidence.fault
    bars = {check.rule: check for check in checks}
    if outcome is Outcome.INSUFFICIENT_EVIDENCE:
        parts = [evidence.reason] if evidence.reason else []
        if "TRADES" in failed:
            parts.append(_missing_trades(evidence, policy))
        if "SAMPLE_YEARS" in failed:
            parts.append(_missing_years(evidence, policy, bars["SAMPLE_YEARS"], submissions))
        rest = [_words(bars[rule]) for rule in failed if rule not in EVIDENCE_RULES]
        if rest:
            parts.append(f"as it stands it would be rejected: {', '.join(rest)}")
        return "; ".join(parts)
    parts = [_words(bars[rule]) for rule in failed]
    if "P_VALUE" in failed:
        parts.append(_to_significance(evidence))
    if "NET_STRESSED" in failed:
        parts.append(_to_costs(evidence, policy))
    return "; ".join(part for part in parts if part)


def _words(line: Line) -> str:
    if line.limit is None or line.measured is None or not math.isfinite(line.measured):
        return f"{line.rule} could not be measured (bar {line.limit:.4g} {line.unit})" if line.limit is not None else line.rule
    return f"{line.rule} {line.measured:.4g} (bar {line.limit:.4g} {line.unit})"


def _missing_trades(evidence: Evidence, policy: ValidationPolicy) -> str:
    lacking = policy.trades_min + 1 - evidence.trades
    pace = evidence.trades / evidence.out_years if evidence.out_years > 0.0 else 0.0
    time = f", about {lacking / pace:.1f} years at the present pace" if pace > 0.0 else ""
    return f"{lacking} more out-of-sample trades are needed (has {evidence.trades}, bar > {policy.trades_min}){time} or more instruments"


def _missing_years(evidence: Evidence, policy: ValidationPolicy, line: Line, submissions: int) -> str:
    if (allowed := limit(policy, submissions)) * (policy.bootstrap_draws_max + 1) < 1.0:
        return (f"submission {submissions} of this idea would have to show p <= {allowed:.1g}, and {policy.bootstrap_draws_max:,} "
                "resamples cannot: it has been judged too often to be approved")
    if line.limit is None or not math.isfinite(line.limit):
        return f"no sample of this size can show p small enough at submission {submissions} over {evidence.trials} trials"
    return (f"{line.limit - evidence.years:.2f} more years are needed (has {evidence.years:.2f}, bar {line.limit:.2f}"
            f" with {evidence.trials} trials at submission {submissions})")


def _to_significance(evidence: Evidence) -> str:
    """How long it would have to go on like this."""
    if not (evidence.t > 0.0 and math.isfinite(evidence.critical_t)) or evidence.critical_t <= evidence.t:
        return "" if evidence.t > 0.0 else "it does not earn its costs: no length of sample would help"
    more = evidence.years * ((evidence.critical_t / evidence.t) ** 2 - 1.0)
    return f"at this t of {evidence.t:.2f} against {evidence.critical_t:.2f} about {more:.1f} more years of the same would be needed"


def _to_costs(evidence: Evidence, policy: ValidationPolicy) -> str:
    """At which multiple of its costs the result would be nothing (costs are linear in the multiple)."""
    lost = evidence.net - evidence.stressed_net
    if not lost > 0.0 or not math.isfinite(lost) or policy.stress_multiple <= 1.0:
        return ""
    breaks = 1.0 + evidence.net / lost * (policy.stress_multiple - 1.0)
    return f"it breaks even at {max(0.0, breaks):.2f} times the modelled fees and slippage, {policy.stress_multiple:g} must be survived"


def _next_command(outcome: Outcome, evidence: Evidence, failed: tuple[str, ...]) -> str:
    if outcome is Outcome.APPROVED:
        return f"python main.py go-live {evidence.asset_class.value}"
    if outcome is Outcome.INSUFFICIENT_EVIDENCE:
        return _MORE_DATA.format(strategy=evidence.strategy)
    found = next((command for rule, command in _HINTS if rule in failed), _MORE_DATA)
    return found.format(strategy=evidence.strategy)
