"""Questions to the person at the terminal. Prompts go to stderr, so that what a verb prints stays clean; answers come from stdin."""

from __future__ import annotations

import sys
from collections.abc import Callable

from modules.domain.errors import OperatorRefused


def line(prompt: str) -> str:
    """One answer. Raises OperatorRefused at the end of input."""
    print(prompt, end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        print(file=sys.stderr)
        raise OperatorRefused("nobody answered: the end of the input was reached")
    return answer.strip()


def ask(question: str, default: str, check: Callable[[str], str]) -> str:
    """`check(answer)` gives the answer as it will be used, or raises ValueError with what is allowed; then it is asked again."""
    while True:
        answer = line(f"{question} [{default}] " if default else f"{question} ") or default
        try:
            return check(answer)
        except ValueError as wrong:
            print(f"  {wrong}", file=sys.stderr)


def confirmed(question: str, word: str = "yes") -> bool:
    """Whether exactly `word` was typed."""
    return line(f"{question} Type {word} to go on: ").lower() == word.lower()


def attended() -> bool:
    """Whether a person can be asked at all."""
    return sys.stdin.isatty()
