"""The state of a running call: its current attempt, what it waits for, and why the pool cancels it."""

from __future__ import annotations

import asyncio
import enum
import time
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from infrai_async._protocol.credentials import KnownKey
from infrai_async._protocol.flow import Call, Closed, Expired, ThrottledPastDeadline
from infrai_async._protocol.response import NoResponse, Response, decoded
from infrai_async._transport.connector import ConnectionTrace
from infrai_async._transport.headers import HeaderTemplate
from infrai_async._transport.stats import Counters
from infrai_async.errors import TimeoutError, TransportError

if TYPE_CHECKING:
    from infrai_async._observability.reporter import Reporter
    from infrai_async.models import Metadata


class Waiting(enum.Enum):
    """What a call waits for; the values complete the message of a ``TimeoutError``.

    During ``KEY_REFRESH`` and ``PAUSE`` a call that runs out of time raises the error of its last attempt instead, so
    the texts of these two are not shown.
    """

    SLOT = "for a slot in the pool (see max_concurrency)"
    GATE = "for the service's pause to end"
    KEY = "for the API key"
    KEY_REFRESH = "for another API key"
    PAUSE = "between attempts"


_FIRST: Final = Waiting.SLOT
_NO_TRACE: Final = ConnectionTrace(Counters(), HeaderTemplate({}, None, False), None, False)


class Reason(enum.Enum):
    """Why the pool cancels a call."""

    EXPIRED = enum.auto()
    REFUSED = enum.auto()
    CLOSED = enum.auto()


class CallState:
    """A call that is running in an event loop.

    Attributes:
        answered: whether the last attempt got a complete response.
        call: the call.
        counters: the counters of the event loop's part of the pool.
        reporter: reports the call's events; ``None`` if the client has no listener.
        key: the API key that the last attempt carried.
        sent_at: when the last attempt was sent, by ``time.monotonic``.
        sending: whether an attempt is in flight.
        trace: the trace of the last attempt's connection.
    """

    __slots__ = (
        "_cancelling",
        "_idle_since",
        "_reason",
        "_refused",
        "_refused_key",
        "_task",
        "_waiting",
        "answered",
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
        self.sending = self.answered = False
        self.key: KnownKey | None = None
        self._refused_key: KnownKey | None = None
        self.sent_at = self._idle_since = call.started
        self.trace = _NO_TRACE
        self._waiting = _FIRST
        self._task = task
        self._cancelling = task.cancelling()
        self._reason: Reason | None = None
        self._refused: ThrottledPastDeadline | None = None

    # --- attempts ---

    def begin_attempt(self, key: KnownKey | None, trace: ConnectionTrace, is_retry: bool) -> None:
        """Record that an attempt is sent."""
        self.sent_at = time.monotonic()
        self.key = key
        self.trace = trace
        self.sending = True
        self.counters.attempts += 1
        if is_retry:
            self.counters.retries += 1

    @property
    def keys(self) -> tuple[str, ...]:
        """The API keys that the call has sent; a service may repeat an old one."""
        return tuple(key for key in (self.key, self._refused_key) if key is not None)

    def note_refused_key(self) -> None:
        """Record that another API key replaces the one that was sent."""
        self._refused_key = self.key

    @property
    def waited(self) -> float:
        """The seconds that the call waited before its current attempt."""
        return self.sent_at - self._idle_since

    def end_attempt(self, response: aiohttp.ClientResponse | None, body: bytes | None) -> None:
        """Record that an attempt has ended; without a complete response, close its connection."""
        self.sending = False
        if self.reporter is not None:
            self.reporter.attempt_ended(None if response is None else response.status)
        self.answered = body is not None
        if body is None:
            self.trace.abort()
            if response is not None:
                response.close()

    def without_response(self, error: TransportError, *, not_sent: bool = False) -> NoResponse:
        """Return the result of an attempt without a complete response."""
        sent = self.trace.connected and not not_sent
        started_at, seconds, waited = self._times()
        return NoResponse(error, sent, started_at, seconds, waited)

    def with_response(self, response: aiohttp.ClientResponse, body: bytes | None) -> Response:
        """Return the result of an attempt with a response; without a ``body``, the response was too large."""
        started_at, seconds, waited = self._times()
        encoding = response.headers.get("Content-Encoding", "")
        content = self.trace.headers.redact(decoded(body or b"", encoding)) or b""
        times = started_at, seconds, waited
        source = "" if self.key is None else self.key.source
        return Response(response.status, response.headers, content, *times, body is None, self.keys, source)

    def _times(self) -> tuple[float, float, float]:
        now = time.monotonic()
        seconds, waited, self._idle_since = now - self.sent_at, self.waited, now
        return time.time() - seconds, seconds, waited

    def note_response(self, metadata: Metadata) -> None:
        """Count, charge and report the metadata of a response."""
        cost = metadata.cost_usd
        if cost is not None:
            self.counters.spend(cost)
            if self.call.scopes is not None:
                self.call.scopes.charge(cost, self.call.capability.id, metadata.vendor)
        if self.reporter is not None:
            self.reporter.note_response(metadata)

    def note_wait(self, what: Waiting) -> None:
        """Record what the call waits for."""
        self._waiting = what

    # --- cancellation by the pool ---

    def refuse(self, refused: ThrottledPastDeadline) -> None:
        """Cancel the call, whose deadline is before the end of the service's pause."""
        if self._reason is None:
            self._refused = refused
        self.end(Reason.REFUSED)

    def end(self, reason: Reason) -> None:
        """Cancel the call for a reason of the pool's own; only the first reason counts."""
        if self._reason is None:
            self._reason = reason
            self._task.cancel()

    def resolve_cancellation(self, address: str) -> NoResponse | Closed | Expired | ThrottledPastDeadline | None:
        """Undo a cancellation by the pool, and return its meaning; return ``None`` for a cancellation by other code.

        Args:
            address: host and port of the service, for the message.
        """
        # Both may have cancelled the task in the same step of the loop, which raises a single CancelledError. Then the
        # count stays above its initial value, and the other code's cancellation prevails.
        reason = self._reason
        if reason is None or self._task.uncancel() > self._cancelling:
            return None
        if reason is Reason.REFUSED:
            return self._refused
        if not self.sending:
            return Closed() if reason is Reason.CLOSED else Expired(self._waiting.value, address)
        phase = "before the response arrived from" if self.trace.connected else "while connecting to"
        if reason is Reason.CLOSED:
            return self.without_response(TransportError(f"the client was closed {phase} {address}"))
        return self.without_response(TimeoutError(f"{self.call.time_limit} was reached {phase} {address}"))
