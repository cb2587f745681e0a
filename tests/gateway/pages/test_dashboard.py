"""The gateway's page over HTTP: who may read it, what it says, and that nothing on it is taken for markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from infrai_async.local import LocalGateway

pytestmark = pytest.mark.anyio
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</td></table><h1>mine</h1>",
    "' onmouseover='alert(1)",
    "&lt;b&gt;",
    "tab\there\u202eand back",
]


class Outline(HTMLParser):
    """The tags of a page in order, and the text of its table cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.cells: list[str] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag in ("td", "th"):
            self.cells.append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += data


async def page_of(api: Any) -> str:
    """The page as it shows the account of ``api``, whose name its last call gives away."""
    call = (await api.get("/v1/account/balance")).document["metadata"]["request_id"]
    account = re.search(rf"{call}.*?(acc_\w+)", await page(api), re.DOTALL)
    assert account is not None
    return await page(api, f"/?account={account[1]}")


async def page(api: Any, path: str = "/") -> str:
    async with api.session.get(api.base_url + path) as answer:
        assert answer.status == 200
        return str(await answer.text())


async def test_the_page_needs_no_key_and_shows_none(gateway: LocalGateway, api: Any, session: Any) -> None:
    project = await api.project()
    shown = await page_of(api)
    assert project["id"] in shown
    for secret in (gateway.api_key, api.api_key, re.findall(r":([^:@/]+)@", project["connection_uri"])[0]):
        assert secret not in shown


async def test_its_headers_let_in_nothing_from_elsewhere(api: Any) -> None:
    async with api.session.get(f"{api.base_url}/") as answer:
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_it_says_that_nothing_changed(api: Any) -> None:
    async with api.session.get(f"{api.base_url}/") as answer:
        tag = answer.headers["ETag"]
    async with api.session.get(f"{api.base_url}/", headers={"If-None-Match": tag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
        assert answer.headers["Content-Security-Policy"]
    await api.get("/v1/account/balance")
    async with api.session.get(f"{api.base_url}/", headers={"If-None-Match": tag}) as answer:
        assert answer.status == 200


async def test_head_answers_without_the_page(api: Any) -> None:
    async with api.session.head(f"{api.base_url}/") as answer:
        assert (answer.status, await answer.read()) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/", 405, "METHOD_NOT_ALLOWED"),
        ("OPTIONS", "/", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "//", 404, "NOT_FOUND"),
        ("GET", "//v1/account/balance", 404, "NOT_FOUND"),
        ("GET", "/index.html", 404, "NOT_FOUND"),
        ("GET", "/?account=acc_nobody", 404, "ACCOUNT_NOT_FOUND"),
        ("GET", "/?account=%3Cscript%3E", 404, "ACCOUNT_NOT_FOUND"),
        ("GET", "/?account=%FF", 400, "VALIDATION_ERROR"),
    ],
)
async def test_what_is_not_the_page_is_refused(api: Any, method: str, path: str, status: int, code: str) -> None:
    answer = await api.with_key(None).ask(method, path)
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["Content-Type"].startswith("application/json")


async def test_another_name_is_refused_here_too(api: Any) -> None:
    answer = await api.get("/", headers={"Host": "rebound.example"})
    assert (answer.status, answer.code) == (421, "MISDIRECTED_REQUEST")


async def test_a_request_from_another_address_is_refused_over_http(api: Any, own_address: str) -> None:
    connector = aiohttp.TCPConnector(local_addr=(own_address, 0))
    async with aiohttp.ClientSession(connector=connector) as elsewhere, elsewhere.get(f"{api.base_url}/") as answer:
        assert answer.status == 403
        assert (await answer.json())["error"]["code"] == "FORBIDDEN"


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_names_are_shown_and_change_nothing(api: Any, name: str) -> None:
    kinds = ("projects", "buckets", "distributions", "flags")
    shown = await page_of(api)
    assert all(f'id="{kind}"' in shown for kind in kinds)
    plain = Outline(shown)
    await api.project(name)
    await api.post("/v1/storage/bucket/create", {"bucket": name})
    await api.post("/v1/cdn/distribution/create", {"origin": name})
    await api.post("/v1/flags/set", {"key": name, "type": "json", "default_value": {name: name}})
    outline = Outline(await page_of(api))
    assert set(outline.tags) - set(plain.tags) <= {"td", "tr", "table", "a", "time", "th", "span", "tbody"}
    assert outline.attributes <= plain.attributes | {"href", "datetime"}
    told = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert outline.cells.count(told) == 4


async def test_everything_an_account_has_is_there(api: Any) -> None:
    project = await api.project("shop")
    await api.post("/v1/db/branch/create", {"project_id": project["id"], "branch_name": "preview"})
    await api.post("/v1/db/snapshot/create", {"project_id": project["id"]})
    distribution = (await api.post("/v1/cdn/distribution/create", {"origin": "http://127.0.0.1:8000"})).data
    await api.post("/v1/flags/set", {"key": "new"})
    body = {"percentage": 12.5, "salt": "s", "sticky_unit": "user_id", "version": 1}
    await api.post("/v1/flags/rollout/new", body)
    await api.post("/v1/storage/bucket/create", {"bucket": "pictures"})
    cells = Outline(await page_of(api)).cells
    masked = re.sub(r":[^:@/]+@", ":***@", project["connection_uri"])
    for text in (
        "shop",
        "preview",
        masked,
        "branch of main",
        "Postgres 18, 1 snapshot",
        "pictures",
        "12.5% by user_id",
    ):
        assert text in cells
    assert distribution["edge_hostname"] in cells


async def test_another_account_has_a_page_of_its_own(api: Any, other: Any) -> None:
    await api.post("/v1/flags/set", {"key": "only-mine"})
    assert "only-mine" in await page_of(api)
    assert "only-mine" not in await page_of(other)


async def test_the_wallet_is_there_to_its_last_digit(api: Any) -> None:
    await api.get("/v1/flags/list")
    await api.post("/v1/flags/set", {"key": "a"})
    assert "1.99989" in await page_of(api)


async def test_last_calls_tell_what_came_of_them_and_nothing_of_what_was_said(api: Any) -> None:
    told = [
        await api.post("/v1/flags/set", {"key": "secret-parameter", "description": "secret-body"}),
        await api.get("/v1/flags/get/secret-parameter-of-another"),
        await api.with_key("ifr_secret-key").get("/v1/account/balance"),
    ]
    async with api.session.get(f"{api.base_url}/") as answer:
        shown = await answer.text()
    calls = Outline(shown[shown.index('id="calls"') : shown.index('id="accounts"')]).cells
    for answer, capability, status in zip(
        told, ("flags.set", "flags.get", "account.balance"), ("200", "404", "401"), strict=True
    ):
        row = calls.index(answer.document["metadata"]["request_id"])
        assert calls[row - 4 : row - 2] == [capability, status]
    assert calls[calls.index("flags.set") + 2] == "0.00010"
    assert "secret" not in shown


async def test_what_went_through_the_edge_and_what_lies_in_buckets_is_counted(api: Any) -> None:
    async def serve(_: web.BaseRequest) -> web.Response:
        return web.Response(text="hello", headers={"Cache-Control": "max-age=60"})

    origin = web.ServerRunner(web.Server(serve))
    await origin.setup()
    await web.TCPSite(origin, "127.0.0.1", 0).start()
    try:
        address = f"http://127.0.0.1:{origin.addresses[0][1]}"
        distribution = (await api.post("/v1/cdn/distribution/create", {"origin": address})).data
        for _ in range(4):
            async with api.session.get(f"{distribution['edge_url']}/x") as answer:
                assert answer.status == 200
    finally:
        await origin.cleanup()
    await api.post("/v1/storage/bucket/create", {"bucket": "pictures"})
    upload = (await api.post("/v1/storage/buckets/pictures/objects/a/presign", {"method": "PUT"})).data
    async with api.session.put(upload["url"], data=b"x" * 1500) as answer:
        assert answer.status == 200
    cells = Outline(await page_of(api)).cells
    assert cells[cells.index("75.0%") + 1] == "4"
    assert cells[cells.index("pictures") + 1 : cells.index("pictures") + 3] == ["1", "1.5 kB"]


async def test_a_hundred_of_a_kind_are_shown_and_the_rest_is_counted(api: Any) -> None:
    for number in range(103):
        await api.post("/v1/flags/set", {"key": f"flag-{number}"})
    shown = await page_of(api)
    assert len(re.findall(r">flag-\d+<", shown)) == 100
    assert "flag-102<" in shown
    assert "flag-2<" not in shown
    assert "and 3 more" in shown
    assert len(re.findall(r"<tr>", shown[shown.index('id="calls"') : shown.index('id="accounts"')])) == 101


async def test_without_postgres_it_says_how_to_mend_that(without_postgres: Any, ask_as: Any) -> None:
    async with LocalGateway(**without_postgres) as gateway:
        api = ask_as(gateway)
        await api.post("/v1/db/project/create", {"name": "a"})  # waits until it is known that there is none
        shown = await page(api)
        assert "no Postgres" in shown
        assert "no-postgres-here" in shown


async def test_an_empty_page_says_how_the_first_things_come_to_be(without_postgres: Any, ask_as: Any) -> None:
    async with LocalGateway(**without_postgres) as gateway:
        shown = await page(ask_as(gateway))
        for line in ("client.db.project.create(", "client.storage.bucket.create(", "client.flags.set(", "client.cdn."):
            assert line in shown
        assert gateway.base_url in shown
