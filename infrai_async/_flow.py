"""One call from beginning to end, as a generator without I/O: the order of things, in one screen.

It yields what it wants done and is sent what came of it; the pool does it. So every rule here is tested by sending
answers, without a loop or a socket, by a clock of the test's own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

import attrs

from infrai_async._answer import Answer, Broken, Envelope, cost_of, exact, open_envelope, refusal, request_id, vendor_of
from infrai_async._request import Request, build
from infrai_async._retry import RetryPolicy, Verdict, judge_broken, judge_refusal, retry_after_seconds
from infrai_async._scopes import Scopes
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
from infrai_async.models import Ack

T = TypeVar("T")


@attrs.frozen
class Pause:
    """Wait before the next attempt; the pool answers false when its retry quota is used up."""

    seconds: float
    capability: str
    reason: str


@attrs.frozen
class Hold:
    """Let nobody in the pool send for so long; nothing to wait for now."""

    seconds: float


@attrs.frozen
class Renew:
    """Ask for the API key again; the pool answers whether there is another one."""


@attrs.frozen
class Refused:
    """The gate opens only after the call's time is up; nothing was sent."""

    seconds: float


@attrs.frozen
class Expired:
    """The call's time ran out before it was sent: while it waited for a place, for the gate or between attempts."""

    waited: str


@attrs.frozen
class Closed:
    """The client was closed before the call got a place."""


@attrs.define
class Learned:
    """What a client has found out about the service it talks to."""

    generation: int = 0


Step: TypeAlias = Request | Pause | Hold | Renew
Result: TypeAlias = Answer | Broken | Refused | Expired | Closed | bool | None
Flow: TypeAlias = Generator[Step, Result, T]
Decoder: TypeAlias = Callable[[Capability[Any], Envelope], T]


@attrs.frozen
class Failure:
    """An attempt that did not succeed; ``unrouted`` says that the service does not know the route itself (D2)."""

    error: InfraiError
    verdict: Verdict
    unrouted: bool = False


class Call:
    """One call: what it was asked, and what it knows of itself while it runs.

    What few calls come to know is declared on the class, so that a call which goes well does not pay for it.

    Attributes:
        deadline: when its time is up, by ``clock``.
        chance: gives numbers from 0 up to 1, as ``random.random`` does.
        prices: what the answers said they cost, as it stands there.
        observe: takes each answer that could be read, where somebody listens.
        key_in_body: whether the caller chose the idempotency key (D4).
    """

    clock: Callable[[], float] = staticmethod(time.monotonic)
    chance: Callable[[], float] = staticmethod(random.random)
    scopes: Scopes | None = None
    observe: Callable[[Envelope], None] | None = None
    key_in_body = False
    moved = False
    renewed = False
    ambiguous = False
    failures = 0
    prices: tuple[float, ...] = ()
    tries: tuple[tuple[Answer | Broken, str, str | None], ...] = ()

    def __init__(
        self,
        row: Capability[Any],
        arguments: Mapping[str, object],
        policy: RetryPolicy,
        learned: Learned,
        deadline: float,
        idempotency_key: str | None = None,
    ) -> None:
        self.row = row
        self.arguments = arguments
        self.policy = policy
        self.learned = learned
        self.deadline = deadline
        self.idempotency_key = idempotency_key
        self.generation = learned.generation

    def left(self) -> float:
        """Return the seconds that its time has left."""
        return self.deadline - self.clock()

    def request(self) -> Request:
        """Build the request for the generation of routes that is being tried."""
        row = self.row
        route = row.routes[self.generation % len(row.routes)]
        return build(row, route, self.arguments, self.idempotency_key, key_in_body=self.key_in_body)

    def move(self, failure: Failure) -> bool:
        """Go over to the other generation's route, once, when the service does not know this one (D2)."""
        if not failure.unrouted or self.moved or len(self.row.routes) == 1:
            return False
        self.generation, self.moved = 1 - self.generation, True
        return True

    def note_route(self, *, unrouted: bool) -> None:
        """Remember for the client's lifetime which generation of routes answered."""
        if self.moved and not unrouted:
            self.learned.generation = self.generation

    def note_try(self, result: Answer | Broken, error: str, request: str | None = None) -> None:
        """Keep what came of an attempt that failed, for the error's ``attempts``."""
        self.tries = (*self.tries, (result, error, request))

    def fail(self, error: InfraiError, outcome: Outcome) -> InfraiError:
        """Complete an error with what the call knows."""
        error.capability = self.row.id
        error.idempotency_key = self.idempotency_key if self.row.mutates else None
        error.outcome = "maybe_applied" if self.ambiguous and self.row.mutates else outcome
        error.attempts = tuple(_attempt(*entry) for entry in self.tries)
        return error

    def settle(self, failure: Failure) -> bool:
        """Take note of a failure; true when it is the success of an earlier attempt (D17)."""
        gone = self.row.method == "DELETE" and getattr(failure.error, "status", None) == 404 and self.ambiguous
        self.ambiguous = self.ambiguous or failure.verdict.ambiguous
        not_sent = isinstance(failure.error, TransportError)
        clear: Outcome = "not_sent" if not_sent else "rejected"
        self.fail(failure.error, "maybe_applied" if failure.verdict.ambiguous else clear)
        return gone

    def pause(self, failure: Failure) -> float | None:
        """Return how long to pause before the next attempt, ``None`` when there is to be none."""
        verdict = failure.verdict
        if not verdict.again or self.policy.max_attempts == 1:
            return None
        if verdict.hold is not None:  # the gate makes it wait; such an answer uses up no attempt
            return 0.0 if verdict.hold <= self.left() else None
        self.failures += 1
        if self.failures >= self.policy.max_attempts:
            return None
        pause = max(verdict.after, self.policy.pause(self.failures, self.chance()))
        return pause if pause <= self.left() else None


def run(call: Call, decode: Decoder[T]) -> Flow[T]:
    """Send until there is an answer to give back, or a reason to stop."""
    request = call.request()
    error: InfraiError | None = None
    while True:
        try:
            result = yield request
        except ConfigurationError as unusable:
            raise call.fail(unusable, "not_sent") from unusable.__cause__
        except (BudgetExceeded, TimeoutError) as forbidden:
            if error is not None:
                raise error  # noqa: B904 - what failed before; that it is not tried again stands in its context
            call.fail(forbidden, "not_sent")
            raise
        if isinstance(result, Answer):
            outcome = _read(call, result, decode)
            if not isinstance(outcome, Failure):
                return outcome
        elif isinstance(result, Broken):
            call.note_try(result, str(result.error))
            outcome = Failure(result.error, judge_broken(call.row, result.error, sent=result.sent))
        else:
            assert isinstance(result, Refused | Expired | Closed)  # noqa: S101 - nothing else answers a request
            raise _unsent(call, result, error)
        if call.move(outcome):
            request = call.request()
            continue
        error = outcome.error
        if call.settle(outcome):
            return Ack(ok=True)  # type: ignore[return-value] # what a DELETE answers
        if outcome.verdict.hold is not None:
            yield Hold(outcome.verdict.hold)
        if (yield from _renewed(call, error)):
            request = attrs.evolve(request, again=False)
            continue
        pause = call.pause(outcome)
        if pause is None:
            raise error
        if isinstance(error, RateLimitError) and outcome.verdict.hold is None:
            yield Hold(pause)  # it did not say for how long: nobody had better ask again before this call does
        held = outcome.verdict.hold is not None  # then the gate makes it wait, and it draws on no quota
        if not held and (yield Pause(pause, call.row.id, call.tries[-1][1])) is not True:
            raise error
        request = attrs.evolve(request, again=True)


def _renewed(call: Call, error: InfraiError) -> Generator[Step, Result, bool]:
    """After a 401 ask once for another key, which also serves the calls to come; send again where that is allowed."""
    if not isinstance(error, AuthenticationError) or call.renewed or call.row.public:
        return False
    call.renewed = True
    try:
        another = yield Renew()
    except ConfigurationError as failed:
        error.__cause__ = failed
        return False
    return another is True and call.policy.max_attempts > 1


def _read(call: Call, answer: Answer, decode: Decoder[T]) -> T | Failure:
    envelope: Envelope | None = None
    try:
        envelope = open_envelope(answer)
        if (cost := cost_of(envelope)) is not None:
            call.prices += (cost,)
            if call.scopes is not None:
                call.scopes.charge(exact(cost), call.row.id, vendor_of(envelope))
        if call.observe is not None:
            call.observe(envelope)
        if envelope.error is None:
            value = decode(call.row, envelope)
            call.note_route(unrouted=False)
            return value
    except DecodeError as error:
        error.status = answer.status
        call.note_try(answer, str(error), request_id(envelope) if envelope else None)
        return Failure(error, Verdict(ambiguous=True, again=False))
    after = retry_after_seconds(answer.headers, datetime.now(UTC))
    refused = refusal(answer, envelope, after)
    call.note_try(answer, refused.code or f"HTTP {answer.status}", refused.request_id)
    unrouted = answer.status in (404, 405) and (not envelope.enveloped or refused.code == "NOT_FOUND")
    call.note_route(unrouted=unrouted)
    return Failure(refused, judge_refusal(call.row, refused, after), unrouted)


def _unsent(call: Call, result: Refused | Expired | Closed, error: InfraiError | None) -> InfraiError:
    if isinstance(result, Closed) and error is not None:
        return error
    if isinstance(result, Refused) and isinstance(error, APIError):
        return error
    failed: InfraiError
    if isinstance(result, Expired):
        failed = TimeoutError(f"the call's time ran out while it waited {result.waited}")
    elif isinstance(result, Closed):
        failed = ClientClosedError("the client was closed before the call was sent")
    else:
        message = f"the service asked for a pause that ends in {result.seconds:.3g} s, after this call's time is up"
        failed = RateLimitError(message, status=429, code="RATE_LIMITED", retryable=True, retry_after=result.seconds)
    failed.__cause__ = error
    return call.fail(failed, error.outcome if error else "not_sent")


def _attempt(result: Answer | Broken, error: str, request: str | None) -> Attempt:
    return Attempt(
        started_at=datetime.fromtimestamp(result.started_at, UTC),
        seconds=result.seconds,
        status=result.status if isinstance(result, Answer) else None,
        error=error,
        waited=result.waited,
        request_id=request,
    )
