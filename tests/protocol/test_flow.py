"""One call from beginning to end: each test sends answers to the flow, and looks at what it asks for next."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest

from infrai_async._protocol.decode import VALUE, decode, decode_page
from infrai_async._protocol.flow import (
    Call,
    Closed,
    Expired,
    Flow,
    Pause,
    RefreshKey,
    Result,
    RouteMemory,
    Throttle,
    ThrottledPastDeadline,
    run,
)
from infrai_async._protocol.reader import ResponseReader
from infrai_async._protocol.request import UNSET, Request
from infrai_async._protocol.response import NoResponse, Response
from infrai_async._protocol.retry import RetryPolicy
from infrai_async.capabilities import CAPABILITIES, Capability, Route
from infrai_async.capabilities.table import query
from infrai_async.errors import (
    APIError,
    Attempt,
    AuthenticationError,
    BudgetExceeded,
    ClientClosedError,
    ConflictError,
    ConnectError,
    DecodeError,
    InfraiError,
    InsufficientCreditError,
    InvalidArgument,
    NotFoundError,
    RateLimitError,
    ServerError,
    TimeoutError,
    TransportError,
)
from infrai_async.models import Ack, Balance, Page, Project

KEY = "8b1f0c"
ROWS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "contract" / "capabilities.json").read_text(encoding="utf-8")
)
DOCUMENTED = {row["id"]: row for row in ROWS}
NOT_SENT, SENT = NoResponse(ConnectError("refused"), sent=False), NoResponse(TransportError("reset"), sent=True)

# One row of each kind that D19 tells apart; the flow decodes into plain JSON here, which is not its subject.
KINDS = {
    "GET": ("db.project.get", {"id": "p"}),
    "DELETE": ("db.project.delete", {"id": "p"}),
    "safe POST": ("db.project.create", {"name": "shop"}),
    "unsafe POST": ("flags.set", {"key": "k"}),
    "unsafe PATCH": ("cdn.distribution.update", {"distribution_id": "d"}),
}


def plain(_: object, envelope: Any) -> Any:
    return envelope.data


def answer(status: int = 200, data: object = None, *, after: object = None, **error: object) -> Response:
    """An enveloped answer: ``data``, or an error of the given fields."""
    document = {
        "ok": status < 300 and not error,
        "data": data,
        "error": error or None,
        "metadata": {"request_id": "r1"},
    }
    headers = {} if after is None else {"Retry-After": str(after)}
    return Response(status, headers, json.dumps(document).encode(), started_at=1767323045.0, seconds=0.25, waited=0.5)


@attrs.define
class Asked:
    """A call, and what its flow is given besides."""

    call: Call[Any]
    routes: RouteMemory
    clock: Callable[[], float]
    chance: Callable[[], float]
    costs: list[Decimal | None] = attrs.field(factory=list)

    def start(self, decoder: Any) -> Flow[Any]:
        call = attrs.evolve(self.call, reader=ResponseReader(decoder, lambda *_: None))
        request = call.request(self.routes.generation)
        note = lambda said: self.costs.append(said.cost_usd)  # noqa: E731
        return run(call, request, note, self.routes, clock=self.clock, chance=self.chance)


def call(
    row: str = "db.project.get",
    arguments: dict[str, object] | None = None,
    *,
    policy: RetryPolicy = RetryPolicy(max_attempts=3, initial=1.0),  # noqa: B008 - frozen
    learned: RouteMemory | None = None,
    left: Sequence[float] = (1e9,),
    chance: float = 0.5,
    key_in_body: bool = False,
) -> Asked:
    """A call whose time left is read from ``left``, the last of which holds on."""
    remaining = list(left)
    made = Call(
        CAPABILITIES[row],
        {"id": "p"} if arguments is None else arguments,
        VALUE,
        policy,
        started=-60.0,
        deadline=0.0,
        idempotency_key=KEY,
        key_in_body=key_in_body,
    )
    clock = lambda: -(remaining.pop(0) if len(remaining) > 1 else remaining[0])  # noqa: E731
    return Asked(made, learned if learned is not None else RouteMemory(), clock, lambda: chance)


def drive(made: Asked, *results: Result, decoder: Any = plain) -> tuple[list[object], Any]:
    """Send ``results`` one after another; return the steps and what came of it (``...``: it wants more).

    A step that has no answer of its own (``Throttle``) is answered by ``None`` unasked.
    """
    steps, waiting = [], list(results)
    try:
        flow = made.start(decoder)
        step = next(flow)
        while True:
            steps.append(step)
            if isinstance(step, Throttle):
                step = flow.send(None)
            elif waiting:
                step = flow.send(waiting.pop(0))
            else:
                return steps, ...
    except StopIteration as stop:
        return steps, stop.value
    except InfraiError as error:
        return steps, error
    finally:
        assert not waiting, f"never asked for: {waiting}"


def kinds(steps: list[object]) -> list[str]:
    return ["Send" if isinstance(step, Request) else type(step).__name__ for step in steps]


def sent(steps: list[object]) -> list[Request]:
    return [step for step in steps if isinstance(step, Request)]


def error_of(*results: Result, **options: Any) -> Any:
    outcome = drive(call(**options), *results)[1]
    assert isinstance(outcome, InfraiError)
    return outcome


# --- the good case -----------------------------------------------------------------------------------------------


def test_a_call_is_one_request_and_its_answer() -> None:
    steps, value = drive(call(), answer(data={"id": "p"}))
    assert steps == [Request("GET", "/v1/db/project/get/p")]
    assert value == {"id": "p"}


def test_an_answer_becomes_the_model_of_its_row() -> None:
    document = {"id": "p", "name": "shop", "connection_uri": "postgresql://h/d"}
    value = drive(call(), answer(data=document), decoder=decode)[1]
    assert value == Project(id="p", name="shop", connection_uri="postgresql://h/d")
    assert value.metadata.request_id == "r1"


def test_a_list_becomes_a_page() -> None:
    page = drive(call("db.project.list", {}), answer(data={"items": [], "next_cursor": "c"}), decoder=decode_page)[1]
    assert page == Page(items=(), next_cursor="c")


def test_a_bare_document_is_an_answer_too() -> None:
    bare = Response(200, {}, b'{"balance_usd": 1}')
    assert drive(call("account.balance", {}), bare, decoder=decode)[1] == Balance(balance_usd=1)  # type: ignore[arg-type]


def test_a_wrong_argument_is_found_before_anything_is_sent() -> None:
    steps, error = drive(call(arguments={}))
    assert steps == []
    assert isinstance(error, InvalidArgument)
    assert str(error) == "db.project.get: id is required"
    assert error.outcome == "not_sent"


def test_a_key_of_the_callers_goes_along_in_header_and_body() -> None:
    steps, _ = drive(call("db.project.create", {"name": "shop"}, key_in_body=True))
    assert sent(steps) == [
        Request("POST", "/v1/db/project/create", b'{"idempotency_key":"8b1f0c","name":"shop"}\n', "8b1f0c")
    ]


def test_every_attempt_is_the_same_request() -> None:
    steps, _ = drive(call("db.project.create", {"name": "shop"}), SENT, True, answer(429), True)
    assert sent(steps) == [Request("POST", "/v1/db/project/create", b'{"name":"shop"}\n', "8b1f0c")] * 3


# --- D19: what is sent again ---------------------------------------------------------------------------------------

ALL = set(KINDS)
REPEATABLE = {"GET", "DELETE", "safe POST"}
NONE: set[str] = set()

# A failure; who sends again after it; whether the pool holds; what is said of the call if it was the last.
FAILURES: dict[str, tuple[Result, set[str], bool, str]] = {
    "not sent": (NOT_SENT, ALL, False, "not_sent"),
    "broken after sent": (SENT, REPEATABLE, False, "maybe_applied"),
    "429": (answer(429, code="RATE_LIMITED"), ALL, False, "rejected"),
    "429 retryable": (answer(429, code="RATE_LIMITED", retryable=True), ALL, False, "rejected"),
    "429 not retryable": (answer(429, code="RATE_LIMITED", retryable=False), NONE, False, "rejected"),
    "429 with Retry-After": (answer(429, after=2), ALL, True, "rejected"),
    "429 not retryable with Retry-After": (answer(429, after=2, retryable=False), NONE, True, "rejected"),
    "503 with Retry-After": (answer(503, after=2), REPEATABLE, True, "maybe_applied"),
    "503 retryable with Retry-After": (answer(503, after=2, retryable=True), ALL, True, "rejected"),
    "503 not retryable with Retry-After": (answer(503, after=2, retryable=False), NONE, True, "rejected"),
    "500": (answer(500, code="INTERNAL_ERROR"), REPEATABLE, False, "maybe_applied"),
    "502 of a proxy": (Response(502, {"Content-Type": "text/html"}, b"<html>"), REPEATABLE, False, "maybe_applied"),
    "503": (answer(503), REPEATABLE, False, "maybe_applied"),
    "504": (answer(504), REPEATABLE, False, "maybe_applied"),
    "500 retryable": (answer(500, retryable=True), ALL, False, "rejected"),
    "500 not retryable": (answer(500, retryable=False), NONE, False, "rejected"),
    "402": (answer(402, code="INSUFFICIENT_CREDIT"), NONE, False, "rejected"),
    "402 retryable": (answer(402, retryable=True), NONE, False, "rejected"),
    "400": (answer(400), NONE, False, "rejected"),
    "400 retryable": (answer(400, retryable=True), ALL, False, "rejected"),
    "403": (answer(403), NONE, False, "rejected"),
    "404": (answer(404, code="DB_PROJECT_NOT_FOUND"), NONE, False, "rejected"),
    "409": (answer(409), NONE, False, "rejected"),
    "409 retryable": (answer(409, retryable=True), ALL, False, "rejected"),
    "302": (Response(302, {"Location": "/x"}, b""), NONE, False, "rejected"),
    "ok false under 200": (answer(200, code="VENDOR_ERROR"), NONE, False, "rejected"),
    "ok false under 200, retryable": (answer(200, code="VENDOR_ERROR", retryable=True), ALL, False, "rejected"),
    "unreadable 200": (Response(200, {}, b"{"), NONE, False, "maybe_applied"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("failure", FAILURES)
def test_after_a_failure_only_what_is_safe_is_sent_again(failure: str, kind: str) -> None:
    result, again, held, _ = FAILURES[failure]
    hold = ["Throttle"] if held else []
    if kind not in again:
        assert kinds(drive(call(*KINDS[kind]), result)[0]) == ["Send", *hold]
    elif held:
        assert kinds(drive(call(*KINDS[kind]), result)[0]) == ["Send", "Throttle", "Send"]
    else:
        slowed = (
            ["Throttle"] if failure.startswith("429") else []
        )  # by nobody knows how much: by the pause of this call
        assert kinds(drive(call(*KINDS[kind]), result, True)[0]) == ["Send", *slowed, "Pause", "Send"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("failure", FAILURES)
def test_the_last_failure_is_raised_with_what_became_of_the_call(failure: str, kind: str) -> None:
    result, _, held, outcome = FAILURES[failure]
    steps, error = drive(call(*KINDS[kind], policy=RetryPolicy.none()), result)
    assert kinds(steps) == ["Send", "Throttle"] if held else ["Send"]
    assert error.outcome == outcome
    assert len(error.attempts) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("failure", [name for name, (_, _, held, _) in FAILURES.items() if not held])
def test_a_call_is_sent_as_often_as_the_policy_says_and_every_attempt_is_told(failure: str, kind: str) -> None:
    result, again, _, outcome = FAILURES[failure]
    times = 3 if kind in again else 1
    results: list[Result] = [result, True] * (times - 1) + [result]
    steps, error = drive(call(*KINDS[kind]), *results)
    assert len(sent(steps)) == len(error.attempts) == times
    assert error.outcome == outcome
    assert error.capability == KINDS[kind][0]
    assert error.idempotency_key == (None if kind == "GET" else KEY)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("failure", ["429", "429 with Retry-After", "503 with Retry-After", "500", "not sent"])
def test_without_retries_nothing_is_ever_sent_twice(failure: str, kind: str) -> None:
    steps, error = drive(call(*KINDS[kind], policy=RetryPolicy.none()), FAILURES[failure][0])
    assert len(sent(steps)) == 1
    assert isinstance(error, InfraiError)


def arguments_of(row: str) -> dict[str, object]:
    samples: dict[str, object] = {
        "string": "x",
        "number": 1,
        "boolean": True,
        "'user_id'|'session_id'|'device_id'": "user_id",
    }
    return {p["name"]: samples[p["type"]] for p in DOCUMENTED[row]["params"] if p["required"]}


@pytest.mark.parametrize("row", CAPABILITIES)
def test_each_row_is_sent_again_after_a_break_only_where_its_documentation_makes_that_safe(row: str) -> None:
    known = DOCUMENTED[row]
    safe = known["method"] in ("GET", "DELETE") or known["idempotent_key"]
    steps = drive(call(row, arguments_of(row)), SENT, *([True] if safe else []))[0]
    assert kinds(steps) == (["Send", "Pause", "Send"] if safe else ["Send"])


def test_a_write_that_may_have_been_done_stays_so_whatever_comes_later() -> None:
    error = error_of(
        SENT, True, answer(409, code="STORAGE_BUCKET_EXISTS"), row="db.project.create", arguments={"name": "s"}
    )
    assert isinstance(error, ConflictError)
    assert error.outcome == "maybe_applied"


def test_a_write_that_may_have_been_done_stays_so_when_the_next_attempt_does_not_leave() -> None:
    error = error_of(SENT, True, NOT_SENT, True, NOT_SENT, row="db.project.create", arguments={"name": "s"})
    assert isinstance(error, ConnectError)
    assert error.outcome == "maybe_applied"


def test_a_read_that_broke_and_was_then_refused_was_refused() -> None:
    assert error_of(SENT, True, answer(404, code="DB_PROJECT_NOT_FOUND")).outcome == "rejected"


def test_an_attempt_whose_time_ran_out_is_the_last() -> None:
    steps, error = drive(call(), NoResponse(TimeoutError("no answer in time"), sent=True))
    assert kinds(steps) == ["Send"]
    assert error.outcome == "maybe_applied"


# --- what an error says of its attempts -------------------------------------------------------------------------------


def test_every_attempt_is_told_in_full() -> None:
    broken = NoResponse(TransportError("reset"), sent=True, started_at=1767323040.0, seconds=1.0, waited=0.0)
    error = error_of(broken, True, answer(404, code="DB_PROJECT_NOT_FOUND"))
    assert error.attempts == (
        Attempt(started_at=datetime(2026, 1, 2, 3, 4, 0, tzinfo=UTC), seconds=1.0, error="reset"),
        Attempt(
            started_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            seconds=0.25,
            status=404,
            error="DB_PROJECT_NOT_FOUND",
            waited=0.5,
            request_id="r1",
        ),
    )


def test_an_attempt_without_a_code_is_told_by_its_status() -> None:
    assert error_of(Response(403, {}, b"no")).attempts[0].error == "HTTP 403"


def test_an_answer_that_cannot_be_decoded_is_told_with_its_request_id() -> None:
    error = drive(call(), answer(data={"id": 5}), decoder=decode)[1]
    assert isinstance(error, DecodeError)
    assert (error.path, error.status, error.outcome, error.attempts[0].request_id) == (
        "$.data.id",
        200,
        "maybe_applied",
        "r1",
    )


# --- pauses ------------------------------------------------------------------------------------------------------


def test_pauses_grow_with_every_failure() -> None:
    policy = RetryPolicy(max_attempts=5, initial=1.0, maximum=3.0)
    steps, _ = drive(call(policy=policy, chance=1.0), *[answer(500, code="X"), True] * 4)
    assert [step for step in steps if isinstance(step, Pause)] == [
        Pause(1.0, "db.project.get", "X"),
        Pause(2.0, "db.project.get", "X"),
        Pause(3.0, "db.project.get", "X"),
        Pause(3.0, "db.project.get", "X"),
    ]


def test_a_pause_is_never_shorter_than_the_answer_asks() -> None:
    steps, _ = drive(call(), answer(500, after=7))
    assert steps[1] == Pause(7.0, "db.project.get", "HTTP 500")


def test_a_pause_that_just_fits_is_made() -> None:
    assert kinds(drive(call(chance=1.0, left=[1.0]), answer(500))[0]) == ["Send", "Pause"]


def test_a_pause_that_cannot_fit_raises_the_error_in_hand_at_once() -> None:
    steps, error = drive(call(chance=1.0, left=[0.99]), answer(500, code="INTERNAL_ERROR"))
    assert kinds(steps) == ["Send"]
    assert isinstance(error, ServerError)
    assert error.code == "INTERNAL_ERROR"


@pytest.mark.parametrize("kind", KINDS)
def test_a_retry_that_the_quota_refuses_raises_the_error_in_hand(kind: str) -> None:
    steps, error = drive(call(*KINDS[kind]), answer(500, retryable=True, code="VENDOR_ERROR"), False)
    assert kinds(steps) == ["Send", "Pause"]
    assert (type(error), error.code, len(error.attempts)) == (ServerError, "VENDOR_ERROR", 1)


@pytest.mark.parametrize(("initial", "chance"), [(0.0, 0.5), (1.0, 0.0)])
def test_a_retry_without_a_pause_draws_on_the_quota_all_the_same(initial: float, chance: float) -> None:
    steps, error = drive(call(policy=RetryPolicy(initial=initial), chance=chance), answer(500), False)
    assert steps[1] == Pause(0.0, "db.project.get", "HTTP 500")
    assert isinstance(error, ServerError)


# --- 429 and 503 with Retry-After ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_holds_the_pool_and_uses_up_no_attempt(status: int) -> None:
    steps, value = drive(call(), *[answer(status, after=1.5)] * 50, answer(data="done"))
    assert value == "done"
    assert steps[1] == Throttle(1.5)
    assert kinds(steps) == ["Send", "Throttle"] * 50 + ["Send"]


def test_attempts_are_counted_besides_the_ones_that_retry_after_asked_for() -> None:
    limited, failed = answer(429, after=1), answer(500)
    steps, error = drive(call(), limited, failed, True, limited, failed, True, limited, failed)
    assert kinds(steps).count("Pause") == 2
    assert [attempt.status for attempt in error.attempts] == [429, 500, 429, 500, 429, 500]


def test_a_429_without_retry_after_uses_up_an_attempt() -> None:
    steps, error = drive(call(), answer(429), True, answer(429), True, answer(429))
    assert kinds(steps) == ["Send", "Throttle", "Pause", "Send", "Throttle", "Pause", "Send"]
    assert (type(error), error.retry_after) == (RateLimitError, None)


def test_a_hold_that_cannot_fit_raises_the_refusal_at_once() -> None:
    steps, error = drive(call(left=[1.0]), answer(429, after=1.5, code="RATE_LIMITED"))
    assert kinds(steps) == ["Send", "Throttle"]
    assert (type(error), error.retry_after, error.status) == (RateLimitError, 1.5, 429)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("asked", [31536000, "9" * 400, "1e308", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_hold_is_believed_up_to_a_limit_and_then_tried_by_one_call_at_a_time(status: int, asked: Any) -> None:
    policy = RetryPolicy(longest_pause=2.0)
    steps, value = drive(call(policy=policy), answer(status, after=asked), answer(data="done"))
    assert value == "done"
    assert steps[1] == Throttle(2.0, probe=True)


def test_a_hold_that_is_not_cut_needs_no_probe() -> None:
    steps, _ = drive(call(policy=RetryPolicy(longest_pause=2.0)), answer(429, after=2.0), answer(data="done"))
    assert steps[1] == Throttle(2.0, probe=False)


def test_another_pause_that_the_service_asks_for_has_the_same_limit() -> None:
    steps, _ = drive(call(policy=RetryPolicy(longest_pause=2.0)), answer(500, after=3600), True, answer(data="done"))
    assert steps[1].seconds == 2.0


@pytest.mark.parametrize("status", [429, 503])
def test_a_call_that_meets_the_pause_of_another_one_is_told_what_the_service_said(status: int) -> None:
    steps, said = drive(call(policy=RetryPolicy.none()), answer(status, after=9, code="WHY"))
    error = error_of(ThrottledPastDeadline(8.5, steps[1].error))
    assert steps[1].error is said
    assert (type(error), error.status, error.code, error.retry_after) == (type(said), status, "WHY", 8.5)
    assert (error.outcome, error.attempts, error.request_id) == ("not_sent", (), None)


def test_holds_end_when_the_calls_time_does() -> None:
    steps, error = drive(call(left=[3.0, 2.0, 1.0]), *[answer(429, after=1.5)] * 3)
    assert kinds(steps) == ["Send", "Throttle"] * 3
    assert len(error.attempts) == 3


def test_without_retries_a_429_still_holds_the_pool() -> None:
    steps, error = drive(call(policy=RetryPolicy.none()), answer(429, after=1.5))
    assert steps[1:] == [Throttle(1.5)]
    assert (type(error), error.retry_after) == (RateLimitError, 1.5)


def test_a_date_in_the_past_counts_as_none() -> None:
    steps, _ = drive(call(), answer(429, after="Thu, 01 Jan 2015 00:00:00 GMT"))
    assert kinds(steps) == ["Send", "Throttle", "Pause"]


def test_a_429_that_does_not_say_for_how_long_holds_the_pool_for_as_long_as_its_call_pauses() -> None:
    (_, hold, pause), _ = drive(call(), answer(429))
    assert hold == Throttle(pause.seconds)


# --- results that are no answers -----------------------------------------------------------------------------------


def test_a_gate_that_opens_too_late_is_a_rate_limit_error() -> None:
    error = error_of(ThrottledPastDeadline(12.5), row="db.project.create", arguments={"name": "s"})
    assert isinstance(error, RateLimitError)
    assert (error.retry_after, error.status, error.outcome, error.attempts) == (12.5, 429, "not_sent", ())
    assert (error.retryable, error.capability, error.idempotency_key) == (True, "db.project.create", KEY)


def test_a_gate_that_opens_too_late_after_a_refusal_raises_the_refusal() -> None:
    error = error_of(answer(503, code="VENDOR_UNAVAILABLE"), True, ThrottledPastDeadline(12.5))
    assert (type(error), error.code, len(error.attempts)) == (ServerError, "VENDOR_UNAVAILABLE", 1)


def test_a_gate_that_opens_too_late_after_a_break_is_a_rate_limit_error_that_tells_of_it() -> None:
    error = error_of(SENT, True, ThrottledPastDeadline(2.0), row="db.project.create", arguments={"name": "s"})
    assert isinstance(error, RateLimitError)
    assert (error.outcome, len(error.attempts)) == ("maybe_applied", 1)
    assert isinstance(error.__cause__, TransportError)


def test_time_that_runs_out_before_sending_is_a_timeout() -> None:
    error = error_of(Expired("for a slot in the pool", "127.0.0.1:8000"))
    assert isinstance(error, TimeoutError)
    limit = "db.project.get: the call's time limit of 60 s was reached"
    assert str(error) == f"{limit} while it waited for a slot in the pool, before it was sent to 127.0.0.1:8000"
    assert (error.outcome, error.attempts) == ("not_sent", ())


def test_time_that_runs_out_between_attempts_tells_of_them() -> None:
    error = error_of(SENT, True, Expired("between attempts"), row="db.project.create", arguments={"name": "s"})
    assert isinstance(error, TimeoutError)
    assert (error.outcome, len(error.attempts)) == ("maybe_applied", 1)
    assert isinstance(error.__cause__, TransportError)


def test_a_closed_client_sends_nothing() -> None:
    error = error_of(Closed())
    assert isinstance(error, ClientClosedError)
    assert (error.outcome, error.attempts, error.capability) == ("not_sent", (), "db.project.get")


def test_a_client_that_closes_between_attempts_raises_the_error_in_hand() -> None:
    error = error_of(SENT, True, Closed())
    assert type(error) is TransportError
    assert len(error.attempts) == 1


# --- 401: another key, once ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_401_another_key_is_asked_for_once(kind: str) -> None:
    steps, value = drive(call(*KINDS[kind]), answer(401), True, answer(data="done"))
    assert kinds(steps) == ["Send", "RefreshKey", "Send"]
    assert steps[1] == RefreshKey()
    assert value == "done"


def test_a_second_401_is_raised() -> None:
    steps, error = drive(call(), answer(401), True, answer(401, code="UNAUTHORIZED"))
    assert kinds(steps) == ["Send", "RefreshKey", "Send"]
    assert (type(error), error.outcome, len(error.attempts)) == (AuthenticationError, "rejected", 2)


def test_a_401_without_another_key_is_raised() -> None:
    steps, error = drive(call(), answer(401), False)
    assert kinds(steps) == ["Send", "RefreshKey"]
    assert isinstance(error, AuthenticationError)


def test_without_retries_a_401_renews_the_key_for_later_calls_only() -> None:
    steps, error = drive(call(policy=RetryPolicy.none()), answer(401), True)
    assert kinds(steps) == ["Send", "RefreshKey"]
    assert isinstance(error, AuthenticationError)


def test_a_renewal_uses_up_no_attempt() -> None:
    results: list[Result] = [answer(401), True, answer(500), True, answer(500), True, answer(500)]
    assert len(sent(drive(call(), *results)[0])) == 4


# --- 402, 404 after a break (D17) ------------------------------------------------------------------------------------


def test_a_402_says_where_to_pay() -> None:
    error = error_of(answer(402, code="INSUFFICIENT_CREDIT", checkout_url="https://pay"))
    assert isinstance(error, InsufficientCreditError)
    assert error.checkout_url == "https://pay"


def test_what_is_gone_after_a_break_was_deleted() -> None:
    results: list[Result] = [SENT, True, answer(404, code="DB_PROJECT_NOT_FOUND")]
    steps, value = drive(call("db.project.delete"), *results)
    assert kinds(steps) == ["Send", "Pause", "Send"]
    assert value == Ack(ok=True)


@pytest.mark.parametrize("first", [answer(500), answer(503, after=1), Response(502, {}, b"<html>")])
def test_what_is_gone_after_any_ambiguous_failure_was_deleted(first: Response) -> None:
    pause: list[Result] = [] if "Retry-After" in first.headers else [True]
    assert drive(call("db.project.delete"), first, *pause, answer(404, code="X"))[1] == Ack(ok=True)


def test_what_was_never_there_is_not_found() -> None:
    error = error_of(answer(404, code="DB_PROJECT_NOT_FOUND"), row="db.project.delete")
    assert (type(error), error.outcome) == (NotFoundError, "rejected")


@pytest.mark.parametrize("first", [NOT_SENT, answer(429), answer(500, retryable=True)], ids=["not sent", "429", "500"])
def test_a_404_after_a_clear_failure_is_not_found(first: Result) -> None:
    error = error_of(first, True, answer(404, code="DB_PROJECT_NOT_FOUND"), row="db.project.delete")
    assert (type(error), error.outcome) == (NotFoundError, "rejected")


@pytest.mark.parametrize("kind", ["GET", "safe POST"])
def test_a_404_after_a_break_of_anything_else_is_not_found(kind: str) -> None:
    assert isinstance(drive(call(*KINDS[kind]), SENT, True, answer(404, code="X_NOT_FOUND"))[1], NotFoundError)


# --- two generations of routes (D2) ----------------------------------------------------------------------------------

OLD, NEW = "/v1/storage/buckets/b/objects/k", "/v1/storage/object/delete/b/k"
UNROUTED = {
    "a page": Response(404, {"Content-Type": "text/html"}, b"<html>"),
    "nothing": Response(404, {}, b""),
    "a bare error": Response(404, {}, b'{"error":"no such route"}'),
    "an envelope": answer(404, code="NOT_FOUND"),
    "405": Response(405, {}, b""),
    "405 enveloped": answer(405, code="NOT_FOUND"),
    "405 with a code": answer(405, code="METHOD_NOT_ALLOWED"),
    "an envelope in other letters": answer(404, code="not_found"),
    "an envelope without a code": Response(404, {}, b'{"ok":false,"data":null,"error":{"message":"no"}}'),
}


def storage(**options: Any) -> Call:
    return call("storage.object.delete", {"bucket": "b", "key": "k"}, **options)


@pytest.mark.parametrize("policy", [RetryPolicy(), RetryPolicy.none()], ids=["retries", "no retries"])
@pytest.mark.parametrize("first", UNROUTED.values(), ids=UNROUTED)
def test_a_route_that_is_not_there_moves_the_call_to_the_other_one(first: Response, policy: RetryPolicy) -> None:
    steps, value = drive(storage(policy=policy), first, answer(data={"ok": True}))
    assert sent(steps) == [Request("DELETE", OLD, None, KEY), Request("DELETE", NEW, None, KEY)]
    assert kinds(steps) == ["Send", "Send"]
    assert value == {"ok": True}


@pytest.mark.parametrize("code", ["STORAGE_BUCKET_NOT_FOUND", "STORAGE_OBJECT_NOT_FOUND"])
def test_a_missing_resource_moves_nobody(code: str) -> None:
    steps, error = drive(storage(), answer(404, code=code))
    assert kinds(steps) == ["Send"]
    assert isinstance(error, NotFoundError)


def test_a_row_of_one_generation_stays_where_it_is() -> None:
    steps, error = drive(call("db.project.delete"), UNROUTED["a page"])
    assert kinds(steps) == ["Send"]
    assert isinstance(error, NotFoundError)


def test_fields_follow_the_generation() -> None:
    made = call(
        "storage.object.presign", {"bucket": "b", "key": "k", "method": "PUT", "expires_seconds": 9}, key_in_body=True
    )
    steps, _ = drive(made, UNROUTED["nothing"])
    assert sent(steps) == [
        Request(
            "POST",
            "/v1/storage/buckets/b/objects/k/presign",
            b'{"expires_seconds":9,"idempotency_key":"8b1f0c","method":"PUT"}\n',
            KEY,
        ),
        Request(
            "POST",
            "/v1/storage/object/presign/b/k",
            b'{"expires_seconds":9,"idempotency_key":"8b1f0c","op":"put"}\n',
            KEY,
        ),
    ]


@pytest.mark.parametrize(
    "second",
    [answer(data={}), answer(404, code="STORAGE_BUCKET_NOT_FOUND"), answer(400), answer(429), answer(402)],
    ids=["success", "a missing bucket", "400", "429", "402"],
)
def test_the_route_that_answered_is_remembered(second: Response) -> None:
    learned = RouteMemory()
    drive(storage(learned=learned, policy=RetryPolicy.none()), UNROUTED["nothing"], second)
    assert learned == RouteMemory(generation=1)
    assert sent(drive(storage(learned=learned))[0])[0].target == NEW


@pytest.mark.parametrize("second", UNROUTED.values(), ids=UNROUTED)
def test_when_neither_route_is_there_nothing_is_remembered(second: Response) -> None:
    learned = RouteMemory()
    steps, error = drive(storage(learned=learned), UNROUTED["nothing"], second)
    assert kinds(steps) == ["Send", "Send"]
    assert learned == RouteMemory(generation=0)
    assert [attempt.status for attempt in error.attempts] == [404, second.status]


def test_a_break_on_the_other_route_is_not_remembered() -> None:
    learned = RouteMemory()
    drive(storage(learned=learned, policy=RetryPolicy.none()), UNROUTED["nothing"], SENT)
    assert learned == RouteMemory(generation=0)


def test_a_move_without_failure_of_the_other_route_uses_up_no_attempt() -> None:
    results: list[Result] = [UNROUTED["nothing"], answer(500), True, answer(500), True, answer(500)]
    steps, error = drive(storage(), *results)
    assert [request.target for request in sent(steps)] == [OLD, NEW, NEW, NEW]
    assert isinstance(error, ServerError)


def test_a_call_moves_once() -> None:
    steps, error = drive(storage(), UNROUTED["nothing"], answer(500, retryable=True), True, UNROUTED["nothing"])
    assert [request.target for request in sent(steps)] == [OLD, NEW, NEW]
    assert isinstance(error, NotFoundError)


def test_a_service_that_goes_back_to_its_old_routes_is_followed() -> None:
    learned = RouteMemory(generation=1)
    steps, _ = drive(storage(learned=learned), UNROUTED["nothing"], answer(data={}))
    assert [request.target for request in sent(steps)] == [NEW, OLD]
    assert learned == RouteMemory(generation=0)


def test_what_was_learned_changes_nothing_for_rows_of_one_generation() -> None:
    steps, _ = drive(call(learned=RouteMemory(generation=1)))
    assert sent(steps)[0].target == "/v1/db/project/get/p"


def test_a_move_after_a_break_still_knows_of_it() -> None:
    missing = answer(404, code="STORAGE_OBJECT_NOT_FOUND")
    steps, value = drive(storage(), SENT, True, UNROUTED["nothing"], missing)
    assert [request.target for request in sent(steps)] == [OLD, OLD, NEW]
    assert value == Ack(ok=True)


# --- arguments that one generation's route does not carry (D2) -------------------------------------------------------

PRESIGN_OLD, PRESIGN_NEW = "/v1/storage/buckets/b/objects/k/presign", "/v1/storage/object/presign/b/k"
ONLY_NEW: list[dict[str, object]] = [
    {"content_type": "text/plain"},
    {"content_type": ""},
    {"max_bytes": 10},
    {"max_bytes": 0},
    {"response_disposition": "inline"},
    {"response_disposition": ""},
]


def presign(arguments: dict[str, object], **options: Any) -> Asked:
    return call("storage.object.presign", {"bucket": "b", "key": "k", **arguments}, **options)


def targets(steps: list[object]) -> list[str]:
    return [request.target for request in sent(steps)]


@pytest.mark.parametrize("remembered", [0, 1])
@pytest.mark.parametrize("arguments", ONLY_NEW, ids=repr)
def test_the_route_that_carries_every_argument_is_taken_at_once(arguments: dict[str, object], remembered: int) -> None:
    learned = RouteMemory(generation=remembered)
    steps, _ = drive(presign(arguments, learned=learned), answer(data={}))
    assert targets(steps) == [PRESIGN_NEW]
    assert json.loads(sent(steps)[0].body or b"") == {**arguments, "op": "put"}
    assert learned == RouteMemory(generation=remembered)


@pytest.mark.parametrize("remembered", [0, 1])
@pytest.mark.parametrize("absent", [None, UNSET])
def test_an_argument_that_is_not_given_chooses_no_route(absent: object, remembered: int) -> None:
    arguments = dict.fromkeys(("content_type", "max_bytes", "response_disposition"), absent)
    steps, _ = drive(presign(arguments, learned=RouteMemory(generation=remembered)), answer(data={}))
    assert targets(steps) == [(PRESIGN_OLD, PRESIGN_NEW)[remembered]]


@pytest.mark.parametrize("remembered", [0, 1])
@pytest.mark.parametrize("policy", [RetryPolicy(), RetryPolicy.none()], ids=["retries", "no retries"])
@pytest.mark.parametrize("first", UNROUTED.values(), ids=UNROUTED)
def test_an_argument_that_the_other_route_lacks_is_refused_and_not_left_away(
    first: Response, policy: RetryPolicy, remembered: int
) -> None:
    learned = RouteMemory(generation=remembered)
    made = presign({"max_bytes": 9, "content_type": "a/b"}, learned=learned, policy=policy)
    steps, error = drive(made, first)
    assert targets(steps) == [PRESIGN_NEW]
    assert isinstance(error, InvalidArgument)
    assert str(error) == (
        "storage.object.presign: the service has no route that takes content_type and max_bytes: "
        "omit content_type and max_bytes"
    )
    assert (error.outcome, error.idempotency_key) == ("rejected", KEY)
    assert [attempt.status for attempt in error.attempts] == [first.status]
    assert isinstance(error.__cause__, APIError)
    assert error.__cause__.attempts == error.attempts
    assert learned == RouteMemory(generation=remembered)


def test_a_refusal_after_a_break_says_that_the_call_may_have_been_carried_out() -> None:
    steps, error = drive(presign({"max_bytes": 9}), SENT, True, UNROUTED["nothing"])
    assert targets(steps) == [PRESIGN_NEW, PRESIGN_NEW]
    assert isinstance(error, InvalidArgument)
    assert error.outcome == "maybe_applied"
    assert [attempt.status for attempt in error.attempts] == [None, 404]


def test_a_call_that_needs_the_other_route_leaves_what_was_learned_to_the_calls_that_do_not() -> None:
    learned = RouteMemory()
    drive(presign({}, learned=learned), UNROUTED["nothing"], answer(data={}))
    assert learned == RouteMemory(generation=1)
    assert isinstance(drive(presign({"max_bytes": 9}, learned=learned), UNROUTED["nothing"])[1], InvalidArgument)
    steps, _ = drive(presign({}, learned=learned), UNROUTED["nothing"], answer(data={}))
    assert targets(steps) == [PRESIGN_NEW, PRESIGN_OLD]
    assert learned == RouteMemory(generation=0)


# A row of which each route carries an argument that the other lacks; the table has none that reads.
EITHER = Capability(
    "storage.either",
    "GET",
    routes=(
        Route("/v1/old", (query("limit", "integer"),)),
        Route("/v1/new", (query("limit", "integer"), query("prefix"))),
    ),
    returns=Ack,
)
TURNED = attrs.evolve(EITHER, routes=EITHER.routes[::-1])


@pytest.mark.parametrize("remembered", [0, 1])
@pytest.mark.parametrize("row", [EITHER, TURNED], ids=["the second carries all", "the first carries all"])
def test_a_read_takes_the_route_that_carries_every_argument_too(row: Capability[Any], remembered: int) -> None:
    def asked(arguments: dict[str, object]) -> Asked:
        made = call(learned=RouteMemory(generation=remembered))
        return attrs.evolve(made, call=attrs.evolve(made.call, capability=row, arguments=arguments))

    assert targets(drive(asked({"limit": 5, "prefix": ""}))[0]) == ["/v1/new?limit=5&prefix="]
    assert targets(drive(asked({"limit": 5, "prefix": "a"}))[0]) == ["/v1/new?limit=5&prefix=a"]
    steps, error = drive(asked({"limit": 0, "prefix": "a"}), UNROUTED["nothing"])
    assert targets(steps) == ["/v1/new?limit=0&prefix=a"]
    assert isinstance(error, InvalidArgument)
    steps, _ = drive(asked({"limit": 0}), UNROUTED["nothing"], answer(data={}))
    assert targets(steps) == [f"{row.routes[index].path}?limit=0" for index in (remembered, 1 - remembered)]


# --- requests that are too long --------------------------------------------------------------------------------------

LONG = {"plan": "pro", "note": "x" * 9_000}


@pytest.mark.parametrize("status", [414, 431])
def test_a_refusal_of_a_long_url_names_the_argument_that_makes_it_long(status: int) -> None:
    made = call("flags.get_value", {"key": "k", "user_id": "u", "context": LONG, "default": "y" * 99})
    _, error = drive(made, Response(status, {"Content-Type": "text/html"}, b"<html>"))
    assert isinstance(error, APIError)
    assert str(error) == (
        f"flags.get_value: HTTP {status}: the request's URL is too long (9,204 bytes): shorten context"
    )
    _, error = drive(made, answer(status, code="X", message="over 8 kB", hint="h"))
    assert str(error) == (
        f"flags.get_value: X ({status}): over 8 kB; the request's URL is too long (9,204 bytes): shorten context "
        "[request r1]"
    )
    assert error.hint == "h"


def test_a_refusal_of_a_long_url_names_an_id_too() -> None:
    _, error = drive(call("db.project.get", {"id": "p" * 9_000}), Response(414, {}, b""))
    assert "shorten id" in str(error)


def test_a_refusal_of_long_headers_names_what_the_caller_can_change() -> None:
    _, error = drive(call(), Response(431, {}, b""))
    assert str(error).endswith("shorten the client's headers, or idempotency_key")


def test_a_url_that_no_server_accepts_is_not_sent() -> None:
    for row, arguments, name in (
        ("flags.is_enabled", {"key": "k", "context": {"a": "x" * 64_000}}, "context"),
        ("flags.get_value", {"key": "k", "default": "x" * 64_000}, "default"),
        ("db.project.get", {"id": "p" * 64_000}, "id"),
        ("db.project.delete", {"id": "é" * 11_000}, "id"),
        ("db.project.list", {"cursor": "c" * 64_000}, "cursor"),
    ):
        steps, error = drive(call(row, arguments))
        assert steps == []
        assert isinstance(error, InvalidArgument)
        assert str(error).startswith(f"{row}: the request's URL is too long (")
        assert str(error).endswith(f"bytes, more than 64,000): shorten {name}")


def test_a_url_of_the_greatest_length_is_sent() -> None:
    for id in ("p" * (64_000 - len("/v1/db/project/get/")), "-" * (64_000 - len("/v1/db/project/get/"))):
        assert len(targets(drive(call("db.project.get", {"id": id}))[0])[0]) == 64_000
        assert isinstance(drive(call("db.project.get", {"id": id + "p"}))[1], InvalidArgument)


# --- what it looks like ----------------------------------------------------------------------------------------------


def test_steps_show_no_body() -> None:
    steps, _ = drive(call("cdn.distribution.create", {"origin": "https://u:hunter2@h"}))
    assert "hunter2" not in repr(steps)


@pytest.mark.parametrize("step", [Pause(1, "x", "y"), Throttle(1), RefreshKey()], ids=repr)
def test_steps_are_frozen(step: Any) -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        step.seconds = 2


# --- what came of a step that sends nothing ---------------------------------------------------------------------------


@pytest.mark.parametrize("result", [Expired("between attempts"), Closed(), False, None], ids=repr)
def test_whatever_is_not_a_pause_that_was_made_ends_the_call(result: Result) -> None:
    steps, error = drive(call(), answer(500, code="X"), result)
    assert kinds(steps) == ["Send", "Pause"]
    assert isinstance(error, ServerError)


@pytest.mark.parametrize("result", [Expired("for another API key"), Closed(), False, None], ids=repr)
def test_whatever_is_not_another_key_ends_the_call(result: Result) -> None:
    steps, error = drive(call(), answer(401, code="UNAUTHORIZED"), result)
    assert kinds(steps) == ["Send", "RefreshKey"]
    assert isinstance(error, AuthenticationError)


@pytest.mark.parametrize("result", [Closed(), ThrottledPastDeadline(3.0), BudgetExceeded("spent")], ids=repr)
def test_what_failed_before_a_route_was_moved_shows_both_attempts(result: Any) -> None:
    made = call("storage.bucket.list", {})
    steps = made.start(plain)
    next(steps)
    assert steps.send(answer(401, code="UNAUTHORIZED")) == RefreshKey()
    steps.send(True)
    assert isinstance(steps.send(Response(404, {}, b"")), Request)
    with pytest.raises(AuthenticationError) as caught:
        if isinstance(result, InfraiError):
            steps.throw(result)
        else:
            steps.send(result)
    assert [attempt.status for attempt in caught.value.attempts] == [401, 404]


def test_only_what_repeats_a_failure_is_sent_again() -> None:
    steps, _ = drive(call(), answer(401, code="UNAUTHORIZED"), True, answer(500), True, answer(429, after=1))
    assert [step.is_retry for step in sent(steps)] == [False, False, True, True]


def test_what_answers_say_they_cost_is_noted_whatever_becomes_of_them() -> None:
    costly = b'{"ok": true, "data": {"id": 5}, "metadata": {"cost_usd": 0.1}}'
    made = call()
    drive(made, Response(503, {}, b'{"ok": false, "metadata": {"cost_usd": 2}}'), True, Response(200, {}, costly))
    assert made.costs == [Decimal(2), Decimal("0.1")]
