"""What every call has in common: host, route, key, envelope, request id, errors."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
import uuid
import zlib
from typing import Any

import aiohttp
import pytest

from infrai_async.local import LocalGateway
from infrai_async.local.http.envelope import new_request_id

pytestmark = pytest.mark.anyio


async def test_an_answer_is_an_envelope(api: Any) -> None:
    answer = await api.post("/v1/flags/set", {"key": "a"})
    assert set(answer.document) == {"ok", "data", "error", "metadata"}
    assert answer.document["ok"] is True
    assert answer.document["error"] is None
    metadata = answer.document["metadata"]
    assert set(metadata) == {"cost_usd", "latency_ms", "vendor", "cache_hit", "request_id"}
    assert metadata["cost_usd"] == 0.0001
    assert metadata["latency_ms"] > 0
    assert metadata["cache_hit"] is False


async def test_headers_say_what_the_metadata_says(api: Any) -> None:
    answer = await api.get("/v1/account/balance")
    metadata = answer.document["metadata"]
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["X-Infrai-Request-Id"] == answer.headers["X-Request-Id"] == metadata["request_id"]
    assert json.loads(answer.headers["X-Infrai-Cost-Usd"]) == metadata["cost_usd"]
    assert json.loads(answer.headers["X-Infrai-Latency-Ms"]) == metadata["latency_ms"]
    assert answer.headers["X-Infrai-Vendor"] == metadata["vendor"]


async def test_request_ids_are_uuids_of_version_7_with_the_time_in_front(api: Any) -> None:
    before = time.time_ns() // 1_000_000
    answer = await api.get("/v1/nowhere")
    request_id = uuid.UUID(answer.document["metadata"]["request_id"])
    assert (request_id.version, request_id.variant) == (7, uuid.RFC_4122)
    assert before <= request_id.int >> 80 <= time.time_ns() // 1_000_000


@pytest.mark.parametrize("path", ["/", "/v1/discovery", "/v1/account/balance"])
@pytest.mark.parametrize("length", [8_200, 16_000, 32_768])
async def test_long_cookies_of_other_programs_on_this_host_are_accepted(
    api: Any, session: aiohttp.ClientSession, path: str, length: int
) -> None:
    headers = {"Authorization": f"Bearer {api.api_key}", "Cookie": "a=" + "x" * (length - 2)}
    async with session.get(api.base_url + path, headers=headers) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("headers", "about"),
    [
        ({"Cookie": "a=" + "topsecret" * 20_000}, "a header is longer than"),
        ({"topsecret" * 20_000: "a"}, "a header is longer than"),
        ({f"X-{number}": "topsecret" for number in range(200)}, "too many headers"),
    ],
    ids=["a value", "a name", "many"],
)
async def test_headers_beyond_the_limit_are_431_with_a_hint_and_not_quoted(api: Any, headers: Any, about: str) -> None:
    answer = await api.get("/v1/discovery", headers=headers)
    assert answer.status == 431
    assert about in answer.error["message"]
    assert answer.error["hint"]
    assert "topsecret" not in answer.text


async def test_a_url_beyond_the_limit_is_414_with_a_hint_and_not_quoted(api: Any) -> None:
    assert (await api.get("/v1/discovery?x=" + "a" * 65_000)).status == 200
    answer = await api.get("/v1/discovery?x=" + "topsecret" * 20_000)
    assert answer.status == 414
    assert "65,536" in answer.error["message"]
    assert "context" in answer.error["hint"]
    assert "topsecret" not in answer.text


def test_request_ids_of_later_milliseconds_sort_later() -> None:
    ids = [new_request_id(moment) for moment in range(1_700_000_000_000, 1_700_000_000_200)]
    assert ids == sorted(ids)
    assert len({new_request_id(5) for _ in range(1000)}) == 1000


async def test_an_unknown_path_is_404_in_an_envelope_and_costs_nothing(api: Any) -> None:
    answer = await api.post("/v1/storage/bucket/rename", {})
    assert (answer.status, answer.code, answer.cost) == (404, "NOT_FOUND", 0)
    assert answer.document["data"] is None
    assert answer.error["retryable"] is False
    assert answer.headers["X-Infrai-Request-Id"] == answer.document["metadata"]["request_id"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/db/project/create", "POST"),
        ("PUT", "/v1/storage/buckets", "GET, POST"),
        ("GET", "/v1/flags/toggle/k", "POST"),
        ("POST", "/v1/storage/buckets/b/objects/k", "DELETE"),
        ("OPTIONS", "/v1/account/balance", "GET"),
    ],
)
async def test_a_wrong_method_is_405_and_says_which_there_are(api: Any, method: str, path: str, allowed: str) -> None:
    answer = await api.ask(method, path)
    assert (answer.status, answer.code) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Bearer ifr_wrong", "Basic aWZyOnh4", "Bearer \xe9\xff"]
)
async def test_a_missing_or_unknown_key_is_401(api: Any, authorization: str) -> None:
    answer = await api.with_key(None).get("/v1/account/balance", headers={"Authorization": authorization})
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_the_scheme_of_the_key_may_have_any_case(api: Any) -> None:
    answer = await api.with_key(None).get("/v1/account/balance", headers={"Authorization": f"bearer  {api.api_key}"})
    assert answer.status == 200


async def test_a_refused_call_never_repeats_the_key(api: Any) -> None:
    answer = await api.with_key("ifr_tell_nobody").get("/v1/account/balance")
    assert "ifr_tell_nobody" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b'{"key": "\xff"}',
        b'{"key": "\\ud800"}',
        b'{"key": "a", "default_value": NaN}',
        b'{"key": "a", "default_value": 1e999}',
        b"[" * 100_000,
        b'{"key": ' + b"9" * 5000 + b"}",
    ],
)
async def test_a_body_that_is_no_json_object_is_400(api: Any, body: bytes) -> None:
    answer = await api.post("/v1/flags/set", raw=body)
    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")
    assert answer.error["retryable"] is False


async def test_a_body_may_be_large_but_not_larger_than_a_mebibyte(api: Any) -> None:
    fits = await api.post("/v1/flags/set", {"key": "a", "type": "string", "default_value": "x" * 1_000_000})
    assert fits.status == 200
    answer = await api.post("/v1/flags/set", {"key": "a", "type": "string", "default_value": "x" * 2**20})
    assert (answer.status, answer.code) == (413, "VALIDATION_ERROR")


async def test_a_garbled_body_is_400(api: Any) -> None:
    deflated = zlib.compress(json.dumps({"key": "a"}).encode())
    headers = {"Content-Encoding": "deflate"}
    assert (await api.post("/v1/flags/set", raw=deflated, headers=headers)).status == 200
    answer = await api.post("/v1/flags/set", raw=b"no deflate at all", headers=headers)
    assert answer.status == 400


@pytest.mark.parametrize(
    ("raw", "encoding", "status"),
    [
        (gzip.compress(b'{"key": "a"}', mtime=0), "GZIP", 200),
        (b'{"key": "a"}', "identity", 200),
        (gzip.compress(b'{"key": "a"}', mtime=0)[:-1], "gzip", 400),
        (gzip.compress(b" " * 2**20 + b'{"key": "a"}', mtime=0), "gzip", 413),
        (b'{"key": "a"}', "br", 415),
    ],
)
async def test_an_encoded_body_is_decoded_up_to_a_mebibyte(api: Any, raw: bytes, encoding: str, status: int) -> None:
    answer = await api.post("/v1/flags/set", raw=raw, headers={"Content-Encoding": encoding})
    assert answer.status == status


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "127.8.9.1", "[::1]:99", "localhost."])
async def test_loopback_names_are_answered(api: Any, host: str) -> None:
    assert (await api.get("/v1/account/balance", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1", "", "edge.localhost", "0.0.0.0"]
)
async def test_other_host_names_are_421(api: Any, host: str) -> None:
    answer = await api.get("/v1/account/balance", headers={"Host": host})
    assert (answer.status, answer.code) == (421, "MISDIRECTED_REQUEST")


async def test_names_that_were_allowed_are_answered(without_postgres: dict[str, Any], session: Any) -> None:
    async with LocalGateway(**without_postgres, allow_hosts=("Gateway", "api.test")) as gateway:
        for host, status in {"gateway:8080": 200, "API.test": 200, "api.test.evil": 421}.items():
            headers = {"Host": host}
            async with session.get(gateway.base_url + "/v1/discovery", headers=headers) as answer:
                assert answer.status == status


async def test_raw_requests_are_answered_in_envelopes_too(gateway: LocalGateway) -> None:
    host, _, port = gateway.base_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n")
    writer.write(b"HEAD /v1/discovery HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 404")
    assert b'"code":"NOT_FOUND"' in answer
    assert b"HTTP/1.1 405" in answer


GET, HOST = b"GET /v1/discovery HTTP/1.1\r\n", b"Host: localhost\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64 + b"\r\n\r\n",
        b"G@T /v1/discovery HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /v1/discovery HTTP/9.9.9\r\n" + HOST + b"\r\n",
        GET + HOST + b"Authorization: Bearer hush" + b"-hush" * 8000 + b"\r\n\r\n",
        GET + HOST + b"no colon in this one\r\n\r\n",
        GET + HOST + b"Content-Length: many\r\n\r\n",
        GET + HOST + b"Expect: the-unexpected\r\n\r\n",
        b"POST /v1/flags/set HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    ],
    ids=["tls", "method", "version", "long", "colon", "length", "expect", "smuggled"],
)
async def test_what_is_no_request_is_refused_in_an_envelope_and_leaves_no_traceback(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture, request_: bytes
) -> None:
    status = b"431 " if b"-hush" in request_ else b"400 "
    answer = await exchange(gateway, request_)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 " + status, b"HTTP/1.0 " + status))
    document = json.loads(body)
    assert (document["ok"], document["error"]["code"]) == (False, "VALIDATION_ERROR")
    assert document["metadata"]["cost_usd"] == 0
    assert b"hush" not in answer
    assert caplog.records == []


async def test_who_hangs_up_within_a_body_leaves_no_traceback(
    gateway: LocalGateway, api: Any, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, port = gateway.base_url.removeprefix("http://").partition(":")
    for _ in range(5):
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/flags/set HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {api.api_key}\r\n"
        writer.write(f"{head}Content-Length: 50\r\n\r\n".encode() + b'{"key": ')
        await asyncio.sleep(0.02)
        writer.transport.abort()
        assert await api.balance() == 2
    assert caplog.records == []


async def test_who_asks_before_sending_a_body_is_told_to_send_it(gateway: LocalGateway) -> None:
    body = b'{"region":"auto"}'
    about = b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = await exchange(gateway, b"POST /v1/activate HTTP/1.1\r\n" + HOST + about, body)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


async def exchange(gateway: LocalGateway, request: bytes, once_told: bytes = b"") -> bytes:
    host, _, port = gateway.base_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    async with asyncio.timeout(25):
        answer = await reader.readuntil(b"\r\n\r\n")
        if once_told:
            writer.write(once_told)
            answer += await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", answer)
        assert length is not None, answer
        answer += await reader.readexactly(int(length[1]))
    writer.close()
    await writer.wait_closed()
    return answer


async def test_the_edge_owns_its_host_names(gateway: LocalGateway, api: Any) -> None:
    made = await api.post("/v1/cdn/distribution/create", {"origin": "..."})
    answer = await api.get("/v1/account/balance", headers={"Host": made.data["edge_hostname"]})
    assert (answer.status, answer.code) == (502, "CDN_ORIGIN_INVALID")
    whole = f"GET http://{made.data['edge_hostname']}/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert b"CDN_ORIGIN_INVALID" in await exchange(gateway, whole.encode()), "the name in the target counts"
