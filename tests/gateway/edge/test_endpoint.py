"""The edge over real HTTP: a real origin that counts, real clients, a real gateway between them."""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDictProxy
from yarl import URL

from infrai_async.local import LocalGateway
from infrai_async.local.edge import origins
from infrai_async.local.edge.config import DistributionSettings

pytestmark = pytest.mark.anyio
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SHORT, LONG = {"Cache-Control": "max-age=1"}, {"Cache-Control": "max-age=600"}


@dataclass
class Origin:
    """A web server that answers as a test says, and remembers what it was asked."""

    url: str = ""
    asked: list[web.Request] = field(default_factory=list)
    handler: Handler | None = None
    status: int = 200
    body: bytes = b"hello"
    headers: dict[str, str] = field(default_factory=dict)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        if self.handler is not None:
            return await self.handler(request)
        return web.Response(status=self.status, body=self.body, headers=self.headers)

    @property
    def fetches(self) -> int:
        return len(self.asked)


@dataclass
class Got:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def cache(self) -> str | None:
        return self.headers.get("X-Cache")


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    made = Origin()
    runner = web.ServerRunner(web.Server(made.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


class Client:
    """Asks a distribution as a browser would; whole addresses go out as given."""

    def __init__(self, api: Any, distribution: Any) -> None:
        self.api, self.id, self.url = api, distribution["distribution_id"], distribution["edge_url"]

    async def ask(self, method: str = "GET", path: str = "/x", data: Any = None, **headers: str) -> Got:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.api.session.request(
            method,
            URL(self.url + path, encoded=True),
            headers=named,
            data=data,
            allow_redirects=False,
            auto_decompress=False,
        ) as answer:
            return Got(answer.status, answer.headers, await answer.read())

    async def get(self, path: str = "/x", **headers: str) -> Got:
        return await self.ask("GET", path, **headers)

    async def update(self, **changes: Any) -> None:
        assert (await self.api.ask("PATCH", f"/v1/cdn/distribution/update/{self.id}", changes)).status == 200

    async def purge(self, **selectors: Any) -> None:
        assert (await self.api.post("/v1/cdn/cache/purge", {"distribution_id": self.id} | selectors)).status == 200

    async def stats(self, query: str = "") -> Any:
        return (await self.api.get(f"/v1/cdn/cache/stats?distribution_id={self.id}{query}")).data


@pytest.fixture
def distribution(api: Any, origin: Origin) -> Callable[..., Awaitable[Client]]:
    async def make(**settings: Any) -> Client:
        body = {"origin": origin.url} | settings
        return Client(api, (await api.post("/v1/cdn/distribution/create", body)).data)

    return make


# --- kept or not -----------------------------------------------------------------------------------------------------


async def test_the_second_answer_comes_from_the_edge(distribution: Any, origin: Origin) -> None:
    client = await distribution()
    first, second = await client.get(), await client.get()
    assert (first.status, first.body, first.cache) == (200, b"hello", "MISS")
    assert (second.status, second.body, second.cache) == (200, b"hello", "HIT")
    assert origin.fetches == 1
    assert second.headers["Via"].endswith("infrai-edge")
    assert int(second.headers["Age"]) < 5
    assert second.headers["Content-Length"] == "5"
    assert (await client.get("/x?1")).cache == "MISS"  # the query is part of what was asked for


async def test_two_hundred_clients_of_one_cold_slow_object_are_one_fetch(distribution: Any, origin: Origin) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        response = web.StreamResponse(headers=LONG)
        await response.prepare(request)
        for _ in range(30):
            await response.write(b"x" * 40_000)  # more in all than is kept in memory
            await asyncio.sleep(0.01)
        return response

    origin.handler = slow
    client = await distribution()
    answers = await asyncio.gather(*(client.get() for _ in range(200)))
    assert origin.fetches == 1
    assert {answer.body for answer in answers} == {b"x" * 1_200_000}
    assert Counter(answer.cache for answer in answers) == {"MISS": 1, "HIT": 199}
    assert await client.stats() == {
        "requests": 200,
        "bytes_served": 200 * 1_200_000,
        "hit_ratio": 0.995,
        "hits": 199,
        "misses": 1,
    }


@pytest.mark.parametrize(
    ("status", "headers", "cache"),
    [
        (200, {}, "HIT"),
        (200, {"Cache-Control": "no-store"}, "MISS"),
        (200, {"Cache-Control": "private, max-age=60"}, "MISS"),
        (200, {"Cache-Control": "max-age=0"}, "MISS"),
        (200, {"Cache-Control": "max-age=0, s-maxage=60"}, "HIT"),
        (200, {"Cache-Control": "max-age=60, s-maxage=0"}, "MISS"),
        (200, {"Expires": "Thu, 01 Jan 1970 00:00:00 GMT"}, "MISS"),
        (200, {"Expires": "0", "Cache-Control": "max-age=60"}, "HIT"),
        (200, {"Set-Cookie": "a=b", "Cache-Control": "public, max-age=60"}, "MISS"),
        (200, {"Vary": "*"}, "MISS"),
        (200, {"Vary": "Accept-Encoding, X-Color"}, "HIT"),
        (200, {"Age": "61", "Cache-Control": "max-age=60"}, "MISS"),
        (301, {"Location": "http://169.254.169.254/"}, "HIT"),
        (302, {"Location": "http://example.com/elsewhere"}, "MISS"),
        (404, {}, "HIT"),
        (500, {}, "MISS"),
        (503, {"Cache-Control": "max-age=60"}, "HIT"),
    ],
)
async def test_the_origin_says_what_is_kept(
    distribution: Any, origin: Origin, status: int, headers: Any, cache: str
) -> None:
    origin.status, origin.headers = status, headers
    client = await distribution()
    assert [(await client.get()).status for _ in range(2)] == [status, status]
    last = await client.get()
    assert (last.status, last.cache) == (status, cache)
    assert last.headers.get("Location") == headers.get("Location")
    assert origin.fetches == (1 if cache == "HIT" else 3)


async def test_cache_ttl_seconds_is_for_origins_that_say_nothing(distribution: Any, origin: Origin) -> None:
    client = await distribution(cache_ttl_seconds=0)
    assert [(await client.get()).cache for _ in range(2)] == ["MISS", "MISS"]
    await client.update(cache_ttl_seconds=600)
    assert [(await client.get()).cache for _ in range(2)] == ["MISS", "HIT"]
    await client.update(cache_ttl_seconds=0)
    assert (await client.get()).cache == "MISS"


async def test_what_answers_one_clients_authorization_is_for_it_alone(distribution: Any, origin: Origin) -> None:
    client = await distribution()
    origin.headers = dict(LONG)
    assert [(await client.get(Authorization="Basic eA==")).cache for _ in range(2)] == ["MISS", "MISS"]
    origin.headers = {"Cache-Control": "public, max-age=60"}
    assert [(await client.get(Authorization="Basic eA==")).cache for _ in range(2)] == ["MISS", "HIT"]
    assert (await client.get()).cache == "HIT"


async def test_what_is_private_is_not_given_to_those_who_waited(distribution: Any, origin: Origin) -> None:
    async def personal(request: web.Request) -> web.Response:
        await asyncio.sleep(0.2)
        return web.Response(text=request.headers["X-Me"], headers={"Cache-Control": "private"})

    origin.handler = personal
    client = await distribution()
    answers = await asyncio.gather(*(client.get(X_Me=str(number)) for number in range(20)))
    assert [answer.body.decode() for answer in answers] == [str(number) for number in range(20)]
    assert origin.fetches == 20


async def test_each_variant_is_kept_and_fetched_once(distribution: Any, origin: Origin) -> None:
    async def colored(request: web.Request) -> web.Response:
        await asyncio.sleep(0.1)
        return web.Response(text=request.headers.get("X-Color", "none"), headers={"Vary": "x-color"} | LONG)

    origin.handler = colored
    client = await distribution()
    colors = ["red", "blue", "green"] * 20
    answers = await asyncio.gather(*(client.get(X_Color=color) for color in colors))
    assert [answer.body.decode() for answer in answers] == colors
    assert origin.fetches == 3
    assert (await client.get()).body == b"none"
    assert origin.fetches == 4
    assert [(await client.get(X_Color=color)).cache for color in colors[:3]] == ["HIT"] * 3


# --- stale -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validator", [{"ETag": '"1"'}, {"Last-Modified": "Mon, 06 May 2024 07:08:09 GMT"}])
async def test_what_is_stale_is_asked_for_again_by_its_validator(
    distribution: Any, origin: Origin, validator: Any
) -> None:
    asks = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}

    async def conditional(request: web.Request) -> web.Response:
        (name, value), *_ = validator.items()
        if request.headers.get(asks[name]) == value:
            return web.Response(status=304, headers={"X-Seen": "again", "Cache-Control": "max-age=600"})
        return web.Response(body=b"hello", headers={"X-Seen": "first", "Cache-Control": "max-age=0"} | validator)

    origin.handler = conditional
    client = await distribution()
    answers = [await client.get() for _ in range(3)]
    assert [answer.cache for answer in answers] == ["MISS", "REVALIDATED", "HIT"]
    assert [answer.status for answer in answers] == [200] * 3
    assert [answer.body for answer in answers] == [b"hello"] * 3
    assert [answer.headers["X-Seen"] for answer in answers] == ["first", "again", "again"]
    assert origin.fetches == 2
    assert (await client.stats())["hits"] == 2


async def test_what_changed_at_the_origin_replaces_what_was_stale(distribution: Any, origin: Origin) -> None:
    client = await distribution()
    origin.headers = {"ETag": '"1"', "Cache-Control": "no-cache"}
    await client.get()
    origin.headers, origin.body = {"ETag": '"2"'} | LONG, b"other"
    assert [((got := await client.get()).cache, got.body) for _ in range(2)] == [("MISS", b"other"), ("HIT", b"other")]


async def test_stale_while_revalidate_answers_at_once_and_renews(distribution: Any, origin: Origin) -> None:
    origin.headers = {"Cache-Control": "s-maxage=0, stale-while-revalidate=60", "ETag": '"1"'}
    client = await distribution()
    assert (await client.get()).cache == "MISS"
    origin.body, origin.headers = b"newer", dict(LONG)
    stale = await client.get()
    assert (stale.cache, stale.body) == ("STALE", b"hello")
    for _ in range(500):
        if (got := await client.get()).cache == "HIT":
            break
        await asyncio.sleep(0.05)
    assert got.body == b"newer"
    assert origin.fetches == 2


@pytest.mark.parametrize(
    ("directive", "status"), [("stale-if-error=60", 200), ("", 500), ("stale-if-error=60, must-revalidate", 500)]
)
async def test_stale_if_error(distribution: Any, origin: Origin, directive: str, status: int) -> None:
    origin.headers = {"Cache-Control": f"max-age=0, {directive}", "ETag": '"1"'}
    client = await distribution()
    await client.get()
    origin.status, origin.body = 500, b"broken"
    got = await client.get()
    assert (got.status, got.body) == ((200, b"hello") if status == 200 else (500, b"broken"))


async def test_stale_if_error_when_the_origin_is_gone(distribution: Any, origin: Origin) -> None:
    async def gone(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    origin.headers = {"Cache-Control": "max-age=0, stale-if-error=60", "ETag": '"1"'}
    client = await distribution()
    await client.get()
    origin.handler = gone
    assert [((got := await client.get()).cache, got.body) for _ in range(2)] == [("STALE", b"hello")] * 2
    assert (await client.get("/other")).status == 502


# --- parts and conditions --------------------------------------------------------------------------------------------


async def test_heads_ranges_and_conditions_are_answered_from_a_stored_get(distribution: Any, origin: Origin) -> None:
    origin.headers = {"ETag": '"1"', "Content-Type": "text/css"} | LONG
    client = await distribution()
    await client.get()
    head = await client.ask("HEAD")
    assert (head.status, head.body, head.headers["Content-Length"], head.cache) == (200, b"", "5", "HIT")
    part = await client.get(Range="bytes=1-3")
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, b"ell", "bytes 1-3/5")
    same = await client.get(If_None_Match='"1"')
    assert (same.status, same.body, same.headers["ETag"]) == (304, b"", '"1"')
    assert (await client.get(If_None_Match='"2"')).status == 200
    assert (await client.get(If_Match='"2"')).status == 412
    assert (await client.get(Range="bytes=9-")).status == 416
    assert origin.fetches == 1


async def test_a_part_of_a_cold_object_brings_all_of_it(distribution: Any, origin: Origin) -> None:
    origin.body = bytes(range(256)) * 20_000
    client = await distribution()
    part = await client.get(Range="bytes=1000000-1000009", If_None_Match='"other"')
    assert (part.status, part.body) == (206, origin.body[1_000_000:1_000_010])
    assert not {"Range", "If-None-Match"} & set(origin.asked[0].headers)
    for _ in range(500):
        if (got := await client.get()).cache == "HIT":
            break
    assert got.body == origin.body
    assert origin.fetches == 1


async def test_a_head_of_a_cold_object_is_passed_on(distribution: Any, origin: Origin) -> None:
    client = await distribution()
    head = await client.ask("HEAD")
    assert (head.status, head.cache, head.headers["Content-Length"], head.body) == (200, "MISS", "5", b"")
    assert origin.asked[0].method == "HEAD"
    assert (await client.get()).body == b"hello"


async def test_compressed_bodies_stay_as_they_are(distribution: Any, origin: Origin) -> None:
    origin.body, origin.headers = gzip.compress(b"hello" * 100), {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    client = await distribution()
    for cache in ("MISS", "HIT"):
        got = await client.get(Accept_Encoding="gzip")
        assert (got.cache, got.body, got.headers["Content-Encoding"]) == (cache, origin.body, "gzip")


# --- large, broken, failing ------------------------------------------------------------------------------------------


async def test_a_large_body_is_kept_outside_of_memory_and_leaves_no_file(
    without_postgres: Any, ask_as: Any, origin: Origin
) -> None:
    origin.body = b"0123456789abcdef" * 2**19
    async with LocalGateway(**without_postgres) as gateway:
        api = ask_as(gateway)
        client = Client(api, (await api.post("/v1/cdn/distribution/create", {"origin": origin.url})).data)
        answers = await asyncio.gather(*(client.get() for _ in range(8)))
        assert {answer.body for answer in answers} == {origin.body}
        assert (await client.get(Range="bytes=-3")).body == b"def"
        assert origin.fetches == 1
        state = {path.name.partition("-")[0] for path in (without_postgres["data_dir"] / "state").iterdir()}
        assert not {name for name in state if name.startswith("tmp")}


async def test_what_is_not_kept_is_streamed_as_it_comes(distribution: Any, origin: Origin) -> None:
    more = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Cache-Control": "no-store"})
        await response.prepare(request)
        await response.write(b"first")
        await more.wait()
        for _ in range(80):
            await response.write(b"x" * 2**16)
        return response

    origin.handler = drip
    client = await distribution()
    async with client.api.session.get(client.url + "/x") as answer:
        assert await answer.content.readexactly(5) == b"first"
        more.set()
        assert len(await answer.read()) == 80 * 2**16


async def test_an_origin_is_left_when_nobody_waits_any_more(distribution: Any, origin: Origin) -> None:
    left = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 1000)
                await asyncio.sleep(0.02)
        finally:
            left.set()

    origin.handler = endless
    client = await distribution()
    async with client.api.session.get(client.url + "/x") as answer:
        await answer.content.readexactly(1000)
    await asyncio.wait_for(left.wait(), 25)


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_that_breaks_off_breaks_off_for_the_client_and_is_not_kept(
    distribution: Any, origin: Origin, chunked: bool
) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=LONG)
        if not chunked:
            response.content_length = 100_000
        await response.prepare(request)
        await response.write(b"x" * 50_000)
        assert request.transport is not None
        request.transport.close()
        return response

    origin.handler = broken
    client = await distribution()
    for _ in range(2):
        with pytest.raises(aiohttp.ClientError):
            await client.get()
    assert origin.fetches == 2
    origin.handler = None
    assert (await client.get()).body == b"hello"


async def test_failures_of_the_origin(distribution: Any, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        raise AssertionError

    async def rude(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"what?\r\n\r\n")
        request.transport.close()
        return web.Response()

    monkeypatch.setattr(origins, "_TIMEOUT", aiohttp.ClientTimeout(sock_read=0.3))
    origin.handler = rude
    client = await distribution()
    assert (await client.get()).status == 502
    async with LocalGatewayAt(client) as fresh:
        origin.handler = stuck
        got = await fresh.get()
        assert got.status == 504
        assert origin.url.encode() not in got.body
    await client.update(origin="http://127.0.0.1:1")
    assert (await client.get()).status == 502
    await client.update(origin="http://nowhere.invalid")
    assert (await client.get()).status == 502
    for senseless in (
        "...",
        "",
        "ftp://x",
        "http://",
        "http://a:b@c",
        "http://x/?q",
        "http://[::1",
        "\0",
        "http://x:99999",
    ):
        await client.update(origin=senseless)
        got = await client.get()
        assert (got.status, b"CDN_ORIGIN" in got.body) == (502, True), senseless


class LocalGatewayAt:
    """A second gateway for the same origin: its connections are opened with what was set meanwhile."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._gateway = LocalGateway(postgres_bin="/no-postgres-here")

    async def __aenter__(self) -> Client:
        await self._gateway.start()
        api = type(self._client.api)(self._gateway.base_url, self._gateway.api_key, self._client.api.session)
        path = f"/v1/cdn/distribution/get/{self._client.id}"
        origin = (await self._client.api.get(path)).data["origin"]
        return Client(api, (await api.post("/v1/cdn/distribution/create", {"origin": origin})).data)

    async def __aexit__(self, *_: object) -> None:
        await self._gateway.aclose()


# --- rules of a distribution -----------------------------------------------------------------------------------------


async def test_what_a_distribution_does_not_take(distribution: Any, origin: Origin) -> None:
    client = await distribution(allowed_methods=["GET"])
    refused = await client.ask("POST")
    assert (refused.status, refused.headers["Allow"]) == (405, "GET")
    assert (await client.ask("HEAD")).status == 405
    assert (await client.get(Upgrade="websocket", Connection="upgrade")).status == 501
    await client.update(https_only=True)
    assert (await client.get()).status == 403
    assert (await client.get(X_Forwarded_Proto="https")).status == 200
    await client.update(https_only=False, enabled=False)
    assert (await client.get()).status == 403
    await client.update(enabled=True)
    assert (await client.get()).cache == "HIT"
    assert (await client.api.delete(f"/v1/cdn/distribution/delete/{client.id}")).status == 200
    assert (await client.get()).status == 404
    assert origin.fetches == 1


async def test_nothing_of_an_old_origin_is_served(distribution: Any, origin: Origin) -> None:
    client = await distribution()
    await client.get()
    await client.update(origin=origin.url + "/v2/")
    assert (await client.get("/a%2Fb/%C3%A9?q=%20&r")).cache == "MISS"
    assert (await client.get("/x")).cache == "MISS"
    assert [str(request.raw_path) for request in origin.asked] == ["/x", "/v2/a%2Fb/%C3%A9?q=%20&r", "/v2/x"]


@pytest.mark.parametrize("path", ["/../x", "/a/%2e%2E/x", "/a/..%2fx", "/..", "/a\\..\\x", "/./x"])
async def test_no_path_leaves_the_origins_prefix(distribution: Any, origin: Origin, path: str) -> None:
    client = await distribution(origin=origin.url + "/prefix")
    host, port = URL(client.url).host, URL(client.url).port
    reader, writer = await asyncio.open_connection(host, port)
    request = f"GET {URL(client.url).path}{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    writer.write(request.encode())
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    assert origin.fetches == 0


async def test_a_distribution_answers_by_its_host_name_too(distribution: Any, origin: Origin) -> None:
    client = await distribution()
    host = client.id.replace("_", "-") + ".edge.localhost"
    async with client.api.session.get(client.api.base_url + "/v1/x?y", headers={"Host": host}) as answer:
        assert (answer.status, await answer.read(), answer.headers["X-Cache"]) == (200, b"hello", "MISS")
    assert (await client.get("/v1/x?y")).cache == "HIT"
    assert origin.asked[0].raw_path == "/v1/x?y"
    assert (await client.get("")).status == 200
    assert origin.asked[1].raw_path == "/"


@pytest.mark.parametrize("elsewhere", ["//cdn.example/x", "https://example.com/", "sub/"])
async def test_a_redirect_within_the_origin_stays_within_the_edge(
    distribution: Any, origin: Origin, elsewhere: str
) -> None:
    origin.status, origin.headers = 301, {"Location": "/sub/?q"}
    client = await distribution()
    assert (await client.ask()).headers["Location"] == URL(client.url).raw_path + "/sub/?q"
    origin.headers = {"Location": elsewhere}
    assert (await client.ask(path="/other")).headers["Location"] == elsewhere


async def test_pages_are_sandboxed_at_the_gateways_address_alone(distribution: Any, origin: Origin) -> None:
    origin.headers = {"Content-Security-Policy": "img-src *"}
    client = await distribution(allowed_methods=["GET", "POST"])
    host = {"Host": client.id.replace("_", "-") + ".edge.localhost"}
    for method in ("GET", "GET", "POST"):
        policies = (await client.ask(method)).headers.getall("Content-Security-Policy")
        assert [policy.partition(" ")[0] for policy in policies] == ["img-src", "sandbox"]
        assert "allow-same-origin" not in policies[1]
        async with client.api.session.request(method, client.api.base_url + "/x", headers=host) as answer:
            assert answer.headers.getall("Content-Security-Policy") == ["img-src *"]


async def test_control_characters_of_an_origin_are_blanks(distribution: Any) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Odd: a\x01b\x7f\tc\r\n\r\nok")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        client = await distribution(origin=f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for label in ("MISS", "HIT"):
            got = await client.get()
            assert (got.body, got.headers["X-Odd"], got.cache) == (b"ok", "a b \tc", label)


async def test_what_changed_while_it_was_read_is_read_again() -> None:
    """With the state in Postgres an older reading may come after a newer one."""
    answers = [({"origin": "old"}, 0, []), ({"origin": "new"}, 0, [])]

    class Slow:
        async def read(self, _: Any) -> Any:
            told = answers.pop(0)
            if answers:
                distributions.changed("dst_1")
            return told

    distributions = DistributionSettings(cast(Any, Slow()), lambda *_: None)
    assert await distributions.settings("dst_1") == {"origin": "new"}


async def test_headers_for_one_connection_go_no_further(distribution: Any, origin: Origin) -> None:
    origin.headers = {"Connection": "X-Hop", "X-Hop": "1", "Keep-Alive": "timeout=5", "X-End": "1", "Cache-Tag": "t"}
    client = await distribution()
    sent = {"Connection": "X-Mine", "X-Mine": "1", "TE": "trailers", "X-Kept": "1", "Proxy-Authorization": "secret"}
    got = await client.get(**{name.replace("-", "_"): value for name, value in sent.items()})
    asked = origin.asked[0].headers
    assert not {"X-Mine", "TE", "Proxy-Authorization"} & set(asked)
    assert asked["X-Kept"] == "1"
    assert (asked["Host"], asked["Via"]) == (URL(origin.url).authority, "1.1 infrai-edge")
    assert (asked["X-Forwarded-For"], asked["X-Forwarded-Proto"]) == ("127.0.0.1", "http")
    assert asked["X-Forwarded-Host"] == URL(client.url).authority
    assert got.headers["X-End"] == "1"
    assert not {"X-Hop", "Keep-Alive", "Cache-Tag"} & set(got.headers)


async def test_other_methods_are_passed_on_and_let_go_what_was_kept(distribution: Any, origin: Origin) -> None:
    client = await distribution(allowed_methods=["GET", "POST", "OPTIONS"])
    assert [(await client.get()).cache for _ in range(2)] == ["MISS", "HIT"]

    async def echo(request: web.Request) -> web.Response:
        return web.Response(status=int(request.headers["X-Status"]), body=await request.content.read())

    origin.handler = echo
    body = b"x" * 3_000_000
    failed = await client.ask("POST", data=iter_of(body), X_Status="400")
    assert (failed.status, failed.body) == (400, body)
    assert (await client.get()).cache == "HIT"
    assert (await client.ask("OPTIONS", X_Status="200")).status == 200
    assert (await client.get()).cache == "HIT"
    done = await client.ask("POST", data=body[:10], X_Status="201", If_Match='"1"')
    assert (done.status, done.body, origin.asked[-1].headers["If-Match"]) == (201, body[:10], '"1"')
    origin.handler = None
    assert (await client.get()).cache == "MISS"


async def iter_of(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 2**16):
        yield body[start : start + 2**16]


# --- purges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selectors", "gone"),
    [
        ({}, ""),
        ({"paths": ["/a"]}, "ab"),
        ({"paths": ["/a/"]}, "a"),
        ({"paths": ["a/*"]}, "a"),
        ({"paths": ["/c%20d"]}, "c"),
        ({"paths": ["/nothing", "/"]}, "abc"),
        ({"tags": ["blue"]}, "ab"),
        ({"tags": ["key2"]}, "b"),
        ({"tags": ["site"]}, "abc"),
        ({"tags": ["other"], "paths": ["/c d"]}, "c"),
        ({"purge_everything": True}, "abc"),
        ({"purge_everything": False}, ""),
    ],
)
async def test_purges(distribution: Any, origin: Origin, selectors: Any, gone: str) -> None:
    tags = {"a": {"Cache-Tag": "red, blue"}, "b": {"Surrogate-Key": "key1 key2", "Cache-Tag": "blue"}, "c": {}}
    paths = {"a": "/a/1?q", "b": "/ab", "c": "/c%20d"}

    async def tagged(request: web.Request) -> web.Response:
        return web.Response(headers=tags[request.path[1:][-1:] if request.path == "/ab" else request.path[1]] | LONG)

    origin.handler = tagged
    client, other = await distribution(tags=["site"]), await distribution(tags=["site"])
    for one in (client, other):
        for path in paths.values():
            assert (await one.get(path)).cache == "MISS"
    await client.purge(**selectors)
    left = {name: (await client.get(path)).cache for name, path in paths.items()}
    assert left == {name: "MISS" if name in gone else "HIT" for name in paths}
    assert {(await other.get(path)).cache for path in paths.values()} == {"HIT"}


@pytest.mark.parametrize(
    "form", ["{edge}/a/1.txt", "{origin}/base/a/1.txt", "https://cdn.example/a/1.txt", "{edge}/a/*"]
)
async def test_a_purge_takes_urls_too(distribution: Any, origin: Origin, form: str) -> None:
    origin.headers = LONG
    client = await distribution(origin=f"{origin.url}/base")
    for path in ("/a/1.txt", "/b"):
        await client.ask(path=path)
    await client.purge(paths=[form.format(edge=client.url, origin=origin.url)])
    assert [(await client.ask(path=path)).cache for path in ("/a/1.txt", "/b")] == ["MISS", "HIT"]


async def test_a_purge_while_a_fetch_is_under_way_keeps_nothing_old(distribution: Any, origin: Origin) -> None:
    go_on = asyncio.Event()
    versions = iter((b"old", b"new"))

    async def slow(request: web.Request) -> web.StreamResponse:
        body = next(versions)
        response = web.StreamResponse(headers=LONG)
        await response.prepare(request)
        await response.write(body)
        await (go_on.wait() if body == b"old" else asyncio.sleep(0))
        return response

    origin.handler = slow
    client = await distribution()
    old = asyncio.create_task(client.get())
    while not origin.fetches:
        await asyncio.sleep(0.01)
    await client.purge(paths=["/x"])
    new = await client.get()
    go_on.set()
    assert (new.body, (await old).body) == (b"new", b"old")
    assert [(got.cache, got.body) for got in [await client.get()]] == [("HIT", b"new")]


async def test_a_purge_through_another_gateway_arrives(without_postgres: Any, ask_as: Any, origin: Origin) -> None:
    async with LocalGateway(**without_postgres) as gateway:
        api = ask_as(gateway)
        client = Client(api, (await api.post("/v1/cdn/distribution/create", {"origin": origin.url})).data)
        assert [(await client.get()).cache for _ in range(2)] == ["MISS", "HIT"]
        with closing(sqlite3.connect(without_postgres["data_dir"] / "state" / "state.db")) as database, database:
            purge = '{"paths": ["/x"], "tags": [], "everything": false}'
            database.execute("insert into purges values (?, 1, ?)", (client.id, purge))
        deadline = time.monotonic() + 25
        while (await client.get()).cache == "HIT":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert origin.fetches == 2


# --- figures ---------------------------------------------------------------------------------------------------------


async def test_figures_survive_a_restart_and_are_by_time(without_postgres: Any, ask_as: Any, origin: Origin) -> None:
    async with LocalGateway(**without_postgres) as gateway:
        api = ask_as(gateway)
        client = Client(api, (await api.post("/v1/cdn/distribution/create", {"origin": origin.url})).data)
        for _ in range(4):
            await client.get()
        await client.get(Range="bytes=0-0")
        expected = {"requests": 5, "bytes_served": 21, "hit_ratio": 0.8, "hits": 4, "misses": 1}
        assert await client.stats() == expected
        assert (await client.stats("&to=2020-01-01"))["requests"] == 0
        assert (await client.stats("&from=2020-01-01"))["requests"] == 5
        await client.get()
    async with LocalGateway(**without_postgres) as gateway:
        client.api = ask_as(gateway)
        assert (await client.stats())["requests"] == 6


async def test_figures_are_written_down_though_nobody_asks(without_postgres: Any, ask_as: Any, origin: Origin) -> None:
    async with LocalGateway(**without_postgres) as gateway:
        api = ask_as(gateway)
        client = Client(api, (await api.post("/v1/cdn/distribution/create", {"origin": origin.url})).data)
        for _ in range(3):
            await client.get()
        written = "select sum(hits), sum(misses), sum(bytes_served) from traffic"
        deadline = time.monotonic() + 25
        with closing(sqlite3.connect(without_postgres["data_dir"] / "state" / "state.db")) as database:
            while database.execute(written).fetchone() != (2, 1, 15):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)


async def test_a_failed_fetch_is_counted_as_a_miss(distribution: Any) -> None:
    client = await distribution(origin="http://127.0.0.1:1")
    await client.get()
    assert await client.stats() == {"requests": 1, "bytes_served": 0, "hit_ratio": 0.0, "hits": 0, "misses": 1}


# --- origins that speak sloppily ---------------------------------------------------------------------------------


PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: max-age=60\r\n"
STRANGER = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nstranger"


@asynccontextmanager
async def speaking(*segments: bytes, stays: bool = True) -> AsyncIterator[str]:
    """An origin that sends these segments to whoever asks for something, then keeps the connection open or not."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                for segment in segments:
                    writer.write(segment)
                    await writer.drain()
                    await asyncio.sleep(0.02)
                if not stays:
                    break
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    "segments",
    [
        (PAGE + b"\r\npageand more",),
        (PAGE + b"\r\npage\r\n\r\n",),
        (PAGE + b"\r\npage" + STRANGER,),
        (PAGE + b"\r\npage", STRANGER),
        (PAGE + b"\r\n", b"page" + STRANGER),
        (PAGE + b"\r\n", b"pa", b"geand more"),
        (PAGE + b"Connection: close\r\n\r\npageand more",),
        (PAGE[:20], PAGE[20:] + b"\r\npage", b"and more"),
    ],
)
async def test_nothing_that_an_origin_sends_unasked_is_served_or_kept(
    distribution: Any, segments: tuple[bytes, ...]
) -> None:
    async with speaking(*segments) as address:
        client = await distribution(origin=address, allowed_methods=["GET", "POST"])
        for path in ("/a", "/b", "/c"):
            assert [(await client.get(path)).body for _ in range(2)] == [b"page", b"page"]
        assert (await client.ask("POST", "/a", data=b"x" * 100)).body == b"page"


@pytest.mark.parametrize(
    ("line", "status", "body"),
    [
        (b"Content-Length: 0004\r\n", 200, b"page"),
        (b"Content-Length:   4  \r\n", 200, b"page"),
        (b"Content-Length:\t4\r\n", 200, b"page"),
        (b"Content-Length: 3\r\n", 200, b"pag"),
        (b"", 200, b"page"),
        (b"Content-Length: 4, 4\r\n", 502, None),
        (b"Content-Length: 4\r\nContent-Length: 5\r\n", 502, None),
        (b"Content-Length: +4\r\n", 502, None),
        (b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", 502, None),
    ],
)
async def test_lengths_are_read_as_far_as_the_parser_takes_them(
    distribution: Any, line: bytes, status: int, body: bytes | None
) -> None:
    async with speaking(b"HTTP/1.1 200 OK\r\n" + line + b"\r\npage", stays=False) as address:
        got = await (await distribution(origin=address)).get()
    assert got.status == status
    assert body in (None, got.body)


@pytest.mark.parametrize("length", [8_200, 16_000, 32_700])
async def test_long_headers_of_an_origin_are_passed_on(distribution: Any, length: int) -> None:
    async with speaking(PAGE + b"X-Long: " + b"x" * length + b"\r\n\r\npage") as address:
        client = await distribution(origin=address)
        async with (
            aiohttp.ClientSession(max_field_size=40_000) as session,
            session.get(client.url + "/x") as got,
        ):
            assert (got.status, len(got.headers["X-Long"])) == (200, length)


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH"])
async def test_a_request_with_a_body_does_not_meet_a_connection_that_is_closing(distribution: Any, method: str) -> None:
    async with speaking(PAGE + b"\r\npage", stays=False) as address:
        client = await distribution(origin=address, allowed_methods=["GET", method])
        for number in range(5):
            assert (await client.get(f"/{number}")).status == 200
            assert (await client.ask(method, "/x", data=b"x" * 1000)).status == 200
            assert (await client.ask(method, "/x", data=iter_of(b"in chunks"))).status == 200


async def test_a_response_without_a_date_gets_the_time_of_its_arrival(distribution: Any) -> None:
    expires = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nExpires: " + expires + b"\r\n\r\npage"
    async with speaking(head) as address:
        client = await distribution(origin=address, cache_ttl_seconds=0)
        first, second = await client.get(), await client.get()
    assert (first.cache, second.cache) == ("MISS", "HIT")
    assert first.headers["Date"] == second.headers["Date"]
