"""What must not be guessed. Nothing that decides about a trade may use it: the same run twice is the same run."""

from __future__ import annotations

import secrets


def digits(count: int) -> str:
    """`count` decimal digits that nobody can guess."""
    return "".join(str(secrets.randbelow(10)) for _ in range(count))


def token() -> str:
    """A name for something short-lived, 12 characters."""
    return secrets.token_urlsafe(9)
