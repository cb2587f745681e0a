"""An S3-compatible store behind the gateway: a real server on loopback keeps the bytes and the buckets."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from botocore.session import get_session
from support.existing import s3_store
from yarl import URL

from infrai_async import AsyncInfrai
from infrai_async.local import LocalGateway
from infrai_async.local.objects.s3 import S3

pytestmark = pytest.mark.anyio
SECRET = "the-secret-of-the-store"


@pytest.fixture(scope="module")
async def endpoint(anyio_backend: str) -> AsyncIterator[str]:
    async with s3_store() as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSTORE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


@pytest.fixture
def store(endpoint: str) -> Iterator[Any]:
    """The store as its own client sees it."""
    client = get_session().create_client("s3", "us-east-1", endpoint_url=endpoint)
    yield client
    client.close()


def buckets_of(store: Any) -> set[str]:
    return {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}


async def test_buckets_and_bytes_are_in_the_store(
    without_postgres: Any, endpoint: str, store: Any, session: Any
) -> None:
    before = buckets_of(store)
    async with (
        LocalGateway(**without_postgres, s3_endpoint=endpoint + "/") as gateway,
        AsyncInfrai(gateway.api_key, base_url=gateway.base_url) as client,
    ):
        gateway.serve_generation("current")
        bucket = await client.storage.bucket.create(bucket="My Photos!")
        assert bucket.bucket == "My Photos!"
        assert [item.bucket async for item in client.storage.bucket.list()] == ["My Photos!"]
        assert (await client.storage.bucket.get("My Photos!")) == bucket
        (made,) = buckets_of(store) - before
        assert re.fullmatch(r"my-photos-[0-9a-f]{32}", made)
        for key in ("a b/c+d ä.txt", "plain"):
            upload = await client.storage.object.presign("My Photos!", key, content_type="text/x-mine")
            assert upload.url.startswith(f"{endpoint}/{made}/")
            assert upload.headers == {"Content-Type": "text/x-mine"}
            async with session.put(URL(upload.url, encoded=True), data=b"hello", headers=upload.headers) as answer:
                assert answer.status == 200
                assert answer.headers["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
            assert store.get_object(Bucket=made, Key=key)["Body"].read() == b"hello"
            download = await client.storage.object.presign(
                "My Photos!", key, method="GET", response_disposition="attachment"
            )
            async with session.get(URL(download.url, encoded=True)) as answer:
                assert (await answer.read(), answer.headers["Content-Type"]) == (b"hello", "text/x-mine")
                assert answer.headers["Content-Disposition"] == "attachment"
            await client.storage.object.delete("My Photos!", key)
        assert "Contents" not in store.list_objects_v2(Bucket=made)
    assert not list((without_postgres["data_dir"] / "objects").iterdir())


async def test_urls_are_those_that_botocore_makes(without_postgres: Any, endpoint: str, ask_as: Any) -> None:
    """The server of these tests checks no signature, so they are held against its maker's own."""
    from botocore.auth import S3SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    async with LocalGateway(**without_postgres, s3_endpoint=endpoint) as gateway:
        api = ask_as(gateway)
        await api.post("/v1/storage/buckets", {"bucket": "b"})
        made = (await api.post("/v1/storage/buckets/b/objects/a%2Fb%20c/presign", {"expires_seconds": 60})).data["url"]
    url = URL(made, encoded=True)
    request = AWSRequest("GET", made.partition("?")[0])
    theirs = S3SigV4QueryAuth(Credentials("AKIDSTORE", SECRET), "s3", "us-east-1", expires=60)
    request.context["timestamp"] = url.query["X-Amz-Date"]
    theirs._modify_request_before_signing(request)
    text = theirs.string_to_sign(request, theirs.canonical_request(request))
    assert url.query["X-Amz-Signature"] == theirs.signature(text, request)
    assert url.query["X-Amz-Expires"] == "60"


async def test_what_is_not_there_is_404_there_too(
    without_postgres: Any, endpoint: str, ask_as: Any, store: Any
) -> None:
    async with LocalGateway(**without_postgres, s3_endpoint=endpoint) as gateway:
        api = ask_as(gateway)
        await api.post("/v1/storage/buckets", {"bucket": "b"})
        answer = await api.delete("/v1/storage/buckets/b/objects/k")
        assert (answer.status, answer.code) == (404, "STORAGE_OBJECT_NOT_FOUND")
        answer = await api.delete("/v1/storage/buckets/c/objects/k")
        assert (answer.status, answer.code) == (404, "STORAGE_BUCKET_NOT_FOUND")
        answer = await api.post("/v1/storage/buckets/b/objects/k/presign", {"method": "PUT", "max_bytes": 5})
        assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")


async def test_accounts_and_gateways_do_not_share_buckets(
    without_postgres: Any, endpoint: str, store: Any, session: Any, tmp_path: Path
) -> None:
    before = buckets_of(store)
    for number in range(2):
        async with LocalGateway(tmp_path / str(number), postgres_bin=tmp_path, s3_endpoint=endpoint) as gateway:
            for _ in range(2):
                async with session.post(f"{gateway.base_url}/v1/activate", json={}) as answer:
                    key = (await answer.json())["data"]["primary_api_key"]
                async with AsyncInfrai(key, base_url=gateway.base_url) as client:
                    await client.storage.bucket.create(bucket="b")
    assert len(buckets_of(store) - before) == 4


@pytest.mark.parametrize("effect_done", [True, False])
async def test_a_bucket_that_was_being_made_is_finished_at_the_start(
    without_postgres: Any, endpoint: str, store: Any, ask_as: Any, effect_done: bool
) -> None:
    """The state is put back to where it stood after the first transaction; before or after the effect."""
    before = buckets_of(store)
    async with LocalGateway(**without_postgres, s3_endpoint=endpoint) as gateway:
        bucket = (await ask_as(gateway).post("/v1/storage/buckets", {"bucket": "b"}, key="k")).data
        balance = await ask_as(gateway).balance()
    (made,) = buckets_of(store) - before
    if not effect_done:
        store.delete_bucket(Bucket=made)
    with closing(sqlite3.connect(without_postgres["data_dir"] / "state" / "state.db")) as database, database:
        database.execute("update operations set state = 'running'")
        database.execute("update buckets set seq = null")
    async with LocalGateway(**without_postgres, s3_endpoint=endpoint) as gateway:
        api = ask_as(gateway)
        assert buckets_of(store) - before == {made}
        assert (await api.get("/v1/storage/buckets")).data["items"] == [bucket]
        assert (await api.post("/v1/storage/buckets", {"bucket": "b"}, key="k")).data == bucket
        assert await api.balance() == pytest.approx(balance - 0.00002, abs=0.00002)


async def test_a_delete_that_a_crash_cut_off_after_its_effect_is_done(
    without_postgres: Any, endpoint: str, ask_as: Any, session: Any
) -> None:
    path = "/v1/storage/buckets/b/objects/k"
    async with LocalGateway(**without_postgres, s3_endpoint=endpoint) as gateway:
        api = ask_as(gateway)
        await api.post("/v1/storage/buckets", {"bucket": "b"})
        upload = (await api.post(f"{path}/presign", {"method": "PUT"})).data
        async with session.put(URL(upload["url"], encoded=True), data=b"hello") as answer:
            assert answer.status == 200
        first = (await api.delete(path, key="k")).data
    with closing(sqlite3.connect(without_postgres["data_dir"] / "state" / "state.db")) as database, database:
        database.execute("update operations set state = 'running' where capability = 'storage.object.delete'")
    async with LocalGateway(**without_postgres, s3_endpoint=endpoint) as gateway:
        assert (await ask_as(gateway).delete(path, key="k")).data == first
        assert (await ask_as(gateway).delete(path)).status == 404


async def test_the_page_does_not_count_what_only_the_store_knows(
    without_postgres: Any, endpoint: str, ask_as: Any, session: Any
) -> None:
    async with LocalGateway(**without_postgres, s3_endpoint=endpoint) as gateway:
        await ask_as(gateway).post("/v1/storage/buckets", {"bucket": "pictures"})
        async with session.get(gateway.base_url) as answer:
            row = (await answer.text()).partition('<th scope="row">pictures</th>')[2].partition("</tr>")[0]
    assert row.count('<span class="quiet">&ndash;</span>') == 2
    assert "0 B" not in row


async def test_a_store_that_is_away_is_503_and_costs_nothing(without_postgres: Any, ask_as: Any) -> None:
    async with LocalGateway(**without_postgres, s3_endpoint="http://127.0.0.1:1") as gateway:
        api = ask_as(gateway)
        answer = await api.post("/v1/storage/buckets", {"bucket": "b"}, key="k")
        assert (answer.status, answer.code, answer.error["retryable"]) == (503, "VENDOR_UNAVAILABLE", True)
        assert SECRET not in answer.text
        assert (await api.get("/v1/storage/buckets")).data["items"] == []
        assert await api.balance() == 2 - 0.00001


async def test_a_store_that_refuses_is_502_with_its_code_and_nothing_else(without_postgres: Any, ask_as: Any) -> None:
    async def refuse(request: web.BaseRequest) -> web.Response:
        told = f"<Error><Code>AccessDenied</Code><Message>{SECRET}</Message></Error>"
        return web.Response(status=403, text=told, content_type="application/xml")

    runner = web.ServerRunner(web.Server(refuse))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        port = runner.addresses[0][1]
        async with LocalGateway(**without_postgres, s3_endpoint=f"http://127.0.0.1:{port}") as gateway:
            answer = await ask_as(gateway).post("/v1/storage/buckets", {"bucket": "b"})
            assert (answer.status, answer.code) == (502, "VENDOR_ERROR")
            assert "AccessDenied" in answer.error["message"]
            assert SECRET not in answer.text
            assert await ask_as(gateway).balance() == 2
    finally:
        await runner.cleanup()


async def test_a_store_of_another_region_is_asked_in_it(
    without_postgres: Any, endpoint: str, ask_as: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a/token=")
    async with LocalGateway(**without_postgres, s3_endpoint=endpoint) as gateway:
        api = ask_as(gateway)
        assert (await api.post("/v1/storage/buckets", {"bucket": "b"})).status == 200
        url = URL((await api.post("/v1/storage/buckets/b/objects/k/presign", {})).data["url"], encoded=True)
    assert "/eu-central-1/s3/" in url.query["X-Amz-Credential"]
    assert url.query["X-Amz-Security-Token"] == "a/token="


@pytest.mark.parametrize(
    "endpoint", ["", "127.0.0.1:9000", "ftp://host", "http://", "http://host:x", "http://host/?a", "http://[", "s3://b"]
)
def test_an_endpoint_is_an_address(endpoint: str) -> None:
    with pytest.raises(ValueError, match="s3_endpoint: not the address of a store"):
        LocalGateway(s3_endpoint=endpoint)


def test_credentials_come_from_the_environment_and_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="AWS_ACCESS_KEY_ID") as raised:
        LocalGateway(s3_endpoint=f"http://me:{SECRET}@127.0.0.1:9000")
    assert SECRET not in str(raised.value)
    assert SECRET not in repr(S3("http://127.0.0.1:9000").credentials)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ValueError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        LocalGateway(s3_endpoint="http://127.0.0.1:9000")


def test_without_aiobotocore_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'infrai-async\[s3\]'"):
        LocalGateway(s3_endpoint="http://127.0.0.1:9000")
