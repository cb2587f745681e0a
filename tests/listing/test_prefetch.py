"""Pages fetched ahead: the same items, sooner, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest
from support.oracle import SMALL, Oracle, Reply, Seen, answer, refuse

from infrai_async import (
    AsyncInfrai,
    BadRequestError,
    ClientClosedError,
    InvalidArgument,
    PaginationError,
    RetryPolicy,
    TransportError,
)

pytestmark = pytest.mark.anyio


def position(seen: Seen) -> int:
    return int(seen.query.get("cursor", "0"))


def listing(total: int, size: int = 10, delay: float = 0.0) -> Callable[[Seen], Reply]:
    def reply(seen: Seen) -> Reply:
        start = position(seen)
        stop = min(start + size, total)
        items = [{**SMALL, "id": f"p{number}"} for number in range(start, stop)]
        return answer({"items": items, "next_cursor": str(stop) if stop < total else None}, delay=delay)

    return reply


async def settled(oracle: Oracle, requests: int) -> None:
    """Wait until so many requests have come, and for a moment in which another one could."""
    async with asyncio.timeout(25):
        while len(oracle.seen) < requests:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.1)


@pytest.mark.parametrize("prefetch", [0, 1, 3, 100])
@pytest.mark.parametrize("total", [0, 10, 25, 95])
async def test_every_item_comes_once_and_in_order_and_no_page_is_fetched_twice(prefetch: int, total: int) -> None:
    with Oracle(listing(total)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            got = [item.id async for item in client.db.project.list(prefetch=prefetch)]
    assert got == [f"p{number}" for number in range(total)]
    assert len(oracle.seen) == max(1, -(-total // 10))


@pytest.mark.parametrize("prefetch", [1, 3])
async def test_so_many_pages_are_fetched_ahead_and_no_more(prefetch: int) -> None:
    with Oracle(listing(200)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            cursor = client.db.project.list(prefetch=prefetch)
            await settled(oracle, 0)
            assert oracle.seen == []
            for page in (1, 2):
                await cursor.page()
                await settled(oracle, page + prefetch)
                assert len(oracle.seen) == page + prefetch


async def test_the_next_page_is_fetched_while_this_one_is_read() -> None:
    async def requests(prefetch: int) -> list[int]:
        """How many pages had been asked for by the time that each was read."""
        before, found = len(oracle.seen), []
        async for page in client.db.project.list(prefetch=prefetch).pages():
            ahead = min(prefetch, int(page.next_cursor is not None))
            await settled(oracle, before + len(found) + 1 + ahead)
            found.append(len(oracle.seen) - before)
        return found

    with Oracle(listing(50)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            assert await requests(0) == [1, 2, 3, 4, 5]
            assert await requests(1) == [2, 3, 4, 5, 5]


async def test_next_cursor_names_the_page_in_hand_and_max_items_bounds_what_is_fetched() -> None:
    with Oracle(listing(100)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            cursor = client.db.project.list(prefetch=2)
            first = await cursor.collect(max_items=13)
            assert cursor.next_cursor == "10"
            rest = [item.id async for item in client.db.project.list(cursor=cursor.next_cursor, prefetch=2)]
            assert {item.id for item in first} | set(rest) == {f"p{number}" for number in range(100)}
            before = len(oracle.seen)
            cut = client.db.project.list(max_items=20, prefetch=5)
            assert len(await cut.collect()) == 20
            await settled(oracle, before + 2)
            assert len(oracle.seen) == before + 2
            assert cut.next_cursor == "20"


@pytest.mark.parametrize("prefetch", [1, 5])
async def test_a_cursor_that_comes_back_is_an_error_where_it_would_be_without(prefetch: int) -> None:
    pages = {None: ([0], "a"), "a": ([1], "b"), "b": ([2], "a")}

    def reply(seen: Seen) -> Reply:
        items, following = pages[seen.query.get("cursor")]
        return answer({"items": [{**SMALL, "id": f"p{number}"} for number in items], "next_cursor": following})

    with Oracle(reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            got = []
            with pytest.raises(PaginationError, match="repeated a cursor after 3 pages"):
                async for item in client.db.project.list(prefetch=prefetch):
                    got.append(item.id)
    assert got == ["p0", "p1", "p2"]
    assert len(oracle.seen) == 3


async def test_a_failed_page_is_raised_when_it_is_asked_for_and_can_be_asked_for_again() -> None:
    fail = {"next": True}

    def reply(seen: Seen) -> Reply:
        return refuse(400) if position(seen) == 20 and fail.pop("next", False) else listing(45)(seen)

    with Oracle(reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            cursor = client.db.project.list(prefetch=4)
            got = list(await cursor.page())
            await settled(oracle, 3)
            got += await cursor.page()
            with pytest.raises(BadRequestError):
                await cursor.page()
            got += await cursor.collect()
    assert [item.id for item in got] == [f"p{number}" for number in range(45)]


async def test_a_failure_that_nobody_asks_for_is_not_complained_of() -> None:
    def reply(seen: Seen) -> Reply:
        return refuse(400) if position(seen) else listing(25)(seen)

    with Oracle(reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            await client.db.project.list(prefetch=3).page()
            await settled(oracle, 2)
            gc.collect()  # the module's fixture sees what asyncio says of it


async def test_an_abandoned_cursor_ends_what_it_had_fetched_ahead() -> None:
    def reply(seen: Seen) -> Reply:
        return answer({"items": [SMALL], "next_cursor": "1"}, delay=30.0 if position(seen) else 0.0)

    with Oracle(reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            before = asyncio.all_tasks()
            async for _ in client.db.project.list(prefetch=3):
                break
            await asyncio.sleep(0.1)
            assert asyncio.all_tasks() == before
            assert client.stats.in_flight == 0


async def test_cancelling_the_reader_ends_what_was_under_way_and_loses_nothing() -> None:
    slow = {"next": 30.0}

    def reply(seen: Seen) -> Reply:
        delay = slow.pop("next", 0.0) if position(seen) == 20 else 0.0
        made = listing(45)(seen)
        return Reply(status=made.status, body=made.body, delay=delay)

    with Oracle(reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            before = asyncio.all_tasks()
            cursor = client.db.project.list(prefetch=2)
            got = []
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    async for item in cursor:
                        got.append(item.id)
            await asyncio.sleep(0.05)
            assert asyncio.all_tasks() == before
            assert client.stats.in_flight == 0
            assert cursor.next_cursor == "20"
            got += [item.id async for item in cursor]
    assert got == [f"p{number}" for number in range(45)]


async def test_closing_the_client_ends_it() -> None:
    def reply(seen: Seen) -> Reply:
        return answer({"items": [SMALL], "next_cursor": "1"}, delay=30.0 if position(seen) else 0.0)

    with Oracle(reply) as oracle:
        before = asyncio.all_tasks()
        client = AsyncInfrai("k", base_url=oracle.url, retry=RetryPolicy.none())
        cursor = client.db.project.list(prefetch=3)
        await cursor.page()
        await settled(oracle, 2)
        await client.aclose(grace=0)
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == before
        with pytest.raises(TransportError, match="closed before the answer came"):
            await cursor.page()
        with pytest.raises(ClientClosedError):
            await cursor.page()


def test_a_cursor_goes_on_in_another_loop_with_the_pages_it_has() -> None:
    with Oracle(listing(55)) as oracle:
        client = AsyncInfrai("k", base_url=oracle.url)
        cursor = client.db.project.list(prefetch=2)
        got = []

        async def one_page() -> None:
            got.extend(item.id for item in await cursor.page())

        for _ in range(6):
            asyncio.run(one_page())
    assert got == [f"p{number}" for number in range(55)]


def test_the_end_of_the_loop_ends_it() -> None:
    def reply(seen: Seen) -> Reply:
        return answer({"items": [SMALL], "next_cursor": "1"}, delay=30.0 if position(seen) else 0.0)

    kept = []

    async def main() -> None:
        kept.append(AsyncInfrai("k", base_url=oracle.url).db.project.list(prefetch=2))
        await kept[0].page()

    with Oracle(reply) as oracle:
        asyncio.run(main())
        kept.clear()
        gc.collect()


@pytest.mark.parametrize("prefetch", [-1, True, 1.0, "1", None])
async def test_a_wrong_number_is_refused(prefetch: object) -> None:
    client = AsyncInfrai("k", base_url="http://127.0.0.1:9")
    with pytest.raises(InvalidArgument, match="prefetch must be a whole number, 0 or more"):
        client.db.project.list(prefetch=prefetch)  # type: ignore[arg-type]
