"""The events that a client passes to its ``on_event`` listener.

Every call starts with one ``CallStarted`` and ends with one ``CallFinished``, whatever happens in between; all events
of a call have the same ``call`` number. A call with a wrong argument is refused before it starts and has no events. No
event contains a secret: no key, no header, no body, and no query of a URL, which may hold the caller's data.
"""

from __future__ import annotations

from decimal import Decimal

import attrs

from infrai_async.errors import InfraiError


@attrs.frozen(kw_only=True)
class Event:
    """The base class of all events.

    A listener is called in the event loop at the moment of the event, so it must not block. An exception that it
    raises is logged (by the logger ``infrai_async``, once for each kind of event) and does not affect the call. This
    listener logs every finished call:

        import logging
        from infrai_async import AsyncInfrai, CallFinished, Event

        def log_calls(event: Event) -> None:
            if isinstance(event, CallFinished):
                outcome = type(event.error).__name__ if event.error else "cancelled" if event.cancelled else "ok"
                logging.info("%s: %s, attempt %d, %.3f s", event.capability, outcome, event.attempt, event.seconds)

        client = AsyncInfrai(on_event=log_calls)

    Attributes:
        capability: the id of the capability that is called.
        operation: the name of the ``client.operation(...)`` block that encloses the call; ``None`` outside of any.
        attempt: the number of attempts so far: 0 when the call starts, 1 from its first attempt on.
        call: the number of the call, unique within this process.
    """

    capability: str
    operation: str | None
    attempt: int
    call: int


@attrs.frozen(kw_only=True)
class CallStarted(Event):
    """A call has started: its arguments are valid, and it is about to wait for a slot in the pool."""


@attrs.frozen(kw_only=True)
class AttemptSent(Event):
    """An attempt is being sent, the first one or a later one.

    Attributes:
        method: the HTTP method.
        origin: the scheme, host and port of the service, followed by the path of ``base_url`` if it has one.
        path: the path below ``origin``, without the query.
        waited: the seconds spent waiting before this attempt: for a slot in the pool, for a pause between attempts,
            or while the service was throttling.
    """

    method: str
    origin: str
    path: str
    waited: float


@attrs.frozen(kw_only=True)
class Retrying(Event):
    """An attempt has failed, and the call pauses before a retry.

    If the response says how long to wait (429 or 503 with ``Retry-After``), there is a ``Throttled`` event instead,
    because the whole pool waits.

    Attributes:
        reason: the service's error code, or a short description of the failure.
        seconds: the length of the pause, in seconds.
    """

    reason: str
    seconds: float


@attrs.frozen(kw_only=True)
class Throttled(Event):
    """The response to this call (429, or 503 with ``Retry-After``) pauses the whole pool.

    After a 429 without ``Retry-After`` the pool waits as long as this call pauses; a ``Retrying`` event follows. The
    time that other calls have waited is in their next ``AttemptSent``.

    Attributes:
        seconds: the length of the pause, in seconds.
    """

    seconds: float


@attrs.frozen(kw_only=True)
class CallFinished(Event):
    """A call has ended.

    Attributes:
        error: the exception that the call raised; ``None`` if it succeeded or was cancelled.
        cancelled: whether the call was ended from outside: its task was cancelled, or it raised an exception that is
            not an ``InfraiError``.
        error_type: the name of the class of the exception that ended the call, ``"CancelledError"`` if its task was
            cancelled; ``None`` if it succeeded.
        status: the HTTP status of the response to the last attempt, whether its body arrived completely or not;
            ``None`` if nothing was sent, or no response came.
        seconds: the duration of the call, including all waiting and every attempt.
        cost_usd: the sum of the costs that the responses reported, in USD; ``None`` if none reported any.
        request_id: the service's id of the last response that had one, to quote to its support.
    """

    error: InfraiError | None
    cancelled: bool
    seconds: float
    cost_usd: Decimal | None
    request_id: str | None
    error_type: str | None = None
    status: int | None = None
