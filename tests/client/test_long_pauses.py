"""A service that asks for a pause of a year gets a short one; then one call at a time finds out how it is (D30)."""

from __future__ import annotations

import asyncio
import threading

import pytest
from support.oracle import SMALL, Oracle, Reply, Seen, answer, refuse
from support.patience import LONG

from infrai_async import AsyncInfrai, Infrai, RateLimitError, RetryPolicy, ServerError, Throttled, TransportError

pytestmark = pytest.mark.anyio
YEAR = {"Retry-After": "31536000"}
SHORT = RetryPolicy(longest_pause=0.3, initial=0.001, maximum=0.002)


class Recovering:
    """Refuses so many requests, then is well; each takes a moment, so that two at once would be seen."""

    def __init__(self, refusals: int, reply: Reply) -> None:
        self.left = refusals
        self.reply = reply

    def __call__(self, seen: Seen) -> Reply:
        self.left -= 1
        if self.left >= 0:
            return self.reply
        return answer(SMALL, delay=0.05)


def asking(status: int, code: str) -> Reply:
    return refuse(status, code, headers=YEAR)


@pytest.mark.parametrize(("status", "code"), [(429, "RATE_LIMITED"), (503, "VENDOR_UNAVAILABLE")])
async def test_a_pause_of_a_year_ends_after_the_longest_pause(status: int, code: str) -> None:
    pauses: list[float] = []
    service = Recovering(3, asking(status, code))
    with Oracle(service) as oracle:
        options = {"retry": SHORT, "timeout": LONG}
        async with AsyncInfrai("k", base_url=oracle.url, on_event=lambda e: note(e, pauses), **options) as client:
            assert (await client.db.project.get("p")).id == "p1"
            assert client.stats.attempts == 4
    assert pauses == [0.3, 0.3, 0.3]


def note(event: object, pauses: list[float]) -> None:
    if isinstance(event, Throttled):
        pauses.append(event.seconds)


async def test_after_it_one_call_at_a_time_tries_again_until_one_is_answered() -> None:
    service = Recovering(3, asking(429, "RATE_LIMITED"))
    with Oracle(service) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url, retry=SHORT, timeout=LONG) as client:
            with pytest.raises(RateLimitError):
                await client.with_options(retry=RetryPolicy(max_attempts=1, longest_pause=0.3)).db.project.get("p")
            calls = [client.db.project.get(str(number)) for number in range(30)]
            assert len(await asyncio.gather(*calls)) == 30
            # Two more refusals, each of a call alone, then the one that found the service well, then all the others.
            assert client.stats.attempts == 1 + 2 + 30
    assert oracle.most_at_once > 1


async def test_a_probe_that_gets_no_response_proves_nothing_and_the_next_one_tries() -> None:
    at_once: list[int] = []

    def reply(seen: Seen) -> Reply:
        at_once.append(oracle.open_now)
        # Long enough that a second call would start meanwhile.
        return [asking(503, "X"), *[Reply(drop=True, delay=0.4)] * 4, answer(SMALL, delay=0.4), answer(SMALL)][
            min(len(at_once), 7) - 1
        ]

    with Oracle(reply) as oracle:
        policy = RetryPolicy(max_attempts=1, longest_pause=0.2)
        async with AsyncInfrai("k", base_url=oracle.url, retry=policy, timeout=LONG) as client:
            with pytest.raises(ServerError):
                await client.db.project.get("p")
            results = await asyncio.gather(*(client.db.project.get("p") for _ in range(12)), return_exceptions=True)
    assert sum(isinstance(result, TransportError) for result in results) == 4
    assert at_once[:6] == [1] * 6


async def test_a_short_pause_during_a_long_one_changes_nothing() -> None:
    at_once: list[int] = []
    first = Reply(status=429, body=asking(429, "LONG").body, headers=YEAR, delay=0.1)
    second = Reply(status=429, body=asking(429, "SHORT").body, headers={"Retry-After-Ms": "50"}, delay=0.2)

    def reply(seen: Seen) -> Reply:
        at_once.append(oracle.open_now)
        return [first, second, answer(SMALL, delay=0.4), answer(SMALL)][min(len(at_once), 4) - 1]

    with Oracle(reply) as oracle:
        policy = RetryPolicy(max_attempts=1, longest_pause=1.0)
        async with AsyncInfrai("k", base_url=oracle.url, retry=policy, timeout=LONG) as client:
            refused = await asyncio.gather(*(client.db.project.get("p") for _ in range(2)), return_exceptions=True)
            assert [getattr(error, "code", None) for error in refused] == ["LONG", "SHORT"]
            with pytest.raises(RateLimitError, match="LONG"):
                await client.with_options(timeout=0.1).db.project.get("p")
            await asyncio.gather(*(client.db.project.get("p") for _ in range(6)))
    assert at_once[:4] == [1, 2, 1, 1]


async def test_a_probe_that_is_cancelled_before_it_is_sent_leaves_the_turn_to_the_next() -> None:
    replies, asked, given = iter([asking(429, "X")]), asyncio.Event(), asyncio.Event()

    async def key() -> str:
        asked.set()
        await given.wait()
        return "k"

    with Oracle(lambda _: next(replies, answer(SMALL))) as oracle:
        policy = RetryPolicy(max_attempts=1, longest_pause=0.1)
        async with AsyncInfrai(key, base_url=oracle.url, retry=policy, timeout=LONG) as client:
            with pytest.raises(RateLimitError):
                await client.discovery.list()  # which needs no key
            first = asyncio.create_task(client.db.project.get("p"))
            await asked.wait()  # after the pause: the call is admitted
            first.cancel()
            given.set()
            assert (await asyncio.wait_for(client.db.project.get("p"), LONG)).id == "p1"


async def test_a_probe_that_is_cancelled_leaves_the_turn_to_the_next() -> None:
    slow = Reply(body=answer(SMALL).body, delay=LONG)
    replies = iter([asking(429, "X"), slow])
    with Oracle(lambda _: next(replies, answer(SMALL))) as oracle:
        policy = RetryPolicy(max_attempts=1, longest_pause=0.1)
        async with AsyncInfrai("k", base_url=oracle.url, retry=policy, timeout=LONG) as client:
            with pytest.raises(RateLimitError):
                await client.db.project.get("p")
            tasks = [asyncio.create_task(client.db.project.get("p")) for _ in range(5)]
            while len(oracle.seen) < 2:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert len(oracle.seen) == 2
            tasks[0].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [isinstance(result, BaseException) for result in results] == [True, False, False, False, False]


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimitError), (503, ServerError)])
async def test_a_call_without_the_time_is_told_what_the_service_said(status: int, kind: type[ServerError]) -> None:
    with Oracle(lambda _: asking(status, "WHY")) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url, timeout=2) as client:
            for _ in range(2):
                with pytest.raises(kind, match="WHY") as caught:
                    await client.db.project.get("p")
                assert caught.value.status == status
                assert caught.value.retry_after is not None
                assert 290 < caught.value.retry_after <= 300
    assert len(oracle.seen) == 1


def test_threads_with_loops_of_their_own_share_the_turn() -> None:
    service = Recovering(4, refuse(429, "X", headers=YEAR))
    with Oracle(service) as oracle, Infrai("k", base_url=oracle.url, retry=SHORT, timeout=LONG) as client:
        got: list[str] = []
        threads = [threading.Thread(target=lambda: got.append(client.db.project.get("p").id)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        assert got == ["p1"] * 6
