"""The web page as its owner sees it: in a real browser against the real process, and what it refuses to everybody else."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from modules.domain.errors import ConfigurationError, NotFound
from modules.notify import web
from modules.notify.web import WebPage
from tests.daemon_process import ROOT, Process
from tests.ports import free_port
from tests.timing import PATIENCE_S, within_wall

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--no-first-run"]


HOSTILE = "</script><script>alert(1)</script><!--"


class Served:
    """A page with three documents on a port of its own."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.asked = 0
        documents = {"status": self._status, "lost": self._lost, "news": self._news}
        self.page = WebPage("127.0.0.1", 0, documents, lambda: self.problems, lambda: b"figures 1\n",
                            first=("status?n=7", "lost", "news", "unknown"))

    def _status(self, query: Mapping[str, str]) -> dict[str, Any]:
        self.asked += 1
        return {"n": query.get("n", "")}

    @staticmethod
    def _lost(_: Mapping[str, str]) -> dict[str, Any]:
        raise NotFound("there is none")

    @staticmethod
    def _news(_: Mapping[str, str]) -> dict[str, Any]:
        return {"headline": HOSTILE}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.page.served_on}"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    one = Served()
    task = asyncio.create_task(one.page.run())
    async with asyncio.timeout(PATIENCE_S):
        while not one.page.served_on:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    yield one
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_foreign_name_and_anything_but_looking_are_refused_and_counted(served: Served) -> None:
    async with ClientSession() as client:
        for headers in ({"Host": "evil.example"}, {"Host": "evil.example:8080"}, {"Host": "127.0.0.1.evil.example"}):
            async with client.get(f"{served.address}/api/status", headers=headers) as reply:
                assert reply.status == 403
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            async with client.request(method, f"{served.address}/api/status") as reply:
                assert reply.status == 405
        assert served.page.refused == 8 and served.asked == 0
        async with client.get(f"http://localhost:{served.page.served_on}/api/status") as reply:
            assert reply.status == 200


async def test_every_answer_forbids_foreign_scripts_frames_and_requests(served: Served) -> None:
    async with ClientSession() as client:
        for path in ("/", web.ICON, "/healthz", "/metrics", "/api/status", "/api/none", "/nothing"):
            async with client.get(served.address + path) as reply:
                assert "default-src 'none'" in reply.headers["Content-Security-Policy"], path
                assert reply.headers["X-Frame-Options"] == "DENY" and "Access-Control-Allow-Origin" not in reply.headers


async def test_what_cannot_be_had_is_said_in_one_sentence(served: Served) -> None:
    async with ClientSession() as client:
        for path, status, said in (("/api/lost", 404, "there is none"), ("/api/none", 404, "there are: lost, news, status"),
                                   ("/api/status?n=" + "9" * 600, 400, "too long")):
            async with client.get(served.address + path) as reply:
                assert reply.status == status and said in (await reply.json())["error"]


async def test_however_many_look_a_document_is_made_once_a_second(served: Served) -> None:
    async with ClientSession() as client:
        for _ in range(20):
            async with client.get(f"{served.address}/api/status?n=5") as reply:
                assert await reply.json() == {"n": "5"}
    assert served.asked == 1


async def test_the_page_brings_its_first_answers_and_no_headline_gets_out_of_them(served: Served) -> None:
    async with ClientSession() as client, client.get(f"{served.address}/") as reply:
        text = await reply.text()
    assert HOSTILE not in text and "alert(1)</" not in text
    first = text.split(web.SLOT.decode(), 1)[1].split("</script>", 1)[0]
    assert json.loads(first) == {"status?n=7": {"n": "7"}, "news": {"headline": HOSTILE}}, "what cannot be had is asked for apart"


async def test_a_look_is_one_request_and_only_the_pages_own_scripts_run(served: Served) -> None:
    async with ClientSession() as client, client.get(f"{served.address}/") as reply:
        text, policy = await reply.text(), reply.headers["Content-Security-Policy"]
    assert "src=" not in text and 'rel="stylesheet"' not in text, "style and scripts are in the page itself"
    scripts = [part.split("</script>", 1)[0].encode() for part in text.split("<script>")[1:]]
    assert len(scripts) == 2
    for script in scripts:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" in policy
    allowed = policy.split("script-src ", 1)[1].split(";", 1)[0]
    assert "unsafe" not in allowed and "'self'" not in allowed


async def test_health_names_each_problem(served: Served) -> None:
    async with ClientSession() as client:
        async with client.get(f"{served.address}/healthz") as reply:
            assert (reply.status, await reply.text()) == (200, "ok\n")
        served.problems = ["feed BTC/USDT is lost", "the disk is nearly full"]
        async with client.get(f"{served.address}/healthz") as reply:
            assert (reply.status, await reply.text()) == (503, "feed BTC/USDT is lost\nthe disk is nearly full\n")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "bot.example", "::"])
def test_an_address_that_others_could_reach_is_refused_with_the_way_to_do_it(host: str) -> None:
    with pytest.raises(ConfigurationError, match="ssh -L"):
        web.check_loopback(host)


def test_the_page_asks_nobody_but_the_daemon() -> None:
    for file in web.PAGE.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text and "eval(" not in text and "innerHTML" not in text, file.name


# -- the real process ---------------------------------------------------------------------------------------------------


class Daemon:
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        (folder / "policies").symlink_to(ROOT / "policies")
        (folder / "config.toml").write_text(f"[http]\nenabled = true\nport = {self.port}\n", encoding="utf-8")
        self.process = Process(folder, "-c", "config.toml", speed=900)  # faster, and on a busy machine orders are too old to be filled

    def wait(self) -> None:
        self.process.wait("a closed trade", lambda: self.process.ask("trades")["closed"], 240.0)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    started = Daemon(tmp_path_factory.mktemp("page"))
    try:
        started.wait()
        yield started
    finally:
        started.process.end()


async def test_metrics_are_read_by_prometheus_own_parser_and_agree_with_the_status(daemon: Daemon) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    async with ClientSession() as client, client.get(f"{daemon.address}/metrics") as reply:
        assert reply.content_type == "text/plain"
        families = {family.name: family for family in text_string_to_metric_families(await reply.text())}
    status = daemon.process.ask("status")
    equity = {sample.labels["asset_class"]: sample.value for sample in families["trading_bot_equity"].samples}
    assert set(equity) == set(status["classes"])
    assert all(abs(equity[name] / float(shown["equity"]) - 1) < 0.05 for name, shown in status["classes"].items())
    limits = {sample.labels["asset_class"]: sample.value for sample in families["trading_bot_drawdown_daily_limit_ratio"].samples}
    assert set(limits.values()) == {0.05}
    facts = {sample.labels["kind"]: sample.value for sample in families["trading_bot_facts"].samples}
    assert facts["Filled"] >= 2 and facts["PositionClosed"] >= 1
    assert families["process_resident_memory_bytes"].samples[0].value > 1e7
    assert families["trading_bot_journal_rows"].samples[0].value > 10


async def test_every_document_of_the_page_is_json_with_what_was_asked(daemon: Daemon) -> None:
    async with ClientSession(daemon.address) as client:
        async def ask(path: str, status: int = 200) -> dict[str, Any]:
            async with client.get(f"/api/{path}") as reply:
                assert reply.status == status, (path, await reply.text())
                found: dict[str, Any] = await reply.json()
                return found

        for name in ("status", "balance", "trades", "profit", "daily", "performance", "explain", "equity", "instruments", "news", "events"):
            await ask(name)
        denied = (await ask("decisions?outcome=DENIED&n=5"))["decisions"]
        assert denied and all(row["outcome"] == "DENIED" and row["stopped_by"] for row in denied)
        by_rule = (await ask(f"decisions?rule={denied[0]['stopped_by']}"))["decisions"]
        assert {row["stopped_by"] for row in by_rule} == {denied[0]["stopped_by"]}
        whole = await ask(f"explain?subject={denied[0]['decision_id']}")
        assert whole["outcome"] == "DENIED" and len(whole["checks"]) > 10
        closed = (await ask("trades?n=5"))["closed"][0]
        chart = await ask(f"chart?symbol={closed['symbol']}&n=500")
        assert len(chart["bars"]) >= 200 and all(low <= min(o, c) and high >= max(o, c) for _, o, high, low, c in chart["bars"])
        assert closed["trade_id"] in {trade["trade_id"] for trade in chart["trades"]}
        for path, status in (("chart?symbol=NO/PE", 404), ("decisions?outcome=MAYBE", 400), ("decisions?rule=NONE", 404),
                             ("equity?days=-1", 400), ("trades?n=1e9", 400)):
            assert (await ask(path, status))["error"]
        assert all({"mark", "net_now"} <= trade.keys() for trade in (await ask("trades"))["open"])
        events = (await ask("events"))["events"]
        assert all(event["at"][10] == "T" and len(event["at"]) >= 19 for event in events), "times as people read them"
        assert (await ask("chart"))["symbol"] in {row["symbol"] for row in (await ask("instruments"))["instruments"]}
        curve = (await ask("equity?days=7"))["classes"]["SPOT"]["points"]
        assert Decimal(str(curve[0][1])) > 0 and all(one[0] < other[0] for one, other in pairwise(curve))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
@pytest.mark.parametrize(("width", "height", "scheme"), [(1400, 900, "light"), (390, 844, "dark")], ids=["desktop", "phone"])
async def test_the_page_shows_all_four_classes_in_a_browser_without_a_complaint(
        daemon: Daemon, tmp_path: Path, width: int, height: int, scheme: Any) -> None:
    from playwright.async_api import async_playwright

    said: list[str] = []
    async with async_playwright() as browsers:
        browser = await browsers.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            context = await browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            page = await context.new_page()
            page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: said.append(f"error: {error}"))
            page.on("request", lambda request: None if request.url.startswith(daemon.address) else said.append(f"external: {request.url}"))
            await page.goto(daemon.address)
            await page.wait_for_selector(".card")
            assert await page.locator(".card h3").all_inner_texts() == ["SPOT", "PERP", "OPTION", "FOREX"]
            assert await page.locator("#mode").inner_text() == "DEMO"
            await page.wait_for_selector("#equity svg polyline", state="attached")  # a flat one has no height
            await page.wait_for_selector("#chart svg path", state="attached")
            await page.locator("#decisions tbody tr td button").first.click()
            await page.wait_for_selector("#explain[open] tbody tr")
            assert await page.locator("#checks tbody tr").count() > 10
            await page.locator("#close").click()
            # Nothing is wider than the screen, so that a phone never scrolls sideways.
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            # Every table cell's ink differs enough from its ground (WCAG AA for text).
            assert await page.evaluate(CONTRAST) >= 4.5
            assert await page.locator("svg[role=img]:not([aria-label])").count() == 0
            took = await page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
            assert took < within_wall(300.0)
            picture = tmp_path / "page.png"
            await page.screenshot(path=picture, full_page=True)
            assert picture.stat().st_size > 20_000
            # The daemon goes away: the page says so instead of showing old figures as new.
            await context.set_offline(True)
            await page.wait_for_selector("body.stale")
            assert "no answer" in await page.locator("#health").inner_text()
        finally:
            await browser.close()
    assert [line for line in said if "ERR_INTERNET_DISCONNECTED" not in line] == []


CONTRAST = """() => {
  const light = rgb => rgb.map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [.2126, .7152, .0722][k], 0);
  const parse = text => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
  const ground = light(parse(getComputedStyle(document.querySelector('section:nth-of-type(2)')).backgroundColor));
  return Math.min(...[...document.querySelectorAll('td, th, h2, .quiet')].map(node => {
    const ink = light(parse(getComputedStyle(node).color));
    return (Math.max(ink, ground) + .05) / (Math.min(ink, ground) + .05);
  }));
}"""
