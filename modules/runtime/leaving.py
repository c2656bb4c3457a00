"""The end of a process that shall not depend on anybody: what nothing can cancel (a thread that waits for a name server) is left behind."""

from __future__ import annotations

import logging
import os
import sys
import threading


def leave_after(seconds: float, code: int) -> threading.Timer:
    """End this process with `code` in so many seconds unless the timer is canceled before: call when everything is on disk and said."""
    def leave() -> None:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()
    return timer


__all__ = ["leave_after"]
