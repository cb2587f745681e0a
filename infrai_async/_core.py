"""The one way in for a call: options of a view of the client, over the pool that all its views share."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar

import attrs

from infrai_async import _flow
from infrai_async._cursor import Cursor, check_count, check_max_items
from infrai_async._pool import Pool
from infrai_async._request import build, check_key
from infrai_async._retry import RetryPolicy
from infrai_async._scopes import blocks, current_operation, surrounding
from infrai_async._ticket import HeaderSet, Ticket
from infrai_async.capabilities import Capability
from infrai_async.models import Model, Page

T = TypeVar("T", bound=Model)
_NEVER: Final = float("inf")


@attrs.frozen
class Options:
    """What one view of a client decides for its calls; ``timeout`` in seconds, ``None`` for no limit."""

    timeout: float | None
    retry: RetryPolicy
    headers: HeaderSet


class Core:
    """Makes calls for the resources."""

    __slots__ = ("options", "pool")

    def __init__(self, pool: Pool, options: Options) -> None:
        self.pool = pool
        self.options = options

    def call(
        self,
        row: Capability[T],
        arguments: Mapping[str, object],
        idempotency_key: str | None = None,
        *,
        paged: bool = False,
    ) -> Coroutine[Any, Any, T]:
        """Call a capability that answers one model.

        No coroutine of its own, which would be run through at every wait.
        """
        pool, options = self.pool, self.options
        deadline = _NEVER if options.timeout is None else time.monotonic() + options.timeout
        claim = scopes = None
        if blocks.get() and (scopes := surrounding(pool)) is not None:
            deadline = min(deadline, scopes.until)
            claim = scopes.claim(row, arguments) if idempotency_key is None else None
        key = None
        if row.mutates or idempotency_key is not None:
            key = _key_for(row, idempotency_key) if claim is None else claim.key
        ticket = Ticket(row, arguments, options.retry, pool.learned, deadline, key)
        ticket.headers, ticket.scopes = options.headers, scopes
        ticket.key_in_body = idempotency_key is not None
        flow = _flow.run(ticket, _decoder(paged))
        if pool.listener is None:
            running = pool.run(ticket, flow)
        else:
            ticket.reporter = reporter = pool.listener.follow(row.id, current_operation(pool))
            ticket.observe = reporter.answered
            running = pool.run_reported(ticket, flow, reporter)
        return running if claim is None else claim.follow(running)

    def page(self, row: Capability[T], arguments: Mapping[str, object]) -> Coroutine[Any, Any, Page[T]]:
        """Fetch one page of a listing."""
        return self.call(row, arguments, paged=True)  # type: ignore[return-value] # what it decodes

    def cursor(
        self,
        row: Capability[T],
        arguments: dict[str, object],
        *,
        cursor: str | None = None,
        max_items: int | None = None,
        prefetch: int = 0,
    ) -> Cursor[T]:
        """Return a cursor over a listing; nothing is sent yet, but the arguments are checked."""
        at_most = check_max_items(max_items)
        ahead = check_count("prefetch", prefetch)
        build(row, row.routes[0], {**arguments, "cursor": cursor})
        return Cursor(
            lambda position: self.page(row, {**arguments, "cursor": position}),
            capability=row.id,
            cursor=cursor,
            max_items=at_most,
            prefetch=ahead,
        )


@functools.cache
def _decoder(paged: bool) -> _flow.Decoder[Any]:
    from infrai_async._decode import decode, decode_page  # and cattrs: who only builds a client does without

    return decode_page if paged else decode


class Resource:
    """A namespace of the client, which makes its calls through one core."""

    def __init__(self, core: Core) -> None:
        self._core = core


def _key_for(row: Capability[Any], given: str | None) -> str:
    return os.urandom(16).hex() if given is None else check_key(row, given)
