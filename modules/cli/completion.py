"""`completion bash|zsh|fish`: a script that completes verbs, options and their choices, made from the same grammar that parses them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from modules.cli import arguments as grammar


def run(arguments: argparse.Namespace) -> int:
    print({"bash": bash, "zsh": zsh, "fish": fish}[arguments.shell](), end="")
    return 0


def words() -> dict[str, tuple[str, list[str]]]:
    """Verb -> (what it does, its options and choices)."""
    _, verbs = grammar.parser()
    return {name: (parser.description or "", sorted(_words(parser))) for name, parser in verbs.items()}


def _words(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))
        if action.choices is not None:
            yield from map(str, action.choices)
        elif action.metavar == "CLASS":
            yield from grammar.CLASSES


def bash() -> str:
    cases = "\n".join(f'    {verb}) known="{" ".join(options)}" ;;' for verb, (_, options) in words().items())
    return f'''_trading_bot() {{
  local known verb word number=1
  while [ $number -lt $COMP_CWORD ]; do
    word=${{COMP_WORDS[$number]}}
    case $word in -*|main.py|*/main.py) ;; *) verb=$word; break ;; esac
    number=$((number + 1))
  done
  case $verb in
    "") known="{" ".join(words())}" ;;
{cases}
  esac
  COMPREPLY=($(compgen -W "$known" -- "${{COMP_WORDS[$COMP_CWORD]}}"))
  [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "${{COMP_WORDS[$COMP_CWORD]}}"))
}}
complete -o filenames -F _trading_bot main.py ./main.py
_trading_bot_python() {{
  case ${{COMP_WORDS[1]}} in *main.py) _trading_bot ;; *) COMPREPLY=($(compgen -f -- "${{COMP_WORDS[$COMP_CWORD]}}")) ;; esac
}}
complete -o filenames -F _trading_bot_python python python3 .venv/bin/python
'''


def zsh() -> str:
    return "autoload -U +X bashcompinit && bashcompinit\n" + bash()


def fish() -> str:
    lines = []
    for verb, (about, options) in words().items():
        said = about.replace("'", "")
        lines.append(f"complete -c main.py -f -n '__fish_use_subcommand' -a {verb} -d '{said}'")
        for option in options:
            kind = f"-l {option[2:]}" if option.startswith("--") else f"-a {option}"
            lines.append(f"complete -c main.py -n '__fish_seen_subcommand_from {verb}' {kind}")
    return "\n".join(lines) + "\n"
