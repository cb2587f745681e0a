"""The single entry point of every call: it joins the options of one client view to the pool that all views share."""

from __future__ import annotations

import os
import time
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from infrai_async._listing.cursor import Cursor, check_count, check_max_items
from infrai_async._protocol.flow import Call
from infrai_async._protocol.request import build, check_key, route_for
from infrai_async._protocol.retry import RetryPolicy
from infrai_async._protocol.scopes import Block, blocks, surrounding
from infrai_async._transport.headers import HeaderSet
from infrai_async._transport.pool import Pool
from infrai_async.capabilities import Capability
from infrai_async.models import Model, Page

if TYPE_CHECKING:
    from infrai_async._protocol.reader import ResponseReader

T = TypeVar("T", bound=Model)
_MOST_PAGES_AHEAD: Final = 100  # each is a task that waits for the one before it: more would only take memory


@attrs.frozen
class Options:
    """The settings of one client view.

    ``timeout`` is in seconds, and infinite for no limit; ``carried`` are the blocks that the view carries.
    """

    timeout: float
    retry: RetryPolicy
    headers: HeaderSet
    carried: tuple[Block, ...] = ()


class Dispatcher:
    """Makes the calls of the resources."""

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
        """Return the coroutine that calls a capability and gives its model.

        It is a plain method because each further coroutine adds a frame to every suspension of the call.
        """
        pool, options = self.pool, self.options
        started = time.monotonic()
        deadline = started + options.timeout
        chosen = idempotency_key is not None
        key, scopes, derived_key = idempotency_key, None, None
        if (blocks.get() or options.carried) and (scopes := surrounding(pool, options.carried)) is not None:
            deadline = min(deadline, scopes.until)
            derived_key = None if chosen else scopes.derive_key(capability, arguments)
        if derived_key is not None:
            key = derived_key.key
        elif chosen or capability.mutates:
            key = _key_for(capability, key)
        call = Call(capability, arguments, _READERS[paged], options.retry, started, deadline, key, chosen, scopes)
        if pool.listener is None:
            running = pool.run(call, options.headers)
        else:
            reporter = pool.listener.new_reporter(capability.id, None if scopes is None else scopes.operation)
            running = reporter.watch(pool.run(call, options.headers, reporter))
        return running if derived_key is None else derived_key.release_on_failure(running)

    def page(self, capability: Capability[T], arguments: Mapping[str, object]) -> Coroutine[Any, Any, Page[T]]:
        """Return the coroutine that fetches one page of a listing."""
        return self.call(capability, arguments, paged=True)  # type: ignore[return-value] # the reader decides what is decoded

    def cursor(
        self,
        capability: Capability[T],
        arguments: dict[str, object],
        *,
        cursor: str | None = None,
        max_items: int | None = None,
        prefetch: int = 0,
    ) -> Cursor[T]:
        """Return a cursor over a listing: the arguments are checked now, and nothing is sent until it is read."""
        item_limit = check_max_items(max_items)
        pages_ahead = check_count("prefetch", prefetch, most=_MOST_PAGES_AHEAD)
        first = {**arguments, "cursor": cursor}
        build(capability, route_for(capability, first), first)
        return Cursor(
            lambda position: self.page(capability, {**arguments, "cursor": position}),
            capability=capability.id,
            cursor=cursor,
            max_items=item_limit,
            prefetch=pages_ahead,
        )


class _Readers(dict[bool, "ResponseReader[Any]"]):
    """The response readers, by whether the response is a page."""

    def __missing__(self, paged: bool) -> ResponseReader[Any]:
        from infrai_async._protocol.decode import PAGE, VALUE  # imports cattrs, which creating a client does not need

        self.update({True: PAGE, False: VALUE})
        return self[paged]


_READERS: Final = _Readers()


class Resource:
    """A namespace of the client; it makes its calls through a dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher


def _key_for(capability: Capability[Any], chosen: str | None) -> str:
    return os.urandom(16).hex() if chosen is None else check_key(capability, chosen)
