"""What an error says of its call (DESIGN.md section 6), by where it broke and by what its row allows."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
from support.oracle import SMALL, Oracle, Reply, answer, refuse

from infrai_async import (
    APIError,
    AsyncInfrai,
    ClientClosedError,
    ConnectError,
    DecodeError,
    InfraiError,
    RetryPolicy,
    TimeoutError,
    TransportError,
)

pytestmark = pytest.mark.anyio
LONG = 30.0  # seconds: longer than any test takes
Make = Callable[[AsyncInfrai], Coroutine[Any, Any, object]]


@attrs.frozen
class Kind:
    """A kind of row that D19 tells apart."""

    make: Make
    resendable: bool
    mutates: bool = True


KINDS = {
    "read": Kind(lambda client: client.db.project.get("p"), resendable=True, mutates=False),
    "delete": Kind(lambda client: client.db.project.delete("p"), resendable=True),
    "safe write": Kind(lambda client: client.db.project.create(name="shop"), resendable=True),
    "unsafe write": Kind(lambda client: client.flags.set("f", enabled=True), resendable=False),
}
# What the service does; whether it leaves open what became of the call; the error.
FAILURES: dict[str, tuple[Reply, bool, type[InfraiError]]] = {
    "no answer": (Reply(drop=True), True, TransportError),
    "half an answer": (Reply(body=b'{"ok": true, "data": {}}', cut=5), True, TransportError),
    "a web page": (Reply(body=b"<html>"), True, DecodeError),
    "500": (Reply(status=500), True, APIError),
    "500, try again": (refuse(500, retryable=True), False, APIError),
    "500, do not": (refuse(500, retryable=False), False, APIError),
    "429": (refuse(429), False, APIError),
    "400": (refuse(400), False, APIError),
    "redirect": (Reply(status=302), False, APIError),
}
SENT_AGAIN = {"500, try again", "429"}  # by any call


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@asynccontextmanager
async def client_of(url: str, **options: Any) -> AsyncIterator[AsyncInfrai]:
    quick = RetryPolicy(max_attempts=3, initial=0.001, maximum=0.002)
    async with AsyncInfrai("k", base_url=url, **{"retry": quick, **options}) as client:
        yield client


async def failure_of(client: AsyncInfrai, kind: Kind) -> InfraiError:
    with pytest.raises(InfraiError) as caught:
        await kind.make(client)
    assert (caught.value.idempotency_key is not None) == kind.mutates
    assert caught.value.capability
    return caught.value


@pytest.mark.parametrize("failure", FAILURES)
async def test_what_the_service_does_decides_the_outcome_and_the_row_what_is_sent_again(
    kind: Kind, failure: str
) -> None:
    reply, ambiguous, cls = FAILURES[failure]
    with Oracle(lambda seen: reply) as oracle:
        async with client_of(oracle.url) as client:
            error = await failure_of(client, kind)
    assert isinstance(error, cls)
    assert error.outcome == ("maybe_applied" if ambiguous else "rejected")
    repeated = failure in SENT_AGAIN or (ambiguous and cls is not DecodeError and kind.resendable)
    assert len(oracle.seen) == len(error.attempts) == (3 if repeated else 1)
    assert {seen.headers.get("idempotency-key") for seen in oracle.seen} == {error.idempotency_key}


async def test_a_refused_connection_was_not_sent(kind: Kind, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    async with client_of(f"http://127.0.0.1:{port}") as client:
        error = await failure_of(client, kind)
    assert isinstance(error, ConnectError)
    assert (error.outcome, len(error.attempts)) == ("not_sent", 3)


async def test_time_that_runs_out_in_the_handshake_has_sent_nothing(kind: Kind, listener: socket.socket) -> None:
    async with client_of(f"https://127.0.0.1:{listener.getsockname()[1]}", timeout=0.5) as client:
        error = await failure_of(client, kind)
    assert isinstance(error, TimeoutError)
    assert (error.outcome, len(error.attempts), error.attempts[0].status) == ("not_sent", 1, None)


async def test_time_that_runs_out_without_an_answer_leaves_it_open(kind: Kind, listener: socket.socket) -> None:
    async with client_of(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.5) as client:
        error = await failure_of(client, kind)
    assert isinstance(error, TimeoutError)
    assert (error.outcome, len(error.attempts)) == ("maybe_applied", 1)


async def test_closing_ends_what_was_sent_and_refuses_what_waits(kind: Kind) -> None:
    with Oracle(lambda seen: answer(SMALL, delay=LONG)) as oracle:
        async with client_of(oracle.url, max_concurrency=1) as client:
            sent = asyncio.ensure_future(failure_of(client, kind))
            while not oracle.seen:
                await asyncio.sleep(0.001)
            waiting = asyncio.ensure_future(failure_of(client, kind))
            await asyncio.sleep(0)
            await client.aclose(grace=0)
    ended, refused = await sent, await waiting
    assert (type(ended), ended.outcome, len(ended.attempts)) == (TransportError, "maybe_applied", 1)
    assert (type(refused), refused.outcome, refused.attempts) == (ClientClosedError, "not_sent", ())


async def test_the_deadline_of_a_block_ends_a_call_as_its_own_timeout_does(kind: Kind) -> None:
    with Oracle(lambda seen: answer(SMALL, delay=LONG)) as oracle:
        async with client_of(oracle.url) as client:
            with client.deadline(0.1):
                ended, refused = await failure_of(client, kind), await failure_of(client, kind)
    assert (type(ended), ended.outcome, len(ended.attempts)) == (TimeoutError, "maybe_applied", 1)
    assert (type(refused), refused.outcome, refused.attempts) == (TimeoutError, "not_sent", ())
    assert len(oracle.seen) == 1
