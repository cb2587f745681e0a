"""Proxies, and aiohttp's errors in our words."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket

import aiohttp
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from support.oracle import SMALL, Oracle, Reply, answer
from yarl import URL

from infrai_async import AsyncInfrai, ConnectError, RetryPolicy, TransportError
from infrai_async._transport.connector import as_transport_error

pytestmark = pytest.mark.anyio
REQUEST = aiohttp.RequestInfo(
    URL("https://api.test/v1/x"),
    "GET",
    CIMultiDictProxy(CIMultiDict({"Authorization": "Bearer topsecret"})),
    URL("https://api.test/v1/x"),
)


@pytest.mark.parametrize(
    ("error", "kind", "not_sent"),
    [
        (aiohttp.ServerDisconnectedError(), TransportError, False),
        (aiohttp.ClientPayloadError("cut off"), TransportError, False),
        (aiohttp.ClientOSError(104, "reset"), TransportError, False),
        (aiohttp.ServerTimeoutError("slow"), TransportError, False),
        (aiohttp.ConnectionTimeoutError("slow to connect"), ConnectError, True),
        (aiohttp.ClientResponseError(REQUEST, (), status=400, message="bad line"), TransportError, False),
        (aiohttp.ClientHttpProxyError(REQUEST, (), status=407), ConnectError, True),
        (aiohttp.InvalidURL("http://user:topsecret@x"), ConnectError, True),
        (ConnectionResetError(104, "reset"), TransportError, False),
        (OSError(), TransportError, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_of_the_transport_become_ours_with_a_message_and_without_the_key(
    error: aiohttp.ClientError | OSError, kind: type[TransportError], not_sent: bool
) -> None:
    mapped, nothing_sent = as_transport_error(error)
    assert type(mapped) is kind
    assert nothing_sent is not_sent
    assert str(mapped)
    assert "topsecret" not in repr(mapped) + str(mapped) + repr(mapped.__cause__)


async def test_calls_go_through_a_proxy_whose_password_shows_nowhere() -> None:
    with Oracle(lambda seen: answer(SMALL)) as proxy:
        through = proxy.url.replace("//", "//user:passw0rd@")
        async with AsyncInfrai("k", base_url="http://127.0.0.1:9", proxy=through) as client:
            assert (await client.db.project.get("p")).id == "p1"
            assert "passw0rd" not in repr(client._dispatcher.pool.settings)
    assert proxy.seen[0].target == "http://127.0.0.1:9/v1/db/project/get/p"
    assert proxy.seen[0].headers["proxy-authorization"] == "Basic dXNlcjpwYXNzdzByZA=="


async def test_the_environments_proxy_is_taken_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with Oracle(lambda seen: answer(SMALL)) as proxy, Oracle(lambda seen: answer(SMALL)) as service:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        async with AsyncInfrai("k", base_url=service.url) as client:
            await client.db.project.get("p")
        async with AsyncInfrai("k", base_url=service.url, trust_env=True) as client:
            await client.db.project.get("p")
    assert (len(service.seen), len(proxy.seen)) == (1, 1)


async def test_a_proxy_that_refuses_is_a_connect_error_without_its_password() -> None:
    with Oracle(lambda seen: Reply(status=407)) as proxy:
        through = proxy.url.replace("//", "//user:passw0rd@")
        async with AsyncInfrai("k", base_url="https://api.test", proxy=through, retry=RetryPolicy.none()) as client:
            with pytest.raises(ConnectError, match="407") as caught:
                await client.db.project.get("p")
    assert proxy.seen[0].method == "CONNECT"
    assert caught.value.outcome == "not_sent"
    assert "passw0rd" not in repr(caught.value) + str(caught.value) + repr(caught.value.__cause__)


async def test_a_name_that_does_not_exist_is_a_connect_error() -> None:
    async with AsyncInfrai("k", base_url="https://nowhere.invalid", retry=RetryPolicy.none()) as client:
        with pytest.raises(ConnectError, match=r"nowhere\.invalid") as caught:
            await client.db.project.get("p")
    assert caught.value.outcome == "not_sent"


async def test_a_server_that_is_reached_but_never_accepts_is_given_up_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with AsyncInfrai("k", base_url=url, timeout=1) as client:
            with pytest.raises(TransportError) as caught:
                await client.db.project.delete("p")
    assert caught.value.outcome == "maybe_applied"  # the kernel took the bytes


async def test_an_answer_that_is_not_http_is_a_transport_error() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with AsyncInfrai("ifr_secretkey", base_url=url, retry=RetryPolicy.none()) as client:
            with pytest.raises(TransportError) as caught:
                await client.db.project.get("p")
    assert "secretkey" not in repr(caught.value) + repr(caught.value.__cause__)


LONG_HEADER = "Content-Security-Policy"


@pytest.mark.parametrize("length", [8_000, 8_200, 16_000, 32_768])
async def test_a_header_of_32_kib_is_read(length: int) -> None:
    with Oracle(lambda seen: answer(SMALL, headers={LONG_HEADER: "x" * length})) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url, retry=RetryPolicy.none()) as client:
            assert (await client.db.project.get("p")).id == "p1"


@pytest.mark.parametrize("name", [LONG_HEADER, "X" * 40_000])
async def test_a_header_beyond_the_limit_is_an_error_that_does_not_quote_it(name: str) -> None:
    with Oracle(lambda seen: answer(SMALL, headers={name: "topsecret" * 5_000})) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url, retry=RetryPolicy.none()) as client:
            with pytest.raises(TransportError) as caught:
                await client.db.project.delete("p")
    error = caught.value
    assert str(error) == "db.project.delete: a header of the response has more than 33024 bytes"
    assert error.outcome == "maybe_applied"
    assert "topsecret" not in repr(error) + repr(error.attempts) + repr(error.__cause__)


async def test_the_limit_of_a_borrowed_session_is_its_own() -> None:
    with Oracle(lambda seen: answer(SMALL, headers={LONG_HEADER: "topsecret" * 1_000})) as oracle:
        async with (
            aiohttp.ClientSession() as narrow,
            aiohttp.ClientSession(max_field_size=16_384) as wide,
        ):
            async with AsyncInfrai("k", base_url=oracle.url, session=narrow, retry=RetryPolicy.none()) as client:
                with pytest.raises(TransportError, match="more than 8190 bytes: create the borrowed session") as caught:
                    await client.db.project.get("p")
                assert "max_field_size" in str(caught.value)
                assert "topsecret" not in str(caught.value)
            async with AsyncInfrai("k", base_url=oracle.url, session=wide) as client:
                assert (await client.db.project.get("p")).id == "p1"


async def test_small_pieces_and_compression_are_put_together() -> None:
    body = gzip.compress(json.dumps({"ok": True, "data": {**SMALL, "name": "x" * 200_000}}).encode())
    with Oracle(lambda seen: Reply(body=body, headers={"Content-Encoding": "gzip"})) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            assert len((await client.db.project.get("p")).name) == 200_000


@pytest.mark.parametrize(
    "base",
    [
        "https://api.infrai.cc",
        "http://127.0.0.1:8080",
        "https://[::1]:8443/proxy",
        "https://xn--bcher-kva.example/a%2Fb",
    ],
)
async def test_the_address_is_the_base_url_and_the_target_byte_for_byte(base: str) -> None:
    async with AsyncInfrai("k", base_url=base) as client:
        for target in ("/v1/db/project/get/a%2Fb", "/v1/db/branch/list?project_id=a%2Fb&cursor=%20%3F"):
            address = client._dispatcher.pool._url(target)
            assert str(address) == base + target
            assert address == URL(base + target, encoded=True)
            assert address.raw_host == URL(base, encoded=True).raw_host
