"""Budgets, deadlines and operations of the blocking client: each call crosses with the context of its thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from decimal import Decimal

import pytest
from support.oracle import SMALL, Oracle, Reply, Seen, answer
from support.patience import LONG, SOON

from infrai_async import AsyncInfrai, BudgetExceeded, ClientClosedError, Infrai, RetryPolicy, TimeoutError
from infrai_async._protocol.scopes import current_operation

COST = Decimal("0.001")


def reply(seen: Seen) -> Reply:
    if seen.path.endswith("/list"):
        number = int(seen.target.partition("cursor=")[2] or 0)
        return answer({"items": [SMALL], "next_cursor": str(number + 1)})
    return answer(SMALL, delay=LONG if seen.path.endswith("/slow") else 0)


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    with Oracle(reply) as oracle:
        yield oracle


@pytest.fixture
def client(oracle: Oracle) -> Iterator[Infrai]:
    with Infrai("k", base_url=oracle.url, retry=RetryPolicy.none()) as client:
        yield client


def keys(oracle: Oracle) -> list[str]:
    return [seen.headers["idempotency-key"] for seen in oracle.seen]


def test_a_budget_stops_calls_and_pages(oracle: Oracle, client: Infrai) -> None:
    with client.budget(usd=0.004) as spent:
        client.db.project.create(name="shop")
        with pytest.raises(BudgetExceeded, match=r"0\.004 of 0\.004 USD") as caught:
            for _ in client.db.project.list():
                pass
    assert caught.value.outcome == "not_sent"
    assert spent.by_capability == {"db.project.create": COST, "db.project.list": 3 * COST}
    assert len(oracle.seen) == 4
    client.db.project.get("p")
    assert spent.usd == 4 * COST


def test_a_deadline_ends_a_call_and_refuses_the_next(oracle: Oracle, client: Infrai) -> None:
    begun = time.monotonic()
    with client.deadline(0.5):
        with pytest.raises(TimeoutError) as caught:
            client.db.project.get("slow")
        assert caught.value.outcome == "maybe_applied"
        with pytest.raises(TimeoutError) as caught:
            client.db.project.get("p")
        assert caught.value.outcome == "not_sent"
    assert time.monotonic() - begun < SOON
    assert len(oracle.seen) == 1
    client.db.project.get("p")


def test_a_script_that_is_run_again_sends_the_same_keys(oracle: Oracle, client: Infrai) -> None:
    for _ in range(2):
        with client.operation("deploy-42"), client.operation("shop"):
            assert current_operation() == "deploy-42/shop"
            client.db.project.create(name="shop")
            client.with_options(timeout=5).db.project.create(name="shop")
    first, second, *again = keys(oracle)
    assert again == [first, second]
    assert first != second


def test_both_clients_derive_the_same_keys(oracle: Oracle, client: Infrai) -> None:
    async def job() -> None:
        async with AsyncInfrai("k", base_url=oracle.url) as other:
            with other.operation("deploy-42"):
                await other.db.project.create(name="shop")

    with client.operation("deploy-42"):
        client.db.project.create(name="shop")
    asyncio.run(job())
    assert len(set(keys(oracle))) == 1


def test_threads_have_blocks_of_their_own(client: Infrai) -> None:
    def work(calls: int) -> Decimal:
        with client.budget(usd=1) as spent:
            for _ in range(calls):
                client.db.project.get("p")
            return spent.usd

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [n * COST for n in range(8)]
    assert client.stats.cost_usd == 28 * COST


def test_threads_that_carry_the_context_share_a_block(oracle: Oracle, client: Infrai) -> None:
    with client.budget(usd=0.01) as spent, client.operation("a"), ThreadPoolExecutor(4) as pool:
        made = [pool.submit(copy_context().run, client.call, "db.project.create", {"name": "shop"}) for _ in range(30)]
        refused = [future for future in made if isinstance(future.exception(30), BudgetExceeded)]
    assert 10 <= len(oracle.seen) < 14  # what was in flight with the last one
    assert len(refused) == 30 - len(oracle.seen)
    assert spent.usd == len(oracle.seen) * COST
    assert len(set(keys(oracle))) == len(oracle.seen)


def test_a_blocking_call_in_a_coroutine_is_inside_of_its_blocks(client: Infrai) -> None:
    async def cell() -> Decimal:
        with client.budget(usd=1) as spent:
            client.db.project.get("p")
            await asyncio.to_thread(client.db.project.get, "p")
            return spent.usd

    assert asyncio.run(cell()) == 2 * COST


def test_another_client_is_outside(oracle: Oracle, client: Infrai) -> None:
    with Infrai("k", base_url=oracle.url) as other, client.budget(usd=0), client.deadline(30), client.operation("a"):
        other.db.project.create(name="shop")
        with other.operation("a"):
            other.db.project.create(name="shop")
    assert len(set(keys(oracle))) == 2


def test_a_closed_client_says_so_in_a_block(oracle: Oracle) -> None:
    client = Infrai("k", base_url=oracle.url)
    client.db.project.get("p")
    client.close()
    with client.operation("a"), client.budget(usd=1), client.deadline(30), pytest.raises(ClientClosedError):
        client.db.project.create(name="shop")
