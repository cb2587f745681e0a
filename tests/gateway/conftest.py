"""A real gateway on loopback, and a plain HTTP client to ask it with."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Browser, Page
from support.browser import open_browser
from yarl import URL

from infrai_async.local import LocalGateway


@dataclass
class Reply:
    """An answer, taken apart."""

    status: int
    headers: Mapping[str, str]
    text: str
    document: Any = field(init=False)

    def __post_init__(self) -> None:
        self.document = json.loads(self.text) if self.text else None

    @property
    def data(self) -> Any:
        assert self.status == 200, self.text
        assert self.document["ok"] is True
        return self.document["data"]

    @property
    def code(self) -> str:
        assert self.document["ok"] is False, self.text
        return str(self.document["error"]["code"])

    @property
    def error(self) -> Any:
        return self.document["error"]

    @property
    def cost(self) -> float:
        return float(self.document["metadata"]["cost_usd"])


class Api:
    """Asks a gateway with one account's key; paths go out exactly as given."""

    def __init__(self, base_url: str, api_key: str | None, session: aiohttp.ClientSession) -> None:
        self.base_url, self.api_key, self.session = base_url, api_key, session

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        sent = dict(headers or {})
        if self.api_key is not None:
            sent.setdefault("Authorization", f"Bearer {self.api_key}")
        if key is not None:
            sent["Idempotency-Key"] = key
        content = raw if raw is not None else None if body is None else json.dumps(body).encode()
        url = URL(self.base_url + path, encoded=True)
        data = None if content is None else BytesIO(content)  # aiohttp warns of large bodies that are plain bytes
        async with self.session.request(method, url, data=data, headers=sent, allow_redirects=False) as answer:
            return Reply(answer.status, answer.headers.copy(), await answer.text())

    async def get(self, path: str, **options: Any) -> Reply:
        return await self.ask("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Reply:
        return await self.ask("POST", path, body, **options)

    async def delete(self, path: str, **options: Any) -> Reply:
        return await self.ask("DELETE", path, **options)

    async def balance(self) -> Any:
        return (await self.get("/v1/account/balance")).data["balance_usd"]

    async def project(self, name: str = "shop") -> Any:
        return (await self.post("/v1/db/project/create", {"name": name})).data

    def with_key(self, api_key: str | None) -> Api:
        return Api(self.base_url, api_key, self.session)


async def new_account(base_url: str, session: aiohttp.ClientSession) -> Api:
    nobody = Api(base_url, None, session)
    return nobody.with_key((await nobody.post("/v1/activate", {})).data["primary_api_key"])


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
async def gateway(anyio_backend: str) -> AsyncIterator[LocalGateway]:
    """One gateway with a real Postgres for all tests that do not stop it."""
    async with LocalGateway() as gateway:
        yield gateway


@pytest.fixture(scope="session")
async def session(anyio_backend: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


@pytest.fixture
async def api(gateway: LocalGateway, session: aiohttp.ClientSession) -> Api:
    """The gateway, asked by an account of the test's own: an empty one with 2.00 in its wallet."""
    return await new_account(gateway.base_url, session)


@pytest.fixture
async def other(gateway: LocalGateway, session: aiohttp.ClientSession) -> Api:
    """A second account on the same gateway."""
    return await new_account(gateway.base_url, session)


@pytest.fixture
def ask_as(session: aiohttp.ClientSession) -> Callable[[LocalGateway], Api]:
    """Asks a gateway as the account that it has from the start."""
    return lambda gateway: Api(gateway.base_url, gateway.api_key, session)


@pytest.fixture
def own_address() -> str:
    """An address of this machine besides the loopback ones; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with suppress(OSError):
            probe.connect(("192.0.2.1", 9))
        address = str(probe.getsockname()[0])
    if address.startswith(("127.", "0.")):
        pytest.skip("this machine has loopback addresses only, so no request can come from another one")
    return address


@pytest.fixture(scope="session")
async def browser(anyio_backend: str) -> AsyncIterator[Browser]:
    async with open_browser() as browser:
        yield browser


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page of a browser that knows of no other."""
    context = await browser.new_context()
    yield await context.new_page()
    await context.close()


@pytest.fixture
def without_postgres(tmp_path: Path) -> dict[str, Any]:
    """Arguments for a gateway of the test's own that starts at once, since it finds no Postgres."""
    return {"data_dir": tmp_path / "data", "postgres_bin": tmp_path / "no-postgres-here"}
