"""What follows from the attempts of a call, as a generator without I/O.

The pool makes the first attempt, and makes a flow only where that did not plainly succeed. The flow is then sent what
came of each attempt, and yields what is to be done next; so every rule here is tested by sending answers, without a
loop or a socket, by a clock of the test's own.

What ends a call from outside depends on what the call is doing:

=======================  ==================  ==================  ==========================================
the call                 its time runs out   the client closes   the service's pause is to outlast its time
=======================  ==================  ==================  ==========================================
waits, never sent        TimeoutError        ClientClosedError   RateLimitError
pauses before a retry    what failed before  what failed before  what failed before
waits to be sent again   TimeoutError        what failed before  what was answered before, or RateLimitError
is under way             TimeoutError        TransportError      it goes on
=======================  ==================  ==================  ==========================================

Under way, its outcome is ``maybe_applied`` once bytes may have left; it is not sent again. Cancelled by anybody else, a
call raises ``CancelledError``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import attrs

from infrai_async._protocol.request import Request, build, target_of
from infrai_async._protocol.response import NoResponse, Response, api_error_of, metadata_of, open_envelope
from infrai_async._protocol.retry import (
    RetryDecision,
    RetryPolicy,
    decide_on_error,
    decide_without_response,
    retry_after_seconds,
)
from infrai_async._protocol.scopes import Scopes
from infrai_async.capabilities import Capability
from infrai_async.errors import (
    APIError,
    Attempt,
    AuthenticationError,
    BudgetExceeded,
    ClientClosedError,
    ConfigurationError,
    DecodeError,
    InfraiError,
    Outcome,
    RateLimitError,
    TimeoutError,
    TransportError,
)
from infrai_async.models import NO_METADATA, Ack, Metadata

if TYPE_CHECKING:
    from infrai_async._protocol.reader import ResponseReader

T = TypeVar("T")
E = TypeVar("E", bound=InfraiError)


@attrs.frozen
class Pause:
    """Wait before the next attempt; the pool answers false when its retry quota is used up, or the client closed."""

    seconds: float
    capability: str
    reason: str


@attrs.frozen
class Throttle:
    """Let nobody in the pool send for so long; nothing to wait for now."""

    seconds: float


@attrs.frozen
class RefreshKey:
    """Ask for the API key again; the pool answers whether there is another one."""


@attrs.frozen
class ThrottledPastDeadline:
    """The gate opens only after the call's time is up; nothing was sent."""

    seconds: float


@attrs.frozen
class Expired:
    """The call's time ran out before it was sent: while it waited for a place, for the gate or between attempts."""

    waited: str


@attrs.frozen
class Closed:
    """The client was closed before the call was sent."""


@attrs.define
class RouteMemory:
    """Which generation of routes the service was found to know, for the client's lifetime (D2)."""

    generation: int = 0

    def remember(self, generation: int) -> None:
        """Note which generation of routes answered."""
        self.generation = generation


Step: TypeAlias = Request | Pause | Throttle | RefreshKey
Result: TypeAlias = Response | NoResponse | ThrottledPastDeadline | Expired | Closed | bool | None
Flow: TypeAlias = Generator[Step, Result, T]
NoteResponse: TypeAlias = Callable[[Metadata], None]


@attrs.frozen
class Failure:
    """An attempt that did not succeed; ``unrouted`` says that the service does not know the route itself (D2)."""

    error: InfraiError
    decision: RetryDecision
    unrouted: bool = False


@attrs.define(eq=False)  # never changed once made; frozen, it would take four times as long to make
class Call(Generic[T]):
    """What is asked: a capability with its arguments, and what surrounds the caller.

    Attributes:
        reader: makes of an answer what the call returns.
        begun: when it was asked for, by ``time.monotonic``.
        deadline: when its time is up, by the same clock.
        key_in_body: whether the caller chose the idempotency key (D4).
        scopes: the blocks that it is made in.
    """

    capability: Capability[Any]
    arguments: Mapping[str, object]
    reader: ResponseReader[T]
    policy: RetryPolicy
    begun: float
    deadline: float
    idempotency_key: str | None = None
    key_in_body: bool = False
    scopes: Scopes | None = None

    def request(self, generation: int) -> Request:
        """Build the request for a generation of routes.

        Raises:
            InvalidArgument: an argument is missing or wrong.
        """
        capability, arguments = self.capability, self.arguments
        route = capability.routes[-1] if generation else capability.routes[0]
        if not capability.mutates and (target := target_of[route](arguments)) is not None:
            return Request(capability.method, target, None, None, False, route)
        return build(capability, route, arguments, self.idempotency_key, key_in_body=self.key_in_body)

    def failed(self, error: E, outcome: Outcome, attempts: tuple[Attempt, ...]) -> E:
        """Complete an error with what is known of the call."""
        error.capability = self.capability.id
        error.idempotency_key = self.idempotency_key if self.capability.mutates else None
        error.outcome = outcome
        error.attempts = attempts
        return error


class _FlowState(Generic[T]):
    """What a flow knows of its call: which request is to be sent, and what came of those that were."""

    __slots__ = (
        "_chance",
        "_clock",
        "_failures",
        "_moved",
        "_routes",
        "ambiguous",
        "attempts",
        "call",
        "renewed",
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
        self.renewed = False
        self.attempts: tuple[Attempt, ...] = ()
        self._routes = routes
        self._clock = clock
        self._chance = chance
        self._failures = 0
        self._moved = False

    @property
    def reason(self) -> str:
        """Why the last attempt failed, in a few words."""
        return self.attempts[-1].error or ""

    def send_again(self, *, counts: bool) -> None:
        """Have the same request sent again; it ``counts`` as a retry unless only the API key was out of date."""
        self.request = attrs.evolve(self.request, again=counts)

    def note_renewal(self) -> None:
        """Note that the API key was asked for again, which happens once."""
        self.renewed = True

    def left(self) -> float:
        """Return the seconds that the call's time has left."""
        return self.call.deadline - self._clock()

    def move(self, failure: Failure) -> bool:
        """Go over to the other generation's route, once, when the service does not know this one (D2)."""
        if not failure.unrouted or self._moved or len(self.call.capability.routes) == 1:
            return False
        self.request, self._moved = self.call.request(1 - self._generation()), True
        return True

    def note_route(self, *, unrouted: bool) -> None:
        """Remember for the client's lifetime which generation of routes answered."""
        if self._moved and not unrouted:
            self._routes.remember(self._generation())

    def _generation(self) -> int:
        return self.call.capability.routes.index(self.request.route)

    def note_attempt(self, result: Response | NoResponse, error: str, request_id: str | None = None) -> None:
        """Keep what came of an attempt that failed, for the error's ``attempts``."""
        attempt = Attempt(
            started_at=datetime.fromtimestamp(result.started_at, UTC),
            seconds=result.seconds,
            status=result.status if isinstance(result, Response) else None,
            error=error,
            waited=result.waited,
            request_id=request_id,
        )
        self.attempts = (*self.attempts, attempt)

    def failed(self, error: E, outcome: Outcome) -> E:
        """Complete an error with what is known of the call and its attempts."""
        unclear = self.ambiguous and self.call.capability.mutates
        return self.call.failed(error, "maybe_applied" if unclear else outcome, self.attempts)

    def settle(self, failure: Failure) -> bool:
        """Take note of a failure; true when it is the success of an earlier attempt (D17)."""
        method = self.call.capability.method
        gone = method == "DELETE" and getattr(failure.error, "status", None) == 404 and self.ambiguous
        self.ambiguous = self.ambiguous or failure.decision.ambiguous
        not_sent = isinstance(failure.error, TransportError)
        clear: Outcome = "not_sent" if not_sent else "rejected"
        self.failed(failure.error, "maybe_applied" if failure.decision.ambiguous else clear)
        return gone

    def pause(self, failure: Failure) -> float | None:
        """Return how long to pause before the next attempt, ``None`` when there is to be none."""
        decision, policy = failure.decision, self.call.policy
        if not decision.again or policy.max_attempts == 1:
            return None
        if decision.hold is not None:  # the gate makes it wait; such an answer uses up no attempt
            return 0.0 if decision.hold <= self.left() else None
        self._failures += 1
        if self._failures >= policy.max_attempts:
            return None
        pause = max(decision.after, policy.pause(self._failures, self._chance()))
        return pause if pause <= self.left() else None


def run(
    call: Call[T],
    request: Request,
    note_response: NoteResponse,
    routes: RouteMemory,
    *,
    clock: Callable[[], float] = time.monotonic,
    chance: Callable[[], float] = random.random,
) -> Flow[T]:
    """Send until there is an answer to give back, or a reason to stop.

    Args:
        call: what is asked.
        request: its first request, which whoever drives the flow may have sent already.
        note_response: told what each answer that could be read says of the call.
        routes: what the client has found out about the service's routes.
        clock: tells the time that the call's deadline is a point of.
        chance: gives numbers from 0 up to 1.
    """
    state = _FlowState(call, request, routes, clock, chance)
    error: InfraiError | None = None
    while True:
        try:
            result = yield state.request
        except ConfigurationError as unusable:
            raise state.failed(unusable, "not_sent") from unusable.__cause__
        except (BudgetExceeded, TimeoutError) as forbidden:
            if error is not None:
                # What failed before; that it is not tried again stands in its context.
                raise state.failed(error, error.outcome)  # noqa: B904
            state.failed(forbidden, "not_sent")
            raise
        outcome = _outcome(state, result, error, note_response)
        if not isinstance(outcome, Failure):
            return outcome
        if state.move(outcome):
            continue
        error = outcome.error
        if state.settle(outcome):
            return Ack(ok=True)  # type: ignore[return-value] # what a DELETE answers
        hold = outcome.decision.hold
        if hold is not None:
            yield Throttle(hold)
        if (yield from _renewed(state, error)):
            state.send_again(counts=False)
            continue
        pause = state.pause(outcome)
        if pause is None:
            raise error
        if isinstance(error, RateLimitError) and hold is None:
            yield Throttle(pause)  # it did not say for how long: nobody had better ask again before this call does
        # Where the gate makes it wait, it draws on no quota.
        if hold is None and (yield Pause(pause, call.capability.id, state.reason)) is not True:
            raise error
        state.send_again(counts=True)


def _outcome(
    state: _FlowState[T], result: Result, before: InfraiError | None, note_response: NoteResponse
) -> T | Failure:
    """Return what the call returns, or the failure that an attempt was; raise where nothing was sent."""
    if isinstance(result, Response):
        return _read(state, result, note_response)
    if isinstance(result, NoResponse):
        state.note_attempt(result, str(result.error))
        return Failure(result.error, decide_without_response(state.call.capability, result.error, sent=result.sent))
    assert isinstance(result, ThrottledPastDeadline | Expired | Closed)  # noqa: S101 - nothing else answers a request
    raise _unsent(state, result, before)


def _renewed(state: _FlowState[Any], error: InfraiError) -> Generator[Step, Result, bool]:
    """After a 401 ask once for another key, which also serves the calls to come; send again where that is allowed."""
    if not isinstance(error, AuthenticationError) or state.renewed or state.call.capability.public:
        return False
    state.note_renewal()
    try:
        another = yield RefreshKey()
    except ConfigurationError as failed:
        error.__cause__ = failed
        return False
    return another is True and state.call.policy.max_attempts > 1


def _read(state: _FlowState[T], response: Response, note_response: NoteResponse) -> T | Failure:
    said, capability = NO_METADATA, state.call.capability
    try:
        envelope = open_envelope(response)
        said = metadata_of(envelope)
        note_response(said)
        if envelope.error is None:
            value = state.call.reader.full(capability, envelope)
            state.note_route(unrouted=False)
            return value
    except DecodeError as error:
        error.status = response.status
        state.note_attempt(response, str(error), said.request_id)
        return Failure(error, RetryDecision(ambiguous=True, again=False))
    after = retry_after_seconds(response.headers, datetime.now(UTC))
    refused = api_error_of(response, envelope, after)
    state.note_attempt(response, refused.code or f"HTTP {response.status}", refused.request_id)
    unrouted = response.status in (404, 405) and (not envelope.enveloped or refused.code == "NOT_FOUND")
    state.note_route(unrouted=unrouted)
    return Failure(refused, decide_on_error(capability, refused, after), unrouted)


def _unsent(
    state: _FlowState[Any], result: ThrottledPastDeadline | Expired | Closed, error: InfraiError | None
) -> InfraiError:
    if error is not None and (
        isinstance(result, Closed) or (isinstance(result, ThrottledPastDeadline) and isinstance(error, APIError))
    ):
        return state.failed(error, error.outcome)
    failed: InfraiError
    if isinstance(result, Expired):
        failed = TimeoutError(f"the call's time ran out while it waited {result.waited}")
    elif isinstance(result, Closed):
        failed = ClientClosedError("the client was closed before the call was sent")
    else:
        message = f"the service asked for a pause that ends in {result.seconds:.3g} s, after this call's time is up"
        failed = RateLimitError(message, status=429, code="RATE_LIMITED", retryable=True, retry_after=result.seconds)
    failed.__cause__ = error
    return state.failed(failed, error.outcome if error else "not_sent")
