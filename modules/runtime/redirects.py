"""Where a web answer may send us on. A redirect is followed by the HTTP library before anyone sees it, and the request goes along: what is
signed or secret must go nowhere else, and what began encrypted must not go on in the clear."""

from __future__ import annotations

from types import SimpleNamespace

import aiohttp
from yarl import URL


class Redirected(aiohttp.ClientError):
    """An answer sent us to another address, and we do not go."""


def refused(*, to_plain_only: bool = False) -> aiohttp.TraceConfig:
    """For a session: every redirect raises Redirected; with `to_plain_only` those from https to http do, and others are followed."""
    async def look(_: aiohttp.ClientSession, __: SimpleNamespace, seen: aiohttp.TraceRequestRedirectParams) -> None:
        told = seen.response.headers.get("Location") or seen.response.headers.get("URI") or ""
        to = seen.url.join(URL(told))
        if not to_plain_only or (seen.url.scheme == "https" and to.scheme != "https"):
            raise Redirected(f"{seen.url.host} sends us on to {to.scheme}://{to.host}: not followed")

    found = aiohttp.TraceConfig()
    found.on_request_redirect.append(look)
    found.freeze()
    return found


__all__ = ["Redirected", "refused"]
