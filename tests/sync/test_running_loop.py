"""The blocking client where an event loop runs already: it blocks that loop, and otherwise works."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextvars import Context

import anyio
import pytest
from sync.children import Attentive, by_name

from infrai_async import AsyncInfrai, ConfigurationError, Infrai, NotFoundError


@pytest.fixture
def oracle() -> Iterator[Attentive]:
    with Attentive(by_name) as oracle:
        yield oracle


@pytest.fixture
def client(oracle: Attentive) -> Iterator[Infrai]:
    with Infrai("k", base_url=oracle.url) as client:
        yield client


def test_a_coroutine_may_call_it(client: Infrai) -> None:
    async def main() -> str:
        await asyncio.sleep(0)
        return client.db.project.get("p").id

    assert asyncio.run(main()) == "p"


def test_one_client_serves_several_loops_and_none(client: Infrai, oracle: Attentive) -> None:
    async def main() -> str:
        return client.db.project.get("p").id

    # In a context of its own: as long as a fixture of another test runs in anyio's loop, it says so in this one.
    in_anyio = Context().run(anyio.run, main)
    assert [asyncio.run(main()), client.db.project.get("p").id, in_anyio, asyncio.run(main())] == ["p"] * 4
    assert oracle.connections == 1


def test_tasks_call_it_in_turn_because_each_call_blocks_them_all(client: Infrai, oracle: Attentive) -> None:
    async def one(name: str) -> str:
        return client.db.project.get(name).id

    async def main() -> list[str]:
        return list(await asyncio.gather(*(one(f"p{number}") for number in range(10))))

    assert asyncio.run(main()) == [f"p{number}" for number in range(10)]
    assert oracle.most_at_once == 1


def test_worker_threads_of_a_loop_call_it_at_once(client: Infrai, oracle: Attentive) -> None:
    async def main() -> list[str]:
        calls = [asyncio.to_thread(client.db.project.get, f"brief-{number}") for number in range(4)]
        return [project.id for project in await asyncio.gather(*calls)]

    assert asyncio.run(main()) == [f"brief-{number}" for number in range(4)]
    assert oracle.most_at_once > 1


def test_the_asynchronous_client_works_beside_it(client: Infrai, oracle: Attentive) -> None:
    async def main() -> tuple[str, str]:
        async with AsyncInfrai("k", base_url=oracle.url) as other:
            theirs = asyncio.create_task(other.db.project.get("brief"))
            await asyncio.sleep(0)
            return client.db.project.get("p").id, (await theirs).id

    assert asyncio.run(main()) == ("p", "brief")


def test_it_can_be_opened_used_and_closed_inside_a_coroutine(oracle: Attentive) -> None:
    async def main() -> str:
        with Infrai("k", base_url=oracle.url) as client:
            return client.db.project.get("p").id

    before = threading.active_count()
    assert asyncio.run(main()) == "p"
    assert threading.active_count() == before


def test_a_cancelled_task_still_gets_the_answer_of_the_call_that_it_is_in(client: Infrai) -> None:
    async def main() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        name = client.db.project.get("p").id  # does not await: nothing can be cancelled here
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        return name

    assert asyncio.run(main()) == "p"


def test_errors_arrive_in_the_coroutine_and_the_loop_goes_on(client: Infrai, oracle: Attentive) -> None:
    from support.oracle import refuse

    oracle.reply = lambda seen: by_name(seen) if seen.path.endswith("/p") else refuse(404, "NO_SUCH")

    async def main() -> str:
        with pytest.raises(NotFoundError):
            client.db.project.get("other")
        await asyncio.sleep(0)
        return client.db.project.get("p").id

    assert asyncio.run(main()) == "p"


def test_a_key_function_of_the_asynchronous_client_may_call_a_blocking_one(client: Infrai, oracle: Attentive) -> None:
    async def main() -> str:
        async with AsyncInfrai(lambda: client.db.project.get("the-key").id, base_url=oracle.url) as other:
            return (await other.db.project.get("p")).id

    assert asyncio.run(main()) == "p"
    assert oracle.seen[-1].headers["authorization"] == "Bearer the-key"


def test_a_key_function_that_waits_for_its_own_client_in_another_thread_is_bounded_by_the_calls_time(
    oracle: Attentive,
) -> None:
    async def key() -> str:
        return (await asyncio.to_thread(client.db.project.get, "inner")).id

    with Infrai(key, base_url=oracle.url, timeout=0.3) as client, pytest.raises((TimeoutError, ConfigurationError)):
        client.db.project.get("p")
