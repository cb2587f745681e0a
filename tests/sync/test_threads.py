"""One client and many threads: answers find their callers, limits hold, and closing leaves nobody waiting."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import pytest
from support.oracle import SMALL, Reply, Seen, answer, refuse
from support.patience import LONG, PATIENCE, SOON, until
from sync.children import Attentive, by_name

from infrai_async import (
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    Infrai,
    InfraiError,
    NotFoundError,
    TransportError,
)


@pytest.fixture
def oracle() -> Iterator[Attentive]:
    with Attentive(by_name) as oracle:
        yield oracle


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    until(lambda: set(threading.enumerate()) <= before)


def loops() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "infrai-async"]


class Caller(threading.Thread):
    """A thread that does one thing and keeps what came of it; ``together`` starts all of them at one moment."""

    def __init__(self, act: Callable[[], Any], together: threading.Barrier | None = None) -> None:
        super().__init__(daemon=True)
        self._act = act
        self._together = together
        self.value: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            if self._together is not None:
                self._together.wait(PATIENCE)
            self.value = self._act()
        except BaseException as error:
            self.error = error

    def end(self, seconds: float = PATIENCE) -> Any:
        self.join(seconds)
        assert not self.is_alive(), "it hangs"
        if self.error is not None:
            raise self.error
        return self.value

    def outcome(self, seconds: float = PATIENCE) -> Any:
        """What it returned or raised."""
        try:
            return self.end(seconds)
        except InfraiError as error:
            return error


def get(client: Infrai, name: str) -> Callable[[], str]:
    return lambda: client.db.project.get(name).id


def holding(act: Callable[[], str], event: str, hold: Callable[[], object]) -> Callable[[], str]:
    """``act``, held up on its way into the loop, or out of it, as on a machine that has other work to do."""

    def trace(frame: Any, happened: str, argument: object) -> Any:
        if frame.f_code.co_name == "cross" and happened == event:
            hold()
        return trace

    def slowed_down() -> str:
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            return act()
        finally:
            sys.settrace(before)

    return slowed_down


# --- calling -----------------------------------------------------------------------------------------------------


def test_every_thread_gets_the_answers_to_its_own_calls(oracle: Attentive) -> None:
    def twenty(number: int) -> list[str]:
        return [client.db.project.get(f"{number}-{call}").id for call in range(20)]

    with Infrai("k", base_url=oracle.url, max_concurrency=5) as client:
        callers = [Caller(lambda number=number: twenty(number)) for number in range(32)]
        for number, caller in enumerate(callers):
            assert caller.end(30) == [f"{number}-{call}" for call in range(20)]
        assert len(loops()) == 1
        assert client.stats.succeeded == 640
        assert client.stats.in_flight == client.stats.waiting == 0
    assert oracle.most_at_once <= 5
    assert oracle.connections <= 5


def test_every_thread_gets_the_errors_of_its_own_calls(oracle: Attentive) -> None:
    def reply(seen: Seen) -> Reply:
        return refuse(404, seen.path.rpartition("/")[2], hint="look elsewhere")

    oracle.reply = reply
    with Infrai("k", base_url=oracle.url) as client:
        callers = [Caller(get(client, f"NO_{number}")) for number in range(32)]
        assert [caller.outcome().code for caller in callers] == [f"NO_{number}" for number in range(32)]


def test_a_first_call_by_many_threads_at_once_starts_one_loop(oracle: Attentive) -> None:
    for _ in range(10):
        before = len(loops())
        together = threading.Barrier(32)
        with Infrai("k", base_url=oracle.url) as client:
            callers = [Caller(get(client, f"{number}"), together) for number in range(32)]
            assert [caller.end() for caller in callers] == [f"{number}" for number in range(32)]
            assert len(loops()) == before + 1
        assert len(loops()) == before


def test_nothing_starts_before_the_first_call(oracle: Attentive) -> None:
    with Infrai("k", base_url=oracle.url) as client:
        client.db.project.list()
        client.with_options(timeout=1)
        assert client.stats.calls == 0
        assert loops() == []


def test_slow_calls_of_other_threads_hold_up_nobody(oracle: Attentive) -> None:
    with Infrai("k", base_url=oracle.url) as client:
        slow = [Caller(get(client, "slow")) for _ in range(8)]
        until(lambda: oracle.open_now == 8)
        began = time.monotonic()
        assert [client.db.project.get("p").id for _ in range(10)] == ["p"] * 10
        assert time.monotonic() - began < SOON
        client.close(grace=0)
        for caller in slow:
            caller.outcome()


# --- closing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grace", [0, 1.5])
def test_closing_while_threads_call_ends_every_one_of_them(oracle: Attentive, grace: float) -> None:
    client = Infrai("k", base_url=oracle.url, max_concurrency=6)
    callers = [Caller(get(client, "slow")) for _ in range(4)]
    callers += [Caller(get(client, "brief")) for _ in range(2)]
    until(lambda: oracle.open_now == 6)
    waiting = [Caller(get(client, "never-sent")) for _ in range(10)]
    until(lambda: client.stats.waiting == 10)
    began = time.monotonic()
    client.close(grace)
    assert time.monotonic() - began < grace + SOON
    sent, refused = [[caller.outcome() for caller in group] for group in (callers, waiting)]
    assert {type(error) for error in refused} == {ClientClosedError}
    assert {(error.capability, error.outcome) for error in refused} == {("db.project.get", "not_sent")}
    assert {type(error) for error in sent[:4]} == {TransportError}
    assert {(error.capability, error.outcome) for error in sent[:4]} == {("db.project.get", "maybe_applied")}
    assert grace == 0 or sent[4:] == ["brief", "brief"]
    assert not any("never-sent" in seen.path for seen in oracle.seen)
    until(lambda: oracle.open_connections == 0)


def test_every_call_that_is_answered_within_the_grace_succeeds(oracle: Attentive) -> None:
    for _ in range(3):
        client = Infrai("k", base_url=oracle.url)
        callers = [Caller(get(client, f"brief-{number}")) for number in range(64)]
        until(lambda: oracle.open_now == 64)
        client.close(grace=LONG)
        assert [caller.outcome() for caller in callers] == [f"brief-{number}" for number in range(64)]


@pytest.mark.parametrize("reply", [answer(SMALL), refuse(404, "NO_SUCH")], ids=["an answer", "a refusal"])
def test_what_came_before_the_client_closed_is_not_lost_on_a_thread_that_is_slow_to_take_it(
    oracle: Attentive, reply: Reply
) -> None:
    oracle.reply = lambda seen: reply
    client = Infrai("k", base_url=oracle.url)
    closed = threading.Event()

    caller = Caller(holding(get(client, "p"), "return", lambda: closed.wait(PATIENCE)))  # with the answer in hand
    until(lambda: client.stats.succeeded + client.stats.failed == 1)
    client.close()
    closed.set()
    outcome = caller.outcome()
    assert outcome == "p1" or isinstance(outcome, NotFoundError)


def test_a_call_that_comes_to_the_loop_after_its_end_is_refused(oracle: Attentive) -> None:
    client = Infrai("k", base_url=oracle.url)
    client.db.project.get("p")
    held, closed = threading.Event(), threading.Event()
    caller = Caller(holding(get(client, "p"), "call", lambda: (held.set(), closed.wait(PATIENCE))))
    assert held.wait(PATIENCE)
    client.close()
    closed.set()
    with pytest.raises(ClientClosedError) as caught:
        caller.end()
    assert (caught.value.capability, caught.value.outcome) == ("db.project.get", "not_sent")


def test_threads_that_call_all_the_time_end_with_the_client(oracle: Attentive) -> None:
    def on_and_on() -> int:
        done = 0
        with contextlib.suppress(ClientClosedError, TransportError):
            while client.db.project.get("p").id == "p":
                done += 1
        return done

    for _ in range(10):
        client = Infrai("k", base_url=oracle.url, max_concurrency=4)
        callers = [Caller(on_and_on) for _ in range(16)]
        until(lambda: client.stats.calls > 20)  # noqa: B023
        client.close(grace=1)
        assert all(caller.end() >= 0 for caller in callers)


def test_a_client_that_is_closed_at_any_moment_leaves_nobody_waiting(oracle: Attentive) -> None:
    chance = random.Random(1)

    def thrice() -> list[object]:
        found: list[object] = []
        for _ in range(3):
            try:
                found.append(client.db.project.get("p").id)
            except InfraiError as error:
                found.append(error)
        return found

    unexpected = []
    for _ in range(200):
        client = Infrai("k", base_url=oracle.url, max_concurrency=2)
        callers = [Caller(thrice) for _ in range(4)]
        pause = chance.choice([0, 0, chance.uniform(0, 5e-3)])
        time.sleep(pause)  # the random moment
        client.close(grace=chance.choice([0, 1]))
        for caller in callers:
            unexpected += [
                repr(found)
                for found in caller.end()
                if found != "p" and (not isinstance(found, ClientClosedError | TransportError) or not found.capability)
            ]
    assert unexpected == []


def test_a_client_that_is_closed_while_its_loop_starts_leaves_nobody_waiting(oracle: Attentive) -> None:
    for _ in range(100):
        client = Infrai("k", base_url=oracle.url)
        together = threading.Barrier(5)
        callers = [Caller(get(client, "p"), together) for _ in range(4)]
        closing = Caller(client.close, together)
        closing.end()
        for caller in callers:
            outcome = caller.outcome()
            assert outcome == "p" or isinstance(outcome, ClientClosedError | TransportError)


def test_closing_again_does_nothing_more(oracle: Attentive) -> None:
    client = Infrai("k", base_url=oracle.url)
    client.db.project.get("p")
    for _ in range(3):
        client.close()
    assert loops() == []


@pytest.mark.parametrize("threads", [2, 8])
@pytest.mark.parametrize("name", ["p", "brief", "slow"])
def test_closing_from_several_threads_at_once_ends_all_of_them(oracle: Attentive, threads: int, name: str) -> None:
    client = Infrai("k", base_url=oracle.url)
    caller = Caller(get(client, name))
    until(lambda: oracle.seen)
    together = threading.Barrier(threads)
    closing = [Caller(lambda: client.close(grace=0.5), together) for _ in range(threads)]
    began = time.monotonic()
    for thread in closing:
        thread.end()
    assert time.monotonic() - began < 0.5 + SOON
    assert caller.outcome() == name or isinstance(caller.outcome(), TransportError)
    assert loops() == []


def test_closing_before_the_first_call_starts_nothing(oracle: Attentive) -> None:
    client = Infrai("k", base_url=oracle.url)
    client.close()
    assert loops() == []
    with pytest.raises(ClientClosedError):
        client.db.project.get("p")
    assert loops() == []


@pytest.mark.parametrize("grace", [0, LONG], ids=["at once", "in time"])
def test_grace_decides_what_becomes_of_a_call_in_flight(oracle: Attentive, grace: float) -> None:
    client = Infrai("k", base_url=oracle.url)
    caller = Caller(get(client, "brief"))
    until(lambda: oracle.open_now)
    began = time.monotonic()
    client.close(grace)
    assert time.monotonic() - began < SOON
    outcome = caller.outcome()
    if grace:
        assert outcome == "brief"
    else:
        assert isinstance(outcome, TransportError)
        assert (outcome.capability, outcome.outcome, len(outcome.attempts)) == ("db.project.get", "maybe_applied", 1)


@pytest.mark.parametrize("used", [True, False], ids=["used", "never used"])
@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.db.project.get("p"),
        lambda client: client.db.project.create(name="p"),
        lambda client: client.discovery.get("db.project.get"),
        lambda client: client.call("db.project.get", {"id": "p"}),
        lambda client: next(client.db.project.list()),
        lambda client: list(client.db.project.list()),
        lambda client: next(client.db.project.list().pages()),
        lambda client: client.db.project.list().page(),
        lambda client: client.db.project.list().collect(),
        lambda client: client.db.project.list().to_records(),
        lambda client: client.with_options(timeout=1).db.project.get("p"),
    ],
    ids=["get", "create", "public", "generic", "next", "list", "pages", "page", "collect", "to_records", "view"],
)
def test_a_closed_client_refuses_every_kind_of_call(
    oracle: Attentive, call: Callable[[Infrai], object], used: bool
) -> None:
    client = Infrai("k", base_url=oracle.url)
    if used:
        client.db.project.get("p")
    client.close()
    with pytest.raises(ClientClosedError) as caught:
        call(client)
    assert caught.value.capability in {"db.project.get", "db.project.create", "db.project.list", "discovery.get"}
    assert (caught.value.outcome, caught.value.attempts) == ("not_sent", ())
    assert isinstance(caught.value, RuntimeError)
    assert len(oracle.seen) == used


def test_a_closed_client_refuses_inside_a_running_loop_too(oracle: Attentive) -> None:
    client = Infrai("k", base_url=oracle.url)
    client.db.project.get("p")
    client.close()

    async def main() -> None:
        with pytest.raises(ClientClosedError):
            client.db.project.get("p")
        client.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_what_was_fetched_before_closing_can_still_be_read(oracle: Attentive) -> None:
    page = answer({"items": [SMALL] * 3, "next_cursor": "more"})
    oracle.reply = lambda seen: page
    client = Infrai("k", base_url=oracle.url)
    cursor = client.db.project.list()
    next(cursor)
    client.close()
    assert len(cursor.page().items) == 2
    with pytest.raises(ClientClosedError):
        cursor.page()
    assert client.stats.succeeded == 1
    assert repr(client).startswith("<Infrai http")


def test_leaving_the_block_of_a_view_leaves_the_client_open(oracle: Attentive) -> None:
    with Infrai("k", base_url=oracle.url) as client:
        with client.with_options(timeout=5) as view:
            view.db.project.get("p")
        client.db.project.get("p")
        view.db.project.get("p")
        assert oracle.connections == 1


def test_closing_a_view_closes_the_client(oracle: Attentive) -> None:
    client = Infrai("k", base_url=oracle.url)
    view = client.with_options(timeout=5)
    client.db.project.get("p")
    view.close()
    with pytest.raises(ClientClosedError):
        client.db.project.get("p")
    assert loops() == []


# --- what the client calls itself ----------------------------------------------------------------------------------


def asynchronous(act: Callable[[], Any]) -> Callable[[], Any]:
    async def key() -> Any:
        return act()

    return key


BOTH = pytest.mark.parametrize("kind", [lambda act: act, asynchronous], ids=["plain", "asynchronous"])
Kind = Callable[[Callable[[], Any]], Callable[[], Any]]


@BOTH
@pytest.mark.parametrize(
    "act",
    [
        lambda client: client.db.project.get("inner").id,
        lambda client: client.discovery.get("db.project.get"),
        lambda client: list(client.db.project.list()),
        lambda client: client.with_options(timeout=1).db.project.get("inner").id,
    ],
    ids=["get", "public", "list", "view"],
)
def test_a_key_function_that_calls_its_own_client_is_an_error_and_no_deadlock(
    oracle: Attentive, kind: Kind, act: Callable[[Infrai], Any]
) -> None:
    keys = iter([lambda: act(client), lambda: "key"])
    client = Infrai(kind(lambda: next(keys)()), base_url=oracle.url)
    with client:
        with pytest.raises(ConfigurationError, match="own event loop") as caught:
            Caller(get(client, "p")).end()
        assert caught.value.capability == "db.project.get"
        assert client.db.project.get("p").id == "p"


@BOTH
def test_a_key_function_that_closes_its_own_client_is_an_error_that_closes_nothing(
    oracle: Attentive, kind: Kind
) -> None:
    keys = iter([lambda: client.close(), lambda: "key"])
    client = Infrai(kind(lambda: next(keys)()), base_url=oracle.url)
    with client:
        with pytest.raises(ConfigurationError, match="own event loop"):
            Caller(get(client, "p")).end()
        assert client.db.project.get("p").id == "p"


@BOTH
def test_a_key_function_may_call_another_client(oracle: Attentive, kind: Kind) -> None:
    with (
        Infrai("k", base_url=oracle.url) as other,
        Infrai(kind(lambda: other.db.project.get("the-key").id), base_url=oracle.url) as client,
    ):
        assert client.db.project.get("p").id == "p"
    assert oracle.seen[-1].headers["authorization"] == "Bearer the-key"


@BOTH
def test_a_key_function_sees_the_context_of_the_thread_that_calls(oracle: Attentive, kind: Kind) -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

    def call(name: str) -> str:
        tenant.set(name)
        return Infrai(kind(tenant.get), base_url=oracle.url).db.project.get(name).id

    callers = [Caller(lambda name=f"t{number}": call(name)) for number in range(8)]
    assert [caller.end() for caller in callers] == [f"t{number}" for number in range(8)]
    assert {(seen.path.rpartition("/")[2], seen.headers["authorization"]) for seen in oracle.seen} == {
        (f"t{number}", f"Bearer t{number}") for number in range(8)
    }


async def raises_cancelled() -> str:
    raise asyncio.CancelledError


async def cancels_itself() -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return "key"


async def cancels_itself_and_waits() -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(LONG)
    return "key"


def plain_cancelled() -> str:
    raise asyncio.CancelledError


async def awaits_what_is_cancelled() -> str:
    inner = asyncio.ensure_future(asyncio.sleep(LONG))
    inner.cancel()
    await inner
    return "key"


@pytest.mark.parametrize(
    "key", [raises_cancelled, plain_cancelled, cancels_itself, cancels_itself_and_waits, awaits_what_is_cancelled]
)
def test_a_cancellation_inside_the_loop_is_an_error_of_the_callers_and_no_cancellation(
    oracle: Attentive, key: Callable[[], Any]
) -> None:
    keys = iter([key, lambda: "key"])
    with Infrai(lambda: next(keys)(), base_url=oracle.url) as client:
        with pytest.raises(InfraiError, match="cancelled"):
            Caller(get(client, "p")).end()
        assert client.stats.in_flight == 0
        assert client.db.project.get("p").id == "p"


class Odd(BaseException):
    pass


@BOTH
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, Odd])
def test_an_exception_that_ends_programs_reaches_the_caller_and_leaves_the_loop_running(
    oracle: Attentive, kind: Kind, error: type[BaseException]
) -> None:
    def first() -> str:
        raise error("mine")

    keys = iter([first, lambda: "key"])
    with Infrai(kind(lambda: next(keys)()), base_url=oracle.url) as client:
        with pytest.raises(error, match="mine"):
            Caller(get(client, "p")).end()
        (loop,) = loops()
        assert client.db.project.get("p").id == "p"
        assert loops() == [loop]
        assert client.stats.in_flight == 0


@BOTH
@pytest.mark.parametrize("error", [ValueError, StopIteration, RuntimeError, OSError, TimeoutError])
def test_a_key_function_that_fails_is_a_configuration_error(
    oracle: Attentive, kind: Kind, error: type[Exception]
) -> None:
    def first() -> str:
        raise error("mine")

    with Infrai(kind(first), base_url=oracle.url) as client:
        with pytest.raises(ConfigurationError, match=r"api_key function failed") as caught:
            Caller(get(client, "p")).end()
        assert caught.value.capability == "db.project.get"


def test_a_key_is_asked_for_once_by_many_threads_and_again_after_a_401(oracle: Attentive) -> None:
    asked = iter(["stale", "fresh", "never"])

    def reply(seen: Seen) -> Reply:
        return by_name(seen) if seen.headers["authorization"] == "Bearer fresh" else refuse(401, "UNAUTHORIZED")

    oracle.reply = reply
    with Infrai(lambda: next(asked), base_url=oracle.url) as client:
        callers = [Caller(get(client, f"{number}")) for number in range(16)]
        assert [caller.end() for caller in callers] == [f"{number}" for number in range(16)]
    assert list(asked) == ["never"]


@pytest.mark.parametrize("fails", [True, False])
def test_a_dropped_client_ends_without_a_garbage_collection(oracle: Attentive, fails: bool) -> None:
    if fails:
        oracle.reply = lambda seen: refuse(401, "UNAUTHORIZED")
    client = Infrai("k", base_url=oracle.url)
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(AuthenticationError):
            client.db.project.get("p")
        del client
        until(lambda: not loops())
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only: it counts open files there")
def test_two_hundred_clients_leave_no_file_open(oracle: Attentive) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = open_files()
    for _ in range(200):
        with Infrai("k", base_url=oracle.url) as client:
            client.db.project.get("p")
    until(lambda: oracle.open_connections == 0)
    until(lambda: open_files() <= before)


def test_closing_again_from_another_thread_does_nothing_more(oracle: Attentive) -> None:
    # A thread that starts now may well get the identifier of the loop's, which has ended.
    for _ in range(20):
        client = Infrai("k", base_url=oracle.url)
        client.db.project.get("p")
        client.close()
        Caller(client.close).end()


@pytest.mark.parametrize("grace", [1e10, timedelta.max])
def test_a_grace_may_be_as_long_as_one_likes(oracle: Attentive, grace: float | timedelta) -> None:
    client = Infrai("k", base_url=oracle.url)
    client.db.project.get("p")
    client.close(grace=grace)
    assert client.stats.succeeded == 1
