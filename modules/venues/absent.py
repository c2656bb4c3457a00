"""A venue that is not there yet: it has its name and nothing else, so that everything around trading can run while it is waited for."""

from __future__ import annotations

from typing import Final, NoReturn

from modules.domain.errors import VenueUnreachable
from modules.venues.protocol import Capabilities


class Absent:
    """Stands in for `name` until it has been reached. Whatever is asked of it raises VenueUnreachable."""

    capabilities: Final = Capabilities(
        set_client_id=False, query_by_client_id=False, trade_history_by_order=False, venue_stop=False, resting_target=False,
        reduce_only=False)

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, what: str) -> NoReturn:
        if what.startswith("_"):
            raise AttributeError(what)
        raise VenueUnreachable(f"{self.name}: not connected yet")

    async def close(self) -> None:
        """There is nothing to close."""
