"""When Python's cycle collector may run. It looks at everything that is alive each time; most of what we make stays, and is no garbage.

Memory of everything else is freed at once by reference counting, so collecting cycles seldom costs a few megabytes and no more.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

RARELY: Final = (50_000, 20, 50)
"""New objects before a young collection, young ones per middle one, middle ones per full one (Python's own: 700, 10, 10)."""


@contextmanager
def rarely() -> Iterator[None]:
    """Within, collect seldom: a run that makes a few long-lived objects per bar for millions of bars."""
    before = gc.get_threshold()
    gc.set_threshold(*RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def paused() -> Iterator[None]:
    """Within, do not collect at all: a start, which only makes what stays."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def give_back() -> None:
    """Hand memory that was freed back to the system, where its allocator can (glibc's): replies of half a megabyte come and go between what
    stays, and the holes they leave would otherwise be kept. Some milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def keep_for_good() -> None:
    """Whatever is alive now is never looked at again. For a process that has started and will run for weeks: a full collection would
    otherwise stop the event loop for a tenth of a second."""
    gc.collect()
    gc.freeze()
