"""Lists over real HTTP: every page, every item, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from support.oracle import SMALL, Oracle, Reply, Seen, answer
from support.patience import complaints

from infrai_async import AsyncInfrai, InvalidArgument, PaginationError, Project

pytestmark = pytest.mark.anyio


def project(number: int) -> dict[str, str]:
    return {**SMALL, "id": f"p{number}", "name": f"n{number}"}


def listing(total: int, size: int = 10) -> Callable[[Seen], Reply]:
    """Serve ``total`` projects in pages of ``size``; the cursor is the number of the first item."""

    def reply(seen: Seen) -> Reply:
        start = int(seen.query.get("cursor", "0"))
        stop = min(start + size, total)
        data: dict[str, object] = {"items": [project(n) for n in range(start, stop)]}
        if stop < total:
            data["next_cursor"] = str(stop)
        return answer(data)

    return reply


def scripted(pages: dict[str | None, tuple[list[int], str | None]]) -> Callable[[Seen], Reply]:
    def reply(seen: Seen) -> Reply:
        items, following = pages[seen.query.get("cursor")]
        return answer({"items": [project(n) for n in items], "next_cursor": following})

    return reply


@pytest.mark.parametrize(("total", "pages"), [(0, 1), (1, 1), (10, 1), (11, 2), (250, 25)])
async def test_every_item_comes_once_and_in_order(total: int, pages: int) -> None:
    with Oracle(listing(total)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            names = [item.name async for item in client.db.project.list()]
    assert names == [f"n{n}" for n in range(total)]
    assert len(oracle.seen) == pages


async def test_nothing_is_sent_until_the_cursor_is_read() -> None:
    with Oracle(listing(5)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            cursor = client.db.project.list(limit=2)
            assert oracle.seen == []
            await cursor.page()
    assert len(oracle.seen) == 1
    assert oracle.seen[0].query == {"limit": "2"}


async def test_pages_carry_their_items_their_next_cursor_and_their_metadata() -> None:
    with Oracle(listing(25)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            pages = [page async for page in client.db.project.list().pages()]
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [page.next_cursor for page in pages] == ["10", "20", None]
    assert {page.metadata.request_id for page in pages} == {"r-1"}
    assert pages[1].items[3].metadata is pages[1].metadata


async def test_page_gives_one_page_after_the_other_and_empty_ones_at_the_end() -> None:
    with Oracle(listing(15)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            cursor = client.db.project.list()
            sizes = [len(await cursor.page()) for _ in range(4)]
    assert sizes == [10, 5, 0, 0]
    assert len(oracle.seen) == 2


@pytest.mark.parametrize("taken", [0, 3, 10, 13, 20, 25])
async def test_a_listing_left_early_resumes_without_losing_anything(taken: int) -> None:
    with Oracle(listing(25)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            cursor = client.db.project.list()
            first = await cursor.collect(max_items=taken)
            resumed = (
                [item.id async for item in client.db.project.list(cursor=cursor.next_cursor)] if taken < 25 else []
            )
    got = [item.id for item in first] + resumed
    assert set(got) == {f"p{n}" for n in range(25)}
    if taken % 10 == 0 or taken == 25:
        assert len(got) == 25  # at a page's end nothing comes twice either


async def test_a_listing_goes_on_from_next_cursor_in_another_process() -> None:
    program = """
import asyncio, sys
from infrai_async import AsyncInfrai
async def main():
    async with AsyncInfrai("k", base_url=sys.argv[1]) as client:
        print(*[item.id async for item in client.db.project.list(cursor=sys.argv[2])])
asyncio.run(main())
"""
    with Oracle(listing(25)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            cursor = client.db.project.list()
            here = [item.id for item in (await cursor.page()).items]
            assert cursor.next_cursor == "10"
            command = [sys.executable, "-W", "error", "-c", program, oracle.url, cursor.next_cursor]
            there = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert complaints(there.stderr) == ""
    assert here + there.stdout.split() == [f"p{n}" for n in range(25)]


async def test_a_loop_over_items_goes_on_where_an_earlier_one_stopped() -> None:
    with Oracle(listing(12)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            cursor = client.db.project.list()
            async for item in cursor:
                if item.id == "p3":
                    break
            rest = await cursor.page()
            last = [item.id async for item in cursor]
    assert [item.id for item in rest] == [f"p{n}" for n in range(4, 10)]
    assert last == ["p10", "p11"]


@pytest.mark.parametrize("period", [1, 2, 3, 7])
async def test_a_cursor_that_comes_back_after_any_period_is_an_error(period: int) -> None:
    names = [f"c{n}" for n in range(period)]
    pages: dict[str | None, tuple[list[int], str | None]] = {None: ([0], names[0])}
    for n, name in enumerate(names):
        pages[name] = ([n + 1], names[(n + 1) % period])
    with Oracle(scripted(pages)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            got: list[Project] = []
            with pytest.raises(PaginationError, match=r"db\.project\.list: the service returned the same cursor twice"):
                async for item in client.db.project.list():
                    got.append(item)
    assert [item.id for item in got] == [f"p{n}" for n in range(period + 1)]
    assert len(oracle.seen) == period + 1


async def test_a_cursor_that_answers_itself_is_an_error_also_when_it_was_given() -> None:
    with Oracle(scripted({"a": ([1], "a")})) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            with pytest.raises(PaginationError):
                await client.db.project.list(cursor="a").collect()
    assert len(oracle.seen) == 1


async def test_an_empty_page_in_the_middle_does_not_end_the_listing() -> None:
    pages: dict[str | None, tuple[list[int], str | None]] = {
        None: ([0], "a"),
        "a": ([], "b"),
        "b": ([], "c"),
        "c": ([1], ""),
    }
    with Oracle(scripted(pages)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            assert [item.id async for item in client.db.project.list()] == ["p0", "p1"]
            assert [len(page) async for page in client.db.project.list().pages()] == [1, 0, 0, 1]


async def test_a_break_in_the_middle_leaves_no_task_and_no_connection_in_use() -> None:
    with Oracle(listing(1000)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            before = asyncio.all_tasks()
            async for item in client.db.project.list():
                if item.id == "p13":
                    break
            assert asyncio.all_tasks() <= before
            assert client.stats.in_flight == 0
            await client.db.project.list().page()
            assert client.stats.connections_opened == 1  # the one that was used came back to the pool
    assert len(oracle.seen) == 3
    assert oracle.open_now == 0


async def test_max_items_bounds_the_whole_listing_and_fetches_no_page_too_many() -> None:
    with Oracle(listing(100)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            cursor = client.db.project.list(max_items=20)
            assert len(await cursor.collect()) == 20
            assert cursor.next_cursor == "20"
            cut = client.db.project.list(max_items=13)
            assert [len(page) async for page in cut.pages()] == [10, 3]
            assert cut.next_cursor == "10"  # the seven that were cut off are still to come
            assert await client.db.project.list(max_items=0).collect() == []
    assert len(oracle.seen) == 4


async def test_two_readers_of_one_cursor_are_told_apart() -> None:
    def reply(seen: Seen) -> Reply:
        return answer({"items": [], "next_cursor": None}, delay=0.2)

    with Oracle(reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            cursor = client.db.project.list()
            results = await asyncio.gather(cursor.page(), cursor.page(), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["Page", "RuntimeError"]


async def test_a_cursor_survives_a_page_that_fails() -> None:
    fail = {"next": True}

    def reply(seen: Seen) -> Reply:
        if seen.query.get("cursor") == "10" and fail.pop("next", False):
            return Reply(status=400, body=b"{}")
        return listing(25)(seen)

    with Oracle(reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            cursor = client.db.project.list()
            assert len(await cursor.page()) == 10
            with pytest.raises(Exception, match="400"):
                await cursor.page()
            assert [item.id for item in await cursor.collect()] == [f"p{n}" for n in range(10, 25)]


async def test_records_are_plain_dicts() -> None:
    with Oracle(listing(2)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            records = await client.db.project.list().to_records(secrets=True)
            masked = await client.db.project.list().to_records()
    assert json.loads(json.dumps(records)) == [project(0), project(1)]
    assert [record["connection_uri"] for record in masked] == ["postgresql://u:***@127.0.0.1:5432/d"] * 2


@pytest.mark.parametrize(
    "arguments", [{"limit": "5"}, {"limit": 1.5}, {"limit": True}, {"cursor": 5}, {"max_items": -1}]
)
def test_wrong_arguments_are_refused_when_the_list_is_made(arguments: dict[str, object]) -> None:
    client = AsyncInfrai("k", base_url="http://127.0.0.1:9")
    with pytest.raises(InvalidArgument, match=next(iter(arguments))):
        client.db.project.list(**arguments)  # type: ignore[arg-type]
