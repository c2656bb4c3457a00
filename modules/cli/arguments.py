"""The command line's grammar: every verb with its options, the same everywhere. Refuses by Usage, with what was probably meant."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final, NoReturn

NOT_FOUND: Final = 2
FAULTY: Final = 4
CLASSES: Final = ("spot", "perp", "option", "forex")
ALIASES: Final = {"backtesting": "replay", "why": "explain", "walk-forward": "validate"}
MODES: Final = ("demo", "paper", "live")
FOLLOWED: Final = "whose daemon or journal; default: the only one that runs, else the settings' mode"
AS_IF: Final = "as if the settings said so"
COLUMNS: Final = ("trades", "fills", "ledger")


class Usage(Exception):
    """What was typed cannot be run. `code` is the exit code: 2 for a verb or option that does not exist, 4 for a faulty value."""

    def __init__(self, message: str, code: int) -> None:
        self.code = code
        super().__init__(message)


class Parser(argparse.ArgumentParser):
    """argparse that says what was probably meant, and leaves ending the process to its caller."""

    def error(self, message: str) -> NoReturn:
        code = FAULTY
        if message.startswith("unrecognized arguments:"):
            code = NOT_FOUND
            unknown = message.partition(":")[2].split()
            known = [option for action in self._actions for option in action.option_strings]
            for word in unknown:
                near = difflib.get_close_matches(word.partition("=")[0], known, 1)
                if near:
                    message += f"; did you mean {near[0]}?"
                    break
        raise Usage(f"{self.prog}: {message}\n{self.format_usage().rstrip()}", code)


def _amount(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not value.is_finite():
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def _number(text: str) -> float:
    return float(_amount(text))


def _positive(text: str) -> float:
    if (value := _number(text)) <= 0.0:
        raise argparse.ArgumentTypeError(f"{text!r} must be above 0")
    return value


def _speed(text: str) -> float:
    """Market seconds per second; "max" is only for runs on virtual time."""
    return 0.0 if text == "max" else _positive(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _days(text: str) -> int:
    if not 1 <= (value := _count(text)) <= 3650:
        raise argparse.ArgumentTypeError(f"{text!r} must be 1 to 3650 days")
    return value


def _class(text: str) -> str:
    """One asset class, in capitals; "all" is ALL."""
    name = text.lower()
    if name not in (*CLASSES, "all"):
        near = difflib.get_close_matches(name, CLASSES, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose {', '.join(CLASSES)} or all"
        raise argparse.ArgumentTypeError(f"{text!r} is no asset class; {hint}")
    return name.upper()


def _one_class(text: str) -> str:
    if (name := _class(text)) == "ALL":
        raise argparse.ArgumentTypeError(f"needs one asset class: {', '.join(CLASSES)}")
    return name


def _classes(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_one_class(part.strip()) for part in text.split(",") if part.strip()))


def _symbols(text: str) -> tuple[str, ...]:
    if not (found := tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))):
        raise argparse.ArgumentTypeError("names no symbol")
    return found


def _workers(text: str) -> int:
    if not 1 <= (value := _count(text)) <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} must be 1 to 256 processes")
    return value


def _counts(text: str) -> tuple[int, ...]:
    found = tuple(sorted({_count(part.strip()) for part in text.split(",")}))
    if found[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers of bars, 1 or more each")
    return found


class _Verbs:
    """Adds verbs to one parser: `-c` and `-v` to each, `--json` to those that print a result."""

    def __init__(self, root: Parser) -> None:
        self._verbs = root.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
        self.parsers: dict[str, Parser] = {}

    def add(self, name: str, help_: str, *, json: bool = True, aliases: Sequence[str] = (), mode: str = "") -> Parser:
        """`mode`: what --mode chooses, "" = the verb has none."""
        verb: Parser = self._verbs.add_parser(name, help=help_, description=help_, aliases=list(aliases), allow_abbrev=False)
        verb.add_argument("-c", "--config", action="append", type=Path, default=[], metavar="FILE",
                          help="settings file; may be given several times, the last wins")
        verb.add_argument("-v", "--verbose", action="count", default=0, help="say more")
        if mode:
            verb.add_argument("--mode", choices=MODES, help=mode)
        if json:
            verb.add_argument("--json", action="store_true", help="one JSON document on stdout and nothing else")
        for known in (name, *aliases):
            self.parsers[known] = verb
        return verb


def parser() -> tuple[Parser, dict[str, Parser]]:
    root = Parser(prog="main.py", description="A self-learning trading daemon. Without a verb it trades: on the demo market, unless told "
                  "otherwise.", allow_abbrev=False)
    verbs = _Verbs(root)

    trade = verbs.add("trade", "run the daemon until SIGTERM (also what happens without a verb)", json=False, mode=AS_IF)
    trade.add_argument("--speed", type=_positive, metavar="N", help="demo only: market seconds per second")
    trade.add_argument("--seed", type=_count, help="demo only: which market")
    trade.add_argument("--sd-notify", action="store_true", help="tell systemd when ready and that it is alive ($NOTIFY_SOCKET)")

    demo = verbs.add("demo", "the whole daemon on virtual time over the demo market")
    demo.add_argument("--days", type=_days)
    demo.add_argument("--seed", type=_count)
    demo.add_argument("--export", type=Path, metavar="DIR", help="also write the market as files that replay reads, and the run as "
                      "files that journal audit recounts")
    demo.add_argument("--state", type=Path, metavar="DIR", help="keep journal and decisions there")

    replay = verbs.add("replay", "the whole daemon on virtual time over recorded history", aliases=("backtesting",))
    replay.add_argument("--data", type=Path, required=True, metavar="DIR")
    replay.add_argument("--timerange", default="-", metavar="A-B", help="20260101-20260201, or with one side open: 20260101-")
    replay.add_argument("--classes", type=_classes, metavar="spot,perp")
    replay.add_argument("--timeframe", metavar="5m", help="only bars of this length")
    replay.add_argument("--speed", type=_speed, metavar="max", help="max (as fast as it goes) is the only speed there is")
    replay.add_argument("--news", type=Path, metavar="FILE", help="headlines as a daemon recorded them (news.db), seen when they were seen")
    replay.add_argument("--export", type=Path, metavar="DIR", help="as demo's")
    replay.add_argument("--state", type=Path, metavar="DIR")

    _size(verbs.add("size", "what Sizer would do with a trade, and which rule bound it"))
    _validation(verbs)
    _data(verbs)
    _drift(verbs)
    _going_live(verbs)
    _questions(verbs)
    _commands(verbs)
    _tools(verbs)
    return root, verbs.parsers


def _validation(verbs: _Verbs) -> None:
    for name, help_, aliases in (
        ("validate", "may a strategy trade real money? walk-forward, odds of luck, a verdict and a certificate", ("walk-forward",)),
        ("optimize", "search a strategy's space in sample; every set tried is a counted trial", ()),
        ("lookahead", "do a strategy's answers change when later bars are shown?", ()),
        ("recursive", "how much do a strategy's numbers depend on where its history begins?", ()),
    ):
        verb = verbs.add(name, help_, aliases=aliases, mode=AS_IF)
        verb.add_argument("-s", "--strategy", action="append", default=[], metavar="NAME", required=name == "optimize",
                          help="may be given several times; default: all")
        verb.add_argument("--data", type=Path, metavar="DIR", help="recorded history; default: the embedded demo market")
        verb.add_argument("--classes", type=_classes, metavar="spot,perp")
        verb.add_argument("--symbols", type=_symbols, metavar="BTC/USDT,ETH/USDT")
        verb.add_argument("--timerange", default="-", metavar="A-B", help="20200101-20260101, or with one side open: 20200101-")
        verb.add_argument("--timeframe", metavar="1h", help="only bars of this length")
        if name in ("validate", "optimize"):
            verb.add_argument("--seed", type=_count, help="of the bootstraps; default 1")
            verb.add_argument("--news", type=Path, metavar="FILE", help="headlines as a daemon recorded them (news.db); moods, cautions "
                              "and moved releases count from when they were seen")
            where = verb.add_mutually_exclusive_group()
            where.add_argument("--workers", type=_workers, metavar="N", help="processes on this machine; default: one per core")
            where.add_argument("--cluster", metavar="ADDRESS", help="a dask.distributed scheduler, like 10.0.0.5:8786")
        if name == "optimize":
            verb.add_argument("--challenge", action="store_true", help="the best set trades in its champion's shadow from the next start")
        if name == "validate":
            verb.add_argument("--report", type=Path, metavar="FILE.html", help="also write a page with pictures")
            verb.add_argument("--fresh", action="store_true", help="compute everything again, keep nothing from an interrupted run")
        if name == "recursive":
            verb.add_argument("--warmups", type=_counts, metavar="200,400,800", help="start-up bars to compare")


def _drift(verbs: _Verbs) -> None:
    drift = verbs.add("drift", "did the daemon decide what its strategies say over the bars it saw? exit code 1 if not", mode=FOLLOWED)
    drift.add_argument("--days", type=_days, default=30, metavar="N", help="how far back (default 30)")
    drift.add_argument("--warm", action="store_true", help="also compile what validate would have to compile first (a minute, once)")


def _going_live(verbs: _Verbs) -> None:
    new = verbs.add("new-config", "asks a dozen questions and writes config.toml; never overwrites without asking")
    new.add_argument("--out", type=Path, default=Path("config.toml"), metavar="FILE", help="default: config.toml")
    new.add_argument("--defaults", action="store_true", help="ask nothing, take every default")
    new.add_argument("--set", action="append", default=[], metavar="NAME=ANSWER", help="an answer in advance; may be given several times")
    new.add_argument("--overwrite", action="store_true", help="the file may be replaced")
    try_ = verbs.add("drill", "every wire that trading depends on, tried once with the smallest orders there are; its log is kept")
    try_.add_argument("asset_class", type=_one_class, metavar="CLASS")
    try_.add_argument("--testnet", action="store_true", help="on the venue's testnet or practice account: no real money")
    try_.add_argument("--key-file", type=Path, metavar="FILE", help="another key than the settings', like the testnet's own")
    try_.add_argument("--symbol", metavar="S", help="on this instrument; default: the cheapest of those that are traded")
    try_.add_argument("--confirm", action="store_true", help="real money without being asked again")
    live = verbs.add("go-live", "the checklist before real money, each line ok or missing with the next command")
    live.add_argument("asset_class", type=_one_class, metavar="CLASS")
    live.add_argument("--confirm", action="store_true", help="say yes to what it would ask: switching funds on once all else is ok")
    live.add_argument("--no-alerts", action="store_true", help="I know that nobody will be told of a halt")


def _data(verbs: _Verbs) -> None:
    get = verbs.add("download-data", "a venue's history as files that replay and validate read; interrupted, it goes on where it was")
    get.add_argument("--venue", required=True, metavar="V", help="bybit, binance, oanda, or any venue of ccxt")
    get.add_argument("--symbols", type=_symbols, metavar="BTC/USDT,BTC/USDT:USDT", help="default: what the settings trade there")
    get.add_argument("--timeframe", default="1m", metavar="1m", help="length of the bars (default 1m)")
    get.add_argument("--since", required=True, metavar="DATE", help="20240131, UTC")
    get.add_argument("--until", metavar="DATE", help="up to but not including; default: now")
    get.add_argument("--out", type=Path, metavar="DIR", help="default: data/VENUE")
    get.add_argument("--funding", action=argparse.BooleanOptionalAction, default=True, help="funding rates of perpetuals (default: yes)")
    get.add_argument("--mark", action=argparse.BooleanOptionalAction, default=True, help="mark prices of perpetuals (default: yes)")
    get.add_argument("--assume-financing", action="store_true", help="forex: take today's interest for the past, which no venue tells")
    take = verbs.add("import-data", "files of freqtrade (feather, JSON, parquet) or CSV as files that replay and validate read")
    take.add_argument("source", type=Path, metavar="SOURCE", help="a file, or a folder with all below it")
    take.add_argument("--out", type=Path, required=True, metavar="DIR")
    take.add_argument("--venue", default="", metavar="V", help="where it was recorded; default: what the files' names or folder say")
    take.add_argument("--symbol", default="", metavar="BTC/USDT", help="of a single file whose name does not tell")
    take.add_argument("--timeframe", default="", metavar="1h", help="of files whose names do not tell")


def _size(size: Parser) -> None:
    size.add_argument("--class", dest="asset_class", type=_one_class, required=True, metavar="CLASS")
    size.add_argument("--equity", type=_amount, required=True)
    size.add_argument("--confidence", type=_number, required=True)
    size.add_argument("--entry", type=_number, required=True, help="price; options: premium per unit")
    size.add_argument("--stop", type=_number, help="price")
    size.add_argument("--target", type=_number)
    size.add_argument("--side", choices=("buy", "sell"), help="default: told by the stop")
    size.add_argument("--good-setup", action="store_true", help="as if every check had passed")
    size.add_argument("--symbol", metavar="S", help="take lot, minimum and fees of this instrument of the demo market")
    size.add_argument("--free", type=_amount, help="free funds; default: the equity")
    size.add_argument("--leverage", type=_amount, help="the venue's highest")
    size.add_argument("--lot", type=_amount)
    size.add_argument("--minimum", type=_amount, help="smallest notional the venue takes")
    size.add_argument("--volume-24h", type=_number, help="USD traded in 24 h")
    size.add_argument("--liquidation", type=_number, help="liquidation price as the venue states it")
    size.add_argument("--open-risk", type=_amount, default=Decimal(0))
    size.add_argument("--drawdown-today", type=_amount, default=Decimal(0), help="money, not a fraction")


def _questions(verbs: _Verbs) -> None:
    status = verbs.add("status", "state, equity and drawdown per class, feeds, orders in doubt", mode=FOLLOWED)
    status.add_argument("--healthy", action="store_true", help="say nothing; exit 0 only if all is well (for health checks)")
    verbs.add("balance", "what each class's sub-ledger holds", mode=FOLLOWED)
    trades = verbs.add("trades", "open and the last closed trades", mode=FOLLOWED)
    trades.add_argument("n", nargs="?", type=_count, default=20)
    profit = verbs.add("profit", "result per class, net of fees and funding", mode=FOLLOWED)
    profit.add_argument("n", nargs="?", type=_count, default=0, help="only the last N days")
    daily = verbs.add("daily", "result per UTC day", mode=FOLLOWED)
    daily.add_argument("n", nargs="?", type=_count, default=7)
    verbs.add("performance", "result per strategy and instrument", mode=FOLLOWED)
    explain = verbs.add("explain", "why it trades or not: the last 24 h, or one decision with every check", aliases=("why",), mode=FOLLOWED)
    explain.add_argument("subject", nargs="?", default="", metavar="ID|SYMBOL")


def _commands(verbs: _Verbs) -> None:
    for name, help_ in (("pause", "no new entries; exits and stops run on"), ("resume", "entries again"),
                        ("kill", "halt: entries canceled, latched until reset-kill"), ("flatten", "close everything now, reduce-only")):
        verbs.add(name, help_, mode=FOLLOWED if name != "kill" else "only this mode's; default: whatever runs").add_argument(
            "asset_class", nargs="?", type=_class, default="ALL", metavar="CLASS")
    reset = verbs.add("reset-kill", "re-arm what the kill switch latched", mode=FOLLOWED)
    reset.add_argument("asset_class", type=_class, metavar="CLASS")
    reset.add_argument("--reason", required=True, help="goes into the journal")
    force = verbs.add("forceexit", "close one trade, or all, reduce-only", mode=FOLLOWED)
    force.add_argument("subject", metavar="ID|all")
    funds = verbs.add("funds", "the owner's switches and caps; without arguments: how they stand", mode=FOLLOWED)
    funds.add_argument("words", nargs="*", metavar="on|off CLASS")
    funds.add_argument("--pair-cap", type=_amount, metavar="0.1", help="the most one instrument may tie up, fraction of equity")
    funds.add_argument("--allocate", type=_amount, metavar="AMOUNT", help="what the class may use")
    funds.add_argument("--confirm", action="store_true", help="needed for what gives the bot more room")
    learning = verbs.add("learning", "what it believes of its strategies, since when, on what evidence; freeze, resume or reset it",
                         mode=FOLLOWED)
    learning.add_argument("action", nargs="?", choices=("freeze", "resume", "reset"))
    learning.add_argument("--report", type=Path, metavar="FILE.html", help="a page with pictures, from the journal: no daemon needed")
    verbs.add("reconcile", "compare the books with the venue now", mode=FOLLOWED)


def _tools(verbs: _Verbs) -> None:
    new = verbs.add("new-strategy", "write a strategy that runs, with its test")
    new.add_argument("name")
    show = verbs.add("show-config", "settings as they are in force; secrets as ***", mode=AS_IF)
    show.add_argument("--policies", action="store_true", help="the policies too")
    verbs.add("list-strategies", "strategies that can be used, and what is wrong with the others")
    listed = verbs.add("list-instruments", "what can be traded here, and what the settings' rule makes of it")
    listed.add_argument("--class", dest="asset_class", type=_one_class, metavar="CLASS")
    listed.add_argument("--venue", metavar="V", help="a real venue's, with volume, spread and age; default: the demo market's")
    listed.add_argument("--all", action="store_true", help="also those that the rule leaves out, each with its reason")
    verbs.add("news", "moods with the headlines behind them, cautions, sources", mode=FOLLOWED).add_argument(
        "asset", nargs="?", help="BTC, EUR, ...; without one, everything anybody spoke about")
    verbs.add("events", "what releases come and what each of them will close", mode=FOLLOWED).add_argument(
        "--days", type=_positive, default=14.0, metavar="N", help="how far ahead (default 14)")
    verbs.add("list-venues", "what each venue can do here, what it lacks for live, and what your drills showed")
    journal = verbs.add("journal", "verify: the hash chain, and that the books rebuild the same twice; audit DIR: recount what demo or "
                        "replay --export wrote, to the last unit", mode=FOLLOWED)
    journal.add_argument("action", choices=("verify", "audit"))
    journal.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="audit: what --export wrote")
    journal.add_argument("--file", type=Path, help="another journal than the configured one")
    export = verbs.add("export", "trades, fills or the ledger as CSV (tax tools)", json=False, mode=FOLLOWED)
    export.add_argument("what", choices=COLUMNS)
    export.add_argument("--format", choices=("csv",), default="csv")
    report = verbs.add("report", "what a span of time brought and cost, by class, strategy, instrument and month", mode=FOLLOWED)
    report.add_argument("--from", dest="since", metavar="DATE", help="20260101; default: the beginning")
    report.add_argument("--to", dest="until", metavar="DATE", help="up to but not including; default: now")
    report.add_argument("--html", type=Path, metavar="FILE", help="also write it as a page with pictures")
    report.add_argument("--csv", type=Path, metavar="FILE", help="also write its trades as a list (tax tools)")
    verbs.add("doctor", "what would go wrong before it does, each line with its remedy", mode=AS_IF).add_argument(
        "--telegram", action="store_true", help="wait for a message to the bot and show the ids that the settings want")
    verbs.add("backup", "keep the state folder as one archive; the daemon may run", mode=FOLLOWED).add_argument(
        "file", type=Path, metavar="FILE.tar.gz")
    verbs.add("restore", "put a backup back; what is there is moved aside, never overwritten",
              mode="of which the backup is; default: the settings' mode").add_argument(
        "file", type=Path, metavar="FILE.tar.gz")
    shell = verbs.add("completion", "what makes a shell complete verbs and options: source <(python main.py completion bash)", json=False)
    shell.add_argument("shell", choices=("bash", "zsh", "fish"))
    logs = verbs.add("logs", "the last lines of the log", json=False)
    logs.add_argument("-f", "--follow", action="store_true", help="go on as lines come, across rotations")
    logs.add_argument("-n", type=_count, default=20, metavar="LINES")
    verbs.add("version", "this program's version")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options of one verb; without a verb that is `trade`. Raises Usage; SystemExit(0) after --help."""
    root, known = parser()
    leading: list[str] = []
    rest = list(argv)
    while rest and rest[0].startswith("-") and rest[0] not in ("-h", "--help", "--version"):
        leading.append(rest.pop(0))
        if leading[-1] in ("-c", "--config", "--mode", "--speed", "--seed") and rest:
            leading.append(rest.pop(0))
    if rest and rest[0] == "--version":
        rest[0] = "version"
    if rest and not rest[0].startswith("-") and rest[0] not in known:
        near = difflib.get_close_matches(rest[0].lower(), known, 1)
        raise Usage(f"there is no verb {rest[0]!r}; " + (f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"),
                    NOT_FOUND)
    verb = rest.pop(0) if rest and rest[0] in known else "" if rest else "trade"
    if not verb:
        root.print_help()
        raise SystemExit(0)
    options, unknown = known[verb].parse_known_args([*leading, *rest])
    if unknown:
        known[verb].error(f"unrecognized arguments: {' '.join(unknown)}")
    options.verb = ALIASES.get(verb, verb)
    return options
