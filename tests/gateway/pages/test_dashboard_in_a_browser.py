"""The gateway's page in a real browser: it follows what happens, runs nothing foreign, and can be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, Route, expect

from infrai_async import AsyncInfrai
from infrai_async.local import LocalGateway

pytestmark = pytest.mark.anyio
HOSTILE = "<script>alert(1)</script>"
LEAK = '"><img src=http://elsewhere.example/x onerror=alert(1)>'

CONTRASTS = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (value) => (value <= 10 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const light = (colour) => {
    const [r, g, b] = parse(colour).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (parse(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const node of document.querySelectorAll("body *:not(script, style)")) {
    if (![...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())) continue;
    const [low, high] = [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), node.textContent.slice(0, 40)]);
  }
  return found;
}"""


@dataclass
class Watched:
    """A page, and everything about it that should not have happened."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)


@asynccontextmanager
async def watched(browser: Browser, width: int = 1280) -> AsyncIterator[Watched]:
    context = await browser.new_context(viewport={"width": width, "height": 800})
    page = await context.new_page()
    seen = Watched(page)
    page.on("console", lambda message: seen.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.complaints.append(f"error: {error}"))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("response", lambda response: seen.statuses.append(response.status))

    async def dismiss(dialog: Any) -> None:
        seen.complaints.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    page.on("dialog", dismiss)
    await page.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => console.error('policy', e.violatedDirective, e.blockedURI))"
    )
    try:
        yield seen
    finally:
        await context.close()


@asynccontextmanager
async def client_of(gateway: LocalGateway) -> AsyncIterator[AsyncInfrai]:
    async with AsyncInfrai(gateway.api_key, base_url=gateway.base_url) as client:
        yield client


async def fill(client: AsyncInfrai) -> str:
    """Make some of everything, named by somebody hostile; return a connection URI."""
    project = await client.db.project.create(name=HOSTILE)
    await client.db.branch.create(project_id=project.id, branch_name="preview")
    await client.db.project.create(name="a long name " * 15)
    for name in (HOSTILE, LEAK):
        await client.storage.bucket.create(bucket=name)
        await client.cdn.distribution.create(origin=f"https://example.com/{name}")
        await client.flags.set(key=name, default_value={"text": name * 20})
    return project.connection_uri


@pytest.fixture(scope="module")
async def running(anyio_backend: str) -> AsyncIterator[LocalGateway]:
    async with LocalGateway() as gateway:
        yield gateway


async def test_it_shows_what_is_made_meanwhile_and_runs_nothing_of_it(browser: Browser, running: LocalGateway) -> None:
    async with watched(browser) as seen, client_of(running) as client:
        page = seen.page
        await page.goto(running.base_url)
        await expect(page.locator("#projects-body")).to_contain_text("No project yet")
        await page.evaluate("window.loadedOnce = true")
        uri = await fill(client)
        await expect(page.get_by_role("rowheader", name="preview")).to_be_visible(timeout=15_000)
        await expect(page.get_by_role("rowheader", name=HOSTILE, exact=True)).to_have_count(3)
        assert await page.evaluate("window.loadedOnce"), "somebody reloaded the page"
        dom = await page.content()
        for secret in (running.api_key, urlsplit(uri).password):
            assert secret
            assert secret not in dom
        assert await page.locator("img, main script, iframe").count() == 0
        assert seen.complaints == []
        assert {urlsplit(url).netloc for url in seen.requests} == {urlsplit(running.base_url).netloc}


async def test_a_script_that_got_in_would_not_run(browser: Browser, running: LocalGateway) -> None:
    """The policy holds on its own, were the escaping ever to fail."""
    async with watched(browser) as seen:

        async def spoil(route: Route) -> None:
            answer = await route.fetch()
            spoilt = (await answer.text()).replace("<main>", f"<main>{HOSTILE}<img src=x onerror=alert(1)>")
            await route.fulfill(response=answer, body=spoilt)

        await seen.page.route("**/*", spoil)
        await seen.page.goto(running.base_url)
        async with asyncio.timeout(25):
            while sum("policy" in complaint for complaint in seen.complaints) < 2:
                await asyncio.sleep(0.05)
        assert not any(complaint.startswith("dialog") for complaint in seen.complaints)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_can_be_read(browser: Browser, running: LocalGateway, scheme: Any, tmp_path: Path) -> None:
    async with watched(browser) as seen, client_of(running) as client:
        page = seen.page
        await page.emulate_media(color_scheme=scheme)
        await client.db.project.create(name=f"seen-{scheme}")  # Postgres is there by then, and a table is shown
        await page.goto(running.base_url)
        ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, ground[4:-1].split(","))) < 64) == (scheme == "dark")
        contrasts = await page.evaluate(CONTRASTS)
        assert len(contrasts) > 50
        assert [text for ratio, text in contrasts if ratio < 4.5] == []
        await page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
        assert (tmp_path / f"{scheme}.png").stat().st_size > 20_000


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
async def test_no_width_makes_the_page_scroll_sideways(browser: Browser, running: LocalGateway, width: int) -> None:
    async with watched(browser, width) as seen, client_of(running) as client:
        await client.flags.set(key="x" * 255)
        await seen.page.goto(running.base_url)
        assert await seen.page.evaluate("document.documentElement.scrollWidth") <= width
        assert await seen.page.evaluate("document.body.scrollWidth") <= width


async def test_it_has_landmarks_headings_and_tables_with_heads(browser: Browser, running: LocalGateway) -> None:
    async with watched(browser) as seen:
        page = seen.page
        await page.goto(running.base_url)
        assert await page.title() == "Infrai local gateway"
        assert await page.evaluate("document.documentElement.lang") == "en"
        for role in ("banner", "main"):
            await expect(page.get_by_role(role)).to_have_count(1)
        assert await page.get_by_role("heading", level=1).count() == 1
        for title in ("Wallet", "Projects", "Buckets", "Distributions", "Flags", "Last calls", "Accounts"):
            await expect(page.get_by_role("heading", name=title, level=2)).to_have_count(1)
        for table in await page.get_by_role("table").all():
            assert await table.get_by_role("columnheader").count() >= 3
            rows = await table.locator("tbody tr").count()
            assert await table.get_by_role("rowheader").count() == rows
        ids = await page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
        assert len(ids) == len(set(ids))
        await page.keyboard.press("Tab")
        assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


async def test_it_asks_only_while_somebody_looks(browser: Browser, without_postgres: Any) -> None:
    async with LocalGateway(**without_postgres) as gateway, watched(browser) as seen:
        page = seen.page
        await page.clock.install()
        await page.add_init_script(
            "let hidden = false; Object.defineProperty(document, 'hidden', { get: () => hidden });"
            "window.hide = (value) => { hidden = value; document.dispatchEvent(new Event('visibilitychange')); }"
        )
        await page.goto(gateway.base_url)
        for _ in range(3):
            async with page.expect_response("**/*"):
                await page.clock.run_for(2_000)
            await page.wait_for_function("!asking")
        assert seen.statuses[-2:] == [304, 304], "a page on which nothing changed is sent again"
        await page.evaluate("hide(true)")
        before = len(seen.requests)
        await page.clock.run_for(60_000)
        assert len(seen.requests) <= before + 1
        before = len(seen.requests)
        await page.clock.run_for(60_000)
        assert len(seen.requests) == before, "a page that nobody sees asks"
        async with page.expect_response("**/*"):
            await page.evaluate("hide(false)")
        assert seen.complaints == []


async def test_what_somebody_selects_stays_until_they_are_done(browser: Browser, without_postgres: Any) -> None:
    async with LocalGateway(**without_postgres) as gateway, watched(browser) as seen, client_of(gateway) as client:
        page = seen.page
        await client.flags.set(key="first")
        await page.goto(gateway.base_url)
        flags = page.locator("#flags-body")
        await flags.get_by_text("first").select_text()
        await client.flags.set(key="second")
        await expect(page.locator("#calls-body")).to_contain_text("flags.set", timeout=15_000)
        await expect(page.locator("#flags-note")).to_have_text("2", timeout=15_000)
        await expect(flags).not_to_contain_text("second")
        assert await page.evaluate("String(getSelection())") == "first"
        await page.evaluate("getSelection().removeAllRanges()")
        await expect(flags).to_contain_text("second", timeout=15_000)


async def test_a_gateway_that_went_away_is_said_to_and_found_again(browser: Browser, without_postgres: Any) -> None:
    async with watched(browser) as seen:
        page = seen.page
        async with LocalGateway(**without_postgres) as gateway:
            await page.goto(gateway.base_url)
            await expect(page.get_by_role("status")).to_have_text("")
        await expect(page.get_by_role("status")).to_contain_text("does not answer", timeout=15_000)
        async with LocalGateway(**without_postgres) as gateway, client_of(gateway) as client:
            await client.flags.set(key="after")
            await expect(page.locator("#flags-body")).to_contain_text("after", timeout=15_000)
            await expect(page.get_by_role("status")).to_have_text("")


async def test_the_checkout_page_credits_the_wallet_once(browser: Browser, without_postgres: Any) -> None:
    async with LocalGateway(**without_postgres) as gateway, watched(browser) as seen, client_of(gateway) as client:
        page = seen.page
        topup = await client.account.topup(amount_usd=5)
        await page.goto(str(topup.checkout_url))
        await expect(page.get_by_role("main")).to_contain_text("5.00 USD")
        button = page.get_by_role("button")
        await expect(button).to_have_count(1)
        await button.dblclick()
        await expect(page.get_by_role("button")).to_have_count(0)
        await page.goto(str(topup.checkout_url))
        await expect(page.get_by_role("button")).to_have_count(0)
        assert (await client.account.balance()).balance_usd == 7
        assert gateway.api_key not in await page.content()
        assert seen.complaints == []


@pytest.mark.parametrize("width", [320, 1280])
async def test_the_wallet_leads_to_a_checkout_page(browser: Browser, without_postgres: Any, width: int) -> None:
    async with LocalGateway(**without_postgres) as gateway, watched(browser, width) as seen:
        page = seen.page
        await page.goto(gateway.base_url)
        await page.get_by_role("link", name="top up").click()
        await page.get_by_role("spinbutton").fill("12.34")
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await page.get_by_role("button").click()
        await expect(page.get_by_role("main")).to_contain_text("14.34 USD")
        await page.goto(gateway.base_url)
        await expect(page.locator("#wallet-body")).to_contain_text("14.34")
        assert seen.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_checkout_page_can_be_read(
    browser: Browser, without_postgres: Any, scheme: Any, tmp_path: Path
) -> None:
    async with LocalGateway(**without_postgres) as gateway, watched(browser) as seen, client_of(gateway) as client:
        page = seen.page
        await page.emulate_media(color_scheme=scheme)
        await page.goto(str((await client.account.topup(amount_usd=5)).checkout_url))
        await page.screenshot(path=tmp_path / f"checkout-{scheme}.png")
        contrasts = await page.evaluate(CONTRASTS)
        assert [text for ratio, text in contrasts if ratio < 4.5] == []
