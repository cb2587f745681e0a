"""Events as values, and what keeps a listener's faults from the calls."""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
import pickle
import textwrap
from decimal import Decimal
from typing import Any

import attrs
import pytest

import infrai_async
from infrai_async import (
    AsyncInfrai,
    AttemptSent,
    CallFinished,
    CallStarted,
    Event,
    Infrai,
    InvalidArgument,
    RateLimitError,
    Retrying,
    Throttled,
)
from infrai_async._observability.reporter import Listener
from infrai_async._protocol.response import Envelope, metadata_of

COMMON: dict[str, Any] = {"capability": "db.project.get", "operation": "deploy-42", "attempt": 1, "call": 7}
EVENTS = [
    CallStarted(**COMMON),
    AttemptSent(**COMMON, method="GET", origin="https://api.infrai.cc", path="/v1/db/projects/p", waited=0.5),
    Retrying(**COMMON, reason="INTERNAL_ERROR", seconds=0.25),
    Throttled(**COMMON, seconds=2.0),
    CallFinished(
        **COMMON,
        error=RateLimitError("slow down", status=429),
        cancelled=False,
        seconds=1.5,
        cost_usd=Decimal("0.002"),
        request_id="r-1",
    ),
]
each_event = pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)


@each_event
def test_an_event_is_frozen_and_slotted(event: Event) -> None:
    assert isinstance(event, Event)
    assert not hasattr(event, "__dict__")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        event.attempt = 2  # type: ignore[misc]


@each_event
def test_an_event_says_which_call_it_is_about(event: Event) -> None:
    assert (event.capability, event.operation, event.attempt, event.call) == ("db.project.get", "deploy-42", 1, 7)


@each_event
def test_an_event_can_be_copied_and_sent_to_another_process(event: Event) -> None:
    for twin in (pickle.loads(pickle.dumps(event)), copy.deepcopy(event)):
        assert type(twin) is type(event)
        assert repr(twin) == repr(event)


def test_every_event_is_a_name_of_the_package() -> None:
    kinds = {kind.__name__ for kind in Event.__subclasses__()}
    assert kinds == {type(event).__name__ for event in EVENTS}
    assert kinds | {"Event"} <= set(infrai_async.__all__)


def test_the_example_of_the_documentation_logs_each_call_that_ended(caplog: pytest.LogCaptureFixture) -> None:
    documentation = inspect.getdoc(Event) or ""
    example = documentation[documentation.index("    import logging") : documentation.index("Attributes:")]
    scope: dict[str, Any] = {}
    exec(textwrap.dedent(example), scope)
    assert isinstance(scope["client"], AsyncInfrai)
    with caplog.at_level(logging.INFO):
        for event in EVENTS:
            scope["log_calls"](event)
    (line,) = caplog.messages
    assert line == "db.project.get: RateLimitError, attempt 1, 1.500 s"


# --- the listener ---


def test_what_a_listener_raises_is_logged_once_for_each_kind_of_event(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Event] = []

    def faulty(event: Event) -> None:
        seen.append(event)
        raise ValueError("a fault of the listener's")

    listener = Listener(faulty)
    for event in EVENTS * 3:
        listener.emit(event)
    assert seen == EVENTS * 3
    assert len(caplog.records) == len(EVENTS)
    assert {record.name for record in caplog.records} == {"infrai_async"}
    assert all(record.exc_info and "Throttled" not in record.getMessage() for record in caplog.records[:3])


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_what_ends_a_program_passes_through(kind: type[BaseException]) -> None:
    def ending(event: Event) -> None:
        raise kind

    with pytest.raises(kind):
        Listener(ending).emit(EVENTS[0])


async def asynchronous(event: Event) -> None:
    """No listener: nobody would wait for it."""


class Asynchronous:
    __call__ = staticmethod(asynchronous)


@pytest.mark.parametrize("client", [AsyncInfrai, Infrai])
@pytest.mark.parametrize("wrong", [5, "print", [print], asynchronous, Asynchronous()])
def test_a_listener_is_a_plain_function(client: Any, wrong: object) -> None:
    with pytest.raises(InvalidArgument, match="on_event"):
        client("k", on_event=wrong)


# --- what one call tells ---


def reported(*costs: float | None) -> tuple[CallFinished, list[Event]]:
    """The events of a call whose answers say that they cost so much."""
    seen: list[Event] = []
    with Listener(seen.append).new_reporter("db.project.get", None) as reporter:
        reporter.started()
        for number, cost in enumerate(costs):
            reporter.sent("GET", "https://api.infrai.cc", "/v1/things?cursor=private", 0.0)
            envelope = Envelope(metadata={"cost_usd": cost, "request_id": f"r-{number}"})
            reporter.note_response(metadata_of(envelope))
    (*_, last) = seen
    assert isinstance(last, CallFinished)
    return last, seen


def test_the_costs_of_all_answers_are_added_exactly() -> None:
    assert reported(0.1, 0.2, None)[0].cost_usd == Decimal("0.3")


def test_without_a_cost_there_is_none() -> None:
    assert reported()[0].cost_usd is None
    assert reported(None)[0].cost_usd is None
    assert reported(0.0)[0].cost_usd == 0


def test_the_last_answer_that_has_an_id_gives_it() -> None:
    assert reported(0.1, 0.2)[0].request_id == "r-1"
    assert reported()[0].request_id is None


def test_attempts_are_counted() -> None:
    assert [event.attempt for event in reported(0.1, 0.2)[1]] == [0, 1, 2, 2]


def test_calls_have_numbers_of_their_own() -> None:
    numbers = [{event.call for event in reported(0.1)[1]} for _ in range(10)]
    assert all(len(number) == 1 for number in numbers)
    assert len(set().union(*numbers)) == 10


def test_the_status_is_that_of_the_last_attempt() -> None:
    seen: list[Event] = []
    for statuses in ([], [200], [503, 200], [503, None]):
        with Listener(seen.append).new_reporter("db.project.get", None) as reporter:
            reporter.started()
            for status in statuses:
                reporter.attempt_ended(status)
    ended = [event for event in seen if isinstance(event, CallFinished)]
    assert [event.status for event in ended] == [None, 200, 200, None]
    assert {event.error_type for event in ended} == {None}


def test_a_query_is_not_told() -> None:
    (sent,) = [event for event in reported(0.1)[1] if isinstance(event, AttemptSent)]
    assert sent.path == "/v1/things"
    assert "private" not in repr(sent)


def test_a_call_that_never_began_tells_nothing() -> None:
    seen: list[Event] = []
    with pytest.raises(InvalidArgument), Listener(seen.append).new_reporter("db.project.get", None):
        raise InvalidArgument("id must be a string")
    assert seen == []


@pytest.mark.parametrize(
    ("error", "told", "cancelled"),
    [
        (RateLimitError("no", status=429), True, False),
        (asyncio.CancelledError(), False, True),
        (KeyboardInterrupt(), False, True),
        (RuntimeError("a fault"), False, True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_call_that_failed_tells_its_error_and_one_that_was_stopped_says_so(
    error: BaseException, told: bool, cancelled: bool
) -> None:
    seen: list[Event] = []

    def stopped() -> None:
        with Listener(seen.append).new_reporter("db.project.get", None) as reporter:
            reporter.started()
            raise error

    with pytest.raises(type(error)):
        stopped()
    _, last = seen
    assert isinstance(last, CallFinished)
    assert last.error is (error if told else None)
    assert last.cancelled is cancelled
    assert last.error_type == type(error).__name__
