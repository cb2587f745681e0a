"""A listener of the blocking client hears what one of the asynchronous client hears, in the client's own thread."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.oracle import SMALL, Oracle, Reply, Seen, answer, refuse

from infrai_async import (
    AsyncInfrai,
    AttemptSent,
    CallFinished,
    CallStarted,
    ClientClosedError,
    Event,
    Infrai,
    RetryPolicy,
    ServerError,
    TimeoutError,
)

OPTIONS: dict[str, Any] = {"retry": RetryPolicy(max_attempts=2, initial=0.001, maximum=0.002), "timeout": 5.0}


def by_name(seen: Seen) -> Reply:
    """Answer as the path's last part asks."""
    name = seen.path.rpartition("/")[2]
    replies = {"faulty": refuse(500, "INTERNAL_ERROR"), "slow": answer(SMALL, delay=30.0)}
    if name == "busy" and len([one for one in ORACLES[-1].seen if one.path == seen.path]) % 2:
        return refuse(429, "RATE_LIMITED", headers={"Retry-After": "0.01"})
    return replies.get(name, answer(SMALL))


ORACLES: list[Oracle] = []


@pytest.fixture
def oracle() -> Any:
    with Oracle(by_name) as oracle:
        ORACLES.append(oracle)
        yield oracle
        ORACLES.remove(oracle)


def shape(heard: list[Event]) -> list[tuple[type[Event], str, int, type]]:
    return [(type(event), event.capability, event.attempt, type(getattr(event, "error", None))) for event in heard]


@pytest.mark.parametrize("name", ["good", "busy", "faulty"])
@pytest.mark.anyio
async def test_both_clients_tell_the_same(oracle: Oracle, name: str) -> None:
    told: list[Event] = []
    heard: list[Event] = []
    async with AsyncInfrai("k", base_url=oracle.url, on_event=told.append, **OPTIONS) as twin:
        await twin.db.project.get("warm")
        try:
            await twin.db.project.get(name)
        except ServerError:
            assert name == "faulty"
    with Infrai("k", base_url=oracle.url, on_event=heard.append, **OPTIONS) as client:
        client.db.project.get("warm")
        try:
            client.db.project.get(name)
        except ServerError:
            assert name == "faulty"
    assert shape(heard) == shape(told)
    assert len(heard) > 5


def test_a_call_whose_time_runs_out(oracle: Oracle) -> None:
    heard: list[Event] = []
    client = Infrai("k", base_url=oracle.url, on_event=heard.append, timeout=0.5)
    with client, pytest.raises(TimeoutError):
        client.db.project.get("slow")
    assert [kind for kind, *_ in shape(heard)] == [CallStarted, AttemptSent, CallFinished]
    assert shape(heard)[-1][-1] is TimeoutError


def test_events_of_calls_from_many_threads_are_joined_by_their_numbers(oracle: Oracle) -> None:
    heard: list[Event] = []
    threads: set[threading.Thread] = set()

    def listen(event: Event) -> None:
        heard.append(event)
        threads.add(threading.current_thread())

    with Infrai("k", base_url=oracle.url, on_event=listen, **OPTIONS) as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(client.db.project.get, ["p"] * 80))
    assert len(threads) == 1  # the client's own
    numbers = {event.call for event in heard}
    assert len(numbers) == 80
    for number in numbers:
        assert [type(event) for event in heard if event.call == number] == [CallStarted, AttemptSent, CallFinished]


def test_a_listener_that_makes_a_call_of_the_same_client_hangs_nobody(oracle: Oracle) -> None:
    tried: list[BaseException | None] = []

    def calling(event: Event) -> None:
        if not tried:
            tried.append(None)
            client.db.project.get("p")

    with Infrai("k", base_url=oracle.url, on_event=calling, **OPTIONS) as client:
        assert client.db.project.get("p").id == "p1"
    assert tried


def test_a_listener_that_raises_breaks_no_call(oracle: Oracle, caplog: pytest.LogCaptureFixture) -> None:
    def faulty(event: Event) -> None:
        raise RuntimeError("a fault of the listener's")

    with Infrai("k", base_url=oracle.url, on_event=faulty, **OPTIONS) as client:
        assert client.db.project.get("p").id == client.db.project.get("p").id == "p1"
    assert len(caplog.records) == 3


def test_a_closed_client_refuses_as_it_always_did(oracle: Oracle) -> None:
    heard: list[Event] = []
    client = Infrai("k", base_url=oracle.url, on_event=heard.append)
    client.db.project.get("p")
    client.close()
    before = list(heard)
    with pytest.raises(ClientClosedError):
        client.db.project.get("p")
    assert [type(event) for event in heard[len(before) :]] in ([], [CallStarted, CallFinished])
