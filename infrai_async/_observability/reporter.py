"""Reports the events of a call to the user's listener. It is imported only if there is a listener."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Coroutine
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar

import attrs

from infrai_async._observability.events import AttemptSent, CallFinished, CallStarted, Event, Retrying, Throttled
from infrai_async._protocol.scopes import add_exactly
from infrai_async.errors import InfraiError
from infrai_async.models import Metadata

R = TypeVar("R")
OnEvent: TypeAlias = Callable[[Event], object]

_log: Final = logging.getLogger("infrai_async")
_numbers: Final = itertools.count(1)


@attrs.define(eq=False)
class Listener:
    """The user's listener function; its exceptions are logged and do not affect the calls."""

    on_event: OnEvent
    _failed_at: set[type[Event]] = attrs.field(init=False, factory=set)

    def emit(self, event: Event) -> None:
        """Pass an event to the user's function."""
        try:
            self.on_event(event)
        except Exception:  # noqa: BLE001 - logged, though only once
            kind = type(event)
            if kind not in self._failed_at:
                self._failed_at.add(kind)
                _log.exception("on_event failed for a %s event; further failures are not logged", kind.__name__)

    def new_reporter(self, capability: str, operation: str | None) -> Reporter:
        """Return a reporter for a call that is about to start."""
        return Reporter(self, capability, operation)


@attrs.define(eq=False)
class Reporter:
    """Reports the events of one call; it is a context manager whose exit reports the end of the call."""

    _listener: Listener
    _capability: str
    _operation: str | None
    _call: int = attrs.field(init=False, factory=_numbers.__next__)
    _attempt: int = attrs.field(init=False, default=0)
    _started_at: float | None = attrs.field(init=False, default=None)
    _cost: Decimal | None = attrs.field(init=False, default=None)
    _request_id: str | None = attrs.field(init=False, default=None)
    _status: int | None = attrs.field(init=False, default=None)

    async def watch(self, running: Coroutine[Any, Any, R]) -> R:
        """Await the call, and report its end in any case."""
        with self:
            return await running

    def __enter__(self) -> Self:
        return self

    def started(self) -> None:
        """Report that the call has started."""
        self._started_at = time.monotonic()
        self._emit(CallStarted)

    def sent(self, method: str, origin: str, target: str, waited: float) -> None:
        """Report that an attempt is being sent; ``target`` is the path with its query."""
        self._attempt += 1
        self._emit(AttemptSent, method=method, origin=origin, path=target.partition("?")[0], waited=waited)

    def attempt_ended(self, status: int | None) -> None:
        """Record the status of the response to an attempt, ``None`` if it had none, for the event of the call's end."""
        self._status = status

    def note_response(self, metadata: Metadata) -> None:
        """Record the metadata of a response, for the event of the call's end."""
        if metadata.cost_usd is not None:
            self._cost = add_exactly(self._cost or Decimal(0), metadata.cost_usd)
        self._request_id = metadata.request_id or self._request_id

    def retrying(self, reason: str, seconds: float) -> None:
        """Report that the call pauses before a retry."""
        self._emit(Retrying, reason=reason, seconds=seconds)

    def throttled(self, seconds: float) -> None:
        """Report that the service has paused the pool."""
        self._emit(Throttled, seconds=seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started_at is None:  # an argument was wrong, so the call has not started
            return
        ours = error if isinstance(error, InfraiError) else None
        self._emit(
            CallFinished,
            error=ours,
            cancelled=error is not ours,
            seconds=time.monotonic() - self._started_at,
            cost_usd=self._cost,
            request_id=self._request_id,
            error_type=None if kind is None else kind.__name__,
            status=self._status,
        )

    def _emit(self, kind: Callable[..., Event], **details: object) -> None:
        self._listener.emit(
            kind(
                capability=self._capability,
                operation=self._operation,
                attempt=self._attempt,
                call=self._call,
                **details,
            )
        )
