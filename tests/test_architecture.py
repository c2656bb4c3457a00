"""The promises of docs/architecture.md, read off the syntax tree. A failure names the file, the line and the promise that was broken."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import get_args

import pytest

from modules.domain.events import Fact

ROOT = Path(__file__).resolve().parents[1]
MODULES = ROOT / "modules"

MAY_IMPORT = {
    # package -> our packages it may import, besides itself. What is not listed may import nothing of ours.
    "domain": set(),
    "runtime": {"domain"},
    "filters": {"domain", "runtime"},
    "strategies": {"domain", "runtime"},
    "store": {"domain", "runtime"},
    "notify": {"domain", "runtime"},
    "venues": {"domain", "runtime", "backtest"},
    # The cost model and the fill rules are one source for replay and the paper venue, so these two know each other; see below.
    "backtest": {"domain", "runtime", "store", "venues", "strategies", "news"},
    "news": {"domain", "runtime", "store", "venues"},
    "learning": {"domain", "runtime", "store", "strategies", "backtest"},  # shadow trades cost what the cost model says
    "execution": {"domain", "runtime", "venues"},
}
RIM = {"cli"}
"""Where everything comes together: wiring and the command line may import whatever they run."""
ALL_AUTHORITIES_MAY_IMPORT = {"domain", "runtime", "filters", "strategies", "store", "notify", "venues", "backtest", "news", "learning",
                             "execution"}

CLOCKS = {
    "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter", "time.perf_counter_ns", "time.sleep",
    "datetime.now", "datetime.utcnow", "datetime.today", "date.today", "datetime.datetime.now", "datetime.date.today",
}
_LAST_WORDS = {clock.rpartition(".")[2] for clock in CLOCKS}
MAY_LOOK_AT_A_CLOCK = {
    "modules/cli/simulation.py": {"time.perf_counter"},  # how long a simulation took: told, never decided upon
    "modules/cli/tools.py": {"time.sleep"},  # `logs -f` waits for the next line
}
MAY_BE_RANDOM = {"modules/venues/demo/weather.py"}
"""Seeded generators make the demo market's weather."""
SEEDED = {"random.Random", "np.random.default_rng", "np.random.RandomState"}
"""What a seed is given to."""
HEAVY = {"pandas", "numba", "scipy", "fastparquet", "sklearn", "ccxt", "dask", "telegram", "aiomqtt", "PIL"}
BROAD = {"Exception", "BaseException"}

WRITES = {
    # One writer per kind of fact (docs/architecture.md); OptionSettled and FundingBooked are written by whoever hears the venue.
    "DaemonStarted": "main", "InstrumentListed": "Risk_Management", "FeedLost": "Market_Data", "FeedRestored": "Market_Data",
    "TradeOpened": "Risk_Management", "OrderIntended": "Risk_Management", "OrderSent": "Trade_Executor",
    "OrderAccepted": "Trade_Executor", "OrderRejected": "Trade_Executor", "OrderInDoubt": "Trade_Executor",
    "OrderCanceled": "Trade_Executor", "OrderExpired": "Trade_Executor", "Filled": "Trade_Executor",
    "ForeignFill": "Trade_Executor", "ExitRequested": "Trade_Executor", "TradeAbandoned": "Trade_Executor",
    "FundingBooked": "Wallet_Sync", "OptionSettled": "Wallet_Sync", "TransferSeen": "Wallet_Sync", "BalanceAdjusted": "Wallet_Sync",
    "UnallocatedMoved": "Wallet_Sync", "ForeignOrder": "Trade_Executor",
    "Reconciled": "Wallet_Sync", "PositionClosed": "Portfolio_Manager", "PhaseChanged": "Sizer", "BaselineRolled": "Kill_Switch",
    "PeakRaised": "Kill_Switch", "ApiErrorSeen": "Kill_Switch", "TradingHalted": "Kill_Switch", "TradingRearmed": "Kill_Switch",
    "SwitchChanged": "Funds_Controller", "BudgetChanged": "Funds_Controller", "OperatorCommand": "Operator_Desk",
    "EntriesPaused": "Risk_Management", "EntriesResumed": "Risk_Management", "BlackoutOpened": "News_Agent", "BlackoutClosed": "News_Agent",
    "StrategyApproved": "Validation_Manager", "StrategyRejected": "Validation_Manager", "StrategyRevoked": "Validation_Manager",
    "StrategyDemoted": "Validation_Manager", "TrialsAnchored": "Validation_Manager", "CalibrationUpdated": "Learning_Agent",
    "WeightsUpdated": "Learning_Agent", "ShadowOpened": "Learning_Agent", "ShadowClosed": "Learning_Agent",
    "InstrumentsChosen": "Instrument_Selector", "ChallengerEntered": "Learning_Agent", "ChallengerJudged": "Learning_Agent",
}
PURE = ("domain", "filters", "strategies", "backtest/costs.py")
"""Decides or computes, and never waits."""
DECISIONS = {
    "Strategy_Manager": ("on_bar", "consider", "_step", "_manage", "_signal", "warm", "on_fact", "apply"),
    "Sizer": ("size", "phase", "watch", "apply"),
    "Risk_Management": ("decide", "approve", "approve_follow_up", "approve_exit", "apply"),
    "Kill_Switch": ("tick", "mark", "halt", "rearm", "on_call", "apply", "on_fact"),
    "Funds_Controller": ("free", "sizing_equity", "reserved", "apply"),
    "Portfolio_Manager": ("apply", "on_fact", "equity"),
    "View_Builder": ("view",),
    "Trade_Executor": ("place", "request_exit", "on_fill", "on_done", "cancel_entries", "apply", "on_fact", "tick", "recover"),
    "Market_Data": ("accept", "take"),
    "Wallet_Sync": ("take", "compare", "apply"),
    "Validation_Manager": ("permission", "confidence", "tick", "apply", "on_fact", "revoke"),
    "Learning_Agent": ("weight", "confidence", "explain", "apply", "on_fact"),
}


class Source:
    """One file of ours, parsed once."""

    def __init__(self, path: Path, text: str | None = None) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8") if text is None else text
        self.name = path.relative_to(ROOT).as_posix()
        self.within = path.relative_to(MODULES).as_posix() if MODULES in path.parents else ""
        parts = path.relative_to(ROOT).parts
        self.package = parts[1] if len(parts) > 2 else ""
        """"domain", "venues" ... for a library's file, "" for authorities, main.py and config.py."""
        self.authority = path.stem if path.parent == MODULES and path.stem[0].isupper() else ""

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @cached_property
    def for_types_only(self) -> set[int]:
        """Ids of the nodes that only a type checker sees."""
        guarded = (node for node in self.nodes if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        return {id(inner) for node in guarded for statement in node.body for inner in ast.walk(statement)}

    @cached_property
    def imports(self) -> list[tuple[ast.Import | ast.ImportFrom, str]]:
        """(node, dotted name) of every import, wherever it stands; `from modules import x` counts as modules.x, a relative one as ".x"."""
        found: list[tuple[ast.Import | ast.ImportFrom, str]] = []
        for node in self.nodes:
            if isinstance(node, ast.Import):
                found += [(node, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                if node.module == "modules" and not node.level:
                    found += [(node, f"modules.{alias.name}") for alias in node.names]
                else:
                    found.append((node, "." * node.level + (node.module or "")))
        return found

    @cached_property
    def calls(self) -> list[tuple[ast.Call, str]]:
        """(node, what is called, as written)."""
        return [(node, ast.unparse(node.func)) for node in self.nodes if isinstance(node, ast.Call)]


Found = Iterator[tuple[int, str]]


@cache
def sources() -> tuple[Source, ...]:
    return tuple(map(Source, (ROOT / "main.py", ROOT / "config.py", *sorted(MODULES.rglob("*.py")))))


AUTHORITIES = {path.stem for path in MODULES.glob("*.py") if path.stem[0].isupper()}


def part_of(target: str) -> str:
    """The package or authority of ours that an import is about; anything else as it is."""
    return target.split(".")[1] if target.startswith("modules.") else target


# -- the promises ------------------------------------------------------------------------------------------------------------------


def a_library_never_imports_an_authority(source: Source) -> Found:
    if source.package and source.package not in RIM:
        for node, target in source.imports:
            if id(node) not in source.for_types_only and part_of(target) in AUTHORITIES | {"main", "config"}:
                yield node.lineno, f"imports {target}"


def authorities_import_each_other_only_for_the_type_checker(source: Source) -> Found:
    if source.authority:
        for node, target in source.imports:
            if id(node) not in source.for_types_only and part_of(target) in AUTHORITIES:
                yield node.lineno, f"imports {target}"


def every_package_imports_only_what_the_table_allows(source: Source) -> Found:
    own = source.package
    if own in RIM or source.path.parent == ROOT:
        return
    allowed = ALL_AUTHORITIES_MAY_IMPORT | AUTHORITIES if source.authority else MAY_IMPORT.get(own, set()) | {own}
    for node, target in source.imports:
        ours = target.startswith("modules.") and part_of(target) not in allowed and id(node) not in source.for_types_only
        if target.startswith(".") or ours:
            yield node.lineno, f"{own or source.path.stem} imports {target}"


def venues_use_the_cost_model_and_nothing_else_of_backtest(source: Source) -> Found:
    """Else the two are one knot."""
    for node, target in source.imports:
        if source.package == "venues" and target.startswith("modules.backtest"):
            names = [alias.name for alias in node.names]
            if target != "modules.backtest.costs" and not (target == "modules.backtest" and names == ["costs"]):
                yield node.lineno, ast.unparse(node)
        if source.within == "backtest/costs.py" and target.startswith("modules.") and part_of(target) != "domain":
            yield node.lineno, f"imports {target}"


def nothing_that_decides_waits(source: Source) -> Found:
    """def decides, async def talks: nothing suspends between looking and reserving."""
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    if source.within.startswith(tuple(f"{pure}/" for pure in PURE)) or source.within in PURE:
        yield from ((node.lineno, type(node).__name__) for node in source.nodes if isinstance(node, waiting))
    wanted = DECISIONS.get(source.authority, ())
    functions = [node for node in source.nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in wanted]
    for missing in set(wanted) - {function.name for function in functions}:
        yield 1, f"has no {missing}: the table DECISIONS is out of date"
    for function in functions:
        for node in ast.walk(function):
            if isinstance(node, waiting):
                yield node.lineno, f"{type(node).__name__} in {function.name}"


def only_runtime_reads_a_clock(source: Source) -> Found:
    """Decisions get `at` passed in."""
    if source.package == "runtime":
        return
    allowed = MAY_LOOK_AT_A_CLOCK.get(source.name, set())
    for node in source.nodes:
        if isinstance(node, ast.Attribute) and node.attr in _LAST_WORDS and (written := ast.unparse(node)) in CLOCKS - allowed:
            yield node.lineno, written
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield node.lineno, ast.unparse(node)


def the_same_run_twice_is_the_same_run(source: Source) -> Found:
    """Randomness only in the demo market's weather, and seeded."""
    if source.package == "runtime":
        return
    for node, target in source.imports:
        random = target.split(".")[0] in ("random", "secrets", "uuid") or target.startswith("numpy.random")
        if random and source.name not in MAY_BE_RANDOM:
            yield node.lineno, f"imports {target}"
    for call, called in source.calls:
        seeded = called in SEEDED and call.args
        if called.startswith(("random.", "np.random.", "numpy.random.", "os.urandom")) and not seeded:
            yield call.lineno, f"{called} without a seed"


def only_supervise_catches_everything(source: Source) -> Found:
    """Name the errors you can handle."""
    if source.name == "modules/runtime/supervise.py":
        return
    for node in source.nodes:
        if isinstance(node, ast.ExceptHandler):
            parts = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type] if node.type is not None else []
            caught = {ast.unparse(part) for part in parts}
            if not caught or caught & BROAD:
                yield node.lineno, f"except {', '.join(sorted(caught)) or 'of everything'}"


def no_float_becomes_money_but_through_its_repr(source: Source) -> Found:
    """Decimal(0.1) is 0.1000000000000000055...: a float enters money as Decimal(repr(x)) or through domain/money.py's doors."""
    for call, called in source.calls:
        if called in ("Decimal", "decimal.Decimal") and call.args:
            value = call.args[0]
            literal = isinstance(value, ast.Constant) and isinstance(value.value, float)
            if literal or (isinstance(value, ast.Call) and ast.unparse(value.func) in ("float", "round", "math.sqrt", "math.exp")):
                yield call.lineno, ast.unparse(call)


def nothing_heavy_is_imported_by_what_the_daemon_loads(source: Source) -> Found:
    """The live process holds no pandas, numba, scipy or ccxt that nobody asked for."""
    if source.path in loaded_by_the_daemon():
        for node in _at_the_top(source):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, f"imports {one}") for one in names if one.split(".")[0] in HEAVY)


def only_risk_management_builds_an_approved_order(source: Source) -> Found:
    if source.authority != "Risk_Management":
        yield from ((call.lineno, called) for call, called in source.calls if called.rpartition(".")[2] == "ApprovedOrder")


def only_trade_executor_talks_orders_with_a_venue(source: Source) -> Found:
    # execution/wire.py is its hands. The drill tries an account that no daemon holds: it has the account's lock, and there is no journal
    # its orders could be missing from.
    if source.authority != "Trade_Executor" and source.within not in ("venues/drill.py", "execution/wire.py"):
        for call, called in source.calls:
            whom, _, verb = called.rpartition(".")
            if (verb in ("submit", "cancel") and "venue" in whom.lower()) or called == "Wire":
                yield call.lineno, called


def each_kind_of_fact_has_the_one_writer_the_table_names(source: Source) -> Found:
    if source.authority or source.path.parent == ROOT:
        for call, called in source.calls:
            # Operator_Desk makes a change only to ask Funds_Controller whether it loosens; the writer appends its own.
            asked = source.authority == "Operator_Desk" and called in ("SwitchChanged", "BudgetChanged")
            if called in WRITES and WRITES[called] != source.path.stem and not asked:
                yield call.lineno, f"makes a {called}"


def no_library_appends_to_the_journal(source: Source) -> Found:
    if source.package:
        for call, called in source.calls:
            if called.endswith(".append") and "journal" in called.lower():
                yield call.lineno, called


def every_module_says_what_it_is(source: Source) -> Found:
    """And an authority's file holds the class of its name."""
    if source.text.strip() and ast.get_docstring(source.tree) is None:
        yield 1, "no docstring"
    if source.authority and source.authority != "Logger_Config":
        wanted = source.authority.replace("_", "")
        if not any(isinstance(node, ast.ClassDef) and node.name == wanted for node in source.tree.body):
            yield 1, f"no class {wanted}"


def nothing_is_left_unfinished(source: Source) -> Found:
    for number, line in enumerate(source.text.splitlines(), 1):
        if any(word in line for word in ("TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error")):
            yield number, line.strip()[:80]


PROMISES = (
    a_library_never_imports_an_authority, authorities_import_each_other_only_for_the_type_checker,
    every_package_imports_only_what_the_table_allows, venues_use_the_cost_model_and_nothing_else_of_backtest,
    nothing_that_decides_waits, only_runtime_reads_a_clock, the_same_run_twice_is_the_same_run, only_supervise_catches_everything,
    no_float_becomes_money_but_through_its_repr, nothing_heavy_is_imported_by_what_the_daemon_loads,
    only_risk_management_builds_an_approved_order, only_trade_executor_talks_orders_with_a_venue,
    each_kind_of_fact_has_the_one_writer_the_table_names, no_library_appends_to_the_journal, every_module_says_what_it_is,
    nothing_is_left_unfinished,
)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_the_code_keeps_its_promise(promise: Callable[[Source], Found]) -> None:
    words = promise.__name__.replace("_", " ")
    broken = [f"{source.name}:{line}: {what} - promised: {words}" for source in sources() for line, what in promise(source)]
    assert not broken, "\n".join(broken)


# -- these promises can be broken ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path, code, promise", [
    ("domain/guilty.py", "from modules.Kill_Switch import KillSwitch", a_library_never_imports_an_authority),
    ("domain/guilty.py", "from modules import Kill_Switch", a_library_never_imports_an_authority),
    ("store/guilty.py", "import main", a_library_never_imports_an_authority),
    ("Sizer.py", "from modules.Kill_Switch import KillSwitch", authorities_import_each_other_only_for_the_type_checker),
    ("domain/guilty.py", "import modules.store.journal", every_package_imports_only_what_the_table_allows),
    ("domain/guilty.py", "from ..store import journal", every_package_imports_only_what_the_table_allows),
    ("filters/guilty.py", "def f():\n    from modules.venues import protocol", every_package_imports_only_what_the_table_allows),
    ("Sizer.py", "from modules.cli import app", every_package_imports_only_what_the_table_allows),
    ("venues/guilty.py", "from modules.backtest.replay import Recorder", venues_use_the_cost_model_and_nothing_else_of_backtest),
    ("filters/guilty.py", "async def decide(): ...", nothing_that_decides_waits),
    ("Sizer.py", "class Sizer:\n    async def size(self): ...", nothing_that_decides_waits),
    ("Sizer.py", "import time\nAT = time.time()", only_runtime_reads_a_clock),
    ("Sizer.py", "from time import time", only_runtime_reads_a_clock),
    ("Sizer.py", "from datetime import datetime\nAT = datetime.now()", only_runtime_reads_a_clock),
    ("Sizer.py", "import random\nX = random.Random(7)", the_same_run_twice_is_the_same_run),
    ("venues/demo/weather.py", "import random\nX = random.random()", the_same_run_twice_is_the_same_run),
    ("venues/demo/weather.py", "import random\nX = random.Random()", the_same_run_twice_is_the_same_run),
    ("Sizer.py", "try:\n    pass\nexcept Exception:\n    pass", only_supervise_catches_everything),
    ("Sizer.py", "try:\n    pass\nexcept (ValueError, BaseException):\n    pass", only_supervise_catches_everything),
    ("Sizer.py", "try:\n    pass\nexcept:\n    pass", only_supervise_catches_everything),
    ("Sizer.py", "X = Decimal(0.1)", no_float_becomes_money_but_through_its_repr),
    ("Sizer.py", "X = Decimal(float(y))", no_float_becomes_money_but_through_its_repr),
    ("Sizer.py", "import pandas as pd", nothing_heavy_is_imported_by_what_the_daemon_loads),
    ("Sizer.py", "from scipy.stats import norm", nothing_heavy_is_imported_by_what_the_daemon_loads),
    ("Sizer.py", "risk.ApprovedOrder(1, 2)", only_risk_management_builds_an_approved_order),
    ("Sizer.py", "self._venues[name].submit(order)", only_trade_executor_talks_orders_with_a_venue),
    ("Sizer.py", "self._wire = Wire(clock, health, policy)", only_trade_executor_talks_orders_with_a_venue),
    ("Sizer.py", "self._journal.append(TradingHalted(at))", each_kind_of_fact_has_the_one_writer_the_table_names),
    ("store/guilty.py", "self._journal.append(fact)", no_library_appends_to_the_journal),
    ("Kill_Switch.py", "class KillSwitches: ...", every_module_says_what_it_is),
    ("domain/guilty.py", "# TO" "DO: later", nothing_is_left_unfinished),
])
def test_a_broken_promise_is_found(path: str, code: str, promise: Callable[[Source], Found]) -> None:
    assert list(promise(Source(MODULES / path, f'"""Says what it is."""\n{code}\n')))


def test_what_only_the_type_checker_sees_breaks_nothing() -> None:
    code = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from modules.Kill_Switch import KillSwitch\n"
    for promise in (a_library_never_imports_an_authority, authorities_import_each_other_only_for_the_type_checker):
        assert list(promise(Source(MODULES / "Sizer.py", code))) == []


# -- the tables ------------------------------------------------------------------------------------------------------------------------


def test_every_kind_of_fact_has_a_writer_that_writes_it() -> None:
    kinds = {kind.__name__ for kind in get_args(Fact)}
    assert kinds == WRITES.keys()
    made = {(source.path.stem, called) for source in sources() for _, called in source.calls if called in kinds}
    assert {(writer, kind) for kind, writer in WRITES.items()} <= made, "facts that nobody writes"


def test_the_table_of_packages_knows_every_package() -> None:
    packages = {source.package for source in sources()} - {""}
    assert packages <= MAY_IMPORT.keys() | RIM
    assert MAY_IMPORT.keys() - packages <= {"learning"}, "learning is to come with its issue; the others are gone"


def _at_the_top(source: Source) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run when the module is loaded."""
    for statement in source.tree.body:
        for node in (statement,) if isinstance(statement, ast.Import | ast.ImportFrom) else _unfolded(statement):
            if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in source.for_types_only:
                yield node


def _unfolded(statement: ast.stmt) -> Iterator[ast.AST]:
    if isinstance(statement, ast.If | ast.Try | ast.With):
        yield from ast.walk(statement)


@cache
def loaded_by_the_daemon() -> frozenset[Path]:
    """Every file of ours that main.py and the `trade` verb load before anything runs."""
    by_path = {source.path: source for source in sources()}
    found: set[Path] = set()
    waiting = [ROOT / "main.py", MODULES / "cli" / "trade.py"]
    while waiting:
        source = by_path.get(waiting.pop())
        if source is None or source.path in found:
            continue
        found.add(source.path)
        for node in _at_the_top(source):
            names = [alias.name for alias in node.names]
            dotted = names if isinstance(node, ast.Import) else [node.module or "", *(f"{node.module}.{name}" for name in names)]
            waiting += [path for one in dotted for path in _files_of(one)]
    return frozenset(found)


def _files_of(dotted: str) -> tuple[Path, Path]:
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py"), path / "__init__.py"


def test_the_daemons_process_really_holds_none_of_the_heavy_libraries() -> None:
    assert len(loaded_by_the_daemon()) > 40
    code = f"import sys, main, modules.cli.trade; print(sorted(set({sorted(HEAVY)}) & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert found.stdout.strip() == "[]"
