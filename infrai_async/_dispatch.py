"""The one way in for a call: options of a view of the client, over the pool that all its views share."""

from __future__ import annotations

import os
import time
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from infrai_async._listing.cursor import Cursor, check_count, check_max_items
from infrai_async._protocol.flow import Call
from infrai_async._protocol.request import build, check_key
from infrai_async._protocol.retry import RetryPolicy
from infrai_async._protocol.scopes import blocks, current_operation, surrounding
from infrai_async._transport.headers import HeaderSet
from infrai_async._transport.pool import Pool
from infrai_async.capabilities import Capability
from infrai_async.models import Model, Page

if TYPE_CHECKING:
    from infrai_async._protocol.reader import ResponseReader

T = TypeVar("T", bound=Model)


@attrs.frozen
class Options:
    """What one view of a client decides for its calls; ``timeout`` in seconds, infinite for no limit."""

    timeout: float
    retry: RetryPolicy
    headers: HeaderSet


class Dispatcher:
    """Makes calls for the resources."""

    __slots__ = ("options", "pool")

    def __init__(self, pool: Pool, options: Options) -> None:
        self.pool = pool
        self.options = options

    def call(
        self,
        capability: Capability[T],
        arguments: Mapping[str, object],
        idempotency_key: str | None = None,
        *,
        paged: bool = False,
    ) -> Coroutine[Any, Any, T]:
        """Call a capability that answers one model.

        A plain method, because each time a call waits one more coroutine would cost something.
        """
        pool, options = self.pool, self.options
        begun = time.monotonic()
        deadline = begun + options.timeout
        chosen = idempotency_key is not None
        key, scopes, claim = idempotency_key, None, None
        if blocks.get() and (scopes := surrounding(pool)) is not None:
            deadline = min(deadline, scopes.until)
            claim = None if chosen else scopes.claim(capability, arguments)
        if claim is not None:
            key = claim.key
        elif chosen or capability.mutates:
            key = _key_for(capability, key)
        call = Call(capability, arguments, _READERS[paged], options.retry, begun, deadline, key, chosen, scopes)
        if pool.listener is None:
            running = pool.run(call, options.headers)
        else:
            reporter = pool.listener.follow(capability.id, current_operation(pool))
            running = reporter.watch(pool.run(call, options.headers, reporter))
        return running if claim is None else claim.follow(running)

    def page(self, capability: Capability[T], arguments: Mapping[str, object]) -> Coroutine[Any, Any, Page[T]]:
        """Fetch one page of a listing."""
        return self.call(capability, arguments, paged=True)  # type: ignore[return-value] # what it decodes

    def cursor(
        self,
        capability: Capability[T],
        arguments: dict[str, object],
        *,
        cursor: str | None = None,
        max_items: int | None = None,
        prefetch: int = 0,
    ) -> Cursor[T]:
        """Return a cursor over a listing; nothing is sent yet, but the arguments are checked."""
        at_most = check_max_items(max_items)
        ahead = check_count("prefetch", prefetch)
        build(capability, capability.routes[0], {**arguments, "cursor": cursor})
        return Cursor(
            lambda position: self.page(capability, {**arguments, "cursor": position}),
            capability=capability.id,
            cursor=cursor,
            max_items=at_most,
            prefetch=ahead,
        )


class _Readers(dict[bool, "ResponseReader[Any]"]):
    """What reads the answers of calls, by whether they are pages."""

    def __missing__(self, paged: bool) -> ResponseReader[Any]:
        from infrai_async._protocol.decode import PAGE, VALUE  # and cattrs, which building a client does not need

        self.update({True: PAGE, False: VALUE})
        return self[paged]


_READERS: Final = _Readers()


class Resource:
    """A namespace of the client, which makes its calls through one core."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher


def _key_for(capability: Capability[Any], given: str | None) -> str:
    return os.urandom(16).hex() if given is None else check_key(capability, given)
