"""What an event loop watches of a call while it runs: until when, what it waits for, and why it is to end."""

from __future__ import annotations

import asyncio
import enum
import time
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from infrai_async._protocol.config import Secret
from infrai_async._protocol.flow import Call, Closed, Expired, ThrottledPastDeadline
from infrai_async._protocol.response import NoResponse, Response
from infrai_async._transport.connector import ConnectionTrace
from infrai_async._transport.headers import HeaderTemplate
from infrai_async._transport.stats import Counters
from infrai_async.errors import TimeoutError, TransportError

if TYPE_CHECKING:
    from infrai_async._observability.reporter import Reporter
    from infrai_async.models import Metadata


class Waiting(enum.Enum):
    """What a call waits for between its attempts, in the words of the error if its time runs out."""

    PLACE = "for a place in the pool"
    GATE = "for the service's pause to end"
    KEY = "for the API key"
    OTHER_KEY = "for another API key"
    PAUSE = "between attempts"


_FIRST: Final = Waiting.PLACE
_NO_TRACE: Final = ConnectionTrace(Counters(), HeaderTemplate({}, None, False), None, False)


class Reason(enum.Enum):
    """Why the pool ends a call."""

    EXPIRED = enum.auto()
    REFUSED = enum.auto()
    CLOSED = enum.auto()


class CallState:
    """One call in one event loop, from its first step to its last.

    Attributes:
        call: what is asked.
        counters: what the call is counted in.
        reporter: who is told what happens to it, where somebody listens.
        key: the API key that the last attempt carried.
        sent_at: when the last attempt was sent, by ``time.monotonic``.
        sending: whether an attempt is under way.
        trace: what was seen of the last attempt's connection.
    """

    __slots__ = (
        "_cancelling",
        "_idle_since",
        "_opens_at",
        "_reason",
        "_task",
        "_waiting",
        "call",
        "counters",
        "key",
        "reporter",
        "sending",
        "sent_at",
        "trace",
    )

    def __init__(
        self, call: Call[Any], counters: Counters, task: asyncio.Task[Any], reporter: Reporter | None = None
    ) -> None:
        self.call = call
        self.counters = counters
        self.reporter = reporter
        self.sending = False
        self.key: Secret | None = None
        self.sent_at = self._idle_since = call.started
        self.trace = _NO_TRACE
        self._waiting = _FIRST
        self._task = task
        self._cancelling = task.cancelling()
        self._reason: Reason | None = None
        self._opens_at = 0.0

    # --- attempts ---

    def begin_attempt(self, key: Secret | None, trace: ConnectionTrace, is_retry: bool) -> None:
        """Note that an attempt is sent."""
        self.sent_at = time.monotonic()
        self.key = key
        self.trace = trace
        self.sending = True
        self.counters.attempts += 1
        if is_retry:
            self.counters.retries += 1

    @property
    def waited(self) -> float:
        """How long the call has waited before its attempt that is under way, in seconds."""
        return self.sent_at - self._idle_since

    def end_attempt(self, response: aiohttp.ClientResponse | None, body: bytes | None) -> None:
        """Note that an attempt is over; one that was not answered whole leaves no connection behind."""
        self.sending = False
        if body is None:
            self.trace.abort()
            if response is not None:
                response.close()

    def broken(self, error: TransportError, *, not_sent: bool = False) -> NoResponse:
        """Describe an attempt that got no complete answer."""
        sent = self.trace.connected and not not_sent
        started_at, seconds, waited = self._times()
        return NoResponse(error, sent, started_at, seconds, waited)

    def answered(self, response: aiohttp.ClientResponse, body: bytes | None) -> Response:
        """Describe an attempt that got an answer; without a ``body``, one that was too large."""
        started_at, seconds, waited = self._times()
        return Response(response.status, response.headers, body or b"", started_at, seconds, waited, body is None)

    def _times(self) -> tuple[float, float, float]:
        now = time.monotonic()
        seconds, waited, self._idle_since = now - self.sent_at, self.waited, now
        return time.time() - seconds, seconds, waited

    def note_response(self, metadata: Metadata) -> None:
        """Take note of what an answer says of the call: it is counted, charged and reported."""
        cost = metadata.cost_usd
        if cost is not None:
            self.counters.spend(cost)
            if self.call.scopes is not None:
                self.call.scopes.charge(cost, self.call.capability.id, metadata.vendor)
        if self.reporter is not None:
            self.reporter.answered(metadata)

    def note_wait(self, what: Waiting) -> None:
        """Note what the call waits for."""
        self._waiting = what

    # --- ending it from outside ---

    def refuse(self, opens_at: float) -> None:
        """End the call, whose time is up before the service wants to be asked again."""
        if self._reason is None:
            self._opens_at = opens_at
        self.end(Reason.REFUSED)

    def end(self, reason: Reason) -> None:
        """Cancel the call for a reason of the pool's own."""
        if self._reason is None:
            self._reason = reason
            self._task.cancel()

    def interrupted(self) -> NoResponse | Closed | Expired | ThrottledPastDeadline | None:
        """Take a cancellation back if it was the pool's, and return what that means; ``None`` for anybody else's."""
        reason = self._reason
        if reason is None or self._task.uncancel() > self._cancelling:
            return None
        if reason is Reason.REFUSED:
            return ThrottledPastDeadline(self._opens_at - time.monotonic())
        if not self.sending:
            return Closed() if reason is Reason.CLOSED else Expired(self._waiting.value)
        if reason is Reason.CLOSED:
            return self.broken(TransportError("the client was closed before the answer came"))
        return self.broken(TimeoutError("the call's time ran out before the answer came"))
