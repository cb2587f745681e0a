"""A call that goes well takes the straight path, and what makes that quick changes nothing that others can see."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from support.oracle import SMALL, Oracle, Reply, Seen, answer, in_turn, refuse

from infrai_async import APIError, AsyncInfrai, InfraiError, NotFoundError, RetryPolicy, TransportError
from infrai_async._protocol import flow
from infrai_async._protocol.flow import Call
from infrai_async._protocol.request import Request
from infrai_async._transport.call_state import CallState
from infrai_async._transport.connector import ConnectionTrace, TracedRequest
from infrai_async._transport.headers import HeaderSet, HeaderTemplate
from infrai_async._transport.limiter import CapacityLimiter
from infrai_async._transport.loop_session import sender_of
from infrai_async._transport.stats import Counters
from infrai_async.capabilities import CAPABILITIES, Capability, Route

pytestmark = pytest.mark.anyio
KEY = "ifr_pk_proj_a_long_one"
BUCKET = {"bucket": "b", "vendor": "r2", "region": "auto", "created_at": "2026-01-01T00:00:00Z"}


def as_sent(seen: Seen) -> Mapping[str, str]:
    return {name: value for name, value in seen.headers.items() if name != "idempotency-key"}


# --- the flow is made for what does not plainly succeed ---------------------------------------------------------


@pytest.fixture
def flows(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The capabilities of the calls for which a flow was made."""
    made: list[str] = []
    run = flow.run

    def noted(call: Call[Any], *rest: Any) -> Any:
        made.append(call.capability.id)
        return run(call, *rest)

    monkeypatch.setattr(flow, "run", noted)
    return made


async def test_what_goes_well_at_once_needs_no_flow(flows: list[str]) -> None:
    with Oracle(lambda seen: answer({"items": [SMALL]} if "list" in seen.path else SMALL)) as oracle:
        async with AsyncInfrai(KEY, base_url=oracle.url) as client:
            await client.db.project.get("p")
            await client.db.project.create(name="shop")
            with client.budget(usd=1) as spent:
                await client.db.project.list().collect()
            assert (spent.usd, client.stats.cost_usd) == (Decimal("0.001"), Decimal("0.003"))
            assert (client.stats.succeeded, client.stats.attempts) == (3, 3)
    assert flows == []


@pytest.mark.parametrize(
    "first",
    [refuse(500), Reply(drop=True), Reply(body=b'{"ok": true, "data": {"id": 5}}'), refuse(429), Reply(status=404)],
    ids=["500", "drop", "wrong type", "429", "404"],
)
async def test_all_else_is_for_the_flow_to_decide(flows: list[str], first: Reply) -> None:
    with Oracle(in_turn(first, answer(SMALL))) as oracle:
        async with AsyncInfrai(KEY, base_url=oracle.url, retry=RetryPolicy.none()) as client:
            with pytest.raises(InfraiError):
                await client.db.project.get("p")
    assert flows == ["db.project.get"]


async def test_the_answer_to_a_second_attempt_is_read_in_full(flows: list[str]) -> None:
    with Oracle(in_turn(refuse(500), answer(SMALL))) as oracle:
        async with AsyncInfrai(KEY, base_url=oracle.url, retry=RetryPolicy(initial=0.001)) as client:
            assert (await client.db.project.get("p")).id == "p1"
            assert (client.stats.succeeded, client.stats.attempts, client.stats.retries) == (1, 2, 1)
    assert flows == ["db.project.get"]


async def test_calls_that_began_on_the_old_route_each_move_for_themselves() -> None:
    """The client's memory changes while they are under way: what each has tried is its own."""
    tried: list[str] = []

    def only_current(seen: Seen) -> Reply:
        tried.append(seen.path)
        return Reply(status=404, delay=0.05) if "/buckets" in seen.path else answer({"items": [BUCKET]})

    with Oracle(only_current) as oracle:
        async with AsyncInfrai(KEY, base_url=oracle.url) as client:
            pages = await asyncio.gather(*(client.storage.bucket.list().collect() for _ in range(5)))
            assert [len(items) for items in pages] == [1] * 5
            await client.storage.bucket.list().collect()
    assert [path.endswith("/buckets") for path in tried] == [True] * 5 + [False] * 6


# --- headers are made once --------------------------------------------------------------------------------------


async def test_the_headers_of_later_calls_are_those_of_the_first() -> None:
    with Oracle(lambda seen: answer(SMALL)) as oracle:
        async with AsyncInfrai(KEY, base_url=oracle.url, headers={"X-Team": "shop", "user-agent": "app/1"}) as client:
            for _ in range(3):
                await client.db.project.get("p")
                await client.db.project.create(name="shop")
                await client.db.project.create(name="shops")
    reads = [as_sent(seen) for seen in oracle.seen[::3]]
    writes = [as_sent(seen) for seen in (*oracle.seen[1::3], *oracle.seen[2::3])]
    assert reads == [reads[0]] * 3
    assert {len({**headers} | {"content-length": "0"}) for headers in writes} == {len(writes[0])}
    for headers in (*reads, *writes):
        assert headers["authorization"] == f"Bearer {KEY}"
        assert headers["x-team"] == "shop"
        assert headers["user-agent"].startswith("app/1 infrai-async/")
        assert headers["accept-encoding"]
        assert headers["host"] == oracle.url.removeprefix("http://")
    assert all("content-type" not in headers for headers in reads)
    assert [headers["content-length"] for headers in writes] == [
        str(len(seen.body)) for seen in (*oracle.seen[1::3], *oracle.seen[2::3])
    ]


async def test_each_write_has_its_own_idempotency_key_and_no_read_has_one() -> None:
    with Oracle(lambda seen: answer(SMALL)) as oracle:
        async with AsyncInfrai(KEY, base_url=oracle.url) as client:
            for number in range(4):
                await client.db.project.create(name="shop", idempotency_key=f"k{number}")
                await client.db.project.get("p")
    assert [seen.headers.get("idempotency-key") for seen in oracle.seen] == [
        "k0",
        None,
        "k1",
        None,
        "k2",
        None,
        "k3",
        None,
    ]


async def test_views_and_keys_each_have_their_own_headers() -> None:
    keys = iter(["first-key-of-all", "second-key-of-all"])
    whatever = answer({**SMALL, "method": "GET", "path": "/v1/x"})
    replies = in_turn(whatever, whatever, refuse(401), whatever)
    with Oracle(replies) as oracle:
        async with AsyncInfrai(lambda: next(keys), base_url=oracle.url) as client:
            view = client.with_options(headers={"X-View": "1"})
            await client.db.project.get("p")
            await view.db.project.get("p")
            await client.db.project.get("p")  # is told that the key is no longer taken
            await view.db.project.get("p")
            await client.discovery.get("db.project.get")
    sent = [(seen.headers.get("authorization"), seen.headers.get("x-view")) for seen in oracle.seen]
    first, second = "Bearer first-key-of-all", "Bearer second-key-of-all"
    assert sent == [(first, None), (first, "1"), (first, None), (second, None), (second, "1"), (None, None)]


async def test_an_aiohttp_that_makes_headers_otherwise_still_sends_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a later version no longer called the two methods that we know."""
    monkeypatch.setattr(TracedRequest, "update_headers", aiohttp.ClientRequest.update_headers)
    monkeypatch.setattr(TracedRequest, "update_auto_headers", aiohttp.ClientRequest.update_auto_headers)
    with Oracle(lambda seen: answer(SMALL)) as oracle:
        async with AsyncInfrai(KEY, base_url=oracle.url) as client:
            await client.db.project.get("p")
            await client.db.project.get("p")
    assert as_sent(oracle.seen[0]) == as_sent(oracle.seen[1])
    assert oracle.seen[1].headers["authorization"] == f"Bearer {KEY}"


def test_an_aiohttp_without_the_inner_request_is_asked_in_public() -> None:
    class Session:
        """A session of an aiohttp whose coroutine has another name."""

        def request(self) -> None: ...

    session: Any = Session()
    assert sender_of(session, borrowed=False) == session.request


async def test_a_borrowed_session_is_asked_in_public_and_by_our_rules() -> None:
    with Oracle(lambda seen: refuse(302, headers={"Location": "/elsewhere"})) as oracle:
        async with aiohttp.ClientSession(raise_for_status=True, headers={"X-Lender": "1"}) as session:
            client = AsyncInfrai(KEY, base_url=oracle.url, session=session)
            for _ in range(2):
                with pytest.raises(APIError) as caught:
                    await client.db.project.get("p")
                assert caught.value.status == 302
            await client.aclose()
    assert [seen.headers["x-lender"] for seen in oracle.seen] == ["1", "1"]


@pytest.mark.parametrize("read", ["quickly", "in full"])
async def test_an_answer_that_repeats_the_key_never_shows_it(read: str) -> None:
    told = {**SMALL, "name": KEY, "note": [KEY]}
    if read == "in full":
        told["created_at"] = "2026-01-01T00:00:00"  # without a zone
    with Oracle(lambda seen: answer(told)) as oracle:
        async with AsyncInfrai(KEY, base_url=oracle.url) as client:
            project = await client.db.project.get("p")
    assert (project.name, project.extra) == ("***", {"note": ["***"]})


@pytest.mark.parametrize(
    "reply",
    [
        refuse(409, "TAKEN", headers={"X-Seen": KEY}, details=[KEY, SMALL["connection_uri"]]),
        Reply(status=500, body=f"<p>{KEY} {SMALL['connection_uri']}".encode(), headers={"Content-Type": "text/html"}),
        Reply(body=f'{{"ok": true, "data": {{"id": "{KEY}", "uri": "{SMALL["connection_uri"]}"'.encode(), cut=90),
        Reply(drop=True),
    ],
    ids=["refusal", "page", "cut off", "drop"],
)
async def test_the_frames_of_a_failing_call_hold_no_secret(reply: Reply) -> None:
    with Oracle(lambda seen: reply) as oracle:
        async with AsyncInfrai(KEY, base_url=oracle.url, retry=RetryPolicy.none()) as client:
            with pytest.raises(InfraiError) as caught:
                await client.db.project.create(name="shop")
    shown = []
    trace = caught.value.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename != __file__:
            shown += [
                f"{trace.tb_frame.f_code.co_name} {name}: {value!r}" for name, value in trace.tb_frame.f_locals.items()
            ]
        trace = trace.tb_next
    assert any(line.startswith("run ") for line in shown)
    assert not [line for line in shown if KEY in line or "u:secret" in line]


# --- places without a lock --------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 16])
def test_loops_in_threads_never_hold_more_places_than_there_are(limit: int) -> None:
    places = CapacityLimiter(limit)
    holding: list[None] = []
    most: list[int] = []
    ended: list[int] = []

    async def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(40):
            if not (places.acquire_nowait() or await places.acquire()):
                return
            holding.append(None)
            most.append(len(holding))
            if chance.random() < 0.5:
                await asyncio.sleep(0)
            holding.pop()
            places.release()
        ended.append(seed)

    async def many(thread: int) -> None:
        workers = [asyncio.create_task(work(100 * thread + number)) for number in range(8)]
        quitters = [asyncio.create_task(places.acquire()) for _ in range(4)]
        await asyncio.sleep(0)
        for quitter in quitters:
            quitter.cancel()
            if (await asyncio.gather(quitter, return_exceptions=True)) == [True]:
                places.release()
        await asyncio.gather(*workers)

    threads = [threading.Thread(target=asyncio.run, args=(many(number),), daemon=True) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ended) == 48  # nobody waits for ever
    assert max(most) <= limit
    assert (places.taken, places.waiting) == (0, 0)


def test_a_place_that_was_taken_is_told_whatever_another_thread_does_meanwhile() -> None:
    class Free(list[None]):
        """The free places, between whose two readings another thread takes one more and gives it back."""

        def __len__(self) -> int:
            count = super().__len__()
            if meanwhile:
                meanwhile.pop()()
            return count

    def take_and_give_back() -> None:
        assert places.acquire_nowait()
        places.release()

    places = CapacityLimiter(2)
    meanwhile: list[Callable[[], None]] = []
    places._free = Free()
    meanwhile.append(take_and_give_back)
    assert places.acquire_nowait() > 0
    assert places.taken == 1


async def test_who_comes_later_does_not_overtake_who_waits() -> None:
    places = CapacityLimiter(1)
    assert places.acquire_nowait() == 1
    first = asyncio.create_task(places.acquire())
    await asyncio.sleep(0)
    places.release()
    assert places.acquire_nowait() == 0
    assert await first
    places.release()
    assert places.acquire_nowait() == 1


async def test_who_gives_up_just_as_the_place_comes_hands_it_on() -> None:
    places = CapacityLimiter(1)
    places.acquire_nowait()
    first, second = asyncio.create_task(places.acquire()), asyncio.create_task(places.acquire())
    await asyncio.sleep(0)
    places.release()
    first.cancel()
    assert await asyncio.wait_for(second, 25)
    assert places.taken == 1


async def test_a_closed_pool_sends_everybody_away() -> None:
    places = CapacityLimiter(1)
    places.acquire_nowait()
    waiting = asyncio.create_task(places.acquire())
    await asyncio.sleep(0)
    places.close()
    assert not await waiting
    assert not await places.acquire()
    places.release()
    assert places.acquire_nowait() == 0


# --- what is made for each call is small ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cls",
    [
        Call,
        CallState,
        ConnectionTrace,
        Request,
        Route,
        Capability,
        HeaderSet,
        HeaderTemplate,
        Counters,
        CapacityLimiter,
    ],
    ids=lambda cls: cls.__name__,
)
def test_it_has_slots_and_no_dictionary(cls: type) -> None:
    assert all("__dict__" not in base.__dict__ for base in cls.__mro__)
    assert all("__slots__" in base.__dict__ for base in cls.__mro__ if base.__module__.startswith("infrai_async"))


def test_what_is_computed_of_a_row_is_there_from_the_start() -> None:
    row = CAPABILITIES["flags.set"]
    assert (row.mutates, row.resendable) == (True, False)
    with pytest.raises(AttributeError):
        row.mutates = False  # type: ignore[misc]


# --- the same promises --------------------------------------------------------------------------------------------


@pytest.fixture
def broken_then_gone() -> Iterator[Oracle]:
    with Oracle(in_turn(answer(SMALL), Reply(drop=True), refuse(404, "DB_PROJECT_NOT_FOUND"))) as oracle:
        yield oracle


async def test_connections_are_counted_as_they_are_used(broken_then_gone: Oracle) -> None:
    async with AsyncInfrai(KEY, base_url=broken_then_gone.url, retry=RetryPolicy.none()) as client:
        await client.db.project.get("p")
        assert (client.stats.connections_opened, client.stats.connections_reused) == (1, 0)
        with pytest.raises(TransportError) as caught:
            await client.db.project.get("p")
        assert (caught.value.outcome, caught.value.attempts[0].status) == ("maybe_applied", None)
        assert (client.stats.connections_opened, client.stats.connections_reused) == (1, 1)
        with pytest.raises(NotFoundError):
            await client.db.project.get("p")
        assert (client.stats.connections_opened, client.stats.connections_reused) == (2, 1)
        assert (client.stats.calls, client.stats.succeeded, client.stats.failed) == (3, 1, 2)
