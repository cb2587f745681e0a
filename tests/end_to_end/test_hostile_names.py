"""Names that would like to be something else: kept to the letter or refused, over plain HTTP and by the client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from infrai_async import AsyncInfrai, BadRequestError, InvalidArgument
from infrai_async.local import LocalGateway

pytestmark = pytest.mark.anyio

HOSTILE = {
    "quotes": "a'b\"c`d''",
    "sql": "x'; drop table projects; drop database postgres; --",
    "identifier": 'ifr_"; drop role postgres; --',
    "backslashes": "\\'; \\x00 \\u0000 \\",
    "percent": "%s %(name)s %d %% %2e%2e%2f %00 %0a",
    "braces": "{name} {0} ${HOME} $(id) `id` :name ?",
    "newline": "a\nb\r\nX-Injected: 1\r\n\r\nc",
    "controls": "\t\x01\x1b[31m\x7f\x85\u2028",
    "path": "../../etc/passwd",
    "dots": "..",
    "slashes": "/a//b/./c/",
    "spaces": "  spaced  ",
    "emoji": "💾👩‍👩‍👧",
    "right to left": "\u202egpj.exe\u200f שלום مرحبا",
    "combining": "e\u0301 is not é",
    "html": "<script>alert(1)</script>&amp;",
    "longest": "名" * 255,
    "nul": "a\0b",
    "too long": "x" * 300,
    "too long emoji": "💾" * 256,
}
REFUSED = {"nul", "too long", "too long emoji"}
PLAIN = [what for what, name in HOSTILE.items() if name.isprintable() and name == name.strip()]
hostile = pytest.mark.parametrize("what", HOSTILE)


@pytest.fixture
async def client(gateway: LocalGateway) -> AsyncIterator[AsyncInfrai]:
    """A client with an account of the test's own."""
    async with AsyncInfrai(gateway.api_key, base_url=gateway.base_url) as first:
        account = await first.account.activate()
    async with AsyncInfrai(account.primary_api_key, base_url=gateway.base_url) as connected:
        yield connected


Ask = Callable[..., Any]


@pytest.fixture
async def ask(gateway: LocalGateway) -> AsyncIterator[Ask]:
    """Sends a request as it is, from an account of the test's own, and returns its status and its document."""
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{gateway.base_url}/v1/activate", json={}) as answer:
            key = (await answer.json())["data"]["primary_api_key"]
        session.headers["Authorization"] = f"Bearer {key}"

        async def ask(method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
            url = URL(gateway.base_url + path, encoded=True)
            async with session.request(method, url, json=body, headers=headers) as answer:
                return answer.status, await answer.json()

        yield ask


@hostile
async def test_over_http(what: str, ask: Ask) -> None:
    name = HOSTILE[what]
    _, project = await ask("POST", "/v1/db/project/create", {"name": "source"})
    within = {"project_id": project["data"]["id"]}
    # How it is made, how it is had again, how it is listed, and the field that holds the name.
    for create, body, get, listing, field in (
        ("db/project/create", {"name": name}, "db/project/get/{id}", "db/project/list", "name"),
        ("db/branch/create", {**within, "branch_name": name}, "db/branch/get/{id}", "db/branch/list", "branch_name"),
        ("db/snapshot/create", {**within, "label": name}, "db/snapshot/get/{id}", "db/snapshot/list", "label"),
        ("storage/buckets", {"bucket": name}, None, "storage/buckets", "bucket"),
        ("flags/set", {"key": name}, "flags/get/{key}", "flags/list", "key"),
        (
            "cdn/distribution/create",
            {"origin": "https://example.com", "domain": name},
            "cdn/distribution/get/{distribution_id}",
            "cdn/distribution/list",
            "domain",
        ),
    ):
        status, document = await ask("POST", f"/v1/{create}", body)
        _, listed = await ask("GET", f"/v1/{listing}")
        found = [item[field] for item in listed["data"]["items"]]
        if what in REFUSED:
            assert (status, document["error"]["code"]) == (400, "VALIDATION_ERROR"), document
            assert name not in found
        else:
            assert (status, document["data"][field]) == (200, name)
            assert found.count(name) == 1
        if get is not None and what not in REFUSED:
            path = get.format_map({key: quote(str(value), safe="") for key, value in document["data"].items()})
            status, again = await ask("GET", f"/v1/{path}")
            assert (status, again["data"]) == (200, document["data"])


@hostile
async def test_by_the_client(what: str, client: AsyncInfrai) -> None:
    name = HOSTILE[what]
    project = await client.db.project.create(name="source")
    for create, get, listing, field in (
        (
            lambda: client.db.project.create(name=name),
            lambda made: client.db.project.get(made.id),
            client.db.project.list,
            "name",
        ),
        (
            lambda: client.db.branch.create(project_id=project.id, branch_name=name),
            lambda made: client.db.branch.get(made.id),
            client.db.branch.list,
            "branch_name",
        ),
        (
            lambda: client.db.snapshot.create(project_id=project.id, label=name),
            lambda made: client.db.snapshot.get(made.id),
            client.db.snapshot.list,
            "label",
        ),
        (lambda: client.storage.bucket.create(bucket=name), None, client.storage.bucket.list, "bucket"),
        (lambda: client.flags.set(name), lambda made: client.flags.get(made.key), client.flags.list, "key"),
        (
            lambda: client.cdn.distribution.create(origin="https://example.com", domain=name),
            lambda made: client.cdn.distribution.get(made.distribution_id),
            client.cdn.distribution.list,
            "domain",
        ),
    ):
        if what in REFUSED:
            with pytest.raises(BadRequestError, match="VALIDATION_ERROR"):
                await create()
            continue
        made = await create()
        assert getattr(made, field) == name
        assert get is None or await get(made) == made
        assert [getattr(item, field) for item in await listing().collect()].count(name) == 1


@hostile
async def test_as_an_idempotency_key_in_the_body(what: str, ask: Ask) -> None:
    """A key is any text of 1 to 255 characters: NUL tells it from others as any character does."""
    body = {"key": f"keyed {what}", "idempotency_key": HOSTILE[what]}
    first, again = await ask("POST", "/v1/flags/set", body), await ask("POST", "/v1/flags/set", body)
    if len(HOSTILE[what]) > 255:
        assert [status for status, _ in (first, again)] == [400, 400]
        return
    assert (first[0], again[0], first[1]["data"]) == (200, 200, again[1]["data"])
    assert [document["metadata"]["cost_usd"] for _, document in (first, again)] == [0.0001, 0]
    status, other = await ask("POST", "/v1/flags/set", body | {"idempotency_key": HOSTILE[what] + "'"})
    assert (status, other["data"]["version"]) == (200, 2) if len(HOSTILE[what]) < 255 else (400, None)


@pytest.mark.parametrize(
    "what", [what for what, name in HOSTILE.items() if name.isprintable() and name == name.strip()]
)
async def test_as_an_idempotency_key_in_the_header_it_is_the_same_as_in_the_body(what: str, ask: Ask) -> None:
    key, body = HOSTILE[what], {"key": f"header {what}"}
    status, first = await ask("POST", "/v1/flags/set", body, **{"Idempotency-Key": key})
    _, again = await ask("POST", "/v1/flags/set", body | {"idempotency_key": key})
    if len(key) > 255:
        assert (status, first["error"]["code"]) == (400, "VALIDATION_ERROR")
    else:
        assert (status, first["data"], again["metadata"]["cost_usd"]) == (200, again["data"], 0)


@hostile
async def test_as_an_idempotency_key_of_the_client(what: str, client: AsyncInfrai) -> None:
    """A key travels in a header, so the client takes what a header can carry, and sends nothing else."""
    key = HOSTILE[what]
    name = f"client {what}"
    if not (key.isascii() and key.isprintable()):
        with pytest.raises(InvalidArgument, match="idempotency_key"):
            await client.flags.set(name, idempotency_key=key)
    elif len(key) > 255:
        with pytest.raises(BadRequestError, match="VALIDATION_ERROR"):
            await client.flags.set(name, idempotency_key=key)
    else:
        made = [await client.flags.set(name, idempotency_key=key) for _ in range(2)]
        assert [flag.version for flag in made] == [1, 1]


async def test_half_a_surrogate_pair_is_refused(ask: Ask) -> None:
    for path, body in (("flags/set", {"key": "\ud800"}), ("db/project/create", {"name": "a\udfff"})):
        status, document = await ask("POST", f"/v1/{path}", body)
        assert (status, document["error"]["code"]) == (400, "VALIDATION_ERROR")
