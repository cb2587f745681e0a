"""What a client tells its ``on_event`` listener.

Every call begins with one ``CallStarted`` and ends with one ``CallFinished``, whatever happens to it; ``call`` joins
what lies between. A wrong argument is refused before a call begins, so it makes no event. No event holds a secret: no
key, no header, no body, and of the address only the path, because what stands in a query is the caller's own.
"""

from __future__ import annotations

from decimal import Decimal

import attrs

from infrai_async.errors import InfraiError


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened to a call; the base of all events.

    A listener is called in the event loop at the moment it happens, so it must not block; what it raises is logged
    (to the logger ``infrai_async``, once for each kind of event) and does not touch the call. This one logs each call
    that ended:

        import logging
        from infrai_async import AsyncInfrai, CallFinished, Event

        def log_calls(event: Event) -> None:
            if isinstance(event, CallFinished):
                outcome = type(event.error).__name__ if event.error else "cancelled" if event.cancelled else "ok"
                logging.info("%s: %s, %d sent, %.3f s", event.capability, outcome, event.attempt, event.seconds)

        client = AsyncInfrai(on_event=log_calls)

    Attributes:
        capability: the id of the capability that is called.
        operation: the name of the ``client.operation(...)`` block that the call was made in, ``None`` outside of any.
        attempt: how often the call has been sent so far: 0 when it starts, 1 from its first attempt on.
        call: the call's number, unique in this process.
    """

    capability: str
    operation: str | None
    attempt: int
    call: int


@attrs.frozen(kw_only=True)
class CallStarted(Event):
    """A call begins: its arguments are right, and it goes to look for a place in the pool."""


@attrs.frozen(kw_only=True)
class AttemptSent(Event):
    """A call is sent, for the first time or again.

    Attributes:
        method: the HTTP method.
        origin: where to: scheme, host and port, and the path that ``base_url`` has.
        path: the path below it, without the query.
        waited: seconds spent waiting before it (a place in the pool, a pause between attempts, a closed gate).
    """

    method: str
    origin: str
    path: str
    waited: float


@attrs.frozen(kw_only=True)
class Retrying(Event):
    """An attempt failed, and the call pauses before it is sent again.

    One whose answer says how long to wait has a ``Throttled`` instead: then the whole pool waits.

    Attributes:
        reason: the code that the service gave, or what went wrong in a few words.
        seconds: how long the pause is.
    """

    reason: str
    seconds: float


@attrs.frozen(kw_only=True)
class Throttled(Event):
    """The answer to this call (429, or 503 with ``Retry-After``) makes everybody in the pool wait.

    A 429 that does not say for how long makes them wait as long as its call pauses, which a ``Retrying`` then tells.
    How long other calls wait is told by their next ``AttemptSent``.

    Attributes:
        seconds: how long.
    """

    seconds: float


@attrs.frozen(kw_only=True)
class CallFinished(Event):
    """A call has ended.

    Attributes:
        error: what it failed with; ``None`` when it succeeded, or was cancelled.
        cancelled: whether it was ended from outside: its task was cancelled, or an exception that is not this
            package's went through it.
        seconds: how long it took, all waiting and every attempt included.
        cost_usd: the sum of what its answers said they cost; ``None`` when none did.
        request_id: the service's id of the last answer that had one, for its support.
    """

    error: InfraiError | None
    cancelled: bool
    seconds: float
    cost_usd: Decimal | None
    request_id: str | None
