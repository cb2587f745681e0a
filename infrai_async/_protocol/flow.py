"""The retry logic of a call, as a generator without I/O.

The pool makes the first attempt itself, and starts a flow only if that attempt did not plainly succeed. The flow is
sent the result of each attempt and yields the next step. Tests can therefore drive every rule by sending responses,
without an event loop or a socket, and with a clock of their own.

Which exception ends an interrupted call depends on its state:

=========================  ==================  ==================  =====================================
the call                   time limit reached  client closed       throttled beyond its time limit
=========================  ==================  ==================  =====================================
waits, not yet sent        TimeoutError        ClientClosedError   RateLimitError
pauses before a retry      previous error      previous error      previous error
waits to be sent again     TimeoutError        previous error      previous APIError, or RateLimitError
is in flight               TimeoutError        TransportError      continues
=========================  ==================  ==================  =====================================

The outcome of a call in flight is ``maybe_applied`` once bytes may have been sent, and the call is not retried. A call
that is cancelled by other code raises ``CancelledError``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

import attrs

from infrai_async._protocol.request import LONGEST_TARGET, Request, advice_on_length, build, route_for, target_of
from infrai_async._protocol.response import (
    LONGEST_NAME,
    NoResponse,
    Response,
    add_advice,
    api_error_of,
    metadata_of,
    open_envelope,
    safe_text,
)
from infrai_async._protocol.retry import (
    RetryDecision,
    RetryPolicy,
    decide_on_error,
    decide_without_response,
    retry_after_seconds,
    throttled_error,
)
from infrai_async._protocol.scopes import Scopes
from infrai_async.capabilities import Capability, Route
from infrai_async.errors import (
    APIError,
    Attempt,
    AuthenticationError,
    BudgetExceeded,
    ClientClosedError,
    ConfigurationError,
    DecodeError,
    InfraiError,
    InvalidArgument,
    Outcome,
    RateLimitError,
    TimeoutError,
    TransportError,
    without_frames,
)
from infrai_async.models import NO_METADATA, Ack, Metadata

if TYPE_CHECKING:
    from infrai_async._protocol.reader import ResponseReader

_NO_ROUTE: Final = "NOT_FOUND"
_TOO_LONG: Final = (414, 431)  # URI Too Long, Request Header Fields Too Large
T = TypeVar("T")
E = TypeVar("E", bound=InfraiError)


@attrs.frozen
class Pause:
    """Sleep before the next attempt. The pool sends back false if its retry quota is spent or the client is closed."""

    seconds: float
    capability: str
    reason: str


@attrs.frozen
class Throttle:
    """Pause the whole pool for this many seconds; the flow does not wait for the end of the pause here.

    Attributes:
        error: what the service said.
        probe: whether the service asked for a longer pause, so that calls must try again one at a time (D30).
    """

    seconds: float
    error: APIError | None = attrs.field(default=None, eq=False)
    probe: bool = False


@attrs.frozen
class RefreshKey:
    """Get the API key again. The pool sends back whether it differs from the refused one."""


@attrs.frozen
class ThrottledPastDeadline:
    """The request was not sent, because the service's pause ends, in ``seconds``, after the call's deadline.

    ``error`` is what the service said to the call that it throttled.
    """

    seconds: float
    error: APIError | None = None


@attrs.frozen
class Expired:
    """The request was not sent, because the call's deadline passed while it waited.

    Attributes:
        waited: what it waited for.
        address: host and port of the service.
    """

    waited: str
    address: str = "the service"


@attrs.frozen
class Closed:
    """The request was not sent, because the client was closed."""


@attrs.define
class RouteMemory:
    """The generation of routes that the service has responded on, for the lifetime of the client (D2)."""

    generation: int = 0

    def remember(self, generation: int) -> None:
        """Record the generation of routes that the service responds on."""
        self.generation = generation


Step: TypeAlias = Request | Pause | Throttle | RefreshKey
Result: TypeAlias = Response | NoResponse | ThrottledPastDeadline | Expired | Closed | bool | None
Flow: TypeAlias = Generator[Step, Result, T]
NoteResponse: TypeAlias = Callable[[Metadata], None]


@attrs.frozen
class Failure:
    """A failed attempt.

    Attributes:
        error: the error to raise unless there is a further attempt.
        unrouted: whether the service does not know the route at all (D2).
        probe: whether the service asked for a pause that is longer than the policy allows (D30).
    """

    error: InfraiError
    decision: RetryDecision
    unrouted: bool = False
    probe: bool = False


@attrs.define(eq=False)  # immutable by convention; ``frozen`` would make its creation four times slower
class Call(Generic[T]):
    """A call of a capability: its arguments, options and enclosing blocks.

    Attributes:
        reader: turns a response into the call's result.
        started: when the call was made, by ``time.monotonic``.
        deadline: when its time limit is reached, by the same clock.
        key_in_body: whether the caller chose the idempotency key, which then goes into the body too (D4).
        scopes: the budgets, deadlines and operations that enclose the call; ``None`` if there are none.
    """

    capability: Capability[Any]
    arguments: Mapping[str, object] = attrs.field(repr=False)
    reader: ResponseReader[T]
    policy: RetryPolicy
    started: float
    deadline: float
    idempotency_key: str | None = None
    key_in_body: bool = False
    scopes: Scopes | None = None

    def request(self, generation: int) -> Request:
        """Build the request for one generation of routes, or for the other if only that carries every argument.

        Raises:
            InvalidArgument: an argument is missing or wrong.
        """
        capability, arguments = self.capability, self.arguments
        routes = capability.routes
        route = routes[0] if len(routes) == 1 else route_for(capability, arguments, generation)
        target = None if capability.mutates else target_of[route](arguments)
        if target is not None and len(target) <= LONGEST_TARGET:
            return Request(capability.method, target, None, None, False, route)
        return self.request_on(route)

    def request_on(self, route: Route) -> Request:
        """Build the request for one route.

        Raises:
            InvalidArgument: an argument is missing or wrong, or the route does not carry it.
        """
        return build(self.capability, route, self.arguments, self.idempotency_key, key_in_body=self.key_in_body)

    @property
    def time_limit(self) -> str:
        """The time limit of the call, as a message names it."""
        seconds = f"{max(0.0, round(self.deadline - self.started, 3)):g} s"
        if self.scopes is not None and self.scopes.until <= self.deadline:
            return f"the enclosing block's deadline ({seconds} after the start of the call)"
        return f"the call's time limit of {seconds}"

    def with_context(self, error: E, outcome: Outcome, attempts: tuple[Attempt, ...]) -> E:
        """Set the context of the call on an error, and return the error."""
        error.capability = self.capability.id
        error.idempotency_key = self.idempotency_key if self.capability.mutates else None
        error.outcome = outcome
        error.attempts = attempts
        return error


class _FlowState(Generic[T]):
    """The state of a flow: the request to send next, and the results of the previous attempts."""

    __slots__ = (
        "_chance",
        "_clock",
        "_failures",
        "_route_switched",
        "_routes",
        "ambiguous",
        "attempts",
        "call",
        "key_refreshed",
        "request",
    )

    def __init__(
        self,
        call: Call[T],
        request: Request,
        routes: RouteMemory,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self.call = call
        self.request = request
        self.ambiguous = False
        self.key_refreshed = False
        self.attempts: tuple[Attempt, ...] = ()
        self._routes = routes
        self._clock = clock
        self._chance = chance
        self._failures = 0
        self._route_switched = False

    @property
    def reason(self) -> str:
        """The short reason for which the last attempt failed."""
        return self.attempts[-1].error or ""

    def resend(self, *, is_retry: bool) -> None:
        """Prepare to send the same request again; it is no retry if only the API key was out of date."""
        self.request = attrs.evolve(self.request, is_retry=is_retry)

    def note_key_refresh(self) -> None:
        """Record that the API key was refreshed, which happens at most once per call."""
        self.key_refreshed = True

    def remaining(self) -> float:
        """Return the seconds until the call's deadline."""
        return self.call.deadline - self._clock()

    def switch_route(self, failure: Failure) -> bool:
        """Move to the other generation's route if the service does not know this one; return whether it did (D2).

        A call moves at most once.

        Raises:
            InvalidArgument: the other route does not carry an argument.
        """
        routes = self.call.capability.routes
        if not failure.unrouted or self._route_switched or len(routes) == 1:
            return False
        try:
            self.request = self.call.request_on(routes[1 - self._generation()])
        except InvalidArgument as unsupported:
            cause = self.with_context(failure.error, "rejected")
            raise self.with_context(unsupported, "rejected") from cause
        self._route_switched = True
        return True

    def note_route(self, *, unrouted: bool) -> None:
        """Remember, for the lifetime of the client, the generation of routes that works."""
        if self._route_switched and not unrouted:
            self._routes.remember(self._generation())

    def _generation(self) -> int:
        return self.call.capability.routes.index(self.request.route)

    def note_attempt(self, result: Response | NoResponse, error: str, request_id: str | None = None) -> None:
        """Record a failed attempt, for the error's ``attempts``."""
        attempt = Attempt(
            started_at=datetime.fromtimestamp(result.started_at, UTC),
            seconds=result.seconds,
            status=result.status if isinstance(result, Response) else None,
            error=error,
            waited=result.waited,
            request_id=request_id,
        )
        self.attempts = (*self.attempts, attempt)

    def with_context(self, error: E, outcome: Outcome) -> E:
        """Set the context of the call and its attempts on an error, and return the error."""
        unclear = self.ambiguous and self.call.capability.mutates
        return self.call.with_context(error, "maybe_applied" if unclear else outcome, self.attempts)

    def record_failure(self, failure: Failure) -> bool:
        """Record a failure; return whether it proves that an earlier attempt to delete has succeeded (D17)."""
        method = self.call.capability.method
        deleted = method == "DELETE" and getattr(failure.error, "status", None) == 404 and self.ambiguous
        self.ambiguous = self.ambiguous or failure.decision.ambiguous
        not_sent = isinstance(failure.error, TransportError)
        clear: Outcome = "not_sent" if not_sent else "rejected"
        self.with_context(failure.error, "maybe_applied" if failure.decision.ambiguous else clear)
        return deleted

    def pause(self, failure: Failure) -> float | None:
        """Return the pause before the next attempt, in seconds; ``None`` if there must be no further attempt."""
        decision, policy = failure.decision, self.call.policy
        if not decision.retry or policy.max_attempts == 1:
            return None
        if decision.throttle is not None:  # the pool's gate makes the call wait, and the attempt is not counted
            return 0.0 if decision.throttle <= self.remaining() else None
        self._failures += 1
        if self._failures >= policy.max_attempts:
            return None
        pause = max(decision.after, policy.pause(self._failures, self._chance()))
        return pause if pause <= self.remaining() else None


def run(
    call: Call[T],
    request: Request,
    note_response: NoteResponse,
    routes: RouteMemory,
    *,
    clock: Callable[[], float] = time.monotonic,
    chance: Callable[[], float] = random.random,
) -> Flow[T]:
    """Yield requests and other steps until the call has a result or must fail.

    Args:
        call: the call.
        request: its first request. The driver of the flow may have sent it already.
        note_response: called with the metadata of each response that could be read.
        routes: the generation of routes that the client has found to work.
        clock: the clock that the call's deadline refers to.
        chance: a source of random numbers, from 0 up to but excluding 1.

    Returns:
        The result of the call.

    Raises:
        InfraiError: the call failed.
    """
    state = _FlowState(call, request, routes, clock, chance)
    error: InfraiError | None = None
    while True:
        try:
            result = yield state.request
        except ConfigurationError as unusable:
            raise state.with_context(unusable, "not_sent") from unusable.__cause__
        except (BudgetExceeded, TimeoutError) as forbidden:
            if error is not None:
                # Raise the previous error; its context says why it was not retried.
                raise state.with_context(error, error.outcome)  # noqa: B904
            state.with_context(forbidden, "not_sent")
            raise
        outcome = _outcome(state, result, error, note_response)
        if not isinstance(outcome, Failure):
            return outcome
        if state.switch_route(outcome):
            continue
        error = outcome.error
        if state.record_failure(outcome):
            return Ack(ok=True)  # type: ignore[return-value] # every DELETE returns an Ack
        throttle = outcome.decision.throttle
        if throttle is not None and isinstance(error, APIError):
            yield Throttle(throttle, error, outcome.probe)
        if (yield from _refresh_key(state, error)):
            state.resend(is_retry=False)
            continue
        pause = state.pause(outcome)
        if pause is None:
            raise error
        if isinstance(error, RateLimitError) and throttle is None:
            # A 429 without Retry-After: other calls would be throttled too, so they wait until this one is retried.
            yield Throttle(pause, error)
        # A call that waits at the pool's gate does not use up retry quota.
        if throttle is None and (yield Pause(pause, call.capability.id, state.reason)) is not True:
            raise error
        state.resend(is_retry=True)


def _outcome(
    state: _FlowState[T], result: Result, before: InfraiError | None, note_response: NoteResponse
) -> T | Failure:
    """Return the result of the call, or the failure of the attempt; raise if the request was not sent."""
    if isinstance(result, Response):
        return _read(state, result, note_response)
    if isinstance(result, NoResponse):
        state.note_attempt(result, str(result.error))
        return Failure(result.error, decide_without_response(state.call.capability, result.error, sent=result.sent))
    assert isinstance(result, ThrottledPastDeadline | Expired | Closed)  # noqa: S101 - no other result follows a request
    raise _unsent_error(state, result, before)


def _refresh_key(state: _FlowState[Any], error: InfraiError) -> Generator[Step, Result, bool]:
    """After a 401 refresh the API key, at most once per call; return whether to resend the request.

    The key is refreshed even if the policy allows no further attempt, because later calls need it too.
    """
    if not isinstance(error, AuthenticationError) or state.key_refreshed or state.call.capability.public:
        return False
    state.note_key_refresh()
    try:
        another = yield RefreshKey()
    except ConfigurationError as failed:
        error.__cause__ = failed
        return False
    return another is True and state.call.policy.max_attempts > 1


def _read(state: _FlowState[T], response: Response, note_response: NoteResponse) -> T | Failure:
    metadata, capability = NO_METADATA, state.call.capability
    try:
        envelope = open_envelope(response)
        metadata = metadata_of(envelope)
        note_response(metadata)
        if envelope.error is None:
            value = state.call.reader.full(capability, envelope)
            state.note_route(unrouted=False)
            return value
    except DecodeError as failed:
        error = without_frames(failed)
        error.status = response.status
        state.note_attempt(response, str(error), safe_text(metadata.request_id, response.keys, LONGEST_NAME))
        return Failure(error, RetryDecision(ambiguous=True, retry=False))
    if response.status in _TOO_LONG:
        add_advice(envelope, advice_on_length(capability, state.request, state.call.arguments))
    asked = retry_after_seconds(response.headers, datetime.now(UTC))
    after = state.call.policy.believe(asked, len(state.attempts))
    refused = api_error_of(response, envelope, after)
    if response.key_source and isinstance(refused, AuthenticationError):
        refused.add_note(f"hint: the API key that was refused comes from {response.key_source}")
    state.note_attempt(response, refused.code or f"HTTP {response.status}", refused.request_id)
    names_nothing = not envelope.enveloped or (refused.code or _NO_ROUTE).upper() == _NO_ROUTE
    unrouted = response.status == 405 or (response.status == 404 and names_nothing)
    state.note_route(unrouted=unrouted)
    return Failure(
        refused,
        decide_on_error(capability, refused, after),
        unrouted,
        probe=(asked or 0.0) > state.call.policy.longest_pause,
    )


def _unsent_error(
    state: _FlowState[Any], result: ThrottledPastDeadline | Expired | Closed, error: InfraiError | None
) -> InfraiError:
    if error is not None and (
        isinstance(result, Closed) or (isinstance(result, ThrottledPastDeadline) and isinstance(error, APIError))
    ):
        return state.with_context(error, error.outcome)
    failed: InfraiError
    if isinstance(result, Expired):
        sent = f"sent {'again ' if state.attempts else ''}to {result.address}"
        failed = TimeoutError(
            f"{state.call.time_limit} was reached while it waited {result.waited}, before it was {sent}"
        )
    elif isinstance(result, Closed):
        failed = ClientClosedError("the client is closed: create another one")
    else:
        failed = throttled_error(result.error, result.seconds, state.call.time_limit)
    failed.__cause__ = error
    return state.with_context(failed, error.outcome if error else "not_sent")
