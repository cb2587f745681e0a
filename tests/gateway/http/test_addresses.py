"""Every address that the gateway gives out names what the asker can reach: a public URL, or the host that was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from infrai_async import AsyncInfrai
from infrai_async.local import LocalGateway

pytestmark = pytest.mark.anyio


class Names(aiohttp.abc.AbstractResolver):
    """Resolves any name to one address, as the resolver of a container network does."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
        found = {"hostname": host, "host": self.address, "port": port, "family": 2, "proto": 0, "flags": 0}
        return [found]

    async def close(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def neighbour(gateway: LocalGateway, base_url: str, address: str) -> AsyncIterator[AsyncInfrai]:
    """A client on another machine, for whom the gateway has a name and an address that are not this machine's."""
    connector = aiohttp.TCPConnector(resolver=Names(address))
    async with aiohttp.ClientSession(connector=connector) as session:
        options: Any = {"base_url": base_url, "allow_http": True, "session": session}
        async with AsyncInfrai(gateway.api_key, **options) as client:
            yield client


async def addresses(client: AsyncInfrai) -> dict[str, str]:
    await client.storage.bucket.create(bucket="b")
    project = await client.db.project.create(name="shop")
    branch = await client.db.branch.create(project_id=project.id, branch_name="b")
    distribution = await client.cdn.distribution.create(origin="http://127.0.0.1:1")
    presigned = await client.storage.object.presign(bucket="b", key="a/../b", method="PUT")
    assert distribution.edge_url is not None
    return {
        "project": project.connection_uri,
        "branch": branch.connection_uri,
        "listed": (await anext(client.db.project.list())).connection_uri,
        "edge": distribution.edge_url,
        "presigned": presigned.url,
        "checkout": (await client.account.topup(amount_usd=1)).checkout_url or "",
    }


async def use(client: AsyncInfrai, given: dict[str, str], address: str) -> None:
    """Reach all of it at the address that the name stands for."""
    session = client._dispatcher.pool.settings.session
    assert session is not None
    async with session.put(given["presigned"], data=b"bytes") as response:
        assert response.status == 200
    async with session.get(given["checkout"]) as response:
        assert response.status == 200
    async with session.get(given["edge"]) as response:
        assert response.status == 502  # there is nothing behind it
    for name in ("project", "branch", "listed"):
        uri = urlsplit(given[name])
        connection = await asyncpg.connect(
            host=address, port=uri.port, user=uri.username, password=uri.password, database=uri.path[1:], ssl=False
        )
        assert await connection.fetchval("select 1") == 1
        await connection.close()


def hosts(given: dict[str, str]) -> set[str | None]:
    return {urlsplit(url).hostname for url in given.values()}


async def test_a_neighbour_reaches_all_of_it_by_the_name_that_it_asked() -> None:
    async with LocalGateway(host="127.0.0.2", allow_hosts=["gateway"]) as gateway:
        port = urlsplit(gateway.base_url).port
        async with neighbour(gateway, f"http://gateway:{port}", "127.0.0.2") as client:
            given = await addresses(client)
            assert hosts(given) == {"gateway"}
            await use(client, given, "127.0.0.2")


async def test_a_public_url_is_what_all_addresses_name_whoever_asks() -> None:
    public = "https://gateway.example/infrai/v1/"
    async with LocalGateway(host="127.0.0.2", public_url=public) as gateway:
        assert urlsplit(gateway.base_url).hostname == "127.0.0.2"
        async with AsyncInfrai(gateway.api_key, base_url=gateway.base_url) as client:
            given = await addresses(client)
        assert hosts(given) == {"gateway.example"}
        for name in ("edge", "presigned", "checkout"):
            assert given[name].startswith("https://gateway.example/infrai/"), name
        # What a proxy that ends TLS and takes the prefix away sends on.
        local = {name: url.replace("https://gateway.example/infrai", gateway.base_url) for name, url in given.items()}
        async with neighbour(gateway, gateway.base_url, "127.0.0.2") as client:
            await use(client, local, "127.0.0.2")


async def test_on_this_machine_addresses_name_it() -> None:
    async with LocalGateway(allow_hosts=["gateway"]) as gateway:
        port = urlsplit(gateway.base_url).port
        for name in ("localhost", "127.0.0.1", "[::1]"):
            given = await ask(gateway, f"{name}:{port}")
            assert given == {"127.0.0.1"}, name
        assert await ask(gateway, "Gateway.:80") == {"gateway"}


async def ask(gateway: LocalGateway, host: str) -> set[str | None]:
    headers = {"Host": host, "Authorization": f"Bearer {gateway.api_key}"}
    found = []
    async with aiohttp.ClientSession(headers=headers) as session:
        for path, body in [("account/topup", {"amount_usd": 1}), ("db/project/create", {"name": "shop"})]:
            async with session.post(f"{gateway.base_url}/v1/{path}", json=body) as response:
                data = (await response.json())["data"]
                found.append(data.get("checkout_url") or data["connection_uri"])
    return {urlsplit(url).hostname for url in found}


async def test_postgres_listens_where_the_gateway_does_and_nowhere_else() -> None:
    for host, reached in [("127.0.0.1", False), ("127.0.0.2", True), ("0.0.0.0", True)]:
        async with LocalGateway(host=host) as gateway:
            async with AsyncInfrai(gateway.api_key, base_url=gateway.base_url) as client:
                uri = urlsplit((await client.db.project.create(name="shop")).connection_uri)
            try:
                _, writer = await asyncio.open_connection("127.0.0.2", uri.port)
            except ConnectionRefusedError:
                assert not reached, host
            else:
                writer.close()
                assert reached, host


async def test_the_administrator_of_postgres_comes_from_this_machine_alone() -> None:
    async with LocalGateway(host="127.0.0.2") as gateway:
        async with AsyncInfrai(gateway.api_key, base_url=gateway.base_url) as client:
            uri = urlsplit((await client.db.project.create(name="shop")).connection_uri)
        assert await asked_to_start(uri.port, user="postgres", database="postgres", source="127.0.0.1") == b"R"
        assert await asked_to_start(uri.port, user="postgres", database="postgres", source="127.0.0.3") == b"E"
        assert await asked_to_start(uri.port, user=uri.username, database=uri.username, source="127.0.0.3") == b"R"


async def asked_to_start(port: int | None, *, user: str | None, database: str | None, source: str) -> bytes:
    """The kind of a server's first message: R asks for a password, E refuses."""
    reader, writer = await asyncio.open_connection("127.0.0.2", port, local_addr=(source, 0))
    message = b"\0\3\0\0" + f"user\0{user}\0database\0{database}\0\0".encode()
    writer.write((len(message) + 4).to_bytes(4) + message)
    try:
        return await reader.readexactly(1)
    finally:
        writer.close()


@pytest.mark.parametrize(
    "wrong", ["", "gateway:8000", "ftp://gateway", "http://", "http://u:p@gateway", "http://gateway?a=1", "http://g:x"]
)
def test_a_public_url_that_leads_nowhere_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="public_url: must be the gateway's address as others see it"):
        LocalGateway(public_url=wrong)
