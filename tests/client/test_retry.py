"""What is sent again, and what both sides see of it, over real connections."""

from __future__ import annotations

import asyncio
import builtins
import gc
import time
import weakref
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
import attrs
import pytest
from support.oracle import SMALL, Oracle, Reply, Seen, answer, in_turn, refuse
from support.patience import LONG, SOON, eventually

from infrai_async import (
    AsyncInfrai,
    AttemptSent,
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    ConnectError,
    DecodeError,
    Event,
    InsufficientCreditError,
    InvalidArgument,
    RateLimitError,
    RetryPolicy,
    ServerError,
    TimeoutError,
    TransportError,
)
from infrai_async._protocol.rate import RateEstimator

pytestmark = pytest.mark.anyio
QUICK = RetryPolicy(initial=0.001, maximum=0.002)


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
    assert time.monotonic() - began < SOON
    assert caught.value.retry_after == 300.0
    assert met_the_gate.value.retry_after == pytest.approx(300, abs=10)
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
    with Oracle(in_turn(answer(SMALL, delay=LONG))) as oracle:
        async with client_of(oracle, timeout=0.5) as client:
            began = time.monotonic()
            with pytest.raises(TimeoutError) as caught:
                await client.db.project.get("p")
            assert time.monotonic() - began < SOON
            assert client.stats.in_flight == 0
    assert caught.value.outcome == "maybe_applied"
    assert len(caught.value.attempts) == 1


async def test_time_spent_waiting_for_a_place_counts() -> None:
    with Oracle(in_turn(answer(SMALL, delay=1))) as oracle:
        async with client_of(oracle, max_concurrency=1) as client:
            slow = asyncio.create_task(client.db.project.get("a"))
            await eventually(lambda: oracle.seen)
            with pytest.raises(TimeoutError, match="waited for a slot") as caught:
                await client.with_options(timeout=0.1).db.project.get("b")
            await slow
    assert caught.value.outcome == "not_sent"
    assert caught.value.attempts == ()
    assert len(oracle.seen) == 1


async def test_a_cancelled_call_frees_its_place_and_its_connection_at_once() -> None:
    with Oracle(lambda seen: answer(SMALL, delay=LONG if seen.path.endswith("slow") else 0)) as oracle:
        async with client_of(oracle, max_concurrency=1) as client:
            slow = asyncio.create_task(client.db.project.get("slow"))
            await eventually(lambda: oracle.seen)
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            assert client.stats.in_flight == 0
            assert (await client.db.project.get("quick")).id == "p1"


async def test_a_timeout_around_a_call_is_the_callers_own() -> None:
    with Oracle(in_turn(answer(SMALL, delay=LONG))) as oracle:
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
    monkeypatch.setattr("infrai_async._transport.pool.LARGEST_RESPONSE", 100_000)
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


# --- time, keys and figures, where they meet -----------------------------------------------------------------------


async def test_time_that_runs_out_while_another_key_is_fetched_ends_the_call() -> None:
    asked = 0

    async def give() -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0 if asked == 1 else LONG)
        return f"key-number-{asked}"

    with Oracle(in_turn(refuse(401, "UNAUTHORIZED"), answer(SMALL))) as oracle:
        async with AsyncInfrai(give, base_url=oracle.url, timeout=0.5) as client:
            began = time.monotonic()
            with pytest.raises((AuthenticationError, TimeoutError)):
                await client.db.project.create(name="x")
            assert time.monotonic() - began < SOON
    assert len(oracle.seen) == 1


async def test_time_that_runs_out_during_a_pause_ends_the_call() -> None:
    policy = RetryPolicy(initial=0.4, maximum=0.4)
    with Oracle(in_turn(refuse(500, "X", retryable=True, headers={"Retry-After": "0.3"}), answer(SMALL))) as oracle:
        async with client_of(oracle, retry=policy, timeout=0.5) as client:
            call = asyncio.create_task(client.db.project.get("p"))
            while not oracle.seen:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)
            time.sleep(0.6)  # the loop is blocked past the deadline and the pause: both fire at once
            with pytest.raises((ServerError, TimeoutError)):
                await call
    assert len(oracle.seen) == 1


async def test_a_slow_key_function_is_named_when_time_runs_out() -> None:
    async def give() -> str:
        await asyncio.sleep(LONG)
        return "never"

    async with AsyncInfrai(give, base_url="http://127.0.0.1:9", timeout=0.1) as client:
        with pytest.raises(TimeoutError, match="waited for the API key"):
            await client.db.project.get("p")


async def test_a_key_function_that_fails_is_an_error_of_the_call() -> None:
    answers = iter(["old"])

    def give() -> str:
        return next(answers)

    with Oracle(in_turn(refuse(401, "UNAUTHORIZED"))) as oracle:
        async with AsyncInfrai(give, base_url=oracle.url) as client:
            with pytest.raises(AuthenticationError) as refused:
                await client.db.project.get("p")
    assert isinstance(refused.value.__cause__, ConfigurationError)
    assert isinstance(refused.value.__cause__.__cause__, StopIteration)
    async with AsyncInfrai(give, base_url="http://127.0.0.1:9") as client:
        with pytest.raises(ConfigurationError, match=r"^db\.project\.get: the api_key function failed"):
            await client.db.project.get("p")


async def test_many_refused_calls_ask_for_another_key_once() -> None:
    asked = 0

    async def give() -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)
        return "the-same-key"

    with Oracle(lambda seen: refuse(401, "UNAUTHORIZED")) as oracle:
        async with AsyncInfrai(give, base_url=oracle.url) as client:
            calls = [client.db.project.get("p") for _ in range(20)]
            results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} == {AuthenticationError}
    assert asked <= 3


async def test_a_public_call_asks_for_no_key() -> None:
    def give() -> str:
        raise AssertionError("nobody needs a key here")

    with Oracle(in_turn(refuse(401, "UNAUTHORIZED"))) as oracle:
        async with AsyncInfrai(give, base_url=oracle.url) as client:
            with pytest.raises(AuthenticationError):
                await client.discovery.list()
    assert len(oracle.seen) == 1


async def test_places_go_to_whoever_has_waited_longest() -> None:
    with Oracle(lambda seen: answer(SMALL, delay=0.002)) as oracle:
        async with client_of(oracle, max_concurrency=1) as client:
            names = [f"{number:02}" for number in range(30)]
            waiting = [asyncio.create_task(client.db.project.get(name)) for name in names]
            await asyncio.sleep(0.02)
            waiting[13].cancel()
            waiting.append(asyncio.create_task(client.db.project.get("last")))
            await asyncio.wait(waiting)
    assert [seen.path.rpartition("/")[2] for seen in oracle.seen] == [*names[:13], *names[14:], "last"]


async def test_who_gave_up_at_the_gate_delays_nobody_behind() -> None:
    gate = refuse(429, "RATE_LIMITED", headers={"Retry-After": "0.3"})
    with Oracle(in_turn(gate, answer(SMALL))) as oracle:
        async with client_of(oracle, max_concurrency=2000) as client:
            with pytest.raises(RateLimitError):
                await client.with_options(retry=RetryPolicy.none()).db.project.get("first")
            calls = [asyncio.create_task(client.db.project.get("p")) for _ in range(1500)]
            await asyncio.sleep(0.05)
            for call in calls[:-1]:
                call.cancel()
            began = time.monotonic()
            await calls[-1]
    assert time.monotonic() - began < 10  # so many turns would take twenty seconds more
    assert len(oracle.seen) == 2


async def test_retries_draw_on_one_quota_of_the_pool_that_successes_earn_back() -> None:
    with Oracle(lambda seen: refuse(500)) as oracle:
        async with client_of(oracle, retry=RetryPolicy(initial=0.0)) as client:
            views = [client, client.with_options(timeout=30)]
            calls = [view.db.project.get("p") for view in views for _ in range(60)]
            failed = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(error) for error in failed} == {ServerError}
            assert client.stats.retries == 100
            assert len(oracle.seen) == 120 + 100
            oracle.reply = lambda seen: answer(SMALL)
            for _ in range(10):
                await client.db.project.get("p")
            oracle.reply = lambda seen: refuse(500)
            with pytest.raises(ServerError) as caught:
                await client.db.project.get("p")
    assert len(caught.value.attempts) == 1 + 2


async def test_a_429_that_names_no_time_holds_the_pool_as_long_as_its_own_call_pauses() -> None:
    days = RetryPolicy(initial=1e6, maximum=1e6)  # the pause is drawn from zero up: one in five million is that short
    with Oracle(in_turn(refuse(429, "RATE_LIMITED"), answer(SMALL))) as oracle:
        async with client_of(oracle, retry=days, timeout=None) as client:
            refused = asyncio.create_task(client.db.project.get("refused"))
            while not client.stats.throttled_seconds:
                await asyncio.sleep(0.01)
            with pytest.raises(RateLimitError, match="asked for a pause"):
                await client.with_options(timeout=0.2).db.project.get("other")
            refused.cancel()
    assert len(oracle.seen) == 1


@pytest.mark.parametrize("places", [64, 1], ids=["at the gate", "for a place"])
async def test_who_waits_is_told_at_once_that_the_gate_now_opens_too_late(places: int) -> None:
    def reply(seen: Seen) -> Reply:
        if "slow" in seen.target:
            return attrs.evolve(refuse(429, "RATE_LIMITED", headers={"Retry-After": "60"}), delay=0.5)
        return refuse(429, "RATE_LIMITED", headers={"Retry-After": "1"}) if "first" in seen.target else answer(SMALL)

    with Oracle(reply) as oracle:
        async with client_of(oracle, max_concurrency=places, retry=RetryPolicy.none()) as client:
            slow = asyncio.create_task(client.db.project.get("slow"))
            await eventually(lambda: oracle.seen)
            if places > 1:
                with pytest.raises(RateLimitError):
                    await client.db.project.get("first")
            began = time.monotonic()
            with pytest.raises(RateLimitError) as caught:
                await client.with_options(timeout=50).db.project.get("p")
            assert time.monotonic() - began < SOON
            with pytest.raises(RateLimitError):
                await slow
    assert caught.value.outcome == "not_sent"
    assert 30 < (caught.value.retry_after or 0) < 61


async def test_a_client_that_is_dropped_while_its_gate_is_closed_is_collected() -> None:
    with Oracle(lambda seen: refuse(429, "RATE_LIMITED", headers={"Retry-After": "60"})) as oracle:
        client = client_of(oracle, retry=RetryPolicy.none())
        with pytest.raises(RateLimitError):
            await client.db.project.get("p")
        waiting = asyncio.create_task(client.with_options(timeout=None).db.project.get("p"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait([waiting])
        pool = weakref.ref(client._dispatcher.pool)
        del client, waiting
        gc.collect()
        assert pool() is None
        await asyncio.sleep(0.2)  # for its session to close


@pytest.mark.parametrize("closed_anew", [False, True])
async def test_calls_leave_the_gate_in_the_order_in_which_they_came(
    closed_anew: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = RateEstimator.start
    turns: list[float] = []
    entered: list[str] = []

    def start_and_close(pace: RateEstimator, now: float, waiting: int) -> None:
        start(pace, now, waiting)
        turns.append(now)
        if closed_anew and len(turns) == 3:  # by another call's answer, before the one whose turn it is goes on
            pool._admission._gate.close(now + 0.2, now)

    def note(event: Event) -> None:
        if isinstance(event, AttemptSent):
            entered.append(event.path.rpartition("/")[2])

    monkeypatch.setattr(RateEstimator, "start", start_and_close)
    gate = refuse(429, "RATE_LIMITED", headers={"Retry-After": "0.5"})
    with Oracle(in_turn(gate, answer(SMALL))) as oracle:
        options: dict[str, Any] = {"max_concurrency": 64, "retry": RetryPolicy.none(), "on_event": note}
        async with client_of(oracle, **options) as client:
            with pytest.raises(RateLimitError):
                await client.db.project.get("first")
            entered.clear()
            pool = client._dispatcher.pool
            calls = []
            for number in range(40):
                calls.append(asyncio.create_task(client.db.project.get(f"{number:02}")))
                await asyncio.sleep(0.002)
            await asyncio.gather(*calls)
    assert entered == [f"{number:02}" for number in range(40)]
    assert len(turns) == 40 + closed_anew


async def test_figures_count_what_is_under_way_and_nothing_that_is_no_retry() -> None:
    with Oracle(lambda seen: answer(SMALL, delay=1)) as oracle:
        async with client_of(oracle) as client:
            calls = [asyncio.create_task(client.db.project.get("p")) for _ in range(3)]
            await eventually(lambda: len(oracle.seen) == 3)
            assert (client.stats.calls, client.stats.in_flight, client.stats.succeeded) == (3, 3, 0)
            await asyncio.gather(*calls)
            with pytest.raises(InvalidArgument):
                await client.db.project.get("")
            assert (client.stats.calls, client.stats.succeeded, client.stats.failed) == (3, 3, 0)

    def only_current(seen: Seen) -> Reply:
        return Reply(status=404) if "/buckets" in seen.path else answer({"items": []})

    with Oracle(only_current) as oracle:
        async with client_of(oracle, retry=RetryPolicy.none()) as client:
            assert await client.storage.bucket.list().collect() == []
            assert (client.stats.attempts, client.stats.retries) == (2, 0)

    with Oracle(in_turn(refuse(500), answer(SMALL))) as oracle:
        async with client_of(oracle) as client:
            await client.db.project.get("p")
            assert (client.stats.attempts, client.stats.retries) == (2, 1)


async def test_what_an_answer_cost_counts_also_when_it_cannot_be_read() -> None:
    with Oracle(in_turn(answer({"id": 5}))) as oracle:
        async with client_of(oracle) as client:
            with pytest.raises(DecodeError):
                await client.db.project.create(name="x")
            assert str(client.stats.cost_usd) == "0.001"


async def test_throttled_seconds_grow_with_the_time_that_has_passed() -> None:
    with Oracle(in_turn(refuse(429, "RATE_LIMITED", headers={"Retry-After": "1000"}))) as oracle:
        async with client_of(oracle, retry=RetryPolicy.none()) as client:
            with pytest.raises(RateLimitError):
                await client.db.project.get("p")
            assert client.stats.throttled_seconds < 10


async def test_an_attempt_says_how_long_its_call_waited_before_it() -> None:
    bad = refuse(500, "X", headers={"Retry-After": "0.2"})
    with Oracle(in_turn(bad, bad, refuse(400))) as oracle:
        async with client_of(oracle) as client:
            with pytest.raises(BadRequestError) as caught:
                await client.db.project.get("p")
    first, second, third = caught.value.attempts
    assert first.waited < 0.1
    assert 0.19 < second.waited < 2
    assert 0.19 < third.waited < 2


async def test_errors_say_which_call_they_belong_to_also_when_nothing_could_be_sent() -> None:
    client = AsyncInfrai("k", base_url="http://127.0.0.1:9")
    await client.aclose()
    with pytest.raises(ClientClosedError) as closed:
        await client.db.project.create(name="x", idempotency_key="mine")
    keyless = AsyncInfrai(base_url="http://127.0.0.1:9")
    with pytest.raises(ConfigurationError) as missing:
        await keyless.db.project.create(name="x", idempotency_key="mine")
    for error in (closed.value, missing.value):
        assert (error.capability, error.idempotency_key, error.outcome) == ("db.project.create", "mine", "not_sent")


async def test_an_error_is_one_line_whatever_the_service_says() -> None:
    reply = refuse(400, "CODE\n", message="line one\nline two\x1b[31m", hint="do\r\nthis")
    with Oracle(in_turn(reply)) as oracle:
        async with client_of(oracle) as client:
            with pytest.raises(BadRequestError) as caught:
                await client.db.project.get("p")
    assert str(caught.value) == "db.project.get: CODE (400): line one line two[31m"
    assert caught.value.__notes__ == ["hint: do this"]


async def test_a_session_that_its_owner_closes_during_a_pause_is_named() -> None:
    with Oracle(in_turn(refuse(500, "X", headers={"Retry-After": "1"}))) as oracle:
        async with aiohttp.ClientSession() as session:
            client = client_of(oracle, session=session)
            call = asyncio.create_task(client.db.project.get("p"))
            await eventually(lambda: oracle.seen)
            await asyncio.sleep(0.3)  # the answer is on its way to the client
        with pytest.raises(ConfigurationError, match=r"db\.project\.get: session was closed") as caught:
            await call
    assert len(caught.value.attempts) == 1
    await client.aclose()


async def test_the_generic_call_takes_every_documented_parameter() -> None:
    with Oracle(in_turn(WARM)) as oracle:
        async with client_of(oracle) as client:
            await client.call("db.project.create", {"name": "x", "idempotency_key": "mine"})
            with pytest.raises(InvalidArgument, match="idempotency_key"):
                await client.call("db.project.get", {"id": "p"}, idempotency_key="mine")
            with pytest.raises(InvalidArgument, match=r"did you mean 'db\.project\.list'"):
                await client.call("db.project.lst")
    assert oracle.seen[0].headers["idempotency-key"] == "mine"
    assert oracle.seen[0].json["idempotency_key"] == "mine"
