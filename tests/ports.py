"""A port of this machine for a program that cannot be told to take any: none that the system gives to somebody else meanwhile."""

from __future__ import annotations

import random
import socket

BELOW_THE_SYSTEMS_OWN = range(20_000, 32_000)
"""Linux and macOS choose from 32,768 upwards for sockets that name no port, as every other test's do."""


def free_port() -> int:
    """Nobody listens on it now, and only another caller of this function could, one time in thousands."""
    chance = random.SystemRandom()
    while True:
        port = chance.choice(BELOW_THE_SYSTEMS_OWN)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
