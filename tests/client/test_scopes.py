"""Budgets, deadlines and operations around real calls: at once, nested, in tasks, through views, for two clients."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import gc
import threading
import time
import warnings
import weakref
from collections.abc import AsyncIterator, Iterator
from contextvars import Context, copy_context
from decimal import Decimal, localcontext
from typing import Any

import pytest
from support.oracle import SMALL, Oracle, Reply, Seen, answer, in_turn, refuse
from support.patience import LONG, SOON

from infrai_async import (
    AsyncInfrai,
    BudgetExceeded,
    ClientClosedError,
    Infrai,
    InfraiError,
    InvalidArgument,
    RateLimitError,
    RetryPolicy,
    ServerError,
    TimeoutError,
    TransportError,
)
from infrai_async._protocol.scopes import current_operation

pytestmark = pytest.mark.anyio
QUICK = RetryPolicy(initial=0.001, maximum=0.002)
COST = Decimal("0.001")  # of every answer of the oracle
FAR = LONG


def pages(seen: Seen) -> Reply:
    """A listing without end."""
    number = int(seen.target.partition("cursor=")[2] or 0)
    return answer({"items": [SMALL], "next_cursor": str(number + 1)})


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    with Oracle(lambda seen: answer(SMALL)) as oracle:
        yield oracle


def client_of(oracle: Oracle, **options: Any) -> AsyncInfrai:
    return AsyncInfrai("k", base_url=oracle.url, **{"retry": QUICK, **options})


@pytest.fixture
async def client(oracle: Oracle) -> AsyncIterator[AsyncInfrai]:
    async with client_of(oracle) as client:
        yield client


def keys(oracle: Oracle) -> list[str | None]:
    return [seen.headers.get("idempotency-key") for seen in oracle.seen]


# --- budgets ---------------------------------------------------------------------------------------------------------


async def test_a_call_is_refused_once_the_budget_is_spent(oracle: Oracle, client: AsyncInfrai) -> None:
    with client.budget(usd=0.003) as spent:
        for _ in range(3):
            await client.db.project.get("p")
        with pytest.raises(BudgetExceeded) as caught:
            await client.db.project.create(name="shop")
    assert len(oracle.seen) == 3
    assert (spent.usd, spent.limit) == (Decimal("0.003"), Decimal("0.003"))
    assert spent.by_capability == {"db.project.get": Decimal("0.003")}
    assert spent.by_vendor == {"unknown": Decimal("0.003")}
    error = caught.value
    assert str(error) == "db.project.create: the budget of the enclosing block is spent: 0.003 of 0.003 USD"
    assert (error.outcome, error.attempts, error.capability) == ("not_sent", (), "db.project.create")
    assert error.idempotency_key
    assert await client.db.project.get("p")  # the block is over
    assert spent.usd == Decimal("0.003")


async def test_a_budget_of_nothing_sends_nothing(oracle: Oracle, client: AsyncInfrai) -> None:
    with client.budget(usd=0), pytest.raises(BudgetExceeded):
        await client.discovery.list()
    assert oracle.seen == []


@pytest.mark.parametrize("at_once", [1, 4])
async def test_calls_that_wait_for_a_place_are_refused_too(at_once: int) -> None:
    with Oracle(lambda seen: answer(SMALL, delay=0.005)) as oracle:
        async with client_of(oracle, max_concurrency=at_once) as client:
            with client.budget(usd="0.010") as spent:
                made = await asyncio.gather(*(client.db.project.get("p") for _ in range(50)), return_exceptions=True)
    refused = [result for result in made if isinstance(result, BudgetExceeded)]
    assert 10 <= len(oracle.seen) < 10 + at_once  # what was in flight with the last one
    assert len(refused) == 50 - len(oracle.seen)
    assert spent.usd == len(oracle.seen) * COST
    assert all(error.outcome == "not_sent" for error in refused)


async def test_a_place_that_was_refused_goes_to_the_next() -> None:
    with Oracle(lambda seen: answer(SMALL, delay=0.01)) as oracle:
        async with client_of(oracle, max_concurrency=1) as client:
            first = asyncio.ensure_future(client.db.project.get("p"))
            await asyncio.sleep(0)
            with client.budget(usd=0):
                refused = [asyncio.ensure_future(client.db.project.get("p")) for _ in range(5)]
                await asyncio.sleep(0)
            last = asyncio.ensure_future(client.db.project.get("p"))
            await first
            await asyncio.wait_for(last, FAR)
            assert all(
                isinstance(error, BudgetExceeded) for error in await asyncio.gather(*refused, return_exceptions=True)
            )
            assert client.stats.in_flight == client.stats.waiting == 0
    assert len(oracle.seen) == 2


async def test_tasks_started_inside_are_inside_until_the_block_is_left(oracle: Oracle, client: AsyncInfrai) -> None:
    async def later() -> None:
        await asyncio.sleep(0.01)
        await client.db.project.get("p")

    with client.budget(usd=1) as spent:
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(later())
        left_running = asyncio.create_task(later())
    outside = asyncio.create_task(later())
    await asyncio.gather(left_running, outside)
    assert spent.usd == 5 * COST
    assert len(oracle.seen) == 7


async def test_a_task_that_ran_before_is_outside(client: AsyncInfrai) -> None:
    begin = asyncio.Event()

    async def wait_and_call() -> None:
        await begin.wait()
        await client.db.project.get("p")

    task = asyncio.create_task(wait_and_call())
    await asyncio.sleep(0)
    with client.budget(usd=0):
        begin.set()
        await task


async def test_blocks_of_tasks_that_run_at_once_do_not_meet(client: AsyncInfrai) -> None:
    async def worker(calls: int) -> Decimal:
        with client.budget(usd=1) as spent:
            for _ in range(calls):
                await client.db.project.get("p")
            return spent.usd

    with client.budget(usd=1) as total:
        assert await asyncio.gather(*map(worker, range(8))) == [n * COST for n in range(8)]
    assert total.usd == sum(range(8)) * COST == client.stats.cost_usd


async def test_every_view_of_the_client_is_inside_and_no_other_client(oracle: Oracle, client: AsyncInfrai) -> None:
    view = client.with_options(timeout=5)
    async with client_of(oracle) as other:
        with view.budget(usd="0.002") as spent:
            await client.db.project.get("p")
            await other.db.project.get("p")
            await client.with_options(retry=RetryPolicy.none()).db.project.get("p")
            with pytest.raises(BudgetExceeded):
                await client.db.project.get("p")
            await other.db.project.get("p")
    assert spent.usd == 2 * COST


async def test_pages_count_where_they_are_fetched() -> None:
    with Oracle(pages) as oracle:
        async with client_of(oracle) as client:
            cursor = client.db.project.list()
            with client.budget(usd="0.003") as spent, pytest.raises(BudgetExceeded):
                async for _ in cursor:
                    pass
            assert spent.by_capability == {"db.project.list": 3 * COST}
            assert await anext(cursor)  # it stands where it stood
    assert len(oracle.seen) == 4


async def test_a_call_that_would_be_repeated_over_the_budget_raises_its_own_error() -> None:
    dear = refuse(500, "INTERNAL_ERROR")
    dear = Reply(status=500, body=dear.body.replace(b'"metadata": {}', b'"metadata": {"cost_usd": 0.5}'))
    with Oracle(in_turn(dear, answer(SMALL))) as oracle:
        async with client_of(oracle) as client:
            with client.budget(usd=0.5) as spent, pytest.raises(ServerError) as caught:
                await client.db.project.get("p")
    assert (len(oracle.seen), len(caught.value.attempts), spent.usd) == (1, 1, Decimal("0.5"))


async def test_the_clients_own_figure_is_exact_too(client: AsyncInfrai) -> None:
    with localcontext() as context:
        context.prec = 1
        for _ in range(12):
            await client.db.project.get("p")
    assert client.stats.cost_usd == 12 * COST


async def test_a_generators_block_ends_in_whatever_task_it_is_closed(client: AsyncInfrai) -> None:
    async def budgeted() -> AsyncIterator[int]:
        with client.budget(usd=0):
            yield 1

    generator = budgeted()
    await asyncio.create_task(anext(generator))  # type: ignore[arg-type]
    await client.db.project.get("p")
    with pytest.warns(RuntimeWarning, match=r"with_options\(budget=...\)"):
        await generator.aclose()  # type: ignore[attr-defined]
    await client.db.project.get("p")


def blocks_of(client: AsyncInfrai) -> dict[str, Any]:
    return {"budget": client.budget(usd=0), "deadline": client.deadline(1e-6), "operation": client.operation("once")}


LEAVING = ["break", "throw", "return", "close", "cancel", "collect"]


@pytest.mark.parametrize("kind", ["budget", "deadline", "operation"])
@pytest.mark.parametrize("way", LEAVING)
async def test_a_block_in_a_generator_is_over_for_its_reader_however_that_leaves(
    oracle: Oracle, client: AsyncInfrai, kind: str, way: str
) -> None:
    async def inside() -> AsyncIterator[int]:
        with blocks_of(client)[kind]:
            yield 1
            yield 2

    async def read(generator: AsyncIterator[int]) -> None:
        async for _ in generator:
            if way == "break":
                break
            if way == "return":
                return
            if way == "throw":
                with pytest.raises(KeyError):
                    await generator.athrow(KeyError())  # type: ignore[attr-defined]
                return
            if way == "close":
                await generator.aclose()  # type: ignore[attr-defined]
                return
            if way == "cancel":
                raise asyncio.CancelledError
            return

    async def later() -> None:
        await asyncio.sleep(0.03)  # asyncio closes a dropped generator in a task of its own
        await client.db.project.create(name="shop")

    async def job() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await read(inside())
        gc.collect()
        background = asyncio.create_task(later())
        await asyncio.sleep(0.05)
        await asyncio.gather(background, client.db.project.create(name="shop"))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        await asyncio.create_task(job())
    keys = [seen.headers["idempotency-key"] for seen in oracle.seen]
    assert len(set(keys)) == 2
    derived = client.operation("once")
    with derived:
        await client.db.project.create(name="shop")
    assert oracle.seen[-1].headers["idempotency-key"] not in keys


async def test_a_task_that_outlives_a_block_is_free_of_it(oracle: Oracle, client: AsyncInfrai) -> None:
    async def worker() -> None:
        await left.wait()
        await client.db.project.get("p")

    left = asyncio.Event()
    with client.budget(usd=0), client.deadline(0.001):
        tasks = [asyncio.create_task(worker()) for _ in range(3)]
        await asyncio.sleep(0.01)
    left.set()
    await asyncio.gather(*tasks)
    assert len(oracle.seen) == 3


async def test_a_generator_that_is_read_to_its_end_keeps_the_blocks_around_it(client: AsyncInfrai) -> None:
    async def inside() -> AsyncIterator[int]:
        with client.budget(usd=1):
            yield 1

    with client.budget(usd=0), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [item async for item in inside()] == [1]
        with pytest.raises(BudgetExceeded):
            await client.db.project.get("p")
    await client.db.project.get("p")


async def test_a_view_carries_its_blocks_to_threads_tasks_and_cursors() -> None:
    with Oracle(pages) as oracle:
        async with client_of(oracle) as client:
            with client.budget(usd=2 * COST) as spent:
                view = client.with_options(budget=spent)
                assert view.with_options(timeout=5)._dispatcher.options.carried == view._dispatcher.options.carried

                def elsewhere() -> AsyncInfrai:
                    return view

                taken = await asyncio.get_running_loop().run_in_executor(None, elsewhere)
                context = Context()
                task = asyncio.get_running_loop().create_task(taken.db.project.list().page(), context=context)
                await task
                assert spent.usd == COST
                await taken.db.project.list().page()  # inside the block as well: counted once
                assert spent.usd == 2 * COST
                outside = asyncio.get_running_loop().create_task(taken.db.project.list().collect(), context=Context())
                with pytest.raises(BudgetExceeded):
                    await outside
            assert (await view.db.project.list().page()).items  # the block is over for the view too


def test_a_view_of_the_blocking_client_carries_its_blocks_to_a_thread(oracle: Oracle) -> None:
    with Infrai("k", base_url=oracle.url) as client:
        with client.budget(usd=1) as spent, client.operation("deploy") as operation:
            view = client.with_options(budget=spent, operation=operation)
            thread = threading.Thread(target=view.db.project.create, kwargs={"name": "shop"})
            thread.start()
            thread.join(FAR)
            client.db.project.get("p")
        assert spent.usd == 2 * COST
        assert client.db.project.create(name="shop")
    keys = [seen.headers["idempotency-key"] for seen in oracle.seen if seen.method == "POST"]
    assert len(set(keys)) == 2


def test_a_block_whose_two_halves_run_in_two_contexts_warns_and_is_over(oracle: Oracle) -> None:
    """As the generator dependency of a web framework that runs plain functions in threads."""

    def dependency() -> Iterator[Infrai]:
        with client.budget(usd=0) as spent:
            yield client.with_options(budget=spent)

    with Infrai("k", base_url=oracle.url) as client:
        halves = dependency()
        view = copy_context().run(next, halves)
        client.db.project.get("p")  # another context: the block does not apply here
        with pytest.raises(BudgetExceeded):
            view.db.project.get("p")
        with pytest.warns(RuntimeWarning, match="left in another context"):
            copy_context().run(next, halves, None)
        view.db.project.get("p")


async def test_a_dropped_client_is_collected_though_a_context_remembers_its_blocks(oracle: Oracle) -> None:
    client = client_of(oracle)
    gone = weakref.ref(client._dispatcher.pool)
    with client.budget(usd=1), client.operation("a"), client.deadline(FAR):
        await client.db.project.get("p")
        waiting = asyncio.create_task(asyncio.sleep(FAR))
    await client.aclose()
    del client
    gc.collect()
    assert gone() is None
    waiting.cancel()


# --- deadlines -------------------------------------------------------------------------------------------------------


async def test_a_call_in_flight_ends_with_the_deadline() -> None:
    with Oracle(lambda seen: answer(SMALL, delay=FAR)) as oracle:
        async with client_of(oracle) as client:
            begun = time.monotonic()
            with client.deadline(1):
                with pytest.raises(TimeoutError) as caught:
                    await client.db.project.create(name="shop")
                assert (caught.value.outcome, len(caught.value.attempts)) == ("maybe_applied", 1)
                with pytest.raises(TimeoutError, match="the deadline of the enclosing block has passed") as caught:
                    await client.db.project.create(name="shop")
            assert time.monotonic() - begun < SOON
    error = caught.value
    assert (error.outcome, error.attempts, error.capability) == ("not_sent", (), "db.project.create")
    assert len(oracle.seen) == 1


async def test_the_earlier_of_timeout_and_deadline_counts() -> None:
    with Oracle(lambda seen: answer(SMALL, delay=FAR)) as oracle:
        async with client_of(oracle, timeout=0.5) as client:
            with client.deadline(FAR):
                with pytest.raises(TimeoutError):
                    await client.db.project.get("p")
                with client.deadline(0.5), pytest.raises(TimeoutError):
                    await client.with_options(timeout=None).db.project.get("p")
    assert len(oracle.seen) == 2


async def test_a_deadline_does_not_interrupt_other_code(client: AsyncInfrai) -> None:
    with client.deadline(0.01):
        await asyncio.sleep(0.05)
    await client.db.project.get("p")


async def test_a_deadline_bounds_waiting_for_a_place_and_tasks_started_inside() -> None:
    with Oracle(lambda seen: answer(SMALL, delay=FAR)) as oracle:
        async with client_of(oracle, max_concurrency=1) as client:
            with client.deadline(0.5):
                tasks = [asyncio.create_task(client.db.project.get("p")) for _ in range(5)]
                errors = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), FAR)
    assert all(isinstance(error, TimeoutError) for error in errors)
    assert [error.outcome for error in errors if isinstance(error, InfraiError)] == ["maybe_applied"] + ["not_sent"] * 4


async def test_a_deadline_bounds_all_pages() -> None:
    with Oracle(pages) as oracle:
        async with client_of(oracle) as client:
            seen = 0
            with client.deadline(1), pytest.raises(TimeoutError):
                async for _ in client.db.project.list():
                    seen += 1
    assert seen > 0


async def test_a_pause_that_does_not_fit_in_the_deadline_is_not_made() -> None:
    with Oracle(in_turn(refuse(429, "RATE_LIMITED", headers={"Retry-After": "60"}))) as oracle:
        async with client_of(oracle) as client:
            begun = time.monotonic()
            with client.deadline(50), pytest.raises(RateLimitError) as caught:
                await client.db.project.get("p")
            assert (caught.value.retry_after, time.monotonic() - begun < SOON) == (60.0, True)
            with client.deadline(0.01):
                await asyncio.sleep(0.02)
                with pytest.raises(TimeoutError):  # and not of the rate: its time was up before it met the gate
                    await client.db.project.get("p")


# --- operations ------------------------------------------------------------------------------------------------------


async def test_a_job_that_is_run_again_sends_the_same_keys(oracle: Oracle, client: AsyncInfrai) -> None:
    async def job() -> None:
        with client.operation("deploy-42"):
            assert current_operation() == "deploy-42"
            await asyncio.gather(*(client.db.project.create(name="shop") for _ in range(3)))
            await client.db.project.get("p")
            await client.call("db.project.create", {"name": "other"})
            await client.db.project.delete("p")

    await job()
    first = sorted(filter(None, keys(oracle)))
    assert (len(first), len(set(first))) == (5, 5)
    oracle.seen.clear()
    async with client_of(oracle) as client:
        await job()
    assert sorted(filter(None, keys(oracle))) == first
    assert current_operation() is None


async def test_every_attempt_carries_the_key_and_the_body_does_not() -> None:
    with Oracle(in_turn(Reply(drop=True), refuse(500), answer(SMALL))) as oracle:
        async with client_of(oracle) as client:
            with client.operation("a"):
                await client.db.project.create(name="shop")
    assert len(keys(oracle)) == 3
    assert len(set(keys(oracle))) == 1
    assert oracle.seen[0].json == {"name": "shop"}


async def test_a_key_of_the_callers_wins_and_counts_not(oracle: Oracle, client: AsyncInfrai) -> None:
    with client.operation("a"):
        await client.db.project.create(name="shop", idempotency_key="mine")
        await client.db.project.create(name="shop")
    with client.operation("a"):
        await client.db.project.create(name="shop")
    own, first, again = keys(oracle)
    assert own == "mine"
    assert first == again


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Reply(drop=True), TransportError),
        (refuse(500, "INTERNAL_ERROR"), ServerError),
        (answer({"no": "project"}), InfraiError),
    ],
    ids=["broken", "refused", "unreadable"],
)
async def test_a_call_that_failed_is_repeated_with_its_key(failure: Reply, kind: type[InfraiError]) -> None:
    with Oracle(in_turn(failure, answer(SMALL))) as oracle:
        async with client_of(oracle, retry=RetryPolicy.none()) as client:
            with client.operation("a"):
                with pytest.raises(kind) as caught:
                    await client.db.project.create(name="shop")
                await client.db.project.create(name="shop")
                await client.db.project.create(name="shop")
    failed, repeated, another = keys(oracle)
    assert failed == repeated == caught.value.idempotency_key
    assert another != failed


async def test_a_call_that_was_cancelled_is_repeated_with_its_key() -> None:
    with Oracle(in_turn(answer(SMALL, delay=FAR), answer(SMALL))) as oracle:
        async with client_of(oracle) as client:
            with client.operation("a"):
                try:
                    async with asyncio.timeout(0.1):
                        await client.db.project.create(name="shop")
                except builtins.TimeoutError:
                    await client.db.project.create(name="shop")
    first, second = keys(oracle)
    assert first == second


async def test_a_call_that_was_not_even_sent_counts_not(oracle: Oracle, client: AsyncInfrai) -> None:
    with client.operation("a"):
        with client.budget(usd=0), pytest.raises(BudgetExceeded):
            await client.db.project.create(name="shop")
        with pytest.raises(InvalidArgument, match="name is required"):
            await client.call("db.project.create")
        await client.db.project.create(name="shop")
    with client.operation("a"):
        await client.db.project.create(name="shop")
    assert keys(oracle)[0] == keys(oracle)[1]


async def test_the_key_does_not_depend_on_which_routes_the_service_knows() -> None:
    unrouted = Reply(status=404, body=b"")
    for replies in [[answer({"ok": True})], [unrouted, answer({"ok": True})]]:
        with Oracle(in_turn(*replies)) as oracle:
            async with client_of(oracle) as client:
                for _ in range(2):  # the second time it knows the route
                    with client.operation("a"):
                        await client.storage.object.delete(bucket="b", key="k")
        assert len(set(keys(oracle))) == 1
        assert len(keys(oracle)) == len(replies) + 1


async def test_who_activates_gets_a_key_of_its_own(oracle: Oracle, client: AsyncInfrai) -> None:
    for _ in range(2):
        with client.operation("a"), contextlib.suppress(InfraiError):
            await client.account.activate(write_credentials=False)
    assert len(oracle.seen) == len(set(keys(oracle))) == 2


async def test_all_three_together_nested_in_tasks(oracle: Oracle, client: AsyncInfrai) -> None:
    names: set[str | None] = set()

    async def step(name: str) -> Decimal:
        with client.operation(name), client.budget(usd=1) as spent:
            await asyncio.gather(*(client.db.project.create(name="shop") for _ in range(2)))
            names.add(current_operation())
            return spent.usd

    with client.operation("deploy"), client.deadline(FAR), client.budget(usd=1) as total:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(step(name)) for name in ("a", "b", "c")]
    assert [task.result() for task in tasks] == [2 * COST] * 3
    assert names == {"deploy/a", "deploy/b", "deploy/c"}
    assert len(set(keys(oracle))) == 6
    assert total.usd == 6 * COST


async def test_a_closed_client_says_so_in_a_block(oracle: Oracle) -> None:
    client = client_of(oracle)
    await client.aclose()
    with client.operation("a"), client.budget(usd=1), client.deadline(FAR), pytest.raises(ClientClosedError):
        await client.db.project.create(name="shop")
