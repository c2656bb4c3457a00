"""`new-config`: asks a dozen questions and writes the settings file they come to, commented, for its owner alone.

An answer that is not understood is asked again; nothing is overwritten without a yes; what is written has been loaded once. It writes no
secret, only where each is kept, and never mode live: `go-live` leads there.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import config
from modules.cli import asking
from modules.cli.output import emit
from modules.domain.errors import ConfigurationError, OperatorRefused
from modules.domain.instrument import AssetClass
from modules.runtime import keyfile
from modules.venues import factory

if TYPE_CHECKING:
    from rich.console import Console

Answers = dict[str, str]
CRYPTO: Final = ("spot", "perp", "option")
CLASSES: Final = (*CRYPTO, "forex")
YES: Final = ("yes", "y", "true", "1")
NO: Final = ("no", "n", "false", "0")


@dataclass(frozen=True, slots=True)
class Question:
    name: str
    text: str
    default: str
    check: Callable[[str], str]
    """The answer as it will be used; ValueError says what is allowed."""
    when: Callable[[Answers], bool] = lambda _: True
    fits: Callable[[str, Answers], str] = lambda answer, _: answer
    """As `check`, of how it goes with the answers before it."""


# -- what an answer may be --------------------------------------------------------------------------------------------------------


def _one_of(*allowed: str) -> Callable[[str], str]:
    def check(answer: str) -> str:
        if answer.lower() not in allowed:
            raise ValueError(f"{answer!r} is not one of {', '.join(allowed)}")
        return answer.lower()

    return check


def _mode(answer: str) -> str:
    if answer.lower() == "live":
        raise ValueError("begin with paper: it needs no key and costs nothing. go-live CLASS leads from there to live")
    return _one_of("demo", "paper")(answer)


def _classes(answer: str) -> str:
    words = list(dict.fromkeys(word for word in re.split(r"[\s,]+", answer.lower()) if word))
    if not words or set(words) - set(CLASSES):
        raise ValueError(f"{answer!r}: name one or more of {', '.join(CLASSES)}")
    if "option" in words and "perp" not in words:
        raise ValueError("option needs perp beside it: options are traded by what the perpetuals of their underlyings do")
    return ",".join(words)


def _venue(answer: str) -> str:
    name = answer.lower()
    if not re.fullmatch(r"[a-z0-9_]{1,32}", name) or name == "oanda":
        raise ValueError(f"{answer!r} is no crypto exchange; list-venues names those that are certified")
    if name not in (exchanges := factory.exchanges()):
        near = difflib.get_close_matches(name, exchanges, 1)
        raise ValueError(f"{answer!r} is no exchange that ccxt knows" + (f"; did you mean {near[0]}?" if near else ""))
    if not (row := factory.known(name)).live:
        print(f"  {name} can be used for paper trading only: {row.missing}", file=sys.stderr)
    return name


def _has(name: str, given: Answers) -> str:
    has = [asset_class.value.lower() for asset_class in factory.known(name).classes]
    if lacks := [one for one in CRYPTO if _trades(one)(given) and one not in has]:
        raise ValueError(f"{name} has no {', '.join(lacks)} here; it has {', '.join(has)}")
    return name


def _money(answer: str) -> str:
    """A comma may only group thousands: who writes 500,50 for five hundred and a half would risk a hundred times as much."""
    plain = re.fullmatch(r"([0-9]{1,3}(,[0-9]{3})+|[0-9]+(_[0-9]+)*)(\.[0-9]+)?", answer)
    if plain is None or not 0 < (value := Decimal(answer.replace(",", ""))) <= 10**9:
        raise ValueError(f"{answer!r} is not an amount above 0, like 500 or 500.50")
    return format(value, "f")


def _key_file(name: str, pair: bool) -> Callable[[str], str]:
    """A file that holds a secret as it must be kept; one that is not there yet may be made later."""

    def check(answer: str) -> str:
        if not answer or answer.lower() == "none":
            return ""
        path = Path(answer).expanduser().absolute()
        if not str(path).isprintable():
            raise ValueError("a path of printable characters")
        if not os.path.lexists(path):
            print(f"  {path} is not there yet. Make it like this: install -m 600 /dev/null {path}, then write into it "
                  + ("the two lines key=... and secret=..." if pair else "the token, one line"), file=sys.stderr)
            return str(path)
        try:
            _ = keyfile.read_pair(path, name) if pair else keyfile.read(path, name)
        except ConfigurationError as refused:
            raise ValueError(refused.faults[0]) from None
        return str(path)

    return check


def _needed(check: Callable[[str], str], what: str) -> Callable[[str], str]:
    def checked(answer: str) -> str:
        if not (found := check(answer)):
            raise ValueError(what)
        return found

    return checked


def _account(answer: str) -> str:
    if not re.fullmatch(r"[0-9]+(-[0-9]+){3}", answer):
        raise ValueError(f"{answer!r}: an OANDA account number looks like 101-001-1234567-001")
    return answer


def _timeframe(answer: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]?[mhd]", answer):
        raise ValueError(f"{answer!r}: must be like 1m, 5m, 1h or 1d")
    return answer


def _symbols(answer: str) -> str:
    """"" = the shipped short list, a number = so many by rule, else symbols."""
    if answer.lower() in ("", "short"):
        return ""
    if answer.isascii() and answer.isdigit():
        if not 1 <= int(answer) <= 500:
            raise ValueError(f"{answer}: 1 to 500 of each class")
        return answer
    found = [word for word in re.split(r"[\s,]+", answer.upper()) if word]
    if bad := [word for word in found if not re.fullmatch(r"[A-Z0-9]+/[A-Z0-9]+(:[A-Z0-9]+)?", word)]:
        raise ValueError(f"{bad[0]!r}: symbols are written like BTC/USDT, BTC/USDT:USDT (perpetual) or EUR/USD")
    return ",".join(found)


def _every_class(answer: str, given: Answers) -> str:
    """Of a list: each symbol is of a class that was named, and each class has one (options come with their perpetuals)."""
    if not answer or answer.isdigit():
        return answer
    named, found = given["classes"].split(","), {symbol: _class_of(symbol) for symbol in answer.split(",")}
    if stray := [symbol for symbol, name in found.items() if name not in named]:
        raise ValueError(f"{stray[0]} is {found[stray[0]]}, and the classes named are {', '.join(named)}")
    if bare := [name for name in named if name != "option" and name not in found.values()]:
        raise ValueError(f"none of them is {bare[0]}: name one, or leave {bare[0]} out of the classes")
    return answer


def _whole(answer: str) -> str:
    if not re.fullmatch(r"-?[0-9]{1,18}", answer):
        raise ValueError(f"{answer!r} is not a whole number; doctor --telegram shows it")
    return answer


def _yes(answer: str) -> str:
    if answer.lower() not in (*YES, *NO):
        raise ValueError(f"{answer!r}: yes or no")
    return "yes" if answer.lower() in YES else "no"


def _folder(answer: str) -> str:
    if not answer or not answer.isprintable():
        raise ValueError("a path of printable characters")
    return answer


def _trades(name: str) -> Callable[[Answers], bool]:
    return lambda given: given["mode"] != "demo" and name in given["classes"].split(",")


def _crypto(given: Answers) -> bool:
    return any(_trades(name)(given) for name in CRYPTO)


QUESTIONS: Final = (
    Question("mode", "demo (a made-up market) or paper (real prices, our fills, no real money)?", "paper", _mode),
    Question("classes", "Which classes: spot, perp, option, forex?", "spot,perp", _classes, lambda given: given["mode"] != "demo"),
    Question("venue", "Which crypto exchange?", "bybit", _venue, _crypto, _has),
    Question("key_file", "File with its API key (none: public prices only, enough for paper)?", "none", _key_file("key_file", True),
             _crypto),
    Question("account_id", "Your OANDA account number?", "", _account, _trades("forex")),
    Question("token_file", "File with your OANDA token (its prices need one)?", "",
             _needed(_key_file("token_file", False), "OANDA tells prices to nobody without a token"), _trades("forex")),
    Question("practice", "Is that an OANDA practice account?", "yes", _yes, _trades("forex")),
    Question("spot_money", "How much may SPOT use?", "500", _money, _trades("spot")),
    Question("perp_money", "How much may PERP use?", "300", _money, _trades("perp")),
    Question("option_money", "How much may OPTION use?", "500", _money, _trades("option")),
    Question("forex_money", "How much may FOREX use?", "500", _money, _trades("forex")),
    Question("symbols", "Which symbols: short (a few majors), a number (so many by volume), or a list?", "short", _symbols,
             lambda given: given["mode"] != "demo", _every_class),
    Question("timeframe", "Bars of which length?", "5m", _timeframe, lambda given: given["mode"] != "demo"),
    Question("telegram_file", "File with a Telegram bot's token, to be told of halts (none: nobody is told)?", "none",
             _key_file("telegram_file", False)),
    Question("chat_id", "Your Telegram chat id (0: not known yet; doctor --telegram shows it)?", "0", _whole,
             lambda given: bool(given["telegram_file"])),
    Question("page", "Show a web page on this machine (http://127.0.0.1:8080)?", "no", _yes),
    Question("news", "Read public news and calendar feeds?", "yes", _yes, lambda given: given["mode"] != "demo"),
    Question("state_dir", "Where to keep journal and books?", "state", _folder),
)


# -- the verb -------------------------------------------------------------------------------------------------------------------


def run(arguments: argparse.Namespace) -> int:
    path: Path = arguments.out
    given, asks = _in_advance(arguments.set), not arguments.defaults
    answers = {} if asks else _answers(given, ask=False)    # what is wrong is said before anything is asked, a file in the way included
    if not asks and (unused := given.keys() - answers.keys()):
        raise ConfigurationError([f"--set {name}={given[name]}: nobody asks for it with the other answers" for name in sorted(unused)])
    _may_write(path, overwrite=arguments.overwrite, ask=asks)
    answers = answers or _answers(given, ask=True)
    _write(path, document(answers))
    keys = [answers[name] for name in ("key_file", "token_file", "telegram_file") if answers.get(name)]
    emit(arguments, {"file": str(path), "mode": answers["mode"], "key_files": keys, "next": [
        f"python main.py doctor -c {path}", f"python main.py trade -c {path}"]}, _show)
    return 0


def _show(out: Console, said: Mapping[str, Any]) -> None:
    out.print(f"Wrote {said['file']} (readable by you alone). Every setting and its default: docs/configuration.md", markup=False)
    out.print(f"Next: {said['next'][0]}\nThen: {said['next'][1]}", markup=False)


def _in_advance(words: list[str]) -> Answers:
    """What --set says. Raises ConfigurationError with every fault."""
    names = {question.name for question in QUESTIONS}
    faults, given = [], {}
    for word in words:
        name, equals, answer = word.partition("=")
        if not equals or name not in names:
            near = difflib.get_close_matches(name, names, 1)
            faults.append(f"--set {word}: must be NAME=ANSWER with one of {', '.join(sorted(names))}" + (
                f"; did you mean {near[0]}?" if near else ""))
        given[name] = answer
    if faults:
        raise ConfigurationError(faults)
    return given


def _answers(given: Answers, *, ask: bool) -> Answers:
    """Every question that applies, in order: from --set, else asked, else its default. Raises ConfigurationError, OperatorRefused."""
    found: Answers = {}

    def sound(question: Question, answer: str) -> str:
        return question.fits(question.check(answer), found)

    for question in QUESTIONS:
        if not question.when(found):
            continue
        if question.name not in given and ask:
            found[question.name] = asking.ask(question.text, question.default, partial(sound, question))
            continue
        try:
            found[question.name] = sound(question, given.get(question.name, question.default))
        except ValueError as wrong:
            raise ConfigurationError([f"--set {question.name}={given.get(question.name, question.default)}: {wrong}"]) from None
    return found


def _may_write(path: Path, *, overwrite: bool, ask: bool) -> None:
    if not path.parent.is_dir():
        raise ConfigurationError([f"--out {path}: {path.parent} is no folder"])
    if not os.path.lexists(path) or overwrite:
        return
    if not ask or not asking.confirmed(f"{path} exists. It will be replaced by a new one."):
        raise OperatorRefused(f"{path} exists and was left as it is; say --overwrite, or another --out FILE")


def _write(path: Path, content: str) -> None:
    """Whole or not at all, 0600, and only what loads."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        config.load_settings([temporary.rename(temporary.with_suffix(".toml"))], {}, environment={}, env_file=Path(os.devnull))
        temporary.with_suffix(".toml").replace(path)
    except OSError as error:
        raise ConfigurationError([f"--out {path}: {error.strerror}"]) from None
    finally:
        temporary.unlink(missing_ok=True)
        temporary.with_suffix(".toml").unlink(missing_ok=True)


# -- what is written --------------------------------------------------------------------------------------------------------------


def document(given: Answers) -> str:
    """The settings file for these answers."""
    lines = ["# Written by new-config. Every setting, its default and what it may be: docs/configuration.md", "",
             "# demo: a made-up market. paper: real prices, our own fills. live: real money; go-live CLASS is the way there.",
             f"mode = {_quoted(given['mode'])}", "", "# Journal, certificates and books.", f"state_dir = {_quoted(given['state_dir'])}"]
    if given["mode"] != "demo":
        lines += ["", "# Paper money per class.", f"dry_run_wallet = {_amounts(given, CLASSES)}"]
        if crypto := [name for name in CRYPTO if _trades(name)(given)]:
            lines += _crypto_section(given, crypto)
        if _trades("forex")(given):
            lines += _oanda_section(given)
        lines += ["", "# Headlines and calendar feeds; the shipped calendar of releases is always in force.", "[news]",
                  f"enabled = {_bool(given['news'])}"]
    if given["telegram_file"]:
        mine = int(given["chat_id"]) > 0    # a private chat has its person's number; a group (negative) or none tells nobody's
        lines += ["", "# Who is told, and who may command: docs/telegram.md", "[telegram]",
                  f"token_file = {_quoted(given['telegram_file'])}", f"chat_id = {int(given['chat_id'])}",
                  f"user_ids = [{int(given['chat_id']) if mine else ''}]"]
    lines += ["", "# The page shows, it commands nothing; it is on this machine only.", "[http]", f"enabled = {_bool(given['page'])}"]
    return "\n".join(lines) + "\n"


def _crypto_section(given: Answers, classes: list[str]) -> list[str]:
    lines = ["", f"[venues.{given['venue']}]", f"classes = [{', '.join(_quoted(name.upper()) for name in classes)}]"]
    if given["key_file"]:
        lines += ["# Two lines, key=... and secret=..., in a file of your own (chmod 600). It may trade and nothing else.",
                  f"key_file = {_quoted(given['key_file'])}"]
    return [*lines, "# What each class may use of the wallet; in paper nothing of it is touched.", f"allocate = {_amounts(given, CRYPTO)}",
            *_choice(given, classes, f"venues.{given['venue']}")]


def _oanda_section(given: Answers) -> list[str]:
    return ["", "[venues.oanda]", 'classes = ["FOREX"]', f"account_id = {_quoted(given['account_id'])}",
            "# The token, one line, in a file of your own (chmod 600).", f"key_file = {_quoted(given['token_file'])}",
            f"practice = {_bool(given['practice'])}", f"allocate = {_amounts(given, ('forex',))}",
            *_choice(given, ["forex"], "venues.oanda")]


def _choice(given: Answers, classes: list[str], section: str) -> list[str]:
    """Bars and symbols; the rule is a table of its own, so it comes last."""
    lines = [f"timeframe = {_quoted(given['timeframe'])}"]
    chosen = given["symbols"]
    if chosen.isdigit():
        return [*lines, "", "# The most traded with narrow spreads, chosen anew every day.", f"[{section}.select]",
                f"number_assets = {int(chosen)}"]
    mine = [symbol for symbol in chosen.split(",") if symbol and _class_of(symbol) in classes]
    return [*lines, f"symbols = [{', '.join(map(_quoted, mine))}]" if mine else "# symbols = [...]; without it a short list of majors"]


def _class_of(symbol: str) -> str:
    """Perpetuals name what they settle in; a pair of two fiat currencies is forex."""
    fiat = {"USD", "EUR", "GBP", "JPY", "CHF", "AUD", "CAD", "NZD", "NOK", "SEK", "SGD", "HKD", "MXN", "ZAR", "PLN", "CZK", "HUF", "TRY"}
    return "perp" if ":" in symbol else "forex" if set(symbol.split("/")) <= fiat else "spot"


def _amounts(given: Answers, classes: tuple[str, ...]) -> str:
    named = [f"{AssetClass(name.upper()).value} = {_quoted(given[f'{name}_money'])}" for name in classes if f"{name}_money" in given]
    return "{ " + ", ".join(named) + " }"


def _quoted(text: str) -> str:
    """A TOML string; JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False)


def _bool(answer: str) -> str:
    return "true" if answer == "yes" else "false"
