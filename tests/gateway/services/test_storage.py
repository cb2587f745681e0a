"""``storage``: buckets in both generations of routes, and well-shaped presigned answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from infrai_async.local import LocalGateway

pytestmark = pytest.mark.anyio
PRESIGN = ("/v1/storage/buckets/b/objects/{}/presign", "/v1/storage/object/presign/b/{}")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/storage/buckets", {"bucket": "b"}),
        ("/v1/storage/buckets", {"name": "b"}),
        ("/v1/storage/bucket/create", {"name": "b"}),
        ("/v1/storage/bucket/create", {"bucket": "b", "name": "b"}),
    ],
)
async def test_a_bucket_has_both_its_names_in_every_generation(api: Any, path: str, body: Any) -> None:
    made = (await api.post(path, body | {"acl": "public", "vendor": "R2", "region": "eu"})).data
    assert made == {
        "bucket": "b",
        "name": "b",
        "acl": "public",
        "vendor": "R2",
        "region": "eu",
        "created_at": made["created_at"],
    }
    for listing in ("/v1/storage/buckets", "/v1/storage/bucket/list"):
        assert (await api.get(listing)).data == {"items": [made]}


async def test_a_buckets_name_is_unique_within_its_account(api: Any, other: Any) -> None:
    assert (await api.post("/v1/storage/buckets", {"bucket": "b"})).data["acl"] == "private"
    answer = await api.post("/v1/storage/bucket/create", {"name": "b"})
    assert (answer.status, answer.code) == (409, "STORAGE_BUCKET_EXISTS")
    assert (await other.post("/v1/storage/buckets", {"bucket": "b"})).status == 200


@pytest.mark.parametrize("path", PRESIGN)
@pytest.mark.parametrize(
    ("body", "verb"),
    [({}, "GET"), ({"op": "put"}, "PUT"), ({"method": "PUT"}, "PUT"), ({"op": "get", "method": "Get"}, "GET")],
)
async def test_a_presigned_url_is_for_one_verb_until_a_time(api: Any, path: str, body: Any, verb: str) -> None:
    await api.post("/v1/storage/buckets", {"bucket": "b"})
    before = datetime.now(UTC)
    made = (await api.post(path.format("a%2Fb%20c"), body | {"expires_seconds": 60})).data
    url = urlsplit(made["url"])
    assert (made["method"], made["headers"], unquote(url.path).endswith("/a/b c")) == (verb, {}, True)
    expires = datetime.fromisoformat(made["expires_at"]) - before
    assert timedelta(seconds=59) < expires < timedelta(seconds=90)


async def test_a_content_type_comes_back_among_the_headers(api: Any) -> None:
    await api.post("/v1/storage/buckets", {"bucket": "b"})
    made = await api.post(PRESIGN[1].format("k"), {"op": "put", "content_type": "text/plain"})
    assert made.data["headers"] == {"Content-Type": "text/plain"}


@pytest.mark.parametrize("path", PRESIGN)
@pytest.mark.parametrize(
    ("method", "name", "value"), [("GET", "max_bytes", 0), ("PUT", "response_disposition", "inline")]
)
async def test_what_has_no_effect_on_this_kind_of_url_is_refused_by_name(
    api: Any, path: str, method: str, name: str, value: Any
) -> None:
    await api.post("/v1/storage/buckets", {"bucket": "b"})
    answer = await api.post(path.format("k"), {"method": method, name: value})
    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")
    assert name in answer.document["error"]["message"]
    assert (await api.post(path.format("k"), {"method": method, name: None})).status == 200


@pytest.mark.parametrize("path", PRESIGN)
async def test_presigning_in_a_bucket_that_is_not_there_is_404(api: Any, other: Any, path: str) -> None:
    await other.post("/v1/storage/buckets", {"bucket": "b"})
    answer = await api.post(path.format("k"), {})
    assert (answer.status, answer.code) == (404, "STORAGE_BUCKET_NOT_FOUND")


@pytest.mark.parametrize(
    "body",
    [
        {"op": "delete"},
        {"op": "get", "method": "PUT"},
        {"expires_seconds": 0},
        {"expires_seconds": 604_801},
        {"key": "other"},
        {"max_bytes": 1.5},
    ],
)
async def test_what_cannot_be_presigned_is_400(api: Any, body: Any) -> None:
    await api.post("/v1/storage/buckets", {"bucket": "b"})
    assert (await api.post(PRESIGN[0].format("k"), body)).code == "VALIDATION_ERROR"


@pytest.mark.parametrize("key", ["a%00b", "x" * 1025, "%C3%A9" * 513])
async def test_keys_have_up_to_1024_bytes_without_nul(api: Any, key: str) -> None:
    await api.post("/v1/storage/buckets", {"bucket": "b"})
    assert (await api.post(PRESIGN[0].format(key), {})).code == "VALIDATION_ERROR"


async def test_deleting_an_object_that_is_not_there_is_404(api: Any) -> None:
    answer = await api.delete("/v1/storage/buckets/b/objects/k")
    assert (answer.status, answer.code) == (404, "STORAGE_BUCKET_NOT_FOUND")
    await api.post("/v1/storage/buckets", {"bucket": "b"})
    for path in ("/v1/storage/buckets/b/objects/a/b", "/v1/storage/object/delete/b/a/b"):
        answer = await api.delete(path)
        assert (answer.status, answer.code) == (404, "STORAGE_OBJECT_NOT_FOUND")


@pytest.mark.parametrize(("served", "path", "other_path"), [("seed", 0, 1), ("current", 1, 0)])
async def test_a_gateway_can_serve_one_generation_alone(
    without_postgres: Any, ask_as: Any, served: Any, path: int, other_path: int
) -> None:
    creates = ("/v1/storage/buckets", "/v1/storage/bucket/create")
    async with LocalGateway(**without_postgres) as gateway:
        gateway.serve_generation(served)
        api = ask_as(gateway)
        gone = await api.post(creates[other_path], {"bucket": "b", "name": "b"}, key="k")
        assert (gone.status, gone.code) == (404, "NOT_FOUND")
        made = await api.post(creates[path], {"bucket": "b", "name": "b"}, key="k")
        assert (made.status, made.cost) == (200, 0.0001)
        gateway.serve_generation(None)
        assert (await api.post(creates[other_path], {"bucket": "b"}, key="k")).data == made.data


async def test_a_bucket_is_got_and_deleted_by_its_name(api: Any, other: Any) -> None:
    made = (await api.post("/v1/storage/bucket/create", {"name": "a/b ü"})).data
    path = "a%2Fb%20%C3%BC"
    assert (await api.get(f"/v1/storage/bucket/get/{path}")).data == made
    assert (await other.get(f"/v1/storage/bucket/get/{path}")).code == "STORAGE_BUCKET_NOT_FOUND"
    assert (await other.delete(f"/v1/storage/bucket/delete/{path}")).code == "STORAGE_BUCKET_NOT_FOUND"
    deleted = await api.delete(f"/v1/storage/bucket/delete/{path}", key="once")
    assert (deleted.data, deleted.cost) == ({"ok": True}, 0)
    assert (await api.get(f"/v1/storage/bucket/get/{path}")).status == 404
    assert (await api.delete(f"/v1/storage/bucket/delete/{path}", key="once")).data == {"ok": True}
    assert (await api.delete(f"/v1/storage/bucket/delete/{path}")).code == "STORAGE_BUCKET_NOT_FOUND"
    assert (await api.post("/v1/storage/bucket/create", {"name": "a/b ü"})).status == 200


async def test_a_bucket_that_holds_objects_stays(api: Any, session: Any) -> None:
    await api.post("/v1/storage/bucket/create", {"name": "b"})
    url = (await api.post(PRESIGN[1].format("k"), {"op": "put"})).data["url"]
    async with session.put(url, data=b"bytes") as answer:
        assert answer.status == 200
    refused = await api.delete("/v1/storage/bucket/delete/b")
    assert (refused.status, refused.code) == (409, "STORAGE_BUCKET_NOT_EMPTY")
    assert (await api.delete("/v1/storage/object/delete/b/k")).data == {"ok": True}
    assert (await api.delete("/v1/storage/bucket/delete/b")).data == {"ok": True}
    async with session.put(url, data=b"bytes") as answer:  # nothing is put into a bucket that is gone
        assert answer.status == 404
