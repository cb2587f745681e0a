"""Presigned URLs take and give bytes: what was put is got, by whom it was meant for and as long as it was meant."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import aiohttp
import pytest
from yarl import URL

from infrai_async import AsyncInfrai, NotFoundError
from infrai_async.local import LocalGateway
from infrai_async.local.objects.blobs import Upload

pytestmark = pytest.mark.anyio
TEN = b"0123456789"
CROWD = 12


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _crc(bits: int, polynomial: int) -> Callable[[bytes], str]:
    """Bit by bit, which is slow and plain."""

    def of(data: bytes) -> str:
        state = ones = (1 << bits) - 1
        for byte in data:
            state ^= byte
            for _ in range(8):
                state = state >> 1 ^ (polynomial if state & 1 else 0)
        return _base64((state ^ ones).to_bytes(bits // 8))

    return of


SUMS: dict[str, Callable[[bytes], str]] = {
    "Content-MD5": lambda data: _base64(hashlib.md5(data, usedforsecurity=False).digest()),
    "x-amz-checksum-crc32": _crc(32, 0xEDB88320),
    "x-amz-checksum-crc32c": _crc(32, 0x82F63B78),
    "x-amz-checksum-crc64nvme": _crc(64, 0x9A6C9329AC4BC9B5),
    "x-amz-checksum-sha1": lambda data: _base64(hashlib.sha1(data, usedforsecurity=False).digest()),
    "x-amz-checksum-sha256": lambda data: _base64(hashlib.sha256(data).digest()),
    "x-amz-content-sha256": lambda data: hashlib.sha256(data).hexdigest(),
    "Content-Digest": lambda data: f"sha-256=:{_base64(hashlib.sha256(data).digest())}:, unknown=:AAAA:",
    "Repr-Digest": lambda data: f"sha-512=:{_base64(hashlib.sha512(data).digest())}:",
}


class Bucket:
    """One bucket of one account, and plain HTTP on what is presigned in it."""

    def __init__(self, api: Any) -> None:
        self.api = api

    async def url(self, method: str, key: str = "k", **body: Any) -> str:
        path = f"/v1/storage/buckets/b/objects/{quote(key, safe='')}/presign"
        return str((await self.api.post(path, {"method": method, **body})).data["url"])

    async def send(self, method: str, url: str, data: Any = None, **headers: str) -> tuple[int, Any, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        exact = URL(url, encoded=True)
        data = BytesIO(data) if isinstance(data, bytes) else data  # aiohttp warns of large bodies that are plain bytes
        async with self.api.session.request(
            method, exact, data=data, headers=named, auto_decompress=False, skip_auto_headers=["Content-Type"]
        ) as answer:
            return answer.status, answer.headers, await answer.read()

    async def put(self, data: Any, key: str = "k", **headers: str) -> tuple[int, Any, bytes]:
        return await self.send("PUT", await self.url("PUT", key), data, **headers)

    async def get(self, key: str = "k", method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
        return await self.send(method, await self.url("GET", key), **headers)


@pytest.fixture
async def bucket(api: Any) -> Bucket:
    await api.post("/v1/storage/buckets", {"bucket": "b"})
    return Bucket(api)


@pytest.fixture
def blobs(gateway: LocalGateway) -> Path:
    """Where the gateway of the tests keeps the bytes."""
    assert gateway._context is not None
    return gateway._context.blobs._directory


@asynccontextmanager
async def nothing_left(blobs: Path, more: int = 0) -> AsyncIterator[None]:
    """What is in the directory afterwards is what was there before, and ``more`` blobs; soon, not at once."""
    before = len(list(blobs.iterdir()))
    yield
    deadline = time.monotonic() + 25
    while len(found := list(blobs.iterdir())) != before + more and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert len(found) == before + more
    assert not [path for path in found if path.suffix]


def etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


# --- bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 10, 65_536, 3_000_001])
async def test_what_is_put_is_got(bucket: Bucket, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    status, headers, body = await bucket.put(data, Content_Type="image/png")
    assert (status, headers["ETag"], body) == (200, etag(data), b"")
    status, headers, body = await bucket.get()
    assert (status, body == data, headers["ETag"]) == (200, True, etag(data))
    assert (headers["Content-Length"], headers["Content-Type"]) == (str(size), "image/png")
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Last-Modified"].endswith(" GMT")
    status, told, body = await bucket.get(method="HEAD")
    assert (status, body) == (200, b"")
    for name in ("Content-Length", "Content-Type", "ETag", "Last-Modified"):
        assert told[name] == headers[name]


async def test_the_clients_urls_work_in_plain_aiohttp_as_they_are(without_postgres: Any, session: Any) -> None:
    async with (
        LocalGateway(**without_postgres) as gateway,
        AsyncInfrai(gateway.api_key, base_url=gateway.base_url) as client,
    ):
        gateway.serve_generation("current")  # the one whose presign has content_type and the like
        await client.storage.bucket.create(bucket="of the client")
        for key in (
            "a b/c+d.txt",
            "a/../b",
            "//x//",
            "100%25 ä€\N{PILE OF POO}",
            "q?x=1&y#z",
            "back\\slash",
            "...",
            "@:+~",
        ):
            upload = await client.storage.object.presign(
                "of the client", key, content_type="text/plain; charset=utf-8", max_bytes=5
            )
            async with session.put(upload.url, data=b"hello", headers=upload.headers) as answer:
                assert answer.status == 200
            download = await client.storage.object.presign(
                "of the client", key, method="GET", response_disposition='attachment; filename="x y.txt"'
            )
            async with session.get(download.url) as answer:
                assert (answer.status, await answer.read()) == (200, b"hello")
                assert answer.headers["Content-Disposition"] == 'attachment; filename="x y.txt"'
                assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
            await client.storage.object.delete("of the client", key)
            with pytest.raises(NotFoundError):
                await client.storage.object.delete("of the client", key)


@pytest.mark.parametrize(
    "key",
    [
        "..a",
        "../../../../etc/passwd",
        "/etc/passwd",
        "a/../../b",
        "a//b",
        "/",
        "//",
        ".a",
        "%2e%2e%2f",
        "%",
        "a%00b",
        "C:\\x",
        "\n\r\t\x01\x7f",
        "'; drop table objects; --",
        "é",
        "e\u0301",
        "\N{PILE OF POO}",
        "x" * 1024,
        "é" * 512,
        "k.part",
    ],
)
async def test_any_key_is_an_object_of_its_own_inside_the_data_directory(bucket: Bucket, blobs: Path, key: str) -> None:
    async with nothing_left(blobs, more=2):
        assert (await bucket.put(b"a neighbour", key[:-1] + "y"))[0] == 200
        assert (await bucket.put(key.encode(), key))[0] == 200
        assert (await bucket.get(key))[2] == key.encode()
        assert (await bucket.get(key[:-1] + "y"))[2] == b"a neighbour"
    assert all(re.fullmatch("[0-9a-f]{32}", path.name) and path.is_file() for path in blobs.iterdir())
    assert {path.name for path in blobs.parent.iterdir()} <= {"objects", "state", "postgres", "temporary"}


async def test_accounts_and_buckets_do_not_share_objects(bucket: Bucket, other: Any) -> None:
    await bucket.put(b"mine")
    await other.post("/v1/storage/buckets", {"bucket": "b"})
    assert (await Bucket(other).get())[0] == 404
    mine, theirs = urlsplit(await bucket.url("GET")), urlsplit(await Bucket(other).url("GET"))
    assert (await bucket.send("GET", theirs._replace(path=mine.path).geturl()))[0] == 403


async def test_what_is_said_of_the_bytes_comes_back_with_them(bucket: Bucket) -> None:
    told = {
        "Content_Type": "text/css",
        "Content_Disposition": "attachment; filename*=UTF-8''%C3%A9.css",
        "Content_Encoding": "gzip",
        "Content_Language": "fr",
        "Cache_Control": "max-age=60",
        "Expires": "Mon, 06 May 2024 07:08:09 GMT",
    }
    await bucket.put(b"these bytes are no gzip, and kept as they are", X_Other="x", **told)
    _, headers, body = await bucket.get()
    assert body == b"these bytes are no gzip, and kept as they are"
    assert {name: headers[name.replace("_", "-")] for name in told} == told
    assert "X-Other" not in headers
    await bucket.put(b"another")
    _, headers, _ = await bucket.get()
    assert headers["Content-Type"] == "application/octet-stream"
    assert not headers.keys() & {"Content-Disposition", "Cache-Control", "Content-Encoding"}


# --- who may ---------------------------------------------------------------------------------------------------------


async def test_every_part_of_a_url_is_signed(bucket: Bucket, blobs: Path) -> None:
    await bucket.put(TEN)
    async with nothing_left(blobs):
        for method, limits in (("GET", {"response_disposition": "inline"}), ("PUT", {"max_bytes": 100})):
            url = urlsplit(await bucket.url(method, **limits))
            pairs = parse_qsl(url.query)
            assert len(pairs) >= 7
            changed = [url._replace(path=url.path + "x"), url._replace(path=url.path.replace("bkt_", "bkt_0"))]
            for number, (name, value) in enumerate(pairs):
                flipped = value[:-1] + ("0" if value[-1] != "0" else "1")
                one, two = value[0], next((letter for letter in value if letter != value[0]), "~")
                swapped = value.translate(str.maketrans({one: two, two: one}))
                for other in (
                    [(name, flipped)],
                    [(name, swapped)],
                    [],
                    [(name, value)] * 2,
                    [(name, value), ("x", "")],
                ):
                    query = urlencode(pairs[:number] + other + pairs[number + 1 :])
                    changed.append(url._replace(query=query))
            for bad in [*changed, url._replace(query="")]:
                status, _, body = await bucket.send(method, bad.geturl(), b"evil" if method == "PUT" else None)
                assert (status, b"FORBIDDEN" in body) == (403, True), bad.geturl()
            assert (await bucket.send(method, url.geturl(), b"good" if method == "PUT" else None))[0] == 200
    assert (await bucket.get())[2] == b"good"


async def test_a_signature_with_two_bytes_swapped_is_403(bucket: Bucket) -> None:
    await bucket.put(TEN)
    url = await bucket.url("GET")
    base, seal = url[:-64], url[-64:]
    places = [place for place in range(63) if seal[place] != seal[place + 1]]
    assert len(places) > 30
    for place in places:
        swapped = seal[:place] + seal[place + 1] + seal[place] + seal[place + 2 :]
        assert (await bucket.send("GET", base + swapped))[0] == 403
    assert (await bucket.send("GET", url))[0] == 200


async def test_a_url_is_for_its_method_alone(bucket: Bucket) -> None:
    await bucket.put(TEN)
    get, put = await bucket.url("GET"), await bucket.url("PUT")
    for method, url in (("PUT", get), ("GET", put), ("HEAD", put)):
        assert (await bucket.send(method, url, b"x" if method == "PUT" else None))[0] == 403
    for method in ("POST", "DELETE", "PATCH"):
        status, headers, _ = await bucket.send(method, put)
        assert (status, headers["Allow"]) == (405, "GET, HEAD, PUT, OPTIONS")
    assert (await bucket.get())[2] == TEN


async def test_a_url_expires(bucket: Bucket, blobs: Path) -> None:
    await bucket.put(TEN)
    get = await bucket.url("GET", expires_seconds=1)
    put = await bucket.url("PUT", expires_seconds=1)
    assert (await bucket.send("GET", get))[0] == 200
    await asyncio.sleep(2.1)
    async with nothing_left(blobs):
        for status, _, body in (await bucket.send("GET", get), await bucket.send("PUT", put, b"late")):
            assert (status, b"expired" in body) == (403, True)
    assert (await bucket.get())[2] == TEN


async def test_a_key_of_the_api_opens_no_object_and_does_not_go_with_a_signature(bucket: Bucket) -> None:
    await bucket.put(TEN)
    url = await bucket.url("GET")
    assert (await bucket.send("GET", url.partition("?")[0]))[0] == 403
    for given, method in [(url, "GET"), (url.partition("?")[0], "GET"), (await bucket.url("PUT"), "PUT")]:
        status, _, body = await bucket.send(method, given, Authorization=f"Bearer {bucket.api.api_key}")
        assert status == 400
        assert b"send no Authorization header" in body
    assert (await bucket.get())[2] == TEN


@pytest.mark.parametrize("key", [".", ".."])
async def test_a_key_that_clients_take_out_of_a_path_gets_no_url(bucket: Bucket, key: str) -> None:
    for path, body in [
        (f"/v1/storage/buckets/b/objects/{key}/presign", {}),
        (f"/v1/storage/object/presign/b/{key}", {}),
    ]:
        answer = await bucket.api.post(path.replace(key, key.replace(".", "%2E")), body)
        assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")
        assert "choose another key" in answer.error["message"]


async def test_a_repeated_presign_is_signed_anew(bucket: Bucket) -> None:
    await bucket.put(TEN)

    async def presign() -> Any:
        body = {"method": "GET", "expires_seconds": 1}
        return (await bucket.api.post("/v1/storage/buckets/b/objects/k/presign", body, key="receipt")).data

    first = await presign()
    while (await bucket.send("GET", first["url"]))[0] == 200:
        await asyncio.sleep(0.1)
    again = await presign()
    assert again["expires_at"] > first["expires_at"]
    assert (await bucket.send("GET", again["url"]))[2] == TEN


async def test_what_the_uploader_says_of_an_object_is_kept(bucket: Bucket) -> None:
    await bucket.put(TEN, x_amz_meta_Author="Zo\u00eb", X_Amz_Meta_note="n")
    for method in ("GET", "HEAD"):
        headers = (await bucket.get(method=method))[1]
        assert (headers["x-amz-meta-author"], headers["x-amz-meta-note"]) == ("Zo\u00eb", "n")
    await bucket.put(TEN)
    assert "x-amz-meta-author" not in (await bucket.get())[1]
    status, _, body = await bucket.put(TEN, x_amz_meta_long="x" * 2100)
    assert status == 400
    assert b"more than 2048 bytes" in body


@pytest.mark.parametrize(("header", "of"), SUMS.items(), ids=SUMS)
async def test_a_checksum_is_checked(bucket: Bucket, header: str, of: Callable[[bytes], str]) -> None:
    name = header.replace("-", "_")
    assert (await bucket.put(TEN, **{name: of(TEN)}))[0] == 200
    status, _, body = await bucket.put(TEN + b"!", **{name: of(TEN)})
    assert (status, f"the body does not match {header}".lower() in body.decode().lower()) == (400, True)
    assert (await bucket.put(TEN, **{name: "no checksum"}))[0] == 400
    assert (await bucket.get())[2] == TEN


async def test_all_of_several_checksums_have_to_fit(bucket: Bucket) -> None:
    right = {name.replace("-", "_"): of(TEN) for name, of in SUMS.items()}
    assert (await bucket.put(TEN, **right))[0] == 200
    for name, of in SUMS.items():
        assert (await bucket.put(b"other", **right | {name.replace("-", "_"): of(TEN)}))[0] == 400
    assert (await bucket.get())[2] == TEN


@pytest.mark.parametrize(
    "headers",
    [
        {"x_amz_trailer": "x-amz-checksum-crc32"},
        {"Content_Encoding": "aws-chunked"},
        {"x_amz_content_sha256": "STREAMING-X"},
    ],
)
async def test_a_body_in_signed_chunks_is_refused_and_not_stored_as_it_is(bucket: Bucket, headers: Any) -> None:
    status, _, body = await bucket.put(TEN, **headers)
    assert (status, b"aws-chunked" in body) == (501, True)
    assert (await bucket.get())[0] == 404


async def test_a_checksum_that_nobody_knows_is_refused(bucket: Bucket) -> None:
    status, _, body = await bucket.put(TEN, x_amz_checksum_xxh3="AAAA")
    assert (status, b"use one of crc32, crc32c, crc64nvme, sha1, sha256" in body) == (400, True)


async def test_an_upload_that_is_refused_is_refused_before_its_body_is_sent(bucket: Bucket) -> None:
    good, small = await bucket.url("PUT"), await bucket.url("PUT", max_bytes=3)
    cases = [
        (good, "", b"100"),
        (good.replace("Signature=", "Signature=0"), "", b"403"),
        (good, "Authorization: Bearer x\r\n", b"400"),
        (good, "Content-MD5: none\r\n", b"400"),
        (small, "", b"413"),
    ]
    for url, header, status in cases:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n{header}Content-Length: 10\r\n"
        writer.write(f"{head}Expect: 100-continue\r\n\r\n".encode())
        line = await asyncio.wait_for(reader.readline(), 60)
        assert line.split()[1] == status, url
        writer.close()


async def test_a_refused_signature_says_what_it_covers(bucket: Bucket) -> None:
    typed = await bucket.url("PUT", content_type="image/png")
    for headers, said in [
        ({"Content_Type": "text/html"}, b"Content-Type was sent"),
        ({}, b"Content-Type was not sent"),
    ]:
        status, _, body = await bucket.send("PUT", typed, TEN, **headers)
        assert (status, said in body, b"it covers Content-Type" in body) == (403, True, True)
    status, _, body = await bucket.send("GET", await bucket.url("PUT"))
    assert (status, b"the URL is for PUT, not for GET" in body) == (403, True)


@pytest.mark.parametrize("path", ["", "/", "/x", "/bkt_0/", "/%FF/k", "/bkt_0/%", "/bkt_0/k?X-Amz-Date=%FF", "/../x"])
async def test_what_is_no_url_of_ours_is_refused(bucket: Bucket, path: str) -> None:
    status, _, body = await bucket.send("GET", f"{bucket.api.base_url}/objects{path}")
    assert status in (400, 403)
    assert b'"ok":false' in body


async def test_a_signed_content_type_has_to_be_sent(bucket: Bucket) -> None:
    url = await bucket.url("PUT", content_type="text/plain")
    assert (await bucket.send("PUT", url, TEN))[0] == 403
    assert (await bucket.send("PUT", url, TEN, Content_Type="text/html"))[0] == 403
    assert (await bucket.send("PUT", url, TEN, Content_Type="text/plain"))[0] == 200
    url = await bucket.url("GET", content_type="text/x-other")
    assert (await bucket.send("GET", url))[1]["Content-Type"] == "text/x-other"


async def _in_pieces(data: bytes, size: int = 3) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def test_an_upload_is_no_larger_than_was_signed(bucket: Bucket, blobs: Path) -> None:
    await bucket.put(b"old")
    async with nothing_left(blobs):
        url = await bucket.url("PUT", max_bytes=10)
        for data in (TEN + b"x", _in_pieces(TEN + b"x")):
            assert (await bucket.send("PUT", url, data))[0] == 413
        assert (await bucket.get())[2] == b"old"
        for data in (TEN, _in_pieces(TEN)):
            assert (await bucket.send("PUT", url, data))[0] == 200
    assert (await bucket.get())[2] == TEN


@pytest.mark.parametrize(
    "body",
    [{"max_bytes": -1}, {"content_type": "a\nb"}, {"method": "GET", "response_disposition": "a\r\nSet-Cookie: x"}],
)
async def test_what_no_header_can_say_is_not_signed(bucket: Bucket, body: Any) -> None:
    answer = await bucket.api.post("/v1/storage/buckets/b/objects/k/presign", {"method": "PUT", **body})
    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")


async def test_the_md5_of_the_body_is_checked_when_sent(bucket: Bucket, blobs: Path) -> None:
    good = base64.b64encode(hashlib.md5(TEN).digest()).decode()
    assert (await bucket.put(TEN, Content_MD5=good))[0] == 200
    async with nothing_left(blobs):
        for wrong in (base64.b64encode(hashlib.md5(b"x").digest()).decode(), "no base64!", ""):
            assert (await bucket.put(b"other", Content_MD5=wrong))[0] == 400
    assert (await bucket.get())[2] == TEN


async def test_a_page_of_another_site_may_use_a_url_that_it_was_given(bucket: Bucket) -> None:
    url = await bucket.url("PUT")
    asked = {"Origin": "https://example.com", "Access_Control_Request_Method": "PUT"}
    status, headers, _ = await bucket.send("OPTIONS", url, **asked)
    assert (status, headers["Access-Control-Allow-Origin"]) == (204, "*")
    assert "PUT" in headers["Access-Control-Allow-Methods"]
    assert headers["Access-Control-Allow-Headers"] == "*"
    for answer in (
        await bucket.put(TEN),
        await bucket.get(),
        await bucket.get("absent"),
        await bucket.get(method="PUT"),
    ):
        assert answer[1]["Access-Control-Allow-Origin"] == "*"
        assert answer[1]["Access-Control-Expose-Headers"] == "*"


async def test_what_is_stored_cannot_act_in_the_gateways_name(bucket: Bucket) -> None:
    await bucket.put(b"<script>fetch('/')</script>", Content_Type="text/html")
    _, headers, _ = await bucket.get()
    assert (headers["Content-Security-Policy"], headers["X-Content-Type-Options"]) == ("sandbox", "nosniff")


# --- parts and conditions --------------------------------------------------------------------------------------------


async def test_ranges(bucket: Bucket) -> None:
    await bucket.put(TEN, Content_Type="text/plain")
    for asked, status, body, told in (
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=0-0,2-3", 200, TEN, None),
    ):
        found = await bucket.get(Range=asked)
        assert (found[0], found[2], found[1].get("Content-Range")) == (status, body, told)
        assert (found[1]["Content-Length"], found[1]["Content-Type"]) == (str(len(body)), "text/plain")
    status, headers, body = await bucket.get(Range="bytes=10-")
    assert (status, headers["Content-Range"], b"RANGE_NOT_SATISFIABLE" in body) == (416, "bytes */10", True)
    assert (await bucket.get(Range="bytes=2-4", If_Range=etag(TEN)))[0] == 206
    assert (await bucket.get(Range="bytes=2-4", If_Range='"old"'))[2] == TEN


async def test_conditions_of_reading(bucket: Bucket) -> None:
    await bucket.put(TEN, Cache_Control="max-age=5")
    modified = (await bucket.get())[1]["Last-Modified"]
    for method in ("GET", "HEAD"):
        for headers in ({"If_None_Match": etag(TEN)}, {"If_Modified_Since": modified}):
            status, told, body = await bucket.get(method=method, **headers)
            assert (status, body, told["ETag"], told["Cache-Control"]) == (304, b"", etag(TEN), "max-age=5")
        assert (await bucket.get(method=method, If_Match='"other"'))[0] == 412
        assert (await bucket.get(method=method, If_Match=etag(TEN)))[0] == 200
        assert (await bucket.get(method=method, If_None_Match='"other"'))[0] == 200


async def test_conditions_of_writing(bucket: Bucket, blobs: Path) -> None:
    assert (await bucket.put(b"x", If_Match="*"))[0] == 412
    assert (await bucket.put(b"first", If_None_Match="*"))[0] == 200
    async with nothing_left(blobs):
        assert (await bucket.put(b"second", If_None_Match="*"))[0] == 412
        assert (await bucket.put(b"second", If_Match=etag(b"old")))[0] == 412
        assert (await bucket.put(b"second", If_Match=etag(b"first")))[0] == 200
    assert (await bucket.get())[2] == b"second"


async def test_of_many_that_may_only_create_one_does(bucket: Bucket, blobs: Path) -> None:
    async with nothing_left(blobs, more=1):
        answers = await asyncio.gather(*(bucket.put(str(n).encode(), If_None_Match="*") for n in range(CROWD)))
    assert sorted(answer[0] for answer in answers) == [200] + [412] * (CROWD - 1)


# --- at once, slowly, and not to the end ------------------------------------------------------------------------------


async def test_of_uploads_at_once_one_wins_whole(bucket: Bucket, blobs: Path) -> None:
    url = await bucket.url("PUT")
    bodies = [bytes([number]) * 1_000_000 for number in range(CROWD)]
    async with nothing_left(blobs, more=1):
        answers = await asyncio.gather(*(bucket.send("PUT", url, _in_pieces(body, 50_000)) for body in bodies))
        assert [answer[0] for answer in answers] == [200] * CROWD
        _, headers, body = await bucket.get()
        assert body in bodies
        assert headers["ETag"] == etag(body)


async def test_downloads_meanwhile_see_one_upload_or_another_whole(bucket: Bucket) -> None:
    bodies = [bytes([number]) * 300_000 for number in range(2)]
    await bucket.put(bodies[0])
    put, get = await bucket.url("PUT"), await bucket.url("GET")
    stop = asyncio.Event()

    async def read() -> int:
        seen = 0
        while not stop.is_set():
            status, headers, body = await bucket.send("GET", get)
            assert (status, body in bodies, headers["ETag"]) == (200, True, etag(body))
            seen += 1
        return seen

    readers = [asyncio.create_task(read()) for _ in range(3)]
    for number in range(40):
        assert (await bucket.send("PUT", put, bodies[number % 2]))[0] == 200
    stop.set()
    assert min(await asyncio.gather(*readers)) > 0


async def test_a_download_under_way_goes_on_with_the_old_bytes(bucket: Bucket, blobs: Path) -> None:
    old = b"o" * 20_000_000
    await bucket.put(old)
    url = URL(await bucket.url("GET"), encoded=True)
    async with nothing_left(blobs, more=-1), bucket.api.session.get(url) as answer:
        first = await answer.content.readexactly(10)
        assert (await bucket.put(b"new"))[0] == 200
        assert (await bucket.get())[2] == b"new"
        assert (await bucket.api.delete("/v1/storage/buckets/b/objects/k")).status == 200
        assert (await bucket.get())[0] == 404
        await asyncio.sleep(0.2)
        assert first + await answer.read() == old


async def test_a_slow_client_is_waited_for(bucket: Bucket) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        for byte in TEN:
            await asyncio.sleep(0.05)
            yield bytes([byte])

    assert (await bucket.put(slowly()))[0] == 200
    reader, writer = await _raw(await bucket.url("GET"), "GET", "Connection: close")
    received = b""
    while chunk := await reader.read(5):
        received += chunk
        await asyncio.sleep(0.001)
    writer.close()
    assert received.endswith(b"\r\n\r\n" + TEN)


async def test_who_is_silent_for_too_long_is_given_up(
    bucket: Bucket, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infrai_async.local.objects.streams._IDLE", 0.2)
    async with nothing_left(blobs):
        reader, writer = await _raw(await bucket.url("PUT"), "PUT", "Content-Length: 10")
        writer.write(b"01234")
        assert b" 408 " in await reader.readline()
        writer.close()


async def _raw(url: str, method: str, *lines: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    target = urlsplit(url)
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    head = f"{method} {target.path}?{target.query} HTTP/1.1", f"Host: {target.netloc}", *lines, "", ""
    writer.write("\r\n".join(head).encode())
    return reader, writer


@pytest.mark.parametrize(
    ("length", "body"),
    [
        ("Content-Length: 1000000", b"x" * 500_000),
        ("Content-Length: 10", b""),
        ("Transfer-Encoding: chunked", b"5\r\n01234\r\n"),
        ("Transfer-Encoding: chunked", b"5\r\n012"),
    ],
)
@pytest.mark.parametrize("abort", [True, False])
async def test_an_upload_that_breaks_off_leaves_the_old_object_and_nothing_else(
    bucket: Bucket, blobs: Path, caplog: pytest.LogCaptureFixture, length: str, body: bytes, abort: bool
) -> None:
    await bucket.put(b"old")
    async with nothing_left(blobs):
        caplog.set_level(logging.INFO)
        _, writer = await _raw(await bucket.url("PUT"), "PUT", length)
        writer.write(body)
        await writer.drain()
        await asyncio.sleep(0.2)
        if abort:
            writer.transport.abort()
        writer.close()
        await asyncio.sleep(0.2)
    assert (await bucket.get())[2] == b"old"
    assert not caplog.records, "a client's going away is nothing to log"


async def test_a_garbled_upload_is_400(bucket: Bucket, blobs: Path) -> None:
    async with nothing_left(blobs):
        reader, writer = await _raw(await bucket.url("PUT"), "PUT", "Transfer-Encoding: chunked")
        writer.write(b"5\r\n01234\r\nnonsense\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()


async def test_a_download_that_breaks_off_is_nobodys_failure(bucket: Bucket, caplog: pytest.LogCaptureFixture) -> None:
    await bucket.put(b"x" * 20_000_000)
    with caplog.at_level(logging.INFO):
        reader, writer = await _raw(await bucket.url("GET"), "GET")
        await reader.readexactly(1000)
        writer.transport.abort()
        await asyncio.sleep(0.3)
    assert not caplog.records
    assert len((await bucket.get())[2]) == 20_000_000


async def test_a_connection_serves_one_object_after_another(bucket: Bucket, gateway: LocalGateway) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        put, get = await bucket.url("PUT"), await bucket.url("GET")
        for number in range(20):
            async with session.put(URL(put, encoded=True), data=b"%d" % number * 1000) as answer:
                assert answer.status == 200
            async with session.get(URL(get, encoded=True)) as answer:
                assert await answer.read() == b"%d" % number * 1000


async def test_a_client_that_asks_first_is_told_to_go_on(bucket: Bucket) -> None:
    url = URL(await bucket.url("PUT"), encoded=True)
    async with bucket.api.session.put(url, data=TEN, expect100=True) as answer:
        assert answer.status == 200
    assert (await bucket.get())[2] == TEN


# --- deletion --------------------------------------------------------------------------------------------------------


async def test_a_deleted_object_is_gone_and_so_are_its_bytes(bucket: Bucket, blobs: Path) -> None:
    async with nothing_left(blobs):
        for path in ("buckets/b/objects/a%2Fb", "object/delete/b/a%2Fb"):
            await bucket.put(TEN, "a/b")
            get = await bucket.url("GET", "a/b")
            answer = await bucket.api.delete(f"/v1/storage/{path}", key=path)
            assert answer.data == {"ok": True}
            assert (await bucket.api.delete(f"/v1/storage/{path}", key=path)).data == {"ok": True}
            answer = await bucket.api.delete(f"/v1/storage/{path}")
            assert (answer.status, answer.code) == (404, "STORAGE_OBJECT_NOT_FOUND")
            status, _, body = await bucket.send("GET", get)
            assert (status, b"STORAGE_OBJECT_NOT_FOUND" in body) == (404, True)


async def test_bytes_that_somebody_took_away_are_told_from_a_missing_object(bucket: Bucket, blobs: Path) -> None:
    before = set(blobs.iterdir())
    await bucket.put(TEN)
    (blob,) = set(blobs.iterdir()) - before
    blob.unlink()
    assert (await bucket.get())[0] == 502
    assert (await bucket.put(b"again"))[0] == 200
    assert (await bucket.get())[2] == b"again"


async def test_a_truncated_blob_is_no_whole_answer(bucket: Bucket, blobs: Path) -> None:
    before = set(blobs.iterdir())
    await bucket.put(TEN)
    (blob,) = set(blobs.iterdir()) - before
    blob.write_bytes(TEN[:5])
    with pytest.raises(aiohttp.ClientError):
        await bucket.get()
    await bucket.put(TEN)


async def test_without_the_kernels_help_bytes_come_all_the_same(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on event loops that cannot send a file."""
    data = bytes(range(256)) * 4000
    await bucket.put(data)

    async def cannot(*_: Any, **__: Any) -> int:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "sendfile", cannot)
    assert (await bucket.get())[2] == data
    assert (await bucket.get(Range="bytes=100-600000"))[2] == data[100:600_001]


def test_an_upload_discarded_while_a_thread_writes_it_leaves_nothing(tmp_path: Path) -> None:
    for _ in range(200):
        upload = Upload(tmp_path)
        writing = threading.Thread(target=upload.write, args=(TEN,))
        writing.start()
        upload.discard()
        writing.join()
    assert list(tmp_path.iterdir()) == []


# --- across starts ---------------------------------------------------------------------------------------------------


async def test_a_start_sweeps_what_the_state_does_not_know_and_says_so(
    without_postgres: Any, ask_as: Any, caplog: pytest.LogCaptureFixture
) -> None:
    objects = without_postgres["data_dir"] / "objects"
    async with LocalGateway(**without_postgres) as gateway:
        mine = Bucket(ask_as(gateway))
        await mine.api.post("/v1/storage/buckets", {"bucket": "b"})
        await mine.put(TEN)
        get = await mine.url("GET")
    (kept,) = objects.iterdir()
    for name in ("0" * 32, f"{'1' * 32}.part", "readme.txt"):
        (objects / name).write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        async with LocalGateway(**without_postgres) as gateway:
            assert (await Bucket(ask_as(gateway)).send("GET", get))[2] == TEN
    assert {path.name for path in objects.iterdir()} == {kept.name, "readme.txt"}
    assert [record.getMessage() for record in caplog.records] == [
        "removed 1 unfinished uploads and 1 unreferenced blobs"
    ]


async def test_a_start_deletes_what_was_given_up(without_postgres: Any, ask_as: Any) -> None:
    import sqlite3

    objects = without_postgres["data_dir"] / "objects"
    async with LocalGateway(**without_postgres) as gateway:
        mine = Bucket(ask_as(gateway))
        await mine.api.post("/v1/storage/buckets", {"bucket": "b"})
        await mine.put(TEN)
    with closing(sqlite3.connect(without_postgres["data_dir"] / "state" / "state.db")) as database, database:
        database.execute("insert into doomed_blobs select blob from objects")
        database.execute("delete from objects")
    async with LocalGateway(**without_postgres):
        pass
    assert list(objects.iterdir()) == []


async def test_closing_finishes_an_upload_that_has_come_whole(without_postgres: Any, ask_as: Any) -> None:
    async with LocalGateway(**without_postgres) as gateway:
        mine = Bucket(ask_as(gateway))
        await mine.api.post("/v1/storage/buckets", {"bucket": "b"})
        puts = [asyncio.create_task(mine.put(TEN * 10_000, str(n))) for n in range(CROWD)]
        await asyncio.sleep(0.03)
    answers = await asyncio.gather(*puts, return_exceptions=True)
    async with LocalGateway(**without_postgres) as gateway:
        mine = Bucket(ask_as(gateway))
        for number, answer in enumerate(answers):
            if not isinstance(answer, BaseException) and answer[0] == 200:
                assert (await mine.get(str(number)))[2] == TEN * 10_000
    assert not list((without_postgres["data_dir"] / "objects").glob("*.part"))


async def test_closing_does_not_wait_for_ever_for_clients_that_stall(
    without_postgres: Any, ask_as: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("infrai_async.local._gateway._GRACE", 0.3)
    async with LocalGateway(**without_postgres) as gateway:
        mine = Bucket(ask_as(gateway))
        await mine.api.post("/v1/storage/buckets", {"bucket": "b"})
        await mine.put(b"x" * 20_000_000)
        reading = await _raw(await mine.url("GET"), "GET")
        writing = await _raw(await mine.url("PUT"), "PUT", "Content-Length: 10")
        writing[1].write(b"01234")
        await reading[0].readexactly(1000)
        async with asyncio.timeout(25):
            await gateway.aclose()
    for _, writer in (reading, writing):
        writer.close()
    assert [path.stat().st_size for path in (without_postgres["data_dir"] / "objects").iterdir()] == [20_000_000]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
