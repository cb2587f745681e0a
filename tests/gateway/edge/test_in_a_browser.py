"""Pages behind the edge as a real browser has them: what they may do at the gateway's own address, and at their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from playwright.async_api import Page

pytestmark = pytest.mark.anyio
_PAGE = """<!doctype html><title>waiting</title><style>@import "look.css";</style>
<p>A page<script src="plain.js"></script>
<script>
async function attempt(name, work) {
  try { return name + ": " + await work() } catch (error) { return name + ": refused" }
}
const paying = location.hash.slice(1)
Promise.all([
  attempt("gateway", async () => (await (await fetch("/")).text()).includes("Infrai local gateway")),
  attempt("pay", async () => (await fetch(paying, {method: "POST"})).status),
  attempt("own data", async () => (await fetch("data.json")).status),
  attempt("storage", async () => typeof localStorage),
  attempt("script", async () => plain),
]).then(told => { document.title = told.join(", ") })
</script>"""


async def serve(request: web.BaseRequest) -> web.Response:
    match request.path:
        case "/page":
            return web.Response(text=_PAGE, content_type="text/html")
        case "/plain.js":
            return web.Response(text="var plain = 'ran'", content_type="text/javascript")
        case "/look.css":
            return web.Response(text="p { color: rgb(1, 2, 3) }", content_type="text/css")
    return web.json_response({})


@pytest.fixture
async def distribution(api: Any) -> AsyncIterator[Any]:
    runner = web.ServerRunner(web.Server(serve))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield (await api.post("/v1/cdn/distribution/create", {"origin": origin})).data
    await runner.cleanup()


async def what_it_could(page: Page, url: str) -> str:
    await page.goto(url)
    await page.wait_for_function("document.title != 'waiting'")
    assert await page.locator("p").evaluate("p => getComputedStyle(p).color") == "rgb(1, 2, 3)"
    return await page.title()


async def test_a_page_at_the_gateways_address_cannot_act_as_the_gateway(
    api: Any, distribution: Any, page: Page
) -> None:
    before = await api.balance()
    checkout = (await api.post("/v1/account/topup", {"amount_usd": 12.5})).data["checkout_url"]
    told = await what_it_could(page, f"{distribution['edge_url']}/page#{checkout}")
    assert told == "gateway: refused, pay: refused, own data: refused, storage: refused, script: ran"
    await page.evaluate(
        """url => {
        document.body.innerHTML = `<form method="post" action="${url}"><button id="pay">free kittens</button></form>`
    }""",
        checkout,
    )
    async with page.expect_navigation() as arrived:
        await page.click("#pay")
    answer = await arrived.value
    assert answer is not None
    assert (answer.status, await api.balance()) == (403, before)


async def test_a_page_at_an_address_of_its_own_may_all_that_pages_may_there(
    api: Any, distribution: Any, page: Page
) -> None:
    before = await api.balance()
    checkout = (await api.post("/v1/account/topup", {"amount_usd": 12.5})).data["checkout_url"]
    own = f"http://{distribution['edge_hostname']}:{urlsplit(api.base_url).port}"
    told = await what_it_could(page, f"{own}/page#{checkout}")
    assert told == "gateway: false, pay: refused, own data: 200, storage: object, script: ran"
    assert await api.balance() == before
