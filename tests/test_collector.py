"""What the process does about its own memory."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.daemon_process import ROOT

STORY = """
from pathlib import Path
from modules.runtime import collector

def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

replies = [bytes(1_000) for _ in range(60_000)]
kept = replies[::200]  # holes between what stays, and something at the very end
del replies
before = resident()
collector.give_back()
assert before - resident() > 20_000_000, (before, resident(), len(kept))
"""


def test_memory_that_was_freed_between_what_stays_goes_back_to_the_system() -> None:
    """In a process of its own: what other tests left behind is not counted."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", STORY], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
