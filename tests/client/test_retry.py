"""What is sent again, and what both sides see of it, over real connections."""

from __future__ import annotations

import asyncio
import builtins
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from support.oracle import SMALL, Oracle, Reply, Seen, answer, refuse

from infrai_async import (
    AsyncInfrai,
    AuthenticationError,
    ConnectError,
    DecodeError,
    InsufficientCreditError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    TimeoutError,
    TransportError,
)

pytestmark = pytest.mark.anyio
QUICK = RetryPolicy(initial=0.001, maximum=0.002)


def in_turn(*replies: Reply) -> Callable[[Seen], Reply]:
    """Answer with one reply after the other, the last one for ever."""
    left: Iterator[Reply] = iter(replies)
    last = replies[-1]
    return lambda seen: next(left, last)


def client_of(oracle: Oracle, **options: Any) -> AsyncInfrai:
    return AsyncInfrai("k", base_url=oracle.url, **{"retry": QUICK, **options})


WARM = answer(SMALL)
DROP = Reply(drop=True)


async def test_a_delete_whose_reused_connection_breaks_is_one_attempt_to_both_sides() -> None:
    with Oracle(in_turn(WARM, DROP)) as oracle:
        async with client_of(oracle, retry=RetryPolicy.none()) as client:
            await client.db.project.get("p")
            with pytest.raises(TransportError) as caught:
                await client.db.project.delete("p")
    deletes = [seen for seen in oracle.seen if seen.method == "DELETE"]
    assert len(deletes) == len(caught.value.attempts) == 1
    assert deletes[0].connection == 1  # it was the reused connection that broke
    assert caught.value.outcome == "maybe_applied"
    assert caught.value.idempotency_key == deletes[0].headers["idempotency-key"]


async def test_a_delete_that_is_sent_again_is_as_many_attempts_to_both_sides() -> None:
    with Oracle(in_turn(WARM, DROP)) as oracle:
        async with client_of(oracle) as client:
            await client.db.project.get("p")
            with pytest.raises(TransportError) as caught:
                await client.db.project.delete("p")
    deletes = [seen for seen in oracle.seen if seen.method == "DELETE"]
    assert len(deletes) == len(caught.value.attempts) == 4
    assert len({seen.headers["idempotency-key"] for seen in deletes}) == 1


async def test_a_delete_that_was_done_before_its_connection_broke_succeeds() -> None:
    with Oracle(in_turn(DROP, refuse(404, "DB_PROJECT_NOT_FOUND"))) as oracle:
        async with client_of(oracle) as client:
            assert await client.db.project.delete("p")
    assert len(oracle.seen) == 2


@pytest.mark.parametrize("bad", [DROP, Reply(body=b'{"ok": true, "da', cut=10), Reply(status=500, body=b"oops")])
async def test_a_create_that_may_have_happened_is_sent_again_with_its_key(bad: Reply) -> None:
    with Oracle(in_turn(bad, answer(SMALL))) as oracle:
        async with client_of(oracle) as client:
            project = await client.db.project.create(name="shop")
    assert project.id == "p1"
    first, second = oracle.seen
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.body == second.body


@pytest.mark.parametrize(
    "bad", [DROP, Reply(status=502, body=b"<html>"), refuse(503, "X", headers={"Retry-After": "0.01"})]
)
async def test_a_flag_write_that_may_have_happened_is_not_sent_again(bad: Reply) -> None:
    with Oracle(in_turn(bad)) as oracle:
        async with client_of(oracle) as client:
            with pytest.raises((TransportError, ServerError)) as caught:
                await client.flags.set("f", enabled=True)
    assert len(oracle.seen) == 1
    assert caught.value.outcome == "maybe_applied"
    assert caught.value.idempotency_key == oracle.seen[0].headers["idempotency-key"]


async def test_a_flag_write_that_the_service_calls_retryable_is_sent_again() -> None:
    flag = {"key": "f", "version": 2}
    with Oracle(in_turn(refuse(503, "X", retryable=True), answer(flag))) as oracle:
        async with client_of(oracle) as client:
            assert (await client.flags.set("f", enabled=True)).version == 2


async def test_a_connection_that_was_never_made_is_tried_again_for_any_call() -> None:
    with Oracle(in_turn(WARM)) as oracle:
        url = oracle.url
    async with AsyncInfrai("k", base_url=url, retry=QUICK) as client:
        with pytest.raises(ConnectError) as caught:
            await client.flags.set("f", enabled=True)
    assert caught.value.outcome == "not_sent"
    assert len(caught.value.attempts) == 4
    assert all(attempt.status is None and attempt.error for attempt in caught.value.attempts)


async def test_attempts_say_what_happened_to_each() -> None:
    with Oracle(in_turn(DROP, refuse(500, "INTERNAL_ERROR"), refuse(400, "VALIDATION_ERROR"))) as oracle:
        async with client_of(oracle) as client:
            with pytest.raises(Exception, match="VALIDATION_ERROR") as caught:
                await client.db.project.get("p")
    assert [attempt.status for attempt in caught.value.attempts] == [None, 500, 400]
    assert [attempt.error for attempt in caught.value.attempts][1:] == ["INTERNAL_ERROR", "VALIDATION_ERROR"]
    assert all(attempt.seconds > 0 and attempt.started_at.tzinfo is UTC for attempt in caught.value.attempts)


async def test_a_402_is_never_sent_again_and_says_where_to_pay() -> None:
    reply = refuse(402, "INSUFFICIENT_CREDIT", checkout_url="https://pay", retryable=True)
    with Oracle(in_turn(reply)) as oracle:
        async with client_of(oracle) as client:
            with pytest.raises(InsufficientCreditError) as caught:
                await client.db.project.create(name="x")
    assert caught.value.checkout_url == "https://pay"
    assert len(oracle.seen) == 1


def http_date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("form", ["whole", "fraction", "date"])
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_holds_the_whole_pool_and_uses_up_no_attempt(form: str, status: int) -> None:
    waits = {"whole": lambda: "1", "fraction": lambda: "0.3", "date": lambda: http_date(2)}
    pushed_back: list[float] = []

    def reply(seen: Seen) -> Reply:
        if not pushed_back:
            pushed_back.append(time.monotonic())
            return refuse(status, "RATE_LIMITED", headers={"Retry-After": waits[form]()})
        arrived.append(time.monotonic())
        return answer(SMALL)

    arrived: list[float] = []
    with Oracle(reply) as oracle:
        async with client_of(oracle, retry=RetryPolicy(max_attempts=2)) as client:
            first = asyncio.create_task(client.db.project.get("a"))
            while not pushed_back:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)  # the answer is on its way to the client
            await client.db.project.get("b")
            await first
            assert client.stats.throttled_seconds > 0
    least = {"whole": 1.0, "fraction": 0.3, "date": 0.9}[form]
    assert len(arrived) == 2
    assert min(arrived) - pushed_back[0] >= least - 0.01


async def test_a_429_may_come_more_often_than_there_are_attempts() -> None:
    limited = refuse(429, "RATE_LIMITED", headers={"Retry-After": "0.01"})
    with Oracle(in_turn(*[limited] * 9, answer(SMALL))) as oracle:
        async with client_of(oracle) as client:
            assert (await client.db.project.create(name="x")).id == "p1"
    assert len(oracle.seen) == 10


async def test_none_never_sends_twice_not_even_after_a_429() -> None:
    with Oracle(in_turn(refuse(429, "RATE_LIMITED", headers={"Retry-After": "0.01"}))) as oracle:
        async with client_of(oracle, retry=RetryPolicy.none()) as client:
            with pytest.raises(RateLimitError) as caught:
                await client.db.project.get("p")
    assert len(oracle.seen) == 1
    assert caught.value.retry_after == 0.01


async def test_a_pause_that_cannot_fit_raises_the_error_in_hand_at_once() -> None:
    with Oracle(in_turn(refuse(429, "RATE_LIMITED", headers={"Retry-After": "3600"}))) as oracle:
        async with client_of(oracle, timeout=30) as client:
            began = time.monotonic()
            with pytest.raises(RateLimitError) as caught:
                await client.db.project.get("p")
            with pytest.raises(RateLimitError) as met_the_gate:
                await client.db.project.get("q")
    assert time.monotonic() - began < 10
    assert caught.value.retry_after == 3600.0
    assert met_the_gate.value.retry_after == pytest.approx(3600, abs=10)
    assert met_the_gate.value.outcome == "not_sent"
    assert met_the_gate.value.attempts == ()
    assert len(oracle.seen) == 1


async def test_cancelling_whoever_waits_at_the_gate_blocks_nobody() -> None:
    with Oracle(in_turn(refuse(429, "RATE_LIMITED", headers={"Retry-After": "0.4"}), answer(SMALL))) as oracle:
        async with client_of(oracle, max_concurrency=2) as client:
            first = asyncio.create_task(client.db.project.get("a"))
            while client.stats.throttled_seconds == 0:
                await asyncio.sleep(0.005)
            others = [asyncio.create_task(client.db.project.get("b")) for _ in range(20)]
            await asyncio.sleep(0.05)
            for task in [first, *others[:19]]:
                task.cancel()
            assert (await others[19]).id == "p1"
            assert client.stats.in_flight == client.stats.waiting == 0


async def test_the_whole_call_has_one_deadline() -> None:
    with Oracle(in_turn(answer(SMALL, delay=5))) as oracle:
        async with client_of(oracle, timeout=0.2) as client:
            began = time.monotonic()
            with pytest.raises(TimeoutError) as caught:
                await client.db.project.get("p")
            assert time.monotonic() - began < 2
            assert client.stats.in_flight == 0
    assert caught.value.outcome == "maybe_applied"
    assert len(caught.value.attempts) == 1


async def test_time_spent_waiting_for_a_place_counts() -> None:
    with Oracle(in_turn(answer(SMALL, delay=0.5))) as oracle:
        async with client_of(oracle, max_concurrency=1) as client:
            slow = asyncio.create_task(client.db.project.get("a"))
            await asyncio.sleep(0.05)
            with pytest.raises(TimeoutError, match="waited for a place") as caught:
                await client.with_options(timeout=0.1).db.project.get("b")
            await slow
    assert caught.value.outcome == "not_sent"
    assert caught.value.attempts == ()
    assert len(oracle.seen) == 1


async def test_a_cancelled_call_frees_its_place_and_its_connection_at_once() -> None:
    with Oracle(lambda seen: answer(SMALL, delay=5 if seen.path.endswith("slow") else 0)) as oracle:
        async with client_of(oracle, max_concurrency=1) as client:
            slow = asyncio.create_task(client.db.project.get("slow"))
            await asyncio.sleep(0.05)
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            assert client.stats.in_flight == 0
            assert (await client.db.project.get("quick")).id == "p1"


async def test_a_timeout_around_a_call_is_the_callers_own() -> None:
    with Oracle(in_turn(answer(SMALL, delay=5))) as oracle:
        async with client_of(oracle) as client:
            with pytest.raises(builtins.TimeoutError) as caught:
                async with asyncio.timeout(0.1):
                    await client.db.project.get("p")
    assert not isinstance(caught.value, TimeoutError)


async def test_a_key_function_is_asked_again_after_a_401() -> None:
    keys = iter(["old", "new", "never"])

    async def give() -> str:
        await asyncio.sleep(0)
        return next(keys)

    def reply(seen: Seen) -> Reply:
        return answer(SMALL) if seen.headers["authorization"] == "Bearer new" else refuse(401, "UNAUTHORIZED")

    with Oracle(reply) as oracle:
        async with AsyncInfrai(give, base_url=oracle.url) as client:
            await asyncio.gather(*(client.flags.set("f") for _ in range(1)), return_exceptions=True)
            await client.db.project.get("p")
            await client.db.project.get("p")
    assert [seen.headers["authorization"] for seen in oracle.seen] == ["Bearer old"] + ["Bearer new"] * 3
    assert next(keys) == "never"


async def test_a_fixed_key_that_is_refused_is_an_error_at_once() -> None:
    with Oracle(in_turn(refuse(401, "UNAUTHORIZED"))) as oracle:
        async with client_of(oracle) as client:
            with pytest.raises(AuthenticationError):
                await client.db.project.get("p")
    assert len(oracle.seen) == 1


async def test_an_answer_without_end_is_given_up_and_not_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrai_async._pool.LARGEST_ANSWER", 100_000)
    with Oracle(in_turn(Reply(body=b" " * 300_000 + b"{}"), answer(SMALL))) as oracle:
        async with client_of(oracle) as client:
            with pytest.raises(DecodeError, match="larger than"):
                await client.db.project.get("p")
            assert (await client.db.project.get("p")).id == "p1"
    assert [seen.connection for seen in oracle.seen] == [1, 2]


async def test_a_refusal_that_repeats_the_key_does_not_show_it() -> None:
    with Oracle(in_turn(refuse(401, "UNAUTHORIZED", hint="ifr_topsecret is unknown"))) as oracle:
        async with AsyncInfrai("ifr_topsecret", base_url=oracle.url) as client:
            with pytest.raises(AuthenticationError) as caught:
                await client.db.project.get("p")
    assert caught.value.hint == "*** is unknown"


async def test_a_session_that_was_closed_under_the_client_is_replaced() -> None:
    with Oracle(in_turn(WARM)) as oracle:
        async with client_of(oracle) as client:
            await client.db.project.get("p")
            await asyncio.get_running_loop().shutdown_asyncgens()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # of a generator begun after that, which asyncio notes
                assert (await client.db.project.get("p")).id == "p1"
    assert [seen.connection for seen in oracle.seen] == [1, 2]
