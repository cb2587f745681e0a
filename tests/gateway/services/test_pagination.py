"""Pages of lists: complete and without repetition while rows come and go."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


async def pages(api: Any, path: str, limit: int) -> list[list[Any]]:
    found, cursor = [], ""
    while True:
        page = (await api.get(f"{path}?limit={limit}&cursor={cursor}")).data
        found.append(page["items"])
        if not page["next_cursor"]:
            return found
        cursor = page["next_cursor"]


async def fill(api: Any, count: int) -> None:
    for number in range(count):
        await api.post("/v1/flags/set", {"key": f"f{number:02}"})


async def test_pages_hold_everything_once_the_oldest_first(api: Any) -> None:
    await fill(api, 7)
    for limit, sizes in ((3, [3, 3, 1]), (7, [7]), (1000, [7]), (1, [1] * 7)):
        found = await pages(api, "/v1/flags/list", limit)
        assert [len(page) for page in found] == sizes
        assert [flag["key"] for page in found for flag in page] == [f"f{n:02}" for n in range(7)]


async def test_without_a_limit_a_page_has_a_hundred_items(api: Any) -> None:
    await asyncio.gather(*(api.post("/v1/flags/set", {"key": f"f{number}"}) for number in range(101)))
    page = (await api.get("/v1/flags/list")).data
    assert len(page["items"]) == 100
    assert page["next_cursor"]


async def test_an_empty_list_is_one_empty_page(api: Any) -> None:
    for path in ("db/project", "db/branch", "db/snapshot", "cdn/distribution", "flags"):
        assert (await api.get(f"/v1/{path}/list")).data == {"items": [], "next_cursor": None}
    assert (await api.get("/v1/storage/buckets")).data == {"items": []}


async def test_a_cursor_stays_true_while_rows_come_and_go(api: Any) -> None:
    await fill(api, 6)
    first = (await api.get("/v1/flags/list?limit=3")).data
    for key in ("f00", "f02", "f04"):  # one behind, the one that the cursor stands on, one ahead
        await api.delete(f"/v1/flags/delete/{key}")
    await api.post("/v1/flags/set", {"key": "new"})
    rest = (await api.get(f"/v1/flags/list?limit=100&cursor={first['next_cursor']}")).data
    assert [flag["key"] for flag in rest["items"]] == ["f03", "f05", "new"]


async def test_a_name_that_comes_again_is_a_newer_row(api: Any) -> None:
    await fill(api, 2)
    first = (await api.get("/v1/flags/list?limit=1")).data
    await api.delete("/v1/flags/delete/f01")
    await api.post("/v1/flags/set", {"key": "f01"})
    rest = (await api.get(f"/v1/flags/list?cursor={first['next_cursor']}")).data
    assert [flag["key"] for flag in rest["items"]] == ["f01"]


async def test_what_comes_later_is_listed_later(api: Any) -> None:
    """A project's place in the list is that of its being there, so no cursor ever passes one by."""
    making = asyncio.gather(*(api.project(f"p{number}") for number in range(12)))
    before: list[str] = []
    while len(before) < 12:
        now = [item["id"] for item in (await api.get("/v1/db/project/list")).data["items"]]
        assert now[: len(before)] == before
        before = now
    assert {project["id"] for project in await making} == set(before)


@pytest.mark.parametrize("cursor", ["x", "====", "%00", "ZmxhZ3MubGlzdDp4", "ZmxhZ3MubGlzdDotMQ", "%C3%A9", "a" * 5000])
async def test_a_malformed_cursor_is_400(api: Any, cursor: str) -> None:
    assert (await api.get(f"/v1/flags/list?cursor={cursor}")).code == "VALIDATION_ERROR"


async def test_a_cursor_of_another_list_is_400(api: Any) -> None:
    await fill(api, 2)
    cursor = (await api.get("/v1/flags/list?limit=1")).data["next_cursor"]
    assert base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).startswith(b"flags.list:")
    assert (await api.get(f"/v1/cdn/distribution/list?cursor={cursor}")).code == "VALIDATION_ERROR"


async def test_branches_can_be_listed_for_one_project_or_all(api: Any) -> None:
    projects = [await api.project(name) for name in "ab"]
    for project in projects:
        await api.post("/v1/db/branch/create", {"project_id": project["id"], "branch_name": f"of {project['name']}"})
    of_one = (await api.get(f"/v1/db/branch/list?project_id={projects[1]['id']}")).data["items"]
    assert [branch["branch_name"] for branch in of_one] == ["of b"]
    everything = (await api.get("/v1/db/branch/list")).data["items"]
    assert [branch["branch_name"] for branch in everything] == ["of a", "of b"]
