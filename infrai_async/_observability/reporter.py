"""Tells the caller's listener what happens to a call; made only where there is a listener."""

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
    """The caller's function, whose faults stay its own."""

    _on_event: OnEvent
    _failed_at: set[type[Event]] = attrs.field(init=False, factory=set)

    def emit(self, event: Event) -> None:
        """Hand over an event."""
        try:
            self._on_event(event)
        except Exception:  # noqa: BLE001 - logged, though only once
            kind = type(event)
            if kind not in self._failed_at:
                self._failed_at.add(kind)
                _log.exception("on_event failed at a %s; the next time goes unreported", kind.__name__)

    def new_reporter(self, capability: str, operation: str | None) -> Reporter:
        """Return the reporter of a call that is about to be made."""
        return Reporter(self, capability, operation)


@attrs.define(eq=False)
class Reporter:
    """What one call tells: leaving it as a context says that the call has ended."""

    _listener: Listener
    _capability: str
    _operation: str | None
    _call: int = attrs.field(init=False, factory=_numbers.__next__)
    _attempt: int = attrs.field(init=False, default=0)
    _started_at: float | None = attrs.field(init=False, default=None)
    _cost: Decimal | None = attrs.field(init=False, default=None)
    _request_id: str | None = attrs.field(init=False, default=None)

    async def watch(self, running: Coroutine[Any, Any, R]) -> R:
        """Wait for the call, and say that it has ended, however it does."""
        with self:
            return await running

    def __enter__(self) -> Self:
        return self

    def started(self) -> None:
        """Say that the call begins."""
        self._started_at = time.monotonic()
        self._emit(CallStarted)

    def sent(self, method: str, origin: str, target: str, waited: float) -> None:
        """Say that the call is sent; ``target`` is the path with its query."""
        self._attempt += 1
        self._emit(AttemptSent, method=method, origin=origin, path=target.partition("?")[0], waited=waited)

    def answered(self, metadata: Metadata) -> None:
        """Note what an answer says of the call."""
        if metadata.cost_usd is not None:
            self._cost = add_exactly(self._cost or Decimal(0), metadata.cost_usd)
        self._request_id = metadata.request_id or self._request_id

    def retrying(self, reason: str, seconds: float) -> None:
        """Say that the call pauses before it is sent again."""
        self._emit(Retrying, reason=reason, seconds=seconds)

    def throttled(self, seconds: float) -> None:
        """Say that the service asks the pool to wait."""
        self._emit(Throttled, seconds=seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started_at is None:  # its arguments were wrong
            return
        ours = error if isinstance(error, InfraiError) else None
        self._emit(
            CallFinished,
            error=ours,
            cancelled=error is not ours,
            seconds=time.monotonic() - self._started_at,
            cost_usd=self._cost,
            request_id=self._request_id,
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
