"""The page on which a top-up is paid: a real page, over real HTTP, that credits a wallet once."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import pytest

from infrai_async.local import LocalGateway

pytestmark = pytest.mark.anyio


@dataclass
class Page:
    """A page as a browser has it: its elements by id or name, and its text."""

    status: int
    headers: Any
    html: str

    def __post_init__(self) -> None:
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        parser = HTMLParser()
        parser.handle_starttag = lambda tag, attributes: self.elements.append((tag, dict(attributes)))  # type: ignore
        parser.feed(self.html)

    def element(self, id: str) -> dict[str, str | None] | None:
        return next((attributes for _, attributes in self.elements if attributes.get("id") == id), None)

    @property
    def balance(self) -> str:
        found = re.search(r'id="balance">([^<]*) USD<', self.html)
        assert found is not None, self.html
        return found[1]

    @property
    def title(self) -> str:
        found = re.search("<h1>(.*)</h1>", self.html)
        assert found is not None, self.html
        return found[1]


async def browse(api: Any, method: str, url: str, **options: Any) -> Page:
    async with api.session.request(method, url, allow_redirects=False, **options) as answer:
        return Page(answer.status, answer.headers.copy(), await answer.text())


async def top_up(api: Any, **body: Any) -> str:
    url: str = (await api.post("/v1/account/topup", {"amount_usd": 12.5, **body})).data["checkout_url"]
    return url


async def test_the_button_credits_the_wallet_and_the_page_says_so(api: Any) -> None:
    url = await top_up(api)
    shown = await browse(api, "GET", url)
    assert (shown.status, shown.title, shown.balance) == (200, "Top up 12.50 USD", "2.00")
    assert shown.element("pay") is not None
    assert await api.balance() == 2, "looking costs and credits nothing"
    paid = await browse(api, "POST", url)
    assert (paid.status, paid.title, paid.balance) == (200, "Paid: 12.50 USD", "14.50")
    assert paid.element("pay") is None
    assert await api.balance() == 14.5
    again = await browse(api, "GET", url)
    assert (again.title, again.balance) == ("Paid: 12.50 USD", "14.50")


async def test_the_balance_is_shown_to_the_last_digit(api: Any) -> None:
    url = await top_up(api)
    await api.get("/v1/flags/list")
    assert (await browse(api, "GET", url)).balance == "1.99999"


async def test_pressed_twice_or_in_many_tabs_at_once_it_counts_once(api: Any) -> None:
    url = await top_up(api)
    pages = await asyncio.gather(*(browse(api, "POST", url) for _ in range(12)))
    assert {page.balance for page in pages} == {"14.50"}
    assert (await browse(api, "POST", url)).balance == "14.50"
    assert await api.balance() == 14.5


async def test_it_counts_once_across_a_restart(without_postgres: Any, ask_as: Any) -> None:
    async with LocalGateway(**without_postgres) as gateway:
        pending, paid = await top_up(ask_as(gateway)), await top_up(ask_as(gateway))
        await browse(ask_as(gateway), "POST", paid)
    async with LocalGateway(**without_postgres) as gateway:
        api = ask_as(gateway)
        urls = [gateway.base_url + url[url.index("/checkout/") :] for url in (pending, paid)]
        assert [(await browse(api, "POST", url)).title for url in urls] == ["Paid: 12.50 USD"] * 2
        assert await api.balance() == 27


async def test_a_repeated_top_up_leads_to_the_same_page(api: Any) -> None:
    urls = {(await api.post("/v1/account/topup", {"amount_usd": 5}, key="k")).data["checkout_url"] for _ in range(2)}
    assert len(urls) == 1
    await browse(api, "POST", urls.pop())
    assert await api.balance() == 7


async def test_after_a_402_paying_at_its_address_lets_the_call_through(without_postgres: Any, ask_as: Any) -> None:
    async with LocalGateway(**without_postgres, credit="0") as gateway:
        api = ask_as(gateway)
        refused = await api.post("/v1/flags/set", {"key": "a"}, key="k")
        url = refused.error["checkout_url"]
        assert (await api.post("/v1/flags/set", {"key": "b"})).error["checkout_url"] == url, "one page until it is paid"
        shown = await browse(api, "GET", url)
        assert shown.title == "Top up"
        amount = shown.element("amount")
        assert amount is not None
        assert (amount["name"], amount["value"], amount["min"]) == ("amount_usd", "10.00", "0.01")
        paid = await browse(api, "POST", url, data={"amount_usd": "0.01"})
        assert (paid.title, paid.balance) == ("Paid: 0.01 USD", "0.01")
        assert (await browse(api, "POST", url, data={"amount_usd": "5"})).balance == "0.01"
        assert (await api.post("/v1/flags/set", {"key": "a"}, key="k")).cost == 0.0001
        for number in range(99):
            await api.post("/v1/flags/set", {"key": f"{number}"})
        following = (await api.post("/v1/flags/set", {"key": "last"})).error["checkout_url"]
        assert following != url, "each address pays once, the next 402 has another"
        assert (await browse(api, "POST", following)).balance == "10.00"


async def test_activation_leads_to_a_page_of_the_new_account(api: Any) -> None:
    made = (await api.with_key(None).post("/v1/activate", {})).data
    pages = await asyncio.gather(
        *(browse(api, "POST", made["checkout_url"], data={"amount_usd": f"{n}"}) for n in (3, 4))
    )
    fresh = api.with_key(made["primary_api_key"])
    assert {page.balance for page in pages} == {f"{await fresh.balance():.2f}"}
    assert await fresh.balance() in (5, 6)
    assert await api.balance() == 2


@pytest.mark.parametrize("amount", ["", "0", "-1", "1e9", "NaN", "sNaN", "0.001", "ten", "½", "Infinity"])
async def test_an_amount_that_cannot_be_paid_is_400_and_credits_nothing(api: Any, amount: str) -> None:
    url = (await api.with_key(None).post("/v1/activate", {}, key="k" + amount.encode().hex())).data["checkout_url"]
    refused = await browse(api, "POST", url, data={"amount_usd": amount})
    assert refused.status == 400
    assert "amount_usd" in refused.html
    assert (await browse(api, "GET", url)).balance == "2.00"


@pytest.mark.parametrize("amount", [12.501, 0.001, 1_000_001])
async def test_a_top_up_is_in_whole_cents_and_not_too_large(api: Any, amount: float) -> None:
    assert (await api.post("/v1/account/topup", {"amount_usd": amount})).status == 400


async def test_a_wallet_that_would_burst_stays_as_it_is(without_postgres: Any, ask_as: Any) -> None:
    async with LocalGateway(**without_postgres, credit="999999999.99") as gateway:
        api = ask_as(gateway)
        url = await top_up(api)
        assert (await browse(api, "POST", url)).status == 409
        assert Decimal(repr(await api.balance())) == Decimal("999999999.99")
        assert (await browse(api, "GET", url)).title == "Top up 12.50 USD"


async def test_the_page_leads_back(api: Any) -> None:
    back = "https://me:pw@shop.test/done?a=1&b=\"><script>alert('x')</script>"
    url = await top_up(api, return_url=back)
    assert (await browse(api, "GET", url)).element("return") is None, "not before it is paid"
    page = await browse(api, "POST", url)
    link = page.element("return")
    assert link is not None
    assert (link["href"], link["rel"]) == (back, "noreferrer")
    assert "script" not in {tag for tag, _ in page.elements}
    assert ">Back to shop.test</a>" in page.html


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "java\tscript:alert(1)",
        "  javascript:alert(1)",
        "data:text/html,x",
        "//shop.test/",
        "/done",
        "https:",
        "https://[half/",
        "https://shop.test/\n",
        "",
    ],
)
async def test_a_way_back_that_is_no_web_address_is_refused(api: Any, url: str) -> None:
    answer = await api.post("/v1/account/topup", {"amount_usd": 5, "return_url": url})
    assert (answer.status, "return_url" in answer.error["details"]["fields"]) == (400, True)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://[half"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
    ],
)
async def test_another_sites_form_is_refused(api: Any, headers: dict[str, str]) -> None:
    url = await top_up(api)
    assert (await browse(api, "POST", url, headers=headers)).status == 403
    assert await api.balance() == 2


async def test_the_pages_own_form_is_taken_as_browsers_send_it(api: Any) -> None:
    headers = {"Origin": api.base_url, "Sec-Fetch-Site": "same-origin"}
    assert (await browse(api, "POST", await top_up(api), headers=headers)).balance == "14.50"
    port = api.base_url.rpartition(":")[2]
    headers = {"Host": f"LocalHost:{port}", "Origin": f"http://localhost:{port}"}
    assert (await browse(api, "POST", await top_up(api), headers=headers)).balance == "27.00"


async def test_the_page_is_closed_to_scripts_frames_caches_and_referrers(api: Any) -> None:
    page = await browse(api, "GET", await top_up(api))
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    for rule in ("default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"):
        assert rule in policy
    assert "unsafe" not in policy
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Referrer-Policy"].startswith("no-referrer")
    outside = {"src", "href", "action"}
    assert not [attributes for _, attributes in page.elements if outside & set(attributes)], "nothing from elsewhere"


async def test_the_page_tells_no_secret_and_its_address_cannot_be_guessed(gateway: LocalGateway, ask_as: Any) -> None:
    api = ask_as(gateway)
    url = await top_up(api)
    page = await browse(api, "GET", url)
    assert api.api_key not in page.html + url
    assert "acc_local" not in page.html + url
    assert re.fullmatch(r"top_[0-9a-f]{32}", url.rpartition("/")[2])
    for guess in ("acc_local", "", "top_1", "top_%00", "../v1/account/balance", url.rpartition("/")[2] + "/"):
        for method in ("GET", "POST"):
            assert (await browse(api, method, f"{gateway.base_url}/checkout/{guess}")).status in (401, 404, 405)
    assert (await browse(api, "GET", f"{gateway.base_url}/checkout")).status == 404


async def test_other_methods_are_405_and_head_is_answered(api: Any) -> None:
    url = await top_up(api)
    refused = await browse(api, "PUT", url)
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD, POST")
    head = await browse(api, "HEAD", url)
    assert (head.status, head.html) == (200, "")
    assert await api.balance() == 2
