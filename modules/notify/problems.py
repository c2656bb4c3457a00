"""Tells people of what is wrong and is no fact: a full disk, old wallet data, a late loop, a feed that stays lost - once when it has
lasted a while, and once when it is over. Owns nothing; what the status document calls problems is all it knows.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

LOOK_S: Final = 5.0
PATIENCE_S: Final = 30.0
"""For how long something must be wrong, or well again, before anybody hears of it."""
AT_ONCE: Final = ("the disk",)
"""What cannot wait: entries have just stopped for it."""
LATER: Final = {"feed ": 900.0}
"""That a feed was lost has been told as a fact; that it stays lost is told after this."""
_NUMBERS: Final = re.compile(r"[0-9]+(?:[.,][0-9]+)*")


@dataclass(slots=True)
class _Problem:
    words: str
    since: float
    seen: float
    told: bool = False


class ProblemWatch:
    """`run` for ever, supervised. `problems` gives what is wrong now, in words; `tell` hears what is new. The numbers in the words may
    change without its being another problem."""

    def __init__(self, problems: Callable[[], list[str]], tell: Callable[[str], None]) -> None:
        self._problems = problems
        self._tell = tell
        self._known: dict[str, _Problem] = {}

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.look(loop.time())
            await asyncio.sleep(LOOK_S)

    def look(self, now: float) -> None:
        """Take in what is wrong at `now` (monotonic seconds)."""
        for words in self._problems():
            problem = self._known.setdefault(_NUMBERS.sub("#", words), _Problem(words, now, now))
            problem.words, problem.seen = words, now
        began, ended = [], []
        for key, problem in list(self._known.items()):
            if problem.seen == now and not problem.told and now - problem.since >= _patience(key):
                problem.told = True
                began.append(problem.words)
            elif now - problem.seen >= (PATIENCE_S if problem.told else LOOK_S):
                del self._known[key]
                if problem.told:
                    ended.append(problem.words)
        if began:
            self._tell(f"Not well: {'; '.join(began)}.")
        if ended:
            self._tell(f"Well again: no longer {'; '.join(ended)}.")


def _patience(key: str) -> float:
    if key.startswith(AT_ONCE):
        return 0.0
    return next((seconds for start, seconds in LATER.items() if key.startswith(start)), PATIENCE_S)


__all__ = ["ProblemWatch"]
