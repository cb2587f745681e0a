"""The checkout page as a real browser has it: its policy lets its own style and form through, and no one else's."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Page

pytestmark = pytest.mark.anyio


async def checkout_url(api: Any, **body: Any) -> str:
    return str((await api.post("/v1/account/topup", {"amount_usd": 12.5, **body})).data["checkout_url"])


async def test_a_person_pays_and_is_led_back(api: Any, page: Page) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    await page.goto(await checkout_url(api, return_url=f"{api.base_url}/v1/discovery"))
    assert await page.locator("button").evaluate("button => getComputedStyle(button).color") == "rgb(255, 255, 255)"
    await page.click("#pay")
    assert await page.inner_text("h1") == "Paid: 12.50 USD"
    assert await page.inner_text("#balance") == "14.50 USD"
    await page.reload()
    assert await page.inner_text("#balance") == "14.50 USD"
    assert [text for text in complaints if "favicon" not in text and "404" not in text] == []
    await page.click("#return")
    assert page.url == f"{api.base_url}/v1/discovery"


async def test_a_person_chooses_the_amount(api: Any, page: Page) -> None:
    made = (await api.with_key(None).post("/v1/activate", {})).data
    await page.goto(made["checkout_url"])
    await page.fill("#amount", "0.001")
    await page.click("#pay")
    assert await page.inner_text("h1") == "Top up", "the browser itself refuses it"
    await page.fill("#amount", "3.25")
    await page.click("#pay")
    assert await page.inner_text("#balance") == "5.25 USD"


async def test_another_pages_form_pays_nothing(api: Any, page: Page) -> None:
    url = await checkout_url(api)
    await page.goto(f'data:text/html,<form method="post" action="{url}"><button id="pay">free kittens</button></form>')
    async with page.expect_navigation() as arrived:
        await page.click("#pay")
    answer = await arrived.value
    assert answer is not None
    assert answer.status == 403
    assert await api.balance() == 2
