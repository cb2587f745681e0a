"""A kept connection is used again only if nothing has arrived on it since the last response."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
import trustme
from support.oracle import SMALL, Oracle, Reply, Seen, answer
from support.patience import PATIENCE, eventually

from infrai_async import AsyncInfrai, Infrai, RetryPolicy, fan_out

pytestmark = pytest.mark.anyio
NEVER = RetryPolicy.none()


def response(ident: str) -> bytes:
    body = json.dumps({"ok": True, "data": SMALL | {"id": ident}, "error": None, "metadata": {}}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


STRANGER = response("somebody-else")
HEAD, _, BODY = STRANGER.partition(b"\r\n\r\n")
STRAY = {
    "a response": (STRANGER,),
    "two responses": (STRANGER * 2,),
    "a head and then its body": (HEAD + b"\r\n\r\n", BODY),
    "a head alone": (HEAD + b"\r\n\r\n",),
    "half a head": (HEAD[:40],),
    "a status line": (b"HTTP/1.1 200 OK\r\n",),
    "one byte": (b"H",),
    "an interim response": (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",),
    "a response without a body": (b"HTTP/1.1 204 No Content\r\n\r\n",),
    "a timeout's response": (b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",),
    "no HTTP at all": (b"\x00\x01\x02 garbage\r\n\r\n",),
    "a body without a head": (BODY,),
}


def service(*stray: bytes, once: bool = True) -> Callable[[Seen], Reply]:
    """Respond with the id that was asked for, and send something else as well after the first response."""

    def reply(seen: Seen) -> Reply:
        ident = seen.path.rsplit("/", 1)[-1]
        first = seen.connection == 1 and ident == "0" if once else True
        return Reply(raw=response(ident), stray=stray if first else ())

    return reply


async def ids(client: AsyncInfrai, pause: Callable[[], object]) -> list[str]:
    got = []
    for number in range(4):
        got.append((await client.db.project.get(str(number))).id)
        if (waiting := pause()) is not None:
            await waiting  # type: ignore[misc]
    return got


def hold_up(oracle: Oracle, stray: tuple[bytes, ...]) -> None:
    """Keep the event loop busy until all of it has been sent."""
    until = time.monotonic() + PATIENCE
    while oracle.stray_sent < len(stray) and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(0.02)


async def arrived(oracle: Oracle, stray: tuple[bytes, ...]) -> None:
    await eventually(lambda: oracle.stray_sent >= len(stray))
    await asyncio.sleep(0.05)


@pytest.mark.parametrize("stray", STRAY.values(), ids=STRAY)
async def test_what_arrives_on_an_idle_connection_is_nobodys_response(stray: tuple[bytes, ...]) -> None:
    with Oracle(service(*stray)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url, retry=NEVER, timeout=5) as client:
            assert await ids(client, lambda: arrived(oracle, stray)) == ["0", "1", "2", "3"]
            stats = client.stats
    assert (stats.attempts, stats.retries, stats.connections_opened, stats.connections_reused) == (4, 0, 2, 2)
    assert len(oracle.seen) == 4


@pytest.mark.parametrize("stray", STRAY.values(), ids=STRAY)
async def test_what_a_busy_event_loop_has_not_read_yet_is_nobodys_response_either(stray: tuple[bytes, ...]) -> None:
    with Oracle(service(*stray)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url, retry=NEVER, timeout=5) as client:
            assert await ids(client, lambda: hold_up(oracle, stray)) == ["0", "1", "2", "3"]
            assert client.stats.connections_opened == 2


@pytest.mark.parametrize("stray", ["a response", "half a head"])
async def test_the_same_over_tls(stray: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    server, context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(context)
    with Oracle(service(*STRAY[stray]), tls=server) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url, retry=NEVER, ssl=context, timeout=5) as client:
            assert await ids(client, lambda: arrived(oracle, STRAY[stray])) == ["0", "1", "2", "3"]
            assert client.stats.connections_opened == 2
            assert client.stats.connections_reused == 2


def test_the_blocking_client_takes_another_connection_too() -> None:
    with Oracle(service(STRANGER)) as oracle, Infrai("k", base_url=oracle.url, retry=NEVER) as client:
        got = []
        for number in range(4):
            got.append(client.db.project.get(str(number)).id)
            time.sleep(0.1)
    assert got == ["0", "1", "2", "3"]


async def test_a_connection_with_something_on_it_is_closed_for_good() -> None:
    """Every response is followed by another, on every connection: each call needs one of its own."""
    with Oracle(service(STRANGER, once=False)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url, retry=NEVER) as client:
            assert await ids(client, lambda: asyncio.sleep(0.1)) == ["0", "1", "2", "3"]
            assert client.stats.connections_opened == 4
            await asyncio.sleep(0.05)
            assert len(client._dispatcher.pool._sessions.here().http.connector._conns) <= 1  # type: ignore[union-attr]


async def test_many_idle_connections_are_all_looked_at() -> None:
    with Oracle(service(STRANGER, once=False)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url, retry=NEVER) as client:
            for _ in range(3):
                calls = [client.db.project.get(str(number)) for number in range(20)]
                assert [project.id for project in await asyncio.gather(*calls)] == [str(number) for number in range(20)]
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("pause", [0.0, 0.1])
async def test_a_connection_that_the_service_has_closed_costs_no_attempt(pause: float) -> None:
    """The end of the stream is seen before the request goes out, even by a loop that has been busy since."""

    def reply(seen: Seen) -> Reply:
        return Reply(raw=response(seen.path.rsplit("/", 1)[-1]), reset=seen.path.endswith("0"))

    with Oracle(reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url, retry=NEVER) as client:
            assert (await client.db.project.get("0")).id == "0"
            time.sleep(0.1)
            await asyncio.sleep(pause)
            assert (await client.db.project.get("1")).id == "1"
            assert client.stats.attempts == 2


async def test_lists_get_their_own_pages() -> None:
    page = {"items": [SMALL], "next_cursor": None}
    stray = json.dumps({"ok": True, "data": {"items": [], "next_cursor": None}, "error": None, "metadata": {}}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(stray)}\r\n\r\n".encode()

    def reply(seen: Seen) -> Reply:
        extra = (head + stray,) if seen.connection == 1 else ()
        return Reply(body=answer(page).body, stray=extra)

    with Oracle(reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url, retry=NEVER) as client:
            for _ in range(3):
                assert [project.id async for project in client.db.project.list()] == ["p1"]
                await asyncio.sleep(0.1)
            pairs = fan_out(client.db.project.list(), lambda _: client.db.project.list(), concurrency=2)
            assert len([pair async for pair in pairs]) == 1


async def test_a_quiet_connection_is_used_again_and_again() -> None:
    with Oracle(service()) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            for _ in range(5):
                await ids(client, lambda: asyncio.sleep(0))
            assert (client.stats.connections_opened, client.stats.connections_reused) == (1, 19)


@pytest.mark.parametrize("coding", ["identity", "gzip", "deflate"])
async def test_a_body_that_pauses_reading_arrives_whole(coding: str) -> None:
    items = [SMALL | {"id": f"p{number}", "name": "x" * 200} for number in range(20_000)]
    page = answer({"items": items, "next_cursor": None})
    packed = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}[coding](page.body)
    with Oracle(lambda _: Reply(body=packed, headers={"Content-Encoding": coding})) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            for _ in range(3):
                assert [project.id for project in await client.db.project.list().collect()] == [i["id"] for i in items]
            assert client.stats.connections_opened == 1


async def test_the_private_part_of_aiohttp_that_is_looked_at_is_there() -> None:
    """Half a message is seen only in the parser; with an aiohttp that keeps it elsewhere this must be thought over."""
    with Oracle(service()) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            await client.db.project.get("0")
            (held,) = client._dispatcher.pool._sessions.here().http.connector._conns.values()  # type: ignore[union-attr]
            protocol, _ = held[0]
            assert protocol._parser is not None
            assert callable(protocol._parser.feed_eof)
            assert protocol._reading_paused is False
    assert issubclass(aiohttp.TCPConnector, aiohttp.BaseConnector)
