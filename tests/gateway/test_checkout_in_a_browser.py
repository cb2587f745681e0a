"""The checkout page as a real browser has it: its policy lets its own style and form through, and no one else's."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

pytestmark = pytest.mark.anyio
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
async def browser() -> AsyncIterator[Page]:
    if CHROMIUM is None:
        pytest.skip("needs a Chromium on PATH, as Debian's package chromium")
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield await chromium.new_page()
        await chromium.close()


async def checkout_url(api: Any, **body: Any) -> str:
    return str((await api.post("/v1/account/topup", {"amount_usd": 12.5, **body})).data["checkout_url"])


async def test_a_person_pays_and_is_led_back(api: Any, browser: Page) -> None:
    complaints: list[str] = []
    browser.on("console", lambda message: complaints.append(message.text))
    await browser.goto(await checkout_url(api, return_url=f"{api.base_url}/v1/discovery"))
    assert await browser.locator("button").evaluate("button => getComputedStyle(button).color") == "rgb(255, 255, 255)"
    await browser.click("#pay")
    assert await browser.inner_text("h1") == "Paid: 12.50 USD"
    assert await browser.inner_text("#balance") == "14.50 USD"
    await browser.reload()
    assert await browser.inner_text("#balance") == "14.50 USD"
    assert [text for text in complaints if "favicon" not in text and "404" not in text] == []
    await browser.click("#return")
    assert browser.url == f"{api.base_url}/v1/discovery"


async def test_a_person_chooses_the_amount(api: Any, browser: Page) -> None:
    made = (await api.with_key(None).post("/v1/activate", {})).data
    await browser.goto(made["checkout_url"])
    await browser.fill("#amount", "0.001")
    await browser.click("#pay")
    assert await browser.inner_text("h1") == "Top up", "the browser itself refuses it"
    await browser.fill("#amount", "3.25")
    await browser.click("#pay")
    assert await browser.inner_text("#balance") == "5.25 USD"


async def test_another_pages_form_pays_nothing(api: Any, browser: Page) -> None:
    url = await checkout_url(api)
    await browser.goto(
        f'data:text/html,<form method="post" action="{url}"><button id="pay">free kittens</button></form>'
    )
    async with browser.expect_navigation() as arrived:
        await browser.click("#pay")
    answer = await arrived.value
    assert answer is not None
    assert answer.status == 403
    assert await api.balance() == 2
