"""What a listener hears of each call, over real connections."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from typing import Any

import aiohttp
import anyio
import pytest
from support.oracle import SMALL, Oracle, Reply, Seen, answer, in_turn, refuse
from support.patience import SOON, complaints

from infrai_async import (
    AsyncInfrai,
    AttemptSent,
    CallFinished,
    CallStarted,
    ClientClosedError,
    ConfigurationError,
    ConnectError,
    DecodeError,
    Event,
    InvalidArgument,
    NotFoundError,
    RateLimitError,
    Retrying,
    RetryPolicy,
    ServerError,
    Throttled,
    TimeoutError,
    TransportError,
)

pytestmark = pytest.mark.anyio
KEY = "sk-a-key-that-nobody-may-see"
QUICK = RetryPolicy(initial=0.001, maximum=0.002)
GOOD = answer(SMALL)
SLOW = answer(SMALL, delay=30.0)
FAULTY = refuse(500, "INTERNAL_ERROR")
BUSY = refuse(429, "RATE_LIMITED", headers={"Retry-After": "0.05"})
ONE_SEND = (CallStarted, AttemptSent, CallFinished)


def client_of(oracle: Oracle, heard: list[Event], **options: Any) -> AsyncInfrai:
    return AsyncInfrai(KEY, base_url=oracle.url, on_event=heard.append, **{"retry": QUICK, **options})


def kinds(heard: list[Event]) -> tuple[type[Event], ...]:
    """The kinds of events, which all are of one call, began with its start, and show no secret."""
    assert len({(event.capability, event.call) for event in heard}) <= 1
    assert KEY not in repr(heard)
    assert SMALL["connection_uri"] not in repr(heard)
    return tuple(type(event) for event in heard)


def last(heard: list[Event]) -> CallFinished:
    event = heard[-1]
    assert isinstance(event, CallFinished)
    return event


async def test_a_call_that_succeeds() -> None:
    heard: list[Event] = []
    with Oracle(in_turn(GOOD)) as oracle:
        async with client_of(oracle, heard) as client:
            await client.db.project.get("p")
    assert kinds(heard) == ONE_SEND
    assert [event.attempt for event in heard] == [0, 1, 1]
    assert {(event.capability, event.operation) for event in heard} == {("db.project.get", None)}
    sent, finished = heard[1], last(heard)
    assert isinstance(sent, AttemptSent)
    assert (sent.method, sent.origin) == ("GET", oracle.url)
    assert sent.path == oracle.seen[0].path
    assert 0 <= sent.waited <= finished.seconds
    assert (finished.error, finished.cancelled) == (None, False)
    assert (finished.cost_usd, finished.request_id) == (Decimal("0.001"), "r-1")
    assert (finished.status, finished.error_type) == (200, None)


async def test_each_page_of_a_listing_is_a_call_and_tells_no_query() -> None:
    def page(seen: Seen) -> Reply:
        return answer({"items": [SMALL], "next_cursor": None if "cursor=" in seen.target else "private"})

    heard: list[Event] = []
    with Oracle(page) as oracle:
        async with client_of(oracle, heard) as client:
            assert len(await client.db.project.list(limit=1).collect()) == 2
    assert len(oracle.seen) == 2
    assert Counter(type(event) for event in heard) == dict.fromkeys(ONE_SEND, 2)
    assert "private" in oracle.seen[1].target
    assert "private" not in repr(heard)


async def test_every_event_names_the_operation_that_the_call_is_made_in() -> None:
    heard: list[Event] = []
    with Oracle(in_turn(FAULTY, BUSY, GOOD)) as oracle:
        async with client_of(oracle, heard) as client:
            with client.operation("deploy-42"):
                with client.operation("db"):
                    await asyncio.create_task(client.db.project.create(name="shop"))
                await client.db.project.get("p")
            await client.db.project.get("p")
    names: dict[int, set[tuple[str, str | None]]] = {}
    for event in heard:
        names.setdefault(event.call, set()).add((event.capability, event.operation))
    assert {type(event) for event in heard} == {CallStarted, AttemptSent, Retrying, Throttled, CallFinished}
    assert list(names.values()) == [
        {("db.project.create", "deploy-42/db")},
        {("db.project.get", "deploy-42")},
        {("db.project.get", None)},
    ]


async def test_a_call_that_is_sent_again_after_a_fault() -> None:
    heard: list[Event] = []
    with Oracle(in_turn(FAULTY, Reply(drop=True), GOOD)) as oracle:
        async with client_of(oracle, heard) as client:
            await client.db.project.get("p")
    assert kinds(heard) == (CallStarted, AttemptSent, Retrying, AttemptSent, Retrying, AttemptSent, CallFinished)
    assert [event.attempt for event in heard] == [0, 1, 1, 2, 2, 3, 3]
    first, second = (event for event in heard if isinstance(event, Retrying))
    assert first.reason == "INTERNAL_ERROR"
    assert second.reason
    assert 0 <= first.seconds <= QUICK.maximum
    third = heard[5]
    assert isinstance(third, AttemptSent)
    assert third.waited >= second.seconds
    assert last(heard).error is None


async def test_a_call_whose_answer_throttles_the_pool() -> None:
    heard: list[Event] = []
    with Oracle(in_turn(BUSY, GOOD)) as oracle:
        async with client_of(oracle, heard) as client:
            await client.db.project.get("p")
    assert kinds(heard) == (CallStarted, AttemptSent, Throttled, AttemptSent, CallFinished)
    throttled, again = heard[2], heard[3]
    assert isinstance(throttled, Throttled)
    assert isinstance(again, AttemptSent)
    assert throttled.seconds == 0.05
    assert (throttled.attempt, again.attempt) == (1, 2)
    assert again.waited > 0.04
    assert last(heard).cost_usd == Decimal("0.001")


async def test_only_the_call_that_was_answered_so_says_that_the_pool_waits() -> None:
    heard: list[Event] = []
    with Oracle(in_turn(BUSY, GOOD)) as oracle:
        async with client_of(oracle, heard, max_concurrency=1) as client:
            await asyncio.gather(*(client.db.project.get("p") for _ in range(5)))
    assert [type(event) for event in heard].count(Throttled) == 1
    assert [type(event) for event in heard].count(CallFinished) == 5
    assert all(event.waited > 0.04 for event in heard[6:] if isinstance(event, AttemptSent))


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (refuse(404, "DB_PROJECT_NOT_FOUND"), NotFoundError),
        (Reply(body=b"<html>"), DecodeError),
        (FAULTY, ServerError),
        (Reply(drop=True), TransportError),
        (refuse(429, "RATE_LIMITED", headers={"Retry-After": "9"}), RateLimitError),
    ],
    ids=["refused", "unreadable", "faulty", "dropped", "throttled"],
)
async def test_a_call_that_fails(reply: Reply, error: type[Exception]) -> None:
    heard: list[Event] = []
    with Oracle(in_turn(reply)) as oracle:
        async with client_of(oracle, heard, retry=RetryPolicy.none()) as client:
            with pytest.raises(error) as caught:
                await client.db.project.get("p")
    assert [kind for kind in kinds(heard) if kind is not Throttled] == list(ONE_SEND)
    assert last(heard).error is caught.value
    assert not last(heard).cancelled


async def test_a_call_that_is_given_up_has_told_every_attempt() -> None:
    heard: list[Event] = []
    with Oracle(in_turn(FAULTY)) as oracle:
        async with client_of(oracle, heard) as client:
            with pytest.raises(ServerError) as caught:
                await client.db.project.get("p")
    told = Counter(kinds(heard))
    assert told == {CallStarted: 1, AttemptSent: 4, Retrying: 3, CallFinished: 1}
    assert last(heard).attempt == len(caught.value.attempts) == len(oracle.seen) == 4


async def test_a_call_whose_time_runs_out_while_it_is_answered() -> None:
    heard: list[Event] = []
    with Oracle(in_turn(SLOW)) as oracle:
        async with client_of(oracle, heard, timeout=0.5) as client:
            with pytest.raises(TimeoutError) as caught:
                await client.db.project.get("p")
    assert kinds(heard) == ONE_SEND
    assert (last(heard).error, last(heard).cancelled) == (caught.value, False)
    assert 0.4 < last(heard).seconds < SOON


async def test_a_call_whose_time_runs_out_while_it_waits_for_a_place() -> None:
    heard: list[Event] = []
    with Oracle(in_turn(SLOW)) as oracle:
        async with client_of(oracle, heard, max_concurrency=1) as client:
            holder = asyncio.create_task(client.db.project.get("p"))
            while not oracle.seen:
                await asyncio.sleep(0.001)
            with pytest.raises(TimeoutError):
                await client.with_options(timeout=0.05).db.project.get("p")
            holder.cancel()
            await asyncio.wait([holder])
    heard = [event for event in heard if event.call != heard[0].call]
    assert kinds(heard) == (CallStarted, CallFinished)
    assert [event.attempt for event in heard] == [0, 0]


async def test_a_call_that_is_cancelled_while_it_is_answered() -> None:
    heard: list[Event] = []
    with Oracle(in_turn(SLOW)) as oracle:
        async with client_of(oracle, heard) as client:
            with anyio.move_on_after(0.05) as scope:
                await client.db.project.get("p")
    assert scope.cancelled_caught
    assert kinds(heard) == ONE_SEND
    assert (last(heard).error, last(heard).cancelled) == (None, True)


async def test_a_call_that_is_cancelled_between_attempts() -> None:
    heard: list[Event] = []
    retrying = asyncio.Event()

    def listen(event: Event) -> None:
        heard.append(event)
        if isinstance(event, Retrying):
            retrying.set()

    with Oracle(in_turn(refuse(503, "BUSY", retryable=True, headers={}))) as oracle:
        policy = RetryPolicy(initial=30.0, maximum=30.0)
        async with AsyncInfrai(KEY, base_url=oracle.url, retry=policy, timeout=None, on_event=listen) as client:
            task = asyncio.create_task(client.db.project.get("p"))
            await asyncio.wait_for(retrying.wait(), 60)
            task.cancel()
            await asyncio.wait([task])
    assert kinds(heard) == (CallStarted, AttemptSent, Retrying, CallFinished)
    assert last(heard).cancelled


async def test_a_call_of_a_closed_client() -> None:
    heard: list[Event] = []
    with Oracle(in_turn(GOOD)) as oracle:
        client = client_of(oracle, heard)
        await client.aclose()
        with pytest.raises(ClientClosedError) as caught:
            await client.db.project.get("p")
    assert kinds(heard) == (CallStarted, CallFinished)
    assert last(heard).error is caught.value


async def test_a_call_whose_client_is_closed_before_the_answer() -> None:
    heard: list[Event] = []
    with Oracle(in_turn(SLOW)) as oracle:
        client = client_of(oracle, heard)
        task = asyncio.create_task(client.db.project.get("p"))
        while not oracle.seen:
            await asyncio.sleep(0.001)
        await client.aclose(grace=0)
        with pytest.raises(TransportError) as caught:
            await task
    assert kinds(heard) == ONE_SEND
    assert (last(heard).error, last(heard).cancelled) == (caught.value, False)


async def test_a_call_without_a_key_ends_without_being_sent() -> None:
    heard: list[Event] = []
    with Oracle(in_turn(GOOD)) as oracle:
        async with AsyncInfrai(base_url=oracle.url, on_event=heard.append) as client:
            with pytest.raises(ConfigurationError) as caught:
                await client.db.project.get("p")
    assert kinds(heard) == (CallStarted, CallFinished)
    assert last(heard).error is caught.value


async def test_a_call_in_a_loop_that_the_session_does_not_belong_to() -> None:
    heard: list[Event] = []
    with Oracle(in_turn(GOOD)) as oracle:
        session = aiohttp.ClientSession()
        await session.close()
        async with client_of(oracle, heard, session=session) as client:
            with pytest.raises(ConfigurationError, match="closed"):
                await client.db.project.get("p")
    assert kinds(heard) == (CallStarted, CallFinished)


async def test_a_service_that_is_not_there() -> None:
    heard: list[Event] = []
    with Oracle(in_turn(GOOD)) as oracle:
        pass
    async with client_of(oracle, heard, retry=RetryPolicy.none()) as client:
        with pytest.raises(ConnectError):
            await client.db.project.get("p")
    assert kinds(heard) == ONE_SEND


async def test_a_wrong_argument_makes_no_event() -> None:
    heard: list[Event] = []
    with Oracle(in_turn(GOOD)) as oracle:
        async with client_of(oracle, heard) as client:
            with pytest.raises(InvalidArgument):
                await client.db.project.get("")
            with pytest.raises(InvalidArgument):
                await client.call("db.project.get", {"nonsense": 1})
    assert heard == []


async def test_a_key_that_the_service_repeats_is_not_told() -> None:
    heard: list[Event] = []
    with Oracle(in_turn(refuse(403, "FORBIDDEN", message=f"{KEY} may not"))) as oracle:
        async with client_of(oracle, heard) as client:
            with pytest.raises(Exception, match="may not"):
                await client.db.project.get("p")
    assert kinds(heard) == ONE_SEND


async def test_a_listener_that_raises_breaks_no_call(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []

    def faulty(event: Event) -> None:
        heard.append(event)
        raise RuntimeError("a fault of the listener's")

    with Oracle(in_turn(FAULTY, GOOD)) as oracle:
        async with AsyncInfrai(KEY, base_url=oracle.url, retry=QUICK, on_event=faulty) as client:
            for _ in range(5):
                assert (await client.db.project.get("p")).id == "p1"
            assert client.stats.succeeded == 5
    assert len(heard) == 5 * len(ONE_SEND) + 2
    faults = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(faults) == len({type(event) for event in heard}) == 4
    assert KEY not in caplog.text


@pytest.mark.parametrize("kind", [CallStarted, AttemptSent, CallFinished])
async def test_an_interrupt_in_a_listener_ends_the_call_and_frees_its_place(kind: type[Event]) -> None:
    heard: list[Event] = []

    class Stop(BaseException):
        pass

    def stopping(event: Event) -> None:
        heard.append(event)
        if isinstance(event, kind) and event.call == heard[0].call:
            raise Stop

    with Oracle(in_turn(GOOD)) as oracle:
        async with AsyncInfrai(KEY, base_url=oracle.url, max_concurrency=1, on_event=stopping) as client:
            with pytest.raises(Stop):
                await client.db.project.get("p")
            assert [type(event) for event in heard].count(CallFinished) == 1
            assert client.stats.in_flight == 0
            assert (await client.db.project.get("p")).id == "p1"


async def test_a_listener_may_ask_for_the_figures_and_finds_the_call_in_them() -> None:
    asked: list[tuple[type[Event], int, int]] = []

    def asking(event: Event) -> None:
        stats = client.stats
        asked.append((type(event), stats.succeeded, stats.in_flight))

    with Oracle(in_turn(FAULTY, BUSY, GOOD)) as oracle:
        async with AsyncInfrai(KEY, base_url=oracle.url, retry=QUICK, on_event=asking) as client:
            await client.db.project.get("p")
    assert {kind for kind, _, _ in asked} == {CallStarted, AttemptSent, Retrying, Throttled, CallFinished}
    assert asked[-1] == (CallFinished, 1, 0)


async def test_a_view_tells_the_same_listener() -> None:
    heard: list[Event] = []
    with Oracle(in_turn(GOOD)) as oracle:
        async with client_of(oracle, heard) as client:
            await client.with_options(timeout=5).db.project.get("p")
    assert kinds(heard) == ONE_SEND


async def test_every_call_of_a_crowd_begins_once_and_ends_once() -> None:
    def mixed(seen: Seen) -> Reply:
        return [GOOD, FAULTY, Reply(drop=True), GOOD, SLOW][hash((seen.connection, len(oracle.seen))) % 5]

    heard: list[Event] = []
    with Oracle(mixed) as oracle:
        async with client_of(oracle, heard, max_concurrency=20, timeout=0.5) as client:
            tasks = [asyncio.create_task(client.db.project.get("p")) for _ in range(200)]
            await asyncio.sleep(0.2)
            for task in tasks[::3]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
    for kind in (CallStarted, CallFinished):
        ends = Counter(event.call for event in heard if isinstance(event, kind))
        assert len(ends) == 200
        assert set(ends.values()) == {1}
    finished = [event for event in heard if isinstance(event, CallFinished)]
    failed = [result for result in results if isinstance(result, Exception)]
    assert {id(event.error) for event in finished if event.error} == {id(error) for error in failed}
    assert sum(event.cancelled for event in finished) == sum(
        isinstance(result, asyncio.CancelledError) for result in results
    )


def test_a_call_whose_loop_ends_still_ends() -> None:
    heard: list[Event] = []

    async def leave() -> None:
        client = client_of(oracle, heard)
        asyncio.get_running_loop().call_soon(asyncio.ensure_future, client.db.project.get("p"))
        while not oracle.seen:
            await asyncio.sleep(0.001)

    with Oracle(in_turn(SLOW)) as oracle:
        asyncio.run(leave())
    assert kinds(heard) == ONE_SEND
    assert last(heard).cancelled


def test_a_client_without_a_listener_does_not_even_load_what_tells_it() -> None:
    code = (
        "import asyncio, sys\n"
        "from infrai_async._client import AsyncInfrai\n"
        "async def main():\n"
        "    async with AsyncInfrai('k', base_url=sys.argv[1]) as client:\n"
        "        print((await client.db.project.get('p')).id, *(name in sys.modules for name in sys.argv[2:]))\n"
        "asyncio.run(main())\n"
    )
    with Oracle(in_turn(GOOD)) as oracle:
        command = [
            sys.executable,
            "-c",
            code,
            oracle.url,
            "infrai_async._observability.reporter",
            "infrai_async._observability.events",
        ]
        run = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (run.stdout, complaints(run.stderr)) == ("p1 False False\n", "")
