"""Errors cross from the loop into the calling thread as they are, and their tracebacks show the caller's line."""

from __future__ import annotations

import gc
import threading
import traceback
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest
from support.oracle import SMALL, Oracle, Reply, answer, refuse

import infrai_async
from infrai_async import (
    AsyncInfrai,
    Infrai,
    InfraiError,
    InvalidArgument,
    NotFoundError,
    RetryPolicy,
    TransportError,
)
from infrai_async._transport import pool

PACKAGE = str(Path(infrai_async.__file__).parent)
NEVER = RetryPolicy.none()


def frames(trace: TracebackType | None) -> list[str]:
    return [frame.filename for frame in traceback.extract_tb(trace)]


def outcome(error: BaseException) -> dict[str, object]:
    """What an error says, without what no two calls share."""
    cause = error.__cause__
    attempts = [(a.status, a.error) for a in error.attempts] if isinstance(error, InfraiError) else []
    own = {name: value for name, value in vars(error).items() if name not in ("attempts", "idempotency_key")}
    return {
        **own,
        "type": type(error),
        "text": str(error),
        "cause": None if cause is None else (type(cause), str(cause)),
        "attempts": attempts,
    }


REPLIES = {
    "not found": refuse(404, "NOT_FOUND", hint="look again"),
    "out of credit": refuse(402, "INSUFFICIENT_CREDIT", checkout_url="https://pay.example/1"),
    "a server's error": refuse(500, "INTERNAL_ERROR"),
    "no JSON": Reply(body=b"<html>"),
    "another type": answer({**SMALL, "name": 5}),
    "cut off": answer(SMALL, cut=10),
    "dropped": Reply(drop=True),
}


@pytest.mark.anyio
@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
async def test_an_error_is_the_one_that_the_asynchronous_client_raises(reply: Reply) -> None:
    with Oracle(lambda _: reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url, retry=NEVER) as twin:
            with pytest.raises(InfraiError) as awaited:
                await twin.db.project.get("p1")
        with Infrai("k", base_url=oracle.url, retry=NEVER) as client, pytest.raises(InfraiError) as raised:
            client.db.project.get("p1")
    assert outcome(raised.value) == outcome(awaited.value)
    assert len(raised.value.attempts) == 1


@pytest.fixture
def client() -> Iterator[Infrai]:
    with (
        Oracle(lambda _: refuse(404, "NOT_FOUND", hint="look again")) as oracle,
        Infrai("k", base_url=oracle.url) as client,
    ):
        yield client


def test_a_traceback_is_the_callers_line_and_two_of_ours(client: Infrai) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.db.project.get("p1")
    mine, *ours = frames(caught.tb)
    assert mine == __file__
    assert [Path(name).name for name in ours] == ["_db.py", "_runner.py"]


def test_a_traceback_of_a_list_is_as_short(client: Infrai) -> None:
    with pytest.raises(NotFoundError) as caught:
        list(client.db.project.list())
    assert [Path(name).name for name in frames(caught.tb)] == [Path(__file__).name, "_facade.py", "_runner.py"]


def test_it_prints_the_callers_line_the_error_and_the_hint(client: Infrai) -> None:
    try:
        client.db.project.get("p1")
    except NotFoundError as error:
        printed = "".join(traceback.format_exception(error))
    assert 'client.db.project.get("p1")' in printed
    assert printed.splitlines()[-1] == "hint: look again"
    for machinery in ("anyio", "concurrent", "asyncio/", "portal", "_transport/"):
        assert machinery not in printed


def test_the_frames_of_ours_hide_themselves_where_tools_ask(client: Infrai) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.db.project.get("p1")
    trace: TracebackType | None = caught.tb.tb_next
    while trace is not None:
        assert trace.tb_frame.f_locals["__tracebackhide__"] is True
        trace = trace.tb_next


def test_an_error_that_nobody_raised_on_purpose_shows_where_it_arose(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(pool, "_read_quickly", broken)
    with (
        Oracle(lambda _: answer(SMALL)) as oracle,
        Infrai("k", base_url=oracle.url) as client,
        pytest.raises(ZeroDivisionError) as caught,
    ):
        client.db.project.get("p1")
    names = [frame.name for frame in traceback.extract_tb(caught.tb)]
    assert names[-1] == "broken"
    assert "_complete" not in names
    assert not any("anyio" in name or "asyncio" in name for name in frames(caught.tb))


def test_wrong_arguments_of_python_are_the_callers_too(client: Infrai) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'id'") as caught:
        client.db.project.get()  # type: ignore[call-arg]
    assert frames(caught.tb) == [__file__]


def test_a_wrong_argument_is_refused_before_anything_is_sent(client: Infrai) -> None:
    with pytest.raises(InvalidArgument, match="id must not be empty"):
        client.db.project.get("")
    assert client.stats.attempts == 0


def test_nothing_keeps_an_error_that_was_dealt_with(client: Infrai) -> None:
    gc.collect()
    gc.disable()
    try:
        try:
            client.db.project.get("p1")
        except NotFoundError as error:
            seen = weakref.ref(error)
        assert seen() is None
    finally:
        gc.enable()


def test_an_error_raised_while_another_is_handled_says_so(client: Infrai) -> None:
    mine = KeyError("mine")
    with pytest.raises(NotFoundError) as caught:
        try:
            raise mine
        except KeyError:
            client.db.project.get("p1")
    assert caught.value.__context__ is mine


def test_the_key_stands_in_no_traceback_and_no_repr() -> None:
    key = "sk-very-secret-key"
    with Oracle(lambda _: refuse(401, "UNAUTHORIZED")) as oracle, Infrai(key, base_url=oracle.url) as client:
        with pytest.raises(InfraiError) as caught:
            client.db.project.get("p1")
        shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
        assert key not in shown.replace(repr(key), "")  # this very frame has it
        assert key not in repr(client)


def test_a_loop_that_gets_no_thread_is_an_error_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if self.name == "infrai-async":
            raise RuntimeError("can't start new thread")
        start(self)

    with Oracle(lambda _: answer(SMALL)) as oracle, Infrai("k", base_url=oracle.url) as client:
        with monkeypatch.context() as patch, pytest.raises(TransportError, match="can't start new thread") as caught:
            patch.setattr(threading.Thread, "start", refuse)
            client.db.project.get("p1")
        assert caught.value.outcome == "not_sent"
        assert client.db.project.get("p1").id == "p1"


def test_transport_errors_keep_their_cause() -> None:
    with Infrai("k", base_url="http://127.0.0.1:9", retry=NEVER) as client, pytest.raises(TransportError) as caught:
        client.db.project.get("p1")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.outcome == "not_sent"
