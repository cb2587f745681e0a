"""The asynchronous client where no task of asyncio runs: one error that says so, before anything is begun."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextvars import Context
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from support.oracle import SMALL, Oracle, answer

from infrai_async import AsyncInfrai, ConfigurationError, Event, Infrai, fan_out

Use = Callable[[AsyncInfrai], Coroutine[Any, Any, object]]
Driver = Callable[[Use, AsyncInfrai], object]


async def enter(client: AsyncInfrai) -> None:
    async with client:
        raise AssertionError("entered")


async def read_items(client: AsyncInfrai) -> None:
    async for project in client.db.project.list():
        raise AssertionError(project)


async def read_pages(client: AsyncInfrai) -> None:
    async for page in client.db.project.list().pages():
        raise AssertionError(page)


async def read_many(client: AsyncInfrai) -> None:
    listed = fan_out(client.db.project.list(), lambda one: client.db.branch.list(project_id=one.id), on_error=print)
    async for pair in listed:
        raise AssertionError(pair)


async def enter_many(client: AsyncInfrai) -> None:
    async with fan_out([1], lambda one: [one]):
        raise AssertionError("entered")


async def read_inventory(client: AsyncInfrai) -> None:
    async for entry in client.db.inventory():
        raise AssertionError(entry)


async def enter_inventory(client: AsyncInfrai) -> None:
    async with client.db.inventory():
        raise AssertionError("entered")


async def call_in_blocks(client: AsyncInfrai) -> None:
    with client.operation("deploy"), client.budget(1), client.deadline(30):
        await client.db.project.create(name="shop")


USES: dict[str, Use] = {
    "a call": lambda client: client.db.project.get("p"),
    "a call by its id": lambda client: client.call("db.project.get", {"id": "p"}),
    "a call of a view": lambda client: client.with_options(timeout=None).db.project.get("p"),
    "a call in blocks": call_in_blocks,
    "a default": lambda client: client.flags.get_value("x", default=1),
    "collect": lambda client: client.db.project.list().collect(),
    "a page": lambda client: client.db.project.list().page(),
    "prefetching": lambda client: client.db.project.list(prefetch=2).collect(),
    "aclose": lambda client: client.aclose(),
    "async with": enter,
    "async for": read_items,
    "pages": read_pages,
    "fan_out": read_many,
    "fan_out, entered": enter_many,
    "inventory": read_inventory,
    "inventory, entered": enter_inventory,
}
each_use = pytest.mark.parametrize("use", USES.values(), ids=USES)


def by_hand(use: Use, client: AsyncInfrai) -> object:
    coroutine = use(client)
    try:
        return coroutine.send(None)
    finally:
        coroutine.close()


def under_trio(use: Use, client: AsyncInfrai) -> object:
    return trio.run(use, client)


def under_anyio(use: Use, client: AsyncInfrai) -> object:
    # In an empty context: while an asynchronous fixture of another test is alive, anyio has asyncio noted in this one.
    return Context().run(partial(anyio.run, use, client, backend="trio"))


def in_a_callback(use: Use, client: AsyncInfrai) -> object:
    """By hand again, while a loop of asyncio runs, but in none of its tasks."""

    async def host() -> object:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()

        def call() -> None:
            try:
                done.set_result(by_hand(use, client))
            except Exception as error:
                done.set_exception(error)

        loop.call_soon(call)
        return await asyncio.wait_for(done, 60)

    return asyncio.run(host())


def as_a_guest(use: Use, client: AsyncInfrai) -> object:
    """Under trio, which itself runs inside a loop of asyncio."""
    outcomes: list[Any] = []

    async def host() -> None:
        ended = asyncio.Event()

        def done(outcome: object) -> None:
            outcomes.append(outcome)
            ended.set()

        soon = asyncio.get_running_loop().call_soon_threadsafe
        trio.lowlevel.start_guest_run(use, client, run_sync_soon_threadsafe=soon, done_callback=done)
        await asyncio.wait_for(ended.wait(), 60)

    asyncio.run(host())
    result: object = outcomes[0].unwrap()
    return result


DRIVERS: list[Driver] = [by_hand, under_trio, under_anyio, in_a_callback, as_a_guest]
each_driver = pytest.mark.parametrize("drive", DRIVERS, ids=lambda drive: drive.__name__)


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    with Oracle(lambda _: answer(SMALL)) as oracle:
        yield oracle


@each_use
@each_driver
def test_it_says_that_asyncio_is_needed_and_what_to_do(drive: Driver, use: Use, oracle: Oracle) -> None:
    client = AsyncInfrai("k", base_url=oracle.url)
    with pytest.raises(ConfigurationError, match="needs asyncio") as caught:
        drive(use, client)
    for advice in ("asyncio.run", "trio", "Infrai()"):
        assert advice in str(caught.value)
    assert caught.value.outcome == "not_sent"
    assert oracle.seen == []
    gc.collect()  # a coroutine that was never awaited would warn now, which is an error here

    async def afterwards() -> str:  # nothing is closed or broken by the attempt
        async with client:
            return (await client.db.project.get("p1")).id

    assert asyncio.run(afterwards()) == "p1"


def test_the_error_of_a_call_is_that_of_the_call(oracle: Oracle) -> None:
    events: list[Event] = []
    client = AsyncInfrai("k", base_url=oracle.url, on_event=events.append)
    with pytest.raises(ConfigurationError) as caught:
        trio.run(lambda: client.db.project.create(name="shop", idempotency_key="mine"))
    assert caught.value.capability == "db.project.create"
    assert caught.value.idempotency_key == "mine"
    assert [type(event).__name__ for event in events] == ["CallStarted", "CallFinished"]


def test_an_inventory_leaves_no_checkpoint(oracle: Oracle, tmp_path: Path) -> None:
    client = AsyncInfrai("k", base_url=oracle.url)

    async def read() -> None:
        async for _ in client.db.inventory(checkpoint=tmp_path / "inventory"):
            raise AssertionError

    with pytest.raises(ConfigurationError, match="needs asyncio"):
        trio.run(read)
    assert list(tmp_path.iterdir()) == []


def test_a_fan_out_is_still_whole_afterwards() -> None:
    pairs = fan_out([1, 2], lambda one: [one])

    async def read() -> list[tuple[int, int]]:
        return [pair async for pair in pairs]

    with pytest.raises(ConfigurationError, match="needs asyncio"):
        trio.run(read)
    assert asyncio.run(read()) == [(1, 1), (2, 2)]


def test_a_client_that_is_used_in_a_loop_says_so_outside_of_its_tasks(oracle: Oracle) -> None:
    async def main() -> None:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            await client.db.project.get("p1")
            done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(call, client, done)
            error = await done
            assert isinstance(error, ConfigurationError)
            assert "needs asyncio" in str(error)
            assert (error.capability, error.outcome) == ("db.project.get", "not_sent")
            assert (client.stats.calls, client.stats.in_flight) == (1, 0)

    def call(client: AsyncInfrai, done: asyncio.Future[object]) -> None:
        try:
            by_hand(USES["a call"], client)
        except Exception as error:
            done.set_result(error)

    asyncio.run(main())
    assert len(oracle.seen) == 1


def test_a_running_fan_out_is_not_closed_from_outside_of_asyncio() -> None:
    async def slowly() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0.05)
        yield 2

    async def main() -> list[int]:
        pairs = fan_out(slowly(), lambda one: [one])
        first = await anext(pairs)
        with pytest.raises(ConfigurationError, match="needs asyncio"):
            await asyncio.to_thread(trio.run, pairs.aclose)
        return [child for _, child in [first, *[pair async for pair in pairs]]]

    assert asyncio.run(main()) == [1, 2]


def test_a_wrong_argument_is_named_first() -> None:
    with pytest.raises(ValueError, match="id must not be empty"):
        trio.run(lambda: AsyncInfrai("k").db.project.get(""))
    with pytest.raises(ValueError, match="grace"):
        trio.run(lambda: AsyncInfrai("k").aclose(-1))


def test_the_advice_for_trio_works(oracle: Oracle) -> None:
    async def main() -> str:
        with Infrai("k", base_url=oracle.url) as client:
            return (await trio.to_thread.run_sync(client.db.project.get, "p1")).id

    assert trio.run(main) == "p1"


def test_a_coroutine_of_the_client_is_an_ordinary_one() -> None:
    coroutine: Awaitable[object] = AsyncInfrai("k").db.project.get("p")
    assert inspect.iscoroutine(coroutine)
    coroutine.close()
