"""Which names a request may address the gateway by, seen from the wire."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from infrai_async.local import LocalGateway
from infrai_async.local.http.host_guard import host_name

pytestmark = pytest.mark.anyio


async def status_of(gateway: LocalGateway, request: str) -> int:
    host, _, port = gateway.base_url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.write(request.replace("\n", "\r\n").encode())
    async with asyncio.timeout(25):
        line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return int(line.split()[1])


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("GET /v1/discovery HTTP/1.1\nHost: localhost:1\n\n", 200),
        ("GET /v1/discovery HTTP/1.1\nHost:  LOCALHOST. \n\n", 200),
        ("GET /v1/discovery HTTP/1.1\nHost: [::1]\n\n", 200),
        ("GET /v1/discovery HTTP/1.1\nHost: [0:0:0:0:0:0:0:1]:80\n\n", 200),
        ("GET http://localhost/v1/discovery HTTP/1.1\nHost: localhost\n\n", 200),
        ("GET http://127.0.0.1:99/v1/discovery HTTP/1.1\nHost: localhost\n\n", 200),
        ("GET http://[::1]:99/v1/discovery HTTP/1.1\nHost: localhost\n\n", 200),
        ("GET /v1/discovery HTTP/1.1\n\n", 400),
        ("GET /v1/discovery HTTP/1.0\n\n", 421),
        ("GET http://localhost/v1/discovery HTTP/1.1\n\n", 400),
        ("GET /v1/discovery HTTP/1.1\nHost:\n\n", 421),
        ("GET /v1/discovery HTTP/1.1\nHost: :80\n\n", 421),
        ("GET /v1/discovery HTTP/1.1\nHost: .\n\n", 421),
        ("GET /v1/discovery HTTP/1.1\nHost: evil.example\n\n", 421),
        ("GET /v1/discovery HTTP/1.1\nHost: localhost.evil.example\n\n", 421),
        ("GET /v1/discovery HTTP/1.1\nHost: localhost:80@evil.example\n\n", 421),
        ("GET /v1/discovery HTTP/1.1\nHost: localhost, evil.example\n\n", 421),
        ("GET /v1/discovery HTTP/1.1\nHost: [::1].evil.example\n\n", 421),
        ("GET /v1/discovery HTTP/1.1\nHost: [::1\n\n", 421),
        ("GET /v1/discovery HTTP/1.1\nHost: [fe80::1]\n\n", 421),
        ("GET /v1/discovery HTTP/1.1\nHost: localhost..\n\n", 421),
        ("GET /v1/discovery HTTP/1.1\nHost: 0.0.0.0\n\n", 421),
        ("GET /v1/discovery HTTP/1.1\nHost: 192.168.0.1\n\n", 421),
        ("GET http://evil.example/v1/discovery HTTP/1.1\nHost: localhost\n\n", 421),
        ("GET http://localhost/v1/discovery HTTP/1.1\nHost: evil.example\n\n", 421),
        ("GET /checkout/top_1 HTTP/1.1\nHost: evil.example\n\n", 421),
        ("GET /_gateway/faults HTTP/1.1\nHost: evil.example\n\n", 421),
    ],
)
async def test_every_spelling_of_a_host_is_judged(gateway: LocalGateway, request_: str, status: int) -> None:
    assert await status_of(gateway, request_) == status


@pytest.mark.parametrize("hosts", [("localhost", "evil.example"), ("evil.example", "localhost")])
async def test_two_hosts_are_never_answered(gateway: LocalGateway, hosts: tuple[str, str]) -> None:
    lines = "".join(f"Host: {host}\n" for host in hosts)
    assert await status_of(gateway, f"GET /v1/discovery HTTP/1.1\n{lines}\n") in (400, 421)


async def test_the_host_it_was_given_and_those_allowed_are_answered(without_postgres: Any) -> None:
    async with LocalGateway(**without_postgres, host="127.0.0.2", allow_hosts=("Gateway.", "10.1.2.3:80")) as gateway:
        for host, status in {
            "127.0.0.2:9": 200,
            "gateway:8080": 200,
            "GATEWAY.": 200,
            "10.1.2.3": 200,
            "x": 421,
        }.items():
            assert await status_of(gateway, f"GET /v1/discovery HTTP/1.1\nHost: {host}\n\n") == status


async def test_on_ipv6_too(without_postgres: Any, ask_as: Any) -> None:
    try:
        gateway = LocalGateway(**without_postgres, host="::1")
        await gateway.start()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback ({error.strerror})")
    try:
        assert gateway.base_url.startswith("http://[::1]:")
        assert await ask_as(gateway).balance() == 2
        assert (await ask_as(gateway).get("/_gateway/faults")).status == 200
    finally:
        await gateway.aclose()


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Box.Lan.:80", "box.lan"),
        ("::1", "::1"),
        ("[::1]:80", "::1"),
        ("[::1]x", ""),
        ("a:b", ""),
        ("a:80:90", "a:80:90"),
        ("", ""),
        ("[]", ""),
    ],
)
def test_the_name_in_a_host(host: str, name: str) -> None:
    assert host_name(host) == name
