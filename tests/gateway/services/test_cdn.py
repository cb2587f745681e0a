"""``cdn``: distributions, purges and figures."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from infrai_async.local import LocalGateway

pytestmark = pytest.mark.anyio


async def create(api: Any, **fields: Any) -> Any:
    return (await api.post("/v1/cdn/distribution/create", {"origin": "http://127.0.0.1:9"} | fields)).data


async def test_a_distribution_says_all_that_is_known_of_it(api: Any) -> None:
    made = await create(api)
    id = made["distribution_id"]
    assert made == {
        "distribution_id": id,
        "origin": "http://127.0.0.1:9",
        "domain": None,
        "enabled": True,
        "status": "deployed",
        "cache_ttl_seconds": 3600,
        "allowed_methods": ["GET", "HEAD"],
        "https_only": False,
        "tags": [],
        "vendor": "local",
        "edge_url": f"{api.base_url}/edge/{id}",
        "edge_hostname": id.replace("_", "-") + ".edge.localhost",
        "created_at": made["created_at"],
    }
    assert (await api.get(f"/v1/cdn/distribution/get/{id}")).data == made
    assert (await api.get("/v1/cdn/distribution/list")).data["items"] == [made]


async def test_an_update_changes_what_is_given(api: Any) -> None:
    made = await create(api, domain="cdn.example", tags=["a"])
    path = f"/v1/cdn/distribution/update/{made['distribution_id']}"
    changes = {"enabled": False, "cache_ttl_seconds": 60.0, "https_only": True, "allowed_methods": ["GET"]}
    changed = (await api.ask("PATCH", path, changes)).data
    assert changed == made | changes | {"status": "disabled"}
    assert isinstance(changed["cache_ttl_seconds"], int)
    assert (await api.ask("PATCH", path, {"origin": "...", "domain": None})).data == changed | {"origin": "..."}
    assert (await api.ask("PATCH", path)).data == changed | {"origin": "..."}


async def test_what_is_not_there_is_404_for_every_call(api: Any, other: Any) -> None:
    id = (await create(other))["distribution_id"]
    for method, path, body in (
        ("GET", f"distribution/get/{id}", None),
        ("PATCH", f"distribution/update/{id}", {}),
        ("DELETE", f"distribution/delete/{id}", None),
        ("POST", "cache/purge", {"distribution_id": id, "purge_everything": True}),
        ("GET", f"cache/stats?distribution_id={id}", None),
    ):
        answer = await api.ask(method, f"/v1/cdn/{path}", body)
        assert (answer.status, answer.code) == (404, "CDN_DISTRIBUTION_NOT_FOUND")


async def test_a_deleted_distribution_is_gone(api: Any) -> None:
    path = f"/v1/cdn/distribution/delete/{(await create(api))['distribution_id']}"
    assert (await api.delete(path)).data == {"ok": True}
    assert (await api.delete(path)).status == 404
    assert (await api.get("/v1/cdn/distribution/list")).data["items"] == []


async def test_each_purge_has_an_id_of_its_own_also_without_a_selector(api: Any) -> None:
    id = (await create(api))["distribution_id"]
    purges = [(await api.post("/v1/cdn/cache/purge", {"distribution_id": id})).data for _ in range(2)]
    assert [purge["ok"] for purge in purges] == [True, True]
    assert purges[0]["purge_id"] != purges[1]["purge_id"]


async def test_figures_are_summed_from_what_was_counted(without_postgres: Any, ask_as: Any) -> None:
    async with LocalGateway(**without_postgres) as gateway:
        api = ask_as(gateway)
        first, second = [(await create(api))["distribution_id"] for _ in range(2)]
        counted = [(first, 0, 3, 1, 40), (first, 60, 1, 0, 10), (second, 60, 0, 5, 50)]
        with closing(sqlite3.connect(without_postgres["data_dir"] / "state" / "state.db")) as database, database:
            database.executemany("insert into traffic values (?, ?, ?, ?, ?)", counted)

        async def stats(query: str) -> Any:
            return (await api.get(f"/v1/cdn/cache/stats?{query}")).data

        assert await stats("") == {"requests": 10, "bytes_served": 100, "hit_ratio": 0.4, "hits": 4, "misses": 6}
        assert (await stats(f"distribution_id={first}"))["requests"] == 5
        assert (await stats("from=1970-01-01T01:00:00Z"))["requests"] == 6
        assert (await stats(f"distribution_id={first}&to=1970-01-01T01:00:00"))["hits"] == 3
        assert (await stats("from=1970-01-01T01:00:59Z&to=1970-01-01T01:00:59.5Z"))["requests"] == 6, "whole minutes"
        assert await stats("from=2030-01-01") == {
            "requests": 0,
            "bytes_served": 0,
            "hit_ratio": 0.0,
            "hits": 0,
            "misses": 0,
        }


@pytest.mark.parametrize("query", ["from=yesterday", "to=99999-01-01", "from=5"])
async def test_times_that_are_none_are_400(api: Any, query: str) -> None:
    assert (await api.get(f"/v1/cdn/cache/stats?{query}")).code == "VALIDATION_ERROR"
