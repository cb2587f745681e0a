"""Where the edge connects to, and where it never does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from infrai_async.local import LocalGateway
from infrai_async.local._errors import RequestRefused
from infrai_async.local.edge.origins import CDN_ID, check_target, is_forbidden, origin_url

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "::ffff:0.0.0.0",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
        "fd00:ec2::254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::",
        "2001:0:1::1",
    ],
)
def test_addresses_that_are_always_refused(address: str) -> None:
    assert is_forbidden(address, 80, ())


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "172.17.0.1", "8.8.8.8", "2606::1", "fd12::1"]
)
def test_addresses_that_may_be_origins(address: str) -> None:
    assert not is_forbidden(address, 80, (81,))


def test_the_gateways_own_ports_are_refused_at_every_address_of_this_machine() -> None:
    for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert is_forbidden(address, 81, (81,))
    assert not is_forbidden("192.0.2.1", 81, (81,))  # nobody's, so not this machine's


@pytest.mark.parametrize(
    ("origin", "target", "url"),
    [
        ("http://a", "/x", "http://a/x"),
        ("https://a:8443/base/", "/x?y=%20", "https://a:8443/base/x?y=%20"),
        ("localhost:3000", "/", "http://localhost:3000/"),
        ("a.example/base", "/%2F/", "http://a.example/base/%2F/"),
        ("http://[::1]:8080", "//x", "http://[::1]:8080//x"),
        ("http://a", "/%252e%252e/x", "http://a/%252e%252e/x"),
    ],
)
def test_what_is_asked_of_an_origin(origin: str, target: str, url: str) -> None:
    assert str(origin_url(origin, check_target(target))) == url


@pytest.mark.parametrize(
    "target", ["/a/../b", "/%2e%2e", "/a%2f..%2fb", "/a%5c..%5cb", "/.%2e/", "/é", "/a b", "/a\x7f"]
)
def test_what_is_never_asked(target: str) -> None:
    with pytest.raises(RequestRefused):
        check_target(target)


@pytest.fixture
async def bystander() -> AsyncIterator[int]:
    """The port of a web server that is not the gateway, on all addresses."""

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(text="bystander")

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def fetched(api: Any, origin: str, **headers: str) -> tuple[int, str]:
    edge = (await api.post("/v1/cdn/distribution/create", {"origin": origin})).data["edge_url"]
    async with api.session.get(edge + "/x", headers=headers, allow_redirects=False) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]"])
async def test_the_gateway_is_no_origin_of_its_own(api: Any, bystander: int, host: str) -> None:
    """Not by any spelling; another server at the same address is one, but for spellings that nobody writes."""
    status, text = await fetched(api, f"http://{host}:{URL(api.base_url).port}")
    there = await fetched(api, f"http://{host}:{bystander}")
    assert status == 502
    if there[0] == 200 or host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
        assert there == (200, "bystander")
        assert "CDN_ORIGIN_FORBIDDEN" in text


async def test_the_gateways_postgres_is_no_origin(api: Any) -> None:
    uri = URL((await api.project())["connection_uri"])
    status, text = await fetched(api, f"http://127.0.0.1:{uri.port}")
    assert (status, "CDN_ORIGIN_FORBIDDEN" in text) == (502, True)


@pytest.mark.parametrize(
    "origin",
    ["169.254.169.254", "http://[::ffff:169.254.169.254]", "http://2852039166/", "http://0xa9fea9fe", "http://0:80"],
)
async def test_metadata_addresses_are_refused_in_every_spelling(api: Any, origin: str) -> None:
    status, text = await fetched(api, origin)
    assert (status, "CDN_ORIGIN_" in text, "169.254" in text) == (502, True, False)


async def test_names_are_judged_by_what_they_resolve_to(
    api: Any, bystander: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names resolve as their owner likes, and to something else the next time."""
    answers = {
        "metadata.test": ["169.254.169.254"],
        "self.test": ["127.0.0.1"],
        "mixed.test": ["169.254.169.254", "127.0.0.1"],
    }
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host not in answers:
            return real(host, port, *args, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in answers[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert (await fetched(api, "http://metadata.test"))[0] == 502
    assert (await fetched(api, f"http://self.test:{URL(api.base_url).port}"))[0] == 502
    assert await fetched(api, f"http://self.test:{bystander}") == (200, "bystander")
    assert await fetched(api, f"http://mixed.test:{bystander}") == (200, "bystander")
    answers["self.test"] = ["169.254.169.254"]
    assert (await fetched(api, "http://self.test:80"))[0] == 502


async def test_redirects_are_passed_on_and_never_followed(api: Any) -> None:
    async def elsewhere(_: web.BaseRequest) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://169.254.169.254/latest/"})

    runner = web.ServerRunner(web.Server(elsewhere), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    assert (await fetched(api, f"http://127.0.0.1:{runner.addresses[0][1]}"))[0] == 302
    await runner.cleanup()


async def test_what_went_through_this_edge_before_is_refused(api: Any, bystander: int) -> None:
    origin = f"http://127.0.0.1:{bystander}"
    assert (await fetched(api, origin, **{"CDN-Loop": f"other, {CDN_ID}; v=1"}))[0] == 508
    assert (await fetched(api, origin, **{"CDN-Loop": "other"}))[0] == 200


async def test_environment_proxies_are_not_asked(
    without_postgres: Any, ask_as: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = asyncio.Event()

    async def proxy(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set()
        writer.close()

    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with LocalGateway(**without_postgres) as gateway:
            await fetched(ask_as(gateway), "http://169.254.169.254/")
    assert not seen.is_set()
