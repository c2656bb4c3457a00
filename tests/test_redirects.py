"""Where a web answer sends us on: nothing of ours goes to another host, and nothing that began encrypted goes on in the clear."""

from __future__ import annotations

import datetime
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from modules.domain.errors import VenueUnreachable
from modules.domain.order import InDoubt
from modules.runtime import redirects
from modules.venues.ccxt_client import Endpoint
from tests.binance_worlds import adapter
from tests.bybit_worlds import SPOT, order
from tests.emulators.binance import serving


class Site:
    """`url`; a path /to/... sends on to `target`; `asked` counts requests."""

    def __init__(self) -> None:
        self.url = self.target = ""
        self.asked: Counter[str] = Counter()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path] += 1
        if self.target:
            return web.Response(status=307, headers={"Location": self.target})
        return web.Response(text="here")


@asynccontextmanager
async def site(tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    made = Site()
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", made.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.0)
    await runner.setup()
    place = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await place.start()
    made.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    signed = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
              .not_valid_before(day).not_valid_after(day + datetime.timedelta(days=36_500)).sign(key, hashes.SHA256()))
    path = folder / "site.pem"
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def test_what_began_encrypted_does_not_go_on_in_the_clear_and_other_redirects_are_followed(tmp_path: Path) -> None:
    async with site(self_signed(tmp_path)) as secure, site() as plain, aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=False), trace_configs=[redirects.refused(to_plain_only=True)]) as session:
        secure.target = plain.url + "/there"
        with pytest.raises(redirects.Redirected, match=r"127\.0\.0\.1 sends us on to http://127\.0\.0\.1: not followed"):
            await session.get(secure.url)
        assert not plain.asked
        secure.target, plain.target = "", secure.url
        async with session.get(plain.url) as reply:
            assert await reply.text() == "here"


async def test_nothing_signed_follows_a_venue_to_another_host_and_an_order_that_was_sent_on_is_in_doubt() -> None:
    async with serving() as venue, site() as trap, site() as elsewhere:
        made = adapter(venue)
        try:
            await made.known()
            made.dialect.point(made.trade, Endpoint(trap.url, trap.url.replace("http", "ws")))
            trap.target = elsewhere.url + "/stolen"
            with pytest.raises(VenueUnreachable):
                await made.wallet()
            assert isinstance(await made.submit(order("1", SPOT)), InDoubt)
            assert trap.asked and not elsewhere.asked
        finally:
            await made.close()
