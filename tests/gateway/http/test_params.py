"""Paths and parameters: read from the raw request, by the row, strictly."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from infrai_async.capabilities import CAPABILITIES
from infrai_async.local._errors import RequestRefused
from infrai_async.local.http.router import Router

pytestmark = pytest.mark.anyio
ROUTER = Router(CAPABILITIES.values())


@pytest.mark.parametrize("row", CAPABILITIES.values(), ids=lambda row: row.id)
def test_every_route_of_the_table_leads_to_its_row(row: Any) -> None:
    for route in row.routes:
        path = route.path.replace("{", "%7B").replace("}", "%7D")
        match = ROUTER.match(row.method, path)
        assert match.capability is row
        assert match.route is route
        assert all(value == "{" + name + "}" for name, value in match.values.items())


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ("a", "a"),
        ("a%2Fb", "a/b"),
        ("a/b", "a/b"),
        ("a//b", "a//b"),
        ("/a", "/a"),
        ("a/../b", "a/../b"),
        ("%2E%2E", ".."),
        ("./.", "./."),
        ("%252F", "%2F"),
        ("a+b", "a+b"),
        ("%C3%A9", "é"),
        ("é", "é"),
        ("a/presign", "a/presign"),
        ("%0A", "\n"),
    ],
)
def test_object_keys_are_decoded_once_and_never_tidied(raw: str, key: str) -> None:
    seed = ROUTER.match("POST", f"/v1/storage/buckets/b%20c/objects/{raw}/presign")
    assert seed.values == {"bucket": "b c", "key": key}
    current = ROUTER.match("DELETE", f"/v1/storage/object/delete/b/{raw}")
    assert current.values == {"bucket": "b", "key": key}


@pytest.mark.parametrize("raw", ["%", "%2", "%GG", "%FF", "%C3", "a%ED%A0%80", "\udcff"])
def test_broken_escapes_and_what_is_no_utf8_are_400(raw: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        ROUTER.match("GET", f"/v1/flags/get/{raw}")
    assert (caught.value.status, caught.value.code) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "path", ["/v1/flags/get/", "/v1/flags/get", "/v1//flags/list", "/v1/flags/list/", "/v1/x/../discovery"]
)
def test_paths_are_not_tidied_into_others(path: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        ROUTER.match("GET", path)
    assert caught.value.code == "NOT_FOUND"


@pytest.mark.parametrize("generation", [0, 1])
def test_one_generation_of_routes_can_be_served_alone(generation: int) -> None:
    router = Router(CAPABILITIES.values(), generation)
    create = CAPABILITIES["storage.bucket.create"]
    assert router.match("POST", create.routes[generation].path).capability is create
    assert router.match("GET", "/v1/flags/list").capability.id == "flags.list"
    with pytest.raises(RequestRefused) as caught:
        router.match("POST", create.routes[1 - generation].path)
    assert caught.value.code == "NOT_FOUND"


async def test_the_raw_path_reaches_the_router_over_http(api: Any) -> None:
    for key in ("a/b", "a//b/../c", "50%", "ключ", "a b+c"):
        await api.post("/v1/flags/set", {"key": key})
        assert (await api.get(f"/v1/flags/get/{quote(key, safe='')}")).data["key"] == key
    assert (await api.get("/v1/flags/get/a//b/../c")).data["key"] == "a//b/../c"
    assert (await api.get("/v1/flags/get/%FF")).code == "VALIDATION_ERROR"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/db/project/create", {}, "name"),
        ("/v1/db/project/create", {"name": None}, "name"),
        ("/v1/db/project/create", {"name": 5}, "name"),
        ("/v1/db/project/create", {"name": ""}, "name"),
        ("/v1/db/project/create", {"name": "a\0b"}, "name"),
        ("/v1/db/project/create", {"name": "x" * 256}, "name"),
        ("/v1/db/project/create", {"name": "a", "mode": "other"}, "mode"),
        ("/v1/db/branch/create", {"project_id": "p"}, "branch_name"),
        ("/v1/storage/buckets", {"bucket": "a", "name": "b"}, "bucket"),
        ("/v1/storage/buckets", {"vendor": "x"}, "bucket"),
        ("/v1/storage/bucket/create", {"name": "a", "acl": "secret"}, "acl"),
        ("/v1/cdn/distribution/create", {"origin": "o", "tags": "x"}, "tags"),
        ("/v1/cdn/distribution/create", {"origin": "o", "enabled": "true"}, "enabled"),
        ("/v1/cdn/distribution/create", {"origin": "o", "enabled": 1}, "enabled"),
        ("/v1/cdn/distribution/create", {"origin": "o", "cache_ttl_seconds": -1}, "cache_ttl_seconds"),
        ("/v1/cdn/distribution/create", {"origin": "o", "cache_ttl_seconds": 1.5}, "cache_ttl_seconds"),
        ("/v1/cdn/distribution/create", {"origin": "o", "cache_ttl_seconds": 10**400}, "cache_ttl_seconds"),
        ("/v1/flags/set", {"key": "k", "rules": [1]}, "rules"),
        ("/v1/flags/set", {"key": "k", "tags": {"a": 1}}, "tags"),
        ("/v1/flags/set", {"key": "k", "version": 2**63}, "version"),
        ("/v1/flags/set", {"key": "k", "version": True}, "version"),
        ("/v1/flags/set", {"key": "k", "type": "bool", "default_value": "on"}, "default_value"),
        ("/v1/flags/set", {"key": "k", "type": "number", "default_value": True}, "default_value"),
        ("/v1/flags/toggle/k", {"enabled": True}, "version"),
        ("/v1/flags/toggle/k", {"enabled": True, "version": 1, "key": "other"}, "key"),
        ("/v1/flags/rollout/k", {"percentage": 101, "salt": "s", "sticky_unit": "user_id", "version": 1}, "percentage"),
        ("/v1/flags/rollout/k", {"percentage": 10, "salt": "s", "sticky_unit": "user", "version": 1}, "sticky_unit"),
        ("/v1/db/snapshot/restore/s", {"snapshot_id": "other"}, "snapshot_id"),
        ("/v1/account/topup", {"amount": 5, "amount_usd": 6}, "amount_usd"),
        ("/v1/account/topup", {"amount": 0}, "amount_usd"),
        ("/v1/account/topup", {"amount": 0.0100000000001}, "amount_usd"),
        ("/v1/account/topup", {"amount": 5, "currency": "EUR"}, "currency"),
        ("/v1/activate", {"region": "mars"}, "region"),
    ],
)
async def test_wrong_input_is_400_names_the_field_and_costs_nothing(api: Any, path: str, body: Any, field: str) -> None:
    answer = await api.post(path, body, key="k")
    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR"), answer.text
    assert field in answer.error["details"]["fields"]
    assert await api.balance() == 2


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=ten",
        "limit=1.5",
        "limit=-1",
        "limit=99999999999999999999",
        "cursor=x",
        "cursor=%FF",
    ],
)
async def test_wrong_queries_are_400(api: Any, query: str) -> None:
    assert (await api.get(f"/v1/flags/list?{query}")).code == "VALIDATION_ERROR"


@pytest.mark.parametrize("query", ["", "?", "?limit=1000&cursor=", "?unknown=1", "?include_archived=0", "?limit=1&x%"])
async def test_what_is_not_in_the_table_is_ignored(api: Any, query: str) -> None:
    assert (await api.get(f"/v1/flags/list{query}")).status == 200
    assert (await api.post("/v1/flags/set", {"key": "k", "surprise": {"a": 1}})).status == 200


async def test_names_are_kept_exactly(api: Any) -> None:
    for name in ("x" * 255, " spaced ", "名前", "a/b", "'; drop table projects; --", "\n", "..", "💾"):
        made = await api.post("/v1/storage/buckets", {"bucket": name})
        assert made.data["bucket"] == name
    listed = (await api.get("/v1/storage/buckets")).data["items"]
    assert [item["name"] for item in listed][1:3] == [" spaced ", "名前"]


@pytest.mark.parametrize(("depth", "status"), [(90, 200), (101, 400), (600, 400), (900, 400), (100_000, 400)])
async def test_a_body_that_is_nested_too_deeply_is_refused_with_a_key_and_without(
    api: Any, depth: int, status: int
) -> None:
    raw = b'{"key": "deep", "type": "json", "default_value": %s1%s}' % (b"[" * (depth - 1), b"]" * (depth - 1))
    for key in (None, f"key-{depth}"):
        assert (await api.post("/v1/flags/set", raw=raw, key=key)).status == status
